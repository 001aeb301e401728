//! AVX-512 (F, BW, VL, DQ): sixteen lanes, masks for every tail.

#![allow(clippy::missing_safety_doc, reason = "the contracts are those of the trait")]

use std::arch::x86_64::*;

use crate::generic::instantiate;
use crate::vector::{Dots, Plain, Vector, Wide, Words, methods};

/// Sixteen `f32`.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

/// Sixteen `f64`, low half first.
#[derive(Clone, Copy)]
pub(crate) struct F64x16(__m512d, __m512d);

/// Sixteen words.
#[derive(Clone, Copy)]
pub(crate) struct U32x16(__m512i);

/// A mask of the first `n` of sixteen lanes; `n >= 16` is all of them.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

impl Vector for F32x16 {
    const LANES: usize = 16;
    type Wide = F64x16;
    type Words = U32x16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller runs under AVX-512.
        unsafe { Self(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller runs under AVX-512 and gives sixteen readable elements; the load is unaligned.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        // SAFETY: the caller runs under AVX-512; masked lanes, those from `n`, are not accessed.
        unsafe { Self(_mm512_maskz_loadu_ps(first_lanes(n), from)) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller runs under AVX-512 and gives sixteen readable `u16`, 32 bytes; the load is unaligned.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: as in `load_f16`. A bfloat16 is the upper half of a binary32.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    fn fetch(at: *const u32) {
        // SAFETY: SSE belongs to every x86_64 CPU, and a fetch ahead of what is not there does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> U32x16 {
        // SAFETY: the caller runs under AVX-512 and gives sixteen readable words; the load is unaligned.
        unsafe { U32x16(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn splat_word(from: *const u32) -> U32x16 {
        // SAFETY: the caller runs under AVX-512 and gives a readable word.
        unsafe { U32x16(_mm512_set1_epi32((*from).cast_signed())) }
    }

    #[inline(always)]
    unsafe fn store_halves(words: U32x16, to: *mut u16, n: usize) {
        // SAFETY: `words` proves AVX-512; sixteen elements are writable, or masked lanes, those from `n`, not accessed.
        unsafe {
            // The masked store is many times slower.
            if n >= 16 {
                _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(words.0));
            } else {
                _mm512_mask_cvtepi32_storeu_epi16(to.cast(), first_lanes(n), words.0);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(words: U32x16, to: *mut u8, n: usize) {
        // SAFETY: as in `store_halves`.
        unsafe {
            if n >= 16 {
                _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(words.0));
            } else {
                _mm512_mask_cvtepi32_storeu_epi8(to.cast(), first_lanes(n), words.0);
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: `self` proves AVX-512; the caller gives sixteen writable elements; the store is unaligned.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        // SAFETY: `self` proves AVX-512; masked lanes, those from `n`, are not accessed.
        unsafe { _mm512_mask_storeu_ps(to, first_lanes(n), self.0) }
    }

    methods! {
        fn same(self, value: f32) -> Self { Self(_mm512_set1_ps(value)) }
        fn add(self, b: Self) -> Self { Self(_mm512_add_ps(self.0, b.0)) }
        fn sub(self, b: Self) -> Self { Self(_mm512_sub_ps(self.0, b.0)) }
        fn mul(self, b: Self) -> Self { Self(_mm512_mul_ps(self.0, b.0)) }
        fn div(self, b: Self) -> Self { Self(_mm512_div_ps(self.0, b.0)) }
        fn fma(self, b: Self, c: Self) -> Self { Self(_mm512_fmadd_ps(self.0, b.0, c.0)) }
        fn fnma(self, b: Self, c: Self) -> Self { Self(_mm512_fnmadd_ps(self.0, b.0, c.0)) }
        fn min(self, b: Self) -> Self { Self(_mm512_min_ps(self.0, b.0)) }
        fn max(self, b: Self) -> Self { Self(_mm512_max_ps(self.0, b.0)) }
        fn round(self) -> Self { Self(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(self.0)) }
        fn abs(self) -> Self { Self(_mm512_abs_ps(self.0)) }
        fn copy_sign(self, sign: Self) -> Self {
            let mask = _mm512_set1_ps(-0.0);
            Self(_mm512_or_ps(_mm512_andnot_ps(mask, self.0), _mm512_and_ps(mask, sign.0)))
        }
        fn less_then(self, b: Self, a: Self, c: Self) -> Self {
            Self(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0), c.0, a.0))
        }
        fn scale2(self, n: Self) -> Self { Self(_mm512_scalef_ps(self.0, n.0)) }
        fn first_else(self, n: usize, rest: Self) -> Self {
            Self(_mm512_mask_blend_ps(first_lanes(n), rest.0, self.0))
        }
        fn largest(self) -> f32 { _mm512_reduce_max_ps(self.0) }
        fn widen(self) -> F64x16 {
            F64x16(
                _mm512_cvtps_pd(_mm512_castps512_ps256(self.0)),
                _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(self.0)),
            )
        }
        fn bits(self) -> U32x16 { U32x16(_mm512_castps_si512(self.0)) }
        fn nearest(self) -> U32x16 { U32x16(_mm512_cvtps_epi32(self.0)) }
    }

    #[inline(always)]
    fn narrow(wide: F64x16) -> Self {
        // SAFETY: `wide` proves AVX-512.
        unsafe {
            let (low, high) = (_mm512_cvtpd_ps(wide.0), _mm512_cvtpd_ps(wide.1));
            Self(_mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high))
        }
    }

    #[inline(always)]
    fn from_bits(words: U32x16) -> Self {
        // SAFETY: `words` proves AVX-512.
        unsafe { Self(_mm512_castsi512_ps(words.0)) }
    }

    #[inline(always)]
    fn from_ints(words: U32x16) -> Self {
        // SAFETY: `words` proves AVX-512.
        unsafe { Self(_mm512_cvtepi32_ps(words.0)) }
    }
}

impl Words for U32x16 {
    methods! {
        fn same(self, value: i32) -> Self { Self(_mm512_set1_epi32(value)) }
        fn add(self, b: Self) -> Self { Self(_mm512_add_epi32(self.0, b.0)) }
        fn sub(self, b: Self) -> Self { Self(_mm512_sub_epi32(self.0, b.0)) }
        fn mul(self, b: Self) -> Self { Self(_mm512_mullo_epi32(self.0, b.0)) }
        fn and(self, b: Self) -> Self { Self(_mm512_and_si512(self.0, b.0)) }
        fn or(self, b: Self) -> Self { Self(_mm512_or_si512(self.0, b.0)) }
        fn halves_left_8(self) -> Self { Self(_mm512_slli_epi16::<8>(self.0)) }
        fn halves_right_8_signed(self) -> Self { Self(_mm512_srai_epi16::<8>(self.0)) }
        fn left_16(self) -> Self { Self(_mm512_slli_epi32::<16>(self.0)) }
        fn right_16(self) -> Self { Self(_mm512_srli_epi32::<16>(self.0)) }
        fn min(self, b: Self) -> Self { Self(_mm512_min_epi32(self.0, b.0)) }
        fn max(self, b: Self) -> Self { Self(_mm512_max_epi32(self.0, b.0)) }
        fn greater_then(self, b: Self, a: Self, c: Self) -> Self {
            Self(_mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(self.0, b.0), c.0, a.0))
        }
        fn multiply_halves(self, b: Self) -> Self { Self(_mm512_madd_epi16(self.0, b.0)) }
    }
}

impl Wide for F64x16 {
    methods! {
        fn same(self, value: f64) -> Self { Self(_mm512_set1_pd(value), _mm512_set1_pd(value)) }
        fn add(self, b: Self) -> Self { Self(_mm512_add_pd(self.0, b.0), _mm512_add_pd(self.1, b.1)) }
        fn mul(self, b: Self) -> Self { Self(_mm512_mul_pd(self.0, b.0), _mm512_mul_pd(self.1, b.1)) }
        fn fma(self, b: Self, c: Self) -> Self {
            Self(_mm512_fmadd_pd(self.0, b.0, c.0), _mm512_fmadd_pd(self.1, b.1, c.1))
        }
        fn total(self) -> f64 { _mm512_reduce_add_pd(_mm512_add_pd(self.0, self.1)) }
    }
}

/// The instruction of AVX-512 VNNI.
pub(crate) struct Vnni;

impl Dots<F32x16> for Vnni {
    #[inline(always)]
    unsafe fn bf16(sum: F32x16, x: U32x16, w: U32x16) -> F32x16 {
        // SAFETY: the caller's contract.
        unsafe { Plain::bf16(sum, x, w) }
    }

    #[inline(always)]
    unsafe fn int8(sum: U32x16, x: U32x16, w: U32x16) -> U32x16 {
        // SAFETY: the caller runs under AVX-512 VNNI.
        unsafe { U32x16(_mm512_dpbusd_epi32(sum.0, x.0, w.0)) }
    }
}

/// The instructions of AVX-512 VNNI and AVX-512 BF16.
pub(crate) struct VnniBf16;

impl Dots<F32x16> for VnniBf16 {
    #[inline(always)]
    unsafe fn bf16(sum: F32x16, x: U32x16, w: U32x16) -> F32x16 {
        // SAFETY: the caller runs under AVX-512 BF16; both types are 512 bits, of which every pattern is good.
        unsafe {
            // One by one: a closure is not always inlined, and a call for each product is a hundred times slower.
            let x = std::mem::transmute::<__m512i, __m512bh>(x.0);
            let w = std::mem::transmute::<__m512i, __m512bh>(w.0);
            F32x16(_mm512_dpbf16_ps(sum.0, x, w))
        }
    }

    #[inline(always)]
    unsafe fn to_bf16(x: F32x16) -> U32x16 {
        // SAFETY: the caller runs under AVX-512 BF16; both types are 256 bits, of which every pattern is good.
        unsafe {
            let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x.0));
            U32x16(_mm512_cvtepu16_epi32(halves))
        }
    }

    #[inline(always)]
    unsafe fn int8(sum: U32x16, x: U32x16, w: U32x16) -> U32x16 {
        // SAFETY: the caller's contract.
        unsafe { Vnni::int8(sum, x, w) }
    }
}

// Twelve rows of two registers: 24 accumulators, two registers of the panel, and six to spare of the 32. Ten for bf16, whose
// instruction takes the row from a register: with twelve the compiler runs out of them.
pub(crate) mod base {
    use super::*;
    instantiate!(Avx512, F32x16, Plain, rows 12 10, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c");
}

/// With VNNI.
pub(crate) mod vnni {
    use super::*;
    instantiate!(more Avx512Vnni, F32x16, Vnni, rows 12 10, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,avx512vnni");
}

/// With VNNI and BF16.
pub(crate) mod bf16 {
    use super::*;
    instantiate!(
        more Avx512Bf16, F32x16, VnniBf16, rows 12 10, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,avx512vnni,avx512bf16"
    );
}
