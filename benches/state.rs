//! What the state costs, part by part: an epoch's end, a restore, a task's start. Each on a RocksDB in a directory of its own, on disk.
//!
//! ```text
//! commit    processors --flush--> puts --one batch--> RocksDB
//! restore   changelog records --Restore--> tables --> RocksDB
//! open      RocksDB --> windows in memory, proven
//! ```
//!
//! Kafka takes no part: `cargo bench --bench segments` has a restore from it, beside what librdkafka alone takes to read the changelog.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leeway::broker::LogRange;
use leeway::changelog::{Restore, RestorePlan, restore_share};
use leeway::state::directory::StateDirectory;
use leeway::state::store::{Batch, StateStore, StoreOptions, TaskLease, TaskRange};
use leeway::task::progress::{Checkpoint, Progress, checkpoint_key};
use leeway_micro_benches::{FEATURES, record, reference};
use leeway_topology::field::Field;
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::{CacheBudget, DriftProcessor, Monitor, Outputs, Processor as _, PublishedReferences, TaskContext};
use leeway_topology::record::InputRecord;
use leeway_topology::state::{pane_key, progress_key};
use leeway_topology::window::{CountWindow, Window};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;

/// Changelog records of an epoch in `restore`.
const EPOCH: usize = 1_000;

/// A store and its directory, which goes after it.
struct Disk {
    store: StateStore,
    _directory: TempDir,
}

impl Disk {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let directory = StateDirectory::open(scratch.path(), "bench").expect("a state directory");
        let store = StateStore::open(&directory, StoreOptions::default()).expect("a store");
        Self { store, _directory: scratch }
    }

    fn lease(&self, partition: i32) -> TaskLease {
        let range = TaskRange {
            store: "windows-features".into(),
            partition: Partition(partition),
        };
        self.store.lease(range).expect("nobody else has it")
    }
}

/// One partition's processor over its part of a store.
struct Task {
    processor: DriftProcessor,
    lease: TaskLease,
    taken: u64,
}

impl Task {
    fn open(monitor: &Arc<Monitor>, references: &PublishedReferences, lease: TaskLease) -> Self {
        let cache = CacheBudget::unbounded();
        let context = TaskContext {
            application_id: "bench",
            partition: lease.task().partition,
            partitions: 64,
            cache: &cache,
        };
        let processor = DriftProcessor::open(&context, std::slice::from_ref(monitor), references, &lease).expect("a processor");
        Self { processor, lease, taken: 0 }
    }

    fn take(&mut self, value: &str) {
        let record = InputRecord {
            offset: Offset(self.taken as i64),
            timestamp: Some(Timestamp(1_700_000_000_000 + self.taken as i64)),
            key: None,
            value: Some(value.as_bytes()),
        };
        self.taken += 1;
        self.processor.process(&record, &self.lease).expect("a record");
        while self.processor.is_check_due() {
            self.processor.check(&self.lease, &mut Outputs::default()).expect("a check");
        }
    }

    fn progress(&self) -> Progress {
        Progress {
            next_offset: Offset(self.taken as i64),
            record_number: self.taken,
            stream_time: self.processor.stream_time(),
            epoch: self.taken,
            committed_at: Timestamp(0),
        }
    }
}

/// What a stream thread does when an epoch ends, without Kafka. Gives how many keys had changed.
fn commit(tasks: &mut [Task], store: &StateStore) -> usize {
    let mut changed = 0;
    let sealed: Vec<_> = tasks
        .iter_mut()
        .map(|task| {
            let mut puts = Vec::new();
            task.processor.flush(&mut puts);
            changed += puts.len();
            (puts, task.progress().to_bytes())
        })
        .collect();
    let mut batch = Batch::new();
    for (task, (puts, progress)) in std::iter::zip(&*tasks, &sealed) {
        for put in puts {
            batch.put(&task.lease, &put.key, put.value.as_deref());
        }
        let checkpoint = Checkpoint {
            changelog_offset: Offset(task.taken as i64),
            committed_at: Timestamp(0),
        };
        batch.put(&task.lease, &progress_key(), Some(progress));
        batch.put(&task.lease, &checkpoint_key(), Some(&checkpoint.to_bytes()));
    }
    store.write(batch).expect("written");
    tasks.iter_mut().for_each(|task| task.processor.applied());
    changed
}

fn published() -> PublishedReferences {
    let mut references = PublishedReferences::default();
    references.publish(Arc::new(reference(FEATURES)));
    references
}

/// Records that each task takes before its epoch ends: two or three panes change, and the window's head.
const RECORDS: usize = 250;

fn commit_epochs(criterion: &mut Criterion) {
    let (references, monitor) = (published(), Arc::new(Monitor::new("default", "features")));
    let records: Vec<String> = (0..1_000).map(record).collect();
    let mut group = criterion.benchmark_group("commit an epoch");
    for partitions in [1, 8, 64] {
        let disk = Disk::new();
        let mut tasks: Vec<Task> = (0..partitions)
            .map(|partition| Task::open(&monitor, &references, disk.lease(partition)))
            .collect();
        let mut records = records.chunks(RECORDS).cycle();
        let mut epoch = || {
            let records = records.next().expect("a cycle has no end");
            for task in &mut tasks {
                records.iter().for_each(|record| task.take(record));
            }
            let started = Instant::now();
            let changed = commit(&mut tasks, &disk.store);
            (started.elapsed(), changed)
        };
        let (_, changed) = epoch();
        assert!(changed >= 2 * partitions as usize, "each task has changed a pane and its head");
        group.throughput(Throughput::Elements(changed as u64));
        group.bench_function(BenchmarkId::new("tasks", partitions), |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| epoch().0).sum());
        });
    }
    group.finish();
}

/// A changelog of so many panes, each of another segment, in any order: what compaction leaves, and the hardest for a sorted store.
fn changelog(panes: usize, value_bytes: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut random = StdRng::seed_from_u64(1);
    let mut segments: Vec<usize> = (0..panes).collect();
    segments.shuffle(&mut random);
    let mut records = Vec::new();
    for (number, segment) in std::iter::zip(1.., segments) {
        let key = pane_key("default", &format!("customer={segment}"), "", 0);
        records.push((key, (0..value_bytes).map(|_| random.random_range(0..20)).collect()));
        if number % EPOCH == 0 || number == panes {
            let progress = Progress {
                next_offset: Offset(number as i64),
                record_number: number as u64,
                stream_time: None,
                epoch: 1,
                committed_at: Timestamp(0),
            };
            records.push((progress_key(), progress.to_bytes()));
        }
    }
    records
}

fn restore(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("restore");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (panes, value_bytes) in [(200_000, 70), (2_000, 19_000)] {
        let records = changelog(panes, value_bytes);
        let end = Offset(records.len() as i64);
        let range = LogRange {
            start: Offset(0),
            high_watermark: end,
            last_stable: end,
        };
        group.throughput(Throughput::Elements(records.len() as u64));
        group.bench_function(BenchmarkId::new("values of bytes", value_bytes), |bencher| {
            let restored = |disk: Disk| {
                let (plan, lease) = (RestorePlan::FromStart { because: None }, disk.lease(0));
                let (mut restore, from) = Restore::begin(&plan, range, Timestamp(0), &disk.store, &lease).expect("begun");
                for (offset, (key, value)) in std::iter::zip(from.0.., &records) {
                    restore
                        .apply(Offset(offset), key, Some(value), restore_share(4), &disk.store, &lease)
                        .expect("taken");
                }
                restore.finish(&disk.store, &lease).expect("written");
                drop(lease);
                disk
            };
            bencher.iter_batched(Disk::new, restored, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// From what a store holds to a task that may run: the heads of segments are read then, their windows when they are needed.
fn open(criterion: &mut Criterion) {
    let references = published();
    let of = |window: (u64, u64), segment_by: &[&str]| {
        let mut monitor = Monitor::new("default", "features");
        monitor.window = Window::Count(CountWindow::new(window.0, window.1).expect("a window"));
        monitor.segment_by = segment_by.iter().map(|name| Field::Name((*name).into())).collect();
        Arc::new(monitor)
    };
    let mut group = criterion.benchmark_group("open a task");
    for (name, monitor, records) in [
        ("10 panes", of((1_000, 100), &[]), 1_000),
        ("4,000 panes", of((4_000, 1), &[]), 4_000),
        // Each record of `record` has a timestamp of its own.
        ("10,000 segments", of((1_000, 100), &["timestamp"]), 10_000),
    ] {
        let disk = Disk::new();
        let mut tasks = [Task::open(&monitor, &references, disk.lease(0))];
        (0..records).for_each(|number| tasks[0].take(&record(number)));
        assert!(commit(&mut tasks, &disk.store) > 10, "a pane each, and the heads");
        drop(tasks);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let task = Task::open(&monitor, &references, disk.lease(0));
                task.processor.verify().expect("whole");
                black_box(task)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit_epochs, restore, open);
criterion_main!(benches);
