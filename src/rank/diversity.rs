//! Stages that look at documents beside each other: not the same thing ten times. Each picks one document after the other, the
//! one that adds most to those it has; what a document adds only gets less, so the values never rise.
//!
//! `lambda` is 1 for relevance alone and 0 for diversity alone, in all of them.

use std::ops::ControlFlow;

use crate::error::{Error, Result};
use crate::score::ScoreScale;

use super::budget::{Meter, Stop};
use super::scorer::Scorer;
use super::similarity::{Alike, Similarity};
use super::stage::{Applied, Context, Kept, Placed, Stage, probability};

/// Where the relevance comes from that is weighed against the likeness, which lies between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Relevance {
    /// It must be between 0 and 1 already.
    #[default]
    Probability,
    /// What the stage before ordered by, brought between 0 and 1 by its smallest and largest.
    MinMax,
}

impl Relevance {
    fn of(self, stage: &str, incoming: &[Placed]) -> Result<Vec<f64>> {
        match self {
            Self::Probability => incoming
                .iter()
                .map(|placed| {
                    placed.relevance().filter(|relevance| (0.0..=1.0).contains(relevance)).ok_or_else(|| {
                        Error::WrongScale {
                            stage: stage.to_string(),
                            found: placed.value_scale,
                            needed: ScoreScale::Probability,
                            hint: "relevance and likeness must lie on one scale; calibrate the model, use one whose score is \
                                   a probability, or ask for min_max",
                        }
                    })
                })
                .collect(),
            Self::MinMax => {
                let values: Option<Vec<f64>> = incoming.iter().map(|placed| placed.value).collect();
                let values = values.ok_or_else(|| Error::InvalidOption {
                    option: "min_max",
                    problem: format!(
                        "stage {stage} takes what the stage before it ordered by, and no stage before it has \
                         ordered the documents"
                    ),
                })?;
                let low = values.iter().copied().fold(f64::INFINITY, f64::min);
                let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let range = high - low;
                // Equal values: all are as relevant as each other.
                Ok(values.iter().map(|value| if range > 0.0 { (value - low) / range } else { 1.0 }).collect())
            }
        }
    }
}

fn check_lambda(lambda: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&lambda) {
        return Ok(lambda);
    }
    Err(Error::InvalidOption { option: "lambda", problem: format!("{lambda}; it is from 0 to 1") })
}

/// Comparisons between two looks at the budget: of long vectors, a fraction of a millisecond.
const COMPARISONS: usize = 256;

/// Looks at the budget now and then, so that many comparisons cannot overrun it.
struct Watch<'a> {
    meter: &'a Meter,
    comparisons: usize,
}

impl<'a> Watch<'a> {
    fn new(context: &Context<'a>) -> Self {
        Self { meter: context.meter, comparisons: 0 }
    }

    /// Before each comparison: why there must be no further one.
    fn look(&mut self) -> ControlFlow<Stop> {
        self.comparisons += 1;
        match self.comparisons % COMPARISONS {
            0 => self.meter.stop().map_or(ControlFlow::Continue(()), ControlFlow::Break),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// What was picked, and why not more.
type Picked = (Vec<(usize, f64)>, Option<Stop>);

/// Picks up to `keep` places, each time the one of the largest value, the first of equals; `update` is told the
/// place picked and changes the values of those that are left, or says why that had to end. A value of minus
/// infinity is never picked.
fn pick(
    values: &mut [f64],
    keep: usize,
    mut update: impl FnMut(usize, &mut [f64]) -> ControlFlow<Stop>,
) -> Picked {
    let keep = keep.min(values.len());
    let mut left: Vec<bool> = vec![true; values.len()];
    let mut picked = Vec::new();
    while picked.len() < keep {
        let mut best: Option<usize> = None;
        for place in (0..values.len()).filter(|&place| left[place] && values[place] > f64::NEG_INFINITY) {
            if best.is_none_or(|best| values[place] > values[best]) {
                best = Some(place);
            }
        }
        let Some(best) = best else { break };
        left[best] = false;
        // Rounding must not make a later one larger.
        let value = picked.last().map_or(values[best], |(_, last): &(usize, f64)| values[best].min(*last));
        picked.push((best, value));
        // The last one changes nothing any more.
        if picked.len() < keep
            && let ControlFlow::Break(stop) = update(best, values)
        {
            return (picked, Some(stop));
        }
    }
    (picked, None)
}

/// After a stop, what was picked until then is kept, and the others follow as they came.
fn answer((picked, stop): Picked, incoming: &[Placed]) -> Applied {
    let kept = picked.into_iter().map(|(place, value)| Kept { index: incoming[place].index, value });
    Applied::new(kept.collect()).read(incoming.len()).stop(stop)
}

/// Maximal marginal relevance: each next document is the one of the largest
/// `lambda * relevance - (1 - lambda) * likeness to the nearest one above it`.
/// Source: Carbonell and Goldstein, SIGIR 1998.
#[derive(Debug, Clone)]
pub struct Mmr<S> {
    name: String,
    lambda: f64,
    keep: usize,
    similarity: S,
    relevance: Relevance,
}

impl<S: Similarity> Mmr<S> {
    /// Keeps `keep` documents. 0.7 is a usual `lambda`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `lambda` is not from 0 to 1.
    pub fn new(lambda: f64, keep: usize, similarity: S) -> Result<Self> {
        let lambda = check_lambda(lambda)?;
        Ok(Self { name: "mmr".into(), lambda, keep, similarity, relevance: Relevance::Probability })
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes as relevance what the stage before ordered by, brought between 0 and 1 by its smallest and largest. For logits
    /// that nobody has calibrated: the last document then counts as not relevant at all, however good it is.
    #[must_use]
    pub fn min_max(mut self) -> Self {
        self.relevance = Relevance::MinMax;
        self
    }
}

impl<S: Similarity> Stage for Mmr<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let relevance = self.relevance.of(&self.name, incoming)?;
        placed_beside(&self.similarity, (context, incoming), |alike| {
            let mut nearest = vec![0.0_f64; incoming.len()];
            let mut values: Vec<f64> = relevance.iter().map(|relevance| self.lambda * relevance).collect();
            let mut watch = Watch::new(context);
            let picked = pick(&mut values, self.keep, |picked, values| {
                for place in 0..values.len() {
                    watch.look()?;
                    // Opposite vectors are not more different than documents that have nothing in common.
                    nearest[place] = nearest[place].max(alike.between(place, picked));
                    values[place] = self.lambda * relevance[place] - (1.0 - self.lambda) * nearest[place];
                }
                ControlFlow::Continue(())
            });
            answer(picked, incoming)
        })
    }
}

/// A determinantal point process, greedily: each next document is the one that adds most to
/// `lambda * sum of relevances + (1 - lambda) * log det S`, where S is the matrix of likenesses of those picked. The determinant is the
/// volume that they span: a document that is a mixture of several above it adds nothing, where MMR sees only the nearest.
/// S must be positive semidefinite, with ones on its diagonal; cosines and Jaccard are. Source: Chen, Zhang and Zhou, NeurIPS 2018 (incremental
/// Cholesky; their `theta` is `lambda`).
#[derive(Debug, Clone)]
pub struct Dpp<S> {
    name: String,
    lambda: f64,
    keep: usize,
    similarity: S,
    relevance: Relevance,
}

/// A document whose squared distance from the span of those picked is no more than this is in it, as far as f64 can tell.
const LEAST_DISTANCE: f64 = 1e-10;

impl<S: Similarity> Dpp<S> {
    /// Keeps up to `keep` documents; fewer where all that is left repeats what is there.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `lambda` is not from 0 to 1.
    pub fn new(lambda: f64, keep: usize, similarity: S) -> Result<Self> {
        let lambda = check_lambda(lambda)?;
        Ok(Self { name: "dpp".into(), lambda, keep, similarity, relevance: Relevance::Probability })
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// As [`Mmr::min_max`].
    #[must_use]
    pub fn min_max(mut self) -> Self {
        self.relevance = Relevance::MinMax;
        self
    }

    fn value(&self, relevance: f64, distance: f64) -> f64 {
        if self.lambda >= 1.0 {
            relevance
        } else if distance > LEAST_DISTANCE {
            self.lambda * relevance + (1.0 - self.lambda) * distance.ln()
        } else {
            f64::NEG_INFINITY
        }
    }
}

impl<S: Similarity> Stage for Dpp<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let relevance = self.relevance.of(&self.name, incoming)?;
        placed_beside(&self.similarity, (context, incoming), |alike| {
            let count = incoming.len();
            // A row of the Cholesky factor for each document, as far as it goes; and the squared distance of each document from the
            // span of those picked.
            let mut rows: Vec<Vec<f64>> = vec![Vec::new(); count];
            let mut distance = vec![1.0_f64; count];
            let mut values: Vec<f64> =
                relevance.iter().map(|relevance| self.value(*relevance, 1.0)).collect();
            let mut watch = Watch::new(context);
            let picked = pick(&mut values, self.keep, |picked, values| {
                let scale = distance[picked].max(LEAST_DISTANCE).sqrt();
                let row = rows[picked].clone();
                for place in (0..count).filter(|&place| place != picked) {
                    watch.look()?;
                    let product: f64 = row.iter().zip(&rows[place]).map(|(a, b)| a * b).sum();
                    let entry = (alike.between(place, picked) - product) / scale;
                    rows[place].push(entry);
                    distance[place] -= entry * entry;
                    values[place] = self.value(relevance[place], distance[place]);
                }
                ControlFlow::Continue(())
            });
            answer(picked, incoming)
        })
    }
}

/// Explicit query aspect diversification: each next document is the one of the largest
/// `lambda * P(d | q) + (1 - lambda) * sum over sub-queries a of P(a) P(d | a) product over those picked of (1 - P(s | a))`.
/// What a query may have meant is given with the [`Request`](super::Request); without it the order stays as it is.
/// Source: Santos, Macdonald and Ounis, WWW 2010; their lambda is 1 minus ours.
#[derive(Debug, Clone)]
pub struct Xquad<S> {
    name: String,
    lambda: f64,
    keep: usize,
    scorer: S,
    batches: super::batches::Batches,
}

impl<S: Scorer> Xquad<S> {
    /// Keeps `keep` documents; `scorer` reads each of them with each sub-query.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `lambda` is not from 0 to 1.
    pub fn new(lambda: f64, keep: usize, scorer: S) -> Result<Self> {
        let lambda = check_lambda(lambda)?;
        Ok(Self { name: "xquad".into(), lambda, keep, scorer, batches: super::batches::Batches::default() })
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl<S: Scorer> Stage for Xquad<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let sub_queries = context.request.sub_queries;
        if sub_queries.is_empty() {
            return Ok(unchanged(incoming).note("the request has no sub-queries"));
        }
        let total: f64 = sub_queries.iter().map(|sub| sub.weight).sum();
        if sub_queries.iter().any(|sub| !(sub.weight > 0.0 && sub.weight.is_finite())) {
            let problem = "the weight of a sub-query is a number above 0".into();
            return Err(Error::InvalidOption { option: "sub_queries", problem });
        }
        let relevance = Relevance::Probability.of(&self.name, incoming)?;
        // For each sub-query: its weight, the probability of each document, and what is left uncovered.
        let mut aspects: Vec<(f64, Vec<f64>, f64)> = Vec::with_capacity(sub_queries.len());
        for sub in sub_queries {
            let question =
                super::batches::Question { stage: &self.name, scorer: &self.scorer, query: sub.text };
            let (scores, stop) = self.batches.all(&question, context, incoming)?;
            if stop.is_some() {
                return Ok(unchanged(incoming).stop(stop));
            }
            let scale = self.scorer.scale();
            let of = scores.iter().map(|(_, score)| probability(score, scale)).collect::<Option<Vec<f64>>>();
            let of = of.ok_or_else(|| Error::WrongScale {
                stage: self.name.clone(),
                found: scale,
                needed: ScoreScale::Probability,
                hint: "calibrate the model, or use one whose score is a probability",
            })?;
            aspects.push((sub.weight / total, of, 1.0));
        }
        let value = |place: usize, aspects: &[(f64, Vec<f64>, f64)]| {
            let covered: f64 = aspects.iter().map(|(weight, of, open)| weight * of[place] * open).sum();
            self.lambda * relevance[place] + (1.0 - self.lambda) * covered
        };
        let mut values: Vec<f64> = (0..incoming.len()).map(|place| value(place, &aspects)).collect();
        let mut watch = Watch::new(context);
        let picked = pick(&mut values, self.keep, |picked, values| {
            for (_, of, open) in &mut aspects {
                *open *= 1.0 - of[picked];
            }
            for place in 0..values.len() {
                watch.look()?;
                values[place] = value(place, &aspects);
            }
            ControlFlow::Continue(())
        });
        Ok(answer(picked, incoming))
    }
}

/// Near-duplicate removal: keeps a document only if it is less alike than `limit` to every one kept above it.
#[derive(Debug, Clone)]
pub struct Distinct<S> {
    name: String,
    limit: f64,
    similarity: S,
}

impl<S: Similarity> Distinct<S> {
    /// Documents from `limit` on are duplicates; with [`Shingles`](super::Shingles) 0.8 is usual.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if `limit` is not above 0, and 1 at most.
    pub fn new(limit: f64, similarity: S) -> Result<Self> {
        if limit > 0.0 && limit <= 1.0 {
            return Ok(Self { name: "distinct".into(), limit, similarity });
        }
        Err(Error::InvalidOption {
            option: "limit",
            problem: format!("{limit}; it is above 0, and 1 at most"),
        })
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl<S> Distinct<S> {
    /// Whether the document at a place is less alike than the limit to all those kept above it.
    fn is_new(
        &self,
        place: usize,
        above: &[usize],
        (alike, watch): (&dyn Alike, &mut Watch<'_>),
    ) -> ControlFlow<Stop, bool> {
        for &above in above {
            watch.look()?;
            let is_less = alike.between(place, above) < self.limit;
            if !is_less {
                return ControlFlow::Continue(false);
            }
        }
        ControlFlow::Continue(true)
    }
}

impl<S: Similarity> Stage for Distinct<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        placed_beside(&self.similarity, (context, incoming), |alike| {
            let (mut places, mut read, mut stop) = (Vec::new(), 0, None);
            let mut watch = Watch::new(context);
            while read < incoming.len() && stop.is_none() {
                match self.is_new(read, &places, (alike, &mut watch)) {
                    ControlFlow::Continue(is_new) => {
                        places.extend(is_new.then_some(read));
                        read += 1;
                    }
                    ControlFlow::Break(why) => stop = Some(why),
                }
            }
            let removed = read - places.len();
            // What was not looked at after a stop may be a copy or not: it is kept.
            places.extend(read..incoming.len());
            let kept: Vec<Placed> = places.iter().map(|&place| incoming[place].clone()).collect();
            let applied = unchanged(&kept).read(read).stop(stop);
            if removed > 0 { applied.note(format!("{removed} near copies")) } else { applied }
        })
    }
}

/// What `place` makes of documents once it is known how alike they are; if the budget ends before that, they stay as they came.
fn placed_beside<S: Similarity>(
    similarity: &S,
    (context, incoming): (&Context<'_>, &[Placed]),
    place: impl FnOnce(&dyn Alike) -> Applied,
) -> Result<Applied> {
    Ok(match similarity.prepare(context, incoming)? {
        ControlFlow::Continue(alike) => place(&*alike),
        ControlFlow::Break(stop) => unchanged(incoming).read(0).stop(Some(stop)),
    })
}

/// Documents in the order in which they come, with the values that they come with, so that the stage behind sees them.
fn unchanged(incoming: &[Placed]) -> Applied {
    let same = |placed: &&Placed| {
        (placed.stage, placed.value_scale) == (incoming[0].stage, incoming[0].value_scale)
            && placed.value.is_some()
    };
    if incoming.iter().filter(same).count() < incoming.len() {
        return Applied::unchanged(incoming);
    }
    let kept = incoming.iter().filter_map(|placed| Some(Kept { index: placed.index, value: placed.value? }));
    let applied = Applied::new(kept.collect());
    match incoming.first() {
        Some(first) => applied.value_scale(first.value_scale),
        None => applied,
    }
}
