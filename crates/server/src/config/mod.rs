//! The configuration: a TOML file, then the environment, then flags; checked as a whole before anything starts.

mod duration;
mod layers;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use layers::Layers;

use crate::cascade::Plan;

type Plans = BTreeMap<String, Arc<Plan>>;

/// What is wrong with the configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// The key, as it is written in the file (`queue.max_wait`), or the file.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen: `host:port`, or `unix:` and a path.
    pub listen: Vec<String>,
    /// The model for requests that name none.
    pub default_model: String,
    /// Whether there is a page at `/` to try it.
    pub playground: bool,
    /// Whether `/metrics` answers those too who have no key.
    pub open_metrics: bool,
    /// Whether names of models that are not known are the default model's.
    pub any_model_name: bool,
    /// Models by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// Cascades by name: the file of each.
    pub cascades: BTreeMap<String, String>,
    /// Other names of models and cascades, as clients know them: `"rerank-v3.5" = "default"`.
    pub names: BTreeMap<String, String>,
    /// What is accepted.
    pub limits: Limits,
    /// Who waits, and how long.
    pub queue: QueueConfig,
    /// How long a client waits.
    pub deadline: DeadlineConfig,
    /// Scores that are kept.
    pub cache: CacheConfig,
    /// How it is known that models are what they were.
    pub health: HealthConfig,
    /// How it ends.
    pub drain: DrainConfig,
    /// Encryption.
    pub tls: TlsConfig,
    /// Pages of other origins.
    pub cors: CorsConfig,
    /// What is logged.
    pub log: LogConfig,
    /// Where traces go.
    pub trace: TraceConfig,
    /// Who may ask; everybody, if empty.
    pub keys: Vec<KeyConfig>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder, a bundle, a hub id, or `default` for the embedded model.
    pub source: String,
    /// `auto`, `f32`, `bf16` or `int8`.
    pub precision: String,
    /// Threads; 0 for one on each core.
    pub threads: usize,
    /// The longest pair in tokens; 0 for the model's own.
    pub max_length: usize,
    /// The calibration, if it does not lie beside the model.
    pub calibration: String,
    /// `start`, or `demand`: when the first request names it.
    pub load: Load,
}

/// When a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// Before the server is ready.
    Start,
    /// When a request names it.
    Demand,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// What is accepted. Whatever is beyond is refused before it costs anything.
    Limits {
        /// Bytes of a request's body.
        body_bytes: usize = 32 << 20,
        /// Bytes of all bodies that are being read or worked on.
        all_bodies_bytes: usize = 512 << 20,
        /// Documents, or pairs, of a request.
        documents: usize = 10_000,
        /// Bytes of a query.
        query_bytes: usize = 64 << 10,
        /// Bytes of a document.
        document_bytes: usize = 4 << 20,
        /// Arrays and objects within each other in a body.
        json_depth: usize = 32,
        /// Connections at a time.
        connections: usize = 4096,
        /// Streams of an HTTP/2 connection at a time.
        streams: u32 = 256,
        /// Time for the head of a request, from the end of the one before: idle connections are closed after it.
        #[serde(with = "duration")]
        header_timeout: Duration = Duration::from_secs(60),
        /// Time for a body.
        #[serde(with = "duration")]
        body_timeout: Duration = Duration::from_secs(30),
        /// Time in which a client must take some of its answer.
        #[serde(with = "duration")]
        write_timeout: Duration = Duration::from_secs(30),
        /// Memory of all models together; 0 for no limit.
        models_bytes: u64 = 0,
    }
}

section! {
    /// Who waits, and how long.
    QueueConfig {
        /// A request that would have to wait longer is refused.
        #[serde(with = "duration")]
        max_wait: Duration = Duration::from_secs(5),
        /// The same for those that say that they are in no hurry.
        #[serde(with = "duration")]
        max_wait_slow: Duration = Duration::from_secs(60),
        /// The same for those that say that they are.
        #[serde(with = "duration")]
        max_wait_fast: Duration = Duration::from_secs(1),
        /// Requests that wait for a model.
        max_requests: usize = 2048,
        /// Tokens that wait for a model.
        max_tokens: usize = 8 << 20,
        /// How long a batch should take: priorities, deadlines and clients that leave count between batches.
        #[serde(with = "duration")]
        batch_time: Duration = Duration::from_millis(10),
    }
}

section! {
    /// How long a client waits, if it does not say.
    DeadlineConfig {
        /// If a request names none.
        #[serde(with = "duration")]
        default: Duration = Duration::from_secs(60),
        /// If it names a longer one.
        #[serde(with = "duration")]
        max: Duration = Duration::from_secs(600),
    }
}

section! {
    /// Scores that are kept. Off unless a number is given: whoever can measure time can learn whether a pair was asked for before.
    CacheConfig {
        /// Scores for each model.
        scores: u64 = 0,
    }
}

section! {
    /// How it is known that models are what they were.
    HealthConfig {
        /// Time from one self-check to the next; 0 for none.
        #[serde(with = "duration")]
        self_check: Duration = Duration::from_secs(300),
    }
}

section! {
    /// How the server ends.
    DrainConfig {
        /// Time for requests that were accepted.
        #[serde(with = "duration")]
        limit: Duration = Duration::from_secs(30),
        /// Time from being not ready to taking no more connections, for load balancers to notice.
        #[serde(with = "duration")]
        delay: Duration = Duration::ZERO,
    }
}

section! {
    /// Encryption of TCP connections. Off without a certificate.
    TlsConfig {
        /// The certificate chain, PEM.
        certificate: String = String::new(),
        /// Its private key, PEM.
        key: String = String::new(),
    }
}

section! {
    /// Which pages of other origins may ask.
    CorsConfig {
        /// Origins, such as `https://example.org`; `*` for any; none if empty.
        origins: Vec<String> = Vec::new(),
    }
}

section! {
    /// What is logged.
    LogConfig {
        /// `json` or `text`.
        format: String = "json".into(),
        /// `error`, `warn`, `info`, `debug` or `trace`; or a filter such as `info,jointly_server=debug`.
        level: String = "info".into(),
        /// Whether queries and the beginnings of documents are logged (at `debug`).
        user_text: bool = false,
    }
}

section! {
    /// Where traces go.
    TraceConfig {
        /// The OTLP (gRPC) endpoint, such as `http://localhost:4317`; none if empty.
        otlp: String = String::new(),
        /// What this server is called there.
        service: String = "jointly".into(),
    }
}

/// Who may ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// What it is called in logs and metrics.
    pub name: String,
    /// The SHA-256 of the key, in hexadecimal: `jointly serve --hash-key`.
    pub sha256: String,
    /// Tokens a minute; 0 for as many as there is room for.
    #[serde(default)]
    pub tokens_per_minute: u64,
    /// Requests a minute; 0 for as many as there is room for.
    #[serde(default)]
    pub requests_per_minute: u64,
    /// Whether it may reload the configuration.
    #[serde(default)]
    pub admin: bool,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            source: "default".into(),
            precision: "auto".into(),
            threads: 0,
            max_length: 0,
            calibration: String::new(),
            load: Load::Start,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:8787".into()],
            default_model: "default".into(),
            playground: true,
            open_metrics: false,
            any_model_name: false,
            models: BTreeMap::from([("default".to_string(), ModelConfig::default())]),
            cascades: BTreeMap::new(),
            names: BTreeMap::new(),
            limits: Limits::default(),
            queue: QueueConfig::default(),
            deadline: DeadlineConfig::default(),
            cache: CacheConfig::default(),
            health: HealthConfig::default(),
            drain: DrainConfig::default(),
            tls: TlsConfig::default(),
            cors: CorsConfig::default(),
            log: LogConfig::default(),
            trace: TraceConfig::default(),
            keys: Vec::new(),
        }
    }
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host:port` or `unix:path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(format!("{text:?} names no path")),
                path => Ok(Self::Unix(path.into())),
            };
        }
        use std::net::ToSocketAddrs;
        let mut found = text
            .to_socket_addrs()
            .map_err(|error| format!("{text:?} is neither host:port nor unix:path: {error}"))?;
        found.next().map(Self::Tcp).ok_or_else(|| format!("{text:?} has no address"))
    }
}

impl Config {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |place: &str, problem: String| Err(ConfigError::new(place, problem));
        if self.listen.is_empty() {
            return wrong("listen", "no address; give at least one, such as \"127.0.0.1:8787\"".into());
        }
        for (i, address) in self.listen.iter().enumerate() {
            Address::parse(address).map_err(|problem| ConfigError::new(format!("listen[{i}]"), problem))?;
        }
        if self.models.is_empty() {
            return wrong("models", "no model; give one, such as [models.default]".into());
        }
        if !self.has(&self.default_model) {
            let known: Vec<&String> = self.models.keys().chain(self.cascades.keys()).collect();
            return wrong("default_model", format!("{:?} is not one of {known:?}", self.default_model));
        }
        for (name, model) in &self.models {
            if model.source.is_empty() {
                return wrong(&format!("models.{name}.source"), "is empty".into());
            }
            if model.threads > 1024 {
                return wrong(&format!("models.{name}.threads"), format!("{}; at most 1024", model.threads));
            }
            if !["auto", "f32", "bf16", "f16", "int8"].contains(&model.precision.as_str()) {
                let problem = format!("{:?} is none of auto, f32, bf16, f16, int8", model.precision);
                return wrong(&format!("models.{name}.precision"), problem);
            }
        }
        for (name, model) in &self.names {
            if !self.has(model) {
                return wrong(&format!("names.{name:?}"), format!("there is no model {model:?}"));
            }
        }
        self.read_cascades()?;
        self.check_numbers()?;
        if self.tls.certificate.is_empty() != self.tls.key.is_empty() {
            return wrong("tls", "certificate and key belong together; one of them is missing".into());
        }
        if !["json", "text"].contains(&self.log.format.as_str()) {
            return wrong("log.format", format!("{:?} is neither json nor text", self.log.format));
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log.level) {
            return wrong("log.level", format!("{:?}: {error}", self.log.level));
        }
        if !self.trace.otlp.is_empty() && self.trace.otlp.parse::<http::Uri>().is_err() {
            return wrong("trace.otlp", format!("{:?} is not a URL", self.trace.otlp));
        }
        self.check_keys()
    }

    fn has(&self, name: &str) -> bool {
        self.models.contains_key(name) || self.cascades.contains_key(name)
    }

    /// Reads the files of the cascades. Gives all models too: those of the configuration, and what the files name besides.
    pub(crate) fn read_cascades(&self) -> Result<(BTreeMap<String, ModelConfig>, Plans), ConfigError> {
        let mut models = self.models.clone();
        let mut plans = Plans::new();
        for (name, path) in &self.cascades {
            let wrong = |problem: String| ConfigError::new(format!("cascades.{name}"), problem);
            if self.models.contains_key(name) {
                return Err(wrong("there is a model of this name too".into()));
            }
            let plan = Plan::read(name, path, &mut models).map_err(wrong)?;
            plans.insert(name.clone(), Arc::new(plan));
        }
        Ok((models, plans))
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let least = [
            ("limits.body_bytes", limits.body_bytes, 1024),
            ("limits.all_bodies_bytes", limits.all_bodies_bytes, limits.body_bytes),
            ("limits.documents", limits.documents, 1),
            ("limits.query_bytes", limits.query_bytes, 1),
            ("limits.document_bytes", limits.document_bytes, 1),
            ("limits.json_depth", limits.json_depth, 4),
            ("limits.connections", limits.connections, 1),
            ("limits.streams", limits.streams as usize, 1),
            ("queue.max_requests", self.queue.max_requests, 1),
            ("queue.max_tokens", self.queue.max_tokens, 1024),
        ];
        for (place, found, least) in least {
            if found < least {
                return Err(ConfigError::new(place, format!("{found}; at least {least}")));
            }
        }
        if limits.all_bodies_bytes > u32::MAX as usize {
            return Err(ConfigError::new("limits.all_bodies_bytes", "4 GiB at most"));
        }
        // The parser has a limit of its own, beyond which it does not go.
        if limits.json_depth > 100 {
            return Err(ConfigError::new("limits.json_depth", format!("{}; at most 100", limits.json_depth)));
        }
        let positive = [
            ("limits.header_timeout", limits.header_timeout),
            ("limits.body_timeout", limits.body_timeout),
            ("limits.write_timeout", limits.write_timeout),
            ("queue.batch_time", self.queue.batch_time),
            ("deadline.default", self.deadline.default),
            ("deadline.max", self.deadline.max),
        ];
        match positive.iter().find(|(_, duration)| duration.is_zero()) {
            Some((place, _)) => Err(ConfigError::new(*place, "must be more than 0")),
            None => Ok(()),
        }
    }

    fn check_keys(&self) -> Result<(), ConfigError> {
        let mut names = HashSet::new();
        for (i, key) in self.keys.iter().enumerate() {
            let wrong =
                |field: &str, problem: String| Err(ConfigError::new(format!("keys[{i}].{field}"), problem));
            if key.name.is_empty() || key.name.len() > 64 {
                return wrong("name", "has from 1 to 64 bytes".into());
            }
            if !names.insert(&key.name) {
                return wrong("name", format!("{:?} is there twice", key.name));
            }
            if key.sha256.len() != 64 || !key.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                // Not shown: it may be the key itself.
                return wrong(
                    "sha256",
                    "is not 64 hexadecimal digits; make it with `jointly serve --hash-key`".into(),
                );
            }
        }
        Ok(())
    }

    /// As TOML, all defaults written out.
    ///
    /// # Errors
    /// If it cannot be written so, which is a bug.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::new("configuration", error.to_string()))
    }
}

#[cfg(test)]
mod tests;
