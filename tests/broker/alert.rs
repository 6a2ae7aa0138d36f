//! `leeway alert` as its users see it: real processes, real receivers, and what dies in between.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::bootstrap;
use crate::kafka::{Handmade, create_topic, produce, read_committed, unique};
use crate::leeway::{Worker, leeway, output};
use crate::receiver::{Answer, Receiver};
use crate::run::{PATIENCE, Run};

const PARTITIONS: i32 = 3;

/// Events that a test writes by hand, and the processes that tell of them.
struct Alerting {
    directory: tempfile::TempDir,
    application: String,
    events: String,
    /// The next check's last offset.
    end: i64,
}

impl Alerting {
    fn new(name: &str) -> Self {
        let events = unique(&format!("{name}-events"));
        create_topic(bootstrap(), &events, PARTITIONS, &[]);
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            application: unique(name),
            events,
            end: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the configuration; `channels` follow the section `[alert]`.
    fn configure(&self, alert: &str, channels: &str, properties: &str) {
        let text = format!(
            "application_id = \"{}\"\nlog = \"info,leeway=debug\"\n[[monitor]]\nevents_topic = \"{}\"\n[alert]\n{alert}\n{channels}\n\
             [kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"1000\"\n{properties}\n",
            self.application, self.events
        );
        std::fs::write(self.path("leeway.toml"), text).expect("written");
    }

    fn start(&self) -> Worker {
        let mut command = leeway();
        command
            .args(["alert", "--bootstrap-servers", bootstrap(), "--http-port", "0", "--config"])
            .arg(self.path("leeway.toml"))
            .current_dir(self.directory.path());
        Worker::spawn(&mut command)
    }

    /// A check of the feature `age`: its event, and the summary in another partition.
    fn check(&mut self, status: &str) {
        let end = self.end;
        self.end += 1;
        let mut records = Vec::new();
        for (feature, status, partition) in [("age", status, 0), ("*", "no_drift", 1)] {
            records.push((feature, self.event(feature, status, end), partition));
        }
        let records: Vec<Handmade<'_>> = records
            .iter()
            .map(|(feature, value, partition)| Handmade {
                partition: *partition,
                key: Some(feature.as_bytes()),
                value: Some(value.as_bytes()),
                timestamp: 0,
            })
            .collect();
        produce(bootstrap(), &self.events, &records);
    }

    fn event(&self, feature: &str, status: &str, end: i64) -> String {
        event(&self.application, feature, status, end)
    }
}

fn event(application: &str, feature: &str, status: &str, end: i64) -> String {
    let is_summary = feature == "*";
    let encoded = if is_summary { "%2A" } else { feature };
    let of_feature = |value: Value| if is_summary { Value::Null } else { value };
    json!({
        "schema_version": 1, "event_id": format!("{application}/default/t/0/partition//{encoded}/{end}/abc"), "kind": "drift",
        "monitor": "default", "scope": "partition", "partition": 0, "segment": null, "feature": feature,
        "psi": if status == "no_drift" { 0.01 } else { 0.4 }, "p_value": of_feature(json!(1e-9)), "psi_null_mean": of_feature(json!(0.01)),
        "significant": of_feature(json!(true)), "status": status, "previous_status": null, "record_count": end + 1, "window_count": 1000,
        "missing_count": of_feature(json!(3)), "below_range_count": null, "above_range_count": null, "window_start_offset": 0,
        "window_end_offset": end, "window_start_ms": 1000, "window_end_ms": 2000, "counts": of_feature(json!([500, 497, 3])),
        "top_bin": null, "top_bin_contribution": null, "feature_count": is_summary.then_some(1), "drifted_features": is_summary.then_some(0),
        "reference_version": "abc", "closed_by": null, "js": null, "ks": null, "wasserstein": null, "chi2_p_value": null
    })
    .to_string()
}

/// Waits until it is so.
fn until(what: &str, patience: Duration, log: impl Fn() -> String, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `opened`, `recovered` and so on, of each message that a receiver that honours keys sees, in order.
fn seen_once(receiver: &Receiver) -> Vec<String> {
    let mut keys = BTreeSet::new();
    let requests = receiver.accepted();
    let new = requests.iter().filter(|request| keys.insert(request.key().to_owned()));
    new.map(|request| request.json()["alerts"][0]["transition"].as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn each_incident_is_opened_and_closed_once_though_alerter_and_receiver_are_killed_in_between() {
    let (mut alerting, mut receiver) = (Alerting::new("alert-kills"), Receiver::start());
    let hook = format!(
        "[[alert.channel]]\nkind = \"webhook\"\nurl = \"{}\"\nsecret = \"s3cret\"\ntimeout = \"2s\"",
        receiver.url("/hook")
    );
    // A member that comes back is not waited for.
    alerting.configure("cooldown = \"0s\"\ngroup_wait = \"200ms\"", &hook, "\"group.instance.id\" = \"alerter\"");
    let mut alerter = alerting.start();
    let mut expected: Vec<&str> = Vec::new();
    // In the ordinary course nothing is sent twice.
    for (status, transition) in [("drift", "opened"), ("no_drift", "recovered")] {
        alerting.check(status);
        expected.push(transition);
        until(transition, PATIENCE, || alerter.log(), || receiver.accepted().len() == expected.len());
    }
    for round in 0_u64..4 {
        // Killed at once, a little later, about when it sends, and after that.
        alerting.check("drift");
        expected.push("opened");
        let moment = Instant::now() + Duration::from_millis(150 * round);
        until("a moment", PATIENCE, String::new, || Instant::now() >= moment);
        alerter.end();
        receiver.kill();
        alerting.check("no_drift");
        expected.push("recovered");
        alerter = alerting.start();
        if round % 2 == 0 {
            // It is there, and nobody listens to it.
            alerter.wait_for("not delivered", 1, PATIENCE);
            alerter.end();
            alerter = alerting.start();
        }
        receiver.answer(&[Answer::Status(503), Answer::Close]);
        receiver.restart();
        until("both", PATIENCE, || alerter.log(), || seen_once(&receiver).len() >= expected.len());
    }
    alerter.stop();
    assert_eq!(seen_once(&receiver), expected);
    // What came twice is the same, byte for byte, and signed.
    let mut bodies = BTreeMap::new();
    for request in receiver.requests() {
        let body = bodies.entry(request.key().to_owned()).or_insert_with(|| request.body.clone());
        assert_eq!(*body, request.body);
        assert_eq!(request.headers["x-leeway-delivery"], request.key());
        assert!(request.headers["x-leeway-signature"].starts_with("sha256="));
        assert_eq!(request.path, "/hook");
    }
}

#[test]
fn slack_that_refuses_hangs_and_breaks_loses_nothing_and_holds_nobody_up() {
    let (mut alerting, slack, other) = (Alerting::new("alert-slack"), Receiver::start(), Receiver::start());
    let channels = format!(
        "[[alert.channel]]\nkind = \"slack\"\nurl = \"{}\"\ntimeout = \"1s\"\n[[alert.channel]]\nkind = \"webhook\"\nurl = \"{}\"\n[[alert.channel]]\nkind = \"csv\"\n",
        slack.url("/services/T/B/secret"),
        other.url("/")
    );
    alerting.configure("group_wait = \"200ms\"", &channels, "");
    slack.answer(&[
        Answer::TooMany(3),
        Answer::Status(500),
        Answer::Hang,
        Answer::Close,
        Answer::Status(200),
        Answer::Status(500),
        Answer::Hang,
    ]);
    let alerter = alerting.start();
    alerting.check("drift");
    let first = Instant::now();
    until("the other channel", PATIENCE, || alerter.log(), || other.accepted().len() == 1);
    alerting.check("no_drift");
    until("its second", PATIENCE, || alerter.log(), || other.accepted().len() == 2);
    assert!(slack.accepted().is_empty(), "Slack was still failing: {:?}", first.elapsed());
    // Back within the cooldown: nothing of it is told.
    alerting.check("drift");
    alerting.check("no_drift");
    until("Slack", PATIENCE, || alerter.log(), || slack.accepted().len() == 2);
    let requests = slack.requests();
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(3), "Retry-After is obeyed");
    let texts: Vec<_> = slack
        .accepted()
        .iter()
        .map(|request| request.json()["text"].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(
        texts,
        [
            "Drift: age (monitor default, partition 0)",
            "Recovered: age (monitor default, partition 0)"
        ]
    );
    let csv = || std::fs::read_to_string(alerting.path("logs/psi_drift_log.csv")).unwrap_or_default();
    until("four lines", PATIENCE, || alerter.log(), || csv().lines().count() == 5);
    let log = alerter.log();
    alerter.stop();
    assert_eq!((slack.accepted().len(), other.accepted().len()), (2, 2));
    assert!(
        csv().starts_with("timestamp,psi_score,drift_status,") && csv().contains(",0.01,no_drift,default,partition,0,,1,0,1,"),
        "{}",
        csv()
    );
    assert!(!log.contains("secret"), "the address is a secret:\n{log}");
}

#[test]
fn a_second_process_stands_by_and_takes_over_when_the_first_is_killed() {
    let (mut alerting, receiver) = (Alerting::new("alert-standby"), Receiver::start());
    let hook = format!("[[alert.channel]]\nkind = \"webhook\"\nurl = \"{}\"", receiver.url("/"));
    alerting.configure("group_wait = \"200ms\"", &hook, "");
    let mut first = alerting.start();
    first.wait_for("alerting records=", 1, PATIENCE);
    let mut second = alerting.start();
    second.wait_for("standing by", 1, PATIENCE);
    alerting.check("drift");
    until("opened", PATIENCE, || first.log(), || receiver.accepted().len() == 1);
    first.kill();
    alerting.check("no_drift");
    // The first was killed about when it noted that the message had arrived, so that may have come again under its key.
    until("recovered", PATIENCE, || second.log(), || seen_once(&receiver).len() == 2);
    second.stop();
    assert_eq!(seen_once(&receiver), ["opened", "recovered"]);
}

#[test]
fn the_events_of_a_real_stream_are_told_with_their_facts_and_logged_once() {
    let (run, receiver) = (Run::new("alert-stream"), Receiver::start());
    let mut worker = run.worker(&run.path("state"));
    // Its reference is published by then: the alerter reads it before the first event.
    worker.wait_for("restored store", 1, PATIENCE);
    run.produce(&run.rows("rows.jsonl", 30_000, 3), None);
    let text = format!(
        "application_id = \"{}\"\n[dashboard]\nurl = \"https://leeway.example\"\n[[monitor]]\nevents_topic = \"{}\"\n[alert]\ncooldown = \"0s\"\n\
         [[alert.channel]]\nkind = \"webhook\"\nurl = \"{}\"\nfeatures = [\"a\"]\nkinds = [\"feature\"]\nmin_severity = \"drift\"\n\
         [[alert.channel]]\nkind = \"csv\"\npath = \"log.csv\"\n",
        run.application,
        run.events,
        receiver.url("/")
    );
    std::fs::write(run.path("alert.toml"), text).expect("written");
    let start = || {
        let mut command = leeway();
        command
            .args(["alert", "--bootstrap-servers", &run.bootstrap, "--http-port", "0", "--config"])
            .arg(run.path("alert.toml"))
            .current_dir(run.path(""));
        Worker::spawn(&mut command)
    };
    // Killed while it logs; what it had written and not told is not written again.
    let lines = || std::fs::read_to_string(run.path("log.csv")).unwrap_or_default().lines().count();
    let alerter = start();
    until("a line", PATIENCE, || alerter.log(), || lines() > 1);
    let mut log = alerter.log();
    alerter.kill();
    let alerter = start();
    crate::kafka::wait_until_consumed(&run.bootstrap, &run.application, &run.topic, PATIENCE, &mut [&mut worker]);
    worker.stop();
    let events = read_committed(&run.bootstrap, &run.events);
    let parsed = events
        .iter()
        .map(|record| serde_json::from_slice::<Value>(record.value.as_ref().expect("a value")).expect("JSON"));
    let summaries: BTreeSet<String> = parsed
        .filter(|event| event["feature"] == "*")
        .map(|event| event["event_id"].as_str().expect("an id").to_owned())
        .collect();
    assert!(summaries.len() > 100, "{}", summaries.len());
    until("all lines", PATIENCE, || alerter.log(), || lines() > summaries.len());
    until("a message", PATIENCE, || alerter.log(), || !receiver.accepted().is_empty());
    log += &alerter.log();
    alerter.stop();
    let csv = std::fs::read_to_string(run.path("log.csv")).expect("a log");
    let logged: Vec<String> = csv
        .lines()
        .skip(1)
        .map(|line| line.rsplit(',').next().expect("an id").to_owned())
        .collect();
    assert_eq!(logged.len(), summaries.len());
    assert_eq!(logged.into_iter().collect::<BTreeSet<_>>(), summaries);
    let message = receiver.accepted()[0].json();
    let alert = &message["alerts"][0];
    assert_eq!(
        (&alert["feature"], &alert["transition"], &alert["to"]),
        (&json!("a"), &json!("opened"), &json!("drift"))
    );
    assert_eq!(
        (&alert["threshold"], &message["dashboard_url"]),
        (&json!(0.25), &json!("https://leeway.example")),
        "{message:#}\n{log}"
    );
    assert_eq!(message["reference_version"], run.reference["version"]);
    assert_eq!(alert["top_bins"].as_array().map(Vec::len), Some(3), "{alert}");
    assert!(alert["noise_floor"].as_f64().expect("a number") < 0.25, "{alert}");
}

/// Ends with the test.
struct Alertmanager {
    process: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Alertmanager {
    /// The reason where there is none to be had.
    fn start() -> Result<Self, String> {
        let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        // Debian's name, and everybody else's.
        let Some(binary) = ["prometheus-alertmanager", "alertmanager"].into_iter().find(is_there) else {
            return Err("it is not in PATH; `apt-get install prometheus-alertmanager`, and stop the service that this starts".to_owned());
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .expect("loopback")
            .local_addr()
            .expect("an address")
            .port();
        let config = directory.path().join("alertmanager.yml");
        std::fs::write(&config, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").expect("written");
        let process = Command::new(binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", directory.path().display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            process,
            port,
            _directory: directory,
        })
    }

    fn alerts(&self) -> Vec<Value> {
        let request = ureq::get(format!("http://127.0.0.1:{}/api/v2/alerts", self.port))
            .config()
            .timeout_global(Some(Duration::from_secs(5)))
            .build();
        let text = request
            .call()
            .and_then(|mut answer| answer.body_mut().read_to_string())
            .unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn alertmanager_shows_the_alert_until_it_is_resolved() {
    let alertmanager = match Alertmanager::start() {
        Ok(alertmanager) => alertmanager,
        Err(reason) => {
            eprintln!("SKIPPED: no Alertmanager to be had: {reason}");
            return;
        }
    };
    let mut alerting = Alerting::new("alert-manager");
    let channel = format!(
        "[[alert.channel]]\nkind = \"alertmanager\"\nurl = \"http://127.0.0.1:{}\"\nresend = \"1s\"",
        alertmanager.port
    );
    alerting.configure("group_wait = \"200ms\"\ncooldown = \"0s\"", &channel, "");
    let alerter = alerting.start();
    alerting.check("possible_drift");
    let severities = || -> Vec<String> {
        let alerts = alertmanager.alerts();
        alerts
            .iter()
            .map(|alert| alert["labels"]["severity"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    until("a warning", PATIENCE, || alerter.log(), || severities() == ["warning"]);
    let alert = alertmanager.alerts().remove(0);
    let labels =
        json!({"alertname": "LeewayDrift", "monitor": "default", "scope": "partition", "partition": "0", "feature": "age", "severity": "warning"});
    assert_eq!((&alert["labels"], &alert["status"]["state"]), (&labels, &json!("active")));
    let updated = alert["updatedAt"].clone();
    until(
        "sent again",
        PATIENCE,
        || alerter.log(),
        || alertmanager.alerts().first().is_some_and(|alert| alert["updatedAt"] != updated),
    );
    alerting.check("drift");
    until("critical instead", PATIENCE, || alerter.log(), || severities() == ["critical"]);
    alerting.check("no_drift");
    until("resolved", PATIENCE, || alerter.log(), || severities().is_empty());
    alerter.stop();
}

#[test]
fn a_sample_says_what_came_back() {
    let (alerting, receiver) = (Alerting::new("alert-sample"), Receiver::start());
    let channels = format!(
        "[[alert.channel]]\nkind = \"slack\"\nurl = \"{}\"\n",
        receiver.url("/services/T/B/secret")
    );
    alerting.configure("", &channels, "");
    let test = |name: &str| {
        let mut command = leeway();
        command.args(["alert", "--test", name, "--config"]).arg(alerting.path("leeway.toml"));
        let output = output(&mut command);
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    assert_eq!(test("slack"), (Some(0), "channel slack: the sample was delivered\n".to_owned()));
    assert_eq!(receiver.requests()[0].json()["blocks"][0]["type"], "header");
    receiver.answer(&[Answer::Status(404)]);
    let (code, text) = test("slack");
    assert_eq!(code, Some(1));
    assert!(
        text.starts_with("error: channel slack: the sample was refused: status 404") && !text.contains("secret"),
        "{text}"
    );
    let (code, text) = test("pager");
    assert_eq!(
        (code, text.as_str()),
        (Some(2), "error: --test pager: there is no such channel; there is slack\n")
    );
}

/// For figures, not for a verdict: `make bench-alert`.
#[test]
#[ignore = "a minute of work for figures; `make bench-alert` runs it"]
fn a_million_events() {
    const EVENTS: usize = 1_000_000;
    const FEATURES: usize = 49;
    let (alerting, receiver) = (Alerting::new("alert-million"), Receiver::start());
    let channels = format!(
        "[[alert.channel]]\nkind = \"webhook\"\nurl = \"{}\"\n[[alert.channel]]\nkind = \"csv\"\n",
        receiver.url("/")
    );
    alerting.configure("cooldown = \"0s\"", &channels, "");
    let names: Vec<String> = (0..FEATURES).map(|number| format!("feature{number}")).chain(["*".to_owned()]).collect();
    let mut sent = 0;
    while sent < EVENTS {
        let checks = 200;
        let first = i64::try_from(sent / names.len()).expect("a number");
        let texts: Vec<(usize, String)> = (first..first + checks)
            .flat_map(|end| {
                // One feature drifts for a while, in each thousandth check.
                let status = move |feature: usize| if feature == 7 && end % 1000 < 3 { "drift" } else { "no_drift" };
                let (names, application) = (&names, &alerting.application);
                (0..names.len()).map(move |feature| (feature, event(application, &names[feature], status(feature), end)))
            })
            .collect();
        let records: Vec<Handmade<'_>> = texts
            .iter()
            .map(|(feature, text)| Handmade {
                partition: i32::try_from(*feature).expect("a number") % PARTITIONS,
                key: Some(names[*feature].as_bytes()),
                value: Some(text.as_bytes()),
                timestamp: 0,
            })
            .collect();
        produce(bootstrap(), &alerting.events, &records);
        sent += records.len();
    }
    let incidents = sent / names.len() / 1000;
    let started = Instant::now();
    let mut alerter = alerting.start();
    alerter.wait_for("alerting records=", 1, PATIENCE);
    let active = started.elapsed();
    until("all messages", PATIENCE, || alerter.log(), || receiver.accepted().len() >= 2 * incidents);
    let lines = || {
        std::fs::read_to_string(alerting.path("logs/psi_drift_log.csv"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    until("all lines", PATIENCE, || alerter.log(), || lines() > sent / names.len());
    let all = started.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", alerter.id())).unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
    alerter.stop();
    let again = Instant::now();
    let mut alerter = alerting.start();
    alerter.wait_for("alerting records=", 1, PATIENCE);
    let restarted = again.elapsed();
    alerter.stop();
    println!(
        "{sent} events, {} lines, {} messages: active after {active:.1?}, all of it after {all:.1?} ({:.0} events/s), peak {}; active again after {restarted:.1?}",
        lines() - 1,
        receiver.accepted().len(),
        sent as f64 / all.as_secs_f64(),
        peak.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    );
}
