//! Scope global with time windows of segments: what goes where, which windows there are, and what is kept.

use super::global_time::{later_reference, watched, x_reference};
use super::*;
use crate::event::{ClosedBy, Event, Scope};
use crate::histogram::Total;
use crate::repartition::{Content, EVERY_SEGMENT, ShippedPane, WindowPart, WindowProgress};
use crate::state::{GlobalTimeSegment, KeyKind, SegmentsHead, global_time_key, global_time_segment_key, open_window_key, segments_key};
use crate::window::time::TimeWindow;

fn segmented(min_samples: u64) -> Monitor {
    Monitor {
        segment_by: vec!["s".parse().unwrap()],
        ..watched(Scopes::GLOBAL, min_samples)
    }
}

fn of(segment: &str, x: i64) -> String {
    format!(r#"{{"s": "{segment}", "x": {x}}}"#)
}

/// An input of three partitions, and a repartition topic.
struct Topic {
    input: TestDriver,
    global: TestDriver,
    /// Partitions of the repartition topic.
    places: i32,
    /// After each message there is a commit, and everything but the store is forgotten.
    restarts: bool,
}

impl Topic {
    fn new(monitor: &Monitor, places: i32, restarts: bool) -> Self {
        let published = published([x_reference()]);
        Self {
            input: TestDriver::new("app", [monitor.clone()], published.clone()),
            global: TestDriver::global("app", [monitor.clone()], published),
            places,
            restarts,
        }
    }

    fn send(&mut self, partition: i32, time: i64, segment: &str, x: i64) -> Vec<Event> {
        let sent = self.input.pipe_values(Partition(partition), Timestamp(time), [of(segment, x)]);
        self.ship(&sent.unwrap().panes)
    }

    fn idle(&mut self, partition: i32) -> Vec<Event> {
        let panes = self.input.close_idle(Partition(partition)).unwrap().panes;
        self.ship(&panes)
    }

    /// As a worker does, but for the hash.
    fn ship(&mut self, panes: &[ShippedPane]) -> Vec<Event> {
        let mut events = Vec::new();
        for pane in panes {
            let of_key = pane.segment.bytes().map(i32::from).sum::<i32>() % self.places;
            for place in (0..self.places).filter(|place| pane.is_for_every_partition() || *place == of_key) {
                let output = self.global.pipe_panes(Partition(place), [pane]).unwrap();
                assert!(
                    matches!(output.dispositions[..], [Disposition::Processed { .. }]),
                    "{:?}",
                    output.dispositions
                );
                let mut out = Outputs {
                    events: output.events,
                    quality: output.quality,
                    panes: output.panes,
                };
                out.drain_events(&mut |event| events.push(event));
                if self.restarts {
                    self.global.commit();
                    self.global.restart();
                }
            }
        }
        events
    }

    fn irregular(&mut self) -> Vec<(Irregular, u64)> {
        let mut irregular = Vec::new();
        let processor = self.global.processor(P0).unwrap();
        processor.drain_irregular(&mut |_, why, count| irregular.push((why, count)));
        irregular
    }

    fn keys(&self, kind: KeyKind) -> usize {
        self.global.store(P0).unwrap().iter().filter(|(key, _)| key[0] == kind as u8).count()
    }
}

/// Window start, segment, records, k and what closed it, of each summary.
fn told(events: &[Event]) -> Vec<(i64, &str, u64, u64, ClosedBy)> {
    let drift = events.iter().filter_map(|event| match event {
        Event::Drift(event) => event.is_summary().then_some(event),
        Event::Quality(_) => None,
    });
    drift
        .map(|event| {
            assert_eq!((event.scope, event.partition, event.window_end_offset), (Scope::Global, None, None));
            let (segment, count) = (event.segment.as_deref().unwrap(), event.window_count);
            (event.window_start_ms.0, segment, count, event.record_count.0, event.closed_by.unwrap())
        })
        .collect()
}

fn progress_of(panes: &[ShippedPane]) -> Vec<WindowProgress> {
    let progress = panes.iter().filter_map(|pane| match &pane.content {
        Content::Progress(progress) => Some((pane, *progress)),
        _ => None,
    });
    progress
        .map(|(pane, progress)| {
            assert!(pane.is_for_every_partition());
            progress
        })
        .collect()
}

#[test]
fn partition_ships_a_part_for_each_segment_and_then_that_it_has_closed_the_window_for_all() {
    let mut topic = Topic::new(&segmented(1), 1, false);
    let mut send = |time, segment| topic.input.pipe_values(P0, Timestamp(time), [of(segment, 1)]).unwrap().panes;
    let first = send(0, "b");
    assert_eq!(first.len(), 1);
    assert_eq!((&*first[0].segment, first[0].is_for_every_partition()), (EVERY_SEGMENT, true));
    assert_eq!(send(10, "a"), []);
    assert_eq!(send(20, "a"), [], "nothing new to tell");
    let closed = send(250, "c");
    let segments: Vec<_> = closed.iter().map(|pane| (&*pane.segment, pane.is_for_every_partition())).collect();
    assert_eq!(segments, [("s=a", false), ("s=b", false), (EVERY_SEGMENT, true)]);
    let Content::Window(part) = &closed[0].content else {
        panic!("{closed:?}")
    };
    assert_eq!(
        (part.window, part.record_number, part.total.as_slice()[1]),
        (0, RecordNumber(2), 2),
        "k is the segment's"
    );
    let progress = progress_of(&closed)[0];
    assert_eq!(
        (progress.open_from, progress.record_number, progress.is_idle),
        (2, RecordNumber(4), false)
    );
}

#[test]
fn idle_partition_ships_what_it_has_of_every_segment_and_says_that_it_is_idle() {
    let mut topic = Topic::new(&segmented(5), 1, false);
    let mut shipped = |time: Option<i64>, segment| match time {
        Some(time) => topic.input.pipe_values(P0, Timestamp(time), [of(segment, 1)]).unwrap().panes,
        None => topic.input.close_idle(P0).unwrap().panes,
    };
    shipped(Some(110), "a");
    shipped(Some(10), "b");
    let idle = shipped(None, "");
    let parts: Vec<_> = idle
        .iter()
        .filter(|pane| !pane.is_for_every_partition())
        .map(|pane| &*pane.segment)
        .collect();
    assert_eq!(
        parts,
        ["s=a"],
        "too few to be checked, and closed all the same; the other's window had closed before its record came"
    );
    // What was closed in one segment may be open in another.
    let progress = progress_of(&idle)[0];
    assert_eq!((progress.open_from, progress.is_idle), (1, true));
    assert_eq!(shipped(None, ""), [], "said once");
    let woken = shipped(Some(120), "b");
    assert!(!progress_of(&woken)[0].is_idle);
    let closed = shipped(Some(200), "a");
    let parts: Vec<_> = closed.iter().map(|pane| &*pane.segment).collect();
    assert_eq!(parts, ["s=b", EVERY_SEGMENT]);
}

#[test]
fn partition_without_records_says_so_to_every_partition() {
    let mut topic = Topic::new(&segmented(1), 2, false);
    topic.send(0, 10, "a", 1);
    topic.send(1, 10, "b", 1);
    topic.send(0, 100, "a", 1);
    assert_eq!(topic.send(1, 100, "b", 1), []);
    let processor = topic.input.processor(Partition(2));
    assert!(processor.is_none(), "no record, so a driver has not opened it");
    topic.input.pipe(Partition(2), []).unwrap();
    let mut out = Outputs::default();
    let processor = topic.input.processor(Partition(2)).unwrap();
    assert!(processor.announce_empty());
    processor.check(&InMemoryStore::default(), &mut out).unwrap();
    assert!(!processor.announce_empty(), "said once");
    let events = topic.ship(&out.panes);
    let mut told = told(&events);
    told.sort_by_key(|(_, segment, ..)| *segment);
    assert_eq!(told, [(0, "s=a", 1, 2, ClosedBy::Idle), (0, "s=b", 1, 2, ClosedBy::Idle)]);
}

#[test]
fn window_of_a_segment_is_the_sum_of_its_parts_once_every_partition_has_closed_it() {
    for restarts in [false, true] {
        let mut topic = Topic::new(&segmented(2), 1, restarts);
        topic.send(0, 10, "b", 1);
        topic.send(0, 20, "a", 1);
        topic.send(1, 10, "a", -1);
        topic.send(1, 15, "c", 1);
        topic.send(2, 30, "b", 1);
        topic.send(0, 100, "b", 1);
        topic.send(1, 100, "a", 1);
        let events = topic.send(2, 100, "d", 1);
        // By segment; c has too few. Each k is the segment's where its last part was shipped.
        assert_eq!(
            told(&events),
            [(0, "s=a", 2, 3, ClosedBy::StreamTime), (0, "s=b", 2, 3, ClosedBy::StreamTime)]
        );
        let Event::Drift(first) = &events[0] else { panic!() };
        assert_eq!(first.counts, Some(vec![1, 1, 0]));
        assert!(first.event_id.starts_with("app/m/t//global/s%3Da/x/100/"), "{}", first.event_id);
        assert_eq!(first.previous_status, None);
        if !restarts {
            assert_eq!(topic.irregular(), [(Irregular::SkippedWindow, 1)]);
        }
        // Earlier windows first; each segment has its own last status.
        for (partition, time, segment) in [
            (0, 110, "a"),
            (0, 210, "a"),
            (0, 220, "b"),
            (0, 300, "a"),
            (1, 220, "b"),
            (1, 230, "a"),
            (1, 300, "a"),
        ] {
            assert_eq!(topic.send(partition, time, segment, 1), [], "{partition} {time}");
        }
        let events = topic.send(2, 300, "a", 1);
        assert_eq!(
            told(&events),
            [
                (100, "s=a", 2, 8, ClosedBy::StreamTime),
                (200, "s=a", 2, 8, ClosedBy::StreamTime),
                (200, "s=b", 2, 5, ClosedBy::StreamTime)
            ]
        );
        let Event::Drift(second) = &events[0] else { panic!() };
        assert_eq!(second.previous_status, Some(first.status));
    }
}

#[test]
fn part_of_a_segments_window_that_was_checked_is_late_and_that_of_another_segment_is_not() {
    for restarts in [false, true] {
        let mut topic = Topic::new(&segmented(1), 1, restarts);
        topic.idle(2);
        topic.idle(1);
        topic.send(0, 10, "a", 1);
        assert_eq!(told(&topic.send(0, 100, "a", 1)), [(0, "s=a", 1, 2, ClosedBy::Idle)]);
        topic.send(1, 10, "a", 1);
        topic.send(1, 20, "b", 1);
        let events = topic.send(1, 100, "b", 1);
        // Nobody has shipped anything of b's before, so it is whole.
        assert_eq!(told(&events), [(0, "s=b", 1, 2, ClosedBy::Idle)]);
        if !restarts {
            assert_eq!(topic.irregular(), [(Irregular::LateWindow, 1)]);
        }
    }
}

#[test]
fn each_segment_is_measured_by_the_later_reference_of_its_own_parts() {
    let mut topic = Topic::new(&segmented(1), 1, true);
    for (partition, segment) in [(0, "a"), (1, "a"), (1, "b"), (2, "a"), (2, "b")] {
        topic.send(partition, 10, segment, 1);
    }
    topic.send(0, 100, "a", 1);
    topic.input.publish(later_reference()).unwrap();
    topic.global = {
        let mut both = published([x_reference()]);
        both.publish(Arc::new(later_reference()));
        TestDriver::global("app", [segmented(1)], both)
    };
    // Partition 1 closes its first windows by the earlier one and takes the other over, partition 2 as well.
    let rows = [
        (1, 100, "a"),
        (1, 110, "a"),
        (1, 200, "a"),
        (0, 200, "a"),
        (2, 120, "b"),
        (2, 130, "b"),
        (2, 200, "b"),
    ];
    let panes: Vec<_> = rows
        .into_iter()
        .flat_map(|(partition, time, segment)| {
            topic
                .input
                .pipe_values(Partition(partition), Timestamp(time), [of(segment, 1)])
                .unwrap()
                .panes
        })
        .collect();
    let events = topic.ship(&panes);
    let versions: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Drift(event) if event.is_summary() => {
                let is_later = &*event.reference_version == later_reference().version();
                Some((event.segment.as_deref().unwrap(), event.window_start_ms.0, event.window_count, is_later))
            }
            _ => None,
        })
        .collect();
    // Of a's first window the parts of partitions 1 and 2; of its second only that by the later reference. All of b's first were by the earlier one.
    assert_eq!(
        versions,
        [("s=b", 0, 2, false), ("s=a", 100, 1, true), ("s=b", 100, 1, true)],
        "{panes:?}"
    );
}

#[test]
fn segment_expires_by_the_windows_that_have_closed_and_leaves_nothing() {
    for restarts in [false, true] {
        let monitor = Monitor {
            segment_expiry_ms: Some(300),
            ..segmented(1)
        };
        let mut topic = Topic::new(&monitor, 1, restarts);
        topic.idle(1);
        topic.idle(2);
        topic.send(0, 10, "a", 1);
        assert_eq!(told(&topic.send(0, 110, "b", 1)).len(), 1);
        assert_eq!(told(&topic.send(0, 310, "b", 1)).len(), 1);
        topic.send(0, 399, "b", 1);
        topic.global.commit();
        assert_eq!(
            (topic.keys(KeyKind::GlobalTimeSegment), topic.keys(KeyKind::OpenWindow)),
            (2, 0),
            "the last closed ended at 300, a's at 100"
        );
        // Window 300 closes: it ends 300 ms after a's last one.
        topic.send(0, 400, "b", 1);
        topic.global.commit();
        assert_eq!((topic.keys(KeyKind::GlobalTimeSegment), topic.keys(KeyKind::OpenWindow)), (1, 0));
        let head: SegmentsHead = codec::decode(&topic.global.store(P0).unwrap().get(&segments_key("m")).unwrap().unwrap()).unwrap();
        assert_eq!((head.segments, head.reference_version), (1, None));
        // What is so old is late, of whatever segment: nobody knows any more whether it was checked.
        for (time, segment) in [(10, "a"), (20, "c"), (110, "c")] {
            topic.send(1, time, segment, 1);
        }
        let events = topic.send(1, 200, "c", 1);
        assert_eq!(told(&events), [(100, "s=c", 1, 3, ClosedBy::Idle)]);
        if !restarts {
            assert_eq!(topic.irregular(), [(Irregular::LateWindow, 2)]);
        }
        // It begins anew.
        topic.send(0, 410, "a", -1);
        assert_eq!(topic.send(0, 500, "b", 1), [], "the other one is not idle any more");
        let events = topic.send(1, 500, "c", 1);
        let of_a = told(&events).into_iter().find(|(_, segment, ..)| *segment == "s=a");
        assert_eq!(of_a.map(|(start, _, count, ..)| (start, count)), Some((400, 1)));
        let first = events.iter().find_map(|event| match event {
            Event::Drift(event) if event.segment.as_deref() == Some("s=a") => Some(event),
            _ => None,
        });
        assert_eq!(first.unwrap().previous_status, None);
    }
}

#[test]
fn earliest_windows_are_given_up_when_too_many_wait_segment_by_segment() {
    let reference = x_reference();
    let part = |segment: u64, window: u64| ShippedPane {
        monitor: "m".into(),
        segment: format!("s={segment:06}").into(),
        content: Content::Window(WindowPart {
            partition: P0,
            size_ms: 100,
            every_ms: 100,
            grace_ms: 0,
            reference_version: reference.version().into(),
            publication: 1,
            window,
            record_number: RecordNumber(window),
            is_idle: false,
            total: {
                let layout = Layout::new([3]);
                let mut histogram = Histogram::new(&layout);
                histogram.observe(
                    &layout,
                    &[Observation {
                        bin: 1,
                        side: Side::Within,
                        missing: None,
                    }],
                );
                let mut total = Total::new(&layout);
                total.add(&histogram);
                total
            },
        }),
    };
    let progress = |partition, open_from| ShippedPane {
        monitor: "m".into(),
        segment: EVERY_SEGMENT.into(),
        content: Content::Progress(WindowProgress {
            partition: Partition(partition),
            partitions: 2,
            open_from,
            record_number: RecordNumber(0),
            is_idle: false,
        }),
    };
    let mut topic = Topic::new(&segmented(1), 1, false);
    let parts: Vec<_> = (0..100_000).map(|number| part(number % 50_000, number / 50_000)).collect();
    assert_eq!(topic.ship(&parts), []);
    assert_eq!(topic.ship(&[part(0, 2), part(1, 2), progress(0, 3)]), []);
    assert_eq!(
        topic.irregular(),
        [(Irregular::WaitedTooLong, 2)],
        "of the first window those of the first two segments"
    );
    // They are late from then on.
    assert_eq!(topic.ship(&[part(0, 0)]), []);
    assert_eq!(topic.irregular(), [(Irregular::LateWindow, 1)]);
    let events = topic.ship(&[progress(1, 1)]);
    let told = told(&events);
    assert_eq!((told.len(), told[0].1), (50_000 - 2, "s=000002"));
}

#[test]
fn what_one_message_closes_is_closed_in_steps_that_a_commit_and_a_restart_may_come_between() {
    let monitors = [Arc::new(segmented(1))];
    let published = published([x_reference()]);
    let mut input = TestDriver::new("app", [segmented(1)], published.clone());
    let mut panes = Vec::new();
    for time in [10, 110] {
        for partition in 0..3 {
            let values: Vec<_> = (0..400).map(|number| of(&format!("{number:03}"), 1)).collect();
            let records = (0..).zip(&values).map(|(offset, value)| InputRecord {
                offset: Offset(offset),
                timestamp: Some(Timestamp(time)),
                value: Some(value.as_bytes()),
                key: None,
            });
            panes.extend(input.pipe(Partition(partition), records).unwrap().panes);
        }
    }
    let run = |restarts: bool| {
        let mut store = InMemoryStore::default();
        let cache = CacheBudget::unbounded();
        let open = |store: &InMemoryStore| GlobalProcessor::open(&context(&cache), &monitors, Arc::new(published.clone()), store).unwrap();
        let (mut processor, mut events, mut steps) = (open(&store), Vec::new(), 0);
        let commit = |processor: &mut GlobalProcessor, store: &mut InMemoryStore| {
            let mut puts = Vec::new();
            processor.flush(&mut puts);
            assert_eq!(processor.unflushed_bytes(), 0);
            store.apply(puts);
            processor.applied();
        };
        for (offset, pane) in (0..).zip(&panes) {
            let (key, value) = (pane.key(), pane.value());
            let record = InputRecord {
                offset: Offset(offset),
                timestamp: None,
                value: Some(&value),
                key: Some(&key),
            };
            processor.process(&record, &store).unwrap();
            while processor.is_check_due() {
                let mut out = Outputs::default();
                processor.check(&store, &mut out).unwrap();
                events.append(&mut out.events);
                steps += 1;
                if restarts {
                    assert!(processor.unflushed_bytes() > 0);
                    commit(&mut processor, &mut store);
                    processor = open(&store);
                    processor.verify().unwrap();
                }
            }
            if restarts && offset % 100 == 0 {
                commit(&mut processor, &mut store);
            }
        }
        commit(&mut processor, &mut store);
        (events.into_iter().map(|event| event.to_json()).collect::<Vec<_>>(), store, steps)
    };
    let (straight, store, steps) = run(false);
    assert!(steps > 1, "{steps} steps");
    assert_eq!(straight.len(), 2 * 400);
    let (again, store_again, _) = run(true);
    assert!(again == straight, "the same events in the same order");
    assert!(store_again == store, "the same state");
}

#[test]
fn lost_key_is_a_contradiction_and_other_windows_or_segments_are_refused() {
    let mut topic = Topic::new(&segmented(1), 1, false);
    topic.send(0, 10, "a", 1);
    topic.send(0, 20, "b", 1);
    topic.send(0, 100, "a", 1);
    topic.global.commit();
    let stored = topic.global.store(P0).unwrap().clone();
    let cache = CacheBudget::unbounded();
    let open = |monitor: Monitor, store: &InMemoryStore| {
        let references = Arc::new(published([x_reference()]));
        GlobalProcessor::open(&context(&cache), &[Arc::new(monitor)], references, store).map(drop)
    };
    assert!(open(segmented(5), &stored).is_ok(), "min_samples may change");
    let without = |key: Vec<u8>| {
        let mut store = stored.clone();
        store.apply([Put { key, value: None }]);
        open(segmented(1), &store).unwrap_err().to_string()
    };
    let text = without(open_window_key("m", "s=a", 0));
    assert!(
        text.contains("1 open windows with 1 records are there, but 2 with 2 were written"),
        "{text}"
    );
    let text = without(global_time_segment_key("m", "s=b"));
    assert!(text.contains("1 segments are there, but 2 were written"), "{text}");
    let text = without(global_time_key("m", ""));
    assert!(text.contains("nothing says where they belong"), "{text}");
    let text = without(segments_key("m"));
    assert!(text.contains("nothing says how many segments were written"), "{text}");
    let mut closed = stored.clone();
    for key in [global_time_key("m", ""), open_window_key("m", "s=a", 0), open_window_key("m", "s=b", 0)]
        .into_iter()
        .chain(["s=a", "s=b"].map(|segment| global_time_segment_key("m", segment)))
    {
        closed.apply([Put { key, value: None }]);
    }
    let text = open(segmented(1), &closed).unwrap_err().to_string();
    assert!(text.contains("nothing says how far the partitions are"), "{text}");
    let mut store = stored.clone();
    store.apply([Put {
        key: open_window_key("m", "s=b", 0),
        value: None,
    }]);
    store.apply([Put {
        key: open_window_key("m", "s=x", 0),
        value: stored.get(&open_window_key("m", "s=b", 0)).unwrap(),
    }]);
    let text = open(segmented(1), &store).unwrap_err().to_string();
    assert!(
        text.contains("open window 0 of segment s=x is there, but nothing says what it is measured by"),
        "{text}"
    );

    let text = inconsistent(open(watched(Scopes::GLOBAL, 1), &stored));
    assert!(text.contains("`segment_by` was by some fields, now it is not set"), "{text}");
    let counted = Monitor {
        segment_by: segmented(1).segment_by,
        scopes: Scopes::GLOBAL,
        ..monitor("m", 2, 2, 1)
    };
    let text = inconsistent(open(counted.clone(), &stored));
    assert!(text.contains("its window was of time"), "{text}");
    let other = Monitor {
        window: Window::Time(TimeWindow::new(200, 100, 0).unwrap()),
        ..segmented(1)
    };
    let text = inconsistent(open(other, &stored));
    assert!(text.contains("its window was 100/100/0 ms"), "{text}");

    // And the other way round.
    let mut whole = super::global_time::Topic::new(&watched(Scopes::GLOBAL, 1), false);
    whole.send(0, 10, 1);
    whole.send(0, 100, 1);
    whole.global.commit();
    let text = inconsistent(open(segmented(1), whole.global.store(P0).unwrap()));
    assert!(text.contains(r#"`segment_by` was not set, now it is ["s"]"#), "{text}");
    let published = published([x_reference()]);
    let mut input = TestDriver::new("app", [counted.clone()], published.clone());
    let mut global = TestDriver::global("app", [counted], published);
    let panes = input.pipe_values(P0, Timestamp(0), [of("a", 1), of("a", 1)]).unwrap().panes;
    global.pipe_panes(P0, &panes).unwrap();
    global.commit();
    let text = inconsistent(open(segmented(1), global.store(P0).unwrap()));
    assert!(text.contains("its window was of records"), "{text}");
}

#[test]
fn messages_of_other_segments_than_the_monitors_are_none_of_its() {
    let mut topic = Topic::new(&segmented(1), 1, false);
    let whole = TestDriver::new("app", [watched(Scopes::GLOBAL, 1)], published([x_reference()]))
        .pipe_values(P0, Timestamp(100), xs([1, 1]))
        .unwrap()
        .panes;
    let disposition = topic.global.pipe_panes(P0, &whole).unwrap().dispositions;
    let text = format!("{disposition:?}");
    assert!(text.contains(r#"of segment \"\", but the monitor's `segment_by` is [\"s\"]"#), "{text}");
}

#[test]
fn quality_of_a_segment_is_checked_over_its_window_of_the_whole_topic() {
    let mut monitor = segmented(1);
    monitor.quality.limits.missing = Some(0.5);
    for restarts in [false, true] {
        let mut topic = Topic::new(&monitor, 1, restarts);
        topic.idle(2);
        let mut events = Vec::new();
        for start in [0, 100, 200] {
            for partition in 0..2 {
                let missing = topic
                    .input
                    .pipe_values(Partition(partition), Timestamp(start), [r#"{"s": "a"}"#])
                    .unwrap()
                    .panes;
                events.extend(topic.ship(&missing));
                events.extend(topic.send(partition, start, "a", 1));
                events.extend(topic.send(partition, start, "b", 1));
            }
        }
        let quality: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Quality(event) => Some((event.segment.as_deref().unwrap(), event.missing_share, event.previous_status)),
                Event::Drift(_) => None,
            })
            .collect();
        let (violated, ok) = (Some(crate::quality::QualityStatus::Violated), Some(crate::quality::QualityStatus::Ok));
        assert_eq!(
            quality,
            [("s=a", 0.5, None), ("s=b", 0.0, None), ("s=a", 0.5, violated), ("s=b", 0.0, ok)]
        );
    }
}

#[test]
fn bytes_of_the_first_format_are_still_written_and_read() {
    const SEGMENT: &[u8] = include_bytes!("../../../tests/fixtures/global_time_segment.v1.bin");
    let mut topic = Topic::new(&segmented(1), 1, false);
    topic.idle(2);
    for (partition, time) in [(0, 10), (1, 20), (0, 100), (1, 120), (0, 200)] {
        topic.send(partition, time, "a", 1);
    }
    topic.global.commit();
    let stored = topic.global.store(P0).unwrap().get(&global_time_segment_key("m", "s=a")).unwrap();
    assert_eq!(stored.as_deref(), Some(SEGMENT));
    let read: GlobalTimeSegment = codec::decode(SEGMENT).unwrap();
    assert_eq!((read.last, read.next), (1, 1));
    assert_eq!(read.record_numbers, [(Partition(0), RecordNumber(3)), (Partition(1), RecordNumber(2))]);
    assert_eq!(
        (&*read.measured.reference_version, read.measured.summary),
        (x_reference().version(), Some(Status::Drift))
    );
}

/// A record of a partition, or that it is idle.
#[derive(Clone, Debug)]
enum Step {
    Record {
        partition: i32,
        step: i64,
        back: i64,
        segment: u8,
        x: i64,
    },
    Idle {
        partition: i32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => (0_i32..3, 0_i64..60, 0_i64..150, 0_u8..5, -2_i64..3).prop_map(|(partition, step, back, segment, x)| Step::Record {
            partition,
            step,
            back: if back < 100 { 0 } else { back },
            segment,
            x
        }),
        1 => (0_i32..3).prop_map(|partition| Step::Idle { partition }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn restart_and_the_number_of_partitions_change_no_segments_events(
        steps in prop::collection::vec(step(), 1..150),
        min_samples in 1_u64..4,
        expiry in prop::option::of(300_u64..800),
        change_at in 0_usize..200,
    ) {
        let monitor = Monitor {
            window: Window::Time(TimeWindow::new(200, 100, 50).unwrap()),
            segment_expiry_ms: expiry,
            ..segmented(min_samples)
        };
        let run = |places: i32, restarts: bool| {
            let mut topic = Topic::new(&monitor, places, restarts);
            let mut both = published([x_reference()]);
            both.publish(Arc::new(later_reference()));
            topic.global = TestDriver::global("app", [monitor.clone()], both);
            let (mut times, mut by_segment) = ([0_i64; 3], std::collections::BTreeMap::<_, Vec<_>>::new());
            for (at, step) in steps.iter().enumerate() {
                if at == change_at {
                    topic.input.publish(later_reference()).unwrap();
                }
                let events = match step {
                    Step::Record { partition, step, back, segment, x } => {
                        let time = &mut times[*partition as usize];
                        *time += step;
                        topic.send(*partition, (*time - back).max(0), &segment.to_string(), *x)
                    }
                    Step::Idle { partition } => topic.idle(*partition),
                };
                for event in events {
                    let Event::Drift(event) = event else { continue };
                    by_segment.entry(event.segment.clone()).or_default().push(String::from_utf8(event.to_json()).unwrap());
                }
            }
            topic.global.commit();
            let stores: Vec<_> = (0..places).map(|place| topic.global.store(Partition(place)).cloned()).collect();
            (by_segment, stores)
        };
        let straight = run(1, false);
        prop_assert_eq!(&run(1, true), &straight);
        let spread = run(3, true);
        prop_assert_eq!(&spread.0, &straight.0);
        prop_assert_eq!(run(3, false), spread);
        // No window is checked twice.
        for events in straight.0.values() {
            let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event.split(r#""event_id":""#).nth(1).unwrap().split('"').next().unwrap()).collect();
            prop_assert_eq!(ids.len(), events.len());
        }
    }
}
