//! What a stage is: what it is given, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::score::{Score, ScoreScale};

use super::budget::{Budget, Meter, Spent, Stop};
use super::confirm::Same;

/// One step of a cascade.
///
/// A stage reads documents that the stage before it kept, and answers which of them it keeps, best first. It need not
/// be about models: fusion, thresholds and diversity are stages too.
pub trait Stage: Sync {
    /// What it is called in reports.
    fn name(&self) -> &str;

    /// `incoming` is what the stage before kept, best first; for the first stage, all documents in the order given.
    ///
    /// Before each batch or request, a stage asks [`Meter::stop`]; if that says so it answers with what it has, and with
    /// the reason in [`Applied::stop`]. What it spends it tells [`Meter::spend`].
    ///
    /// # Errors
    /// Those of its model; [`Error::WrongScale`](crate::Error::WrongScale) where it cannot use the scores that it
    /// is given.
    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied>;
}

/// One stage of several cascades.
impl<S: Stage + Send + ?Sized> Stage for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        (**self).apply(context, incoming)
    }
}

/// A query, and the documents that were found for it, best first.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Request<'a> {
    /// What is asked.
    pub query: &'a str,
    /// The texts, in the order of the first stage.
    pub documents: &'a [&'a str],
    /// What the first stage gave each of them, larger is better; for interpolation.
    pub first_scores: Option<&'a [f64]>,
    /// What the query may have meant, for stages that cover all of it.
    pub sub_queries: &'a [SubQuery<'a>],
    /// What this query may cost, beyond what the cascade allows.
    pub budget: Budget,
}

/// One of the things that a query may have meant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubQuery<'a> {
    /// As a query of its own.
    pub text: &'a str,
    /// How likely it is meant, above 0. The weights of a query need not sum to 1.
    pub weight: f64,
}

impl<'a> Request<'a> {
    /// Documents in the order of the first stage.
    #[must_use]
    pub fn new(query: &'a str, documents: &'a [&'a str]) -> Self {
        Self { query, documents, ..Self::default() }
    }

    /// What the first stage gave each document, larger is better.
    #[must_use]
    pub fn first_scores(mut self, scores: &'a [f64]) -> Self {
        self.first_scores = Some(scores);
        self
    }

    /// What the query may have meant.
    #[must_use]
    pub fn sub_queries(mut self, sub_queries: &'a [SubQuery<'a>]) -> Self {
        self.sub_queries = sub_queries;
        self
    }

    /// What this query may cost.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }
}

/// What a stage is given beside the order.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The query and its documents.
    pub request: &'a Request<'a>,
    /// What may still be spent.
    pub meter: &'a Meter,
}

impl<'a> Context<'a> {
    /// For calling a stage outside a cascade.
    #[must_use]
    pub fn new(request: &'a Request<'a>, meter: &'a Meter) -> Self {
        Self { request, meter }
    }

    /// What is asked.
    #[must_use]
    pub fn query(&self) -> &'a str {
        self.request.query
    }

    /// The texts of `incoming`, in that order.
    #[must_use]
    pub fn texts(&self, incoming: &[Placed]) -> Vec<&'a str> {
        incoming.iter().filter_map(|placed| self.request.documents.get(placed.index)).copied().collect()
    }
}

/// A document in the order reached so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Its index among the documents given.
    pub index: usize,
    /// The number of the stage that placed it, from 0; none if it lies where the first stage put it.
    pub stage: Option<usize>,
    /// What that stage ordered by: never larger than that of the document above it, among those of one stage.
    pub value: Option<f64>,
    /// What `value` is.
    pub value_scale: ScoreScale,
    /// The score of the last scorer that read it.
    pub score: Option<Score>,
    /// What [`Score::score`] is.
    pub scale: ScoreScale,
}

impl Placed {
    /// A document that no stage has read.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self {
            index,
            stage: None,
            value: None,
            value_scale: ScoreScale::Ordinal,
            score: None,
            scale: ScoreScale::Ordinal,
        }
    }

    /// How relevant it is, between 0 and 1: what the last stage ordered by, if that is a probability or has one behind it.
    /// None where there are only logits that no one has mapped, or only an order.
    #[must_use]
    pub fn relevance(&self) -> Option<f64> {
        match self.value_scale {
            ScoreScale::Probability => self.value,
            ScoreScale::Logit => probability(self.score.as_ref()?, self.scale),
            ScoreScale::Ordinal => None,
        }
    }
}

/// The calibrated probability, or the score if that is one.
pub(super) fn probability(score: &Score, scale: ScoreScale) -> Option<f64> {
    let own = (scale == ScoreScale::Probability).then_some(score.score);
    score.probability.or(own).map(f64::from)
}

/// A document that a stage keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kept {
    /// Its index among the documents of the request.
    pub index: usize,
    /// What the stage orders by, finite; larger is better. A stage that has only an order gives minus the rank.
    pub value: f64,
}

/// What a stage answers.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Applied {
    /// What it keeps, best first. Documents that came in and are not here stay below, in their former order.
    pub kept: Vec<Kept>,
    /// What the values of `kept` are. None: only their order means something.
    pub value_scale: Option<ScoreScale>,
    /// Scores that it found, by the document's index; also of documents that it does not keep.
    pub scores: Vec<(usize, Score)>,
    /// What [`Score::score`] is in `scores`.
    pub scale: Option<ScoreScale>,
    /// How many documents of those that came in it has read; the first ones, where it says nothing else.
    pub read: usize,
    /// Why it did not read all that it was to read.
    pub stop: Option<Stop>,
    /// What holds of this answer beyond its being one.
    pub guarantee: Option<Guarantee>,
    /// What became of what it asked somebody else, if it asks.
    pub asked: Option<Asked>,
    /// What a person should know: answers that had to be repaired, requests that failed, a stop that is a guess.
    pub notes: Vec<String>,
}

/// What became of the questions of a stage that asks a language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// How many were asked.
    pub calls: usize,
    /// Of these, how many had no answer.
    pub unanswered: usize,
    /// Whether documents are where they came in because nobody was asked about them or nobody answered at all.
    pub is_partial: bool,
}

impl Applied {
    /// What is kept, best first.
    #[must_use]
    pub fn new(kept: Vec<Kept>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// All that came in, in the order in which it came: the answer of a stage that could do nothing.
    #[must_use]
    pub fn unchanged(incoming: &[Placed]) -> Self {
        Self::in_order(incoming.iter().map(|placed| placed.index))
    }

    /// Documents in an order that has no values.
    #[must_use]
    pub fn in_order(indices: impl IntoIterator<Item = usize>) -> Self {
        let kept = indices.into_iter().enumerate();
        Self::new(kept.map(|(rank, index)| Kept { index, value: -(rank as f64) }).collect())
    }

    /// What the values are that it orders by.
    #[must_use]
    pub fn value_scale(mut self, scale: ScoreScale) -> Self {
        self.value_scale = Some(scale);
        self
    }

    /// Scores found, and what [`Score::score`] is in them.
    #[must_use]
    pub fn scores(mut self, scores: Vec<(usize, Score)>, scale: ScoreScale) -> Self {
        (self.scores, self.scale) = (scores, Some(scale));
        self
    }

    /// How many documents were read.
    #[must_use]
    pub fn read(mut self, read: usize) -> Self {
        self.read = read;
        self
    }

    /// Why the stage ended early, if it did.
    #[must_use]
    pub fn stop(mut self, stop: Option<Stop>) -> Self {
        self.stop = stop;
        self
    }

    /// What became of what it asked.
    #[must_use]
    pub fn asked(mut self, asked: Asked) -> Self {
        self.asked = Some(asked);
        self
    }

    /// What holds of the answer.
    #[must_use]
    pub fn guarantee(mut self, guarantee: Guarantee) -> Self {
        self.guarantee = Some(guarantee);
        self
    }

    /// Something that a person should know.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// What a stage can promise of its answer without having done all the work.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Guarantee {
    /// Proven, with nothing assumed: whatever the documents that were not read would get, the first `top_n` stay as they are.
    Settled {
        /// How many of the first.
        top_n: usize,
    },
    /// The first `top_n` are those of the exact scorer, unless the screen errs by more than `slack` on which side of the cut a
    /// document lies.
    SameTop {
        /// How many of the first.
        top_n: usize,
        /// Whether in its order.
        same: Same,
        /// How far from the cut a document was still confirmed, in logits.
        slack: f64,
        /// How likely that is enough for a query like those that `slack` was measured on; none if it was just given.
        confidence: Option<f64>,
        /// How many documents were confirmed.
        confirmed: usize,
    },
    /// Reading on was not thought worth it, by a rule of thumb. It may be wrong.
    Heuristic {
        /// The rule.
        rule: String,
    },
}

/// What a stage did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StageReport {
    /// The stage.
    pub name: String,
    /// Documents that it was given.
    pub incoming: usize,
    /// Documents that it read.
    pub read: usize,
    /// Documents that it kept.
    pub kept: usize,
    /// Its time.
    pub elapsed: Duration,
    /// Calls, pairs, tokens and money.
    pub spent: Spent,
    /// Why it ended early, or was not begun.
    pub stop: Option<Stop>,
    /// What holds of its answer.
    pub guarantee: Option<Guarantee>,
    /// What became of what it asked somebody else, if it asks.
    pub asked: Option<Asked>,
    /// What a person should know.
    pub notes: Vec<String>,
}
