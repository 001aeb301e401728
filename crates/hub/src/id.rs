use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Error, Result};

/// The hub's own limit for a whole id.
const MAX_ID_BYTES: usize = 96;

/// Id of a model: `org/name`, or `name` alone for the oldest ones. Holding one proves that it is safe as a path and in
/// a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubId(String);

impl HubId {
    /// The id as the hub writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its folder in the cache: `models--org--name`.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HubId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse_id(text)
    }
}

/// Reads a model id. The rules are the hub's: at most 96 bytes and one `/`; letters, digits, `-`, `_` and `.`; no part
/// begins or ends with `-` or `.`; neither `--` nor `..`; no `.git` at the end.
///
/// # Errors
/// [`Error::BadId`].
pub fn parse_id(text: &str) -> Result<HubId> {
    let bad = |reason| Err(Error::BadId { id: text.chars().take(MAX_ID_BYTES + 1).collect(), reason });
    if text.is_empty() {
        return bad("it is empty");
    }
    if text.len() > MAX_ID_BYTES {
        return bad("it has more than 96 bytes");
    }
    if text.split('/').count() > 2 {
        return bad("it has more than one /");
    }
    // `--` stands for `/` in the cache's folder names.
    if text.contains("--") || text.contains("..") {
        return bad("it contains -- or ..");
    }
    if text.ends_with(".git") {
        return bad("it ends with .git");
    }
    for part in text.split('/') {
        if part.is_empty() {
            return bad("a part is empty");
        }
        if !part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
            return bad("only letters, digits, -, _ and . are allowed");
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return bad("a part begins or ends with - or .");
        }
    }
    Ok(HubId(text.to_owned()))
}

/// What a user's name for a model says about where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A folder or a bundle.
    Path(PathBuf),
    /// A model of the hub.
    Id(HubId),
}

/// A path that exists is that path; any other name is an id, unless it looks like a path.
///
/// # Errors
/// [`Error::NoSuchModel`].
pub fn named(name: &str) -> Result<Named> {
    if Path::new(name).exists() {
        return Ok(Named::Path(name.into()));
    }
    let none = |reason| Error::NoSuchModel { name: name.to_owned(), reason };
    if name.starts_with(['.', '/', '~']) || name.contains('\\') {
        return Err(none(None));
    }
    parse_id(name).map(Named::Id).map_err(|error| none(Some(Box::new(error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(named(".").unwrap(), Named::Path(".".into()));
        assert_eq!(named("BAAI/bge").unwrap(), Named::Id(parse_id("BAAI/bge").unwrap()));
        for (name, said) in [
            ("./nowhere", "./nowhere: there is no such folder or bundle"),
            ("~/m", "~/m: there is no such folder or bundle"),
            (
                "a/b/c",
                "a/b/c: there is no such folder or bundle, and it is not a hub id: \"a/b/c\" is not a model id: it has more than one /",
            ),
        ] {
            assert_eq!(named(name).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn ids() {
        for id in ["bert-base-uncased", "BAAI/bge-reranker-v2-m3", "a/b.c_d-1"] {
            assert_eq!(parse_id(id).unwrap().to_string(), id);
        }
        assert_eq!(parse_id("a/b").unwrap().folder(), "models--a--b");
        assert_eq!(parse_id("b").unwrap().folder(), "models--b");
        let long = "a".repeat(97);
        for id in [
            "", "/", "a/", "/a", "a/b/c", "../a", "a/..", ".", "a/.b", "a--b", "a b", "a\\b", "a%2fb", "é/b",
            "a/b.git", "a\0", "-a", "a?b", "a#b", "a@b", "c:/x", &long,
        ] {
            assert!(matches!(parse_id(id), Err(Error::BadId { .. })), "{id:?}");
        }
    }
}
