//! A pair's logit is bit-identical alone, in any batch, in any order, with any number of threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;

use common::{testdata, tiny_checkpoints};
use jointly::batch::prefixes;
use jointly::text::EncodedPair;
use jointly::{CrossEncoder, LoadOptions, Pair, Precision, ScoreOptions};
use proptest::prelude::*;

/// Words that give pairs of many lengths and scripts.
fn texts() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z]{1,9}",
        Just("relevant".to_string()),
        Just("Straße".to_string()),
        Just("東京".to_string()),
        Just("42.5%".to_string()),
        Just("[SEP]".to_string()),
    ];
    proptest::collection::vec(word, 1..60).prop_map(|words| words.join(" "))
}

fn logits(model: &CrossEncoder, pairs: &[(String, String)]) -> Vec<u32> {
    let pairs: Vec<Pair<'_>> = pairs.iter().map(|(query, document)| Pair { query, document }).collect();
    model.score_pairs(&pairs).unwrap().iter().map(|score| score.logit.to_bits()).collect()
}

#[test]
fn logits_do_not_depend_on_neighbours_order_or_threads() {
    let cases = tiny_checkpoints()
        .into_iter()
        .flat_map(|folder| Precision::ALL.map(|precision| (folder.clone(), precision)));
    for (folder, precision) in cases {
        let load = |threads| {
            CrossEncoder::load(&folder, LoadOptions::new().threads(threads).precision(precision)).unwrap()
        };
        let models = [load(1), load(2), load(5)];
        let name = format!("{} in {precision}", folder.file_name().unwrap().to_string_lossy());
        let config = ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(pairs in proptest::collection::vec((texts(), texts()), 1..24), turn in 0_usize..24)| {
            let alone: Vec<u32> = pairs.iter().flat_map(|pair| logits(&models[0], std::slice::from_ref(pair))).collect();
            let mut turned = pairs.clone();
            turned.rotate_left(turn % pairs.len());
            for model in &models {
                prop_assert_eq!(&logits(model, &pairs), &alone, "{}: together", name);
                let mut back = logits(model, &turned);
                back.rotate_right(turn % pairs.len());
                prop_assert_eq!(&back, &alone, "{}: in another order", name);
            }
        });
    }
}

#[test]
fn many_pairs_give_what_each_gives_alone() {
    let model = CrossEncoder::load(testdata().join("tiny-bert"), LoadOptions::new().threads(2)).unwrap();
    let pairs: Vec<(String, String)> = (0..5_000)
        .map(|i| (format!("query {}", i / 100), format!("document number {i} {}", "word ".repeat(i % 40))))
        .collect();
    let together = logits(&model, &pairs);
    for i in [0, 1, 99, 100, 2047, 2048, 4095, 4096, 4999] {
        assert_eq!(together[i], logits(&model, &pairs[i..=i])[0], "pair {i}");
    }
}

/// Pairs of one request begin alike: a causal model computes that once. Each alone shares nothing.
#[test]
fn what_causal_models_share_changes_no_bit() {
    let shared: Vec<PathBuf> = tiny_checkpoints()
        .into_iter()
        .filter(|folder| {
            CrossEncoder::load(folder, LoadOptions::new()).unwrap().info().architecture.starts_with("Qwen")
        })
        .collect();
    assert_eq!(shared.len(), 4);
    let query =
        |number: usize| format!("query {number}: {}", "how old is the bridge ".repeat(1 + number % 7));
    // Of every length, some the beginning of others, and from one of the queries again later.
    let mut pairs: Vec<(String, String)> =
        (0..90).map(|i| (query(i / 15), "word of a document ".repeat(i * i % 23))).collect();
    pairs.extend((0..5).map(|i| (query(0), format!("number {i}"))));
    for (folder, precision) in
        shared.iter().flat_map(|folder| Precision::ALL.map(|precision| (folder, precision)))
    {
        let load = |threads| {
            CrossEncoder::load(folder, LoadOptions::new().threads(threads).precision(precision)).unwrap()
        };
        let alone: Vec<u32> = {
            let model = load(1);
            let of_one: Vec<Pair<'_>> =
                pairs[..15].iter().map(|(query, document)| Pair { query, document }).collect();
            let encoded = model.encode_pairs(&of_one, &ScoreOptions::new()).unwrap();
            let encoded: Vec<&EncodedPair> = encoded.iter().map(|windows| &windows[0].pair).collect();
            assert!(prefixes(&encoded).iter().all(|prefix| prefix.group == 0 && prefix.tokens >= 16));
            pairs.iter().flat_map(|pair| logits(&model, std::slice::from_ref(pair))).collect()
        };
        for threads in [1, 2, 3] {
            let model = load(threads);
            for (from, to) in [(0, pairs.len()), (0, 2), (10, 20), (0, 15)] {
                let found = logits(&model, &pairs[from..to]);
                assert_eq!(found, alone[from..to], "{} in {precision}, {threads} threads", folder.display());
            }
        }
    }
}
