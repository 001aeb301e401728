//! A scorer and a stage of your own. A scorer may be anything that gives numbers: here, how many words of the query a document
//! has. A stage may do anything that only reorders: here, newer documents go up among equals.
//! `cargo run --example cascade_own`

use std::error::Error;

use jointly::rank::{Applied, Cascade, Context, Kept, Placed, Rescore, Scorer, Stage};
use jointly::{Result, Score, ScoreScale};

/// Counts the words that query and document share.
struct Words;

impl Scorer for Words {
    fn scale(&self) -> ScoreScale {
        ScoreScale::Ordinal
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        let score = |document: &&str| {
            let count =
                query.split(' ').filter(|word| document.split(' ').any(|other| other == *word)).count();
            Score {
                logit: count as f32,
                score: count as f32,
                probability: None,
                tokens: document.split(' ').count(),
                truncated: false,
                windows: 1,
                span: None,
            }
        };
        Ok(documents.iter().map(score).collect())
    }
}

/// Sorts on what the stage before gave, and then on the year at the end of the text.
struct Newest;

impl Stage for Newest {
    fn name(&self) -> &str {
        "newest"
    }

    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let texts = context.texts(incoming);
        let year =
            |text: &str| text.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
        let value = |placed: &Placed, text: &str| placed.value.unwrap_or(0.0) + year(text) / 1e4;
        let mut kept: Vec<Kept> = incoming
            .iter()
            .zip(&texts)
            .map(|(placed, text)| Kept { index: placed.index, value: value(placed, text) })
            .collect();
        kept.sort_by(|a, b| b.value.total_cmp(&a.value));
        Ok(Applied::new(kept).read(incoming.len()))
    }
}

const DOCUMENTS: [&str; 4] = [
    "minutes of the meeting on noise 2019",
    "the cat sat on the mat 2024",
    "minutes of the meeting on noise 2023",
    "noise in the library 2021",
];

/// The order, best first.
pub fn rank() -> std::result::Result<Vec<usize>, Box<dyn Error>> {
    let cascade = Cascade::new().stage(Rescore::all(Words).keep(3)).stage(Newest);
    let outcome = cascade.rerank("minutes noise", &DOCUMENTS)?;
    for hit in &outcome.hits {
        println!("{}", DOCUMENTS[hit.index]);
    }
    Ok(outcome.hits.iter().map(|hit| hit.index).collect())
}

#[allow(dead_code, reason = "the tests call rank")]
fn main() -> std::result::Result<(), Box<dyn Error>> {
    rank().map(drop)
}
