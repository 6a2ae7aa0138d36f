//! Threads that fail are replaced, or end the process: the supervisor, on real threads and real time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use leeway::broker::AbortCause;
use leeway::broker::memory::{CommitStep, Fault, MemoryBroker};
use leeway::http::Health;
use leeway::runtime::{Runtime, RuntimeError, Settings, plan};
use leeway::state::store::StateStore;
use leeway::stream_thread::FailPoint;
use leeway::task::Start;
use leeway::telemetry::metrics::Metrics;

use crate::world::{APPLICATION, COMMIT_INTERVAL, TRANSACTION_TIMEOUT, World};

const PATIENCE: Duration = Duration::from_secs(60);

/// A world whose clock is that of the wall: its members are missed after a second.
fn world(partitions: u32) -> World {
    World::on(partitions, |_| MemoryBroker::new().with_session_timeout(Duration::from_secs(1)))
}

struct Process {
    runtime: Runtime,
    metrics: Arc<Metrics>,
}

fn start(world: &World, threads: usize, fail_point: Option<Arc<dyn Fn(FailPoint) + Send + Sync>>) -> Process {
    let monitors = vec![world.monitor.clone()];
    let plan = plan(&world.broker, APPLICATION, &monitors, Start::Earliest).expect("topics");
    let metrics = Arc::new(Metrics::new(1000).expect("metrics"));
    let settings = Settings {
        application_id: APPLICATION.into(),
        process_id: "one".to_owned(),
        num_stream_threads: Some(threads),
        commit_interval: COMMIT_INTERVAL,
        transaction_timeout: TRANSACTION_TIMEOUT,
        standby: false,
        state_cache_max_bytes: 1,
        monitors,
        fail_point,
    };
    let (broker, references, health) = (world.broker.clone(), world.references.clone(), Arc::new(Health::new()));
    let runtime = Runtime::start(settings, plan, broker, StateStore::in_memory(), references, metrics.clone(), health).expect("started");
    Process { runtime, metrics }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn replaced(metrics: &Metrics) -> String {
    let text = metrics.render().expect("rendered");
    let line = text.lines().find_map(|line| line.strip_prefix("leeway_stream_threads_replaced_total "));
    line.expect("the metric").to_owned()
}

#[test]
fn thread_that_panics_is_replaced_and_its_records_are_worked_on_once() {
    for point in [FailPoint::EpochSealed, FailPoint::BeforeStoreWrite, FailPoint::AfterStoreWrite] {
        let world = world(2);
        let reached = AtomicUsize::new(0);
        let fail = move |at: FailPoint| {
            // The second time: state and offsets are there to be found again.
            assert!(at != point || reached.fetch_add(1, Ordering::Relaxed) != 1, "on purpose: {point:?}");
        };
        let process = start(&world, 2, Some(Arc::new(fail)));
        world.produce(0, 200);
        world.produce(1, 200);
        wait_until("the first records", || world.is_drained());
        world.produce(0, 100);
        world.produce(1, 100);
        wait_until("the rest, after the failure", || world.is_drained());
        world.expect_checks(600);
        wait_until("the replacement", || replaced(&process.metrics) == "1");
        process.runtime.stop();
        process.runtime.join().expect("stopped by us");
    }
}

#[test]
fn fatal_error_of_one_thread_stops_the_process_with_its_reason() {
    let world = world(2);
    world
        .broker
        .inject(|_: &str, step: CommitStep| (step == CommitStep::Commit).then_some(Fault::Refuse(AbortCause::Refused)));
    let process = start(&world, 2, None);
    world.produce(0, 100);
    wait_until("the end", || process.runtime.is_finished());
    let error = process.runtime.join().expect_err("stopped by itself");
    assert!(matches!(error, RuntimeError::Fatal(_)), "{error:?}");
    assert!(error.to_string().contains("was refused 3 times"), "{error}");
    assert_eq!(world.events(), BTreeMap::new());
}
