//! References on Kafka: `<application_id>-reference`, compacted, one partition.
//!
//! Key `monitor/version` holds a reference, key `monitor` points at the current one, so that stored panes keep theirs. A reference is written
//! before the pointer to it.
//!
//! [`LiveReferences`] follows the topic while a process runs, so that a new reference needs no restart.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::{Publication, PublishedReferences, References};
use leeway_topology::reference::{Reference, ReferenceError};
use serde::{Deserialize, Serialize};

use tracing::{info, warn};

use crate::broker::{Broker, BrokerError, OutRecord, PlainProducer, TopicPartition};
use crate::topics::{self, TopicError};

/// One request to the broker; reading the whole topic too, since references are few.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often the topic is asked whether there is something new.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// The value under a monitor's key.
#[derive(Serialize, Deserialize)]
struct Pointer {
    version: String,
    /// Of a monitor with a rolling reference: the end of the last period of which one was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rolled_until_ms: Option<i64>,
}

/// The references of an application.
#[derive(Clone, Default)]
pub struct ReferenceSet {
    /// As the dataflow sees them.
    pub published: PublishedReferences,
    /// All of them, by monitor and version, with the current version of each monitor.
    pub listed: BTreeMap<String, (Option<String>, Vec<Arc<Reference>>)>,
    rolled: BTreeMap<String, Timestamp>,
}

impl ReferenceSet {
    /// The end of the last period of which a rolling reference of this monitor was published.
    #[must_use]
    pub fn rolled_until(&self, monitor: &str) -> Option<Timestamp> {
        self.rolled.get(monitor).copied()
    }
}

/// What publishing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is the current reference now.
    New,
    /// It was already.
    Current,
    /// It is known, and a later one is current.
    Superseded,
}

/// Why references cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceTopicError {
    /// The topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The broker.
    #[error("topic {topic:?}: {error}")]
    Broker {
        /// The reference topic.
        topic: String,
        /// What the broker said.
        error: BrokerError,
    },
    /// What stands there is no reference.
    #[error("topic {topic:?}, key {key:?}: {error}")]
    Invalid {
        /// The reference topic.
        topic: String,
        /// The record's key.
        key: String,
        /// What is wrong.
        error: ReferenceError,
    },
}

impl ReferenceTopicError {
    /// Whether waiting may help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Topic(error) => error.is_unavailable(),
            Self::Broker { error, .. } => matches!(error, BrokerError::Unavailable(_)),
            Self::Invalid { .. } => false,
        }
    }
}

/// The reference topic of an application.
#[must_use]
pub fn topic_name(application_id: &str) -> String {
    format!("{application_id}-reference")
}

/// Reads all references of an application; none if the topic is not there.
///
/// # Errors
/// When the broker does not answer, or a record is no reference.
pub fn load<B: Broker>(broker: &B, application_id: &str) -> Result<ReferenceSet, ReferenceTopicError> {
    let topic = topic_name(application_id);
    let mut latest: BTreeMap<String, (Offset, Option<Vec<u8>>)> = BTreeMap::new();
    let read = broker.read_topic(&topic, TIMEOUT, &mut |_, record| {
        if let Some(key) = record.key {
            let value = record.value.map(<[u8]>::to_vec);
            latest.insert(String::from_utf8_lossy(key).into_owned(), (record.offset, value));
        }
        ControlFlow::Continue(())
    });
    match read {
        Ok(()) => {}
        Err(BrokerError::NoSuchTopic(_)) => return Ok(ReferenceSet::default()),
        Err(error) => return Err(ReferenceTopicError::Broker { topic, error }),
    }
    let mut set = ReferenceSet::default();
    for (key, (offset, value)) in latest {
        let Some(value) = value else { continue };
        // A version has no slash, so the last one ends the monitor's name. A pointer's value is no reference document.
        if let Ok(Pointer { version, rolled_until_ms }) = serde_json::from_slice(&value)
            && !key.ends_with(&format!("/{version}"))
        {
            set.published.point(&key, &version);
            set.rolled.extend(rolled_until_ms.map(|until| (key.clone(), Timestamp(until))));
            set.listed.entry(key).or_default().0 = Some(version);
            continue;
        }
        let reference = Reference::from_json(&value).map_err(|error| ReferenceTopicError::Invalid {
            topic: topic.clone(),
            key,
            error,
        })?;
        let reference = Arc::new(reference);
        set.published.add(reference.clone(), u64::try_from(offset.0).unwrap_or(0));
        set.listed.entry(reference.monitor().to_owned()).or_default().1.push(reference);
    }
    Ok(set)
}

/// Makes a reference its monitor's current one.
///
/// # Errors
/// When the topic does not fit, or the broker refuses or does not answer.
pub fn publish<B: Broker>(broker: &B, application_id: &str, reference: &Reference) -> Result<Published, ReferenceTopicError> {
    let topic = topic_name(application_id);
    topics::references(broker, &topic)?;
    let known = load(broker, application_id)?;
    let current = known.published.current(reference.monitor());
    if current.is_some_and(|current| current.reference.version() == reference.version()) {
        return Ok(Published::Current);
    }
    // It stays the current one until the next period.
    write(broker, topic, reference, known.rolled_until(reference.monitor()))
}

/// Makes a rolling reference its monitor's current one, and says of which period it is by that period's end.
///
/// # Errors
/// As [`publish`].
pub fn publish_rolled<B: Broker>(broker: &B, application_id: &str, reference: &Reference, until: Timestamp) -> Result<(), ReferenceTopicError> {
    let topic = topic_name(application_id);
    topics::references(broker, &topic)?;
    write(broker, topic, reference, Some(until)).map(|_| ())
}

/// Makes a reference its monitor's current one if its version was never published. So an instance that starts with an older file does not take back
/// what was published since.
///
/// # Errors
/// As [`publish`].
pub fn publish_if_new<B: Broker>(broker: &B, application_id: &str, reference: &Reference) -> Result<Published, ReferenceTopicError> {
    let topic = topic_name(application_id);
    topics::references(broker, &topic)?;
    let known = load(broker, application_id)?;
    let (monitor, version) = (reference.monitor(), reference.version());
    if known.published.version(monitor, version).is_none() {
        return write(broker, topic, reference, known.rolled_until(monitor));
    }
    Ok(match known.published.current(monitor) {
        Some(current) if current.reference.version() != version => Published::Superseded,
        _ => Published::Current,
    })
}

fn write<B: Broker>(broker: &B, topic: String, reference: &Reference, rolled_until: Option<Timestamp>) -> Result<Published, ReferenceTopicError> {
    let monitor = reference.monitor();
    let broker_error = |error| ReferenceTopicError::Broker { topic: topic.clone(), error };
    let name: Arc<str> = topic.as_str().into();
    let record = |key: String, value: Vec<u8>| OutRecord {
        topic: name.clone(),
        partition: Partition(0),
        key: Some(key.into_bytes()),
        value: Some(value),
        headers: Vec::new(),
        timestamp: None,
    };
    let pointer = Pointer {
        version: reference.version().to_owned(),
        rolled_until_ms: rolled_until.map(|until| until.0),
    };
    let pointer = serde_json::json!(pointer).to_string().into_bytes();
    let mut producer = broker.producer().map_err(broker_error)?;
    producer
        .send(record(format!("{monitor}/{}", reference.version()), reference.to_json()))
        .map_err(broker_error)?;
    producer.send(record(monitor.to_owned(), pointer)).map_err(broker_error)?;
    producer.flush(TIMEOUT).map_err(broker_error)?;
    Ok(Published::New)
}

/// The references of an application as they are now, for all threads of a process.
#[derive(Default)]
pub struct LiveReferences {
    published: RwLock<PublishedReferences>,
    generation: AtomicU64,
}

impl LiveReferences {
    /// As they were read.
    #[must_use]
    pub fn new(published: PublishedReferences) -> Self {
        Self {
            published: RwLock::new(published),
            generation: AtomicU64::new(0),
        }
    }

    /// Replaces all of them.
    pub fn set(&self, published: PublishedReferences) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = published;
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl References for LiveReferences {
    fn current(&self, monitor: &str) -> Option<Publication> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).current(monitor)
    }

    fn version(&self, monitor: &str, version: &str) -> Option<Publication> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).version(monitor, version)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Keeps references up to date until it is dropped. A request that is under way then is not waited for: its answer is of no use any more.
pub struct Follower {
    /// Its thread ends when this is gone.
    _stop: Sender<()>,
}

impl Follower {
    /// Follows the reference topic of an application.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start<B: Broker>(broker: B, application_id: &str, references: Arc<LiveReferences>) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let application_id = application_id.to_owned();
        std::thread::Builder::new()
            .name("references".to_owned())
            .spawn(move || follow(&broker, &application_id, &references, &stopped))?;
        Ok(Self { _stop: stop })
    }
}

fn follow<B: Broker>(broker: &B, application_id: &str, references: &LiveReferences, stopped: &Receiver<()>) {
    let partition = TopicPartition::new(topic_name(application_id), Partition(0));
    // What was read before this thread began is read again once: it may have changed in between.
    let mut seen: Option<Offset> = None;
    let mut told = false;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(FOLLOW_EVERY) {
        let read = broker
            .end_offset(&partition, TIMEOUT)
            .map_err(|error| ReferenceTopicError::Broker {
                topic: partition.topic.to_string(),
                error,
            })
            .and_then(|end| {
                // The end first: what comes while the topic is read is seen the next time.
                let changed = seen != Some(end);
                Ok(if changed { Some((end, load(broker, application_id)?)) } else { None })
            });
        match read {
            Ok(None) => told = false,
            Ok(Some((end, set))) => {
                told = false;
                if seen.replace(end).is_some() {
                    info!(topic = %partition.topic, "the published references have changed");
                }
                references.set(set.published);
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%error, "published references cannot be read; going on with those that are known");
                }
            }
        }
    }
}
