//! Text Embeddings Inference. Source: `router/src/http/{server,types}.rs` of huggingface/text-embeddings-inference, commit
//! 0d124dc.
//!
//! Where its JSON extractor answers in plain text, this answers in the service's own error form: its clients read JSON.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body;
use super::openapi::{Described, Operation};
use super::wire;
use super::{Dialect, Parsed, Rendered, Route, Sign};
use crate::{Failure, FailureKind, Items, ModelCard, Overlong, RerankRequest, RerankResponse};

/// The dialect.
pub(super) struct Tei;

const RERANK: &str = "/rerank";
const PREDICT: &str = "/predict";
const INFO: &str = "/info";

/// A body of [`RERANK`].
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = TeiRerankRequest)]
pub(super) struct Rerank {
    /// What is asked.
    #[schema(pattern = r"\S")]
    query: String,
    /// What is ranked.
    #[schema(min_items = 1)]
    texts: Vec<String>,
    /// Whether to cut texts that are longer than the model reads; if not, they are refused.
    #[schema(default = true)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Direction,
    /// Whether to give logits.
    #[serde(default)]
    #[schema(default = false)]
    raw_scores: bool,
    /// Whether to return the texts.
    #[serde(default)]
    #[schema(default = false)]
    return_text: bool,
}

/// A body of [`PREDICT`].
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = TeiPredictRequest)]
pub(super) struct Predict {
    /// A pair, or a list of pairs.
    #[schema(value_type = super::openapi::Pairs)]
    inputs: Inputs,
    /// Whether to cut texts that are longer than the model reads; if not, they are refused.
    #[schema(default = true)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Direction,
    /// Whether to give logits.
    #[serde(default)]
    #[schema(default = false)]
    raw_scores: bool,
}

/// Which part of a text is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[schema(as = TeiDirection)]
enum Direction {
    /// The end of it.
    #[serde(alias = "left")]
    Left,
    /// The beginning of it.
    #[default]
    #[serde(alias = "right")]
    Right,
}

/// One pair or several. A single text has no score here.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a pair of strings or a list of pairs; a single string has no score")]
enum Inputs {
    /// Query and document.
    Pair(String, String),
    /// Several of them.
    Pairs(Vec<(String, String)>),
}

/// An entry of the answer of [`RERANK`], which is a list of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TeiRank)]
pub(super) struct Rank<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    score: f32,
}

/// An entry of the answer of [`PREDICT`].
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TeiPrediction)]
pub(super) struct Prediction {
    score: f32,
    label: &'static str,
}

/// The answer of [`PREDICT`]: as many lists as there were pairs, or the one list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TeiPredictions)]
#[serde(untagged)]
pub(super) enum Predictions {
    /// Of one pair.
    One([Prediction; 1]),
    /// Of several.
    Several(Vec<[Prediction; 1]>),
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TeiError)]
pub(super) struct ErrorBody<'a> {
    error: &'a str,
    error_type: ErrorType,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = TeiErrorType)]
enum ErrorType {
    Unhealthy,
    Backend,
    Overloaded,
    Validation,
    Empty,
}

/// The answer of [`INFO`].
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TeiInfo)]
pub(super) struct Info<'a> {
    model_id: &'a str,
    model_sha: Option<&'a str>,
    model_dtype: &'a str,
    served_model_name: &'a str,
    model_type: ModelType,
    max_concurrent_requests: usize,
    max_input_length: usize,
    max_batch_tokens: usize,
    max_batch_requests: Option<usize>,
    max_client_batch_size: usize,
    auto_truncate: bool,
    tokenization_workers: usize,
    version: &'static str,
    sha: Option<&'static str>,
    docker_label: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TeiModelType)]
#[serde(rename_all = "lowercase")]
enum ModelType {
    Reranker(Labels),
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TeiLabels)]
struct Labels {
    id2label: std::collections::BTreeMap<&'static str, &'static str>,
    label2id: std::collections::BTreeMap<&'static str, usize>,
}

const LABEL: &str = "LABEL_0";

/// What the answer repeats of the question.
struct Asked {
    raw_scores: bool,
    return_text: bool,
    is_list: bool,
}

fn request(items: Items, truncate: Option<bool>, direction: Direction) -> RerankRequest {
    let mut request = RerankRequest::new(items);
    request.overlong = match (truncate.unwrap_or(true), direction) {
        (false, _) => Overlong::Refuse,
        (true, Direction::Left) => Overlong::TruncateStart,
        (true, Direction::Right) => Overlong::TruncateEnd,
    };
    request
}

fn parse_rerank(bytes: &[u8]) -> Result<Parsed, Failure> {
    let body: Rerank = body::read(bytes)?;
    let Rerank { query, texts, truncate, truncation_direction, raw_scores, return_text } = body;
    if texts.is_empty() {
        return Err(Failure::new(FailureKind::Invalid, EMPTY_TEXTS).field("texts"));
    }
    body::check_query("query", &query)?;
    let request = request(Items::Documents { query, documents: texts }, truncate, truncation_direction);
    Ok(Parsed::new(request, Asked { raw_scores, return_text, is_list: true }))
}

const EMPTY_TEXTS: &str = "`texts` cannot be empty";

fn parse_predict(bytes: &[u8]) -> Result<Parsed, Failure> {
    let Predict { inputs, truncate, truncation_direction, raw_scores } = body::read(bytes)?;
    let (pairs, is_list) = match inputs {
        Inputs::Pair(query, document) => (vec![(query, document)], false),
        Inputs::Pairs(pairs) => (pairs, true),
    };
    body::check_list("inputs", &pairs)?;
    for (index, (query, _)) in pairs.iter().enumerate() {
        let place = if is_list { format!("inputs[{index}][0]") } else { "inputs[0]".into() };
        body::check_query(&place, query)?;
    }
    let pairs = pairs.into_iter().map(|(query, document)| (query.into(), document)).collect();
    let request = request(Items::Pairs(pairs), truncate, truncation_direction);
    Ok(Parsed::new(request, Asked { raw_scores, return_text: false, is_list }))
}

impl Dialect for Tei {
    fn name(&self) -> &'static str {
        "tei"
    }

    fn routes(&self) -> &'static [Route] {
        const {
            &[
                Route { method: &Method::POST, path: RERANK },
                Route { method: &Method::POST, path: PREDICT },
                Route { method: &Method::GET, path: INFO },
            ]
        }
    }

    fn signs(&self, _path: &str) -> &'static [Sign] {
        &[Sign::Fields(&["texts"])]
    }

    fn parse(&self, path: &str, body: &[u8], _headers: &HeaderMap) -> Result<Parsed, Failure> {
        if path == PREDICT { parse_predict(body) } else { parse_rerank(body) }
    }

    fn render(&self, path: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let (raw_scores, return_text, is_list) = parsed
            .echo::<Asked>()
            .map_or((false, false, true), |asked| (asked.raw_scores, asked.return_text, asked.is_list));
        let score = |hit: &crate::Hit| {
            if raw_scores { hit.score.logit } else { wire::unit(hit.scale, &hit.score) }
        };
        let mut rendered = if path == PREDICT {
            let mut predictions =
                response.hits.iter().map(|hit| [Prediction { score: score(hit), label: LABEL }]);
            let body = match is_list {
                false => {
                    predictions.next().map_or_else(|| Predictions::Several(Vec::new()), Predictions::One)
                }
                true => Predictions::Several(predictions.collect()),
            };
            wire::json(StatusCode::OK, &body)
        } else {
            let rank = |hit: &crate::Hit| Rank {
                index: hit.index,
                text: return_text.then(|| parsed.text(hit.index)),
                score: score(hit),
            };
            wire::json(StatusCode::OK, &response.hits.iter().map(rank).collect::<Vec<_>>())
        };
        let timing = &response.timing;
        for (name, value) in [
            ("x-compute-time", timing.total.as_millis()),
            ("x-compute-characters", response.usage.characters as u128),
            ("x-compute-tokens", response.usage.tokens as u128),
            ("x-total-time", timing.total.as_millis()),
            ("x-tokenization-time", timing.tokenization.as_millis()),
            ("x-queue-time", timing.queue.as_millis()),
            ("x-inference-time", timing.inference.as_millis()),
        ] {
            let value = u64::try_from(value).unwrap_or(u64::MAX);
            rendered.headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
        rendered.headers.insert(HeaderName::from_static("x-compute-type"), HeaderValue::from_static("cpu"));
        rendered
    }

    fn describe(&self, path: &str, models: &[ModelCard]) -> Option<Rendered> {
        if path != INFO {
            return None;
        }
        let model = models.iter().find(|model| model.is_default).or(models.first());
        let Some((model, loaded)) = model.and_then(|model| Some((model, model.loaded.as_ref()?))) else {
            let error = ErrorBody { error: "no model is loaded", error_type: ErrorType::Unhealthy };
            return Some(wire::json(StatusCode::SERVICE_UNAVAILABLE, &error));
        };
        let labels = Labels { id2label: [("0", LABEL)].into(), label2id: [(LABEL, 0)].into() };
        let info = Info {
            model_id: &model.name,
            model_sha: Some(loaded.identity.as_str()).filter(|hash| !hash.is_empty()),
            model_dtype: &loaded.precision,
            served_model_name: &model.name,
            model_type: ModelType::Reranker(labels),
            max_concurrent_requests: MANY,
            max_input_length: loaded.max_length,
            max_batch_tokens: loaded.max_length.saturating_mul(MANY),
            max_batch_requests: None,
            max_client_batch_size: MANY,
            auto_truncate: true,
            tokenization_workers: loaded.threads,
            version: env!("CARGO_PKG_VERSION"),
            sha: None,
            docker_label: None,
        };
        Some(wire::json(StatusCode::OK, &info))
    }

    fn operations(&self) -> Vec<Operation> {
        let operation = |route, summary, request, response| Operation {
            route,
            summary,
            request,
            response,
            error: |_| Described::of::<ErrorBody<'_>>(),
            required_header: None,
        };
        let post = |path| Route { method: &Method::POST, path };
        let info = Route { method: &Method::GET, path: INFO };
        vec![
            operation(
                post(RERANK),
                "TEI's rerank",
                Some(Described::of::<Rerank>()),
                Described::list_of::<Rank<'_>>(),
            ),
            operation(
                post(PREDICT),
                "TEI's predict",
                Some(Described::of::<Predict>()),
                Described::of::<Predictions>(),
            ),
            operation(info, "The default model", None, Described::of::<Info<'_>>()),
        ]
    }

    fn failure(&self, _path: &str, _request_id: &str, failure: &Failure) -> Rendered {
        let (status, error_type) = match failure.kind {
            FailureKind::Invalid if failure.message == EMPTY_TEXTS => {
                (StatusCode::BAD_REQUEST, ErrorType::Empty)
            }
            FailureKind::Malformed if failure.field.is_none() => {
                (StatusCode::BAD_REQUEST, ErrorType::Validation)
            }
            FailureKind::Malformed
            | FailureKind::Invalid
            | FailureKind::TooLong
            | FailureKind::UnknownModel => (StatusCode::UNPROCESSABLE_ENTITY, ErrorType::Validation),
            FailureKind::TooLarge if failure.field.is_some() => {
                (StatusCode::UNPROCESSABLE_ENTITY, ErrorType::Validation)
            }
            FailureKind::Overloaded | FailureKind::QuotaExceeded => {
                (StatusCode::TOO_MANY_REQUESTS, ErrorType::Overloaded)
            }
            FailureKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, ErrorType::Unhealthy),
            FailureKind::Internal => (StatusCode::FAILED_DEPENDENCY, ErrorType::Backend),
            // Its middleware has no body for this one.
            FailureKind::Unauthorized => {
                return Rendered {
                    status: StatusCode::UNAUTHORIZED,
                    headers: HeaderMap::new(),
                    body: Vec::new(),
                };
            }
            FailureKind::DeadlineExceeded | FailureKind::RequestTimeout => {
                (wire::status(failure.kind), ErrorType::Backend)
            }
            kind => (wire::status(kind), ErrorType::Validation),
        };
        wire::json(status, &ErrorBody { error: &failure.message, error_type })
    }
}

/// The most documents of a request, and requests at a time, that its clients need to keep to: the server splits and queues.
const MANY: usize = 10_000;
