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
}

/// The lanes of a [`Vector`] in double precision.
pub(crate) trait Wide: Copy {
    /// Every lane is `value`; `self` is only the proof.
    fn same(self, value: f64) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The first `n` lanes; the others are zero, whatever they were.
    fn first(self, n: usize) -> Self;
    /// The sum of all lanes, in an order that is always the same.
    fn total(self) -> f64;
}
