use serde::Serialize;

use super::bootstrap::quantile;
use super::compare::paired;
use super::rng::Rng;
use super::{CompareOptions, Interval, standard_deviation};
use crate::data::{PerQuery, mean};
use crate::error::{Error, Result};

/// A difference of differences: a candidate's edge over a baseline on a slice, beside its edge on a control.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interaction {
    /// Items of the slice.
    pub slice_items: usize,
    /// Items of the control.
    pub control_items: usize,
    /// Candidate minus baseline on the slice.
    pub slice_edge: f64,
    /// Candidate minus baseline on the control.
    pub control_edge: f64,
    /// The edge on the slice minus the edge on the control.
    pub difference: f64,
    /// The bootstrap interval of the difference; slice and control are drawn from separately.
    pub interval: Interval,
    /// The permutation p-value, two-sided: is there a difference between the edges?
    pub p: f64,
}

/// Is the candidate's edge larger (or smaller) on the slice than on the control? "Cross-encoders win here" claims this,
/// and an edge on the slice alone does not show it: a ranker that is better everywhere is better here too.
///
/// Each pair is (baseline, candidate), on the same items. The p-value shuffles which items' differences are called slice
/// and which control, and counts how often Welch's t is as far from 0 as it is. Without the division by the standard error
/// the test would reject too often where slice and control spread differently, which they do: on an easy control hardly
/// any item differs.
///
/// Sources: Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 8.3 (two samples); Janssen,
/// "Studentized permutation tests for non-i.i.d. hypotheses", Statistics and Probability Letters 36, 1997.
///
/// # Errors
/// Those of [`compare`](super::compare), for either pair.
pub fn interaction(
    slice: (&PerQuery, &PerQuery),
    control: (&PerQuery, &PerQuery),
    options: CompareOptions,
) -> Result<Interaction> {
    options.check()?;
    let differences = |(baseline, candidate)| {
        let (found, differences) = paired(baseline, candidate)?;
        if found < 2 { Err(Error::TooFewQueries { found }) } else { Ok(differences) }
    };
    let (slice, control) = (differences(slice)?, differences(control)?);
    let (slice_edge, control_edge) = (mean(slice.iter().copied()), mean(control.iter().copied()));
    Ok(Interaction {
        slice_items: slice.len(),
        control_items: control.len(),
        slice_edge,
        control_edge,
        difference: slice_edge - control_edge,
        interval: interval(&slice, &control, options),
        p: permutation_p(&slice, &control, options),
    })
}

fn interval(slice: &[f64], control: &[f64], options: CompareOptions) -> Interval {
    let mut rng = Rng::new(options.seed);
    let mut drawn = |values: &[f64]| mean((0..values.len()).map(|_| values[rng.below(values.len())]));
    let mut found: Vec<f64> = (0..options.rounds / 10).map(|_| drawn(slice) - drawn(control)).collect();
    found.sort_unstable_by(f64::total_cmp);
    let tail = options.alpha / 2.0;
    Interval { low: quantile(&found, tail), high: quantile(&found, 1.0 - tail) }
}

fn permutation_p(slice: &[f64], control: &[f64], options: CompareOptions) -> f64 {
    let mut pooled: Vec<f64> = slice.iter().chain(control).copied().collect();
    // The same differences in another order give sums that differ in their last bits; they must count as equal.
    let enough = welch(slice, control).abs() * (1.0 - 1e-9);
    let mut rng = Rng::new(options.seed);
    let mut hits = 0;
    for _ in 0..options.rounds {
        for last in (1..pooled.len()).rev() {
            pooled.swap(last, rng.below(last + 1));
        }
        let (one, two) = pooled.split_at(slice.len());
        hits += usize::from(welch(one, two).abs() >= enough);
    }
    (hits as f64 + 1.0) / (options.rounds as f64 + 1.0)
}

/// Welch's t: the difference of the means by its standard error. Without any spread: 0 if the means are equal, else
/// infinite.
fn welch(one: &[f64], two: &[f64]) -> f64 {
    let difference = mean(one.iter().copied()) - mean(two.iter().copied());
    let variance = |values: &[f64]| standard_deviation(values).powi(2) / values.len() as f64;
    if difference == 0.0 { 0.0 } else { difference / (variance(one) + variance(two)).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: impl IntoIterator<Item = f64>) -> PerQuery {
        values.into_iter().enumerate().map(|(i, value)| (format!("q{i:03}"), value)).collect()
    }

    /// `right` of `items` are right.
    fn accuracy(items: usize, right: usize) -> PerQuery {
        values((0..items).map(|i| f64::from(u8::from(i < right))))
    }

    fn tested(slice: (usize, usize), control: (usize, usize)) -> Interaction {
        let pair = |(baseline, candidate)| (accuracy(60, baseline), accuracy(60, candidate));
        let (slice, control) = (pair(slice), pair(control));
        interaction((&slice.0, &slice.1), (&control.0, &control.1), CompareOptions::new()).unwrap()
    }

    #[test]
    fn an_edge_on_the_slice_alone_is_found() {
        let found = tested((10, 40), (58, 59));
        assert!((found.difference - (30.0 - 1.0) / 60.0).abs() < 1e-12);
        assert!(found.p < 0.001 && found.interval.low > 0.3 && found.interval.high < 0.65, "{found:?}");
    }

    #[test]
    fn the_same_edge_everywhere_is_no_interaction() {
        let found = tested((20, 40), (30, 50));
        assert_eq!(found.difference, 0.0);
        assert!(found.p > 0.9 && found.interval.low < -0.1 && found.interval.high > 0.1, "{found:?}");
        let found = tested((20, 20), (60, 60));
        assert_eq!((found.p, found.interval), (1.0, Interval { low: 0.0, high: 0.0 }));
    }

    #[test]
    fn edges_without_spread() {
        let found = tested((0, 60), (60, 60));
        assert_eq!(found.difference, 1.0);
        assert!(found.p < 0.001, "{found:?}");
    }

    #[test]
    fn it_rejects_as_often_as_it_says() {
        // No interaction, but spreads that differ threefold and sizes that differ too.
        let mut rng = Rng::new(7);
        let mut draw = |items: usize, spread: f64| {
            let mut noise = || (0..12).map(|_| rng.below(1000) as f64 / 999.0 - 0.5).sum::<f64>();
            values((0..items).map(|_| 0.1 + spread * noise()).collect::<Vec<_>>())
        };
        let trials = 400;
        let mut rejected = 0;
        for _ in 0..trials {
            let (slice, control) = (draw(30, 0.3), draw(60, 0.1));
            let zero = |of: &PerQuery| values(of.0.values().map(|_| 0.0));
            let options = CompareOptions::new().rounds(1000);
            let found = interaction((&zero(&slice), &slice), (&zero(&control), &control), options).unwrap();
            rejected += usize::from(found.p <= 0.05);
        }
        // 20 expected; the standard deviation of the count is 4.4.
        assert!((7..=34).contains(&rejected), "{rejected} of {trials}");
    }

    #[test]
    fn what_cannot_be_tested() {
        let (two, three) = (accuracy(2, 1), accuracy(3, 1));
        let error =
            |slice, control| interaction(slice, control, CompareOptions::new()).unwrap_err().to_string();
        assert!(error((&two, &three), (&two, &two)).contains("q002"));
        let one = accuracy(1, 1);
        assert!(error((&two, &two), (&one, &one)).contains("1 queries"));
        let nan = values([0.0, f64::NAN]);
        assert!(error((&two, &two), (&two, &nan)).contains("q001"));
    }
}
