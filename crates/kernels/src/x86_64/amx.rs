//! AMX on top of AVX-512 BF16: products of bfloat16 and of 8-bit integers by tiles. Linux only, which lends the tiles on request.
//!
//! ```text
//! for each block of rows: as words of the weight's precision, rows and k filled up to whole tiles
//!     for each panel of 32 output columns
//!         for each two tiles of rows
//!             sum[2][2] = 0                                       four tiles of 16 x 16
//!             for 16 words of k:  sum[i][j] += x[i] * panel[j]    both have the layout of a tile as they lie
//!             out = sum
//!         out = epilogue(out), while it is in L2
//! ```
//!
//! A tile is sixteen rows of sixteen words. The weight's words past `k` come from a copy filled up with zeros, those of x are
//! zero: they add nothing. Every element is summed the same way, in steps of sixteen words, whatever its place: of bfloat16 the
//! products of the low halves and those of the high halves of a step each by themselves, then both; of 8 bits exactly.
//!
//! The instructions have no stable names in Rust and are written out. The compiler makes no use of tiles, so what one `asm!` leaves in
//! them is there for the next.

#![allow(clippy::missing_safety_doc, reason = "the contract is that of generic.rs")]

use std::arch::asm;

use super::avx512::{F32x16, VnniBf16};
use crate::generic::{Bf16, Format, Int8, Part, encode, finish};
use crate::packed::PANEL;
use crate::values::Line;
use crate::vector::Vector;
use crate::{Epilogue, Isa, Kernels, PackedMatrix, Precision, Scratch, View, ViewMut};

/// Rows of a tile, and words in one of them.
const SIDE: usize = Line::WORDS;
/// Words of x in one block of rows: 512 KiB, of a 2 MiB L2. The more rows, the less often the weight is read.
const BLOCK_WORDS: usize = 1 << 17;
/// Bytes from one row of a panel to the next.
const PANEL_STRIDE: usize = PANEL * size_of::<u32>();

/// The functions of this instruction set: products by tiles, all else that of AVX-512 BF16.
pub(crate) static TABLE: Kernels = Kernels { isa: Isa::Amx, matmul, ..super::avx512::bf16::FUNCTIONS };

/// Whether this processor has the tiles, and the system lends them to this process.
#[cfg(target_os = "linux")]
pub(crate) fn is_available() -> bool {
    static ONCE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ONCE.get_or_init(|| has_tiles() && request())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_available() -> bool {
    false
}

/// Whether the processor multiplies tiles of bfloat16 and of 8 bits, and the system saves them. Source: Intel's manual,
/// volume 1, chapter 18.
#[cfg(target_os = "linux")]
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    /// AMX-BF16, AMX-TILE and AMX-INT8 in register D of leaf 7.
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    /// The configuration of tiles, and tiles.
    const STATE: u64 = 3 << 17;
    #[target_feature(enable = "xsave")]
    fn saved() -> u64 {
        // SAFETY: register 0 is there where XSAVE is.
        unsafe { _xgetbv(0) }
    }
    let is_known = || __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & FEATURES == FEATURES;
    // SAFETY: XSAVE is detected, which says that the system uses it.
    is_x86_feature_detected!("xsave") && is_known() && unsafe { saved() } & STATE == STATE
}

/// Asks for tiles, for all threads of this process: without that, the first use of one ends it.
#[cfg(target_os = "linux")]
fn request() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call that takes two numbers, touches no memory, and changes the registers that are named.
    unsafe {
        asm!(
            "syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    result == 0
}

/// See `Kernels`.
///
/// # Safety
/// The CPU has the instruction set, and the shapes are those that `Kernels` asserts.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,avx512vnni,avx512bf16")]
unsafe fn matmul(x: View<'_>, w: &PackedMatrix, then: Epilogue<'_>, out: ViewMut<'_>, scratch: &mut Scratch) {
    // SAFETY: the caller's contract; a set of AVX-512 BF16 is a part of this one.
    unsafe {
        match w.precision() {
            Precision::Bf16 if w.groups() > 0 => product::<Bf16<VnniBf16>>(x, w, then, out, scratch),
            Precision::Int8 if w.groups() > 0 => product::<Int8<VnniBf16>>(x, w, then, out, scratch),
            // f32, or nothing to multiply: zeros, and what is done with them.
            _ => (super::avx512::bf16::FUNCTIONS.matmul)(x, w, then, out, scratch),
        }
    }
}

/// Memory as `ldtilecfg` reads it: all eight tiles have sixteen rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static WHOLE: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1; // the palette
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64; // bytes of a row, of 16 bits
        bytes[48 + tile] = SIDE as u8;
        tile += 1;
    }
    Config(bytes)
};

/// Gives all eight tiles their shape, and zeros.
#[inline(always)]
unsafe fn configure() {
    // SAFETY: the contract of this module; `WHOLE` is a configuration.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, preserves_flags, readonly)) }
}

/// One instruction on tiles that are named.
macro_rules! tile {
    ($instruction:expr) => { asm!($instruction, options(nomem, nostack, preserves_flags)) };
    ($instruction:expr, $at:expr, $stride:expr) => {
        asm!($instruction, at = in(reg) $at, stride = in(reg) $stride, options(nostack, preserves_flags))
    };
}

/// Products of tiles.
trait Tiles: Format<F32x16> {
    /// `tmm0 += tmm4 * tmm6`, and `tmm1` with the second tile of columns (`tmm7`), `tmm2` and `tmm3` with the second of rows (`tmm5`).
    unsafe fn multiply<const ROWS: usize, const COLUMNS: usize>();
}

macro_rules! tiles {
    ($format:ty, $product:literal) => {
        impl Tiles for $format {
            #[inline(always)]
            unsafe fn multiply<const ROWS: usize, const COLUMNS: usize>() {
                // SAFETY: the contract of this module; tiles are configured.
                unsafe {
                    tile!(concat!($product, " tmm0, tmm4, tmm6"));
                    if COLUMNS == 2 {
                        tile!(concat!($product, " tmm1, tmm4, tmm7"));
                    }
                    if ROWS == 2 {
                        tile!(concat!($product, " tmm2, tmm5, tmm6"));
                    }
                    if ROWS == 2 && COLUMNS == 2 {
                        tile!(concat!($product, " tmm3, tmm5, tmm7"));
                    }
                }
            }
        }
    };
}

tiles!(Bf16<VnniBf16>, "tdpbf16ps");
// Of x without a sign, of the weight with one.
tiles!(Int8<VnniBf16>, "tdpbusd");

#[inline(always)]
unsafe fn product<F: Tiles>(
    x: View<'_>,
    w: &PackedMatrix,
    then: Epilogue<'_>,
    out: ViewMut<'_>,
    scratch: &mut Scratch,
) {
    let (m, n, groups) = (out.rows, out.cols, w.groups());
    if m == 0 || n == 0 {
        return;
    }
    let (whole, rest) = (groups / SIDE, groups % SIDE);
    let words = w.words();
    let out_data = out.data.as_mut_ptr();
    // The last words of a panel, filled up with zeros.
    let mut tail = [Line::ZERO; 2 * SIDE];
    // SAFETY: the contract of this module.
    unsafe { configure() };
    let most_rows = (BLOCK_WORDS / groups.next_multiple_of(SIDE)).max(1).next_multiple_of(2 * SIDE);
    for row_block in (0..m).step_by(most_rows) {
        let block_rows = most_rows.min(m - row_block);
        // SAFETY: the contract of this module; the rows are those of x.
        let (x_data, x_stride) =
            unsafe { encode::<F32x16, VnniBf16, F, SIDE>(x, row_block, block_rows, w, scratch) };
        // The lines of the panel that comes next are fetched by pieces, so many at each step of 16 words of k.
        let steps = block_rows.div_ceil(2 * SIDE) * groups.div_ceil(SIDE);
        let ahead = (2 * groups).div_ceil(steps);
        for (p, panel) in words.chunks_exact(PANEL * groups).enumerate() {
            let columns = PANEL.min(n - p * PANEL);
            Line::words_mut(&mut tail)[..PANEL * rest].copy_from_slice(&panel[PANEL * SIDE * whole..]);
            let mut next = panel.as_ptr().wrapping_add(panel.len());
            for row in (0..block_rows).step_by(2 * SIDE) {
                let rows = (2 * SIDE).min(block_rows - row);
                // SAFETY: the rows are whole tiles of what `encode` wrote, the columns are in `out`, and `out` is asserted to have
                // `m` rows.
                unsafe {
                    let sums = Sums {
                        x: x_data.add(row * x_stride),
                        x_stride,
                        whole,
                        panel: panel.as_ptr(),
                        tail: (rest > 0).then_some(tail.as_ptr().cast()),
                        out: out_data.add((row_block + row) * out.stride + p * PANEL),
                        out_stride: out.stride,
                        rows,
                        columns,
                    };
                    match (rows > SIDE, columns > SIDE) {
                        (false, false) => sums.take::<F, 1, 1>(&mut next, ahead),
                        (false, true) => sums.take::<F, 1, 2>(&mut next, ahead),
                        (true, false) => sums.take::<F, 2, 1>(&mut next, ahead),
                        (true, true) => sums.take::<F, 2, 2>(&mut next, ahead),
                    }
                }
            }
            // SAFETY: the rows and columns are those of `out` that the tiles above wrote.
            unsafe {
                let part = Part { row: row_block, rows: block_rows, column: p * PANEL, columns };
                let to = out_data.add(row_block * out.stride + part.column);
                finish::<F32x16>(to, out.stride, part, w, then, scratch);
            }
        }
    }
    // SAFETY: as above. What is left in tiles would be saved whenever another thread runs.
    unsafe { tile!("tilerelease") }
}

/// Up to two tiles by two of the result, and what they are summed of.
struct Sums {
    x: *const u32,
    x_stride: usize,
    /// Whole tiles of k.
    whole: usize,
    panel: *const u32,
    /// A tile of k more.
    tail: Option<*const u32>,
    out: *mut f32,
    out_stride: usize,
    rows: usize,
    columns: usize,
}

impl Sums {
    /// Fetches `ahead` lines from `next` on at each step, which may lie anywhere.
    #[inline(always)]
    unsafe fn take<F: Tiles, const ROWS: usize, const COLUMNS: usize>(
        &self,
        next: &mut *const u32,
        ahead: usize,
    ) {
        // SAFETY: the contract of this module: tiles are configured, x has 16 ROWS rows of `whole` tiles and one more if there is
        // a tail, the panel has `16 whole` rows, and so has `tail` sixteen.
        unsafe {
            tile!("tilezero tmm0");
            tile!("tilezero tmm1");
            tile!("tilezero tmm2");
            tile!("tilezero tmm3");
            let mut step = |k: usize, panel: *const u32| {
                for _ in 0..ahead {
                    F32x16::fetch(*next);
                    *next = next.wrapping_add(SIDE);
                }
                let (x, stride) = (self.x.add(k * SIDE), self.x_stride * size_of::<u32>());
                tile!("tileloadd tmm6, [{at} + {stride}*1]", panel, PANEL_STRIDE);
                tile!("tileloadd tmm4, [{at} + {stride}*1]", x, stride);
                if COLUMNS == 2 {
                    tile!("tileloadd tmm7, [{at} + {stride}*1]", panel.add(SIDE), PANEL_STRIDE);
                }
                if ROWS == 2 {
                    tile!("tileloadd tmm5, [{at} + {stride}*1]", x.add(SIDE * self.x_stride), stride);
                }
                F::multiply::<ROWS, COLUMNS>();
            };
            for k in 0..self.whole {
                step(k, self.panel.add(k * SIDE * PANEL));
            }
            if let Some(tail) = self.tail {
                step(self.whole, tail);
            }
            macro_rules! store {
                ($instruction:literal, $row:literal, $column:literal) => {
                    if $row < ROWS && $column < COLUMNS {
                        let out = self.out.add($row * SIDE * self.out_stride + $column * SIDE);
                        let rows = SIDE.min(self.rows - $row * SIDE);
                        let columns = SIDE.min(self.columns - $column * SIDE);
                        if rows == SIDE && columns == SIDE {
                            tile!($instruction, out, self.out_stride * size_of::<f32>());
                        } else {
                            let mut part = [Line::ZERO; SIDE];
                            tile!($instruction, part.as_mut_ptr(), size_of::<Line>());
                            for (i, line) in part[..rows].iter().enumerate() {
                                let row = F32x16::load(line.0.as_ptr().cast());
                                row.store_part(out.add(i * self.out_stride), columns);
                            }
                        }
                    }
                };
            }
            store!("tilestored [{at} + {stride}*1], tmm0", 0, 0);
            store!("tilestored [{at} + {stride}*1], tmm1", 0, 1);
            store!("tilestored [{at} + {stride}*1], tmm2", 1, 0);
            store!("tilestored [{at} + {stride}*1], tmm3", 1, 1);
        }
    }
}

/// Bursts for `Kernels::peak`: as many products as fill the unit, in tiles that hold zeros.
pub(crate) mod peak {
    use super::*;

    /// Products of tiles in a burst.
    pub(crate) const PRODUCTS: usize = 4 * ROUNDS;
    const ROUNDS: usize = 1024;

    #[inline(always)]
    unsafe fn burst<F: Tiles>() {
        // SAFETY: the caller's contract: the CPU has the instruction set.
        unsafe {
            configure();
            for _ in 0..ROUNDS {
                F::multiply::<2, 2>();
            }
            tile!("tilerelease");
        }
    }

    pub(crate) unsafe fn bf16() {
        // SAFETY: the caller's contract.
        unsafe { burst::<Bf16<VnniBf16>>() }
    }

    pub(crate) unsafe fn int8() {
        // SAFETY: the caller's contract.
        unsafe { burst::<Int8<VnniBf16>>() }
    }
}
