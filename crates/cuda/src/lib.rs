//! The arithmetic of inference on NVIDIA devices: tensors that live there, and the operations on them.
//!
//! # Where to read
//! `kernels/` has the kernels, in plain CUDA C++; they are compiled by NVRTC on the machine that runs them. `device.rs` has
//! the operations, with the shapes they take. `backend.rs` says what a device has to be able to do: there is one of
//! cudarc (`gpu.rs`, with cuBLASLt for the large products, `lt.rs`), and one in `crates/cuda-emulator` that runs the same
//! kernels on a CPU, so that they and all that calls them are tested where there is no device.
//!
//! # Failure
//! A device works behind the program: an operation is asked for now and done later, and what goes wrong shows later still.
//! So operations do not fail here either. The first failure is kept, nothing is asked for after it, and whoever reads
//! results asks [`Device::take_failure`] whether they are any.
//!
//! # What holds
//! Sums are f32. A row of a result of our kernels depends on that row's inputs alone, bit for bit. Products of cuBLASLt
//! do not promise that: it may choose another algorithm for another number of rows.

// `unsafe` belongs to this crate: addresses on a device, and the C interfaces of CUDA.
#![allow(unsafe_code, reason = "this is the crate that holds the unsafe code of inference on devices")]

mod backend;
mod device;
#[cfg(feature = "driver")]
mod gpu;
pub mod kernels;
#[cfg(feature = "driver")]
mod lt;

pub use backend::{Argument, Backend, Failure, FailureKind, Format, Launch, Memory, Operand, Product};
pub use device::{Bias, Device, Distances, Function, Mask, Relative, Shape, TILE, Tensor, Tile, Weight};
#[cfg(feature = "driver")]
pub use gpu::{Gpu, Presence, compile};
