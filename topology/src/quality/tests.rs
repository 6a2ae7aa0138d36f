use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::decoder::Decoder;
use crate::histogram::{Histogram, Total};
use crate::reference::Reference;

/// A number between edges, a discrete one, a category, and a number of which no reference value is known.
fn reference() -> Reference {
    let features = [
        json!({"name": "age", "kind": "numeric", "binning": "edges", "edges": [0.0], "range": [-10.0, 10.0], "counts": [50, 50], "missing": 0}),
        json!({"name": "doors", "kind": "numeric", "binning": "discrete", "values": [2, 4], "range": [2.0, 4.0], "counts": [50, 50], "other": 0, "missing": 0}),
        json!({"name": "plan", "kind": "categorical", "binning": "categorical", "categories": ["a", "b"], "counts": [60, 40], "other": 0, "missing": 0}),
        json!({"name": "gone", "kind": "numeric", "binning": "edges", "edges": [], "range": null, "counts": [0], "missing": 100}),
    ];
    let digest = Sha256::digest(serde_json_canonicalizer::to_vec(&features).unwrap());
    let version: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let document = json!({"schema_version": 1, "version": version, "monitor": "m", "rows": 100, "features": features});
    Reference::from_json(document.to_string().as_bytes()).unwrap()
}

fn layout(reference: &Reference) -> Layout {
    Layout::new(reference.features().iter().map(|feature| feature.counts().len()))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (-20..20_i32).prop_map(|number| json!(number)),
        (-3..6_i32).prop_map(|number| json!(f64::from(number) + 0.5)),
        "[a-d]".prop_map(|text| json!(text)),
        Just(Value::Null),
        Just(json!([1])),
        any::<bool>().prop_map(|flag| json!(flag)),
    ]
}

/// The same, from the values themselves.
fn by_hand(feature: &str, values: &[Value]) -> (f64, f64, f64) {
    let number = |value: &&Value| value.as_f64();
    let part = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let category = |value: &&Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        value => value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number.to_string()),
    };
    let numbers: Vec<f64> = values.iter().filter_map(|value| number(&value)).collect();
    let categories: Vec<String> = values.iter().filter_map(|value| category(&value)).collect();
    let outside = |low: f64, high: f64| part(numbers.iter().filter(|value| **value < low || **value > high).count(), numbers.len());
    let missing = |present: usize| part(values.len() - present, values.len());
    match feature {
        "age" => (missing(numbers.len()), f64::NAN, outside(-10.0, 10.0)),
        "doors" => {
            let other = numbers.iter().filter(|value| ![2.0, 4.0].contains(*value)).count();
            (missing(numbers.len()), part(other, numbers.len()), outside(2.0, 4.0))
        }
        "plan" => {
            let other = categories.iter().filter(|value| !["a", "b"].contains(&value.as_str())).count();
            (missing(categories.len()), part(other, categories.len()), f64::NAN)
        }
        _ => (missing(numbers.len()), f64::NAN, f64::NAN),
    }
}

proptest! {
    #[test]
    fn shares_are_those_of_the_values_themselves(rows in prop::collection::vec([value(), value(), value(), value()], 0..60)) {
        let reference = reference();
        let (layout, mut decoder, mut row) = (layout(&reference), Decoder::new([&reference]), Vec::new());
        let mut histogram = Histogram::new(&layout);
        for [age, doors, plan, gone] in &rows {
            let record = json!({"age": age, "doors": doors, "plan": plan, "gone": gone});
            decoder.decode(record.to_string().as_bytes(), &mut row).unwrap();
            histogram.observe(&layout, &row);
        }
        let mut total = Total::new(&layout);
        total.add(&histogram);
        for (index, feature) in reference.features().iter().enumerate() {
            let values: Vec<Value> = rows.iter().map(|row| row[index].clone()).collect();
            let (missing, other, out_of_range) = by_hand(feature.name(), &values);
            let known = |share: f64| (!share.is_nan()).then_some(share);
            let expected = ByViolation { missing: Some(missing), other: known(other), out_of_range: known(out_of_range) };
            prop_assert_eq!(shares(feature, index, &layout, &histogram), expected, "{}", feature.name());
            prop_assert_eq!(shares(feature, index, &layout, &total), expected, "of panes of time");
        }
    }

    #[test]
    fn frequent_values_are_kept_and_counts_err_by_a_ninth_of_all_at_most(values in prop::collection::vec(0..40_u32, 0..300)) {
        // Some values are far more frequent than others.
        let values: Vec<String> = values.into_iter().map(|value| format!("v{}", value * value / 160)).collect();
        let mut frequent = FrequentValues::default();
        values.iter().for_each(|value| frequent.push(value));
        let examples = frequent.examples();
        prop_assert!(examples.len() <= EXAMPLES_MAX);
        let error = (values.len() / (EXAMPLES_MAX + 1)) as u64;
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        values.iter().for_each(|value| *counts.entry(value).or_default() += 1);
        for (value, count) in &counts {
            let found = examples.iter().find(|example| example.value == *value).map_or(0, |example| example.count);
            prop_assert!(found <= *count && found + error >= *count, "{value}: {found} of {count}");
        }
        if counts.len() <= EXAMPLES_MAX {
            prop_assert!(examples.iter().all(|example| example.count == counts[example.value.as_str()]), "exact while there is room");
        }
        prop_assert!(examples.is_sorted_by(|a, b| (b.count, &a.value) < (a.count, &b.value)));
    }

    #[test]
    fn examples_go_on_from_what_was_kept(values in prop::collection::vec("[a-m]", 0..100), at in 0..100_usize) {
        let mut straight = FrequentValues::default();
        values.iter().for_each(|value| straight.push(value));
        let (before, after) = values.split_at(at.min(values.len()));
        let mut first = FrequentValues::default();
        before.iter().for_each(|value| first.push(value));
        let mut second = FrequentValues::restore(first.examples());
        after.iter().for_each(|value| second.push(value));
        prop_assert_eq!(second.examples(), straight.examples());
    }
}

#[test]
fn limits_hold_where_they_apply_and_a_feature_with_its_own_has_no_others() {
    let all = ByViolation {
        missing: Some(0.1),
        other: Some(0.2),
        out_of_range: Some(0.3),
    };
    let own = ByViolation {
        other: Some(0.5),
        ..ByViolation::default()
    };
    let mut quality = Quality {
        limits: all,
        feature_limits: [("plan".to_owned(), own)].into(),
    };
    let reference = reference();
    let limits = |quality: &Quality| -> Vec<_> {
        let limits = reference.features().iter().map(|feature| quality.limits_of(feature));
        limits.map(|limits| (limits.missing, limits.other, limits.out_of_range)).collect()
    };
    assert_eq!(
        limits(&quality),
        [
            (Some(0.1), None, Some(0.3)),
            (Some(0.1), Some(0.2), Some(0.3)),
            (None, Some(0.5), None),
            (Some(0.1), None, None)
        ]
    );
    quality.limits = ByViolation::default();
    assert!(quality.limits_of(&reference.features()[0]).is_empty());
    assert!(!quality.is_off());
    assert!(Quality::default().is_off(), "by default");
}

#[test]
fn share_at_its_limit_is_a_violation_and_one_below_it_or_without_a_limit_is_none() {
    let limits = ByViolation {
        missing: Some(0.5),
        other: Some(0.5),
        out_of_range: None,
    };
    let shares = ByViolation {
        missing: Some(0.5),
        other: Some(0.499),
        out_of_range: Some(1.0),
    };
    assert_eq!(violations(&shares, &limits), [Violation::Missing]);
    assert_eq!(violations(&ByViolation::default(), &limits), []);
}

#[test]
fn long_values_are_cut_where_a_character_ends_and_count_together() {
    let mut frequent = FrequentValues::default();
    let long = "ü".repeat(40);
    frequent.push(&format!("x{long}1"));
    frequent.push(&format!("x{long}2"));
    let examples = frequent.examples();
    assert_eq!((examples.len(), examples[0].count), (1, 2));
    assert_eq!(
        examples[0].value,
        format!("x{}", "ü".repeat(31)),
        "63 bytes: one more is half a character"
    );
    assert_eq!(beginning("short"), "short");
}
