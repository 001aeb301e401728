//! The default model, compiled in, so that the first command needs neither a file nor a network.

use std::sync::Arc;

use crate::files::{Bytes, ModelFiles};

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        [$(($name.to_string(), Bytes::Static(include_bytes!(concat!("../models/default/", $name))))),*]
    };
}

/// The files of `models/default`.
pub(crate) fn files() -> ModelFiles {
    ModelFiles::Memory {
        name: "default (embedded)".into(),
        files: Arc::new(
            embed![
                "README.md",
                "calibration.json",
                "config.json",
                "model.safetensors",
                "receipt.json",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ]
            .into(),
        ),
    }
}
