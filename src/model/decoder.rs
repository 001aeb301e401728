//! The network that Qwen2 and Qwen3 have in common: RMSNorm before each sublayer, rotary positions, grouped-query
//! causal attention, SwiGLU. Layer names and order of operations: Transformers' `modeling_qwen2.py` and
//! `modeling_qwen3.py`. A bias of the projections and a norm of each query and key head are there if the checkpoint
//! has them.

use super::config::Config;
use super::head::{self, Head, Pooling};
use super::{Sizes, Trunk};
use crate::batch::{Batch, Read};
use crate::error::Result;
use crate::nn::{
    Activation, AttentionShape, Embedding, Linear, Mask, Matrix, RmsNorm, Rotary, Run, attention, gated,
};
use crate::weights::Scope;

/// A decoder without an output matrix.
pub(super) struct Decoder {
    embeddings: Embedding,
    layers: Vec<Layer>,
    final_norm: RmsNorm,
    rotary: Rotary,
    attention: AttentionShape,
    sizes: Sizes,
}

struct Layer {
    input_norm: RmsNorm,
    queries: Linear,
    keys_values: Linear,
    /// Qwen3: over each head of the query and of the key.
    query_and_key_norm: Option<(RmsNorm, RmsNorm)>,
    attention_output: Linear,
    mlp_norm: RmsNorm,
    /// The gate's input and the other factor, side by side.
    gate_and_up: Linear,
    activation: Activation,
    down: Linear,
}

pub(super) fn load(config: &Config, scope: &Scope<'_>) -> Result<Box<dyn Trunk>> {
    Ok(Box::new(Decoder::load(config, &scope.at_optional("model"))?))
}

/// The head of `Qwen*ForSequenceClassification`: one row over the last token.
pub(super) fn head(config: &Config, scope: &Scope<'_>) -> Result<Head> {
    head::require(scope, "score.weight")?;
    let score = Linear::load_optional_bias(&scope.at("score"), config.size("hidden_size")?, 1)?;
    Ok(Head::new(Pooling::Last).dense(score, Activation::Identity))
}

impl Decoder {
    fn load(config: &Config, scope: &Scope<'_>) -> Result<Self> {
        let hidden = config.size("hidden_size")?;
        let intermediate = config.size("intermediate_size")?;
        let heads = config.size("num_attention_heads")?;
        let kv_heads = config.size_or("num_key_value_heads", heads)?;
        let head_dim = match config.get("head_dim") {
            Some(_) => config.size("head_dim")?,
            None => config.head_dim()?,
        };
        if heads % kv_heads != 0 {
            return Err(
                config.error("num_key_value_heads", format!("{kv_heads} does not divide {heads} heads"))
            );
        }
        if head_dim % 2 != 0 {
            return Err(config.error("head_dim", format!("heads of {head_dim} values cannot be rotated")));
        }
        let eps = config.number_or("rms_norm_eps", 1e-6)? as f32;
        let activation = config.activation_or("hidden_act", Activation::Silu)?;
        let vocab = config.size("vocab_size")?;
        let mut max_length = config.size("max_position_embeddings")?;
        if config.flag_or("use_sliding_window", false)? {
            // Up to the window's length, a sliding window shows all that a causal mask shows.
            max_length = max_length.min(config.size("sliding_window")?);
        }
        let mut layers = Vec::new();
        for index in 0..super::layer_count(config, &scope.at("layers"))? {
            let scope = scope.at("layers").at(index);
            let attention = scope.at("self_attn");
            let query_and_key_norm = if attention.has("q_norm.weight") {
                Some((
                    RmsNorm::load(&attention.at("q_norm"), head_dim, eps)?,
                    RmsNorm::load(&attention.at("k_norm"), head_dim, eps)?,
                ))
            } else {
                None
            };
            let kv = kv_heads * head_dim;
            layers.push(Layer {
                input_norm: RmsNorm::load(&scope.at("input_layernorm"), hidden, eps)?,
                queries: Linear::load_optional_bias(&attention.at("q_proj"), hidden, heads * head_dim)?,
                keys_values: Linear::load_together(&attention, hidden, &[("k_proj", kv), ("v_proj", kv)])?,
                query_and_key_norm,
                attention_output: Linear::load_optional_bias(
                    &attention.at("o_proj"),
                    heads * head_dim,
                    hidden,
                )?,
                mlp_norm: RmsNorm::load(&scope.at("post_attention_layernorm"), hidden, eps)?,
                gate_and_up: Linear::load_together(
                    &scope.at("mlp"),
                    hidden,
                    &[("gate_proj", intermediate), ("up_proj", intermediate)],
                )?,
                activation,
                down: Linear::load_optional_bias(&scope.at("mlp.down_proj"), intermediate, hidden)?,
            });
        }
        Ok(Self {
            embeddings: Embedding::load(&scope.at("embed_tokens"), vocab, hidden)?,
            final_norm: RmsNorm::load(&scope.at("norm"), hidden, eps)?,
            rotary: Rotary::new(head_dim, config.rope_theta("rope_theta", None, 10_000.0)?),
            attention: AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                mask: Mask::Causal,
            },
            sizes: Sizes { hidden, layers: layers.len(), max_length, vocab, types: 0 },
            layers,
        })
    }
}

impl Trunk for Decoder {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn forward(&self, run: &mut Run<'_>, batch: &Batch, read: Read) -> Matrix {
        let kernels = run.kernels;
        let AttentionShape { heads, kv_heads, .. } = self.attention;
        let positions = run.positions(batch, Read::All);
        let angles = self.rotary.angles(&positions);
        let mut x = self.embeddings.forward(batch.own_ids());
        run.trace(format_args!("embeddings"), &x);
        for (index, layer) in self.layers.iter().enumerate() {
            let mut normed = layer.input_norm.of(kernels, &x);
            let mut keys_values = layer.keys_values.forward(kernels, &normed);
            let norms = layer.query_and_key_norm.as_ref().map(|(query, key)| (query, key));
            let (query_norm, key_norm) = norms.unzip();
            angles.apply(kernels, &mut keys_values, (kv_heads, key_norm), &positions);
            let keys_values = run.gather(keys_values);

            let read = read.in_layer(index, self.layers.len());
            if read != Read::All {
                x = x.take(batch.rows(read));
                normed = normed.take(batch.rows(read));
            }
            let mut queries = layer.queries.forward(kernels, &normed);
            angles.apply(kernels, &mut queries, (heads, query_norm), &run.positions(batch, read));
            let context = attention(run, (&queries, &keys_values), (batch, read), &self.attention, None);
            x = layer.attention_output.forward_then(kernels, &context, Activation::Identity, Some(&x));

            normed = layer.mlp_norm.of(kernels, &x);
            let inner = layer.gate_and_up.forward(kernels, &normed);
            let inner = gated(kernels, &inner, layer.activation);
            x = layer.down.forward_then(kernels, &inner, Activation::Identity, Some(&x));
            run.trace(format_args!("layer{index}"), &x);
        }
        self.final_norm.forward(kernels, &mut x);
        run.trace(format_args!("final_norm"), &x);
        x
    }

    fn is_causal(&self) -> bool {
        true
    }
}
