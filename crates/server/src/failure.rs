//! Why a request was not answered: what the client may know, and what the log must know.

use std::time::Duration;

use http::StatusCode;

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

    /// Its name in the log, and in answers of the server's own form.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::TooLong => "too_long",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::UnknownModel => "unknown_model",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::RequestTimeout => "request_timeout",
            Self::Internal => "internal",
        }
    }

    /// The status that fits it best; dialects whose vendor has another give that.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Invalid | Self::TooLong => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::UnknownModel | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
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
