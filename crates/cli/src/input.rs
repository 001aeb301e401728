//! Reading lines as people write them: with a BOM, with Windows line ends, without a last line end; and refusing what
//! is not UTF-8, by file, line and byte.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{CliError, Result};

/// No line, and no file that is read as one document, is longer.
pub const MAX_BYTES: u64 = 64 << 20;

/// The lines of one input, numbered from 1.
pub struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    number: u64,
    bytes: u64,
    buffer: Vec<u8>,
}

/// One line.
#[derive(Debug)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// Without the line end.
    pub text: String,
}

impl Lines {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self> {
        let (name, reader) = open(path)?;
        Ok(Self::new(name, Box::new(BufReader::with_capacity(1 << 16, reader))))
    }

    /// Reads from anything; `name` is its name in messages.
    pub fn new(name: String, reader: Box<dyn BufRead>) -> Self {
        Self { name, reader, number: 0, bytes: 0, buffer: Vec::new() }
    }

    /// The number of bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What to call a line in a message.
    pub fn place(&self, number: u64) -> String {
        format!("{}:{number}", self.name)
    }

    /// An error about a line.
    pub fn error(&self, number: u64, problem: impl std::fmt::Display) -> CliError {
        CliError::Input(format!("{}: {problem}", self.place(number)))
    }

    /// The next line without its end, or none at the end of the input. A line that cannot be used is an `Err`; the
    /// next call goes on after it, unless the input itself cannot be read.
    pub fn next_line(&mut self) -> Option<std::result::Result<Line, LineError>> {
        self.buffer.clear();
        self.number += 1;
        let number = self.number;
        // With its line end, two bytes at most.
        let read = self.reader.by_ref().take(MAX_BYTES + 2).read_until(b'\n', &mut self.buffer);
        match read {
            Ok(0) => return None,
            Ok(read) => self.bytes += read as u64,
            Err(error) => return Some(Err(self.unreadable(&error))),
        }
        let is_whole = self.buffer.pop_if(|byte| *byte == b'\n').is_some();
        if is_whole {
            self.buffer.pop_if(|byte| *byte == b'\r');
        }
        if self.buffer.len() as u64 > MAX_BYTES {
            if !is_whole && let Err(error) = self.skip_line() {
                return Some(Err(self.unreadable(&error)));
            }
            self.buffer = Vec::new(); // gives the memory back
            let problem = format!("longer than {} MiB", MAX_BYTES >> 20);
            return Some(Err(LineError::Bad(self.error(number, problem))));
        }
        let mut skipped = 0;
        if number == 1 {
            if let Some(problem) = utf16(&self.buffer) {
                return Some(Err(LineError::Fatal(self.error(number, problem))));
            }
            if self.buffer.starts_with(BOM) {
                self.buffer.drain(..BOM.len());
                skipped = BOM.len();
            }
        }
        Some(match std::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(Line { number, text: text.to_string() }),
            Err(error) => {
                let byte = error.valid_up_to() + skipped + 1;
                Err(LineError::Bad(self.error(number, format!("byte {byte} of the line is not UTF-8"))))
            }
        })
    }

    /// Reads to the end of a line without keeping it.
    fn skip_line(&mut self) -> std::io::Result<()> {
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.reader.consume(used);
            self.bytes += used as u64;
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
    }

    fn unreadable(&self, error: &std::io::Error) -> LineError {
        LineError::Fatal(CliError::Failed(format!("{}: {error}", self.name)))
    }
}

/// Why a line was not given.
#[derive(Debug)]
pub enum LineError {
    /// This line cannot be used; the next one may be.
    Bad(CliError),
    /// Nothing more can be read.
    Fatal(CliError),
}

impl From<LineError> for CliError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Bad(error) | LineError::Fatal(error) => error,
        }
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What is wrong with a text whose first bytes say that it is UTF-16.
fn utf16(start: &[u8]) -> Option<&'static str> {
    let is = start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff");
    is.then_some("this is UTF-16; convert it to UTF-8")
}

fn open(path: &Path) -> Result<(String, Box<dyn Read>)> {
    if path == Path::new("-") {
        return Ok(("standard input".into(), Box::new(std::io::stdin())));
    }
    let file = File::open(path)
        .and_then(|file| match file.metadata()?.is_dir() {
            true => Err(std::io::ErrorKind::IsADirectory.into()),
            false => Ok(file),
        })
        .map_err(|error| CliError::open(path, &error))?;
    Ok((path.display().to_string(), Box::new(file)))
}

/// Reads a whole file as one text.
pub fn whole(path: &Path) -> Result<String> {
    let (name, reader) = open(path)?;
    let mut bytes = Vec::new();
    reader
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::Failed(format!("{name}: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CliError::Input(format!("{name}: longer than {} MiB", MAX_BYTES >> 20)));
    }
    if let Some(problem) = utf16(&bytes) {
        return Err(CliError::Input(format!("{name}: {problem}")));
    }
    if bytes.starts_with(BOM) {
        bytes.drain(..BOM.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        let byte = valid.len() - valid.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) + 1;
        CliError::Input(format!("{name}:{line}: byte {byte} of the line is not UTF-8"))
    })
}

/// Whether a path says that it holds JSON lines.
pub fn is_jsonl(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| ["jsonl", "ndjson"].iter().any(|name| extension.eq_ignore_ascii_case(name)))
}

/// What is wrong with a line of JSON, without the line number that the parser counts from the line's beginning.
pub fn json_problem(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    // What serde_json says of a \ud800 that no \udc00 follows.
    let lone = ["unexpected end of hex escape", "lone leading surrogate in hex escape"].contains(&text);
    let text = if lone { "half of a surrogate pair, which is no character" } else { text };
    format!("{text} (column {})", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<std::result::Result<String, String>> {
        let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
        let mut lines = Lines::new("f".into(), reader);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line() {
            found.push(line.map(|line| line.text).map_err(|error| CliError::from(error).to_string()));
        }
        assert_eq!(lines.bytes(), bytes.len() as u64);
        found
    }

    #[test]
    fn only_the_line_end_is_taken_off() {
        let expected: Vec<_> = ["a\r", "", "\rb ", "c\r"].map(|text| Ok(text.to_string())).to_vec();
        assert_eq!(lines(b"\xef\xbb\xbfa\r\r\n\n\rb \r\nc\r"), expected);
        assert_eq!(lines(b"\xef\xbb\xbfab\xff"), [Err("f:1: byte 6 of the line is not UTF-8".into())]);
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_passed_over() {
        let longest = MAX_BYTES as usize;
        let mut bytes = vec![b'a'; longest];
        bytes.extend_from_slice(b"\r\n");
        bytes.resize(bytes.len() + longest + 1, b'b');
        bytes.extend_from_slice(b"\nc\n");
        let found = lines(&bytes);
        assert_eq!(found[0].as_ref().map(String::len), Ok(longest));
        assert_eq!(found[1..], [Err("f:2: longer than 64 MiB".into()), Ok("c".into())]);
    }
}
