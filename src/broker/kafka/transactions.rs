//! The transactional producer, on a thread of its own: its calls block.
//!
//! One command is one transaction: begin, produce, wait for every acknowledgement, send the offsets, commit. Before the commit is asked for, an
//! error is answered by an abort; from there on the outcome is unknown, whatever the error says (librdkafka may report a failure of what the
//! broker did).

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use leeway_topology::ids::{Offset, Partition};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header as NativeHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig};
use rdkafka::{Offset as Position, TopicPartitionList};
use tracing::{debug, warn};

use super::errors::{self, Reaction};
use super::ffi::Queue;
use super::log;
use super::signal::Signal;
use super::{Hook, TransactionStep};
use crate::broker::{AbortCause, ClientEvent, CommitOutcome, EpochCommit, OutRecord, TopicPartition};

/// Commits come one at a time, so these bound retries, not throughput.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Deliveries are told; this bounds the wait should one not be.
const DELIVERY_PAUSE: Duration = Duration::from_millis(100);

/// How long one `init_transactions` may take before it is tried again.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the transactions thread is asked for.
pub(super) enum Command {
    /// A producer, anew if there is one.
    Init,
    /// One transaction.
    Commit(EpochCommit),
}

/// What the deliveries of the current transaction came to.
#[derive(Default)]
struct Deliveries {
    /// The offset after the last record; `None` once a report had no offset. Reports come in runs of one partition: the last one's is at the end.
    ends: Vec<(TopicPartition, Option<Offset>)>,
    failure: Option<KafkaError>,
}

impl Deliveries {
    fn delivered(&mut self, topic: &str, partition: Partition, next: Option<Offset>) {
        let is_it = |(known, _): &(TopicPartition, _)| known.partition == partition && *known.topic == *topic;
        match self.ends.iter().rposition(is_it) {
            Some(at) => {
                let last = self.ends.len() - 1;
                self.ends.swap(at, last);
            }
            None => self.ends.push((TopicPartition::new(topic, partition), next)),
        }
        if let Some((_, end)) = self.ends.last_mut() {
            *end = end.zip(next).map(|(end, next)| end.max(next));
        }
    }
}

#[derive(Default)]
pub(super) struct ProducerSide {
    deliveries: Mutex<Deliveries>,
}

impl ClientContext for ProducerSide {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::pass_on(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "producer");
    }
}

impl ProducerContext for ProducerSide {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut deliveries = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                let next = (message.offset() >= 0).then(|| Offset(message.offset() + 1));
                deliveries.delivered(message.topic(), Partition(message.partition()), next);
            }
            Err((error, _)) => {
                deliveries.failure.get_or_insert(error.clone());
            }
        }
    }
}

/// The producer, and what tells of its deliveries. rdkafka's own `poll` sits out its time-out, the last millisecond of it spinning.
struct TransactionalProducer {
    /// Goes before its client.
    queue: Queue,
    told: Arc<Signal>,
    native: BaseProducer<ProducerSide>,
}

impl Deref for TransactionalProducer {
    type Target = BaseProducer<ProducerSide>;

    fn deref(&self) -> &Self::Target {
        &self.native
    }
}

impl TransactionalProducer {
    fn new(config: &ClientConfig) -> Result<Self, String> {
        let native: BaseProducer<ProducerSide> = config
            .create_with_context(ProducerSide::default())
            .map_err(|error| errors::text(&error))?;
        let told = Arc::new(Signal::default());
        let queue = Queue::main(native.client(), &told).ok_or("a producer without a queue")?;
        Ok(Self { queue, told, native })
    }

    /// Takes in what was delivered; waits for it, at most until `deadline`, and not long.
    fn serve(&self, deadline: Instant) {
        if self.queue.is_empty() {
            self.told.wait(DELIVERY_PAUSE.min(deadline.saturating_duration_since(Instant::now())));
        }
        while !self.queue.is_empty() {
            self.native.poll(Duration::ZERO);
        }
    }
}

/// The thread's state.
#[derive(Clone)]
pub(super) struct Transactions {
    pub(super) config: ClientConfig,
    pub(super) timeout: Duration,
    pub(super) hook: Option<Hook>,
    pub(super) events: Sender<ClientEvent>,
    pub(super) signal: Arc<Signal>,
    /// Nobody waits for this thread any more: a call of librdkafka holds it.
    pub(super) given_up: Arc<AtomicBool>,
    /// Attempts at making a producer. While Kafka is away there is no end to them, but each takes a bounded time.
    pub(super) attempts: Arc<AtomicU64>,
}

impl Transactions {
    /// Serves commands until their sender is gone.
    pub(super) fn run(self, commands: &Receiver<Command>) {
        let mut producer: Option<TransactionalProducer> = None;
        while let Ok(command) = commands.recv() {
            let event = match command {
                Command::Init => {
                    // The old one first: two producers of one id would fence each other.
                    drop(producer.take());
                    match self.init(commands) {
                        Some(Ok(made)) => {
                            producer = Some(made);
                            ClientEvent::ProducerReady
                        }
                        Some(Err(reason)) => ClientEvent::ProducerFailed { reason },
                        None => return,
                    }
                }
                Command::Commit(epoch) => {
                    let number = epoch.epoch;
                    let outcome = match &producer {
                        Some(producer) => self.commit(producer, epoch),
                        None => CommitOutcome::Unknown {
                            reason: "there is no producer".to_owned(),
                        },
                    };
                    ClientEvent::CommitFinished { epoch: number, outcome }
                }
            };
            if self.tell(event).is_err() {
                return;
            }
        }
    }

    fn tell(&self, event: ClientEvent) -> Result<(), ()> {
        if self.given_up.load(Ordering::Acquire) {
            return Err(());
        }
        self.events.send(event).map_err(|_| ())?;
        self.signal.set();
        Ok(())
    }

    /// Tries until it works or never can. `None`: nobody waits for it any more.
    fn init(&self, commands: &Receiver<Command>) -> Option<Result<TransactionalProducer, String>> {
        let mut down = false;
        loop {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            self.step(TransactionStep::Starting);
            if self.given_up.load(Ordering::Acquire) {
                // It would fence the one that was made meanwhile.
                return None;
            }
            let producer = match TransactionalProducer::new(&self.config) {
                Ok(producer) => producer,
                Err(reason) => return Some(Err(reason)),
            };
            match producer.init_transactions(INIT_TIMEOUT) {
                Ok(()) => {
                    if down {
                        self.tell(ClientEvent::Connection {
                            down: false,
                            reason: String::new(),
                        })
                        .ok()?;
                    }
                    return Some(Ok(producer));
                }
                Err(error) => match errors::reaction(&error) {
                    Reaction::Fatal => {
                        return Some(Err(format!(
                            "no transactional producer: {}; Kafka 3.6 or later is needed, and WRITE on the transactional id",
                            errors::text(&error)
                        )));
                    }
                    _ => {
                        if !down {
                            self.tell(ClientEvent::Connection {
                                down: true,
                                reason: errors::text(&error),
                            })
                            .ok()?;
                            down = true;
                        }
                        std::thread::sleep(RETRY_PAUSE);
                        if matches!(commands.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)) {
                            return None;
                        }
                    }
                },
            }
        }
    }

    fn step(&self, step: TransactionStep) {
        if let Some(hook) = &self.hook {
            hook(step);
        }
    }

    fn commit(&self, producer: &TransactionalProducer, epoch: EpochCommit) -> CommitOutcome {
        if !epoch.group.is_member() {
            // The broker would let it through unchecked. Nothing was begun, so nothing is to be aborted.
            return CommitOutcome::Aborted {
                reason: format!("{:?} cannot be checked by the broker", epoch.group),
                cause: AbortCause::Rejoin,
            };
        }
        let deadline = Instant::now() + self.timeout;
        *producer.context().deliveries.lock().unwrap_or_else(PoisonError::into_inner) = Deliveries::default();
        if let Err(error) = self.prepare(producer, epoch, deadline) {
            return self.failed(producer, &error);
        }
        loop {
            match producer.commit_transaction(deadline.saturating_duration_since(Instant::now()).max(RETRY_PAUSE)) {
                Ok(()) => break,
                // The same commit may be asked for again; whether the broker did it is librdkafka's to find out.
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.is_fatal() && Instant::now() < deadline => {
                    debug!(error = %error.string(), "commit again");
                }
                Err(error) => {
                    return CommitOutcome::Unknown {
                        reason: format!("committing: {}", errors::text(&error)),
                    };
                }
            }
        }
        self.step(TransactionStep::Committed);
        let ends = std::mem::take(&mut producer.context().deliveries.lock().unwrap_or_else(PoisonError::into_inner).ends);
        CommitOutcome::Committed {
            ends: ends.into_iter().filter_map(|(partition, end)| Some((partition, end?))).collect(),
        }
    }

    /// Everything before the commit is asked for.
    fn prepare(&self, producer: &TransactionalProducer, epoch: EpochCommit, deadline: Instant) -> Result<(), KafkaError> {
        producer.begin_transaction()?;
        self.step(TransactionStep::Begun);
        // librdkafka has copies: each goes when it is sent.
        for record in epoch.records {
            send(producer, &record, deadline)?;
        }
        // `commit_transaction` would wait in slices of 100 ms while messages are in flight.
        while producer.in_flight_count() > 0 {
            producer.serve(deadline);
            if let Some(error) = &producer.context().deliveries.lock().unwrap_or_else(PoisonError::into_inner).failure {
                return Err(error.clone());
            }
            if Instant::now() >= deadline {
                return Err(KafkaError::MessageProduction(Code::MessageTimedOut));
            }
        }
        if let Some(error) = &producer.context().deliveries.lock().unwrap_or_else(PoisonError::into_inner).failure {
            return Err(error.clone());
        }
        self.step(TransactionStep::Produced);
        // Last: who asks the group for stable offsets waits while some are pending. And sent while the records are under way, the two refuse each other, which
        // takes a hundred milliseconds and more (docs/benchmarks.md).
        let mut offsets = TopicPartitionList::new();
        for (partition, committed) in &epoch.offsets {
            let mut element = offsets.add_partition(&partition.topic, partition.partition.0);
            element.set_offset(Position::Offset(committed.offset.0))?;
            element.set_metadata(&committed.metadata);
        }
        let Some(group) = epoch.group.token.downcast_ref::<ConsumerGroupMetadata>() else {
            return Err(KafkaError::Canceled);
        };
        loop {
            match producer.send_offsets_to_transaction(&offsets, group, deadline.saturating_duration_since(Instant::now()).max(RETRY_PAUSE)) {
                Ok(()) => break,
                Err(error) if errors::reaction(&error) == Reaction::Retry && Instant::now() < deadline => std::thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(error),
            }
        }
        self.step(TransactionStep::OffsetsSent);
        Ok(())
    }

    /// After an error before the commit was asked for: abort, if that still helps.
    fn failed(&self, producer: &TransactionalProducer, error: &KafkaError) -> CommitOutcome {
        let reason = errors::text(error);
        let cause = match errors::reaction(error) {
            Reaction::Fenced => return CommitOutcome::Fenced { reason },
            Reaction::Fatal => return CommitOutcome::Fatal { reason },
            Reaction::Unknown => return CommitOutcome::Unknown { reason },
            Reaction::Abort(cause) => cause,
            Reaction::Retry => AbortCause::Unavailable,
        };
        // An abort with messages in flight times out and leaves the producer stuck: let them go first.
        producer.purge(PurgeConfig::default().queue().inflight());
        let deadline = Instant::now() + self.timeout;
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            producer.serve(deadline);
        }
        loop {
            match producer.abort_transaction(deadline.saturating_duration_since(Instant::now()).max(RETRY_PAUSE)) {
                Ok(()) => return CommitOutcome::Aborted { reason, cause },
                Err(KafkaError::Transaction(again)) if again.is_retriable() && !again.is_fatal() && Instant::now() < deadline => {
                    debug!(error = %again.string(), "abort again");
                }
                Err(abort) => {
                    warn!(%reason, error = %errors::text(&abort), "the abort failed too");
                    return match errors::reaction(&abort) {
                        Reaction::Fenced => CommitOutcome::Fenced { reason },
                        _ => CommitOutcome::Unknown {
                            reason: format!("{reason}; aborting: {}", errors::text(&abort)),
                        },
                    };
                }
            }
        }
    }
}

/// Queues a record; a full queue is polled, not failed.
pub(super) fn send<C: ProducerContext<DeliveryOpaque = ()>>(
    producer: &BaseProducer<C>,
    record: &OutRecord,
    deadline: Instant,
) -> Result<(), KafkaError> {
    loop {
        let mut out = BaseRecord::<[u8], [u8]>::to(&record.topic).partition(record.partition.0);
        if let Some(key) = &record.key {
            out = out.key(key);
        }
        if let Some(value) = &record.value {
            out = out.payload(value);
        }
        if let Some(timestamp) = record.timestamp {
            out = out.timestamp(timestamp.0);
        }
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            out = out.headers(record.headers.iter().fold(headers, |headers, (key, value)| {
                headers.insert(NativeHeader { key, value: value.as_ref() })
            }));
        }
        match producer.send(out) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) if Instant::now() < deadline => producer.poll(Duration::from_millis(1)),
            Err((error, _)) => return Err(error),
        }
    }
}
