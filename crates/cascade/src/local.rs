//! Models of this machine, each loaded once, however many stages name it.

use std::collections::HashMap;
use std::sync::Arc;

use jointly::rank::listwise::OnePass;
use jointly::rank::{CrossScorer, Embedded, Similarity};
use jointly::{BiEncoder, CrossEncoder, LoadOptions, Long, Precision, ScoreOptions};

use crate::{BiScorer, Error, ModelSpec, Models, OnePassSpec, OtherSpec, SharedScorer, SharedStage};

/// Where models of this machine are found.
pub trait Load {
    /// Why there is none.
    type Error: From<Error> + From<jointly::Error>;

    /// A cross-encoder in this precision; none is the fastest that its receipt certifies.
    ///
    /// # Errors
    /// If there is none of this name, or it cannot be loaded.
    fn cross_encoder(
        &mut self,
        name: &str,
        precision: Option<Precision>,
    ) -> Result<CrossEncoder, Self::Error>;

    /// A bi-encoder.
    ///
    /// # Errors
    /// As [`Load::cross_encoder`].
    fn bi_encoder(&mut self, name: &str, options: LoadOptions) -> Result<BiEncoder, Self::Error>;

    /// A model that reads a list in one pass.
    ///
    /// # Errors
    /// As [`Load::cross_encoder`].
    fn one_pass(&mut self, name: &str, options: LoadOptions) -> Result<OnePass, Self::Error>;

    /// As [`Models::other`].
    ///
    /// # Errors
    /// As [`Models::other`].
    fn other(&mut self, spec: &OtherSpec) -> Result<Option<SharedStage>, Self::Error> {
        let _ = spec;
        Ok(None)
    }
}

/// Name, precision and longest text of a model that is no cross-encoder.
type Key = (String, Option<Precision>, Option<usize>);

/// The models of this machine that the stages of a file name.
pub struct LocalModels<L> {
    load: L,
    /// How all of them read: windows, for example.
    reading: ScoreOptions,
    /// Those that were given by the caller, whatever precision a stage says.
    given: HashMap<String, Arc<CrossEncoder>>,
    cross: HashMap<(String, Option<Precision>), Arc<CrossEncoder>>,
    bi: HashMap<Key, Arc<BiEncoder>>,
    scorers: HashMap<Key, Arc<BiScorer>>,
    lists: HashMap<Key, Arc<OnePass>>,
}

impl<L: Load> LocalModels<L> {
    /// None is loaded yet.
    pub fn new(load: L, reading: ScoreOptions) -> Self {
        Self {
            load,
            reading,
            given: HashMap::new(),
            cross: HashMap::new(),
            bi: HashMap::new(),
            scorers: HashMap::new(),
            lists: HashMap::new(),
        }
    }

    /// A model that is there already, under this name.
    pub fn give(&mut self, name: String, model: Arc<CrossEncoder>) {
        self.given.insert(name, model);
    }

    fn cross(&mut self, spec: &ModelSpec) -> Result<Arc<CrossEncoder>, L::Error> {
        let key = (spec.model.clone(), spec.precision.precision());
        if let Some(model) = self.given.get(&spec.model).or_else(|| self.cross.get(&key)) {
            return Ok(Arc::clone(model));
        }
        let model = Arc::new(self.load.cross_encoder(&key.0, key.1)?);
        self.cross.insert(key, Arc::clone(&model));
        Ok(model)
    }

    fn bi(&mut self, key: &Key) -> Result<Arc<BiEncoder>, L::Error> {
        if let Some(model) = self.bi.get(key) {
            return Ok(Arc::clone(model));
        }
        let model = Arc::new(self.load.bi_encoder(&key.0, options(key))?);
        self.bi.insert(key.clone(), Arc::clone(&model));
        Ok(model)
    }

    fn scored(&mut self, spec: &ModelSpec, mut reading: ScoreOptions) -> Result<SharedScorer, L::Error> {
        let model = self.cross(spec)?;
        if let Some(max_length) = spec.max_length {
            reading = reading.max_length(max_length.min(model.info().max_length));
        }
        if let Some(instruction) = &spec.instruction {
            reading = reading.instruction(instruction);
        }
        Ok(Arc::new(CrossScorer::new(model, reading)))
    }
}

fn key(name: &str, spec: &ModelSpec) -> Key {
    (name.to_string(), spec.precision.precision(), spec.max_length)
}

fn options((_, precision, max_length): &Key) -> LoadOptions {
    let options = LoadOptions::new().precision_or_auto(*precision);
    match max_length {
        Some(max_length) => options.max_length(*max_length),
        None => options,
    }
}

impl<L: Load> Models for LocalModels<L> {
    type Error = L::Error;

    fn scorer(&mut self, spec: &ModelSpec) -> Result<SharedScorer, L::Error> {
        let Some(name) = spec.model.strip_prefix("bi:") else {
            return self.scored(spec, self.reading.clone());
        };
        if spec.instruction.is_some() {
            let problem = "a bi-encoder takes no instruction".to_string();
            return Err(Error::File { file: spec.model.clone(), problem }.into());
        }
        let key = key(name, spec);
        if let Some(scorer) = self.scorers.get(&key) {
            return Ok(Arc::clone(scorer) as SharedScorer);
        }
        let scorer = Arc::new(BiScorer::new(self.bi(&key)?));
        self.scorers.insert(key, Arc::clone(&scorer));
        Ok(scorer)
    }

    fn scorer_of_two(&mut self, spec: &ModelSpec) -> Result<SharedScorer, L::Error> {
        if spec.model.starts_with("bi:") {
            return self.scorer(spec);
        }
        let reading = match self.reading.get_instruction() {
            Some(instruction) => ScoreOptions::new().instruction(instruction),
            None => ScoreOptions::new(),
        };
        self.scored(spec, reading.long(Long::Truncate))
    }

    fn likeness(&mut self, name: &str) -> Result<Box<dyn Similarity + Send>, L::Error> {
        let key = (name.to_string(), Some(Precision::F32), None);
        Ok(Box::new(Embedded::new(self.bi(&key)?)))
    }

    fn one_pass(&mut self, spec: &OnePassSpec) -> Result<SharedStage, L::Error> {
        let mut spec = spec.clone();
        let asked = || self.reading.get_instruction().map(String::from);
        spec.model.instruction = spec.model.instruction.or_else(asked);
        let key = key(&spec.model.model, &spec.model);
        let model = match self.lists.get(&key) {
            Some(model) => Arc::clone(model),
            None => {
                let model = Arc::new(self.load.one_pass(&key.0, options(&key))?);
                self.lists.insert(key, Arc::clone(&model));
                model
            }
        };
        Ok(Box::new(spec.stage(model)?))
    }

    fn other(&mut self, spec: &OtherSpec) -> Result<Option<SharedStage>, L::Error> {
        self.load.other(spec)
    }
}
