//! One suite for every entry of `TABLES`, against `reference.rs`.
//!
//! Every buffer that a kernel sees lies against a forbidden page. An instruction set that this CPU lacks is a counted
//! skip on standard error; `JOINTLY_REQUIRE_ISA=avx2,avx512` makes it a failure.

use std::io::Write as _;
use std::sync::Arc;

use crate::guarded::{Flush, Guarded};
use crate::{
    Epilogue, Isa, IsaError, Kernels, Map, PackedMatrix, Precision, Shape, SharedBytes, TABLES, Values, View,
    ViewMut, reference,
};

/// Relative error of one rounding to `f32`.
const U: f64 = f32::EPSILON as f64 / 2.0;
/// What is lost where a result is subnormal, or an exponential overflows on the way to one.
const TINY: f64 = f32::MIN_POSITIVE as f64;
/// `generic::exp`: at most 2 ulp, an ulp being at most 2 U.
const EXP: f64 = 4.0 * U;
/// Absolute error of `erf`, as stated for `gelu_erf`.
const ERF: f64 = 2e-7;

/// Lengths around every multiple of a register, and some that are larger and odd.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=70).chain([127, 129, 257, 1000])
}

/// Every table but the reference that this CPU can run.
fn tables() -> impl Iterator<Item = &'static Kernels> {
    TABLES.iter().filter(|entry| entry.isa != Isa::Scalar).filter_map(|entry| entry.kernels())
}

/// splitmix64, as uniform numbers that are not integers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `len` numbers on `-size..size`.
    fn uniform(&mut self, len: usize, size: f32) -> Vec<f32> {
        (0..len).map(|_| ((self.next() >> 40) as f32 / 8_388_608.0 - 1.0) * size).collect()
    }
}

/// Fails unless `|found - expected| <= tolerance`; NaN and infinities must be the same.
#[track_caller]
fn close(found: f32, expected: f32, tolerance: f64, what: impl FnOnce() -> String) {
    let same = found == expected || found.is_nan() && expected.is_nan();
    let error = (f64::from(found) - f64::from(expected)).abs();
    assert!(same || error <= tolerance, "{}: {found} is not {expected}: {error:e} > {tolerance:e}", what());
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_required_instruction_set_is_here() {
    let skipped: Vec<&str> = TABLES.iter().filter(|e| !e.is_available()).map(|e| e.isa.name()).collect();
    // The handle, because the test runner holds back what is printed.
    let names = skipped.join(" ");
    writeln!(std::io::stderr(), "instruction sets skipped: {} {names}", skipped.len()).unwrap();
    for name in
        std::env::var("JOINTLY_REQUIRE_ISA").unwrap_or_default().split(',').filter(|name| !name.is_empty())
    {
        let isa = Isa::from_name(name).unwrap_or_else(|| panic!("JOINTLY_REQUIRE_ISA: {name} is unknown"));
        assert!(Kernels::for_isa(isa).is_some(), "JOINTLY_REQUIRE_ISA: this CPU or build has no {name}");
    }
}

#[test]
fn the_override_is_loud() {
    let unknown = Kernels::choose(Some("sse9".as_ref())).unwrap_err();
    assert_eq!(unknown, IsaError::Unknown { name: "sse9".into() });
    assert!(unknown.to_string().contains("sse9"), "{unknown}");
    assert!(matches!(Kernels::choose(Some("".as_ref())), Err(IsaError::Unknown { .. })));
    for entry in TABLES {
        let chosen = Kernels::choose(Some(entry.isa.name().as_ref()));
        match entry.kernels() {
            Some(_) => assert_eq!(chosen.unwrap().isa, entry.isa),
            None => assert_eq!(chosen.unwrap_err(), IsaError::Unavailable { isa: entry.isa }),
        }
    }
    let best = TABLES.iter().find(|entry| entry.is_available()).unwrap();
    assert_eq!(Kernels::choose(None).unwrap().isa, best.isa);
    assert!(!IsaError::Unavailable { isa: Isa::Avx512 }.to_string().is_empty());
    match std::env::var(crate::ISA_VARIABLE) {
        Ok(name) => assert_eq!(Kernels::select().unwrap().isa.name(), name),
        Err(_) => assert_eq!(Kernels::select().unwrap().isa, best.isa),
    }
}

/// One product of `m` rows, `k` inner, `n` columns, with rows apart in x, out and the residual, against the reference.
fn check_matmul(kernels: &Kernels, precision: Precision, [m, k, n]: [usize; 3], random: &mut Random) {
    let apart = [k, n, n].map(|cols| cols + random.next() as usize % 3);
    let [x_stride, out_stride, add_stride] = apart;
    let size =
        |rows: usize, cols, stride| if rows == 0 || cols == 0 { 0 } else { (rows - 1) * stride + cols };
    let flush = if random.next().is_multiple_of(4) { Flush::Start } else { Flush::End };
    let x = Guarded::new(&random.uniform(size(m, k, x_stride), 1.0), flush);
    let x = View::strided(&x, m, k, x_stride);
    let w = random.uniform(n * k, 1.0);
    let mut packed = kernels.packed(View::new(&w, n, k), precision);
    let mut smooth = None;
    if precision == Precision::Int8 && random.next().is_multiple_of(2) {
        let (factor, offset) = (random.uniform(k, 2.0), random.uniform(k, 1.0));
        // A matrix without elements has no precision.
        if packed.precision() == precision {
            packed = packed.smoothed(factor.clone(), offset.clone());
            smooth = Some((factor, offset));
        }
    }
    let bias = Guarded::new(&random.uniform(n, 1.0), flush);
    let add = Guarded::new(&random.uniform(size(m, n, add_stride), 1.0), flush);
    let then = Epilogue {
        bias: random.next().is_multiple_of(2).then_some(&*bias),
        map: Map::Identity,
        add: random.next().is_multiple_of(2).then_some(View::strided(&add, m, n, add_stride)),
    };
    // A value that no product has: it must stay between the rows, and be read nowhere.
    let mut out = Guarded::new(&vec![f32::NAN; size(m, n, out_stride)], flush);
    kernels.matmul(x, &packed, then, ViewMut::strided(&mut out, m, n, out_stride));
    let mut expected = vec![0.0; m * n];
    reference::TABLE.matmul(x, &packed, then, ViewMut::new(&mut expected, m, n));
    let what = || format!("{} {precision} {m} x {k} x {n}", kernels.isa);
    let found = View::strided(&out, m, n, out_stride);
    let mut alone = vec![0.0; n];
    for i in 0..m {
        for j in 0..n {
            // k roundings in any order give k U sum |x w| (Higham 3.1); one more each for bias, residual and reference.
            // The roundings of the inputs are the same on both sides, and may make a product larger by a hundredth.
            // Int8 has no sums to round; but its two scales and their product with the sum are.
            let prepared = |kk: usize| match &smooth {
                None => x.row(i)[kk],
                Some((factor, offset)) => x.row(i)[kk].mul_add(factor[kk], offset[kk]),
            };
            let products: f64 = (0..k).map(|kk| f64::from(prepared(kk) * w[j * k + kk]).abs()).sum();
            let roundings = if precision == Precision::Int8 { 6 } else { k + 4 };
            let largest = products * 1.01 + 0.01 * k as f64 + 2.0;
            close(found.row(i)[j], expected[i * n + j], roundings as f64 * U * largest, || {
                format!("{}, element {i}, {j}", what())
            });
        }
        let add = then.add.map(|add| View::new(add.row(i), 1, n));
        kernels.matmul(
            View::new(x.row(i), 1, k),
            &packed,
            Epilogue { add, ..then },
            ViewMut::new(&mut alone, 1, n),
        );
        assert_eq!(bits(&alone), bits(found.row(i)), "row {i} alone: {}", what());
        // The function after the sums is the one that `map` applies, to the bit.
        let without = Epilogue { add: None, ..then };
        for map in [Map::GeluErf, Map::Relu] {
            let mut later = vec![0.0; n];
            kernels.matmul(View::new(x.row(i), 1, k), &packed, without, ViewMut::new(&mut later, 1, n));
            kernels.map(map, &mut later);
            kernels.matmul(
                View::new(x.row(i), 1, k),
                &packed,
                Epilogue { map, ..without },
                ViewMut::new(&mut alone, 1, n),
            );
            assert_eq!(bits(&alone), bits(&later), "{map:?} of row {i}: {}", what());
        }
    }
    for (at, value) in out.iter().enumerate() {
        assert!(at % out_stride < n || value.is_nan(), "{}: wrote between rows at {at}", kernels.isa);
    }
}

#[test]
fn matmul_is_the_reference_and_does_not_see_its_neighbours() {
    let mut random = Random(1);
    for kernels in tables() {
        for precision in Precision::ALL {
            for len in lengths() {
                check_matmul(kernels, precision, [7, 19, len], &mut random);
                check_matmul(kernels, precision, [3, len, 33], &mut random);
            }
            for m in (0..=40).chain([191, 193, 197, 385]) {
                check_matmul(kernels, precision, [m, 37, 45], &mut random);
            }
            for k in [255, 256, 511, 513, 1025, 1536, 3073] {
                check_matmul(kernels, precision, [14, k, 35], &mut random);
            }
            // Rows that would lie on each other in the cache are moved apart, where there are columns enough: 1022 and 1023 at
            // times with a stride of 1024, 2048 and 4096 as words of two and four values.
            for k in [1022, 1023, 1024, 2048, 4096] {
                for n in [63, 64, 70] {
                    check_matmul(kernels, precision, [14, k, n], &mut random);
                }
            }
            check_matmul(kernels, precision, [195, 1024, 64], &mut random);
            // More than one block of rows where it is the words of x that are counted.
            check_matmul(kernels, precision, [135, 4096, 35], &mut random);
        }
    }
}

/// Two bfloat16 with zero for a subnormal, which AVX-512 BF16 makes of it.
fn without_subnormals(word: u32) -> u32 {
    let half = |half: u32| if half & 0x7f80 == 0 { half & 0x8000 } else { half };
    half(word & 0xffff) | half(word >> 16) << 16
}

/// What is exact is the same everywhere: how numbers are rounded to fewer bits, and the sums of int8.
#[test]
fn instruction_sets_agree_on_fewer_bits() {
    let mut random = Random(9);
    let special = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0, -0.0, 1e-40];
    // A NaN whose bits all lie in the half that is dropped; values between two bfloat16, and just beside.
    let bits_of = [0x7f80_0001, 0x7fff_ffff, 0x3f80_8000, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001];
    let mut values = random.uniform(1000, 3.0);
    values.extend(special);
    values.extend(bits_of.map(f32::from_bits));
    for kernels in tables() {
        for len in lengths() {
            let tail = Guarded::new(&values[values.len() - len..], Flush::End);
            let head = Guarded::new(&values[..len], Flush::Start);
            for (op, words) in [("rows", len.div_ceil(2)), ("pairs", len), ("one", len)] {
                let run = |kernels: &Kernels, to: &mut [u32]| match op {
                    "rows" => kernels.round_bf16(&tail, to),
                    "pairs" => kernels.pair_bf16(&tail, &head, to),
                    _ => kernels.pair_bf16(&tail, &[], to),
                };
                let mut found = Guarded::new(&vec![!0; words], Flush::End);
                let mut expected = vec![!0; words];
                run(kernels, &mut found);
                run(&reference::TABLE, &mut expected);
                let normal =
                    |words: &[u32]| words.iter().map(|&word| without_subnormals(word)).collect::<Vec<_>>();
                assert_eq!(normal(&found), normal(&expected), "{} {op} of {len}", kernels.isa);
            }
        }
    }
    for value in special.into_iter().chain(bits_of.map(f32::from_bits)) {
        let mut word = [0];
        reference::TABLE.round_bf16(&[value], &mut word);
        let rounded = f32::from_bits(word[0] << 16);
        let error = f64::from(rounded) / f64::from(value) - 1.0;
        assert!(
            rounded.is_nan() == value.is_nan()
                && (error.abs() <= 1.0 / 256.0 || !error.is_finite() || value.abs() < 1e-38),
            "{value} became {rounded}"
        );
    }
}

/// Rows of constant values, of one sign, and of none.
#[test]
fn int8_keeps_zero_and_range() {
    let k = 37;
    let weight: Vec<f32> = (0..k).map(|i| if i % 2 == 0 { 1.0 } else { -0.5 }).collect();
    for kernels in TABLES.iter().filter_map(|entry| entry.kernels()) {
        let packed = kernels.packed(View::new(&weight, 1, k), Precision::Int8);
        for (low, high) in
            [(0.0, 0.0), (5.0, 5.0), (-3.0, -3.0), (1.0, 2.0), (-2.0, -1.0), (-1e-30, 1e-30), (-1e30, 1e30)]
        {
            let x: Vec<f32> = (0..k).map(|i| low + (high - low) * i as f32 / (k - 1) as f32).collect();
            let expected: f64 = x.iter().zip(&weight).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            let mut out = [f32::NAN];
            kernels.matmul(View::new(&x, 1, k), &packed, Epilogue::NONE, ViewMut::new(&mut out, 1, 1));
            // Half a step for each value, and half a step of the weight.
            let range = f64::from(high.max(0.0) - low.min(0.0));
            let bound = k as f64 * range * (0.5 / 255.0 + 0.5 / 127.0) + 1e-36;
            close(out[0], expected as f32, bound, || format!("{} {low}..{high}", kernels.isa));
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 2 * k];
            x[k + 20] = bad;
            let mut out = [0.0; 2];
            kernels.matmul(View::new(&x, 2, k), &packed, Epilogue::NONE, ViewMut::new(&mut out, 2, 1));
            assert!(out[0].is_finite() && out[1].is_nan(), "{} {bad}: {out:?}", kernels.isa);
            let mut w = weight.clone();
            w[3] = bad;
            let packed = kernels.packed(View::new(&w, 1, k), Precision::Int8);
            kernels.matmul(View::new(&x, 2, k), &packed, Epilogue::NONE, ViewMut::new(&mut out, 2, 1));
            assert!(out[0].is_nan(), "{} {bad} in a weight", kernels.isa);
        }
    }
}

#[test]
fn columns_do_not_depend_on_their_place() {
    let mut random = Random(2);
    let (m, k, n) = (13, 300, 71);
    let (x, w) = (random.uniform(m * k, 1.0), random.uniform(n * k, 1.0));
    for kernels in tables() {
        for precision in Precision::ALL {
            let mut all = vec![0.0; m * n];
            let packed = kernels.packed(View::new(&w, n, k), precision);
            kernels.matmul(View::new(&x, m, k), &packed, Epilogue::NONE, ViewMut::new(&mut all, m, n));
            for j in 0..n {
                let mut column = vec![0.0; m];
                let packed = kernels.packed(View::new(&w[j * k..][..k], 1, k), precision);
                kernels.matmul(View::new(&x, m, k), &packed, Epilogue::NONE, ViewMut::new(&mut column, m, 1));
                let found: Vec<f32> = (0..m).map(|i| all[i * n + j]).collect();
                assert_eq!(bits(&found), bits(&column), "{} {precision} column {j}", kernels.isa);
            }
        }
    }
}

/// Bytes that begin at a cache line.
struct Aligned(Values);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        crate::packed::as_bytes(&self.0)
    }
}

#[test]
fn an_image_multiplies_as_the_matrix_it_was_made_of() {
    let mut random = Random(40);
    for (n, k) in [(1, 1), (32, 16), (33, 7), (70, 130)] {
        let (weight, x) = (random.uniform(n * k, 1.0), random.uniform(3 * k, 1.0));
        let (factor, offset) = (random.uniform(k, 2.0), random.uniform(k, 1.0));
        for entry in TABLES {
            let Some(kernels) = entry.kernels() else { continue };
            for (precision, smoothed) in [
                (Precision::F32, false),
                (Precision::Bf16, false),
                (Precision::Int8, false),
                (Precision::Int8, true),
            ] {
                let mut packed = kernels.packed(View::new(&weight, n, k), precision);
                if smoothed {
                    packed = packed.smoothed(factor.clone(), offset.clone());
                }
                let mut image = Vec::new();
                for part in packed.image() {
                    image.extend_from_slice(part);
                    image.resize(image.len().next_multiple_of(64), 0);
                }
                let words = image.as_chunks().0.iter().map(|word| f32::from_ne_bytes(*word));
                // A line in front, so that it begins elsewhere than the bytes do.
                let bytes: Vec<f32> = [0.0; 16].into_iter().chain(words).collect();
                let bytes: SharedBytes = Arc::new(Aligned(bytes.into()));
                let range = 64..64 + image.len();
                let from = |shape, range| PackedMatrix::from_image(shape, Arc::clone(&bytes), range);
                let shape = packed.shape();
                let mut shared = from(shape, range.clone()).unwrap();
                let product = |w: &PackedMatrix| {
                    let mut out = vec![0.0; 3 * n];
                    kernels.matmul(View::new(&x, 3, k), w, Epilogue::NONE, ViewMut::new(&mut out, 3, n));
                    bits(&out)
                };
                assert_eq!(product(&shared), product(&packed), "{} {precision} {n} x {k}", entry.isa);
                assert_eq!((shared.shape(), shared.image()), (shape, packed.image()));
                let clone = shared.clone();
                kernels.pack(View::new(&weight[..k], 1, k), Precision::F32, &mut shared);
                assert_eq!(shared.n(), 1, "packed again, in memory of its own");
                assert_eq!(product(&clone), product(&packed));

                assert!(from(shape, 64..63 + image.len()).is_none(), "too short");
                assert!(from(shape, 64..65 + image.len()).is_none(), "beyond the end");
                assert!(from(shape, 60..60 + image.len()).is_none(), "not at a line");
                assert!(from(Shape { n: n + 32, ..shape }, range.clone()).is_none(), "of another shape");
                assert!(from(Shape { n: usize::MAX - 7, ..shape }, range.clone()).is_none(), "of no shape");
                assert!(from(Shape { smoothed: !smoothed, ..shape }, range).is_none(), "of another kind");
            }
        }
    }
}

#[test]
fn packing_is_the_layout_that_is_documented() {
    let mut random = Random(3);
    let (mut packed, mut transposed) = (PackedMatrix::new(), PackedMatrix::new());
    for kernels in TABLES.iter().filter_map(|entry| entry.kernels()) {
        for n in lengths().filter(|n| *n < 300) {
            for k in [0, 1, 3, 4, 5, 17, 64] {
                let stride = k + n % 3;
                let len = if n == 0 || k == 0 { 0 } else { (n - 1) * stride + k };
                let data = Guarded::new(&random.uniform(len, 1.0), Flush::End);
                let w = View::strided(&data, n, k, stride);
                let turned: Vec<f32> = (0..k).flat_map(|kk| (0..n).map(move |j| w.row(j)[kk])).collect();
                let turned = Guarded::new(&turned, Flush::End);
                for precision in Precision::ALL {
                    let depth = [1, 2, 4][precision as usize];
                    let groups = k.div_ceil(depth);
                    kernels.pack(w, precision, &mut packed);
                    let precision = if n * k == 0 { Precision::F32 } else { precision };
                    let (depth, groups) = if n * k == 0 { (1, k) } else { (depth, groups) };
                    assert_eq!((packed.n(), packed.k(), packed.precision()), (n, k, precision));
                    assert_eq!(packed.words().len(), n.div_ceil(32) * groups * 32);
                    assert_eq!(packed.words(), kernels.packed(w, precision).words());
                    assert_eq!(packed.words().as_ptr().align_offset(if k * n == 0 { 1 } else { 64 }), 0);
                    assert!(packed.allocated_bytes() >= size_of_val(packed.words()));
                    if precision != Precision::Int8 {
                        kernels.pack_transposed(View::new(&turned, k, n), precision, &mut transposed);
                        assert_eq!(
                            packed.words(),
                            transposed.words(),
                            "{} {precision} {n} x {k}",
                            kernels.isa
                        );
                    }
                    for (at, &word) in packed.words().iter().enumerate() {
                        let (j, group) = (at / (32 * groups) * 32 + at % 32, at / 32 % groups);
                        for part in 0..depth {
                            let kk = group * depth + part;
                            let expected = if j < n && kk < k { w.row(j)[kk] } else { 0.0 };
                            let (found, error) = match precision {
                                Precision::F32 | Precision::F16 => (f32::from_bits(word), 0.0),
                                Precision::Bf16 => (f32::from_bits(word >> (16 * part) << 16), 1.0 / 256.0),
                                Precision::Int8 => {
                                    let step = word.to_le_bytes()[part].cast_signed();
                                    (f32::from(step) * packed.scales()[j], 0.51 / 127.0)
                                }
                            };
                            assert!((found - expected).abs() <= error, "{precision} {n} x {k}: {j}, {kk}");
                        }
                    }
                    if precision == Precision::Int8 && k > 0 {
                        for j in 0..n {
                            let words = (0..groups).map(|group| packed.panel_row(j / 32, group)[j % 32]);
                            let sum: i32 = words
                                .flat_map(u32::to_le_bytes)
                                .map(|byte| i32::from(byte.cast_signed()))
                                .sum();
                            assert_eq!(sum, packed.sums()[j]);
                        }
                    }
                }
            }
        }
    }
}

/// Applies `op` to `rows` rows of `data`, apart and guarded, and checks that each row is the same alone.
fn in_rows(kernels: &Kernels, data: &[f32], cols: usize, op: &dyn Fn(ViewMut<'_>)) -> Vec<f32> {
    let rows = data.len().checked_div(cols).unwrap_or(0);
    let mut found = Vec::new();
    for flush in [Flush::Start, Flush::End] {
        let stride = cols + 3;
        let mut apart = vec![f32::INFINITY; if rows == 0 { 0 } else { (rows - 1) * stride + cols }];
        for i in 0..rows {
            apart[i * stride..][..cols].copy_from_slice(&data[i * cols..][..cols]);
        }
        let mut x = Guarded::new(&apart, flush);
        op(ViewMut::strided(&mut x, rows, cols, stride));
        found = (0..rows).flat_map(|i| x[i * stride..][..cols].to_vec()).collect();
        assert!(
            x.iter().enumerate().all(|(at, x)| at % stride < cols || *x == f32::INFINITY),
            "{}",
            kernels.isa
        );
    }
    for i in 0..rows {
        let mut alone = Guarded::new(&data[i * cols..][..cols], Flush::End);
        op(ViewMut::new(&mut alone, 1, cols));
        assert_eq!(bits(&alone), bits(&found[i * cols..][..cols]), "{} row {i} of {cols}", kernels.isa);
    }
    found
}

#[test]
fn softmax_is_the_reference() {
    let mut random = Random(4);
    for kernels in tables() {
        for cols in lengths() {
            for size in [1.0, 30.0, 200.0] {
                let mut data = random.uniform(3 * cols, size);
                if cols > 2 {
                    data[1] = f32::NEG_INFINITY;
                    data[2 * cols - 1] = f32::NEG_INFINITY;
                }
                let found = in_rows(kernels, &data, cols, &|x| kernels.softmax_rows(x));
                let mut expected = data.clone();
                reference::TABLE.softmax_rows(ViewMut::new(
                    &mut expected,
                    found.len().checked_div(cols).unwrap_or(0),
                    cols,
                ));
                for (at, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
                    let row = &data[at / cols * cols..][..cols];
                    let below = f64::from(row.iter().copied().fold(f32::MIN, f32::max)) - f64::from(data[at]);
                    if below == f64::INFINITY {
                        assert_eq!(found.to_bits(), 0);
                        continue;
                    }
                    // d = max - x is rounded, which moves exp by U d, and the sum by U sum p d <= U ln(cols).
                    // Then exp in the entry and in the sum, the inverse, the product and the reference. What adding four in f32
                    // loses fits into what EXP, the worst case, leaves.
                    let relative = U * (below + (cols as f64).ln()) + 2.0 * EXP + 3.0 * U;
                    close(found, expected, relative * f64::from(expected) + TINY, || {
                        format!("{} {at} of {cols}", kernels.isa)
                    });
                }
            }
        }
    }
}

#[test]
fn norms_are_the_reference() {
    let mut random = Random(5);
    for kernels in tables() {
        for cols in lengths() {
            for (shift, eps) in [(0.0, 1e-12), (1000.0, 1e-5)] {
                let data: Vec<f32> = random.uniform(3 * cols, 2.0).iter().map(|x| x + shift).collect();
                let gamma = Guarded::new(&random.uniform(cols, 1.5), Flush::End);
                let beta = Guarded::new(&random.uniform(cols, 1.5), Flush::End);
                for op in 0..3 {
                    let apply = |kernels: &Kernels, x: ViewMut<'_>| match op {
                        0 => kernels.layer_norm(x, &gamma, Some(&beta), eps),
                        1 => kernels.layer_norm(x, &gamma, None, eps),
                        _ => kernels.rms_norm(x, &gamma, eps),
                    };
                    let found = in_rows(kernels, &data, cols, &|x| apply(kernels, x));
                    let mut expected = data.clone();
                    apply(
                        &reference::TABLE,
                        ViewMut::new(&mut expected, found.len().checked_div(cols).unwrap_or(0), cols),
                    );
                    for (at, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
                        let y = f64::from(expected).abs();
                        let shift = if op == 0 { f64::from(beta[at % cols].abs()) } else { 0.0 };
                        // What is normalised, at most |y| + |beta|, is rounded when the two parts of the mean are taken
                        // away, when it is multiplied, and in its factor. LayerNorm adds squares in f32, in at least four lanes,
                        // which moves the factor by half as much. Then the result and the reference.
                        let squares = if op == 2 { 0.0 } else { 1.0 + cols as f64 / 8.0 };
                        let bound = (4.0 + squares) * U * (y + shift) + 2.0 * U * y + 1e-12;
                        close(found, expected, bound, || format!("{} op {op} {at} of {cols}", kernels.isa));
                    }
                }
            }
        }
    }
}

/// Error allowed at `x` where the truth is `y`.
type Bound = fn(x: f64, y: f64) -> f64;

/// Each with: exp, the sum and the quotient, the reference; and what only it has.
const MAPS: &[(Map, Bound)] = &[
    // Half of the error of erf, times x; the product; the reference.
    (Map::GeluErf, |x, y| x.abs() * ERF / 2.0 + 2.0 * U * y.abs() + TINY),
    // The argument of exp has four roundings and moves exp by its own size.
    (Map::GeluTanh, |x, y| {
        let inner = (1.6 * x + 0.0714 * x.powi(3)).abs();
        y.abs() * (EXP + 4.0 * U + 4.0 * U * inner) + TINY * x.abs().max(1.0)
    }),
    (Map::Silu, |x, y| y.abs() * (EXP + 4.0 * U) + TINY * x.abs().max(1.0)),
    (Map::Sigmoid, |_, y| y.abs() * (EXP + 4.0 * U) + TINY),
    (Map::Relu, |_, _| 0.0),
    // From 0.625 on: 2 / (e + 1) <= 0.45 with the errors of exp, sum and quotient; below: the fit (4e-9 x) and four
    // roundings of a correction that is less than a third of x^3.
    (Map::Tanh, |x, y| y.abs() * (EXP + 4.0 * U) + 4e-9 * x.abs().min(1.0) + TINY),
];

#[test]
fn maps_are_the_reference_wherever_an_element_lies() {
    let mut random = Random(6);
    for kernels in tables() {
        for &(map, bound) in MAPS {
            let mut data = Vec::new();
            for size in [1e-6, 0.1, 1.0, 2.0, 6.0, 20.0, 120.0, 1e4] {
                data.extend(random.uniform(500, size));
            }
            data.extend([
                0.0,
                -0.0,
                0.625,
                -0.625,
                1.0,
                -1.0,
                std::f32::consts::SQRT_2,
                88.72,
                88.73,
                -88.73,
                -104.0,
                1e30,
            ]);
            let mut expected = data.clone();
            reference::TABLE.map(map, &mut expected);
            let mut found = data.clone();
            kernels.map(map, &mut found);
            for ((&x, &y), &found) in data.iter().zip(&expected).zip(&found) {
                close(found, y, bound(f64::from(x), f64::from(y)), || {
                    format!("{} {map:?}({x})", kernels.isa)
                });
            }
            for len in lengths() {
                let start = random.next() as usize % (data.len() - len);
                for flush in [Flush::Start, Flush::End] {
                    let mut x = Guarded::new(&data[start..][..len], flush);
                    kernels.map(map, &mut x);
                    assert_eq!(bits(&x), bits(&found[start..][..len]), "{} {map:?} of {len}", kernels.isa);
                }
            }
        }
    }
}

#[test]
fn sums_and_products_are_exact() {
    let mut random = Random(7);
    for kernels in tables() {
        for len in lengths() {
            for flush in [Flush::Start, Flush::End] {
                let (data, y) = (random.uniform(len, 3.0), Guarded::new(&random.uniform(len, 3.0), flush));
                type Op = (&'static str, fn(&Kernels, &mut [f32], &[f32]));
                let scale = |k: &Kernels, x: &mut [f32], _: &[f32]| k.scale(x, 0.176_776_7);
                let ops: [Op; 3] = [("add", Kernels::add), ("mul", Kernels::mul), ("scale", scale)];
                for (name, op) in ops {
                    let mut x = Guarded::new(&data, flush);
                    op(kernels, &mut x, &y);
                    let mut expected = data.clone();
                    op(&reference::TABLE, &mut expected, &y);
                    assert_eq!(bits(&x), bits(&expected), "{} {name} of {len}", kernels.isa);
                }
            }
        }
    }
}

#[test]
fn every_half_converts_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for (half, expected) in
        [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (1, 2f32.powi(-24)), (0x7c00, f32::INFINITY)]
    {
        let mut found = [0.0];
        reference::TABLE.f16_to_f32(&[half], &mut found);
        assert_eq!(found[0], expected);
    }
    for kernels in tables() {
        for (name, convert) in
            [("f16", Kernels::f16_to_f32 as fn(&Kernels, &[u16], &mut [f32])), ("bf16", Kernels::bf16_to_f32)]
        {
            let mut truth = vec![0.0; all.len()];
            convert(&reference::TABLE, &all, &mut truth);
            let check = |from: &[u16], flush| {
                let source = Guarded::new(from, flush);
                let mut found = Guarded::new(&vec![0f32; from.len()], flush);
                convert(kernels, &source, &mut found);
                for (&half, found) in from.iter().zip(found.iter()) {
                    let expected = truth[half as usize];
                    let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                    assert!(same, "{} {name} {half:#x}: {found} is not {expected}", kernels.isa);
                }
            };
            check(&all, Flush::End);
            for len in lengths() {
                check(&all[len * 7..][..len], Flush::Start);
                check(&all[15_000 + len * 11..][..len], Flush::End);
            }
        }
    }
}

#[test]
fn nan_is_never_lost_and_never_spreads_to_other_rows() {
    let mut random = Random(8);
    for kernels in TABLES.iter().filter_map(|entry| entry.kernels()) {
        let (m, k) = (5, 41);
        for (n, precision) in
            [1, 15, 17, 33, 70].into_iter().flat_map(|n| Precision::ALL.map(|precision| (n, precision)))
        {
            let (mut x, mut w) = (random.uniform(m * k, 1.0), random.uniform(n * k, 1.0));
            let (row, column) = (random.next() as usize % m, random.next() as usize % n);
            x[row * k + random.next() as usize % k] = f32::NAN;
            w[column * k + random.next() as usize % k] = f32::NAN;
            let mut out = vec![0.0; m * n];
            kernels.matmul(
                View::new(&x, m, k),
                &kernels.packed(View::new(&w, n, k), precision),
                Epilogue::NONE,
                ViewMut::new(&mut out, m, n),
            );
            for (at, value) in out.iter().enumerate() {
                assert_eq!(value.is_nan(), at / n == row || at % n == column, "{} {at}", kernels.isa);
            }
        }
        for cols in lengths().skip(1) {
            let gamma = vec![1.0; cols];
            let clean = random.uniform(3 * cols, 2.0);
            for op in 0..3 {
                let mut x = clean.clone();
                x[cols + random.next() as usize % cols] = f32::NAN;
                let view = ViewMut::new(&mut x, 3, cols);
                match op {
                    0 => kernels.softmax_rows(view),
                    1 => kernels.layer_norm(view, &gamma, None, 1e-5),
                    _ => kernels.rms_norm(view, &gamma, 1e-5),
                }
                for (at, value) in x.iter().enumerate() {
                    assert_eq!(value.is_nan(), at / cols == 1, "{} op {op} {at} of {cols}", kernels.isa);
                }
            }
            for &(map, _) in MAPS {
                let mut x = clean.clone();
                let at = random.next() as usize % x.len();
                x[at] = f32::NAN;
                kernels.map(map, &mut x);
                assert!(
                    x.iter().enumerate().all(|(i, x)| x.is_nan() == (i == at)),
                    "{} {map:?}",
                    kernels.isa
                );
            }
        }
        let mut masked = [f32::NEG_INFINITY; 9];
        kernels.softmax_rows(ViewMut::new(&mut masked, 1, 9));
        assert!(masked.iter().all(|x| x.is_nan()), "{}: a row of -infinity must be loud", kernels.isa);
    }
}

#[test]
fn nothing_is_packed_of_nothing() {
    for kernels in TABLES.iter().filter_map(|entry| entry.kernels()) {
        for (rows, cols) in [(0, usize::MAX), (usize::MAX, 0), (0, 0)] {
            for precision in Precision::ALL {
                assert!(kernels.packed(View::new(&[], rows, cols), precision).words().is_empty());
            }
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(refused(&|| _ = View::new(&[0.0; 5], 2, 3)));
    assert!(refused(&|| _ = View::strided(&[0.0; 5], 2, 3, 2)));
    assert!(refused(&|| _ = View::strided(&[0.0; 5], usize::MAX, 2, usize::MAX)));
    assert!(!refused(&|| _ = View::strided(&[0.0; 5], 2, 2, 3)));
    for kernels in TABLES.iter().filter_map(|entry| entry.kernels()) {
        let w = kernels.packed(View::new(&[0.0; 6], 2, 3), Precision::F32);
        let product = |x: View<'_>, bias: Option<&[f32]>, out: &mut [f32], rows, cols| {
            let then = Epilogue { bias, ..Epilogue::NONE };
            kernels.matmul(x, &w, then, ViewMut { data: out, rows, cols, stride: cols });
        };
        let residual = |add| {
            let then = Epilogue { add: Some(add), ..Epilogue::NONE };
            kernels.matmul(View::new(&[0.0; 6], 2, 3), &w, then, ViewMut::new(&mut [0.0; 4], 2, 2));
        };
        assert!(!refused(&|| residual(View::new(&[0.0; 4], 2, 2))));
        assert!(refused(&|| residual(View::new(&[0.0; 4], 4, 1))));
        assert!(refused(&|| residual(View { data: &[0.0; 3], rows: 2, cols: 2, stride: 2 })));
        let x = [0.0; 6];
        assert!(!refused(&|| product(View::new(&x, 2, 3), None, &mut [0.0; 4], 2, 2)));
        assert!(refused(&|| product(View::new(&x, 3, 2), None, &mut [0.0; 6], 3, 2)));
        assert!(refused(&|| product(View::new(&x, 2, 3), None, &mut [0.0; 4], 1, 2)));
        assert!(refused(&|| product(View::new(&x, 2, 3), None, &mut [0.0; 6], 2, 3)));
        assert!(refused(&|| product(View::new(&x, 2, 3), Some(&[0.0; 3]), &mut [0.0; 4], 2, 2)));
        // A view made without `new`.
        assert!(refused(&|| product(
            View { data: &x, rows: 4, cols: 3, stride: 3 },
            None,
            &mut [0.0; 8],
            4,
            2
        )));
        assert!(refused(&|| product(View::new(&x, 2, 3), None, &mut [0.0; 3], 2, 2)));
        assert!(refused(&|| kernels.add(&mut [0.0; 2], &[0.0; 3])));
        assert!(refused(&|| kernels.f16_to_f32(&[0; 2], &mut [0.0; 3])));
        assert!(refused(&|| kernels.rms_norm(ViewMut::new(&mut [0.0; 4], 2, 2), &[0.0; 3], 1e-5)));
        assert!(refused(&|| kernels.layer_norm(
            ViewMut::new(&mut [0.0; 4], 2, 2),
            &[0.0; 2],
            Some(&[0.0; 1]),
            1e-5
        )));
    }
}
