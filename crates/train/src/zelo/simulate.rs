//! Judges of known quality on documents of known relevance: to test the fit, and to see how many votes are needed before any is
//! paid for.
//!
//! A judge sees the difference of two relevances, mostly between -4 and 4, with normal noise on it, and votes 1 / (1 + exp(-difference));
//! a small part of its vote is a random number. Source: the model of zELO's authors, news.ycombinator.com, comments of npip99.

use std::num::NonZeroUsize;

use jointly_eval::agreement::kendall_tau_b;
use serde::Serialize;

#[cfg(doc)]
use super::Error;
use super::Result;
use super::fit::{Fit, FitOptions, Tournament};
use super::sample::Sampler;
use super::votes::{Pair, Vote};
use crate::random::Random;

/// Queries with documents whose relevance is known: normal with variance 2, around 0 or, with a spread, around a value of each query.
#[derive(Debug, Clone, Copy)]
pub struct World {
    queries: usize,
    documents: usize,
    spread: f64,
    seed: u64,
}

impl World {
    /// So many queries, and documents of each.
    pub fn new(queries: usize, documents: usize, seed: u64) -> Self {
        Self { queries, documents, spread: 0.0, seed }
    }

    /// The standard deviation of the queries' middles: some queries have better documents than others.
    pub fn spread(self, spread: f64) -> Self {
        Self { spread, ..self }
    }

    /// The ids of the queries.
    pub fn queries(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.queries).map(|number| format!("q{number}"))
    }

    /// The ids of the documents of every query.
    pub fn documents(&self) -> Vec<String> {
        (1..=self.documents).map(|number| format!("d{number}")).collect()
    }

    /// The relevances of a query's documents. They depend on seed and id alone.
    pub fn relevances(&self, query: &str) -> Vec<f64> {
        let mut rng = Random::keyed(self.seed, ["relevances", query]);
        let middle = self.spread * rng.normal();
        (0..self.documents).map(|_| middle + SPREAD * rng.normal()).collect()
    }
}

/// The standard deviation within a query. A difference of two has 2: 95 of 100 lie between -4 and 4.
const SPREAD: f64 = std::f64::consts::SQRT_2;

/// The text of a document, which states how relevant it is: so pools of simulated documents are files like others.
pub fn text(relevance: f64) -> String {
    format!("A simulated document of relevance {relevance:.6}")
}

/// The relevance that a text states, if it is one of [`text`].
pub fn stated(text: &str) -> Option<f64> {
    let number = text.strip_prefix("A simulated document of relevance ")?;
    number.parse().ok().filter(|relevance: &f64| relevance.is_finite())
}

/// A grade from 0 to 3, as people would give it: to half of the documents 0, to one of 12 3.
pub fn grade(relevance: f64) -> i8 {
    relevance.ceil().clamp(0.0, 3.0) as i8
}

/// A judge that knows the truth, and errs.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatedJudge {
    name: String,
    seed: u64,
    scale: f64,
    bias: f64,
    noise: f64,
    random: f64,
    abstains: f64,
    is_hard: bool,
}

impl SimulatedJudge {
    /// Scale 1, no bias, noise of standard deviation 0.2, 2 % of each vote random, never abstaining, soft votes. Judges with
    /// different names err in different ways.
    pub fn new(name: impl Into<String>, seed: u64) -> Self {
        let name = name.into();
        Self { name, seed, scale: 1.0, bias: 0.0, noise: 0.2, random: 0.02, abstains: 0.0, is_hard: false }
    }

    /// What it multiplies differences with: above 1 it is surer than others.
    pub fn scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// What it adds for the document that it sees second.
    pub fn bias(self, bias: f64) -> Self {
        Self { bias, ..self }
    }

    /// The standard deviation of the noise on a difference.
    pub fn noise(self, noise: f64) -> Self {
        Self { noise, ..self }
    }

    /// The part of a vote that is a random number from 0 to 1.
    pub fn random(self, random: f64) -> Self {
        Self { random, ..self }
    }

    /// How often it does not vote.
    pub fn abstains(self, abstains: f64) -> Self {
        Self { abstains, ..self }
    }

    /// Votes 0 or 1 only, drawn with the probability that it would have said.
    pub fn hard(self) -> Self {
        Self { is_hard: true, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All but its name.
    pub(crate) fn settings(&self) -> String {
        let Self { name: _, seed, scale, bias, noise, random, abstains, is_hard } = self;
        format!("{seed} {scale} {bias} {noise} {random} {abstains} {is_hard}")
    }

    /// Its vote: the share for `b`, from 0 to 1, or none if it abstains. `question` are words that name the pair: the same words get the
    /// same vote, whatever was asked before.
    pub fn vote(&self, question: &Question<'_>) -> Option<f64> {
        let seen = if question.swapped { "swapped" } else { "" };
        let words = question.words.iter().copied().chain([self.name.as_str(), seen]);
        let mut rng = Random::keyed(self.seed, words);
        if rng.uniform() < self.abstains {
            return None;
        }
        let bias = if question.swapped { -self.bias } else { self.bias };
        let difference = question.b - question.a + self.noise * rng.normal();
        let sure = 1.0 / (1.0 + (-(self.scale * difference + bias)).exp());
        let share = (1.0 - self.random) * sure + self.random * rng.uniform();
        Some(if self.is_hard { f64::from(rng.uniform() < share) } else { share })
    }
}

/// A pair as a simulated judge sees it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What names the pair.
    pub words: &'a [&'a str],
    /// The relevance of the first document.
    pub a: f64,
    /// That of the second.
    pub b: f64,
    /// Whether the second is shown first.
    pub swapped: bool,
}

/// A judge's vote on a pair of documents of these relevances. Which is shown first is drawn from the seed.
pub fn ask<'a>(judge: &'a SimulatedJudge, pair: &'a Pair, a: f64, b: f64) -> Vote<'a> {
    let words = [pair.query.as_str(), &pair.a, pair.query_b.as_deref().unwrap_or(""), &pair.b];
    let mut order = Random::keyed(judge.seed, words.into_iter().chain([judge.name(), "order"]));
    let swapped = order.below(2) == 1;
    Vote {
        query: pair.query.as_str().into(),
        a: pair.a.as_str().into(),
        query_b: pair.query_b.clone(),
        b: pair.b.as_str().into(),
        judge: judge.name().into(),
        vote: judge.vote(&Question { words: &words, a, b, swapped }),
        swapped,
    }
}

/// How well scores find the truth with so many votes.
#[derive(Debug, Clone, Serialize)]
pub struct Power {
    /// Comparisons of each document; none for all pairs.
    pub k: Option<usize>,
    /// Pairs of each query.
    pub pairs: usize,
    /// Kendall's tau-b of scores and truth, mean over the queries.
    pub tau: f64,
    /// Of that mean.
    pub tau_standard_error: f64,
    /// How many of the ten most relevant documents are among the ten best scores, as a share; mean over the queries.
    pub top_10: f64,
    /// As the fit states it.
    pub median_standard_error: f64,
}

/// Simulates a tournament in which each document of each query is compared `k` times (even; none: every pair once) by each judge,
/// and fits it.
///
/// # Errors
/// Those of [`Tournament::fit`]: [`Error::NoVotes`] for fewer than two documents.
pub fn power(
    world: &World,
    judges: &[SimulatedJudge],
    k: Option<usize>,
    options: &FitOptions,
) -> Result<Power> {
    let documents = world.documents();
    let mut tournament = Tournament::new();
    let mut truth = Vec::new();
    let mut pairs = 0;
    for query in world.queries() {
        tournament.add_query(&query, documents.iter().map(String::as_str))?;
        let relevances = world.relevances(&query);
        let chosen = match k {
            Some(k) => {
                let sampler = NonZeroUsize::new(k / 2).map(|cycles| Sampler::new(cycles, world.seed));
                sampler.map_or_else(Vec::new, |sampler| sampler.within_places(&query, documents.len()))
            }
            None => (1..documents.len()).flat_map(|b| (0..b).map(move |a| (a, b))).collect(),
        };
        pairs = chosen.len();
        for (a, b) in chosen {
            let pair = Pair {
                query: query.clone(),
                a: documents[a].clone(),
                query_b: None,
                b: documents[b].clone(),
            };
            for judge in judges {
                tournament.add(&ask(judge, &pair, relevances[a], relevances[b]))?;
            }
        }
        truth.push(relevances);
    }
    let fit = tournament.fit(options)?;
    let (taus, tops): (Vec<f64>, Vec<f64>) =
        truth.iter().enumerate().map(|(place, truth)| agreement(&fit, place, truth)).unzip();
    let count = taus.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / count;
    let tau = mean(&taus);
    let variance = taus.iter().map(|value| (value - tau).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    Ok(Power {
        k,
        pairs,
        tau,
        tau_standard_error: (variance / count).sqrt(),
        top_10: mean(&tops),
        median_standard_error: fit.report.median_standard_error,
    })
}

/// Kendall's tau, and the share of the ten best.
fn agreement(fit: &Fit, query: usize, truth: &[f64]) -> (f64, f64) {
    let scores = fit.scores(query).map_or(&[][..], |scores| scores.scores);
    let ten = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        order.truncate(10);
        order
    };
    let (best, found) = (ten(truth), ten(scores));
    let both = found.iter().filter(|place| best.contains(place)).count();
    (kendall_tau_b(scores, truth).unwrap_or(0.0), both as f64 / best.len().max(1) as f64)
}
