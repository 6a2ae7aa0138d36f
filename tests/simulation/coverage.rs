//! What happened in all runs, and how often: a fault that never strikes proves nothing.

use std::collections::BTreeMap;
use std::fmt;

/// Every kind of thing that happened, and how often.
#[derive(Default)]
pub(crate) struct Coverage(BTreeMap<String, u64>);

/// What must have happened in a number of runs, for them to say anything.
const EXPECTED: [&str; 81] = [
    // Instances.
    "crash",
    "crash at EpochSealed",
    "crash at BeforeStoreWrite",
    "crash at AfterStoreWrite",
    "sleep",
    "sleep beyond the session time-out",
    "a thread sleeps",
    "everybody sleeps",
    "sleep within a step at EpochSealed",
    "sleep within a step at BeforeStoreWrite",
    "sleep within a step at AfterStoreWrite",
    "others go on while a thread stands at EpochSealed",
    "others go on while a thread stands at BeforeStoreWrite",
    "others go on while a thread stands at AfterStoreWrite",
    "stop",
    "all crash at once",
    "count windows",
    "time windows",
    "idle task of a live process looked at",
    // Standbys.
    "process with copies",
    "a copy begins",
    "a copy is given up",
    "crash with copies",
    // Disks.
    "state in memory",
    "state in RocksDB",
    "disk lost",
    "disk replaced by an older copy",
    "key of the disk lost",
    "disk older than the tombstones",
    // The broker.
    "eager rebalances",
    "cooperative rebalances",
    "broker stopped",
    "changelog compacted",
    "group offsets expired",
    "offset of another consumer adopted",
    // Transactions.
    "Refuse(Rejoin) before Produce",
    "Refuse(Rejoin) before SendOffsets",
    "Refuse(Rejoin) before Commit",
    "Refuse(TimedOut) before Produce",
    "Refuse(TimedOut) before SendOffsets",
    "Refuse(TimedOut) before Commit",
    "Refuse(Unavailable) before Produce",
    "Refuse(Unavailable) before SendOffsets",
    "Refuse(Unavailable) before Commit",
    "Refuse(Refused) before Produce",
    "Refuse(Refused) before SendOffsets",
    "Refuse(Refused) before Commit",
    "LoseReply before Produce",
    "LoseReply before SendOffsets",
    "LoseReply before Commit",
    "LoseReply before Reply",
    "Fence before Produce",
    "Fence before SendOffsets",
    "Fence before Commit",
    "Fence before Reply",
    "Wait before Produce",
    "Wait before SendOffsets",
    "Wait before Commit",
    "Wait before Reply",
    "DelayMarkers before Produce",
    "DelayMarkers before SendOffsets",
    "DelayMarkers before Commit",
    "ScatterMarkers before Produce",
    "ScatterMarkers before SendOffsets",
    "ScatterMarkers before Commit",
    "Duplicate before Produce",
    "Duplicate before SendOffsets",
    "Duplicate before Commit",
    "Stray before Commit",
    "scope global",
    "time windows, scope global",
    "segments",
    "segments, time windows, scope global",
    "limits of quality",
    "partition idle, its windows closed",
    // What the code under test did about it.
    "transaction committed",
    "transaction aborted",
    "outcome judged",
    "task restored from the changelog's start",
    "task found corrupted",
    "went on without a group offset",
];

impl Coverage {
    pub(crate) fn count(&mut self, what: impl Into<String>) {
        self.add(what, 1);
    }

    pub(crate) fn add(&mut self, what: impl Into<String>, times: u64) {
        if times > 0 {
            *self.0.entry(what.into()).or_default() += times;
        }
    }

    /// What did not happen and should have.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        EXPECTED.into_iter().filter(|what| !self.0.contains_key(*what)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>8}  {what}"))
    }
}
