use statrs::distribution::{ContinuousCDF, StudentsT};

use super::standard_deviation;
use crate::data::mean;

/// What two one-sided t-tests say about a mean difference and a margin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tost {
    /// p-value against "the loss is the margin or more". Small: no loss that matters.
    pub p_loss: f64,
    /// p-value against "the gain is the margin or more". Small: no gain that matters.
    pub p_gain: f64,
}

impl Tost {
    /// p-value against "the difference is the margin or more, either way". Small: equivalent.
    pub fn p(&self) -> f64 {
        self.p_loss.max(self.p_gain)
    }
}

/// Two one-sided paired t-tests (TOST) of the mean of `differences` against `-margin` and `+margin`. A large p-value of an
/// ordinary test says only that nothing was found; a small one here says that there is nothing to find.
///
/// Both p-values are 1 for fewer than two differences. If all differences are the same there is no spread to measure:
/// the p-values are then 0 or 1, and the caller has to judge whether so few queries can carry that.
///
/// Source: Schuirmann, "A comparison of the two one-sided tests procedure", 1987; same as statsmodels' `ttost_paired`.
pub fn tost(differences: &[f64], margin: f64) -> Tost {
    let n = differences.len() as f64;
    let Some(t) = students_t(n - 1.0) else { return Tost { p_loss: 1.0, p_gain: 1.0 } };
    let error = standard_deviation(differences) / n.sqrt();
    let mean = mean(differences.iter().copied());
    let p = |distance: f64| {
        if error > 0.0 { t.sf(distance / error) } else { f64::from(u8::from(distance <= 0.0)) }
    };
    Tost { p_loss: p(margin + mean), p_gain: p(margin - mean) }
}

/// Student's t distribution; none for less than one degree of freedom.
pub(super) fn students_t(freedom: f64) -> Option<StudentsT> {
    if freedom < 1.0 { None } else { StudentsT::new(0.0, 1.0, freedom).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_spread_or_without_queries() {
        assert_eq!(tost(&[0.125; 8], 0.25).p(), 0.0);
        assert_eq!(tost(&[-0.5; 8], 0.25), Tost { p_loss: 1.0, p_gain: 0.0 });
        assert_eq!(tost(&[0.0], 0.01).p(), 1.0);
        assert_eq!(tost(&[], 0.01).p(), 1.0);
    }
}
