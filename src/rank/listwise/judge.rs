//! Who answers prompts.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::prompt::Prompt;
use super::usage::{Price, Usage};

/// Somebody who answers a prompt in text: a language model behind an endpoint. The network is outside of this crate.
pub trait ListJudge: Sync {
    /// What it is called in reports.
    fn name(&self) -> &str;

    /// Answers one prompt. Retries what may pass; `time_left` is all the time that there is for it.
    fn complete(&self, prompt: &Prompt, time_left: Option<Duration>) -> Reply;

    /// How many prompts it likes to be asked at once.
    fn concurrency(&self) -> usize {
        1
    }

    /// What a million tokens cost, in the currency of [`Usage::cost`]: a query's budget is kept by it before an
    /// answer has told. All zero, as it is if nothing is said: free, or not known.
    fn price(&self) -> Price {
        Price::default()
    }
}

impl<J: ListJudge + ?Sized> ListJudge for &J {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn complete(&self, prompt: &Prompt, time_left: Option<Duration>) -> Reply {
        (**self).complete(prompt, time_left)
    }

    fn concurrency(&self) -> usize {
        (**self).concurrency()
    }

    fn price(&self) -> Price {
        (**self).price()
    }
}

impl<J: ListJudge + Send + ?Sized> ListJudge for std::sync::Arc<J> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn complete(&self, prompt: &Prompt, time_left: Option<Duration>) -> Reply {
        (**self).complete(prompt, time_left)
    }

    fn concurrency(&self) -> usize {
        (**self).concurrency()
    }

    fn price(&self) -> Price {
        (**self).price()
    }
}

/// What came of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// What it cost, with the attempts that failed.
    pub usage: Usage,
    /// The answer's text, or why there is none.
    pub outcome: Result<String, Failure>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Not to this prompt; the next one may have one.
    Unanswered {
        /// What happened.
        reason: String,
    },
    /// To no prompt.
    Refused {
        /// What happened.
        reason: String,
    },
    /// Another prompt might exceed a budget that the judge keeps.
    BudgetSpent,
    /// Somebody asked for the end.
    Interrupted,
}

/// Asks about all prompts, as many at once as the judge likes. One reply for each, and its time.
pub(super) fn complete_all(
    judge: &dyn ListJudge,
    prompts: &[Prompt],
    time_left: &(dyn Fn() -> Option<Duration> + Sync),
) -> Vec<(Reply, Duration)> {
    let complete = |prompt: &Prompt| {
        let started = Instant::now();
        let reply = judge.complete(prompt, time_left());
        (reply, started.elapsed())
    };
    let workers = judge.concurrency().clamp(1, prompts.len().max(1));
    if workers == 1 {
        return prompts.iter().map(complete).collect();
    }
    let next = AtomicUsize::new(0);
    let replies = Mutex::new(Vec::with_capacity(prompts.len()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(prompt) = prompts.get(place) else { return };
                    let reply = complete(prompt);
                    replies.lock().unwrap_or_else(PoisonError::into_inner).push((place, reply));
                }
            });
        }
    });
    let mut replies = replies.into_inner().unwrap_or_else(PoisonError::into_inner);
    replies.sort_by_key(|(place, _)| *place);
    replies.into_iter().map(|(_, reply)| reply).collect()
}
