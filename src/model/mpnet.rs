//! MPNet: BERT's layers with one relative position bias for all of them. Paper: arXiv 2004.09297. Layer names and
//! order of operations: Transformers' `modeling_mpnet.py`. What differs from BERT: no segments, positions counted
//! from 2, and a bias per head and distance bucket added to every layer's attention scores.

use std::sync::Arc;

use jointly_cuda::{Bias, Device, Distances};
use jointly_kernels::ViewMut;

use super::config::Config;
use super::encoder_layer::{self, AttentionNames, EncoderLayer};
use super::head::{self, Head, Pooling};
use super::{Architecture, Sizes, Trunk};
use crate::batch::{Batch, Read};
use crate::error::Result;
use crate::nn::{
    self, Activation, AttentionShape, Block, Embedding, LayerNorm, Linear, Matrix, Run, ScoreBias,
};
use crate::weights::Scope;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "MPNet",
    model_types: &["mpnet"],
    load: |config, scope| Ok(Box::new(MpNet::load(config, &scope.at_optional("mpnet"))?)),
    head: |config, scope| {
        let hidden = config.size("hidden_size")?;
        head::require(scope, "classifier.out_proj.weight")?;
        Ok(Head::new(Pooling::First)
            .dense(Linear::load(&scope.at("classifier.dense"), hidden, hidden)?, Activation::Tanh)
            .dense(Linear::load(&scope.at("classifier.out_proj"), hidden, 1)?, Activation::Identity))
    },
};

/// The padding id is fixed at 1 in Transformers' embedding of positions.
const FIRST_POSITION: usize = 2;

struct MpNet {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    norm: LayerNorm,
    relative_bias: RelativeBias,
    layers: Vec<EncoderLayer>,
    attention: AttentionShape,
    sizes: Sizes,
}

const ATTENTION: AttentionNames = AttentionNames {
    scope: "attention.attn",
    query: "q",
    key: "k",
    value: "v",
    output: "attention.attn.o",
    norm: "attention.LayerNorm",
};

/// A bias for each head and each distance from query to key.
struct RelativeBias {
    /// `[heads, 2 · max_length - 1]`; the middle is distance 0.
    by_distance: Vec<f32>,
    max_length: usize,
    on_device: Option<Distances>,
}

impl RelativeBias {
    /// `table` is `[buckets, heads]`.
    fn new(
        table: &[f32],
        (buckets, heads): (usize, usize),
        max_length: usize,
        device: Option<&Arc<Device>>,
    ) -> Result<Self> {
        let distances = 2 * max_length - 1;
        let mut by_distance = vec![0.0; heads * distances];
        for distance in 0..distances {
            let bucket = bucket(distance as i64 - (max_length as i64 - 1), buckets as i64) as usize;
            for head in 0..heads {
                by_distance[head * distances + distance] = table[bucket * heads + head];
            }
        }
        let load =
            |device: &Arc<Device>| nn::device::loaded(device, device.distances(&by_distance, max_length));
        let on_device = device.map(load).transpose()?;
        Ok(Self { by_distance, max_length, on_device })
    }
}

/// The bucket of `key position - query position`: half the buckets for each direction; in each, the first half for
/// one distance each, the rest growing with the logarithm up to 128.
fn bucket(relative_position: i64, buckets: i64) -> i64 {
    const MAX_DISTANCE: f32 = 128.0;
    let half = buckets / 2;
    let side = if relative_position > 0 { half } else { 0 };
    let distance = relative_position.abs();
    let exact = half / 2;
    if distance < exact {
        return side + distance;
    }
    // In f32, as in Transformers: a distance at the border of two buckets must fall on the same side.
    let growth = (distance as f32 / exact as f32).ln() / (MAX_DISTANCE / exact as f32).ln();
    side + (exact + (growth * (half - exact) as f32) as i64).min(half - 1)
}

impl ScoreBias for RelativeBias {
    fn add(&self, block: &Block<'_>, mut scores: ViewMut<'_>) {
        let Block { head, rows, keys, .. } = block;
        let distances = 2 * self.max_length - 1;
        let by_distance = &self.by_distance[head * distances..(head + 1) * distances];
        for (i, row) in rows.clone().enumerate() {
            let first = self.max_length - 1 + keys.start - row;
            for (score, bias) in scores.row_mut(i).iter_mut().zip(&by_distance[first..]) {
                *score += bias;
            }
        }
    }

    fn on_device(&self) -> Bias<'_> {
        self.on_device.as_ref().map_or(Bias::None, Bias::ByDistance)
    }
}

impl MpNet {
    fn load(config: &Config, scope: &Scope<'_>) -> Result<Self> {
        let hidden = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        let eps = config.number_or("layer_norm_eps", 1e-12)? as f32;
        let vocab = config.size("vocab_size")?;
        let positions = config.size("max_position_embeddings")?;
        let buckets = config.size_or("relative_attention_num_buckets", 32)?;
        if buckets < 4 || buckets % 4 != 0 {
            return Err(
                config.error("relative_attention_num_buckets", format!("{buckets} is not a multiple of 4"))
            );
        }
        let Some(max_length) = positions.checked_sub(FIRST_POSITION).filter(|length| *length > 0) else {
            return Err(config.error("max_position_embeddings", format!("{positions} leaves no position")));
        };
        let embeddings = scope.at("embeddings");
        let encoder = scope.at("encoder");
        let table = encoder.at("relative_attention_bias").values("weight", &[buckets, heads])?;
        let layers = EncoderLayer::load_all(config, &encoder, &ATTENTION)?;
        Ok(Self {
            word_embeddings: Embedding::load(&embeddings.at("word_embeddings"), vocab, hidden)?,
            position_embeddings: Embedding::load(&embeddings.at("position_embeddings"), positions, hidden)?,
            norm: LayerNorm::load(&embeddings.at("LayerNorm"), hidden, eps)?,
            relative_bias: RelativeBias::new(
                &table,
                (buckets, heads),
                max_length,
                scope.form().device.as_ref(),
            )?,
            attention: encoder_layer::full_attention(config)?,
            sizes: Sizes { hidden, layers: layers.len(), max_length, vocab, types: 0 },
            layers,
        })
    }
}

impl Trunk for MpNet {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn forward(&self, run: &mut Run<'_>, batch: &Batch, read: Read) -> Matrix {
        let mut x = self.word_embeddings.forward(batch.own_ids());
        let positions = batch.positions(Read::All);
        self.position_embeddings.add_to(&mut x, positions.iter().map(|position| FIRST_POSITION + position));
        self.norm.forward(run.kernels, &mut x);
        run.trace(format_args!("embeddings"), &x);
        for (index, layer) in self.layers.iter().enumerate() {
            let read = read.in_layer(index, self.layers.len());
            x = layer.forward(run, (batch, read), &self.attention, Some(&self.relative_bias), &x);
            run.trace(format_args!("layer{index}"), &x);
        }
        x
    }
}
