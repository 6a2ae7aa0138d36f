//! The auditor on topics that are right, and on forged ones.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use leeway::audit::{Audit, AuditError, Kind, Of, Report};
use leeway::broker::memory::MemoryBroker;
use leeway::broker::{Broker, NewTopic, OutRecord, PlainProducer, TopicPartition};
use leeway::task::Start;
use leeway_topology::event::{DriftEvent, Event, EventError};
use leeway_topology::ids::Partition;

use crate::world::{APPLICATION, World};

/// Records of each of two partitions.
const RECORDS: u64 = 300;

/// Checks of one partition, each with an event of the feature and one of the summary.
const CHECKS: usize = 30;

/// A topic that the stream processor has worked on to its end.
fn worked() -> World {
    let world = World::new(2);
    let mut one = world.start("one");
    world.produce(0, RECORDS);
    world.produce(1, RECORDS);
    world.drain(&mut [&mut one]);
    world.stop(one);
    world
}

fn audit_with(world: &World, broker: &MemoryBroker, start: Start) -> Result<Report, AuditError> {
    let audit = Audit {
        broker,
        application_id: APPLICATION,
        monitors: std::slice::from_ref(&world.monitor),
        references: &world.references,
        start,
        differences_max: 10,
        progress: &|_| {},
    };
    audit.run()
}

fn audit(world: &World, broker: &MemoryBroker) -> Report {
    audit_with(world, broker, Start::Earliest).expect("judged")
}

fn records(broker: &MemoryBroker, topic: &str) -> Vec<OutRecord> {
    let mut records = Vec::new();
    let read = broker.read_topic(topic, Duration::ZERO, &mut |at, record| {
        records.push(OutRecord {
            topic: at.topic.clone(),
            partition: at.partition,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.to_owned_headers(),
            timestamp: record.timestamp,
        });
        ControlFlow::Continue(())
    });
    read.expect("records");
    records
}

/// The same topics on another broker, with other events.
fn forged(world: &World, forge: impl FnOnce(&mut Vec<OutRecord>)) -> MemoryBroker {
    let mut forge = Some(forge);
    forged_topics(world, &["in", "drift-events"], |topic, records| {
        if let Some(forge) = forge.take_if(|_| topic == "drift-events") {
            forge(records);
        }
    })
}

/// The same topics on another broker, with what `forge` makes of each one's records.
pub(crate) fn forged_topics(world: &World, topics: &[&str], mut forge: impl FnMut(&str, &mut Vec<OutRecord>)) -> MemoryBroker {
    let broker = MemoryBroker::new();
    let mut producer = broker.producer().expect("a producer");
    for topic in topics {
        let described = world.broker.describe_topic(topic, Duration::ZERO).expect("an answer").expect("a topic");
        let new = NewTopic {
            name: (*topic).into(),
            partitions: described.partitions,
            replication_factor: None,
            config: BTreeMap::new(),
        };
        broker.create_topic(&new, Duration::ZERO).expect("created");
        let mut records = records(&world.broker, topic);
        forge(topic, &mut records);
        for record in records {
            producer.send(record).expect("sent");
        }
        for (partition, committed, _) in world.broker.group_positions(APPLICATION, topic, Duration::ZERO).expect("positions") {
            if let Some(committed) = committed {
                broker.set_offset(APPLICATION, &partition, committed);
            }
        }
    }
    broker
}

/// The place of the first event that is as asked for.
pub(crate) fn place_of(events: &[OutRecord], is_it: impl Fn(&DriftEvent) -> bool) -> usize {
    let event = |record: &OutRecord| DriftEvent::from_json(record.value.as_deref().expect("a value")).expect("an event");
    events.iter().position(|record| is_it(&event(record))).expect("an event")
}

/// The place of the `number`th event of partition 0's feature among all events.
fn place(events: &[OutRecord], number: usize) -> usize {
    let is_it = |record: &OutRecord| {
        let event: serde_json::Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        event["feature"] == "x" && event["partition"] == 0
    };
    events
        .iter()
        .enumerate()
        .filter(|(_, record)| is_it(record))
        .nth(number)
        .expect("an event")
        .0
}

/// The only difference of forged events, which is of partition 0's feature at `number`; and the same in words.
fn difference(forge: impl FnOnce(&mut Vec<OutRecord>), number: u64) -> (Kind, String) {
    let world = worked();
    let report = audit(&world, &forged(&world, forge));
    assert_eq!((report.wrong, report.differences.len()), (1, 1), "{report:?}");
    let difference = &report.differences[0];
    assert_eq!(
        (&*difference.sequence.feature, difference.sequence.of, difference.number),
        ("x", Of::Partition(Partition(0)), number),
        "{difference}"
    );
    (difference.kind.clone(), difference.to_string())
}

#[test]
fn right_topics_have_no_difference_and_every_event_is_counted() {
    let world = worked();
    for broker in [world.broker.clone(), forged(&world, |_| {})] {
        let report = audit(&world, &broker);
        assert_eq!((report.wrong, report.differences.len()), (0, 0), "{report:?}");
        assert_eq!((report.records, report.later, report.foreign), (2 * RECORDS, 0, 0));
        assert_eq!((report.expected, report.found), (4 * CHECKS as u64, 4 * CHECKS as u64));
    }
}

#[test]
fn missing_event_is_found() {
    let (kind, text) = difference(
        |events| {
            events.remove(place(events, 7));
        },
        7,
    );
    assert_eq!(kind, Kind::Missing);
    assert!(
        text.starts_with("monitor \"default\", partition 0, feature \"x\", event number 7: missing; it should be app/default/in/0/partition//x/79/"),
        "{text}"
    );
}

#[test]
fn missing_last_event_is_found() {
    let last = CHECKS - 1;
    let (kind, _) = difference(
        |events| {
            events.remove(place(events, last));
        },
        last as u64,
    );
    assert_eq!(kind, Kind::Missing);
}

#[test]
fn doubled_event_is_found() {
    let (kind, text) = difference(
        |events| {
            let at = place(events, 7);
            events.insert(at, events[at].clone());
        },
        8,
    );
    assert_eq!(kind, Kind::Doubled);
    assert!(text.contains("doubled") && text.contains("found in drift-events-"), "{text}");
}

#[test]
fn reordered_events_are_found() {
    let (kind, _) = difference(
        |events| {
            let (first, second) = (place(events, 7), place(events, 8));
            events.swap(first, second);
        },
        7,
    );
    assert_eq!(kind, Kind::Reordered);
}

#[test]
fn tampered_event_is_found_with_both_values() {
    let (kind, text) = difference(
        |events| {
            let at = place(events, 7);
            let value = String::from_utf8(events[at].value.clone().expect("a value")).expect("text");
            events[at].value = Some(
                value
                    .replace("\"status\":\"drift\"", "\"status\":\"no_drift\"")
                    .replace("\"window_count\":80", "\"window_count\":81")
                    .into(),
            );
        },
        7,
    );
    assert!(
        matches!(&kind, Kind::Changed(fields) if fields.iter().any(|(name, expected, found)| name == "window_count" && expected == 80 && found == 81)),
        "{kind:?}"
    );
    assert!(text.contains("window_count is 81, it should be 80"), "{text}");
}

#[test]
fn same_values_in_other_bytes_are_found() {
    let (kind, text) = difference(
        |events| {
            let at = place(events, 7);
            let mut value = events[at].value.clone().expect("a value");
            value.push(b' ');
            events[at].value = Some(value);
        },
        7,
    );
    assert_eq!(kind, Kind::Changed(Vec::new()));
    assert!(text.contains("bytes"), "{text}");
}

#[test]
fn event_that_nothing_implies_is_found() {
    let (kind, _) = difference(
        |events| {
            let at = place(events, 7);
            let mut invented = events[at].clone();
            let value = String::from_utf8(invented.value.clone().expect("a value")).expect("text");
            invented.value = Some(
                value
                    .replace("/x/79/", "/x/78/")
                    .replace("\"window_end_offset\":79", "\"window_end_offset\":78")
                    .into(),
            );
            events.insert(at, invented);
        },
        7,
    );
    assert_eq!(kind, Kind::Unexpected);
}

#[test]
fn event_in_another_partition_or_under_another_key_is_found() {
    let (kind, _) = difference(
        |events| {
            let at = place(events, 7);
            events[at].key = Some(b"y".to_vec());
        },
        7,
    );
    assert_eq!(kind, Kind::Misplaced);
}

#[test]
fn what_a_worker_does_meanwhile_is_not_looked_at() {
    let world = worked();
    let broker = forged(&world, |_| {});
    // Offsets from before the last two checks of partition 0.
    let partition = TopicPartition::new("in", Partition(0));
    let mut there = world.broker.group_positions(APPLICATION, "in", Duration::ZERO).expect("positions")[0]
        .1
        .clone()
        .expect("committed");
    there.offset.0 -= 15;
    broker.set_offset(APPLICATION, &partition, there);
    let report = audit(&world, &broker);
    assert_eq!((report.wrong, report.later, report.records), (0, 4, 2 * RECORDS - 15), "{report:?}");
}

#[test]
fn events_of_others_in_the_same_topic_are_not_looked_at() {
    let world = worked();
    let broker = forged(&world, |events| {
        let mut other = events[0].clone();
        let value = String::from_utf8(other.value.clone().expect("a value")).expect("text");
        other.value = Some(value.replace("\"app/", "\"another/").into());
        events.push(other.clone());
        other.value = Some(b"no event".to_vec());
        events.push(other);
    });
    let report = audit(&world, &broker);
    assert_eq!((report.wrong, report.foreign), (0, 2), "{report:?}");
}

#[test]
fn input_without_its_first_records_cannot_be_judged() {
    let world = World::on(1, |broker| broker.with_retention(50));
    let mut one = world.start("one");
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    let error = audit_with(&world, &world.broker, Start::Earliest).expect_err("not judged").to_string();
    assert!(
        error.starts_with("in-0 begins at offset 50: the records before it were deleted"),
        "{error}"
    );
}

#[test]
fn application_that_began_at_the_end_cannot_be_judged() {
    let world = worked();
    let error = audit_with(&world, &world.broker, Start::Latest).expect_err("not judged").to_string();
    assert!(error.contains("cannot be audited"), "{error}");
}

/// As [`worked`], with limits of quality: a tenth of the values lies beside the range of no reference value, and a value is missing now and then.
fn worked_with_quality() -> World {
    let mut world = World::new(2);
    let mut monitor = (*world.monitor).clone();
    monitor.quality.limits.missing = Some(0.05);
    monitor.quality.limits.out_of_range = Some(0.05);
    world.monitor = Arc::new(monitor);
    let mut producer = world.broker.producer().expect("a producer");
    let mut one = world.start("one");
    for number in 0..RECORDS {
        let value = match number % 20 {
            3 => "{}".to_owned(),
            4 | 5 => r#"{"x": -1}"#.to_owned(),
            _ => format!(r#"{{"x": {}}}"#, number * 7919 % 1000),
        };
        let record = OutRecord {
            topic: "in".into(),
            partition: Partition((number % 2) as i32),
            key: None,
            value: Some(value.into_bytes()),
            headers: Vec::new(),
            timestamp: None,
        };
        producer.send(record).expect("sent");
    }
    world.drain(&mut [&mut one]);
    // As SIGKILL: the other one begins with what was committed.
    drop(one);
    let mut two = world.start("two");
    world.produce(0, RECORDS);
    world.drain(&mut [&mut two]);
    world.stop(two);
    world
}

/// The place of the `number`th quality event.
fn place_of_quality(events: &[OutRecord], number: usize) -> usize {
    let value = |record: &OutRecord| record.value.clone().expect("a value");
    let is_it = |(_, record): &(usize, &OutRecord)| matches!(Event::from_json(&value(record)), Ok(Event::Quality(_)));
    events.iter().enumerate().filter(is_it).nth(number).expect("a quality event").0
}

#[test]
fn quality_events_are_proven_beside_those_of_drift() {
    let world = worked_with_quality();
    let report = audit(&world, &world.broker);
    // Of each of the 15, 15 and 30 checks the feature, the summary, and the quality of the feature.
    assert_eq!((report.wrong, report.foreign, report.found), (0, 0, 3 * 60), "{report:?}");
    assert_eq!(world.events().len(), 3 * 60, "ids are all different");

    let missing = forged(&world, |events| drop(events.remove(place_of_quality(events, 7))));
    let report = audit(&world, &missing);
    let [difference] = &report.differences[..] else { panic!("{report:?}") };
    assert_eq!((difference.sequence.kind, &difference.kind), ("quality", &Kind::Missing), "{difference}");
    assert!(difference.to_string().contains("feature \"x\", quality event number "), "{difference}");
    assert!(
        difference.expected.as_deref().is_some_and(|id| id.contains("/quality:x/")),
        "{difference}"
    );

    let changed = forged(&world, |events| {
        let at = place_of_quality(events, 3);
        let text = String::from_utf8(events[at].value.clone().expect("a value")).expect("UTF-8");
        events[at].value = Some(text.replace("\"window_count\":", "\"window_count\":1").into_bytes());
    });
    let report = audit(&world, &changed);
    let [difference] = &report.differences[..] else { panic!("{report:?}") };
    assert!(
        matches!(&difference.kind, Kind::Changed(fields) if fields.len() == 1 && fields[0].0 == "window_count"),
        "{difference}"
    );
}

#[test]
fn readers_of_drift_events_pass_those_of_quality_over() {
    let world = worked_with_quality();
    let (mut drift, mut others) = (0, 0);
    for record in records(&world.broker, "drift-events") {
        match DriftEvent::from_json(record.value.as_deref().expect("a value")) {
            Ok(_) => drift += 1,
            Err(EventError::UnknownKind { kind }) if kind == "quality" => others += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((drift, others), (2 * 60, 60));
}
