//! The exporter on the embedded broker: what a scrape shows.

use std::collections::BTreeMap;

use leeway_topology::binning::Binning;
use leeway_topology::event::{DriftEvent, EventId, QUALITY_KIND, QualityEvent, SCHEMA_VERSION};
use leeway_topology::ids::{Offset, Partition, RecordNumber, Timestamp};
use leeway_topology::processor::Scopes;
use leeway_topology::quality::{QualityStatus, Violation};
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{ClientSettings, CommittedOffset, EpochCommit, NewTopic, OutRecord, PlainProducer as _, StreamClient as _, TopicPartition};
use crate::consumers::dashboard::testing::event;

const PATIENCE: Duration = Duration::from_secs(20);

fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new();
    create(&broker, "in", 2);
    create(&broker, "drift-events", 2);
    broker
}

fn create(broker: &MemoryBroker, name: &str, partitions: u32) {
    let topic = NewTopic {
        name: name.into(),
        partitions,
        replication_factor: None,
        config: BTreeMap::new(),
    };
    broker.create_topic(&topic, Duration::ZERO).unwrap();
}

fn monitor() -> Monitor {
    Monitor {
        scopes: Scopes::BOTH,
        ..Monitor::new("default", "in")
    }
}

fn record(value: Vec<u8>, written: i64) -> OutRecord {
    OutRecord {
        topic: "drift-events".into(),
        partition: Partition(0),
        key: None,
        value: Some(value),
        headers: Vec::new(),
        timestamp: Some(Timestamp(written)),
    }
}

fn send(broker: &MemoryBroker, event: &DriftEvent) {
    broker.producer().unwrap().send(record(event.to_json(), event.window_end_ms.0)).unwrap();
}

async fn start(broker: &MemoryBroker, monitor: Monitor, max_series: usize) -> Exporter {
    let settings = Settings {
        application_id: "app".to_owned(),
        monitors: vec![Arc::new(monitor)],
        max_series,
        http: HttpConfig {
            host: "127.0.0.1".to_owned(),
            port: 0,
            port_is_set: true,
            advertised: None,
            bearer_token: None,
        },
    };
    Exporter::start(broker.clone(), settings).await.unwrap()
}

impl Exporter {
    /// A scrape once it is as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.shared.render().unwrap();
            if wanted(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{what}: {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ready(&self) -> String {
        self.until("read", |text| text.contains("\nleeway_events_caught_up 1\n"))
    }
}

/// Lines of what is made of events, which does not depend on when it is asked.
fn of_events(text: &str) -> Vec<&str> {
    let others = ["process_", "kafka_", "leeway_events_lag", "leeway_group", "leeway_build"];
    let is_wanted = |line: &&str| !line.starts_with('#') && !others.iter().any(|name| line.starts_with(name));
    text.lines().filter(is_wanted).collect()
}

fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(name)).collect()
}

fn quality() -> QualityEvent {
    QualityEvent {
        schema_version: SCHEMA_VERSION,
        event_id: EventId::new("app", "default", "in", None, Scope::Global, None).of_quality("x", 7, "v1"),
        kind: QUALITY_KIND.into(),
        monitor: "default".into(),
        scope: Scope::Global,
        partition: None,
        segment: None,
        feature: "x".into(),
        status: QualityStatus::Violated,
        previous_status: None,
        record_count: RecordNumber(100),
        window_count: 100,
        missing_share: 0.5,
        missing_threshold: Some(0.1),
        other_share: None,
        other_threshold: None,
        out_of_range_share: None,
        out_of_range_threshold: None,
        violations: vec![Violation::Missing],
        examples: None,
        window_start_offset: None,
        window_end_offset: None,
        window_start_ms: Timestamp(0),
        window_end_ms: Timestamp(0),
        reference_version: "v1".into(),
        closed_by: None,
    }
}

#[tokio::test]
async fn a_scrape_shows_the_last_check_and_counts_all_of_them() {
    let broker = broker();
    for (k, psi) in [(100, 0.3), (200, 0.12)] {
        for feature in ["x", "*"] {
            send(&broker, &event(feature, 1, k, psi));
        }
    }
    broker.producer().unwrap().send(record(quality().to_json(), 0)).unwrap();
    let mut monitor = monitor();
    monitor.quality.limits.missing = Some(0.1);
    let exporter = start(&broker, monitor, 100).await;
    exporter.ready();
    let text = exporter.until("the reader's lag", |text| text.contains("leeway_events_lag{partition=\"0\""));
    insta::assert_snapshot!(of_events(&text).join("\n"), @r#"
    leeway_events_caught_up 1
    leeway_events_readable{topic="drift-events"} 1
    drift_detection_events_total{monitor="default",scope="global",status="drift"} 0
    drift_detection_events_total{monitor="default",scope="global",status="no_drift"} 0
    drift_detection_events_total{monitor="default",scope="global",status="possible_drift"} 0
    drift_detection_events_total{monitor="default",scope="partition",status="drift"} 1
    drift_detection_events_total{monitor="default",scope="partition",status="no_drift"} 0
    drift_detection_events_total{monitor="default",scope="partition",status="possible_drift"} 1
    leeway_drift_status{feature="*",monitor="default",partition="1",scope="partition",segment=""} 1
    leeway_drift_status{feature="x",monitor="default",partition="1",scope="partition",segment=""} 1
    leeway_events_read_total{kind="drift",topic="drift-events"} 4
    leeway_events_read_total{kind="malformed",topic="drift-events"} 0
    leeway_events_read_total{kind="not_configured",topic="drift-events"} 0
    leeway_events_read_total{kind="other_application",topic="drift-events"} 0
    leeway_events_read_total{kind="quality",topic="drift-events"} 1
    leeway_events_read_total{kind="unknown",topic="drift-events"} 0
    leeway_last_check_timestamp_seconds{monitor="default",scope="partition"} 1700000002
    leeway_monitor_info{monitor="default",scope="global",topic="app-panes-in-repartition"} 1
    leeway_monitor_info{monitor="default",scope="partition",topic="in"} 1
    leeway_psi_null_mean{feature="x",monitor="default",partition="1",scope="partition",segment=""} 0.02
    leeway_quality_events_total{monitor="default",scope="global",status="ok"} 0
    leeway_quality_events_total{monitor="default",scope="global",status="violated"} 1
    leeway_quality_events_total{monitor="default",scope="partition",status="ok"} 0
    leeway_quality_events_total{monitor="default",scope="partition",status="violated"} 0
    leeway_quality_share{feature="x",kind="missing",monitor="default",partition="",scope="global",segment=""} 0.5
    leeway_value_share{feature="x",kind="missing",monitor="default",partition="1",scope="partition",segment=""} 0.05
    leeway_value_share{feature="x",kind="out_of_range",monitor="default",partition="1",scope="partition",segment=""} 0.010526315789473684
    real_time_psi_score{feature="*",monitor="default",partition="1",scope="partition",segment=""} 0.12
    real_time_psi_score{feature="x",monitor="default",partition="1",scope="partition",segment=""} 0.12
    "#);
    assert_eq!(
        lines(&text, "leeway_events_lag"),
        [
            "leeway_events_lag{partition=\"0\",topic=\"drift-events\"} 0",
            "leeway_events_lag{partition=\"1\",topic=\"drift-events\"} 0"
        ]
    );
    send(&broker, &event("*", 1, 300, 0.0));
    exporter.until("a check more", |text| text.contains("status=\"no_drift\"} 1"));
    exporter.shutdown().await;
}

#[tokio::test]
async fn an_exporter_that_starts_again_says_the_same() {
    let broker = broker();
    for k in 1..500 {
        for (feature, psi) in [("x", 0.3), ("y", 0.1), ("*", 0.2)] {
            send(&broker, &event(feature, (k % 2) as i32, k * 100, psi));
        }
    }
    let first = start(&broker, monitor(), 1000).await;
    let before = first.ready();
    first.shutdown().await;
    let second = start(&broker, monitor(), 1000).await;
    let after = second.ready();
    assert!(after.contains("drift_detection_events_total{monitor=\"default\",scope=\"partition\",status=\"possible_drift\"} 499"));
    assert_eq!(of_events(&after), of_events(&before));
}

#[tokio::test]
async fn nothing_of_the_events_is_served_before_they_were_read() {
    let broker = MemoryBroker::new();
    create(&broker, "in", 1);
    let exporter = start(&broker, monitor(), 100).await;
    let text = exporter.until("the topic that is not there", |text| {
        text.contains("leeway_events_readable{topic=\"drift-events\"} 0")
    });
    assert!(
        text.contains("\nleeway_events_caught_up 0\n") && text.contains("leeway_build_info"),
        "{text}"
    );
    for name in ["drift_detection_events_total", "leeway_monitor_info", "leeway_events_read_total"] {
        assert!(lines(&text, name).is_empty(), "{text}");
    }
    assert!(!exporter.shared.health.is_ready());
    create(&broker, "drift-events", 1);
    let text = exporter.ready();
    assert_eq!(lines(&text, "drift_detection_events_total").len(), 6, "{text}");
    assert!(exporter.shared.health.is_ready());
}

#[tokio::test]
async fn what_is_no_event_or_nobodys_is_counted_and_passed_over() {
    let broker = broker();
    let mut producer = broker.producer().unwrap();
    for value in [&b"{"[..], b"[]", b"{\"kind\": \"another\"}"] {
        producer.send(record(value.to_vec(), 0)).unwrap();
    }
    let other = |change: fn(&mut DriftEvent)| {
        let mut event = event("x", 0, 100, 0.5);
        change(&mut event);
        send(&broker, &event);
    };
    other(|event| event.event_id = event.event_id.replace("app/", "app-2/"));
    other(|event| event.monitor = "retired".into());
    other(|event| event.segment = Some("country=DE".into()));
    other(|event| event.event_id = event.event_id.replace("/in/", "/earlier/"));
    other(|event| event.feature = "z".into());
    other(|_| {});
    let only_x = Monitor {
        features: Some(vec!["x".to_owned()]),
        scopes: Scopes::PARTITION,
        ..monitor()
    };
    let exporter = start(&broker, only_x, 100).await;
    let text = exporter.ready();
    assert_eq!(
        lines(&text, "leeway_events_read_total"),
        [
            ("drift", 1),
            ("malformed", 2),
            ("not_configured", 4),
            ("other_application", 1),
            ("quality", 0),
            ("unknown", 1)
        ]
        .map(|(kind, count)| format!("leeway_events_read_total{{kind=\"{kind}\",topic=\"drift-events\"}} {count}"))
    );
    assert_eq!(lines(&text, "real_time_psi_score").len(), 1, "{text}");
}

#[tokio::test]
async fn past_the_bound_series_are_summed_into_one_and_counters_stay_whole() {
    let broker = broker();
    for partition in 0..50 {
        send(&broker, &event("*", partition, 100, 0.5));
    }
    let exporter = start(&broker, monitor(), 20).await;
    let text = exporter.ready();
    assert!(text.lines().filter(|line| !line.starts_with('#')).count() < 20 + 30, "{text}");
    let psi: f64 = lines(&text, "real_time_psi_score")
        .iter()
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    assert!((psi - 25.0).abs() < 1e-9, "{psi}");
    assert!(text.contains("feature=\"__rest__\""), "{text}");
    assert!(text.contains("drift_detection_events_total{monitor=\"default\",scope=\"partition\",status=\"drift\"} 50"));
}

/// Features x and y, or x alone; numbers, one bin for each of 0 to 3.
fn reference(features: &[&str]) -> Reference {
    let columns: Vec<_> = features.iter().map(|name| ((*name).to_owned(), ColumnType::Number)).collect();
    let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Discrete, &[], 50).unwrap();
    for row in 0..100 {
        builder.push_row(features.iter().map(|_| Cell::Number(f64::from(row % 4))));
    }
    builder.finish().unwrap().0
}

#[tokio::test]
async fn features_that_the_newest_reference_does_not_have_go() {
    let broker = broker();
    let (old, new) = (reference(&["x", "y"]), reference(&["x"]));
    let check = |k: u64, reference: &Reference| {
        for feature in reference.features().iter().map(|feature| &**feature.name()).chain(["*"]) {
            let event = DriftEvent {
                reference_version: reference.version().into(),
                ..event(feature, 0, k, 0.5)
            };
            send(&broker, &event);
        }
    };
    reference_topic::publish(&broker, "app", &old).unwrap();
    check(100, &old);
    reference_topic::publish(&broker, "app", &new).unwrap();
    check(200, &new);
    let exporter = start(&broker, monitor(), 100).await;
    let text = exporter.ready();
    let features = |text: &str| -> BTreeSet<String> {
        lines(text, "leeway_drift_status")
            .iter()
            .map(|line| line.split("feature=\"").nth(1).unwrap().split('"').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(features(&text), ["*", "x"].map(str::to_owned).into(), "{text}");
    assert!(!text.contains("feature=\"y\""), "{text}");
    // Of a number that has other values: 50 of the 95 that are there.
    assert!(
        lines(&text, "leeway_value_share").iter().any(|line| line.contains("kind=\"other\"")),
        "{text}"
    );
    // While it runs, too.
    reference_topic::publish(&broker, "app", &old).unwrap();
    check(300, &old);
    exporter.until("y again", |text| features(text).len() == 3);
    check(400, &new);
    exporter.until("y gone again", |text| features(text).len() == 2);
}

#[tokio::test]
async fn lag_and_position_are_the_groups_and_not_there_before_it_has_committed() {
    let broker = broker();
    let at = TopicPartition::new("in", Partition(1));
    for _ in 0..10 {
        let input = OutRecord {
            topic: "in".into(),
            partition: at.partition,
            ..record(b"{}".to_vec(), 0)
        };
        broker.producer().unwrap().send(input).unwrap();
    }
    let exporter = start(&broker, monitor(), 100).await;
    let text = exporter.until("the group was asked", |text| text.contains("leeway_group_members{group=\"app\"} 0"));
    assert!(lines(&text, "kafka_").is_empty(), "{text}");
    exporter.shutdown().await;

    let settings = ClientSettings {
        application_id: "app".to_owned(),
        transactional_id: "app-1".to_owned(),
        client_id: "app-1".to_owned(),
        thread: 1,
        transaction_timeout: PATIENCE,
        message_bytes_max: 1 << 20,
        batch_bytes_max: 1 << 20,
    };
    let mut client = broker.client(&settings).unwrap();
    client.init_producer();
    client.subscribe(&["in".into()]);
    let deadline = Instant::now() + PATIENCE;
    while !client.group_metadata().is_member() {
        while client.next_event().is_some() {}
        assert!(Instant::now() < deadline);
    }
    let group = client.group_metadata();
    client.assign(std::slice::from_ref(&at));
    let offset = CommittedOffset {
        offset: Offset(7),
        metadata: String::new(),
    };
    client.commit(EpochCommit {
        epoch: 1,
        records: Vec::new(),
        offsets: vec![(at, offset)],
        group,
    });
    while client.next_event().is_some() {}
    let exporter = start(&broker, monitor(), 100).await;
    exporter.until("a member", |text| text.contains("leeway_group_members{group=\"app\"} 1"));
    // A scrape may have met the answer half way.
    let text = exporter.shared.render().unwrap();
    assert_eq!(
        lines(&text, "kafka_"),
        [
            "kafka_consumer_lag{partition=\"1\",topic=\"in\"} 3",
            "kafka_messages_consumed_total{partition=\"1\",topic=\"in\"} 7"
        ]
    );
}

#[test]
fn a_position_that_goes_back_takes_nothing_from_the_counter() {
    use crate::consumers::group::GroupPosition;
    let families = Families::new(100).unwrap();
    let topic: Arc<str> = "in".into();
    let position = |committed| GroupPosition {
        partition: 0,
        committed,
        end: 1000,
        lag: 0,
    };
    let consumed = |committed| {
        families.set_position(&topic, &position(committed));
        let text = families.render(true).unwrap();
        lines(&text, "kafka_messages_consumed_total").first().map(|line| (*line).to_owned())
    };
    let line = |count: u32| Some(format!("kafka_messages_consumed_total{{partition=\"0\",topic=\"in\"}} {count}"));
    assert_eq!(consumed(None), None);
    assert_eq!(consumed(Some(500)), line(500));
    assert_eq!(consumed(Some(0)), line(500), "it began anew");
    assert_eq!(consumed(Some(20)), line(520));
    families.forget_group();
    assert!(lines(&families.render(true).unwrap(), "kafka_").is_empty());
    assert_eq!(consumed(Some(30)), line(30));
}
