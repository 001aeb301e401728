//! The truth: every operation as its definition, in order, in `f64`, rounded to `f32` once at the end. Read first.
//!
//! It is also the table of the instruction set `scalar`, for CPUs without a faster one. Shapes are those that the
//! methods of [`Kernels`] assert.

use crate::packed::PANEL;
use crate::{Isa, Kernels, PackedMatrix, View, ViewMut};

/// The functions of this module.
pub(crate) static TABLE: Kernels = Kernels {
    isa: Isa::Scalar,
    matmul,
    softmax_rows,
    layer_norm,
    rms_norm,
    gelu_erf,
    gelu_tanh,
    silu,
    relu,
    tanh,
    sigmoid,
    add,
    mul,
    scale,
    f16_to_f32,
    bf16_to_f32,
};

/// `out[i][j] = sum over kk of x[i][kk] * w[j][kk], + bias[j]`
fn matmul(x: View<'_>, w: &PackedMatrix, bias: Option<&[f32]>, mut out: ViewMut<'_>) {
    for i in 0..out.rows {
        let x = x.row(i);
        for (p, out) in out.row_mut(i).chunks_mut(PANEL).enumerate() {
            let mut sums = [0.0; PANEL];
            for (kk, &x) in x.iter().enumerate() {
                for (sum, &w) in sums.iter_mut().zip(w.panel_row(p, kk)) {
                    *sum += f64::from(x) * f64::from(w);
                }
            }
            for (j, out) in out.iter_mut().enumerate() {
                *out = (sums[j] + bias.map_or(0.0, |bias| f64::from(bias[p * PANEL + j]))) as f32;
            }
        }
    }
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

fn map(x: &mut [f32], f: impl Fn(f64) -> f64) {
    for x in x {
        *x = f(f64::from(*x)) as f32;
    }
}

/// `x * Phi(x)`, with `Phi(x) = (1 + erf(x / sqrt(2))) / 2` the normal distribution
fn gelu_erf(x: &mut [f32]) {
    map(x, |x| x * normal_distribution(x));
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
fn gelu_tanh(x: &mut [f32]) {
    map(x, |x| {
        let y = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
        // 1 + tanh(y) = 2 / (1 + exp(-2 y)), which does not cancel for negative y.
        x / (1.0 + (-2.0 * y).exp())
    });
}

/// `x / (1 + exp(-x))`
fn silu(x: &mut [f32]) {
    map(x, |x| x / (1.0 + (-x).exp()));
}

/// `max(x, 0)`; NaN stays NaN
fn relu(x: &mut [f32]) {
    map(x, |x| if x < 0.0 { 0.0 } else { x });
}

/// `tanh(x)`
fn tanh(x: &mut [f32]) {
    map(x, f64::tanh);
}

/// `1 / (1 + exp(-x))`
fn sigmoid(x: &mut [f32]) {
    map(x, |x| 1.0 / (1.0 + (-x).exp()));
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
