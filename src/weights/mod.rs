//! Checkpoints: tensors by name, out of one safetensors file or many.
//!
//! A checkpoint stays in the number format it was published in until an architecture asks for a tensor; then it is
//! converted once, into the form that the kernels read. That form may be kept in a file of its own.

pub mod mmap;
mod packed;
mod safetensors;

pub use packed::{Packed, PackedFile, PackedWriter};
pub(crate) use packed::{for_this_user, make_folder};
pub(crate) use safetensors::join;
pub use safetensors::{Checkpoint, Dtype, Form, Scope, Table};
