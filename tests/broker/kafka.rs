//! What tests ask and tell Kafka: topics, records, positions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::leeway::Worker;

/// One request.
const TIMEOUT: Duration = Duration::from_secs(30);

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
        .fold(NewTopic::new(name, partitions, TopicReplication::Fixed(-1)), |topic, (key, value)| {
            topic.set(key, value)
        });
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let results = runtime
        .block_on(admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(TIMEOUT))))
        .expect("an answer");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// Raises a topic's number of partitions.
pub(crate) fn add_partitions(bootstrap: &str, name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("an admin client");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let new = NewPartitions::new(name, partitions as usize);
    let results = runtime
        .block_on(admin.create_partitions([&new], &AdminOptions::new().operation_timeout(Some(TIMEOUT))))
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

/// All records of a topic that a read-committed reader sees, by partition and offset.
pub(crate) fn read_committed(bootstrap: &str, topic: &str) -> Vec<OwnedRecord> {
    read_committed_where(bootstrap, topic, |_| true)
}

/// Those of them that are wanted.
pub(crate) fn read_committed_where(bootstrap: &str, topic: &str, wanted: impl Fn(&OwnedRecord) -> bool) -> Vec<OwnedRecord> {
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
    let metadata = patiently("metadata", || consumer.fetch_metadata(Some(topic), TIMEOUT));
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("assigned");
    let mut open = partitions;
    let mut records = Vec::new();
    // Of silence.
    let mut deadline = Instant::now() + Duration::from_secs(120);
    while open > 0 {
        assert!(Instant::now() < deadline, "{topic} could not be read to its end");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                deadline = Instant::now() + Duration::from_secs(120);
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                let record = OwnedRecord {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
                };
                if wanted(&record) {
                    records.push(record);
                }
            }
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
    let committed = patiently("committed offsets", || consumer.committed_offsets(list.clone(), TIMEOUT));
    (0..partitions)
        .map(|partition| {
            let offset = match committed.find_partition(topic, partition).expect("asked for").offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let (_, end) = patiently("watermarks", || consumer.fetch_watermarks(topic, partition, TIMEOUT));
            (partition, (offset, end))
        })
        .collect()
}

/// By partition, up to where readers of committed records see a topic, and its end. Not asked by way of the group's offsets: a transaction that has
/// those too holds back the answer.
pub(crate) fn stable_and_end(bootstrap: &str, topic: &str) -> BTreeMap<i32, (i64, i64)> {
    let [committed, all] = ["read_committed", "read_uncommitted"].map(|level| -> BaseConsumer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("isolation.level", level)
            .set("log_level", "0");
        config.create().expect("a consumer")
    });
    let metadata = committed.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
    let end = |of: &BaseConsumer, partition| patiently("watermarks", || of.fetch_watermarks(topic, partition, TIMEOUT)).1;
    let partitions = metadata.topics()[0].partitions().iter().map(|partition| partition.id());
    partitions
        .map(|partition| (partition, (end(&committed, partition), end(&all, partition))))
        .collect()
}

/// Asks again while a leader or coordinator was just made, or moves.
fn patiently<T>(what: &str, request: impl Fn() -> KafkaResult<T>) -> T {
    let deadline = Instant::now() + 2 * TIMEOUT;
    loop {
        match request() {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error}"),
        }
    }
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
