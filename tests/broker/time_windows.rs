//! Time windows on a real Kafka, judged by a model that knows no panes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use leeway_topology::ids::Partition;
use leeway_topology::repartition::{Content, ShippedPane};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::Value;

use crate::cluster::bootstrap;
use crate::global::{References, named, verify_whole_topic, wait_until_merged};
use crate::kafka::{Handmade, produce, read_committed, wait_until_consumed};
use crate::leeway::Worker;
use crate::run::{PARTITIONS, PATIENCE, Run, wait_for};
use crate::verify::{TIME_FIELD, WindowKind};

/// A record: partition, value, timestamp.
pub(crate) type Timed = (i32, Vec<u8>, i64);

/// Records of one partition each: in order of time but for a jitter beyond the grace, and gaps that are longer than a window. The field says the time in
/// one way or another, or does not; then the record's own timestamp does, or nothing.
pub(crate) fn timed_records(rows: &Path) -> Vec<Timed> {
    let mut random = StdRng::seed_from_u64(41);
    let mut now = [1_700_000_000_000_i64; PARTITIONS as usize];
    let text = std::fs::read(rows).expect("rows");
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let partition = random.random_range(0..PARTITIONS);
            let time = &mut now[partition as usize];
            *time += if random.random_range(0..2000) == 0 {
                60_000
            } else {
                random.random_range(0..12)
            };
            let time = *time - random.random_range(0..100_i64).pow(2);
            let (ms, seconds) = (time % 1000, time / 1000 % 3600);
            // 2023-11-14T22:13:20Z is 1,700,000,000 s; all times here are within the next hours.
            let hour = (time / 1000 / 3600) % 24;
            let day = 14 + (time / 1000 / 86400) - 19675;
            let text = format!("2023-11-{day:02}T{hour:02}:{:02}:{:02}.{ms:03}Z", seconds / 60, seconds % 60);
            let (field, own) = match random.random_range(0..20) {
                0 => ("null".to_owned(), time),
                1 => ("\"noon\"".to_owned(), time),
                2 => ("[]".to_owned(), -1),
                3..10 => (format!("\"{text}\""), 1),
                _ => (time.to_string(), 1),
            };
            let mut line = line.to_vec();
            if line.starts_with(b"{\"a\"") && line.ends_with(b"}") {
                line.truncate(line.len() - 1);
                line.extend(format!(", \"{TIME_FIELD}\": {field}}}").into_bytes());
            }
            (partition, line, own)
        })
        .collect()
}

pub(crate) fn send(run: &Run, records: &[Timed]) {
    let handmade: Vec<Handmade<'_>> = records
        .iter()
        .map(|(partition, value, timestamp)| Handmade {
            partition: *partition,
            key: None,
            value: Some(value),
            timestamp: *timestamp,
        })
        .collect();
    produce(bootstrap(), &run.topic, &handmade);
}

/// Four parts of the records, see [`Run::work`].
pub(crate) fn work(run: &Run, records: &[Timed]) -> [Worker; 2] {
    let parts: Vec<_> = records.chunks(records.len() / 4 + 1).collect();
    run.work(parts.len(), |part| send(run, parts[part]))
}

#[test]
fn time_windows_are_those_of_the_model_whatever_dies() {
    let mut run = Run::new("time");
    run.window = WindowKind::Time {
        size_ms: 6000,
        every_ms: 2000,
        grace_ms: 3000,
        idle_ms: 2000,
    };
    let records = timed_records(&run.rows("rows.jsonl", 120_000, 40));
    let [mut first, mut second] = work(&run, &records);
    let all_are_closed = || {
        let events = read_committed(bootstrap(), &run.events);
        let idle: BTreeSet<_> = events
            .iter()
            .map(|record| serde_json::from_slice::<Value>(record.value.as_deref().expect("a value")).expect("JSON"))
            .filter(|event| event["closed_by"] == "idle")
            .map(|event| event["partition"].as_i64())
            .collect();
        idle.len() == PARTITIONS as usize
    };
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    wait_for(all_are_closed, "every partition is idle and its windows are closed");
    // What was sent last comes once more: late for windows that idleness closed.
    let again: Vec<_> = records[records.len() - 600..].to_vec();
    send(&run, &again);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();
    let verified = run.verify();
    eprintln!("{verified:?}");
    assert!(verified.events > 1000, "{verified:?}");
    run.expect_right_audit(verified.events);
}

#[test]
fn time_windows_of_the_whole_topic_are_those_of_the_model_whatever_dies() {
    let mut run = Run::new("globaltime");
    run.window = WindowKind::Time {
        size_ms: 6000,
        every_ms: 2000,
        grace_ms: 3000,
        idle_ms: 2000,
    };
    run.scopes = vec!["global"];
    let mut records = timed_records(&run.rows("rows.jsonl", 120_000, 42));
    // One partition never has a record, and is not waited for.
    records.retain(|(partition, _, _)| *partition + 1 < PARTITIONS);
    let [mut first, mut second] = work(&run, &records);
    let all_are_idle = || {
        let mut is_idle: BTreeMap<Partition, bool> = BTreeMap::new();
        for record in read_committed(bootstrap(), &run.panes_topic()) {
            let pane = ShippedPane::read(&record.key.expect("a key"), &record.value.expect("a value")).expect("a pane");
            if let Content::Progress(progress) = pane.content {
                is_idle.insert(progress.partition, progress.is_idle);
            }
        }
        is_idle.len() == PARTITIONS as usize && is_idle.values().all(|idle| *idle)
    };
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    wait_for(all_are_idle, "every partition is idle and its windows are closed");
    // What was sent last comes once more: late for windows that idleness closed, and the partitions are waited for again.
    send(&run, &records[records.len() - 600..]);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    wait_for(all_are_idle, "every partition is idle again");
    wait_until_merged(&run, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();
    let global = verify_whole_topic(&run, &References::from([named(&run.reference)]));
    eprintln!("{global} events of the whole topic");
    assert!(global > 300, "{global}");
    run.expect_right_audit(global);
}
