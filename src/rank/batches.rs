//! Scoring in batches, so that a budget can end it between two of them.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::score::Score;

use super::budget::{Meter, Spent, Stop};
use super::scorer::Scorer;
use super::stage::{Context, Placed};

/// Pairs scored at a time where a budget may end the query.
pub(super) const BATCH_PAIRS: usize = 16;

/// How a stage asks its scorer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batches {
    pub(super) pairs: usize,
    pub(super) usd_per_million_tokens: f64,
}

impl Default for Batches {
    fn default() -> Self {
        Self { pairs: BATCH_PAIRS, usd_per_million_tokens: 0.0 }
    }
}

/// A scorer and what it is asked.
pub(super) struct Question<'a, S: ?Sized> {
    pub(super) stage: &'a str,
    pub(super) scorer: &'a S,
    pub(super) query: &'a str,
}

/// Scores by the document's index in the request, and why there are not more.
pub(super) type Found = (Vec<(usize, Score)>, Option<Stop>);

/// Whether to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Batch,
    Enough,
}

impl Batches {
    /// Scores documents in their order, until all are, or the budget is spent.
    pub(super) fn all<S: Scorer + ?Sized>(
        self,
        question: &Question<'_, S>,
        context: &Context<'_>,
        documents: &[Placed],
    ) -> Result<Found> {
        if context.meter.is_limited() {
            return self.until(question, (context, documents), |_| Next::Batch);
        }
        // All at once: the model packs and shares them out best.
        Self { pairs: documents.len().max(1), ..self }.until(question, (context, documents), |_| Next::Batch)
    }

    /// As [`Batches::all`], always in batches, and asks after each whether to read on.
    pub(super) fn until<S: Scorer + ?Sized>(
        self,
        question: &Question<'_, S>,
        (context, documents): (&Context<'_>, &[Placed]),
        mut next: impl FnMut(&[(usize, Score)]) -> Next,
    ) -> Result<Found> {
        let texts = context.texts(documents);
        let mut scores: Vec<(usize, Score)> = Vec::with_capacity(documents.len());
        let mut pace = Pace::start();
        while scores.len() < texts.len() {
            let stop = context.meter.stop();
            if stop.is_some() {
                return Ok((scores, stop));
            }
            let left = texts.len() - scores.len();
            let room = match pace.room(context.meter, self.usd_per_million_tokens) {
                Ok(room) => room,
                Err(stop) => return Ok((scores, Some(stop))),
            };
            let first = scores.len();
            let batch = &texts[first..first + left.min(self.pairs.max(1)).min(room)];
            let index_of = |place: usize| documents.get(first + place).map_or(place, |placed| placed.index);
            let found =
                question.scorer.score(question.query, batch).map_err(|error| of_document(error, index_of))?;
            if found.len() != batch.len() {
                let problem = format!("{} scores for {} documents", found.len(), batch.len());
                return Err(Error::Stage { stage: question.stage.to_string(), problem });
            }
            if let Some(place) = found.iter().position(|score| !score.logit.is_finite()) {
                return Err(Error::NotFinite { index: index_of(place), logit: found[place].logit });
            }
            let tokens = found.iter().map(|score| score.tokens as u64).sum();
            let usd = tokens as f64 * self.usd_per_million_tokens / 1e6;
            context.meter.spend(Spent { calls: 1, pairs: found.len() as u64, tokens, usd });
            pace.add(found.len(), tokens);
            scores.extend(documents[first..].iter().map(|placed| placed.index).zip(found));
            if next(&scores) == Next::Enough {
                break;
            }
        }
        Ok((scores, None))
    }
}

/// What a pair has cost in this stage so far: a batch that would not end in time, or cost more than is left, is made
/// smaller.
struct Pace {
    started: Instant,
    pairs: usize,
    tokens: u64,
}

impl Pace {
    fn start() -> Self {
        Self { started: Instant::now(), pairs: 0, tokens: 0 }
    }

    fn add(&mut self, pairs: usize, tokens: u64) {
        self.pairs += pairs;
        self.tokens += tokens;
    }

    /// How many pairs there is room for, by the mean of those so far; or what there is not enough of for one.
    fn room(&self, meter: &Meter, usd_per_million_tokens: f64) -> std::result::Result<usize, Stop> {
        if self.pairs == 0 {
            return Ok(usize::MAX);
        }
        let pairs = self.pairs as f64;
        let mean_tokens = self.tokens as f64 / pairs;
        let seconds =
            meter.time_left().map(|left| (left.as_secs_f64(), self.started.elapsed().as_secs_f64() / pairs));
        let tokens = meter.tokens_left().map(|left| (left as f64, mean_tokens));
        let usd = meter.usd_left().map(|left| (left, mean_tokens * usd_per_million_tokens / 1e6));
        let mut room = usize::MAX;
        for (limit, stop) in [(seconds, Stop::Deadline), (tokens, Stop::Tokens), (usd, Stop::Money)] {
            let Some((left, each)) = limit.filter(|(_, each)| *each > 0.0) else { continue };
            room = room.min((left / each) as usize);
            if room == 0 {
                return Err(stop);
            }
        }
        Ok(room)
    }
}

/// The error of a batch, said of the documents of the request.
fn of_document(error: Error, index_of: impl Fn(usize) -> usize) -> Error {
    match error {
        Error::Pair { index, source } => Error::Pair { index: index_of(index), source },
        Error::NotFinite { index, logit } => Error::NotFinite { index: index_of(index), logit },
        error => error,
    }
}
