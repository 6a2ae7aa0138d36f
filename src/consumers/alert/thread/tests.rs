//! The whole loop on the embedded broker, with channels that do what a test says.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use leeway_topology::drift::Status;
use leeway_topology::event::Event;
use leeway_topology::ids::Timestamp;
use leeway_topology::processor::PublishedReferences;
use leeway_topology::quality::QualityStatus;

use super::*;
use crate::broker::memory::{CommitStep, Fault, MemoryBroker, MemoryClient, Script};
use crate::broker::{AbortCause, Broker, ClientSettings, NewTopic, OutRecord, PlainProducer};
use crate::consumers::alert::incident::{Severity, Transition};
use crate::consumers::alert::message::tests::{drift, quality, summary};
use crate::consumers::alert::outbox::{Outcome, Payload};

const GROUP: &str = "app-alert";
const EVENTS: &str = "drift-events";
const STATE: &str = "app-alert-state";
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const COOLDOWN_MS: i64 = 60_000;

/// Of the wall clock: a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a channel was given, and what it shall answer: delivered, when nothing else is said.
#[derive(Default)]
struct Seen {
    answers: VecDeque<Outcome>,
    attempts: Vec<Payload>,
    delivered: Vec<Payload>,
    refreshed: Vec<Vec<String>>,
    hangs: bool,
}

/// A channel that does what the test says.
#[derive(Clone, Default)]
struct Fake(Arc<(Mutex<Seen>, Condvar)>);

impl Fake {
    fn answer(&self, answers: impl IntoIterator<Item = Outcome>) {
        self.0.0.lock().unwrap().answers.extend(answers);
    }

    fn hang(&self, hangs: bool) {
        self.0.0.lock().unwrap().hangs = hangs;
        self.0.1.notify_all();
    }

    /// Feature and transition of each alert that was delivered, by message.
    fn told(&self) -> Vec<Vec<(String, Transition)>> {
        let alerts = |payload: &Payload| match payload {
            Payload::Message(message) => message.alerts.iter().map(|alert| (alert.feature.clone(), alert.transition)).collect(),
            Payload::Log(_) => Vec::new(),
        };
        self.0.0.lock().unwrap().delivered.iter().map(alerts).collect()
    }

    fn transitions(&self) -> Vec<Transition> {
        self.told().concat().into_iter().map(|(_, transition)| transition).collect()
    }

    fn attempts(&self) -> Vec<String> {
        self.0.0.lock().unwrap().attempts.iter().map(Payload::id).collect()
    }

    fn lines(&self) -> Vec<u64> {
        let lines = |payload: &Payload| match payload {
            Payload::Log(lines) => lines.iter().map(|line| line.record_count).collect(),
            Payload::Message(_) => Vec::new(),
        };
        self.0.0.lock().unwrap().delivered.iter().flat_map(lines).collect()
    }

    fn refreshed(&self) -> Vec<Vec<String>> {
        self.0.0.lock().unwrap().refreshed.clone()
    }
}

impl Channel for Fake {
    fn deliver(&mut self, payload: &Payload) -> Outcome {
        let (seen, changed) = &*self.0;
        let mut seen = seen.lock().unwrap();
        seen.attempts.push(payload.clone());
        seen = changed.wait_while(seen, |seen| seen.hangs).unwrap();
        let outcome = seen.answers.pop_front().unwrap_or(Outcome::Delivered);
        if outcome == Outcome::Delivered {
            seen.delivered.push(payload.clone());
        }
        outcome
    }

    fn refresh(&mut self, open: &[Message]) -> Outcome {
        let features = open.iter().flat_map(|message| &message.alerts).map(|alert| alert.feature.clone());
        self.0.0.lock().unwrap().refreshed.push(features.collect());
        Outcome::Delivered
    }
}

/// A broker with a topic of events, and a clock that only tests move.
struct World {
    broker: MemoryBroker,
    clock_ms: Arc<AtomicU64>,
    partitions: u32,
}

/// A process.
struct Process {
    thread: AlertThread<MemoryClient>,
    watch: Sender<Watched>,
}

impl World {
    fn new(partitions: u32) -> Self {
        let clock_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
        let clock = clock_ms.clone();
        let broker =
            MemoryBroker::with_clock(Arc::new(move || Duration::from_millis(clock.load(Ordering::Relaxed)))).with_session_timeout(SESSION_TIMEOUT);
        for (name, partitions, policy) in [(EVENTS, partitions, "delete"), (STATE, 1, "compact")] {
            let topic = NewTopic {
                name: name.into(),
                partitions,
                replication_factor: None,
                config: BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]),
            };
            broker.create_topic(&topic, Duration::ZERO).unwrap();
        }
        Self {
            broker,
            clock_ms,
            partitions,
        }
    }

    fn now(&self) -> Now {
        let ms = self.clock_ms.load(Ordering::Relaxed);
        Now {
            elapsed: Duration::from_millis(ms),
            wall: Timestamp(i64::try_from(ms).unwrap()),
        }
    }

    fn pass(&self, ms: u64) {
        self.clock_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn send_bytes(&self, partition: i32, value: Vec<u8>, at_ms: Option<i64>) {
        let mut producer = self.broker.producer().unwrap();
        let record = OutRecord {
            topic: EVENTS.into(),
            partition: Partition(partition),
            key: None,
            value: Some(value),
            headers: Vec::new(),
            timestamp: at_ms.map(Timestamp),
        };
        producer.send(record).unwrap();
    }

    /// A feature's events are in one partition.
    fn send(&self, event: &Event) {
        let hash: u32 = event.feature().bytes().map(u32::from).sum();
        self.send_bytes(i32::try_from(hash % self.partitions).unwrap(), event.to_json(), None);
    }

    fn spec(name: &str, sink: &Fake) -> ChannelSpec {
        ChannelSpec {
            name: name.to_owned(),
            sink: Box::new(sink.clone()),
            filter: Filter::default(),
            rule: Rule {
                min_severity: Severity::PossibleDrift,
                consecutive: 1,
                cooldown_ms: COOLDOWN_MS,
            },
            is_log: name.starts_with("log"),
            refresh_every: name.starts_with("forgets").then_some(Duration::from_secs(60)),
        }
    }

    fn process(&self, name: &str, channels: Vec<ChannelSpec>) -> Process {
        self.process_with(name, channels, 1000)
    }

    fn process_with(&self, name: &str, channels: Vec<ChannelSpec>, max_parked: usize) -> Process {
        let client = self
            .broker
            .client(&ClientSettings {
                application_id: GROUP.to_owned(),
                transactional_id: STATE.to_owned(),
                client_id: name.to_owned(),
                thread: 0,
                transaction_timeout: Duration::from_secs(10),
                message_bytes_max: 1 << 20,
                batch_bytes_max: 1 << 20,
            })
            .unwrap();
        let settings = Settings {
            state_topic: STATE.into(),
            group_wait: Duration::from_secs(1),
            max_parked,
            max_age_ms: 3_600_000,
            expire_after: Some(Duration::from_secs(7200)),
            dashboard_url: None,
            criteria: BTreeMap::new(),
            references: Arc::new(PublishedReferences::default()),
            seed: 1,
        };
        let (watch, watched) = channel();
        let names: Vec<String> = channels.iter().map(|channel| channel.name.clone()).collect();
        let metrics = Arc::new(AlertMetrics::new(&names).unwrap());
        let mut thread = AlertThread::new(client, settings, channels, watched, metrics, Arc::default()).unwrap();
        thread.start();
        let process = Process { thread, watch };
        process.watch(self.partitions);
        process
    }

    /// Lets time pass in steps of 50 ms while the processes run, until it is so.
    fn until(&self, processes: &mut [&mut Process], what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            self.step(processes);
        }
    }

    fn step(&self, processes: &mut [&mut Process]) {
        for process in processes {
            while process.thread.step(self.now()).unwrap() {}
        }
        self.pass(50);
        // Channels have threads, and live in real time.
        std::thread::yield_now();
    }

    /// Lets so much time pass, and whatever channels have to do be done.
    fn run_for(&self, processes: &mut [&mut Process], ms: u64) {
        for _ in 0..ms / 50 {
            self.step(processes);
        }
        let deadline = Instant::now() + PATIENCE;
        let busy = |processes: &[&mut Process]| {
            processes
                .iter()
                .any(|process| process.thread.channels.iter().any(|channel| !channel.worker.is_idle()))
        };
        while busy(processes) {
            assert!(Instant::now() < deadline, "a channel does not end");
            for process in processes.iter_mut() {
                while process.thread.step(self.now()).unwrap() {}
            }
            std::thread::yield_now();
        }
    }

    /// Keys of the topic of state that are not deleted.
    fn state_keys(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let mut visit = |_: &TopicPartition, record: crate::broker::FetchedRecord<'_>| {
            let key = String::from_utf8_lossy(record.key.unwrap()).into_owned();
            match record.value {
                Some(_) => keys.insert(key),
                None => keys.remove(&key),
            };
            ControlFlow::Continue(())
        };
        self.broker.read_topic(STATE, Duration::ZERO, &mut visit).unwrap();
        keys
    }
}

impl Process {
    fn watch(&self, partitions: u32) {
        let topic = EVENTS.into();
        let ends = vec![Offset(0); partitions as usize];
        self.watch.send(Watched { topic, ends }).unwrap();
    }

    fn is_active(&self) -> bool {
        matches!(self.thread.phase, Phase::Active)
    }
}

fn busy() -> Outcome {
    Outcome::Retry {
        after: None,
        reason: "busy".to_owned(),
    }
}

fn check(world: &World, status: Status, end: i64) {
    world.send(&drift("plan", status, end));
    world.send(&drift("age", Status::NoDrift, end));
    world.send(&summary(Status::NoDrift, end));
}

#[test]
fn an_incident_is_told_when_it_opens_gets_worse_and_ends_and_at_no_other_check() {
    let (world, team) = (World::new(3), Fake::default());
    let mut process = world.process("a", vec![World::spec("team", &team)]);
    let statuses = [
        Status::NoDrift,
        Status::PossibleDrift,
        Status::PossibleDrift,
        Status::Drift,
        Status::Drift,
        Status::NoDrift,
    ];
    for (end, status) in (0..).zip(statuses) {
        check(&world, status, end);
        world.run_for(&mut [&mut process], 2000);
    }
    assert_eq!(team.transitions(), [Transition::Opened, Transition::Escalated, Transition::Recovered]);
    assert_eq!(team.attempts().len(), 3);
    world.run_for(&mut [&mut process], 70_000);
    assert_eq!(
        world.state_keys(),
        BTreeSet::from(["positions".to_owned()]),
        "nothing is kept of what is over"
    );
}

#[test]
fn transitions_of_one_check_are_one_message_though_they_come_from_several_partitions() {
    let (world, team) = (World::new(5), Fake::default());
    let mut process = world.process("a", vec![World::spec("team", &team)]);
    for feature in ["plan", "age", "income", "doors"] {
        world.send(&drift(feature, Status::Drift, 1));
    }
    world.send(&summary(Status::Drift, 1));
    world.send(&quality("age", QualityStatus::Violated, 1));
    world.run_for(&mut [&mut process], 3000);
    let told = team.told();
    assert_eq!((told.len(), told[0].len()), (1, 6), "{told:?}");
    // The next check is another message.
    world.send(&drift("rooms", Status::Drift, 2));
    world.run_for(&mut [&mut process], 3000);
    assert_eq!(team.told()[1], [("rooms".to_owned(), Transition::Opened)]);
}

#[test]
fn what_was_not_delivered_when_the_process_died_is_delivered_by_the_next_one_under_the_same_key() {
    let (world, team) = (World::new(1), Fake::default());
    let mut first = world.process("a", vec![World::spec("team", &team)]);
    team.answer(vec![busy(); 100]);
    check(&world, Status::Drift, 1);
    world.until(&mut [&mut first], "an attempt", || !team.attempts().is_empty());
    drop(first);
    team.0.0.lock().unwrap().answers.clear();
    let mut second = world.process("b", vec![World::spec("team", &team)]);
    world.until(&mut [&mut second], "a delivery", || !team.told().is_empty());
    check(&world, Status::Drift, 2);
    check(&world, Status::NoDrift, 3);
    world.run_for(&mut [&mut second], 5000);
    assert_eq!(team.transitions(), [Transition::Opened, Transition::Recovered]);
    let keys: BTreeSet<_> = team.attempts().into_iter().collect();
    assert_eq!(keys.len(), 2, "one key for each message, however often it was tried");
}

#[test]
fn what_was_delivered_and_not_known_to_be_so_comes_again_under_its_key_and_nothing_else_does() {
    let (world, team) = (World::new(1), Fake::default());
    let mut first = world.process("a", vec![World::spec("team", &team)]);
    check(&world, Status::Drift, 1);
    world.until(&mut [&mut first], "a delivery", || !team.told().is_empty());
    // Killed between the answer and the tombstone.
    drop(first);
    let mut second = world.process("b", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut second], 15_000);
    let attempts = team.attempts();
    assert!(
        (1..=2).contains(&attempts.len()) && attempts.iter().all(|key| *key == attempts[0]),
        "{attempts:?}"
    );
    assert!(second.is_active());
}

#[test]
fn whatever_happens_to_a_transaction_everything_is_told_once() {
    let faults = [
        (CommitStep::Produce, Fault::Refuse(AbortCause::Unavailable)),
        (CommitStep::SendOffsets, Fault::Refuse(AbortCause::Rejoin)),
        (CommitStep::Commit, Fault::LoseReply),
        (CommitStep::Reply, Fault::LoseReply),
        (CommitStep::Commit, Fault::ScatterMarkers(Duration::from_millis(400))),
        (CommitStep::Produce, Fault::Fence),
        (CommitStep::Commit, Fault::Stray(Duration::from_millis(500))),
        (CommitStep::Reply, Fault::LoseReply),
        (CommitStep::Produce, Fault::LoseReply),
    ];
    let (world, team, other) = (World::new(2), Fake::default(), Fake::default());
    let mut process = world.process("a", vec![World::spec("team", &team), World::spec("other", &other)]);
    world.until(&mut [&mut process], "active", || true);
    world.broker.inject(Script::new(faults));
    let mut expected = Vec::new();
    for end in 0..20 {
        let is_bad = end % 2 == 0;
        check(&world, if is_bad { Status::Drift } else { Status::NoDrift }, end);
        expected.push(if is_bad { Transition::Opened } else { Transition::Recovered });
        world.run_for(&mut [&mut process], 5000);
        world.pass(u64::try_from(COOLDOWN_MS).unwrap());
    }
    world.run_for(&mut [&mut process], 60_000);
    for fake in [&team, &other] {
        assert_eq!(fake.transitions(), expected);
        assert_eq!(fake.attempts().len(), expected.len(), "nothing was sent twice");
    }
}

#[test]
fn one_process_alerts_and_the_other_takes_over_when_it_leaves() {
    let (world, team) = (World::new(2), Fake::default());
    let mut first = world.process("a", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut first], 1000);
    let mut second = world.process("b", vec![World::spec("team", &team)]);
    check(&world, Status::Drift, 1);
    world.run_for(&mut [&mut first, &mut second], 5000);
    assert!(first.is_active() && !second.is_active());
    first.thread.stop();
    world.until(&mut [&mut first, &mut second], "stopped", || true);
    world.run_for(&mut [&mut first, &mut second], 1000);
    assert!(first.thread.is_stopped());
    first.thread.close(Duration::ZERO);
    check(&world, Status::NoDrift, 2);
    world.run_for(&mut [&mut second], 5000);
    assert!(second.is_active());
    assert_eq!(team.transitions(), [Transition::Opened, Transition::Recovered]);
}

#[test]
fn a_process_that_is_taken_for_dead_sends_nothing_more_and_stands_by() {
    let (world, team) = (World::new(1), Fake::default());
    let mut sleeper = world.process("a", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut sleeper], 1000);
    assert!(sleeper.is_active());
    let mut second = world.process("b", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut second], 20_000);
    assert!(second.is_active(), "the sleeper's session is over");
    check(&world, Status::Drift, 1);
    world.run_for(&mut [&mut sleeper, &mut second], 10_000);
    assert!(!sleeper.is_active());
    assert_eq!(team.attempts().len(), 1);
}

#[test]
fn a_channel_that_hangs_holds_up_no_other() {
    let (world, dead, team) = (World::new(1), Fake::default(), Fake::default());
    let mut process = world.process("a", vec![World::spec("dead", &dead), World::spec("team", &team)]);
    dead.hang(true);
    check(&world, Status::Drift, 1);
    world.until(&mut [&mut process], "the opening", || team.transitions().len() == 1);
    check(&world, Status::NoDrift, 2);
    world.until(&mut [&mut process], "the end", || team.transitions().len() == 2);
    assert_eq!(dead.attempts().len(), 1);
    dead.hang(false);
    world.until(&mut [&mut process], "the dead one is told", || dead.transitions().len() == 2);
}

#[test]
fn a_channel_that_fails_for_long_keeps_the_newest_messages_and_says_that_others_are_gone() {
    let (world, dead) = (World::new(1), Fake::default());
    let mut process = world.process_with("a", vec![World::spec("dead", &dead)], 3);
    dead.answer(vec![busy(); 5]);
    for end in 0..10 {
        world.send(&drift(&format!("f{end}"), Status::Drift, end));
        world.run_for(&mut [&mut process], 1500);
        if end == 8 {
            dead.answer(vec![busy(); 5]);
        }
    }
    world.run_for(&mut [&mut process], 600_000);
    let told: Vec<String> = dead.told().concat().into_iter().map(|(feature, _)| feature).collect();
    assert!(told.contains(&"f9".to_owned()), "{told:?}");
    assert!(
        world.state_keys().iter().all(|key| !key.starts_with("message/")),
        "what is gone is not kept"
    );
}

#[test]
fn what_a_channel_refuses_is_kept_for_the_next_start_and_holds_nothing_up() {
    let (world, team) = (World::new(1), Fake::default());
    let mut first = world.process("a", vec![World::spec("team", &team)]);
    team.answer([Outcome::Refused {
        reason: "no such channel".to_owned(),
    }]);
    check(&world, Status::Drift, 1);
    world.run_for(&mut [&mut first], 3000);
    check(&world, Status::NoDrift, 2);
    world.run_for(&mut [&mut first], 3000);
    assert_eq!(team.transitions(), [Transition::Recovered]);
    first.thread.close(Duration::ZERO);
    let mut second = world.process("b", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut second], 3000);
    assert_eq!(team.transitions(), [Transition::Recovered, Transition::Opened]);
}

#[test]
fn a_log_gets_every_summary_once_whatever_its_status() {
    let (world, log) = (World::new(2), Fake::default());
    let mut process = world.process("a", vec![World::spec("log", &log)]);
    for end in 0..10 {
        check(&world, Status::NoDrift, end);
    }
    world.run_for(&mut [&mut process], 5000);
    assert_eq!(log.lines(), (1..=10).collect::<Vec<u64>>());
    process.thread.close(Duration::ZERO);
    let mut second = world.process("b", vec![World::spec("log", &log)]);
    check(&world, Status::NoDrift, 10);
    world.run_for(&mut [&mut second], 5000);
    assert_eq!(log.lines(), (1..=11).collect::<Vec<u64>>());
}

#[test]
fn partitions_that_are_added_are_read_from_their_start() {
    let (world, team) = (World::new(1), Fake::default());
    let mut process = world.process("a", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut process], 1000);
    world.broker.add_partitions(EVENTS, 2, Duration::ZERO).unwrap();
    world.send_bytes(1, drift("plan", Status::Drift, 1).to_json(), None);
    process.watch(2);
    world.run_for(&mut [&mut process], 3000);
    assert_eq!(team.transitions(), [Transition::Opened]);
}

#[test]
fn a_group_whose_offsets_have_expired_goes_on_where_its_state_stands() {
    let (world, team) = (World::new(1), Fake::default());
    let mut first = world.process("a", vec![World::spec("team", &team)]);
    check(&world, Status::Drift, 1);
    check(&world, Status::NoDrift, 2);
    world.run_for(&mut [&mut first], 8000);
    first.thread.close(Duration::ZERO);
    assert!(world.broker.expire_offsets(GROUP));
    world.pass(100_000);
    assert_eq!(team.attempts().len(), 2);
    let mut second = world.process("b", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut second], 3000);
    assert!(second.is_active());
    assert_eq!(team.attempts().len(), 2, "nothing is read again, so nothing is told again");
}

#[test]
fn what_is_no_event_is_passed_over() {
    let (world, team) = (World::new(1), Fake::default());
    let mut process = world.process("a", vec![World::spec("team", &team)]);
    for value in ["", "{", r#"{"kind": "weather", "rain": true}"#, r#"{"kind": "drift"}"#] {
        world.send_bytes(0, value.as_bytes().to_vec(), None);
    }
    let Event::Drift(mut odd) = drift("plan", Status::Drift, 1) else {
        panic!("a drift event")
    };
    odd.event_id = "no-id".to_owned();
    world.send(&Event::Drift(odd));
    world.send(&drift("plan", Status::Drift, 2));
    world.run_for(&mut [&mut process], 3000);
    assert_eq!(team.told(), [[("plan".to_owned(), Transition::Opened)]]);
    let text = crate::http::Exposition::render(&*process.thread.metrics).unwrap();
    for line in [
        "leeway_alert_events_total{kind=\"unknown\"} 1",
        "leeway_alert_events_total{kind=\"malformed\"} 4",
        "leeway_alerts_total{channel=\"team\",outcome=\"delivered\"} 1",
        "leeway_alert_incidents{channel=\"team\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn history_is_read_in_silence_and_what_is_still_open_is_told_once() {
    let (world, team) = (World::new(1), Fake::default());
    let old = i64::try_from(world.clock_ms.load(Ordering::Relaxed)).unwrap() - 100_000_000;
    let statuses = [("plan", Status::Drift), ("age", Status::Drift), ("plan", Status::NoDrift)];
    for ((feature, status), end) in statuses.into_iter().zip(0..) {
        world.send_bytes(0, drift(feature, status, end).to_json(), Some(old + end));
    }
    let mut process = world.process("a", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut process], 5000);
    assert_eq!(team.told(), [[("age".to_owned(), Transition::Opened)]]);
}

#[test]
fn an_incident_that_is_held_back_is_told_when_its_cooldown_ends_though_no_check_comes() {
    let (world, team) = (World::new(1), Fake::default());
    let mut process = world.process("a", vec![World::spec("team", &team)]);
    for (end, status) in (0..).zip([Status::Drift, Status::NoDrift, Status::Drift]) {
        check(&world, status, end);
        world.run_for(&mut [&mut process], 3000);
    }
    assert_eq!(team.transitions(), [Transition::Opened, Transition::Recovered]);
    // A restart in between changes nothing.
    process.thread.close(Duration::ZERO);
    let mut second = world.process("b", vec![World::spec("team", &team)]);
    world.run_for(&mut [&mut second], 40_000);
    assert_eq!(team.transitions().len(), 2);
    world.run_for(&mut [&mut second], 30_000);
    assert_eq!(team.transitions(), [Transition::Opened, Transition::Recovered, Transition::Opened]);
}

#[test]
fn an_incident_of_which_nothing_is_heard_any_more_is_closed_and_said_to_be() {
    let (world, team) = (World::new(1), Fake::default());
    let mut process = world.process("a", vec![World::spec("team", &team)]);
    check(&world, Status::Drift, 1);
    world.run_for(&mut [&mut process], 3000);
    // Steps that are shorter than the session: the process lives.
    for _ in 0..1450 {
        world.pass(5000);
        world.step(&mut [&mut process]);
    }
    world.run_for(&mut [&mut process], 5000);
    assert_eq!(team.transitions(), [Transition::Opened, Transition::Expired]);
}

#[test]
fn what_is_open_is_told_again_to_those_that_forget() {
    let (world, forgets) = (World::new(1), Fake::default());
    let mut process = world.process("a", vec![World::spec("forgets", &forgets)]);
    check(&world, Status::Drift, 1);
    world.run_for(&mut [&mut process], 65_000);
    assert_eq!(forgets.refreshed(), [["plan"]]);
    check(&world, Status::NoDrift, 2);
    world.run_for(&mut [&mut process], 130_000);
    assert!(
        forgets.refreshed().len() <= 2,
        "what is over is not told again: {:?}",
        forgets.refreshed()
    );
}

#[test]
fn state_of_a_channel_that_is_gone_is_forgotten() {
    let (world, team) = (World::new(1), Fake::default());
    let mut first = world.process("a", vec![World::spec("team", &team)]);
    check(&world, Status::Drift, 1);
    world.run_for(&mut [&mut first], 3000);
    first.thread.close(Duration::ZERO);
    assert!(world.state_keys().iter().any(|key| key.starts_with("incident/team/")));
    let mut second = world.process("b", vec![World::spec("other", &team)]);
    world.run_for(&mut [&mut second], 8000);
    assert_eq!(world.state_keys(), BTreeSet::from(["positions".to_owned()]));
}
