//! MPNet: BERT's layers with one relative position bias for all of them, and no segments. Paper: arXiv 2004.09297.
//! Order of operations and names: Transformers' `modeling_mpnet.py`.

use std::sync::Arc;

use jointly::batch::{Batch, Read};
use jointly_kernels::Map;

use super::bert::{AttentionNames, EncoderLayer, full_attention};
use super::{Architecture, Inputs, Network, Norm};
use crate::parameters::{LinearId, ParameterId};
use crate::tape::{Bias, Distances, Shape, Tape, Var};

pub(super) const MPNET: Architecture = Architecture {
    model_types: &["mpnet"],
    class: "MPNetForSequenceClassification",
    build: |config, builder| {
        let hidden = config.size("hidden_size")?;
        let eps = config.number_or("layer_norm_eps", 1e-12)? as f32;
        let heads = config.size("num_attention_heads")?;
        let buckets = config.size_or("relative_attention_num_buckets", 32)?;
        let positions = config.size("max_position_embeddings")?;
        let mut trunk = builder.at_optional("mpnet");
        let mut embeddings = trunk.at("embeddings");
        let word_embeddings = embeddings.table("word_embeddings", config.size("vocab_size")?, hidden)?;
        let position_embeddings = embeddings.table("position_embeddings", positions, hidden)?;
        let norm = embeddings.norm("LayerNorm", hidden, eps)?;
        let mut encoder = trunk.at("encoder");
        let table = encoder.table("relative_attention_bias", buckets, heads)?;
        let distances = Distances::new(positions, |distance| bucket(-distance, buckets as i64) as usize);
        let layers = EncoderLayer::build_all(config, &mut encoder, &ATTENTION)?;
        let mut head = builder.at("classifier");
        Ok(Box::new(MpNet {
            word_embeddings,
            position_embeddings,
            norm,
            layers,
            attention: full_attention(config, Bias::Table(table, Arc::new(distances)))?,
            dense: head.head("dense", hidden, hidden, true)?,
            output: head.head("out_proj", hidden, 1, true)?,
        }))
    },
};

const ATTENTION: AttentionNames = AttentionNames {
    projections: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    output: "attention.attn.o",
    norm: "attention.LayerNorm",
};

/// The padding id is fixed at 1 in Transformers' embedding of positions.
const FIRST_POSITION: usize = 2;

/// The bucket of key position - query position: half the buckets for each direction; in each, the first half for
/// one distance each, the rest growing with the logarithm up to 128.
fn bucket(relative: i64, buckets: i64) -> i64 {
    const MAX_DISTANCE: f32 = 128.0;
    let half = buckets / 2;
    let side = if relative > 0 { half } else { 0 };
    let (distance, exact) = (relative.abs(), half / 2);
    if distance < exact {
        return side + distance;
    }
    // In f32, as in Transformers: a distance at the border of two buckets must fall on the same side.
    let growth = (distance as f32 / exact as f32).ln() / (MAX_DISTANCE / exact as f32).ln();
    side + (exact + (growth * (half - exact) as f32) as i64).min(half - 1)
}

struct MpNet {
    word_embeddings: ParameterId,
    position_embeddings: ParameterId,
    norm: Norm,
    layers: Vec<EncoderLayer>,
    attention: Shape,
    dense: LinearId,
    output: LinearId,
}

impl Network for MpNet {
    fn forward(&self, tape: &mut Tape<'_>, batch: &Batch) -> Var {
        let inputs = Inputs::new(batch);
        let x = tape.embedding(self.word_embeddings, inputs.ids.clone());
        let positions = tape.embedding(self.position_embeddings, inputs.position_ids(FIRST_POSITION));
        let x = tape.add(x, positions);
        let mut x = self.norm.forward(tape, x);
        for (index, layer) in self.layers.iter().enumerate() {
            let read = Read::First.in_layer(index, self.layers.len());
            x = layer.forward(tape, &inputs, read, &self.attention, x);
        }
        let x = tape.linear(x, self.dense);
        let x = tape.map(x, Map::Tanh);
        tape.linear(x, self.output)
    }

    fn first_position(&self) -> usize {
        FIRST_POSITION
    }
}
