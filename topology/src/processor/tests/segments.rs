//! Segments: what the oracle's fixtures do not reach. Which windows there are, and when they close, is judged there.

use super::*;
use crate::event::Scope;
use crate::state::{KeyKind, SegmentsHead, segments_key};
use crate::window::time::TimeWindow;

fn segmented(monitor: Monitor) -> Monitor {
    Monitor {
        segment_by: vec!["s".parse().unwrap()],
        ..monitor
    }
}

fn timed(size_ms: u64) -> Monitor {
    Monitor {
        window: Window::Time(TimeWindow::new(size_ms, size_ms, 0).unwrap()),
        ..monitor("m", 2, 2, 1)
    }
}

fn of(segment: impl std::fmt::Display, x: i64) -> String {
    format!(r#"{{"s": "{segment}", "x": {x}}}"#)
}

/// One record at a time.
fn send(driver: &mut TestDriver, time: i64, value: &str) -> Vec<DriftEvent> {
    driver.pipe_values(P0, Timestamp(time), [value]).unwrap().events
}

fn summaries(events: &[DriftEvent]) -> Vec<String> {
    let own = events.iter().filter(|event| event.is_summary());
    own.map(|event| event.segment.as_deref().unwrap_or("none").to_owned()).collect()
}

fn keys(driver: &TestDriver, kind: KeyKind) -> usize {
    driver.store(P0).unwrap().iter().filter(|(key, _)| key[0] == kind as u8).count()
}

fn head(store: &InMemoryStore) -> SegmentsHead {
    codec::decode(&store.get(&segments_key("m")).unwrap().unwrap()).unwrap()
}

#[test]
fn each_segment_has_its_own_records_window_and_verdict() {
    let mut driver = driver(segmented(monitor("m", 2, 2, 2)));
    let values = [of("a", -1), of("b", 1), of("a", 1), of("b", 1)];
    let events = driver.pipe_values(P0, Timestamp(1000), &values).unwrap().events;
    let told: Vec<_> = events
        .iter()
        .filter(|event| !event.is_summary())
        .map(|event| (event.segment.as_deref().unwrap(), event.record_count.0, event.status))
        .collect();
    assert_eq!(told, [("s=a", 2, Status::NoDrift), ("s=b", 2, Status::Drift)]);
    assert!(events[0].event_id.starts_with("app/m/t/0/partition/s%3Da/x/2/"), "{}", events[0].event_id);
    assert_eq!(driver.processor(P0).unwrap().record_number(), RecordNumber(4), "of the partition");
}

#[test]
fn what_one_record_closes_is_closed_in_steps_that_a_commit_and_a_restart_may_come_between() {
    let run = |restarts: bool| {
        let (count, store) = (1000, InMemoryStore::default());
        let (monitors, mut store) = ([Arc::new(segmented(timed(100)))], store);
        let published = published([reference("m", &[("x", 0.0, [50, 50])])]);
        let cache = CacheBudget::new(0);
        let open = |store: &InMemoryStore| DriftProcessor::open(&context(&cache), &monitors, &published, store).unwrap();
        let mut processor = open(&store);
        let commit = |processor: &mut DriftProcessor, store: &mut InMemoryStore| {
            let mut puts = Vec::new();
            processor.flush(&mut puts);
            store.apply(puts);
            processor.applied();
        };
        let (mut events, mut steps) = (Vec::new(), 0);
        // The last one closes all others' windows.
        let values: Vec<_> = (0..count).map(|number| (0, of(number, 1))).chain([(100, of("last", 1))]).collect();
        for (offset, (time, value)) in (0..).zip(&values) {
            let record = InputRecord {
                offset: Offset(offset),
                timestamp: Some(Timestamp(*time)),
                value: Some(value.as_bytes()),
                key: None,
            };
            processor.process(&record, &store).unwrap();
            while processor.is_check_due() {
                let mut out = Outputs::default();
                processor.check(&store, &mut out).unwrap();
                events.append(&mut out.events);
                steps += 1;
                if restarts {
                    commit(&mut processor, &mut store);
                    processor = open(&store);
                }
            }
            if offset % 10 == 0 {
                commit(&mut processor, &mut store);
            }
        }
        (events.into_iter().map(|event| event.to_json()).collect::<Vec<_>>(), steps)
    };
    let (straight, steps) = run(false);
    assert!(steps > 1, "{steps} steps");
    assert_eq!(straight.len(), 2 * 1000);
    assert!(run(true).0 == straight, "the same events in the same order");
}

#[test]
fn windows_leave_memory_when_the_store_has_them_and_not_before() {
    let mut driver = driver(segmented(monitor("m", 4, 2, 2))).with_cache(1);
    let all: Vec<_> = (0..100).map(|number| of(number, 1)).collect();
    driver.pipe_values(P0, Timestamp(0), &all).unwrap();
    assert_eq!(driver.processor(P0).unwrap().windows().len(), 100, "nothing is written");
    driver.commit();
    // The second look finds none touched since the first.
    driver.commit();
    assert_eq!(driver.processor(P0).unwrap().windows().len(), 0);
    let events = driver.pipe_values(P0, Timestamp(1), &all).unwrap().events;
    assert_eq!(events.len(), 2 * 100, "each goes on from what was stored");
    assert!(events.iter().all(|event| event.window_count == 2));
}

#[test]
fn expired_segment_leaves_nothing_in_the_store_and_begins_anew() {
    let mut driver = driver(Monitor {
        segment_expiry_ms: Some(1000),
        ..segmented(monitor("m", 4, 2, 2))
    });
    for time in [0, 1, 2] {
        send(&mut driver, time, &of("a", 1));
    }
    driver.commit();
    driver.restart();
    assert_eq!(summaries(&send(&mut driver, 1001, &of("b", 1))), [""; 0]);
    driver.commit();
    assert_eq!((keys(&driver, KeyKind::Window), keys(&driver, KeyKind::Pane)), (2, 3));
    send(&mut driver, 1002, &of("b", 1));
    driver.commit();
    assert_eq!((keys(&driver, KeyKind::Window), keys(&driver, KeyKind::Pane)), (1, 1));
    assert_eq!(head(driver.store(P0).unwrap()).segments, 1);
    send(&mut driver, 1003, &of("a", 1));
    let events = send(&mut driver, 1004, &of("a", 1));
    assert_eq!((events[0].record_count.0, events[0].previous_status), (2, None));
}

#[test]
fn segment_that_expires_and_comes_again_within_one_commit_is_not_read_from_what_it_was() {
    let mut driver = driver(Monitor {
        segment_expiry_ms: Some(1000),
        ..segmented(monitor("m", 4, 2, 2))
    });
    (0..3).for_each(|time| drop(send(&mut driver, time, &of("a", 1))));
    driver.commit();
    driver.restart();
    send(&mut driver, 5000, &of("b", 1));
    send(&mut driver, 5001, &of("a", 1));
    driver.commit();
    driver.restart();
    let events = send(&mut driver, 5002, &of("a", 1));
    assert_eq!((events[0].record_count.0, events[0].window_count), (2, 2));
}

#[test]
fn segments_of_the_whole_topic_are_merged_apart() {
    let monitor = Monitor {
        scopes: Scopes::GLOBAL,
        max_segments: 1,
        ..segmented(monitor("m", 4, 2, 4))
    };
    let published = published([reference("m", &[("x", 0.0, [50, 50])])]);
    let mut input = TestDriver::new("app", [monitor.clone()], published.clone());
    let mut panes = Vec::new();
    for (partition, segments) in [(0, ["a", "b"]), (1, ["b", "c"])] {
        let values: Vec<_> = segments.iter().flat_map(|segment| [of(segment, 1), of(segment, -1)]).collect();
        panes.extend(input.pipe_values(Partition(partition), Timestamp(0), &values).unwrap().panes);
    }
    let shipped: Vec<_> = panes.iter().map(|pane| &*pane.segment).collect();
    assert_eq!(shipped, ["s=a", "__rest__", "s=b", "__rest__"], "each partition has its own bound");
    for restarts in [false, true] {
        let mut global = TestDriver::global("app", [monitor.clone()], published.clone()).with_cache(1);
        let mut events = Vec::new();
        for pane in panes.iter().chain(&panes[..1]) {
            events.extend(global.pipe_panes(P0, [pane]).unwrap().events);
            if restarts {
                global.commit();
                global.restart();
            }
        }
        let told: Vec<_> = events
            .iter()
            .filter(|event| event.is_summary())
            .map(|event| (event.scope, event.segment.as_deref().unwrap(), event.record_count.0))
            .collect();
        assert_eq!(told, [(Scope::Global, "__rest__", 4), (Scope::Global, "s=a", 4)]);
    }
}

#[test]
fn other_fields_or_none_are_refused_with_both() {
    let mut stored = driver(segmented(monitor("m", 4, 2, 2)));
    send(&mut stored, 0, &of("a", 1));
    stored.commit();
    let store = stored.store(P0).unwrap();
    let x = || reference("m", &[("x", 0.0, [50, 50])]);
    let other = Monitor {
        segment_by: vec!["t".parse().unwrap(), "/u/v".parse().unwrap()],
        ..monitor("m", 4, 2, 2)
    };
    let text = inconsistent(open(other, x(), store));
    assert!(text.contains(r#"`segment_by` was ["s"], now it is ["t", "/u/v"]"#), "{text}");
    let text = inconsistent(open(monitor("m", 4, 2, 2), x(), store));
    assert!(text.contains("`segment_by` was by some fields, now it is not set"), "{text}");
    let mut whole = driver(monitor("m", 4, 2, 2));
    whole.pipe_values(P0, Timestamp(0), xs([1])).unwrap();
    whole.commit();
    let text = inconsistent(open(segmented(monitor("m", 4, 2, 2)), x(), whole.store(P0).unwrap()));
    assert!(text.contains(r#"`segment_by` was not set, now it is ["s"]"#), "{text}");
    let text = inconsistent(open(segmented(monitor("m", 6, 2, 2)), x(), store));
    assert!(text.contains("its window was 4/2 records"), "{text}");
    let text = inconsistent(open(segmented(timed(100)), x(), store));
    assert!(text.contains("its window was"), "{text}");
}

#[test]
fn lost_head_is_a_contradiction_when_it_opens_and_a_lost_pane_when_it_is_read() {
    let mut driver = driver(segmented(monitor("m", 4, 2, 2)));
    send(&mut driver, 0, &of("a", 1));
    driver.commit();
    let without = |key: Vec<u8>| {
        let mut store = driver.store(P0).unwrap().clone();
        store.apply([Put { key, value: None }]);
        store
    };
    let open = |store: &InMemoryStore| open(segmented(monitor("m", 4, 2, 2)), reference("m", &[("x", 0.0, [50, 50])]), store);
    let error = open(&without(window_key("m", "s=a"))).err().unwrap();
    assert!(error.to_string().contains("0 segments are there, but 1 were written"), "{error}");
    let store = without(pane_key("m", "s=a", "", 0));
    let mut opened = open(&store).unwrap();
    let record = InputRecord {
        offset: Offset(1),
        timestamp: None,
        value: Some(br#"{"s": "a", "x": 1}"#),
        key: None,
    };
    let error = opened.process(&record, &store).unwrap_err();
    assert!(error.to_string().contains("segment s=a: pane 0 is missing in slot 0"), "{error}");
}
