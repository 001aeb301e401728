use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{
    BLOCK_BYTES, BUFFER_BYTES, Error, FORMAT, MANIFEST_NAME, MAX_FILES, MAX_MANIFEST_BYTES, Manifest, Result,
    check_name, hex, padded,
};

/// Ordinary tar programs pad an archive to this many bytes.
const RECORD_BYTES: u64 = 10_240;

/// Where each file of a bundle lies.
#[derive(Debug, Clone)]
pub struct Index {
    path: PathBuf,
    model: String,
    revision: Option<String>,
    created_with: String,
    /// Sorted by name.
    members: Vec<Member>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its path in the model folder, with `/` between the parts.
    pub name: String,
    /// Where its first byte lies in the bundle; a multiple of 512.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Lower-case hexadecimal digits of its SHA-256.
    pub sha256: String,
}

impl Index {
    /// Reads the manifest and the headers of the bundle at `path`, and checks everything but the hashes. Uses a few
    /// times the manifest's size of memory (at most 4 MiB), whatever the headers claim.
    ///
    /// # Errors
    /// [`Error::NotABundle`] for any other file; [`Error::Io`]; else the rule of the format that is broken.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Self::read(&mut file, path)
    }

    /// As [`Index::open`], from an opened bundle or from one in memory; `path` is its name in messages.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn read(reader: &mut (impl Read + Seek), path: &Path) -> Result<Self> {
        let mut tar = Tar::new(reader, path)?;
        let manifest = tar.manifest()?;
        let mut members = Vec::with_capacity(manifest.files.len());
        for file in manifest.files {
            let (found, size, offset) = tar.header()?.ok_or(Error::Truncated {
                expected: tar.position.saturating_add(BLOCK_BYTES),
                found: tar.length,
            })?;
            if found != file.name {
                return Err(Error::Unexpected { found, expected: file.name });
            }
            if size != file.size {
                return Err(Error::Size { name: file.name, expected: file.size, found: size });
            }
            tar.skip(size)?;
            members.push(Member { name: file.name, offset, size, sha256: file.sha256 });
        }
        tar.end()?;
        Ok(Self {
            path: path.to_path_buf(),
            model: manifest.model,
            revision: manifest.revision,
            created_with: manifest.created_with,
            members,
        })
    }

    /// The model's id or name, as its maker gave it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The commit that the files are of, where it is known.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// The program that made the bundle, and its version.
    #[must_use]
    pub fn created_with(&self) -> &str {
        &self.created_with
    }

    /// Every file, sorted by name.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The file of this name, if there is one.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        let at = self.members.binary_search_by(|member| member.name.as_str().cmp(name)).ok()?;
        self.members.get(at)
    }

    /// Reads the bundle from its path once, and compares every file with its hash.
    ///
    /// # Errors
    /// [`Error::Hash`] for the first file that differs; [`Error::Io`].
    pub fn verify(&self) -> Result<()> {
        let mut file = File::open(&self.path).map_err(|source| self.io(source))?;
        self.verify_in(&mut file)
    }

    /// As [`Index::verify`], on an opened bundle or on one in memory.
    ///
    /// # Errors
    /// As [`Index::verify`].
    pub fn verify_in(&self, reader: &mut (impl Read + Seek)) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        for member in &self.members {
            reader.seek(SeekFrom::Start(member.offset)).map_err(|source| self.io(source))?;
            let mut hasher = Sha256::new();
            let mut left = member.size;
            while left > 0 {
                let piece = &mut buffer[..left.min(BUFFER_BYTES as u64) as usize];
                reader.read_exact(piece).map_err(|source| self.io(source))?;
                hasher.update(&*piece);
                left -= piece.len() as u64;
            }
            let found = hex(&hasher.finalize());
            if found != member.sha256 {
                return Err(Error::Hash {
                    name: member.name.clone(),
                    expected: member.sha256.clone(),
                    found,
                });
            }
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }
}

/// Walks the headers of a tar. The `tar` crate's own iterator reads extension headers into memory and follows them;
/// this one refuses them, so a header cannot claim memory.
struct Tar<'a, R> {
    reader: &'a mut R,
    path: &'a Path,
    length: u64,
    position: u64,
}

impl<'a, R: Read + Seek> Tar<'a, R> {
    fn new(reader: &'a mut R, path: &'a Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let length = reader.seek(SeekFrom::End(0)).map_err(io)?;
        reader.seek(SeekFrom::Start(0)).map_err(io)?;
        Ok(Self { reader, path, length, position: 0 })
    }

    /// Reads and checks the first member.
    fn manifest(&mut self) -> Result<Manifest> {
        let (name, size, _) = match self.header() {
            Ok(Some(header)) => header,
            Err(error @ Error::Io { .. }) => return Err(error),
            // Whatever else is wrong: this was never a bundle.
            _ => return Err(Error::NotABundle),
        };
        if name != MANIFEST_NAME {
            return Err(Error::NotABundle);
        }
        if size > MAX_MANIFEST_BYTES {
            return Err(Error::ManifestTooLarge { size, limit: MAX_MANIFEST_BYTES });
        }
        self.fits(size)?;
        let mut json = vec![0; size as usize];
        self.read_exact(&mut json)?;
        self.skip(size)?;

        /// Read first, so that a newer format is named even if its other fields differ.
        #[derive(serde::Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = serde_json::from_slice(&json).map_err(|source| Error::Manifest { source })?;
        if version.format != FORMAT {
            return Err(Error::Format { found: version.format });
        }
        let mut manifest: Manifest =
            serde_json::from_slice(&json).map_err(|source| Error::Manifest { source })?;
        if manifest.files.len() > MAX_FILES {
            return Err(Error::TooManyFiles { count: manifest.files.len(), limit: MAX_FILES });
        }
        let mut previous: Option<&str> = None;
        for file in &mut manifest.files {
            check_name(&file.name).map_err(|fault| Error::BadName { name: file.name.clone(), fault })?;
            if previous.is_some_and(|previous| previous >= file.name.as_str()) || file.name == MANIFEST_NAME {
                return Err(Error::Order { name: file.name.clone() });
            }
            if file.sha256.len() != 64 || !file.sha256.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(Error::BadHash { name: file.name.clone() });
            }
            file.sha256.make_ascii_lowercase();
            previous = Some(&file.name);
        }
        Ok(manifest)
    }

    /// Reads one header: name, size in bytes and offset of the data. `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<(String, u64, u64)>> {
        let offset = self.position;
        self.fits(BLOCK_BYTES)?;
        let mut block = [0; BLOCK_BYTES as usize];
        self.read_exact(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.position += BLOCK_BYTES;
        let damaged = || Error::Header { offset };
        let header = tar::Header::from_byte_slice(&block);
        // The sum of all bytes, those of the sum itself counted as spaces.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(i, b)| u32::from(if (148..156).contains(&i) { b' ' } else { *b }))
            .sum();
        if header.cksum().map_err(|_| damaged())? != sum {
            return Err(damaged());
        }
        let kind = header.entry_type();
        if kind != tar::EntryType::Regular {
            return Err(Error::NotAFile { offset, kind: kind.as_byte() });
        }
        let size = header.entry_size().map_err(|_| damaged())?;
        let name = String::from_utf8(header.path_bytes().into_owned()).map_err(|_| damaged())?;
        Ok(Some((name, size, self.position)))
    }

    /// Moves past `size` bytes of data, and its padding, that begin at the position.
    fn skip(&mut self, size: u64) -> Result<()> {
        self.fits(size)?;
        self.position += padded(size).ok_or(Error::Header { offset: self.position })?;
        self.reader.seek(SeekFrom::Start(self.position)).map_err(|source| self.io(source))?;
        Ok(())
    }

    /// Checks that only zeros follow, and enough of them.
    fn end(&mut self) -> Result<()> {
        let offset = self.position;
        self.fits(2 * BLOCK_BYTES)?;
        let left = self.length - offset;
        if left > 2 * BLOCK_BYTES + RECORD_BYTES {
            return Err(Error::TrailingData { offset });
        }
        let mut rest = vec![0; left as usize];
        self.read_exact(&mut rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Error::TrailingData { offset });
        }
        Ok(())
    }

    fn fits(&self, size: u64) -> Result<()> {
        let expected = self.position.saturating_add(size);
        if expected > self.length {
            return Err(Error::Truncated { expected, found: self.length });
        }
        Ok(())
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.reader.read_exact(buffer).map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.to_path_buf(), source }
    }
}
