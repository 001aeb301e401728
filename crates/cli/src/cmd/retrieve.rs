use std::path::PathBuf;

use clap::Args;
use jointly_retrieve::{Hit, Index, Parameters};

use crate::Global;
use crate::collection;
use crate::error::{CliError, Result};
use crate::model;
use crate::output::Sink;

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
        Sink::check(self.output.as_deref(), self.force)?;
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
        let model = if self.by == By::Bm25 {
            None
        } else {
            Some(model::of_index((&self.index, &index), self.model.as_deref(), global)?)
        };

        let mut sink = Sink::open(self.output.as_deref(), self.force)?;
        let bar =
            model::bar(Some(queries.len() as u64), "[{bar:30}] {pos}/{len} queries, {eta} left", global);
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
}

/// The columns of a run are separated by white space.
fn writable(what: &str, id: &str) -> Result<()> {
    if id.is_empty() || id.contains(char::is_whitespace) {
        return Err(CliError::Input(format!(
            "{what} id {id:?} has white space in it, which a TREC run cannot hold"
        )));
    }
    Ok(())
}
