//! The stage that most cascades are made of: read, score, sort, keep the best.

use crate::error::{Error, Result};

use super::budget::Spent;
use super::scorer::Scorer;
use super::stage::{Applied, Context, Kept, Placed, Stage};

/// Pairs scored at a time where a budget may end the query.
const BATCH_PAIRS: usize = 16;

/// Scores documents, sorts them on the logit, and keeps the best.
#[derive(Debug, Clone)]
pub struct Rescore<S> {
    name: String,
    scorer: S,
    depth: Option<usize>,
    keep: Option<usize>,
    batch_pairs: usize,
    usd_per_million_tokens: f64,
}

impl<S: Scorer> Rescore<S> {
    /// Reads the first `depth` of what comes in, and keeps them all.
    #[must_use]
    pub fn new(scorer: S, depth: usize) -> Self {
        Self { depth: Some(depth), ..Self::all(scorer) }
    }

    /// Reads all that comes in, and keeps it.
    #[must_use]
    pub fn all(scorer: S) -> Self {
        Self {
            name: "rescore".into(),
            scorer,
            depth: None,
            keep: None,
            batch_pairs: BATCH_PAIRS,
            usd_per_million_tokens: 0.0,
        }
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many of the best it keeps of those that it reads. The others stay below them as they came.
    #[must_use]
    pub fn keep(mut self, keep: usize) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Pairs scored at a time where a budget may end the query; at least 1. A deadline is overrun by no more than that.
    #[must_use]
    pub fn batch_pairs(mut self, pairs: usize) -> Self {
        self.batch_pairs = pairs.max(1);
        self
    }

    /// What a million tokens cost.
    #[must_use]
    pub fn usd_per_million_tokens(mut self, usd: f64) -> Self {
        self.usd_per_million_tokens = usd;
        self
    }
}

impl<S: Scorer> Stage for Rescore<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let head = &incoming[..incoming.len().min(self.depth.unwrap_or(usize::MAX))];
        let texts = context.texts(head);
        let batch = if context.meter.is_limited() { self.batch_pairs } else { texts.len().max(1) };
        let (mut scores, mut stop) = (Vec::with_capacity(head.len()), None);
        for texts in texts.chunks(batch) {
            stop = context.meter.stop();
            if stop.is_some() {
                break;
            }
            let index_of = |place: usize| head.get(scores.len() + place).map_or(place, |placed| placed.index);
            let found = self.scorer.score(context.query(), texts).map_err(|error| named(error, index_of))?;
            if found.len() != texts.len() {
                let problem = format!("{} scores for {} documents", found.len(), texts.len());
                return Err(Error::Stage { stage: self.name.clone(), problem });
            }
            let tokens = found.iter().map(|score| score.tokens as u64).sum();
            let usd = tokens as f64 * self.usd_per_million_tokens / 1e6;
            context.meter.spend(Spent { calls: 1, pairs: found.len() as u64, tokens, usd });
            scores.extend(head[scores.len()..].iter().map(|placed| placed.index).zip(found));
        }
        let mut kept: Vec<Kept> = scores
            .iter()
            .map(|(index, score)| Kept { index: *index, value: f64::from(score.logit) })
            .collect();
        kept.sort_by(|a, b| b.value.total_cmp(&a.value)); // stable: ties keep the order in which they came
        kept.truncate(self.keep.unwrap_or(usize::MAX));
        let read = scores.len();
        Ok(Applied::new(kept).scores(scores, self.scorer.scale()).read(read).stop(stop))
    }
}

/// The error of a batch, said of the documents of the request.
pub(super) fn named(error: Error, index_of: impl Fn(usize) -> usize) -> Error {
    match error {
        Error::Pair { index, source } => Error::Pair { index: index_of(index), source },
        Error::NotFinite { index, logit } => Error::NotFinite { index: index_of(index), logit },
        error => error,
    }
}
