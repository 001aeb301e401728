//! Where a model's files come from: a folder, a bundle, or the program itself.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::weights::mmap::{self, Mapping};

/// No configuration, template or index of a real model is near this size.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// The largest published `tokenizer.json` has about 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// The files of one model, by their names in Hugging Face layout.
#[derive(Debug, Clone)]
pub enum ModelFiles {
    /// A folder.
    Folder(PathBuf),
    /// One file that holds a folder, made by `jointly bundle`.
    Bundle(Arc<Bundle>),
    /// Files in memory: compiled into the program, or made by it.
    Memory {
        /// What to call the model in messages.
        name: String,
        /// Each file by its name, with `/` between the parts.
        files: Arc<BTreeMap<String, Bytes>>,
    },
}

/// An opened bundle: its table of contents, and its bytes mapped into memory.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    index: jointly_bundle::Index,
    mapping: Arc<Mapping>,
}

impl Bundle {
    /// The names of its files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.members().iter().map(|member| member.name.as_str())
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of one of its files, in hexadecimal; checked when the bundle was opened.
    #[must_use]
    pub fn sha256(&self, name: &str) -> Option<&str> {
        self.index.member(name).map(|member| member.sha256.as_str())
    }
}

/// The content of one file, wherever it lies.
#[derive(Debug, Clone)]
pub enum Bytes {
    /// Compiled into the program.
    Static(&'static [u8]),
    /// Read into memory.
    Owned(Arc<Vec<u8>>),
    /// A range of a memory-mapped file.
    Mapped(Arc<Mapping>, std::ops::Range<usize>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Mapped(mapping, range) => &mapping[range.clone()],
        }
    }
}

impl ModelFiles {
    /// Opens a model folder, or a bundle if `path` is a file. Every file of a bundle is checked against its hash.
    ///
    /// # Errors
    /// [`Error::Io`] if there is nothing at `path`; [`Error::Bundle`] if it is a file, but not a whole bundle.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        if metadata.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        let bundle = |source| Error::Bundle { path: path.to_path_buf(), source };
        let index = jointly_bundle::Index::open(path).map_err(bundle)?;
        index.verify().map_err(bundle)?;
        let mapping = Arc::new(mmap::map(path)?);
        Ok(Self::Bundle(Arc::new(Bundle { path: path.to_path_buf(), index, mapping })))
    }

    /// The folder, the bundle, or the name of the model in memory, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Bundle(bundle) => bundle.path.display().to_string(),
            Self::Memory { name, .. } => name.clone(),
        }
    }

    /// The name of one file, for messages.
    #[must_use]
    pub fn name_of(&self, name: &str) -> String {
        match self {
            Self::Folder(path) => path.join(name).display().to_string(),
            _ => format!("{}: {name}", self.describe()),
        }
    }

    /// Whether there is a file of this name.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_file(),
            Self::Bundle(bundle) => bundle.index.member(name).is_some(),
            Self::Memory { files, .. } => files.contains_key(name),
        }
    }

    /// Reads a small file (configuration, template, tokenizer) whole.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::FileTooLarge`], [`Error::Io`].
    pub fn read(&self, name: &str) -> Result<Bytes> {
        let limit = if name.ends_with("tokenizer.json") { MAX_TOKENIZER_BYTES } else { MAX_JSON_BYTES };
        if let Self::Folder(folder) = self {
            let path = folder.join(name);
            let size = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                Ok(_) => return Err(self.missing(name)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.missing(name)),
                Err(source) => return Err(Error::Io { path, source }),
            };
            if size > limit {
                return Err(Error::FileTooLarge { file: self.name_of(name), size, limit });
            }
            let bytes = fs::read(&path).map_err(|source| Error::Io { path, source })?;
            return Ok(Bytes::Owned(Arc::new(bytes)));
        }
        let bytes = self.map(name)?;
        if bytes.len() as u64 > limit {
            let size = bytes.len() as u64;
            return Err(Error::FileTooLarge { file: self.name_of(name), size, limit });
        }
        Ok(bytes)
    }

    /// Gives a large file (weights) without reading it: its pages come from the file when they are touched.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`].
    pub fn map(&self, name: &str) -> Result<Bytes> {
        match self {
            Self::Folder(folder) => {
                if !self.exists(name) {
                    return Err(self.missing(name));
                }
                let mapping = Arc::new(mmap::map(&folder.join(name))?);
                let range = 0..mapping.len();
                Ok(Bytes::Mapped(mapping, range))
            }
            Self::Bundle(bundle) => {
                let member = bundle.index.member(name).ok_or_else(|| self.missing(name))?;
                let start = member.offset as usize;
                let end = start.saturating_add(member.size as usize);
                if end > bundle.mapping.len() {
                    let problem = format!("{name} ends beyond the end of the file");
                    return Err(Error::Weights { file: self.describe(), problem });
                }
                Ok(Bytes::Mapped(Arc::clone(&bundle.mapping), start..end))
            }
            Self::Memory { files, .. } => files.get(name).cloned().ok_or_else(|| self.missing(name)),
        }
    }

    /// Reads a JSON file.
    ///
    /// # Errors
    /// Those of [`ModelFiles::read`], and [`Error::Json`].
    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let bytes = self.read(name)?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { file: self.name_of(name), source })
    }

    /// Reads a JSON file if it is there.
    ///
    /// # Errors
    /// Those of [`ModelFiles::json`], but for the absence of the file.
    pub fn optional_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        if self.exists(name) { self.json(name).map(Some) } else { Ok(None) }
    }

    fn missing(&self, name: &str) -> Error {
        let hint = match name {
            "config.json" => "is this a model folder in Hugging Face layout?",
            "tokenizer.json" => "only the `tokenizer.json` form is read; export it with a fast tokenizer",
            "model.safetensors" => "only safetensors are read; convert the weights",
            _ => "the model is not complete; fetch it again",
        };
        Error::MissingFile { folder: self.describe(), name: name.to_string(), hint: hint.to_string() }
    }
}
