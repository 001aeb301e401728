//! **Cascades as files.** A file in TOML has a budget and stages; [`CascadeFile::parse`] reads it, [`CascadeFile::build`] makes
//! a [`Cascade`] of it and asks [`Models`] for the models that it names. All keys: `docs/cascades.md`.
//!
//! ```
//! use jointly_cascade::{CascadeFile, StageSpec};
//!
//! let file = CascadeFile::parse("cascade.toml", r#"
//!     [budget]
//!     ms = 200
//!
//!     [[stage]]
//!     model = "default"
//!     precision = "int8"
//!     keep = 50
//!
//!     [[stage]]
//!     kind = "mmr"
//!     lambda = 0.7
//!     keep = 10
//! "#)?;
//! assert!(matches!(&file.stages[0], StageSpec::Rescore(spec) if spec.keep == Some(50)));
//! # Ok::<(), jointly_cascade::Error>(())
//! ```

mod bi_scorer;
mod build;
mod local;
mod report;
mod spec;

pub use bi_scorer::BiScorer;
pub use build::{Models, SharedScorer, SharedStage};
pub use jointly::rank::Cascade;
pub use local::{Load, LocalModels};
pub use report::{StageRow, in_words};
pub use spec::{
    AggregateSpec, BlendSpec, BudgetSpec, CascadeFile, ConfirmSpec, DistinctSpec, DiversitySpec, DuoSpec,
    EarlyStopSpec, ModelSpec, OnePassSpec, OtherSpec, PrecisionSpec, RescoreSpec, SameSpec, SimilaritySpec,
    StageSpec, XquadSpec,
};

/// Why a file is no cascade.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is not TOML, or has a key that is unknown or of another type.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong, with the line.
        problem: String,
    },
    /// A stage cannot be what the file says.
    #[error("{file}: stage {number}: {problem}")]
    Stage {
        /// The file.
        file: String,
        /// The stage, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
}
