//! Stages one after the other.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::score::ScoreScale;

use super::budget::{Budget, Meter, Spent, Stop};
use super::stage::{Applied, Context, Placed, Request, Stage, StageReport};

/// Stages one after the other: a cheap one sees many documents, a strong one few.
///
/// Each stage reads what the one before it kept. The answer has every document, whatever happens.
#[derive(Default)]
pub struct Cascade<'a> {
    stages: Vec<Box<dyn Stage + Send + 'a>>,
    budget: Budget,
}

impl std::fmt::Debug for Cascade<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.stages.iter().map(|stage| stage.name()).collect();
        f.debug_struct("Cascade").field("stages", &names).field("budget", &self.budget).finish()
    }
}

/// Every document, best first, and how it came to be so.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Every document once, best first.
    pub hits: Vec<Placed>,
    /// How many of them, from the first, the last stage that ran has kept. All, if no stage ran.
    pub kept: usize,
    /// One for each stage, also those that were not begun.
    pub stages: Vec<StageReport>,
    /// What ended it early. None: every stage read all that it was to read, unless its judge refused or had spent a budget of its own,
    /// which the stage's notes say.
    pub stop: Option<Stop>,
    /// The time of all stages.
    pub elapsed: Duration,
    /// What all stages cost.
    pub spent: Spent,
}

impl Outcome {
    /// Whether a budget ended it early: the order is the one reached so far.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.stop.is_some()
    }
}

impl<'a> Cascade<'a> {
    /// No stage yet: the order given.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stage behind those there are.
    #[must_use]
    pub fn stage(mut self, stage: impl Stage + Send + 'a) -> Self {
        self.stages.push(Box::new(stage));
        self
    }

    /// Adds a stage that is a box already.
    #[must_use]
    pub fn boxed(mut self, stage: Box<dyn Stage + Send + 'a>) -> Self {
        self.stages.push(stage);
        self
    }

    /// What every query may cost.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// The names of its stages, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|stage| stage.name())
    }

    /// Orders documents that come in the order of the first stage.
    ///
    /// # Errors
    /// As [`Cascade::run`].
    pub fn rerank<D: AsRef<str>>(&self, query: &str, documents: &[D]) -> Result<Outcome> {
        let documents: Vec<&str> = documents.iter().map(AsRef::as_ref).collect();
        self.run(&Request::new(query, &documents))
    }

    /// Runs the stages until all have, or a budget ends it. That is no error: the answer says so.
    ///
    /// # Errors
    /// [`Error::EmptyQuery`]; [`Error::InvalidOption`] for first-stage scores that are not one finite number for each document;
    /// those of the stages; [`Error::Stage`] for a stage that breaks the law (see [`Stage`]).
    pub fn run(&self, request: &Request<'_>) -> Result<Outcome> {
        check(request)?;
        let meter = Meter::start(self.budget.and(&request.budget));
        let context = Context::new(request, &meter);
        let mut order: Vec<Placed> = (0..request.documents.len()).map(Placed::new).collect();
        let mut kept = order.len();
        let mut reports = Vec::with_capacity(self.stages.len());
        let mut stop = None;
        for (number, stage) in self.stages.iter().enumerate() {
            let (before, started) = (meter.spent(), Instant::now());
            let mut report = StageReport {
                name: stage.name().to_string(),
                incoming: kept,
                read: 0,
                kept,
                elapsed: Duration::ZERO,
                spent: Spent::default(),
                stop: stop.or_else(|| meter.stop()),
                guarantee: None,
                asked: None,
                notes: Vec::new(),
            };
            if report.stop.is_none() {
                let applied = stage.apply(&context, &order[..kept])?;
                take_over(&mut order, kept, (stage.name(), number), &applied)?;
                kept = applied.kept.len();
                report.kept = kept;
                (report.read, report.stop) = (applied.read, applied.stop);
                (report.guarantee, report.asked, report.notes) =
                    (applied.guarantee, applied.asked, applied.notes);
            }
            stop = stop.or(report.stop);
            (report.elapsed, report.spent) = (started.elapsed(), meter.spent().since(before));
            reports.push(report);
        }
        Ok(Outcome {
            hits: order,
            kept,
            stages: reports,
            stop,
            elapsed: meter.elapsed(),
            spent: meter.spent(),
        })
    }
}

fn check(request: &Request<'_>) -> Result<()> {
    if request.query.trim().is_empty() {
        return Err(Error::EmptyQuery);
    }
    let invalid = |problem| Err(Error::InvalidOption { option: "first_scores", problem });
    let Some(scores) = request.first_scores else { return Ok(()) };
    if scores.len() != request.documents.len() {
        return invalid(format!("{} scores for {} documents", scores.len(), request.documents.len()));
    }
    match scores.iter().position(|score| !score.is_finite()) {
        Some(index) => invalid(format!("document {index} has {}, which is not a number", scores[index])),
        None => Ok(()),
    }
}

/// Puts what a stage kept above what it did not keep of its `incoming` documents, which are the first ones of `order`.
fn take_over(
    order: &mut [Placed],
    incoming: usize,
    (name, number): (&str, usize),
    applied: &Applied,
) -> Result<()> {
    let broken = |problem: String| Error::Stage { stage: name.to_string(), problem };
    let head = &mut order[..incoming];
    let place_of: std::collections::HashMap<usize, usize> =
        head.iter().enumerate().map(|(place, placed)| (placed.index, place)).collect();
    let place = |index: usize| {
        place_of.get(&index).copied().ok_or_else(|| broken(format!("document {index} did not come in")))
    };
    for (index, score) in &applied.scores {
        let placed = &mut head[place(*index)?];
        placed.score = Some(score.clone());
        placed.scale = applied.scale.unwrap_or(placed.scale);
    }
    let mut taken = vec![false; incoming];
    let mut next = Vec::with_capacity(incoming);
    let mut last = f64::INFINITY;
    for kept in &applied.kept {
        let place = place(kept.index)?;
        if std::mem::replace(&mut taken[place], true) {
            return Err(broken(format!("document {} is kept twice", kept.index)));
        }
        if !kept.value.is_finite() || kept.value > last {
            let problem = format!("document {} has {} below {last}", kept.index, kept.value);
            return Err(broken(problem));
        }
        last = kept.value;
        next.push(Placed {
            stage: Some(number),
            value: Some(kept.value),
            value_scale: applied.value_scale.unwrap_or(ScoreScale::Ordinal),
            ..head[place].clone()
        });
    }
    next.extend(head.iter().zip(taken).filter(|(_, taken)| !taken).map(|(placed, _)| placed.clone()));
    head.clone_from_slice(&next);
    Ok(())
}
