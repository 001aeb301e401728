//! What the kernels need of an instruction set: one register of `f32`, and the same lanes as `f64`.
//!
//! **A value is a proof.** The constructors are `unsafe`, because only code that runs under a detected instruction
//! set may make a value; holding one proves that the set is there, so arithmetic on values is safe.

/// One register of `f32`.
pub(crate) trait Vector: Copy {
    /// Elements in one register.
    const LANES: usize;
    /// The same lanes as `f64`.
    type Wide: Wide;
    /// The same lanes as integers of 32 bits.
    type Words: Words;

    /// Every lane is `value`.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    unsafe fn splat(value: f32) -> Self;
    /// Reads `LANES` elements.
    ///
    /// # Safety
    /// The CPU has the instruction set; `from` is readable for `LANES` elements (any alignment).
    unsafe fn load(from: *const f32) -> Self;
    /// Reads the first `n <= LANES` elements; the other lanes are zero, their memory is not touched.
    ///
    /// # Safety
    /// The CPU has the instruction set; `from` is readable for `n` elements.
    unsafe fn load_part(from: *const f32, n: usize) -> Self;
    /// Reads `LANES` IEEE half-precision numbers.
    ///
    /// # Safety
    /// As [`load`](Self::load).
    unsafe fn load_f16(from: *const u16) -> Self;
    /// Reads `LANES` bfloat16 numbers.
    ///
    /// # Safety
    /// As [`load`](Self::load).
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Reads `LANES` words.
    ///
    /// # Safety
    /// As [`load`](Self::load).
    unsafe fn load_words(from: *const u32) -> Self::Words;
    /// Has the line at `at`, which may lie anywhere, brought to the second-level cache, if the processor can be asked for that.
    #[inline(always)]
    fn fetch(at: *const u32) {
        let _ = at;
    }
    /// Every lane is the word at `from`.
    ///
    /// # Safety
    /// The CPU has the instruction set; `from` is readable.
    unsafe fn splat_word(from: *const u32) -> Self::Words;
    /// Writes the low halves of the first `n <= LANES` words.
    ///
    /// # Safety
    /// `to` is writable for `n` elements.
    unsafe fn store_halves(words: Self::Words, to: *mut u16, n: usize);
    /// Writes the low bytes of the first `n <= LANES` words.
    ///
    /// # Safety
    /// `to` is writable for `n` elements.
    unsafe fn store_bytes(words: Self::Words, to: *mut u8, n: usize);
    /// Writes `LANES` elements.
    ///
    /// # Safety
    /// `to` is writable for `LANES` elements (any alignment).
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `n <= LANES` elements and touches no other memory.
    ///
    /// # Safety
    /// `to` is writable for `n` elements.
    unsafe fn store_part(self, to: *mut f32, n: usize);

    /// Every lane is `value`; `self` is only the proof.
    fn same(self, value: f32) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// `c - self * b`, rounded once.
    fn fnma(self, b: Self, c: Self) -> Self;
    /// The smaller; `b` where either is NaN.
    fn min(self, b: Self) -> Self;
    /// The larger; `b` where either is NaN.
    fn max(self, b: Self) -> Self;
    /// The nearest integer, ties to even.
    fn round(self) -> Self;
    /// Without its sign.
    fn abs(self) -> Self;
    /// `self` with the sign of `sign`.
    fn copy_sign(self, sign: Self) -> Self;
    /// Per lane: `a` where `self < b`, else (and where either is NaN) `c`.
    fn less_then(self, b: Self, a: Self, c: Self) -> Self;
    /// `self * 2^n`, for integer-valued `n` in -200..=200; too large is infinity, too small is subnormal or zero.
    fn scale2(self, n: Self) -> Self;
    /// The first `n` lanes of `self`, the others from `rest`.
    fn first_else(self, n: usize, rest: Self) -> Self;
    /// The largest lane. Where a lane is NaN, any lane.
    fn largest(self) -> f32;
    /// Exact.
    fn widen(self) -> Self::Wide;
    /// Rounded to nearest.
    fn narrow(wide: Self::Wide) -> Self;
    /// The bits of each lane.
    fn bits(self) -> Self::Words;
    /// Lanes of these bits.
    fn from_bits(words: Self::Words) -> Self;
    /// Each lane rounded to the nearest `i32`, ties to even; any, where a lane is NaN or does not fit.
    fn nearest(self) -> Self::Words;
    /// Each signed word as a number, rounded to nearest.
    fn from_ints(words: Self::Words) -> Self;
}

/// The lanes of a [`Vector`] as integers of 32 bits. Sums and products wrap around.
pub(crate) trait Words: Copy {
    /// Every lane is `value`; `self` is only the proof.
    fn same(self, value: i32) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn and(self, b: Self) -> Self;
    fn or(self, b: Self) -> Self;
    /// Both halves of each word shifted left by 8 bits, on their own.
    fn halves_left_8(self) -> Self;
    /// Both halves shifted right by 8 bits, the sign kept.
    fn halves_right_8_signed(self) -> Self;
    fn left_16(self) -> Self;
    fn right_16(self) -> Self;
    /// The smaller, signed.
    fn min(self, b: Self) -> Self;
    /// The larger, signed.
    fn max(self, b: Self) -> Self;
    /// Per lane: `a` where `self > b`, signed, else `c`.
    fn greater_then(self, b: Self, a: Self, c: Self) -> Self;
    /// Per lane: the sum of the products of both signed halves.
    fn multiply_halves(self, b: Self) -> Self;
}

/// The products of words that hold several numbers, added to sums: what some instruction sets have an instruction for.
pub(crate) trait Dots<V: Vector> {
    /// The least that a step of `x` stands for in `int8`: 0, or -128 where the bytes of both sides are signed.
    const LEAST: i32 = 0;
    /// Words that are multiplied in `int8` for each of a packed weight, which holds four bytes: 1 where bytes are multiplied, 2
    /// where halves are.
    const SPREAD: usize = 1;
    /// Adds the products of both bfloat16 of each word; in which order and with which roundings belongs to the instruction set.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    unsafe fn bf16(sum: V, x: V::Words, w: V::Words) -> V;
    /// Adds the four products of the bytes of `x`, unsigned if `LEAST` is 0, with the signed bytes of `w`, exactly; where
    /// `SPREAD` is 2, the two products of their signed halves.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    unsafe fn int8(sum: V::Words, x: V::Words, w: V::Words) -> V::Words;

    /// The lanes in bfloat16, in the low halves of words: rounded to nearest, ties to even; NaN stays NaN. A subnormal may
    /// become zero.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    unsafe fn to_bf16(x: V) -> V::Words {
        let bits = x.bits();
        let odd = bits.right_16().and(bits.same(1));
        let rounded = bits.add(bits.same(0x7fff)).add(odd);
        // A NaN must not be rounded up to zero, nor lose the bits that make it one.
        let quiet = bits.or(bits.same(0x0040_0000));
        let is_nan = bits.and(bits.same(0x7fff_ffff));
        is_nan.greater_then(bits.same(0x7f80_0000), quiet, rounded).right_16()
    }
}

/// Without such instructions.
pub(crate) struct Plain;

impl<V: Vector> Dots<V> for Plain {
    const SPREAD: usize = 2;

    #[inline(always)]
    unsafe fn bf16(sum: V, x: V::Words, w: V::Words) -> V {
        let high = |words: V::Words| V::from_bits(words.and(words.same(!0xffff)));
        let low = |words: V::Words| V::from_bits(words.left_16());
        let sum = high(x).fma(high(w), sum);
        low(x).fma(low(w), sum)
    }

    #[inline(always)]
    unsafe fn int8(sum: V::Words, x: V::Words, w: V::Words) -> V::Words {
        sum.add(x.multiply_halves(w))
    }
}

/// The lanes of a [`Vector`] in double precision.
pub(crate) trait Wide: Copy {
    /// Every lane is `value`; `self` is only the proof.
    fn same(self, value: f64) -> Self;
    fn add(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The sum of all lanes, in an order that is always the same.
    fn total(self) -> f64;
}

/// Methods on a register type.
///
/// SAFETY, for each of them: `self` is a register of the instruction set, and the only functions that make one are
/// `unsafe` and demand that the CPU has it.
macro_rules! methods {
    ($(fn $name:ident($self:ident $(, $arg:ident: $type:ty)*) -> $out:ty { $($body:tt)* })*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $type)*) -> $out {
            // SAFETY: `self` proves the instruction set (see the head of this macro).
            unsafe { $($body)* }
        }
    )*};
}
pub(crate) use methods;
