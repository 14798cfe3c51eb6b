//! The search for an order that explains a history of one key.
//!
//! Owns: which operation is tried next, and what was tried before. Never: splits a history, words a verdict.
//!
//! The events stand in a linked list. An operation may be placed next when its invocation is in front of the first
//! return in the list: nothing that must come before it is left. Placing it takes its events out of the list; when
//! nothing more can be placed, the last one is put back and the next possibility is tried. What keeps it short:
//!
//! - A read that fits is placed at once and for good: it takes nothing from what comes after it.
//! - What returned is tried before what did not: most open operations are never needed.
//! - An open operation that would change nothing is left out.
//! - Of open operations that ask the same the earliest goes first: any other could change places with it.
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::history::Operation;
use crate::interned::{Hasher, Interned};
use crate::model::Model;
use crate::placed::{Placed, Window};
use crate::timeline::{Event, Side};

/// What the search came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<S> {
    /// The operations (those that did not return only as far as they are needed) in an order that explains everything,
    /// and the state after it.
    Order(Vec<usize>, S),
    /// There is none. No order gets past the return at this place of the timeline.
    Nothing { blocked_at: usize },
    /// There were too many possibilities.
    OutOfBudget,
}

/// An operation that did not return (yet).
struct Open {
    operation: usize,
    invoked_at: usize,
    /// The one before it that asks the same, by its number among the open ones.
    twin: Option<usize>,
}

/// An operation that returned.
#[derive(Clone, Copy)]
struct Closed {
    /// Its number among those.
    number: usize,
    returned_at: usize,
    is_read: bool,
}

/// What is to be tried next.
#[derive(Clone, Copy)]
enum Cursor {
    /// Reads: the event at this place, and those after it.
    Read(usize),
    /// Whatever else returned, likewise.
    Change(usize),
    /// Open operations, by number.
    Open(usize),
}

/// A placed operation, and how things were before.
struct Frame {
    cursor: Cursor,
    operation: usize,
    state: u32,
    first_return: usize,
}

/// What came of an operation that was tried.
enum Tried {
    /// It is placed; the state after it.
    Placed(u32),
    /// It leads to where the search was before.
    Known,
    /// It cannot come next, or changes nothing.
    Useless,
}

/// One search.
pub(crate) struct Search<'a, M: Model> {
    model: &'a M,
    operations: &'a [&'a Operation<M::Input, M::Output>],
    events: &'a [Event],
    /// Of each event, by its place: the next and the one before among those that are left. The list ends at
    /// `events.len()` and begins after it.
    next: Vec<usize>,
    before: Vec<usize>,
    closed: Vec<Option<Closed>>,
    open: Vec<Open>,
    /// Operations that returned and have no place yet.
    left: usize,
    placed: Placed,
    frames: Vec<Frame>,
    cursor: Cursor,
    state: u32,
    /// The first return in the list.
    first_return: usize,
    /// The latest return that was the first in the list when nothing more could be placed.
    blocked_at: usize,
    states: Interned<M::State>,
    seen: HashSet<Box<[u64]>, Hasher>,
    key: Vec<u64>,
    steps_left: u32,
}

impl<'a, M: Model> Search<'a, M> {
    /// Over the first part of a timeline; what returns after it is open.
    pub(crate) fn new(
        model: &'a M,
        operations: &'a [&'a Operation<M::Input, M::Output>],
        events: &'a [Event],
        steps: u32,
    ) -> Self {
        let (closed, left) = closed(model, operations, events);
        let open = open(operations, events, &closed);
        let listed = (0..events.len()).filter(|at| closed[events[*at].operation].is_some());
        let (next, before) = linked(listed, events.len());
        let mut states = Interned::new();
        Self {
            model,
            operations,
            events,
            cursor: Cursor::Read(next[events.len()]),
            state: states.number(model.initial()),
            first_return: 0,
            blocked_at: 0,
            placed: Placed { returned: Window::new(left), open: Window::new(open.len()) },
            next,
            before,
            closed,
            open,
            left,
            frames: Vec::new(),
            states,
            seen: HashSet::default(),
            key: Vec::new(),
            steps_left: steps,
        }
    }

    pub(crate) fn run(mut self) -> Found<M::State> {
        while self.left > 0 {
            let Some(operation) = self.candidate() else {
                self.blocked_at = self.blocked_at.max(self.first_return);
                if !self.go_back() {
                    return Found::Nothing { blocked_at: self.blocked_at };
                }
                continue;
            };
            if self.steps_left == 0 {
                return Found::OutOfBudget;
            }
            self.steps_left -= 1;
            let (cursor, state, first_return) = (self.cursor, self.state, self.first_return);
            match (self.place(operation), cursor) {
                (Tried::Placed(new), _) => {
                    self.frames.push(Frame { cursor, operation, state, first_return });
                    (self.state, self.cursor) = (new, Cursor::Read(self.head()));
                }
                // With the read placed nothing fits, so without it nothing does.
                (Tried::Known, Cursor::Read(_)) => {
                    if !self.go_back() {
                        return Found::Nothing { blocked_at: self.blocked_at };
                    }
                }
                (Tried::Known | Tried::Useless, _) => self.cursor = self.after(cursor),
            }
        }
        let order = self.frames.iter().map(|frame| frame.operation).collect();
        Found::Order(order, self.states.get(self.state).clone())
    }

    /// Moves the cursor to the next operation that may be placed.
    fn candidate(&mut self) -> Option<usize> {
        loop {
            match self.cursor {
                Cursor::Read(at) | Cursor::Change(at) if self.events[at].side == Side::Invocation => {
                    let operation = self.events[at].operation;
                    if self.closed(at).is_read == matches!(self.cursor, Cursor::Read(_)) {
                        return Some(operation);
                    }
                    self.cursor = self.after(self.cursor);
                }
                Cursor::Read(_) => self.cursor = Cursor::Change(self.head()),
                Cursor::Change(at) => (self.first_return, self.cursor) = (at, Cursor::Open(0)),
                Cursor::Open(number) => {
                    let open = self.open.get(number).filter(|open| open.invoked_at < self.first_return)?;
                    let is_next = open.twin.is_none_or(|twin| self.placed.open.contains(twin));
                    if is_next && !self.placed.open.contains(number) {
                        return Some(open.operation);
                    }
                    self.cursor = self.after(self.cursor);
                }
            }
        }
    }

    /// Takes placed operations back until there is something else to try.
    fn go_back(&mut self) -> bool {
        while let Some(frame) = self.frames.pop() {
            self.put_back(frame.cursor);
            (self.state, self.first_return) = (frame.state, frame.first_return);
            if !matches!(frame.cursor, Cursor::Read(_)) {
                self.cursor = self.after(frame.cursor);
                return true;
            }
        }
        false
    }

    fn head(&self) -> usize {
        self.next[self.events.len()]
    }

    fn after(&self, cursor: Cursor) -> Cursor {
        match cursor {
            Cursor::Read(at) => Cursor::Read(self.next[at]),
            Cursor::Change(at) => Cursor::Change(self.next[at]),
            Cursor::Open(number) => Cursor::Open(number + 1),
        }
    }

    /// Tries to place the operation at the cursor.
    fn place(&mut self, operation: usize) -> Tried {
        let Operation { input, returned, .. } = self.operations[operation];
        let is_open = matches!(self.cursor, Cursor::Open(_));
        let output = returned.as_ref().map(|returned| &returned.output).filter(|_| !is_open);
        let Some(new) = self.model.step(self.states.get(self.state), input, output) else {
            return Tried::Useless;
        };
        let new = self.states.number(new);
        if is_open && new == self.state {
            return Tried::Useless;
        }
        self.take_out(self.cursor);
        self.placed.write(new, &mut self.key);
        if self.seen.contains(&*self.key) {
            self.put_back(self.cursor);
            return Tried::Known;
        }
        self.seen.insert(self.key.as_slice().into());
        Tried::Placed(new)
    }

    fn take_out(&mut self, cursor: Cursor) {
        match cursor {
            Cursor::Read(invoked_at) | Cursor::Change(invoked_at) => {
                let Closed { returned_at, number, .. } = self.closed(invoked_at);
                for at in [invoked_at, returned_at] {
                    let (before, next) = (self.before[at], self.next[at]);
                    self.next[before] = next;
                    self.before[next] = before;
                }
                self.placed.returned.insert(number);
                self.left -= 1;
            }
            Cursor::Open(number) => self.placed.open.insert(number),
        }
    }

    /// Undoes the last [`Self::take_out`].
    fn put_back(&mut self, cursor: Cursor) {
        match cursor {
            Cursor::Read(invoked_at) | Cursor::Change(invoked_at) => {
                let Closed { returned_at, number, .. } = self.closed(invoked_at);
                for at in [returned_at, invoked_at] {
                    let (before, next) = (self.before[at], self.next[at]);
                    self.next[before] = at;
                    self.before[next] = at;
                }
                self.placed.returned.remove(number);
                self.left += 1;
            }
            Cursor::Open(number) => self.placed.open.remove(number),
        }
    }

    fn closed(&self, at: usize) -> Closed {
        self.closed[self.events[at].operation].expect("only operations that returned are in the list")
    }
}

/// Of each operation that returns within the events what is to know of it, and how many there are.
fn closed<M: Model>(
    model: &M,
    operations: &[&Operation<M::Input, M::Output>],
    events: &[Event],
) -> (Vec<Option<Closed>>, usize) {
    let mut closed = vec![None; operations.len()];
    for (returned_at, event) in events.iter().enumerate().filter(|(_, event)| event.side == Side::Return) {
        let Operation { input, returned, .. } = operations[event.operation];
        let is_read = returned.as_ref().is_some_and(|returned| model.is_read(input, &returned.output));
        closed[event.operation] = Some(Closed { number: 0, returned_at, is_read });
    }
    let mut count = 0;
    for event in events.iter().filter(|event| event.side == Side::Invocation) {
        if let Some(found) = &mut closed[event.operation] {
            found.number = count;
            count += 1;
        }
    }
    (closed, count)
}

/// The operations that do not, in the order of their invocations.
fn open<I: Eq + Hash, O>(
    operations: &[&Operation<I, O>],
    events: &[Event],
    closed: &[Option<Closed>],
) -> Vec<Open> {
    let (mut open, mut twins) = (Vec::new(), HashMap::<&I, usize, Hasher>::default());
    for (invoked_at, event) in
        events.iter().enumerate().filter(|(_, event)| closed[event.operation].is_none())
    {
        let twin = twins.insert(&operations[event.operation].input, open.len());
        open.push(Open { operation: event.operation, invoked_at, twin });
    }
    open
}

/// A ring of the listed places with `end` as its beginning and end.
fn linked(listed: impl Iterator<Item = usize>, end: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut next, mut before) = (vec![end; end + 1], vec![end; end + 1]);
    let mut last = end;
    for at in listed.chain([end]) {
        next[last] = at;
        before[at] = last;
        last = at;
    }
    (next, before)
}
