//! Every kernel, run on the CPU, against the reference of `crates/kernels` or its own definition in f64.
//!
//! Tolerances: a result in halves is rounded once, by at most half a unit: 2^-8 of its value in bf16, 2^-11 in f16. Attention on
//! tensor cores rounds its weights too, which is as much again of the largest value. Beside that there is what f32 sums
//! lose, `SUM` for the sizes here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use jointly_cuda::{
    Bias, Device, Failure, FailureKind, Format, Function, Mask, Relative, Shape, TILE, Tensor, Tile,
};
use jointly_cuda_emulator::{Emulator, Faults};
use jointly_kernels::{Epilogue, Isa, Kernels, Map, Precision, View, ViewMut};

const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::F16];
/// A few hundred terms of size 1: each addition loses at most 6e-8 of the sum so far.
const SUM: f32 = 2e-5;

/// Half a unit in the last place, relative.
fn rounding(format: Format) -> f32 {
    match format {
        Format::F32 => 6e-8,
        Format::Bf16 => 1.0 / 256.0,
        Format::F16 => 1.0 / 2048.0,
    }
}

fn reference() -> &'static Kernels {
    Kernels::for_isa(Isa::Scalar).unwrap()
}

/// Numbers between -1 and 1 that look random, and are the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// On the device in a format, and as it is there.
fn given(device: &Arc<Device>, shape: [usize; 2], format: Format, values: &[f32]) -> (Tensor, Vec<f32>) {
    let tensor = device.upload(shape, values).converted(format);
    let values = tensor.download();
    (tensor, values)
}

#[track_caller]
fn assert_near(found: &[f32], wanted: &[f32], absolute: f32, relative: f32, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let allowed = absolute + relative * wanted.abs();
        assert!((found - wanted).abs() <= allowed, "{what}: value {i} is {found}, not {wanted} +- {allowed}");
    }
}

#[track_caller]
fn assert_well(device: &Device) {
    assert_eq!(device.take_failure(), None);
}

#[test]
fn halves_are_the_nearest() {
    for format in [Format::Bf16, Format::F16] {
        let device = Emulator::device(format);
        let mut values = vec![
            0.0,
            -0.0,
            1.0,
            -2.0,
            65504.0,
            65519.9,
            65520.0,
            1e30,
            6.1e-5,
            5.96e-8,
            2.9e-8,
            1.0 + 1.0 / 512.0,
        ];
        values
            .extend(Random(1).values(500).iter().enumerate().map(|(i, x)| x * 2f32.powi(i as i32 % 40 - 24)));
        let found = device.upload([1, values.len()], &values).converted(format).download();
        for (x, found) in values.iter().zip(found) {
            let wanted = match format {
                Format::Bf16 => half::bf16::from_f32(*x).to_f32(),
                _ => half::f16::from_f32(*x).to_f32(),
            };
            assert_eq!(found.to_bits(), wanted.to_bits(), "{x} in {format:?}");
        }
        assert_well(&device);
    }
}

#[test]
fn norms_are_those_of_the_reference() {
    let mut random = Random(2);
    for half in FORMATS {
        let device = Emulator::device(half);
        for (rows, features) in [(3, 1), (4, 5), (2, 64), (3, 100), (2, 384), (1, 2560), (1, 8191), (1, 8192)]
        {
            for input in [Format::F32, half] {
                let x: Vec<f32> = random.values(rows * features).iter().map(|x| 3.0 * x + 0.5).collect();
                let (tensor, x) = given(&device, [rows, features], input, &x);
                let (gamma, beta) = (random.values(features), random.values(features));
                let on_device = |values: &[f32]| device.upload([1, features], values);
                let mut wanted = x.clone();
                reference().layer_norm(ViewMut::new(&mut wanted, rows, features), &gamma, Some(&beta), 1e-5);
                let found = tensor.norm(&on_device(&gamma), Some(&on_device(&beta)), (1e-5, false), half);
                let what = format!("layer norm of {features} in {half:?}");
                assert_near(&found.download(), &wanted, SUM, rounding(half), &what);

                let mut wanted = x;
                reference().rms_norm(ViewMut::new(&mut wanted, rows, features), &gamma, 1e-6);
                let found = tensor.norm(&on_device(&gamma), None, (1e-6, true), half);
                assert_eq!(found.format(), half);
                assert_near(&found.download(), &wanted, SUM, rounding(half), "rms norm");
            }
        }
        assert_well(&device);
        let too_wide = device.upload([1, 8193], &[0.0; 8193]);
        let gamma = device.upload([1, 8193], &[0.0; 8193]);
        drop(too_wide.norm(&gamma, None, (1e-5, true), half));
        assert!(device.take_failure().unwrap().problem.contains("8193"));
    }
}

#[test]
fn layers_are_those_of_the_reference() {
    let functions = [
        (Function::Identity, Map::Identity),
        (Function::Gelu, Map::GeluErf),
        (Function::GeluTanh, Map::GeluTanh),
        (Function::Silu, Map::Silu),
        (Function::Relu, Map::Relu),
        (Function::Tanh, Map::Tanh),
        (Function::Sigmoid, Map::Sigmoid),
    ];
    let mut random = Random(3);
    for half in FORMATS {
        let device = Emulator::device(half);
        for (i, (m, n, k)) in [(1, 1, 1), (3, 7, 5), (5, 33, 65), (17, 8, 48)].into_iter().enumerate() {
            for (function, map) in functions {
                for residual in [None, Some(half), Some(Format::F32)] {
                    let (x, x_values) = given(&device, [m, k], half, &random.values(m * k));
                    let (w, w_values) = given(&device, [n, k], half, &random.values(n * k));
                    let bias = random.values(n);
                    let has_bias = i % 2 == 0 || residual.is_some();
                    let layer = device.weight(w, has_bias.then_some(&bias[..])).unwrap();
                    let residual =
                        residual.map(|format| given(&device, [m, n], format, &random.values(m * n)));
                    let packed = reference().packed(View::new(&w_values, n, k), Precision::F32);
                    let mut wanted = vec![0.0; m * n];
                    let then = Epilogue {
                        bias: has_bias.then_some(&bias[..]),
                        map,
                        add: residual.as_ref().map(|(_, values)| View::new(values, m, n)),
                    };
                    reference().matmul(
                        View::new(&x_values, m, k),
                        &packed,
                        then,
                        ViewMut::new(&mut wanted, m, n),
                    );
                    let found = x.times(&layer, function, residual.as_ref().map(|(tensor, _)| tensor));
                    let format = residual.as_ref().map_or(half, |(tensor, _)| tensor.format());
                    assert_eq!(found.format(), format);
                    // The bias is rounded, and the value before the function; no function here is steeper than 1.13.
                    let absolute = SUM + rounding(format) * (1.0 + 1.2 * k as f32);
                    assert_near(
                        &found.download(),
                        &wanted,
                        absolute,
                        rounding(format),
                        &format!("{function:?} {half:?}"),
                    );
                }
            }
        }
        assert_well(&device);
    }
}

#[test]
fn gates_are_those_of_the_reference() {
    let mut random = Random(4);
    for half in FORMATS {
        let device = Emulator::device(half);
        for (rows, features) in [(1, 1), (3, 7), (5, 40), (2, 300)] {
            let (x, values) = given(&device, [rows, 2 * features], half, &random.values(2 * rows * features));
            let mut wanted = Vec::new();
            for row in values.chunks(2 * features) {
                let mut input = row[..features].to_vec();
                reference().map(Map::Silu, &mut input);
                wanted.extend(input.iter().zip(&row[features..]).map(|(a, b)| a * b));
            }
            assert_near(&x.gated(Function::Silu).download(), &wanted, 1e-6, rounding(half), "gate");
        }
        assert_well(&device);
    }
}

#[test]
fn rows_are_found_added_taken_and_pooled() {
    let mut random = Random(5);
    for half in FORMATS {
        let device = Emulator::device(half);
        for features in [5, 64, 300] {
            for format in [Format::F32, Format::Bf16, Format::F16] {
                let values = random.values(9 * features);
                let (bytes, values): (Vec<u8>, Vec<f32>) = match format {
                    Format::F32 => (values.iter().flat_map(|x| x.to_ne_bytes()).collect(), values),
                    Format::Bf16 => {
                        let halves: Vec<half::bf16> =
                            values.iter().map(|x| half::bf16::from_f32(*x)).collect();
                        (
                            halves.iter().flat_map(|x| x.to_ne_bytes()).collect(),
                            halves.iter().map(|x| x.to_f32()).collect(),
                        )
                    }
                    Format::F16 => {
                        let halves: Vec<half::f16> = values.iter().map(|x| half::f16::from_f32(*x)).collect();
                        (
                            halves.iter().flat_map(|x| x.to_ne_bytes()).collect(),
                            halves.iter().map(|x| x.to_f32()).collect(),
                        )
                    }
                };
                let table = device
                    .load([9, features], format, &[&bytes[..bytes.len() / 3], &bytes[bytes.len() / 3..]])
                    .unwrap();
                let row = |id: u32| &values[id as usize * features..][..features];
                let mut x = device.embed(&table, &[3, 8, 3]);
                let before = x.clone();
                x.add_rows(&table, &[0, 1, 2]);
                let wanted: Vec<f32> = [3, 8, 3].iter().flat_map(|id| row(*id)).copied().collect();
                assert_eq!(before.download(), wanted, "a clone keeps its values");
                let wanted: Vec<f32> = [(3, 0), (8, 1), (3, 2)]
                    .iter()
                    .flat_map(|(a, b)| row(*a).iter().zip(row(*b)).map(|(a, b)| a + b))
                    .collect();
                assert_eq!(x.download(), wanted);
            }
            let (x, values) = given(&device, [6, features], half, &random.values(6 * features));
            let taken = x.take(&[5, 0]);
            assert_eq!(taken.format(), Format::F32);
            assert_eq!(taken.download(), [&values[5 * features..], &values[..features]].concat());
            for largest in [false, true] {
                let found = x.pool(&[0, 1, 6], largest).download();
                let column = |feature: usize| (1..6).map(move |row| (row, feature));
                let wanted: Vec<f32> = (0..features)
                    .map(|feature| {
                        let cells =
                            column(feature).map(|(row, feature)| f64::from(values[row * features + feature]));
                        if largest {
                            cells.fold(f64::MIN, f64::max) as f32
                        } else {
                            (cells.sum::<f64>() / 5.0) as f32
                        }
                    })
                    .collect();
                assert_eq!(found[..features], values[..features]);
                assert_eq!(found[features..], wanted);
            }
        }
        assert_well(&device);
    }
}

#[test]
fn heads_are_normalised_and_turned() {
    let mut random = Random(6);
    for half in FORMATS {
        let device = Emulator::device(half);
        for (heads, other, head_dim) in [(1, 0, 2), (3, 2, 6), (2, 2, 64), (1, 1, 128), (2, 0, 256)] {
            let (rows, columns) = (5, (heads + other) * head_dim);
            let (mut x, values) = given(&device, [rows, columns], half, &random.values(rows * columns));
            let positions = [0, 4, 2, 2, 1];
            let pairs = head_dim / 2;
            let angles: Vec<f32> =
                (0..5 * pairs).map(|i| (i / pairs) as f32 * 0.3 / (1 + i % pairs) as f32).collect();
            let table = |f: fn(f32) -> f32| -> Vec<f32> { angles.iter().map(|angle| f(*angle)).collect() };
            let (cosines, sines) = (table(f32::cos), table(f32::sin));
            let gamma = random.values(head_dim);
            let has_norm = heads != 3;
            let mut wanted = values;
            for (row, position) in wanted.chunks_mut(columns).zip(positions) {
                for head in row[..heads * head_dim].chunks_mut(head_dim) {
                    if has_norm {
                        reference().rms_norm(ViewMut::new(head, 1, head_dim), &gamma, 1e-6);
                    }
                    for i in 0..pairs {
                        let (a, b) = (head[i], head[i + pairs]);
                        let (cosine, sine) = (cosines[position * pairs + i], sines[position * pairs + i]);
                        (head[i], head[i + pairs]) = (a * cosine - b * sine, b * cosine + a * sine);
                    }
                }
            }
            let on_device = |values: &[f32]| device.upload([5, pairs], values);
            let gamma = device.upload([1, head_dim], &gamma);
            let norm = has_norm.then_some((&gamma, 1e-6));
            x.rotate(
                heads,
                norm,
                (&on_device(&cosines), &on_device(&sines)),
                &device.indices(&positions.map(|p| p as u32)),
            );
            assert_near(
                &x.download(),
                &wanted,
                4e-6,
                rounding(half),
                &format!("heads of {head_dim} in {half:?}"),
            );
        }
        assert_well(&device);
    }
}

/// Pairs in a batch: where the keys that each shares are, and its own.
struct Pairs(Vec<(std::ops::Range<usize>, std::ops::Range<usize>)>);

impl Pairs {
    /// Tiles of all their own rows.
    fn tiles(&self) -> Vec<Tile> {
        let mut tiles = Vec::new();
        for (shared, own) in &self.0 {
            for first in (0..own.len()).step_by(TILE) {
                let number = |value: usize| value as i32;
                tiles.push(Tile {
                    shared_start: number(shared.start),
                    shared_count: number(shared.len()),
                    start: number(own.start),
                    count: number(own.len()),
                    query: number(own.start + first),
                    position: number(shared.len() + first),
                    queries: number((own.len() - first).min(TILE)),
                    unused: 0,
                });
            }
        }
        tiles
    }

    fn tokens(&self) -> usize {
        self.0.iter().map(|(_, own)| own.end).max().unwrap_or(0)
    }
}

/// Attention by its definition, in f64. `bias` is given head, query row, query, key row, key.
fn defined(
    pairs: &Pairs,
    shape: &Shape,
    (queries, keys_values): (&[f32], &[f32]),
    bias: impl Fn(usize, usize, usize, usize, usize) -> f64,
) -> Vec<f32> {
    let Shape { heads, kv_heads, head_dim, scale, mask } = *shape;
    let mut out = vec![0.0; pairs.tokens() * heads * head_dim];
    for (shared, own) in &pairs.0 {
        let rows: Vec<usize> = shared.clone().chain(own.clone()).collect();
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let key =
                |row: usize, d: usize| f64::from(keys_values[(row * 2 * kv_heads + kv_head) * head_dim + d]);
            let value = |row: usize, d: usize| {
                f64::from(keys_values[((row * 2 + 1) * kv_heads + kv_head) * head_dim + d])
            };
            for query in shared.len()..rows.len() {
                let query_row = rows[query];
                let seen = match mask {
                    Mask::Full => 0..rows.len(),
                    Mask::Causal => 0..query + 1,
                    Mask::Window(reach) => query.saturating_sub(reach)..(query + reach + 1).min(rows.len()),
                };
                let scores: Vec<f64> = seen
                    .clone()
                    .map(|j| {
                        let product: f64 = (0..head_dim)
                            .map(|d| {
                                f64::from(queries[(query_row * heads + head) * head_dim + d])
                                    * key(rows[j], d)
                            })
                            .sum();
                        product * f64::from(scale) + bias(head, query_row, query, rows[j], j)
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..head_dim {
                    let mixed: f64 =
                        seen.clone().zip(&weights).map(|(j, weight)| weight * value(rows[j], d)).sum();
                    out[(query_row * heads + head) * head_dim + d] = (mixed / sum) as f32;
                }
            }
        }
    }
    out
}

/// Weights are rounded to halves before they are summed, on tensor cores; then the result.
fn attention_tolerance(half: Format) -> f32 {
    SUM + 2.0 * rounding(half)
}

#[test]
fn attention_is_what_it_is_defined_to_be() {
    let mut random = Random(7);
    // The third pair shares what the second begins with, the fourth all but its last token.
    let pairs = Pairs(vec![(0..0, 0..1), (0..0, 1..81), (1..71, 81..91), (1..41, 91..92), (0..0, 92..222)]);
    let tokens = pairs.tokens();
    let mut compared = 0;
    for half in FORMATS {
        let device = Emulator::device(half);
        let all = [(2, 1, 5), (2, 2, 32), (4, 2, 64), (1, 1, 96), (2, 1, 128), (1, 1, 256)];
        // The kernels differ in nothing but the format: one of each kind is enough beside bf16's.
        let some = if half == Format::Bf16 { &all[..] } else { &all[..2] };
        for &(heads, kv_heads, head_dim) in some {
            for mask in [Mask::Full, Mask::Causal, Mask::Window(9), Mask::Window(70)] {
                // A bidirectional token sees what comes after it: pairs share nothing there.
                let pairs = match mask {
                    Mask::Causal => &pairs,
                    _ => &Pairs(vec![(0..0, 0..1), (0..0, 1..81), (0..0, 81..92), (0..0, 92..222)]),
                };
                let shape = Shape { heads, kv_heads, head_dim, scale: 1.5 / (head_dim as f32).sqrt(), mask };
                let (queries, query_values) = given(
                    &device,
                    [tokens, heads * head_dim],
                    half,
                    &random.values(tokens * heads * head_dim),
                );
                let width = 2 * kv_heads * head_dim;
                let (keys_values, key_values) =
                    given(&device, [tokens, width], half, &random.values(tokens * width));
                let wanted = defined(pairs, &shape, (&query_values, &key_values), |_, _, _, _, _| 0.0);
                let tiles = device.tiles(&pairs.tiles());
                let found = queries.attention(&keys_values, &tiles, &shape, Bias::None).download();
                let what = format!("{half:?}, heads of {head_dim}, {mask:?}");
                assert_near(&found, &wanted, attention_tolerance(half), rounding(half), &what);
                compared += 1;
            }
        }
        assert_well(&device);
    }
    assert_eq!(compared, (6 + 2 + 2) * 4);
}

#[test]
fn attention_adds_relative_positions() {
    let mut random = Random(8);
    let pairs = Pairs(vec![(0..0, 0..70), (0..0, 70..77), (0..0, 77..207)]);
    let (tokens, longest, rows) = (pairs.tokens(), 130, 10);
    for half in FORMATS {
        let device = Emulator::device(half);
        let all = [(2, 7), (2, 32), (1, 64), (1, 96), (1, 128)];
        let some = if half == Format::Bf16 { &all[..] } else { &all[..2] };
        for &(heads, head_dim) in some {
            let shape = Shape {
                heads,
                kv_heads: heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                mask: Mask::Full,
            };
            let width = heads * head_dim;
            let (queries, query_values) =
                given(&device, [tokens, width], half, &random.values(tokens * width));
            let (keys_values, key_values) =
                given(&device, [tokens, 2 * width], half, &random.values(2 * tokens * width));
            let tiles = device.tiles(&pairs.tiles());

            let numbers = random.values(heads * (2 * longest - 1));
            let distances = device.distances(&numbers, longest).unwrap();
            let wanted = defined(&pairs, &shape, (&query_values, &key_values), |head, _, query, _, key| {
                f64::from(numbers[head * (2 * longest - 1) + longest - 1 + key - query])
            });
            let found =
                queries.attention(&keys_values, &tiles, &shape, Bias::ByDistance(&distances)).download();
            assert_near(&found, &wanted, attention_tolerance(half), rounding(half), "by distance");

            let bucket = |distance: i64| ((distance / 7).clamp(-5, 4) + 5) as usize;
            let by_distance: Vec<u32> =
                (0..2 * longest as i64 - 1).map(|i| bucket(i - (longest as i64 - 1)) as u32).collect();
            let buckets = device.buckets(&by_distance, longest).unwrap();
            let (keys, position_keys) = given(&device, [rows, width], half, &random.values(rows * width));
            let (positions, position_queries) =
                given(&device, [rows, width], half, &random.values(rows * width));
            for (has_keys, has_queries) in [(true, true), (true, false), (false, true)] {
                let dot = |a: &[f32], a_at: usize, b: &[f32], b_at: usize| -> f64 {
                    (0..head_dim).map(|d| f64::from(a[a_at + d]) * f64::from(b[b_at + d])).sum()
                };
                let wanted = defined(
                    &pairs,
                    &shape,
                    (&query_values, &key_values),
                    |head, query_row, query, key_row, key| {
                        let at = bucket(query as i64 - key as i64) * width + head * head_dim;
                        let mut sum = 0.0;
                        if has_keys {
                            sum +=
                                dot(&query_values, query_row * width + head * head_dim, &position_keys, at);
                        }
                        if has_queries {
                            sum += dot(
                                &key_values,
                                key_row * 2 * width + head * head_dim,
                                &position_queries,
                                at,
                            );
                        }
                        sum * f64::from(shape.scale)
                    },
                );
                let (keys, positions) = (Relative(keys.clone()), Relative(positions.clone()));
                let bias = Bias::Disentangled {
                    buckets: &buckets,
                    keys: has_keys.then_some(&keys),
                    queries: has_queries.then_some(&positions),
                };
                let found = queries.attention(&keys_values, &tiles, &shape, bias).download();
                // The two products, of up to 11 each before they are scaled, are rounded to halves: scores move by that,
                // and weights by as much relative.
                let tolerance = attention_tolerance(half) + 2.0 * rounding(half) * 4.0;
                assert_near(&found, &wanted, tolerance, rounding(half), "disentangled");
            }
        }
        assert_well(&device);
    }
}

/// Whichever pairs are beside it, and whether it shares its beginning: a pair's attention has the same bits.
#[test]
fn attention_does_not_depend_on_other_pairs() {
    let mut random = Random(9);
    for half in FORMATS {
        let device = Emulator::device(half);
        for (mask, head_dim) in
            [(Mask::Causal, 64), (Mask::Window(20), 32), (Mask::Full, 128), (Mask::Causal, 6)]
        {
            let shape = Shape { heads: 2, kv_heads: 1, head_dim, scale: 0.2, mask };
            let (width, length, prefix) = (2 * head_dim, 150, 70);
            let (own_q, own_kv) = (random.values(length * width), random.values(length * width));
            let run = |q: &[f32], kv: &[f32], pairs: &Pairs| {
                let rows = q.len() / width;
                let (q, _) = given(&device, [rows, width], half, q);
                let (kv, _) = given(&device, [rows, width], half, kv);
                q.attention(&kv, &device.tiles(&pairs.tiles()), &shape, Bias::None).download()
            };
            let alone = run(&own_q, &own_kv, &Pairs(vec![(0..0, 0..length)]));
            let (other_q, other_kv) = (random.values(33 * width), random.values(33 * width));
            let beside = run(
                &[&other_q[..], &own_q].concat(),
                &[&other_kv[..], &own_kv].concat(),
                &Pairs(vec![(0..0, 0..33), (0..0, 33..33 + length)]),
            );
            assert_eq!(beside[33 * width..], alone, "{half:?} {mask:?}");
            if mask == Mask::Causal {
                // The same pair twice, the second without what it shares with the first.
                let tail = prefix * width;
                let shared = run(
                    &[&own_q[..], &own_q[tail..]].concat(),
                    &[&own_kv[..], &own_kv[tail..]].concat(),
                    &Pairs(vec![(0..0, 0..length), (0..prefix, length..2 * length - prefix)]),
                );
                assert_eq!(shared[length * width..], alone[tail..], "{half:?} shared");
            }
        }
        assert_well(&device);
    }
}

#[test]
fn failures_are_kept_until_they_are_asked_for() {
    let device = Emulator::faulty(Format::F32, Faults { memory: Some(10_000), lost_after: None });
    let x = device.upload([10, 10], &[1.0; 100]);
    let large = device.upload([100, 100], &[1.0; 10_000]);
    assert_eq!(large.gated(Function::Silu).download(), [0.0; 5000], "nothing is computed after a failure");
    assert!(matches!(device.take_failure(), Some(Failure { kind: FailureKind::Memory, .. })));
    assert_eq!(x.download(), [1.0; 100], "with less at once it goes on");
    drop((x, large));
    assert_eq!(device.memory().unwrap().free, 10_000, "everything was given back");

    let device = Emulator::faulty(Format::F32, Faults { memory: None, lost_after: Some(1) });
    let x = device.upload([1, 2], &[1.0; 2]);
    drop(x.gated(Function::Relu));
    assert_well(&device);
    drop(x.gated(Function::Relu));
    for _ in 0..2 {
        assert_eq!(device.take_failure().unwrap().kind, FailureKind::Lost, "once lost, always lost");
    }
    assert!(x.download().iter().all(|x| *x == 0.0));
}
