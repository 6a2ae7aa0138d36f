//! Chaos: three brokers, up to five instances, a steady stream; instances and brokers are killed, frozen, stopped, cut off and robbed of their disks
//! on a schedule from a seed. Afterwards `leeway audit` and the oracle judge what is there, and every store that was left behind has been compared
//! with its changelog.
//!
//! ```text
//! produce --> three brokers --proxies--> instances, each on a state directory (the first one's disk can be full)
//!                  |                          ^
//!                  |                          | schedule: kill, freeze, stop, scale, damage ...
//!                  \--> changelog followed, recoveries measured
//! ```
//!
//! `make chaos MINUTES=60 SEED=7` for long; the test is the same in three minutes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::kafka::{OwnedRecord, positions, read_committed_where};
use crate::leeway::{Worker, leeway, output};
use crate::proxy::Fault;
use crate::run::{Membership, PARTITIONS, Run};
use crate::verify::origin;

use changelog::Changelog;
use disk::{Disk, damage, replace, truncate};
use recovery::{Monitor, Recovery};
use schedule::Action;

mod changelog;
mod disk;
mod recovery;
mod schedule;

const BROKERS: usize = 3;

/// Instances at once, at most.
const INSTANCES_MAX: usize = 5;

/// As `Run` configures its workers.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Longer than sessions and transactions may last.
const FROZEN: std::ops::Range<f64> = 12.0..25.0;

/// Everything is left in peace at the end: until the last record is processed. Many times what a restart of a broker takes here.
const PEACE: Duration = Duration::from_secs(300);

/// A stop commits what is open, which a broker that dies may hold back.
const STOP: Duration = Duration::from_secs(120);

/// The brokers have to be whole for so long before one is killed: else two might be down.
const WHOLE: Duration = Duration::from_secs(5);

/// And one that was killed must have been back for so long: the others need 9 s to see that it was gone.
const BACK: Duration = Duration::from_secs(15);

/// The oracle is slow, so it computes the events of so many records of each partition; the audit does all.
const ORACLE_RECORDS: i64 = 100_000;

#[test]
fn whatever_dies_nothing_is_lost_doubled_or_wrong() {
    let setting = |name: &str, default: f64| {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty());
        text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
    };
    let (seed, minutes) = (setting("LEEWAY_CHAOS_SEED", 1.0) as u64, setting("LEEWAY_CHAOS_MINUTES", 3.0));
    let rate = setting("LEEWAY_CHAOS_RATE", 20_000.0) as u64;
    let membership = match std::env::var("LEEWAY_CHAOS_GROUP").unwrap_or_default().as_str() {
        "" | "classic" => Membership::Classic,
        "static" => Membership::Static,
        "consumer" => Membership::Consumer,
        other => panic!("LEEWAY_CHAOS_GROUP is classic, static or consumer, not {other}"),
    };
    eprintln!("chaos: seed {seed}, {minutes} minutes, {rate} records a second, {membership:?} members");
    let length = Duration::from_secs_f64(minutes * 60.0);

    let kafka = Cluster::start_behind_proxies(BROKERS);
    let mut run = Run::on(&kafka.bootstrap, "chaos");
    run.workers_bootstrap = Some(kafka.proxied_bootstrap());
    run.membership = membership;
    let rows = run.rows("rows.jsonl", 200_000, seed);
    run.scopes = vec!["partition", "global"];
    let changelogs = ["windows", "global"].map(|what| {
        let store = format!("{what}-{}", run.topic);
        let topic = format!("{}-{store}-changelog", run.application);
        (store, Changelog::follow(&run.bootstrap, topic, PARTITIONS))
    });
    let mut chaos = Chaos {
        changelogs,
        monitor: Monitor::start(&run.bootstrap, &run.application, &run.topic, PARTITIONS, BROKERS),
        disk: Disk::mount(&run.path("disk")),
        run: &run,
        kafka,
        broker_started: None,
        random: StdRng::seed_from_u64(seed),
        begun: Instant::now(),
        slots: Vec::new(),
        later: Vec::new(),
        counts: BTreeMap::new(),
        stores: 0,
        logs: std::env::temp_dir().join(format!("leeway-chaos-{seed}-{}", std::process::id())),
    };
    fs::create_dir_all(&chaos.logs).expect("a directory for logs");
    for number in 0..INSTANCES_MAX {
        let directory = match (&chaos.disk, number) {
            (Some(disk), 0) => disk.path.join("state"),
            _ => run.path(&format!("state-{number}")),
        };
        chaos.slots.push(Slot {
            directory,
            backup: None,
            damaged: false,
            state: State::Off,
        });
    }
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| stream(&run, &rows, rate, length, &over));
        // A failure is told at once, and not when all would have been sent.
        let _guard = SetOnDrop(&over);
        chaos.start(0);
        chaos.start(1);
        chaos.go_on(length, seed);
        let sent = sending.join().expect("all rows were sent");
        chaos.end_in_peace();
        sent
    });
    for (what, times) in &chaos.counts {
        println!("{what:<44} {times}");
    }
    let recoveries = chaos.monitor.recoveries();
    tell("recovery after SIGKILL, all", &recoveries, |_| true);
    tell("recovery after SIGKILL, nothing else broken", &recoveries, |recovery| !recovery.disturbed);
    let events = judge(&run, sent);
    println!(
        "{sent} records, {events} events: 0 lost, 0 doubled, 0 wrong; {} stores of tasks equal to their changelogs",
        chaos.stores
    );
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory for an instance, and what is going on there.
struct Slot {
    directory: PathBuf,
    /// An old copy.
    backup: Option<PathBuf>,
    /// A file of its store was damaged, and no instance has begun anew since: what is in it says nothing before it is restored.
    damaged: bool,
    state: State,
}

enum State {
    Off,
    /// It will start soon.
    Down,
    Running(Worker),
    Frozen(Worker),
}

/// What has to be done some time after something was done.
#[derive(Clone, Copy, Debug)]
enum Later {
    Start(usize),
    Thaw(usize),
    StartBroker(usize),
    Heal(usize),
    MakeRoom,
}

struct Chaos<'a> {
    // The first fields are dropped first.
    /// By store.
    changelogs: [(String, Changelog); 2],
    monitor: Monitor,
    slots: Vec<Slot>,
    disk: Option<Disk>,
    run: &'a Run,
    kafka: Cluster,
    broker_started: Option<Instant>,
    random: StdRng,
    begun: Instant,
    later: Vec<(Instant, Later)>,
    counts: BTreeMap<&'static str, usize>,
    stores: usize,
    /// Where logs of instances are kept until it is known that all was right.
    logs: PathBuf,
}

impl Drop for Chaos<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // What cannot be removed does no harm.
            fs::remove_dir_all(&self.logs).unwrap_or_default();
            return;
        }
        for number in 0..self.slots.len() {
            if let State::Running(worker) | State::Frozen(worker) = &self.slots[number].state {
                self.keep_log(number, worker);
            }
        }
        eprintln!("the instances' logs are in {}", self.logs.display());
    }
}

impl Chaos<'_> {
    fn say(&self, text: &str) {
        eprintln!("{:>7.1} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// Of an instance that is no more.
    fn ended(&mut self, number: usize, worker: &Worker) {
        self.slots[number].damaged &= !worker.log().contains("is kept as `db.damaged`");
        self.keep_log(number, worker);
    }

    fn keep_log(&self, number: usize, worker: &Worker) {
        let name = format!("instance-{number}-until-{:.1}-s", self.begun.elapsed().as_secs_f64());
        fs::write(self.logs.join(name), worker.log()).expect("a log is written");
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn soon(&mut self, seconds: std::ops::Range<f64>, what: Later) {
        let time = Duration::from_secs_f64(self.random.random_range(seconds));
        self.later.push((Instant::now() + time, what));
    }

    /// The schedule, from the begin to its end. What cannot happen now happens as soon as it can.
    fn go_on(&mut self, length: Duration, seed: u64) {
        let mut planned = schedule::draw(seed, length);
        while self.begun.elapsed() < length {
            std::thread::sleep(Duration::from_millis(50));
            self.look_after();
            let due = planned.partition_point(|planned| planned.at < self.begun.elapsed());
            // One action a turn, so that what is due is seen in between.
            if let Some(at) = (0..due).find(|at| self.act(planned[*at].action)) {
                planned.remove(at);
            }
        }
        for left in planned {
            self.say(&format!("{:?} had no chance", left.action));
        }
    }

    /// Does what is due, and sees that everybody lives who should.
    fn look_after(&mut self) {
        let now = Instant::now();
        for (_, what) in self.later.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            self.do_later(what);
        }
        for number in 0..self.slots.len() {
            let State::Running(worker) = &mut self.slots[number].state else {
                continue;
            };
            let Some(status) = worker.ended() else { continue };
            let log = worker.log();
            let full = log.contains("No space left on device") && self.disk.as_ref().is_some_and(|disk| disk.was_full);
            assert!(full && number == 0, "instance {number} ended by itself with {status}:\n{log}");
            self.say(&format!("instance {number} ended with {status} since its disk is full"));
            self.count("instances that ended on a full disk");
            self.slots[number].state = State::Down;
            self.soon(1.0..2.0, Later::Start(number));
        }
    }

    fn do_later(&mut self, what: Later) {
        match what {
            Later::Start(number) => self.start(number),
            Later::Thaw(number) => {
                let slot = &mut self.slots[number];
                if let State::Frozen(worker) = std::mem::replace(&mut slot.state, State::Off) {
                    worker.signal(Signal::SIGCONT);
                    slot.state = State::Running(worker);
                    self.say(&format!("instance {number} wakes up"));
                }
            }
            Later::StartBroker(node) => {
                self.kafka.restart_soon(node);
                self.broker_started = Some(Instant::now());
                self.say(&format!("broker {node} starts"));
            }
            Later::Heal(node) => {
                self.kafka.proxies[node].set(Fault::None);
                self.kafka.proxies[node].cut();
                self.count("connections cut");
                self.say(&format!("connections to broker {node} are right again"));
            }
            Later::MakeRoom => {
                if let Some(disk) = &self.disk {
                    disk.make_room();
                    self.say("there is room on the disk again");
                }
            }
        }
    }

    fn start(&mut self, number: usize) {
        // Some keep copies of the others' tasks.
        let directory = &self.slots[number].directory;
        let worker = if number % 2 == 1 {
            self.run.standby_worker(directory)
        } else {
            self.run.worker(directory)
        };
        self.slots[number].state = State::Running(worker);
    }

    fn running(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|number| matches!(self.slots[*number].state, State::Running(_)))
            .collect()
    }

    /// One of those that run.
    fn pick(&mut self) -> Option<usize> {
        let running = self.running();
        (!running.is_empty()).then(|| running[self.random.random_range(0..running.len())])
    }

    /// Takes an instance out of its slot, which is down then.
    fn take(&mut self, number: usize) -> Worker {
        match std::mem::replace(&mut self.slots[number].state, State::Down) {
            State::Running(worker) | State::Frozen(worker) => worker,
            State::Off | State::Down => unreachable!("instance {number} does not run"),
        }
    }

    /// False: it cannot be done now.
    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Kill => self.pick().is_some_and(|number| {
                self.kill(number);
                true
            }),
            Action::Zombie => self.pick().is_some_and(|number| {
                self.monitor.disturb();
                let worker = self.take(number);
                worker.signal(Signal::SIGSTOP);
                self.slots[number].state = State::Frozen(worker);
                self.soon(FROZEN, Later::Thaw(number));
                self.say(&format!("instance {number} is frozen"));
                self.count("zombies: frozen for 12 s to 25 s");
                true
            }),
            Action::Stop => self.pick().is_some_and(|number| {
                self.stop(number);
                self.soon(0.0..3.0, Later::Start(number));
                true
            }),
            Action::Scale => {
                self.scale();
                true
            }
            Action::KillBroker => {
                let back = self.broker_started.is_none_or(|started| started.elapsed() > BACK);
                let whole = back && self.monitor.whole_for() > WHOLE && !self.later.iter().any(|(_, what)| matches!(what, Later::StartBroker(_)));
                if whole {
                    self.monitor.disturb();
                    let node = self.random.random_range(0..BROKERS);
                    self.kafka.kill(node);
                    self.soon(1.0..10.0, Later::StartBroker(node));
                    self.say(&format!("broker {node} is killed"));
                    self.count("SIGKILLs of brokers");
                }
                whole
            }
            Action::Proxy => {
                self.monitor.disturb();
                let node = self.random.random_range(0..BROKERS);
                let proxy = &self.kafka.proxies[node];
                let what = match self.random.random_range(0..3) {
                    0 => {
                        proxy.cut();
                        "connections cut"
                    }
                    1 => {
                        proxy.set(Fault::Swallow);
                        "replies swallowed"
                    }
                    _ => {
                        proxy.set(Fault::Delay(Duration::from_millis(self.random.random_range(20..500))));
                        "replies delayed"
                    }
                };
                self.soon(1.0..15.0, Later::Heal(node));
                self.say(&format!("broker {node}: {what}"));
                self.count(what);
                true
            }
            Action::FullDisk => {
                let Some(disk) = &mut self.disk else { return true };
                if disk.filler().exists() {
                    return false;
                }
                self.monitor.disturb();
                disk.fill();
                self.soon(5.0..15.0, Later::MakeRoom);
                self.say("the disk of instance 0 is full");
                self.count("full disks");
                true
            }
        }
    }

    fn kill(&mut self, number: usize) {
        let mut worker = self.take(number);
        let partitions = worker.partitions_of(&self.run.topic);
        self.monitor.disturb();
        let disturbed = self.monitor.whole_for() < WHOLE || !self.later.is_empty();
        worker.end();
        self.ended(number, &worker);
        self.monitor.killed(&partitions, disturbed);
        self.count("SIGKILLs of instances");
        let what = self.leave(number);
        self.say(&format!("instance {number} is killed, with {} partitions; {what}", partitions.len()));
        self.soon(0.0..5.0, Later::Start(number));
    }

    fn stop(&mut self, number: usize) {
        self.monitor.disturb();
        self.say(&format!("instance {number} is told to stop"));
        let mut worker = self.take(number);
        worker.signal(Signal::SIGTERM);
        let status = worker.wait(STOP);
        self.ended(number, &worker);
        // One that has only just been started dies of the signal.
        assert!(
            status == Some(0) || worker.log().is_empty(),
            "instance {number} ended with {status:?}:\n{}",
            worker.log()
        );
        self.compare(number);
        self.count("SIGTERMs of instances");
    }

    fn compare(&mut self, number: usize) {
        if !self.slots[number].damaged {
            for (store, changelog) in &self.changelogs {
                self.stores += changelog.compare(store, &self.slots[number].directory);
            }
        }
    }

    /// Looks at what a killed instance left behind, and does something to it.
    fn leave(&mut self, number: usize) -> &'static str {
        let directory = self.slots[number].directory.clone();
        if !directory.exists() {
            return "it had not made its directory again yet";
        }
        self.compare(number);
        let what = match self.random.random_range(0..100) {
            0..12 => {
                fs::remove_dir_all(&directory).expect("removed");
                self.slots[number].damaged = false;
                "its directory is lost"
            }
            12..20 if damage(&directory, &mut self.random, truncate) => {
                self.slots[number].damaged = true;
                "a file of its store is cut in half"
            }
            20..28 if damage(&directory, &mut self.random, |file| fs::remove_file(file).expect("removed")) => {
                self.slots[number].damaged = true;
                "a file of its store is lost"
            }
            28..40 if !self.slots[number].damaged => match self.slots[number].backup.take() {
                Some(backup) => {
                    replace(&backup, &directory);
                    "its directory is an old copy"
                }
                None => {
                    let backup = self.run.path(&format!("backup-{number}"));
                    replace(&directory, &backup);
                    self.slots[number].backup = Some(backup);
                    return "its directory is copied";
                }
            },
            40..48 if !self.slots[number].damaged => {
                let off = (1..self.slots.len()).find(|other| matches!(self.slots[*other].state, State::Off));
                let Some(twin) = off else { return "its directory stays" };
                replace(&directory, &self.slots[twin].directory);
                self.slots[twin].damaged = false;
                self.start(twin);
                "a second one starts on a copy of its directory"
            }
            _ => return "its directory stays",
        };
        self.count("directories lost, damaged, old or copied");
        what
    }

    fn scale(&mut self) {
        self.monitor.disturb();
        let target = self.random.random_range(1..=INSTANCES_MAX);
        self.say(&format!("scaling to {target} instances"));
        self.count("scalings");
        let active = |slot: &Slot| !matches!(slot.state, State::Off);
        while self.slots.iter().filter(|slot| active(slot)).count() < target {
            let off = self.slots.iter().position(|slot| !active(slot)).expect("fewer than all");
            self.start(off);
        }
        while self.slots.iter().filter(|slot| active(slot)).count() > target {
            let Some(number) = self.pick() else { return };
            self.stop(number);
            self.slots[number].state = State::Off;
        }
    }

    /// Everything is repaired; the rest is processed; everybody stops.
    fn end_in_peace(&mut self) {
        self.say("peace");
        for (_, what) in std::mem::take(&mut self.later) {
            self.do_later(what);
        }
        if self.running().is_empty() {
            self.start(0);
        }
        let deadline = Instant::now() + PEACE;
        while positions(&self.run.bootstrap, &self.run.application, &self.run.topic)
            .values()
            .any(|(committed, end)| *committed != Some(*end))
            || !self.run.is_merged()
        {
            self.look_after();
            let logs = || -> String {
                let workers = self.slots.iter().filter_map(|slot| match &slot.state {
                    State::Running(worker) => Some(worker.log()),
                    _ => None,
                });
                workers.collect::<Vec<_>>().join("\n\n")
            };
            assert!(Instant::now() < deadline, "not through after {PEACE:?} of peace:\n{}", logs());
            std::thread::sleep(Duration::from_millis(200));
        }
        self.say("everything is processed");
        for number in self.running() {
            self.stop(number);
        }
    }
}

/// Sends the rows again and again at a steady rate, and gives their number.
fn stream(run: &Run, rows: &Path, rate: u64, length: Duration, over: &AtomicBool) -> usize {
    let text = fs::read(rows).expect("rows");
    let mut producer = leeway()
        .args(["produce", "-", "--topic", &run.topic, "--bootstrap-servers", &run.bootstrap])
        .args(["--rate", &rate.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("leeway starts");
    let mut pipe = producer.stdin.take().expect("a pipe");
    let begun = Instant::now();
    let mut sent = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n').cycle() {
        if begun.elapsed() >= length || over.load(Ordering::Relaxed) {
            break;
        }
        pipe.write_all(line).expect("written");
        sent += 1;
    }
    drop(pipe);
    let status = producer.wait().expect("a status");
    assert!(status.success(), "leeway produce ended with {status}");
    sent
}

/// Everything that was sent is there, and so is everything that it implies, once. How many events.
fn judge(run: &Run, sent: usize) -> u64 {
    let audited = output(&mut run.audit());
    let report: Value = serde_json::from_slice(&audited.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&audited.stderr)));
    assert_eq!(audited.status.code(), Some(0), "{report}");
    assert_eq!(report["records"].as_u64(), Some(sent as u64), "{report}");
    // One row in a hundred is bad.
    let mut origins: Vec<_> = read_committed_where(&run.bootstrap, &run.dead_letters, |_| true)
        .iter()
        .map(|letter: &OwnedRecord| origin(letter))
        .collect();
    let letters = origins.len();
    origins.sort_unstable();
    origins.dedup();
    assert_eq!(letters, origins.len(), "a dead letter is there twice");
    assert_eq!(letters, (0..sent).filter(|number| number % 100 == 37).count(), "dead letters");
    let verified = run.verify_until(ORACLE_RECORDS);
    println!("by the oracle: {verified:?}");
    report["found_events"].as_u64().expect("a number")
}

fn tell(what: &str, recoveries: &[Recovery], which: impl Fn(&Recovery) -> bool) {
    let mut times: Vec<_> = recoveries
        .iter()
        .filter(|recovery| which(recovery))
        .map(|recovery| recovery.took)
        .collect();
    times.sort();
    let Some(worst) = times.last() else { return };
    println!(
        "{what}: {} times, median {:.1} s, worst {:.1} s, of which {} s are the session time-out",
        times.len(),
        times[times.len() / 2].as_secs_f64(),
        worst.as_secs_f64(),
        SESSION_TIMEOUT.as_secs()
    );
}
