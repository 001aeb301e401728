//! Voyage. Sources: <https://docs.voyageai.com/reference/reranker-api>, <https://docs.voyageai.com/docs/error-codes> and
//! voyageai-python 0.5.0.
//!
//! There is no field for an instruction: clients write it into the query.

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, AtLeast};
use super::openapi::{Described, Operation};
use super::wire::{self, Detail};
use super::{Dialect, Parsed, Rendered, Route, Sign};
use crate::{Failure, FailureKind, Items, Overlong, RerankRequest, RerankResponse};

/// The dialect.
pub(super) struct Voyage;

const ROUTE: Route = Route { method: &Method::POST, path: "/v1/rerank" };

/// A body.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = VoyageRequest)]
pub(super) struct Request {
    /// What is asked.
    #[schema(pattern = r"\S")]
    query: String,
    /// None of them empty.
    #[schema(min_items = 1, value_type = Vec<super::openapi::NonBlank>)]
    documents: Vec<String>,
    /// A model that is served.
    #[schema(min_length = 1)]
    model: String,
    /// How many of the best to return; all if there is none.
    #[schema(value_type = Option<u64>, minimum = 1)]
    top_k: Option<AtLeast<1>>,
    /// Whether to return the documents.
    #[schema(default = false)]
    return_documents: Option<bool>,
    /// Whether to cut documents that are longer than the model reads; if not, they are refused.
    #[schema(default = true)]
    truncation: Option<bool>,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VoyageResponse)]
pub(super) struct Response<'a> {
    object: &'static str,
    data: Vec<Hit<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VoyageHit)]
struct Hit<'a> {
    /// Between 0 and 1.
    relevance_score: f32,
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<&'a str>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VoyageUsage)]
struct Usage {
    total_tokens: usize,
}

/// What the answer repeats of the question.
struct Asked {
    return_documents: bool,
}

impl Dialect for Voyage {
    fn name(&self) -> &'static str {
        "voyage"
    }

    fn routes(&self) -> &'static [Route] {
        &[ROUTE]
    }

    fn signs(&self, _path: &str) -> &'static [Sign] {
        // `rerank-2.5`, `rerank-lite-1`: Cohere's names have a letter there.
        const MODELS: &[&str] = &[
            "rerank-1",
            "rerank-2",
            "rerank-3",
            "rerank-4",
            "rerank-5",
            "rerank-6",
            "rerank-7",
            "rerank-8",
            "rerank-9",
            "rerank-lite-",
        ];
        &[
            Sign::Header("x-voyage-client-user-agent"),
            Sign::Fields(&["top_k"]),
            Sign::FieldUnlessModel("truncation", "jina-"),
            Sign::Models(MODELS),
        ]
    }

    fn parse(&self, _path: &str, body: &[u8], _headers: &HeaderMap) -> Result<Parsed, Failure> {
        let body: Request = body::read(body)?;
        body::check_query("query", &body.query)?;
        body::check_list("documents", &body.documents)?;
        if let Some(index) = body.documents.iter().position(|document| body::is_blank(document)) {
            return Err(body::invalid(
                format!("documents[{index}]"),
                "must not be empty or only white space",
            ));
        }
        let mut request =
            RerankRequest::new(Items::Documents { query: body.query, documents: body.documents });
        request.model = Some(body.model);
        request.top_n = body.top_k.map(|n| n.0);
        if body.truncation == Some(false) {
            request.overlong = Overlong::Refuse;
        }
        Ok(Parsed::new(request, Asked { return_documents: body.return_documents.unwrap_or(false) }))
    }

    fn render(&self, _path: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let with_documents = parsed.echo::<Asked>().is_some_and(|asked| asked.return_documents);
        let data = response.hits.iter().map(|hit| Hit {
            relevance_score: wire::unit(hit.scale, &hit.score),
            index: hit.index,
            document: with_documents.then(|| parsed.text(hit.index)),
        });
        let usage = Usage { total_tokens: response.usage.tokens };
        let body = Response { object: "list", data: data.collect(), model: &response.model, usage };
        wire::json(StatusCode::OK, &body)
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation {
            route: ROUTE,
            summary: "Voyage's rerank",
            request: Some(Described::of::<Request>()),
            response: Described::of::<Response<'_>>(),
            error: |_| Described::of::<Detail<'_>>(),
            required_header: None,
        }]
    }

    fn failure(&self, _path: &str, _request_id: &str, failure: &Failure) -> Rendered {
        let status = match failure.kind {
            // What a model is called is a parameter like others.
            FailureKind::UnknownModel => StatusCode::BAD_REQUEST,
            FailureKind::TooLarge if failure.field.is_some() => StatusCode::BAD_REQUEST,
            kind => wire::status(kind),
        };
        wire::json(status, &Detail { detail: &failure.message })
    }
}
