//! What a score means on its authors' scale.

use std::ops::Range;

use crate::error::Result;
use crate::files::ModelFiles;
use crate::model::config::Config;
use crate::text::is_zerank;

/// What the numbers of a scorer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ScoreScale {
    /// Any real number; differences mean something, the value itself does not.
    Logit,
    /// Between 0 and 1.
    Probability,
    /// Only the order means something.
    Ordinal,
}

/// The score of one pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// What the head gave, in full precision. Sort on this: a sigmoid saturates and makes false ties.
    pub logit: f32,
    /// The score as the model's authors give it.
    pub score: f32,
    /// The probability that the document is relevant, if the model has a [calibration](crate::calibration).
    pub probability: Option<f32>,
    /// The number of tokens read, over all windows.
    pub tokens: usize,
    /// Whether any of the query or the document was left unread.
    pub truncated: bool,
    /// The number of windows that the document was read in.
    pub windows: usize,
    /// The part of the document that scored best, in Unicode code points, half-open. Only with windows.
    pub span: Option<Range<usize>>,
}

/// The map from a logit to the score that the model's authors publish.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ScoreMap {
    /// The logit itself.
    Identity,
    /// `1 / (1 + exp(-logit))`.
    Sigmoid,
    /// `1 / (1 + exp(-logit / divisor))`: zerank's, with divisor 5.
    ScaledSigmoid {
        /// What the logit is divided by.
        divisor: f32,
    },
}

impl ScoreMap {
    /// The score of a logit. Computed in f64 and rounded once.
    #[must_use]
    pub fn apply(self, logit: f32) -> f32 {
        let sigmoid = |z: f64| (1.0 / (1.0 + (-z).exp())) as f32;
        match self {
            Self::Identity => logit,
            Self::Sigmoid => sigmoid(f64::from(logit)),
            Self::ScaledSigmoid { divisor } => sigmoid(f64::from(logit) / f64::from(divisor)),
        }
    }

    /// What the mapped score is.
    #[must_use]
    pub fn scale(self) -> ScoreScale {
        match self {
            Self::Identity => ScoreScale::Logit,
            Self::Sigmoid | Self::ScaledSigmoid { .. } => ScoreScale::Probability,
        }
    }

    /// As a formula, for `jointly inspect`.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Identity => "logit".to_string(),
            Self::Sigmoid => "sigmoid(logit)".to_string(),
            Self::ScaledSigmoid { divisor } => format!("sigmoid(logit / {divisor})"),
        }
    }

    /// From the model folder: zerank's own map, else the activation that the folder states, else a sigmoid, which is
    /// what sentence-transformers applies to one label when nothing is stated.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for an activation that is not implemented.
    pub(crate) fn read(files: &ModelFiles, config: &Config) -> Result<Self> {
        if is_zerank(files, config.value())? {
            return Ok(Self::ScaledSigmoid { divisor: 5.0 });
        }
        let own = "config_sentence_transformers.json";
        if files.exists(own) {
            let own = Config::read(files, own)?;
            if own.get("activation_fn").is_some() {
                return Self::parse(&own, "activation_fn", own.text_or("activation_fn", "")?);
            }
        }
        let field = "sentence_transformers.activation_fn";
        if let Some(class) = config.get("sentence_transformers").and_then(|value| value.get("activation_fn"))
        {
            return Self::parse(config, field, class.as_str().unwrap_or(""));
        }
        let old = "sbert_ce_default_activation_function";
        if config.get(old).is_some() {
            return Self::parse(config, old, config.text_or(old, "")?);
        }
        Ok(Self::Sigmoid)
    }

    fn parse(config: &Config, field: &str, class: &str) -> Result<Self> {
        match class.rsplit('.').next() {
            Some("Identity") => Ok(Self::Identity),
            Some("Sigmoid") => Ok(Self::Sigmoid),
            _ => Err(config.error(field, format!("{class:?} is neither Identity nor Sigmoid"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_give_the_published_values() {
        // The zerank-2 card: z = 5.4062 and -4.5, divided by 5.
        let zerank = ScoreMap::ScaledSigmoid { divisor: 5.0 };
        assert!((zerank.apply(5.4062) - 0.7467).abs() < 5e-5);
        assert!((zerank.apply(-4.5) - 0.2891).abs() < 5e-5);
        assert_eq!(ScoreMap::Identity.apply(-3.25), -3.25);
        assert_eq!(ScoreMap::Sigmoid.apply(0.0), 0.5);
        assert_eq!(ScoreMap::Sigmoid.apply(-200.0), (1.0 / (1.0 + 200.0_f64.exp())) as f32);
        assert_eq!(ScoreMap::Sigmoid.apply(f32::MAX), 1.0);
        assert!(ScoreMap::Sigmoid.apply(f32::NAN).is_nan());
    }
}
