//! The main promise, on a real Kafka and with real processes: what stands in the topics afterwards is what the oracle computes, whatever died.

use std::time::Instant;

use leeway_topology::state::KeyKind;
use serde_json::Value;

use crate::cluster::bootstrap;
use crate::kafka::{Handmade, OwnedRecord, create_topic, positions, produce, read_committed, unique, wait_until_consumed};
use crate::leeway::{Worker, output};
use crate::run::{PARTITIONS, PATIENCE, Run, wait_for};

fn scale() -> usize {
    std::env::var("LEEWAY_TEST_RECORDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(600_000)
}

#[test]
fn every_event_that_the_input_implies_is_there_once() {
    let run = Run::new("once");
    let file = run.rows("rows.jsonl", scale(), 7);
    // Beside the file's bad lines: a timestamp of the far future, one without, one too large for the dead letter topic, and a tombstone.
    create_topic(bootstrap(), &run.dead_letters, 2, &[("max.message.bytes", "20000")]);
    let large = vec![b'x'; 200_000];
    let handmade = |value, timestamp| Handmade {
        partition: 3,
        key: Some(b"k"),
        value,
        timestamp,
    };
    produce(
        bootstrap(),
        &run.topic,
        &[
            handmade(Some(b"future"), 4_102_444_800_000),
            handmade(Some(b"stampless"), -1),
            handmade(Some(&large), 0),
            handmade(None, 0),
        ],
    );
    let mut worker = run.worker(&run.path("state"));
    run.produce(&file, None);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut worker]);
    worker.stop();
    let verified = run.verify();
    eprintln!("{verified:?}");
    assert_eq!(verified.records, scale() + 3);
    assert_eq!(verified.dead_letters, scale() / 100 + 3);

    let right = output(&mut run.audit());
    let report: Value = serde_json::from_slice(&right.stdout).expect("JSON");
    assert_eq!(right.status.code(), Some(0), "{report}");
    assert_eq!(
        (&report["right"], &report["found_events"]),
        (&Value::Bool(true), &Value::from(verified.events)),
        "{report}"
    );
    // The last event of some feature once more.
    let events = read_committed(bootstrap(), &run.events);
    let last = events.last().expect("events");
    let doubled = Handmade {
        partition: last.partition,
        key: last.key.as_deref(),
        value: last.value.as_deref(),
        timestamp: 0,
    };
    produce(bootstrap(), &run.events, &[doubled]);
    let wrong = output(&mut run.audit());
    let report: Value = serde_json::from_slice(&wrong.stdout).expect("JSON");
    assert_eq!(wrong.status.code(), Some(3), "{report}");
    assert_eq!(
        (&report["wrong_sequences"], &report["differences"][0]["kind"]),
        (&Value::from(1), &Value::from("doubled")),
        "{report}"
    );
}

#[test]
fn nothing_is_lost_or_doubled_when_instances_come_go_and_die() {
    let run = Run::new("churn");
    let rows = scale();
    let file = run.rows("rows.jsonl", rows, 8);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| run.produce(&file, Some((rows / 60).max(1) as u32)));
        let first = run.worker(&run.path("one"));
        let mut waited = run.worker(&run.path("two"));
        waited.wait_for("restored store", 1, PATIENCE);
        let second = waited;
        let mut third = run.worker(&run.path("three"));
        third.wait_for("restored store", 1, PATIENCE);
        first.stop();
        // Lags are published once a second.
        wait_for(|| !second.partitions().is_empty(), "partitions of the second");
        let orphans = second.partitions();
        second.kill();
        let killed = Instant::now();
        let of_orphans = || {
            let partition = |record: &OwnedRecord| {
                let event: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
                event["partition"].as_i64().expect("a partition")
            };
            let events = read_committed(bootstrap(), &run.events);
            events.iter().filter(|record| orphans.contains(&partition(record))).count()
        };
        let events = of_orphans();
        let mut second = run.worker(&run.path("two"));
        wait_for(|| of_orphans() > events, "an event of the killed worker's partitions");
        eprintln!(
            "seconds from kill to the next committed event of the killed worker's {} partitions, session time-out 6 s: {:.1}",
            orphans.len(),
            killed.elapsed().as_secs_f64()
        );
        second.wait_for("restored store", 1, PATIENCE);
        third.kill();
        let mut empty = run.worker(&run.path("empty"));
        sending.join().expect("sent");
        wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut second, &mut empty]);
        for (name, worker) in [("old directory", &second), ("empty directory", &empty)] {
            eprintln!("changelog records replayed, {name}: {:?}", worker.replayed());
        }
        second.stop();
        empty.stop();
    });
    let verified = run.verify();
    eprintln!("{verified:?}");
    assert_eq!(verified.records, rows);
    assert!(
        positions(bootstrap(), &run.application, &run.topic)
            .values()
            .all(|(committed, end)| *committed == Some(*end))
    );
}

#[test]
fn old_directory_replays_only_what_came_after_its_last_commit() {
    let run = Run::new("replay");
    let file = run.rows("rows.jsonl", 60_000, 10);
    let mut worker = run.worker(&run.path("state"));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| run.produce(&file, Some(10_000)));
        // In the middle: every partition has committed some, and more is to come.
        let far = |(committed, _): &(Option<i64>, i64)| committed.is_some_and(|offset| offset > 2000);
        wait_for(|| positions(bootstrap(), &run.application, &run.topic).values().all(far), "commits");
        worker.expect_running();
        worker.kill();
        sending.join().expect("sent");
    });
    let changelog = read_committed(bootstrap(), &format!("{}-windows-{}-changelog", run.application, run.topic));
    // An epoch ends with its progress record. The last one may be committed in Kafka and not in the store.
    let last_epoch = |partition: i32| {
        let is_progress = |record: &OwnedRecord| record.key.as_deref().and_then(<[u8]>::first) == Some(&(KeyKind::Progress as u8));
        let records: Vec<_> = changelog.iter().filter(|record| record.partition == partition).collect();
        let (_, before) = records.split_last().expect("an epoch");
        1 + before.iter().rev().take_while(|record| !is_progress(record)).count() as u64
    };
    let mut old = run.worker(&run.path("state"));
    // On a slow machine the first worker may have consumed everything, so the end says nothing about the restore.
    old.wait_for("restored store", PARTITIONS as usize, PATIENCE);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut old]);
    let replayed = old.replayed();
    assert_eq!(replayed.len(), PARTITIONS as usize, "{replayed:?}");
    for (task, records) in &replayed {
        let partition = task.rsplit('_').next().and_then(|number| number.parse().ok()).expect("a partition");
        assert!(
            *records == 0 || *records == last_epoch(partition),
            "{task} replayed {records} of a last epoch of {}",
            last_epoch(partition)
        );
    }
    old.stop();
    let mut empty = run.worker(&run.path("empty"));
    empty.wait_for("restored store", PARTITIONS as usize, PATIENCE);
    eprintln!(
        "changelog records replayed, old directory: {replayed:?}; empty directory: {:?}",
        empty.replayed()
    );
    empty.stop();
    assert_eq!(run.verify().records, 60_000);
}

#[test]
fn instance_with_copies_takes_over_without_reading_the_changelog() {
    let run = Run::new("standby");
    let mut first = run.standby_worker(&run.path("one"));
    first.wait_for("restored store", PARTITIONS as usize, PATIENCE);
    let mut second = run.standby_worker(&run.path("two"));
    second.wait_for("restored store", 1, PATIENCE);
    let file = run.rows("rows.jsonl", 60_000, 19);
    run.produce(&file, Some(20_000));
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    let all_are_whole = |worker: &Worker| {
        let lags = worker.metric("leeway_standby_lag");
        let copies = PARTITIONS as usize - worker.partitions().len();
        copies > 0 && lags.len() == copies && lags.iter().all(|lag| *lag == 0.0)
    };
    wait_for(|| all_are_whole(&second), "copies without lag");
    let own = second.replayed().len();
    first.kill();
    let rest = run.rows("rest.jsonl", 60_000, 20);
    run.produce(&rest, None);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut second]);
    let taken_over = second.replayed().split_off(own);
    eprintln!("changelog records replayed with copies: {taken_over:?}");
    assert!(
        !taken_over.is_empty() && taken_over.iter().all(|(_, records)| *records == 0),
        "{taken_over:?}"
    );
    second.stop();
    assert_eq!(run.verify().records, 120_000);
}

#[test]
fn the_same_input_monitored_twice_gives_the_same_bytes() {
    let run = Run::new("twice");
    let file = run.rows("rows.jsonl", 60_000, 9);
    run.produce(&file, None);
    let by_partition = |events: &str| {
        let mut partitions = std::collections::BTreeMap::new();
        for record in read_committed(bootstrap(), events) {
            let value = record.value.expect("a value");
            let event: Value = serde_json::from_slice(&value).expect("JSON");
            partitions
                .entry((event["partition"].as_i64(), event["feature"].to_string()))
                .or_insert_with(Vec::new)
                .push(value);
        }
        partitions
    };
    // The event id names the application, so the second run is of the same one, begun again from nothing.
    let other = unique("twice-events-again");
    let mut first = run.worker(&run.path("one"));
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first]);
    first.stop();
    let again = unique("twice-again");
    let mut second = run.worker_of(&again, &other, &run.path("two"), false);
    wait_until_consumed(bootstrap(), &again, &run.topic, PATIENCE, &mut [&mut second]);
    second.stop();
    let renamed = |mut events: std::collections::BTreeMap<_, Vec<Vec<u8>>>| {
        for value in events.values_mut().flatten() {
            *value = String::from_utf8(value.clone())
                .expect("UTF-8")
                .replace(&again, &run.application)
                .into_bytes();
        }
        events
    };
    let (one, two) = (by_partition(&run.events), renamed(by_partition(&other)));
    assert!(!one.is_empty());
    assert_eq!(one, two);
}
