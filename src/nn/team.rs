use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Matrix;

/// How often a waiting thread looks before it gives way to others: some microseconds, less than it takes to be woken.
const SPINS: usize = 1 << 10;
/// How long it gives way before it sleeps: longer than members are apart. A thread that sleeps at every meeting looks as if it had
/// little to do, and may be left on the core of another member.
const YIELDS: Duration = Duration::from_millis(2);

/// Threads that compute one batch together, each its own rows. They meet once a layer, where each row's attention needs
/// the keys and values of all.
#[derive(Debug)]
pub struct Team {
    size: usize,
    /// What each member gave last, and the time before: a member may be one meeting ahead of another, never two.
    parts: [Vec<Mutex<Arc<Matrix>>>; 2],
    arrived: AtomicUsize,
    meetings: AtomicUsize,
    broken: AtomicBool,
    /// Held while `meetings` or `broken` changes, so that no sleeper misses it.
    change: Mutex<()>,
    changed: Condvar,
}

impl Team {
    /// A team of `size` members, numbered from 0.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let parts = || (0..size).map(|_| Mutex::default()).collect();
        Self {
            size,
            parts: [parts(), parts()],
            arrived: AtomicUsize::new(0),
            meetings: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            change: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    /// The number of members.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Runs a member's work. Should it panic, the others panic too instead of waiting for ever.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Breaks<'a>(&'a Team);
        impl Drop for Breaks<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.announce(|| self.0.broken.store(true, Ordering::Release));
                }
            }
        }
        let _breaks = Breaks(self);
        work()
    }

    /// Gives this member's rows, waits for the others, and returns the rows of all, in the members' order.
    pub(super) fn gather(&self, member: usize, rows: Matrix) -> Matrix {
        let meeting = self.meetings.load(Ordering::Acquire);
        let parts = &self.parts[meeting % 2];
        let cols = rows.cols;
        *parts[member].lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(rows);
        self.meet(meeting);
        let given =
            |part: &Mutex<Arc<Matrix>>| Arc::clone(&part.lock().unwrap_or_else(PoisonError::into_inner));
        let given: Vec<Arc<Matrix>> = parts.iter().map(given).collect();
        let mut all = Matrix::reused(given.iter().map(|part| part.rows).sum(), cols);
        let mut start = 0;
        for part in given {
            all.data[start..start + part.data.len()].copy_from_slice(&part.data);
            start += part.data.len();
        }
        all
    }

    fn meet(&self, meeting: usize) {
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.size {
            self.arrived.store(0, Ordering::Relaxed);
            self.announce(|| self.meetings.store(meeting.wrapping_add(1), Ordering::Release));
            return;
        }
        let waits = || {
            assert!(!self.broken.load(Ordering::Acquire), "another thread of the team panicked");
            self.meetings.load(Ordering::Acquire) == meeting
        };
        for _ in 0..SPINS {
            if !waits() {
                return;
            }
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        while begun.elapsed() < YIELDS {
            std::thread::yield_now();
            if !waits() {
                return;
            }
        }
        let mut change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        while waits() {
            change = self.changed.wait(change).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn announce(&self, change: impl FnOnce()) {
        let guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        change();
        drop(guard);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_gets_all_rows_at_every_meeting() {
        let team = Team::new(3);
        std::thread::scope(|scope| {
            for member in 0..team.size() {
                let team = &team;
                scope.spawn(move || {
                    team.run(|| {
                        for meeting in 0..1000 {
                            // Member 1 has no rows at times.
                            let rows = if member == 1 && meeting % 3 == 0 { 0 } else { 1 };
                            let value = (meeting * 3 + member) as f32;
                            let all = team.gather(member, Matrix::new(vec![value; 2 * rows], rows, 2));
                            let members = [0, 1, 2].into_iter().filter(|m| *m != 1 || meeting % 3 != 0);
                            let wanted: Vec<f32> =
                                members.flat_map(|m| [(meeting * 3 + m) as f32; 2]).collect();
                            assert_eq!((all.rows, &all.data), (wanted.len() / 2, &wanted.into()));
                        }
                    });
                });
            }
        });
    }

    #[test]
    fn a_panic_of_one_is_a_panic_of_all() {
        let team = Team::new(2);
        let outcome = std::thread::scope(|scope| {
            let waits = scope.spawn(|| team.run(|| team.gather(0, Matrix::zeros(1, 1))));
            let panics = scope.spawn(|| team.run(|| panic!("a bug")));
            (waits.join().is_err(), panics.join().is_err())
        });
        assert_eq!(outcome, (true, true));
    }
}
