//! Reciprocal rank: 1 / rank of the first relevant document; 0 if it is not among the first k.

use super::{At, Compute, CutoffRule, Judged, Kind};

pub(super) const KIND: Kind = Kind {
    name: "mrr",
    about: "1 / rank of the first relevant document",
    source: "trec_eval m_recip_rank.c; with a cut-off, that of the ranking's first k documents",
    cutoff: CutoffRule::Optional,
    compute: Compute::Labels { value, expected },
};

fn value(judged: &Judged, at: &At) -> f64 {
    let first = judged.labels.iter().take(at.depth()).position(|label| at.is_relevant(*label));
    first.map_or(0.0, |i| 1.0 / (i as f64 + 1.0))
}

/// Only the first group with a relevant document matters: its first relevant document is at place j with the
/// probability that the j - 1 before it are not, and it is.
fn expected(judged: &Judged, at: &At) -> f64 {
    for (before, labels) in judged.groups(at.depth()) {
        let relevant = labels.iter().filter(|label| at.is_relevant(**label)).count();
        if relevant == 0 {
            continue;
        }
        let (mut none_so_far, mut sum) = (1.0, 0.0);
        let places = labels.len().min(at.depth() - before);
        for j in 0..places {
            let here = (relevant as f64 / (labels.len() - j) as f64).min(1.0);
            sum += none_so_far * here / (before + j + 1) as f64;
            none_so_far *= 1.0 - here;
        }
        return sum;
    }
    0.0
}
