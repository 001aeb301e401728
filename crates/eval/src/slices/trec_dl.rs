//! TREC Deep Learning, passages: hard negatives. `bm25.groups.jsonl` holds what BM25 ranked first, with the assessors'
//! grades from 0 to 3.
//!
//! The pool of a query keeps what was judged: grades 2 and 3 are relevant, as in the track's own binary measures, and
//! grade 0 is the hard negative: BM25 took it for an answer and an assessor did not. Grade 1 ("on the topic, no answer")
//! and unjudged documents are left out, since calling them wrong would be a guess. Queries that have no document of one
//! kind are left out as well.

use std::path::Path;

use super::{Items, candidate};
use crate::error::Result;
use crate::format::Lines;
use crate::format::groups::{Group, Groups};

pub(super) fn read(folder: &Path) -> Result<Items> {
    let mut pools = Vec::new();
    for group in Groups::new(Lines::open(folder.join("bm25.groups.jsonl"))?) {
        let Group { query_id, query, documents } = group?;
        let judged = documents.iter().filter(|document| matches!(document.label, Some(0 | 2 | 3)));
        let documents: Vec<_> =
            judged.map(|d| candidate(&d.id, &d.text, d.label.is_some_and(|label| label >= 2))).collect();
        let relevant = documents.iter().filter(|document| document.label == Some(1)).count();
        if 0 < relevant && relevant < documents.len() {
            pools.push(Group { query_id, query, documents });
        }
    }
    Ok(Items::Pools(pools))
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    #[test]
    fn only_what_was_judged_clearly() {
        let document = |id: &str, label: &str| format!(r#"{{"id": "{id}", "text": "t", "label": {label}}}"#);
        let group = |query: &str, documents: &[String]| {
            format!(r#"{{"query_id": "{query}", "query": "?", "documents": [{}]}}"#, documents.join(", "))
        };
        let text = [
            group("q", &[document("a", "3"), document("b", "1"), document("c", "0"), document("d", "null")]),
            group("none relevant", &[document("a", "1"), document("b", "0")]),
        ];
        let folder = folder(&[("bm25.groups.jsonl", &text.join("\n"))]);
        let Items::Pools(pools) = read(folder.path()).unwrap() else { panic!() };
        assert_eq!(pools.len(), 1);
        let labels: Vec<_> = pools[0].documents.iter().map(|d| (d.id.as_str(), d.label)).collect();
        assert_eq!(labels, [("a", Some(1)), ("c", Some(0))]);
    }
}
