//! How alike two rankings are, without judgements: what changes when a model is made cheaper.

mod kendall;
mod overlap;
mod rbo;

pub use kendall::kendall_tau_b;
pub use overlap::overlap_at;
pub use rbo::rbo;
