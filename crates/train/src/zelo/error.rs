/// The result of a step of zELO.
pub type Result<T> = std::result::Result<T, Error>;

/// Why votes cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two queries have one id.
    #[error("query {query} is there twice")]
    QueryTwice {
        /// Its id.
        query: String,
    },
    /// Two documents of a query have one id.
    #[error("document {document} is there twice in query {query}")]
    DocumentTwice {
        /// The query's id.
        query: String,
        /// The document's id.
        document: String,
    },
    /// A vote is about a query that is not in the pool.
    #[error("query {query} is not in the pool")]
    NoSuchQuery {
        /// Its id.
        query: String,
    },
    /// A vote is about a document that its query does not have.
    #[error("query {query} has no document {document} in the pool")]
    NoSuchDocument {
        /// The query's id.
        query: String,
        /// The document's id.
        document: String,
    },
    /// A vote compares a document with itself.
    #[error("document {document} is compared with itself")]
    SameDocument {
        /// Its id.
        document: String,
    },
    /// A vote is no share.
    #[error("the vote is {share}; it must be from 0 to 1")]
    Share {
        /// The vote.
        share: f64,
    },
    /// No vote is between two documents of one query.
    #[error("there is no vote between two documents of a query")]
    NoVotes,
    /// A prior is not a number that it may be.
    #[error(
        "the prior is {prior} and that of offsets {bias_prior}; they must be finite, at least 0, and the second above 0"
    )]
    Prior {
        /// Of the scores.
        prior: f64,
        /// Of the offsets.
        bias_prior: f64,
    },
    /// Without a prior, scores of a query would be infinite.
    #[error(
        "query {query}: some documents never lost to the others, so that only a prior above 0 gives finite scores"
    )]
    NoMaximum {
        /// Its id.
        query: String,
    },
}
