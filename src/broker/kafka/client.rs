//! One stream thread's client: its consumer, its producer's thread, its questions, its restores.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leeway_topology::ids::Offset;
use rdkafka::consumer::Consumer;
use tracing::{debug, warn};

use super::consumer::{QueueEvent, QueuedConsumer, Rebalanced};
use super::requests::{Reader, Request, Requests};
use super::signal::Signal;
use super::transactions::{Command, Transactions};
use super::{KafkaBroker, bounded, ffi};
use crate::broker::{
    BrokerError, ClientEvent, ClientSettings, CommitOutcome, EpochCommit, FetchedRecord, GroupMetadata, StreamClient, TopicPartition,
};

/// Header of a batch, and a margin.
const BATCH_OVERHEAD_BYTES: usize = 512;

/// Preparing a transaction and ending it take no longer than its time-out each. What lasts longer than both and this hangs.
const HUNG_MARGIN: Duration = Duration::from_secs(5);

/// Producers that hang while they are made, one after the other, before the client gives up: each leaves a thread and a native client behind.
const HUNG_STARTS_MAX: u32 = 3;

/// See the module. Fields are dropped in order: what holds a consumer goes before it.
pub struct KafkaClient {
    commands: Option<Sender<Command>>,
    /// For a thread in place of one that hangs.
    transactions: Transactions,
    /// What that thread is busy with, and since when.
    working: Option<(Work, Instant)>,
    hung_starts: u32,
    requests: Option<Sender<Request>>,
    answers: Receiver<ClientEvent>,
    pending: VecDeque<ClientEvent>,
    /// Input partitions of which the last poll found the end.
    at_end: BTreeSet<TopicPartition>,
    threads: Vec<JoinHandle<()>>,
    restore: QueuedConsumer,
    input: QueuedConsumer,
    signal: Arc<Signal>,
    down: bool,
}

/// What the transactions thread may hang in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Making a producer, as of this attempt.
    Starting { attempt: u64 },
    /// This epoch's transaction.
    Committing { epoch: u64 },
}

impl KafkaClient {
    pub(super) fn new(broker: &KafkaBroker, settings: &ClientSettings) -> Result<Self, BrokerError> {
        let signal = Arc::new(Signal::default());
        let input = QueuedConsumer::new(&broker.group_consumer_config(settings), &signal)?;
        let mut restore_config = broker.consumer_config(&format!("{}-restore", settings.application_id));
        // The end of a partition is told by an empty fetch: do not let the broker hold it back.
        restore_config
            .set("client.id", format!("{}-restore", settings.client_id))
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10");
        let restore = QueuedConsumer::new(&restore_config, &signal)?;
        let (events, answers) = channel();
        let (commands, commanded) = channel();
        let (requests, requested) = channel();
        let mut producer_config = broker.producer_config();
        producer_config
            .set("client.id", format!("{}-producer", settings.client_id))
            .set("transactional.id", &settings.transactional_id)
            .set("transaction.timeout.ms", settings.transaction_timeout.as_millis().to_string())
            .set("message.timeout.ms", settings.transaction_timeout.as_millis().to_string())
            // A batch larger than a topic's limit is refused whole, and librdkafka does not split it. One record may be larger than a batch.
            .set(
                "batch.size",
                settings.batch_bytes_max.saturating_sub(BATCH_OVERHEAD_BYTES).max(1).to_string(),
            )
            .set("message.max.bytes", settings.message_bytes_max.max(1_000_000).to_string());
        // An epoch's records are queued at once, and nothing is gained by waiting for more than the rest of them.
        broker.set_unless_given(&mut producer_config, &[("linger.ms", "1"), ("queue.buffering.max.messages", "500000")]);
        let transactions = Transactions {
            config: producer_config,
            timeout: settings.transaction_timeout,
            hook: broker.hook.clone(),
            events: events.clone(),
            signal: signal.clone(),
            given_up: Arc::default(),
            attempts: Arc::default(),
        };
        let asker = Requests {
            broker: broker.clone(),
            consumer: input.consumer().clone(),
            restore: restore.consumer().clone(),
            events,
            signal: signal.clone(),
        };
        let of_thread = transactions.clone();
        let threads = vec![
            spawn("transactions", move || of_thread.run(&commanded))?,
            spawn("requests", move || asker.run(&requested))?,
        ];
        Ok(Self {
            commands: Some(commands),
            transactions,
            working: None,
            hung_starts: 0,
            requests: Some(requests),
            answers,
            pending: VecDeque::new(),
            at_end: BTreeSet::new(),
            threads,
            restore,
            input,
            signal,
            down: false,
        })
    }

    fn command(&self, command: Command) {
        if self.commands.as_ref().is_none_or(|commands| commands.send(command).is_err()) {
            warn!("the transactions thread is gone");
        }
    }

    /// Gives up on a call that cannot take this long. Some of librdkafka's have no limit of their own: `send_offsets_to_transaction` was seen never
    /// to return when its broker left the cluster, and destroying a producer waits for its threads. The thread is left where it stands, since
    /// nothing can end the call. Should it return, it finds its producer fenced by the one that comes next, or has committed before that was made:
    /// so the outcome is unknown.
    fn give_up_hung(&mut self) -> Option<ClientEvent> {
        let (work, since) = self.working?;
        let limit = self.transactions.timeout * 2 + HUNG_MARGIN;
        if since.elapsed() < limit {
            return None;
        }
        if let Work::Starting { attempt } = work {
            let now = self.transactions.attempts.load(Ordering::Relaxed);
            if now != attempt {
                self.working = Some((Work::Starting { attempt: now }, Instant::now()));
                return None;
            }
            self.hung_starts += 1;
            if self.hung_starts >= HUNG_STARTS_MAX {
                return Some(ClientEvent::Fatal {
                    reason: format!(
                        "librdkafka did not return from making a producer, {HUNG_STARTS_MAX} times for {} s; start Leeway again, and look at the brokers' logs",
                        limit.as_secs()
                    ),
                });
            }
        }
        if let Err(error) = self.replace_transactions_thread() {
            return Some(ClientEvent::Fatal { reason: error.to_string() });
        }
        match work {
            Work::Starting { .. } => {
                warn!(
                    seconds = limit.as_secs(),
                    "librdkafka did not return from making a producer; making another one"
                );
                self.init_producer();
                None
            }
            Work::Committing { epoch } => Some(ClientEvent::CommitFinished {
                epoch,
                outcome: CommitOutcome::Unknown {
                    reason: format!("librdkafka did not return within {} s; going on with a new producer", limit.as_secs()),
                },
            }),
        }
    }

    fn replace_transactions_thread(&mut self) -> Result<(), BrokerError> {
        self.working = None;
        self.transactions.given_up.store(true, Ordering::Release);
        self.transactions.given_up = Arc::default();
        self.transactions.attempts = Arc::default();
        let (commands, commanded) = channel();
        let transactions = self.transactions.clone();
        self.threads.push(spawn("transactions", move || transactions.run(&commanded))?);
        self.commands = Some(commands);
        Ok(())
    }

    fn request(&self, request: Request) {
        if self.requests.as_ref().is_none_or(|requests| requests.send(request).is_err()) {
            warn!("the requests thread is gone");
        }
    }

    fn check(&mut self, result: Result<(), String>) {
        if let Err(reason) = result {
            self.pending.push_back(ClientEvent::Fatal { reason });
        }
    }

    /// Tells of the connection once per change.
    fn once(&mut self, event: ClientEvent) -> Option<ClientEvent> {
        match event {
            ClientEvent::Connection { down, .. } if down == self.down => None,
            ClientEvent::Connection { down, .. } => {
                self.down = down;
                Some(event)
            }
            other => Some(other),
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BrokerError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| BrokerError::Unavailable(format!("cannot start a thread: {error}")))
}

impl StreamClient for KafkaClient {
    fn next_event(&mut self) -> Option<ClientEvent> {
        if let Some(event) = self.pending.pop_front() {
            return Some(event);
        }
        if let Some(event) = self.input.serve().or_else(|| self.restore.serve())
            && let Some(event) = self.once(event)
        {
            return Some(event);
        }
        match self.input.rebalanced() {
            Some(Rebalanced::Assigned(partitions)) => return Some(ClientEvent::Assigned(partitions)),
            Some(Rebalanced::Revoked { partitions, lost }) => return Some(ClientEvent::Revoked { partitions, lost }),
            None => {}
        }
        let Ok(event) = self.answers.try_recv() else {
            return self.give_up_hung();
        };
        match event {
            // Not that of a thread that was given up in this moment.
            ClientEvent::CommitFinished { epoch, .. } if self.working.is_some_and(|(work, _)| work == Work::Committing { epoch }) => {
                self.working = None
            }
            ClientEvent::ProducerReady | ClientEvent::ProducerFailed { .. } => (self.working, self.hung_starts) = (None, 0),
            _ => {}
        }
        self.once(event).or_else(|| self.next_event())
    }

    fn wait(&mut self, timeout: Duration) {
        self.signal.wait(timeout);
    }

    fn init_producer(&mut self) {
        // The one that comes.
        let attempt = self.transactions.attempts.load(Ordering::Relaxed) + 1;
        self.working = Some((Work::Starting { attempt }, Instant::now()));
        self.command(Command::Init);
    }

    fn subscribe(&mut self, topics: &[Arc<str>]) {
        let topics: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
        let result = self.input.consumer().subscribe(&topics).map_err(|error| format!("subscribing: {error}"));
        self.check(result);
    }

    fn assign(&mut self, partitions: &[TopicPartition]) {
        let result = self.input.assign(partitions);
        self.check(result);
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) {
        if let Err(reason) = self.input.unassign(partitions) {
            // A loss may have taken them already.
            debug!(reason, "unassign");
        }
    }

    fn start(&mut self, partition: &TopicPartition, offset: Offset) {
        self.at_end.remove(partition);
        let result = self.input.start(partition, offset);
        self.check(result);
    }

    fn poll(&mut self, partition: &TopicPartition, max: usize, visit: &mut dyn FnMut(FetchedRecord<'_>) -> ControlFlow<()>) -> usize {
        let (taken, event) = self.input.poll(partition, max, visit);
        // librdkafka tells of the end once, until it went on.
        if matches!(event, Some(QueueEvent::End)) {
            self.at_end.insert(partition.clone());
        } else if taken > 0 {
            self.at_end.remove(partition);
        }
        if let Some(QueueEvent::Failed(reason)) = event {
            self.pending.push_back(ClientEvent::PartitionError {
                partition: partition.clone(),
                reason,
            });
        }
        if taken > 0 && self.down {
            self.down = false;
            self.pending.push_back(ClientEvent::Connection {
                down: false,
                reason: String::new(),
            });
        }
        taken
    }

    fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        ffi::high_watermark(self.input.consumer().client(), &partition.topic, partition.partition.0).map(Offset)
    }

    fn is_at_end(&self, partition: &TopicPartition) -> bool {
        self.at_end.contains(partition)
    }

    fn group_metadata(&mut self) -> GroupMetadata {
        // Two calls, since rdkafka hides what is in its own: asked until nothing changed in between.
        loop {
            let before = ffi::member(self.input.consumer().client());
            let token = self.input.consumer().group_metadata();
            let after = ffi::member(self.input.consumer().client());
            if before == after {
                let (member_id, generation) = after;
                return match token {
                    Some(token) => GroupMetadata {
                        member_id,
                        generation,
                        token: Arc::new(token),
                    },
                    None => GroupMetadata {
                        member_id: String::new(),
                        generation: -1,
                        token: Arc::new(()),
                    },
                };
            }
        }
    }

    fn assignment_lost(&self) -> bool {
        self.input.consumer().assignment_lost()
    }

    fn commit(&mut self, epoch: EpochCommit) {
        self.working = Some((Work::Committing { epoch: epoch.epoch }, Instant::now()));
        self.command(Command::Commit(epoch));
    }

    fn fetch_committed(&mut self, partitions: &[TopicPartition]) {
        self.request(Request::Committed(partitions.to_vec()));
    }

    fn fetch_log_range(&mut self, partition: &TopicPartition) {
        let is_input = self.input.partitions().any(|owned| owned == partition);
        self.request(Request::Ranges {
            partitions: vec![partition.clone()],
            of: if is_input { Reader::Input } else { Reader::Restore },
        });
    }

    fn start_restore(&mut self, partition: &TopicPartition, offset: Offset) {
        let result = self.restore.assign(std::slice::from_ref(partition));
        self.check(result);
        let result = self.restore.start(partition, offset);
        self.check(result);
    }

    fn poll_restore(&mut self, max: usize, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>)) -> usize {
        let partitions: Vec<_> = self.restore.partitions().cloned().collect();
        let mut taken = 0;
        for partition in partitions {
            let (records, event) = self.restore.poll(&partition, max.saturating_sub(taken), &mut |record| {
                visit(&partition, record);
                ControlFlow::Continue(())
            });
            taken += records;
            match event {
                Some(QueueEvent::End) => self.pending.push_back(ClientEvent::RestoreEnd(partition)),
                Some(QueueEvent::Failed(reason)) => self.pending.push_back(ClientEvent::PartitionError { partition, reason }),
                None => {}
            }
        }
        taken
    }

    fn stop_restore(&mut self, partition: &TopicPartition) {
        if self.restore.partitions().any(|restoring| restoring == partition)
            && let Err(reason) = self.restore.unassign(std::slice::from_ref(partition))
        {
            debug!(reason, "stop restore");
        }
    }

    fn close(&mut self, timeout: Duration) {
        self.commands = None;
        self.requests = None;
        self.input.close();
        self.restore.close();
        let deadline = Instant::now() + bounded(timeout);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                self.signal.wait(Duration::from_millis(5));
            }
            if thread.is_finished() && thread.join().is_err() {
                warn!("a thread of the client panicked");
            }
        }
    }
}
