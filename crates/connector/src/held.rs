//! What the connector holds: calls under way, and ended ones whose report nobody has acknowledged.
//!
//! Owns: that a call is made at most once by this process, that its report outlives every session until it is
//! acknowledged, and which coordinators count on it. Never: makes a call, sends a message.
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kapell_model::{Epoch, ShardId};
use kapell_wire::claim::{Claimed, Claims, ShardClaim};
use kapell_wire::task::CallKey;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lease::{Lease, Tenure};
use crate::outside::CallOutcome;

/// Settled calls that are remembered, so that a late order for one is not obeyed.
const SETTLED_MAX: usize = 20_000;

/// One session with one coordinator; another connection is another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionNo(pub(crate) u64);

/// Position of a coordinator in the options; its sessions come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CoordinatorNo(pub(crate) usize);

/// What an order asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Call,
    Reconcile,
}

/// What is held: one order, whoever gave it and however often.
pub(crate) type HeldKey = (CallKey, Mode);

/// What to do with an order.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Do it, as long as this is held.
    Begin(Tenure),
    /// It is under way already; its report will go to this session too.
    UnderWay,
    /// It has ended already; this was its outcome.
    Ended(CallOutcome),
    /// The call itself is under way here: whether it takes effect is known when it ends.
    AwaitCall(watch::Receiver<Option<CallOutcome>>, Tenure),
    /// The call was settled or superseded before; it is not made.
    Settled,
}

/// Sessions that count on a report, and when it was last sent to each.
type Told = BTreeMap<SessionNo, Option<Instant>>;

#[derive(Debug)]
struct HeldCall {
    /// What the outside system may know it by.
    key: String,
    /// `None` while it is under way.
    outcome: watch::Sender<Option<CallOutcome>>,
    told: Told,
    tenure: Tenure,
}

/// What a claim brought to its claimer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Brought {
    /// Shards whose claims hold.
    pub(crate) shards: Vec<ShardId>,
    /// What is held of them, each once.
    pub(crate) calls: Vec<CallKey>,
    /// Reports that the claimer has not been sent.
    pub(crate) reports: Vec<(HeldKey, CallOutcome)>,
}

/// A session that is open.
#[derive(Debug)]
struct Welcomed {
    lease: Lease,
    has_claimed: bool,
}

/// Everything that is held.
#[derive(Debug, Default)]
pub(crate) struct Held {
    calls: BTreeMap<HeldKey, HeldCall>,
    /// The latest making of each call, by the key that the outside system may know it by.
    by_key: BTreeMap<String, CallKey>,
    settled: BTreeSet<CallKey>,
    settled_order: VecDeque<CallKey>,
    welcomed: BTreeMap<SessionNo, Welcomed>,
    claims: Claims<CoordinatorNo>,
    sessions: u64,
}

impl Held {
    /// A new session, which counts on the reports of everything that is held: what is held, each once.
    pub(crate) fn open_session(&mut self) -> (SessionNo, Vec<CallKey>) {
        self.sessions += 1;
        let session = SessionNo(self.sessions);
        let mut holding: Vec<CallKey> = Vec::with_capacity(self.calls.len());
        for (key, call) in &mut self.calls {
            call.told.insert(session, None);
            if holding.last() != Some(&key.0) {
                holding.push(key.0);
            }
        }
        (session, holding)
    }

    /// The session was welcomed; its orders may be begun under this lease.
    pub(crate) fn welcomed(&mut self, session: SessionNo, lease: Lease) {
        self.welcomed.insert(session, Welcomed { lease, has_claimed: false });
    }

    /// The coordinator of a session owns shards: whatever is held of them is reported to that session alone, and begun
    /// under its lease.
    pub(crate) fn claim(&mut self, by: CoordinatorNo, session: SessionNo, claims: &[ShardClaim]) -> Brought {
        let mut brought = Brought::default();
        let Some(open) = self.welcomed.get_mut(&session) else { return brought };
        let (lease, first) = (open.lease.clone(), !std::mem::replace(&mut open.has_claimed, true));
        if first {
            self.claims.begin(by, claims);
        }
        for claim in claims {
            let verdict = self.claims.claim(by, *claim);
            if verdict == Claimed::Stale {
                tracing::debug!(shard = %claim.shard, epoch = %claim.epoch, "a coordinator claims a shard that it has lost");
                continue;
            }
            brought.shards.push(claim.shard);
            for (key, call) in in_shard(&mut self.calls, claim.shard) {
                call.tenure.move_to(lease.clone());
                // What was said since the hello came after these shards: it was heard.
                let heard = first || verdict == Claimed::Known;
                let sent = call.told.remove(&session).filter(|_| heard).flatten();
                call.told = BTreeMap::from([(session, sent)]);
                if brought.calls.last() != Some(&key.0) {
                    brought.calls.push(key.0);
                }
                let ended = call.outcome.borrow().clone();
                brought.reports.extend(ended.filter(|_| sent.is_none()).map(|outcome| (*key, outcome)));
            }
        }
        brought
    }

    /// Whether an order comes from a coordinator that has lost the call's shard.
    pub(crate) fn is_stale(&self, call: &CallKey, epoch: Epoch) -> bool {
        self.claims.is_stale(call.run.shard(), epoch)
    }

    /// The lease of a coordinator is over, and no session of it is open.
    pub(crate) fn forget_claims(&mut self, by: CoordinatorNo) {
        self.claims.forget(by);
    }

    fn lease_of(&self, session: SessionNo) -> Lease {
        self.welcomed.get(&session).map_or_else(Lease::none, |open| open.lease.clone())
    }

    /// The session is over; what it counted on stays held.
    pub(crate) fn close_session(&mut self, session: SessionNo) {
        self.welcomed.remove(&session);
        for call in self.calls.values_mut() {
            call.told.remove(&session);
        }
    }

    /// Whether there is no room for an order that is not held yet.
    pub(crate) fn is_full(&self, key: HeldKey, most: usize) -> bool {
        self.calls.len() >= most && !self.calls.contains_key(&key)
    }

    /// An order came.
    pub(crate) fn take(&mut self, session: SessionNo, key: HeldKey, call_key: &str) -> Taken {
        match key.1 {
            Mode::Call => self.take_call(session, key, call_key),
            Mode::Reconcile => self.take_reconcile(session, key, call_key),
        }
    }

    /// The call that is known by this key, where it is held: what it does is known when it ends.
    pub(crate) fn call_known_by(&self, call_key: &str) -> Option<watch::Receiver<Option<CallOutcome>>> {
        let call = self.by_key.get(call_key)?;
        self.calls.get(&(*call, Mode::Call)).map(|call| call.outcome.subscribe())
    }

    fn take_call(&mut self, session: SessionNo, key: HeldKey, call_key: &str) -> Taken {
        let lease = self.lease_of(session);
        if let Some(call) = self.calls.get_mut(&key) {
            call.told.insert(session, None);
            call.tenure.move_to(lease);
            let ended = call.outcome.borrow().clone();
            return ended.map_or(Taken::UnderWay, Taken::Ended);
        }
        let tenure = self.hold(session, key, call_key);
        // Whoever has looked for the call, or knows how it ended, counts on its not being made any more.
        let superseded = self.calls.contains_key(&(key.0, Mode::Reconcile));
        if superseded || self.settled.contains(&key.0) {
            return Taken::Settled;
        }
        self.by_key.insert(call_key.to_owned(), key.0);
        Taken::Begin(tenure)
    }

    fn take_reconcile(&mut self, session: SessionNo, key: HeldKey, call_key: &str) -> Taken {
        let lease = self.lease_of(session);
        if let Some(read) = self.calls.get_mut(&key)
            && read.outcome.borrow().is_none()
        {
            read.told.insert(session, None);
            read.tenure.move_to(lease);
            return Taken::UnderWay;
        }
        // An earlier look is out of date: look again.
        let tenure = self.hold(session, key, call_key);
        match self.calls.get(&(key.0, Mode::Call)) {
            Some(call) => Taken::AwaitCall(call.outcome.subscribe(), tenure),
            None => Taken::Begin(tenure),
        }
    }

    fn hold(&mut self, session: SessionNo, key: HeldKey, call_key: &str) -> Tenure {
        let (told, tenure) = (BTreeMap::from([(session, None)]), Tenure::under(self.lease_of(session)));
        let (outcome, _) = watch::channel(None);
        let held = HeldCall { key: call_key.to_owned(), outcome, told, tenure: tenure.clone() };
        self.calls.insert(key, held);
        tenure
    }

    /// It ended; says which sessions count on the report.
    pub(crate) fn finish(&mut self, key: HeldKey, outcome: CallOutcome) -> Vec<SessionNo> {
        let Some(call) = self.calls.get_mut(&key) else { return Vec::new() };
        debug_assert!(call.outcome.borrow().is_none(), "{key:?} ended twice");
        call.outcome.send_replace(Some(outcome));
        call.told.keys().copied().collect()
    }

    /// The report went out to the session.
    pub(crate) fn sent(&mut self, session: SessionNo, key: HeldKey, at: Instant) {
        if let Some(sent) = self.calls.get_mut(&key).and_then(|call| call.told.get_mut(&session)) {
            *sent = Some(at);
        }
    }

    /// Reports that the session counts on and that were not sent to it since `before`.
    pub(crate) fn due(&self, session: SessionNo, before: Instant) -> Vec<(HeldKey, CallOutcome)> {
        let due =
            |call: &HeldCall| call.told.get(&session).is_some_and(|sent| sent.is_none_or(|at| at <= before));
        self.calls
            .iter()
            .filter(|(_, call)| due(call))
            .filter_map(|(key, call)| call.outcome.borrow().clone().map(|outcome| (*key, outcome)))
            .collect()
    }

    /// The reports of the call are durable, or stale. Those that are still to be made stay.
    pub(crate) fn acknowledge(&mut self, call: CallKey) {
        for mode in [Mode::Call, Mode::Reconcile] {
            let ended = |held: &HeldCall| held.outcome.borrow().is_some();
            if !self.calls.get(&(call, mode)).is_some_and(ended) {
                continue;
            }
            if let Some(held) = self.calls.remove(&(call, mode))
                && mode == Mode::Call
                && self.by_key.get(&held.key) == Some(&call)
            {
                self.by_key.remove(&held.key);
            }
            self.remember(call);
        }
    }

    fn remember(&mut self, call: CallKey) {
        if self.settled.insert(call) {
            self.settled_order.push_back(call);
        }
        if self.settled_order.len() > SETTLED_MAX
            && let Some(oldest) = self.settled_order.pop_front()
        {
            self.settled.remove(&oldest);
        }
    }

    /// How many orders are held, ended ones included.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }
}

fn in_shard(
    calls: &mut BTreeMap<HeldKey, HeldCall>,
    shard: ShardId,
) -> impl Iterator<Item = (&HeldKey, &mut HeldCall)> {
    let (first, last) = CallKey::of_shard(shard).into_inner();
    calls.range_mut((first, Mode::Call)..=(last, Mode::Reconcile))
}

#[cfg(test)]
mod tests;
