//! One run: a schedule of what happens, drawn from the seed.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use leeway::broker::memory::{CommitStep, Fault, MemoryClient};
use leeway::broker::{AbortCause, Broker, OutRecord, PlainProducer};
use leeway::epoch::EpochTag;
use leeway::state::store::StateStore;
use leeway::stream_thread::{FailPoint, Step, StreamThread, ThreadError};
use leeway_topology::ids::{Partition, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use crate::check;
use crate::world::{APPLICATION, SESSION_TIMEOUT, World};

/// Turns in which things happen; afterwards everything is left in peace until it is through.
const TURNS: usize = 1200;

/// Turns within which a run in peace must be through: many times the longest time-out.
const TURNS_IN_PEACE: usize = 60_000;

/// Processes at once, at most.
const PROCESSES_MAX: usize = 3;

/// Every kind of thing that may happen, and how often it did.
#[derive(Default)]
pub(crate) struct Coverage(BTreeMap<String, u64>);

/// What must have happened in a number of runs, for them to say anything.
const EXPECTED: [&str; 25] = [
    "crash",
    "crash with loss of the disk",
    "crash at EpochSealed",
    "crash at BeforeStoreWrite",
    "crash at AfterStoreWrite",
    "sleep",
    "sleep beyond the session time-out",
    "stop",
    "Refuse(Rejoin) before Produce",
    "Refuse(TimedOut) before SendOffsets",
    "Refuse(Unavailable) before Commit",
    "Refuse(Refused) before Produce",
    "LoseReply before Produce",
    "LoseReply before SendOffsets",
    "LoseReply before Commit",
    "LoseReply before Reply",
    "Fence before Produce",
    "Fence before SendOffsets",
    "Fence before Commit",
    "Wait before Produce",
    "Wait before SendOffsets",
    "Wait before Commit",
    "Wait before Reply",
    "DelayMarkers before Produce",
    "DelayMarkers before Commit",
];

impl Coverage {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// What did not happen and should have.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        EXPECTED.into_iter().filter(|what| !self.0.contains_key(*what)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>8}  {what}"))
    }
}

/// The payload of a panic that stands for SIGKILL.
struct Killed;

/// A process: its disk, and its threads while it lives.
struct Process {
    name: String,
    store: StateStore,
    life: u32,
    threads: Vec<StreamThread<MemoryClient>>,
    stopping: bool,
    asleep_until: Duration,
}

/// What a run consists of.
struct Simulation<'a> {
    world: World,
    random: StdRng,
    processes: Vec<Process>,
    /// Disks of processes that are gone, under their names.
    disks: Vec<(String, StateStore, u32)>,
    processes_made: u32,
    /// What was sent to each partition, in order: value and timestamp.
    sent: Vec<Vec<(Option<Vec<u8>>, Timestamp)>>,
    /// Shared with the hooks; counted at the end.
    happened: Arc<Mutex<Happenings>>,
    coverage: &'a mut Coverage,
}

/// What the hooks draw from, and what they did.
struct Happenings {
    random: StdRng,
    peace: bool,
    log: Vec<String>,
    /// What can be fatal when it comes again, by transactional id, in the life of its process.
    fences: BTreeMap<String, u32>,
    refusals: BTreeMap<String, u32>,
}

impl Happenings {
    fn fault(&mut self, transactional_id: &str, step: CommitStep) -> Option<Fault> {
        if self.peace || self.random.random_range(0..100) >= 12 {
            return None;
        }
        let causes = [AbortCause::Rejoin, AbortCause::TimedOut, AbortCause::Unavailable, AbortCause::Refused];
        let fault = match self.random.random_range(0..100) {
            0..30 => Fault::Refuse(causes[self.random.random_range(0..causes.len())]),
            30..60 => Fault::LoseReply,
            60..64 => Fault::Fence,
            64..85 => Fault::Wait(Duration::from_millis(self.random.random_range(1..15_000))),
            _ => Fault::DelayMarkers(Duration::from_millis(self.random.random_range(1..8_000))),
        };
        let counted = match fault {
            Fault::Fence => Some(&mut self.fences),
            Fault::Refuse(AbortCause::Refused) => Some(&mut self.refusals),
            _ => None,
        };
        if let Some(counted) = counted {
            *counted.entry(transactional_id.to_owned()).or_default() += 1;
        }
        let name = match fault {
            Fault::Wait(_) => "Wait".to_owned(),
            Fault::DelayMarkers(_) => "DelayMarkers".to_owned(),
            other => format!("{other:?}"),
        };
        self.log.push(format!("{name} before {step:?}"));
        Some(fault)
    }

    fn begin_life(&mut self, process: &str) {
        let of_others = |id: &String, _: &mut u32| !is_of(id, process);
        self.fences.retain(of_others);
        self.refusals.retain(of_others);
    }

    /// Whether so much was injected that a process has to stop by the rules.
    fn may_stop(&self, process: &str, reason: &str) -> bool {
        let injected = |counted: &BTreeMap<String, u32>, times: u32| counted.iter().any(|(id, injected)| is_of(id, process) && *injected >= times);
        (reason.contains("fenced twice") && injected(&self.fences, 2)) || (reason.contains("was refused 3 times") && injected(&self.refusals, 3))
    }

    fn dies_at(&mut self, point: FailPoint) -> bool {
        let dies = !self.peace && self.random.random_range(0..100) < 2;
        if dies {
            self.log.push(format!("crash at {point:?}"));
        }
        dies
    }
}

/// Whether a transactional id is one of a process's threads.
fn is_of(transactional_id: &str, process: &str) -> bool {
    transactional_id
        .rsplit_once('-')
        .is_some_and(|(rest, _)| rest == format!("{APPLICATION}-{process}"))
}

/// Runs a seed.
///
/// # Errors
/// What was not right, in words.
pub(crate) fn simulate(seed: u64, coverage: &mut Coverage) -> Result<(), String> {
    quiet_kills();
    let mut random = StdRng::seed_from_u64(seed);
    let partitions = random.random_range(1..=3);
    let world = World::new(partitions);
    let happened = Arc::new(Mutex::new(Happenings {
        random: StdRng::seed_from_u64(random.random()),
        peace: false,
        log: Vec::new(),
        fences: BTreeMap::new(),
        refusals: BTreeMap::new(),
    }));
    let decide = happened.clone();
    world
        .broker
        .inject(move |id: &str, step: CommitStep| decide.lock().expect("not poisoned").fault(id, step));
    let mut simulation = Simulation {
        world,
        random,
        processes: Vec::new(),
        disks: Vec::new(),
        processes_made: 0,
        sent: vec![Vec::new(); partitions as usize],
        happened,
        coverage,
    };
    let outcome = simulation.run();
    let log = std::mem::take(&mut simulation.happened.lock().expect("not poisoned").log);
    log.into_iter().for_each(|what| simulation.coverage.count(what));
    outcome
}

impl Simulation<'_> {
    fn run(&mut self) -> Result<(), String> {
        self.start_process();
        for _ in 0..TURNS {
            let time = self.random.random_range(1..40);
            self.world.pass(Duration::from_millis(time));
            self.happen();
            self.step()?;
        }
        self.happened.lock().expect("not poisoned").peace = true;
        for process in &mut self.processes {
            process.asleep_until = Duration::ZERO;
        }
        for _ in 0..TURNS_IN_PEACE {
            if self.processes.iter().all(|process| process.stopping) {
                self.start_process();
            }
            self.world.pass(Duration::from_millis(10));
            self.step()?;
            if self.world.is_drained() && self.processes.iter().all(|process| !process.stopping && process.is_ready()) {
                return self.check();
            }
        }
        let positions = self.world.broker.group_positions(APPLICATION, "in", Duration::ZERO);
        let states: Vec<_> = self.processes.iter().map(|process| (&process.name, process.states())).collect();
        Err(format!("not through in peace: {positions:?}, {states:?}"))
    }

    /// Draws what happens in this turn.
    fn happen(&mut self) {
        if self.random.random_range(0..100) < 25 {
            self.produce();
        }
        if self.processes.is_empty() || (self.processes.len() < PROCESSES_MAX && self.random.random_range(0..100) < 2) {
            self.start_process();
        }
        if self.random.random_range(0..1000) < 6 && !self.processes.is_empty() {
            let at = self.random.random_range(0..self.processes.len());
            self.crash(at);
        }
        if self.random.random_range(0..1000) < 8 && !self.processes.is_empty() {
            let at = self.random.random_range(0..self.processes.len());
            let time = SESSION_TIMEOUT.mul_f64(self.random.random_range(0.0..2.5));
            self.processes[at].asleep_until = self.world.now().elapsed + time;
            self.coverage.count(if time > SESSION_TIMEOUT {
                "sleep beyond the session time-out"
            } else {
                "sleep"
            });
        }
        if self.random.random_range(0..1000) < 4 && !self.processes.is_empty() {
            let at = self.random.random_range(0..self.processes.len());
            let process = &mut self.processes[at];
            process.stopping = true;
            process.threads.iter_mut().for_each(StreamThread::stop);
            self.coverage.count("stop");
        }
    }

    fn produce(&mut self) {
        let partition = self.random.random_range(0..self.sent.len());
        let mut producer = self.world.broker.producer().expect("a producer");
        for _ in 0..self.random.random_range(1..30) {
            let value = match self.random.random_range(0..40) {
                0 => None,
                1 => Some(b"no object".to_vec()),
                2 => Some(b"{\"x\": null}".to_vec()),
                _ => Some(format!("{{\"x\": {}}}", self.random.random_range(0..1000)).into_bytes()),
            };
            let timestamp = Timestamp(1_700_000_000_000 + self.random.random_range(0..1_000_000));
            self.sent[partition].push((value.clone(), timestamp));
            let out = OutRecord {
                topic: "in".into(),
                partition: Partition(partition as i32),
                key: Some(b"k".to_vec()),
                value,
                headers: Vec::new(),
                timestamp: Some(timestamp),
            };
            producer.send(out).expect("sent");
        }
    }

    /// Starts a process: on the disk of one that is gone, or on a new one.
    fn start_process(&mut self) {
        let (name, store, life) = if !self.disks.is_empty() && self.random.random_range(0..100) < 80 {
            self.disks.swap_remove(self.random.random_range(0..self.disks.len()))
        } else {
            self.processes_made += 1;
            (format!("process-{}", self.processes_made), StateStore::in_memory(), 0)
        };
        self.happened.lock().expect("not poisoned").begin_life(&name);
        let mut context = self.world.context(store.clone());
        let happened = self.happened.clone();
        context.fail_point = Some(Arc::new(move |point| {
            let dies = happened.lock().expect("not poisoned").dies_at(point);
            if dies {
                std::panic::panic_any(Killed);
            }
        }));
        let context = Arc::new(context);
        let threads = (1..=self.random.random_range(1..=2))
            .map(|thread| {
                let (thread_name, tag) = (format!("{name}-{thread}"), EpochTag::new(&name, thread, life));
                StreamThread::new(thread_name, self.world.client(&name, thread), context.clone(), tag)
            })
            .collect();
        self.processes.push(Process {
            name,
            store,
            life,
            threads,
            stopping: false,
            asleep_until: Duration::ZERO,
        });
    }

    /// As SIGKILL: nothing is said to anybody. The disk stays, unless it is lost too.
    fn crash(&mut self, at: usize) {
        let Process {
            name, store, life, threads, ..
        } = self.processes.swap_remove(at);
        drop(threads);
        if self.random.random_range(0..4) == 0 {
            self.coverage.count("crash with loss of the disk");
        } else {
            self.coverage.count("crash");
            self.disks.push((name, store, life + 1));
        }
    }

    /// Steps every thread of every process that is awake, in an order of its own.
    fn step(&mut self) -> Result<(), String> {
        let mut at = 0;
        while at < self.processes.len() {
            match self.step_process(at)? {
                Fate::Alive => at += 1,
                Fate::Gone => self.crash(at),
                Fate::Stopped => {
                    let Process {
                        name, store, life, threads, ..
                    } = self.processes.swap_remove(at);
                    threads.into_iter().for_each(|thread| thread.close(Duration::ZERO));
                    self.disks.push((name, store, life + 1));
                }
            }
        }
        Ok(())
    }

    fn step_process(&mut self, at: usize) -> Result<Fate, String> {
        let now = self.world.now();
        let process = &mut self.processes[at];
        if now.elapsed < process.asleep_until {
            return Ok(Fate::Alive);
        }
        let mut stopped = 0;
        let first = self.random.random_range(0..process.threads.len());
        let threads = process.threads.len();
        for turn in 0..threads {
            let thread = &mut process.threads[(first + turn) % threads];
            match catch_unwind(AssertUnwindSafe(|| thread.step(now))) {
                Ok(Ok(Step::Stopped)) => stopped += 1,
                Ok(Ok(Step::Busy | Step::Idle)) => {}
                Ok(Err(ThreadError::Fatal(text) | ThreadError::Failed(text))) => {
                    let happened = self.happened.lock().expect("not poisoned");
                    return if happened.may_stop(&process.name, &text) {
                        Ok(Fate::Gone)
                    } else {
                        Err(format!("{} stopped: {text}", process.name))
                    };
                }
                Err(payload) => match payload.downcast::<Killed>() {
                    Ok(_) => return Ok(Fate::Gone),
                    Err(other) => resume_unwind(other),
                },
            }
        }
        Ok(if stopped == threads { Fate::Stopped } else { Fate::Alive })
    }

    fn check(&mut self) -> Result<(), String> {
        // Late markers are through, and nobody holds a lease any more.
        self.world.pass(Duration::from_secs(60));
        let stores: Vec<_> = self.disks.drain(..).map(|(name, store, _)| (name, store)).collect();
        let live: Vec<_> = self.processes.drain(..).map(|process| (process.name, process.store)).collect();
        check::events(&self.world, &self.sent)?;
        check::dead_letters(&self.world, &self.sent)?;
        for (name, store) in stores.iter().chain(&live) {
            for partition in 0..self.sent.len() {
                check::store(&self.world, store, Partition(partition as i32))
                    .map_err(|fault| format!("store of {name}, partition {partition}: {fault}"))?;
            }
        }
        Ok(())
    }
}

enum Fate {
    Alive,
    Gone,
    Stopped,
}

impl Process {
    fn is_ready(&self) -> bool {
        self.threads.iter().all(StreamThread::is_ready)
    }

    fn states(&self) -> Vec<BTreeMap<&'static str, usize>> {
        self.threads.iter().map(StreamThread::task_states).collect()
    }
}

/// A simulated SIGKILL is no panic that anybody wants to read about.
fn quiet_kills() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<Killed>().is_none() {
                usual(info);
            }
        }));
    });
}
