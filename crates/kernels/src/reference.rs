//! The truth: every operation as its definition, in order, in `f64`, rounded to `f32` once at the end. Read first.
//!
//! It is also the table of the instruction set `scalar`, for CPUs without a faster one. Shapes are those that the
//! methods of [`Kernels`] assert.

use crate::packed::{PANEL, Smoothing};
use crate::{Epilogue, Isa, Kernels, Map, PackedMatrix, Precision, RowScale, Scratch, View, ViewMut};

/// The functions of this module.
pub(crate) static TABLE: Kernels = Kernels {
    isa: Isa::Scalar,
    matmul,
    round_bf16,
    pair_bf16,
    softmax_rows,
    layer_norm,
    rms_norm,
    map,
    add,
    mul,
    scale,
    f16_to_f32,
    bf16_to_f32,
};

/// `out[i][j] = map(sum over kk of x[i][kk] * w[j][kk], + bias[j]) + add[i][j]`
fn matmul(x: View<'_>, w: &PackedMatrix, then: Epilogue<'_>, mut out: ViewMut<'_>, _: &mut Scratch) {
    let mut words = vec![0; w.groups()];
    for i in 0..out.rows {
        let mut row_scale = RowScale { scale: 1.0, zero: 0 };
        match w.precision() {
            Precision::F32 | Precision::F16 => words.copy_from_slice(crate::packed::as_words(x.row(i))),
            Precision::Bf16 => round_bf16(x.row(i), &mut words),
            Precision::Int8 => {
                let mut row = x.row(i).to_vec();
                if let Some(Smoothing { factor, offset }) = w.smoothing() {
                    // In f32, as every instruction set does it: the steps are the same then.
                    row.iter_mut().enumerate().for_each(|(kk, x)| *x = x.mul_add(factor[kk], offset[kk]));
                }
                row_scale = quantise(&row, &mut words);
            }
        }
        for (p, out) in out.row_mut(i).chunks_mut(PANEL).enumerate() {
            let mut sums = [0.0; PANEL];
            for (group, &x) in words.iter().enumerate() {
                for (sum, &w_word) in sums.iter_mut().zip(w.panel_row(p, group)) {
                    *sum += word_product(w.precision(), x, w_word);
                }
            }
            for (j, out) in out.iter_mut().enumerate() {
                let column = p * PANEL + j;
                let mut y = sums[j];
                if w.precision() == Precision::Int8 {
                    // sum of (step - zero) * weight, an integer
                    let exact = y - f64::from(row_scale.zero) * f64::from(w.sums()[column]);
                    y = exact * f64::from(row_scale.scale) * f64::from(w.scales()[column]);
                }
                y = function(then.map, y + then.bias.map_or(0.0, |bias| f64::from(bias[column])));
                *out = (y + then.add.map_or(0.0, |add| f64::from(add.row(i)[column]))) as f32;
            }
        }
    }
}

/// The sum of the products of what two words hold.
fn word_product(precision: Precision, x: u32, w: u32) -> f64 {
    let bf16 = |half: u32| f64::from(f32::from_bits(half << 16));
    match precision {
        Precision::F32 | Precision::F16 => f64::from(f32::from_bits(x)) * f64::from(f32::from_bits(w)),
        Precision::Bf16 => bf16(x & 0xffff) * bf16(w & 0xffff) + bf16(x >> 16) * bf16(w >> 16),
        Precision::Int8 => {
            let pairs = x.to_le_bytes().into_iter().zip(w.to_le_bytes());
            pairs.map(|(x, w)| f64::from(x) * f64::from(w.cast_signed())).sum()
        }
    }
}

/// The nearest bfloat16, ties to even, of each number; two a word, the first in the low half
fn round_bf16(src: &[f32], dst: &mut [u32]) {
    for (pair, to) in src.chunks(2).zip(dst) {
        *to = nearest_bf16(pair[0]) | pair.get(1).map_or(0, |high| nearest_bf16(*high) << 16);
    }
}

/// `low[i]` and `high[i]` as bfloat16 in one word
fn pair_bf16(low: &[f32], high: &[f32], dst: &mut [u32]) {
    for (i, to) in dst.iter_mut().enumerate() {
        *to = nearest_bf16(low[i]) | high.get(i).map_or(0, |high| nearest_bf16(*high) << 16);
    }
}

fn nearest_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        return bits >> 16 | 0x40;
    }
    // The two neighbours; the upper one may be infinity.
    let (below, rest) = (bits >> 16, bits & 0xffff);
    if rest > 0x8000 || rest == 0x8000 && below & 1 == 1 { below + 1 } else { below }
}

/// `step = x / scale + zero`, rounded, with 255 steps from the smallest to the largest value, zero included
fn quantise(src: &[f32], dst: &mut [u32]) -> RowScale {
    let most = src.iter().fold(0.0, |most: f32, &x| most.max(x));
    let least = src.iter().fold(0.0, |least: f32, &x| least.max(-x));
    let row = RowScale::new(least, most, src.iter().map(|x| x * 0.0).sum());
    for (four, to) in src.chunks(4).zip(dst) {
        let mut bytes = [0; 4];
        for (byte, &x) in bytes.iter_mut().zip(four) {
            *byte =
                ((x * row.inverse()).round_ties_even() as i32).saturating_add(row.zero).clamp(0, 255) as u8;
        }
        *to = u32::from_le_bytes(bytes);
    }
    row
}

/// `exp(x - max) / sum of exp(x - max)`
fn softmax_rows(mut x: ViewMut<'_>) {
    for i in 0..x.rows {
        let row = x.row_mut(i);
        // `f32::max` drops NaN, but a NaN is still in the row, and so in the sum.
        let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = row.iter().map(|&x| (f64::from(x) - max).exp()).sum();
        for x in row {
            *x = ((f64::from(*x) - max).exp() / sum) as f32;
        }
    }
}

/// `(x - mean) / sqrt(variance + eps) * gamma + beta`, with the variance of the population
fn layer_norm(mut x: ViewMut<'_>, gamma: &[f32], beta: Option<&[f32]>, eps: f32) {
    for i in 0..x.rows {
        let row = x.row_mut(i);
        let count = row.len() as f64;
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
        let deviation = (variance + f64::from(eps)).sqrt();
        for (j, x) in row.iter_mut().enumerate() {
            let normal = (f64::from(*x) - mean) / deviation;
            *x = (normal * f64::from(gamma[j]) + beta.map_or(0.0, |beta| f64::from(beta[j]))) as f32;
        }
    }
}

/// `x / sqrt(mean of x^2 + eps) * gamma`
fn rms_norm(mut x: ViewMut<'_>, gamma: &[f32], eps: f32) {
    for i in 0..x.rows {
        let row = x.row_mut(i);
        let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / row.len() as f64;
        let root = (mean + f64::from(eps)).sqrt();
        for (j, x) in row.iter_mut().enumerate() {
            *x = (f64::from(*x) / root * f64::from(gamma[j])) as f32;
        }
    }
}

fn map(map: Map, x: &mut [f32]) {
    for x in x {
        *x = function(map, f64::from(*x)) as f32;
    }
}

fn function(map: Map, x: f64) -> f64 {
    match map {
        Map::Identity => x,
        Map::GeluErf => x * normal_distribution(x),
        Map::GeluTanh => {
            let y = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            // 1 + tanh(y) = 2 / (1 + exp(-2 y)), which does not cancel for negative y.
            x / (1.0 + (-2.0 * y).exp())
        }
        Map::Silu => x / (1.0 + (-x).exp()),
        Map::Relu if x < 0.0 => 0.0,
        Map::Relu => x, // and NaN
        Map::Tanh => x.tanh(),
        Map::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// `x + y`
fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `x * y`
fn mul(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x *= y;
    }
}

/// `x * s`
fn scale(x: &mut [f32], s: f32) {
    for x in x {
        *x *= s;
    }
}

/// IEEE 754 binary16: one sign bit, five of exponent (bias 15), ten of fraction
fn f16_to_f32(src: &[u16], dst: &mut [f32]) {
    for (&half, to) in src.iter().zip(dst) {
        let (exponent, fraction) = (i32::from(half >> 10 & 31), f32::from(half & 0x3ff));
        let size = match exponent {
            // 2^-24: the unit of subnormal numbers.
            0 => fraction / 16_777_216.0,
            31 if fraction == 0.0 => f32::INFINITY,
            31 => f32::NAN,
            _ => (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
        };
        *to = if half >> 15 == 1 { -size } else { size };
    }
}

/// bfloat16: the upper half of a binary32
fn bf16_to_f32(src: &[u16], dst: &mut [f32]) {
    for (&half, to) in src.iter().zip(dst) {
        *to = f32::from_bits(u32::from(half) << 16);
    }
}

/// `erfc(-x / sqrt(2)) / 2`
fn normal_distribution(x: f64) -> f64 {
    let tail = erfc(x.abs() * std::f64::consts::FRAC_1_SQRT_2) / 2.0;
    if x < 0.0 { tail } else { 1.0 - tail }
}

/// `erfc(z)` for `z >= 0`. Abramowitz and Stegun, 7.1.6 (all terms positive) and 7.1.14 (the continued fraction).
fn erfc(z: f64) -> f64 {
    if z.is_nan() {
        return z;
    }
    // Past 28 the result is below the least f64; and infinity is not for a continued fraction.
    if z > 28.0 {
        return 0.0;
    }
    let gauss = (-z * z).exp() * std::f64::consts::FRAC_2_SQRT_PI;
    if z < 2.5 {
        // erf(z) = 2 / sqrt(pi) exp(-z^2) (z + 2 z^3 / 3 + 4 z^5 / 15 + ...)
        let (mut term, mut sum, mut odd) = (z, z, 1.0);
        while term > sum * 1e-17 {
            odd += 2.0;
            term *= 2.0 * z * z / odd;
            sum += term;
        }
        1.0 - gauss * sum
    } else {
        // sqrt(pi) exp(z^2) erfc(z) = 1 / (z + (1/2) / (z + 1 / (z + (3/2) / (z + ...))))
        let fraction = (1..120).rev().fold(z, |below, i| z + f64::from(i) / 2.0 / below);
        gauss / 2.0 / fraction
    }
}

#[cfg(test)]
mod tests {
    use super::{erfc, normal_distribution};

    /// Values of Abramowitz and Stegun, table 7.1 and 7.3, to the digits printed there.
    #[test]
    fn erfc_agrees_with_the_printed_tables() {
        for (z, expected) in
            [(0.0, 1.0), (0.5, 0.479_500_122_2), (1.0, 0.157_299_207_1), (2.0, 0.004_677_734_981)]
        {
            assert!((erfc(z) - expected).abs() < 1e-10, "erfc({z}) = {}", erfc(z));
        }
        // Both forms, where they meet.
        let (below, above) = (erfc(2.5 - 1e-12), erfc(2.5));
        assert!((below / above - 1.0).abs() < 1e-10, "{below} {above}");
        assert!(normal_distribution(f64::NAN).is_nan());
        assert!((normal_distribution(-1.0) + normal_distribution(1.0) - 1.0).abs() < 1e-15);
    }
}
