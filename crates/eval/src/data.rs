//! Judgements and runs, as maps from query to document. Both are sorted by query id, so that every walk over them, and
//! with it every sum and every seeded test, comes out the same each time.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{Error, Result};

/// How relevant a document was judged to be: 0 is not relevant, higher is better, below 0 is "in the pool, but not
/// judged". The range is the one that trec_eval documents (`get_qrels.c`).
pub type Label = i8;

/// The judged documents of one query.
pub type Labels = BTreeMap<String, Label>;

/// The subtopics of one document that were judged, each with its label.
pub type Subtopics = BTreeMap<String, Label>;

/// Judgements: which documents were judged for a query, and how relevant they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Qrels {
    labels: BTreeMap<String, Labels>,
    subtopics: BTreeMap<String, BTreeMap<String, Subtopics>>,
}

impl Qrels {
    /// Without a judgement.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a judgement. Gives the label that the pair had before, if it was judged already; that label is replaced.
    pub fn insert(&mut self, query: &str, document: &str, label: Label) -> Option<Label> {
        self.labels.entry(query.to_string()).or_default().insert(document.to_string(), label)
    }

    /// Adds a judgement of one subtopic (intent) of a query. The document's own label is the highest of its subtopics,
    /// which is how ndeval counts a document as relevant. Gives the subtopic's label before, as
    /// [`insert`](Self::insert) does.
    pub fn insert_subtopic(
        &mut self,
        query: &str,
        subtopic: &str,
        document: &str,
        label: Label,
    ) -> Option<Label> {
        let of_query = self.subtopics.entry(query.to_string()).or_default();
        let of_document = of_query.entry(document.to_string()).or_default();
        let before = of_document.insert(subtopic.to_string(), label);
        let highest = of_document.values().copied().max().unwrap_or(label);
        self.insert(query, document, highest);
        before
    }

    /// Adds the subtopics that `other` has. Labels stay as they are: only a query without a judgement takes the labels of
    /// `other`, which are the highest of each document's subtopics. Subtopics that a query had before are replaced.
    pub fn add_subtopics(&mut self, other: Self) {
        for (query, labels) in other.labels {
            self.labels.entry(query).or_insert(labels);
        }
        self.subtopics.extend(other.subtopics);
    }

    /// Keeps the judgements of these queries only.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&str) -> bool) {
        self.labels.retain(|query, _| is_kept(query));
        let labels = &self.labels;
        self.subtopics.retain(|query, _| labels.contains_key(query));
    }

    /// The judged documents of a query.
    pub fn get(&self, query: &str) -> Option<&Labels> {
        self.labels.get(query)
    }

    /// The subtopics of each judged document of a query, if the judgements have subtopics.
    pub fn subtopics(&self, query: &str) -> Option<&BTreeMap<String, Subtopics>> {
        self.subtopics.get(query)
    }

    /// Whether any judgement names a subtopic.
    pub fn has_subtopics(&self) -> bool {
        !self.subtopics.is_empty()
    }

    /// Every query with its judged documents, in the order of the query ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Labels)> {
        self.labels.iter().map(|(query, labels)| (query.as_str(), labels))
    }

    /// The number of queries.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no judgement.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// A document that a ranker returned, with its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrieved {
    /// The document's id.
    pub document: String,
    /// The larger, the more relevant. Finite.
    pub score: f64,
}

impl Retrieved {
    /// A document and its score.
    pub fn new(document: impl Into<String>, score: f64) -> Self {
        Self { document: document.into(), score }
    }
}

/// What a ranker returned for each query. No document stands twice under a query, and every score is finite: the only
/// ways in check both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    queries: BTreeMap<String, Vec<Retrieved>>,
}

impl Run {
    /// Without a query.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what was returned for a query, in any order; it replaces what the query had before.
    ///
    /// # Errors
    /// [`Error::ScoreNotFinite`] and [`Error::RetrievedTwice`].
    pub fn insert(&mut self, query: &str, retrieved: Vec<Retrieved>) -> Result<()> {
        let mut seen = BTreeSet::new();
        for Retrieved { document, score } in &retrieved {
            if !score.is_finite() {
                return Err(Error::ScoreNotFinite {
                    query: query.to_string(),
                    document: document.clone(),
                    score: *score,
                });
            }
            if !seen.insert(document) {
                return Err(Error::RetrievedTwice { query: query.to_string(), document: document.clone() });
            }
        }
        self.queries.insert(query.to_string(), retrieved);
        Ok(())
    }

    /// What was returned for a query, in the order in which it was given.
    pub fn get(&self, query: &str) -> Option<&[Retrieved]> {
        self.queries.get(query).map(Vec::as_slice)
    }

    /// Every query with what was returned for it, in the order of the query ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Retrieved])> {
        self.queries.iter().map(|(query, retrieved)| (query.as_str(), retrieved.as_slice()))
    }

    /// The number of queries.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }
}

/// One number for each query: what a metric gave, and what the tests of [`significance`](crate::significance) compare.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PerQuery(pub BTreeMap<String, f64>);

impl PerQuery {
    /// The mean over the queries; 0 if there are none.
    pub fn mean(&self) -> f64 {
        mean(self.0.values().copied())
    }
}

impl<S: Into<String>> FromIterator<(S, f64)> for PerQuery {
    fn from_iter<T: IntoIterator<Item = (S, f64)>>(values: T) -> Self {
        Self(values.into_iter().map(|(query, value)| (query.into(), value)).collect())
    }
}

/// The arithmetic mean; 0 for nothing at all.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}
