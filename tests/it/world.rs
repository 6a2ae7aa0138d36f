//! A broker, a clock, and stream threads that are stepped by hand.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leeway::broker::memory::{MemoryBroker, MemoryClient};
use leeway::broker::{Broker, ClientSettings, NewTopic, OutRecord, PlainProducer};
use leeway::epoch::{EpochTag, transactional_id};
use leeway::runtime::plan;
use leeway::state::store::StateStore;
use leeway::stream_thread::{Growth, Now, Step, StreamThread, ThreadContext, ThreadError};
use leeway::task::Start;
use leeway::telemetry::metrics::Metrics;
use leeway_topology::binning::Binning;
use leeway_topology::ids::{Partition, Timestamp};
use leeway_topology::processor::{CacheBudget, Monitor, PublishedReferences};
use leeway_topology::reference::{Cell, ColumnType, ReferenceBuilder};
use leeway_topology::window::{CountWindow, Window};

pub(crate) const APPLICATION: &str = "app";
pub(crate) const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Where panes go in scope global.
pub(crate) const REPARTITION: &str = "app-panes-in-repartition";
/// One step of a thread takes so long, by the clock.
const TICK: Duration = Duration::from_millis(10);
/// Steps that everything here needs by far.
const STEPS_MAX: usize = 20_000;
/// Events of one check: the feature and the summary.
pub(crate) const EVENTS_PER_CHECK: usize = 2;
/// Records between two checks.
pub(crate) const EVERY: u64 = 10;

/// The broker, its clock, and what all instances have in common.
pub(crate) struct World {
    pub(crate) broker: MemoryBroker,
    /// The broker's clock, and everybody's.
    pub(crate) clock_ms: Arc<AtomicU64>,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) references: Arc<PublishedReferences>,
}

/// One stream thread.
pub(crate) struct Instance {
    pub(crate) thread: StreamThread<MemoryClient>,
}

impl World {
    /// A topic of so many partitions, watched with a window of 100 looked at every 10.
    pub(crate) fn new(partitions: u32) -> Self {
        Self::on(partitions, |broker| broker)
    }

    /// The same on a broker with other settings.
    pub(crate) fn on(partitions: u32, configure: impl FnOnce(MemoryBroker) -> MemoryBroker) -> Self {
        let clock_ms = Arc::new(AtomicU64::new(0));
        let clock = clock_ms.clone();
        let broker = MemoryBroker::with_clock(Arc::new(move || Duration::from_millis(clock.load(Ordering::Relaxed))));
        let broker = configure(broker.with_session_timeout(SESSION_TIMEOUT));
        let topic = NewTopic {
            name: "in".into(),
            partitions,
            replication_factor: None,
            config: BTreeMap::new(),
        };
        broker.create_topic(&topic, Duration::ZERO).expect("a topic");
        let mut builder =
            ReferenceBuilder::new("default", &[("x".to_owned(), ColumnType::Number)], &Binning::Auto { bins: 10 }, &[], 50).expect("a builder");
        for row in 0..1000 {
            builder.push_row([Cell::Number(f64::from(row * 37 % 1000))]);
        }
        let mut references = PublishedReferences::default();
        references.publish(Arc::new(builder.finish().expect("a reference").0));
        let mut monitor = Monitor::new("default", "in");
        monitor.window = Window::Count(CountWindow::new(100, EVERY).expect("a window"));
        monitor.min_samples = EVERY;
        Self {
            broker,
            clock_ms,
            monitor: Arc::new(monitor),
            references: Arc::new(references),
        }
    }

    /// An instance with an empty store.
    pub(crate) fn start(&self, process: &str) -> Instance {
        self.start_on(process, 1, 0, StateStore::in_memory())
    }

    /// A thread of a process, on its store. `life` differs each time it is started.
    pub(crate) fn start_on(&self, process: &str, thread: usize, life: u32, store: StateStore) -> Instance {
        let (name, tag) = (format!("{process}-{thread}"), EpochTag::new(process, thread, life));
        Instance {
            thread: StreamThread::new(name, self.client(process, thread), Arc::new(self.context(store)), tag),
        }
    }

    /// The only thread of a process.
    pub(crate) fn start_in(&self, process: &str, context: ThreadContext) -> Instance {
        let (name, tag) = (format!("{process}-1"), EpochTag::new(process, 1, 0));
        Instance {
            thread: StreamThread::new(name, self.client(process, 1), Arc::new(context), tag),
        }
    }

    /// What the threads of a process share.
    pub(crate) fn context(&self, store: StateStore) -> ThreadContext {
        let monitors = [self.monitor.clone()];
        let plan = plan(&self.broker, APPLICATION, &monitors, Start::Earliest).expect("topics");
        ThreadContext {
            application_id: APPLICATION.into(),
            sub_topologies: plan.sub_topologies,
            store,
            references: self.references.clone(),
            // So small that windows are read from the store all the time.
            cache: CacheBudget::new(1),
            metrics: Arc::new(Metrics::new(1000).expect("metrics")),
            commit_interval: COMMIT_INTERVAL,
            transaction_timeout: TRANSACTION_TIMEOUT,
            growth: Growth::default(),
            assigned: Arc::default(),
            fail_point: None,
        }
    }

    /// The client of a thread.
    pub(crate) fn client(&self, process: &str, thread: usize) -> MemoryClient {
        let settings = ClientSettings {
            application_id: APPLICATION.to_owned(),
            transactional_id: transactional_id(APPLICATION, process, thread),
            client_id: process.to_owned(),
            thread: 1,
            transaction_timeout: TRANSACTION_TIMEOUT,
            message_bytes_max: 1 << 20,
            batch_bytes_max: 1 << 20,
        };
        self.broker.client(&settings).expect("a client")
    }

    pub(crate) fn now(&self) -> Now {
        let ms = self.clock_ms.load(Ordering::Relaxed);
        Now {
            elapsed: Duration::from_millis(ms),
            wall: Timestamp(1_700_000_000_000 + ms as i64),
        }
    }

    /// Lets time pass in which nobody does anything.
    pub(crate) fn pass(&self, time: Duration) {
        self.clock_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Steps all instances in turn until the condition holds.
    pub(crate) fn run_until(
        &self,
        instances: &mut [&mut Instance],
        mut condition: impl FnMut(&mut [&mut Instance]) -> bool,
    ) -> Result<(), ThreadError> {
        for _ in 0..STEPS_MAX {
            if condition(instances) {
                return Ok(());
            }
            for instance in instances.iter_mut() {
                instance.thread.step(self.now())?;
            }
            self.pass(TICK);
        }
        panic!(
            "not reached in {STEPS_MAX} steps: {:?}",
            instances.iter().map(|instance| instance.thread.task_states()).collect::<Vec<_>>()
        );
    }

    /// Steps until everything that was produced is committed.
    pub(crate) fn drain(&self, instances: &mut [&mut Instance]) {
        self.run_until(instances, |_| self.is_drained()).expect("no thread fails");
    }

    pub(crate) fn partitions(&self) -> usize {
        let topic = self.broker.describe_topic("in", Duration::ZERO).expect("described");
        topic.map_or(0, |topic| topic.partitions as usize)
    }

    pub(crate) fn is_drained(&self) -> bool {
        let positions = |topic| self.broker.group_positions(APPLICATION, topic, Duration::ZERO).expect("positions");
        let is_read = positions("in")
            .iter()
            .all(|(_, committed, range)| committed.as_ref().map(|committed| committed.offset) == Some(range.high_watermark));
        if !is_read || !self.monitor.scopes.global {
            return is_read;
        }
        // Behind the last pane there is a marker, which nobody reads as a record.
        let mut ends = BTreeMap::new();
        let read = self.broker.read_topic(REPARTITION, Duration::ZERO, &mut |at, record| {
            ends.insert(at.clone(), record.offset.next());
            ControlFlow::Continue(())
        });
        read.expect("panes");
        positions(REPARTITION).iter().all(|(partition, committed, range)| {
            let committed = committed.as_ref().map(|committed| committed.offset);
            range.last_stable == range.high_watermark && ends.get(partition).is_none_or(|end| committed >= Some(*end))
        })
    }

    /// Stops a thread as a signal does.
    pub(crate) fn stop(&self, mut instance: Instance) {
        instance.thread.stop();
        for _ in 0..STEPS_MAX {
            if instance.thread.step(self.now()).expect("it stops") == Step::Stopped {
                instance.thread.close(Duration::ZERO);
                return;
            }
            self.pass(TICK);
        }
        panic!("it does not stop");
    }

    /// Sends so many records to a partition.
    pub(crate) fn produce(&self, partition: i32, records: u64) {
        let mut producer = self.broker.producer().expect("a producer");
        for record in 0..records {
            let value = Some(format!("{{\"x\": {}}}", record * 7919 % 1000).into_bytes());
            let out = OutRecord {
                topic: "in".into(),
                partition: Partition(partition),
                key: None,
                value,
                headers: Vec::new(),
                timestamp: None,
            };
            producer.send(out).expect("sent");
        }
    }

    /// How often each event id stands in the topic of drift events.
    pub(crate) fn events(&self) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        let count = &mut |value: &[u8]| {
            let event: serde_json::Value = serde_json::from_slice(value).expect("JSON");
            *ids.entry(event["event_id"].as_str().expect("an id").to_owned()).or_insert(0) += 1;
        };
        let read = self.broker.read_topic("drift-events", Duration::ZERO, &mut |_, record| {
            count(record.value.expect("a value"));
            ControlFlow::Continue(())
        });
        read.expect("drift events");
        ids
    }

    /// Every check of so many records is there once, and nothing else.
    pub(crate) fn expect_checks(&self, records: u64) {
        let events = self.events();
        assert!(events.values().all(|times| *times == 1), "an event is there more than once: {events:?}");
        assert_eq!(events.len(), (records / EVERY) as usize * EVENTS_PER_CHECK, "events");
    }
}
