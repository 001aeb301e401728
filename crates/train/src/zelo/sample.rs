//! Which pairs to ask about.
//!
//! A cycle through all documents in random order connects them with as many pairs as there are documents. A union of some
//! cycles is connected, gives every document the same number of comparisons, and has few steps from any document to any other:
//! the variance of a fitted score falls with the first, that of a difference of scores grows with the second.
//! Source: arXiv 2509.12541; for 100 documents it takes 4 cycles, which is 400 pairs of 4,950.

use std::num::NonZeroUsize;

use super::votes::Pair;
use crate::random::Random;

/// The pairs of some cycles over `count` things, as indexes; the same for the same seed. Fewer than two things have no pairs, and
/// two have one for each cycle. Each thing is once the first and once the second of a pair in each cycle.
/// Two cycles may have a pair in common: of 4 cycles over 100 things about 12 pairs of 400.
pub fn cycles(count: usize, cycles: usize, seed: u64) -> Vec<(usize, usize)> {
    union(count, cycles, &mut Random::new(seed))
}

fn union(count: usize, cycles: usize, rng: &mut Random) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for _ in 0..cycles {
        let order = rng.permutation(count);
        match count {
            0 | 1 => {}
            2 => pairs.push((order[0], order[1])),
            _ => pairs.extend((0..count).map(|place| (order[place], order[(place + 1) % count]))),
        }
    }
    pairs
}

/// What is asked about a query and about queries together.
#[derive(Debug, Clone, Copy)]
pub struct Sampler {
    cycles: usize,
    seed: u64,
}

impl Sampler {
    /// Of so many cycles: each thing is compared twice in each.
    pub fn new(cycles: NonZeroUsize, seed: u64) -> Self {
        Self { cycles: cycles.get(), seed }
    }

    /// The pairs of the documents of one query. They depend on its id, not on which other queries there are.
    pub fn within(&self, query: &str, documents: &[impl AsRef<str>]) -> Vec<Pair> {
        let pair = |(a, b): (usize, usize)| Pair {
            query: query.to_string(),
            a: documents[a].as_ref().to_string(),
            query_b: None,
            b: documents[b].as_ref().to_string(),
        };
        self.within_places(query, documents.len()).into_iter().map(pair).collect()
    }

    /// The same as indexes of so many documents.
    pub fn within_places(&self, query: &str, documents: usize) -> Vec<(usize, usize)> {
        union(documents, self.cycles, &mut Random::keyed(self.seed, [query]))
    }

    /// Pairs of documents of different queries, in cycles over the queries; of each query a random document. Queries without
    /// documents are left out. `documents` are their numbers, for each query.
    pub fn across(&self, documents: &[usize]) -> Vec<Across> {
        // The words keep these numbers apart from those of a query.
        let mut rng = Random::keyed(self.seed, ["across", "queries"]);
        let places: Vec<usize> = (0..documents.len()).filter(|place| documents[*place] > 0).collect();
        let pairs = union(places.len(), self.cycles, &mut rng);
        let mut one = |place: usize| (places[place], rng.below(documents[places[place]]));
        pairs.into_iter().map(|(a, b)| Across { a: one(a), b: one(b) }).collect()
    }
}

/// A pair across queries: the indexes of a query and of its document, twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Across {
    /// The first.
    pub a: (usize, usize),
    /// The second.
    pub b: (usize, usize),
}
