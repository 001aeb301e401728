//! What clients speak: a file for each vendor, and an entry of [`DIALECTS`].
//!
//! A dialect reads bodies and writes bodies. It knows nothing of sockets, queues or models.

use http::{HeaderMap, Method, StatusCode};

use crate::{Coverage, Failure, Hit, ModelCard, RerankRequest, RerankResponse};

pub mod openapi;

/// All dialects, in the order in which they are asked whether a body on a shared path is theirs.
pub static DIALECTS: &[&dyn Dialect] = &[];

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
    /// What to do.
    pub request: RerankRequest,
    /// What [`Dialect::render`] needs besides the response: echoes, flags of the answer's form.
    pub echo: Box<dyn std::any::Any + Send + Sync>,
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

    /// Whether a JSON body on a path that several dialects serve is this one's; the first that says so reads it.
    fn claims(&self, body: &serde_json::Value, headers: &HeaderMap) -> bool;

    /// Reads a body of the given path.
    ///
    /// # Errors
    /// [`crate::FailureKind::Malformed`], [`crate::FailureKind::Invalid`] or [`crate::FailureKind::TooLarge`], as its vendor would.
    fn parse(&self, path: &str, body: &[u8], headers: &HeaderMap) -> Result<Parsed, Failure>;

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

    /// Writes a failure.
    fn failure(&self, path: &str, request_id: &str, failure: &Failure) -> Rendered;
}
