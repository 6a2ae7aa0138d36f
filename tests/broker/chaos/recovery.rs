//! How long the partitions of a killed instance stand still: until each has committed more than it had at the kill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// How often Kafka is asked: the error of each figure.
const EVERY: Duration = Duration::from_millis(100);

/// A commit that was on its way when its instance was killed is no recovery.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

/// A killed instance.
struct Watch {
    killed: Instant,
    /// Positions to surpass; known some time after the kill.
    waiting: BTreeMap<i32, Option<i64>>,
    disturbed: bool,
}

/// One recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovery {
    pub(crate) took: Duration,
    /// Whether something else was broken meanwhile.
    pub(crate) disturbed: bool,
}

#[derive(Default)]
struct Shared {
    watches: Vec<Watch>,
    recoveries: Vec<Recovery>,
    whole_since: Option<Instant>,
}

/// Asks Kafka for committed offsets, and whether its brokers are all there, again and again.
pub(crate) struct Monitor {
    shared: Arc<Mutex<Shared>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Of a group on a topic.
    pub(crate) fn start(bootstrap: &str, group: &str, topic: &str, partitions: i32, brokers: usize) -> Self {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("log_level", "0")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let (shared, over) = (Arc::new(Mutex::new(Shared::default())), Arc::new(AtomicBool::new(false)));
        let (writing, until) = (shared.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut looked = Instant::now();
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(EVERY);
                if let Ok(committed) = client.committed_offsets(list.clone(), Duration::from_secs(2)) {
                    let elements = committed.elements();
                    let offsets = elements.iter().filter_map(|element| match element.offset() {
                        Offset::Offset(offset) => Some((element.partition(), offset)),
                        _ => None,
                    });
                    writing.lock().expect("not poisoned").observe(&offsets.collect());
                }
                if looked.elapsed() > Duration::from_secs(1) {
                    looked = Instant::now();
                    let whole = client.fetch_metadata(None, Duration::from_secs(2)).is_ok_and(|metadata| {
                        let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
                        metadata.brokers().len() == brokers && partitions.all(|partition| partition.isr().len() == brokers)
                    });
                    let mut shared = writing.lock().expect("not poisoned");
                    shared.whole_since = whole.then(|| shared.whole_since.unwrap_or_else(Instant::now));
                }
            }
        });
        Self {
            shared,
            over,
            thread: Some(thread),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("not poisoned")
    }

    /// An instance that had these partitions was killed just now.
    pub(crate) fn killed(&self, partitions: &BTreeSet<i64>, disturbed: bool) {
        if !partitions.is_empty() {
            self.shared().watches.push(Watch {
                killed: Instant::now(),
                waiting: partitions.iter().map(|partition| (*partition as i32, None)).collect(),
                disturbed,
            });
        }
    }

    /// Something else broke: recoveries under way are not those of a kill alone.
    pub(crate) fn disturb(&self) {
        self.shared().watches.iter_mut().for_each(|watch| watch.disturbed = true);
    }

    /// For how long all brokers have been there, with every replica in sync.
    pub(crate) fn whole_for(&self) -> Duration {
        self.shared().whole_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Recoveries so far.
    pub(crate) fn recoveries(&self) -> Vec<Recovery> {
        self.shared().recoveries.clone()
    }
}

impl Shared {
    fn observe(&mut self, committed: &BTreeMap<i32, i64>) {
        for watch in &mut self.watches {
            let took = watch.killed.elapsed();
            if took < ON_ITS_WAY {
                continue;
            }
            watch.waiting.retain(|partition, position| {
                let now = committed.get(partition).copied().unwrap_or(0);
                now <= *position.get_or_insert(now)
            });
        }
        let over = |watch: &mut Watch| watch.waiting.is_empty();
        self.recoveries.extend(self.watches.extract_if(.., over).map(|watch| Recovery {
            took: watch.killed.elapsed(),
            disturbed: watch.disturbed,
        }));
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic is told already.
            thread.join().unwrap_or_default();
        }
    }
}
