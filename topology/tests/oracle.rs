//! The whole dataflow against a brute-force model: bytes in, JSON of events out.
//!
//! `oracle/*.events.jsonl` were written by a model that recounts each window from scratch, in another language and with another library's
//! chi-square distribution. Counts, texts and statuses must be equal; PSI to 1e-12 relative, p-values to 1e-8. Then the same records once more,
//! crashed at several places, with and without a commit before: the bytes must be the same. With segments also with a cache so small that windows
//! are read from the store all the time. Fixtures `q*` have quality events among them, in the order in which they are written.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use leeway_topology::drift::{Criteria, Thresholds};
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::{Disposition, Monitor, Outputs, PublishedReferences, Scopes};
use leeway_topology::quality::{ByViolation, Quality};
use leeway_topology::record::InputRecord;
use leeway_topology::reference::Reference;
use leeway_topology::test_driver::{Output, TestDriver};
use leeway_topology::window::time::TimeWindow;
use leeway_topology::window::{CountWindow, Window};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[path = "oracle/whole_topic.rs"]
mod whole_topic;

const PARTITION: Partition = Partition(3);

struct Fixture {
    name: &'static str,
    spec: Value,
    records: Vec<Vec<u8>>,
    events: Vec<Value>,
    /// Offsets of the records that are not valid.
    invalid: Vec<i64>,
    /// Of each record; `None`: made up.
    times: Option<Vec<i64>>,
    /// Of each record, where the whole topic is watched.
    partitions: Vec<i32>,
    /// Numbers of valid records after which the partition was idle.
    idle: BTreeSet<u64>,
    /// Numbers of valid records after which another reference was taken over, and its name in the spec.
    changes: BTreeMap<u64, String>,
}

/// How a fixture is run: where the driver crashes, and with how much memory.
#[derive(Clone, Copy, Debug)]
struct Run {
    commit_every: usize,
    cache_bytes: usize,
    /// Crashes come some records after a commit, so that these are processed again.
    replays: bool,
}

impl Fixture {
    fn read(name: &'static str) -> Self {
        let file = |kind: &str| fs::read(format!("tests/oracle/{name}.{kind}")).unwrap();
        // An empty line is a record: an empty value.
        let mut records: Vec<Vec<u8>> = file("records.jsonl").split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        if records.last().is_some_and(Vec::is_empty) {
            records.pop();
        }
        let optional = |kind: &str| fs::read_to_string(format!("tests/oracle/{name}.{kind}")).ok();
        Self {
            name,
            times: optional("times.txt").map(|times| times.lines().map(|line| line.parse().unwrap()).collect()),
            partitions: optional("partitions.txt")
                .unwrap_or_default()
                .lines()
                .map(|line| line.parse().unwrap())
                .collect(),
            idle: optional("idle.txt")
                .unwrap_or_default()
                .lines()
                .map(|line| line.parse().unwrap())
                .collect(),
            changes: optional("changes.txt")
                .unwrap_or_default()
                .lines()
                .map(|line| line.split_once(' ').unwrap())
                .map(|(number, name)| (number.parse().unwrap(), name.to_owned()))
                .collect(),
            spec: serde_json::from_slice(&file("spec.json")).unwrap(),
            records,
            events: String::from_utf8(file("events.jsonl"))
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            invalid: String::from_utf8(file("invalid.txt"))
                .unwrap()
                .lines()
                .map(|line| line.parse::<i64>().unwrap() - 1)
                .collect(),
        }
    }

    /// The spec's bins and counts as a reference document.
    fn reference(&self) -> Reference {
        Self::reference_of(&self.spec["features"])
    }

    fn reference_of(features: &Value) -> Reference {
        let features = features.as_array().unwrap();
        let rows = features.iter().map(rows).max().unwrap();
        let features: Vec<Value> = features.iter().map(feature).collect();
        let digest = Sha256::digest(serde_json_canonicalizer::to_vec(&features).unwrap());
        let version: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let document = json!({"schema_version": 1, "version": version, "monitor": "default", "rows": rows, "features": features});
        Reference::from_json(document.to_string().as_bytes()).unwrap()
    }

    fn monitor(&self) -> Monitor {
        monitor(&self.spec)
    }

    fn references(&self) -> PublishedReferences {
        let mut references = PublishedReferences::default();
        references.publish(Arc::new(self.reference()));
        references
    }

    fn driver(&self) -> TestDriver {
        TestDriver::new("oracle", [self.monitor()], self.references())
    }

    fn record(&self, offset: usize) -> InputRecord<'_> {
        let made_up = 1_700_000_000_000 + offset as i64 * 7 % 1000;
        let time = self.times.as_ref().map_or(made_up, |times| times[offset]);
        InputRecord {
            offset: Offset(offset as i64),
            timestamp: (time >= 0).then_some(Timestamp(time)),
            value: Some(&self.records[offset]),
            key: None,
        }
    }

    fn check(&self) {
        let straight = Run {
            commit_every: usize::MAX,
            cache_bytes: usize::MAX,
            replays: false,
        };
        let (rejected, written) = self.run(straight);
        assert_eq!(rejected, self.invalid, "{}: invalid records", self.name);
        self.compare_all(&written);
        for commit_every in [1, 13, 97, 1009] {
            for cache_bytes in [usize::MAX, 0] {
                let run = Run {
                    commit_every,
                    cache_bytes,
                    // A reference that is known earlier in the replay may be taken over earlier.
                    replays: self.changes.is_empty(),
                };
                assert_eq!(self.run(run).1, written, "{}: {run:?}", self.name);
            }
        }
    }

    /// The same of the whole topic: what the partitions ship is merged as it comes.
    fn check_whole_topic(&self) {
        let written = self.run_whole_topic(usize::MAX);
        self.compare_all(&written);
        for commit_every in [1, 13, 97] {
            assert_eq!(
                self.run_whole_topic(commit_every),
                written,
                "{}: restarts each {commit_every} records",
                self.name
            );
        }
    }

    fn run_whole_topic(&self, commit_every: usize) -> Vec<Vec<u8>> {
        let monitor = Monitor {
            scopes: Scopes::GLOBAL,
            ..self.monitor()
        };
        let mut input = TestDriver::new("oracle", [monitor.clone()], self.references());
        let mut global = TestDriver::global("oracle", [monitor], self.references());
        let mut written = Vec::new();
        for (number, partition) in (1..).zip(&self.partitions) {
            let partition = Partition(*partition);
            let record = InputRecord {
                offset: input.position(partition),
                ..self.record(number - 1)
            };
            let shipped = input.pipe(partition, [record]).unwrap();
            assert_eq!(events(shipped.clone()), Vec::<Vec<u8>>::new(), "partitions are not checked");
            written.extend(events(global.pipe_panes(Partition(0), &shipped.panes).unwrap()));
            if number.is_multiple_of(commit_every) {
                for driver in [&mut input, &mut global] {
                    driver.commit();
                    driver.restart();
                }
            }
        }
        written
    }

    fn compare_all(&self, written: &[Vec<u8>]) {
        for (written, expected) in written.iter().zip(&self.events) {
            compare(self.name, &serde_json::from_slice(written).unwrap(), expected);
        }
        assert_eq!(written.len(), self.events.len(), "{}: events", self.name);
    }

    /// Offsets that were rejected, and the events.
    fn run(&self, run: Run) -> (Vec<i64>, Vec<Vec<u8>>) {
        let mut driver = self.driver().with_cache(run.cache_bytes);
        // By offset: what is processed again is written again, and must be the same.
        let mut written: BTreeMap<i64, Vec<Vec<u8>>> = BTreeMap::new();
        let (mut commits, mut crashed_at, mut rejected) = (0, None, Vec::new());
        loop {
            let offset = driver.position(PARTITION).0;
            if offset == self.records.len() as i64 {
                break;
            }
            let invalid_before = self.invalid.iter().filter(|invalid| **invalid < offset).count() as u64;
            let number = offset as u64 + 1 - invalid_before;
            let (is_valid, is_idle) = (!self.invalid.contains(&offset), self.idle.contains(&number));
            let change = |driver: &mut TestDriver| {
                if let Some(name) = self.changes.get(&number).filter(|_| is_valid) {
                    driver.publish(Self::reference_of(&self.spec["references"][name])).unwrap();
                }
            };
            if !is_idle {
                change(&mut driver);
            }
            let output = driver.pipe(PARTITION, [self.record(offset as usize)]).unwrap();
            if matches!(output.dispositions[0], Disposition::Rejected(_)) && !rejected.contains(&offset) {
                rejected.push(offset);
            }
            let mut bytes = events(output);
            if is_idle && is_valid {
                change(&mut driver);
                bytes.extend(events(driver.close_idle(PARTITION).unwrap()));
            }
            if let Some(before) = written.insert(offset, bytes.clone()) {
                assert_eq!(before, bytes, "{}: replay of record {offset}", self.name);
            }
            let is_commit = (offset as usize + 1).is_multiple_of(run.commit_every);
            if is_commit {
                driver.commit();
                commits += 1;
            }
            let is_crash = if run.replays {
                commits % 2 == 1 && offset as usize % run.commit_every == run.commit_every / 2
            } else {
                is_commit
            };
            if is_crash && crashed_at.is_none_or(|at| at < offset) {
                crashed_at = Some(offset);
                driver.restart();
            }
        }
        (rejected, written.into_values().flatten().collect())
    }
}

/// Events of all kinds as they are written, in that order.
fn events(output: Output) -> Vec<Vec<u8>> {
    let mut outputs = Outputs {
        events: output.events,
        quality: output.quality,
        panes: output.panes,
    };
    let mut written = Vec::with_capacity(outputs.event_count());
    outputs.drain_events(&mut |event| written.push(event.to_json()));
    written
}

/// A spec's monitor.
fn monitor(spec: &Value) -> Monitor {
    let number = |name: &str| spec[name].as_u64().unwrap();
    let field = |name: &Value| name.as_str().unwrap().parse().unwrap();
    let fields = |names: &Value| names.as_array().map(|names| names.iter().map(field).collect());
    let monitor = Monitor {
        window: if spec["size_ms"].is_null() {
            Window::Count(CountWindow::new(number("window_size"), number("check_interval")).unwrap())
        } else {
            Window::Time(TimeWindow::new(number("size_ms"), number("every_ms"), number("grace_ms")).unwrap())
        },
        segment_by: fields(&spec["segment_by"]).unwrap_or_default(),
        max_segments: spec["max_segments"].as_u64().unwrap_or(10_000),
        segment_expiry_ms: spec["segment_expiry_ms"].as_u64(),
        timestamp_field: spec["timestamp_field"].as_str().map(|name| name.parse().unwrap()),
        min_samples: number("min_samples"),
        criteria: Criteria {
            epsilon: spec["epsilon"].as_f64().unwrap(),
            significance: spec["significance"].as_f64().unwrap(),
            thresholds: Thresholds {
                possible_drift: spec["thresholds"]["possible"].as_f64().unwrap(),
                drift: spec["thresholds"]["drift"].as_f64().unwrap(),
            },
            ..Criteria::default()
        },
        quality: quality(spec),
        ..Monitor::new("default", "drift-data")
    };
    monitor.validate().unwrap();
    monitor
}

/// Of a feature's own limits those that are left out are the monitor's.
fn quality(spec: &Value) -> Quality {
    let limits_of = |spec: &Value, unset: ByViolation| ByViolation {
        missing: spec["missing"].as_f64().or(unset.missing),
        other: spec["other"].as_f64().or(unset.other),
        out_of_range: spec["out_of_range"].as_f64().or(unset.out_of_range),
    };
    let limits = limits_of(&spec["quality"], ByViolation::default());
    let own = spec["feature_quality"].as_object().into_iter().flatten();
    Quality {
        limits,
        feature_limits: own.map(|(feature, spec)| (feature.clone(), limits_of(spec, limits))).collect(),
    }
}

fn compare(fixture: &str, written: &Value, expected: &Value) {
    let place = format!("{fixture}: {} at record {}", expected["feature"], expected["record_count"]);
    // Drift events of the model do not say so.
    let kind = expected.get("kind").map_or("drift", |kind| kind.as_str().unwrap());
    assert_eq!(written["kind"], kind, "{place}: {written}");
    for (field, expected) in expected.as_object().unwrap() {
        let found = written.get(field).unwrap_or_else(|| panic!("{place}: no {field}"));
        match (found.as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => {
                let tolerance = match field.as_str() {
                    "psi" | "psi_null_mean" | "top_bin_contribution" => 1e-15 + 1e-12 * expected.abs(),
                    "p_value" => 1e-8,
                    _ => 0.0,
                };
                assert!((found - expected).abs() <= tolerance, "{place}: {field} {found}, not {expected}");
            }
            _ => assert_eq!(found, expected, "{place}: {field}"),
        }
    }
}

/// One feature of a spec as a reference document has it.
fn feature(spec: &Value) -> Value {
    let mut feature = json!({"name": spec["name"], "counts": spec["reference_counts"], "missing": spec["reference_missing"]});
    let (kind, binning, bins) = if spec["edges"].is_array() {
        ("numeric", "edges", "edges")
    } else if spec["values"].is_array() {
        ("numeric", "discrete", "values")
    } else {
        ("categorical", "categorical", "categories")
    };
    feature["kind"] = kind.into();
    feature["binning"] = binning.into();
    feature[bins] = spec[bins].clone();
    if kind == "numeric" {
        feature["range"] = spec["range"].clone();
    }
    if bins != "edges" {
        feature["other"] = spec["reference_other"].clone();
    }
    feature
}

fn rows(spec: &Value) -> u64 {
    let ordinary: u64 = spec["reference_counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|count| count.as_u64().unwrap())
        .sum();
    ordinary + spec["reference_other"].as_u64().unwrap_or(0) + spec["reference_missing"].as_u64().unwrap_or(0)
}

#[test]
fn shift_after_3000_records() {
    Fixture::read("f1_shift_after_3000").check();
}

#[test]
fn invalid_missing_and_wrong_types() {
    Fixture::read("f2_invalid_missing_wrong_types").check();
}

#[test]
fn first_checks_of_a_small_window_are_not_alarms() {
    Fixture::read("f3_first_checks_of_a_small_window_are_not_alarms").check();
}

#[test]
fn check_after_every_record() {
    Fixture::read("f4_every_record").check();
}

#[test]
fn values_on_the_edges() {
    Fixture::read("f5_edge_ties").check();
}

#[test]
fn categories_booleans_and_integers() {
    Fixture::read("f6_categories_booleans_integers").check();
}

#[test]
fn min_samples_above_the_window() {
    Fixture::read("f7_min_samples_above_window").check();
}

#[test]
fn empty_partition() {
    Fixture::read("f8_empty_partition").check();
}

#[test]
fn segments_by_two_fields() {
    Fixture::read("s1_segments_by_two_fields").check();
}

#[test]
fn more_segments_than_allowed() {
    Fixture::read("s2_more_segments_than_allowed").check();
}

#[test]
fn segments_that_expire() {
    Fixture::read("s3_segments_that_expire").check();
}

#[test]
fn time_windows_of_segments() {
    Fixture::read("s4_time_windows_of_segments").check();
}

#[test]
fn idle_closings_and_expiry_of_segments() {
    Fixture::read("s5_idle_closings_and_expiry").check();
}

#[test]
fn changes_of_reference_with_segments() {
    Fixture::read("s6_changes_of_reference").check();
}

#[test]
fn changes_of_reference_with_time_windows_of_segments() {
    Fixture::read("s7_changes_of_reference_in_time").check();
}

#[test]
fn quality_of_count_windows() {
    Fixture::read("q1_quality_of_count_windows").check();
}

#[test]
fn quality_of_time_windows() {
    Fixture::read("q2_quality_of_time_windows").check();
}

#[test]
fn quality_of_segments_that_expire_and_change_their_reference() {
    Fixture::read("q3_quality_of_segments").check();
}

#[test]
fn quality_of_time_windows_of_segments_that_change_their_reference() {
    Fixture::read("q4_quality_of_time_windows_of_segments").check();
}

#[test]
fn quality_of_the_whole_topic() {
    Fixture::read("q5_quality_of_the_whole_topic").check_whole_topic();
}
