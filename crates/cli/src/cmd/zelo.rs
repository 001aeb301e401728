mod fit;
mod sample;
mod simulate;
mod vote;

use clap::{Args, Subcommand};

use crate::Global;
use crate::error::{CliError, Result};

/// Make graded labels from pairwise votes: choose pairs, have them judged, fit scores
#[derive(Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Zelo {
    #[command(subcommand)]
    step: Step,
}

// In the order in which they are used.
#[derive(Subcommand)]
enum Step {
    Simulate(simulate::Simulate),
    Sample(sample::Sample),
    Vote(vote::Vote),
    Fit(fit::Fit),
}

impl Zelo {
    pub fn run(self, global: Global) -> Result<()> {
        match self.step {
            Step::Simulate(simulate) => simulate.run(global),
            Step::Sample(sample) => sample.run(global),
            Step::Vote(vote) => vote.run(global),
            Step::Fit(fit) => fit.run(global),
        }
    }
}

/// What is wrong with votes.
fn refused(error: jointly_train::zelo::Error) -> CliError {
    CliError::Input(error.to_string())
}

/// A finite number, at least 0.
fn at_least_0(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if value >= 0.0 && value.is_finite() { Ok(value) } else { Err("it must be at least 0".to_string()) }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Link {
    /// (1 + erf(z)) / 2
    Thurstone,
    /// 1 / (1 + exp(-z)); scores are about 2.3 times as large
    BradleyTerry,
}

impl Link {
    fn library(self) -> jointly_train::zelo::Link {
        match self {
            Self::Thurstone => jointly_train::zelo::Link::Thurstone,
            Self::BradleyTerry => jointly_train::zelo::Link::BradleyTerry,
        }
    }

    /// What turns a difference of scores into about the difference of logits: the ratio of the slopes at 0, or 1.
    fn logits(self) -> f64 {
        match self {
            Self::Thurstone => 4.0 / std::f64::consts::PI.sqrt(),
            Self::BradleyTerry => 1.0,
        }
    }
}
