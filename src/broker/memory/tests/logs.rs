//! Logs: positions, rewinds, restores, what is kept.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use super::*;
use crate::broker::memory::{CommitStep, Fault, Script};
use crate::broker::{BrokerError, Header};

fn restored(client: &mut MemoryClient, max: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let taken = client.poll_restore(max, &mut |partition, record| {
        seen.push(format!("{partition}@{} {}", record.offset, text(record.value)))
    });
    assert_eq!(taken, seen.len());
    seen
}

#[test]
fn nothing_is_fetched_before_start_and_start_rewinds() {
    let world = World::new(1);
    world.send("in", &["a", "b", "c"]);
    let mut client = world.client("a");
    client.subscribe(&["in".into()]);
    assert_eq!(rebalances(&mut client), ["assigned [in-0]"]);
    client.start(&tp("in", 0), Offset(0));
    assert_eq!(poll(&mut client, &tp("in", 0)), [""; 0], "not assigned yet");
    client.assign(&[tp("in", 0)]);
    assert_eq!((poll(&mut client, &tp("in", 0)), client.high_watermark(&tp("in", 0))), (vec![], None));
    client.start(&tp("in", 0), Offset(1));
    assert_eq!(poll(&mut client, &tp("in", 0)), ["b", "c"]);
    assert_eq!(
        (poll(&mut client, &tp("in", 0)), client.high_watermark(&tp("in", 0))),
        (vec![], Some(Offset(3)))
    );
    client.start(&tp("in", 0), Offset(0));
    assert_eq!(poll(&mut client, &tp("in", 0)), ["a", "b", "c"]);
}

#[test]
fn record_for_which_the_visitor_breaks_counts_as_taken() {
    let world = World::new(1);
    world.send("in", &["a", "b", "c"]);
    let mut client = world.member("a");
    let mut seen = Vec::new();
    let taken = client.poll(&tp("in", 0), 10, &mut |record| {
        seen.push(text(record.value));
        if seen.len() == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!((taken, seen), (2, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(poll(&mut client, &tp("in", 0)), ["c"]);
}

#[test]
fn record_comes_back_as_it_was_sent_with_the_time_of_writing_if_it_has_none() {
    let world = World::new(1);
    world.pass(Duration::from_millis(1234));
    let headers: Vec<Header> = vec![("a".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), None)];
    let sent = OutRecord {
        key: Some(b"k".to_vec()),
        value: None,
        headers: headers.clone(),
        ..record("in", "")
    };
    world.broker.producer().unwrap().send(sent).unwrap();
    let mut client = world.member("a");
    let taken = client.poll(&tp("in", 0), 10, &mut |record| {
        assert_eq!(
            (record.key, record.value, record.timestamp.map(|at| at.0)),
            (Some(&b"k"[..]), None, Some(1234))
        );
        assert_eq!(record.headers.to_owned_headers(), headers);
        ControlFlow::Continue(())
    });
    assert_eq!(taken, 1);
}

#[test]
fn restore_ends_at_the_last_stable_offset_after_its_records_were_handed_over() {
    let world = World::new(1);
    let mut writer = world.member("a");
    let first = epoch(&mut writer, 1, &["x", "y"], 1);
    commit(&mut writer, first);
    world
        .broker
        .inject(Script::new([(CommitStep::Commit, Fault::Wait(Duration::from_secs(1)))]));
    let open = epoch(&mut writer, 2, &["open"], 2);
    writer.commit(open);

    let mut client = world.client("b");
    client.fetch_log_range(&tp("out", 0));
    let range = LogRange {
        start: Offset(0),
        high_watermark: Offset(4),
        last_stable: Offset(3),
    };
    assert!(matches!(&events(&mut client)[..], [ClientEvent::LogRange(_, found)] if *found == range));
    client.start_restore(&tp("out", 0), Offset(0));
    assert!(events(&mut client).is_empty());
    assert_eq!(restored(&mut client, 1), ["out-0@0 x"]);
    assert!(events(&mut client).is_empty());
    assert_eq!(restored(&mut client, 10), ["out-0@1 y"]);
    assert!(
        matches!(&events(&mut client)[..], [ClientEvent::RestoreEnd(partition)] if *partition == tp("out", 0)),
        "past the trailing marker"
    );
    assert_eq!(restored(&mut client, 10), [""; 0]);
    assert!(events(&mut client).is_empty(), "the end is told once");

    client.start_restore(&tp("out", 0), Offset(3));
    assert_eq!(restored(&mut client, 10), [""; 0]);
    assert!(
        matches!(events(&mut client)[..], [ClientEvent::RestoreEnd(_)]),
        "from a checkpoint at the end"
    );
    client.start_restore(&tp("out", 0), Offset(0));
    restored(&mut client, 10);
    client.stop_restore(&tp("out", 0));
    assert!(events(&mut client).is_empty(), "the end of a reading that was stopped is not told");
}

#[test]
fn position_outside_the_log_is_an_error_in_words_and_never_a_reset() {
    let world = World::new(1);
    world.send("in", &["a"]);
    let mut client = world.member("a");
    client.start(&tp("in", 0), Offset(2));
    assert_eq!(poll(&mut client, &tp("in", 0)), [""; 0]);
    client.start_restore(&tp("nowhere", 0), Offset(0));
    assert_eq!(restored(&mut client, 10), [""; 0]);
    let reasons: Vec<_> = events(&mut client)
        .into_iter()
        .map(|event| {
            if let ClientEvent::PartitionError { reason, .. } = event {
                reason
            } else {
                String::new()
            }
        })
        .collect();
    assert_eq!(
        reasons,
        ["offset 2 is out of range: the log is from 0 to 1", "partition nowhere-0 does not exist"]
    );
}

#[test]
fn retention_moves_the_start_of_the_log_but_spares_what_is_not_stable() {
    let mut world = World::new(1);
    world.broker = world.broker.with_retention(3);
    world.create("short", 1, &[]);
    world.send("short", &["0", "1", "2", "3", "4"]);
    assert_eq!(
        world.range("short"),
        LogRange {
            start: Offset(2),
            high_watermark: Offset(5),
            last_stable: Offset(5)
        }
    );
    let mut client = world.member("a");
    world
        .broker
        .inject(Script::new([(CommitStep::Commit, Fault::Wait(Duration::from_secs(1)))]));
    let mut open = epoch(&mut client, 1, &[], 1);
    open.records.push(record("short", "open"));
    client.commit(open);
    world.send("short", &["6", "7", "8", "9"]);
    assert_eq!(
        world.range("short"),
        LogRange {
            start: Offset(5),
            high_watermark: Offset(10),
            last_stable: Offset(5)
        }
    );
    assert_eq!(world.visible("short"), []);
}

#[test]
fn compacted_topic_stays_small_and_keeps_the_last_value_of_every_key() {
    let mut world = World::new(1);
    world.broker = world.broker.with_retention(50);
    world.create("compacted", 1, &[("cleanup.policy", "compact")]);
    let mut producer = world.broker.producer().unwrap();
    for n in 0..1000_u32 {
        producer
            .send(OutRecord {
                key: Some(vec![u8::try_from(n % 10).unwrap()]),
                ..record("compacted", &n.to_string())
            })
            .unwrap();
    }
    let visible = world.visible("compacted");
    assert!(visible.len() <= 51, "{} records are left", visible.len());
    let last: BTreeSet<_> = (990..1000).map(|n| (n, n.to_string())).collect();
    assert!(last.is_subset(&visible.into_iter().collect()));
    assert_eq!(
        world.range("compacted"),
        LogRange {
            start: Offset(0),
            high_watermark: Offset(1000),
            last_stable: Offset(1000)
        }
    );
}

#[test]
fn topics_are_found_made_once_and_grow() {
    let world = World::new(2);
    let broker = &world.broker;
    assert_eq!(broker.describe_topic("nowhere", TIMEOUT), Ok(None));
    world.create("in", 7, &[]);
    let found = broker.describe_topic("in", TIMEOUT).unwrap().unwrap();
    assert_eq!(
        (found.partitions, found.config["cleanup.policy"].as_str()),
        (2, "delete"),
        "the first one stands"
    );
    broker.add_partitions("in", 3, TIMEOUT).unwrap();
    assert_eq!(broker.describe_topic("in", TIMEOUT).unwrap().unwrap().partitions, 3);
    assert!(matches!(broker.add_partitions("in", 1, TIMEOUT), Err(BrokerError::Refused(_))));
    assert!(matches!(
        broker.producer().unwrap().send(record("nowhere", "x")),
        Err(BrokerError::NoSuchTopic(_))
    ));
    let bad = NewTopic {
        name: "bad".into(),
        partitions: 0,
        replication_factor: None,
        config: BTreeMap::new(),
    };
    assert!(matches!(broker.create_topic(&bad, TIMEOUT), Err(BrokerError::Refused(_))));
}

#[test]
fn wait_ends_as_soon_as_something_was_appended() {
    let broker = MemoryBroker::new();
    broker
        .create_topic(
            &NewTopic {
                name: "in".into(),
                partitions: 1,
                replication_factor: None,
                config: BTreeMap::new(),
            },
            TIMEOUT,
        )
        .unwrap();
    let world = World {
        broker,
        clock_ms: Arc::default(),
    };
    let mut client = world.member("a");
    client.wait(Duration::ZERO);
    let started = std::time::Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| world.send("in", &["x"]));
        client.wait(Duration::from_secs(60));
    });
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(poll(&mut client, &tp("in", 0)), ["x"]);
}

#[test]
fn tombstone_outlives_compaction_for_the_time_that_its_topic_says() {
    let world = World::new(1);
    world.create("state", 1, &[("cleanup.policy", "compact"), ("delete.retention.ms", "5000")]);
    let mut producer = world.broker.producer().unwrap();
    let mut put = |key: &str, value: Option<&str>| {
        producer
            .send(OutRecord {
                key: Some(key.into()),
                value: value.map(Into::into),
                ..record("state", "")
            })
            .unwrap();
    };
    for (key, value) in [("a", Some("1")), ("b", Some("1")), ("a", None), ("b", Some("2"))] {
        put(key, value);
    }
    let offsets = || world.visible("state").into_iter().map(|(offset, _)| offset).collect::<Vec<_>>();
    world.broker.compact("state").unwrap();
    assert_eq!(offsets(), [2, 3], "the tombstone, and the last value of the other key");
    world.pass(Duration::from_millis(5001));
    world.broker.compact("state").unwrap();
    assert_eq!(offsets(), [3]);
    assert_eq!(world.range("state").start, Offset(0), "compaction leaves the start where it is");
    assert_eq!(world.broker.compact("nowhere"), Err(BrokerError::NoSuchTopic("nowhere".to_owned())));
}
