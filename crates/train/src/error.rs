//! What can go wrong in training: every error names the file, the line or the field, and what to do.

use std::path::PathBuf;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An architecture that has no network here.
    #[error("{file}: model_type is {found:?}; what can be trained is {known}")]
    Architecture {
        /// The configuration.
        file: String,
        /// Its `model_type`.
        found: String,
        /// Those that can be trained.
        known: String,
    },
    /// A model that `jointly` cannot read or write.
    #[error(transparent)]
    Model(#[from] jointly::Error),
    /// A pool or judgement file that cannot be read.
    #[error(transparent)]
    Data(#[from] jointly_eval::Error),
    /// The instruction set that was asked for cannot be had.
    #[error(transparent)]
    Isa(#[from] jointly_kernels::IsaError),
    /// A line of training data that says something impossible.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// Nothing to train on.
    #[error("{}: no query has {problem}", path.display())]
    NoGroups {
        /// The file.
        path: PathBuf,
        /// What each lacks.
        problem: &'static str,
    },
    /// An option that makes no sense.
    #[error("{option}: {problem}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A checkpoint that does not belong to this run.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What differs, and what to do.
        problem: String,
    },
    /// Another process trains in the folder.
    #[error("{}: another process is training in this folder; wait for it, or take another output folder", path.display())]
    Locked {
        /// The folder of the run.
        path: PathBuf,
    },
    /// The loss is no number any more.
    #[error("the loss of step {step} is {loss}: try a lower learning rate, or more warm-up; {} has the last good state", path.display())]
    Diverged {
        /// The step, counted from 1.
        step: usize,
        /// What came out.
        loss: f64,
        /// The last checkpoint.
        path: PathBuf,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// For a file.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
