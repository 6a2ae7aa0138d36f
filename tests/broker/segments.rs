//! Segments on a real Kafka, in scope partition and global, judged by models that keep every record of each.

use std::collections::{BTreeMap, BTreeSet};

use leeway_topology::repartition::{Content, ShippedPane};
use serde_json::Value;

use crate::cluster::bootstrap;
use crate::global::{References, named, verify_whole_topic, wait_until_merged};
use crate::kafka::{read_committed, wait_until_consumed};
use crate::run::{PARTITIONS, PATIENCE, Run};
use crate::time_windows::{timed_records, work};
use crate::verify::{Segments, WindowKind};

/// What the events' segments are.
fn segments(run: &Run) -> BTreeSet<String> {
    let events = read_committed(bootstrap(), &run.events);
    let event = |value: &[u8]| serde_json::from_slice::<Value>(value).expect("JSON");
    events
        .iter()
        .map(|record| {
            event(record.value.as_deref().expect("a value"))["segment"]
                .as_str()
                .expect("a segment")
                .to_owned()
        })
        .collect()
}

#[test]
fn segments_are_those_of_the_model_whatever_dies() {
    let mut run = Run::new("segments");
    run.window = WindowKind::Count { size: 200, every: 50 };
    run.scopes = vec!["partition", "global"];
    run.segments = Some(Segments {
        by: &["plan", "doors"],
        max: 10,
        expiry_ms: 30_000,
    });
    let mut records = timed_records(&run.rows("rows.jsonl", 60_000, 90));
    // A record's own timestamp is its time here: 60 s pass at once now and then, and whoever has no record in between expires.
    let mut now = 1_700_000_000_000;
    for (number, (_, _, time)) in records.iter_mut().enumerate() {
        now += if number % 7000 == 6999 { 60_000 } else { 2 };
        *time = if number % 11 == 10 { now - 5000 } else { now };
    }
    let [mut first, mut second] = work(&run, &records);
    wait_until_merged(&run, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();
    let verified = run.verify();
    let global = verify_whole_topic(&run, &References::from([named(&run.reference)]));
    let segments = segments(&run);
    eprintln!("{verified:?}, and {global} events of the whole topic, of {} segments", segments.len());
    assert!(verified.events > 1000 && global > 1000 && segments.contains("__rest__"), "{segments:?}");
    run.expect_right_audit(verified.events + global);
}

#[test]
fn time_windows_of_segments_are_those_of_the_model_whatever_dies() {
    let mut run = Run::new("segtime");
    run.window = WindowKind::Time {
        size_ms: 6000,
        every_ms: 2000,
        grace_ms: 3000,
        idle_ms: 0,
    };
    run.segments = Some(Segments {
        by: &["plan"],
        max: 3,
        expiry_ms: 20_000,
    });
    let records = timed_records(&run.rows("rows.jsonl", 120_000, 91));
    let [mut first, mut second] = work(&run, &records);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();
    let verified = run.verify();
    eprintln!("{verified:?}");
    assert!(verified.events > 1000 && segments(&run).len() > 3, "{verified:?}");
    run.expect_right_audit(verified.events);
}

/// What a check counted, by segment, start of the window and feature.
type Counted = BTreeMap<(String, u64, String), Vec<u64>>;

/// Each segment's window of the whole topic is what the partitions' events say that they had in it, added up; and every window is there, once, that all
/// partitions have closed.
#[test]
fn time_windows_of_segments_of_the_whole_topic_are_the_sums_of_the_partitions_whatever_dies() {
    const EVERY_MS: u64 = 4000;
    let mut run = Run::new("segglobaltime");
    run.window = WindowKind::Time {
        size_ms: 8000,
        every_ms: 4000,
        grace_ms: 3000,
        idle_ms: 0,
    };
    run.scopes = vec!["partition", "global"];
    // So that an event tells of every part.
    run.min_samples = 1;
    run.segments = Some(Segments {
        by: &["plan"],
        max: 20,
        expiry_ms: 1_000_000_000,
    });
    let records = timed_records(&run.rows("rows.jsonl", 60_000, 93));
    let [mut first, mut second] = work(&run, &records);
    wait_until_merged(&run, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();

    let mut open_from: BTreeMap<i32, u64> = BTreeMap::new();
    for record in read_committed(bootstrap(), &run.panes_topic()) {
        let pane = ShippedPane::read(&record.key.expect("a key"), &record.value.expect("a value")).expect("a pane");
        if let Content::Progress(progress) = pane.content {
            let known = open_from.entry(progress.partition.0).or_default();
            *known = progress.open_from.max(*known);
        }
    }
    assert_eq!(open_from.len(), PARTITIONS as usize, "each has told how far it is");
    let closed_before = open_from.values().min().expect("partitions") * EVERY_MS;

    let (mut expected, mut found) = (Counted::new(), Counted::new());
    let events = read_committed(bootstrap(), &run.events);
    for record in &events {
        let event: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        let start = event["window_start_ms"].as_u64().expect("a time");
        if event["feature"] == "*" {
            continue;
        }
        let text = |field: &str| event[field].as_str().expect("a text").to_owned();
        let key = (text("segment"), start, text("feature"));
        let counts: Vec<u64> = serde_json::from_value(event["counts"].clone()).expect("counts");
        if event["scope"] == "global" {
            assert_eq!(counts.iter().sum::<u64>(), event["window_count"].as_u64().expect("a count"), "{event}");
            assert_eq!(found.insert(key, counts), None, "twice: {event}");
        } else if start < closed_before {
            let sum = expected.entry(key).or_insert_with(|| vec![0; counts.len()]);
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    assert!(found.len() > 500, "{} windows", found.len());
    assert!(
        expected == found,
        "{} windows of features, but {} were to be",
        found.len(),
        expected.len()
    );
    eprintln!("{} events, {} windows of features of the whole topic", events.len(), found.len());
    run.expect_right_audit(events.len());
}
