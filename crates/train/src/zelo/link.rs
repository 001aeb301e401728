use std::f64::consts::PI;

use serde::Serialize;

/// How the difference of two scores becomes the probability of a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// (1 + erf(z)) / 2: what a judge sees is the score and normal noise of variance 1/4 for each document. zELO's choice.
    #[default]
    Thurstone,
    /// 1 / (1 + exp(-z)). Scores come out about 2.3 times as large.
    BradleyTerry,
}

/// Of the logarithm of a probability at z.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogProbability {
    pub value: f64,
    /// The first derivative, which is positive.
    pub slope: f64,
    /// Minus the second derivative, which is positive: the logarithm is concave.
    pub curvature: f64,
}

/// Below this z, erfc is computed by its asymptotic series, which is exact to f64 there; above it, by the function, which is
/// zero only below -26.
const TAIL: f64 = -10.0;

impl Link {
    /// The probability that the second document wins, at z = (its score) - (the other's).
    pub fn probability(self, z: f64) -> f64 {
        match self {
            Self::Thurstone => 0.5 * libm::erfc(-z),
            Self::BradleyTerry => 1.0 / (1.0 + (-z).exp()),
        }
    }

    pub(crate) fn log_probability(self, z: f64) -> LogProbability {
        match self {
            Self::Thurstone if z < TAIL => tail(-z),
            Self::Thurstone => {
                let half_erfc = 0.5 * libm::erfc(-z);
                let slope = (-z * z).exp() / (PI.sqrt() * half_erfc);
                LogProbability { value: half_erfc.ln(), slope, curvature: slope * (slope + 2.0 * z) }
            }
            Self::BradleyTerry => {
                let small = (-z.abs()).exp(); // no overflow on either side
                let other = if z > 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
                let value = z.min(0.0) - small.ln_1p();
                LogProbability { value, slope: other, curvature: small / ((1.0 + small) * (1.0 + small)) }
            }
        }
    }
}

/// Thurstone's at -x, x > 10. erfc(x) = exp(-x²) / (x √π) · (1 - r) with r = 1/(2x²) - 3/(2x²)² + 15/(2x²)³ - ...; the ninth term
/// is below 1e-15. Source: Abramowitz and Stegun, 7.1.23.
fn tail(x: f64) -> LogProbability {
    let step = 0.5 / (x * x);
    let (mut term, mut r) = (-1.0, 0.0);
    for n in 1..9 {
        term *= -step * f64::from(2 * n - 1);
        r += term;
    }
    let value = -x * x - (2.0 * x * PI.sqrt()).ln() + (-r).ln_1p();
    let slope = 2.0 * x / (1.0 - r);
    // slope - 2x, of which subtraction would leave few digits.
    let excess = 2.0 * x * r / (1.0 - r);
    LogProbability { value, slope, curvature: slope * excess }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: [Link; 2] = [Link::Thurstone, Link::BradleyTerry];

    #[test]
    fn derivatives_are_those_of_the_value() {
        for link in LINKS {
            for z in [-40.0, -12.0, -9.9, -5.0, -1.0, 0.0, 0.3, 2.0, 5.0] {
                let h = 1e-5 * f64::max(1.0, f64::abs(z));
                let (low, at, high) =
                    (link.log_probability(z - h), link.log_probability(z), link.log_probability(z + h));
                let slope = (high.value - low.value) / (2.0 * h);
                let curvature = -(high.slope - low.slope) / (2.0 * h);
                // Central differences are exact to h²; the value of -1600 has 13 digits behind it.
                assert!((at.slope - slope).abs() < 1e-6 * (1.0 + slope.abs()), "{link:?} {z}");
                assert!((at.curvature - curvature).abs() < 1e-6 * (1.0 + curvature.abs()), "{link:?} {z}");
            }
        }
    }

    #[test]
    fn the_tail_goes_on_where_the_function_ends() {
        for z in [-10.0, -10.5, -13.0, -20.0, -26.0] {
            let expected = (0.5 * libm::erfc(-z)).ln();
            let found = tail(-z);
            assert!((found.value - expected).abs() < 1e-13 * expected.abs(), "{z}");
        }
        // mpmath: log(erfc(100) / 2) and its two derivatives.
        let far = Link::Thurstone.log_probability(-100.0);
        assert!((far.value - -10_005.870_732_303_224).abs() < 1e-9, "{}", far.value);
        assert!((far.slope - 200.009_999_000_249_9).abs() < 1e-10, "{}", far.slope);
        assert!(Link::Thurstone.log_probability(-1e8).curvature > 1.9);
    }

    #[test]
    fn far_out_nothing_overflows() {
        for link in LINKS {
            for z in [-1e150, -1e6, -800.0, 800.0, 1e6, 1e150] {
                let LogProbability { value, slope, curvature } = link.log_probability(z);
                assert!(value <= 0.0 && slope >= 0.0 && curvature >= 0.0, "{link:?} {z}");
                assert!(slope.is_finite() && curvature.is_finite() && !value.is_nan(), "{link:?} {z}");
            }
            assert_eq!(link.log_probability(800.0).value, 0.0);
            assert!((link.probability(0.7) + link.probability(-0.7) - 1.0).abs() < 1e-15);
        }
    }
}
