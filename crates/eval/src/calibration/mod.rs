//! What a score means: maps from a raw logit to the probability that the document is relevant, fitted on labelled pairs.
//!
//! Fit on one part of the queries, look at another: [`split_queries`] divides by query, for the pairs of one query are
//! alike. [`choose`] takes the method with the lowest cross-validated log loss. [`Report`] says how good probabilities
//! are, [`threshold`] from which score on a target precision holds, and [`Histogram`] whether live scores still look like
//! those that a map was fitted on. Every map rises or stays level with the logit, so it changes no order; isotonic
//! regression makes ties, which is one more reason to sort on the logit.
//!
//! ```
//! use jointly_eval::calibration::{Example, Method};
//!
//! let examples: Vec<Example> =
//!     (0..100).map(|i| Example { logit: f64::from(i) / 10.0 - 5.0, relevant: i % 10 < i / 10 }).collect();
//! let map = Method::Platt.fit(&examples)?;
//! assert!(map.apply(5.0) > 0.8 && map.apply(-5.0) < 0.2);
//! # Ok::<(), jointly_eval::Error>(())
//! ```

mod beta;
mod drift;
mod isotonic;
mod logistic;
mod platt;
mod report;
mod split;
mod temperature;
mod threshold;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use drift::{Drift, FEWEST_SCORES, Histogram};
pub use report::{Bin, Brier, Reliability, Report, wilson};
pub use split::{Split, split_queries};
pub use threshold::{Threshold, kept_from, threshold};

/// A labelled pair: what the model gave it, and whether it is relevant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example {
    /// The raw score. Finite.
    pub logit: f64,
    /// Whether the document was judged to be relevant.
    pub relevant: bool,
}

/// A kind of map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// A slope and a shift: Platt's.
    Platt,
    /// A slope alone.
    Temperature,
    /// Any steps that rise.
    Isotonic,
    /// A slope for either sign, and a shift.
    Beta,
}

/// A fitted map. Its JSON form is the one that `calibration.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Map {
    /// `sigmoid(a * logit + b)`.
    Platt {
        /// The slope, above 0.
        a: f64,
        /// The shift.
        b: f64,
    },
    /// `sigmoid(logit / t)`.
    Temperature {
        /// The temperature, above 0.
        t: f64,
    },
    /// A line through points, level before the first and after the last.
    Isotonic {
        /// Logit and probability, both rising; at least one.
        points: Vec<(f64, f64)>,
    },
    /// `sigmoid(a * ln p - b * ln(1 - p) + c)`, where `p` is `sigmoid(logit)`.
    Beta {
        /// The slope for scores far below 0; 0 at least.
        a: f64,
        /// The slope for scores far above 0; 0 at least.
        b: f64,
        /// The shift.
        c: f64,
    },
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Platt, Self::Temperature, Self::Isotonic, Self::Beta];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Platt => "platt",
            Self::Temperature => "temperature",
            Self::Isotonic => "isotonic",
            Self::Beta => "beta",
        }
    }

    /// Fits the map to labelled pairs. Labels are softened as Platt did, to `(n+ + 1) / (n+ + 2)` and `1 / (n- + 2)`; so
    /// there is always a best map, also where a score separates the two kinds, and none says 0 or 1.
    ///
    /// # Errors
    /// [`Error::Calibration`] for a score that is not finite, for pairs that are all relevant or all not, and for scores
    /// that do not rise with relevance.
    pub fn fit(self, examples: &[Example]) -> Result<Map> {
        let fault = |problem: String| Error::Calibration { method: self.name(), problem };
        if let Some(example) = examples.iter().find(|example| !example.logit.is_finite()) {
            return Err(fault(format!("a score is {}; a score is a finite number", example.logit)));
        }
        let relevant = examples.iter().filter(|example| example.relevant).count();
        let others = examples.len() - relevant;
        if relevant == 0 || others == 0 {
            let problem = format!(
                "{relevant} relevant pairs and {others} others; both kinds are needed to tell them apart"
            );
            return Err(fault(problem));
        }
        let fitted = match self {
            Self::Platt => platt::fit(examples),
            Self::Temperature => temperature::fit(examples),
            Self::Isotonic => isotonic::fit(examples),
            Self::Beta => beta::fit(examples),
        };
        fitted.ok_or_else(|| {
            let problem = "higher scores do not go with relevance here: are the labels those of these pairs?";
            let hint =
                " Or the scores lie on one side of 0: platt and beta can shift them, a temperature cannot.";
            fault(format!("{problem}{}", if self == Self::Temperature { hint } else { "" }))
        })
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Map {
    /// Which kind it is.
    pub fn method(&self) -> Method {
        match self {
            Self::Platt { .. } => Method::Platt,
            Self::Temperature { .. } => Method::Temperature,
            Self::Isotonic { .. } => Method::Isotonic,
            Self::Beta { .. } => Method::Beta,
        }
    }

    /// The probability that a document with this logit is relevant.
    pub fn apply(&self, logit: f64) -> f64 {
        match self {
            Self::Platt { a, b } => sigmoid(a * logit + b),
            Self::Temperature { t } => sigmoid(logit / t),
            Self::Isotonic { points } => isotonic::interpolate(points, logit),
            Self::Beta { a, b, c } => {
                let [low, high] = beta::sides(logit);
                sigmoid(a * low + b * high + c)
            }
        }
    }
}

impl std::fmt::Display for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Platt { a, b } => write!(f, "sigmoid({a:.4} logit {b:+.4})"),
            Self::Temperature { t } => write!(f, "sigmoid(logit / {t:.4})"),
            Self::Isotonic { points } => write!(f, "a line through {} points", points.len()),
            Self::Beta { a, b, c } => {
                write!(f, "sigmoid({a:.4} ln p - {b:.4} ln(1 - p) {c:+.4}), p = sigmoid(logit)")
            }
        }
    }
}

/// The mean log loss of each method when its map is fitted on four fifths of the queries and used on the last, five times
/// over; and the best of them. A method that cannot be fitted on a part has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The method with the lowest log loss, the first of equals.
    pub method: Method,
    /// The cross-validated log loss of each.
    pub log_loss: Vec<(Method, Option<f64>)>,
}

/// Chooses a method by cross-validation over the queries: `queries[i]` is the query of `examples[i]`.
///
/// # Errors
/// [`Error::Calibration`] for fewer than two queries, or if no method can be fitted.
pub fn choose(queries: &[&str], examples: &[Example], seed: u64) -> Result<Choice> {
    const FOLDS: usize = 5;
    let fold_of = split::folds(queries, FOLDS, seed);
    let folds = fold_of.iter().max().map_or(0, |last| last + 1);
    if folds < 2 {
        let problem = "there is one query alone; name a method, or give more queries".to_string();
        return Err(Error::Calibration { method: "cross-validation", problem });
    }
    let mut failed = None;
    let mut log_loss = Vec::new();
    for method in Method::ALL {
        let mut losses = Vec::with_capacity(examples.len());
        for fold in 0..folds {
            let outside: Vec<Example> =
                examples.iter().zip(&fold_of).filter(|(_, of)| **of != fold).map(|(e, _)| *e).collect();
            match method.fit(&outside) {
                Ok(map) => {
                    losses.extend(
                        examples.iter().zip(&fold_of).filter(|(_, of)| **of == fold).map(|(example, _)| {
                            report::log_loss_of(map.apply(example.logit), example.relevant)
                        }),
                    )
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let whole = losses.len() == examples.len();
        log_loss.push((method, whole.then(|| crate::data::mean(losses.into_iter()))));
    }
    let best = log_loss.iter().filter_map(|(method, loss)| Some((*method, (*loss)?)));
    match (best.min_by(|a, b| a.1.total_cmp(&b.1)), failed) {
        (Some((method, _)), _) => Ok(Choice { method, log_loss }),
        (None, Some(error)) => Err(error),
        (None, None) => {
            Err(Error::Calibration { method: "cross-validation", problem: "there is no example".into() })
        }
    }
}

/// `1 / (1 + exp(-z))`.
fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// `ln(1 + exp(z))`, without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// What the two kinds of label are softened to: relevant, not.
fn targets(examples: &[Example]) -> (f64, f64) {
    let relevant = examples.iter().filter(|example| example.relevant).count() as f64;
    let others = examples.len() as f64 - relevant;
    ((relevant + 1.0) / (relevant + 2.0), 1.0 / (others + 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(relevant: &[f64], others: &[f64]) -> Vec<Example> {
        let of = |logits: &[f64], relevant| {
            logits.iter().map(|&logit| Example { logit, relevant }).collect::<Vec<_>>()
        };
        [of(relevant, true), of(others, false)].concat()
    }

    #[test]
    fn separable_scores_have_a_map() {
        let examples = examples(&[3.0, 4.0, 5.0], &[-1.0, -2.0, 0.5]);
        for method in Method::ALL {
            let map = method.fit(&examples).unwrap();
            assert!(map.apply(4.0) > map.apply(-1.5), "{map}");
            for logit in [-1e30, -50.0, 0.0, 50.0, 1e30] {
                assert!((0.0..=1.0).contains(&map.apply(logit)), "{map} at {logit}");
            }
        }
    }

    #[test]
    fn every_map_rises() {
        let mut rng = crate::significance::rng::Rng::new(3);
        let all: Vec<Example> = (0..300)
            .map(|_| {
                let logit = rng.below(1000) as f64 / 100.0 - 5.0;
                Example { logit, relevant: (rng.below(1000) as f64) < 1000.0 * sigmoid(0.7 * logit - 1.0) }
            })
            .collect();
        for method in Method::ALL {
            let map = method.fit(&all).unwrap();
            let values: Vec<f64> = (-100..100).map(|i| map.apply(f64::from(i) / 10.0)).collect();
            assert!(values.is_sorted(), "{map}");
            let text = serde_json::to_string(&map).unwrap();
            assert_eq!(serde_json::from_str::<Map>(&text).unwrap(), map);
        }
    }

    #[test]
    fn what_cannot_be_fitted_says_why() {
        for method in Method::ALL {
            let error = |examples: &[Example]| method.fit(examples).unwrap_err().to_string();
            assert!(error(&[]).contains("0 relevant pairs and 0 others"));
            assert!(error(&examples(&[1.0, 2.0], &[])).contains("2 relevant pairs and 0 others"));
            assert!(error(&examples(&[1.0], &[f64::NAN])).contains("NaN"));
            let reversed = examples(&[-3.0, -2.0, -1.0], &[1.0, 2.0, 3.0]);
            assert!(error(&reversed).contains("do not go with relevance"), "{method}");
        }
        let tied = examples(&[1.0; 3], &[1.0; 5]);
        assert!(Method::Platt.fit(&tied).is_err(), "no slope can be learnt from one score");
    }

    #[test]
    fn the_kind_of_map_that_the_data_have_is_chosen() {
        let mut rng = crate::significance::rng::Rng::new(5);
        let (mut queries, mut all) = (Vec::new(), Vec::new());
        for i in 0..4000 {
            let logit = rng.below(1000) as f64 / 100.0 - 5.0;
            let relevant = (rng.below(100_000) as f64) < 100_000.0 * sigmoid(0.5 * logit - 2.0);
            queries.push(format!("q{}", i / 20));
            all.push(Example { logit, relevant });
        }
        let names: Vec<&str> = queries.iter().map(String::as_str).collect();
        let choice = choose(&names, &all, 1).unwrap();
        let loss = |method| choice.log_loss.iter().find(|(m, _)| *m == method).unwrap().1.unwrap();
        assert!(matches!(choice.method, Method::Platt | Method::Beta), "{choice:?}");
        assert!(loss(Method::Temperature) > loss(Method::Platt) + 0.05, "{choice:?}");
        assert_eq!(choice, choose(&names, &all, 1).unwrap());
        assert!(choose(&["q"; 4000], &all, 1).is_err());
    }
}
