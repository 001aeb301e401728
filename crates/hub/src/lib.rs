//! Pulls models by id from any server with the Hugging Face hub's layout, into the cache that `huggingface_hub` uses.
//!
//! [`pull`] fetches what a reranker reads and checks every byte; [`cached`] looks into the cache only, [`cached_or_pulled`] there
//! first. All give the snapshot's folder, which loads like any model folder. [`named`] tells ids from paths. Blocking, one connection at a time. The crate's README says
//! why it is not the `hf-hub` crate, and what the protocol and the cache look like.

mod api;
mod cache;
mod download;
mod error;
mod http;
mod id;
mod options;
mod progress;
mod pull;

pub use error::{Error, ErrorKind, Result};
pub use id::{HubId, Named, named, parse_id};
pub use options::{Backoff, HubOptions};
pub use progress::{NoProgress, Progress};
pub use pull::{cached, cached_or_pulled, pull};

/// The README's example is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Lower-case hexadecimal digits of a hash.
fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(digest.len() * 2);
    for byte in digest {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether `text` is `digits` lower-case hexadecimal digits.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}
