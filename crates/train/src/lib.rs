//! Training for Jointly: graded labels from pairwise votes, and cross-encoders that learn from them.
//!
//! - [`zelo`]: which pairs to vote on, the fit of the votes, the report. [`judge`]: who votes.
//! - [`trainer`]: fine-tuning. A [`data`] file of graded groups, a [`loss`], an [`optimizer`], and a [`network`] whose
//!   forward pass a [`tape`] writes down and goes back through; [`folder`] reads and writes models.
//!
//! The products of training run on the kernels of inference, so that a trained model scores as it did in training.

pub mod data;
mod error;
pub mod folder;
pub mod judge;
mod lock;
pub mod loss;
pub mod mine;
pub mod network;
pub mod optimizer;
pub mod parameters;
mod random;
mod simd;
pub mod tape;
pub mod trainer;
pub mod zelo;

pub use error::{Error, Result};
pub use random::Random;
