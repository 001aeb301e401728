use std::path::{Path, PathBuf};

use clap::Args;
use jointly::LoadOptions;
use jointly::receipt::Receipt;
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
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
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
        self.check_output(folder)?;
        // As `verify` does.
        let uncached = Global { no_packed_cache: true, ..global };
        let loaded = found.load(LoadOptions::new().check_receipt(false), uncached)?;
        match Receipt::read(loaded.files())? {
            Some(receipt) => _ = receipt.verify(&loaded)?,
            None if global.quiet => {}
            None => {
                output::say(format_args!("{} has no receipt; `jointly verify --write` makes one", self.model))
            }
        }
        let summary = jointly_bundle::write(folder, &self.output, &meta)
            .map_err(|error| CliError::Failed(format!("{}: {error}", self.output.display())))?;
        let mut output = Output::new();
        let (file, bytes) = (self.output.display(), summary.bytes);
        output.line(format_args!("{file}: {} files, {bytes} bytes", summary.files))?;
        output.flush()
    }

    /// Refuses to write over what is there, and into the folder that is read.
    fn check_output(&self, folder: &Path) -> Result<()> {
        let output = self.output.display();
        if self.output.exists() && !self.force {
            return Err(CliError::Input(format!("{output} exists; --force replaces it")));
        }
        let into = match self.output.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let real = |path: &Path| std::fs::canonicalize(path).map_err(|error| CliError::open(path, &error));
        if real(into)?.starts_with(real(folder)?) {
            let problem = "lies in the model's folder; write the bundle somewhere else";
            return Err(CliError::Input(format!("{output} {problem}")));
        }
        Ok(())
    }
}
