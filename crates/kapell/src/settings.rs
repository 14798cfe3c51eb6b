//! Settings that every role shares.
//!
//! Owns: flags and environment variables (this is the only place that reads them) and the layout of a data folder.
mod nats;
mod shared;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use kapell_coordinator::CoordinatorOptions;
use kapell_model::{ShardCount, Span};
use kapell_telemetry::{LogFormat, TelemetryOptions};

pub(crate) use nats::NatsSettings;
pub(crate) use shared::SharedSettings;

/// How a process logs.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogSettings {
    /// What to log: error, warn, info, debug, or TARGET=LEVEL pairs.
    #[arg(long, env = "KAPELL_LOG", default_value = "info", global = true, hide_env_values = true)]
    pub(crate) log: String,
    /// How log lines look.
    #[arg(long, env = "KAPELL_LOG_FORMAT", value_enum, default_value = "text", global = true)]
    pub(crate) log_format: Format,
    /// Send spans to this OTLP collector (gRPC), such as http://127.0.0.1:4317.
    #[arg(long, env = "KAPELL_OTLP", global = true)]
    pub(crate) otlp: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogSettings {
    pub(crate) fn telemetry(&self, role: &str) -> TelemetryOptions {
        TelemetryOptions {
            service: format!("kapell-{role}"),
            filter: self.log.clone(),
            format: match self.log_format {
                Format::Text => LogFormat::Text,
                Format::Json => LogFormat::Json,
            },
            otlp: self.otlp.clone(),
        }
    }
}

/// Where a coordinator keeps its data and how it watches over workers.
#[derive(Args, Clone, Debug)]
pub(crate) struct CoordinatorSettings {
    /// Folder of the journal and the ledger; made when it is not there.
    #[arg(long, env = "KAPELL_DATA", default_value = ".kapell")]
    pub(crate) data: PathBuf,
    /// Where to listen.
    #[arg(long, env = "KAPELL_LISTEN", default_value = "127.0.0.1:7700")]
    pub(crate) listen: String,
    /// Name of the node [default: local; with --etcd the name of the machine].
    #[arg(long, env = "KAPELL_NODE")]
    pub(crate) node: Option<String>,
    /// How often workers and connectors say that they are there.
    #[arg(long, default_value = "1s")]
    pub(crate) heartbeat: Span,
    /// After so much silence a worker's tasks are given to others. At least three heartbeats [default: 5s; with --etcd 3s
    /// more than --node-lease].
    #[arg(long)]
    lease: Option<Span>,
    /// Shards of the store; fixed when the store is made [default: 4; in PostgreSQL 64].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) shards: Option<u16>,
    /// How long ended runs are remembered, so that a late duplicate of their event meets them.
    #[arg(long, default_value = "24h")]
    pub(crate) dedupe_window: Span,
    #[command(flatten, next_help_heading = "Sharing a store with other coordinators")]
    pub(crate) shared: SharedSettings,
    #[command(flatten, next_help_heading = "Taking events from NATS JetStream")]
    pub(crate) nats: NatsSettings,
}

/// Where a worker or connector finds its coordinators.
#[derive(Args, Clone, Debug)]
pub(crate) struct MemberSettings {
    /// HOST:PORT of a coordinator; may be given several times.
    #[arg(
        long = "coordinator",
        env = "KAPELL_COORDINATOR",
        default_value = "127.0.0.1:7700",
        value_delimiter = ','
    )]
    pub(crate) coordinators: Vec<String>,
    /// Name, for people; a new process of the same name takes the place of the old one.
    #[arg(long, env = "KAPELL_NAME")]
    pub(crate) name: Option<String>,
    /// Tasks or calls at once that each coordinator may give it.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) capacity: u32,
    /// Threads that run what it is given [default: half as many as there are processors].
    #[arg(long)]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl MemberSettings {
    /// What is done between two messages takes microseconds, and a thread that hands it on to another costs as much:
    /// with two threads on two processors beside a coordinator, an eighth fewer steps were done than with one.
    pub(crate) fn threads(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(|| processors().div_ceil(2), NonZeroUsize::get)
    }
}

/// How much longer workers hold on to their tasks than a coordinator to its shards: until those are noticed to be free,
/// and loaded. A worker that stops earlier does for nothing what it has done.
const TAKE_OVER: Duration = Duration::from_secs(3);

impl CoordinatorSettings {
    /// How long a worker may be silent.
    pub(crate) fn lease(&self) -> Duration {
        match (&self.lease, self.shared.etcd.is_empty()) {
            (Some(chosen), _) => chosen.get(),
            (None, true) => CoordinatorOptions::default().lease,
            (None, false) => self.shared.node_lease.get() + TAKE_OVER,
        }
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.data.join("journal")
    }

    pub(crate) fn ledger_file(&self) -> PathBuf {
        self.data.join("ledger.sqlite")
    }

    pub(crate) fn shards_file(&self) -> PathBuf {
        self.data.join("shards")
    }
}

/// The number of shards that a data folder was made with; writes it down when the folder is new.
pub(crate) fn shards_of(file: &Path, wanted: Option<u16>) -> anyhow::Result<u16> {
    match std::fs::read_to_string(file) {
        Ok(text) => {
            let stored = text.trim().parse();
            stored.map_err(|_| anyhow::anyhow!("{} does not hold a number of shards", file.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let wanted = wanted.unwrap_or(ShardCount::default().get());
            std::fs::write(file, format!("{wanted}\n"))?;
            Ok(wanted)
        }
        Err(error) => Err(error.into()),
    }
}

/// Time that a role has to stop by itself.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct TypedByCoordinator {
        #[command(flatten)]
        settings: CoordinatorSettings,
    }

    #[derive(Parser)]
    struct TypedByMember {
        #[command(flatten)]
        settings: MemberSettings,
    }

    #[test]
    fn a_member_has_as_many_threads_as_it_is_told_and_half_of_the_processors_otherwise() {
        let threads = |arguments: &[&str]| {
            TypedByMember::parse_from([&["kapell"], arguments].concat()).settings.threads()
        };
        assert_eq!(threads(&["--threads", "3"]), 3);
        let processors = std::thread::available_parallelism().unwrap().get();
        assert!((processors..=processors + 1).contains(&(2 * threads(&[]))));
        assert!(TypedByMember::try_parse_from(["kapell", "--threads", "0"]).is_err());
    }

    fn lease(arguments: &[&str]) -> Duration {
        TypedByCoordinator::parse_from([&["kapell"], arguments].concat()).settings.lease()
    }

    #[test]
    fn workers_hold_on_to_their_tasks_for_longer_than_a_coordinator_to_its_shards() {
        let shared = ["--etcd", "a:2379", "--postgres", "postgres://a/b"];
        assert_eq!(lease(&[]), Duration::from_secs(5));
        assert_eq!(lease(&shared), Duration::from_secs(9));
        let slow = [&shared[..], &["--node-lease", "20s"]].concat();
        assert_eq!(lease(&slow), Duration::from_secs(23));
        assert_eq!(lease(&[&slow[..], &["--lease", "8s"]].concat()), Duration::from_secs(8));
    }
}
