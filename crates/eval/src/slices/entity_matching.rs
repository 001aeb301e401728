//! Records of shops that are or are not the same product, from the Magellan sets as Ditto (Li et al., 2020) writes them:
//! numbers and entities. `er_magellan/{Textual/Abt-Buy,Structured/Amazon-Google,Structured/Walmart-Amazon}/valid.txt`.
//!
//! A line holds two records and whether they are the same. The left record is the query, the right ones that it was
//! judged against are its pool. A record with only matches, or with none, is left out. `COL name VAL x` is written as
//! `name: x`, so that no ranker meets a syntax that it never saw.

use std::path::Path;

use super::{Items, candidate};
use crate::error::{Fault, Result};
use crate::format::Lines;
use crate::format::groups::Group;

const FILES: [&str; 3] = ["Textual/Abt-Buy", "Structured/Amazon-Google", "Structured/Walmart-Amazon"];

pub(super) fn read(folder: &Path) -> Result<Items> {
    let mut pools = Vec::new();
    for name in FILES {
        let mut lines = Lines::open(folder.join("er_magellan").join(name).join("valid.txt"))?;
        let mut groups: Vec<Group> = Vec::new();
        let mut places = std::collections::HashMap::new();
        lines.each(|number, line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [left, right, label] = columns[..] else {
                return Err(Fault::Columns {
                    found: columns.len(),
                    expected: "record, record, 0 or 1 (separated by tabs)",
                });
            };
            let is_same = match label.trim() {
                "0" => false,
                "1" => true,
                found => return Err(Fault::BadLabel { found: found.to_string() }),
            };
            let place = *places.entry(left.to_string()).or_insert_with(|| {
                groups.push(Group {
                    query_id: format!("{name}-{number}"),
                    query: plain(left),
                    documents: Vec::new(),
                });
                groups.len() - 1
            });
            groups[place].documents.push(candidate(format!("{name}-{number}"), &plain(right), is_same));
            Ok(())
        })?;
        let both = |group: &Group| {
            let same = group.documents.iter().filter(|document| document.label == Some(1)).count();
            0 < same && same < group.documents.len()
        };
        pools.extend(groups.into_iter().filter(both));
    }
    Ok(Items::Pools(pools))
}

/// `COL name VAL lamp COL price VAL ` as `name: lamp`.
fn plain(record: &str) -> String {
    let fields = record.split("COL ").filter_map(|field| field.split_once("VAL"));
    let fields =
        fields.map(|(name, value)| (name.trim(), value.trim())).filter(|(_, value)| !value.is_empty());
    fields.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    fn read_text(text: &str) -> Result<Items> {
        let paths = FILES.map(|name| format!("er_magellan/{name}/valid.txt"));
        let files: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), text)).collect();
        read(folder(&files).path())
    }

    #[test]
    fn lines_with_the_same_left_record_are_a_pool() {
        let text = "COL name VAL lamp x1 COL price VAL \tCOL name VAL lamp x2\t0\n\
                    COL name VAL cup\tCOL name VAL cup\t1\n\
                    COL name VAL lamp x1 COL price VAL \tCOL name VAL lamp x1 COL price VAL 3\t1\n";
        let Items::Pools(pools) = read_text(text).unwrap() else { panic!() };
        assert_eq!(pools.len(), FILES.len());
        assert_eq!(pools[0].query, "name: lamp x1");
        assert_eq!(pools[0].documents[1].text, "name: lamp x1; price: 3");
        assert_eq!(pools[0].documents[1].label, Some(1));
    }

    #[test]
    fn faults_name_file_and_line() {
        for (text, expected) in
            [("a\tb\t2", "valid.txt:1: the label is \"2\""), ("a\tb", "valid.txt:1: 2 columns")]
        {
            let error = read_text(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
