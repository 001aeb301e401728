use std::io;
use std::path::PathBuf;

use crate::name::NameFault;

/// What can be wrong with a bundle, or with the folder that one is made of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing a file failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file does not begin with a tar header, or its first member is not the manifest.
    #[error("not a bundle: it does not begin with {}", crate::MANIFEST_NAME)]
    NotABundle,
    /// The manifest is larger than any real one.
    #[error("the manifest has {size} bytes; the limit is {limit}")]
    ManifestTooLarge {
        /// Size that its header states, in bytes.
        size: u64,
        /// [`crate::MAX_MANIFEST_BYTES`].
        limit: u64,
    },
    /// The manifest is not JSON of the expected shape.
    #[error("the manifest cannot be read: {source}")]
    Manifest {
        /// Where and why.
        source: serde_json::Error,
    },
    /// The bundle was made by a newer version.
    #[error("bundle format {found} is not known; this version reads format {}", crate::FORMAT)]
    Format {
        /// What the manifest states.
        found: u32,
    },
    /// More files than any real model has.
    #[error("{count} files; the limit is {limit}")]
    TooManyFiles {
        /// How many there are, or the first number past the limit.
        count: usize,
        /// [`crate::MAX_FILES`].
        limit: usize,
    },
    /// A file name that could lie outside the folder, or that no file system should be given.
    #[error("file name {name:?} {fault}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// A name stands twice in the manifest, or its names are not sorted.
    #[error("{name}: twice in the manifest, or out of order")]
    Order {
        /// The second of the two.
        name: String,
    },
    /// A hash in the manifest is not 64 hexadecimal digits.
    #[error("{name}: the manifest has no valid sha256 for it")]
    BadHash {
        /// The file it belongs to.
        name: String,
    },
    /// A tar header is damaged.
    #[error("the tar header at byte {offset} is damaged")]
    Header {
        /// Where it begins.
        offset: u64,
    },
    /// A link, folder, sparse file or extension header.
    #[error("the member at byte {offset} is not a regular file (tar type {kind:#04x})")]
    NotAFile {
        /// Where its header begins.
        offset: u64,
        /// tar's type byte.
        kind: u8,
    },
    /// The members are not those of the manifest.
    #[error("found member {found:?} where the manifest has {expected:?}")]
    Unexpected {
        /// Name in the tar header.
        found: String,
        /// Name in the manifest.
        expected: String,
    },
    /// A member's size differs from the manifest's, or a file changed while it was being bundled.
    #[error("{name}: {found} bytes where {expected} were expected")]
    Size {
        /// The file.
        name: String,
        /// Bytes that the manifest states.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The file ends before its last member does.
    #[error("cut short: {found} bytes, and it needs {expected}")]
    Truncated {
        /// Bytes the file must have at least.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// There is something after the last member.
    #[error("unexpected data after the last member, at byte {offset}")]
    TrailingData {
        /// Where the last member ends, padding included.
        offset: u64,
    },
    /// A file's content is not what the manifest says.
    #[error("{name}: sha256 is {found}, expected {expected}")]
    Hash {
        /// The file.
        name: String,
        /// Hexadecimal digits in the manifest.
        expected: String,
        /// Hexadecimal digits of the content.
        found: String,
    },
    /// The folder holds nothing that belongs into a bundle.
    #[error("{}: no config.json, so this is not a model folder", folder.display())]
    NotAModel {
        /// The folder.
        folder: PathBuf,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
