//! What the layers' inputs look like, and how int8 makes use of it.
//!
//! A token's 8 bits are spread over the range of its features. A few features of a norm's output are often twenty times as
//! large as the rest, which are left with a handful of steps. So a model in int8 is first run in f32 over a few texts, to see
//! what each feature does; then each is centred and divided by a factor, and the weight and the bias make up for it (SmoothQuant,
//! arXiv 2211.10438, here with the centre as well). In exact arithmetic nothing changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Matrix;

/// How much of a feature's range moves into the weight: the square root of it, so that both have steps of like size.
const SHARE: f32 = 0.5;
/// No feature counts as smaller than this part of the mean one: a few texts do not show all that it can do.
const FLOOR: f32 = 0.5;

/// What one feature of a layer's input was seen to do.
#[derive(Debug, Clone, Copy)]
struct Feature {
    sum: f64,
    low: f32,
    high: f32,
}

/// The input of one layer.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    rows: usize,
    features: Vec<Feature>,
}

/// The inputs of all layers, by the names of their weights.
#[derive(Debug, Default)]
pub struct Inputs(Mutex<HashMap<String, Seen>>);

/// What a layer that is being loaded has to do with [`Inputs`].
#[derive(Debug, Clone, Default)]
pub enum Observation {
    /// Nothing.
    #[default]
    None,
    /// Record them.
    Record(Arc<Inputs>),
    /// Use what was recorded.
    Use(Arc<Inputs>),
}

impl Inputs {
    /// Counts the rows of `input` as seen by the layer `name`.
    pub fn record(&self, name: &str, input: &Matrix) {
        // A thread that panicked elsewhere leaves the numbers whole.
        let mut inputs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = inputs.entry(name.to_string()).or_default();
        let nothing = Feature { sum: 0.0, low: f32::INFINITY, high: f32::NEG_INFINITY };
        seen.features.resize(input.cols, nothing);
        seen.rows += input.rows;
        for row in 0..input.rows {
            for (feature, &x) in seen.features.iter_mut().zip(input.row(row)) {
                feature.sum += f64::from(x);
                feature.low = feature.low.min(x);
                feature.high = feature.high.max(x);
            }
        }
    }

    /// What the layer `name` saw, if it saw anything.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Seen> {
        let inputs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.get(name).filter(|seen| seen.rows > 0 && !seen.features.is_empty()).cloned()
    }
}

/// What int8 does to the input of a layer, by feature: `x * factor + offset`.
#[derive(Debug)]
pub struct Smoothing {
    /// `[in_features]`
    pub factor: Vec<f32>,
    /// `[in_features]`
    pub offset: Vec<f32>,
}

impl Seen {
    /// Divides `weight` `[out_features, in_features]` by the factors, and adds what the offsets take away to `bias`
    /// `[out_features]`.
    #[must_use]
    pub fn smooth(&self, weight: &mut [f32], bias: &mut [f32]) -> Smoothing {
        let features = self.features.len();
        let mean: Vec<f32> =
            self.features.iter().map(|feature| (feature.sum / self.rows as f64) as f32).collect();
        let reach: Vec<f32> = self
            .features
            .iter()
            .zip(&mean)
            .map(|(feature, mean)| (feature.high - mean).max(mean - feature.low))
            .collect();
        let mut largest = vec![0.0_f32; features];
        for (row, bias) in weight.chunks_exact(features).zip(&mut *bias) {
            let mut shift = 0.0;
            for ((largest, w), mean) in largest.iter_mut().zip(row).zip(&mean) {
                *largest = largest.max(w.abs());
                shift += f64::from(*w) * f64::from(*mean);
            }
            *bias = (f64::from(*bias) + shift) as f32;
        }
        let root = |values: &[f32]| -> Vec<f32> {
            let floor = values.iter().sum::<f32>() / values.len() as f32 * FLOOR;
            // All zero: nothing to share.
            values
                .iter()
                .map(|value| value.max(floor).powf(SHARE))
                .map(|r| if r > 0.0 { r } else { 1.0 })
                .collect()
        };
        let factor: Vec<f32> = root(&largest).iter().zip(root(&reach)).map(|(w, x)| w / x).collect();
        for row in weight.chunks_exact_mut(features) {
            row.iter_mut().zip(&factor).for_each(|(w, factor)| *w /= factor);
        }
        let offset = mean.iter().zip(&factor).map(|(mean, factor)| -mean * factor).collect();
        Smoothing { factor, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In exact arithmetic the layer stays what it was, and features end up of like size.
    #[test]
    fn smoothing_changes_nothing_but_the_sizes() {
        let input = Matrix::new(vec![1.0, -40.0, 0.0, 3.0, -44.0, 0.0, 2.0, -36.0, 0.0], 3, 3);
        let (weight, bias) = (vec![0.5, 0.25, -1.0, -0.125, 1.0, 2.0], vec![1.0, -1.0]);
        let inputs = Inputs::default();
        inputs.record("layer", &input);
        assert!(inputs.of("another").is_none());
        let (mut new_weight, mut new_bias) = (weight.clone(), bias.clone());
        let smoothing = inputs.of("layer").unwrap().smooth(&mut new_weight, &mut new_bias);
        let product = |w: &[f32], b: f32, x: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + b;
        let mut sizes = [0.0_f32; 3];
        for row in 0..3 {
            let x = input.row(row);
            let new: Vec<f32> =
                (0..3).map(|k| x[k].mul_add(smoothing.factor[k], smoothing.offset[k])).collect();
            sizes.iter_mut().zip(&new).for_each(|(size, x)| *size = size.max(x.abs()));
            for j in 0..2 {
                let before = product(&weight[3 * j..3 * j + 3], bias[j], x);
                let after = product(&new_weight[3 * j..3 * j + 3], new_bias[j], &new);
                assert!((before - after).abs() < 1e-4, "{before} became {after}");
            }
        }
        assert_eq!(sizes[2], 0.0);
        assert!(sizes[1] / sizes[0] < 4.0, "44 times as large before, now {sizes:?}");
    }
}
