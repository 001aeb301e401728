//! Against position bias: random orders, and one order of several.

use super::quote::digest;

/// Random numbers that depend on a seed and a text only. SplitMix64, by Steele, Lea and Flood (2014).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64, text: &str) -> Self {
        let bytes = digest(&[&seed.to_string(), text]);
        Self(bytes.iter().fold(0, |sum: u64, byte| sum.rotate_left(8) ^ u64::from(*byte)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // Of 2^64 values, what is left over by the division does not matter for lists.
            let other = (self.next() % (last as u64 + 1)) as usize;
            items.swap(last, other);
        }
    }
}

/// One order of `0..count` out of several: each gives a document a point for each one that it puts below. Equal ones in
/// their incoming order. (Borda's count.)
#[must_use]
pub fn borda(orders: &[Vec<usize>], count: usize) -> Vec<usize> {
    let mut points = vec![0_usize; count];
    for order in orders {
        for (rank, &document) in order.iter().enumerate() {
            if let Some(points) = points.get_mut(document) {
                *points += count.saturating_sub(rank + 1);
            }
        }
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&document| std::cmp::Reverse(points[document]));
    order
}

/// Kendall's tau of two orders of the same documents: 1 for the same, -1 for opposite ones. None for fewer than two.
#[must_use]
pub fn kendall_tau(first: &[usize], second: &[usize]) -> Option<f64> {
    let count = first.len();
    if count < 2 || second.len() != count {
        return None;
    }
    let mut rank = vec![0; count];
    for (place, &document) in second.iter().enumerate() {
        *rank.get_mut(document)? = place;
    }
    let mut sum = 0_i64;
    for (place, above) in first.iter().enumerate() {
        for below in &first[place + 1..] {
            sum += if rank[*above] < rank[*below] { 1 } else { -1 };
        }
    }
    Some(sum as f64 / (count * (count - 1) / 2) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_is_a_permutation_that_the_seed_decides() {
        let shuffled = |seed, text| {
            let mut items: Vec<usize> = (0..20).collect();
            Random::new(seed, text).shuffle(&mut items);
            items
        };
        let mut sorted = shuffled(1, "q");
        assert_eq!(sorted, shuffled(1, "q"));
        assert_ne!(sorted, shuffled(2, "q"));
        assert_ne!(sorted, shuffled(1, "p"));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn borda_counts_and_ties_keep_the_incoming_order() {
        assert_eq!(borda(&[vec![2, 0, 1], vec![2, 1, 0]], 3), [2, 0, 1]);
        assert_eq!(borda(&[], 3), [0, 1, 2]);
        assert_eq!(kendall_tau(&[0, 1, 2], &[0, 1, 2]), Some(1.0));
        assert_eq!(kendall_tau(&[0, 1, 2], &[2, 1, 0]), Some(-1.0));
        assert_eq!(kendall_tau(&[0, 1, 2], &[1, 0, 2]), Some(1.0 / 3.0));
        assert_eq!(kendall_tau(&[0], &[0]), None);
    }
}
