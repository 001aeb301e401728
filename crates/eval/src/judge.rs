//! A run beside its judgements: metrics are computed from this.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::data::{Label, PerQuery, Qrels, Run, mean};
use crate::error::{Error, Result};
use crate::metric::{At, Compute, Judged, JudgedSubtopics, Metric};
use crate::order::{ScoreWidth, ranking, tie_sizes};

/// What to do with a query that was judged and that the run does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// It counts as 0 (`trec_eval -c`). A run is not better for leaving hard queries out.
    #[default]
    Zero,
    /// It is left out of the average (trec_eval 9 without `-c`, and pytrec_eval).
    Skip,
}

/// How a run is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgeOptions {
    width: ScoreWidth,
    missing: Missing,
    level: Label,
    alpha: f64,
}

impl Default for JudgeOptions {
    fn default() -> Self {
        Self { width: ScoreWidth::F32, missing: Missing::Zero, level: 1, alpha: 0.5 }
    }
}

impl JudgeOptions {
    /// Scores compared in 32 bits, missing queries count as 0, relevant from label 1 on, alpha 0.5.
    pub fn new() -> Self {
        Self::default()
    }

    /// In how many bits scores are compared.
    pub fn width(self, width: ScoreWidth) -> Self {
        Self { width, ..self }
    }

    /// What to do with queries that the run does not have.
    pub fn missing(self, missing: Missing) -> Self {
        Self { missing, ..self }
    }

    /// From which label on a document is relevant, for the metrics that know only relevant and not (`trec_eval -l`).
    /// TREC Deep Learning uses 2. Below 1 it is 1: a label of 0 means not relevant.
    pub fn level(self, level: Label) -> Self {
        Self { level: level.max(1), ..self }
    }

    /// What a subtopic loses each time it is covered, for alpha-NDCG: 0 nothing, 1 everything.
    pub fn alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }
}

/// A run beside its judgements. Sorting and looking up labels is done once, for as many metrics as are wanted.
#[derive(Debug)]
pub struct JudgedRun {
    options: JudgeOptions,
    queries: BTreeMap<String, Judged>,
    subtopics: BTreeMap<String, JudgedSubtopics>,
    missing: Vec<String>,
    unjudged: Vec<String>,
    without_relevant: Vec<String>,
}

impl JudgedRun {
    /// Puts a run beside its judgements. Judgements that the run has no query for, and queries without judgements, are
    /// no error, as for trec_eval; [`missing`](Self::missing) and [`unjudged`](Self::unjudged) name them.
    ///
    /// # Errors
    /// [`Error::NoCommonQuery`], and [`Error::Option`] for an alpha that is not from 0 to 1.
    pub fn new(qrels: &Qrels, run: &Run, options: JudgeOptions) -> Result<Self> {
        if !(0.0..=1.0).contains(&options.alpha) {
            return Err(Error::Option { name: "alpha", found: options.alpha, expected: "from 0 to 1" });
        }
        let mut judged = Self {
            options,
            queries: BTreeMap::new(),
            subtopics: BTreeMap::new(),
            missing: Vec::new(),
            unjudged: run
                .iter()
                .map(|(query, _)| query)
                .filter(|q| qrels.get(q).is_none())
                .map(str::to_string)
                .collect(),
            without_relevant: Vec::new(),
        };
        if judged.unjudged.len() == run.len() {
            return Err(Error::NoCommonQuery { judged: qrels.len(), retrieved: run.len() });
        }
        for (query, labels) in qrels.iter() {
            if !labels.values().any(|label| *label >= options.level) {
                judged.without_relevant.push(query.to_string());
            }
            let retrieved = match (run.get(query), options.missing) {
                (Some(retrieved), _) => retrieved,
                (None, missing) => {
                    judged.missing.push(query.to_string());
                    if missing == Missing::Skip {
                        continue;
                    }
                    &[]
                }
            };
            let ranked = ranking(retrieved, options.width);
            let ties = tie_sizes(&ranked, options.width);
            let label = |document: &str| labels.get(document).copied().unwrap_or(0).max(0);
            let mut positives: Vec<Label> = labels.values().copied().filter(|label| *label > 0).collect();
            positives.sort_unstable_by(|a, b| b.cmp(a));
            let of_ranked = ranked.iter().map(|hit| label(&hit.document)).collect();
            judged.queries.insert(query.to_string(), Judged { labels: of_ranked, ties, positives });

            let Some(documents) = qrels.subtopics(query) else { continue };
            let mut numbers = BTreeMap::new();
            for (subtopic, label) in documents.values().flatten() {
                if *label >= options.level {
                    let next = numbers.len();
                    numbers.entry(subtopic).or_insert(next);
                }
            }
            let relevant_to = |document: &str| -> Vec<usize> {
                let of_document = documents.get(document).into_iter().flatten();
                of_document
                    .filter(|(_, label)| **label >= options.level)
                    .filter_map(|(subtopic, _)| numbers.get(subtopic).copied())
                    .collect()
            };
            judged.subtopics.insert(
                query.to_string(),
                JudgedSubtopics {
                    ranked: ranked.iter().map(|hit| relevant_to(&hit.document)).collect(),
                    all: documents.keys().rev().map(|document| relevant_to(document)).collect(),
                    count: numbers.len(),
                },
            );
        }
        Ok(judged)
    }

    /// Judged queries that the run does not have.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Queries of the run without a judgement. They count nowhere.
    pub fn unjudged(&self) -> &[String] {
        &self.unjudged
    }

    /// Judged queries without a relevant document. They are in every average, with 0.
    pub fn without_relevant(&self) -> &[String] {
        &self.without_relevant
    }

    /// The metric's value for each judged query; of a metric of subtopics, for each query that was judged by subtopic.
    ///
    /// # Errors
    /// [`Error::NoSubtopics`].
    pub fn evaluate(&self, metric: Metric) -> Result<PerQuery> {
        let at = self.at(metric);
        match metric.kind().compute {
            Compute::Labels { value, .. } => {
                Ok(self.queries.iter().map(|(query, judged)| (query, value(judged, &at))).collect())
            }
            Compute::Subtopics(value) => {
                if self.subtopics.is_empty() {
                    return Err(Error::NoSubtopics { metric: metric.to_string() });
                }
                Ok(self.subtopics.iter().map(|(query, judged)| (query, value(judged, &at))).collect())
            }
        }
    }

    /// What tied scores make of a metric: its mean over all orders of the tied documents, and its values in the best and
    /// the worst of them. A ranker with many ties can look good by the accident of its document ids; this shows it.
    ///
    /// # Errors
    /// [`Error::NoTieReport`] for metrics of subtopics.
    pub fn ties(&self, metric: Metric) -> Result<TieReport> {
        let at = self.at(metric);
        let Compute::Labels { value, expected } = metric.kind().compute else {
            return Err(Error::NoTieReport { metric: metric.to_string() });
        };
        let extreme = |judged: &Judged, sort: fn(&mut [Label])| {
            let mut other = judged.clone();
            let mut rest = other.labels.as_mut_slice();
            for size in &judged.ties {
                let (group, after) = rest.split_at_mut(*size);
                sort(group);
                rest = after;
            }
            value(&other, &at)
        };
        let over = |of: &dyn Fn(&Judged) -> f64| -> PerQuery {
            self.queries.iter().map(|(query, judged)| (query, of(judged))).collect()
        };
        let tied = |judged: &Judged| judged.ties.iter().filter(|size| **size > 1).sum::<usize>();
        Ok(TieReport {
            value: over(&|judged| value(judged, &at)),
            expected: over(&|judged| expected(judged, &at)),
            minimum: over(&|judged| extreme(judged, |group| group.sort_unstable())),
            maximum: over(&|judged| extreme(judged, |group| group.sort_unstable_by(|a, b| b.cmp(a)))),
            queries_with_ties: self.queries.values().filter(|judged| tied(judged) > 0).count(),
            share_tied: mean(
                self.queries
                    .values()
                    .filter(|judged| !judged.labels.is_empty())
                    .map(|judged| tied(judged) as f64 / judged.labels.len() as f64),
            ),
        })
    }

    fn at(&self, metric: Metric) -> At {
        At { cutoff: metric.cutoff(), level: self.options.level, alpha: self.options.alpha }
    }
}

/// What tied scores make of a metric. Source: McSherry and Najork, ECIR 2008, for the expected values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TieReport {
    /// In trec_eval's order.
    pub value: PerQuery,
    /// The mean over all orders of the tied documents, computed exactly.
    pub expected: PerQuery,
    /// In the worst order.
    pub minimum: PerQuery,
    /// In the best order.
    pub maximum: PerQuery,
    /// How many queries have two documents with equal scores.
    pub queries_with_ties: usize,
    /// The share of retrieved documents whose score another document has too, averaged over queries.
    pub share_tied: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Retrieved;

    #[test]
    fn gains_by_hand() {
        let mut qrels = Qrels::new();
        for (document, label) in [("d1", 3), ("d2", 2), ("d3", 0), ("d4", 1)] {
            qrels.insert("q", document, label);
        }
        let mut run = Run::new();
        let scores = [("d3", 0.9), ("d1", 0.8), ("d2", 0.8)];
        run.insert("q", scores.map(|(d, s)| Retrieved::new(d, s)).to_vec()).unwrap();
        let judged = JudgedRun::new(&qrels, &run, JudgeOptions::new()).unwrap();
        // The order is d3, d2, d1: (2 / log2(3) + 3 / 2) / (3 + 2 / log2(3) + 1 / 2), and with gains 3, 7 and 1.
        for (name, expected) in [("ndcg@10", 0.579996), ("ndcg_exp@10", 0.574141)] {
            let found = judged.evaluate(name.parse().unwrap()).unwrap().mean();
            assert!((found - expected).abs() < 1e-6, "{name}: {found}");
        }
    }

    #[test]
    fn queries_without_a_partner() {
        let mut qrels = Qrels::new();
        qrels.insert("both", "d1", 1);
        qrels.insert("judged only", "d1", 1);
        qrels.insert("nothing relevant", "d1", 0);
        let mut run = Run::new();
        for query in ["both", "nothing relevant", "retrieved only"] {
            run.insert(query, vec![Retrieved::new("d1", 1.0)]).unwrap();
        }
        let mean = |options| {
            let judged = JudgedRun::new(&qrels, &run, options).unwrap();
            assert_eq!(judged.missing(), ["judged only"]);
            assert_eq!(judged.unjudged(), ["retrieved only"]);
            assert_eq!(judged.without_relevant(), ["nothing relevant"]);
            judged.evaluate("mrr".parse().unwrap()).unwrap().mean()
        };
        assert_eq!(mean(JudgeOptions::new()), 1.0 / 3.0);
        assert_eq!(mean(JudgeOptions::new().missing(Missing::Skip)), 1.0 / 2.0);

        let mut other = Run::new();
        other.insert("elsewhere", Vec::new()).unwrap();
        for run in [&other, &Run::new()] {
            let error = JudgedRun::new(&qrels, run, JudgeOptions::new()).unwrap_err().to_string();
            assert!(error.contains("among the 3 judged ones"), "{error}");
        }
    }

    #[test]
    fn judgements_by_subtopic_beside_plain_ones() {
        let mut qrels = Qrels::new();
        for (query, document) in [("both", "d2"), ("plain", "d1")] {
            qrels.insert(query, document, 1);
        }
        let mut by_subtopic = Qrels::new();
        let rows = [("both", "1", "d1"), ("subtopics", "1", "d1"), ("subtopics", "2", "d2")];
        for (query, subtopic, document) in rows {
            by_subtopic.insert_subtopic(query, subtopic, document, 1);
        }
        qrels.add_subtopics(by_subtopic);
        let mut run = Run::new();
        for query in ["both", "plain", "subtopics"] {
            run.insert(query, vec![Retrieved::new("d1", 2.0), Retrieved::new("d2", 1.0)]).unwrap();
        }
        let values = |qrels: &Qrels, metric: &str| -> Vec<(String, f64)> {
            let judged = JudgedRun::new(qrels, &run, JudgeOptions::new()).unwrap();
            judged.evaluate(metric.parse().unwrap()).unwrap().0.into_iter().collect()
        };
        let named = |values: &[(&str, f64)]| -> Vec<(String, f64)> {
            values.iter().map(|(query, value)| (query.to_string(), *value)).collect()
        };
        // Plain labels are those that were given; a query without any has those of its subtopics.
        assert_eq!(values(&qrels, "mrr"), named(&[("both", 0.5), ("plain", 1.0), ("subtopics", 1.0)]));
        assert_eq!(values(&qrels, "p@2"), named(&[("both", 0.5), ("plain", 0.5), ("subtopics", 1.0)]));
        // What nobody judged by subtopic is not 0 there: it has no value.
        assert_eq!(values(&qrels, "alpha_ndcg@10"), named(&[("both", 1.0), ("subtopics", 1.0)]));

        qrels.retain(|query| query != "both");
        assert_eq!((qrels.len(), qrels.subtopics("both")), (2, None));
        assert_eq!(values(&qrels, "alpha_ndcg@10"), named(&[("subtopics", 1.0)]));
        qrels.retain(|query| query == "plain");
        assert!(!qrels.has_subtopics());
    }

    #[test]
    fn a_run_refuses_what_has_no_order() {
        let insert = |hits: &[(&str, f64)]| {
            let hits = hits.iter().map(|(document, score)| Retrieved::new(*document, *score)).collect();
            Run::new().insert("q", hits).unwrap_err().to_string()
        };
        assert_eq!(
            insert(&[("a", f64::NAN)]),
            "query q, document a: the score is NaN; a score is a finite number"
        );
        assert_eq!(insert(&[("a", 1.0), ("a", 2.0)]), "query q: document a stands in the run twice");
    }
}
