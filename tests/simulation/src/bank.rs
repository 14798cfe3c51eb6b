//! The business system: a ledger of postings that does a request twice when it is asked twice.
//!
//! Owns: delays, and answers that get lost on the way back. Never: forgets a request that has left, not even when the
//! connector that sent it dies.
use std::time::Duration;

use futures::future::BoxFuture;
use kapell_connector::{CallOutcome, Outside, OutsideRequest};
use kapell_kernel::ErrorClass;
use kapell_runtime::{Entropy as _, SeededEntropy};
use serde_json::json;
use tokio::time::sleep;

use crate::world::World;

/// See the module.
pub(crate) struct Bank {
    pub(crate) world: World,
    pub(crate) dice: SeededEntropy,
}

/// Of 100 answers, so many get lost before the world is healed.
const LOST_PERCENT: u64 = 8;
/// A request is on its way for less than this: well within the tool's timeout of 500 ms.
const TRANSIT_MS: u64 = 200;

impl Bank {
    async fn pause(&self, below_ms: u64) {
        // why: virtual time, and its passing is part of what is simulated
        sleep(Duration::from_millis(self.dice.below(below_ms))).await;
    }

    fn is_lost(&self) -> bool {
        !self.world.lock().healed && self.dice.below(100) < LOST_PERCENT
    }

    async fn made(&self, request: OutsideRequest) -> CallOutcome {
        let entry = request.args["id"].as_str().unwrap_or_default().to_owned();
        self.pause(20).await;
        if request.tool.tool.name == "read-posting" {
            self.pause(20).await;
            let count = self.world.lock().postings.get(&entry).map_or(0, Vec::len);
            self.pause(20).await;
            return match self.is_lost() {
                true => CallOutcome::failed(ErrorClass::Unavailable, "the answer got lost"),
                false => CallOutcome::succeeded(json!({ "id": entry, "count": count })),
            };
        }
        if !request.fence.pass() {
            return CallOutcome::failed(ErrorClass::Unavailable, "too late");
        }
        if request.tool.tool.name == "claim" && !self.world.lock().fixed.contains(&entry) {
            self.world.log("bank", &format!("refuses {entry}"));
            self.pause(100).await;
            return CallOutcome::failed(ErrorClass::Permanent, "this is not allowed");
        }
        let transit = self.dice.below(TRANSIT_MS);
        self.world.lock().send(&entry, transit);
        // why: virtual time, and its passing is part of what is simulated
        sleep(Duration::from_millis(transit + 2)).await;
        self.pause(100).await;
        if self.is_lost() {
            self.world.log("bank", &format!("answer for {entry} is lost"));
            return CallOutcome::lost(&request.tool, "the connection broke before the answer");
        }
        CallOutcome::succeeded(json!({ "id": entry }))
    }
}

impl Outside for Bank {
    fn call(&self, request: OutsideRequest) -> BoxFuture<'_, CallOutcome> {
        Box::pin(self.made(request))
    }
}
