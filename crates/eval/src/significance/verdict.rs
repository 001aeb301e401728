use std::fmt;

use serde::Serialize;

/// What a comparison comes to. "No difference" and "too few queries to tell" are different answers, and both are
/// different from a difference too small to matter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The candidate is better than the baseline, and that is more than luck.
    Better {
        /// The margin, if the gain was shown to be smaller than it.
        within: Option<f64>,
    },
    /// The candidate is worse than the baseline, and that is more than luck.
    Worse {
        /// The margin, if the loss was shown to be smaller than it.
        within: Option<f64>,
    },
    /// The difference was shown to be smaller than the margin.
    Equivalent {
        /// The margin.
        within: f64,
    },
    /// Neither a difference nor its absence could be shown.
    TooFewQueries {
        /// How many queries there are.
        queries: usize,
        /// The smallest difference that so many queries can be expected to find.
        detectable: f64,
        /// About how many would settle it, if the difference is what it seems to be.
        needed: Option<usize>,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let difference = |f: &mut fmt::Formatter<'_>, word: &str, within: Option<f64>| match within {
            Some(margin) => write!(f, "{word}, but by less than {margin}"),
            None => f.write_str(word),
        };
        match *self {
            Self::Better { within } => difference(f, "better", within),
            Self::Worse { within } => difference(f, "worse", within),
            Self::Equivalent { within } => write!(f, "no difference (equivalent within {within})"),
            Self::TooFewQueries { queries, detectable, needed } => {
                write!(f, "too few queries to tell ({queries} can find a difference of {detectable:.4}")?;
                match needed {
                    Some(needed) => write!(f, "; about {needed} would settle it)"),
                    None => f.write_str(")"),
                }
            }
        }
    }
}
