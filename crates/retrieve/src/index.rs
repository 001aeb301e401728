//! An index on disk: a folder that is whole, or that no one can open.
//!
//! ```text
//! INDEX/manifest.json    what the index is, and the files that belong to it; written last, and renamed into place
//! INDEX/build-1/         ids.jsonl, bm25/ (tantivy's postings), vectors.f32
//! INDEX/lock             held by the process that builds
//! ```
//!
//! A build writes into a new folder `build-N`, makes sure that all of it is on disk, and only then puts the manifest in
//! place, which is one rename. Killed before that, it has changed nothing that is read: a new index has no manifest and is
//! not opened, an old one stays as it was. The next build removes what was left.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use jointly::files::ModelFiles;
use jointly::receipt;
use jointly::{BiEncoder, Precision, Role};
use serde::{Deserialize, Serialize};

use crate::bm25::{self, Bm25, Parameters};
use crate::dense::{self, Vectors};
use crate::error::{Error, Result};
use crate::fusion;
use crate::top::Hit;

const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const LOCK: &str = "lock";
const BUILD: &str = "build-";
const IDS: &str = "ids.jsonl";
const POSTINGS: &str = "bm25";
const VECTORS: &str = "vectors.f32";
/// Documents that are embedded between two reports.
const EMBEDDED_AT_ONCE: usize = 1024;
/// Each ranking is at least so long before rankings are fused.
const LEAST_FUSED: usize = 100;

/// A document to index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id, which no other has.
    pub id: String,
    /// What is searched.
    pub text: String,
}

/// How to build an index.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct BuildOptions<'a> {
    bm25: Parameters,
    dense: Option<(&'a BiEncoder, &'a str)>,
    threads: usize,
    force: bool,
}

impl<'a> BuildOptions<'a> {
    /// BM25 alone, one thread, and no index is replaced.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The parameters that queries are answered with where nothing else is asked for.
    #[must_use]
    pub fn bm25(self, bm25: Parameters) -> Self {
        Self { bm25, ..self }
    }

    /// Vectors too, of this model; `name` is how to find the model again.
    #[must_use]
    pub fn dense(self, model: &'a BiEncoder, name: &'a str) -> Self {
        Self { dense: Some((model, name)), ..self }
    }

    /// How many threads write postings; the model has its own.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Whether an index that is there is replaced.
    #[must_use]
    pub fn force(self, force: bool) -> Self {
        Self { force, ..self }
    }
}

/// How far a build has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// So many documents have their postings.
    Postings(usize),
    /// So many documents have their vectors.
    Vectors(usize),
    /// Everything is computed, and is being put on disk.
    Finishing,
}

/// What made the vectors of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenseInfo {
    /// How the model was named when the index was built.
    pub model: String,
    /// A hash of the model's files.
    pub sha256: String,
    /// What its layers multiplied in.
    pub precision: String,
    /// The longest text it read, in tokens.
    pub max_length: usize,
    /// Values of a vector.
    pub dimensions: usize,
}

impl DenseInfo {
    fn of(model: &BiEncoder, name: &str) -> Result<Self> {
        Ok(Self {
            model: name.to_string(),
            sha256: receipt::identity(model.files())?,
            precision: model.info().precision.to_string(),
            max_length: model.info().max_length,
            dimensions: model.info().dimensions,
        })
    }

    /// What its layers multiplied in; none if this program does not know it.
    #[must_use]
    pub fn precision(&self) -> Option<Precision> {
        Precision::ALL.into_iter().find(|precision| precision.to_string() == self.precision)
    }
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    created_with: String,
    /// The folder that everything lies in.
    build: String,
    documents: usize,
    bm25: Parameters,
    #[serde(skip_serializing_if = "Option::is_none")]
    dense: Option<DenseInfo>,
    /// The size of each file, by its name below `build`.
    files: Vec<(String, u64)>,
}

impl Manifest {
    /// None if there is no manifest, which is to say no index.
    fn read(path: &Path) -> Result<Option<Self>> {
        let file = path.join(MANIFEST);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Ok(None);
            }
            Err(source) => return Err(Error::Io { path: file, source }),
        };
        let damaged = |problem: String| Error::Damaged { path: file.clone(), problem };
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            format => {
                let format = format.map_or("no format".to_string(), |format| format!("format {format}"));
                return Err(damaged(format!("{format}; this program reads {FORMAT}")));
            }
        }
        let manifest: Self = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        if build_number(&manifest.build).is_none() {
            return Err(damaged(format!("{:?} is not the name of a build", manifest.build)));
        }
        Ok(Some(manifest))
    }
}

/// N of `build-N`.
fn build_number(name: &str) -> Option<u64> {
    let number: u64 = name.strip_prefix(BUILD)?.parse().ok()?;
    (format!("{BUILD}{number}") == name).then_some(number)
}

/// Builds an index in the folder `path`. The folder is made if it is not there; if it is, it must be empty, or an index,
/// finished or not.
///
/// # Errors
/// [`Error::Exists`] without [`BuildOptions::force`]; [`Error::NoIndex`] for a folder of something else;
/// [`Error::Busy`], [`Error::NoDocuments`], [`Error::SameId`], [`Error::Option`]; those of the model and of writing.
pub fn build(
    path: &Path,
    documents: &[Document],
    options: BuildOptions<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let bm25 = options.bm25.check()?;
    check_ids(documents)?;
    let (_lock, before) = lock(path, options.force)?;
    let newest = remove_builds_but(path, before.as_ref().map(|manifest| manifest.build.as_str()))?;
    let build = format!("{BUILD}{}", newest + 1);
    let folder = path.join(&build);
    let unfinished = Unfinished(Some(&folder));
    fs::create_dir(&folder).map_err(io_error(&folder))?;

    let ids = folder.join(IDS);
    write_file(&ids, |file| {
        documents.iter().try_for_each(|document| {
            serde_json::to_writer(&mut *file, &document.id)?;
            file.write_all(b"\n")
        })
    })?;
    let texts = documents.iter().map(|document| document.text.as_str());
    bm25::write(&folder.join(POSTINGS), texts, options.threads, |done| progress(Progress::Postings(done)))?;
    let dense = match options.dense {
        None => None,
        Some((model, name)) => {
            write_vectors(&folder.join(VECTORS), documents, model, progress)?;
            Some(DenseInfo::of(model, name)?)
        }
    };

    progress(Progress::Finishing);
    let files = sync(&folder)?;
    let manifest = Manifest {
        format: FORMAT,
        created_with: format!("jointly {}", env!("CARGO_PKG_VERSION")),
        build: build.clone(),
        documents: documents.len(),
        bm25,
        dense,
        files,
    };
    let new = path.join(format!("{MANIFEST}.new"));
    write_file(&new, |file| Ok(serde_json::to_writer_pretty(file, &manifest)?))?;
    sync_one(&new)?;
    fs::rename(&new, path.join(MANIFEST)).map_err(io_error(&new))?;
    unfinished.keep();
    sync_one(path)?;
    remove_builds_but(path, Some(&build))?;
    Ok(())
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { path: path.to_path_buf(), source }
}

fn check_ids(documents: &[Document]) -> Result<()> {
    let mut places = HashMap::with_capacity(documents.len());
    for (second, Document { id, .. }) in documents.iter().enumerate() {
        if let Some(first) = places.insert(id.as_str(), second) {
            return Err(Error::SameId { id: id.clone(), first, second });
        }
    }
    // Places are kept in 32 bits.
    match documents.len() {
        0 => Err(Error::NoDocuments),
        count if u32::try_from(count).is_err() => Err(Error::Option {
            name: "the number of documents",
            found: count as f64,
            expected: "below 2^32",
        }),
        _ => Ok(()),
    }
}

/// Makes the folder this process's own, for as long as the file is open; and gives the manifest of what was there.
fn lock(path: &Path, force: bool) -> Result<(File, Option<Manifest>)> {
    if path.exists() && !path.join(LOCK).exists() {
        let mut entries = fs::read_dir(path).map_err(io_error(path))?;
        if entries.next().is_some() {
            let problem = "a folder of something else; an index goes into a new one, or an empty one";
            return Err(Error::NoIndex { path: path.to_path_buf(), problem });
        }
    }
    fs::create_dir_all(path).map_err(io_error(path))?;
    let file = path.join(LOCK);
    let lock = File::options().create(true).append(true).open(&file).map_err(io_error(&file))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Busy { path: path.to_path_buf() }),
        Err(TryLockError::Error(source)) => return Err(Error::Io { path: file, source }),
    }
    match Manifest::read(path) {
        Ok(Some(_)) if !force => Err(Error::Exists { path: path.to_path_buf() }),
        Ok(manifest) => Ok((lock, manifest)),
        // What cannot be read is no reason not to replace it.
        Err(Error::Damaged { .. }) if force => Ok((lock, None)),
        Err(error) => Err(error),
    }
}

/// Removes what unfinished builds left, and gives the largest number that any build has had.
fn remove_builds_but(path: &Path, kept: Option<&str>) -> Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(path).map_err(io_error(path))? {
        let name = entry.map_err(io_error(path))?.file_name();
        let Some((name, number)) = name.to_str().and_then(|name| Some((name, build_number(name)?))) else {
            continue;
        };
        newest = newest.max(number);
        if Some(name) != kept {
            let folder = path.join(name);
            fs::remove_dir_all(&folder).map_err(io_error(&folder))?;
        }
    }
    Ok(newest)
}

/// A build's folder, which goes if the build fails.
struct Unfinished<'a>(Option<&'a Path>);

impl Unfinished<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(folder) = self.0 {
            // If it stays, the next build removes it.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn write_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let written = || {
        let mut file = BufWriter::new(File::create(path)?);
        write(&mut file)?;
        file.flush()
    };
    written().map_err(io_error(path))
}

fn write_vectors(
    path: &Path,
    documents: &[Document],
    model: &BiEncoder,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).map_err(io_error(path))?);
    for (number, some) in documents.chunks(EMBEDDED_AT_ONCE).enumerate() {
        let texts: Vec<&str> = some.iter().map(|document| document.text.as_str()).collect();
        let vectors = model.embed(&texts, Role::Document).map_err(|error| match error {
            jointly::Error::EmbeddingNotFinite { index, value } => {
                jointly::Error::EmbeddingNotFinite { index: number * EMBEDDED_AT_ONCE + index, value }
            }
            error => error,
        })?;
        file.write_all(dense::bytes(&vectors)).map_err(io_error(path))?;
        progress(Progress::Vectors(number * EMBEDDED_AT_ONCE + some.len()));
    }
    file.flush().map_err(io_error(path))
}

/// Puts everything below a folder on disk, and gives the size of each file. Locks are not among them.
fn sync(folder: &Path) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        for entry in fs::read_dir(&path).map_err(io_error(&path))? {
            let entry = entry.map_err(io_error(&path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = if below.is_empty() { name } else { format!("{below}/{name}") };
            let metadata = entry.metadata().map_err(io_error(&entry.path()))?;
            if metadata.is_dir() {
                folders.push(name);
            } else if !name.ends_with(".lock") {
                sync_one(&entry.path())?;
                files.push((name, metadata.len()));
            }
        }
        sync_one(&path)?;
    }
    files.sort_unstable();
    Ok(files)
}

fn sync_one(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error(path))
}

/// An index, opened for searching. It is never written to.
pub struct Index {
    path: PathBuf,
    manifest: Manifest,
    ids: Vec<String>,
    postings: Bm25,
    vectors: Option<Vectors>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("path", &self.path)
            .field("documents", &self.len())
            .finish_non_exhaustive()
    }
}

impl Index {
    /// Opens an index, and checks that its files are there in the sizes that they had.
    ///
    /// # Errors
    /// [`Error::NoIndex`], [`Error::Damaged`], [`Error::Postings`], [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let problem = match Manifest::read(path)? {
            Some(manifest) => return Self::open_build(path, manifest),
            None if !path.exists() => "there is no such index; `jointly index` builds one",
            None if path.join(LOCK).exists() => {
                "its building did not finish; build it again with `jointly index`"
            }
            None => "not an index: it has no manifest.json",
        };
        Err(Error::NoIndex { path: path.to_path_buf(), problem })
    }

    fn open_build(path: &Path, manifest: Manifest) -> Result<Self> {
        let folder = path.join(&manifest.build);
        for (name, size) in &manifest.files {
            let file = folder.join(name);
            let problem = match fs::metadata(&file) {
                Ok(found) if found.len() == *size => continue,
                Ok(found) => format!("{} bytes instead of {size}", found.len()),
                Err(error) => error.to_string(),
            };
            return Err(Error::Damaged { path: file, problem });
        }
        let damaged = |name: &str, problem: String| Error::Damaged { path: folder.join(name), problem };
        let mut ids = Vec::new();
        let file = folder.join(IDS);
        for line in BufReader::new(File::open(&file).map_err(io_error(&file))?).lines() {
            let line = line.map_err(io_error(&file))?;
            ids.push(serde_json::from_str(&line).map_err(|error| damaged(IDS, error.to_string()))?);
        }
        let postings = Bm25::open(&folder.join(POSTINGS))?;
        for (name, found) in [(IDS, ids.len() as u64), (POSTINGS, postings.documents())] {
            if found != manifest.documents as u64 {
                return Err(damaged(name, format!("{found} documents instead of {}", manifest.documents)));
            }
        }
        let vectors = match &manifest.dense {
            None => None,
            Some(dense) => Some(Vectors::open(&folder, VECTORS, manifest.documents, dense.dimensions)?),
        };
        Ok(Self { path: path.to_path_buf(), manifest, ids, postings, vectors })
    }

    /// The number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none, which [`build`] refuses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The id of a document.
    ///
    /// # Panics
    /// If it is not one of this index's hits.
    #[must_use]
    pub fn id(&self, document: u32) -> &str {
        &self.ids[document as usize]
    }

    /// The parameters that the index was built with.
    #[must_use]
    pub fn bm25_parameters(&self) -> Parameters {
        self.manifest.bm25
    }

    /// What made its vectors, if it has any.
    #[must_use]
    pub fn dense_info(&self) -> Option<&DenseInfo> {
        self.manifest.dense.as_ref()
    }

    /// The vector of a document.
    ///
    /// # Errors
    /// [`Error::NoVectors`]; [`Error::Damaged`] for a document that is not one of this index's.
    pub fn vector(&self, document: u32) -> Result<&[f32]> {
        self.vectors.as_ref().ok_or_else(|| self.no_vectors())?.row(document)
    }

    /// The best `k` documents for each query by BM25, best first; only documents that share a term with it.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Postings`].
    pub fn bm25<Q: AsRef<str> + Sync>(
        &self,
        queries: &[Q],
        parameters: Parameters,
        k: usize,
        threads: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        self.postings.search(queries, parameters, k, threads)
    }

    /// The best `k` documents for each query by the product of their vectors, best first. `model` is the one that made
    /// them ([`Index::check_files`]); it says how many threads.
    ///
    /// # Errors
    /// Those of [`Index::check_model`] and of the model; [`Error::Damaged`].
    pub fn dense<Q: AsRef<str> + Sync>(
        &self,
        queries: &[Q],
        model: &BiEncoder,
        k: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        let vectors = self.vectors.as_ref().ok_or_else(|| self.no_vectors())?;
        self.check_model(model)?;
        let queries = model.embed(queries, Role::Query)?;
        vectors.search(&queries, k, model.info().threads)
    }

    /// The best `k` documents for each query by both, fused by reciprocal rank ([`fusion`]).
    ///
    /// # Errors
    /// Those of [`Index::bm25`] and [`Index::dense`].
    pub fn hybrid<Q: AsRef<str> + Sync>(
        &self,
        queries: &[Q],
        parameters: Parameters,
        model: &BiEncoder,
        k: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        let depth = k.max(LEAST_FUSED);
        let dense = self.dense(queries, model, depth)?;
        let bm25 = self.bm25(queries, parameters, depth, model.info().threads)?;
        let both = bm25.iter().zip(&dense);
        Ok(both.map(|(bm25, dense)| fusion::reciprocal_rank(&[bm25, dense], k)).collect())
    }

    /// Refuses a model's files if they are not those of the model that made this index's vectors. In the folder `cache` (that of packed
    /// weights) their hash is kept.
    ///
    /// # Errors
    /// [`Error::NoVectors`], [`Error::OtherModel`], those of reading the files.
    pub fn check_files(&self, files: &ModelFiles, cache: Option<&Path>) -> Result<()> {
        let made = self.dense_info().ok_or_else(|| self.no_vectors())?;
        if jointly::kept_identity(files, cache)? != made.sha256 {
            let problem = format!("the files of {} are not those of {} then", files.describe(), made.model);
            return Err(self.other_model(problem));
        }
        Ok(())
    }

    /// Refuses a model that was not loaded as the one that made this index's vectors. Its files are the business of
    /// [`Index::check_files`].
    ///
    /// # Errors
    /// [`Error::NoVectors`], [`Error::OtherModel`].
    pub fn check_model(&self, model: &BiEncoder) -> Result<()> {
        let made = self.dense_info().ok_or_else(|| self.no_vectors())?;
        let found = model.info();
        let problem = if found.precision.to_string() != made.precision {
            format!("in {}, and this is {}", made.precision, found.precision)
        } else if found.max_length != made.max_length {
            format!("reading up to {} tokens, and this reads {}", made.max_length, found.max_length)
        } else if found.dimensions != made.dimensions {
            format!("they have {} values, and this makes {}", made.dimensions, found.dimensions)
        } else {
            return Ok(());
        };
        Err(self.other_model(problem))
    }

    fn no_vectors(&self) -> Error {
        Error::NoVectors { path: self.path.clone() }
    }

    fn other_model(&self, problem: String) -> Error {
        Error::OtherModel { path: self.path.clone(), problem }
    }
}
