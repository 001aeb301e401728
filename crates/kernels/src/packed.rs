//! The right-hand side of a matrix product, laid out as the inner loop reads it.

use std::ops::Range;
use std::sync::Arc;

use crate::values::Line;
use crate::{Kernels, View};

/// Output columns in one panel: two AVX-512 vectors, four AVX2 vectors.
pub(crate) const PANEL: usize = 32;

const LINES_PER_ROW: usize = PANEL / Line::WORDS;

/// The number format of a matrix product's inputs. Sums are `f32`, of int8 exact integers first; results are `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Both sides as they are.
    #[default]
    F32,
    /// Both sides rounded to bfloat16.
    Bf16,
    /// The weight in 8 bits with a scale for each output column; the left-hand side in 8 bits with a scale and a zero
    /// point for each row, found when it is multiplied.
    Int8,
    /// Both sides rounded to binary16, on devices that multiply it. No CPU here does: its kernels take it for `F32`.
    F16,
}

impl Precision {
    /// Every precision of a CPU, the most exact one first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// `f32`, `bf16`, `int8` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Inner indices in one word of 32 bits.
    pub(crate) fn depth(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A weight `[n, k]` (n output columns, k inner), ready for [`Kernels::matmul`]. Its precision is that of the product.
///
/// A word of 32 bits holds one `f32`, two bfloat16 or four int8: as many neighbouring inner indices of one column, the first
/// in the low bits. Panel `p` holds output columns `32 p .. 32 p + 32`; inside it, the 32 words of one group of inner
/// indices lie together: `panel[p][group][c] = weight[32 p + c][group ..]`. Columns past `n` and inner indices past
/// `k` are zero. The layout is the same for every instruction set.
#[derive(Clone, Default)]
pub struct PackedMatrix {
    lines: Vec<Line>,
    /// How many of them hold this weight.
    used: usize,
    /// Where the words lie instead, from this byte on.
    shared: Option<(SharedBytes, usize)>,
    n: usize,
    k: usize,
    precision: Precision,
    /// Int8: what one step of each column is worth, `[ceil(n / 32) * 32]`.
    scales: Vec<f32>,
    /// Int8: the sum of each column, `[ceil(n / 32) * 32]`.
    sums: Vec<i32>,
    /// Int8: what the left-hand side goes through first, if anything.
    smoothing: Option<Smoothing>,
}

/// Bytes that somebody else keeps, such as a file mapped into memory. They stay where and as they are.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What the bytes of a [`PackedMatrix::image`] are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Output columns.
    pub n: usize,
    /// Inner size.
    pub k: usize,
    /// The number format.
    pub precision: Precision,
    /// Whether the left-hand side is [smoothed](PackedMatrix::smoothed).
    pub smoothed: bool,
}

impl Shape {
    /// The bytes of each part of an image: words, scales, sums, factors, offsets. None if they fit no address space.
    fn parts(&self) -> Option<[usize; 5]> {
        let groups = self.k.div_ceil(self.precision.depth());
        let columns = self.n.checked_next_multiple_of(PANEL)?;
        let words = columns.checked_mul(groups)?.checked_mul(4)?;
        let columns = if self.precision == Precision::Int8 { columns.checked_mul(4)? } else { 0 };
        let inner = if self.smoothed { self.k.checked_mul(4)? } else { 0 };
        Some([words, columns, columns, inner, inner])
    }
}

/// The left-hand side becomes `x * factor + offset`, each `[k]`, before it is rounded to 8 bits. A weight that was divided by
/// `factor` makes up for the one, a bias for the other.
#[derive(Clone, Debug)]
pub(crate) struct Smoothing {
    pub(crate) factor: Vec<f32>,
    pub(crate) offset: Vec<f32>,
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix")
            .field("n", &self.n)
            .field("k", &self.k)
            .field("precision", &self.precision)
            .finish_non_exhaustive()
    }
}

impl PackedMatrix {
    /// An empty matrix (`n == k == 0`), to be filled by [`Kernels::pack`] or [`Kernels::pack_transposed`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The same weight, whose left-hand side becomes `x * factor + offset` (one of each for every inner index) before
    /// it is rounded to 8 bits. With features of like size, the steps of 8 bits are spent on all of them.
    ///
    /// # Panics
    /// If the weight is not in int8, or there is not one factor and one offset for each inner index.
    #[must_use]
    #[track_caller]
    pub fn smoothed(mut self, factor: Vec<f32>, offset: Vec<f32>) -> Self {
        assert_eq!(self.precision, Precision::Int8, "only int8 is smoothed");
        assert_eq!(
            [factor.len(), offset.len()],
            [self.k; 2],
            "one factor and one offset for each inner index"
        );
        self.smoothing = Some(Smoothing { factor, offset });
        self
    }

    /// The matrix as bytes in this processor's order, in five parts, some of them empty: to be kept for
    /// [`from_image`](Self::from_image).
    pub fn image(&self) -> [&[u8]; 5] {
        let (factor, offset) = self.smoothing.as_ref().map_or((&[][..], &[][..]), |s| (&s.factor, &s.offset));
        let sums: &[i32] = &self.sums;
        [as_bytes(self.words()), as_bytes(&self.scales), as_bytes(sums), as_bytes(factor), as_bytes(offset)]
    }

    /// What the bytes of an image are of.
    pub fn shape(&self) -> Shape {
        let Self { n, k, precision, .. } = *self;
        Shape { n, k, precision, smoothed: self.smoothing.is_some() }
    }

    /// The matrix whose [`image`](Self::image) lies in `range` of `bytes`, part after part, each filled up to a whole cache
    /// line. Its words stay there. None if that is not the size of such an image, or it does not begin at a cache line.
    pub fn from_image(shape: Shape, bytes: SharedBytes, range: Range<usize>) -> Option<Self> {
        let Shape { n, k, precision, smoothed } = shape;
        let mut rest = (*bytes).as_ref().get(range.clone())?;
        if !rest.as_ptr().addr().is_multiple_of(size_of::<Line>())
            || (smoothed && precision != Precision::Int8)
        {
            return None;
        }
        let mut parts = [&[][..]; 5];
        for (part, size) in parts.iter_mut().zip(shape.parts()?) {
            let line = size.checked_next_multiple_of(size_of::<Line>())?;
            (*part, rest) = rest.split_at_checked(line)?;
            *part = &part[..size];
        }
        if !rest.is_empty() {
            return None;
        }
        let floats =
            |part: &[u8]| part.as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
        let [words, scales, sums, factor, offset] = parts;
        Some(Self {
            lines: Vec::new(),
            used: words.len() / size_of::<Line>(),
            n,
            k,
            precision,
            scales: floats(scales),
            sums: sums.as_chunks().0.iter().map(|bytes| i32::from_ne_bytes(*bytes)).collect(),
            smoothing: smoothed.then(|| Smoothing { factor: floats(factor), offset: floats(offset) }),
            shared: Some((bytes, range.start)),
        })
    }

    /// Output columns: rows of a checkpoint's weight.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inner size: columns of the left-hand side.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The number format; that of a matrix without elements is `f32`.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of memory held, padding and spare capacity included, without shared ones.
    pub fn allocated_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>() + (self.scales.capacity() + self.sums.capacity()) * 4
    }

    /// Words of one row of the left-hand side, and rows of a panel.
    pub(crate) fn groups(&self) -> usize {
        self.k.div_ceil(self.precision.depth())
    }

    /// The 32 words of one group of inner indices, panel `p`.
    pub(crate) fn panel_row(&self, p: usize, group: usize) -> &[u32] {
        &self.words()[(p * self.groups() + group) * PANEL..][..PANEL]
    }

    /// All panels, one after another: `[ceil(n / 32), groups, 32]`.
    pub(crate) fn words(&self) -> &[u32] {
        let Some((bytes, start)) = &self.shared else { return Line::words(&self.lines[..self.used]) };
        let bytes = &(**bytes).as_ref()[*start..][..self.used * size_of::<Line>()];
        // SAFETY: every bit pattern is a `u32`.
        let (before, words, _) = unsafe { bytes.align_to() };
        // Whatever `bytes` gives this time: the kernels read as many words as the shape says.
        assert!(before.is_empty() && words.len() == self.used * Line::WORDS, "shared bytes have moved");
        words
    }

    fn words_mut(&mut self) -> &mut [u32] {
        Line::words_mut(&mut self.lines[..self.used])
    }

    /// Int8: the scales of the columns, whole panels of them.
    pub(crate) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Int8: the sums of the columns, whole panels of them.
    pub(crate) fn sums(&self) -> &[i32] {
        &self.sums
    }

    /// Int8: what the left-hand side goes through first.
    pub(crate) fn smoothing(&self) -> Option<&Smoothing> {
        self.smoothing.as_ref()
    }

    /// Sets the shape. The elements are left as they were, or zero: the caller writes all of them.
    #[track_caller]
    fn reshape(&mut self, n: usize, k: usize, precision: Precision) {
        (self.n, self.k, self.precision) = (n, k, precision);
        let lines =
            n.div_ceil(PANEL).checked_mul(self.groups()).and_then(|rows| rows.checked_mul(LINES_PER_ROW));
        assert!(lines.is_some(), "a weight of {n} x {k} does not fit the address space");
        self.used = lines.unwrap_or(0);
        // Never shrinks: attention fills the same memory for sequences of all lengths.
        self.shared = None;
        if self.lines.len() < self.used {
            self.lines.resize(self.used, Line::ZERO);
        }
        self.scales.clear();
        self.sums.clear();
        self.smoothing = None;
    }

    /// See [`Kernels::pack`].
    #[track_caller]
    pub(crate) fn pack(&mut self, kernels: &Kernels, weight: View<'_>, precision: Precision) {
        weight.assert_valid();
        let (n, k) = (weight.rows, weight.cols);
        // The other size may be anything then, up to what a panel of it cannot count.
        if n == 0 || k == 0 {
            return self.reshape(n, k, Precision::F32);
        }
        self.reshape(n, k, precision);
        if precision == Precision::Int8 {
            self.scales.resize(n.next_multiple_of(PANEL), 0.0);
            self.sums.resize(n.next_multiple_of(PANEL), 0);
        }
        let groups = self.groups();
        // The words of up to four rows of the weight.
        let mut rows = [const { Vec::new() }; 4];
        let (mut scales, mut sums) = (std::mem::take(&mut self.scales), std::mem::take(&mut self.sums));
        for (p, panel) in self.words_mut().chunks_exact_mut(PANEL * groups).enumerate() {
            let columns = PANEL.min(n - p * PANEL);
            if columns < PANEL {
                panel.fill(0);
            }
            for c in (0..columns).step_by(4) {
                let count = 4.min(columns - c);
                for (i, words) in rows[..count].iter_mut().enumerate() {
                    let column = p * PANEL + c + i;
                    let row = weight.row(column);
                    match precision {
                        Precision::F32 | Precision::F16 => {}
                        Precision::Bf16 => {
                            words.resize(groups, 0);
                            kernels.round_bf16(row, words);
                        }
                        Precision::Int8 => (scales[column], sums[column]) = quantise_column(row, words),
                    }
                }
                let words = |i: usize| match precision {
                    Precision::F32 | Precision::F16 => as_words(weight.row(p * PANEL + c + i)),
                    Precision::Bf16 | Precision::Int8 => &rows[i][..],
                };
                if count == 4 {
                    interleave4([0, 1, 2, 3].map(words), c, panel);
                } else {
                    for i in 0..count {
                        for (to, &from) in panel[c + i..].iter_mut().step_by(PANEL).zip(words(i)) {
                            *to = from;
                        }
                    }
                }
            }
        }
        (self.scales, self.sums) = (scales, sums);
    }

    /// See [`Kernels::pack_transposed`].
    #[track_caller]
    pub(crate) fn pack_transposed(&mut self, kernels: &Kernels, weight: View<'_>, precision: Precision) {
        weight.assert_valid();
        assert_ne!(precision, Precision::Int8, "a transposed weight in int8 is nowhere needed");
        let (n, k) = (weight.cols, weight.rows);
        if n == 0 || k == 0 {
            return self.reshape(n, k, Precision::F32);
        }
        self.reshape(n, k, precision);
        let groups = self.groups();
        for (p, panel) in self.words_mut().chunks_exact_mut(PANEL * groups).enumerate() {
            let first = p * PANEL;
            let columns = PANEL.min(n - first);
            for (group, to) in panel.chunks_exact_mut(PANEL).enumerate() {
                let row = |kk| &weight.row(kk)[first..first + columns];
                match precision {
                    Precision::F32 | Precision::F16 => to[..columns].copy_from_slice(as_words(row(group))),
                    // The last of an odd number of rows has no neighbour.
                    Precision::Bf16 if 2 * group + 1 == k => {
                        kernels.pair_bf16(row(2 * group), &[], &mut to[..columns])
                    }
                    _ => kernels.pair_bf16(row(2 * group), row(2 * group + 1), &mut to[..columns]),
                }
                to[columns..].fill(0);
            }
        }
    }
}

/// The same bits.
pub(crate) fn as_words(values: &[f32]) -> &[u32] {
    // SAFETY: `f32` and `u32` have the same size and alignment, and every bit pattern is a `u32`.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

/// Elements of 32 bits as bytes in this processor's order.
pub(crate) fn as_bytes<T: Word>(values: &[T]) -> &[u8] {
    // SAFETY: `Word` is implemented for types of four initialised bytes without padding; any address suits a byte.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// What [`as_bytes`] takes.
pub(crate) trait Word {}
impl Word for u32 {}
impl Word for i32 {}
impl Word for f32 {}

/// One column of an int8 weight, four values a word; what one step is worth, and the sum of all.
/// The largest value becomes 127 or -127, and zero stays zero. A column with NaN or infinity has a scale of NaN.
fn quantise_column(values: &[f32], words: &mut Vec<u32>) -> (f32, i32) {
    /// 1.5 * 2^23: what is added to it is rounded to an integer, ties to even; unlike `round_ties_even`, that is one
    /// instruction on every processor.
    const ROUND: f32 = 12_582_912.0;
    // `f32::max` drops NaN; the sum keeps it, and makes one of infinity.
    let largest = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let poison: f32 = values.iter().map(|value| value * 0.0).sum();
    let scale = largest / 127.0 + poison;
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let mut sum = 0;
    words.clear();
    words.extend(values.chunks(4).map(|chunk| {
        let mut bytes = [0; 4];
        for (byte, value) in bytes.iter_mut().zip(chunk) {
            // Saturates; NaN is 0, and its column's scale says so.
            let step = ((value * inverse + ROUND) - ROUND) as i8;
            sum += i32::from(step);
            *byte = step as u8;
        }
        u32::from_le_bytes(bytes)
    }));
    (scale, sum)
}

/// Writes four rows of words as columns `c..c + 4` of `panel`.
///
/// Every sequence packs its keys here, so the 4 x 4 transpose is in registers: one store for four words.
fn interleave4(rows: [&[u32]; 4], c: usize, panel: &mut [u32]) {
    let k = rows[0].len();
    let blocks = k - k % 4;
    #[cfg(target_arch = "x86_64")]
    for kk in (0..blocks).step_by(4) {
        use std::arch::x86_64::{
            _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps, _mm_unpacklo_ps,
        };
        let from = rows.map(|row| row[kk..kk + 4].as_ptr().cast());
        let to = panel[kk * PANEL + c..][..3 * PANEL + 4].as_mut_ptr().cast::<f32>();
        // SAFETY: each pointer of `from` is that of a slice of exactly four elements; `to` is that of a slice that
        // ends four elements after its third multiple of PANEL; and SSE belongs to every x86_64 CPU. These instructions
        // move bits, whatever they mean.
        unsafe {
            let [a, b, c, d] = from.map(|p| _mm_loadu_ps(p));
            let (ab_low, cd_low) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            _mm_storeu_ps(to, _mm_movelh_ps(ab_low, cd_low));
            _mm_storeu_ps(to.add(PANEL), _mm_movehl_ps(cd_low, ab_low));
            _mm_storeu_ps(to.add(2 * PANEL), _mm_movelh_ps(ab_high, cd_high));
            _mm_storeu_ps(to.add(3 * PANEL), _mm_movehl_ps(cd_high, ab_high));
        }
    }
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    for kk in (0..blocks).step_by(4) {
        use std::arch::aarch64::{
            vld1q_u32, vreinterpretq_u32_u64, vreinterpretq_u64_u32, vst1q_u32, vzip1q_u32, vzip1q_u64,
            vzip2q_u32, vzip2q_u64,
        };
        let from = rows.map(|row| row[kk..kk + 4].as_ptr());
        let to = panel[kk * PANEL + c..][..3 * PANEL + 4].as_mut_ptr();
        // SAFETY: the pointers as above; NEON belongs to every AArch64 CPU that Rust's standard library runs on.
        unsafe {
            let [a, b, c, d] = from.map(|p| vld1q_u32(p));
            let wide = |low, high| (vreinterpretq_u64_u32(low), vreinterpretq_u64_u32(high));
            let low = wide(vzip1q_u32(a, b), vzip1q_u32(c, d));
            let high = wide(vzip2q_u32(a, b), vzip2q_u32(c, d));
            vst1q_u32(to, vreinterpretq_u32_u64(vzip1q_u64(low.0, low.1)));
            vst1q_u32(to.add(PANEL), vreinterpretq_u32_u64(vzip2q_u64(low.0, low.1)));
            vst1q_u32(to.add(2 * PANEL), vreinterpretq_u32_u64(vzip1q_u64(high.0, high.1)));
            vst1q_u32(to.add(3 * PANEL), vreinterpretq_u32_u64(vzip2q_u64(high.0, high.1)));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
    for kk in 0..blocks {
        for i in 0..4 {
            panel[kk * PANEL + c + i] = rows[i][kk];
        }
    }
    for kk in blocks..k {
        for i in 0..4 {
            panel[kk * PANEL + c + i] = rows[i][kk];
        }
    }
}
