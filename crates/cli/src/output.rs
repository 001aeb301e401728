//! Standard output, and what is said on standard error.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{CliError, Result};

/// Standard output, buffered.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub fn new() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// A line of text.
    pub fn line(&mut self, text: impl std::fmt::Display) -> Result<()> {
        writeln!(self.0, "{text}").map_err(|error| CliError::stdout(&error))
    }

    /// A value as one line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> Result<()> {
        self.line(to_json(value)?)
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(|error| CliError::stdout(&error))
    }

    /// Writes what is still buffered.
    pub fn flush(&mut self) -> Result<()> {
        self.0.flush().map_err(|error| CliError::stdout(&error))
    }
}

/// Where lines go: standard output or a file. A file appears under its name when it is whole.
pub enum Sink {
    Stdout(Output),
    File { file: BufWriter<File>, partial: PathBuf, output: PathBuf },
}

impl Sink {
    /// Refuses a file that exists, unless it may be replaced: for a command to know before it computes.
    pub fn check(output: Option<&Path>, force: bool) -> Result<()> {
        match output.filter(|output| output.exists() && !force) {
            Some(output) => Err(CliError::Input(format!("{} exists; --force replaces it", output.display()))),
            None => Ok(()),
        }
    }

    pub fn open(output: Option<&Path>, force: bool) -> Result<Self> {
        Self::check(output, force)?;
        let Some(output) = output else { return Ok(Self::Stdout(Output::new())) };
        let mut partial = output.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| CliError::file(&partial, &error))?;
        Ok(Self::File { file: BufWriter::new(file), partial, output: output.to_path_buf() })
    }

    pub fn line(&mut self, line: impl std::fmt::Display) -> Result<()> {
        match self {
            Self::Stdout(output) => output.line(line),
            Self::File { file, partial, .. } => {
                writeln!(file, "{line}").map_err(|error| CliError::file(partial, &error))
            }
        }
    }

    pub fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut output) => output.flush(),
            Self::File { mut file, partial, output } => file
                .flush()
                .and_then(|()| file.get_ref().sync_all())
                .and_then(|()| fs::rename(&partial, &output))
                .map_err(|error| CliError::file(&output, &error)),
        }
    }
}

/// Writes a whole file under its name, or nothing.
pub fn write_file(path: &Path, text: &str) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    fs::write(&partial, text)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|error| CliError::file(path, &error))
}

/// A value as JSON, without a line end.
pub fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| CliError::Failed(error.to_string()))
}

/// A line on standard error. That nobody can read it is no reason to stop.
pub fn say(message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "jointly: {message}");
}

/// Text on one line, without what would steer a terminal: control characters, and marks that turn the direction of
/// the rest of the line.
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(steers) {
        let spaced = text.replace(char::is_whitespace, " ");
        Cow::Owned(spaced.replace(steers, ""))
    } else {
        Cow::Borrowed(text)
    }
}
