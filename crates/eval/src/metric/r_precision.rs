//! R-precision: the share of relevant documents among the first R, where R is the number of relevant documents.

use super::{At, Compute, CutoffRule, Judged, Kind};

pub(super) const KIND: Kind = Kind {
    name: "rprec",
    about: "precision after as many documents as there are relevant ones",
    source: "trec_eval m_Rprec.c",
    cutoff: CutoffRule::None,
    compute: Compute::Labels { value, expected },
};

fn value(judged: &Judged, at: &At) -> f64 {
    let relevant = judged.relevant(at);
    let found = judged.labels.iter().take(relevant).filter(|label| at.is_relevant(**label)).count();
    if relevant == 0 { 0.0 } else { found as f64 / relevant as f64 }
}

fn expected(judged: &Judged, at: &At) -> f64 {
    let relevant = judged.relevant(at);
    let gain = |label| f64::from(u8::from(at.is_relevant(label)));
    if relevant == 0 { 0.0 } else { judged.expected_sum(relevant, gain, |_| 1.0) / relevant as f64 }
}
