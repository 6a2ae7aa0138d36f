//! How long after a SIGKILL is the first event there, when an instance holds a gigabyte of windows?
//!
//! ```text
//! rows once --> windows of 4,000 panes, full but for one record --> kill, one record to each partition --> events
//!                    ^------------------------------------------------------------------------------------'  next way to come back
//! ```
//!
//! An instance with nearly all partitions is killed while nothing is under way. It comes back on its old directory, as a static member on its old
//! directory, on an empty directory, or another instance with copies of its tasks takes over. One record for each partition is sent right after the
//! kill; the time is from the kill until a reader of committed records has events of the first, and of the last, of the killed instance's
//! partitions. Prints Markdown for `docs/benchmarks.md`. `LEEWAY_BENCH_FEATURES` and `LEEWAY_BENCH_ROUNDS` change the size; 1,450 features make
//! 1.2 GB of values (13 counts of a byte each, 64,000 panes), whose counts are four times that in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

#[path = "../tests/broker/cluster.rs"]
#[expect(dead_code, reason = "the tests' harness has more than is needed here")]
mod cluster;
#[path = "../tests/broker/kafka.rs"]
#[expect(dead_code, reason = "the tests' harness has more than is needed here")]
mod kafka;
#[path = "../tests/broker/leeway.rs"]
#[expect(dead_code, reason = "the tests' harness has more than is needed here")]
mod leeway;
#[path = "../tests/broker/proxy.rs"]
#[expect(dead_code, reason = "the tests' harness has more than is needed here")]
mod proxy;

const PARTITIONS: i32 = 16;
/// A pane for each record: most state for least input.
const PANES: usize = 4000;
/// The big instance's, and the other's: one partition for each thread.
const THREADS: (u32, u32) = (14, 2);

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(600);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// How the work goes on after the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    OldDirectory,
    OldDirectoryStatic,
    Standby,
    EmptyDirectory,
}

impl Way {
    const ALL: [Self; 4] = [Self::OldDirectory, Self::OldDirectoryStatic, Self::Standby, Self::EmptyDirectory];

    fn text(self) -> &'static str {
        match self {
            Self::OldDirectory => "it is started again on its directory",
            Self::OldDirectoryStatic => "the same as a static member",
            Self::Standby => "another one has copies (`standby = true`)",
            Self::EmptyDirectory => "it is started again on an empty directory",
        }
    }
}

struct Bench {
    bootstrap: &'static str,
    topic: String,
    events: String,
    application_id: String,
    features: usize,
    directory: tempfile::TempDir,
    random: StdRng,
}

/// From the kill on.
struct Recovery {
    first: Duration,
    last: Duration,
    /// Changelog records that restores read.
    replayed: u64,
}

fn main() {
    let (features, rounds) = (number("LEEWAY_BENCH_FEATURES", 1450), number("LEEWAY_BENCH_ROUNDS", 3));
    let mut bench = Bench::new(features);
    let started = Instant::now();
    bench.fill();
    let mut big = bench.worker("big", THREADS.0, Way::OldDirectory);
    bench.wait_until_idle(&mut [&mut big]);
    eprintln!("filled in {:.0} s", started.elapsed().as_secs_f64());
    big.stop();
    println!(
        "{features} features, {PARTITIONS} partitions, {PANES} panes in each window: {} MB in files, {} changelog records\n",
        size(&bench.path("big")) / 1_000_000,
        bench.changelog_records()
    );

    let mut recoveries: BTreeMap<Way, Vec<Recovery>> = BTreeMap::new();
    for round in 1..=rounds {
        for way in Way::ALL {
            let recovery = bench.recover(way);
            eprintln!(
                "round {round}, {}: first {:.1} s, last {:.1} s, {} changelog records",
                way.text(),
                recovery.first.as_secs_f64(),
                recovery.last.as_secs_f64(),
                recovery.replayed
            );
            recoveries.entry(way).or_default().push(recovery);
        }
    }
    println!("| after the kill | s to the first event, median (lowest to highest) | s until each partition has one | changelog records read |");
    println!("| --- | --- | --- | --- |");
    for (way, recoveries) in &recoveries {
        let spread = |of: fn(&Recovery) -> Duration| {
            let mut seconds: Vec<f64> = recoveries.iter().map(|recovery| of(recovery).as_secs_f64()).collect();
            seconds.sort_by(f64::total_cmp);
            format!(
                "{:.1} ({:.1} to {:.1})",
                seconds[seconds.len() / 2],
                seconds[0],
                seconds[seconds.len() - 1]
            )
        };
        println!(
            "| {} | {} | {} | {} |",
            way.text(),
            spread(|recovery| recovery.first),
            spread(|recovery| recovery.last),
            recoveries.iter().map(|recovery| recovery.replayed).max().unwrap_or_default()
        );
    }
}

impl Bench {
    fn new(features: usize) -> Self {
        let bootstrap = cluster::bootstrap();
        let topic = kafka::unique("recovery-data");
        kafka::create_topic(bootstrap, &topic, PARTITIONS, &[]);
        let bench = Self {
            bootstrap,
            events: format!("{topic}-events"),
            application_id: kafka::unique("recovery"),
            topic,
            features,
            directory: tempfile::tempdir().expect("a temporary directory"),
            random: StdRng::seed_from_u64(1),
        };
        let mut random = StdRng::seed_from_u64(2);
        let rows: String = (0..500).map(|_| row(features, &mut random) + "\n").collect();
        std::fs::write(bench.path("rows.jsonl"), rows).expect("rows are written");
        leeway::succeed(
            leeway::leeway()
                .args(["reference", "build", "--input"])
                .arg(bench.path("rows.jsonl"))
                .arg("--output")
                .arg(bench.path("reference.json")),
        );
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn worker(&self, name: &str, threads: u32, way: Way) -> leeway::Worker {
        let config = self.path(&format!("{name}.toml"));
        let text = format!(
            "application_id = \"{}\"\nnum_stream_threads = {threads}\nstandby = {}\n\
             [[monitor]]\nname = \"m\"\ntopic = \"{}\"\nevents_topic = \"{}\"\nreference = \"{}\"\nmin_samples = {PANES}\n\
             window = {{ kind = \"count\", size = {PANES}, every = 1 }}\n\
             [kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"1000\"\n{}",
            self.application_id,
            way == Way::Standby,
            self.topic,
            self.events,
            self.path("reference.json").display(),
            if way == Way::OldDirectoryStatic {
                "\"group.instance.id\" = \"big\"\n"
            } else {
                ""
            },
        );
        std::fs::write(&config, text).expect("settings are written");
        leeway::Worker::start(self.bootstrap, &self.path(name), &["--config", &config.to_string_lossy()])
    }

    /// So many records to each partition that the next one is the first that is checked.
    fn fill(&mut self) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap)
            .set("compression.type", "lz4")
            .set("linger.ms", "50")
            .create()
            .expect("a producer");
        for _ in 1..PANES {
            for partition in 0..PARTITIONS {
                let value = row(self.features, &mut self.random);
                let mut record = BaseRecord::<(), _>::to(&self.topic).partition(partition).payload(&value);
                while let Err((_, back)) = producer.send(record) {
                    producer.poll(Duration::from_millis(20));
                    record = back;
                }
            }
            producer.poll(Duration::ZERO);
        }
        producer.flush(PATIENCE).expect("acknowledged");
    }

    fn wait_until_idle(&self, workers: &mut [&mut leeway::Worker]) {
        kafka::wait_until_consumed(self.bootstrap, &self.application_id, &self.topic, PATIENCE, workers);
    }

    fn changelog_records(&self) -> i64 {
        let changelog = format!("{}-windows-{}-changelog", self.application_id, self.topic);
        kafka::stable_and_end(self.bootstrap, &changelog).values().map(|(_, end)| end).sum()
    }

    fn recover(&mut self, way: Way) -> Recovery {
        let mut big = self.worker("big", THREADS.0, way);
        let mut other = (way == Way::Standby).then(|| {
            big.wait_for("restored store", PARTITIONS as usize, PATIENCE);
            self.worker("other", THREADS.1, way)
        });
        let owned = if other.is_some() { THREADS.0 as usize } else { PARTITIONS as usize };
        let ready = Instant::now();
        while big.partitions().len() != owned || other.as_ref().is_some_and(|other| !is_warm(other, owned)) {
            assert!(ready.elapsed() < PATIENCE, "{}", big.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        let mut workers: Vec<&mut leeway::Worker> = std::iter::once(&mut big).chain(other.as_mut()).collect();
        self.wait_until_idle(&mut workers);
        let partitions: BTreeSet<i64> = big.partitions();
        let events = self.events_from_now_on();

        let killed = Instant::now();
        big.end();
        let before = other.as_ref().map_or(0, replayed);
        let again = match way {
            Way::OldDirectory | Way::OldDirectoryStatic => Some(self.worker("big", THREADS.0, way)),
            Way::EmptyDirectory => Some(self.worker("empty", THREADS.0, way)),
            Way::Standby => None,
        };
        let rows: Vec<String> = (0..PARTITIONS).map(|_| row(self.features, &mut self.random)).collect();
        let records: Vec<kafka::Handmade<'_>> = std::iter::zip(0.., &rows)
            .map(|(partition, row)| kafka::Handmade {
                partition,
                key: None,
                value: Some(row.as_bytes()),
                timestamp: 0,
            })
            .collect();
        kafka::produce(self.bootstrap, &self.topic, &records);
        let mut worker = again.or(other).expect("one goes on");
        let (mut seen, mut first) = (BTreeSet::new(), None);
        while !partitions.is_subset(&seen) {
            worker.expect_running();
            assert!(killed.elapsed() < PATIENCE, "{}", worker.log());
            let Some(message) = events.poll(Duration::from_millis(100)) else {
                continue;
            };
            let message = message.expect("an event");
            let event: serde_json::Value = serde_json::from_slice(message.payload().unwrap_or_default()).expect("JSON");
            let partition = event["partition"].as_i64().expect("a partition");
            if partitions.contains(&partition) {
                first.get_or_insert(killed.elapsed());
                seen.insert(partition);
            }
        }
        let (last, replayed) = (killed.elapsed(), replayed(&worker) - before);
        self.wait_until_idle(&mut [&mut worker]);
        worker.stop();
        if way == Way::EmptyDirectory {
            std::fs::remove_dir_all(self.path("empty")).expect("removed");
        }
        Recovery {
            first: first.expect("an event"),
            last,
            replayed,
        }
    }

    /// A reader at the end of the events.
    fn events_from_now_on(&self) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap)
            .set("group.id", "reader-of-benches")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "20")
            .create()
            .expect("a consumer");
        let mut assignment = TopicPartitionList::new();
        for (partition, (_, end)) in kafka::stable_and_end(self.bootstrap, &self.events) {
            assignment
                .add_partition_offset(&self.events, partition, Offset::Offset(end))
                .expect("an offset");
        }
        consumer.assign(&assignment).expect("assigned");
        consumer
    }
}

/// Bytes of the files below a directory.
fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("metadata");
            if metadata.is_dir() { size(&entry.path()) } else { metadata.len() }
        })
        .sum()
}

/// Whether it has copies of so many tasks, up to date.
fn is_warm(worker: &leeway::Worker, tasks: usize) -> bool {
    let lags = worker.metric("leeway_standby_lag");
    lags.len() == tasks && lags.iter().all(|lag| *lag == 0.0)
}

fn replayed(worker: &leeway::Worker) -> u64 {
    worker.replayed().iter().map(|(_, records)| records).sum()
}

fn row(features: usize, random: &mut StdRng) -> String {
    let mut row = String::from("{");
    for feature in 0..features {
        let value: f64 = random.random();
        let separator = if feature == 0 { "" } else { "," };
        write!(row, "{separator}\"f{feature}\":{value:.4}").expect("a string");
    }
    row.push('}');
    row
}
