//! BERT. Paper: arXiv 1810.04805. Layer names and order of operations: Transformers' `modeling_bert.py`.
//!
//! The same trunk carries ELECTRA (which may project its embeddings) and the RoBERTa family (which counts positions
//! from `pad_token_id + 1`); their files say what differs.

use super::config::Config;
use super::encoder_layer::{self, AttentionNames, EncoderLayer};
use super::head::{self, Head, Pooling};
use super::{Architecture, Sizes, Trunk};
use crate::batch::{Batch, Read};
use crate::error::Result;
use crate::nn::{Activation, AttentionShape, Embedding, LayerNorm, Linear, Matrix, Run};
use crate::weights::Scope;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "BERT",
    model_types: &["bert"],
    load: |config, scope| Ok(Box::new(Bert::load(config, &scope.at_optional("bert"), 0)?)),
    head: |config, scope| {
        let hidden = config.size("hidden_size")?;
        let pooler = scope.at_optional("bert").at("pooler.dense");
        head::require(scope, "classifier.weight")?;
        Ok(Head::new(Pooling::First)
            .dense(Linear::load(&pooler, hidden, hidden)?, Activation::Tanh)
            .dense(Linear::load(&scope.at("classifier"), hidden, 1)?, Activation::Identity))
    },
};

/// The encoder, without a head.
pub(super) struct Bert {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    /// Absent where the checkpoint knows no segments.
    token_type_embeddings: Option<Embedding>,
    norm: LayerNorm,
    /// ELECTRA: `embedding_size` to `hidden_size`.
    project: Option<Linear>,
    layers: Vec<EncoderLayer>,
    attention: AttentionShape,
    /// The position of a pair's first token.
    first_position: usize,
    sizes: Sizes,
}

const ATTENTION: AttentionNames = AttentionNames {
    scope: "attention.self",
    query: "query",
    key: "key",
    value: "value",
    output: "attention.output.dense",
    norm: "attention.output.LayerNorm",
};

impl Bert {
    pub(super) fn load(config: &Config, scope: &Scope<'_>, first_position: usize) -> Result<Self> {
        let hidden = config.size("hidden_size")?;
        let embedding_size = config.size_or("embedding_size", hidden)?;
        let eps = config.number_or("layer_norm_eps", 1e-12)? as f32;
        let positions = config.size("max_position_embeddings")?;
        let vocab = config.size("vocab_size")?;
        let types = config.count("type_vocab_size")?.unwrap_or(2);
        if config.text_or("position_embedding_type", "absolute")? != "absolute" {
            return Err(config.error("position_embedding_type", "only absolute positions are implemented"));
        }
        let Some(max_length) = positions.checked_sub(first_position).filter(|length| *length > 0) else {
            return Err(config.error("max_position_embeddings", format!("{positions} leaves no position")));
        };
        let embeddings = scope.at("embeddings");
        let token_type_embeddings = if types > 0 {
            Some(Embedding::load(&embeddings.at("token_type_embeddings"), types, embedding_size)?)
        } else {
            None
        };
        let project = if scope.has("embeddings_project.weight") {
            Some(Linear::load(&scope.at("embeddings_project"), embedding_size, hidden)?)
        } else {
            None
        };
        let layers = EncoderLayer::load_all(config, &scope.at("encoder"), &ATTENTION)?;
        Ok(Self {
            word_embeddings: Embedding::load(&embeddings.at("word_embeddings"), vocab, embedding_size)?,
            position_embeddings: Embedding::load(
                &embeddings.at("position_embeddings"),
                positions,
                embedding_size,
            )?,
            token_type_embeddings,
            norm: LayerNorm::load(&embeddings.at("LayerNorm"), embedding_size, eps)?,
            project,
            attention: encoder_layer::full_attention(config)?,
            first_position,
            sizes: Sizes { hidden, layers: layers.len(), max_length, vocab, types },
            layers,
        })
    }
}

impl Trunk for Bert {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn forward(&self, run: &mut Run<'_>, batch: &Batch, read: Read) -> Matrix {
        let mut x = self.word_embeddings.forward(batch.own_ids());
        if let Some(embeddings) = &self.token_type_embeddings {
            embeddings.add_to(&mut x, batch.own_types());
        }
        let positions = batch.positions(Read::All);
        self.position_embeddings
            .add_to(&mut x, positions.iter().map(|position| self.first_position + position));
        self.norm.forward(run.kernels, &mut x);
        if let Some(project) = &self.project {
            x = project.forward(run.kernels, &x);
        }
        run.trace(format_args!("embeddings"), &x);
        for (index, layer) in self.layers.iter().enumerate() {
            let read = read.in_layer(index, self.layers.len());
            x = layer.forward(run, (batch, read), &self.attention, None, &x);
            run.trace(format_args!("layer{index}"), &x);
        }
        x
    }
}
