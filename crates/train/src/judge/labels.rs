//! What people said, as a judge among others.

use std::collections::HashMap;

use super::{Ballot, Halt, Judge, Ledger, Question, Result, short_hash};

/// The labels of a pool: the document with the higher one wins. It abstains where one has none, or both have the same: of two
/// documents that nobody compared, equal labels say nothing.
pub struct LabelJudge {
    name: String,
    /// By query and document.
    labels: HashMap<(String, String), i64>,
}

impl LabelJudge {
    /// Over labels by query and document.
    pub fn new(name: impl Into<String>, labels: HashMap<(String, String), i64>) -> Self {
        Self { name: name.into(), labels }
    }
}

impl Judge for LabelJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> String {
        // The labels too: votes of labels that have changed since are other votes.
        let mut labels: Vec<_> = self.labels.iter().map(|(ids, label)| (ids, label.to_string())).collect();
        labels.sort_unstable();
        let parts = labels.iter().flat_map(|((query, document), label)| [query, document, label]);
        short_hash(&["labels"].into_iter().chain(parts.map(String::as_str)).collect::<Vec<_>>(), 12)
    }

    fn reads_in_order(&self) -> bool {
        false
    }

    fn appetite(&self) -> (usize, usize) {
        (256, 1)
    }

    fn ask(&self, questions: &[Question<'_>], _: &Ledger, _: &Halt<'_>) -> Result<Vec<Ballot>> {
        let label = |query: &String, document: &String| self.labels.get(&(query.clone(), document.clone()));
        let ballot = |question: &Question<'_>| {
            let ids = question.ids;
            let a = label(&ids.query, &ids.a);
            let b = label(ids.query_b.as_ref().unwrap_or(&ids.query), &ids.b);
            match (a, b) {
                (Some(a), Some(b)) if a != b => {
                    Ballot { vote: Some(if b > a { 1.0 } else { 0.0 }), ..Ballot::default() }
                }
                (Some(_), Some(_)) => Ballot::abstain("both have the same label"),
                _ => Ballot::abstain("no label"),
            }
        };
        Ok(questions.iter().map(ballot).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{Budget, Pair, Side, Usage};

    #[test]
    fn the_higher_label_wins_and_all_else_abstains() {
        let labels = [("q", "a", 0), ("q", "b", 1), ("q", "c", 1), ("r", "d", 0)]
            .map(|(query, document, label)| ((query.to_string(), document.to_string()), label));
        let judge = LabelJudge::new("people", HashMap::from(labels));
        let vote = |a: &str, query_b: Option<&str>, b: &str| {
            let query_b = query_b.map(String::from);
            let ids = Pair { query: "q".into(), a: a.into(), query_b, b: b.into() };
            let side = Side { query: "", document: "" };
            let question = Question { ids: &ids, a: side, b: side, swapped: false };
            let ballots = judge.ask(
                &[question],
                &Ledger::new(Budget::default(), Usage::default()),
                &Halt::new(&std::sync::atomic::AtomicBool::new(false)),
            );
            ballots.map(|ballots| ballots[0].vote).unwrap_or_default()
        };
        assert_eq!(vote("a", None, "b"), Some(1.0));
        assert_eq!(vote("b", None, "a"), Some(0.0));
        assert_eq!(vote("b", None, "c"), None);
        assert_eq!(vote("a", None, "unknown"), None);
        assert_eq!(vote("b", Some("r"), "d"), Some(0.0));

        let of = |label| LabelJudge::new("x", HashMap::from([(("q".into(), "a".into()), label)])).settings();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(judge.settings(), judge.settings());
    }
}
