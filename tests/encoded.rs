//! Pairs encoded by different calls, with different options, are scored in one batch; each as it would be alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{testdata, tiny_checkpoints};
use jointly::text::EncodedPair;
use jointly::{CrossEncoder, Encoded, LoadOptions, Long, Pair, Score, ScoreOptions, WindowOptions};

fn long_document() -> String {
    (0..60).map(|i| format!("Sentence {i} speaks of rivers, moons and 東京. ")).collect()
}

#[test]
fn encoded_pairs_of_many_options_score_in_one_batch_as_alone() {
    let long = long_document();
    let documents = ["", "Mars is red.", long.as_str(), "Venus is hot."];
    let options = [
        ScoreOptions::new(),
        ScoreOptions::new().max_length(40),
        ScoreOptions::new().long(Long::TruncateStart),
        ScoreOptions::new().long(Long::Windows(WindowOptions::new().max_windows(3))),
        ScoreOptions::new().long(Long::Windows(WindowOptions::new().tokens(8))).max_document_tokens(30),
    ];
    for folder in tiny_checkpoints() {
        let model = CrossEncoder::load(&folder, LoadOptions::new().threads(2)).unwrap();
        let mut wanted: Vec<Score> = Vec::new();
        let mut encoded: Vec<Encoded> = Vec::new();
        for (i, options) in options.iter().enumerate() {
            let options = if i == 1 && model.info().max_length < 40 { &ScoreOptions::new() } else { options };
            let pairs = documents.map(|document| Pair { query: "which planet is red", document });
            let (Ok(scores), Ok(tokens)) =
                (model.score_pairs_with(&pairs, options), model.encode(&pairs, options))
            else {
                // Forty tokens may not hold a decoder's template.
                assert_eq!(i, 1, "{}", folder.display());
                continue;
            };
            wanted.extend(scores);
            encoded.extend(tokens);
        }
        // In an order that mixes the calls.
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (i, pair) in encoded.iter().enumerate() {
            order.extend((0..pair.windows().len()).map(|window| (i, window)));
        }
        order.sort_by_key(|(pair, window)| ((pair * 7 + window * 3) % 11, *pair, *window));
        let sequences: Vec<&EncodedPair> =
            order.iter().map(|(pair, window)| &encoded[*pair].windows()[*window].pair).collect();
        let found = model.logits(&sequences).unwrap();
        for (i, (pair, wanted)) in encoded.iter().zip(&wanted).enumerate() {
            let mut logits: Vec<(usize, f32)> =
                order.iter().zip(&found).filter(|((p, _), _)| *p == i).map(|((_, w), l)| (*w, *l)).collect();
            logits.sort_by_key(|(window, _)| *window);
            let logits: Vec<f32> = logits.into_iter().map(|(_, logit)| logit).collect();
            let score = model.score(pair, &logits).unwrap();
            assert_eq!(score.logit.to_bits(), wanted.logit.to_bits(), "{}: {i}", folder.display());
            assert_eq!(&score, wanted, "{}: {i}", folder.display());
            assert_eq!((pair.tokens(), pair.truncated()), (wanted.tokens, wanted.truncated));
        }
    }
}

#[test]
fn the_end_of_a_document_is_read_if_its_start_is_cut() {
    let model = CrossEncoder::load(testdata().join("tiny-bert"), LoadOptions::new()).unwrap();
    let long = long_document();
    let end: String = long.split_inclusive(' ').skip(300).collect();
    let pair = |document| [Pair { query: "which planet is red", document }];
    let cut = ScoreOptions::new().long(Long::TruncateStart);
    let whole = &model.encode(&pair(&long), &cut).unwrap()[0];
    assert!(whole.truncated());
    let start = &model.encode(&pair(&long), &ScoreOptions::new()).unwrap()[0];
    let part = &model.encode(&pair(&end), &cut).unwrap()[0];
    let last = |encoded: &Encoded| {
        let ids = &encoded.windows()[0].pair.input_ids;
        ids[ids.len() - 8..].to_vec()
    };
    assert_eq!(last(whole), last(part));
    assert_ne!(last(whole), last(start));
    let short = &model.encode(&pair("Mars is red."), &cut).unwrap()[0];
    assert!(!short.truncated());
}

#[test]
fn a_document_is_cut_to_its_own_limit_and_says_so() {
    let model = CrossEncoder::load(testdata().join("tiny-bert"), LoadOptions::new()).unwrap();
    let encode = |document, tokens| {
        let options = ScoreOptions::new().max_document_tokens(tokens);
        model.encode(&[Pair { query: "red", document }], &options).unwrap().remove(0)
    };
    let document = "Mars is the red planet of our sky";
    let all = encode(document, 1000);
    assert!(!all.truncated());
    for tokens in [1, 3, 5] {
        let cut = encode(document, tokens);
        assert!(cut.truncated());
        assert!(cut.tokens() < all.tokens(), "{tokens}");
        assert_eq!(cut.tokens(), encode(document, 0).tokens() + tokens);
    }
}
