use serde::{Deserialize, Serialize};

/// Fewer live scores than this say little: luck alone moves the index by about `bins / scores`.
pub const FEWEST_SCORES: usize = 200;

/// As many pairs in each bin, where scores do not tie.
const BINS: usize = 20;

/// How raw scores were distributed, to compare live ones with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// Where one bin ends and the next begins, rising; a score on an edge belongs to the bin above. The first bin reaches
    /// down without an end, the last one up.
    pub edges: Vec<f64>,
    /// How many scores each bin holds: one more than there are edges.
    pub counts: Vec<u64>,
}

/// How far live scores lie from a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Drift {
    /// How many live scores.
    pub scores: u64,
    /// The population stability index: below 0.1 is taken for the same population, above 0.25 for another one.
    pub psi: f64,
    /// Kolmogorov and Smirnov's largest difference between the two cumulative distributions, at the edges.
    pub ks: f64,
    /// How likely so large a difference is by luck, if pairs were independent.
    pub ks_p: f64,
    /// The share of live scores below the lowest edge, minus what it was.
    pub below: f64,
    /// The share of live scores from the highest edge on, minus what it was.
    pub above: f64,
}

impl Histogram {
    /// Of scores, which are finite; twenty bins of about as many scores each.
    pub fn new(scores: &[f64]) -> Self {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f64::total_cmp);
        let mut edges: Vec<f64> =
            (1..BINS).filter_map(|bin| sorted.get(bin * sorted.len() / BINS).copied()).collect();
        edges.dedup();
        let mut histogram = Self { counts: vec![0; edges.len() + 1], edges };
        histogram.count(scores);
        histogram
    }

    fn count(&mut self, scores: &[f64]) {
        for score in scores {
            self.counts[self.edges.partition_point(|edge| edge <= score)] += 1;
        }
    }

    /// Whether it can be compared with: edges that rise, a count for each bin, and a score at least.
    pub fn is_sound(&self) -> bool {
        self.edges.is_sorted_by(|a, b| a < b)
            && self.counts.len() == self.edges.len() + 1
            && self
                .counts
                .iter()
                .try_fold(0_u64, |sum, count| sum.checked_add(*count))
                .is_some_and(|sum| sum > 0)
    }

    /// Compares live scores with this histogram, which is [sound](Self::is_sound). Half a score is added to each bin, so
    /// that an empty one does not make the index infinite.
    pub fn drift(&self, scores: &[f64]) -> Drift {
        let mut live = Self { counts: vec![0; self.counts.len()], edges: self.edges.clone() };
        live.count(scores);
        let total = |histogram: &Self| histogram.counts.iter().sum::<u64>().max(1) as f64;
        let (stored, found) = (total(self), total(&live));
        let (mut psi, mut ks, mut cumulative) = (0.0, 0.0_f64, 0.0);
        let bins = self.counts.len() as f64;
        for (before, now) in self.counts.iter().zip(&live.counts) {
            let smooth = |count: u64, total: f64| (count as f64 + 0.5) / (total + 0.5 * bins);
            let (p, q) = (smooth(*before, stored), smooth(*now, found));
            psi += (q - p) * (q / p).ln();
            cumulative += *now as f64 / found - *before as f64 / stored;
            ks = ks.max(cumulative.abs());
        }
        let difference = |before: Option<&u64>, now: Option<&u64>| {
            now.map_or(0.0, |now| *now as f64 / found) - before.map_or(0.0, |before| *before as f64 / stored)
        };
        Drift {
            scores: scores.len() as u64,
            psi,
            ks,
            ks_p: kolmogorov(ks, stored * found / (stored + found)),
            below: difference(self.counts.first(), live.counts.first()),
            above: difference(self.counts.last(), live.counts.last()),
        }
    }
}

/// The probability of a difference of `d` or more between samples of the effective size `n`, for many samples.
///
/// Source: Stephens, "Use of the Kolmogorov-Smirnov, Cramer-von Mises and related statistics", JRSS B 32, 1970.
fn kolmogorov(d: f64, n: f64) -> f64 {
    let root = n.sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * d;
    if lambda < 0.2 {
        return 1.0; // the series does not converge, and the sum is 1 to sixteen digits
    }
    let term = |k: i32| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * (f64::from(k) * lambda).powi(2)).exp()
    };
    (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(shift: f64, count: usize) -> Vec<f64> {
        // A golden-ratio sequence: as even as random numbers are on average.
        (0..count).map(|i| (i as f64 * 0.618_033_988_75).fract() * 10.0 - 5.0 + shift).collect()
    }

    #[test]
    fn the_same_scores_do_not_drift_and_shifted_ones_do() {
        let stored = Histogram::new(&scores(0.0, 2000));
        assert!(stored.is_sound());
        assert_eq!(stored.counts, [100; 20]);
        let same = stored.drift(&scores(0.0, 700));
        assert!(same.psi < 0.01 && same.ks < 0.02 && same.ks_p > 0.9, "{same:?}");
        let moved = stored.drift(&scores(2.0, 700));
        assert!(moved.psi > 0.25 && (moved.ks - 0.2).abs() < 0.02 && moved.ks_p < 1e-6, "{moved:?}");
        assert!(moved.above > 0.15 && moved.below < 0.0, "{moved:?}");
    }

    #[test]
    fn by_hand() {
        let stored = Histogram { edges: vec![0.0], counts: vec![50, 50] };
        let live: Vec<f64> = (0..100).map(|i| if i < 25 { -1.0 } else { 0.0 }).collect();
        let drift = stored.drift(&live);
        let (p, q) = ([50.5_f64 / 101.0, 50.5 / 101.0], [25.5_f64 / 101.0, 75.5 / 101.0]);
        let psi: f64 = (0..2).map(|i| (q[i] - p[i]) * (q[i] / p[i]).ln()).sum();
        assert!((drift.psi - psi).abs() < 1e-12);
        assert_eq!((drift.ks, drift.below, drift.above), (0.25, -0.25, 0.25));
        // scipy.special.kolmogorov((sqrt(50) + 0.12 + 0.11 / sqrt(50)) * 0.25)
        assert!((drift.ks_p - 0.003_031_245).abs() < 1e-8, "{}", drift.ks_p);
    }

    #[test]
    fn ties_and_unsound_histograms() {
        let tied = Histogram::new(&[1.0; 50]);
        assert_eq!(tied, Histogram { edges: vec![1.0], counts: vec![0, 50] });
        assert!(tied.drift(&[1.0; 300]).psi < 0.05);
        assert!(tied.drift(&[0.9; 300]).psi > 1.0);
        assert!(!Histogram::new(&[]).is_sound());
        assert!(!Histogram { edges: vec![1.0], counts: vec![1] }.is_sound());
        assert!(!Histogram { edges: vec![1.0, 1.0], counts: vec![1, 1, 1] }.is_sound());
        assert!(!Histogram { edges: vec![], counts: vec![u64::MAX, 1] }.is_sound());
    }
}
