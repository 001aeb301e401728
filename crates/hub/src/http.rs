//! One request with its redirects, and what to do about its failure.

use std::io::Read;
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::{Error, HubOptions, Progress, Result};

/// An answer in JSON is read into memory; the largest real one has some hundred kilobytes.
const MAX_JSON_BYTES: u64 = 16 << 20;
const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Speaks to one endpoint.
pub(crate) struct Client<'a> {
    agent: Agent,
    pub options: &'a HubOptions,
    /// Without a `/` at its end.
    pub endpoint: String,
    origin: Origin,
}

/// Scheme, host and port: the token goes to no other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// An answer, and where it came from.
pub(crate) struct Answer {
    pub response: Response<Body>,
    /// Whether it came from another origin than the endpoint's.
    pub foreign: bool,
}

/// Why a request did not give an answer.
pub(crate) enum Failure {
    /// Worth another attempt, after what the server asks for.
    Again { reason: String, after: Option<Duration> },
    /// Not worth another attempt.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// From which byte on, and only if the content still has this entity tag.
#[derive(Clone, Copy)]
pub(crate) struct Resume<'a> {
    pub from: u64,
    pub if_range: Option<&'a str>,
}

impl<'a> Client<'a> {
    pub fn new(options: &'a HubOptions) -> Result<Self> {
        let endpoint = options.endpoint.trim_end_matches('/').to_owned();
        let bad = |reason| Error::BadEndpoint { endpoint: options.endpoint.clone(), reason };
        let uri: Uri = endpoint.parse().map_err(|_| bad("not a URL"))?;
        let origin = Origin::of(&uri).ok_or_else(|| bad("not an http or https URL with a host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(Error::BadEndpoint {
                // Without the password.
                endpoint: format!("{}://...", origin.scheme),
                reason: "it has a user name in it; use a token",
            });
        }
        if uri.query().is_some() {
            return Err(bad("it has a query"));
        }
        if let Some(token) = &options.token
            && !token.bytes().all(|c| c.is_ascii_graphic())
        {
            return Err(Error::BadToken);
        }
        let mut config = Agent::config_builder()
            // Followed here, so that the token stays with the endpoint.
            .max_redirects(0)
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(options.user_agent.as_str())
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(options.idle_timeout))
            .timeout_per_read(Some(options.idle_timeout));
        if !options.proxy_from_env {
            config = config.proxy(None);
        }
        if let Some(path) = &options.certificates {
            config = config.tls_config(TlsConfig::builder().root_certs(read_certificates(path)?).build());
        }
        Ok(Self { agent: config.build().into(), options, endpoint, origin })
    }

    /// Makes one request and follows its redirects.
    pub fn send(
        &self,
        method: &Method,
        url: &str,
        resume: Option<Resume<'_>>,
    ) -> std::result::Result<Answer, Failure> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let bad = |reason: &str| Error::BadAnswer { url: shown(&url), reason: reason.to_owned() };
            let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
            let origin = Origin::of(&uri).ok_or_else(|| bad("not an http or https URL"))?;
            let foreign = origin != self.origin;
            if foreign && self.origin.scheme == "https" && origin.scheme != "https" {
                return Err(
                    Error::Redirect { url: shown(&url), reason: "redirect from https to http" }.into()
                );
            }
            let mut request = Request::builder().method(method).uri(&url);
            if let (Some(token), false) = (&self.options.token, foreign) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(resume) = resume {
                request = request.header(header::RANGE, format!("bytes={}-", resume.from));
                if let Some(tag) = resume.if_range {
                    request = request.header(header::IF_RANGE, tag);
                }
            }
            let request = request.body(()).map_err(|_| bad("not a URL"))?;
            let response = self.agent.run(request).map_err(|error| failure(&url, &error))?;
            let status = response.status();
            if !(status.is_redirection() && response.headers().contains_key(header::LOCATION)) {
                return Ok(Answer { response, foreign });
            }
            let location = text(response.headers(), header::LOCATION.as_str())
                .ok_or_else(|| bad("the redirect's location is not text"))?;
            // The hub states what it redirects to; a HEAD request asks for just that.
            if *method == Method::HEAD && response.headers().contains_key("x-linked-etag") {
                return Ok(Answer { response, foreign });
            }
            url = join(&uri, location).ok_or_else(|| bad("the redirect's location is not a URL"))?;
        }
        Err(Error::Redirect { url: shown(&url), reason: "more than 10 redirects" }.into())
    }

    /// Makes a request until the server answers it with something else than a passing failure.
    pub fn send_patiently(&self, method: &Method, url: &str, progress: &mut dyn Progress) -> Result<Answer> {
        let mut attempt = 0;
        loop {
            let sent = self.send(method, url, None).and_then(|answer| match passing(&answer) {
                Some(again) => Err(again),
                None => Ok(answer),
            });
            match sent {
                Ok(answer) => return Ok(answer),
                Err(again) => self.wait(url, again, &mut attempt, progress)?,
            }
        }
    }

    /// Asks for a JSON answer and reads it, tried again as a whole if the connection is cut.
    pub fn json(&self, url: &str, progress: &mut dyn Progress) -> Result<(StatusCode, HeaderMap, Vec<u8>)> {
        let mut attempt = 0;
        loop {
            let answer = self.send_patiently(&Method::GET, url, progress)?;
            let (parts, body) = answer.response.into_parts();
            let mut bytes = Vec::new();
            match body.into_reader().take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 > MAX_JSON_BYTES => {
                    return Err(Error::AnswerTooLarge { url: shown(url), limit: MAX_JSON_BYTES });
                }
                Ok(_) => return Ok((parts.status, parts.headers, bytes)),
                Err(error) => {
                    let again = Failure::Again { reason: error.to_string(), after: None };
                    self.wait(url, again, &mut attempt, progress)?;
                }
            }
        }
    }

    /// Counts a failure, and waits before the next attempt, or gives up.
    pub fn wait(
        &self,
        url: &str,
        failure: Failure,
        attempt: &mut u32,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let (reason, after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Again { reason, after } => (reason, after),
        };
        *attempt += 1;
        let backoff = self.options.backoff;
        if *attempt >= backoff.attempts {
            return Err(Error::Network { url: shown(url), attempts: *attempt, reason });
        }
        progress.retrying(*attempt, &reason);
        let doubled = backoff.first.saturating_mul(1 << (*attempt - 1).min(16));
        thread::sleep(after.unwrap_or(doubled).max(doubled).min(backoff.longest));
        Ok(())
    }
}

/// Whether the server's answer is a failure that may pass.
pub(crate) fn passing(answer: &Answer) -> Option<Failure> {
    let status = answer.response.status();
    let expired = answer.foreign && status == StatusCode::FORBIDDEN;
    if !(status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        // A signed link to another host lives some minutes; the endpoint gives a new one.
        || expired)
    {
        return None;
    }
    let after = text(answer.response.headers(), header::RETRY_AFTER.as_str())
        .and_then(|value| value.trim().parse().ok())
        .map(Duration::from_secs);
    Some(Failure::Again { reason: format!("status {}", status.as_u16()), after })
}

/// A header as text.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// A URL as it may be shown: its query may be a signature.
pub(crate) fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

fn failure(url: &str, error: &ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::Again { reason: "timed out".to_owned(), after: None },
        ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            Failure::Final(Error::BadAnswer { url: shown(url), reason: error.to_string() })
        }
        _ => Failure::Again { reason: error.to_string(), after: None },
    }
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { port: uri.port_u16().unwrap_or(default), scheme, host })
    }
}

/// `location` as seen from `base`.
fn join(base: &Uri, location: &str) -> Option<String> {
    let location = location.trim();
    let lower = location.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return Some(location.to_owned());
    }
    let scheme = base.scheme_str()?;
    if location.starts_with("//") {
        return Some(format!("{scheme}:{location}"));
    }
    let authority = base.authority()?;
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    // Any other scheme, or a relative path, which no such server sends.
    None
}

fn read_certificates(path: &std::path::Path) -> Result<RootCerts> {
    let pem = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Error::BadCertificates { path: path.to_path_buf() });
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_targets() {
        let base: Uri = "http://a:1/x/y?z".parse().unwrap();
        for (location, expected) in [
            ("https://b/c?d", Some("https://b/c?d")),
            ("//b/c", Some("http://b/c")),
            ("/c", Some("http://a:1/c")),
            ("file:///etc/passwd", None),
            ("c", None),
        ] {
            assert_eq!(join(&base, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn origins() {
        let of = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(of("https://A.b/x"), of("https://a.b:443/y"));
        assert_ne!(of("https://a.b"), of("http://a.b"));
        assert_ne!(of("http://a.b"), of("http://a.b:8080"));
        assert_ne!(of("http://a.b"), of("http://a.b.c"));
        assert_eq!(of("ftp://a"), None);
    }

    #[test]
    fn signatures_are_not_shown() {
        assert_eq!(shown("https://a/b?X-Signature=1#c"), "https://a/b");
    }
}
