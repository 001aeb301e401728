//! GFLOP/s of the matrix product and of attention for every instruction set of this CPU, with their share of its peak, and
//! the time of the other operations.
//!
//! `cargo bench -p jointly-kernels` prints CSV: best and median over repetitions, one thread. Every product is
//! compared with the reference before it is timed. `cargo bench -p jointly-kernels -- avx512bf16 attention` runs the
//! lines that contain all of these words.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jointly_kernels::{Epilogue, Isa, Kernels, Map, PackedMatrix, Precision, TABLES, View, ViewMut};

/// `m, k, n`: the linear layers of MiniLM (384, 1536), BERT-base (768), BERT-large (1024) and Qwen3 0.6B (1024,
/// 3072), attention of one head over 128 tokens, and few rows.
const SHAPES: &[[usize; 3]] = &[
    [1024, 384, 1152],
    [1024, 384, 384],
    [1024, 384, 1536],
    [1024, 1536, 384],
    [1024, 768, 3072],
    [1024, 1024, 1024],
    [512, 4096, 1024],
    [64, 3072, 768],
    [512, 1024, 3072],
    [512, 3072, 1024],
    [128, 32, 128],
    [128, 128, 32],
    [37, 384, 384],
    [1, 384, 1536],
];

/// Uniform on -1..1.
fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Seconds for one call: best and median of repetitions that fill about a third of a second.
fn seconds(mut body: impl FnMut()) -> (f64, f64) {
    let start = Instant::now();
    body();
    let once = start.elapsed().as_secs_f64().max(1e-7);
    let inner = (2e-3 / once).ceil() as usize;
    let mut times: Vec<f64> = (0..((0.3 / (once * inner as f64)) as usize).clamp(5, 100))
        .map(|_| {
            let start = Instant::now();
            (0..inner).for_each(|_| body());
            start.elapsed().as_secs_f64() / inner as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

/// The words that a line must contain to be run, and the instruction set that runs now.
struct Bench {
    words: Vec<String>,
    kernels: &'static Kernels,
}

impl Bench {
    /// Whether the line of this operation was asked for.
    fn wants(&self, name: &str) -> bool {
        let line = format!("{},{name}", self.kernels.isa);
        self.words.iter().all(|word| line.contains(word.as_str()))
    }

    /// `work` is the flop, or the elements where there is no `precision`.
    fn run(&self, name: &str, precision: Option<Precision>, work: f64, body: impl FnMut()) {
        if !self.wants(name) {
            return;
        }
        // Beside what it is compared with: the clock of a processor moves.
        let peak = precision.and_then(|precision| self.kernels.peak(precision, Duration::from_millis(20)));
        let (best, median) = seconds(body);
        let share = peak.map_or(String::new(), |peak| format!("{:.0}", 100.0 * work / median / peak));
        let (best, median_rate) = (work / best / 1e9, work / median / 1e9);
        println!("{},{name},{best:.2},{median_rate:.2},{:.3},{share}", self.kernels.isa, median * 1e6);
    }
}

fn main() {
    // `cargo bench` itself gives --bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    println!(
        "isa,operation,best G/s,median G/s,median us,median % of peak   (flop for products, elements for the rest)"
    );
    for kernels in TABLES.iter().filter(|entry| entry.isa != Isa::Scalar).filter_map(|entry| entry.kernels())
    {
        let bench = Bench { words: words.clone(), kernels };
        for precision in Precision::ALL {
            for &shape in SHAPES {
                matmul(&bench, precision, shape);
            }
        }
        for precision in [Precision::F32, Precision::Bf16] {
            for shape in [[128, 32], [128, 64], [512, 32], [512, 64]] {
                attention(&bench, precision, shape);
            }
            packing(&bench, precision);
        }
        rows_and_elements(&bench);
    }
}

fn matmul(bench: &Bench, precision: Precision, [m, k, n]: [usize; 3]) {
    let name = format!("matmul {precision} m={m} k={k} n={n}");
    if !bench.wants(&name) {
        return;
    }
    let kernels = bench.kernels;
    let (x, w) = (random(m * k, 1), random(n * k, 2));
    let packed = kernels.packed(View::new(&w, n, k), precision);
    let (mut out, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
    kernels.matmul(View::new(&x, m, k), &packed, Epilogue::NONE, ViewMut::new(&mut out, m, n));
    if let Some(reference) = Kernels::for_isa(Isa::Scalar) {
        let rows = m.min(16);
        let truth = ViewMut::new(&mut expected, rows, n);
        reference.matmul(View::new(&x, rows, k), &packed, Epilogue::NONE, truth);
        // |x w| <= 1, so an error bound of k sums of at most k, k^2 eps / 2, holds for any order.
        let bound = (k * k).max(12) as f32 * f32::EPSILON / 2.0;
        let pairs = out[..rows * n].iter().zip(&expected);
        let wrong = pairs.filter(|(a, b)| (**a - **b).abs() > bound).count();
        assert_eq!(wrong, 0, "{} {precision} {m} x {k} x {n}", kernels.isa);
    }
    bench.run(&name, Some(precision), (2 * m * k * n) as f64, || {
        let out = ViewMut::new(&mut out, m, n);
        kernels.matmul(black_box(View::new(&x, m, k)), &packed, Epilogue::NONE, out);
    });
}

/// One head over a pair, as the library computes it: keys and values packed, scores of 64 queries at a time, scaled,
/// softmax, values.
fn attention(bench: &Bench, precision: Precision, [tokens, head_dim]: [usize; 2]) {
    let kernels = bench.kernels;
    let hidden = 12 * head_dim;
    let (queries, keys_values) = (random(tokens * hidden, 5), random(tokens * 2 * hidden, 6));
    let (mut keys, mut values) = (PackedMatrix::new(), PackedMatrix::new());
    let (mut scores, mut out) = (vec![0.0; 64 * tokens], vec![0.0; tokens * head_dim]);
    let name = format!("attention {precision} tokens={tokens} head_dim={head_dim}");
    bench.run(&name, Some(precision), (4 * tokens * tokens * head_dim) as f64, || {
        let part = |at: usize| View::strided(&keys_values[at..], tokens, head_dim, 2 * hidden);
        kernels.pack(black_box(part(0)), precision, &mut keys);
        kernels.pack_transposed(part(hidden), precision, &mut values);
        for first in (0..tokens).step_by(64) {
            let rows = 64.min(tokens - first);
            let queries = View::strided(&queries[first * hidden..], rows, head_dim, hidden);
            let scores = &mut scores[..rows * tokens];
            kernels.matmul(queries, &keys, Epilogue::NONE, ViewMut::new(scores, rows, tokens));
            kernels.scale(scores, 0.125);
            kernels.softmax_rows(ViewMut::new(scores, rows, tokens));
            let out = &mut out[first * head_dim..(first + rows) * head_dim];
            let out = ViewMut::new(out, rows, head_dim);
            kernels.matmul(View::new(scores, rows, tokens), &values, Epilogue::NONE, out);
        }
        black_box(&mut out);
    });
}

fn packing(bench: &Bench, precision: Precision) {
    let kernels = bench.kernels;
    let (keys, head, cols) = (128, 32, 384);
    let source = random(keys * cols, 3);
    let strided = View::strided(&source, keys, head, cols);
    let work = (keys * head) as f64;
    let mut packed = PackedMatrix::new();
    bench.run(&format!("pack {precision} [{keys}, {head}] strided"), None, work, || {
        kernels.pack(black_box(strided), precision, &mut packed);
    });
    bench.run(&format!("pack_transposed {precision} [{keys}, {head}] strided"), None, work, || {
        kernels.pack_transposed(black_box(strided), precision, &mut packed);
    });
}

fn rows_and_elements(bench: &Bench) {
    let kernels = bench.kernels;
    let (rows, cols) = (1024, 384);
    let (source, gamma) = (random(rows * cols, 3), random(cols, 4));
    let work = (rows * cols) as f64;
    let mut x = source.clone();
    bench.run("layer_norm", None, work, || {
        kernels.layer_norm(ViewMut::new(&mut x, rows, cols), &gamma, Some(&gamma), 1e-5);
    });
    bench.run("rms_norm", None, work, || {
        kernels.rms_norm(ViewMut::new(&mut x, rows, cols), &gamma, 1e-5);
    });
    bench.run("softmax_rows", None, work, || kernels.softmax_rows(ViewMut::new(&mut x, rows, cols)));
    for map in [Map::GeluErf, Map::GeluTanh, Map::Silu, Map::Tanh, Map::Sigmoid] {
        x.copy_from_slice(&source);
        bench.run(&format!("{map:?}"), None, work, || kernels.map(map, black_box(&mut x)));
    }
}
