//! Pairs and votes as they are written: JSON lines, one object a line, other fields ignored.
//!
//! ```json
//! {"query": "q1", "a": "d3", "b": "d7"}
//! {"query": "q1", "a": "d3", "query_b": "q2", "b": "d9"}
//! {"query": "q1", "a": "d3", "b": "d7", "judge": "one", "vote": 0.75, "swapped": true}
//! ```

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Two documents of which a judge says which is more relevant to its query.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// The query of `a`, and of `b` if `query_b` is none.
    pub query: String,
    /// The first document's id.
    pub a: String,
    /// The query of `b`, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_b: Option<String>,
    /// The second document's id.
    pub b: String,
}

/// What the fit reads of a line of votes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vote<'a> {
    /// The query of `a`, and of `b` if `query_b` is none.
    #[serde(borrow)]
    pub query: Cow<'a, str>,
    /// The first document's id.
    #[serde(borrow)]
    pub a: Cow<'a, str>,
    /// The query of `b`, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_b: Option<String>,
    /// The second document's id.
    #[serde(borrow)]
    pub b: Cow<'a, str>,
    /// Who voted.
    #[serde(borrow)]
    pub judge: Cow<'a, str>,
    /// The share for `b`, from 0 to 1; `null` if the judge abstained. It must be there: a line without it is no vote.
    #[serde(deserialize_with = "Option::deserialize")]
    pub vote: Option<f64>,
    /// Whether the judge saw `b` first. `vote` is the share for `b` either way.
    #[serde(default)]
    pub swapped: bool,
}
