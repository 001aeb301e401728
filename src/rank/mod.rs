//! Rankings: documents in the order of their scores, and the stages of a [`Cascade`] that put them there.
//!
//! A [`Scorer`] gives scores: a cross-encoder does, and so does anything that stands for one. A [`Stage`] reads the
//! documents that the stage before it kept, and says which of them it keeps, best first. What a stage does not keep stays
//! below, in its former order: nothing is lost, nothing is doubled, and the cascade checks it, also for stages of your
//! own. A [`Budget`] ends a cascade early; the order reached so far is the answer, and says so.

mod batches;
mod budget;
mod cascade;
mod confirm;
mod diversity;
mod duo;
pub mod listwise;
mod rescore;
mod scorer;
mod similarity;
mod stage;
mod turns;

pub use budget::{Budget, Cancel, Meter, Spent, Stop};
pub use cascade::{Cascade, Outcome};
pub use confirm::{Confirm, Same};
pub use diversity::{Distinct, Dpp, Mmr, Xquad};
pub use duo::{Aggregate, Duo, DuoScorer, Preference, Preferred};
pub use rescore::{Blend, EarlyStop, Rescore};
pub use scorer::{CrossScorer, Scorer};
pub use similarity::{Alike, Embedded, Given, Looked, Shingles, Similarity};
pub use stage::{Applied, Asked, Context, Guarantee, Kept, Placed, Request, Stage, StageReport, SubQuery};
pub use turns::Turns;

use crate::score::Score;

/// Documents, best first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranking {
    /// One entry for each document kept, best first.
    pub hits: Vec<Hit>,
}

/// One document of a ranking.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its index among the documents given.
    pub index: usize,
    /// Its score.
    pub score: Score,
}

impl Ranking {
    /// Sorts on the logit, the largest first; ties keep the order given.
    #[must_use]
    pub fn from_scores(scores: Vec<Score>) -> Self {
        let mut hits: Vec<Hit> =
            scores.into_iter().enumerate().map(|(index, score)| Hit { index, score }).collect();
        hits.sort_by(|a, b| b.score.logit.total_cmp(&a.score.logit));
        Self { hits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_keep_the_order_given_and_saturated_scores_do_not_tie() {
        let score = |logit: f32| Score {
            logit,
            score: 1.0,
            probability: None,
            tokens: 1,
            truncated: false,
            windows: 1,
            span: None,
        };
        let ranking = Ranking::from_scores([40.0, 1.5, 41.0, 1.5, -0.0, 0.0].map(score).to_vec());
        let order: Vec<usize> = ranking.hits.iter().map(|hit| hit.index).collect();
        assert_eq!(order, [2, 0, 1, 3, 5, 4]);
    }
}
