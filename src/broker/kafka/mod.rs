//! Apache Kafka behind the broker port, by rdkafka: the only place that names it.
//!
//! ```text
//! stream thread --> KafkaClient --poll--> consumer: one queue per assigned partition; restore consumer the same way
//!                        |--transactions thread--> transactional producer (its calls block)
//!                        \--requests thread------> committed offsets, log ranges (they block too)
//! ```
//!
//! Invariants: every consumer has `auto.offset.reset=error`; rebalance events are queued out of the callback and answered by `assign` and
//! `unassign` only; what a partition's queue gives was fetched after its `start`, each record
//! once.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;

use self::partition_queue::SERVED_MAX;
use super::{BrokerError, ClientSettings};

mod admin;
mod client;
mod consumer;
mod errors;
mod ffi;
mod log;
mod partition_queue;
mod producer;
mod reader;
mod requests;
mod signal;
mod transactions;

pub use client::KafkaClient;
pub use producer::KafkaProducer;
pub use reader::KafkaReader;

/// Steps of a transaction at which a test may stop the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStep {
    /// A producer is about to be made.
    Starting,
    /// The transaction is begun.
    Begun,
    /// Every record is acknowledged.
    Produced,
    /// The offsets are part of it.
    OffsetsSent,
    /// It is committed on the broker.
    Committed,
}

/// A test's hook.
type Hook = Arc<dyn Fn(TransactionStep) + Send + Sync>;

/// An Apache Kafka cluster.
#[derive(Clone)]
pub struct KafkaBroker {
    properties: Arc<BTreeMap<String, String>>,
    /// Those of [`MEMBERSHIP`].
    membership: Arc<BTreeMap<String, String>>,
    /// Asks for high watermarks: the answer follows the client's isolation level, so it takes a client that reads uncommitted.
    uncommitted: Arc<OnceLock<BaseConsumer>>,
    /// Of each partition of a consumer.
    fetched_ahead_bytes: usize,
    hook: Option<Hook>,
}

/// What a consumer holds of each partition that nobody has looked at yet, at most, where nobody says less: enough for several looks.
const FETCHED_AHEAD_MAX_BYTES: usize = 8 << 20;

/// What librdkafka takes for a fetched record beside its bytes, about.
const FETCHED_OVERHEAD_BYTES: usize = 512;

/// Properties that would break exactly-once or belong to Leeway, with the reason.
const REFUSED: [(&str, &str); 19] = [
    ("bootstrap.servers", "it has a key of its own, kafka.bootstrap_servers"),
    ("metadata.broker.list", "it has a key of its own, kafka.bootstrap_servers"),
    ("group.id", "the consumer group is the application id"),
    ("client.id", "it names instance and thread"),
    ("enable.auto.commit", "offsets are committed in the transaction only"),
    ("enable.auto.offset.store", "offsets are committed in the transaction only"),
    (
        "auto.offset.reset",
        "positions are explicit: a quiet reset would lose or repeat records; see monitor.start",
    ),
    ("isolation.level", "uncommitted records would be counted"),
    ("transactional.id", "it is derived from the application id and the state directory"),
    ("transaction.timeout.ms", "it has a key of its own, transaction_timeout_ms"),
    ("enable.idempotence", "transactions need it"),
    ("acks", "transactions need acks=all"),
    ("request.required.acks", "transactions need acks=all"),
    ("max.in.flight.requests.per.connection", "idempotence sets it"),
    ("partition.assignment.strategy", "rebalances are cooperative-sticky"),
    ("enable.partition.eof", "restores depend on it"),
    ("allow.auto.create.topics", "a misspelt topic would be created instead of reported"),
    ("consume.callback.max.messages", "it bounds the work between two looks at the group"),
    ("message.max.bytes", "it follows the input topic's max.message.bytes"),
];

/// How a stream thread is a member of its group. No other client gets them.
const MEMBERSHIP: [&str; 3] = ["group.protocol", "group.remote.assignor", STATIC];

/// Static membership. Each thread is a member of its own, so its number is appended.
const STATIC: &str = "group.instance.id";

/// What brokers decide for members of KIP-848's protocol.
const DECIDED_BY_BROKERS: [&str; 3] = ["session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type"];

/// Why a librdkafka property may not be set, if it may not.
#[must_use]
pub fn refused_property(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, reason)| *reason)
}

impl KafkaBroker {
    /// A cluster, by its bootstrap servers and any librdkafka properties.
    ///
    /// # Errors
    /// When librdkafka does not take a property or its value.
    pub fn new(bootstrap_servers: &str, properties: &BTreeMap<String, String>) -> Result<Self, BrokerError> {
        let is_membership = |name: &String| MEMBERSHIP.contains(&name.as_str());
        let (membership, mut properties): (BTreeMap<_, _>, BTreeMap<_, _>) =
            properties.clone().into_iter().partition(|(name, _)| is_membership(name));
        properties.insert("bootstrap.servers".to_owned(), bootstrap_servers.to_owned());
        let broker = Self {
            properties: Arc::new(properties),
            membership: Arc::new(membership),
            uncommitted: Arc::default(),
            fetched_ahead_bytes: FETCHED_AHEAD_MAX_BYTES,
            hook: None,
        };
        // Sees every wrong property at once, before anything waits for a broker.
        let mut config = broker.config();
        for (name, value) in broker.membership.iter() {
            config.set(name, value);
        }
        config
            .create_native_config()
            .map_err(|error| BrokerError::Refused(errors::text(&error)))?;
        let decided = DECIDED_BY_BROKERS.iter().find(|name| broker.properties.contains_key(**name));
        if let Some(name) = decided.filter(|_| broker.has_consumer_protocol()) {
            return Err(BrokerError::Refused(format!(
                "{name} cannot be set with group.protocol=consumer: the brokers decide it; see their group.consumer.* settings"
            )));
        }
        Ok(broker)
    }

    /// Whether members speak KIP-848's protocol, in which the broker assigns.
    fn has_consumer_protocol(&self) -> bool {
        self.membership.get("group.protocol").is_some_and(|protocol| protocol == "consumer")
    }

    /// The same cluster, with a test's hook in each transaction.
    #[must_use]
    pub fn with_hook(self, hook: impl Fn(TransactionStep) + Send + Sync + 'static) -> Self {
        Self {
            hook: Some(Arc::new(hook)),
            ..self
        }
    }

    /// The same cluster, with consumers that fetch no more than so many bytes ahead, about, of so many partitions together.
    #[must_use]
    pub fn fetching_ahead(self, bytes: usize, partitions: u32) -> Self {
        Self {
            fetched_ahead_bytes: (bytes / (partitions as usize).max(1)).min(FETCHED_AHEAD_MAX_BYTES),
            ..self
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in self.properties.iter() {
            config.set(name, value);
        }
        config.set("allow.auto.create.topics", "false").set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// A consumer's settings, whatever it is for.
    fn consumer_config(&self, group: &str) -> ClientConfig {
        let mut config = self.config();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set(SERVED_MAX.0, SERVED_MAX.1);
        self.set_unless_given(&mut config, &[("fetch.queue.backoff.ms", "10")]);
        for (name, value) in fetching_ahead(self.fetched_ahead_bytes) {
            self.set_unless_given(&mut config, &[(name, &value)]);
        }
        config
    }

    fn set_unless_given(&self, config: &mut ClientConfig, defaults: &[(&str, &str)]) {
        for (name, value) in defaults {
            if !self.properties.contains_key(*name) {
                config.set(*name, *value);
            }
        }
    }

    fn producer_config(&self) -> ClientConfig {
        let mut config = self.config();
        if !self.properties.contains_key("compression.type") && !self.properties.contains_key("compression.codec") {
            config.set("compression.type", "lz4");
        }
        config.set("enable.idempotence", "true");
        config
    }

    fn group_consumer_config(&self, settings: &ClientSettings) -> ClientConfig {
        let mut config = self.consumer_config(&settings.application_id);
        // A task that is at the end of its partition has to know it.
        config.set("client.id", &settings.client_id).set("enable.partition.eof", "true");
        for (name, value) in self.membership.iter() {
            match name.as_str() {
                STATIC => config.set(name, format!("{value}-{}", settings.thread)),
                _ => config.set(name, value),
            };
        }
        if !self.has_consumer_protocol() {
            config.set("partition.assignment.strategy", "cooperative-sticky");
            // With it a member hears of a rebalance: one that others wait for would take the three seconds of librdkafka's default.
            self.set_unless_given(&mut config, &[("heartbeat.interval.ms", "500")]);
        }
        self.set_unless_given(&mut config, &[("fetch.wait.max.ms", "100")]);
        config
    }

    /// The client that reads uncommitted.
    fn uncommitted(&self) -> Result<&BaseConsumer, BrokerError> {
        if let Some(client) = self.uncommitted.get() {
            return Ok(client);
        }
        let mut config = self.config();
        config.set("isolation.level", "read_uncommitted");
        let client = config.create().map_err(|error| BrokerError::Refused(errors::text(&error)))?;
        Ok(self.uncommitted.get_or_init(|| client))
    }
}

/// Settings with which a consumer holds so many bytes, about, of each partition that nobody has looked at yet.
///
/// librdkafka fetches on for as long as a partition's queue has less than both bounds, so what one fetch brings comes on top: decompressed, several times
/// what was asked for. Its own bounds (100,000 records, 64 MiB) would be gigabytes with a hundred partitions. A full queue is looked at again soon
/// (`fetch.queue.backoff.ms`); by default after a second, in which it runs empty.
fn fetching_ahead(bytes: usize) -> [(&'static str, String); 3] {
    let queued = bytes / 2;
    [
        ("queued.min.messages", (queued / FETCHED_OVERHEAD_BYTES).clamp(64, 10_000).to_string()),
        ("queued.max.messages.kbytes", (queued >> 10).max(64).to_string()),
        // One batch at least comes whatever its size.
        ("fetch.message.max.bytes", (bytes / 16).clamp(16 << 10, 1 << 20).to_string()),
    ]
}

/// A timeout that is never infinite.
fn bounded(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}
