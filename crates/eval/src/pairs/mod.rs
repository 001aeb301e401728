//! Metrics of what a query's wording changes: two queries that want different documents, or one query before and after
//! its instruction was changed.

mod p_mrr;
mod paired_accuracy;

pub use p_mrr::{p_mrr, rank_change};
pub use paired_accuracy::{ContrastScores, paired_accuracy};
