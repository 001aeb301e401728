//! Recall at k: the share of all relevant documents that are among the first k.

use super::{At, Compute, CutoffRule, Judged, Kind};

pub(super) const KIND: Kind = Kind {
    name: "recall",
    about: "share of all relevant documents that are among the first k",
    source: "trec_eval m_recall.c",
    cutoff: CutoffRule::Required,
    compute: Compute::Labels { value, expected },
};

fn value(judged: &Judged, at: &At) -> f64 {
    let found = judged.labels.iter().take(at.depth()).filter(|label| at.is_relevant(**label)).count();
    of_relevant(found as f64, judged, at)
}

fn expected(judged: &Judged, at: &At) -> f64 {
    let gain = |label| f64::from(u8::from(at.is_relevant(label)));
    of_relevant(judged.expected_sum(at.depth(), gain, |_| 1.0), judged, at)
}

fn of_relevant(found: f64, judged: &Judged, at: &At) -> f64 {
    let relevant = judged.relevant(at);
    if relevant == 0 { 0.0 } else { found / relevant as f64 }
}
