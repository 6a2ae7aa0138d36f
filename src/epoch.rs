//! An epoch: what a stream thread processed since its last commit, and how its outcome is judged.
//!
//! ```text
//! open --records--> open --seal--> sealed --CommitFinished--> committed: one WriteBatch
//!                                                         \-> aborted:   memory dropped, input rewound
//!                                                         \-> unknown:   each task judged by the group's offset
//! ```
//!
//! Invariants: values are serialised when the epoch is sealed, so memory may go on; the group metadata is the one taken before the epoch's first
//! record was polled (or in a rebalance event that left all of its partitions), never one asked for at commit time.

use std::time::Duration;

use leeway_topology::event::{Event, QualityEvent};
use leeway_topology::ids::Offset;
use leeway_topology::state::Put;

use crate::broker::{CommittedOffset, GroupMetadata, OutRecord, TopicPartition};
use crate::mutation::{Mutation, is};
use crate::task::progress::Progress;
use crate::telemetry::metrics::Checked;

/// First part of the metadata string of every offset that a Leeway worker commits.
const METADATA_PREFIX: &str = "leeway/1";

/// The id of a stream thread's transactional producer. The same after a crash, so that what was left open is settled at once; never that of
/// another thread, or they would fence each other.
#[must_use]
pub fn transactional_id(application_id: &str, process_id: &str, thread: usize) -> String {
    let thread = if is(Mutation::SharedTransactionalId) { 0 } else { thread };
    format!("{application_id}-{process_id}-{thread}")
}

/// Names the writer of an epoch: process, thread, and a number that differs each time the thread is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochTag {
    writer: String,
}

impl EpochTag {
    /// The tag of one life of one thread.
    #[must_use]
    pub fn new(process_id: &str, thread: usize, incarnation: u32) -> Self {
        Self {
            writer: format!("{METADATA_PREFIX} {process_id}-{thread}-{incarnation:08x}"),
        }
    }

    /// The metadata string of epoch `number`.
    #[must_use]
    pub fn metadata(&self, number: u64) -> String {
        format!("{} {number}", self.writer)
    }

    /// Whether a metadata string was written by a Leeway worker.
    #[must_use]
    pub fn is_ours(metadata: &str) -> bool {
        metadata.starts_with(METADATA_PREFIX)
    }
}

/// What metrics tell of an event.
pub(crate) enum Told {
    Drift(Checked),
    /// Of few features.
    Quality(Box<QualityEvent>),
}

impl Told {
    pub(crate) fn drift(&self) -> Option<&Checked> {
        match self {
            Self::Drift(check) => Some(check),
            Self::Quality(_) => None,
        }
    }

    pub(crate) fn quality(&self) -> Option<&QualityEvent> {
        match self {
            Self::Quality(event) => Some(event),
            Self::Drift(_) => None,
        }
    }
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        match event {
            Event::Drift(event) => Self::Drift(Checked::from(&event)),
            Event::Quality(event) => Self::Quality(Box::new(event)),
        }
    }
}

/// The epoch that is being filled.
pub(crate) struct OpenEpoch {
    pub(crate) number: u64,
    pub(crate) group: GroupMetadata,
    /// Events and dead letters, in the order in which they came about.
    pub(crate) records: Vec<OutRecord>,
    /// The events once more, for the metrics: counted when they are committed.
    pub(crate) checks: Vec<Told>,
    pub(crate) bytes: usize,
    pub(crate) opened: Duration,
}

impl OpenEpoch {
    pub(crate) fn push(&mut self, record: OutRecord) {
        self.bytes += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len) + 64;
        self.records.push(record);
    }
}

/// One task's share of a sealed epoch.
pub(crate) struct SealedTask {
    pub(crate) input: TopicPartition,
    pub(crate) changelog: TopicPartition,
    pub(crate) puts: Vec<Put>,
    pub(crate) progress: Progress,
    /// Where the epoch began.
    pub(crate) base: Offset,
    /// What the group had before.
    pub(crate) before: Option<CommittedOffset>,
    /// What it has if the epoch is committed.
    pub(crate) ours: CommittedOffset,
}

/// An epoch whose transaction is under way.
pub(crate) struct SealedEpoch {
    pub(crate) number: u64,
    pub(crate) tasks: Vec<SealedTask>,
    pub(crate) checks: Vec<Told>,
    pub(crate) submitted: Duration,
}

/// What the group's offset says of one task's share of an epoch whose outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The offset is this epoch's: apply.
    Committed,
    /// The offset is the one from before: discard.
    Aborted,
    /// Somebody else's: close dirty and restore.
    Foreign,
}

/// Judges by the metadata string, never by the offset alone: another member may have committed the same offset.
#[must_use]
pub fn judge(found: Option<&CommittedOffset>, before: Option<&CommittedOffset>, ours: &CommittedOffset) -> Verdict {
    if found == Some(ours) || (is(Mutation::JudgedByOffset) && found.is_some_and(|found| found.offset == ours.offset)) {
        Verdict::Committed
    } else if found == before {
        Verdict::Aborted
    } else {
        Verdict::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, tag: &EpochTag, epoch: u64) -> CommittedOffset {
        CommittedOffset {
            offset: Offset(offset),
            metadata: tag.metadata(epoch),
        }
    }

    #[test]
    fn an_outcome_is_judged_by_the_metadata_and_not_by_the_offset_alone() {
        let (mine, other) = (EpochTag::new("p", 0, 1), EpochTag::new("q", 0, 1));
        let (before, ours) = (at(10, &mine, 1), at(20, &mine, 2));
        assert_eq!(judge(Some(&ours), Some(&before), &ours), Verdict::Committed);
        assert_eq!(judge(Some(&before), Some(&before), &ours), Verdict::Aborted);
        assert_eq!(
            judge(Some(&at(20, &other, 2)), Some(&before), &ours),
            Verdict::Foreign,
            "same offset, another writer"
        );
        assert_eq!(judge(None, None, &ours), Verdict::Aborted, "the first epoch of a group");
        assert_eq!(judge(None, Some(&before), &ours), Verdict::Foreign);
    }

    #[test]
    fn two_lives_of_one_thread_never_write_the_same_metadata() {
        assert_ne!(EpochTag::new("p", 0, 1).metadata(3), EpochTag::new("p", 0, 2).metadata(3));
    }
}
