//! Scores from votes: the maximum of likelihood and prior.
//!
//! For a vote of judge r on documents a and b, of which it gave the share v to b, with z = s_r (e_b - e_a) + β_r (-β_r where it
//! saw b first), the log likelihood is v ln P(z) + (1 - v) ln P(-z), P a [`Link`]. The scores e of a query have the prior
//! exp(-λ/2 Σ e²), so that a document that won or lost everything has a finite score, which depends on λ and on nothing else.
//! Their sum is 0 in each connected part. It is a concave function; Newton's method finds its maximum, with conjugate gradients
//! on the sparse Laplacian of the comparisons.
//!
//! Each judge's scale s_r (how decided it is) and bias β_r (to what it saw second) are fitted in turn with the scores. The root
//! mean square of the scales over the votes is 1, which says what unit the scores have.
//!
//! Scores of different queries are made comparable by one offset b for each query, fitted to votes across queries with the
//! scores as they are: z = s_r ((e_b + b_b) - (e_a + b_a)) + β_r. The label of a document is e + b.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;

use super::laplacian::Laplacian;
use super::link::Link;
use super::report::{self, JudgeReport, Report, Structure};
use super::votes::Vote;
use super::{Error, Result};

/// How to fit.
#[derive(Debug, Clone, Copy)]
pub struct FitOptions {
    link: Link,
    prior: f64,
    bias_prior: f64,
    calibrate: bool,
    threads: usize,
}

impl FitOptions {
    /// Of the scores, λ.
    pub const PRIOR: f64 = 0.05;
    /// Of the queries' offsets.
    pub const BIAS_PRIOR: f64 = 0.01;

    /// Thurstone's model, [`Self::PRIOR`], [`Self::BIAS_PRIOR`], judges calibrated, one thread.
    pub fn new() -> Self {
        let (prior, bias_prior) = (Self::PRIOR, Self::BIAS_PRIOR);
        Self { link: Link::default(), prior, bias_prior, calibrate: true, threads: 1 }
    }

    /// How a difference of scores becomes a probability.
    pub fn link(self, link: Link) -> Self {
        Self { link, ..self }
    }

    /// λ, at least 0. With 0 there is a maximum only if in each query every document beats every other, through others or itself.
    pub fn prior(self, prior: f64) -> Self {
        Self { prior, ..self }
    }

    /// λ of the queries' offsets, above 0.
    pub fn bias_prior(self, bias_prior: f64) -> Self {
        Self { bias_prior, ..self }
    }

    /// Without, every judge has scale 1 and bias 0.
    pub fn calibrate(self, calibrate: bool) -> Self {
        Self { calibrate, ..self }
    }

    /// On how many threads. The result does not depend on it.
    pub fn threads(self, threads: NonZeroUsize) -> Self {
        Self { threads: threads.get(), ..self }
    }
}

impl Default for FitOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Queries with their documents, and the votes on them.
#[derive(Debug, Default)]
pub struct Tournament {
    queries: Vec<Query>,
    places: HashMap<Box<str>, u32>,
    judges: Vec<JudgeVotes>,
    judge_places: HashMap<Box<str>, u32>,
    across: Vec<Across>,
}

#[derive(Debug, Default)]
struct Query {
    documents: HashMap<Box<str>, u32>,
    votes: Vec<Cast>,
    scores: Vec<f64>,
    variances: Vec<f64>,
    structure: Structure,
}

#[derive(Debug)]
struct JudgeVotes {
    name: Box<str>,
    votes: u64,
    abstentions: u64,
}

/// A vote between documents of a query, which are indexes. `share` is `b`'s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cast {
    pub a: u32,
    pub b: u32,
    pub judge: u32,
    pub swapped: bool,
    pub share: f64,
}

#[derive(Debug, Clone, Copy)]
struct Across {
    query_a: u32,
    query_b: u32,
    cast: Cast,
}

/// What a judge is fitted to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rater {
    pub scale: f64,
    pub bias: f64,
}

/// The scores of a query.
#[derive(Debug, Clone, Copy)]
pub struct Scores<'a> {
    /// e, in the order in which the documents were given; their mean is 0.
    pub scores: &'a [f64],
    /// Of each score less the mean of the query's, given the judges: from the inverse of the negative second derivative of the log
    /// posterior, in which each vote counts as one independent trial. What joins parts that no vote connects is the prior.
    /// Infinite for a query without votes if the prior is 0.
    pub standard_errors: &'a [f64],
    /// b.
    pub bias: f64,
    /// Of b less the mean of all; none if there are no votes across queries, or more than [`BIAS_ERRORS`] queries.
    pub bias_standard_error: Option<f64>,
    /// Whether there is a vote within the query.
    pub is_voted: bool,
}

/// For so many queries standard errors of the offsets are computed; the time grows with the square of their number.
pub const BIAS_ERRORS: usize = 2000;

/// What was found.
#[derive(Debug)]
pub struct Fit {
    queries: Vec<Query>,
    biases: Vec<f64>,
    bias_errors: Option<Vec<f64>>,
    /// How much the scores are worth.
    pub report: Report,
}

impl Fit {
    /// The scores of a query, by its place among those that were added.
    pub fn scores(&self, query: usize) -> Option<Scores<'_>> {
        let of = self.queries.get(query)?;
        Some(Scores {
            scores: &of.scores,
            standard_errors: &of.variances,
            bias: self.biases[query],
            bias_standard_error: self.bias_errors.as_ref().map(|errors| errors[query]),
            is_voted: !of.votes.is_empty(),
        })
    }
}

impl Tournament {
    /// No queries, no votes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a query with its documents.
    ///
    /// # Errors
    /// [`Error::QueryTwice`], [`Error::DocumentTwice`].
    pub fn add_query<'a>(&mut self, id: &str, documents: impl IntoIterator<Item = &'a str>) -> Result<()> {
        if self.places.contains_key(id) {
            return Err(Error::QueryTwice { query: id.to_string() });
        }
        let mut query = Query::default();
        for document in documents {
            let place = query.documents.len() as u32;
            if query.documents.insert(document.into(), place).is_some() {
                return Err(Error::DocumentTwice { query: id.to_string(), document: document.to_string() });
            }
        }
        self.places.insert(id.into(), self.queries.len() as u32);
        self.queries.push(query);
        Ok(())
    }

    /// Adds a vote. The order of votes does not change what is fitted.
    ///
    /// # Errors
    /// [`Error::NoSuchQuery`], [`Error::NoSuchDocument`], [`Error::SameDocument`], [`Error::Share`].
    pub fn add(&mut self, vote: &Vote<'_>) -> Result<()> {
        let query = |id: &str| {
            self.places.get(id).copied().ok_or_else(|| Error::NoSuchQuery { query: id.to_string() })
        };
        let document = |place: u32, query: &str, id: &str| {
            let found = self.queries[place as usize].documents.get(id).copied();
            found.ok_or_else(|| Error::NoSuchDocument { query: query.to_string(), document: id.to_string() })
        };
        let id_b = vote.query_b.as_deref().unwrap_or(&vote.query);
        let query_a = query(&vote.query)?;
        let query_b = if vote.query == id_b { query_a } else { query(id_b)? };
        let a = document(query_a, &vote.query, &vote.a)?;
        let b = document(query_b, id_b, &vote.b)?;
        if (query_a, a) == (query_b, b) {
            return Err(Error::SameDocument { document: vote.a.to_string() });
        }
        if let Some(share) = vote.vote.filter(|share| !(0.0..=1.0).contains(share)) {
            return Err(Error::Share { share });
        }
        let judge = match self.judge_places.get(&*vote.judge) {
            Some(judge) => *judge,
            None => {
                let place = self.judges.len() as u32;
                let name: Box<str> = (&*vote.judge).into();
                self.judge_places.insert(name.clone(), place);
                self.judges.push(JudgeVotes { name, votes: 0, abstentions: 0 });
                place
            }
        };
        let of_judge = &mut self.judges[judge as usize];
        let Some(share) = vote.vote else {
            of_judge.abstentions += 1;
            return Ok(());
        };
        of_judge.votes += 1;
        let cast = Cast { a, b, judge, swapped: vote.swapped, share };
        if query_a == query_b {
            self.queries[query_a as usize].votes.push(cast);
        } else {
            self.across.push(Across { query_a, query_b, cast });
        }
        Ok(())
    }

    /// Fits scores, judges and offsets.
    ///
    /// # Errors
    /// [`Error::NoVotes`]; [`Error::Prior`]; [`Error::NoMaximum`] if the prior is 0 and a query has none.
    pub fn fit(mut self, options: &FitOptions) -> Result<Fit> {
        let FitOptions { link, prior, bias_prior, calibrate, threads } = *options;
        let is_prior = |prior: f64| prior >= 0.0 && prior.is_finite();
        if !is_prior(prior) || !is_prior(bias_prior) || bias_prior == 0.0 {
            return Err(Error::Prior { prior, bias_prior });
        }
        self.sort();
        if self.queries.iter().all(|query| query.votes.is_empty()) {
            return Err(Error::NoVotes);
        }
        blocks(&mut self.queries, threads, |queries| {
            for query in queries {
                query.structure = Structure::new(query.documents.len(), &query.votes);
                query.scores = vec![0.0; query.documents.len()];
            }
        });
        let has_none = |query: &Query| !query.votes.is_empty() && query.structure.is_separated;
        if prior == 0.0
            && let Some(place) = self.queries.iter().position(has_none)
        {
            let name = self.places.iter().find(|(_, of)| **of as usize == place);
            let query = name.map_or_else(String::new, |(name, _)| name.to_string());
            return Err(Error::NoMaximum { query });
        }

        let mut raters = vec![Rater { scale: 1.0, bias: 0.0 }; self.judges.len()];
        let (mut rounds, mut change) = (0, f64::INFINITY);
        while change > JUDGES_CHANGE && rounds < MAX_ROUNDS {
            let sums = blocks(&mut self.queries, threads, |queries| {
                let mut sums = vec![JudgeSums::default(); raters.len()];
                for query in queries {
                    query.fit(link, prior, &raters);
                    if calibrate {
                        query.add_to(&mut sums, link, &raters);
                    }
                }
                sums
            });
            rounds += 1;
            change = if calibrate { calibrate_judges(&mut raters, &sums, &self.judges) } else { 0.0 };
        }
        // With the judges as they are now, scores once more; and what needs no more than one look.
        let found = blocks(&mut self.queries, threads, |queries| {
            let mut found = report::Found::new(raters.len());
            for query in queries {
                query.fit(link, prior, &raters);
                query.variances = query.standard_errors(link, prior, &raters);
                found.add(&query.votes, &query.scores, &query.variances, &query.structure);
            }
            found
        });
        let (biases, bias_errors, joined) = self.offsets(link, bias_prior, &raters);
        let judges = self
            .judges
            .iter()
            .zip(&raters)
            .map(|(of, rater)| JudgeReport::new(&of.name, of.votes, of.abstentions, *rater));
        let mut report = Report::new(found, judges.collect());
        report.across = joined;
        report.rounds = rounds;
        report.judges_settled = change <= JUDGES_CHANGE;
        Ok(Fit { queries: self.queries, biases, bias_errors, report })
    }

    /// Puts judges and votes into an order that does not depend on the order in which they came, so that sums come out the same.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.judges.len()).collect();
        order.sort_by(|a, b| self.judges[*a].name.cmp(&self.judges[*b].name));
        let mut place = vec![0_u32; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new as u32;
        }
        self.judges.sort_by(|a, b| a.name.cmp(&b.name));
        let key = |cast: &Cast| (cast.a.min(cast.b), cast.a.max(cast.b), cast.a, cast.judge, cast.swapped);
        let order = |x: &Cast, y: &Cast| key(x).cmp(&key(y)).then(x.share.total_cmp(&y.share));
        for query in &mut self.queries {
            query.votes.iter_mut().for_each(|cast| cast.judge = place[cast.judge as usize]);
            query.votes.sort_unstable_by(order);
        }
        self.across.iter_mut().for_each(|across| across.cast.judge = place[across.cast.judge as usize]);
        self.across.sort_unstable_by(|x, y| {
            (x.query_a, x.query_b).cmp(&(y.query_a, y.query_b)).then_with(|| order(&x.cast, &y.cast))
        });
    }

    /// The offset of each query, their standard errors, and how the queries are joined.
    fn offsets(
        &self,
        link: Link,
        prior: f64,
        raters: &[Rater],
    ) -> (Vec<f64>, Option<Vec<f64>>, report::Across) {
        let nodes = self.queries.len();
        let score = |query: u32, document: u32| self.queries[query as usize].scores[document as usize];
        let comparisons: Vec<Comparison> = self
            .across
            .iter()
            .map(|&Across { query_a, query_b, cast }| {
                let Comparison { scale, offset, share, .. } = cast.comparison(raters);
                let offset = offset + scale * (score(query_b, cast.b) - score(query_a, cast.a));
                Comparison { a: query_a, b: query_b, scale, offset, share }
            })
            .collect();
        let ends = comparisons.iter().map(|comparison| (comparison.a, comparison.b));
        let joined = report::Across::new(nodes, ends);
        if comparisons.is_empty() {
            return (vec![0.0; nodes], None, joined);
        }
        let mut biases = vec![0.0; nodes];
        maximise(link, prior, &comparisons, &mut biases);
        let errors = (nodes <= BIAS_ERRORS)
            .then(|| roots(curvature(link, prior, &comparisons, &biases).centred_variances()));
        (biases, errors, joined)
    }
}

impl Query {
    fn comparisons(&self, raters: &[Rater]) -> Vec<Comparison> {
        self.votes.iter().map(|cast| cast.comparison(raters)).collect()
    }

    fn fit(&mut self, link: Link, prior: f64, raters: &[Rater]) {
        maximise(link, prior, &self.comparisons(raters), &mut self.scores);
    }

    fn standard_errors(&self, link: Link, prior: f64, raters: &[Rater]) -> Vec<f64> {
        if prior == 0.0 && self.votes.is_empty() {
            return vec![f64::INFINITY; self.scores.len()];
        }
        roots(curvature(link, prior, &self.comparisons(raters), &self.scores).centred_variances())
    }

    fn add_to(&self, sums: &mut [JudgeSums], link: Link, raters: &[Rater]) {
        for cast in &self.votes {
            let comparison = cast.comparison(raters);
            let Derivatives { slope, curvature, .. } = comparison.derivatives(link, &self.scores);
            let by_scale = comparison.scale * comparison.difference(&self.scores);
            let by_bias = if cast.swapped { -1.0 } else { 1.0 };
            let sums = &mut sums[cast.judge as usize];
            sums.slope[0] += slope * by_scale;
            sums.slope[1] += slope * by_bias;
            sums.curvature[0] += curvature * by_scale * by_scale;
            sums.curvature[1] += curvature * by_scale * by_bias;
            sums.curvature[2] += curvature;
        }
    }
}

fn roots(mut variances: Vec<f64>) -> Vec<f64> {
    variances.iter_mut().for_each(|variance| *variance = variance.sqrt());
    variances
}

impl Cast {
    fn comparison(&self, raters: &[Rater]) -> Comparison {
        let Rater { scale, bias } = raters[self.judge as usize];
        let offset = if self.swapped { -bias } else { bias };
        Comparison { a: self.a, b: self.b, scale, offset, share: self.share }
    }
}

/// z = scale (x_b - x_a) + offset; `share` is b's.
#[derive(Debug, Clone, Copy)]
struct Comparison {
    a: u32,
    b: u32,
    scale: f64,
    offset: f64,
    share: f64,
}

/// Of minus the log likelihood, by z.
struct Derivatives {
    value: f64,
    slope: f64,
    curvature: f64,
}

impl Comparison {
    fn difference(&self, x: &[f64]) -> f64 {
        x[self.b as usize] - x[self.a as usize]
    }

    fn derivatives(&self, link: Link, x: &[f64]) -> Derivatives {
        let z = self.scale * self.difference(x) + self.offset;
        // A share of 0 times a logarithm that is -∞ would be no number.
        let mut all = Derivatives { value: 0.0, slope: 0.0, curvature: 0.0 };
        for (share, z, sign) in [(self.share, z, 1.0), (1.0 - self.share, -z, -1.0)] {
            if share > 0.0 {
                let of = link.log_probability(z);
                all.value -= share * of.value;
                all.slope -= sign * share * of.slope;
                all.curvature += share * of.curvature;
            }
        }
        all
    }
}

/// The steps of Newton's method end when none of the values moves by more.
const STEP: f64 = 1e-10;
/// A step that promises to better the loss by a smaller part of it is taken untried: f64 could not tell, and so near to the maximum
/// each step doubles the digits. After three of them nothing is left to gain.
const SURE: f64 = 1e-9;
const SURE_STEPS: usize = 3;
/// Ten are usual.
const MAX_STEPS: usize = 200;

/// Moves x to where likelihood and prior are greatest.
fn maximise(link: Link, prior: f64, comparisons: &[Comparison], x: &mut [f64]) {
    let loss = |x: &[f64]| {
        let prior = 0.5 * prior * x.iter().map(|x| x * x).sum::<f64>();
        prior + comparisons.iter().map(|comparison| comparison.derivatives(link, x).value).sum::<f64>()
    };
    let mut best = loss(x);
    let mut next = vec![0.0; x.len()];
    let mut sure = 0;
    for _ in 0..MAX_STEPS {
        let mut downhill: Vec<f64> = x.iter().map(|x| -prior * x).collect();
        let edges = comparisons.iter().map(|comparison| {
            let Derivatives { slope, curvature, .. } = comparison.derivatives(link, x);
            let slope = slope * comparison.scale;
            downhill[comparison.b as usize] -= slope;
            downhill[comparison.a as usize] += slope;
            (comparison.a, comparison.b, curvature * comparison.scale * comparison.scale)
        });
        let hessian = Laplacian::new(x.len(), prior, edges);
        let step = hessian.solve(&downhill);
        let largest = step.iter().fold(0.0, |largest: f64, step| largest.max(step.abs()));
        let promised: f64 = step.iter().zip(&downhill).map(|(step, downhill)| 0.5 * step * downhill).sum();
        if promised <= SURE * best.abs() {
            x.iter_mut().zip(&step).for_each(|(x, step)| *x += step);
            sure += 1;
            if largest <= STEP || sure == SURE_STEPS {
                break;
            }
            best = loss(x);
            continue;
        }
        let mut size = 1.0;
        loop {
            for ((next, x), step) in next.iter_mut().zip(&*x).zip(&step) {
                *next = x + size * step;
            }
            let found = loss(&next);
            if found < best {
                best = found;
                break;
            }
            size /= 2.0;
            if size < 1e-10 {
                return; // as close as f64 comes
            }
        }
        x.copy_from_slice(&next);
    }
}

/// The negative second derivative at x.
fn curvature(link: Link, prior: f64, comparisons: &[Comparison], x: &[f64]) -> Laplacian {
    let edges = comparisons.iter().map(|comparison| {
        let curvature = comparison.derivatives(link, x).curvature;
        (comparison.a, comparison.b, curvature * comparison.scale * comparison.scale)
    });
    Laplacian::new(x.len(), prior, edges)
}

/// Of minus the log likelihood of a judge's votes, by the logarithm of its scale and by its bias.
#[derive(Debug, Clone, Copy, Default)]
struct JudgeSums {
    slope: [f64; 2],
    /// By scale twice, by both, by bias twice.
    curvature: [f64; 3],
}

/// The weight of one vote or so, for a judge with few of them: to scale 1 and bias 0.
const JUDGE_PRIOR: f64 = 1.0;
/// Scales and biases have settled when none moves by more.
const JUDGES_CHANGE: f64 = 1e-5;
const MAX_ROUNDS: usize = 100;

/// One step of Newton's method for all judges, under the condition that the mean of the squared scales over the votes is 1.
/// Returns the largest change.
fn calibrate_judges(raters: &mut [Rater], sums: &[Vec<JudgeSums>], judges: &[JudgeVotes]) -> f64 {
    let mut of_judge = vec![JudgeSums::default(); raters.len()];
    for sums in sums {
        for (all, sums) in of_judge.iter_mut().zip(sums) {
            (0..2).for_each(|i| all.slope[i] += sums.slope[i]);
            (0..3).for_each(|i| all.curvature[i] += sums.curvature[i]);
        }
    }
    let votes = |judge: usize| judges[judge].votes as f64;
    // By the scale alone, the bias following: slope, curvature, and how the condition changes.
    let mut reduced = Vec::with_capacity(raters.len());
    for (judge, (sums, rater)) in of_judge.iter_mut().zip(&*raters).enumerate() {
        sums.slope[0] += JUDGE_PRIOR * rater.scale.ln();
        sums.slope[1] += JUDGE_PRIOR * rater.bias;
        sums.curvature[0] += JUDGE_PRIOR;
        sums.curvature[2] += JUDGE_PRIOR;
        let [scale, both, bias] = sums.curvature;
        let slope = sums.slope[0] - both / bias * sums.slope[1];
        reduced.push((slope, scale - both * both / bias, votes(judge) * rater.scale * rater.scale));
    }
    let ratio = |f: &dyn Fn(f64, f64, f64) -> f64| reduced.iter().map(|(s, c, k)| f(*s, *c, *k)).sum::<f64>();
    let pressure =
        -ratio(&|slope, curvature, k| k * slope / curvature) / ratio(&|_, curvature, k| k * k / curvature);
    let pressure = if pressure.is_finite() { pressure } else { 0.0 };
    let before = raters.to_vec();
    for ((rater, sums), (slope, curvature, k)) in raters.iter_mut().zip(&of_judge).zip(&reduced) {
        // A factor of e at a time: far from the maximum a quadratic says little.
        let step = (-(slope + pressure * k) / curvature).clamp(-1.0, 1.0);
        rater.scale *= step.exp();
        rater.bias -= (sums.slope[1] + sums.curvature[1] * step) / sums.curvature[2];
    }
    let all: f64 = (0..raters.len()).map(votes).sum();
    let squares: f64 =
        raters.iter().enumerate().map(|(judge, rater)| votes(judge) * rater.scale * rater.scale).sum();
    let unit = (squares / all).sqrt();
    raters.iter_mut().for_each(|rater| rater.scale /= unit);
    let change = |(now, before): (&Rater, &Rater)| {
        ((now.scale / before.scale).ln().abs()).max((now.bias - before.bias).abs())
    };
    raters.iter().zip(&before).map(change).fold(0.0, f64::max)
}

/// Queries that a thread takes at once.
const BLOCK: usize = 32;

/// Does the same to blocks of things, on some threads, and gives what came out in the order of the blocks: so sums over them are
/// the same for any number of threads.
fn blocks<T: Send, R: Send>(things: &mut [T], threads: usize, work: impl Fn(&mut [T]) -> R + Sync) -> Vec<R> {
    let todo = Mutex::new(things.chunks_mut(BLOCK).enumerate());
    let done = Mutex::new(Vec::new());
    let next = || todo.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((place, block)) = next() {
                    let result = work(block);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}
