//! One task: one partition of one sub-topology.
//!
//! ```text
//!            committed offset, lease, log ranges            changelog's end            self-check
//! Created ------------------------------------> Restoring ------------------------> Running
//!    ^                                              |                                  |
//!    +---- suspended for a while: the store or the changelog failed, dirty close ------+
//! ```
//! Closing drops the task from any state: its lease goes with it, its memory is not used again.
//!
//! Invariants:
//! - Nothing is fetched from the input before the state is restored and has passed its self-check.
//! - A task's memory is either at its last committed epoch plus the open ones, or it is dropped and read again from the store.
//! - Its key range is leased from before the restore until the last WriteBatch or its discard.
//!
//! Not here: transactions and the group; those are the stream thread's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::event::Scope;
use leeway_topology::ids::{Offset, Partition};
use leeway_topology::processor::{Monitor, Processor};
use leeway_topology::state::progress_key;

use crate::broker::{CommittedOffset, LogRange, TopicPartition};
use crate::changelog::Restore;
use crate::state::store::{StoreError, TaskLease, TaskRange};
use crate::telemetry::metrics::TaskMetrics;

pub mod dead_letter;
pub mod progress;
mod self_check;

use dead_letter::DeadLetterSink;
use progress::Progress;
pub use self_check::{Position, Start, StateFault, check_position};

/// A part of the graph that is joined by topics only: one source topic, the monitors of it, their store and sinks.
#[derive(Debug)]
pub struct SubTopology {
    /// Its number in the graph's description.
    pub index: usize,
    /// What its tasks do.
    pub role: Role,
    /// The topic that it reads: an input, or a repartition topic.
    pub topic: Arc<str>,
    /// Its partitions when this process began.
    pub partitions: u32,
    /// What is watched there.
    pub monitors: Vec<Arc<Monitor>>,
    /// Name of the state store.
    pub store: Arc<str>,
    /// The changelog topic.
    pub changelog: Arc<str>,
    /// Where drift events go, by monitor.
    pub events: BTreeMap<Arc<str>, EventSink>,
    /// Where dead letters go.
    pub dead_letters: DeadLetterSink,
    /// Where a partition without committed offset begins.
    pub start: Start,
    /// Half of the changelog's `delete.retention.ms`.
    pub checkpoint_age_ms_max: i64,
}

/// What the tasks of a sub-topology do.
#[derive(Debug)]
pub enum Role {
    /// They read the input: a window for each partition.
    Partitions {
        /// Where whole panes go, if a monitor watches the whole topic.
        repartition: Option<RepartitionSink>,
    },
    /// They read panes: windows of the whole topic.
    Global,
}

impl SubTopology {
    /// Whose records its windows hold.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self.role {
            Role::Partitions { .. } => Scope::Partition,
            Role::Global => Scope::Global,
        }
    }
}

/// Where whole panes go.
#[derive(Clone, Debug)]
pub struct RepartitionSink {
    /// The topic.
    pub topic: Arc<str>,
    /// Its partitions.
    pub partitions: u32,
}

/// Where one monitor's drift events go.
#[derive(Clone, Debug)]
pub struct EventSink {
    /// The topic.
    pub topic: Arc<str>,
    /// Its partitions.
    pub partitions: u32,
}

/// Names a task as Kafka Streams does: sub-topology and partition, `0_3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// Number of the sub-topology.
    pub sub_topology: usize,
    /// Number of the partition.
    pub partition: Partition,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub_topology, self.partition)
    }
}

/// One task of a stream thread.
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) sub_topology: Arc<SubTopology>,
    pub(crate) input: TopicPartition,
    pub(crate) changelog: TopicPartition,
    pub(crate) lease: Option<TaskLease>,
    pub(crate) phase: Phase,
    /// What the group has for the input partition, as far as this task knows: read at the start, then what its own epochs committed.
    pub(crate) committed: Option<CommittedOffset>,
    /// Restores that ended in a state that contradicts the group. The second one is fatal.
    pub(crate) contradictions: u32,
    pub(crate) metrics: TaskMetrics,
}

/// Where a task is in its life, with what it knows there.
pub(crate) enum Phase {
    /// Collects what a restore needs. `until`: not before (after a failure of the store).
    Created(Creating),
    /// Reads its changelog.
    Restoring {
        restore: Restore,
        input: LogRange,
        changelog: LogRange,
        started: Duration,
        /// When the last record was read, or it began.
        read_at: Duration,
    },
    /// Processes records.
    Running(Box<Running>),
}

/// What a task has learned before its restore.
#[derive(Default)]
pub(crate) struct Creating {
    pub(crate) not_before: Duration,
    pub(crate) asked_committed: bool,
    pub(crate) committed: Option<Option<CommittedOffset>>,
    pub(crate) asked_ranges: bool,
    pub(crate) input: Option<LogRange>,
    pub(crate) changelog: Option<LogRange>,
    /// Everything before it must be decided (committed or aborted) before the restore may begin.
    pub(crate) stable_target: Option<Offset>,
    pub(crate) asked_again_at: Duration,
    pub(crate) waiting_since: Option<Duration>,
    /// The store is not to be continued, whatever its checkpoint says.
    pub(crate) from_start: bool,
    /// How many offsets its restore will read, of one that waits until others end.
    pub(crate) to_read: Option<u64>,
}

/// A task that processes.
pub(crate) struct Running {
    pub(crate) processor: Box<dyn Processor>,
    pub(crate) next_offset: Offset,
    /// The next record waits for a reference that was not known at this generation of them.
    pub(crate) waits_since: Option<u64>,
    /// When it took a record last, or began.
    pub(crate) active_at: Duration,
    /// When its monitors were asked last whether they close by idleness.
    pub(crate) idle_asked_at: Duration,
    /// Something happened since the last sealed epoch: its position has to be committed.
    pub(crate) dirty: bool,
    /// Where the store stands. Before the first commit: where the task began.
    pub(crate) base: Offset,
}

impl Task {
    pub(crate) fn new(sub_topology: Arc<SubTopology>, partition: Partition, metrics: TaskMetrics) -> Self {
        Self {
            id: TaskId {
                sub_topology: sub_topology.index,
                partition,
            },
            input: TopicPartition::new(sub_topology.topic.clone(), partition),
            changelog: TopicPartition::new(sub_topology.changelog.clone(), partition),
            sub_topology,
            lease: None,
            phase: Phase::Created(Creating::default()),
            committed: None,
            contradictions: 0,
            metrics,
        }
    }

    /// The task's keys in the store.
    pub(crate) fn range(&self) -> TaskRange {
        TaskRange {
            store: self.sub_topology.store.clone(),
            partition: self.id.partition,
        }
    }

    /// Drops the memory; the task begins again with its restore, not before `not_before`. The lease stays.
    pub(crate) fn suspend(&mut self, not_before: Duration, from_start: bool) {
        self.phase = Phase::Created(Creating {
            not_before,
            from_start,
            ..Creating::default()
        });
    }

    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Running(running) => Some(running),
            Phase::Created(_) | Phase::Restoring { .. } => None,
        }
    }

    /// Whether it processes what comes.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(&self.phase, Phase::Running(running) if running.waits_since.is_none())
    }

    pub(crate) fn state(&self) -> &'static str {
        match self.phase {
            Phase::Created(_) => "created",
            Phase::Restoring { .. } => "restoring",
            Phase::Running(_) => "running",
        }
    }
}

/// The progress that the store holds for a task.
///
/// # Errors
/// When the store cannot be read or the record is damaged.
pub fn stored_progress(lease: &TaskLease) -> Result<Option<Progress>, StoreError> {
    lease
        .get(&progress_key())?
        .map(|bytes| Progress::from_bytes(&bytes).map_err(|e| StoreError::Corrupted(format!("progress record: {e}"))))
        .transpose()
}
