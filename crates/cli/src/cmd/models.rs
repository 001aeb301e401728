use std::path::{Path, PathBuf};

use clap::Args;
use jointly::LoadOptions;
use jointly_hub::HubOptions;
use serde::Serialize;
use serde_json::Value;

use super::inspect::Format;
use crate::Global;
use crate::error::Result;
use crate::model::{self, Found};
use crate::output::{Output, printable};

/// List the models at hand: the embedded one, and those in the hub's cache
#[derive(Args)]
pub struct Models {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// The names are part of the interface.
#[derive(Serialize)]
struct Entry {
    name: String,
    /// The commit.
    revision: Option<String>,
    /// Of the configuration; whether it can be scored with is seen when it is loaded.
    architecture: Option<String>,
    weights_bytes: Option<u64>,
    folder: Option<PathBuf>,
}

#[derive(Serialize)]
struct List {
    models: Vec<Entry>,
}

impl Models {
    pub fn run(self, global: Global) -> Result<()> {
        let mut models: Vec<Entry> = embedded(global)?.into_iter().collect();
        models.extend(cached(&HubOptions::from_env()?));
        let mut output = Output::new();
        if let Format::Json = self.format {
            output.json(&List { models })?;
            return output.flush();
        }
        let width = |text: &dyn Fn(&Entry) -> usize| models.iter().map(text).max().unwrap_or(0);
        let names = width(&|entry| entry.name.chars().count());
        let architectures =
            width(&|entry| entry.architecture.as_ref().map_or(1, |text| text.chars().count()));
        for entry in &models {
            let size =
                entry.weights_bytes.map_or_else(|| "-".into(), |bytes| format!("{} MB", bytes / 1_000_000));
            let folder = entry
                .folder
                .as_ref()
                .map_or_else(|| "embedded".into(), |folder| folder.display().to_string());
            output.line(format_args!(
                "{:<names$}  {:<architectures$}  {size:>9}  {}",
                printable(&entry.name),
                printable(entry.architecture.as_deref().unwrap_or("-")),
                printable(&folder),
            ))?;
        }
        output.flush()
    }
}

/// The embedded model, if this program has one.
fn embedded(global: Global) -> Result<Option<Entry>> {
    if !cfg!(feature = "default-model") {
        return Ok(None);
    }
    let model = Found::Embedded.load(LoadOptions::new().check_receipt(false), global)?;
    Ok(Some(Entry {
        name: model::DEFAULT.to_string(),
        revision: None,
        architecture: Some(model.info().architecture.to_string()),
        weights_bytes: model.files().map("model.safetensors").ok().map(|weights| weights.len() as u64),
        folder: None,
    }))
}

/// The whole snapshots in the cache. A cache that is not there holds none, and what is not a model is passed over.
fn cached(hub: &HubOptions) -> Vec<Entry> {
    let mut found = Vec::new();
    for repository in folders(hub.cache_dir_path()) {
        let name = repository.file_name().and_then(|name| name.to_str()?.strip_prefix("models--"));
        let Some(id) = name.and_then(|name| jointly_hub::parse_id(&name.replace("--", "/")).ok()) else {
            continue;
        };
        for snapshot in folders(&repository.join("snapshots")) {
            let Some(revision) = snapshot.file_name().and_then(|name| name.to_str()) else { continue };
            if !matches!(jointly_hub::cached(&id, Some(revision), hub), Ok(Some(_))) {
                continue;
            }
            let config = std::fs::read(snapshot.join("config.json")).unwrap_or_default();
            let config: Value = serde_json::from_slice(&config).unwrap_or_default();
            let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_string);
            found.push(Entry {
                name: id.as_str().to_string(),
                revision: Some(revision.to_string()),
                architecture: text(config.pointer("/architectures/0"))
                    .or_else(|| text(config.get("model_type"))),
                weights_bytes: Some(weights(&snapshot)),
                folder: Some(snapshot.clone()),
            });
        }
    }
    found
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    paths.sort();
    paths
}

/// Bytes of the safetensors of a folder.
fn weights(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let weights = entries.filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    weights.filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}
