use super::{Example, Map, logistic};

/// Source: Platt, "Probabilistic outputs for support vector machines", 1999.
pub(super) fn fit(examples: &[Example]) -> Option<Map> {
    let [a, b] = logistic::fit(examples, |logit| [logit, 1.0])?;
    (a > 0.0).then_some(Map::Platt { a, b })
}
