use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{
    BLOCK_BYTES, BUFFER_BYTES, Error, FORMAT, MANIFEST_NAME, MAX_FILES, MAX_MANIFEST_BYTES, Manifest,
    ManifestFile, NameFault, Result, check_name, hex, is_model_file, padded,
};

/// What the manifest says of the model beside its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    model: String,
    revision: Option<String>,
    created_with: String,
}

impl Meta {
    /// `model` is the model's id or name; `created_with` names the program and its version.
    #[must_use]
    pub fn new(model: impl Into<String>, created_with: impl Into<String>) -> Self {
        Self { model: model.into(), revision: None, created_with: created_with.into() }
    }

    /// The commit that the files are of.
    #[must_use]
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }
}

/// What [`write()`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many files of the model, the manifest not counted.
    pub files: usize,
    /// Size of the bundle in bytes.
    pub bytes: u64,
}

/// Writes the model files of `folder` (see [`is_model_file`]) into the bundle `out`, which is replaced at once when the
/// new one is whole. Links to files are followed (a hub cache is made of them), links to folders are not. The same
/// files and `meta` give the same bytes.
///
/// # Errors
/// [`Error::NotAModel`] without a `config.json`; [`Error::BadName`], [`Error::TooManyFiles`]; [`Error::Size`] or
/// [`Error::Hash`] if a file changes meanwhile; [`Error::Io`].
pub fn write(folder: &Path, out: &Path, meta: &Meta) -> Result<Summary> {
    let mut names = Vec::new();
    collect(folder, "", &mut names)?;
    names.sort_unstable();
    if !names.iter().any(|name| name == "config.json") {
        return Err(Error::NotAModel { folder: folder.to_path_buf() });
    }
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let (size, digest) = copy_hashed(&folder.join(&name), &mut io::sink(), &folder.join(&name))?;
        files.push(ManifestFile { name, size, sha256: hex(&digest) });
    }
    let manifest = Manifest {
        format: FORMAT,
        model: meta.model.clone(),
        revision: meta.revision.clone(),
        created_with: meta.created_with.clone(),
        files,
    };

    let temporary = temporary_beside(out);
    let written = write_file(folder, &temporary, &manifest)
        .and_then(|bytes| fs::rename(&temporary, out).map_err(io_error(out)).map(|()| bytes));
    match written {
        Ok(bytes) => Ok(Summary { files: manifest.files.len(), bytes }),
        Err(error) => {
            // The first error is the one to report; a file left behind is named like a temporary one.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// Appends the names of the model files below `folder/prefix`.
fn collect(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    let path = folder.join(prefix);
    for entry in fs::read_dir(&path).map_err(io_error(&path))? {
        let entry = entry.map_err(io_error(&path))?;
        let kind = entry.file_type().map_err(io_error(&entry.path()))?;
        let Some(base) = entry.file_name().to_str().map(str::to_owned) else {
            // A name that is not Unicode is not a model file's.
            continue;
        };
        let name = if prefix.is_empty() { base.clone() } else { format!("{prefix}/{base}") };
        if kind.is_dir() {
            if !base.starts_with('.') {
                check_name(&name).map_err(|fault| Error::BadName { name: name.clone(), fault })?;
                collect(folder, &name, names)?;
            }
            continue;
        }
        if !is_model_file(&name) {
            continue;
        }
        check_name(&name).map_err(|fault| Error::BadName { name: name.clone(), fault })?;
        // Follows links: one that leads nowhere is an error, one to a folder is left out.
        if !fs::metadata(entry.path()).map_err(io_error(&entry.path()))?.is_file() {
            continue;
        }
        if names.len() == MAX_FILES {
            return Err(Error::TooManyFiles { count: MAX_FILES + 1, limit: MAX_FILES });
        }
        names.push(name);
    }
    Ok(())
}

/// Writes the whole tar to `path`; gives its size in bytes.
fn write_file(folder: &Path, path: &Path, manifest: &Manifest) -> Result<u64> {
    let mut json = serde_json::to_vec(manifest).map_err(|source| Error::Manifest { source })?;
    json.push(b'\n');
    let size = json.len() as u64;
    if size > MAX_MANIFEST_BYTES {
        return Err(Error::ManifestTooLarge { size, limit: MAX_MANIFEST_BYTES });
    }

    let mut out = File::create(path).map_err(io_error(path))?;
    let mut total = 0;
    total += write_header(&mut out, path, MANIFEST_NAME, size)?;
    out.write_all(&json).map_err(io_error(path))?;
    total += size + pad(&mut out, path, size)?;
    for file in &manifest.files {
        total += write_header(&mut out, path, &file.name, file.size)?;
        let source = folder.join(&file.name);
        let (size, digest) = copy_hashed(&source, &mut out, path)?;
        if size != file.size {
            return Err(Error::Size { name: file.name.clone(), expected: file.size, found: size });
        }
        let found = hex(&digest);
        if found != file.sha256 {
            return Err(Error::Hash { name: file.name.clone(), expected: file.sha256.clone(), found });
        }
        total += size + pad(&mut out, path, size)?;
    }
    out.write_all(&[0; 2 * BLOCK_BYTES as usize]).map_err(io_error(path))?;
    total += 2 * BLOCK_BYTES;
    out.sync_all().map_err(io_error(path))?;
    Ok(total)
}

fn write_header(out: &mut File, path: &Path, name: &str, size: u64) -> Result<u64> {
    let mut header = tar::Header::new_ustar();
    // The only way to fail is a name that ustar cannot split into prefix and name.
    header.set_path(name).map_err(|_| Error::BadName { name: name.to_owned(), fault: NameFault::TooLong })?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    out.write_all(header.as_bytes()).map_err(io_error(path))?;
    Ok(BLOCK_BYTES)
}

fn pad(out: &mut File, path: &Path, size: u64) -> Result<u64> {
    let padding = padded(size).map_or(0, |whole| whole - size);
    out.write_all(&[0; BLOCK_BYTES as usize][..padding as usize]).map_err(io_error(path))?;
    Ok(padding)
}

/// Copies the file `source` to `sink`, which is the file `sink_path`; gives its size in bytes and its SHA-256.
fn copy_hashed(source: &Path, sink: &mut dyn Write, sink_path: &Path) -> Result<(u64, Vec<u8>)> {
    let mut file = File::open(source).map_err(io_error(source))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut size = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_error(source)(error)),
        };
        hasher.update(&buffer[..read]);
        sink.write_all(&buffer[..read]).map_err(io_error(sink_path))?;
        size += read as u64;
    }
    Ok((size, hasher.finalize().to_vec()))
}

/// A name in the same folder, so that the rename stays on one file system; with the process in it, so that two
/// writers do not share one.
fn temporary_beside(out: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    out.with_file_name(name)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { path: path.to_path_buf(), source }
}
