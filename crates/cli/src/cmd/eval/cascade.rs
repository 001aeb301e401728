//! Cascades from files, evaluated: only the pairs that a stage reads are scored, and what was scored once is in the cache.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::ProgressBar;
use jointly::rank::{Cascade, Request, Scorer, Similarity};
use jointly::{Error, Pair, Precision, Score, ScoreOptions, ScoreScale};
use jointly_cascade::{
    BudgetSpec, CascadeFile, LocalModels, ModelSpec, Models, OnePassSpec, OtherSpec, PrecisionSpec,
    SharedScorer, SharedStage, StageSpec,
};
use std::time::{Duration, Instant};

use super::collection::{Collection, Query};
use super::ranker::{Description, Kind, Loaded, Model, Scores, hash, order};
use super::stages::StageSums;
use crate::Global;
use crate::cache::{self, Cache, Scored};
use crate::cascade;
use crate::error::{CliError, Result};
use crate::model;
use crate::output::say;

/// A cascade with its models.
pub struct CachedCascade {
    cascade: Cascade<'static>,
    /// For each stage, its scorers whose scores are cached.
    scorers: Vec<Vec<Arc<Tallied>>>,
    /// What stands in the report.
    description: Description,
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
        if file.stages.iter().any(|stage| matches!(stage, StageSpec::Xquad(_))) && !global.quiet {
            let path = path.display();
            say(format_args!(
                "{path}: its xquad does nothing: the queries of a collection have no sub-queries"
            ));
        }
        let local = cascade::models(&ScoreOptions::new(), global);
        let mut models = CachedModels {
            folder,
            max_length,
            global,
            opened: HashMap::new(),
            caches: HashMap::new(),
            made: Vec::new(),
            named: Vec::new(),
            local,
        };
        let cascade = file.build(&mut models)?;
        let description = models.description(path);
        let scorers = by_stage(&file, models.made);
        Ok(Self { cascade, scorers, description })
    }

    /// What stands in the report: the file, and its models.
    pub fn description(&self) -> Description {
        self.description.clone()
    }

    /// Orders the candidates of every query. The scores are ranks, from the number of candidates down to 1.
    pub fn score(&self, collection: &Collection, bar: &ProgressBar) -> Result<Scores> {
        let mut scores = Scores {
            of: Vec::with_capacity(collection.queries.len()),
            ms: None,
            computed: 0,
            cached: 0,
            stages: self.cascade.names().map(StageSums::new).collect(),
        };
        for query in &collection.queries {
            let scored = self.query(collection, query, &mut scores)?;
            scores.of.push(scored);
            bar.inc(query.candidates.len() as u64);
        }
        let ms: f64 = scores.stages.iter().map(|stage| stage.ms).sum();
        scores.ms = Some(ms / collection.queries.len().max(1) as f64);
        Ok(scores)
    }

    /// The order of one query; what its stages did is added to `scores`.
    fn query(&self, collection: &Collection, query: &Query, scores: &mut Scores) -> Result<Vec<Scored>> {
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
        for ((report, scorers), sums) in outcome.stages.iter().zip(&self.scorers).zip(&mut scores.stages) {
            let tally = scorers.iter().fold(Tally::default(), |sum, scorer| sum.and(scorer.take()));
            scores.computed += tally.computed;
            scores.cached += tally.cached;
            // Looking scores up stands for computing them: the time of that is put in its place.
            let own = report.elapsed.saturating_sub(tally.elapsed).as_secs_f64() * 1e3;
            sums.add(report, own + tally.ms);
        }
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
    /// By what their scores are of: two names of one model have one file, which can be opened once.
    caches: HashMap<String, Arc<Mutex<Cache>>>,
    /// What was asked for, in that order; none if its scores are not cached.
    made: Vec<Option<Arc<Tallied>>>,
    /// For the report.
    named: Vec<Named>,
    local: LocalModels<cascade::Loader>,
}

/// What is said of a model that a stage names.
#[derive(Debug, PartialEq)]
struct Named {
    model: String,
    precision: String,
    sha256: String,
}

impl CachedModels<'_> {
    /// The model as it is read here: two spellings of one are one.
    fn normal(&self, spec: &ModelSpec) -> ModelSpec {
        let mut spec = spec.clone();
        if spec.precision == PrecisionSpec::Unsaid {
            spec.precision = PrecisionSpec::Exactly(Precision::F32);
        }
        spec.max_length = match (spec.max_length, self.max_length) {
            (Some(own), Some(given)) => Some(own.min(given)),
            (own, given) => own.or(given),
        };
        spec
    }

    fn open(&mut self, spec: ModelSpec) -> Result<Arc<CachedScorer>> {
        if let Some(scorer) = self.opened.get(&spec) {
            return Ok(Arc::clone(scorer));
        }
        let named = Model { name: spec.model.clone(), precision: spec.precision.precision() };
        let (loaded, description) = Loaded::load(Kind::Cross, &named, spec.max_length, self.global)?;
        let mut made = loaded.made(&description)?;
        let mut options = ScoreOptions::new();
        if let Some(instruction) = &spec.instruction {
            made.push_str(&format!(" instruction={instruction:?}"));
            options = options.instruction(instruction);
        }
        let cache = match self.caches.get(&made) {
            Some(cache) => Arc::clone(cache),
            None => {
                let cache = Arc::new(Mutex::new(Cache::open(self.folder, &made)?));
                self.caches.insert(made, Arc::clone(&cache));
                cache
            }
        };
        let scorer = Arc::new(CachedScorer { loaded, options, description, cache });
        self.opened.insert(spec, Arc::clone(&scorer));
        Ok(scorer)
    }

    fn name(&mut self, named: Named) {
        if !self.named.contains(&named) {
            self.named.push(named);
        }
    }

    fn name_bi_encoder(&mut self, name: &str, precision: &str) -> Result<()> {
        let (files, _) = model::find_bi_encoder(name, self.global)?;
        let (model, sha256) = (format!("bi:{name}"), hash(&files)?);
        self.name(Named { model, precision: precision.into(), sha256 });
        Ok(())
    }

    /// All models, in the order of the stages; processor and length are of the cross-encoders.
    fn description(&self, path: &Path) -> Description {
        let join = |of: fn(&Named) -> &str| self.named.iter().map(of).collect::<Vec<_>>().join(", ");
        let first = self.made.iter().flatten().map(|tallied| &tallied.scorer.description).next();
        let lengths = self.opened.values().map(|scorer| scorer.description.max_length);
        Description {
            model: format!("{}: {}", path.display(), join(|one| &one.model)),
            kind: "cascade",
            architecture: first.map_or("none", |model| model.architecture),
            precision: join(|one| &one.precision),
            max_length: lengths.max().unwrap_or(0),
            isa: first.map_or_else(String::new, |model| model.isa.clone()),
            sha256: join(|one| &one.sha256),
        }
    }
}

/// What was asked for while the stages were made, for each stage: as many scorers as it has models.
fn by_stage(file: &CascadeFile, made: Vec<Option<Arc<Tallied>>>) -> Vec<Vec<Arc<Tallied>>> {
    let mut made = made.into_iter();
    file.stages.iter().map(|stage| made.by_ref().take(stage.models().len()).flatten().collect()).collect()
}

impl Models for CachedModels<'_> {
    type Error = CliError;

    fn scorer(&mut self, spec: &ModelSpec) -> Result<SharedScorer> {
        let spec = self.normal(spec);
        if let Some(name) = spec.model.strip_prefix("bi:") {
            // A product of vectors is computed faster than it is looked up.
            let scorer = self.local.scorer(&spec)?;
            self.name_bi_encoder(name, spec.precision.precision().map_or("auto", Precision::name))?;
            self.made.push(None);
            return Ok(scorer);
        }
        let scorer = self.open(spec)?;
        let Description { model, precision, sha256, .. } = scorer.description.clone();
        self.name(Named { model, precision, sha256 });
        let tallied = Arc::new(Tallied { scorer, tally: Mutex::default() });
        self.made.push(Some(Arc::clone(&tallied)));
        Ok(tallied)
    }

    fn likeness(&mut self, name: &str) -> Result<Box<dyn Similarity + Send>> {
        let likeness = self.local.likeness(name)?;
        self.name_bi_encoder(name, Precision::F32.name())?;
        Ok(likeness)
    }

    /// Its scores depend on the documents beside, so that none can be kept.
    fn one_pass(&mut self, spec: &OnePassSpec) -> Result<SharedStage> {
        let stage = self.local.one_pass(spec)?;
        let ModelSpec { model, precision, .. } = &spec.model;
        let sha256 = hash(&model::find_one_pass(model, self.global)?.0)?;
        let precision = precision.precision().map_or("auto", Precision::name).to_string();
        self.name(Named { model: format!("one-pass:{model}"), precision, sha256 });
        Ok(stage)
    }

    fn other(&mut self, spec: &OtherSpec) -> Result<Option<SharedStage>> {
        let stage = self.local.other(spec)?;
        if let Some(model) = spec.table.get("model").and_then(|model| model.as_str()) {
            let (none, model) = ("-".to_string(), format!("{}:{model}", spec.kind));
            self.name(Named { model, precision: none.clone(), sha256: none });
        }
        Ok(stage)
    }
}

/// What was read, and what that costs.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    computed: usize,
    cached: usize,
    /// What computing the scores took, now or when they were cached.
    ms: f64,
    /// What it took now.
    elapsed: Duration,
}

impl Tally {
    fn and(self, other: Self) -> Self {
        Self {
            computed: self.computed + other.computed,
            cached: self.cached + other.cached,
            ms: self.ms + other.ms,
            elapsed: self.elapsed + other.elapsed,
        }
    }
}

/// A scorer of one stage, which other stages may have too, and what that stage has read.
struct Tallied {
    scorer: Arc<CachedScorer>,
    tally: Mutex<Tally>,
}

impl Tallied {
    /// What was read since it was asked last.
    fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Scorer for Tallied {
    fn scale(&self) -> ScoreScale {
        match &self.scorer.loaded {
            Loaded::Cross(model) => model.info().score_scale,
            Loaded::Bi(..) => ScoreScale::Ordinal,
        }
    }

    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let started = Instant::now();
        let (scores, read) = self.scorer.score(query, documents)?;
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        *tally = tally.and(Tally { elapsed: started.elapsed(), ..read });
        Ok(scores)
    }
}

/// A cross-encoder and all that it has scored.
struct CachedScorer {
    loaded: Loaded,
    options: ScoreOptions,
    description: Description,
    cache: Arc<Mutex<Cache>>,
}

impl CachedScorer {
    /// Scores, and what was read for them.
    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<(Vec<Score>, Tally)> {
        let Loaded::Cross(model) = &self.loaded else { return Ok(Default::default()) };
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
        let (computed, cached) = (todo.len(), keys.len() - todo.len());
        let read = Tally { computed, cached, ms, elapsed: Duration::ZERO };
        let calibration = model.calibration();
        let scores = all
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
            .collect();
        Ok((scores, read))
    }
}
