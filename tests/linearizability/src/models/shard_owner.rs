//! Shards that have one owner at a time: what the journal and the cluster promise together.
//!
//! An acquisition makes its epoch the owner. The cluster chooses an epoch that is larger than all before; a journal is
//! told one, and refuses it when it holds a later one. Only the last epoch that acquired the shard appends, at the next
//! place; every other is fenced. A new owner finds every record whose append was answered.
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::model::Model;

/// Shards `S`, owned under epochs `E`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardOwner<S, E>(PhantomData<(S, E)>);

/// What is asked of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input<S, E> {
    /// Which.
    pub shard: S,
    /// What.
    pub ask: Ask<E>,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ask<E> {
    /// Make somebody the owner.
    Acquire {
        /// Under this epoch; `None`: under one that the other side chooses.
        epoch: Option<E>,
    },
    /// Add records.
    Append {
        /// As this owner.
        epoch: E,
        /// Place of the first of them; the first of all has place 1.
        first: u64,
        /// So many.
        records: u64,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output<E> {
    /// To an acquisition.
    Acquired {
        /// The owner from now on.
        epoch: E,
        /// Place of the last record, if that was said.
        last: Option<u64>,
    },
    /// The records are there.
    Appended,
    /// Another epoch holds the shard; nothing was done.
    Fenced {
        /// Which, if that was said.
        held_by: Option<E>,
    },
}

/// What a shard remembers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State<E> {
    /// Who owns it.
    pub owner: Owner<E>,
    /// Place of the last record.
    pub last: u64,
}

/// Who owns a shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner<E> {
    /// Nobody yet.
    Nobody,
    /// This epoch.
    Known(E),
    /// An epoch that was chosen and never told; it is later than this one.
    After(Option<E>),
}

impl<E: Clone + Ord> Owner<E> {
    /// The owner after an acquisition under `epoch`, if that is not too early. One that was chosen has never been
    /// there before; one that was told may be the owner's own.
    fn succeeded_by(&self, epoch: &E, is_chosen: bool) -> Option<Self> {
        let is_late_enough = match self {
            Owner::Known(owner) if is_chosen => epoch > owner,
            Owner::Known(owner) => epoch >= owner,
            Owner::Nobody => true,
            Owner::After(bound) => Some(epoch) > bound.as_ref(),
        };
        is_late_enough.then(|| Owner::Known(epoch.clone()))
    }

    /// The owner, if it may be `epoch`: the same, but known now.
    fn known_as(&self, epoch: &E) -> Option<Self> {
        let may_be = match self {
            Owner::Nobody => false,
            Owner::Known(owner) => owner == epoch,
            Owner::After(bound) => Some(epoch) > bound.as_ref(),
        };
        may_be.then(|| Owner::Known(epoch.clone()))
    }

    /// The owner, if `epoch` is fenced by it (and it is `held_by`, if that was said).
    fn fences(&self, held_by: Option<&E>, is_refused: impl Fn(&E) -> bool) -> Option<Self> {
        match (self, held_by) {
            (_, Some(holder)) => self.known_as(holder).filter(|_| is_refused(holder)),
            (Owner::Known(owner), None) => is_refused(owner).then(|| self.clone()),
            (Owner::After(_), None) => Some(self.clone()),
            (Owner::Nobody, None) => None,
        }
    }
}

impl<S, E> Model for ShardOwner<S, E>
where
    S: Clone + Ord + Hash + Debug,
    E: Clone + Ord + Hash + Debug,
{
    type State = State<E>;
    type Input = Input<S, E>;
    type Output = Output<E>;
    type Key = S;

    fn key(&self, input: &Input<S, E>) -> S {
        input.shard.clone()
    }

    fn initial(&self) -> State<E> {
        State { owner: Owner::Nobody, last: 0 }
    }

    fn step(&self, state: &State<E>, input: &Input<S, E>, output: Option<&Output<E>>) -> Option<State<E>> {
        let owned_by = |owner| State { owner, last: state.last };
        match (&input.ask, output) {
            (Ask::Acquire { epoch: asked }, Some(Output::Acquired { epoch, last })) => {
                let is_right = asked.as_ref().is_none_or(|asked| asked == epoch)
                    && last.is_none_or(|last| last == state.last);
                state.owner.succeeded_by(epoch, asked.is_none()).filter(|_| is_right).map(owned_by)
            }
            (Ask::Acquire { epoch: Some(epoch) }, None) => {
                Some(owned_by(state.owner.succeeded_by(epoch, false).unwrap_or(state.owner.clone())))
            }
            (Ask::Acquire { epoch: None }, None) => Some(owned_by(Owner::After(match &state.owner {
                Owner::Nobody => None,
                Owner::Known(epoch) => Some(epoch.clone()),
                Owner::After(bound) => bound.clone(),
            }))),
            (Ask::Acquire { epoch: Some(epoch) }, Some(Output::Fenced { held_by })) => {
                state.owner.fences(held_by.as_ref(), |holder| holder > epoch).map(owned_by)
            }
            (Ask::Append { epoch, first, records }, Some(Output::Appended) | None) => {
                let owner = state.owner.known_as(epoch).filter(|_| *first == state.last + 1);
                let done = owner.map(|owner| State { owner, last: state.last + records });
                if output.is_none() { done.or_else(|| Some(state.clone())) } else { done }
            }
            // A journal then names epoch 0, which is nobody.
            (Ask::Append { .. }, Some(Output::Fenced { .. })) if state.owner == Owner::Nobody => {
                Some(state.clone())
            }
            (Ask::Append { epoch, .. }, Some(Output::Fenced { held_by })) => {
                state.owner.fences(held_by.as_ref(), |holder| holder != epoch).map(owned_by)
            }
            (Ask::Acquire { epoch: None }, Some(Output::Fenced { .. }))
            | (Ask::Acquire { .. }, Some(Output::Appended))
            | (Ask::Append { .. }, Some(Output::Acquired { .. })) => None,
        }
    }
}
