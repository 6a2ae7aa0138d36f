//! What the embedded broker promises, by theme, on a clock that only the tests move.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leeway_topology::ids::{Offset, Partition};

use super::{MemoryBroker, MemoryClient, RebalanceProtocol};
use crate::broker::{
    Broker, ClientEvent, ClientSettings, CommitOutcome, CommittedOffset, EpochCommit, LogRange, NewTopic, OutRecord, PlainProducer, StreamClient,
    TopicPartition,
};

mod groups;
mod logs;
mod transactions;

const GROUP: &str = "app";
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::ZERO;

struct World {
    broker: MemoryBroker,
    clock_ms: Arc<AtomicU64>,
}

impl World {
    /// A broker with the topics `in` (as many partitions as said) and `out` (1).
    fn new(partitions: u32) -> Self {
        let clock_ms = Arc::new(AtomicU64::new(0));
        let clock = clock_ms.clone();
        let broker =
            MemoryBroker::with_clock(Arc::new(move || Duration::from_millis(clock.load(Ordering::Relaxed)))).with_session_timeout(SESSION_TIMEOUT);
        let world = Self { broker, clock_ms };
        world.create("in", partitions, &[]);
        world.create("out", 1, &[]);
        world
    }

    fn create(&self, name: &str, partitions: u32, config: &[(&str, &str)]) {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.broker
            .create_topic(
                &NewTopic {
                    name: name.into(),
                    partitions,
                    replication_factor: None,
                    config,
                },
                TIMEOUT,
            )
            .unwrap();
    }

    fn pass(&self, time: Duration) {
        self.clock_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    fn settings(&self, name: &str) -> ClientSettings {
        ClientSettings {
            application_id: GROUP.to_owned(),
            transactional_id: format!("{GROUP}-{name}"),
            client_id: name.to_owned(),
            thread: 1,
            transaction_timeout: TRANSACTION_TIMEOUT,
            message_bytes_max: 1 << 20,
            batch_bytes_max: 1 << 20,
        }
    }

    fn client(&self, name: &str) -> MemoryClient {
        self.broker.client(&self.settings(name)).unwrap()
    }

    /// A client with a producer, subscribed to `in`, that has what the group gives it now.
    fn member(&self, name: &str) -> MemoryClient {
        let mut client = self.client(name);
        client.init_producer();
        client.subscribe(&["in".into()]);
        settle(&mut [&mut client]);
        client
    }

    /// A client of another group that reads the only partition of `topic`.
    fn reader(&self, topic: &str) -> MemoryClient {
        let mut settings = self.settings("reader");
        settings.application_id = "readers".to_owned();
        let mut client = self.broker.client(&settings).unwrap();
        client.subscribe(&[topic.into()]);
        settle(&mut [&mut client]);
        client
    }

    fn send(&self, topic: &str, values: &[&str]) {
        let mut producer = self.broker.producer().unwrap();
        for value in values {
            producer.send(record(topic, value)).unwrap();
        }
        producer.flush(TIMEOUT).unwrap();
    }

    /// What a read-committed reader sees of a topic: offsets and values.
    fn visible(&self, topic: &str) -> Vec<(i64, String)> {
        let mut seen = Vec::new();
        let mut visit = |_: &TopicPartition, record: crate::broker::FetchedRecord<'_>| {
            seen.push((record.offset.0, text(record.value)));
            ControlFlow::Continue(())
        };
        self.broker.read_topic(topic, TIMEOUT, &mut visit).unwrap();
        seen
    }

    fn committed(&self, partition: i32) -> Option<CommittedOffset> {
        self.broker
            .group_positions(GROUP, "in", TIMEOUT)
            .unwrap()
            .into_iter()
            .find(|(tp, ..)| tp.partition.0 == partition)
            .unwrap()
            .1
    }

    fn range(&self, topic: &str) -> LogRange {
        self.broker.group_positions(GROUP, topic, TIMEOUT).unwrap()[0].2
    }
}

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}

fn record(topic: &str, value: &str) -> OutRecord {
    OutRecord {
        topic: topic.into(),
        partition: Partition(0),
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp: None,
    }
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

fn at(offset: i64, metadata: &str) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(offset),
        metadata: metadata.to_owned(),
    }
}

/// An epoch that writes `values` to `out` and moves `in-0` to `offset`, with the identity that the client has now.
fn epoch(client: &mut MemoryClient, number: u64, values: &[&str], offset: i64) -> EpochCommit {
    EpochCommit {
        epoch: number,
        records: values.iter().map(|value| record("out", value)).collect(),
        offsets: vec![(tp("in", 0), at(offset, &format!("epoch {number}")))],
        group: client.group_metadata(),
    }
}

fn events(client: &mut MemoryClient) -> Vec<ClientEvent> {
    std::iter::from_fn(|| client.next_event()).collect()
}

/// The outcome of the one commit under way; `None` if there is none yet.
fn outcome(client: &mut MemoryClient) -> Option<CommitOutcome> {
    let outcomes = events(client).into_iter().filter_map(|event| match event {
        ClientEvent::CommitFinished { outcome, .. } => Some(outcome),
        _ => None,
    });
    outcomes.last()
}

fn commit(client: &mut MemoryClient, epoch: EpochCommit) -> CommitOutcome {
    client.commit(epoch);
    outcome(client).expect("a commit without faults is through at once")
}

fn committed(ends: &[(TopicPartition, i64)]) -> CommitOutcome {
    let ends: BTreeMap<_, _> = ends.iter().map(|(partition, end)| (partition.clone(), Offset(*end))).collect();
    CommitOutcome::Committed { ends }
}

/// Lets the clients answer rebalances until the group is quiet. New partitions start at 0.
fn settle(clients: &mut [&mut MemoryClient]) {
    let mut quiet = 0;
    while quiet < 2 {
        quiet += 1;
        for client in &mut *clients {
            while let Some(event) = client.next_event() {
                quiet = 0;
                answer(client, &event);
            }
        }
    }
}

fn answer(client: &mut MemoryClient, event: &ClientEvent) {
    match event {
        ClientEvent::Assigned(partitions) => {
            client.assign(partitions);
            for partition in partitions {
                client.start(partition, Offset(0));
            }
        }
        ClientEvent::Revoked { partitions, .. } => client.unassign(partitions),
        _ => {}
    }
}

/// What a started partition gives now.
fn poll(client: &mut MemoryClient, partition: &TopicPartition) -> Vec<String> {
    let mut seen = Vec::new();
    client.poll(partition, usize::MAX, &mut |record| {
        seen.push(text(record.value));
        ControlFlow::Continue(())
    });
    seen
}

fn rebalances(client: &mut MemoryClient) -> Vec<String> {
    let names = |partitions: &[TopicPartition]| partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let told = events(client).into_iter().filter_map(|event| match event {
        ClientEvent::Assigned(partitions) => Some(format!("assigned [{}]", names(&partitions))),
        ClientEvent::Revoked { partitions, lost } => Some(format!("{} [{}]", if lost { "lost" } else { "revoked" }, names(&partitions))),
        _ => None,
    });
    told.collect()
}
