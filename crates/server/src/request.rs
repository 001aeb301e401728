//! A request and its answer, whatever dialect they are written in.

use std::sync::Arc;
use std::time::Duration;

use jointly::rank::{StageReport, Stop};
use jointly::{Score, ScoreScale};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct RerankRequest {
    /// The name of a model as the client writes it; none for the server's default.
    pub model: Option<String>,
    /// What is to be scored. Shared: who answers needs the texts again.
    pub items: Arc<Items>,
    /// How many of the best to return; all if none.
    pub top_n: Option<usize>,
    /// What to look for, for models whose template takes an instruction.
    pub instruction: Option<String>,
    /// What to do with documents that are longer than the model reads.
    pub overlong: Overlong,
    /// Longest document in tokens; longer ones are cut to it first.
    pub max_tokens_per_doc: Option<usize>,
    /// Longest pair in tokens, template included; at most what the model reads.
    pub max_tokens_per_pair: Option<usize>,
    /// Whether to say which parts of a document are relevant.
    pub spans: Option<SpanOptions>,
    /// What the search gave each document, for cascades that weigh it; larger is better.
    pub first_scores: Option<Vec<f64>>,
    /// What the query may have meant, and how likely each is, for cascades that cover all of it.
    pub sub_queries: Vec<(String, f64)>,
    /// From 0, served first and dropped last, to 999.
    pub priority: u16,
    /// Which class of admission was asked for.
    pub latency: Latency,
    /// How long the client waits; none for the server's default.
    pub deadline: Option<Duration>,
    /// Whether to answer at the deadline with the documents scored so far, in place of an error.
    pub partial: bool,
    /// Whether to send what is scored as it comes, as server-sent events; only for dialects with [`crate::dialect::Dialect::progress`].
    pub stream: bool,
}

impl RerankRequest {
    /// A request for all documents, with the server's defaults. Set the fields that the client gave.
    #[must_use]
    pub fn new(items: Items) -> Self {
        Self {
            model: None,
            items: Arc::new(items),
            top_n: None,
            instruction: None,
            overlong: Overlong::default(),
            max_tokens_per_doc: None,
            max_tokens_per_pair: None,
            spans: None,
            first_scores: None,
            sub_queries: Vec::new(),
            priority: 0,
            latency: Latency::default(),
            deadline: None,
            partial: false,
            stream: false,
        }
    }
}

/// What is to be scored.
#[derive(Debug, Clone, PartialEq)]
pub enum Items {
    /// Documents against one query.
    Documents {
        /// What is asked.
        query: String,
        /// The texts that are read, in the client's order.
        documents: Vec<String>,
    },
    /// Pairs of a query and a document, scored in the order given and not ranked. Many may have one query.
    Pairs(Vec<(Arc<str>, String)>),
}

/// What to do with a document that is longer than the model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlong {
    /// Read its beginning and say that it was cut.
    #[default]
    TruncateEnd,
    /// Read its end and say that it was cut.
    TruncateStart,
    /// Read it in windows; the best one counts.
    Windows {
        /// At most so many for a document; none for the library's own bound.
        max_windows: Option<usize>,
    },
    /// Refuse the request.
    Refuse,
}

/// Which parts of a document to return.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanOptions {
    /// At most so many for a document.
    pub max_spans: usize,
    /// Only those with at least this score.
    pub threshold: f32,
}

/// Which class of admission a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Latency {
    /// Soon, or refused.
    Fast,
    /// Whenever there is room.
    Slow,
    /// Soon if possible, else whenever there is room.
    #[default]
    Auto,
}

/// What a request came to.
#[derive(Debug, Clone, PartialEq)]
pub struct RerankResponse {
    /// Unique for each request; also in the log and in the `x-request-id` header.
    pub id: String,
    /// The model's name as the client wrote it, or the default's.
    pub model: String,
    /// For [`Items::Documents`] the best first, cut to `top_n`; for [`Items::Pairs`] in the order given.
    pub hits: Vec<Hit>,
    /// What the score of the first is. Those below it may be of other stages of a cascade, and so on another scale.
    pub scale: ScoreScale,
    /// What was read.
    pub usage: Usage,
    /// Where the time went.
    pub timing: Timing,
    /// How much was scored, if a deadline came first.
    pub coverage: Coverage,
    /// The class of admission it went through: [`Latency::Fast`] or [`Latency::Slow`].
    pub latency: Latency,
    /// What each stage of a cascade did; none of a model.
    pub stages: Vec<StageReport>,
}

impl RerankResponse {
    /// Whether a deadline came before all was done. A cascade need not read every document.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        match self.stages.as_slice() {
            [] => self.coverage.scored < self.coverage.given,
            stages => stages.iter().any(|stage| stage.stop == Some(Stop::Deadline)),
        }
    }
}

/// A document of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its index among the documents, or pairs, given.
    pub index: usize,
    /// Its score, by the last model that read it.
    pub score: Score,
    /// What that is.
    pub scale: ScoreScale,
    /// The stage of a cascade that gave it its place, from 0; none if no stage did, or there are none.
    pub stage: Option<usize>,
    /// Its relevant parts, best first, if they were asked for: code points, half-open, and their scores.
    pub spans: Vec<(std::ops::Range<usize>, Score)>,
}

/// What was read for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of all pairs as the model reads them, templates included.
    pub tokens: usize,
    /// Bytes of the query and the documents.
    pub bytes: usize,
    /// Characters of the query and the documents.
    pub characters: usize,
    /// Documents that were cut.
    pub truncated: usize,
}

/// Where the time of a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// From the first byte of the request to the answer.
    pub total: Duration,
    /// Reading the texts.
    pub tokenization: Duration,
    /// Waiting for others.
    pub queue: Duration,
    /// In the model.
    pub inference: Duration,
}

/// How much of a request was scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// Documents that were scored.
    pub scored: usize,
    /// Documents that were given.
    pub given: usize,
}

/// What a client may know of a model that is served.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCard {
    /// Its name in the configuration.
    pub name: String,
    /// Other names that clients call it by.
    pub aliases: Vec<String>,
    /// Whether it answers to requests that name no model.
    pub is_default: bool,
    /// The names of its stages, if it is a cascade.
    pub stages: Vec<String>,
    /// What is known only once it is loaded. Of a cascade: of the last model of a queue, once all are loaded; of one that reads with
    /// none, what is known of the cascade itself.
    pub loaded: Option<LoadedCard>,
}

/// What is known of a model that is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedCard {
    /// The architecture, by its name in the field.
    pub architecture: String,
    /// The longest pair, in tokens.
    pub max_length: usize,
    /// What the trunk multiplies in.
    pub precision: String,
    /// What its scores are.
    pub scale: ScoreScale,
    /// Whether it gives calibrated probabilities too.
    pub is_calibrated: bool,
    /// Whether its receipt and its last self-check hold.
    pub is_healthy: bool,
    /// One hash of all files that its scores depend on; empty where that is not known.
    pub identity: String,
    /// The number of threads.
    pub threads: usize,
    /// Values in the checkpoint; 0 where that is not known.
    pub parameters: usize,
}
