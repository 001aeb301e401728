//! The default model, compiled in, so that the first command needs neither a file nor a network.

use crate::files::ModelFiles;

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../models/default/", $name)))),*]
    };
}

/// The files of `models/default`.
pub(crate) fn files() -> ModelFiles {
    ModelFiles::Embedded {
        name: "default",
        files: embed![
            "README.md",
            "config.json",
            "model.safetensors",
            "receipt.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ],
    }
}
