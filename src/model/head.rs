//! Heads: hidden states to one logit a pair, or to one vector a text.
//!
//! Every published head is a way to pool the tokens of a pair into one vector, and a few layers over it. Those that
//! compare a language model's answers ("yes" against "no") are a dense layer too: its one row is the difference of
//! the two rows of the output matrix. No other row is ever read.

use crate::batch::{Batch, Read};
use crate::error::Result;
use crate::nn::{Activation, LayerNorm, Linear, Matrix, Run};
use crate::weights::Scope;

use super::{Sizes, Trunk};

/// How the tokens of a pair become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    First,
    /// The last token.
    Last,
    /// The mean of all tokens.
    Mean,
    /// The largest value of each feature.
    Max,
}

enum Layer {
    Dense(Linear, Activation),
    Norm(LayerNorm),
    UnitLength,
}

/// Shorter vectors are divided by this instead of by their length, as in PyTorch's `normalize`.
const LEAST_LENGTH: f32 = 1e-12;

/// A pooling and the layers over it. In a reranker the last one has one output.
pub struct Head {
    pooling: Pooling,
    layers: Vec<Layer>,
}

impl Head {
    /// A pooling alone; layers follow.
    #[must_use]
    pub fn new(pooling: Pooling) -> Self {
        Self { pooling, layers: Vec::new() }
    }

    /// Adds a dense layer.
    #[must_use]
    pub fn dense(mut self, linear: Linear, activation: Activation) -> Self {
        self.layers.push(Layer::Dense(linear, activation));
        self
    }

    /// Adds a LayerNorm.
    #[must_use]
    pub fn norm(mut self, norm: LayerNorm) -> Self {
        self.layers.push(Layer::Norm(norm));
        self
    }

    /// Divides what there is by its Euclidean length.
    #[must_use]
    pub fn unit_length(mut self) -> Self {
        self.layers.push(Layer::UnitLength);
        self
    }

    /// The number of values for each pair, of a trunk that gives `hidden` for each token.
    #[must_use]
    pub fn outputs(&self, hidden: usize) -> usize {
        self.layers.iter().fold(hidden, |width, layer| match layer {
            Layer::Dense(linear, _) => linear.out_features(),
            Layer::Norm(_) | Layer::UnitLength => width,
        })
    }

    /// In a few words, for `jointly inspect`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut words =
            vec![format!("{:?} token", self.pooling).to_lowercase().replace("mean token", "mean")];
        for layer in &self.layers {
            words.push(match layer {
                Layer::Dense(linear, Activation::Identity) => format!("dense({})", linear.out_features()),
                Layer::Dense(linear, activation) => {
                    format!("dense({}, {})", linear.out_features(), format!("{activation:?}").to_lowercase())
                }
                Layer::Norm(_) => "layer_norm".to_string(),
                Layer::UnitLength => "unit length".to_string(),
            });
        }
        words.join(" -> ")
    }

    /// The hidden states that [`Head::forward`] needs.
    #[must_use]
    pub fn reads(&self) -> Read {
        match self.pooling {
            Pooling::First => Read::First,
            Pooling::Last => Read::Last,
            Pooling::Mean | Pooling::Max => Read::All,
        }
    }

    /// The values of each pair after those of the one before, `[B · outputs]`: of a reranker one logit each. `hidden` holds the rows that `read` says, at least those of [`Head::reads`].
    #[must_use]
    pub fn forward(&self, run: &mut Run<'_>, hidden: Matrix, (batch, read): (&Batch, Read)) -> Vec<f32> {
        let mut x = if read == Read::All { self.pool(&hidden, batch) } else { hidden };
        for layer in &self.layers {
            match layer {
                Layer::Dense(linear, activation) => {
                    x = linear.forward_then(run.kernels, &x, *activation, None);
                }
                Layer::Norm(norm) => norm.forward(run.kernels, &mut x),
                Layer::UnitLength => {
                    x = x.into_host(); // a few rows
                    x.data.chunks_exact_mut(x.cols).for_each(unit_length);
                }
            }
        }
        x.into_host().data.to_vec()
    }

    fn pool(&self, hidden: &Matrix, batch: &Batch) -> Matrix {
        if hidden.tensor().is_some() {
            let ends = batch.cu_seqlens.windows(2);
            return match self.pooling {
                Pooling::First => hidden.take(ends.map(|ends| ends[0])),
                Pooling::Last => hidden.take(ends.map(|ends| ends[1] - 1)),
                Pooling::Mean => hidden.pooled(&batch.cu_seqlens, false),
                Pooling::Max => hidden.pooled(&batch.cu_seqlens, true),
            };
        }
        let sequences = batch.sequences();
        let mut pooled = Matrix::zeros(sequences.len(), hidden.cols);
        for (pair, rows) in sequences.map(|sequence| sequence.rows).enumerate() {
            let pooled = pooled.row_mut(pair);
            match self.pooling {
                Pooling::First => pooled.copy_from_slice(hidden.row(rows.start)),
                Pooling::Last => pooled.copy_from_slice(hidden.row(rows.end - 1)),
                Pooling::Mean => {
                    let count = rows.len() as f64;
                    // f64: a sum of 8,192 rows in f32 would lose three digits.
                    let mut sums = vec![0.0_f64; hidden.cols];
                    for row in rows {
                        for (sum, value) in sums.iter_mut().zip(hidden.row(row)) {
                            *sum += f64::from(*value);
                        }
                    }
                    for (value, sum) in pooled.iter_mut().zip(sums) {
                        *value = (sum / count) as f32;
                    }
                }
                Pooling::Max => {
                    pooled.fill(f32::NEG_INFINITY);
                    for row in rows {
                        for (most, value) in pooled.iter_mut().zip(hidden.row(row)) {
                            // Not `max`, which would lose a NaN.
                            if *value > *most || value.is_nan() {
                                *most = *value;
                            }
                        }
                    }
                }
            }
        }
        pooled
    }
}

fn unit_length(values: &mut [f32]) {
    let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    let length = (squares.sqrt() as f32).max(LEAST_LENGTH);
    values.iter_mut().for_each(|value| *value /= length);
}

/// The head that reads a language model's answer at the last token: the logit of `positive`, less that of `negative`.
///
/// # Errors
/// Those of [`Scope::table`]; [`NoScoreHead`](crate::Error::NoScoreHead) for an id beyond the vocabulary.
pub fn answer(root: &Scope<'_>, trunk: &dyn Trunk, positive: u32, negative: Option<u32>) -> Result<Head> {
    let Sizes { hidden, vocab, .. } = trunk.sizes();
    // A checkpoint with tied embeddings has no output matrix of its own.
    let output = if root.has("lm_head.weight") {
        root.at("lm_head").table("weight", vocab, hidden)?
    } else {
        root.at_optional("model").at("embed_tokens").table("weight", vocab, hidden)?
    };
    let row = |id: u32| -> Result<Vec<f32>> {
        if id as usize >= vocab {
            return Err(
                root.no_score_head(format!("answer token {id} is not among the {vocab} of the vocabulary"))
            );
        }
        let mut values = vec![0.0; hidden];
        output.read(id as usize, &mut values);
        Ok(values)
    };
    let mut weight = row(positive)?;
    if let Some(negative) = negative {
        for (value, other) in weight.iter_mut().zip(row(negative)?) {
            *value -= other;
        }
    }
    let linear = Linear::from_rows(root, &Matrix::new(weight, 1, hidden), None)?;
    Ok(Head::new(Pooling::Last).dense(linear, Activation::Identity))
}

/// Refuses a checkpoint that lacks its score head.
pub(super) fn require(scope: &Scope<'_>, tensor: &str) -> Result<()> {
    if scope.has(tensor) {
        return Ok(());
    }
    Err(scope.no_score_head(format!("tensor {tensor} is missing; this is a trunk, not a trained reranker")))
}
