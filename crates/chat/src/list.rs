//! An endpoint as judge of lists.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use jointly::rank::listwise::{Failure, ListJudge, Price, Prompt, Reply, Usage};

use crate::{Budget, Client, ClientOptions, Error, Halt, Ledger, Outcome, Question, Result};

/// A language model that compares documents for the listwise stage.
pub struct EndpointJudge<'a> {
    client: Client,
    name: String,
    ledger: Ledger,
    stop: &'a AtomicBool,
}

impl fmt::Debug for EndpointJudge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointJudge").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> EndpointJudge<'a> {
    /// `budget` is for all queries together; `stop` ends all questions when it is set. Asks nothing yet.
    ///
    /// # Errors
    /// [`Error::Options`].
    pub fn new(options: ClientOptions, budget: Budget, stop: &'a AtomicBool) -> Result<Self> {
        let name = options.model.clone();
        Ok(Self { client: Client::new(options)?, name, ledger: Ledger::new(budget, Usage::default()), stop })
    }

    /// What all queries have cost until now.
    pub fn spent(&self) -> Usage {
        self.ledger.spent()
    }
}

impl ListJudge for EndpointJudge<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn complete(&self, prompt: &Prompt, time_left: Option<Duration>) -> Reply {
        let question = Question {
            system: prompt.system,
            user: &prompt.user,
            answer_tokens: prompt.answer_tokens,
            schema: None,
            logprobs: false,
            deadline: time_left.and_then(|left| Instant::now().checked_add(left)),
        };
        let failed = |failure| Reply { usage: Usage::default(), outcome: Err(failure) };
        match self.client.ask(&question, &self.ledger, &Halt::new(self.stop)) {
            Ok(reply) => {
                let outcome = match reply.outcome {
                    Outcome::Said(said) => Ok(said.text),
                    Outcome::Unusable(reason) | Outcome::Unanswered(reason) => {
                        Err(Failure::Unanswered { reason })
                    }
                };
                Reply { usage: reply.usage, outcome }
            }
            Err(Error::BudgetSpent) => failed(Failure::BudgetSpent),
            Err(Error::Interrupted) => failed(Failure::Interrupted),
            Err(error) => failed(Failure::Refused { reason: error.to_string() }),
        }
    }

    fn concurrency(&self) -> usize {
        self.client.options().concurrency
    }

    fn price(&self) -> Price {
        self.client.options().price
    }
}
