//! Models that read a list in one pass: parity with PyTorch on a tiny seeded checkpoint.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use jointly::rank::listwise::{OnePass, OnePassOptions};
use jointly::rank::{Budget, Cascade, Request};
use jointly::{CrossEncoder, Error, LoadOptions, Precision};
use serde::Deserialize;

/// Of a cosine. Three layers of 36 values in f32, whose sums are taken in another order than PyTorch's, differ by some 1e-6.
const TOLERANCE: f32 = 2e-5;

#[derive(Deserialize)]
struct Expected {
    documents: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    query: String,
    block: usize,
    instruction: Option<String>,
    max_query: Option<usize>,
    max_document: Option<usize>,
    blocks: Vec<usize>,
    scores: Vec<f32>,
}

impl Case {
    fn options(&self) -> OnePassOptions {
        let mut options = OnePassOptions::new().block(self.block);
        if let Some(instruction) = &self.instruction {
            options = options.instruction(instruction);
        }
        if let Some(tokens) = self.max_query {
            options = options.max_query_tokens(tokens);
        }
        if let Some(tokens) = self.max_document {
            options = options.max_document_tokens(tokens);
        }
        options
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/list-jina-v3")
}

fn expected() -> Expected {
    serde_json::from_str(&std::fs::read_to_string(folder().join("scores.json")).unwrap()).unwrap()
}

fn load(threads: usize) -> OnePass {
    OnePass::load(folder(), LoadOptions::new().threads(threads)).unwrap()
}

#[test]
fn scores_are_those_of_pytorch() {
    let Expected { documents, cases } = expected();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let model = load(1);
    for case in &cases {
        let found = model.score(&case.query, &documents, &case.options()).unwrap();
        let logits: Vec<f32> = found.iter().map(|score| score.logit).collect();
        assert_eq!(logits.len(), case.scores.len());
        let largest = logits.iter().zip(&case.scores).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= TOLERANCE, "{} in {:?}: {largest}: {logits:?}", case.query, case.blocks);
        let is_cut = found.iter().map(|score| score.truncated).collect::<Vec<_>>();
        assert_eq!(is_cut.iter().any(|cut| *cut), case.max_document.is_some(), "{is_cut:?}");
    }
    // What the cases are for: they differ.
    let spread =
        |a: &Case, b: &Case| a.scores.iter().zip(&b.scores).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(spread(&cases[0], &cases[1]) > 1e-3 && spread(&cases[1], &cases[2]) > 1e-3);
}

#[test]
fn threads_change_no_bit() {
    let Expected { documents, cases } = expected();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let score = |threads| load(threads).score(&cases[1].query, &documents, &cases[1].options()).unwrap();
    assert_eq!(score(1), score(3));
}

#[test]
fn half_precision_is_close() {
    let Expected { documents, cases } = expected();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let model = OnePass::load(folder(), LoadOptions::new().precision(Precision::Bf16)).unwrap();
    let found = model.score(&cases[0].query, &documents, &cases[0].options()).unwrap();
    for (score, expected) in found.iter().zip(&cases[0].scores) {
        // bf16 has 8 bits: 0.4 % of each product, over three layers of a model with large weights.
        assert!((score.logit - expected).abs() < 0.1, "{} {expected}", score.logit);
    }
}

#[test]
fn it_is_a_stage_that_reads_what_it_is_given_together() {
    let Expected { documents, cases } = expected();
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    let model = load(2);
    let query = &cases[0].query;
    let cascade = Cascade::new().stage(model.stage(OnePassOptions::new().depth(6)).unwrap());
    let outcome = cascade.run(&Request::new(query, &texts)).unwrap();
    let found: Vec<usize> = outcome.hits.iter().map(|hit| hit.index).collect();
    let ranking = model.rerank(query, &texts[..6], &OnePassOptions::new()).unwrap();
    let alone: Vec<usize> = ranking.hits.iter().map(|hit| hit.index).collect();
    assert_eq!(found[..6], alone);
    assert_eq!(found[6..], (6..texts.len()).collect::<Vec<_>>());
    assert!(outcome.stages[0].spent.tokens > 0);
    let stopped =
        cascade.run(&Request::new(query, &texts).budget(Budget::new().time(std::time::Duration::ZERO)));
    assert!(stopped.unwrap().is_partial());
}

#[test]
fn what_cannot_be_used_is_refused() {
    let model = load(1);
    let error = |result: jointly::Result<Vec<jointly::Score>>| result.unwrap_err().to_string();
    assert!(model.score("query", &[], &OnePassOptions::new()).unwrap().is_empty());
    assert!(error(model.score(" ", &["a"], &OnePassOptions::new())).contains("query"));
    assert!(error(model.score("a", &["a"], &OnePassOptions::new().block(0))).contains("block"));
    let short = OnePass::load(folder(), LoadOptions::new().max_length(50)).unwrap();
    assert!(short.score("a", &["a"], &OnePassOptions::new()).is_err());
    assert!(OnePass::load(folder(), LoadOptions::new().precision(Precision::Int8)).is_err());
    // A pointwise reranker cannot read it, nor this one those.
    assert!(CrossEncoder::load(folder(), LoadOptions::new()).is_err());
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tiny-qwen3");
    assert!(OnePass::load(other, LoadOptions::new()).unwrap_err().to_string().contains("JinaForRanking"));
}

#[test]
fn a_short_sequence_cuts_documents_and_splits_blocks() {
    let load =
        |max_length| OnePass::load(folder(), LoadOptions::new().threads(1).max_length(max_length)).unwrap();
    let options = OnePassOptions::new();
    let Err(Error::NoRoom { needed, max_length: 50 }) = load(50).score("red planet", &["a"], &options) else {
        panic!("there is room in 50 tokens")
    };
    let short = load(needed + 24);
    let long = "mars is red and venus is not ".repeat(400);
    let scores = short.score("red planet", &[&long, "mars", &long], &options).unwrap();
    assert_eq!(scores.iter().map(|score| score.truncated).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(scores[0].logit.to_bits(), scores[2].logit.to_bits(), "each has a sequence of its own");
    // The authors' blocks do not reckon with the template, of which many short documents have much.
    let many = vec!["mars"; 40];
    let options = options.max_document_tokens(4);
    let cascade = Cascade::new().stage(short.stage(options).unwrap());
    let found = cascade.run(&Request::new("red planet", &many)).unwrap();
    assert_eq!((found.stages[0].read, found.spent.pairs), (40, 40));
    assert!(found.spent.calls > 1, "{:?}", found.spent);
}
