//! `leeway metrics` on a real Kafka: what it serves is what stands in the topic, however often it is killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::bootstrap;
use crate::kafka::{Handmade, create_topic, positions, produce, read_committed, unique, wait_until_consumed};
use crate::leeway::{Worker, leeway, succeed};

const PATIENCE: Duration = Duration::from_secs(60);

/// Series and their values, by name and labels as they are written.
type Series = BTreeMap<String, f64>;

/// What is made of events, as the exporter's documentation has it.
const OF_EVENTS: [&str; 9] = [
    "drift_detection_events_total{",
    "leeway_drift_status{",
    "leeway_events_read_total{",
    "leeway_last_check_timestamp_seconds{",
    "leeway_psi_null_mean{",
    "leeway_quality_events_total{",
    "leeway_quality_share{",
    "leeway_value_share{",
    "real_time_psi_score{",
];

struct Exporter {
    process: Worker,
}

impl Exporter {
    fn start(arguments: &[&str]) -> Self {
        let mut command = leeway();
        command
            .args(["metrics", "--http-port", "0", "--bootstrap-servers", bootstrap()])
            .args(arguments);
        Self {
            process: Worker::spawn(&mut command),
        }
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let log = self.process.log();
        let address = log.split("http=").nth(1)?.split_whitespace().next()?;
        let request = ureq::get(format!("http://{address}{path}")).config().http_status_as_error(false).build();
        let mut answer = request.call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    /// Asks until the answer is as wanted. Whatever is seen before everything was read has nothing of the events.
    fn until(&mut self, what: &str, wanted: impl Fn(&Series) -> bool) -> Series {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.process.expect_running();
            let ready_before = self.get("/health/ready");
            let seen = self.get("/metrics").map(|(_, text)| series(&text)).unwrap_or_default();
            let is_ready = seen.get("leeway_events_caught_up") == Some(&1.0);
            assert!(is_ready || of_events(&seen).is_empty(), "half of it is served: {seen:?}");
            if wanted(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{what}: {ready_before:?} {seen:?}\n{}", self.process.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ready(&mut self) -> Series {
        let seen = self.until("everything is read", |seen| seen.get("leeway_events_caught_up") == Some(&1.0));
        assert_eq!(self.get("/health/ready").map(|(status, _)| status), Some(200));
        seen
    }
}

fn series(text: &str) -> Series {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn of_events(seen: &Series) -> Series {
    let is_wanted = |name: &str| OF_EVENTS.iter().any(|family| name.starts_with(family));
    seen.iter()
        .filter(|(name, _)| is_wanted(name))
        .map(|(name, value)| (name.clone(), *value))
        .collect()
}

/// The labels of a window, in the order of `/metrics`.
fn window(event: &Value, kind: Option<&str>) -> String {
    let text = |field: &str| match &event[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let kind = kind.map(|kind| format!("kind=\"{kind}\",")).unwrap_or_default();
    format!(
        "{{feature=\"{}\",{kind}monitor=\"{}\",partition=\"{}\",scope=\"{}\",segment=\"{}\"}}",
        text("feature"),
        text("monitor"),
        text("partition"),
        text("scope"),
        text("segment")
    )
}

/// What the records of the topic say, by what docs/monitoring.md says of the families.
fn expected(topic: &str) -> Series {
    let mut series = Series::new();
    for scope in ["partition", "global"] {
        for status in ["no_drift", "possible_drift", "drift"] {
            series.insert(
                format!("drift_detection_events_total{{monitor=\"default\",scope=\"{scope}\",status=\"{status}\"}}"),
                0.0,
            );
        }
        for status in ["ok", "violated"] {
            series.insert(
                format!("leeway_quality_events_total{{monitor=\"default\",scope=\"{scope}\",status=\"{status}\"}}"),
                0.0,
            );
        }
    }
    for kind in ["drift", "quality", "other_application", "not_configured", "unknown", "malformed"] {
        series.insert(format!("leeway_events_read_total{{kind=\"{kind}\",topic=\"{topic}\"}}"), 0.0);
    }
    for record in read_committed(bootstrap(), topic) {
        let mut count = |name: String| *series.entry(name).or_default() += 1.0;
        let event: Value = serde_json::from_slice(record.value.as_deref().unwrap_or_default()).unwrap_or_default();
        let kind = event["kind"].as_str().unwrap_or("malformed");
        let is_known = ["drift", "quality", "malformed"].contains(&kind);
        let label = if is_known { kind } else { "unknown" };
        count(format!("leeway_events_read_total{{kind=\"{label}\",topic=\"{topic}\"}}"));
        let labels = |name: &str| {
            let text = |field: &str| event[field].as_str().unwrap_or_default();
            format!(
                "{name}{{monitor=\"{}\",scope=\"{}\",status=\"{}\"}}",
                text("monitor"),
                text("scope"),
                text("status")
            )
        };
        let number = |field: &str| event[field].as_f64();
        match kind {
            "drift" => {
                series.insert(format!("real_time_psi_score{}", window(&event, None)), number("psi").expect("psi"));
                let status = ["no_drift", "possible_drift", "drift"]
                    .iter()
                    .position(|status| event["status"] == *status);
                series.insert(format!("leeway_drift_status{}", window(&event, None)), status.expect("a status") as f64);
                if event["feature"] == "*" {
                    *series.entry(labels("drift_detection_events_total")).or_default() += 1.0;
                    let at = series
                        .entry(format!(
                            "leeway_last_check_timestamp_seconds{{monitor=\"default\",scope={}}}",
                            event["scope"]
                        ))
                        .or_default();
                    *at = at.max(record.timestamp.expect("a time") as f64 / 1000.0);
                    continue;
                }
                series.insert(
                    format!("leeway_psi_null_mean{}", window(&event, None)),
                    number("psi_null_mean").expect("a mean"),
                );
                let (records, missing) = (number("window_count").expect("a count"), number("missing_count").expect("a count"));
                let mut share = |kind: &str, part: f64, whole: f64| {
                    let share = if whole == 0.0 { 0.0 } else { part / whole };
                    series.insert(format!("leeway_value_share{}", window(&event, Some(kind))), share);
                };
                share("missing", missing, records);
                let counts = event["counts"].as_array().expect("counts");
                if let (Some(below), Some(above)) = (number("below_range_count"), number("above_range_count")) {
                    share("out_of_range", below + above, records - missing);
                }
                if ["plan", "doors"].iter().any(|name| event["feature"] == *name) {
                    share("other", counts[counts.len() - 2].as_f64().expect("a count"), records - missing);
                }
            }
            "quality" => {
                *series.entry(labels("leeway_quality_events_total")).or_default() += 1.0;
                for kind in ["missing", "other", "out_of_range"] {
                    if let (Some(share), Some(_)) = (number(&format!("{kind}_share")), number(&format!("{kind}_threshold"))) {
                        series.insert(format!("leeway_quality_share{}", window(&event, Some(kind))), share);
                    }
                }
            }
            _ => {}
        }
    }
    series
}

/// Rows in which x and plan move, and doors, a number that is one of two, becomes a third.
fn rows(moved: bool) -> Vec<Vec<u8>> {
    let row = |number: u64| {
        let x = (number * 7919 % 1000) as f64 / 1000.0 + if moved { 0.6 } else { 0.0 };
        let plan = if number.is_multiple_of(5) { "pro" } else { "basic" };
        let plan = if moved && number.is_multiple_of(3) { "odd" } else { plan };
        let doors = if moved && number.is_multiple_of(4) {
            7
        } else {
            2 + 2 * (number / 2 % 2)
        };
        let missing = if number.is_multiple_of(10) { "null".to_owned() } else { x.to_string() };
        format!("{{\"x\": {missing}, \"plan\": \"{plan}\", \"doors\": {doors}}}").into_bytes()
    };
    (0..3000).map(row).collect()
}

fn send(topic: &str, values: &[Vec<u8>], partitions: i32) {
    let records: Vec<_> = (0..partitions)
        .cycle()
        .zip(values)
        .map(|(partition, value)| Handmade {
            partition,
            key: None,
            value: Some(value),
            timestamp: 0,
        })
        .collect();
    produce(bootstrap(), topic, &records);
}

#[test]
fn metrics_of_the_events_are_those_of_the_topic_and_the_same_after_a_kill() {
    let (application, topic) = (unique("metrics"), unique("metrics-data"));
    let events = format!("{application}-events");
    create_topic(bootstrap(), &topic, 2, &[]);
    let directory = tempfile::tempdir().expect("a directory");
    let configuration = directory.path().join("leeway.toml");
    let text = format!(
        "application_id = \"{application}\"\n[[monitor]]\ntopic = \"{topic}\"\nevents_topic = \"{events}\"\nreference = {{ first = 2000 }}\n\
         scopes = [\"partition\", \"global\"]\nquality = {{ missing = 0.05, other = 0.2 }}\n"
    );
    std::fs::write(&configuration, text).expect("a file");
    let configured = ["--config", configuration.to_str().expect("UTF-8")];
    // Before there is a topic of events, or a worker.
    let mut live = Exporter::start(&configured);
    let empty = live.until("there is no topic of events", |seen| {
        seen.get(&format!("leeway_events_readable{{topic=\"{events}\"}}")) == Some(&0.0)
    });
    assert_eq!(empty.get("leeway_events_caught_up"), Some(&0.0), "{empty:?}");
    assert_eq!(live.get("/health/ready").map(|(status, _)| status), Some(503));

    send(&topic, &rows(false), 2);
    let mut worker = Worker::start(bootstrap(), &directory.path().join("state"), &configured);
    live.ready();
    send(&topic, &rows(true), 2);
    wait_until_consumed(bootstrap(), &application, &topic, PATIENCE, &mut [&mut worker]);
    let drift = "drift_detection_events_total{monitor=\"default\",scope=\"global\",status=\"drift\"}";
    live.until("drift of the whole topic, while it runs", |seen| seen.get(drift) > Some(&0.0));
    let ends = positions(bootstrap(), &application, &topic);
    live.until("the group's position, its lag and its members", |seen| {
        let member = seen.get(&format!("leeway_group_members{{group=\"{application}\"}}"));
        let is_so = |(partition, (committed, end)): (&i32, &(Option<i64>, i64))| {
            let labels = format!("{{partition=\"{partition}\",topic=\"{topic}\"}}");
            let consumed = seen.get(&format!("kafka_messages_consumed_total{labels}"));
            let lag = seen.get(&format!("kafka_consumer_lag{labels}")).copied();
            consumed == Some(&3000.0) && lag == committed.map(|committed| (end - committed) as f64)
        };
        member > Some(&0.0) && ends.iter().all(is_so)
    });
    worker.stop();
    // What is no event, and what nobody here has asked for.
    send(
        &events,
        &[
            b"{".to_vec(),
            b"\"text\"".to_vec(),
            b"{\"kind\": \"weather\"}".to_vec(),
            b"{\"kind\": 3}".to_vec(),
        ],
        1,
    );

    let wanted = expected(&events);
    let malformed = format!("leeway_events_read_total{{kind=\"malformed\",topic=\"{events}\"}}");
    assert_eq!(wanted.get(&malformed), Some(&3.0));
    let seen = live.until("all that was written while it ran", |seen| seen.get(&malformed) == Some(&3.0));
    assert_eq!(of_events(&seen), wanted);
    let seen = live.until("the reader at the end", |seen| {
        let lags: Vec<_> = seen.iter().filter(|(name, _)| name.starts_with("leeway_events_lag{")).collect();
        lags.len() == 2 && lags.iter().all(|(_, lag)| **lag == 0.0)
    });
    assert!(!seen.keys().any(|name| name.contains("psi_calculation_duration")), "only workers know");

    live.process.kill();
    let mut again = Exporter::start(&configured);
    let seen = again.ready();
    assert_eq!(of_events(&seen), wanted, "counted anew, and no scrape saw half of it");
    again.process.stop();

    // With less room than there are series: the rest is one of each family, and nothing is lost from a sum.
    let mut bounded = Exporter::start(&[&configured[..], &["--metrics-max-series", "30"]].concat());
    let seen = bounded.ready();
    assert!(
        bounded.process.log().contains("more series than `metrics.max_series`"),
        "{}",
        bounded.process.log()
    );
    let psi = |seen: &Series| -> f64 {
        let of_psi = seen.iter().filter(|(name, _)| name.starts_with("real_time_psi_score{"));
        of_psi.map(|(_, psi)| psi).sum()
    };
    assert!((psi(&seen) - psi(&wanted)).abs() < 1e-9 * psi(&wanted));
    let windows = |seen: &Series| seen.keys().filter(|name| name.contains("feature=")).count();
    assert!(
        windows(&seen) <= 30 && windows(&wanted) > 30,
        "{} of {}",
        windows(&seen),
        windows(&wanted)
    );
    bounded.process.stop();
    succeed(leeway().args(["metrics", "--help"]));
}
