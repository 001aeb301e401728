//! Several who compute on the same cores.

use crate::error::{Error, Result};

/// Who computes when, where several do on the same cores.
pub trait Turns: Send + Sync {
    /// Computes this, once, when its turn has come.
    fn take(&self, compute: &mut dyn FnMut());
}

/// Nobody else is waited for.
pub(crate) struct AtOnce;

impl Turns for AtOnce {
    fn take(&self, compute: &mut dyn FnMut()) {
        compute();
    }
}

/// What is computed when its turn has come.
pub(crate) fn in_turn<T>(turns: &dyn Turns, compute: impl Fn() -> Result<T>) -> Result<T> {
    let mut computed = None;
    turns.take(&mut || computed = Some(compute()));
    let problem = || "a turn ended and nothing was computed".to_string();
    computed.unwrap_or_else(|| Err(Error::Stage { stage: "in turn".into(), problem: problem() }))
}
