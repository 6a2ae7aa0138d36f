//! Quality events on a real Kafka, among the drift events, judged by models that keep every record.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::Value;

use crate::cluster::bootstrap;
use crate::global::{References, named, verify_whole_topic, wait_until_merged};
use crate::kafka::read_committed;
use crate::run::Run;
use crate::time_windows::{Timed, timed_records, work};
use crate::verify::{Quality, Segments, WindowKind};

/// Thresholds of every kind that the faults of these records are now above, now below.
const QUALITY: Quality = Quality {
    of_all: &[("missing", 0.03), ("other", 0.1)],
    of_features: &[
        ("a", &[("out_of_range", 0.01)]),
        ("b", &[("missing", 1.0), ("out_of_range", 0.001)]),
        ("plan", &[("other", 0.2)]),
    ],
};

/// Records as of other tests, of which some have a plan or a number of doors that no reference has: of a duplicate field the last counts.
fn faulty_records(run: &Run, rows: usize, seed: u64) -> Vec<Timed> {
    let mut records = timed_records(&run.rows("rows.jsonl", rows, seed));
    let mut random = StdRng::seed_from_u64(seed);
    for (number, (_, line, _)) in records.iter_mut().enumerate() {
        if !(line.starts_with(b"{\"a\"") && line.ends_with(b"}")) {
            continue;
        }
        let mut fields = String::new();
        if random.random_range(0..20) == 0 {
            // Some often, some never twice, and some equal up to where they are cut.
            let plan = match random.random_range(0..4) {
                0 => format!("odd-{}", random.random_range(0..5)),
                1 => format!("odd-{number}"),
                2 => "ö".repeat(random.random_range(30..34)),
                _ => format!("{}{number}", "x".repeat(64)),
            };
            write!(fields, ", \"plan\": \"{plan}\"").expect("a string");
        }
        if random.random_range(0..30) == 0 {
            let doors = ["7", "7.0", "-1", "2.5", "1e22", "1e-7", "true"][random.random_range(0..7)];
            write!(fields, ", \"doors\": {doors}").expect("a string");
        }
        line.truncate(line.len() - 1);
        line.extend(fields.into_bytes());
        line.push(b'}');
    }
    records
}

/// How many quality events there are of each scope and status.
fn statuses(run: &Run) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for record in read_committed(bootstrap(), &run.events) {
        let event: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        let text = |field: &str| event[field].as_str().expect("a text").to_owned();
        if event["kind"] == "quality" {
            *counts.entry((text("scope"), text("status"))).or_default() += 1;
        }
    }
    counts
}

/// Partitions and the whole topic, drift and quality: events are those of the models, and the audit says so too.
fn judge(run: &Run, records: &[Timed]) {
    let [mut first, mut second] = work(run, records);
    wait_until_merged(run, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();
    let verified = run.verify();
    let global = verify_whole_topic(run, &References::from([named(&run.reference)]));
    let statuses = statuses(run);
    eprintln!("{verified:?}, and {global} events of the whole topic; quality: {statuses:?}");
    assert!(statuses.len() == 4 && statuses.values().all(|count| *count > 20), "{statuses:?}");
    run.expect_right_audit(verified.events + global);
}

#[test]
fn quality_of_segments_is_that_of_the_model_in_both_scopes_whatever_dies() {
    let mut run = Run::new("quality");
    run.window = WindowKind::Count { size: 200, every: 50 };
    run.scopes = vec!["partition", "global"];
    run.segments = Some(Segments {
        by: &["doors"],
        max: 4,
        expiry_ms: 30_000,
    });
    run.quality = Some(QUALITY);
    let mut records = faulty_records(&run, 60_000, 95);
    // As in the test of segments: now and then so much time passes that who has no record in between expires.
    let mut now = 1_700_000_000_000;
    for (number, (_, _, time)) in records.iter_mut().enumerate() {
        now += if number % 7000 == 6999 { 60_000 } else { 2 };
        *time = now;
    }
    judge(&run, &records);
}

#[test]
fn quality_of_time_windows_is_that_of_the_model_in_both_scopes_whatever_dies() {
    let mut run = Run::new("qualitytime");
    // Without closing by idleness: of partitions whose open windows all have too few records no event would tell it.
    run.window = WindowKind::Time {
        size_ms: 6000,
        every_ms: 2000,
        grace_ms: 3000,
        idle_ms: 0,
    };
    run.scopes = vec!["partition", "global"];
    run.quality = Some(QUALITY);
    let records = faulty_records(&run, 120_000, 96);
    judge(&run, &records);
}
