//! A million segments on one instance: how many records a second, in how much memory, and how long does a restart take?
//!
//! ```text
//! each segment twice, in any order; one in a hundred a hundred times --> one instance, cold --> stopped --> again on its directory
//!                                                                                                     \--> again on an empty one
//! ```
//!
//! Five numeric features, 8 partitions, keyed by segment. The cache for windows is smaller than what they take, so that most are read from RocksDB when
//! their record comes and leave memory again. Prints Markdown for `docs/benchmarks.md`. `LEEWAY_BENCH_SEGMENTS` and `LEEWAY_BENCH_CACHE_BYTES` change
//! the size.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

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
    println!("| | s until ready | s until all is committed | records/s | peak memory | state files |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (way, name) in [
        ("first start, all records", "one"),
        ("again on its directory", "one"),
        ("again on an empty directory", "two"),
    ] {
        bench.measure(way, name, records);
    }
}

impl Bench {
    fn new(segments: usize, cache_bytes: usize) -> Self {
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

    fn measure(&self, way: &str, name: &str, records: usize) {
        let config = self.path("leeway.toml");
        let text = format!(
            "application_id = \"{}\"\nstate_cache_max_bytes = {}\n\
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
        let started = Instant::now();
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
        worker.stop();
        let rate = if way.starts_with("first") {
            format!("{:.0}", records as f64 / (done - ready).as_secs_f64())
        } else {
            String::new()
        };
        println!(
            "| {way} | {:.1} | {:.1} | {rate} | {} MiB | {} MB |",
            ready.as_secs_f64(),
            done.as_secs_f64(),
            peak >> 20,
            size(&self.path(name)) / 1_000_000
        );
    }
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
