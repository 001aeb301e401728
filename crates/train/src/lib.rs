//! Training for Jointly.
//!
//! - [`zelo`]: graded labels from pairwise votes: which pairs to vote on, the fit, the report.
//! - [`judge`]: who votes.

pub mod judge;
pub mod zelo;
