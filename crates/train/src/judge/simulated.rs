//! A judge that knows the truth and errs, as a judge among others: the whole way can be gone, journal, resumption and fit, before any
//! vote is paid for.

use super::{Ballot, Halt, Judge, Ledger, Question, Result, short_hash};
use crate::zelo::simulate::{self, SimulatedJudge, stated};

/// Reads the relevance that the document's text states, as those of `jointly zelo simulate` do; abstains where it states none.
impl Judge for SimulatedJudge {
    fn name(&self) -> &str {
        SimulatedJudge::name(self)
    }

    fn settings(&self) -> String {
        short_hash(&["simulated", &SimulatedJudge::settings(self)], 12)
    }

    fn reads_in_order(&self) -> bool {
        true
    }

    fn appetite(&self) -> (usize, usize) {
        (256, 1)
    }

    fn ask(&self, questions: &[Question<'_>], _: &Ledger, _: &Halt<'_>) -> Result<Vec<Ballot>> {
        let ballot = |question: &Question<'_>| {
            let ids = question.ids;
            let (Some(a), Some(b)) = (stated(question.a.document), stated(question.b.document)) else {
                return Ballot::abstain("a text states no relevance: it is none of `jointly zelo simulate`");
            };
            let words = [ids.query.as_str(), &ids.a, ids.query_b.as_deref().unwrap_or(""), &ids.b];
            let swapped = question.swapped;
            match self.vote(&simulate::Question { words: &words, a, b, swapped }) {
                Some(vote) => Ballot { vote: Some(vote), ..Ballot::default() },
                None => Ballot::abstain("it abstains now and then"),
            }
        };
        Ok(questions.iter().map(ballot).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::judge::{Budget, Pair, Side, Usage};

    #[test]
    fn it_votes_as_the_simulation_does_and_abstains_on_other_texts() {
        let ids = Pair { query: "q".into(), a: "a".into(), query_b: None, b: "b".into() };
        let ask = |judge: &SimulatedJudge, a: &str, b: &str, swapped: bool| {
            let side = |document| Side { query: "simulated", document };
            let (a, b) = (side(a), side(b));
            let stop = AtomicBool::new(false);
            let ledger = Ledger::new(Budget::default(), Usage::default());
            Judge::ask(judge, &[Question { ids: &ids, a, b, swapped }], &ledger, &Halt::new(&stop)).unwrap()
                [0]
            .clone()
        };
        let judge = SimulatedJudge::new("j", 7).bias(0.5);
        let (a, b) = (simulate::text(-0.25), simulate::text(1.5));
        for swapped in [false, true] {
            let words = ["q", "a", "", "b"];
            let wanted = judge.vote(&simulate::Question { words: &words, a: -0.25, b: 1.5, swapped });
            assert_eq!(ask(&judge, &a, &b, swapped).vote, wanted);
        }
        let other = ask(&judge, &a, "A real document.", false);
        assert!(other.vote.is_none() && other.reason.unwrap().contains("simulate"));
        assert!(ask(&judge.clone().abstains(1.0), &a, &b, false).vote.is_none());
        assert_eq!(stated("A simulated document of relevance inf"), None);
        assert_ne!(Judge::settings(&judge), Judge::settings(&judge.clone().hard()));
        assert_eq!(Judge::settings(&judge), Judge::settings(&SimulatedJudge::new("other", 7).bias(0.5)));
    }
}
