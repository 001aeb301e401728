//! What a cheaper precision, a quantisation or a new version of a model does to the **order**: two lists of scores for the
//! same documents, query by query.
//!
//! ```
//! use jointly_eval::audit::{Audit, Scored};
//!
//! let query = Scored { query: "q".into(), reference: vec![3.0, 2.9, 1.0], candidate: vec![2.9, 3.0, 1.0] };
//! let audit = Audit::new(&[query])?;
//! assert_eq!(audit.flips.iter().map(|bin| bin.flipped).sum::<u64>(), 1);
//! assert_eq!(audit.overlap[1].1.mean(), 1.0); // of the first three
//! # Ok::<(), jointly_eval::Error>(())
//! ```

use std::fmt;

use serde::Serialize;

use crate::agreement::{kendall_tau_b, overlap_at, rbo};
use crate::data::{PerQuery, mean};
use crate::error::{Error, Result};
use crate::significance::{Comparison, Interval, bootstrap_interval, fewest_queries};

/// Cut-offs of the overlaps.
pub const CUTOFFS: [usize; 4] = [1, 3, 5, 10];

/// Where one bin of margins ends and the next begins, in standard deviations of the reference's scores within a query.
pub const MARGINS: [f64; 7] = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, f64::INFINITY];

/// How patient the reader of rank-biased overlap is.
pub const RBO_P: f64 = 0.9;

const ALPHA: f64 = 0.05;
const ROUNDS: usize = 10_000;
const SEED: u64 = 1;

/// The scores of a query's documents, by both.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The query's id.
    pub query: String,
    /// What the reference gave each document.
    pub reference: Vec<f64>,
    /// What the candidate gave it.
    pub candidate: Vec<f64>,
}

/// The candidate beside the reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audit {
    /// How many queries.
    pub queries: usize,
    /// How many documents, over all queries.
    pub pairs: usize,
    /// Candidate minus reference, of each document.
    pub difference: Difference,
    /// Pairs of documents of one query that the reference tells apart, by how far.
    pub flips: Vec<Flips>,
    /// Pairs of documents that the reference tells apart and the candidate gives one score.
    pub ties_created: u64,
    /// Pairs that the reference gives one score and the candidate tells apart.
    pub ties_broken: u64,
    /// For each of [`CUTOFFS`], the share of the first k documents that both have.
    pub overlap: Vec<(usize, PerQuery)>,
    /// Kendall's tau-b of each query in which both tell documents apart.
    pub tau: PerQuery,
    /// Queries without a tau: one of the two gives all documents one score.
    pub without_tau: usize,
    /// Rank-biased overlap of each query.
    pub rbo: PerQuery,
}

/// How the scores differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// The mean.
    pub mean: f64,
    /// The mean distance.
    pub mean_distance: f64,
    /// The median of the distances.
    pub median_distance: f64,
    /// The distance that 90 % do not exceed.
    pub p90_distance: f64,
    /// The distance that 99 % do not exceed.
    pub p99_distance: f64,
    /// The largest distance.
    pub largest_distance: f64,
    /// The standard deviation of the reference's scores within a query, over all queries: what the distances are to be
    /// measured by.
    pub spread: f64,
}

/// Pairs of documents between which the reference's margin lies in one range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Flips {
    /// Margins from here on, in spreads.
    pub from: f64,
    /// Up to here; none for the last range.
    pub to: Option<f64>,
    /// How many pairs.
    pub pairs: u64,
    /// How many of them the candidate puts the other way round.
    pub flipped: u64,
}

impl Audit {
    /// Of at least one query with at least one document; documents of one score keep their order in both rankings.
    ///
    /// # Errors
    /// [`Error::TooFewQueries`], [`Error::NotPaired`] for lists of different lengths, [`Error::ValueNotFinite`].
    pub fn new(queries: &[Scored]) -> Result<Self> {
        for Scored { query, reference, candidate } in queries {
            if reference.len() != candidate.len() {
                return Err(Error::NotPaired { query: query.clone() });
            }
            if let Some(value) = reference.iter().chain(candidate).find(|score| !score.is_finite()) {
                return Err(Error::ValueNotFinite { query: query.clone(), value: *value });
            }
        }
        let pairs: usize = queries.iter().map(|query| query.reference.len()).sum();
        if pairs == 0 {
            return Err(Error::TooFewQueries { found: 0 });
        }
        let difference = Difference::new(queries);
        let mut audit = Self {
            queries: queries.len(),
            pairs,
            difference,
            flips: MARGINS
                .iter()
                .scan(0.0, |from, &to| {
                    let bin = Flips { from: *from, to: to.is_finite().then_some(to), pairs: 0, flipped: 0 };
                    *from = to;
                    Some(bin)
                })
                .collect(),
            ties_created: 0,
            ties_broken: 0,
            overlap: CUTOFFS.iter().map(|&k| (k, PerQuery::default())).collect(),
            tau: PerQuery::default(),
            without_tau: 0,
            rbo: PerQuery::default(),
        };
        for scored in queries {
            audit.add(scored);
        }
        Ok(audit)
    }

    fn add(&mut self, Scored { query, reference, candidate }: &Scored) {
        let spread = self.difference.spread;
        for i in 0..reference.len() {
            for j in 0..i {
                let (by_reference, by_candidate) = (reference[i] - reference[j], candidate[i] - candidate[j]);
                if by_reference == 0.0 {
                    self.ties_broken += u64::from(by_candidate != 0.0);
                    continue;
                }
                self.ties_created += u64::from(by_candidate == 0.0);
                // With a difference the spread is above 0.
                let margin = by_reference.abs() / spread;
                let bin = MARGINS.partition_point(|to| *to <= margin).min(MARGINS.len() - 1);
                self.flips[bin].pairs += 1;
                self.flips[bin].flipped +=
                    u64::from((by_reference > 0.0) != (by_candidate > 0.0) && by_candidate != 0.0);
            }
        }
        let (by_reference, by_candidate) = (ranking(reference), ranking(candidate));
        for (k, overlap) in &mut self.overlap {
            overlap.0.insert(query.clone(), overlap_at(&by_reference, &by_candidate, *k));
        }
        match kendall_tau_b(reference, candidate) {
            Some(tau) => drop(self.tau.0.insert(query.clone(), tau)),
            None => self.without_tau += 1,
        }
        self.rbo.0.insert(query.clone(), rbo(&by_reference, &by_candidate, RBO_P));
    }
}

impl Difference {
    fn new(queries: &[Scored]) -> Self {
        let differences = || {
            queries.iter().flat_map(|query| query.candidate.iter().zip(&query.reference)).map(|(c, r)| c - r)
        };
        let mut distances: Vec<f64> = differences().map(f64::abs).collect();
        distances.sort_unstable_by(f64::total_cmp);
        let quantile = |share: f64| {
            let place = (share * distances.len() as f64).ceil() as usize;
            distances.get(place.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        let squares = queries.iter().flat_map(|query| {
            let centre = mean(query.reference.iter().copied());
            query.reference.iter().map(move |score| (score - centre).powi(2))
        });
        Self {
            mean: mean(differences()),
            mean_distance: mean(distances.iter().copied()),
            median_distance: quantile(0.5),
            p90_distance: quantile(0.9),
            p99_distance: quantile(0.99),
            largest_distance: quantile(1.0),
            spread: mean(squares).sqrt(),
        }
    }
}

/// Indices of documents, the highest score first; equal ones as they stand.
pub fn ranking(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Whether something holds, as far as these queries can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was shown to hold.
    Holds,
    /// It was shown not to hold.
    Fails,
    /// Neither.
    TooFewQueries,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::Fails => "fails",
            Self::TooFewQueries => "too few queries to tell",
        })
    }
}

/// Whether the mean of a value over queries like these is `limit` at least: it holds if the whole bootstrap interval (95 %)
/// does, and fails if none of it does. Fewer than six queries cannot tell.
pub fn at_least(values: &PerQuery, limit: f64) -> (Interval, Outcome) {
    let list: Vec<f64> = values.0.values().copied().collect();
    let interval = bootstrap_interval(&list, 1.0 - ALPHA, ROUNDS, SEED);
    let outcome = if list.len() < fewest_queries(ALPHA) {
        Outcome::TooFewQueries
    } else if interval.low >= limit {
        Outcome::Holds
    } else if interval.high < limit {
        Outcome::Fails
    } else {
        Outcome::TooFewQueries
    };
    (interval, outcome)
}

/// Whether the candidate of a comparison loses less than its margin. It fails if a loss was shown, and a loss below the margin
/// was not.
pub fn loses_less(comparison: &Comparison, alpha: f64) -> Outcome {
    if comparison.shows_no_loss() {
        Outcome::Holds
    } else if comparison.queries >= fewest_queries(alpha)
        && comparison.difference < 0.0
        && comparison.different.holm <= alpha
    {
        Outcome::Fails
    } else {
        Outcome::TooFewQueries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::significance::{CompareOptions, compare};

    fn scored(query: &str, reference: &[f64], candidate: &[f64]) -> Scored {
        Scored { query: query.into(), reference: reference.to_vec(), candidate: candidate.to_vec() }
    }

    #[test]
    fn by_hand() {
        // Within the query the scores lie 1, 0 and 1 from their mean: the spread is sqrt(2/3).
        let audit = Audit::new(&[scored("q", &[3.0, 2.0, 1.0], &[2.0, 2.5, 1.0])]).unwrap();
        let Difference { mean, mean_distance, median_distance, largest_distance, spread, .. } =
            audit.difference;
        assert!((spread - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((mean + 0.5 / 3.0).abs() < 1e-12 && (mean_distance - 0.5).abs() < 1e-12);
        assert_eq!((median_distance, largest_distance), (0.5, 1.0));
        // All margins (1 and 2) are above one spread.
        let last = audit.flips[MARGINS.len() - 1];
        assert_eq!((last.from, last.to, last.pairs, last.flipped), (1.0, None, 3, 1));
        assert_eq!(audit.overlap.iter().map(|(_, of)| of.mean()).collect::<Vec<_>>(), [0.0, 1.0, 1.0, 1.0]);
        assert!((audit.tau.mean() - 1.0 / 3.0).abs() < 1e-12);
        assert!(audit.rbo.mean() < 1.0);
        assert_eq!((audit.ties_created, audit.ties_broken), (0, 0));
    }

    #[test]
    fn ties_and_constants() {
        let audit = Audit::new(&[
            scored("created", &[1.0, 2.0, 3.0], &[1.0, 1.0, 3.0]),
            scored("broken", &[1.0, 1.0, 3.0], &[1.0, 2.0, 3.0]),
            scored("constant", &[1.0, 1.0], &[1.0, 1.0]),
            scored("lone", &[1.0], &[5.0]),
        ])
        .unwrap();
        assert_eq!((audit.ties_created, audit.ties_broken, audit.without_tau), (1, 1, 2));
        assert_eq!(audit.flips.iter().map(|bin| bin.flipped).sum::<u64>(), 0, "a tie is no flip");
        assert_eq!((audit.queries, audit.pairs), (4, 9));
        // Margins that lie on an edge belong to the range above.
        let edge = Audit::new(&[scored("q", &[1.0, -1.0], &[1.0, -1.0])]).unwrap();
        assert_eq!(edge.flips[MARGINS.len() - 1].pairs, 1);
        assert!(Audit::new(&[]).is_err());
        assert!(Audit::new(&[scored("q", &[1.0], &[])]).unwrap_err().to_string().contains('q'));
        assert!(Audit::new(&[scored("q", &[1.0], &[f64::NAN])]).is_err());
    }

    #[test]
    fn outcomes() {
        let values = |values: &[f64]| -> PerQuery {
            values.iter().enumerate().map(|(i, value)| (format!("q{i}"), *value)).collect()
        };
        assert_eq!(at_least(&values(&[0.99; 20]), 0.95).1, Outcome::Holds);
        assert_eq!(at_least(&values(&[0.9; 20]), 0.95).1, Outcome::Fails);
        assert_eq!(at_least(&values(&[0.99; 5]), 0.95).1, Outcome::TooFewQueries);
        assert_eq!(at_least(&values(&[1.0, 0.9, 1.0, 0.9, 1.0, 0.9, 0.95]), 0.95).1, Outcome::TooFewQueries);
        let zero = values(&[0.0; 60]);
        let outcome = |mean: f64, spread: f64| {
            let differences: Vec<f64> =
                (0..60).map(|i| if i % 2 == 0 { mean + spread } else { mean - spread }).collect();
            loses_less(
                &compare(&zero, &values(&differences), CompareOptions::new().margin(0.01)).unwrap(),
                0.05,
            )
        };
        assert_eq!(outcome(0.0, 0.001), Outcome::Holds);
        assert_eq!(outcome(-0.005, 0.001), Outcome::Holds, "a loss, but a small one");
        assert_eq!(outcome(-0.05, 0.001), Outcome::Fails);
        assert_eq!(outcome(0.0, 0.2), Outcome::TooFewQueries);
    }
}
