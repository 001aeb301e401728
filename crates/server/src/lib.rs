//! The HTTP server: requests of many dialects, one fair queue over the models of a process.
//!
//! A request's way: [`dialect`] reads its body into a [`RerankRequest`]; admission (`service.rs`, `queue/`) prices it in tokens and
//! takes it in or says when to come again; its texts are tokenised in parts; the queue scores its pairs beside those of
//! others, one batch at a time; the dialect writes the [`RerankResponse`], or the [`Failure`], as its vendor would.
//!
//! [`Server`] ties it to sockets. Its parts, from the outside in: `listen.rs` (connections), `routes.rs` (paths), `body.rs` and
//! `json.rs` (bodies), `keys.rs` (who asks), `pace.rs` (how fast failures leave), `service.rs` (a request's work), `queue/` (whose pairs are next), `models.rs` (what
//! is loaded), `cascade/` (several, one after the other), `engine.rs` (what scores).

mod app;
mod body;
mod cascade;
pub mod config;
mod cores;
mod cors;
pub mod dialect;
pub mod engine;
mod failure;
mod json;
mod keys;
mod listen;
pub mod log;
pub mod metrics;
mod models;
mod pace;
mod patience;
pub mod playground;
mod queue;
mod request;
mod routes;
mod server;
mod service;
mod stream;

pub use app::Reader;
pub use failure::{Failure, FailureKind};
pub use keys::hash_key;
pub use models::Loader;
pub use pace::rest;
pub use request::{
    Coverage, Hit, Items, Latency, LoadedCard, ModelCard, Overlong, RerankRequest, RerankResponse,
    SpanOptions, Timing, Usage,
};
pub use server::{Handle, Server};
