//! What a step costs, and what a cluster of so many cores carries by that.
//!
//! Owns: the arithmetic. Never: measures (`cargo xtask bench w7` does), or knows of queues (the simulation does).
use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// Measured costs of a step of the workload, in a cluster that is busy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Costs {
    /// Processor time of a coordinator, in microseconds.
    pub(crate) coordinator_us: f64,
    /// Processor time of a worker, in microseconds, without what the specialist itself does.
    pub(crate) worker_us: f64,
    /// Processor time of PostgreSQL, in microseconds.
    pub(crate) database_us: f64,
    /// Entries that go to the journal.
    pub(crate) entries: f64,
    /// Bytes on the network, between all of them.
    pub(crate) network_bytes: f64,
    /// What keeps a PostgreSQL of two cores busy, in microseconds: a commit, and each entry in it.
    pub(crate) commit_us: f64,
    pub(crate) entry_us: f64,
    /// How long a commit takes besides, until it is on disk; milliseconds.
    pub(crate) commit_ms: f64,
    /// Bytes of PostgreSQL's log for an entry.
    pub(crate) log_bytes: f64,
    /// What a message takes from one machine to another, in milliseconds.
    pub(crate) network_ms: f64,
    /// Writes that one etcd takes in a second.
    pub(crate) etcd_writes_per_s: f64,
    /// Time between two heartbeats of a member, in seconds: a quarter of its lease.
    pub(crate) heartbeat_secs: f64,
}

/// Share of what is there that is meant to be used: the rest is for the members that take over, and for queues.
const USED: f64 = 0.7;
/// A coordinator of more cores serves nobody better than two smaller ones.
const CORES_OF_A_COORDINATOR: f64 = 8.0;
/// Shards for a coordinator: so many that the one that hashing gives the most has not much more than the others.
const SHARDS_OF_A_COORDINATOR: f64 = 64.0;
/// Entries of a group that a database commits, where many coordinators share it.
const ENTRIES_OF_A_GROUP: f64 = 32.0;

/// What so many cores carry.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Carried {
    pub(crate) cores: f64,
    pub(crate) steps_per_s: f64,
    pub(crate) coordinator_cores: f64,
    pub(crate) worker_cores: f64,
    pub(crate) database_cores: f64,
    pub(crate) coordinators: f64,
    pub(crate) shards: f64,
    /// Of two cores each.
    pub(crate) databases: f64,
    /// What each database writes to its log, in MB/s.
    pub(crate) database_log_mb_per_s: f64,
    /// What one coordinator's network carries, in Gbit/s.
    pub(crate) coordinator_gbit_per_s: f64,
    /// Share of what one etcd can write.
    pub(crate) etcd_used: f64,
}

impl Costs {
    /// # Errors
    ///
    /// A field that is missing, unknown, or no positive number.
    pub(crate) fn read(text: &str) -> anyhow::Result<Costs> {
        let costs: Costs = serde_saphyr::from_str(text)?;
        let all = [
            costs.coordinator_us,
            costs.worker_us,
            costs.database_us,
            costs.entries,
            costs.network_bytes,
            costs.commit_us,
            costs.entry_us,
            costs.commit_ms,
            costs.log_bytes,
            costs.network_ms,
            costs.etcd_writes_per_s,
            costs.heartbeat_secs,
        ];
        ensure!(all.iter().all(|cost| cost.is_finite() && *cost > 0.0), "every cost must be more than 0");
        Ok(costs)
    }

    /// Cores times the used share, shared out as the steps need them.
    pub(crate) fn carried(&self, cores: f64) -> Carried {
        let a_step_us = self.coordinator_us + self.worker_us + self.database_us;
        let steps_per_s = USED * cores * 1e6 / a_step_us;
        let share = |us: f64| cores * us / a_step_us;
        let coordinator_cores = share(self.coordinator_us);
        let coordinators = (coordinator_cores / CORES_OF_A_COORDINATOR).ceil();
        Carried {
            cores,
            steps_per_s,
            coordinator_cores,
            worker_cores: share(self.worker_us),
            database_cores: share(self.database_us),
            coordinators,
            shards: 64_f64.max((coordinators * SHARDS_OF_A_COORDINATOR).log2().ceil().exp2()),
            databases: self.databases(steps_per_s),
            database_log_mb_per_s: steps_per_s * self.entries * self.log_bytes
                / self.databases(steps_per_s)
                / 1e6,
            coordinator_gbit_per_s: steps_per_s * self.network_bytes * 8.0 / coordinators / 1e9,
            etcd_used: coordinators / self.heartbeat_secs / self.etcd_writes_per_s,
        }
    }

    /// Databases of two cores that so many steps need.
    pub(crate) fn databases(&self, steps_per_s: f64) -> f64 {
        let groups_per_s = steps_per_s * self.entries / ENTRIES_OF_A_GROUP;
        (groups_per_s * self.group_us(ENTRIES_OF_A_GROUP) / 1e6 / USED).ceil()
    }

    /// Microseconds for which a group of entries keeps a database busy.
    pub(crate) fn group_us(&self, entries: f64) -> f64 {
        self.commit_us + self.entry_us * entries
    }

    /// Cores of each coordinator.
    pub(crate) fn coordinator_cores(&self, steps_per_s: f64, coordinators: f64) -> f64 {
        (steps_per_s * self.coordinator_us / 1e6 / USED / coordinators).ceil()
    }
}
