//! Success at k: 1 if there is a relevant document among the first k, else 0.

use super::{At, Compute, CutoffRule, Judged, Kind};

pub(super) const KIND: Kind = Kind {
    name: "success",
    about: "1 if a relevant document is among the first k",
    source: "trec_eval m_success.c",
    cutoff: CutoffRule::Required,
    compute: Compute::Labels { value, expected },
};

fn value(judged: &Judged, at: &At) -> f64 {
    f64::from(u8::from(judged.labels.iter().take(at.depth()).any(|label| at.is_relevant(*label))))
}

/// One minus the probability that no place within the cut-off gets a relevant document.
fn expected(judged: &Judged, at: &At) -> f64 {
    let mut none = 1.0;
    for (before, labels) in judged.groups(at.depth()) {
        let others = labels.iter().filter(|label| !at.is_relevant(**label)).count();
        for j in 0..labels.len().min(at.depth() - before) {
            none *= others.saturating_sub(j) as f64 / (labels.len() - j) as f64;
        }
    }
    1.0 - none
}
