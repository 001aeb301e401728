//! **Is one ranking better than another, by how much, and is that more than luck?**
//!
//! ```
//! use jointly_eval::{JudgeOptions, JudgedRun, Qrels, Retrieved, Run};
//!
//! let mut qrels = Qrels::new();
//! for (document, label) in [("d1", 3), ("d2", 2), ("d3", 0), ("d4", 1)] {
//!     qrels.insert("q", document, label);
//! }
//! let mut run = Run::new();
//! run.insert("q", vec![Retrieved::new("d3", 0.9), Retrieved::new("d1", 0.8), Retrieved::new("d2", 0.8)])?;
//!
//! let judged = JudgedRun::new(&qrels, &run, JudgeOptions::new())?;
//! let ndcg = judged.evaluate("ndcg@10".parse()?)?;
//! assert!((ndcg.mean() - 0.579996).abs() < 1e-6);
//! # Ok::<(), jointly_eval::Error>(())
//! ```
//!
//! # Map of modules
//! [`format`](mod@format): files. [`data`]: judgements and runs. [`order`]: scores -> ranking, as trec_eval sorts. [`judge`]: a run beside its
//! judgements, and what ties do. [`metric`]: what is computed from them. [`agreement`]: how alike two rankings are.
//! [`pairs`]: metrics of what a query's wording changes. [`significance`]: is a difference more than luck?
//! [`slices`]: our own challenge set and public ones, by what they test.
//! [`calibration`]: what a score means as a probability. [`audit`]: what a cheaper model does to the order.
//! Nothing here depends on another crate of this workspace, and nothing opens a socket.

pub mod agreement;
pub mod audit;
pub mod calibration;
pub mod data;
mod error;
pub mod format;
pub mod judge;
pub mod metric;
pub mod order;
pub mod pairs;
pub mod screen;
pub mod significance;
pub mod slices;

pub use data::{PerQuery, Qrels, Retrieved, Run};
pub use error::{Error, Fault, Result};
pub use judge::{JudgeOptions, JudgedRun, Missing, TieReport};
pub use metric::{METRICS, Metric};
pub use order::ScoreWidth;
