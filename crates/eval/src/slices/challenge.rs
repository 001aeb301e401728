//! Our own set: `challenge/` of the repository, described in its README.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use super::{Contrast, Items, Slice, read};
use crate::error::{Error, Fault, Result};

/// The five slices of the set; a file `NAME.jsonl` for each.
pub const CHALLENGE: [&str; 5] =
    ["hard-negatives", "long-documents", "polysemy", "negation-and-quantifiers", "numbers-and-entities"];

/// The slice at which everybody should succeed, and against which an edge on the others is tested.
pub const CONTROL: &str = "easy-control";

/// A base text has some thousand words.
const MAX_BASE_BYTES: u64 = 1 << 20;

/// A line of a file. `slice`, `phenomenon` and `note` are for readers.
#[derive(Deserialize)]
struct Item {
    id: String,
    domain: String,
    queries: [String; 2],
    #[serde(flatten)]
    texts: Texts,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    Short {
        documents: [String; 2],
    },
    /// The paragraphs of `long-documents/bases/BASE.txt` with one of the passages after so many of them.
    Long {
        base: String,
        after: usize,
        passages: [String; 2],
    },
}

/// Reads the five slices of the challenge set and the control, in this order, from the folder `challenge/`.
///
/// # Errors
/// [`Error::Io`], [`Error::Line`] and [`Error::Empty`].
pub fn challenge(folder: impl AsRef<Path>) -> Result<Vec<Slice>> {
    CHALLENGE.iter().chain([&CONTROL]).map(|name| one(folder.as_ref(), name)).collect()
}

fn one(folder: &Path, name: &str) -> Result<Slice> {
    let path = folder.join(format!("{name}.jsonl"));
    let mut bases = HashMap::new();
    let mut seen = HashMap::new();
    let mut contrasts = Vec::new();
    for (line, item) in read::records::<Item>(&path)? {
        if let Some(first) = seen.insert(item.id.clone(), line) {
            return Err(read::at(&path, line, Fault::DuplicateId { id: item.id, first }));
        }
        let documents = match item.texts {
            Texts::Short { documents } => documents,
            Texts::Long { base, after, passages } => {
                if base.contains(['/', '\\', '.']) {
                    return Err(read::at(
                        &path,
                        line,
                        Fault::BadField { field: "base", expected: "a file's name without its ending" },
                    ));
                }
                if !bases.contains_key(&base) {
                    let file = folder.join("long-documents/bases").join(format!("{base}.txt"));
                    bases.insert(base.clone(), paragraphs(&file)?);
                }
                let paragraphs = &bases[&base];
                if after > paragraphs.len() {
                    return Err(read::at(
                        &path,
                        line,
                        Fault::BadField { field: "after", expected: "no more than the base has paragraphs" },
                    ));
                }
                passages.map(|passage| compose(paragraphs, after, passage))
            }
        };
        contrasts.push(Contrast { id: item.id, domain: item.domain, queries: item.queries, documents });
    }
    Ok(Slice::new(name, Items::Contrasts(contrasts)))
}

fn compose(paragraphs: &[String], after: usize, passage: String) -> String {
    let mut all = paragraphs.to_vec();
    all.insert(after, passage);
    all.join("\n\n")
}

/// The paragraphs of a base text: separated by blank lines.
fn paragraphs(path: &Path) -> Result<Vec<String>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let mut text = String::new();
    File::open(path).map_err(io)?.take(MAX_BASE_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_BASE_BYTES {
        return Err(read::at(path, 1, Fault::TooLong { limit: MAX_BASE_BYTES }));
    }
    let text = text.replace("\r\n", "\n");
    let paragraphs: Vec<String> =
        text.split("\n\n").map(str::trim).filter(|p| !p.is_empty()).map(str::to_string).collect();
    if paragraphs.is_empty() {
        return Err(Error::Empty { path: path.to_path_buf(), what: "paragraph" });
    }
    Ok(paragraphs)
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    const SHORT: &str = r#"{"id": "a", "slice": "polysemy", "domain": "law", "phenomenon": "", "queries": ["1", "2"], "documents": ["one", "two"], "note": ""}"#;
    const LONG: &str = r#"{"id": "b", "domain": "law", "queries": ["1", "2"], "base": "text", "after": 1, "passages": ["P", "Q"]}"#;

    #[test]
    fn short_and_long_items() {
        let folder = folder(&[
            ("s.jsonl", SHORT),
            ("l.jsonl", LONG),
            ("long-documents/bases/text.txt", "first\n\nsecond\r\n\r\nthird\n"),
        ]);
        let Items::Contrasts(short) = one(folder.path(), "s").unwrap().items else { panic!() };
        assert_eq!(short[0].documents, ["one", "two"]);
        let Items::Contrasts(long) = one(folder.path(), "l").unwrap().items else { panic!() };
        assert_eq!(long[0].documents[1], "first\n\nQ\n\nsecond\n\nthird");
    }

    #[test]
    fn faults_name_file_and_line() {
        let with = |text: &str, base: &str| {
            let folder = folder(&[("l.jsonl", text), ("long-documents/bases/text.txt", base)]);
            one(folder.path(), "l").unwrap_err().to_string()
        };
        for (error, expected) in [
            (with(&format!("{SHORT}\n{SHORT}"), "x"), "l.jsonl:2: id a stands in line 1 already"),
            (with(&LONG.replace("1,", "3,"), "x"), "l.jsonl:1: the field `after` is not no more than"),
            (with(&LONG.replace("text", "../text"), "x"), "l.jsonl:1: the field `base` is not a file's name"),
            (with(&LONG.replace("text", "other"), "x"), "other.txt: "),
            (with(LONG, "\n\n"), "text.txt: no paragraph in it"),
            (with("{}", "x"), "l.jsonl:1: missing field `id`"),
            (with("", "x"), "l.jsonl: no record in it"),
        ] {
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        }
    }
}
