//! What the votes are worth: how they connect the documents, whether judges agree, and whether the scores say more than noise.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fit::{Cast, Rater};

/// The names are those of the JSON form.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Queries, those without votes included.
    pub queries: u64,
    /// Queries none of whose documents were compared with one another.
    pub queries_without_votes: u64,
    /// Documents of the queries with votes.
    pub documents: u64,
    /// Votes within queries.
    pub votes: u64,
    /// Pairs of documents with a vote.
    pub pairs: u64,
    /// Queries with votes that do not connect all their documents.
    pub disconnected_queries: u64,
    /// Documents without a vote, of the queries with votes.
    pub documents_without_votes: u64,
    /// The smallest number of votes of a document that has one.
    pub fewest_votes: u64,
    /// Queries whose votes alone have no finite maximum: some documents never lost anything to the others.
    pub separated_queries: u64,
    /// Documents that won every vote entirely; how far above the others they stand is the prior's choice.
    pub undefeated_documents: u64,
    /// Documents that lost every vote entirely.
    pub winless_documents: u64,
    /// Three documents all of whose pairs are decided.
    pub triples: u64,
    /// Triples in which each beats the next, in a circle.
    pub intransitive_triples: u64,
    /// The median standard error; of all documents of the queries with votes.
    pub median_standard_error: f64,
    /// The share of the scores' variance that is not their error, mean over the queries with votes: 1 is best.
    pub reliability: f64,
    /// By name.
    pub judges: Vec<JudgeReport>,
    /// How often two judges, or a judge that was asked twice, are on the same side.
    pub agreement: Vec<Agreement>,
    /// Votes across queries.
    pub across: Across,
    /// Rounds of fitting scores and judges in turn.
    pub rounds: usize,
    /// Whether the judges' scales and biases had settled by then.
    pub judges_settled: bool,
}

/// A judge.
#[derive(Debug, Clone, Serialize)]
pub struct JudgeReport {
    /// Its name.
    pub judge: String,
    /// Its votes, those across queries included.
    pub votes: u64,
    /// Pairs on which it did not vote.
    pub abstentions: u64,
    /// How decided its votes are for a difference of scores; the root mean square of all is 1.
    pub scale: f64,
    /// Towards the document that it saw second, in units of the scores times its scale.
    pub bias: f64,
    /// The share of its votes within queries that are on the side of the scores; ties are not counted.
    pub with_scores: Option<f64>,
}

/// Two judges; or one, on pairs on which it voted twice.
#[derive(Debug, Clone, Serialize)]
pub struct Agreement {
    /// The one.
    pub a: String,
    /// The other.
    pub b: String,
    /// Pairs of votes on the same documents, both decided.
    pub pairs: u64,
    /// The share of them on the same side.
    pub agree: f64,
}

/// How votes across queries join the queries.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Across {
    /// Such votes.
    pub votes: u64,
    /// Queries with such a vote.
    pub queries: u64,
    /// Parts of the queries that no vote connects; 1 is what is wanted. Between parts scores cannot be compared.
    pub parts: u64,
}

impl Across {
    pub(super) fn new(queries: usize, ends: impl Iterator<Item = (u32, u32)>) -> Self {
        let (mut parts, mut votes) = (Parts::new(queries), 0);
        let mut is_voted = vec![false; queries];
        for (a, b) in ends {
            parts.join(a, b);
            is_voted[a as usize] = true;
            is_voted[b as usize] = true;
            votes += 1;
        }
        let queries = is_voted.iter().filter(|is_voted| **is_voted).count() as u64;
        Self { votes, queries, parts: parts.count }
    }
}

impl JudgeReport {
    pub(super) fn new(judge: &str, votes: u64, abstentions: u64, rater: Rater) -> Self {
        let Rater { scale, bias } = rater;
        Self { judge: judge.to_string(), votes, abstentions, scale, bias, with_scores: None }
    }
}

/// The graph of a query's votes.
#[derive(Debug, Default)]
pub(super) struct Structure {
    pairs: u64,
    parts: u64,
    without_votes: u64,
    fewest_votes: u64,
    undefeated: u64,
    winless: u64,
    triples: u64,
    intransitive: u64,
    /// Whether likelihood alone has no maximum: Ford, "Solution of a ranking problem from binary comparisons", 1957.
    pub is_separated: bool,
}

impl Structure {
    /// Votes on the same pair follow one another.
    pub(super) fn new(documents: usize, votes: &[Cast]) -> Self {
        let mut parts = Parts::new(documents);
        let mut of_document = vec![Record::default(); documents];
        let (mut beats, mut loses) = (vec![Vec::new(); documents], vec![Vec::new(); documents]);
        for cast in votes {
            parts.join(cast.a, cast.b);
            for (one, other, share) in [(cast.a, cast.b, 1.0 - cast.share), (cast.b, cast.a, cast.share)] {
                let record = &mut of_document[one as usize];
                record.votes += 1;
                record.has_won |= share > 0.0;
                record.has_lost |= share < 1.0;
                if share > 0.0 {
                    beats[one as usize].push(other);
                    loses[other as usize].push(one);
                }
            }
        }
        let voted = || of_document.iter().filter(|record| record.votes > 0);
        let (pairs, triples, intransitive) = triples(documents, votes);
        Self {
            pairs,
            parts: parts.count,
            without_votes: (documents - voted().count()) as u64,
            fewest_votes: voted().map(|record| record.votes).min().unwrap_or(0),
            undefeated: voted().filter(|record| !record.has_lost).count() as u64,
            winless: voted().filter(|record| !record.has_won).count() as u64,
            triples,
            intransitive,
            is_separated: !(reaches_all(&beats) && reaches_all(&loses)),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    votes: u64,
    has_won: bool,
    has_lost: bool,
}

/// Whether all things are reached from the first.
fn reaches_all(next: &[Vec<u32>]) -> bool {
    let mut is_seen = vec![false; next.len()];
    let mut todo: Vec<u32> = (0..next.len().min(1) as u32).collect();
    while let Some(at) = todo.pop() {
        if !std::mem::replace(&mut is_seen[at as usize], true) {
            todo.extend(next[at as usize].iter().filter(|next| !is_seen[**next as usize]));
        }
    }
    is_seen.iter().all(|is_seen| *is_seen)
}

/// Votes on the same two documents.
fn same_pair(x: &Cast, y: &Cast) -> bool {
    (x.a.min(x.b), x.a.max(x.b)) == (y.a.min(y.b), y.a.max(y.b))
}

/// The share of the document with the smaller index.
fn share_of_first(cast: &Cast) -> f64 {
    if cast.a < cast.b { 1.0 - cast.share } else { cast.share }
}

/// Pairs; triples with three decided pairs, by the sums of votes; and those that go in a circle.
fn triples(documents: usize, votes: &[Cast]) -> (u64, u64, u64) {
    let words = documents.div_ceil(64);
    let mut beats = vec![0_u64; documents * words];
    let mut loses = vec![0_u64; documents * words];
    let mut decided = Vec::new();
    let mut pairs = 0;
    for votes in votes.chunk_by(same_pair) {
        pairs += 1;
        let first: f64 = votes.iter().map(|cast| share_of_first(cast) - 0.5).sum();
        let (low, high) = (votes[0].a.min(votes[0].b) as usize, votes[0].a.max(votes[0].b) as usize);
        // Thirds do not add up to halves exactly.
        if first.abs() > 1e-9 {
            let (winner, loser) = if first > 0.0 { (low, high) } else { (high, low) };
            beats[winner * words + loser / 64] |= 1 << (loser % 64);
            loses[loser * words + winner / 64] |= 1 << (winner % 64);
            decided.push((winner, loser));
        }
    }
    let (mut triples, mut circles) = (0_u64, 0_u64);
    for (winner, loser) in decided {
        for word in 0..words {
            let (wins, losses) = (beats[winner * words + word], loses[winner * words + word]);
            let (other_wins, other_losses) = (beats[loser * words + word], loses[loser * words + word]);
            triples += u64::from(((wins | losses) & (other_wins | other_losses)).count_ones());
            circles += u64::from((losses & other_wins).count_ones());
        }
    }
    // Each was seen from its three pairs.
    (pairs, triples / 3, circles / 3)
}

/// Connected parts.
struct Parts {
    parent: Vec<u32>,
    count: u64,
}

impl Parts {
    fn new(things: usize) -> Self {
        Self { parent: (0..things as u32).collect(), count: things as u64 }
    }

    fn root(&mut self, mut at: u32) -> u32 {
        while self.parent[at as usize] != at {
            let above = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = above;
            at = above;
        }
        at
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.parent[a as usize] = b;
            self.count -= 1;
        }
    }
}

/// What is counted over some queries.
pub(super) struct Found {
    report: Report,
    /// For each judge: votes on the side of the scores, and decided votes.
    with_scores: Vec<(u64, u64)>,
    agreement: BTreeMap<(u32, u32), (u64, u64)>,
    errors: Vec<f32>,
    reliability: f64,
}

impl Found {
    pub(super) fn new(judges: usize) -> Self {
        Self {
            report: Report { fewest_votes: u64::MAX, ..Report::default() },
            with_scores: vec![(0, 0); judges],
            agreement: BTreeMap::new(),
            errors: Vec::new(),
            reliability: 0.0,
        }
    }

    pub(super) fn add(&mut self, votes: &[Cast], scores: &[f64], errors: &[f64], structure: &Structure) {
        let report = &mut self.report;
        report.queries += 1;
        if votes.is_empty() {
            report.queries_without_votes += 1;
            return;
        }
        report.documents += scores.len() as u64;
        report.votes += votes.len() as u64;
        report.pairs += structure.pairs;
        report.disconnected_queries += u64::from(structure.parts > 1);
        report.documents_without_votes += structure.without_votes;
        report.fewest_votes = report.fewest_votes.min(structure.fewest_votes);
        report.separated_queries += u64::from(structure.is_separated);
        report.undefeated_documents += structure.undefeated;
        report.winless_documents += structure.winless;
        report.triples += structure.triples;
        report.intransitive_triples += structure.intransitive;

        let side = |share: f64| if share == 0.5 { None } else { Some(share > 0.5) };
        for cast in votes {
            let difference = scores[cast.b as usize] - scores[cast.a as usize];
            if let Some(side) = side(cast.share).filter(|_| difference != 0.0) {
                let (same, all) = &mut self.with_scores[cast.judge as usize];
                *same += u64::from(side == (difference > 0.0));
                *all += 1;
            }
        }
        for votes in votes.chunk_by(same_pair) {
            let decided: Vec<(u32, bool)> =
                votes.iter().filter_map(|cast| Some((cast.judge, side(share_of_first(cast))?))).collect();
            for (place, (judge, side)) in decided.iter().enumerate() {
                for (other, other_side) in &decided[..place] {
                    let key = (*judge.min(other), *judge.max(other));
                    let (same, all) = self.agreement.entry(key).or_default();
                    *same += u64::from(side == other_side);
                    *all += 1;
                }
            }
        }
        let count = scores.len().max(1) as f64;
        let squares = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>() / count;
        let (signal, noise) = (squares(scores), squares(errors));
        // The scores are shrunk by the prior, so their variance is what is known, and the error's comes on top.
        self.reliability += if signal > 0.0 { signal / (signal + noise) } else { 0.0 };
        self.errors.extend(errors.iter().map(|error| *error as f32));
    }
}

impl Report {
    pub(super) fn new(found: Vec<Found>, mut judges: Vec<JudgeReport>) -> Self {
        let mut all = Found::new(judges.len());
        for Found { report, with_scores, agreement, errors, reliability } in found {
            let sum = &mut all.report;
            for (sum, value) in [
                (&mut sum.queries, report.queries),
                (&mut sum.queries_without_votes, report.queries_without_votes),
                (&mut sum.documents, report.documents),
                (&mut sum.votes, report.votes),
                (&mut sum.pairs, report.pairs),
                (&mut sum.disconnected_queries, report.disconnected_queries),
                (&mut sum.documents_without_votes, report.documents_without_votes),
                (&mut sum.separated_queries, report.separated_queries),
                (&mut sum.undefeated_documents, report.undefeated_documents),
                (&mut sum.winless_documents, report.winless_documents),
                (&mut sum.triples, report.triples),
                (&mut sum.intransitive_triples, report.intransitive_triples),
            ] {
                *sum += value;
            }
            sum.fewest_votes = sum.fewest_votes.min(report.fewest_votes);
            for (sum, (same, of)) in all.with_scores.iter_mut().zip(with_scores) {
                *sum = (sum.0 + same, sum.1 + of);
            }
            for (key, (same, of)) in agreement {
                let sum = all.agreement.entry(key).or_default();
                *sum = (sum.0 + same, sum.1 + of);
            }
            all.errors.extend(errors);
            all.reliability += reliability;
        }
        let share = |(same, of): (u64, u64)| same as f64 / of as f64;
        for (judge, counts) in judges.iter_mut().zip(&all.with_scores) {
            judge.with_scores = (counts.1 > 0).then(|| share(*counts));
        }
        let name = |judge: u32| judges[judge as usize].judge.clone();
        let agreement = all.agreement.iter().map(|(&(a, b), &counts)| Agreement {
            a: name(a),
            b: name(b),
            pairs: counts.1,
            agree: share(counts),
        });
        let mut report = all.report;
        report.agreement = agreement.collect();
        report.judges = judges;
        let middle = all.errors.len() / 2;
        if !all.errors.is_empty() {
            let (_, median, _) = all.errors.select_nth_unstable_by(middle, f32::total_cmp);
            report.median_standard_error = f64::from(*median);
        }
        report.reliability = all.reliability / (report.queries - report.queries_without_votes).max(1) as f64;
        report
    }
}
