//! Behaviour of time windows through the test driver.

use super::*;
use crate::event::ClosedBy;
use crate::state::{KeyKind, TimeWindowHead, time_window_key};
use crate::window::time::TimeWindow;

fn timed(size_ms: u64, every_ms: u64, grace_ms: u64, min_samples: u64) -> Monitor {
    Monitor {
        window: Window::Time(TimeWindow::new(size_ms, every_ms, grace_ms).unwrap()),
        min_samples,
        criteria: Criteria {
            significance: 0.0,
            ..Criteria::default()
        },
        ..Monitor::new("m", "t")
    }
}

fn irregular(driver: &mut TestDriver) -> Vec<(Irregular, u64)> {
    let mut irregular = Vec::new();
    driver
        .processor(P0)
        .unwrap()
        .drain_irregular(&mut |_, why, count| irregular.push((why, count)));
    irregular
}

const LEFT: &str = r#"{"x": -1}"#;
const RIGHT: &str = r#"{"x": 1}"#;

#[test]
fn event_of_a_time_window_has_its_bounds_its_records_and_what_closed_it() {
    let mut driver = driver(timed(1000, 1000, 500, 1));
    let events = pipe(
        &mut driver,
        &[(5100, LEFT), (5900, RIGHT), (6100, LEFT), (5999, "{}"), (6499, LEFT), (6500, LEFT)],
    );
    assert_eq!(events.len(), 2);
    let event = &events[0];
    assert_eq!((event.window_start_ms, event.window_end_ms), (Timestamp(5000), Timestamp(6000)));
    assert_eq!((event.window_start_offset, event.window_end_offset), (Some(Offset(0)), Some(Offset(3))));
    assert_eq!(
        (event.window_count, event.record_count, event.missing_count),
        (3, RecordNumber(6), Some(1))
    );
    assert_eq!(event.counts.as_deref(), Some(&[1, 1, 1][..]));
    assert_eq!(event.closed_by, Some(ClosedBy::StreamTime));
    assert!(event.event_id.starts_with("app/m/t/0/partition//x/6000/"), "{}", event.event_id);
    assert_eq!((&*events[1].feature, events[1].window_count), ("*", 3));
}

#[test]
fn late_records_and_small_windows_are_counted_and_never_checked() {
    let mut driver = driver(timed(1000, 500, 0, 2));
    let events = pipe(
        &mut driver,
        // Closes [0, 1000) with one record; then one that is late for one of its two windows, one that is late for both, and one before 1970.
        &[(100, LEFT), (1000, LEFT), (700, LEFT), (200, LEFT), (-1, LEFT)],
    );
    assert_eq!(events, []);
    assert_eq!(
        irregular(&mut driver),
        [
            (Irregular::Late, 1),
            (Irregular::LateForSome, 1),
            (Irregular::NoTime, 1),
            (Irregular::SkippedWindow, 1)
        ]
    );
    assert_eq!(irregular(&mut driver), [], "told once");
    // [500, 1500) has the one at 700, and the one at 1000.
    let events = pipe(&mut driver, &[(1500, LEFT)]);
    assert_eq!(events.iter().map(|event| event.window_count).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn late_record_is_a_dead_letter_where_that_is_asked_for_and_counts_as_a_record_all_the_same() {
    let mut driver = driver(Monitor {
        late_to_dead_letters: true,
        ..timed(1000, 500, 0, 1)
    });
    let rows = [(100, LEFT), (1000, LEFT), (700, LEFT), (200, LEFT)];
    let records = (0..).zip(rows).map(|(offset, (time, value))| InputRecord {
        offset: Offset(offset),
        timestamp: Some(Timestamp(time)),
        value: Some(value.as_bytes()),
        key: None,
    });
    let output = driver.pipe(P0, records).unwrap();
    let late = Disposition::Late {
        check_due: false,
        monitor: "m".into(),
    };
    assert_eq!(output.dispositions[2], Disposition::Processed { check_due: false }, "late for one of two");
    assert_eq!(output.dispositions[3], late);
    assert_eq!(driver.processor(P0).unwrap().record_number(), RecordNumber(4));
}

#[test]
fn idle_partition_has_its_windows_checked_once_and_its_state_says_so() {
    let mut driver = driver(timed(1000, 500, 0, 2));
    assert_eq!(pipe(&mut driver, &[(1100, LEFT), (1600, RIGHT)]), []);
    let events = driver.close_idle(P0).unwrap().events;
    // [500, 1500) and [1500, 2500) have one record each.
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.window_start_ms.0, event.window_count, event.record_count.0, event.closed_by))
        .collect();
    assert_eq!(told, [(1000, 2, 2, Some(ClosedBy::Idle)); 2], "the feature and the summary");
    assert_eq!(driver.close_idle(P0).unwrap().events, []);
    driver.commit();
    driver.restart();
    assert_eq!(driver.close_idle(P0).unwrap().events, [], "also after a restart");
    // The first is late for all of its windows, the second for one of two.
    assert_eq!(pipe(&mut driver, &[(1100, LEFT), (2000, LEFT), (2100, LEFT)]), []);
    assert_eq!(
        irregular(&mut driver),
        [(Irregular::Late, 1), (Irregular::LateForSome, 2)],
        "what was told before the restart is not told again"
    );
    let events = pipe(&mut driver, &[(3000, LEFT)]);
    assert_eq!(
        events.iter().map(|event| (event.window_start_ms.0, event.closed_by)).collect::<Vec<_>>(),
        [(2000, Some(ClosedBy::StreamTime)); 2]
    );
    assert_eq!(events[0].previous_status, Some(Status::NoDrift));
}

#[test]
fn idle_partition_without_a_window_of_enough_records_keeps_them_for_what_may_come() {
    let mut driver = driver(timed(1000, 1000, 0, 3));
    pipe(&mut driver, &[(1100, LEFT), (1600, RIGHT)]);
    assert_eq!(driver.close_idle(P0).unwrap().events, []);
    let events = pipe(&mut driver, &[(1999, LEFT), (2000, LEFT)]);
    assert_eq!(events.iter().map(|event| event.window_count).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(driver_count_window_is_never_idle(), []);
}

/// Count windows know no time.
fn driver_count_window_is_never_idle() -> Vec<DriftEvent> {
    let mut driver = super::driver(monitor("m", 4, 2, 1));
    pipe(&mut driver, &[(1100, LEFT)]);
    driver.close_idle(P0).unwrap().events
}

#[test]
fn field_says_the_time_and_the_timestamp_where_it_says_none() {
    let monitor = Monitor {
        timestamp_field: Some("at".parse().unwrap()),
        ..timed(1000, 1000, 0, 1)
    };
    let mut driver = driver(monitor);
    let rows = [
        (9000, r#"{"x": 1, "at": "1970-01-01T00:00:01.5Z"}"#),
        (9000, r#"{"at": 1700, "x": 1}"#),
        (1800, r#"{"x": 1, "at": "soon"}"#),
        (1900, RIGHT),
        (0, r#"{"x": 1, "at": 2000}"#),
    ];
    let events = pipe(&mut driver, &rows);
    let window = (events[0].window_start_ms, events[0].window_count, events[0].record_count);
    assert_eq!(window, (Timestamp(1000), 4, RecordNumber(5)));
    assert_eq!(irregular(&mut driver), [(Irregular::UnreadableTime, 2)]);
}

#[test]
fn one_record_closes_several_windows_in_order() {
    let mut driver = driver(timed(3000, 1000, 0, 1));
    let events = pipe(&mut driver, &[(3100, LEFT), (4100, RIGHT), (9000, LEFT)]);
    let windows: Vec<_> = events
        .iter()
        .filter(|event| &*event.feature == "x")
        .map(|event| (event.window_start_ms.0, event.window_count, event.previous_status))
        .collect();
    assert_eq!(
        windows,
        [
            (1000, 1, None),
            (2000, 2, Some(Status::Drift)),
            (3000, 2, Some(Status::NoDrift)),
            (4000, 1, Some(Status::NoDrift))
        ]
    );
}

#[test]
fn another_reference_holds_from_the_first_closed_window_on_and_old_panes_are_gone() {
    let mut driver = driver(timed(2000, 1000, 0, 1));
    let other = reference("m", &[("x", 1.0, [50, 50]), ("z", 0.0, [10, 90])]);
    let version = other.version().to_owned();
    pipe(&mut driver, &[(100, LEFT), (1100, LEFT)]);
    driver.commit();
    driver.publish(other).unwrap();
    // Closes [0, 2000), by the old reference; the record that closes it is forgotten with the rest.
    let events = pipe(&mut driver, &[(2100, LEFT)]);
    assert_eq!(events.len(), 2);
    assert_ne!(*events[0].reference_version, *version);
    driver.commit();
    driver.restart();
    let events = pipe(&mut driver, &[(2200, LEFT), (4000, LEFT)]);
    let told: Vec<_> = events
        .iter()
        .map(|event| (&*event.feature, event.window_start_ms.0, event.window_count, event.previous_status))
        .collect();
    let first = [("x", 1000, 1, None), ("z", 1000, 1, None), ("*", 1000, 1, None)];
    assert_eq!(told[..3], first);
    assert!(events.iter().all(|event| *event.reference_version == *version));
    assert_eq!(events.len(), 6);
}

#[test]
fn panes_that_no_open_window_needs_are_deleted() {
    let mut driver = driver(timed(2000, 1000, 0, 1));
    let panes = |driver: &TestDriver| driver.store(P0).unwrap().iter().filter(|(key, _)| key[0] == KeyKind::Pane as u8).count();
    pipe(&mut driver, &[(100, LEFT), (1100, LEFT)]);
    driver.commit();
    assert_eq!(panes(&driver), 2);
    pipe(&mut driver, &[(9000, LEFT)]);
    driver.commit();
    assert_eq!(panes(&driver), 1);
}

/// A store with two live panes.
fn stored() -> InMemoryStore {
    let mut driver = driver(timed(2000, 1000, 0, 1));
    pipe(&mut driver, &[(100, LEFT), (1100, LEFT), (1200, RIGHT)]);
    driver.commit();
    driver.store(P0).unwrap().clone()
}

#[test]
fn changed_kind_or_length_is_refused_with_both() {
    let x = || reference("m", &[("x", 0.0, [50, 50])]);
    assert!(open(timed(2000, 1000, 0, 9), x(), &stored()).is_ok(), "min_samples may change");
    let grace = inconsistent(open(timed(2000, 1000, 1000, 1), x(), &stored()));
    assert!(
        grace.contains("its window was 2000/1000/0 ms (size/every/grace), now it is 2000/1000/1000 ms (size/every/grace)"),
        "{grace}"
    );
    let count = inconsistent(open(monitor("m", 6, 2, 2), x(), &stored()));
    assert!(
        count.contains("its window was 2000/1000/0 ms (size/every/grace), now it is 6/2 records (size/every)"),
        "{count}"
    );
    let time = inconsistent(open(timed(2000, 1000, 0, 1), x(), &super::stored()));
    assert!(
        time.contains("its window was 6/2 records (size/every), now it is 2000/1000/0 ms (size/every/grace)"),
        "{time}"
    );
}

#[test]
fn lost_pane_or_head_is_a_contradiction() {
    let x = || reference("m", &[("x", 0.0, [50, 50])]);
    let contradiction = |key: Vec<u8>, value: Option<Vec<u8>>| {
        let mut store = stored();
        store.apply([Put { key, value }]);
        match open(timed(2000, 1000, 0, 1), x(), &store) {
            Err(StateError::Contradictory(text)) => text,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("opened"),
        }
    };
    let pane = contradiction(pane_key("m", "", "", 1), None);
    assert!(pane.contains("1 panes with 1 records are there, but 2 with 3 were written"), "{pane}");
    let head = contradiction(time_window_key("m", ""), None);
    assert!(head.contains("slot 0 is there, but the window that it belongs to is missing"), "{head}");
    let stored = stored();
    let other = stored.get(&pane_key("m", "", "", 0)).unwrap();
    let moved = contradiction(pane_key("m", "", "", 1), other);
    assert!(moved.contains("slot 1 holds pane 0, whose slot is 0"), "{moved}");
    let head: TimeWindowHead = codec::decode(&stored.get(&time_window_key("m", "")).unwrap().unwrap()).unwrap();
    assert_eq!((head.next, head.panes, head.records, head.record_number), (0, 2, 3, RecordNumber(3)));
}

/// One row: how far its time is from the last one, and its value.
fn rows() -> impl Strategy<Value = Vec<(i64, String)>> {
    let value = prop_oneof![9 => (-3_i64..3).prop_map(|x| format!(r#"{{"x":{x}}}"#)), 1 => Just("nonsense".to_owned())];
    let step = prop_oneof![12 => -150_i64..200, 1 => Just(5000_i64)];
    prop::collection::vec((step, value), 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn restored_time_windows_equal_live_ones(
        panes in 1_u64..5, grace_ms in 0_u64..300, min_samples in 0_u64..5, rows in rows(),
        crashes in prop::collection::vec(0_usize..150, 0..8), change_at in 0_usize..150,
    ) {
        let mut now = 10_000;
        let rows: Vec<(i64, &str)> = rows.iter().map(|(step, value)| {
            now += step;
            (now, value.as_str())
        }).collect();
        let run = |crashes: &[usize]| {
            let mut driver = driver(timed(panes * 100, 100, grace_ms, min_samples));
            let written = run_with_crashes(&mut driver, &rows, change_at, crashes);
            (written, windowings(&mut driver), driver.store(P0).unwrap().clone())
        };
        let mut crashes = crashes;
        crashes.sort_unstable();
        prop_assert_eq!(run(&[]), run(&crashes));
    }
}
