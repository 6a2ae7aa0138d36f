//! A stream thread's client of the embedded broker. Dropped without [`StreamClient::close`] it is a crash: the group waits for its session, its
//! transaction stays open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::ids::Offset;

use super::commit::Committing;
use super::log::Fetched;
use super::membership::Membership;
use super::state::{State, no_such_partition};
use super::transactions::Session;
use super::{FETCH_RECORDS, Shared};
use crate::broker::{ClientEvent, ClientSettings, CommitOutcome, EpochCommit, FetchedRecord, GroupMetadata, StreamClient, TopicPartition};

/// The transactional producer.
enum Producer {
    /// None, or one that cannot be used any more.
    Gone,
    /// `init_transactions` waits for the last commit's markers.
    Starting,
    Ready(Session),
    Committing(Session, Box<Committing>),
}

/// A changelog partition that is being read.
struct Restoring {
    next: Offset,
    ended: bool,
}

/// A stream thread's client. See [`super::MemoryBroker`].
pub struct MemoryClient {
    shared: Arc<Shared>,
    settings: ClientSettings,
    events: VecDeque<ClientEvent>,
    membership: Membership,
    producer: Producer,
    /// Questions for stable offsets that are not answered yet.
    asked_committed: Vec<Vec<TopicPartition>>,
    /// Questions for log ranges that are not answered yet.
    asked_ranges: Vec<TopicPartition>,
    started: BTreeMap<TopicPartition, Offset>,
    /// Those of which the last poll found the end.
    at_end: BTreeSet<TopicPartition>,
    restoring: BTreeMap<TopicPartition, Restoring>,
    batch: Vec<Fetched>,
    seen_version: u64,
    /// Something was asked for that the next call of `next_event` goes on with.
    prompt: bool,
}

impl MemoryClient {
    pub(super) fn new(shared: Arc<Shared>, settings: ClientSettings) -> Self {
        Self {
            shared,
            settings,
            events: VecDeque::new(),
            membership: Membership::new(),
            producer: Producer::Gone,
            asked_committed: Vec::new(),
            asked_ranges: Vec::new(),
            started: BTreeMap::new(),
            at_end: BTreeSet::new(),
            restoring: BTreeMap::new(),
            batch: Vec::new(),
            seen_version: 0,
            prompt: false,
        }
    }
}

/// Goes on with `init_transactions` or the transaction, as far as it can.
fn serve_producer(producer: &mut Producer, state: &mut State, settings: &ClientSettings, now: Duration, events: &mut VecDeque<ClientEvent>) {
    if !state.is_up() {
        return;
    }
    match std::mem::replace(producer, Producer::Gone) {
        Producer::Starting => match state.init_producer(&settings.transactional_id, settings.transaction_timeout) {
            Some(session) => {
                *producer = Producer::Ready(session);
                events.push_back(ClientEvent::ProducerReady);
            }
            None => *producer = Producer::Starting,
        },
        Producer::Committing(session, mut committing) => match committing.drive(state, settings, now) {
            Some(outcome) => {
                if matches!(outcome, CommitOutcome::Committed { .. } | CommitOutcome::Aborted { .. }) {
                    *producer = Producer::Ready(session);
                }
                events.push_back(ClientEvent::CommitFinished {
                    epoch: committing.epoch(),
                    outcome,
                });
            }
            None => *producer = Producer::Committing(session, committing),
        },
        idle @ (Producer::Gone | Producer::Ready(_)) => *producer = idle,
    }
}

/// Answers the questions for offsets that no open transaction touches.
fn serve_committed(asked: &mut Vec<Vec<TopicPartition>>, state: &State, settings: &ClientSettings, events: &mut VecDeque<ClientEvent>) {
    let group = state.groups.get(&settings.application_id);
    asked.retain(|partitions| {
        let stable = group.is_none_or(|group| partitions.iter().all(|partition| group.is_stable(partition)));
        if stable {
            let committed = |partition: &TopicPartition| group.and_then(|group| group.committed(partition)).cloned();
            events.push_back(ClientEvent::CommittedOffsets(
                partitions.iter().map(|partition| (partition.clone(), committed(partition))).collect(),
            ));
        }
        !stable
    });
}

/// Answers the questions for log ranges.
fn serve_ranges(asked: &mut Vec<TopicPartition>, state: &State, events: &mut VecDeque<ClientEvent>) {
    events.extend(asked.drain(..).map(|partition| match state.log(&partition) {
        Some(log) => ClientEvent::LogRange(partition, log.range()),
        None => ClientEvent::PartitionError {
            reason: no_such_partition(&partition),
            partition,
        },
    }));
}

impl StreamClient for MemoryClient {
    fn next_event(&mut self) -> Option<ClientEvent> {
        self.prompt = false;
        let Self {
            shared,
            settings,
            events,
            membership,
            producer,
            asked_committed,
            asked_ranges,
            ..
        } = self;
        shared.with(|state, now| {
            if !state.is_up() {
                return;
            }
            membership.serve(state, settings, now, events);
            serve_producer(producer, state, settings, now, events);
            serve_committed(asked_committed, state, settings, events);
            serve_ranges(asked_ranges, state, events);
        });
        self.events.pop_front()
    }

    fn wait(&mut self, timeout: Duration) {
        if self.events.is_empty() && !self.prompt {
            self.seen_version = self.shared.wait(self.seen_version, timeout);
        }
    }

    fn init_producer(&mut self) {
        self.producer = Producer::Starting;
        let Self {
            shared,
            settings,
            events,
            producer,
            ..
        } = self;
        shared.with(|state, now| serve_producer(producer, state, settings, now, events));
    }

    fn subscribe(&mut self, topics: &[Arc<str>]) {
        self.membership.subscribe(topics);
        self.prompt = true;
    }

    fn assign(&mut self, partitions: &[TopicPartition]) {
        self.membership.assign(partitions, &mut self.events);
        self.prompt = true;
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.started.remove(partition);
        }
        self.membership.unassign(partitions, &mut self.events);
        self.prompt = true;
    }

    fn start(&mut self, partition: &TopicPartition, offset: Offset) {
        self.at_end.remove(partition);
        if self.membership.owns(partition) {
            self.started.insert(partition.clone(), offset);
        }
    }

    fn poll(&mut self, partition: &TopicPartition, max: usize, visit: &mut dyn FnMut(FetchedRecord<'_>) -> ControlFlow<()>) -> usize {
        let Self {
            shared,
            started,
            batch,
            events,
            at_end,
            ..
        } = self;
        let Some(position) = started.get_mut(partition) else { return 0 };
        match shared.with(|state, _| state.answer_fetch(partition, *position, max.min(FETCH_RECORDS), batch)) {
            Ok(fetch) => {
                *position = fetch.next;
                if fetch.at_end && batch.is_empty() {
                    at_end.insert(partition.clone());
                } else {
                    at_end.remove(partition);
                }
            }
            Err(reason) => {
                started.remove(partition);
                events.push_back(ClientEvent::PartitionError {
                    partition: partition.clone(),
                    reason,
                });
                return 0;
            }
        }
        let mut taken = 0;
        for (offset, record) in batch.drain(..) {
            taken += 1;
            if visit(record.at(offset)).is_break() {
                *position = offset.next();
                break;
            }
        }
        taken
    }

    fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.started.get(partition)?;
        self.shared.with(|state, _| state.log(partition).map(|log| log.range().high_watermark))
    }

    fn is_at_end(&self, partition: &TopicPartition) -> bool {
        self.at_end.contains(partition)
    }

    fn group_metadata(&mut self) -> GroupMetadata {
        let Self {
            shared,
            settings,
            membership,
            ..
        } = self;
        shared.with(|state, _| membership.metadata(state, &settings.application_id))
    }

    fn assignment_lost(&self) -> bool {
        self.membership.is_lost()
    }

    fn commit(&mut self, epoch: EpochCommit) {
        let Self {
            shared,
            settings,
            events,
            producer,
            ..
        } = self;
        match std::mem::replace(producer, Producer::Gone) {
            Producer::Ready(session) => {
                *producer = Producer::Committing(session.clone(), Box::new(Committing::new(epoch, session)));
                shared.with(|state, now| serve_producer(producer, state, settings, now, events));
            }
            other => {
                *producer = other;
                let reason = "nothing was sent: no producer is ready; call init_producer and wait for ProducerReady".to_owned();
                events.push_back(ClientEvent::CommitFinished {
                    epoch: epoch.epoch,
                    outcome: CommitOutcome::Unknown { reason },
                });
            }
        }
    }

    fn fetch_committed(&mut self, partitions: &[TopicPartition]) {
        self.asked_committed.push(partitions.to_vec());
        self.prompt = true;
    }

    fn fetch_log_range(&mut self, partition: &TopicPartition) {
        self.asked_ranges.push(partition.clone());
        self.prompt = true;
    }

    fn start_restore(&mut self, partition: &TopicPartition, offset: Offset) {
        self.stop_restore(partition);
        self.restoring.insert(partition.clone(), Restoring { next: offset, ended: false });
    }

    fn poll_restore(&mut self, max: usize, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>)) -> usize {
        let Self {
            shared,
            restoring,
            batch,
            events,
            ..
        } = self;
        let mut taken = 0;
        restoring.retain(|partition, reading| {
            if taken >= max {
                return true;
            }
            let fetch = match shared.with(|state, _| state.answer_fetch(partition, reading.next, (max - taken).min(FETCH_RECORDS), batch)) {
                Ok(fetch) => fetch,
                Err(reason) => {
                    events.push_back(ClientEvent::PartitionError {
                        partition: partition.clone(),
                        reason,
                    });
                    return false;
                }
            };
            reading.next = fetch.next;
            taken += batch.len();
            // As librdkafka, which tells of the end again after it went on.
            reading.ended &= batch.is_empty();
            for (offset, record) in batch.drain(..) {
                visit(partition, record.at(offset));
            }
            if fetch.at_end && !std::mem::replace(&mut reading.ended, true) {
                events.push_back(ClientEvent::RestoreEnd(partition.clone()));
            }
            true
        });
        taken
    }

    fn stop_restore(&mut self, partition: &TopicPartition) {
        self.restoring.remove(partition);
        // An end that was not told yet belongs to a reading that is over.
        self.events
            .retain(|event| !matches!(event, ClientEvent::RestoreEnd(ended) if ended == partition));
    }

    fn close(&mut self, _: Duration) {
        let Self {
            shared,
            settings,
            membership,
            ..
        } = self;
        shared.with(|state, now| membership.close(state, &settings.application_id, now));
        self.producer = Producer::Gone;
        self.started.clear();
        self.restoring.clear();
        self.asked_committed.clear();
        self.asked_ranges.clear();
        self.events.clear();
    }
}
