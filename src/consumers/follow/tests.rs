use std::sync::mpsc::{Receiver, channel};

use leeway_topology::ids::{Offset, Partition};

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{ClientSettings, CommittedOffset, EpochCommit, NewTopic, OutRecord, PlainProducer as _, StreamClient as _, TopicPartition};

const PATIENCE: Duration = Duration::from_secs(20);

fn create(broker: &MemoryBroker, topic: &str, partitions: u32) {
    let topic = NewTopic {
        name: topic.into(),
        partitions,
        replication_factor: None,
        config: std::collections::BTreeMap::new(),
    };
    broker.create_topic(&topic, Duration::ZERO).unwrap();
}

fn event(feature: &str, k: u64) -> Vec<u8> {
    crate::consumers::dashboard::testing::event(feature, 0, k, 0.01).to_json()
}

fn record(partition: i32, value: Vec<u8>) -> OutRecord {
    OutRecord {
        topic: "events".into(),
        partition: Partition(partition),
        key: None,
        value: Some(value),
        headers: Vec::new(),
        timestamp: None,
    }
}

fn send(broker: &MemoryBroker, partition: i32, value: Vec<u8>) {
    broker.producer().unwrap().send(record(partition, value)).unwrap();
}

/// A follower, and what it reads: feature and record number.
fn follow(broker: &MemoryBroker) -> (Follower, Receiver<(String, u64)>) {
    let (sender, receiver) = channel();
    let batch = move |events: &mut Vec<ReadEvent>| {
        for ReadEvent { event, .. } in events.drain(..) {
            let Event::Drift(event) = event else { continue };
            sender.send((event.feature.to_string(), event.record_count.0)).unwrap();
        }
    };
    (Follower::start(broker.clone(), "events".into(), batch).unwrap(), receiver)
}

fn wait_until(follower: &Follower, what: &str, condition: impl Fn(&Progress) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(&follower.progress()) {
        assert!(Instant::now() < deadline, "{what}: {:?}", follower.progress());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn events_are_read_from_the_start_and_then_as_they_come() {
    let broker = MemoryBroker::new();
    create(&broker, "events", 1);
    send(&broker, 0, event("x", 100));
    let (follower, read) = follow(&broker);
    assert_eq!(read.recv_timeout(PATIENCE), Ok(("x".to_owned(), 100)));
    wait_until(&follower, "the end", |progress| progress.is_caught_up);
    send(&broker, 0, event("x", 200));
    assert_eq!(read.recv_timeout(PATIENCE), Ok(("x".to_owned(), 200)));
    assert_eq!((follower.progress().records, follower.progress().skipped), (2, 0));
    wait_until(&follower, "the end again", |progress| {
        progress.positions.get(&Partition(0)) == Some(&(Offset(2), true))
    });
}

#[test]
fn what_is_no_event_is_counted_and_passed_over() {
    let broker = MemoryBroker::new();
    create(&broker, "events", 1);
    for value in [b"{".to_vec(), b"{\"kind\": \"another\"}".to_vec(), event("x", 100)] {
        send(&broker, 0, value);
    }
    let (follower, read) = follow(&broker);
    assert_eq!(read.recv_timeout(PATIENCE), Ok(("x".to_owned(), 100)));
    let progress = follower.progress();
    assert_eq!((progress.records, progress.skipped, progress.malformed), (3, 2, 1));
}

#[test]
fn a_topic_that_is_not_there_is_told_and_waited_for() {
    let broker = MemoryBroker::new();
    let (follower, read) = follow(&broker);
    wait_until(&follower, "the problem", |progress| {
        progress.problem.as_deref() == Some("topic \"events\" does not exist")
    });
    create(&broker, "events", 2);
    send(&broker, 1, event("x", 100));
    assert_eq!(read.recv_timeout(PATIENCE), Ok(("x".to_owned(), 100)));
    assert_eq!(follower.progress().problem, None);
}

#[test]
fn a_broker_that_is_away_is_waited_for() {
    let broker = MemoryBroker::new();
    create(&broker, "events", 1);
    let (_follower, read) = follow(&broker);
    send(&broker, 0, event("x", 100));
    assert_eq!(read.recv_timeout(PATIENCE), Ok(("x".to_owned(), 100)));
    broker.stop_for(Duration::from_millis(300));
    send(&broker, 0, event("x", 200));
    assert_eq!(read.recv_timeout(PATIENCE), Ok(("x".to_owned(), 200)));
}

#[test]
fn an_open_transaction_is_not_read_before_it_is_committed() {
    let broker = MemoryBroker::new();
    create(&broker, "events", 1);
    create(&broker, "in", 1);
    let settings = ClientSettings {
        application_id: "app".to_owned(),
        transactional_id: "app-1".to_owned(),
        client_id: "app-1".to_owned(),
        thread: 1,
        transaction_timeout: PATIENCE,
        message_bytes_max: 1 << 20,
        batch_bytes_max: 1 << 20,
    };
    let mut client = broker.client(&settings).unwrap();
    client.init_producer();
    client.subscribe(&["in".into()]);
    let deadline = Instant::now() + PATIENCE;
    while !client.group_metadata().is_member() {
        while client.next_event().is_some() {}
        assert!(Instant::now() < deadline);
    }
    let (_follower, read) = follow(&broker);
    let at = TopicPartition::new("in", Partition(0));
    let group = client.group_metadata();
    client.assign(std::slice::from_ref(&at));
    client.commit(EpochCommit {
        epoch: 1,
        records: vec![record(0, event("committed", 100))],
        offsets: vec![(
            at,
            CommittedOffset {
                offset: Offset(0),
                metadata: String::new(),
            },
        )],
        group,
    });
    while client.next_event().is_some() {}
    assert_eq!(read.recv_timeout(PATIENCE), Ok(("committed".to_owned(), 100)));
}

#[test]
fn partitions_that_are_added_are_read_and_records_that_are_gone_are_passed_over() {
    let broker = MemoryBroker::new().with_retention(10);
    create(&broker, "events", 1);
    let mut reader = broker.follow_topic("events").unwrap();
    let read = |reader: &mut crate::broker::memory::MemoryReader| {
        let mut offsets = Vec::new();
        reader
            .poll(100, Duration::ZERO, &mut |partition, record| {
                offsets.push((partition.partition.0, record.offset.0));
            })
            .unwrap();
        offsets
    };
    reader.refresh(PATIENCE).unwrap();
    assert!(read(&mut reader).is_empty() && reader.is_caught_up());
    for k in 0..30 {
        send(&broker, 0, event("x", k));
    }
    assert_eq!(read(&mut reader), (20..30).map(|offset| (0, offset)).collect::<Vec<_>>());
    broker.add_partitions("events", 2, PATIENCE).unwrap();
    send(&broker, 1, event("x", 1));
    assert!(read(&mut reader).is_empty(), "not known yet");
    reader.refresh(PATIENCE).unwrap();
    assert!(!reader.is_caught_up());
    assert_eq!(read(&mut reader), [(1, 0)]);
    assert!(reader.is_caught_up());
}
