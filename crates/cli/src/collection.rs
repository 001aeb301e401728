//! Collections and queries as people have them: a BEIR folder, JSON lines or TSV, plain, gzip or zstd; or a folder of texts.

use std::fs;
use std::path::{Path, PathBuf};

use jointly_eval::format::{Lines, beir, tsv};

use crate::error::{CliError, Result};
use crate::input;

/// What the name of a text ends in.
pub const TEXTS: [&str; 8] = ["md", "markdown", "txt", "text", "rst", "adoc", "org", "tex"];

/// All documents, with title and text together.
pub fn documents(path: &Path) -> Result<Vec<jointly_retrieve::Document>> {
    let of_corpus = |corpus: Vec<beir::Document>| {
        let full = |document: beir::Document| {
            let text = document.full_text();
            jointly_retrieve::Document { id: document.id, text }
        };
        corpus.into_iter().map(full).collect()
    };
    Ok(if is_text_folder(path) {
        let read = |file: PathBuf| {
            let id = file.strip_prefix(path).unwrap_or(&file).display().to_string();
            input::whole(&file).map(|text| jointly_retrieve::Document { id, text })
        };
        text_files(path)?.into_iter().map(read).collect::<Result<_>>()?
    } else if path.is_dir() {
        of_corpus(beir::Folder::new(path).corpus()?)
    } else if is_jsonl(path)? {
        of_corpus(beir::read_corpus(Lines::open(path)?)?)
    } else {
        let texts = tsv::read_texts(Lines::open(path)?)?;
        texts.into_iter().map(|(id, text)| jointly_retrieve::Document { id, text }).collect()
    })
}

/// Whether a folder is one of texts, and not one of BEIR.
pub fn is_text_folder(path: &Path) -> bool {
    let corpus = ["corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst"];
    path.is_dir() && !corpus.iter().any(|name| path.join(name).exists())
}

/// The texts of a folder and of the folders in it, by name, in the order of their paths. What begins with a dot, and links to
/// folders, are passed over.
pub fn text_files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let failed = |error| CliError::file(&folder, &error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let file = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if kind.is_dir() {
                folders.push(file);
            } else if file
                .extension()
                .is_some_and(|end| TEXTS.iter().any(|text| end.eq_ignore_ascii_case(text)))
                && file.is_file()
            {
                found.push(file);
            }
        }
    }
    if found.is_empty() {
        let ends = TEXTS.join(", .");
        let problem = format!(
            "no corpus.jsonl, plain, .gz or .zst, and no text (.{ends}) in this folder or those in it"
        );
        return Err(CliError::Input(format!("{}: {problem}", path.display())));
    }
    found.sort();
    Ok(found)
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
