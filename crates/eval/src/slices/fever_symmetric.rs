//! FEVER-symmetric (Schuster et al., 2019), `fever_symmetric_dev.jsonl`: hard negatives.
//!
//! Two claims and two pieces of evidence belong together: each claim is supported by one of them and refuted by the
//! other. That is a contrast item as it stands; "wants" means "is supported by". A claim without such a partner is left
//! out.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;

use super::{Contrast, Items, read};
use crate::error::{Fault, Result};

#[derive(Deserialize)]
struct Row {
    claim: String,
    evidence: String,
    gold_label: String,
}

pub(super) fn read(folder: &Path) -> Result<Items> {
    let path = folder.join("fever_symmetric_dev.jsonl");
    let mut supporting = HashMap::new();
    let mut refuting: HashMap<String, String> = HashMap::new();
    let mut claims: BTreeMap<u64, String> = BTreeMap::new();
    for (line, row) in read::records::<Row>(&path)? {
        match row.gold_label.as_str() {
            "SUPPORTS" => {
                claims.insert(line, row.claim.clone());
                supporting.insert(row.claim, row.evidence)
            }
            "REFUTES" => refuting.insert(row.claim, row.evidence),
            _ => {
                let fault = Fault::BadField { field: "gold_label", expected: "SUPPORTS or REFUTES" };
                return Err(read::at(&path, line, fault));
            }
        };
    }
    // Claims by what supports and what refutes them. The first claim of a kind in the file stands for all of its kind.
    let mut by_evidence: HashMap<(&String, &String), (u64, &String)> = HashMap::new();
    for (line, claim) in &claims {
        if let (Some(yes), Some(no)) = (supporting.get(claim), refuting.get(claim)) {
            by_evidence.entry((yes, no)).or_insert((*line, claim));
        }
    }
    let mut contrasts: Vec<(u64, Contrast)> = Vec::new();
    for (&(yes, no), &(line, claim)) in &by_evidence {
        let Some(&(other_line, other)) = by_evidence.get(&(no, yes)) else { continue };
        if line < other_line {
            let queries = [claim.clone(), other.clone()];
            let documents = [yes.clone(), no.clone()];
            contrasts.push((
                line,
                Contrast { id: format!("line-{line}"), domain: String::new(), queries, documents },
            ));
        }
    }
    contrasts.sort_by_key(|(line, _)| *line);
    Ok(Items::Contrasts(contrasts.into_iter().map(|(_, contrast)| contrast).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    fn row(claim: &str, evidence: &str, label: &str) -> String {
        format!(r#"{{"claim": "{claim}", "evidence": "{evidence}", "gold_label": "{label}"}}"#)
    }

    #[test]
    fn four_rows_are_one_item() {
        let rows = [
            row("it was red", "painted red", "SUPPORTS"),
            row("it was blue", "painted red", "REFUTES"),
            row("it was blue", "painted blue", "SUPPORTS"),
            row("it was red", "painted blue", "REFUTES"),
            row("alone", "painted blue", "SUPPORTS"),
        ];
        let files = folder(&[("fever_symmetric_dev.jsonl", &rows.join("\n"))]);
        let Items::Contrasts(items) = read(files.path()).unwrap() else { panic!() };
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].queries, ["it was red", "it was blue"]);
        assert_eq!(items[0].documents, ["painted red", "painted blue"]);
        let files = folder(&[("fever_symmetric_dev.jsonl", &row("a", "b", "MAYBE"))]);
        let error = read(files.path()).unwrap_err().to_string();
        assert!(error.contains("dev.jsonl:1: the field `gold_label` is not SUPPORTS or REFUTES"), "{error}");
    }
}
