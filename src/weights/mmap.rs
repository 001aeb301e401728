//! Memory-mapped files: the only `unsafe` of the library outside `crates/kernels`.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::error::{Error, Result};

/// A whole file as bytes; a page is read when it is first touched.
#[derive(Debug)]
pub struct Mapping(Option<memmap2::Mmap>);

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Maps `path` for reading.
///
/// The weights are read while the model loads; a file that another process shortens at that very moment ends this
/// one with SIGBUS, as with every program that maps files. Replace a model by writing a new file and renaming it.
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened or mapped.
pub fn map(path: &Path) -> Result<Mapping> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() == 0 {
        return Ok(Mapping(None)); // an empty file cannot be mapped
    }
    // SAFETY: the mapping is private and read-only, and `Mapping` hands out only shared borrows of it. That nobody
    // truncates or rewrites the file in place meanwhile is the documented condition above; every reader of the
    // bytes validates them as untrusted input.
    let mapping = unsafe { memmap2::MmapOptions::new().map(&file) }.map_err(io)?;
    Ok(Mapping(Some(mapping)))
}
