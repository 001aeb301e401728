//! The HTTP server: requests of many dialects, one fair queue over the models of a process.
//!
//! A request's way: [`dialect`] reads its body into a [`RerankRequest`]; admission prices it; the queue scores its pairs
//! beside those of other requests; the dialect writes the [`RerankResponse`], or the [`Failure`], as its vendor would.

pub mod dialect;
mod failure;
pub mod playground;
mod request;

pub use failure::{Failure, FailureKind};
pub use request::{
    Coverage, Hit, Items, Latency, LoadedCard, ModelCard, Overlong, RerankRequest, RerankResponse,
    SpanOptions, Timing, Usage,
};
