//! alpha-NDCG: a document gains `(1 - alpha)^n` for each subtopic that it is relevant to, where n documents above it
//! were relevant to it too; discounted like NDCG.
//!
//! The best possible order is made greedily, as the exact one is NP-hard to find: always the document that gains most
//! next, of equal ones the one with the highest id. Because greedy is not optimal, a value slightly above 1 is possible.

use super::{At, Compute, CutoffRule, JudgedSubtopics, Kind};

pub(super) const KIND: Kind = Kind {
    name: "alpha_ndcg",
    about: "gain for subtopics that are new, less for those that documents above cover already",
    source: "ndeval.c of TREC (Clarke et al., SIGIR 2008, with log2(rank + 1))",
    cutoff: CutoffRule::Required,
    compute: Compute::Subtopics(value),
};

fn value(judged: &JudgedSubtopics, at: &At) -> f64 {
    let ideal = dcg(&greedy(judged, at), judged.count, at);
    let ranked: Vec<&[usize]> = judged.ranked.iter().take(at.depth()).map(Vec::as_slice).collect();
    if ideal > 0.0 { dcg(&ranked, judged.count, at) / ideal } else { 0.0 }
}

/// What is left of each subtopic's gain.
struct Left(Vec<f64>);

impl Left {
    fn gain(&self, subtopics: &[usize]) -> f64 {
        subtopics.iter().map(|subtopic| self.0[*subtopic]).sum()
    }

    fn cover(&mut self, subtopics: &[usize], alpha: f64) {
        subtopics.iter().for_each(|subtopic| self.0[*subtopic] *= 1.0 - alpha);
    }
}

fn dcg(ranked: &[&[usize]], count: usize, at: &At) -> f64 {
    let mut left = Left(vec![1.0; count]);
    let mut sum = 0.0;
    for (i, subtopics) in ranked.iter().enumerate() {
        sum += left.gain(subtopics) / (i as f64 + 2.0).log2();
        left.cover(subtopics, at.alpha);
    }
    sum
}

fn greedy<'a>(judged: &'a JudgedSubtopics, at: &At) -> Vec<&'a [usize]> {
    let mut left = Left(vec![1.0; judged.count]);
    let mut rest: Vec<&[usize]> =
        judged.all.iter().map(Vec::as_slice).filter(|subtopics| !subtopics.is_empty()).collect();
    let mut chosen = Vec::new();
    while !rest.is_empty() && chosen.len() < at.depth() {
        // Documents come in descending order of id, so the first of equal ones is right.
        let mut best = 0;
        for (i, subtopics) in rest.iter().enumerate() {
            if left.gain(subtopics) > left.gain(rest[best]) {
                best = i;
            }
        }
        let subtopics = rest.remove(best);
        left.cover(subtopics, at.alpha);
        chosen.push(subtopics);
    }
    chosen
}
