//! A request's way through HTTP: the path finds the dialects, the body's fields choose one, the service answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::{App, Live, Phase, Target};
use crate::body::{self, Body, full};
use crate::dialect::{Parsed, Rendered, choose, openapi};
use crate::keys::Client;
use crate::queue::{Ask, Refusal};
use crate::service::Context;
use crate::{Failure, FailureKind, RerankResponse, cors, json, metrics, pace, playground, stream};

/// Bodies above this are parsed on threads that may take their time.
const LARGE_BODY: usize = 256 << 10;
/// The header that names a request.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The header by which a client says how long it waits, in seconds.
const REQUEST_TIMEOUT: &str = "x-request-timeout";
/// What a request that no dialect reads is counted under.
const NO_DIALECT: &str = "none";

/// What a request is answered with, before the headers that all answers have.
pub(crate) struct Answer {
    response: Response<Body>,
    dialect: &'static str,
    pub(crate) note: Note,
}

/// What the log says of a request.
#[derive(Default)]
pub(crate) struct Note {
    client: Option<Arc<str>>,
    failure: Option<Failure>,
    timing: Option<crate::Timing>,
    documents: usize,
    tokens: usize,
}

impl App {
    /// Answers a request.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        let _counted = metrics::Counted::request();
        let live = self.live();
        let id = request_id(request.headers());
        let (method, path) = (request.method().clone(), request.uri().path().to_string());
        let origin = request.headers().get(http::header::ORIGIN).cloned();
        let span = crate::log::request_span(&method, request.uri().path(), &id, request.headers());
        let answering = self.answer(&live, request, &id, began);
        let Answer { mut response, dialect, note } =
            tracing::Instrument::instrument(answering, span.clone()).await;
        if let Some(failure) = &note.failure {
            if failure.kind == FailureKind::Overloaded {
                pace::refused();
            }
            self.failures.turn().await;
        }

        let headers = response.headers_mut();
        if !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID.clone(), id);
        }
        if let Some(wait) = note.failure.as_ref().and_then(|failure| failure.retry_after) {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_seconds(wait)));
        }
        let took = began.elapsed();
        if let Ok(timing) = HeaderValue::from_str(&server_timing(note.timing.as_ref(), took)) {
            headers.insert(SERVER_TIMING.clone(), timing);
        }
        cors::allow(&live.config.cors, origin.as_ref(), headers);
        metrics::request(dialect, response.status().as_u16(), took);
        let _in_span = span.enter();
        note.log(&method, &path, dialect, response.status(), took);
        response
    }

    async fn answer(
        self: &Arc<Self>,
        live: &Arc<Live>,
        request: Request<Incoming>,
        id: &str,
        began: Instant,
    ) -> Answer {
        let path = request.uri().path();
        if let Some(targets) = self.routes.get(path) {
            let is_get = request.method() == Method::HEAD;
            let method = if is_get { &Method::GET } else { request.method() };
            if let Some(&first) = targets.iter().find(|target| target.method == method) {
                // Whoever is refused before the body is read is told so in the form that the headers, or the path, speak for.
                let first = match *method {
                    Method::POST => first.chosen(method, path, b"", request.headers()),
                    _ => first,
                };
                return self.answer_dialect(live, request, first, (id, began)).await;
            }
            if request.method() == Method::OPTIONS && !live.config.cors.origins.is_empty() {
                return Answer::new(Response::new(full("")), NO_DIALECT, StatusCode::NO_CONTENT);
            }
            let failure = Failure::new(
                FailureKind::MethodNotAllowed,
                format!("this path does not take {}", request.method()),
            );
            let mut allowed: Vec<&str> = targets.iter().map(|target| target.method.as_str()).collect();
            allowed.sort_unstable();
            allowed.dedup();
            let mut answer = failed(targets[0], id, failure);
            if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
                answer.response.headers_mut().insert(ALLOW, allowed);
            }
            body::drain(request.into_body());
            return answer;
        }
        let answer = self.answer_server(live, &request, id).await;
        body::drain(request.into_body());
        answer
    }

    /// What the server answers itself.
    async fn answer_server(
        self: &Arc<Self>,
        live: &Arc<Live>,
        request: &Request<Incoming>,
        id: &str,
    ) -> Answer {
        let path = request.uri().path();
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        let known =
            ["/livez", "/healthz", "/readyz", "/startupz", "/metrics", "/openapi.json", "/admin/reload"];
        match path {
            "/livez" | "/healthz" if is_get => Answer::json(StatusCode::OK, &json!({"status": "ok"})),
            "/readyz" if is_get => match self.ready(live) {
                Ok(()) => {
                    Answer::json(StatusCode::OK, &json!({"status": "ready", "models": self.models(live)}))
                }
                Err(problem) => Answer::json(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &json!({"status": "not ready", "problem": problem}),
                ),
            },
            "/startupz" if is_get => match self.phase() {
                Phase::Starting => {
                    Answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "starting"}))
                }
                _ => Answer::json(StatusCode::OK, &json!({"status": "started"})),
            },
            "/metrics" if is_get => {
                if !live.config.open_metrics
                    && let Err(failure) = live.clients.who(request.headers(), None)
                {
                    metrics::rejected("unauthorized");
                    return Answer::failure(failure);
                }
                live.catalog.measure();
                let mut response = Response::new(full(metrics::render()));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                Answer::new(response, NO_DIALECT, StatusCode::OK)
            }
            "/openapi.json" if is_get && !openapi::document().is_empty() => {
                Answer::new(Response::new(full(openapi::document())), NO_DIALECT, StatusCode::OK)
            }
            "/admin/reload" if request.method() == Method::POST => {
                self.answer_reload(live, request, id).await
            }
            _ if known.contains(&path) => {
                Answer::failure(Failure::new(FailureKind::MethodNotAllowed, "this path has another method"))
            }
            _ => match playground::asset(path) {
                Some(asset) if live.config.playground && is_get => page(&asset, request.headers()),
                _ => Answer::failure(Failure::new(FailureKind::NotFound, "there is nothing at this path")),
            },
        }
    }

    async fn answer_reload(
        self: &Arc<Self>,
        live: &Arc<Live>,
        request: &Request<Incoming>,
        id: &str,
    ) -> Answer {
        let client = match live.clients.who(request.headers(), None) {
            Ok(client) => client,
            Err(failure) => return Answer::failure(failure),
        };
        if !client.is_admin {
            return Answer::failure(Failure::new(
                FailureKind::Forbidden,
                "this needs a key that is an admin's",
            ));
        }
        tracing::info!(client = &*client.name, request_id = id, "a reload was asked for");
        match self.reload().await {
            Ok(()) => Answer::json(StatusCode::OK, &json!({"status": "reloaded"})),
            Err(problem) => {
                let failure = Failure::new(
                    FailureKind::Internal,
                    "not reloaded; everything is as it was, and the log says why",
                );
                Answer::failure(failure.inside(problem))
            }
        }
    }

    /// Whether all that should be there is.
    fn ready(&self, live: &Live) -> Result<(), String> {
        match self.phase() {
            Phase::Starting => Err("models are being loaded".into()),
            Phase::Draining => Err("the server ends".into()),
            Phase::Serving => live.catalog.ready(),
        }
    }

    /// What `/readyz` says of the models.
    fn models(&self, live: &Live) -> serde_json::Value {
        let cards = live.catalog.cards();
        let model = |card: &crate::ModelCard| {
            let loaded = card.loaded.as_ref();
            json!({
                "name": card.name,
                "loaded": loaded.is_some(),
                "architecture": loaded.map(|card| &card.architecture),
                "precision": loaded.map(|card| &card.precision),
                "max_length": loaded.map(|card| card.max_length),
                "identity": loaded.map(|card| &card.identity),
            })
        };
        cards.iter().map(model).collect()
    }

    /// A request on a path of dialects.
    async fn answer_dialect(
        self: &Arc<Self>,
        live: &Arc<Live>,
        request: Request<Incoming>,
        first: Target,
        (id, began): (&str, Instant),
    ) -> Answer {
        let (head, mut incoming) = request.into_parts();
        let before = self.before_body(live, &head.headers, first);
        let client = match before {
            Ok(Next::Read(client)) => client,
            Ok(Next::Describe(rendered)) => {
                body::drain(incoming);
                return Answer::rendered(rendered, first.dialect.name());
            }
            Err(failure) => {
                body::drain(incoming);
                return failed(first, id, failure);
            }
        };
        let limits = &live.config.limits;
        let whole = match body::read(&mut incoming, &head.headers, limits, &self.bodies).await {
            Ok(whole) => whole,
            Err(failure) => {
                body::drain(incoming);
                return failed(first, id, failure).of(&client);
            }
        };
        let asked = (&head.method, head.uri.path());
        if let Err(failure) = Self::before_parsing(live, &whole.bytes, &client) {
            let target = first.chosen(asked.0, asked.1, &whole.bytes, &head.headers);
            return failed(target, id, failure).of(&client);
        }
        let (target, parsed) = match self.parse(live, asked, (&whole.bytes, &head.headers), first).await {
            Ok((target, Ok(parsed))) => (target, parsed),
            Ok((target, Err(failure))) => return failed(target, id, failure).of(&client),
            Err(failure) => return failed(first, id, failure).of(&client),
        };
        metrics::stage("read", began.elapsed());
        let request = (target, parsed, whole.memory);
        self.score(live, request, (&head.headers, &client), (id, began)).await.of(&client)
    }

    /// What can be said before the body is read.
    fn before_body(&self, live: &Live, headers: &HeaderMap, target: Target) -> Result<Next, Failure> {
        let client = live
            .clients
            .who(headers, target.dialect.api_key(headers))
            .inspect_err(|_| metrics::rejected("unauthorized"))?;
        if let Some(rendered) = target.dialect.describe(target.path, &live.catalog.cards()) {
            return Ok(Next::Describe(rendered));
        }
        if self.phase() == Phase::Starting {
            let failure = Failure::new(FailureKind::Unavailable, "the server is starting; try again");
            return Err(failure.retry_after(Duration::from_secs(2)));
        }
        body::check_media_type(headers)?;
        let (bytes, most_patient) = (body::announced(headers).unwrap_or(0), live.config.queue.max_wait_slow);
        match refused_by_all(live, bytes, client, most_patient) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(Next::Read(Arc::clone(client))),
        }
    }

    /// The body says whether its client waits longer than others. Where no other is served, one that does not need not be parsed. A
    /// large one is: looking it through takes its time too.
    fn before_parsing(live: &Live, body: &[u8], client: &Client) -> Result<(), Failure> {
        if body.len() >= LARGE_BODY {
            return Ok(());
        }
        match refused_by_all(live, body.len(), client, live.config.queue.max_wait) {
            Some(refusal) if !body::may_have_field(body, "latency") => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    /// Chooses the dialect by the body's fields, and has it read the body.
    async fn parse(
        &self,
        live: &Live,
        (method, path): (&Method, &str),
        (bytes, headers): (&Bytes, &HeaderMap),
        first: Target,
    ) -> Result<(Target, Result<Parsed, Failure>), Failure> {
        let depth = live.config.limits.json_depth;
        let (body, headers) = (bytes.clone(), headers.clone());
        let (method, path) = (method.clone(), path.to_string());
        let read = move || {
            let target = first.chosen(&method, &path, &body, &headers);
            let parsed =
                json::check(&body, depth).and_then(|()| target.dialect.parse(target.path, &body, &headers));
            (target, parsed)
        };
        if bytes.len() < LARGE_BODY {
            return Ok(read());
        }
        tokio::task::spawn_blocking(read).await.map_err(|error| {
            Failure::new(FailureKind::Internal, "the body could not be read").inside(error.to_string())
        })
    }

    async fn score(
        self: &Arc<Self>,
        live: &Arc<Live>,
        (target, mut parsed, memory): (Target, Parsed, Vec<OwnedSemaphorePermit>),
        (headers, client): (&HeaderMap, &Arc<Client>),
        (id, began): (&str, Instant),
    ) -> Answer {
        match timeout_of(headers) {
            Ok(Some(timeout)) => {
                parsed.request.deadline =
                    Some(parsed.request.deadline.map_or(timeout, |own| own.min(timeout)));
            }
            Ok(None) => {}
            Err(failure) => return failed(target, id, failure),
        }
        if live.config.log.user_text {
            log_user_text(&parsed.request);
        }
        let wants_stream = parsed.request.stream;
        let mut context = Context {
            config: Arc::clone(&live.config),
            catalog: Arc::clone(&live.catalog),
            client: Arc::clone(client),
            id: id.to_string(),
            began,
            progress: None,
        };
        if wants_stream {
            let service = Arc::clone(&self.service);
            return stream::answer(service, context, target, (parsed, memory)).await;
        }
        context.progress = None;
        match self.service.rerank(parsed.request.clone(), &context).await {
            Ok(response) => {
                let rendered = target.dialect.render(target.path, &parsed, &response);
                let mut answer = Answer::rendered(rendered, target.dialect.name());
                answer.note.response(&response);
                answer
            }
            Err(failure) => failed(target, id, failure),
        }
    }
}

impl Target {
    /// This one, or of its path that of the dialect which the body's fields and the headers speak for.
    fn chosen(self, method: &Method, path: &str, body: &[u8], headers: &HeaderMap) -> Self {
        choose(method, path, body, headers).map_or(self, |(dialect, path)| Self { path, dialect, ..self })
    }
}

/// The body says which model it is for. Where a request of so many bytes, that waits so long at most, is served by none, its body
/// need not be read: the refusal after which it is soonest worth trying again. Half of a body is text, at least.
fn refused_by_all(live: &Live, bytes: usize, client: &Client, max_wait: Duration) -> Option<Refusal> {
    let mut refusal: Option<Refusal> = None;
    for slot in live.catalog.slots() {
        let loaded = slot.loaded()?;
        let price_tokens = loaded.queue.guess_tokens(bytes / 2);
        let ask = Ask { tenant: Arc::clone(&client.name), priority: 0, price_tokens };
        let this = loaded.queue.would_admit(&ask, max_wait).err()?;
        refusal = Some(refusal.map_or(this, |other| other.sooner(this)));
    }
    refusal
}

/// A file of the page, or that the browser has it.
fn page(asset: &playground::Asset, asked: &HeaderMap) -> Answer {
    let tag = asset.etag();
    let has = |known: &HeaderValue| {
        let weak = |tag: &str| tag.trim().strip_prefix("W/").unwrap_or(tag.trim()).to_string();
        known
            .to_str()
            .is_ok_and(|known| known.split(',').any(|known| known.trim() == "*" || weak(known) == tag))
    };
    let is_known = asked.get_all(IF_NONE_MATCH).iter().any(has);
    let (status, body) =
        if is_known { (StatusCode::NOT_MODIFIED, &b""[..]) } else { (StatusCode::OK, asset.body) };
    let mut response = Response::new(full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ETAG, HeaderValue::from_static(tag));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    let policy = HeaderValue::from_static(playground::CONTENT_SECURITY_POLICY);
    headers.insert("content-security-policy", policy);
    Answer::new(response, NO_DIALECT, status)
}

/// How a request goes on after its head.
enum Next {
    Read(Arc<Client>),
    Describe(Rendered),
}

impl Answer {
    fn new(mut response: Response<Body>, dialect: &'static str, status: StatusCode) -> Self {
        *response.status_mut() = status;
        Self { response, dialect, note: Note::default() }
    }

    fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self::new(Response::new(full(body.to_string())), NO_DIALECT, status)
    }

    /// The server's own form of a failure, where no dialect is known.
    fn failure(failure: Failure) -> Self {
        let body = json!({"error": {"code": failure.kind.code(), "message": failure.message}});
        let mut answer = Self::json(failure.kind.status(), &body);
        answer.note.failure = Some(failure);
        answer
    }

    /// What a dialect wrote.
    pub(crate) fn rendered(rendered: Rendered, dialect: &'static str) -> Self {
        let mut response = Response::new(full(rendered.body));
        *response.headers_mut() = rendered.headers;
        Self::new(response, dialect, rendered.status)
    }

    /// An answer that goes on.
    pub(crate) fn stream(response: Response<Body>, dialect: &'static str) -> Self {
        Self::new(response, dialect, StatusCode::OK)
    }

    fn of(mut self, client: &Client) -> Self {
        self.note.client = Some(Arc::clone(&client.name));
        self
    }
}

/// A failure, as the target's dialect writes it.
pub(crate) fn failed(target: Target, id: &str, failure: Failure) -> Answer {
    let rendered = target.dialect.failure(target.path, id, &failure);
    let mut answer = Answer::rendered(rendered, target.dialect.name());
    answer.note.failure = Some(failure);
    answer
}

impl Note {
    pub(crate) fn response(&mut self, response: &RerankResponse) {
        self.timing = Some(response.timing);
        self.documents = response.coverage.scored;
        self.tokens = response.usage.tokens;
    }

    fn log(&self, method: &Method, path: &str, dialect: &str, status: StatusCode, took: Duration) {
        let path: String = path.chars().take(200).collect();
        let client = self.client.as_deref().unwrap_or_default();
        let milliseconds = took.as_secs_f64() * 1e3;
        let status = status.as_u16();
        let (documents, tokens) = (self.documents, self.tokens);
        match &self.failure {
            // The message may repeat what the client wrote; it has it.
            Some(failure) => {
                let (kind, inside) = (failure.kind.code(), failure.inside.as_deref().unwrap_or_default());
                // Of a field that nobody knows the name is the client's.
                let field = match failure.field.as_deref().unwrap_or_default() {
                    _ if failure.message.contains("unknown field") => String::new(),
                    field => field.chars().take(100).collect(),
                };
                if status >= 500 && failure.kind == FailureKind::Internal {
                    tracing::error!(%method, path, dialect, status, client, milliseconds, kind, field, inside, "answered");
                } else {
                    tracing::info!(%method, path, dialect, status, client, milliseconds, kind, field, inside, "answered");
                }
            }
            None if ["/livez", "/readyz", "/healthz", "/startupz", "/metrics"].contains(&path.as_str()) => {
                tracing::debug!(%method, path, status, milliseconds, "answered");
            }
            None => {
                tracing::info!(%method, path, dialect, status, client, milliseconds, documents, tokens, "answered");
            }
        }
    }
}

fn log_user_text(request: &crate::RerankRequest) {
    let short = |text: &str| text.chars().take(200).collect::<String>();
    match &*request.items {
        crate::Items::Documents { query, documents } => {
            let first = documents.first().map(|document| short(document)).unwrap_or_default();
            tracing::debug!(query = short(query), documents = documents.len(), first, "asked");
        }
        crate::Items::Pairs(pairs) => {
            let first = pairs.first().map(|(query, document)| (short(query), short(document)));
            tracing::debug!(pairs = pairs.len(), ?first, "asked");
        }
    }
}

/// The id that a client gives its request, if it is one that can be written anywhere; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let is_plain = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    };
    let given = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_plain);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_string)
}

/// How long a client says that it waits.
fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(REQUEST_TIMEOUT) else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
    match seconds.filter(|seconds| *seconds > 0.0 && *seconds <= 1e6) {
        Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        None => {
            let message = "the header x-request-timeout is not a number of seconds above 0";
            Err(Failure::new(FailureKind::Invalid, message).field(REQUEST_TIMEOUT))
        }
    }
}

/// Whole seconds, and up to a quarter more by chance: clients that were refused together do not come back together.
fn retry_after_seconds(wait: Duration) -> u64 {
    let jitter = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 255.0;
    let wait = wait.as_secs_f64().clamp(0.1, 3600.0);
    (wait * (1.0 + 0.25 * jitter) + jitter).ceil() as u64
}

fn server_timing(timing: Option<&crate::Timing>, total: Duration) -> String {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let total = milliseconds(total);
    match timing {
        None => format!("total;dur={total:.2}"),
        Some(timing) => format!(
            "tokenize;dur={:.2}, queue;dur={:.2}, score;dur={:.2}, total;dur={total:.2}",
            milliseconds(timing.tokenization),
            milliseconds(timing.queue),
            milliseconds(timing.inference)
        ),
    }
}
