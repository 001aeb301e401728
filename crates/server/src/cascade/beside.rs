//! What cascades read with beside the queues: bi-encoders, and models that read a list in one pass, each loaded once and computed
//! on the thread of the cascade; and language models, which others compute.
//!
//! Whatever computes here takes turns with the batches of the queues: it has the [`Cores`] while it does, and gives them back between
//! two batches of its own, or two blocks of a list.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jointly::rank::listwise::{Ended, Listwise, ListwiseOptions, OnePass};
use jointly::rank::{Applied, Context, Embedded, Placed, Scorer, Similarity, Stage, Turns as InTurns};
use jointly::{BiEncoder, Score, ScoreScale};
use jointly_cascade::{
    BiScorer, ModelSpec, OnePassSpec, OtherSpec, PrecisionSpec, SharedScorer, SharedStage,
};
use jointly_chat::{EndpointJudge, ListwiseSpec};

use crate::config::{Config, ModelConfig};
use crate::cores::Cores;
use crate::models::Loader;

/// The kind of the stages that ask a language model.
pub const LISTWISE: &str = "listwise";

/// All that clients hear of a refusal.
const REFUSES: &str = "the language model answers no questions";

/// Documents that a bi-encoder reads before others have a turn.
const TURN_DOCUMENTS: usize = 16;

/// A model that has no queue, as its loader is told of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Need {
    /// A bi-encoder.
    Bi(ModelConfig),
    /// A model that reads a list in one pass.
    List(ModelConfig),
}

impl Need {
    /// The model that scores for a stage, if that is a bi-encoder.
    #[must_use]
    pub fn scorer(spec: &ModelSpec) -> Option<Self> {
        let source = spec.model.strip_prefix("bi:")?;
        Some(Self::Bi(config(source, spec)))
    }

    /// The bi-encoder that says how alike documents are.
    #[must_use]
    pub fn likeness(source: &str) -> Self {
        let (source, precision) = (source.to_string(), "f32".to_string());
        Self::Bi(ModelConfig { source, precision, ..ModelConfig::default() })
    }

    /// The model of a stage that reads lists.
    #[must_use]
    pub fn list(spec: &OnePassSpec) -> Self {
        Self::List(config(&spec.model.model, &spec.model))
    }

    /// Whether such a model can do what a stage says of it.
    ///
    /// # Errors
    /// What it cannot.
    pub fn check(&self, spec: &ModelSpec) -> Result<(), String> {
        let wrong = |problem: &str| Err(format!("model {:?}: {problem}", spec.model));
        match self {
            Self::Bi(_) if spec.instruction.is_some() => wrong("a bi-encoder takes no instruction"),
            // To a loader this says that the model's own is meant.
            _ if spec.max_length == Some(0) => wrong("max_length is 0; it is at least 1"),
            _ => Ok(()),
        }
    }

    /// As a loader is told of it.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        let (Self::Bi(config) | Self::List(config)) = self;
        config
    }

    /// What it is called in logs and metrics.
    #[must_use]
    pub fn label(&self) -> String {
        let ModelConfig { source, precision, max_length, .. } = self.config();
        let kind = if matches!(self, Self::Bi(_)) { "bi:" } else { "" };
        match max_length {
            0 => format!("{kind}{source}@{precision}"),
            tokens => format!("{kind}{source}@{precision}/{tokens}"),
        }
    }

    /// Loads it.
    ///
    /// # Errors
    /// Those of the loader.
    pub fn load(&self, loader: &dyn Loader) -> Result<Model, String> {
        match self {
            Self::Bi(config) => loader.bi_encoder(config).map(Model::Bi),
            Self::List(config) => loader.one_pass(config).map(Model::List),
        }
    }
}

/// No receipt certifies a precision of such a model: `auto` is f32.
fn config(source: &str, spec: &ModelSpec) -> ModelConfig {
    let precision = match spec.precision {
        PrecisionSpec::Exactly(precision) => precision.name(),
        PrecisionSpec::Auto | PrecisionSpec::Unsaid => "f32",
    };
    ModelConfig {
        source: source.to_string(),
        precision: precision.to_string(),
        max_length: spec.max_length.unwrap_or(0),
        ..ModelConfig::default()
    }
}

/// A model that has no queue.
#[derive(Debug)]
pub enum Model {
    /// A bi-encoder.
    Bi(Arc<BiEncoder>),
    /// A model that reads a list in one pass.
    List(Arc<OnePass>),
}

#[derive(Debug)]
struct Known {
    need: Need,
    model: Model,
    /// Memory that is reckoned for its weights.
    bytes: u64,
    /// What keeps the vectors of a bi-encoder from one request to the next, if that is wanted.
    scorer: Option<Arc<BiScorer>>,
}

/// The models without a queue, each once for all cascades of a configuration.
#[derive(Debug, Default)]
pub struct Beside {
    models: Vec<Known>,
    keeps_vectors: bool,
}

impl Beside {
    /// None yet. Vectors are kept where scores are: whoever can measure time could learn from both what others have asked for.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { models: Vec::new(), keeps_vectors: config.cache.scores > 0 }
    }

    /// Whether it has this one.
    #[must_use]
    pub fn has(&self, need: &Need) -> bool {
        self.find(need).is_some()
    }

    /// Adds a model that was loaded, whose weights take so many bytes.
    pub fn add(&mut self, need: &Need, model: Model, bytes: u64) {
        let scorer = match &model {
            Model::Bi(encoder) if self.keeps_vectors => Some(Arc::new(BiScorer::new(Arc::clone(encoder)))),
            _ => None,
        };
        self.models.push(Known { need: need.clone(), model, bytes, scorer });
    }

    /// What each is called, and the memory that is reckoned for it.
    pub fn sizes(&self) -> impl Iterator<Item = (String, u64)> {
        self.models.iter().map(|known| (known.need.label(), known.bytes))
    }

    fn find(&self, need: &Need) -> Option<&Known> {
        self.models.iter().find(|known| known.need == *need)
    }

    /// What scores for a stage, if a bi-encoder does.
    pub(super) fn scorer(&self, spec: &ModelSpec, turns: &Arc<Turns>) -> Option<SharedScorer> {
        let known = self.find(&Need::scorer(spec)?)?;
        let Model::Bi(encoder) = &known.model else { return None };
        let scorer = known.scorer.clone().unwrap_or_else(|| Arc::new(BiScorer::new(Arc::clone(encoder))));
        Some(Arc::new(Scoring { scorer, turns: Arc::clone(turns) }))
    }

    /// What says how alike documents are, by the vectors of a bi-encoder.
    pub(super) fn likeness(&self, source: &str, turns: &Arc<Turns>) -> Option<Box<dyn Similarity + Send>> {
        let Model::Bi(encoder) = &self.find(&Need::likeness(source))?.model else { return None };
        let turns = Arc::clone(turns) as Arc<dyn InTurns>;
        Some(Box::new(Embedded::new(Arc::clone(encoder)).turns(turns)))
    }

    /// A stage that reads lists.
    pub(super) fn list(&self, spec: &OnePassSpec, turns: &Arc<Turns>) -> Option<SharedStage> {
        let Model::List(model) = &self.find(&Need::list(spec))?.model else { return None };
        // Its options were checked when the file was read.
        let stage = spec.stage(Arc::clone(model)).ok()?;
        Some(Box::new(stage.turns(Arc::clone(turns) as Arc<dyn InTurns>)))
    }

    /// The longest text that a bi-encoder reads, in tokens.
    pub(super) fn max_length(&self, need: &Need) -> Option<usize> {
        match &self.find(need)?.model {
            Model::Bi(encoder) => Some(encoder.info().max_length),
            Model::List(_) => None,
        }
    }
}

/// The turns of one request with the cores, and how long they took.
#[derive(Debug)]
pub(super) struct Turns {
    cores: Arc<Cores>,
    times: Mutex<(Duration, Duration)>,
}

impl Turns {
    pub(super) fn new(cores: &Arc<Cores>) -> Arc<Self> {
        Arc::new(Self { cores: Arc::clone(cores), times: Mutex::default() })
    }

    /// Computes something when its turn comes.
    fn take<T>(&self, compute: impl FnOnce() -> T) -> T {
        let asked = Instant::now();
        let lent = self.cores.acquire();
        let began = Instant::now();
        let computed = compute();
        drop(lent);
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.0 += began - asked;
        times.1 += began.elapsed();
        computed
    }

    /// Waiting for others, and computing.
    pub(super) fn times(&self) -> (Duration, Duration) {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A block of a list, or a batch of documents, for each turn.
impl InTurns for Turns {
    fn take(&self, compute: &mut dyn FnMut()) {
        Turns::take(self, compute);
    }
}

struct Scoring {
    scorer: Arc<BiScorer>,
    turns: Arc<Turns>,
}

impl Scorer for Scoring {
    fn scale(&self) -> ScoreScale {
        self.scorer.scale()
    }

    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let mut scores = Vec::with_capacity(documents.len());
        for documents in documents.chunks(TURN_DOCUMENTS) {
            scores.extend(self.turns.take(|| self.scorer.score(query, documents))?);
        }
        Ok(scores)
    }
}

/// A stage that asks a language model, one for all requests: so are its budgets.
#[derive(Debug, Clone)]
pub struct Asking {
    spec: ListwiseSpec,
    stage: Arc<Listwise<EndpointJudge<'static>>>,
}

impl Asking {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// What of the stage cannot be used.
    pub fn read(spec: &OtherSpec) -> Result<Self, String> {
        // Nothing ends the questions of all requests but the end of the process.
        static GO_ON: AtomicBool = AtomicBool::new(false);
        let wrong = |problem: String| format!("{LISTWISE}: {problem}");
        let spec: ListwiseSpec = spec.read().map_err(wrong)?;
        let stage = Arc::new(spec.build(&GO_ON).map_err(wrong)?);
        Ok(Self { spec, stage })
    }

    /// Whether it asks the same as another, in the same way.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    /// Whether it is the same one.
    #[cfg(test)]
    pub(super) fn goes_on(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stage, &other.stage)
    }

    /// For a request; what it hears is for the log.
    pub(super) fn stage(&self, heard: &Heard) -> SharedStage {
        Box::new(Discreet { stage: Arc::clone(&self.stage), heard: heard.clone() })
    }

    /// Tokens of a query and of a document that it shows at most.
    pub(super) fn max_length(&self) -> usize {
        // As if each character were a token.
        2 * self.spec.max_chars.unwrap_or(ListwiseOptions::DEFAULT_MAX_CHARS).min(usize::MAX / 2)
    }

    /// A stage of its name that asks nobody.
    pub(super) fn silent(&self) -> SharedStage {
        Box::new(Passing(Stage::name(&self.stage).to_string()))
    }
}

/// What language models that did not answer a request said, and where: not for clients. A server may repeat there what any user wrote.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn hear(&self, notes: Vec<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(notes);
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tells clients what a language model did, in no words but those of this program.
struct Discreet {
    stage: Arc<Listwise<EndpointJudge<'static>>>,
    heard: Heard,
}

impl Stage for Discreet {
    fn name(&self) -> &str {
        Stage::name(&self.stage)
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> jointly::Result<Applied> {
        let texts = context.texts(incoming);
        let mut ranking = self.stage.order_within(context.query(), &texts, context.meter);
        let report = &mut ranking.report;
        if report.answers.unanswered > 0 {
            self.heard.hear(report.notes());
        }
        report.reasons.clear();
        if let Ended::Refused(words) = &mut report.ended {
            *words = REFUSES.to_string();
        }
        Ok(ranking.applied(incoming))
    }
}

/// Passes all on as it came, under the name of a stage that is not to do anything.
pub(super) struct Passing(pub(super) String);

impl Stage for Passing {
    fn name(&self) -> &str {
        &self.0
    }

    fn apply(&self, _: &Context<'_>, incoming: &[Placed]) -> jointly::Result<Applied> {
        Ok(Applied::unchanged(incoming))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_computes_has_the_cores_and_gives_them_back() {
        let cores = Arc::<Cores>::default();
        let turns = Turns::new(&cores);
        assert_eq!(turns.take(|| 7), 7);
        let mut blocks = 0;
        InTurns::take(&*turns, &mut || blocks += 1);
        assert_eq!(blocks, 1);
        // Also when a model panics.
        let panics = std::panic::AssertUnwindSafe(|| turns.take::<usize>(|| panic!("a test asks for it")));
        std::panic::catch_unwind(panics).unwrap_err();
        drop(cores.acquire());
        let (waited, computed) = turns.times();
        assert!(waited + computed < Duration::from_secs(60));
    }
}
