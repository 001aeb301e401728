//! Why a request was not answered: what the client may know, and what the log must know.

use std::time::Duration;

/// Who can do something about a [`Failure`], and what a dialect makes a status of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The body is no JSON, or not of the right shape.
    Malformed,
    /// A value cannot be honoured.
    Invalid,
    /// A text is longer than is read.
    TooLong,
    /// The body or the list is larger than is accepted.
    TooLarge,
    /// There is no key, or a wrong one.
    Unauthorized,
    /// The key may not do this.
    Forbidden,
    /// There is no such model.
    UnknownModel,
    /// There is no such path.
    NotFound,
    /// The path has another method.
    MethodNotAllowed,
    /// The body is of another media type.
    UnsupportedMediaType,
    /// This client has used up its quota.
    QuotaExceeded,
    /// The server is full.
    Overloaded,
    /// The server loads or drains.
    Unavailable,
    /// The deadline came first.
    DeadlineExceeded,
    /// The client sent its request too slowly.
    RequestTimeout,
    /// The server failed.
    Internal,
}

impl FailureKind {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Malformed,
        Self::Invalid,
        Self::TooLong,
        Self::TooLarge,
        Self::Unauthorized,
        Self::Forbidden,
        Self::UnknownModel,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::UnsupportedMediaType,
        Self::QuotaExceeded,
        Self::Overloaded,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::RequestTimeout,
        Self::Internal,
    ];
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}{}", inside.as_deref().map(|inside| format!(" ({inside})")).unwrap_or_default())]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// For the client: lowercase, no final period, names the field or the index. Dialects whose vendor has a fixed text use theirs.
    pub message: String,
    /// For the log alone.
    pub inside: Option<String>,
    /// The field of the body that is at fault, as the client writes it.
    pub field: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with a message for the client.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), inside: None, field: None, retry_after: None }
    }

    /// Says more in the log.
    #[must_use]
    pub fn inside(mut self, inside: impl Into<String>) -> Self {
        self.inside = Some(inside.into());
        self
    }

    /// Names the field of the body.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}
