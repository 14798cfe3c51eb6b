//! Logs and traces of a process.
//!
//! Owns: where `tracing` goes: lines on standard error, JSON where asked for, spans to an OTLP collector where one is
//! named. Never: reads the environment (the binary does) or writes to standard output, which belongs to commands.
use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a process logs.
#[derive(Clone, Debug)]
pub struct TelemetryOptions {
    /// Name of the service in traces.
    pub service: String,
    /// Filter, such as `info` or `info,kapell_coordinator=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
    /// OTLP collector (gRPC), such as `http://127.0.0.1:4317`; `None`: no traces leave the process.
    pub otlp: Option<String>,
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("`{filter}` is no log filter; write a level such as info, or TARGET=LEVEL pairs")]
    Filter {
        /// What was written.
        filter: String,
    },
    /// The collector's address cannot be used.
    #[error("spans cannot be sent to {endpoint}")]
    Otlp {
        /// The address.
        endpoint: String,
        /// Why.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// Logging was started before.
    #[error("logging was started before")]
    Started(#[from] TryInitError),
}

/// Keeps telemetry alive; drop it last.
#[must_use]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    /// Starts logs and traces of this process. Needs a tokio runtime when a collector is named.
    pub fn start(options: &TelemetryOptions) -> Result<Telemetry, TelemetryError> {
        let filter = EnvFilter::try_new(&options.filter)
            .map_err(|_| TelemetryError::Filter { filter: options.filter.clone() })?;
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(true);
        let lines = match options.format {
            LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let provider =
            options.otlp.as_deref().map(|endpoint| provider(&options.service, endpoint)).transpose()?;
        let spans = provider
            .as_ref()
            .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("kapell")));
        tracing_subscriber::registry().with(filter).with(lines).with(spans).try_init()?;
        Ok(Telemetry(provider))
    }
}

fn provider(service: &str, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| TelemetryError::Otlp { endpoint: endpoint.to_owned(), source })?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take()
            && let Err(error) = provider.shutdown()
        {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}
