//! What may go wrong with a host.
//!
//! Owns: the kinds of trouble, and which host may have which. Never: makes any.
use crate::mix::Mix;

/// What goes wrong with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Kill,
    Power,
    CutOff,
    OneWay,
    Delay,
    Stall,
    DiskPower,
    Disk,
    Reset,
    Clock,
    Ledger,
    /// Something between a coordinator and those that it shares its stores with.
    Between(Between),
}

/// What goes wrong between coordinators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    /// One does not reach the cluster, or is not reached by it.
    FromCluster,
    /// One does not reach the journal, or does not hear its answers.
    FromJournal,
    /// One does not reach the other coordinators.
    FromPeers,
    /// One does not reach workers and connectors.
    FromWorkers,
    /// The connection to a store breaks, and perhaps the next ones do.
    StoreReset,
    /// Nobody reaches the journal.
    JournalDown,
    /// Nobody reaches the cluster.
    ClusterDown,
    /// The cluster gives a session up though it was kept.
    LeaseLost,
    /// A process gets no time for longer than its lease, and goes on as if nothing had been.
    Standstill,
    /// A planned move: it leaves in order and comes back.
    Leave,
}

impl Trouble {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Trouble::Kill => "kill",
            Trouble::Power => "power",
            Trouble::CutOff => "cut-off",
            Trouble::OneWay => "one-way",
            Trouble::Delay => "delay",
            Trouble::Stall => "stall",
            Trouble::DiskPower => "disk-power",
            Trouble::Disk => "disk-error",
            Trouble::Reset => "reset",
            Trouble::Clock => "clock",
            Trouble::Ledger => "ledger-lost",
            Trouble::Between(between) => between.name(),
        }
    }

    /// What may go wrong with a host.
    pub(crate) fn of(is_coordinator: bool, mix: Mix) -> Vec<Trouble> {
        let mut all = vec![Trouble::Kill, Trouble::Power, Trouble::CutOff, Trouble::OneWay, Trouble::Delay];
        let has_files = is_coordinator && !mix.is_cluster();
        let more = [
            (has_files, Trouble::DiskPower),
            (has_files, Trouble::Disk),
            (mix.resets, Trouble::Reset),
            (mix.resets, Trouble::Reset),
            (mix.steps_clocks, Trouble::Clock),
            (mix.stalls, Trouble::Stall),
            (mix.loses_ledger && has_files, Trouble::Ledger),
            (mix.loses_ledger && has_files, Trouble::Ledger),
        ];
        all.extend(more.into_iter().filter(|(may, _)| *may).map(|(_, trouble)| trouble));
        if is_coordinator && mix.is_cluster() {
            all.extend(Between::ALL.map(Trouble::Between));
        }
        all
    }
}

impl Between {
    const ALL: [Between; 10] = [
        Between::FromCluster,
        Between::FromJournal,
        Between::FromPeers,
        Between::FromWorkers,
        Between::StoreReset,
        Between::JournalDown,
        Between::ClusterDown,
        Between::LeaseLost,
        Between::Standstill,
        Between::Leave,
    ];

    fn name(self) -> &'static str {
        match self {
            Between::FromCluster => "from-cluster",
            Between::FromJournal => "from-journal",
            Between::FromPeers => "from-peers",
            Between::FromWorkers => "from-workers",
            Between::StoreReset => "store-reset",
            Between::JournalDown => "journal-down",
            Between::ClusterDown => "cluster-down",
            Between::LeaseLost => "lease-lost",
            Between::Standstill => "standstill",
            Between::Leave => "leave",
        }
    }
}
