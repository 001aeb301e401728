//! The cache on disk, as `huggingface_hub` lays it out: content in `blobs`, named by its hash, and links to it in
//! `snapshots`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use jointly_bundle::check_name;

use crate::{Error, HubId, Progress, Result, is_hex};

/// An index of shards has some hundred kilobytes.
const MAX_INDEX_BYTES: u64 = 16 << 20;

/// The folders of one model.
#[derive(Debug)]
pub(crate) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

/// What the cache has of a revision.
#[derive(Debug)]
pub(crate) enum Found {
    /// The snapshot's folder; every file that loading needs is there.
    Whole(PathBuf),
    /// The first file that is missing, or `snapshot`.
    Missing(String),
}

/// Held while a blob is written; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct BlobLock {
    _file: File,
}

impl RepoCache {
    pub fn new(cache_dir: &Path, id: &HubId) -> Self {
        let folder = id.folder();
        Self { root: cache_dir.join(&folder), locks: cache_dir.join(".locks").join(folder) }
    }

    pub fn blob(&self, digits: &str) -> PathBuf {
        self.root.join("blobs").join(digits)
    }

    pub fn incomplete(&self, digits: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{digits}.incomplete"))
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    /// Looks for a whole snapshot of a branch, tag or commit.
    pub fn find(&self, revision: &str) -> Result<Found> {
        let missing = |what: &str| Ok(Found::Missing(what.to_owned()));
        let path = self.reference(revision);
        let commit = match read_bounded(&path, 64) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(error) if is_absent(&error) => revision.to_owned(),
            Err(source) => return Err(Error::Io { path, source }),
        };
        if !is_hex(&commit, 40) {
            return missing("snapshot");
        }
        let snapshot = self.snapshot(&commit);
        if !snapshot.is_dir() {
            return missing("snapshot");
        }
        if !snapshot.join("config.json").is_file() && !snapshot.join("modules.json").is_file() {
            return missing("config.json");
        }
        let mut folders = vec![snapshot.clone()];
        let entries =
            fs::read_dir(&snapshot).map_err(|source| Error::Io { path: snapshot.clone(), source })?;
        folders.extend(
            entries
                .filter_map(io::Result::ok)
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("0_"))
                .map(|entry| entry.path()),
        );
        for folder in folders {
            if folder.join("model.safetensors").is_file() {
                return Ok(Found::Whole(snapshot));
            }
            let index = folder.join("model.safetensors.index.json");
            if index.is_file() {
                return Ok(match missing_shard(&folder, &index)? {
                    Some(shard) => Found::Missing(shard),
                    None => Found::Whole(snapshot),
                });
            }
        }
        missing("model.safetensors")
    }

    /// Whether the snapshot has the file, with the right size.
    pub fn has_file(&self, commit: &str, name: &str, size: u64) -> bool {
        has_size(&self.snapshot(commit).join(name), size)
    }

    /// Whether the blob is there, with the right size.
    pub fn has_blob(&self, digits: &str, size: u64) -> bool {
        has_size(&self.blob(digits), size)
    }

    /// Waits until no other process writes this blob.
    pub fn lock(&self, digits: &str, name: &str, progress: &mut dyn Progress) -> Result<BlobLock> {
        make_folder(&self.locks)?;
        // `huggingface_hub` locks the same file in the same way.
        let path = self.locks.join(format!("{digits}.lock"));
        let io = |source| Error::Io { path: path.clone(), source };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.waiting(name);
                file.lock().map_err(io)?;
            }
            // A file system without locks: two writers end in a hash mismatch at worst, not in a wrong file.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        Ok(BlobLock { _file: file })
    }

    /// Makes the snapshot's entry for a blob.
    pub fn link(&self, commit: &str, name: &str, digits: &str) -> Result<()> {
        let entry = self.snapshot(commit).join(name);
        let folder = entry.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        let temporary = temporary_in(folder);
        let io = |source| Error::Io { path: entry.clone(), source };
        // From the entry's folder up to the model's.
        let up = "../".repeat(2 + name.matches('/').count());
        self.make_entry(&temporary, &format!("{up}blobs/{digits}"), digits).map_err(io)?;
        fs::rename(&temporary, &entry).map_err(|source| {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
            io(source)
        })
    }

    #[cfg(unix)]
    #[expect(clippy::unused_self, reason = "other systems need the blob's own path")]
    fn make_entry(&self, at: &Path, target: &str, _digits: &str) -> io::Result<()> {
        std::os::unix::fs::symlink(target, at)
    }

    /// Links need a privilege here; `huggingface_hub` copies too.
    #[cfg(not(unix))]
    fn make_entry(&self, at: &Path, _target: &str, digits: &str) -> io::Result<()> {
        let blob = self.blob(digits);
        fs::hard_link(&blob, at).or_else(|_| fs::copy(&blob, at).map(|_| ()))
    }

    /// Notes which commit a branch or tag was.
    pub fn write_reference(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.reference(revision);
        if fs::read(&path).is_ok_and(|old| old == commit.as_bytes()) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        let temporary = temporary_in(folder);
        let io = |source| Error::Io { path: path.clone(), source };
        File::create(&temporary).and_then(|mut file| file.write_all(commit.as_bytes())).map_err(io)?;
        fs::rename(&temporary, &path).map_err(io)
    }

    pub fn make_blobs(&self) -> Result<()> {
        make_folder(&self.root.join("blobs"))
    }
}

/// The first shard of an index that is not there.
fn missing_shard(folder: &Path, index: &Path) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct ShardIndex {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let bytes = read_bounded(index, MAX_INDEX_BYTES)
        .map_err(|source| Error::Io { path: index.to_path_buf(), source })?;
    let base = "model.safetensors.index.json".to_owned();
    let Ok(index) = serde_json::from_slice::<ShardIndex>(&bytes) else {
        return Ok(Some(base));
    };
    let shards: std::collections::BTreeSet<String> = index.weight_map.into_values().collect();
    Ok(shards.into_iter().find(|shard| check_name(shard).is_err() || !folder.join(shard).is_file()))
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Nothing there: a folder of that name is a longer reference's.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

/// A name that no other thread or process uses.
fn temporary_in(folder: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(".{}-{count}.tmp", std::process::id()))
}
