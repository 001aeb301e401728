//! Lost in the middle (Liu et al., 2023), `kv-retrieval-75_keys.jsonl.gz`: long documents.
//!
//! A line is a list of 75 random keys and values, and one key that is asked for. Two neighbouring lines make a contrast
//! item: the documents are the two lists, each query names a key of one of them. The place of the key is random. The text
//! is not language and equal words suffice: it tests whether a ranker reads to the end, and nothing else.

use std::path::Path;

use serde::Deserialize;

use super::{Contrast, Items, read};
use crate::error::{Fault, Result};

#[derive(Deserialize)]
struct Row {
    ordered_kv_records: Vec<(String, String)>,
    key: String,
}

pub(super) fn read(folder: &Path) -> Result<Items> {
    let path = folder.join("kv-retrieval-75_keys.jsonl.gz");
    let rows: Vec<(u64, Row)> = read::records(&path)?;
    for (line, row) in &rows {
        if !row.ordered_kv_records.iter().any(|(key, _)| *key == row.key) {
            let fault = Fault::BadField { field: "key", expected: "one of the line's records" };
            return Err(read::at(&path, *line, fault));
        }
    }
    let text = |row: &Row| {
        let records = row.ordered_kv_records.iter();
        records.map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join("\n")
    };
    let pairs = rows.chunks_exact(2).filter_map(|pair| {
        let [(line, one), (_, two)] = pair else { return None };
        Some(Contrast {
            id: format!("line-{line}"),
            domain: String::new(),
            queries: [one, two].map(|row| format!("value of the key {}", row.key)),
            documents: [text(one), text(two)],
        })
    });
    Ok(Items::Contrasts(pairs.collect()))
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    #[test]
    fn two_lines_are_an_item() {
        let row =
            |key: &str| format!(r#"{{"ordered_kv_records": [["a", "1"], ["{key}", "2"]], "key": "{key}"}}"#);
        // Packed or not is seen from the content.
        let text = [row("b"), row("c"), row("d")].join("\n");
        let files = folder(&[("kv-retrieval-75_keys.jsonl.gz", &text)]);
        let Items::Contrasts(items) = read(files.path()).unwrap() else { panic!() };
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].queries[1], "value of the key c");
        assert_eq!(items[0].documents[1], "a: 1\nc: 2");
        let wrong = text.replace(r#""key": "c""#, r#""key": "x""#);
        let files = folder(&[("kv-retrieval-75_keys.jsonl.gz", &wrong)]);
        let error = read(files.path()).unwrap_err().to_string();
        assert!(error.contains(":2: the field `key` is not one of the line's records"), "{error}");
    }
}
