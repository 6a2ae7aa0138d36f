//! The broker port: all that the runtime asks of Kafka, and its two adapters.
//!
//! ```text
//! stream thread --StreamClient--> kafka (rdkafka)      one consumer, one transactional producer and one restore consumer per thread
//!                             \-> memory (embedded)    the same promises in one process
//! start-up, tools --Broker-->    topics, plain producer, reading a topic to its end
//! ```
//!
//! Invariants:
//! - [`StreamClient`] never blocks: work is submitted, and its outcome arrives from [`StreamClient::next_event`]. Helper threads belong to the
//!   adapter. So one thread can drive everything, and `StreamThread::step` can be simulated.
//! - Nothing is fetched from a partition before [`StreamClient::start`] named its offset. No position is ever chosen by a reset policy.
//! - A record costs one call of a closure: no allocation, no lock.
//!
//! Not here: what to do about an outcome. That is the stream thread's.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::ids::{Offset, Partition, Timestamp};

pub mod kafka;
pub mod memory;

pub mod partitioner;
mod reader;

pub use reader::TopicReader;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: Partition,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: Partition) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A fetched record, borrowed from the client's buffer.
#[derive(Clone, Copy)]
pub struct FetchedRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, if it has one.
    pub timestamp: Option<Timestamp>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, read only when somebody asks.
    pub headers: &'a dyn Headers,
}

/// The headers of a fetched record.
pub trait Headers {
    /// Copies them, in order.
    fn to_owned_headers(&self) -> Vec<Header>;
}

/// A header: name and value.
pub type Header = (String, Option<Vec<u8>>);

/// A record to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, always named by the sender.
    pub partition: Partition,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<Header>,
    /// `None`: the time of writing.
    pub timestamp: Option<Timestamp>,
}

/// Who this consumer was in its group when it was asked. Sent with a transaction's offsets so that the broker can refuse a zombie.
#[derive(Clone)]
pub struct GroupMetadata {
    /// Member id; empty while not a member.
    pub member_id: String,
    /// Generation; below 0 while not a member.
    pub generation: i32,
    /// What the adapter needs to send it.
    pub token: Arc<dyn Any + Send + Sync>,
}

impl GroupMetadata {
    /// Whether the broker can check it. It skips its check for an unknown member, so such metadata must never be sent.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.generation >= 0 && !self.member_id.is_empty()
    }
}

impl fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {:?} of generation {}", self.member_id, self.generation)
    }
}

/// A group's committed position in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// The metadata string that was committed with it.
    pub metadata: String,
}

/// All outputs and positions of one epoch: one Kafka transaction.
#[derive(Clone, Debug)]
pub struct EpochCommit {
    /// Identifies the epoch in [`ClientEvent::CommitFinished`].
    pub epoch: u64,
    /// In the order in which they are to be sent.
    pub records: Vec<OutRecord>,
    /// Input positions with their metadata strings.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// The group metadata to send with the offsets.
    pub group: GroupMetadata,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is committed. For each partition written to: the offset after the last record, where every delivery report had one.
    Committed {
        /// Next offset by partition.
        ends: BTreeMap<TopicPartition, Offset>,
    },
    /// It is aborted on the broker for certain; the producer is ready for the next one.
    Aborted {
        /// Why, in words.
        reason: String,
        /// The same by the reaction it needs.
        cause: AbortCause,
    },
    /// Nobody knows: an error after the end of the transaction was asked for, or one that is not classified. The producer must be made anew.
    Unknown {
        /// Why, in words.
        reason: String,
    },
    /// Another producer with this transactional id has taken over. Nothing of the epoch was committed by this one from here on, but the end of
    /// the transaction may have been asked for: judged like [`Self::Unknown`].
    Fenced {
        /// Why, in words.
        reason: String,
    },
    /// The producer cannot go on, whatever is tried (authorisation, unsupported broker).
    Fatal {
        /// Why, in words, with what to do.
        reason: String,
    },
}

/// Why a transaction was aborted, by the reaction it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCause {
    /// The broker refused the group metadata (`ILLEGAL_GENERATION`, `UNKNOWN_MEMBER_ID`, `REBALANCE_IN_PROGRESS`): a rebalance is near.
    Rejoin,
    /// The transaction took longer than its time-out: the next one must be smaller.
    TimedOut,
    /// The broker, or a leader, cannot be reached: try again.
    Unavailable,
    /// A record or offset was refused (too large, invalid, no such topic): the same epoch may be refused again.
    Refused,
}

/// Where a partition's log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// First offset that is still there.
    pub start: Offset,
    /// After the last record, transactions that are still open included (asked read-uncommitted).
    pub high_watermark: Offset,
    /// After the last record that a read-committed reader may see.
    pub last_stable: Offset,
}

/// What a stream thread's client has to say.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// `init_transactions` is through: earlier transactions of this transactional id are settled, and their producers fenced.
    ProducerReady,
    /// `init_transactions` failed for good (retriable errors are retried inside the adapter).
    ProducerFailed {
        /// Why, in words, with what to do.
        reason: String,
    },
    /// An epoch's transaction ended.
    CommitFinished {
        /// Which epoch.
        epoch: u64,
        /// How.
        outcome: CommitOutcome,
    },
    /// The group gives partitions to this member. Answer with [`StreamClient::assign`].
    Assigned(Vec<TopicPartition>),
    /// The group takes partitions from this member. Commit, then answer with [`StreamClient::unassign`]; the rebalance waits for it.
    Revoked {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// They are lost already: nothing of them may be committed.
        lost: bool,
    },
    /// Answer to [`StreamClient::fetch_committed`]: stable offsets, `None` where the group has none.
    CommittedOffsets(Vec<(TopicPartition, Option<CommittedOffset>)>),
    /// Answer to [`StreamClient::fetch_log_range`].
    LogRange(TopicPartition, LogRange),
    /// The restore consumer stands at the end of this changelog partition (its last stable offset).
    RestoreEnd(TopicPartition),
    /// An input or changelog partition cannot be read on from its position: out of range, deleted, made anew. It has to be given back.
    PartitionError {
        /// Which.
        partition: TopicPartition,
        /// Why, in words with values.
        reason: String,
    },
    /// The broker cannot be reached at the moment (or again: `down` false). For one clear log line; the client goes on trying.
    Connection {
        /// Whether it is down.
        down: bool,
        /// What the client said.
        reason: String,
    },
    /// The client cannot go on (authentication, authorisation).
    Fatal {
        /// Why, in words, with what to do.
        reason: String,
    },
}

/// What one stream thread asks of the broker: a member of the group, a transactional producer and a restore consumer. Never blocks.
pub trait StreamClient {
    /// Serves callbacks and gives the next event, oldest first. Must be called often: it is also what keeps the member in its group.
    fn next_event(&mut self) -> Option<ClientEvent>;

    /// Waits until there may be something to do, at most `timeout`. The only call that sleeps; the simulation never makes it.
    fn wait(&mut self, timeout: Duration);

    /// Makes the transactional producer (anew, if there is one: that one is destroyed) and starts `init_transactions`.
    /// Answered by [`ClientEvent::ProducerReady`] or [`ClientEvent::ProducerFailed`].
    fn init_producer(&mut self);

    /// Joins the group with these topics.
    fn subscribe(&mut self, topics: &[Arc<str>]);

    /// Accepts partitions of a [`ClientEvent::Assigned`]. Nothing is fetched before [`Self::start`].
    fn assign(&mut self, partitions: &[TopicPartition]);

    /// Gives partitions of a [`ClientEvent::Revoked`] back. Fetched records of them are dropped.
    fn unassign(&mut self, partitions: &[TopicPartition]);

    /// Fetches an assigned partition from `offset` on; also the rewind: records fetched before are never seen again.
    fn start(&mut self, partition: &TopicPartition, offset: Offset);

    /// Hands up to `max` fetched records of a started partition to `visit`, in offset order, as long as it says `Continue`. A record for which
    /// it says `Break` counts as taken. Gives the number handed over.
    fn poll(&mut self, partition: &TopicPartition, max: usize, visit: &mut dyn FnMut(FetchedRecord<'_>) -> ControlFlow<()>) -> usize;

    /// The newest known high watermark of a started partition, without asking the broker. For the lag.
    fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset>;

    /// Whether the last [`Self::poll`] of a partition found its end, as far as readers see it.
    fn is_at_end(&self, partition: &TopicPartition) -> bool;

    /// Who this member is now. See the rule on zombies in `docs/architecture.md` for when to ask.
    fn group_metadata(&mut self) -> GroupMetadata;

    /// Whether the client knows that its assignment is lost.
    fn assignment_lost(&self) -> bool;

    /// Starts an epoch's transaction: begin, produce, send offsets, commit. One at a time. Answered by [`ClientEvent::CommitFinished`].
    fn commit(&mut self, epoch: EpochCommit);

    /// Asks for the group's stable committed offsets. Answered by [`ClientEvent::CommittedOffsets`], after any time; until then it is retried.
    fn fetch_committed(&mut self, partitions: &[TopicPartition]);

    /// Asks where a partition's log begins and ends. Answered by [`ClientEvent::LogRange`].
    fn fetch_log_range(&mut self, partition: &TopicPartition);

    /// Reads a changelog partition, read-committed, from `offset` on. [`ClientEvent::RestoreEnd`] says when its end was reached.
    fn start_restore(&mut self, partition: &TopicPartition, offset: Offset);

    /// Hands up to `max` fetched records of changelog partitions to `visit`. All records before a partition's end are handed over before its
    /// [`ClientEvent::RestoreEnd`] is given.
    fn poll_restore(&mut self, max: usize, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>)) -> usize;

    /// Ends the reading of a changelog partition.
    fn stop_restore(&mut self, partition: &TopicPartition);

    /// Leaves the group and closes everything, within `timeout`. Call it after the last commit; nothing else may be called afterwards.
    fn close(&mut self, timeout: Duration);
}

/// Settings of one stream thread's client.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The consumer group: the application id.
    pub application_id: String,
    /// Unique per process and thread, the same after a crash: `<application id>-<process id>-<thread>`.
    pub transactional_id: String,
    /// For the broker's logs: `<application id>-<process id>-StreamThread-<n>`.
    pub client_id: String,
    /// Its number in the process, the same after a crash: what tells static members of one process apart.
    pub thread: usize,
    /// How long a transaction of a dead instance can hold readers back.
    pub transaction_timeout: Duration,
    /// Largest record that the producer accepts, bytes, uncompressed.
    pub message_bytes_max: usize,
    /// Largest batch that every output topic takes: their smallest `max.message.bytes`. Brokers check it against whole batches.
    pub batch_bytes_max: usize,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Partitions.
    pub partitions: u32,
    /// Replicas per partition.
    pub replication_factor: u16,
    /// Settings such as `cleanup.policy`, `max.message.bytes`, `delete.retention.ms`.
    pub config: BTreeMap<String, String>,
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Partitions.
    pub partitions: u32,
    /// `None`: the broker's default.
    pub replication_factor: Option<u16>,
    /// Settings that differ from the broker's.
    pub config: BTreeMap<String, String>,
}

/// Why the broker did not do what was asked, by the reaction it needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// It did not answer, or not yet: try again.
    #[error("{0}")]
    Unavailable(String),
    /// The topic is not there.
    #[error("topic {0:?} does not exist")]
    NoSuchTopic(String),
    /// It refuses, and will again.
    #[error("{0}")]
    Refused(String),
}

/// What start-up and the tools ask of the broker. Calls block, at most `timeout`.
pub trait Broker: Clone + Send + Sync + 'static {
    /// A stream thread's client.
    type Client: StreamClient + Send + 'static;
    /// A plain producer.
    type Producer: PlainProducer + Send + 'static;
    /// A reader of a topic.
    type Reader: TopicReader + Send + 'static;

    /// Makes a stream thread's client.
    ///
    /// # Errors
    /// When a setting is refused.
    fn client(&self, settings: &ClientSettings) -> Result<Self::Client, BrokerError>;

    /// Makes an idempotent producer that is not transactional: for `leeway produce` and for publishing references.
    ///
    /// # Errors
    /// When a setting is refused.
    fn producer(&self) -> Result<Self::Producer, BrokerError>;

    /// Describes a topic; `None` if it does not exist.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    fn describe_topic(&self, topic: &str, timeout: Duration) -> Result<Option<TopicDescription>, BrokerError>;

    /// Creates a topic, or finds that it was created meanwhile.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    fn create_topic(&self, topic: &NewTopic, timeout: Duration) -> Result<(), BrokerError>;

    /// Raises a topic's number of partitions.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    fn add_partitions(&self, topic: &str, partitions: u32, timeout: Duration) -> Result<(), BrokerError>;

    /// Where a partition's log ends, open transactions included; cheap enough to be asked each second.
    ///
    /// # Errors
    /// When the partition is not there or the broker does not answer.
    fn end_offset(&self, partition: &TopicPartition, timeout: Duration) -> Result<Offset, BrokerError>;

    /// Reads all partitions of a topic, read-committed, from the start to where the end was when the call began.
    /// `visit` may stop it by `Break`. `timeout`: how long nothing may come.
    ///
    /// # Errors
    /// When the topic is not there or the broker does not answer.
    fn read_topic(
        &self,
        topic: &str,
        timeout: Duration,
        visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), BrokerError>;

    /// Of each partition of a topic the offset of the first record with this time or a later one, or where the log ends if there is none.
    ///
    /// # Errors
    /// When the topic is not there or the broker does not answer.
    fn offsets_at(&self, topic: &str, time: Timestamp, timeout: Duration) -> Result<BTreeMap<Partition, Offset>, BrokerError>;

    /// As [`Self::read_topic`], these ranges of a topic's partitions.
    ///
    /// # Errors
    /// When a range begins before its partition's log, or the broker does not answer.
    fn read_ranges(
        &self,
        topic: &str,
        ranges: &BTreeMap<Partition, Range<Offset>>,
        timeout: Duration,
        visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), BrokerError>;

    /// Makes a reader of a topic that goes on with what is written to it. Nothing is read before its [`TopicReader::refresh`].
    ///
    /// # Errors
    /// When a setting is refused.
    fn follow_topic(&self, topic: &str) -> Result<Self::Reader, BrokerError>;

    /// The group's committed offsets in all partitions of `topic`, and their log ranges: for the tools.
    ///
    /// # Errors
    /// When the topic is not there or the broker does not answer.
    fn group_positions(
        &self,
        group: &str,
        topic: &str,
        timeout: Duration,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>, LogRange)>, BrokerError>;

    /// The group's members, by client id, those included whose session has not ended yet; none when there is no such group.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    fn group_members(&self, group: &str, timeout: Duration) -> Result<Vec<String>, BrokerError>;

    /// Deletes a group with its committed offsets. Says whether there was one.
    ///
    /// # Errors
    /// When it has members, or the broker does not answer or refuses.
    fn delete_group(&self, group: &str, timeout: Duration) -> Result<bool, BrokerError>;

    /// Deletes a topic with its records. Says whether there was one.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    fn delete_topic(&self, topic: &str, timeout: Duration) -> Result<bool, BrokerError>;
}

/// An idempotent producer.
pub trait PlainProducer {
    /// Queues a record. Waits while the queue is full.
    ///
    /// # Errors
    /// When the record can never be sent (too large), or an earlier one failed for good.
    fn send(&mut self, record: OutRecord) -> Result<(), BrokerError>;

    /// Waits until everything queued is acknowledged.
    ///
    /// # Errors
    /// When a record could not be delivered within `timeout`.
    fn flush(&mut self, timeout: Duration) -> Result<(), BrokerError>;
}
