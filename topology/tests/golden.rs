//! Vectors from other libraries: sample in, bins, counts, PSI, p-value and the other metrics out, through the public path (bytes of records in,
//! events out).

#![expect(clippy::unwrap_used, reason = "a vector that cannot be read is a failed test")]

use std::sync::Arc;

use leeway_topology::binning::{Binning, Bins};
use leeway_topology::event::DriftEvent;
use leeway_topology::ids::{Partition, Timestamp};
use leeway_topology::metric::{Metric, js_distance};
use leeway_topology::processor::{Monitor, PublishedReferences};
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};
use leeway_topology::significance::TwoSampleTest;
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
    monitor.criteria.metrics = Metric::ALL.into();
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

fn vectors() -> Vec<Value> {
    let mut paths: Vec<_> = std::fs::read_dir("tests/golden").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert_eq!(paths.len(), 12);
    paths
        .iter()
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .collect()
}

#[test]
fn every_vector_holds_from_bytes_to_event() {
    for vector in vectors() {
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
    }
}

#[test]
fn js_and_chi2_of_the_bins_are_those_of_other_libraries() {
    for vector in vectors() {
        let (name, expected) = (vector["name"].as_str().unwrap(), &vector["expected"]);
        let reference = reference(&vector);
        let (before, event) = (reference.features()[0].counts(), check(&vector, &reference));
        let now = event.counts.unwrap();
        assert_eq!(event.js, js_distance(before, &now), "{name}: js");
        assert_eq!(
            event.chi2_p_value,
            Some(TwoSampleTest::new(before, &now).pearson_p_value()),
            "{name}: chi2"
        );
        // Where the other libraries took infinities for values of the outer bins, here they are missing. Of the same bins all say the same.
        let there = |counts: &[u64], sample: &str| {
            let (mut counts, missing) = (counts.to_vec(), counts.len() - 1);
            for (infinity, bin) in [("-Infinity", 0), ("Infinity", missing - 1)] {
                let many = vector[sample].as_array().unwrap().iter().filter(|value| *value == infinity).count() as u64;
                counts[bin] += many;
                counts[missing] -= many;
            }
            counts
        };
        let (before, now) = (there(before, "reference"), there(&now, "current"));
        let (js, p) = (js_distance(&before, &now).unwrap(), TwoSampleTest::new(&before, &now).pearson_p_value());
        assert!(close(js, &expected["js_distance"], 0.0, 1e-9), "{name}: js {js}");
        assert!(close(p, &expected["chi2_p"], 0.0, 1e-8), "{name}: chi2 p {p}");
    }
}

/// A metric on bins beside the one of the values, and how far apart they may be.
struct Approximation {
    raw: f64,
    binned: Option<f64>,
    /// From where to where the one of the values may lie from it.
    bound: (f64, f64),
}

impl Approximation {
    fn verify(&self, name: &str) {
        let Some(binned) = self.binned else { return };
        let (error, (least, most)) = (self.raw - binned, self.bound);
        assert!(
            (least - 1e-9..=most + 1e-9).contains(&error),
            "{name}: {} and not {binned}: not within {:?}",
            self.raw,
            self.bound
        );
    }
}

/// KS and Wasserstein of a numeric vector, with the bounds that are proven where they are computed.
fn approximations(vector: &Value) -> Option<[Approximation; 2]> {
    let (reference, expected) = (reference(vector), &vector["expected"]);
    let (feature, event) = (&reference.features()[0], check(vector, &reference));
    let Bins::Edges { edges, range } = feature.bins() else {
        assert_eq!((event.ks, event.wasserstein), (None, None), "categories have no order");
        return None;
    };
    let (low, high) = range.unwrap();
    let current: Vec<f64> = vector["current"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    let beyond = |value: f64| (low - value).max(value - high).max(0.0);
    // The parts of the bins that lie within the range.
    let mut within = vec![0_u64; edges.len() + 1];
    for value in current.iter().copied().filter(|value| beyond(*value) == 0.0) {
        within[feature.bins().observe_number(value).bin as usize] += 1;
    }
    let counts = &feature.counts()[..=edges.len()];
    let rows = counts.iter().sum::<u64>() as f64;
    let ends: Vec<f64> = [low]
        .into_iter()
        .chain(edges.iter().map(|edge| edge.clamp(low, high)))
        .chain([high])
        .collect();
    let (mut mass, mut cost) = (0.0_f64, 0.0);
    for (bin, ends) in ends.windows(2).enumerate() {
        let (p, q) = (counts[bin] as f64 / rows, within[bin] as f64 / current.len() as f64);
        // A bin that is one value wide hides nothing.
        if ends[0] < ends[1] {
            mass = mass.max(p.min(q));
        }
        cost += (p + q) * (ends[1] - ends[0]) / 2.0;
    }
    let excess = current.iter().map(|value| beyond(*value)).sum::<f64>() / current.len() as f64;
    assert!(event.ks.is_some());
    assert_eq!(event.wasserstein.is_none(), low == high, "a reference of one value has no widths");
    let raw = |name: &str| expected[name].as_f64().unwrap();
    Some([
        Approximation {
            raw: raw("ks"),
            binned: event.ks,
            bound: (0.0, mass),
        },
        Approximation {
            raw: raw("wasserstein"),
            binned: event.wasserstein,
            bound: (-cost, cost + excess),
        },
    ])
}

#[test]
fn ks_and_wasserstein_of_the_bins_are_within_their_bounds_of_those_of_the_values() {
    for vector in vectors() {
        let name = vector["name"].as_str().unwrap();
        for approximation in approximations(&vector).into_iter().flatten() {
            approximation.verify(name);
        }
    }
}

#[test]
fn figures_in_the_documentation_are_those_of_the_vectors() {
    let page = std::fs::read_to_string("../docs/measures.md").unwrap();
    let mut missing = Vec::new();
    for vector in vectors() {
        let Some([ks, wasserstein]) = approximations(&vector) else { continue };
        let cells = |Approximation { raw, binned, bound }: Approximation| match binned {
            Some(binned) => format!("{raw:.4} | {binned:.4} | {:.4} to {:.4}", bound.0, bound.1),
            None => format!("{raw:.4} | null | "),
        };
        let name = vector["name"].as_str().unwrap().split('_').next().unwrap();
        let row = format!("| {name} | {} | {} |", cells(ks), cells(wasserstein));
        if !page.contains(&row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "docs/measures.md lacks\n{}", missing.join("\n"));
}
