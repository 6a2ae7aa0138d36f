//! `leeway state` tells what a state directory holds, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use leeway::state::directory::{DirectoryError, StateDirectory};
use leeway::state::inspect::{Head, InspectError, inspect};
use leeway::state::store::{Batch, StateStore, StoreOptions, TaskRange};
use leeway_topology::ids::{Offset, Partition};
use leeway_topology::state::window_key;

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
            let [(key, Head::Count(head))] = of_task.windows.as_slice() else {
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
    batch.put(&lease, b"\x09strange", Some(b""));
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
