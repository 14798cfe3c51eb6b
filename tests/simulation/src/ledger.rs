//! The ledger: built anew after it was lost, and held against the journal in the end.
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use kapell_proto::v1;
use kapell_proto::v1::admin_service_client::AdminServiceClient;
use kapell_proto::v1::run_service_client::RunServiceClient;
use tokio::time::{sleep, timeout};

use crate::client::{Client, PATIENCE};
use crate::company::Happening;

/// Rows of a page: few, so that there are pages.
const PAGE: u32 = 7;

/// How a run ends whose history is gone.
const ENDED: [&str; 3] = ["Completed", "Failed", "Canceled"];

/// Every row, by its run.
pub(crate) type Rows = BTreeMap<String, v1::Run>;

impl Client {
    /// Builds the ledger anew whenever it was lost, while work goes on.
    pub(crate) async fn keep_ledger(&self) {
        loop {
            // why: virtual time, and its passing is part of what is simulated
            sleep(Duration::from_millis(400)).await;
            // Some rebuild it though nothing was lost.
            let for_nothing = self.mix.loses_ledger && self.runtime.entropy.below(12) == 0;
            let is_over = self.world.lock().healed;
            let is_lost = self.world.lock().is_ledger_lost();
            if !is_lost && (is_over || !for_nothing) {
                continue;
            }
            let lost = self.world.lock().ledger_lost;
            match timeout(PATIENCE, self.rebuild()).await {
                Ok(Ok(())) => self.world.lock().ledger_rebuilt = lost,
                Ok(Err(error)) => self.world.log("client", &format!("rebuild: {error:#}")),
                Err(_) => self.world.log("client", "rebuild: no answer in time"),
            }
        }
    }

    async fn rebuild(&self) -> anyhow::Result<()> {
        // Counted before it is asked: the answer may get lost.
        self.world.lock().rebuilds += 1;
        let request = v1::RebuildLedgerRequest { this_node_only: false };
        let done = AdminServiceClient::new(self.channel().await?).rebuild_ledger(request).await?.into_inner();
        self.world.log("client", &format!("the ledger is rebuilt: {} runs", done.runs));
        Ok(())
    }

    /// Every row.
    async fn rows(&self) -> anyhow::Result<Rows> {
        let mut runs = RunServiceClient::new(self.channel().await?);
        let (mut rows, mut cursor) = (BTreeMap::new(), String::new());
        // Many schedules start so many runs that small pages take longer than anybody waits.
        let limit = PAGE.max(self.mix.schedules as u32 / 2);
        loop {
            let request = v1::ListRunsRequest { cursor, limit, ..v1::ListRunsRequest::default() };
            let page = runs.list(request).await?.into_inner();
            rows.extend(page.runs.into_iter().map(|run| (run.id.clone(), run)));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                return Ok(rows);
            }
        }
    }

    /// A run whose beginning was trimmed is only in the ledger; if that was lost too, nobody knows any more.
    pub(crate) async fn find(&self, happening: &Happening, run: &str) -> anyhow::Result<()> {
        let rows = self.rows().await?;
        let lost = {
            let world = self.world.lock();
            ensure!(world.ledger_rebuilt == world.ledger_lost, "the ledger is not rebuilt yet");
            world.ledger_lost > 0
        };
        match rows.get(run).map(|row| (row.state(), row)) {
            Some((v1::RunState::Completed | v1::RunState::Failed | v1::RunState::Canceled, row)) => {
                self.end(happening, run, format!("{:?}", row.state()), &format!("{:?}", row.error));
            }
            None if lost || self.world.lock().rebuilds > 0 => self.end(happening, run, "Gone".to_owned(), ""),
            found => ensure!(false, "run {run} is trimmed, and the ledger says {found:?}"),
        }
        Ok(())
    }

    /// The ledger must say what the journal says: building it anew changes nothing.
    pub(crate) async fn audit(&self) -> anyhow::Result<()> {
        if self.world.lock().audited {
            return Ok(());
        }
        ensure!(!self.world.lock().is_ledger_lost(), "the ledger is not rebuilt yet");
        let found = self.world.lock().found.clone();
        let (before, rebuilds) = match found {
            Some(found) => found,
            // Only the first time: what is wrong in it is not any more in shards that were built anew.
            None => (self.rows().await?, self.world.lock().rebuilds),
        };
        self.world.lock().found = Some((before.clone(), rebuilds));
        self.rebuild().await?;
        let after = self.rows().await?;
        let mut world = self.world.lock();
        let mut wrong = Vec::new();
        for (run, row) in &after {
            match before.get(run) {
                Some(old) if old == row => {}
                old => wrong.push(format!("run {run}: the ledger had {old:?}, the journal says {row:?}")),
            }
        }
        for (run, ending) in &world.ended {
            let state = before.get(run).map(|row| format!("{:?}", row.state()));
            let agrees = match (&state, ending.as_str()) {
                (None, "Gone") => true,
                // What was trimmed is not in a ledger that was built anew since.
                (None, _) => self.mix.trims() && rebuilds > 0,
                // A shard that was loaded tells once more what it read, and so brings back what a rebuild did not find.
                (Some(state), "Gone") => ENDED.contains(&state.as_str()),
                (Some(state), ending) => state == ending,
            };
            if !agrees {
                wrong.push(format!("run {run} ended as {ending}, and the ledger says {state:?}"));
            }
        }
        if !self.mix.trims() {
            let forgotten = before.keys().filter(|run| !after.contains_key(*run));
            wrong.extend(forgotten.map(|run| format!("run {run} is in the ledger and not in the journal")));
        }
        world.log("client", &format!("the ledger was held against the journal: {} rows", after.len()));
        world.broken.extend(wrong);
        world.audited = true;
        Ok(())
    }
}
