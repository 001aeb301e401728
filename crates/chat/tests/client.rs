//! One question: what is told of its cost, and when it is given up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

// The votes are tested with the same one.
#[path = "../../train/tests/support/endpoint.rs"]
#[allow(dead_code, reason = "of the other tests")]
mod endpoint;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use endpoint::{Endpoint, Reply};
use jointly_chat::{Budget, Client, ClientOptions, Error, Halt, Ledger, Outcome, Question, Usage};

/// The most that [`QUESTION`] can cost: its bytes, what a template writes around it, and the answer.
const MOST: u64 = 2 + 256 + 8;

const QUESTION: Question<'static> =
    Question { system: "s", user: "u", answer_tokens: 8, schema: None, logprobs: false, deadline: None };

fn client(endpoint: &Endpoint) -> Client {
    let mut options = ClientOptions::new(&endpoint.url, "m");
    options.backoff = Duration::from_millis(1);
    options.timeout = Duration::from_millis(500);
    options.attempts = 3;
    Client::new(options).unwrap()
}

fn hangs() -> Reply {
    Reply { stall: Duration::from_secs(30), ..Reply::new(200, "") }
}

fn ledger(max_tokens: Option<u64>) -> Ledger {
    Ledger::new(Budget { max_tokens, max_cost: None }, Usage::default())
}

/// It comes back without an answer, at the price of one attempt, and with this reason.
fn is_paid_in_vain(client: &Client, ledger: &Ledger, halt: &Halt<'_>, why: &str) {
    let reply = client.ask(&QUESTION, ledger, halt).unwrap();
    assert_eq!((reply.usage.tokens(), ledger.spent().tokens()), (MOST, MOST));
    assert!(matches!(&reply.outcome, Outcome::Unanswered(reason) if reason.contains(why)), "{reply:?}");
}

#[test]
fn a_question_that_has_cost_something_says_so_and_the_next_one_has_the_error() {
    // The budget.
    let never = AtomicBool::new(false);
    let halt = Halt::new(&never);
    let endpoint = Endpoint::start(|_, _| hangs());
    let (asks, books) = (client(&endpoint), ledger(Some(MOST + 10)));
    is_paid_in_vain(&asks, &books, &halt, "the budget is spent");
    assert!(matches!(asks.ask(&QUESTION, &books, &halt), Err(Error::BudgetSpent)));
    assert_eq!(endpoint.seen().len(), 1);

    // Somebody asks for the end.
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let endpoint = Endpoint::start(move |_, _| {
        asked.store(true, Ordering::Relaxed);
        hangs()
    });
    let (asks, books, halted) = (client(&endpoint), ledger(None), Halt::new(&stop));
    is_paid_in_vain(&asks, &books, &halted, "interrupted");
    assert!(matches!(asks.ask(&QUESTION, &books, &halted), Err(Error::Interrupted)));
    assert_eq!(endpoint.seen().len(), 1);

    // The server refuses all: told once without asking, and after that it is asked again.
    let endpoint = Endpoint::start(|_, n| if n == 0 { hangs() } else { Reply::new(401, "no such key") });
    let (asks, books) = (client(&endpoint), ledger(None));
    is_paid_in_vain(&asks, &books, &halt, "status 401: no such key");
    // The words of the server may be about the first question, and are not for whoever asks the second one.
    for (seen, has_words) in [(2, false), (3, true)] {
        let error = asks.ask(&QUESTION, &books, &halt).unwrap_err();
        let Error::Refused { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("status 401"), "{reason}");
        assert_eq!(reason.contains("no such key"), has_words, "{reason}");
        assert_eq!(endpoint.seen().len(), seen);
    }
}

#[test]
fn room_in_the_budget_is_not_waited_for_after_the_deadline() {
    let never = AtomicBool::new(false);
    let halt = Halt::new(&never);
    let endpoint = Endpoint::start(|_, _| Reply::says("yes"));
    let (asks, books) = (client(&endpoint), ledger(Some(MOST + 10)));
    // Another request that takes its time.
    let other = Usage { prompt_tokens: MOST, ..Usage::default() };
    let other = books.reserve(other, None, &halt).unwrap().unwrap();
    let begun = Instant::now();
    let question = Question { deadline: Some(begun + Duration::from_millis(50)), ..QUESTION };
    let reply = asks.ask(&question, &books, &halt).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(matches!(&reply.outcome, Outcome::Unanswered(reason) if reason.contains("no room")), "{reply:?}");
    assert_eq!((reply.usage, endpoint.seen().len()), (Usage::default(), 0));
    drop(other);
    let reply = asks.ask(&QUESTION, &books, &halt).unwrap();
    assert!(matches!(&reply.outcome, Outcome::Said(said) if said.text == "yes"), "{reply:?}");
}
