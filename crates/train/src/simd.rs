//! Loops over slices that the compiler turns into the widest vectors this CPU has. No intrinsics: `pulp` picks the
//! instruction set, and the loops are written so that they can be vectorised (sums in lanes, no branches).

use std::sync::OnceLock;

use pulp::Arch;

/// Partial sums: as many as two AVX-512 registers hold.
const LANES: usize = 32;

/// Runs `work`, compiled for the best instruction set of this CPU.
#[inline]
pub(crate) fn on<R>(work: impl FnOnce() -> R) -> R {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    ARCH.get_or_init(Arch::new).dispatch(work)
}

/// The sum of `f(a, b)` over two slices of the same length.
#[inline(always)]
pub(crate) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole_a, whole_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = whole_a.remainder().iter().zip(whole_b.remainder()).map(|(&a, &b)| f(a, b)).sum();
    for (a, b) in whole_a.zip(whole_b) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// `e^x`, within 2 units in the last place; below -87 it is 0 but for a subnormal.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| <= ln 2 / 2; the Taylor polynomial of e^r, times 2^n.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, which lies in the low bits
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(0x3f80_0000)) * p
}

/// `to = from` with rows and columns exchanged; `from` is `[rows, cols]`, its rows `stride` apart.
pub(crate) fn transpose(from: &[f32], (rows, cols, stride): (usize, usize, usize), to: &mut [f32]) {
    const TILE: usize = 16;
    on(
        #[inline(always)]
        || {
            for r0 in (0..rows).step_by(TILE) {
                for c0 in (0..cols).step_by(TILE) {
                    if r0 + TILE <= rows && c0 + TILE <= cols {
                        let mut tile = [[0.0_f32; TILE]; TILE];
                        for r in 0..TILE {
                            let row = &from[(r0 + r) * stride + c0..][..TILE];
                            for c in 0..TILE {
                                tile[c][r] = row[c];
                            }
                        }
                        for c in 0..TILE {
                            to[(c0 + c) * rows + r0..][..TILE].copy_from_slice(&tile[c]);
                        }
                    } else {
                        for r in r0..rows.min(r0 + TILE) {
                            for c in c0..cols.min(c0 + TILE) {
                                to[c * rows + r] = from[r * stride + c];
                            }
                        }
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close() {
        for i in -8600..8700 {
            let x = i as f32 / 100.0;
            let error = (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs();
            assert!(error < 3e-7, "exp({x}) is off by {error}");
        }
        assert!(exp(-1e9) < 1e-37 && exp(-1e9) >= 0.0);
    }

    #[test]
    fn transposes_odd_shapes() {
        for (rows, cols) in [(1, 1), (16, 16), (17, 33), (5, 40), (48, 16)] {
            let stride = cols + 3;
            let from: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
            let mut to = vec![0.0; rows * cols];
            transpose(&from, (rows, cols, stride), &mut to);
            for r in 0..rows {
                for c in 0..cols {
                    assert_eq!(to[c * rows + r], from[r * stride + c]);
                }
            }
        }
    }

    #[test]
    fn sums_any_length() {
        for length in [0, 1, 31, 32, 33, 100] {
            let a: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let wanted: f32 = a.iter().map(|a| a * 2.0).sum();
            assert_eq!(sum2(&a, &a, |a, b| a + b), wanted);
        }
    }
}
