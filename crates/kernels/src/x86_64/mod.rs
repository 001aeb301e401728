//! The instruction sets of x86_64. Each is a register type and one `instantiate!`; the kernels themselves are
//! written once, in `generic.rs`.

pub(crate) mod avx2;
pub(crate) mod avx512;
