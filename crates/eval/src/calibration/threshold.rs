use serde::Serialize;

use super::{Example, wilson};
use crate::significance::Interval;

/// What is kept from a logit on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Threshold {
    /// The lowest logit that is kept.
    pub logit: f64,
    /// How many pairs are kept.
    pub kept: usize,
    /// The share of them that is relevant.
    pub precision: f64,
    /// Wilson's interval of the precision, at 95 %.
    pub interval: Interval,
    /// The share of all relevant pairs that is kept.
    pub recall: f64,
}

/// The threshold that keeps most and still has the precision asked for; none if no threshold has it. Pairs of one logit
/// are kept or dropped together.
pub fn threshold(examples: &[Example], precision: f64) -> Option<Threshold> {
    let mut sorted: Vec<&Example> = examples.iter().collect();
    sorted.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    let (mut kept, mut relevant, mut lowest) = (0, 0, None);
    for tied in sorted.chunk_by(|a, b| a.logit == b.logit) {
        kept += tied.len();
        relevant += tied.iter().filter(|example| example.relevant).count();
        if relevant as f64 >= precision * kept as f64 {
            lowest = tied.first().map(|example| example.logit);
        }
    }
    lowest.map(|logit| kept_from(examples, logit))
}

/// What a threshold keeps of these pairs. The precision of nothing is 0, and so is its recall.
pub fn kept_from(examples: &[Example], logit: f64) -> Threshold {
    let all = examples.iter().filter(|example| example.relevant).count();
    let kept = examples.iter().filter(|example| example.logit >= logit).count();
    let relevant = examples.iter().filter(|example| example.logit >= logit && example.relevant).count();
    let share = |part: usize, of: usize| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    Threshold {
        logit,
        kept,
        precision: share(relevant, kept),
        interval: wilson(relevant, kept),
        recall: share(relevant, all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_threshold_that_holds() {
        let examples: Vec<Example> = [(5.0, 1), (4.0, 0), (3.0, 1), (3.0, 1), (2.0, 0), (1.0, 1), (0.0, 0)]
            .map(|(logit, label)| Example { logit, relevant: label == 1 })
            .to_vec();
        let found = threshold(&examples, 0.75).unwrap();
        assert_eq!((found.logit, found.kept, found.precision, found.recall), (3.0, 4, 0.75, 0.75));
        assert_eq!(threshold(&examples, 1.0).unwrap().logit, 5.0);
        assert_eq!(threshold(&examples, 0.1).unwrap().recall, 1.0);
        assert_eq!(threshold(&examples[1..2], 0.5), None);
        assert_eq!(kept_from(&examples, 9.0).precision, 0.0);
    }
}
