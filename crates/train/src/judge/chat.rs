//! A language model behind an endpoint that speaks the chat-completions protocol.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Request, StatusCode, Uri, header};
use ureq::{Agent, Timeout};

use super::answer::{Answer, parse_letter, parse_score};
use super::{Ask, Ballot, Error, Halt, Judge, Ledger, Question, Result, Usage, brief, short_hash};

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
/// A and B must have this share of the probability together, or the answer was not a choice between them.
const LEAST_MASS: f64 = 0.1;

/// A secret that is shown nowhere.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// From an environment variable.
    ///
    /// # Errors
    /// What is wrong with it, without its value.
    pub fn from_env(variable: &str) -> std::result::Result<Self, String> {
        match std::env::var(variable) {
            Ok(key) if key.is_empty() => Err(format!("the environment variable {variable} is empty")),
            Ok(key) if key.bytes().all(|c| c.is_ascii_graphic()) => Ok(Self(key)),
            Ok(_) | Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the environment variable {variable} holds what is no key: spaces, or not ASCII"))
            }
            Err(std::env::VarError::NotPresent) => {
                Err(format!("the environment variable {variable} is not set"))
            }
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

/// What a million tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Price {
    /// Of prompts.
    pub input: f64,
    /// Of answers.
    pub output: f64,
}

impl Price {
    fn of(self, prompt_tokens: u64, completion_tokens: u64) -> Usage {
        let cost = (prompt_tokens as f64 * self.input + completion_tokens as f64 * self.output) / 1e6;
        Usage { prompt_tokens, completion_tokens, cost }
    }
}

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

/// Which model is asked, and how.
#[derive(Debug, Clone)]
pub struct ChatOptions {
    /// What it is called in the votes.
    pub name: String,
    /// The endpoint, without `/chat/completions`.
    pub base: String,
    /// The model's name there.
    pub model: String,
    /// What it answers with.
    pub ask: Ask,
    /// Only who wins counts, not by how much.
    pub hard: bool,
    /// How the server is told the form of the answer.
    pub response_format: ResponseFormat,
    /// Most tokens of an answer; none is enough for what is asked.
    pub answer_tokens: Option<u32>,
    /// 0 for the likeliest answer.
    pub temperature: f64,
    /// Each text is cut to so many characters.
    pub max_chars: usize,
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

impl ChatOptions {
    /// Most characters of a text.
    pub const DEFAULT_MAX_CHARS: usize = 8000;

    /// The model's own name, scores, soft votes, 60 s, five attempts, eight at once.
    pub fn new(base: impl Into<String>, model: impl Into<String>) -> Self {
        let model = model.into();
        Self {
            name: model.clone(),
            base: base.into(),
            model,
            ask: Ask::default(),
            hard: false,
            response_format: ResponseFormat::default(),
            answer_tokens: None,
            temperature: 0.0,
            max_chars: Self::DEFAULT_MAX_CHARS,
            price: Price::default(),
            key: None,
            timeout: Duration::from_secs(60),
            attempts: 5,
            backoff: Duration::from_secs(1),
            concurrency: 8,
        }
    }
}

/// A language model as judge.
pub struct ChatJudge {
    options: ChatOptions,
    url: String,
    agent: Agent,
    /// What this server turned out not to know.
    without: Without,
    failures_in_a_row: AtomicU32,
    /// The server asked all to wait until then.
    not_before: Mutex<Option<Instant>>,
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

#[derive(Deserialize)]
struct Token {
    token: String,
    logprob: f64,
    #[serde(default)]
    top_logprobs: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    token: String,
    logprob: f64,
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

impl ChatJudge {
    /// Checks the options; asks nothing yet.
    ///
    /// # Errors
    /// [`Error::Options`].
    pub fn new(options: ChatOptions) -> Result<Self> {
        let bad = |problem: &str| Error::Options { judge: options.name.clone(), problem: problem.to_owned() };
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
        for (value, name) in [
            (options.attempts as usize, "attempts"),
            (options.concurrency, "requests at once"),
            (options.max_chars, "characters of a text"),
            (options.answer_tokens.unwrap_or(1) as usize, "tokens of an answer"),
        ] {
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
            options,
        })
    }

    fn answer_tokens(&self) -> u32 {
        self.options.answer_tokens.unwrap_or(self.options.ask.answer_tokens())
    }

    fn body(&self, system: &str, user: &str) -> Value {
        let is_with = |flag: &AtomicBool| !flag.load(Ordering::Relaxed);
        let mut body = json!({
            "model": self.options.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        });
        let limit = if is_with(&self.without.max_tokens) { "max_tokens" } else { "max_completion_tokens" };
        body[limit] = self.answer_tokens().into();
        if is_with(&self.without.temperature) {
            body["temperature"] = self.options.temperature.into();
        }
        if let (Some(schema), true) = (self.options.ask.schema(), is_with(&self.without.response_format)) {
            match self.options.response_format {
                ResponseFormat::JsonSchema => {
                    let schema = json!({"name": "comparison", "strict": true, "schema": schema});
                    body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
                }
                ResponseFormat::JsonObject => body["response_format"] = json!({"type": "json_object"}),
                ResponseFormat::None => {}
            }
        }
        if self.options.ask == Ask::Letter && is_with(&self.without.logprobs) {
            body["logprobs"] = true.into();
            body["top_logprobs"] = TOP_LOGPROBS.into();
        }
        body
    }

    fn ask_one(&self, question: &Question<'_>, ledger: &Ledger, halt: &Halt<'_>) -> Result<Ballot> {
        let prompt = self.options.ask.write(question, self.options.max_chars);
        // No tokeniser makes more tokens than there are bytes.
        let bytes = (prompt.system.len() + prompt.user.len()) as u64;
        let most = self.options.price.of(bytes + TEMPLATE_TOKENS, self.answer_tokens().into());
        let mut usage = Usage::default();
        let mut attempt = 0;
        let reason = loop {
            let body = self.body(&prompt.system, &prompt.user);
            self.wait_for_server(halt)?;
            let room = ledger.reserve(most, halt)?;
            let (spent, outcome) = self.attempt(&body, most);
            room.settle(spent);
            usage.add(spent);
            match outcome {
                Ok(vote) => {
                    self.failures_in_a_row.store(0, Ordering::Relaxed);
                    let share = match vote {
                        Answer::Share(share) => share,
                        Answer::Unclear(reason) => {
                            return Ok(Ballot { usage, cut: prompt.cut, ..Ballot::abstain(reason) });
                        }
                    };
                    let share = if question.swapped { 1.0 - share } else { share };
                    let vote = if self.options.hard { super::local::hard(share - 0.5) } else { share };
                    return Ok(Ballot { vote: Some(vote), usage, cut: prompt.cut, ..Ballot::default() });
                }
                Err(Failure::Rewritten) => {}
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Abstain(reason)) => break reason,
                Err(Failure::Again { reason, after }) => {
                    attempt += 1;
                    if attempt >= self.options.attempts {
                        break format!("{reason} ({attempt} attempts)");
                    }
                    self.wait_before(attempt, after, halt)?;
                }
            }
        };
        if self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_FAILURES_IN_A_ROW {
            let reason =
                format!("{MAX_FAILURES_IN_A_ROW} questions in a row had no answer; the last: {reason}");
            return Err(self.refused(&reason));
        }
        Ok(Ballot { usage, cut: prompt.cut, unanswered: true, ..Ballot::abstain(reason) })
    }

    /// One request: what it cost, and what came of it.
    fn attempt(&self, sent: &Value, most: Usage) -> (Usage, std::result::Result<Answer, Failure>) {
        let nothing = Usage::default();
        let mut request = Request::post(&self.url).header(header::CONTENT_TYPE, "application/json");
        if let Some(ApiKey(key)) = &self.options.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = match request.body(sent.to_string().into_bytes()) {
            Ok(request) => request,
            Err(error) => return (nothing, Err(Failure::Final(self.refused(&error.to_string())))),
        };
        let response = match self.agent.run(request) {
            Ok(response) => response,
            Err(error) => {
                // A server that was heard and then hung may have computed, and may send a bill.
                let is_heard = matches!(error, ureq::Error::Timeout(at)
                    if !matches!(at, Timeout::Connect | Timeout::Resolve));
                return (if is_heard { most } else { nothing }, Err(self.no_response(&error)));
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
                return (most, Ok(Answer::Unclear(format!("not a chat completion ({error}): {start:?}"))));
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
            None => Answer::Unclear("an answer without choices".into()),
        };
        (spent, Ok(answer))
    }

    fn read(&self, choice: Choice) -> Answer {
        if let Some(refusal) = choice.message.refusal.filter(|text| !text.is_empty()) {
            return Answer::Unclear(format!("refused: {}", self.shown(&refusal)));
        }
        let text = match &choice.message.content {
            Some(Value::String(text)) => text.clone(),
            // Parts, as some servers write them.
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
            }
            _ => String::new(),
        };
        let answer = if self.options.ask == Ask::Letter {
            let tokens = choice.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
            match parse_letter(&text) {
                Answer::Share(share) => Answer::Share(share_of_tokens(&tokens).unwrap_or(share)),
                unclear @ Answer::Unclear(_) => unclear,
            }
        } else {
            parse_score(&text)
        };
        match answer {
            Answer::Unclear(reason) if choice.finish_reason.as_deref() == Some("length") => {
                Answer::Unclear(format!("cut at {} tokens; {}", self.answer_tokens(), self.shown(&reason)))
            }
            Answer::Unclear(reason) => Answer::Unclear(self.shown(&reason)),
            share @ Answer::Share(_) => share,
        }
    }

    fn no_response(&self, error: &ureq::Error) -> Failure {
        match error {
            ureq::Error::Timeout(_) => {
                Failure::Again { reason: format!("no answer in {:?}", self.options.timeout), after: None }
            }
            ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
                Failure::Final(self.refused(&error.to_string()))
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
        match status.as_u16() {
            429 if body.contains("insufficient_quota") => Failure::Final(self.refused(&reason)),
            408 | 409 | 425 | 429 | 500..=599 => Failure::Again { reason, after: retry_after(headers) },
            300..=399 | 401 | 402 | 403 | 404 | 405 => Failure::Final(self.refused(&reason)),
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

    fn refused(&self, reason: &str) -> Error {
        Error::Refused {
            judge: self.options.name.clone(),
            reason: format!("{}: {}", self.url, self.shown(reason)),
        }
    }

    /// A server's words, fit to be shown: some repeat the key.
    fn shown(&self, text: &str) -> String {
        match &self.options.key {
            Some(ApiKey(key)) => brief(&text.replace(key, "***")),
            None => brief(text),
        }
    }

    fn wait_for_server(&self, halt: &Halt<'_>) -> Result<()> {
        let until = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) => halt.sleep_until(until),
            None => Ok(()),
        }
    }

    fn wait_before(&self, attempt: u32, after: Option<Duration>, halt: &Halt<'_>) -> Result<()> {
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
        halt.sleep_until(now + own)
    }
}

impl Judge for ChatJudge {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn settings(&self) -> String {
        // Not the endpoint: the same model may be served at another place tomorrow.
        let ChatOptions { model, ask, hard, temperature, max_chars, response_format, .. } = &self.options;
        let numbers =
            format!("{hard} {temperature} {max_chars} {response_format:?} {}", self.answer_tokens());
        short_hash(&["chat", model, &ask.wording(), &numbers], 12)
    }

    fn reads_in_order(&self) -> bool {
        true
    }

    fn appetite(&self) -> (usize, usize) {
        (1, self.options.concurrency)
    }

    fn ask(&self, questions: &[Question<'_>], ledger: &Ledger, halt: &Halt<'_>) -> Result<Vec<Ballot>> {
        questions.iter().map(|question| self.ask_one(question, ledger, halt)).collect()
    }
}

/// The share of B, by the probabilities at the first token that is A or B.
fn share_of_tokens(tokens: &[Token]) -> Option<f64> {
    let letter = |token: &str| match token.trim_matches(|c: char| !c.is_alphanumeric()) {
        "A" | "a" => Some(0),
        "B" | "b" => Some(1),
        _ => None,
    };
    let at = tokens.iter().find(|token| letter(&token.token).is_some())?;
    let mut mass = [0.0_f64; 2];
    for alternative in &at.top_logprobs {
        if let (Some(which), true) = (letter(&alternative.token), alternative.logprob.is_finite()) {
            mass[which] += alternative.logprob.min(0.0).exp();
        }
    }
    let own = letter(&at.token)?;
    if mass == [0.0; 2] && at.logprob.is_finite() {
        // The chosen token's own probability; the rest is not the other letter's for certain.
        let p = at.logprob.min(0.0).exp();
        mass[own] = p;
        mass[1 - own] = 1.0 - p;
    }
    let sum = mass[0] + mass[1];
    (sum >= LEAST_MASS).then(|| mass[1] / sum)
}

/// How long the server asks to wait: in seconds, or until a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => date(text)?.duration_since(SystemTime::now()).ok(),
    }
}

/// A date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = words[..] else { return None };
    let number = |text: &str| text.parse::<u64>().ok().filter(|value| *value < 10_000);
    let (day, year) = (number(day)?, number(year)?);
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    // Days since 1970, in years that begin with March.
    let (shifted, year) = ((month + 10) % 12, if month < 2 { year.checked_sub(1)? } else { year });
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (shifted * 153 + 2) / 5 + day;
    let days = days.checked_sub(719_469)?;
    let seconds = days * 86_400 + number(hour)? * 3600 + number(minute)? * 60 + number(second)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A number from 0 to 1 that nobody can foresee.
fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let seconds =
            |text| date(text).map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        for bad in
            ["", "soon", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT", "a, b Jan c d:e:f GMT"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn probabilities_of_the_letter_are_the_vote() {
        let token = |json: Value| serde_json::from_value::<Token>(json).unwrap();
        let alternative = |text: &str, p: f64| json!({"token": text, "logprob": p.ln()});
        let tokens = [
            token(json!({"token": "\n", "logprob": -0.1})),
            token(json!({"token": " B", "logprob": -0.5, "top_logprobs":
                [alternative(" B", 0.5), alternative("B", 0.1), alternative("A", 0.2), alternative("x", 0.2)]})),
        ];
        assert!((share_of_tokens(&tokens).unwrap() - 0.75).abs() < 1e-12);
        let alone = [token(json!({"token": "A", "logprob": 0.8_f64.ln()}))];
        assert!((share_of_tokens(&alone).unwrap() - 0.2).abs() < 1e-12);
        // Neither was likely: a grammar may have forced the letter.
        let forced =
            [token(json!({"token": "A", "logprob": -9.0, "top_logprobs": [alternative("A", 0.01)]}))];
        assert_eq!(share_of_tokens(&forced), None);
        assert_eq!(share_of_tokens(&[]), None);
    }

    #[test]
    fn keys_do_not_leave() {
        let mut options = ChatOptions::new("http://example.com/v1", "m");
        options.key = Some(ApiKey("sk-secret".into()));
        assert!(!format!("{options:?}").contains("secret"));
        assert!(ChatJudge::new(options.clone()).err().unwrap().to_string().contains("https"));
        options.base = "http://localhost:1/v1".into();
        let judge = ChatJudge::new(options).unwrap();
        assert_eq!(judge.shown("Wrong key: sk-secret!"), "Wrong key: ***!");
    }

    #[test]
    fn what_cannot_be_used_is_refused_at_once() {
        for base in ["", "x", "ftp://a/v1", "http://", "http://me:pw@a/v1", "https://a/v1?key=1"] {
            assert!(ChatJudge::new(ChatOptions::new(base, "m")).is_err(), "{base}");
        }
        assert!(ChatJudge::new(ChatOptions::new("https://a/v1", "")).is_err());
    }
}
