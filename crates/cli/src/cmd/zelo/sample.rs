use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use jointly_train::zelo::sample::Sampler;
use jointly_train::zelo::votes::Pair;

use crate::Global;
use crate::error::{CliError, Result};
use crate::output::{Sink, say, to_json};
use crate::pool::{self, PoolArguments};

/// Choose the pairs of documents that judges are to compare
#[derive(Args)]
#[command(after_help = format!("\
{}
Output: JSON lines, `{{\"query\":\"q1\",\"a\":\"d3\",\"b\":\"d7\"}}`. The pairs of a query are those of --k / 2 cycles through its
documents in random order: N documents have N * K / 2 pairs, all are connected, and each is first and second equally often.
Pairs across queries have `query_b` as well; each document is judged for its own query.", pool::HELP))]
pub struct Sample {
    /// Queries with candidates, judged or not
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    pool: PoolArguments,
    /// Comparisons of each document within its query: an even number
    #[arg(long, value_name = "K", default_value = "8", value_parser = even)]
    k: usize,
    /// Comparisons of each query with others: an even number, or 0 for none
    #[arg(long, value_name = "K", default_value = "8", value_parser = even)]
    across: usize,
    /// The same seed gives the same pairs
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write here instead of to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output file if it exists
    #[arg(long, requires = "output")]
    force: bool,
}

/// A number of comparisons: two for each cycle.
pub(super) fn even(text: &str) -> std::result::Result<usize, String> {
    let value: usize = text.parse().map_err(|_| "not a whole number".to_string())?;
    if value.is_multiple_of(2) && value <= 1 << 20 {
        Ok(value)
    } else {
        Err("it must be even, for a cycle compares each twice".to_string())
    }
}

impl Sample {
    pub fn run(self, global: Global) -> Result<()> {
        let sampler = |k: usize| NonZeroUsize::new(k / 2).map(|cycles| Sampler::new(cycles, self.seed));
        let (within, across) = (sampler(self.k), sampler(self.across));
        if within.is_none() && across.is_none() {
            return Err(CliError::Input("--k 0 --across 0: that is no pair at all".into()));
        }
        let mut sink = Sink::open(self.output.as_deref(), self.force)?;
        let mut write = |pair: &Pair| sink.line(format_args!("{}", to_json(pair)?));
        // For pairs across queries; the texts are not kept.
        let mut ids: Vec<(String, Vec<String>)> = Vec::new();
        let (mut inside, mut outside) = (0, 0);
        self.pool.each(&self.data, |query| {
            let documents: Vec<String> = query.documents.into_iter().map(|document| document.id).collect();
            for pair in within.iter().flat_map(|sampler| sampler.within(&query.id, &documents)) {
                write(&pair)?;
                inside += 1;
            }
            ids.push((query.id, documents));
            Ok(())
        })?;
        if let Some(sampler) = across {
            let counts: Vec<usize> = ids.iter().map(|(_, documents)| documents.len()).collect();
            for pair in sampler.across(&counts) {
                let ((query, documents), (query_b, documents_b)) = (&ids[pair.a.0], &ids[pair.b.0]);
                write(&Pair {
                    query: query.clone(),
                    a: documents[pair.a.1].clone(),
                    query_b: Some(query_b.clone()),
                    b: documents_b[pair.b.1].clone(),
                })?;
                outside += 1;
            }
        }
        sink.finish()?;
        if !global.quiet {
            say(format_args!("{} queries: {inside} pairs within them, {outside} across", ids.len()));
        }
        if inside + outside == 0 {
            let problem = "no query has two documents, and there is no other query: nothing can be compared";
            return Err(CliError::Input(format!("{}: {problem}", self.data.display())));
        }
        Ok(())
    }
}
