//! zELO: graded labels from pairwise votes. Paper: arXiv 2509.12541.
//!
//! 1. [`sample`]: which pairs of documents to ask about: a union of random cycles for each query, and cycles over the queries.
//! 2. [`votes`]: pairs and votes as they are written, one JSON object a line.
//! 3. [`fit`]: scores from votes, with standard errors; the judges' scales and biases; offsets between queries.
//! 4. [`report`]: what the votes are worth.
//! 5. [`simulate`]: judges and a truth that is known, to see how many votes are needed.

pub mod fit;
pub mod report;
pub mod sample;
pub mod simulate;
pub mod votes;

mod error;
mod laplacian;
mod link;

pub use error::{Error, Result};
pub use link::Link;
