//! NDCG@10 of the first stages of a TREC folder: `qrels.txt`, and the rankings in its `*.groups.jsonl`.
//!
//! ```text
//! cargo run -p jointly-eval --example ndcg -- FOLDER [NAME=VALUE]...
//! ```
//!
//! With `bm25=.5058` it also checks: a ranking that is missing, or has another value to as many digits, is an error.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jointly_eval::format::groups::{self, Group, Groups};
use jointly_eval::format::{Lines, trec};
use jointly_eval::{JudgeOptions, JudgedRun, Metric, Result};

const END: &str = ".groups.jsonl";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        eprintln!("usage: ndcg FOLDER [NAME=VALUE]...");
        return ExitCode::FAILURE;
    };
    let expected: Vec<String> = arguments.collect();
    match check(Path::new(&folder), &expected) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn check(folder: &Path, expected: &[String]) -> std::result::Result<(), String> {
    let expected: Vec<(&str, &str)> = expected
        .iter()
        .map(|text| text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE")))
        .collect::<std::result::Result<_, _>>()?;
    let mut found = Vec::new();
    for (name, path) in rankings(folder)? {
        let value = evaluate(folder, &name, &path).map_err(|error| error.to_string())?;
        found.push((name, value));
    }
    for (name, wanted) in expected {
        let Some((_, value)) = found.iter().find(|(found, _)| found == name) else {
            return Err(format!("{}: no {name}{END}", folder.display()));
        };
        let digits = wanted.split_once('.').map_or(0, |(_, digits)| digits.len());
        let wanted: f64 = wanted.parse().map_err(|_| format!("{name}={wanted}: not a number"))?;
        if format!("{value:.digits$}") != format!("{wanted:.digits$}") {
            return Err(format!("{name}: {value:.6}, expected {wanted}"));
        }
        println!("{name}: {wanted}, as expected");
    }
    Ok(())
}

/// The rankings of the folder, by name.
fn rankings(folder: &Path) -> std::result::Result<Vec<(String, PathBuf)>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(name) = name.strip_suffix(END) {
            found.push((name.to_string(), path.clone()));
        }
    }
    if found.is_empty() {
        return Err(format!("{}: no *{END} in it", folder.display()));
    }
    found.sort();
    Ok(found)
}

fn evaluate(folder: &Path, name: &str, path: &Path) -> Result<f64> {
    let qrels = trec::read_qrels(Lines::open(folder.join("qrels.txt"))?)?;
    let groups: Vec<Group> = Groups::new(Lines::open(path)?).collect::<Result<_>>()?;
    let judged = JudgedRun::new(&qrels, &groups::first_stage(&groups)?, JudgeOptions::new())?;
    let metric: Metric = "ndcg@10".parse()?;
    let (value, ties) = (judged.evaluate(metric)?.mean(), judged.ties(metric)?);
    println!(
        "{name}: {metric} {value:.4} on {} queries ({} of them missing); over tied orders {:.4} ({:.4} to {:.4})",
        qrels.len(),
        judged.missing().len(),
        ties.expected.mean(),
        ties.minimum.mean(),
        ties.maximum.mean(),
    );
    Ok(value)
}
