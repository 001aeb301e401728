//! Normalised discounted cumulative gain: `sum of gain(label) / log2(rank + 1)` over the ranking, divided by the same
//! sum over the best possible ranking of all judged documents, both cut at k.

use super::{At, Compute, CutoffRule, Judged, Kind};
use crate::data::Label;

/// The gain of a document is its label: what trec_eval computes, and what papers on BEIR and TREC report.
pub(super) const LINEAR: Kind = Kind {
    name: "ndcg",
    about: "graded gain, discounted by the logarithm of the rank, against the best possible order; gain is the label",
    source: "trec_eval m_ndcg_cut.c and m_ndcg.c (Järvelin and Kekäläinen, ACM TOIS 20, 2002)",
    cutoff: CutoffRule::Optional,
    compute: Compute::Labels {
        value: |judged, at| value(judged, at, linear),
        expected: |judged, at| expected(judged, at, linear),
    },
};

/// The gain of a document is `2^label - 1`: the same as linear gain for labels 0 and 1, and more weight on the highest
/// labels otherwise.
pub(super) const EXPONENTIAL: Kind = Kind {
    name: "ndcg_exp",
    about: "ndcg with the gain 2^label - 1, which is not what trec_eval computes",
    source: "Burges et al., \"Learning to rank using gradient descent\", ICML 2005",
    cutoff: CutoffRule::Optional,
    compute: Compute::Labels {
        value: |judged, at| value(judged, at, exponential),
        expected: |judged, at| expected(judged, at, exponential),
    },
};

fn linear(label: Label) -> f64 {
    f64::from(label.max(0))
}

fn exponential(label: Label) -> f64 {
    f64::from(label.max(0)).exp2() - 1.0
}

fn discount(rank: usize) -> f64 {
    1.0 / (rank as f64 + 1.0).log2()
}

fn dcg(labels: &[Label], at: &At, gain: fn(Label) -> f64) -> f64 {
    labels.iter().take(at.depth()).enumerate().map(|(i, label)| gain(*label) * discount(i + 1)).sum()
}

fn value(judged: &Judged, at: &At, gain: fn(Label) -> f64) -> f64 {
    let ideal = dcg(&judged.positives, at, gain);
    if ideal > 0.0 { dcg(&judged.labels, at, gain) / ideal } else { 0.0 }
}

fn expected(judged: &Judged, at: &At, gain: fn(Label) -> f64) -> f64 {
    let ideal = dcg(&judged.positives, at, gain);
    if ideal > 0.0 { judged.expected_sum(at.depth(), gain, discount) / ideal } else { 0.0 }
}
