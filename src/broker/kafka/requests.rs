//! Questions that block, on a thread of their own: committed offsets and log ranges.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use leeway_topology::ids::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
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

/// A question.
pub(super) enum Request {
    Committed(Vec<TopicPartition>),
    Range { partition: TopicPartition, of: Reader },
}

/// Who reads a partition. It asks for the range itself, and so knows the partition's leader by the time that it begins: librdkafka looks for one that it
/// does not know once a second.
#[derive(Clone, Copy)]
pub(super) enum Reader {
    Input,
    Restore,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed(partitions) => {
                f.write_str("the committed offsets of ")?;
                for (index, partition) in partitions.iter().enumerate() {
                    write!(f, "{}{partition}", if index > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            Self::Range { partition, .. } => write!(f, "the log's range of {partition}"),
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
    /// Answers until the sender is gone. A question is asked until there is an answer.
    pub(super) fn run(self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
            let mut warn_at = Instant::now() + WARN_EVERY;
            let event = loop {
                let answer = match &request {
                    Request::Committed(partitions) => committed(&*self.consumer, partitions, TIMEOUT).map(ClientEvent::CommittedOffsets),
                    Request::Range { partition, of } => {
                        let reader = match of {
                            Reader::Input => &self.consumer,
                            Reader::Restore => &self.restore,
                        };
                        range(&self.broker, reader, partition, TIMEOUT).map(|range| ClientEvent::LogRange(partition.clone(), range))
                    }
                };
                match answer {
                    Ok(event) => break event,
                    Err(BrokerError::Refused(reason)) => {
                        break ClientEvent::Fatal {
                            reason: format!("asked for {request}, Kafka refuses: {reason}"),
                        };
                    }
                    Err(error) => {
                        debug!(%request, %error, "asking again");
                        if Instant::now() >= warn_at {
                            warn!(%request, %error, "Kafka gives no answer; asking again");
                            warn_at = Instant::now() + WARN_EVERY;
                        }
                        std::thread::sleep(RETRY_PAUSE);
                        if Arc::strong_count(&self.consumer) == 1 {
                            return;
                        }
                    }
                }
            };
            if self.events.send(event).is_err() {
                return;
            }
            self.signal.set();
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
/// behind the stable one.
pub(super) fn range<C: ConsumerContext>(
    broker: &KafkaBroker,
    consumer: &BaseConsumer<C>,
    partition: &TopicPartition,
    timeout: Duration,
) -> Result<LogRange, BrokerError> {
    let (start, last_stable) = watermarks(consumer, partition, timeout)?;
    let (_, high_watermark) = watermarks(broker.uncommitted()?, partition, timeout)?;
    if high_watermark < last_stable {
        warn!(%partition, high_watermark, last_stable, "the log's end went backwards");
    }
    Ok(LogRange {
        start: Offset(start),
        high_watermark: Offset(high_watermark),
        last_stable: Offset(last_stable),
    })
}

/// Where librdkafka remembers a partition to be without a leader, or to be led by a broker that is gone, it takes that for the last word until the
/// metadata is too old (15 minutes), and does not look again by itself. So a question that failed makes it look.
pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    TopicPartition { topic, partition }: &TopicPartition,
    timeout: Duration,
) -> Result<(i64, i64), BrokerError> {
    consumer.fetch_watermarks(topic, partition.0, timeout).map_err(|error| {
        if let Err(error) = consumer.fetch_metadata(Some(topic), timeout) {
            debug!(%error, %topic, "metadata");
        }
        errors::question_error(&error)
    })
}
