//! The layer that BERT, MPNet and DeBERTa have in common: attention and feed-forward, each followed by a residual and
//! a LayerNorm. Their checkpoints name the attention differently, and their relative positions differ.

use super::config::Config;
use crate::batch::Batch;
use crate::error::Result;
use crate::nn::{Activation, AttentionShape, LayerNorm, Linear, Mask, Matrix, Run, ScoreBias, attention};
use crate::weights::Scope;

/// Where a checkpoint keeps the attention of a layer.
pub(super) struct AttentionNames {
    /// The scope of query, key and value.
    pub scope: &'static str,
    /// The names of query, key and value there.
    pub qkv: [&'static str; 3],
    /// The output projection, from the layer's scope.
    pub output: &'static str,
    /// The LayerNorm after it, from the layer's scope.
    pub norm: &'static str,
}

/// One layer.
pub(super) struct EncoderLayer {
    qkv: Linear,
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
        for layer in 0..config.size("num_hidden_layers")? {
            let scope = scope.at("layer").at(layer);
            layers.push(Self {
                qkv: Linear::load_together(
                    &scope.at(names.scope),
                    hidden,
                    &names.qkv.map(|name| (name, hidden)),
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

    /// `[T, hidden]` to `[T, hidden]`. `bias` makes the bias of the scores from query, key and value `[T, 3 · hidden]`.
    pub(super) fn forward<'b>(
        &self,
        run: &Run<'_>,
        (batch, shape): (&Batch, &AttentionShape),
        x: &Matrix,
        bias: impl FnOnce(&Matrix) -> Option<Box<dyn ScoreBias + 'b>>,
    ) -> Matrix {
        let kernels = run.kernels;
        let qkv = self.qkv.forward(kernels, x);
        let bias = bias(&qkv);
        let context = attention(kernels, &qkv, batch, shape, bias.as_deref());
        let mut attended = self.attention_output.forward(kernels, &context);
        kernels.add(&mut attended.data, &x.data);
        self.attention_norm.forward(kernels, &mut attended);
        let mut inner = self.intermediate.forward(kernels, &attended);
        self.activation.apply(kernels, &mut inner.data);
        let mut output = self.output.forward(kernels, &inner);
        kernels.add(&mut output.data, &attended.data);
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
