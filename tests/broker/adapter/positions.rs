//! Where reading begins, goes on and ends: inputs and restores.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leeway::broker::{Broker, ClientEvent, LogRange, NewTopic, OutRecord, PlainProducer, StreamClient, TopicPartition};
use leeway_topology::ids::{Offset, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::producer::Producer as _;

use super::{Member, PATIENCE, Seen, at, broker, fill, foreign_send, foreign_transactions, offsets, out, topic, unique};

#[test]
fn nothing_is_fetched_before_start_and_then_everything_in_order() {
    let broker = broker();
    let input = topic(&broker, 1);
    let partition = at(&input, 0);
    let mut producer = broker.producer().expect("producer");
    let sent = OutRecord {
        key: Some(b"k".to_vec()),
        headers: vec![("trace".to_owned(), Some(vec![1, 2])), ("none".to_owned(), None)],
        timestamp: Some(Timestamp(1_700_000_000_123)),
        ..out(&partition, "first")
    };
    producer.send(sent.clone()).expect("send");
    producer
        .send(OutRecord {
            value: None,
            key: Some(b"gone".to_vec()),
            ..out(&partition, "")
        })
        .expect("send");
    producer.flush(PATIENCE).expect("flush");
    fill(&broker, &partition, 500);

    let mut member = Member::new(&broker, &unique("app"), "1");
    member.join(&input, 1);
    // Records that arrive while the partition stands still must not slip through either.
    fill(&broker, &partition, 10);
    assert_eq!(
        member.range(&partition),
        LogRange {
            start: Offset(0),
            high_watermark: Offset(512),
            last_stable: Offset(512)
        }
    );
    assert_eq!(member.client.poll(&partition, 10, &mut |_| panic!("not started")), 0);

    member.client.start(&partition, Offset(0));
    let mut first = None;
    let deadline = Instant::now() + PATIENCE;
    while first.is_none() {
        member.next();
        member.client.poll(&partition, 10, &mut |record| {
            let headers = record.headers.to_owned_headers();
            first = Some((
                record.offset,
                record.timestamp,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                headers,
            ));
            ControlFlow::Break(())
        });
        assert!(Instant::now() < deadline, "no record");
    }
    assert_eq!(first, Some((Offset(0), sent.timestamp, sent.key, sent.value, sent.headers)));
    let rest = member.take(&partition, 511);
    assert_eq!(rest[0], Seen { offset: 1, value: None }, "a tombstone");
    assert_eq!(offsets(&rest), (1..512).collect::<Vec<_>>());
    assert_eq!(member.client.high_watermark(&partition), Some(Offset(512)));
    member.close(Duration::from_secs(5));
}

#[test]
fn a_rewind_never_shows_a_record_that_was_fetched_before() {
    let broker = broker();
    let input = topic(&broker, 2);
    let partitions = [at(&input, 0), at(&input, 1)];
    for partition in &partitions {
        fill(&broker, partition, 5000);
    }
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.begin = Some(Offset(0));
    member.join(&input, 2);
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let partition = &partitions[random.random_range(0..2)];
        let from = random.random_range(0..4900);
        member.client.start(partition, Offset(from));
        let count: usize = random.random_range(1..100);
        let seen = member.take(partition, count);
        assert_eq!(offsets(&seen), (from..from + count as i64).collect::<Vec<_>>());
        assert_eq!(seen[0].value, Some(from.to_string()));
    }
    member.close(Duration::from_secs(5));
}

#[test]
fn a_restore_sees_what_is_committed_and_ends_behind_trailing_markers() {
    let broker = broker();
    let log = topic(&broker, 3);
    let (mixed, only_aborted, empty) = (at(&log, 0), at(&log, 1), at(&log, 2));
    let producer = foreign_transactions(&unique("foreign"));
    for (number, commit) in [true, false, true, false].into_iter().enumerate() {
        producer.begin_transaction().expect("begin");
        foreign_send(&producer, &mixed, &format!("{number}-a"));
        foreign_send(&producer, &mixed, &format!("{number}-b"));
        if commit {
            producer.commit_transaction(PATIENCE).expect("commit");
        } else {
            foreign_send(&producer, &only_aborted, "x");
            producer.abort_transaction(PATIENCE).expect("abort");
        }
    }
    let mut member = Member::new(&broker, &unique("app"), "1");
    let values = |seen: Vec<Seen>| seen.into_iter().filter_map(|seen| seen.value).collect::<Vec<_>>();
    assert_eq!(values(member.restore(&mixed, 0)), ["0-a", "0-b", "2-a", "2-b"]);
    assert_eq!(values(member.restore(&mixed, 7)), ["2-b"]);
    let end = member.range(&mixed).last_stable.0;
    assert_eq!(end, 12, "four transactions of two records and a marker");
    assert!(values(member.restore(&mixed, end)).is_empty());
    assert!(values(member.restore(&only_aborted, 0)).is_empty());
    assert!(values(member.restore(&empty, 0)).is_empty());

    // An open transaction: the end of the log and the last stable offset part.
    producer.begin_transaction().expect("begin");
    foreign_send(&producer, &mixed, "4-a");
    assert_eq!(
        member.range(&mixed),
        LogRange {
            start: Offset(0),
            high_watermark: Offset(13),
            last_stable: Offset(12)
        }
    );
    assert_eq!(values(member.restore(&mixed, 6)), ["2-a", "2-b"]);
    producer.commit_transaction(PATIENCE).expect("commit");
    let deadline = Instant::now() + PATIENCE;
    while member.range(&mixed).last_stable.0 < 14 {
        assert!(Instant::now() < deadline, "the marker does not come");
    }
    assert_eq!(values(member.restore(&mixed, 12)), ["4-a"]);
    member.close(Duration::from_secs(5));
}

#[test]
fn ranges_that_are_asked_for_together_are_each_answered_and_none_waits_for_one_that_has_no_answer() {
    let broker = broker();
    let log = topic(&broker, 40);
    for partition in 0..40 {
        fill(&broker, &at(&log, partition), usize::try_from(partition).expect("not negative"));
    }
    let mut member = Member::new(&broker, &unique("app"), "1");
    // Its topic is made only when all others have their answer.
    let name: Arc<str> = unique("late").into();
    let late = at(&name, 0);
    member.client.fetch_log_range(&late);
    let mut left: BTreeSet<_> = (0..40).map(|partition| at(&log, partition)).collect();
    for partition in left.iter().chain(&left) {
        member.client.fetch_log_range(partition);
    }
    while !left.is_empty() {
        let (of, range) = member.until("log range", |event| match event {
            ClientEvent::LogRange(of, range) => Some((of.clone(), *range)),
            _ => None,
        });
        let end = Offset(i64::from(of.partition.0));
        assert_eq!(
            range,
            LogRange {
                start: Offset(0),
                high_watermark: end,
                last_stable: end
            },
            "{of}"
        );
        left.remove(&of);
    }
    broker
        .create_topic(
            &NewTopic {
                name: late.topic.clone(),
                partitions: 1,
                replication_factor: None,
                config: BTreeMap::new(),
            },
            PATIENCE,
        )
        .expect("created");
    let range = member.until("the late topic's range", |event| match event {
        ClientEvent::LogRange(of, range) if *of == late => Some(*range),
        _ => None,
    });
    assert_eq!(range.high_watermark, Offset(0));
    member.close(Duration::from_secs(5));
}

#[test]
fn restores_begin_and_end_again_and_again_without_losing_the_end() {
    let broker = broker();
    let log = topic(&broker, 4);
    for partition in 0..4 {
        fill(&broker, &at(&log, partition), 200);
    }
    let mut member = Member::new(&broker, &unique("app"), "1");
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..60 {
        let partition = at(&log, random.random_range(0..4));
        let from = random.random_range(0..=200);
        assert_eq!(
            offsets(&member.restore(&partition, from)),
            (from..200).collect::<Vec<_>>(),
            "{partition} from {from}"
        );
    }
    // All at once, and some of them left half way.
    for partition in 0..4 {
        member.client.start_restore(&at(&log, partition), Offset(0));
    }
    member.client.stop_restore(&at(&log, 3));
    let (mut counts, mut ended) = (BTreeMap::<TopicPartition, usize>::new(), BTreeSet::new());
    let deadline = Instant::now() + PATIENCE;
    while ended.len() < 3 {
        let taken = member.client.poll_restore(50, &mut |of, _| *counts.entry(of.clone()).or_default() += 1);
        match member.next() {
            Some(ClientEvent::RestoreEnd(of)) => {
                assert_eq!(counts[&of], 200, "{of} ended before all was handed out");
                ended.insert(of);
            }
            Some(event) => assert!(
                !matches!(event, ClientEvent::PartitionError { .. } | ClientEvent::Fatal { .. }),
                "{event:?}"
            ),
            None if taken == 0 => member.client.wait(Duration::from_millis(20)),
            None => {}
        }
        assert!(Instant::now() < deadline, "ended: {ended:?}; {:#?}", member.log);
    }
    assert!(!ended.contains(&at(&log, 3)));
    member.close(Duration::from_secs(5));
}

#[test]
fn an_offset_that_is_not_there_is_an_error_with_its_number() {
    let broker = broker();
    let input = topic(&broker, 1);
    let partition = at(&input, 0);
    fill(&broker, &partition, 10);
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.join(&input, 1);
    member.client.start(&partition, Offset(5000));
    let deadline = Instant::now() + PATIENCE;
    let reason = loop {
        member
            .client
            .poll(&partition, 10, &mut |record| panic!("offset {} from nowhere", record.offset));
        if let Some(ClientEvent::PartitionError { partition: of, reason }) = member.next() {
            assert_eq!(of, partition);
            break reason;
        }
        assert!(Instant::now() < deadline, "{:#?}", member.log);
        member.client.wait(Duration::from_millis(20));
    };
    assert!(reason.contains("5000"), "{reason}");
    member.client.start_restore(&partition, Offset(77));
    let deadline = Instant::now() + PATIENCE;
    loop {
        member
            .client
            .poll_restore(10, &mut |_, record| panic!("offset {} from nowhere", record.offset));
        match member.next() {
            Some(ClientEvent::PartitionError { reason, .. }) => {
                assert!(reason.contains("77"), "{reason}");
                break;
            }
            Some(ClientEvent::RestoreEnd(_)) => panic!("an end where nothing is"),
            _ => {}
        }
        assert!(Instant::now() < deadline, "{:#?}", member.log);
    }
    member.close(Duration::from_secs(5));
}
