//! The report on ties beside every order of the tied documents, tried one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use jointly_eval::metric::CutoffRule;
use jointly_eval::{JudgeOptions, JudgedRun, METRICS, Metric, Qrels, Retrieved, Run};
use proptest::prelude::*;

/// All orders of these items.
fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for i in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(i);
        all.extend(permutations(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

/// All rankings in which groups keep their places.
fn rankings(groups: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for group in groups {
        let orders = permutations(group);
        all = all
            .iter()
            .flat_map(|start: &Vec<usize>| {
                orders.iter().map(move |order| start.iter().chain(order).copied().collect::<Vec<_>>())
            })
            .collect();
    }
    all
}

fn metrics() -> Vec<Metric> {
    let mut metrics = Vec::new();
    for kind in METRICS.iter().filter(|kind| kind.name != "alpha_ndcg") {
        if kind.cutoff != CutoffRule::Required {
            metrics.push(kind.name.parse().unwrap());
        }
        if kind.cutoff != CutoffRule::None {
            for cutoff in [1, 2, 3, 5, 20] {
                metrics.push(format!("{}@{cutoff}", kind.name).parse().unwrap());
            }
        }
    }
    metrics
}

fn judge(qrels: &Qrels, scores: impl Iterator<Item = (usize, f64)>, level: i8) -> JudgedRun {
    let mut run = Run::new();
    run.insert("q", scores.map(|(i, score)| Retrieved::new(format!("d{i}"), score)).collect()).unwrap();
    JudgedRun::new(qrels, &run, JudgeOptions::new().level(level)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn expected_minimum_and_maximum_over_all_orders(
        // At most 4 * 3 * 2 * ... orders: the score of a document is one of three.
        labels in prop::collection::vec(-1_i8..4, 1..8),
        scores in prop::collection::vec(0_u8..3, 8),
        lost in 0_usize..3,
        level in 1_i8..3,
    ) {
        let mut qrels = Qrels::new();
        for (i, label) in labels.iter().enumerate() {
            qrels.insert("q", &format!("d{i}"), *label);
        }
        for i in 0..lost {
            qrels.insert("q", &format!("lost{i}"), 2);
        }
        let groups: Vec<Vec<usize>> = (0..3_u8)
            .rev()
            .map(|score| (0..labels.len()).filter(|i| scores[*i] == score).collect())
            .collect();
        let tied = judge(&qrels, (0..labels.len()).map(|i| (i, f64::from(scores[i]))), level);
        let orders = rankings(&groups);
        for metric in metrics() {
            let values: Vec<f64> = orders
                .iter()
                .map(|order| {
                    let scores = order.iter().enumerate().map(|(rank, i)| (*i, -(rank as f64)));
                    judge(&qrels, scores, level).evaluate(metric).unwrap().mean()
                })
                .collect();
            let report = tied.ties(metric).unwrap();
            let close = |found: f64, expected: f64| (found - expected).abs() < 1e-12;
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            prop_assert!(close(report.expected.mean(), mean), "{metric}: expected value {} {mean}", report.expected.mean());
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            prop_assert!(close(report.minimum.mean(), least), "{metric}: minimum {} {least}", report.minimum.mean());
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(close(report.maximum.mean(), most), "{metric}: maximum {} {most}", report.maximum.mean());
            prop_assert_eq!(&report.value, &tied.evaluate(metric).unwrap());
            prop_assert_eq!(report.queries_with_ties > 0, groups.iter().any(|group| group.len() > 1));
        }
    }
}

#[test]
fn without_ties_all_four_are_the_same() {
    let mut qrels = Qrels::new();
    qrels.insert("q", "d1", 2);
    qrels.insert("q", "d3", 1);
    let judged = judge(&qrels, (0..5).map(|i| (i, i as f64)), 1);
    for metric in metrics() {
        let report = judged.ties(metric).unwrap();
        assert_eq!(report.value, report.minimum);
        assert_eq!(report.value, report.maximum);
        assert!((report.value.mean() - report.expected.mean()).abs() < 1e-12, "{metric}");
        assert_eq!((report.queries_with_ties, report.share_tied), (0, 0.0));
    }
}

#[test]
fn metrics_of_subtopics_have_no_report() {
    let mut qrels = Qrels::new();
    qrels.insert_subtopic("q", "1", "d1", 1);
    let judged = judge(&qrels, (0..3).map(|i| (i, 0.0)), 1);
    let error = judged.ties("alpha_ndcg@10".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("alpha_ndcg@10"), "{error}");
    let error = judge(
        &{
            let mut qrels = Qrels::new();
            qrels.insert("q", "d1", 1);
            qrels
        },
        (0..3).map(|i| (i, 0.0)),
        1,
    )
    .evaluate("alpha_ndcg@10".parse().unwrap())
    .unwrap_err()
    .to_string();
    assert!(error.contains("subtopics"), "{error}");
}
