//! Cascades: written in TOML, which the Python classes do too.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use jointly::rank::listwise::OnePass;
use jointly::rank::{self, Budget, Cancel, Outcome, Placed, Request, StageReport, SubQuery};
use jointly::{BiEncoder, CrossEncoder, LoadOptions, Precision};
use jointly_cascade::{CascadeFile, LocalModels, OtherSpec, SharedStage, StageSpec, in_words};
use jointly_chat::ListwiseSpec;
use pyo3::prelude::*;

use crate::errors::{Kind, engine};
use crate::flight::detached;
use crate::load::{self, Failure, Load};
use crate::model::{Model, Reading, scale};
use crate::text::{Texts, text};

/// How often Python is asked whether to go on.
const POLL: Duration = Duration::from_millis(100);
/// A cascade that can be interrupted asks its models batch by batch, which costs some of its speed: fewer documents are done soon.
const FEW_DOCUMENTS: usize = 256;

/// A cascade with its models.
#[pyclass(frozen, module = "jointly._native")]
pub struct Cascade {
    cascade: rank::Cascade<'static>,
    /// Whether a stage waits for somebody else, or may take long even for few documents.
    is_slow: bool,
}

/// What a run is given beside query and documents: `Request` of `jointly._types`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Given {
    first_scores: Option<Vec<f64>>,
    sub_queries: Vec<(String, f64)>,
    ms: Option<f64>,
    tokens: Option<u64>,
}

/// `Hit` of `jointly.cascade`.
#[derive(IntoPyObject)]
struct HitRow {
    index: usize,
    stage: Option<usize>,
    value: Option<f64>,
    value_scale: &'static str,
    score: Option<f32>,
    logit: Option<f32>,
    probability: Option<f32>,
    truncated: Option<bool>,
    span: Option<(usize, usize)>,
}

/// `StageReport` of `jointly.cascade`.
#[derive(IntoPyObject)]
struct StageRow {
    name: String,
    incoming: usize,
    read: usize,
    kept: usize,
    ms: f64,
    pairs: u64,
    tokens: u64,
    usd: f64,
    stop: Option<&'static str>,
    guarantee: Option<String>,
    notes: Vec<String>,
}

type Rows = (Vec<HitRow>, usize, Vec<StageRow>, Option<&'static str>, f64);

#[pymethods]
impl Cascade {
    /// Reads a cascade in TOML: `file` is its text, after what it is called in messages. Models that are not in `models` are loaded as
    /// the options say, but in the precision of their stage.
    #[new]
    fn new(
        py: Python<'_>,
        file: (String, String),
        models: HashMap<String, Py<Model>>,
        options: (Load, Reading),
    ) -> PyResult<Self> {
        let ((name, text), (load, reading)) = (file, options);
        let mut local = LocalModels::new(Loader(load), reading.options(py)?);
        for (name, model) in models {
            local.give(name, Arc::clone(&model.get().encoder));
        }
        let built = detached(py, || -> Result<_, Fault> {
            let file = CascadeFile::parse(&name, &text)?;
            let is_slow = |stage: &StageSpec| {
                matches!(stage, StageSpec::Other(_) | StageSpec::Duo(_) | StageSpec::OnePass(_))
            };
            Ok((file.build(&mut local)?, file.stages.iter().any(is_slow)))
        })?;
        let (cascade, is_slow) = built.map_err(|fault| match fault {
            Fault::File(error) => Kind::Input.error(py, error.to_string(), None),
            Fault::Load(failure) => failure.raise(py),
        })?;
        Ok(Self { cascade, is_slow })
    }

    /// The names of the stages.
    fn names(&self) -> Vec<String> {
        self.cascade.names().map(String::from).collect()
    }

    /// Every document once, best first: hits, how many of them were kept, stages, what stopped it, and milliseconds.
    fn run<'py>(
        &self,
        py: Python<'py>,
        query: Bound<'py, PyAny>,
        documents: Bound<'py, PyAny>,
        given: Given,
    ) -> PyResult<Rows> {
        let query = text(&query, "query", None)?;
        let documents = Texts::read(&documents, "document")?;
        let documents = documents.views(py, "document")?;
        let sub_queries: Vec<SubQuery<'_>> =
            given.sub_queries.iter().map(|(text, weight)| SubQuery { text, weight: *weight }).collect();
        let cancel = Cancel::new();
        let mut request = Request::new(&query, &documents).sub_queries(&sub_queries);
        request = request.budget(given.budget(py)?);
        if self.is_slow || documents.len() > FEW_DOCUMENTS {
            request.budget = request.budget.cancel(cancel.clone());
        }
        if let Some(scores) = &given.first_scores {
            request = request.first_scores(scores);
        }
        let outcome = detached(py, || interruptible(|| self.cascade.run(&request), &cancel))??;
        Ok(rows(&outcome.map_err(|error| engine(py, &error))?))
    }
}

impl Given {
    fn budget(&self, py: Python<'_>) -> PyResult<Budget> {
        let mut budget = Budget::new();
        if let Some(ms) = self.ms {
            let time = Duration::try_from_secs_f64(ms / 1e3)
                .map_err(|_| Kind::Input.error(py, format!("ms {ms}: it is a number from 0"), None))?;
            budget = budget.time(time);
        }
        Ok(match self.tokens {
            Some(tokens) => budget.tokens(tokens),
            None => budget,
        })
    }
}

/// Runs `work` on a thread while this one looks for signals, which only Python's main thread gets.
fn interruptible<T: Send>(work: impl FnOnce() -> T + Send, cancel: &Cancel) -> PyResult<T> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        scope.spawn(move || {
            // Nobody listens after an interruption.
            let _ = sender.send(work());
        });
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = Python::attach(|py| py.check_signals()) {
                        cancel.cancel();
                        return Err(error);
                    }
                }
                // The thread panicked: the scope passes that on when this returns.
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Python::attach(|py| Kind::Internal.error(py, "a stage panicked", None)));
                }
            }
        }
    })
}

enum Fault {
    File(jointly_cascade::Error),
    Load(Failure),
}

impl From<jointly_cascade::Error> for Fault {
    fn from(error: jointly_cascade::Error) -> Self {
        Self::File(error)
    }
}

impl From<jointly::Error> for Fault {
    fn from(error: jointly::Error) -> Self {
        Self::Load(error.into())
    }
}

/// Loads models as the options of the cascade say, but in the precision of their stage.
struct Loader(Load);

impl jointly_cascade::Load for Loader {
    type Error = Fault;

    fn cross_encoder(&mut self, name: &str, precision: Option<Precision>) -> Result<CrossEncoder, Fault> {
        load::cross_encoder(name, &self.0.with_precision(precision)).map_err(Fault::Load)
    }

    fn bi_encoder(&mut self, name: &str, options: LoadOptions) -> Result<BiEncoder, Fault> {
        load::bi_encoder(name, options, &self.0).map_err(Fault::Load)
    }

    fn one_pass(&mut self, name: &str, options: LoadOptions) -> Result<OnePass, Fault> {
        load::one_pass(name, options, &self.0).map_err(Fault::Load)
    }

    /// The stage that asks a language model. A cascade that is interrupted ends it between two questions.
    fn other(&mut self, spec: &OtherSpec) -> Result<Option<SharedStage>, Fault> {
        static GO_ON: AtomicBool = AtomicBool::new(false);
        if spec.kind != "listwise" {
            return Ok(None);
        }
        let wrong =
            |problem: String| Fault::Load(Failure::Input(format!("a stage of the kind listwise: {problem}")));
        let spec: ListwiseSpec = spec.read().map_err(wrong)?;
        Ok(Some(Box::new(spec.build(&GO_ON).map_err(wrong)?)))
    }
}

fn rows(outcome: &Outcome) -> Rows {
    let hits = outcome.hits.iter().map(hit_row).collect();
    let stages = outcome.stages.iter().map(stage_row).collect();
    let stop = outcome.stop.map(rank::Stop::name);
    (hits, outcome.kept, stages, stop, outcome.elapsed.as_secs_f64() * 1e3)
}

fn hit_row(placed: &Placed) -> HitRow {
    let score = placed.score.as_ref();
    HitRow {
        index: placed.index,
        stage: placed.stage,
        value: placed.value,
        value_scale: scale(placed.value_scale),
        score: score.map(|score| score.score),
        logit: score.map(|score| score.logit),
        probability: score.and_then(|score| score.probability),
        truncated: score.map(|score| score.truncated),
        span: score.and_then(|score| score.span.as_ref()).map(|span| (span.start, span.end)),
    }
}

fn stage_row(report: &StageReport) -> StageRow {
    StageRow {
        name: report.name.clone(),
        incoming: report.incoming,
        read: report.read,
        kept: report.kept,
        ms: report.elapsed.as_secs_f64() * 1e3,
        pairs: report.spent.pairs,
        tokens: report.spent.tokens,
        usd: report.spent.usd,
        stop: report.stop.map(rank::Stop::name),
        guarantee: report.guarantee.as_ref().map(in_words),
        notes: report.notes.clone(),
    }
}
