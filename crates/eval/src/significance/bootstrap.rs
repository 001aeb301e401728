use serde::Serialize;

use super::rng::Rng;
use crate::data::mean;

/// An interval, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The percentile bootstrap interval of the mean: queries are drawn with replacement, `rounds` times, and the middle
/// share `level` (0.95, say) of the means is given. For fewer than about 20 queries it is too narrow, as every bootstrap
/// is. NaN for no values or no rounds.
///
/// Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13; between two means it interpolates
/// as numpy's `percentile` does.
pub fn bootstrap_interval(values: &[f64], level: f64, rounds: usize, seed: u64) -> Interval {
    if values.is_empty() || rounds == 0 {
        return Interval { low: f64::NAN, high: f64::NAN };
    }
    let mut rng = Rng::new(seed);
    let mut means: Vec<f64> =
        (0..rounds).map(|_| mean((0..values.len()).map(|_| values[rng.below(values.len())]))).collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = ((1.0 - level) / 2.0).clamp(0.0, 0.5);
    Interval { low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) }
}

pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() as f64 - 1.0);
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_all_resamples() {
        // All 5^5 resamples of five values.
        let values = [0.0, 0.1, 0.15, 0.4, 1.0];
        let mut all = Vec::new();
        for code in 0..5_usize.pow(5) {
            all.push(mean((0..5).map(|i| values[code / 5_usize.pow(i) % 5])));
        }
        all.sort_unstable_by(f64::total_cmp);
        for level in [0.5, 0.8, 0.95] {
            let found = bootstrap_interval(&values, level, 100_000, 1);
            for (found, share) in [(found.low, (1.0 - level) / 2.0), (found.high, (1.0 + level) / 2.0)] {
                // The share of resamples below the end is what was asked for, within one step of the means.
                let below = all.iter().filter(|mean| **mean < found - 1e-9).count() as f64 / all.len() as f64;
                let upto = all.iter().filter(|mean| **mean <= found + 1e-9).count() as f64 / all.len() as f64;
                assert!(below <= share + 0.005 && share <= upto + 0.005, "{level}: {below} {share} {upto}");
            }
        }
    }

    #[test]
    fn ends() {
        assert_eq!(bootstrap_interval(&[0.3], 0.95, 100, 1), Interval { low: 0.3, high: 0.3 });
        assert!(bootstrap_interval(&[], 0.95, 100, 1).low.is_nan());
    }
}
