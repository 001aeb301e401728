//! The main path: texts in, scores out.

use std::collections::HashMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jointly_cuda::Device;
use jointly_kernels::{Kernels, Precision};

use crate::batch::{Batch, Read};
use crate::calibration::Calibration;
use crate::device::{Chosen, DeviceChoice};
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::model::{self, Model};
use crate::network::{self, MAX_PENDING, Network, Replica};
use crate::nn::{Matrix, Run};
use crate::packed_cache::{self, Kind, PackedCache, PackedCacheState};
use crate::rank::Ranking;
use crate::receipt::{self, ReceiptState};
use crate::score::{Score, ScoreMap, ScoreScale};
use crate::text::{EncodedPair, EncodedQuery, EncodedWindow, WindowOptions};
use crate::weights::Form;

/// The query that was tokenised last.
type LastQuery<'a> = Option<(&'a str, Arc<EncodedQuery>)>;

/// A query and a document, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// What is asked.
    pub query: &'a str,
    /// What may answer it.
    pub document: &'a str,
}

/// A pair as tokens: [`CrossEncoder::encode`].
#[derive(Debug, Clone)]
pub struct Encoded {
    windows: Vec<EncodedWindow>,
    long: Long,
}

impl Encoded {
    /// What the model reads: one sequence, or several of a long document.
    #[must_use]
    pub fn windows(&self) -> &[EncodedWindow] {
        &self.windows
    }

    /// The number of tokens, over all windows.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(|window| window.pair.input_ids.len()).sum()
    }

    /// Whether any of the query or the document is left unread.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.windows.iter().any(|window| window.pair.truncated())
    }
}

/// How to load a model.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    threads: Option<NonZero<usize>>,
    pub(crate) precision: Precision,
    auto_precision: bool,
    pub(crate) max_length: Option<usize>,
    skip_receipt: bool,
    calibration: WhichCalibration,
    pub(crate) packed_cache: Option<PathBuf>,
    pub(crate) device: DeviceChoice,
}

/// Where the calibration comes from.
#[derive(Debug, Clone, Default)]
enum WhichCalibration {
    #[default]
    Beside,
    File(PathBuf),
    None,
}

impl LoadOptions {
    /// All cores, the model's own maximum length, and the receipt checked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of threads; 0 means one for each core that this process may use.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = NonZero::new(threads);
        self
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get)
    }

    /// What the trunk multiplies in; f32 if nothing is said. The head, norms, sums and logits are f32 in any case.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        (self.precision, self.auto_precision) = (precision, false);
        self
    }

    /// The fastest precision that the model's receipt certifies and that this processor multiplies by itself; f32 for a
    /// model without a receipt. [`ModelInfo::precision`] says which it is.
    #[must_use]
    pub fn auto_precision(mut self) -> Self {
        self.auto_precision = true;
        self
    }

    /// This precision; without one, as [`LoadOptions::auto_precision`].
    #[must_use]
    pub fn precision_or_auto(self, precision: Option<Precision>) -> Self {
        match precision {
            Some(precision) => self.precision(precision),
            None => self.auto_precision(),
        }
    }

    /// The longest pair, in tokens, template included.
    #[must_use]
    pub fn max_length(mut self, max_length: usize) -> Self {
        self.max_length = Some(max_length);
        self
    }

    /// Whether a model that has a receipt must reproduce its scores before it is used.
    #[must_use]
    pub fn check_receipt(mut self, check: bool) -> Self {
        self.skip_receipt = !check;
        self
    }

    /// The folder that packed weights are kept in, made for this user alone if it is not there; none, which is also what
    /// holds if nothing is said, keeps nothing on disk. Loading a model again then maps its weights instead of converting them, and
    /// processes share that memory. They change no bit of a score.
    ///
    /// There is one file for each model, precision and instruction set; any of them may be deleted at any time. Whoever can
    /// write there can change scores. A file that is damaged, or of a model that has changed since, is written
    /// again; [`ModelInfo::packed_cache`] says what was done.
    #[must_use]
    pub fn packed_cache(mut self, folder: Option<PathBuf>) -> Self {
        self.packed_cache = folder;
        self
    }

    /// What computes; this machine's processor if nothing is said. Devices keep compiled kernels in the folder of
    /// [`packed_cache`](Self::packed_cache), and no packed weights.
    #[must_use]
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = device;
        self
    }

    /// The calibration in this file, in place of the `calibration.json` beside the model.
    #[must_use]
    pub fn calibration(mut self, path: impl Into<PathBuf>) -> Self {
        self.calibration = WhichCalibration::File(path.into());
        self
    }

    /// No calibration, whatever lies beside the model.
    #[must_use]
    pub fn without_calibration(mut self) -> Self {
        self.calibration = WhichCalibration::None;
        self
    }
}

/// What to do with documents that are longer than the model reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Long {
    /// Read the beginning; the score says `truncated`.
    #[default]
    Truncate,
    /// Read the end; the score says `truncated`.
    TruncateStart,
    /// Read all of it in overlapping windows; the score is that of the best one, and says where it is.
    Windows(WindowOptions),
}

/// How to score.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScoreOptions {
    long: Long,
    max_length: Option<usize>,
    max_document_tokens: Option<usize>,
    instruction: Option<String>,
}

impl ScoreOptions {
    /// Truncation at the model's maximum length, no instruction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What to do with long documents.
    #[must_use]
    pub fn long(mut self, long: Long) -> Self {
        self.long = long;
        self
    }

    /// The longest pair, in tokens, template included; at most what the model was loaded with.
    #[must_use]
    pub fn max_length(mut self, max_length: usize) -> Self {
        self.max_length = Some(max_length);
        self
    }

    /// The longest document, in tokens. A longer one is cut to its first so many, before anything else is done about its
    /// length, and its score says `truncated`.
    #[must_use]
    pub fn max_document_tokens(mut self, tokens: usize) -> Self {
        self.max_document_tokens = Some(tokens);
        self
    }

    /// What to look for, for models whose template takes an instruction.
    #[must_use]
    pub fn instruction(mut self, instruction: impl Into<String>) -> Self {
        self.instruction = Some(instruction.into());
        self
    }

    /// The instruction, if there is one.
    #[must_use]
    pub fn get_instruction(&self) -> Option<&str> {
        self.instruction.as_deref()
    }
}

/// How to rerank.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RerankOptions {
    top_n: Option<usize>,
    score: ScoreOptions,
}

impl RerankOptions {
    /// All documents, with the default [`ScoreOptions`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many of the best to return.
    #[must_use]
    pub fn top_n(mut self, top_n: usize) -> Self {
        self.top_n = Some(top_n);
        self
    }

    /// How to score.
    #[must_use]
    pub fn score(mut self, score: ScoreOptions) -> Self {
        self.score = score;
        self
    }
}

/// What a loaded model is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The folder, bundle or embedded name it came from.
    pub source: String,
    /// The architecture, by its name in the field.
    pub architecture: &'static str,
    /// The head, in a few words.
    pub head: String,
    /// The template that a pair is written in.
    pub template: String,
    /// The map from logit to score.
    pub score_map: ScoreMap,
    /// What the mapped score is.
    pub score_scale: ScoreScale,
    /// Values per token.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Token ids.
    pub vocab_size: usize,
    /// Values in the checkpoint.
    pub parameters: usize,
    /// The number format of most of them, as in `config.json`.
    pub dtype: Option<&'static str>,
    /// The longest pair, in tokens.
    pub max_length: usize,
    /// The licence that the model card states.
    pub licence: Option<String>,
    /// Whether the receipt was there, and checked.
    pub receipt: ReceiptState,
    /// What was done about packed weights.
    pub packed_cache: PackedCacheState,
    /// What the trunk multiplies in.
    pub precision: Precision,
    /// The instruction set that computes, where no device does.
    pub isa: String,
    /// What computes: `cpu`, or the devices; with the reason, where the choice was left to this library.
    pub device: String,
    /// The number of threads.
    pub threads: usize,
}

/// A cross-encoder: reads a query and a document together and says how relevant the document is.
///
/// ```
/// # #[cfg(feature = "default-model")] {
/// use jointly::{CrossEncoder, LoadOptions, RerankOptions};
///
/// let model = CrossEncoder::load_default(LoadOptions::new())?;
/// let documents = ["Venus is the hottest planet.", "Mars is called the Red Planet."];
/// let ranking = model.rerank("Which planet is red?", &documents, &RerankOptions::new().top_n(1))?;
/// assert_eq!(ranking.hits[0].index, 1);
/// # }
/// # Ok::<(), jointly::Error>(())
/// ```
pub struct CrossEncoder {
    model: Model,
    kernels: &'static Kernels,
    threads: usize,
    info: ModelInfo,
    files: ModelFiles,
    calibration: Option<Calibration>,
    /// What computes in place of the processor, and copies of the model on others.
    device: Option<Arc<Device>>,
    replicas: Vec<Replica>,
}

impl std::fmt::Debug for CrossEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrossEncoder").field("info", &self.info).finish_non_exhaustive()
    }
}

impl CrossEncoder {
    /// Loads a model from a folder in Hugging Face layout, or from a bundle. Nothing but the path is needed: the
    /// architecture, head, template and score map are read from the files.
    ///
    /// # Errors
    /// Any [`Error`] of kind [`Model`](crate::ErrorKind::Model) or [`Io`](crate::ErrorKind::Io). With a receipt that
    /// does not hold, [`Error::Receipt`]; with the calibration of another model, [`Error::Calibration`].
    pub fn load(path: impl AsRef<Path>, options: LoadOptions) -> Result<Self> {
        Self::from_files(ModelFiles::open(path.as_ref())?, options)
    }

    /// Loads the model that is embedded in this library.
    ///
    /// # Errors
    /// As [`CrossEncoder::load`].
    #[cfg(feature = "default-model")]
    pub fn load_default(options: LoadOptions) -> Result<Self> {
        Self::from_files(crate::embedded::files(), options)
    }

    /// Loads a model from its files, wherever they lie.
    ///
    /// # Errors
    /// As [`CrossEncoder::load`].
    pub fn from_files(files: ModelFiles, options: LoadOptions) -> Result<Self> {
        let kernels = Kernels::select()?;
        let threads = options.thread_count();
        let folder = options.packed_cache.as_deref();
        let calibration = match &options.calibration {
            WhichCalibration::Beside => Calibration::beside(&files, folder)?,
            WhichCalibration::File(path) => Some(Calibration::read(path, &files, folder)?),
            WhichCalibration::None => None,
        };
        let receipt = receipt::Receipt::read(&files)?;
        let precision = |on_device: bool| match &receipt {
            _ if !options.auto_precision => options.precision,
            Some(receipt) if on_device => receipt.fastest_on_device(),
            Some(receipt) => receipt.fastest(kernels.isa),
            None => Precision::F32,
        };
        let wants_device = !matches!(options.device, DeviceChoice::Cpu);
        let chosen = options.device.open(precision(wants_device), folder)?;
        let precision = precision(!chosen.devices.is_empty());
        let cache = || {
            if !chosen.devices.is_empty() {
                return Ok(None);
            }
            let Some(folder) = folder else { return Ok(None) };
            let pins = receipt.as_ref().map_or(&[][..], |receipt| &receipt.files);
            PackedCache::of(folder, &files, pins, (Kind::Cross, precision, kernels.isa)).map(Some)
        };
        let observe = || {
            network::observation_for(precision, |observation, texts| {
                let form = Form { observation, ..Form::default() };
                let cpu = Chosen { devices: Vec::new(), name: String::new() };
                let model = Self::build(files.clone(), kernels, 1, form, (&cpu, None))?;
                let pairs: Vec<Pair<'_>> =
                    texts.iter().map(|(query, document)| Pair { query, document }).collect();
                model.score_pinned(&pairs).map(drop)
            })
        };
        let build = |form| {
            let where_and_how_long = (&chosen, options.max_length);
            let mut encoder = Self::build(files.clone(), kernels, threads, form, where_and_how_long)?;
            if let Some(receipt) = &receipt {
                encoder.info.receipt = if options.skip_receipt {
                    ReceiptState::NotChecked
                } else {
                    receipt.check_scores(&encoder)?;
                    ReceiptState::Holds
                };
            }
            Ok(encoder)
        };
        let (mut encoder, state) = packed_cache::load(precision, cache, observe, build)?;
        encoder.info.packed_cache = state;
        encoder.calibration = calibration;
        Ok(encoder)
    }

    fn build(
        files: ModelFiles,
        kernels: &'static Kernels,
        threads: usize,
        form: Form,
        (chosen, max_length): (&Chosen, Option<usize>),
    ) -> Result<Self> {
        let precision = form.precision;
        let load = |device: Option<&Arc<Device>>| {
            let form = Form { device: device.cloned(), ..form.clone() };
            model::load(&files, kernels, form, max_length)
        };
        let device = chosen.devices.first().cloned();
        let model = load(device.as_ref())?;
        let mut replicas = Vec::new();
        for device in chosen.devices.iter().skip(1) {
            let Model { trunk, head, .. } = load(Some(device))?;
            replicas.push(Replica { trunk, head, device: Arc::clone(device) });
        }
        let sizes = model.trunk.sizes();
        let info = ModelInfo {
            source: files.describe(),
            architecture: model.architecture,
            head: model.head.describe(),
            template: model.template.to_string(),
            score_map: model.score_map,
            score_scale: model.score_map.scale(),
            hidden_size: sizes.hidden,
            layers: sizes.layers,
            vocab_size: sizes.vocab,
            parameters: model.parameters,
            dtype: model.dtype.map(crate::weights::Dtype::name),
            max_length: model.max_length,
            licence: licence(&files),
            receipt: ReceiptState::Absent,
            packed_cache: PackedCacheState::Off,
            precision,
            isa: kernels.isa.to_string(),
            device: chosen.name.clone(),
            threads,
        };
        Ok(Self { model, kernels, threads, info, files, calibration: None, device, replicas })
    }

    /// What this model is.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The files it was loaded from.
    #[must_use]
    pub fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// What its logits mean as probabilities, if that is known.
    #[must_use]
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Scores pairs with the default [`ScoreOptions`]; one score for each, in the order given.
    ///
    /// # Errors
    /// As [`CrossEncoder::score_pairs_with`].
    pub fn score_pairs(&self, pairs: &[Pair<'_>]) -> Result<Vec<Score>> {
        self.score_pairs_with(pairs, &ScoreOptions::new())
    }

    /// Scores pairs; one score for each, in the order given. A pair's score does not depend, bit for bit, on the
    /// pairs beside it, their order, or the number of threads. Documents may be empty; queries may not.
    ///
    /// # Errors
    /// [`Error::Pair`] around [`Error::EmptyQuery`], [`Error::NoRoom`] or [`Error::Encode`], with the index of the
    /// first pair that fails; [`Error::NotFinite`]; [`Error::InvalidOption`].
    pub fn score_pairs_with(&self, pairs: &[Pair<'_>], options: &ScoreOptions) -> Result<Vec<Score>> {
        self.score_pairs_within(pairs, options, self.checked_length(options)?)
    }

    /// Scores the pairs of a receipt: as this model does when it is loaded without options.
    pub(crate) fn score_pinned(&self, pairs: &[Pair<'_>]) -> Result<Vec<Score>> {
        self.score_pairs_within(pairs, &ScoreOptions::new(), self.model.own_max_length)
    }

    fn score_pairs_within(
        &self,
        pairs: &[Pair<'_>],
        options: &ScoreOptions,
        max_length: usize,
    ) -> Result<Vec<Score>> {
        let mut scores = Vec::with_capacity(pairs.len());
        // With windows, one document may be as long as many.
        let chunk = match &options.long {
            Long::Truncate | Long::TruncateStart => MAX_PENDING,
            Long::Windows(windows) => (MAX_PENDING / windows.max_windows.max(1)).max(1),
        };
        let mut last = None;
        for (first, pairs) in pairs.chunks(chunk).enumerate().map(|(i, pairs)| (i * chunk, pairs)) {
            let encoded = self
                .encode_all(pairs, options, max_length, &mut last)
                .map_err(|(i, error)| error.at_pair(first + i))?;
            let windows: Vec<&EncodedPair> = encoded.iter().flatten().map(|window| &window.pair).collect();
            let mut logits = self.logits(&windows)?.into_iter();
            for (i, windows) in encoded.iter().enumerate() {
                let logits: Vec<f32> = logits.by_ref().take(windows.len()).collect();
                scores.push(self.best(first + i, windows, &logits, &options.long)?);
            }
        }
        Ok(scores)
    }

    /// Scores all documents against the query and sorts them, best first; ties keep the order given.
    ///
    /// # Errors
    /// As [`CrossEncoder::score_pairs_with`]; an empty query is an error even without documents.
    pub fn rerank<D: AsRef<str>>(
        &self,
        query: &str,
        documents: &[D],
        options: &RerankOptions,
    ) -> Result<Ranking> {
        if query.trim().is_empty() {
            return Err(Error::EmptyQuery);
        }
        let pairs: Vec<Pair<'_>> =
            documents.iter().map(|document| Pair { query, document: document.as_ref() }).collect();
        let scores = self.score_pairs_with(&pairs, &options.score)?;
        let mut ranking = Ranking::from_scores(scores);
        ranking.hits.truncate(options.top_n.unwrap_or(usize::MAX));
        Ok(ranking)
    }

    /// The token ids that pairs are read as: for inspection, and for comparing with other programs.
    ///
    /// # Errors
    /// As [`CrossEncoder::score_pairs_with`].
    pub fn encode_pairs(
        &self,
        pairs: &[Pair<'_>],
        options: &ScoreOptions,
    ) -> Result<Vec<Vec<EncodedWindow>>> {
        let max_length = self.checked_length(options)?;
        self.encode_all(pairs, options, max_length, &mut None).map_err(|(i, error)| error.at_pair(i))
    }

    /// Tokenises pairs on this thread. What comes out may be scored beside pairs of other calls, with other options: see
    /// [`CrossEncoder::logits`]. `score_pairs_with` is this, then `logits` of all [`Encoded::windows`], then
    /// [`CrossEncoder::score`] of each pair; the scores are the same, bit for bit.
    ///
    /// # Errors
    /// As [`CrossEncoder::score_pairs_with`].
    pub fn encode(&self, pairs: &[Pair<'_>], options: &ScoreOptions) -> Result<Vec<Encoded>> {
        let max_length = self.checked_length(options)?;
        let mut last = None;
        let encode = |(i, pair): (usize, &_)| {
            let windows = self.encode_pair(pair, options, max_length, &mut last);
            windows
                .map(|windows| Encoded { windows, long: options.long.clone() })
                .map_err(|error| error.at_pair(i))
        };
        pairs.iter().enumerate().map(encode).collect()
    }

    /// What the head gives for each sequence, on all threads; NaN and infinity too. A logit does not depend on the sequences
    /// beside it, bit for bit; on a device, within rounding. Those that are the same are computed once.
    ///
    /// # Errors
    /// Those of kind [`Device`](crate::ErrorKind::Device), if a device computes.
    pub fn logits(&self, sequences: &[&EncodedPair]) -> Result<Vec<f32>> {
        Self::logits_of(&self.network(), sequences)
    }

    /// As [`CrossEncoder::logits`], on the calling thread alone, or on the device if there is one: for callers that keep threads of
    /// their own busy. The logits are the same, bit for bit.
    ///
    /// # Errors
    /// As [`CrossEncoder::logits`].
    pub fn logits_here(&self, sequences: &[&EncodedPair]) -> Result<Vec<f32>> {
        Self::logits_of(&Network { threads: 1, ..self.network() }, sequences)
    }

    /// How many threads may call [`CrossEncoder::logits_here`] side by side: 1 on a device, and 1 if pairs of one batch share what is
    /// computed for their query, which pairs of two cannot.
    #[must_use]
    pub fn lanes(&self) -> usize {
        if self.device.is_some() || self.network().shares_prefixes() { 1 } else { self.threads.max(1) }
    }

    fn logits_of(network: &Network<'_>, sequences: &[&EncodedPair]) -> Result<Vec<f32>> {
        let mut first = HashMap::new();
        let mut distinct = Vec::new();
        let places: Vec<usize> = sequences
            .iter()
            .map(|pair| {
                *first.entry((&pair.input_ids, &pair.token_type_ids)).or_insert_with(|| {
                    distinct.push(*pair);
                    distinct.len() - 1
                })
            })
            .collect();
        let logits = network.outputs(&distinct)?;
        Ok(places.into_iter().map(|place| logits[place]).collect())
    }

    /// The score of a pair from the logits of its windows.
    ///
    /// # Errors
    /// [`Error::NotFinite`], with index 0.
    ///
    /// # Panics
    /// If there are not as many logits as windows.
    pub fn score(&self, encoded: &Encoded, logits: &[f32]) -> Result<Score> {
        assert_eq!(encoded.windows.len(), logits.len(), "a logit for each window");
        self.best(0, &encoded.windows, logits, &encoded.long)
    }

    /// The score of one window of a pair by itself.
    ///
    /// # Errors
    /// [`Error::NotFinite`], with index 0.
    ///
    /// # Panics
    /// If there is no such window.
    pub fn score_window(&self, encoded: &Encoded, window: usize, logit: f32) -> Result<Score> {
        self.best(0, std::slice::from_ref(&encoded.windows[window]), &[logit], &encoded.long)
    }

    /// Runs one batch on the calling thread, all of its rows, and shows what each layer gives: `embeddings`, `layer0`, ..., and
    /// `final_norm` where there is one, each `[T, hidden_size]`; on a device that failed, NaN. For parity tests.
    #[must_use]
    pub fn trace(&self, batch: &Batch, listener: &mut dyn FnMut(&str, &Matrix)) -> Vec<f32> {
        let mut run = Run { trace: Some(listener), ..self.network().run() };
        let hidden = self.model.trunk.forward(&mut run, batch, Read::All);
        let logits = self.model.head.forward(&mut run, hidden, (batch, Read::All));
        match self.device.as_ref().and_then(|device| device.take_failure()) {
            None => logits,
            Some(_) => vec![f32::NAN; logits.len()],
        }
    }

    fn checked_length(&self, options: &ScoreOptions) -> Result<usize> {
        match options.max_length {
            None => Ok(self.model.max_length),
            Some(length) if (1..=self.model.max_length).contains(&length) => Ok(length),
            Some(length) => Err(Error::InvalidOption {
                option: "max_length",
                problem: format!(
                    "{length}; this model was loaded to read from 1 to {} tokens",
                    self.model.max_length
                ),
            }),
        }
    }

    /// Tokenises pairs on all threads. Each pair gives one window, or several.
    fn encode_all<'a>(
        &self,
        pairs: &[Pair<'a>],
        options: &ScoreOptions,
        max_length: usize,
        last: &mut LastQuery<'a>,
    ) -> std::result::Result<Vec<Vec<EncodedWindow>>, (usize, Error)> {
        // Most often all pairs have the same query: it is tokenised here, once, for all threads.
        if let Some(first) = pairs.first() {
            self.query(first.query, options, max_length, last).map_err(|error| (0, error))?;
        }
        network::in_parts(self.threads, pairs, last, |last, pair| {
            self.encode_pair(pair, options, max_length, last)
        })
    }

    fn encode_pair<'a>(
        &self,
        pair: &Pair<'a>,
        options: &ScoreOptions,
        max_length: usize,
        last: &mut LastQuery<'a>,
    ) -> Result<Vec<EncodedWindow>> {
        let text = &self.model.text;
        let query = self.query(pair.query, options, max_length, last)?;
        let document = match options.max_document_tokens {
            // A token is never shorter than a byte.
            Some(tokens) if pair.document.len() > tokens => text.start(pair.document, tokens)?,
            _ => pair.document,
        };
        let mut windows = match &options.long {
            Long::Truncate => {
                let pair = text.encode_pair(&query, document, max_length)?;
                vec![EncodedWindow { pair, span: 0..0 }] // without windows, no span is reported
            }
            Long::TruncateStart => {
                let side_by_side = WindowOptions::new().stride(usize::MAX).max_windows(usize::MAX);
                let mut windows = text.encode_windows(&query, document, max_length, &side_by_side)?;
                let is_cut = windows.len() > 1;
                let mut last = windows.split_off(windows.len().saturating_sub(1));
                last.iter_mut().for_each(|window| window.pair.document_truncated = is_cut);
                last
            }
            Long::Windows(windows) => text.encode_windows(&query, document, max_length, windows)?,
        };
        if document.len() < pair.document.len() {
            windows.iter_mut().for_each(|window| window.pair.document_truncated = true);
        }
        self.check_ids(&windows)?;
        Ok(windows)
    }

    fn query<'a>(
        &self,
        query: &'a str,
        options: &ScoreOptions,
        max_length: usize,
        last: &mut LastQuery<'a>,
    ) -> Result<Arc<EncodedQuery>> {
        if let Some((text, encoded)) = last
            && *text == query
        {
            return Ok(Arc::clone(encoded));
        }
        if query.trim().is_empty() {
            return Err(Error::EmptyQuery);
        }
        let instruction = options.instruction.as_deref();
        let encoded = Arc::new(self.model.text.encode_query_within(query, instruction, max_length)?);
        *last = Some((query, Arc::clone(&encoded)));
        Ok(encoded)
    }

    fn check_ids(&self, windows: &[EncodedWindow]) -> Result<()> {
        windows.iter().try_for_each(|window| self.network().check_ids(&window.pair, "pair"))
    }

    fn network(&self) -> Network<'_> {
        Network {
            trunk: &*self.model.trunk,
            head: &self.model.head,
            kernels: self.kernels,
            precision: self.info.precision,
            threads: self.threads,
            device: self.device.as_ref(),
            replicas: &self.replicas,
        }
    }

    /// The score of a document: that of its best window, the first of equals.
    fn best(&self, index: usize, windows: &[EncodedWindow], logits: &[f32], long: &Long) -> Result<Score> {
        if let Some(&logit) = logits.iter().find(|logit| !logit.is_finite()) {
            return Err(Error::NotFinite { index, logit });
        }
        let mut best = 0;
        for (window, logit) in logits.iter().enumerate() {
            if logit.total_cmp(&logits[best]).is_gt() {
                best = window;
            }
        }
        let tokens = windows.iter().map(|window| window.pair.input_ids.len()).sum();
        let truncated = windows.iter().any(|window| window.pair.truncated());
        let count = windows.len();
        let logit = logits.get(best).copied().unwrap_or(f32::NAN);
        let span = match long {
            Long::Truncate | Long::TruncateStart => None,
            Long::Windows(_) => windows.get(best).map(|window| window.span.clone()),
        };
        let probability = self.calibration.as_ref().map(|calibration| calibration.map.apply(logit));
        let score = self.model.score_map.apply(logit);
        Ok(Score { logit, score, probability, tokens, truncated, windows: count, span })
    }
}

/// The licence that a model card states in its front matter.
fn licence(files: &ModelFiles) -> Option<String> {
    let card = files.read("README.md").ok()?;
    let card = String::from_utf8_lossy(&card);
    let mut lines = card.lines();
    if lines.next()?.trim_start_matches('\u{feff}').trim() != "---" {
        return None;
    }
    lines
        .take_while(|line| line.trim() != "---")
        .find_map(|line| line.strip_prefix("license:"))
        .map(|licence| licence.trim().trim_matches(['"', '\'']).to_string())
}
