//! Bodies: read within limits of size and time, and written.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::{Failure, FailureKind};

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a client still sends of a body that is not wanted is read for so long, so that it gets to reading the answer.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// And so much of it.
const DRAIN_BYTES: usize = 256 << 20;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body that was read, and its share of the memory for bodies.
pub struct Whole {
    /// The body.
    pub bytes: Bytes,
    /// Given back when nothing is left of the request.
    pub memory: Vec<OwnedSemaphorePermit>,
}

/// The length that the head announces.
#[must_use]
pub fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether a body is JSON as it is, as far as its head says.
///
/// # Errors
/// [`FailureKind::UnsupportedMediaType`].
pub fn check_media_type(headers: &HeaderMap) -> Result<(), Failure> {
    let refuse = |message: &str| Err(Failure::new(FailureKind::UnsupportedMediaType, message));
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        // Pages of other origins may send other kinds without asking.
        let kind = kind
            .to_str()
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        if kind != "application/json" && !kind.ends_with("+json") {
            return refuse("the content type is not application/json");
        }
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => refuse("the body is compressed, which is not supported"),
        _ => Ok(()),
    }
}

/// Whether a body can have a field of this name, of ASCII letters. JSON writes a name as it is or with escapes; a text may hold
/// either too.
#[must_use]
pub fn may_have_field(body: &[u8], name: &str) -> bool {
    let has = |needle: &[u8]| memchr::memmem::find(body, needle).is_some();
    has(name.as_bytes()) || has(b"\\u")
}

/// Reads a body.
///
/// # Errors
/// [`FailureKind::TooLarge`], [`FailureKind::RequestTimeout`]; [`FailureKind::Overloaded`] if there is no memory for bodies;
/// [`FailureKind::Malformed`] if the client stops sending.
pub async fn read(
    body: &mut Incoming,
    headers: &HeaderMap,
    limits: &Limits,
    memory: &Arc<Semaphore>,
) -> Result<Whole, Failure> {
    let too_large = || {
        let message = format!("the body is larger than the {} bytes that are accepted", limits.body_bytes);
        Failure::new(FailureKind::TooLarge, message)
    };
    let announced = announced(headers);
    if announced.is_some_and(|length| length > limits.body_bytes) {
        return Err(too_large());
    }
    let take = |bytes: usize| {
        let permit = Arc::clone(memory).try_acquire_many_owned(bytes as u32);
        permit.map_err(|_| {
            Failure::new(
                FailureKind::Overloaded,
                "the server has no memory for this request now; try again later",
            )
            .retry_after(Duration::from_secs(1))
        })
    };
    let mut permits = Vec::new();
    let mut bytes = BytesMut::new();
    let reading = async {
        // What is announced need not come: memory is taken as it does.
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Failure::new(FailureKind::Malformed, "the body is not complete").inside(error.to_string())
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits.body_bytes {
                return Err(too_large());
            }
            permits.push(take(data.len())?);
            if bytes.is_empty()
                && let Some(length) = announced
            {
                bytes.reserve(length.min(1 << 20));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    tokio::time::timeout(limits.body_timeout, reading)
        .await
        .map_err(|_| Failure::new(FailureKind::RequestTimeout, "the body did not come in time"))??;
    Ok(Whole { bytes: bytes.freeze(), memory: permits })
}

/// Reads the rest of a body that is not wanted, beside the answer that says so.
pub fn drain(mut body: Incoming) {
    use hyper::body::Body as _;
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let reading = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
                if bytes > DRAIN_BYTES {
                    break;
                }
            }
        };
        // Whoever is slower than this is cut off.
        let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_may_be_there_under_its_name_or_with_escapes() {
        for (body, may) in [
            (r#"{"query":"a","latency":"slow"}"#, true),
            (r#"{"query":"a","lat\u0065ncy":"slow"}"#, true),
            (r#"{"query":"latency"}"#, true),
            (r#"{"query":"a\n","documents":[]}"#, false),
            ("", false),
        ] {
            assert_eq!(may_have_field(body.as_bytes(), "latency"), may, "{body}");
        }
    }
}
