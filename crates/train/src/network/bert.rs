//! BERT, and those with its layers: ELECTRA, RoBERTa, XLM-RoBERTa. Papers: arXiv 1810.04805, 2003.10555, 1907.11692, 1911.02116.
//! Order of operations and names: Transformers' `modeling_bert.py`. The forward pass of inference is
//! `src/model/bert.rs`; a test holds the two together.

use jointly::batch::{Batch, Read};
use jointly::model::config::Config;
use jointly::nn::Activation;
use jointly_kernels::Map;

use super::{Architecture, Builder, Inputs, Network, Norm, map, segment_ids};
use crate::error::Result;
use crate::parameters::{LinearId, ParameterId};
use crate::tape::{Bias, Shape, Tape, Var};

pub(super) const BERT: Architecture = Architecture {
    model_types: &["bert"],
    class: "BertForSequenceClassification",
    build: |config, builder| {
        let hidden = config.size("hidden_size")?;
        let mut trunk = builder.at_optional("bert");
        let bert = Bert::build(config, &mut trunk, 0)?;
        // The pooler is part of the trunk's name space, and of the head.
        let dense = trunk.at("pooler").head("dense", hidden, hidden, true)?;
        let output = builder.head("classifier", hidden, 1, true)?;
        Ok(Box::new(Classifier { trunk: bert, dense, activation: Map::Tanh, output }))
    },
};

pub(super) const ELECTRA: Architecture = Architecture {
    model_types: &["electra"],
    class: "ElectraForSequenceClassification",
    build: |config, builder| {
        let trunk = Bert::build(config, &mut builder.at_optional("electra"), 0)?;
        classifier(config, builder, trunk, Map::GeluErf)
    },
};

pub(super) const ROBERTA: Architecture = Architecture {
    model_types: &["roberta", "camembert"],
    class: "RobertaForSequenceClassification",
    build: roberta,
};

pub(super) const XLM_ROBERTA: Architecture = Architecture {
    model_types: &["xlm-roberta"],
    class: "XLMRobertaForSequenceClassification",
    build: roberta,
};

/// Positions are counted from `pad_token_id + 1`.
fn roberta(config: &Config, builder: &mut Builder<'_>) -> Result<Box<dyn Network>> {
    let first_position = config.count("pad_token_id")?.unwrap_or(1) + 1;
    let trunk = Bert::build(config, &mut builder.at_optional("roberta"), first_position)?;
    classifier(config, builder, trunk, Map::Tanh)
}

/// The head of all but BERT: a dense layer over the first token, and the output.
fn classifier(
    config: &Config,
    builder: &mut Builder<'_>,
    trunk: Bert,
    activation: Map,
) -> Result<Box<dyn Network>> {
    let hidden = config.size("hidden_size")?;
    let mut head = builder.at("classifier");
    let dense = head.head("dense", hidden, hidden, true)?;
    let output = head.head("out_proj", hidden, 1, true)?;
    Ok(Box::new(Classifier { trunk, dense, activation, output }))
}

struct Classifier {
    trunk: Bert,
    dense: LinearId,
    activation: Map,
    output: LinearId,
}

impl Network for Classifier {
    fn forward(&self, tape: &mut Tape<'_>, batch: &Batch) -> Var {
        let x = self.trunk.forward(tape, batch);
        let x = tape.linear(x, self.dense);
        let x = tape.map(x, self.activation);
        tape.linear(x, self.output)
    }

    fn first_position(&self) -> usize {
        self.trunk.first_position
    }
}

struct Bert {
    word_embeddings: ParameterId,
    position_embeddings: ParameterId,
    token_type_embeddings: Option<ParameterId>,
    norm: Norm,
    project: Option<LinearId>,
    layers: Vec<EncoderLayer>,
    attention: Shape,
    first_position: usize,
}

const ATTENTION: AttentionNames = AttentionNames {
    projections: ["attention.self.query", "attention.self.key", "attention.self.value"],
    output: "attention.output.dense",
    norm: "attention.output.LayerNorm",
};

impl Bert {
    fn build(config: &Config, builder: &mut Builder<'_>, first_position: usize) -> Result<Self> {
        let hidden = config.size("hidden_size")?;
        let embedding = config.size_or("embedding_size", hidden)?;
        let eps = config.number_or("layer_norm_eps", 1e-12)? as f32;
        let positions = config.size("max_position_embeddings")?;
        let segments = config.count("type_vocab_size")?.unwrap_or(2);
        let mut embeddings = builder.at("embeddings");
        let word_embeddings = embeddings.table("word_embeddings", config.size("vocab_size")?, embedding)?;
        let position_embeddings = embeddings.table("position_embeddings", positions, embedding)?;
        let token_type_embeddings = match segments {
            0 => None,
            _ => Some(embeddings.table("token_type_embeddings", segments, embedding)?),
        };
        let norm = embeddings.norm("LayerNorm", embedding, eps)?;
        let project = match builder.at("embeddings_project").has("weight") {
            true => Some(builder.linear("embeddings_project", embedding, hidden)?),
            false => None,
        };
        Ok(Self {
            word_embeddings,
            position_embeddings,
            token_type_embeddings,
            norm,
            project,
            layers: EncoderLayer::build_all(config, &mut builder.at("encoder"), &ATTENTION)?,
            attention: full_attention(config, Bias::None)?,
            first_position,
        })
    }

    /// The last hidden state of each pair's first token.
    fn forward(&self, tape: &mut Tape<'_>, batch: &Batch) -> Var {
        let inputs = Inputs::new(batch);
        let mut x = tape.embedding(self.word_embeddings, inputs.ids.clone());
        if let Some(table) = self.token_type_embeddings {
            let segments = tape.embedding(table, segment_ids(batch));
            x = tape.add(x, segments);
        }
        let positions = tape.embedding(self.position_embeddings, inputs.position_ids(self.first_position));
        x = tape.add(x, positions);
        x = self.norm.forward(tape, x);
        if let Some(project) = self.project {
            x = tape.linear(x, project);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let read = Read::First.in_layer(index, self.layers.len());
            x = layer.forward(tape, &inputs, read, &self.attention, x);
        }
        x
    }
}

/// Where a checkpoint keeps the attention of a layer.
pub(super) struct AttentionNames {
    /// Query, key and value.
    pub projections: [&'static str; 3],
    pub output: &'static str,
    pub norm: &'static str,
}

/// The layer that BERT, MPNet and DeBERTa have in common.
pub(super) struct EncoderLayer {
    pub projections: [LinearId; 3],
    attention_output: LinearId,
    attention_norm: Norm,
    intermediate: LinearId,
    activation: Map,
    output: LinearId,
    output_norm: Norm,
}

impl EncoderLayer {
    /// All layers below `builder`, which has `layer.0`, `layer.1`, ...
    pub(super) fn build_all(
        config: &Config,
        builder: &mut Builder<'_>,
        names: &AttentionNames,
    ) -> Result<Vec<Self>> {
        let hidden = config.size("hidden_size")?;
        let intermediate = config.size("intermediate_size")?;
        let eps = config.number_or("layer_norm_eps", 1e-12)? as f32;
        let activation = map(config.activation_or("hidden_act", Activation::Gelu)?);
        let mut layers = builder.at("layer");
        (0..config.size("num_hidden_layers")?)
            .map(|index| {
                let mut layer = layers.at(index);
                let [q, k, v] = names.projections.map(|name| layer.linear(name, hidden, hidden));
                Ok(Self {
                    projections: [q?, k?, v?],
                    attention_output: layer.linear(names.output, hidden, hidden)?,
                    attention_norm: layer.norm(names.norm, hidden, eps)?,
                    intermediate: layer.linear("intermediate.dense", hidden, intermediate)?,
                    activation,
                    output: layer.linear("output.dense", intermediate, hidden)?,
                    output_norm: layer.norm("output.LayerNorm", hidden, eps)?,
                })
            })
            .collect()
    }

    /// The rows that are `read`.
    pub(super) fn forward(
        &self,
        tape: &mut Tape<'_>,
        inputs: &Inputs,
        read: Read,
        shape: &Shape,
        mut x: Var,
    ) -> Var {
        let [query, key, value] = self.projections;
        let (keys, values) = (tape.linear(x, key), tape.linear(x, value));
        if read == Read::First {
            x = tape.rows(x, inputs.firsts());
        }
        let queries = tape.linear(x, query);
        let context =
            tape.attention([queries, keys, values], shape, &inputs.sequences, |length| read.rows(length));
        let attended = tape.linear(context, self.attention_output);
        let attended = tape.add(attended, x);
        let attended = self.attention_norm.forward(tape, attended);
        let inner = tape.linear(attended, self.intermediate);
        let inner = tape.map(inner, self.activation);
        let output = tape.linear(inner, self.output);
        let output = tape.add(output, attended);
        self.output_norm.forward(tape, output)
    }
}

/// The shape of the attention of an encoder that sees all of its pair.
pub(super) fn full_attention(config: &Config, bias: Bias) -> Result<Shape> {
    let head_dim = config.head_dim()?;
    let scale = 1.0 / (head_dim as f32).sqrt();
    Ok(Shape { heads: config.size("num_attention_heads")?, head_dim, scale, window: None, bias })
}
