//! Apache Kafka for tests: one KRaft node on loopback, started once, ended with this process. `KAFKA_BOOTSTRAP_SERVERS` set: that one instead.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::leeway::Worker;

/// A start takes seconds; on a busy machine many.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// One request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running Kafka. Its Java process ends when this one's end of the pipe closes, however that comes about.
struct Node {
    bootstrap: String,
    _process: Child,
    _directory: tempfile::TempDir,
}

/// The bootstrap servers of the Kafka that all tests of this process share.
pub(crate) fn bootstrap() -> &'static str {
    static NODE: OnceLock<Node> = OnceLock::new();
    static EXTERNAL: OnceLock<Option<String>> = OnceLock::new();
    match EXTERNAL.get_or_init(|| std::env::var("KAFKA_BOOTSTRAP_SERVERS").ok().filter(|servers| !servers.is_empty())) {
        Some(servers) => servers,
        None => &NODE.get_or_init(start).bootstrap,
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .expect("loopback")
        .local_addr()
        .expect("an address")
        .port()
}

fn start() -> Node {
    let libs = Command::new("scripts/kafka-jars")
        .stderr(Stdio::inherit())
        .output()
        .expect("scripts/kafka-jars runs");
    assert!(libs.status.success(), "scripts/kafka-jars failed: Kafka's jars are needed");
    let classpath = format!("{}/*", String::from_utf8(libs.stdout).expect("a path").trim());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (port, controller) = (free_port(), free_port());
    let settings = directory.path().join("server.properties");
    let logs = directory.path().join("logs");
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\nlog.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
         group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\ntransaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n\
         log.retention.ms=-1\nlog.message.timestamp.after.max.ms=9223372036854775807\n",
        logs.display()
    );
    std::fs::write(&settings, text).expect("settings are written");
    let cluster_id = "bGVld2F5LXRlc3RzLWthZg";
    let format = Command::new("java")
        .args([
            "-cp",
            &classpath,
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            cluster_id,
            "-c",
        ])
        .arg(&settings)
        .output()
        .expect("java runs");
    assert!(format.status.success(), "formatting failed: {}", String::from_utf8_lossy(&format.stderr));
    let log: PathBuf = directory.path().join("server.log");
    // The shell reads from a pipe that this process holds open. When the pipe closes, for whatever reason, it ends Java.
    let script = "java -Xmx512m -cp \"$1\" kafka.Kafka \"$2\" > \"$3\" 2>&1 < /dev/null & java=$!; cat > /dev/null; kill -9 $java; wait";
    let process = Command::new("sh")
        .args(["-c", script, "kafka", &classpath])
        .arg(&settings)
        .arg(&log)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let bootstrap = format!("127.0.0.1:{port}");
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("log_level", "0")
        .create()
        .expect("a client");
    let deadline = Instant::now() + START_TIMEOUT;
    while client.fetch_metadata(None, Duration::from_secs(1)).is_err() {
        assert!(
            Instant::now() < deadline,
            "Kafka did not start:\n{}",
            std::fs::read_to_string(&log).unwrap_or_default()
        );
    }
    Node {
        bootstrap,
        _process: process,
        _directory: directory,
    }
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A record as it stands in a topic.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnedRecord {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: Option<i64>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Makes a topic.
pub(crate) fn create_topic(bootstrap: &str, name: &str, partitions: i32, config: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("an admin client");
    let topic = config
        .iter()
        .fold(NewTopic::new(name, partitions, TopicReplication::Fixed(1)), |topic, (key, value)| {
            topic.set(key, value)
        });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let results = runtime
        .block_on(admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(TIMEOUT))))
        .expect("an answer");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// One record to send by hand: partition, key, value, timestamp (-1: none).
pub(crate) struct Handmade<'a> {
    pub(crate) partition: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) timestamp: i64,
}

/// Sends records by hand, in order.
pub(crate) fn produce(bootstrap: &str, topic: &str, records: &[Handmade<'_>]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("message.max.bytes", "20000000")
        .set("enable.idempotence", "true")
        .create()
        .expect("a producer");
    for record in records {
        let mut out = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(record.partition)
            .headers(OwnedHeaders::new());
        if record.timestamp != 0 {
            out = out.timestamp(record.timestamp);
        }
        if let Some(key) = record.key {
            out = out.key(key);
        }
        if let Some(value) = record.value {
            out = out.payload(value);
        }
        producer.send(out).map_err(|(error, _)| error).expect("queued");
        producer.poll(Duration::ZERO);
    }
    producer.flush(TIMEOUT).expect("acknowledged");
}

/// All records of a topic that a read-committed reader sees, by partition and offset. A topic that is not there has none.
pub(crate) fn read_committed(bootstrap: &str, topic: &str) -> Vec<OwnedRecord> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader-of-tests")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("fetch.message.max.bytes", "20000000")
        .set("fetch.wait.max.ms", "20")
        .set("log_level", "0")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("assigned");
    let mut open = partitions;
    let mut records = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(300);
    while open > 0 {
        assert!(Instant::now() < deadline, "{topic} could not be read to its end");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => records.push(OwnedRecord {
                partition: message.partition(),
                offset: message.offset(),
                timestamp: message.timestamp().to_millis(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: message
                    .headers()
                    .into_iter()
                    .flat_map(|headers| headers.iter())
                    .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => eprintln!("reading {topic}: {error}"),
            None => {}
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// The group's committed offsets and the ends of all partitions.
pub(crate) fn positions(bootstrap: &str, group: &str, topic: &str) -> BTreeMap<i32, (Option<i64>, i64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("log_level", "0")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let deadline = Instant::now() + TIMEOUT;
    let committed = loop {
        // A coordinator that was just made, or moved, says so first.
        match consumer.committed_offsets(list.clone(), TIMEOUT) {
            Ok(committed) => break committed,
            Err(error) => assert!(Instant::now() < deadline, "committed offsets: {error}"),
        }
    };
    (0..partitions)
        .map(|partition| {
            let offset = match committed.find_partition(topic, partition).expect("asked for").offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let (_, end) = consumer.fetch_watermarks(topic, partition, TIMEOUT).expect("watermarks");
            (partition, (offset, end))
        })
        .collect()
}

/// Waits until the group has committed every partition's end. The workers must live meanwhile.
pub(crate) fn wait_until_consumed(bootstrap: &str, group: &str, topic: &str, timeout: Duration, workers: &mut [&mut Worker]) {
    let deadline = Instant::now() + timeout;
    loop {
        let positions = positions(bootstrap, group, topic);
        if positions.values().all(|(committed, end)| *committed == Some(*end)) {
            return;
        }
        workers.iter_mut().for_each(|worker| worker.expect_running());
        assert!(
            Instant::now() < deadline,
            "{group} did not reach the end of {topic}: {positions:?}\n{}",
            workers.iter().map(|worker| worker.log()).collect::<String>()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
