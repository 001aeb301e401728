use statrs::distribution::{ContinuousCDF, Normal};

use super::equivalence::students_t;

/// The smallest true difference that a two-sided paired test at `alpha` finds with probability `power`, from the standard
/// deviation of the differences and the number of queries: `(t(1 - alpha / 2) + t(power)) * sd / sqrt(n)`. With many
/// queries, 0.05 and 0.8 that is `2.80 * sd / sqrt(n)`. Infinite for fewer than two queries.
///
/// Source: Sakai, "Laboratory experiments in information retrieval", 2018, with Student's t for the normal
/// distribution; within 2 % of the exact answer (noncentral t) from 8 queries on.
pub fn detectable_difference(sd: f64, queries: usize, alpha: f64, power: f64) -> f64 {
    let Some(t) = students_t(queries as f64 - 1.0) else { return f64::INFINITY };
    (t.inverse_cdf(1.0 - alpha / 2.0) + t.inverse_cdf(power)) * sd / (queries as f64).sqrt()
}

/// About how many queries a two-sided paired test at `alpha` needs to find a true `difference` with probability `power`:
/// `((z(1 - alpha / 2) + z(power)) * sd / difference)^2`, rounded up, and [`fewest_queries`] at least. `None` if the
/// difference is 0, which no number of queries can find.
pub fn queries_needed(sd: f64, difference: f64, alpha: f64, power: f64) -> Option<usize> {
    let z = Normal::standard();
    needed((z.inverse_cdf(1.0 - alpha / 2.0) + z.inverse_cdf(power)) * sd, difference, alpha)
}

/// About how many queries TOST needs to show that a difference is within a margin that is `distance` away from it: the
/// same formula, one-sided, with the chance of missing it shared between the two tests, as is right for a difference of 0
/// and cautious for any other.
pub(super) fn queries_needed_for_equivalence(
    sd: f64,
    distance: f64,
    alpha: f64,
    power: f64,
) -> Option<usize> {
    let z = Normal::standard();
    needed((z.inverse_cdf(1.0 - alpha) + z.inverse_cdf((1.0 + power) / 2.0)) * sd, distance, alpha)
}

fn needed(spread: f64, difference: f64, alpha: f64) -> Option<usize> {
    let count = (spread / difference).powi(2).ceil();
    (difference.abs() > 0.0 && count.is_finite()).then(|| (count as usize).max(fewest_queries(alpha)))
}

/// The fewest queries on which any verdict can be reached: with fewer, the randomisation test is not below `alpha` even
/// when every query agrees, as `2 / 2^n > alpha`. 6 for 0.05.
pub fn fewest_queries(alpha: f64) -> usize {
    (2.0 / alpha).log2().ceil().max(2.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::significance::randomisation_p;

    #[test]
    fn the_fewest_queries_are_those_of_the_randomisation_test() {
        for alpha in [0.1, 0.05, 0.01] {
            let n = fewest_queries(alpha);
            assert!(randomisation_p(&vec![1.0; n], 1 << 20, 1) <= alpha);
            assert!(randomisation_p(&vec![1.0; n - 1], 1 << 20, 1) > alpha);
        }
        assert_eq!(fewest_queries(0.05), 6);
    }

    #[test]
    fn as_many_queries_as_needed_detect_the_difference() {
        // The usual table: sd 0.05 and 0.01 need 197 queries, sd 0.1 and 0.01 need 785.
        assert_eq!(queries_needed(0.05, 0.01, 0.05, 0.8), Some(197));
        assert_eq!(queries_needed(0.1, 0.01, 0.05, 0.8), Some(785));
        assert!((detectable_difference(0.1, 785, 0.05, 0.8) - 0.01).abs() < 5e-5);
        assert_eq!(queries_needed(0.1, 0.0, 0.05, 0.8), None);
        assert_eq!(detectable_difference(0.1, 1, 0.05, 0.8), f64::INFINITY);
    }
}
