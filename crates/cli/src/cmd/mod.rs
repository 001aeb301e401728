//! The subcommands: a file for each, and an entry of one list. The modules are named outside of the macro, where rustfmt sees them.

mod audit;
mod bench;
mod bundle;
mod calibrate;
mod completions;
mod eval;
mod index;
mod inspect;
mod mine;
mod models;
mod plan;
mod pull;
mod rerank;
mod retrieve;
mod score;
mod search;
mod serve;
mod slices;
mod sql;
mod train;
mod verify;
mod zelo;

use clap::Subcommand;

use crate::Global;
use crate::error::Result;

macro_rules! commands {
    ($($module:ident :: $name:ident),* $(,)?) => {
        #[derive(Subcommand)]
        pub enum Command {
            $($name($module::$name)),*
        }

        impl Command {
            pub fn run(self, global: Global) -> Result<()> {
                match self {
                    $(Self::$name(command) => command.run(global)),*
                }
            }
        }
    };
}

// In the order of the help.
commands! {
    rerank::Rerank,
    score::Score,
    sql::Sql,
    index::Index,
    retrieve::Retrieve,
    search::Search,
    serve::Serve,
    audit::Audit,
    calibrate::Calibrate,
    eval::Eval,
    slices::Slices,
    plan::Plan,
    mine::Mine,
    zelo::Zelo,
    train::Train,
    inspect::Inspect,
    verify::Verify,
    pull::Pull,
    models::Models,
    bundle::Bundle,
    bench::Bench,
    completions::Completions,
}
