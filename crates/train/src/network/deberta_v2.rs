//! DeBERTa v2 and v3: BERT's layers with disentangled relative positions. Papers: arXiv 2006.03654, 2111.09543. Order of
//! operations and names: Transformers' `modeling_deberta_v2.py`.

use std::sync::Arc;

use jointly::batch::{Batch, Read};
use jointly::nn::Activation;
use jointly_kernels::Map;

use super::bert::{AttentionNames, EncoderLayer, full_attention};
use super::{Architecture, Inputs, Network, Norm, map, segment_ids};
use crate::error::Error;
use crate::parameters::{LinearId, ParameterId};
use crate::tape::{Bias, Disentangled, Distances, Shape, Tape, Var};

pub(super) const DEBERTA_V2: Architecture = Architecture {
    model_types: &["deberta-v2"],
    class: "DebertaV2ForSequenceClassification",
    build: |config, builder| {
        let hidden = config.size("hidden_size")?;
        let embedding = config.size_or("embedding_size", hidden)?;
        let eps = config.number_or("layer_norm_eps", 1e-7)? as f32;
        let segments = config.count("type_vocab_size")?.unwrap_or(0);
        let positions = config.size("max_position_embeddings")?;
        let refuse = |field: &str, problem: &str| Err(Error::from(config.error(field, problem)));
        if config.count("conv_kernel_size")?.unwrap_or(0) > 0 {
            return refuse("conv_kernel_size", "the convolution of the v2 xlarge models is not implemented");
        }
        let kinds = config.get("pos_att_type").map(ToString::to_string).unwrap_or_default();
        let relative = config.flag_or("relative_attention", false)?;
        let [c2p, p2c] = ["c2p", "p2c"].map(|kind| relative && kinds.contains(kind));

        let mut trunk = builder.at_optional("deberta");
        let mut embeddings = trunk.at("embeddings");
        let word_embeddings = embeddings.table("word_embeddings", config.size("vocab_size")?, embedding)?;
        let position_embeddings = match config.flag_or("position_biased_input", true)? {
            true => Some(embeddings.table("position_embeddings", positions, embedding)?),
            false => None,
        };
        let token_type_embeddings = match segments {
            0 => None,
            _ => Some(embeddings.table("token_type_embeddings", segments, embedding)?),
        };
        let project = match embedding == hidden {
            true => None,
            false => Some(embeddings.linear("embed_proj", embedding, hidden)?),
        };
        let norm = embeddings.norm("LayerNorm", hidden, eps)?;

        let mut encoder = trunk.at("encoder");
        let mut attention = full_attention(config, Bias::None)?;
        let stated = config.get("max_relative_positions").and_then(serde_json::Value::as_i64).unwrap_or(-1);
        let max_position = if stated >= 1 { stated } else { positions as i64 };
        let buckets = config.get("position_buckets").and_then(serde_json::Value::as_i64).unwrap_or(-1).max(0);
        if buckets > 0 && (buckets < 4 || max_position - 1 <= buckets / 2) {
            return refuse("position_buckets", "is not a usable number");
        }
        let span = if buckets > 0 { buckets } else { max_position };
        let mut relative_positions = None;
        if relative {
            let terms = 1 + usize::from(c2p) + usize::from(p2c);
            attention.scale = 1.0 / ((attention.head_dim * terms) as f32).sqrt();
            let table = encoder.table("rel_embeddings", 2 * span as usize, hidden)?;
            let norm = match config.text_or("norm_rel_ebd", "none")?.contains("layer_norm") {
                true => Some(encoder.norm("LayerNorm", hidden, eps)?),
                false => None,
            };
            let row = |distance| (bucket(distance, buckets, max_position) + span).clamp(0, 2 * span - 1);
            let distances = Arc::new(Distances::new(positions, |distance| row(distance) as usize));
            relative_positions = Some(Positions { table, norm, distances });
        }
        let layers = EncoderLayer::build_all(config, &mut encoder, &ATTENTION)?;
        let shared = config.flag_or("share_att_key", false)?;
        let layers = layers.into_iter().enumerate().map(|(index, layer)| {
            let mut scopes = encoder.at("layer");
            let mut scope = scopes.at(index);
            let mut own = |wanted: bool, shared_with: LinearId, name: &str| match (wanted, shared) {
                (false, _) => Ok(None),
                (true, true) => Ok(Some(shared_with)),
                (true, false) => scope.linear(name, hidden, hidden).map(Some),
            };
            let keys = own(c2p, layer.projections[1], "attention.self.pos_key_proj")?;
            let queries = own(p2c, layer.projections[0], "attention.self.pos_query_proj")?;
            Ok(Layer { layer, position_keys: keys, position_queries: queries })
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        let activation = map(config.activation_or("pooler_hidden_act", Activation::Gelu)?);
        Ok(Box::new(DebertaV2 {
            word_embeddings,
            position_embeddings,
            token_type_embeddings,
            norm,
            project,
            layers,
            attention,
            relative_positions,
            dense: builder.at("pooler").head("dense", hidden, hidden, true)?,
            activation,
            output: builder.head("classifier", hidden, 1, true)?,
        }))
    },
};

const ATTENTION: AttentionNames = AttentionNames {
    projections: ["attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"],
    output: "attention.output.dense",
    norm: "attention.output.LayerNorm",
};

/// Distances up to half the buckets are their own bucket; beyond, buckets grow with the logarithm.
fn bucket(distance: i64, buckets: i64, max_position: i64) -> i64 {
    let mid = buckets / 2;
    if buckets == 0 || distance.abs() <= mid {
        return distance;
    }
    // In f32, as in Transformers: the ceiling of a value at a bucket's border must come out the same.
    let growth = (distance.abs() as f32 / mid as f32).ln() / ((max_position - 1) as f32 / mid as f32).ln();
    distance.signum() * ((growth * (mid - 1) as f32).ceil() as i64 + mid)
}

/// The table of relative positions that all layers project.
struct Positions {
    table: ParameterId,
    norm: Option<Norm>,
    distances: Arc<Distances>,
}

struct Layer {
    layer: EncoderLayer,
    position_keys: Option<LinearId>,
    position_queries: Option<LinearId>,
}

struct DebertaV2 {
    word_embeddings: ParameterId,
    position_embeddings: Option<ParameterId>,
    token_type_embeddings: Option<ParameterId>,
    norm: Norm,
    project: Option<LinearId>,
    layers: Vec<Layer>,
    attention: Shape,
    relative_positions: Option<Positions>,
    dense: LinearId,
    activation: Map,
    output: LinearId,
}

impl Network for DebertaV2 {
    fn forward(&self, tape: &mut Tape<'_>, batch: &Batch) -> Var {
        let inputs = Inputs::new(batch);
        let mut x = tape.embedding(self.word_embeddings, inputs.ids.clone());
        if let Some(table) = self.position_embeddings {
            let positions = tape.embedding(table, inputs.position_ids(0));
            x = tape.add(x, positions);
        }
        if let Some(table) = self.token_type_embeddings {
            let segments = tape.embedding(table, segment_ids(batch));
            x = tape.add(x, segments);
        }
        if let Some(project) = self.project {
            x = tape.linear(x, project);
        }
        x = self.norm.forward(tape, x);
        let relative = self.relative_positions.as_ref().map(|positions| {
            let table = tape.parameter(positions.table);
            let table = positions.norm.as_ref().map_or(table, |norm| norm.forward(tape, table));
            (table, &positions.distances)
        });
        for (index, Layer { layer, position_keys, position_queries }) in self.layers.iter().enumerate() {
            let mut shape = self.attention.clone();
            if let Some((table, distances)) = &relative {
                let mut project = |linear: Option<LinearId>| linear.map(|linear| tape.linear(*table, linear));
                let (keys, queries) = (project(*position_keys), project(*position_queries));
                shape.bias = Bias::Disentangled(Disentangled { keys, queries, rows: (*distances).clone() });
            }
            let read = Read::First.in_layer(index, self.layers.len());
            x = layer.forward(tape, &inputs, read, &shape, x);
        }
        let x = tape.linear(x, self.dense);
        let x = tape.map(x, self.activation);
        tape.linear(x, self.output)
    }
}
