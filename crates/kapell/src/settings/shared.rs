//! Settings of a coordinator that shares its store with others.
//!
//! Owns: what of it may be typed, and which of it goes together. Never: connects to anything.
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use kapell_cluster::NodeName;
use kapell_cluster_etcd::{EtcdOptions, EtcdTls, EtcdUser};
use kapell_model::{Name, Span};

/// Where coordinators meet, and what they share.
#[derive(Args, Clone, Debug)]
pub(crate) struct SharedSettings {
    /// PostgreSQL database of the journal, such as postgres://user@host/kapell. Several share the load; their order
    /// belongs to the store.
    #[arg(long, env = "KAPELL_POSTGRES", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    pub(crate) postgres: Vec<String>,
    /// PostgreSQL database of the ledger [default: the first one of the journal].
    #[arg(long, env = "KAPELL_LEDGER", value_name = "URL", requires = "postgres", hide_env_values = true)]
    pub(crate) ledger: Option<String>,
    /// Member of etcd, in which coordinators meet and share the shards. Name all members.
    #[arg(long, env = "KAPELL_ETCD", value_name = "HOST:PORT", value_delimiter = ',', requires = "postgres")]
    pub(crate) etcd: Vec<String>,
    /// Name of the cluster in etcd; coordinators of another name are not met.
    #[arg(long, env = "KAPELL_CLUSTER", value_name = "NAME", default_value = "kapell", requires = "etcd")]
    pub(crate) cluster: String,
    /// Where other coordinators reach this one [default: where it listens].
    #[arg(long, env = "KAPELL_ADVERTISE", value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// After so much silence a coordinator's shards are given to others. Whole seconds.
    #[arg(long, env = "KAPELL_NODE_LEASE", value_name = "TIME", default_value = "6s")]
    pub(crate) node_lease: Span,
    /// Certificate of the authority that signs for etcd (PEM).
    #[arg(long, env = "KAPELL_ETCD_CA", value_name = "FILE", requires = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// Certificate of this node for etcd (PEM).
    #[arg(long, env = "KAPELL_ETCD_CERT", value_name = "FILE", requires_all = ["etcd_ca", "etcd_key"])]
    etcd_cert: Option<PathBuf>,
    /// Key of that certificate (PEM).
    #[arg(long, env = "KAPELL_ETCD_KEY", value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// User of etcd.
    #[arg(long, env = "KAPELL_ETCD_USER", value_name = "NAME", requires_all = ["etcd", "etcd_password"])]
    etcd_user: Option<String>,
    /// Password of that user; better in the environment, where other users of the machine do not see it.
    #[arg(long, env = "KAPELL_ETCD_PASSWORD", value_name = "TEXT", hide_env_values = true)]
    etcd_password: Option<String>,
}

impl SharedSettings {
    /// How etcd is reached.
    pub(crate) fn etcd_options(&self) -> anyhow::Result<EtcdOptions> {
        let name = Name::new(&self.cluster).with_context(|| format!("--cluster {}", self.cluster))?;
        let user = self.etcd_user.clone().zip(self.etcd_password.clone());
        Ok(EtcdOptions {
            ttl: self.node_lease.get(),
            tls: self.tls()?,
            user: user.map(|(name, password)| EtcdUser { name, password }),
            ..EtcdOptions::new(self.etcd.clone(), name)
        })
    }

    fn tls(&self) -> anyhow::Result<Option<EtcdTls>> {
        let Some(ca) = &self.etcd_ca else { return Ok(None) };
        let identity = match (&self.etcd_cert, &self.etcd_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            (None, _) | (_, None) => None,
        };
        Ok(Some(EtcdTls { ca: read(ca)?, identity, server_name: None }))
    }

    /// The name of a node that nobody named: one for each machine where there may be several.
    pub(crate) fn default_node(&self) -> anyhow::Result<NodeName> {
        if self.etcd.is_empty() {
            return Ok(NodeName::new("local")?);
        }
        let machine = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        NodeName::new(&machine).with_context(|| {
            format!("the machine's name `{machine}` cannot name a node; choose one with --node")
        })
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}
