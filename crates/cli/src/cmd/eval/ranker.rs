//! What is compared: rankers, all of which order the same candidates.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Instant;

use indicatif::ProgressBar;
use jointly::rank::{Cascade, Rescore, Scorer};
use jointly::{BiEncoder, CrossEncoder, LoadOptions, Pair, Precision, Role, Score, ScoreOptions, ScoreScale};
use sha2::{Digest, Sha256};

use super::collection::{Candidate, Collection, Query, Search};
use super::stages::StageSums;
use super::words::Words;
use crate::Global;
use crate::cache::{self, Cache, Key, Scored};
use crate::error::{CliError, Result};
use crate::model;

/// What reciprocal rank fusion adds to every rank.
const RANK_OFFSET: f64 = jointly_retrieve::fusion::RANK_OFFSET;

/// How candidates are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// As the candidates came.
    First,
    Bm25,
    Bi(Model),
    /// Reciprocal rank fusion of the first stage and the bi-encoder.
    Hybrid(Model),
    Cross(Model),
    /// The stages of a file, over the first stage; the name is the path.
    File(Model),
    /// The best `keep` of `first` in the order of `second`, the others below them as they were.
    Cascade {
        first: Box<Method>,
        keep: usize,
        second: Box<Method>,
    },
}

/// A model as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Model {
    pub name: String,
    /// None: the fastest that its receipt certifies.
    pub precision: Option<Precision>,
}

/// A method and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranker {
    pub name: String,
    pub method: Method,
}

impl FromStr for Ranker {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, spec) = match text.split_once('=') {
            // A path may have = in it, behind the colon.
            Some((name, spec)) if !name.contains([':', '>']) => (Some(name.trim()), spec),
            _ => (None, text),
        };
        let method: Method = spec.parse()?;
        let name = name.map_or_else(|| method.short(), str::to_string);
        if name.is_empty() {
            return Err("a ranker's name is empty".into());
        }
        Ok(Self { name, method })
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let stages: Vec<&str> = text.split('>').map(str::trim).collect();
        let Some((first, later)) = stages.split_first() else { return Err("no ranker".into()) };
        let mut method = Self::one(first)?;
        if later.len() % 2 != 0 {
            return Err("a cascade is RANKER > COUNT > RANKER: how many of the best go on".into());
        }
        for stage in later.chunks_exact(2) {
            let keep = stage[0].parse().ok().filter(|keep| *keep > 0);
            let keep = keep.ok_or_else(|| format!("{:?} is not how many of the best go on", stage[0]))?;
            method = Self::Cascade { first: Box::new(method), keep, second: Box::new(Self::one(stage[1])?) };
        }
        Ok(method)
    }
}

impl Method {
    fn one(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "first" => Ok(Self::First),
            None if text == "bm25" => Ok(Self::Bm25),
            Some(("bi", name)) => Ok(Self::Bi(Model::parse(name)?)),
            Some(("hybrid", name)) => Ok(Self::Hybrid(Model::parse(name)?)),
            Some(("cross", name)) => Ok(Self::Cross(Model::parse(name)?)),
            Some(("cascade", path)) => Ok(Self::File(Model::named(path, Some(Precision::F32))?)),
            _ => Err("a ranker is first, bm25, bi:MODEL, hybrid:MODEL, cross:MODEL or cascade:FILE".into()),
        }
    }

    /// As it was given, with only the last part of a path.
    fn short(&self) -> String {
        match self {
            Self::First => "first".into(),
            Self::Bm25 => "bm25".into(),
            Self::Bi(model) => format!("bi:{}", model.short()),
            Self::Hybrid(model) => format!("hybrid:{}", model.short()),
            Self::Cross(model) => format!("cross:{}", model.short()),
            Self::File(path) => format!("cascade:{}", path.short()),
            Self::Cascade { first, keep, second } => {
                format!("{} > {keep} > {}", first.short(), second.short())
            }
        }
    }

    /// The models that it needs, and whether each is a cross-encoder.
    pub fn models(&self) -> Vec<(&Model, Kind)> {
        match self {
            Self::First | Self::Bm25 => Vec::new(),
            Self::Bi(model) | Self::Hybrid(model) => vec![(model, Kind::Bi)],
            Self::Cross(model) => vec![(model, Kind::Cross)],
            Self::File(path) => vec![(path, Kind::Cascade)],
            Self::Cascade { first, second, .. } => [first.models(), second.models()].concat(),
        }
    }
}

impl Model {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        if let Some((name, precision)) = text.rsplit_once('@') {
            let found = Precision::ALL.into_iter().find(|known| known.name() == precision);
            if precision == "auto" || found.is_some() {
                return Self::named(name, found);
            }
        }
        Self::named(text, Some(Precision::F32))
    }

    fn named(name: &str, precision: Option<Precision>) -> std::result::Result<Self, String> {
        if name.is_empty() {
            return Err("the model's name is missing behind the colon".into());
        }
        Ok(Self { name: name.into(), precision })
    }

    fn short(&self) -> String {
        let name = self.name.trim_end_matches('/').rsplit('/').next().unwrap_or(&self.name);
        match self.precision {
            None => format!("{name}@auto"),
            Some(Precision::F32) => name.into(),
            Some(precision) => format!("{name}@{precision}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Bi,
    Cross,
    /// Of a file.
    Cascade,
}

/// What a model gave for every pair of one collection, as [`Collection::queries`] has them.
#[derive(Default)]
pub struct Scores {
    pub of: Vec<Vec<Scored>>,
    /// Milliseconds for each query with the threads of this run; none if nothing was computed with so many.
    pub ms: Option<f64>,
    pub computed: usize,
    pub cached: usize,
    /// What the stages of a file did; of a model, none.
    pub stages: Vec<StageSums>,
}

/// A model at work.
pub enum Loaded {
    Bi(Box<BiEncoder>, HashMap<usize, Vec<f32>>),
    Cross(Box<CrossEncoder>),
}

/// What of a model stands in the report.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Description {
    pub model: String,
    pub kind: &'static str,
    pub architecture: &'static str,
    pub precision: String,
    pub max_length: usize,
    pub isa: String,
    /// Of the model's files.
    pub sha256: String,
}

impl Loaded {
    pub fn load(
        kind: Kind,
        named: &Model,
        max_length: Option<usize>,
        global: Global,
    ) -> Result<(Self, Description)> {
        let mut options = LoadOptions::new();
        if let Some(max_length) = max_length {
            options = options.max_length(max_length);
        }
        options = options.precision_or_auto(named.precision);
        match kind {
            Kind::Cascade => Err(CliError::Failed(format!("{}: a cascade is no model", named.name))),
            Kind::Cross => {
                let model = model::load(&named.name, options, global)?;
                let description = Description::of_cross_encoder(&named.name, &model)?;
                Ok((Self::Cross(Box::new(model)), description))
            }
            Kind::Bi => {
                let (files, _) = model::find_bi_encoder(&named.name, global)?;
                let model = model::load_bi_encoder(files, options, global)?;
                let info = model.info();
                let description = Description {
                    model: named.name.clone(),
                    kind: "bi-encoder",
                    architecture: info.architecture,
                    precision: info.precision.to_string(),
                    max_length: info.max_length,
                    isa: info.isa.clone(),
                    sha256: hash(model.files())?,
                };
                Ok((Self::Bi(Box::new(model), HashMap::new()), description))
            }
        }
    }

    /// The line that says what scores are of. A trial is part of it, so that a program that computes otherwise does not
    /// take over the scores of another version.
    pub fn made(&self, description: &Description) -> Result<String> {
        Ok(description.line(&match self {
            Self::Cross(model) => trial(model)?,
            Self::Bi(model, _) => model.embed(&[TRIAL.document], Role::Document)?.data.to_vec(),
        }))
    }

    /// Scores all pairs of a collection that the cache does not have, query by query.
    pub fn score(&mut self, collection: &Collection, cache: &mut Cache, bar: &ProgressBar) -> Result<Scores> {
        let threads = match self {
            Self::Bi(model, vectors) => {
                vectors.clear(); // they are of another collection's texts
                model.info().threads
            }
            Self::Cross(model) => model.info().threads,
        };
        let mut scores = Scores { of: Vec::with_capacity(collection.queries.len()), ..Scores::default() };
        for query in &collection.queries {
            let texts: Vec<&str> =
                query.candidates.iter().map(|candidate| collection.texts[candidate.text].as_str()).collect();
            let keys: Vec<Key> = texts.iter().map(|text| cache::key(&query.text, text)).collect();
            let cached = keys.iter().filter(|key| cache.get(key).is_some()).count();
            scores.cached += cached;
            scores.computed += keys.len() - cached;
            let todo = cache.missing(&keys);
            if !todo.is_empty() {
                cache.add(&keys, &todo, &self.score_query(query, collection, &todo)?)?;
            }
            // All are there now.
            scores.of.push(
                keys.iter().filter_map(|key| cache.get(key)).map(|scored| self.calibrated(scored)).collect(),
            );
            bar.inc(keys.len() as u64);
        }
        scores.ms = ms_per_query(&scores.of, threads);
        Ok(scores)
    }

    /// With the model's calibration, if it has one. It is not in the cache: it may change while the logits stay.
    fn calibrated(&self, scored: Scored) -> Scored {
        let Self::Cross(model) = self else { return scored };
        let calibrated = model.calibration().map(|calibration| calibration.map.apply(scored.logit));
        Scored { probability: calibrated.or(scored.probability), ..scored }
    }

    /// What some candidates of a query are given.
    fn score_query(&mut self, query: &Query, collection: &Collection, todo: &[usize]) -> Result<Vec<Scored>> {
        let text = |place: usize| collection.texts[query.candidates[place].text].as_str();
        let at = |place: usize| {
            format!(
                "{}: query {}, document {}",
                collection.path.display(),
                query.id,
                query.candidates[place].id
            )
        };
        match self {
            Self::Cross(model) => {
                let pairs: Vec<Pair<'_>> =
                    todo.iter().map(|&place| Pair { query: &query.text, document: text(place) }).collect();
                Scored::all(model, &pairs, &ScoreOptions::new(), |index| at(todo[index]))
            }
            Self::Bi(model, vectors) => {
                // Documents are embedded before anybody asks; a query costs its own vector and the products.
                let places: Vec<usize> = todo.iter().map(|&place| query.candidates[place].text).collect();
                let mut new: Vec<usize> =
                    places.iter().copied().filter(|place| !vectors.contains_key(place)).collect();
                new.sort_unstable();
                new.dedup();
                let texts: Vec<&str> = new.iter().map(|&place| collection.texts[place].as_str()).collect();
                let embedded = model.embed(&texts, Role::Document)?;
                for (row, place) in new.into_iter().enumerate() {
                    vectors.insert(place, embedded.row(row).to_vec());
                }
                let started = Instant::now();
                let asked = model.embed(&[query.text.as_str()], Role::Query)?;
                let products = places.iter().map(|place| {
                    let vector = vectors.get(place).map_or(&[][..], Vec::as_slice);
                    asked.row(0).iter().zip(vector).map(|(a, b)| a * b).sum::<f32>()
                });
                let products: Vec<f32> = products.collect();
                let ms = (started.elapsed().as_secs_f64() * 1e3 / products.len() as f64) as f32;
                let threads = model.info().threads;
                Ok(products
                    .into_iter()
                    .map(|logit| Scored { logit, probability: None, ms, threads })
                    .collect())
            }
        }
    }
}

impl Description {
    fn of_cross_encoder(name: &str, model: &CrossEncoder) -> Result<Self> {
        let info = model.info();
        Ok(Self {
            model: name.to_string(),
            kind: "cross-encoder",
            architecture: info.architecture,
            precision: info.precision.to_string(),
            max_length: info.max_length,
            isa: info.isa.clone(),
            sha256: hash(model.files())?,
        })
    }

    fn line(&self, trial: &[f32]) -> String {
        let mut hash = Sha256::new();
        trial.iter().for_each(|value| hash.update(value.to_bits().to_le_bytes()));
        let trial = &cache::hex(&hash.finalize())[..16];
        let Self { kind, precision, max_length, isa, sha256, .. } = self;
        format!(
            "{kind} sha256={sha256} precision={precision} max_length={max_length} isa={isa} trial={trial}"
        )
    }
}

/// What [`Loaded::made`] says, of a cross-encoder that is loaded already and scores with `options`.
pub fn made_by(model: &CrossEncoder, options: &ScoreOptions) -> Result<String> {
    let line = Description::of_cross_encoder("", model)?.line(&trial(model)?);
    let (options, usual) = (format!("{options:?}"), format!("{:?}", ScoreOptions::new()));
    Ok(if options == usual { line } else { format!("{line} options={options}") })
}

const TRIAL: Pair<'_> =
    Pair { query: "Wo beginnt die Elbe?", document: "Ninety-five moons of Jupiter are known (2023)." };

fn trial(model: &CrossEncoder) -> Result<Vec<f32>> {
    let scores = model.score_pairs(&[TRIAL]).map_err(|error| match error {
        jointly::Error::Pair { source, .. } => CliError::from(*source), // nobody gave this pair
        error => error.into(),
    })?;
    Ok(scores.iter().map(|score| score.logit).collect())
}

/// The mean time of a query: of the pairs that were computed with so many threads, as if all had been.
fn ms_per_query(of: &[Vec<Scored>], threads: usize) -> Option<f64> {
    let pairs = of.iter().map(Vec::len).sum::<usize>();
    Scored::mean_ms(of.iter().flatten(), threads).map(|ms| ms * pairs as f64 / of.len() as f64)
}

/// Of all files of a model.
pub fn hash(files: &jointly::files::ModelFiles) -> Result<String> {
    let mut hash = Sha256::new();
    for file in jointly::receipt::pin_all(files)? {
        hash.update(format!("{} {} {}\n", file.name, file.size, file.sha256));
    }
    Ok(cache::hex(&hash.finalize()))
}

/// What every model gave on one collection.
pub type OfModels = HashMap<(Model, Kind), Scores>;

/// A collection as one ranker orders it.
pub struct Ranked {
    /// One for each candidate of each query.
    pub scores: Vec<Vec<f64>>,
    /// What a query costs beyond the first stage, where that is known.
    pub ms: Option<f64>,
}

impl Method {
    pub fn rank(&self, collection: &Collection, models: &OfModels, search: &Search<'_>) -> Result<Ranked> {
        let of = |model: &Model, kind| {
            models
                .get(&(model.clone(), kind))
                .ok_or_else(|| CliError::Failed(format!("{} was not run", model.name)))
        };
        let logits = |scores: &Scores| -> Vec<Vec<f64>> {
            scores
                .of
                .iter()
                .map(|scores| scores.iter().map(|scored| f64::from(scored.logit)).collect())
                .collect()
        };
        Ok(match self {
            Self::First => Ranked { scores: first_scores(collection), ms: collection.first_stage_ms },
            Self::Bm25 if collection.is_bm25 => {
                Ranked { scores: first_scores(collection), ms: collection.first_stage_ms }
            }
            Self::Bm25 => {
                let words = Words::open(search.cache, &collection.texts, search.threads)?;
                let texts: Vec<&str> = collection.queries.iter().map(|query| query.text.as_str()).collect();
                let (found, ms) = words.best(&texts, words.len())?;
                let of_query = |(query, hits): (&Query, Vec<(usize, f64)>)| {
                    let hits: HashMap<usize, f64> = hits.into_iter().collect();
                    query.candidates.iter().map(|c| hits.get(&c.text).copied().unwrap_or(0.0)).collect()
                };
                let scores = collection.queries.iter().zip(found).map(of_query).collect();
                Ranked { scores, ms: Some(ms) }
            }
            Self::Bi(model) => {
                let scores = of(model, Kind::Bi)?;
                Ranked { scores: logits(scores), ms: scores.ms }
            }
            Self::Cross(model) => {
                let scores = of(model, Kind::Cross)?;
                Ranked { scores: logits(scores), ms: scores.ms }
            }
            Self::File(path) => {
                let scores = of(path, Kind::Cascade)?;
                Ranked { scores: logits(scores), ms: scores.ms }
            }
            Self::Hybrid(model) => {
                let scores = of(model, Kind::Bi)?;
                let fused = collection.queries.iter().zip(logits(scores)).map(|(query, dense)| {
                    let first: Vec<f64> = query.candidates.iter().map(|candidate| candidate.score).collect();
                    let mut sums = vec![0.0; first.len()];
                    for scores in [first, dense] {
                        for (rank, place) in order(&query.candidates, &scores).into_iter().enumerate() {
                            sums[place] += 1.0 / (RANK_OFFSET + 1.0 + rank as f64);
                        }
                    }
                    sums
                });
                Ranked { scores: fused.collect(), ms: scores.ms }
            }
            Self::Cascade { first, keep, second } => {
                let (first, second) =
                    (first.rank(collection, models, search)?, second.rank(collection, models, search)?);
                let scores = reranked(collection, &first.scores, &second.scores, *keep)?;
                // The second stage reads only its share of the candidates.
                let read: usize =
                    collection.queries.iter().map(|query| query.candidates.len().min(*keep)).sum();
                let share = read as f64 / collection.pairs().max(1) as f64;
                Ranked { scores, ms: second.ms.map(|ms| ms * share + first.ms.unwrap_or(0.0)) }
            }
        })
    }
}

pub fn first_scores(collection: &Collection) -> Vec<Vec<f64>> {
    let of = |query: &Query| query.candidates.iter().map(|candidate| candidate.score).collect();
    collection.queries.iter().map(of).collect()
}

/// The best `keep` of each query by `first`, in the order of `second`; the others below, as they were. As scores that
/// fall from the number of candidates to 1.
pub fn reranked(
    collection: &Collection,
    first: &[Vec<f64>],
    second: &[Vec<f64>],
    keep: usize,
) -> Result<Vec<Vec<f64>>> {
    let of_query = |((query, first), second): ((&Query, &Vec<f64>), &Vec<f64>)| {
        let places = order(&query.candidates, first);
        let mut ranks = vec![0; places.len()];
        order(&query.candidates, second).into_iter().zip(0..).for_each(|(place, rank)| ranks[place] = rank);
        let documents: Vec<String> = places.iter().map(usize::to_string).collect();
        let outcome =
            Cascade::new().stage(Rescore::new(Ranks(ranks), keep)).rerank(&query.text, &documents)?;
        let mut scores = vec![0.0; places.len()];
        for (rank, hit) in outcome.hits.iter().enumerate() {
            scores[places[hit.index]] = (places.len() - rank) as f64;
        }
        Ok(scores)
    };
    collection.queries.iter().zip(first).zip(second).map(of_query).collect()
}

/// What a ranker has found already, for documents that are named by their place.
struct Ranks(Vec<usize>);

impl Scorer for Ranks {
    fn scale(&self) -> ScoreScale {
        ScoreScale::Ordinal
    }

    fn score(&self, _: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let rank =
            |document: &&str| document.parse().ok().and_then(|place: usize| self.0.get(place)).copied();
        let score = |document: &&str| {
            // Ranks are below 2^24, so that f32 tells them apart.
            let logit = rank(document).map_or(f32::MIN, |rank| -(rank as f32));
            Score {
                logit,
                score: logit,
                probability: None,
                tokens: 0,
                truncated: false,
                windows: 1,
                span: None,
            }
        };
        Ok(documents.iter().map(score).collect())
    }
}

/// The candidates' places in trec_eval's order: by score in 32 bits, equal ones by id, the last first. The same order
/// that the metrics see, or a cascade over all candidates would not be its second stage.
pub fn order(candidates: &[Candidate], scores: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    // Adding 0.0 makes -0.0 equal to 0.0.
    let score = |place: usize| scores[place] as f32 + 0.0;
    places.sort_unstable_by(|&a, &b| {
        score(b).total_cmp(&score(a)).then_with(|| candidates[b].id.cmp(&candidates[a].id))
    });
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rankers_are_read_as_they_are_written() {
        let parse = |text: &str| text.parse::<Ranker>();
        let named = |name: &str, precision| Model { name: name.into(), precision };
        let f32 = Some(Precision::F32);
        assert_eq!(parse("first").unwrap().method, Method::First);
        assert_eq!(parse("cross:default").unwrap().method, Method::Cross(named("default", f32)));
        assert_eq!(parse("cascade:a/b@int8.toml").unwrap().method, Method::File(named("a/b@int8.toml", f32)));
        let auto = parse("cross:a/b@auto").unwrap();
        assert_eq!((auto.name.as_str(), auto.method), ("cross:b@auto", Method::Cross(named("a/b", None))));
        // An @ or = of a path is the path's.
        assert_eq!(parse("bi:a@b/c=d").unwrap().method, Method::Bi(named("a@b/c=d", f32)));
        let cascade = parse("fast = bi:m > 20 > cross:default@int8").unwrap();
        assert_eq!(cascade.name, "fast");
        let second = Method::Cross(named("default", Some(Precision::Int8)));
        let first = Box::new(Method::Bi(named("m", f32)));
        assert_eq!(cascade.method, Method::Cascade { first, keep: 20, second: Box::new(second) });
        for wrong in
            ["", "cross", "cross:", "cross:@int8", "bm26", "bi:m > 20", "bi:m > x > cross:default", "=first"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
