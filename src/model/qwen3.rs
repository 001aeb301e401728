//! Qwen3: the decoder with a norm of each query and key head. Report: arXiv 2505.09388. Qwen3-Reranker and zerank are
//! of this kind.

use super::{Architecture, decoder};

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "Qwen3", model_types: &["qwen3"], load: decoder::load, head: decoder::head };
