//! References of files: more than is kept, and with paths.

use std::io::Write as _;

use super::*;

const SMALL: Limits = Limits {
    numbers: 2000,
    text_bytes: 20_000,
};

fn options(limits: Limits, paths: &[(&str, &str)]) -> BuildOptions {
    BuildOptions {
        monitor: "default".to_owned(),
        binning: Binning::Auto { bins: 10 },
        overrides: Vec::new(),
        max_categories: 3,
        paths: paths.iter().map(|(name, path)| ((*name).to_owned(), path.parse().unwrap())).collect(),
        limits,
    }
}

/// The same 10,000 rows as CSV and as JSON-lines: a number of many values, one of few, and a text of which three values are frequent.
fn files(directory: &Path) -> [(PathBuf, Format); 2] {
    let (csv, jsonl) = (directory.join("rows.csv"), directory.join("rows.jsonl"));
    let (mut table, mut lines) = (String::from("x,few,text\n"), String::new());
    for i in 0..10_000_u64 {
        let (x, few) = (i * 7919 % 10_007, i % 7);
        let text = if i % 2 == 0 { format!("often{}", i % 3) } else { format!("once{i}") };
        table += &format!("{x},{few},{text}\n");
        lines += &format!("{{\"x\": {x}, \"few\": {few}, \"text\": \"{text}\"}}\n");
    }
    std::fs::write(&csv, table).unwrap();
    std::fs::write(&jsonl, lines).unwrap();
    [(csv, Format::Csv), (jsonl, Format::Jsonl)]
}

#[test]
fn reference_of_more_rows_than_are_kept_is_counted_in_another_reading() {
    let directory = tempfile::tempdir().unwrap();
    for (path, format) in files(directory.path()) {
        let exact = build_reference(&path, format, &options(Limits::default(), &[])).unwrap();
        let built = build_reference(&path, format, &options(SMALL, &[])).unwrap();
        assert!(exact.warnings.iter().all(|warning| !matches!(warning, Warning::SketchedQuantiles { .. })));
        let features = vec!["x".to_owned()];
        assert!(built.warnings.contains(&Warning::SketchedQuantiles { features }), "{:?}", built.warnings);
        let [(x, exact_x), few, text] = &built.reference.features().iter().zip(exact.reference.features()).collect::<Vec<_>>()[..] else {
            panic!("three features")
        };
        for (of, exact) in [few, text] {
            assert_eq!((of.counts(), of.label(0)), (exact.counts(), exact.label(0)), "{}", of.name());
        }
        assert_eq!((x.range(), x.bin_count()), (exact_x.range(), exact_x.bin_count()));
        assert_eq!(x.counts().iter().sum::<u64>(), 10_000);
        // An edge is off by 5 rows at most, and a bin has two.
        let counts = x.counts().iter().zip(exact_x.counts());
        assert!(counts.clone().all(|(count, exact)| count.abs_diff(*exact) <= 10), "{:?}", x.counts());
    }
}

#[test]
fn sketched_features_are_told_of_with_their_bound() {
    let directory = tempfile::tempdir().unwrap();
    let [(path, format), _] = files(directory.path());
    let built = build_reference(&path, format, &options(SMALL, &[])).unwrap();
    let told: Vec<String> = built.warnings.iter().map(ToString::to_string).collect();
    assert!(
        told.contains(&"x: too many values to keep, so the edges are quantiles within 0.05 % of the rows; the counts are exact".to_owned()),
        "{told:?}"
    );
}

#[test]
fn feature_of_a_reference_is_found_by_its_path_and_a_field_of_its_name_is_not_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.jsonl");
    let mut file = File::create(&path).unwrap();
    for i in 0..200 {
        writeln!(file, r#"{{"age": "no", "in": {{"age": {i}, "plan": ["x", "y"]}}, "n": 1}}"#).unwrap();
    }
    writeln!(file, r#"{{"n": 1}}"#).unwrap();
    let paths = [("age", "/in/age"), ("plan", "/in/plan/1")];
    for limits in [Limits::default(), SMALL, Limits { numbers: 0, text_bytes: 0 }] {
        let built = build_reference(&path, Format::Jsonl, &options(limits, &paths)).unwrap();
        let features: Vec<_> = built
            .reference
            .features()
            .iter()
            .map(|feature| (&**feature.name(), feature.binning()))
            .collect();
        assert_eq!(features, [("n", "discrete"), ("age", "quantile"), ("plan", "categorical")]);
        let [_, age, plan] = built.reference.features() else {
            panic!("three features")
        };
        assert_eq!((age.range(), age.counts().last()), (Some((0.0, 199.0)), Some(&1)));
        assert_eq!(plan.counts().last(), Some(&1));
    }
}

#[test]
fn what_gives_its_rows_only_once_is_refused_in_words() {
    for path in ["/dev/null", "/"] {
        let text = build_reference(Path::new(path), Format::Csv, &options(SMALL, &[]))
            .err()
            .unwrap()
            .to_string();
        assert!(text.contains("no regular file") && text.contains("write them to a file first"), "{text}");
    }
}
