//! The list of a revision's files, with the sizes and hashes to check them with.

use std::collections::BTreeSet;

use jointly_bundle::{NameFault, check_name, is_model_file};
use serde::Deserialize;
use ureq::http::{HeaderMap, Method, StatusCode};

use crate::http::{Client, shown, text};
use crate::{Error, HubId, Progress, Result, is_hex};

/// A repository with more files is no model; its list would still fit the answer's limit.
const MAX_SIBLINGS: usize = 20_000;
/// The largest published rerankers have about fifty.
const MAX_FILES: usize = 2_000;
/// Endings of weights that this project does not read, for the message that says so.
const OTHER_WEIGHTS: &[&str] = &["bin", "pt", "pth", "onnx", "gguf", "h5", "msgpack", "safetensors"];

/// The files of one commit that a reranker needs.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// In the order to fetch them: weights last, so that a snapshot that has its weights has everything.
    pub files: Vec<RemoteFile>,
}

/// One file, and how to know that it came right.
#[derive(Debug, Clone)]
pub(crate) struct RemoteFile {
    pub name: String,
    /// In bytes.
    pub size: u64,
    pub checksum: Checksum,
}

/// The hub states a hash of one of two kinds; its digits are the blob's name in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// Of the content: large files.
    Sha256(String),
    /// Git's blob hash: `blob {size}\0` and the content.
    GitSha1(String),
}

impl Checksum {
    pub fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitSha1(digits) => digits,
        }
    }

    fn of_digits(digits: &str) -> Option<Self> {
        if is_hex(digits, 64) {
            return Some(Self::Sha256(digits.to_owned()));
        }
        is_hex(digits, 40).then(|| Self::GitSha1(digits.to_owned()))
    }
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    blob_id: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    size: Option<u64>,
}

/// Asks for the commit and the files of a revision.
pub(crate) fn snapshot(
    client: &Client<'_>,
    id: &HubId,
    revision: &str,
    progress: &mut dyn Progress,
) -> Result<Snapshot> {
    let url = format!("{}/api/models/{id}/revision/{}?blobs=true", client.endpoint, encoded(revision, false));
    let (status, headers, body) = client.json(&url, progress)?;
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(absent(client, id, revision, &headers, progress)?),
        _ => return Err(refused(client, id, &url, status, &headers)),
    }
    let bad = |reason: String| Error::BadAnswer { url: shown(&url), reason };
    let info: ModelInfo = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    let commit = info
        .sha
        .filter(|sha| is_hex(sha, 40))
        .ok_or_else(|| bad("sha is not a commit of 40 hexadecimal digits".to_owned()))?;
    if info.siblings.len() > MAX_SIBLINGS {
        return Err(Error::TooManyFiles {
            id: id.to_string(),
            count: info.siblings.len(),
            limit: MAX_SIBLINGS,
        });
    }

    let mut names = BTreeSet::new();
    for sibling in &info.siblings {
        if let Err(fault) = check_name(&sibling.rfilename)
            // A server that sends a name that leads out is not to be trusted, whatever the file. Odd characters are
            // only a matter of the files that are fetched: training logs have colons.
            && (is_model_file(&sibling.rfilename)
                || !matches!(fault, NameFault::Character | NameFault::TooLong))
        {
            return Err(Error::BadFileName {
                id: id.to_string(),
                name: sibling.rfilename.chars().take(80).collect(),
                fault,
            });
        }
        if !names.insert(sibling.rfilename.as_str()) {
            return Err(bad(format!("{} stands twice in the list of files", sibling.rfilename)));
        }
    }
    if !names.iter().any(|name| is_entry_weights(name)) {
        let found = names.iter().filter(|name| is_other_weights(name)).take(8).map(|name| (*name).to_owned());
        return Err(Error::NoWeights { id: id.to_string(), found: found.collect() });
    }

    let wanted: Vec<&Sibling> = info.siblings.iter().filter(|s| is_model_file(&s.rfilename)).collect();
    if wanted.len() > MAX_FILES {
        return Err(Error::TooManyFiles { id: id.to_string(), count: wanted.len(), limit: MAX_FILES });
    }
    let mut files = Vec::with_capacity(wanted.len());
    for sibling in wanted {
        files.push(match remote_file(sibling) {
            Some(file) => file,
            None => ask_file(client, id, &commit, &sibling.rfilename, progress)?,
        });
    }
    files.sort_by(|a, b| order(&a.name).cmp(&order(&b.name)));
    Ok(Snapshot { commit, files })
}

/// `model.safetensors` or the index of its shards, at the top or in an old sentence-transformers module folder.
pub(crate) fn is_entry_weights(name: &str) -> bool {
    let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
    matches!(base, "model.safetensors" | "model.safetensors.index.json")
        && (folder.is_empty() || (folder.starts_with("0_") && !folder.contains('/')))
}

fn is_other_weights(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| OTHER_WEIGHTS.contains(&extension))
}

/// Sorts small files first, then the weights of modules, then the model's own.
fn order(name: &str) -> (bool, bool, &str) {
    let weights = name.ends_with(".safetensors");
    (weights, weights && (!name.contains('/') || is_entry_weights(name)), name)
}

/// What the list says of a file, if it says all that is needed.
fn remote_file(sibling: &Sibling) -> Option<RemoteFile> {
    let (size, digits) = match &sibling.lfs {
        // For these, `blobId` is the hash of the pointer that git keeps.
        Some(lfs) => (lfs.size.or(sibling.size)?, lfs.sha256.as_deref().or(lfs.oid.as_deref())?),
        None => (sibling.size?, sibling.blob_id.as_deref()?),
    };
    let checksum = Checksum::of_digits(digits.strip_prefix("sha256:").unwrap_or(digits))?;
    Some(RemoteFile { name: sibling.rfilename.clone(), size, checksum })
}

/// Some mirrors list names only; then the file's own headers say what it is.
fn ask_file(
    client: &Client<'_>,
    id: &HubId,
    commit: &str,
    name: &str,
    progress: &mut dyn Progress,
) -> Result<RemoteFile> {
    let url = file_url(client, id, commit, name);
    let answer = client.send_patiently(&Method::HEAD, &url, progress)?;
    let (status, headers) = (answer.response.status(), answer.response.headers());
    if !status.is_success() && !status.is_redirection() {
        return Err(refused(client, id, &url, status, headers));
    }
    let no_hash = || Error::NoHash { id: id.to_string(), file: name.to_owned() };
    let linked = text(headers, "x-linked-etag");
    let tag = linked.or_else(|| text(headers, "etag")).ok_or_else(no_hash)?;
    let digits = tag.trim_start_matches("W/").trim_matches('"');
    let size = text(headers, if linked.is_some() { "x-linked-size" } else { "content-length" });
    Ok(RemoteFile {
        name: name.to_owned(),
        size: size.and_then(|size| size.parse().ok()).ok_or_else(no_hash)?,
        checksum: Checksum::of_digits(digits).ok_or_else(no_hash)?,
    })
}

/// Where a file is.
pub(crate) fn file_url(client: &Client<'_>, id: &HubId, commit: &str, name: &str) -> String {
    format!("{}/{id}/resolve/{commit}/{}", client.endpoint, encoded(name, true))
}

/// The error for an answer that is neither a success nor a failure that may pass.
pub(crate) fn refused(
    client: &Client<'_>,
    id: &HubId,
    url: &str,
    status: StatusCode,
    headers: &HeaderMap,
) -> Error {
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        return Error::Unauthorised {
            id: id.to_string(),
            status: status.as_u16(),
            token_sent: client.options.token.is_some(),
            detail: message(headers),
        };
    }
    Error::Status { url: shown(url), status: status.as_u16() }
}

/// Whether it is the model or only its revision that the server does not know.
fn absent(
    client: &Client<'_>,
    id: &HubId,
    revision: &str,
    headers: &HeaderMap,
    progress: &mut dyn Progress,
) -> Result<Error> {
    let no_model = Error::NotFound { id: id.to_string(), endpoint: client.endpoint.clone() };
    let no_revision = Error::RevisionNotFound { id: id.to_string(), revision: revision.to_owned() };
    match text(headers, "x-error-code") {
        Some("RevisionNotFound") => return Ok(no_revision),
        Some("RepoNotFound") => return Ok(no_model),
        _ => {}
    }
    let url = format!("{}/api/models/{id}", client.endpoint);
    let (status, _, _) = client.json(&url, progress)?;
    Ok(if status == StatusCode::OK { no_revision } else { no_model })
}

/// The server's message, short and without control characters: it goes to a terminal.
fn message(headers: &HeaderMap) -> String {
    let text = text(headers, "x-error-message").unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(200).collect::<String>().trim_end_matches('.').to_owned()
}

/// Percent-encodes what may not stand in a path.
fn encoded(text: &str, keep_slash: bool) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'~')
            || (keep_slash && byte == b'/')
        {
            out.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_come_last() {
        let mut names =
            ["model.safetensors", "vocab.txt", "2_Dense/model.safetensors", "model.safetensors.index.json"];
        names.sort_by(|a, b| order(a).cmp(&order(b)));
        assert_eq!(
            names,
            ["model.safetensors.index.json", "vocab.txt", "2_Dense/model.safetensors", "model.safetensors"]
        );
    }

    #[test]
    fn urls_are_encoded() {
        assert_eq!(encoded("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b/é?#%.json", true), "a%20b/%C3%A9%3F%23%25.json");
    }

    #[test]
    fn hashes() {
        let sibling = |json: &str| remote_file(&serde_json::from_str::<Sibling>(json).unwrap());
        let sha = "a".repeat(64);
        let git = "b".repeat(40);
        let file = sibling(&format!(r#"{{"rfilename":"x","size":3,"blobId":"{git}"}}"#)).unwrap();
        assert_eq!((file.size, file.checksum), (3, Checksum::GitSha1(git.clone())));
        let file = sibling(&format!(
            r#"{{"rfilename":"x","size":3,"blobId":"{git}","lfs":{{"sha256":"{sha}","size":3}}}}"#
        ));
        assert_eq!(file.unwrap().checksum, Checksum::Sha256(sha.clone()));
        let file = sibling(&format!(r#"{{"rfilename":"x","size":3,"lfs":{{"oid":"sha256:{sha}"}}}}"#));
        assert_eq!(file.unwrap().checksum, Checksum::Sha256(sha));
        assert!(sibling(r#"{"rfilename":"x","size":3,"blobId":"../../etc"}"#).is_none());
        assert!(sibling(r#"{"rfilename":"x"}"#).is_none());
    }
}
