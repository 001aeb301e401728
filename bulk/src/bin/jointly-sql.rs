//! `jointly sql`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jointly_bulk::model::{Global, ModelArguments, ScoringArguments};
use jointly_bulk::score::Score;
use jointly_bulk::sql::Query;

const AFTER_HELP: &str = "\
Functions, each of a query and a document, which are text:
  rerank_score        the score on the scale of the model's authors
  rerank_logit        what the head gave: sort on this, a score near 1 makes ties
  rerank_probability  of a calibrated model
  rerank_span         the part of the document that scores best, read in windows: start, end (code points), text
  rerank              all of it: logit, score, probability, tokens, truncated, windows, span_start, span_end
A null document has no score (null); a null or empty query is an error.
Rank within a group:
  SELECT *, row_number() OVER (PARTITION BY query_id ORDER BY logit DESC) AS rank
  FROM (SELECT query_id, document_id, rerank_logit(query, document) AS logit FROM 'pairs.parquet')
Files: .parquet, .csv, .tsv, .jsonl, .ndjson, .json, and (but Parquet) with .gz, .zst, .bz2 or .xz behind; patterns with * ? [].";

/// Scores pairs by SQL over Parquet, CSV and JSON lines, here or on a cluster
#[derive(Parser)]
#[command(name = "jointly-sql", version, after_help = AFTER_HELP, arg_required_else_help = true, args_conflicts_with_subcommands = false, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(flatten)]
    query: Query,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    scoring: ScoringArguments,
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Score(ScoreArguments),
}

#[derive(clap::Args)]
struct ScoreArguments {
    #[command(flatten)]
    score: Score,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    scoring: ScoringArguments,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let global = arguments.global;
    if global.verbose {
        jointly_bulk::log_to_stderr(true);
    }
    jointly_bulk::main(jointly_bulk::interruptible(arguments.query.grace(), async move {
        match arguments.command {
            Some(Command::Score(arguments)) => {
                arguments.score.run(&arguments.model, &arguments.scoring, &global).await
            }
            None => arguments.query.run(&arguments.model, &arguments.scoring, &global).await,
        }
    }))
}
