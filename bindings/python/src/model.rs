//! A cross-encoder, and pairs of columns in, columns out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jointly::receipt::ReceiptState;
use jointly::{
    CrossEncoder, Long, PackedCacheState, Pair, Score, ScoreMap, ScoreOptions, ScoreScale, WindowOptions,
};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::errors::{Kind, engine, shifted};
use crate::flight::detached;
use crate::load::{self, Load};
use crate::text::Texts;

/// Pairs scored before Python is asked whether to go on; then as many as take about [`CHUNK_TIME`].
const FIRST_CHUNK: usize = 16;
const CHUNK_TIME: Duration = Duration::from_secs(1);

/// How to score: `ScoreOptions` of `jointly._types`.
#[derive(Debug, Clone, FromPyObject)]
#[pyo3(from_item_all)]
pub struct Reading {
    long: String,
    stride: Option<usize>,
    max_windows: Option<usize>,
    max_length: Option<usize>,
    instruction: Option<String>,
}

impl Reading {
    /// # Errors
    /// `InputError`.
    pub fn options(&self, py: Python<'_>) -> PyResult<ScoreOptions> {
        let mut options = match self.long.as_str() {
            "truncate" => ScoreOptions::new(),
            "windows" => {
                let windows = WindowOptions::new()
                    .max_windows(self.max_windows.unwrap_or(WindowOptions::DEFAULT_MAX_WINDOWS));
                ScoreOptions::new().long(Long::Windows(match self.stride {
                    Some(stride) => windows.stride(stride),
                    None => windows,
                }))
            }
            other => {
                return Err(Kind::Input.error(
                    py,
                    format!("long {other:?}: it is truncate or windows"),
                    None,
                ));
            }
        };
        if let Some(max_length) = self.max_length {
            options = options.max_length(max_length);
        }
        if let Some(instruction) = &self.instruction {
            options = options.instruction(instruction);
        }
        Ok(options)
    }
}

/// What a model is: `ModelInfo` of `jointly._types`.
#[derive(IntoPyObject)]
struct Info {
    source: String,
    architecture: &'static str,
    head: String,
    template: String,
    score_map: String,
    score_scale: &'static str,
    hidden_size: usize,
    layers: usize,
    vocab_size: usize,
    parameters: usize,
    max_length: usize,
    licence: Option<String>,
    receipt: &'static str,
    packed_cache: String,
    calibrated: bool,
    precision: &'static str,
    isa: String,
    threads: usize,
}

type Floats<'py> = Bound<'py, PyArray1<f32>>;

/// A column for each thing that a score says.
type Columns<'py> = (
    Floats<'py>,
    Floats<'py>,
    Option<Floats<'py>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<bool>>,
    Bound<'py, PyArray1<u32>>,
    Option<Bound<'py, PyArray2<i64>>>,
);

/// A loaded cross-encoder.
#[pyclass(frozen, module = "jointly._native")]
pub struct Model {
    pub encoder: Arc<CrossEncoder>,
}

#[pymethods]
impl Model {
    /// Loads a folder, a bundle, a hub id, or `default`.
    #[new]
    fn new(py: Python<'_>, source: &str, options: Load) -> PyResult<Self> {
        let loaded = detached(py, || load::cross_encoder(source, &options))?;
        Ok(Self { encoder: Arc::new(loaded.map_err(|failure| failure.raise(py))?) })
    }

    /// What it is.
    fn info(&self) -> Info {
        let info = self.encoder.info();
        Info {
            source: info.source.clone(),
            architecture: info.architecture,
            head: info.head.clone(),
            template: info.template.clone(),
            score_map: info.score_map.describe(),
            score_scale: scale(info.score_scale),
            hidden_size: info.hidden_size,
            layers: info.layers,
            vocab_size: info.vocab_size,
            parameters: info.parameters,
            max_length: info.max_length,
            licence: info.licence.clone(),
            receipt: match info.receipt {
                ReceiptState::Holds => "holds",
                ReceiptState::NotChecked => "not checked",
                _ => "absent",
            },
            packed_cache: match &info.packed_cache {
                PackedCacheState::Off => "off".into(),
                PackedCacheState::Mapped => "mapped".into(),
                PackedCacheState::Written => "written".into(),
                PackedCacheState::Postponed => "postponed".into(),
                PackedCacheState::NotWritten(problem) => format!("not written: {problem}"),
                _ => "unknown".into(),
            },
            calibrated: self.encoder.calibration().is_some(),
            precision: info.precision.name(),
            isa: info.isa.clone(),
            threads: info.threads,
        }
    }

    /// Scores each document with its query, or with the one query that there is. `progress` is called with the number of pairs
    /// that were scored since it was called last.
    fn score<'py>(
        &self,
        py: Python<'py>,
        texts: (Bound<'py, PyAny>, Bound<'py, PyAny>),
        options: Reading,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Columns<'py>> {
        let (queries, documents) = texts;
        let (queries, documents) =
            (Texts::read_or_one(&queries, "query")?, Texts::read(&documents, "document")?);
        let (is_one, queries) = (matches!(queries, Texts::One(_)), queries.views(py, "query")?);
        let documents = documents.views(py, "document")?;
        if !is_one && queries.len() != documents.len() {
            let problem = format!("{} queries for {} documents", queries.len(), documents.len());
            return Err(Kind::Input.error(py, problem, None));
        }
        if is_one && queries[0].trim().is_empty() {
            return Err(engine(py, &jointly::Error::EmptyQuery));
        }
        let query = |i: usize| queries[if is_one { 0 } else { i }];
        let pairs: Vec<Pair<'_>> =
            documents.iter().enumerate().map(|(i, &document)| Pair { query: query(i), document }).collect();
        let options = options.options(py)?;
        let scores = self.all(py, (&pairs, &options), progress.as_ref())?;
        columns(py, &scores)
    }
}

impl Model {
    /// Scores pairs, and lets Python say between chunks that it is enough.
    fn all(
        &self,
        py: Python<'_>,
        (pairs, options): (&[Pair<'_>], &ScoreOptions),
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Score>> {
        let mut scores: Vec<Score> = Vec::with_capacity(pairs.len());
        let mut size = FIRST_CHUNK;
        loop {
            let start = scores.len();
            let chunk = &pairs[start..pairs.len().min(start + size)];
            let started = Instant::now();
            // An empty list too: its options may be wrong.
            let found = detached(py, || self.encoder.score_pairs_with(chunk, options))?;
            scores.extend(found.map_err(|error| engine(py, &shifted(error, start)))?);
            let share = CHUNK_TIME.as_secs_f64() / started.elapsed().as_secs_f64().max(1e-3);
            size = ((size as f64 * share) as usize).clamp(FIRST_CHUNK / 4, size * 8);
            if let Some(progress) = progress {
                progress.call1((chunk.len(),))?;
            }
            py.check_signals()?;
            if scores.len() == pairs.len() {
                return Ok(scores);
            }
        }
    }
}

fn columns<'py>(py: Python<'py>, scores: &[Score]) -> PyResult<Columns<'py>> {
    let floats = |of: fn(&Score) -> f32| PyArray1::from_vec(py, scores.iter().map(of).collect());
    let counts = |of: fn(&Score) -> usize| {
        PyArray1::from_vec(
            py,
            scores.iter().map(|score| u32::try_from(of(score)).unwrap_or(u32::MAX)).collect(),
        )
    };
    // None at all is also none for an empty list.
    let all = |is: fn(&Score) -> bool| !scores.is_empty() && scores.iter().all(is);
    let probabilities = all(|score| score.probability.is_some())
        .then(|| floats(|score| score.probability.unwrap_or(f32::NAN)));
    let spans = match all(|score| score.span.is_some()) {
        false => None,
        true => {
            let ends =
                scores.iter().flat_map(|score| score.span.iter().flat_map(|span| [span.start, span.end]));
            let flat: Vec<i64> = ends.map(|end| i64::try_from(end).unwrap_or(i64::MAX)).collect();
            Some(PyArray1::from_vec(py, flat).reshape([scores.len(), 2])?)
        }
    };
    Ok((
        floats(|score| score.logit),
        floats(|score| score.score),
        probabilities,
        counts(|score| score.tokens),
        PyArray1::from_vec(py, scores.iter().map(|score| score.truncated).collect()),
        counts(|score| score.windows),
        spans,
    ))
}

/// As it is said in Python.
pub fn scale(scale: ScoreScale) -> &'static str {
    match scale {
        ScoreScale::Logit => "logit",
        ScoreScale::Probability => "probability",
        _ => "ordinal",
    }
}

/// The sigmoid of logits, with the bits that a model's own map gives.
#[pyfunction]
pub fn sigmoid<'py>(py: Python<'py>, logits: PyReadonlyArray1<'py, f32>) -> PyResult<Floats<'py>> {
    let logits = logits.as_slice()?;
    Ok(PyArray1::from_vec(py, logits.iter().map(|&logit| ScoreMap::Sigmoid.apply(logit)).collect()))
}
