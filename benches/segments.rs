//! A million segments on one instance: how many records a second, in how much memory, how long does a restart take, and how many changelog entries a
//! second does it restore?
//!
//! ```text
//! each segment twice, in any order; one in a hundred a hundred times --> one instance, cold --> stopped --> again on its directory
//!                                                                                                     \--> again on an empty one
//! ```
//!
//! Five numeric features, 8 partitions, keyed by segment. The cache for windows is smaller than what they take, so that most are read from RocksDB when
//! their record comes and leave memory again. The changelog is of millions of small entries; what a restore takes for them stands beside what librdkafka
//! alone takes to read them, with as many consumers, in turn. What the hypervisor gave to others meanwhile (Linux) stands beside each. Prints Markdown for `docs/benchmarks.md`. `LEEWAY_BENCH_SEGMENTS` and `LEEWAY_BENCH_CACHE_BYTES` change
//! the size.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

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

const PARTITIONS: i32 = 8;
const FEATURES: usize = 5;
/// Records of a segment: of one in `HOT`, and of the others.
const RECORDS: (usize, usize) = (100, 2);
const HOT: usize = 100;

/// Stream threads, and consumers of the bare read.
const THREADS: i32 = 2;

/// Restores into an empty directory, and bare reads of the changelog, in turn. The first ones meet a broker whose compiler is still at work.
const RESTORES: usize = 11;

/// Of `/proc/stat` (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(1800);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

struct Bench {
    bootstrap: &'static str,
    topic: String,
    application_id: String,
    segments: usize,
    cache_bytes: usize,
    directory: tempfile::TempDir,
}

fn main() {
    let bench = Bench::new(number("LEEWAY_BENCH_SEGMENTS", 1_000_000), number("LEEWAY_BENCH_CACHE_BYTES", 64 << 20));
    let records = bench.fill();
    println!(
        "{} segments of {FEATURES} features, {records} records, {PARTITIONS} partitions, {} MiB of cache\n",
        bench.segments,
        bench.cache_bytes >> 20
    );
    println!(
        "| | s until ready | s until all is committed | records/s | peak memory | state files | changelog entries restored | entries/s | stolen |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    bench.measure("first start, all records", "one", records);
    bench.measure("again on its directory", "one", records);
    let (mut restored, mut read) = (Vec::new(), Vec::new());
    for number in 1..=RESTORES {
        let way = format!("again on an empty directory, {number}");
        restored.extend(bench.measure(&way, &format!("empty-{number}"), records));
        read.push(bench.read_changelog());
    }
    println!("\n| changelog entries/s | median (lowest to highest) |\n| --- | --- |");
    println!("| restored | {} |", spread(restored));
    let Read { entries, bytes, .. } = read[0];
    println!(
        "| {entries} entries, {} MB of keys and values, read by librdkafka alone with {THREADS} consumers, a message at a time | {} |",
        bytes / 1_000_000,
        spread(read.iter().map(|read| read.entries as f64 / read.took.as_secs_f64()).collect())
    );
}

impl Bench {
    fn new(segments: usize, cache_bytes: usize) -> Self {
        // All threads are members before any restores: what one has read of a task that another one then gets would count for nobody.
        cluster::REBALANCE_DELAY_MS.get_or_init(|| 3000);
        let bootstrap = cluster::bootstrap();
        let topic = kafka::unique("segments-data");
        kafka::create_topic(bootstrap, &topic, PARTITIONS, &[]);
        let bench = Self {
            bootstrap,
            application_id: kafka::unique("segments"),
            topic,
            segments,
            cache_bytes,
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        let mut random = StdRng::seed_from_u64(2);
        let rows: String = (0..2000).map(|_| row(0, &mut random) + "\n").collect();
        std::fs::write(bench.path("rows.jsonl"), rows).expect("rows are written");
        leeway::succeed(
            leeway::leeway()
                .args(["reference", "build", "--input"])
                .arg(bench.path("rows.jsonl"))
                .args(["--feature", "f0=quantile:10", "--output"])
                .arg(bench.path("reference.json")),
        );
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Each segment its records, in any order. Gives their number.
    fn fill(&self) -> usize {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap)
            .set("compression.type", "lz4")
            .set("linger.ms", "50")
            .create()
            .expect("a producer");
        let of = |segment: usize| if segment.is_multiple_of(HOT) { RECORDS.0 } else { RECORDS.1 };
        let mut order: Vec<u32> = (0..self.segments)
            .flat_map(|segment| std::iter::repeat_n(segment as u32, of(segment)))
            .collect();
        let mut random = StdRng::seed_from_u64(1);
        order.shuffle(&mut random);
        for segment in &order {
            let value = row(*segment, &mut random);
            let partition = (*segment % PARTITIONS as u32) as i32;
            let mut record = BaseRecord::<(), _>::to(&self.topic).partition(partition).payload(&value);
            while let Err((_, back)) = producer.send(record) {
                producer.poll(Duration::from_millis(20));
                record = back;
            }
            producer.poll(Duration::ZERO);
        }
        producer.flush(PATIENCE).expect("acknowledged");
        order.len()
    }

    /// From the making of the consumers to the last partition's end.
    fn read_changelog(&self) -> Read {
        let changelog = format!("{}-windows-{}-changelog", self.application_id, self.topic);
        let partitions: Vec<i32> = (0..PARTITIONS).collect();
        let started = Instant::now();
        let parts: Vec<(u64, usize)> = std::thread::scope(|scope| {
            let readers: Vec<_> = partitions
                .chunks((PARTITIONS / THREADS) as usize)
                .map(|part| scope.spawn(|| read(self.bootstrap, &changelog, part)))
                .collect();
            readers.into_iter().map(|reader| reader.join().expect("read")).collect()
        });
        Read {
            entries: parts.iter().map(|(entries, _)| entries).sum(),
            bytes: parts.iter().map(|(_, bytes)| bytes).sum(),
            took: started.elapsed(),
        }
    }

    /// Gives the changelog entries restored in a second, if any were.
    fn measure(&self, way: &str, name: &str, records: usize) -> Option<f64> {
        let config = self.path("leeway.toml");
        let text = format!(
            "application_id = \"{}\"\nnum_stream_threads = {THREADS}\nstate_cache_max_bytes = {}\n\
             [[monitor]]\nname = \"m\"\ntopic = \"{}\"\nevents_topic = \"{}-events\"\nreference = \"{}\"\n\
             segment_by = [\"segment\"]\nmax_segments = {}\nfeatures = {:?}\n",
            self.application_id,
            self.cache_bytes,
            self.topic,
            self.topic,
            self.path("reference.json").display(),
            self.segments,
            (0..FEATURES).map(|feature| format!("f{feature}")).collect::<Vec<_>>(),
        );
        std::fs::write(&config, text).expect("settings are written");
        let (started, stolen) = (Instant::now(), stolen());
        let mut worker = leeway::Worker::start(self.bootstrap, &self.path(name), &["--config", &config.to_string_lossy()]);
        worker.wait_for("restored store", PARTITIONS as usize, PATIENCE);
        let ready = started.elapsed();
        kafka::wait_until_consumed(self.bootstrap, &self.application_id, &self.topic, PATIENCE, &mut [&mut worker]);
        let done = started.elapsed();
        let peak = peak_bytes(worker.id());
        // Told about once a second.
        let live = || worker.metric("leeway_segments").iter().sum::<f64>();
        while (live() - self.segments as f64).abs() > 0.5 {
            assert!(started.elapsed() < PATIENCE, "{} segments live", live());
            std::thread::sleep(Duration::from_millis(200));
        }
        let (entries, restoring) = restored(&worker.log());
        let stolen = (self::stolen() - stolen) / started.elapsed().as_secs_f64();
        worker.stop();
        let restore_rate = (entries > 0).then(|| entries as f64 / restoring.as_secs_f64());
        let rate = if way.starts_with("first") {
            format!("{:.0}", records as f64 / (done - ready).as_secs_f64())
        } else {
            String::new()
        };
        println!(
            "| {way} | {:.1} | {:.1} | {rate} | {} MiB | {} MB | {entries} | {} | {:.1} % |",
            ready.as_secs_f64(),
            done.as_secs_f64(),
            peak >> 20,
            size(&self.path(name)) / 1_000_000,
            restore_rate.map_or_else(String::new, |rate| format!("{rate:.0}")),
            100.0 * stolen
        );
        restore_rate
    }
}

/// Of the cores' time since the machine was started, in seconds of all of them together: what the hypervisor gave to others.
fn stolen() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().and_then(|line| line.split_whitespace().nth(8));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ticks.and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default() / TICKS_A_SECOND / cores as f64
}

/// Median, lowest and highest.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(lowest), Some(highest)) = (values.first(), values.last()) else {
        return "none".to_owned();
    };
    format!("{:.0} ({lowest:.0} to {highest:.0})", values[values.len() / 2])
}

/// What a restore reads, as librdkafka alone gives it.
struct Read {
    entries: u64,
    bytes: usize,
    took: Duration,
}

/// Reads these partitions to their ends.
fn read(bootstrap: &str, topic: &str, partitions: &[i32]) -> (u64, usize) {
    // As the restore's own.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "leeway-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "8192")
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.wait.max.ms", "10")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("assigned");
    let (mut entries, mut bytes, mut ended) = (0, 0, 0);
    while ended < partitions.len() {
        match consumer.poll(PATIENCE).expect("a message or an end") {
            Ok(message) => {
                entries += 1;
                bytes += message.key_len() + message.payload_len();
            }
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (entries, bytes)
}

/// Changelog records that all restores of a worker read, and the time from the first one's begin to the last one's end.
fn restored(log: &str) -> (u64, Duration) {
    let (mut entries, mut begin, mut end) = (0, None::<SystemTime>, None::<SystemTime>);
    for line in log.lines().filter(|line| line.contains("restored store")) {
        let field = |name: &str| -> u64 {
            let text = line.split(name).nth(1).and_then(|rest| rest.split(' ').next());
            text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name} in {line}"))
        };
        let at = line.split_whitespace().next().expect("a time");
        let at = humantime::parse_rfc3339(at).unwrap_or_else(|error| panic!("{error}: {line}"));
        let from = at - Duration::from_millis(field("elapsed_ms="));
        entries += field("records=");
        begin = Some(begin.map_or(from, |begin| begin.min(from)));
        end = end.max(Some(at));
    }
    let took = begin.zip(end).and_then(|(begin, end)| end.duration_since(begin).ok());
    (entries, took.expect("restores"))
}

/// The most memory that a process has had, as Linux counts it.
fn peak_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
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

fn row(segment: u32, random: &mut StdRng) -> String {
    let mut row = format!("{{\"segment\":{segment}");
    for feature in 0..FEATURES {
        let value: f64 = random.random();
        write!(row, ",\"f{feature}\":{value:.4}").expect("a string");
    }
    row.push('}');
    row
}
