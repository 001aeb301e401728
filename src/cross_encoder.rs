//! The main path: texts in, scores out.

use std::collections::HashMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jointly_kernels::{Kernels, Precision};

use crate::batch::{self, Batch, Plan, Read};
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::model::head::Head;
use crate::model::{self, Model, Trunk};
use crate::nn::{Inputs, Matrix, Observation, Run, Team};
use crate::rank::Ranking;
use crate::receipt::{self, ReceiptState};
use crate::score::{Score, ScoreMap, ScoreScale};
use crate::text::{EncodedPair, EncodedQuery, EncodedWindow, WindowOptions};

/// Tokens computed together by one thread. Enough rows for the matrix kernels, few enough that the activations of a
/// small model stay in its cache.
const MAX_BATCH_TOKENS: usize = 512;
/// Pairs (or windows) encoded before they are scored: bounds the memory of a request of any size.
const MAX_PENDING: usize = 2048;
/// Pairs that a thread tokenises before it takes others: some fifty microseconds of work.
const PAIRS_AT_ONCE: usize = 16;
/// Beside the receipt's, the texts that int8 is fitted to: figures, code, signs, names.
const OBSERVED: [(&str, &str); 4] = [
    (
        "what is the capital of australia",
        "Canberra (population 456,692 in 2021) is the capital; Sydney and Melbourne are larger.",
    ),
    (
        "python list index out of range",
        "for i in range(len(xs)): print(xs[i + 1])  # IndexError on the last item",
    ),
    (
        "symptoms of vitamin d deficiency",
        "Fatigue, bone pain, weak muscles; see a doctor (25-OH-D below 20 ng/mL).",
    ),
    (
        "best time to visit kyoto",
        "Cherry trees bloom in late March, maples turn red in mid-November. Hotels fill up months ahead.",
    ),
];

/// The query that was tokenised last.
type LastQuery<'a> = Option<(&'a str, Arc<EncodedQuery>)>;

/// The pairs that int8 is fitted to.
pub(crate) fn texts_to_observe() -> Vec<(String, String)> {
    let mut texts = receipt::pairs_to_pin();
    texts.extend(OBSERVED.map(|(query, document)| (query.to_string(), document.to_string())));
    texts
}

/// A query and a document, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// What is asked.
    pub query: &'a str,
    /// What may answer it.
    pub document: &'a str,
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
}

/// What to do with documents that are longer than the model reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Long {
    /// Read the beginning; the score says `truncated`.
    #[default]
    Truncate,
    /// Read all of it in overlapping windows; the score is that of the best one, and says where it is.
    Windows(WindowOptions),
}

/// How to score.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScoreOptions {
    long: Long,
    max_length: Option<usize>,
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

    /// What to look for, for models whose template takes an instruction.
    #[must_use]
    pub fn instruction(mut self, instruction: impl Into<String>) -> Self {
        self.instruction = Some(instruction.into());
        self
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
    /// What the trunk multiplies in.
    pub precision: Precision,
    /// The instruction set that computes.
    pub isa: String,
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
    /// does not hold, [`Error::Receipt`].
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
        let receipt = receipt::Receipt::read(&files)?;
        let precision = match &receipt {
            _ if !options.auto_precision => options.precision,
            Some(receipt) => receipt.fastest(kernels.isa),
            None => Precision::F32,
        };
        let observation = match precision {
            Precision::F32 | Precision::Bf16 => Observation::None,
            Precision::Int8 => Observation::Use(Self::observe(&files, kernels)?),
        };
        let mut encoder = Self::build(files, kernels, threads, precision, observation, options.max_length)?;
        if let Some(receipt) = receipt {
            encoder.info.receipt = if options.skip_receipt {
                ReceiptState::NotChecked
            } else {
                receipt.check_scores(&encoder)?;
                ReceiptState::Holds
            };
        }
        Ok(encoder)
    }

    /// What the inputs of the layers look like in f32. One thread, so that they are the same every time.
    fn observe(files: &ModelFiles, kernels: &'static Kernels) -> Result<Arc<Inputs>> {
        let inputs = Arc::new(Inputs::default());
        let observation = Observation::Record(inputs.clone());
        let model = Self::build(files.clone(), kernels, 1, Precision::F32, observation, None)?;
        let texts = texts_to_observe();
        let pairs: Vec<Pair<'_>> = texts.iter().map(|(query, document)| Pair { query, document }).collect();
        model.score_pinned(&pairs)?;
        Ok(inputs)
    }

    fn build(
        files: ModelFiles,
        kernels: &'static Kernels,
        threads: usize,
        precision: Precision,
        observation: Observation,
        max_length: Option<usize>,
    ) -> Result<Self> {
        let model = model::load(&files, kernels, (precision, observation), max_length)?;
        let info = ModelInfo {
            source: files.describe(),
            architecture: model.architecture,
            head: model.head.describe(),
            template: model.template.to_string(),
            score_map: model.score_map,
            score_scale: model.score_map.scale(),
            hidden_size: model.trunk.hidden_size(),
            layers: model.trunk.layers(),
            vocab_size: model.trunk.vocab_size(),
            parameters: model.parameters,
            dtype: model.dtype.map(crate::weights::Dtype::name),
            max_length: model.max_length,
            licence: licence(&files),
            receipt: ReceiptState::Absent,
            precision,
            isa: kernels.isa.to_string(),
            threads,
        };
        Ok(Self { model, kernels, threads, info, files })
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
            Long::Truncate => MAX_PENDING,
            Long::Windows(windows) => (MAX_PENDING / windows.max_windows.max(1)).max(1),
        };
        let mut last = None;
        for (first, pairs) in pairs.chunks(chunk).enumerate().map(|(i, pairs)| (i * chunk, pairs)) {
            let encoded = self
                .encode(pairs, options, max_length, &mut last)
                .map_err(|(i, error)| error.at_pair(first + i))?;
            let windows: Vec<&EncodedPair> = encoded.iter().flatten().map(|window| &window.pair).collect();
            let mut logits = self.logits(&windows).into_iter();
            for (i, windows) in encoded.into_iter().enumerate() {
                let logits: Vec<f32> = logits.by_ref().take(windows.len()).collect();
                scores.push(self.best(first + i, windows, &logits, options)?);
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
        self.encode(pairs, options, max_length, &mut None).map_err(|(i, error)| error.at_pair(i))
    }

    /// Runs one batch on the calling thread, all of its rows, and shows what each layer gives: `embeddings`, `layer0`, ..., and
    /// `final_norm` where there is one, each `[T, hidden_size]`. For parity tests.
    #[must_use]
    pub fn trace(&self, batch: &Batch, listener: &mut dyn FnMut(&str, &Matrix)) -> Vec<f32> {
        let mut run = Run { trace: Some(listener), ..self.network().run() };
        let hidden = self.model.trunk.forward(&mut run, batch, Read::All);
        self.model.head.forward(&mut run, hidden, (batch, Read::All))
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
    fn encode<'a>(
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
        let parts: Vec<&[Pair<'a>]> = pairs.chunks(PAIRS_AT_ONCE).collect();
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(parts.len()));
        on_threads(self.threads.min(parts.len()), |_| {
            let mut last = last.clone();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(part) = parts.get(number) else { break };
                let encoded = self.encode_part(part, options, max_length, &mut last);
                done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, encoded));
            }
        });
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_unstable_by_key(|(number, _)| *number);
        let mut encoded = Vec::with_capacity(pairs.len());
        for (number, part) in done {
            encoded.extend(part.map_err(|(i, error)| (number * PAIRS_AT_ONCE + i, error))?);
        }
        Ok(encoded)
    }

    fn encode_part<'a>(
        &self,
        pairs: &[Pair<'a>],
        options: &ScoreOptions,
        max_length: usize,
        last: &mut LastQuery<'a>,
    ) -> std::result::Result<Vec<Vec<EncodedWindow>>, (usize, Error)> {
        let text = &self.model.text;
        let mut encode = |pair: &Pair<'a>| -> Result<Vec<EncodedWindow>> {
            let query = self.query(pair.query, options, max_length, last)?;
            let windows = match &options.long {
                Long::Truncate => {
                    let pair = text.encode_pair(&query, pair.document, max_length)?;
                    vec![EncodedWindow { pair, span: 0..0 }] // without windows, no span is reported
                }
                Long::Windows(windows) => text.encode_windows(&query, pair.document, max_length, windows)?,
            };
            self.check_ids(&windows)?;
            Ok(windows)
        };
        pairs.iter().enumerate().map(|(i, pair)| encode(pair).map_err(|error| (i, error))).collect()
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

    /// One logit for each pair; pairs that are the same are computed once.
    fn logits(&self, pairs: &[&EncodedPair]) -> Vec<f32> {
        let mut first = HashMap::new();
        let mut distinct = Vec::new();
        let places: Vec<usize> = pairs
            .iter()
            .map(|pair| {
                *first.entry((&pair.input_ids, &pair.token_type_ids)).or_insert_with(|| {
                    distinct.push(*pair);
                    distinct.len() - 1
                })
            })
            .collect();
        let logits = self.network().outputs(&distinct);
        places.into_iter().map(|place| logits[place]).collect()
    }

    fn network(&self) -> Network<'_> {
        Network {
            trunk: &*self.model.trunk,
            head: &self.model.head,
            kernels: self.kernels,
            precision: self.info.precision,
            threads: self.threads,
        }
    }

    /// The score of a document: that of its best window, the first of equals.
    fn best(
        &self,
        index: usize,
        windows: Vec<EncodedWindow>,
        logits: &[f32],
        options: &ScoreOptions,
    ) -> Result<Score> {
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
        let span = match options.long {
            Long::Truncate => None,
            Long::Windows(_) => windows.into_iter().nth(best).map(|window| window.span),
        };
        Ok(Score { logit, score: self.model.score_map.apply(logit), tokens, truncated, windows: count, span })
    }
}

/// What computes: a network, and what it runs on.
pub(crate) struct Network<'a> {
    pub(crate) trunk: &'a dyn Trunk,
    pub(crate) head: &'a Head,
    pub(crate) kernels: &'static Kernels,
    pub(crate) precision: Precision,
    pub(crate) threads: usize,
}

impl Network<'_> {
    /// The outputs of the head for each sequence, in the order given. Which thread computes a sequence or a part of it, and
    /// beside which others, changes no bit of it.
    pub(crate) fn outputs(&self, sequences: &[&EncodedPair]) -> Vec<f32> {
        let lengths: Vec<usize> = sequences.iter().map(|sequence| sequence.input_ids.len()).collect();
        let pack = |indices: &[usize]| Batch::pack(indices.iter().map(|&index| sequences[index]));
        let width = self.head.outputs(self.trunk.hidden_size());
        let outputs = Mutex::new(vec![0.0; sequences.len() * width]);
        let store = |indices: &[usize], found: Vec<f32>| {
            let mut outputs = outputs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for (&index, values) in indices.iter().zip(found.chunks_exact(width)) {
                outputs[index * width..(index + 1) * width].copy_from_slice(values);
            }
        };
        match batch::plan(&lengths, MAX_BATCH_TOKENS, self.threads) {
            Plan::Apart(batches) => {
                let next = AtomicUsize::new(0);
                on_threads(self.threads.min(batches.len()), |_| {
                    while let Some(indices) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut run = self.run();
                        store(indices, self.forward(&mut run, &pack(indices)));
                    }
                });
            }
            Plan::Together(batches) => {
                let team = Team::new(self.threads);
                on_threads(team.size(), |member| {
                    team.run(|| {
                        let mut run = Run { team: Some((&team, member)), ..self.run() };
                        for indices in &batches {
                            let found = self.forward(&mut run, &pack(indices).share(member, team.size()));
                            if member == 0 {
                                store(indices, found);
                            }
                        }
                    });
                });
            }
        }
        outputs.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A forward pass on one thread.
    fn run<'r>(&self) -> Run<'r> {
        // The products of attention have no weight whose scales int8 could use.
        let fewer_bits = self.precision != Precision::F32 && self.kernels.isa.is_fast_at(Precision::Bf16);
        let attention_precision = if fewer_bits { Precision::Bf16 } else { Precision::F32 };
        Run { kernels: self.kernels, attention_precision, trace: None, team: None }
    }

    /// The outputs for a batch, on this thread or on each of a team.
    fn forward(&self, run: &mut Run<'_>, batch: &Batch) -> Vec<f32> {
        let read = self.head.reads();
        let hidden = self.trunk.forward(run, batch, read);
        let hidden = run.gather(hidden);
        self.head.forward(run, hidden, (batch, read))
    }

    /// A tokenizer file may know more ids than the checkpoint has rows. `what` names the sequence in messages.
    pub(crate) fn check_ids(&self, sequence: &EncodedPair, what: &'static str) -> Result<()> {
        let (vocab, types) = (self.trunk.vocab_size(), self.trunk.type_vocab_size());
        if let Some(id) = sequence.input_ids.iter().find(|&&id| id as usize >= vocab) {
            let problem = format!("the tokenizer gives id {id}; the model has {vocab}");
            return Err(Error::Encode { what, problem });
        }
        if let Some(id) = sequence.token_type_ids.iter().find(|&&id| types > 0 && usize::from(id) >= types) {
            let problem = format!("the tokenizer gives segment {id}; the model has {types}");
            return Err(Error::Encode { what, problem });
        }
        Ok(())
    }
}

/// Runs `work` on as many threads, this one among them, with their numbers from 0.
pub(crate) fn on_threads(threads: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = (1..threads).map(|number| scope.spawn(move || work(number))).collect();
        work(0);
        others.into_iter().for_each(join);
    });
}

/// The result of a thread; its panic is a bug, and goes on here.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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
