//! Quality checks through the test driver: what they tell, and what a restart, a change of reference or of the settings does to them.

use super::*;
use crate::event::{Event, QUALITY_KIND, QualityEvent, SUMMARY, Scope};
use crate::quality::{ByViolation, Example, Quality, QualityStatus, Violation};
use crate::state::{FeatureQualityHead, KeyKind, QualityHead, WindowHead, decode_head};
use crate::window::time::TimeWindow;

/// The number x as elsewhere, and the category plan.
fn reference_with_a_plan() -> Reference {
    reference_of(
        "m",
        100,
        vec![
            json!({"name": "x", "kind": "numeric", "binning": "edges", "edges": [0.0], "range": [-10.0, 10.0], "counts": [50, 50], "missing": 0}),
            json!({"name": "plan", "kind": "categorical", "binning": "categorical", "categories": ["basic", "pro"], "counts": [60, 40], "other": 0, "missing": 0}),
        ],
    )
}

fn limits(missing: impl Into<Option<f64>>, other: impl Into<Option<f64>>, out_of_range: impl Into<Option<f64>>) -> ByViolation {
    ByViolation {
        missing: missing.into(),
        other: other.into(),
        out_of_range: out_of_range.into(),
    }
}

fn limited(monitor: Monitor) -> Monitor {
    let limits = limits(0.5, 0.25, 0.5);
    Monitor {
        quality: Quality {
            limits,
            ..Quality::default()
        },
        ..monitor
    }
}

fn driver_of(monitor: Monitor) -> TestDriver {
    TestDriver::new("app", [monitor], published([reference_with_a_plan()]))
}

fn quality(driver: &mut TestDriver, time: i64, values: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<QualityEvent> {
    driver.pipe_values(P0, Timestamp(time), values).unwrap().quality
}

fn plans<'a>(plans: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    plans.into_iter().map(|plan| json!({"x": 1, "plan": plan}).to_string()).collect()
}

fn examples(event: &QualityEvent) -> Vec<(&str, u64)> {
    let examples = event.examples.as_deref().unwrap();
    examples.iter().map(|example| (example.value.as_str(), example.count)).collect()
}

/// What is kept of a segment's window (empty: of all records).
fn kept(store: &InMemoryStore, segment: &str) -> Option<QualityHead> {
    let head = store.get(&window_key("m", segment)).unwrap()?;
    decode_head::<WindowHead>(&head).unwrap().1
}

fn timed(size_ms: u64, every_ms: u64) -> Monitor {
    Monitor {
        window: Window::Time(TimeWindow::new(size_ms, every_ms, 0).unwrap()),
        ..monitor("m", 2, 2, 1)
    }
}

#[test]
fn check_tells_the_shares_of_each_feature_its_violations_and_the_values_that_nobody_knows() {
    let mut driver = driver_of(limited(monitor("m", 4, 4, 4)));
    let events = quality(
        &mut driver,
        1000,
        [
            r#"{"x": 11, "plan": "gold"}"#,
            r#"{"x": -11, "plan": 3.0}"#,
            r#"{"x": 0, "plan": "gold"}"#,
            r#"{"plan": "basic"}"#,
        ],
    );
    let [x, plan] = &events[..] else { panic!("{events:?}") };
    let expected = QualityEvent {
        schema_version: 1,
        event_id: format!("app/m/t/0/partition//quality:x/3/{}", reference_with_a_plan().version()),
        kind: QUALITY_KIND.into(),
        monitor: "m".into(),
        scope: Scope::Partition,
        partition: Some(P0),
        segment: None,
        feature: "x".into(),
        status: QualityStatus::Violated,
        previous_status: None,
        record_count: RecordNumber(4),
        window_count: 4,
        missing_share: 0.25,
        missing_threshold: Some(0.5),
        other_share: None,
        other_threshold: None,
        out_of_range_share: Some(2.0 / 3.0),
        out_of_range_threshold: Some(0.5),
        violations: vec![Violation::OutOfRange],
        examples: None,
        window_start_offset: Some(Offset(0)),
        window_end_offset: Some(Offset(3)),
        window_start_ms: Timestamp(1000),
        window_end_ms: Timestamp(1003),
        reference_version: reference_with_a_plan().version().into(),
        closed_by: None,
    };
    assert_eq!(*x, expected);
    assert_eq!((plan.missing_share, plan.other_share, plan.out_of_range_share), (0.0, Some(0.75), None));
    assert_eq!(
        (plan.violations.as_slice(), plan.status),
        (&[Violation::Other][..], QualityStatus::Violated)
    );
    assert_eq!(examples(plan), [("gold", 2), ("3", 1)]);
}

#[test]
fn verdict_before_is_that_of_the_last_check_and_examples_are_of_the_records_since() {
    let mut driver = driver_of(limited(monitor("m", 4, 2, 2)));
    let rows = plans(["gold", "basic", "basic", "silver", "basic", "pro"]);
    let events = quality(&mut driver, 0, &rows);
    let told: Vec<_> = events
        .iter()
        .filter(|event| &*event.feature == "plan")
        .map(|event| {
            (
                event.record_count.0,
                event.previous_status,
                event.status,
                event.other_share,
                examples(event),
            )
        })
        .collect();
    use QualityStatus::Violated;
    assert_eq!(
        told,
        [
            (2, None, Violated, Some(0.5), vec![("gold", 1)]),
            (4, Some(Violated), Violated, Some(0.5), vec![("silver", 1)]),
            (6, Some(Violated), Violated, Some(0.25), vec![])
        ]
    );
    let events = quality(&mut driver, 0, plans(["pro", "pro"]));
    assert_eq!((events[1].previous_status, events[1].status), (Some(Violated), QualityStatus::Ok));
}

#[test]
fn of_each_check_the_quality_events_come_after_those_of_drift() {
    let mut driver = driver_of(limited(timed(100, 100)));
    let rows = plans(["gold"; 3]);
    let rows: Vec<_> = [50, 150, 950].into_iter().zip(rows.iter().map(String::as_str)).collect();
    let records = (0..).zip(&rows).map(|(offset, (time, value))| InputRecord {
        offset: Offset(offset),
        timestamp: Some(Timestamp(*time)),
        value: Some(value.as_bytes()),
        key: None,
    });
    let output = driver.pipe(P0, records).unwrap();
    let mut out = Outputs {
        events: output.events,
        quality: output.quality,
        panes: Vec::new(),
    };
    assert_eq!(out.event_count(), 2 * 5);
    let mut told = Vec::new();
    out.drain_events(&mut |event| {
        told.push(match event {
            Event::Drift(event) => (event.window_end_ms.0, "drift", event.feature.to_string()),
            Event::Quality(event) => (event.window_end_ms.0, "quality", event.feature.to_string()),
        });
    });
    let of = |end: i64| {
        [
            ("drift", "x"),
            ("drift", "plan"),
            ("drift", SUMMARY),
            ("quality", "x"),
            ("quality", "plan"),
        ]
        .map(|(kind, name)| (end, kind, name.to_owned()))
    };
    assert_eq!(told, [of(100), of(200)].concat());
}

#[test]
fn monitor_without_limits_tells_and_keeps_nothing_and_one_that_loses_them_forgets() {
    let mut off = driver_of(monitor("m", 4, 2, 2));
    assert_eq!(quality(&mut off, 0, plans(["gold"; 4])), []);
    off.commit();
    let head = off.store(P0).unwrap().get(&window_key("m", "")).unwrap().unwrap();
    assert!(codec::decode::<WindowHead>(&head).is_ok(), "in the bytes that it always had");

    let published = published([reference_with_a_plan()]);
    let mut store = InMemoryStore::default();
    let mut run = |monitor: Monitor| {
        let mut processor = DriftProcessor::open(&context(&CacheBudget::unbounded()), &[Arc::new(monitor)], &published, &store).unwrap();
        let mut out = Outputs::default();
        let first = processor.record_number().0 as i64;
        for (offset, value) in (first..).zip(plans(["gold"; 4])) {
            let record = InputRecord {
                offset: Offset(offset),
                timestamp: None,
                value: Some(value.as_bytes()),
                key: None,
            };
            if processor.process(&record, &store).unwrap().is_check_due() {
                processor.check(&store, &mut out).unwrap();
            }
        }
        let mut puts = Vec::new();
        processor.flush(&mut puts);
        store.apply(puts);
        let kept = kept(&store, "").is_some();
        (out.quality.iter().map(|event| event.previous_status).collect::<Vec<_>>(), kept)
    };
    let own = |limits| {
        let mut monitor = monitor("m", 4, 4, 2);
        monitor.quality.feature_limits.insert("plan".to_owned(), limits);
        monitor
    };
    let violated = Some(QualityStatus::Violated);
    assert_eq!(run(own(limits(None, 0.5, None))), (vec![None], true));
    assert_eq!(run(own(limits(None, 0.9, None))), (vec![violated], true), "a limit may change");
    assert_eq!(
        run(limited(monitor("m", 4, 4, 2))),
        (vec![None, violated], true),
        "another feature has one too"
    );
    assert_eq!(run(own(limits(0.5, None, None))), (vec![violated], true));
    assert_eq!(run(monitor("m", 4, 4, 2)), (vec![], false));
    assert_eq!(run(limited(monitor("m", 4, 4, 2))), (vec![None, None], true));
}

#[test]
fn another_reference_begins_without_a_verdict_also_after_a_restart_and_a_way_back() {
    let mut driver = driver_of(limited(monitor("m", 4, 2, 2)));
    let mut told = Vec::new();
    let other = || reference("m", &[("x", 1.0, [50, 50])]);
    for published in [None, Some(other()), Some(reference_with_a_plan())] {
        if let Some(published) = published {
            driver.publish(published).unwrap();
            // The check after which it is taken over.
            let events = quality(&mut driver, 0, plans(["gold"; 2]));
            assert!(events.iter().all(|event| event.previous_status.is_some()));
        }
        driver.commit();
        driver.restart();
        let events = quality(&mut driver, 0, plans(["gold"]));
        assert_eq!(events, []);
        driver.commit();
        driver.restart();
        let events = quality(&mut driver, 0, plans(["silver"]));
        told.extend(events.iter().map(|event| {
            let examples = event.examples.as_ref().map(|examples| examples.len());
            (event.feature.to_string(), event.previous_status, examples)
        }));
    }
    let of = |name: &str, examples| (name.to_owned(), None, examples);
    assert_eq!(
        told,
        [of("x", None), of("plan", Some(2)), of("x", None), of("x", None), of("plan", Some(2))]
    );
}

#[test]
fn each_segment_has_its_own_and_begins_anew_when_it_comes_again_after_its_expiry() {
    let mut driver = driver_of(Monitor {
        segment_by: vec!["s".parse().unwrap()],
        segment_expiry_ms: Some(1000),
        ..limited(monitor("m", 4, 2, 2))
    });
    let row = |segment: &str| json!({"s": segment, "x": 1, "plan": "gold"}).to_string();
    for time in [0, 1, 2] {
        quality(&mut driver, time, [row("a")]);
    }
    driver.commit();
    driver.restart();
    assert!(kept(driver.store(P0).unwrap(), "s=a").is_some());
    quality(&mut driver, 2000, [row("b")]);
    driver.commit();
    let store = driver.store(P0).unwrap();
    assert!(kept(store, "s=a").is_none() && kept(store, "s=b").is_some());
    let events = quality(&mut driver, 2001, [row("a"), row("a")]);
    assert_eq!((events[1].segment.as_deref(), events[1].previous_status), (Some("s=a"), None));
    assert_eq!(examples(&events[1]), [("gold", 2)]);
}

#[test]
fn what_one_record_closes_is_told_in_one_order_whatever_comes_between_the_steps() {
    let monitors = [Arc::new(Monitor {
        segment_by: vec!["s".parse().unwrap()],
        ..limited(timed(100, 100))
    })];
    let published = published([reference_with_a_plan()]);
    let run = |restarts: bool| {
        let mut store = InMemoryStore::default();
        let cache = CacheBudget::new(0);
        let open = |store: &InMemoryStore| DriftProcessor::open(&context(&cache), &monitors, &published, store).unwrap();
        let mut processor = open(&store);
        let (mut told, mut steps) = (Vec::new(), 0);
        for number in 0..=600 {
            let value = json!({"s": number, "x": 1, "plan": format!("plan {number}")}).to_string();
            let record = InputRecord {
                offset: Offset(number),
                // The last one closes all others' windows.
                timestamp: Some(Timestamp(if number == 600 { 100 } else { 0 })),
                value: Some(value.as_bytes()),
                key: None,
            };
            processor.process(&record, &store).unwrap();
            while processor.is_check_due() {
                let mut out = Outputs::default();
                processor.check(&store, &mut out).unwrap();
                out.drain_events(&mut |event| told.push(event));
                steps += 1;
                if restarts {
                    let mut puts = Vec::new();
                    processor.flush(&mut puts);
                    store.apply(puts);
                    processor = open(&store);
                }
            }
        }
        (told, steps)
    };
    let (straight, steps) = run(false);
    assert!(steps > 1, "{steps} steps");
    assert_eq!(straight.len(), 600 * 5);
    assert!(run(true).0 == straight);
}

#[test]
fn whole_topic_is_told_of_by_its_counts_without_examples_and_its_partitions_are_silent() {
    let monitor = limited(Monitor {
        scopes: Scopes::GLOBAL,
        ..monitor("m", 4, 2, 4)
    });
    let published = published([reference_with_a_plan()]);
    let mut input = TestDriver::new("app", [monitor.clone()], published.clone());
    let mut panes = Vec::new();
    for (partition, plan) in [(0, "gold"), (1, "basic"), (0, "basic")] {
        let output = input.pipe_values(Partition(partition), Timestamp(0), plans([plan; 2])).unwrap();
        assert_eq!(output.quality, []);
        panes.extend(output.panes);
    }
    input.commit();
    assert_eq!(kept(input.store(P0).unwrap(), ""), None);
    for restarts in [false, true] {
        let mut global = TestDriver::global("app", [monitor.clone()], published.clone());
        let mut events = Vec::new();
        for pane in &panes {
            events.extend(global.pipe_panes(P0, [pane]).unwrap().quality);
            if restarts {
                global.commit();
                global.restart();
            }
        }
        let told: Vec<_> = events
            .iter()
            .filter(|event| &*event.feature == "plan")
            .map(|event| (event.record_count.0, event.other_share, event.previous_status, event.status))
            .collect();
        let violated = QualityStatus::Violated;
        assert_eq!(told, [(4, Some(0.5), None, violated), (6, Some(0.0), Some(violated), QualityStatus::Ok)]);
        let event = &events[1];
        assert_eq!(
            (event.scope, event.partition, event.examples.as_ref(), event.window_end_offset),
            (Scope::Global, None, None, None)
        );
        assert!(event.event_id.starts_with("app/m/t//global//quality:plan/4/"), "{}", event.event_id);
    }
}

#[test]
fn late_records_give_no_examples() {
    let mut driver = driver_of(limited(timed(100, 100)));
    let rows = plans(["gold", "basic", "late", "basic"]);
    let records = (0..).zip([0, 100, 50, 200]).zip(&rows).map(|((offset, time), value)| InputRecord {
        offset: Offset(offset),
        timestamp: Some(Timestamp(time)),
        value: Some(value.as_bytes()),
        key: None,
    });
    let events = driver.pipe(P0, records).unwrap().quality;
    let told: Vec<_> = events.iter().filter(|event| event.examples.is_some()).map(examples).collect();
    assert_eq!(told, [vec![("gold", 1)], vec![]]);
}

#[test]
fn bytes_of_the_first_format_are_read_and_still_written_of_quality() {
    const HEAD: &[u8] = include_bytes!("../../../tests/fixtures/window_head_quality.v2.bin");
    let feature = |name: &str, status| FeatureHead {
        name: name.into(),
        bins: 3,
        status: Some(status),
    };
    let head: WindowHead = WindowHead {
        size: 4,
        every: 2,
        record_number: RecordNumber(3),
        start: RecordNumber(0),
        reference_version: reference_with_a_plan().version().into(),
        stream_time: Some(Timestamp(2)),
        features: vec![
            feature("x", Status::Drift),
            FeatureHead {
                bins: 4,
                ..feature("plan", Status::Drift)
            },
        ],
        summary: Some(Status::Drift),
    };
    let of_quality = |name: &str, status, examples| FeatureQualityHead {
        name: name.into(),
        status: Some(status),
        examples,
    };
    let gold = Example {
        value: "gold".to_owned(),
        count: 1,
    };
    let quality_head = QualityHead {
        features: vec![
            of_quality("x", QualityStatus::Ok, vec![]),
            of_quality("plan", QualityStatus::Violated, vec![gold]),
        ],
    };
    assert_eq!(decode_head(HEAD), Ok((head, Some(quality_head))));
    let mut driver = driver_of(limited(monitor("m", 4, 2, 2)));
    quality(&mut driver, 0, plans(["gold"; 3]));
    driver.commit();
    let stored = driver.store(P0).unwrap().get(&window_key("m", "")).unwrap();
    assert_eq!(
        stored.as_deref(),
        Some(HEAD),
        "a changed format needs a new version, and these bytes stay readable"
    );
}

#[test]
fn damaged_or_lost_quality_is_never_continued() {
    let mut driver = driver_of(limited(monitor("m", 4, 2, 2)));
    quality(&mut driver, 0, plans(["gold"; 3]));
    driver.commit();
    let head = driver.store(P0).unwrap().get(&window_key("m", "")).unwrap().unwrap();
    for value in [Some(head[..head.len() - 1].to_vec()), Some([&head[..], &[0]].concat()), None] {
        let mut store = driver.store(P0).unwrap().clone();
        store.apply([Put {
            key: window_key("m", ""),
            value,
        }]);
        let error = open(limited(monitor("m", 4, 2, 2)), reference_with_a_plan(), &store).err().unwrap();
        assert!(!matches!(error, StateError::Inconsistent(_)), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn restored_equals_live_of_quality(
        is_timed: bool,
        by_segment: bool,
        every in 1_u64..6,
        panes in 1_u64..4,
        cache in prop_oneof![Just(1_usize), Just(1 << 20)],
        records in prop::collection::vec((0_u64..4, -13_i64..13, "[a-l]", 0_u64..4), 1..150),
        crashes in prop::collection::vec(0_usize..150, 0..10),
        change_at in 0_usize..200,
    ) {
        let mut monitor = limited(if is_timed { timed(every * panes * 4, every * 4) } else { monitor("m", every * panes, every, 2) });
        if by_segment {
            monitor.segment_by = vec!["s".parse().unwrap()];
            monitor.segment_expiry_ms = Some(every * panes * 4 + 20);
        }
        let mut time = 0;
        let rows: Vec<(i64, String)> = records.iter().map(|(pause, x, plan, segment)| {
            time += *pause as i64 * if *segment == 3 { 5 } else { 1 };
            let plan = if plan.as_str() < "d" { json!("basic") } else if plan == "l" { json!(null) } else { json!(plan) };
            (time, json!({"s": segment, "x": x, "plan": plan}).to_string())
        }).collect();
        let run = |crashes: &[usize]| {
            let mut driver = driver_of(monitor.clone()).with_cache(cache);
            let mut written = Vec::new();
            let mut crashes = crashes.iter().peekable();
            for step in 0.. {
                if step == change_at {
                    driver.publish(reference("m", &[("x", 1.0, [50, 50])])).unwrap();
                }
                let offset = driver.position(P0);
                let Some((time, value)) = rows.get(offset.0 as usize) else { break };
                let record = InputRecord { offset, timestamp: Some(Timestamp(*time)), value: Some(value.as_bytes()), key: None };
                let output = driver.pipe(P0, [record]).unwrap();
                let mut out = Outputs { events: output.events, quality: output.quality, panes: output.panes };
                out.drain_events(&mut |event| written.push(String::from_utf8(event.to_json()).unwrap()));
                if crashes.next_if(|at| **at <= step).is_some() {
                    driver.commit();
                    driver.restart();
                }
            }
            driver.commit();
            let heads = [KeyKind::Window as u8, KeyKind::TimeWindow as u8];
            let stored = driver.store(P0).unwrap().iter().filter(|(key, _)| heads.contains(&key[0]));
            let kept: Vec<_> = stored.map(|(key, value)| (key.clone(), value.clone())).collect();
            (written, kept)
        };
        let mut crashes = crashes;
        crashes.sort_unstable();
        let (straight, crashed) = (run(&[]), run(&crashes));
        prop_assert_eq!(straight.0, crashed.0);
        prop_assert_eq!(straight.1, crashed.1);
    }
}
