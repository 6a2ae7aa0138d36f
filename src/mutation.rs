//! Deliberate bugs: the check of the checker. The simulation looks for each of them, and tells which it does not find.
//!
//! A test puts one in with `with`; the code asks `is` at the place where the rule stands. Without the feature `mutations`, which no build for
//! use has, `is` is constant and the compiler leaves nothing of it.
//!
//! Not here: what the right thing is; that stands at each place.

/// A rule of exactly-once processing that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The store is written before the transaction is committed.
    StoreBeforeKafka,
    /// An aborted epoch's memory is kept, and its input is not read again.
    NoRewind,
    /// Offsets are sent without the group metadata, so that the broker checks nothing.
    NoGroupMetadata,
    /// A transaction without an answer is taken for aborted.
    UnknownIsAborted,
    /// Whose commit it was is not looked at, only how far it went.
    JudgedByOffset,
    /// The group metadata is asked for when the epoch is committed.
    LateGroupMetadata,
    /// A restore does not wait for open transactions in the changelog.
    RestoreToStableEnd,
    /// A checkpoint is continued however old it is.
    OldCheckpoint,
    /// A task's keys have as many holders as want them, and a batch is written for each.
    NoLease,
    /// A restore loses a pane.
    LostPane,
    /// The threads of a process share one transactional id.
    SharedTransactionalId,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::StoreBeforeKafka,
        Self::NoRewind,
        Self::NoGroupMetadata,
        Self::UnknownIsAborted,
        Self::JudgedByOffset,
        Self::LateGroupMetadata,
        Self::RestoreToStableEnd,
        Self::OldCheckpoint,
        Self::NoLease,
        Self::LostPane,
        Self::SharedTransactionalId,
    ];
}

#[cfg(feature = "mutations")]
thread_local! {
    static IN: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Runs `test` with a bug in everything that this thread does.
#[cfg(feature = "mutations")]
pub fn with<T>(mutation: Mutation, test: impl FnOnce() -> T) -> T {
    IN.set(Some(mutation));
    let result = test();
    IN.set(None);
    result
}

/// The bug that is in: for threads that a test starts.
#[cfg(feature = "mutations")]
#[must_use]
pub fn current() -> Option<Mutation> {
    IN.get()
}

/// Whether this bug is in.
#[cfg(feature = "mutations")]
pub(crate) fn is(mutation: Mutation) -> bool {
    IN.get() == Some(mutation)
}

/// Whether this bug is in: never, in this build.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn is(_: Mutation) -> bool {
    false
}
