//! `leeway check` as a user runs it: files in, a table, JSON or a page out, and an exit code.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

fn check(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leeway"))
        .arg("check")
        .args(arguments)
        .current_dir(directory)
        .env_remove("NO_COLOR")
        .output()
        .expect("leeway starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

/// A reference sample and a shifted one: `age` moves, `plan` gets a new category, `score` stays.
fn samples() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let row = |number: u32, shift: u32| {
        let plan = if shift > 0 && number.is_multiple_of(5) {
            "trial"
        } else {
            ["basic", "pro"][(number % 2) as usize]
        };
        format!("{},{plan},{}\n", 20 + number * 7919 % 50 + shift, number * 31 % 97)
    };
    let sample = |shift| (0..2000).fold("age,plan,score\n".to_owned(), |text, number| text + &row(number, shift));
    std::fs::write(directory.path().join("train.csv"), sample(0)).expect("written");
    std::fs::write(directory.path().join("today.csv"), sample(15)).expect("written");
    directory
}

/// As a producer sends it: infinities cannot be said in JSON but as numbers beyond the doubles, NaN not at all.
fn line(value: &Value, categorical: bool) -> String {
    let value = match value.as_str() {
        Some("Infinity") if !categorical => "1e999".to_owned(),
        Some("-Infinity") if !categorical => "-1e999".to_owned(),
        Some("NaN") if !categorical => "null".to_owned(),
        _ => value.to_string(),
    };
    format!("{{\"x\": {value}}}\n")
}

fn close(found: &Value, expected: &Value, relative: f64, absolute: f64) -> bool {
    let (found, expected) = (found.as_f64().expect("a number"), expected.as_f64().expect("a number"));
    (found - expected).abs() <= relative * expected.abs() + absolute
}

/// Js and chi2 are those of the vector; ks and wasserstein are as the page has them, and as near to the values' as it says.
fn expect_measures(found: &Value, expected: &Value, page: &str, name: &str) {
    let short = name.split('_').next().expect("a name");
    // There infinities are values of the outer bins, and here they are missing.
    if short != "p11" {
        assert!(close(&found["js"], &expected["js_distance"], 0.0, 1e-9), "{name}: {found}");
        assert!(close(&found["chi2_p_value"], &expected["chi2_p"], 0.0, 1e-8), "{name}: {found}");
    }
    let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {short} | ")));
    let Some(row) = row else {
        assert_eq!((&found["ks"], &found["wasserstein"]), (&Value::Null, &Value::Null), "{name} has no order");
        return;
    };
    let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
    for (metric, cells) in [("ks", &cells[..3]), ("wasserstein", &cells[3..])] {
        let [raw, binned, bound] = cells else { panic!("{row}") };
        let Some(value) = found[metric].as_f64() else {
            assert_eq!(*binned, "null", "{name}: {metric}");
            continue;
        };
        assert_eq!(format!("{value:.4}"), *binned, "{name}: {metric}");
        let number = |text: &str| -> f64 { text.trim().parse().expect("a number") };
        let (least, most) = bound.split_once(" to ").expect("a bound");
        let error = expected[metric].as_f64().expect("a number") - value;
        assert_eq!(format!("{:.4}", expected[metric].as_f64().expect("a number")), *raw, "{name}: {metric}");
        // The page has four digits.
        let within = number(least) - 1e-4..=number(most) + 1e-4;
        assert!(within.contains(&error), "{name}: {metric} is off by {error}, not within {bound}");
    }
}

#[test]
fn check_of_each_golden_vector_gives_its_numbers() {
    let mut seen = 0;
    let page = std::fs::read_to_string("docs/measures.md").expect("a page");
    for entry in std::fs::read_dir("topology/tests/golden").expect("vectors") {
        let vector: Value = serde_json::from_slice(&std::fs::read(entry.expect("an entry").path()).expect("read")).expect("JSON");
        let (name, expected, categorical) = (&vector["name"], &vector["expected"], vector["kind"] == "categorical");
        let directory = tempfile::tempdir().expect("a temporary directory");
        for sample in ["reference", "current"] {
            let lines: String = vector[sample]
                .as_array()
                .expect("a sample")
                .iter()
                .map(|value| line(value, categorical))
                .collect();
            std::fs::write(directory.path().join(format!("{sample}.jsonl")), lines).expect("written");
        }
        let bins = &vector["bins"];
        let count = bins["count"].as_u64().unwrap_or(10);
        let binning = match bins["strategy"].as_str().expect("a strategy") {
            strategy @ ("quantile" | "uniform") => format!("x={strategy}:{count}"),
            "edges" | "explicit" => {
                let edges: Vec<String> = bins["edges"].as_array().expect("edges").iter().map(Value::to_string).collect();
                format!("x=edges:{}", edges.join(","))
            }
            strategy => format!("x={strategy}"),
        };
        let epsilon = vector["epsilon"].to_string();
        let output = check(
            directory.path(),
            &[
                "--reference",
                "reference.jsonl",
                "--current",
                "current.jsonl",
                "--format",
                "json",
                "--significance",
                "0",
                "--feature",
                &binning,
                "--epsilon",
                &epsilon,
                "--metrics",
                "js,ks,wasserstein,chi2",
            ],
        );
        let found = &json(&output)["features"][0];
        expect_measures(found, expected, &page, name.as_str().expect("a name"));
        assert!(close(&found["psi"], &expected["psi"], 1e-12, 1e-15), "{name}: {found}");
        assert!(close(&found["p_value"], &expected["p_value"], 0.0, 1e-8), "{name}: {found}");
        assert_eq!(found["status"], expected["psi_status"], "{name}");
        let bins = expected["per_bin"].as_array().expect("bins");
        assert_eq!(
            found["counts"],
            bins.iter().map(|bin| bin["actual_count"].clone()).collect::<Value>(),
            "{name}"
        );
        assert_eq!(
            output.status.code(),
            Some(if expected["psi_status"] == "drift" { 3 } else { 0 }),
            "{name}"
        );
        seen += 1;
    }
    assert_eq!(seen, 12, "vectors");
}

#[test]
fn file_against_itself_has_psi_zero_and_exits_0() {
    let directory = samples();
    let output = check(
        directory.path(),
        &["--reference", "train.csv", "--current", "train.csv", "--format", "json"],
    );
    let report = json(&output);
    assert_eq!(
        (&report["summary"]["psi"], output.status.code()),
        (&Value::from(0.0), Some(0)),
        "{report}"
    );
    assert_eq!(report["features"].as_array().map(Vec::len), Some(3));
}

#[test]
fn table_begins_with_the_worst_feature_and_the_exit_code_tells_of_drift() {
    let directory = samples();
    let output = check(directory.path(), &["--reference", "train.csv", "--current", "today.csv"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{table}");
    let rows: Vec<&str> = table.lines().filter(|line| line.contains("drift") && line.starts_with('│')).collect();
    assert!(
        rows[0].contains("age") && rows[1].contains("plan") && rows[2].contains("score"),
        "{table}"
    );
    assert!(rows[1].contains("__other__") && rows[2].contains("no drift"), "{table}");
    assert!(table.contains("drift: 2 of 3 features drift"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours but on a terminal");
}

#[test]
fn share_at_its_threshold_is_a_violation_told_everywhere_without_any_drift() {
    let directory = samples();
    // As the reference, but for every tenth plan, which it does not name, and every twentieth age.
    let row = |number: u32| {
        let plan = if number.is_multiple_of(10) {
            "gold"
        } else {
            ["basic", "pro"][(number % 2) as usize]
        };
        let age = if number.is_multiple_of(20) {
            String::new()
        } else {
            (20 + number * 7919 % 50).to_string()
        };
        format!("{age},{plan},{}\n", number * 31 % 97)
    };
    let rows = (0..2000).fold("age,plan,score\n".to_owned(), |text, number| text + &row(number));
    std::fs::write(directory.path().join("today.csv"), rows).expect("written");
    // So that nothing drifts, however much has changed.
    let files = [
        "--reference",
        "train.csv",
        "--current",
        "today.csv",
        "--possible-drift",
        "8",
        "--drift",
        "9",
    ];
    let with = |more: &[&str]| check(directory.path(), &[&files[..], more].concat());

    let silent = with(&["--format", "json"]);
    assert_eq!((silent.status.code(), &json(&silent)["quality"]), (Some(0), &json!([])));
    let bearable = with(&["--other", "0.11", "--out-of-range", "0.5", "--format", "json"]);
    assert_eq!(bearable.status.code(), Some(0), "{}", text(&bearable.stdout));

    let limits = ["--missing", "0.06", "--other", "0.1", "--html", "report.html"];
    let violated = with(&[&limits[..], &["--format", "json"][..]].concat());
    let report = json(&violated);
    assert_eq!(
        (violated.status.code(), &report["summary"]["status"]),
        (Some(3), &Value::from("no_drift"))
    );
    let quality = report["quality"].as_array().expect("features");
    let of = |name: &str| quality.iter().find(|found| found["feature"] == name).expect("a feature");
    assert_eq!(quality.len(), 3, "{report}");
    assert_eq!(
        *of("plan"),
        json!({"feature": "plan", "status": "violated", "window_count": 2000, "missing_share": 0.0, "missing_threshold": 0.06, "other_share": 0.1,
            "other_threshold": 0.1, "out_of_range_share": null, "out_of_range_threshold": null, "violations": ["other"],
            "examples": [{"value": "gold", "count": 200}], "reference_version": report["summary"]["reference_version"]})
    );
    assert_eq!(
        (&of("age")["status"], &of("age")["missing_share"], &of("age")["examples"]),
        (&Value::from("ok"), &Value::from(0.05), &Value::Null)
    );

    let table = with(&limits);
    let lines = text(&table.stdout);
    assert_eq!(table.status.code(), Some(3), "{lines}");
    assert!(lines.contains("quality: 1 of 3 features violated"), "{lines}");
    assert!(
        lines.contains("10.00 % ≥ 10 %") && lines.contains("5.00 % < 6 %") && lines.contains("\"gold\" (200)"),
        "{lines}"
    );
    let page = std::fs::read_to_string(directory.path().join("report.html")).expect("a report");
    assert!(
        page.contains("quality violated") && page.contains("10.00 % ≥ 10 %") && page.contains("gold"),
        "{page}"
    );

    let refused = with(&["--missing", "1.5"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("missing = 1.5: must be above 0 and at most 1"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn threshold_that_applies_to_no_feature_is_told() {
    let directory = samples();
    std::fs::write(
        directory.path().join("numbers.csv"),
        (0..500).fold("x\n".to_owned(), |text, number| text + &format!("{}.5\n", number * 7919 % 501)),
    )
    .expect("written");
    let output = check(
        directory.path(),
        &[
            "--reference",
            "numbers.csv",
            "--current",
            "numbers.csv",
            "--other",
            "0.1",
            "--out-of-range",
            "0.1",
        ],
    );
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("warning: --other applies to no feature of the reference"), "{errors}");
    assert!(!errors.contains("--out-of-range"), "{errors}");
}

#[test]
fn reference_file_gives_what_its_data_gives() {
    let directory = samples();
    let build = Command::new(env!("CARGO_BIN_EXE_leeway"))
        .args(["reference", "build", "--input", "train.csv", "--output", "reference.json"])
        .current_dir(directory.path())
        .output()
        .expect("leeway starts");
    assert!(build.status.success(), "{}", text(&build.stderr));
    let against = |reference| {
        json(&check(
            directory.path(),
            &["--reference", reference, "--current", "today.csv", "--format", "json"],
        ))
    };
    assert_eq!(against("reference.json"), against("train.csv"));

    let refused = check(
        directory.path(),
        &["--reference", "reference.json", "--current", "today.csv", "--feature", "age=uniform:5"],
    );
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("reference.json is a reference and has its bins"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn feature_within_json_lines_is_found_by_its_path() {
    let directory = samples();
    let nested = |name: &str, shift: u32| {
        let line = |number: u32| format!("{{\"in\": {{\"age\": {}}}}}\n", number * 7919 % 50 + shift);
        std::fs::write(directory.path().join(name), (0..2000).map(line).collect::<String>()).expect("written");
    };
    nested("train.jsonl", 20);
    nested("today.jsonl", 35);
    let against = |reference: &str, current: &str| {
        let arguments = [
            "--reference",
            reference,
            "--current",
            current,
            "--path",
            "age=/in/age",
            "--format",
            "json",
        ];
        check(directory.path(), &arguments)
    };
    let features = |output: &Output| json(output)["features"].clone();
    let lines = features(&against("train.jsonl", "today.jsonl"));
    assert_eq!((&lines[0]["feature"], &lines[0]["missing_count"]), (&Value::from("age"), &Value::from(0)));
    // A table has no paths, and what is checked against it may.
    let table = features(&against("train.csv", "today.jsonl"));
    assert_eq!((&table[0]["psi"], &table[0]["counts"]), (&lines[0]["psi"], &lines[0]["counts"]));
    let same = against("train.jsonl", "train.jsonl");
    assert_eq!((&json(&same)["summary"]["psi"], same.status.code()), (&Value::from(0.0), Some(0)));

    let refused = against("train.csv", "today.csv");
    assert_eq!(refused.status.code(), Some(2));
    let words = "--path age: today.csv is a table, whose columns are found by their names; paths are for JSON-lines";
    assert!(text(&refused.stderr).contains(words), "{}", text(&refused.stderr));
    for (path, words) in [
        ("age=in/age", "must begin with `/`"),
        ("age", "expected NAME=POINTER"),
        ("=/in/age", "name is missing"),
    ] {
        let output = check(
            directory.path(),
            &["--reference", "train.csv", "--current", "today.jsonl", "--path", path],
        );
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
    let output = check(
        directory.path(),
        &["--reference", "train.csv", "--current", "today.jsonl", "--path", "ages=/in/age"],
    );
    assert!(
        text(&output.stderr).contains("has no feature \"ages\"; it has age"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn page_is_one_file_and_escapes_what_stands_in_names() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let rows = |value| format!("{{\"<b>x</b> & y\": \"{value}<script>\"}}\n").repeat(200);
    std::fs::write(directory.path().join("train.jsonl"), rows("a")).expect("written");
    std::fs::write(directory.path().join("today.jsonl"), rows("b")).expect("written");
    let output = check(
        directory.path(),
        &["--reference", "train.jsonl", "--current", "today.jsonl", "--html", "report.html"],
    );
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let page = std::fs::read_to_string(directory.path().join("report.html")).expect("a report");
    assert!(
        page.contains("&lt;b&gt;x&lt;&#x2f;b&gt; &amp; y") || page.contains("&lt;b&gt;x&lt;/b&gt; &amp; y"),
        "{page}"
    );
    assert!(page.contains("a&lt;script&gt;"), "{page}");
    for other in ["<script", "http://", "https://", "<link", "@import", "url("] {
        assert!(!page.contains(other), "{other} in the page");
    }
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let directory = samples();
    std::fs::write(
        directory.path().join("lines.jsonl"),
        "{\"age\": 30}\n[1]\n\n{\"age\": 31, \"plan\": \"pro\"}\n",
    )
    .expect("written");
    std::fs::write(directory.path().join("none.jsonl"), "no\n").expect("written");
    std::fs::write(directory.path().join("x.parquet"), "").expect("written");
    let said = |arguments: &[&str]| {
        let output = check(directory.path(), arguments);
        (output.status.code(), text(&output.stderr))
    };
    let (code, stderr) = said(&["--reference", "train.csv", "--current", "lines.jsonl", "--significance", "0"]);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("skipped: 2 lines of lines.jsonl that are no JSON object"), "{stderr}");
    assert!(
        stderr.contains("warning: no row of lines.jsonl has \"score\": it counts as missing in all of them"),
        "{stderr}"
    );
    for (arguments, exit, words) in [
        (
            ["train.csv", "none.jsonl", "--drift", "0.3"],
            1,
            "none.jsonl: no rows to check (1 lines are no JSON object)",
        ),
        (["train.csv", "today.csv", "--drift", "0.05"], 2, "drift = 0.05"),
        (["train.csv", "today.csv", "--feature", "ages=uniform:5"], 1, "ages"),
        (["train.csv", "gone.csv", "--drift", "0.3"], 1, "gone.csv"),
        (["train.csv", "x.parquet", "--drift", "0.3"], 1, "x.parquet: EOF: Parquet file too small"),
    ] {
        let [reference, current, flag, value] = arguments;
        let (code, stderr) = said(&["--reference", reference, "--current", current, flag, value]);
        assert_eq!(code, Some(exit), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
    }
}
