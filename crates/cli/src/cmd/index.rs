use std::path::PathBuf;

use clap::Args;
use jointly::{LoadOptions, Precision};
use jointly_retrieve::{BuildOptions, Parameters, Progress};

use crate::Global;
use crate::collection;
use crate::error::Result;
use crate::model;
use crate::output::Output;

/// Make a collection searchable: `jointly retrieve` finds the candidates that a reranker sorts
#[derive(Args)]
#[command(after_help = "\
COLLECTION is a BEIR folder (its corpus.jsonl), JSON lines with `_id` or `id`, `text` and optional `title`, or TSV with id and
text; each also as .gz or .zst. Names say which, else a first line that begins with { means JSON lines. Title and text
are searched together. Or it is any other folder: then each text in it and below (.md, .txt, .rst and the like) is a document,
whose path is its id.
INDEX is a folder. It can be searched only when all of it is on disk: a build that is interrupted leaves an older index as
it was, and no new one; the same command begins anew and removes what was left.")]
pub struct Index {
    /// What to index
    #[arg(value_name = "COLLECTION")]
    collection: PathBuf,
    /// The folder to write
    #[arg(long, short, value_name = "INDEX")]
    output: PathBuf,
    /// Replace INDEX if it exists
    #[arg(long)]
    force: bool,
    /// Make vectors too, with this bi-encoder: a folder of sentence-transformers, a bundle of one, or a hub id
    #[arg(long, value_name = "MODEL")]
    dense: Option<String>,
    /// Longest text in tokens, for the vectors [default: the model's own maximum]
    #[arg(long, value_name = "N", requires = "dense")]
    max_length: Option<usize>,
    /// What the bi-encoder's layers multiply in
    #[arg(long, value_parser = model::precision(), default_value = "f32", requires = "dense")]
    precision: Precision,
    /// BM25: how soon another occurrence of a word counts for little
    #[arg(long, value_name = "X", default_value_t = Parameters::default().k1)]
    k1: f32,
    /// BM25: how much long documents are held back, from 0 to 1
    #[arg(long, value_name = "X", default_value_t = Parameters::default().b)]
    b: f32,
}

impl Index {
    pub fn run(self, global: Global) -> Result<()> {
        let bm25 = Parameters { k1: self.k1, b: self.b }.check()?;
        // What can be wrong at once is found before the collection is read.
        let model = match &self.dense {
            None => None,
            Some(name) => {
                let mut options = LoadOptions::new().precision(self.precision);
                if let Some(max_length) = self.max_length {
                    options = options.max_length(max_length);
                }
                let (files, name) = model::find_bi_encoder(name, global)?;
                Some((model::load_bi_encoder(files, options, global)?, name))
            }
        };
        let documents = collection::documents(&self.collection)?;
        let mut options = BuildOptions::new().bm25(bm25).threads(model::threads(global)).force(self.force);
        if let Some((model, name)) = &model {
            options = options.dense(model, name);
        }
        let bar =
            model::bar(Some(documents.len() as u64), "{msg} [{bar:30}] {pos}/{len}, {eta} left", global);
        jointly_retrieve::build(&self.output, &documents, options, &mut |progress| match progress {
            Progress::Postings(done) => {
                bar.set_message("words");
                bar.set_position(done as u64);
            }
            Progress::Vectors(done) => {
                if bar.message() != "vectors" {
                    bar.set_message("vectors");
                    bar.reset_eta();
                }
                bar.set_position(done as u64);
            }
            _ => bar.set_message("writing to disk"),
        })?;
        drop(bar);
        let vectors =
            model.map(|(model, _)| format!(", and their vectors of {} values", model.info().dimensions));
        let mut output = Output::new();
        let (path, count) = (self.output.display(), documents.len());
        output.line(format_args!("{path}: the words of {count} documents{}", vectors.unwrap_or_default()))?;
        output.flush()
    }
}
