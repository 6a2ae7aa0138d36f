//! The main promise, on a real Kafka and with real processes: what stands in the topics afterwards is what the oracle computes, whatever died.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use leeway_topology::state::KeyKind;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::Value;

use crate::cluster::bootstrap;
use crate::kafka::{Handmade, OwnedRecord, create_topic, positions, produce, read_committed, unique, wait_until_consumed};
use crate::leeway::{Worker, leeway, output, succeed};
use crate::verify::{Expectation, TIME_FIELD, Verified, WindowKind, verify};

pub(crate) const PARTITIONS: i32 = 6;
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// Nine ways to be no JSON object.
fn bad(kind: usize, random: &mut StdRng) -> Vec<u8> {
    let number: f64 = random.random();
    match kind % 9 {
        0 => Vec::new(),
        1 => format!("{{\"a\": {number}, \"b\": ").into_bytes(),
        2 => vec![b'{', b'"', 0xFF, 0xFE, b'"', b':', b'1', b'}'],
        3 => format!("[{number}]").into_bytes(),
        4 => number.to_string().into_bytes(),
        5 => format!("{{\"a\": NaN, \"b\": {number}}}").into_bytes(),
        6 => format!("{{\"skipped\": \"\\ud800\", \"a\": {number}}}").into_bytes(),
        7 => format!("{{\"a\": {number}}} and more").into_bytes(),
        _ => format!("{{\"deep\": {}{}}}", "[".repeat(127), "]".repeat(127)).into_bytes(),
    }
}

/// `odd`: one row in fifty lacks a field, or has a text for a number.
fn row(random: &mut StdRng, shift: f64, odd: bool, line: &mut String) {
    line.clear();
    let mut normal = || (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
    let (a, b) = (normal() + shift, normal());
    let plan = ["basic", "pro", "free", "trial"][random.random_range(0..if shift > 0.0 { 4 } else { 3 })];
    let (doors, flag) = (random.random_range(2..5), random.random::<f64>() < 0.3);
    match random.random_range(0..50) {
        0 if odd => write!(line, "{{\"b\": null, \"plan\": \"{plan}\", \"a\": \"{a}\", \"flag\": {flag}}}"),
        _ => write!(
            line,
            "{{\"a\": {a:.6}, \"b\": {b:.6}, \"plan\": \"{plan}\", \"doors\": {doors}, \"flag\": {flag}, \"extra\": {{\"x\": [1, 2]}}}}"
        ),
    }
    .expect("a string");
}

/// One application on a topic of its own.
pub(crate) struct Run {
    pub(crate) bootstrap: String,
    /// Where its workers look for Kafka, if elsewhere.
    pub(crate) workers_bootstrap: Option<String>,
    pub(crate) membership: Membership,
    pub(crate) session_timeout_ms: u32,
    /// Of each worker: as many on any machine.
    pub(crate) num_stream_threads: u32,
    pub(crate) window: WindowKind,
    directory: tempfile::TempDir,
    pub(crate) application: String,
    pub(crate) topic: String,
    pub(crate) events: String,
    pub(crate) dead_letters: String,
    reference: Value,
}

/// How instances are members of their group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Membership {
    /// As by default.
    Classic,
    /// Each directory is a member that keeps its partitions when it comes back in time.
    Static,
    /// KIP-848: the broker assigns, and has the time-outs, which `Cluster` sets.
    Consumer,
}

impl Membership {
    fn properties(self, instance: &str, session_timeout_ms: u32) -> String {
        let session = format!("\"session.timeout.ms\" = \"{session_timeout_ms}\"\n\"heartbeat.interval.ms\" = \"1000\"\n");
        match self {
            Self::Classic => session,
            Self::Static => format!("{session}\"group.instance.id\" = \"{instance}\"\n"),
            Self::Consumer => "\"group.protocol\" = \"consumer\"\n".to_owned(),
        }
    }
}

impl Run {
    /// A topic, and a reference of rows like those that will come.
    pub(crate) fn new(name: &str) -> Self {
        Self::on(bootstrap(), name)
    }

    /// The same on another Kafka.
    pub(crate) fn on(bootstrap: &str, name: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (application, topic, events) = (unique(name), unique(&format!("{name}-data")), unique(&format!("{name}-events")));
        let (train, reference) = (directory.path().join("train.jsonl"), directory.path().join("reference.json"));
        let (mut random, mut text, mut line) = (StdRng::seed_from_u64(1), String::new(), String::new());
        for _ in 0..5000 {
            row(&mut random, 0.0, false, &mut line);
            text.push_str(&line);
            text.push('\n');
        }
        std::fs::write(&train, text).expect("rows are written");
        succeed(
            leeway()
                .args([
                    "reference",
                    "build",
                    "--feature",
                    "flag=categorical",
                    "--feature",
                    "a=quantile:10",
                    "--input",
                ])
                .arg(&train)
                .arg("--output")
                .arg(&reference),
        );
        let reference = serde_json::from_slice(&std::fs::read(&reference).expect("a reference")).expect("JSON");
        create_topic(bootstrap, &topic, PARTITIONS, &[]);
        let dead_letters = format!("{topic}-dlq");
        Self {
            bootstrap: bootstrap.to_owned(),
            workers_bootstrap: None,
            membership: Membership::Classic,
            session_timeout_ms: 6000,
            num_stream_threads: 2,
            window: WindowKind::Count { size: 1000, every: 100 },
            directory,
            application,
            topic,
            events,
            dead_letters,
            reference,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn worker(&self, state: &Path) -> Worker {
        self.worker_of(&self.application, &self.events, state, false)
    }

    /// One that keeps copies of the others' tasks.
    pub(crate) fn standby_worker(&self, state: &Path) -> Worker {
        self.worker_of(&self.application, &self.events, state, true)
    }

    fn worker_of(&self, application: &str, events: &str, state: &Path, standby: bool) -> Worker {
        let reference = self.path("reference.json");
        let arguments = [
            "--application-id",
            application,
            "--topic",
            &self.topic,
            "--events-topic",
            events,
            "--reference",
            reference.to_str().expect("UTF-8"),
        ];
        let name = state.file_name().expect("a name").to_str().expect("UTF-8");
        let properties = self.path(&format!("{name}.toml"));
        let text = format!(
            "num_stream_threads = {}\nstandby = {standby}\n[[monitor]]\n{}[kafka.properties]\n{}",
            self.num_stream_threads,
            self.window_settings(),
            self.membership.properties(name, self.session_timeout_ms)
        );
        std::fs::write(&properties, text).expect("written");
        let mut all = vec!["--config", properties.to_str().expect("UTF-8")];
        all.extend(arguments);
        Worker::start(self.workers_bootstrap.as_ref().unwrap_or(&self.bootstrap), state, &all)
    }

    /// Rows with one bad in a hundred, drifting from the middle on, as a file of lines.
    pub(crate) fn rows(&self, name: &str, rows: usize, seed: u64) -> PathBuf {
        let (mut random, mut text, mut line) = (StdRng::seed_from_u64(seed), Vec::new(), String::new());
        let mut kind = 0;
        for number in 0..rows {
            if number % 100 == 37 {
                text.extend(bad(kind, &mut random));
                kind += 1;
            } else {
                row(&mut random, if number > rows / 2 { 0.7 } else { 0.0 }, true, &mut line);
                text.extend(line.as_bytes());
            }
            text.push(b'\n');
        }
        let path = self.path(name);
        std::fs::write(&path, text).expect("rows are written");
        path
    }

    pub(crate) fn produce(&self, file: &Path, rate: Option<u32>) {
        let mut command = leeway();
        command
            .arg("produce")
            .arg(file)
            .args(["--topic", &self.topic, "--bootstrap-servers", &self.bootstrap]);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        eprint!("{}", succeed(&mut command));
    }

    /// For the table of the monitor.
    fn window_settings(&self) -> String {
        match self.window {
            WindowKind::Count { size, every } => format!("window = {{ size = {size}, every = {every} }}\n"),
            WindowKind::Time { size_ms, every_ms, grace_ms } => {
                format!(
                    "window = {{ kind = \"time\", size = \"{size_ms}ms\", every = \"{every_ms}ms\", grace = \"{grace_ms}ms\", timestamp_field = \"{TIME_FIELD}\" }}\n"
                )
            }
        }
    }

    /// `leeway audit` of what this run's workers wrote.
    pub(crate) fn audit(&self) -> Command {
        let config = self.path("audit.toml");
        std::fs::write(&config, format!("[[monitor]]\n{}", self.window_settings())).expect("written");
        let mut command = leeway();
        command
            .arg("audit")
            .arg("--config")
            .arg(config)
            .args([
                "--format",
                "json",
                "--bootstrap-servers",
                &self.bootstrap,
                "--application-id",
                &self.application,
            ])
            .args(["--topic", &self.topic, "--events-topic", &self.events]);
        command
    }

    pub(crate) fn verify(&self) -> Verified {
        self.verify_until(i64::MAX)
    }

    /// What comes of each partition's records before this offset.
    pub(crate) fn verify_until(&self, offset: i64) -> Verified {
        let expectation = Expectation {
            topic: &self.topic,
            events_topic: &self.events,
            dead_letter_topic: &self.dead_letters,
            reference: &self.reference,
            window: self.window,
            until: offset,
        };
        verify(&self.bootstrap, &expectation)
    }
}

pub(crate) fn wait_for(mut condition: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn scale() -> usize {
    std::env::var("LEEWAY_TEST_RECORDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(600_000)
}

#[test]
fn every_event_that_the_input_implies_is_there_once() {
    let run = Run::new("once");
    let file = run.rows("rows.jsonl", scale(), 7);
    // Beside the file's bad lines: a timestamp of the far future, one without, one too large for the dead letter topic, and a tombstone.
    create_topic(bootstrap(), &run.dead_letters, 2, &[("max.message.bytes", "20000")]);
    let large = vec![b'x'; 200_000];
    let handmade = |value, timestamp| Handmade {
        partition: 3,
        key: Some(b"k"),
        value,
        timestamp,
    };
    produce(
        bootstrap(),
        &run.topic,
        &[
            handmade(Some(b"future"), 4_102_444_800_000),
            handmade(Some(b"stampless"), -1),
            handmade(Some(&large), 0),
            handmade(None, 0),
        ],
    );
    let mut worker = run.worker(&run.path("state"));
    run.produce(&file, None);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut worker]);
    worker.stop();
    let verified = run.verify();
    eprintln!("{verified:?}");
    assert_eq!(verified.records, scale() + 3);
    assert_eq!(verified.dead_letters, scale() / 100 + 3);

    let right = output(&mut run.audit());
    let report: Value = serde_json::from_slice(&right.stdout).expect("JSON");
    assert_eq!(right.status.code(), Some(0), "{report}");
    assert_eq!(
        (&report["right"], &report["found_events"]),
        (&Value::Bool(true), &Value::from(verified.events)),
        "{report}"
    );
    // The last event of some feature once more.
    let events = read_committed(bootstrap(), &run.events);
    let last = events.last().expect("events");
    let doubled = Handmade {
        partition: last.partition,
        key: last.key.as_deref(),
        value: last.value.as_deref(),
        timestamp: 0,
    };
    produce(bootstrap(), &run.events, &[doubled]);
    let wrong = output(&mut run.audit());
    let report: Value = serde_json::from_slice(&wrong.stdout).expect("JSON");
    assert_eq!(wrong.status.code(), Some(3), "{report}");
    assert_eq!(
        (&report["wrong_sequences"], &report["differences"][0]["kind"]),
        (&Value::from(1), &Value::from("doubled")),
        "{report}"
    );
}

#[test]
fn nothing_is_lost_or_doubled_when_instances_come_go_and_die() {
    let run = Run::new("churn");
    let rows = scale();
    let file = run.rows("rows.jsonl", rows, 8);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| run.produce(&file, Some((rows / 60).max(1) as u32)));
        let first = run.worker(&run.path("one"));
        let mut waited = run.worker(&run.path("two"));
        waited.wait_for("restored store", 1, PATIENCE);
        let second = waited;
        let mut third = run.worker(&run.path("three"));
        third.wait_for("restored store", 1, PATIENCE);
        first.stop();
        // Lags are published once a second.
        wait_for(|| !second.partitions().is_empty(), "partitions of the second");
        let orphans = second.partitions();
        second.kill();
        let killed = Instant::now();
        let of_orphans = || {
            let partition = |record: &OwnedRecord| {
                let event: Value = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
                event["partition"].as_i64().expect("a partition")
            };
            let events = read_committed(bootstrap(), &run.events);
            events.iter().filter(|record| orphans.contains(&partition(record))).count()
        };
        let events = of_orphans();
        let mut second = run.worker(&run.path("two"));
        wait_for(|| of_orphans() > events, "an event of the killed worker's partitions");
        eprintln!(
            "seconds from kill to the next committed event of the killed worker's {} partitions, session time-out 6 s: {:.1}",
            orphans.len(),
            killed.elapsed().as_secs_f64()
        );
        second.wait_for("restored store", 1, PATIENCE);
        third.kill();
        let mut empty = run.worker(&run.path("empty"));
        sending.join().expect("sent");
        wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut second, &mut empty]);
        for (name, worker) in [("old directory", &second), ("empty directory", &empty)] {
            eprintln!("changelog records replayed, {name}: {:?}", worker.replayed());
        }
        second.stop();
        empty.stop();
    });
    let verified = run.verify();
    eprintln!("{verified:?}");
    assert_eq!(verified.records, rows);
    assert!(
        positions(bootstrap(), &run.application, &run.topic)
            .values()
            .all(|(committed, end)| *committed == Some(*end))
    );
}

#[test]
fn old_directory_replays_only_what_came_after_its_last_commit() {
    let run = Run::new("replay");
    let file = run.rows("rows.jsonl", 60_000, 10);
    let mut worker = run.worker(&run.path("state"));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| run.produce(&file, Some(10_000)));
        // In the middle: every partition has committed some, and more is to come.
        let far = |(committed, _): &(Option<i64>, i64)| committed.is_some_and(|offset| offset > 2000);
        wait_for(|| positions(bootstrap(), &run.application, &run.topic).values().all(far), "commits");
        worker.expect_running();
        worker.kill();
        sending.join().expect("sent");
    });
    let changelog = read_committed(bootstrap(), &format!("{}-windows-{}-changelog", run.application, run.topic));
    // An epoch ends with its progress record. The last one may be committed in Kafka and not in the store.
    let last_epoch = |partition: i32| {
        let is_progress = |record: &OwnedRecord| record.key.as_deref().and_then(<[u8]>::first) == Some(&(KeyKind::Progress as u8));
        let records: Vec<_> = changelog.iter().filter(|record| record.partition == partition).collect();
        let (_, before) = records.split_last().expect("an epoch");
        1 + before.iter().rev().take_while(|record| !is_progress(record)).count() as u64
    };
    let mut old = run.worker(&run.path("state"));
    // On a slow machine the first worker may have consumed everything, so the end says nothing about the restore.
    old.wait_for("restored store", PARTITIONS as usize, PATIENCE);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut old]);
    let replayed = old.replayed();
    assert_eq!(replayed.len(), PARTITIONS as usize, "{replayed:?}");
    for (task, records) in &replayed {
        let partition = task.rsplit('_').next().and_then(|number| number.parse().ok()).expect("a partition");
        assert!(
            *records == 0 || *records == last_epoch(partition),
            "{task} replayed {records} of a last epoch of {}",
            last_epoch(partition)
        );
    }
    old.stop();
    let mut empty = run.worker(&run.path("empty"));
    empty.wait_for("restored store", PARTITIONS as usize, PATIENCE);
    eprintln!(
        "changelog records replayed, old directory: {replayed:?}; empty directory: {:?}",
        empty.replayed()
    );
    empty.stop();
    assert_eq!(run.verify().records, 60_000);
}

#[test]
fn instance_with_copies_takes_over_without_reading_the_changelog() {
    let run = Run::new("standby");
    let mut first = run.standby_worker(&run.path("one"));
    first.wait_for("restored store", PARTITIONS as usize, PATIENCE);
    let mut second = run.standby_worker(&run.path("two"));
    second.wait_for("restored store", 1, PATIENCE);
    let file = run.rows("rows.jsonl", 60_000, 19);
    run.produce(&file, Some(20_000));
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    let all_are_whole = |worker: &Worker| {
        let lags = worker.metric("leeway_standby_lag");
        let copies = PARTITIONS as usize - worker.partitions().len();
        copies > 0 && lags.len() == copies && lags.iter().all(|lag| *lag == 0.0)
    };
    wait_for(|| all_are_whole(&second), "copies without lag");
    let own = second.replayed().len();
    first.kill();
    let rest = run.rows("rest.jsonl", 60_000, 20);
    run.produce(&rest, None);
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut second]);
    let taken_over = second.replayed().split_off(own);
    eprintln!("changelog records replayed with copies: {taken_over:?}");
    assert!(
        !taken_over.is_empty() && taken_over.iter().all(|(_, records)| *records == 0),
        "{taken_over:?}"
    );
    second.stop();
    assert_eq!(run.verify().records, 120_000);
}

/// Records of one partition each: in order of time but for a jitter beyond the grace, and gaps that are longer than a window. The field says the time in
/// one way or another, or does not; then the record's own timestamp does, or nothing.
fn timed_records(rows: &Path) -> Vec<(i32, Vec<u8>, i64)> {
    let mut random = StdRng::seed_from_u64(41);
    let mut now = [1_700_000_000_000_i64; PARTITIONS as usize];
    let text = std::fs::read(rows).expect("rows");
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let partition = random.random_range(0..PARTITIONS);
            let time = &mut now[partition as usize];
            *time += if random.random_range(0..2000) == 0 {
                60_000
            } else {
                random.random_range(0..12)
            };
            let time = *time - random.random_range(0..100_i64).pow(2);
            let (ms, seconds) = (time % 1000, time / 1000 % 3600);
            // 2023-11-14T22:13:20Z is 1,700,000,000 s; all times here are within the next hours.
            let hour = (time / 1000 / 3600) % 24;
            let day = 14 + (time / 1000 / 86400) - 19675;
            let text = format!("2023-11-{day:02}T{hour:02}:{:02}:{:02}.{ms:03}Z", seconds / 60, seconds % 60);
            let (field, own) = match random.random_range(0..20) {
                0 => ("null".to_owned(), time),
                1 => ("\"noon\"".to_owned(), time),
                2 => ("[]".to_owned(), -1),
                3..10 => (format!("\"{text}\""), 1),
                _ => (time.to_string(), 1),
            };
            let mut line = line.to_vec();
            if line.starts_with(b"{\"a\"") && line.ends_with(b"}") {
                line.truncate(line.len() - 1);
                line.extend(format!(", \"{TIME_FIELD}\": {field}}}").into_bytes());
            }
            (partition, line, own)
        })
        .collect()
}

#[test]
fn time_windows_are_those_of_the_model_whatever_dies() {
    let mut run = Run::new("time");
    run.window = WindowKind::Time {
        size_ms: 6000,
        every_ms: 2000,
        grace_ms: 3000,
    };
    let records = timed_records(&run.rows("rows.jsonl", 120_000, 40));
    let mut first = run.worker(&run.path("one"));
    first.wait_for("restored store", PARTITIONS as usize, PATIENCE);
    let mut second = run.worker(&run.path("two"));
    for (number, part) in records.chunks(records.len() / 4 + 1).enumerate() {
        let handmade: Vec<Handmade<'_>> = part
            .iter()
            .map(|(partition, value, timestamp)| Handmade {
                partition: *partition,
                key: None,
                value: Some(value),
                timestamp: *timestamp,
            })
            .collect();
        produce(bootstrap(), &run.topic, &handmade);
        // Killed with work under way; one comes back on its directory, the other on none.
        match number {
            0 => {
                first.end();
                first = run.worker(&run.path("one"));
            }
            1 => {
                second.end();
                second = run.worker(&run.path("empty"));
            }
            _ => {}
        }
    }
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
    first.stop();
    second.stop();
    let verified = run.verify();
    eprintln!("{verified:?}");
    assert!(verified.events > 1000, "{verified:?}");
    let audit = output(&mut run.audit());
    let report: Value = serde_json::from_slice(&audit.stdout).expect("JSON");
    assert_eq!(
        (audit.status.code(), &report["found_events"]),
        (Some(0), &Value::from(verified.events)),
        "{report}"
    );
}

#[test]
fn the_same_input_monitored_twice_gives_the_same_bytes() {
    let run = Run::new("twice");
    let file = run.rows("rows.jsonl", 60_000, 9);
    run.produce(&file, None);
    let by_partition = |events: &str| {
        let mut partitions = std::collections::BTreeMap::new();
        for record in read_committed(bootstrap(), events) {
            let value = record.value.expect("a value");
            let event: Value = serde_json::from_slice(&value).expect("JSON");
            partitions
                .entry((event["partition"].as_i64(), event["feature"].to_string()))
                .or_insert_with(Vec::new)
                .push(value);
        }
        partitions
    };
    // The event id names the application, so the second run is of the same one, begun again from nothing.
    let other = unique("twice-events-again");
    let mut first = run.worker(&run.path("one"));
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut first]);
    first.stop();
    let again = unique("twice-again");
    let mut second = run.worker_of(&again, &other, &run.path("two"), false);
    wait_until_consumed(bootstrap(), &again, &run.topic, PATIENCE, &mut [&mut second]);
    second.stop();
    let renamed = |mut events: std::collections::BTreeMap<_, Vec<Vec<u8>>>| {
        for value in events.values_mut().flatten() {
            *value = String::from_utf8(value.clone())
                .expect("UTF-8")
                .replace(&again, &run.application)
                .into_bytes();
        }
        events
    };
    let (one, two) = (by_partition(&run.events), renamed(by_partition(&other)));
    assert!(!one.is_empty());
    assert_eq!(one, two);
}
