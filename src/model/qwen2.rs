//! Qwen2 and Qwen2.5: the decoder with biased query, key and value. Report: arXiv 2407.10671. mxbai-rerank-v2 is of
//! this kind.

use super::{Architecture, decoder};

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "Qwen2", model_types: &["qwen2"], load: decoder::load, head: decoder::head };
