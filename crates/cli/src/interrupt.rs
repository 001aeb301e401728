//! Ctrl-C: ends the program with status 130, or asks a command that can stop in good order to do so.

use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of an interrupted program: 128 and the number of the signal.
pub const STATUS: i32 = 130;

static ORDERLY: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

/// Without a handler the signal ends the program as well, but with no exit status.
pub fn set_handler() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        // The second signal ends it at once.
        if !ORDERLY.load(Ordering::SeqCst) || STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(STATUS);
        }
    })
}

/// From now on the first signal only sets this flag: the command looks at it, saves its work and ends.
pub fn orderly() -> &'static AtomicBool {
    ORDERLY.store(true, Ordering::SeqCst);
    &STOP
}
