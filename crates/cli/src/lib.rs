//! What of the command line reads files that other people write, as a library: so that fuzzing (`fuzz/`) reaches it.
//! The program is `main.rs`.

pub mod documents;
pub mod error;
pub mod input;
pub mod pairs;
