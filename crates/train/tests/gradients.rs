//! The loss and every gradient of the tiny checkpoints, beside PyTorch's; and the forward pass beside inference.
//!
//! The dumps are made by `scripts/make_fixtures/gradients.py`, and `losses.py` beside it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jointly::batch::Batch;
use jointly::text::EncodedPair;
use jointly::{CrossEncoder, LoadOptions, Pair};
use jointly_kernels::{Kernels, Precision};
use jointly_train::folder::{Trainable, WeightFormat};
use jointly_train::loss::{LOSSES, Loss, Wanted};
use jointly_train::tape::{Pool, Tape};
use safetensors::SafeTensors;

const MODELS: [&str; 8] =
    ["bert", "electra", "roberta", "xlm-roberta", "mpnet", "deberta-v2", "modernbert", "modernbert-cls"];
const TARGETS: [f32; 8] = [0.9, 0.1, 0.5, 1.0, 0.0, 0.7, 0.3, 0.6];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(format!("tiny-{name}"))
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).unwrap_or_else(|_| panic!("{name} is not in the dump")).data().to_vec();
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn integers(tensors: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let bytes = tensors.tensor(name).unwrap().data().to_vec();
    bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

/// The pairs of a fixture, as PyTorch read them.
fn pairs(folder: &Path) -> Vec<EncodedPair> {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    (0..TARGETS.len())
        .map(|i| EncodedPair {
            input_ids: integers(&expected, &format!("pair{i}.input_ids")),
            token_type_ids: integers(&expected, &format!("pair{i}.token_type_ids"))
                .into_iter()
                .map(|id| id as u8)
                .collect(),
            ..EncodedPair::default()
        })
        .collect()
}

#[test]
fn loss_and_every_gradient_are_pytorchs() {
    let kernels = Kernels::select().unwrap();
    for name in MODELS {
        let folder = folder(name);
        let mut model = Trainable::open(&folder, 64, 0).unwrap();
        assert!(model.parameters.iter().all(|parameter| !parameter.fresh), "{name}: the head was not found");
        model.parameters.pack(kernels, Precision::F32, 1);
        let mut tape = Tape::new(kernels, Precision::F32, &model.parameters, Pool::default());
        let output = model.network.forward(&mut tape, &Batch::pack(&pairs(&folder)));
        let logits = tape.value(output).data.to_vec();
        let wanted = Wanted { labels: Vec::new(), probabilities: TARGETS.to_vec() };
        let (loss, slopes) = "bce".parse::<Loss>().unwrap().compute(&logits, &wanted);
        let mut gradients = model.parameters.gradients();
        tape.backward(output, &slopes, &mut gradients);

        let bytes = std::fs::read(folder.join("gradients.safetensors")).unwrap();
        let dump = SafeTensors::deserialize(&bytes).unwrap();
        for (ours, theirs) in logits.iter().zip(floats(&dump, "logits")) {
            assert!((ours - theirs).abs() < 1e-4, "{name}: a logit of {ours}, PyTorch has {theirs}");
        }
        let theirs = f64::from(floats(&dump, "loss")[0]);
        assert!((loss - theirs).abs() < 1e-5, "{name}: a loss of {loss}, PyTorch has {theirs}");
        let mut seen = 2;
        for (parameter, ours) in model.parameters.iter().zip(gradients.iter()) {
            let stored = floats(&dump, &parameter.name);
            let mut theirs = vec![0.0; ours.len()];
            let rows = format!("{}.rows", parameter.name);
            if dump.names().contains(&rows.as_str()) {
                let width = parameter.shape[1];
                for (row, values) in integers(&dump, &rows).into_iter().zip(stored.chunks(width)) {
                    theirs[row as usize * width..][..width].copy_from_slice(values);
                }
                seen += 1;
            } else {
                theirs.copy_from_slice(&stored);
            }
            seen += 1;
            let largest = theirs.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                let allowed = 2e-5 + 1e-3 * largest;
                assert!(
                    (ours - theirs).abs() < allowed,
                    "{name}: {}[{i}] has a gradient of {ours}, PyTorch {theirs} (the largest is {largest})",
                    parameter.name
                );
            }
        }
        assert_eq!(seen, dump.len(), "{name}: the dump has gradients of parameters that are not trained");
    }
}

/// What PyTorch says of the losses of one list.
#[derive(serde::Deserialize)]
struct Case {
    logits: Vec<f32>,
    labels: Vec<f32>,
    probabilities: Vec<f32>,
    losses: BTreeMap<String, Slopes>,
}

#[derive(serde::Deserialize)]
struct Slopes {
    loss: f64,
    gradient: Vec<f64>,
}

#[test]
fn every_loss_and_its_slopes_are_pytorchs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/losses.json");
    let dump: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases: Vec<Case> = serde_json::from_value(dump["cases"].clone()).unwrap();
    assert!(cases.len() >= 10, "{} cases", cases.len());
    for Case { logits, labels, probabilities, losses } in cases {
        let known: BTreeSet<&str> = losses.keys().map(String::as_str).collect();
        assert_eq!(known, LOSSES.iter().map(|kind| kind.name).collect(), "losses.py has other losses");
        let wanted = Wanted { labels, probabilities };
        for (name, theirs) in losses {
            let (loss, slopes) = name.parse::<Loss>().unwrap().compute(&logits, &wanted);
            // Differences of logits are taken in f32.
            let near = |ours: f64, theirs: f64| (ours - theirs).abs() < 1e-5 * theirs.abs().max(0.1);
            assert!(near(loss, theirs.loss), "{name}: a loss of {loss}, PyTorch has {}", theirs.loss);
            assert_eq!(slopes.len(), theirs.gradient.len());
            for (ours, theirs) in slopes.iter().zip(&theirs.gradient) {
                assert!(near((*ours).into(), *theirs), "{name}: a slope of {ours}, PyTorch has {theirs}");
            }
        }
    }
}

#[test]
fn the_forward_pass_is_that_of_inference() {
    let kernels = Kernels::select().unwrap();
    let texts =
        [("a b c", "The bridge was built in 1897."), ("x", ""), ("jaguar", "A jaguar is a cat. 東京")];
    for name in MODELS {
        let mut model = Trainable::open(&folder(name), 64, 0).unwrap();
        // Saved and loaded again, so that what is written is what was meant.
        let saved = tempfile::tempdir().unwrap();
        let saved = saved.path().join("model");
        model.save(&saved, WeightFormat::F32).unwrap();
        let inference = CrossEncoder::load(&saved, LoadOptions::new().max_length(64)).unwrap();
        let pairs: Vec<Pair<'_>> = texts.iter().map(|(query, document)| Pair { query, document }).collect();
        let scores = inference.score_pairs(&pairs).unwrap();
        let encoded: Vec<EncodedPair> = texts
            .iter()
            .map(|(query, document)| {
                let query = model.text.encode_query(query, None).unwrap();
                model.text.encode_pair(&query, document, 64).unwrap()
            })
            .collect();
        model.parameters.pack(kernels, Precision::F32, 1);
        let mut tape = Tape::new(kernels, Precision::F32, &model.parameters, Pool::default());
        let output = model.network.forward(&mut tape, &Batch::pack(&encoded));
        for (score, logit) in scores.iter().zip(&tape.value(output).data[..]) {
            assert!((score.logit - logit).abs() < 1e-4, "{name}: {} in inference, {logit} here", score.logit);
        }
    }
}
