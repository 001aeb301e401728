use std::fmt;

use serde::Serialize;

use super::power::queries_needed_for_equivalence;
use super::{
    Interval, Verdict, bootstrap_interval, detectable_difference, fewest_queries, holm, queries_needed,
    randomisation_p, standard_deviation, tost,
};
use crate::data::{PerQuery, mean};
use crate::error::{Error, Result};

/// How rankers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CompareOptions {
    margin: f64,
    pub(super) alpha: f64,
    power: f64,
    pub(super) rounds: usize,
    pub(super) seed: u64,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self { margin: 0.01, alpha: 0.05, power: 0.8, rounds: 100_000, seed: 1 }
    }
}

impl CompareOptions {
    /// A margin of 0.01, alpha 0.05, power 0.8, 100,000 rounds (a tenth of them for intervals), seed 1.
    pub fn new() -> Self {
        Self::default()
    }

    /// A difference smaller than this does not matter. Above 0.
    pub fn margin(self, margin: f64) -> Self {
        Self { margin, ..self }
    }

    /// How often a verdict may be wrong by luck; the intervals have the level `1 - alpha`. Above 0 and below 0.5.
    pub fn alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// With which probability a difference that can be detected is detected. Above 0.5 and below 1.
    pub fn power(self, power: f64) -> Self {
        Self { power, ..self }
    }

    /// How many assignments the randomisation test tries where there are too many to try all. 1,000 at least.
    pub fn rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    /// Where the random numbers start.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |name, found, expected| Err(Error::Option { name, found, expected });
        if !(self.margin > 0.0 && self.margin.is_finite()) {
            return wrong("margin", self.margin, "above 0");
        }
        if !(self.alpha > 0.0 && self.alpha < 0.5) {
            return wrong("alpha", self.alpha, "above 0 and below 0.5");
        }
        if !(self.power > 0.5 && self.power < 1.0) {
            return wrong("power", self.power, "above 0.5 and below 1");
        }
        if self.rounds < 1000 {
            return wrong("rounds", self.rounds as f64, "1000 at least");
        }
        Ok(())
    }
}

/// A p-value, alone and among the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tested {
    /// As if it were the only test.
    pub p: f64,
    /// After Holm's correction for all candidates that were compared together. Verdicts go by this one.
    pub holm: f64,
}

/// A candidate beside a baseline, query by query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// How many queries both have.
    pub queries: usize,
    /// The baseline's mean.
    pub baseline: f64,
    /// The candidate's mean.
    pub candidate: f64,
    /// Candidate minus baseline.
    pub difference: f64,
    /// The bootstrap interval of the difference.
    pub interval: Interval,
    /// The standard deviation of the differences.
    pub sd: f64,
    /// On how many queries the candidate has the larger value.
    pub wins: usize,
    /// On how many queries the candidate has the smaller value.
    pub losses: usize,
    /// Randomisation test: is there a difference?
    pub different: Tested,
    /// TOST: is the difference smaller than the margin, either way?
    pub equivalent: Tested,
    /// Its lower half: is the loss smaller than the margin?
    pub no_loss: Tested,
    /// The smallest difference that so many queries, differing so much, can be expected to find.
    pub detectable: f64,
    /// What it was computed with.
    pub options: CompareOptions,
}

impl Comparison {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        let CompareOptions { margin, alpha, power, .. } = self.options;
        let is_equivalent = self.equivalent.holm <= alpha;
        let within = is_equivalent.then_some(margin);
        if self.queries >= fewest_queries(alpha) {
            if self.different.holm <= alpha {
                let better = self.difference > 0.0;
                return if better { Verdict::Better { within } } else { Verdict::Worse { within } };
            }
            if is_equivalent {
                return Verdict::Equivalent { within: margin };
            }
        }
        let size = self.difference.abs();
        let for_a_difference = queries_needed(self.sd, size, alpha, power);
        let for_equivalence = (size < margin)
            .then(|| queries_needed_for_equivalence(self.sd, margin - size, alpha, power))
            .flatten();
        let needed = [for_a_difference, for_equivalence].into_iter().flatten().min();
        // An estimate from so few queries can lie below the number that was not enough.
        let needed = needed.map(|needed| needed.max(self.queries + 1));
        Verdict::TooFewQueries { queries: self.queries, detectable: self.detectable, needed }
    }

    /// Whether it was shown that nothing is lost that matters: the loss, if there is one, is smaller than the margin. A
    /// gain of any size passes.
    pub fn shows_no_loss(&self) -> bool {
        self.queries >= fewest_queries(self.options.alpha) && self.no_loss.holm <= self.options.alpha
    }
}

impl fmt::Display for Comparison {
    /// On one line: means, difference with its interval, p-values, what could have been found, verdict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { baseline, candidate, difference, interval, queries, detectable, .. } = self;
        write!(
            f,
            "{baseline:.4} -> {candidate:.4}: {difference:+.4} [{:+.4}, {:+.4}]",
            interval.low, interval.high
        )?;
        write!(f, ", p {:.4}", self.different.p)?;
        if self.different.holm != self.different.p {
            write!(f, " (Holm {:.4})", self.different.holm)?;
        }
        write!(f, "; {queries} queries can find {detectable:.4}; {}", self.verdict())
    }
}

/// Compares a candidate with a baseline on the same queries.
///
/// # Errors
/// [`Error::NotPaired`], [`Error::TooFewQueries`] for fewer than two, [`Error::ValueNotFinite`], and [`Error::Option`].
pub fn compare(baseline: &PerQuery, candidate: &PerQuery, options: CompareOptions) -> Result<Comparison> {
    options.check()?;
    let (queries, differences) = paired(baseline, candidate)?;
    if queries < 2 {
        return Err(Error::TooFewQueries { found: queries });
    }
    let alone = |p| Tested { p, holm: p };
    let CompareOptions { margin, alpha, power, rounds, seed } = options;
    let sd = standard_deviation(&differences);
    let tost = tost(&differences, margin);
    Ok(Comparison {
        queries,
        baseline: baseline.mean(),
        candidate: candidate.mean(),
        difference: mean(differences.iter().copied()),
        interval: bootstrap_interval(&differences, 1.0 - alpha, rounds / 10, seed),
        sd,
        wins: differences.iter().filter(|difference| **difference > 0.0).count(),
        losses: differences.iter().filter(|difference| **difference < 0.0).count(),
        different: alone(randomisation_p(&differences, rounds, seed)),
        equivalent: alone(tost.p()),
        no_loss: alone(tost.p_loss),
        detectable: detectable_difference(sd, queries, alpha, power),
        options,
    })
}

/// Compares candidates with one baseline, and corrects the p-values for their number.
///
/// # Errors
/// Those of [`compare`].
pub fn compare_all(
    baseline: &PerQuery,
    candidates: &[&PerQuery],
    options: CompareOptions,
) -> Result<Vec<Comparison>> {
    let mut all: Vec<Comparison> =
        candidates.iter().map(|candidate| compare(baseline, candidate, options)).collect::<Result<_>>()?;
    let tests: [fn(&mut Comparison) -> &mut Tested; 3] =
        [|all| &mut all.different, |all| &mut all.equivalent, |all| &mut all.no_loss];
    for test in tests {
        let p_values: Vec<f64> = all.iter_mut().map(|comparison| test(comparison).p).collect();
        for (comparison, adjusted) in all.iter_mut().zip(holm(&p_values)) {
            test(comparison).holm = adjusted;
        }
    }
    Ok(all)
}

/// The differences, candidate minus baseline, and how many.
pub(super) fn paired(baseline: &PerQuery, candidate: &PerQuery) -> Result<(usize, Vec<f64>)> {
    let lacks =
        |of: &PerQuery, other: &PerQuery| of.0.keys().find(|query| !other.0.contains_key(*query)).cloned();
    if let Some(query) = lacks(baseline, candidate).or_else(|| lacks(candidate, baseline)) {
        return Err(Error::NotPaired { query });
    }
    for (query, value) in baseline.0.iter().chain(&candidate.0) {
        if !value.is_finite() {
            return Err(Error::ValueNotFinite { query: query.clone(), value: *value });
        }
    }
    let differences: Vec<f64> = candidate.0.values().zip(baseline.0.values()).map(|(c, b)| c - b).collect();
    Ok((differences.len(), differences))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[f64]) -> PerQuery {
        values.iter().enumerate().map(|(i, value)| (format!("q{i:03}"), *value)).collect()
    }

    /// A baseline of 0 everywhere, and a candidate that differs by `mean` and alternately by `spread` more and less.
    fn compared(queries: usize, mean: f64, spread: f64) -> Comparison {
        let candidate: Vec<f64> =
            (0..queries).map(|i| mean + if i % 2 == 0 { spread } else { -spread }).collect();
        compare(&values(&vec![0.0; queries]), &values(&candidate), CompareOptions::new()).unwrap()
    }

    #[test]
    fn five_answers_and_five_wordings() {
        let cases = [
            (compared(100, 0.05, 0.1), "better"),
            (compared(100, -0.05, 0.1), "worse"),
            (compared(400, 0.003, 0.01), "better, but by less than 0.01"),
            (compared(400, 0.0, 0.01), "no difference (equivalent within 0.01)"),
            (
                compared(40, 0.0, 0.1),
                "too few queries to tell (40 can find a difference of 0.0460; about 879 would settle it)",
            ),
        ];
        for (comparison, wording) in cases {
            assert_eq!(comparison.verdict().to_string(), wording, "{comparison}");
        }
    }

    #[test]
    fn a_handful_of_queries_never_gets_a_verdict() {
        for queries in 2..6 {
            for mean in [0.5, 0.0] {
                let comparison = compared(queries, mean, 0.0);
                let verdict = comparison.verdict();
                assert!(matches!(verdict, Verdict::TooFewQueries { .. }), "{queries} {mean}: {verdict}");
                assert!(!comparison.shows_no_loss());
            }
        }
        assert_eq!(compared(6, 0.5, 0.0).verdict(), Verdict::Better { within: None });
    }

    #[test]
    fn no_loss_is_half_of_equivalence() {
        let gain = compared(100, 0.05, 0.1);
        assert!(gain.shows_no_loss() && gain.equivalent.p > 0.05);
        assert!(compared(400, -0.003, 0.01).shows_no_loss());
        assert!(!compared(100, -0.02, 0.1).shows_no_loss());
        assert!(!compared(40, 0.0, 0.1).shows_no_loss());
    }

    #[test]
    fn more_candidates_need_smaller_p_values() {
        let baseline = values(&[0.0; 20]);
        let candidate = values(&(0..20).map(|i| if i % 4 == 0 { -0.1 } else { 0.06 }).collect::<Vec<_>>());
        let one = compare(&baseline, &candidate, CompareOptions::new()).unwrap();
        assert!(one.different.p < 0.25 && one.different.p == one.different.holm);
        let four = compare_all(&baseline, &[&candidate; 4], CompareOptions::new()).unwrap();
        for comparison in four {
            assert_eq!(comparison.different.p, one.different.p);
            assert!((comparison.different.holm - (4.0 * one.different.p).min(1.0)).abs() < 1e-12);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_answer() {
        let a = compared(50, 0.02, 0.1);
        assert_eq!(a, compared(50, 0.02, 0.1));
        // Pinned: a change of these digits is a change of every published p-value and interval.
        assert_eq!(format!("{a}"), PINNED);
    }

    const PINNED: &str = "0.0000 -> 0.0200: +0.0200 [-0.0080, +0.0480], p 0.1848; 50 queries can find 0.0408; \
                          too few queries to tell (50 can find a difference of 0.0408; about 201 would settle it)";

    #[test]
    fn what_cannot_be_compared() {
        let two = values(&[0.1, 0.2]);
        let error = |a: &PerQuery, b: &PerQuery, options| compare(a, b, options).unwrap_err().to_string();
        let new = CompareOptions::new();
        assert!(error(&two, &values(&[0.1, 0.2, 0.3]), new).contains("q002"));
        assert!(error(&values(&[0.1, 0.2, 0.3]), &two, new).contains("q002"));
        assert!(error(&values(&[0.1]), &values(&[0.1]), new).contains("1 queries"));
        assert!(error(&two, &values(&[0.1, f64::NAN]), new).contains("q001"));
        for options in [new.margin(0.0), new.alpha(1.0), new.power(0.1), new.rounds(0), new.margin(f64::NAN)]
        {
            assert!(error(&two, &two, options).contains("must be"));
        }
    }
}
