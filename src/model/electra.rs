//! ELECTRA: BERT whose embeddings may be narrower than its layers. Paper: arXiv 2003.10555. Layer names:
//! Transformers' `modeling_electra.py`. The head is a dense layer with exact GELU over the first token.

use super::Architecture;
use super::bert::Bert;
use super::head::{self, Head, Pooling};
use crate::nn::{Activation, Linear};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "ELECTRA",
    model_types: &["electra"],
    load: |config, scope| Ok(Box::new(Bert::load(config, &scope.at_optional("electra"), 0)?)),
    head: |config, scope| {
        let hidden = config.size("hidden_size")?;
        head::require(scope, "classifier.out_proj.weight")?;
        Ok(Head::new(Pooling::First)
            .dense(Linear::load(&scope.at("classifier.dense"), hidden, hidden)?, Activation::Gelu)
            .dense(Linear::load(&scope.at("classifier.out_proj"), hidden, 1)?, Activation::Identity))
    },
};
