//! The server on the embedded broker: what it answers over HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use leeway_topology::binning::Binning;
use leeway_topology::event::DriftEvent;
use leeway_topology::ids::Partition;
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};
use serde_json::Value;

use super::testing::{event, time_of};
use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{NewTopic, OutRecord, PlainProducer as _};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    broker: MemoryBroker,
    dashboard: Dashboard,
    version: String,
}

/// Values 0 to 999 in two bins.
fn reference() -> Reference {
    let columns = [("x".to_owned(), ColumnType::Number)];
    let overrides = [("x".to_owned(), "edges:499.5".parse::<Binning>().unwrap())];
    let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 10 }, &overrides, 50).unwrap();
    for row in 0..1000 {
        builder.push_row([Cell::Number(f64::from(row))]);
    }
    builder.finish().unwrap().0
}

async fn start() -> World {
    let broker = MemoryBroker::new();
    for (name, partitions) in [("in", 2), ("drift-events", 1)] {
        let topic = NewTopic {
            name: name.into(),
            partitions,
            replication_factor: None,
            config: BTreeMap::new(),
        };
        broker.create_topic(&topic, Duration::ZERO).unwrap();
    }
    let reference = reference();
    reference_topic::publish(&broker, "app", &reference).unwrap();
    let settings = Settings {
        application_id: "app".to_owned(),
        monitors: vec![Arc::new(Monitor::new("default", "in"))],
        listen: Listen {
            section: "dashboard",
            host: "127.0.0.1".to_owned(),
            port: 0,
            port_is_set: true,
        },
        limits: Limits::default(),
    };
    World {
        dashboard: Dashboard::start(broker.clone(), settings).await.unwrap(),
        broker,
        version: reference.version().to_owned(),
    }
}

impl World {
    fn send(&self, event: DriftEvent) {
        let event = DriftEvent {
            reference_version: self.version.as_str().into(),
            ..event
        };
        let record = OutRecord {
            topic: "drift-events".into(),
            partition: Partition(0),
            key: None,
            value: Some(event.to_json()),
            headers: Vec::new(),
            timestamp: Some(event.window_end_ms),
        };
        self.broker.producer().unwrap().send(record).unwrap();
    }

    /// Status, headers and body.
    async fn ask(&self, path: &str) -> (u16, String, String) {
        ask(self.dashboard.address(), path.to_owned()).await
    }

    async fn json(&self, path: &str) -> Value {
        let (status, _, body) = self.ask(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, _, body) = self.ask(path).await;
            if status == 200 {
                let answer = serde_json::from_str(&body).unwrap();
                if wanted(&answer) {
                    return answer;
                }
            }
            assert!(Instant::now() < deadline, "{path}: {status} {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn ask(address: SocketAddr, path: String) -> (u16, String, String) {
    let exchange = move || {
        let mut connection = TcpStream::connect(address).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

/// Data of the messages of a stream, as they come.
fn listen(address: SocketAddr, path: &str) -> impl Iterator<Item = Value> + use<> {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let lines = BufReader::new(connection).lines().map_while(Result::ok);
    lines.filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_topic_is_no_error() {
    let world = start().await;
    let found = world
        .until("/api/v1/monitors", |found| found["stream"]["sources"][0]["is_caught_up"] == true)
        .await;
    let monitor = &found["monitors"][0];
    assert_eq!(
        (monitor["name"].as_str(), &monitor["status"], &monitor["features"]),
        (Some("default"), &Value::Null, &0.into())
    );
    assert_eq!(monitor["settings"]["drift"], 0.25);
    assert_eq!(world.json("/api/v1/monitors/default/features").await["feature"], Value::Array(vec![]));
    assert_eq!(world.json("/api/v1/monitors/default/heatmap").await["feature"], Value::Array(vec![]));
    let (status, _, body) = world.ask("/health/ready").await;
    assert_eq!((status, &*body), (200, "every topic of events was read to its end"));
    world.dashboard.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_stands_beside_its_reference_bin_by_bin() {
    let world = start().await;
    world.send(event("x", 0, 100, 0.3));
    world.send(event("x", 0, 200, 0.4));
    let path = "/api/v1/monitors/default/features/x/window?record_count=100&partition=0";
    let found = world.until(path, |found| !found["window"]["bins"].is_null()).await;
    let (window, bins) = (&found["window"], &found["window"]["bins"]);
    assert_eq!(bins["label"], serde_json::json!(["(-inf, 499.5]", "(499.5, inf)", "__missing__"]));
    assert_eq!(
        (&bins["reference"], &bins["current"]),
        (&serde_json::json!([500, 500, 0]), &serde_json::json!([45, 50, 5]))
    );
    let expected = leeway_topology::psi::contributions(&[500, 500, 0], &[45, 50, 5], 1e-4);
    assert_eq!(bins["contribution"], serde_json::json!(expected));
    assert_eq!(
        (&window["psi"], &window["status"], &window["reference_rows"]),
        (&0.3.into(), &"drift".into(), &1000.into())
    );
    assert_eq!((&found["previous"], &found["next"]["record_count"]), (&Value::Null, &200.into()));
    let latest = world.json("/api/v1/monitors/default/features/x/window").await;
    assert_eq!(latest["window"]["record_count"], 200);
    world.dashboard.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_series_comes_first_and_in_full_when_asked() {
    let world = start().await;
    for k in 1..=600 {
        world.send(event("x", 0, k * 100, 0.01));
        world.send(event("x", 1, k * 100, if k == 300 { 0.9 } else { 0.2 }));
    }
    let path = "/api/v1/monitors/default/features/x/series?full=1";
    let found = world
        .until(path, |found| {
            found["series"][0]["psi"].as_array().map(Vec::len) == Some(600) && found["series"][0]["details"]["noise_floor"][0].is_f64()
        })
        .await;
    assert_eq!((&found["count"], &found["series"][0]["partition"]), (&2.into(), &1.into()));
    assert_eq!(
        (&found["decided_by"], &found["thresholds"]),
        (&"psi".into(), &serde_json::json!([0.1, 0.25]))
    );
    let floor = leeway_topology::significance::noise_floor(reference().features()[0].counts(), 100);
    assert_eq!(found["series"][0]["details"]["noise_floor"][0], floor);
    let thin = world.json("/api/v1/monitors/default/features/x/series?partition=1").await;
    let psi = thin["series"][0]["psi"].as_array().unwrap();
    assert!(psi.len() <= 240 && psi.contains(&0.9.into()), "a peak is never lost: {}", psi.len());
    world.dashboard.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_everything_goes_on_with_what_is_new_and_ends_with_the_server() {
    let world = start().await;
    world.send(event("x", 0, 100, 0.01));
    world.until("/api/v1/monitors", |found| found["monitors"][0]["features"] == 1).await;
    let address = world.dashboard.address();
    let (sender, mut messages) = tokio::sync::mpsc::unbounded_channel();
    let listening = std::thread::spawn(move || {
        for message in listen(address, "/api/v1/events?monitor=default&partition=0") {
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    let first = messages.recv().await.unwrap();
    assert_eq!((&first["reset"], &first["rows"]["feature"]), (&true.into(), &serde_json::json!(["x"])));
    // Of another partition: not selected.
    world.send(event("x", 1, 100, 0.5));
    world.send(event("x", 0, 200, 0.3));
    let next = loop {
        let message = messages.recv().await.unwrap();
        if message["rows"]["feature"] != serde_json::json!([]) {
            break message;
        }
    };
    assert_eq!((&next["reset"], &next["rows"]["status"]), (&false.into(), &serde_json::json!(["drift"])));
    assert_eq!(
        (&next["points"]["record_count"], &next["points"]["time_ms"]),
        (&serde_json::json!([200]), &serde_json::json!([time_of(200)]))
    );
    tokio::time::timeout(Duration::from_secs(5), world.dashboard.shutdown()).await.unwrap();
    tokio::task::spawn_blocking(move || listening.join()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_understood_is_a_problem_document() {
    let world = start().await;
    world.send(event("x", 0, 100, 0.01));
    world.until("/api/v1/monitors", |found| found["monitors"][0]["features"] == 1).await;
    for (path, status, detail) in [
        ("/api/v1/monitors/nobody/features", 404, "there is no monitor"),
        ("/api/v1/monitors/default/features/y/series", 404, "has no events of a feature"),
        ("/api/v1/monitors/default/features/x/window?record_count=7", 404, "no such window"),
        ("/api/v1/monitors/default/features?partition=first", 400, "partition"),
        ("/nowhere", 404, "there is nothing at /nowhere"),
    ] {
        let (found, head, body) = world.ask(path).await;
        assert_eq!(found, status, "{path}: {body}");
        assert!(head.contains("application/problem+json") && body.contains(detail), "{path}: {body}");
    }
    world.dashboard.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_or_says_how_it_is_built() {
    let world = start().await;
    let (status, head, body) = world.ask("/").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'self'"), "{head}");
    assert_eq!(body.contains("make ui"), !assets::is_built());
    world.dashboard.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_and_rate_are_told() {
    let world = start().await;
    world.send(event("*", 0, 100, 0.01));
    let found = world
        .until("/api/v1/monitors", |found| {
            found["stream"]["health"]["topics"]["in"]["partitions"].as_array().map(Vec::len) == Some(2)
        })
        .await;
    assert_eq!(found["stream"]["health"]["topics"]["in"]["partitions"][0]["lag"], 0);
    assert_eq!(found["stream"]["health"]["topics"]["in"]["dead_letters_max"], Value::Null);
    world.dashboard.shutdown().await;
}
