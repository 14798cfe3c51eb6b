//! Settings of a coordinator that takes events from NATS JetStream.
//!
//! Owns: what of it may be typed. Never: connects to anything.
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kapell_event_source_nats::NatsOptions;
use kapell_model::Name;

/// Where events are taken from.
#[derive(Args, Clone, Debug)]
pub(crate) struct NatsSettings {
    /// Server of NATS, such as nats://127.0.0.1:4222 or tls://HOST:PORT. Name several of a cluster.
    #[arg(
        long,
        env = "KAPELL_NATS",
        value_name = "URL",
        value_delimiter = ',',
        requires = "nats_stream",
        hide_env_values = true
    )]
    nats: Vec<String>,
    /// Stream of JetStream with CloudEvents; it must be there.
    #[arg(long, env = "KAPELL_NATS_STREAM", value_name = "NAME", requires = "nats")]
    nats_stream: Option<String>,
    /// Durable consumer, which all coordinators share; made when it is not there.
    #[arg(
        long,
        env = "KAPELL_NATS_CONSUMER",
        value_name = "NAME",
        default_value = "kapell",
        requires = "nats"
    )]
    nats_consumer: String,
    /// Take only messages of this subject, if the consumer is made; wildcards are allowed [default: all].
    #[arg(long, env = "KAPELL_NATS_SUBJECT", value_name = "SUBJECT", requires = "nats")]
    nats_subject: Option<String>,
    /// Namespace that the events belong to.
    #[arg(
        long,
        env = "KAPELL_NATS_NAMESPACE",
        value_name = "NAME",
        default_value = "default",
        requires = "nats"
    )]
    nats_namespace: String,
    /// Send messages that can never be taken to this subject; a stream must keep it [default: they are logged and stay
    /// in their stream].
    #[arg(long, env = "KAPELL_NATS_REFUSED", value_name = "SUBJECT", requires = "nats")]
    nats_refused: Option<String>,
    /// File with a user's credentials.
    #[arg(long, env = "KAPELL_NATS_CREDENTIALS", value_name = "FILE", requires = "nats")]
    nats_credentials: Option<PathBuf>,
    /// Certificate of the authority that signs for NATS (PEM).
    #[arg(long, env = "KAPELL_NATS_CA", value_name = "FILE", requires = "nats")]
    nats_ca: Option<PathBuf>,
}

impl NatsSettings {
    /// The stream, and whose events are in it; `None`: none is wanted.
    pub(crate) fn options(&self) -> anyhow::Result<Option<(NatsOptions, Name)>> {
        let Some(stream) = self.nats_stream.as_ref().filter(|_| !self.nats.is_empty()) else {
            return Ok(None);
        };
        let namespace = Name::new(&self.nats_namespace)
            .with_context(|| format!("--nats-namespace {}", self.nats_namespace))?;
        let options = NatsOptions {
            consumer: self.nats_consumer.clone(),
            subject: self.nats_subject.clone(),
            refused: self.nats_refused.clone(),
            credentials: self.nats_credentials.clone(),
            ca: self.nats_ca.clone(),
            ..NatsOptions::new(self.nats.clone(), stream)
        };
        Ok(Some((options, namespace)))
    }
}
