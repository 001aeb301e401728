use std::path::PathBuf;

use clap::Args;
use jointly::LoadOptions;
use jointly::receipt::ReceiptState;
use jointly_bundle::Meta;

use crate::Global;
use crate::error::{CliError, Result};
use crate::model::{self, Found};
use crate::output::{self, Output};

/// Put a model into one file, for machines without a network
#[derive(Args)]
#[command(after_help = "A model that does not load, or whose receipt does not hold, is not bundled.")]
pub struct Bundle {
    /// Folder or hub id
    #[arg(value_name = "MODEL")]
    model: String,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

impl Bundle {
    pub fn run(self, global: Global) -> Result<()> {
        let found = model::find(&self.model, global)?;
        let created_with = format!("jointly {}", env!("CARGO_PKG_VERSION"));
        let (folder, meta) = match &found {
            Found::Embedded => {
                let problem = "the default model is in every program; there is nothing to bundle";
                return Err(CliError::Input(problem.into()));
            }
            Found::At(path) if path.is_file() => {
                let problem = "not a folder; is it a bundle already?";
                return Err(CliError::Input(format!("{}: {problem}", path.display())));
            }
            Found::At(folder) => {
                // The folder's name: where it lies on this machine is nobody else's business.
                let path = std::fs::canonicalize(folder).map_err(|error| CliError::open(folder, &error))?;
                let name = path.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
                (folder, Meta::new(name, created_with))
            }
            Found::Snapshot(folder) => {
                let meta = Meta::new(&self.model, created_with);
                match folder.file_name() {
                    Some(commit) => (folder, meta.revision(commit.to_string_lossy())),
                    None => (folder, meta),
                }
            }
        };
        let loaded = found.load(LoadOptions::new(), global)?;
        if loaded.info().receipt == ReceiptState::Absent && !global.quiet {
            output::say(format_args!("{} has no receipt; `jointly verify --write` makes one", self.model));
        }
        let summary = jointly_bundle::write(folder, &self.output, &meta)
            .map_err(|error| CliError::Failed(format!("{}: {error}", self.output.display())))?;
        let mut output = Output::new();
        let (file, bytes) = (self.output.display(), summary.bytes);
        output.line(format_args!("{file}: {} files, {bytes} bytes", summary.files))?;
        output.flush()
    }
}
