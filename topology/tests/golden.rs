//! Vectors from other libraries: sample in, bins, counts, PSI and p-value out, through the public path (bytes of records in, events out).

#![expect(clippy::unwrap_used, reason = "a vector that cannot be read is a failed test")]

use std::sync::Arc;

use leeway_topology::binning::Binning;
use leeway_topology::event::DriftEvent;
use leeway_topology::ids::{Partition, Timestamp};
use leeway_topology::processor::{Monitor, PublishedReferences};
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};
use leeway_topology::test_driver::TestDriver;
use leeway_topology::window::{CountWindow, Window};
use serde_json::Value;

/// Non-finite numbers stand there as texts: missing. A categorical sample keeps its texts.
fn cell<'a>(value: &'a Value, categorical: bool) -> Cell<'a> {
    match value {
        Value::Number(number) => Cell::Number(number.as_f64().unwrap()),
        Value::Bool(value) => Cell::Bool(*value),
        Value::String(text) if categorical => Cell::Text(text),
        _ => Cell::Missing,
    }
}

/// As a producer sends it: infinities cannot be said in JSON but as numbers beyond the doubles, NaN not at all.
fn field(value: &Value, categorical: bool) -> String {
    match value.as_str() {
        Some("Infinity") if !categorical => "1e999".to_owned(),
        Some("-Infinity") if !categorical => "-1e999".to_owned(),
        Some("NaN") if !categorical => "null".to_owned(),
        _ => value.to_string(),
    }
}

fn binning(bins: &Value) -> Binning {
    let count = bins["count"].as_u64().unwrap_or(10);
    let edges = || bins["edges"].as_array().unwrap().iter().map(|edge| edge.as_f64().unwrap()).collect();
    match bins["strategy"].as_str().unwrap() {
        "quantile" => Binning::Quantile { bins: count as usize },
        "uniform" => Binning::Uniform { bins: count as usize },
        "edges" | "explicit" => Binning::Edges(edges()),
        "discrete" => Binning::Discrete,
        "categorical" => Binning::Categorical,
        other => panic!("strategy {other}"),
    }
}

fn reference(vector: &Value) -> Reference {
    let categorical = vector["kind"] == "categorical";
    let column = if categorical { ColumnType::Text } else { ColumnType::Number };
    let overrides = [("x".to_owned(), binning(&vector["bins"]))];
    let mut builder = ReferenceBuilder::new("default", &[("x".to_owned(), column)], &Binning::Auto { bins: 10 }, &overrides, 50).unwrap();
    for value in vector["reference"].as_array().unwrap() {
        builder.push_row([cell(value, categorical)]);
    }
    let built = builder.finish().unwrap().0;
    Reference::from_json(&built.to_json()).unwrap()
}

/// One check over the whole current sample.
fn check(vector: &Value, reference: &Reference) -> DriftEvent {
    let categorical = vector["kind"] == "categorical";
    let current = vector["current"].as_array().unwrap();
    let size = current.len() as u64;
    let mut monitor = Monitor::new("default", "drift-data");
    monitor.window = Window::Count(CountWindow::new(size, size).unwrap());
    monitor.min_samples = 1;
    monitor.criteria.epsilon = vector["epsilon"].as_f64().unwrap();
    monitor.criteria.significance = 0.0;
    let mut references = PublishedReferences::default();
    references.publish(Arc::new(reference.clone()));
    let mut driver = TestDriver::new("golden", vec![monitor], references);
    let values: Vec<Vec<u8>> = current
        .iter()
        .map(|value| format!("{{\"x\": {}}}", field(value, categorical)).into_bytes())
        .collect();
    let output = driver.pipe_values(Partition(0), Timestamp(0), values.iter().map(Vec::as_slice)).unwrap();
    let event = output.events.iter().find(|event| &*event.feature == "x").unwrap();
    DriftEvent::from_json(&event.to_json()).unwrap()
}

fn close(found: f64, expected: &Value, relative: f64, absolute: f64) -> bool {
    let expected = expected.as_f64().unwrap();
    (found - expected).abs() <= relative * expected.abs() + absolute
}

#[test]
fn every_vector_holds_from_bytes_to_event() {
    let directory = "tests/golden";
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let vector: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = vector["name"].as_str().unwrap();
        let reference = reference(&vector);
        let feature = &reference.features()[0];
        let expected = &vector["expected"];
        let bins = expected["per_bin"].as_array().unwrap();

        let document: Value = serde_json::from_slice(&reference.to_json()).unwrap();
        let known = &document["features"][0];
        if let (Some(edges), Some(built)) = (vector["bins"].get("edges"), known.get("edges")) {
            assert_eq!(built, edges, "{name}: edges");
        }
        let event = check(&vector, &reference);
        let column = |field: &str| -> Vec<u64> { bins.iter().map(|bin| bin[field].as_u64().unwrap()).collect() };
        assert_eq!(feature.counts(), column("expected_count"), "{name}: reference counts");
        assert_eq!(
            event.counts.as_deref().map(<[u64]>::to_vec),
            Some(column("actual_count")),
            "{name}: counts"
        );
        for (index, bin) in bins.iter().enumerate() {
            assert_eq!(feature.label(index), bin["label"].as_str().unwrap(), "{name}: label");
        }
        assert!(
            close(event.psi, &expected["psi"], 1e-12, 1e-15),
            "{name}: psi {} and not {}",
            event.psi,
            expected["psi"]
        );
        assert!(
            close(event.p_value.unwrap(), &expected["p_value"], 0.0, 1e-8),
            "{name}: p {:?} and not {}",
            event.p_value,
            expected["p_value"]
        );
        assert!(
            close(event.psi_null_mean.unwrap(), &expected["psi_null_mean"], 1e-12, 1e-15),
            "{name}: null mean"
        );
        assert_eq!(serde_json::to_value(event.status).unwrap(), expected["psi_status"], "{name}: status");
        seen += 1;
    }
    assert_eq!(seen, 12, "vectors");
}
