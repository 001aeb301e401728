//! GFLOP/s of the matrix product for every instruction set of this CPU, and the time of the other operations.
//!
//! `cargo bench -p jointly-kernels` prints CSV: best and median over repetitions, one thread. Every product is
//! compared with the reference before it is timed.

use std::hint::black_box;
use std::time::Instant;

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

fn report(isa: Isa, name: &str, work: f64, (best, median): (f64, f64)) {
    println!("{isa},{name},{:.2},{:.2},{:.3}", work / best / 1e9, work / median / 1e9, median * 1e6);
}

fn main() {
    println!("isa,operation,best G/s,median G/s,median us   (flop for matmul, elements for the rest)");
    for kernels in TABLES.iter().filter(|entry| entry.isa != Isa::Scalar).filter_map(|entry| entry.kernels())
    {
        for &[m, k, n] in SHAPES {
            for precision in Precision::ALL {
                let (x, w) = (random(m * k, 1), random(n * k, 2));
                let packed = kernels.packed(View::new(&w, n, k), precision);
                let (mut out, mut expected) = (vec![0.0; m * n], vec![0.0; m * n]);
                let time = seconds(|| {
                    let out = ViewMut::new(&mut out, m, n);
                    kernels.matmul(black_box(View::new(&x, m, k)), &packed, Epilogue::NONE, out);
                });
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
                let name = format!("matmul {precision} m={m} k={k} n={n}");
                report(kernels.isa, &name, (2 * m * k * n) as f64, time);
            }
        }
        let (rows, cols) = (1024, 384);
        let (source, gamma) = (random(rows * cols, 3), random(cols, 4));
        let mut x = source.clone();
        let work = (rows * cols) as f64;
        report(
            kernels.isa,
            "layer_norm",
            work,
            seconds(|| {
                kernels.layer_norm(ViewMut::new(&mut x, rows, cols), &gamma, Some(&gamma), 1e-5);
            }),
        );
        report(
            kernels.isa,
            "rms_norm",
            work,
            seconds(|| {
                kernels.rms_norm(ViewMut::new(&mut x, rows, cols), &gamma, 1e-5);
            }),
        );
        report(
            kernels.isa,
            "softmax_rows",
            work,
            seconds(|| kernels.softmax_rows(ViewMut::new(&mut x, rows, cols))),
        );
        for map in [Map::GeluErf, Map::GeluTanh, Map::Silu, Map::Tanh, Map::Sigmoid] {
            x.copy_from_slice(&source);
            let name = format!("{map:?}");
            report(kernels.isa, &name, work, seconds(|| kernels.map(map, black_box(&mut x))));
        }
        let mut packed = PackedMatrix::new();
        let (keys, head) = (128, 32);
        let strided = View::strided(&source, keys, head, cols);
        let work = (keys * head) as f64;
        for precision in [Precision::F32, Precision::Bf16] {
            let pack = seconds(|| kernels.pack(black_box(strided), precision, &mut packed));
            report(kernels.isa, &format!("pack {precision} [128, 32] strided"), work, pack);
            let pack = seconds(|| kernels.pack_transposed(black_box(strided), precision, &mut packed));
            report(kernels.isa, &format!("pack_transposed {precision}"), work, pack);
        }
    }
}
