//! Our maps beside those of scikit-learn, which `scripts/eval_goldens/calibration.py` wrote.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use jointly_eval::calibration::{Example, Map, Method, Report};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    logits: Vec<f64>,
    labels: Vec<u8>,
    platt_class: [f64; 2],
    platt: [f64; 2],
    temperature: f64,
    beta: [f64; 3],
    probes: Vec<f64>,
    isotonic: Vec<f64>,
    log_loss: f64,
    brier: f64,
}

#[test]
fn the_same_maps_as_scikit_learn() {
    let golden: Golden = serde_json::from_str(include_str!("golden/calibration.json")).unwrap();
    assert_eq!(golden.cases.len(), 4);
    for case in golden.cases {
        let examples: Vec<Example> = case
            .logits
            .iter()
            .zip(&case.labels)
            .map(|(&logit, &label)| Example { logit, relevant: label == 1 })
            .collect();
        let close = |found: f64, expected: f64, tolerance: f64, what: &str| {
            let within = tolerance * expected.abs().max(1.0);
            assert!(
                (found - expected).abs() <= within,
                "{}, {what}: {found}, expected {expected}",
                case.name
            );
        };
        for method in Method::ALL {
            match method.fit(&examples).unwrap() {
                Map::Platt { a, b } => {
                    close(a, case.platt[0], 1e-6, "platt a");
                    close(b, case.platt[1], 1e-6, "platt b");
                    // The class's own minimiser is coarse.
                    close(a, case.platt_class[0], 1e-3, "platt a, class");
                    close(b, case.platt_class[1], 1e-3, "platt b, class");
                }
                Map::Temperature { t } => close(t, case.temperature, 1e-6, "temperature"),
                Map::Beta { a, b, c } => {
                    if case.beta[0] >= 0.0 && case.beta[1] >= 0.0 {
                        close(a, case.beta[0], 1e-5, "beta a");
                        close(b, case.beta[1], 1e-5, "beta b");
                        close(c, case.beta[2], 1e-5, "beta c");
                    } else {
                        assert!(a == 0.0 || b == 0.0, "{}: a slope below 0 is taken out", case.name);
                    }
                }
                map @ Map::Isotonic { .. } => {
                    for (probe, expected) in case.probes.iter().zip(&case.isotonic) {
                        close(map.apply(*probe), *expected, 1e-9, "isotonic");
                    }
                }
            }
        }
        let report = Report::new(&examples, |logit| 1.0 / (1.0 + (-logit).exp()), 10);
        close(report.log_loss, case.log_loss, 1e-9, "log loss");
        close(report.brier.score, case.brier, 1e-9, "brier");
    }
}
