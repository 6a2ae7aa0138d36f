//! Values of input records: each is decoded or rejected with a reason, whatever is wanted of it, and an observation of each feature comes of it.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use leeway_topology::binning::Binning;
use leeway_topology::decoder::Decoder;
use leeway_topology::field::{Field, Pointer};
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};
use libfuzzer_sys::fuzz_target;

static REFERENCE: LazyLock<Reference> = LazyLock::new(|| {
    let columns = [
        ("a".to_owned(), ColumnType::Number),
        ("plan".to_owned(), ColumnType::Text),
        ("doors".to_owned(), ColumnType::Number),
    ];
    let overrides = [("doors".to_owned(), Binning::Discrete)];
    let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 10 }, &overrides, 50).expect("a builder");
    for number in 0..100 {
        let plan = if number % 3 == 0 { "pro" } else { "free" };
        builder.push_row([Cell::Number(f64::from(number)), Cell::Text(plan), Cell::Number(f64::from(number % 4))]);
    }
    builder.finish().expect("a reference").0
});

/// Where the features stand, the second time.
static PATHS: LazyLock<BTreeMap<String, Pointer>> = LazyLock::new(|| {
    let paths = [("a", "/a/a"), ("plan", "/plan/0"), ("doors", "/a/0/plan")];
    let entry = |(name, path): (&str, &str)| (name.to_owned(), path.parse().expect("a pointer"));
    paths.into_iter().map(entry).collect()
});

static FIELDS: LazyLock<[Field; 2]> = LazyLock::new(|| ["plan", "/a/a"].map(|field| field.parse().expect("a field")));

fuzz_target!(|value: &[u8]| {
    let mut decoder = Decoder::new([&*REFERENCE]);
    let mut nested = Decoder::empty()
        .with_features(&REFERENCE, &PATHS)
        .with_times(&*FIELDS)
        .with_texts(&*FIELDS);
    let mut row = Vec::new();
    assert_eq!(nested.decode(value, &mut row), decoder.decode(value, &mut Vec::new()));
    match decoder.decode(value, &mut row) {
        Ok(()) => assert_eq!(row.len(), REFERENCE.features().len()),
        Err(rejected) => assert!(!rejected.to_string().is_empty()),
    }
});
