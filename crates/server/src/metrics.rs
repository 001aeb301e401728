//! What is counted, and under which names. The list is [`METRICS`]; `docs/metrics.md` is compared with it.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A metric: name, kind, and what it says.
pub type Metric = (&'static str, Kind, &'static str);

/// All metrics.
pub const METRICS: &[Metric] = &[
    ("jointly_requests_total", Kind::Counter, "Requests answered, by dialect and status."),
    (
        "jointly_request_seconds",
        Kind::Histogram,
        "Time from the head of a request to its answer, by dialect.",
    ),
    ("jointly_stage_seconds", Kind::Histogram, "Time of a request in a stage: read, tokenize, queue, score."),
    ("jointly_requests_in_flight", Kind::Gauge, "Requests that are being answered."),
    ("jointly_connections", Kind::Gauge, "Open connections."),
    ("jointly_rejected_total", Kind::Counter, "Requests refused before scoring, by reason."),
    ("jointly_documents_total", Kind::Counter, "Documents scored."),
    ("jointly_truncated_documents_total", Kind::Counter, "Scored documents that were cut."),
    ("jointly_tokens_total", Kind::Counter, "Tokens of scored documents, templates and queries included."),
    ("jointly_score", Kind::Histogram, "Scores given, on the model's own scale."),
    ("jointly_partial_responses_total", Kind::Counter, "Answers that a deadline cut short."),
    ("jointly_batches_total", Kind::Counter, "Batches computed."),
    ("jointly_batch_seconds", Kind::Histogram, "Time of a batch."),
    ("jointly_batch_tokens", Kind::Histogram, "Tokens of a batch."),
    (
        "jointly_padding_avoided_tokens_total",
        Kind::Counter,
        "Tokens that padding to the longest pair of the batch would have added.",
    ),
    (
        "jointly_shared_pairs_total",
        Kind::Counter,
        "Pairs that waited while the same was computed for another.",
    ),
    ("jointly_cache_hits_total", Kind::Counter, "Pairs whose score was kept."),
    (
        "jointly_cancelled_tokens_total",
        Kind::Counter,
        "Tokens not computed, since nobody waited for them any more.",
    ),
    ("jointly_queue_requests", Kind::Gauge, "Requests taken in and not yet answered, by model."),
    ("jointly_queue_tokens", Kind::Gauge, "Tokens that wait, by model."),
    (
        "jointly_queue_age_seconds",
        Kind::Gauge,
        "Time since the request that has waited longest was last served, by model.",
    ),
    ("jointly_tokens_per_second", Kind::Gauge, "Measured speed."),
    (
        "jointly_batch_budget_tokens",
        Kind::Gauge,
        "Tokens that a batch may have, so that it takes queue.batch_time.",
    ),
    ("jointly_model_ready", Kind::Gauge, "1 if the model is loaded and its last self-check holds, by model."),
    ("jointly_model_bytes", Kind::Gauge, "Memory that is reckoned for the model's weights, by model."),
    ("jointly_self_checks_total", Kind::Counter, "Self-checks, by result."),
    ("jointly_reloads_total", Kind::Counter, "Reloads, by result."),
    ("jointly_log_lines_lost_total", Kind::Counter, "Log lines that could not be written."),
];

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Bounds of times in seconds, from a refusal to a very long request.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
/// Bounds of scores: finer between 0 and 1, where most scales lie.
const SCORES: [f64; 17] =
    [-10.0, -5.0, -2.0, 0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 10.0];
const TOKENS: [f64; 10] = [64.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0];

/// Begins to count. Once for a process: a second server in it counts in the same place.
pub fn install() {
    HANDLE.get_or_init(|| {
        let seconds = Matcher::Suffix("_seconds".into());
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(seconds, &SECONDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full("jointly_score".into()), &SCORES)
            })
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_tokens".into()), &TOKENS));
        let recorder = match builder {
            Ok(builder) => builder.build_recorder(),
            Err(error) => {
                tracing::error!(%error, "no metrics");
                return None;
            }
        };
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::error!("no metrics: the program counts elsewhere already");
            return None;
        }
        for &(name, kind, text) in METRICS {
            let unit = if name.contains("_seconds") { Unit::Seconds } else { Unit::Count };
            match kind {
                Kind::Counter => {
                    describe_counter!(name, unit, text);
                }
                Kind::Gauge => {
                    describe_gauge!(name, unit, text);
                }
                Kind::Histogram => {
                    describe_histogram!(name, unit, text);
                }
            }
        }
        Some(handle)
    });
}

/// All counts, as Prometheus reads them.
#[must_use]
pub fn render() -> String {
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// Sorts what has come since into the histograms; without it they grow. Every few seconds.
pub fn upkeep() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}

pub(crate) fn request(dialect: &'static str, status: u16, took: Duration) {
    counter!("jointly_requests_total", "dialect" => dialect, "status" => status.to_string()).increment(1);
    histogram!("jointly_request_seconds", "dialect" => dialect).record(took.as_secs_f64());
}

pub(crate) fn stage(stage: &'static str, took: Duration) {
    histogram!("jointly_stage_seconds", "stage" => stage).record(took.as_secs_f64());
}

pub(crate) fn rejected(reason: &'static str) {
    counter!("jointly_rejected_total", "reason" => reason).increment(1);
}

pub(crate) fn scored(scores: impl Iterator<Item = f32>, usage: &crate::Usage, documents: usize) {
    counter!("jointly_documents_total").increment(documents as u64);
    counter!("jointly_truncated_documents_total").increment(usage.truncated as u64);
    counter!("jointly_tokens_total").increment(usage.tokens as u64);
    let score = histogram!("jointly_score");
    scores.for_each(|value| score.record(f64::from(value)));
}

pub(crate) fn partial() {
    counter!("jointly_partial_responses_total").increment(1);
}

pub(crate) fn batch(pairs: usize, tokens: usize, longest: usize, took: Duration, shared: usize) {
    counter!("jointly_batches_total").increment(1);
    histogram!("jointly_batch_seconds").record(took.as_secs_f64());
    histogram!("jointly_batch_tokens").record(tokens as f64);
    counter!("jointly_padding_avoided_tokens_total")
        .increment((pairs * longest).saturating_sub(tokens) as u64);
    counter!("jointly_shared_pairs_total").increment(shared as u64);
}

pub(crate) fn cache_hits(pairs: usize) {
    counter!("jointly_cache_hits_total").increment(pairs as u64);
}

pub(crate) fn saved(tokens: usize) {
    counter!("jointly_cancelled_tokens_total").increment(tokens as u64);
}

pub(crate) fn speed(tokens_per_second: f64, budget_tokens: usize) {
    gauge!("jointly_tokens_per_second").set(tokens_per_second);
    gauge!("jointly_batch_budget_tokens").set(budget_tokens as f64);
}

pub(crate) fn queue(model: &str, load: (usize, usize, Duration)) {
    let (requests, tokens, age) = load;
    gauge!("jointly_queue_requests", "model" => model.to_string()).set(requests as f64);
    gauge!("jointly_queue_tokens", "model" => model.to_string()).set(tokens as f64);
    gauge!("jointly_queue_age_seconds", "model" => model.to_string()).set(age.as_secs_f64());
}

pub(crate) fn model(model: &str, is_ready: bool, bytes: u64) {
    gauge!("jointly_model_ready", "model" => model.to_string()).set(if is_ready { 1.0 } else { 0.0 });
    gauge!("jointly_model_bytes", "model" => model.to_string()).set(bytes as f64);
}

pub(crate) fn self_check(holds: bool) {
    counter!("jointly_self_checks_total", "result" => if holds { "holds" } else { "fails" }).increment(1);
}

pub(crate) fn reload(succeeded: bool) {
    counter!("jointly_reloads_total", "result" => if succeeded { "done" } else { "failed" }).increment(1);
}

pub(crate) fn log_lines_lost(lines: u64) {
    counter!("jointly_log_lines_lost_total").increment(lines);
}

/// Counts something for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(&'static str);

impl Counted {
    pub(crate) fn request() -> Self {
        Self::of("jointly_requests_in_flight")
    }

    pub(crate) fn connection() -> Self {
        Self::of("jointly_connections")
    }

    fn of(name: &'static str) -> Self {
        gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1.0);
    }
}
