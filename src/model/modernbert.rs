//! ModernBERT. Paper: arXiv 2412.13663. Layer names and order of operations: Transformers' `modeling_modernbert.py`.
//! What differs from BERT: norms before the sublayers, rotary positions, a gated feed-forward, and two layers of three
//! that see only a window around each token.

use super::config::Config;
use super::head::{self, Head, Pooling};
use super::{Architecture, Sizes, Trunk};
use crate::batch::{Batch, Read};
use crate::error::Result;
use crate::nn::{
    self, Activation, AttentionShape, Embedding, LayerNorm, Linear, Mask, Matrix, Rotary, Run, attention,
};
use crate::weights::Scope;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "ModernBERT",
    model_types: &["modernbert"],
    load: |config, scope| Ok(Box::new(ModernBert::load(config, &scope.at_optional("model"))?)),
    head: |config, scope| {
        let hidden = config.size("hidden_size")?;
        let eps = config.number_or("norm_eps", 1e-5)? as f32;
        let pooling = match config.text_or("classifier_pooling", "cls")? {
            "cls" => Pooling::First,
            "mean" => Pooling::Mean,
            other => {
                return Err(config.error("classifier_pooling", format!("{other:?} is neither cls nor mean")));
            }
        };
        let activation = config.activation_or("classifier_activation", Activation::Gelu)?;
        head::require(scope, "classifier.weight")?;
        Ok(Head::new(pooling)
            .dense(Linear::load_optional_bias(&scope.at("head.dense"), hidden, hidden)?, activation)
            .norm(LayerNorm::load(&scope.at("head.norm"), hidden, eps)?)
            .dense(Linear::load_optional_bias(&scope.at("classifier"), hidden, 1)?, Activation::Identity))
    },
};

struct ModernBert {
    embeddings: Embedding,
    embeddings_norm: LayerNorm,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    global_rotary: Rotary,
    local_rotary: Rotary,
    sizes: Sizes,
}

struct Layer {
    /// Absent in the first layer, whose input is normalised already.
    attention_norm: Option<LayerNorm>,
    queries: Linear,
    keys_values: Linear,
    attention: AttentionShape,
    attention_output: Linear,
    mlp_norm: LayerNorm,
    /// Input and gate of the feed-forward, side by side.
    input_and_gate: Linear,
    activation: Activation,
    mlp_output: Linear,
}

impl ModernBert {
    fn load(config: &Config, scope: &Scope<'_>) -> Result<Self> {
        let hidden = config.size("hidden_size")?;
        let intermediate = config.size("intermediate_size")?;
        let heads = config.size("num_attention_heads")?;
        let head_dim = config.head_dim()?;
        if head_dim % 2 != 0 {
            return Err(
                config.error("num_attention_heads", format!("heads of {head_dim} values cannot be rotated"))
            );
        }
        let eps = config.number_or("norm_eps", 1e-5)? as f32;
        let activation = config.activation_or("hidden_activation", Activation::Gelu)?;
        let window = config.size_or("local_attention", 128)? / 2;
        let mut layers = Vec::new();
        for index in 0..super::layer_count(config, &scope.at("layers"))? {
            let scope = scope.at("layers").at(index);
            let mask = if is_global(config, index)? { Mask::Full } else { Mask::Window(window) };
            let attention_norm =
                if index == 0 { None } else { Some(LayerNorm::load(&scope.at("attn_norm"), hidden, eps)?) };
            layers.push(Layer {
                attention_norm,
                queries: Linear::load_rows(&scope.at("attn.Wqkv"), hidden, 3 * hidden, 0..hidden)?,
                keys_values: Linear::load_rows(
                    &scope.at("attn.Wqkv"),
                    hidden,
                    3 * hidden,
                    hidden..3 * hidden,
                )?,
                attention: AttentionShape {
                    heads,
                    kv_heads: heads,
                    head_dim,
                    scale: 1.0 / (head_dim as f32).sqrt(),
                    mask,
                },
                attention_output: Linear::load_optional_bias(&scope.at("attn.Wo"), hidden, hidden)?,
                mlp_norm: LayerNorm::load(&scope.at("mlp_norm"), hidden, eps)?,
                input_and_gate: Linear::load_optional_bias(&scope.at("mlp.Wi"), hidden, 2 * intermediate)?,
                activation,
                mlp_output: Linear::load_optional_bias(&scope.at("mlp.Wo"), intermediate, hidden)?,
            });
        }
        let embeddings = scope.at("embeddings");
        let vocab = config.size("vocab_size")?;
        let max_length = config.size_or("max_position_embeddings", 8192)?;
        let global = config.rope_theta("global_rope_theta", Some("full_attention"), 160_000.0)?;
        let local = config.rope_theta("local_rope_theta", Some("sliding_attention"), 10_000.0)?;
        Ok(Self {
            embeddings: Embedding::load(&embeddings.at("tok_embeddings"), vocab, hidden)?,
            embeddings_norm: LayerNorm::load(&embeddings.at("norm"), hidden, eps)?,
            final_norm: LayerNorm::load(&scope.at("final_norm"), hidden, eps)?,
            global_rotary: Rotary::new(head_dim, global),
            local_rotary: Rotary::new(head_dim, local),
            sizes: Sizes { hidden, layers: layers.len(), max_length, vocab, types: 0 },
            layers,
        })
    }
}

/// Whether a layer sees the whole pair: from the list of layer types that new configurations have, or every so many.
fn is_global(config: &Config, layer: usize) -> Result<bool> {
    let Some(types) = config.get("layer_types") else {
        let every = config.size_or("global_attn_every_n_layers", 3)?;
        return Ok(layer.is_multiple_of(every));
    };
    match types.get(layer).and_then(serde_json::Value::as_str) {
        Some("full_attention") => Ok(true),
        Some("sliding_attention") => Ok(false),
        other => Err(config.error("layer_types", format!("layer {layer} is {other:?}"))),
    }
}

impl Trunk for ModernBert {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn forward(&self, run: &mut Run<'_>, batch: &Batch, read: Read) -> Matrix {
        let kernels = run.kernels;
        let positions = run.positions(batch, Read::All);
        let global = self.global_rotary.angles(&positions);
        let local = self.local_rotary.angles(&positions);
        let mut x = self.embeddings.forward(batch.own_ids());
        self.embeddings_norm.forward(kernels, &mut x);
        run.trace(format_args!("embeddings"), &x);
        for (index, layer) in self.layers.iter().enumerate() {
            let mut normed =
                layer.attention_norm.as_ref().map_or_else(|| x.clone(), |norm| norm.of(kernels, &x));
            let heads = layer.attention.heads;
            let angles = if layer.attention.mask == Mask::Full { &global } else { &local };
            let mut keys_values = layer.keys_values.forward(kernels, &normed);
            angles.apply(kernels, &mut keys_values, (heads, None), &positions);
            let keys_values = run.gather(keys_values);

            let read = read.in_layer(index, self.layers.len());
            if read != Read::All {
                x = x.take(batch.rows(read));
                normed = normed.take(batch.rows(read));
            }
            let mut queries = layer.queries.forward(kernels, &normed);
            angles.apply(kernels, &mut queries, (heads, None), &run.positions(batch, read));
            let context = attention(run, (&queries, &keys_values), (batch, read), &layer.attention, None);
            x = layer.attention_output.forward_then(kernels, &context, Activation::Identity, Some(&x));

            normed = layer.mlp_norm.of(kernels, &x);
            let inner = layer.input_and_gate.forward(kernels, &normed);
            let gated = nn::gated(kernels, &inner, layer.activation);
            x = layer.mlp_output.forward_then(kernels, &gated, Activation::Identity, Some(&x));
            run.trace(format_args!("layer{index}"), &x);
        }
        self.final_norm.forward(kernels, &mut x);
        run.trace(format_args!("final_norm"), &x);
        x
    }
}
