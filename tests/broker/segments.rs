//! Segments on a real Kafka, in scope partition and global, judged by models that keep every record of each.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::cluster::bootstrap;
use crate::global::{References, event, named, verify_whole_topic, wait_until_merged};
use crate::kafka::{read_committed, wait_until_consumed};
use crate::run::{PARTITIONS, PATIENCE, Run};
use crate::time_windows::{timed_records, work};
use crate::verify::{Segments, WindowKind, compare, python};

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

/// The model has the partitions' records in another order than they were processed in: without idleness, expiry and changes of reference the windows do not
/// depend on it, but for `record_count`, which adds up how far each partition was. That is left to the audit.
#[test]
fn time_windows_of_segments_of_the_whole_topic_are_those_of_the_model_whatever_dies() {
    let mut run = Run::new("segglobaltime");
    run.window = WindowKind::Time {
        size_ms: 8000,
        every_ms: 4000,
        grace_ms: 3000,
        idle_ms: 0,
    };
    run.scopes = vec!["partition", "global"];
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

    let verified = run.verify();
    let mut found = read_committed(bootstrap(), &run.events).iter().map(event).collect::<Vec<_>>();
    found.retain(|event| event["scope"] == "global");
    let mut expected = model_of_segments_of_the_whole_topic(&run);
    for event in &mut expected {
        event.as_object_mut().expect("an object").remove("record_count");
    }
    let of_segments: BTreeSet<_> = expected.iter().chain(&found).map(|event| event["segment"].as_str()).collect();
    for segment in &of_segments {
        let own = |events: &[Value]| -> Vec<Value> { events.iter().filter(|event| event["segment"].as_str() == *segment).cloned().collect() };
        compare(&format!("the whole topic, segment {segment:?}"), &own(&expected), &own(&found));
    }
    eprintln!(
        "{verified:?}, and {} events of the whole topic, of {} segments",
        found.len(),
        of_segments.len()
    );
    assert!(verified.events > 500 && found.len() > 500, "{verified:?}, {}", found.len());
    run.expect_right_audit(verified.events + found.len());
}

/// What the model says of the records of the topic, one partition after the other.
fn model_of_segments_of_the_whole_topic(run: &Run) -> Vec<Value> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [spec, steps, lines] = ["spec.json", "steps.txt", "records"].map(|name| directory.path().join(name));
    let mut records = read_committed(bootstrap(), &run.topic);
    records.sort_by_key(|record| (record.partition, record.offset));
    let (mut order, mut values) = (String::new(), Vec::new());
    for record in records {
        writeln!(order, "record {} {}", record.partition, record.timestamp.unwrap_or(-1)).expect("a string");
        values.extend(record.value.expect("no tombstones"));
        values.push(b'\n');
    }
    let mut settings = run.specification();
    settings["partitions"] = PARTITIONS.into();
    for (path, bytes) in [(&spec, settings.to_string().into_bytes()), (&steps, order.into_bytes()), (&lines, values)] {
        std::fs::write(path, bytes).expect("written");
    }
    let model = Command::new(python())
        .arg("tests/oracle/whole_topic_time_segments.py")
        .arg("--spec")
        .arg(spec)
        .arg("--steps")
        .arg(steps)
        .stdin(std::fs::File::open(lines).expect("the records are there"))
        .output()
        .expect("python runs");
    assert!(model.status.success(), "the model failed: {}", String::from_utf8_lossy(&model.stderr));
    let events = model.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    events.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}
