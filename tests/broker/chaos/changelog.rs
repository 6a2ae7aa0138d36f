//! What the changelog said at any of its offsets, followed from its start, so that compaction takes nothing away; and whether a store agrees.
//!
//! A store is where its progress record is. Its checkpoint may be before that: it only makes a restore read more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leeway::state::inspect;
use leeway::task::progress::{Checkpoint, checkpoint_key};
use leeway_topology::state::progress_key;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Until what a store holds can be read from Kafka: transactions of dead instances are in the way, and brokers that start.
const PATIENCE: Duration = Duration::from_secs(90);

/// The values of a partition's keys: from which offset on, and a digest; none: deleted.
#[derive(Default)]
struct History {
    keys: HashMap<Vec<u8>, Vec<(i64, Option<u64>)>>,
}

impl History {
    fn before(&self, offset: i64) -> BTreeMap<&[u8], u64> {
        let value = |values: &Vec<(i64, Option<u64>)>| {
            values[..values.partition_point(|(at, _)| *at < offset)]
                .last()
                .and_then(|(_, digest)| *digest)
        };
        self.keys
            .iter()
            .filter_map(|(key, values)| Some((key.as_slice(), value(values)?)))
            .collect()
    }
}

/// Follows a changelog.
pub(crate) struct Changelog {
    histories: Arc<Mutex<Vec<History>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Changelog {
    /// Begins as soon as the topic is there.
    pub(crate) fn follow(bootstrap: &str, topic: String, partitions: i32) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "reader-of-tests")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("log_level", "0")
            .create()
            .expect("a consumer");
        let histories: Arc<Mutex<Vec<History>>> = Arc::new(Mutex::new((0..partitions).map(|_| History::default()).collect()));
        let over = Arc::new(AtomicBool::new(false));
        let (writing, until) = (histories.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let is_there = || {
                let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(5));
                metadata.is_ok_and(|metadata| metadata.topics()[0].partitions().len() == partitions as usize)
            };
            while !until.load(Ordering::Relaxed) && !is_there() {
                std::thread::sleep(Duration::from_millis(200));
            }
            let mut assignment = TopicPartitionList::new();
            for partition in 0..partitions {
                assignment.add_partition_offset(&topic, partition, Offset::Beginning).expect("an offset");
            }
            consumer.assign(&assignment).expect("assigned");
            while !until.load(Ordering::Relaxed) {
                // Errors come from brokers that are down, and pass.
                let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else {
                    continue;
                };
                let history = &mut writing.lock().expect("not poisoned")[record.partition() as usize];
                let digest = record.payload().map(digest);
                history
                    .keys
                    .entry(record.key().expect("a changelog record has a key").to_vec())
                    .or_default()
                    .push((record.offset(), digest));
            }
        });
        Self {
            histories,
            over,
            thread: Some(thread),
        }
    }

    fn histories(&self) -> MutexGuard<'_, Vec<History>> {
        self.histories.lock().expect("not poisoned")
    }

    /// Compares each task of this store in a state directory that nobody uses with what the changelog said at the task's own progress. How many.
    pub(crate) fn compare(&self, store: &str, directory: &Path) -> usize {
        if !directory.join("process.json").exists() {
            return 0;
        }
        let tasks = inspect::entries(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut compared = 0;
        for (task, mut entries) in tasks.into_iter().filter(|(task, _)| *task.store == *store) {
            let checkpoint = entries.remove(&checkpoint_key());
            let Some(progress) = entries.get(&progress_key()) else {
                assert!(entries.is_empty(), "{task} has keys and no progress");
                continue;
            };
            let partition = task.partition.0 as usize;
            let offset = self.wait_for_progress(partition, digest(progress));
            if let Some(checkpoint) = checkpoint {
                let checkpoint = Checkpoint::from_bytes(&checkpoint).expect("a checkpoint").changelog_offset.0;
                assert!(
                    checkpoint <= offset,
                    "{task}: checkpoint {checkpoint} is beyond the store, which is at {offset}"
                );
            }
            let histories = self.histories();
            let expected = histories[partition].before(offset);
            let found: BTreeMap<&[u8], u64> = entries.iter().map(|(key, value)| (key.as_slice(), digest(value))).collect();
            let keys = expected.keys().chain(found.keys());
            let different: BTreeSet<_> = keys.filter(|key| expected.get(*key) != found.get(*key)).collect();
            assert!(
                different.is_empty(),
                "{}, {task}, before changelog offset {offset}: {} keys of {} are not what the changelog says: {different:02x?}",
                directory.display(),
                different.len(),
                expected.len()
            );
            compared += 1;
        }
        compared
    }

    /// The offset just after a progress record.
    fn wait_for_progress(&self, partition: usize, progress: u64) -> i64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let histories = self.histories();
            let records = histories[partition].keys.get(&progress_key()).map_or(&[][..], Vec::as_slice);
            if let Some((offset, _)) = records.iter().rev().find(|(_, digest)| *digest == Some(progress)) {
                return offset + 1;
            }
            assert!(
                Instant::now() < deadline,
                "a store's progress is not in changelog partition {partition}; the last one that readers see is at {:?}",
                records.last()
            );
            drop(histories);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Changelog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is told already.
            thread.join().unwrap_or_default();
        }
    }
}

fn digest(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
