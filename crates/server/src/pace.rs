//! How fast failures leave, and how often. Who is turned away must not take the cores from those whose requests were taken in:
//! neither clients that ask again at once, a thousand times a second, nor many that come one by one.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures a second, for each core. They cost .02 to .1 ms of one: a tenth of it at most.
const EACH_SECOND: u32 = 1000;
/// Of these, so many at once are none too many.
const SLACK: Duration = Duration::from_millis(100);
/// Nobody waits longer for bad news.
const LONGEST: Duration = Duration::from_secs(1);

/// How long a thread that has just refused a request listens to nobody. Being woken costs more than refusing: the cache and the
/// tiles are full of what is being scored.
const REST: Duration = Duration::from_millis(3);

thread_local! {
    static HAS_REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread refuses a request since the server is full.
pub fn refused() {
    HAS_REFUSED.set(true);
}

/// To be called when a thread that answers has nothing to do. If it has refused anything since the last time, it lets more come before
/// it looks: they are answered together.
pub fn rest() {
    if HAS_REFUSED.take() {
        std::thread::sleep(REST);
    }
}

/// A pace that many keep together.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// When the next one may go, if none was saved up.
    next: Mutex<Instant>,
}

impl Pace {
    /// The pace for a machine of so many cores.
    #[must_use]
    pub fn of(cores: usize) -> Self {
        let each_second = EACH_SECOND.saturating_mul(u32::try_from(cores.max(1)).unwrap_or(u32::MAX));
        Self { interval: Duration::from_secs(1) / each_second, next: Mutex::new(Instant::now()) }
    }

    /// Waits until it is this one's turn; most often that is now.
    pub async fn turn(&self) {
        let now = Instant::now();
        let turn = self.take(now);
        if turn > now {
            tokio::time::sleep_until(turn).await;
        }
    }

    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = *next;
        *next = turn.max(now.checked_sub(SLACK).unwrap_or(now)).min(now + LONGEST) + self.interval;
        turn.min(now + LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_a_flood_at_the_pace() {
        let pace = Pace::of(2);
        let start = Instant::now() + Duration::from_secs(1);
        let at_once = (0..1000).filter(|_| pace.take(start) <= start).count();
        assert_eq!(at_once, 201); // those of the slack, and one
        // Eight hundred wait, two to a millisecond.
        let turn = pace.take(start) - start;
        assert!((Duration::from_millis(398)..=Duration::from_millis(402)).contains(&turn), "{turn:?}");
        let later = start + Duration::from_secs(1);
        assert!(pace.take(later) <= later);
    }

    #[test]
    fn nobody_waits_longer_than_a_second() {
        let pace = Pace::of(1);
        let start = Instant::now();
        let longest = (0..5000).map(|_| pace.take(start) - start).max();
        assert_eq!(longest, Some(LONGEST));
        let later = start + LONGEST + Duration::from_millis(10);
        assert!(pace.take(later) <= later);
    }
}
