//! Our own: everything that a request can ask for, and everything that is known of an answer.

use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, Method, StatusCode};
use jointly_cascade::StageRow;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, AtLeast};
use super::openapi::{Described, Operation};
use super::{Dialect, Parsed, Rendered, Route, Sign, wire};
use crate::engine::scale_name;
use crate::{
    Coverage, Failure, Hit, Items, Latency, ModelCard, Overlong, RerankRequest, RerankResponse, SpanOptions,
};

/// The dialect.
pub struct Jointly;

static ROUTES: [Route; 2] =
    [Route { method: &Method::POST, path: "/v1/rerank" }, Route { method: &Method::GET, path: "/v1/models" }];

/// Each has documents read once more.
const MOST_SUB_QUERIES: usize = 64;
/// Scores and weights that are calculated with are not so large that their differences have no end.
const MOST: f64 = 1e30;
/// What `"spans": true` asks for.
const DEFAULT_SPANS: SpanOptions = SpanOptions { max_spans: 3, threshold: f32::NEG_INFINITY };

/// A body.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = JointlyRequest)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The name of a model.
    #[schema(min_length = 1)]
    model: Option<String>,
    #[schema(pattern = r"\S")]
    query: String,
    /// Strings, or objects with a `text`, and with the `score` that the search gave it, for cascades that weigh it.
    #[schema(min_items = 1)]
    documents: Vec<Document>,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_n: Option<AtLeast<1>>,
    /// Whether to return the documents.
    #[serde(default)]
    return_documents: bool,
    /// What to look for, for models that take an instruction.
    instruction: Option<String>,
    /// What to do with documents that are longer than the model reads.
    #[serde(default)]
    overlong: OverlongName,
    /// Windows of a document at most, with `overlong` `windows`.
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_windows: Option<AtLeast<1>>,
    /// The longest document in tokens; longer ones are cut to it first.
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_tokens_per_doc: Option<AtLeast<1>>,
    /// The longest pair in tokens, if it is to be shorter than the model reads.
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_tokens_per_pair: Option<AtLeast<1>>,
    /// Whether to say which parts are relevant.
    spans: Option<Spans>,
    /// What the query may have meant; read by cascades that cover all of it.
    #[serde(default)]
    #[schema(max_items = 64)]
    sub_queries: Vec<SubQuery>,
    /// From 0, served first, to 999.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 999, default = 0)]
    priority: Option<AtLeast<0>>,
    /// Which class of admission is asked for.
    latency: Option<LatencyName>,
    /// How long the client waits, in seconds: from a millisecond on.
    #[schema(minimum = 0.001, maximum = 1_000_000)]
    deadline: Option<f64>,
    /// Whether to answer at the deadline with what there is.
    #[serde(default)]
    partial: bool,
    /// Whether to send what is scored as it comes, as server-sent events.
    #[serde(default)]
    stream: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = JointlyDocument)]
#[serde(untagged)]
enum Document {
    Text(String),
    Object {
        text: String,
        /// Larger is better.
        #[schema(minimum = -1e30, maximum = 1e30)]
        score: Option<f64>,
    },
}

impl Document {
    fn score(&self) -> Option<f64> {
        match self {
            Self::Text(_) => None,
            Self::Object { score, .. } => *score,
        }
    }
}

#[derive(Debug, Default, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = JointlyOverlong)]
#[serde(rename_all = "snake_case")]
enum OverlongName {
    #[default]
    TruncateEnd,
    TruncateStart,
    Windows,
    Refuse,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = JointlyLatency)]
#[serde(rename_all = "snake_case")]
enum LatencyName {
    Fast,
    Slow,
    Auto,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = JointlySpans)]
#[serde(untagged)]
enum Spans {
    Asked(bool),
    With {
        #[schema(value_type = Option<u64>, minimum = 1)]
        max_spans: Option<AtLeast<1>>,
        threshold: Option<f32>,
    },
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = JointlySubQuery)]
#[serde(deny_unknown_fields)]
struct SubQuery {
    #[schema(pattern = r"\S")]
    text: String,
    /// How likely it is meant; 1 if nothing is said. Those of a query need not sum to 1.
    #[schema(exclusive_minimum = 0, maximum = 1e30, default = 1)]
    weight: Option<f64>,
}

/// What the answer repeats.
struct Echo {
    return_documents: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyResponse)]
struct Response<'a> {
    id: &'a str,
    model: &'a str,
    results: Vec<Result<'a>>,
    score_scale: &'static str,
    usage: Usage,
    coverage: CoverageBody,
    latency: &'static str,
    timing_ms: Timing,
    /// What each stage of a cascade did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<super::openapi::Stage>, required = false)]
    stages: Vec<StageRow>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyResult)]
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
    /// Of a cascade: the stage that gave it its place, from 0; none if it lies where it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<usize>,
    /// Of a cascade: what its score is.
    #[serde(skip_serializing_if = "Option::is_none")]
    score_scale: Option<&'static str>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlySpan)]
struct Span<'a> {
    start: usize,
    end: usize,
    score: f32,
    logit: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
    text: &'a str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyUsage)]
struct Usage {
    tokens: usize,
    bytes: usize,
    characters: usize,
    truncated_documents: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyCoverage)]
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

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyTiming)]
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

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyError)]
struct ErrorBody<'a> {
    error: Problem<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyProblem)]
struct Problem<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    request_id: &'a str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyModels)]
struct Models<'a> {
    models: Vec<Model<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyModel)]
struct Model<'a> {
    name: &'a str,
    aliases: &'a [String],
    default: bool,
    loaded: bool,
    /// Of a cascade: the names of its stages.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(required = false)]
    stages: &'a [String],
    #[serde(flatten)]
    known: Option<Known<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = JointlyKnownModel)]
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

    fn signs(&self, _: &str) -> &'static [Sign] {
        &[Sign::Fields(&[
            "instruction",
            "overlong",
            "max_windows",
            "max_tokens_per_pair",
            "spans",
            "deadline",
            "partial",
            "stream",
            "sub_queries",
        ])]
    }

    fn parse(&self, _: &str, body: &[u8], headers: &HeaderMap) -> std::result::Result<Parsed, Failure> {
        let body: Request = body::read(body)?;
        body::check_query("query", &body.query)?;
        body::check_list("documents", &body.documents)?;
        let priority = body.priority.map_or(0, |priority| priority.0);
        if priority > 999 {
            return Err(body::invalid("priority", "must be from 0 to 999"));
        }
        let deadline = match body.deadline {
            None => None,
            Some(seconds) if (0.001..=1e6).contains(&seconds) => Some(Duration::from_secs_f64(seconds)),
            Some(_) => return Err(body::invalid("deadline", "must be from 0.001 to 1000000 seconds")),
        };
        let spans = match body.spans {
            None | Some(Spans::Asked(false)) => None,
            Some(Spans::Asked(true)) => Some(DEFAULT_SPANS),
            Some(Spans::With { max_spans, threshold }) => Some(SpanOptions {
                max_spans: max_spans.map_or(DEFAULT_SPANS.max_spans, |n| n.0),
                threshold: threshold.unwrap_or(DEFAULT_SPANS.threshold),
            }),
        };
        let scores: Vec<Option<f64>> = body.documents.iter().map(Document::score).collect();
        if let Some(index) = scores.iter().position(|score| score.is_some_and(|score| score.abs() > MOST)) {
            return Err(body::invalid(format!("documents[{index}].score"), "must be from -1e30 to 1e30"));
        }
        let sub_queries = sub_queries(body.sub_queries)?;
        let documents = body.documents.into_iter().map(|document| match document {
            Document::Text(text) | Document::Object { text, .. } => text,
        });
        let wants_events = |value: &http::HeaderValue| {
            value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/event-stream"))
        };
        let request = RerankRequest {
            model: body.model,
            top_n: body.top_n.map(|n| n.0),
            instruction: body.instruction,
            overlong: match body.overlong {
                OverlongName::TruncateEnd => Overlong::TruncateEnd,
                OverlongName::TruncateStart => Overlong::TruncateStart,
                OverlongName::Windows => Overlong::Windows { max_windows: body.max_windows.map(|n| n.0) },
                OverlongName::Refuse => Overlong::Refuse,
            },
            max_tokens_per_doc: body.max_tokens_per_doc.map(|n| n.0),
            max_tokens_per_pair: body.max_tokens_per_pair.map(|n| n.0),
            spans,
            // Of some of them there would be nothing to weigh.
            first_scores: scores.into_iter().collect(),
            sub_queries,
            priority: priority as u16,
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
        Ok(Parsed::new(request, Echo { return_documents: body.return_documents }))
    }

    fn render(&self, _: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        let usage = response.usage;
        let body = Response {
            id: &response.id,
            model: &response.model,
            results: results(parsed, &response.hits, !response.stages.is_empty()),
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
            stages: response.stages.iter().map(StageRow::from).collect(),
        };
        wire::json(StatusCode::OK, &body)
    }

    fn describe(&self, path: &str, models: &[ModelCard]) -> Option<Rendered> {
        if path != ROUTES[1].path {
            return None;
        }
        Some(wire::json(StatusCode::OK, &Models { models: models.iter().map(model).collect() }))
    }

    fn operations(&self) -> Vec<Operation> {
        let error = |_| Described::of::<ErrorBody<'_>>();
        let rerank = Operation {
            route: ROUTES[0],
            summary: "Everything that can be asked of a rerank, and everything that is known of it",
            request: Some(Described::of::<Request>()),
            response: Described::of::<Response<'_>>().or_events(),
            error,
            required_header: None,
        };
        let models = Operation {
            route: ROUTES[1],
            summary: "The models that are served",
            request: None,
            response: Described::of::<Models<'_>>(),
            error,
            required_header: None,
        };
        vec![rerank, models]
    }

    fn progress(&self, parsed: &Parsed, hits: &[Hit], coverage: Coverage) -> Option<Vec<u8>> {
        let body = Progress { results: results(parsed, hits, false), coverage: coverage.into() };
        serde_json::to_vec(&body).ok()
    }

    fn failure(&self, _: &str, request_id: &str, failure: &Failure) -> Rendered {
        let error = Problem {
            code: failure.kind.code(),
            message: &failure.message,
            field: failure.field.as_deref(),
            request_id,
        };
        wire::json(failure.kind.status(), &ErrorBody { error })
    }
}

fn sub_queries(given: Vec<SubQuery>) -> std::result::Result<Vec<(String, f64)>, Failure> {
    if given.len() > MOST_SUB_QUERIES {
        return Err(body::invalid("sub_queries", format!("must be {MOST_SUB_QUERIES} at most")));
    }
    let mut sub_queries = Vec::with_capacity(given.len());
    for (index, SubQuery { text, weight }) in given.into_iter().enumerate() {
        let place = format!("sub_queries[{index}]");
        body::check_query(&format!("{place}.text"), &text)?;
        let weight = weight.unwrap_or(1.0);
        if !(weight > 0.0 && weight <= MOST) {
            return Err(body::invalid(format!("{place}.weight"), "must be above 0, and 1e30 at most"));
        }
        sub_queries.push((text, weight));
    }
    Ok(sub_queries)
}

fn model(card: &ModelCard) -> Model<'_> {
    Model {
        known: card.loaded.as_ref().map(|loaded| Known {
            architecture: &loaded.architecture,
            parameters: loaded.parameters,
            precision: &loaded.precision,
            max_length: loaded.max_length,
            score_scale: scale_name(loaded.scale),
            calibrated: loaded.is_calibrated,
            healthy: loaded.is_healthy,
            identity: &loaded.identity,
        }),
        name: &card.name,
        aliases: &card.aliases,
        default: card.is_default,
        loaded: card.loaded.is_some(),
        stages: &card.stages,
    }
}

fn results<'a>(parsed: &'a Parsed, hits: &[Hit], of_cascade: bool) -> Vec<Result<'a>> {
    let Items::Documents { documents, .. } = &*parsed.request.items else { return Vec::new() };
    let echoes = parsed.echo::<Echo>().is_some_and(|echo| echo.return_documents);
    let result = |hit: &Hit| {
        let text = documents.get(hit.index).map(String::as_str).unwrap_or_default();
        let span = |(range, score): &(std::ops::Range<usize>, jointly::Score)| Span {
            start: range.start,
            end: range.end,
            score: score.score,
            logit: score.logit,
            probability: score.probability,
            text: wire::part(text, range),
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
            stage: hit.stage,
            score_scale: of_cascade.then(|| scale_name(hit.scale)),
        }
    };
    hits.iter().map(result).collect()
}
