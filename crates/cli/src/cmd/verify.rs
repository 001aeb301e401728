use clap::Args;
use jointly::LoadOptions;
use jointly::files::ModelFiles;
use jointly::receipt::{self, Receipt};

use crate::Global;
use crate::error::{CliError, Result};
use crate::model;
use crate::output::{Output, say};

/// Check that a model gives the scores its receipt pins, and that its files are the ones it names
#[derive(Args)]
#[command(
    after_help = "A model without a receipt is checked as far as that can be done (finite scores, not all the same), and \
the exit status is 3."
)]
pub struct Verify {
    /// Folder, bundle, hub id, or `default`
    #[arg(default_value = model::DEFAULT)]
    model: String,
    /// Write a receipt for the model as it is now into its folder
    #[arg(long)]
    write: bool,
}

impl Verify {
    pub fn run(self, global: Global) -> Result<()> {
        // What is checked is the model, not what was made of it before.
        let global = Global { no_packed_cache: true, ..global };
        let model = model::load(&self.model, LoadOptions::new().check_receipt(false), global)?;
        let name = &model.info().source;
        let mut output = Output::new();
        if self.write {
            let ModelFiles::Folder(folder) = model.files() else {
                return Err(CliError::Input(format!(
                    "{name} is not a folder; a receipt can be written only into one"
                )));
            };
            // Whoever replaces a receipt should know that the model is no longer what the old one says.
            if let Ok(Some(before)) = Receipt::read(model.files())
                && let Err(problem) = before.verify(&model)
                && !global.quiet
            {
                say(format_args!("the receipt that is replaced did not hold: {problem}"));
            }
            let receipt = Receipt::make(&model)?;
            receipt.write(folder)?;
            output.line(format_args!(
                "{}: {} pairs and {} files pinned",
                folder.join(receipt::FILE).display(),
                receipt.pairs.len(),
                receipt.files.len()
            ))?;
            for trial in &receipt.tried {
                output.line(format_args!(
                    "{}: moves the pinned logits by up to {:.2} % of their range; {}",
                    trial.precision,
                    trial.max_shift * 100.0,
                    if trial.certified { "certified for --precision auto" } else { "not certified" }
                ))?;
            }
            return output.flush();
        }
        let Some(receipt) = Receipt::read(model.files())? else {
            let pairs = receipt::check_without_receipt(&model)?;
            return Err(CliError::NoReceipt(format!(
                "{name} has no receipt; its {pairs} trial scores are finite and differ (--write pins them)"
            )));
        };
        let report = receipt.verify(&model)?;
        output.line(format_args!(
            "{name}: {} pairs reproduced, largest difference {:.1e}; {} files have their hashes",
            report.pairs, report.max_difference, report.files
        ))?;
        output.flush()
    }
}
