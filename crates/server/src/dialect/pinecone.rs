//! Pinecone. Source: the OpenAPI document of pinecone-io/pinecone-api, 2026-04.
//!
//! A document that is longer than the model reads is cut unless `parameters` has `"truncate": "NONE"`.

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{self, AtLeast, Document};
use super::openapi::{Described, Operation};
use super::wire;
use super::{Dialect, Parsed, Rendered, Route, Sign};
use crate::{Failure, FailureKind, Items, Overlong, RerankRequest, RerankResponse};

/// The dialect.
pub(super) struct Pinecone;

const ROUTE: Route = Route { method: &Method::POST, path: "/rerank" };

/// The header that every request has.
pub(super) const VERSION_HEADER: &str = "x-pinecone-api-version";

/// A body.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = PineconeRequest)]
pub(super) struct Request {
    /// A model that is served.
    #[schema(min_length = 1)]
    model: String,
    /// What is asked.
    #[schema(pattern = r"\S")]
    query: String,
    /// Objects with the fields of `rank_fields`.
    #[schema(min_items = 1, value_type = Vec<super::openapi::ObjectWithText>)]
    documents: Vec<Document>,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_n: Option<AtLeast<1>>,
    /// Whether to return the documents.
    #[schema(default = true)]
    return_documents: Option<bool>,
    /// The fields that are read, in this order; `text` if there is none.
    rank_fields: Option<Vec<String>>,
    /// Of the model.
    parameters: Option<Parameters>,
}

/// Parameters of the model.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = PineconeParameters)]
struct Parameters {
    /// Whether to cut documents that are longer than the model reads, or to refuse them.
    truncate: Option<Truncate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = PineconeTruncate)]
#[serde(rename_all = "UPPERCASE")]
enum Truncate {
    End,
    None,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PineconeResponse)]
pub(super) struct Response<'a> {
    model: &'a str,
    data: Vec<Hit<'a>>,
    usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PineconeHit)]
struct Hit<'a> {
    index: usize,
    /// Between 0 and 1.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    document: Option<&'a RawValue>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PineconeUsage)]
struct Usage {
    /// One for each hundred documents begun.
    rerank_units: usize,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PineconeError)]
pub(super) struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
    status: u16,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PineconeErrorDetail)]
struct ErrorDetail<'a> {
    code: &'static str,
    message: &'a str,
}

/// What the answer repeats of the question.
struct Asked {
    documents: Option<Vec<Document>>,
}

impl Dialect for Pinecone {
    fn name(&self) -> &'static str {
        "pinecone"
    }

    fn routes(&self) -> &'static [Route] {
        &[ROUTE]
    }

    fn signs(&self, _path: &str) -> &'static [Sign] {
        &[Sign::Header(VERSION_HEADER)]
    }

    fn api_key<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        headers.get("api-key")?.to_str().ok()
    }

    fn parse(&self, _path: &str, body: &[u8], headers: &HeaderMap) -> Result<Parsed, Failure> {
        let is_given = |value: &HeaderValue| value.as_bytes().iter().any(u8::is_ascii_graphic);
        if !headers.get(VERSION_HEADER).is_some_and(is_given) {
            let message = "the header `X-Pinecone-Api-Version` is missing";
            return Err(Failure::new(FailureKind::Invalid, message).field("X-Pinecone-Api-Version"));
        }
        let body: Request = body::read(body)?;
        body::check_query("query", &body.query)?;
        body::check_list("documents", &body.documents)?;
        if let Some(index) = body.documents.iter().position(|document| matches!(document, Document::Text(_)))
        {
            return Err(body::invalid(format!("documents[{index}]"), "must be an object"));
        }
        let fields = body::rank_fields(body.rank_fields)?;
        let documents = body::texts("documents", &body.documents, &fields)?;
        let mut request = RerankRequest::new(Items::Documents { query: body.query, documents });
        request.model = Some(body.model);
        request.top_n = body.top_n.map(|n| n.0);
        if body.parameters.unwrap_or_default().truncate == Some(Truncate::None) {
            request.overlong = Overlong::Refuse;
        }
        let documents = body.return_documents.unwrap_or(true).then_some(body.documents);
        Ok(Parsed::new(request, Asked { documents }))
    }

    fn render(&self, _path: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let documents = parsed.echo::<Asked>().and_then(|asked| asked.documents.as_ref());
        let data = response.hits.iter().map(|hit| Hit {
            index: hit.index,
            score: wire::unit(hit.scale, &hit.score),
            document: documents.and_then(|documents| match documents.get(hit.index)? {
                Document::Object(_, object) => Some(&**object),
                Document::Text(_) => None,
            }),
        });
        let usage = Usage { rerank_units: parsed.count().div_ceil(100) };
        wire::json(StatusCode::OK, &Response { model: &response.model, data: data.collect(), usage })
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation {
            route: ROUTE,
            summary: "Pinecone's rerank",
            request: Some(Described::of::<Request>()),
            response: Described::of::<Response<'_>>(),
            error: |_| Described::of::<ErrorBody<'_>>(),
            required_header: Some("X-Pinecone-Api-Version"),
        }]
    }

    fn failure(&self, _path: &str, _request_id: &str, failure: &Failure) -> Rendered {
        let status = match failure.kind {
            FailureKind::TooLarge if failure.field.is_some() => StatusCode::BAD_REQUEST,
            kind => wire::status(kind),
        };
        let code = match failure.kind {
            FailureKind::Unauthorized => "UNAUTHENTICATED",
            FailureKind::Forbidden => "FORBIDDEN",
            FailureKind::UnknownModel | FailureKind::NotFound => "NOT_FOUND",
            FailureKind::QuotaExceeded => "RESOURCE_EXHAUSTED",
            FailureKind::Overloaded | FailureKind::Unavailable => "UNAVAILABLE",
            FailureKind::DeadlineExceeded | FailureKind::RequestTimeout => "DEADLINE_EXCEEDED",
            FailureKind::Internal => "UNKNOWN",
            _ => "INVALID_ARGUMENT",
        };
        let error = ErrorDetail { code, message: &failure.message };
        wire::json(status, &ErrorBody { error, status: status.as_u16() })
    }
}
