//! Segments on a real Kafka, in scope partition and global, judged by models that keep every record of each.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cluster::bootstrap;
use crate::global::{References, named, verify_whole_topic, wait_until_merged};
use crate::kafka::{read_committed, wait_until_consumed};
use crate::run::{PATIENCE, Run};
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
