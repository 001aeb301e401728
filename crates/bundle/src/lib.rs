//! A model folder in one file: an uncompressed tar whose first member is a manifest with sizes and hashes.
//!
//! [`write()`] makes it, [`Index::open`] finds where each file lies in it, and [`Index::verify`] checks the hashes.
//! The format is in the crate's README. Nothing here touches the network.

mod error;
mod index;
mod name;
mod write;

pub use error::{Error, Result};
pub use index::{Index, Member};
pub use name::{NameFault, check_name, is_model_file};
pub use write::{Meta, Summary, write};

/// Name of the first member.
pub const MANIFEST_NAME: &str = "jointly-bundle.json";
/// The only version of the format so far.
pub const FORMAT: u32 = 1;
/// A manifest of [`MAX_FILES`] files with names of ordinary length is smaller.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// The largest published rerankers have about fifty files.
pub const MAX_FILES: usize = 4096;

/// tar's unit: headers have one block, data is padded to whole blocks.
const BLOCK_BYTES: u64 = 512;
/// Files are hashed and copied in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

/// First member of a bundle, as it stands in the file.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Manifest {
    format: u32,
    model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    created_with: String,
    files: Vec<ManifestFile>,
}

/// One file of the manifest.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct ManifestFile {
    name: String,
    size: u64,
    sha256: String,
}

/// `size` rounded up to whole blocks; `None` if that does not fit 64 bits.
fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK_BYTES)
}

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
