//! Jina, whose form most gateways and engines have taken over. Sources: jina-ai/meta-prompt, version 9 (2025-09); statuses as
//! users report them (an unknown model is a 422).
//!
//! Plain bodies on `/v1/rerank` are read as this dialect.

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, AtLeast, Document};
use super::openapi::{Described, Operation};
use super::wire::{self, Detail, TextDocument};
use super::{Dialect, Parsed, Rendered, Route};
use crate::{Failure, FailureKind, Items, Overlong, RerankRequest, RerankResponse};

/// The dialect.
pub(super) struct Jina;

const ROUTE: Route = Route { method: &Method::POST, path: "/v1/rerank" };

/// A body.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = JinaRequest)]
pub(super) struct Request {
    /// A model that is served.
    #[schema(min_length = 1)]
    model: String,
    /// What is asked: a string, or an object with `text`.
    #[schema(value_type = super::openapi::NonBlankOrObject)]
    query: Document,
    /// Strings, or objects with `text`. Images are not read.
    #[schema(min_items = 1, value_type = Vec<super::openapi::TextOrObject>)]
    documents: Vec<Document>,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_n: Option<AtLeast<1>>,
    /// Whether to return the documents.
    #[schema(default = true)]
    return_documents: Option<bool>,
    /// Whether to cut documents that are longer than the model reads; if not, they are refused.
    #[schema(default = true)]
    truncation: Option<bool>,
    /// Longer documents are cut to so many tokens.
    #[schema(value_type = Option<u64>, minimum = 1)]
    max_doc_length: Option<AtLeast<1>>,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JinaResponse)]
pub(super) struct Response<'a> {
    model: &'a str,
    usage: Usage,
    results: Vec<Hit<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JinaUsage)]
struct Usage {
    total_tokens: usize,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JinaHit)]
struct Hit<'a> {
    index: usize,
    /// Between 0 and 1.
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<TextDocument<'a>>,
}

/// What the answer repeats of the question.
struct Asked {
    return_documents: bool,
}

impl Dialect for Jina {
    fn name(&self) -> &'static str {
        "jina"
    }

    fn routes(&self) -> &'static [Route] {
        &[ROUTE]
    }

    fn parse(&self, _path: &str, body: &[u8], _headers: &HeaderMap) -> Result<Parsed, Failure> {
        let body: Request = body::read(body)?;
        let text = ["text".to_string()];
        let query = body.query.text("query", &text)?;
        body::check_query("query", &query)?;
        body::check_list("documents", &body.documents)?;
        let documents = body::texts("documents", &body.documents, &text)?;
        let mut request = RerankRequest::new(Items::Documents { query, documents });
        request.model = Some(body.model);
        request.top_n = body.top_n.map(|n| n.0);
        request.max_tokens_per_doc = body.max_doc_length.map(|tokens| tokens.0);
        if body.truncation == Some(false) {
            request.overlong = Overlong::Refuse;
        }
        Ok(Parsed::new(request, Asked { return_documents: body.return_documents.unwrap_or(true) }))
    }

    fn render(&self, _path: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let with_documents = parsed.echo::<Asked>().is_some_and(|asked| asked.return_documents);
        let results = response.hits.iter().map(|hit| Hit {
            index: hit.index,
            relevance_score: wire::unit(hit.scale, &hit.score),
            document: with_documents.then(|| TextDocument { text: parsed.text(hit.index) }),
        });
        let usage = Usage { total_tokens: response.usage.tokens };
        wire::json(StatusCode::OK, &Response { model: &response.model, usage, results: results.collect() })
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation {
            route: ROUTE,
            summary: "Jina's rerank",
            request: Some(Described::of::<Request>()),
            response: Described::of::<Response<'_>>(),
            error: |_| Described::of::<Detail<'_>>(),
            required_header: None,
        }]
    }

    fn failure(&self, _path: &str, _request_id: &str, failure: &Failure) -> Rendered {
        let status = match failure.kind {
            FailureKind::Malformed
            | FailureKind::Invalid
            | FailureKind::TooLong
            | FailureKind::UnknownModel => StatusCode::UNPROCESSABLE_ENTITY,
            FailureKind::TooLarge if failure.field.is_some() => StatusCode::UNPROCESSABLE_ENTITY,
            kind => wire::status(kind),
        };
        wire::json(status, &Detail { detail: &failure.message })
    }
}
