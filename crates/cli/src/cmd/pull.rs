use clap::Args;
use jointly_hub::HubOptions;

use crate::Global;
use crate::error::Result;
use crate::model;
use crate::output::Output;

/// Fetch a model from the hub into its cache, and print the folder
#[derive(Args)]
pub struct Pull {
    /// Hub id, org/name
    #[arg(value_name = "HUB_ID")]
    id: String,
    /// Branch, tag or commit [default: main]
    #[arg(long, value_name = "R")]
    revision: Option<String>,
}

impl Pull {
    pub fn run(self, global: Global) -> Result<()> {
        let id = jointly_hub::parse_id(&self.id)?;
        let folder = model::pull(&id, self.revision.as_deref(), &HubOptions::from_env()?, global)?;
        let mut output = Output::new();
        output.line(folder.display())?;
        output.flush()
    }
}
