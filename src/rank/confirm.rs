//! Two precisions, one order: a cheap scorer looks at everything, the exact one only at what can matter.
//!
//! Let `f` be the exact logits, `s` those of the screen, and `f(n)` the n-th best of `f`. The documents are confirmed in the order
//! of `s`, until every document that is left has `s + slack` below the n-th best confirmed logit `t`. A document of the
//! true first n is then missed only if `s + slack < t <= f(n)`. So for one query any `slack` from
//! `max (f(n) - s)` over its true first n is enough. That number can be measured for judged or unjudged queries of the
//! user's; the k-th smallest of q of them is enough for another query of the same kind with probability k / (q + 1) at
//! least, which is the promise that the answer carries.
//!
//! Where only the set of the first n matters ([`Same::Set`]), what the screen places far above the cut need not be confirmed
//! either. Let `c` lie half way between the screen's n-th and its next: what lies within `slack` of `c` is confirmed, and the best
//! of it fill the places that what lies higher leaves. Then `max |s - c|` over the documents that the screen puts on the wrong side
//! is enough.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::score::{Score, ScoreScale};

use super::batches::{Batches, Found, Question};
use super::scorer::Scorer;
use super::stage::{Applied, Context, Guarantee, Kept, Placed, Stage};

/// What of the exact scorer's first documents stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Same {
    /// They and their order: all of them are confirmed.
    #[default]
    Order,
    /// They, in any order: only those near the cut are confirmed.
    Set,
}

/// Screens everything with one scorer, and confirms with another what may be among the first.
#[derive(Debug, Clone)]
pub struct Confirm<S, E> {
    name: String,
    screen: S,
    exact: E,
    top_n: usize,
    slack: f64,
    same: Same,
    confidence: Option<f64>,
    depth: Option<usize>,
    keep: Option<usize>,
    batches: Batches,
}

/// A document that was screened, and what is known of it since.
struct Seen {
    index: usize,
    score: Score,
    confirmed: bool,
    /// Among the first, whatever its logit says.
    first: bool,
}

impl<S: Scorer, E: Scorer> Confirm<S, E> {
    /// The first `top_n` are to be those of `exact`. Documents are confirmed that the screen places up to `slack` logits from the
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
            same: Same::default(),
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

    /// What is to be the same; the order, if nothing is said. The slack must be measured for it.
    #[must_use]
    pub fn same(mut self, same: Same) -> Self {
        self.same = same;
        self
    }

    /// How likely the slack is enough, as it was measured: above 0 and below 1. It is said with every answer.
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

    fn check(&self) -> Result<()> {
        match self.confidence {
            // Neither is ever measured; NaN is refused too.
            Some(confidence) if !(confidence > 0.0 && confidence < 1.0) => Err(Error::InvalidOption {
                option: "confidence",
                problem: format!("{confidence}; it is above 0 and below 1"),
            }),
            _ => Ok(()),
        }
    }

    /// What can be among the first, with all that come before it; `order` is the screen's.
    fn confirm_first(&self, context: &Context<'_>, order: &[(&Placed, f32)]) -> Result<Found> {
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

    /// What lies near the cut of the screen's order.
    fn confirm_near(&self, context: &Context<'_>, order: &[(&Placed, f32)], cut: f64) -> Result<Found> {
        let question = Question { stage: &self.name, scorer: &self.exact, query: context.query() };
        let near = order.iter().filter(|(_, screened)| (f64::from(*screened) - cut).abs() <= self.slack);
        let near: Vec<Placed> = near.map(|(placed, _)| (*placed).clone()).collect();
        self.batches.all(&question, context, &near)
    }

    /// Half way between the last of the first and the next; below everything if there is no next.
    fn cut(&self, order: &[(&Placed, f32)]) -> f64 {
        let at = |place: usize| order.get(place).map(|(_, screened)| f64::from(*screened));
        match (at(self.top_n - 1), at(self.top_n)) {
            (Some(last), Some(next)) => f64::midpoint(last, next),
            _ => f64::NEG_INFINITY,
        }
    }

    /// Marks the first: what the screen places above what was confirmed, and the best of that.
    fn choose(&self, cut: f64, seen: &mut [Seen]) {
        let mut open = self.top_n;
        for one in seen.iter_mut().filter(|one| !one.confirmed) {
            one.first = f64::from(one.score.logit) > cut;
            open = open.saturating_sub(usize::from(one.first));
        }
        let mut near: Vec<&mut Seen> = seen.iter_mut().filter(|one| one.confirmed).collect();
        near.sort_by(|a, b| b.score.logit.total_cmp(&a.score.logit));
        near.into_iter().take(open).for_each(|one| one.first = true);
    }
}

impl<S: Scorer, E: Scorer> Stage for Confirm<S, E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        self.check()?;
        let head = &incoming[..incoming.len().min(self.depth.unwrap_or(usize::MAX))];
        let question = Question { stage: &self.name, scorer: &self.screen, query: context.query() };
        let (screened, mut stop) = self.batches.all(&question, context, head)?;
        let read = screened.len();
        let mut seen: Vec<Seen> = screened
            .into_iter()
            .map(|(index, score)| Seen { index, score, confirmed: false, first: false })
            .collect();
        let mut partly = None;
        if stop.is_none() {
            let mut order: Vec<(&Placed, f32)> =
                head.iter().zip(&seen).map(|(placed, one)| (placed, one.score.logit)).collect();
            order.sort_by(|a, b| b.1.total_cmp(&a.1));
            let cut = self.cut(&order);
            let exact;
            (exact, stop) = match self.same {
                Same::Order => self.confirm_first(context, &order)?,
                Same::Set => self.confirm_near(context, &order, cut)?,
            };
            if stop.is_some() {
                partly = Some(in_places(&order, &exact));
            }
            let mut of: HashMap<usize, Score> = exact.into_iter().collect();
            for one in &mut seen {
                if let Some(exact) = of.remove(&one.index) {
                    (one.score, one.confirmed) = (exact, true);
                }
            }
            if self.same == Same::Set && stop.is_none() {
                self.choose(cut, &mut seen);
            }
        }
        let confirmed = seen.iter().filter(|one| one.confirmed).count();
        // One that is first by the slack and not by its logit has at least the value of the others.
        let others = seen.iter().filter(|one| !one.first).map(|one| f64::from(one.score.logit));
        let least = others.reduce(f64::max).unwrap_or(f64::NEG_INFINITY);
        // Of equal values the first ones come first, then the confirmed ones; else as they came.
        seen.sort_by_key(|one| (!one.first, !one.confirmed));
        let value = |one: &Seen| {
            let logit = f64::from(one.score.logit);
            if one.first { logit.max(least) } else { logit }
        };
        let mut kept = partly.unwrap_or_else(|| {
            let mut kept: Vec<Kept> =
                seen.iter().map(|one| Kept { index: one.index, value: value(one) }).collect();
            kept.sort_by(|a, b| b.value.total_cmp(&a.value));
            kept
        });
        kept.truncate(self.keep.unwrap_or(usize::MAX));
        let scores = seen.into_iter().map(|one| (one.index, one.score)).collect();
        // Of one map, one calibration: the score of the screen is on the scale of the exact one.
        let scale = if confirmed > 0 { self.exact.scale() } else { self.screen.scale() };
        let applied = Applied::new(kept).value_scale(ScoreScale::Logit).scores(scores, scale).read(read);
        Ok(match stop {
            Some(_) => applied.stop(stop).note(format!("{confirmed} of {read} documents were confirmed")),
            None => applied.guarantee(Guarantee::SameTop {
                top_n: self.top_n,
                same: self.same,
                slack: self.slack,
                confidence: self.confidence,
                confirmed,
            }),
        })
    }
}

/// The order of a confirmation that was not finished. The logits of both scorers cannot be sorted together: the
/// screen's order and values stay, and the confirmed documents only change places among themselves.
fn in_places(order: &[(&Placed, f32)], exact: &[(usize, Score)]) -> Vec<Kept> {
    let of: HashMap<usize, f32> = exact.iter().map(|(index, score)| (*index, score.logit)).collect();
    let mut confirmed: Vec<(usize, f32)> = order
        .iter()
        .filter_map(|(placed, _)| of.get(&placed.index).map(|logit| (placed.index, *logit)))
        .collect();
    confirmed.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut confirmed = confirmed.into_iter();
    let kept = order.iter().map(|(placed, screened)| {
        let held = of.contains_key(&placed.index).then(|| confirmed.next()).flatten();
        Kept { index: held.map_or(placed.index, |(index, _)| index), value: f64::from(*screened) }
    });
    kept.collect()
}
