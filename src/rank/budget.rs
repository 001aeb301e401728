//! What a query may cost: time, tokens, money; and what it has cost so far.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What one query may cost. Nothing said is no limit.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Budget {
    time: Option<Duration>,
    deadline: Option<Instant>,
    tokens: Option<u64>,
    usd: Option<f64>,
    cancel: Vec<Cancel>,
}

impl Budget {
    /// No limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the start of the cascade.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// A moment, for a request that has waited already.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Tokens read by models, of all stages together.
    #[must_use]
    pub fn tokens(mut self, tokens: u64) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// US dollars, of all stages together.
    #[must_use]
    pub fn usd(mut self, usd: f64) -> Self {
        self.usd = Some(usd);
        self
    }

    /// Ends the cascade when this is cancelled.
    #[must_use]
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel.push(cancel);
        self
    }

    /// The tighter of both, limit by limit.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        fn least<T: PartialOrd + Copy>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(if b < a { b } else { a }),
                (a, b) => a.or(b),
            }
        }
        Self {
            time: least(self.time, other.time),
            deadline: least(self.deadline, other.deadline),
            tokens: least(self.tokens, other.tokens),
            usd: least(self.usd, other.usd),
            cancel: [&self.cancel[..], &other.cancel].concat(),
        }
    }
}

/// Ends cascades from another thread. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// One that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every cascade whose budget has this, after the batch that it is at.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a stage, or a cascade, did not do all that it was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// The time was over.
    Deadline,
    /// The tokens were spent.
    Tokens,
    /// The money was spent.
    Money,
    /// Somebody asked for it.
    Cancelled,
}

impl Stop {
    /// In one word, as in the output of the command line and the server.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Tokens => "tokens",
            Self::Money => "money",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What was spent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// Calls of a scorer, or requests to a service.
    pub calls: u64,
    /// Pairs scored, or documents shown to a language model.
    pub pairs: u64,
    /// Tokens read and written.
    pub tokens: u64,
    /// US dollars; 0 where nothing has a price.
    pub usd: f64,
}

impl Spent {
    /// What was spent since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            calls: self.calls - earlier.calls,
            pairs: self.pairs - earlier.pairs,
            tokens: self.tokens - earlier.tokens,
            usd: self.usd - earlier.usd,
        }
    }
}

/// The clock and the till of one query. Stages ask it before each batch or request whether to go on, and tell it what
/// that cost.
#[derive(Debug)]
pub struct Meter {
    started: Instant,
    deadline: Option<Instant>,
    budget: Budget,
    spent: Mutex<Spent>,
}

impl Meter {
    /// Starts the clock.
    #[must_use]
    pub fn start(budget: Budget) -> Self {
        let started = Instant::now();
        // A time that no clock can hold is no limit.
        let own = budget.time.and_then(|time| started.checked_add(time));
        let deadline = match (own, budget.deadline) {
            (Some(own), Some(given)) => Some(own.min(given)),
            (own, given) => own.or(given),
        };
        Self { started, deadline, budget, spent: Mutex::default() }
    }

    /// Why there must be no further batch or request; none if there may be one.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        let spent = self.spent();
        if self.budget.cancel.iter().any(Cancel::is_cancelled) {
            Some(Stop::Cancelled)
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Some(Stop::Deadline)
        } else if self.budget.tokens.is_some_and(|tokens| spent.tokens >= tokens) {
            Some(Stop::Tokens)
        } else if self.budget.usd.is_some_and(|usd| spent.usd >= usd) {
            Some(Stop::Money)
        } else {
            None
        }
    }

    /// Whether anything can end the query early: then scorers are asked batch by batch.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        let Budget { tokens, usd, cancel, .. } = &self.budget;
        self.deadline.is_some() || tokens.is_some() || usd.is_some() || !cancel.is_empty()
    }

    /// Adds to what was spent.
    pub fn spend(&self, more: Spent) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.calls += more.calls;
        spent.pairs += more.pairs;
        spent.tokens += more.tokens;
        spent.usd += more.usd;
    }

    /// What was spent so far, by all stages.
    #[must_use]
    pub fn spent(&self) -> Spent {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time until the deadline, if there is one: for the timeout of a request.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Tokens until the limit, if there is one.
    #[must_use]
    pub fn tokens_left(&self) -> Option<u64> {
        self.budget.tokens.map(|tokens| tokens.saturating_sub(self.spent().tokens))
    }

    /// US dollars until the limit, if there is one.
    #[must_use]
    pub fn usd_left(&self) -> Option<f64> {
        self.budget.usd.map(|usd| (usd - self.spent().usd).max(0.0))
    }
}
