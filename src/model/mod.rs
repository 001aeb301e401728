//! Architectures: one file and one entry of [`ARCHITECTURES`] each.
//!
//! A model is a [`Trunk`] that turns a packed batch into hidden states, and a [`Head`] that turns those into one
//! logit a pair. Everything is read from the model folder: [`load`] needs no flags.

mod bert;
pub mod config;
mod deberta_v2;
mod decoder;
mod electra;
pub mod embedding;
mod encoder_layer;
pub mod head;
mod modernbert;
mod modules;
mod mpnet;
pub(crate) mod one_pass;
mod qwen2;
mod qwen3;
mod roberta;
mod xlm_roberta;

use jointly_kernels::Kernels;

use self::config::Config;
use self::head::Head;
use crate::batch::{Batch, Read};
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::nn::{Matrix, Run};
use crate::score::ScoreMap;
use crate::text::{TemplateKind, TextEncoder, Tokenizer};
use crate::weights::{Checkpoint, Dtype, Form, Scope, join};

/// Every architecture that is implemented.
pub static ARCHITECTURES: &[Architecture] = &[
    bert::ARCHITECTURE,
    electra::ARCHITECTURE,
    roberta::ARCHITECTURE,
    xlm_roberta::ARCHITECTURE,
    mpnet::ARCHITECTURE,
    deberta_v2::ARCHITECTURE,
    modernbert::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen3::ARCHITECTURE,
];

/// How to load one kind of model.
pub struct Architecture {
    /// Its name in the field.
    pub name: &'static str,
    /// The values of `model_type` in `config.json` that mean it.
    pub model_types: &'static [&'static str],
    load: fn(&Config, &Scope<'_>) -> Result<Box<dyn Trunk>>,
    head: fn(&Config, &Scope<'_>) -> Result<Head>,
}

impl Architecture {
    /// The one that a configuration names.
    fn of(config: &Config) -> Result<&'static Self> {
        let model_type = config.text_or("model_type", "")?;
        ARCHITECTURES
            .iter()
            .find(|architecture| architecture.model_types.contains(&model_type))
            .ok_or_else(|| unsupported(config, model_type))
    }
}

/// How large a network is.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Values per token.
    pub hidden: usize,
    /// The number of layers.
    pub layers: usize,
    /// The longest pair that the positions allow, in tokens.
    pub max_length: usize,
    /// The number of token ids.
    pub vocab: usize,
    /// The number of segment ids; 0 if segments are not distinguished.
    pub types: usize,
}

/// A network without its head: token ids to hidden states.
pub trait Trunk: Send + Sync {
    /// How large it is.
    fn sizes(&self) -> Sizes;
    /// The last hidden states that are `read`, `[rows, hidden_size]`, after the final norm where there is one.
    fn forward(&self, run: &mut Run<'_>, batch: &Batch, read: Read) -> Matrix;
    /// Whether what is computed for a token depends on those before it alone, so that pairs which begin alike can share it.
    fn is_causal(&self) -> bool {
        false
    }
}

/// A loaded model: everything but the threads that run it.
pub struct Model {
    /// The name of the architecture.
    pub architecture: &'static str,
    /// What turns a batch into hidden states.
    pub trunk: Box<dyn Trunk>,
    /// What turns hidden states into logits.
    pub head: Head,
    /// The name of the template that pairs are written in.
    pub template: &'static str,
    /// What turns texts into token ids.
    pub text: TextEncoder,
    /// What turns a logit into the score of the model's authors.
    pub score_map: ScoreMap,
    /// The number of values in the checkpoint.
    pub parameters: usize,
    /// The number format of most of them.
    pub dtype: Option<Dtype>,
    /// The longest pair, in tokens.
    pub max_length: usize,
    /// The same where nothing was asked for: what a receipt's logits were made with.
    pub own_max_length: usize,
}

/// Where no published limit is lower: the length that the authors of the decoder rerankers use.
const DEFAULT_MAX_LENGTH: usize = 8192;

/// Loads a model from its folder.
///
/// # Errors
/// Any [`Error`] of kind [`Model`](crate::ErrorKind::Model) or [`Io`](crate::ErrorKind::Io); a checkpoint without a
/// score head is [`Error::NoScoreHead`], never a head of random numbers.
pub fn load(
    files: &ModelFiles,
    kernels: &'static Kernels,
    form: Form,
    max_length: Option<usize>,
) -> Result<Model> {
    let modules = modules::Modules::read(files)?;
    let below = modules.as_ref().map_or("", |modules| modules.trunk());
    let config = Config::read(files, &join(below, "config.json"))?;
    let architecture = Architecture::of(&config)?;
    let checkpoint = Checkpoint::open(files, below)?;
    let root = checkpoint.root(kernels).in_form(Form { device: form.device.clone(), ..Form::default() });
    let template = TemplateKind::detect(files, config.value())?;
    let template_name = template.name();
    // Reading a tokenizer takes as long as packing the weights of a small model: side by side.
    let (trunk, tokenizer) = std::thread::scope(|scope| {
        let tokenizer = scope.spawn(|| Tokenizer::load(files, &template.written()));
        // The head stays in f32.
        let trunk = (architecture.load)(&config, &root.in_form(form));
        (trunk, tokenizer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (trunk, tokenizer) = (trunk?, tokenizer?);
    let answer_tokens = match &template {
        TemplateKind::Chat(chat) => chat.answer_tokens(),
        TemplateKind::Pair => None,
    };

    let own_max_length = own_max_length(files, below, &*trunk)?;
    let max_length = chosen_max_length(max_length, own_max_length, &*trunk)?;
    let text = TextEncoder::new(tokenizer, template, max_length.max(own_max_length))?;
    text.encode_query_within("", None, max_length)?; // is there room for the template?

    let class = config.class().unwrap_or("");
    let head = if let Some(head) = modules.as_ref().and_then(|m| m.head(&config, &root, &*trunk).transpose())
    {
        head?
    } else if class.ends_with("ForSequenceClassification") {
        if config.num_labels() != 1 {
            return Err(Error::LabelCount { file: config.file().to_string(), found: config.num_labels() });
        }
        (architecture.head)(&config, &root)?
    } else if class.ends_with("ForCausalLM") {
        let tokens = answer_tokens.ok_or_else(|| {
            root.no_score_head(
                "a language model whose answer tokens are not known; its folder states no LogitScore".into(),
            )
        })?;
        let id = |token: &str| {
            text.token_id(token)
                .ok_or_else(|| root.no_score_head(format!("the vocabulary lacks the answer {token:?}")))
        };
        let negative = tokens.negative.map(id).transpose()?;
        head::answer(&root, &*trunk, id(tokens.positive)?, negative)?
    } else {
        return Err(root.no_score_head(format!(
            "architectures is {class:?}; a reranker is a ForSequenceClassification with 1 label, a ForCausalLM with \
             known answer tokens, or a sentence-transformers folder with a score module"
        )));
    };
    let score_map = ScoreMap::read(files, &config)?;
    Ok(Model {
        architecture: architecture.name,
        trunk,
        head,
        template: template_name,
        text,
        score_map,
        parameters: checkpoint.parameters(),
        dtype: checkpoint.dtype(),
        max_length,
        own_max_length,
    })
}

/// The number of layers, which lie below `layers`. A checkpoint with more than its configuration states is refused: it
/// would be cut short in silence.
fn layer_count(config: &Config, layers: &Scope<'_>) -> Result<usize> {
    let count = config.size("num_hidden_layers")?;
    if layers.at(count).has_any() {
        let problem = format!("is {count}, but the checkpoint has a layer {count} too, counted from 0");
        return Err(config.error("num_hidden_layers", problem));
    }
    Ok(count)
}

fn unsupported(config: &Config, found: &str) -> Error {
    let known: Vec<&str> = ARCHITECTURES.iter().flat_map(|entry| entry.model_types).copied().collect();
    Error::UnsupportedArchitecture {
        file: config.file().to_string(),
        found: found.to_string(),
        known: known.join(", "),
    }
}

/// The longest pair where nothing is asked for.
fn own_max_length(files: &ModelFiles, below: &str, trunk: &dyn Trunk) -> Result<usize> {
    let published = published_max_length(files, below)?.unwrap_or(DEFAULT_MAX_LENGTH);
    Ok(published.min(trunk.sizes().max_length).min(DEFAULT_MAX_LENGTH))
}

/// What is asked for, if the model can read it.
fn chosen_max_length(asked: Option<usize>, own: usize, trunk: &dyn Trunk) -> Result<usize> {
    let longest = trunk.sizes().max_length;
    match asked {
        None => Ok(own),
        Some(length) if (1..=longest).contains(&length) => Ok(length),
        Some(length) => {
            let problem = format!("{length}; this model reads from 1 to {longest} tokens");
            Err(Error::InvalidOption { option: "max_length", problem })
        }
    }
}

/// The longest pair that the authors state beside the positions, if they do.
fn published_max_length(files: &ModelFiles, below: &str) -> Result<Option<usize>> {
    let mut limit = None;
    for (name, field) in
        [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")]
    {
        for name in [join(below, name), name.to_string()] {
            if !files.exists(&name) {
                continue;
            }
            let config = Config::read(files, &name)?;
            // "No limit" is written as a number beyond any integer.
            if let Some(length) = config.get(field).and_then(serde_json::Value::as_u64)
                && (1..1 << 22).contains(&length)
            {
                limit = Some(limit.unwrap_or(usize::MAX).min(length as usize));
            }
            break;
        }
    }
    Ok(limit)
}
