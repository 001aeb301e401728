//! ZeroEntropy, whose hosted service ended on 2026-09-04: whoever points its client here goes on. Source: the types of
//! zeroentropy-python 0.1.0a11.
//!
//! The score is the model's own: of zerank, `sigmoid(z / 5)`, so that thresholds keep their meaning. An instruction is part of
//! the query, as `<query>...</query>\n<instruction>...</instruction>`.

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, AtLeast};
use super::openapi::{Described, Operation};
use super::wire::{self, Detail};
use super::{Dialect, Parsed, Rendered, Route};
use crate::{Failure, FailureKind, Items, Latency, RerankRequest, RerankResponse};

/// The dialect.
pub(super) struct ZeroEntropy;

const ROUTE: Route = Route { method: &Method::POST, path: "/v1/models/rerank" };

/// A body.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ZeroEntropyRequest)]
pub(super) struct Request {
    /// A model that is served.
    #[schema(min_length = 1)]
    model: String,
    /// What is asked.
    #[schema(pattern = r"\S")]
    query: String,
    /// What is ranked.
    #[schema(min_items = 1)]
    documents: Vec<String>,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_n: Option<AtLeast<1>>,
    /// Soon or refused; whenever there is room; or, if there is none, soon if possible.
    latency: Option<Mode>,
}

/// A class of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[schema(as = ZeroEntropyLatency)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Soon.
    Fast,
    /// Whenever there is room.
    Slow,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ZeroEntropyResponse)]
pub(super) struct Response {
    results: Vec<Hit>,
    /// Of the query and the documents.
    total_bytes: usize,
    total_tokens: usize,
    actual_latency_mode: Mode,
    /// In seconds, from the request to the answer.
    e2e_latency: f64,
    /// In seconds, in the model.
    inference_latency: f64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ZeroEntropyHit)]
struct Hit {
    index: usize,
    /// Between 0 and 1.
    relevance_score: f32,
}

impl Dialect for ZeroEntropy {
    fn name(&self) -> &'static str {
        "zeroentropy"
    }

    fn routes(&self) -> &'static [Route] {
        &[ROUTE]
    }

    fn parse(&self, _path: &str, body: &[u8], _headers: &HeaderMap) -> Result<Parsed, Failure> {
        let body: Request = body::read(body)?;
        body::check_query("query", &body.query)?;
        body::check_list("documents", &body.documents)?;
        let mut request =
            RerankRequest::new(Items::Documents { query: body.query, documents: body.documents });
        request.model = Some(body.model);
        request.top_n = body.top_n.map(|n| n.0);
        request.latency = match body.latency {
            Some(Mode::Fast) => Latency::Fast,
            Some(Mode::Slow) => Latency::Slow,
            None => Latency::Auto,
        };
        Ok(Parsed::new(request, ()))
    }

    fn render(&self, _path: &str, _parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let hit =
            |hit: &crate::Hit| Hit { index: hit.index, relevance_score: wire::unit(hit.scale, &hit.score) };
        let body = Response {
            results: response.hits.iter().map(hit).collect(),
            total_bytes: response.usage.bytes,
            total_tokens: response.usage.tokens,
            actual_latency_mode: if response.latency == Latency::Slow { Mode::Slow } else { Mode::Fast },
            e2e_latency: response.timing.total.as_secs_f64(),
            inference_latency: response.timing.inference.as_secs_f64(),
        };
        wire::json(StatusCode::OK, &body)
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation {
            route: ROUTE,
            summary: "ZeroEntropy's rerank",
            request: Some(Described::of::<Request>()),
            response: Described::of::<Response>(),
            error: |_| Described::of::<Detail<'_>>(),
            required_header: None,
        }]
    }

    fn failure(&self, _path: &str, _request_id: &str, failure: &Failure) -> Rendered {
        let status = match failure.kind {
            FailureKind::Malformed => StatusCode::UNPROCESSABLE_ENTITY,
            FailureKind::TooLarge if failure.field.is_some() => StatusCode::BAD_REQUEST,
            // What cannot be answered fast is "too many requests" here.
            FailureKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            kind => wire::status(kind),
        };
        wire::json(status, &Detail { detail: &failure.message })
    }
}
