use super::{Example, Map, logistic, softplus};

/// Source: Kull, Silva Filho and Flach, "Beyond sigmoids", EJS 11, 2017. A slope that comes out below 0 is taken out, and
/// the rest fitted again, as the authors do.
pub(super) fn fit(examples: &[Example]) -> Option<Map> {
    let with = |keep: [f64; 2]| {
        let [a, b, c] = match keep {
            // A weight that has no feature cannot be solved for.
            [_, 0.0] => logistic::fit(examples, |z| [sides(z)[0], 1.0]).map(|[a, c]| [a, 0.0, c]),
            [0.0, _] => logistic::fit(examples, |z| [sides(z)[1], 1.0]).map(|[b, c]| [0.0, b, c]),
            _ => logistic::fit(examples, |z| [sides(z)[0], sides(z)[1], 1.0]),
        }?;
        Some((a, b, c))
    };
    let (a, b, c) = match with([1.0, 1.0])? {
        (a, b, _) if a < 0.0 && b < 0.0 => return None,
        (a, ..) if a < 0.0 => with([0.0, 1.0])?,
        (_, b, _) if b < 0.0 => with([1.0, 0.0])?,
        both => both,
    };
    (a >= 0.0 && b >= 0.0 && a + b > 0.0).then_some(Map::Beta { a, b, c })
}

/// `ln p` and `-ln(1 - p)` of `p = sigmoid(logit)`, without computing `p`, which saturates.
pub(super) fn sides(logit: f64) -> [f64; 2] {
    [-softplus(-logit), softplus(logit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_logarithms_of_p() {
        for logit in [-3.0_f64, 0.0, 0.5, 7.0] {
            let p = super::super::sigmoid(logit);
            let [low, high] = sides(logit);
            assert!((low - p.ln()).abs() < 1e-12 && (high + (1.0 - p).ln()).abs() < 1e-12);
        }
        assert_eq!(sides(1000.0), [0.0, 1000.0]);
        assert_eq!(sides(-1000.0), [-1000.0, 0.0]);
    }

    #[test]
    fn a_slope_below_zero_is_taken_out() {
        // Relevance falls again among the highest scores.
        let examples: Vec<Example> = (-50..50)
            .map(|i| Example {
                logit: f64::from(i) / 10.0,
                relevant: (i > -20 && i < 20) || i % 2 == 0 && i > 0,
            })
            .collect();
        let Some(Map::Beta { a, b, .. }) = fit(&examples) else { panic!("fitted") };
        assert!(a > 0.0 && b == 0.0, "{a} {b}");
    }
}
