//! Scores pieces of queries of a cluster.

use std::process::ExitCode;

use clap::Parser;
use jointly_bulk::cluster::Executor;
use jointly_bulk::model::{Global, ModelArguments};

/// Scores pieces of queries that `jointly sql --scheduler` gave to a scheduler, with one model
#[derive(Parser)]
#[command(name = "jointly-executor", version)]
struct Arguments {
    #[command(flatten)]
    executor: Executor,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    global: Global,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    jointly_bulk::log_to_stderr(arguments.global.verbose);
    jointly_bulk::main(async move { arguments.executor.run(&arguments.model, &arguments.global).await })
}
