//! AVX2 with FMA and F16C: eight lanes; tails by `vmaskmov`.

#![allow(clippy::missing_safety_doc, reason = "the contracts are those of the trait")]

use std::arch::x86_64::*;

use crate::generic::instantiate;
use crate::vector::{Dots, Plain, Vector, Wide, Words, methods};

/// Eight `f32`.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

/// Eight `f64`, low half first.
#[derive(Clone, Copy)]
pub(crate) struct F64x8(__m256d, __m256d);

/// Eight words.
#[derive(Clone, Copy)]
pub(crate) struct U32x8(__m256i);

/// Eight set lanes, then eight clear ones: a window into it masks the first `n`.
static LANES_32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// A mask of the first `n` of eight lanes; `n >= 8` is all of them.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn first_lanes(n: usize) -> __m256i {
    // SAFETY: the caller runs under AVX2; the offset is 0..=8, so eight of the sixteen elements follow it.
    unsafe { _mm256_loadu_si256(LANES_32.as_ptr().add(8 - n.min(8)).cast()) }
}

/// `2^n` for integer-valued `n` in -126..=127, by writing the exponent field.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn power_of_two(n: __m256i) -> __m256 {
    // SAFETY: the caller runs under AVX2.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
}

impl Vector for F32x8 {
    const LANES: usize = 8;
    type Wide = F64x8;
    type Words = U32x8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller runs under AVX2.
        unsafe { Self(_mm256_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller runs under AVX2 and gives eight readable elements; the load is unaligned.
        unsafe { Self(_mm256_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        // SAFETY: the caller runs under AVX2; masked lanes, those from `n`, are not accessed.
        unsafe { Self(_mm256_maskload_ps(from, first_lanes(n))) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller runs under F16C and gives eight readable `u16`, 16 bytes; the load is unaligned.
        unsafe { Self(_mm256_cvtph_ps(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: as in `load_f16`. A bfloat16 is the upper half of a binary32.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    fn fetch(at: *const u32) {
        // SAFETY: SSE belongs to every x86_64 CPU, and a fetch ahead of what is not there does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> U32x8 {
        // SAFETY: the caller runs under AVX2 and gives eight readable words; the load is unaligned.
        unsafe { U32x8(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn splat_word(from: *const u32) -> U32x8 {
        // SAFETY: the caller runs under AVX2 and gives a readable word.
        unsafe { U32x8(_mm256_set1_epi32((*from).cast_signed())) }
    }

    #[inline(always)]
    unsafe fn store_halves(words: U32x8, to: *mut u16, n: usize) {
        // SAFETY: `words` proves AVX2; a whole store only where eight elements are writable, else `n <= 8` of a copy.
        unsafe {
            let words = _mm256_and_si256(words.0, _mm256_set1_epi32(0xffff));
            // Packs within each half of the register; the quarters 0 and 2 have what is wanted.
            let packed = _mm256_permute4x64_epi64::<0b10_00>(_mm256_packus_epi32(words, words));
            let packed = _mm256_castsi256_si128(packed);
            if n >= 8 {
                _mm_storeu_si128(to.cast(), packed);
            } else {
                let mut copy = [0u16; 8];
                _mm_storeu_si128(copy.as_mut_ptr().cast(), packed);
                std::ptr::copy_nonoverlapping(copy.as_ptr(), to, n);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(words: U32x8, to: *mut u8, n: usize) {
        // SAFETY: as in `store_halves`.
        unsafe {
            let mut copy = [0u32; 8];
            _mm256_storeu_si256(copy.as_mut_ptr().cast(), words.0);
            let copy = copy.map(|word| word as u8);
            std::ptr::copy_nonoverlapping(copy.as_ptr(), to, n.min(8));
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: `self` proves AVX2; the caller gives eight writable elements; the store is unaligned.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        // SAFETY: `self` proves AVX2; masked lanes, those from `n`, are not accessed.
        unsafe { _mm256_maskstore_ps(to, first_lanes(n), self.0) }
    }

    methods! {
        fn same(self, value: f32) -> Self { Self(_mm256_set1_ps(value)) }
        fn add(self, b: Self) -> Self { Self(_mm256_add_ps(self.0, b.0)) }
        fn sub(self, b: Self) -> Self { Self(_mm256_sub_ps(self.0, b.0)) }
        fn mul(self, b: Self) -> Self { Self(_mm256_mul_ps(self.0, b.0)) }
        fn div(self, b: Self) -> Self { Self(_mm256_div_ps(self.0, b.0)) }
        fn fma(self, b: Self, c: Self) -> Self { Self(_mm256_fmadd_ps(self.0, b.0, c.0)) }
        fn fnma(self, b: Self, c: Self) -> Self { Self(_mm256_fnmadd_ps(self.0, b.0, c.0)) }
        fn min(self, b: Self) -> Self { Self(_mm256_min_ps(self.0, b.0)) }
        fn max(self, b: Self) -> Self { Self(_mm256_max_ps(self.0, b.0)) }
        fn round(self) -> Self {
            Self(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
        }
        fn abs(self) -> Self { Self(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)) }
        fn copy_sign(self, sign: Self) -> Self {
            let mask = _mm256_set1_ps(-0.0);
            Self(_mm256_or_ps(_mm256_andnot_ps(mask, self.0), _mm256_and_ps(mask, sign.0)))
        }
        fn less_then(self, b: Self, a: Self, c: Self) -> Self {
            Self(_mm256_blendv_ps(c.0, a.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, b.0)))
        }
        fn scale2(self, n: Self) -> Self {
            // In two halves, because 2^-150 and 2^128 are not numbers of one exponent field.
            let n = _mm256_cvtps_epi32(n.0);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            Self(_mm256_mul_ps(_mm256_mul_ps(self.0, power_of_two(half)), power_of_two(rest)))
        }
        fn first_else(self, n: usize, rest: Self) -> Self {
            Self(_mm256_blendv_ps(rest.0, self.0, _mm256_castsi256_ps(first_lanes(n))))
        }
        fn largest(self) -> f32 {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
        fn widen(self) -> F64x8 {
            F64x8(
                _mm256_cvtps_pd(_mm256_castps256_ps128(self.0)),
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(self.0)),
            )
        }
        fn bits(self) -> U32x8 { U32x8(_mm256_castps_si256(self.0)) }
        fn nearest(self) -> U32x8 { U32x8(_mm256_cvtps_epi32(self.0)) }
    }

    #[inline(always)]
    fn narrow(wide: F64x8) -> Self {
        // SAFETY: `wide` proves AVX2.
        unsafe { Self(_mm256_set_m128(_mm256_cvtpd_ps(wide.1), _mm256_cvtpd_ps(wide.0))) }
    }

    #[inline(always)]
    fn from_bits(words: U32x8) -> Self {
        // SAFETY: `words` proves AVX2.
        unsafe { Self(_mm256_castsi256_ps(words.0)) }
    }

    #[inline(always)]
    fn from_ints(words: U32x8) -> Self {
        // SAFETY: `words` proves AVX2.
        unsafe { Self(_mm256_cvtepi32_ps(words.0)) }
    }
}

impl Words for U32x8 {
    methods! {
        fn same(self, value: i32) -> Self { Self(_mm256_set1_epi32(value)) }
        fn add(self, b: Self) -> Self { Self(_mm256_add_epi32(self.0, b.0)) }
        fn sub(self, b: Self) -> Self { Self(_mm256_sub_epi32(self.0, b.0)) }
        fn mul(self, b: Self) -> Self { Self(_mm256_mullo_epi32(self.0, b.0)) }
        fn and(self, b: Self) -> Self { Self(_mm256_and_si256(self.0, b.0)) }
        fn or(self, b: Self) -> Self { Self(_mm256_or_si256(self.0, b.0)) }
        fn halves_left_8(self) -> Self { Self(_mm256_slli_epi16::<8>(self.0)) }
        fn halves_right_8_signed(self) -> Self { Self(_mm256_srai_epi16::<8>(self.0)) }
        fn left_16(self) -> Self { Self(_mm256_slli_epi32::<16>(self.0)) }
        fn right_16(self) -> Self { Self(_mm256_srli_epi32::<16>(self.0)) }
        fn min(self, b: Self) -> Self { Self(_mm256_min_epi32(self.0, b.0)) }
        fn max(self, b: Self) -> Self { Self(_mm256_max_epi32(self.0, b.0)) }
        fn greater_then(self, b: Self, a: Self, c: Self) -> Self {
            Self(_mm256_blendv_epi8(c.0, a.0, _mm256_cmpgt_epi32(self.0, b.0)))
        }
        fn multiply_halves(self, b: Self) -> Self { Self(_mm256_madd_epi16(self.0, b.0)) }
    }
}

impl Wide for F64x8 {
    methods! {
        fn same(self, value: f64) -> Self { Self(_mm256_set1_pd(value), _mm256_set1_pd(value)) }
        fn add(self, b: Self) -> Self { Self(_mm256_add_pd(self.0, b.0), _mm256_add_pd(self.1, b.1)) }
        fn mul(self, b: Self) -> Self { Self(_mm256_mul_pd(self.0, b.0), _mm256_mul_pd(self.1, b.1)) }
        fn fma(self, b: Self, c: Self) -> Self {
            Self(_mm256_fmadd_pd(self.0, b.0, c.0), _mm256_fmadd_pd(self.1, b.1, c.1))
        }
        fn total(self) -> f64 {
            let four = _mm256_add_pd(self.0, self.1);
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }
}

/// The instruction of AVX-VNNI.
pub(crate) struct AvxVnni;

impl Dots<F32x8> for AvxVnni {
    #[inline(always)]
    unsafe fn bf16(sum: F32x8, x: U32x8, w: U32x8) -> F32x8 {
        // SAFETY: the caller's contract.
        unsafe { Plain::bf16(sum, x, w) }
    }

    #[inline(always)]
    unsafe fn int8(sum: U32x8, x: U32x8, w: U32x8) -> U32x8 {
        // SAFETY: the caller runs under AVX-VNNI.
        unsafe { U32x8(_mm256_dpbusd_avx_epi32(sum.0, x.0, w.0)) }
    }
}

// Six rows of two registers: 12 accumulators, two registers of the panel and one of the row fill 15 of the 16. Four
// for bf16, where panel and row take two each.
pub(crate) mod base {
    use super::*;
    instantiate!(Avx2, F32x8, Plain, rows 6 4, "avx2,fma,f16c");
}

/// With VNNI.
pub(crate) mod vnni {
    use super::*;
    instantiate!(more AvxVnni, F32x8, AvxVnni, rows 6 4, "avx2,fma,f16c,avxvnni");
}
