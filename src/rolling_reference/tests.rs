use leeway_topology::binning::Binning;
use leeway_topology::ids::Offset;
use leeway_topology::processor::References as _;
use leeway_topology::reference::Limits;

use super::*;
use crate::broker::memory::MemoryBroker;
use crate::broker::{NewTopic, OutRecord, PlainProducer};

const HOUR_MS: i64 = 3_600_000;

fn rolling(text: &str) -> Rolling {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn periods_end_at_multiples_of_every_and_stay_behind_by_the_lag() {
    let rolling = rolling("rolling:7h,lag:30m,every:2h");
    let hours = |from: i64, to: i64| Timestamp(from * HOUR_MS)..Timestamp(to * HOUR_MS);
    assert_eq!(rolling.period(Timestamp(100 * HOUR_MS)), hours(91, 98), "98 h ended 2 h ago");
    assert_eq!(rolling.period(Timestamp(100 * HOUR_MS + HOUR_MS / 2 - 1)), hours(91, 98));
    assert_eq!(rolling.period(Timestamp(100 * HOUR_MS + HOUR_MS / 2)), hours(93, 100));
}

#[test]
fn a_rolling_reference_is_renewed_daily_or_with_its_span() {
    assert_eq!(rolling("rolling:7d").every_ms, 24 * 3_600_000);
    assert_eq!(rolling("rolling:1h").every_ms, 3_600_000);
    assert_eq!(rolling("rolling:7d,lag:1d,every:6h").to_string(), "rolling:7days,lag:1day,every:6h");
    assert_eq!(rolling(&rolling("rolling:90m,lag:0s").to_string()), rolling("rolling:90m"));
    for (text, fault) in [
        ("rolling:7", "a duration is written as"),
        ("rolling:7d,lag", "durations are written as"),
        ("rolling:7d,rolling:1d", "each once"),
        ("rolling:7d,first:1d", "only `rolling`"),
        ("rolling:500ms", "a second or longer"),
        ("rolling:7d,every:0s", "a second or longer"),
    ] {
        assert!(text.parse::<Rolling>().unwrap_err().contains(fault), "{text}");
    }
}

/// A topic of two partitions; record number i of either has the time i minutes and `{"x": i}`.
fn topic(records: i64) -> MemoryBroker {
    let broker = MemoryBroker::new();
    let new = NewTopic {
        name: "t".into(),
        partitions: 2,
        replication_factor: None,
        config: BTreeMap::new(),
    };
    broker.create_topic(&new, Duration::ZERO).unwrap();
    let mut producer = broker.producer().unwrap();
    for number in 0..records {
        send(&mut producer, number as i32 % 2, number, &format!("{{\"x\": {number}}}"));
    }
    broker
}

fn send(producer: &mut impl PlainProducer, partition: i32, minute: i64, value: &str) {
    let record = OutRecord {
        topic: "t".into(),
        partition: Partition(partition),
        key: None,
        value: (!value.is_empty()).then(|| value.as_bytes().to_vec()),
        headers: Vec::new(),
        timestamp: Some(Timestamp(minute * 60_000)),
    };
    producer.send(record).unwrap();
}

fn reference(min_samples: u64, features: &[&str]) -> RollingReference {
    let mut monitor = Monitor::new("m", "t");
    monitor.min_samples = min_samples;
    monitor.features = (!features.is_empty()).then(|| features.iter().map(|&name| name.to_owned()).collect());
    RollingReference {
        rolling: rolling("rolling:10m,every:5m"),
        options: BuildOptions {
            monitor: "m".to_owned(),
            binning: Binning::Quantile { bins: 2 },
            overrides: Vec::new(),
            max_categories: 50,
            paths: BTreeMap::new(),
            limits: Limits::default(),
        },
        monitor: Arc::new(monitor),
    }
}

fn minutes(from: i64, to: i64) -> Range<Timestamp> {
    Timestamp(from * 60_000)..Timestamp(to * 60_000)
}

fn rows(made: Made) -> Result<u64, u64> {
    match made {
        Made::Reference(built) => Ok(built.reference.rows()),
        Made::TooFew(found) => Err(found),
    }
}

#[test]
fn the_records_of_a_period_make_its_reference_whatever_stands_between_them() {
    let broker = topic(100);
    let mut producer = broker.producer().unwrap();
    for (minute, value) in [
        (25, "no object"),
        (25, ""),
        (3, "{\"x\": 1000}"),
        (200, "{\"x\": 2000}"),
        (26, "{\"x\": 26}"),
    ] {
        send(&mut producer, 0, minute, value);
    }
    let Made::Reference(built) = reference(1, &[]).make(&broker, &minutes(20, 30)).unwrap() else {
        panic!("there are enough")
    };
    // 20 to 29; what came later with such a time stands after the first record of a later time.
    assert_eq!((built.reference.rows(), built.invalid), (10, 0));
    assert_eq!(
        rows(reference(1, &[]).make(&broker, &minutes(95, 150)).unwrap()),
        Ok(5),
        "up to the end, or the first record of a later time"
    );
}

#[test]
fn a_period_with_too_few_records_makes_none() {
    let broker = topic(100);
    assert_eq!(rows(reference(11, &[]).make(&broker, &minutes(20, 30)).unwrap()), Err(10));
    assert_eq!(rows(reference(11, &[]).make(&broker, &minutes(500, 600)).unwrap()), Err(0));
}

#[test]
fn a_reference_without_a_watched_feature_is_refused() {
    let error = reference(1, &["y"]).make(&topic(100), &minutes(0, 50)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("\"y\""), "{error}");
    assert!(!error.may_pass());
}

#[test]
fn each_period_is_published_once_and_a_manual_publication_holds_until_the_next() {
    let (broker, reference) = (topic(100), reference(1, &[]));
    let current = || reference_topic::load(&broker, "app").unwrap().published.current("m").unwrap().reference;
    let end = || {
        let partition = TopicPartition::new("app-reference", Partition(0));
        broker.end_offset(&partition, Duration::ZERO).unwrap()
    };
    reference.renew(&broker, "app", &minutes(0, 10)).unwrap();
    let (first, length) = (current(), end());
    reference.renew(&broker, "app", &minutes(0, 10)).unwrap();
    assert_eq!((end(), length), (length, Offset(2)), "a reference and the pointer to it, once");

    let Made::Reference(by_hand) = reference.make(&broker, &minutes(50, 90)).unwrap() else {
        panic!("there are enough")
    };
    reference_topic::publish(&broker, "app", &by_hand.reference).unwrap();
    reference.renew(&broker, "app", &minutes(0, 10)).unwrap();
    assert_eq!(current().version(), by_hand.reference.version());

    reference.renew(&broker, "app", &minutes(5, 15)).unwrap();
    assert!(![first.version(), by_hand.reference.version()].contains(&current().version()));
    assert_eq!(
        reference_topic::load(&broker, "app").unwrap().rolled_until("m"),
        Some(Timestamp(15 * 60_000))
    );
}
