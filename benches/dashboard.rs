//! How long does `leeway dashboard` take to read a topic of a million drift events, and in how much memory?
//!
//! Events of 50 features, 16 partitions and their summaries, as a worker writes them, in a topic of 8 partitions. The dashboard is started with its
//! defaults several times: until its address is printed, until the API answers, until everything was read (`/health/ready`). Prints Markdown for
//! `docs/benchmarks.md`. `LEEWAY_BENCH_EVENTS` and `LEEWAY_BENCH_ROUNDS` change the size; `KAFKA_BOOTSTRAP_SERVERS` the broker.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

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

const FEATURES: u64 = 50;
const PARTITIONS: u64 = 16;
const TOPIC_PARTITIONS: i32 = 8;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(600);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn main() {
    let (events, rounds) = (number("LEEWAY_BENCH_EVENTS", 1_000_000), number("LEEWAY_BENCH_ROUNDS", 3));
    let bootstrap = cluster::bootstrap();
    let topic = kafka::unique("bench-events");
    kafka::create_topic(bootstrap, &topic, TOPIC_PARTITIONS, &[]);
    let bytes = fill(bootstrap, &topic, events);
    println!(
        "{events} events of {} bytes on average, {FEATURES} features, {PARTITIONS} partitions\n",
        bytes / events
    );
    println!("| round | s to the address | s to the first answer | s until all is read | CPU seconds | memory then, MiB | peak memory, MiB |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for round in 1..=rounds {
        println!("| {round} | {} |", start(bootstrap, &topic));
    }
}

/// One start to the end of the topic: the columns of its row.
fn start(bootstrap: &str, topic: &str) -> String {
    let started = Instant::now();
    let mut child = leeway::leeway()
        .args(["dashboard", "--bootstrap-servers", bootstrap, "--events-topic", topic])
        .args(["--application-id", "app", "--topic", "data", "--dashboard-port", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("leeway starts");
    let mut line = String::new();
    let out = child.stdout.take().expect("a pipe");
    BufReader::new(out).read_line(&mut line).expect("its address");
    let address = line.split_whitespace().last().expect("its address").to_owned();
    let mut times = vec![started.elapsed()];
    for path in ["/api/v1/monitors", "/health/ready"] {
        while ureq::get(format!("{address}{path}")).call().is_err() {
            assert!(started.elapsed() < PATIENCE, "{path} does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        times.push(started.elapsed());
    }
    let (now, peak) = (status(child.id(), "VmRSS:"), status(child.id(), "VmHWM:"));
    let cpu = cpu_seconds(child.id());
    drop(child.kill());
    drop(child.wait());
    let times: Vec<String> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
    format!("{} | {cpu:.1} | {now} | {peak}", times.join(" | "))
}

/// A line of `/proc/<id>/status` that is in kB, in MiB.
fn status(id: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn cpu_seconds(id: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = fields
        .get(11..13)
        .unwrap_or_default()
        .iter()
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    // Linux counts in hundredths of a second.
    ticks / 100.0
}

/// Writes the events; gives their bytes.
fn fill(bootstrap: &str, topic: &str, events: u64) -> u64 {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", "50")
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer");
    let mut bytes = 0;
    for number in 0..events {
        let check = number / (PARTITIONS * (FEATURES + 1));
        let partition = number / (FEATURES + 1) % PARTITIONS;
        let feature = match number % (FEATURES + 1) {
            FEATURES => "*".to_owned(),
            at => format!("feature_{at:02}"),
        };
        let value = event(&feature, partition, (check + 1) * 100);
        bytes += value.len() as u64;
        let to = feature.bytes().map(i32::from).sum::<i32>() % TOPIC_PARTITIONS;
        loop {
            let record = BaseRecord::to(topic).partition(to).key(&feature).payload(&value);
            match producer.send(record) {
                Ok(()) => break,
                Err(_) => {
                    producer.poll(Duration::from_millis(50));
                }
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE).expect("acknowledged");
    bytes
}

/// As a worker writes it.
fn event(feature: &str, partition: u64, k: u64) -> Vec<u8> {
    let summary = feature == "*";
    let noise = (k * 7919 + partition * 104_729) % 1000;
    let time = 1_700_000_000_000 + k as i64 * 10;
    let event = serde_json::json!({
        "schema_version": 1,
        "event_id": format!("app/default/data/{partition}/partition//{feature}/{k}/0011223344556677"),
        "kind": "drift",
        "monitor": "default",
        "scope": "partition",
        "partition": partition,
        "segment": null,
        "feature": feature,
        "psi": noise as f64 / 3701.0,
        "p_value": if summary { None } else { Some(noise as f64 / 1001.0) },
        "psi_null_mean": if summary { None } else { Some(0.011) },
        "significant": if summary { None } else { Some(false) },
        "status": "no_drift",
        "previous_status": "no_drift",
        "record_count": k,
        "window_count": 1000,
        "missing_count": if summary { None } else { Some(3) },
        "below_range_count": if summary { None } else { Some(1) },
        "above_range_count": if summary { None } else { Some(2) },
        "window_start_offset": k,
        "window_end_offset": k + 999,
        "window_start_ms": time - 10_000,
        "window_end_ms": time,
        "counts": if summary { None } else { Some([101, 97, 103, 99, 100, 98, 102, 100, 96, 101, 3]) },
        "top_bin": if summary { None } else { Some("(-0.2533471031357997, 0.0012345678901234]") },
        "top_bin_contribution": if summary { None } else { Some(0.001_234_567_890_123_4) },
        "feature_count": if summary { Some(FEATURES) } else { None },
        "drifted_features": if summary { Some(0) } else { None },
        "reference_version": "0011223344556677",
        "closed_by": null,
        "js": null,
        "ks": null,
        "wasserstein": null,
        "chi2_p_value": null,
    });
    event.to_string().into_bytes()
}
