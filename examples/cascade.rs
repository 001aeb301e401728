//! A cascade in the library: everything in int8, what may be among the first three in f32, near copies out, variety last; all
//! within a second. `cargo run --release --example cascade`

use std::error::Error;
use std::time::Duration;

use jointly::rank::{Budget, Cascade, Confirm, Distinct, Guarantee, Mmr, Shingles};
use jointly::{CrossEncoder, LoadOptions, Precision};

const QUERY: &str = "how strong is the bite of a jaguar";

const DOCUMENTS: [&str; 8] = [
    "Tomatoes do best in full sun.",
    "A jaguar can bite through a turtle's shell; no other big cat bites harder for its size.",
    "The Jaguar E-Type reached 150 miles an hour.",
    "A jaguar can bite through a turtle's shell; no other big cat bites harder for its size!",
    "Jaguars kill by biting through the skull of their prey, where other cats go for the throat.",
    "The bite of a jaguar was measured at about 1500 newtons at the canine teeth.",
    "Dogs that bite are often afraid.",
    "Jaguars live from Mexico to Argentina, near water.",
];

/// The order, best first.
pub fn rank() -> Result<Vec<usize>, Box<dyn Error>> {
    let screen = CrossEncoder::load_default(LoadOptions::new().precision(Precision::Int8))?;
    let exact = CrossEncoder::load_default(LoadOptions::new())?;
    // `jointly audit default --precision int8 --against f32 --on YOUR_DATA` measures the slack that your texts need.
    let cascade = Cascade::new()
        .stage(Confirm::new(&screen, &exact, (3, 0.5))?)
        .stage(Distinct::new(0.8, Shingles::new(3))?)
        // min_max: whatever the score of the default model means, the best is 1 and the last is 0.
        .stage(Mmr::new(0.7, 4, Shingles::new(1))?.min_max())
        .budget(Budget::new().time(Duration::from_secs(1)));
    let outcome = cascade.rerank(QUERY, &DOCUMENTS)?;
    for stage in &outcome.stages {
        println!("{}: {} in, {} kept, {:?}", stage.name, stage.incoming, stage.kept, stage.elapsed);
        if let Some(Guarantee::SameTop { top_n, confirmed, .. }) = stage.guarantee {
            println!("  the first {top_n} are those of f32; {confirmed} were read twice");
        }
    }
    if outcome.is_partial() {
        println!("there was no time for more");
    }
    for hit in &outcome.hits[..outcome.kept] {
        println!("{}", DOCUMENTS[hit.index]);
    }
    Ok(outcome.hits.iter().map(|hit| hit.index).collect())
}

#[allow(dead_code, reason = "the tests call rank")]
fn main() -> Result<(), Box<dyn Error>> {
    rank().map(drop)
}
