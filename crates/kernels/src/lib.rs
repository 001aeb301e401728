//! The arithmetic of CPU inference: slices in, slices out. No I/O, no threads of its own, no dependencies.
//!
//! ```
//! use jointly_kernels::{Epilogue, Kernels, Precision, View, ViewMut};
//!
//! let kernels = Kernels::select()?; // once per process; JOINTLY_ISA overrides
//! let weight = kernels.packed(View::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2), Precision::F32); // [out 3, in 2]
//! let mut out = [0.0; 3];
//! let then = Epilogue { bias: Some(&[0.5; 3]), ..Epilogue::NONE };
//! kernels.matmul(View::new(&[1.0, -1.0], 1, 2), &weight, then, ViewMut::new(&mut out, 1, 3));
//! assert_eq!(out, [-0.5; 3]);
//! # Ok::<(), jointly_kernels::IsaError>(())
//! ```
//!
//! # Where to read
//! `reference.rs` says what each operation is (scalar, `f64`). `generic.rs` has the same operations over a register
//! type; `values.rs` is memory that begins at a cache line; `x86_64/avx2.rs`, `x86_64/avx512.rs` and `aarch64/neon.rs` are one register type each, with the instruction sets that it
//! comes in; `x86_64/amx.rs` is a matrix product by tiles. `suite.rs` runs one set of tests against every entry of [`TABLES`].
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

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use std::arch::is_aarch64_feature_detected;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt;
use std::sync::OnceLock;

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod aarch64;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod generic;
mod packed;
mod peak;
mod reference;
mod values;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod vector;
mod view;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod guarded;
#[cfg(test)]
mod suite;

pub use packed::{PackedMatrix, Precision, Shape, SharedBytes};
use values::Line;
pub use values::Values;
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
    /// The same with AVX-VNNI: products of 8-bit integers.
    AvxVnni,
    /// AVX-512 F, BW, VL and DQ.
    Avx512,
    /// The same with AVX-512 VNNI: products of 8-bit integers.
    Avx512Vnni,
    /// The same with AVX-512 BF16: products of bfloat16.
    Avx512Bf16,
    /// The same with AMX: products of bfloat16 and of 8-bit integers, a tile at a time.
    Amx,
    /// NEON (every AArch64 CPU).
    Neon,
    /// The same with DotProd: products of 8-bit integers.
    NeonDot,
    /// The same with BF16: products of bfloat16.
    NeonBf16,
}

impl Isa {
    /// The name used by `JOINTLY_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonDot => "neondot",
            Self::NeonBf16 => "neonbf16",
        }
    }

    /// Every instruction set, whether or not this build has it, the least one of each architecture first.
    pub const ALL: [Self; 10] = [
        Self::Scalar,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
        Self::Amx,
        Self::Neon,
        Self::NeonDot,
        Self::NeonBf16,
    ];

    /// Whether it multiplies `precision` faster than `f32`.
    pub fn is_fast_at(self, precision: Precision) -> bool {
        match precision {
            Precision::F32 => true,
            Precision::F16 => false,
            Precision::Bf16 => matches!(self, Self::Avx512Bf16 | Self::Amx | Self::NeonBf16),
            Precision::Int8 => matches!(
                self,
                Self::AvxVnni
                    | Self::Avx512Vnni
                    | Self::Avx512Bf16
                    | Self::Amx
                    | Self::NeonDot
                    | Self::NeonBf16
            ),
        }
    }

    /// The instruction set of that name, whether or not this CPU or this build has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
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
                write!(f, "{ISA_VARIABLE}={name:?} is not an instruction set; known are")?;
                Isa::ALL.iter().try_for_each(|isa| write!(f, " {isa}"))
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
        isa: Isa::Amx,
        available: || has_avx512bf16() && x86_64::amx::is_available(),
        table: &x86_64::amx::TABLE,
    },
    #[cfg(target_arch = "x86_64")]
    TableEntry { isa: Isa::Avx512Bf16, available: has_avx512bf16, table: &x86_64::avx512::bf16::TABLE },
    #[cfg(target_arch = "x86_64")]
    TableEntry {
        isa: Isa::Avx512Vnni,
        available: || has_avx512() && is_x86_feature_detected!("avx512vnni"),
        table: &x86_64::avx512::vnni::TABLE,
    },
    #[cfg(target_arch = "x86_64")]
    TableEntry { isa: Isa::Avx512, available: has_avx512, table: &x86_64::avx512::base::TABLE },
    #[cfg(target_arch = "x86_64")]
    TableEntry {
        isa: Isa::AvxVnni,
        available: || has_avx2() && is_x86_feature_detected!("avxvnni"),
        table: &x86_64::avx2::vnni::TABLE,
    },
    #[cfg(target_arch = "x86_64")]
    TableEntry { isa: Isa::Avx2, available: has_avx2, table: &x86_64::avx2::base::TABLE },
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    TableEntry {
        isa: Isa::NeonBf16,
        available: || is_aarch64_feature_detected!("dotprod") && is_aarch64_feature_detected!("bf16"),
        table: &aarch64::neon::bf16::TABLE,
    },
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    TableEntry {
        isa: Isa::NeonDot,
        available: || is_aarch64_feature_detected!("dotprod"),
        table: &aarch64::neon::dot::TABLE,
    },
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    TableEntry {
        isa: Isa::Neon,
        available: || is_aarch64_feature_detected!("neon"),
        table: &aarch64::neon::base::TABLE,
    },
    TableEntry { isa: Isa::Scalar, available: || true, table: &reference::TABLE },
];

/// What `instantiate!` in avx512.rs enables for all of its sets.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && has_avx2()
}

#[cfg(target_arch = "x86_64")]
fn has_avx512bf16() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bf16")
}

/// What `instantiate!` in avx2.rs enables for both of its sets.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// A function of one element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Map {
    /// `x`.
    #[default]
    Identity,
    /// The exact GELU, `x / 2 * (1 + erf(x / sqrt(2)))`. Source: arXiv 1606.08415.
    GeluErf,
    /// The GELU of some checkpoints (`gelu_new`, `gelu_pytorch_tanh`):
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `tanh(x)`.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

/// What a matrix product does with its sums: `map(sum + bias) + add`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One for each output column.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub map: Map,
    /// Added at the end: `[m, n]`, a residual.
    pub add: Option<View<'a>>,
}

impl Epilogue<'_> {
    /// The sums as they are.
    pub const NONE: Self = Self { bias: None, map: Map::Identity, add: None };
}

/// Memory of a matrix product for what it holds in another number format.
#[derive(Debug, Default)]
struct Scratch {
    words: Vec<Line>,
    /// Part of a weight in 8 bits, where 16 are multiplied.
    panel: Vec<Line>,
    rows: Vec<RowScale>,
}

/// What the steps of a row of 8 bits are worth: `x = scale * (step - zero)`.
#[derive(Clone, Copy, Debug, Default)]
struct RowScale {
    scale: f32,
    zero: i32,
}

impl RowScale {
    /// For values from `-least` to `most`, neither negative; 255 steps. `poison` is NaN if a value is not finite, else 0.
    fn new(least: f32, most: f32, poison: f32) -> Self {
        let scale = (least + most) / 255.0;
        let zero = if scale > 0.0 { (least / scale).round_ties_even() as i32 } else { 0 };
        Self { scale: scale + poison, zero }
    }

    /// Steps for one.
    fn inverse(self) -> f32 {
        if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 }
    }
}

/// The operations of one instruction set. Holding a reference proves that this CPU can run them.
///
/// The functions are `unsafe` for two reasons, both settled here: the CPU must have the instruction set (tables are
/// handed out by [`TableEntry::kernels`] only), and shapes must agree (each method asserts them first).
pub struct Kernels {
    /// The instruction set.
    pub isa: Isa,
    matmul: unsafe fn(View<'_>, &PackedMatrix, Epilogue<'_>, ViewMut<'_>, &mut Scratch),
    round_bf16: unsafe fn(&[f32], &mut [u32]),
    pair_bf16: unsafe fn(&[f32], &[f32], &mut [u32]),
    softmax_rows: unsafe fn(ViewMut<'_>),
    layer_norm: unsafe fn(ViewMut<'_>, &[f32], Option<&[f32]>, f32),
    rms_norm: unsafe fn(ViewMut<'_>, &[f32], f32),
    map: unsafe fn(Map, &mut [f32]),
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
    /// The best table for this CPU, or the one that `JOINTLY_ISA` ([`Isa::name`]) names. Decided once
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

    /// Packs a weight `[n, k]` = `[out_features, in_features]`, row-major as in checkpoints.
    ///
    /// # Panics
    /// If the fields of `weight` do not describe a matrix within its data.
    #[track_caller]
    pub fn packed(&self, weight: View<'_>, precision: Precision) -> PackedMatrix {
        let mut packed = PackedMatrix::new();
        packed.pack(self, weight, precision);
        packed
    }

    /// As [`packed`](Self::packed), in the memory that `into` already has.
    ///
    /// # Panics
    /// As [`packed`](Self::packed).
    #[track_caller]
    pub fn pack(&self, weight: View<'_>, precision: Precision, into: &mut PackedMatrix) {
        into.pack(self, weight, precision);
    }

    /// Packs a weight given as `[k, n]`, such as the values of attention, in the memory that `into` already has.
    ///
    /// # Panics
    /// As [`packed`](Self::packed), and for [`Precision::Int8`].
    #[track_caller]
    pub fn pack_transposed(&self, weight: View<'_>, precision: Precision, into: &mut PackedMatrix) {
        into.pack_transposed(self, weight, precision);
    }

    /// `out = map(x . w^T + bias) + add`: `x` is `[m, k]`, `w` was packed from `[n, k]`, `out` is `[m, n]` and is
    /// overwritten; the rest is [`Epilogue`].
    ///
    /// In f32 and bf16, each element is one FMA accumulator that starts at zero and takes `k` in order (bf16: of two
    /// neighbours the second first; `neonbf16` adds both at once, `amx` the sums of 16 first and of 16 second ones). In int8 it is an exact integer, multiplied by the scales of its row and column.
    /// `scalar` does the same in `f64`, rounded once.
    ///
    /// # Panics
    /// If the shapes do not agree, or a view does not lie within its data.
    #[track_caller]
    pub fn matmul(&self, x: View<'_>, w: &PackedMatrix, then: Epilogue<'_>, out: ViewMut<'_>) {
        thread_local! {
            static SCRATCH: Cell<Scratch> = Cell::default();
        }
        x.assert_valid();
        out.assert_valid();
        assert_eq!(x.cols, w.k(), "x has {} columns, the weight an inner size of {}", x.cols, w.k());
        assert_eq!(x.rows, out.rows, "x has {} rows, out has {}", x.rows, out.rows);
        assert_eq!(w.n(), out.cols, "the weight gives {} columns, out has {}", w.n(), out.cols);
        if let Some(bias) = then.bias {
            assert_eq!(bias.len(), w.n(), "a bias of {} for {} columns", bias.len(), w.n());
        }
        if let Some(add) = then.add {
            add.assert_valid();
            let shapes = ((add.rows, add.cols), (out.rows, out.cols));
            assert_eq!(shapes.0, shapes.1, "add and out have different shapes");
        }
        let mut scratch = SCRATCH.take();
        // SAFETY: `self` proves the instruction set; the shapes are asserted above.
        unsafe { (self.matmul)(x, w, then, out, &mut scratch) }
        SCRATCH.set(scratch);
    }

    /// A row of bfloat16, two a word.
    fn round_bf16(&self, src: &[f32], dst: &mut [u32]) {
        assert_eq!(src.len().div_ceil(2), dst.len(), "{} elements into {} words", src.len(), dst.len());
        // SAFETY: `self` proves the instruction set; the lengths are asserted above.
        unsafe { (self.round_bf16)(src, dst) }
    }

    /// Two rows of bfloat16 as one of words; the second may be empty.
    fn pair_bf16(&self, low: &[f32], high: &[f32], dst: &mut [u32]) {
        assert!(low.len() == dst.len() && (high.is_empty() || high.len() == dst.len()), "lengths differ");
        // SAFETY: `self` proves the instruction set; the lengths are asserted above.
        unsafe { (self.pair_bf16)(low, high, dst) }
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
    /// population. `x` is `[rows, cols]`, `gamma` and `beta` are `[cols]`. The mean is taken in
    /// `f64`; the squares around it are summed in `f32` by lane, and the lanes in `f64`.
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

    /// Every element becomes `map` of it, in place.
    pub fn map(&self, map: Map, x: &mut [f32]) {
        // SAFETY: `self` proves the instruction set; any slice will do.
        unsafe { (self.map)(map, x) }
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
