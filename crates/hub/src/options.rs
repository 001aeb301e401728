use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// A token has some forty characters.
const MAX_TOKEN_BYTES: usize = 4096;

/// How often a request is made again, and how long is waited before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Attempts in a row without progress before it is an error; at least 1.
    pub attempts: u32,
    /// Wait after the first failure; doubles with each further one.
    pub first: Duration,
    /// The wait never exceeds this, even if the server asks for more.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

/// Where models are pulled from and kept.
#[derive(Clone)]
pub struct HubOptions {
    pub(crate) endpoint: String,
    pub(crate) cache_dir: PathBuf,
    pub(crate) token: Option<String>,
    pub(crate) offline: bool,
    pub(crate) backoff: Backoff,
    pub(crate) idle_timeout: Duration,
    pub(crate) proxy_from_env: bool,
    pub(crate) certificates: Option<PathBuf>,
    pub(crate) user_agent: String,
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            // The token must not reach a log.
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .field("backoff", &self.backoff)
            .field("idle_timeout", &self.idle_timeout)
            .field("proxy_from_env", &self.proxy_from_env)
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

impl HubOptions {
    /// The public hub, no token, nothing read from the environment.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            cache_dir: cache_dir.into(),
            token: None,
            offline: false,
            backoff: Backoff::default(),
            idle_timeout: Duration::from_secs(30),
            proxy_from_env: false,
            certificates: None,
            user_agent: concat!("jointly-hub/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// As `huggingface_hub` reads the environment: `HF_ENDPOINT`; `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in
    /// `XDG_CACHE_HOME/huggingface`, else in `~/.cache/huggingface`; `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else
    /// `token` in `HF_HOME`; `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`) of 1, true, yes or on. Also
    /// `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, and `REQUESTS_CA_BUNDLE` or `SSL_CERT_FILE` for the
    /// certificates to trust instead of the web's. An empty variable counts as absent.
    ///
    /// # Errors
    /// [`Error::NoHome`]; [`Error::Io`] if there is a token file that cannot be read.
    pub fn from_env() -> Result<Self> {
        let mut options = Self::from_lookup(&|name| std::env::var(name).ok())?;
        options.proxy_from_env = true;
        Ok(options)
    }

    /// As [`HubOptions::from_env`] without the proxies, with the variables that `lookup` gives.
    ///
    /// # Errors
    /// As [`HubOptions::from_env`].
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| lookup(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let home = variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from);
        let path = |name: &str| variable(name).map(|value| expand(&value, home.as_deref()));

        let hf_home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.as_ref().map(|home| home.join(".cache/huggingface")));
        let cache_dir = path("HF_HUB_CACHE")
            .or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
            .ok_or(Error::NoHome)?;
        let token_path = path("HF_TOKEN_PATH").or_else(|| hf_home.map(|home| home.join("token")));
        let token = match (variable("HF_TOKEN"), token_path) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => read_token(&path)?,
            (None, None) => None,
        };
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
            .into_iter()
            .find_map(variable)
            .is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on"));

        let mut options = Self::new(cache_dir).offline(offline);
        options.token = token;
        options.certificates = path("REQUESTS_CA_BUNDLE").or_else(|| path("SSL_CERT_FILE"));
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            options.endpoint = endpoint;
        }
        Ok(options)
    }

    /// The server: `http` or `https`, a host, and a path if the layout does not begin at the top.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// The folder with the `models--...` folders.
    #[must_use]
    pub fn cache_dir(mut self, cache_dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = cache_dir.into();
        self
    }

    /// Sent to the endpoint, and to no other host that it redirects to.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Never open a connection; use the cache only.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// How failures are tried again.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How long the server may send nothing before the connection counts as cut. Default 30 s.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// A PEM file of the certificates to trust instead of the web's.
    #[must_use]
    pub fn certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.certificates = Some(path.into());
        self
    }

    /// What to call this program to the server. Default `jointly-hub` and its version.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// The folder with the `models--...` folders.
    #[must_use]
    pub fn cache_dir_path(&self) -> &Path {
        &self.cache_dir
    }

    /// Whether connections are forbidden.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.offline
    }
}

/// `~` at the beginning is the home folder.
fn expand(value: &str, home: Option<&Path>) -> PathBuf {
    match (value.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_path_buf(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(value),
    }
}

/// The token in the file, if there is one.
fn read_token(path: &Path) -> Result<Option<String>> {
    let error = |source| Error::Io { path: path.to_path_buf(), source };
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_TOKEN_BYTES as u64 => return Err(Error::BadToken),
        Ok(_) => {}
        Err(source) if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(error(source)),
    }
    let text = fs::read_to_string(path).map_err(error)?;
    Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<HubOptions> {
        HubOptions::from_lookup(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn cache_folders() {
        for (variables, expected) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")], "/h/hf/hub"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HOME", "/h"), ("HF_HOME", " ")], "/h/.cache/huggingface/hub"),
        ] {
            assert_eq!(with(variables).unwrap().cache_dir, Path::new(expected), "{variables:?}");
        }
        assert!(matches!(with(&[]), Err(Error::NoHome)));
    }

    #[test]
    fn offline_values() {
        for (value, expected) in [
            ("1", true),
            ("TRUE", true),
            ("yes", true),
            ("On", true),
            ("0", false),
            ("", false),
            ("no", false),
        ] {
            let options = with(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap();
            assert_eq!(options.is_offline(), expected, "{value}");
        }
    }

    #[test]
    fn tokens() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().to_str().unwrap();
        assert_eq!(with(&[("HF_HOME", home)]).unwrap().token, None);
        fs::write(root.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(with(&[("HF_HOME", home)]).unwrap().token.as_deref(), Some("hf_file"));
        assert_eq!(
            with(&[("HF_HOME", home), ("HF_TOKEN", "hf_env")]).unwrap().token.as_deref(),
            Some("hf_env")
        );
        let other = root.path().join("other");
        fs::write(&other, "hf_other").unwrap();
        let options = with(&[("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap())]).unwrap();
        assert_eq!(options.token.as_deref(), Some("hf_other"));
        assert!(!format!("{options:?}").contains("hf_other"));
    }
}
