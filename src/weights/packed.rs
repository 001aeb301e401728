//! Packed weights in a file: what the layers of a trunk multiply with, as it lies in memory, so that the next process maps
//! it instead of converting the checkpoint again.
//!
//! ```text
//! 0      magic [8], place and length of the table [2 u64], checksum of all that follows the header [u64], zeros [3 u64],
//!        checksum of these 56 bytes [u64]; integers are little-endian
//! 64     for each layer its weight (`PackedMatrix::image`), then its bias [f32], each part at a multiple of 64
//! table  JSON: what the file was made of and by, and the layers' names, shapes and places
//! ```
//!
//! A file that is not whole, or was made of or by anything else, is as good as none.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jointly_kernels::{PackedMatrix, Precision, Shape, SharedBytes};
use serde::{Deserialize, Serialize};

use super::mmap::{self, Mapping};
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"jpacked\n";
/// A cache line: layers begin at one, and the checksum takes as much at once.
const LINE: usize = 64;
/// The part of the header, a line, that its own checksum is of.
const HEADER: usize = LINE - 8;

/// What the layers of a trunk do about packed weights.
#[derive(Debug, Clone, Default)]
pub enum Packed {
    /// Nothing: they convert the checkpoint's.
    #[default]
    None,
    /// Convert, and write what they have.
    Write(Arc<PackedWriter>),
    /// Take what another process wrote.
    Mapped(Arc<PackedFile>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Table {
    made: String,
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Layer {
    name: String,
    n: usize,
    k: usize,
    precision: String,
    smoothed: bool,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
}

/// Catches what disks and interrupted writers do to a file, at the speed of memory. Eight lanes; each step is a bijection of
/// its lane, so that a change of one word is never missed.
struct Checksum([u64; 8]);

impl Checksum {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15; // odd: 2^64 divided by the golden ratio

    fn new() -> Self {
        Self([1, 2, 3, 4, 5, 6, 7, 8])
    }

    fn step(sum: u64, word: u64) -> u64 {
        (sum ^ word).wrapping_mul(Self::FACTOR).rotate_left(29)
    }

    /// `bytes` are whole words, and begin at the first lane.
    fn add(&mut self, bytes: &[u8]) {
        for line in bytes.chunks(LINE) {
            for (sum, word) in self.0.iter_mut().zip(line.as_chunks::<8>().0) {
                *sum = Self::step(*sum, u64::from_le_bytes(*word));
            }
        }
    }

    fn finish(&self) -> u64 {
        self.0.into_iter().fold(0, Self::step)
    }

    fn of(bytes: &[u8]) -> u64 {
        let mut checksum = Self::new();
        checksum.add(bytes);
        checksum.finish()
    }
}

/// A file of packed weights, mapped.
#[derive(Debug)]
pub struct PackedFile {
    path: PathBuf,
    mapping: Arc<Mapping>,
    /// The checksum that the header states, and whether it is right, once that has been asked.
    checksum: u64,
    whole: OnceLock<bool>,
    layers: HashMap<String, Layer>,
}

impl PackedFile {
    /// Maps the file at `path` if it is there, and made of and by what `made` says. Whether it is whole is found out when the first
    /// layer is asked for: a sweep over all of it, which need not wait for, nor keep waiting, what else a load does.
    #[must_use]
    pub fn open(path: &Path, made: &str) -> Option<Self> {
        let mapping = Arc::new(mmap::map(path).ok()?);
        let (header, content) = mapping.split_at_checked(LINE)?;
        let [magic, start, length, checksum, .., own] = *header.as_chunks::<8>().0.first_chunk::<8>()?;
        if magic != MAGIC || u64::from_le_bytes(own) != Checksum::of(&header[..HEADER]) {
            return None;
        }
        let start = usize::try_from(u64::from_le_bytes(start)).ok()?;
        let end = start.checked_add(usize::try_from(u64::from_le_bytes(length)).ok()?)?;
        let table: Table = serde_json::from_slice(mapping.get(start..end)?).ok()?;
        if table.made != made || !content.len().is_multiple_of(LINE) {
            return None;
        }
        let layers = table.layers.into_iter().map(|layer| (layer.name.clone(), layer)).collect();
        let (checksum, whole) = (u64::from_le_bytes(checksum), OnceLock::new());
        Some(Self { path: path.to_path_buf(), mapping, checksum, whole, layers })
    }

    /// The weight `[n, k]` and the bias of a layer.
    pub(crate) fn layer(&self, name: &str, [n, k]: [usize; 2]) -> Result<(PackedMatrix, Option<Vec<f32>>)> {
        let damaged = |problem| Error::Weights { file: self.path.display().to_string(), problem };
        if !self.whole.get_or_init(|| self.checksum == Checksum::of(&self.mapping[LINE..])) {
            return Err(damaged("the checksum is another".to_string()));
        }
        let layer = self.layers.get(name).filter(|layer| (layer.n, layer.k) == (n, k));
        layer
            .and_then(|layer| self.read(layer))
            .ok_or_else(|| damaged(format!("does not hold {name} as {n} x {k}")))
    }

    fn read(&self, layer: &Layer) -> Option<(PackedMatrix, Option<Vec<f32>>)> {
        let Layer { n, k, smoothed, .. } = *layer;
        let precision = Precision::ALL.into_iter().find(|precision| precision.name() == layer.precision)?;
        let shape = Shape { n, k, precision, smoothed };
        let bytes: SharedBytes = Arc::clone(&self.mapping) as SharedBytes;
        let weight = PackedMatrix::from_image(shape, bytes, layer.weight.clone())?;
        let bias = match &layer.bias {
            None => None,
            Some(range) => {
                let values = self.mapping.get(range.clone())?.as_chunks().0.get(..n)?;
                Some(values.iter().map(|value| f32::from_ne_bytes(*value)).collect())
            }
        };
        Some((weight, bias))
    }
}

/// Writes a file of packed weights, whole or not at all: it gets its name when it is finished.
#[derive(Debug)]
pub struct PackedWriter {
    path: PathBuf,
    temporary: PathBuf,
    writing: Mutex<Writing>,
    /// Held as long as this writes `temporary`.
    _lock: File,
}

#[derive(Debug)]
struct Writing {
    file: BufWriter<File>,
    position: usize,
    checksum: Checksum,
    layers: Vec<Layer>,
    /// What went wrong first; nothing is written after it.
    failed: Option<io::Error>,
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checksum").finish_non_exhaustive()
    }
}

impl PackedWriter {
    /// Begins the file that is to be `path`. Its folder is made for this user alone, if it is not there.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::WouldBlock`] if another process writes the same.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        make_folder(path.parent().unwrap_or(Path::new(".")))?;
        let with_ending = |ending: &str| path.with_added_extension(ending);
        // The lock is on a file of its own: the one that is written changes its name while it is held.
        let lock = for_this_user().create(true).truncate(false).open(with_ending("lock"))?;
        lock.try_lock()?;
        let temporary = with_ending("part");
        // What a killed process left of one is mapped by nobody: it never got its name.
        let file = for_this_user().create(true).truncate(true).open(&temporary)?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        file.write_all(&[0; LINE])?;
        let writing =
            Writing { file, position: LINE, checksum: Checksum::new(), layers: Vec::new(), failed: None };
        Ok(Self { path, temporary, writing: Mutex::new(writing), _lock: lock })
    }

    /// Writes a layer.
    pub(crate) fn layer(&self, name: &str, weight: &PackedMatrix, bias: Option<&[f32]>) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if writing.layers.iter().any(|layer| layer.name == name) {
            return; // DeBERTa reads content and positions with one weight
        }
        let Shape { n, k, precision, smoothed } = weight.shape();
        let image = writing.write(&weight.image());
        let bias = bias.map(|bias| {
            let bytes: Vec<u8> = bias.iter().flat_map(|value| value.to_ne_bytes()).collect();
            writing.write(&[&bytes])
        });
        let (name, precision) = (name.to_string(), precision.to_string());
        writing.layers.push(Layer { name, n, k, precision, smoothed, weight: image, bias });
    }

    /// Writes the table and the header, and gives the file its name.
    ///
    /// # Errors
    /// What went wrong first, here or with a layer.
    pub fn finish(&self, made: &str) -> io::Result<()> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let writing = &mut *writing;
        let table = Table { made: made.to_string(), layers: std::mem::take(&mut writing.layers) };
        let table = serde_json::to_vec(&table)?;
        let start = writing.write(&[&table]).start;
        let mut header = MAGIC.to_vec();
        for number in [start as u64, table.len() as u64, writing.checksum.finish()] {
            header.extend(number.to_le_bytes());
        }
        header.resize(HEADER, 0);
        header.extend(Checksum::of(&header).to_le_bytes());
        if let Some(error) = writing.failed.take() {
            return Err(error);
        }
        writing.file.flush()?;
        writing.file.seek(SeekFrom::Start(0))?;
        writing.file.write_all(&header)?;
        writing.file.flush()?;
        // Without a sync: after a loss of power the checksum tells what reached the disk.
        fs::rename(&self.temporary, &self.path)
    }
}

impl Drop for PackedWriter {
    fn drop(&mut self) {
        // If it was finished, there is none.
        _ = fs::remove_file(&self.temporary);
    }
}

impl Writing {
    /// Writes `parts` one after another, each with zeros up to the next line. Gives their place, and that of the zeros.
    fn write(&mut self, parts: &[&[u8]]) -> Range<usize> {
        let start = self.position;
        for part in parts {
            let (whole, rest) = part.split_at(part.len() - part.len() % LINE);
            self.lines(whole);
            if !rest.is_empty() {
                let mut line = [0; LINE];
                line[..rest.len()].copy_from_slice(rest);
                self.lines(&line);
            }
        }
        start..self.position
    }

    fn lines(&mut self, lines: &[u8]) {
        self.checksum.add(lines);
        self.position += lines.len();
        if self.failed.is_none() {
            self.failed = self.file.write_all(lines).err();
        }
    }
}

pub(crate) fn for_this_user() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use jointly_kernels::{Kernels, View};

    use super::*;

    /// While the program's version stays, `packed_cache::VERSION` alone tells files of another packing apart.
    #[test]
    #[cfg(target_endian = "little")]
    fn the_bytes_are_those_of_the_version() {
        let weight: Vec<f32> = (0..70 * 50).map(|i| ((i * 37 % 101) as f32 - 50.0) / 8.0).collect();
        let kernels = Kernels::select().unwrap();
        let sums = Precision::ALL.map(|precision| {
            let mut checksum = Checksum::new();
            let mut packed = kernels.packed(View::new(&weight, 70, 50), precision);
            if precision == Precision::Int8 {
                packed = packed.smoothed(vec![0.5; 50], vec![-1.0; 50]);
            }
            packed.image().iter().for_each(|part| checksum.add(part));
            checksum.finish()
        });
        assert_eq!(
            sums,
            [2_763_688_147_869_089_081, 7_612_182_297_591_352_190, 9_217_801_026_742_764_546],
            "packed weights have other bytes than before: give packed_cache::VERSION a new number, then these"
        );
    }

    #[test]
    fn one_process_writes_and_what_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.packed");
        let create = || PackedWriter::create(path.clone());
        let kernels = Kernels::select().unwrap();
        let weight = kernels.packed(View::new(&[1.0, 2.0], 2, 1), Precision::F32);
        let first = create().unwrap();
        first.layer("w", &weight, Some(&[3.0, 4.0]));
        assert_eq!(create().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(PackedFile::open(&path, "made").is_none() && !path.with_added_extension("part").exists());

        let second = create().unwrap();
        second.layer("w", &weight, Some(&[3.0, 4.0]));
        second.layer("w", &weight, None);
        second.finish("made").unwrap();
        drop(second);
        assert!(PackedFile::open(&path, "another").is_none());
        let file = PackedFile::open(&path, "made").unwrap();
        let (found, bias) = file.layer("w", [2, 1]).unwrap();
        assert_eq!((found.image(), bias), (weight.image(), Some(vec![3.0, 4.0])));
        assert!(file.layer("v", [2, 1]).is_err() && file.layer("w", [1, 2]).is_err());
    }
}
