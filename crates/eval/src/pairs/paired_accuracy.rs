use std::collections::BTreeMap;

use crate::data::PerQuery;

/// The four scores of a contrast item: two queries that differ in what they ask (by a negation, a number, a sense) and
/// two documents, of which the first answers the first query and the second the second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContrastScores {
    /// First query: the score of its own document, and of the other one.
    pub first: (f64, f64),
    /// Second query: the score of its own document, and of the other one.
    pub second: (f64, f64),
}

impl ContrastScores {
    /// Whether both queries rank their own document above the other one. Equal scores are wrong, and so is NaN: a ranker
    /// that cannot tell the documents apart has not understood the query.
    pub fn is_right(&self) -> bool {
        self.first.0 > self.first.1 && self.second.0 > self.second.1
    }
}

/// NevIR's paired accuracy: 1 for each item of which both queries are right, else 0; the mean is the accuracy. A ranker
/// that ignores the queries, or prefers one document whatever is asked, gets 0; chance is a quarter.
///
/// Source: Weller, Lawrie and Van Durme, "NevIR: Negation in neural information retrieval", EACL 2024.
pub fn paired_accuracy(items: &BTreeMap<String, ContrastScores>) -> PerQuery {
    items.iter().map(|(item, scores)| (item, f64::from(u8::from(scores.is_right())))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_queries_must_be_right() {
        let item = |first, second| ContrastScores { first, second };
        let items = BTreeMap::from([
            ("both".to_string(), item((2.0, 1.0), (0.5, 0.4))),
            ("one document always first".to_string(), item((2.0, 1.0), (1.0, 2.0))),
            ("a tie".to_string(), item((2.0, 1.0), (1.0, 1.0))),
            ("NaN".to_string(), item((f64::NAN, 1.0), (2.0, 1.0))),
        ]);
        let accuracy = paired_accuracy(&items);
        assert_eq!(accuracy.0["both"], 1.0);
        assert_eq!(accuracy.mean(), 0.25);
    }
}
