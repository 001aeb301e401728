use std::collections::HashSet;
use std::hash::Hash;

/// The share of the first k documents of one ranking that are among the first k of the other, in any order. If both are
/// shorter than k, it is the share of the longer one; 1 if both are empty.
///
/// Documents are distinct within a ranking; k is 1 at least.
pub fn overlap_at<T: Eq + Hash>(a: &[T], b: &[T], k: usize) -> f64 {
    let (a, b) = (&a[..a.len().min(k)], &b[..b.len().min(k)]);
    let longer = a.len().max(b.len());
    if longer == 0 {
        return 1.0;
    }
    let in_a: HashSet<&T> = a.iter().collect();
    b.iter().filter(|document| in_a.contains(document)).count() as f64 / longer as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_within_the_cutoff_does_not_matter() {
        assert_eq!(overlap_at(&[1, 2, 3, 4], &[2, 1, 5, 3], 2), 1.0);
        assert_eq!(overlap_at(&[1, 2, 3, 4], &[2, 1, 5, 3], 3), 2.0 / 3.0);
        assert_eq!(overlap_at(&[1, 2], &[2, 1, 5], 10), 2.0 / 3.0);
        assert_eq!(overlap_at::<u8>(&[], &[], 10), 1.0);
        assert_eq!(overlap_at(&[1], &[], 10), 0.0);
    }
}
