//! Mining: which documents a query is trained on beside its known ones. First stages find what looks relevant; what looks as relevant
//! as the known document may be so without anybody having said it, and is left without a label.

use std::collections::{BTreeMap, HashSet};

use jointly_eval::{Qrels, Retrieved, Run};

use crate::random::Random;

/// What to take for each query.
#[derive(Debug, Clone)]
pub struct Options {
    /// Documents of each run, half of them from its first `near`.
    pub take: Vec<usize>,
    /// Where the head of a run ends.
    pub near: usize,
    /// Documents of the collection, at random.
    pub random: usize,
    /// A candidate may be relevant whose guard score is above `s - (1 - guard) * |s|`, where `s` is that of the known document: above
    /// this share of it, if it is positive. Source: the TopK-PercPos rule of arXiv 2407.15831, whose best share is 0.95.
    pub guard: f64,
    /// Decides what is drawn.
    pub seed: u64,
}

/// A document of a query's pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mined {
    /// Its id.
    pub document: String,
    /// 1: known to be relevant; 0: taken not to be; none: may be.
    pub label: Option<i8>,
}

/// The pool of one query. `runs` are what the first stages found; the first of them is the guard. `collection` has all ids.
///
/// Of several known documents, the one that the guard likes best is labelled; the others (other parts of the same answer) may be relevant.
pub fn mine(
    query: &str,
    known: &Qrels,
    runs: &[Run],
    collection: &[String],
    options: &Options,
) -> Vec<Mined> {
    let mut random = Random::keyed(options.seed, ["mine", query]);
    let guard: BTreeMap<&str, f64> = runs
        .first()
        .and_then(|run| run.get(query))
        .unwrap_or_default()
        .iter()
        .map(|hit| (hit.document.as_str(), hit.score))
        .collect();
    let least = guard.values().copied().fold(f64::INFINITY, f64::min);
    let known: Vec<&str> = known
        .get(query)
        .into_iter()
        .flatten()
        .filter(|(_, label)| **label > 0)
        .map(|(document, _)| document.as_str())
        .collect();
    let score = |document: &str| guard.get(document).copied();
    let best = known
        .iter()
        .copied()
        .max_by(|a, b| score(a).unwrap_or(f64::MIN).total_cmp(&score(b).unwrap_or(f64::MIN)));
    // A known document that the guard did not find scores no more than the last that it did. A guard without hits says nothing.
    let limit = best.filter(|_| !guard.is_empty()).map(|best| {
        let own = score(best).unwrap_or(least);
        own - (1.0 - options.guard) * own.abs()
    });

    let mut pool: Vec<Mined> = known
        .iter()
        .map(|document| Mined {
            document: (*document).to_string(),
            label: (Some(*document) == best).then_some(1),
        })
        .collect();
    let mut seen: HashSet<&str> = known.into_iter().collect();
    let mut add = |document, seen: &mut HashSet<_>| {
        if !seen.insert(document) {
            return false;
        }
        // What the guard did not find scores `least` at most, which may be above the limit of a run that ends early.
        let doubtful = limit.is_none_or(|limit| score(document).unwrap_or(least) > limit);
        pool.push(Mined { document: document.to_string(), label: (!doubtful).then_some(0) });
        true
    };
    for (run, &take) in runs.iter().zip(&options.take) {
        let mut hits: Vec<&Retrieved> = run.get(query).unwrap_or_default().iter().collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        let (head, tail) = hits.split_at(options.near.min(hits.len()));
        let (mut head, mut tail) = (head.to_vec(), tail.to_vec());
        random.shuffle(&mut head);
        random.shuffle(&mut tail);
        let half = take.div_ceil(2).min(head.len());
        let rest = head.split_off(half);
        let mut taken = 0;
        for hit in head.into_iter().chain(tail).chain(rest) {
            if taken == take {
                break;
            }
            taken += usize::from(add(hit.document.as_str(), &mut seen));
        }
    }
    let mut drawn = 0;
    while drawn < options.random && seen.len() < collection.len() {
        drawn += usize::from(add(collection[random.below(collection.len())].as_str(), &mut seen));
    }
    pool
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn run(scores: &[(&str, f64)]) -> Run {
        let mut run = Run::new();
        run.insert("q", scores.iter().map(|(id, score)| Retrieved::new(*id, *score)).collect()).unwrap();
        run
    }

    #[test]
    fn what_scores_like_the_known_document_has_no_label() {
        let mut known = Qrels::new();
        known.insert("q", "gold", 1);
        known.insert("q", "sibling", 1);
        let dense = run(&[("near", 0.99), ("gold", 1.0), ("far", 0.5), ("middle", 0.94)]);
        let words = run(&[("word", 12.0), ("far", 9.0)]);
        let collection: Vec<String> =
            ["gold", "sibling", "near", "far", "middle", "word", "else"].map(String::from).into();
        let options = Options { take: vec![3, 2], near: 2, random: 1, guard: 0.95, seed: 1 };
        let mined = mine("q", &known, &[dense, words], &collection, &options);
        let labels: BTreeMap<&str, Option<i8>> =
            mined.iter().map(|m| (m.document.as_str(), m.label)).collect();
        assert_eq!(labels.len(), mined.len(), "nothing comes twice");
        let wanted = [
            ("else", Some(0)),
            ("far", Some(0)),
            ("gold", Some(1)),
            ("middle", Some(0)),
            ("near", None),
            ("sibling", None),
            ("word", Some(0)),
        ];
        assert_eq!(labels, BTreeMap::from(wanted));
        // No known document: nothing is known.
        let mined = mine("q", &Qrels::new(), &[run(&[("a", 1.0)])], &collection, &options);
        assert!(mined.len() == 2 && mined.iter().all(|mined| mined.label.is_none()));
    }

    /// The labels of a query's pool with one known document, `gold`.
    fn labels(runs: &[Run], others: &[&str], random: usize) -> BTreeMap<String, Option<i8>> {
        let mut known = Qrels::new();
        known.insert("q", "gold", 1);
        let collection: Vec<String> = others.iter().copied().chain(["gold"]).map(String::from).collect();
        let options = Options { take: vec![9; runs.len()], near: 2, random, guard: 0.95, seed: 1 };
        let mined = mine("q", &known, runs, &collection, &options);
        mined.into_iter().map(|mined| (mined.document, mined.label)).collect()
    }

    #[test]
    fn a_guard_without_hits_says_nothing_of_anybody() {
        let found = labels(&[Run::new(), run(&[("word", 12.0)])], &["word", "else"], 1);
        let wanted = [("else", None), ("gold", Some(1)), ("word", None)];
        assert_eq!(found, wanted.map(|(id, label)| (id.to_string(), label)).into());
    }

    #[test]
    fn what_a_short_run_of_the_guard_did_not_find_may_be_relevant() {
        // What it did not find scores 0.98 at most; the limit is 0.95.
        let short = run(&[("gold", 1.0), ("near", 0.98)]);
        let found = labels(&[short, run(&[("word", 12.0)])], &["near", "word", "else"], 1);
        let wanted = [("else", None), ("gold", Some(1)), ("near", None), ("word", None)];
        assert_eq!(found, wanted.map(|(id, label)| (id.to_string(), label)).into());
        // With one more hit it scores 0.9 at most.
        let longer = run(&[("gold", 1.0), ("near", 0.98), ("far", 0.9)]);
        let found = labels(&[longer, run(&[("word", 12.0)])], &["near", "word", "far", "else"], 1);
        assert_eq!(
            (found["word"], found["else"], found["far"], found["near"]),
            (Some(0), Some(0), Some(0), None)
        );
        // The known document is not among the hits: nobody can tell who is better than it.
        let without = run(&[("near", 0.98), ("far", 0.5)]);
        let found = labels(&[without, run(&[("word", 12.0)])], &["near", "word", "far"], 0);
        assert_eq!((found["word"], found["far"], found["near"]), (None, None, None));
    }

    #[test]
    fn negative_scores_have_a_limit_below_that_of_the_known_document() {
        // -1 - 0.05 = -1.05.
        let logits = run(&[("gold", -1.0), ("near", -1.04), ("far", -1.06), ("last", -3.0)]);
        let found = labels(&[logits], &["near", "far", "last", "else"], 1);
        let wanted =
            [("else", Some(0)), ("far", Some(0)), ("gold", Some(1)), ("last", Some(0)), ("near", None)];
        assert_eq!(found, wanted.map(|(id, label)| (id.to_string(), label)).into());
    }

    #[test]
    fn half_comes_from_the_head_and_the_seed_decides() {
        let scores: Vec<(String, f64)> = (0..40).map(|i| (format!("d{i:02}"), f64::from(100 - i))).collect();
        let run = run(&scores.iter().map(|(id, score)| (id.as_str(), *score)).collect::<Vec<_>>());
        let collection: Vec<String> = scores.iter().map(|(id, _)| id.clone()).collect();
        let options = |seed| Options { take: vec![10], near: 12, random: 0, guard: 0.95, seed };
        let mine = |seed| mine("q", &Qrels::new(), std::slice::from_ref(&run), &collection, &options(seed));
        let head = mine(3).iter().filter(|mined| mined.document.as_str() < "d12").count();
        assert_eq!((mine(3).len(), head), (10, 5));
        assert_eq!(mine(3), mine(3));
        assert_ne!(mine(3), mine(4));
    }
}
