//! ModernBERT: norms before the sublayers, rotary positions, a gated feed-forward, and two layers of three that see
//! only a window. Paper: arXiv 2412.13663. Order of operations and names: Transformers' `modeling_modernbert.py`.

use std::sync::Arc;

use jointly::batch::{Batch, Read};
use jointly::model::config::Config;
use jointly::nn::Activation;
use jointly_kernels::Map;

use super::bert::full_attention;
use super::{Architecture, Inputs, Network, Norm, map};
use crate::error::Result;
use crate::parameters::{LinearId, ParameterId};
use crate::tape::{Angles, Bias, Shape, Tape, Var};

pub(super) const MODERNBERT: Architecture = Architecture {
    model_types: &["modernbert"],
    class: "ModernBertForSequenceClassification",
    build: |config, builder| {
        let hidden = config.size("hidden_size")?;
        let inner = config.size("intermediate_size")?;
        let eps = config.number_or("norm_eps", 1e-5)? as f32;
        let activation = map(config.activation_or("hidden_activation", Activation::Gelu)?);
        let window = config.size_or("local_attention", 128)? / 2;
        let full = full_attention(config, Bias::None)?;
        let mut trunk = builder.at_optional("model");
        let mut embeddings = trunk.at("embeddings");
        let word_embeddings = embeddings.table("tok_embeddings", config.size("vocab_size")?, hidden)?;
        let embeddings_norm = embeddings.norm("norm", hidden, eps)?;
        let mut scopes = trunk.at("layers");
        let mut layers = Vec::new();
        for index in 0..config.size("num_hidden_layers")? {
            let mut layer = scopes.at(index);
            let window = if is_global(config, index)? { None } else { Some(window) };
            let attention_norm = match index {
                0 => None,
                _ => Some(layer.norm("attn_norm", hidden, eps)?),
            };
            layers.push(Layer {
                attention_norm,
                projections: layer.linears("attn.Wqkv", hidden, [hidden; 3])?,
                attention: Shape { window, ..full.clone() },
                attention_output: layer.linear("attn.Wo", hidden, hidden)?,
                mlp_norm: layer.norm("mlp_norm", hidden, eps)?,
                input_and_gate: layer.linears("mlp.Wi", hidden, [inner; 2])?,
                activation,
                mlp_output: layer.linear("mlp.Wo", inner, hidden)?,
            });
        }
        let final_norm = trunk.norm("final_norm", hidden, eps)?;
        let mean = config.text_or("classifier_pooling", "cls")? == "mean";
        let bias = config.flag_or("classifier_bias", false)?;
        let positions = config.size_or("max_position_embeddings", 8192)?;
        let theta = |field, kind, default| config.rope_theta(field, Some(kind), default);
        let angles = |theta| Arc::new(Angles::new(full.head_dim, theta, positions));
        let mut head = builder.at("head");
        let dense = head.head("dense", hidden, hidden, bias)?;
        let norm = head.head_norm("norm", hidden, eps)?;
        Ok(Box::new(ModernBert {
            word_embeddings,
            embeddings_norm,
            layers,
            final_norm,
            global: angles(theta("global_rope_theta", "full_attention", 160_000.0)?),
            local: angles(theta("local_rope_theta", "sliding_attention", 10_000.0)?),
            mean,
            dense,
            activation: map(config.activation_or("classifier_activation", Activation::Gelu)?),
            norm,
            output: builder.head("classifier", hidden, 1, true)?,
        }))
    },
};

struct ModernBert {
    word_embeddings: ParameterId,
    embeddings_norm: Norm,
    layers: Vec<Layer>,
    final_norm: Norm,
    global: Arc<Angles>,
    local: Arc<Angles>,
    /// Whether the head reads the mean of all tokens, and not the first.
    mean: bool,
    dense: LinearId,
    activation: Map,
    norm: Norm,
    output: LinearId,
}

struct Layer {
    /// Absent in the first layer, whose input is normalised already.
    attention_norm: Option<Norm>,
    projections: [LinearId; 3],
    attention: Shape,
    attention_output: LinearId,
    mlp_norm: Norm,
    input_and_gate: [LinearId; 2],
    activation: Map,
    mlp_output: LinearId,
}

/// Whether a layer sees the whole pair: from the list of layer types that new configurations have, or every so many.
fn is_global(config: &Config, layer: usize) -> Result<bool> {
    match config.get("layer_types").and_then(|types| types.get(layer)).and_then(|kind| kind.as_str()) {
        Some(kind) => Ok(kind == "full_attention"),
        None => Ok(layer.is_multiple_of(config.size_or("global_attn_every_n_layers", 3)?)),
    }
}

impl Network for ModernBert {
    fn forward(&self, tape: &mut Tape<'_>, batch: &Batch) -> Var {
        let inputs = Inputs::new(batch);
        let positions: Arc<[usize]> = inputs.positions.as_slice().into();
        let x = tape.embedding(self.word_embeddings, inputs.ids.clone());
        let mut x = self.embeddings_norm.forward(tape, x);
        for layer in &self.layers {
            let normed = layer.attention_norm.as_ref().map_or(x, |norm| norm.forward(tape, x));
            let angles = if layer.attention.window.is_none() { &self.global } else { &self.local };
            let [queries, keys, values] = layer.projections.map(|linear| tape.linear(normed, linear));
            let queries = tape.rotary(queries, angles, &positions);
            let keys = tape.rotary(keys, angles, &positions);
            let read = |length| Read::All.rows(length);
            let context = tape.attention([queries, keys, values], &layer.attention, &inputs.sequences, read);
            let context = tape.linear(context, layer.attention_output);
            x = tape.add(x, context);
            let normed = layer.mlp_norm.forward(tape, x);
            let [inner, gate] = layer.input_and_gate.map(|linear| tape.linear(normed, linear));
            let inner = tape.map(inner, layer.activation);
            let inner = tape.mul(inner, gate);
            let inner = tape.linear(inner, layer.mlp_output);
            x = tape.add(x, inner);
        }
        // A norm works row by row: after the first rows are taken, or before the mean.
        let x = if self.mean {
            let x = self.final_norm.forward(tape, x);
            tape.mean(x, inputs.sequences.clone())
        } else {
            let x = tape.rows(x, inputs.firsts());
            self.final_norm.forward(tape, x)
        };
        let x = tape.linear(x, self.dense);
        let x = tape.map(x, self.activation);
        let x = self.norm.forward(tape, x);
        tape.linear(x, self.output)
    }
}
