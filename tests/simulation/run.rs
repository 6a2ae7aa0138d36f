//! One run: a schedule of what happens, drawn from the seed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::Duration;

use leeway::broker::memory::{CommitStep, RebalanceProtocol};
use leeway::broker::{Broker, CommittedOffset, NewTopic, OutRecord, PlainProducer, TopicPartition};
use leeway::epoch::EpochTag;
use leeway::standby::StandbyThread;
use leeway::state::store::TaskRange;
use leeway::stream_thread::{Step, StreamThread, ThreadError};
use leeway::task::progress::{Checkpoint, Progress, checkpoint_key};
use leeway::telemetry::metrics::Metrics;
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::Scopes;
use leeway_topology::state::{pane_key, progress_key};
use leeway_topology::window::Window;
use leeway_topology::window::time::TimeWindow;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use crate::check::{self, EPOCH_BEFORE, Log};
use crate::coverage::Coverage;
use crate::disk::{self, Disk, Entries, Kind};
use crate::faults::{Faults, Interruption, THREADS_MAX};
use crate::history::{CHANGELOG, GLOBAL_CHANGELOG, History};
use crate::mid_step::{self, Begun, Killed, Outcome};
use crate::process::{Fate, Process, Seat};
use crate::world::{APPLICATION, SESSION_TIMEOUT, World};

/// Turns in which things happen; afterwards everything is left in peace until it is through.
const TURNS: usize = 1200;

/// Turns within which a run in peace must be through: many times the longest time-out.
const TURNS_IN_PEACE: usize = 60_000;

/// Processes at once, at most.
const PROCESSES_MAX: usize = 3;

/// Kafka's own: how often a coordinator looks for transactions past their time-out.
const TRANSACTION_SWEEP: Duration = Duration::from_secs(10);

/// Of the changelog: short, so that a run outlasts it. A checkpoint of half that age is not continued.
const DELETE_RETENTION: Duration = Duration::from_secs(20);

/// Of a thousand steps, so many stand still at a fail point if they come to one.
const MID_STEPS: u32 = 40;

/// RocksDB keeps the state in one of so many runs: it is the real thing, and slower by far.
const ROCKSDB_IN_RUNS: u32 = 25;

/// What a task's part of a disk was when its process was gone. Judged at the end, when all that was decided can be read.
struct Inspection {
    disk: String,
    task: TaskRange,
    entries: Entries,
    /// What a copy may lack.
    lost: Entries,
}

/// What a run consists of.
struct Simulation<'a> {
    world: World,
    random: StdRng,
    processes: Vec<Process>,
    /// Of processes that are gone.
    disks: Vec<Disk>,
    backups: Vec<Disk>,
    processes_made: u32,
    kind: Kind,
    inputs: Vec<Log>,
    /// Every task's changelog.
    histories: BTreeMap<TaskRange, History>,
    inspections: Vec<Inspection>,
    /// What was there when an idle task was looked at last, by disk and task.
    seen_idle: BTreeMap<(String, TaskRange), Entries>,
    /// Whether the group's offsets say something that the changelogs do not.
    adopted: bool,
    metrics: Arc<Metrics>,
    /// Shared with the hooks.
    faults: Arc<Mutex<Faults>>,
    coverage: &'a mut Coverage,
}

/// Runs a seed.
///
/// # Errors
/// What was not right, in words.
pub(crate) fn simulate(seed: u64, coverage: &mut Coverage) -> Result<(), String> {
    quiet_kills();
    let mut random = StdRng::seed_from_u64(seed);
    let partitions = random.random_range(1..=3);
    let protocol = if random.random_range(0..3) == 0 {
        coverage.count("eager rebalances");
        RebalanceProtocol::Eager
    } else {
        coverage.count("cooperative rebalances");
        RebalanceProtocol::Cooperative
    };
    let kind = if random.random_range(0..ROCKSDB_IN_RUNS) == 0 {
        coverage.count("state in RocksDB");
        Kind::RocksDb
    } else {
        coverage.count("state in memory");
        Kind::Memory
    };
    let mut world = World::on(partitions, |broker| {
        broker.with_rebalance_protocol(protocol).with_transaction_sweep(TRANSACTION_SWEEP)
    });
    if random.random_range(0..4) == 0 {
        coverage.count("time windows");
        let mut monitor = (*world.monitor).clone();
        monitor.scopes = scopes(&mut random);
        if monitor.scopes.global {
            coverage.count("time windows, scope global");
        }
        monitor.window = Window::Time(TimeWindow::new(100_000, 20_000, 200_000).expect("a window"));
        if random.random_range(0..2) == 0 {
            monitor.idle_close_after_ms = Some(random.random_range(500..10_000));
        }
        monitor.late_to_dead_letters = random.random_range(0..2) == 0;
        world.monitor = Arc::new(monitor);
    } else {
        coverage.count("count windows");
        let mut monitor = (*world.monitor).clone();
        monitor.scopes = scopes(&mut random);
        if monitor.scopes.global {
            coverage.count("scope global");
        }
        world.monitor = Arc::new(monitor);
    }
    // When idleness closed the windows of a segment only its own record number would tell.
    let is_global_time = world.monitor.scopes.global && matches!(world.monitor.window, Window::Time(_));
    if world.monitor.idle_close_after_ms.is_none() && !is_global_time && random.random_range(0..3) == 0 {
        coverage.count("segments");
        let mut monitor = (*world.monitor).clone();
        monitor.segment_by = vec!["s".parse().expect("a field")];
        monitor.max_segments = random.random_range(1..8);
        monitor.segment_expiry_ms = (random.random_range(0..2) == 0).then(|| random.random_range(300_000..600_000));
        world.monitor = Arc::new(monitor);
    }
    // Not drawn, so that every seed stays the run that it was.
    if seed.is_multiple_of(3) {
        coverage.count("limits of quality");
        let mut monitor = (*world.monitor).clone();
        monitor.quality.limits.missing = Some(0.05);
        monitor.quality.limits.out_of_range = Some(0.1);
        world.monitor = Arc::new(monitor);
    }
    // Not drawn either.
    if world.monitor.idle_close_after_ms.is_none() && is_global_time && seed.is_multiple_of(2) {
        coverage.count("segments, time windows, scope global");
        let mut monitor = (*world.monitor).clone();
        monitor.segment_by = vec!["s".parse().expect("a field")];
        monitor.max_segments = 1 + seed % 7;
        monitor.segment_expiry_ms = seed.is_multiple_of(4).then_some(300_000 + 1000 * (seed % 300));
        world.monitor = Arc::new(monitor);
    }
    let is_global = world.monitor.scopes.global;
    let mut tasks: Vec<_> = (0..partitions as usize).map(disk::windows_task).collect();
    if is_global {
        tasks.extend((0..partitions as usize).map(disk::global_task));
    }
    let changelog = |name: &str| NewTopic {
        name: name.into(),
        partitions,
        replication_factor: None,
        config: BTreeMap::from([
            ("cleanup.policy".to_owned(), "compact".to_owned()),
            ("delete.retention.ms".to_owned(), DELETE_RETENTION.as_millis().to_string()),
        ]),
    };
    for name in [CHANGELOG, GLOBAL_CHANGELOG].into_iter().take(1 + usize::from(is_global)) {
        world.broker.create_topic(&changelog(name), Duration::ZERO).expect("a topic");
    }
    let faults = Arc::new(Mutex::new(Faults::new(random.random())));
    let decide = faults.clone();
    world
        .broker
        .inject(move |id: &str, step: CommitStep| decide.lock().expect("not poisoned").before(id, step));
    let mut simulation = Simulation {
        world,
        random,
        processes: Vec::new(),
        disks: Vec::new(),
        backups: Vec::new(),
        processes_made: 0,
        kind,
        inputs: (0..partitions).map(|_| Log::default()).collect(),
        histories: tasks.into_iter().map(|task| (task, History::default())).collect(),
        inspections: Vec::new(),
        seen_idle: BTreeMap::new(),
        adopted: false,
        metrics: Arc::new(Metrics::new(1000).expect("metrics")),
        faults,
        coverage,
    };
    simulation.begin();
    let outcome = simulation.run();
    simulation.count();
    outcome
}

fn scopes(random: &mut StdRng) -> Scopes {
    match random.random_range(0..4) {
        0 => Scopes::GLOBAL,
        1 => Scopes::BOTH,
        _ => Scopes::PARTITION,
    }
}

impl Simulation<'_> {
    /// What there was before the first process: mostly nothing.
    fn begin(&mut self) {
        match self.random.random_range(0..8) {
            0 | 1 => {
                self.adopted = true;
                self.coverage.count("offset of another consumer adopted");
                for partition in 0..self.inputs.len() {
                    self.produce(partition);
                    let sent = self.inputs[partition].len();
                    let begin = self.random.random_range(1..=sent);
                    self.inputs[partition].begin = begin as i64;
                    self.set_offset(partition, begin as i64, "");
                }
            }
            2 | 3 => self.begin_with_an_old_disk(),
            _ => {}
        }
    }

    /// An earlier version kept a key, and deleted it after this disk was written. When the tombstone is gone, only the disk's age tells.
    fn begin_with_an_old_disk(&mut self) {
        self.coverage.count("disk older than the tombstones");
        let key = pane_key("monitor of before", "", "", 0);
        let (disk, wall) = (Disk::new("process-0".to_owned(), self.kind), self.world.now().wall);
        let progress = |committed_at| {
            let progress = Progress {
                next_offset: Offset(0),
                record_number: 0,
                stream_time: None,
                epoch: EPOCH_BEFORE,
                committed_at,
            };
            progress.to_bytes()
        };
        let (first, second) = (progress(wall), progress(Timestamp(wall.0 + 1)));
        for partition in 0..self.inputs.len() {
            for (key, value) in [
                (key.clone(), Some(b"before".to_vec())),
                (progress_key(), Some(first.clone())),
                (key.clone(), None),
                (progress_key(), Some(second.clone())),
            ] {
                self.send(CHANGELOG, partition, Some(key), value, None);
            }
            self.set_offset(partition, 0, &EpochTag::new("before", 1, 0).metadata(EPOCH_BEFORE));
            let checkpoint = Checkpoint {
                changelog_offset: Offset(2),
                committed_at: wall,
            };
            let checkpoint = (checkpoint_key(), checkpoint.to_bytes());
            let values = [(key.clone(), b"before".to_vec()), (progress_key(), first.clone()), checkpoint];
            disk::set(
                &disk.store,
                &disk::windows_task(partition),
                values.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice()))),
            );
        }
        self.backups.push(disk);
    }

    fn run(&mut self) -> Result<(), String> {
        self.start_process();
        for _ in 0..TURNS {
            let time = self.random.random_range(1..40);
            self.world.pass(Duration::from_millis(time));
            self.happen()?;
            self.step()?;
        }
        self.faults().peace = true;
        for process in &mut self.processes {
            process.asleep_until.fill(Duration::ZERO);
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
        let states: Vec<_> = self.processes.iter().map(|process| (&process.disk.name, process.states())).collect();
        Err(format!("not through in peace: {positions:?}, {states:?}"))
    }

    /// Draws what happens in this turn.
    fn happen(&mut self) -> Result<(), String> {
        if self.draws(250) {
            let partition = self.random.random_range(0..self.inputs.len());
            self.produce(partition);
        }
        if self.processes.is_empty() || (self.processes.len() < PROCESSES_MAX && self.draws(20)) {
            self.start_process();
        }
        if self.draws(6) && !self.processes.is_empty() {
            let at = self.random.random_range(0..self.processes.len());
            self.coverage.count("crash");
            self.crash(at)?;
        }
        if self.draws(8) && !self.processes.is_empty() {
            let at = self.random.random_range(0..self.processes.len());
            let time = self.some_time();
            let until = self.world.now().elapsed + time;
            let asleep_until = &mut self.processes[at].asleep_until;
            if self.random.random_range(0..2) == 0 {
                self.coverage.count("a thread sleeps");
                let thread = self.random.random_range(0..asleep_until.len());
                asleep_until[thread] = until;
            } else {
                asleep_until.fill(until);
            }
            self.coverage.count(if time > SESSION_TIMEOUT {
                "sleep beyond the session time-out"
            } else {
                "sleep"
            });
        }
        if self.draws(4) && !self.processes.is_empty() {
            let at = self.random.random_range(0..self.processes.len());
            self.processes[at].stop();
            self.coverage.count("stop");
        }
        if self.draws(2) {
            self.coverage.count("everybody sleeps");
            let time = self.some_time();
            self.world.pass(time);
        }
        if self.draws(2) {
            self.coverage.count("broker stopped");
            let time = self.some_time();
            self.world.broker.stop_for(time);
        }
        if self.draws(10) {
            self.coverage.count("changelog compacted");
            History::follow(&mut self.histories, &self.world);
            self.world.broker.compact(CHANGELOG).expect("compacted");
            if self.world.monitor.scopes.global {
                self.world.broker.compact(GLOBAL_CHANGELOG).expect("compacted");
            }
        }
        if self.draws(1) {
            self.crash_all()?;
        }
        if self.draws(100) {
            self.inspect_idle();
        }
        Ok(())
    }

    /// Everything is down for long: what the group knew may be forgotten.
    fn crash_all(&mut self) -> Result<(), String> {
        self.coverage.count("all crash at once");
        while !self.processes.is_empty() {
            self.crash(0)?;
        }
        let time = SESSION_TIMEOUT.mul_f64(self.random.random_range(1.1..5.0));
        self.world.pass(time);
        // A first start would then begin elsewhere, as it should; and not all have committed.
        if !self.adopted && self.random.random_range(0..2) == 0 && self.world.broker.expire_offsets(APPLICATION) {
            self.coverage.count("group offsets expired");
        }
        Ok(())
    }

    fn draws(&mut self, of_a_thousand: u32) -> bool {
        self.random.random_range(0..1000) < of_a_thousand
    }

    fn some_time(&mut self) -> Duration {
        SESSION_TIMEOUT.mul_f64(self.random.random_range(0.0..2.5))
    }

    fn produce(&mut self, partition: usize) {
        for _ in 0..self.random.random_range(1..30) {
            let value = match self.random.random_range(0..40) {
                0 => None,
                1 => Some(b"no object".to_vec()),
                2 => Some(b"{\"x\": null}".to_vec()),
                _ => {
                    let (x, s) = (self.random.random_range(0..1000), self.random.random_range(0..8_u32).pow(2) / 8);
                    Some(format!("{{\"x\": {x}, \"s\": {s}}}").into_bytes())
                }
            };
            // Times go on by some seconds a record, out of order by minutes.
            let sent = self.inputs[partition].len() as i64;
            let timestamp = Timestamp(1_700_000_000_000 + sent * 5000 + self.random.random_range(0..400_000));
            self.inputs[partition].push(value.clone(), timestamp);
            self.send("in", partition, Some(b"k".to_vec()), value, Some(timestamp));
        }
    }

    fn send(&self, topic: &str, partition: usize, key: Option<Vec<u8>>, value: Option<Vec<u8>>, timestamp: Option<Timestamp>) {
        let record = OutRecord {
            topic: topic.into(),
            partition: Partition(partition as i32),
            key,
            value,
            headers: Vec::new(),
            timestamp,
        };
        self.world.broker.producer().expect("a producer").send(record).expect("sent");
    }

    fn set_offset(&self, partition: usize, offset: i64, metadata: &str) {
        let committed = CommittedOffset {
            offset: Offset(offset),
            metadata: metadata.to_owned(),
        };
        let partition = TopicPartition::new("in", Partition(partition as i32));
        self.world.broker.set_offset(APPLICATION, &partition, committed);
    }

    /// The disk of a process that starts: one that was left, an older copy of it, or a new one.
    fn disk(&mut self) -> Disk {
        let copy = (!self.backups.is_empty() && self.draws(150)).then(|| self.random.random_range(0..self.backups.len()));
        if let Some(copy) = copy
            && !self.processes.iter().any(|process| process.disk.name == self.backups[copy].name)
        {
            let mut copy = self.backups.swap_remove(copy);
            self.coverage.count("disk replaced by an older copy");
            if let Some(at) = self.disks.iter().position(|disk| disk.name == copy.name) {
                copy.life = self.disks.swap_remove(at).life;
            }
            return copy;
        }
        if !self.disks.is_empty() && self.draws(800) {
            return self.disks.swap_remove(self.random.random_range(0..self.disks.len()));
        }
        self.processes_made += 1;
        Disk::new(format!("process-{}", self.processes_made), self.kind)
    }

    fn start_process(&mut self) {
        let disk = self.disk();
        self.faults().begin_life(&disk.name);
        let mut context = self.world.context(disk.store.clone());
        context.metrics = self.metrics.clone();
        let (faults, clock_ms) = (self.faults.clone(), self.world.clock_ms.clone());
        context.fail_point = Some(Arc::new(move |point| {
            if mid_step::stand(point) {
                return;
            }
            let interruption = faults.lock().expect("not poisoned").at(point);
            match interruption {
                Some(Interruption::Dies) => std::panic::panic_any(Killed),
                Some(Interruption::Sleeps(time)) => {
                    clock_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
                }
                None => {}
            }
        }));
        let context = Arc::new(context);
        let threads: Vec<_> = (1..=self.random.random_range(1..=THREADS_MAX))
            .map(|thread| {
                let (thread_name, tag) = (format!("{}-{thread}", disk.name), EpochTag::new(&disk.name, thread, disk.life));
                let thread = StreamThread::new(thread_name, self.world.client(&disk.name, thread), context.clone(), tag);
                Seat::Between(Box::new(thread))
            })
            .collect();
        let standby = self.draws(250).then(|| {
            self.coverage.count("process with copies");
            StandbyThread::new(self.world.client(&disk.name, 0), context)
        });
        self.processes.push(Process {
            asleep_until: vec![Duration::ZERO; threads.len() + 1],
            disk,
            threads,
            standby,
            stopping: false,
        });
    }

    /// As SIGKILL: nothing is said to anybody. Something may befall the disk, after it was looked at.
    fn crash(&mut self, at: usize) -> Result<(), String> {
        let Process { disk, threads, standby, .. } = self.processes.swap_remove(at);
        threads.into_iter().for_each(Seat::kill);
        if standby.is_some_and(|standby| standby.following() > 0) {
            self.coverage.count("crash with copies");
        }
        self.leave(disk)
    }

    /// Looks at what live processes keep of tasks that nobody has there now, before something else is written over it.
    fn inspect_idle(&mut self) {
        for process in &self.processes {
            let disk = &process.disk;
            for task in self.histories.keys() {
                // Who has the lease is in the middle of something.
                let Ok((entries, lost)) = disk.undamaged(task) else { continue };
                let last = self.seen_idle.entry((disk.name.clone(), task.clone())).or_default();
                if *last != entries {
                    last.clone_from(&entries);
                    self.coverage.count("idle task of a live process looked at");
                    self.inspections.push(Inspection {
                        disk: disk.name.clone(),
                        task: task.clone(),
                        entries,
                        lost,
                    });
                }
            }
        }
    }

    /// A disk without a process.
    fn leave(&mut self, mut disk: Disk) -> Result<(), String> {
        disk.life += 1;
        disk.recover();
        let tasks: Vec<_> = self.histories.keys().cloned().collect();
        for task in &tasks {
            let (entries, lost) = disk.undamaged(task)?;
            self.inspections.push(Inspection {
                disk: disk.name.clone(),
                task: task.clone(),
                entries,
                lost,
            });
        }
        match self.random.random_range(0..100) {
            0..12 => {
                self.coverage.count("disk lost");
                return Ok(());
            }
            12..30 => self.backups.push(disk.copy(&tasks)),
            30..36 => {
                let task = &tasks[self.random.random_range(0..tasks.len())];
                if disk.lose_key(task, self.random.random_range(0..100)) {
                    self.coverage.count("key of the disk lost");
                }
            }
            _ => {}
        }
        self.disks.push(disk);
        Ok(())
    }

    /// Steps every thread of every process that is awake, in an order of its own.
    fn step(&mut self) -> Result<(), String> {
        let mut at = 0;
        while at < self.processes.len() {
            match self.step_process(at)? {
                Fate::Alive => at += 1,
                Fate::Gone => self.crash(at)?,
                Fate::Stopped => {
                    let Process { disk, threads, standby, .. } = self.processes.swap_remove(at);
                    threads.into_iter().for_each(Seat::close);
                    if let Some(standby) = standby {
                        standby.close(self.world.now(), Duration::ZERO);
                    }
                    self.leave(disk)?;
                }
            }
        }
        Ok(())
    }

    fn step_process(&mut self, at: usize) -> Result<Fate, String> {
        let mut stopped = 0;
        let threads = self.processes[at].threads.len();
        let first = self.random.random_range(0..threads);
        for turn in 0..threads {
            let number = (first + turn) % threads;
            if self.world.now().elapsed < self.processes[at].asleep_until[number] {
                continue;
            }
            let Some(outcome) = self.step_thread(at, number) else { continue };
            match outcome {
                Ok(Ok(Step::Stopped)) => stopped += 1,
                Ok(Ok(Step::Busy | Step::Idle)) => {}
                // The window of a segment is read when its record comes, and only then is it seen that the disk lost a part of it.
                Ok(Err(ThreadError::Failed(text)))
                    if text.ends_with("it is restored from the changelog's start") && self.processes[at].disk.lost_what(&text) =>
                {
                    self.coverage.count("lost key found while a task ran");
                    return Ok(Fate::Gone);
                }
                Ok(Err(ThreadError::Fatal(text) | ThreadError::Failed(text))) => {
                    let name = &self.processes[at].disk.name;
                    return if self.faults.lock().expect("not poisoned").may_stop(name, &text) {
                        Ok(Fate::Gone)
                    } else {
                        Err(format!("{name} stopped: {text}"))
                    };
                }
                Err(payload) => match payload.downcast::<Killed>() {
                    Ok(_) => return Ok(Fate::Gone),
                    Err(other) => resume_unwind(other),
                },
            }
        }
        self.step_standby(at);
        Ok(if stopped == threads { Fate::Stopped } else { Fate::Alive })
    }

    fn step_standby(&mut self, at: usize) {
        let now = self.world.now();
        let process = &mut self.processes[at];
        let Some(standby) = &mut process.standby else { return };
        if process.asleep_until.last().is_some_and(|until| now.elapsed < *until) {
            return;
        }
        let before = standby.following();
        standby.step(now);
        match standby.following() {
            after if after > before => self.coverage.count("a copy begins"),
            after if after < before => self.coverage.count("a copy is given up"),
            _ => {}
        }
    }

    /// A step, or the rest of one; `None`: it stands in the middle.
    fn step_thread(&mut self, at: usize, number: usize) -> Option<Outcome> {
        let now = self.world.now();
        let stands = !self.faults().peace && self.draws(MID_STEPS);
        let passes = if stands { self.random.random_range(0..2) } else { 0 };
        let process = &mut self.processes[at];
        let (mut thread, outcome) = match std::mem::replace(&mut process.threads[number], Seat::Empty) {
            Seat::Within(step) => step.wake(),
            Seat::Between(thread) if stands => match mid_step::begin(thread, now, passes) {
                Begun::Over(thread, outcome) => (thread, outcome),
                Begun::Within(step, point) => {
                    process.threads[number] = Seat::Within(step);
                    let time = self.some_time();
                    self.processes[at].asleep_until[number] = now.elapsed + time;
                    self.coverage.count(format!("others go on while a thread stands at {point:?}"));
                    return None;
                }
            },
            Seat::Between(mut thread) => {
                let outcome = catch_unwind(AssertUnwindSafe(|| thread.step(now)));
                process.threads[number] = Seat::Between(thread);
                return Some(outcome);
            }
            Seat::Empty => unreachable!("a seat is empty only in this function"),
        };
        if process.stopping {
            thread.stop();
        }
        process.threads[number] = Seat::Between(thread);
        Some(outcome)
    }

    fn check(&mut self) -> Result<(), String> {
        // Late markers are through, and nobody holds a lease any more.
        self.world.pass(Duration::from_secs(60));
        while let Some(process) = self.processes.pop() {
            process.threads.into_iter().for_each(Seat::kill);
            drop(process.standby);
            self.leave(process.disk)?;
        }
        History::follow(&mut self.histories, &self.world);
        check::tell_idle(&self.world, &mut self.inputs);
        for input in &self.inputs {
            self.coverage.add("partition idle, its windows closed", input.idle.len() as u64);
        }
        let panes = check::panes(&self.world, &self.inputs)?;
        check::events(&self.world, &self.inputs, &panes)?;
        check::dead_letters(&self.world, &self.inputs)?;
        let logs: BTreeMap<_, _> = (self
            .inputs
            .iter()
            .enumerate()
            .map(|(partition, log)| (disk::windows_task(partition), log)))
        .chain(panes.iter().enumerate().map(|(partition, log)| (disk::global_task(partition), log)))
        .collect();
        for (task, history) in &self.histories {
            check::state(&self.world, task, logs[task], history.last()).map_err(|fault| format!("changelog of {task}: {fault}"))?;
        }
        for inspection in self.inspections.drain(..) {
            let Inspection { disk, task, entries, lost } = inspection;
            check::store(&self.world, &task, logs[&task], &self.histories[&task], entries, lost)
                .map_err(|fault| format!("store of {disk}, {task}: {fault}"))?;
        }
        Ok(())
    }

    /// What happened inside goes into the coverage.
    fn count(&mut self) {
        let log = std::mem::take(&mut self.faults().log);
        log.into_iter().for_each(|what| self.coverage.count(what));
        let text = self.metrics.render().expect("metrics");
        let counted = |name: &str| {
            let lines = text
                .lines()
                .filter(|line| !line.starts_with('#') && line.split([' ', '{']).next() == Some(name));
            let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            values.sum::<f64>() as u64
        };
        for (name, what) in [
            ("leeway_commits_total", "transaction committed"),
            ("leeway_transactions_aborted_total", "transaction aborted"),
            ("leeway_transactions_unknown_total", "outcome judged"),
            ("leeway_restores_from_start_total", "task restored from the changelog's start"),
            ("leeway_tasks_corrupted_total", "task found corrupted"),
            ("leeway_offsets_expired_total", "went on without a group offset"),
        ] {
            self.coverage.add(what, counted(name));
        }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("not poisoned")
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
