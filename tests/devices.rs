//! Every architecture on a device: the same kernels and the same way through the layers as on a GPU, run on the CPU by
//! `crates/cuda-emulator`. What it cannot show: races, and the products of cuBLASLt.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Expected, testdata, tiny_checkpoints};
use jointly::batch::Batch;
use jointly::rank::listwise::{OnePass, OnePassOptions};
use jointly::text::EncodedPair;
use jointly::{BiEncoder, CrossEncoder, DeviceChoice, Error, ErrorKind, LoadOptions, Pair, Precision, Role};
use jointly_cuda::{Device, Format};
use jointly_cuda_emulator::{Emulator, Faults};

/// As in tests/parity.rs, on the logit in f32.
const ENCODER: f32 = 1e-4;
const DECODER: f32 = 1e-3;
/// Sums of 32 terms hardly average rounding out, as tests/parity.rs says of bf16 on a processor: 0.1 of the spread, and 2^-3 as
/// much in f16.
const IN_BF16: f32 = 0.1;
const IN_F16: f32 = 0.0125;

fn on(devices: Vec<Arc<Device>>, precision: Precision) -> LoadOptions {
    LoadOptions::new().threads(1).precision(precision).device(DeviceChoice::Given(devices))
}

fn load(folder: &Path, devices: Vec<Arc<Device>>, precision: Precision) -> CrossEncoder {
    CrossEncoder::load(folder, on(devices, precision)).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// Pairs of an expected file as they are given to the model.
fn sequences(expected: &Expected) -> Vec<EncodedPair> {
    (0..expected.pairs.len())
        .map(|i| {
            let ids = expected.ids(&format!("pair{i}.input_ids"));
            let types = expected.maybe_ids(&format!("pair{i}.token_type_ids"));
            EncodedPair {
                token_type_ids: types
                    .map_or_else(|| vec![0; ids.len()], |ids| ids.iter().map(|&id| id as u8).collect()),
                input_ids: ids,
                ..EncodedPair::default()
            }
        })
        .collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |most, (a, b)| if (a - b).abs() <= most { most } else { (a - b).abs() })
}

#[test]
fn every_layer_equals_transformers_in_f32() {
    let checkpoints = tiny_checkpoints();
    assert!(checkpoints.len() >= 9);
    for folder in checkpoints {
        let name = name(&folder);
        let model = load(&folder, vec![Emulator::device(Format::F32)], Precision::F32);
        assert_eq!(model.info().device, "emulator");
        let expected = Expected::read(&folder);
        // Two pairs layer by layer, and all of them together as they are scored.
        let sequences = sequences(&expected);
        for (i, sequence) in sequences.iter().enumerate().take(2) {
            let mut layers = 0;
            let logits = model.trace(&Batch::pack([sequence]), &mut |layer, output| {
                let wanted = expected.values(&format!("pair{i}.{layer}"));
                let scale = wanted.iter().fold(1.0_f32, |most, value| most.max(value.abs()));
                let difference = largest_difference(&output.data, &wanted);
                assert!(difference <= 1e-4 * scale, "{name}, pair {i}, {layer}: {difference} of {scale}");
                layers += 1;
            });
            assert!(layers > model.info().layers, "{name}: {layers}");
            assert_eq!(logits.len(), 1);
        }
        let bar = if model.info().architecture.starts_with("Qwen") { DECODER } else { ENCODER };
        let found = model.logits(&sequences.iter().collect::<Vec<_>>()).unwrap();
        let wanted: Vec<f32> =
            (0..found.len()).map(|i| expected.values(&format!("pair{i}.logits"))[0]).collect();
        let difference = largest_difference(&found, &wanted);
        println!("{name}: {} pairs, largest logit difference {difference:e}", found.len());
        assert!(difference <= bar, "{name}: {found:?}, not {wanted:?}");
    }
}

#[test]
fn halves_move_logits_a_little() {
    for folder in tiny_checkpoints() {
        let expected = Expected::read(&folder);
        let mut sequences = sequences(&expected);
        let wanted: Vec<f32> =
            (0..sequences.len()).map(|i| expected.values(&format!("pair{i}.logits"))[0]).collect();
        let spread = wanted
            .iter()
            .fold(0.0_f32, |most, a| wanted.iter().fold(most, |most, b| most.max((a - b).abs())));
        // The emulator takes its time.
        sequences.truncate(4);
        for (precision, format, bar) in
            [(Precision::Bf16, Format::Bf16, IN_BF16), (Precision::F16, Format::F16, IN_F16)]
        {
            let model = load(&folder, vec![Emulator::device(format)], precision);
            assert_eq!(model.info().precision, precision);
            let found = model.logits(&sequences.iter().collect::<Vec<_>>()).unwrap();
            let moved = largest_difference(&found, &wanted[..found.len()]);
            println!("{}: {precision} moves logits by up to {moved:e} of {spread:e}", name(&folder));
            assert!(
                moved > 0.0 && moved <= bar * spread.max(1.0),
                "{}: {precision}, {moved} of {spread}",
                name(&folder)
            );
        }
    }
}

/// With the emulator's products, which do not depend on the number of rows, a pair's bits do not depend on other pairs, on what
/// it shares with them, on how a batch is split, nor on which of several devices computes it.
#[test]
fn a_logit_does_not_depend_on_how_it_comes_about() {
    for folder in
        ["tiny-bert", "tiny-deberta-v2", "tiny-modernbert", "tiny-mpnet", "tiny-qwen3", "tiny-zerank"]
    {
        let folder = testdata().join(folder);
        let model = load(&folder, vec![Emulator::device(Format::Bf16)], Precision::Bf16);
        let document = "the red planet has two moons and they are small ".repeat(3);
        let documents = [&document[..], "a", "", &document[..60], "mars is red"];
        let pairs: Vec<Pair<'_>> =
            documents.iter().map(|document| Pair { query: "which planet is red", document }).collect();
        let logits = |model: &CrossEncoder, pairs: &[Pair<'_>]| -> Vec<u32> {
            model.score_pairs(pairs).unwrap().iter().map(|score| score.logit.to_bits()).collect()
        };
        let together = logits(&model, &pairs);
        let alone: Vec<u32> = pairs.iter().flat_map(|pair| logits(&model, &[*pair])).collect();
        assert_eq!(together, alone, "{}", folder.display());
        let devices = vec![Emulator::device(Format::Bf16), Emulator::device(Format::Bf16)];
        let two = load(&folder, devices, Precision::Bf16);
        assert_eq!(two.info().device, "emulator, emulator");
        assert_eq!(logits(&two, &pairs), together, "{} on two devices", folder.display());
    }
}

#[test]
fn what_does_not_fit_is_split_and_what_cannot_is_an_error() {
    let folder = testdata().join("tiny-bert");
    let pairs: Vec<String> =
        (0..12).map(|i| format!("document {i} about a planet that is red and far away")).collect();
    let pairs: Vec<Pair<'_>> = pairs.iter().map(|document| Pair { query: "red planet", document }).collect();
    let ample = Emulator::device(Format::F32);
    let model = load(&folder, vec![Arc::clone(&ample)], Precision::F32);
    let wanted = model.score_pairs(&pairs).unwrap();
    let memory = ample.memory().unwrap();
    let weights = (memory.total - memory.free) as usize;

    let device =
        |room| Emulator::faulty(Format::F32, Faults { memory: Some(weights + room), lost_after: None });
    // Room for a few pairs at once, found by trying: a lost allocation is no lost pair.
    let small = load(&folder, vec![device(60_000)], Precision::F32);
    let found = small.score_pairs(&pairs).unwrap();
    assert_eq!(found, wanted);
    let none = load(&folder, vec![device(2_000)], Precision::F32);
    let error = none.score_pairs(&pairs).unwrap_err();
    assert!(matches!(error, Error::DeviceMemory { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Device);
    let error = CrossEncoder::load(
        &folder,
        on(
            vec![Emulator::faulty(Format::F32, Faults { memory: Some(1000), lost_after: None })],
            Precision::F32,
        ),
    );
    assert!(matches!(error, Err(Error::DeviceMemory { .. })));
}

#[test]
fn a_lost_device_is_an_error_of_its_own() {
    let device = Emulator::faulty(Format::Bf16, Faults { memory: None, lost_after: Some(60) });
    let model = load(&testdata().join("tiny-bert"), vec![device], Precision::Bf16);
    let pairs = [Pair { query: "red planet", document: "mars" }];
    let first_error = (0..50).find_map(|_| model.score_pairs(&pairs).err()).unwrap();
    assert!(matches!(first_error, Error::DeviceLost { .. }), "{first_error}");
    assert_eq!(first_error.kind(), ErrorKind::Device);
    assert!(matches!(model.score_pairs(&pairs), Err(Error::DeviceLost { .. })), "and it stays so");
}

#[test]
fn what_a_device_cannot_do_is_refused() {
    let folder = testdata().join("tiny-bert");
    let error = CrossEncoder::load(&folder, on(vec![Emulator::device(Format::Bf16)], Precision::F16));
    assert!(error.unwrap_err().to_string().contains("f16; emulator has halves of Bf16"));
    let error = CrossEncoder::load(&folder, on(vec![Emulator::device(Format::F32)], Precision::Int8));
    assert!(matches!(error, Err(Error::InvalidOption { option: "precision", .. })));
    let error = CrossEncoder::load(&folder, LoadOptions::new().precision(Precision::F16));
    assert!(error.unwrap_err().to_string().contains("f16 is for devices"));
}

#[test]
fn vectors_and_lists_are_those_of_the_processor() {
    let device = || vec![Emulator::device(Format::F32)];
    for name in ["embed-bert", "embed-mpnet"] {
        let folder = testdata().join(name);
        let texts = ["mars is red", "", "the moon and the sun"];
        let embed =
            |options| BiEncoder::load(&folder, options).unwrap().embed(&texts, Role::Document).unwrap();
        let (wanted, found) = (embed(LoadOptions::new().threads(1)), embed(on(device(), Precision::F32)));
        let difference = largest_difference(&found.data, &wanted.data);
        assert!(difference < 1e-5, "{name}: {difference}");
    }
    let folder = testdata().join("list-jina-v3");
    let score = |options| {
        let model = OnePass::load(&folder, options).unwrap();
        let scores =
            model.score("red planet", &["mars is red", "venus", "a moon"], &OnePassOptions::new()).unwrap();
        scores.into_iter().map(|score| score.logit).collect::<Vec<f32>>()
    };
    let (wanted, found) = (score(LoadOptions::new().threads(1)), score(on(device(), Precision::F32)));
    assert!(largest_difference(&found, &wanted) < 1e-5, "{found:?}, not {wanted:?}");
}
