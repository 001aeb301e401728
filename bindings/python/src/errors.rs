//! Errors of the engine as the exceptions of `jointly.errors`: one class for each kind, with the index of what is wrong.

use jointly::ErrorKind;
use pyo3::prelude::*;

/// A class of `jointly.errors`.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Input,
    Model,
    Io,
    Internal,
    Fork,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Input => "InputError",
            Self::Model => "ModelError",
            Self::Io => "IoError",
            Self::Internal => "InternalError",
            Self::Fork => "ForkError",
        }
    }

    /// With the index of the text or pair that is wrong, if it is one.
    pub fn error(self, py: Python<'_>, message: impl Into<String>, index: Option<usize>) -> PyErr {
        let class = py.import("jointly.errors").and_then(|module| module.getattr(self.class()));
        match class.and_then(|class| class.call1((message.into(), index))) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        }
    }
}

/// What the engine said.
pub fn engine(py: Python<'_>, error: &jointly::Error) -> PyErr {
    let kind = match error.kind() {
        ErrorKind::Input => Kind::Input,
        ErrorKind::Model => Kind::Model,
        ErrorKind::Io => Kind::Io,
        _ => Kind::Internal,
    };
    let index = match error {
        jointly::Error::Pair { index, .. } | jointly::Error::NotFinite { index, .. } => Some(*index),
        _ => None,
    };
    kind.error(py, error.to_string(), index)
}

/// The error of a chunk that begins at `start`, said of the whole.
pub fn shifted(error: jointly::Error, start: usize) -> jointly::Error {
    match error {
        jointly::Error::Pair { index, source } => jointly::Error::Pair { index: index + start, source },
        jointly::Error::NotFinite { index, logit } => {
            jointly::Error::NotFinite { index: index + start, logit }
        }
        other => other,
    }
}
