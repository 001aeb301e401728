//! Bi-encoders: the folders of sentence-transformers whose modules end in a vector.

use std::collections::BTreeMap;

use jointly_kernels::Kernels;
use serde::Deserialize;

use super::config::Config;
use super::head::Head;
use super::modules::Modules;
use super::{Architecture, Trunk, chosen_max_length, own_max_length};
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::text::SingleEncoder;
use crate::weights::{Checkpoint, Form, join};

/// A loaded bi-encoder: everything but the threads that run it.
pub struct EmbeddingModel {
    /// The name of the architecture.
    pub architecture: &'static str,
    /// What turns a batch into hidden states.
    pub trunk: Box<dyn Trunk>,
    /// What turns those into one vector for each text.
    pub head: Head,
    /// What turns texts into token ids.
    pub text: SingleEncoder,
    /// What is written before a query, and before a document; empty if the model has no prompts.
    pub prompts: [String; 2],
}

#[derive(Default, Deserialize)]
struct Settings {
    #[serde(default)]
    prompts: BTreeMap<String, Option<String>>,
}

/// Loads a bi-encoder from its folder.
///
/// # Errors
/// Any [`Error`] of kind [`Model`](crate::ErrorKind::Model) or [`Io`](crate::ErrorKind::Io); a folder without modules
/// that make a vector of a text is [`Error::Config`].
pub fn load(
    files: &ModelFiles,
    kernels: &'static Kernels,
    form: Form,
    max_length: Option<usize>,
) -> Result<EmbeddingModel> {
    let not_one = |problem: String| Error::Config {
        file: files.name_of("modules.json"),
        field: "type".into(),
        problem: format!(
            "{problem}; a bi-encoder is a sentence-transformers folder with Transformer and Pooling"
        ),
    };
    let modules = Modules::read(files)?.ok_or_else(|| not_one("there is no such file".into()))?;
    let below = modules.trunk();
    let config = Config::read(files, &join(below, "config.json"))?;
    let architecture = Architecture::of(&config)?;
    let checkpoint = Checkpoint::open(files, below)?;
    let root = checkpoint.root(kernels).in_form(Form { device: form.device.clone(), ..Form::default() });
    let trunk = (architecture.load)(&config, &root.in_form(form))?;
    let head =
        modules.layers(&root, &*trunk)?.ok_or_else(|| not_one("nothing follows the transformer".into()))?;
    if head.outputs(trunk.sizes().hidden) == 1 {
        return Err(not_one("the modules give one value, which is a score and no vector".into()));
    }
    let settings: Settings = files.optional_json("config_sentence_transformers.json")?.unwrap_or_default();
    let prompt = |names: &[&str]| {
        names.iter().find_map(|name| settings.prompts.get(*name)?.clone()).unwrap_or_default()
    };
    let prompts = [prompt(&["query"]), prompt(&["document", "passage", "corpus"])];
    if prompts.iter().any(|prompt| !prompt.is_empty()) && !modules.pools_prompts()? {
        let problem = "false, but the folder has prompts: pooling without them is not implemented";
        return Err(Error::Config {
            file: files.name_of("modules.json"),
            field: "include_prompt".into(),
            problem: problem.into(),
        });
    }
    let max_length = chosen_max_length(max_length, own_max_length(files, below, &*trunk)?, &*trunk)?;
    let text = SingleEncoder::load(files, lowercase(files, below)?, max_length)?;
    Ok(EmbeddingModel { architecture: architecture.name, trunk, head, text, prompts })
}

/// Whether texts are put into lower case before they are tokenised, beside what the tokenizer does.
fn lowercase(files: &ModelFiles, below: &str) -> Result<bool> {
    for name in [join(below, "sentence_bert_config.json"), "sentence_bert_config.json".to_string()] {
        if files.exists(&name) {
            return Config::read(files, &name)?.flag_or("do_lower_case", false);
        }
    }
    Ok(false)
}
