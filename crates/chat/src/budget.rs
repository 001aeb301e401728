//! What all requests together may cost.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Halt, Result, Usage};

/// Limits of what all requests together may spend.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Budget {
    /// Tokens of prompts and answers.
    pub max_tokens: Option<u64>,
    /// In the currency of the prices.
    pub max_cost: Option<f64>,
}

/// What was spent and what is on its way. A request is made only when there is room for the most it can cost.
#[derive(Debug)]
pub struct Ledger {
    budget: Budget,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    spent: Usage,
    reserved: Usage,
    requests: usize,
}

impl Ledger {
    /// A ledger in which some usage stands already.
    pub fn new(budget: Budget, spent: Usage) -> Self {
        let state = State { spent, ..State::default() };
        Self { budget, state: Mutex::new(state), settled: Condvar::new() }
    }

    /// What was spent until now.
    pub fn spent(&self) -> Usage {
        self.lock().spent
    }

    /// Sets aside the most that a request can cost. Waits for other requests, as long as these might leave room; none if they do not
    /// by the deadline.
    ///
    /// # Errors
    /// [`Error::BudgetSpent`], [`Error::Interrupted`].
    pub fn reserve(
        &self,
        most: Usage,
        deadline: Option<Instant>,
        halt: &Halt<'_>,
    ) -> Result<Option<Reservation<'_>>> {
        const GLANCE: Duration = Duration::from_millis(100);
        let mut state = self.lock();
        loop {
            if halt.is_wanted() {
                return Err(Error::Interrupted);
            }
            let mut after = state.spent;
            after.add(most);
            after.add(state.reserved);
            if self.allows(after) {
                state.reserved.add(most);
                state.requests += 1;
                return Ok(Some(Reservation { ledger: self, most, is_settled: false }));
            }
            if state.requests == 0 {
                return Err(Error::BudgetSpent);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let woken = self.settled.wait_timeout(state, left.map_or(GLANCE, |left| left.min(GLANCE)));
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn allows(&self, usage: Usage) -> bool {
        self.budget.max_tokens.is_none_or(|most| usage.tokens() <= most)
            && self.budget.max_cost.is_none_or(|most| usage.cost <= most)
    }

    fn settle(&self, most: Usage, spent: Usage) {
        let mut state = self.lock();
        state.reserved.subtract(most);
        state.requests -= 1;
        if state.requests == 0 {
            state.reserved = Usage::default(); // of the sums of money, no rounding stays
        }
        state.spent.add(spent);
        self.settled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room in the budget for one request. Dropped without [`Reservation::settle`], the request cost nothing.
#[derive(Debug)]
pub struct Reservation<'a> {
    ledger: &'a Ledger,
    most: Usage,
    is_settled: bool,
}

impl Reservation<'_> {
    /// Counts what it cost.
    pub fn settle(mut self, spent: Usage) {
        self.is_settled = true;
        self.ledger.settle(self.most, spent);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.ledger.settle(self.most, Usage::default());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn tokens(count: u64) -> Usage {
        Usage { prompt_tokens: count, ..Usage::default() }
    }

    #[test]
    fn no_request_is_made_that_might_exceed_the_budget() {
        let stop = AtomicBool::new(false);
        let halt = Halt::new(&stop);
        let ledger = Ledger::new(Budget { max_tokens: Some(100), max_cost: None }, tokens(20));
        let first = ledger.reserve(tokens(70), None, &halt).unwrap().unwrap();
        std::thread::scope(|scope| {
            // It waits for the first to leave room.
            let second = scope.spawn(|| {
                let room = ledger.reserve(tokens(40), None, &halt).unwrap().unwrap();
                room.settle(tokens(40));
            });
            std::thread::sleep(Duration::from_millis(20));
            assert!(!second.is_finished());
            first.settle(tokens(30));
            assert!(second.join().is_ok());
        });
        assert_eq!(ledger.spent(), tokens(90));
        assert!(matches!(ledger.reserve(tokens(11), None, &halt), Err(Error::BudgetSpent)));
        drop(ledger.reserve(tokens(10), None, &halt).unwrap().unwrap()); // failed, and cost nothing
        ledger.reserve(tokens(10), None, &halt).unwrap().unwrap().settle(tokens(10));
        assert_eq!(ledger.spent(), tokens(100));
    }

    #[test]
    fn nobody_waits_for_room_longer_than_there_is_time() {
        let stop = AtomicBool::new(false);
        let halt = Halt::new(&stop);
        let ledger = Ledger::new(Budget { max_tokens: Some(100), max_cost: None }, Usage::default());
        let hangs = ledger.reserve(tokens(70), None, &halt).unwrap().unwrap();
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(30);
        assert!(ledger.reserve(tokens(40), Some(deadline), &halt).unwrap().is_none());
        assert!(begun.elapsed() >= Duration::from_millis(30));
        // Where there is room, a deadline that has passed is for whoever makes the request.
        assert!(ledger.reserve(tokens(30), Some(deadline), &halt).unwrap().is_some());
        drop(hangs);
        assert!(ledger.reserve(tokens(40), Some(deadline), &halt).unwrap().is_some());
    }

    #[test]
    fn money_is_counted_too() {
        let stop = AtomicBool::new(false);
        let halt = Halt::new(&stop);
        let money = |cost| Usage { cost, ..Usage::default() };
        let ledger = Ledger::new(Budget { max_tokens: None, max_cost: Some(1.0) }, Usage::default());
        for _ in 0..10 {
            ledger.reserve(money(0.1), None, &halt).unwrap().unwrap().settle(money(0.09));
        }
        assert!(matches!(ledger.reserve(money(0.11), None, &halt), Err(Error::BudgetSpent)));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(ledger.reserve(money(0.0), None, &halt), Err(Error::Interrupted)));
    }
}
