//! Who asks: API keys, hashed at rest, each with its quota.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::KeyConfig;
use crate::{Failure, FailureKind};

/// The headers that a key may come in, beside `Authorization: Bearer`.
const HEADERS: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];

/// Quotas are filled up for so long at most: a client that was silent may send as much at once.
const BURST: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Debug)]
pub struct Client {
    /// The name of the key; `anonymous` if there are no keys.
    pub name: Arc<str>,
    /// Whether it may reload the configuration.
    pub is_admin: bool,
    hash: [u8; 32],
    quota: Mutex<Quota>,
}

/// What a client may still spend, where that has a limit.
#[derive(Debug)]
struct Quota {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// What may still be spent.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_minute: u64) -> Option<Self> {
        let per_second = per_minute as f64 / 60.0;
        let most = per_second * BURST.as_secs_f64();
        (per_minute > 0).then(|| Self { per_second, most, left: most, at: Instant::now() })
    }

    /// Whether there is `amount`, which may be more than there ever is: then the bucket must be full, and what is missing is owed.
    /// If not, the time until there is.
    fn has(&mut self, amount: f64, now: Instant) -> Result<(), Duration> {
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * self.per_second).min(self.most);
        self.at = now;
        let missing = amount.min(self.most) - self.left;
        if missing > 1e-9 { Err(Duration::from_secs_f64(missing / self.per_second)) } else { Ok(()) }
    }
}

impl Client {
    fn new(key: &KeyConfig) -> Self {
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(key.sha256.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16).unwrap_or_default(); // the configuration was checked
        }
        Self {
            name: key.name.as_str().into(),
            is_admin: key.admin,
            hash,
            quota: Mutex::new(Quota {
                requests: Bucket::new(key.requests_per_minute),
                tokens: Bucket::new(key.tokens_per_minute),
            }),
        }
    }

    fn quota(&self) -> MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request of so many tokens out of the client's quota; nothing of it, if there is not enough of both.
    ///
    /// # Errors
    /// [`FailureKind::QuotaExceeded`], with the time until there is enough.
    pub fn spend(&self, tokens: usize) -> Result<(), Failure> {
        let now = Instant::now();
        let refuse = |what: &str, wait| {
            let message = format!("the quota of {what} a minute of this key is used up");
            Failure::new(FailureKind::QuotaExceeded, message).retry_after(wait)
        };
        let mut quota = self.quota();
        let Quota { requests, tokens: of_tokens } = &mut *quota;
        let mut buckets = [("requests", requests, 1.0), ("tokens", of_tokens, tokens as f64)];
        for (what, bucket, amount) in &mut buckets {
            if let Some(bucket) = bucket {
                bucket.has(*amount, now).map_err(|wait| refuse(what, wait))?;
            }
        }
        for (_, bucket, amount) in buckets {
            if let Some(bucket) = bucket {
                bucket.left -= amount;
            }
        }
        Ok(())
    }
}

/// All who may ask.
#[derive(Debug)]
pub struct Clients {
    clients: Vec<Arc<Client>>,
    anonymous: Arc<Client>,
}

impl Clients {
    /// Those of the configuration; everybody, if there are none.
    #[must_use]
    pub fn new(keys: &[KeyConfig]) -> Self {
        let anonymous = KeyConfig {
            name: "anonymous".into(),
            sha256: String::new(),
            tokens_per_minute: 0,
            requests_per_minute: 0,
            admin: false,
        };
        Self {
            clients: keys.iter().map(|key| Arc::new(Client::new(key))).collect(),
            anonymous: Arc::new(Client::new(&anonymous)),
        }
    }

    /// As [`Clients::new`], with what is left of the quotas of those that stay as they were.
    #[must_use]
    pub fn renewed(&self, keys: &[KeyConfig]) -> Self {
        let mut new = Self::new(keys);
        for client in &mut new.clients {
            let same = |old: &&Arc<Client>| {
                let rates = |client: &Client| {
                    let quota = client.quota();
                    [&quota.requests, &quota.tokens].map(|bucket| bucket.as_ref().map(|b| b.per_second))
                };
                old.name == client.name
                    && old.hash == client.hash
                    && old.is_admin == client.is_admin
                    && rates(old) == rates(client)
            };
            if let Some(old) = self.clients.iter().find(same) {
                *client = Arc::clone(old);
            }
        }
        new
    }

    /// Who sends these headers. `own` is the key that the dialect finds in them, if it does. All hashes are compared, each in
    /// constant time.
    ///
    /// # Errors
    /// [`FailureKind::Unauthorized`] if there are keys, and none of them is there.
    pub fn who(&self, headers: &HeaderMap, own: Option<&str>) -> Result<&Arc<Client>, Failure> {
        if self.clients.is_empty() {
            return Ok(&self.anonymous);
        }
        let own = own.filter(|key| !key.is_empty()).map(str::as_bytes);
        let given = own
            .or_else(|| given(headers))
            .ok_or_else(|| Failure::new(FailureKind::Unauthorized, "no api key supplied"))?;
        let hash: [u8; 32] = Sha256::digest(given).into();
        let mut found = None;
        for client in &self.clients {
            let is_same: Choice = client.hash.ct_eq(&hash);
            if bool::from(is_same) {
                found = Some(client);
            }
        }
        found.ok_or_else(|| Failure::new(FailureKind::Unauthorized, "invalid api key"))
    }
}

/// The key that a request brings.
fn given(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer =
        headers.get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes).and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
        });
    bearer
        .or_else(|| HEADERS.iter().find_map(|name| headers.get(*name)).map(http::HeaderValue::as_bytes))
        .filter(|key| !key.is_empty())
}

/// The hash of a key, as the configuration holds it.
#[must_use]
pub fn hash_key(key: &str) -> String {
    use std::fmt::Write;
    Sha256::digest(key.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // to a String, which cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, secret: &str, requests_per_minute: u64) -> KeyConfig {
        let sha256 = hash_key(secret);
        KeyConfig { name: name.into(), sha256, tokens_per_minute: 600, requests_per_minute, admin: false }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_key_is_found_in_each_header_and_no_other_is() {
        let clients = Clients::new(&[key("a", "one", 0), key("b", "two", 0)]);
        for (name, value) in [
            ("authorization", "Bearer two"),
            ("authorization", "bearer  two"),
            ("x-api-key", "two"),
            ("api-key", "two"),
        ] {
            assert_eq!(&*clients.who(&headers(name, value), None).unwrap().name, "b", "{name}: {value}");
        }
        for (name, value) in [
            ("authorization", "Bearer three"),
            ("authorization", "two"),
            ("authorization", "Bearer "),
            ("x", "two"),
        ] {
            let failure = clients.who(&headers(name, value), None).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Unauthorized, "{name}: {value}");
        }
        assert!(Clients::new(&[]).who(&HeaderMap::new(), None).is_ok());
    }

    #[test]
    fn a_quota_is_spent_and_comes_back() {
        let mut bucket = Bucket::new(60).unwrap();
        let start = bucket.at;
        let mut spend = |amount, seconds| {
            let result = bucket.has(amount, start + Duration::from_secs(seconds));
            bucket.left -= if result.is_ok() { amount } else { 0.0 };
            result
        };
        assert_eq!(spend(60.0, 0), Ok(()));
        assert_eq!(spend(2.0, 0), Err(Duration::from_secs(2)));
        assert_eq!(spend(2.0, 2), Ok(()));
        // More than there ever is, once the bucket is full; it is owed.
        assert_eq!(spend(90.0, 100), Ok(()));
        assert!(spend(1.0, 130).is_err());
    }

    #[test]
    fn a_request_that_is_refused_for_its_tokens_is_not_counted_as_one() {
        let clients = Clients::new(&[key("a", "one", 2)]);
        let client = Arc::clone(clients.who(&headers("x-api-key", "one"), None).unwrap());
        client.spend(500).unwrap();
        for _ in 0..5 {
            let failure = client.spend(500).unwrap_err();
            assert!(failure.message.contains("tokens"), "{failure}");
        }
        client.spend(1).unwrap();
        let failure = client.spend(1).unwrap_err();
        assert!(failure.message.contains("requests"), "{failure}");
    }

    #[test]
    fn a_reload_fills_no_quota_up() {
        let keys = [key("a", "one", 2)];
        let clients = Clients::new(&keys);
        let who = |clients: &Clients| Arc::clone(clients.who(&headers("x-api-key", "one"), None).unwrap());
        who(&clients).spend(1).unwrap();
        who(&clients).spend(1).unwrap();
        assert!(who(&clients.renewed(&keys)).spend(1).is_err());
        assert!(who(&clients.renewed(&[key("a", "one", 3)])).spend(1).is_ok());
    }
}
