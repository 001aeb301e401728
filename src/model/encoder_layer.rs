//! The layer that BERT, MPNet and DeBERTa have in common: attention and feed-forward, each followed by a residual and
//! a LayerNorm. Their checkpoints name the attention differently, and their relative positions differ.

use super::config::Config;
use crate::batch::{Batch, Read};
use crate::error::Result;
use crate::nn::{Activation, AttentionShape, LayerNorm, Linear, Mask, Matrix, Run, ScoreBias, attention};
use crate::weights::Scope;

/// Where a checkpoint keeps the attention of a layer.
pub(super) struct AttentionNames {
    /// The scope of query, key and value.
    pub scope: &'static str,
    /// The name of the query's projection there.
    pub query: &'static str,
    /// The name of the key's.
    pub key: &'static str,
    /// The name of the value's.
    pub value: &'static str,
    /// The output projection, from the layer's scope.
    pub output: &'static str,
    /// The LayerNorm after it, from the layer's scope.
    pub norm: &'static str,
}

/// One layer.
pub(super) struct EncoderLayer {
    queries: Linear,
    keys_values: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    activation: Activation,
    output: Linear,
    output_norm: LayerNorm,
}

impl EncoderLayer {
    /// All layers below `scope`, which holds `layer.0`, `layer.1`, ...
    pub(super) fn load_all(config: &Config, scope: &Scope<'_>, names: &AttentionNames) -> Result<Vec<Self>> {
        let hidden = config.size("hidden_size")?;
        let intermediate = config.size("intermediate_size")?;
        let eps = config.number_or("layer_norm_eps", 1e-12)? as f32;
        let activation = config.activation_or("hidden_act", Activation::Gelu)?;
        let mut layers = Vec::new();
        for layer in 0..super::layer_count(config, &scope.at("layer"))? {
            let scope = scope.at("layer").at(layer);
            layers.push(Self {
                queries: Linear::load(&scope.at(names.scope).at(names.query), hidden, hidden)?,
                keys_values: Linear::load_together(
                    &scope.at(names.scope),
                    hidden,
                    &[(names.key, hidden), (names.value, hidden)],
                )?,
                attention_output: Linear::load(&scope.at(names.output), hidden, hidden)?,
                attention_norm: LayerNorm::load(&scope.at(names.norm), hidden, eps)?,
                intermediate: Linear::load(&scope.at("intermediate.dense"), hidden, intermediate)?,
                activation,
                output: Linear::load(&scope.at("output.dense"), intermediate, hidden)?,
                output_norm: LayerNorm::load(&scope.at("output.LayerNorm"), hidden, eps)?,
            });
        }
        Ok(layers)
    }

    /// This thread's rows of `[T, hidden]` to those of them that are `read`.
    pub(super) fn forward(
        &self,
        run: &Run<'_>,
        (batch, read): (&Batch, Read),
        shape: &AttentionShape,
        bias: Option<&dyn ScoreBias>,
        x: &Matrix,
    ) -> Matrix {
        let kernels = run.kernels;
        let keys_values = run.gather(self.keys_values.forward(kernels, x));
        let some = (read != Read::All).then(|| x.take(batch.rows(read)));
        let x = some.as_ref().unwrap_or(x);
        let queries = self.queries.forward(kernels, x);
        let context = attention(run, (&queries, &keys_values), (batch, read), shape, bias);
        let mut attended =
            self.attention_output.forward_then(kernels, &context, Activation::Identity, Some(x));
        self.attention_norm.forward(kernels, &mut attended);
        let inner = self.intermediate.forward_then(kernels, &attended, self.activation, None);
        let mut output = self.output.forward_then(kernels, &inner, Activation::Identity, Some(&attended));
        self.output_norm.forward(kernels, &mut output);
        output
    }
}

/// The shape of the attention of an encoder that sees all of its pair.
pub(super) fn full_attention(config: &Config) -> Result<AttentionShape> {
    let heads = config.size("num_attention_heads")?;
    let head_dim = config.head_dim()?;
    let scale = 1.0 / (head_dim as f32).sqrt();
    Ok(AttentionShape { heads, kv_heads: heads, head_dim, scale, mask: Mask::Full })
}
