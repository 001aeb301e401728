mod sample;

use clap::{Args, Subcommand};

use crate::Global;
use crate::error::Result;

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
    Sample(sample::Sample),
}

impl Zelo {
    pub fn run(self, global: Global) -> Result<()> {
        match self.step {
            Step::Sample(sample) => sample.run(global),
        }
    }
}
