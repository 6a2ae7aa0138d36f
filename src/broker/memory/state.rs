//! All that the broker holds, behind one lock: topics, groups, producers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::ids::{Offset, Timestamp};

use super::faults::Faults;
use super::group::{Group, RebalanceProtocol};
use super::log::{Cleanup, Fetch, Fetched, Log, RecordData};
use super::transactions::{Coordinator, ProducerId};
use crate::broker::{BrokerError, LogRange, NewTopic, OutRecord, TopicDescription, TopicPartition};

/// Kafka's defaults of the settings that are looked at here or by others.
const TOPIC_DEFAULTS: [(&str, &str); 3] = [
    ("cleanup.policy", "delete"),
    ("delete.retention.ms", "86400000"),
    ("max.message.bytes", MESSAGE_BYTES_TEXT),
];
const MESSAGE_BYTES_TEXT: &str = "1048588";

/// What a batch of one record adds to its bytes in Kafka's format: what `max.message.bytes` is compared with.
const RECORD_OVERHEAD_BYTES: usize = 70;

/// A topic with more would be a mistake here.
const PARTITIONS_MAX: u32 = 10_000;

/// A topic.
struct Topic {
    partitions: Vec<Log>,
    config: BTreeMap<String, String>,
    record_bytes_max: usize,
}

/// See the module.
pub(super) struct State {
    topics: BTreeMap<Arc<str>, Topic>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) coordinator: Coordinator,
    pub(super) faults: Option<Box<dyn Faults>>,
    pub(super) session_timeout: Duration,
    pub(super) protocol: RebalanceProtocol,
    /// The broker is stopped until then.
    down_until: Option<Duration>,
    pub(super) retention_records_max: usize,
    /// The time of writing, for records without a timestamp.
    pub(super) wall: Timestamp,
    /// Something happened that somebody may wait for.
    pub(super) touched: bool,
    /// Counts those happenings.
    pub(super) version: u64,
}

impl State {
    pub(super) fn new(session_timeout: Duration, retention_records_max: usize) -> Self {
        Self {
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            coordinator: Coordinator::default(),
            faults: None,
            session_timeout,
            protocol: RebalanceProtocol::default(),
            down_until: None,
            retention_records_max,
            wall: Timestamp(0),
            touched: false,
            version: 0,
        }
    }

    /// What time alone decides.
    pub(super) fn sweep(&mut self, now: Duration) {
        if let Some(until) = self.down_until {
            if now < until {
                return;
            }
            self.down_until = None;
            self.touched = true;
            self.groups.values_mut().for_each(|group| group.refresh(now));
        }
        self.sweep_transactions(now);
        let Self {
            groups,
            topics,
            session_timeout,
            touched,
            ..
        } = self;
        for group in groups.values_mut() {
            if group.expire(*session_timeout, now) {
                group.complete(|topic| partitions_of(topics, topic));
                *touched = true;
            }
        }
    }

    /// Whether clients hear anything.
    pub(super) fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    pub(super) fn stop_until(&mut self, until: Duration) {
        self.down_until = self.down_until.max(Some(until));
    }

    /// Deletes a topic and what groups committed in it. Says whether there was one.
    pub(super) fn delete_topic(&mut self, name: &str) -> bool {
        self.touched = true;
        self.groups.values_mut().for_each(|group| group.forget_topic(name));
        self.topics.remove(name).is_some()
    }

    pub(super) fn compact(&mut self, name: &str) -> Result<(), BrokerError> {
        let wall = self.wall;
        let topic = self.topics.get_mut(name).ok_or_else(|| BrokerError::NoSuchTopic(name.to_owned()))?;
        let text = &topic.config["delete.retention.ms"];
        let retention_ms: i64 = text
            .parse()
            .map_err(|_| BrokerError::Refused(format!("topic {name:?}: delete.retention.ms={text} is no number of milliseconds")))?;
        let oldest = Timestamp(wall.0.saturating_sub(retention_ms));
        topic.partitions.iter_mut().for_each(|log| log.compact(oldest));
        Ok(())
    }

    pub(super) fn create_topic(&mut self, new: &NewTopic, now: Duration) -> Result<(), BrokerError> {
        if self.topics.contains_key(&new.name) {
            return Ok(());
        }
        if new.name.is_empty() || new.partitions == 0 || new.partitions > PARTITIONS_MAX {
            let text = format!(
                "topic {:?} with {} partitions: it takes a name and 1 to {PARTITIONS_MAX} partitions",
                new.name, new.partitions
            );
            return Err(BrokerError::Refused(text));
        }
        let mut config: BTreeMap<_, _> = TOPIC_DEFAULTS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        config.extend(new.config.clone());
        let text = &config["max.message.bytes"];
        let record_bytes_max = text.parse().map_err(|_| {
            BrokerError::Refused(format!(
                "topic {:?}: max.message.bytes={text} is no number of bytes; the default is {MESSAGE_BYTES_TEXT}",
                new.name
            ))
        })?;
        self.topics.insert(
            new.name.clone(),
            Topic {
                partitions: Vec::new(),
                config,
                record_bytes_max,
            },
        );
        self.add_partitions(&new.name, new.partitions, now)
    }

    pub(super) fn add_partitions(&mut self, name: &str, partitions: u32, now: Duration) -> Result<(), BrokerError> {
        let retention_records_max = self.retention_records_max;
        let topic = self.topics.get_mut(name).ok_or_else(|| BrokerError::NoSuchTopic(name.to_owned()))?;
        let has = topic.partitions.len();
        if (partitions as usize) < has || partitions > PARTITIONS_MAX {
            let text = format!("topic {name:?} has {has} partitions and cannot have {partitions}: their number only rises, up to {PARTITIONS_MAX}");
            return Err(BrokerError::Refused(text));
        }
        let cleanup = if topic.config["cleanup.policy"].contains("compact") {
            Cleanup::Compact
        } else {
            Cleanup::Delete
        };
        topic
            .partitions
            .resize_with(partitions as usize, || Log::new(cleanup, retention_records_max));
        for group in self.groups.values_mut().filter(|group| group.reads(name)) {
            group.rebalance(now);
        }
        self.touched = true;
        Ok(())
    }

    pub(super) fn describe_topic(&self, name: &str) -> Option<TopicDescription> {
        let topic = self.topics.get(name)?;
        let partitions = u32::try_from(topic.partitions.len()).unwrap_or(PARTITIONS_MAX);
        Some(TopicDescription {
            partitions,
            replication_factor: 1,
            config: topic.config.clone(),
        })
    }

    /// All partitions of a topic with their log ranges.
    pub(super) fn log_ranges(&self, name: &str) -> Result<Vec<(TopicPartition, LogRange)>, BrokerError> {
        let (name, topic) = self.topics.get_key_value(name).ok_or_else(|| BrokerError::NoSuchTopic(name.to_owned()))?;
        let numbered = (0..).map(leeway_topology::ids::Partition).zip(&topic.partitions);
        Ok(numbered
            .map(|(partition, log)| (TopicPartition::new(name.clone(), partition), log.range()))
            .collect())
    }

    pub(super) fn log(&self, partition: &TopicPartition) -> Option<&Log> {
        self.topics
            .get(&partition.topic)?
            .partitions
            .get(usize::try_from(partition.partition.0).ok()?)
    }

    pub(super) fn log_mut(&mut self, partition: &TopicPartition) -> Option<&mut Log> {
        self.topics
            .get_mut(&partition.topic)?
            .partitions
            .get_mut(usize::try_from(partition.partition.0).ok()?)
    }

    /// Takes records as [`Log::fetch`] does.
    pub(super) fn fetch(&self, partition: &TopicPartition, from: Offset, max: usize, into: &mut Vec<Fetched>) -> Result<Fetch, String> {
        self.log(partition).ok_or_else(|| no_such_partition(partition))?.fetch(from, max, into)
    }

    /// The same as a client is answered: a broker that is stopped gives nothing.
    pub(super) fn answer_fetch(&self, partition: &TopicPartition, from: Offset, max: usize, into: &mut Vec<Fetched>) -> Result<Fetch, String> {
        if self.is_up() {
            self.fetch(partition, from, max, into)
        } else {
            Ok(Fetch { next: from, at_end: false })
        }
    }

    /// Appends a record, of a transaction or of none.
    pub(super) fn append(&mut self, record: OutRecord, producer: Option<ProducerId>) -> Result<Offset, BrokerError> {
        let bytes = record_bytes(&record);
        let OutRecord {
            topic: name,
            partition,
            key,
            value,
            headers,
            timestamp,
        } = record;
        let topic = self.topics.get_mut(&name).ok_or_else(|| BrokerError::NoSuchTopic(name.to_string()))?;
        if bytes > topic.record_bytes_max {
            let text = format!(
                "a record of {bytes} bytes is larger than max.message.bytes={} of topic {name:?}",
                topic.record_bytes_max
            );
            return Err(BrokerError::Refused(text));
        }
        let log = usize::try_from(partition.0).ok().and_then(|at| topic.partitions.get_mut(at));
        let log = log.ok_or_else(|| BrokerError::Refused(no_such_partition(&TopicPartition::new(name, partition))))?;
        self.touched = true;
        Ok(log.append(
            RecordData {
                key,
                value,
                headers,
                timestamp: timestamp.unwrap_or(self.wall),
            },
            producer,
        ))
    }

    /// Ends the group's rebalance if every member has joined.
    pub(super) fn complete_rebalance(&mut self, group: &str) {
        let Self { groups, topics, .. } = self;
        if let Some(group) = groups.get_mut(group) {
            group.complete(|topic| partitions_of(topics, topic));
        }
        self.touched = true;
    }
}

fn partitions_of(topics: &BTreeMap<Arc<str>, Topic>, name: &str) -> i32 {
    topics.get(name).and_then(|topic| i32::try_from(topic.partitions.len()).ok()).unwrap_or(0)
}

/// A record's size as `max.message.bytes` counts it.
pub(super) fn record_bytes(record: &OutRecord) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len))
        .sum();
    RECORD_OVERHEAD_BYTES + record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len) + headers
}

pub(super) fn no_such_partition(partition: &TopicPartition) -> String {
    format!("partition {partition} does not exist")
}
