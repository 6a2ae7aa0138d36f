//! The embedded broker: Kafka's promises in one process, without a thread, a socket or a file. `leeway demo` runs on it; tests script its faults.
//!
//! ```text
//! MemoryClient --membership--> group: members, generations, offsets --\
//!       |------commit--------> coordinator: epochs, transactions ------> logs: records, markers, last stable offset
//!       \------poll-----------------------------------------------------/
//! ```
//!
//! As in Kafka: markers use up offsets; nobody sees open or aborted records; a transactional id's new producer aborts and fences the old one; a
//! transaction past its time-out is aborted; offsets are refused from a wrong generation or member and pending while their transaction is open;
//! a member that does not ask for events within the session time-out loses everything; rebalances are cooperative, or eager on demand.
//!
//! Invariants:
//! - One lock, no helper thread, no randomness, no order but that of calls and of the clock: the same calls at the same times give the same answers.
//! - What is submitted is done inside the call, or in a later [`StreamClient::next_event`](super::StreamClient::next_event) when it has to wait;
//!   its outcome is always queued.
//! - The lock is not held while a record is visited, and no record is copied to be read.
//! - Memory is bounded by the records kept per partition: the oldest go (`cleanup.policy=delete`), or those with a later one of their key.
//!
//! Not here: persistence, replication, quotas, authorisation, creation of topics by use.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leeway_topology::ids::{Offset, Partition, Timestamp};

use super::{Broker, BrokerError, ClientSettings, CommittedOffset, FetchedRecord, LogRange, NewTopic, TopicDescription, TopicPartition};

mod assignor;
mod client;
mod commit;
mod faults;
mod group;
mod log;
mod membership;
mod producer;
mod reader;
mod state;
mod transactions;

#[cfg(test)]
mod tests;

pub use client::MemoryClient;
pub use faults::{CommitStep, Fault, Faults, Script};
pub use group::RebalanceProtocol;
pub use producer::MemoryProducer;
pub use reader::MemoryReader;

use state::State;

/// Kafka's default of `session.timeout.ms`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(45);

/// Minutes of a fast demo, some hundred megabytes at most.
const RETENTION_RECORDS_MAX: usize = 1 << 18;

/// Records fetched under one lock: small enough to let others in, large enough that the lock costs nothing per record.
const FETCH_RECORDS: usize = 4096;

/// A monotonic clock, since any fixed moment.
type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// An embedded broker. Clones are the same broker.
#[derive(Clone)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

/// The one lock, and who waits for it.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    clock: Clock,
    /// The wall clock at the monotonic clock's zero.
    epoch: Timestamp,
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBroker {
    /// An empty broker that lives in real time.
    #[must_use]
    pub fn new() -> Self {
        let started = Instant::now();
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::start(Arc::new(move || started.elapsed()), timestamp(epoch))
    }

    /// An empty broker whose time is `clock`, monotonic; records without a timestamp get its milliseconds.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Fn() -> Duration + Send + Sync>) -> Self {
        Self::start(clock, Timestamp(0))
    }

    fn start(clock: Clock, epoch: Timestamp) -> Self {
        let state = Mutex::new(State::new(SESSION_TIMEOUT, RETENTION_RECORDS_MAX));
        Self {
            shared: Arc::new(Shared {
                state,
                changed: Condvar::new(),
                clock,
                epoch,
            }),
        }
    }

    /// The same broker with another session time-out: how long a member may not ask for events before the group goes on without it.
    #[must_use]
    pub fn with_session_timeout(self, session_timeout: Duration) -> Self {
        self.shared.with(|state, _| state.session_timeout = session_timeout);
        self
    }

    /// The same broker, which keeps about this many records and markers in each partition of topics that are created from now on: the oldest go
    /// first; in compacted topics those with a later one of their key, so that there the number of keys counts too.
    #[must_use]
    pub fn with_retention(self, records_max: usize) -> Self {
        self.shared.with(|state, _| state.retention_records_max = records_max.max(1));
        self
    }

    /// The same broker, whose groups rebalance in this way.
    #[must_use]
    pub fn with_rebalance_protocol(self, protocol: RebalanceProtocol) -> Self {
        self.shared.with(|state, _| state.protocol = protocol);
        self
    }

    /// The same broker, whose coordinator looks only so often for transactions past their time-out. Kafka: every 10 s.
    #[must_use]
    pub fn with_transaction_sweep(self, interval: Duration) -> Self {
        self.shared.with(|state, _| state.coordinator.sweep_interval = interval);
        self
    }

    /// Stops the broker for so long: no client hears anything, nobody's session ends and no marker is written. Afterwards sessions begin anew, as
    /// with a coordinator that read its log again.
    pub fn stop_for(&self, time: Duration) {
        self.shared.with(|state, now| state.stop_until(now.saturating_add(time)));
    }

    /// Compacts a topic now, as Kafka's log cleaner: of the records that a read-committed reader may see, the latest of each key stay, and
    /// tombstones as long as `delete.retention.ms` says.
    ///
    /// # Errors
    /// When there is no such topic.
    pub fn compact(&self, topic: &str) -> Result<(), BrokerError> {
        self.shared.with(|state, _| state.compact(topic))
    }

    /// Forgets a group's committed offsets, as after `offsets.retention.minutes`: only if it has no members. Says whether there were any.
    pub fn expire_offsets(&self, group: &str) -> bool {
        self.shared
            .with(|state, _| state.groups.get_mut(group).is_some_and(|group| group.expire_offsets()))
    }

    /// Commits an offset for a group without members, as a plain consumer that ran before.
    pub fn set_offset(&self, group: &str, partition: &TopicPartition, offset: CommittedOffset) {
        self.shared
            .with(|state, _| state.groups.entry(group.to_owned()).or_default().set_offset(partition.clone(), offset));
    }

    /// Lets transactions fail from now on as `faults` decides, instead of those injected before. It is asked under the broker's lock, so it must
    /// not call the broker itself.
    pub fn inject(&self, faults: impl Faults + 'static) {
        self.shared.with(|state, _| state.faults = Some(Box::new(faults)));
    }
}

impl Shared {
    /// Does something under the lock, after what was due by time alone; wakes those who wait, if there may be something for them.
    fn with<T>(&self, act: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = (self.clock)();
        let mut state = self.lock();
        state.wall = Timestamp(self.epoch.0.saturating_add(timestamp(now).0));
        state.sweep(now);
        let result = act(&mut state, now);
        if std::mem::take(&mut state.touched) {
            state.version += 1;
            self.changed.notify_all();
        }
        result
    }

    /// Waits until something happened since version `seen`; gives the version then.
    fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, |state| state.version == seen);
        waited.unwrap_or_else(PoisonError::into_inner).0.version
    }

    /// Each change is made by a call that leaves the state whole, so a panic elsewhere under the lock (a test's hook) does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

impl MemoryBroker {
    fn read(
        &self,
        ranges: impl IntoIterator<Item = (TopicPartition, Range<Offset>)>,
        visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), BrokerError> {
        let mut batch = Vec::new();
        for (partition, range) in ranges {
            let mut next = range.start;
            while next < range.end {
                let fetched = self.shared.with(|state, _| {
                    // Retention may have gone past it meanwhile.
                    let start = state.log(&partition).map_or(next, |log| log.range().start);
                    state.fetch(&partition, next.max(start), FETCH_RECORDS, &mut batch)
                });
                next = fetched.map_err(BrokerError::Refused)?.next;
                for (offset, record) in batch.drain(..).take_while(|(offset, _)| *offset < range.end) {
                    if visit(&partition, record.at(offset)).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Broker for MemoryBroker {
    type Client = MemoryClient;
    type Producer = MemoryProducer;
    type Reader = MemoryReader;

    fn client(&self, settings: &ClientSettings) -> Result<MemoryClient, BrokerError> {
        Ok(MemoryClient::new(self.shared.clone(), settings.clone()))
    }

    fn producer(&self) -> Result<MemoryProducer, BrokerError> {
        Ok(MemoryProducer::new(self.shared.clone()))
    }

    fn describe_topic(&self, topic: &str, _: Duration) -> Result<Option<TopicDescription>, BrokerError> {
        Ok(self.shared.with(|state, _| state.describe_topic(topic)))
    }

    fn create_topic(&self, topic: &NewTopic, _: Duration) -> Result<(), BrokerError> {
        self.shared.with(|state, now| state.create_topic(topic, now))
    }

    fn add_partitions(&self, topic: &str, partitions: u32, _: Duration) -> Result<(), BrokerError> {
        self.shared.with(|state, now| state.add_partitions(topic, partitions, now))
    }

    /// The end is the last stable offset: an open transaction is not waited for.
    fn read_topic(
        &self,
        topic: &str,
        _: Duration,
        visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), BrokerError> {
        let ranges = self.shared.with(|state, _| state.log_ranges(topic))?.into_iter();
        self.read(ranges.map(|(partition, range)| (partition, range.start..range.last_stable)), visit)
    }

    fn offsets_at(&self, topic: &str, time: Timestamp, _: Duration) -> Result<BTreeMap<Partition, Offset>, BrokerError> {
        self.shared.with(|state, _| {
            let ranges = state.log_ranges(topic)?.into_iter();
            Ok(ranges
                .filter_map(|(partition, _)| Some((partition.partition, state.log(&partition)?.offset_at(time))))
                .collect())
        })
    }

    fn read_ranges(
        &self,
        topic: &str,
        ranges: &BTreeMap<Partition, Range<Offset>>,
        _: Duration,
        visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), BrokerError> {
        let mut bounded = Vec::new();
        for (partition, log) in self.shared.with(|state, _| state.log_ranges(topic))? {
            let Some(range) = ranges.get(&partition.partition) else { continue };
            if range.start < log.start {
                return Err(BrokerError::Refused(format!(
                    "offset {} of {partition} is before its log's start {}",
                    range.start, log.start
                )));
            }
            bounded.push((partition, range.start..range.end.min(log.last_stable)));
        }
        self.read(bounded, visit)
    }

    fn end_offset(&self, partition: &TopicPartition, _: Duration) -> Result<Offset, BrokerError> {
        self.shared.with(|state, _| {
            let log = state
                .log(partition)
                .ok_or_else(|| BrokerError::NoSuchTopic(partition.topic.to_string()))?;
            Ok(log.range().high_watermark)
        })
    }

    fn follow_topic(&self, topic: &str) -> Result<MemoryReader, BrokerError> {
        Ok(MemoryReader::new(self.shared.clone(), topic))
    }

    fn group_positions(
        &self,
        group: &str,
        topic: &str,
        _: Duration,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>, LogRange)>, BrokerError> {
        self.shared.with(|state, _| {
            let ranges = state.log_ranges(topic)?;
            let group = state.groups.get(group);
            let committed = |partition: &TopicPartition| group.and_then(|group| group.committed(partition)).cloned();
            Ok(ranges
                .into_iter()
                .map(|(partition, range)| (partition.clone(), committed(&partition), range))
                .collect())
        })
    }

    fn group_members(&self, group: &str, _: Duration) -> Result<Vec<String>, BrokerError> {
        Ok(self
            .shared
            .with(|state, _| state.groups.get(group).map_or_else(Vec::new, |group| group.member_ids())))
    }

    fn delete_group(&self, group: &str, _: Duration) -> Result<bool, BrokerError> {
        self.shared.with(|state, _| match state.groups.get(group) {
            Some(of_name) if !of_name.member_ids().is_empty() => Err(BrokerError::Refused(format!("group {group:?} has members"))),
            _ => Ok(state.groups.remove(group).is_some()),
        })
    }

    fn delete_topic(&self, topic: &str, _: Duration) -> Result<bool, BrokerError> {
        Ok(self.shared.with(|state, _| state.delete_topic(topic)))
    }
}
