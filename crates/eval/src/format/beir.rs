//! BEIR folders: `corpus.jsonl`, `queries.jsonl` and `qrels/SPLIT.tsv`, each also as `.gz` or `.zst`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::Lines;
use super::rows::{Rows, id};
use super::tsv;
use crate::data::{Label, Qrels};
use crate::error::{Error, Fault, Result};

/// A document of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Document {
    /// Its id.
    #[serde(rename = "_id", alias = "id", deserialize_with = "text_or_number")]
    pub id: String,
    /// Its title; empty where it has none.
    #[serde(default, deserialize_with = "or_empty")]
    pub title: String,
    /// Its text.
    pub text: String,
}

impl Document {
    /// Title and text with a space between, which is what BEIR's rankers read.
    pub fn full_text(&self) -> String {
        if self.title.is_empty() { self.text.clone() } else { format!("{} {}", self.title, self.text) }
    }
}

/// A query.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Query {
    /// Its id.
    #[serde(rename = "_id", alias = "id", deserialize_with = "text_or_number")]
    pub id: String,
    /// What is asked.
    pub text: String,
}

#[derive(Deserialize)]
struct Judgement {
    #[serde(rename = "query-id", deserialize_with = "text_or_number")]
    query: String,
    #[serde(rename = "corpus-id", deserialize_with = "text_or_number")]
    document: String,
    score: Label,
}

/// A collection whose parts fit together: every judgement is about a query and a document that are there.
#[derive(Debug, Clone)]
pub struct Collection {
    /// All documents, in the order of the file.
    pub corpus: Vec<Document>,
    /// The queries that the split judges, in the order of the file.
    pub queries: Vec<Query>,
    /// The split's judgements.
    pub qrels: Qrels,
}

/// A folder in BEIR's form.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The documents.
    ///
    /// # Errors
    /// [`Error::MissingFile`] and those of [`read_corpus`].
    pub fn corpus(&self) -> Result<Vec<Document>> {
        read_corpus(self.open(&["corpus.jsonl"])?)
    }

    /// The queries of all splits.
    ///
    /// # Errors
    /// [`Error::MissingFile`] and those of [`read_queries`].
    pub fn queries(&self) -> Result<Vec<Query>> {
        read_queries(self.open(&["queries.jsonl"])?)
    }

    /// The judgements of a split, from `qrels/SPLIT.tsv` or `qrels/SPLIT.jsonl`; or, in a folder that has no `qrels/`, the
    /// only ones there are, from `qrels.tsv` or `qrels.jsonl`. As in trec_eval, a judged document need not be in the
    /// corpus, and if it is relevant, no ranker can reach 1. [`load`](Self::load) refuses that.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], [`Error::Line`] and [`Error::Empty`].
    pub fn qrels(&self, split: &str) -> Result<Qrels> {
        self.qrels_checked(split, |_, _| Ok(()))
    }

    /// All of it, with the queries that the split judges.
    ///
    /// # Errors
    /// Those of the parts; and an [`Error::Line`] for a judgement about a query or a document that is not there.
    pub fn load(&self, split: &str) -> Result<Collection> {
        let (corpus, mut queries) = (self.corpus()?, self.queries()?);
        let documents: HashSet<&str> = corpus.iter().map(|document| document.id.as_str()).collect();
        let known: HashSet<&str> = queries.iter().map(|query| query.id.as_str()).collect();
        let qrels = self.qrels_checked(split, |query, document| {
            if !known.contains(query) {
                return Err(Fault::UnknownQuery { query: query.to_string() });
            }
            if !documents.contains(document) {
                return Err(Fault::UnknownDocument { document: document.to_string() });
            }
            Ok(())
        })?;
        queries.retain(|query| qrels.get(&query.id).is_some());
        Ok(Collection { corpus, queries, qrels })
    }

    fn qrels_checked(
        &self,
        split: &str,
        check: impl Fn(&str, &str) -> std::result::Result<(), Fault>,
    ) -> Result<Qrels> {
        let lines = if self.path.join("qrels").is_dir() {
            self.open(&[&format!("qrels/{split}.tsv"), &format!("qrels/{split}.jsonl")])?
        } else {
            self.open(&["qrels.tsv", "qrels.jsonl"])?
        };
        let name = lines.path().to_string_lossy();
        let is_jsonl = [".jsonl", ".jsonl.gz", ".jsonl.zst"].iter().any(|end| name.ends_with(end));
        if is_jsonl { read_jsonl_qrels(lines, check) } else { tsv::read_qrels_checked(lines, check) }
    }

    /// Opens the first of these files that is there, packed or not.
    fn open(&self, names: &[&str]) -> Result<Lines> {
        for name in names {
            for end in ["", ".gz", ".zst"] {
                let path = self.path.join(format!("{name}{end}"));
                if path.is_file() {
                    return Lines::open(path);
                }
            }
        }
        Err(Error::MissingFile { folder: self.path.clone(), name: names.join(" or ") })
    }
}

/// Reads a corpus: JSON lines with `_id` (or `id`), `text` and perhaps `title`.
///
/// # Errors
/// [`Error::Io`], [`Error::Line`] (also for an id that stands twice) and [`Error::Empty`].
pub fn read_corpus(lines: Lines) -> Result<Vec<Document>> {
    read_records(lines, "document", |document: &Document| &document.id)
}

/// Reads queries: JSON lines with `_id` (or `id`) and `text`.
///
/// # Errors
/// As [`read_corpus`].
pub fn read_queries(lines: Lines) -> Result<Vec<Query>> {
    read_records(lines, "query", |query: &Query| &query.id)
}

fn read_records<T: for<'a> Deserialize<'a>>(
    mut lines: Lines,
    what: &'static str,
    id_of: impl Fn(&T) -> &str,
) -> Result<Vec<T>> {
    let mut records = Vec::new();
    let mut seen = HashMap::new();
    lines.each(|number, line| {
        let record: T = serde_json::from_str(line).map_err(|source| Fault::Json { source })?;
        let name = id(id_of(&record), "_id")?;
        if let Some(first) = seen.insert(name.to_string(), number) {
            return Err(Fault::DuplicateId { id: name.to_string(), first });
        }
        records.push(record);
        Ok(())
    })?;
    if records.is_empty() { Err(lines.empty(what)) } else { Ok(records) }
}

fn read_jsonl_qrels(
    mut lines: Lines,
    check: impl Fn(&str, &str) -> std::result::Result<(), Fault>,
) -> Result<Qrels> {
    let mut rows = Rows::<String, Label>::new();
    lines.each(|number, line| {
        let judgement: Judgement = serde_json::from_str(line).map_err(|source| Fault::Json { source })?;
        let (query, document) = (id(&judgement.query, "query-id")?, id(&judgement.document, "corpus-id")?);
        check(query, document)?;
        rows.push(number, query, document.to_string(), judgement.score);
        Ok(())
    })?;
    rows.into_qrels(&lines)
}

/// An id: some sets write them as numbers.
pub(super) fn text_or_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an id is a text or a whole number")]
    enum Id {
        Text(String),
        Number(i64),
    }
    Ok(match Id::deserialize(deserializer)? {
        Id::Text(text) => text,
        Id::Number(number) => number.to_string(),
    })
}

/// A title can be `null`.
fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(folder.join("qrels")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    const CORPUS: (&str, &str) = (
        "corpus.jsonl",
        "{\"_id\": \"a b\", \"title\": null, \"text\": \"x\", \"metadata\": {}}\n{\"id\": 7, \"title\": \"T\", \"text\": \"y\"}\n",
    );
    const QUERIES: (&str, &str) =
        ("queries.jsonl", "{\"_id\": \"q1\", \"text\": \"?\"}\n{\"_id\": \"q2\", \"text\": \"!\"}\n");

    #[test]
    fn a_collection_that_fits_together() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[CORPUS, QUERIES, ("qrels/dev.tsv", "query-id\tcorpus-id\tscore\nq2\ta b\t1\nq2\t7\t0\n")],
        );
        let loaded = Folder::new(folder.path()).load("dev").unwrap();
        assert_eq!(loaded.corpus.iter().map(Document::full_text).collect::<Vec<_>>(), ["x", "T y"]);
        assert_eq!(loaded.corpus[1].id, "7");
        assert_eq!(loaded.queries, [Query { id: "q2".to_string(), text: "!".to_string() }]);
        assert_eq!(loaded.qrels.get("q2").unwrap().len(), 2);
    }

    #[test]
    fn without_splits_and_packed() {
        let folder = tempfile::tempdir().unwrap();
        let pack = |text: &str| {
            ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
        };
        std::fs::write(folder.path().join("corpus.jsonl.zst"), pack(CORPUS.1)).unwrap();
        std::fs::write(folder.path().join("queries.jsonl"), QUERIES.1).unwrap();
        std::fs::write(
            folder.path().join("qrels.jsonl.zst"),
            pack("{\"query-id\": \"q1\", \"corpus-id\": 7, \"score\": 2}\n"),
        )
        .unwrap();
        let loaded = Folder::new(folder.path()).load("test").unwrap();
        assert_eq!((loaded.corpus.len(), loaded.qrels.get("q1").unwrap()["7"]), (2, 2));
    }

    #[test]
    fn faults_name_file_and_line() {
        for (files, expected) in [
            (&[QUERIES][..], ": no corpus.jsonl, plain, .gz or .zst"),
            (&[CORPUS, QUERIES], ": no qrels/dev.tsv or qrels/dev.jsonl, plain, .gz or .zst"),
            (&[("corpus.jsonl", "{\"_id\": \"a\"}")], "corpus.jsonl:1: missing field `text` at column 12"),
            (
                &[("corpus.jsonl", "{\"_id\": \"a\", \"text\": 1}")],
                "corpus.jsonl:1: invalid type: integer `1`, expected a string at column",
            ),
            (
                &[("corpus.jsonl", "{\"_id\": 1.5, \"text\": \"\"}")],
                "corpus.jsonl:1: an id is a text or a whole number",
            ),
            (&[("corpus.jsonl", "{\"_id\": \"\", \"text\": \"\"}")], "corpus.jsonl:1: the _id is empty"),
            (&[("corpus.jsonl", "\n")], "corpus.jsonl: no document in it"),
            (
                &[("corpus.jsonl", "{\"_id\": \"a\", \"text\": \"\"}\n\n{\"_id\": \"a\", \"text\": \"\"}")],
                "corpus.jsonl:3: id a stands in line 1 already",
            ),
            (
                &[CORPUS, QUERIES, ("qrels/dev.tsv", "q1\t7\t1\nq3\t7\t1")],
                "dev.tsv:2: query q3 is not among the folder's queries",
            ),
            (
                &[CORPUS, QUERIES, ("qrels/dev.tsv", "q1\t7\t1\nq1\t8\t1")],
                "dev.tsv:2: document 8 is not in the folder's corpus",
            ),
            (
                &[
                    CORPUS,
                    QUERIES,
                    ("qrels/dev.jsonl", "{\"query-id\": \"q1\", \"corpus-id\": 7, \"score\": 300}"),
                ],
                "dev.jsonl:1: invalid value: integer `300`, expected i8 at column",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), files);
            let error = Folder::new(folder.path()).load("dev").unwrap_err().to_string();
            assert!(error.starts_with(&*folder.path().to_string_lossy()), "{error}");
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        }
    }

    #[test]
    fn judgements_alone_are_read_as_trec_eval_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[("qrels/dev.tsv", "q9\tunknown\t1\n")]);
        assert_eq!(Folder::new(folder.path()).qrels("dev").unwrap().len(), 1);
    }
}
