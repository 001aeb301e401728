//! A whole server on ports of its own, with a small model whose batches the tests hold and let go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "server/beside.rs"]
mod beside;
#[path = "server/cascades.rs"]
mod cascades;
#[path = "server/client.rs"]
mod client;
// The votes, and what asks, are tested with the same one.
#[path = "../../train/tests/support/endpoint.rs"]
#[allow(dead_code, reason = "of the other tests")]
mod endpoint;
#[path = "server/engine.rs"]
mod engine;
#[path = "server/life.rs"]
mod life;
#[path = "server/load.rs"]
mod load;
#[path = "server/refusals.rs"]
mod refusals;
#[path = "server/running.rs"]
mod running;
#[path = "server/scores.rs"]
mod scores;
#[path = "server/transport.rs"]
mod transport;
