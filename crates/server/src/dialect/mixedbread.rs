//! Mixedbread. Sources: the types of mixedbread-python 0.54.0 and <https://www.mixedbread.com/api-reference>. The form of its
//! error bodies is not documented; its client goes by the status.

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, AtLeast, Document};
use super::openapi::{Described, Operation};
use super::wire::{self, Detail, TokenUsage};
use super::{Dialect, Parsed, Rendered, Route};
use crate::{Failure, FailureKind, Items, RerankRequest, RerankResponse};

/// The dialect.
pub(super) struct Mixedbread;

const ROUTE: Route = Route { method: &Method::POST, path: "/v1/reranking" };

/// A body.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MixedbreadRequest)]
pub(super) struct Request {
    /// A model that is served; the default one if there is none.
    #[schema(min_length = 1)]
    model: Option<String>,
    /// What is asked.
    #[schema(pattern = r"\S")]
    query: String,
    /// Strings, or objects with the fields of `rank_fields`.
    #[schema(min_items = 1, value_type = Vec<super::openapi::TextOrObject>)]
    input: Vec<Document>,
    /// The fields of an object that are read, in this order; `text` if there is none.
    rank_fields: Option<Vec<String>>,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_k: Option<AtLeast<1>>,
    /// Whether to return the documents.
    #[schema(default = false)]
    return_input: Option<bool>,
    /// Not supported: only false.
    #[schema(default = false)]
    rewrite_query: Option<bool>,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MixedbreadResponse)]
pub(super) struct Response<'a> {
    usage: TokenUsage,
    model: &'a str,
    data: Vec<Hit<'a>>,
    object: &'static str,
    top_k: usize,
    return_input: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MixedbreadHit)]
struct Hit<'a> {
    index: usize,
    /// Between 0 and 1.
    score: f32,
    /// The document as it was given, or null.
    #[schema(value_type = Option<super::openapi::TextOrObject>)]
    input: Option<Input<'a>>,
    object: &'static str,
}

/// A document as it was given.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Input<'a> {
    Text(&'a str),
    Object(&'a serde_json::value::RawValue),
}

/// What the answer repeats of the question.
struct Asked {
    top_k: usize,
    input: Option<Vec<Document>>,
}

impl Dialect for Mixedbread {
    fn name(&self) -> &'static str {
        "mixedbread"
    }

    fn routes(&self) -> &'static [Route] {
        &[ROUTE]
    }

    fn parse(&self, _path: &str, body: &[u8], _headers: &HeaderMap) -> Result<Parsed, Failure> {
        let body: Request = body::read(body)?;
        body::check_query("query", &body.query)?;
        body::check_list("input", &body.input)?;
        if body.rewrite_query == Some(true) {
            return Err(body::invalid("rewrite_query", "is not supported"));
        }
        let fields = body::rank_fields(body.rank_fields)?;
        let documents = body::texts("input", &body.input, &fields)?;
        let top_k = body.top_k.map_or(documents.len(), |n| n.0);
        let mut request = RerankRequest::new(Items::Documents { query: body.query, documents });
        request.model = body.model;
        request.top_n = body.top_k.map(|n| n.0);
        let input = body.return_input.unwrap_or(false).then_some(body.input);
        Ok(Parsed::new(request, Asked { top_k, input }))
    }

    fn render(&self, _path: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let asked = parsed.echo::<Asked>();
        let input = asked.and_then(|asked| asked.input.as_ref());
        let data = response.hits.iter().map(|hit| Hit {
            index: hit.index,
            score: wire::unit(hit.scale, &hit.score),
            input: input.and_then(|input| input.get(hit.index)).map(|document| match document {
                Document::Text(text) => Input::Text(text),
                Document::Object(_, object) => Input::Object(object),
            }),
            object: "rank_result",
        });
        let body = Response {
            usage: TokenUsage::new(response.usage.tokens),
            model: &response.model,
            data: data.collect(),
            object: "list",
            top_k: asked.map_or(response.hits.len(), |asked| asked.top_k),
            return_input: input.is_some(),
        };
        wire::json(StatusCode::OK, &body)
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation {
            route: ROUTE,
            summary: "Mixedbread's reranking",
            request: Some(Described::of::<Request>()),
            response: Described::of::<Response<'_>>(),
            error: |_| Described::of::<Detail<'_>>(),
            required_header: None,
        }]
    }

    fn failure(&self, _path: &str, _request_id: &str, failure: &Failure) -> Rendered {
        let status = match failure.kind {
            FailureKind::Invalid | FailureKind::TooLong => StatusCode::UNPROCESSABLE_ENTITY,
            FailureKind::Malformed if failure.field.is_some() => StatusCode::UNPROCESSABLE_ENTITY,
            FailureKind::TooLarge if failure.field.is_some() => StatusCode::UNPROCESSABLE_ENTITY,
            kind => wire::status(kind),
        };
        wire::json(status, &Detail { detail: &failure.message })
    }
}
