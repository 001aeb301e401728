//! What rankers are compared on: queries, each with its candidates and their texts, and judgements.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jointly_eval::data::Label;
use jointly_eval::format::{Lines, beir, groups, trec, tsv};
use jointly_eval::{Metric, Qrels, Run};
use sha2::{Digest, Sha256};

use super::words::Words;
use crate::collection;
use crate::error::{CliError, Result};

/// A collection as it is named on the command line: a path, and settings after commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    name: Option<String>,
    split: Option<String>,
    queries: Option<PathBuf>,
    qrels: Option<PathBuf>,
    subtopics: Option<PathBuf>,
    run: Option<PathBuf>,
    sample: Option<usize>,
    seed: u64,
    level: Option<Label>,
}

const SETTINGS: [&str; 9] =
    ["name", "split", "queries", "qrels", "subtopics", "run", "sample", "seed", "level"];

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let is_setting = |part: &&str| part.split_once('=').is_some_and(|(key, _)| SETTINGS.contains(&key));
        let parts: Vec<&str> = text.split(',').collect();
        // A comma may stand in a path: only what follows the last part that is no setting is settings.
        let path_parts = parts.len() - parts.iter().rev().take_while(|part| is_setting(part)).count();
        if path_parts == 0 {
            return Err("a path is missing before the settings".into());
        }
        let mut source = Self { path: parts[..path_parts].join(",").into(), seed: 1, ..Self::default() };
        for part in &parts[path_parts..] {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if value.is_empty() {
                return Err(format!("{key}= has no value"));
            }
            let number = |what: &str| format!("{key}={value}: {what} is expected");
            match key {
                "name" => source.name = Some(value.into()),
                "split" => source.split = Some(value.into()),
                "queries" => source.queries = Some(value.into()),
                "qrels" => source.qrels = Some(value.into()),
                "subtopics" => source.subtopics = Some(value.into()),
                "run" => source.run = Some(value.into()),
                "sample" => match value.parse() {
                    Ok(count) if count > 0 => source.sample = Some(count),
                    _ => return Err(number("a number of queries")),
                },
                "seed" => source.seed = value.parse().map_err(|_| number("a number"))?,
                _ => match value.parse() {
                    Ok(level) if level > 0 => source.level = Some(level),
                    _ => return Err(number("a label, 1 or more,")),
                },
            }
        }
        Ok(source)
    }
}

/// Queries with candidates and judgements.
pub struct Collection {
    pub name: String,
    pub path: PathBuf,
    /// Where the candidates come from, for people.
    pub origin: String,
    /// The judged queries that have candidates.
    pub queries: Vec<Query>,
    /// Only of the queries that were sampled, if any were.
    pub qrels: Qrels,
    /// From which label on a document is relevant.
    pub level: Label,
    /// Every text once: those of the corpus, or those of the pool.
    pub texts: Vec<String>,
    /// How many queries with candidates have no judgement, and count nowhere.
    pub unjudged: usize,
    /// How many judged queries have no candidate, and count as 0.
    pub missing: usize,
    /// What finding the candidates took for each query, if they were found here.
    pub first_stage_ms: Option<f64>,
    pub is_bm25: bool,
}

pub struct Query {
    pub id: String,
    pub text: String,
    pub candidates: Vec<Candidate>,
}

pub struct Candidate {
    pub id: String,
    /// A place in [`Collection::texts`].
    pub text: usize,
    pub score: f64,
}

/// How candidates are found where none are given.
pub struct Search<'a> {
    pub depth: usize,
    pub cache: &'a Path,
    pub threads: usize,
}

/// A query's id and text.
type Asked = (String, String);

impl Source {
    pub fn load(&self, search: &Search<'_>) -> Result<Collection> {
        let path = &self.path;
        let mut collection = if path.is_dir() {
            self.folder(search)?
        } else if has_ending(path, ".groups.jsonl") {
            self.pool()?
        } else {
            self.parts(search)?
        };
        self.check(&mut collection, search)?;
        Ok(collection)
    }

    /// A pool whose judgements come later: all its documents count as judged, whatever labels they have.
    pub fn load_unjudged(&self, search: &Search<'_>) -> Result<Collection> {
        if !has_ending(&self.path, ".groups.jsonl") || self.qrels.is_some() || self.has_subtopics() {
            return Err(self.wrong(
                "only a pool (*.groups.jsonl) without qrels= and subtopics= can be judged by a scorer",
            ));
        }
        let mut pool =
            groups::Groups::new(Lines::open(&self.path)?).collect::<jointly_eval::Result<Vec<_>>>()?;
        for document in pool.iter_mut().flat_map(|group| &mut group.documents) {
            document.label = Some(1);
        }
        let mut collection = self.empty(self.sampled(groups::qrels(&pool)), Vec::new());
        collection.take_pool(pool);
        self.check(&mut collection, search)?;
        Ok(collection)
    }

    /// Whether judgements by subtopic are named.
    pub fn has_subtopics(&self) -> bool {
        self.subtopics.is_some()
    }

    /// Whether the judgements are of the kind that these metrics need, asked before anything is read.
    pub fn check_metrics(&self, metrics: &[Metric]) -> Result<()> {
        match metrics.iter().find(|metric| metric.needs_subtopics()) {
            Some(metric) if !self.has_subtopics() => Err(self.wrong(format_args!(
                "{metric} needs judgements by subtopic; subtopics=FILE behind the path names them (TREC's diversity qrels)"
            ))),
            _ => Ok(()),
        }
    }

    fn check(&self, collection: &mut Collection, search: &Search<'_>) -> Result<()> {
        for query in &mut collection.queries {
            query.candidates.truncate(search.depth);
        }
        if collection.queries.is_empty() {
            return Err(self.wrong("no query has both judgements and candidates"));
        }
        if self.has_subtopics() && !collection.qrels.has_subtopics() {
            return Err(self.wrong("no query of the sample is judged by subtopic"));
        }
        match collection.queries.iter().find(|query| query.text.trim().is_empty()) {
            Some(query) => Err(self.wrong(format_args!("query {} is empty", query.id))),
            None => Ok(()),
        }
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> CliError {
        CliError::Input(format!("{}: {problem}", self.path.display()))
    }

    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_else(|| self.path.display().to_string());
            let mut name = name.as_str();
            for ending in [".gz", ".zst", ".jsonl", ".tsv", ".groups"] {
                name = name.strip_suffix(ending).unwrap_or(name);
            }
            name.to_string()
        })
    }

    /// A BEIR folder.
    fn folder(&self, search: &Search<'_>) -> Result<Collection> {
        let folder = beir::Folder::new(&self.path);
        let split = self.split.as_deref().unwrap_or("test");
        let (corpus, queries, qrels) = match (&self.qrels, &self.queries) {
            (None, None) if !self.has_subtopics() => {
                let beir::Collection { corpus, queries, qrels } =
                    folder.load(split).map_err(|error| match error {
                        jointly_eval::Error::MissingFile { .. } if self.split.is_none() => {
                            CliError::Input(format!(
                                "{error}; another split is chosen with {},split=NAME",
                                self.path.display()
                            ))
                        }
                        error => error.into(),
                    })?;
                (corpus, queries.into_iter().map(|query| (query.id, query.text)).collect(), qrels)
            }
            (qrels, queries) => {
                let qrels = match qrels {
                    Some(qrels) => read_qrels(qrels)?,
                    None => match folder.qrels(split) {
                        // Nobody asked for a split: the folder is judged by subtopic alone.
                        Err(jointly_eval::Error::MissingFile { .. })
                            if self.has_subtopics() && self.split.is_none() =>
                        {
                            Qrels::new()
                        }
                        qrels => qrels?,
                    },
                };
                let queries = collection::queries(queries.as_deref().unwrap_or(&self.path))?;
                (folder.corpus()?, queries, qrels)
            }
        };
        let corpus = corpus.into_iter().map(|document| {
            let text = document.full_text();
            (document.id, text)
        });
        self.of_corpus(corpus.collect(), queries, qrels, search)
    }

    /// A corpus, with queries and judgements beside it.
    fn parts(&self, search: &Search<'_>) -> Result<Collection> {
        if self.split.is_some() {
            return Err(self.wrong("split= is for BEIR folders"));
        }
        let is_judged = self.qrels.is_some() || self.has_subtopics();
        let Some(queries) = self.queries.as_deref().filter(|_| is_judged) else {
            return Err(self.wrong(
                "this is no BEIR folder and no *.groups.jsonl; a file of texts needs queries=FILE and qrels=FILE \
                 (or subtopics=FILE) after it",
            ));
        };
        let qrels = self.qrels.as_deref().map_or_else(|| Ok(Qrels::new()), read_qrels)?;
        let documents = collection::documents(&self.path)?;
        let corpus = documents.into_iter().map(|document| (document.id, document.text)).collect();
        self.of_corpus(corpus, collection::queries(queries)?, qrels, search)
    }

    fn of_corpus(
        &self,
        corpus: Vec<(String, String)>,
        queries: Vec<Asked>,
        qrels: Qrels,
        search: &Search<'_>,
    ) -> Result<Collection> {
        let (ids, texts): (Vec<String>, Vec<String>) = corpus.into_iter().unzip();
        let qrels = self.sampled(self.with_subtopics(qrels)?);
        let mut collection = self.empty(qrels, texts);
        match &self.run {
            Some(path) => {
                let run = trec::read_run(Lines::open(path)?)?;
                collection.origin = format!("the run {}", path.display());
                let places: HashMap<&str, usize> = ids.iter().map(String::as_str).zip(0..).collect();
                collection.take_run(path, &run, &places, queries)?;
            }
            None => {
                collection.origin = format!("BM25, the best {}", search.depth);
                collection.is_bm25 = true;
                let asked: Vec<Asked> =
                    queries.into_iter().filter(|(id, _)| collection.qrels.get(id).is_some()).collect();
                let words = Words::open(search.cache, &collection.texts, search.threads)?;
                let texts: Vec<&str> = asked.iter().map(|(_, text)| text.as_str()).collect();
                let (found, ms) = words.best(&texts, search.depth)?;
                collection.first_stage_ms = Some(ms);
                for ((id, text), hits) in asked.into_iter().zip(found) {
                    let candidates = hits
                        .into_iter()
                        .map(|(place, score)| Candidate { id: ids[place].clone(), text: place, score })
                        .collect();
                    collection.add(Query { id, text, candidates });
                }
            }
        }
        collection.count_missing();
        Ok(collection)
    }

    /// A reranking pool, judged by its own labels or by a file.
    fn pool(&self) -> Result<Collection> {
        for (given, key) in [
            (self.split.is_some(), "split"),
            (self.queries.is_some(), "queries"),
            (self.run.is_some(), "run"),
        ] {
            if given {
                return Err(self.wrong(format_args!(
                    "{key}= is not for a pool, which has its queries and candidates in it"
                )));
            }
        }
        let pool = groups::Groups::new(Lines::open(&self.path)?).collect::<jointly_eval::Result<Vec<_>>>()?;
        let qrels = match &self.qrels {
            Some(path) => read_qrels(path)?,
            None => groups::qrels(&pool),
        };
        let qrels = self.with_subtopics(qrels)?;
        if qrels.is_empty() {
            return Err(self.wrong("no document has a label; qrels=FILE names judgements"));
        }
        let mut collection = self.empty(self.sampled(qrels), Vec::new());
        collection.take_pool(pool);
        Ok(collection)
    }

    fn empty(&self, qrels: Qrels, texts: Vec<String>) -> Collection {
        Collection {
            name: self.name(),
            path: self.path.clone(),
            origin: String::new(),
            queries: Vec::new(),
            qrels,
            level: self.level.unwrap_or(1),
            texts,
            unjudged: 0,
            missing: 0,
            first_stage_ms: None,
            is_bm25: false,
        }
    }

    /// Judgements, with those by subtopic where there are any.
    fn with_subtopics(&self, mut qrels: Qrels) -> Result<Qrels> {
        if let Some(path) = &self.subtopics {
            qrels.add_subtopics(trec::read_subtopic_qrels(Lines::open(path)?)?);
        }
        Ok(qrels)
    }

    /// The judgements of `sample` queries: those with the smallest hashes of seed and id, so that which they are does
    /// not depend on the order of the file.
    fn sampled(&self, mut qrels: Qrels) -> Qrels {
        let Some(sample) = self.sample else { return qrels };
        let hash = |query: &str| Sha256::digest(format!("{}\n{query}", self.seed));
        let mut queries: Vec<String> = qrels.iter().map(|(query, _)| query.to_string()).collect();
        queries.sort_by_cached_key(|query| hash(query).to_vec());
        let kept: HashSet<String> = queries.into_iter().take(sample).collect();
        qrels.retain(|query| kept.contains(query));
        qrels
    }
}

impl Collection {
    /// A pool of judged documents for each query.
    pub fn of_groups(name: &str, pool: Vec<groups::Group>) -> Self {
        let source = Source { name: Some(name.to_string()), ..Source::default() };
        let mut collection = source.empty(groups::qrels(&pool), Vec::new());
        collection.take_pool(pool);
        collection
    }

    fn take_pool(&mut self, pool: Vec<groups::Group>) {
        self.origin = "the pool".into();
        // The same text may stand under many queries, and one id, in pools that count from 0, for many texts.
        let mut places: HashMap<String, usize> = HashMap::new();
        for group in pool {
            let scores = group.first_stage();
            let candidates = group.documents.into_iter().zip(scores).map(|(document, found)| {
                let next = places.len();
                let text = *places.entry(document.text).or_insert(next);
                Candidate { id: document.id, text, score: found.score }
            });
            let candidates: Vec<Candidate> = candidates.collect();
            self.add(Query { id: group.query_id, text: group.query, candidates });
        }
        let mut texts: Vec<(String, usize)> = places.into_iter().collect();
        texts.sort_unstable_by_key(|(_, place)| *place);
        self.texts = texts.into_iter().map(|(text, _)| text).collect();
        self.count_missing();
    }

    /// Takes a query if it is judged. Candidates are put in the order of their scores.
    fn add(&mut self, mut query: Query) {
        if self.qrels.get(&query.id).is_none() {
            self.unjudged += 1;
        } else if !query.candidates.is_empty() {
            let scores: Vec<f64> = query.candidates.iter().map(|candidate| candidate.score).collect();
            let order = super::ranker::order(&query.candidates, &scores);
            let mut candidates: Vec<Option<Candidate>> = query.candidates.into_iter().map(Some).collect();
            query.candidates = order.into_iter().filter_map(|place| candidates[place].take()).collect();
            self.queries.push(query);
        }
    }

    fn count_missing(&mut self) {
        let mut asked: Vec<&str> = self.queries.iter().map(|query| query.id.as_str()).collect();
        asked.sort_unstable();
        self.missing = self.qrels.iter().filter(|(query, _)| asked.binary_search(query).is_err()).count();
    }

    fn take_run(
        &mut self,
        path: &Path,
        run: &Run,
        places: &HashMap<&str, usize>,
        queries: Vec<Asked>,
    ) -> Result<()> {
        let texts: BTreeMap<String, String> = queries.into_iter().collect();
        for (query, retrieved) in run.iter() {
            if self.qrels.get(query).is_none() {
                self.unjudged += 1;
                continue;
            }
            let Some(text) = texts.get(query) else {
                return Err(at_line(
                    path,
                    0,
                    query,
                    &format!("query {query} has no text among the queries"),
                )?);
            };
            let mut candidates = Vec::with_capacity(retrieved.len());
            for hit in retrieved {
                let Some(&place) = places.get(hit.document.as_str()) else {
                    let problem = format!("document {} has no text in {}", hit.document, self.path.display());
                    return Err(at_line(path, 2, &hit.document, &problem)?);
                };
                candidates.push(Candidate { id: hit.document.clone(), text: place, score: hit.score });
            }
            self.add(Query { id: query.to_string(), text: text.clone(), candidates });
        }
        Ok(())
    }

    /// How many judged queries were not judged by subtopic, and count in no metric of subtopics; none if no query was.
    pub fn without_subtopics(&self) -> Option<usize> {
        let without = || self.qrels.iter().filter(|(query, _)| self.qrels.subtopics(query).is_none()).count();
        self.qrels.has_subtopics().then(without)
    }

    /// The number of pairs of a query and a candidate.
    pub fn pairs(&self) -> usize {
        self.queries.iter().map(|query| query.candidates.len()).sum()
    }

    /// Scores, one for each candidate of each query, as a run.
    pub fn run(&self, scores: &[Vec<f64>]) -> Result<Run> {
        let mut run = Run::new();
        for (query, scores) in self.queries.iter().zip(scores) {
            let retrieved = query.candidates.iter().zip(scores);
            let retrieved =
                retrieved.map(|(candidate, score)| jointly_eval::Retrieved::new(&candidate.id, *score));
            run.insert(&query.id, retrieved.collect())?;
        }
        Ok(run)
    }
}

/// An error about the first line of a run that has `value` in its column, from 0.
fn at_line(path: &Path, column: usize, value: &str, problem: &str) -> Result<CliError> {
    let mut lines = Lines::open(path)?;
    while let Some((number, line)) = lines.next_line()? {
        if line.split_whitespace().nth(column) == Some(value) {
            return Ok(CliError::Input(format!("{}:{number}: {problem}", path.display())));
        }
    }
    Ok(CliError::Input(format!("{}: {problem}", path.display())))
}

/// Judgements in TREC's four columns or in BEIR's three; the first line says which.
fn read_qrels(path: &Path) -> Result<Qrels> {
    let columns = match Lines::open(path)?.next_line()? {
        Some((_, line)) => line.split_whitespace().count(),
        None => 0,
    };
    let lines = Lines::open(path)?;
    Ok(if columns == 3 { tsv::read_qrels(lines)? } else { trec::read_qrels(lines)? })
}

fn has_ending(path: &Path, ending: &str) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    name.ends_with(ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_the_path() {
        let source: Source = "a,b/x.groups.jsonl,qrels=q,x.txt".parse().unwrap();
        // What is no setting belongs to the path, whatever stands before it.
        assert_eq!(source.path, Path::new("a,b/x.groups.jsonl,qrels=q,x.txt"));
        let source: Source = "a,b/x.groups.jsonl.gz,qrels=q.txt,sample=5,seed=7,level=2".parse().unwrap();
        assert_eq!(source.path, Path::new("a,b/x.groups.jsonl.gz"));
        assert_eq!(
            (source.name(), source.sample, source.seed, source.level),
            ("x".into(), Some(5), 7, Some(2))
        );
        let source: Source = "x.groups.jsonl,subtopics=s.txt".parse().unwrap();
        assert!(source.has_subtopics() && source.qrels.is_none());
        for wrong in ["sample=5", "x,sample=0", "x,level=0", "x,seed=y", "x,name=", "x,subtopics="] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_sample_does_not_depend_on_the_order() {
        let qrels = |ids: &[usize]| {
            let mut qrels = Qrels::new();
            for id in ids {
                qrels.insert(&format!("q{id}"), "d", 1);
            }
            qrels
        };
        let source = |text: &str| text.parse::<Source>().unwrap();
        let (up, down): (Vec<usize>, Vec<usize>) = ((0..50).collect(), (0..50).rev().collect());
        let sampled = source("x,sample=10").sampled(qrels(&up));
        assert_eq!(sampled.len(), 10);
        assert_eq!(sampled, source("x,sample=10").sampled(qrels(&down)));
        assert_ne!(sampled, source("x,sample=10,seed=2").sampled(qrels(&up)));
        assert_eq!(source("x,sample=99").sampled(qrels(&up)).len(), 50);
        let mut by_subtopic = Qrels::new();
        for id in up {
            by_subtopic.insert_subtopic(&format!("q{id}"), "1", "d", 1);
        }
        let by_subtopic = source("x,sample=10").sampled(by_subtopic);
        let ids = |qrels: &Qrels| qrels.iter().map(|(query, _)| query.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&by_subtopic), ids(&sampled));
        assert!(ids(&by_subtopic).iter().all(|query| by_subtopic.subtopics(query).is_some()));
    }
}
