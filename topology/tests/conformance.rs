//! What a reference promises beyond its counts: it reads its own writing, refuses contradictions, and keeps its order.

#![expect(clippy::unwrap_used, reason = "a document that cannot be made is a failed test")]

use leeway_topology::binning::uniform_edges;
use leeway_topology::reference::Reference;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn document(rows: u64, features: Value) -> Vec<u8> {
    let digest = Sha256::digest(serde_json_canonicalizer::to_vec(&features).unwrap());
    let version: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    json!({"schema_version": 1, "version": version, "monitor": "default", "rows": rows, "features": features})
        .to_string()
        .into_bytes()
}

fn feature(name: &str) -> Value {
    json!({"name": name, "kind": "numeric", "binning": "edges", "edges": [0], "range": [-1, 1], "counts": [4, 5], "missing": 1})
}

#[test]
fn selection_keeps_the_order_of_the_reference() {
    let reference = Reference::from_json(&document(10, json!([feature("a"), feature("b"), feature("c")]))).unwrap();
    let selected = reference.select(&["c".to_owned(), "a".to_owned()]).unwrap();
    let names: Vec<_> = selected.features().iter().map(|feature| feature.name().to_string()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn range_that_runs_backwards_is_refused() {
    let mut backwards = feature("a");
    backwards["range"] = json!([1, -1]);
    assert!(Reference::from_json(&document(10, json!([backwards]))).is_err());
}

#[test]
fn feature_with_an_unknown_field_is_refused_since_writing_it_would_lose_it() {
    let mut noted = feature("a");
    noted["note"] = json!("x");
    let bytes = document(10, json!([noted]));
    assert!(Reference::from_json(&bytes).is_err());
}

#[test]
fn uniform_edges_of_a_range_wider_than_the_doubles_are_finite_and_all_there() {
    let edges = uniform_edges(-1.7e308, 1.7e308, 4);
    assert_eq!(edges.len(), 3, "{edges:?}");
}
