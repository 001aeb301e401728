//! RoBERTa and CamemBERT: BERT with positions counted from `pad_token_id + 1`. Paper: arXiv 1907.11692. Layer
//! names: Transformers' `modeling_roberta.py`. The head is a dense layer with tanh over the first token.

use super::bert::Bert;
use super::config::Config;
use super::head::{self, Head, Pooling};
use super::{Architecture, Trunk};
use crate::error::Result;
use crate::nn::{Activation, Linear};
use crate::weights::Scope;

pub(super) const ARCHITECTURE: Architecture =
    Architecture { name: "RoBERTa", model_types: &["roberta", "camembert"], load, head };

pub(super) fn load(config: &Config, scope: &Scope<'_>) -> Result<Box<dyn Trunk>> {
    let first_position = config.count("pad_token_id")?.unwrap_or(1) + 1;
    Ok(Box::new(Bert::load(config, &scope.at_optional("roberta"), first_position)?))
}

pub(super) fn head(config: &Config, scope: &Scope<'_>) -> Result<Head> {
    let hidden = config.size("hidden_size")?;
    head::require(scope, "classifier.out_proj.weight")?;
    Ok(Head::new(Pooling::First)
        .dense(Linear::load(&scope.at("classifier.dense"), hidden, hidden)?, Activation::Tanh)
        .dense(Linear::load(&scope.at("classifier.out_proj"), hidden, 1)?, Activation::Identity))
}
