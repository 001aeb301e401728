//! Queries with candidates, judged or not, as people have them: groups, pairs on lines, or a BEIR folder with a run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use clap::Args;
use jointly::{CrossEncoder, Pair, ScoreOptions};
use jointly_eval::Qrels;
use jointly_eval::data::Label;
use jointly_eval::format::groups::{self, Groups};
use jointly_eval::format::{Lines, beir, trec, tsv};
use jointly_eval::order::{self, ScoreWidth};
use serde::Deserialize;
use serde_json::Value;

use crate::Global;
use crate::cache::{self, Cache, Key, Scored};
use crate::error::{CliError, Result};
use crate::model;

/// What is said about pools in the help of the commands that read them.
pub const HELP: &str = "\
DATA is one of: *.groups.jsonl, a line for each query with its `documents` and their `label`; JSON lines with `query` and
`document` and optional `query_id`, `document_id`, `label`; TSV with the columns query, document, or query_id, document_id,
query, document, with or without a label behind them; each also as .gz or .zst; or a BEIR folder, with --run. Labels are
whole numbers, 0 is not relevant, none or null is not judged.";

/// Where candidates and judgements are, if not in DATA.
#[derive(Args)]
pub struct PoolArguments {
    /// The candidates of a BEIR folder's queries: a TREC run, as `jointly retrieve` prints it
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// Judgements in place of DATA's labels: a file (TREC or BEIR's TSV), or the name of a BEIR folder's split (dev)
    #[arg(long, value_name = "FILE|SPLIT")]
    judgements: Option<String>,
    /// Read only the first N candidates of each query
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
}

/// Queries with their candidates.
pub struct Pool {
    pub queries: Vec<Query>,
    /// All judgements that are known, also of documents that are not in the pool.
    pub qrels: Qrels,
    /// The files that it was read from.
    pub files: Vec<PathBuf>,
}

pub struct Query {
    pub id: String,
    pub text: String,
    pub documents: Vec<Document>,
}

pub struct Document {
    pub id: String,
    pub text: String,
    pub label: Option<Label>,
    /// What a model gave it, where the input says so.
    pub logit: Option<f64>,
}

/// A line of pairs.
#[derive(Deserialize)]
struct Row {
    query: Option<String>,
    document: Option<String>,
    query_id: Option<Value>,
    document_id: Option<Value>,
    label: Option<Label>,
    logit: Option<f64>,
}

impl PoolArguments {
    /// Gives the queries one by one. Of groups no more than one is in memory at a time.
    pub fn each(&self, data: &Path, mut give: impl FnMut(Query) -> Result<()>) -> Result<()> {
        if data.is_dir() || self.run.is_some() || self.judgements.is_some() || !first_line(data)?.1 {
            return self.read(data)?.queries.into_iter().try_for_each(give);
        }
        for group in Groups::new(Lines::open(data)?) {
            let mut query = of_group(group?);
            query.documents.truncate(self.depth.unwrap_or(usize::MAX));
            give(query)?;
        }
        Ok(())
    }

    pub fn read(&self, data: &Path) -> Result<Pool> {
        let is_folder = data.is_dir();
        if is_folder != self.run.is_some() {
            let problem = match is_folder {
                true => "a BEIR folder has no candidates; --run names them",
                false => "--run gives the candidates of a BEIR folder, and this is a file",
            };
            return Err(CliError::Input(format!("{}: {problem}", data.display())));
        }
        let mut pool = match &self.run {
            Some(run) => folder(data, run)?,
            None => file(data)?,
        };
        if let Some(judgements) = &self.judgements {
            pool.qrels = if is_folder && !Path::new(judgements).is_file() {
                beir::Folder::new(data).qrels(judgements)?
            } else {
                let path = PathBuf::from(judgements);
                let is_tsv = judgements.ends_with(".tsv") || judgements.contains(".tsv.");
                let lines = Lines::open(&path)?;
                let qrels = if is_tsv { tsv::read_qrels(lines)? } else { trec::read_qrels(lines)? };
                pool.files.push(path);
                qrels
            };
            for query in &mut pool.queries {
                let labels = pool.qrels.get(&query.id);
                for document in &mut query.documents {
                    document.label = labels.and_then(|labels| labels.get(&document.id)).copied();
                }
            }
            if pool.queries.iter().all(|query| pool.qrels.get(&query.id).is_none()) {
                let problem = "none of the queries is judged here: are these the right judgements?";
                return Err(CliError::Input(format!("{judgements}: {problem}")));
            }
            // Without judgements of their own, queries of a folder are those of another split.
            if is_folder {
                pool.queries.retain(|query| pool.qrels.get(&query.id).is_some());
            }
        }
        for query in &mut pool.queries {
            query.documents.truncate(self.depth.unwrap_or(usize::MAX));
        }
        Ok(pool)
    }
}

impl Pool {
    pub fn pairs(&self) -> usize {
        self.queries.iter().map(|query| query.documents.len()).sum()
    }

    /// All candidates, query by query. What `cache` has is not computed again, and what is computed goes there.
    pub fn score(
        &self,
        model: &CrossEncoder,
        options: &ScoreOptions,
        mut cache: Option<&mut Cache>,
        global: Global,
    ) -> Result<Vec<Vec<Scored>>> {
        let bar =
            model::bar(Some(self.pairs() as u64), "[{bar:30}] {pos}/{len} pairs {msg}, {eta} left", global);
        bar.set_message(model.info().precision.to_string());
        let mut all = Vec::with_capacity(self.queries.len());
        for query in &self.queries {
            let (keys, todo): (Vec<Key>, Vec<usize>) = match &cache {
                None => (Vec::new(), (0..query.documents.len()).collect()),
                Some(cache) => {
                    let key = |document: &Document| cache::key(&query.text, &document.text);
                    let keys: Vec<Key> = query.documents.iter().map(key).collect();
                    let todo = cache.missing(&keys);
                    (keys, todo)
                }
            };
            let pairs: Vec<Pair<'_>> = todo
                .iter()
                .map(|&place| Pair { query: &query.text, document: &query.documents[place].text })
                .collect();
            let at = |index: usize| {
                let document = todo.get(index).map_or("", |&place| query.documents[place].id.as_str());
                format!("query {}, document {document}", query.id)
            };
            let scored = Scored::all(model, &pairs, options, at)?;
            all.push(match &mut cache {
                None => scored,
                Some(cache) => {
                    cache.add(&keys, &todo, &scored)?;
                    keys.iter().filter_map(|key| cache.get(key)).collect()
                }
            });
            bar.inc(query.documents.len() as u64);
        }
        Ok(all)
    }
}

/// The logits alone.
pub fn logits(scored: &[Vec<Scored>]) -> Vec<Vec<f64>> {
    scored.iter().map(|query| query.iter().map(|scored| f64::from(scored.logit)).collect()).collect()
}

/// A BEIR folder with the candidates of a run, best first.
fn folder(data: &Path, run: &Path) -> Result<Pool> {
    let folder = beir::Folder::new(data);
    let texts: HashMap<String, String> =
        folder.corpus()?.into_iter().map(|document| (document.id.clone(), document.full_text())).collect();
    let candidates = trec::read_run(Lines::open(run)?)?;
    let mut queries = Vec::new();
    for query in folder.queries()? {
        let Some(retrieved) = candidates.get(&query.id) else { continue };
        let documents = order::ranking(retrieved, ScoreWidth::F64).into_iter().map(|hit| {
            let text = texts.get(&hit.document).ok_or_else(|| {
                let (run, data) = (run.display(), data.display());
                CliError::Input(format!("{run}: document {} is not in the corpus of {data}", hit.document))
            })?;
            Ok(Document { id: hit.document.clone(), text: text.clone(), label: None, logit: None })
        });
        queries.push(Query { id: query.id, text: query.text, documents: documents.collect::<Result<_>>()? });
    }
    if queries.is_empty() {
        let problem = format!("none of its queries is among those of {}", data.display());
        return Err(CliError::Input(format!("{}: {problem}", run.display())));
    }
    Ok(Pool { queries, qrels: Qrels::new(), files: vec![run.to_path_buf()] })
}

/// Whether a file is JSON, and whether it is groups.
fn first_line(data: &Path) -> Result<(bool, bool)> {
    let first = Lines::open(data)?.next_line()?.map(|(_, line)| line.to_string()).unwrap_or_default();
    let is_json = first.trim_start().starts_with('{');
    let is_groups =
        is_json && serde_json::from_str::<Value>(&first).is_ok_and(|line| line.get("documents").is_some());
    Ok((is_json, is_groups))
}

fn of_group(group: groups::Group) -> Query {
    let document = |candidate: groups::Candidate| Document {
        id: candidate.id,
        text: candidate.text,
        label: candidate.label,
        logit: None,
    };
    Query {
        id: group.query_id,
        text: group.query,
        documents: group.documents.into_iter().map(document).collect(),
    }
}

fn file(data: &Path) -> Result<Pool> {
    let (is_json, is_groups) = first_line(data)?;
    if !is_groups {
        return lines(data, is_json);
    }
    let groups: Vec<groups::Group> = Groups::new(Lines::open(data)?).collect::<jointly_eval::Result<_>>()?;
    let qrels = groups::qrels(&groups);
    let queries = groups.into_iter().map(of_group).collect();
    Ok(Pool { queries, qrels, files: vec![data.to_path_buf()] })
}

/// Pairs on lines; those of one query id, or of one query, belong together.
fn lines(data: &Path, is_json: bool) -> Result<Pool> {
    let mut lines = Lines::open(data)?;
    let mut columns = None;
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut queries: Vec<Query> = Vec::new();
    let mut seen = HashSet::new();
    let mut qrels = Qrels::new();
    while let Some((number, line)) = lines.next_line()? {
        let fault = |problem: String| CliError::Input(format!("{}:{number}: {problem}", data.display()));
        let row = if is_json {
            serde_json::from_str(line).map_err(|error| fault(crate::input::json_problem(&error)))?
        } else {
            tsv_row(line, &mut columns).map_err(fault)?
        };
        let Row { query, document, query_id, document_id, label, logit } = row;
        if logit.is_none() && (query.is_none() || document.is_none()) {
            return Err(fault("neither `query` and `document`, nor `logit` (a finite number)".into()));
        }
        let Some(id) = query_id.map(as_text).or_else(|| query.clone()) else {
            return Err(fault("neither `query_id` nor `query`".into()));
        };
        let place = *places.entry(id.clone()).or_insert(queries.len());
        if place == queries.len() {
            queries.push(Query {
                id: id.clone(),
                text: query.clone().unwrap_or_default(),
                documents: Vec::new(),
            });
        }
        let of_query = &mut queries[place];
        if query.as_ref().is_some_and(|query| *query != of_query.text) {
            return Err(fault(format!("query {id} had another text in an earlier line")));
        }
        let document_id = document_id.map_or_else(|| format!("line {number}"), as_text);
        if !seen.insert((place, document_id.clone())) {
            return Err(fault(format!("document {document_id} stands under query {id} already")));
        }
        if let Some(label) = label {
            qrels.insert(&id, &document_id, label);
        }
        let text = document.unwrap_or_default();
        of_query.documents.push(Document { id: document_id, text, label, logit });
    }
    if queries.is_empty() {
        return Err(CliError::Input(format!("{}: no pair in it", data.display())));
    }
    Ok(Pool { queries, qrels, files: vec![data.to_path_buf()] })
}

/// Two or four columns, and a label behind them in three or five; nothing there is a pair that was not judged.
fn tsv_row(line: &str, columns: &mut Option<usize>) -> std::result::Result<Row, String> {
    let cells: Vec<&str> = line.split('\t').collect();
    let expected = *columns.get_or_insert(cells.len());
    if cells.len() != expected {
        return Err(format!("{} columns, and the first line has {expected}", cells.len()));
    }
    let (cells, label) = match cells.len() {
        3 | 5 => {
            let last = cells[cells.len() - 1].trim();
            let label: Option<Label> = match last {
                "" => None,
                _ => Some(last.parse().map_err(|_| {
                    format!(
                        "the last column is {last:?}; a label is a whole number from -128 to 127, or nothing"
                    )
                })?),
            };
            (&cells[..cells.len() - 1], label)
        }
        2 | 4 => (&cells[..], None),
        found => return Err(format!("{found} columns; there are 2 or 4, and a label behind them in 3 or 5")),
    };
    let text = |cell: &str| Some(cell.to_string());
    let id = |cell: &str| Some(Value::from(cell));
    let (query_id, document_id, query, document) = match cells {
        [query_id, document_id, query, document] => {
            (id(query_id), id(document_id), text(query), text(document))
        }
        _ => (None, None, text(cells[0]), text(cells[1])),
    };
    Ok(Row { query, document, query_id, document_id, label, logit: None })
}

fn as_text(id: Value) -> String {
    match id {
        Value::String(id) => id,
        id => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_a_label_is_not_judged() {
        let columns = &mut None;
        let labels: Vec<_> = ["q\td\ta\tb\t2", "q\te\ta\tc\t", "q\tf\ta\td\t-1"]
            .map(|line| tsv_row(line, columns).unwrap().label)
            .into();
        assert_eq!(labels, [Some(2), None, Some(-1)]);
        assert!(tsv_row("q\td\ta\tb\tyes", columns).is_err());
        assert!(tsv_row("q\td\ta\tb", columns).is_err());
    }
}
