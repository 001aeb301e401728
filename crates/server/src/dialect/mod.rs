//! What clients speak: a file for each vendor, and an entry of [`DIALECTS`].
//!
//! A dialect reads bodies and writes bodies. It knows nothing of sockets, queues or models.

use std::any::Any;

use http::{HeaderMap, Method, StatusCode};

use crate::{Coverage, Failure, Hit, Items, ModelCard, RerankRequest, RerankResponse};

mod body;
mod cohere;
mod jina;
mod jointly;
mod mixedbread;
mod nim;
pub mod openapi;
mod outline;
mod pinecone;
mod sign;
mod tei;
mod vllm;
mod voyage;
mod wire;
mod zeroentropy;

pub use outline::Outline;
pub use sign::Sign;

/// All dialects, in the order in which they are asked whether a body on a shared path is theirs. The last one of a path reads
/// what none of them claims, so the most general come last.
pub static DIALECTS: &[&dyn Dialect] = &[
    &jointly::Jointly,
    &pinecone::Pinecone,
    &tei::Tei,
    &voyage::Voyage,
    &vllm::Vllm,
    &cohere::Cohere,
    &jina::Jina,
    &zeroentropy::ZeroEntropy,
    &mixedbread::Mixedbread,
    &nim::Nim,
];

/// The dialect that reads a body, and the path to ask it with. `path` is as the client wrote it: either one that a dialect serves,
/// or one with a dialect's name before it, which settles the matter. None if there is no such route.
#[must_use]
pub fn choose(
    method: &Method,
    path: &str,
    body: &[u8],
    headers: &HeaderMap,
) -> Option<(&'static dyn Dialect, &'static str)> {
    let mut routes = DIALECTS.iter().flat_map(|dialect| {
        dialect.routes().iter().filter(|route| route.method == method).filter_map(move |route| {
            let own = path.strip_prefix('/').and_then(|rest| rest.strip_prefix(dialect.name()));
            let is_own = own == Some(route.path);
            (is_own || path == route.path).then_some((*dialect, route.path, is_own))
        })
    });
    let first = routes.next()?;
    let others: Vec<_> = routes.collect();
    let last = others.last().copied().unwrap_or(first);
    if others.is_empty() {
        return Some((last.0, last.1));
    }
    let outline = Outline::of(body);
    let claimed = std::iter::once(first)
        .chain(others)
        .find(|(dialect, route, is_own)| *is_own || claims(*dialect, route, &outline, headers));
    let (dialect, route, _) = claimed.unwrap_or(last);
    Some((dialect, route))
}

fn claims(dialect: &dyn Dialect, path: &str, outline: &Outline, headers: &HeaderMap) -> bool {
    dialect.signs(path).iter().any(|sign| sign.shows(outline, headers))
}

/// A path that a dialect serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// The method.
    pub method: &'static Method,
    /// The path, such as `/v2/rerank`; the server also serves it under `/` and the dialect's name (`/cohere/v2/rerank`), and the
    /// dialect is asked with this path in either case.
    pub path: &'static str,
}

/// A request as a dialect read it: what to do, and what the answer must repeat of the question.
pub struct Parsed {
    /// What to do. [`Dialect::render`] needs its texts again.
    pub request: RerankRequest,
    /// What [`Dialect::render`] needs besides the response: echoes, flags of the answer's form.
    pub echo: Box<dyn Any + Send + Sync>,
}

impl Parsed {
    /// A request, and what the answer repeats of it.
    pub fn new(request: RerankRequest, echo: impl Any + Send + Sync) -> Self {
        Self { request, echo: Box::new(echo) }
    }

    /// What the answer repeats, if it is of this type.
    #[must_use]
    pub fn echo<T: Any>(&self) -> Option<&T> {
        self.echo.downcast_ref()
    }

    /// The number of documents or pairs.
    #[must_use]
    pub fn count(&self) -> usize {
        match &*self.request.items {
            Items::Documents { documents, .. } => documents.len(),
            Items::Pairs(pairs) => pairs.len(),
        }
    }

    /// The document at an index, as it was read; empty if there is none.
    #[must_use]
    pub fn text(&self, index: usize) -> &str {
        let text = match &*self.request.items {
            Items::Documents { documents, .. } => documents.get(index),
            Items::Pairs(pairs) => pairs.get(index).map(|(_, document)| document),
        };
        text.map_or("", String::as_str)
    }
}

/// A written answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The status.
    pub status: StatusCode,
    /// Headers of this dialect beside the server's own (content-type, x-request-id, retry-after, server-timing).
    pub headers: HeaderMap,
    /// The body, JSON unless `headers` says otherwise.
    pub body: Vec<u8>,
}

/// How a vendor's clients write requests and read answers.
pub trait Dialect: Send + Sync {
    /// Lowercase, as in its own prefix: `cohere`, `voyage`.
    fn name(&self) -> &'static str;

    /// The paths it serves.
    fn routes(&self) -> &'static [Route];

    /// What shows that a body on a path that several dialects serve is this one's; the first dialect with something that is there
    /// reads it, and the last one of the path whatever none of them knows.
    fn signs(&self, path: &str) -> &'static [Sign] {
        let _ = path;
        &[]
    }

    /// Reads a body of the given path.
    ///
    /// # Errors
    /// [`crate::FailureKind::Malformed`], [`crate::FailureKind::Invalid`] or [`crate::FailureKind::TooLarge`], as its vendor would.
    fn parse(&self, path: &str, body: &[u8], headers: &HeaderMap) -> Result<Parsed, Failure>;

    /// The API key that a request carries. Most vendors' clients send `Authorization: Bearer KEY`.
    fn api_key<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    }

    /// Writes an answer.
    fn render(&self, path: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered;

    /// Writes the answer to a route that scores nothing (`GET /info`); `None` for routes that do. Asked before the body is read.
    fn describe(&self, path: &str, models: &[ModelCard]) -> Option<Rendered> {
        let _ = (path, models);
        None
    }

    /// Writes documents as they are scored, in no order, as the JSON of one server-sent event; `None` if this vendor has no streams.
    fn progress(&self, parsed: &Parsed, hits: &[Hit], coverage: Coverage) -> Option<Vec<u8>> {
        let _ = (parsed, hits, coverage);
        None
    }

    /// What the OpenAPI document says of its routes.
    fn operations(&self) -> Vec<openapi::Operation> {
        Vec::new()
    }

    /// Writes a failure.
    fn failure(&self, path: &str, request_id: &str, failure: &Failure) -> Rendered;
}
