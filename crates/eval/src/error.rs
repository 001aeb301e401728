//! What can go wrong, as data: every variant names the file and line, the query and document, or the metric.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be read or measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read, unpacked or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system or the unpacker said.
        source: io::Error,
    },
    /// A line of a file cannot be used.
    #[error("{}:{line}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A file holds nothing of what it should.
    #[error("{}: no {what} in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A folder lacks a file that it must have.
    #[error("{}: no {name}, plain, .gz or .zst", folder.display())]
    MissingFile {
        /// The folder.
        folder: PathBuf,
        /// The file's name in it.
        name: String,
    },
    /// An id cannot stand in a file whose columns are separated by white space.
    #[error("{what} {id:?} is empty, or has white space in it that this format cannot hold")]
    Unwritable {
        /// Which id it is.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// A score is NaN or infinite.
    #[error("query {query}, document {document}: the score is {score}; a score is a finite number")]
    ScoreNotFinite {
        /// The query.
        query: String,
        /// The document.
        document: String,
        /// The score.
        score: f64,
    },
    /// A document was returned twice for one query.
    #[error("query {query}: document {document} stands in the run twice")]
    RetrievedTwice {
        /// The query.
        query: String,
        /// The document.
        document: String,
    },
    /// No metric has this name.
    #[error("no metric is called {name:?}; there are {known}")]
    UnknownMetric {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A metric was asked for with a cut-off that it cannot have, or without one that it needs.
    #[error("{metric}: {expected}")]
    Cutoff {
        /// What was asked for.
        metric: String,
        /// How to write it.
        expected: &'static str,
    },
    /// The metric is about subtopics, and the judgements name none.
    #[error("{metric} needs judgements of subtopics (TREC diversity qrels), and these have none")]
    NoSubtopics {
        /// The metric.
        metric: String,
    },
    /// No public set of a slice has this name.
    #[error("no public set is called {name:?}; there are {known}")]
    UnknownSet {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The report on ties does not know this metric.
    #[error("{metric}: its spread over the orders of tied documents is not computed")]
    NoTieReport {
        /// The metric.
        metric: String,
    },
    /// The run has no query that was judged.
    #[error(
        "none of the {retrieved} queries of the run is among the {judged} judged ones: are these the right files?"
    )]
    NoCommonQuery {
        /// Queries of the judgements.
        judged: usize,
        /// Queries of the run.
        retrieved: usize,
    },
    /// Two rankers were measured on different queries, so they cannot be compared query by query.
    #[error("only one of the two has a value for query {query}; compare them on the same queries")]
    NotPaired {
        /// The first query that only one of the two has.
        query: String,
    },
    /// A value of a comparison is NaN or infinite.
    #[error("query {query}: the value is {value}; it must be a finite number")]
    ValueNotFinite {
        /// The query.
        query: String,
        /// Its value.
        value: f64,
    },
    /// A comparison needs two queries at least.
    #[error("{found} queries; a comparison needs 2 at least")]
    TooFewQueries {
        /// How many there are.
        found: usize,
    },
    /// Labelled scores from which no probability can be learnt.
    #[error("{method}: {problem}")]
    Calibration {
        /// What was to be fitted.
        method: &'static str,
        /// What is wrong with the scores or labels, and what to do.
        problem: String,
    },
    /// An option is out of its range.
    #[error("{name} is {found}; it must be {expected}")]
    Option {
        /// The option.
        name: &'static str,
        /// Its value.
        found: f64,
        /// What it may be.
        expected: &'static str,
    },
}

/// What is wrong with a line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It is longer than any honest line.
    TooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// It is not UTF-8.
    NotUtf8 {
        /// The first bad byte of the line, from 1.
        byte: usize,
    },
    /// It has another number of columns than the format.
    Columns {
        /// How many it has.
        found: usize,
        /// The columns of the format.
        expected: &'static str,
    },
    /// A column is empty.
    EmptyColumn {
        /// The column's name.
        column: &'static str,
    },
    /// A label is not a whole number from -128 to 127.
    BadLabel {
        /// What stands there.
        found: String,
    },
    /// A score is not a finite number.
    BadScore {
        /// What stands there.
        found: String,
    },
    /// A document stands twice under one query.
    DuplicateDocument {
        /// The query.
        query: String,
        /// The document.
        document: String,
        /// The line that had it before.
        first: u64,
    },
    /// A document stands twice in a group.
    CandidateTwice {
        /// The document.
        document: String,
    },
    /// An id stands twice in a file of queries or documents.
    DuplicateId {
        /// The id.
        id: String,
        /// The line that had it before.
        first: u64,
    },
    /// It is not JSON of the expected shape.
    Json {
        /// What the parser said, with the column.
        source: serde_json::Error,
    },
    /// Some documents of a group have a first-stage score, and some have not.
    SomeScoresMissing {
        /// The first document without one.
        document: String,
    },
    /// It names a query that the folder's queries do not have.
    UnknownQuery {
        /// The query.
        query: String,
    },
    /// It names a document that the folder's corpus does not have.
    UnknownDocument {
        /// The document.
        document: String,
    },
    /// A field of a record does not hold what it should.
    BadField {
        /// The field.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// It is a header that this reader does not know.
    Header {
        /// The columns that are known.
        expected: &'static str,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => write!(f, "longer than {limit} bytes"),
            Self::NotUtf8 { byte } => write!(f, "byte {byte} of the line is not UTF-8"),
            Self::Columns { found, expected } => {
                write!(f, "{found} columns where there should be: {expected} (ids hold no white space)")
            }
            Self::EmptyColumn { column } => write!(f, "the {column} is empty"),
            Self::BadLabel { found } => {
                write!(f, "the label is {found:?}; a label is a whole number from -128 to 127")
            }
            Self::BadScore { found } => write!(f, "the score is {found:?}; a score is a finite number"),
            Self::DuplicateDocument { query, document, first } => {
                write!(f, "document {document} stands under query {query} already, in line {first}")
            }
            Self::CandidateTwice { document } => write!(f, "document {document} stands in the group twice"),
            Self::DuplicateId { id, first } => write!(f, "id {id} stands in line {first} already"),
            // The parser was given one line, and calls it line 1.
            Self::Json { source } => {
                f.write_str(&source.to_string().replace(" at line 1 column ", " at column "))
            }
            Self::SomeScoresMissing { document } => {
                write!(f, "document {document} has no first_stage_score, and others of the group have one")
            }
            Self::UnknownQuery { query } => write!(f, "query {query} is not among the folder's queries"),
            Self::UnknownDocument { document } => {
                write!(f, "document {document} is not in the folder's corpus")
            }
            Self::BadField { field, expected } => write!(f, "the field `{field}` is not {expected}"),
            Self::Header { expected } => write!(f, "the header is not: {expected}"),
        }
    }
}
