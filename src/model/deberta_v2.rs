//! DeBERTa-v2 and v3: disentangled attention. Papers: arXiv 2006.03654, 2111.09543. Layer names and order of
//! operations: Transformers' `modeling_deberta_v2.py`. What differs from BERT: no positions are added to the
//! embeddings (unless `position_biased_input`); instead each score has terms from content to relative position (c2p)
//! and from relative position to content (p2c), with distances in logarithmic buckets.

use jointly_cuda::{Bias, Distances, Relative};
use jointly_kernels::{Epilogue, Kernels, PackedMatrix, Precision, View, ViewMut};

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
    name: "DeBERTa-v2",
    model_types: &["deberta-v2"],
    load: |config, scope| Ok(Box::new(DebertaV2::load(config, &scope.at_optional("deberta"))?)),
    head: |config, scope| {
        let hidden = config.size("hidden_size")?;
        let pooled = config.size_or("pooler_hidden_size", hidden)?;
        if pooled != hidden {
            return Err(config.error("pooler_hidden_size", format!("{pooled} is not hidden_size {hidden}")));
        }
        let activation = config.activation_or("pooler_hidden_act", Activation::Gelu)?;
        head::require(scope, "classifier.weight")?;
        Ok(Head::new(Pooling::First)
            .dense(Linear::load(&scope.at("pooler.dense"), hidden, hidden)?, activation)
            .dense(Linear::load(&scope.at("classifier"), hidden, 1)?, Activation::Identity))
    },
};

const ATTENTION: AttentionNames = AttentionNames {
    scope: "attention.self",
    query: "query_proj",
    key: "key_proj",
    value: "value_proj",
    output: "attention.output.dense",
    norm: "attention.output.LayerNorm",
};

struct DebertaV2 {
    word_embeddings: Embedding,
    position_embeddings: Option<Embedding>,
    token_type_embeddings: Option<Embedding>,
    norm: LayerNorm,
    project: Option<Linear>,
    layers: Vec<(EncoderLayer, RelativeKeys)>,
    attention: AttentionShape,
    buckets: Option<Buckets>,
    /// The buckets of all distances, on the device that computes.
    on_device: Option<Distances>,
    sizes: Sizes,
}

/// How far apart query and key are, as a row of the table of relative positions.
#[derive(Clone, Copy)]
struct Buckets {
    /// Rows of the table on each side.
    span: i64,
    /// The number of logarithmic buckets, or 0 where each distance has its own row.
    log_buckets: i64,
    max_position: i64,
}

impl Buckets {
    /// The row for `distance` = query position - key position.
    fn row(self, distance: i64) -> usize {
        let bucket = if self.log_buckets > 0 { self.log_bucket(distance) } else { distance };
        (bucket + self.span).clamp(0, 2 * self.span - 1) as usize
    }

    /// Distances up to half the buckets are their own bucket; beyond, buckets grow with the logarithm.
    fn log_bucket(self, distance: i64) -> i64 {
        let mid = self.log_buckets / 2;
        if distance.abs() <= mid {
            return distance;
        }
        // In f32, as in Transformers: the ceiling of a value at a bucket's border must come out the same.
        let growth =
            (distance.abs() as f32 / mid as f32).ln() / ((self.max_position - 1) as f32 / mid as f32).ln();
        distance.signum() * ((growth * (mid - 1) as f32).ceil() as i64 + mid)
    }
}

/// The projections of the table of relative positions, by head, packed for products with queries and keys.
struct RelativeKeys {
    /// c2p: keys of positions, for each head `[2 · span, head_dim]`.
    keys: Option<PositionTable>,
    /// p2c: queries of positions, likewise.
    queries: Option<PositionTable>,
}

/// By head `[2 · span, head_dim]`; on a device all heads side by side.
enum PositionTable {
    ByHead(Vec<PackedMatrix>),
    OnDevice(Relative),
}

impl DebertaV2 {
    fn load(config: &Config, scope: &Scope<'_>) -> Result<Self> {
        let hidden = config.size("hidden_size")?;
        let embedding_size = config.size_or("embedding_size", hidden)?;
        let eps = config.number_or("layer_norm_eps", 1e-7)? as f32;
        let vocab = config.size("vocab_size")?;
        let types = config.count("type_vocab_size")?.unwrap_or(0);
        let max_length = config.size("max_position_embeddings")?;
        if config.count("conv_kernel_size")?.unwrap_or(0) > 0 {
            return Err(config
                .error("conv_kernel_size", "the convolution of the v2 xlarge models is not implemented"));
        }
        let encoder = scope.at("encoder");
        let embeddings = scope.at("embeddings");
        let mut attention = encoder_layer::full_attention(config)?;

        let kinds = position_kinds(config)?;
        let relative = config.flag_or("relative_attention", false)?;
        // max_relative_positions below 1 means "as many as there are positions".
        let stated = config.get("max_relative_positions").and_then(serde_json::Value::as_i64).unwrap_or(-1);
        let max_position = if stated >= 1 { stated.min(1 << 22) } else { max_length as i64 };
        let log_buckets = match config.get("position_buckets").and_then(serde_json::Value::as_i64) {
            Some(buckets) if (1..4).contains(&buckets) || buckets > 1 << 20 => {
                return Err(config.error("position_buckets", format!("{buckets} is not a usable number")));
            }
            Some(buckets) => buckets.max(0),
            None => 0,
        };
        if log_buckets > 0 && max_position - 1 <= log_buckets / 2 {
            // The logarithmic buckets lie between the two; the growth from one to the next would be none, or infinite.
            let problem = format!("{log_buckets} buckets are too many for {max_position} positions");
            return Err(config.error("position_buckets", problem));
        }
        let span = if log_buckets > 0 { log_buckets } else { max_position };
        let buckets = relative.then_some(Buckets { span, log_buckets, max_position });

        let mut relative_table = None;
        if let Some(buckets) = buckets {
            let terms = 1 + usize::from(kinds.c2p) + usize::from(kinds.p2c);
            attention.scale = 1.0 / ((attention.head_dim * terms) as f32).sqrt();
            let rows = 2 * buckets.span as usize;
            let values = encoder.values("rel_embeddings.weight", &[rows, hidden])?;
            let mut table = Matrix::new(values, rows, hidden);
            if config.text_or("norm_rel_ebd", "none")?.contains("layer_norm") {
                LayerNorm::load(&encoder.at("LayerNorm"), hidden, eps)?
                    .forward(encoder.kernels(), &mut table);
            }
            relative_table = Some(table);
        }
        let shared = config.flag_or("share_att_key", false)?;
        let mut layers = Vec::new();
        for (index, layer) in EncoderLayer::load_all(config, &encoder, &ATTENTION)?.into_iter().enumerate() {
            let scope = encoder.at("layer").at(index).at("attention.self");
            let project = |wanted: bool, name: &str, own: &str| -> Result<Option<PositionTable>> {
                let Some(table) = relative_table.as_ref().filter(|_| wanted) else { return Ok(None) };
                let linear =
                    Linear::load_optional_bias(&scope.at(if shared { name } else { own }), hidden, hidden)?;
                let projected = linear.forward(scope.kernels(), table);
                Ok(Some(match projected.tensor() {
                    Some(tensor) => PositionTable::OnDevice(Relative(tensor.clone())),
                    None => PositionTable::ByHead(by_head(scope.kernels(), &projected, &attention)),
                }))
            };
            let keys = project(kinds.c2p, "key_proj", "pos_key_proj")?;
            let queries = project(kinds.p2c, "query_proj", "pos_query_proj")?;
            layers.push((layer, RelativeKeys { keys, queries }));
        }
        let optional = |wanted: bool, name: &str, rows: usize| -> Result<Option<Embedding>> {
            if wanted {
                Embedding::load(&embeddings.at(name), rows, embedding_size).map(Some)
            } else {
                Ok(None)
            }
        };
        let project = if embedding_size == hidden {
            None
        } else {
            Some(Linear::load_optional_bias(&embeddings.at("embed_proj"), embedding_size, hidden)?)
        };
        let positions = config.flag_or("position_biased_input", true)?;
        let on_device = match (&scope.form().device, buckets) {
            (Some(device), Some(buckets)) => {
                let distances = 1 - max_length as i64..max_length as i64;
                let rows: Vec<u32> = distances.map(|distance| buckets.row(distance) as u32).collect();
                Some(nn::device::loaded(device, device.buckets(&rows, max_length))?)
            }
            _ => None,
        };
        Ok(Self {
            word_embeddings: Embedding::load(&embeddings.at("word_embeddings"), vocab, embedding_size)?,
            position_embeddings: optional(positions, "position_embeddings", max_length)?,
            token_type_embeddings: optional(types > 0, "token_type_embeddings", types)?,
            norm: LayerNorm::load(&embeddings.at("LayerNorm"), hidden, eps)?,
            project,
            sizes: Sizes { hidden, layers: layers.len(), max_length, vocab, types },
            layers,
            attention,
            buckets,
            on_device,
        })
    }
}

/// Which of the two relative terms the model has.
struct PositionKinds {
    c2p: bool,
    p2c: bool,
}

fn position_kinds(config: &Config) -> Result<PositionKinds> {
    // Published as a list, and in old files as one string with bars between.
    let kinds = match config.get("pos_att_type") {
        None => String::new(),
        Some(serde_json::Value::String(kinds)) => kinds.clone(),
        Some(list) => list.to_string(),
    };
    if kinds.contains("p2p") {
        return Err(config.error("pos_att_type", "p2p is not implemented"));
    }
    Ok(PositionKinds { c2p: kinds.contains("c2p"), p2c: kinds.contains("p2c") })
}

/// Splits the columns of `[rows, heads · head_dim]` into a packed `[rows, head_dim]` for each head.
fn by_head(kernels: &Kernels, table: &Matrix, shape: &AttentionShape) -> Vec<PackedMatrix> {
    (0..shape.heads)
        .map(|head| {
            let columns = head * shape.head_dim..(head + 1) * shape.head_dim;
            kernels.packed(table.part(0..table.rows, columns), Precision::F32)
        })
        .collect()
}

/// The relative terms of one layer.
struct Disentangled<'a> {
    kernels: &'a Kernels,
    scale: f32,
    keys: &'a RelativeKeys,
    buckets: Buckets,
    on_device: Option<&'a Distances>,
}

impl Disentangled<'_> {
    /// Queries or keys of one head times the positions: `[rows, 2 · span]`.
    fn product(&self, content: View<'_>, positions: &PositionTable, head: usize) -> Option<Matrix> {
        let PositionTable::ByHead(positions) = positions else { return None };
        let positions = &positions[head];
        let mut product = Matrix::reused(content.rows, positions.n());
        self.kernels.matmul(content, positions, Epilogue::NONE, product.view_mut());
        Some(product)
    }
}

impl<'a> ScoreBias for Disentangled<'a> {
    fn add(&self, block: &Block<'_>, mut scores: ViewMut<'_>) {
        let Block { head, rows, keys, queries, key_vectors } = block;
        let c2p = self.keys.keys.as_ref().and_then(|positions| self.product(*queries, positions, *head));
        let p2c =
            self.keys.queries.as_ref().and_then(|positions| self.product(*key_vectors, positions, *head));
        // The table row of every distance that occurs in this block, counted from the smallest.
        let smallest = rows.start as i64 - keys.end as i64 + 1;
        let table: Vec<usize> =
            (smallest..(rows.end - keys.start) as i64).map(|distance| self.buckets.row(distance)).collect();
        for i in 0..rows.len() {
            for (j, score) in scores.row_mut(i).iter_mut().enumerate() {
                let distance = (rows.start + i) as i64 - (keys.start + j) as i64;
                let row = table[(distance - smallest) as usize];
                let mut bias = 0.0;
                if let Some(c2p) = &c2p {
                    bias += c2p.row(i)[row] * self.scale;
                }
                if let Some(p2c) = &p2c {
                    bias += p2c.row(j)[row] * self.scale;
                }
                *score += bias;
            }
        }
    }

    fn on_device(&self) -> Bias<'_> {
        let table = |table: &'a Option<PositionTable>| match table {
            Some(PositionTable::OnDevice(table)) => Some(table),
            _ => None,
        };
        let Some(buckets) = self.on_device else { return Bias::None };
        Bias::Disentangled { buckets, keys: table(&self.keys.keys), queries: table(&self.keys.queries) }
    }
}

impl Trunk for DebertaV2 {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn forward(&self, run: &mut Run<'_>, batch: &Batch, read: Read) -> Matrix {
        let mut x = self.word_embeddings.forward(batch.own_ids());
        if let Some(embeddings) = &self.position_embeddings {
            embeddings.add_to(&mut x, batch.positions(Read::All));
        }
        if let Some(embeddings) = &self.token_type_embeddings {
            embeddings.add_to(&mut x, batch.own_types());
        }
        if let Some(project) = &self.project {
            x = project.forward(run.kernels, &x);
        }
        self.norm.forward(run.kernels, &mut x);
        run.trace(format_args!("embeddings"), &x);
        let (kernels, scale) = (run.kernels, self.attention.scale);
        for (index, (layer, keys)) in self.layers.iter().enumerate() {
            let bias = self.buckets.map(|buckets| Disentangled {
                kernels,
                scale,
                keys,
                buckets,
                on_device: self.on_device.as_ref(),
            });
            let bias = bias.as_ref().map(|bias| bias as &dyn ScoreBias);
            let read = read.in_layer(index, self.layers.len());
            x = layer.forward(run, (batch, read), &self.attention, bias, &x);
            run.trace(format_args!("layer{index}"), &x);
        }
        x
    }
}
