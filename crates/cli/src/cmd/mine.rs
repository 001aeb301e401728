use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use jointly_eval::format::{Lines, beir, trec};
use jointly_eval::{Error, Qrels};
use jointly_train::mine::{self, Options};
use serde::Serialize;

use crate::Global;
use crate::error::{CliError, Result};
use crate::model;
use crate::output::{Output, Sink, to_json};

/// Put together the documents that queries are trained on: known ones, and hard ones that first stages found
#[derive(Args)]
#[command(after_help = "\
FOLDER is in BEIR's layout, with qrels/SPLIT.tsv. RUN is what `jointly retrieve` prints; N documents of it are taken for each
query, half of them from its first ones. Output: a pool (*.groups.jsonl), whose labels are 1 (known), 0 (not relevant) and
null (may be relevant: what the first RUN scores nearly as high as the known document, and all documents of queries
without a known one). `jointly zelo` grades them all; `jointly train` reads those with a label.")]
pub struct Mine {
    /// Collection, queries and known documents
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The split of the known documents [default: train; none is known in a folder without qrels]
    #[arg(long, value_name = "SPLIT")]
    split: Option<String>,
    /// What a first stage found, and how many documents of it to take; the first one is the guard. May be given again
    #[arg(long = "run", value_name = "RUN=N", required = true, value_parser = run_and_count)]
    runs: Vec<(PathBuf, usize)>,
    /// How many documents of a run are its first ones
    #[arg(long, value_name = "N", default_value_t = 12)]
    near: usize,
    /// Documents of the collection, at random
    #[arg(long, value_name = "N", default_value_t = 2)]
    random: usize,
    /// Share of the known document's score above which a document may be relevant
    #[arg(long, value_name = "X", default_value_t = 0.95)]
    guard: f64,
    /// Decides what is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The pool to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
}

fn run_and_count(text: &str) -> std::result::Result<(PathBuf, usize), String> {
    let (path, count) = text.rsplit_once('=').ok_or("write RUN=N, N documents of each query")?;
    let count = count.parse().map_err(|_| format!("{count:?} is not a number of documents"))?;
    Ok((path.into(), count))
}

#[derive(Serialize)]
struct Group<'a> {
    query_id: &'a str,
    query: &'a str,
    documents: Vec<Document<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    text: &'a str,
    label: Option<i8>,
}

impl Mine {
    pub fn run(self, global: Global) -> Result<()> {
        let path = &self.output;
        Sink::check(Some(path), self.force)?;
        let folder = beir::Folder::new(&self.folder);
        let split = self.split.as_deref().unwrap_or("train");
        let known = match folder.qrels(split) {
            Err(Error::MissingFile { name, .. }) if self.split.is_none() && !name.contains('/') => {
                Qrels::new()
            }
            known => known?,
        };
        let texts: HashMap<String, String> = folder
            .corpus()?
            .into_iter()
            .map(|document| (document.id.clone(), document.full_text()))
            .collect();
        let mut ids: Vec<String> = texts.keys().cloned().collect();
        ids.sort();
        let runs = self
            .runs
            .iter()
            .map(|(path, _)| trec::read_run(Lines::open(path)?))
            .collect::<jointly_eval::Result<Vec<_>>>()?;
        let options = Options {
            take: self.runs.iter().map(|(_, take)| *take).collect(),
            near: self.near,
            random: self.random,
            guard: self.guard,
            seed: self.seed,
        };
        let queries = folder.queries()?;
        let mut sink = Sink::open(Some(path), self.force)?;
        let bar =
            model::bar(Some(queries.len() as u64), "[{bar:30}] {pos}/{len} queries, {eta} left", global);
        let mut counts = [0; 3];
        for query in &queries {
            let mined = mine::mine(&query.id, &known, &runs, &ids, &options);
            let documents = mined.iter().map(|mined| {
                counts[mined.label.map_or(2, |label| label as usize)] += 1;
                let text = texts.get(&mined.document).ok_or_else(|| {
                    let (folder, document) = (self.folder.display(), &mined.document);
                    CliError::Input(format!(
                        "{folder}: its corpus has no document {document}, which a run or {split} names"
                    ))
                })?;
                Ok(Document { id: &mined.document, text, label: mined.label })
            });
            let documents = documents.collect::<Result<_>>()?;
            let group = Group { query_id: &query.id, query: &query.text, documents };
            sink.line(to_json(&group)?)?;
            bar.inc(1);
        }
        sink.finish()?;
        drop(bar);
        let mut output = Output::new();
        let [negative, positive, doubtful] = counts;
        output.line(format_args!(
            "{}: {} queries; {positive} known documents, {negative} others, {doubtful} that may be relevant",
            path.display(),
            queries.len()
        ))?;
        output.flush()
    }
}
