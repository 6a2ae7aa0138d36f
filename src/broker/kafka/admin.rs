//! Topics, positions, reading a topic: what start-up and tools ask.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use leeway_topology::ids::{Offset, Partition, Timestamp};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic as NativeTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::{Offset as Position, TopicPartitionList};
use tracing::debug;

use super::client::KafkaClient;
use super::producer::KafkaProducer;
use super::reader::KafkaReader;
use super::{KafkaBroker, bounded, errors, log, requests};
use crate::broker::{Broker, BrokerError, ClientSettings, CommittedOffset, FetchedRecord, LogRange, NewTopic, TopicDescription, TopicPartition};

/// One poll while a topic is read.
const POLL: Duration = Duration::from_millis(100);

impl KafkaBroker {
    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, BrokerError> {
        self.config().create().map_err(|error| BrokerError::Refused(errors::text(&error)))
    }

    /// Partitions and replication of a topic, from its metadata.
    pub(super) fn metadata(&self, topic: &str, timeout: Duration) -> Result<Option<(u32, u16)>, BrokerError> {
        let metadata = self
            .uncommitted()?
            .fetch_metadata(Some(topic), bounded(timeout))
            .map_err(|error| errors::broker_error(&error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(None);
        };
        match found.error().map(Code::from) {
            None => {}
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
            Some(code) => return Err(errors::broker_error(&KafkaError::MetadataFetch(code))),
        }
        let replicas = found.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        Ok(Some((
            u32::try_from(found.partitions().len()).unwrap_or(u32::MAX),
            u16::try_from(replicas).unwrap_or(u16::MAX),
        )))
    }

    fn reader(&self, group: &str) -> Result<BaseConsumer<Quiet>, BrokerError> {
        let mut config = self.consumer_config(group);
        config.set("enable.partition.eof", "true");
        config
            .create_with_context(Quiet)
            .map_err(|error| BrokerError::Refused(errors::text(&error)))
    }
}

/// rdkafka would log the end of a partition as an error.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log::pass_on(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "reader");
    }
}

impl ConsumerContext for Quiet {}

/// Waits for an answer of the admin client, which librdkafka bounds by the request's time-out.
fn block_on<T>(answer: impl Future<Output = Result<T, KafkaError>>) -> Result<T, BrokerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| BrokerError::Unavailable(error.to_string()))?;
    runtime.block_on(answer).map_err(|error| errors::broker_error(&error))
}

fn options(timeout: Duration) -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(bounded(timeout)))
        .operation_timeout(Some(bounded(timeout)))
}

/// The answer about one topic.
fn topic_result(result: Option<Result<String, (String, Code)>>, exists_is_fine: bool) -> Result<(), BrokerError> {
    match result {
        Some(Err((_, Code::TopicAlreadyExists))) if exists_is_fine => Ok(()),
        Some(Err((_, code))) => Err(errors::broker_error(&KafkaError::AdminOp(code))),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// The answer about the deletion of one thing.
fn was_there(result: Option<Result<String, (String, Code)>>, not_there: Code) -> Result<bool, BrokerError> {
    match result {
        Some(Ok(_)) => Ok(true),
        Some(Err((_, code))) if code == not_there => Ok(false),
        Some(Err((_, code))) => Err(errors::broker_error(&KafkaError::AdminOp(code))),
        None => Ok(false),
    }
}

/// Reads ranges of offsets, each up to its end or to the end of what is committed.
fn read(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    ranges: &BTreeMap<Partition, Range<Offset>>,
    timeout: Duration,
    visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>,
) -> Result<(), BrokerError> {
    let error = |error: KafkaError| errors::broker_error(&error);
    let mut assignment = TopicPartitionList::new();
    let mut open = BTreeMap::new();
    for (partition, range) in ranges.iter().filter(|(_, range)| range.start < range.end) {
        assignment
            .add_partition_offset(topic, partition.0, Position::Offset(range.start.0))
            .map_err(error)?;
        open.insert(partition.0, (TopicPartition::new(topic, *partition), range.end));
    }
    consumer.assign(&assignment).map_err(error)?;
    // Of silence: a large topic takes as long as it takes.
    let mut deadline = Instant::now() + timeout;
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                deadline = Instant::now() + timeout;
                let offset = Offset(message.offset());
                let Some((partition, end)) = open.get(&message.partition()) else {
                    continue;
                };
                if offset < *end {
                    let record = FetchedRecord {
                        offset,
                        timestamp: message.timestamp().to_millis().filter(|ms| *ms >= 0).map(Timestamp),
                        key: message.key(),
                        value: message.payload(),
                        headers: &message,
                    };
                    if visit(partition, record).is_break() {
                        return Ok(());
                    }
                }
                if offset.next() >= *end {
                    open.remove(&message.partition());
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(failure)) if matches!(errors::broker_error(&failure), BrokerError::Refused(_)) => return Err(error(failure)),
            Some(Err(_)) | None if Instant::now() >= deadline => {
                return Err(BrokerError::Unavailable(format!(
                    "topic {topic:?} could not be read to its end: nothing came for {} s",
                    timeout.as_secs()
                )));
            }
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

impl Broker for KafkaBroker {
    type Client = KafkaClient;
    type Producer = KafkaProducer;
    type Reader = KafkaReader;

    fn client(&self, settings: &ClientSettings) -> Result<KafkaClient, BrokerError> {
        KafkaClient::new(self, settings)
    }

    fn producer(&self) -> Result<KafkaProducer, BrokerError> {
        let mut config = self.producer_config();
        if !self.properties.contains_key("linger.ms") {
            config.set("linger.ms", "20");
        }
        KafkaProducer::new(&config)
    }

    fn describe_topic(&self, topic: &str, timeout: Duration) -> Result<Option<TopicDescription>, BrokerError> {
        let Some((partitions, replication_factor)) = self.metadata(topic, timeout)? else {
            return Ok(None);
        };
        let admin = self.admin()?;
        let resource = ResourceSpecifier::Topic(topic);
        let resources = block_on(admin.describe_configs([&resource], &options(timeout)))?;
        let config = match resources.into_iter().next() {
            Some(Ok(resource)) => resource
                .entries
                .into_iter()
                .filter_map(|entry| Some((entry.name, entry.value?)))
                .collect(),
            Some(Err(code)) => return Err(errors::broker_error(&KafkaError::AdminOp(code))),
            None => BTreeMap::new(),
        };
        Ok(Some(TopicDescription {
            partitions,
            replication_factor,
            config,
        }))
    }

    fn create_topic(&self, topic: &NewTopic, timeout: Duration) -> Result<(), BrokerError> {
        let replication = TopicReplication::Fixed(topic.replication_factor.map_or(-1, i32::from));
        let mut native = NativeTopic::new(&topic.name, i32::try_from(topic.partitions).unwrap_or(i32::MAX), replication);
        for (name, value) in &topic.config {
            native = native.set(name, value);
        }
        let admin = self.admin()?;
        let results = block_on(admin.create_topics([&native], &options(timeout)))?;
        topic_result(results.into_iter().next(), true)?;
        // The controller has it; wait until the brokers' metadata has it too, so that the next question finds it.
        let deadline = Instant::now() + timeout;
        while self.metadata(&topic.name, timeout)?.is_none() {
            if Instant::now() >= deadline {
                return Err(BrokerError::Unavailable(format!(
                    "topic {:?} was created but is not there yet",
                    topic.name
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn add_partitions(&self, topic: &str, partitions: u32, timeout: Duration) -> Result<(), BrokerError> {
        let admin = self.admin()?;
        let results = block_on(admin.create_partitions([&NewPartitions::new(topic, partitions as usize)], &options(timeout)))?;
        topic_result(results.into_iter().next(), false)
    }

    fn read_topic(
        &self,
        topic: &str,
        timeout: Duration,
        visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), BrokerError> {
        let (partitions, _) = self.metadata(topic, timeout)?.ok_or_else(|| BrokerError::NoSuchTopic(topic.to_owned()))?;
        let consumer = self.reader("leeway-reader")?;
        let mut ranges = BTreeMap::new();
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let watermarks = consumer.fetch_watermarks(topic, partition, bounded(timeout));
            let (start, end) = watermarks.map_err(|error| errors::broker_error(&error))?;
            ranges.insert(Partition(partition), Offset(start)..Offset(end));
        }
        read(&consumer, topic, &ranges, timeout, visit)
    }

    fn offsets_at(&self, topic: &str, time: Timestamp, timeout: Duration) -> Result<BTreeMap<Partition, Offset>, BrokerError> {
        let (partitions, _) = self.metadata(topic, timeout)?.ok_or_else(|| BrokerError::NoSuchTopic(topic.to_owned()))?;
        let consumer = self.reader("leeway-reader")?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            // As an offset stands what is asked for.
            let time = Position::Offset(time.0.max(0));
            asked
                .add_partition_offset(topic, partition, time)
                .map_err(|error| errors::broker_error(&error))?;
        }
        let answer = consumer.offsets_for_times(asked, bounded(timeout));
        let answer = answer.map_err(|error| errors::broker_error(&error))?;
        let mut offsets = BTreeMap::new();
        for element in answer.elements() {
            element.error().map_err(|error| errors::broker_error(&error))?;
            let partition = TopicPartition::new(topic, Partition(element.partition()));
            let offset = match element.offset() {
                Position::Offset(offset) => Offset(offset),
                // No record is as late.
                _ => self.end_offset(&partition, timeout)?,
            };
            offsets.insert(partition.partition, offset);
        }
        Ok(offsets)
    }

    fn read_ranges(
        &self,
        topic: &str,
        ranges: &BTreeMap<Partition, Range<Offset>>,
        timeout: Duration,
        visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), BrokerError> {
        read(&self.reader("leeway-reader")?, topic, ranges, timeout, visit)
    }

    fn end_offset(&self, partition: &TopicPartition, timeout: Duration) -> Result<Offset, BrokerError> {
        let ends = requests::offsets(self.uncommitted()?, std::slice::from_ref(partition), Position::End, bounded(timeout))?;
        ends.first()
            .copied()
            .ok_or_else(|| BrokerError::Unavailable(format!("no answer about {partition}")))
    }

    fn follow_topic(&self, topic: &str) -> Result<KafkaReader, BrokerError> {
        KafkaReader::new(self.clone(), topic)
    }

    fn group_positions(
        &self,
        group: &str,
        topic: &str,
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>, LogRange)>, BrokerError> {
        let (partitions, _) = self.metadata(topic, timeout)?.ok_or_else(|| BrokerError::NoSuchTopic(topic.to_owned()))?;
        let consumer = self.reader(group)?;
        let all: Vec<_> = (0..i32::try_from(partitions).unwrap_or(i32::MAX))
            .map(|partition| TopicPartition::new(topic, Partition(partition)))
            .collect();
        let committed = requests::committed(&consumer, &all, bounded(timeout))?;
        let ranges = requests::ranges(self, &consumer, &all, bounded(timeout))?;
        let both = committed.into_iter().zip(ranges);
        Ok(both.map(|((partition, committed), range)| (partition, committed, range)).collect())
    }

    fn group_members(&self, group: &str, timeout: Duration) -> Result<Vec<String>, BrokerError> {
        let list = self
            .uncommitted()?
            .fetch_group_list(Some(group), bounded(timeout))
            .map_err(|error| errors::broker_error(&error))?;
        let members = list.groups().iter().flat_map(rdkafka::groups::GroupInfo::members);
        Ok(members.map(|member| member.client_id().to_owned()).collect())
    }

    fn delete_group(&self, group: &str, timeout: Duration) -> Result<bool, BrokerError> {
        let admin = self.admin()?;
        let results = block_on(admin.delete_groups(&[group], &options(timeout)))?;
        was_there(results.into_iter().next(), Code::GroupIdNotFound)
    }

    fn delete_topic(&self, topic: &str, timeout: Duration) -> Result<bool, BrokerError> {
        let admin = self.admin()?;
        let results = block_on(admin.delete_topics(&[topic], &options(timeout)))?;
        was_there(results.into_iter().next(), Code::UnknownTopicOrPartition)
    }
}
