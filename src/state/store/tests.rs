//! Each test runs on memory and, where it is built, on RocksDB.

use super::*;

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Runs a test on each kind of store.
fn on_each_store(test: impl Fn(&StateStore)) {
    test(&StateStore::in_memory());
    #[cfg(feature = "rocksdb")]
    {
        let scratch = tempfile::tempdir().unwrap();
        test(&on_disk::open(scratch.path()));
    }
}

fn task(store: &str, partition: i32) -> TaskRange {
    TaskRange {
        store: store.into(),
        partition: Partition(partition),
    }
}

fn lease(store: &StateStore, name: &str, partition: i32) -> TaskLease {
    store.lease(task(name, partition)).expect("the task is free")
}

fn entries(lease: &TaskLease) -> Entries {
    let mut entries = Vec::new();
    lease
        .for_each(|key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    entries
}

fn texts(pairs: &[(&str, &str)]) -> Entries {
    pairs
        .iter()
        .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

fn put(store: &StateStore, lease: &TaskLease, key: &str, value: &str) {
    let mut batch = Batch::new();
    batch.put(lease, key.as_bytes(), Some(value.as_bytes()));
    store.write(batch).unwrap();
}

#[test]
fn batch_over_tasks_is_written_whole_and_read_in_key_order() {
    on_each_store(|store| {
        let (a, b) = (lease(store, "windows", 0), lease(store, "windows", 1));
        let mut batch = Batch::new();
        batch.put(&a, b"z", Some(b"1"));
        batch.put(&b, b"k", Some(b"2"));
        batch.put(&a, b"m", Some(b"3"));
        batch.put(&a, b"", Some(b"4"));
        batch.put(&a, b"z", Some(b"5"));
        store.write(batch).unwrap();
        assert_eq!(entries(&a), texts(&[("", "4"), ("m", "3"), ("z", "5")]));
        assert_eq!(entries(&b), texts(&[("k", "2")]));
        assert_eq!(a.get(b"m").unwrap().as_deref(), Some(b"3".as_slice()));
        assert_eq!(b.get(b"m").unwrap(), None);
    });
}

#[test]
fn batch_with_one_lost_lease_writes_nothing_of_any_task() {
    on_each_store(|store| {
        let other = StateStore::in_memory();
        let (ours, foreign) = (lease(store, "windows", 0), lease(&other, "windows", 1));
        let mut batch = Batch::new();
        batch.put(&ours, b"k", Some(b"v"));
        batch.put(&foreign, b"k", Some(b"v"));
        assert_eq!(store.write(batch), Err(StoreError::LeaseLost(task("windows", 1))));
        assert_eq!(entries(&ours), []);
        assert_eq!(entries(&foreign), []);
    });
}

fn load(store: &StateStore, lease: &TaskLease, changes: &[(&str, Option<&str>)]) {
    let changes = changes.iter().map(|(key, value)| (key.as_bytes(), value.map(str::as_bytes)));
    store.load(lease, changes).unwrap();
}

#[test]
fn load_sets_and_removes_keys_over_what_was_written_and_loaded_before() {
    on_each_store(|store| {
        let (a, b) = (lease(store, "windows", 0), lease(store, "windows", 1));
        put(store, &a, "written", "1");
        put(store, &a, "kept", "1");
        put(store, &b, "written", "other");
        load(store, &a, &[]);
        load(store, &a, &[("", Some("2")), ("loaded", Some("2")), ("written", Some("2"))]);
        assert_eq!(entries(&a), texts(&[("", "2"), ("kept", "1"), ("loaded", "2"), ("written", "2")]));
        load(store, &a, &[("absent", None), ("loaded", Some("")), ("written", None)]);
        assert_eq!(entries(&a), texts(&[("", "2"), ("kept", "1"), ("loaded", "")]));
        put(store, &a, "loaded", "3");
        assert_eq!(a.get(b"loaded").unwrap().as_deref(), Some(b"3".as_slice()));
        let mut batch = Batch::new();
        batch.clear(&a);
        store.write(batch).unwrap();
        load(store, &a, &[("again", Some("4"))]);
        assert_eq!(entries(&a), texts(&[("again", "4")]));
        assert_eq!(entries(&b), texts(&[("written", "other")]));
    });
}

#[test]
fn load_by_a_lease_that_is_not_held_writes_nothing() {
    on_each_store(|store| {
        let other = StateStore::in_memory();
        let (foreign, ours) = (lease(&other, "windows", 0), lease(store, "windows", 0));
        let lost = Err(StoreError::LeaseLost(task("windows", 0)));
        assert_eq!(store.load(&foreign, [(&b"k"[..], Some(&b"v"[..]))]), lost);
        assert_eq!(entries(&ours), []);
        store.close().unwrap();
        assert_eq!(store.load(&ours, [(&b"k"[..], Some(&b"v"[..]))]), lost);
    });
}

#[test]
fn none_removes_a_key_and_removing_an_absent_one_is_fine() {
    on_each_store(|store| {
        let lease = lease(store, "windows", 0);
        put(store, &lease, "k", "v");
        let mut batch = Batch::new();
        batch.put(&lease, b"k", None);
        batch.put(&lease, b"absent", None);
        store.write(batch).unwrap();
        assert_eq!(lease.get(b"k").unwrap(), None);
        assert_eq!(entries(&lease), []);
    });
}

#[test]
fn empty_value_is_a_value() {
    on_each_store(|store| {
        let lease = lease(store, "windows", 0);
        put(store, &lease, "k", "");
        assert_eq!(lease.get(b"k").unwrap(), Some(Vec::new()));
    });
}

#[test]
fn clear_drops_what_was_there_and_earlier_puts_of_the_batch_but_not_later_ones() {
    on_each_store(|store| {
        let (a, b) = (lease(store, "windows", 0), lease(store, "windows", 1));
        put(store, &a, "old", "1");
        put(store, &a, "kept", "1");
        put(store, &b, "old", "1");
        let mut batch = Batch::new();
        batch.put(&a, b"earlier", Some(b"2"));
        batch.clear(&a);
        batch.put(&a, b"kept", Some(b"3"));
        store.write(batch).unwrap();
        assert_eq!(entries(&a), texts(&[("kept", "3")]));
        assert_eq!(entries(&b), texts(&[("old", "1")]));
    });
}

#[test]
fn clear_takes_keys_of_the_largest_bytes_too() {
    on_each_store(|store| {
        let lease = lease(store, "windows", i32::MAX);
        let mut batch = Batch::new();
        batch.put(&lease, &[0xFF; 64], Some(b"v"));
        batch.put(&lease, &[], Some(b"v"));
        store.write(batch).unwrap();
        assert_eq!(entries(&lease).len(), 2);
        let mut batch = Batch::new();
        batch.clear(&lease);
        store.write(batch).unwrap();
        assert_eq!(entries(&lease), []);
    });
}

#[test]
fn tasks_do_not_see_or_clear_each_other_where_a_name_or_partition_begins_another() {
    // Names that begin each other, hold the escape, or end where a partition's bytes begin; partitions whose bytes carry.
    let tasks: Vec<_> = ["", "a", "a\0", "a\0\0", "ab", "a\u{1}", "b"]
        .iter()
        .flat_map(|name| [0, 1, 2, 255, 256, 65_535, i32::MAX].map(|partition| (*name, partition)))
        .collect();
    on_each_store(|store| {
        let leases: Vec<_> = tasks.iter().map(|(name, partition)| lease(store, name, *partition)).collect();
        let mut batch = Batch::new();
        for lease in &leases {
            for key in [&[][..], &[0], &[0xFF, 0xFF]] {
                batch.put(lease, key, Some(lease.task().to_string().as_bytes()));
            }
        }
        store.write(batch).unwrap();
        for cleared in &leases {
            let mut batch = Batch::new();
            batch.clear(cleared);
            store.write(batch).unwrap();
            for lease in &leases {
                let own = lease.task().to_string().into_bytes();
                let expected = if lease.id <= cleared.id { 0 } else { 3 };
                let found = entries(lease);
                assert_eq!(found.len(), expected, "{lease:?} after the clear of {cleared:?}");
                assert!(found.iter().all(|(_, value)| *value == own), "{lease:?}: {found:?}");
            }
        }
    });
}

#[test]
fn break_ends_a_scan() {
    on_each_store(|store| {
        let lease = lease(store, "windows", 0);
        for key in ["a", "b", "c"] {
            put(store, &lease, key, "");
        }
        let mut seen = 0;
        lease
            .for_each(|key, _| {
                seen += 1;
                if key == b"b" {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        assert_eq!(seen, 2);
    });
}

#[test]
fn task_has_one_holder_at_a_time_over_all_clones_and_threads() {
    on_each_store(|store| {
        let held = lease(store, "windows", 0);
        let clone = store.clone();
        std::thread::scope(|scope| {
            let others = scope.spawn(|| (clone.lease(task("windows", 0)).is_some(), clone.lease(task("windows", 1)).is_some()));
            assert_eq!(others.join().unwrap(), (false, true));
        });
        drop(held);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| clone.lease(task("windows", 0)).is_some());
            assert!(other.join().unwrap());
        });
    });
}

#[test]
fn threads_that_race_for_a_task_never_hold_it_together() {
    on_each_store(|store| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Some(lease) = store.lease(task("windows", 0)) else { continue };
                        assert_eq!(entries(&lease), [], "another holder is between its put and its removal");
                        put(store, &lease, "held", "");
                        let mut batch = Batch::new();
                        batch.clear(&lease);
                        store.write(batch).unwrap();
                    }
                });
            }
        });
    });
}

#[test]
fn lease_of_another_store_cannot_write() {
    on_each_store(|store| {
        let other = StateStore::in_memory();
        let foreign = lease(&other, "windows", 0);
        let _ours = lease(store, "windows", 0);
        let mut batch = Batch::new();
        batch.put(&foreign, b"k", Some(b"v"));
        assert_eq!(store.write(batch), Err(StoreError::LeaseLost(task("windows", 0))));
    });
}

#[test]
fn lease_that_is_not_the_registered_one_cannot_write() {
    on_each_store(|store| {
        let stale = lease(store, "windows", 0);
        store.shared.leases().holders.remove(stale.task());
        let current = lease(store, "windows", 0);
        let mut batch = Batch::new();
        batch.put(&stale, b"k", Some(b"v"));
        assert_eq!(store.write(batch), Err(StoreError::LeaseLost(task("windows", 0))));
        drop(stale);
        assert!(
            store.lease(task("windows", 0)).is_none(),
            "the drop of a stale lease must not free the task"
        );
        put(store, &current, "k", "v");
    });
}

#[test]
fn closed_store_neither_writes_nor_reads_nor_leases() {
    on_each_store(|store| {
        let lease = lease(store, "windows", 0);
        put(store, &lease, "k", "v");
        store.clone().close().unwrap();
        store.close().unwrap();
        let mut batch = Batch::new();
        batch.put(&lease, b"k", Some(b"w"));
        let lost = StoreError::LeaseLost(task("windows", 0));
        assert_eq!(store.write(batch), Err(lost.clone()));
        assert_eq!(lease.get(b"k"), Err(lost.clone()));
        assert_eq!(lease.for_each(|_, _| ControlFlow::Continue(())), Err(lost));
        assert!(store.lease(task("windows", 1)).is_none());
        store.flush().unwrap();
    });
}

#[test]
fn processor_reads_through_the_lease() {
    on_each_store(|store| {
        let lease = lease(store, "windows", 0);
        put(store, &lease, "k", "v");
        let reader: &dyn ReadStore = &lease;
        assert_eq!(reader.get(b"k").unwrap().as_deref(), Some(b"v".as_slice()));
        store.close().unwrap();
        assert!(matches!(reader.get(b"k"), Err(StateError::Store(text)) if text.contains("windows-0")));
    });
}

#[test]
fn scan_sees_the_state_as_it_was_when_it_began() {
    on_each_store(|store| {
        let lease = lease(store, "windows", 0);
        let mut batch = Batch::new();
        for n in 0..100u8 {
            batch.put(&lease, &[n], Some(b"old"));
        }
        store.write(batch).unwrap();
        let mut seen = 0;
        lease
            .for_each(|_, value| {
                if seen == 0 {
                    // Calling the store here is forbidden only because of `close`, which nobody calls now.
                    let mut batch = Batch::new();
                    batch.clear(&lease);
                    store.write(batch).unwrap();
                }
                assert_eq!(value, b"old");
                seen += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, 100);
        assert_eq!(entries(&lease), []);
    });
}

#[test]
fn bytes_of_a_task_prefix_are_those_of_the_format() {
    assert_eq!(prefix(&task("ab", 258)), [1, b'a', b'b', 0, 0, 0, 0, 1, 2]);
    assert_eq!(keys_with(&[1, 0, 0xFF]), vec![1, 0, 0xFF]..vec![1, 1]);
}

#[cfg(feature = "rocksdb")]
mod on_disk {
    use std::fs;
    use std::path::Path;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    pub(super) fn open(path: &Path) -> StateStore {
        let directory = StateDirectory::open(path, "drift-monitor-group").unwrap();
        StateStore::open(&directory, StoreOptions::default()).unwrap()
    }

    /// What it is called, which file, what is done to it.
    type Damage<'a> = (&'a str, &'a dyn Fn(&str) -> bool, &'a dyn Fn(&Path));

    fn open_error(path: &Path) -> StoreError {
        let directory = StateDirectory::open(path, "drift-monitor-group").unwrap();
        StateStore::open(&directory, StoreOptions::default()).unwrap_err()
    }

    fn file_of(path: &Path, found: impl Fn(&str) -> bool) -> std::path::PathBuf {
        let mut files = fs::read_dir(path.join("db")).unwrap().map(|entry| entry.unwrap().path());
        files
            .find(|file| found(file.file_name().unwrap().to_str().unwrap()))
            .expect("there is such a file")
    }

    /// A store with one flushed entry, closed.
    fn written(path: &Path) {
        let store = open(path);
        put(&store, &lease(&store, "windows", 0), "k", "v");
        store.close().unwrap();
    }

    #[test]
    fn reopened_store_has_what_was_written() {
        let scratch = tempfile::tempdir().unwrap();
        written(scratch.path());
        let store = open(scratch.path());
        assert_eq!(entries(&lease(&store, "windows", 0)), texts(&[("k", "v")]));
    }

    #[test]
    fn store_that_was_dropped_without_close_has_what_was_written() {
        let scratch = tempfile::tempdir().unwrap();
        let store = open(scratch.path());
        put(&store, &lease(&store, "windows", 0), "k", "v");
        drop(store);
        let store = open(scratch.path());
        assert_eq!(entries(&lease(&store, "windows", 0)), texts(&[("k", "v")]));
    }

    /// What a process that dies now leaves: the files as they are.
    fn crashed(directory: &Path) -> tempfile::TempDir {
        let crashed = tempfile::tempdir().unwrap();
        fs::create_dir(crashed.path().join("db")).unwrap();
        fs::copy(directory.join("process.json"), crashed.path().join("process.json")).unwrap();
        for file in fs::read_dir(directory.join("db")).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&file, crashed.path().join("db").join(file.file_name().unwrap())).unwrap();
        }
        crashed
    }

    #[test]
    fn files_of_a_live_store_taken_at_any_batch_hold_whole_batches() {
        let scratch = tempfile::tempdir().unwrap();
        let store = open(scratch.path());
        let (a, b) = (lease(&store, "windows", 0), lease(&store, "windows", 1));
        for n in 0..20u8 {
            let mut batch = Batch::new();
            batch.clear(&a);
            batch.put(&a, &[n], Some(&[n]));
            batch.put(&b, b"last", Some(&[n]));
            store.write(batch).unwrap();
        }
        // And half of the last batch's bytes.
        let crashed = crashed(scratch.path());
        let wal = file_of(crashed.path(), |name| name.ends_with(".log"));
        let length = fs::metadata(&wal).unwrap().len();
        fs::File::options().write(true).open(wal).unwrap().set_len(length - 5).unwrap();
        let store = open(crashed.path());
        assert_eq!(entries(&lease(&store, "windows", 0)), [(vec![18], vec![18])]);
        assert_eq!(entries(&lease(&store, "windows", 1)), [(b"last".to_vec(), vec![18])]);
    }

    #[test]
    fn batches_clears_flushes_and_loads_in_any_order_leave_what_a_map_would_and_so_does_the_next_open() {
        for seed in 0..20 {
            println!("seed {seed}");
            let mut random = StdRng::seed_from_u64(seed);
            let scratch = tempfile::tempdir().unwrap();
            let store = open(scratch.path());
            let task = lease(&store, "windows", 0);
            let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for step in 0..60u8 {
                let mut batch = Batch::new();
                let changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = (0..4)
                    .map(|_| (vec![random.random_range(0..8)], random.random_bool(0.7).then(|| vec![step])))
                    .collect();
                match random.random_range(0..8) {
                    0 => {
                        batch.clear(&task);
                        store.write(batch).unwrap();
                        expected.clear();
                        continue;
                    }
                    1 => {
                        store.flush().unwrap();
                        continue;
                    }
                    2..5 => {
                        changes.iter().for_each(|(key, value)| batch.put(&task, key, value.as_deref()));
                        store.write(batch).unwrap();
                    }
                    _ => {
                        let in_order = changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
                        store.load(&task, in_order).unwrap();
                    }
                }
                for (key, value) in changes {
                    match value {
                        Some(value) => expected.insert(key, value),
                        None => expected.remove(&key),
                    };
                }
                assert_eq!(entries(&task), expected.clone().into_iter().collect::<Entries>(), "step {step}");
            }
            // Without a flush: what is in no table yet is in the WAL.
            drop((task, store));
            let found = entries(&lease(&open(scratch.path()), "windows", 0));
            assert_eq!(found, expected.into_iter().collect::<Entries>());
        }
    }

    #[test]
    fn what_a_load_left_that_a_crash_ended_is_removed_and_not_read() {
        let scratch = tempfile::tempdir().unwrap();
        written(scratch.path());
        let left = scratch.path().join("db/load-0.sst");
        fs::write(&left, "half a table").unwrap();
        let store = open(scratch.path());
        assert!(!left.exists());
        let task = lease(&store, "windows", 0);
        load(&store, &task, &[("loaded", Some("v"))]);
        assert_eq!(entries(&task), texts(&[("k", "v"), ("loaded", "v")]));
        assert!(!left.exists(), "it became a table");
    }

    #[test]
    fn lost_wal_leaves_what_was_in_tables_before() {
        let scratch = tempfile::tempdir().unwrap();
        written(scratch.path());
        let store = open(scratch.path());
        let before = entries(&lease(&store, "windows", 0));
        let task = lease(&store, "windows", 0);
        let mut batch = Batch::new();
        batch.put(&task, b"in the WAL only", Some(b"1"));
        store.write(batch).unwrap();
        drop(task);
        assert_ne!(entries(&lease(&store, "windows", 0)), before);
        let crashed = crashed(scratch.path());
        fs::remove_file(file_of(crashed.path(), |name| name.ends_with(".log"))).unwrap();
        assert_eq!(entries(&lease(&open(crashed.path()), "windows", 0)), before);
    }

    #[test]
    fn damaged_and_missing_files_are_damage_and_the_database_is_set_aside() {
        let truncate = |file: &Path| fs::write(file, "x").unwrap();
        let remove = |file: &Path| fs::remove_file(file).unwrap();
        let damages: [Damage; 5] = [
            ("damaged CURRENT", &|name| name == "CURRENT", &truncate),
            ("damaged manifest", &|name| name.starts_with("MANIFEST"), &truncate),
            ("missing manifest", &|name| name.starts_with("MANIFEST"), &remove),
            ("damaged table", &|name| name.ends_with(".sst"), &truncate),
            ("missing table", &|name| name.ends_with(".sst"), &remove),
        ];
        for (what, file, damage) in damages {
            let scratch = tempfile::tempdir().unwrap();
            written(scratch.path());
            damage(&file_of(scratch.path(), file));
            let error = open_error(scratch.path());
            assert!(matches!(error, StoreError::Corrupted(_)), "{what}: {error:?}");
            let remedy = format!(
                "delete {} and start it again",
                scratch.path().canonicalize().unwrap().join("db").display()
            );
            assert!(error.to_string().contains(&remedy), "{what}: {error}");
            // Twice: one that was set aside before is replaced.
            for _ in 0..2 {
                let directory = StateDirectory::open(scratch.path(), "drift-monitor-group").unwrap();
                let (store, damage) = StateStore::open_or_set_aside(&directory, StoreOptions::default()).unwrap();
                assert!(matches!(damage, Some(StoreError::Corrupted(_))), "{what}: {damage:?}");
                assert_eq!(entries(&lease(&store, "windows", 0)), [], "{what}");
                drop((store, directory));
                fs::write(scratch.path().join("db/CURRENT"), "x").unwrap();
            }
            assert!(scratch.path().join("db.damaged").is_dir(), "{what}");
        }
    }

    #[test]
    fn damaged_block_is_an_error_when_it_is_read_and_not_a_wrong_value() {
        let scratch = tempfile::tempdir().unwrap();
        let store = open(scratch.path());
        let task = lease(&store, "windows", 0);
        let mut batch = Batch::new();
        for n in 0..2_000u32 {
            batch.put(&task, &n.to_be_bytes(), Some(&n.wrapping_mul(2_654_435_761).to_le_bytes().repeat(8)));
        }
        store.write(batch).unwrap();
        drop(task);
        store.close().unwrap();
        let table = file_of(scratch.path(), |name| name.ends_with(".sst"));
        let mut bytes = fs::read(&table).unwrap();
        bytes[100] ^= 0x40;
        fs::write(&table, bytes).unwrap();
        let store = open(scratch.path());
        let task = lease(&store, "windows", 0);
        assert!(matches!(task.get(&0u32.to_be_bytes()), Err(StoreError::Corrupted(_))));
        assert!(matches!(task.for_each(|_, _| ControlFlow::Continue(())), Err(StoreError::Corrupted(_))));
    }
}
