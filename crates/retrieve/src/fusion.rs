//! One ranking of several. Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009.

use std::collections::HashMap;

use crate::top::{Hit, Top};

/// What the paper adds to every rank.
pub const RANK_OFFSET: f64 = 60.0;

/// The best `k` by the sum of `1 / (60 + rank)` over the rankings that a document stands in, ranks from 1. Each ranking is
/// best first.
#[must_use]
pub fn reciprocal_rank(rankings: &[&[Hit]], k: usize) -> Vec<Hit> {
    let mut sums: HashMap<u32, f64> = HashMap::new();
    for ranking in rankings {
        for (rank, hit) in (1..).zip(ranking.iter()) {
            *sums.entry(hit.document).or_default() += 1.0 / (RANK_OFFSET + f64::from(rank));
        }
    }
    let mut top = Top::new(k);
    sums.into_iter().for_each(|(document, sum)| top.offer(Hit { document, score: sum as f32 }));
    top.into_sorted()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(documents: &[u32]) -> Vec<Hit> {
        documents.iter().map(|&document| Hit { document, score: 0.0 }).collect()
    }

    #[test]
    fn by_hand() {
        let (first, second) = (ranking(&[7, 3, 9]), ranking(&[3, 4, 7, 9]));
        let fused = reciprocal_rank(&[&first, &second], 10);
        // 3: 1/62 + 1/61; 7: 1/61 + 1/63; 9: 1/63 + 1/64; 4: 1/62
        let expected = [(3, 0.032_522_474), (7, 0.032_266_458), (9, 0.031_498_016), (4, 0.016_129_032)];
        assert_eq!(fused.len(), expected.len());
        for (hit, (document, score)) in fused.iter().zip(expected) {
            assert_eq!(hit.document, document);
            assert!((hit.score - score).abs() < 1e-8, "{hit:?}");
        }
        assert_eq!(reciprocal_rank(&[&first, &second], 2), fused[..2]);
    }

    #[test]
    fn equal_sums_keep_the_order_of_the_collection_and_nothing_gives_nothing() {
        let fused = reciprocal_rank(&[&ranking(&[5, 2]), &ranking(&[2, 5])], 10);
        assert_eq!(fused.iter().map(|hit| hit.document).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(fused[0].score, fused[1].score);
        assert_eq!(reciprocal_rank(&[], 10), []);
        assert_eq!(reciprocal_rank(&[&[], &[]], 10), []);
    }
}
