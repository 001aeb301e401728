//! What the stages of a cascade did, over all queries of a collection.

use jointly::rank::{Asked, Guarantee, StageReport};
use serde::Serialize;

/// Sums over queries; the names are part of the interface.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StageSums {
    pub name: String,
    pub queries: usize,
    /// Documents that it was given.
    pub incoming: usize,
    /// Documents that it read.
    pub read: usize,
    /// Documents that it kept.
    pub kept: usize,
    /// Tokens read and written; of scores in the cache nobody knows them, and they count as 0.
    pub tokens: u64,
    /// Milliseconds: of scores in the cache those that computing them took.
    pub ms: f64,
    /// US dollars.
    pub usd: f64,
    /// Calls of a language model.
    pub calls: usize,
    /// Calls that it did not answer.
    pub unanswered: usize,
    /// Queries that it was not done with: some or all documents are where they came in.
    pub partial: usize,
    /// Queries whose answer was promised: proven, or confirmed.
    pub guaranteed: usize,
    /// Queries that were ended by a rule of thumb.
    pub guessed: usize,
    /// What was said of the first query with a call that was not answered, or that it was not done with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl StageSums {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Counts one query, which took `ms`.
    pub fn add(&mut self, report: &StageReport, ms: f64) {
        self.queries += 1;
        self.incoming += report.incoming;
        self.read += report.read;
        self.kept += report.kept;
        self.tokens += report.spent.tokens;
        self.ms += ms;
        self.usd += report.spent.usd;
        match &report.guarantee {
            Some(Guarantee::Settled { .. } | Guarantee::SameTop { .. }) => self.guaranteed += 1,
            Some(Guarantee::Heuristic { .. }) => self.guessed += 1,
            _ => {}
        }
        let Asked { calls, unanswered, is_partial } = report.asked.unwrap_or_default();
        let is_partial = is_partial || report.stop.is_some();
        self.calls += calls;
        self.unanswered += unanswered;
        self.partial += usize::from(is_partial);
        if (unanswered > 0 || is_partial) && self.notes.is_empty() {
            self.notes.clone_from(&report.notes);
        }
    }

    /// What a person should know before believing the numbers.
    pub fn warning(&self) -> Option<String> {
        let Self { name, queries, calls, unanswered, partial, .. } = self;
        if *unanswered == 0 && *partial == 0 {
            return None;
        }
        let mut text = format!("stage {name}: ");
        if *unanswered > 0 {
            text.push_str(&format!("{unanswered} of {calls} calls were not answered; "));
        }
        text.push_str(&format!("{partial} of {queries} queries are wholly or partly in the incoming order"));
        if !self.notes.is_empty() {
            text.push_str(&format!("; the first: {}", self.notes.join("; ")));
        }
        Some(text)
    }
}
