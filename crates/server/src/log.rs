//! Logs and traces. A log that cannot be written loses lines, and counts them; it never holds a request up.

use std::io::Write;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use http::{HeaderMap, Method};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::Config;
use crate::metrics;

/// Lines that wait to be written.
const WAITING_LINES: usize = 8192;

/// Logs and traces for as long as it lives; what is left of traces is sent when it is dropped.
#[derive(Debug, Default)]
pub struct Logs {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Logs {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider {
            // A collector that is not there must not keep the server from ending well.
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
        }
    }
}

/// Begins to log to standard error, and to trace if the configuration says where to. Needs the runtime if it does.
///
/// # Errors
/// What of the configuration cannot be done.
pub fn start(config: &Config) -> Result<Logs, String> {
    let filter = || EnvFilter::try_new(&config.log.level).map_err(|error| format!("log.level: {error}"));
    let writer = Lines::start().map_err(|error| error.to_string())?;
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = if config.log.format == "json" {
        layer.json().flatten_event(true).with_span_list(false).with_current_span(true).boxed()
    } else {
        layer.with_ansi(false).boxed()
    };
    let provider = if config.trace.otlp.is_empty() { None } else { Some(provider(config)?) };
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("jointly"))
            .with_filter(EnvFilter::new("jointly_server=info"))
    });
    let registry = tracing_subscriber::registry().with(layer.with_filter(filter()?)).with(traces);
    registry.try_init().map_err(|error| error.to_string())?;
    Ok(Logs { provider })
}

fn provider(config: &Config) -> Result<SdkTracerProvider, String> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.trace.otlp)
        .build()
        .map_err(|error| format!("trace.otlp: {error}"))?;
    let resource = Resource::builder().with_service_name(config.trace.service.clone()).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The span of a request, below the one that the client names in `traceparent`.
pub(crate) fn request_span(method: &Method, path: &str, id: &str, headers: &HeaderMap) -> Span {
    let path: String = path.chars().take(200).collect();
    let span = info_span!("request", otel.name = %format_args!("{method} {path}"), request_id = id);
    if headers.contains_key("traceparent") {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // A span that nobody traces has no parent.
        let _ = span.set_parent(parent);
    }
    span
}

/// Writes lines on a thread of its own: a pipe that nobody reads, or a full disk, stops that thread alone.
#[derive(Clone)]
struct Lines(SyncSender<Vec<u8>>);

impl Lines {
    fn start() -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<Vec<u8>>(WAITING_LINES);
        std::thread::Builder::new().name("jointly-log".into()).spawn(move || {
            let mut out = std::io::stderr();
            for line in receiver {
                if out.write_all(&line).is_err() {
                    metrics::log_lines_lost(1);
                }
            }
        })?;
        Ok(Self(sender))
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.0.try_send(line.to_vec()) {
            metrics::log_lines_lost(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
