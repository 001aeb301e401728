//! Asking: a request, what came of it, and whether to try again.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jointly::rank::listwise::quote::brief;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Request, StatusCode, Uri, header};
use ureq::{Agent, Timeout};

use crate::wait::{chance, retry_after};
use crate::{ApiKey, Error, Halt, Ledger, Price, Result, Usage};

/// An answer with the probabilities of its tokens has some hundred kilobytes at most.
const MAX_BODY_BYTES: u64 = 4 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest wait between two attempts, unless the server asks for a longer one.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// The longest wait that a server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);
/// So many questions in a row without an answer: the next ones would have none either.
const MAX_FAILURES_IN_A_ROW: u32 = 20;
/// Tokens that a chat template writes around a prompt.
const TEMPLATE_TOKENS: u64 = 256;
/// Probabilities asked for at each token; more are refused by some servers.
const TOP_LOGPROBS: u32 = 20;

/// How the server is told the form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseFormat {
    /// By a schema.
    #[default]
    JsonSchema,
    /// As some JSON object.
    JsonObject,
    /// In words only.
    None,
}

/// Which model is asked, and how patiently.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The endpoint, without `/chat/completions`.
    pub base: String,
    /// The model's name there.
    pub model: String,
    /// 0 for the likeliest answer.
    pub temperature: f64,
    /// How the server is told the form of the answer, where it has one.
    pub response_format: ResponseFormat,
    /// For counting what it costs.
    pub price: Price,
    /// For the endpoint.
    pub key: Option<ApiKey>,
    /// For one request, from its first byte to the last of its answer.
    pub timeout: Duration,
    /// How often a request is made that fails in a way that may pass.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each.
    pub backoff: Duration,
    /// Requests at once.
    pub concurrency: usize,
}

impl ClientOptions {
    /// The likeliest answer, 60 s, five attempts, eight at once.
    pub fn new(base: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            model: model.into(),
            temperature: 0.0,
            response_format: ResponseFormat::default(),
            price: Price::default(),
            key: None,
            timeout: Duration::from_secs(60),
            attempts: 5,
            backoff: Duration::from_secs(1),
            concurrency: 8,
        }
    }
}

/// The form of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// What it is called.
    pub name: &'static str,
    /// The JSON schema.
    pub schema: Value,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The system's message.
    pub system: &'a str,
    /// The user's message.
    pub user: &'a str,
    /// Most tokens of the answer.
    pub answer_tokens: u32,
    /// The form of the answer, if it is JSON.
    pub schema: Option<Schema>,
    /// Whether the probabilities of tokens are wanted.
    pub logprobs: bool,
    /// No attempt is begun, and none goes on, after this.
    pub deadline: Option<Instant>,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// What it cost, with the attempts that failed.
    pub usage: Usage,
    /// What the model said.
    pub outcome: Outcome,
}

/// What a model said, or why it said nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// An answer.
    Said(Said),
    /// The model answered, and there is no text in it; why.
    Unusable(String),
    /// No answer came; why. Worth asking again another time.
    Unanswered(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Its text.
    pub text: String,
    /// Its tokens, where the server tells them.
    pub tokens: Vec<Token>,
    /// Whether it ended for the number of its tokens.
    pub is_cut: bool,
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Token {
    /// Its text.
    pub token: String,
    /// The logarithm of its probability.
    pub logprob: f64,
    /// What else might have stood there.
    #[serde(default)]
    pub top_logprobs: Vec<Alternative>,
}

/// What might have stood in the place of a token.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Alternative {
    /// Its text.
    pub token: String,
    /// The logarithm of its probability.
    pub logprob: f64,
}

/// Asks one model.
pub struct Client {
    options: ClientOptions,
    url: String,
    agent: Agent,
    /// What this server turned out not to know.
    without: Without,
    failures_in_a_row: AtomicU32,
    /// The server asked all to wait until then.
    not_before: Mutex<Option<Instant>>,
    /// That no question is to be asked, if the question that found out came back with what it had cost instead. Without the server's
    /// words, which may repeat that question: the next one may be somebody else's.
    refused: Mutex<Option<Error>>,
}

/// Parts of a request that a server refused.
#[derive(Default)]
struct Without {
    temperature: AtomicBool,
    response_format: AtomicBool,
    logprobs: AtomicBool,
    /// It wants `max_completion_tokens` in its place.
    max_tokens: AtomicBool,
}

/// Why an attempt gave no answer.
enum Failure {
    /// Worth another attempt, after what the server asks for.
    Again { reason: String, after: Option<Duration> },
    /// The request was written in a way that this server does not take, and is now written otherwise.
    Rewritten,
    /// This question gets no answer.
    Abstain(String),
    /// No question does.
    Final(Error),
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<CompletionUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Value>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Token>>,
}

#[derive(Deserialize, Clone, Copy)]
struct CompletionUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// None for what is in another form: probabilities are a bonus.
fn lenient<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<Logprobs>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

impl Client {
    /// Checks the options; asks nothing yet.
    ///
    /// # Errors
    /// [`Error::Options`].
    pub fn new(options: ClientOptions) -> Result<Self> {
        let bad = |problem: &str| Error::Options { problem: problem.to_owned() };
        let base = options.base.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| bad("the endpoint is not a URL"))?;
        let host = uri.host().unwrap_or_default();
        let is_local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
        match uri.scheme_str() {
            _ if host.is_empty() => return Err(bad("the endpoint has no host")),
            Some("https") => {}
            Some("http") if options.key.is_none() || is_local => {}
            Some("http") => {
                return Err(bad("the key would go over plain http to another machine; use https"));
            }
            _ => return Err(bad("the endpoint is not an http or https URL")),
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(bad("the endpoint has a user name in it; a key is read from the environment"));
        }
        if uri.query().is_some() {
            return Err(bad("the endpoint has a query"));
        }
        if options.model.is_empty() {
            return Err(bad("the model has no name: URL#MODEL"));
        }
        let is_amount = |value: f64| value.is_finite() && value >= 0.0;
        if !(is_amount(options.price.input) && is_amount(options.price.output)) {
            return Err(bad("a price is a number that is not negative"));
        }
        if !is_amount(options.temperature) {
            return Err(bad("the temperature is a number that is not negative"));
        }
        for (value, name) in
            [(options.attempts as usize, "attempts"), (options.concurrency, "requests at once")]
        {
            if value == 0 {
                return Err(bad(&format!("there must be at least one of: {name}")));
            }
        }
        let mut config = Agent::config_builder()
            // Nobody is sent on with the key and the texts.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("jointly/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections_per_host(options.concurrency)
            .timeout_connect(Some(CONNECT_TIMEOUT.min(options.timeout)))
            .timeout_global(Some(options.timeout));
        if is_local {
            config = config.proxy(None);
        }
        let url = format!("{base}/chat/completions");
        Ok(Self {
            url,
            agent: config.build().into(),
            without: Without::default(),
            failures_in_a_row: AtomicU32::new(0),
            not_before: Mutex::new(None),
            refused: Mutex::new(None),
            options,
        })
    }

    /// The options.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    fn body(&self, question: &Question<'_>) -> Value {
        let is_with = |flag: &AtomicBool| !flag.load(Ordering::Relaxed);
        let Question { system, user, .. } = question;
        let mut body = json!({
            "model": self.options.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        });
        let limit = if is_with(&self.without.max_tokens) { "max_tokens" } else { "max_completion_tokens" };
        body[limit] = question.answer_tokens.into();
        if is_with(&self.without.temperature) {
            body["temperature"] = self.options.temperature.into();
        }
        if let (Some(Schema { name, schema }), true) =
            (&question.schema, is_with(&self.without.response_format))
        {
            match self.options.response_format {
                ResponseFormat::JsonSchema => {
                    let schema = json!({"name": name, "strict": true, "schema": schema});
                    body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
                }
                ResponseFormat::JsonObject => body["response_format"] = json!({"type": "json_object"}),
                ResponseFormat::None => {}
            }
        }
        if question.logprobs && is_with(&self.without.logprobs) {
            body["logprobs"] = true.into();
            body["top_logprobs"] = TOP_LOGPROBS.into();
        }
        body
    }

    /// Asks one question, again where that may help.
    ///
    /// # Errors
    /// What makes further questions pointless: [`Error::Refused`], [`Error::BudgetSpent`], [`Error::Interrupted`]. A question that
    /// has cost something by then is [`Outcome::Unanswered`], so that its cost is told; the next one has the error, with the status but
    /// not the words of a refusal.
    pub fn ask(&self, question: &Question<'_>, ledger: &Ledger, halt: &Halt<'_>) -> Result<Reply> {
        let refused = || self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = refused().take() {
            return Err(error);
        }
        let mut usage = Usage::default();
        let outcome = match self.ask_again(question, (ledger, halt), &mut usage) {
            Err(error) if usage != Usage::default() => {
                let reason = error.to_string();
                // The ledger and the halt say theirs again by themselves.
                if let Error::Refused { status, .. } = error {
                    *refused() = Some(self.refused(status, &self.in_short(status)));
                }
                Outcome::Unanswered(reason)
            }
            outcome => outcome?,
        };
        Ok(Reply { usage, outcome })
    }

    /// All attempts of a question; what they cost is added to `usage` whatever comes of them.
    fn ask_again(
        &self,
        question: &Question<'_>,
        (ledger, halt): (&Ledger, &Halt<'_>),
        usage: &mut Usage,
    ) -> Result<Outcome> {
        // No tokeniser makes more tokens than there are bytes.
        let bytes = (question.system.len() + question.user.len()) as u64;
        let most = self.options.price.of(bytes + TEMPLATE_TOKENS, question.answer_tokens.into());
        let mut attempt = 0;
        let reason = loop {
            let body = self.body(question);
            if !self.wait_for_server(question.deadline, halt)? {
                break "the server asks for a wait that is longer than the time there is".into();
            }
            let Some(room) = ledger.reserve(most, question.deadline, halt)? else {
                break "there was no room in the budget in time".into();
            };
            // After the wait for others: time goes on.
            let timeout = question
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()).min(self.options.timeout));
            if timeout.is_some_and(|timeout| timeout.is_zero()) {
                break "there was no time left".into();
            }
            let (spent, outcome) = self.attempt(&body, timeout.unwrap_or(self.options.timeout), most);
            room.settle(spent);
            usage.add(spent);
            match outcome {
                Ok(outcome) => {
                    self.failures_in_a_row.store(0, Ordering::Relaxed);
                    return Ok(outcome);
                }
                Err(Failure::Rewritten) => {}
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Abstain(reason)) => break reason,
                Err(Failure::Again { reason, after }) => {
                    attempt += 1;
                    if attempt >= self.options.attempts {
                        break format!("{reason} ({attempt} attempts)");
                    }
                    if !self.wait_before(attempt, after, (question.deadline, halt))? {
                        break format!("{reason}; there was no time for another attempt");
                    }
                }
            }
        };
        // A deadline says nothing about the endpoint.
        let is_late = question.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if !is_late && self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_FAILURES_IN_A_ROW {
            let reason =
                format!("{MAX_FAILURES_IN_A_ROW} questions in a row had no answer; the last: {reason}");
            return Err(self.refused(None, &reason));
        }
        Ok(Outcome::Unanswered(reason))
    }

    /// One request: what it cost, and what came of it.
    fn attempt(
        &self,
        sent: &Value,
        timeout: Duration,
        most: Usage,
    ) -> (Usage, std::result::Result<Outcome, Failure>) {
        let nothing = Usage::default();
        let mut request = Request::post(&self.url).header(header::CONTENT_TYPE, "application/json");
        if let Some(ApiKey(key)) = &self.options.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = match request.body(sent.to_string().into_bytes()) {
            Ok(request) => request,
            Err(error) => return (nothing, Err(Failure::Final(self.refused(None, &error.to_string())))),
        };
        let request = self.agent.configure_request(request).timeout_global(Some(timeout)).build();
        let response = match self.agent.run(request) {
            Ok(response) => response,
            Err(error) => {
                // A server that was heard and then hung may have computed, and may send a bill.
                let is_heard = matches!(error, ureq::Error::Timeout(at)
                    if !matches!(at, Timeout::Connect | Timeout::Resolve));
                return (if is_heard { most } else { nothing }, Err(self.no_response(&error, timeout)));
            }
        };
        let (parts, body) = response.into_parts();
        let mut bytes = Vec::new();
        let read = body.into_reader().take(MAX_BODY_BYTES + 1).read_to_end(&mut bytes);
        if parts.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&bytes);
            return (nothing, Err(self.refusal(parts.status, &parts.headers, &text, sent)));
        }
        if let Err(error) = read {
            let reason = format!("the answer broke off: {}", self.shown(&error.to_string()));
            return (most, Err(Failure::Again { reason, after: None }));
        }
        if bytes.len() as u64 > MAX_BODY_BYTES {
            let reason = format!("the answer is longer than {} MiB", MAX_BODY_BYTES >> 20);
            return (most, Err(Failure::Abstain(reason)));
        }
        let completion: Completion = match serde_json::from_slice(&bytes) {
            Ok(completion) => completion,
            Err(error) => {
                let start = self.shown(&String::from_utf8_lossy(&bytes[..bytes.len().min(400)]));
                return (most, Ok(Outcome::Unusable(format!("not a chat completion ({error}): {start:?}"))));
            }
        };
        // Some servers put failures of another one behind them into an answer with status 200.
        if let Some(error) = completion.error.filter(|error| !error.is_null()) {
            let code = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            let status =
                code.and_then(|code| StatusCode::from_u16(code).ok()).filter(|code| !code.is_success());
            let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
            let text = json!({"error": error}).to_string();
            return (nothing, Err(self.refusal(status, &parts.headers, &text, sent)));
        }
        let spent = completion
            .usage
            .filter(|usage| usage.prompt_tokens > 0)
            .map_or(most, |usage| self.options.price.of(usage.prompt_tokens, usage.completion_tokens));
        let answer = match completion.choices.into_iter().next() {
            Some(choice) => self.read(choice),
            None => Outcome::Unusable("an answer without choices".into()),
        };
        (spent, Ok(answer))
    }

    fn read(&self, choice: Choice) -> Outcome {
        if let Some(refusal) = choice.message.refusal.filter(|text| !text.is_empty()) {
            return Outcome::Unusable(format!("refused: {}", self.shown(&refusal)));
        }
        let text = match &choice.message.content {
            Some(Value::String(text)) => text.clone(),
            // Parts, as some servers write them.
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
            }
            _ => String::new(),
        };
        let tokens = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
        Outcome::Said(Said { text, tokens, is_cut: choice.finish_reason.as_deref() == Some("length") })
    }

    fn no_response(&self, error: &ureq::Error, timeout: Duration) -> Failure {
        match error {
            ureq::Error::Timeout(_) => {
                Failure::Again { reason: format!("no answer in {timeout:?}"), after: None }
            }
            ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
                Failure::Final(self.refused(None, &error.to_string()))
            }
            _ => Failure::Again { reason: self.shown(&error.to_string()), after: None },
        }
    }

    /// What an answer with another status than 200 means.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &str, sent: &Value) -> Failure {
        let said = serde_json::from_str::<Value>(body).ok().and_then(|value| {
            let error = value.get("error")?;
            Some(
                error.get("message").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned),
            )
        });
        let said = said.unwrap_or_else(|| body.to_owned());
        let reason = format!("status {}: {}", status.as_u16(), self.shown(&said));
        let refused = || Failure::Final(self.refused(Some(status.as_u16()), &reason));
        match status.as_u16() {
            429 if body.contains("insufficient_quota") => refused(),
            408 | 409 | 425 | 429 | 500..=599 => Failure::Again { reason, after: retry_after(headers) },
            300..=399 | 401 | 402 | 403 | 404 | 405 => refused(),
            _ if self.rewrite(&said, sent) => Failure::Rewritten,
            _ => Failure::Abstain(reason),
        }
    }

    /// Leaves out of later requests what the complaint about this one names. A part goes once, so this ends.
    fn rewrite(&self, complaint: &str, sent: &Value) -> bool {
        let parts = [
            ("max_completion_tokens", "max_tokens", &self.without.max_tokens),
            ("temperature", "temperature", &self.without.temperature),
            ("response_format", "response_format", &self.without.response_format),
            ("schema", "response_format", &self.without.response_format),
            ("enum", "response_format", &self.without.response_format),
            ("logprobs", "logprobs", &self.without.logprobs),
        ];
        let named =
            parts.into_iter().find(|(word, field, _)| complaint.contains(word) && sent.get(field).is_some());
        named.is_some_and(|(_, _, flag)| {
            flag.store(true, Ordering::Relaxed);
            true
        })
    }

    /// Why no question is asked, in no words of the server.
    fn in_short(&self, status: Option<u16>) -> String {
        match status {
            Some(status) => format!("status {status} to the question before this one"),
            None if self.failures_in_a_row.load(Ordering::Relaxed) >= MAX_FAILURES_IN_A_ROW => {
                format!("{MAX_FAILURES_IN_A_ROW} questions in a row had no answer")
            }
            None => "the question before this one could not be asked".into(),
        }
    }

    fn refused(&self, status: Option<u16>, reason: &str) -> Error {
        Error::Refused { status, reason: format!("{}: {}", self.url, self.shown(reason)) }
    }

    /// A server's words, fit to be shown: some repeat the key.
    pub fn shown(&self, text: &str) -> String {
        match &self.options.key {
            Some(ApiKey(key)) => brief(&text.replace(key, "***")),
            None => brief(text),
        }
    }

    /// Waits as the server asked for; false if that is longer than there is time.
    fn wait_for_server(&self, deadline: Option<Instant>, halt: &Halt<'_>) -> Result<bool> {
        let until = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) if deadline.is_some_and(|deadline| until >= deadline) => Ok(false),
            Some(until) => halt.sleep_until(until).map(|()| true),
            None => Ok(true),
        }
    }

    /// Waits before another attempt; false if that is longer than there is time.
    fn wait_before(
        &self,
        attempt: u32,
        after: Option<Duration>,
        (deadline, halt): (Option<Instant>, &Halt<'_>),
    ) -> Result<bool> {
        let doubled = self.options.backoff.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST_BACKOFF);
        // Half of it by chance, so that those who failed together do not come back together.
        let backoff = doubled.mul_f64(0.5 + 0.5 * chance());
        let now = Instant::now();
        let own = match after.map(|after| after.min(LONGEST_RETRY_AFTER)) {
            Some(after) => {
                let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
                *not_before = (*not_before).max(Some(now + after));
                after + self.options.backoff.mul_f64(chance())
            }
            None => backoff,
        };
        if deadline.is_some_and(|deadline| now + own >= deadline) {
            return Ok(false);
        }
        halt.sleep_until(now + own).map(|()| true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn keys_do_not_leave() {
        let mut options = ClientOptions::new("http://example.com/v1", "m");
        options.key = Some(ApiKey("sk-secret".into()));
        assert!(!format!("{options:?}").contains("secret"));
        assert!(Client::new(options.clone()).err().unwrap().to_string().contains("https"));
        options.base = "http://localhost:1/v1".into();
        let client = Client::new(options).unwrap();
        assert_eq!(client.shown("Wrong key: sk-secret!"), "Wrong key: ***!");
    }

    #[test]
    fn what_cannot_be_used_is_refused_at_once() {
        for base in ["", "x", "ftp://a/v1", "http://", "http://me:pw@a/v1", "https://a/v1?key=1"] {
            assert!(Client::new(ClientOptions::new(base, "m")).is_err(), "{base}");
        }
        assert!(Client::new(ClientOptions::new("https://a/v1", "")).is_err());
    }
}
