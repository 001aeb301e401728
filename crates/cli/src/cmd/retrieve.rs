use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use jointly::{BiEncoder, LoadOptions};
use jointly_retrieve::{Hit, Index, Parameters};

use crate::Global;
use crate::collection;
use crate::error::{CliError, Result};
use crate::model;
use crate::output::Output;

/// Queries that are answered together.
const BLOCK: usize = 256;

/// Find candidates in an index that `jointly index` made
#[derive(Args)]
#[command(after_help = "\
QUERIES is JSON lines with `_id` or `id` and `text`, TSV with id and text, or a BEIR folder (its queries.jsonl); each also as
.gz or .zst.
Output: a TREC run, `query Q0 document rank score tag`, the queries in the order of the file, the best document of each
first, equal ones in the order of the collection. bm25 gives only documents that share a word with the query.")]
pub struct Retrieve {
    /// The index
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// What is asked: a file
    #[arg(long, value_name = "QUERIES")]
    queries: Option<PathBuf>,
    /// What is asked: one query, whose id is 1
    #[arg(long, short, value_name = "TEXT", required_unless_present = "queries", conflicts_with = "queries")]
    query: Option<String>,
    /// Documents for each query
    #[arg(long, short, value_name = "N", default_value_t = 100)]
    k: usize,
    /// By words, by vectors, or by both (reciprocal rank fusion)
    #[arg(long, value_enum, default_value_t = By::Bm25)]
    by: By,
    /// Write here instead of to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output file if it exists
    #[arg(long, requires = "output")]
    force: bool,
    /// The bi-encoder, if it is no longer where it was when the index was made
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// BM25: how soon another occurrence of a word counts for little [default: as the index was made]
    #[arg(long, value_name = "X")]
    k1: Option<f32>,
    /// BM25: how much long documents are held back, from 0 to 1 [default: as the index was made]
    #[arg(long, value_name = "X")]
    b: Option<f32>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Bm25,
    Dense,
    Hybrid,
}

impl By {
    /// What the run says made it.
    fn tag(self) -> &'static str {
        match self {
            Self::Bm25 => "jointly-bm25",
            Self::Dense => "jointly-dense",
            Self::Hybrid => "jointly-hybrid",
        }
    }
}

impl Retrieve {
    pub fn run(self, global: Global) -> Result<()> {
        if let Some(output) = self.output.as_deref().filter(|output| output.exists() && !self.force) {
            return Err(CliError::Input(format!("{} exists; --force replaces it", output.display())));
        }
        let queries = match (&self.queries, &self.query) {
            (Some(path), _) => collection::queries(path)?,
            (None, Some(text)) if text.trim().is_empty() => return Err(jointly::Error::EmptyQuery.into()),
            (None, text) => vec![("1".to_string(), text.clone().unwrap_or_default())],
        };
        let index = Index::open(&self.index)?;
        queries.iter().try_for_each(|(id, _)| writable("query", id))?;
        (0..index.len() as u32).try_for_each(|document| writable("document", index.id(document)))?;
        let parameters = Parameters {
            k1: self.k1.unwrap_or(index.bm25_parameters().k1),
            b: self.b.unwrap_or(index.bm25_parameters().b),
        }
        .check()?;
        let model = if self.by == By::Bm25 { None } else { Some(self.bi_encoder(&index, global)?) };

        let mut sink = Sink::open(self.output.as_deref())?;
        let bar = model::bar(Some(queries.len() as u64), "[{bar:30}] {pos}/{len} queries, {eta} left", global);
        for block in queries.chunks(BLOCK) {
            let texts: Vec<&str> = block.iter().map(|(_, text)| text.as_str()).collect();
            let found = match &model {
                Some(model) if self.by == By::Hybrid => index.hybrid(&texts, parameters, model, self.k),
                Some(model) => index.dense(&texts, model, self.k),
                None => index.bm25(&texts, parameters, self.k, model::threads(global)),
            }?;
            for ((query, _), hits) in block.iter().zip(&found) {
                for (rank, Hit { document, score }) in (1..).zip(hits.iter().copied()) {
                    let (document, tag) = (index.id(document), self.by.tag());
                    sink.line(format_args!("{query} Q0 {document} {rank} {score} {tag}"))?;
                }
            }
            bar.inc(block.len() as u64);
        }
        sink.finish()
    }

    /// The model that made the index's vectors.
    fn bi_encoder(&self, index: &Index, global: Global) -> Result<BiEncoder> {
        let Some(made) = index.dense_info() else {
            return Err(jointly_retrieve::Error::NoVectors { path: self.index.clone() }.into());
        };
        let Some(precision) = made.precision() else {
            let (path, precision) = (self.index.display(), &made.precision);
            return Err(CliError::Failed(format!("{path}: its vectors were made in {precision}, which is unknown here")));
        };
        let options = LoadOptions::new().precision(precision).max_length(made.max_length);
        let name = self.model.as_ref().unwrap_or(&made.model);
        let (files, _) = model::find_bi_encoder(name, global)?;
        index.check_files(&files)?;
        let model = model::load_bi_encoder(files, options, global)?;
        index.check_model(&model)?;
        Ok(model)
    }
}

/// The columns of a run are separated by white space.
fn writable(what: &str, id: &str) -> Result<()> {
    if id.is_empty() || id.contains(char::is_whitespace) {
        return Err(CliError::Input(format!("{what} id {id:?} has white space in it, which a TREC run cannot hold")));
    }
    Ok(())
}

/// Where the run goes. A file appears under its name when it is whole.
enum Sink<'a> {
    Stdout(Output),
    File { file: BufWriter<File>, partial: PathBuf, output: &'a Path },
}

impl<'a> Sink<'a> {
    fn open(output: Option<&'a Path>) -> Result<Self> {
        let Some(output) = output else { return Ok(Self::Stdout(Output::new())) };
        let mut partial = output.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| CliError::file(&partial, &error))?;
        Ok(Self::File { file: BufWriter::new(file), partial, output })
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<()> {
        match self {
            Self::Stdout(output) => output.line(line),
            Self::File { file, partial, .. } => {
                writeln!(file, "{line}").map_err(|error| CliError::file(partial, &error))
            }
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut output) => output.flush(),
            Self::File { mut file, partial, output } => file
                .flush()
                .and_then(|()| file.get_ref().sync_all())
                .and_then(|()| fs::rename(&partial, output))
                .map_err(|error| CliError::file(output, &error)),
        }
    }
}
