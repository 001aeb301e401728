use std::collections::BTreeMap;

use crate::data::{PerQuery, Run};
use crate::order::{ScoreWidth, ranking};

/// p-MRR of one document whose relevance an altered instruction took away: from -1 (it rose to the top) over 0 (its rank
/// is what it was) to 1 (it fell from the top). Ranks are from 1.
pub fn rank_change(original: usize, altered: usize) -> f64 {
    let (original, altered) = (original as f64, altered as f64);
    if original >= altered { altered / original - 1.0 } else { 1.0 - original / altered }
}

/// p-MRR: does a ranker follow an instruction? For each query, the mean of [`rank_change`] over the documents that are
/// no longer relevant under the altered instruction. 0 is a ranker that does not read it.
///
/// `changed` names those documents for each query; `original` and `altered` are runs over the same query ids, sorted in
/// trec_eval's order. A document that a run lacks has the rank after its last one. Queries that either run lacks, or
/// that have no changed document, have no value.
///
/// Source: Weller et al., "FollowIR: Evaluating and teaching information retrieval models to follow instructions",
/// NAACL 2025; same as `calculate_pmrr` and `rank_score` of MTEB, which breaks ties by the order of its input
/// instead.
pub fn p_mrr(
    changed: &BTreeMap<String, Vec<String>>,
    original: &Run,
    altered: &Run,
    width: ScoreWidth,
) -> PerQuery {
    let mut values = BTreeMap::new();
    for (query, documents) in changed {
        let (Some(before), Some(after)) = (original.get(query), altered.get(query)) else { continue };
        let (before, after) = (ranking(before, width), ranking(after, width));
        let rank = |ranked: &[&crate::data::Retrieved], document: &String| {
            ranked.iter().position(|hit| hit.document == *document).unwrap_or(ranked.len()) + 1
        };
        let sum: f64 = documents
            .iter()
            .map(|document| rank_change(rank(&before, document), rank(&after, document)))
            .sum();
        if !documents.is_empty() {
            values.insert(query.clone(), sum / documents.len() as f64);
        }
    }
    PerQuery(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Retrieved;

    #[test]
    fn the_sign_says_whether_the_instruction_was_followed() {
        assert_eq!(rank_change(1, 4), 0.75);
        assert_eq!(rank_change(4, 1), -0.75);
        assert_eq!(rank_change(7, 7), 0.0);
    }

    #[test]
    fn a_lost_document_is_after_the_last() {
        let run = |documents: &[&str]| {
            let mut run = Run::new();
            let hits = documents.iter().enumerate().map(|(i, d)| Retrieved::new(*d, -(i as f64))).collect();
            run.insert("q", hits).unwrap();
            run
        };
        let changed = BTreeMap::from([
            ("q".to_string(), vec!["a".to_string()]),
            ("elsewhere".to_string(), vec!["a".to_string()]),
        ]);
        let value = p_mrr(&changed, &run(&["a", "b", "c"]), &run(&["b", "c"]), ScoreWidth::F32);
        assert_eq!(value.0, BTreeMap::from([("q".to_string(), 1.0 - 1.0 / 3.0)]));
    }
}
