//! What is on its way between nodes and the stores that they share.
//!
//! Owns: delays, losses, nodes that stand still, and the order of messages of one connection. Never: knows what a
//! message says.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kapell_runtime::{Entropy as _, SeededEntropy};
use tokio::sync::oneshot;

/// What several coordinators share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// The source of truth.
    Journal,
    /// Members and owners.
    Cluster,
}

/// One stream of messages, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stream {
    /// What a node asks.
    Questions,
    /// What it is answered.
    Answers,
    /// What it is told unasked.
    News,
    /// What it asked and was not waited for, because a second try was answered sooner.
    Strays,
}

/// What becomes of the messages of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They arrive.
    Open,
    /// They are lost, those under way too.
    Cut,
    /// They wait.
    Held,
}

/// Arrival of a message.
type Errand = Box<dyn FnOnce() + Send>;
type Line = (&'static str, Store, Stream);

/// An answer is waited for so long.
pub const DEADLINE_MS: u64 = 300;
/// One in so many questions that may be asked twice strays.
const STRAYS_IN: u64 = 2;
/// A stray arrives within so long.
const STRAY_MS: u64 = 1_000;

/// See the module.
#[derive(Clone)]
pub struct Post(Arc<Mutex<State>>);

struct State {
    now_ms: u64,
    dice: SeededEntropy,
    /// Slow messages take up to so much longer.
    slow_ms: u64,
    count: u64,
    /// By when it arrives.
    under_way: BTreeMap<(u64, u64), (Line, Errand)>,
    /// When the last message of a stream arrives.
    last_ms: BTreeMap<Line, u64>,
    ways: BTreeMap<(&'static str, Store, bool), Way>,
    held: BTreeMap<Line, VecDeque<Errand>>,
    /// Nodes that stand still.
    asleep: BTreeMap<&'static str, Asleep>,
    /// How long each node has stood still.
    slept_ms: BTreeMap<&'static str, u64>,
    /// Questions that have no answer yet.
    open: BTreeMap<u64, Open>,
    /// So many questions still break the connection on which they are asked.
    breaks: BTreeMap<(&'static str, Store), u64>,
}

/// What is lost when a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Question,
    Answer,
}

/// A node that stands still.
struct Asleep {
    since_ms: u64,
    /// What it sends and hears when it goes on.
    waiting: VecDeque<(Line, Errand)>,
}

struct Open {
    node: &'static str,
    store: Store,
    gives_up_ms: u64,
    give_up: Errand,
}

fn is_there(stream: Stream) -> bool {
    match stream {
        Stream::Questions | Stream::Strays => true,
        Stream::Answers | Stream::News => false,
    }
}

impl State {
    fn way(&self, (node, store, stream): Line) -> Way {
        self.ways.get(&(node, store, is_there(stream))).copied().unwrap_or(Way::Open)
    }

    /// Most take a few milliseconds, some much longer; news are slower still.
    fn latency_ms(&self, stream: Stream) -> u64 {
        let slow_in = if stream == Stream::News { 8 } else { 50 };
        let slow = if self.dice.below(slow_in) == 0 { self.dice.below(self.slow_ms) } else { 0 };
        1 + self.dice.below(6) + slow
    }

    fn arrives_at(&mut self, line: Line, at_ms: u64, errand: Errand) {
        self.count += 1;
        let at_ms = at_ms.max(self.last_ms.get(&line).copied().unwrap_or_default());
        self.last_ms.insert(line, at_ms);
        self.under_way.insert((at_ms, self.count), (line, errand));
    }

    fn send(&mut self, line: Line, errand: Errand) {
        let at_ms = self.now_ms + self.latency_ms(line.2);
        match self.way(line) {
            Way::Cut => {}
            Way::Open | Way::Held => self.arrives_at(line, at_ms, errand),
        }
    }

    /// What is lost of a question that is asked now.
    fn breaks_now(&mut self, node: &'static str, store: Store) -> Option<Loss> {
        let left = self.breaks.get_mut(&(node, store)).filter(|left| **left > 0)?;
        *left -= 1;
        Some(if self.dice.below(2) == 0 { Loss::Question } else { Loss::Answer })
    }

    /// The next message that arrives by now.
    fn arrival(&mut self) -> Option<Errand> {
        loop {
            let next = self.under_way.first_entry().filter(|next| next.key().0 <= self.now_ms)?;
            let (line, errand) = next.remove();
            if let Some(asleep) = self.asleep.get_mut(line.0) {
                asleep.waiting.push_back((line, errand));
                continue;
            }
            match self.way(line) {
                Way::Open => return Some(errand),
                Way::Cut => {}
                Way::Held => self.held.entry(line).or_default().push_back(errand),
            }
        }
    }

    /// The next question that is given up by now. A node that stands still gives up nothing.
    fn given_up(&mut self) -> Option<Errand> {
        let is_due = |open: &Open| open.gives_up_ms <= self.now_ms && !self.asleep.contains_key(open.node);
        let no = self.open.iter().find(|(_, open)| is_due(open)).map(|(no, _)| *no)?;
        self.open.remove(&no).map(|open| open.give_up)
    }
}

impl Post {
    /// Nothing is on its way, at time zero. Slow messages take up to `slow_ms` longer than others.
    #[must_use]
    pub fn new(seed: u64, slow_ms: u64) -> Post {
        Post(Arc::new(Mutex::new(State {
            now_ms: 0,
            dice: SeededEntropy::new(seed),
            slow_ms,
            count: 0,
            under_way: BTreeMap::new(),
            last_ms: BTreeMap::new(),
            ways: BTreeMap::new(),
            held: BTreeMap::new(),
            asleep: BTreeMap::new(),
            slept_ms: BTreeMap::new(),
            open: BTreeMap::new(),
            breaks: BTreeMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings what has arrived by then.
    pub fn step(&self, now_ms: u64) {
        self.lock().now_ms = now_ms;
        loop {
            // What arrives sends messages itself, so nothing is locked meanwhile.
            let Some(errand) = self.next_errand() else { return };
            errand();
        }
    }

    fn next_errand(&self) -> Option<Errand> {
        let mut state = self.lock();
        state.arrival().or_else(|| state.given_up())
    }

    /// The time of the stores.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.lock().now_ms
    }

    /// Asks a store; `work` is done there, once or never, and `then` hears what it says, or nothing.
    pub fn ask_then<T: Send + 'static>(
        &self,
        node: &'static str,
        store: Store,
        work: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(Option<T>) + Send + 'static,
    ) {
        let mut state = self.lock();
        let then = Arc::new(Mutex::new(Some(then)));
        let say = move |answer: Option<T>| {
            let first = then.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(then) = first {
                then(answer);
            }
        };
        let give_up = Box::new({
            let say = say.clone();
            move || say(None)
        });
        state.count += 1;
        let no = state.count;
        let gives_up_ms = state.now_ms + DEADLINE_MS;
        state.open.insert(no, Open { node, store, gives_up_ms, give_up });
        let lost = state.breaks_now(node, store);
        if lost == Some(Loss::Question) {
            return;
        }
        let post = self.clone();
        let question = Box::new(move || {
            let answer = work();
            if lost.is_some() {
                return;
            }
            let back = post.clone();
            let deliver = Box::new(move || {
                back.lock().open.remove(&no);
                say(Some(answer));
            });
            post.lock().send((node, store, Stream::Answers), deliver);
        });
        state.send((node, store, Stream::Questions), question);
    }

    /// As [`Post::ask_then`]; `None` says that there was no answer in time, and that the work may yet be done.
    pub async fn ask<T: Send + 'static>(
        &self,
        node: &'static str,
        store: Store,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.ask_then(node, store, work, move |said| {
            // Whoever asked may be dead by now.
            drop(reply.send(said));
        });
        answer.await.ok().flatten()
    }

    /// Tells a node something unasked.
    pub fn tell(&self, node: &'static str, store: Store, errand: Errand) {
        self.lock().send((node, store, Stream::News), errand);
    }

    /// A question that may be asked twice: now and then a first try of it arrives long after the one that was answered.
    pub fn stray(&self, node: &'static str, store: Store, errand: Errand) {
        let mut state = self.lock();
        if state.dice.below(STRAYS_IN) == 0 {
            let at_ms = state.now_ms + state.dice.below(STRAY_MS);
            state.arrives_at((node, store, Stream::Strays), at_ms, errand);
        }
    }

    /// From now on messages to (`is_there`) or from a store go this way.
    pub fn set_way(&self, node: &'static str, store: Store, is_there: bool, way: Way) {
        let mut state = self.lock();
        state.ways.insert((node, store, is_there), way);
        if way == Way::Open {
            for stream in [Stream::Questions, Stream::Answers, Stream::News, Stream::Strays] {
                let line = (node, store, stream);
                if self::is_there(stream) == is_there {
                    let waiting = state.held.remove(&line).unwrap_or_default();
                    state.release(waiting.into_iter().map(|errand| (line, errand)));
                }
            }
        }
    }

    /// The connection of a node breaks: what it asked is answered by nobody, and may yet be done; and so are its next
    /// questions. Says how many it had asked.
    pub fn reset(&self, node: &'static str, store: Store, next: u64) -> u64 {
        let mut state = self.lock();
        *state.breaks.entry((node, store)).or_default() += next;
        let dice = SeededEntropy::new(state.dice.next_u128() as u64);
        let is_its = |line: &Line| line.0 == node && line.1 == store;
        state
            .under_way
            .retain(|_, (line, _)| !is_its(line) || (line.2 == Stream::Questions && dice.below(2) == 0));
        let all = std::mem::take(&mut state.open);
        let (broken, open): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, open)| open.node == node && open.store == store);
        state.open = open.into_iter().collect();
        drop(state);
        let count = broken.len() as u64;
        broken.into_iter().for_each(|(_, open)| (open.give_up)());
        count
    }

    /// The node gets no time: it sends, hears and gives up nothing, and its own clock stands.
    pub fn stop(&self, node: &'static str) {
        let mut state = self.lock();
        let since_ms = state.now_ms;
        state.asleep.entry(node).or_insert(Asleep { since_ms, waiting: VecDeque::new() });
    }

    /// The node goes on as if nothing had been.
    pub fn go_on(&self, node: &'static str) {
        let mut state = self.lock();
        let Some(Asleep { since_ms, waiting }) = state.asleep.remove(node) else { return };
        *state.slept_ms.entry(node).or_default() += state.now_ms - since_ms;
        state.release(waiting);
    }

    /// How long the node has stood still, so far.
    #[must_use]
    pub fn slept_ms(&self, node: &str) -> u64 {
        let state = self.lock();
        let now = state.asleep.get(node).map_or(0, |asleep| state.now_ms - asleep.since_ms);
        now + state.slept_ms.get(node).copied().unwrap_or_default()
    }
}

impl State {
    /// What waited arrives first, in its order; whatever is under way arrives later than now.
    fn release(&mut self, waiting: impl IntoIterator<Item = (Line, Errand)>) {
        for (line, errand) in waiting {
            self.count += 1;
            self.under_way.insert((self.now_ms, self.count), (line, errand));
        }
    }
}
