//! What is built as a reference and then sent is no drift at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::Value;

use crate::cluster::bootstrap;
use crate::global::{event, named};
use crate::kafka::{OwnedRecord, create_topic, read_committed, unique, wait_until_consumed};
use crate::leeway::{Worker, leeway, output, succeed};
use crate::run::{PARTITIONS, PATIENCE, Run, wait_for};
use crate::verify::WindowKind;

const ROWS: usize = 1000;

fn csv() -> String {
    let mut random = StdRng::seed_from_u64(3);
    let mut text = "amount,plan,doors,member,code,note\r\n".to_owned();
    for row in 0..ROWS {
        let amount = if row % 17 == 0 {
            "NA".to_owned()
        } else {
            format!("{:.4}", random.random::<f64>() * 100.0)
        };
        let plan = ["basic", "pro", "\"free, really\"", ""][random.random_range(0..4)];
        let member = ["True", "false", "TRUE"][random.random_range(0..3)];
        let code = ["1", "1.0", "x7", "2"][random.random_range(0..4)];
        write!(
            text,
            "{amount},{plan},{},{member},{code},\"a \"\"quoted\"\" note {}\"\r\n",
            random.random_range(2..6),
            row % 5
        )
        .expect("a string");
    }
    text
}

fn jsonl() -> String {
    let mut random = StdRng::seed_from_u64(4);
    let mut text = String::new();
    for row in 0..ROWS {
        let plan = ["\"basic\"", "\"pro\"", "null", "\"\\u00fcber\""][random.random_range(0..4)];
        writeln!(
            text,
            "{{\"amount\": {}, \"plan\": {plan}, \"flag\": {}, \"level\": {}}}",
            random.random::<f64>() - 0.5,
            row % 3 == 0,
            random.random_range(0..4)
        )
        .expect("a string");
    }
    text
}

fn psi_is_zero(name: &str, content: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (data, reference) = (directory.path().join(name), directory.path().join("reference.json"));
    std::fs::write(&data, content).expect("written");
    eprint!(
        "{}",
        succeed(
            leeway()
                .args(["reference", "build", "--input"])
                .arg(&data)
                .arg("--output")
                .arg(&reference)
        )
    );
    let (topic, events, application) = (unique("same"), unique("same-events"), unique("same-app"));
    create_topic(bootstrap(), &topic, 1, &[]);
    succeed(
        leeway()
            .arg("produce")
            .arg(&data)
            .args(["--topic", &topic, "--bootstrap-servers", bootstrap()]),
    );
    let rows = ROWS.to_string();
    let arguments = [
        "--application-id",
        &application,
        "--topic",
        &topic,
        "--events-topic",
        &events,
        "--window-size",
        &rows,
        "--window-every",
        &rows,
    ];
    let mut all = arguments.to_vec();
    all.extend(["--reference", reference.to_str().expect("UTF-8")]);
    let mut worker = Worker::start(bootstrap(), &directory.path().join("state"), &all);
    wait_until_consumed(bootstrap(), &application, &topic, Duration::from_secs(60), &mut [&mut worker]);
    worker.stop();
    let found = read_committed(bootstrap(), &events);
    let features = serde_json::from_slice::<Value>(&std::fs::read(&reference).expect("a reference")).expect("JSON")["features"]
        .as_array()
        .expect("features")
        .len();
    assert_eq!(found.len(), features + 1, "one event per feature, and the summary");
    for record in found {
        let event: Value = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
        assert_eq!(event["psi"], 0.0, "{event}");
    }
}

#[test]
fn csv_that_is_built_as_reference_and_sent_has_psi_zero() {
    psi_is_zero("rows.csv", &csv());
}

#[test]
fn json_lines_that_are_built_as_reference_and_sent_have_psi_zero() {
    psi_is_zero("rows.jsonl", &jsonl());
}

#[test]
fn reference_of_the_topics_first_records_is_made_once_they_are_there() {
    let mut run = Run::new("first");
    run.reference_setting = "first:3000".to_owned();
    let before = run.rows("before.jsonl", 1000, 90);
    run.produce(&before, None);
    let mut first = run.worker(&run.path("one"));
    first.wait_for("waiting for records", 1, PATIENCE);
    let mut second = run.worker(&run.path("two"));
    run.produce(&run.rows("rows.jsonl", 12_000, 91), None);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();
    let shown = succeed(
        leeway()
            .args(["reference", "show", "--format", "json", "--bootstrap-servers", bootstrap()])
            .args(["--application-id", &run.application]),
    );
    run.reference = serde_json::from_str(&shown).expect("a reference");
    assert_eq!(run.reference["rows"], 3000);
    // The same by hand, of the same records.
    let file = run.path("by-hand.json");
    succeed(
        leeway()
            .args([
                "reference",
                "build",
                "--first",
                "3000",
                "--topic",
                &run.topic,
                "--bootstrap-servers",
                bootstrap(),
                "--output",
            ])
            .arg(&file),
    );
    let by_hand: Value = serde_json::from_slice(&std::fs::read(&file).expect("a reference")).expect("JSON");
    assert_eq!(by_hand["rows"], 3000);
    let verified = run.verify();
    eprintln!("{verified:?}");
    assert!(verified.events > 500, "{verified:?}");
}

#[test]
fn rolling_reference_is_renewed_once_a_period_of_that_periods_records_whatever_dies() {
    const SPAN_MS: i64 = 8000;
    let mut run = Run::new("rolling");
    run.reference_setting = "rolling:8s,lag:1s,every:4s".to_owned();
    // Windows of which there are several in a period.
    run.window = WindowKind::Count { size: 200, every: 50 };
    let rows = run.rows("rows.jsonl", 60_000, 92);
    let references = format!("{}-reference", run.application);
    let published = || -> BTreeMap<String, Value> {
        let records = read_committed(bootstrap(), &references);
        let documents = records
            .iter()
            .filter(|record| record.key.as_deref().is_some_and(|key| key.contains(&b'/')));
        documents.map(|record| named(&event(record))).collect()
    };
    let mut first = run.worker(&run.path("one"));
    first.wait_for("waiting for records", 1, PATIENCE);
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| run.produce(&rows, Some(1500)));
        first.wait_for("restored store", PARTITIONS as usize, PATIENCE);
        let mut second = run.worker(&run.path("two"));
        // Each of them dies once, so that the first partition moves.
        for number in 2.. {
            wait_for(|| published().len() >= number || producing.is_finished(), "another reference");
            match number {
                2 => {
                    first.end();
                    first = run.worker(&run.path("one"));
                }
                4 => {
                    second.end();
                    second = run.worker(&run.path("two"));
                }
                _ => {}
            }
            if producing.is_finished() {
                break;
            }
        }
        producing.join().expect("produced");
        wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
        second.stop();
    });
    first.stop();

    // Each is what can be built of the records of a period, and no period has two.
    let records = read_committed(bootstrap(), &run.topic);
    let documents = published();
    let mut of_periods = BTreeSet::new();
    let time = |record: &OwnedRecord| record.timestamp.expect("a time");
    let oldest = records.iter().map(time).min().expect("records");
    let newest = records.iter().map(time).max().expect("records");
    let mut end = (oldest / 4000) * 4000;
    while end <= newest + SPAN_MS + 4000 {
        let mut own: Vec<_> = records.iter().filter(|record| (end - SPAN_MS..end).contains(&time(record))).collect();
        own.sort_by_key(|record| (record.partition, record.offset));
        let file = run.path("period.jsonl");
        let lines: Vec<u8> = own
            .iter()
            .flat_map(|record| [record.value.as_deref().unwrap_or_default(), b"\n"].concat())
            .collect();
        std::fs::write(&file, lines).expect("written");
        let built = run.path("period.json");
        let mut build = leeway();
        build.args(["reference", "build", "--input"]).arg(&file).arg("--output").arg(&built);
        if own.len() >= 100 && output(&mut build).status.success() {
            let document: Value = serde_json::from_slice(&std::fs::read(&built).expect("a reference")).expect("JSON");
            let version = named(&document).0;
            if documents.contains_key(&version) {
                assert!(
                    of_periods.insert(version),
                    "the same records make the same reference, in the next period too"
                );
            }
        }
        end += 4000;
    }
    assert_eq!(of_periods.len(), documents.len(), "each is of one period");
    assert!(documents.len() >= 5, "{} references", documents.len());
    let events = run.verify_with_changes(&documents);
    eprintln!("{} references, {events} events", documents.len());
    run.expect_right_audit(events);
}
