use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::Global;
use crate::error::Result;
use crate::output::Output;

/// Print the completions of a shell
#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self, _: Global) -> Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Arguments::command(), "jointly", &mut text);
        let mut output = Output::new();
        output.bytes(&text)?;
        output.flush()
    }
}
