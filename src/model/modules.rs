//! The module folders of sentence-transformers: `modules.json` lists a transformer and what follows it.

use serde::Deserialize;

use super::Trunk;
use super::config::Config;
use super::head::{self, Head, Pooling};
use crate::error::Result;
use crate::files::ModelFiles;
use crate::nn::{Activation, LayerNorm, Linear};
use crate::weights::{Checkpoint, Scope, join};

const FILE: &str = "modules.json";

#[derive(Deserialize)]
struct Entry {
    path: String,
    r#type: String,
}

/// The list, and the files it speaks of.
pub(super) struct Modules {
    files: ModelFiles,
    entries: Vec<Entry>,
}

impl Entry {
    /// The class, without its module path: the path has changed between releases, the class has not.
    fn class(&self) -> &str {
        self.r#type.rsplit('.').next().unwrap_or(&self.r#type)
    }
}

impl Modules {
    /// Reads the list, if the folder has one.
    pub(super) fn read(files: &ModelFiles) -> Result<Option<Self>> {
        let entries: Option<Vec<Entry>> = files.optional_json(FILE)?;
        let Some(entries) = entries else { return Ok(None) };
        for entry in &entries {
            if entry.path.split('/').any(|part| part == "..") || entry.path.starts_with('/') {
                let problem = format!("{:?} leaves the model folder", entry.path);
                return Err(crate::Error::Config {
                    file: files.name_of(FILE),
                    field: "path".into(),
                    problem,
                });
            }
        }
        Ok(Some(Self { files: files.clone(), entries }))
    }

    /// The folder of the transformer, "" for the model's own.
    pub(super) fn trunk(&self) -> &str {
        self.entries.iter().find(|entry| entry.class() == "Transformer").map_or("", |entry| &entry.path)
    }

    /// The head that the modules after the transformer make; none if there are none, for then the transformer
    /// carries its own.
    pub(super) fn head(
        &self,
        trunk_config: &Config,
        root: &Scope<'_>,
        trunk: &dyn Trunk,
    ) -> Result<Option<Head>> {
        let Some(head) = self.layers(root, trunk)? else { return Ok(None) };
        match head.outputs(trunk.sizes().hidden) {
            1 => Ok(Some(head)),
            outputs => Err(root.no_score_head(format!(
                "the modules of {FILE} give {outputs} values a pair, not 1; this looks like a bi-encoder ({})",
                trunk_config.class().unwrap_or("no class stated")
            ))),
        }
    }

    /// Whether the pooling takes the tokens of a prompt in, which it does unless its configuration says otherwise.
    pub(super) fn pools_prompts(&self) -> Result<bool> {
        match self.entries.iter().find(|entry| entry.class() == "Pooling") {
            Some(entry) => {
                Config::read(&self.files, &join(&entry.path, "config.json"))?.flag_or("include_prompt", true)
            }
            None => Ok(true),
        }
    }

    /// What the modules after the transformer make of its hidden states; none if there are none.
    pub(super) fn layers(&self, root: &Scope<'_>, trunk: &dyn Trunk) -> Result<Option<Head>> {
        let mut head: Option<Head> = None;
        let mut features = trunk.sizes().hidden;
        for entry in self.entries.iter().filter(|entry| entry.class() != "Transformer") {
            let config = Config::read(&self.files, &join(&entry.path, "config.json"));
            match (entry.class(), head.take()) {
                ("LogitScore", None) => {
                    let config = config?;
                    let id =
                        |field: &str| -> Result<Option<u32>> { Ok(config.count(field)?.map(|id| id as u32)) };
                    let positive =
                        id("true_token_id")?.ok_or_else(|| config.error("true_token_id", "is missing"))?;
                    head = Some(head::answer(root, trunk, positive, id("false_token_id")?)?);
                    features = 1;
                }
                ("Pooling", None) => head = Some(Head::new(pooling(&config?)?)),
                ("Dense", Some(before)) => {
                    let config = config?;
                    let (inputs, outputs) = (config.size("in_features")?, config.size("out_features")?);
                    if inputs != features {
                        return Err(config
                            .error("in_features", format!("{inputs}; the layer before gives {features}")));
                    }
                    let activation = config.activation_or("activation_function", Activation::Tanh)?;
                    let checkpoint = Checkpoint::open(&self.files, &entry.path)?;
                    let scope = checkpoint.root(root.kernels()).in_form(root.form().clone()).at("linear");
                    head =
                        Some(before.dense(Linear::load_optional_bias(&scope, inputs, outputs)?, activation));
                    features = outputs;
                }
                ("LayerNorm", Some(before)) => {
                    let checkpoint = Checkpoint::open(&self.files, &entry.path)?;
                    let scope = checkpoint.root(root.kernels()).in_form(root.form().clone()).at("norm");
                    // PyTorch's default; the module's configuration does not state it.
                    head = Some(before.norm(LayerNorm::load(&scope, features, 1e-5)?));
                }
                ("Normalize", Some(before)) => head = Some(before.unit_length()),
                ("Dropout", before) => head = before,
                (class, _) => {
                    return Err(root.no_score_head(format!(
                        "{FILE} has {class} where a module is looked for that scores or embeds (LogitScore, or Pooling and \
                         what follows it)"
                    )));
                }
            }
        }
        Ok(head)
    }
}

fn pooling(config: &Config) -> Result<Pooling> {
    let modes = [
        ("cls", "pooling_mode_cls_token", Pooling::First),
        ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
        ("max", "pooling_mode_max_tokens", Pooling::Max),
        ("lasttoken", "pooling_mode_lasttoken", Pooling::Last),
    ];
    let stated = config.text_or("pooling_mode", "")?;
    let mut chosen = Vec::new();
    for (name, flag, pooling) in modes {
        if stated == name || (stated.is_empty() && config.flag_or(flag, false)?) {
            chosen.push(pooling);
        }
    }
    match chosen[..] {
        [pooling] => Ok(pooling),
        _ => Err(config.error("pooling_mode", "not exactly one of cls, mean, max and lasttoken")),
    }
}
