//! Times the text of a request, ours against the `tokenizers` library, in one run, by turns.
//!
//! ```text
//! cargo run --release --example tokenizer_bench -- MODEL_FOLDER WORKLOAD.jsonl... [--rounds N]
//! ```
//!
//! A line of a workload is a request: `{"query": ..., "documents": [...]}`. Ours is all that is done before the model
//! runs: [`CrossEncoder::encode_pairs`], from texts to pairs of ids with segments. The library's is `encode_fast` alone
//! (no offsets, truncation set, so that it may stop early), once for the query and once for each document, the
//! documents shared evenly among the threads; and for two threads or more its own `encode_batch_fast`, if that is
//! faster. Before anything is timed, every pair is compared with what the library makes of it with special tokens.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use jointly::{CrossEncoder, LoadOptions, Pair, ScoreOptions};
use serde::Deserialize;
use tokenizers::utils::parallelism;
use tokenizers::{TruncationParams, TruncationStrategy};

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Deserialize)]
struct Request {
    query: String,
    documents: Vec<String>,
}

impl Request {
    fn pairs(&self) -> Vec<Pair<'_>> {
        self.documents.iter().map(|document| Pair { query: &self.query, document }).collect()
    }
}

fn requests(path: &str) -> Result<Vec<Request>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let requests: Vec<Request> = text
        .lines()
        .enumerate()
        .map(|(i, line)| serde_json::from_str(line).map_err(|error| format!("{path}:{}: {error}", i + 1)))
        .collect::<Result<_, _>>()?;
    if requests.iter().all(|request| request.documents.is_empty()) {
        return Err(format!("{path}: no documents").into());
    }
    Ok(requests)
}

fn main() -> Result<(), Failure> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut rounds = 21;
    if let Some(at) = arguments.iter().position(|argument| argument == "--rounds") {
        rounds = arguments.get(at + 1).ok_or("--rounds needs a number")?.parse::<usize>()?.max(1);
        arguments.drain(at..at + 2);
    }
    let Some((model, workloads)) = arguments.split_first().filter(|(_, workloads)| !workloads.is_empty())
    else {
        return Err("usage: tokenizer_bench MODEL_FOLDER WORKLOAD.jsonl... [--rounds N]".into());
    };
    let load = |threads| CrossEncoder::load(model, LoadOptions::new().threads(threads).check_receipt(false));
    let ours = [load(1)?, load(2)?];
    let max_length = ours[0].info().max_length;
    let file = Path::new(model).join("tokenizer.json");
    let mut library = tokenizers::Tokenizer::from_file(&file)?;
    let truncation =
        TruncationParams { max_length, strategy: TruncationStrategy::OnlySecond, ..Default::default() };
    library.with_truncation(Some(truncation.clone()))?.with_padding(None).set_encode_special_tokens(true);
    let mut single = library.clone();
    let truncation = TruncationParams { strategy: TruncationStrategy::LongestFirst, ..truncation };
    single.with_truncation(Some(truncation))?;

    println!(
        "| workload | threads | library, ms a request | ours, ms a request | ours / library | worst round |"
    );
    println!("|---|---|---|---|---|---|");
    for workload in workloads {
        let requests = requests(workload)?;
        let name = Path::new(workload).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for request in &requests {
            compare(&ours[1], &library, request)?;
        }
        // For one thread and for two: milliseconds of each round, the library's and ours.
        let mut times = [[vec![], vec![]], [vec![], vec![]]];
        for round in 0..rounds + 2 {
            for (threads, [theirs, own]) in (1..).zip(&mut times) {
                let mut fastest = time(&requests, |request| run_library(&single, request, threads))?;
                if threads > 1 {
                    let batch = time(&requests, |request| run_library_batch(&single, request))?;
                    fastest = fastest.min(batch);
                }
                let ours = time(&requests, |request| {
                    let encoded = ours[threads - 1].encode_pairs(&request.pairs(), &ScoreOptions::new())?;
                    Ok(encoded.iter().flatten().map(|window| window.pair.input_ids.len()).sum())
                })?;
                // The first rounds warm the caches.
                if round >= 2 {
                    theirs.push(fastest);
                    own.push(ours);
                }
            }
        }
        for (threads, [theirs, own]) in (1..).zip(times) {
            let worst = theirs.iter().zip(&own).map(|(theirs, own)| own / theirs).fold(0.0, f64::max);
            let (theirs, own) = (median(theirs), median(own));
            println!("| {name} | {threads} | {theirs:.3} | {own:.3} | {:.3} | {worst:.3} |", own / theirs);
        }
    }
    Ok(())
}

/// Milliseconds a request.
fn time(requests: &[Request], run: impl Fn(&Request) -> Result<usize, Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    let mut tokens = 0;
    for request in requests {
        tokens += run(request)?;
    }
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    if tokens == 0 {
        return Err("no tokens".into());
    }
    Ok(milliseconds / requests.len() as f64)
}

fn run_library(library: &tokenizers::Tokenizer, request: &Request, threads: usize) -> Result<usize, Failure> {
    let query = library.encode_fast(request.query.as_str(), false)?.len();
    let share = |documents: &[String]| -> Result<usize, Failure> {
        let mut tokens = 0;
        for document in documents {
            tokens += library.encode_fast(document.as_str(), false)?.len();
        }
        Ok(tokens)
    };
    let mut parts = request.documents.chunks(request.documents.len().div_ceil(threads).max(1));
    let own = parts.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = parts.map(|documents| scope.spawn(move || share(documents))).collect();
        let mut tokens = query + share(own)?;
        for other in others {
            tokens += other.join().map_err(|_| "a thread panicked")??;
        }
        Ok(tokens)
    })
}

fn run_library_batch(library: &tokenizers::Tokenizer, request: &Request) -> Result<usize, Failure> {
    parallelism::set_parallelism(true);
    let query = library.encode_fast(request.query.as_str(), false)?.len();
    let documents: Vec<&str> = request.documents.iter().map(String::as_str).collect();
    let encodings = library.encode_batch_fast(documents, false)?;
    Ok(query + encodings.iter().map(tokenizers::Encoding::len).sum::<usize>())
}

fn compare(ours: &CrossEncoder, library: &tokenizers::Tokenizer, request: &Request) -> Result<(), Failure> {
    let pairs = request.pairs();
    let encoded = ours.encode_pairs(&pairs, &ScoreOptions::new())?;
    for (pair, windows) in pairs.iter().zip(&encoded) {
        let expected = library.encode_fast((pair.query, pair.document), true)?;
        let found = &windows.first().ok_or("a pair without tokens")?.pair;
        let types = found.token_type_ids.iter().map(|&id| u32::from(id));
        if found.input_ids != expected.get_ids() || !types.eq(expected.get_type_ids().iter().copied()) {
            return Err(format!("the tokens differ for {pair:?}:\n{expected:?}\n{found:?}").into());
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
