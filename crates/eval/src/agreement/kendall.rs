/// Kendall's tau-b of two lists of scores for the same documents: (concordant - discordant) pairs, divided by the
/// geometric mean of the numbers of pairs that are not tied in each list. From -1 (reversed) to 1 (the same order, and
/// the same ties).
///
/// `None` if one of the lists has no two different scores, for then there is no order to compare; or if their lengths
/// differ. Scores are not NaN. Takes time quadratic in the number of documents.
///
/// Source: Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945; same as `scipy.stats.kendalltau`.
pub fn kendall_tau_b(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let (mut concordance, mut untied_a, mut untied_b) = (0_i64, 0_u64, 0_u64);
    for i in 0..a.len() {
        for j in 0..i {
            let (in_a, in_b) = (order(a[i], a[j]), order(b[i], b[j]));
            concordance += in_a * in_b;
            untied_a += in_a.unsigned_abs();
            untied_b += in_b.unsigned_abs();
        }
    }
    let scale = (untied_a as f64 * untied_b as f64).sqrt();
    (scale > 0.0).then(|| concordance as f64 / scale)
}

fn order(a: f64, b: f64) -> i64 {
    i64::from(a > b) - i64::from(a < b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_undefined() {
        let a = [3.0, 1.0, 2.0, 2.0];
        assert_eq!(kendall_tau_b(&a, &a), Some(1.0));
        assert_eq!(kendall_tau_b(&a, &a.map(|score| -score)), Some(-1.0));
        assert_eq!(kendall_tau_b(&a, &[1.0; 4]), None);
        assert_eq!(kendall_tau_b(&a, &a[..3]), None);
        assert_eq!(kendall_tau_b(&[], &[]), None);
    }
}
