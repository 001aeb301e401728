//! Scores -> the best of them: highest first, equal ones in the order of the collection.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A document that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Its place in the collection, from 0.
    pub document: u32,
    /// The larger, the nearer to the query.
    pub score: f32,
}

impl Eq for Hit {}

impl Ord for Hit {
    /// The better hit is the greater one.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.document.cmp(&self.document))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best hits of those that were offered.
#[derive(Debug)]
pub struct Top {
    most: usize,
    /// The worst of them on top.
    hits: BinaryHeap<Reverse<Hit>>,
}

impl Top {
    /// At most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, hits: BinaryHeap::new() }
    }

    /// Keeps a hit if it is one of the best.
    pub fn offer(&mut self, hit: Hit) {
        if self.hits.len() < self.most {
            self.hits.push(Reverse(hit));
        } else if let Some(mut worst) = self.hits.peek_mut()
            && hit > worst.0
        {
            worst.0 = hit;
        }
    }

    /// Whether a hit of this score could be kept, whatever document it is.
    #[must_use]
    pub fn takes(&self, score: f32) -> bool {
        self.hits.len() < self.most
            || self.hits.peek().is_some_and(|worst| score.total_cmp(&worst.0.score).is_ge())
    }

    /// The hits, best first.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Hit> {
        self.hits.into_sorted_vec().into_iter().map(|hit| hit.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_with_ties_in_the_order_of_the_collection() {
        let scores = [0.5, 2.0, 0.5, 2.0, -1.0, 0.5, 7.0];
        let mut all: Vec<Hit> = (0..).zip(scores).map(|(document, score)| Hit { document, score }).collect();
        let documents = |hits: &[Hit]| hits.iter().map(|hit| hit.document).collect::<Vec<_>>();
        for _ in 0..all.len() {
            all.rotate_left(1); // the order in which they are offered does not matter
            for most in 0..9 {
                let mut top = Top::new(most);
                all.iter().for_each(|hit| top.offer(*hit));
                let expected = [6, 1, 3, 0, 2, 5, 4];
                assert_eq!(documents(&top.into_sorted()), expected[..most.min(7)]);
            }
        }
    }

    #[test]
    fn what_is_not_taken_would_not_have_been_kept() {
        let mut top = Top::new(2);
        for (document, score) in [(0, 1.0), (1, 2.0)] {
            assert!(top.takes(score));
            top.offer(Hit { document, score });
        }
        assert!(top.takes(1.0) && !top.takes(0.5));
        assert!(!Top::new(0).takes(9.0));
    }
}
