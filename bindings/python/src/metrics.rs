//! Metrics of rankings, and what a cheaper model does to the order: `jointly-eval`.

use std::collections::BTreeMap;

use jointly_eval::audit::{Audit, Scored};
use jointly_eval::{JudgeOptions, JudgedRun, Metric, Missing, Qrels, Retrieved, Run};
use pyo3::prelude::*;

use crate::errors::Kind;

type PerDocument<T> = BTreeMap<String, BTreeMap<String, T>>;

fn fault(py: Python<'_>, error: &jointly_eval::Error) -> PyErr {
    Kind::Input.error(py, error.to_string(), None)
}

/// Each metric's value for each query. `skip_missing` leaves out judged queries that the run does not have, which else count as 0.
#[pyfunction]
#[pyo3(signature = (qrels, run, metrics, *, level, skip_missing))]
pub fn evaluate(
    py: Python<'_>,
    qrels: PerDocument<i64>,
    run: PerDocument<f64>,
    metrics: Vec<String>,
    level: i8,
    skip_missing: bool,
) -> PyResult<BTreeMap<String, BTreeMap<String, f64>>> {
    let mut judgements = Qrels::new();
    for (query, documents) in &qrels {
        for (document, label) in documents {
            let label = i8::try_from(*label).map_err(|_| {
                let problem =
                    format!("query {query}, document {document}: label {label}; it is from -128 to 127");
                Kind::Input.error(py, problem, None)
            })?;
            judgements.insert(query, document, label);
        }
    }
    let mut ranked = Run::new();
    for (query, documents) in run {
        let retrieved =
            documents.into_iter().map(|(document, score)| Retrieved::new(document, score)).collect();
        ranked.insert(&query, retrieved).map_err(|error| fault(py, &error))?;
    }
    let missing = if skip_missing { Missing::Skip } else { Missing::Zero };
    let options = JudgeOptions::new().level(level).missing(missing);
    let judged = JudgedRun::new(&judgements, &ranked, options).map_err(|error| fault(py, &error))?;
    let values = metrics.into_iter().map(|name| -> PyResult<(String, BTreeMap<String, f64>)> {
        let metric = name.parse::<Metric>().map_err(|error| fault(py, &error))?;
        let found = judged.evaluate(metric).map_err(|error| fault(py, &error))?;
        Ok((name, found.0))
    });
    values.collect()
}

/// What the candidate's scores do to the reference's order, as JSON: (query, reference, candidate) for each query.
#[pyfunction]
pub fn audit(py: Python<'_>, queries: Vec<(String, Vec<f64>, Vec<f64>)>) -> PyResult<String> {
    let scored: Vec<Scored> = queries
        .into_iter()
        .map(|(query, reference, candidate)| Scored { query, reference, candidate })
        .collect();
    let audit = Audit::new(&scored).map_err(|error| fault(py, &error))?;
    serde_json::to_string(&audit).map_err(|error| Kind::Internal.error(py, error.to_string(), None))
}
