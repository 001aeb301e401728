//! **First stages: what finds the candidates that a reranker sorts.**
//!
//! ```
//! use jointly_retrieve::{BuildOptions, Document, Index};
//!
//! let folder = tempfile::tempdir()?;
//! let documents = [("a", "Venus is the hottest planet."), ("b", "Mars is called the Red Planet.")]
//!     .map(|(id, text)| Document { id: id.into(), text: text.into() });
//! jointly_retrieve::build(&folder.path().join("index"), &documents, BuildOptions::new(), &mut |_| ())?;
//!
//! let index = Index::open(&folder.path().join("index"))?;
//! let hits = index.bm25(&["red planets"], index.bm25_parameters(), 10, 1)?.remove(0);
//! assert_eq!(index.id(hits[0].document), "b");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map of modules
//! [`analysis`]: text -> terms. [`bm25`]: the words of a query against those of every document, on tantivy's postings.
//! [`dense`]: the vector of a query against that of every document, all of them compared. [`fusion`]: one ranking of
//! several. [`top`]: scores -> the best. [`index`]: all of it in a folder that is whole or not there.

pub mod analysis;
pub mod bm25;
pub mod dense;
mod error;
pub mod fusion;
pub mod index;
pub mod top;

pub use bm25::Parameters;
pub use error::{Error, ErrorKind, Result};
pub use index::{BuildOptions, DenseInfo, Document, Index, Progress, build};
pub use top::Hit;
