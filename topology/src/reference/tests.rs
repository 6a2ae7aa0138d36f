//! References: built, written, read, refused.

use super::*;
use crate::binning::Binning;
use crate::decoder::Decoder;

mod limits;

fn build(columns: &[(&str, ColumnType)], rows: &[&[Cell<'_>]], overrides: &[(&str, &str)]) -> Result<(Reference, Vec<Warning>), ReferenceError> {
    let columns: Vec<_> = columns.iter().map(|(name, column)| ((*name).to_owned(), *column)).collect();
    let overrides: Vec<_> = overrides
        .iter()
        .map(|(name, binning)| ((*name).to_owned(), binning.parse().unwrap()))
        .collect();
    let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 10 }, &overrides, 50)?;
    rows.iter().for_each(|row| builder.push_row(row.iter().copied()));
    builder.finish()
}

fn plans() -> Reference {
    let row = |plan, doors| [Cell::Text(plan), Cell::Number(doors)];
    let rows: Vec<_> = (0..100)
        .map(|i| row(if i % 4 == 0 { "pro" } else { "basic" }, if i % 2 == 0 { 2.0 } else { 4.0 }))
        .collect();
    let rows: Vec<&[Cell<'_>]> = rows.iter().map(|row| row.as_slice()).collect();
    build(&[("plan", ColumnType::Text), ("doors", ColumnType::Number)], &rows, &[]).unwrap().0
}

#[test]
fn a_document_reads_back_as_it_was_written() {
    let reference = plans();
    let json = reference.to_json();
    let again = Reference::from_json(&json).unwrap();
    assert_eq!(again.to_json(), json);
    assert_eq!(again.version(), reference.version());
    assert_eq!((again.rows(), again.monitor()), (100, "default"));
}

#[test]
fn the_version_is_that_of_the_content_and_stays_for_all_releases() {
    assert_eq!(plans().version(), "e912e6bdeddd1926", "{}", String::from_utf8_lossy(&plans().to_json()));
    assert_eq!(plans().with_monitor("other").version(), plans().version());
}

#[test]
fn an_edited_document_is_refused_with_what_to_do() {
    let edited = String::from_utf8(plans().to_json()).unwrap().replace("75", "76");
    let error = Reference::from_json(edited.as_bytes()).unwrap_err();
    assert!(matches!(error, ReferenceError::Version { .. }));
    assert!(error.to_string().contains("leeway reference build"));
}

#[test]
fn range_may_be_null_but_not_left_out() {
    let document = |range: &str| {
        let features = format!(r#"[{{"name":"a","kind":"numeric","binning":"edges","edges":[1.0],{range}"counts":[2,3],"missing":0}}]"#);
        let version = version_of(&serde_json::from_str(&features).unwrap()).unwrap();
        format!(r#"{{"schema_version": 1, "version": "{version}", "monitor": "default", "rows": 5, "features": {features}}}"#)
    };
    let reference = Reference::from_json(document(r#""range":null,"#).as_bytes()).unwrap();
    assert_eq!(Reference::from_json(&reference.to_json()).unwrap().version(), reference.version());
    let error = Reference::from_json(document("").as_bytes()).unwrap_err();
    assert!(matches!(error, ReferenceError::Malformed(_)), "{error}");
}

#[test]
fn another_schema_version_is_named() {
    let newer = String::from_utf8(plans().to_json())
        .unwrap()
        .replace("\"schema_version\": 1", "\"schema_version\": 2");
    assert_eq!(
        Reference::from_json(newer.as_bytes()).unwrap_err(),
        ReferenceError::SchemaVersion { found: 2 }
    );
    assert!(matches!(Reference::from_json(b"{}"), Err(ReferenceError::Malformed(_))));
}

#[test]
fn few_and_frequent_numbers_are_discrete_and_texts_most_frequent_first() {
    let reference = plans();
    let [plan, doors] = reference.features() else { panic!("two features") };
    assert_eq!(
        (plan.binning(), plan.counts(), plan.label(0)),
        ("categorical", &[75, 25, 0, 0][..], "basic".to_owned())
    );
    assert_eq!(
        (doors.binning(), doors.counts(), doors.label(1)),
        ("discrete", &[50, 50, 0, 0][..], "4".to_owned())
    );
    assert_eq!((doors.label(2), doors.label(3)), ("__other__".to_owned(), "__missing__".to_owned()));
}

#[test]
fn names_that_cannot_be_and_columns_without_values_are_refused() {
    let number = [Cell::Number(1.0)];
    let fault = |name: &str| build(&[(name, ColumnType::Number)], &[&number], &[]).unwrap_err().to_string();
    assert!(fault("*").contains("summary"));
    assert!(fault("").contains("name"));
    let twice = build(&[("a", ColumnType::Number), ("a", ColumnType::Number)], &[], &[]).unwrap_err();
    assert!(twice.to_string().contains("twice"), "{twice}");
    let empty = build(&[("a", ColumnType::Number)], &[&[Cell::Missing]], &[("a", "quantile:5")]).unwrap_err();
    assert!(empty.to_string().contains("no row has a value"), "{empty}");
    assert_eq!(
        build(&[("a", ColumnType::Number)], &[&[Cell::Missing]], &[]).unwrap_err(),
        ReferenceError::NoFeatures
    );
    assert_eq!(build(&[("a", ColumnType::Number)], &[], &[]).unwrap_err(), ReferenceError::NoRows);
    assert!(
        build(&[("a", ColumnType::Text)], &[&[Cell::Text("x")]], &[("a", "quantile:5")])
            .unwrap_err()
            .to_string()
            .contains("takes numbers")
    );
    assert!(
        build(&[("a", ColumnType::Text)], &[&[Cell::Text("x")]], &[("b", "discrete")])
            .unwrap_err()
            .to_string()
            .contains("no such column")
    );
}

#[test]
fn ids_and_targets_are_left_out_unless_they_are_named() {
    let columns = [("id", ColumnType::Number), ("a", ColumnType::Number)];
    let rows: [&[Cell<'_>]; 2] = [&[Cell::Number(1.0), Cell::Number(5.0)], &[Cell::Number(2.0), Cell::Number(4.0)]];
    let (reference, warnings) = build(&columns, &rows, &[]).unwrap();
    assert_eq!(reference.features().len(), 1);
    assert!(warnings.iter().any(|warning| matches!(warning, Warning::FewRowsPerBin { .. })));
    let (reference, warnings) = build(&columns, &rows, &[("id", "quantile:2")]).unwrap();
    assert_eq!(reference.features().len(), 2);
    assert!(warnings.contains(&Warning::OnlyRises { feature: "id".to_owned() }));
}

#[test]
fn a_selection_keeps_the_version_and_names_what_is_not_there() {
    let selected = plans().select(&["doors".to_owned()]).unwrap();
    assert_eq!((selected.features().len(), selected.version()), (1, plans().version()));
    let error = plans().select(&["wheels".to_owned()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the reference of monitor \"default\" has no feature \"wheels\"; it has plan, doors"
    );
}

#[test]
fn of_a_duplicate_field_the_last_counts_and_fields_may_come_in_any_order() {
    let reference = plans();
    let mut decoder = Decoder::new([&reference]);
    let mut row = Vec::new();
    let mut bins = |json: &str| {
        decoder.decode(json.as_bytes(), &mut row).unwrap();
        row.iter().map(|observation| observation.bin).collect::<Vec<_>>()
    };
    assert_eq!(bins(r#"{"plan": "pro", "doors": 4}"#), [1, 1]);
    assert_eq!(bins(r#"{"x": [1], "doors": 2.0, "plan": "basic"}"#), [0, 0]);
    assert_eq!(bins(r#"{"plan": "pro", "plan": "basic"}"#), [0, 3]);
    assert_eq!(bins(r#"{"doors": 1e400, "plan": true}"#), [2, 3]);
    assert_eq!(bins(r#"{"pl\u0061n": "pro"}"#), [1, 3]);
}

#[test]
fn a_column_without_values_is_left_out_with_a_warning() {
    let columns = [("a", ColumnType::Number), ("b", ColumnType::Number)];
    let (reference, warnings) = build(&columns, &[&[Cell::Missing, Cell::Number(1.0)]], &[]).unwrap();
    assert_eq!(reference.features().len(), 1);
    assert!(warnings.contains(&Warning::NoValues { feature: "a".to_owned() }));
}
