//! Model folders: what training begins with and what it leaves behind, in Hugging Face layout.

use std::fs;
use std::path::Path;

use half::f16;
use jointly::files::ModelFiles;
use jointly::model::config::Config;
use jointly::text::{TemplateKind, TextEncoder};
use jointly::weights::Checkpoint;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::network::{self, Network};
use crate::parameters::Parameters;

/// Files of a tokenizer, in whatever form.
const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "sentencepiece.bpe.model",
];

/// A model that can be trained.
pub struct Trainable {
    /// Its forward pass.
    pub network: Box<dyn Network>,
    /// Its values.
    pub parameters: Parameters,
    /// What writes its pairs.
    pub text: TextEncoder,
    files: ModelFiles,
    config: Config,
    class: &'static str,
}

/// The number format of saved weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// IEEE half precision.
    F16,
    /// As trained.
    F32,
}

impl WeightFormat {
    /// PyTorch's name.
    fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }
}

impl Trainable {
    /// Reads a model folder: a cross-encoder, or an encoder without a head, which gets a random one from `seed`. Pairs are at most
    /// `max_length` tokens long.
    ///
    /// # Errors
    /// What `jointly` says of the folder; [`Error::Architecture`] for a model that cannot be trained.
    pub fn open(folder: &Path, max_length: usize, seed: u64) -> Result<Self> {
        let files = ModelFiles::open(folder)?;
        let config = Config::read(&files, "config.json")?;
        let checkpoint = Checkpoint::open(&files, "")?;
        let (network, parameters, class) = network::build(&config, &checkpoint, seed)?;
        let positions = config.size("max_position_embeddings")?.saturating_sub(network.first_position());
        if max_length > positions {
            let problem = format!("{max_length}, but the model has positions for {positions} tokens");
            return Err(Error::Option { option: "max_length", problem });
        }
        let text = TextEncoder::load(&files, TemplateKind::Pair, max_length)?;
        Ok(Self { network, parameters, text, files, config, class })
    }

    /// Whether the folder has a model with weights in this format.
    pub(crate) fn is_saved(folder: &Path, format: WeightFormat) -> bool {
        let config = fs::read(folder.join("config.json")).ok();
        let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        config.is_some_and(|config| config["dtype"] == format.name())
            && folder.join("model.safetensors").is_file()
    }

    /// Writes the model as a folder that `jointly` and Transformers load, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path, format: WeightFormat) -> Result<()> {
        let partial = folder.with_extension("partial");
        _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = partial.join(name);
            fs::write(&path, bytes).map_err(Error::io(path))
        };
        for name in TOKENIZER_FILES {
            if self.files.exists(name) {
                write(name, &self.files.read(name)?)?;
            }
        }
        let mut config = self.config.value().clone();
        if let Some(config) = config.as_object_mut() {
            self.describe(config, format);
        }
        let text = serde_json::to_string_pretty(&config).unwrap_or_default();
        write("config.json", format!("{text}\n").as_bytes())?;
        let bytes: Vec<Vec<u8>> =
            self.parameters.iter().map(|parameter| to_bytes(&parameter.value, format)).collect();
        let dtype = match format {
            WeightFormat::F16 => Dtype::F16,
            WeightFormat::F32 => Dtype::F32,
        };
        write_tensors(
            &partial.join("model.safetensors"),
            dtype,
            self.parameters
                .iter()
                .zip(&bytes)
                .map(|(p, bytes)| (p.name.as_str(), p.shape.clone(), bytes.as_slice())),
        )?;
        replace(&partial, folder)
    }

    fn describe(&self, config: &mut Map<String, Value>, format: WeightFormat) {
        config.insert("architectures".into(), json!([self.class]));
        config.insert("id2label".into(), json!({"0": "LABEL_0"}));
        config.insert("label2id".into(), json!({"LABEL_0": 0}));
        config.remove("num_labels");
        config.remove("_name_or_path");
        config.remove("torch_dtype");
        config.insert("dtype".into(), json!(format.name()));
    }
}

pub(crate) fn to_bytes(values: &[f32], format: WeightFormat) -> Vec<u8> {
    match format {
        WeightFormat::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        WeightFormat::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

/// Writes tensors, each with its name, shape and bytes.
pub(crate) fn write_tensors<'a>(
    path: &Path,
    dtype: Dtype,
    tensors: impl Iterator<Item = (&'a str, Vec<usize>, &'a [u8])>,
) -> Result<()> {
    let wrong = |error: safetensors::SafeTensorError| Error::Io {
        path: path.to_path_buf(),
        source: std::io::Error::other(error),
    };
    let views = tensors
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes).map_err(wrong)?)))
        .collect::<Result<Vec<_>>>()?;
    let metadata = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(wrong)
}

/// Puts a finished folder in the place of another.
pub(crate) fn replace(finished: &Path, folder: &Path) -> Result<()> {
    let old = folder.with_extension("old");
    _ = fs::remove_dir_all(&old);
    if folder.exists() {
        fs::rename(folder, &old).map_err(Error::io(folder))?;
    }
    fs::rename(finished, folder).map_err(Error::io(folder))?;
    _ = fs::remove_dir_all(&old);
    Ok(())
}
