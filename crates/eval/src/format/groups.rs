//! Reranking pools: `*.groups.jsonl`, one line for each query with its candidates, their texts and what is known about
//! them.
//!
//! ```json
//! {"query_id": "1", "query": "…", "documents": [{"id": "d1", "text": "…", "first_stage_score": 15.78, "label": 2}]}
//! ```
//!
//! `label` is absent or `null` for a document that was not judged, `first_stage_score` where there is no first stage.
//! Other fields are ignored.

use std::collections::HashMap;

use serde::Deserialize;

use super::Lines;
use super::beir::text_or_number;
use super::rows::id;
use crate::data::{Label, Qrels, Retrieved, Run};
use crate::error::{Fault, Result};

/// A query with its candidates.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Group {
    /// The query's id.
    #[serde(deserialize_with = "text_or_number")]
    pub query_id: String,
    /// What is asked.
    pub query: String,
    /// The candidates, in the order of the file; at least one, none twice.
    pub documents: Vec<Candidate>,
}

/// A document of a [`Group`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Candidate {
    /// The document's id.
    #[serde(deserialize_with = "text_or_number")]
    pub id: String,
    /// Its text.
    pub text: String,
    /// What the first stage gave it. All documents of a group have one, or none has.
    #[serde(default)]
    pub first_stage_score: Option<f64>,
    /// How relevant it was judged to be; none if it was not judged.
    #[serde(default)]
    pub label: Option<Label>,
}

impl Group {
    /// The candidates as the first stage ranked them: with its scores, or, where it gave none, with scores that fall from
    /// the first candidate of the file to the last.
    pub fn first_stage(&self) -> Vec<Retrieved> {
        let by_place = |i: usize| (self.documents.len() - i) as f64;
        let retrieved = self.documents.iter().enumerate();
        retrieved
            .map(|(i, d)| Retrieved::new(&d.id, d.first_stage_score.unwrap_or_else(|| by_place(i))))
            .collect()
    }

    fn check(&self) -> std::result::Result<(), Fault> {
        id(&self.query_id, "query_id")?;
        if self.documents.is_empty() {
            return Err(Fault::EmptyColumn { column: "list of documents" });
        }
        let mut seen = std::collections::HashSet::new();
        let is_scored = |document: &Candidate| document.first_stage_score.is_some();
        let some_are_scored = self.documents.iter().any(is_scored);
        for document in &self.documents {
            id(&document.id, "document's id")?;
            if !seen.insert(&document.id) {
                return Err(Fault::CandidateTwice { document: document.id.clone() });
            }
            if some_are_scored && !is_scored(document) {
                return Err(Fault::SomeScoresMissing { document: document.id.clone() });
            }
        }
        Ok(())
    }
}

/// Reads groups one by one, so that a file may be larger than memory. After an error it gives nothing more.
#[derive(Debug)]
pub struct Groups {
    lines: Lines,
    seen: HashMap<String, u64>,
    is_done: bool,
}

impl Groups {
    /// Nothing is read yet.
    pub fn new(lines: Lines) -> Self {
        Self { lines, seen: HashMap::new(), is_done: false }
    }

    fn next_group(&mut self) -> Result<Option<Group>> {
        let Some((number, line)) = self.lines.next_line()? else {
            return if self.seen.is_empty() { Err(self.lines.empty("group")) } else { Ok(None) };
        };
        let group = serde_json::from_str(line).map_err(|source| Fault::Json { source });
        let group = group.and_then(|group: Group| group.check().map(|()| group));
        let group = group.and_then(|group| match self.seen.insert(group.query_id.clone(), number) {
            Some(first) => Err(Fault::DuplicateId { id: group.query_id, first }),
            None => Ok(group),
        });
        group.map(Some).map_err(|fault| self.lines.error(number, fault))
    }
}

impl Iterator for Groups {
    type Item = Result<Group>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = self.next_group().transpose();
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The judgements that stand in groups. They are those of the pool only: what was judged and not retrieved is missing from
/// the ideal ranking, so NDCG and recall come out higher than with the full judgements. Read those where there are any.
pub fn qrels<'a>(groups: impl IntoIterator<Item = &'a Group>) -> Qrels {
    let mut qrels = Qrels::new();
    for group in groups {
        for document in &group.documents {
            if let Some(label) = document.label {
                qrels.insert(&group.query_id, &document.id, label);
            }
        }
    }
    qrels
}

/// The run of the first stage.
///
/// # Errors
/// Those of [`Run::insert`], which groups that were read from a file cannot cause.
pub fn first_stage<'a>(groups: impl IntoIterator<Item = &'a Group>) -> Result<Run> {
    let mut run = Run::new();
    for group in groups {
        run.insert(&group.query_id, group.first_stage())?;
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(text: &str) -> Result<Vec<Group>> {
        Groups::new(Lines::new("file", std::io::Cursor::new(text.as_bytes().to_vec())).unwrap()).collect()
    }

    #[test]
    fn with_and_without_scores_and_labels() {
        let read = groups(concat!(
            r#"{"query_id": 1, "query": "?", "documents": [{"id": "a", "text": "x", "first_stage_score": 1.5, "label": 3}, {"id": "b", "text": "y", "first_stage_score": 2, "label": null}], "more": 1}"#,
            "\n",
            r#"{"query_id": "2", "query": "!", "documents": [{"id": "a", "text": "x"}, {"id": "b", "text": "y", "label": 0}]}"#,
        ))
        .unwrap();
        assert_eq!(read[0].query_id, "1");
        let (qrels, run) = (qrels(&read), first_stage(&read).unwrap());
        assert_eq!(qrels.get("1").unwrap().iter().collect::<Vec<_>>(), [(&"a".to_string(), &3)]);
        assert_eq!(qrels.get("2").unwrap().iter().collect::<Vec<_>>(), [(&"b".to_string(), &0)]);
        assert_eq!(run.get("1").unwrap(), [Retrieved::new("a", 1.5), Retrieved::new("b", 2.0)]);
        assert_eq!(run.get("2").unwrap(), [Retrieved::new("a", 2.0), Retrieved::new("b", 1.0)]);
    }

    #[test]
    fn faults_name_file_and_line() {
        let group =
            |documents: &str| format!(r#"{{"query_id": "q", "query": "?", "documents": [{documents}]}}"#);
        let good = group(r#"{"id": "a", "text": ""}"#);
        for (text, expected) in [
            (String::new(), "file: no group in it".to_string()),
            ("{".to_string(), "file:1: EOF while parsing an object at column 1".to_string()),
            (
                r#"{"query_id": "q", "query": "?"}"#.to_string(),
                "file:1: missing field `documents`".to_string(),
            ),
            (group(""), "file:1: the list of documents is empty".to_string()),
            (group(r#"{"id": " ", "text": ""}"#), "file:1: the document's id is empty".to_string()),
            (
                group(r#"{"id": "a", "text": ""}, {"id": "a", "text": ""}"#),
                "file:1: document a stands in the group twice".to_string(),
            ),
            (
                group(r#"{"id": "a", "text": "", "first_stage_score": 1}, {"id": "b", "text": ""}"#),
                "file:1: document b has no first_stage_score".to_string(),
            ),
            (
                group(r#"{"id": "a", "text": "", "first_stage_score": NaN}"#),
                "file:1: expected value at column".to_string(),
            ),
            (
                group(r#"{"id": "a", "text": "", "first_stage_score": 1e999}"#),
                "file:1: number out of range at column".to_string(),
            ),
            (
                group(r#"{"id": "a", "text": "", "label": 1.5}"#),
                "file:1: invalid type: floating point `1.5`, expected i8".to_string(),
            ),
            (format!("{good}\n{good}"), "file:2: id q stands in line 1 already".to_string()),
        ] {
            let error = groups(&text).unwrap_err().to_string();
            assert!(error.starts_with(&expected), "{error}\nexpected {expected}");
        }
    }

    #[test]
    fn nothing_comes_after_an_error() {
        let lines = Lines::new("file", std::io::Cursor::new(b"{\n{\n".to_vec())).unwrap();
        assert_eq!(Groups::new(lines).count(), 1);
    }
}
