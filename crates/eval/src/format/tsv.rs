//! Columns separated by tabs, so that ids and texts may have spaces.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::Lines;
use super::rows::{Rows, columns, id, label, score};
use crate::data::{Label, Qrels, Run};
use crate::error::{Error, Fault, Result};
use crate::order::{ScoreWidth, ranking};

const QRELS: &str = "query-id, corpus-id, score (separated by tabs)";
const RUN_HEADER: &str = "query-id\tcorpus-id\tscore";
const TEXTS: &str = "id, text (separated by a tab)";
const QUERY_NAMES: [&str; 4] = ["query-id", "query_id", "qid", "q_id"];

/// Reads BEIR's judgements: query, document and label. The header is not required: it is known by its first column,
/// `query-id`.
///
/// # Errors
/// [`Error::Io`], [`Error::Line`] and [`Error::Empty`].
pub fn read_qrels(lines: Lines) -> Result<Qrels> {
    read_qrels_checked(lines, |_, _| Ok(()))
}

/// The same, with each query and document shown to `check`.
pub(super) fn read_qrels_checked(
    mut lines: Lines,
    check: impl Fn(&str, &str) -> std::result::Result<(), Fault>,
) -> Result<Qrels> {
    let mut rows = Rows::<String, Label>::new();
    let mut is_first = true;
    lines.each(|number, line| {
        let [query, document, value] = columns(line.split('\t'), QRELS)?;
        let is_header = std::mem::take(&mut is_first) && QUERY_NAMES.contains(&query);
        if !is_header {
            let (query, document) = (id(query, "query-id")?, id(document, "corpus-id")?);
            check(query, document)?;
            rows.push(number, query, document.to_string(), label(value.trim())?);
        }
        Ok(())
    })?;
    rows.into_qrels(&lines)
}

/// Reads a run: query, document and score, under the header `query-id corpus-id score`. The header is required: MS MARCO's
/// runs have three columns too, and in theirs the third is the rank, which would be read as a score upside down.
///
/// # Errors
/// [`Error::Io`], [`Error::Line`] and [`Error::Empty`].
pub fn read_run(mut lines: Lines) -> Result<Run> {
    let mut rows = Rows::new();
    let mut is_first = true;
    lines.each(|number, line| {
        let [query, document, value] = columns(line.split('\t'), QRELS)?;
        if std::mem::take(&mut is_first) {
            let known = QUERY_NAMES.contains(&query) && value == "score";
            return if known { Ok(()) } else { Err(Fault::Header { expected: QRELS }) };
        }
        let (query, document) = (id(query, "query-id")?, id(document, "corpus-id")?);
        rows.push(number, query, document.to_string(), score(value.trim())?);
        Ok(())
    })?;
    rows.into_run(&lines)
}

/// Writes a run that [`read_run`] reads, in trec_eval's order. For ids with spaces, which TREC's format cannot hold.
///
/// # Errors
/// [`Error::Unwritable`] for an empty id or one with a tab or line end; [`Error::Io`].
pub fn write_run(path: &Path, run: &Run) -> Result<()> {
    for (query, retrieved) in run.iter() {
        writable("query", query)?;
        retrieved.iter().try_for_each(|hit| writable("document", &hit.document))?;
    }
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{RUN_HEADER}")?;
        for (query, retrieved) in run.iter() {
            for hit in ranking(retrieved, ScoreWidth::F64) {
                writeln!(file, "{query}\t{}\t{}", hit.document, hit.score)?;
            }
        }
        file.flush()
    };
    write().map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

fn writable(what: &'static str, id: &str) -> Result<()> {
    if id.trim_ascii().is_empty() || id.contains(['\t', '\n', '\r']) {
        return Err(Error::Unwritable { what, id: id.to_string() });
    }
    Ok(())
}

/// Reads queries or documents as MS MARCO has them, id and text, in the order of the file. Tabs after the first belong to
/// the text.
///
/// # Errors
/// [`Error::Io`], [`Error::Line`] (also for an id that stands twice) and [`Error::Empty`].
pub fn read_texts(mut lines: Lines) -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    let mut seen = std::collections::HashMap::new();
    lines.each(|number, line| {
        let (name, text) = line.split_once('\t').ok_or(Fault::Columns { found: 1, expected: TEXTS })?;
        let name = id(name, "id")?;
        if let Some(first) = seen.insert(name.to_string(), number) {
            return Err(Fault::DuplicateId { id: name.to_string(), first });
        }
        texts.push((name.to_string(), text.to_string()));
        Ok(())
    })?;
    if texts.is_empty() { Err(lines.empty("text")) } else { Ok(texts) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Retrieved;

    fn lines(text: &str) -> Lines {
        Lines::new("file", std::io::Cursor::new(text.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn with_and_without_header() {
        let with = read_qrels(lines("query-id\tcorpus-id\tscore\nq 1\ta document\t2\n")).unwrap();
        assert_eq!(with, read_qrels(lines("q 1\ta document\t2\n")).unwrap());
        assert_eq!(with.get("q 1").unwrap()["a document"], 2);
    }

    #[test]
    fn texts() {
        let texts = read_texts(lines("1\twhat is it\n2\ta\tb\n3\t\n")).unwrap();
        assert_eq!(
            texts,
            [("1", "what is it"), ("2", "a\tb"), ("3", "")].map(|(i, t)| (i.to_string(), t.to_string()))
        );
    }

    #[test]
    fn faults_name_file_and_line() {
        let of_qrels = |text| read_qrels(lines(text)).unwrap_err().to_string();
        let of_run = |text| read_run(lines(text)).unwrap_err().to_string();
        let of_texts = |text| read_texts(lines(text)).unwrap_err().to_string();
        for (found, expected) in [
            (of_qrels("query-id\tcorpus-id\tscore\n"), "file: no judgement in it"),
            (
                of_qrels("q 0 d 1"),
                "file:1: 1 columns where there should be: query-id, corpus-id, score (separated by tabs)",
            ),
            (of_qrels("q\td\tscore"), "file:1: the label is \"score\""),
            (of_qrels("q\t\t1"), "file:1: the corpus-id is empty"),
            (of_qrels("q\td\t1\nquery-id\tcorpus-id\tscore"), "file:2: the label is \"score\""),
            (of_qrels("q\td\t1\nq\td\t0"), "file:2: document d stands under query q already, in line 1"),
            (of_run("q\td\t1\n"), "file:1: the header is not: query-id, corpus-id, score"),
            (of_run("qid\tpid\trank\nq\td\t1\n"), "file:1: the header is not: query-id, corpus-id, score"),
            (of_run("qid\tpid\tscore\nq\td\tNaN\n"), "file:2: the score is \"NaN\""),
            (of_run("qid\tpid\tscore\n"), "file: no retrieved document in it"),
            (of_texts("1 text"), "file:1: 1 columns where there should be: id, text"),
            (of_texts("1\ta\n\n1\tb"), "file:3: id 1 stands in line 1 already"),
            (of_texts(" \ta"), "file:1: the id is empty"),
            (of_texts(""), "file: no text in it"),
        ] {
            assert!(found.starts_with(expected), "{found}\nexpected {expected}");
        }
    }

    #[test]
    fn a_run_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.tsv");
        let mut run = Run::new();
        run.insert("q 1", vec![Retrieved::new("Geneva Durben", 0.1 + 0.2), Retrieved::new("b", -1e-7)])
            .unwrap();
        write_run(&path, &run).unwrap();
        assert_eq!(read_run(Lines::open(&path).unwrap()).unwrap(), run);
        run.insert("q\t1", vec![Retrieved::new("b", 1.0)]).unwrap();
        assert!(write_run(&path, &run).unwrap_err().to_string().contains("q\\t1"));
    }
}
