//! Bulk scoring by SQL: DataFusion with functions that score, on one machine, or through Ballista on a cluster.
//!
//! The way of a batch: [`tables`] reads files, [`functions`] are called with a record batch of queries and documents, the
//! process's one [`engine`] scores it, and [`output`] writes what comes out. [`sql`] and [`score`] are what `jointly-sql` does;
//! [`cluster`] is the other two programs.

pub mod cluster;
pub mod engine;
mod error;
pub mod functions;
pub mod model;
pub mod output;
pub mod score;
pub mod sql;
pub mod tables;

use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::watch;

pub use error::{Error, Fault, Result};

/// Runs a program to its end on as many threads as it needs, and says how it went.
pub fn main(run: impl Future<Output = Result<()>>) -> std::process::ExitCode {
    // DataFusion walks plans by recursion, which a build without optimisation needs the stack for.
    const STACK: usize = 32 << 20;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run);
            // Nothing is waited for, not even a batch that is being scored.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Error::Failed(error.to_string())),
    };
    let (status, error) = match result {
        Ok(()) | Err(Error::ClosedPipe) => return std::process::ExitCode::SUCCESS,
        Err(error @ Error::Input(_)) => (2, error),
        Err(error @ Error::Interrupted) => (130, error),
        Err(error) => (1, error),
    };
    say(error);
    std::process::ExitCode::from(status)
}

static IS_INTERRUPTED: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// Whether Ctrl-C was pressed, in what [`interruptible`] runs.
pub fn is_interrupted() -> bool {
    *IS_INTERRUPTED.borrow()
}

/// Ends when Ctrl-C is pressed, or at once if it was, in what [`interruptible`] runs.
pub async fn interrupted() {
    // The sender is never dropped.
    let _ = IS_INTERRUPTED.subscribe().wait_for(|is_interrupted| *is_interrupted).await;
}

/// `run`, which Ctrl-C ends with [`Error::Interrupted`]: in good order if it listens to [`interrupted`] and needs no longer than
/// `grace`, else in the middle of a batch.
///
/// # Errors
/// Those of `run`.
pub async fn interruptible(
    grace: Duration,
    run: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<()> {
    // A task of its own: a batch that is being scored keeps its thread busy, and the signal must be heard meanwhile.
    let mut task = tokio::spawn(run);
    let done = tokio::select! {
        done = &mut task => done,
        _ = tokio::signal::ctrl_c() => {
            IS_INTERRUPTED.send_replace(true);
            match tokio::time::timeout(grace, task).await {
                Ok(done) => done,
                Err(_) => {
                    output::remove_partial();
                    return Err(Error::Interrupted);
                }
            }
        }
    };
    done.map_err(|error| Error::Failed(error.to_string()))?
}

/// A line on standard error. That nobody can read it is no reason to stop.
pub fn say(message: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "jointly: {message}");
}

/// What the engine under us has to say, on standard error: warnings, or with `verbose` more.
pub fn log_to_stderr(verbose: bool) {
    struct Stderr;
    impl log::Log for Stderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            say(format_args!("{}: {}: {}", record.level(), record.target(), record.args()));
        }
        fn flush(&self) {}
    }
    static STDERR: Stderr = Stderr;
    // There is another one already only in tests, which is as well.
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(if verbose { log::LevelFilter::Info } else { log::LevelFilter::Warn });
    }
}
