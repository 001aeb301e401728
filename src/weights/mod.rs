//! Checkpoints: tensors by name, out of one safetensors file or many.
//!
//! A checkpoint stays in the number format it was published in until an architecture asks for a tensor; then it is
//! converted once, into the form that the kernels read.

pub mod mmap;
mod safetensors;

pub(crate) use safetensors::join;
pub use safetensors::{Checkpoint, Dtype, Scope, Table};
