//! XLM-RoBERTa: RoBERTa's network with a multilingual Unigram vocabulary. Paper: arXiv 1911.02116. The
//! bge-reranker family is of this kind.

use super::{Architecture, roberta};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "XLM-RoBERTa",
    model_types: &["xlm-roberta"],
    load: roberta::load,
    head: roberta::head,
};
