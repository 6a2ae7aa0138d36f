//! Compares what stands in the topics with what the oracle computes from the input: the judge of every run on a real Kafka.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kafka::{OwnedRecord, read_committed_where};

/// What a run is judged by.
pub(crate) struct Expectation<'a> {
    /// The input topic.
    pub(crate) topic: &'a str,
    /// The topic of drift events.
    pub(crate) events_topic: &'a str,
    /// The dead letter topic.
    pub(crate) dead_letter_topic: &'a str,
    /// The reference document.
    pub(crate) reference: &'a Value,
    /// The windows that are checked.
    pub(crate) window: WindowKind,
    /// By what records are watched apart.
    pub(crate) segments: Option<Segments>,
    /// From which shares on quality is violated.
    pub(crate) quality: Option<Quality>,
    /// Of each partition the records before this offset, and what comes of them.
    pub(crate) until: i64,
}

/// What a check looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WindowKind {
    /// So many records, checked each so many.
    Count { size: u64, every: u64 },
    /// Hopping windows of event time.
    /// The field [`TIME_FIELD`] says a record's time.
    Time {
        size_ms: u64,
        every_ms: u64,
        grace_ms: u64,
        /// 0: never.
        idle_ms: u64,
    },
}

/// Each segment has its windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segments {
    /// The fields whose values make one.
    pub(crate) by: &'static [&'static str],
    /// As many live at once in a partition.
    pub(crate) max: u64,
    /// After so long without a record one is forgotten.
    pub(crate) expiry_ms: u64,
}

impl Segments {
    /// In the model's words.
    pub(crate) fn specify(&self, spec: &mut Value) {
        spec["segment_by"] = self.by.into();
        spec["max_segments"] = self.max.into();
        spec["segment_expiry_ms"] = self.expiry_ms.into();
    }
}

/// Shares by kind of fault: `("missing", 0.05)`.
pub(crate) type Shares = &'static [(&'static str, f64)];

/// From which shares on quality is violated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// Of all features.
    pub(crate) of_all: Shares,
    /// Of some; what they leave out is that of all.
    pub(crate) of_features: &'static [(&'static str, Shares)],
}

impl Quality {
    /// In the model's words.
    pub(crate) fn specify(&self, spec: &mut Value) {
        for &(kind, share) in self.of_all {
            spec["quality"][kind] = share.into();
        }
        for &(feature, shares) in self.of_features {
            for &(kind, share) in shares {
                spec["feature_quality"][feature][kind] = share.into();
            }
        }
    }

    /// For the table of the monitor.
    pub(crate) fn settings(&self) -> String {
        let mut lines = format!("quality = {}\n", inline_table(self.of_all));
        for &(feature, shares) in self.of_features {
            lines += &format!("feature_quality.{feature} = {}\n", inline_table(shares));
        }
        lines
    }
}

fn inline_table(shares: Shares) -> String {
    let entries: Vec<_> = shares.iter().map(|(kind, share)| format!("{kind} = {share:?}")).collect();
    format!("{{ {} }}", entries.join(", "))
}

/// The field that says a record's time.
pub(crate) const TIME_FIELD: &str = "at";

/// What a judged run held.
#[derive(Debug)]
pub(crate) struct Verified {
    /// Records of the input, valid or not.
    pub(crate) records: usize,
    /// Events, all of them right.
    pub(crate) events: usize,
    /// Dead letters, all of them right.
    pub(crate) dead_letters: usize,
}

/// Reads input, events and dead letters and compares them with the oracle; panics at the first difference, with both values.
pub(crate) fn verify(bootstrap: &str, expectation: &Expectation<'_>) -> Verified {
    let input = by_partition(read_committed_where(bootstrap, expectation.topic, |record| {
        record.offset < expectation.until
    }));
    let mut events: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
    // Events of the whole topic have no offsets: they are not looked at here.
    let is_early = |record: &OwnedRecord| event(record)["window_end_offset"].as_i64().is_some_and(|end| end < expectation.until);
    for record in read_committed_where(bootstrap, expectation.events_topic, is_early) {
        let event = event(&record);
        assert_eq!(
            record.key.as_deref(),
            event["feature"].as_str().map(str::as_bytes),
            "an event is keyed by its feature"
        );
        events
            .entry(event["partition"].as_i64().expect("scope partition"))
            .or_default()
            .push(event);
    }
    let mut verified = Verified {
        records: 0,
        events: 0,
        dead_letters: 0,
    };
    let mut bad: Vec<&OwnedRecord> = Vec::new();
    for (partition, records) in &input {
        // A tombstone is skipped: it is neither a record of the partition nor a dead letter.
        let records: Vec<_> = records.iter().filter(|record| record.value.is_some()).collect();
        let found = events.remove(&i64::from(*partition)).unwrap_or_default();
        let (expected, invalid) = oracle(expectation, &records, &found);
        compare(&format!("partition {partition}"), &expected, &found);
        bad.extend(invalid.into_iter().map(|line| records[line - 1]));
        verified.records += records.len();
        verified.events += found.len();
    }
    assert!(events.is_empty(), "events of partitions that have no records: {:?}", events.keys());
    let is_early = |letter: &OwnedRecord| origin(letter).1 < expectation.until;
    let letters = read_committed_where(bootstrap, expectation.dead_letter_topic, is_early);
    verified.dead_letters = compare_dead_letters(expectation, &bad, &letters);
    verified
}

/// Partition by partition, where references changed on the way: what comes after the last check by one of them is as if the partition began there.
/// Gives the number of events.
pub(crate) fn verify_with_changes<'a>(bootstrap: &str, topics: &Expectation<'a>, of_version: &dyn Fn(&str) -> Expectation<'a>) -> usize {
    let mut events: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
    for event in read_committed_where(bootstrap, topics.events_topic, |_| true).iter().map(event) {
        if let Some(partition) = event["partition"].as_i64() {
            events.entry(partition).or_default().push(event);
        }
    }
    let number = events.values().map(Vec::len).sum();
    for (partition, records) in by_partition(read_committed_where(bootstrap, topics.topic, |_| true)) {
        let found = events.remove(&i64::from(partition)).unwrap_or_default();
        let version = |event: &Value| event["reference_version"].as_str().expect("a version").to_owned();
        let mut versions: Vec<String> = found.iter().filter(|event| event["feature"] == "*").map(version).collect();
        versions.dedup();
        let mut rest: Vec<&OwnedRecord> = records.iter().collect();
        let mut before = 0;
        for reference in &versions {
            let expectation = of_version(reference);
            let own: Vec<Value> = found.iter().filter(|event| version(event) == *reference).cloned().collect();
            let last = own.iter().filter_map(|event| event["record_count"].as_u64()).max().expect("events");
            // Up to its last check, and no further: there the next one was taken over.
            let (_, invalid) = oracle(&expectation, &rest, &own);
            let valid = |index: usize| !invalid.contains(&(index + 1));
            let is_last = reference == versions.last().expect("a version");
            let end = if is_last {
                rest.len()
            } else {
                let mut valid = (0..rest.len()).filter(|index| valid(*index));
                valid.nth((last - before - 1) as usize).expect("a record") + 1
            };
            let (mut expected, _) = oracle(&expectation, &rest[..end], &own);
            for event in &mut expected {
                event["record_count"] = (event["record_count"].as_u64().expect("a number") + before).into();
            }
            compare(&format!("partition {partition}, reference {reference}"), &expected, &own);
            rest.drain(..end);
            before = last;
        }
    }
    assert!(events.is_empty(), "events of partitions that have no records: {:?}", events.keys());
    number
}

fn event(record: &OwnedRecord) -> Value {
    serde_json::from_slice(record.value.as_deref().expect("an event has a value")).expect("an event is JSON")
}

/// The interpreter that the models run in.
pub(crate) fn python() -> String {
    std::env::var("LEEWAY_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn header(letter: &OwnedRecord, name: &str) -> String {
    let value = letter.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.clone());
    String::from_utf8(value.unwrap_or_else(|| panic!("a dead letter lacks {name}"))).expect("UTF-8")
}

/// Partition and offset of the record that a dead letter is of.
pub(crate) fn origin(letter: &OwnedRecord) -> (i32, i64) {
    (
        header(letter, "__streams.errors.partition").parse().expect("a number"),
        header(letter, "__streams.errors.offset").parse().expect("a number"),
    )
}

fn by_partition(records: Vec<OwnedRecord>) -> BTreeMap<i32, Vec<OwnedRecord>> {
    let mut partitions: BTreeMap<i32, Vec<OwnedRecord>> = BTreeMap::new();
    for record in records {
        partitions.entry(record.partition).or_default().push(record);
    }
    partitions
}

/// The oracle's events of one partition, and the lines that it calls invalid.
/// When the partition was idle is told by the events that were found.
fn oracle(expectation: &Expectation<'_>, records: &[&OwnedRecord], found: &[Value]) -> (Vec<Value>, Vec<usize>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (spec, lines, invalid) = (
        directory.path().join("spec.json"),
        directory.path().join("records"),
        directory.path().join("invalid"),
    );
    std::fs::write(&spec, specification(expectation).to_string()).expect("the specification is written");
    let mut payloads = Vec::new();
    for record in records {
        let value = record.value.as_deref().expect("tombstones were left out");
        assert!(!value.contains(&b'\n'), "the oracle reads a record a line");
        payloads.extend_from_slice(value);
        payloads.push(b'\n');
    }
    std::fs::write(&lines, payloads).expect("the records are written");
    let mut command = Command::new(python());
    let times = directory.path().join("times");
    let text: String = records.iter().map(|record| format!("{}\n", record.timestamp.unwrap_or(-1))).collect();
    std::fs::write(&times, text).expect("the times are written");
    match expectation.window {
        _ if expectation.segments.is_some() => command.arg("tests/oracle/segments.py").arg("--times").arg(times),
        WindowKind::Count { .. } => command.arg("tests/oracle/oracle.py"),
        WindowKind::Time { .. } => {
            let idle = directory.path().join("idle");
            let closed = found.iter().filter(|event| event["closed_by"] == "idle");
            std::fs::write(&idle, closed.map(|event| format!("{}\n", event["record_count"])).collect::<String>()).expect("written");
            command
                .arg("tests/oracle/time_windows.py")
                .arg("--times")
                .arg(times)
                .arg("--idle")
                .arg(idle)
        }
    };
    let output = command
        .arg("--spec")
        .arg(&spec)
        .arg("--invalid")
        .arg(&invalid)
        .stdin(std::fs::File::open(&lines).expect("the records are there"))
        .stdout(Stdio::piped())
        .output()
        .expect("python runs");
    assert!(
        output.status.success(),
        "the oracle failed (it needs scipy): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let events = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    let invalid = std::fs::read_to_string(&invalid)
        .expect("the invalid lines")
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    (events, invalid)
}

/// The reference document in the oracle's words.
pub(crate) fn specification(expectation: &Expectation<'_>) -> Value {
    let mut spec = json!({"features": features_of(expectation.reference), "min_samples": 100, "epsilon": 1e-4,
        "thresholds": {"possible": 0.1, "drift": 0.25}, "significance": 0.001});
    specify_window(expectation.window, &mut spec);
    if let Some(segments) = expectation.segments {
        segments.specify(&mut spec);
    }
    if let Some(quality) = expectation.quality {
        quality.specify(&mut spec);
    }
    spec
}

/// Windows in the oracle's words. Gives the model of the whole topic with such windows.
pub(crate) fn specify_window(window: WindowKind, spec: &mut Value) -> &'static str {
    match window {
        WindowKind::Count { size, every } => {
            (spec["window_size"], spec["check_interval"]) = (size.into(), every.into());
            "tests/oracle/whole_topic.py"
        }
        WindowKind::Time {
            size_ms, every_ms, grace_ms, ..
        } => {
            (spec["size_ms"], spec["every_ms"], spec["grace_ms"]) = (size_ms.into(), every_ms.into(), grace_ms.into());
            spec["timestamp_field"] = TIME_FIELD.into();
            "tests/oracle/whole_topic_time.py"
        }
    }
}

/// The features of a reference document in the oracle's words.
pub(crate) fn features_of(document: &Value) -> Vec<Value> {
    document["features"]
        .as_array()
        .expect("features")
        .iter()
        .map(|feature| {
            let mut spec = json!({"name": feature["name"], "reference_counts": feature["counts"], "reference_missing": feature["missing"]});
            for field in ["edges", "values", "categories", "range"] {
                if let Some(value) = feature.get(field) {
                    spec[field] = value.clone();
                }
            }
            if let Some(other) = feature.get("other") {
                spec["reference_other"] = other.clone();
            }
            spec
        })
        .collect()
}

/// Per feature the same events in the same order: counts, texts and statuses equal, PSI to 1e-12, p-values to 1e-8.
pub(crate) fn compare(whose: &str, expected: &[Value], found: &[Value]) {
    let features = |events: &[Value]| -> BTreeMap<String, Vec<Value>> {
        let mut by_feature: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for event in events {
            by_feature
                .entry(event["feature"].as_str().expect("feature").to_owned())
                .or_default()
                .push(event.clone());
        }
        by_feature
    };
    let (expected, found) = (features(expected), features(found));
    for (feature, expected) in &expected {
        let found = found.get(feature).map_or(&[][..], Vec::as_slice);
        for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
            for (field, value) in expected.as_object().expect("an object") {
                assert!(
                    same(field, value, &found[field]),
                    "{whose}, {feature}, event {index}: {field} is {} and not {value}\n{found}",
                    found[field]
                );
            }
        }
        assert_eq!(found.len(), expected.len(), "{whose}, {feature}: number of events");
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{whose}: features");
}

fn same(field: &str, expected: &Value, found: &Value) -> bool {
    let tolerance = match field {
        "psi" | "psi_null_mean" | "top_bin_contribution" => 1e-12,
        "p_value" => 1e-8,
        _ => return expected == found,
    };
    match (expected.as_f64(), found.as_f64()) {
        (Some(expected), Some(found)) => (expected - found).abs() <= tolerance * expected.abs().max(1e-3),
        (None, None) => expected == found,
        _ => false,
    }
}

/// Each bad record once, as it came, with KIP-1034's headers; and nothing else.
fn compare_dead_letters(expectation: &Expectation<'_>, bad: &[&OwnedRecord], letters: &[OwnedRecord]) -> usize {
    let mut by_origin: BTreeMap<(i32, i64), &OwnedRecord> = BTreeMap::new();
    for letter in letters {
        assert_eq!(header(letter, "__streams.errors.topic"), expectation.topic);
        assert!(!header(letter, "__streams.errors.message").is_empty() && !header(letter, "__streams.errors.exception").is_empty());
        let origin = origin(letter);
        assert!(by_origin.insert(origin, letter).is_none(), "dead letter of {origin:?} twice");
    }
    for record in bad {
        let origin = (record.partition, record.offset);
        let letter = by_origin
            .remove(&origin)
            .unwrap_or_else(|| panic!("no dead letter of {origin:?}: {:?}", record.value));
        if letter.value.is_none() {
            let size: usize = header(letter, "leeway.dead_letter.value_bytes").parse().expect("a number");
            assert_eq!(
                Some(size),
                record.value.as_ref().map(Vec::len),
                "a dead letter without its value gives its size"
            );
        } else {
            assert_eq!(
                (&letter.key, &letter.value),
                (&record.key, &record.value),
                "a dead letter of {origin:?} is as it came"
            );
        }
    }
    assert!(by_origin.is_empty(), "dead letters of records that are valid: {:?}", by_origin.keys());
    std::io::stderr().flush().expect("standard error");
    letters.len()
}
