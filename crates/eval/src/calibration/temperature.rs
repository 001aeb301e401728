use super::{Example, Map, logistic};

/// Source: Guo et al., "On calibration of modern neural networks", ICML 2017, for two classes.
pub(super) fn fit(examples: &[Example]) -> Option<Map> {
    let [slope] = logistic::fit(examples, |logit| [logit])?;
    (slope > 0.0).then(|| Map::Temperature { t: 1.0 / slope })
}
