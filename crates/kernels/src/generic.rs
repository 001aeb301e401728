//! The kernels, written once over [`Vector`].
//!
//! # The matrix product
//!
//! ```text
//! for each block of rows (so that its part of x stays in L2): as words of the weight's precision
//!     for each block of k (so that a panel's part stays in L1; its borders depend on k alone), and
//!     for each two registers of a panel's output columns, whichever of the two is the outer loop
//!             for each tile of up to ROWS rows
//!                 sum[r][c] = 0, or what the previous block of k left in out
//!                 for word in block:  sum[r][c] += x[r][word] * panel[word][c]
//!                 out = sum
//!             after the last block of k:  out = epilogue(out), while it is in L1
//! ```
//!
//! Whatever the tile, an element is one accumulator that takes `k` in order with FMA, starting from zero, and the
//! epilogue comes at the end. Storing an accumulator and loading it again changes nothing. So an element's bits
//! depend on its row, its column and `k`, never on how many rows there are or where it lies. The sums of int8 are
//! integers, which lie in `out` as they are until the epilogue.
//!
//! # Tails
//!
//! The last, incomplete register of a row goes through the same arithmetic with a partial load and store. There is
//! no scalar remainder loop, which would round differently.
//!
//! # Safety
//! Every `unsafe fn` here has one contract: the CPU has the instruction set of `V`, and the shapes are those that the
//! methods of [`Kernels`](crate::Kernels) assert. All are `inline(always)`, to be compiled with the features of the
//! function that instantiates them.

#![allow(clippy::missing_safety_doc, reason = "one contract, at the head of the module")]

use std::marker::PhantomData;

use crate::packed::{PANEL, Smoothing};
use crate::values::Line;
use crate::vector::{Dots, Vector, Wide, Words};
use crate::{Epilogue, Map, PackedMatrix, Precision, RowScale, Scratch, View, ViewMut};

/// Registers across one tile.
const ACROSS: usize = 2;
/// Most words of a column in one block: 256 x 32 x 4 bytes of a panel are 32 KiB, of a 48 KiB (or 32 KiB) L1.
const MAX_BLOCK: usize = 256;
/// Rows in one block: 192 x 256 x 4 bytes of x are 192 KiB, of a 1 MiB L2.
const BLOCK_ROWS: usize = 192;
/// Rows that lie a multiple of so many words apart fall on the same few lines of L1, which keeps no more than 8 or 12 of them: a
/// tile of twelve would fetch each word from L2.
const ALIASED: usize = 1024;
/// Words that such rows are moved apart by: a line of the cache.
const APART: usize = 16;
/// With fewer columns, moving rows of x costs more than it saves.
const WORTH_MOVING: usize = 64;

/// Calls `body(start, n)` for each register of a row of `len` elements: `n == LANES` but for the last.
macro_rules! registers {
    ($vector:ident, $len:expr, |$start:ident, $n:ident| $body:block) => {{
        let len = $len;
        let mut $start = 0;
        while $start + $vector::LANES <= len {
            let $n = $vector::LANES;
            $body
            $start += $vector::LANES;
        }
        if $start < len {
            let $n = len - $start;
            $body
        }
    }};
}

/// `out[m, n] = epilogue(x[m, k] . w^T)`.
#[inline(always)]
pub(crate) unsafe fn matmul<V: Vector, D: Dots<V>, const ROWS: usize, const BF16_ROWS: usize>(
    x: View<'_>,
    w: &PackedMatrix,
    then: Epilogue<'_>,
    out: ViewMut<'_>,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's contract.
    unsafe {
        match w.precision() {
            Precision::F32 | Precision::F16 => product::<V, D, F32, ROWS>(x, w, then, out, scratch),
            Precision::Bf16 => product::<V, D, Bf16<D>, BF16_ROWS>(x, w, then, out, scratch),
            Precision::Int8 => product::<V, D, Int8<D>, ROWS>(x, w, then, out, scratch),
        }
    }
}

/// What the words of a product mean.
pub(crate) trait Format<V: Vector> {
    /// A register of sums.
    type Sum: Copy;
    /// The step of int8 for the smallest value of a row.
    const LEAST: i32 = 0;
    /// Words that are multiplied for each of the packed weight.
    const SPREAD: usize = 1;
    /// The bits of sums, as they lie in `out` between two blocks of k.
    unsafe fn from_stored(stored: V) -> Self::Sum;
    unsafe fn to_stored(sum: Self::Sum) -> V;
    unsafe fn step(sum: Self::Sum, x: V::Words, w: V::Words) -> Self::Sum;
}

struct F32;
impl<V: Vector> Format<V> for F32 {
    type Sum = V;
    #[inline(always)]
    unsafe fn from_stored(stored: V) -> V {
        stored
    }
    #[inline(always)]
    unsafe fn to_stored(sum: V) -> V {
        sum
    }
    #[inline(always)]
    unsafe fn step(sum: V, x: V::Words, w: V::Words) -> V {
        V::from_bits(x).fma(V::from_bits(w), sum)
    }
}

pub(crate) struct Bf16<D>(PhantomData<D>);
impl<V: Vector, D: Dots<V>> Format<V> for Bf16<D> {
    type Sum = V;
    #[inline(always)]
    unsafe fn from_stored(stored: V) -> V {
        stored
    }
    #[inline(always)]
    unsafe fn to_stored(sum: V) -> V {
        sum
    }
    #[inline(always)]
    unsafe fn step(sum: V, x: V::Words, w: V::Words) -> V {
        // SAFETY: the contract of this module.
        unsafe { D::bf16(sum, x, w) }
    }
}

pub(crate) struct Int8<D>(PhantomData<D>);
impl<V: Vector, D: Dots<V>> Format<V> for Int8<D> {
    type Sum = V::Words;
    const LEAST: i32 = D::LEAST;
    const SPREAD: usize = D::SPREAD;
    #[inline(always)]
    unsafe fn from_stored(stored: V) -> V::Words {
        stored.bits()
    }
    #[inline(always)]
    unsafe fn to_stored(sum: V::Words) -> V {
        V::from_bits(sum)
    }
    #[inline(always)]
    unsafe fn step(sum: V::Words, x: V::Words, w: V::Words) -> V::Words {
        // SAFETY: the contract of this module.
        unsafe { D::int8(sum, x, w) }
    }
}

#[inline(always)]
unsafe fn product<V: Vector, D: Dots<V>, F: Format<V>, const ROWS: usize>(
    x: View<'_>,
    w: &PackedMatrix,
    then: Epilogue<'_>,
    out: ViewMut<'_>,
    scratch: &mut Scratch,
) {
    let (m, n, k) = (out.rows, out.cols, w.groups());
    if m == 0 || n == 0 {
        return;
    }
    // Blocks of equal size, so that 384 is 192 + 192 and not 256 + 128; at least one, so that k = 0 writes zeros.
    let blocks = k.div_ceil(MAX_BLOCK / F::SPREAD).max(1);
    let block_k = k.div_ceil(blocks);
    let across = ACROSS * V::LANES;
    let (panels, out_data) = (w.words().as_ptr(), out.data.as_mut_ptr());
    for row_block in (0..m).step_by(BLOCK_ROWS) {
        let block_rows = BLOCK_ROWS.min(m - row_block);
        // SAFETY: the contract of this module; the rows are those of x.
        let (x_data, x_stride) = unsafe { encode::<V, D, F, 1>(x, row_block, block_rows, w, scratch) };
        // What partial sums travel between two blocks of k must not leave the cache, nor must x: the smaller of x and out is
        // what a sweep over the other comes back to.
        let columns = n.div_ceil(across);
        let place = |step: usize| {
            let (block, column) =
                if k <= n { (step % blocks, step / blocks) } else { (step / columns, step % columns) };
            (block, column * across)
        };
        let words_at = |k0: usize, column: usize| {
            let offset = if k == 0 { 0 } else { column % PANEL };
            panels.wrapping_add((column / PANEL * k + k0) * PANEL + offset)
        };
        for step in 0..blocks * columns {
            let (block, column) = place(step);
            let k0 = block * block_k;
            // The last block may be shorter. Every block starts before k: rounding up costs less than one block.
            let k1 = k.min(k0 + block_k);
            let columns = across.min(n - column);
            let mut panel = words_at(k0, column);
            if F::SPREAD > 1 {
                // SAFETY: the panel of `column` exists and is whole, `across` divides PANEL, and it has `k` rows.
                panel = unsafe { spread::<V>(panel, k1 - k0, scratch) };
            }
            // Tiles of nearly equal height: 13 rows are 7 + 6, not 12 + 1, which would wait on one accumulator.
            let tiles = block_rows.div_ceil(ROWS);
            let (height, taller) = (block_rows / tiles, block_rows % tiles);
            // Each tile fetches its part of the words that come next, a piece at each of its own: with few rows, what is
            // computed with a word takes less time than the word needs from memory.
            let (next_block, next_column) = place(step + 1);
            let next = words_at(next_block * block_k, next_column);
            let piece = PANEL.div_ceil(tiles);
            let mut row = 0;
            for tile_index in 0..tiles {
                let rows = height + usize::from(tile_index < taller);
                // SAFETY: `row_block + row + rows <= m`, `k0 <= k1 <= k` and `column + columns <= n` by the loops
                // above, so each pointer is inside the matrix that `Kernels::matmul` asserted, or in the words
                // that `encode` made of it; the panel of `column` exists and is whole, `across` divides PANEL.
                // With k = 0 nothing of x or w is read. What is fetched ahead may lie anywhere.
                unsafe {
                    let tile = Tile {
                        x: x_data.add(if k == 0 { 0 } else { row * x_stride + k0 * F::SPREAD }),
                        x_stride,
                        k: k1 - k0,
                        panel,
                        next: next.wrapping_add(tile_index * piece * (k1 - k0)),
                        piece,
                        out: out_data.add((row_block + row) * out.stride + column),
                        out_stride: out.stride,
                        columns,
                        first: block == 0,
                    };
                    run_tile::<V, F, ROWS>(rows, tile);
                }
                row += rows;
            }
            if block + 1 == blocks {
                // SAFETY: the rows and columns are those of `out` that the tiles above wrote.
                unsafe {
                    let to = out_data.add(row_block * out.stride + column);
                    let part = Part { row: row_block, rows: block_rows, column, columns };
                    finish::<V>(to, out.stride, part, w, then, scratch);
                }
            }
        }
    }
}

/// Some rows of one panel, of four signed bytes a word, as twice as many of two halves each, in their order, `across` words wide.
#[inline(always)]
unsafe fn spread<V: Vector>(panel: *const u32, rows: usize, scratch: &mut Scratch) -> *const u32 {
    let across = ACROSS * V::LANES;
    let lines = (2 * rows * across).div_ceil(Line::WORDS);
    if lines > scratch.panel.len() {
        scratch.panel.resize(lines, Line::ZERO);
    }
    let to = Line::words_mut(&mut scratch.panel).as_mut_ptr();
    for row in 0..rows {
        for start in (0..across).step_by(V::LANES) {
            // SAFETY: the caller's contract for what is read; `scratch.panel` has room for two rows more after `2 * row`.
            unsafe {
                let bytes = V::load_words(panel.add(row * PANEL + start));
                let (even, odd) =
                    (bytes.halves_left_8().halves_right_8_signed(), bytes.halves_right_8_signed());
                let low = even.and(even.same(0xffff)).or(odd.left_16());
                let high = even.right_16().or(odd.and(odd.same(!0xffff)));
                V::from_bits(low).store(to.add(2 * row * across + start).cast());
                V::from_bits(high).store(to.add((2 * row + 1) * across + start).cast());
            }
        }
    }
    to
}

/// Some rows of x as words of the weight's precision: where they begin, and how many words lie between two rows. There are a
/// multiple of `WHOLE` rows and words; words past `k` are zero, rows past `rows` have any value.
#[inline(always)]
pub(crate) unsafe fn encode<V: Vector, D: Dots<V>, F: Format<V>, const WHOLE: usize>(
    x: View<'_>,
    first: usize,
    rows: usize,
    w: &PackedMatrix,
    scratch: &mut Scratch,
) -> (*const u32, usize) {
    let groups = w.groups() * F::SPREAD;
    let is_f32 = w.precision() == Precision::F32;
    if is_f32 && !(x.stride.is_multiple_of(ALIASED) && rows > 1 && w.n() >= WORTH_MOVING) {
        // SAFETY: row `first` is one of x; without columns nothing is read.
        let at = unsafe { x.data.as_ptr().add(if groups == 0 { 0 } else { first * x.stride }) };
        return (at.cast(), x.stride);
    }
    let filled = groups.next_multiple_of(WHOLE);
    let stride = if filled.is_multiple_of(ALIASED) { filled + APART } else { filled };
    let lines = (rows.next_multiple_of(WHOLE) * stride).div_ceil(Line::WORDS);
    if lines > scratch.words.len() {
        scratch.words.resize(lines, Line::ZERO);
    }
    scratch.rows.resize(rows.max(scratch.rows.len()), RowScale::default());
    let all = Line::words_mut(&mut scratch.words);
    if groups == 0 {
        return (all.as_ptr(), 0);
    }
    for (i, words) in all.chunks_exact_mut(stride).take(rows).enumerate() {
        words[groups..filled].fill(0);
        let words = &mut words[..groups];
        // SAFETY: the contract of this module; `words` has room for a row.
        unsafe {
            match w.precision() {
                Precision::F32 | Precision::F16 => {
                    let row = x.row(first + i).iter().map(|value| value.to_bits());
                    words.iter_mut().zip(row).for_each(|(word, value)| *word = value);
                }
                Precision::Int8 => {
                    let row = x.row(first + i);
                    scratch.rows[i] = match w.smoothing() {
                        None => quantise::<V, F>(row, words, |x, _, _| x),
                        Some(Smoothing { factor, offset }) => quantise::<V, F>(row, words, |x, start, n| {
                            let offset = load::<V>(offset.as_ptr().add(start), n);
                            x.fma(load::<V>(factor.as_ptr().add(start), n), offset)
                        }),
                    };
                }
                _ => round_bf16::<V, D>(x.row(first + i), words),
            }
        }
    }
    (all.as_ptr(), stride)
}

/// A row of bfloat16, two a word, rounded to nearest, ties to even; NaN stays NaN. `dst` has a word for each two of `src`,
/// rounded up; what is left of the last one is zero.
#[inline(always)]
pub(crate) unsafe fn round_bf16<V: Vector, D: Dots<V>>(src: &[f32], dst: &mut [u32]) {
    let (from, to, len) = (src.as_ptr(), dst.as_mut_ptr().cast::<u16>(), src.len());
    if !len.is_multiple_of(2)
        && let Some(last) = dst.last_mut()
    {
        *last = 0;
    }
    // SAFETY: every access is to `n` elements from `start`, and `start + n <= len <= 2 * dst.len()`.
    unsafe {
        registers!(V, len, |start, n| {
            V::store_halves(D::to_bf16(load::<V>(from.add(start), n)), to.add(start), n);
        });
    }
}

/// Two rows of bfloat16 as one of words: `low` in the low halves, `high` (or zeros, if it is empty) in the others.
#[inline(always)]
pub(crate) unsafe fn pair_bf16<V: Vector, D: Dots<V>>(low: &[f32], high: &[f32], dst: &mut [u32]) {
    let (from, to, len) = (low.as_ptr(), dst.as_mut_ptr().cast::<f32>(), low.len());
    // SAFETY: every access is to `n` elements from `start`, `start + n <= len`, `dst` is as long as `low`, and `high` is
    // too if it is not empty.
    unsafe {
        registers!(V, len, |start, n| {
            let mut words = D::to_bf16(load::<V>(from.add(start), n));
            if !high.is_empty() {
                words = words.or(D::to_bf16(load::<V>(high.as_ptr().add(start), n)).left_16());
            }
            store(V::from_bits(words), to.add(start), n);
        });
    }
}

/// A row in 8 bits, four values a word (two where `SPREAD` is 2), over the range from its smallest to its largest value, zero
/// included. A row with NaN or infinity gets a scale of NaN. `prepare` is applied first, to `n` elements from `start` at a time; it makes
/// zeros of lanes that are not there. Steps are those of `RowScale` moved by `LEAST`, as is the step of zero.
#[inline(always)]
unsafe fn quantise<V: Vector, F: Format<V>>(
    src: &[f32],
    dst: &mut [u32],
    prepare: impl Fn(V, usize, usize) -> V,
) -> RowScale {
    let (from, to, len) = (src.as_ptr(), dst.as_mut_ptr(), src.len());
    // SAFETY: every access is to `n` elements from `start`, and `start + n <= len <= 4 / SPREAD * dst.len()`.
    unsafe {
        let zero = V::splat(0.0);
        let (mut most, mut least, mut poison) = (zero, zero, zero);
        registers!(V, len, |start, n| {
            // The lanes of a partial load that are not there are zero.
            let x = prepare(load::<V>(from.add(start), n), start, n);
            most = x.max(most);
            least = zero.sub(x).max(least);
            poison = x.fma(zero, poison);
        });
        let mut row = RowScale::new(least.largest(), most.largest(), poison.widen().total() as f32);
        let (inverse, words) = (V::splat(row.inverse()), zero.bits());
        let (bottom, top) = (words.same(-row.zero), words.same(255 - row.zero));
        row.zero += F::LEAST;
        let offset = words.same(row.zero);
        registers!(V, len, |start, n| {
            let x = prepare(load::<V>(from.add(start), n), start, n);
            let steps = x.mul(inverse).nearest().max(bottom).min(top).add(offset);
            if F::SPREAD == 1 {
                V::store_bytes(steps, to.cast::<u8>().add(start), n);
            } else {
                V::store_halves(steps, to.cast::<u16>().add(start), n);
            }
        });
        // Weights are zero there, but memory that was never written is not to be read.
        let size = F::SPREAD;
        to.cast::<u8>().add(len * size).write_bytes(0, 4 * dst.len() - len * size);
        row
    }
}

/// Some rows and columns of the result.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) column: usize,
    pub(crate) columns: usize,
}

/// Turns sums into results, where there is anything to do.
#[inline(always)]
pub(crate) unsafe fn finish<V: Vector>(
    out: *mut f32,
    stride: usize,
    part: Part,
    w: &PackedMatrix,
    then: Epilogue<'_>,
    scratch: &Scratch,
) {
    let nothing = then.bias.is_none() && then.add.is_none() && then.map == Map::Identity;
    if nothing && w.precision() != Precision::Int8 {
        return;
    }
    // SAFETY of each arm: the caller's contract.
    macro_rules! each {
        ($($map:ident)*) => {
            match then.map { $(Map::$map => unsafe { finish_with::<V, $map>(out, stride, part, w, then, scratch) },)* }
        };
    }
    each!(Identity GeluErf GeluTanh Silu Relu Tanh Sigmoid);
}

#[inline(always)]
unsafe fn finish_with<V: Vector, F: Function>(
    out: *mut f32,
    stride: usize,
    part: Part,
    w: &PackedMatrix,
    then: Epilogue<'_>,
    scratch: &Scratch,
) {
    let integers = w.precision() == Precision::Int8;
    for i in 0..part.rows {
        // SAFETY: every access is to `n` elements from `start`, `start + n <= columns`, of a row and columns of `out`, of
        // `add`, which has its shape, and of `bias`, scales and sums, which have an element for every column.
        unsafe {
            let row = out.add(i * stride);
            registers!(V, part.columns, |start, n| {
                let column = part.column + start;
                let mut y = load::<V>(row.add(start), n);
                if integers {
                    let sums = V::load_words(w.sums().as_ptr().add(column).cast());
                    let RowScale { scale, zero } = scratch.rows[i];
                    let exact = y.bits().sub(sums.mul(sums.same(zero)));
                    let step = V::load(w.scales().as_ptr().add(column)).mul(V::splat(scale));
                    y = V::from_ints(exact).mul(step);
                }
                if let Some(bias) = then.bias {
                    y = y.add(load::<V>(bias.as_ptr().add(column), n));
                }
                y = F::apply(y);
                if let Some(add) = then.add {
                    let from = add.data.as_ptr().add((part.row + i) * add.stride + column);
                    y = y.add(load::<V>(from, n));
                }
                store(y, row.add(start), n);
            });
        }
    }
}

/// One tile of the product: pointers to its corner of each matrix.
#[derive(Clone, Copy)]
struct Tile {
    x: *const u32,
    x_stride: usize,
    /// Packed words to add.
    k: usize,
    /// Rows of PANEL words, or of what [`spread`] made of them.
    panel: *const u32,
    /// What to fetch meanwhile, and how many words of it for each row.
    next: *const u32,
    piece: usize,
    out: *mut f32,
    out_stride: usize,
    /// Columns to read and write, 1..=2 registers.
    columns: usize,
    /// Start from zero, else from `out`.
    first: bool,
}

#[inline(always)]
unsafe fn run_tile<V: Vector, F: Format<V>, const ROWS: usize>(rows: usize, tile: Tile) {
    macro_rules! heights {
        ($($height:literal)*) => {
            match rows {
                // A height above ROWS never occurs, and the condition keeps it from being compiled.
                $($height if $height <= ROWS => unsafe { tile_of::<V, F, $height>(tile) },)*
                _ => unreachable!("a tile has 1..={ROWS} rows"),
            }
        };
    }
    // SAFETY of each arm: the caller's contract; the height is the number of rows of the tile.
    heights!(1 2 3 4 5 6 7 8 9 10 11 12)
}

#[inline(always)]
unsafe fn tile_of<V: Vector, F: Format<V>, const R: usize>(tile: Tile) {
    let Tile { x, x_stride, k, panel, next, piece, out, out_stride, columns, first } = tile;
    let full = columns == ACROSS * V::LANES;
    let part = [columns.min(V::LANES), columns.saturating_sub(V::LANES)];
    // SAFETY: the tile's pointers are good for R rows, `columns` columns and `k` words (contract of
    // `run_tile`); partial accesses touch `part[c]` elements of register c, none at all where that is zero, and the
    // pointer of such a register is made with `wrapping_add`.
    unsafe {
        let mut sums = [[F::from_stored(V::splat(0.0)); ACROSS]; R];
        let at = |r: usize, c: usize| out.wrapping_add(r * out_stride + c * V::LANES);
        // Partial accesses have copies of the sums: their loops may be too long to be unrolled, and what is indexed in a loop
        // lies in memory.
        if !first && full {
            for r in 0..R {
                for c in 0..ACROSS {
                    sums[r][c] = F::from_stored(V::load(at(r, c)));
                }
            }
        } else if !first {
            let mut stored = sums;
            for r in 0..R {
                for c in 0..ACROSS {
                    stored[r][c] = F::from_stored(V::load_part(at(r, c), part[c]));
                }
            }
            sums = stored;
        }
        let (mut from, mut ahead) = (panel, next);
        for kk in 0..k {
            V::fetch(ahead);
            ahead = ahead.wrapping_add(piece);
            for part in 0..F::SPREAD {
                let from = from.add(part * ACROSS * V::LANES);
                let w = [V::load_words(from), V::load_words(from.add(V::LANES))];
                for r in 0..R {
                    let x = V::splat_word(x.add(r * x_stride + kk * F::SPREAD + part));
                    for c in 0..ACROSS {
                        sums[r][c] = F::step(sums[r][c], x, w[c]);
                    }
                }
            }
            from = from.add(if F::SPREAD == 1 { PANEL } else { F::SPREAD * ACROSS * V::LANES });
        }
        if full {
            for r in 0..R {
                for c in 0..ACROSS {
                    F::to_stored(sums[r][c]).store(at(r, c));
                }
            }
        } else {
            let stored = sums;
            for r in 0..R {
                for c in 0..ACROSS {
                    F::to_stored(stored[r][c]).store_part(at(r, c), part[c]);
                }
            }
        }
    }
}

/// `n` elements from `from`: the plain load where it is a whole register, which the compiler sees in the main loop.
#[inline(always)]
unsafe fn load<V: Vector>(from: *const f32, n: usize) -> V {
    // SAFETY: the caller's contract: `n <= LANES` elements are readable.
    unsafe { if n == V::LANES { V::load(from) } else { V::load_part(from, n) } }
}

/// As [`load`], to write.
#[inline(always)]
unsafe fn store<V: Vector>(value: V, to: *mut f32, n: usize) {
    // SAFETY: the caller's contract: `n <= LANES` elements are writable.
    unsafe { if n == V::LANES { value.store(to) } else { value.store_part(to, n) } }
}

/// `n` elements become `exp(x - max)`, which is returned too; the lanes past `n` are anything.
#[inline(always)]
unsafe fn raised<V: Vector>(at: *mut f32, n: usize, max: V) -> V {
    // SAFETY: the caller's contract: `n <= LANES` elements are there.
    unsafe {
        let e = exp(load::<V>(at, n).sub(max));
        store(e, at, n);
        e
    }
}

/// Each row becomes `exp(x - max) / sum`. Four registers are added in `f32`, their sums in `f64`, so the error does not grow with
/// the row.
#[inline(always)]
pub(crate) unsafe fn softmax_rows<V: Vector>(mut x: ViewMut<'_>) {
    for i in 0..x.rows {
        let row = x.row_mut(i);
        let (at, len) = (row.as_mut_ptr(), row.len());
        // SAFETY: every access is to `n` elements from `start`, and `start + n <= len`.
        unsafe {
            let (zero, lowest) = (V::splat(0.0), V::splat(f32::NEG_INFINITY));
            let mut max = lowest;
            registers!(V, len, |start, n| {
                max = load::<V>(at.add(start), n).first_else(n, lowest).max(max);
            });
            // A NaN that the maximum lost is still in the row: its exponential, and so the sum, is NaN.
            let max = V::splat(max.largest());
            let mut sum = zero.widen();
            let mut done = 0;
            while done + 4 * V::LANES <= len {
                let mut four = raised(at.add(done), V::LANES, max);
                for i in 1..4 {
                    four = four.add(raised(at.add(done + i * V::LANES), V::LANES, max));
                }
                sum = sum.add(four.widen());
                done += 4 * V::LANES;
            }
            let mut rest = zero;
            registers!(V, len - done, |start, n| {
                rest = rest.add(raised(at.add(done + start), n, max).first_else(n, zero));
            });
            let inverse = V::splat((1.0 / sum.add(rest.widen()).total()) as f32);
            registers!(V, len, |start, n| {
                store(load::<V>(at.add(start), n).mul(inverse), at.add(start), n);
            });
        }
    }
}

/// Each row becomes `(x - mean) / sqrt(variance + eps) * gamma + beta`. The mean is summed in `f64`; the squares of what lies
/// around it in `f32`, by lane, and the lanes in `f64`.
#[inline(always)]
pub(crate) unsafe fn layer_norm<V: Vector>(
    mut x: ViewMut<'_>,
    gamma: &[f32],
    beta: Option<&[f32]>,
    eps: f32,
) {
    for i in 0..x.rows {
        let row = x.row_mut(i);
        let (at, len) = (row.as_mut_ptr(), row.len());
        // SAFETY: every access is to `n` elements from `start`, `start + n <= len`, and `gamma` and `beta` are as
        // long as the row.
        unsafe {
            let mut sum = V::splat(0.0).widen();
            registers!(V, len, |start, n| {
                sum = sum.add(load::<V>(at.add(start), n).widen());
            });
            let mean = sum.total() / len as f64;
            // The mean in two parts, so that a row far from zero loses nothing.
            let (high, low) = (V::splat(mean as f32), V::splat((mean - f64::from(mean as f32)) as f32));
            let mut squares = V::splat(0.0);
            registers!(V, len, |start, n| {
                let d = load::<V>(at.add(start), n).sub(high).sub(low);
                squares = d.first_else(n, d.same(0.0)).fma(d, squares);
                store(d, at.add(start), n);
            });
            let variance = squares.widen().total() / len as f64;
            let factor = V::splat((1.0 / (variance + f64::from(eps)).sqrt()) as f32);
            registers!(V, len, |start, n| {
                let normal = load::<V>(at.add(start), n).mul(factor);
                let gamma = load::<V>(gamma.as_ptr().add(start), n);
                let y = match beta {
                    Some(beta) => normal.fma(gamma, load::<V>(beta.as_ptr().add(start), n)),
                    None => normal.mul(gamma),
                };
                store(y, at.add(start), n);
            });
        }
    }
}

/// Each row becomes `x / sqrt(mean(x^2) + eps) * gamma`, the mean in `f64`.
#[inline(always)]
pub(crate) unsafe fn rms_norm<V: Vector>(mut x: ViewMut<'_>, gamma: &[f32], eps: f32) {
    for i in 0..x.rows {
        let row = x.row_mut(i);
        let (at, len) = (row.as_mut_ptr(), row.len());
        // SAFETY: as in `layer_norm`.
        unsafe {
            let zero = V::splat(0.0).widen();
            let mut squares = zero;
            registers!(V, len, |start, n| {
                let v = load::<V>(at.add(start), n).widen();
                squares = v.fma(v, squares);
            });
            let factor = zero.same(1.0 / (squares.total() / len as f64 + f64::from(eps)).sqrt());
            registers!(V, len, |start, n| {
                let normal = V::narrow(load::<V>(at.add(start), n).widen().mul(factor));
                store(normal.mul(load::<V>(gamma.as_ptr().add(start), n)), at.add(start), n);
            });
        }
    }
}

/// A function of one element.
pub(crate) trait Function {
    fn apply<V: Vector>(x: V) -> V;
}

/// Every element of `x` becomes `map` of it.
#[inline(always)]
pub(crate) unsafe fn map<V: Vector>(map: Map, x: &mut [f32]) {
    // SAFETY of each arm: the caller's contract.
    macro_rules! each {
        ($($map:ident)*) => { match map { $(Map::$map => unsafe { map_with::<V, $map>(x) },)* } };
    }
    each!(Identity GeluErf GeluTanh Silu Relu Tanh Sigmoid);
}

#[inline(always)]
unsafe fn map_with<V: Vector, F: Function>(x: &mut [f32]) {
    let (at, len) = (x.as_mut_ptr(), x.len());
    // SAFETY: every access is to `n` elements from `start`, and `start + n <= len`.
    unsafe {
        registers!(V, len, |start, n| {
            store(F::apply(load::<V>(at.add(start), n)), at.add(start), n);
        });
    }
}

/// A function of two elements.
pub(crate) trait Zip {
    fn apply<V: Vector>(x: V, y: V) -> V;
}

/// Every element of `x` becomes `F` of it and its neighbour in `y`.
#[inline(always)]
pub(crate) unsafe fn zip<V: Vector, F: Zip>(x: &mut [f32], y: &[f32]) {
    let (at, from, len) = (x.as_mut_ptr(), y.as_ptr(), x.len());
    // SAFETY: every access is to `n` elements from `start`, `start + n <= len`, and `y` is as long as `x`.
    unsafe {
        registers!(V, len, |start, n| {
            let z = F::apply(load::<V>(at.add(start), n), load::<V>(from.add(start), n));
            store(z, at.add(start), n);
        });
    }
}

/// Every element of `x` is multiplied by `s`.
#[inline(always)]
pub(crate) unsafe fn scale<V: Vector>(x: &mut [f32], s: f32) {
    let (at, len) = (x.as_mut_ptr(), x.len());
    // SAFETY: every access is to `n` elements from `start`, and `start + n <= len`.
    unsafe {
        let s = V::splat(s);
        registers!(V, len, |start, n| {
            store(load::<V>(at.add(start), n).mul(s), at.add(start), n);
        });
    }
}

macro_rules! conversion {
    ($(#[$doc:meta])* $name:ident, $load:ident) => {
        $(#[$doc])*
        #[inline(always)]
        pub(crate) unsafe fn $name<V: Vector>(src: &[u16], dst: &mut [f32]) {
            let (from, to, len) = (src.as_ptr(), dst.as_mut_ptr(), dst.len());
            // SAFETY: every access is to `n` elements from `start`, `start + n <= len`, and `src` is as long as
            // `dst`; an incomplete register is read from a copy with room for any LANES.
            unsafe {
                registers!(V, len, |start, n| {
                    if n == V::LANES {
                        V::$load(from.add(start)).store(to.add(start));
                    } else {
                        let mut copy = [0u16; 16];
                        copy[..n].copy_from_slice(&src[start..start + n]);
                        V::$load(copy.as_ptr()).store_part(to.add(start), n);
                    }
                });
            }
        }
    };
}
conversion!(
    /// IEEE half precision to `f32`, exactly.
    f16_to_f32, load_f16
);
conversion!(
    /// bfloat16 to `f32`, exactly.
    bf16_to_f32, load_bf16
);

/// `x + y`
pub(crate) struct Add;
impl Zip for Add {
    #[inline(always)]
    fn apply<V: Vector>(x: V, y: V) -> V {
        x.add(y)
    }
}

/// `x * y`
pub(crate) struct Mul;
impl Zip for Mul {
    #[inline(always)]
    fn apply<V: Vector>(x: V, y: V) -> V {
        x.mul(y)
    }
}

/// `x`
pub(crate) struct Identity;
impl Function for Identity {
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        x
    }
}

/// `max(x, 0)`; NaN stays NaN.
pub(crate) struct Relu;
impl Function for Relu {
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        x.same(0.0).max(x)
    }
}

/// `1 / (1 + exp(-x))`
pub(crate) struct Sigmoid;
impl Function for Sigmoid {
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        let one = x.same(1.0);
        one.div(one.add(exp(x.same(0.0).sub(x))))
    }
}

/// `x / (1 + exp(-x))`
pub(crate) struct Silu;
impl Function for Silu {
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        x.div(x.same(1.0).add(exp(x.same(0.0).sub(x))))
    }
}

/// `x / 2 * (1 + tanh(y))` with `y = sqrt(2 / pi) * (x + 0.044715 x^3)`, which is `x / (1 + exp(-2 y))`.
pub(crate) struct GeluTanh;
impl Function for GeluTanh {
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        const MINUS_TWICE: f64 = -2.0 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
        let inner = x.mul(x).fma(x.same((MINUS_TWICE * 0.044_715) as f32), x.same(MINUS_TWICE as f32)).mul(x);
        x.div(x.same(1.0).add(exp(inner)))
    }
}

/// `x * Phi(x)`, with `Phi` the normal distribution: `x / 2 * (1 + erf(x / sqrt(2)))`.
pub(crate) struct GeluErf;
impl Function for GeluErf {
    /// With `z = |x| / sqrt(2)`, the smaller tail is `erfc(z) / 2 = exp(-z^2 + z p(z)) / 2`, which for negative x is `Phi`
    /// itself, with nothing cancelled.
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        // The limit keeps z^2 finite; exp is 0 there. The operand order lets NaN through.
        let z = x.same(16.0).min(x.mul(x.same(std::f32::consts::FRAC_1_SQRT_2)).abs());
        let erfc = exp(polynomial(z, &LN_ERFCX).sub(z).mul(z));
        let twice = x.less_then(x.same(0.0), erfc, x.same(2.0).sub(erfc));
        x.mul(x.same(0.5)).mul(twice)
    }
}

/// `tanh(x)`
pub(crate) struct Tanh;
impl Function for Tanh {
    /// Below 0.625 an odd polynomial, which keeps the relative accuracy of small results; from there on
    /// `1 - 2 / (exp(2 |x|) + 1)`.
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        let z = x.abs();
        let u = x.mul(x);
        let inside = polynomial(u, &TANH_CUBE).mul(u).fma(x, x);
        let e = exp(z.add(z));
        let outside = x.same(1.0).sub(x.same(2.0).div(e.add(x.same(1.0)))).copy_sign(x);
        z.less_then(x.same(0.625), inside, outside)
    }
}

/// Coefficients of `(ln(erfc(z)) + z^2) / z` in `z`: a fit on `0..=4.3` weighted with `z erfc(z)`, largest error of `erfc`
/// 1.6e-8. Beyond, it falls faster than the function does, where `erfc` is below 2e-9.
const LN_ERFCX: [f32; 8] = [
    -1.128_380_3,
    0.363_402_28,
    -0.102_919_616,
    0.019_583_96,
    -0.000_536_931_97,
    -0.001_032_402_5,
    0.000_308_802_4,
    -3.144_019e-5,
];

/// Coefficients of `(tanh(x) - x) / x^3` in `x^2` on `0..=0.625`: largest error, times `x^2`, 4e-9.
const TANH_CUBE: [f32; 5] = [-0.333_332_84, 0.133_314_91, -0.053_743_497, 0.020_650_588, -0.005_717_045_6];

/// Coefficients of `exp(r)` on `|r| <= ln(2) / 2`, the first two exact: a least-maximum fit, largest error 3e-9.
const EXP: [f32; 7] = [1.0, 1.0, 0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_717_5, 0.001_381_461];

/// `c[0] + c[1] x + ...`, by Horner.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(x: V, c: &[f32; N]) -> V {
    let mut sum = x.same(c[N - 1]);
    for i in (0..N - 1).rev() {
        sum = sum.fma(x, x.same(c[i]));
    }
    sum
}

/// `exp(x)` within 2 ulp, for every `f32`: infinity above 88.73, exactly zero below -104, NaN for NaN.
///
/// `x = n ln 2 + r`, `|r| <= ln(2) / 2`; the result is `2^n exp(r)`.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    // ln 2 = LN2_HIGH + LN2_LOW, the high part with 15 trailing zero bits: n * LN2_HIGH is exact for |n| < 2^15.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;
    // Within +-110, beyond which results are infinite or zero anyway. The operand order lets NaN through.
    let x = x.same(110.0).min(x.same(-110.0).max(x));
    let n = x.mul(x.same(std::f32::consts::LOG2_E)).round();
    let r = n.fnma(x.same(LN2_LOW), n.fnma(x.same(LN2_HIGH), x));
    polynomial(r, &EXP).scale2(n)
}

/// The kernels of `generic.rs` for one register type, as a table.
macro_rules! instantiate {
    ($isa:ident, $vector:ident, $dots:ident, rows $rows:literal $bf16_rows:literal, $features:literal) => {
        /// The functions of this instruction set.
        pub(crate) static TABLE: $crate::Kernels = FUNCTIONS;
        pub(in super::super) const FUNCTIONS: $crate::Kernels = $crate::Kernels {
            isa: $crate::Isa::$isa,
            matmul,
            round_bf16,
            pair_bf16,
            softmax_rows,
            layer_norm,
            rms_norm,
            map,
            add,
            mul,
            scale,
            f16_to_f32,
            bf16_to_f32,
        };

        $crate::generic::instantiate! { @functions $vector, $features;
            matmul(
                x: $crate::View<'_>, w: &$crate::PackedMatrix, then: $crate::Epilogue<'_>, out: $crate::ViewMut<'_>,
                scratch: &mut $crate::Scratch
            ) = $crate::generic::matmul::<$vector, $dots, $rows, $bf16_rows>;
            round_bf16(src: &[f32], dst: &mut [u32]) = $crate::generic::round_bf16::<$vector, $dots>;
            pair_bf16(low: &[f32], high: &[f32], dst: &mut [u32])
                = $crate::generic::pair_bf16::<$vector, $dots>;
            softmax_rows(x: $crate::ViewMut<'_>) = $crate::generic::softmax_rows::<$vector>;
            layer_norm(x: $crate::ViewMut<'_>, gamma: &[f32], beta: Option<&[f32]>, eps: f32)
                = $crate::generic::layer_norm::<$vector>;
            rms_norm(x: $crate::ViewMut<'_>, gamma: &[f32], eps: f32) = $crate::generic::rms_norm::<$vector>;
            map(map: $crate::Map, x: &mut [f32]) = $crate::generic::map::<$vector>;
            add(x: &mut [f32], y: &[f32]) = $crate::generic::zip::<$vector, $crate::generic::Add>;
            mul(x: &mut [f32], y: &[f32]) = $crate::generic::zip::<$vector, $crate::generic::Mul>;
            scale(x: &mut [f32], s: f32) = $crate::generic::scale::<$vector>;
            f16_to_f32(src: &[u16], dst: &mut [f32]) = $crate::generic::f16_to_f32::<$vector>;
            bf16_to_f32(src: &[u16], dst: &mut [f32]) = $crate::generic::bf16_to_f32::<$vector>;
        }
    };
    // A set that adds instructions for products: all else is that of the module `super::base`.
    (more $isa:ident, $vector:ident, $dots:ident, rows $rows:literal $bf16_rows:literal, $features:literal) => {
        /// The functions of this instruction set.
        pub(crate) static TABLE: $crate::Kernels = FUNCTIONS;
        pub(in super::super) const FUNCTIONS: $crate::Kernels =
            $crate::Kernels { isa: $crate::Isa::$isa, matmul, round_bf16, pair_bf16, ..super::base::FUNCTIONS };

        $crate::generic::instantiate! { @functions $vector, $features;
            matmul(
                x: $crate::View<'_>, w: &$crate::PackedMatrix, then: $crate::Epilogue<'_>, out: $crate::ViewMut<'_>,
                scratch: &mut $crate::Scratch
            ) = $crate::generic::matmul::<$vector, $dots, $rows, $bf16_rows>;
            round_bf16(src: &[f32], dst: &mut [u32]) = $crate::generic::round_bf16::<$vector, $dots>;
            pair_bf16(low: &[f32], high: &[f32], dst: &mut [u32])
                = $crate::generic::pair_bf16::<$vector, $dots>;
        }
    };
    (@functions $vector:ident, $features:literal;
        $($name:ident($($arg:ident: $type:ty),*) = $generic:expr;)*) => {$(
        /// See `Kernels`.
        ///
        /// # Safety
        /// The CPU has the instruction set, and the shapes are those that `Kernels` asserts.
        #[target_feature(enable = $features)]
        unsafe fn $name($($arg: $type),*) {
            // SAFETY: the caller's contract is the callee's.
            unsafe { $generic($($arg),*) }
        }
    )*};
}
pub(crate) use instantiate;
