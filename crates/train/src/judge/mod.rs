//! Judges: who says which of two documents is more relevant.
//!
//! A [`Judge`] is asked a [`Question`] and gives a [`Ballot`]. [`ChatJudge`] asks a language model behind an endpoint that
//! speaks the chat-completions protocol; [`LocalJudge`] compares the scores of a cross-encoder or a bi-encoder; a
//! [`SimulatedJudge`](crate::zelo::simulate::SimulatedJudge) knows the truth of simulated documents, and errs. [`run()`]
//! asks several of them about many pairs at once, within a [`Budget`], and writes every vote to a [`Journal`] as it
//! comes, so that nothing is paid for twice.
//!
//! A judge that fails abstains: its vote is missing and says why. It is never a vote for one side.

mod answer;
mod chat;
mod journal;
mod labels;
mod local;
mod prompt;
mod run;
mod simulated;

use std::path::PathBuf;

use jointly::rank::listwise::quote;

pub use crate::zelo::votes::Pair;
pub use answer::{Answer, parse_letter, parse_score};
pub use chat::{ChatJudge, ChatOptions};
pub use jointly_chat::{ApiKey, Budget, ClientOptions, Halt, Ledger, Price, ResponseFormat, Usage};
pub use journal::{Journal, Tally, VoteLine};
pub use labels::LabelJudge;
pub use local::{LocalJudge, Scorer};
pub use prompt::Ask;
pub use run::{Ending, Item, Progress, RunOptions, run};

/// A document and the query that it is measured by.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Text of the query.
    pub query: &'a str,
    /// Text of the document.
    pub document: &'a str,
}

/// What a judge is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The pair.
    pub ids: &'a Pair,
    /// Its first document.
    pub a: Side<'a>,
    /// Its second document.
    pub b: Side<'a>,
    /// Whether `b` is shown first. The vote is a share for `b` all the same.
    pub swapped: bool,
}

/// What a judge says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ballot {
    /// The share for `b`, from 0 to 1; none if the judge abstains.
    pub vote: Option<f64>,
    /// Why it abstains.
    pub reason: Option<String>,
    /// It abstains because no answer came; worth asking again another time.
    pub unanswered: bool,
    /// What it cost.
    pub usage: Usage,
    /// How many of the texts were cut.
    pub cut: u32,
}

impl Ballot {
    /// A ballot without a vote.
    pub fn abstain(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::default() }
    }
}

/// Who votes.
pub trait Judge: Sync {
    /// What it is called in the votes.
    fn name(&self) -> &str;

    /// A short hash of all that its votes depend on besides the texts: votes of other settings are not mixed with it.
    fn settings(&self) -> String;

    /// Whether it reads one document before the other, so that the order may sway it.
    fn reads_in_order(&self) -> bool;

    /// How many questions it likes to be asked at once, and by how many threads.
    fn appetite(&self) -> (usize, usize);

    /// Asks. One ballot for each question, in the same order.
    ///
    /// # Errors
    /// What makes further questions pointless: [`Error::Refused`], [`Error::Model`], [`Error::BudgetSpent`],
    /// [`Error::Interrupted`]. All else is an abstention.
    fn ask(&self, questions: &[Question<'_>], ledger: &Ledger, halt: &Halt<'_>) -> Result<Vec<Ballot>>;
}

/// The result of what can end a vote.
pub type Result<T> = std::result::Result<T, Error>;

/// Why no further votes are taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of a judge cannot be used.
    #[error("judge {judge}: {problem}")]
    Options {
        /// The judge.
        judge: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The endpoint refuses every request.
    #[error("judge {judge}: {reason}")]
    Refused {
        /// The judge.
        judge: String,
        /// What it says.
        reason: String,
    },
    /// A local model failed.
    #[error("judge {judge}: {source}")]
    Model {
        /// The judge.
        judge: String,
        /// What happened.
        source: Box<jointly::Error>,
    },
    /// The votes file has a line that is none.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process is writing the votes file.
    #[error("{}: another process is writing it", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The votes file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Another request might exceed the budget.
    #[error("the budget is spent")]
    BudgetSpent,
    /// Somebody asked for the end.
    #[error("interrupted")]
    Interrupted,
}

pub(crate) use quote::{brief, digest};

/// The first characters of [`digest`] in hexadecimal.
pub(crate) fn short_hash(parts: &[&str], characters: usize) -> String {
    let mut text: String = digest(parts).iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(characters);
    text
}
