//! The cores of this machine, lent to one batch after another, whatever model it is for.

use std::sync::{Condvar, Mutex, PoisonError};

/// A lock that is given in the order in which it was asked for: models that all have work share the time evenly, and none starves.
#[derive(Debug, Default)]
pub struct Cores {
    state: Mutex<State>,
    turn: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    serving: u64,
}

impl Cores {
    /// Waits for the cores; they are given back when the guard is dropped.
    pub fn acquire(&self) -> Lent<'_> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = state.next;
        state.next += 1;
        while state.serving != ticket {
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Lent(self)
    }
}

/// The cores, for as long as this lives.
#[derive(Debug)]
pub struct Lent<'a>(&'a Cores);

impl Lent<'_> {
    /// Whether another waits for them.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.next > state.serving + 1
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).serving += 1;
        self.0.turn.notify_all();
    }
}

/// Lets this thread, and those it starts, compute only when no thread that answers clients wants to: a refusal must not wait for a
/// batch. A system that does not allow it has scores all the same.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "scoring threads keep the priority of the others");
    }
}

/// Some 15 times less of a core than an ordinary thread gets that wants it too.
#[cfg(target_os = "linux")]
const NICE: i32 = 12;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_cores_are_lent_to_one_at_a_time_and_to_all_in_turn() {
        let cores = Arc::new(Cores::default());
        let inside = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (cores, inside) = (Arc::clone(&cores), Arc::clone(&inside));
                std::thread::spawn(move || {
                    for _ in 0..200 {
                        let lent = cores.acquire();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lent);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
