//! What the targets share: cases made of several files, a mutator that knows JSON, and the fixtures.

pub mod case;
pub mod fixture;
pub mod json;
