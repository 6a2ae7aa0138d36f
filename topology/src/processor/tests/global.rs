//! Scope global: what partitions ship, and the window that it makes.

use super::*;
use crate::event::Scope;
use crate::repartition::{Content, CountPane, ShippedPane};

fn watched(scopes: Scopes, size: u64, every: u64, min_samples: u64) -> Monitor {
    Monitor {
        scopes,
        ..monitor("m", size, every, min_samples)
    }
}

fn x_reference() -> Reference {
    reference("m", &[("x", 0.0, [50, 50])])
}

fn later_reference() -> Reference {
    reference("m", &[("x", 1.0, [50, 50]), ("z", 0.0, [10, 90])])
}

/// The tasks of the input, and those of the repartition topic.
fn drivers(monitor: &Monitor, references: impl IntoIterator<Item = Reference>) -> (TestDriver, TestDriver) {
    let published = published(references);
    (
        TestDriver::new("app", [monitor.clone()], published.clone()),
        TestDriver::global("app", [monitor.clone()], published),
    )
}

fn count_pane(shipped: &ShippedPane) -> &CountPane {
    match &shipped.content {
        Content::Count(pane) => pane,
        other => panic!("{other:?}"),
    }
}

/// The panes of so many values of a partition.
fn panes(input: &mut TestDriver, partition: i32, values: impl IntoIterator<Item = i64>) -> Vec<ShippedPane> {
    input.pipe_values(Partition(partition), Timestamp(1000), xs(values)).unwrap().panes
}

#[test]
fn each_whole_pane_is_shipped_once_whether_a_check_is_due_or_not() {
    let (mut input, _) = drivers(&watched(Scopes::BOTH, 6, 2, 6), [x_reference()]);
    let output = input.pipe_values(P0, Timestamp(1000), xs([1; 7])).unwrap();
    assert_eq!(outline(&output.events), [("x", 6), ("*", 6)]);
    let numbers: Vec<_> = output
        .panes
        .iter()
        .map(count_pane)
        .map(|CountPane { pane, .. }| (pane.number.0, pane.histogram.records()))
        .collect();
    assert_eq!(numbers, [(0, 2), (1, 2), (2, 2)]);
    let mut unwatched = driver(monitor("m", 6, 2, 6));
    assert_eq!(unwatched.pipe_values(P0, Timestamp(1000), xs([1; 7])).unwrap().panes, []);
}

#[test]
fn panes_of_all_partitions_make_one_window_that_is_checked_after_each() {
    let (mut input, mut global) = drivers(&watched(Scopes::GLOBAL, 4, 2, 4), [x_reference()]);
    let mut shipped = panes(&mut input, 3, [-1, -1]);
    shipped.extend(panes(&mut input, 8, [1, 1]));
    shipped.extend(panes(&mut input, 8, [1, 1]));
    let events = global.pipe_panes(P0, &shipped).unwrap().events;
    assert_eq!(outline(&events), [("x", 4), ("*", 4), ("x", 6), ("*", 6)]);
    let [even, summary, moved, _] = &events[..] else { panic!("{events:?}") };
    assert_eq!((even.psi, even.status, even.previous_status), (0.0, Status::NoDrift, None));
    assert_eq!(even.counts, Some(vec![2, 2, 0]));
    assert_eq!(moved.counts, Some(vec![0, 4, 0]), "the pane of partition 3 is out of the window");
    assert_eq!((moved.status, moved.previous_status), (Status::Drift, Some(Status::NoDrift)));
    for event in &events {
        assert_eq!((event.scope, event.partition), (Scope::Global, None));
        assert_eq!((event.window_start_offset, event.window_end_offset), (None, None));
        assert_eq!(event.window_count, 4);
    }
    assert_eq!((even.window_start_ms, even.window_end_ms), (Timestamp(1000), Timestamp(1001)));
    assert_eq!(even.event_id, format!("app/m/t//global//x/4/{}", x_reference().version()));
    assert_eq!(summary.feature_count, Some(1));
}

#[test]
fn where_only_the_whole_topic_is_watched_partitions_tell_nothing_and_still_change_their_reference() {
    let (mut input, _) = drivers(&watched(Scopes::GLOBAL, 4, 2, 2), [x_reference()]);
    let before = input.pipe_values(P0, Timestamp(0), xs([1; 2])).unwrap();
    input.publish(later_reference()).unwrap();
    let after = input.pipe_values(P0, Timestamp(0), xs([1; 4])).unwrap();
    assert_eq!((before.events, after.events), (vec![], vec![]));
    let versions: Vec<_> = before
        .panes
        .iter()
        .chain(&after.panes)
        .map(|shipped| count_pane(shipped).reference_version.to_string())
        .collect();
    let (old, new) = (x_reference(), later_reference());
    assert_eq!(versions, [old.version(), old.version(), new.version()]);
}

#[test]
fn later_reference_starts_the_window_anew_and_panes_of_the_earlier_one_are_left_out() {
    let references = [x_reference(), later_reference()];
    let (mut slow, mut global) = drivers(&watched(Scopes::BOTH, 4, 2, 4), [x_reference()]);
    let (mut fast, _) = drivers(&watched(Scopes::BOTH, 4, 2, 4), references.clone());
    global.publish(later_reference()).unwrap();

    let old = panes(&mut slow, 0, [1; 4]);
    assert_eq!(outline(&global.pipe_panes(P0, &old).unwrap().events), [("x", 4), ("*", 4)]);
    let new = panes(&mut fast, 1, [1; 4]);
    assert_eq!(global.pipe_panes(P0, &new[..1]).unwrap().events, [], "the window starts anew");
    let stale = panes(&mut slow, 0, [1; 2]);
    let output = global.pipe_panes(P0, &stale).unwrap();
    assert_eq!(output.dispositions, [Disposition::Processed { check_due: false }]);
    let mut left_out = Vec::new();
    let processor = global.processor(P0).unwrap();
    processor.drain_irregular(&mut |monitor, why, count| left_out.push((monitor.to_owned(), why, count)));
    assert_eq!(left_out, [("m".to_owned(), Irregular::StalePane, 1)]);

    global.commit();
    global.restart();
    let events = global.pipe_panes(P0, stale.iter().chain(&new[1..])).unwrap().events;
    assert_eq!(
        outline(&events),
        [("x", 8), ("z", 8), ("*", 8)],
        "record numbers go on, without what was left out"
    );
    assert!(events.iter().all(|event| event.previous_status.is_none() && event.window_count == 4));
    assert!(events.iter().all(|event| *event.reference_version == *later_reference().version()));
}

#[test]
fn reference_that_comes_back_is_the_later_one() {
    let (mut input, mut global) = drivers(&watched(Scopes::BOTH, 4, 2, 4), [x_reference(), later_reference()]);
    let between = panes(&mut input, 0, [1; 2]);
    input.publish(x_reference()).unwrap();
    let back = panes(&mut input, 1, [1; 4]);
    let events = global.pipe_panes(P0, between.iter().chain(&back)).unwrap().events;
    assert_eq!(outline(&events), [("x", 6), ("*", 6)]);
    // What was cut by it before counts as well.
    let (mut before, _) = drivers(&watched(Scopes::BOTH, 4, 2, 4), [x_reference()]);
    let early = panes(&mut before, 2, [-1; 2]);
    let events = global.pipe_panes(P0, between.iter().chain(&early)).unwrap().events;
    assert_eq!(outline(&events), [("x", 8), ("*", 8)]);
    assert_eq!(events[0].counts, Some(vec![2, 2, 0]));
}

#[test]
fn pane_waits_for_a_reference_that_is_not_known_yet() {
    let (mut input, _) = drivers(&watched(Scopes::BOTH, 4, 2, 2), [x_reference()]);
    let (_, mut global) = drivers(&watched(Scopes::BOTH, 4, 2, 2), []);
    let shipped = panes(&mut input, 0, [1; 2]);
    let waiting = Disposition::Waiting {
        monitor: "m".into(),
        version: x_reference().version().into(),
    };
    assert_eq!(global.pipe_panes(P0, &shipped).unwrap().dispositions, [waiting]);
    assert_eq!(global.processor(P0).unwrap().record_number(), RecordNumber(0));
}

#[test]
fn what_is_no_pane_of_this_configuration_is_a_dead_letter_with_its_reason() {
    let reason = |monitor: Monitor, shipped: &[ShippedPane]| {
        let (_, mut global) = drivers(&monitor, [x_reference(), later_reference()]);
        match &global.pipe_panes(P0, shipped).unwrap().dispositions[..] {
            [.., Disposition::Rejected(rejected)] => rejected.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let (mut input, mut global) = drivers(&watched(Scopes::BOTH, 4, 2, 2), [x_reference()]);
    let shipped = panes(&mut input, 0, [1; 2]);
    let resized = reason(watched(Scopes::BOTH, 8, 2, 2), &shipped);
    assert!(resized.contains("cut for a window of 4/2 records, now it is 8/2"), "{resized}");

    let mut damaged = shipped.clone();
    let Content::Count(CountPane { pane, .. }) = &mut damaged[0].content else {
        panic!("a pane")
    };
    pane.histogram = Histogram::new(&Layout::new([3]));
    let empty = reason(watched(Scopes::BOTH, 4, 2, 2), &damaged);
    assert!(empty.contains("it holds 0 records, a whole pane has 2"), "{empty}");
    let Content::Count(CountPane { pane, .. }) = &mut damaged[0].content else {
        panic!("a pane")
    };
    pane.histogram = Histogram::new(&Layout::new([9]));
    let wide = reason(watched(Scopes::BOTH, 4, 2, 2), &damaged);
    assert!(wide.contains("has 11 counters, its reference asks for 5"), "{wide}");

    let mut foreign = shipped;
    foreign[0].monitor = "another".into();
    assert_eq!(global.pipe_panes(P0, &foreign).unwrap().dispositions, [Disposition::Foreign]);
    assert!(matches!(
        &global.pipe_values(P0, Timestamp(0), ["no pane"]).unwrap().dispositions[..],
        [Disposition::Rejected(Rejected::NotAPane { .. })]
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Against the definition: the last size/every panes, in their order, with crashes anywhere.
    #[test]
    fn global_window_is_the_last_panes_of_the_topic(
        every in 1_u64..4,
        panes_per_window in 1_u64..5,
        min_samples in 1_u64..12,
        records in prop::collection::vec((0_i32..3, -2_i64..3), 1..120),
        crashes in prop::collection::vec(0_usize..60, 0..5),
    ) {
        let monitor = watched(Scopes::GLOBAL, every * panes_per_window, every, min_samples);
        let (mut input, mut global) = drivers(&monitor, [x_reference()]);
        let mut shipped = Vec::new();
        let mut cut: Vec<[u64; 2]> = Vec::new();
        let mut open: std::collections::BTreeMap<i32, Vec<i64>> = std::collections::BTreeMap::new();
        for (partition, x) in records {
            shipped.extend(panes(&mut input, partition, [x]));
            let pane = open.entry(partition).or_default();
            pane.push(x);
            if pane.len() as u64 == every {
                let left = pane.iter().filter(|x| **x <= 0).count() as u64;
                cut.push([left, every - left]);
                pane.clear();
            }
        }
        prop_assert_eq!(shipped.len(), cut.len());
        let mut expected = Vec::new();
        for end in 1..=cut.len() {
            let window = &cut[end.saturating_sub(panes_per_window as usize)..end];
            let k = end as u64 * every;
            if k >= min_samples {
                let counts = window.iter().fold(vec![0, 0, 0], |sum, pane| vec![sum[0] + pane[0], sum[1] + pane[1], 0]);
                expected.push((k, Some(counts)));
            }
        }
        let mut found = std::collections::BTreeMap::new();
        let mut crashes = crashes.iter().peekable();
        for step in 0.. {
            let at = global.position(P0).0 as usize;
            let Some(pane) = shipped.get(at) else { break };
            for event in global.pipe_panes(P0, [pane]).unwrap().events.iter().filter(|event| !event.is_summary()) {
                let before = found.insert(event.record_count.0, event.counts.clone());
                prop_assert!(before.is_none_or(|before| before == event.counts), "a replay says the same");
            }
            if step % 3 == 0 {
                global.commit();
            }
            if crashes.next_if(|crash| **crash <= step).is_some() {
                global.restart();
            }
        }
        prop_assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }
}
