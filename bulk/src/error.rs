//! How a program ends, and how an error finds its way back out of DataFusion and a cluster.

use std::fmt;
use std::path::Path;

use datafusion::error::DataFusionError;

/// The result of everything fallible here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a program ended without success.
#[derive(Debug)]
pub enum Error {
    /// The arguments or the input cannot be used.
    Input(String),
    /// The model, a file, this machine or the cluster failed.
    Failed(String),
    /// Whoever read the output has closed it, which is no failure.
    ClosedPipe,
    /// Ctrl-C.
    Interrupted,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(message) | Self::Failed(message) => f.write_str(message),
            Self::ClosedPipe => f.write_str("the output was closed"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// A file that cannot be read or written.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        let message = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory => Self::Input(message),
            std::io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(message),
        }
    }
}

impl From<jointly::Error> for Error {
    fn from(error: jointly::Error) -> Self {
        match error.kind() {
            jointly::ErrorKind::Input => Self::Input(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<jointly_hub::Error> for Error {
    fn from(error: jointly_hub::Error) -> Self {
        match error.kind() {
            jointly_hub::ErrorKind::Input => Self::Input(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        let text = error.to_string();
        if let Some(fault) = Fault::find(&text) {
            return fault.into();
        }
        match error.find_root() {
            DataFusionError::Plan(message) | DataFusionError::Configuration(message) => {
                Self::Input(message.clone())
            }
            DataFusionError::SQL(..) | DataFusionError::SchemaError(..) => Self::Input(text),
            _ => Self::Failed(text),
        }
    }
}

impl From<datafusion::arrow::error::ArrowError> for Error {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

impl From<datafusion::parquet::errors::ParquetError> for Error {
    fn from(error: datafusion::parquet::errors::ParquetError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// An error of a function of ours. Between processes errors travel as text, quoted and wrapped as often as they change hands,
/// so what is ours stands between marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The column whose text is missing or empty: the reader of the query can say where.
    pub column: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
    /// Whether the query or its input is at fault, not the model or a machine.
    pub is_input: bool,
}

const OPEN: &str = "<<jointly ";
const CLOSE: &str = ">>";

impl Fault {
    /// A fault of the query or its input.
    pub fn input(message: impl Into<String>) -> Self {
        Self { column: None, message: message.into(), is_input: true }
    }

    /// A fault of the model or a machine.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { column: None, message: message.into(), is_input: false }
    }

    /// The fault in the text of an error, if there is one.
    pub fn find(text: &str) -> Option<Self> {
        let (_, inside) = text.split_once(OPEN)?;
        let (inside, _) = inside.split_once(CLOSE)?;
        let mut parts = inside.splitn(3, '|');
        let (kind, column, message) = (parts.next()?, parts.next()?, parts.next()?);
        let column = Some(column.to_string()).filter(|column| !column.is_empty());
        Some(Self { column, message: message.to_string(), is_input: kind == "input" })
    }
}

/// Without what marks its parts, and what quoting would change.
fn plain(text: &str) -> String {
    text.replace('|', "/").replace(['<', '>', '"', '\\', '\n'], "'")
}

impl From<Fault> for DataFusionError {
    fn from(fault: Fault) -> Self {
        let kind = if fault.is_input { "input" } else { "failed" };
        let column = plain(fault.column.as_deref().unwrap_or_default());
        Self::Execution(format!("{OPEN}{kind}|{column}|{}{CLOSE}", plain(&fault.message)))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        if fault.is_input { Self::Input(fault.message) } else { Self::Failed(fault.message) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_being_quoted_and_wrapped() {
        let fault = Fault { column: Some("query".into()), ..Fault::input("column query is null") };
        let error = DataFusionError::from(fault.clone());
        let wrapped = format!("{:?}", format!("Job 7 failed: {:?}", error.context("stage 1")));
        assert_eq!(Fault::find(&wrapped), Some(fault));

        let quoted = DataFusionError::from(Fault::failed("\"x\" | <y>\nz")).to_string();
        assert_eq!(Fault::find(&format!("{quoted:?}")), Some(Fault::failed("'x' / 'y''z")));
        for other in ["", "<<jointly ", "<<jointly input|>>"] {
            assert_eq!(Fault::find(other), None, "{other}");
        }
    }
}
