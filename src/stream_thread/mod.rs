//! A stream thread: a member of the group with its tasks, its transactional producer and one loop.
//!
//! ```text
//! step(now):  events -> restore -> process -> seal
//!
//!   Starting --ProducerReady--> Ready --seal--> Committing --committed or aborted--> Ready
//!      ^                                            | outcome unknown, or fenced
//!      |                                            v
//!   (first start)                     Starting, with an unsettled epoch --ProducerReady--> Judging --group's offsets--> Ready
//! ```
//!
//! While an epoch commits, the next one accumulates; it is sealed after the outcome is known. While the outcome is being judged nothing is
//! processed, but the client is polled, so that the member stays in its group.
//!
//! Invariants:
//! - Kafka first, then the store: a WriteBatch is written only for what is proven committed.
//! - An epoch with a lost partition is dropped whole; what is dropped is read again from the store and the input.
//! - The group metadata of an epoch was taken before its first record was polled, or in a rebalance event that left its partitions.
//! - `step` never blocks.
//!
//! Not here: how the broker is spoken to ([`crate::broker`]), and what a record means (`leeway_topology`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leeway_topology::ids::{Offset, Timestamp};
use leeway_topology::processor::{CacheBudget, Irregular, References};
use tracing::{error, info, warn};

use crate::broker::{ClientEvent, StreamClient, TopicPartition};
use crate::epoch::{EpochTag, OpenEpoch, SealedEpoch};
use crate::state::store::{StateStore, StoreError};
use crate::task::{Creating, Phase, SubTopology, Task};
use crate::telemetry::metrics::Metrics;

mod commit;
mod process;
mod rebalance;
mod restore;

/// How often metrics are brought up to date.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// The time of a step: the thread never asks a clock what to do next.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic, since any fixed moment.
    pub elapsed: Duration,
    /// Wall clock, for what is written.
    pub wall: Timestamp,
}

/// Places at which a test may stop a thread for good, between the transaction's end and the WriteBatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailPoint {
    /// The epoch is sealed and about to be submitted.
    EpochSealed,
    /// The transaction is known to be committed, the store is not yet written.
    BeforeStoreWrite,
    /// The store is written.
    AfterStoreWrite,
}

/// What all stream threads of a process share.
pub struct ThreadContext {
    /// The consumer group.
    pub application_id: Arc<str>,
    /// The parts of the graph, by input topic.
    pub sub_topologies: BTreeMap<Arc<str>, Arc<SubTopology>>,
    /// The process's store.
    pub store: StateStore,
    /// The references that are known.
    pub references: Arc<dyn References + Send + Sync>,
    /// Memory for the windows of segments.
    pub cache: Arc<CacheBudget>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// How long an epoch is filled at most.
    pub commit_interval: Duration,
    /// How long a transaction may stay open before its coordinator aborts it and fences its producer.
    pub transaction_timeout: Duration,
    /// Inputs that have more partitions than when this process began.
    pub growth: Growth,
    /// What the threads have; for those who do something of which there should be one among all instances.
    pub assigned: Arc<Assigned>,
    /// A test's hook; nothing in a running system.
    pub fail_point: Option<Arc<dyn Fn(FailPoint) + Send + Sync>>,
}

/// Inputs that were found to have grown: by topic, how many partitions there are at least. Their changelogs are to be extended, which a stream thread,
/// since it never blocks, leaves to whoever supervises it; its new task waits meanwhile.
#[derive(Debug, Default)]
pub struct Growth(Mutex<BTreeMap<Arc<str>, u32>>);

impl Growth {
    /// A partition was assigned that was not there when this process began.
    fn note(&self, topic: &Arc<str>, partitions: u32) {
        let mut grown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = grown.entry(topic.clone()).or_default();
        *noted = partitions.max(*noted);
    }

    /// What was found since the last call.
    pub fn take(&self) -> BTreeMap<Arc<str>, u32> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The input partitions that this process's threads have, by thread.
#[derive(Debug, Default)]
pub struct Assigned(Mutex<BTreeMap<String, BTreeSet<TopicPartition>>>);

impl Assigned {
    /// What one thread has now.
    fn set(&self, thread: &str, partitions: BTreeSet<TopicPartition>) {
        let mut assigned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assigned.insert(thread.to_owned(), partitions);
    }

    /// Whether this partition was assigned to one of them.
    #[must_use]
    pub fn has(&self, partition: &TopicPartition) -> bool {
        let assigned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assigned.values().any(|partitions| partitions.contains(partition))
    }
}

/// Why a thread stopped, by the reaction it needs.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The process has to stop: going on would lose, double or invent something, or cannot work.
    #[error("{0}")]
    Fatal(String),
    /// This thread is done for; another one may take over.
    #[error("{0}")]
    Failed(String),
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There may be more to do at once.
    Busy,
    /// Nothing to do before the next event or commit.
    Idle,
    /// Stopped for good, after [`StreamThread::stop`].
    Stopped,
}

/// The producer's part of the thread's state.
enum Producer {
    /// `init_transactions` is under way; an epoch may wait to be judged afterwards.
    Starting { unsettled: Option<SealedEpoch> },
    /// No transaction is open.
    Ready,
    /// An epoch's transaction is under way.
    Committing(SealedEpoch),
    /// The group's offsets were asked for, to judge an epoch.
    Judging(commit::Judgement),
}

/// One stream thread. See the module.
pub struct StreamThread<C: StreamClient> {
    name: String,
    client: C,
    context: Arc<ThreadContext>,
    tag: EpochTag,
    tasks: BTreeMap<TopicPartition, Task>,
    producer: Producer,
    open: Option<OpenEpoch>,
    next_epoch: u64,
    subscribed: bool,
    /// Who this member was at the last rebalance event. Another id means that every partition is lost, whatever the client says.
    member_id: String,
    revoking: Option<rebalance::Revoking>,
    stopping: bool,
    stopped: bool,
    commit_failures: commit::CommitFailures,
    fenced_at: Option<Duration>,
    /// When the metrics were brought up to date last.
    published: Duration,
    /// Records without a readable time are warned of once.
    told_of_times: bool,
    told_of_segments: bool,
    /// The generation of the references that running tasks were told of.
    references_seen: u64,
    /// Bytes after which an epoch is sealed early; halved when a transaction timed out.
    epoch_bytes_max: usize,
}

impl<C: StreamClient> StreamThread<C> {
    /// Makes a thread; its producer starts at once. `tag` must differ from every earlier one.
    pub fn new(name: String, mut client: C, context: Arc<ThreadContext>, tag: EpochTag) -> Self {
        client.init_producer();
        Self {
            name,
            client,
            context,
            tag,
            tasks: BTreeMap::new(),
            producer: Producer::Starting { unsettled: None },
            open: None,
            next_epoch: 1,
            subscribed: false,
            member_id: String::new(),
            revoking: None,
            stopping: false,
            stopped: false,
            commit_failures: commit::CommitFailures::default(),
            fenced_at: None,
            told_of_times: false,
            told_of_segments: false,
            published: Duration::ZERO,
            references_seen: 0,
            epoch_bytes_max: process::EPOCH_BYTES_MAX,
        }
    }

    /// One turn of the loop: serve events, restore, process a batch, commit what is due. Never blocks.
    ///
    /// # Errors
    /// When the thread cannot go on. Its client is to be closed by [`Self::close`].
    pub fn step(&mut self, now: Now) -> Result<Step, ThreadError> {
        let mut busy = false;
        while let Some(event) = self.client.next_event() {
            // A large state takes a second to open; the tasks that have theirs go on in between.
            let opens_a_state = matches!(event, ClientEvent::RestoreEnd(_));
            self.on_event(event, now)?;
            busy = true;
            if opens_a_state {
                break;
            }
        }
        self.offer_references();
        busy |= self.restore(now)?;
        busy |= self.process(now)?;
        self.seal_if_due(now);
        self.finish_revocation(now)?;
        self.publish_metrics_if_due(now);
        if self.stopping && !self.stopped && self.is_settled() {
            self.tasks.clear();
            self.stopped = true;
        }
        Ok(match (self.stopped, busy) {
            (true, _) => Step::Stopped,
            (false, true) => Step::Busy,
            (false, false) => Step::Idle,
        })
    }

    /// Running tasks hear of references that were published since; those that open take what is current by themselves.
    fn offer_references(&mut self) {
        let references = &self.context.references;
        let generation = references.generation();
        if generation == self.references_seen {
            return;
        }
        self.references_seen = generation;
        for task in self.tasks.values_mut() {
            let id = task.id;
            let Some(running) = task.running() else { continue };
            for (monitor, fault) in running.processor.offer_references(references.as_ref()) {
                error!(task = %id, %monitor, %fault, "the reference that was published cannot be used; going on with the present one");
            }
        }
    }

    /// Asks the thread to commit what it has and stop. [`Step::Stopped`] says when it is through.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Sleeps until there may be something to do.
    pub fn wait(&mut self, timeout: Duration) {
        self.client.wait(timeout);
    }

    /// Leaves the group and drops the leases.
    pub fn close(mut self, timeout: Duration) {
        self.open = None;
        self.tasks.clear();
        self.publish_states();
        self.client.close(timeout);
    }

    /// Whether this thread is a member with all of its tasks running: the readiness of the process.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.subscribed && !self.member_id.is_empty() && self.tasks.values().all(Task::is_ready)
    }

    /// Tasks by state, for the metric.
    #[must_use]
    pub fn task_states(&self) -> BTreeMap<&'static str, usize> {
        let mut states = BTreeMap::from([("created", 0), ("restoring", 0), ("running", 0)]);
        for task in self.tasks.values() {
            *states.entry(task.state()).or_default() += 1;
        }
        states
    }

    /// No epoch is open or under way.
    fn is_settled(&self) -> bool {
        let no_outcome_awaited = match &self.producer {
            Producer::Ready | Producer::Starting { unsettled: None } => true,
            Producer::Starting { unsettled: Some(_) } | Producer::Committing(_) | Producer::Judging(_) => false,
        };
        no_outcome_awaited && self.open.is_none()
    }

    fn on_event(&mut self, event: ClientEvent, now: Now) -> Result<(), ThreadError> {
        match event {
            ClientEvent::ProducerReady => self.on_producer_ready(),
            ClientEvent::ProducerFailed { reason } | ClientEvent::Fatal { reason } => return Err(ThreadError::Fatal(reason)),
            ClientEvent::CommitFinished { epoch, outcome } => self.on_commit_finished(epoch, outcome, now)?,
            ClientEvent::Assigned(partitions) => self.on_assigned(&partitions, now)?,
            ClientEvent::Revoked { partitions, lost } => self.on_revoked(partitions, lost, now)?,
            ClientEvent::CommittedOffsets(offsets) => self.on_committed_offsets(&offsets, now)?,
            ClientEvent::LogRange(partition, range) => self.on_log_range(&partition, range),
            ClientEvent::RestoreEnd(changelog) => self.on_restore_end(&changelog, now)?,
            ClientEvent::PartitionError { partition, reason } => self.on_partition_error(&partition, &reason, now)?,
            ClientEvent::Connection { down: true, reason } => warn!(thread = %self.name, %reason, "Kafka cannot be reached; waiting for it"),
            ClientEvent::Connection { down: false, .. } => info!(thread = %self.name, "Kafka can be reached again"),
        }
        Ok(())
    }

    fn on_partition_error(&mut self, partition: &TopicPartition, reason: &str, now: Now) -> Result<(), ThreadError> {
        if self.tasks.contains_key(partition) {
            return Err(ThreadError::Fatal(format!(
                "input {partition} cannot be read on: {reason}; what became of the records in between is yours to judge; a new application id begins where `monitor.start` says"
            )));
        }
        if let Some(task) = self.tasks.values_mut().find(|task| task.changelog == *partition) {
            error!(task = %task.id, changelog = %partition, reason, "changelog cannot be read; restoring again from its start");
            self.client.stop_restore(partition);
            task.suspend(now.elapsed + restore::RETRY_AFTER, true);
        }
        Ok(())
    }

    /// Lag and counts once a second, also when nothing is committed: a lag that grows because nothing moves is the one that matters.
    fn publish_metrics_if_due(&mut self, now: Now) {
        if now.elapsed < self.published + PUBLISH_EVERY {
            return;
        }
        self.published = now.elapsed;
        for (input, task) in &mut self.tasks {
            match &mut task.phase {
                Phase::Created(Creating { to_read: Some(to_read), .. }) => task.metrics.publish_restore(*to_read),
                Phase::Created(_) => {}
                Phase::Restoring { restore, changelog, .. } => task.metrics.publish_restore(restore.remaining(changelog.last_stable)),
                Phase::Running(running) => {
                    task.metrics.publish(running.base, self.client.high_watermark(input));
                    let metrics = &self.context.metrics;
                    running
                        .processor
                        .drain_missing(&mut |monitor, feature, missing, count| metrics.missing_values(monitor, feature, missing, count));
                    running.processor.drain_irregular(&mut |monitor, irregular, count| {
                        if irregular == Irregular::UnreadableTime && !self.told_of_times {
                            self.told_of_times = true;
                            warn!(
                                monitor,
                                count, "records whose timestamp_field is not there or says no time; their own timestamp is taken"
                            );
                        }
                        let is_rest = matches!(irregular, Irregular::NoRoomForSegment | Irregular::LongSegment);
                        if is_rest && !self.told_of_segments {
                            self.told_of_segments = true;
                            warn!(
                                monitor,
                                count,
                                partition = %input,
                                reason = irregular.reason(),
                                "records are counted in the segment __rest__: max_segments live already, or their own would be too long"
                            );
                        }
                        metrics.irregular(monitor, irregular, count);
                    });
                    running
                        .processor
                        .visit_segments(&mut |monitor, segments| metrics.set_segments(monitor, input, segments));
                }
            }
        }
        self.context.metrics.set_state_bytes(self.context.store.size_bytes());
    }

    fn publish_states(&self) {
        self.context.metrics.set_tasks(&self.name, &self.task_states());
        self.context.assigned.set(&self.name, self.tasks.keys().cloned().collect());
    }

    fn fail_point(&self, point: FailPoint) {
        if let Some(hook) = &self.context.fail_point {
            hook(point);
        }
    }
}

/// A store that failed: what the thread does about it.
fn store_failure(error: &StoreError) -> String {
    format!("state store: {error}")
}

/// The offset from which a task goes on after its memory was dropped.
fn text_of(offsets: &[(TopicPartition, Offset)]) -> String {
    offsets
        .iter()
        .map(|(partition, offset)| format!("{partition}@{offset}"))
        .collect::<Vec<_>>()
        .join(", ")
}
