//! Is a difference more than luck, is a loss less than matters, and could these queries tell at all?
//!
//! [`compare`] answers for two rankers on the same queries, [`compare_all`] for several against one baseline; the parts
//! that they are made of are here too. [`interaction`] asks whether an edge is larger on one set than on another. Every random number comes from a seed, so the same input gives the same answer,
//! digit for digit, on every machine.
//!
//! ```
//! use jointly_eval::PerQuery;
//! use jointly_eval::significance::{CompareOptions, Verdict, compare};
//!
//! let baseline: PerQuery = (0..40).map(|i| (format!("q{i}"), 0.5 + 0.01 * (i % 7) as f64)).collect();
//! let candidate: PerQuery = baseline.0.iter().enumerate().map(|(i, (q, v))| (q, v + 0.02 * (i % 3) as f64)).collect();
//! let comparison = compare(&baseline, &candidate, CompareOptions::new())?;
//! assert!(matches!(comparison.verdict(), Verdict::Better { .. }));
//! println!("{comparison}");
//! # Ok::<(), jointly_eval::Error>(())
//! ```

mod bootstrap;
mod compare;
mod equivalence;
mod holm;
mod interaction;
mod power;
mod randomisation;
pub(crate) mod rng;
mod verdict;

pub use bootstrap::{Interval, bootstrap_interval};
pub use compare::{CompareOptions, Comparison, Tested, compare, compare_all};
pub use equivalence::{Tost, tost};
pub use holm::holm;
pub use interaction::{Interaction, interaction};
pub use power::{detectable_difference, fewest_queries, queries_needed};
pub use randomisation::randomisation_p;
pub use verdict::Verdict;

/// The standard deviation of a sample (divided by n - 1); 0 for fewer than two values.
fn standard_deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = crate::data::mean(values.iter().copied());
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}
