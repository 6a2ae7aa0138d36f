//! The transaction coordinator: transactional producers, their epochs, their open transactions.
//!
//! ```text
//! init --> ready(epoch) --produce or send offsets--> open --end--> ready
//!                 \--end with late markers--> decided: each log and group shows it when its marker is due --> ready
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
    /// The commit is decided; these markers are still to be written.
    decided: Option<Vec<(Duration, Target)>>,
}

/// What gets a marker when a transaction ends.
#[derive(Clone, Debug)]
enum Target {
    Log(TopicPartition),
    Group(String),
}

/// When the markers of a commit are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Markers {
    /// With the decision.
    #[default]
    AtOnce,
    /// The groups' at once, the logs' so much later.
    LogsAfter(Duration),
    /// Each at a moment of its own within this time.
    Within(Duration),
}

impl Markers {
    /// How long after the decision the marker of `target`, the `number`th of its transaction, is written.
    fn delay(self, target: &Target, number: usize) -> Duration {
        match (self, target) {
            (Self::AtOnce, _) | (Self::LogsAfter(_), Target::Group(_)) => Duration::ZERO,
            (Self::LogsAfter(time), Target::Log(_)) => time,
            // Spread over the time in an order that the time itself decides: nothing is drawn here.
            (Self::Within(time), _) => {
                let spread = (time.as_millis() as u64).wrapping_add(number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
                time.mul_f64(spread as f64 / f64::from(u32::MAX))
            }
        }
    }
}

/// All transactional producers.
#[derive(Default)]
pub(super) struct Coordinator {
    producers: BTreeMap<String, Producer>,
    /// Requests to commit that are still on their way.
    stray: Vec<(Duration, Session)>,
    /// How often the coordinator looks for transactions past their time-out; zero: always.
    pub(super) sweep_interval: Duration,
    swept: Duration,
}

impl State {
    /// Fences the producers before and aborts what they left open. `None`: their last commit's markers are still on their way, ask again.
    pub(super) fn init_producer(&mut self, transactional_id: &str, transaction_timeout: Duration) -> Option<Session> {
        let next_id = ProducerId(self.coordinator.producers.len() as u64);
        let known = self.coordinator.producers.get(transactional_id);
        if known
            .and_then(|producer| producer.transaction.as_ref())
            .is_some_and(|transaction| transaction.decided.is_some())
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
        if let Some(transaction) = producer.transaction.take_if(|transaction| transaction.decided.is_none()) {
            for target in transaction.targets() {
                self.write_marker(id, &target, false);
            }
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

    /// Ends the transaction. `markers`: when a commit becomes visible where.
    pub(super) fn end_transaction(&mut self, session: &Session, committed: bool, markers: Markers, now: Duration) -> Result<(), Refusal> {
        let producer = self.coordinator.producer(session)?;
        let id = producer.id;
        // One whose commit is decided is not this one.
        let Some(mut transaction) = producer.transaction.take_if(|transaction| transaction.decided.is_none()) else {
            return Ok(());
        };
        let markers = if committed { markers } else { Markers::AtOnce };
        let mut late = Vec::new();
        for (number, target) in transaction.targets().into_iter().enumerate() {
            let delay = markers.delay(&target, number);
            if delay.is_zero() {
                self.write_marker(id, &target, committed);
            } else {
                late.push((now.saturating_add(delay), target));
            }
        }
        if !late.is_empty() {
            transaction.decided = Some(late);
            self.coordinator.producer(session)?.transaction = Some(transaction);
        }
        Ok(())
    }

    /// Lets a request to commit arrive only at `at`, if its producer is not fenced by then.
    pub(super) fn commit_later(&mut self, session: &Session, at: Duration) {
        self.coordinator.stray.push((at, session.clone()));
    }

    /// What time alone decides: late markers are written, late requests arrive, transactions past their time-out are aborted and their producers
    /// fenced.
    pub(super) fn sweep_transactions(&mut self, now: Duration) {
        let mut due = Vec::new();
        for producer in self.coordinator.producers.values_mut() {
            let Some(transaction) = &mut producer.transaction else { continue };
            let Some(decided) = &mut transaction.decided else { continue };
            due.extend(decided.extract_if(.., |(at, _)| *at <= now).map(|(_, target)| (producer.id, target)));
            if decided.is_empty() {
                producer.transaction = None;
            }
        }
        for (id, target) in due {
            self.write_marker(id, &target, true);
        }
        let arrived: Vec<_> = self.coordinator.stray.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, session) in arrived {
            // Nobody waits for the answer, a refusal included.
            self.end_transaction(&session, true, Markers::AtOnce, now).ok();
        }
        if now >= self.coordinator.swept + self.coordinator.sweep_interval {
            self.coordinator.swept = now;
            for transactional_id in self.coordinator.timed_out(now) {
                self.fence(&transactional_id);
            }
        }
    }

    fn write_marker(&mut self, id: ProducerId, target: &Target, committed: bool) {
        match target {
            Target::Log(partition) => {
                if let Some(log) = self.log_mut(partition) {
                    log.append_marker(id, committed);
                }
            }
            Target::Group(group) => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.end_transaction(id, committed);
                }
            }
        }
        self.touched = true;
    }
}

impl Transaction {
    /// Groups first, as the order in which markers are written when nothing delays them.
    fn targets(&self) -> Vec<Target> {
        let groups = self.groups.iter().cloned().map(Target::Group);
        groups.chain(self.partitions.iter().cloned().map(Target::Log)).collect()
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
            decided: None,
        };
        let transaction = producer.transaction.get_or_insert_with(fresh);
        if transaction.decided.is_some() {
            Err(Refusal::Concurrent)
        } else {
            Ok((producer.id, transaction))
        }
    }

    fn timed_out(&self, now: Duration) -> Vec<String> {
        let is_late = |producer: &Producer| {
            let open = producer.transaction.as_ref().filter(|transaction| transaction.decided.is_none());
            open.is_some_and(|transaction| now.saturating_sub(transaction.begun) > producer.transaction_timeout)
        };
        self.producers
            .iter()
            .filter(|(_, producer)| is_late(producer))
            .map(|(id, _)| id.clone())
            .collect()
    }
}
