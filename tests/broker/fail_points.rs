//! A SIGKILL at every step between the begin of a transaction and the write of the store, and a SIGSTOP inside a transaction.
//!
//! The process that gets it is this test binary, started once more: it runs the real runtime with a hook that sends the signal where it is told to.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use leeway::broker::kafka::{KafkaBroker, TransactionStep};
use leeway::http::Health;
use leeway::reference_topic;
use leeway::runtime::{Runtime, Settings, plan};
use leeway::state::directory::StateDirectory;
use leeway::state::store::{StateStore, StoreOptions};
use leeway::stream_thread::FailPoint;
use leeway::task::Start;
use leeway::telemetry::metrics::Metrics;
use leeway_topology::processor::Monitor;
use leeway_topology::reference::Reference;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;

use crate::cluster::bootstrap;
use crate::kafka::{stable_and_end, wait_until_consumed};
use crate::run::{PATIENCE, Run, wait_for};

/// Set in the process that is to get a signal: at which step, which one, and with what settings.
const CHILD: &str = "LEEWAY_TEST_FAIL_POINT";

/// Every step, in the order in which an epoch passes them.
const STEPS: [&str; 7] = [
    "EpochSealed",
    "Begun",
    "Produced",
    "OffsetsSent",
    "Committed",
    "BeforeStoreWrite",
    "AfterStoreWrite",
];

/// As the default is.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the test's broker looks for transactions past their time-out.
const SWEEP: Duration = Duration::from_secs(1);

/// Epochs that pass a step before the signal: so that there is a state to come back to.
const PASSES: u32 = 3;

#[test]
fn sigkill_at_every_step_of_a_commit_loses_and_doubles_nothing() {
    if let Ok(settings) = std::env::var(CHILD) {
        return end_as_told(&settings);
    }
    let run = Run::new("steps");
    let file = run.rows("rows.jsonl", 60_000, 11);
    let state = run.path("state");
    std::thread::scope(|scope| {
        // Each one waits for the session of the one before to end, and then needs some epochs: all of them well before the last row.
        let sending = scope.spawn(|| run.produce(&file, Some(600)));
        for step in STEPS {
            let mut worker = Zombie(child(&run, &state, step, Signal::SIGKILL).spawn().expect("it starts"));
            let mut status = None;
            wait_for(
                || {
                    status = worker.0.try_wait().expect("a status");
                    status.is_some()
                },
                &format!("the end at {step}"),
            );
            let status = status.expect("it ended");
            assert_eq!(
                status.signal(),
                Some(Signal::SIGKILL as i32),
                "{step}: it should have been killed there, and ended with {status}"
            );
        }
        sending.join().expect("sent");
    });
    let mut worker = run.worker(&state);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut worker]);
    worker.stop();
    let verified = run.verify();
    eprintln!("{} steps, {verified:?}", STEPS.len());
    assert_eq!(verified.records, 60_000);
}

/// What a stopped process holds back, and what it does when it wakes after its partitions went to another one.
#[test]
fn worker_that_stops_inside_a_transaction_holds_readers_back_for_its_timeout_and_commits_nothing_when_it_wakes() {
    let run = Run::new("zombie");
    let file = run.rows("rows.jsonl", 60_000, 17);
    let zombie = Zombie(
        child(&run, &run.path("zombie"), "OffsetsSent", Signal::SIGSTOP)
            .spawn()
            .expect("it starts"),
    );
    // An epoch of few records may have no event; it always has its tasks' progress.
    let changelog = format!("{}-windows-{}-changelog", run.application, run.topic);
    let topics = [run.events.as_str(), &changelog];
    let now = || topics.map(|topic| stable_and_end(bootstrap(), topic));
    let mut other = std::thread::scope(|scope| {
        // Slowly, so that one which joins late still needs more epochs than it passes.
        scope.spawn(|| run.produce(&file, Some(3000)));
        wait_for(|| zombie.is_stopped(), "the stop inside a transaction");
        let stopped = Instant::now();
        let held_back: Vec<_> = now()
            .into_iter()
            .zip(topics)
            .flat_map(|(ranges, topic)| ranges.into_iter().map(move |(partition, (stable, end))| (topic, partition, stable, end)))
            .filter(|(_, _, stable, end)| stable < end)
            .collect();
        assert!(!held_back.is_empty(), "its records are acknowledged and not committed");
        // Takes over as soon as the zombie's session has ended.
        let other = run.worker(&run.path("other"));
        let is_readable = |(topic, partition, _, end): &(&str, i32, i64, i64)| stable_and_end(bootstrap(), topic)[partition].0 >= *end;
        wait_for(|| held_back.iter().all(is_readable), "the end of its transaction");
        let held = stopped.elapsed();
        eprintln!("readers were held back for {:.1} s", held.as_secs_f64());
        // Room for a busy machine; librdkafka's own default would be 60 s.
        assert!(held < 2 * (TRANSACTION_TIMEOUT + SWEEP), "{held:?}");
        other
    });
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut other]);
    zombie.signal(Signal::SIGCONT);
    // It is a member again, shares the work, and has not committed what it had in its hands.
    let rest = run.rows("rest.jsonl", 60_000, 18);
    run.produce(&rest, Some(10_000));
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut other]);
    drop(zombie);
    // Should its last epoch have been open, the other one takes it over.
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut other]);
    other.stop();
    assert_eq!(run.verify().records, 120_000);
}

/// A process that may be stopped. Killed when dropped.
struct Zombie(Child);

impl Zombie {
    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        // The state comes after the name, which is in brackets.
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).expect("the process is there");
    }
}

impl Drop for Zombie {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// This binary, as a worker that sends itself a signal at a step.
fn child(run: &Run, state: &Path, step: &str, signal: Signal) -> Command {
    let settings = [
        step,
        signal.as_str(),
        bootstrap(),
        &run.application,
        &run.topic,
        &run.events,
        path(&run.path("reference.json")),
        path(state),
    ]
    .join("\n");
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args([
            "fail_points::sigkill_at_every_step_of_a_commit_loses_and_doubles_nothing",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, settings);
    command
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Runs the stream processor until it passes the step for the last time.
fn end_as_told(settings: &str) {
    let mut settings = settings.lines().map(str::to_owned);
    let mut next = || settings.next().expect("a setting");
    let (step, signal) = (next(), Signal::from_str(&next()).expect("a signal"));
    let (bootstrap, application, topic, events, reference, state) = (next(), next(), next(), next(), next(), next());
    let passed = Arc::new(AtomicU32::new(0));
    let at = move |name: String| {
        if name == step && passed.fetch_add(1, Ordering::Relaxed) + 1 == PASSES {
            // To this thread: sent to the process, another thread may take it, and this one goes on for a moment.
            raise(signal).expect("this thread");
        }
    };
    let (of_transaction, of_thread) = (at.clone(), at);
    let properties = [("session.timeout.ms".to_owned(), "6000".to_owned())].into();
    let broker = KafkaBroker::new(&bootstrap, &properties)
        .expect("a broker")
        .with_hook(move |step: TransactionStep| of_transaction(format!("{step:?}")));
    let directory = StateDirectory::open(Path::new(&state), &application).expect("a state directory");
    let store = StateStore::open(&directory, StoreOptions::default()).expect("a store");
    let mut monitor = Monitor::new("default", &topic);
    monitor.events_topic = events.as_str().into();
    let monitors = vec![Arc::new(monitor)];
    let plan = plan(&broker, &application, &monitors, Start::Earliest).expect("topics");
    let reference = Reference::from_json(&std::fs::read(reference).expect("a reference")).expect("a reference");
    reference_topic::publish(&broker, &application, &reference).expect("published");
    let references = reference_topic::load(&broker, &application).expect("references");
    let settings = Settings {
        application_id: application.as_str().into(),
        process_id: directory.process_id().to_owned(),
        num_stream_threads: Some(1),
        commit_interval: Duration::from_millis(100),
        transaction_timeout: TRANSACTION_TIMEOUT,
        standby: false,
        state_cache_max_bytes: 1 << 20,
        monitors,
        fail_point: Some(Arc::new(move |point: FailPoint| of_thread(format!("{point:?}")))),
    };
    let metrics = Arc::new(Metrics::new(1000).expect("metrics"));
    let runtime = Runtime::start(
        settings,
        plan,
        broker,
        store,
        Arc::new(references.published),
        metrics,
        Arc::new(Health::new()),
    )
    .expect("it starts");
    runtime.join().expect("it ends by the signal only");
}
