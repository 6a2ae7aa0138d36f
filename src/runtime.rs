//! The stream processor of one process: topics made ready, threads started, replaced and stopped.
//!
//! ```text
//! plan topics --> references --> threads: loop { step } --supervisor--> replaced with backoff | stopped
//! ```
//!
//! A fatal error of one thread stops the process, since it would come back in the next one; anything else costs that thread, which is replaced a
//! bounded number of times. Stopping commits what is open, within a bound, and leaves the group.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leeway_topology::graph::{changelog_topic, global_store_name, repartition_topic, store_name};
use leeway_topology::ids::Timestamp;
use leeway_topology::processor::{CacheBudget, Monitor, References};
use tracing::{error, info, warn};

use crate::broker::{Broker, BrokerError, ClientSettings};
use crate::epoch::{EpochTag, transactional_id};
use crate::http::Health;
use crate::standby::StandbyThread;
use crate::state::store::StateStore;
use crate::stream_thread::{Assigned, FailPoint, Growth, Now, Step, StreamThread, ThreadContext, ThreadError};
use crate::task::dead_letter::DeadLetterSink;
use crate::task::{EventSink, RepartitionSink, Role, Start, SubTopology};
use crate::telemetry::metrics::Metrics;
use crate::topics::{self, TopicError, TopicFacts};

/// An idle thread looks again after this long at the latest; its client wakes it earlier.
const IDLE_WAIT: Duration = Duration::from_millis(5);

/// How long a stopping thread may take to commit its last epoch, and its client to leave the group.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the supervisor looks whether a thread is to be replaced.
const SUPERVISION: Duration = Duration::from_millis(200);

/// A changelog that cannot be extended is tried again after this long.
const EXTEND_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Threads replaced within [`REPLACEMENTS_WITHIN`] before the process gives up.
const REPLACEMENTS_MAX: usize = 10;

/// See [`REPLACEMENTS_MAX`].
const REPLACEMENTS_WITHIN: Duration = Duration::from_secs(600);

/// The number of the thread that keeps the copies; stream threads begin at 1.
const STANDBY: usize = 0;

/// How long that thread sleeps when there is nothing to read. A stream thread that wants a task waits no longer than this.
const STANDBY_WAIT: Duration = Duration::from_millis(20);

/// Room for headers and framing above the largest input record.
const MESSAGE_BYTES_MARGIN: usize = 64 << 10;

/// librdkafka's default of `batch.size`.
const BATCH_BYTES: usize = 1_000_000;

/// What a runtime is started with.
pub struct Settings {
    /// Consumer group, prefix of internal topics and transactional ids.
    pub application_id: Arc<str>,
    /// Of the state directory: the same after a crash.
    pub process_id: String,
    /// `None`: the cores, at most the partitions.
    pub num_stream_threads: Option<usize>,
    /// How long an epoch is filled at most.
    pub commit_interval: Duration,
    /// How long a dead instance's transaction can hold readers back.
    pub transaction_timeout: Duration,
    /// Whether copies are kept of the state of tasks that run elsewhere.
    pub standby: bool,
    /// Memory for the windows of segments, about.
    pub state_cache_max_bytes: usize,
    /// What to watch.
    pub monitors: Vec<Arc<Monitor>>,
    /// A test's hook.
    pub fail_point: Option<Arc<dyn Fn(FailPoint) + Send + Sync>>,
}

/// Why the runtime did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Topics.
    #[error(transparent)]
    Topics(#[from] TopicError),
    /// The broker refused a client.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A thread met something that no restart mends.
    #[error("{0}")]
    Fatal(String),
}

/// The graph of this application on this Kafka.
pub struct Plan {
    /// The parts of the graph, by input topic.
    pub sub_topologies: BTreeMap<Arc<str>, Arc<SubTopology>>,
    partitions: u32,
    message_bytes_max: usize,
    batch_bytes_max: usize,
}

impl Plan {
    /// Partitions that all instances together fetch: of the inputs, and of what they repartition.
    #[must_use]
    pub fn fetched_partitions(&self) -> u32 {
        self.sub_topologies.values().map(|part| part.partitions).sum()
    }
}

/// Finds, checks and creates the topics of all monitors.
///
/// # Errors
/// When an input is missing, an internal topic does not fit, or the broker does not answer ([`TopicError::is_unavailable`]: try again).
pub fn plan<B: Broker>(broker: &B, application_id: &str, monitors: &[Arc<Monitor>], start: Start) -> Result<Plan, TopicError> {
    // In the order of the monitors, as the graph's description numbers its sub-topologies.
    let mut by_topic: Vec<(Arc<str>, Vec<Arc<Monitor>>)> = Vec::new();
    for monitor in monitors {
        match by_topic.iter_mut().find(|(topic, _)| *topic == monitor.topic) {
            Some((_, monitors)) => monitors.push(monitor.clone()),
            None => by_topic.push((monitor.topic.clone(), vec![monitor.clone()])),
        }
    }
    let mut inputs = BTreeMap::new();
    for monitor in monitors {
        if !inputs.contains_key(&monitor.topic) {
            inputs.insert(monitor.topic.clone(), topics::input(broker, &monitor.topic, &monitor.name)?);
        }
    }
    let mut planner = Planner {
        broker,
        application_id,
        start,
        largest: inputs.values().map(|facts| facts.partitions).max().unwrap_or(1),
        message_bytes_max: 0,
        batch_bytes_max: BATCH_BYTES,
    };
    let mut sub_topologies = BTreeMap::new();
    let mut globals = Vec::new();
    for (index, (topic, monitors)) in by_topic.into_iter().enumerate() {
        let input = inputs[&topic];
        planner.message_bytes_max = planner.message_bytes_max.max(input.message_bytes_max + MESSAGE_BYTES_MARGIN);
        let watched: Vec<_> = monitors.iter().filter(|monitor| monitor.scopes.global).cloned().collect();
        let mut repartition = None;
        if !watched.is_empty() {
            let name = repartition_topic(application_id, &topic);
            let facts = topics::repartition(broker, &name, input.partitions, input.message_bytes_max)?;
            let sink = RepartitionSink {
                topic: name.into(),
                partitions: facts.partitions,
            };
            globals.push((topic.clone(), sink.clone(), facts, watched));
            repartition = Some(sink);
        }
        let part = planner.sub_topology(index, Role::Partitions { repartition }, &topic, input, store_name(&topic), monitors)?;
        sub_topologies.insert(topic, Arc::new(part));
    }
    // After all inputs, so that a monitor's tasks keep their names when another one begins to watch its whole topic.
    for (topic, sink, facts, monitors) in globals {
        let index = sub_topologies.len();
        let part = planner.sub_topology(index, Role::Global, &sink.topic, facts, global_store_name(&topic), monitors)?;
        sub_topologies.insert(sink.topic, Arc::new(part));
    }
    let partitions = inputs.values().map(|facts| facts.partitions).sum();
    Ok(Plan {
        sub_topologies,
        partitions,
        message_bytes_max: planner.message_bytes_max,
        batch_bytes_max: planner.batch_bytes_max,
    })
}

/// What the parts of the graph have in common while their topics are made ready.
struct Planner<'a, B: Broker> {
    broker: &'a B,
    application_id: &'a str,
    start: Start,
    /// Partitions of the largest input.
    largest: u32,
    message_bytes_max: usize,
    batch_bytes_max: usize,
}

impl<B: Broker> Planner<'_, B> {
    fn sub_topology(
        &mut self,
        index: usize,
        role: Role,
        topic: &Arc<str>,
        source: TopicFacts,
        store: String,
        monitors: Vec<Arc<Monitor>>,
    ) -> Result<SubTopology, TopicError> {
        let broker = self.broker;
        let mut events = BTreeMap::new();
        for monitor in &monitors {
            let facts = topics::output(broker, &monitor.events_topic, self.largest, &[("cleanup.policy", "delete".to_owned())])?;
            events.insert(
                monitor.name.clone(),
                EventSink {
                    topic: monitor.events_topic.clone(),
                    partitions: facts.partitions,
                },
            );
        }
        // The same for all monitors of a topic, and there is one: without monitors there is no part.
        let dead_letter_topic = monitors
            .first()
            .map_or_else(|| Arc::from(""), |monitor| monitor.dead_letter_topic.clone());
        let bytes = ("max.message.bytes", source.message_bytes_max.to_string());
        let dead_letters = topics::output(
            broker,
            &dead_letter_topic,
            source.partitions,
            &[("cleanup.policy", "delete".to_owned()), bytes],
        )?;
        let changelog = changelog_topic(self.application_id, &store);
        let facts = topics::changelog(broker, &changelog, source.partitions, source.message_bytes_max)?;
        self.batch_bytes_max = self.batch_bytes_max.min(dead_letters.message_bytes_max).min(facts.message_bytes_max);
        if let Role::Global = role {
            self.batch_bytes_max = self.batch_bytes_max.min(source.message_bytes_max);
        }
        Ok(SubTopology {
            index,
            // Panes are never skipped, wherever the input began.
            start: if matches!(role, Role::Global) { Start::Earliest } else { self.start },
            role,
            topic: topic.clone(),
            partitions: source.partitions,
            monitors,
            store: store.into(),
            changelog: changelog.into(),
            events,
            dead_letters: DeadLetterSink {
                topic: dead_letter_topic,
                partitions: dead_letters.partitions,
                message_bytes_max: dead_letters.message_bytes_max.min(self.message_bytes_max),
            },
            checkpoint_age_ms_max: facts.delete_retention_ms / 2,
        })
    }
}

/// A running stream processor.
pub struct Runtime {
    stopping: Arc<AtomicBool>,
    supervisor: JoinHandle<Result<(), RuntimeError>>,
    assigned: Arc<Assigned>,
}

impl Runtime {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the broker's client refuses a setting.
    pub fn start<B: Broker>(
        settings: Settings,
        plan: Plan,
        broker: B,
        store: StateStore,
        references: Arc<dyn References + Send + Sync>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Result<Self, RuntimeError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = settings.num_stream_threads.unwrap_or_else(|| cores.min(plan.partitions as usize)).max(1);
        let context = Arc::new(ThreadContext {
            application_id: settings.application_id.clone(),
            sub_topologies: plan.sub_topologies,
            store,
            references,
            cache: CacheBudget::new(settings.state_cache_max_bytes),
            metrics,
            commit_interval: settings.commit_interval,
            transaction_timeout: settings.transaction_timeout,
            growth: Growth::default(),
            assigned: Arc::default(),
            fail_point: settings.fail_point.clone(),
        });
        let (stopping, assigned) = (Arc::new(AtomicBool::new(false)), Arc::clone(&context.assigned));
        let (exits, exited) = channel();
        let mut supervisor = Supervisor {
            broker,
            context,
            process_id: settings.process_id,
            transaction_timeout: settings.transaction_timeout,
            message_bytes_max: plan.message_bytes_max,
            batch_bytes_max: plan.batch_bytes_max,
            stopping: stopping.clone(),
            exits,
            ready: Arc::new(Mutex::new(BTreeMap::new())),
            health,
            threads: BTreeMap::new(),
        };
        for number in 1..=threads {
            supervisor.spawn(number)?;
        }
        if settings.standby {
            supervisor.spawn(STANDBY)?;
        }
        let supervisor = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || supervisor.run(&exited))
            .map_err(|error| RuntimeError::Fatal(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            stopping,
            supervisor,
            assigned,
        })
    }

    /// The input partitions that its threads have at any time.
    #[must_use]
    pub fn assigned(&self) -> &Arc<Assigned> {
        &self.assigned
    }

    /// Asks all threads to commit and stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether it has ended, by itself or after [`Self::stop`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.supervisor.is_finished()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What made it stop, if nobody asked it to.
    pub fn join(self) -> Result<(), RuntimeError> {
        self.supervisor
            .join()
            .unwrap_or_else(|_| Err(RuntimeError::Fatal("the supervisor panicked: this is a fault of Leeway".to_owned())))
    }
}

/// When threads failed, as far as that still counts.
#[derive(Debug, Default)]
struct Failures(VecDeque<Duration>);

impl Failures {
    /// How long to wait before the thread that failed now is replaced; `None`: there were too many, it would not help.
    fn backoff(&mut self, now: Duration) -> Option<Duration> {
        while self.0.front().is_some_and(|at| now.saturating_sub(*at) >= REPLACEMENTS_WITHIN) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        (self.0.len() <= REPLACEMENTS_MAX).then(|| Duration::from_millis(200 << self.0.len().min(6)))
    }
}

/// How a thread ended.
type Exit = (usize, Result<(), ThreadError>);

struct Supervisor<B: Broker> {
    broker: B,
    context: Arc<ThreadContext>,
    process_id: String,
    transaction_timeout: Duration,
    message_bytes_max: usize,
    batch_bytes_max: usize,
    stopping: Arc<AtomicBool>,
    exits: Sender<Exit>,
    ready: Arc<Mutex<BTreeMap<usize, bool>>>,
    health: Arc<Health>,
    threads: BTreeMap<usize, JoinHandle<()>>,
}

impl<B: Broker> Supervisor<B> {
    fn spawn(&mut self, number: usize) -> Result<(), RuntimeError> {
        let name = if number == STANDBY {
            "StandbyThread".to_owned()
        } else {
            format!("StreamThread-{number}")
        };
        let application_id = &self.context.application_id;
        let client = self.broker.client(&ClientSettings {
            application_id: application_id.to_string(),
            transactional_id: transactional_id(application_id, &self.process_id, number),
            client_id: format!("{application_id}-{}-{name}", self.process_id),
            thread: number,
            transaction_timeout: self.transaction_timeout,
            message_bytes_max: self.message_bytes_max,
            batch_bytes_max: self.batch_bytes_max,
        })?;
        let stopping = self.stopping.clone();
        if number == STANDBY {
            let thread = StandbyThread::new(client, self.context.clone());
            return self.run_in_thread(number, name, move || {
                run_standby(thread, &stopping);
                Ok(())
            });
        }
        let tag = EpochTag::new(&self.process_id, number, rand::random());
        let thread = StreamThread::new(name.clone(), client, self.context.clone(), tag);
        let (ready, health) = (self.ready.clone(), self.health.clone());
        let publish = move |is_ready| publish_readiness(&ready, &health, number, is_ready);
        publish(false);
        self.run_in_thread(number, name, move || {
            let _not_ready = OnDrop(|| publish(false));
            run_thread(thread, &stopping, &publish)
        })
    }

    fn run_in_thread(
        &mut self,
        number: usize,
        name: String,
        run: impl FnOnce() -> Result<(), ThreadError> + Send + 'static,
    ) -> Result<(), RuntimeError> {
        let exits = self.exits.clone();
        let handle = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                let result = result.unwrap_or_else(|_| Err(ThreadError::Failed("the thread panicked: this is a fault of Leeway".to_owned())));
                // The supervisor outlives its threads; if it is gone, so is everybody who would care.
                drop(exits.send((number, result)));
            })
            .map_err(|error| RuntimeError::Fatal(format!("cannot start a thread: {error}")))?;
        self.threads.insert(number, handle);
        Ok(())
    }

    /// Makes room for the state of tasks of new partitions; tried again until it is there. `growing`: partitions by topic, and when to try.
    fn extend_changelogs(&self, growing: &mut BTreeMap<Arc<str>, (u32, Instant)>) {
        let now = Instant::now();
        growing.extend(
            self.context
                .growth
                .take()
                .into_iter()
                .map(|(topic, partitions)| (topic, (partitions, now))),
        );
        growing.retain(|topic, (partitions, at)| {
            let Some(part) = self.context.sub_topologies.get(topic) else {
                return false;
            };
            if *at > now {
                return true;
            }
            let extended = topics::extend_changelog(&self.broker, &part.changelog, *partitions);
            if let Err(error) = &extended {
                warn!(%topic, %error, "the input has grown, and its changelog cannot be extended yet; trying again");
                *at = Instant::now() + EXTEND_AGAIN_AFTER;
            }
            extended.is_err()
        });
    }

    fn run(mut self, exited: &Receiver<Exit>) -> Result<(), RuntimeError> {
        let mut result = Ok(());
        let origin = Instant::now();
        let mut failures = Failures::default();
        let mut growing = BTreeMap::new();
        // Threads to be replaced, and when.
        let mut replacements: Vec<(Instant, usize)> = Vec::new();
        while !self.threads.is_empty() || !replacements.is_empty() {
            if self.stopping.load(Ordering::Acquire) {
                replacements.clear();
            }
            let due = replacements.extract_if(.., |(at, _)| *at <= Instant::now()).collect::<Vec<_>>();
            for (_, number) in due {
                if let Err(error) = self.spawn(number) {
                    self.stopping.store(true, Ordering::Release);
                    result = result.and(Err(error));
                }
            }
            self.extend_changelogs(&mut growing);
            let (number, exit) = match exited.recv_timeout(SUPERVISION) {
                Ok(exit) => exit,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Some(handle) = self.threads.remove(&number) {
                // A panic was caught inside.
                drop(handle.join());
            }
            match exit {
                Ok(()) => {}
                Err(ThreadError::Fatal(reason)) => {
                    error!(thread = number, %reason, "stopping");
                    self.stopping.store(true, Ordering::Release);
                    result = result.and(Err(RuntimeError::Fatal(reason)));
                }
                Err(ThreadError::Failed(reason)) if self.stopping.load(Ordering::Acquire) => warn!(thread = number, %reason, "ended while stopping"),
                Err(ThreadError::Failed(reason)) => {
                    let Some(backoff) = failures.backoff(origin.elapsed()) else {
                        self.stopping.store(true, Ordering::Release);
                        result = result.and(Err(RuntimeError::Fatal(format!(
                            "{} threads failed within {} s, the last with: {reason}",
                            REPLACEMENTS_MAX + 1,
                            REPLACEMENTS_WITHIN.as_secs()
                        ))));
                        continue;
                    };
                    error!(thread = number, %reason, backoff_ms = backoff.as_millis(), "replacing the thread");
                    self.context.metrics.thread_replaced();
                    replacements.push((Instant::now() + backoff, number));
                }
            }
        }
        self.health.set_ready(false, "stopped");
        result
    }
}

/// Also when a thread panics.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn publish_readiness(ready: &Mutex<BTreeMap<usize, bool>>, health: &Health, number: usize, is_ready: bool) {
    let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
    if ready.insert(number, is_ready) != Some(is_ready) {
        let waiting = ready.values().filter(|is_ready| !**is_ready).count();
        health.set_ready(
            waiting == 0,
            if waiting == 0 {
                "assigned and restored"
            } else {
                "waiting for assignment or restore"
            },
        );
    }
}

fn run_thread<C: crate::broker::StreamClient>(mut thread: StreamThread<C>, stopping: &AtomicBool, publish: impl Fn(bool)) -> Result<(), ThreadError> {
    let origin = Instant::now();
    let mut stop_deadline = None;
    let mut was_ready = false;
    let result = loop {
        if stop_deadline.is_none() && stopping.load(Ordering::Acquire) {
            thread.stop();
            stop_deadline = Some(Instant::now() + STOP_TIMEOUT);
        }
        match thread.step(now(origin)) {
            Ok(Step::Busy) => {}
            Ok(Step::Idle) => thread.wait(IDLE_WAIT),
            Ok(Step::Stopped) => break Ok(()),
            Err(error) => break Err(error),
        }
        if stop_deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            warn!(
                "the last epoch's outcome did not come within {} s; it is settled at the next start",
                STOP_TIMEOUT.as_secs()
            );
            break Ok(());
        }
        let is_ready = thread.is_ready();
        if is_ready != was_ready {
            publish(is_ready);
            was_ready = is_ready;
        }
    };
    thread.close(STOP_TIMEOUT);
    if result.is_ok() {
        info!("stopped");
    }
    result
}

fn run_standby<C: crate::broker::StreamClient>(mut thread: StandbyThread<C>, stopping: &AtomicBool) {
    let origin = Instant::now();
    while !stopping.load(Ordering::Acquire) {
        if !thread.step(now(origin)) {
            thread.wait(STANDBY_WAIT);
        }
    }
    thread.close(now(origin), STOP_TIMEOUT);
}

fn now(origin: Instant) -> Now {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    Now {
        elapsed: origin.elapsed(),
        wall: Timestamp(wall),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn replacements_wait_longer_each_time_and_end_after_ten() {
        let mut failures = Failures::default();
        let waits: Vec<_> = (0..11).map(|_| failures.backoff(MINUTE).map(|wait| wait.as_millis())).collect();
        let growing = [400, 800, 1600, 3200, 6400].map(Some);
        assert_eq!(waits[..5], growing);
        assert_eq!(waits[5..10], [Some(12_800); 5]);
        assert_eq!(waits[10], None);
    }

    #[test]
    fn failures_of_ten_minutes_ago_count_no_more() {
        let mut failures = Failures::default();
        for minute in 0..100 {
            assert!(failures.backoff(MINUTE * minute).is_some(), "one a minute never ends it: minute {minute}");
        }
        assert_eq!(failures.0.len(), 10);
    }
}
