//! Calibration: what a logit means as a probability. Fitted by `jointly calibrate`, stored as `calibration.json` beside the
//! model, and used by every interface; rankings go by the logit in any case.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::packed_cache::kept_identity;
use crate::receipt::identity;

/// The name of the calibration in a model folder.
pub const FILE: &str = "calibration.json";

const FORMAT: u32 = 1;
/// An isotonic map of a million steps has some 50 MB.
const MAX_BYTES: u64 = 64 << 20;

/// The map from a logit to a probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ProbabilityMap {
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
        /// Logit and probability; logits rise, probabilities do not fall.
        points: Vec<(f64, f64)>,
    },
    /// `sigmoid(a * ln p - b * ln(1 - p) + c)`, where `p` is `sigmoid(logit)`.
    Beta {
        /// The slope for logits far below 0; 0 at least.
        a: f64,
        /// The slope for logits far above 0; 0 at least.
        b: f64,
        /// The shift.
        c: f64,
    },
}

/// What `calibration.json` holds that scoring needs; whoever wrote it may have put more there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The version of this form.
    pub format: u32,
    /// The [`identity`] of the model whose logits it was fitted on.
    pub model: String,
    /// The map.
    pub map: ProbabilityMap,
}

impl ProbabilityMap {
    /// The probability of a logit. Computed in f64 and rounded once.
    #[must_use]
    pub fn apply(&self, logit: f32) -> f32 {
        let logit = f64::from(logit);
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
        let probability = match self {
            Self::Platt { a, b } => sigmoid(a * logit + b),
            Self::Temperature { t } => sigmoid(logit / t),
            Self::Isotonic { points } => {
                let above = points.partition_point(|(x, _)| *x < logit);
                match (above.checked_sub(1).map(|below| points[below]), points.get(above)) {
                    (Some((x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * ((logit - x0) / (x1 - x0)),
                    (None, Some(&(_, y))) | (Some((_, y)), None) => y,
                    (None, None) => f64::NAN,
                }
            }
            Self::Beta { a, b, c } => sigmoid(a * -softplus(-logit) + b * softplus(logit) + c),
        };
        probability as f32
    }

    /// What is wrong with its numbers, if anything is: a map is finite and never falls.
    fn problem(&self) -> Option<&'static str> {
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        let sound = match self {
            Self::Platt { a, b } => finite(&[*a, *b]) && *a > 0.0,
            Self::Temperature { t } => finite(&[*t]) && *t > 0.0,
            Self::Isotonic { points } => {
                !points.is_empty()
                    && points.iter().all(|(x, y)| x.is_finite() && (0.0..=1.0).contains(y))
                    && points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1)
            }
            Self::Beta { a, b, c } => finite(&[*a, *b, *c]) && *a >= 0.0 && *b >= 0.0,
        };
        (!sound)
            .then_some("its map is not one that rises with the logit; fit it again with `jointly calibrate`")
    }
}

impl Calibration {
    /// For the model of these files.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn new(files: &ModelFiles, map: ProbabilityMap) -> Result<Self> {
        Ok(Self { format: FORMAT, model: identity(files)?, map })
    }

    /// Reads the calibration that lies beside a model, if one does, and refuses that of another model. In the folder `cache`
    /// the hash of the model's files is kept, so that the weights are not read for it at every start.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Calibration`], and those of reading the files.
    pub fn beside(files: &ModelFiles, cache: Option<&Path>) -> Result<Option<Self>> {
        if !files.exists(FILE) {
            return Ok(None);
        }
        let found = Self::parse(&files.read(FILE)?, files.name_of(FILE))?;
        // What is compiled in belongs together: a test has seen it, and no start of the program hashes all weights.
        if !matches!(files, ModelFiles::Memory { .. }) {
            found.fits(files.name_of(FILE), files, cache)?;
        }
        Ok(Some(found))
    }

    /// Reads a calibration from a file, and refuses that of another model than `files`.
    ///
    /// # Errors
    /// As [`Calibration::beside`]; [`Error::Io`].
    pub fn read(path: &Path, files: &ModelFiles, cache: Option<&Path>) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let size = fs::metadata(path).map_err(io)?.len();
        if size > MAX_BYTES {
            return Err(Error::FileTooLarge { file: path.display().to_string(), size, limit: MAX_BYTES });
        }
        let found = Self::parse(&fs::read(path).map_err(io)?, path.display().to_string())?;
        found.fits(path.display().to_string(), files, cache)?;
        Ok(found)
    }

    fn parse(bytes: &[u8], file: String) -> Result<Self> {
        let found: Self = match serde_json::from_slice(bytes) {
            Ok(found) => found,
            Err(source) => return Err(Error::Json { file, source }),
        };
        let problem = if found.format != FORMAT {
            format!("format {}; this program reads {FORMAT}", found.format)
        } else if let Some(problem) = found.map.problem() {
            problem.to_string()
        } else {
            return Ok(found);
        };
        Err(Error::Calibration { file, problem })
    }

    fn fits(&self, file: String, files: &ModelFiles, cache: Option<&Path>) -> Result<()> {
        if self.model == kept_identity(files, cache)? {
            return Ok(());
        }
        let model = files.describe();
        let problem = format!(
            "it was fitted on another model than {model}; fit one for this model with `jointly calibrate`"
        );
        Err(Error::Calibration { file, problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "default-model")]
    #[test]
    fn the_calibration_that_is_compiled_in_is_the_default_models() {
        let files = crate::embedded::files();
        let found = Calibration::beside(&files, None).unwrap().unwrap();
        assert_eq!(found.model, identity(&files).unwrap());
    }

    #[test]
    fn maps_by_hand() {
        let points = vec![(-1.0, 0.1), (1.0, 0.5), (2.0, 0.5)];
        for (map, logit, expected) in [
            (ProbabilityMap::Platt { a: 2.0, b: -1.0 }, 0.5, 0.5),
            (ProbabilityMap::Temperature { t: 2.0 }, 2.0, 1.0 / (1.0 + (-1.0_f64).exp())),
            (ProbabilityMap::Isotonic { points: points.clone() }, 0.0, 0.3),
            (ProbabilityMap::Isotonic { points: points.clone() }, -9.0, 0.1),
            (ProbabilityMap::Isotonic { points }, 9.0, 0.5),
            // With both slopes 1 the two logarithms are the logit again.
            (ProbabilityMap::Beta { a: 1.0, b: 1.0, c: 0.0 }, 0.7, 1.0 / (1.0 + (-0.7_f64).exp())),
        ] {
            assert!(map.problem().is_none());
            assert!((f64::from(map.apply(logit)) - expected).abs() < 1e-6, "{map:?} at {logit}");
        }
    }

    #[test]
    fn maps_that_fall_or_are_no_numbers_are_refused() {
        for map in [
            ProbabilityMap::Platt { a: -1.0, b: 0.0 },
            ProbabilityMap::Platt { a: 1.0, b: f64::NAN },
            ProbabilityMap::Temperature { t: 0.0 },
            ProbabilityMap::Isotonic { points: vec![] },
            ProbabilityMap::Isotonic { points: vec![(0.0, 0.5), (1.0, 0.4)] },
            ProbabilityMap::Isotonic { points: vec![(0.0, 0.5), (0.0, 0.6)] },
            ProbabilityMap::Isotonic { points: vec![(0.0, 1.5)] },
            ProbabilityMap::Beta { a: -0.1, b: 1.0, c: 0.0 },
        ] {
            assert!(map.problem().is_some(), "{map:?}");
        }
    }
}
