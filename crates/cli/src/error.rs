//! How a command ends, and what is said about it.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// The result of a subcommand.
pub type Result<T> = std::result::Result<T, CliError>;

/// Why a command ended without success.
#[derive(Debug)]
pub enum CliError {
    /// The arguments or the input cannot be used.
    Input(String),
    /// The model, a file or this machine failed.
    Failed(String),
    /// `verify`: there is nothing to verify against.
    NoReceipt(String),
    /// `audit` and `calibrate --check`: what was measured is not what was asked for.
    NotHeld(String),
    /// Whoever read the output has closed it.
    ClosedPipe,
}

impl CliError {
    /// Whether whoever read the output has closed it, which is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::ClosedPipe)
    }

    /// What the program exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Input(_) => ExitCode::from(2),
            Self::NoReceipt(_) => ExitCode::from(3),
            Self::NotHeld(_) => ExitCode::from(4),
            Self::ClosedPipe => ExitCode::SUCCESS,
        }
    }

    /// A file that cannot be read or written.
    pub fn file(path: &Path, error: &io::Error) -> Self {
        Self::Failed(format!("{}: {error}", path.display()))
    }

    /// A file that the user names and that cannot be opened: a wrong name is wrong input, anything else is not.
    pub fn open(path: &Path, error: &io::Error) -> Self {
        let message = format!("{}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => Self::Input(message),
            _ => Self::Failed(message),
        }
    }

    /// A write to standard output.
    pub fn stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(format!("standard output: {error}")),
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(message)
            | Self::Failed(message)
            | Self::NoReceipt(message)
            | Self::NotHeld(message) => f.write_str(message),
            Self::ClosedPipe => f.write_str("the output was closed"),
        }
    }
}

impl From<jointly::Error> for CliError {
    fn from(error: jointly::Error) -> Self {
        match error.kind() {
            jointly::ErrorKind::Input => Self::Input(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<jointly_train::Error> for CliError {
    fn from(error: jointly_train::Error) -> Self {
        use jointly_train::Error;
        match error {
            Error::Model(error) => Self::from(error),
            Error::Data(error) => Self::from(error),
            Error::Line { .. } | Error::NoGroups { .. } | Error::Option { .. } | Error::Checkpoint { .. } => {
                Self::Input(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<jointly_cascade::Error> for CliError {
    fn from(error: jointly_cascade::Error) -> Self {
        Self::Input(error.to_string())
    }
}

impl From<jointly_hub::Error> for CliError {
    fn from(error: jointly_hub::Error) -> Self {
        match error.kind() {
            jointly_hub::ErrorKind::Input => Self::Input(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<jointly_eval::Error> for CliError {
    fn from(error: jointly_eval::Error) -> Self {
        match &error {
            jointly_eval::Error::Io { path, source } => Self::open(path, source),
            _ => Self::Input(error.to_string()),
        }
    }
}

impl From<jointly_retrieve::Error> for CliError {
    fn from(error: jointly_retrieve::Error) -> Self {
        match error.kind() {
            jointly_retrieve::ErrorKind::Input => Self::Input(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<jointly_train::judge::Error> for CliError {
    fn from(error: jointly_train::judge::Error) -> Self {
        use jointly_train::judge::Error;
        match &error {
            Error::Options { .. } | Error::Line { .. } => Self::Input(error.to_string()),
            Error::Io { path, source } => Self::open(path, source),
            _ => Self::Failed(error.to_string()),
        }
    }
}
