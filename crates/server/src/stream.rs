//! Answers as server-sent events: documents as they are scored, then the whole answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::app::Target;
use crate::dialect::Parsed;
use crate::routes::{Answer, failed};
use crate::service::{Context, Progress, Service};
use crate::{Failure, FailureKind, RerankResponse};

/// The work for a request that is streamed. It goes on, to its deadline, while nobody reads; dropped with the connection, it ends.
struct Working(JoinHandle<Result<RerankResponse, Failure>>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a stream still has to say.
struct State {
    target: Target,
    parsed: Arc<Parsed>,
    id: String,
    progress: UnboundedReceiver<Progress>,
    working: Option<Working>,
    ready: VecDeque<Bytes>,
    /// The request's share of the memory for bodies: its texts are here to the end.
    _memory: Vec<OwnedSemaphorePermit>,
}

/// Answers as a stream, once there is something to say; until then a failure is an ordinary answer.
pub(crate) async fn answer(
    service: Arc<Service>,
    mut context: Context,
    target: Target,
    (parsed, memory): (Parsed, Vec<OwnedSemaphorePermit>),
) -> Answer {
    let (sender, progress) = unbounded_channel();
    context.progress = Some(sender);
    let id = context.id.clone();
    let request = parsed.request.clone();
    let working = async move { service.rerank(request, &context).await };
    let working = Working(tokio::spawn(working.in_current_span()));
    let mut state = State {
        target,
        parsed: Arc::new(parsed),
        id,
        progress,
        working: Some(working),
        ready: VecDeque::new(),
        _memory: memory,
    };
    if let Some(Err(failure)) = state.next().await {
        return failed(target, &state.id, failure);
    }
    let events = stream::unfold(state, |mut state| async move {
        loop {
            if let Some(event) = state.ready.pop_front() {
                return Some((Ok::<_, Infallible>(Frame::data(event)), state));
            }
            match state.next().await {
                Some(Ok(())) => {}
                Some(Err(failure)) => {
                    let body = state.target.dialect.failure(state.target.path, &state.id, &failure).body;
                    state.ready.push_back(event("error", &body));
                }
                None => return None,
            }
        }
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that collect answers would hold the first ones back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Answer::stream(response, target.dialect.name())
}

impl State {
    /// Waits for the next thing to say and makes an event of it. `None` if there is no more, a failure at most once.
    async fn next(&mut self) -> Option<Result<(), Failure>> {
        let working = self.working.as_mut()?;
        let ended = tokio::select! {
            biased;
            Some(progress) = self.progress.recv() => {
                self.say(progress);
                return Some(Ok(()));
            }
            ended = &mut working.0 => ended,
        };
        let ended = ended.unwrap_or_else(|error| {
            Err(Failure::new(FailureKind::Internal, "the request could not be answered")
                .inside(error.to_string()))
        });
        self.working = None;
        while let Ok(progress) = self.progress.try_recv() {
            self.say(progress);
        }
        match ended {
            Ok(response) => {
                let rendered = self.target.dialect.render(self.target.path, &self.parsed, &response);
                self.ready.push_back(event("result", &rendered.body));
                Some(Ok(()))
            }
            Err(failure) => Some(Err(failure)),
        }
    }

    fn say(&mut self, Progress { hits, coverage }: Progress) {
        if let Some(body) = self.target.dialect.progress(&self.parsed, &hits, coverage) {
            self.ready.push_back(event("progress", &body));
        }
    }
}

/// JSON is one line, so that it is one `data` line.
fn event(name: &str, body: &[u8]) -> Bytes {
    [b"event: ", name.as_bytes(), b"\ndata: ", body.trim_ascii(), b"\n\n"].concat().into()
}
