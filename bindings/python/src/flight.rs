//! What happens without the GIL, and forks.
//!
//! The engine's threads end with the call that started them, so a forked child can use a model that its parent loaded. The one thing
//! that can go wrong is a fork while another thread of the parent is in the engine: a lock that it held stays locked in the
//! child for ever. Then every call in the child is refused, instead of hanging.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use pyo3::prelude::*;

use crate::errors::Kind;

/// The process that the other two are about.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Calls that are in the engine now.
static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
/// Whether this process was forked while a call was in the engine.
static IS_BROKEN: AtomicBool = AtomicBool::new(false);

/// For the process that imports the module.
pub fn start() {
    PROCESS.store(std::process::id(), Ordering::SeqCst);
}

/// Runs `work` without the GIL.
///
/// # Errors
/// `ForkError`.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let here = std::process::id();
    // Between a fork and the first call in the child there is one thread only.
    if PROCESS.swap(here, Ordering::SeqCst) != here && IN_FLIGHT.swap(0, Ordering::SeqCst) > 0 {
        IS_BROKEN.store(true, Ordering::SeqCst);
    }
    if IS_BROKEN.load(Ordering::SeqCst) {
        let problem = "this process was forked while another thread was scoring, and may have inherited a lock that nobody will \
                       open; start workers with multiprocessing's \"spawn\" or \"forkserver\", or fork before scoring";
        return Err(Kind::Fork.error(py, problem, None));
    }
    let flight = Flight::begin();
    let result = py.detach(work);
    drop(flight);
    Ok(result)
}

struct Flight;

impl Flight {
    fn begin() -> Self {
        IN_FLIGHT.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        IN_FLIGHT.fetch_sub(1, Ordering::SeqCst);
    }
}
