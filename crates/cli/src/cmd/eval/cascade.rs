//! Cascades from files, evaluated: only the pairs that a stage reads are scored, and what was scored once is in the cache.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::ProgressBar;
use jointly::rank::{Cascade, Request, Scorer, Stage};
use jointly::{BiEncoder, Error, Pair, Score, ScoreOptions, ScoreScale};
use jointly_cascade::{BudgetSpec, ModelSpec, Models, OtherSpec, SharedScorer};
use std::time::Instant;

use super::collection::{Collection, Query};
use super::ranker::{Description, Kind, Loaded, Model, Scores, order};
use crate::Global;
use crate::cache::{self, Cache, Scored};
use crate::cascade::{self, LocalModels};
use crate::error::{CliError, Result};
use crate::output::say;

/// A cascade with its models.
pub struct CachedCascade {
    cascade: Cascade<'static>,
    scorers: Vec<Arc<CachedScorer>>,
    path: PathBuf,
}

impl CachedCascade {
    /// Reads the file and loads its models. Times, tokens and money are those of other runs where scores are from the
    /// cache, so that a budget has nothing to go by: it is left out, and that is said.
    pub fn load(path: &Path, folder: &Path, max_length: Option<usize>, global: Global) -> Result<Self> {
        let mut file = cascade::read(path)?;
        if file.budget != BudgetSpec::default() && !global.quiet {
            say(format_args!("{}: its budget is not applied: scores are from the cache", path.display()));
        }
        file.budget = BudgetSpec::default();
        let local = LocalModels::new(&ScoreOptions::new(), global);
        let mut models = CachedModels { folder, max_length, global, opened: HashMap::new(), local };
        let cascade = file.build(&mut models)?;
        let scorers = models.opened.into_values().collect();
        Ok(Self { cascade, scorers, path: path.to_path_buf() })
    }

    /// What stands in the report: the file, and its models.
    pub fn description(&self) -> Description {
        let mut models: Vec<&Description> = self.scorers.iter().map(|scorer| &scorer.description).collect();
        models.sort_by(|a, b| (&a.model, &a.precision).cmp(&(&b.model, &b.precision)));
        let join =
            |of: fn(&Description) -> String| models.iter().map(|one| of(one)).collect::<Vec<_>>().join(", ");
        Description {
            model: format!("{}: {}", self.path.display(), join(|one| one.model.clone())),
            kind: "cascade",
            architecture: models.first().map_or("none", |model| model.architecture),
            precision: join(|one| one.precision.clone()),
            max_length: models.iter().map(|model| model.max_length).max().unwrap_or(0),
            isa: models.first().map_or_else(String::new, |model| model.isa.clone()),
            sha256: join(|one| one.sha256.clone()),
        }
    }

    /// Orders the candidates of every query. The scores are ranks, from the number of candidates down to 1.
    pub fn score(&self, collection: &Collection, bar: &ProgressBar) -> Result<Scores> {
        let tally = || {
            self.scorers.iter().fold(Tally::default(), |sum, scorer| {
                sum.and(*scorer.tally.lock().unwrap_or_else(PoisonError::into_inner))
            })
        };
        let mut scores =
            Scores { of: Vec::with_capacity(collection.queries.len()), ms: None, computed: 0, cached: 0 };
        let before = tally();
        for query in &collection.queries {
            scores.of.push(self.query(collection, query)?);
            bar.inc(query.candidates.len() as u64);
        }
        let after = tally();
        (scores.computed, scores.cached) = (after.computed - before.computed, after.cached - before.cached);
        scores.ms = Some((after.ms - before.ms) / collection.queries.len().max(1) as f64);
        Ok(scores)
    }

    fn query(&self, collection: &Collection, query: &Query) -> Result<Vec<Scored>> {
        let first: Vec<f64> = query.candidates.iter().map(|candidate| candidate.score).collect();
        let places = order(&query.candidates, &first);
        let texts: Vec<&str> =
            places.iter().map(|&place| collection.texts[query.candidates[place].text].as_str()).collect();
        let first: Vec<f64> = places.iter().map(|&place| first[place]).collect();
        let request = Request::new(&query.text, &texts).first_scores(&first);
        let outcome = self.cascade.run(&request).map_err(|error| {
            let message = format!("{}: query {}: {error}", collection.path.display(), query.id);
            match error.kind() {
                jointly::ErrorKind::Input => CliError::Input(message),
                _ => CliError::Failed(message),
            }
        })?;
        let mut scored = vec![Scored { logit: 0.0, probability: None, ms: 0.0, threads: 0 }; places.len()];
        for (rank, hit) in outcome.hits.iter().enumerate() {
            scored[places[hit.index]].logit = (places.len() - rank) as f32;
        }
        Ok(scored)
    }
}

/// Where the models of a cascade are opened, each with its cache.
struct CachedModels<'a> {
    folder: &'a Path,
    max_length: Option<usize>,
    global: Global,
    opened: HashMap<ModelSpec, Arc<CachedScorer>>,
    local: LocalModels,
}

impl Models for CachedModels<'_> {
    type Error = CliError;

    fn scorer(&mut self, spec: &ModelSpec) -> Result<SharedScorer> {
        if let Some(scorer) = self.opened.get(spec) {
            return Ok(Arc::<CachedScorer>::clone(scorer));
        }
        if spec.model.starts_with("bi:") {
            return self.local.scorer(spec); // a product of vectors is computed faster than it is looked up
        }
        let named = Model { name: spec.model.clone(), precision: spec.precision.precision() };
        let max_length = match (spec.max_length, self.max_length) {
            (Some(own), Some(given)) => Some(own.min(given)),
            (own, given) => own.or(given),
        };
        let (loaded, description) = Loaded::load(Kind::Cross, &named, max_length, self.global)?;
        let mut made = loaded.made(&description)?;
        let mut options = ScoreOptions::new();
        if let Some(instruction) = &spec.instruction {
            made.push_str(&format!(" instruction={instruction:?}"));
            options = options.instruction(instruction);
        }
        let cache = Cache::open(self.folder, &made)?;
        let tally = Mutex::default();
        let scorer = Arc::new(CachedScorer { loaded, options, description, cache: Mutex::new(cache), tally });
        self.opened.insert(spec.clone(), Arc::clone(&scorer));
        Ok(scorer)
    }

    fn bi_encoder(&mut self, name: &str) -> Result<Arc<BiEncoder>> {
        self.local.bi_encoder(name)
    }

    fn other(&mut self, spec: &OtherSpec) -> Result<Option<Box<dyn Stage + Send>>> {
        self.local.other(spec)
    }
}

/// What was read, and what that costs.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    computed: usize,
    cached: usize,
    ms: f64,
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self {
            computed: self.computed + other.computed,
            cached: self.cached + other.cached,
            ms: self.ms + other.ms,
        }
    }
}

/// A cross-encoder and all that it has scored.
struct CachedScorer {
    loaded: Loaded,
    options: ScoreOptions,
    description: Description,
    cache: Mutex<Cache>,
    tally: Mutex<Tally>,
}

impl Scorer for CachedScorer {
    fn scale(&self) -> ScoreScale {
        match &self.loaded {
            Loaded::Cross(model) => model.info().score_scale,
            Loaded::Bi(..) => ScoreScale::Ordinal,
        }
    }

    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let Loaded::Cross(model) = &self.loaded else { return Ok(Vec::new()) };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<cache::Key> = documents.iter().map(|document| cache::key(query, document)).collect();
        let todo = cache.missing(&keys);
        if !todo.is_empty() {
            let pairs: Vec<Pair<'_>> =
                todo.iter().map(|&place| Pair { query, document: documents[place] }).collect();
            let started = Instant::now();
            let found = model.score_pairs_with(&pairs, &self.options).map_err(|error| match error {
                Error::Pair { index, source } => Error::Pair { index: todo[index], source },
                Error::NotFinite { index, logit } => Error::NotFinite { index: todo[index], logit },
                error => error,
            })?;
            let scored = Scored::of(model, &found, started);
            let stage = || self.description.model.clone();
            cache
                .add(&keys, &todo, &scored)
                .map_err(|error| Error::Stage { stage: stage(), problem: error.to_string() })?;
        }
        let all: Vec<Scored> = keys.iter().filter_map(|key| cache.get(key)).collect();
        let ms = all.iter().map(|scored| f64::from(scored.ms)).sum();
        let read = Tally { computed: todo.len(), cached: keys.len() - todo.len(), ms };
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        *tally = tally.and(read);
        let calibration = model.calibration();
        Ok(all
            .into_iter()
            .map(|scored| Score {
                logit: scored.logit,
                score: model.info().score_map.apply(scored.logit),
                probability: calibration.map(|calibration| calibration.map.apply(scored.logit)),
                tokens: 0,
                truncated: false,
                windows: 1,
                span: None,
            })
            .collect())
    }
}
