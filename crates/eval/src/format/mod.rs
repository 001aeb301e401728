//! Files that people have: TREC runs and judgements, BEIR folders, `*.groups.jsonl`, TSV; plain, gzip and zstd.
//!
//! Every reader takes [`Lines`], so `trec::read_run(Lines::open(path)?)`. What is wrong with a file is an
//! [`Error::Line`](crate::Error::Line) with its path and line; nothing is repaired or passed over, but for blank lines,
//! a byte order mark and Windows line ends. What trec_eval does with the same file, where it differs:
//!
//! | the file has | here | trec_eval 9 and 10 |
//! |---|---|---|
//! | a document twice under a query | error | error |
//! | equal or missing ranks | the rank column is not read | the same |
//! | a score that is NaN, infinite, or no number | error | reads NaN and infinity as they are, no number as 0 |
//! | an id or run tag with a space | error: too many columns | shifts the columns, or drops the rest of the line |
//! | no run tag | error: too few columns | error |
//! | a line that begins with `#` | is read as any other | 10 passes over it, 9 does not |
//! | nothing | error | error |

pub mod beir;
pub mod groups;
mod lines;
mod rows;
pub mod trec;
pub mod tsv;
mod zstd;

pub use lines::{Lines, MAX_LINE_BYTES};
