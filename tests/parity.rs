//! Every architecture against Transformers in fp32, layer by layer, on the tiny checkpoints of `testdata/`.

mod common;

use common::{Expected, tiny_checkpoints};
use jointly::batch::Batch;
use jointly::text::EncodedPair;
use jointly::{CrossEncoder, LoadOptions, Pair, Precision};

/// The bars of the project, on the logit.
const MAX_LOGIT_DIFFERENCE_ENCODER: f32 = 1e-4;
const MAX_LOGIT_DIFFERENCE_DECODER: f32 = 1e-3;
/// Layers are compared relative to the largest value of the layer. Two orders of f32 summation over at most 100 products
/// differ by some tens of units in the last place (6e-8) of that value; ten layers, and norms of rows that are small,
/// carry it to about 3e-5.
const MAX_LAYER_DIFFERENCE: f32 = 1e-4;

#[test]
fn every_layer_and_logit_equals_transformers() {
    let checkpoints = tiny_checkpoints();
    assert!(checkpoints.len() >= 9, "testdata holds a checkpoint for each architecture: {checkpoints:?}");
    for folder in checkpoints {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let model = CrossEncoder::load(&folder, LoadOptions::new().threads(1))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = Expected::read(&folder);
        let bar = if model.info().architecture.starts_with("Qwen") {
            MAX_LOGIT_DIFFERENCE_DECODER
        } else {
            MAX_LOGIT_DIFFERENCE_ENCODER
        };
        let mut layers_compared = 0;
        let mut largest = 0.0_f32;
        for (i, pair) in expected.pairs.iter().enumerate() {
            let ids = expected.ids(&format!("pair{i}.input_ids"));
            let encoded = EncodedPair {
                token_type_ids: expected
                    .maybe_ids(&format!("pair{i}.token_type_ids"))
                    .map_or_else(|| vec![0; ids.len()], |ids| ids.iter().map(|&id| id as u8).collect()),
                input_ids: ids,
                ..EncodedPair::default()
            };
            let mut seen = Vec::new();
            let logits = model.trace(&Batch::pack([&encoded]), &mut |layer, output| {
                seen.push((layer.to_string(), output.data.clone()));
            });
            for (layer, found) in &seen {
                let wanted = expected.values(&format!("pair{i}.{layer}"));
                assert_eq!(found.len(), wanted.len(), "{name}, pair {i}, {layer}");
                let scale = wanted.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
                let difference = found.iter().zip(&wanted).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(
                    difference <= MAX_LAYER_DIFFERENCE * scale,
                    "{name}, pair {i}, {layer}: differs by {difference} at values up to {scale}"
                );
                layers_compared += 1;
            }
            assert!(seen.len() > model.info().layers, "{name}: the embeddings and every layer are compared");
            let wanted = expected.values(&format!("pair{i}.logits"));
            assert_eq!((logits.len(), wanted.len()), (1, 1), "{name}, pair {i}");
            let difference = (logits[0] - wanted[0]).abs();
            assert!(difference <= bar, "{name}, pair {i}: logit {} instead of {}", logits[0], wanted[0]);
            largest = largest.max(difference);

            // And from the texts: the same ids, and the authors' score.
            let texts = [Pair { query: &pair.query, document: &pair.document }];
            if pair.query.trim().is_empty() {
                continue;
            }
            let windows = model.encode_pairs(&texts, &Default::default()).unwrap();
            assert_eq!(windows[0][0].pair.input_ids, encoded.input_ids, "{name}, pair {i}: {pair:?}");
            let score = model.score_pairs(&texts).unwrap().remove(0);
            // Scoring computes only the rows that the head reads, and those to the bit as if it computed all.
            assert_eq!(score.logit.to_bits(), logits[0].to_bits(), "{name}, pair {i}, from text");
            if let Some(wanted) = pair.score {
                assert!(
                    (score.score - wanted).abs() <= bar,
                    "{name}, pair {i}: score {} not {wanted}",
                    score.score
                );
            }
        }
        println!(
            "{name}: {} pairs, {layers_compared} layers, largest logit difference {largest:e}",
            expected.pairs.len()
        );
    }
}

/// With fewer bits a logit moves, and not far. How far on trained weights, and what it does to the order, is measured
/// elsewhere: these weights are random.
#[test]
fn fewer_bits_move_logits_a_little() {
    for folder in tiny_checkpoints() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let expected = Expected::read(&folder);
        let texts: Vec<Pair<'_>> = expected
            .pairs
            .iter()
            .filter(|pair| !pair.query.trim().is_empty())
            .map(|pair| Pair { query: &pair.query, document: &pair.document })
            .collect();
        let logits = |precision| {
            let model = CrossEncoder::load(&folder, LoadOptions::new().precision(precision)).unwrap();
            assert_eq!(model.info().precision, precision);
            model.score_pairs(&texts).unwrap().into_iter().map(|score| score.logit).collect::<Vec<f32>>()
        };
        let exact = logits(Precision::F32);
        let spread =
            exact.iter().fold(0.0_f32, |most, a| exact.iter().fold(most, |most, b| most.max((a - b).abs())));
        // With sums of 32 terms rounding hardly averages out: ModernBERT's logits move by 0.083 of 1.61 in bf16.
        for (precision, bar) in [(Precision::Bf16, 0.1), (Precision::Int8, 0.3)] {
            let found = logits(precision);
            let moved = exact.iter().zip(&found).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            println!("{name}: {precision} moves logits by up to {moved:e} of {spread:e}");
            assert!(
                moved > 0.0 && moved <= bar * spread.max(1.0),
                "{name}: {precision} moves by {moved} of {spread}"
            );
        }
    }
}
