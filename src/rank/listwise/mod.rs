//! A language model that compares documents, as the last stage of a cascade.
//!
//! A [`ListJudge`] answers prompts; the network is outside of this crate. A [`Method`] says what it is asked: to sort
//! windows that slide over the list, to choose the better half of groups, to name the best of a few, or the better of two.
//!
//! **Whatever a model answers, the result is a permutation of what came in.** Identifiers that are missing are appended in
//! their incoming order, those that are not there are dropped, of those named twice the first counts; how often that
//! happened is counted by kind ([`Answers`]) and is part of the result. Where there is no answer at all, the incoming order
//! stays, and the result says so ([`Ended`]).
//!
//! Models prefer what they read first. [`ListwiseOptions::shuffles`] shows each list in several orders and takes the mean
//! rank; pairs are always shown in both orders. [`Report::agreement`] says how far the answers agreed.
//!
//! ```
//! use jointly::rank::listwise::{ListJudge, Listwise, ListwiseOptions, Method, Prompt, Reply, Usage};
//!
//! /// Always the same answer, where a real one would ask a model.
//! struct Fixed;
//!
//! impl ListJudge for Fixed {
//!     fn name(&self) -> &str {
//!         "fixed"
//!     }
//!
//!     fn complete(&self, _prompt: &Prompt, _time_left: Option<std::time::Duration>) -> Reply {
//!         let usage = Usage { prompt_tokens: 90, completion_tokens: 8, cost: 0.0 };
//!         Reply { usage, outcome: Ok("[2] > [3]".into()) }
//!     }
//! }
//!
//! let method = Method::SlidingWindow { window: 20, stride: 10, passes: 1 };
//! let stage = Listwise::new(Fixed, ListwiseOptions::new().method(method))?;
//! let ranked = stage.order("what do pandas eat", &["rice", "bamboo", "leaves"]);
//! assert_eq!(ranked.order, [1, 2, 0]); // the first one was missing
//! assert_eq!(ranked.report.answers.missing, 1);
//! # Ok::<(), jointly::Error>(())
//! ```

mod answer;
mod judge;
mod method;
mod one_pass;
mod prompt;
pub mod quote;
mod session;
mod shuffle;
mod usage;

use std::time::Duration;

pub use answer::{AnswerKind, Parsed, parse, repair};
pub use judge::{Failure, ListJudge, Reply};
pub use method::{Load, Method};
pub use one_pass::{OnePass, OnePassOptions, OnePassStage};
pub use prompt::{Identifiers, Prompt, Wanted};
pub use shuffle::{borda, kendall_tau};
pub use usage::{Price, Usage};

use super::budget::{Budget, Meter, Stop};
use super::stage::{Applied, Asked, Context, Placed, Stage};
use crate::error::{Error, Result};
use session::Session;

/// How documents are compared.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ListwiseOptions {
    method: Method,
    identifiers: Identifiers,
    depth: Option<usize>,
    shuffles: usize,
    seed: u64,
    max_chars: usize,
    answer_tokens: Option<u32>,
}

impl Default for ListwiseOptions {
    fn default() -> Self {
        Self {
            method: Method::default(),
            identifiers: Identifiers::default(),
            depth: None,
            shuffles: 1,
            seed: 0,
            max_chars: Self::DEFAULT_MAX_CHARS,
            answer_tokens: None,
        }
    }
}

impl ListwiseOptions {
    /// Most characters of a text: some 300 words.
    pub const DEFAULT_MAX_CHARS: usize = 2000;

    /// A window of 20 that slides by 10, numbers, all documents, each list shown once, 2000 characters of each text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is asked.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// What documents are called.
    #[must_use]
    pub fn identifiers(mut self, identifiers: Identifiers) -> Self {
        self.identifiers = identifiers;
        self
    }

    /// Only the first `depth` documents are compared.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = Some(depth);
        self
    }

    /// Shows each list so often, the first time in the incoming order and then in random ones, and takes the mean rank. Pairs
    /// are shown in both orders anyway.
    #[must_use]
    pub fn shuffles(mut self, shuffles: usize) -> Self {
        self.shuffles = shuffles;
        self
    }

    /// For the random orders, together with the query.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Each text is cut to so many characters, and counted as cut.
    #[must_use]
    pub fn max_chars(mut self, max_chars: usize) -> Self {
        self.max_chars = max_chars;
        self
    }

    /// Most tokens of an answer, for models that think aloud. Otherwise it is what the identifiers need.
    #[must_use]
    pub fn answer_tokens(mut self, tokens: u32) -> Self {
        self.answer_tokens = Some(tokens);
        self
    }

    /// What these options ask about so many documents.
    #[must_use]
    pub fn load(&self, count: usize) -> Load {
        let load = self.method.load(self.depth.map_or(count, |depth| depth.min(count)));
        let times = match self.method {
            Method::PairwiseAll | Method::PairwiseBubble { .. } => 1,
            _ => self.shuffles.max(1),
        };
        Load { calls: load.calls * times, documents: load.documents * times }
    }

    fn check(&self) -> Result<()> {
        let wrong = |option, problem| Err(Error::InvalidOption { option, problem });
        if let Some(problem) = self.method.problem() {
            return wrong("method", problem);
        }
        let (list, most) = (self.method.largest_list(), self.identifiers.most());
        if list > most {
            return wrong(
                "method",
                format!("{list} documents in one prompt; these identifiers tell {most} apart"),
            );
        }
        for (name, value) in [("shuffles", self.shuffles), ("max_chars", self.max_chars)] {
            if value == 0 {
                return wrong(name, "0; at least 1 is needed".into());
            }
        }
        match (self.depth, self.answer_tokens) {
            (Some(0), _) => wrong("depth", "0; at least 1 is needed".into()),
            (_, Some(0)) => wrong("answer_tokens", "0; at least 1 is needed".into()),
            _ => Ok(()),
        }
    }
}

/// How often answers were what, in calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answers {
    /// As it was asked for.
    pub ok: usize,
    /// Written otherwise, or with documents that are not there.
    pub wrong_format: usize,
    /// With a document twice.
    pub repetition: usize,
    /// With a document missing.
    pub missing: usize,
    /// None.
    pub unanswered: usize,
}

impl Answers {
    /// All calls.
    #[must_use]
    pub fn all(self) -> usize {
        self.ok + self.repaired() + self.unanswered
    }

    /// Calls whose answer had to be repaired.
    #[must_use]
    pub fn repaired(self) -> usize {
        self.wrong_format + self.repetition + self.missing
    }
}

impl std::fmt::Display for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ok, wrong_format, repetition, missing, unanswered } = self;
        write!(
            f,
            "{} calls: {ok} ok, {wrong_format} in a wrong format, {repetition} with a repetition, {missing} with a document missing, {unanswered} unanswered",
            self.all()
        )
    }
}

impl AnswerKind {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::WrongFormat => "wrong format",
            Self::Repetition => "repetition",
            Self::Missing => "missing document",
            Self::Unanswered => "unanswered",
        }
    }
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Documents in its prompt.
    pub documents: usize,
    /// What its answer was.
    pub kind: AnswerKind,
    /// What it cost.
    pub usage: Usage,
    /// Its time, with retries.
    pub elapsed: Duration,
}

/// How a query ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ended {
    /// All questions were asked.
    #[default]
    Complete,
    /// The query's own budget was spent, or somebody asked for the end.
    Stopped(Stop),
    /// A budget that the judge keeps over many queries was spent.
    JudgeBudget,
    /// The judge answers nobody; what it said.
    Refused(String),
}

/// What became of one query.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Every call, in the order in which its answer counted.
    pub calls: Vec<Call>,
    /// The same, counted by kind.
    pub answers: Answers,
    /// What all calls cost.
    pub usage: Usage,
    /// Texts that were cut, each as often as it was shown.
    pub cut: usize,
    /// The mean of Kendall's tau of two answers to the same list in different orders: 1 if the position of a document had no
    /// influence. None if no list was shown twice.
    pub agreement: Option<f64>,
    /// How it ended.
    pub ended: Ended,
    /// What was wrong, of the first few calls.
    pub reasons: Vec<String>,
}

/// An order and how it came about.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ListRanking {
    /// Indices of the documents, best first, each once.
    pub order: Vec<usize>,
    /// How many were compared: the first ones, or those of them that there was an end to before.
    pub read: usize,
    /// What happened.
    pub report: Report,
}

/// The stage: a judge, and how it is asked.
#[derive(Debug, Clone)]
pub struct Listwise<J> {
    judge: J,
    name: String,
    options: ListwiseOptions,
}

impl<J: ListJudge> Listwise<J> {
    /// A stage that asks this judge.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn new(judge: J, options: ListwiseOptions) -> Result<Self> {
        options.check()?;
        let name = format!("listwise {}", judge.name());
        Ok(Self { judge, name, options })
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The judge.
    pub fn judge(&self) -> &J {
        &self.judge
    }

    /// How it is asked.
    pub fn options(&self) -> &ListwiseOptions {
        &self.options
    }

    /// Orders documents that come in some order already, without limits.
    pub fn order<D: AsRef<str>>(&self, query: &str, documents: &[D]) -> ListRanking {
        let documents: Vec<&str> = documents.iter().map(AsRef::as_ref).collect();
        self.order_within(query, &documents, &Meter::start(Budget::new()))
    }

    /// The same, within what the meter allows. Before a call there must be room for what it is likely to cost: half a token
    /// for each byte of the prompt before the first answer, later as much as answers have shown, and a tenth more;
    /// of money, by [`ListJudge::price`] or what answers have shown, whichever is more.
    pub fn order_within(&self, query: &str, documents: &[&str], meter: &Meter) -> ListRanking {
        let read = self.options.depth.map_or(documents.len(), |depth| depth.min(documents.len()));
        let mut session = Session::new(&self.judge, (query, documents), &self.options, meter);
        let order = self.options.method.order(&mut session, read);
        let read = if session.is_over() { session.shown() } else { read };
        ListRanking { order: answer::repair(&order, documents.len()), read, report: session.finish() }
    }
}

impl<J: ListJudge> Stage for Listwise<J> {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let texts = context.texts(incoming);
        Ok(self.order_within(context.query(), &texts, context.meter).applied(incoming))
    }
}

impl ListRanking {
    /// As the answer of a stage that was given these documents.
    #[must_use]
    pub fn applied(&self, incoming: &[Placed]) -> Applied {
        let Self { order, read, report } = self;
        let indices = order.iter().filter_map(|&place| incoming.get(place)).map(|placed| placed.index);
        let mut applied = Applied::in_order(indices).read(*read).asked(report.asked());
        if let Ended::Stopped(stop) = report.ended {
            applied = applied.stop(Some(stop));
        }
        applied.notes = report.notes();
        applied
    }
}

impl Report {
    /// Calls, those without an answer, and whether documents are left where they came in.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let (calls, unanswered) = (self.calls.len(), self.answers.unanswered);
        let is_partial = self.ended != Ended::Complete || (calls > 0 && unanswered == calls);
        Asked { calls, unanswered, is_partial }
    }

    /// What a person should know, a sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let is_all_well = self.answers.ok == self.answers.all();
        if !self.calls.is_empty() {
            notes.push(self.answers.to_string());
        }
        if !is_all_well {
            notes.extend(self.reasons.iter().cloned());
        }
        match &self.ended {
            Ended::Complete if self.asked().is_partial => {
                notes.push("no answer at all: this is the incoming order".into());
            }
            Ended::Complete => {}
            Ended::Stopped(stop) => {
                notes.push(format!(
                    "stopped ({}): what was not asked about is in the incoming order",
                    stop.name()
                ));
            }
            Ended::JudgeBudget => notes.push(
                "the budget of all queries is spent: what was not asked about is in the incoming order"
                    .into(),
            ),
            Ended::Refused(reason) => {
                notes.push(format!("refused: {reason}; what was not asked about is in the incoming order"))
            }
        }
        if self.cut > 0 {
            notes.push(format!("{} texts were cut", self.cut));
        }
        if let Some(agreement) = self.agreement {
            notes.push(format!("agreement of different orders of a list (Kendall's tau): {agreement:.3}"));
        }
        notes
    }
}
