//! A warm process that scores requests when it is told to: our side of `bench/peers`. JSON lines, the same that
//! `bench/peers/peer.py` speaks:
//!
//! ```text
//! $ bench_worker MODEL PRECISION THREADS [FOLDER FOR PACKED WEIGHTS]
//! > {"load_ms": 201.5}
//! < {"query": "...", "documents": ["...", ...]}
//! < {"run": 3}
//! > {"ms": [101.2, 99.8, 100.1], "logits": [...], "tokens": 9528, "peak_rss_mib": 88.2}
//! ```
#![allow(clippy::print_stdout, reason = "this is a program")]

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use jointly::{CrossEncoder, LoadOptions, Pair, Precision};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(untagged)]
enum Command {
    Request { query: String, documents: Vec<String> },
    Run { run: usize },
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ([model, precision, threads], packed) = (match &arguments[..] {
        [first @ .., packed] if first.len() == 3 => (first, Some(packed)),
        all => (all, None),
    }) else {
        return Err("bench_worker MODEL PRECISION THREADS [FOLDER FOR PACKED WEIGHTS]".into());
    };
    let precision = Precision::ALL
        .into_iter()
        .find(|known| known.name() == precision)
        .ok_or_else(|| format!("{precision} is not a precision"))?;
    let started = Instant::now();
    let options = LoadOptions::new()
        .precision(precision)
        .threads(threads.parse()?)
        .packed_cache(packed.map(PathBuf::from));
    let model = CrossEncoder::load(model, options)?;
    answer(&json!({"load_ms": milliseconds(started)}))?;

    let mut request = None;
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Command::Request { query, documents } => request = Some((query, documents)),
            Command::Run { run } => {
                let (query, documents) = request.as_ref().ok_or("a run before the first request")?;
                let pairs: Vec<Pair<'_>> =
                    documents.iter().map(|document| Pair { query, document }).collect();
                let (mut times, mut scores) = (Vec::new(), Vec::new());
                for _ in 0..run {
                    let started = Instant::now();
                    scores = model.score_pairs(&pairs)?;
                    times.push(milliseconds(started));
                }
                let logits: Vec<f32> = scores.iter().map(|score| score.logit).collect();
                let tokens: usize = scores.iter().map(|score| score.tokens).sum();
                let memory = peak_rss_mib()?;
                answer(&json!({"ms": times, "logits": logits, "tokens": tokens, "peak_rss_mib": memory}))?;
            }
        }
    }
    Ok(())
}

fn answer(value: &serde_json::Value) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{value}")?;
    output.flush()
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// As Linux says it.
fn peak_rss_mib() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}
