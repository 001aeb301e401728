//! The part of the Python package `jointly` that is in Rust. It is what `jointly._native` has; what users import is in
//! `python/jointly`, and so is everything that Python says more shortly.

mod cascade;
mod errors;
mod flight;
mod load;
mod metrics;
mod model;
mod text;

use pyo3::prelude::*;

/// Scores, cascades and metrics in Rust. Private: import `jointly`.
#[pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::cascade::Cascade;
    #[pymodule_export]
    use crate::metrics::{audit, evaluate};
    #[pymodule_export]
    use crate::model::{Model, sigmoid};
    #[pymodule_export]
    use crate::text::TextColumn;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::flight::start();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
