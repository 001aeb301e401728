//! Average precision: the mean, over all relevant documents, of the precision at the rank of each; a document that was
//! not retrieved, or is beyond k, adds 0.

use super::{At, Compute, CutoffRule, Judged, Kind};

pub(super) const KIND: Kind = Kind {
    name: "map",
    about: "precision at the rank of each relevant document, averaged over all relevant documents",
    source: "trec_eval m_map.c and m_map_cut.c (Buckley and Voorhees, \"Retrieval System Evaluation\", 2005)",
    cutoff: CutoffRule::Optional,
    compute: Compute::Labels { value, expected },
};

fn value(judged: &Judged, at: &At) -> f64 {
    let (mut found, mut sum) = (0, 0.0);
    for (i, label) in judged.labels.iter().take(at.depth()).enumerate() {
        if at.is_relevant(*label) {
            found += 1;
            sum += f64::from(found) / (i as f64 + 1.0);
        }
    }
    let relevant = judged.relevant(at);
    if relevant == 0 { 0.0 } else { sum / relevant as f64 }
}

/// A place in a group of t documents, r of them relevant, has a relevant one with probability r / t; given that, each of
/// the j - 1 places before it in the group has one with probability (r - 1) / (t - 1).
fn expected(judged: &Judged, at: &At) -> f64 {
    let (mut found_before, mut sum) = (0.0, 0.0);
    for (before, labels) in judged.groups(at.depth()) {
        let size = labels.len() as f64;
        let relevant = labels.iter().filter(|label| at.is_relevant(**label)).count() as f64;
        if relevant > 0.0 {
            let others = if size > 1.0 { (relevant - 1.0) / (size - 1.0) } else { 0.0 };
            for j in 0..labels.len().min(at.depth() - before) {
                let precision = (found_before + 1.0 + j as f64 * others) / (before + j + 1) as f64;
                sum += relevant / size * precision;
            }
        }
        found_before += relevant;
    }
    let relevant = judged.relevant(at);
    if relevant == 0 { 0.0 } else { sum / relevant as f64 }
}
