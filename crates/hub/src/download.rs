//! One blob: from wherever an earlier attempt ended, until it is whole and has its hash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::http::{Method, StatusCode};

use crate::api::{Checksum, RemoteFile, refused};
use crate::http::{Answer, Client, Failure, Resume, passing, shown, text};
use crate::{Error, HubId, Progress, Result, hex};

const BUFFER_BYTES: usize = 256 << 10;
/// After so many more bytes than ever before, failures are counted anew.
const PROGRESS_BYTES: u64 = 1 << 20;

enum Hasher {
    Sha256(Sha256),
    Sha1(Sha1),
}

impl Hasher {
    fn new(file: &RemoteFile) -> Self {
        match &file.checksum {
            Checksum::Sha256(_) => Self::Sha256(Sha256::new()),
            Checksum::GitSha1(_) => Self::Sha1(Sha1::new_with_prefix(format!("blob {}\0", file.size))),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
        }
    }

    fn digits(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Sha1(hasher) => hex(&hasher.finalize()),
        }
    }
}

/// A blob that is being fetched: its bytes on disk, and the hash of just those.
struct Partial<'a> {
    remote: &'a RemoteFile,
    path: PathBuf,
    file: File,
    /// Bytes on disk, never more than the file's size.
    have: u64,
    hasher: Hasher,
}

impl<'a> Partial<'a> {
    /// Opens what an earlier attempt left, or nothing.
    fn open(path: &Path, remote: &'a RemoteFile) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut partial =
            Self { remote, path: path.to_path_buf(), file, have: 0, hasher: Hasher::new(remote) };
        if length > remote.size {
            partial.restart()?;
            return Ok(partial);
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match partial.file.read(&mut buffer) {
                Ok(0) => return Ok(partial),
                Ok(read) => {
                    partial.hasher.update(&buffer[..read]);
                    partial.have += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(io(source)),
            }
        }
    }

    /// Throws away what there is.
    fn restart(&mut self) -> Result<()> {
        self.hasher = Hasher::new(self.remote);
        self.have = 0;
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(|e| self.io(e))?;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| self.io(error))?;
        self.hasher.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// Deletes the file and says why.
    fn reject(&self, error: Error) -> Failure {
        // What is wrong with the file is the error to report; the next attempt truncates it anyway.
        let _ = fs::remove_file(&self.path);
        Failure::Final(error)
    }

    fn io(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }
}

/// Fetches `remote` from `url` into `incomplete`, checks it, and moves it to `blob`. The caller holds the blob's lock.
pub(crate) fn download(
    client: &Client<'_>,
    id: &HubId,
    remote: &RemoteFile,
    url: &str,
    (incomplete, blob): (&Path, &Path),
    progress: &mut dyn Progress,
) -> Result<()> {
    let mut resumed = fs::metadata(incomplete).is_ok_and(|metadata| metadata.len() > 0);
    loop {
        let mut partial = Partial::open(incomplete, remote)?;
        progress.file(&remote.name, remote.size, partial.have);
        fill(client, id, &mut partial, url, progress)?;
        partial.file.sync_all().map_err(|error| partial.io(error))?;
        let found = partial.hasher.digits();
        if found == remote.checksum.digits() {
            return fs::rename(incomplete, blob)
                .map_err(|source| Error::Io { path: blob.to_path_buf(), source });
        }
        fs::remove_file(incomplete).map_err(|source| Error::Io { path: incomplete.to_path_buf(), source })?;
        if !resumed {
            return Err(Error::HashMismatch {
                file: remote.name.clone(),
                expected: remote.checksum.digits().to_owned(),
                found,
            });
        }
        // The bytes from before this run may have been the wrong ones: once more, from the beginning.
        resumed = false;
    }
}

/// Makes requests until every byte is on disk.
fn fill(
    client: &Client<'_>,
    id: &HubId,
    partial: &mut Partial<'_>,
    url: &str,
    progress: &mut dyn Progress,
) -> Result<()> {
    let mut failures = 0;
    let mut furthest = partial.have;
    let mut tag: Option<String> = None;
    while partial.have < partial.remote.size {
        let resume = (partial.have > 0).then_some(Resume { from: partial.have, if_range: tag.as_deref() });
        let got = client
            .send(&Method::GET, url, resume)
            .and_then(|answer| receive(client, id, partial, url, answer, &mut tag, progress));
        if partial.have >= furthest.saturating_add(PROGRESS_BYTES) {
            failures = 0;
            furthest = partial.have;
        }
        if let Err(failure) = got {
            client.wait(url, failure, &mut failures, progress)?;
        }
    }
    Ok(())
}

/// Reads one answer to its end, or until it is cut.
fn receive(
    client: &Client<'_>,
    id: &HubId,
    partial: &mut Partial<'_>,
    url: &str,
    answer: Answer,
    tag: &mut Option<String>,
    progress: &mut dyn Progress,
) -> std::result::Result<(), Failure> {
    if let Some(again) = passing(&answer) {
        return Err(again);
    }
    let remote = partial.remote;
    let (parts, body) = answer.response.into_parts();
    let wrong_size = |found| Error::SizeMismatch { file: remote.name.clone(), expected: remote.size, found };
    match parts.status {
        StatusCode::OK => {
            if partial.have > 0 {
                // The server ignores ranges, or the content behind its entity tag changed.
                partial.restart()?;
                progress.file(&remote.name, remote.size, 0);
            }
            if let Some(length) = body.content_length().filter(|length| *length != remote.size) {
                return Err(partial.reject(wrong_size(length)));
            }
        }
        StatusCode::PARTIAL_CONTENT => {
            let range = text(&parts.headers, "content-range").and_then(content_range);
            let Some((start, total)) = range.filter(|(start, _)| *start == partial.have) else {
                return Err(Failure::Final(Error::BadAnswer {
                    url: shown(url),
                    reason: "another range than was asked for".to_owned(),
                }));
            };
            if let Some(total) = total.filter(|total| *total != remote.size) {
                return Err(partial.reject(wrong_size(total)));
            }
            debug_assert_eq!(start, partial.have);
        }
        StatusCode::RANGE_NOT_SATISFIABLE if partial.have > 0 => {
            partial.restart()?;
            progress.file(&remote.name, remote.size, 0);
            return Err(Failure::Again { reason: "the server refuses to resume".to_owned(), after: None });
        }
        status => return Err(refused(client, id, url, status, &parts.headers).into()),
    }
    // A weak tag does not promise the same bytes.
    *tag = text(&parts.headers, "etag").filter(|tag| tag.starts_with('"')).map(str::to_owned);

    let mut reader = body.into_reader();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) if partial.have < remote.size => {
                let reason = format!("cut after {} of {} bytes", partial.have, remote.size);
                return Err(Failure::Again { reason, after: None });
            }
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Whole all the same: the server did not close the connection in order.
            Err(_) if partial.have == remote.size => return Ok(()),
            Err(error) => return Err(Failure::Again { reason: error.to_string(), after: None }),
        };
        let total = partial.have + read as u64;
        if total > remote.size {
            return Err(partial.reject(wrong_size(total)));
        }
        partial.append(&buffer[..read])?;
        progress.advance(read as u64);
    }
}

/// `bytes 5-9/10`: the first byte, and the whole's size unless it is `*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for value in ["", "bytes */10", "bytes 5/10", "items 5-9/10", "bytes -1-9/10"] {
            assert_eq!(content_range(value), None, "{value}");
        }
    }

    #[test]
    fn git_hashes_are_gits() {
        // `printf 'hello\n' | git hash-object --stdin`
        let remote = RemoteFile {
            name: "x".to_owned(),
            size: 6,
            checksum: Checksum::GitSha1("ce013625030ba8dba906f756967f9e9ca394464a".to_owned()),
        };
        let mut hasher = Hasher::new(&remote);
        hasher.update(b"hello\n");
        assert_eq!(hasher.digits(), remote.checksum.digits());
    }
}
