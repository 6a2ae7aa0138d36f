//! The loop of `leeway alert`: follows the events, keeps the incidents, and gives channels what they have to tell.
//!
//! ```text
//! Standby --the group gives the state's partition--> Starting --producer--> Settling --stable--> Restoring --end--> Active
//!    ^                                                  ^                                                             |
//!    \---------------- taken or lost -------------------+------- a commit without a known outcome --------------------/
//!
//! Active: events --filter, incident--> transitions --group_wait--> messages \
//!                                                                             } one transaction: state, outbox, positions
//!         committed messages --worker--> delivered --> tombstones -----------/
//! ```
//!
//! One process of a group is active: the one that has the only partition of the topic of state (`docs/adr/0008-one-active-alerter.md`).
//! All of them make their transactions under one transactional id, so who becomes active fences whoever was.
//!
//! Invariants:
//! - Nothing is sent before it is durable, and nothing that is durable is forgotten before it is delivered, refused, or dropped with a word.
//! - State, outbox and positions are those of one moment. What is in memory and not committed is thrown away when a commit's outcome is not known.
//! - [`AlertThread::step`] never blocks; channels have threads of their own.
//! - Memory is bounded: incidents, messages per channel, events per commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use leeway_topology::drift::Criteria;
use leeway_topology::ids::{Offset, Partition};
use leeway_topology::processor::References;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tracing::{info, warn};

use super::channels::Channel;
use super::incident::{Incident, Rule};
use super::message::Message;
use super::metrics::AlertMetrics;
use super::outbox::Outbox;
use super::route::Filter;
use super::state::Positions;
use super::worker::{Reports, Worker};
use crate::broker::{ClientEvent, CommitOutcome, StreamClient, TopicPartition};
use crate::http::Health;
use crate::stream_thread::Now;

mod commit;
mod delivery;
mod events;
mod restore;
#[cfg(test)]
mod tests;

/// Incidents of all channels together that are kept: about 100 MB when all of them are open.
const INCIDENTS_MAX: usize = 50_000;

/// Records taken in one step.
const RECORDS_PER_POLL: usize = 2048;

/// How often an unstable topic of state is asked for again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The first and the longest pause before state is read again after a failure.
const RESTART_AFTER: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How often clocks and gauges are looked at.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// What a channel is, and what it is asked for.
pub struct ChannelSpec {
    /// Its unique name.
    pub name: String,
    /// Where it leads.
    pub sink: Box<dyn Channel>,
    /// What it hears of.
    pub filter: Filter,
    /// When it is told.
    pub rule: Rule,
    /// It takes every summary as a line, and no messages.
    pub is_log: bool,
    /// How often it is told again of what is open.
    pub refresh_every: Option<Duration>,
}

/// What the thread is asked for.
pub struct Settings {
    /// The topic of state.
    pub state_topic: Arc<str>,
    /// How long after a first transition others of the same check are waited for.
    pub group_wait: Duration,
    /// Messages that a channel keeps.
    pub max_parked: usize,
    /// What is older is not told, unless it is still open; milliseconds.
    pub max_age_ms: i64,
    /// After what time without a check an incident is closed.
    pub expire_after: Option<Duration>,
    /// Where messages point to.
    pub dashboard_url: Option<String>,
    /// What checks ask, by monitor.
    pub criteria: BTreeMap<String, Criteria>,
    /// The published references.
    pub references: Arc<dyn References + Send + Sync>,
    /// Seed of the jitter.
    pub seed: u64,
}

/// Why the thread cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AlertError(pub String);

/// How far a topic of events goes, as somebody outside asked.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The topic.
    pub topic: Arc<str>,
    /// The end of each partition; none: the topic is not there yet.
    pub ends: Vec<Offset>,
}

/// What is known of one incident.
struct Tracked {
    incident: Incident,
    /// See [`super::state::StoredIncident`].
    message: Option<Arc<Message>>,
    /// When its last check was seen.
    seen: Duration,
}

/// One channel and what it has to tell.
struct ChannelState {
    name: String,
    filter: Filter,
    rule: Rule,
    is_log: bool,
    worker: Worker,
    /// By event id without its last two parts.
    incidents: BTreeMap<String, Tracked>,
    outbox: Outbox,
    /// Ids of entries that are delivered, until their tombstones are committed. They outlive a restart of the state: what this process knows to be
    /// delivered it does not send again.
    delivered: BTreeSet<String>,
}

/// A partition of events.
enum Reading {
    /// Asked where to begin.
    Asked {
        committed: Option<Option<Offset>>,
        range: Option<crate::broker::LogRange>,
    },
    /// Being read.
    At { next: Offset, at_end: bool },
}

/// How far the thread is.
enum Phase {
    Standby,
    /// To be started at this time, or asked for already.
    Starting {
        at: Duration,
        asked: bool,
    },
    Settling {
        target: Option<Offset>,
        ask_at: Duration,
        asked: bool,
    },
    Restoring {
        since: Duration,
        records: u64,
    },
    Active,
}

/// The loop. See the module.
pub struct AlertThread<C> {
    client: C,
    settings: Settings,
    metrics: Arc<AlertMetrics>,
    health: Arc<Health>,
    phase: Phase,
    channels: Vec<ChannelState>,
    reports: Reports,
    watch: Receiver<Watched>,
    /// The newest of each topic.
    watched: BTreeMap<Arc<str>, Vec<Offset>>,
    reading: BTreeMap<TopicPartition, Reading>,
    /// Of the state, for a group whose offsets are gone.
    positions: Positions,
    epoch: commit::Epoch,
    epochs: u64,
    committing: bool,
    failures: u32,
    random: StdRng,
    ticked: Duration,
    malformed_told: Option<Duration>,
    full_told: Option<Duration>,
    caught_up: bool,
    stopping: bool,
}

impl<C: StreamClient> AlertThread<C> {
    /// A thread that has not joined its group yet. `watch` tells how far the topics of events go.
    ///
    /// # Errors
    /// When a channel's thread cannot be started.
    pub fn new(
        client: C,
        settings: Settings,
        channels: Vec<ChannelSpec>,
        watch: Receiver<Watched>,
        metrics: Arc<AlertMetrics>,
        health: Arc<Health>,
    ) -> std::io::Result<Self> {
        let reports = Reports::default();
        let start = |(index, spec): (usize, ChannelSpec)| -> std::io::Result<ChannelState> {
            let worker = Worker::start(index, &spec.name, spec.sink, spec.refresh_every, &reports)?;
            Ok(ChannelState {
                name: spec.name,
                filter: spec.filter,
                rule: spec.rule,
                is_log: spec.is_log,
                worker,
                incidents: BTreeMap::new(),
                outbox: Outbox::new(settings.max_parked),
                delivered: BTreeSet::new(),
            })
        };
        let channels = channels.into_iter().enumerate().map(start).collect::<std::io::Result<_>>()?;
        Ok(Self {
            client,
            random: StdRng::seed_from_u64(settings.seed),
            settings,
            metrics,
            health,
            phase: Phase::Standby,
            channels,
            reports,
            watch,
            watched: BTreeMap::new(),
            reading: BTreeMap::new(),
            positions: Positions::default(),
            epoch: commit::Epoch::default(),
            epochs: 0,
            committing: false,
            failures: 0,
            ticked: Duration::ZERO,
            malformed_told: None,
            full_told: None,
            caught_up: false,
            stopping: false,
        })
    }

    /// Joins the group.
    pub fn start(&mut self) {
        self.health.set_ready(false, "joining the group");
        self.client.subscribe(std::slice::from_ref(&self.settings.state_topic));
    }

    /// Sends nothing more; [`Self::is_stopped`] says when what is under way has ended.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether nothing is under way any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let is_quiet = self
            .channels
            .iter()
            .all(|channel| channel.worker.is_idle() && channel.delivered.is_empty());
        self.stopping && !self.committing && (is_quiet || !matches!(self.phase, Phase::Active))
    }

    /// Leaves the group.
    pub fn close(mut self, timeout: Duration) {
        self.client.close(timeout);
    }

    /// Sleeps until there may be something to do.
    pub fn wait(&mut self, timeout: Duration) {
        self.client.wait(timeout);
    }

    /// One turn of the loop; says whether there was something to do.
    ///
    /// # Errors
    /// When it cannot go on, with what to do.
    pub fn step(&mut self, now: Now) -> Result<bool, AlertError> {
        let mut busy = false;
        while let Some(event) = self.client.next_event() {
            busy = true;
            self.on_event(event, now)?;
        }
        while let Some(done) = self.reports.next() {
            busy = true;
            self.on_done(done.channel, done.id.as_deref(), &done.outcome, now);
        }
        while let Ok(Watched { topic, ends }) = self.watch.try_recv() {
            self.watched.insert(topic, ends);
        }
        if let Some(dead) = self.channels.iter().find(|channel| channel.worker.is_dead()) {
            return Err(AlertError(format!(
                "the thread of channel {:?} has died: this is a fault of Leeway",
                dead.name
            )));
        }
        match &mut self.phase {
            Phase::Standby => {}
            Phase::Starting { at, asked } => {
                if !*asked && now.elapsed >= *at {
                    *asked = true;
                    self.client.init_producer();
                }
            }
            Phase::Settling { ask_at, asked, .. } => {
                if !*asked && now.elapsed >= *ask_at {
                    *asked = true;
                    let partition = self.state_partition();
                    self.client.fetch_log_range(&partition);
                }
            }
            Phase::Restoring { .. } => busy |= self.restore(now)?,
            Phase::Active => busy |= self.run(now),
        }
        if now.elapsed >= self.ticked + TICK_EVERY {
            self.ticked = now.elapsed;
            self.tick(now);
        }
        Ok(busy)
    }

    fn state_partition(&self) -> TopicPartition {
        TopicPartition::new(self.settings.state_topic.clone(), Partition(0))
    }

    fn on_event(&mut self, event: ClientEvent, now: Now) -> Result<(), AlertError> {
        match event {
            ClientEvent::Assigned(partitions) => {
                self.client.assign(&partitions);
                if partitions.contains(&self.state_partition()) {
                    self.failures = 0;
                    self.restart(now);
                } else if matches!(self.phase, Phase::Standby) {
                    info!("standing by: another process of the group alerts");
                    self.health.set_ready(true, "standing by: another process of the group alerts");
                }
            }
            ClientEvent::Revoked { partitions, lost } => {
                if partitions.contains(&self.state_partition()) {
                    info!(lost, "standing by: the group gave the alerting to another process");
                    self.forget();
                    self.phase = Phase::Standby;
                    self.metrics.set_active(false);
                    self.health.set_ready(true, "standing by: another process of the group alerts");
                }
                self.client.unassign(&partitions);
            }
            ClientEvent::ProducerReady if matches!(self.phase, Phase::Starting { .. }) => {
                self.phase = Phase::Settling {
                    target: None,
                    ask_at: now.elapsed,
                    asked: false,
                };
            }
            ClientEvent::ProducerReady => {}
            ClientEvent::ProducerFailed { reason } | ClientEvent::Fatal { reason } => return Err(AlertError(reason)),
            ClientEvent::LogRange(partition, range) if partition == self.state_partition() => {
                if let Phase::Settling { target, ask_at, asked } = &mut self.phase {
                    // Markers of earlier transactions may still be on their way: as far as anything was written, it has to be decided.
                    let target = target.get_or_insert(range.high_watermark);
                    if range.last_stable >= *target {
                        self.client.start_restore(&partition, range.start);
                        self.phase = Phase::Restoring {
                            since: now.elapsed,
                            records: 0,
                        };
                    } else {
                        (*ask_at, *asked) = (now.elapsed + ASK_EVERY, false);
                    }
                }
            }
            ClientEvent::LogRange(partition, range) => {
                if let Some(Reading::Asked { range: known, .. }) = self.reading.get_mut(&partition) {
                    *known = Some(range);
                    self.begin(&partition);
                }
            }
            ClientEvent::CommittedOffsets(offsets) => {
                for (partition, offset) in offsets {
                    if let Some(Reading::Asked { committed, .. }) = self.reading.get_mut(&partition) {
                        *committed = Some(offset.map(|offset| offset.offset));
                        self.begin(&partition);
                    }
                }
            }
            ClientEvent::RestoreEnd(partition) if partition == self.state_partition() => {
                if let Phase::Restoring { since, records } = self.phase {
                    // What was handed over before its end is all there.
                    self.client.stop_restore(&partition);
                    self.activate(records, now.elapsed.saturating_sub(since), now);
                }
            }
            ClientEvent::RestoreEnd(partition) => {
                if let Some(Reading::At { at_end, .. }) = self.reading.get_mut(&partition) {
                    *at_end = true;
                }
            }
            // What of it was read and not committed would be read twice if it alone began again.
            ClientEvent::PartitionError { partition, reason } => self.fail(&format!("{partition}: {reason}"), now),
            ClientEvent::CommitFinished { epoch, outcome } => self.on_committed(epoch, outcome, now)?,
            ClientEvent::Connection { down: true, reason } => warn!(reason, "Kafka cannot be reached; going on when it can"),
            ClientEvent::Connection { down: false, .. } => info!("Kafka is there again"),
        }
        Ok(())
    }

    /// Begins, or begins again: settle what this transactional id has under way, read the state.
    fn restart(&mut self, now: Now) {
        self.forget();
        let (first, longest) = RESTART_AFTER;
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => first.saturating_mul(1 << failures.min(10)).min(longest),
        };
        self.phase = Phase::Starting {
            at: now.elapsed + pause,
            asked: false,
        };
        self.metrics.set_active(false);
        self.health.set_ready(false, "reading the state of alerts");
    }

    /// Something is not as it should be, or nobody knows how it is: what is durable counts.
    fn fail(&mut self, reason: &str, now: Now) {
        if matches!(self.phase, Phase::Standby) {
            return;
        }
        warn!(reason, "reading the state of alerts again");
        self.failures = self.failures.saturating_add(1);
        self.restart(now);
    }

    /// Drops what is in memory; what was delivered is remembered.
    fn forget(&mut self) {
        for partition in self.reading.keys() {
            self.client.stop_restore(partition);
        }
        let state = self.state_partition();
        self.client.stop_restore(&state);
        self.reading.clear();
        self.positions = Positions::default();
        self.epoch = commit::Epoch::default();
        self.committing = false;
        self.caught_up = false;
        for channel in &mut self.channels {
            channel.incidents.clear();
            channel.outbox = Outbox::new(self.settings.max_parked);
        }
    }

    /// What an active thread does.
    fn run(&mut self, now: Now) -> bool {
        let mut busy = false;
        if !self.stopping {
            self.find_partitions();
            busy |= self.read(now);
            self.dispatch(now);
        }
        self.caught_up = !self.reading.is_empty() && self.reading.values().all(|reading| matches!(reading, Reading::At { at_end: true, .. }));
        if self.is_commit_due(now) {
            self.commit(now);
            busy = true;
        }
        busy
    }

    fn on_committed(&mut self, epoch: u64, outcome: CommitOutcome, now: Now) -> Result<(), AlertError> {
        if epoch != self.epochs || !self.committing {
            return Ok(());
        }
        self.committing = false;
        match outcome {
            CommitOutcome::Committed { .. } => {
                self.failures = 0;
                self.committed(now);
                Ok(())
            }
            CommitOutcome::Fatal { reason } => Err(AlertError(reason)),
            CommitOutcome::Aborted { reason, .. } | CommitOutcome::Unknown { reason } | CommitOutcome::Fenced { reason } => {
                self.fail(&reason, now);
                Ok(())
            }
        }
    }
}
