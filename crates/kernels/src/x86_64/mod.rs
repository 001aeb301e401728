//! The instruction sets of x86_64. Each is a register type and one `instantiate!`; the kernels themselves are
//! written once, in `generic.rs`. AMX has no registers but tiles, and a matrix product of its own.

pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512;
