use serde::Serialize;

use super::Example;
use crate::significance::Interval;

/// How good probabilities are, on labelled pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How many pairs.
    pub pairs: usize,
    /// How many of them are relevant.
    pub relevant: usize,
    /// The mean of `-ln` of the probability of what was so.
    pub log_loss: f64,
    /// The mean square of the error, and what it consists of.
    pub brier: Brier,
    /// Bins of equal width.
    pub equal_width: Reliability,
    /// Bins of as many pairs each.
    pub equal_mass: Reliability,
}

/// The Brier score and its parts, over the bins of equal mass:
/// `score = reliability - resolution + uncertainty + within`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Brier {
    /// The mean of `(probability - label)^2`.
    pub score: f64,
    /// How far the bins lie from what they say. Smaller is better.
    pub reliability: f64,
    /// How far what is so differs between the bins. Larger is better.
    pub resolution: f64,
    /// What no score can change: that of saying the share of relevant pairs always.
    pub uncertainty: f64,
    /// What the bins are too coarse for.
    pub within: f64,
}

/// A reliability table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// The expected calibration error: the mean distance between what a bin says and what is so, by the number of pairs.
    pub ece: f64,
    /// The largest such distance.
    pub mce: f64,
    /// The bins that hold a pair, from the lowest probability to the highest.
    pub bins: Vec<Bin>,
}

/// Pairs of like probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bin {
    /// The lowest probability in it.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// How many pairs.
    pub pairs: usize,
    /// The mean probability: what it says.
    pub said: f64,
    /// The share that is relevant: what is so.
    pub found: f64,
    /// Wilson's interval of that share, at 95 %.
    pub interval: Interval,
}

impl Report {
    /// Of the probabilities that `probability` gives, with as many bins of each kind. All zero for no example.
    pub fn new(examples: &[Example], probability: impl Fn(f64) -> f64, bins: usize) -> Self {
        let mut pairs: Vec<(f64, bool)> =
            examples.iter().map(|example| (probability(example.logit), example.relevant)).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let bins = bins.max(1);
        let mean = |values: &mut dyn Iterator<Item = f64>| crate::data::mean(values);
        let relevant = pairs.iter().filter(|pair| pair.1).count();
        let place = |p: f64| ((p * bins as f64) as usize).min(bins - 1);
        let equal_width = Reliability::new(pairs.chunk_by(|a, b| place(a.0) == place(b.0)), pairs.len());
        let mass = pairs.chunk_by(|a, b| a.0 == b.0).collect::<Vec<_>>();
        let equal_mass = Reliability::new(equal_masses(&pairs, &mass, bins).into_iter(), pairs.len());
        let score = mean(&mut pairs.iter().map(|&(p, relevant)| (p - f64::from(u8::from(relevant))).powi(2)));
        let base = relevant as f64 / pairs.len().max(1) as f64;
        let over = |value: &dyn Fn(&Bin) -> f64| -> f64 {
            let sum: f64 = equal_mass.bins.iter().map(|bin| bin.pairs as f64 * value(bin)).sum();
            sum / pairs.len().max(1) as f64
        };
        let (reliability, resolution) =
            (over(&|bin| (bin.said - bin.found).powi(2)), over(&|bin| (bin.found - base).powi(2)));
        let uncertainty = base * (1.0 - base);
        let within = score - (reliability - resolution + uncertainty);
        Self {
            pairs: pairs.len(),
            relevant,
            log_loss: mean(&mut pairs.iter().map(|&(p, relevant)| log_loss_of(p, relevant))),
            brier: Brier { score, reliability, resolution, uncertainty, within },
            equal_width,
            equal_mass,
        }
    }
}

impl Reliability {
    fn new<'a>(parts: impl Iterator<Item = &'a [(f64, bool)]>, all: usize) -> Self {
        let bins: Vec<Bin> = parts.filter_map(Bin::new).collect();
        let gap = |bin: &Bin| (bin.said - bin.found).abs();
        let sum: f64 = bins.iter().map(|bin| bin.pairs as f64 * gap(bin)).sum();
        Self { ece: sum / all.max(1) as f64, mce: bins.iter().map(gap).fold(0.0, f64::max), bins }
    }
}

impl Bin {
    /// None for no pair. `pairs` is sorted.
    fn new(pairs: &[(f64, bool)]) -> Option<Self> {
        let (first, last) = (pairs.first()?, pairs.last()?);
        let relevant = pairs.iter().filter(|pair| pair.1).count();
        Some(Self {
            low: first.0,
            high: last.0,
            pairs: pairs.len(),
            said: crate::data::mean(pairs.iter().map(|pair| pair.0)),
            found: relevant as f64 / pairs.len() as f64,
            interval: wilson(relevant, pairs.len()),
        })
    }
}

/// Sorted pairs in as many parts of about the same size; those of one probability stay together.
fn equal_masses<'a>(
    pairs: &'a [(f64, bool)],
    tied: &[&[(f64, bool)]],
    bins: usize,
) -> Vec<&'a [(f64, bool)]> {
    let mut parts = Vec::new();
    let (mut start, mut end) = (0, 0);
    for same in tied {
        end += same.len();
        // This part ends where the next bin would begin.
        if end * bins >= (parts.len() + 1) * pairs.len() {
            parts.push(&pairs[start..end]);
            start = end;
        }
    }
    if start < end {
        parts.push(&pairs[start..end]);
    }
    parts
}

/// Wilson's score interval of a share, at 95 %; from 0 to 1 for nothing.
pub fn wilson(found: usize, of: usize) -> Interval {
    const Z: f64 = 1.959_963_984_540_054;
    if of == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = of as f64;
    let p = found as f64 / n;
    let scale = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

/// `-ln` of the probability of what was so. Finite: a certainty that is wrong counts as one of 1e-15.
pub(super) fn log_loss_of(probability: f64, relevant: bool) -> f64 {
    let of_what_was_so = if relevant { probability } else { 1.0 - probability };
    -of_what_was_so.max(1e-15).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pairs: &[(f64, u8)], bins: usize) -> Report {
        let examples: Vec<Example> =
            pairs.iter().map(|&(logit, label)| Example { logit, relevant: label == 1 }).collect();
        Report::new(&examples, |p| p, bins)
    }

    #[test]
    fn by_hand() {
        let report = report(&[(0.2, 0), (0.2, 1), (0.9, 1), (0.9, 1)], 2);
        // Bins [0.2, 0.2] with half relevant, [0.9, 0.9] with all.
        assert!((report.equal_width.ece - (0.5 * 0.3 + 0.5 * 0.1)).abs() < 1e-12);
        assert!((report.equal_width.mce - 0.3).abs() < 1e-12);
        assert_eq!(report.equal_mass.bins, report.equal_width.bins);
        assert!((report.brier.score - (0.04 + 0.64 + 0.01 + 0.01) / 4.0).abs() < 1e-12);
        assert!((report.brier.reliability - (0.09 + 0.01) / 2.0).abs() < 1e-12);
        assert!((report.brier.resolution - 0.0625).abs() < 1e-12);
        assert!((report.brier.uncertainty - 0.1875).abs() < 1e-12);
        assert!(report.brier.within.abs() < 1e-12, "each bin says one thing");
        let expected = -(0.8_f64.ln() + 0.2_f64.ln() + 2.0 * 0.9_f64.ln()) / 4.0;
        assert!((report.log_loss - expected).abs() < 1e-12);
        assert_eq!((report.pairs, report.relevant), (4, 3));
    }

    #[test]
    fn ends_ties_and_nothing() {
        let report = |pairs: &[(f64, u8)]| report(pairs, 10);
        let all_tied = report(&[(0.5, 1); 7]);
        assert_eq!(all_tied.equal_mass.bins.len(), 1);
        let ends = report(&[(0.0, 0), (1.0, 1), (1.0, 0)]);
        assert!(ends.log_loss.is_finite() && ends.log_loss > 10.0);
        assert_eq!(ends.equal_width.bins.len(), 2);
        assert_eq!(report(&[]).equal_mass, Reliability { ece: 0.0, mce: 0.0, bins: Vec::new() });
        let many: Vec<(f64, u8)> = (0..1000).map(|i| (f64::from(i) / 1000.0, (i % 2) as u8)).collect();
        assert!(report(&many).equal_mass.bins.iter().all(|bin| bin.pairs == 100));
    }

    #[test]
    fn wilsons_interval() {
        // Newcombe, Statistics in Medicine 17, 1998: 81 of 263.
        let interval = wilson(81, 263);
        assert!(
            (interval.low - 0.2553).abs() < 5e-5 && (interval.high - 0.3662).abs() < 5e-5,
            "{interval:?}"
        );
        assert_eq!(wilson(0, 10).low, 0.0);
        assert!((wilson(10, 10).high - 1.0).abs() < 1e-12);
    }
}
