//! Metrics of a ranking against judgements: one file each, and one entry in [`METRICS`].
//!
//! All of them give trec_eval's numbers. What that means where implementations differ:
//! - Documents are in the order of [`ranking()`](crate::order::ranking); a document that was not judged, or has a label
//!   below 0, counts as not relevant and is not taken out.
//! - The ideal is made of all judged documents, not only of those retrieved.
//! - A query without a relevant document stays in the average, with 0.
//! - A cut-off beyond the end of the ranking is filled up with documents that are not relevant.

mod alpha_ndcg;
mod map;
mod mrr;
mod ndcg;
mod precision;
mod r_precision;
mod recall;
mod success;

use std::fmt;
use std::str::FromStr;

use crate::data::Label;
use crate::error::{Error, Result};

/// Every metric there is.
pub static METRICS: &[Kind] = &[
    ndcg::LINEAR,
    ndcg::EXPONENTIAL,
    mrr::KIND,
    map::KIND,
    precision::KIND,
    recall::KIND,
    r_precision::KIND,
    success::KIND,
    alpha_ndcg::KIND,
];

/// What a metric is, apart from its cut-off.
#[derive(Debug)]
pub struct Kind {
    /// As it is asked for, without the cut-off.
    pub name: &'static str,
    /// What it says, in one sentence.
    pub about: &'static str,
    /// Where its formula is from.
    pub source: &'static str,
    /// Whether it has a cut-off.
    pub cutoff: CutoffRule,
    /// How it is computed for one query.
    pub(crate) compute: Compute,
}

/// Whether a metric has a cut-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutoffRule {
    /// `name@k` only.
    Required,
    /// `name@k`, or `name` for the whole ranking.
    Optional,
    /// `name` only.
    None,
}

/// The functions behind a metric.
#[derive(Debug)]
pub(crate) enum Compute {
    /// A metric of labels alone. No order of tied documents gives it more than labels descending, none less than labels
    /// ascending: the report on ties relies on it.
    Labels {
        /// The value in trec_eval's order.
        value: fn(&Judged, &At) -> f64,
        /// The mean over all orders of the tied documents.
        expected: fn(&Judged, &At) -> f64,
    },
    /// A metric of subtopics.
    Subtopics(fn(&JudgedSubtopics, &At) -> f64),
}

/// What a metric is computed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) cutoff: Option<usize>,
    /// A document is relevant from this label on; 1 at least.
    pub(crate) level: Label,
    /// What a subtopic loses each time it is covered.
    pub(crate) alpha: f64,
}

impl At {
    /// How many documents of the ranking count.
    pub(crate) fn depth(&self) -> usize {
        self.cutoff.unwrap_or(usize::MAX)
    }

    pub(crate) fn is_relevant(&self, label: Label) -> bool {
        label >= self.level
    }
}

/// The ranking of one query, with its labels for documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    /// The label of each retrieved document, best first; 0 for those that were not judged.
    pub(crate) labels: Vec<Label>,
    /// How many documents share each distinct score, best first. Adds up to the length of `labels`.
    pub(crate) ties: Vec<usize>,
    /// The labels above 0 of all judged documents, highest first.
    pub(crate) positives: Vec<Label>,
}

impl Judged {
    /// The number of relevant documents, retrieved or not.
    pub(crate) fn relevant(&self, at: &At) -> usize {
        self.positives.iter().filter(|label| at.is_relevant(**label)).count()
    }

    /// The groups of documents with equal scores that begin within `depth`: how many documents are before each, and
    /// its labels.
    pub(crate) fn groups(&self, depth: usize) -> impl Iterator<Item = (usize, &[Label])> {
        let mut start = 0;
        self.ties
            .iter()
            .map(move |size| {
                start += size;
                (start - size, &self.labels[start - size..start])
            })
            .take_while(move |(start, _)| *start < depth)
    }

    /// The mean over all orders of tied documents of `sum of gain(label) * weight(rank)` over the ranks 1 to `depth`.
    /// In such a sum every document of a group has the mean gain of the group. Source: McSherry and Najork, "Computing
    /// information retrieval performance measures efficiently in the presence of tied scores", ECIR 2008.
    pub(crate) fn expected_sum(
        &self,
        depth: usize,
        gain: impl Fn(Label) -> f64,
        weight: impl Fn(usize) -> f64,
    ) -> f64 {
        let mut sum = 0.0;
        for (before, labels) in self.groups(depth) {
            let gains: f64 = labels.iter().map(|label| gain(*label)).sum();
            let ranks = before + 1..=(before + labels.len()).min(depth);
            sum += gains / labels.len() as f64 * ranks.map(&weight).sum::<f64>();
        }
        sum
    }
}

/// The ranking of one query, with the subtopics that its documents are relevant to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JudgedSubtopics {
    /// The subtopics of each retrieved document, best first, as numbers below `count`.
    pub(crate) ranked: Vec<Vec<usize>>,
    /// Those of all judged documents, in descending order of their ids.
    pub(crate) all: Vec<Vec<usize>>,
    /// The number of subtopics.
    pub(crate) count: usize,
}

/// A metric with its cut-off. Written `ndcg@10`, `map`, `recall@100`.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    kind: &'static Kind,
    cutoff: Option<usize>,
}

impl Metric {
    /// What it is, apart from its cut-off.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Whether it is computed from judgements of subtopics, and not from labels of documents.
    pub fn needs_subtopics(&self) -> bool {
        matches!(self.kind.compute, Compute::Subtopics(_))
    }

    /// How many documents of the ranking count; `None` is all of them.
    pub fn cutoff(&self) -> Option<usize> {
        self.cutoff
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        (self.kind.name, self.cutoff) == (other.kind.name, other.cutoff)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cutoff {
            Some(cutoff) => write!(f, "{}@{cutoff}", self.kind.name),
            None => f.write_str(self.kind.name),
        }
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, cutoff) = match text.split_once('@') {
            Some((name, cutoff)) => (name, Some(cutoff)),
            None => (text, None),
        };
        let kind = METRICS.iter().find(|kind| kind.name == name).ok_or_else(|| Error::UnknownMetric {
            name: name.to_string(),
            known: METRICS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", "),
        })?;
        let wrong = |expected| Error::Cutoff { metric: text.to_string(), expected };
        let cutoff = match (cutoff, kind.cutoff) {
            (Some(_), CutoffRule::None) => return Err(wrong("it has no cut-off")),
            (None, CutoffRule::Required) => return Err(wrong("it needs a cut-off, like @10")),
            (None, _) => None,
            (Some(digits), _) => match digits.parse::<usize>() {
                Ok(cutoff) if cutoff > 0 => Some(cutoff),
                _ => return Err(wrong("its cut-off is a whole number from 1, like @10")),
            },
        };
        Ok(Self { kind, cutoff })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_cutoffs() {
        for name in ["ndcg@10", "ndcg", "ndcg_exp@5", "mrr", "map@100", "rprec", "alpha_ndcg@20"] {
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
        }
        for (name, message) in [
            ("NDCG@10", "no metric is called \"NDCG\""),
            ("p", "p: it needs a cut-off"),
            ("rprec@5", "rprec@5: it has no cut-off"),
            ("ndcg@0", "ndcg@0: its cut-off is a whole number"),
            ("ndcg@-1", "ndcg@-1: its cut-off"),
            ("ndcg@", "ndcg@: its cut-off"),
        ] {
            let error = name.parse::<Metric>().unwrap_err().to_string();
            assert!(error.contains(message), "{name}: {error}");
        }
    }

    #[test]
    fn one_metric_needs_subtopics() {
        let needs = |name: &str| name.parse::<Metric>().unwrap().needs_subtopics();
        assert!(needs("alpha_ndcg@10") && !needs("ndcg@10"));
    }

    #[test]
    fn no_name_is_taken_twice() {
        let mut names: Vec<_> = METRICS.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
