//! TREC's files: columns separated by white space.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::Lines;
use super::rows::{Rows, columns, label, score};
use crate::data::{Qrels, Run};
use crate::error::{Error, Result};
use crate::order::{ScoreWidth, ranking};

const QRELS: &str = "query, iteration, document, label";
const SUBTOPIC_QRELS: &str = "query, subtopic, document, label";
const RUN: &str = "query, Q0, document, rank, score, run tag";

/// Reads judgements: `query iteration document label`. What stands for the iteration does not matter.
///
/// # Errors
/// [`Error::Io`], [`Error::Line`] and [`Error::Empty`].
pub fn read_qrels(mut lines: Lines) -> Result<Qrels> {
    let mut rows = Rows::new();
    lines.each(|number, line| {
        let [query, _, document, value] = columns(line.split_ascii_whitespace(), QRELS)?;
        rows.push(number, query, document.to_string(), label(value)?);
        Ok(())
    })?;
    rows.into_qrels(&lines)
}

/// Reads judgements of subtopics (the diversity tasks of TREC Web): the second column names the subtopic, and a document
/// can have several.
///
/// # Errors
/// As [`read_qrels`].
pub fn read_subtopic_qrels(mut lines: Lines) -> Result<Qrels> {
    let mut rows = Rows::new();
    lines.each(|number, line| {
        let [query, subtopic, document, value] = columns(line.split_ascii_whitespace(), SUBTOPIC_QRELS)?;
        rows.push(number, query, (document.to_string(), subtopic.to_string()), label(value)?);
        Ok(())
    })?;
    rows.into_qrels(&lines)
}

/// Reads a run: `query Q0 document rank score tag`. As in trec_eval the score alone makes the order; the rank, which other
/// programs write from 0 or from 1 or not at all, is not read. Lines of a query need not stand together.
///
/// # Errors
/// [`Error::Io`], [`Error::Line`] and [`Error::Empty`].
pub fn read_run(mut lines: Lines) -> Result<Run> {
    let mut rows = Rows::new();
    lines.each(|number, line| {
        let [query, _, document, _, value, _] = columns(line.split_ascii_whitespace(), RUN)?;
        rows.push(number, query, document.to_string(), score(value)?);
        Ok(())
    })?;
    rows.into_run(&lines)
}

/// Writes a run, in trec_eval's order, with ranks from 1. Scores are written with all their digits.
///
/// # Errors
/// [`Error::Unwritable`] for an id or a tag with white space, which no reader could read back; [`Error::Io`].
pub fn write_run(path: &Path, run: &Run, tag: &str) -> Result<()> {
    writable("run tag", tag)?;
    for (query, retrieved) in run.iter() {
        writable("query", query)?;
        retrieved.iter().try_for_each(|hit| writable("document", &hit.document))?;
    }
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        for (query, retrieved) in run.iter() {
            for (i, hit) in ranking(retrieved, ScoreWidth::F64).into_iter().enumerate() {
                writeln!(file, "{query} Q0 {} {} {} {tag}", hit.document, i + 1, hit.score)?;
            }
        }
        file.flush()
    };
    write().map_err(|source| Error::Io { path: path.to_path_buf(), source })
}

fn writable(what: &'static str, id: &str) -> Result<()> {
    if id.is_empty() || id.contains(char::is_whitespace) {
        return Err(Error::Unwritable { what, id: id.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Retrieved;

    fn lines(text: &str) -> Lines {
        Lines::new("file", std::io::Cursor::new(text.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn columns_and_order() {
        let qrels = read_qrels(lines("q2 0 d1 1\nq1\t0\td1\t-1\n  q1 Q0 d\u{e9} 3  \n")).unwrap();
        assert_eq!(
            qrels.iter().map(|(query, labels)| (query, labels.len())).collect::<Vec<_>>(),
            [("q1", 2), ("q2", 1)]
        );
        assert_eq!(qrels.get("q1").unwrap()["d1"], -1);
        // Interleaved queries, equal ranks, a rank that is no number.
        let run =
            read_run(lines("q1 Q0 a 1 1.5 t\nq2 Q0 a 1 -1e-3 t\nq1 Q0 b 1 2 t\nq1 Q0 c - +3 t\n")).unwrap();
        assert_eq!(
            run.get("q1").unwrap(),
            [("a", 1.5), ("b", 2.0), ("c", 3.0)].map(|(d, s)| Retrieved::new(d, s))
        );
        assert_eq!(run.get("q2").unwrap(), [Retrieved::new("a", -1e-3)]);
    }

    #[test]
    fn a_document_has_the_highest_label_of_its_subtopics() {
        let qrels = read_subtopic_qrels(lines("q 1 d1 0\nq 2 d1 2\nq 1 d2 1\n")).unwrap();
        assert_eq!(qrels.get("q").unwrap()["d1"], 2);
        assert_eq!(qrels.subtopics("q").unwrap()["d1"].len(), 2);
        let error = read_subtopic_qrels(lines("q 1 d1 0\nq 1 d1 2\n")).unwrap_err().to_string();
        assert_eq!(error, "file:2: document d1 stands under query q already, in line 1");
        let error = read_subtopic_qrels(lines("q 1 d1 0\nq d1 2\n")).unwrap_err().to_string();
        assert!(
            error.starts_with("file:2: 3 columns where there should be: query, subtopic, document, label"),
            "{error}"
        );
    }

    #[test]
    fn faults_name_file_and_line() {
        let of_qrels = |text| read_qrels(lines(text)).unwrap_err().to_string();
        let of_run = |text| read_run(lines(text)).unwrap_err().to_string();
        for (found, expected) in [
            (of_qrels(""), "file: no judgement in it"),
            (of_qrels("\n \n"), "file: no judgement in it"),
            (
                of_qrels("q 0 d 1\nq 0 e"),
                "file:2: 3 columns where there should be: query, iteration, document, label",
            ),
            (of_qrels("q 0 a b 1"), "file:1: 5 columns"),
            (of_qrels("q 0 d 1.0"), "file:1: the label is \"1.0\"; a label is a whole number"),
            (of_qrels("q 0 d 128"), "file:1: the label is \"128\""),
            (of_qrels("\nq 0 d 1\n\nq 0 d 1"), "file:4: document d stands under query q already, in line 2"),
            (of_run(""), "file: no retrieved document in it"),
            (
                of_run("q Q0 d 1 2.5"),
                "file:1: 5 columns where there should be: query, Q0, document, rank, score, run tag",
            ),
            (of_run("q Q0 a document 1 2.5 t"), "file:1: 7 columns"),
            (of_run("q Q0 d 1 NaN t"), "file:1: the score is \"NaN\"; a score is a finite number"),
            (of_run("q Q0 d 1 -inf t"), "file:1: the score is \"-inf\""),
            (of_run("q Q0 d 1 1e999 t"), "file:1: the score is \"1e999\""),
            (of_run("q Q0 d 1 x t"), "file:1: the score is \"x\""),
            (
                of_run("q Q0 d 1 2 t\np Q0 d 1 2 t\nq Q0 e 2 2 t\nq Q0 d 3 1 t\nq Q0 e 2 1 t"),
                "file:4: document d stands under query q already, in line 1",
            ),
        ] {
            assert!(found.starts_with(expected), "{found}\nexpected {expected}");
        }
    }

    #[test]
    fn a_run_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.txt");
        let mut run = Run::new();
        let scores = [0.1 + 0.2, 1e-300, -7.0, f64::from(0.1_f32), 123_456_789.123_456_78];
        run.insert(
            "q",
            scores.iter().enumerate().map(|(i, s)| Retrieved::new(format!("d{i}"), *s)).collect(),
        )
        .unwrap();
        write_run(&path, &run, "tag").unwrap();
        let read = read_run(Lines::open(&path).unwrap()).unwrap();
        assert_eq!(
            ranking(run.get("q").unwrap(), ScoreWidth::F64),
            read.get("q").unwrap().iter().collect::<Vec<_>>()
        );

        let error = write_run(&path, &run, "my run").unwrap_err().to_string();
        assert!(error.contains("\"my run\""), "{error}");
        run.insert("q", vec![Retrieved::new("Geneva Durben", 1.0)]).unwrap();
        let error = write_run(&path, &run, "tag").unwrap_err().to_string();
        assert!(error.contains("\"Geneva Durben\""), "{error}");
    }
}
