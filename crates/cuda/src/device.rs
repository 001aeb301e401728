//! Tensors on a device, and the operations on them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{Argument, Backend, Failure, FailureKind, Format, Launch, Memory, Operand, Product};
use crate::kernels;

/// Threads of a block, of kernels that have no use for another number.
const THREADS: usize = 256;
/// What a row of a norm has at most: a block keeps it in its registers.
const MOST_NORM_FEATURES: usize = 8192;
/// What a head has at most.
const MOST_HEAD_DIM: usize = 256;
/// Queries that a block of attention takes at most.
pub const TILE: usize = 64;

/// A device that computes, one forward pass at a time.
pub struct Device {
    backend: Box<dyn Backend>,
    /// The first thing that went wrong since it was last asked about.
    failed: Mutex<Option<Failure>>,
    turn: Mutex<()>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Memory of a device, given back when it is dropped.
struct Buffer {
    device: Arc<Device>,
    address: u64,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.address != 0 {
            self.device.backend.free(self.address);
        }
    }
}

/// Values on a device, row-major, `[rows, cols]`. A clone is the same values; what changes them takes its own first.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    rows: usize,
    cols: usize,
    format: Format,
    is_exact: bool,
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor [{}, {}] {:?} on {}", self.rows, self.cols, self.format, self.buffer.device.name())
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.buffer, &other.buffer)
    }
}

/// A layer's weight `[n, k]` and its bias.
#[derive(Debug)]
pub struct Weight {
    weight: Tensor,
    /// In f32 and, if the weight is in halves, in those: a product takes it in the format of its result.
    bias: Option<(Tensor, Tensor)>,
}

/// A function of one value: the numbers are those in `kernels/device.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Function {
    /// `x`
    Identity = 0,
    /// The exact GELU.
    Gelu = 1,
    /// The tanh form of GELU.
    GeluTanh = 2,
    /// `x * sigmoid(x)`
    Silu = 3,
    /// `max(x, 0)`
    Relu = 4,
    /// Hyperbolic tangent.
    Tanh = 5,
    /// `1 / (1 + exp(-x))`
    Sigmoid = 6,
}

/// Some neighbouring queries of one pair, and where its keys are. As in `kernels/attention.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Tile {
    /// The first key that it shares with other pairs.
    pub shared_start: i32,
    /// How many those are.
    pub shared_count: i32,
    /// The first key of its own.
    pub start: i32,
    /// How many those are.
    pub count: i32,
    /// The row of the first query.
    pub query: i32,
    /// The first query's place in the pair.
    pub position: i32,
    /// How many queries, at most [`TILE`].
    pub queries: i32,
    /// Nothing.
    pub unused: i32,
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of its pair.
    Full,
    /// Itself and those before it.
    Causal,
    /// Those at most so many places away.
    Window(usize),
}

/// The shape of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// What a query-key product is multiplied by.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
}

/// `Shape` in `kernels/attention.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
struct RawShape {
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
    scale: f32,
    mask: i32,
    reach: i32,
    bias: i32,
    longest: i32,
    relative_rows: i32,
    unused: i32,
}

/// `Bias` in `kernels/attention.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
struct RawBias {
    by_distance: u64,
    buckets: u64,
    of_queries: u64,
    of_keys: u64,
}

/// Something for each distance between the tokens of a pair, up to the longest: distance 0 is in the middle of
/// `2 · longest - 1`.
#[derive(Debug, Clone)]
pub struct Distances {
    values: Tensor,
    longest: usize,
}

/// What is added to the scaled scores.
#[derive(Debug, Clone, Copy)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// A number for each head and each distance from query to key.
    ByDistance(&'a Distances),
    /// Products of content and relative position, in rows that `buckets` names for each distance from key to query.
    Disentangled {
        /// Rows of the tables.
        buckets: &'a Distances,
        /// `[rows, heads · head_dim]`, keys of positions: content to position.
        keys: Option<&'a Relative>,
        /// The same of queries: position to content.
        queries: Option<&'a Relative>,
    },
}

/// A projected table of relative positions, `[rows, heads · head_dim]`.
#[derive(Debug, Clone)]
pub struct Relative(pub Tensor);

impl Device {
    /// A device that computes through `backend`.
    #[must_use]
    pub fn new(backend: Box<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { backend, failed: Mutex::default(), turn: Mutex::default() })
    }

    /// What it is, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        self.backend.name()
    }

    /// The format that layers multiply in.
    #[must_use]
    pub fn half(&self) -> Format {
        self.backend.half()
    }

    /// Its memory.
    ///
    /// # Errors
    /// What the device says.
    pub fn memory(&self) -> Result<Memory, Failure> {
        self.backend.memory()
    }

    /// Held by who computes: two forward passes at once would take each other's failures.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went wrong since this was last asked. A lost device says so every time.
    pub fn take_failure(&self) -> Option<Failure> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*failed {
            Some(failure) if failure.kind == FailureKind::Lost => Some(failure.clone()),
            _ => failed.take(),
        }
    }

    fn has_failed(&self) -> bool {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Does `work` unless something failed before, and keeps what fails in it.
    fn attempt<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
        if self.has_failed() {
            return None;
        }
        match work() {
            Ok(value) => Some(value),
            Err(failure) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                None
            }
        }
    }

    fn fail(&self, problem: String) {
        let failure = Failure { kind: FailureKind::Other, problem };
        self.attempt(|| Err::<(), _>(failure));
    }

    fn launch(&self, kernel: &str, grid: [usize; 2], threads: usize, arguments: &[Argument<'_>]) {
        if grid.contains(&0) {
            return;
        }
        let grid = grid.map(|blocks| blocks as u32);
        self.attempt(|| self.backend.launch(&Launch { kernel, grid, threads: threads as u32, arguments }));
    }

    /// Room for values that are to be written, all of them.
    fn tensor(self: &Arc<Self>, [rows, cols]: [usize; 2], format: Format) -> Tensor {
        let bytes = (rows * cols * format.size()).max(1);
        let address = self.attempt(|| self.backend.allocate(bytes)).unwrap_or(0);
        let buffer = Arc::new(Buffer { device: Arc::clone(self), address });
        Tensor { buffer, rows, cols, format, is_exact: false }
    }

    /// Takes bytes in as `[rows, cols]` values of `format`, as they are.
    ///
    /// # Errors
    /// What the device says.
    ///
    /// # Panics
    /// If there are more or fewer bytes than that.
    pub fn load(
        self: &Arc<Self>,
        shape: [usize; 2],
        format: Format,
        parts: &[&[u8]],
    ) -> Result<Tensor, Failure> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        assert_eq!(bytes, shape[0] * shape[1] * format.size(), "the bytes of {shape:?} in {format:?}");
        let address = self.backend.allocate(bytes.max(1))?;
        let buffer = Arc::new(Buffer { device: Arc::clone(self), address });
        let mut at = address;
        for part in parts {
            self.backend.upload(at, part)?;
            at += part.len() as u64;
        }
        Ok(Tensor { buffer, rows: shape[0], cols: shape[1], format, is_exact: false })
    }

    /// As [`load`](Self::load), of numbers of f32, in the course of a forward pass.
    #[must_use]
    pub fn upload(self: &Arc<Self>, shape: [usize; 2], values: &[f32]) -> Tensor {
        assert_eq!(values.len(), shape[0] * shape[1], "the values of {shape:?}");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let tensor = self.tensor(shape, Format::F32);
        self.attempt(|| self.backend.upload(tensor.address(), &bytes));
        tensor
    }

    /// Whole numbers in a column.
    fn numbers(self: &Arc<Self>, numbers: &[u32]) -> Tensor {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let tensor = self.tensor([numbers.len(), 1], Format::F32); // as wide
        if !bytes.is_empty() {
            self.attempt(|| self.backend.upload(tensor.address(), &bytes));
        }
        tensor
    }

    /// Row numbers, token ids or positions, for the operations that take them.
    #[must_use]
    pub fn indices(self: &Arc<Self>, numbers: &[u32]) -> Tensor {
        self.numbers(numbers)
    }

    /// Tiles, for [`attention`](Tensor::attention).
    #[must_use]
    pub fn tiles(self: &Arc<Self>, tiles: &[Tile]) -> Tensor {
        let numbers: Vec<u32> = tiles
            .iter()
            .flat_map(|tile| {
                let Tile { shared_start, shared_count, start, count, query, position, queries, unused } =
                    *tile;
                [shared_start, shared_count, start, count, query, position, queries, unused]
                    .map(i32::cast_unsigned)
            })
            .collect();
        let tensor = self.numbers(&numbers);
        Tensor { rows: tiles.len(), cols: 8, ..tensor }
    }

    /// A layer. `weight` is `[n, k]` in f32 or in halves, `bias` `[n]`.
    ///
    /// # Errors
    /// What the device says.
    pub fn weight(self: &Arc<Self>, weight: Tensor, bias: Option<&[f32]>) -> Result<Weight, Failure> {
        let bias = match bias {
            None => None,
            Some(bias) => {
                let bytes: Vec<u8> = bias.iter().flat_map(|value| value.to_ne_bytes()).collect();
                let exact = self.load([1, bias.len()], Format::F32, &[&bytes])?;
                let rounded = exact.converted(weight.format);
                Some((exact, rounded))
            }
        };
        Ok(Weight { weight, bias })
    }

    /// A number for each head and each distance: `values` is `[heads, 2 · longest - 1]`.
    ///
    /// # Errors
    /// What the device says.
    pub fn distances(self: &Arc<Self>, values: &[f32], longest: usize) -> Result<Distances, Failure> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let columns = 2 * longest - 1;
        Ok(Distances {
            values: self.load([values.len() / columns, columns], Format::F32, &[&bytes])?,
            longest,
        })
    }

    /// A whole number for each distance: `values` is `[2 · longest - 1]`.
    ///
    /// # Errors
    /// What the device says.
    pub fn buckets(self: &Arc<Self>, values: &[u32], longest: usize) -> Result<Distances, Failure> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        Ok(Distances { values: self.load([1, 2 * longest - 1], Format::F32, &[&bytes])?, longest })
    }

    /// The rows `ids` of a table, in f32.
    #[must_use]
    pub fn embed(self: &Arc<Self>, table: &Tensor, ids: &[u32]) -> Tensor {
        let mut x = self.tensor([ids.len(), table.cols], Format::F32);
        embed(&mut x, table, ids, false);
        x
    }
}

/// Writes the rows `ids` of a table to those of `x`, or adds them.
fn embed(x: &mut Tensor, table: &Tensor, ids: &[u32], adds: bool) {
    let device = Arc::clone(x.device());
    let kernel = match table.format {
        Format::F32 => "embed_f32",
        Format::Bf16 => "embed_bf16",
        Format::F16 => "embed_f16",
    };
    let ids = device.numbers(ids);
    let (x_at, table_at, ids_at) = (x.address(), table.address(), ids.address());
    let [features, table_rows, adds] = [x.cols as i32, table.rows as i32, i32::from(adds)];
    let arguments = [
        (&x_at).into(),
        (&table_at).into(),
        (&ids_at).into(),
        (&features).into(),
        (&table_rows).into(),
        (&adds).into(),
    ];
    device.launch(kernel, [x.rows, 1], row_threads(x.cols), &arguments);
}

/// Threads for a row of so many values, eight of which a thread takes at once.
fn row_threads(features: usize) -> usize {
    features.div_ceil(8).next_multiple_of(32).min(THREADS)
}

/// Blocks for so many values, eight of which a thread takes.
fn value_blocks(values: usize) -> usize {
    values.div_ceil(8 * THREADS)
}

impl Tensor {
    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The number format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether there was memory for it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.address() != 0
    }

    /// The device it is on.
    #[must_use]
    pub fn device(&self) -> &Arc<Device> {
        &self.buffer.device
    }

    fn address(&self) -> u64 {
        self.buffer.address
    }

    fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// `f` for f32, `h` for halves, as kernels are named.
    fn letter(&self) -> char {
        if self.format == Format::F32 { 'f' } else { 'h' }
    }

    /// The same values to change, which nobody else has.
    fn own(&mut self) {
        if Arc::get_mut(&mut self.buffer).is_some() {
            return;
        }
        let device = Arc::clone(self.device());
        let copy = device.tensor([self.rows, self.cols], self.format);
        let (to, from, bytes) = (copy.address(), self.address(), self.len() * self.format.size());
        device.attempt(|| device.backend.copy(to, from, bytes));
        self.buffer = copy.buffer;
    }

    /// The values, when they are computed. Zeros if something failed.
    #[must_use]
    pub fn download(&self) -> Vec<f32> {
        let exact = self.converted(Format::F32);
        let mut bytes = vec![0; self.len() * 4];
        if !bytes.is_empty() {
            let device = self.device();
            device.attempt(|| device.backend.download(exact.address(), &mut bytes));
        }
        bytes.as_chunks::<4>().0.iter().map(|value| f32::from_ne_bytes(*value)).collect()
    }

    /// The same values in f32, or in the device's halves.
    #[must_use]
    pub fn converted(&self, format: Format) -> Self {
        if format == self.format {
            return self.clone();
        }
        let device = self.device();
        let kernel = if format == Format::F32 { "convert_hf" } else { "convert_fh" };
        let result = device.tensor([self.rows, self.cols], format);
        let (from, to, values) = (self.address(), result.address(), self.len() as u64);
        let arguments = [(&from).into(), (&to).into(), (&values).into()];
        device.launch(kernel, [value_blocks(self.len()), 1], THREADS, &arguments);
        result
    }

    /// Adds the rows `ids` of a table. This is in f32.
    pub fn add_rows(&mut self, table: &Self, ids: &[u32]) {
        self.own();
        embed(self, table, ids, true);
    }

    /// Some of the rows, in f32. They are few: what is made of them stays in f32, and so exact.
    #[must_use]
    pub fn take(&self, rows: &[u32]) -> Self {
        let device = self.device();
        let mut result = device.tensor([rows.len(), self.cols], Format::F32);
        result.is_exact = true;
        let indices = device.numbers(rows);
        let (from, to, indices, features) =
            (self.address(), result.address(), indices.address(), self.cols as i32);
        let arguments = [(&from).into(), (&to).into(), (&indices).into(), (&features).into()];
        device.launch(
            &format!("take_{}", self.letter()),
            [rows.len(), 1],
            row_threads(self.cols),
            &arguments,
        );
        result
    }

    /// The mean, or the largest value, of each feature over the rows from each of `starts` to the next; in f32.
    #[must_use]
    pub fn pool(&self, starts: &[u32], takes_largest: bool) -> Self {
        let device = self.device();
        let pairs = starts.len().saturating_sub(1);
        let mut result = device.tensor([pairs, self.cols], Format::F32);
        result.is_exact = true;
        let starts = device.numbers(starts);
        let (from, to, starts) = (self.address(), result.address(), starts.address());
        let [features, takes_largest] = [self.cols as i32, i32::from(takes_largest)];
        let arguments =
            [(&from).into(), (&to).into(), (&starts).into(), (&features).into(), (&takes_largest).into()];
        let kernel = format!("pool_{}", self.letter());
        device.launch(&kernel, [self.cols.div_ceil(128), pairs], 128, &arguments);
        result
    }

    /// LayerNorm of each row, or RMSNorm if `is_rms`, in the format of the products that read it: `half`, the one that the
    /// layer's weights are in. `gamma` and `beta` are `[1, cols]` in f32.
    #[must_use]
    pub fn norm(&self, gamma: &Self, beta: Option<&Self>, (eps, is_rms): (f32, bool), half: Format) -> Self {
        let device = self.device();
        if self.cols > MOST_NORM_FEATURES {
            device.fail(format!("a norm of {} features; a device takes {MOST_NORM_FEATURES}", self.cols));
        }
        // From halves there is no way back.
        let format = if self.format == Format::F32 { half } else { self.format };
        let mut result = device.tensor([self.rows, self.cols], format);
        result.is_exact = self.is_exact;
        let kernel = format!("norm_{}{}", self.letter(), result.letter());
        let (from, to) = (self.address(), result.address());
        let (gamma, beta) = (gamma.address(), beta.map_or(0, Self::address));
        let [features, is_rms] = [self.cols as i32, i32::from(is_rms)];
        let arguments = [
            (&from).into(),
            (&to).into(),
            (&gamma).into(),
            (&beta).into(),
            (&eps).into(),
            (&features).into(),
            (&is_rms).into(),
        ];
        device.launch(&kernel, [self.rows, 1], row_threads(self.cols), &arguments);
        result
    }

    /// The same in place of the values: those of rows that were [taken](Self::take) stay in f32.
    pub fn normalise(&mut self, gamma: &Self, beta: Option<&Self>, options: (f32, bool), half: Format) {
        let half = if self.is_exact { Format::F32 } else { half };
        *self = self.norm(gamma, beta, options, half);
    }

    /// In place, on the first `heads` heads of each row: RMSNorm of each if there is a `gamma`, then the rotation.
    /// `angles` are cosines and sines, `[positions, head_dim / 2]` each; `positions` has one for each row.
    pub fn rotate(
        &mut self,
        heads: usize,
        norm: Option<(&Self, f32)>,
        (cosines, sines): (&Self, &Self),
        positions: &Self,
    ) {
        self.own();
        let device = self.device();
        let head_dim = 2 * cosines.cols;
        if head_dim > MOST_HEAD_DIM {
            device.fail(format!("heads of {head_dim} values; a device takes {MOST_HEAD_DIM}"));
        }
        let kernel = format!("rotate_{}", self.letter());
        let (x, gamma, eps) =
            (self.address(), norm.map_or(0, |(gamma, _)| gamma.address()), norm.map_or(0.0, |(_, eps)| eps));
        let [rows, stride, head_count, dim] = [self.rows, self.cols, heads, head_dim].map(|size| size as i32);
        let (cosines, sines, positions) = (cosines.address(), sines.address(), positions.address());
        let arguments = [
            (&x).into(),
            (&rows).into(),
            (&stride).into(),
            (&head_count).into(),
            (&dim).into(),
            (&gamma).into(),
            (&eps).into(),
            (&cosines).into(),
            (&sines).into(),
            (&positions).into(),
        ];
        device.launch(&kernel, [(self.rows * heads).div_ceil(THREADS / 32), 1], THREADS, &arguments);
    }

    /// `function(first half of the columns) · second half`.
    #[must_use]
    pub fn gated(&self, function: Function) -> Self {
        let device = self.device();
        let features = self.cols / 2;
        let result = device.tensor([self.rows, features], self.format);
        let (from, to) = (self.address(), result.address());
        let [rows, columns, map] = [self.rows as i32, features as i32, function as i32];
        let arguments = [(&from).into(), (&to).into(), (&rows).into(), (&columns).into(), (&map).into()];
        let kernel = format!("gate_{}", self.letter());
        device.launch(
            &kernel,
            [(self.rows * features.div_ceil(8)).div_ceil(THREADS), 1],
            THREADS,
            &arguments,
        );
        result
    }

    /// `function(x) + other`, in place.
    fn apply(&mut self, function: Function, other: Option<&Self>) {
        self.own();
        let device = self.device();
        let (x, other, values, map) =
            (self.address(), other.map_or(0, Self::address), self.len() as u64, function as i32);
        let arguments = [(&x).into(), (&other).into(), (&values).into(), (&map).into()];
        let kernel = format!("apply_{}", self.letter());
        device.launch(&kernel, [value_blocks(self.len()), 1], THREADS, &arguments);
    }

    /// `function(x · w' + b) + residual`, in the format of the residual; without one, in that of the weight.
    #[must_use]
    pub fn times(&self, layer: &Weight, function: Function, residual: Option<&Self>) -> Self {
        let device = self.device();
        let w = &layer.weight;
        let x = self.converted(w.format);
        let format = residual.map_or(w.format, |residual| residual.format);
        let mut result = device.tensor([self.rows, w.rows], format);
        result.is_exact =
            residual.map_or(self.is_exact && format == Format::F32, |residual| residual.is_exact);
        let bias =
            layer.bias.as_ref().map(|(exact, rounded)| if format == Format::F32 { exact } else { rounded });
        let operand = |tensor: &Self| Operand {
            address: tensor.address(),
            format: tensor.format,
            stride: tensor.cols,
            batch_stride: 0,
        };
        let fused = residual.filter(|_| function == Function::Identity);
        device.multiply(&Product {
            m: self.rows,
            n: w.rows,
            k: w.cols,
            batch: 1,
            x: operand(&x),
            w: operand(w),
            out: operand(&result),
            bias: bias.map(Self::address),
            residual: fused.map(Self::address),
        });
        if function != Function::Identity {
            result.apply(function, residual);
        }
        result
    }

    /// Attention within each pair; `self` are the queries, `[rows, heads · head_dim]`, `keys_values` those of all tokens,
    /// `[T, 2 · kv_heads · head_dim]`. `tiles` name each query once.
    #[must_use]
    pub fn attention(&self, keys_values: &Self, tiles: &Self, shape: &Shape, bias: Bias<'_>) -> Self {
        let device = self.device();
        let Shape { heads, kv_heads, head_dim, scale, mask } = *shape;
        if head_dim > MOST_HEAD_DIM {
            device.fail(format!("heads of {head_dim} values; a device takes {MOST_HEAD_DIM}"));
        }
        // Queries of rows that were taken may be in f32.
        let queries = self.converted(keys_values.format);
        let mut raw = RawBias { by_distance: 0, buckets: 0, of_queries: 0, of_keys: 0 };
        let (mut kind, mut longest, mut relative_rows) = (0, 1, 0);
        let mut products = (None, None);
        match bias {
            Bias::None => {}
            Bias::ByDistance(distances) => {
                (kind, longest, raw.by_distance) = (1, distances.longest, distances.values.address());
            }
            Bias::Disentangled { buckets, keys, queries: positions } => {
                (kind, longest, raw.buckets) = (2, buckets.longest, buckets.values.address());
                let table = keys.or(positions);
                relative_rows = table.map_or(0, |table| table.0.rows);
                products.0 = keys.map(|keys| queries.relative(keys, shape));
                products.1 = positions.map(|positions| keys_values.relative(positions, shape));
                raw.of_queries = products.0.as_ref().map_or(0, Self::address);
                raw.of_keys = products.1.as_ref().map_or(0, Self::address);
            }
        }
        let (mask, reach) = match mask {
            Mask::Full => (0, 0),
            Mask::Causal => (1, 0),
            Mask::Window(reach) => (2, reach as i32),
        };
        let shape = RawShape {
            heads: heads as i32,
            kv_heads: kv_heads as i32,
            head_dim: head_dim as i32,
            scale,
            mask,
            reach,
            bias: kind,
            longest: longest as i32,
            relative_rows: relative_rows as i32,
            unused: 0,
        };
        let result = device.tensor([queries.rows, heads * head_dim], queries.format);
        let on_tensor_cores = queries.format != Format::F32 && kernels::TENSOR_HEADS.contains(&head_dim);
        let kernel = match on_tensor_cores {
            true => kernels::tensor_attention(head_dim, kind as usize),
            false => format!("attention_{}", queries.letter()),
        };
        let (q, kv, out, tiles_at) =
            (queries.address(), keys_values.address(), result.address(), tiles.address());
        let arguments =
            [(&q).into(), (&kv).into(), (&out).into(), (&tiles_at).into(), (&shape).into(), (&raw).into()];
        device.launch(&kernel, [tiles.rows, heads], 128, &arguments);
        result
    }

    /// Queries, or the keys of a matrix of keys and values, times a table of relative positions, head by head:
    /// `[rows, heads · table rows]`.
    fn relative(&self, table: &Relative, shape: &Shape) -> Self {
        let device = self.device();
        let Relative(table) = table;
        let table = table.converted(self.format);
        let result = device.tensor([self.rows, shape.heads * table.rows], self.format);
        let operand = |tensor: &Self, batch_stride| Operand {
            address: tensor.address(),
            format: tensor.format,
            stride: tensor.cols,
            batch_stride,
        };
        device.multiply(&Product {
            m: self.rows,
            n: table.rows,
            k: shape.head_dim,
            batch: shape.heads,
            x: operand(self, shape.head_dim),
            w: operand(&table, shape.head_dim),
            out: operand(&result, table.rows),
            bias: None,
            residual: None,
        });
        result
    }
}

impl Weight {
    /// The number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.weight.rows
    }

    /// The number format that it multiplies in.
    #[must_use]
    pub fn format(&self) -> Format {
        self.weight.format
    }
}

impl Device {
    fn multiply(&self, product: &Product) {
        if product.m == 0 || self.attempt(|| self.backend.multiply(product)) != Some(false) {
            return;
        }
        let Product { m, n, k, batch, x, w, out, bias, residual } = *product;
        let letter = |operand: Operand| if operand.format == Format::F32 { 'f' } else { 'h' };
        let kernel = format!("product_{}{}", letter(x), letter(out));
        let (bias, residual) = (bias.unwrap_or(0), residual.unwrap_or(0));
        let [rows, columns, inner] = [m, n, k].map(|size| size as i32);
        let strides = [x, w, out].map(|operand| operand.stride as i32);
        let batches = [x, w, out].map(|operand| operand.batch_stride as u64);
        let arguments = [
            (&x.address).into(),
            (&w.address).into(),
            (&bias).into(),
            (&residual).into(),
            (&out.address).into(),
            (&rows).into(),
            (&columns).into(),
            (&inner).into(),
            (&strides[0]).into(),
            (&strides[1]).into(),
            (&strides[2]).into(),
            (&batches[0]).into(),
            (&batches[1]).into(),
            (&batches[2]).into(),
        ];
        self.launch(&kernel, [(m * n).div_ceil(THREADS), batch], THREADS, &arguments);
    }
}
