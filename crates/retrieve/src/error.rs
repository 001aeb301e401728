//! What can go wrong, as data: every variant names the folder or file, the document or the option.

use std::path::PathBuf;

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Who can do something about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's documents, options or paths.
    Input,
    /// The index, the model, the file system or this machine.
    Failed,
}

/// Why an index could not be built, opened or searched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no index that could be opened.
    #[error("{}: {problem}", path.display())]
    NoIndex {
        /// The folder.
        path: PathBuf,
        /// What is there instead.
        problem: &'static str,
    },
    /// There is an index already.
    #[error("{} is an index already; --force builds it anew", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process builds into the folder.
    #[error("{}: another process is building this index", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the index is not what it was when the index was built.
    #[error("{}: {problem}; build the index again with --force", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// tantivy could not write or read the postings.
    #[error("{}: {source}", path.display())]
    Postings {
        /// The folder of the postings.
        path: PathBuf,
        /// What it said.
        source: Box<tantivy::TantivyError>,
    },
    /// There is nothing to index.
    #[error("no document to index")]
    NoDocuments,
    /// Two documents have the same id.
    #[error("documents {first} and {second} (from 0) have the same id {id:?}")]
    SameId {
        /// The id.
        id: String,
        /// The first document's place.
        first: usize,
        /// The second document's place.
        second: usize,
    },
    /// A parameter cannot be honoured.
    #[error("{name} is {found}; it must be {expected}")]
    Option {
        /// The parameter.
        name: &'static str,
        /// Its value.
        found: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The index has no vectors.
    #[error("{} has no vectors; `jointly index --dense MODEL` makes them", path.display())]
    NoVectors {
        /// The folder.
        path: PathBuf,
    },
    /// The queries' vectors are not of the model that made the documents'.
    #[error("{}: its vectors were made by another model: {problem}", path.display())]
    OtherModel {
        /// The index.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// The bi-encoder failed.
    #[error(transparent)]
    Model(#[from] jointly::Error),
}

impl Error {
    /// Who can do something about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoIndex { .. }
            | Self::Exists { .. }
            | Self::NoDocuments
            | Self::SameId { .. }
            | Self::Option { .. }
            | Self::NoVectors { .. }
            | Self::OtherModel { .. } => ErrorKind::Input,
            Self::Model(error) if error.kind() == jointly::ErrorKind::Input => ErrorKind::Input,
            _ => ErrorKind::Failed,
        }
    }
}
