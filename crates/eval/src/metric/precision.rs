//! Precision at k: the share of relevant documents among the first k. It is divided by k even where the ranking is
//! shorter.

use super::{At, Compute, CutoffRule, Judged, Kind};

pub(super) const KIND: Kind = Kind {
    name: "p",
    about: "share of relevant documents among the first k",
    source: "trec_eval m_P.c",
    cutoff: CutoffRule::Required,
    compute: Compute::Labels { value, expected },
};

fn value(judged: &Judged, at: &At) -> f64 {
    let found = judged.labels.iter().take(at.depth()).filter(|label| at.is_relevant(**label)).count();
    found as f64 / at.depth() as f64
}

fn expected(judged: &Judged, at: &At) -> f64 {
    let gain = |label| f64::from(u8::from(at.is_relevant(label)));
    judged.expected_sum(at.depth(), gain, |_| 1.0) / at.depth() as f64
}
