//! `leeway state` tells what a state directory holds, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use leeway::state::directory::{DirectoryError, StateDirectory};
use leeway::state::inspect::{Head, InspectError, KeptWindow, inspect};
use leeway::state::store::{Batch, StateStore, StoreOptions, TaskRange};
use leeway_topology::codec::encode_extended;
use leeway_topology::ids::{Offset, Partition, RecordNumber};
use leeway_topology::quality::{Example, QualityStatus};
use leeway_topology::state::{FeatureQualityHead, QualityHead, WindowHead, window_key};
use serde_json::{Value, json};

use crate::world::{APPLICATION, World};

fn open(path: &Path) -> StateStore {
    let directory = StateDirectory::open(path, APPLICATION).expect("a directory");
    StateStore::open(&directory, StoreOptions::default()).expect("a store")
}

fn task(partition: i32) -> TaskRange {
    TaskRange {
        store: "windows-in".into(),
        partition: Partition(partition),
    }
}

/// Every file of a folder, with its bytes.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .filter(|entry| entry.file_type().expect("a type").is_file())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file")))
        .collect()
}

#[test]
fn state_is_told_while_a_worker_has_it_open_and_after_its_end() {
    let scratch = tempfile::tempdir().expect("a directory");
    let world = World::new(2);
    let store = open(scratch.path());
    let mut one = world.start_on("one", 1, 0, store.clone());
    world.produce(0, 250);
    world.produce(1, 120);
    world.drain(&mut [&mut one]);
    // Kafka first: what is committed there is in the store a step later.
    let stored = || -> i64 {
        let contents = inspect(scratch.path()).expect("read");
        let progress = contents.tasks.values().filter_map(|of_task| of_task.progress.as_ref());
        progress.map(|progress| progress.next_offset.0).sum()
    };
    world.run_until(&mut [&mut one], |_| stored() == 370).expect("no thread fails");
    let seen = |when: &str| {
        let contents = inspect(scratch.path()).expect(when);
        assert_eq!(contents.owner.application_id, APPLICATION, "{when}");
        assert_eq!(contents.unreadable, Vec::<String>::new(), "{when}");
        let tasks: Vec<_> = contents.tasks.keys().cloned().collect();
        assert_eq!(tasks, [task(0), task(1)], "{when}");
        for (partition, records) in [(0, 250), (1, 120)] {
            let of_task = &contents.tasks[&task(partition)];
            let progress = of_task.progress.as_ref().expect("committed");
            assert_eq!(
                (progress.next_offset, progress.record_number),
                (Offset(records), records as u64),
                "{when}"
            );
            assert!(of_task.checkpoint.is_some(), "{when}");
            let [
                KeptWindow {
                    key,
                    head: Head::Count(head),
                    quality: None,
                },
            ] = of_task.windows.as_slice()
            else {
                panic!("{when}: {:?}", of_task.windows)
            };
            assert_eq!(
                (key.as_str(), head.size, head.record_number.0),
                ("window of monitor default", 100, records as u64),
                "{when}"
            );
            assert!(of_task.panes > 0 && of_task.bytes > 0, "{when}");
            assert_eq!(of_task.keys, of_task.panes + 3, "{when}: progress, checkpoint, window and the panes");
        }
    };
    seen("while it is open");
    world.stop(one);
    seen("after the thread's end");
    store.close().expect("closed");
    let (before, database) = (files(scratch.path()), files(&scratch.path().join("db")));
    seen("after the process's end");
    assert!(
        before == files(scratch.path()) && database == files(&scratch.path().join("db")),
        "reading changed nothing"
    );
}

#[test]
fn value_that_cannot_be_read_is_told_beside_the_rest() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    let lease = store.lease(task(3)).expect("free");
    let mut batch = Batch::new();
    batch.put(&lease, &window_key("default", ""), Some(b"rubbish"));
    batch.put(&lease, b"\x7fstrange", Some(b""));
    store.write(batch).expect("written");
    let contents = inspect(scratch.path()).expect("read");
    assert_eq!(contents.tasks[&task(3)].keys, 2);
    let [window, strange] = contents.unreadable.as_slice() else {
        panic!("{:?}", contents.unreadable)
    };
    assert!(window.starts_with("windows-in-3: window of monitor default: "), "{window}");
    assert!(strange.contains("no kind of key that this build knows"), "{strange}");
}

#[test]
fn what_quality_checks_keep_of_a_window_is_told_with_it() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = open(scratch.path());
    let lease = store.lease(task(3)).expect("free");
    let head: WindowHead = WindowHead {
        size: 100,
        every: 10,
        record_number: RecordNumber(20),
        start: RecordNumber(0),
        reference_version: "0123456789abcdef".into(),
        stream_time: None,
        features: Vec::new(),
        summary: None,
    };
    let of_feature = |name: &str, status, examples: &[(&str, u64)]| FeatureQualityHead {
        name: name.into(),
        status,
        examples: examples
            .iter()
            .map(|&(value, count)| Example {
                value: value.to_owned(),
                count,
            })
            .collect(),
    };
    let quality = QualityHead {
        features: vec![
            of_feature("plan", Some(QualityStatus::Violated), &[("gold", 3), ("", 1)]),
            of_feature("age", None, &[]),
        ],
    };
    let mut batch = Batch::new();
    batch.put(&lease, &window_key("default", ""), Some(&encode_extended(&head, Some(&quality))));
    batch.put(&lease, &window_key("plain", ""), Some(&encode_extended(&head, None::<&QualityHead>)));
    store.write(batch).expect("written");

    let contents = inspect(scratch.path()).expect("read");
    assert_eq!(contents.unreadable, Vec::<String>::new());
    let kept: Vec<_> = contents.tasks[&task(3)]
        .windows
        .iter()
        .map(|window| (&*window.key, &window.quality))
        .collect();
    assert_eq!(kept, [("window of monitor default", &Some(quality)), ("window of monitor plain", &None)]);

    let state = |format: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_leeway"))
            .args(["state", "--format", format, "--state-dir"])
            .arg(scratch.path())
            .env_clear()
            .current_dir(scratch.path())
            .output()
            .expect("leeway starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{}", text(output.stderr));
        text(output.stdout)
    };
    let json: Value = serde_json::from_str(&state("json")).expect("JSON");
    let windows = &json["tasks"][0]["windows"];
    assert_eq!(
        windows[0]["quality"],
        json!([
            {"feature": "plan", "status": "violated", "examples": [{"value": "gold", "count": 3}, {"value": "", "count": 1}]},
            {"feature": "age", "status": null, "examples": []},
        ])
    );
    assert_eq!(windows[1]["quality"], Value::Null);
    let table = state("text");
    let row = |feature: &str| table.lines().find(|line| line.contains(feature)).unwrap_or_else(|| panic!("{table}"));
    assert!(
        row("plan").contains("violated") && row("plan").contains(r#""gold" (3), "" (1)"#),
        "{table}"
    );
    assert!(row("age").split_whitespace().any(|cell| cell == "-"), "{table}");
}

#[test]
fn directory_that_is_none_or_of_a_newer_format_is_refused_in_words() {
    let scratch = tempfile::tempdir().expect("a directory");
    for path in [scratch.path().to_owned(), scratch.path().join("nowhere")] {
        let error = inspect(&path).expect_err("nothing is there");
        assert!(matches!(error, InspectError::Directory(DirectoryError::Missing { .. })), "{error:?}");
        assert!(error.to_string().contains("is no state directory"), "{error}");
        assert!(!scratch.path().join("nowhere").exists(), "nothing is made");
    }
    fs::write(scratch.path().join("process.json"), r#"{"format_version": 2}"#).expect("written");
    let error = inspect(scratch.path()).expect_err("of a newer format");
    assert!(error.to_string().contains("has format 2, this build knows up to 1"), "{error}");
}
