//! **Jointly reads a query and a document together and says how relevant the document is.**
//!
//! A cross-encoder is the second half of a search: something fast finds a hundred candidates, this puts the right
//! ten on top. Every layer attends across query and document; that is why it is right more often than a comparison
//! of two vectors, and why it costs a forward pass for each pair.
//!
//! ```
//! # #[cfg(feature = "default-model")] {
//! use jointly::{CrossEncoder, LoadOptions, RerankOptions};
//!
//! let model = CrossEncoder::load_default(LoadOptions::new())?;
//! let documents = [
//!     "Tomatoes do best in full sun.",
//!     "A jaguar can bite through a turtle's shell.",
//!     "The Jaguar E-Type reached 150 miles an hour.",
//! ];
//! let ranking = model.rerank("how strong is the bite of a jaguar", &documents, &RerankOptions::new())?;
//! for hit in &ranking.hits {
//!     println!("{:.4} {}", hit.score.score, documents[hit.index]);
//! }
//! assert_eq!(ranking.hits[0].index, 1);
//! # }
//! # Ok::<(), jointly::Error>(())
//! ```
//!
//! # Concepts
//! A **pair** is a query and a document. Its **logit** is what the model's head gives; its **score** is the logit on
//! the scale that the model's authors publish, and [`ScoreScale`] says what that is; with a [`calibration`] there is a
//! **probability** too. A [`Ranking`] is sorted on the
//! logit. A document longer than the model's maximum is cut, and its score says `truncated`; or it is read in
//! **windows**, and its score says which **span** was best. A **receipt** pins logits, so that a model that is not
//! what it was is refused. A **cascade** is **stages** one after the other: a cheap one sees many documents, a strong one few,
//! and diversity has the last word; what a stage does not keep stays below ([`rank`]).
//!
//! # Map of modules, in the order of a pair's way
//! [`files`] and [`weights`] find and read a model; [`text`] writes the pair in the model's template and tokenises
//! it; [`batch`] packs pairs without padding; [`model`] computes, out of the layers of [`nn`], on the kernels of the
//! crate `jointly-kernels`; [`score`] says what the logit means; [`rank`] sorts, and runs cascades. [`CrossEncoder`] ties them together.
//! [`BiEncoder`] is the other kind of model, one vector for each text: it finds the candidates.

mod affinity;
pub mod batch;
mod bi_encoder;
pub mod calibration;
mod cross_encoder;
mod device;
#[cfg(feature = "default-model")]
mod embedded;
mod error;
pub mod files;
pub mod model;
mod network;
pub mod nn;
mod packed_cache;
pub mod rank;
pub mod receipt;
pub mod score;
pub mod text;
pub mod weights;

pub use bi_encoder::{BiEncoder, BiEncoderInfo, Role};
pub use cross_encoder::{
    CrossEncoder, Encoded, LoadOptions, Long, ModelInfo, Pair, RerankOptions, ScoreOptions,
};
pub use device::{CudaDevices, DeviceChoice};
pub use error::{Error, ErrorKind, Result};
pub use jointly_kernels::Precision;
pub use packed_cache::{PackedCacheState, cache_folder, kept_identity, packed_cache_folder};
pub use rank::{Hit, Ranking};
pub use score::{Score, ScoreMap, ScoreScale};
pub use text::WindowOptions;
