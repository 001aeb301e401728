//! The arithmetic of a forward pass, from the shape that `config.json` states: products of matrices only, two operations
//! for each product that is added, without padding and without keys that a query does not see.

use jointly::batch::Read;
use jointly::files::ModelFiles;
use jointly::model::ARCHITECTURES;
use jointly::model::config::Config;
use serde::Deserialize;

/// Operations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flops {
    /// Those with a weight on one side.
    pub weights: f64,
    /// Those of attention.
    pub attention: f64,
}

impl Flops {
    pub fn total(self) -> f64 {
        self.weights + self.attention
    }
}

impl std::ops::AddAssign for Flops {
    fn add_assign(&mut self, other: Self) {
        self.weights += other.weights;
        self.attention += other.attention;
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sees {
    All,
    Before,
    Near(usize),
}

impl Sees {
    /// The pairs of a query of `rows` and a key that it sees.
    fn count(self, rows: std::ops::Range<usize>, length: usize) -> usize {
        match self {
            Self::All => rows.len() * length,
            Self::Before => rows.map(|row| row + 1).sum(),
            Self::Near(reach) => {
                rows.map(|row| (row + reach + 1).min(length) - row.saturating_sub(reach)).sum()
            }
        }
    }
}

/// What the arithmetic depends on.
#[derive(Debug)]
pub struct Shape {
    hidden: usize,
    embedding: usize,
    intermediate: usize,
    /// Matrices of the feed-forward: two, or three with a gate.
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    layers: Vec<Sees>,
    /// DeBERTa: rows of the table of relative positions that queries, and keys, are multiplied with.
    relative: [usize; 2],
}

impl Shape {
    /// The shape of a model; `None` if it is not known for its architecture.
    pub fn read(files: &ModelFiles) -> jointly::Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Module {
            path: String,
            r#type: String,
        }
        let modules: Option<Vec<Module>> = files.optional_json("modules.json")?;
        let trunk = modules.into_iter().flatten().find(|module| module.r#type.ends_with("Transformer"));
        let name = match trunk {
            Some(trunk) if !trunk.path.is_empty() => format!("{}/config.json", trunk.path),
            _ => "config.json".into(),
        };
        Self::of(&Config::read(files, &name)?)
    }

    fn of(config: &Config) -> jointly::Result<Option<Self>> {
        let hidden = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        let count = config.size("num_hidden_layers")?;
        let mut shape = Self {
            hidden,
            embedding: hidden,
            intermediate: config.size("intermediate_size")?,
            feed_forward: 2,
            heads,
            kv_heads: heads,
            head_dim: config.size_or("head_dim", hidden / heads)?,
            layers: vec![Sees::All; count],
            relative: [0, 0],
        };
        let model_type = config.text_or("model_type", "")?;
        let architecture = ARCHITECTURES.iter().find(|entry| entry.model_types.contains(&model_type));
        match architecture.map_or("", |architecture| architecture.name) {
            "BERT" | "RoBERTa" | "XLM-RoBERTa" | "MPNet" => {}
            "ELECTRA" => shape.embedding = config.size_or("embedding_size", hidden)?,
            "DeBERTa-v2" => {
                shape.embedding = config.size_or("embedding_size", hidden)?;
                if config.flag_or("relative_attention", false)? {
                    let number = |field: &str| {
                        config.get(field).and_then(serde_json::Value::as_u64).filter(|value| *value > 0)
                    };
                    let span = match number("position_buckets").or(number("max_relative_positions")) {
                        Some(span) => span as usize,
                        None => config.size("max_position_embeddings")?,
                    };
                    let kinds = config.get("pos_att_type").map_or(String::new(), ToString::to_string);
                    shape.relative =
                        ["c2p", "p2c"].map(|kind| if kinds.contains(kind) { 2 * span } else { 0 });
                }
            }
            "ModernBERT" => {
                shape.feed_forward = 3;
                let reach = config.size_or("local_attention", 128)? / 2;
                let every = config.size_or("global_attn_every_n_layers", 3)?;
                for (index, sees) in shape.layers.iter_mut().enumerate() {
                    let is_global = match config.get("layer_types").and_then(|types| types.get(index)) {
                        Some(kind) => kind == "full_attention",
                        None => index.is_multiple_of(every),
                    };
                    if !is_global {
                        *sees = Sees::Near(reach);
                    }
                }
            }
            "Qwen2" | "Qwen3" => {
                shape.feed_forward = 3;
                shape.kv_heads = config.size_or("num_key_value_heads", heads)?;
                shape.layers.fill(Sees::Before);
            }
            _ => return Ok(None),
        }
        Ok(Some(shape))
    }

    /// A pair of `length` tokens: with `Read::All` all of it, else what is left when the last layer computes only the rows
    /// that the head reads.
    pub fn pair(&self, length: usize, read: Read) -> Flops {
        let mut flops = Flops::default();
        if self.embedding != self.hidden {
            flops.weights += 2.0 * (length * self.embedding * self.hidden) as f64;
        }
        let inner = self.heads * self.head_dim;
        // Keys and values of all tokens; queries, the output of attention, and the feed-forward of those that go on.
        let keys_values = 2 * self.hidden * self.kv_heads * self.head_dim;
        let others = 2 * self.hidden * inner + self.feed_forward * self.hidden * self.intermediate;
        for (index, sees) in self.layers.iter().enumerate() {
            let rows = read.in_layer(index, self.layers.len()).rows(length);
            let [positions, of_keys] = self.relative;
            flops.weights += 2.0 * (length * keys_values + rows.len() * others) as f64;
            let relative = rows.len() * positions + length * of_keys;
            flops.attention += 2.0 * (inner * (2 * sees.count(rows, length) + relative)) as f64;
        }
        flops
    }
}

/// The rows that a model's head reads, from the first word of its description.
pub fn reads(head: &str) -> Read {
    match head.split(' ').next() {
        Some("first") => Read::First,
        Some("last") => Read::Last,
        _ => Read::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(folder: &str) -> Shape {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(folder);
        let files = ModelFiles::open(&path).unwrap();
        Shape::read(&files).unwrap().unwrap()
    }

    #[test]
    fn every_architecture_has_a_shape() {
        for architecture in ARCHITECTURES {
            for model_type in architecture.model_types {
                let folder = tempfile::tempdir().unwrap();
                let config = serde_json::json!({
                    "model_type": model_type, "hidden_size": 8, "num_attention_heads": 2,
                    "num_hidden_layers": 2, "intermediate_size": 16, "max_position_embeddings": 32,
                });
                std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
                let files = ModelFiles::open(folder.path()).unwrap();
                assert!(
                    Shape::read(&files).unwrap().is_some(),
                    "{model_type}: say its arithmetic in flops.rs"
                );
            }
        }
    }

    /// By hand, from the configurations.
    #[test]
    fn the_sums_are_those_of_the_papers() {
        let bert = Shape { relative: [0, 0], ..shape("tiny-bert") };
        let (h, i, n) = (bert.hidden, bert.intermediate, 7);
        let layer = 2 * n * (4 * h * h + 2 * h * i);
        let layers = bert.layers.len();
        let full = bert.pair(n, Read::All);
        assert_eq!(full.weights, (layers * layer) as f64);
        assert_eq!(full.attention, (layers * 4 * n * n * h) as f64);
        let part = bert.pair(n, Read::First);
        let last = 2 * n * 2 * h * h + 2 * (2 * h * h + 2 * h * i);
        assert_eq!(part.weights, ((layers - 1) * layer + last) as f64);
        assert_eq!(part.attention, ((layers - 1) * 4 * n * n * h + 4 * n * h) as f64);

        let qwen = shape("tiny-qwen3");
        assert_eq!((qwen.heads, qwen.kv_heads, qwen.head_dim, qwen.layers[0]), (4, 2, 10, Sees::Before));
        let modern = shape("tiny-modernbert");
        assert_eq!(
            modern.layers,
            [Sees::All, Sees::Near(5), Sees::Near(5), Sees::All, Sees::Near(5)],
            "every third layer sees all"
        );
        assert_eq!(shape("tiny-deberta-v2").relative, [16, 16]);
        assert_eq!(shape("tiny-electra").embedding, 20);
        assert_eq!(shape("tiny-ettin").feed_forward, 3);
    }

    #[test]
    fn queries_see_what_their_masks_show() {
        assert_eq!(Sees::All.count(0..5, 5), 25);
        assert_eq!(Sees::Before.count(0..5, 5), 15);
        assert_eq!(Sees::Before.count(4..5, 5), 5);
        assert_eq!(Sees::Near(1).count(0..5, 5), 2 + 3 + 3 + 3 + 2);
    }

    #[test]
    fn the_head_says_what_it_reads() {
        use jointly::model::head::{Head, Pooling};
        for pooling in [Pooling::First, Pooling::Last, Pooling::Mean, Pooling::Max] {
            let head = Head::new(pooling);
            assert_eq!(reads(&head.describe()), head.reads(), "{}", head.describe());
        }
    }
}
