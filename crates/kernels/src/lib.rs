//! The arithmetic of CPU inference: slices in, slices out. No I/O, no threads of its own, no dependencies.
//!
//! ```
//! use jointly_kernels::{Kernels, PackedMatrix, View, ViewMut};
//!
//! let kernels = Kernels::select()?; // once per process; JOINTLY_ISA overrides
//! let weight = PackedMatrix::pack(View::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2)); // [out 3, in 2]
//! let mut out = [0.0; 3];
//! kernels.matmul(View::new(&[1.0, -1.0], 1, 2), &weight, Some(&[0.5; 3]), ViewMut::new(&mut out, 1, 3));
//! assert_eq!(out, [-0.5; 3]);
//! # Ok::<(), jointly_kernels::IsaError>(())
//! ```
//!
//! # Where to read
//! `reference.rs` says what each operation is (scalar, `f64`). `generic.rs` has the same operations over a register
//! type, `x86_64/avx2.rs` and `x86_64/avx512.rs` are two register types. `suite.rs` runs one set of tests against
//! every entry of [`TABLES`].
//!
//! # What holds for every table
//! **An element of a result depends on its own row and inputs alone**: not on the number of rows, nor on where in a
//! tile, a register or a batch it lies. Bit for bit, for one instruction set. Different instruction sets may differ
//! in the last bits.
//!
//! A NaN in an input is a NaN in every element that depends on it, except through `f32` arithmetic itself.
//!
//! # Adding
//! An operation: a field of [`Kernels`], its function in `reference.rs` and every other table, a case in `suite.rs`.
//! An instruction set: one file and one entry of [`TABLES`]; the suite finds it there.

// `unsafe` belongs to this crate: intrinsics, function pointers that need a CPU, and raw pointers into checked shapes.
#![allow(unsafe_code, reason = "this is the crate that holds the unsafe code of CPU inference")]
#![deny(unsafe_op_in_unsafe_fn)]

use std::ffi::OsStr;
use std::fmt;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod generic;
mod packed;
mod reference;
#[cfg(target_arch = "x86_64")]
mod vector;
mod view;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod guarded;
#[cfg(test)]
mod suite;

pub use packed::PackedMatrix;
pub use view::{View, ViewMut};

/// The environment variable that overrides the choice of instruction set.
pub const ISA_VARIABLE: &str = "JOINTLY_ISA";

/// An instruction set with a table of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, `f64` accumulators: the reference. Every CPU has it; slow.
    Scalar,
    /// AVX2, FMA and F16C (x86_64 since 2013).
    Avx2,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
}

impl Isa {
    /// The name used by `JOINTLY_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The instruction set of that name, whether or not this CPU or this build has it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Scalar, Self::Avx2, Self::Avx512].into_iter().find(|isa| isa.name() == name)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `JOINTLY_ISA` asks for what cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IsaError {
    /// No instruction set has this name.
    Unknown {
        /// The value of the variable, with what is not Unicode replaced.
        name: String,
    },
    /// This CPU, or the target this was built for, lacks it.
    Unavailable {
        /// What was asked for.
        isa: Isa,
    },
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => {
                write!(
                    f,
                    "{ISA_VARIABLE}={name:?} is not an instruction set; known are scalar, avx2 and avx512"
                )
            }
            Self::Unavailable { isa } => {
                write!(f, "{ISA_VARIABLE}={isa}, but this CPU does not have {isa}; have:").and_then(|()| {
                    TABLES
                        .iter()
                        .filter(|entry| entry.is_available())
                        .try_for_each(|e| write!(f, " {}", e.isa))
                })
            }
        }
    }
}

impl std::error::Error for IsaError {}

/// One instruction set this build has kernels for. Its table can be had only on a CPU that can run it.
#[derive(Debug)]
pub struct TableEntry {
    /// The instruction set.
    pub isa: Isa,
    available: fn() -> bool,
    table: &'static Kernels,
}

impl TableEntry {
    /// Whether this CPU has the instruction set.
    pub fn is_available(&self) -> bool {
        (self.available)()
    }

    /// The kernels, if this CPU has the instruction set.
    pub fn kernels(&self) -> Option<&'static Kernels> {
        self.is_available().then_some(self.table)
    }
}

/// Every instruction set of this build, best first. The last is always there.
pub static TABLES: &[TableEntry] = &[
    #[cfg(target_arch = "x86_64")]
    TableEntry {
        isa: Isa::Avx512,
        // `instantiate!` in avx512.rs enables exactly these, and those of AVX2.
        available: || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && has_avx2()
        },
        table: &x86_64::avx512::TABLE,
    },
    #[cfg(target_arch = "x86_64")]
    TableEntry { isa: Isa::Avx2, available: has_avx2, table: &x86_64::avx2::TABLE },
    TableEntry { isa: Isa::Scalar, available: || true, table: &reference::TABLE },
];

/// What `instantiate!` in avx2.rs enables.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// The operations of one instruction set. Holding a reference proves that this CPU can run them.
///
/// The functions are `unsafe` for two reasons, both settled here: the CPU must have the instruction set (tables are
/// handed out by [`TableEntry::kernels`] only), and shapes must agree (each method asserts them first).
pub struct Kernels {
    /// The instruction set.
    pub isa: Isa,
    matmul: unsafe fn(View<'_>, &PackedMatrix, Option<&[f32]>, ViewMut<'_>),
    softmax_rows: unsafe fn(ViewMut<'_>),
    layer_norm: unsafe fn(ViewMut<'_>, &[f32], Option<&[f32]>, f32),
    rms_norm: unsafe fn(ViewMut<'_>, &[f32], f32),
    gelu_erf: unsafe fn(&mut [f32]),
    gelu_tanh: unsafe fn(&mut [f32]),
    silu: unsafe fn(&mut [f32]),
    relu: unsafe fn(&mut [f32]),
    tanh: unsafe fn(&mut [f32]),
    sigmoid: unsafe fn(&mut [f32]),
    add: unsafe fn(&mut [f32], &[f32]),
    mul: unsafe fn(&mut [f32], &[f32]),
    scale: unsafe fn(&mut [f32], f32),
    f16_to_f32: unsafe fn(&[u16], &mut [f32]),
    bf16_to_f32: unsafe fn(&[u16], &mut [f32]),
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernels").field("isa", &self.isa).finish_non_exhaustive()
    }
}

impl Kernels {
    /// The best table for this CPU, or the one that `JOINTLY_ISA` (`scalar`, `avx2`, `avx512`) names. Decided once
    /// per process; a later change of the variable has no effect.
    ///
    /// # Errors
    /// [`IsaError`] if the variable names an unknown instruction set, or one that this CPU does not have. There is no
    /// quiet fallback.
    pub fn select() -> Result<&'static Kernels, IsaError> {
        static CHOICE: OnceLock<Result<&'static Kernels, IsaError>> = OnceLock::new();
        CHOICE.get_or_init(|| Self::choose(std::env::var_os(ISA_VARIABLE).as_deref())).clone()
    }

    /// The table of `isa`, if this build and this CPU have it.
    pub fn for_isa(isa: Isa) -> Option<&'static Kernels> {
        TABLES.iter().find(|entry| entry.isa == isa)?.kernels()
    }

    /// As [`select`](Self::select), for one value of the variable.
    fn choose(name: Option<&OsStr>) -> Result<&'static Kernels, IsaError> {
        let Some(name) = name else {
            // The reference is in the list and always available; it stands here for the compiler.
            return Ok(TABLES.iter().find_map(TableEntry::kernels).unwrap_or(&reference::TABLE));
        };
        let isa = name
            .to_str()
            .and_then(Isa::from_name)
            .ok_or_else(|| IsaError::Unknown { name: name.to_string_lossy().into_owned() })?;
        Self::for_isa(isa).ok_or(IsaError::Unavailable { isa })
    }

    /// `out = x . w^T (+ bias)`: `x` is `[m, k]`, `w` was packed from `[n, k]`, `bias` is `[n]`, `out` is `[m, n]`
    /// and is overwritten.
    ///
    /// Each element is one FMA accumulator that starts at zero and takes `k` in order; the bias is added at the end
    /// (`scalar`: the same in `f64`, rounded once).
    ///
    /// # Panics
    /// If the shapes do not agree, or a view does not lie within its data.
    #[track_caller]
    pub fn matmul(&self, x: View<'_>, w: &PackedMatrix, bias: Option<&[f32]>, out: ViewMut<'_>) {
        x.assert_valid();
        out.assert_valid();
        assert_eq!(x.cols, w.k(), "x has {} columns, the weight an inner size of {}", x.cols, w.k());
        assert_eq!(x.rows, out.rows, "x has {} rows, out has {}", x.rows, out.rows);
        assert_eq!(w.n(), out.cols, "the weight gives {} columns, out has {}", w.n(), out.cols);
        if let Some(bias) = bias {
            assert_eq!(bias.len(), w.n(), "a bias of {} for {} columns", bias.len(), w.n());
        }
        // SAFETY: `self` proves the instruction set; the shapes are asserted above.
        unsafe { (self.matmul)(x, w, bias, out) }
    }

    /// Each row becomes `exp(x - max) / sum`, in place. An entry of -infinity becomes exactly 0; a row with NaN,
    /// with +infinity, or of -infinity alone becomes NaN.
    ///
    /// # Panics
    /// If `x` does not lie within its data.
    #[track_caller]
    pub fn softmax_rows(&self, x: ViewMut<'_>) {
        x.assert_valid();
        // SAFETY: `self` proves the instruction set; the shape is asserted above.
        unsafe { (self.softmax_rows)(x) }
    }

    /// Each row becomes `(x - mean) / sqrt(variance + eps) * gamma + beta`, in place, with the variance of the
    /// population. `x` is `[rows, cols]`, `gamma` and `beta` are `[cols]`. Mean and variance are taken in `f64`.
    ///
    /// # Panics
    /// If the shapes do not agree, or `x` does not lie within its data.
    #[track_caller]
    pub fn layer_norm(&self, x: ViewMut<'_>, gamma: &[f32], beta: Option<&[f32]>, eps: f32) {
        x.assert_valid();
        assert_eq!(gamma.len(), x.cols, "a gamma of {} for {} columns", gamma.len(), x.cols);
        if let Some(beta) = beta {
            assert_eq!(beta.len(), x.cols, "a beta of {} for {} columns", beta.len(), x.cols);
        }
        // SAFETY: `self` proves the instruction set; the shapes are asserted above.
        unsafe { (self.layer_norm)(x, gamma, beta, eps) }
    }

    /// Each row becomes `x / sqrt(mean(x^2) + eps) * gamma`, in place. `x` is `[rows, cols]`, `gamma` is `[cols]`.
    /// The mean is taken in `f64`. Source: arXiv 1910.07467, eq. 4.
    ///
    /// # Panics
    /// If the shapes do not agree, or `x` does not lie within its data.
    #[track_caller]
    pub fn rms_norm(&self, x: ViewMut<'_>, gamma: &[f32], eps: f32) {
        x.assert_valid();
        assert_eq!(gamma.len(), x.cols, "a gamma of {} for {} columns", gamma.len(), x.cols);
        // SAFETY: `self` proves the instruction set; the shapes are asserted above.
        unsafe { (self.rms_norm)(x, gamma, eps) }
    }

    /// The exact GELU, `x / 2 * (1 + erf(x / sqrt(2)))`, in place.
    pub fn gelu_erf(&self, x: &mut [f32]) {
        // SAFETY: `self` proves the instruction set; any slice will do.
        unsafe { (self.gelu_erf)(x) }
    }

    /// The GELU of some checkpoints (`gelu_new`, `gelu_pytorch_tanh`), in place:
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    pub fn gelu_tanh(&self, x: &mut [f32]) {
        // SAFETY: `self` proves the instruction set; any slice will do.
        unsafe { (self.gelu_tanh)(x) }
    }

    /// `x * sigmoid(x)`, in place.
    pub fn silu(&self, x: &mut [f32]) {
        // SAFETY: `self` proves the instruction set; any slice will do.
        unsafe { (self.silu)(x) }
    }

    /// `max(x, 0)`, in place; NaN stays NaN.
    pub fn relu(&self, x: &mut [f32]) {
        // SAFETY: `self` proves the instruction set; any slice will do.
        unsafe { (self.relu)(x) }
    }

    /// `tanh(x)`, in place.
    pub fn tanh(&self, x: &mut [f32]) {
        // SAFETY: `self` proves the instruction set; any slice will do.
        unsafe { (self.tanh)(x) }
    }

    /// `1 / (1 + exp(-x))`, in place.
    pub fn sigmoid(&self, x: &mut [f32]) {
        // SAFETY: `self` proves the instruction set; any slice will do.
        unsafe { (self.sigmoid)(x) }
    }

    /// `x += y`, element by element.
    ///
    /// # Panics
    /// If the lengths differ.
    #[track_caller]
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "{} elements and {}", x.len(), y.len());
        // SAFETY: `self` proves the instruction set; the lengths are asserted above.
        unsafe { (self.add)(x, y) }
    }

    /// `x *= y`, element by element.
    ///
    /// # Panics
    /// If the lengths differ.
    #[track_caller]
    pub fn mul(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "{} elements and {}", x.len(), y.len());
        // SAFETY: `self` proves the instruction set; the lengths are asserted above.
        unsafe { (self.mul)(x, y) }
    }

    /// `x *= s`, every element.
    pub fn scale(&self, x: &mut [f32], s: f32) {
        // SAFETY: `self` proves the instruction set; any slice will do.
        unsafe { (self.scale)(x, s) }
    }

    /// IEEE half precision to `f32`, exactly; a NaN becomes a NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    #[track_caller]
    pub fn f16_to_f32(&self, src: &[u16], dst: &mut [f32]) {
        assert_eq!(src.len(), dst.len(), "{} elements into {}", src.len(), dst.len());
        // SAFETY: `self` proves the instruction set; the lengths are asserted above.
        unsafe { (self.f16_to_f32)(src, dst) }
    }

    /// bfloat16 to `f32`, exactly.
    ///
    /// # Panics
    /// If the lengths differ.
    #[track_caller]
    pub fn bf16_to_f32(&self, src: &[u16], dst: &mut [f32]) {
        assert_eq!(src.len(), dst.len(), "{} elements into {}", src.len(), dst.len());
        // SAFETY: `self` proves the instruction set; the lengths are asserted above.
        unsafe { (self.bf16_to_f32)(src, dst) }
    }
}
