//! The dashboard on a real Kafka, beside a worker.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cluster::bootstrap;
use crate::kafka::{create_topic, unique};
use crate::leeway::{Worker, leeway, succeed};

const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when dropped.
struct Dashboard {
    child: Child,
    address: String,
}

impl Dashboard {
    fn start(arguments: &[&str]) -> Self {
        let mut child = leeway()
            .arg("dashboard")
            .args(["--bootstrap-servers", bootstrap(), "--dashboard-port", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("leeway starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let address = line.split_whitespace().last().expect("an address").to_owned();
        Self { child, address }
    }

    fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = ureq::get(format!("{}{path}", self.address)).call();
            let text = answer.and_then(|mut answer| answer.body_mut().read_to_string()).unwrap_or_default();
            let value = serde_json::from_str(&text).unwrap_or_default();
            if wanted(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{path}: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[test]
fn the_dashboard_shows_what_a_worker_finds_and_ends_when_told() {
    let (application, topic) = (unique("dashboard"), unique("dashboard-data"));
    let events = format!("{application}-events");
    create_topic(bootstrap(), &topic, 2, &[]);
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = ["--application-id", &application, "--topic", &topic, "--events-topic", &events];
    // Before there is a topic of events, or a worker.
    let mut dashboard = Dashboard::start(&arguments);
    let empty = dashboard.until("/api/v1/monitors", |found| found["stream"]["sources"][0]["problem"].is_string());
    assert_eq!(empty["monitors"][0]["features"], 0);

    let produce = |rows: &str| {
        let connect = ["--bootstrap-servers", bootstrap(), "--topic", &topic, "--rows", rows];
        succeed(
            leeway()
                .args(["produce", "--synthetic", "--shift", "1", "--drift-after", "4000"])
                .args(connect),
        );
    };
    produce("4000");
    let worker = Worker::start(
        bootstrap(),
        &directory.path().join("state"),
        &[&arguments[..], &["--reference", "first:2000"]].concat(),
    );
    let found = dashboard.until("/api/v1/monitors", |found| {
        let partitions = found["monitors"][0]["partitions"].as_array().map_or(0, Vec::len);
        let health = &found["stream"]["health"];
        let is_member = health["members"].as_array().is_some_and(|members| !members.is_empty());
        partitions == 2 && is_member && health["topics"][&topic]["partitions"][0]["committed"].is_i64()
    });
    let offsets = &found["stream"]["health"]["topics"][&topic]["partitions"][0];
    let (committed, end) = (offsets["committed"].as_i64(), offsets["end"].as_i64());
    assert_eq!(offsets["lag"].as_i64(), end.zip(committed).map(|(end, committed)| end - committed));
    // Goes on with what comes, and has the reference's bins beside it.
    let before = dashboard.until("/api/v1/monitors/default/features/feature1/window?partition=0", |found| {
        found["window"]["bins"]["label"].is_array()
    });
    produce("4000");
    let after = dashboard.until("/api/v1/monitors/default/features/feature1/window?partition=0", |found| {
        found["window"]["record_count"].as_u64() > before["window"]["record_count"].as_u64()
    });
    let contributions = after["window"]["bins"]["contribution"].as_array().expect("bins");
    let psi: f64 = contributions.iter().filter_map(Value::as_f64).sum();
    let told = after["window"]["psi"].as_f64().expect("a number");
    assert!((psi - told).abs() <= 1e-12 * told.abs().max(1.0), "{psi} is not {told}");
    worker.stop();

    kill(Pid::from_raw(dashboard.child.id() as i32), Signal::SIGTERM).expect("it is there");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = dashboard.child.try_wait().expect("a status") {
            break status;
        }
        assert!(Instant::now() < deadline, "still running");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}
