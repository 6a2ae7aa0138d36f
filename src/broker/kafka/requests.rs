//! Questions that block, on a thread of their own: committed offsets and log ranges.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use leeway_topology::ids::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset as Position, TopicPartitionList};
use tracing::{debug, warn};

use super::consumer::{Context, list};
use super::signal::Signal;
use super::{KafkaBroker, errors};
use crate::broker::{BrokerError, ClientEvent, CommittedOffset, LogRange, TopicPartition};

/// One try of a question.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Between two warnings about a question without an answer.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// A question. All that wait are asked together, since each answer is a journey to a broker, behind whatever the client fetches meanwhile.
pub(super) enum Request {
    Committed(Vec<TopicPartition>),
    Ranges { partitions: Vec<TopicPartition>, of: Reader },
}

/// Who reads a partition. It asks for the range itself, and so knows the partition's leader by the time that it begins: librdkafka looks for one that it
/// does not know once a second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Input,
    Restore,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, partitions) = match self {
            Self::Committed(partitions) => ("the committed offsets of", partitions),
            Self::Ranges { partitions, .. } => ("the log's range of", partitions),
        };
        f.write_str(what)?;
        for (index, partition) in partitions.iter().enumerate() {
            write!(f, "{}{partition}", if index > 0 { ", " } else { " " })?;
        }
        Ok(())
    }
}

impl Request {
    /// Adds it to those that are asked at once.
    fn join(self, open: &mut Vec<Self>) {
        for other in open.iter_mut() {
            let (all, more) = match (other, &self) {
                (Self::Committed(all), Self::Committed(more)) => (all, more),
                (Self::Ranges { partitions: all, of }, Self::Ranges { partitions: more, of: whom }) if *of == *whom => (all, more),
                _ => continue,
            };
            // Brokers refuse a question that names a partition twice.
            let new: Vec<_> = more.iter().filter(|partition| !all.contains(partition)).cloned().collect();
            return all.extend(new);
        }
        open.push(self);
    }

    /// The same in parts, each of which may have its answer: one partition may lack a leader where the others have theirs.
    fn split(self) -> Vec<Self> {
        match self {
            Self::Committed(_) => vec![self],
            Self::Ranges { partitions, of } => {
                let each = partitions.into_iter();
                each.map(|partition| Self::Ranges {
                    partitions: vec![partition],
                    of,
                })
                .collect()
            }
        }
    }
}

/// The thread's state. It holds the consumers, so it must end before they are dropped.
pub(super) struct Requests {
    pub(super) broker: KafkaBroker,
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) restore: Arc<BaseConsumer<Context>>,
    pub(super) events: Sender<ClientEvent>,
    pub(super) signal: Arc<Signal>,
}

impl Requests {
    /// Answers until the sender is gone. A question is asked until there is an answer; others that come meanwhile are asked too.
    pub(super) fn run(self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
            let mut warn_at = Instant::now() + WARN_EVERY;
            let (mut first, mut open) = (Some(request), Vec::new());
            while first.is_some() || !open.is_empty() {
                // Not with those that failed before, or they would fail with them.
                let mut new = Vec::new();
                first
                    .take()
                    .into_iter()
                    .chain(requests.try_iter())
                    .for_each(|request| request.join(&mut new));
                open.append(&mut new);
                let mut failed = Vec::new();
                for request in open {
                    let events = match self.answer(&request) {
                        Ok(events) => events,
                        Err(BrokerError::Refused(reason)) => vec![ClientEvent::Fatal {
                            reason: format!("asked for {request}, Kafka refuses: {reason}"),
                        }],
                        Err(error) => {
                            debug!(%request, %error, "asking again");
                            if Instant::now() >= warn_at {
                                warn!(%request, %error, "Kafka gives no answer; asking again");
                                warn_at = Instant::now() + WARN_EVERY;
                            }
                            failed.extend(request.split());
                            continue;
                        }
                    };
                    if events.into_iter().any(|event| self.events.send(event).is_err()) {
                        return;
                    }
                    self.signal.set();
                }
                if !failed.is_empty() {
                    std::thread::sleep(RETRY_PAUSE);
                    if Arc::strong_count(&self.consumer) == 1 {
                        return;
                    }
                }
                open = failed;
            }
        }
    }

    fn answer(&self, request: &Request) -> Result<Vec<ClientEvent>, BrokerError> {
        match request {
            Request::Committed(partitions) => Ok(vec![ClientEvent::CommittedOffsets(committed(&*self.consumer, partitions, TIMEOUT)?)]),
            Request::Ranges { partitions, of } => {
                let reader = match of {
                    Reader::Input => &self.consumer,
                    Reader::Restore => &self.restore,
                };
                let ranges = ranges(&self.broker, reader, partitions, TIMEOUT)?;
                Ok(partitions
                    .iter()
                    .cloned()
                    .zip(ranges)
                    .map(|(partition, range)| ClientEvent::LogRange(partition, range))
                    .collect())
            }
        }
    }
}

/// The group's stable offsets: a read-committed client waits for open transactions.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, BrokerError> {
    let error = |error: KafkaError| errors::question_error(&error);
    let found: TopicPartitionList = consumer.committed_offsets(list(partitions), timeout).map_err(error)?;
    let mut answers = Vec::new();
    for partition in partitions {
        let element = found
            .find_partition(&partition.topic, partition.partition.0)
            .ok_or_else(|| BrokerError::Unavailable(format!("no answer about {partition}")))?;
        element.error().map_err(error)?;
        let committed = match element.offset() {
            Position::Offset(offset) => Some(CommittedOffset {
                offset: Offset(offset),
                metadata: element.metadata().to_owned(),
            }),
            _ => None,
        };
        answers.push((partition.clone(), committed));
    }
    Ok(answers)
}

/// Start and last stable offset by a read-committed client, the high watermark by one that reads uncommitted; that one last, so that it is never
/// behind the stable one. In the order of the partitions.
pub(super) fn ranges<C: ConsumerContext>(
    broker: &KafkaBroker,
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<Vec<LogRange>, BrokerError> {
    let starts = offsets(consumer, partitions, Position::Beginning, timeout)?;
    let stable = offsets(consumer, partitions, Position::End, timeout)?;
    let high = offsets(broker.uncommitted()?, partitions, Position::End, timeout)?;
    let ranges = starts
        .into_iter()
        .zip(stable)
        .zip(high)
        .map(|((start, last_stable), high_watermark)| LogRange {
            start,
            high_watermark,
            last_stable,
        });
    let ranges: Vec<_> = ranges.collect();
    for (partition, range) in partitions
        .iter()
        .zip(&ranges)
        .filter(|(_, range)| range.high_watermark < range.last_stable)
    {
        warn!(%partition, high_watermark = %range.high_watermark, last_stable = %range.last_stable, "the log's end went backwards");
    }
    Ok(ranges)
}

/// Where the logs begin, or end for this client; one question for each broker that leads some.
///
/// Where librdkafka remembers a partition to be without a leader, or to be led by a broker that is gone, it takes that for the last word until the
/// metadata is too old (15 minutes), and does not look again by itself. So a question that failed makes it look.
pub(super) fn offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    end: Position,
    timeout: Duration,
) -> Result<Vec<Offset>, BrokerError> {
    if partitions.is_empty() {
        // librdkafka refuses to ask for nothing.
        return Ok(Vec::new());
    }
    // Asked for "times" that stand for the two ends.
    let mut asked = list(partitions);
    let answer = asked
        .set_all_offsets(end)
        .and_then(|()| consumer.offsets_for_times(asked, timeout))
        .and_then(|found| {
            let offset = |TopicPartition { topic, partition }: &TopicPartition| {
                let element = found.find_partition(topic, partition.0).ok_or(KafkaError::MetadataFetch(Code::Fail))?;
                element.error()?;
                match element.offset() {
                    Position::Offset(offset) => Ok(Offset(offset)),
                    _ => Err(KafkaError::MetadataFetch(Code::Fail)),
                }
            };
            partitions.iter().map(offset).collect::<Result<Vec<_>, _>>()
        });
    answer.map_err(|error| {
        for topic in partitions.iter().map(|partition| &partition.topic).collect::<BTreeSet<_>>() {
            if let Err(error) = consumer.fetch_metadata(Some(topic), timeout) {
                debug!(%error, %topic, "metadata");
            }
        }
        errors::question_error(&error)
    })
}
