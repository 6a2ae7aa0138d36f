//! Faults on demand: what may go wrong in a transaction, for tests and the simulation. None by default.

use std::collections::VecDeque;
use std::time::Duration;

use crate::broker::AbortCause;

/// A step of a transaction, before which a fault may strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitStep {
    /// Its records are about to be produced.
    Produce,
    /// They are in the logs; the offsets are about to be sent.
    SendOffsets,
    /// The offsets are pending; its end is about to be asked for.
    Commit,
    /// It is committed; the reply is on its way.
    Reply,
}

/// What goes wrong before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The broker refuses the step, the transaction is aborted. Before [`CommitStep::Reply`] it is too late for that: as [`Self::LoseReply`].
    Refuse(AbortCause),
    /// The client hears no more: `Unknown`. The transaction stays as it is: committed before [`CommitStep::Reply`], else open until its producer
    /// is made anew or its time-out.
    LoseReply,
    /// Another producer takes over the transactional id, which aborts what is open: `Fenced`.
    Fence,
    /// Nothing happens for so long, by the broker's clock. [`Duration::MAX`]: the client hangs.
    Wait(Duration),
    /// The commit is decided, and the group's offsets are visible, but the markers reach the logs only so much later. Before
    /// [`CommitStep::Commit`] or an earlier step.
    DelayMarkers(Duration),
    /// The commit is decided, but its markers reach each log, and the group's offsets become visible, each at a moment of its own within this
    /// time. Before [`CommitStep::Commit`] or an earlier step.
    ScatterMarkers(Duration),
    /// The request of this step arrives twice: the client sent it again because the first answer was lost.
    Duplicate,
    /// The client hears no more: `Unknown`; the request to end the transaction is on its way all the same and arrives only so much later. Before
    /// an earlier step than [`CommitStep::Commit`], or after it: as [`Self::LoseReply`].
    Stray(Duration),
}

/// Decides what goes wrong.
pub trait Faults: Send {
    /// Asked once before each step of each transaction.
    fn before(&mut self, transactional_id: &str, step: CommitStep) -> Option<Fault>;
}

impl<F: FnMut(&str, CommitStep) -> Option<Fault> + Send> Faults for F {
    fn before(&mut self, transactional_id: &str, step: CommitStep) -> Option<Fault> {
        self(transactional_id, step)
    }
}

/// Faults that strike one after the other: each waits for its step, whoever's transaction that is.
#[derive(Clone, Debug, Default)]
pub struct Script(VecDeque<(CommitStep, Fault)>);

impl Script {
    /// The faults, in their order.
    pub fn new(faults: impl IntoIterator<Item = (CommitStep, Fault)>) -> Self {
        Self(faults.into_iter().collect())
    }
}

impl Faults for Script {
    fn before(&mut self, _: &str, step: CommitStep) -> Option<Fault> {
        let (at, fault) = *self.0.front()?;
        (at == step).then(|| {
            self.0.pop_front();
            fault
        })
    }
}
