//! Compares a device with Transformers and with itself, on the tiny checkpoints: `device_check cuda:0 testdata`. One line a
//! checkpoint and precision, and an exit status. `scripts/gpu-check.sh` runs it on a machine that has a device.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use jointly::text::EncodedPair;
use jointly::{CrossEncoder, DeviceChoice, LoadOptions, Precision};
use safetensors::{Dtype, SafeTensors};

type Failure = Box<dyn std::error::Error>;

/// In f32 as on processors. Of halves as a part of the distance between the highest and the lowest logit, at least 1: the tiny
/// models sum 32 terms, which hardly averages rounding out.
const BARS: [(Precision, f32); 3] =
    [(Precision::F32, 1e-4), (Precision::Bf16, 0.1), (Precision::F16, 0.0125)];
/// Decoders, in f32.
const DECODER: f32 = 1e-3;
/// A logit beside others against the same alone: products of other sizes may be summed in another order.
const ALONE: [(Precision, f32); 3] =
    [(Precision::F32, 1e-5), (Precision::Bf16, 0.05), (Precision::F16, 0.006)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, testdata] = &arguments[..] else {
        eprintln!("usage: device_check DEVICE TESTDATA, as cuda:0 testdata");
        return ExitCode::from(2);
    };
    match check(device, Path::new(testdata)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn check(device: &str, testdata: &Path) -> Result<bool, Failure> {
    let choice: DeviceChoice = device.parse()?;
    let mut folders: Vec<PathBuf> =
        fs::read_dir(testdata)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    folders.retain(|folder| folder.join("expected.safetensors").is_file());
    folders.sort();
    let mut holds = !folders.is_empty();
    println!(
        "{:<20} {:>9} {:>6} {:>12} {:>9} {:>12} {:>9}  load ms",
        "checkpoint", "precision", "pairs", "difference", "bar", "alone", "bar"
    );
    for folder in &folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(folder.join("expected.safetensors"))?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let (sequences, wanted) = read(&tensors)?;
        let least = wanted.iter().copied().fold(f32::INFINITY, f32::min);
        let spread = (wanted.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least).max(1.0);
        for ((precision, bar), (_, alone_bar)) in BARS.into_iter().zip(ALONE) {
            let began = Instant::now();
            let options = LoadOptions::new().precision(precision).device(choice.clone()).check_receipt(false);
            let model = CrossEncoder::load(folder, options)?;
            let load_ms = began.elapsed().as_secs_f64() * 1e3;
            let is_decoder = model.info().architecture.starts_with("Qwen");
            let bar = match precision {
                Precision::F32 if is_decoder => DECODER,
                Precision::F32 => bar,
                _ => bar * spread,
            };
            let alone_bar = if precision == Precision::F32 { alone_bar * 10.0 } else { alone_bar * spread };
            let together = model.logits(&sequences.iter().collect::<Vec<_>>())?;
            let mut alone = Vec::new();
            for sequence in &sequences {
                alone.extend(model.logits(&[sequence])?);
            }
            let (difference, moved) = (largest(&together, &wanted), largest(&together, &alone));
            let passes = difference <= bar && moved <= alone_bar;
            holds &= passes;
            println!(
                "{name:<20} {:>9} {:>6} {difference:>12.2e} {bar:>9.0e} {moved:>12.2e} {alone_bar:>9.0e}  {load_ms:.0}{}",
                precision.name(),
                wanted.len(),
                if passes { "" } else { "  FAILS" }
            );
        }
    }
    println!(
        "{}: {} checkpoints, {}",
        choice,
        folders.len(),
        if holds { "all hold" } else { "NOT all hold" }
    );
    Ok(holds)
}

/// The pairs that Transformers was given, and its logits.
fn read(tensors: &SafeTensors<'_>) -> Result<(Vec<EncodedPair>, Vec<f32>), Failure> {
    let ids = |name: &str| -> Result<Vec<u32>, Failure> {
        let tensor = tensors.tensor(name)?;
        Ok(match tensor.dtype() {
            Dtype::I64 => {
                tensor.data().as_chunks::<8>().0.iter().map(|id| i64::from_le_bytes(*id) as u32).collect()
            }
            _ => tensor.data().as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect(),
        })
    };
    let (mut sequences, mut logits) = (Vec::new(), Vec::new());
    while let Ok(logit) = tensors.tensor(&format!("pair{}.logits", sequences.len())) {
        let i = sequences.len();
        let input_ids = ids(&format!("pair{i}.input_ids"))?;
        let types = ids(&format!("pair{i}.token_type_ids")).unwrap_or_else(|_| vec![0; input_ids.len()]);
        let token_type_ids = types.into_iter().map(|id| id as u8).collect();
        sequences.push(EncodedPair { input_ids, token_type_ids, ..EncodedPair::default() });
        logits.extend(logit.data().as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)));
    }
    Ok((sequences, logits))
}

/// The largest difference; NaN if there is one.
fn largest(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most, difference| if difference <= most { most } else { difference })
}
