//! What a cascade did, as the command line and the server print it.

use jointly::rank::{Guarantee, Same, StageReport};
use serde::Serialize;

/// What a stage did; the names are part of the interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StageRow {
    /// The stage.
    pub name: String,
    /// Documents that it was given.
    pub incoming: usize,
    /// Documents that it read.
    pub read: usize,
    /// Documents that it kept.
    pub kept: usize,
    /// Its time.
    pub ms: f64,
    /// Pairs scored.
    pub pairs: u64,
    /// Tokens read and written.
    pub tokens: u64,
    /// US dollars.
    #[serde(skip_serializing_if = "is_zero")]
    pub usd: f64,
    /// Why it ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<&'static str>,
    /// What its answer promises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<String>,
    /// What a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl From<&StageReport> for StageRow {
    fn from(report: &StageReport) -> Self {
        Self {
            name: report.name.clone(),
            incoming: report.incoming,
            read: report.read,
            kept: report.kept,
            ms: (report.elapsed.as_secs_f64() * 1e6).round() / 1e3,
            pairs: report.spent.pairs,
            tokens: report.spent.tokens,
            usd: report.spent.usd,
            stop: report.stop.map(jointly::rank::Stop::name),
            guarantee: report.guarantee.as_ref().map(in_words),
            notes: report.notes.clone(),
        }
    }
}

/// What an answer promises, in a sentence.
#[must_use]
pub fn in_words(guarantee: &Guarantee) -> String {
    match guarantee {
        Guarantee::Settled { top_n } => {
            format!("proven: no document that was not read can be among the first {top_n}")
        }
        Guarantee::SameTop { top_n, same, slack, confidence, confirmed } => {
            let sure = confidence.map_or("if the slack is enough".to_string(), |confidence| {
                format!("with a probability of {:.4} for queries like the audited ones", confidence)
            });
            let order = match same {
                Same::Order => "",
                Same::Set => " in any order",
            };
            format!(
                "the first {top_n} are those of the exact model{order}, {sure} (slack {slack}, {confirmed} confirmed)"
            )
        }
        Guarantee::Heuristic { rule } => format!("a guess: {rule}"),
        _ => "see the library".to_string(),
    }
}
