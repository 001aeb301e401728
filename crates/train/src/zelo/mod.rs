//! zELO: graded labels from pairwise votes. Paper: arXiv 2509.12541.
//!
//! 1. [`sample`]: which pairs of documents to ask about: a union of random cycles for each query, and cycles over the queries.
//! 2. [`votes`]: pairs and votes as they are written, one JSON object a line.

pub mod sample;
pub mod votes;

mod rng;
