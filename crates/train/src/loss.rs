//! Losses: each compares the logits of one query's documents with what is wanted of them. One function and one entry of [`LOSSES`]
//! each.

use crate::error::{Error, Result};

/// What is wanted of the documents of one query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// On an open scale: a zELO score, a teacher's logit, a grade.
    pub labels: Vec<f32>,
    /// Probabilities of being relevant, from 0 to 1.
    pub probabilities: Vec<f32>,
}

/// A loss, for `--loss`.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// Which targets it compares with.
    pub reads: Reads,
    /// The loss of one query, and its gradient added to `gradient`.
    compute: fn(&[f32], &[f32], &mut [f64]) -> f64,
}

/// Which targets a loss compares with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// [`Wanted::labels`].
    Labels,
    /// [`Wanted::probabilities`].
    Probabilities,
}

/// Every loss.
pub static LOSSES: &[Kind] = &[
    Kind {
        name: "mse",
        summary: "squared distance of logit and label: zELO's pointwise regression",
        reads: Reads::Labels,
        compute: mse,
    },
    Kind {
        name: "bce",
        summary: "binary cross-entropy of the logit against a probability",
        reads: Reads::Probabilities,
        compute: bce,
    },
    Kind {
        name: "ranknet",
        summary: "each pair of unequal labels: log(1 + exp(-(better - worse)))",
        reads: Reads::Labels,
        compute: ranknet,
    },
    Kind {
        name: "lambda",
        summary: "RankNet's pairs, each weighed by what it does to NDCG (NDCG-Loss2 of LambdaLoss)",
        reads: Reads::Labels,
        compute: lambda,
    },
    Kind {
        name: "softmax",
        summary: "cross-entropy of the softmax over a query's documents against its labels, scaled to a sum of 1",
        reads: Reads::Labels,
        compute: softmax,
    },
    Kind {
        name: "margin_mse",
        summary: "squared distance of differences of logits and differences of labels",
        reads: Reads::Labels,
        compute: margin_mse,
    },
    Kind {
        name: "kl",
        summary: "KL divergence from the softmax of the labels to that of the logits: listwise distillation",
        reads: Reads::Labels,
        compute: kl,
    },
];

/// A weighted sum of losses, such as `kl+bce` or `mse+0.2*ranknet`.
#[derive(Clone)]
pub struct Loss {
    terms: Vec<(f64, &'static Kind)>,
    text: String,
}

impl std::fmt::Debug for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loss({})", self.text)
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Loss {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let terms = text.split('+').map(|term| {
            let (weight, name) = term.trim().split_once('*').unwrap_or(("1", term.trim()));
            let weight =
                weight.trim().parse::<f64>().ok().filter(|weight| weight.is_finite() && *weight > 0.0);
            let kind = LOSSES.iter().find(|kind| kind.name == name.trim());
            weight.zip(kind).ok_or_else(|| {
                let known: Vec<&str> = LOSSES.iter().map(|kind| kind.name).collect();
                let problem = format!(
                    "{term:?} is not a loss, or WEIGHT*LOSS with a positive weight; losses: {}",
                    known.join(", ")
                );
                Error::Option { option: "loss", problem }
            })
        });
        Ok(Self { terms: terms.collect::<Result<_>>()?, text: text.to_string() })
    }
}

impl Loss {
    /// Whether any term reads them.
    #[must_use]
    pub fn reads(&self, what: Reads) -> bool {
        self.terms.iter().any(|(_, kind)| kind.reads == what)
    }

    /// The loss of one query's documents, and its derivative with respect to each logit.
    #[must_use]
    pub fn compute(&self, logits: &[f32], wanted: &Wanted) -> (f64, Vec<f32>) {
        let mut gradient = vec![0.0; logits.len()];
        let mut loss = 0.0;
        let mut part = vec![0.0; logits.len()];
        for (weight, kind) in &self.terms {
            part.fill(0.0);
            let targets = match kind.reads {
                Reads::Labels => &wanted.labels,
                Reads::Probabilities => &wanted.probabilities,
            };
            loss += weight * (kind.compute)(logits, targets, &mut part);
            gradient.iter_mut().zip(&part).for_each(|(sum, part)| *sum += weight * part);
        }
        (loss, gradient.into_iter().map(|value| value as f32).collect())
    }
}

/// `log(1 + e^x)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x - log(sum(exp(x)))`.
fn log_softmax(x: &[f32]) -> Vec<f64> {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = x.iter().map(|x| f64::from(x - most).exp()).sum();
    x.iter().map(|x| f64::from(x - most) - sum.ln()).collect()
}

/// Each pair (better, worse) of unequal labels.
fn unequal(labels: &[f32]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let indices = 0..labels.len();
    indices
        .clone()
        .flat_map(move |i| indices.clone().map(move |j| (i, j)))
        .filter(|&(i, j)| labels[i] > labels[j])
}

fn mse(logits: &[f32], labels: &[f32], gradient: &mut [f64]) -> f64 {
    let n = logits.len() as f64;
    let mut loss = 0.0;
    for i in 0..logits.len() {
        let error = f64::from(logits[i]) - f64::from(labels[i]);
        loss += error * error / n;
        gradient[i] += 2.0 * error / n;
    }
    loss
}

fn bce(logits: &[f32], probabilities: &[f32], gradient: &mut [f64]) -> f64 {
    let n = logits.len() as f64;
    let mut loss = 0.0;
    for i in 0..logits.len() {
        let (x, p) = (f64::from(logits[i]), f64::from(probabilities[i]));
        loss += (softplus(x) - p * x) / n;
        gradient[i] += (sigmoid(x) - p) / n;
    }
    loss
}

/// Source: Burges et al., "Learning to rank using gradient descent", ICML 2005. The mean over pairs.
fn ranknet(logits: &[f32], labels: &[f32], gradient: &mut [f64]) -> f64 {
    let n = unequal(labels).count().max(1) as f64;
    let mut loss = 0.0;
    for (i, j) in unequal(labels) {
        let x = f64::from(logits[i]) - f64::from(logits[j]);
        loss += softplus(-x) / n;
        let slope = -sigmoid(-x) / n;
        gradient[i] += slope;
        gradient[j] -= slope;
    }
    loss
}

/// Source: Wang et al., "The LambdaLoss framework for ranking metric optimization", CIKM 2018, equation 18. Gains are `2^label - 1`
/// (a label below 0 gains nothing), and the weights of pairs are taken as given.
fn lambda(logits: &[f32], labels: &[f32], gradient: &mut [f64]) -> f64 {
    let gain = |label: f32| f64::from(label.clamp(0.0, 30.0)).exp2() - 1.0;
    let discount = |rank: usize| (rank as f64 + 1.0).log2();
    let mut ideal: Vec<f32> = labels.to_vec();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let most: f64 = ideal.iter().enumerate().map(|(i, &label)| gain(label) / discount(i + 1)).sum();
    if most <= 0.0 {
        return 0.0;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let mut rank = vec![0; logits.len()];
    order.iter().enumerate().for_each(|(place, &document)| rank[document] = place + 1);
    let mut loss = 0.0;
    for (i, j) in unequal(labels) {
        let apart = rank[i].abs_diff(rank[j]);
        let delta = 1.0 / discount(apart) - 1.0 / discount(apart + 1);
        let weight = delta * (gain(labels[i]) - gain(labels[j])) / most / std::f64::consts::LN_2;
        let x = f64::from(logits[i]) - f64::from(logits[j]);
        loss += weight * softplus(-x);
        let slope = -weight * sigmoid(-x);
        gradient[i] += slope;
        gradient[j] -= slope;
    }
    loss
}

fn softmax(logits: &[f32], labels: &[f32], gradient: &mut [f64]) -> f64 {
    let sum: f64 = labels.iter().map(|&label| f64::from(label.max(0.0))).sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let given = log_softmax(logits);
    let mut loss = 0.0;
    for i in 0..logits.len() {
        let wanted = f64::from(labels[i].max(0.0)) / sum;
        loss -= wanted * given[i];
        gradient[i] += given[i].exp() - wanted;
    }
    loss
}

/// Source: arXiv 2010.02666. The mean over all pairs.
fn margin_mse(logits: &[f32], labels: &[f32], gradient: &mut [f64]) -> f64 {
    let n = logits.len();
    let pairs = (n * n.saturating_sub(1) / 2).max(1) as f64;
    let mut loss = 0.0;
    for i in 0..n {
        for j in 0..i {
            let error = f64::from(logits[i] - logits[j]) - f64::from(labels[i] - labels[j]);
            loss += error * error / pairs;
            gradient[i] += 2.0 * error / pairs;
            gradient[j] -= 2.0 * error / pairs;
        }
    }
    loss
}

fn kl(logits: &[f32], labels: &[f32], gradient: &mut [f64]) -> f64 {
    let (wanted, given) = (log_softmax(labels), log_softmax(logits));
    let mut loss = 0.0;
    for i in 0..logits.len() {
        loss += wanted[i].exp() * (wanted[i] - given[i]);
        gradient[i] += given[i].exp() - wanted[i].exp();
    }
    loss
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let mut random = Random::new(3);
        for kind in LOSSES {
            let loss: Loss = kind.name.parse().unwrap();
            for length in [1, 2, 5, 9] {
                let logits: Vec<f32> = (0..length).map(|_| 2.0 * random.normal() as f32).collect();
                let labels: Vec<f32> = (0..length).map(|i| (i % 4) as f32).collect();
                let probabilities = (0..length).map(|_| random.uniform() as f32).collect();
                let wanted = Wanted { labels, probabilities };
                let (_, gradient) = loss.compute(&logits, &wanted);
                for i in 0..length {
                    // Small enough that no rank changes.
                    let at = |h: f32| {
                        let mut logits = logits.clone();
                        logits[i] += h;
                        loss.compute(&logits, &wanted).0
                    };
                    let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
                    assert!(
                        (slope - f64::from(gradient[i])).abs() < 2e-3,
                        "{} {slope} {gradient:?}",
                        kind.name
                    );
                }
            }
        }
    }

    #[test]
    fn values_are_those_of_the_definitions() {
        let compute = |name: &str, labels: &[f32], logits: &[f32]| {
            let wanted = Wanted { labels: labels.to_vec(), probabilities: labels.to_vec() };
            name.parse::<Loss>().unwrap().compute(logits, &wanted).0
        };
        assert!((compute("mse", &[1.0, 0.0], &[3.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!((compute("bce", &[1.0, 0.0], &[0.0, 0.0]) - 2_f64.ln()).abs() < 1e-9);
        assert!((compute("ranknet", &[1.0, 0.0], &[0.0, 0.0]) - 2_f64.ln()).abs() < 1e-9);
        assert!((compute("softmax", &[1.0, 0.0], &[0.0, 0.0]) - 2_f64.ln()).abs() < 1e-9);
        assert!((compute("margin_mse", &[1.0, 0.0], &[3.0, 1.0]) - 1.0).abs() < 1e-9);
        assert!(compute("kl", &[1.0, 0.0], &[4.0, 3.0]).abs() < 1e-9);
        // Two documents: the better one gains 1 of 1 at rank 1; the pair weighs 1/log2(2) - 1/log2(3).
        let wanted = 1.0 - 1.0 / 3_f64.log2();
        assert!((compute("lambda", &[1.0, 0.0], &[0.0, 0.0]) - wanted).abs() < 1e-9);
        assert!((compute("mse+0.5*bce", &[1.0, 0.0], &[0.0, 0.0]) - 0.5 - 0.5 * 2_f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_loss_is_refused() {
        for text in ["", "mse+", "-1*mse", "mse*2", "hinge"] {
            assert!(text.parse::<Loss>().is_err(), "{text:?}");
        }
    }
}
