//! A whole server on ports of its own, with a small model whose batches the tests hold and let go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "server/cascades.rs"]
mod cascades;
#[path = "server/client.rs"]
mod client;
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
