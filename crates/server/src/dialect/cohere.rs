//! Cohere, v1 and v2. Sources: its OpenAPI document (`cohere-openapi.yaml` of cohere-ai/cohere-developer-experience, commit
//! e814c8a) and <https://docs.cohere.com/reference/errors>.
//!
//! Both versions read long documents in windows and take the best, as Cohere does: v1 at most `max_chunks_per_doc` of them, v2
//! the first `max_tokens_per_doc` tokens. `relevant_spans` is Rerank 5's; the names within it are from a third party's client.

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, AtLeast, Document};
use super::openapi::{Described, Operation};
use super::wire::{self, Echo, TextDocument};
use super::{Dialect, Parsed, Rendered, Route, Sign};
use crate::{Failure, FailureKind, Items, Overlong, RerankRequest, RerankResponse, SpanOptions};

/// The dialect.
pub(super) struct Cohere;

const V1: &str = "/v1/rerank";
const V2: &str = "/v2/rerank";

/// A body of [`V1`].
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CohereV1Request)]
pub(super) struct V1Request {
    /// A model that is served; the default one if there is none.
    #[schema(min_length = 1)]
    model: Option<String>,
    /// What is asked.
    #[schema(pattern = r"\S")]
    query: String,
    /// Strings, or objects with the fields of `rank_fields`.
    #[schema(min_items = 1, value_type = Vec<super::openapi::NonBlankOrObject>)]
    documents: Vec<Document>,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_n: Option<AtLeast<1>>,
    /// The fields of an object that are read, in this order; `text` if there is none.
    rank_fields: Option<Vec<String>>,
    /// Whether to return the documents.
    #[schema(value_type = Option<bool>, default = false)]
    return_documents: Option<bool>,
    /// The largest number of windows that a document is read in.
    #[schema(value_type = Option<u64>, minimum = 1, default = 10)]
    max_chunks_per_doc: Option<AtLeast<1>>,
}

/// A body of [`V2`].
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CohereV2Request)]
pub(super) struct V2Request {
    /// A model that is served.
    #[schema(min_length = 1)]
    model: String,
    /// What is asked.
    #[schema(pattern = r"\S")]
    query: String,
    /// Structured data is best written as YAML.
    #[schema(min_items = 1, value_type = Vec<super::openapi::NonBlank>)]
    documents: Vec<String>,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_n: Option<AtLeast<1>>,
    /// Longer documents are cut to so many tokens.
    #[schema(value_type = Option<u64>, minimum = 1, default = 4096)]
    max_tokens_per_doc: Option<AtLeast<1>>,
    /// From 0, served first and dropped last, to 999.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 999, default = 0)]
    priority: Option<AtLeast<0>>,
    /// Whether to say which parts of a document are relevant, and how many of them.
    relevant_spans: Option<RelevantSpans>,
}

/// Whether to return the relevant parts of documents.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CohereRelevantSpans)]
#[serde(untagged, expecting = "expected true, false or an object with `max_spans` and `threshold`")]
enum RelevantSpans {
    /// With the defaults, or not at all.
    Flag(bool),
    /// With options.
    Options {
        /// At most so many for a document.
        #[schema(value_type = Option<u64>, minimum = 1, default = 3)]
        max_spans: Option<AtLeast<1>>,
        /// Only those with at least this score.
        #[schema(minimum = 0.0, maximum = 1.0, default = 0.0)]
        threshold: Option<f32>,
    },
}

impl RelevantSpans {
    const DEFAULT_MAX_SPANS: usize = 3;

    fn options(&self) -> Result<Option<SpanOptions>, Failure> {
        let (max_spans, threshold) = match self {
            Self::Flag(false) => return Ok(None),
            Self::Flag(true) => (None, None),
            Self::Options { max_spans, threshold } => (*max_spans, *threshold),
        };
        let threshold = threshold.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&threshold) {
            return Err(body::invalid("relevant_spans.threshold", "must be between 0 and 1"));
        }
        let max_spans = max_spans.map_or(Self::DEFAULT_MAX_SPANS, |spans| spans.0);
        Ok(Some(SpanOptions { max_spans, threshold }))
    }
}

/// An answer of either version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CohereResponse)]
pub(super) struct Response<'a> {
    id: &'a str,
    results: Vec<Hit<'a>>,
    meta: Meta,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CohereHit)]
struct Hit<'a> {
    /// The document as it was given, if v1's `return_documents` asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    document: Option<Echo<'a>>,
    index: usize,
    /// Between 0 and 1.
    relevance_score: f32,
    /// If v2's `relevant_spans` asked for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    relevant_spans: Option<Vec<Span<'a>>>,
}

/// A part of a document: half-open, in Unicode code points.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CohereSpan)]
struct Span<'a> {
    start: usize,
    end: usize,
    score: f32,
    text: &'a str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CohereMeta)]
struct Meta {
    api_version: ApiVersion,
    billed_units: BilledUnits,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CohereApiVersion)]
struct ApiVersion {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_experimental: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CohereBilledUnits)]
struct BilledUnits {
    /// One for each hundred documents begun.
    search_units: usize,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CohereError)]
pub(super) struct ErrorBody<'a> {
    id: &'a str,
    message: &'a str,
}

/// What the answer repeats of the question.
#[derive(Default)]
struct Asked {
    documents: Option<Vec<Document>>,
    spans: bool,
}

fn check(query: &str, texts: &[String]) -> Result<(), Failure> {
    let refuse = |field: &str, message: String| Err(Failure::new(FailureKind::Invalid, message).field(field));
    if body::is_blank(query) {
        return refuse("query", "query must not be empty or be only whitespace".into());
    }
    if texts.is_empty() {
        return refuse("documents", "invalid request: list of documents must not be empty".into());
    }
    match texts.iter().position(|text| body::is_blank(text)) {
        Some(index) => {
            refuse(&format!("documents[{index}]"), format!("document at index {index} cannot be empty"))
        }
        None => Ok(()),
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Failure> {
    let V1Request { model, query, documents, top_n, rank_fields, return_documents, max_chunks_per_doc } =
        body::read(bytes)?;
    let rank_fields = body::rank_fields(rank_fields)?;
    let texts = body::texts("documents", &documents, &rank_fields)?;
    check(&query, &texts)?;
    let mut request = RerankRequest::new(Items::Documents { query, documents: texts });
    request.model = model;
    request.top_n = top_n.map(|n| n.0);
    request.overlong =
        Overlong::Windows { max_windows: Some(max_chunks_per_doc.map_or(10, |chunks| chunks.0)) };
    let documents = return_documents.unwrap_or(false).then_some(documents);
    Ok(Parsed::new(request, Asked { documents, spans: false }))
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Failure> {
    let V2Request { model, query, documents, top_n, max_tokens_per_doc, priority, relevant_spans } =
        body::read(bytes)?;
    check(&query, &documents)?;
    let priority = priority.map_or(0, |priority| priority.0);
    if priority > 999 {
        return Err(body::invalid("priority", "must be between 0 and 999"));
    }
    let spans = relevant_spans.map_or(Ok(None), |spans| spans.options())?;
    let mut request = RerankRequest::new(Items::Documents { query, documents });
    request.model = Some(model);
    request.top_n = top_n.map(|n| n.0);
    request.max_tokens_per_doc = Some(max_tokens_per_doc.map_or(4096, |tokens| tokens.0));
    request.overlong = Overlong::Windows { max_windows: None };
    request.priority = priority as u16;
    request.spans = spans;
    Ok(Parsed::new(request, Asked { documents: None, spans: spans.is_some() }))
}

impl Dialect for Cohere {
    fn name(&self) -> &'static str {
        "cohere"
    }

    fn routes(&self) -> &'static [Route] {
        const { &[Route { method: &Method::POST, path: V1 }, Route { method: &Method::POST, path: V2 }] }
    }

    fn signs(&self, _path: &str) -> &'static [Sign] {
        &[
            Sign::HeaderIs("x-fern-sdk-name", "cohere"),
            Sign::Header("x-client-name"),
            Sign::Fields(&["rank_fields", "max_chunks_per_doc"]),
            Sign::Models(&["rerank-v", "rerank-english-", "rerank-multilingual-", "cohere"]),
        ]
    }

    fn parse(&self, path: &str, body: &[u8], _headers: &HeaderMap) -> Result<Parsed, Failure> {
        if path == V1 { parse_v1(body) } else { parse_v2(body) }
    }

    fn render(&self, path: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let asked = parsed.echo::<Asked>();
        let documents = asked.and_then(|asked| asked.documents.as_ref());
        let results = response.hits.iter().map(|hit| Hit {
            document: documents.and_then(|documents| documents.get(hit.index)).map(
                |document| match document {
                    Document::Text(text) => Echo::Text(TextDocument { text }),
                    Document::Object(_, object) => Echo::Object(object),
                },
            ),
            index: hit.index,
            relevance_score: wire::unit(hit.scale, &hit.score),
            relevant_spans: asked.is_some_and(|asked| asked.spans).then(|| {
                let span = |(range, score): &(std::ops::Range<usize>, jointly::Score)| Span {
                    start: range.start,
                    end: range.end,
                    score: wire::unit(hit.scale, score),
                    text: wire::part(parsed.text(hit.index), range),
                };
                hit.spans.iter().map(span).collect()
            }),
        });
        let (version, is_experimental) = if path == V1 { ("1", None) } else { ("2", Some(false)) };
        let meta = Meta {
            api_version: ApiVersion { version, is_experimental },
            billed_units: BilledUnits { search_units: parsed.count().div_ceil(100) },
        };
        wire::json(StatusCode::OK, &Response { id: &response.id, results: results.collect(), meta })
    }

    fn operations(&self) -> Vec<Operation> {
        let [v1, v2] = [V1, V2].map(|path| Operation {
            route: Route { method: &Method::POST, path },
            summary: "Cohere's rerank",
            request: None,
            response: Described::of::<Response<'_>>(),
            error: |_| Described::of::<ErrorBody<'_>>(),
            required_header: None,
        });
        vec![
            Operation { request: Some(Described::of::<V1Request>()), ..v1 },
            Operation { request: Some(Described::of::<V2Request>()), ..v2 },
        ]
    }

    fn failure(&self, _path: &str, request_id: &str, failure: &Failure) -> Rendered {
        let message = match failure.kind {
            FailureKind::Malformed => format!("invalid request: {}", failure.message),
            FailureKind::QuotaExceeded => {
                "You are past the per minute request limit, please wait and try again later".into()
            }
            _ => failure.message.clone(),
        };
        let is_list = failure.kind == FailureKind::TooLarge && failure.field.is_some();
        let status = if is_list { StatusCode::BAD_REQUEST } else { wire::status(failure.kind) };
        wire::json(status, &ErrorBody { id: request_id, message: &message })
    }
}
