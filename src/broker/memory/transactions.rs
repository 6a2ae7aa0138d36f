//! The transaction coordinator: transactional producers, their epochs, their open transactions.
//!
//! ```text
//! init --> ready(epoch) --produce or send offsets--> open --end--> ready
//!                 \--end with late markers--> decided: the group's offsets are visible, the logs' records not yet --> ready
//! init by another, time-out: what is open is aborted, epoch + 1, and the old epoch is fenced
//! ```
//!
//! Invariants: a transaction ends once, in every log and group that it touched; a producer of an old epoch changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leeway_topology::ids::Offset;

use super::state::State;
use crate::broker::{AbortCause, EpochCommit, OutRecord, TopicPartition};

/// Names a transactional id's producers in logs and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProducerId(u64);

/// A producer's right to write: what `init_transactions` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    transactional_id: String,
    epoch: u64,
}

/// Why a step of a transaction was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The transaction is to be aborted.
    Abort(AbortCause, String),
    /// The epoch is an old one.
    Fenced(String),
    /// The markers of the transaction before are still on their way: ask again.
    Concurrent,
}

struct Producer {
    id: ProducerId,
    epoch: u64,
    transaction_timeout: Duration,
    transaction: Option<Transaction>,
}

struct Transaction {
    begun: Duration,
    partitions: BTreeSet<TopicPartition>,
    groups: BTreeSet<String>,
    /// The commit is decided; the logs get their markers then.
    markers_due: Option<Duration>,
}

/// All transactional producers.
#[derive(Default)]
pub(super) struct Coordinator {
    producers: BTreeMap<String, Producer>,
}

impl State {
    /// Fences the producers before and aborts what they left open. `None`: their last commit's markers are still on their way, ask again.
    pub(super) fn init_producer(&mut self, transactional_id: &str, transaction_timeout: Duration) -> Option<Session> {
        let next_id = ProducerId(self.coordinator.producers.len() as u64);
        let known = self.coordinator.producers.get(transactional_id);
        if known
            .and_then(|producer| producer.transaction.as_ref())
            .is_some_and(|transaction| transaction.markers_due.is_some())
        {
            return None;
        }
        self.fence(transactional_id);
        let fresh = || Producer {
            id: next_id,
            epoch: 0,
            transaction_timeout,
            transaction: None,
        };
        let producer = self.coordinator.producers.entry(transactional_id.to_owned()).or_insert_with(fresh);
        producer.transaction_timeout = transaction_timeout;
        Some(Session {
            transactional_id: transactional_id.to_owned(),
            epoch: producer.epoch,
        })
    }

    /// Aborts what is open and makes every session of this transactional id an old one.
    pub(super) fn fence(&mut self, transactional_id: &str) {
        let Some(producer) = self.coordinator.producers.get_mut(transactional_id) else {
            return;
        };
        producer.epoch += 1;
        let id = producer.id;
        if let Some(transaction) = producer.transaction.take_if(|transaction| transaction.markers_due.is_none()) {
            self.end_groups(id, &transaction, false);
            self.end_logs(id, &transaction, false);
        }
    }

    /// Begins a transaction, unless one is open.
    pub(super) fn begin(&mut self, session: &Session, now: Duration) -> Result<(), Refusal> {
        self.coordinator.open(session, now).map(|_| ())
    }

    /// Appends a record of a transaction.
    pub(super) fn produce(&mut self, session: &Session, record: OutRecord, now: Duration) -> Result<(TopicPartition, Offset), Refusal> {
        let (id, transaction) = self.coordinator.open(session, now)?;
        let partition = TopicPartition::new(record.topic.clone(), record.partition);
        if !transaction.partitions.contains(&partition) {
            transaction.partitions.insert(partition.clone());
        }
        let offset = self
            .append(record, Some(id))
            .map_err(|error| Refusal::Abort(AbortCause::Refused, error.to_string()))?;
        Ok((partition, offset))
    }

    /// Adds the input positions to the transaction, if the group knows the member and its generation.
    pub(super) fn send_offsets(&mut self, session: &Session, group_id: &str, commit: &EpochCommit, now: Duration) -> Result<(), Refusal> {
        let (id, transaction) = self.coordinator.open(session, now)?;
        transaction.groups.insert(group_id.to_owned());
        let group = self.groups.entry(group_id.to_owned()).or_default();
        // As Kafka does: what names no member is let through unchecked.
        if commit.group.is_member() {
            group.check(&commit.group).map_err(|why| Refusal::Abort(AbortCause::Rejoin, why.0))?;
        }
        group.add_pending(id, commit.offsets.iter().cloned());
        Ok(())
    }

    /// Ends the transaction. `markers_after`: the group shows a commit at once, the logs only so much later.
    pub(super) fn end_transaction(&mut self, session: &Session, committed: bool, markers_after: Duration, now: Duration) -> Result<(), Refusal> {
        let producer = self.coordinator.producer(session)?;
        let id = producer.id;
        // One whose commit is decided is not this one.
        let Some(mut transaction) = producer.transaction.take_if(|transaction| transaction.markers_due.is_none()) else {
            return Ok(());
        };
        self.end_groups(id, &transaction, committed);
        if committed && !markers_after.is_zero() {
            transaction.markers_due = Some(now.saturating_add(markers_after));
            self.coordinator.producer(session)?.transaction = Some(transaction);
        } else {
            self.end_logs(id, &transaction, committed);
        }
        Ok(())
    }

    /// What time alone decides: late markers are written, transactions past their time-out aborted and their producers fenced.
    pub(super) fn sweep_transactions(&mut self, now: Duration) {
        let mut timed_out = Vec::new();
        let mut due = Vec::new();
        for (transactional_id, producer) in &mut self.coordinator.producers {
            match &producer.transaction {
                Some(Transaction { markers_due: Some(at), .. }) if *at <= now => {
                    due.extend(producer.transaction.take().map(|ended| (producer.id, ended)))
                }
                Some(Transaction {
                    markers_due: None, begun, ..
                }) if now.saturating_sub(*begun) > producer.transaction_timeout => {
                    timed_out.push(transactional_id.clone());
                }
                _ => {}
            }
        }
        for (id, transaction) in due {
            self.end_logs(id, &transaction, true);
        }
        for transactional_id in timed_out {
            self.fence(&transactional_id);
        }
    }

    fn end_groups(&mut self, id: ProducerId, transaction: &Transaction, committed: bool) {
        for group in &transaction.groups {
            if let Some(group) = self.groups.get_mut(group) {
                group.end_transaction(id, committed);
            }
        }
        self.touched = true;
    }

    fn end_logs(&mut self, id: ProducerId, transaction: &Transaction, committed: bool) {
        for partition in &transaction.partitions {
            if let Some(log) = self.log_mut(partition) {
                log.append_marker(id, committed);
            }
        }
        self.touched = true;
    }
}

impl Coordinator {
    fn producer(&mut self, session: &Session) -> Result<&mut Producer, Refusal> {
        let producer = self
            .producers
            .get_mut(&session.transactional_id)
            .filter(|producer| producer.epoch == session.epoch);
        producer.ok_or_else(|| {
            Refusal::Fenced(format!(
                "epoch {} of transactional id {:?} is an old one",
                session.epoch, session.transactional_id
            ))
        })
    }

    fn open(&mut self, session: &Session, now: Duration) -> Result<(ProducerId, &mut Transaction), Refusal> {
        let producer = self.producer(session)?;
        let fresh = || Transaction {
            begun: now,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
            markers_due: None,
        };
        let transaction = producer.transaction.get_or_insert_with(fresh);
        if transaction.markers_due.is_some() {
            Err(Refusal::Concurrent)
        } else {
            Ok((producer.id, transaction))
        }
    }
}
