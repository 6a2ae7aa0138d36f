//! Behaviour of the processor through the test driver: due checks, restart, change of reference, monitors that share a topic, state that
//! does not fit.

mod global;
mod global_time;
mod global_time_bytes;
mod global_time_segments;
mod paths;
mod quality;
mod segments;
mod time;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::codec;
use crate::drift::{Criteria, Status, Thresholds};
use crate::event::NO_TIMESTAMP;
use crate::histogram::{Histogram, Layout, Span};
use crate::ids::{Offset, Partition};
use crate::metric::Metric;
use crate::record::{Missing, Observation, Side};
use crate::reference::Reference;
use crate::state::{FeatureHead, ReadStore, StateError, WindowHead, pane_key, window_key};
use crate::test_driver::{InMemoryStore, TestDriver};
use crate::window::{CountWindow, Pane, PaneNumber, Window};

const P0: Partition = Partition(0);

/// A reference of numeric features with one interior edge each, with so many rows left and right of it.
fn reference(monitor: &str, features: &[(&str, f64, [u64; 2])]) -> Reference {
    let rows = features.first().map_or(0, |(_, _, counts)| counts.iter().sum());
    let features = features
        .iter()
        .map(|(name, edge, counts)| {
            json!({"name": name, "kind": "numeric", "binning": "edges", "edges": [edge], "range": [edge - 10.0, edge + 10.0], "counts": counts, "missing": 0})
        })
        .collect();
    reference_of(monitor, rows, features)
}

fn reference_of(monitor: &str, rows: u64, features: Vec<Value>) -> Reference {
    let digest = Sha256::digest(serde_json_canonicalizer::to_vec(&features).unwrap());
    let version: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let document = json!({"schema_version": 1, "version": version, "monitor": monitor, "rows": rows, "features": features});
    Reference::from_json(document.to_string().as_bytes()).unwrap()
}

fn published(references: impl IntoIterator<Item = Reference>) -> PublishedReferences {
    let mut published = PublishedReferences::default();
    for reference in references {
        published.publish(Arc::new(reference));
    }
    published
}

fn monitor(name: &str, size: u64, every: u64, min_samples: u64) -> Monitor {
    Monitor {
        window: Window::Count(CountWindow::new(size, every).unwrap()),
        min_samples,
        criteria: Criteria {
            significance: 0.0,
            ..Criteria::default()
        },
        ..Monitor::new(name, "t")
    }
}

fn context(cache: &Arc<CacheBudget>) -> TaskContext<'_> {
    TaskContext {
        application_id: "app",
        partition: P0,
        partitions: 3,
        cache,
    }
}

fn driver(monitor: Monitor) -> TestDriver {
    let reference = reference(&monitor.name, &[("x", 0.0, [50, 50])]);
    TestDriver::new("app", [monitor], published([reference]))
}

fn xs(values: impl IntoIterator<Item = i64>) -> Vec<String> {
    values.into_iter().map(|x| format!(r#"{{"x":{x}}}"#)).collect()
}

fn inconsistent(result: Result<impl Sized, StateError>) -> String {
    match result {
        Err(StateError::Inconsistent(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

/// Feature and record count of each event.
fn outline(events: &[DriftEvent]) -> Vec<(&str, u64)> {
    events.iter().map(|event| (&*event.feature, event.record_count.0)).collect()
}

#[test]
fn invalid_records_and_tombstones_do_not_count() {
    let mut driver = driver(monitor("m", 4, 2, 2));
    let values: [Option<&[u8]>; 5] = [Some(br#"{"x":1}"#), None, Some(b"[]"), Some(b""), Some(br#"{"x":-1}"#)];
    let records = values.into_iter().enumerate().map(|(offset, value)| InputRecord {
        offset: Offset(offset as i64),
        timestamp: None,
        value,
        key: None,
    });
    let output = driver.pipe(P0, records).unwrap();
    assert!(matches!(
        output.dispositions[..],
        [
            Disposition::Processed { check_due: false },
            Disposition::Tombstone,
            Disposition::Rejected(_),
            Disposition::Rejected(_),
            Disposition::Processed { check_due: true }
        ]
    ));
    assert_eq!(outline(&output.events), [("x", 2), ("*", 2)]);
    let event = &output.events[0];
    assert_eq!((event.window_start_offset, event.window_end_offset), (Some(Offset(0)), Some(Offset(4))));
    assert_eq!(
        (event.window_start_ms, event.window_end_ms),
        (NO_TIMESTAMP, NO_TIMESTAMP),
        "no record has a timestamp"
    );
    assert_eq!(event.event_id, format!("app/m/t/0/partition//x/4/{}", event.reference_version));
    assert_eq!(event.counts.as_deref(), Some(&[1, 1, 0][..]));
    assert_eq!(driver.processor(P0).unwrap().stream_time(), None);
}

#[test]
fn previous_status_is_that_of_the_last_check_across_a_restart() {
    let mut driver = driver(monitor("m", 2, 2, 2));
    let first = driver.pipe_values(P0, Timestamp(5), xs([1, -1])).unwrap().events;
    assert_eq!((first[0].status, first[0].previous_status), (Status::NoDrift, None));
    driver.commit();
    driver.restart();
    let second = driver.pipe_values(P0, Timestamp(3), xs([1, 1])).unwrap().events;
    assert_eq!((second[0].status, second[0].previous_status), (Status::Drift, Some(Status::NoDrift)));
    assert_eq!((second[1].status, second[1].previous_status), (Status::Drift, Some(Status::NoDrift)));
    assert_eq!((second[0].window_start_ms, second[0].window_end_ms), (Timestamp(3), Timestamp(4)));
    assert_eq!(
        driver.processor(P0).unwrap().stream_time(),
        Some(Timestamp(6)),
        "stream time does not go back"
    );
}

#[test]
fn only_changed_keys_are_flushed() {
    let mut driver = driver(monitor("m", 6, 2, 2));
    driver.pipe_values(P0, Timestamp(0), xs([1; 7])).unwrap();
    let mut puts = Vec::new();
    let keys = |puts: &[Put]| puts.iter().map(|put| crate::state::KeyText(&put.key).to_string()).collect::<Vec<_>>();
    driver.processor(P0).unwrap().flush(&mut puts);
    assert_eq!(
        keys(&puts),
        [
            "pane of monitor m, slot 1",
            "pane of monitor m, slot 2",
            "pane of monitor m, slot 0",
            "window of monitor m"
        ]
    );
    puts.clear();
    driver.processor(P0).unwrap().flush(&mut puts);
    assert!(puts.is_empty());
    driver.pipe_values(P0, Timestamp(0), xs([1])).unwrap();
    driver.processor(P0).unwrap().flush(&mut puts);
    assert_eq!(keys(&puts), ["pane of monitor m, slot 0", "window of monitor m"]);
}

#[test]
fn reference_is_changed_after_a_check_and_the_window_starts_empty() {
    let mut driver = driver(monitor("m", 6, 2, 4));
    let old = driver.pipe_values(P0, Timestamp(0), xs([1; 7])).unwrap().events;
    assert_eq!(outline(&old), [("x", 4), ("*", 4), ("x", 6), ("*", 6)]);
    let next = reference("m", &[("x", 5.0, [50, 50]), ("y", 0.0, [90, 10])]);
    let version = next.version().to_owned();
    driver.publish(next).unwrap();
    driver.commit();
    driver.restart();

    let both = driver.pipe_values(P0, Timestamp(0), xs([1; 5])).unwrap().events;
    assert_eq!(
        outline(&both),
        [("x", 8), ("*", 8), ("x", 12), ("y", 12), ("*", 12)],
        "no check until the window holds four records"
    );
    assert_eq!(
        (both[0].reference_version.clone(), both[0].previous_status),
        (old[0].reference_version.clone(), Some(Status::Drift))
    );
    let event = &both[2];
    assert_eq!(
        (&*event.reference_version, event.previous_status, event.window_count),
        (&*version, None, 4)
    );
    assert_eq!((event.window_start_offset, event.missing_count), (Some(Offset(8)), Some(0)));
    assert_eq!(both[3].missing_count, Some(4));
    assert_eq!(both[4].previous_status, None);

    driver.commit();
    driver.restart();
    let more = driver.pipe_values(P0, Timestamp(0), xs([1; 4])).unwrap().events;
    assert_eq!(outline(&more[..3]), [("x", 14), ("y", 14), ("*", 14)]);
    assert_eq!((more[0].window_count, more[3].window_count), (6, 6));
    assert!(
        more.iter()
            .all(|event| *event.reference_version == *version && event.previous_status.is_some())
    );
}

#[test]
fn reference_is_changed_at_once_while_there_is_no_record() {
    let mut driver = driver(monitor("m", 2, 2, 2));
    driver.pipe_values(P0, Timestamp(0), [b""]).unwrap();
    let next = reference("m", &[("y", 0.0, [50, 50])]);
    driver.publish(next).unwrap();
    let events = driver.pipe_values(P0, Timestamp(0), [r#"{"y":1}"#, r#"{"y":1}"#]).unwrap().events;
    assert_eq!(outline(&events), [("y", 2), ("*", 2)]);
}

#[test]
fn offer_of_the_present_reference_withdraws_another() {
    let mut driver = driver(monitor("m", 2, 2, 2));
    driver.pipe_values(P0, Timestamp(0), xs([1])).unwrap();
    driver.publish(reference("m", &[("y", 0.0, [50, 50])])).unwrap();
    driver.publish(reference("m", &[("x", 0.0, [50, 50])])).unwrap();
    driver.publish(reference("another monitor's", &[("z", 0.0, [50, 50])])).unwrap();
    let events = driver.pipe_values(P0, Timestamp(0), xs([1; 3])).unwrap().events;
    assert_eq!(outline(&events), [("x", 2), ("*", 2), ("x", 4), ("*", 4)]);
    assert_eq!(events[2].previous_status, Some(Status::Drift));
}

#[test]
fn reference_that_lacks_a_monitored_feature_or_one_with_a_weight_is_refused_and_the_present_one_stays() {
    let watched = Monitor {
        features: Some(vec!["x".to_owned()]),
        ..monitor("m", 2, 2, 2)
    };
    let mut weighed = monitor("m", 2, 2, 2);
    weighed.criteria.weights.insert("x".to_owned(), 2.0);
    for monitor in [watched, weighed] {
        let mut driver = driver(monitor);
        driver.pipe_values(P0, Timestamp(0), xs([1])).unwrap();
        assert!(driver.publish(reference("m", &[("y", 0.0, [50, 50])])).is_err());
        driver.commit();
        driver.restart();
        let events = driver.pipe_values(P0, Timestamp(0), xs([1; 3])).unwrap().events;
        assert_eq!(outline(&events), [("x", 2), ("*", 2), ("x", 4), ("*", 4)]);
    }
}

#[test]
fn thresholds_of_a_feature_that_the_reference_lacks_keep_a_monitor_from_starting() {
    let mut monitor = monitor("m", 2, 2, 2);
    monitor.criteria.feature_thresholds.insert("y".to_owned(), Thresholds::default());
    let text = inconsistent(driver(monitor).pipe_values(P0, Timestamp(0), xs([1])));
    assert!(text.contains("has no feature \"y\"; it has x"), "{text}");
}

#[test]
fn metrics_that_a_monitor_asks_for_are_in_its_events_but_not_in_the_summary() {
    let mut monitor = monitor("m", 4, 4, 4);
    monitor.criteria.metrics = [Metric::Ks, Metric::Wasserstein].into();
    let events = driver(monitor).pipe_values(P0, Timestamp(0), xs([-5, -5, -5, 20])).unwrap().events;
    let metrics = |event: &DriftEvent| (event.js, event.ks, event.wasserstein, event.chi2_p_value);
    // The middles are -5 and 5, and 20 stands at the end of the range, 10.
    assert_eq!(metrics(&events[0]), (None, Some(0.25), Some(3.75), None));
    assert_eq!(metrics(&events[1]), (None, None, None, None));
}

#[test]
fn monitors_of_a_topic_share_its_records_and_keep_their_own_windows() {
    let references = || {
        [
            reference("a", &[("x", 0.0, [50, 50]), ("y", 0.0, [50, 50])]),
            reference("b", &[("y", 5.0, [30, 70]), ("x", 1.0, [50, 50])]),
        ]
    };
    let (a, b) = (
        monitor("a", 4, 2, 2),
        Monitor {
            features: Some(vec!["x".to_owned()]),
            ..monitor("b", 3, 3, 3)
        },
    );
    let values: Vec<String> = (0..12).map(|i| format!(r#"{{"y":{},"x":{}}}"#, i % 3, i % 5 - 2)).collect();
    let mut shared = TestDriver::new("app", [a.clone(), b.clone()], published(references()));
    let events = shared.pipe_values(P0, Timestamp(0), &values).unwrap().events;
    for own in [a, b] {
        let name = Arc::clone(&own.name);
        let mut alone = TestDriver::new("app", [own], published(references()));
        let expected = alone.pipe_values(P0, Timestamp(0), &values).unwrap().events;
        assert_eq!(events.iter().filter(|event| event.monitor == name).cloned().collect::<Vec<_>>(), expected);
        let version = expected[0].reference_version.clone();
        assert!(
            references().iter().any(|reference| *reference.version() == *version),
            "a selection keeps the published version"
        );
    }
    assert_eq!(shared.processor(P0).unwrap().record_number(), RecordNumber(12));
}

#[test]
fn monitor_that_is_added_later_begins_at_its_first_record() {
    let references = || published([reference("a", &[("x", 0.0, [50, 50])]), reference("b", &[("x", 0.0, [50, 50])])]);
    let mut store = InMemoryStore::default();
    let mut monitors = vec![Arc::new(monitor("a", 2, 2, 2))];
    let mut out = Outputs::default();
    for round in 0..2 {
        let mut processor = DriftProcessor::open(&context(&CacheBudget::unbounded()), &monitors, &references(), &store).unwrap();
        for offset in 0..3 {
            let record = InputRecord {
                offset: Offset(round * 3 + offset),
                timestamp: None,
                value: Some(br#"{"x":1}"#),
                key: None,
            };
            if processor.process(&record, &store).unwrap().is_check_due() {
                processor.check(&store, &mut out).unwrap();
            }
        }
        let mut puts = Vec::new();
        processor.flush(&mut puts);
        store.apply(puts);
        monitors.push(Arc::new(monitor("b", 2, 2, 2)));
    }
    let counts: Vec<_> = out
        .events
        .iter()
        .filter(|event| event.is_summary())
        .map(|event| (&*event.monitor, event.record_count.0))
        .collect();
    assert_eq!(counts, [("a", 2), ("a", 4), ("b", 2), ("a", 6)]);
}

#[test]
fn missing_values_are_told_once_by_feature_and_reason() {
    let mut driver = driver(monitor("m", 2, 2, 2));
    driver
        .pipe_values(
            P0,
            Timestamp(0),
            ["{}", r#"{"x":null}"#, r#"{"x":"1"}"#, r#"{"x":1e400}"#, r#"{"x":null}"#, r#"{"x":0}"#],
        )
        .unwrap();
    let mut seen = Vec::new();
    let processor = driver.processor(P0).unwrap();
    processor.drain_missing(&mut |monitor, feature, missing, count| seen.push((monitor.to_owned(), feature.to_owned(), missing, count)));
    let expected = [(Missing::Absent, 1), (Missing::Null, 2), (Missing::Type, 1), (Missing::Range, 1)];
    assert_eq!(seen, expected.map(|(missing, count)| ("m".to_owned(), "x".to_owned(), missing, count)));
    processor.drain_missing(&mut |_, _, _, _| panic!("told twice"));
}

/// A store after eleven records (panes 3, 4 and the current 5 in slots 0, 1 and 2).
fn stored() -> InMemoryStore {
    let mut driver = driver(monitor("m", 6, 2, 2));
    driver.pipe_values(P0, Timestamp(0), xs(0..11)).unwrap();
    driver.commit();
    driver.store(P0).unwrap().clone()
}

fn open(monitor: Monitor, reference: Reference, store: &InMemoryStore) -> Result<DriftProcessor, StateError> {
    let processor = DriftProcessor::open(&context(&CacheBudget::unbounded()), &[Arc::new(monitor)], &published([reference]), store)?;
    processor.verify()?;
    Ok(processor)
}

#[test]
fn changed_window_or_features_are_refused_with_both() {
    let x = || reference("m", &[("x", 0.0, [50, 50])]);
    assert!(open(monitor("m", 6, 2, 4), x(), &stored()).is_ok(), "min_samples may change");
    let window = inconsistent(open(monitor("m", 6, 3, 2), x(), &stored()));
    assert!(
        window.starts_with("monitor `m`, topic `t`, partition 0: its window was 6/2 records (size/every), now it is 6/3 records (size/every): "),
        "{window}"
    );
    assert!(window.contains("leeway reset"), "{window}");
    let gone = inconsistent(open(monitor("m", 6, 2, 2), reference("m", &[("y", 0.0, [50, 50])]), &stored()));
    assert!(gone.contains(x().version()) && gone.contains("not published any more"), "{gone}");

    let two = || reference("m", &[("x", 0.0, [50, 50]), ("y", 0.0, [50, 50])]);
    let mut driver = TestDriver::new("app", [monitor("m", 2, 2, 2)], published([two()]));
    driver.pipe_values(P0, Timestamp(0), xs([1])).unwrap();
    driver.commit();
    let selected = Monitor {
        features: Some(vec!["x".to_owned()]),
        ..monitor("m", 2, 2, 2)
    };
    let features = inconsistent(open(selected, two(), driver.store(P0).unwrap()));
    assert!(features.contains(r#"were [("x", 3), ("y", 3)], now they are [("x", 3)]"#), "{features}");
}

#[test]
fn monitor_without_a_reference_cannot_be_opened() {
    let text = inconsistent(open(
        monitor("m", 6, 2, 2),
        reference("another", &[("x", 0.0, [50, 50])]),
        &InMemoryStore::default(),
    ));
    assert!(text.contains("no reference is published"), "{text}");
}

#[test]
fn state_that_contradicts_itself_is_never_continued() {
    let fault = |key: Vec<u8>, value: Option<Vec<u8>>| {
        let mut store = stored();
        store.apply([Put { key, value }]);
        open(monitor("m", 6, 2, 2), reference("m", &[("x", 0.0, [50, 50])]), &store)
            .err()
            .unwrap()
    };
    let pane = |slot| codec::decode::<Pane>(&stored().get(&pane_key("m", "", "", slot)).unwrap().unwrap()).unwrap();
    let key = |slot| pane_key("m", "", "", slot);

    assert!(fault(key(1), None).to_string().ends_with("pane 4 is missing in slot 1"));
    assert!(
        fault(key(1), Some(codec::encode(&pane(0))))
            .to_string()
            .ends_with("slot 1 holds pane 3, not 4")
    );
    let mut partial = pane(2);
    partial.number.0 = 4;
    assert!(
        fault(key(1), Some(codec::encode(&partial)))
            .to_string()
            .ends_with("pane 4 holds 1 records, but record number 11 implies 2")
    );
    let mut doubled = pane(2);
    let same = doubled.histogram.clone();
    doubled.histogram.merge(&same);
    assert!(
        fault(key(2), Some(codec::encode(&doubled)))
            .to_string()
            .ends_with("pane 5 holds 2 records, but record number 11 implies 1")
    );
    assert!(matches!(fault(key(0), Some(vec![codec::FORMAT_VERSION, 0xFF])), StateError::Corrupt { key, .. } if key == "pane of monitor m, slot 0"));

    assert!(
        fault(window_key("m", ""), None)
            .to_string()
            .ends_with("slot 0 is there, but the window that it belongs to is missing")
    );
    let mut head: WindowHead = codec::decode(&stored().get(&window_key("m", "")).unwrap().unwrap()).unwrap();
    head.start = RecordNumber(3);
    assert!(
        fault(window_key("m", ""), Some(codec::encode(&head)))
            .to_string()
            .contains("starts after record 3 and ends at 11")
    );
    assert!(matches!(fault(window_key("m", ""), Some(vec![9])), StateError::Corrupt { key, .. } if key == "window of monitor m"));
}

#[test]
fn bytes_of_the_first_format_are_read_and_still_written() {
    const HEAD: &[u8] = include_bytes!("../../tests/fixtures/window_head.v1.bin");
    const PANE: &[u8] = include_bytes!("../../tests/fixtures/pane.v1.bin");
    let head: WindowHead = WindowHead {
        size: 6,
        every: 2,
        record_number: RecordNumber(11),
        start: RecordNumber(0),
        reference_version: reference("m", &[("x", 0.0, [50, 50])]).version().into(),
        stream_time: Some(Timestamp(10)),
        features: vec![FeatureHead {
            name: "x".into(),
            bins: 3,
            status: Some(Status::Drift),
        }],
        summary: Some(Status::Drift),
    };
    assert_eq!(codec::decode(HEAD), Ok(head));
    let mut histogram = Histogram::new(&Layout::new([3]));
    for _ in 0..2 {
        histogram.observe(
            &Layout::new([3]),
            &[Observation {
                bin: 1,
                side: Side::Within,
                missing: None,
            }],
        );
    }
    let span = Span {
        first: Offset(6),
        last: Offset(7),
        times: Some((Timestamp(6), Timestamp(7))),
    };
    assert_eq!(
        codec::decode(PANE),
        Ok(Pane {
            number: PaneNumber(3),
            histogram,
            span: Some(span)
        })
    );

    let store = stored();
    let values: Vec<_> = store.iter().map(|(_, value)| value.as_slice()).take(2).collect();
    assert_eq!(
        values,
        [HEAD, PANE],
        "a changed format needs a new version, and these bytes stay readable"
    );
}

/// Pipes rows, a time and a value each, from the partition's position on.
fn pipe(driver: &mut TestDriver, rows: &[(i64, &str)]) -> Vec<DriftEvent> {
    let first = driver.position(P0).0;
    let records = (first..).zip(rows).map(|(offset, (time, value))| InputRecord {
        offset: Offset(offset),
        timestamp: Some(Timestamp(*time)),
        value: Some(value.as_bytes()),
        key: None,
    });
    driver.pipe(P0, records).unwrap().events
}

/// Pipes rows one by one, another reference from one of them on. After each step of `crashes` what was piped is committed, and all else forgotten.
/// Gives the events, and leaves everything committed and open.
fn run_with_crashes(driver: &mut TestDriver, rows: &[(i64, &str)], change_at: usize, crashes: &[usize]) -> Vec<(i64, String)> {
    let mut written = Vec::new();
    let mut crashes = crashes.iter().peekable();
    for step in 0.. {
        if step == change_at {
            driver.publish(reference("m", &[("x", 1.0, [50, 50]), ("z", 0.0, [10, 90])])).unwrap();
        }
        let offset = driver.position(P0).0;
        let Some(row) = rows.get(offset as usize) else { break };
        let events = pipe(driver, &[*row]);
        written.extend(events.iter().map(|event| (offset, String::from_utf8(event.to_json()).unwrap())));
        if crashes.next_if(|at| **at <= step).is_some() {
            driver.commit();
            driver.restart();
        }
    }
    driver.commit();
    pipe(driver, &[]);
    written
}

fn windowings(driver: &mut TestDriver) -> Vec<Windowing> {
    driver
        .processor(P0)
        .unwrap()
        .windows()
        .into_iter()
        .map(|window| window.window().clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn restored_equals_live(
        every in 1_u64..6,
        panes in 1_u64..5,
        min_samples in 1_u64..30,
        records in prop::collection::vec(prop_oneof![9 => (-3_i64..3).prop_map(|x| format!(r#"{{"x":{x}}}"#)), 1 => Just("nonsense".to_owned())], 1..120),
        crashes in prop::collection::vec(0_usize..120, 0..8),
        change_at in 0_usize..120,
    ) {
        let rows: Vec<(i64, &str)> = (0..).zip(records.iter().map(String::as_str)).collect();
        let run = |crashes: &[usize]| {
            let mut driver = driver(monitor("m", every * panes, every, min_samples));
            let written = run_with_crashes(&mut driver, &rows, change_at, crashes);
            // Slots of before a change of reference are left as they are, so the store is compared by what is live in it.
            (written, windowings(&mut driver), driver.store(P0).unwrap().get(&window_key("m", "")).unwrap())
        };
        let mut crashes = crashes;
        crashes.sort_unstable();
        prop_assert_eq!(run(&[]), run(&crashes));
    }
}
