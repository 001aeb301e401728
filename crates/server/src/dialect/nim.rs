//! NVIDIA NIM. Source: the API reference of the reranking NIMs. Scores are the model's logits, not mapped to anything.

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, AtLeast};
use super::openapi::{Described, Operation};
use super::wire::{self, Detail, TokenUsage};
use super::{Dialect, Parsed, Rendered, Route};
use crate::{Failure, FailureKind, Items, Overlong, RerankRequest, RerankResponse};

/// The dialect.
pub(super) struct Nim;

const ROUTE: Route = Route { method: &Method::POST, path: "/v1/ranking" };

/// A body.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NimRequest)]
pub(super) struct Request {
    /// A model that is served; the default one if there is none.
    #[schema(min_length = 1)]
    model: Option<String>,
    /// What is asked.
    #[schema(value_type = super::openapi::ObjectWithNonBlank)]
    query: Text,
    /// What is ranked. Images are not read.
    #[schema(min_items = 1)]
    passages: Vec<Text>,
    /// Whether to cut passages that are longer than the model reads, or to refuse them.
    truncate: Option<Truncate>,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_k: Option<AtLeast<1>>,
}

/// An object with a text.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NimText)]
struct Text {
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[schema(as = NimTruncate)]
#[serde(rename_all = "UPPERCASE")]
enum Truncate {
    #[default]
    End,
    None,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NimResponse)]
pub(super) struct Response {
    rankings: Vec<Hit>,
    usage: TokenUsage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NimHit)]
struct Hit {
    index: usize,
    /// Any number.
    logit: f32,
}

/// What is wrong with a value, or the server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NimError)]
pub(super) struct ErrorBody<'a> {
    error: &'a str,
}

impl Dialect for Nim {
    fn name(&self) -> &'static str {
        "nim"
    }

    fn routes(&self) -> &'static [Route] {
        &[ROUTE]
    }

    fn parse(&self, _path: &str, body: &[u8], _headers: &HeaderMap) -> Result<Parsed, Failure> {
        let body: Request = body::read(body)?;
        body::check_query("query.text", &body.query.text)?;
        body::check_list("passages", &body.passages)?;
        let documents = body.passages.into_iter().map(|passage| passage.text).collect();
        let mut request = RerankRequest::new(Items::Documents { query: body.query.text, documents });
        request.model = body.model;
        request.top_n = body.top_k.map(|n| n.0);
        request.overlong = match body.truncate.unwrap_or_default() {
            Truncate::End => Overlong::TruncateEnd,
            Truncate::None => Overlong::Refuse,
        };
        Ok(Parsed::new(request, ()))
    }

    fn render(&self, _path: &str, _parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let hit = |hit: &crate::Hit| Hit { index: hit.index, logit: hit.score.logit };
        let usage = TokenUsage::new(response.usage.tokens);
        wire::json(StatusCode::OK, &Response { rankings: response.hits.iter().map(hit).collect(), usage })
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation {
            route: ROUTE,
            summary: "NVIDIA NIM's ranking",
            request: Some(Described::of::<Request>()),
            response: Described::of::<Response>(),
            error: |status| match status {
                StatusCode::UNPROCESSABLE_ENTITY => Described::of::<Detail<'_>>(),
                _ => Described::of::<ErrorBody<'_>>(),
            },
            required_header: None,
        }]
    }

    fn failure(&self, _path: &str, _request_id: &str, failure: &Failure) -> Rendered {
        match failure.kind {
            FailureKind::Malformed => {
                wire::json(StatusCode::UNPROCESSABLE_ENTITY, &Detail { detail: &failure.message })
            }
            kind => {
                let is_list = kind == FailureKind::TooLarge && failure.field.is_some();
                let status = if is_list { StatusCode::BAD_REQUEST } else { wire::status(kind) };
                wire::json(status, &ErrorBody { error: &failure.message })
            }
        }
    }
}
