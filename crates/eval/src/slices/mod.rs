//! Slices: sets of items that each test one thing at which cross-encoders are said to be better than bi-encoders.
//!
//! [`challenge`] reads our own set, the folder `challenge/` of the repository; [`public`] reads a set that somebody else
//! published, from a folder in which it lies as published. Either way a [`Slice`] comes out, and a ranker needs to know
//! no more of it than its [`groups`](Slice::groups):
//!
//! ```
//! use jointly_eval::slices::{Contrast, Items, Slice};
//! use jointly_eval::{Retrieved, Run};
//!
//! let slice = Slice::new("negation", Items::Contrasts(vec![Contrast {
//!     id: "1".into(),
//!     domain: "cooking".into(),
//!     queries: ["soup with meat".into(), "soup without meat".into()],
//!     documents: ["Simmer the bones.".into(), "No bones, only leeks.".into()],
//! }]));
//! let mut run = Run::new();
//! for group in slice.groups() {
//!     // A ranker that always prefers the longer document.
//!     let scores = group.documents.iter().map(|d| Retrieved::new(&d.id, d.text.len() as f64));
//!     run.insert(&group.query_id, scores.collect())?;
//! }
//! assert_eq!(slice.measure(&run)?.mean(), 0.0);
//! # Ok::<(), jointly_eval::Error>(())
//! ```
//!
//! Whether a ranker's edge on a slice is larger than its edge on the easy control is what
//! [`interaction`](crate::significance::interaction) tests.

mod challenge;
mod entity_matching;
mod fever_symmetric;
mod lost_in_the_middle;
mod negconstraint;
mod qmsum;
mod read;
mod scifact_antonym;
mod tatqa;
mod trec_dl;
mod wsd;

use std::collections::BTreeMap;
use std::path::Path;

pub use challenge::{CHALLENGE, CONTROL, challenge};

use crate::data::{PerQuery, Run};
use crate::error::{Error, Result};
use crate::format::groups::{Candidate, Group, qrels};
use crate::judge::{JudgeOptions, JudgedRun};
use crate::metric::Metric;
use crate::pairs::{ContrastScores, paired_accuracy};

/// Two queries and two documents: the first document answers the first query and not the second, the second document
/// the second query and not the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contrast {
    /// The item's id, unique in its slice.
    pub id: String,
    /// What it is about; empty where the set does not say.
    pub domain: String,
    /// The queries.
    pub queries: [String; 2],
    /// The documents, in the order of the queries.
    pub documents: [String; 2],
}

/// What a slice is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Items {
    /// Contrast items, measured by paired accuracy.
    Contrasts(Vec<Contrast>),
    /// Queries with a pool of judged documents each, measured by NDCG@10 within the pool.
    Pools(Vec<Group>),
}

/// A set of items that test the same thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Its name.
    pub name: String,
    /// Its items.
    pub items: Items,
}

impl Slice {
    /// A slice of these items.
    pub fn new(name: impl Into<String>, items: Items) -> Self {
        Self { name: name.into(), items }
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Contrasts(items) => items.len(),
            Items::Pools(items) => items.len(),
        }
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What [`measure`](Self::measure) gives: `paired-accuracy` or `ndcg@10`.
    pub fn metric(&self) -> &'static str {
        match &self.items {
            Items::Contrasts(_) => "paired-accuracy",
            Items::Pools(_) => "ndcg@10",
        }
    }

    /// All that a ranker has to score. A contrast item `x` becomes the queries `x/1` and `x/2`, each over the documents
    /// `x/1` and `x/2`.
    pub fn groups(&self) -> Vec<Group> {
        match &self.items {
            Items::Contrasts(items) => items.iter().flat_map(Contrast::groups).collect(),
            Items::Pools(items) => items.clone(),
        }
    }

    /// One value for each item, from a run over [`groups`](Self::groups). An item of which the run lacks a query or a
    /// document counts 0.
    ///
    /// # Errors
    /// [`Error::NoCommonQuery`] for a run of something else.
    pub fn measure(&self, run: &Run) -> Result<PerQuery> {
        match &self.items {
            Items::Contrasts(items) => {
                if !items.iter().any(|item| (1..=2).any(|n| run.get(&part(&item.id, n)).is_some())) {
                    return Err(Error::NoCommonQuery { judged: 2 * items.len(), retrieved: run.len() });
                }
                let scores = items.iter().map(|item| (item.id.clone(), item.scores(run)));
                Ok(paired_accuracy(&scores.collect::<BTreeMap<_, _>>()))
            }
            Items::Pools(items) => {
                let ndcg: Metric = "ndcg@10".parse()?;
                JudgedRun::new(&qrels(items), run, JudgeOptions::new())?.evaluate(ndcg)
            }
        }
    }
}

impl Contrast {
    fn groups(&self) -> [Group; 2] {
        [0, 1].map(|query| Group {
            query_id: part(&self.id, query + 1),
            query: self.queries[query].clone(),
            documents: [0, 1]
                .map(|i| candidate(part(&self.id, i + 1), &self.documents[i], i == query))
                .into(),
        })
    }

    /// NaN, which is never right, for what the run lacks.
    fn scores(&self, run: &Run) -> ContrastScores {
        let score = |query: usize, document: usize| {
            let hits = run.get(&part(&self.id, query)).unwrap_or_default();
            let wanted = part(&self.id, document);
            hits.iter().find(|hit| hit.document == wanted).map_or(f64::NAN, |hit| hit.score)
        };
        ContrastScores { first: (score(1, 1), score(1, 2)), second: (score(2, 2), score(2, 1)) }
    }
}

fn part(id: &str, number: usize) -> String {
    format!("{id}/{number}")
}

/// A document of a pool, judged.
fn candidate(id: impl Into<String>, text: &str, is_relevant: bool) -> Candidate {
    let label = Some(i8::from(is_relevant));
    Candidate { id: id.into(), text: text.to_string(), first_stage_score: None, label }
}

/// A set that somebody else published.
#[derive(Debug, Clone, Copy)]
pub struct PublicSet {
    /// Its name, which is also the usual name of its folder.
    pub name: &'static str,
    /// The slice that it belongs to: one of [`CHALLENGE`].
    pub slice: &'static str,
    read: fn(&Path) -> Result<Items>,
}

/// Every public set that can be read. How its labels are taken stands at the head of its loader's file.
pub const PUBLIC: &[PublicSet] = &[
    PublicSet { name: "trec-dl19", slice: "hard-negatives", read: trec_dl::read },
    PublicSet { name: "trec-dl21", slice: "hard-negatives", read: trec_dl::read },
    PublicSet { name: "fever-symmetric", slice: "hard-negatives", read: fever_symmetric::read },
    PublicSet { name: "qmsum", slice: "long-documents", read: qmsum::read },
    PublicSet { name: "lost-in-the-middle", slice: "long-documents", read: lost_in_the_middle::read },
    PublicSet { name: "wsd-eval", slice: "polysemy", read: wsd::read },
    PublicSet { name: "scifact-antonym", slice: "negation-and-quantifiers", read: scifact_antonym::read },
    PublicSet { name: "negconstraint", slice: "negation-and-quantifiers", read: negconstraint::read },
    PublicSet { name: "entity-matching-ditto", slice: "numbers-and-entities", read: entity_matching::read },
    PublicSet { name: "tatqa", slice: "numbers-and-entities", read: tatqa::read },
];

/// Reads the public set of this name (one of [`PUBLIC`]) from its folder.
///
/// # Errors
/// [`Error::UnknownSet`]; [`Error::Io`], [`Error::Line`] and [`Error::Empty`] for its files.
pub fn public(name: &str, folder: impl AsRef<Path>) -> Result<Slice> {
    let Some(set) = PUBLIC.iter().find(|set| set.name == name) else {
        let known: Vec<&str> = PUBLIC.iter().map(|set| set.name).collect();
        return Err(Error::UnknownSet { name: name.to_string(), known: known.join(", ") });
    };
    let items = (set.read)(folder.as_ref())?;
    let slice = Slice::new(name, items);
    if slice.is_empty() {
        return Err(Error::Empty { path: folder.as_ref().to_path_buf(), what: "usable item" });
    }
    Ok(slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Retrieved;

    fn contrast(id: &str) -> Contrast {
        let two = |a: &str| [format!("{a} one"), format!("{a} two")];
        Contrast { id: id.into(), domain: String::new(), queries: two("query"), documents: two("document") }
    }

    #[test]
    fn contrasts_become_groups_and_groups_paired_accuracy() {
        let slice = Slice::new("s", Items::Contrasts(vec![contrast("a"), contrast("b"), contrast("c")]));
        let groups = slice.groups();
        assert_eq!(groups.len(), 6);
        assert_eq!((groups[1].query_id.as_str(), groups[1].query.as_str()), ("a/2", "query two"));
        assert_eq!(groups[1].documents.iter().map(|d| d.label).collect::<Vec<_>>(), [Some(0), Some(1)]);
        let mut run = Run::new();
        let both = |one, two| vec![Retrieved::new("a/1", one), Retrieved::new("a/2", two)];
        run.insert("a/1", both(2.0, 1.0)).unwrap();
        run.insert("a/2", both(0.1, 0.2)).unwrap();
        run.insert("b/1", vec![Retrieved::new("b/1", 2.0), Retrieved::new("b/2", 1.0)]).unwrap();
        let measured = slice.measure(&run).unwrap();
        assert_eq!(measured.0.values().copied().collect::<Vec<_>>(), [1.0, 0.0, 0.0]);
        let error = slice.measure(&Run::new()).unwrap_err().to_string();
        assert!(error.starts_with("none of the 0 queries of the run is among the 6 judged ones"), "{error}");
    }

    #[test]
    fn pools_are_measured_by_ndcg() {
        let group = Group {
            query_id: "q".into(),
            query: "?".into(),
            documents: vec![candidate("a", "x", false), candidate("b", "y", true)],
        };
        let slice = Slice::new("s", Items::Pools(vec![group]));
        let mut run = Run::new();
        run.insert("q", vec![Retrieved::new("a", 2.0), Retrieved::new("b", 1.0)]).unwrap();
        assert!((slice.measure(&run).unwrap().mean() - 1.0 / 3_f64.log2()).abs() < 1e-12);
    }

    #[test]
    fn sets_are_known_by_name_and_belong_to_a_slice() {
        let error = public("squad", "anywhere").unwrap_err().to_string();
        assert!(error.starts_with("no public set is called \"squad\"; there are trec-dl19, "), "{error}");
        for set in PUBLIC {
            assert!(CHALLENGE.contains(&set.slice), "{}", set.name);
        }
    }
}
