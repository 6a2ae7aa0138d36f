//! How near is `leeway run` to what librdkafka can fetch?
//!
//! A topic is loaded once; then the contestants drain it in turn, each from its process's or client's start until the last record is dealt with: for
//! `leeway run` that is the commit of the last offset, with all drift events written, state stored and its changelog complete. Prints Markdown for
//! `docs/benchmarks.md`. `LEEWAY_BENCH_RECORDS` and `LEEWAY_BENCH_ROUNDS` change the size; `KAFKA_BOOTSTRAP_SERVERS` the broker.

use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use rdkafka::consumer::{BaseConsumer, Consumer};
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

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(600);

/// One drain of the topic.
struct Run {
    elapsed: Duration,
    cpu: Duration,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn main() {
    let (records, rounds) = (number("LEEWAY_BENCH_RECORDS", 4_000_000), number("LEEWAY_BENCH_ROUNDS", 5));
    let bootstrap = cluster::bootstrap();
    let topic = kafka::unique("bench-data");
    kafka::create_topic(bootstrap, &topic, PARTITIONS, &[]);
    let reference = tempfile::tempdir().expect("a temporary directory");
    let reference = reference.path().join("reference.json");
    let rows = reference.with_extension("jsonl");
    let connect = ["--bootstrap-servers", bootstrap, "--topic", &topic];
    leeway::succeed(
        leeway::leeway()
            .args(["produce", "--synthetic", "--rows", &records.to_string()])
            .args(connect),
    );
    let sample: String = kafka_values(bootstrap, &topic, 20_000);
    std::fs::write(&rows, &sample).expect("rows are written");
    leeway::succeed(
        leeway::leeway()
            .args(["reference", "build", "--input"])
            .arg(&rows)
            .arg("--output")
            .arg(&reference),
    );
    println!(
        "{records} records of {} bytes on average, {PARTITIONS} partitions, {rounds} rounds\n",
        sample.len() / 20_000
    );

    let mut fetched = Vec::new();
    let mut processed = Vec::new();
    for round in 1..=rounds {
        fetched.push(poll_and_drop(bootstrap, &topic, records));
        processed.push(leeway_run(bootstrap, &topic, &reference.to_string_lossy(), &format!("bench-{round}")));
        let (Some(floor), Some(ours)) = (fetched.last(), processed.last()) else {
            continue;
        };
        eprintln!(
            "round {round}: poll and drop {:.2} s, leeway run {:.2} s",
            floor.elapsed.as_secs_f64(),
            ours.elapsed.as_secs_f64()
        );
    }
    println!("| contestant | records/s, median (lowest to highest) | CPU seconds per million records | ratio to poll and drop |");
    println!("| --- | --- | --- | --- |");
    let floor = median(&fetched, records);
    for (name, runs) in [("librdkafka, poll and drop", &fetched), ("leeway run", &processed)] {
        let mut rates: Vec<f64> = runs.iter().map(|run| rate(run, records)).collect();
        rates.sort_by(f64::total_cmp);
        let cpu = runs.iter().map(|run| run.cpu.as_secs_f64()).sum::<f64>() / runs.len() as f64 / (records as f64 / 1e6);
        println!(
            "| {name} | {:.0} ({:.0} to {:.0}) | {cpu:.2} | {:.2} |",
            median(runs, records),
            rates[0],
            rates[rates.len() - 1],
            median(runs, records) / floor
        );
    }
}

fn rate(run: &Run, records: u64) -> f64 {
    records as f64 / run.elapsed.as_secs_f64()
}

fn median(runs: &[Run], records: u64) -> f64 {
    let mut rates: Vec<f64> = runs.iter().map(|run| rate(run, records)).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn cpu(who: UsageWho) -> Duration {
    let usage: Usage = getrusage(who).expect("rusage");
    let duration = |time: nix::sys::time::TimeVal| Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64);
    duration(usage.user_time()) + duration(usage.system_time())
}

/// The settings of `leeway run`'s consumer.
fn consumer(bootstrap: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", "32768")
        .set("fetch.wait.max.ms", "100")
        .create()
        .expect("a consumer")
}

/// The floor: a member of a group that polls and looks at nothing.
fn poll_and_drop(bootstrap: &str, topic: &str, records: u64) -> Run {
    let (started, before) = (Instant::now(), cpu(UsageWho::RUSAGE_SELF));
    let consumer = consumer(bootstrap, &kafka::unique("floor"));
    consumer.subscribe(&[topic]).expect("subscribed");
    let mut seen = 0;
    while seen < records {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            message.expect("a record");
            seen += 1;
        }
        assert!(started.elapsed() < PATIENCE, "{seen} of {records} records");
    }
    Run {
        elapsed: started.elapsed(),
        cpu: cpu(UsageWho::RUSAGE_SELF) - before,
    }
}

/// `leeway run` until every partition's end is committed.
fn leeway_run(bootstrap: &str, topic: &str, reference: &str, name: &str) -> Run {
    let application_id = kafka::unique(name);
    let events = format!("{application_id}-events");
    let state = tempfile::tempdir().expect("a temporary directory");
    let watcher = consumer(bootstrap, &application_id);
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(topic, 0, PARTITIONS - 1);
    let ends: Vec<i64> = (0..PARTITIONS)
        .map(|partition| watcher.fetch_watermarks(topic, partition, PATIENCE).expect("watermarks").1)
        .collect();
    let (started, before) = (Instant::now(), cpu(UsageWho::RUSAGE_CHILDREN));
    let mut worker = leeway::Worker::start(
        bootstrap,
        state.path(),
        &[
            "--application-id",
            &application_id,
            "--topic",
            topic,
            "--events-topic",
            &events,
            "--reference",
            reference,
        ],
    );
    let elapsed = loop {
        std::thread::sleep(Duration::from_millis(20));
        let committed = watcher.committed_offsets(partitions.clone(), PATIENCE);
        let done = committed.is_ok_and(|list| {
            let at_end = |(partition, end): (usize, &i64)| list.elements()[partition].offset() == Offset::Offset(*end);
            ends.iter().enumerate().all(at_end)
        });
        if done {
            break started.elapsed();
        }
        worker.expect_running();
        assert!(started.elapsed() < PATIENCE, "{}", worker.log());
    };
    worker.stop();
    Run {
        elapsed,
        cpu: cpu(UsageWho::RUSAGE_CHILDREN) - before,
    }
}

/// The first values of a topic, a line each.
fn kafka_values(bootstrap: &str, topic: &str, count: usize) -> String {
    use rdkafka::message::Message as _;
    let consumer = consumer(bootstrap, &kafka::unique("sample"));
    consumer.subscribe(&[topic]).expect("subscribed");
    let mut values = String::new();
    for _ in 0..count {
        let message = loop {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                break message.expect("a record");
            }
        };
        values.push_str(std::str::from_utf8(message.payload().unwrap_or_default()).expect("UTF-8"));
        values.push('\n');
    }
    values
}
