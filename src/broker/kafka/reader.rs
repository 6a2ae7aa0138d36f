//! Reads a topic without a group, from its start and on.
//!
//! Positions are explicit here too: where the log no longer has the next offset, librdkafka says so, and the log's range is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::ids::{Offset, Partition, Timestamp};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::{Offset as Position, TopicPartitionList};
use tracing::info;

use super::admin::Quiet;
use super::{KafkaBroker, bounded, errors, requests};
use crate::broker::{BrokerError, FetchedRecord, Header, Headers, TopicPartition, TopicReader};

/// How long the log's range is waited for when a position is no longer in it.
const RANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// A reader of a topic.
pub struct KafkaReader {
    broker: KafkaBroker,
    topic: Arc<str>,
    consumer: BaseConsumer<Quiet>,
    partitions: BTreeMap<i32, Reading>,
}

struct Reading {
    partition: TopicPartition,
    next: Offset,
    is_at_end: bool,
    was_at_end: bool,
}

impl KafkaReader {
    pub(super) fn new(broker: KafkaBroker, topic: &str) -> Result<Self, BrokerError> {
        let mut config = broker.consumer_config("leeway-reader");
        config.set("enable.partition.eof", "true");
        // Bounds what is held of records that nobody has looked at yet. Events are alike, so that a fetched batch is many times as large when it is
        // unpacked, and what was large once stays with the process.
        for (name, value) in [
            ("queued.max.messages.kbytes", "8192"),
            ("fetch.message.max.bytes", "131072"),
            ("fetch.max.bytes", "2097152"),
            // Once there is room again: librdkafka would rest for a second.
            ("fetch.queue.backoff.ms", "10"),
        ] {
            if !broker.properties.contains_key(name) {
                config.set(name, value);
            }
        }
        let consumer = config
            .create_with_context(Quiet)
            .map_err(|error| BrokerError::Refused(errors::text(&error)))?;
        Ok(Self {
            broker,
            topic: topic.into(),
            consumer,
            partitions: BTreeMap::new(),
        })
    }

    /// Hands all partitions to librdkafka, each from its next offset; what was fetched and not read is fetched again.
    fn assign(&self) -> Result<(), BrokerError> {
        let error = |error: KafkaError| errors::question_error(&error);
        let mut assignment = TopicPartitionList::new();
        for (number, reading) in &self.partitions {
            assignment
                .add_partition_offset(&self.topic, *number, Position::Offset(reading.next.0))
                .map_err(error)?;
        }
        self.consumer.assign(&assignment).map_err(error)
    }

    /// Goes to the log's start wherever the log no longer has the next offset.
    fn rewind(&mut self) -> Result<(), BrokerError> {
        let all: Vec<_> = self.partitions.values().map(|reading| reading.partition.clone()).collect();
        let ranges = requests::ranges(&self.broker, &self.consumer, &all, RANGE_TIMEOUT)?;
        for (reading, range) in self.partitions.values_mut().zip(ranges) {
            if reading.next < range.start || reading.next > range.high_watermark {
                info!(partition = %reading.partition, offset = reading.next.0, start = range.start.0, "records are gone; reading on from the log's start");
                (reading.next, reading.is_at_end) = (range.start, false);
            }
        }
        self.assign()
    }
}

impl TopicReader for KafkaReader {
    fn refresh(&mut self, timeout: Duration) -> Result<(), BrokerError> {
        let found = self.broker.metadata(&self.topic, timeout)?;
        let (partitions, _) = found.ok_or_else(|| BrokerError::NoSuchTopic(self.topic.to_string()))?;
        let known = self.partitions.len();
        let all = 0..i32::try_from(partitions).unwrap_or(i32::MAX);
        let new: Vec<_> = all
            .filter(|number| !self.partitions.contains_key(number))
            .map(|number| TopicPartition::new(self.topic.clone(), Partition(number)))
            .collect();
        let ranges = requests::ranges(&self.broker, &self.consumer, &new, bounded(timeout))?;
        for (partition, range) in new.into_iter().zip(ranges) {
            let reading = Reading {
                next: range.start,
                is_at_end: false,
                was_at_end: false,
                partition,
            };
            self.partitions.insert(reading.partition.partition.0, reading);
        }
        if self.partitions.len() > known {
            self.assign()?;
        }
        Ok(())
    }

    fn poll(&mut self, max: usize, timeout: Duration, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>)) -> Result<usize, BrokerError> {
        let mut count = 0;
        let mut wait = timeout;
        while count < max {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let Some(reading) = self.partitions.get_mut(&message.partition()) else {
                        continue;
                    };
                    let offset = Offset(message.offset());
                    (reading.next, reading.is_at_end) = (offset.next(), false);
                    let record = FetchedRecord {
                        offset,
                        timestamp: message.timestamp().to_millis().filter(|ms| *ms >= 0).map(Timestamp),
                        key: message.key(),
                        value: message.payload(),
                        headers: &message,
                    };
                    visit(&reading.partition, record);
                    count += 1;
                    wait = Duration::ZERO;
                }
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    if let Some(reading) = self.partitions.get_mut(&number) {
                        (reading.is_at_end, reading.was_at_end) = (true, true);
                    }
                }
                Some(Err(failure)) => {
                    if matches!(failure.rdkafka_error_code(), Some(Code::AutoOffsetReset | Code::OffsetOutOfRange)) {
                        self.rewind()?;
                        return Ok(count);
                    }
                    return Err(errors::question_error(&failure));
                }
                None => break,
            }
        }
        Ok(count)
    }

    fn positions(&self, visit: &mut dyn FnMut(&TopicPartition, Offset, bool)) {
        for Reading {
            partition, next, is_at_end, ..
        } in self.partitions.values()
        {
            visit(partition, *next, *is_at_end);
        }
    }

    fn is_caught_up(&self) -> bool {
        self.partitions.values().all(|reading| reading.was_at_end)
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
