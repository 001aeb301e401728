//! The instruction sets of AArch64: as those of x86_64.

pub(crate) mod neon;
