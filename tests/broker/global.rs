//! Scope global and changing references on a real Kafka, judged by a model that knows no histograms.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use leeway_topology::repartition::{Content, ShippedPane};
use serde_json::{Value, json};

use crate::cluster::bootstrap;
use crate::kafka::{OwnedRecord, add_partitions, read_committed, wait_until_consumed};
use crate::leeway::{Worker, leeway, output, succeed};
use crate::run::{PARTITIONS, PATIENCE, Run, wait_for};
use crate::verify::{WindowKind, compare, features_of, python, specify_window};

/// What a test knows of the references of a run: document by version.
pub(crate) type References = BTreeMap<String, Value>;

/// All that was shipped is merged and committed.
pub(crate) fn wait_until_merged(run: &Run, workers: &mut [&mut Worker]) {
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, workers);
    wait_for(
        || {
            workers.iter_mut().for_each(|worker| worker.expect_running());
            run.is_merged()
        },
        "every pane is merged",
    );
}

/// A document by its version.
pub(crate) fn named(document: &Value) -> (String, Value) {
    (document["version"].as_str().expect("a version").to_owned(), document.clone())
}

pub(crate) fn event(record: &OwnedRecord) -> Value {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}

/// What a partition has shipped, in the words of the model of time windows.
fn order_line(content: &Content, run: &Run) -> String {
    let WindowKind::Time { every_ms, .. } = run.window else {
        panic!("{content:?} of time windows")
    };
    match content {
        Content::Window(part) => format!(
            "window {} {} {} {} {} {}",
            part.partition,
            part.window * every_ms,
            part.reference_version,
            part.publication,
            part.record_number.0,
            u8::from(part.is_idle)
        ),
        Content::Progress(progress) => format!(
            "progress {} {} {} {} {}",
            progress.partition,
            progress.partitions,
            progress.open_from * every_ms,
            progress.record_number.0,
            u8::from(progress.is_idle)
        ),
        Content::Count(pane) => panic!("{pane:?} of count windows"),
    }
}

/// The events of the whole topic are those of the model. Gives their number.
pub(crate) fn verify_whole_topic(run: &Run, references: &References) -> usize {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (spec, order, records, times) = (
        directory.path().join("spec.json"),
        directory.path().join("order.txt"),
        directory.path().join("records"),
        directory.path().join("times"),
    );
    std::fs::create_dir(&records).expect("a directory");
    std::fs::create_dir(&times).expect("a directory");
    let mut partitions: BTreeMap<i32, (Vec<u8>, String)> = BTreeMap::new();
    for record in read_committed(bootstrap(), &run.topic) {
        let (lines, times) = partitions.entry(record.partition).or_default();
        lines.extend(record.value.expect("no tombstones"));
        lines.push(b'\n');
        writeln!(times, "{}", record.timestamp.unwrap_or(-1)).expect("a string");
    }
    for (partition, (lines, of_lines)) in partitions {
        std::fs::write(records.join(partition.to_string()), lines).expect("written");
        std::fs::write(times.join(partition.to_string()), of_lines).expect("written");
    }
    let mut text = String::new();
    let mut of_topic: Option<i32> = None;
    for record in read_committed(bootstrap(), &run.panes_topic()) {
        let place = record.partition;
        let (key, value) = (record.key.expect("a key"), record.value.expect("a value"));
        let ShippedPane { segment, content, .. } = ShippedPane::read(&key, &value).expect("a pane");
        let Content::Count(pane) = content else {
            writeln!(text, "{}", order_line(&content, run)).expect("a string");
            continue;
        };
        let (partition, number, version) = (pane.partition, pane.pane.number.0, &pane.reference_version);
        write!(text, "{partition} {number} {version} {}", pane.publication).expect("a string");
        if run.segments.is_some() {
            write!(text, " {place} {segment}").expect("a string");
        } else {
            assert_eq!(*of_topic.get_or_insert(place), place, "one monitor, one partition");
        }
        text.push('\n');
    }
    std::fs::write(&order, text).expect("written");
    let features: BTreeMap<_, _> = references.iter().map(|(version, document)| (version, features_of(document))).collect();
    let mut settings = json!({"references": features, "min_samples": 100, "epsilon": 1e-4,
        "thresholds": {"possible": 0.1, "drift": 0.25}, "significance": 0.001});
    let model = specify_window(run.window, &mut settings);
    if let Some(segments) = run.segments {
        segments.specify(&mut settings);
    }
    if let Some(quality) = run.quality {
        quality.specify(&mut settings);
    }
    std::fs::write(&spec, settings.to_string()).expect("written");
    let model = output(
        Command::new(python())
            .arg(model)
            .arg("--spec")
            .arg(&spec)
            .arg("--order")
            .arg(&order)
            .arg("--records")
            .arg(&records)
            .arg("--times")
            .arg(&times),
    );
    assert!(model.status.success(), "the model failed: {}", String::from_utf8_lossy(&model.stderr));
    let lines = model.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let expected: Vec<Value> = lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    let found: Vec<Value> = read_committed(bootstrap(), &run.events)
        .iter()
        .map(event)
        .filter(|event| event["scope"] == "global")
        .collect();
    // Segments are merged by several tasks: each one's events are in order.
    let segments: BTreeSet<Option<&str>> = expected.iter().chain(&found).map(|event| event["segment"].as_str()).collect();
    for segment in segments {
        let own = |events: &[Value]| -> Vec<Value> { events.iter().filter(|event| event["segment"].as_str() == segment).cloned().collect() };
        compare(&format!("the whole topic, segment {segment:?}"), &own(&expected), &own(&found));
    }
    found.len()
}

#[test]
fn window_of_the_whole_topic_is_that_of_the_model_whatever_dies() {
    let mut run = Run::new("global");
    run.scopes = vec!["partition", "global"];
    let [mut first, mut second] = run.work(4, |part| {
        let rows = run.rows(&format!("rows-{part}.jsonl"), 15_000, 60 + part as u64);
        run.produce(&rows, None);
    });
    wait_until_merged(&run, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();
    let verified = run.verify();
    let global = verify_whole_topic(&run, &References::from([named(&run.reference)]));
    eprintln!("{verified:?}, and {global} events of the whole topic");
    assert!(global > 2000, "{global}");
    run.expect_right_audit(verified.events + global);
}

#[test]
fn reference_published_under_load_is_taken_over_once_by_each_partition_and_by_the_whole_topic() {
    let mut run = Run::new("switch");
    run.scopes = vec!["partition", "global"];
    let rows = run.rows("rows.jsonl", 60_000, 70);
    let (old, new) = (named(&run.reference), named(&run.later_reference("later.json")));
    assert_ne!(old.0, new.0);
    let mut first = run.worker(&run.path("one"));
    first.wait_for("restored store", 2 * PARTITIONS as usize, PATIENCE);
    let mut second = run.worker(&run.path("two"));
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| run.produce(&rows, Some(4000)));
        wait_for(|| read_committed(bootstrap(), &run.events).len() > 1000, "some events");
        eprint!(
            "{}",
            succeed(
                leeway()
                    .args([
                        "reference",
                        "publish",
                        "--bootstrap-servers",
                        bootstrap(),
                        "--application-id",
                        &run.application
                    ])
                    .arg(run.path("later.json"))
            )
        );
        // One of them is killed about when it changes over.
        wait_for(
            || {
                let events = read_committed(bootstrap(), &run.events);
                events.iter().any(|record| event(record)["reference_version"] == new.0.as_str())
            },
            "an event of the new reference",
        );
        second.end();
        // Its configuration names the file of the old one, which is known and so not published again.
        second = run.worker(&run.path("two"));
        producing.join().expect("produced");
    });
    wait_until_merged(&run, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();

    let references = References::from([old.clone(), new.clone()]);
    let events: Vec<Value> = read_committed(bootstrap(), &run.events).iter().map(event).collect();
    for scope in (0..PARTITIONS).map(Value::from).chain([Value::Null]) {
        let own = events.iter().filter(|event| event["partition"] == scope && event["feature"] == "*");
        let mut versions: Vec<_> = own.map(|event| event["reference_version"].clone()).collect();
        versions.dedup();
        assert_eq!(versions, [Value::from(old.0.as_str()), Value::from(new.0.as_str())], "partition {scope}");
    }
    let global = verify_whole_topic(&run, &references);
    let partitions = run.verify_with_changes(&references);
    eprintln!("{partitions} events of partitions and {global} of the whole topic");
    assert_eq!(partitions + global, events.len());
    run.expect_right_audit(events.len());
}

#[test]
fn partitions_that_are_added_while_workers_run_are_read_and_checked() {
    let mut run = Run::new("grows");
    run.scopes = vec!["partition", "global"];
    run.properties = "\"topic.metadata.refresh.interval.ms\" = \"1000\"\n";
    let mut first = run.worker(&run.path("one"));
    first.wait_for("restored store", 2 * PARTITIONS as usize, PATIENCE);
    run.produce(&run.rows("before.jsonl", 6000, 80), None);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first]);
    add_partitions(bootstrap(), &run.topic, PARTITIONS + 3);
    first.wait_for("restored store", 2 * PARTITIONS as usize + 3, PATIENCE);
    run.produce(&run.rows("after.jsonl", 9000, 81), None);
    wait_until_merged(&run, &mut [&mut first]);
    first.stop();
    let verified = run.verify();
    let global = verify_whole_topic(&run, &References::from([named(&run.reference)]));
    let added = read_committed(bootstrap(), &run.events)
        .iter()
        .map(event)
        .filter(|event| event["partition"].as_i64() >= Some(i64::from(PARTITIONS)))
        .count();
    eprintln!("{verified:?}, {added} of them of new partitions, and {global} of the whole topic");
    assert!(added > 0);
    run.expect_right_audit(verified.events + global);
}
