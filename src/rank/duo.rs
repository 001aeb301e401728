//! Comparing the best two by two.

use crate::error::{Error, Result};

use super::budget::Spent;
use super::stage::{Applied, Context, Kept, Placed, Stage};

/// Says which of two documents answers a query better: a model that reads all three texts together, or a service.
pub trait Preference: Sync {
    /// For each pair, how likely the first is the better one, from 0 to 1. What it cost is told too.
    ///
    /// # Errors
    /// Those of the model.
    fn prefer(&self, query: &str, pairs: &[(&str, &str)]) -> Result<(Vec<f64>, Spent)>;
}

impl<P: Preference + ?Sized> Preference for Box<P> {
    fn prefer(&self, query: &str, pairs: &[(&str, &str)]) -> Result<(Vec<f64>, Spent)> {
        (**self).prefer(query, pairs)
    }
}

impl<P: Preference + ?Sized> Preference for &P {
    fn prefer(&self, query: &str, pairs: &[(&str, &str)]) -> Result<(Vec<f64>, Spent)> {
        (**self).prefer(query, pairs)
    }
}

/// How preferences become one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Aggregate {
    /// Thurstone's case V: the least squares fit of one number for each document to the z of every preference. A clear preference
    /// counts for more than a narrow one.
    /// Source: Mosteller, Psychometrika 1951; the link is that of zELO, `(1 + erf(z)) / 2`.
    #[default]
    Thurstone,
    /// The sum of a document's preferences over all others.
    /// Source: Pradeep, Nogueira and Lin, arXiv 2101.05667 (duoT5's SUM).
    Sum,
}

/// A preference nearer to 0 or 1 than this says no more than this: one certain answer must not decide everything.
const LEAST_DOUBT: f64 = 0.01;

/// Compares each of the first `depth` with each other, in both orders, so that a liking for the first text of a pair cancels
/// out. That is `depth * (depth - 1)` pairs: for the last ten or twenty.
#[derive(Debug, Clone)]
pub struct Duo<P> {
    name: String,
    preference: P,
    depth: usize,
    aggregate: Aggregate,
    batch_pairs: usize,
}

impl<P: Preference> Duo<P> {
    /// Compares the first `depth`, and keeps them.
    #[must_use]
    pub fn new(preference: P, depth: usize) -> Self {
        Self { name: "duo".into(), preference, depth, aggregate: Aggregate::Thurstone, batch_pairs: 16 }
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How preferences become one order.
    #[must_use]
    pub fn aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }

    /// Pairs asked at a time; at least 1.
    #[must_use]
    pub fn batch_pairs(mut self, pairs: usize) -> Self {
        self.batch_pairs = pairs.max(1);
        self
    }
}

impl<P: Preference> Stage for Duo<P> {
    fn name(&self) -> &str {
        &self.name
    }

    /// If the budget ends it before all pairs are compared, the order stays as it came.
    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let head = &incoming[..incoming.len().min(self.depth)];
        let texts = context.texts(head);
        let count = head.len();
        let pairs: Vec<(usize, usize)> =
            (0..count).flat_map(|a| (0..count).filter(move |b| *b != a).map(move |b| (a, b))).collect();
        // preferred[a][b]: how likely a is better than b, the mean of both orders.
        let mut preferred = vec![vec![0.5; count]; count];
        for batch in pairs.chunks(self.batch_pairs) {
            if let stop @ Some(_) = context.meter.stop() {
                return Ok(Applied::unchanged(head).stop(stop));
            }
            let asked: Vec<(&str, &str)> = batch.iter().map(|&(a, b)| (texts[a], texts[b])).collect();
            let (found, spent) = self.preference.prefer(context.query(), &asked)?;
            context.meter.spend(spent);
            let broken = |problem| Error::Stage { stage: self.name.clone(), problem };
            if found.len() != batch.len() {
                return Err(broken(format!("{} preferences for {} pairs", found.len(), batch.len())));
            }
            if let Some(wrong) = found.iter().find(|value| !(0.0..=1.0).contains(*value)) {
                return Err(broken(format!("a preference is {wrong}; it is from 0 to 1")));
            }
            for (&(a, b), probability) in batch.iter().zip(found) {
                preferred[a][b] += (probability - 0.5) / 2.0;
                preferred[b][a] -= (probability - 0.5) / 2.0;
            }
        }
        let value = |a: usize| -> f64 {
            let of = (0..count).filter(|b| *b != a).map(|b| preferred[a][b]);
            match self.aggregate {
                Aggregate::Sum => of.sum(),
                // Every document is compared with every other: the least squares fit is the mean.
                Aggregate::Thurstone => of.map(z).sum::<f64>() / count as f64,
            }
        };
        let mut kept: Vec<Kept> = head
            .iter()
            .enumerate()
            .map(|(a, placed)| Kept { index: placed.index, value: value(a) })
            .collect();
        kept.sort_by(|a, b| b.value.total_cmp(&a.value));
        Ok(Applied::new(kept).read(count))
    }
}

/// The z of which `(1 + erf(z)) / 2` is the probability, by Newton's method; from the logistic curve's, which is near it.
fn z(probability: f64) -> f64 {
    let p = probability.clamp(LEAST_DOUBT, 1.0 - LEAST_DOUBT);
    let mut z = (p / (1.0 - p)).ln() / 2.4;
    for _ in 0..6 {
        let slope = (-z * z).exp() / std::f64::consts::PI.sqrt();
        z -= (0.5 * libm::erfc(-z) - p) / slope;
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_is_the_inverse_of_the_link() {
        for p in [0.01, 0.02, 0.1, 0.3, 0.5, 0.77, 0.9, 0.99] {
            assert!((0.5 * libm::erfc(-z(p)) - p).abs() < 1e-14, "{p}");
        }
        assert_eq!(z(0.5), 0.0);
        assert_eq!((z(0.0), z(1.0)), (z(0.01), z(0.99)));
    }
}
