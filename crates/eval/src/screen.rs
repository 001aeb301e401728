//! A cheap scorer as the screen of an exact one: how much slack the screen needs so that the first documents stay those of the
//! exact scorer, and what that costs.
//!
//! Documents are confirmed in the screen's order, until every one that is left lies `slack` below the n-th best confirmed score. For
//! one query, the slack that is needed is the largest `f(n) - s` over its true first n documents, where `f(n)` is the n-th best
//! exact score and `s` the document's in the screen. Of q queries, the k-th smallest need is enough for another query
//! like them with probability k / (q + 1) at least, whatever the scores are: the new need is equally likely to have any rank
//! among the q + 1.
//!
//! Where only the set of the first n matters, [`Same::Set`], documents within `slack` of the cut in the screen are confirmed, on both
//! sides of it; the need is the largest distance from the cut of a document on the wrong side.
//!
//! ```
//! use jointly_eval::audit::Scored;
//! use jointly_eval::screen::{Needs, Same};
//!
//! // The screen puts the second document first.
//! let query = Scored { query: "q".into(), reference: vec![3.0, 2.5, 1.0], candidate: vec![2.75, 2.875, 0.5] };
//! let queries = [query];
//! assert_eq!(Needs::new(&queries, 1, Same::Order).level(0.5).unwrap().slack, 0.25);
//! // The cut lies at 2.8125.
//! assert_eq!(Needs::new(&queries, 1, Same::Set).level(0.5).unwrap().slack, 0.0625);
//! ```

use serde::Serialize;

use crate::audit::{Scored, ranking};

/// Queries are put in so many parts: each is answered with the slack of the others.
const FOLDS: usize = 10;

/// Documents confirmed at a time, once the first n are: as in the cascade.
const BATCH: usize = 8;

/// What of the exact scorer's first documents is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// They and their order: all of them are confirmed.
    Order,
    /// They, in any order: only those near the cut are confirmed.
    Set,
}

impl Same {
    /// The slack that a query needs.
    fn need(self, query: &Scored, top_n: usize) -> f64 {
        match self {
            Self::Order => need_of_order(query, top_n),
            Self::Set => need_of_set(query, top_n),
        }
    }

    /// The places that are confirmed.
    fn confirmed(self, query: &Scored, limits: (usize, f64)) -> Vec<usize> {
        match self {
            Self::Order => first(query, limits),
            Self::Set => near(query, limits),
        }
    }

    /// Whether the exact first n are among those from which the answer takes its first n.
    fn holds(self, query: &Scored, (top_n, slack): (usize, f64)) -> bool {
        let found = match self {
            Self::Order => first(query, (top_n, slack)),
            Self::Set => chosen(query, (top_n, slack)),
        };
        ranking(&query.reference).iter().take(top_n).all(|place| found.contains(place))
    }
}

/// What every query needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs<'a> {
    queries: &'a [Scored],
    top_n: usize,
    same: Same,
    /// As the queries.
    needs: Vec<f64>,
}

/// A slack, and what it gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Level {
    /// How likely it is enough for another query like these, at least.
    pub confidence: f64,
    /// In logits.
    pub slack: f64,
    /// The share of the documents that are confirmed.
    pub confirmed: f64,
    /// The share of the queries whose first n stay the exact ones, each with the slack of queries that it is not among.
    pub same_top: f64,
}

impl<'a> Needs<'a> {
    /// Of queries whose `candidate` is the screen and `reference` the exact scorer.
    pub fn new(queries: &'a [Scored], top_n: usize, same: Same) -> Self {
        let needs = queries.iter().map(|query| same.need(query, top_n)).collect();
        Self { queries, top_n, same, needs }
    }

    /// The smallest slack that is enough with this probability; none if these are too few queries to say that.
    pub fn level(&self, confidence: f64) -> Option<Level> {
        let slack = enough(self.needs.clone(), confidence)?;
        Some(self.at(confidence, slack))
    }

    /// The largest slack that any of these queries needs.
    pub fn largest(&self) -> Option<Level> {
        let slack = self.needs.iter().copied().reduce(f64::max)?;
        let count = self.needs.len() as f64;
        Some(self.at(count / (count + 1.0), slack))
    }

    fn at(&self, confidence: f64, slack: f64) -> Level {
        let pairs: usize = self.queries.iter().map(|query| query.reference.len()).sum();
        let confirmed: usize =
            self.queries.iter().map(|query| self.same.confirmed(query, (self.top_n, slack)).len()).sum();
        let folds = FOLDS.min(self.queries.len()).max(1);
        let same = (0..self.queries.len()).filter(|&place| {
            let others = self.needs.iter().enumerate().filter(|(other, _)| other % folds != place % folds);
            let others: Vec<f64> = others.map(|(_, need)| *need).collect();
            let largest = others.iter().copied().reduce(f64::max).unwrap_or(0.0);
            let slack = enough(others, confidence).unwrap_or(largest);
            self.same.holds(&self.queries[place], (self.top_n, slack))
        });
        Level {
            confidence,
            slack,
            confirmed: confirmed as f64 / pairs.max(1) as f64,
            same_top: same.count() as f64 / self.queries.len().max(1) as f64,
        }
    }
}

/// The k-th smallest, so that k / (q + 1) reaches the confidence.
fn enough(mut needs: Vec<f64>, confidence: f64) -> Option<f64> {
    needs.sort_by(f64::total_cmp);
    // A product of decimal fractions may be a little too large.
    let k = (confidence * (needs.len() + 1) as f64 - 1e-9).ceil().max(1.0) as usize;
    needs.get(k - 1).copied()
}

fn need_of_order(query: &Scored, top_n: usize) -> f64 {
    let order = ranking(&query.reference);
    let head = &order[..order.len().min(top_n)];
    match head.last() {
        Some(&last) if order.len() > top_n => {
            let cut = query.reference[last];
            head.iter().map(|&place| cut - query.candidate[place]).fold(0.0, f64::max)
        }
        // All are confirmed in any case.
        _ => 0.0,
    }
}

fn need_of_set(query: &Scored, top_n: usize) -> f64 {
    let Some(cut) = cut(query, top_n) else { return 0.0 };
    let order = ranking(&query.reference);
    let (head, rest) = order.split_at(top_n);
    let inside = head.iter().map(|&place| cut - query.candidate[place]);
    let outside = rest.iter().map(|&place| query.candidate[place] - cut);
    inside.chain(outside).fold(0.0, f64::max)
}

/// Half way between the screen's n-th and its next, if there is one.
fn cut(query: &Scored, top_n: usize) -> Option<f64> {
    let order = ranking(&query.candidate);
    let next = query.candidate[*order.get(top_n)?];
    Some(order.get(top_n.wrapping_sub(1)).map_or(next, |&last| f64::midpoint(query.candidate[last], next)))
}

/// The places near the cut, which are confirmed.
fn near(query: &Scored, (top_n, slack): (usize, f64)) -> Vec<usize> {
    let Some(cut) = cut(query, top_n) else { return Vec::new() };
    (0..query.candidate.len()).filter(|&place| (query.candidate[place] - cut).abs() <= slack).collect()
}

/// What the screen places above those near the cut, and the best of these.
fn chosen(query: &Scored, (top_n, slack): (usize, f64)) -> Vec<usize> {
    let Some(cut) = cut(query, top_n) else { return (0..query.candidate.len()).collect() };
    let mut chosen: Vec<usize> =
        (0..query.candidate.len()).filter(|&place| query.candidate[place] - cut > slack).collect();
    let near = near(query, (top_n, slack));
    let exact: Vec<f64> = near.iter().map(|&place| query.reference[place]).collect();
    let open = top_n.saturating_sub(chosen.len());
    chosen.extend(ranking(&exact).into_iter().take(open).map(|place| near[place]));
    chosen
}

/// The places that are confirmed, so that the first n are known.
fn first(query: &Scored, (top_n, slack): (usize, f64)) -> Vec<usize> {
    let order = ranking(&query.candidate);
    let (mut done, mut cut, mut exact) = (0, f64::NEG_INFINITY, Vec::new());
    loop {
        let size = if done < top_n { top_n - done } else { BATCH };
        let more =
            order[done..].iter().take(size).take_while(|place| query.candidate[**place] + slack >= cut);
        let before = done;
        for &place in more {
            exact.push(query.reference[place]);
            done += 1;
        }
        if done == before {
            return order[..done].to_vec();
        }
        exact.sort_by(|a, b| b.total_cmp(a));
        cut = exact.get(top_n.max(1) - 1).copied().unwrap_or(f64::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(reference: &[f64], candidate: &[f64]) -> Scored {
        Scored { query: "q".into(), reference: reference.to_vec(), candidate: candidate.to_vec() }
    }

    #[test]
    fn what_is_needed_is_enough_and_a_little_less_is_not() {
        let query = query(&[5.0, 4.0, 3.0, 2.0, 1.0], &[4.0, 1.5, 3.5, 2.0, 2.5]);
        // The second document belongs to the first two, and has 1.5: the cut is 4.
        assert_eq!(need_of_order(&query, 2), 2.5);
        assert!(Same::Order.holds(&query, (2, 2.5)));
        // 4.0 and 3.5 are confirmed: the cut is 3. Then what has 2.5, 2 and 1.5 lies within 2, 1.5 or 0.5 of it.
        assert!(!Same::Order.holds(&query, (2, 0.5)));
        assert_eq!(first(&query, (2, 0.0)), [0, 2]);
        assert_eq!(first(&query, (2, 0.5)), [0, 2, 4]);
        assert_eq!(need_of_order(&query, 5), 0.0);
        assert_eq!(need_of_order(&query, 9), 0.0);
    }

    #[test]
    fn a_set_needs_only_what_lies_on_the_wrong_side() {
        let query = query(&[5.0, 4.0, 3.0, 2.0, 1.0], &[4.0, 1.5, 3.5, 2.0, 2.5]);
        // The cut is 3: the second document lies 1.5 below it, the third half above. 4.0 is confirmed though it need not be.
        assert_eq!(need_of_set(&query, 2), 1.5);
        assert_eq!(near(&query, (2, 1.5)), [0, 1, 2, 3, 4]);
        assert!(Same::Set.holds(&query, (2, 1.5)) && !Same::Set.holds(&query, (2, 1.25)));
        assert_eq!(chosen(&query, (2, 0.75)), [0, 2]);
        assert_eq!((need_of_set(&query, 5), near(&query, (5, 9.0)).len()), (0.0, 0));
        assert!(Same::Set.holds(&query, (5, 0.0)) && Same::Set.holds(&query, (9, 0.0)));
        // Exchanging the first two needs nothing.
        let exchanged = self::query(&[3.0, 2.0, 0.0], &[2.0, 3.0, 0.0]);
        assert_eq!((need_of_set(&exchanged, 2), need_of_order(&exchanged, 2)), (0.0, 0.0));
        assert_eq!((near(&exchanged, (2, 0.0)).len(), first(&exchanged, (2, 0.0)).len()), (0, 2));
    }

    #[test]
    fn levels_are_ranks() {
        // Needs of 0.1, 0.2, ... 0.9: the screen underrates the best document by so much, and another one is at its place.
        let queries: Vec<Scored> =
            (1..10).map(|i| query(&[1.0, 0.9, 0.0], &[1.0 - f64::from(i) / 10.0, 1.5, -1.0])).collect();
        let needs = Needs::new(&queries, 1, Same::Order);
        let level = needs.level(0.5).unwrap();
        assert!((level.slack - 0.5).abs() < 1e-12, "{level:?}");
        assert!((needs.level(0.9).unwrap().slack - 0.9).abs() < 1e-12);
        assert_eq!(needs.level(0.95), None);
        let largest = needs.largest().unwrap();
        assert!((largest.confidence - 0.9).abs() < 1e-12 && (largest.slack - 0.9).abs() < 1e-12);
        // Every one but the one with the largest need is answered rightly by the others'. At 0.9 nothing is confirmed needlessly but
        // the second document.
        assert!((largest.confirmed - 2.0 / 3.0).abs() < 1e-12, "{largest:?}");
        assert!(largest.same_top >= 8.0 / 9.0, "{largest:?}");
    }
}
