use std::io;
use std::path::PathBuf;

use jointly_bundle::NameFault;

/// What can go wrong while a model is looked up or pulled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither a path that exists nor something that could be a model id.
    #[error("{name}: there is no such folder or bundle{}", also(reason.as_deref()))]
    NoSuchModel {
        /// The name.
        name: String,
        /// Why it is no model id, if it does not look like a path.
        reason: Option<Box<Error>>,
    },
    /// Not a model id.
    #[error("{id:?} is not a model id: {reason}")]
    BadId {
        /// The text, shortened.
        id: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// Not a branch, tag or commit.
    #[error("revision {revision:?} {fault}")]
    BadRevision {
        /// The text.
        revision: String,
        /// The rule that it breaks.
        fault: NameFault,
    },
    /// The server's address is not usable.
    #[error("endpoint {endpoint:?}: {reason}")]
    BadEndpoint {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token has characters that cannot be sent.
    #[error("the hub token has characters that a token cannot have")]
    BadToken,
    /// The file of certificates cannot be used.
    #[error("{}: no usable certificate in it", path.display())]
    BadCertificates {
        /// The file.
        path: PathBuf,
    },
    /// There is no folder to put the cache into.
    #[error("no home folder, so there is no place for the cache; set HF_HOME")]
    NoHome,
    /// The server does not let us have the model.
    #[error("{id}: access refused (status {status}){}{}", unauthorised_hint(*token_sent), in_brackets(detail))]
    Unauthorised {
        /// The model.
        id: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        token_sent: bool,
        /// The server's own message, if it sent one.
        detail: String,
    },
    /// The server does not know the model.
    #[error("{id}: no such model at {endpoint}")]
    NotFound {
        /// The model.
        id: String,
        /// The server.
        endpoint: String,
    },
    /// The model has no such branch, tag or commit.
    #[error("{id}: no revision {revision:?}")]
    RevisionNotFound {
        /// The model.
        id: String,
        /// The branch, tag or commit.
        revision: String,
    },
    /// The repository has no safetensors weights.
    #[error("{id}: no model.safetensors and no model.safetensors.index.json; {}", weights_found(found))]
    NoWeights {
        /// The model.
        id: String,
        /// Weights in other formats that it has, eight at most.
        found: Vec<String>,
    },
    /// More files than any real model has.
    #[error("{id}: {count} files; the limit is {limit}")]
    TooManyFiles {
        /// The model.
        id: String,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The server names a file that could lie outside its folder.
    #[error("{id}: file name {name:?} {fault}")]
    BadFileName {
        /// The model.
        id: String,
        /// The name, shortened.
        name: String,
        /// The rule that it breaks.
        fault: NameFault,
    },
    /// The server gives no size or hash to check a file with.
    #[error("{id}: the server gives no size and hash for {file}")]
    NoHash {
        /// The model.
        id: String,
        /// The file.
        file: String,
    },
    /// A file came with another content than its hash says. It has been deleted.
    #[error("{file}: hash is {found}, expected {expected}; the file was deleted")]
    HashMismatch {
        /// The file.
        file: String,
        /// Hexadecimal digits that the server stated.
        expected: String,
        /// Hexadecimal digits of what came.
        found: String,
    },
    /// A file came with another size than the server stated. It has been deleted.
    #[error("{file}: the server sends {found} bytes, and stated {expected}")]
    SizeMismatch {
        /// The file.
        file: String,
        /// Bytes that the list of files states.
        expected: u64,
        /// Bytes that the answer has, or the first count past `expected`.
        found: u64,
    },
    /// Offline, and the cache lacks something.
    #[error("{id}: offline, and the cache has no {missing} of revision {revision:?}")]
    OfflineMissing {
        /// The model.
        id: String,
        /// The branch, tag or commit.
        revision: String,
        /// The first file that is missing, or `snapshot`.
        missing: String,
    },
    /// Reading or writing the cache failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The server's answer is not what the hub's protocol says.
    #[error("{url}: bad answer: {reason}")]
    BadAnswer {
        /// What was asked, without its query.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server's answer is larger than any real one.
    #[error("{url}: the answer has more than {limit} bytes")]
    AnswerTooLarge {
        /// What was asked, without its query.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A redirect that is not followed.
    #[error("{url}: {reason}")]
    Redirect {
        /// What redirected, without its query.
        url: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// A status that no other variant is for.
    #[error("{url}: status {status}")]
    Status {
        /// What was asked, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server could not be reached, or failed again and again.
    #[error("{url}: {reason}, after {attempts} attempts")]
    Network {
        /// What was asked, without its query.
        url: String,
        /// How often in a row it was tried without progress.
        attempts: u32,
        /// The last failure.
        reason: String,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Who can do something about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller asked for something that is not there or not possible.
    Input,
    /// The caller lacks the right, or did not send a token.
    Access,
    /// The server or the way to it; trying later may help.
    Network,
    /// This machine's disk.
    Io,
}

impl Error {
    /// Who can do something about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchModel { .. }
            | Self::BadId { .. }
            | Self::BadRevision { .. }
            | Self::BadEndpoint { .. }
            | Self::BadToken
            | Self::BadCertificates { .. }
            | Self::NoHome
            | Self::NotFound { .. }
            | Self::RevisionNotFound { .. }
            | Self::NoWeights { .. }
            | Self::OfflineMissing { .. } => ErrorKind::Input,
            Self::Unauthorised { .. } => ErrorKind::Access,
            Self::TooManyFiles { .. }
            | Self::BadFileName { .. }
            | Self::NoHash { .. }
            | Self::HashMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::BadAnswer { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Redirect { .. }
            | Self::Status { .. }
            | Self::Network { .. } => ErrorKind::Network,
            Self::Io { .. } => ErrorKind::Io,
        }
    }
}

fn also(reason: Option<&Error>) -> String {
    reason.map_or_else(String::new, |reason| format!(", and it is not a hub id: {reason}"))
}

fn unauthorised_hint(token_sent: bool) -> &'static str {
    if token_sent {
        ": the token in HF_TOKEN may not read it, or its terms are not accepted yet"
    } else {
        ": it is private or gated, or does not exist; set HF_TOKEN to a token that may read it"
    }
}

fn in_brackets(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

fn weights_found(found: &[String]) -> String {
    if found.is_empty() {
        return "the repository has no weights at all".to_owned();
    }
    format!("the repository has {}", found.join(", "))
}
