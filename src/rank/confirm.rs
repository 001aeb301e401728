//! Two precisions, one order: a cheap scorer looks at everything, the exact one only at what can matter.
//!
//! Let `f` be the exact logits, `s` those of the screen, and `f(n)` the n-th best of `f`. The documents are confirmed in the order
//! of `s`, until every document that is left has `s + slack` below the n-th best confirmed logit `t`. A document of the
//! true first n is then missed only if `s + slack < t <= f(n)`. So for one query any `slack` from
//! `max (f(n) - s)` over its true first n is enough. That number can be measured for judged or unjudged queries of the
//! user's; the k-th smallest of q of them is enough for another query of the same kind with probability k / (q + 1) at
//! least, which is the promise that the answer carries.

use crate::error::{Error, Result};
use crate::score::{Score, ScoreScale};

use super::batches::{Batches, Found, Question};
use super::scorer::Scorer;
use super::stage::{Applied, Context, Guarantee, Kept, Placed, Stage};

/// Screens everything with one scorer, and confirms with another what may be among the first.
#[derive(Debug, Clone)]
pub struct Confirm<S, E> {
    name: String,
    screen: S,
    exact: E,
    top_n: usize,
    slack: f64,
    confidence: Option<f64>,
    depth: Option<usize>,
    keep: Option<usize>,
    batches: Batches,
}

impl<S: Scorer, E: Scorer> Confirm<S, E> {
    /// The first `top_n` are to be those of `exact`. Documents are confirmed that the screen places up to `slack` logits below the
    /// cut. Both scorers must give logits of one scale: most often they are one model in two precisions.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `top_n` is 0 or `slack` is not a number from 0.
    pub fn new(screen: S, exact: E, (top_n, slack): (usize, f64)) -> Result<Self> {
        if top_n == 0 {
            return Err(Error::InvalidOption { option: "top_n", problem: "0; it is at least 1".into() });
        }
        if !(slack >= 0.0 && slack.is_finite()) {
            return Err(Error::InvalidOption {
                option: "slack",
                problem: format!("{slack}; it is a number from 0"),
            });
        }
        Ok(Self {
            name: "confirm".into(),
            screen,
            exact,
            top_n,
            slack,
            confidence: None,
            depth: None,
            keep: None,
            batches: Batches { pairs: 8, ..Batches::default() },
        })
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How likely the slack is enough, as it was measured; it is said with every answer.
    #[must_use]
    pub fn confidence(mut self, confidence: f64) -> Self {
        self.confidence = Some(confidence);
        self
    }

    /// How many of those that come in it screens.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = Some(depth);
        self
    }

    /// How many of the best it keeps. The others stay below them as they came.
    #[must_use]
    pub fn keep(mut self, keep: usize) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Pairs confirmed at a time; at least 1.
    #[must_use]
    pub fn batch_pairs(mut self, pairs: usize) -> Self {
        self.batches.pairs = pairs.max(1);
        self
    }

    fn confirm(&self, context: &Context<'_>, order: &[(&Placed, f32)]) -> Result<Found> {
        let question = Question { stage: &self.name, scorer: &self.exact, query: context.query() };
        let mut exact: Vec<(usize, Score)> = Vec::new();
        let mut cut = f64::NEG_INFINITY;
        loop {
            let done = exact.len();
            let size = if done < self.top_n { self.top_n - done } else { self.batches.pairs };
            let batch: Vec<Placed> = order[done..]
                .iter()
                .take(size)
                .take_while(|(_, screened)| f64::from(*screened) + self.slack >= cut)
                .map(|(placed, _)| (*placed).clone())
                .collect();
            if batch.is_empty() {
                return Ok((exact, None));
            }
            let (found, stop) = self.batches.all(&question, context, &batch)?;
            exact.extend(found);
            if stop.is_some() {
                return Ok((exact, stop));
            }
            let mut logits: Vec<f32> = exact.iter().map(|(_, score)| score.logit).collect();
            logits.sort_by(|a, b| b.total_cmp(a));
            cut = logits.get(self.top_n - 1).map_or(f64::NEG_INFINITY, |logit| f64::from(*logit));
        }
    }
}

impl<S: Scorer, E: Scorer> Stage for Confirm<S, E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let head = &incoming[..incoming.len().min(self.depth.unwrap_or(usize::MAX))];
        let question = Question { stage: &self.name, scorer: &self.screen, query: context.query() };
        let (mut scores, mut stop) = self.batches.all(&question, context, head)?;
        let read = scores.len();
        let mut confirmed = 0;
        if stop.is_none() {
            let mut order: Vec<(&Placed, f32)> =
                head.iter().zip(&scores).map(|(placed, (_, score))| (placed, score.logit)).collect();
            order.sort_by(|a, b| b.1.total_cmp(&a.1));
            let exact;
            (exact, stop) = self.confirm(context, &order)?;
            confirmed = exact.len();
            let mut of: std::collections::HashMap<usize, Score> = exact.into_iter().collect();
            let mut is_confirmed = vec![false; scores.len()];
            for ((index, score), is_confirmed) in scores.iter_mut().zip(&mut is_confirmed) {
                if let Some(exact) = of.remove(index) {
                    (*score, *is_confirmed) = (exact, true);
                }
            }
            // Of equal logits the confirmed ones come first; else as they came.
            let (mut first, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut scores)
                .into_iter()
                .zip(is_confirmed)
                .partition(|(_, confirmed)| *confirmed);
            first.extend(rest);
            scores = first.into_iter().map(|(score, _)| score).collect();
        }
        let mut kept: Vec<Kept> = scores
            .iter()
            .map(|(index, score)| Kept { index: *index, value: f64::from(score.logit) })
            .collect();
        kept.sort_by(|a, b| b.value.total_cmp(&a.value));
        kept.truncate(self.keep.unwrap_or(usize::MAX));
        // Of one map, one calibration: the score of the screen is on the scale of the exact one.
        let scale = if confirmed > 0 { self.exact.scale() } else { self.screen.scale() };
        let applied = Applied::new(kept).value_scale(ScoreScale::Logit).scores(scores, scale).read(read);
        Ok(match stop {
            Some(_) => applied.stop(stop).note(format!("{confirmed} of {read} documents were confirmed")),
            None => applied.guarantee(Guarantee::SameTop {
                top_n: self.top_n,
                slack: self.slack,
                confidence: self.confidence,
                confirmed,
            }),
        })
    }
}
