//! Hands out the pieces of queries to executors.

use std::process::ExitCode;

use clap::Parser;
use jointly_bulk::cluster::Scheduler;
use jointly_bulk::model::Global;

/// Hands out the pieces of queries of `jointly sql --scheduler` to executors
#[derive(Parser)]
#[command(name = "jointly-scheduler", version)]
struct Arguments {
    #[command(flatten)]
    scheduler: Scheduler,
    #[command(flatten)]
    global: Global,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    jointly_bulk::log_to_stderr(arguments.global.verbose);
    jointly_bulk::main(async move { arguments.scheduler.run(&arguments.global).await })
}
