//! The examples, run.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a test fails by panicking, and an example explains itself"
)]

#[cfg(feature = "default-model")]
#[path = "../examples/cascade.rs"]
mod cascade;
#[path = "../examples/cascade_own.rs"]
mod cascade_own;

#[cfg(feature = "default-model")]
#[test]
fn a_cascade_of_two_precisions_and_two_kinds_of_variety() {
    let order = cascade::rank().unwrap();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..8).collect::<Vec<_>>());
    // One of the two copies is on top with the other two that answer; the other copy is not among the four kept.
    assert!(order[..4].contains(&1) != order[..4].contains(&3), "{order:?}");
    assert!(order[..4].contains(&5), "{order:?}");
}

#[test]
fn a_scorer_and_a_stage_of_ones_own() {
    assert_eq!(cascade_own::rank().unwrap(), [2, 0, 3, 1]);
}
