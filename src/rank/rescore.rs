//! The stage that most cascades are made of: read, score, sort, keep the best.

use crate::error::{Error, Result};
use crate::score::{Score, ScoreScale};

use super::batches::{Batches, Next, Question};
use super::scorer::Scorer;
use super::stage::{Applied, Context, Guarantee, Kept, Placed, Stage, probability};

/// What reciprocal rank fusion adds to every rank.
/// Source: Cormack, Clarke and Büttcher, SIGIR 2009.
const RANK_OFFSET: f64 = 60.0;

/// What a stage orders by.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Blend {
    /// The model's logit alone.
    #[default]
    Model,
    /// `weight * relevance + (1 - weight) * first`: the relevance is between 0 and 1, the first stage's score is brought there
    /// by the smallest and the largest of the request. The weight is from 0 to 1.
    Interpolate {
        /// How much the model counts.
        weight: f64,
    },
    /// Reciprocal rank fusion of the model's order and the first stage's.
    ReciprocalRank,
}

/// When a stage may end before it has read everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EarlyStop {
    /// Never.
    #[default]
    No,
    /// When no document that is left can come among the first `top_n`, whatever the model would give it. This needs
    /// [`Blend::Interpolate`]: only then is what a document can still get bounded by what the first stage gave it.
    Proven {
        /// How many of the first.
        top_n: usize,
    },
    /// When `patience` batches in a row have changed nothing among the first `top_n`. A rule of thumb: it may be wrong.
    Unchanged {
        /// How many of the first.
        top_n: usize,
        /// How many batches in a row.
        patience: usize,
    },
}

/// Scores documents, sorts them, and keeps the best.
#[derive(Debug, Clone)]
pub struct Rescore<S> {
    name: String,
    scorer: S,
    depth: Option<usize>,
    keep: Option<usize>,
    blend: Blend,
    early_stop: EarlyStop,
    min_probability: Option<f64>,
    min_score: Option<f64>,
    min_keep: usize,
    batches: Batches,
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
            blend: Blend::Model,
            early_stop: EarlyStop::No,
            min_probability: None,
            min_score: None,
            min_keep: 0,
            batches: Batches::default(),
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

    /// What it orders by.
    #[must_use]
    pub fn blend(mut self, blend: Blend) -> Self {
        self.blend = blend;
        self
    }

    /// When it may end before it has read everything.
    #[must_use]
    pub fn early_stop(mut self, early_stop: EarlyStop) -> Self {
        self.early_stop = early_stop;
        self
    }

    /// Keeps only documents that are relevant with this probability at least. The model must have a
    /// [calibration](crate::calibration): a sigmoid alone is no probability.
    #[must_use]
    pub fn min_probability(mut self, probability: f64) -> Self {
        self.min_probability = Some(probability);
        self
    }

    /// Keeps only documents with this [`Score::score`] at least, whatever it means.
    #[must_use]
    pub fn min_score(mut self, score: f64) -> Self {
        self.min_score = Some(score);
        self
    }

    /// How many of the best it keeps although they are below a threshold.
    #[must_use]
    pub fn min_keep(mut self, min_keep: usize) -> Self {
        self.min_keep = min_keep;
        self
    }

    /// Pairs scored at a time where a budget or an early stop may end it; at least 1. A deadline is overrun by no more
    /// than that.
    #[must_use]
    pub fn batch_pairs(mut self, pairs: usize) -> Self {
        self.batches.pairs = pairs.max(1);
        self
    }

    /// What a million tokens cost.
    #[must_use]
    pub fn usd_per_million_tokens(mut self, usd: f64) -> Self {
        self.batches.usd_per_million_tokens = usd;
        self
    }

    /// What the first stage gave each document, between 0 and 1.
    fn first(&self, context: &Context<'_>) -> Result<Vec<f64>> {
        let Some(scores) = context.request.first_scores else {
            let problem = format!("stage {} interpolates with them, and there are none", self.name);
            return Err(Error::InvalidOption { option: "first_scores", problem });
        };
        let low = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let high = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let range = high - low;
        // Of equal scores none says anything.
        Ok(scores.iter().map(|score| if range > 0.0 { (score - low) / range } else { 0.0 }).collect())
    }

    /// The documents read, best first.
    fn order(&self, scores: &[(usize, Score)], first: &[f64]) -> Result<Vec<Kept>> {
        let scale = self.scorer.scale();
        let mut kept: Vec<Kept> = scores
            .iter()
            .map(|(index, score)| Kept { index: *index, value: f64::from(score.logit) })
            .collect();
        match self.blend {
            Blend::Model => {}
            Blend::Interpolate { weight } => {
                for (kept, (index, score)) in kept.iter_mut().zip(scores) {
                    let relevance =
                        probability(score, scale).ok_or_else(|| self.wrong(scale, HINT_INTERPOLATE))?;
                    kept.value =
                        weight * relevance + (1.0 - weight) * first.get(*index).copied().unwrap_or(0.0);
                }
            }
            Blend::ReciprocalRank => {
                let mut ranks: Vec<usize> = (0..kept.len()).collect();
                ranks.sort_by(|&a, &b| kept[b].value.total_cmp(&kept[a].value));
                for (rank, place) in ranks.into_iter().enumerate() {
                    let of = |rank: usize| 1.0 / (RANK_OFFSET + 1.0 + rank as f64);
                    kept[place].value = of(rank) + of(kept[place].index);
                }
            }
        }
        kept.sort_by(|a, b| b.value.total_cmp(&a.value)); // stable: ties keep the order in which they came
        Ok(kept)
    }

    /// Drops what is below the thresholds.
    fn drop_below(&self, kept: &mut Vec<Kept>, scores: &[(usize, Score)]) -> Result<()> {
        if self.min_probability.is_some() || self.min_score.is_some() {
            let of: std::collections::HashMap<usize, &Score> =
                scores.iter().map(|(index, score)| (*index, score)).collect();
            if self.min_probability.is_some() && scores.iter().any(|(_, score)| score.probability.is_none()) {
                return Err(self.wrong(self.scorer.scale(), HINT_THRESHOLD));
            }
            let reaches = |value: Option<f32>, least: Option<f64>| {
                least.is_none_or(|least| value.is_some_and(|value| f64::from(value) >= least))
            };
            let mut rank = 0;
            kept.retain(|kept| {
                rank += 1;
                let score = of.get(&kept.index);
                rank <= self.min_keep
                    || (reaches(score.and_then(|score| score.probability), self.min_probability)
                        && reaches(score.map(|score| score.score), self.min_score))
            });
        }
        Ok(())
    }

    fn wrong(&self, found: ScoreScale, hint: &'static str) -> Error {
        Error::WrongScale { stage: self.name.clone(), found, needed: ScoreScale::Probability, hint }
    }

    fn check(&self) -> Result<()> {
        let invalid = |option, problem: String| Err(Error::InvalidOption { option, problem });
        if let Blend::Interpolate { weight } = self.blend
            && !(0.0..=1.0).contains(&weight)
        {
            return invalid("weight", format!("{weight}; it is from 0 to 1"));
        }
        if let Some(probability) = self.min_probability
            && !(0.0..=1.0).contains(&probability)
        {
            return invalid("min_probability", format!("{probability}; it is from 0 to 1"));
        }
        if self.min_score.is_some_and(f64::is_nan) {
            return invalid("min_score", "NaN; it is a number".into());
        }
        match (self.early_stop, self.blend) {
            (EarlyStop::Proven { top_n: 0 } | EarlyStop::Unchanged { top_n: 0, .. }, _) => {
                invalid("top_n", "0 of an early stop; it is at least 1".into())
            }
            (EarlyStop::Proven { .. }, Blend::Model | Blend::ReciprocalRank) => invalid(
                "early_stop",
                "nothing can be proven without interpolation with the first stage".into(),
            ),
            _ => Ok(()),
        }
    }
}

const HINT_INTERPOLATE: &str =
    "interpolation adds relevance between 0 and 1; calibrate the model, or use reciprocal rank fusion";
const HINT_THRESHOLD: &str =
    "a threshold on probabilities needs a model with a calibration (jointly calibrate)";

impl<S: Scorer> Stage for Rescore<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        self.check()?;
        let head = &incoming[..incoming.len().min(self.depth.unwrap_or(usize::MAX))];
        let first = match self.blend {
            Blend::Interpolate { .. } => self.first(context)?,
            Blend::Model | Blend::ReciprocalRank => Vec::new(),
        };
        let question = Question { stage: &self.name, scorer: &self.scorer, query: context.query() };
        let (mut failed, mut guarantee) = (None, None);
        let (scores, stop) = match self.early_stop {
            EarlyStop::No => self.batches.all(&question, context, head)?,
            EarlyStop::Proven { top_n } => self.batches.until(&question, (context, head), |scores| {
                let Blend::Interpolate { weight } = self.blend else { return Next::Batch };
                let left = head[scores.len()..].iter().map(|placed| first[placed.index]);
                // The most that any of them can get. Equal values keep their order, so equal is enough.
                let Some(most) = left.reduce(f64::max).map(|first| weight + (1.0 - weight) * first) else {
                    return Next::Batch;
                };
                // What a threshold drops is no longer among the first. What stays and reaches the bound keeps its
                // rank, and so stays although `min_keep` counts ranks.
                let order = self.order(scores, &first).and_then(|mut order| {
                    self.drop_below(&mut order, scores)?;
                    Ok(order)
                });
                match order {
                    Ok(order) if order.get(top_n - 1).is_some_and(|last| last.value >= most) => {
                        guarantee = Some(Guarantee::Settled { top_n });
                        Next::Enough
                    }
                    Ok(_) => Next::Batch,
                    Err(error) => {
                        failed = Some(error);
                        Next::Enough
                    }
                }
            })?,
            EarlyStop::Unchanged { top_n, patience } => {
                let (mut last, mut unchanged) = (Vec::new(), 0);
                self.batches.until(&question, (context, head), |scores| {
                    let order = match self.order(scores, &first) {
                        Ok(order) => order,
                        Err(error) => {
                            failed = Some(error);
                            return Next::Enough;
                        }
                    };
                    let top: Vec<usize> = order.iter().take(top_n).map(|kept| kept.index).collect();
                    unchanged = if top == last { unchanged + 1 } else { 0 };
                    last = top;
                    if unchanged < patience.max(1) || scores.len() == head.len() {
                        return Next::Batch;
                    }
                    let rule = format!(
                        "the first {top_n} did not change in {unchanged} batches; {} documents were not read",
                        head.len() - scores.len()
                    );
                    guarantee = Some(Guarantee::Heuristic { rule });
                    Next::Enough
                })?
            }
        };
        if let Some(error) = failed {
            return Err(error);
        }
        let mut kept = self.order(&scores, &first)?;
        self.drop_below(&mut kept, &scores)?;
        kept.truncate(self.keep.unwrap_or(usize::MAX));
        let value_scale = match self.blend {
            Blend::Model => ScoreScale::Logit,
            Blend::Interpolate { .. } => ScoreScale::Probability,
            Blend::ReciprocalRank => ScoreScale::Ordinal,
        };
        let read = scores.len();
        let applied = Applied::new(kept).value_scale(value_scale).scores(scores, self.scorer.scale());
        Ok(Applied { guarantee, ..applied.read(read).stop(stop) })
    }
}
