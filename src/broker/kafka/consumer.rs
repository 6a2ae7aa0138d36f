//! A consumer whose partitions have queues of their own: for the input and for restores.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leeway_topology::ids::{Offset, Partition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset as Position, TopicPartitionList};
use tracing::{debug, warn};

use super::partition_queue::{FetchError, PartitionQueue};
use super::signal::Signal;
use super::{errors, log};
use crate::broker::{BrokerError, ClientEvent, FetchedRecord, TopicPartition};

/// A seek is answered by librdkafka's own thread, without the broker.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);

/// Callbacks that are served at most before a consumer closes: a rebalance or two, and what the client says of its connections.
const QUEUED_MAX: usize = 100;

/// Queues rebalances; once `closing`, answers them itself, since nobody else does any more and closing waits for the answer.
///
/// Whether an assignment is lost is asked here, in the callback: librdkafka forgets it with the next change of the assignment.
pub(super) struct Context {
    rebalances: Mutex<VecDeque<Rebalanced>>,
    closing: AtomicBool,
    signal: Arc<Signal>,
}

/// A rebalance event.
pub(super) enum Rebalanced {
    Assigned(Vec<TopicPartition>),
    Revoked { partitions: Vec<TopicPartition>, lost: bool },
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
            // One answer is taken for the answer to all that was told by then: this may be told when the group is left already, and then nobody takes an
            // answer, for which librdkafka waits without end.
            if consumer.closed() {
                return;
            }
            // Everything was unassigned by `close` already. The answer matters, not what is in it.
            let none = TopicPartitionList::new();
            let answered = if assigned {
                consumer.incremental_assign(&none)
            } else {
                consumer.incremental_unassign(&none)
            };
            if let Err(error) = answered {
                debug!(%error, assigned, "answering a rebalance while closing");
            }
            return;
        }
        let partitions = partitions(list);
        let event = if assigned {
            Rebalanced::Assigned(partitions)
        } else {
            Rebalanced::Revoked {
                partitions,
                lost: consumer.assignment_lost(),
            }
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

/// A consumer and its partitions, each with a queue of its own. The queues hold the consumer, and are dropped first.
///
/// A partition that the group assigned is handed to librdkafka only when its offset is known. The obvious way, to assign it paused at a logical
/// offset (the end) and seek later, loses records: a reply about the logical offset that arrives after the seek is outdated, and librdkafka then
/// asks again and moves to what it is told.
pub(super) struct QueuedConsumer {
    partitions: BTreeMap<TopicPartition, Fetching>,
    consumer: Arc<BaseConsumer<Context>>,
    signal: Arc<Signal>,
    /// A rebalance was told and not answered yet. librdkafka takes any change of the assignment for the answer, so none is made meanwhile.
    unanswered: bool,
}

/// How far an owned partition is.
enum Fetching {
    /// Nothing is to be fetched yet.
    No,
    /// From here, as soon as it may be assigned.
    Wanted(Offset),
    /// librdkafka has it.
    Assigned {
        queue: PartitionQueue<Context>,
        /// Nothing below is handed on. librdkafka pauses every partition in a rebalance and goes on from the last record that it knows to be taken;
        /// it notes that after it took the record out of the queue, so a pause in between gives the record a second time.
        next: Offset,
        /// The seek to `next` did not take yet.
        seek: bool,
    },
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
            partitions: BTreeMap::new(),
            consumer: Arc::new(consumer),
            signal: signal.clone(),
            unanswered: false,
        })
    }

    pub(super) fn consumer(&self) -> &Arc<BaseConsumer<Context>> {
        &self.consumer
    }

    /// Serves callbacks. Gives what the main queue has to say: never a record, since every partition has its own queue.
    pub(super) fn serve(&mut self) -> Option<ClientEvent> {
        if let Err(reason) = self.start_wanted() {
            return Some(ClientEvent::Fatal { reason });
        }
        match self.consumer.poll(Duration::ZERO)? {
            Ok(message) => {
                let partition = TopicPartition::new(message.topic(), Partition(message.partition()));
                Some(ClientEvent::PartitionError {
                    reason: format!(
                        "offset {} came past the partition's own queue: this is a fault of Leeway",
                        message.offset()
                    ),
                    partition,
                })
            }
            Err(KafkaError::MessageConsumptionFatal(Code::FencedInstanceId | Code::UnreleasedInstanceId)) => Some(ClientEvent::Fatal {
                reason: "another process is this member of the group: give each instance a group.instance.id of its own".to_owned(),
            }),
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

    /// The next rebalance, to be answered by [`Self::assign`] or [`Self::unassign`].
    pub(super) fn rebalanced(&mut self) -> Option<Rebalanced> {
        let next = self.queued_rebalance();
        self.unanswered |= next.is_some();
        next
    }

    fn queued_rebalance(&self) -> Option<Rebalanced> {
        let mut rebalances = self.consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner);
        rebalances.pop_front()
    }

    fn owes_an_answer(&self) -> bool {
        let rebalances = self.consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner);
        self.unanswered || !rebalances.is_empty()
    }

    /// Takes partitions over, and answers a rebalance. Nothing is fetched before `start`.
    pub(super) fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), String> {
        for partition in partitions {
            self.partitions.entry(partition.clone()).or_insert(Fetching::No);
        }
        self.unanswered = false;
        self.consumer
            .incremental_assign(&TopicPartitionList::new())
            .map_err(|error| format!("accepting partitions: {}", errors::text(&error)))
    }

    /// Gives partitions back, and answers a rebalance. An empty list answers one in which nothing is left to give.
    pub(super) fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), String> {
        let mut assigned = TopicPartitionList::new();
        for partition in partitions {
            if let Some(Fetching::Assigned { .. }) = self.partitions.remove(partition) {
                assigned.add_partition(&partition.topic, partition.partition.0);
            }
        }
        self.unanswered = false;
        self.consumer
            .incremental_unassign(&assigned)
            .map_err(|error| format!("unassigning partitions: {}", errors::text(&error)))
    }

    /// Begins, or begins anew, at an offset. librdkafka drops by itself what was fetched before a seek.
    pub(super) fn start(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), String> {
        match self.partitions.get_mut(partition) {
            None => return Ok(()),
            Some(Fetching::Assigned { next, seek, .. }) => (*next, *seek) = (offset, true),
            Some(fetching) => *fetching = Fetching::Wanted(offset),
        }
        self.start_wanted()
    }

    /// Does what `start` asked for and what could not be done yet.
    fn start_wanted(&mut self) -> Result<(), String> {
        let mut due = false;
        for (partition, fetching) in &mut self.partitions {
            match fetching {
                Fetching::Wanted(_) => due = true,
                Fetching::Assigned {
                    next, seek: wanted @ true, ..
                } => match seek(&self.consumer, partition, *next) {
                    Ok(()) => *wanted = false,
                    Err(reason) => debug!(%partition, offset = %next, reason, "not sought yet"),
                },
                Fetching::No | Fetching::Assigned { .. } => {}
            }
        }
        if !due || self.owes_an_answer() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (partition, fetching) in &mut self.partitions {
            let Fetching::Wanted(start) = *fetching else { continue };
            // Before the assignment, so that no record goes to the main queue.
            let queue = PartitionQueue::new(&self.consumer, &partition.topic, partition.partition.0, &self.signal)
                .ok_or_else(|| format!("{partition} has no queue"))?;
            list.add_partition_offset(&partition.topic, partition.partition.0, Position::Offset(start.0))
                .map_err(|error| errors::text(&error))?;
            *fetching = Fetching::Assigned {
                queue,
                next: start,
                seek: false,
            };
        }
        self.consumer
            .incremental_assign(&list)
            .map_err(|error| format!("assigning partitions: {}", errors::text(&error)))
    }

    /// Hands records of one partition to `visit`; gives their number and what stopped it.
    pub(super) fn poll(
        &mut self,
        partition: &TopicPartition,
        max: usize,
        visit: &mut dyn FnMut(FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> (usize, Option<QueueEvent>) {
        let Some(Fetching::Assigned { queue, next, seek: false }) = self.partitions.get_mut(partition) else {
            return (0, None);
        };
        let (mut taken, mut told) = (0, None);
        if max == 0 {
            return (taken, told);
        }
        queue.serve(|fetched| {
            match fetched {
                Ok(record) if record.offset < *next => return ControlFlow::Continue(()),
                Ok(record) => {
                    *next = record.offset.next();
                    taken += 1;
                    return if visit(record).is_break() || taken == max {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    };
                }
                Err(FetchError {
                    code: Code::PartitionEOF, ..
                }) => told = Some(QueueEvent::End),
                Err(FetchError {
                    code: Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::UnknownTopicOrPartition | Code::UnknownPartition,
                    text,
                }) => told = Some(QueueEvent::Failed(format!("at {next}: {text}"))),
                Err(FetchError { text, .. }) => {
                    warn!(%partition, error = %text, "fetch");
                    return ControlFlow::Continue(());
                }
            }
            ControlFlow::Break(())
        });
        (taken, told)
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    /// Lets everything go, so that dropping the consumer only has to leave the group.
    pub(super) fn close(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        // What waits in the queue is told, and answered by the callback, as long as there is a group to answer.
        for _ in 0..QUEUED_MAX {
            if self.consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
        // A rebalance that was told and never answered, of either kind, would be waited for without end. What is not asked for does no harm.
        while self.queued_rebalance().is_some() {}
        let held: Vec<_> = self.partitions.keys().cloned().collect();
        for answered in [self.assign(&[]), self.unassign(&held)] {
            if let Err(reason) = answered {
                debug!(reason, "while closing");
            }
        }
    }
}

impl Drop for QueuedConsumer {
    /// Also where a thread unwinds: dropping a consumer waits until its rebalances are answered, which nobody else would do.
    fn drop(&mut self) {
        self.close();
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
    Ok(())
}

#[cfg(test)]
mod tests;
