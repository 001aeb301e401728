//! Where packed weights are kept, and what tells that they are still those of the model that is being loaded.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jointly_kernels::{Isa, Precision};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::{Bytes, ModelFiles};
use crate::network;
use crate::nn::Observation;
use crate::receipt::{self, PinnedFile, hexadecimal};
use crate::weights::{Form, Packed, PackedFile, PackedWriter, for_this_user, make_folder};

/// What the packed bytes mean and how they are come by. Every change of either is a new number; a test holds the bytes.
const VERSION: u32 = 1;
/// A file may change twice within one tick of its clock: one that was written this shortly before may be another already.
const TICK: Duration = Duration::from_secs(2);
/// Characters of a SHA-256.
const HASH: usize = 64;

/// What was done about packed weights when a model was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackedCacheState {
    /// Nothing: no folder was named.
    Off,
    /// They were there, and are mapped into memory.
    Mapped,
    /// They were not there, or not those of this model, and now they are.
    Written,
    /// They were not there, and are written another time: another process is at it, or the model's files are so young that they
    /// may still change.
    Postponed,
    /// They were not there and could not be written, for this reason. The model is loaded all the same.
    NotWritten(String),
}

/// The folder `jointly/<name>` in the user's folder for caches, if the user has one: in XDG_CACHE_HOME, LOCALAPPDATA or `~/.cache`.
#[must_use]
pub fn cache_folder(name: &str) -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = named("XDG_CACHE_HOME")
        .or_else(|| named("LOCALAPPDATA"))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(caches.join("jointly").join(name))
}

/// The folder for packed weights that the environment names, for [`LoadOptions::packed_cache`](crate::LoadOptions::packed_cache):
/// JOINTLY_PACKED_CACHE, or none if that is `off`, else [`cache_folder`]`("packed")`. Without a home there is nowhere to keep
/// them, which is no reason to fail.
#[must_use]
pub fn packed_cache_folder() -> Option<PathBuf> {
    match std::env::var_os("JOINTLY_PACKED_CACHE") {
        Some(value) if value == "off" => None,
        Some(value) if !value.is_empty() => Some(PathBuf::from(value)),
        _ => cache_folder("packed"),
    }
}

/// The place of one model's packed weights in one precision.
#[derive(Debug)]
pub(crate) struct PackedCache {
    path: PathBuf,
    /// What they are made of and by, a line for each thing.
    made: String,
    /// When the youngest file that they are made of was written.
    youngest: Option<SystemTime>,
}

/// What is loaded: the same folder may be read as either, and int8 is fitted to other runs then.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Cross,
    Bi,
}

impl PackedCache {
    /// In `folder`. `pins` are the hashes of the model's receipt.
    pub(crate) fn of(
        folder: &Path,
        files: &ModelFiles,
        pins: &[PinnedFile],
        (kind, precision, isa): (Kind, Precision, Isa),
    ) -> Result<Self> {
        // Of one model in one place there is one file, however often it changes.
        let place = format!("{kind:?} {precision} {isa} {}", place(files)?);
        let (stamps, youngest) = stamps(files, pins)?;
        let order = if cfg!(target_endian = "little") { "little" } else { "big" };
        let texts = hexadecimal(&Sha256::digest(format!("{:?}", network::texts_to_observe())));
        let made = format!(
            "jointly {} packing {VERSION} {order}\n{place}\n{texts}\n{stamps}",
            env!("CARGO_PKG_VERSION")
        );
        Ok(Self { path: folder.join(format!("{}.packed", name_of(&place))), made, youngest })
    }

    fn open(&self) -> Option<Packed> {
        PackedFile::open(&self.path, &self.made).map(|file| Packed::Mapped(Arc::new(file)))
    }

    fn create(&self) -> std::result::Result<Arc<PackedWriter>, PackedCacheState> {
        if is_young(self.youngest) {
            return Err(PackedCacheState::Postponed);
        }
        PackedWriter::create(self.path.clone()).map(Arc::new).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => PackedCacheState::Postponed,
            _ => self.not_written(&error),
        })
    }

    fn not_written(&self, error: &io::Error) -> PackedCacheState {
        PackedCacheState::NotWritten(format!("{}: {error}", self.path.display()))
    }
}

/// Loads a model: `build` with the packed weights of `cache`, if they are there and it succeeds; else with those that it
/// packs after `observe`, which are then written there.
pub(crate) fn load<T>(
    precision: Precision,
    cache: impl Fn() -> Result<Option<PackedCache>>,
    observe: impl FnOnce() -> Result<Observation>,
    build: impl Fn(Form) -> Result<T>,
) -> Result<(T, PackedCacheState)> {
    let found = cache()?;
    if let Some(packed) = found.as_ref().and_then(PackedCache::open) {
        // What does not succeed with them is tried without them, whatever it is.
        if let Ok(model) = build(Form { precision, packed, ..Form::default() }) {
            return Ok((model, PackedCacheState::Mapped));
        }
    }
    let convert = |observation, packed| build(Form { precision, observation, packed, ..Form::default() });
    let observation = observe()?;
    let Some(found) = found else { return Ok((convert(observation, Packed::None)?, PackedCacheState::Off)) };
    let writer = match found.create() {
        Ok(writer) => writer,
        Err(state) => return Ok((convert(observation, Packed::None)?, state)),
    };
    let model = convert(observation, Packed::Write(Arc::clone(&writer)))?;
    // What was packed of files that changed meanwhile is of no model.
    let state = match cache()? {
        Some(now) if now.made == found.made => match writer.finish(&found.made) {
            Ok(()) => PackedCacheState::Written,
            Err(error) => found.not_written(&error),
        },
        _ => PackedCacheState::Postponed,
    };
    Ok((model, state))
}

/// [`receipt::identity`] of a model, which is kept in the folder for packed weights: to hash the weights takes longer than to load
/// them. Without a folder, or where nothing can be kept in it, it is computed each time.
///
/// # Errors
/// Those of reading the files.
pub fn kept_identity(files: &ModelFiles, cache: Option<&Path>) -> Result<String> {
    let (ModelFiles::Folder(_), Some(folder)) = (files, cache) else { return receipt::identity(files) };
    let place = format!("identity {}", place(files)?);
    let (made, youngest) = stamps(files, &[])?;
    let path = folder.join(format!("{}.identity", name_of(&place)));
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if let Some((identity, of)) = kept.split_once(' ')
        && of == made
        && identity.len() == HASH
    {
        return Ok(identity.to_string());
    }
    let identity = receipt::identity(files)?;
    // What changed while it was read, or may change unseen, is hashed again at the next start. So is what could not be written.
    if !is_young(youngest) && stamps(files, &[])?.0 == made {
        let _ = keep(folder, &path, &format!("{identity} {made}"));
    }
    Ok(identity)
}

/// Writes a file whole or not at all.
fn keep(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    make_folder(folder)?;
    let temporary = path.with_added_extension(std::process::id().to_string());
    for_this_user().create(true).truncate(true).open(&temporary)?.write_all(text.as_bytes())?;
    fs::rename(temporary, path)
}

/// The name of a model's file in the cache, without its ending.
fn name_of(place: &str) -> String {
    hexadecimal(&Sha256::digest(place))[..32].to_string()
}

fn is_young(written: Option<SystemTime>) -> bool {
    let age = |written| SystemTime::now().duration_since(written).unwrap_or_default();
    written.is_some_and(|written| age(written) < TICK)
}

/// Where a model is.
fn place(files: &ModelFiles) -> Result<String> {
    match files {
        ModelFiles::Folder(path) => Ok(canonical(path)?.display().to_string()),
        ModelFiles::Bundle(bundle) => Ok(canonical(bundle.path())?.display().to_string()),
        ModelFiles::Memory { name, .. } => Ok(name.clone()),
    }
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

/// A line for each file that scores depend on, which changes when its content does; and when the youngest was written.
fn stamps(files: &ModelFiles, pins: &[PinnedFile]) -> Result<(String, Option<SystemTime>)> {
    let (mut stamps, mut youngest) = (String::new(), None);
    for name in receipt::names(files)? {
        let stamp = match files {
            ModelFiles::Folder(folder) => {
                let (stamp, written) = stamp(&folder.join(&name))?;
                youngest = youngest.max(written);
                stamp
            }
            // Checked when the bundle was opened.
            ModelFiles::Bundle(bundle) => bundle.sha256(&name).unwrap_or_default().to_string(),
            ModelFiles::Memory { files, .. } => match files.get(&name) {
                // What is compiled in does not change under its receipt; a test compares them for the default model.
                Some(bytes @ Bytes::Static(_)) => match pins.iter().find(|pin| pin.name == name) {
                    Some(pin) if pin.size == bytes.len() as u64 => pin.sha256.clone(),
                    _ => hexadecimal(&Sha256::digest(&bytes[..])),
                },
                Some(bytes) => hexadecimal(&Sha256::digest(&bytes[..])),
                None => String::new(),
            },
        };
        stamps += &format!("{name} {stamp}\n");
    }
    Ok((stamps, youngest))
}

/// What the system knows of a file that is another thing after every change of it: the hash of a model of two gigabytes
/// would take longer than all the rest.
fn stamp(path: &Path) -> Result<(String, Option<SystemTime>)> {
    let found = canonical(path)?;
    let metadata = fs::metadata(&found).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let written = metadata.modified().ok();
    let since = written.and_then(|written| written.duration_since(SystemTime::UNIX_EPOCH).ok());
    let mut stamp = format!("{} {} {since:?}", found.display(), metadata.len());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // No program can set the time of change: it shows a file whose other times were restored.
        let [device, inode] = [metadata.dev(), metadata.ino()];
        stamp += &format!(" {device} {inode} {}.{}", metadata.ctime(), metadata.ctime_nsec());
    }
    Ok((stamp, written))
}
