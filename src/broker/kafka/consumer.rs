//! A consumer whose partitions have queues of their own: for the input and for restores.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leeway_topology::ids::{Offset, Partition, Timestamp};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset as Position, TopicPartitionList};
use tracing::{debug, warn};

use super::signal::Signal;
use super::{errors, log};
use crate::broker::{BrokerError, ClientEvent, FetchedRecord, Header, Headers, TopicPartition};

/// A seek is answered by librdkafka's own thread, without the broker.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);

/// Queues rebalances; once `closing`, answers them itself, since nobody else does any more and closing waits for the answer.
pub(super) struct Context {
    rebalances: Mutex<VecDeque<Rebalanced>>,
    closing: AtomicBool,
    signal: Arc<Signal>,
}

/// A rebalance event.
pub(super) enum Rebalanced {
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::pass_on(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "consumer");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            if !assigned && let Err(error) = consumer.incremental_unassign(list) {
                debug!(%error, "unassign while closing");
            }
            return;
        }
        let partitions = partitions(list);
        let event = if assigned {
            Rebalanced::Assigned(partitions)
        } else {
            Rebalanced::Revoked(partitions)
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
        self.signal.set();
    }
}

pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition::new(element.topic(), Partition(element.partition())))
        .collect()
}

pub(super) fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for TopicPartition { topic, partition } in partitions {
        list.add_partition(topic, partition.0);
    }
    list
}

/// A consumer and the queues of its partitions. The queues hold the consumer, and are dropped first.
pub(super) struct QueuedConsumer {
    queues: BTreeMap<TopicPartition, Queue>,
    consumer: Arc<BaseConsumer<Context>>,
    signal: Arc<Signal>,
}

struct Queue {
    queue: PartitionQueue<Context>,
    /// Where it was told to start, and whether that took.
    start: Option<(Offset, bool)>,
}

/// What a partition's queue has to say beside records.
pub(super) enum QueueEvent {
    /// The end, for a read-committed reader.
    End,
    /// It cannot be read on.
    Failed(String),
}

impl QueuedConsumer {
    pub(super) fn new(config: &ClientConfig, signal: &Arc<Signal>) -> Result<Self, BrokerError> {
        let context = Context {
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
            signal: signal.clone(),
        };
        let mut consumer: BaseConsumer<Context> = config
            .create_with_context(context)
            .map_err(|error| BrokerError::Refused(errors::text(&error)))?;
        let wake = signal.clone();
        consumer.set_nonempty_callback(move || wake.set());
        Ok(Self {
            queues: BTreeMap::new(),
            consumer: Arc::new(consumer),
            signal: signal.clone(),
        })
    }

    pub(super) fn consumer(&self) -> &Arc<BaseConsumer<Context>> {
        &self.consumer
    }

    /// Serves callbacks. Gives what the main queue has to say: never a record, since every partition has its own queue.
    pub(super) fn serve(&mut self) -> Option<ClientEvent> {
        self.seek_again();
        match self.consumer.poll(Duration::ZERO)? {
            Ok(message) => {
                let partition = TopicPartition::new(message.topic(), Partition(message.partition()));
                // Fetched between the assignment and the split, so before `start`: not wanted. After it, it would be a gap.
                match self.queues.get(&partition).and_then(|queue| queue.start) {
                    Some((start, _)) if message.offset() >= start.0 => Some(ClientEvent::PartitionError {
                        reason: format!(
                            "offset {} came past the partition's own queue: this is a fault of Leeway",
                            message.offset()
                        ),
                        partition,
                    }),
                    _ => None,
                }
            }
            Err(KafkaError::MessageConsumptionFatal(code)) => Some(ClientEvent::Fatal {
                reason: format!("the consumer failed for good: {code}"),
            }),
            Err(error) => match error.rdkafka_error_code() {
                Some(Code::AllBrokersDown) => Some(ClientEvent::Connection {
                    down: true,
                    reason: errors::text(&error),
                }),
                Some(Code::Authentication | Code::SaslAuthenticationFailed) => Some(ClientEvent::Connection {
                    down: true,
                    reason: format!("{}; check kafka.properties", errors::text(&error)),
                }),
                Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => Some(ClientEvent::Fatal {
                    reason: format!(
                        "Kafka refuses: {}; the principal needs READ on the topics and the group",
                        errors::text(&error)
                    ),
                }),
                _ => {
                    debug!(error = %errors::text(&error), "consumer");
                    None
                }
            },
        }
    }

    pub(super) fn rebalanced(&self) -> Option<Rebalanced> {
        self.consumer
            .context()
            .rebalances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// Adds partitions, paused: nothing is fetched before `start`. The end is a position that is always there, so nothing is out of range.
    pub(super) fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), String> {
        let mut at_end = list(partitions);
        at_end.set_all_offsets(Position::End).map_err(|error| errors::text(&error))?;
        self.consumer
            .incremental_assign(&at_end)
            .map_err(|error| format!("assigning partitions: {}", errors::text(&error)))?;
        if partitions.is_empty() {
            return Ok(());
        }
        self.consumer
            .pause(&list(partitions))
            .map_err(|error| format!("pausing partitions: {}", errors::text(&error)))?;
        for partition in partitions {
            let mut queue = self
                .consumer
                .split_partition_queue(&partition.topic, partition.partition.0)
                .ok_or_else(|| format!("{partition} has no queue"))?;
            let wake = self.signal.clone();
            queue.set_nonempty_callback(move || wake.set());
            self.queues.insert(partition.clone(), Queue { queue, start: None });
        }
        Ok(())
    }

    /// Gives partitions back. An empty list answers a rebalance in which nothing is left to give.
    pub(super) fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), String> {
        for partition in partitions {
            self.queues.remove(partition);
        }
        self.consumer
            .incremental_unassign(&list(partitions))
            .map_err(|error| format!("unassigning partitions: {}", errors::text(&error)))
    }

    /// Begins, or begins anew, at an offset. librdkafka drops by itself what was fetched before a seek.
    pub(super) fn start(&mut self, partition: &TopicPartition, offset: Offset) {
        if let Some(queue) = self.queues.get_mut(partition) {
            queue.start = Some((offset, false));
            self.seek_again();
        }
    }

    /// A partition that was just assigned may not take a seek yet.
    fn seek_again(&mut self) {
        for (partition, queue) in &mut self.queues {
            let Some((offset, took @ false)) = &mut queue.start else { continue };
            match seek(&self.consumer, partition, *offset) {
                Ok(()) => *took = true,
                Err(reason) => debug!(%partition, %offset, reason, "not started yet"),
            }
        }
    }

    /// Hands records of one partition to `visit`; gives their number and what stopped it.
    pub(super) fn poll(
        &mut self,
        partition: &TopicPartition,
        max: usize,
        visit: &mut dyn FnMut(FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> (usize, Option<QueueEvent>) {
        let Some(Queue {
            queue,
            start: Some((start, true)),
        }) = self.queues.get(partition)
        else {
            return (0, None);
        };
        let mut taken = 0;
        while taken < max {
            match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    if message.offset() < start.0 {
                        continue;
                    }
                    taken += 1;
                    if visit(record(&message)).is_break() {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return (taken, Some(QueueEvent::End)),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
                        return (taken, Some(QueueEvent::Failed(errors::text(&error))));
                    }
                    _ => warn!(%partition, error = %errors::text(&error), "fetch"),
                },
            }
        }
        (taken, None)
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.queues.keys()
    }

    /// Lets everything go, so that dropping the consumer only has to leave the group.
    pub(super) fn close(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        let held: Vec<_> = self.queues.keys().cloned().collect();
        if let Err(reason) = self.unassign(&held) {
            debug!(reason, "unassign while closing");
        }
        // A rebalance that was queued and never answered would hold the group up.
        while let Some(event) = self.rebalanced() {
            if let Rebalanced::Revoked(partitions) = event
                && let Err(error) = self.consumer.incremental_unassign(&list(&partitions))
            {
                debug!(%error, "unassign while closing");
            }
        }
    }
}

fn seek(consumer: &BaseConsumer<Context>, partition: &TopicPartition, offset: Offset) -> Result<(), String> {
    let mut at = TopicPartitionList::new();
    at.add_partition_offset(&partition.topic, partition.partition.0, Position::Offset(offset.0))
        .map_err(|error| errors::text(&error))?;
    let sought = consumer.seek_partitions(at, SEEK_TIMEOUT).map_err(|error| errors::text(&error))?;
    for element in sought.elements() {
        element.error().map_err(|error| errors::text(&error))?;
    }
    consumer.resume(&list([partition])).map_err(|error| errors::text(&error))
}

fn record<'a>(message: &'a BorrowedMessage<'_>) -> FetchedRecord<'a> {
    FetchedRecord {
        offset: Offset(message.offset()),
        timestamp: message.timestamp().to_millis().filter(|ms| *ms >= 0).map(Timestamp),
        key: message.key(),
        value: message.payload(),
        headers: message,
    }
}

impl Headers for BorrowedMessage<'_> {
    fn to_owned_headers(&self) -> Vec<Header> {
        let headers = self.headers();
        headers
            .iter()
            .flat_map(|headers| headers.iter())
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    }
}
