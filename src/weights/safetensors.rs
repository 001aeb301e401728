//! Reading safetensors, single or sharded, without trusting a byte of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use jointly_cuda::{Device, Format};
use jointly_kernels::{Kernels, Precision};
use serde::Deserialize;

use super::Packed;
use crate::error::{Error, Result};
use crate::files::{Bytes, ModelFiles};
use crate::nn::Observation;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The largest published checkpoints have a few hundred shards.
const MAX_SHARDS: usize = 1_000;

/// The number formats that weights are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
}

impl Dtype {
    /// Bytes per value.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The same on a device.
    #[must_use]
    pub fn format(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::F16 => Format::F16,
            Self::Bf16 => Format::Bf16,
        }
    }

    /// As written in `config.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: ::safetensors::Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// All tensors of one model.
#[derive(Debug)]
pub struct Checkpoint {
    folder: String,
    files: Vec<Bytes>,
    tensors: HashMap<String, Entry>,
}

/// The name of a file in a folder of the model; `folder` is empty for the model's own.
pub(crate) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens `model.safetensors` in the folder `below` ("" for the model's own), or the shards that
    /// `model.safetensors.index.json` lists there.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Weights`] for a damaged file or an index that does not fit its shards.
    pub fn open(files: &ModelFiles, below: &str) -> Result<Self> {
        let mut checkpoint = Self { folder: files.describe(), files: Vec::new(), tensors: HashMap::new() };
        let (single, index_name) = (join(below, SINGLE), join(below, INDEX));
        if files.exists(&single) || !files.exists(&index_name) {
            checkpoint.add(files, &single)?;
            return Ok(checkpoint);
        }
        let index: Index = files.json(&index_name)?;
        let damaged = |problem| Error::Weights { file: files.name_of(&index_name), problem };
        let mut shards: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
        shards.sort_unstable();
        shards.dedup();
        if shards.len() > MAX_SHARDS {
            return Err(damaged(format!("{} shards; the limit is {MAX_SHARDS}", shards.len())));
        }
        for shard in shards {
            if shard.contains(['/', '\\']) || !shard.ends_with(".safetensors") {
                return Err(damaged(format!("{shard:?} is not the name of a shard in this folder")));
            }
            checkpoint.add(files, &join(below, shard))?;
        }
        for (tensor, shard) in &index.weight_map {
            if !checkpoint.tensors.contains_key(tensor) {
                return Err(damaged(format!("tensor {tensor} is not in {shard}")));
            }
        }
        Ok(checkpoint)
    }

    fn add(&mut self, files: &ModelFiles, name: &str) -> Result<()> {
        let bytes = files.map(name)?;
        let damaged = |problem| Error::Weights { file: files.name_of(name), problem };
        if bytes.starts_with(b"version https://git-lfs") {
            return Err(damaged("a Git LFS pointer, not the weights; `git lfs pull` fetches them".into()));
        }
        let (header, metadata) = ::safetensors::SafeTensors::read_metadata(&bytes)
            .map_err(|error| damaged(format!("not a whole safetensors file: {error}")))?;
        let data = 8 + header;
        let file = self.files.len();
        for (tensor, info) in metadata.tensors() {
            let range = data + info.data_offsets.0..data + info.data_offsets.1;
            if range.end > bytes.len() {
                return Err(damaged(format!("tensor {tensor} ends beyond the end of the file")));
            }
            let entry = Entry { file, dtype: info.dtype, shape: info.shape.clone(), range };
            if self.tensors.insert(tensor.clone(), entry).is_some() {
                return Err(damaged(format!("tensor {tensor} stands in two shards")));
            }
        }
        self.files.push(bytes);
        Ok(())
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether any tensor's name begins with `prefix`.
    #[must_use]
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(prefix))
    }

    /// The number of values in all tensors.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|entry| entry.shape.iter().product::<usize>()).sum()
    }

    /// The number format that most values are in.
    #[must_use]
    pub fn dtype(&self) -> Option<Dtype> {
        let mut counts: BTreeMap<Dtype, usize> = BTreeMap::new();
        for entry in self.tensors.values() {
            if let Some(dtype) = dtype_of(entry.dtype) {
                *counts.entry(dtype).or_default() += entry.range.len();
            }
        }
        counts.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(dtype, _)| dtype)
    }

    /// The root of the tree of names, in f32.
    #[must_use]
    pub fn root<'a>(&'a self, kernels: &'static Kernels) -> Scope<'a> {
        Scope { checkpoint: self, kernels, form: Form::default(), prefix: String::new() }
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<(&Entry, &[u8], Dtype)> {
        let entry = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::MissingTensor { folder: self.folder.clone(), name: name.to_string() })?;
        if entry.shape != shape {
            return Err(Error::TensorShape {
                folder: self.folder.clone(),
                name: name.to_string(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        let dtype = dtype_of(entry.dtype).ok_or_else(|| Error::TensorDtype {
            folder: self.folder.clone(),
            name: name.to_string(),
            found: format!("{:?}", entry.dtype),
        })?;
        let bytes = &self.files[entry.file][entry.range.clone()];
        let expected = shape.iter().try_fold(dtype.size(), |bytes, dim| bytes.checked_mul(*dim));
        if expected != Some(bytes.len()) {
            return Err(Error::Weights {
                file: self.folder.clone(),
                problem: format!("tensor {name} has {} bytes, which its shape does not give", bytes.len()),
            });
        }
        Ok((entry, bytes, dtype))
    }
}

fn dtype_of(dtype: ::safetensors::Dtype) -> Option<Dtype> {
    match dtype {
        ::safetensors::Dtype::F32 => Some(Dtype::F32),
        ::safetensors::Dtype::F16 => Some(Dtype::F16),
        ::safetensors::Dtype::BF16 => Some(Dtype::Bf16),
        _ => None,
    }
}

/// Converts little-endian values of `dtype` to f32. `out` has one place for each.
fn convert(kernels: &Kernels, bytes: &[u8], dtype: Dtype, out: &mut [f32]) {
    if dtype == Dtype::F32 {
        for (out, value) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *out = f32::from_le_bytes(*value);
        }
        return;
    }
    // Through a small buffer: the bytes of a file need not be aligned for u16.
    let mut halves = [0_u16; 1024];
    for (out, bytes) in out.chunks_mut(halves.len()).zip(bytes.chunks(2 * halves.len())) {
        let halves = &mut halves[..out.len()];
        for (half, value) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = u16::from_le_bytes(*value);
        }
        match dtype {
            Dtype::Bf16 => kernels.bf16_to_f32(halves, out),
            _ => kernels.f16_to_f32(halves, out),
        }
    }
}

/// Whether none of the little-endian values is a NaN or an infinity: those have all bits of the exponent set.
fn has_no_special(bytes: &[u8], dtype: Dtype) -> bool {
    let halves = |exponent: u16| {
        bytes.as_chunks::<2>().0.iter().all(|value| u16::from_le_bytes(*value) & exponent != exponent)
    };
    match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().all(|value| f32::from_le_bytes(*value).is_finite()),
        Dtype::F16 => halves(0x7c00),
        Dtype::Bf16 => halves(0x7f80),
    }
}

/// What layers make of their weights.
#[derive(Debug, Clone, Default)]
pub struct Form {
    /// The precision that they multiply in.
    pub precision: Precision,
    /// Whether they record their inputs, or use what was recorded.
    pub observation: Observation,
    /// Whether packed weights are at hand, or to be written.
    pub packed: Packed,
    /// Where they lie, and where the layers compute; none for this process's memory.
    pub device: Option<Arc<Device>>,
}

/// A place in the tree of tensor names, `encoder.layer.3.` for example.
#[derive(Clone)]
pub struct Scope<'a> {
    checkpoint: &'a Checkpoint,
    kernels: &'static Kernels,
    form: Form,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// The same place, below which layers have another form.
    #[must_use]
    pub fn in_form(&self, form: Form) -> Self {
        Self { form, ..self.clone() }
    }

    /// The form of the layers below.
    #[must_use]
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// The scope below this one.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: format!("{}{name}.", self.prefix), ..self.clone() }
    }

    /// The scope below this one if any tensor lives there, else this one. (Trunks are published with and without
    /// the name of the class in front.)
    #[must_use]
    pub fn at_optional(&self, name: &str) -> Self {
        let below = self.at(name);
        if below.has_any() { below } else { self.clone() }
    }

    /// Whether any tensor is below this scope.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.checkpoint.has_prefix(&self.prefix)
    }

    /// Whether the tensor is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.has(&self.full(name))
    }

    /// The tensor's shape, if it is there.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.checkpoint.tensors.get(&self.full(name)).map(|entry| entry.shape.as_slice())
    }

    /// The kernels that this model will run on.
    #[must_use]
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// The error for a checkpoint that was saved without its score head.
    #[must_use]
    pub fn no_score_head(&self, problem: String) -> Error {
        Error::NoScoreHead { folder: self.checkpoint.folder.clone(), problem }
    }

    /// The tensor's name in the checkpoint.
    #[must_use]
    pub fn full(&self, name: &str) -> String {
        let full = format!("{}{name}", self.prefix);
        if self.checkpoint.has(&full) {
            return full;
        }
        // Checkpoints converted from TensorFlow call the parameters of LayerNorm gamma and beta.
        let old = match name {
            "weight" => format!("{}gamma", self.prefix),
            "bias" => format!("{}beta", self.prefix),
            _ => return full,
        };
        if self.checkpoint.has(&old) { old } else { full }
    }

    /// A tensor as f32, row-major.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`], [`Error::TensorDtype`], [`Error::TensorNotFinite`].
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let name = self.full(name);
        let (_, bytes, dtype) = self.checkpoint.entry(&name, shape)?;
        let mut out = vec![0.0; bytes.len() / dtype.size()];
        convert(self.kernels, bytes, dtype, &mut out);
        self.finite(&name, out.iter().all(|value| value.is_finite()))?;
        Ok(out)
    }

    /// A tensor as bytes of `format`, row-major: those of the checkpoint, if they are in that format.
    ///
    /// # Errors
    /// As [`Scope::values`].
    pub fn bytes(&self, name: &str, shape: &[usize], format: Format) -> Result<Cow<'a, [u8]>> {
        let (_, bytes, dtype) = self.checkpoint.entry(&self.full(name), shape)?;
        if dtype.format() == format && cfg!(target_endian = "little") {
            self.finite(&self.full(name), has_no_special(bytes, dtype))?;
            return Ok(Cow::Borrowed(bytes));
        }
        let values = self.values(name, shape)?;
        Ok(Cow::Owned(match format {
            Format::F32 => values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
            Format::Bf16 => {
                values.iter().flat_map(|value| half::bf16::from_f32(*value).to_ne_bytes()).collect()
            }
            Format::F16 => {
                let halves: Vec<half::f16> = values.iter().map(|value| half::f16::from_f32(*value)).collect();
                // What is beyond 65,504 has no place in this format.
                self.finite(&self.full(name), halves.iter().all(|value| value.is_finite()))?;
                halves.iter().flat_map(|value| value.to_ne_bytes()).collect()
            }
        }))
    }

    /// An embedding table `[rows, columns]`, left where it is and converted row by row when looked up.
    ///
    /// # Errors
    /// As [`Scope::values`], but for values that are not finite: those show in the logit.
    pub fn table(&self, name: &str, rows: usize, columns: usize) -> Result<Table> {
        let name = self.full(name);
        let (entry, _, dtype) = self.checkpoint.entry(&name, &[rows, columns])?;
        let bytes = self.checkpoint.files[entry.file].clone();
        Ok(Table { bytes, range: entry.range.clone(), dtype, rows, columns, kernels: self.kernels })
    }

    fn finite(&self, name: &str, is_finite: bool) -> Result<()> {
        if is_finite {
            return Ok(());
        }
        Err(Error::TensorNotFinite { folder: self.checkpoint.folder.clone(), name: name.to_string() })
    }
}

/// A table of rows in the checkpoint's own number format.
#[derive(Debug)]
pub struct Table {
    bytes: Bytes,
    range: Range<usize>,
    dtype: Dtype,
    rows: usize,
    columns: usize,
    kernels: &'static Kernels,
}

impl Table {
    /// All of it, as it lies in the checkpoint.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    /// The number format of [`bytes`](Self::bytes).
    pub(crate) fn format(&self) -> Format {
        self.dtype.format()
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes row `row` to `out`, which has one place for each column. A row beyond the table gives zeros; callers
    /// check ids when a batch is made.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        if row >= self.rows {
            out.fill(0.0);
            return;
        }
        let size = self.columns * self.dtype.size();
        let start = self.range.start + row * size;
        convert(self.kernels, &self.bytes[start..start + size], self.dtype, out);
    }
}
