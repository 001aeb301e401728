use std::collections::{BTreeMap, BTreeSet};

use crate::significance::rng::Rng;

/// Which part of a split a pair belongs to, for each pair in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// To fit on.
    Fit,
    /// To look at only.
    HeldOut,
}

/// Divides pairs by their queries, never within a query: a share `fit` of the queries, rounded, is to fit on. Which ones
/// depends on the set of query ids and the seed, not on the order of the pairs.
pub fn split_queries(queries: &[&str], fit: f64, seed: u64) -> Vec<Split> {
    let places = shuffled(queries, seed);
    let first_held_out = (places.len() as f64 * fit).round() as usize;
    let part = |query: &&str| if places[query] < first_held_out { Split::Fit } else { Split::HeldOut };
    queries.iter().map(part).collect()
}

/// The fold of each pair, from 0: as many queries in each, as far as that goes; at most one for each query.
pub(super) fn folds(queries: &[&str], folds: usize, seed: u64) -> Vec<usize> {
    let places = shuffled(queries, seed);
    queries.iter().map(|query| places[query] % folds).collect()
}

/// The place of each query in a shuffled order.
fn shuffled<'a>(queries: &[&'a str], seed: u64) -> BTreeMap<&'a str, usize> {
    let mut order: Vec<&str> = queries.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let mut rng = Rng::new(seed);
    for last in (1..order.len()).rev() {
        order.swap(last, rng.below(last + 1));
    }
    order.into_iter().enumerate().map(|(place, query)| (query, place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_query_is_on_both_sides_and_the_order_does_not_matter() {
        let names: Vec<String> = (0..100).map(|i| format!("q{}", i % 25)).collect();
        let queries: Vec<&str> = names.iter().map(String::as_str).collect();
        let split = split_queries(&queries, 0.6, 7);
        for i in 25..100 {
            assert_eq!(split[i], split[i - 25]);
        }
        assert_eq!(split[..25].iter().filter(|part| **part == Split::Fit).count(), 15);
        let reversed: Vec<&str> = queries.iter().rev().copied().collect();
        assert!(split_queries(&reversed, 0.6, 7).iter().rev().eq(&split));
        assert_ne!(split_queries(&queries, 0.6, 8), split);
        let folds = folds(&queries, 5, 7);
        assert!((0..5).all(|fold| folds[..25].iter().filter(|of| **of == fold).count() == 5));
    }
}
