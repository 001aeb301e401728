//! All cascades, what they give and cost, and which one to take.

use jointly_eval::significance::{CompareOptions, Comparison, compare_all};
use jointly_eval::{JudgeOptions, JudgedRun, Metric, PerQuery, Retrieved, Run};
use sha2::{Digest, Sha256};

use super::speed::{Cost, Part};
use crate::cmd::eval::{Collection, OfModels, order};
use crate::error::{CliError, Result};

/// The cascades that are tried.
pub struct Room<'a> {
    pub depths: &'a [usize],
    pub max_stages: usize,
    pub folds: usize,
    pub max_ms: Option<f64>,
}

/// A stage: a place among the parts, and how many candidates it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub part: usize,
    pub depth: usize,
}

/// A cascade, with what it gives and costs.
pub struct Candidate {
    /// From cheap to dear. Empty: the first stage as it is.
    pub steps: Vec<Step>,
    /// Of a query, in the mean.
    pub cost: Cost,
    /// One for each step.
    pub of_step: Vec<Cost>,
    /// The metric of every judged query, in the order of [`Planned::queries`].
    pub values: Vec<f64>,
    pub mean: f64,
}

/// A cascade that no other beats in time and metric.
pub struct Point {
    pub candidate: usize,
    /// The metric of queries that had no say in which cascade it is.
    pub held_out: Vec<f64>,
    /// Of the held-out values, to the reference.
    pub comparison: Option<Comparison>,
    /// Shown to lose less than the margin.
    pub is_shown: bool,
}

/// What came out.
pub struct Planned {
    pub candidates: Vec<Candidate>,
    /// `collection/query`.
    pub queries: Vec<String>,
    /// By time, the cheapest first.
    pub front: Vec<Point>,
    /// A place among the candidates.
    pub reference: usize,
    /// A place of the front.
    pub chosen: usize,
    /// Whether it was shown that the chosen one loses less than the margin.
    pub is_shown: bool,
    pub margin: f64,
    pub folds: usize,
}

impl Planned {
    pub fn chosen(&self) -> &Candidate {
        &self.candidates[self.front[self.chosen].candidate]
    }

    pub fn reference(&self) -> &Candidate {
        &self.candidates[self.reference]
    }
}

/// What plans.
pub struct Planner<'a> {
    pub parts: &'a [Part],
    pub collections: &'a [Collection],
    pub models: &'a [OfModels],
    pub metric: Metric,
    /// A loss smaller than this does not matter.
    pub margin: f64,
}

/// Below this, one cascade is not better than another: the digits that are printed.
const SAME: f64 = 5e-5;

impl Planner<'_> {
    pub fn plan(&self, room: &Room<'_>, reference: Option<usize>) -> Result<Planned> {
        let deepest =
            self.collections.iter().flat_map(|c| &c.queries).map(|q| q.candidates.len()).max().unwrap_or(0);
        let mut depths: Vec<usize> = room.depths.iter().copied().filter(|depth| *depth < deepest).collect();
        depths.push(deepest);
        depths.sort_unstable();
        depths.dedup();
        let orders = self.orders()?;
        let mut candidates = Vec::new();
        let mut queries = Vec::new();
        for steps in cascades(self.parts.len(), &depths, room.max_stages) {
            let candidate = self.evaluate(steps, &orders, &mut queries)?;
            candidates.push(candidate);
        }
        let alone = |part| {
            let steps = [Step { part, depth: deepest }];
            candidates.iter().position(|candidate| candidate.steps == steps)
        };
        let reference = match reference {
            Some(part) => alone(part),
            None => (0..self.parts.len())
                .filter_map(alone)
                .max_by(|&a, &b| candidates[a].mean.total_cmp(&candidates[b].mean)),
        };
        let reference = reference.ok_or_else(|| CliError::Failed("no scorer to compare with".into()))?;
        let is_within = |candidate: &Candidate| room.max_ms.is_none_or(|ms| candidate.cost.ms <= ms);
        let mut front = Vec::new();
        for place in front_of(&candidates, is_within) {
            let held_out = held_out(&candidates, candidates[place].cost.ms, &folds_of(&queries, room.folds));
            front.push(Point { candidate: place, held_out, comparison: None, is_shown: false });
        }
        if front.is_empty() {
            let ms = room.max_ms.unwrap_or_default();
            return Err(CliError::Input(format!("--max-ms {ms}: no cascade is that fast")));
        }
        let per_query =
            |values: &[f64]| -> PerQuery { queries.iter().cloned().zip(values.iter().copied()).collect() };
        let values: Vec<PerQuery> = front.iter().map(|point| per_query(&point.held_out)).collect();
        let values: Vec<&PerQuery> = values.iter().collect();
        let compared = compare_all(
            &per_query(&candidates[reference].values),
            &values,
            CompareOptions::new().margin(self.margin),
        )?;
        for (point, comparison) in front.iter_mut().zip(compared) {
            point.is_shown = comparison.shows_no_loss();
            point.comparison = Some(comparison);
        }
        let loss = |point: &Point| point.comparison.as_ref().map_or(0.0, |comparison| -comparison.difference);
        let shown = front.iter().position(|point| point.is_shown);
        let chosen = shown
            .or_else(|| front.iter().position(|point| loss(point) < self.margin))
            .unwrap_or(front.len() - 1);
        Ok(Planned {
            candidates,
            queries,
            front,
            reference,
            chosen,
            is_shown: shown.is_some(),
            margin: self.margin,
            folds: room.folds,
        })
    }

    /// For each collection, query and part, the rank of each candidate; and for each query, its candidates in the order of the
    /// first stage.
    fn orders(&self) -> Result<Vec<Vec<Ranks>>> {
        let of_collection = |(collection, models): (&Collection, &OfModels)| {
            let scores: Vec<&crate::cmd::eval::Scores> = self
                .parts
                .iter()
                .map(|part| {
                    let found = models.get(&part.named);
                    found.ok_or_else(|| CliError::Failed(format!("{} was not run", part.name)))
                })
                .collect::<Result<_>>()?;
            let of_query = |number: usize| {
                let query = &collection.queries[number];
                let ranks = |values: &[f64]| {
                    let mut ranks = vec![0; values.len()];
                    for (rank, place) in order(&query.candidates, values).into_iter().enumerate() {
                        ranks[place] = rank;
                    }
                    ranks
                };
                let first: Vec<f64> = query.candidates.iter().map(|candidate| candidate.score).collect();
                let of_part = scores.iter().map(|scores| {
                    let logits: Vec<f64> =
                        scores.of[number].iter().map(|scored| f64::from(scored.logit)).collect();
                    ranks(&logits)
                });
                Ranks { of_part: of_part.collect(), first: order(&query.candidates, &first) }
            };
            Ok((0..collection.queries.len()).map(of_query).collect())
        };
        self.collections.iter().zip(self.models).map(of_collection).collect()
    }

    fn evaluate(
        &self,
        steps: Vec<Step>,
        orders: &[Vec<Ranks>],
        queries: &mut Vec<String>,
    ) -> Result<Candidate> {
        let mut of_step = vec![Cost::default(); steps.len()];
        let mut values = Vec::new();
        let is_first = queries.is_empty();
        let mut count = 0.0;
        for (number, (collection, orders)) in self.collections.iter().zip(orders).enumerate() {
            let mut run = Run::new();
            for (place, (query, ranks)) in collection.queries.iter().zip(orders).enumerate() {
                let mut order = ranks.first.clone();
                for (step, cost) in steps.iter().zip(&mut of_step) {
                    let read = step.depth.min(order.len());
                    cost.add(self.parts[step.part].cost((number, place), &order[..read]));
                    let ranks = &ranks.of_part[step.part];
                    order[..read].sort_unstable_by_key(|&candidate| ranks[candidate]);
                }
                count += 1.0;
                let shown = self.metric.cutoff().unwrap_or(order.len()).min(order.len());
                let hit = |(rank, &candidate): (usize, &usize)| {
                    Retrieved::new(&query.candidates[candidate].id, (shown - rank) as f64)
                };
                run.insert(&query.id, order[..shown].iter().enumerate().map(hit).collect())?;
            }
            let options = JudgeOptions::new().level(collection.level);
            for (query, value) in JudgedRun::new(&collection.qrels, &run, options)?.evaluate(self.metric)?.0 {
                if is_first {
                    queries.push(format!("{}/{query}", collection.name));
                }
                values.push(value);
            }
        }
        for cost in &mut of_step {
            *cost = cost.scaled(1.0 / f64::max(count, 1.0));
        }
        let mut cost = Cost::default();
        of_step.iter().for_each(|step| cost.add(*step));
        let mean = mean(&values);
        Ok(Candidate { steps, cost, of_step, values, mean })
    }
}

/// Of one query.
struct Ranks {
    /// For each part, the rank that it gives each candidate.
    of_part: Vec<Vec<usize>>,
    /// Candidates in the order of the first stage.
    first: Vec<usize>,
}

/// Each scorer dearer than the one before it, with fewer candidates than it; and none at all.
fn cascades(parts: usize, depths: &[usize], max_stages: usize) -> Vec<Vec<Step>> {
    let mut found = vec![Vec::new()];
    let mut start = 0;
    for _ in 0..max_stages {
        let end = found.len();
        for place in start..end {
            let (after, below) = match found[place].last() {
                Some(Step { part, depth }) => (part + 1, *depth),
                None => (0, usize::MAX),
            };
            for part in after..parts {
                for &depth in depths.iter().filter(|depth| **depth < below) {
                    let mut steps: Vec<Step> = found[place].clone();
                    steps.push(Step { part, depth });
                    found.push(steps);
                }
            }
        }
        start = end;
    }
    found
}

/// Candidates by time, each better than all that are cheaper.
fn front_of(candidates: &[Candidate], is_within: impl Fn(&Candidate) -> bool) -> Vec<usize> {
    let mut places: Vec<usize> =
        (0..candidates.len()).filter(|&place| is_within(&candidates[place])).collect();
    let key = |place: usize| &candidates[place];
    places.sort_by(|&a, &b| {
        key(a).cost.ms.total_cmp(&key(b).cost.ms).then(key(b).mean.total_cmp(&key(a).mean))
    });
    let mut best = f64::NEG_INFINITY;
    places.retain(|&place| {
        let is_better = candidates[place].mean > best + SAME;
        if is_better {
            best = candidates[place].mean;
        }
        is_better
    });
    places
}

/// The fold of each query: by the hash of its name, so that it does not depend on the order, and as many in each as can be.
fn folds_of(queries: &[String], folds: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..queries.len()).collect();
    places.sort_by_cached_key(|&place| Sha256::digest(&queries[place]).to_vec());
    let mut of_query = vec![0; queries.len()];
    for (number, place) in places.into_iter().enumerate() {
        of_query[place] = number % folds;
    }
    of_query
}

/// For each query, the metric of the cascade that is best on the other folds, of those that take no longer than `ms`.
fn held_out(candidates: &[Candidate], ms: f64, fold_of: &[usize]) -> Vec<f64> {
    let folds = fold_of.iter().max().map_or(0, |last| last + 1);
    let mut values = vec![0.0; fold_of.len()];
    for fold in 0..folds {
        let of_others = |candidate: &Candidate| -> f64 {
            candidate.values.iter().zip(fold_of).filter(|(_, of)| **of != fold).map(|(value, _)| value).sum()
        };
        // Of equals the cheapest.
        let best = candidates
            .iter()
            .filter(|candidate| candidate.cost.ms <= ms)
            .map(|candidate| (of_others(candidate), candidate))
            .max_by(|(a, first), (b, second)| a.total_cmp(b).then(second.cost.ms.total_cmp(&first.cost.ms)));
        if let Some((_, best)) = best {
            for (place, _) in fold_of.iter().enumerate().filter(|(_, of)| **of == fold) {
                values[place] = best.values[place];
            }
        }
    }
    values
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(ms: f64, values: &[f64]) -> Candidate {
        let cost = Cost { ms, ..Cost::default() };
        Candidate {
            steps: Vec::new(),
            cost,
            of_step: Vec::new(),
            values: values.to_vec(),
            mean: mean(values),
        }
    }

    #[test]
    fn cascades_go_from_cheap_to_dear_and_from_many_to_few() {
        let found = cascades(2, &[10, 100], 3);
        let steps = |pairs: &[(usize, usize)]| -> Vec<Step> {
            pairs.iter().map(|&(part, depth)| Step { part, depth }).collect()
        };
        let expected: Vec<Vec<Step>> =
            [&[][..], &[(0, 10)], &[(0, 100)], &[(1, 10)], &[(1, 100)], &[(0, 100), (1, 10)]]
                .map(steps)
                .to_vec();
        assert_eq!(found, expected);
        assert_eq!(cascades(2, &[10, 100], 1).len(), 5);
        // Four depths, three scorers: 1 + 12 + 3 * 6 + 4.
        assert_eq!(cascades(3, &[1, 2, 3, 4], 3).len(), 35);
    }

    #[test]
    fn the_front_is_what_nothing_beats() {
        let candidates = [
            candidate(0.0, &[0.3]),
            candidate(5.0, &[0.2]),
            candidate(2.0, &[0.5]),
            candidate(2.0, &[0.4]),
            candidate(9.0, &[0.50001]),
            candidate(8.0, &[0.9]),
        ];
        assert_eq!(front_of(&candidates, |_| true), [0, 2, 5]);
        assert_eq!(front_of(&candidates, |candidate| candidate.cost.ms < 8.0), [0, 2]);
    }

    #[test]
    fn held_out_values_are_of_the_choice_of_others() {
        // Each candidate is good on one fold only: chosen on the others, it is bad here.
        let (first, second) = (candidate(1.0, &[1.0, 0.0]), candidate(1.0, &[0.0, 1.0]));
        let fold_of = [0, 1];
        assert_eq!(held_out(&[first, second], 1.0, &fold_of), [0.0, 0.0]);
        // What is too dear is not chosen; of equals the cheapest.
        let cheap = candidate(1.0, &[0.5, 0.5]);
        let equal = candidate(2.0, &[0.5, 0.5]);
        let dear = candidate(3.0, &[1.0, 1.0]);
        assert_eq!(held_out(&[equal, cheap, dear], 2.5, &fold_of), [0.5, 0.5]);
    }

    #[test]
    fn folds_are_even_and_do_not_depend_on_the_order() {
        let queries: Vec<String> = (0..23).map(|i| format!("c/{i}")).collect();
        let folds = folds_of(&queries, 5);
        for fold in 0..5 {
            assert!((4..=5).contains(&folds.iter().filter(|of| **of == fold).count()));
        }
        let reversed: Vec<String> = queries.iter().rev().cloned().collect();
        assert_eq!(folds_of(&reversed, 5), folds.into_iter().rev().collect::<Vec<_>>());
    }
}
