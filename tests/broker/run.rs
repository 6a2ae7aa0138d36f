//! One application on a topic of its own: its rows, its workers, and the judgement of what they wrote.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::Value;

use crate::cluster::bootstrap;
use crate::kafka::{create_topic, positions, read_committed, unique};
use crate::leeway::{Worker, leeway, output, succeed};
use crate::verify::{Expectation, Quality, Segments, TIME_FIELD, Verified, WindowKind, specification, verify, verify_with_changes};

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

/// Builds a reference of clean rows, and gives its document.
fn build_reference(directory: &Path, name: &str, seed: u64, shift: f64) -> Value {
    let (train, reference) = (directory.join(format!("{name}.jsonl")), directory.join(name));
    let (mut random, mut text, mut line) = (StdRng::seed_from_u64(seed), String::new(), String::new());
    for _ in 0..5000 {
        row(&mut random, shift, false, &mut line);
        text.push_str(&line);
        text.push('\n');
    }
    std::fs::write(&train, text).expect("rows are written");
    let columns = ["--feature", "flag=categorical", "--feature", "a=quantile:10"];
    succeed(
        leeway()
            .args(["reference", "build", "--input"])
            .arg(&train)
            .args(columns)
            .arg("--output")
            .arg(&reference),
    );
    serde_json::from_slice(&std::fs::read(&reference).expect("a reference")).expect("JSON")
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
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) segments: Option<Segments>,
    pub(crate) quality: Option<Quality>,
    /// More of librdkafka's properties, as lines of TOML.
    pub(crate) properties: &'static str,
    directory: tempfile::TempDir,
    pub(crate) application: String,
    pub(crate) topic: String,
    pub(crate) events: String,
    pub(crate) dead_letters: String,
    /// What its workers are told of their reference: by default the file.
    pub(crate) reference_setting: String,
    pub(crate) reference: Value,
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
        let reference = build_reference(directory.path(), "reference.json", 1, 0.0);
        create_topic(bootstrap, &topic, PARTITIONS, &[]);
        let dead_letters = format!("{topic}-dlq");
        let reference_setting = directory.path().join("reference.json").to_str().expect("UTF-8").to_owned();
        Self {
            bootstrap: bootstrap.to_owned(),
            workers_bootstrap: None,
            membership: Membership::Classic,
            session_timeout_ms: 6000,
            num_stream_threads: 2,
            window: WindowKind::Count { size: 1000, every: 100 },
            scopes: vec!["partition"],
            segments: None,
            quality: None,
            properties: "",
            directory,
            application,
            topic,
            events,
            dead_letters,
            reference_setting,
            reference,
        }
    }

    /// The document of a reference like what comes in the second half of [`Self::rows`]; its file is in this run's directory.
    pub(crate) fn later_reference(&self, name: &str) -> Value {
        build_reference(self.directory.path(), name, 2, 0.7)
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

    pub(crate) fn worker_of(&self, application: &str, events: &str, state: &Path, standby: bool) -> Worker {
        let arguments = [
            "--application-id",
            application,
            "--topic",
            &self.topic,
            "--events-topic",
            events,
            "--reference",
            &self.reference_setting,
        ];
        let name = state.file_name().expect("a name").to_str().expect("UTF-8");
        let properties = self.path(&format!("{name}.toml"));
        let text = format!(
            "num_stream_threads = {}\nstandby = {standby}\nstate_cache_max_bytes = 1048576\n[[monitor]]\n{}[kafka.properties]\n{}{}",
            self.num_stream_threads,
            self.window_settings(),
            self.membership.properties(name, self.session_timeout_ms),
            self.properties
        );
        std::fs::write(&properties, text).expect("written");
        let mut all = vec!["--config", properties.to_str().expect("UTF-8")];
        all.extend(arguments);
        Worker::start(self.workers_bootstrap.as_ref().unwrap_or(&self.bootstrap), state, &all)
    }

    /// Two workers take the input, sent in so many parts. With work under way, after the first part one of them is killed and comes back on its
    /// directory, after the second the other, on none.
    pub(crate) fn work(&self, parts: usize, mut send: impl FnMut(usize)) -> [Worker; 2] {
        let mut first = self.worker(&self.path("one"));
        first.wait_for("restored store", PARTITIONS as usize, PATIENCE);
        let mut second = self.worker(&self.path("two"));
        for part in 0..parts {
            send(part);
            match part {
                0 => {
                    first.end();
                    first = self.worker(&self.path("one"));
                }
                1 => {
                    second.end();
                    second = self.worker(&self.path("empty"));
                }
                _ => {}
            }
        }
        [first, second]
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
        let scopes = format!("scopes = {:?}\n", self.scopes);
        let window = match self.window {
            WindowKind::Count { size, every } => format!("window = {{ size = {size}, every = {every} }}\n"),
            WindowKind::Time {
                size_ms,
                every_ms,
                grace_ms,
                idle_ms,
            } => {
                let idle = if idle_ms == 0 {
                    String::new()
                } else {
                    format!(", idle_close_after = \"{idle_ms}ms\"")
                };
                format!(
                    "window = {{ kind = \"time\", size = \"{size_ms}ms\", every = \"{every_ms}ms\", grace = \"{grace_ms}ms\", timestamp_field = \"{TIME_FIELD}\"{idle} }}\n"
                )
            }
        };
        let segments = self
            .segments
            .map(|Segments { by, max, expiry_ms }| format!("segment_by = {by:?}\nmax_segments = {max}\nsegment_expiry = \"{expiry_ms}ms\"\n"));
        let quality = self.quality.as_ref().map(Quality::settings);
        scopes + &window + &segments.unwrap_or_default() + &quality.unwrap_or_default()
    }

    /// Where panes go in scope global.
    pub(crate) fn panes_topic(&self) -> String {
        format!("{}-panes-{}-repartition", self.application, self.topic)
    }

    /// Whether all panes that were shipped are merged and committed.
    pub(crate) fn is_merged(&self) -> bool {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for record in read_committed(&self.bootstrap, &self.panes_topic()) {
            ends.insert(record.partition, record.offset + 1);
        }
        let at = positions(&self.bootstrap, &self.application, &self.panes_topic());
        ends.iter()
            .all(|(partition, end)| at.get(partition).is_some_and(|(committed, _)| *committed >= Some(*end)))
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

    /// `leeway audit` finds so many events, and nothing wrong with them.
    pub(crate) fn expect_right_audit(&self, events: usize) {
        let audit = output(&mut self.audit());
        let report: Value = serde_json::from_slice(&audit.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&audit.stderr)));
        assert_eq!(
            (audit.status.code(), &report["found_events"], &report["later_events"]),
            (Some(0), &Value::from(events), &Value::from(0)),
            "{report}"
        );
    }

    pub(crate) fn verify(&self) -> Verified {
        self.verify_until(i64::MAX)
    }

    /// What comes of each partition's records before this offset.
    pub(crate) fn verify_until(&self, offset: i64) -> Verified {
        verify(&self.bootstrap, &self.expectation(&self.reference, offset))
    }

    /// The same, where references changed on the way: document by version. Gives the number of events.
    pub(crate) fn verify_with_changes(&self, references: &BTreeMap<String, Value>) -> usize {
        let of_version = |version: &str| self.expectation(&references[version], i64::MAX);
        verify_with_changes(&self.bootstrap, &self.expectation(&self.reference, i64::MAX), &of_version)
    }

    /// In the models' words.
    pub(crate) fn specification(&self) -> Value {
        specification(&self.expectation(&self.reference, i64::MAX))
    }

    fn expectation<'a>(&'a self, reference: &'a Value, until: i64) -> Expectation<'a> {
        Expectation {
            topic: &self.topic,
            events_topic: &self.events,
            dead_letter_topic: &self.dead_letters,
            reference,
            window: self.window,
            segments: self.segments,
            quality: self.quality,
            until,
        }
    }
}

pub(crate) fn wait_for(mut condition: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
