//! The Kafka adapter keeps the port's promises on a real broker: positions, transactions, rebalances, restores, closing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use leeway::broker::kafka::{KafkaBroker, KafkaClient};
use leeway::broker::{
    Broker, ClientEvent, ClientSettings, CommitOutcome, CommittedOffset, EpochCommit, GroupMetadata, LogRange, NewTopic, OutRecord, PlainProducer,
    StreamClient, TopicPartition,
};
use leeway_topology::ids::{Offset, Partition};
use rdkafka::ClientConfig;
use rdkafka::producer::Producer as _;
use rdkafka::producer::{BaseProducer, BaseRecord};

mod group;
mod positions;
mod topics;
mod transactions;

/// Nothing here takes longer unless it is broken.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A name that no other test uses.
pub(super) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("adapter-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn broker() -> KafkaBroker {
    broker_with(&[])
}

pub(super) fn broker_with(properties: &[(&str, &str)]) -> KafkaBroker {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    KafkaBroker::new(crate::cluster::bootstrap(), &properties).expect("properties")
}

pub(super) fn topic(broker: &KafkaBroker, partitions: u32) -> Arc<str> {
    let name: Arc<str> = unique("topic").into();
    let topic = NewTopic {
        name: name.clone(),
        partitions,
        replication_factor: Some(1),
        config: BTreeMap::new(),
    };
    broker.create_topic(&topic, PATIENCE).expect("create topic");
    name
}

pub(super) fn at(topic: &Arc<str>, partition: i32) -> TopicPartition {
    TopicPartition::new(topic.clone(), Partition(partition))
}

pub(super) fn out(partition: &TopicPartition, value: &str) -> OutRecord {
    let value = Some(value.as_bytes().to_vec());
    OutRecord {
        topic: partition.topic.clone(),
        partition: partition.partition,
        key: None,
        value,
        headers: Vec::new(),
        timestamp: None,
    }
}

/// Sends `count` records whose values are their numbers.
pub(super) fn fill(broker: &KafkaBroker, partition: &TopicPartition, count: usize) {
    let mut producer = broker.producer().expect("producer");
    for number in 0..count {
        producer.send(out(partition, &number.to_string())).expect("send");
    }
    producer.flush(PATIENCE).expect("flush");
}

/// A transactional producer without Leeway: for transactions that are left open or aborted.
pub(super) fn foreign_transactions(id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", crate::cluster::bootstrap())
        .set("transactional.id", id)
        .set("linger.ms", "0")
        .create()
        .expect("producer");
    producer.init_transactions(PATIENCE).expect("init");
    producer
}

pub(super) fn foreign_send(producer: &BaseProducer, partition: &TopicPartition, value: &str) {
    let record = BaseRecord::<(), str>::to(&partition.topic)
        .partition(partition.partition.0)
        .payload(value);
    producer.send(record).map_err(|(error, _)| error).expect("send");
    producer.flush(PATIENCE).expect("flush");
}

/// A record as a test keeps it.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) offset: i64,
    pub(super) value: Option<String>,
}

/// A client and what it answers by itself: rebalances.
pub(super) struct Member {
    pub(super) client: KafkaClient,
    pub(super) owned: BTreeSet<TopicPartition>,
    /// Where each assigned partition is started; `None`: it is not.
    pub(super) begin: Option<Offset>,
    pub(super) log: Vec<String>,
}

impl Member {
    pub(super) fn new(broker: &KafkaBroker, application_id: &str, thread: &str) -> Self {
        Self::with(broker, application_id, thread, Duration::from_secs(10))
    }

    pub(super) fn with(broker: &KafkaBroker, application_id: &str, thread: &str, transaction_timeout: Duration) -> Self {
        let settings = ClientSettings {
            application_id: application_id.to_owned(),
            transactional_id: format!("{application_id}-{thread}"),
            client_id: format!("{application_id}-StreamThread-{thread}"),
            thread: 1,
            transaction_timeout,
            message_bytes_max: 1_000_000,
            batch_bytes_max: 1_000_000,
        };
        Self {
            client: broker.client(&settings).expect("client"),
            owned: BTreeSet::new(),
            begin: None,
            log: Vec::new(),
        }
    }

    /// Gives the next event, after it has answered a rebalance.
    pub(super) fn next(&mut self) -> Option<ClientEvent> {
        let event = self.client.next_event()?;
        self.log.push(format!("{event:?}"));
        match &event {
            ClientEvent::Assigned(partitions) => {
                self.client.assign(partitions);
                self.owned.extend(partitions.iter().cloned());
                if let Some(begin) = self.begin {
                    partitions.iter().for_each(|partition| self.client.start(partition, begin));
                }
            }
            ClientEvent::Revoked { partitions, .. } => {
                self.client.unassign(partitions);
                partitions
                    .iter()
                    .for_each(|partition| assert!(self.owned.remove(partition), "{partition} was not owned"));
            }
            _ => {}
        }
        Some(event)
    }

    pub(super) fn until<T>(&mut self, what: &str, mut found: impl FnMut(&ClientEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next() {
                Some(event) => {
                    if let Some(found) = found(&event) {
                        return found;
                    }
                }
                None => self.client.wait(Duration::from_millis(20)),
            }
            assert!(Instant::now() < deadline, "no {what}; events: {:#?}", self.log);
        }
    }

    pub(super) fn ready(&mut self) {
        self.client.init_producer();
        self.until("producer", |event| matches!(event, ClientEvent::ProducerReady).then_some(()));
    }

    pub(super) fn join(&mut self, topic: &Arc<str>, partitions: usize) {
        self.client.subscribe(std::slice::from_ref(topic));
        let deadline = Instant::now() + PATIENCE;
        while self.owned.len() < partitions {
            if self.next().is_none() {
                self.client.wait(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "not joined; events: {:#?}", self.log);
        }
    }

    pub(super) fn committed(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Option<CommittedOffset>)> {
        self.client.fetch_committed(partitions);
        self.until("committed offsets", |event| match event {
            ClientEvent::CommittedOffsets(offsets) => Some(offsets.clone()),
            _ => None,
        })
    }

    pub(super) fn range(&mut self, partition: &TopicPartition) -> LogRange {
        self.client.fetch_log_range(partition);
        self.until("log range", |event| match event {
            ClientEvent::LogRange(of, range) if of == partition => Some(*range),
            _ => None,
        })
    }

    /// Polls until `count` records came.
    pub(super) fn take(&mut self, partition: &TopicPartition, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while seen.len() < count {
            let event = self.next();
            assert!(
                !matches!(event, Some(ClientEvent::PartitionError { .. } | ClientEvent::Fatal { .. })),
                "{event:?}"
            );
            let taken = self.client.poll(partition, count - seen.len(), &mut |record| {
                let value = record.value.map(|value| String::from_utf8_lossy(value).into_owned());
                seen.push(Seen {
                    offset: record.offset.0,
                    value,
                });
                ControlFlow::Continue(())
            });
            if taken == 0 {
                self.client.wait(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "{} of {count} records; events: {:#?}", seen.len(), self.log);
        }
        seen
    }

    pub(super) fn commit(
        &mut self,
        epoch: u64,
        records: Vec<OutRecord>,
        offsets: &[(&TopicPartition, i64, &str)],
        group: GroupMetadata,
    ) -> CommitOutcome {
        let offsets = offsets
            .iter()
            .map(|(partition, offset, metadata)| {
                (
                    (*partition).clone(),
                    CommittedOffset {
                        offset: Offset(*offset),
                        metadata: (*metadata).to_owned(),
                    },
                )
            })
            .collect();
        self.client.commit(EpochCommit {
            epoch,
            records,
            offsets,
            group,
        });
        self.until("outcome", |event| match event {
            ClientEvent::CommitFinished { epoch: of, outcome } if *of == epoch => Some(outcome.clone()),
            _ => None,
        })
    }

    pub(super) fn restore(&mut self, partition: &TopicPartition, from: i64) -> Vec<Seen> {
        self.client.start_restore(partition, Offset(from));
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.client.poll_restore(1000, &mut |of, record| {
                assert_eq!(of, partition);
                let value = record.value.map(|value| String::from_utf8_lossy(value).into_owned());
                seen.push(Seen {
                    offset: record.offset.0,
                    value,
                });
            });
            match self.next() {
                Some(ClientEvent::RestoreEnd(of)) if of == *partition => break,
                Some(event) => assert!(
                    !matches!(event, ClientEvent::PartitionError { .. } | ClientEvent::Fatal { .. }),
                    "{event:?}"
                ),
                None if taken == 0 => self.client.wait(Duration::from_millis(20)),
                None => {}
            }
            assert!(
                Instant::now() < deadline,
                "the restore of {partition} does not end; events: {:#?}",
                self.log
            );
        }
        self.client.stop_restore(partition);
        seen
    }

    /// Closes; the dropping included.
    pub(super) fn close(mut self, timeout: Duration) {
        self.client.close(timeout);
    }
}

pub(super) fn offsets(seen: &[Seen]) -> Vec<i64> {
    seen.iter().map(|seen| seen.offset).collect()
}
