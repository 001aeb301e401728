//! SciFact with antonyms, `queries_antonym.jsonl` and `corpus_antonym.jsonl`: negation and quantifiers.
//!
//! The queries come in twos that differ in one word and its opposite; what satisfies the one violates the other. That is
//! a contrast item as it stands.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::{Contrast, Items, read};
use crate::error::{Fault, Result};

#[derive(Deserialize)]
struct Document {
    doc_id: String,
    text: String,
}

#[derive(Deserialize)]
struct Query {
    query_id: String,
    query: String,
    constraint_satisfying_doc_ids: Vec<String>,
    constraint_violating_doc_ids: Vec<String>,
}

pub(super) fn read(folder: &Path) -> Result<Items> {
    let corpus = read::records::<Document>(&folder.join("corpus_antonym.jsonl"))?;
    let corpus: HashMap<String, String> = corpus.into_iter().map(|(_, d)| (d.doc_id, d.text)).collect();
    let path = folder.join("queries_antonym.jsonl");
    let queries = read::records::<Query>(&path)?;
    let mut contrasts = Vec::new();
    for two in queries.chunks(2) {
        let (line, first) = &two[0];
        let is_mirrored = |second: &Query| {
            first.constraint_satisfying_doc_ids == second.constraint_violating_doc_ids
                && first.constraint_violating_doc_ids == second.constraint_satisfying_doc_ids
        };
        let (Some(second), [yes], [no]) = (
            two.get(1).map(|(_, second)| second).filter(|second| is_mirrored(second)),
            first.constraint_satisfying_doc_ids.as_slice(),
            first.constraint_violating_doc_ids.as_slice(),
        ) else {
            let expected =
                "one document that satisfies and one that violates, and the next query's the other way round";
            return Err(read::at(
                &path,
                *line,
                Fault::BadField { field: "constraint_satisfying_doc_ids", expected },
            ));
        };
        let text = |id: &String| {
            let fault = || Fault::UnknownDocument { document: id.clone() };
            corpus.get(id).cloned().ok_or_else(|| read::at(&path, *line, fault()))
        };
        contrasts.push(Contrast {
            id: first.query_id.clone(),
            domain: String::new(),
            queries: [first.query.clone(), second.query.clone()],
            documents: [text(yes)?, text(no)?],
        });
    }
    Ok(Items::Contrasts(contrasts))
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    #[test]
    fn two_queries_are_an_item() {
        let query = |id: &str, yes: &str, no: &str| {
            format!(
                r#"{{"query_id": "{id}", "query": "{id}?", "constraint_satisfying_doc_ids": ["{yes}"], "constraint_violating_doc_ids": ["{no}"]}}"#
            )
        };
        let corpus = "{\"doc_id\": \"a\", \"text\": \"up\"}\n{\"doc_id\": \"b\", \"text\": \"down\"}";
        let read_with = |queries: &[String]| {
            let files =
                folder(&[("corpus_antonym.jsonl", corpus), ("queries_antonym.jsonl", &queries.join("\n"))]);
            read(files.path())
        };
        let Items::Contrasts(items) = read_with(&[query("1", "a", "b"), query("2", "b", "a")]).unwrap()
        else {
            panic!()
        };
        assert_eq!((items.len(), &items[0].documents), (1, &["up".to_string(), "down".to_string()]));
        for (queries, expected) in [
            (vec![query("1", "a", "b")], ":1: the field `constraint_satisfying_doc_ids`"),
            (
                vec![query("1", "a", "b"), query("2", "a", "b")],
                ":1: the field `constraint_satisfying_doc_ids`",
            ),
            (
                vec![query("1", "a", "c"), query("2", "c", "a")],
                ":1: document c is not in the folder's corpus",
            ),
        ] {
            let error = read_with(&queries).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
