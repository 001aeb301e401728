//! Our own: everything that a request can ask for, and everything that is known of an answer.

use http::header::ACCEPT;
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Dialect, Outline, Parsed, Rendered, Route};
use crate::engine::scale_name;
use crate::{
    Coverage, Failure, FailureKind, Hit, Items, Latency, ModelCard, Overlong, RerankRequest, RerankResponse,
    SpanOptions,
};

/// The dialect.
pub struct Jointly;

static ROUTES: [Route; 2] =
    [Route { method: &Method::POST, path: "/v1/rerank" }, Route { method: &Method::GET, path: "/v1/models" }];

/// Fields that nobody else has.
const OWN_FIELDS: [&str; 8] = [
    "instruction",
    "overlong",
    "max_windows",
    "max_tokens_per_pair",
    "spans",
    "deadline",
    "partial",
    "stream",
];
/// What `"spans": true` asks for.
const DEFAULT_SPANS: SpanOptions = SpanOptions { max_spans: 3, threshold: f32::NEG_INFINITY };

/// A body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The name of a model.
    model: Option<String>,
    query: String,
    documents: Vec<Document>,
    /// How many of the best to return.
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: bool,
    /// What to look for, for models that take an instruction.
    instruction: Option<String>,
    #[serde(default)]
    overlong: OverlongName,
    /// Windows of a document at most, with `overlong` `windows`.
    max_windows: Option<usize>,
    max_tokens_per_doc: Option<usize>,
    max_tokens_per_pair: Option<usize>,
    /// Whether to say which parts are relevant.
    spans: Option<Spans>,
    /// From 0, served first, to 999.
    #[serde(default)]
    priority: u16,
    latency: Option<LatencyName>,
    /// Seconds.
    deadline: Option<f64>,
    /// At the deadline, what there is.
    #[serde(default)]
    partial: bool,
    /// What is scored, as it comes.
    #[serde(default)]
    stream: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Document {
    Text(String),
    Object { text: String },
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OverlongName {
    #[default]
    TruncateEnd,
    TruncateStart,
    Windows,
    Refuse,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LatencyName {
    Fast,
    Slow,
    Auto,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Spans {
    Asked(bool),
    With { max_spans: Option<usize>, threshold: Option<f32> },
}

/// What the answer repeats.
struct Echo {
    return_documents: bool,
}

#[derive(Serialize)]
struct Response<'a> {
    id: &'a str,
    model: &'a str,
    results: Vec<Result<'a>>,
    score_scale: &'static str,
    usage: Usage,
    coverage: CoverageBody,
    latency: &'static str,
    timing_ms: Timing,
}

#[derive(Serialize)]
struct Result<'a> {
    index: usize,
    score: f32,
    logit: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
    tokens: usize,
    truncated: bool,
    windows: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    best_window: Option<[usize; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spans: Option<Vec<Span<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
}

#[derive(Serialize)]
struct Span<'a> {
    start: usize,
    end: usize,
    score: f32,
    logit: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
    text: &'a str,
}

#[derive(Serialize)]
struct Usage {
    tokens: usize,
    bytes: usize,
    characters: usize,
    truncated_documents: usize,
}

#[derive(Serialize)]
struct CoverageBody {
    scored: usize,
    given: usize,
    complete: bool,
}

impl From<Coverage> for CoverageBody {
    fn from(Coverage { scored, given }: Coverage) -> Self {
        Self { scored, given, complete: scored == given }
    }
}

#[derive(Serialize)]
struct Timing {
    total: f64,
    tokenization: f64,
    queue: f64,
    inference: f64,
}

#[derive(Serialize)]
struct Progress<'a> {
    results: Vec<Result<'a>>,
    coverage: CoverageBody,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: Problem<'a>,
}

#[derive(Serialize)]
struct Problem<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    aliases: &'a [String],
    default: bool,
    loaded: bool,
    #[serde(flatten)]
    known: Option<Known<'a>>,
}

#[derive(Serialize)]
struct Known<'a> {
    architecture: &'a str,
    parameters: usize,
    precision: &'a str,
    max_length: usize,
    score_scale: &'static str,
    calibrated: bool,
    healthy: bool,
    identity: &'a str,
}

impl Dialect for Jointly {
    fn name(&self) -> &'static str {
        "jointly"
    }

    fn routes(&self) -> &'static [Route] {
        &ROUTES
    }

    fn claims(&self, _: &str, outline: &Outline, _: &HeaderMap) -> bool {
        outline.has_any(&OWN_FIELDS)
    }

    fn parse(&self, _: &str, body: &[u8], headers: &HeaderMap) -> std::result::Result<Parsed, Failure> {
        let body: Request = serde_json::from_slice(body).map_err(|error| {
            Failure::new(FailureKind::Malformed, format!("the body is not as expected: {error}"))
        })?;
        let invalid = |field: &str, problem: &str| {
            Err(Failure::new(FailureKind::Invalid, format!("{field} {problem}")).field(field))
        };
        if body.query.trim().is_empty() {
            return invalid("query", "must not be empty or only white space");
        }
        if body.documents.is_empty() {
            return invalid("documents", "must not be empty");
        }
        for (field, value) in [
            ("top_n", body.top_n),
            ("max_windows", body.max_windows),
            ("max_tokens_per_doc", body.max_tokens_per_doc),
            ("max_tokens_per_pair", body.max_tokens_per_pair),
        ] {
            if value == Some(0) {
                return invalid(field, "must be at least 1");
            }
        }
        if body.priority > 999 {
            return invalid("priority", "must be from 0 to 999");
        }
        let deadline = match body.deadline {
            None => None,
            Some(seconds) if seconds > 0.0 && seconds <= 1e6 => {
                Some(std::time::Duration::from_secs_f64(seconds))
            }
            Some(_) => return invalid("deadline", "must be a number of seconds above 0"),
        };
        let spans = match body.spans {
            None | Some(Spans::Asked(false)) => None,
            Some(Spans::Asked(true)) => Some(DEFAULT_SPANS),
            Some(Spans::With { max_spans: Some(0), .. }) => {
                return invalid("spans.max_spans", "must be at least 1");
            }
            Some(Spans::With { max_spans, threshold }) => Some(SpanOptions {
                max_spans: max_spans.unwrap_or(DEFAULT_SPANS.max_spans),
                threshold: threshold.unwrap_or(f32::NEG_INFINITY),
            }),
        };
        let documents = body.documents.into_iter().map(|document| match document {
            Document::Text(text) | Document::Object { text } => text,
        });
        let wants_events = |value: &http::HeaderValue| {
            value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/event-stream"))
        };
        let request = RerankRequest {
            model: body.model,
            top_n: body.top_n,
            instruction: body.instruction,
            overlong: match body.overlong {
                OverlongName::TruncateEnd => Overlong::TruncateEnd,
                OverlongName::TruncateStart => Overlong::TruncateStart,
                OverlongName::Windows => Overlong::Windows { max_windows: body.max_windows },
                OverlongName::Refuse => Overlong::Refuse,
            },
            max_tokens_per_doc: body.max_tokens_per_doc,
            max_tokens_per_pair: body.max_tokens_per_pair,
            spans,
            priority: body.priority,
            latency: match body.latency {
                Some(LatencyName::Fast) => Latency::Fast,
                Some(LatencyName::Slow) => Latency::Slow,
                Some(LatencyName::Auto) | None => Latency::Auto,
            },
            deadline,
            partial: body.partial,
            stream: body.stream || headers.get_all(ACCEPT).iter().any(wants_events),
            ..RerankRequest::new(Items::Documents { query: body.query, documents: documents.collect() })
        };
        Ok(Parsed { request, echo: Box::new(Echo { return_documents: body.return_documents }) })
    }

    fn render(&self, _: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let milliseconds = |duration: std::time::Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        let usage = response.usage;
        let body = Response {
            id: &response.id,
            model: &response.model,
            results: results(parsed, &response.hits),
            score_scale: scale_name(response.scale),
            usage: Usage {
                tokens: usage.tokens,
                bytes: usage.bytes,
                characters: usage.characters,
                truncated_documents: usage.truncated,
            },
            coverage: response.coverage.into(),
            latency: match response.latency {
                Latency::Fast => "fast",
                _ => "slow",
            },
            timing_ms: Timing {
                total: milliseconds(response.timing.total),
                tokenization: milliseconds(response.timing.tokenization),
                queue: milliseconds(response.timing.queue),
                inference: milliseconds(response.timing.inference),
            },
        };
        json(StatusCode::OK, &body)
    }

    fn describe(&self, path: &str, models: &[ModelCard]) -> Option<Rendered> {
        if path != ROUTES[1].path {
            return None;
        }
        let model = |card: &'_ ModelCard| -> serde_json::Value {
            let known = card.loaded.as_ref().map(|loaded| Known {
                architecture: &loaded.architecture,
                parameters: loaded.parameters,
                precision: &loaded.precision,
                max_length: loaded.max_length,
                score_scale: scale_name(loaded.scale),
                calibrated: loaded.is_calibrated,
                healthy: loaded.is_healthy,
                identity: &loaded.identity,
            });
            let model = Model {
                name: &card.name,
                aliases: &card.aliases,
                default: card.is_default,
                loaded: known.is_some(),
                known,
            };
            serde_json::to_value(model).unwrap_or_default()
        };
        let models: Vec<serde_json::Value> = models.iter().map(model).collect();
        Some(json(StatusCode::OK, &serde_json::json!({ "models": models })))
    }

    fn progress(&self, parsed: &Parsed, hits: &[Hit], coverage: Coverage) -> Option<Vec<u8>> {
        let body = Progress { results: results(parsed, hits), coverage: coverage.into() };
        serde_json::to_vec(&body).ok()
    }

    fn failure(&self, _: &str, request_id: &str, failure: &Failure) -> Rendered {
        let error = Problem {
            code: failure.kind.code(),
            message: &failure.message,
            field: failure.field.as_deref(),
            request_id,
        };
        json(failure.kind.status(), &ErrorBody { error })
    }
}

fn results<'a>(parsed: &'a Parsed, hits: &[Hit]) -> Vec<Result<'a>> {
    let Items::Documents { documents, .. } = &parsed.request.items else { return Vec::new() };
    let echoes = parsed.echo.downcast_ref::<Echo>().is_some_and(|echo| echo.return_documents);
    let result = |hit: &Hit| {
        let text = documents.get(hit.index).map(String::as_str).unwrap_or_default();
        let span = |(range, score): &(std::ops::Range<usize>, jointly::Score)| Span {
            start: range.start,
            end: range.end,
            score: score.score,
            logit: score.logit,
            probability: score.probability,
            text: code_points(text, range.clone()),
        };
        Result {
            index: hit.index,
            score: hit.score.score,
            logit: hit.score.logit,
            probability: hit.score.probability,
            tokens: hit.score.tokens,
            truncated: hit.score.truncated,
            windows: hit.score.windows,
            best_window: hit.score.span.as_ref().map(|span| [span.start, span.end]),
            spans: parsed.request.spans.map(|_| hit.spans.iter().map(span).collect()),
            document: echoes.then_some(text),
        }
    };
    hits.iter().map(result).collect()
}

fn code_points(text: &str, range: std::ops::Range<usize>) -> &str {
    let byte = |position: usize| text.char_indices().nth(position).map_or(text.len(), |(at, _)| at);
    text.get(byte(range.start)..byte(range.end)).unwrap_or_default()
}

fn json(status: StatusCode, body: &impl Serialize) -> Rendered {
    // Our own types always have a JSON form: keys are strings, and a score that is not finite is no score.
    let body = serde_json::to_vec(body).unwrap_or_default();
    Rendered { status, headers: HeaderMap::new(), body }
}
