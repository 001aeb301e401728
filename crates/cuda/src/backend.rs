//! What a device has to be able to do.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

/// A number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE 754 binary32.
    F32,
    /// The upper half of binary32.
    Bf16,
    /// IEEE 754 binary16.
    F16,
}

impl Format {
    /// Bytes of a value.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// `HALF` in the kernels.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Bf16 => 1,
            Self::F16 => 2,
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What can be done about it.
    pub kind: FailureKind,
    /// What was tried, and what the library said.
    pub problem: String,
}

/// What can be done about a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// There is no such device, or what it needs is not installed.
    Absent,
    /// There is not enough memory; less at once may fit.
    Memory,
    /// The device or what it held is gone: nothing will work until the process starts anew.
    Lost,
    /// Anything else: a mistake of this program, or of a library.
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Failure {}

/// One parameter of a kernel: a number, an address, or a structure, as the kernel declares it.
#[derive(Clone, Copy)]
pub struct Argument<'a>(*const c_void, PhantomData<&'a ()>);

impl Argument<'_> {
    /// Where it is.
    #[must_use]
    pub fn pointer(&self) -> *mut c_void {
        self.0.cast_mut()
    }
}

impl<'a, T: Copy> From<&'a T> for Argument<'a> {
    fn from(value: &'a T) -> Self {
        Self(std::ptr::from_ref(value).cast(), PhantomData)
    }
}

/// A kernel to be run.
pub struct Launch<'a> {
    /// Its name in `kernels/`.
    pub kernel: &'a str,
    /// Blocks, in two dimensions.
    pub grid: [u32; 2],
    /// Threads of a block.
    pub threads: u32,
    /// What it takes, in order.
    pub arguments: &'a [Argument<'a>],
}

/// A matrix of a product, row-major. Strides are in values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Where it begins.
    pub address: u64,
    /// The number format.
    pub format: Format,
    /// From one row to the next.
    pub stride: usize,
    /// From one matrix of a batch to the next.
    pub batch_stride: usize,
}

/// `out = x . w' + bias + residual`: `x` is `[m, k]`, `w` `[n, k]`, `out` `[m, n]`; sums are f32. `x` and `w` have one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows of `x`.
    pub m: usize,
    /// Rows of `w`.
    pub n: usize,
    /// Columns of both.
    pub k: usize,
    /// How many of them, side by side.
    pub batch: usize,
    /// The left-hand side.
    pub x: Operand,
    /// The right-hand side, transposed.
    pub w: Operand,
    /// The result.
    pub out: Operand,
    /// `[n]`, in the format of the result.
    pub bias: Option<u64>,
    /// As `out` in all but its address.
    pub residual: Option<u64>,
}

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What nobody uses.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// A device, seen from the operations. What is asked for is done in the order it was asked for, later than it was.
pub trait Backend: Send + Sync {
    /// What it is, for people: `cuda:0 (NVIDIA H200)`.
    fn name(&self) -> &str;

    /// The format of the halves in its kernels.
    fn half(&self) -> Format;

    /// Memory of at least one byte, its address a multiple of 256.
    ///
    /// # Errors
    /// [`FailureKind::Memory`] if there is none left.
    fn allocate(&self, bytes: usize) -> Result<u64, Failure>;

    /// Takes memory back, when what was asked for until now is done.
    fn free(&self, address: u64);

    /// Copies bytes to the device; they may change when this returns.
    ///
    /// # Errors
    /// What the device says.
    fn upload(&self, to: u64, bytes: &[u8]) -> Result<(), Failure>;

    /// Waits for all that was asked for, and copies bytes from the device.
    ///
    /// # Errors
    /// What the device says, of anything that was asked for before.
    fn download(&self, from: u64, bytes: &mut [u8]) -> Result<(), Failure>;

    /// Copies bytes on the device.
    ///
    /// # Errors
    /// What the device says.
    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), Failure>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// What the device says.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), Failure>;

    /// Multiplies. False, and nothing done, if it has no way to multiply these: the kernel `product_*` does it then.
    ///
    /// # Errors
    /// What the device says.
    fn multiply(&self, product: &Product) -> Result<bool, Failure>;

    /// Its memory.
    ///
    /// # Errors
    /// What the device says.
    fn memory(&self) -> Result<Memory, Failure>;
}
