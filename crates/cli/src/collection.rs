//! Collections and queries as people have them: a BEIR folder, JSON lines or TSV, plain, gzip or zstd.

use std::path::Path;

use jointly_eval::format::{Lines, beir, tsv};

use crate::error::{CliError, Result};

/// All documents, with title and text together.
pub fn documents(path: &Path) -> Result<Vec<jointly_retrieve::Document>> {
    let of_corpus = |corpus: Vec<beir::Document>| {
        let full = |document: beir::Document| {
            let text = document.full_text();
            jointly_retrieve::Document { id: document.id, text }
        };
        corpus.into_iter().map(full).collect()
    };
    Ok(if path.is_dir() {
        of_corpus(beir::Folder::new(path).corpus()?)
    } else if is_jsonl(path)? {
        of_corpus(beir::read_corpus(Lines::open(path)?)?)
    } else {
        let texts = tsv::read_texts(Lines::open(path)?)?;
        texts.into_iter().map(|(id, text)| jointly_retrieve::Document { id, text }).collect()
    })
}

/// All queries, each an id and a text, in the order of the file.
pub fn queries(path: &Path) -> Result<Vec<(String, String)>> {
    let of_file =
        |queries: Vec<beir::Query>| queries.into_iter().map(|query| (query.id, query.text)).collect();
    let queries: Vec<(String, String)> = if path.is_dir() {
        of_file(beir::Folder::new(path).queries()?)
    } else if is_jsonl(path)? {
        of_file(beir::read_queries(Lines::open(path)?)?)
    } else {
        tsv::read_texts(Lines::open(path)?)?
    };
    match queries.iter().find(|(_, text)| text.trim().is_empty()) {
        Some((id, _)) => Err(CliError::Input(format!("{}: query {id} is empty", path.display()))),
        None => Ok(queries),
    }
}

/// Whether a file holds JSON lines: its name says so, or that it is TSV, or else its first line begins with `{`.
fn is_jsonl(path: &Path) -> Result<bool> {
    let name = path.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    if name.ends_with(".jsonl") || name.ends_with(".ndjson") || name.ends_with(".tsv") {
        return Ok(!name.ends_with(".tsv"));
    }
    let mut lines = Lines::open(path)?;
    Ok(lines.next_line()?.is_some_and(|(_, line)| line.trim_start().starts_with('{')))
}
