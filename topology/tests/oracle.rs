//! The whole dataflow against a brute-force model: bytes in, JSON of events out.
//!
//! `oracle/*.events.jsonl` were written by a model that recounts each window from scratch, in another language and with another library's
//! chi-square distribution. Counts, texts and statuses must be equal; PSI to 1e-12 relative, p-values to 1e-8. Then the same records once more,
//! crashed at several places, with and without a commit before: the bytes must be the same.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use leeway_topology::drift::{Criteria, Thresholds};
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::{Disposition, Monitor, PublishedReferences};
use leeway_topology::record::InputRecord;
use leeway_topology::reference::Reference;
use leeway_topology::test_driver::TestDriver;
use leeway_topology::window::{CountWindow, Window};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PARTITION: Partition = Partition(3);

struct Fixture {
    name: &'static str,
    spec: Value,
    records: Vec<Vec<u8>>,
    events: Vec<Value>,
    /// Offsets of the records that are not valid.
    invalid: Vec<i64>,
}

impl Fixture {
    fn read(name: &'static str) -> Self {
        let file = |kind: &str| fs::read(format!("tests/oracle/{name}.{kind}")).unwrap();
        // An empty line is a record: an empty value.
        let mut records: Vec<Vec<u8>> = file("records.jsonl").split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        if records.last().is_some_and(Vec::is_empty) {
            records.pop();
        }
        Self {
            name,
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
        let features: Vec<Value> = self.spec["features"].as_array().unwrap().iter().map(feature).collect();
        let rows = self.spec["features"].as_array().unwrap().iter().map(rows).max().unwrap();
        let digest = Sha256::digest(serde_json_canonicalizer::to_vec(&features).unwrap());
        let version: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let document = json!({"schema_version": 1, "version": version, "monitor": "default", "rows": rows, "features": features});
        Reference::from_json(document.to_string().as_bytes()).unwrap()
    }

    fn driver(&self) -> TestDriver {
        let number = |name: &str| self.spec[name].as_u64().unwrap();
        let monitor = Monitor {
            window: Window::Count(CountWindow::new(number("window_size"), number("check_interval")).unwrap()),
            min_samples: number("min_samples"),
            criteria: Criteria {
                epsilon: self.spec["epsilon"].as_f64().unwrap(),
                significance: self.spec["significance"].as_f64().unwrap(),
                thresholds: Thresholds {
                    possible_drift: self.spec["thresholds"]["possible"].as_f64().unwrap(),
                    drift: self.spec["thresholds"]["drift"].as_f64().unwrap(),
                },
                ..Criteria::default()
            },
            ..Monitor::new("default", "drift-data")
        };
        monitor.validate().unwrap();
        let mut references = PublishedReferences::default();
        references.publish(Arc::new(self.reference()));
        TestDriver::new("oracle", [monitor], references)
    }

    fn record(&self, offset: usize) -> InputRecord<'_> {
        let time = 1_700_000_000_000 + offset as i64 * 7 % 1000;
        InputRecord {
            offset: Offset(offset as i64),
            timestamp: Some(Timestamp(time)),
            value: Some(&self.records[offset]),
            key: None,
        }
    }

    fn check(&self) {
        let output = self
            .driver()
            .pipe(PARTITION, (0..self.records.len()).map(|offset| self.record(offset)))
            .unwrap();

        let rejected = |disposition: &Disposition| matches!(disposition, Disposition::Rejected(_));
        let invalid: Vec<i64> = (0..)
            .zip(&output.dispositions)
            .filter(|(_, disposition)| rejected(disposition))
            .map(|(offset, _)| offset)
            .collect();
        assert_eq!(invalid, self.invalid, "{}: invalid records", self.name);

        let written: Vec<Vec<u8>> = output.events.iter().map(|event| event.to_json()).collect();
        assert_eq!(written.len(), self.events.len(), "{}: events", self.name);
        for (written, expected) in written.iter().zip(&self.events) {
            self.compare(&serde_json::from_slice(written).unwrap(), expected);
        }

        for commit_every in [1, 13, 97, 1009] {
            assert_eq!(
                self.crashed(commit_every),
                written,
                "{}: crashes, a commit each {commit_every} records",
                self.name
            );
        }
    }

    fn compare(&self, written: &Value, expected: &Value) {
        let place = format!("{}: {} at record {}", self.name, expected["feature"], expected["record_count"]);
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

    /// The events of a run that crashes after every second commit, some records later, and so processes these again.
    fn crashed(&self, commit_every: usize) -> Vec<Vec<u8>> {
        let mut driver = self.driver();
        // By offset: what is processed again is written again, and must be the same.
        let mut written: BTreeMap<i64, Vec<Vec<u8>>> = BTreeMap::new();
        let (mut commits, mut crashed_at) = (0, None);
        loop {
            let offset = driver.position(PARTITION).0 as usize;
            if offset == self.records.len() {
                break;
            }
            let output = driver.pipe(PARTITION, [self.record(offset)]).unwrap();
            let bytes: Vec<_> = output.events.iter().map(|event| event.to_json()).collect();
            if let Some(before) = written.insert(offset as i64, bytes.clone()) {
                assert_eq!(before, bytes, "{}: replay of record {offset}", self.name);
            }
            if (offset + 1).is_multiple_of(commit_every) {
                driver.commit();
                commits += 1;
            }
            if commits % 2 == 1 && offset % commit_every == commit_every / 2 && crashed_at.is_none_or(|at| at < offset) {
                crashed_at = Some(offset);
                driver.restart();
            }
        }
        written.into_values().flatten().collect()
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
