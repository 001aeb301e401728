//! `jointly`: the command line. Each subcommand is a file of `cmd/` and an entry of its list.

mod cache;
mod cascade;
mod cmd;
mod collection;
mod interrupt;
mod model;
mod output;
mod plot;
mod pool;
mod resume;

use std::process::ExitCode;

use clap::{Args, Parser};
use jointly_cli::{documents, error, input, pairs};

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    the model, a file or this machine failed
  2    the arguments or the input cannot be used; the message says where
  3    verify: the model has no receipt
  4    audit: the limits do not hold, or too few queries to tell; calibrate --check: the scores have drifted;
       plan: there is no cascade to write
  130  interrupted

Models are named by a folder in Hugging Face layout, a bundle, `default`, or a hub id (org/name): a path that exists, else
the hub's cache, else (unless HF_HUB_OFFLINE is set) the hub.
Converted weights are kept in jointly/packed in the user's cache folder, or in JOINTLY_PACKED_CACHE (`off`: nowhere), and
mapped at the next start; what lies there may be deleted at any time.
Environment: JOINTLY_ISA (scalar, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx, neon, neondot, neonbf16),
JOINTLY_PACKED_CACHE, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE, NO_COLOR.";

/// Reads a query and a document together and says how relevant the document is.
#[derive(Parser)]
#[command(name = "jointly", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: cmd::Command,
}

/// What every subcommand takes.
#[derive(Debug, Clone, Copy, Args)]
struct Global {
    /// Threads, 1 to 1024 [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = threads(), display_order = 900)]
    threads: Option<usize>,
    /// No progress bars and no notes on standard error; errors are still said
    #[arg(long, global = true, display_order = 901)]
    quiet: bool,
    /// Convert the weights of models at every start, and keep nothing on disk
    #[arg(long, global = true, display_order = 902)]
    no_packed_cache: bool,
}

/// More threads than any machine has cores are a slip, and may be more than it can start.
fn threads() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..=1024)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let handler = interrupt::set_handler();
    let result = match handler {
        Ok(()) => arguments.command.run(arguments.global),
        Err(error) => Err(error::CliError::Failed(format!("no handler for interruptions: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_closed_pipe() {
                output::say(&error);
            }
            error.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent_and_every_command_is_described() {
        let mut command = super::Arguments::command();
        command.build();
        command.clone().debug_assert();
        assert!(command.get_subcommands().count() >= 8);
        for command in command.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
