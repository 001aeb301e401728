//! NEON, which every AArch64 CPU has: two registers of four lanes as one of eight.
//!
//! Two, because a tile is as wide as two of [`Vector`]: sixteen columns need fewer loads of `x` for each product than eight,
//! and on many cores a load into every lane takes a place of the arithmetic.

#![allow(clippy::missing_safety_doc, reason = "the contracts are those of the trait")]

use std::arch::aarch64::*;
use std::arch::asm;

use crate::generic::instantiate;
use crate::vector::{Dots, Plain, Vector, Wide, Words, methods};

/// Eight `f32`.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(float32x4_t, float32x4_t);

/// Eight `f64`.
#[derive(Clone, Copy)]
pub(crate) struct F64x8(float64x2_t, float64x2_t, float64x2_t, float64x2_t);

/// Eight words.
#[derive(Clone, Copy)]
pub(crate) struct U32x8(int32x4_t, int32x4_t);

/// `Self` of one function for both registers.
macro_rules! both {
    ($function:path, $($arg:expr),+) => { Self($function($($arg.0),+), $function($($arg.1),+)) };
}

/// The same for four.
macro_rules! four {
    ($function:path, $($arg:expr),+) => {
        Self($function($($arg.0),+), $function($($arg.1),+), $function($($arg.2),+), $function($($arg.3),+))
    };
}

/// Masks of the first `n` of eight lanes.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn first_lanes(n: usize) -> (uint32x4_t, uint32x4_t) {
    const LANES: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    // SAFETY: the caller runs under NEON; four of the eight elements follow each pointer.
    unsafe {
        let n = vdupq_n_u32(n.min(8) as u32);
        (vcltq_u32(vld1q_u32(LANES.as_ptr()), n), vcltq_u32(vld1q_u32(LANES.as_ptr().add(4)), n))
    }
}

/// The first `n` of four elements, the other lanes zero; `n >= 4` is all of them.
///
/// # Safety
/// The CPU has NEON; `from` is readable for `n` elements, or four.
#[inline(always)]
unsafe fn load_four(from: *const f32, n: usize) -> float32x4_t {
    // SAFETY: the caller's contract; each arm reads that many elements.
    unsafe {
        let zero = vdupq_n_f32(0.0);
        match n {
            0 => zero,
            1 => vld1q_lane_f32::<0>(from, zero),
            2 => vcombine_f32(vld1_f32(from), vget_low_f32(zero)),
            3 => vld1q_lane_f32::<2>(from.add(2), vcombine_f32(vld1_f32(from), vget_low_f32(zero))),
            _ => vld1q_f32(from),
        }
    }
}

/// Writes the first `n` of four lanes; `n >= 4` is all of them.
///
/// # Safety
/// The CPU has NEON; `to` is writable for `n` elements, or four.
#[inline(always)]
unsafe fn store_four(lanes: float32x4_t, to: *mut f32, n: usize) {
    // SAFETY: the caller's contract; each arm writes that many elements.
    unsafe {
        match n {
            0 => {}
            1 => vst1q_lane_f32::<0>(to, lanes),
            2 => vst1_f32(to, vget_low_f32(lanes)),
            3 => {
                vst1_f32(to, vget_low_f32(lanes));
                vst1q_lane_f32::<2>(to.add(2), lanes);
            }
            _ => vst1q_f32(to, lanes),
        }
    }
}

/// The low halves of words.
#[inline(always)]
fn halves(words: U32x8) -> uint16x8_t {
    // SAFETY: `words` proves NEON.
    unsafe { vreinterpretq_u16_s16(vcombine_s16(vmovn_s32(words.0), vmovn_s32(words.1))) }
}

/// `2^n` for integer-valued `n` in -126..=127, by writing the exponent field.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn power_of_two(n: int32x4_t) -> float32x4_t {
    // SAFETY: the caller runs under NEON.
    unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))) }
}

impl Vector for F32x8 {
    const LANES: usize = 8;
    type Wide = F64x8;
    type Words = U32x8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller runs under NEON.
        unsafe { Self(vdupq_n_f32(value), vdupq_n_f32(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller runs under NEON and gives eight readable elements; the loads are unaligned.
        unsafe { Self(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        // SAFETY: the caller runs under NEON and gives `n <= 8` readable elements, each in one of two parts.
        unsafe { Self(load_four(from, n), load_four(from.wrapping_add(4), n.saturating_sub(4))) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller runs under NEON and gives eight readable `u16`; the load is unaligned.
        unsafe {
            let halves = vreinterpretq_f16_u16(vld1q_u16(from));
            Self(vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: as in `load_f16`. A bfloat16 is the upper half of a binary32.
        unsafe {
            let halves = vld1q_u16(from);
            let upper = |wide| vreinterpretq_f32_u32(vshlq_n_u32::<16>(wide));
            Self(upper(vmovl_u16(vget_low_u16(halves))), upper(vmovl_high_u16(halves)))
        }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> U32x8 {
        // SAFETY: the caller runs under NEON and gives eight readable words; the loads are unaligned.
        unsafe { U32x8(vld1q_s32(from.cast()), vld1q_s32(from.add(4).cast())) }
    }

    #[inline(always)]
    unsafe fn splat_word(from: *const u32) -> U32x8 {
        // SAFETY: the caller runs under NEON and gives a readable word.
        unsafe {
            let word = vld1q_dup_s32(from.cast());
            U32x8(word, word)
        }
    }

    #[inline(always)]
    unsafe fn store_halves(words: U32x8, to: *mut u16, n: usize) {
        // SAFETY: `words` proves NEON; a whole store only where eight elements are writable, else `n < 8` of a copy.
        unsafe {
            if n >= 8 {
                vst1q_u16(to, halves(words));
            } else {
                let mut copy = [0; 8];
                vst1q_u16(copy.as_mut_ptr(), halves(words));
                std::ptr::copy_nonoverlapping(copy.as_ptr(), to, n);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(words: U32x8, to: *mut u8, n: usize) {
        // SAFETY: as in `store_halves`.
        unsafe {
            let bytes = vmovn_u16(halves(words));
            if n >= 8 {
                vst1_u8(to, bytes);
            } else {
                let mut copy = [0; 8];
                vst1_u8(copy.as_mut_ptr(), bytes);
                std::ptr::copy_nonoverlapping(copy.as_ptr(), to, n);
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: `self` proves NEON; the caller gives eight writable elements; the stores are unaligned.
        unsafe {
            vst1q_f32(to, self.0);
            vst1q_f32(to.add(4), self.1);
        }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        // SAFETY: `self` proves NEON; the caller gives `n <= 8` writable elements, each in one of two parts.
        unsafe {
            store_four(self.0, to, n);
            store_four(self.1, to.wrapping_add(4), n.saturating_sub(4));
        }
    }

    methods! {
        fn same(self, value: f32) -> Self { Self(vdupq_n_f32(value), vdupq_n_f32(value)) }
        fn add(self, b: Self) -> Self { both!(vaddq_f32, self, b) }
        fn sub(self, b: Self) -> Self { both!(vsubq_f32, self, b) }
        fn mul(self, b: Self) -> Self { both!(vmulq_f32, self, b) }
        fn div(self, b: Self) -> Self { both!(vdivq_f32, self, b) }
        fn fma(self, b: Self, c: Self) -> Self { both!(vfmaq_f32, c, self, b) }
        fn fnma(self, b: Self, c: Self) -> Self { both!(vfmsq_f32, c, self, b) }
        fn min(self, b: Self) -> Self {
            // FMIN gives NaN where either is; and so does FMAX.
            let min = |a, b| vbslq_f32(vcltq_f32(a, b), a, b);
            both!(min, self, b)
        }
        fn max(self, b: Self) -> Self {
            let max = |a, b| vbslq_f32(vcgtq_f32(a, b), a, b);
            both!(max, self, b)
        }
        fn round(self) -> Self { both!(vrndnq_f32, self) }
        fn abs(self) -> Self { both!(vabsq_f32, self) }
        fn copy_sign(self, sign: Self) -> Self {
            let mask = vdupq_n_u32(1 << 31);
            Self(vbslq_f32(mask, sign.0, self.0), vbslq_f32(mask, sign.1, self.1))
        }
        fn less_then(self, b: Self, a: Self, c: Self) -> Self {
            let less = (vcltq_f32(self.0, b.0), vcltq_f32(self.1, b.1));
            both!(vbslq_f32, less, a, c)
        }
        fn scale2(self, n: Self) -> Self {
            // In two halves, because 2^-150 and 2^128 are not numbers of one exponent field.
            let scale = |x, n| {
                let n = vcvtnq_s32_f32(n);
                let half = vshrq_n_s32::<1>(n);
                vmulq_f32(vmulq_f32(x, power_of_two(half)), power_of_two(vsubq_s32(n, half)))
            };
            both!(scale, self, n)
        }
        fn first_else(self, n: usize, rest: Self) -> Self { both!(vbslq_f32, first_lanes(n), self, rest) }
        fn largest(self) -> f32 { vmaxvq_f32(vmaxq_f32(self.0, self.1)) }
        fn widen(self) -> F64x8 {
            F64x8(
                vcvt_f64_f32(vget_low_f32(self.0)),
                vcvt_high_f64_f32(self.0),
                vcvt_f64_f32(vget_low_f32(self.1)),
                vcvt_high_f64_f32(self.1),
            )
        }
        fn bits(self) -> U32x8 { U32x8(vreinterpretq_s32_f32(self.0), vreinterpretq_s32_f32(self.1)) }
        fn nearest(self) -> U32x8 { U32x8(vcvtnq_s32_f32(self.0), vcvtnq_s32_f32(self.1)) }
    }

    #[inline(always)]
    fn narrow(wide: F64x8) -> Self {
        // SAFETY: `wide` proves NEON.
        unsafe {
            let narrow = |low, high| vcvt_high_f32_f64(vcvt_f32_f64(low), high);
            Self(narrow(wide.0, wide.1), narrow(wide.2, wide.3))
        }
    }

    #[inline(always)]
    fn from_bits(words: U32x8) -> Self {
        // SAFETY: `words` proves NEON.
        unsafe { both!(vreinterpretq_f32_s32, words) }
    }

    #[inline(always)]
    fn from_ints(words: U32x8) -> Self {
        // SAFETY: `words` proves NEON.
        unsafe { both!(vcvtq_f32_s32, words) }
    }
}

impl Words for U32x8 {
    methods! {
        fn same(self, value: i32) -> Self { Self(vdupq_n_s32(value), vdupq_n_s32(value)) }
        fn add(self, b: Self) -> Self { both!(vaddq_s32, self, b) }
        fn sub(self, b: Self) -> Self { both!(vsubq_s32, self, b) }
        fn mul(self, b: Self) -> Self { both!(vmulq_s32, self, b) }
        fn and(self, b: Self) -> Self { both!(vandq_s32, self, b) }
        fn or(self, b: Self) -> Self { both!(vorrq_s32, self, b) }
        fn halves_left_8(self) -> Self {
            let left = |word| vreinterpretq_s32_s16(vshlq_n_s16::<8>(vreinterpretq_s16_s32(word)));
            both!(left, self)
        }
        fn halves_right_8_signed(self) -> Self {
            let right = |word| vreinterpretq_s32_s16(vshrq_n_s16::<8>(vreinterpretq_s16_s32(word)));
            both!(right, self)
        }
        fn left_16(self) -> Self { both!(vshlq_n_s32::<16>, self) }
        fn right_16(self) -> Self {
            let right = |word| vreinterpretq_s32_u32(vshrq_n_u32::<16>(vreinterpretq_u32_s32(word)));
            both!(right, self)
        }
        fn min(self, b: Self) -> Self { both!(vminq_s32, self, b) }
        fn max(self, b: Self) -> Self { both!(vmaxq_s32, self, b) }
        fn greater_then(self, b: Self, a: Self, c: Self) -> Self {
            let greater = (vcgtq_s32(self.0, b.0), vcgtq_s32(self.1, b.1));
            both!(vbslq_s32, greater, a, c)
        }
        fn multiply_halves(self, b: Self) -> Self {
            let multiply = |a, b| {
                let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
                vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b))
            };
            both!(multiply, self, b)
        }
    }
}

impl Wide for F64x8 {
    methods! {
        fn same(self, value: f64) -> Self {
            let value = vdupq_n_f64(value);
            Self(value, value, value, value)
        }
        fn add(self, b: Self) -> Self { four!(vaddq_f64, self, b) }
        fn mul(self, b: Self) -> Self { four!(vmulq_f64, self, b) }
        fn fma(self, b: Self, c: Self) -> Self { four!(vfmaq_f64, c, self, b) }
        fn total(self) -> f64 { vaddvq_f64(vaddq_f64(vaddq_f64(self.0, self.1), vaddq_f64(self.2, self.3))) }
    }
}

/// SDOT.
pub(crate) struct Dot;

impl Dots<F32x8> for Dot {
    /// Signed, for SDOT has no form with one side unsigned. USDOT has, on newer CPUs, and is no faster.
    const LEAST: i32 = -128;

    #[inline(always)]
    unsafe fn bf16(sum: F32x8, x: U32x8, w: U32x8) -> F32x8 {
        // SAFETY: the caller's contract.
        unsafe { Plain::bf16(sum, x, w) }
    }

    #[inline(always)]
    unsafe fn int8(sum: U32x8, x: U32x8, w: U32x8) -> U32x8 {
        let dot = |mut sum: int32x4_t, x: int32x4_t, w: int32x4_t| {
            // SAFETY: the caller runs under DotProd; nothing but the sum is written. There is no stable intrinsic.
            unsafe {
                asm!(
                    "sdot {sum:v}.4s, {x:v}.16b, {w:v}.16b",
                    sum = inout(vreg) sum,
                    x = in(vreg) x,
                    w = in(vreg) w,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sum
        };
        U32x8(dot(sum.0, x.0, w.0), dot(sum.1, x.1, w.1))
    }
}

/// SDOT and BFDOT.
pub(crate) struct DotBf16;

impl Dots<F32x8> for DotBf16 {
    const LEAST: i32 = Dot::LEAST;

    /// BFDOT takes subnormal numbers as zero, and rounds the sum of both products, and that added to `sum`, to odd: to the
    /// neighbour whose last bit is set. That is up to 2 U, twice the error of an FMA, half as often: for `k` products no more
    /// than `k + 2` of FMA's roundings. On CPUs with FEAT_EBF16 too, unless a program sets FPCR.EBF.
    #[inline(always)]
    unsafe fn bf16(sum: F32x8, x: U32x8, w: U32x8) -> F32x8 {
        let dot = |mut sum: float32x4_t, x: int32x4_t, w: int32x4_t| {
            // SAFETY: the caller runs under BF16; nothing but the sum is written. There is no stable intrinsic.
            unsafe {
                asm!(
                    "bfdot {sum:v}.4s, {x:v}.8h, {w:v}.8h",
                    sum = inout(vreg) sum,
                    x = in(vreg) x,
                    w = in(vreg) w,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sum
        };
        F32x8(dot(sum.0, x.0, w.0), dot(sum.1, x.1, w.1))
    }

    #[inline(always)]
    unsafe fn int8(sum: U32x8, x: U32x8, w: U32x8) -> U32x8 {
        // SAFETY: the caller's contract.
        unsafe { Dot::int8(sum, x, w) }
    }
}

// Five rows of two times two registers: 20 accumulators, four registers of the panel and one of the row fill 25 of the 32.
// Six would fill 29, but the compiler writes their sums to memory in every step. Four for bf16 without an instruction, where
// panel and row take two each.
pub(crate) mod base {
    use super::*;
    instantiate!(Neon, F32x8, Plain, rows 5 4, "neon");
}

/// With DotProd.
pub(crate) mod dot {
    use super::*;
    instantiate!(more NeonDot, F32x8, Dot, rows 5 4, "neon,dotprod");
}

/// With DotProd and BF16.
pub(crate) mod bf16 {
    use super::*;
    instantiate!(more NeonBf16, F32x8, DotBf16, rows 5 5, "neon,dotprod,bf16");
}
