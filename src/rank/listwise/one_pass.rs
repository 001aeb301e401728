//! A list in one pass: a model that reads the query and many documents in one sequence, and gives each of them a score.
//!
//! Unlike a language model that writes an order, it is run once and writes nothing: jina-reranker-v3, arXiv 2509.25085.
//! A document's score depends on those beside it, which is what makes it listwise, and why it is a [`Stage`] and no
//! [`Scorer`](crate::rank::Scorer).

use std::borrow::Borrow;
use std::path::Path;
use std::sync::Arc;

use jointly_cuda::Device;
use jointly_kernels::{Kernels, Precision};

use crate::cross_encoder::LoadOptions;
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::model::head::{Head, Pooling};
use crate::model::one_pass::{OnePassModel, OnePassSequence};
use crate::network::Network;
use crate::nn::Matrix;
use crate::rank::turns::{AtOnce, Turns, in_turn};
use crate::rank::{Applied, Budget, Context, Kept, Meter, Placed, Ranking, Spent, Stage, Stop};
use crate::score::{Score, ScoreScale};
use crate::text::EncodedPair;
use crate::weights::Form;

/// Tokens that may come of tokenising a document together with what stands before it.
const SEAM: usize = 8;

/// How lists are read. The defaults are what the authors' code does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnePassOptions {
    block: usize,
    max_query_tokens: usize,
    max_document_tokens: usize,
    instruction: Option<String>,
    depth: Option<usize>,
}

impl Default for OnePassOptions {
    fn default() -> Self {
        Self { block: 125, max_query_tokens: 512, max_document_tokens: 2048, instruction: None, depth: None }
    }
}

impl OnePassOptions {
    /// Blocks of 125 documents, queries of 512 tokens, documents of 2048, no instruction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Most documents of one sequence; the report says 64. Scores depend on it.
    #[must_use]
    pub fn block(mut self, documents: usize) -> Self {
        self.block = documents;
        self
    }

    /// A longer query is cut.
    #[must_use]
    pub fn max_query_tokens(mut self, tokens: usize) -> Self {
        self.max_query_tokens = tokens;
        self
    }

    /// A longer document is cut.
    #[must_use]
    pub fn max_document_tokens(mut self, tokens: usize) -> Self {
        self.max_document_tokens = tokens;
        self
    }

    /// What to look for, beside the query.
    #[must_use]
    pub fn instruction(mut self, instruction: impl Into<String>) -> Self {
        self.instruction = Some(instruction.into());
        self
    }

    /// As a stage, only the first `depth` documents are read.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = Some(depth);
        self
    }

    /// Tokens of the longest query and of the longest document that are read.
    #[must_use]
    pub fn longest_pair(&self) -> usize {
        self.max_query_tokens.saturating_add(self.max_document_tokens)
    }

    /// Whether a list can be read so.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a 0.
    pub fn check(&self) -> Result<()> {
        for (option, value) in [
            ("block", self.block),
            ("max_query_tokens", self.max_query_tokens),
            ("max_document_tokens", self.max_document_tokens),
            ("depth", self.depth.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::InvalidOption { option, problem: "0; at least 1 is needed".into() });
            }
        }
        Ok(())
    }
}

/// A model that scores a list in one pass.
///
/// ```no_run
/// use jointly::LoadOptions;
/// use jointly::rank::listwise::{OnePass, OnePassOptions};
///
/// let model = OnePass::load("jina-reranker-v3", LoadOptions::new())?;
/// let documents = ["Venus is hot.", "Mars is called the Red Planet."];
/// let ranking = model.rerank("Which planet is red?", &documents, &OnePassOptions::new())?;
/// println!("{}", documents[ranking.hits[0].index]);
/// # Ok::<(), jointly::Error>(())
/// ```
pub struct OnePass {
    model: OnePassModel,
    kernels: &'static Kernels,
    threads: usize,
    precision: Precision,
    device: Option<Arc<Device>>,
    /// [`Network`] has one; the projector is not over pooled states.
    head: Head,
}

impl std::fmt::Debug for OnePass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnePass")
            .field("architecture", &self.model.architecture)
            .field("parameters", &self.model.parameters)
            .field("dimensions", &self.model.dimensions())
            .field("max_length", &self.model.max_length)
            .finish_non_exhaustive()
    }
}

impl OnePass {
    /// Whether a folder or bundle holds a model of this kind.
    ///
    /// # Errors
    /// Those of its `config.json`.
    pub fn is_one(files: &ModelFiles) -> Result<bool> {
        crate::model::one_pass::is_one_pass(files)
    }

    /// Loads a model from a folder in Hugging Face layout, or from a bundle.
    ///
    /// # Errors
    /// Any [`Error`] of kind [`Model`](crate::ErrorKind::Model) or [`Io`](crate::ErrorKind::Io);
    /// [`Error::InvalidOption`] for int8, which is not fitted to such models.
    pub fn load(path: impl AsRef<Path>, options: LoadOptions) -> Result<Self> {
        Self::from_files(&ModelFiles::open(path.as_ref())?, options)
    }

    /// Loads a model from its files, wherever they lie.
    ///
    /// # Errors
    /// As [`OnePass::load`].
    pub fn from_files(files: &ModelFiles, options: LoadOptions) -> Result<Self> {
        let precision = options.precision;
        if precision == Precision::Int8 {
            let problem = "int8; a model that reads a list in one pass is f32 or bf16".into();
            return Err(Error::InvalidOption { option: "precision", problem });
        }
        let kernels = Kernels::select()?;
        let chosen = options.device.open(precision, options.packed_cache.as_deref())?;
        let device = chosen.devices.into_iter().next();
        let form = Form { precision, device: device.clone(), ..Form::default() };
        let model = OnePassModel::load(files, kernels, (form, options.max_length))?;
        let threads = options.thread_count();
        Ok(Self { model, kernels, threads, precision, device, head: Head::new(Pooling::Last) })
    }

    /// The cosine of each document, from -1 to 1, in the order given. It depends on the documents beside it.
    ///
    /// # Errors
    /// [`Error::EmptyQuery`], [`Error::Encode`], [`Error::NotFinite`], [`Error::NoRoom`] where query and instruction leave no room
    /// for a document, [`Error::InvalidOption`].
    pub fn score(&self, query: &str, documents: &[&str], options: &OnePassOptions) -> Result<Vec<Score>> {
        let meter = Meter::start(Budget::new());
        let (scores, _) = self.score_within(query, documents, (options, &meter, &AtOnce))?;
        Ok(scores)
    }

    /// The same of the first blocks, as many as the meter allows, and why not more.
    fn score_within(
        &self,
        query: &str,
        documents: &[&str],
        (options, meter, turns): (&OnePassOptions, &Meter, &dyn Turns),
    ) -> Result<(Vec<Score>, Option<Stop>)> {
        options.check()?;
        if query.trim().is_empty() {
            return Err(Error::EmptyQuery);
        }
        let (query, query_tokens, query_cut) = self.cut(query, options.max_query_tokens, "query")?;
        // What a document alone leaves of the sequence.
        let frame = self.model.encode(query, &[""], options.instruction.as_deref())?.input_ids.len() + SEAM;
        let max_length = self.model.max_length;
        let room = max_length.checked_sub(frame).filter(|room| *room > 0);
        let room = room.ok_or(Error::NoRoom { needed: frame, max_length })?;
        let limit = options.max_document_tokens.min(room);
        let mut texts = Vec::with_capacity(documents.len());
        for document in documents {
            texts.push(self.cut(document, limit, "document")?);
        }
        let lengths: Vec<usize> = texts.iter().map(|(_, tokens, _)| *tokens).collect();
        let mut embeddings: Vec<Vec<f64>> = Vec::with_capacity(documents.len());
        let mut tokens = Vec::with_capacity(documents.len());
        let mut queries: Vec<(Vec<f64>, f64)> = Vec::new();
        let mut stop = None;
        let mut todo = blocks(&lengths, query_tokens, (max_length, options));
        todo.reverse();
        while let Some(block) = todo.pop() {
            stop = meter.stop();
            if stop.is_some() {
                break;
            }
            let documents: Vec<&str> = texts[block.clone()].iter().map(|(text, ..)| *text).collect();
            let sequence = self.model.encode(query, &documents, options.instruction.as_deref())?;
            if sequence.input_ids.len() > max_length && block.len() > 1 {
                // The template was not reckoned with, and many short documents have much of it.
                let middle = block.start + block.len() / 2;
                todo.extend([middle..block.end, block.start..middle]);
                continue;
            }
            let (of_query, of_documents) = in_turn(turns, || self.embed(&sequence))?;
            let best = of_documents.iter().map(|d| cosine(&of_query, d)).fold(-1.0, f64::max);
            let mut start = 0;
            for &end in &sequence.documents {
                tokens.push(end + 1 - start);
                start = end + 1;
            }
            let (pairs, tokens) = (block.len() as u64, start as u64);
            meter.spend(Spent { calls: 1, pairs, tokens, usd: 0.0 });
            queries.push((of_query, (1.0 + best) / 2.0));
            embeddings.extend(of_documents);
        }
        let merged = merge(&queries);
        let scores = embeddings.iter().zip(&tokens).zip(&texts).enumerate();
        let scores = scores
            .map(|(index, ((document, &tokens), (_, _, is_cut)))| {
                let logit = cosine(&merged, document) as f32;
                if !logit.is_finite() {
                    return Err(Error::NotFinite { index, logit });
                }
                Ok(Score {
                    logit,
                    score: logit,
                    probability: None,
                    tokens,
                    truncated: *is_cut || query_cut,
                    windows: 1,
                    span: None,
                })
            })
            .collect::<Result<Vec<Score>>>()?;
        Ok((scores, stop))
    }

    /// Scores all documents and sorts them, best first; ties keep the order given.
    ///
    /// # Errors
    /// As [`OnePass::score`].
    pub fn rerank<D: AsRef<str>>(
        &self,
        query: &str,
        documents: &[D],
        options: &OnePassOptions,
    ) -> Result<Ranking> {
        let documents: Vec<&str> = documents.iter().map(AsRef::as_ref).collect();
        Ok(Ranking::from_scores(self.score(query, &documents, options)?))
    }

    /// As a stage of a cascade.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn stage(&self, options: OnePassOptions) -> Result<OnePassStage<&Self>> {
        OnePassStage::new(self, options)
    }

    /// The text as far as it is read, its tokens, and whether that is not all of it.
    fn cut<'t>(&self, text: &'t str, limit: usize, what: &'static str) -> Result<(&'t str, usize, bool)> {
        let tokens = self.model.tokenizer.encode_start_with_offsets(text, limit, what)?;
        match tokens.offsets.get(limit) {
            None => Ok((text, tokens.ids.len(), false)),
            Some(&(start, _)) => {
                let end = text.char_indices().nth(start).map_or(text.len(), |(byte, _)| byte);
                Ok((&text[..end], limit, true))
            }
        }
    }

    /// The embedding of the query, and those of the documents.
    fn embed(&self, sequence: &OnePassSequence) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
        let OnePassSequence { input_ids, documents, query } = sequence;
        if input_ids.len() > self.model.max_length {
            return Err(Error::NoRoom { needed: input_ids.len(), max_length: self.model.max_length });
        }
        let pair = EncodedPair {
            token_type_ids: vec![0; input_ids.len()],
            input_ids: input_ids.clone(),
            query_truncated: false,
            document_truncated: false,
        };
        let network = Network {
            trunk: &*self.model.trunk,
            head: &self.head,
            kernels: self.kernels,
            precision: self.precision,
            threads: self.threads,
            device: self.device.as_ref(),
            replicas: &[],
        };
        network.check_ids(&pair, "list")?;
        let hidden = network.hidden(&pair)?;
        let places = documents.iter().chain([query]);
        let data: Vec<f32> = places.flat_map(|&place| hidden.row(place)).copied().collect();
        let states = Matrix::new(data, documents.len() + 1, hidden.cols);
        let projected = self.model.project(self.kernels, &states);
        let row = |row: usize| projected.row(row).iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
        Ok((row(documents.len()), (0..documents.len()).map(row).collect()))
    }
}

/// Ranges of documents that are read together. A block ends when it has as many as it may, or when the longest document would
/// not fit any more; of the length, the query counts twice.
fn blocks(
    lengths: &[usize],
    query: usize,
    (max_length, options): (usize, &OnePassOptions),
) -> Vec<std::ops::Range<usize>> {
    let capacity = max_length.saturating_sub(2 * query);
    let (mut found, mut start, mut left) = (Vec::new(), 0, capacity);
    for (place, length) in lengths.iter().enumerate() {
        left = left.saturating_sub(*length);
        let end = place + 1;
        if end - start >= options.block || left <= options.max_document_tokens {
            found.push(start..end);
            (start, left) = (end, capacity);
        }
    }
    if start < lengths.len() {
        found.push(start..lengths.len());
    }
    found
}

/// The query's embedding of all blocks: each weighs as much as its best document is like it.
fn merge(queries: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let sum: f64 = queries.iter().map(|(_, weight)| weight).sum();
    let mut merged = vec![0.0; queries.first().map_or(0, |(values, _)| values.len())];
    for (values, weight) in queries {
        // Opposite to all documents, a query has no weight; then all blocks have the same.
        let weight = if sum > 0.0 { weight / sum } else { 1.0 / queries.len() as f64 };
        merged.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
    }
    merged
}

/// NaN for a vector without length.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

/// A [`OnePass`] model as a stage: it reads all documents that it is given together. A budget may end it between
/// two blocks; then the documents of those that were read are in order, and the others follow as they came.
#[derive(Clone)]
pub struct OnePassStage<M> {
    model: M,
    options: OnePassOptions,
    name: String,
    keep: Option<usize>,
    turns: Arc<dyn Turns>,
}

impl<M> std::fmt::Debug for OnePassStage<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnePassStage").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<M: Borrow<OnePass> + Sync> OnePassStage<M> {
    /// `model` is a [`OnePass`], a reference to one, or an `Arc` of one.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn new(model: M, options: OnePassOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { model, options, name: "one pass".into(), keep: None, turns: Arc::new(AtOnce) })
    }

    /// Computes each block when its turn has come.
    #[must_use]
    pub fn turns(mut self, turns: Arc<dyn Turns>) -> Self {
        self.turns = turns;
        self
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Keeps the best of those that it reads; otherwise all of them.
    #[must_use]
    pub fn keep(mut self, keep: usize) -> Self {
        self.keep = Some(keep);
        self
    }
}

impl<M: Borrow<OnePass> + Sync> Stage for OnePassStage<M> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        if let Some(stop) = context.meter.stop() {
            return Ok(Applied::unchanged(incoming).stop(Some(stop)));
        }
        let depth = self.options.depth.map_or(incoming.len(), |depth| depth.min(incoming.len()));
        let incoming = &incoming[..depth];
        if incoming.is_empty() {
            return Ok(Applied::unchanged(incoming));
        }
        let texts = context.texts(incoming);
        let (scores, stop) = self.model.borrow().score_within(
            context.query(),
            &texts,
            (&self.options, context.meter, &*self.turns),
        )?;
        let read = scores.len();
        if read == 0 {
            return Ok(Applied::unchanged(incoming).stop(stop));
        }
        let ranking = Ranking::from_scores(scores.clone());
        let kept = ranking
            .hits
            .iter()
            .map(|hit| Kept { index: incoming[hit.index].index, value: f64::from(hit.score.logit) });
        let kept = kept.take(self.keep.unwrap_or(usize::MAX)).collect();
        let scores = incoming.iter().map(|placed| placed.index).zip(scores).collect();
        // A cosine is no probability.
        Ok(Applied::new(kept).scores(scores, ScoreScale::Ordinal).read(read).stop(stop))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::rank::{Cascade, Request};

    #[test]
    fn a_budget_ends_it_between_two_blocks() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/list-jina-v3");
        let model = OnePass::load(folder, LoadOptions::new().threads(1)).unwrap();
        let texts = ["mars is red", "venus", "a moon", "the sun", "red"];
        let options = OnePassOptions::new().block(2);
        let cascade = Cascade::new().stage(model.stage(options.clone()).unwrap());
        let run = |budget| cascade.run(&Request::new("red planet", &texts).budget(budget)).unwrap();
        let all = run(Budget::new());
        assert_eq!((all.stages[0].read, all.spent.pairs, all.spent.calls, all.stop), (5, 5, 3, None));
        // The first block spends it. It is sorted, and the others follow as they came.
        let found = run(Budget::new().tokens(1));
        let indices: Vec<usize> = found.hits.iter().map(|hit| hit.index).collect();
        let alone = model.rerank("red planet", &texts[..2], &options).unwrap();
        let first: Vec<usize> = alone.hits.iter().map(|hit| hit.index).collect();
        assert_eq!((&indices[..2], &indices[2..]), (&first[..], &[2, 3, 4][..]));
        assert_eq!((found.stages[0].read, found.stop), (2, Some(Stop::Tokens)));
        assert!(found.is_partial());
    }

    #[test]
    fn a_block_ends_when_it_is_full_or_the_length_is() {
        let options = OnePassOptions::new().block(3).max_document_tokens(10);
        let blocks = |lengths: &[usize], max_length| blocks(lengths, 5, (max_length, &options));
        assert_eq!(blocks(&[1; 7], 1000), [0..3, 3..6, 6..7]);
        // 40 - 10 for the query twice: after two of 10 tokens there is no room for a third of the longest.
        assert_eq!(blocks(&[10, 10, 10], 40), [0..2, 2..3]);
        assert_eq!(blocks(&[10, 10], 12), [0..1, 1..2]);
        assert!(blocks(&[], 40).is_empty());
    }

    #[test]
    fn the_query_of_several_blocks_is_a_weighted_mean() {
        let merged = merge(&[(vec![1.0, 0.0], 0.75), (vec![0.0, 1.0], 0.25)]);
        assert_eq!(merged, [0.75, 0.25]);
        assert_eq!(merge(&[(vec![1.0], 0.0), (vec![3.0], 0.0)]), [2.0]);
        assert!((cosine(&[3.0, 4.0], &[4.0, 3.0]) - 0.96).abs() < 1e-15);
        assert!(cosine(&[0.0], &[1.0]).is_nan());
    }
}
