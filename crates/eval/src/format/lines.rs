use std::fs::File;
use std::io::{BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::zstd::ZstdReader;
use crate::error::{Error, Fault, Result};

/// No honest line is longer: a group of a thousand documents of ten pages each has 30 MB.
pub const MAX_LINE_BYTES: u64 = 64 << 20;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The last three bytes of the sixteen that begin a skippable frame; pzstd's files begin with one.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
const BUFFER_BYTES: usize = 1 << 16;

/// The lines of a file, numbered from 1; gzip and zstd are unpacked, recognised by their first bytes and not by the
/// file's name.
pub struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    number: u64,
    limit: u64,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines")
            .field("path", &self.path)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// What was read to recognise the file, and the rest of it.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

impl Lines {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Self::new(path, file)
    }

    /// Reads from anything; `path` is its name in messages.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(path: impl Into<PathBuf>, mut reader: impl Read + Send + 'static) -> Result<Self> {
        let path = path.into();
        let mut start = Vec::new();
        if let Err(source) = reader.by_ref().take(ZSTD.len() as u64).read_to_end(&mut start) {
            return Err(Error::Io { path, source });
        }
        let gzip = start.starts_with(&GZIP);
        let skippable = start.first().is_some_and(|byte| byte & 0xf0 == 0x50) && start[1..] == ZSTD_SKIPPABLE;
        let zstd = start.starts_with(&ZSTD) || skippable;
        let whole: Whole<_> = Cursor::new(start).chain(reader);
        let reader: Box<dyn BufRead + Send> = if gzip {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(BufReader::new(whole))))
        } else if zstd {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, ZstdReader::new(BufReader::new(whole))))
        } else {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, whole))
        };
        Ok(Self { path, reader, number: 0, limit: MAX_LINE_BYTES, buffer: Vec::new() })
    }

    /// Lines longer than this many bytes are an error; [`MAX_LINE_BYTES`] if nothing else is said.
    pub fn limit(self, bytes: u64) -> Self {
        Self { limit: bytes, ..self }
    }

    /// The file's name in messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next line that is not blank, without its line end, with its number. `None` at the end.
    ///
    /// # Errors
    /// [`Error::Io`], also for a packed file that is damaged or cut short, and [`Error::Line`].
    pub fn next_line(&mut self) -> Result<Option<(u64, &str)>> {
        loop {
            self.number += 1;
            self.buffer.clear();
            // With its line end, two bytes at most.
            let mut line = self.reader.by_ref().take(self.limit.saturating_add(2));
            match line.read_until(b'\n', &mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(source) => return Err(Error::Io { path: self.path.clone(), source }),
            }
            if self.buffer.pop_if(|byte| *byte == b'\n').is_some() {
                self.buffer.pop_if(|byte| *byte == b'\r');
            }
            if self.buffer.len() as u64 > self.limit {
                return Err(self.error(self.number, Fault::TooLong { limit: self.limit }));
            }
            if self.number == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.drain(..BYTE_ORDER_MARK.len());
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(Some((self.number, text))),
            Err(error) => Err(self.error(self.number, Fault::NotUtf8 { byte: error.valid_up_to() + 1 })),
        }
    }

    /// Reads every line that is left; a fault becomes an error about its line.
    pub(crate) fn each(
        &mut self,
        mut read: impl FnMut(u64, &str) -> std::result::Result<(), Fault>,
    ) -> Result<()> {
        while let Some((number, line)) = self.next_line()? {
            if let Err(fault) = read(number, line) {
                return Err(self.error(number, fault));
            }
        }
        Ok(())
    }

    /// An error about a line.
    pub(super) fn error(&self, line: u64, fault: Fault) -> Error {
        Error::Line { path: self.path.clone(), line, fault }
    }

    /// The error for a file without anything of what it should have.
    pub(crate) fn empty(&self, what: &'static str) -> Error {
        Error::Empty { path: self.path.clone(), what }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const TEXT: &str = "\u{feff}one\r\n\n  \ntwo  two\nthr\u{e9}e";

    fn all(bytes: Vec<u8>) -> Result<Vec<(u64, String)>> {
        let mut lines = Lines::new("file", Cursor::new(bytes))?;
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next_line()? {
            found.push((number, line.to_string()));
        }
        Ok(found)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &str) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn expected() -> Vec<(u64, String)> {
        vec![(1, "one".to_string()), (4, "two  two".to_string()), (5, "thr\u{e9}e".to_string())]
    }

    #[test]
    fn plain_and_packed_are_the_same() {
        assert_eq!(all(TEXT.as_bytes().to_vec()).unwrap(), expected());
        assert_eq!(all(gzip(TEXT)).unwrap(), expected());
        assert_eq!(all(zstd(TEXT)).unwrap(), expected());
        assert_eq!(all(Vec::new()).unwrap(), []);
        assert_eq!(all(gzip("")).unwrap(), []);
    }

    #[test]
    fn files_put_together_are_one_file() {
        // `cat a.gz b.gz`, and the same for zstd with a skippable frame (pzstd's) between.
        let (first, second) = TEXT.split_at(9);
        assert_eq!(all([gzip(first), gzip(second)].concat()).unwrap(), expected());
        let skippable = [&[0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        assert_eq!(
            all([zstd(first), skippable.clone(), zstd(second), skippable].concat()).unwrap(),
            expected()
        );
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        for packed in [gzip(&TEXT.repeat(50)), zstd(&TEXT.repeat(50)), REFERENCE.to_vec()] {
            let whole = all(packed.clone()).unwrap();
            for length in 4..packed.len() {
                let error = all(packed[..length].to_vec()).unwrap_err();
                assert!(matches!(error, Error::Io { .. }), "cut to {length}: {error}");
            }
            for i in 4..packed.len() {
                let mut damaged = packed.clone();
                damaged[i] ^= 0x10;
                // Some bytes say nothing about the content (gzip's time, the name of the system).
                match all(damaged) {
                    Ok(found) => assert_eq!(found, whole, "byte {i}"),
                    Err(error) => assert!(error.to_string().starts_with("file"), "{error}"),
                }
            }
        }
    }

    /// What zstd 1.5 itself (`-19 --check`) makes of "q1 Q0 d1 1\n" and so on up to q9.
    const REFERENCE: &[u8] = &[
        0x28, 0xb5, 0x2f, 0xfd, 0x24, 0x63, 0x8d, 0x01, 0x00, 0xf8, 0x71, 0x31, 0x20, 0x51, 0x30, 0x20, 0x64,
        0x31, 0x20, 0x31, 0x0a, 0x71, 0x32, 0x32, 0x33, 0x33, 0x34, 0x34, 0x35, 0x35, 0x36, 0x36, 0x37, 0x37,
        0x38, 0x38, 0x39, 0x39, 0x20, 0x31, 0x0a, 0x0f, 0xa8, 0x10, 0xf8, 0xfa, 0x1b, 0xf0, 0xd5, 0x10, 0x90,
        0x1f, 0xa9, 0x36, 0x4a, 0x26, 0x29, 0x05, 0x65, 0x39, 0x59, 0x6b,
    ];

    #[test]
    fn the_reference_implementations_frame() {
        let text: Vec<(u64, String)> = (1..10).map(|i| (i, format!("q{i} Q0 d{i} 1"))).collect();
        assert_eq!(all(REFERENCE.to_vec()).unwrap(), text);
    }

    #[test]
    fn long_lines_and_other_encodings() {
        let limited = |text: &str| {
            let mut lines = Lines::new("file", Cursor::new(text.as_bytes().to_vec())).unwrap().limit(4);
            lines
                .next_line()
                .map(|line| line.map(|(_, text)| text.to_string()))
                .map_err(|error| error.to_string())
        };
        assert_eq!(limited("1234"), Ok(Some("1234".to_string())));
        assert_eq!(limited("1234\r\n5"), Ok(Some("1234".to_string())));
        for text in ["12345", "12345\n", "123456789"] {
            assert_eq!(limited(text), Err("file:1: longer than 4 bytes".to_string()));
        }
        let error = all(b"a\nb\xff".to_vec()).unwrap_err().to_string();
        assert_eq!(error, "file:2: byte 2 of the line is not UTF-8");
    }
}
