//! Stopping from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Whether to stop.
#[derive(Debug)]
pub struct Halt<'a> {
    outside: &'a AtomicBool,
    inside: AtomicBool,
}

impl<'a> Halt<'a> {
    /// Stops when the flag is set.
    pub fn new(outside: &'a AtomicBool) -> Self {
        Self { outside, inside: AtomicBool::new(false) }
    }

    /// Whether no further question is to be asked.
    pub fn is_wanted(&self) -> bool {
        self.outside.load(Ordering::Relaxed) || self.inside.load(Ordering::Relaxed)
    }

    /// Stops all that have this.
    pub fn request(&self) {
        self.inside.store(true, Ordering::Relaxed);
    }

    /// Sleeps, unless somebody asks for the end.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn sleep_until(&self, until: Instant) -> Result<()> {
        const NAP: Duration = Duration::from_millis(50);
        loop {
            if self.is_wanted() {
                return Err(Error::Interrupted);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(NAP));
        }
    }
}
