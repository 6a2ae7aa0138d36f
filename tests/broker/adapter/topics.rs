//! What start-up and the tools ask of the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use leeway::broker::{Broker, BrokerError, NewTopic, OutRecord, PlainProducer, TopicReader};
use leeway_topology::ids::Offset;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::Producer as _;

use super::{PATIENCE, at, broker, foreign_transactions, out, topic, unique};

#[test]
fn topics_are_made_described_extended_and_read() {
    let broker = broker();
    let name: Arc<str> = unique("made").into();
    assert_eq!(broker.describe_topic(&name, PATIENCE), Ok(None));
    assert_eq!(
        broker.read_topic(&name, PATIENCE, &mut |_, _| ControlFlow::Continue(())),
        Err(BrokerError::NoSuchTopic(name.to_string()))
    );
    let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    let new = NewTopic {
        name: name.clone(),
        partitions: 2,
        replication_factor: None,
        config,
    };
    broker.create_topic(&new, PATIENCE).expect("create");
    broker.create_topic(&new, PATIENCE).expect("it is there already");
    let description = broker.describe_topic(&name, PATIENCE).expect("describe").expect("there");
    assert_eq!((description.partitions, description.replication_factor), (2, 1));
    assert_eq!(description.config["cleanup.policy"], "compact");
    assert!(description.config.contains_key("max.message.bytes"));
    broker.add_partitions(&name, 3, PATIENCE).expect("extend");
    let deadline = Instant::now() + PATIENCE;
    while broker.describe_topic(&name, PATIENCE).expect("describe").expect("there").partitions != 3 {
        assert!(Instant::now() < deadline);
    }
    let wrong = NewTopic {
        name: unique("wrong").into(),
        partitions: 1,
        replication_factor: None,
        config: BTreeMap::from([("no.such".into(), "1".into())]),
    };
    assert!(matches!(broker.create_topic(&wrong, PATIENCE), Err(BrokerError::Refused(_))));

    // Read-committed, to the end, whatever stands at the end.
    let mut producer = broker.producer().expect("producer");
    for partition in 0..3 {
        producer
            .send(OutRecord {
                key: Some(vec![1]),
                ..out(&at(&name, partition), "plain")
            })
            .expect("send");
    }
    producer.flush(PATIENCE).expect("flush");
    let foreign = foreign_transactions(&unique("foreign"));
    foreign.begin_transaction().expect("begin");
    let record = BaseRecord::<str, str>::to(&name).partition(1).key("k").payload("aborted");
    foreign.send(record).map_err(|(error, _)| error).expect("send");
    foreign.flush(PATIENCE).expect("flush");
    foreign.abort_transaction(PATIENCE).expect("abort");
    let mut seen = BTreeSet::new();
    broker
        .read_topic(&name, PATIENCE, &mut |partition, record| {
            seen.insert((
                partition.clone(),
                record.offset.0,
                String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned(),
            ));
            ControlFlow::Continue(())
        })
        .expect("read");
    assert_eq!(seen, (0..3).map(|partition| (at(&name, partition), 0, "plain".to_owned())).collect());
    let positions = broker.group_positions(&unique("nobody"), &name, PATIENCE).expect("positions");
    assert_eq!(positions.len(), 3);
    assert!(
        positions
            .iter()
            .all(|(_, committed, range)| committed.is_none() && range.start == Offset(0) && range.last_stable.0 >= 1)
    );
}

#[test]
fn the_plain_producer_refuses_what_can_never_be_sent() {
    let broker = broker();
    let output = topic(&broker, 1);
    let mut producer = broker.producer().expect("producer");
    let large = OutRecord {
        value: Some(vec![0; 3_000_000]),
        ..out(&at(&output, 0), "")
    };
    assert!(matches!(producer.send(large), Err(BrokerError::Refused(_))));
    producer.send(out(&at(&output, 0), "fine")).expect("send");
    producer.flush(PATIENCE).expect("flush");
}

/// Reads until there are so many records: partition, and value.
fn follow(reader: &mut impl TopicReader, count: usize) -> Vec<(i32, String)> {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while seen.len() < count {
        let mut visit = |at: &leeway::broker::TopicPartition, record: leeway::broker::FetchedRecord<'_>| {
            seen.push((at.partition.0, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned()));
        };
        reader.poll(100, std::time::Duration::from_millis(100), &mut visit).expect("a poll");
        assert!(Instant::now() < deadline, "{seen:?}");
    }
    seen.sort();
    seen
}

#[test]
fn a_reader_sees_what_is_committed_goes_on_and_finds_new_partitions() {
    let broker = broker();
    let mut gone = broker.follow_topic(&unique("nowhere")).expect("a reader");
    assert!(matches!(gone.refresh(PATIENCE), Err(BrokerError::NoSuchTopic(_))));
    let name = topic(&broker, 1);
    let send = |partition: i32, value: &str| {
        let mut producer = broker.producer().expect("producer");
        producer.send(out(&at(&name, partition), value)).expect("send");
        producer.flush(PATIENCE).expect("flush");
    };
    send(0, "first");
    // An aborted record is never seen, and its marker ends the log.
    let transactions = foreign_transactions(&unique("aborted"));
    transactions.begin_transaction().expect("begin");
    transactions
        .send(BaseRecord::<(), str>::to(&name).partition(0).payload("aborted"))
        .expect("send");
    transactions.flush(PATIENCE).expect("flush");
    transactions.abort_transaction(PATIENCE).expect("abort");
    let mut reader = broker.follow_topic(&name).expect("a reader");
    reader.refresh(PATIENCE).expect("refresh");
    assert_eq!(follow(&mut reader, 1), [(0, "first".to_owned())]);
    let deadline = Instant::now() + PATIENCE;
    while !reader.is_caught_up() {
        assert_eq!(reader.poll(100, std::time::Duration::from_millis(100), &mut |_, _| {}), Ok(0));
        assert!(Instant::now() < deadline, "the end behind a marker");
    }
    send(0, "second");
    assert_eq!(follow(&mut reader, 1), [(0, "second".to_owned())]);
    broker.add_partitions(&name, 2, PATIENCE).expect("extend");
    let deadline = Instant::now() + PATIENCE;
    while broker.describe_topic(&name, PATIENCE).expect("describe").expect("there").partitions != 2 {
        assert!(Instant::now() < deadline);
    }
    send(1, "third");
    // The leader of a partition that was just made is not known at once.
    while let Err(error) = reader.refresh(PATIENCE) {
        assert!(matches!(error, BrokerError::Unavailable(_)) && Instant::now() < deadline, "{error}");
    }
    assert_eq!(follow(&mut reader, 1), [(1, "third".to_owned())]);
}

#[test]
fn a_reader_passes_over_a_topic_that_was_made_anew() {
    let broker = broker();
    let name = topic(&broker, 1);
    super::fill(&broker, &at(&name, 0), 50);
    let mut reader = broker.follow_topic(&name).expect("a reader");
    reader.refresh(PATIENCE).expect("refresh");
    assert_eq!(follow(&mut reader, 50).len(), 50);
    assert_eq!(broker.delete_topic(&name, PATIENCE), Ok(true));
    let again = NewTopic {
        name: name.clone(),
        partitions: 1,
        replication_factor: Some(1),
        config: BTreeMap::new(),
    };
    let deadline = Instant::now() + PATIENCE;
    // Deletion takes its time.
    while broker.describe_topic(&name, PATIENCE).expect("describe").is_some() {
        assert!(Instant::now() < deadline);
    }
    broker.create_topic(&again, PATIENCE).expect("create");
    super::fill(&broker, &at(&name, 0), 3);
    let mut seen = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < 3 {
        let visit = &mut |_: &leeway::broker::TopicPartition, record: leeway::broker::FetchedRecord<'_>| seen.push(record.offset.0);
        // What it complains of meanwhile passes.
        drop(reader.poll(100, std::time::Duration::from_millis(100), visit));
        assert!(Instant::now() < deadline, "{seen:?}");
    }
    assert_eq!(seen, [0, 1, 2]);
}
