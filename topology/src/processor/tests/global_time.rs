//! Scope global with time windows: who is waited for, and what counts.

use super::*;
use crate::event::{ClosedBy, Scope};
use crate::repartition::{Content, ShippedPane};
use crate::window::time::TimeWindow;

pub(super) fn watched(scopes: Scopes, min_samples: u64) -> Monitor {
    Monitor {
        scopes,
        window: Window::Time(TimeWindow::new(100, 100, 0).unwrap()),
        ..monitor("m", 2, 2, min_samples)
    }
}

pub(super) fn x_reference() -> Reference {
    reference("m", &[("x", 0.0, [50, 50])])
}

pub(super) fn later_reference() -> Reference {
    reference("m", &[("x", 1.0, [50, 50])])
}

pub(super) struct Topic {
    pub(super) input: TestDriver,
    pub(super) global: TestDriver,
    restarts: bool,
}

impl Topic {
    pub(super) fn new(monitor: &Monitor, restarts: bool) -> Self {
        let published = published([x_reference()]);
        Self {
            input: TestDriver::new("app", [monitor.clone()], published.clone()),
            global: TestDriver::global("app", [monitor.clone()], published),
            restarts,
        }
    }

    /// What one record of a partition leads to in the whole topic.
    pub(super) fn send(&mut self, partition: i32, time: i64, x: i64) -> Vec<DriftEvent> {
        let panes = self.input.pipe_values(Partition(partition), Timestamp(time), xs([x])).unwrap().panes;
        self.ship(&panes)
    }

    pub(super) fn idle(&mut self, partition: i32) -> Vec<DriftEvent> {
        let panes = self.input.close_idle(Partition(partition)).unwrap().panes;
        self.ship(&panes)
    }

    fn ship(&mut self, panes: &[ShippedPane]) -> Vec<DriftEvent> {
        let mut events = Vec::new();
        for pane in panes {
            events.extend(self.global.pipe_panes(P0, [pane]).unwrap().events);
            if self.restarts {
                self.global.commit();
                self.global.restart();
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
}

/// Window start, records, k and what closed it, of each summary.
fn told(events: &[DriftEvent]) -> Vec<(i64, u64, u64, ClosedBy)> {
    let summaries = events.iter().filter(|event| event.is_summary());
    summaries
        .map(|event| {
            assert_eq!((event.scope, event.partition, event.window_end_offset), (Scope::Global, None, None));
            let window = (event.window_start_ms.0, event.window_count);
            (window.0, window.1, event.record_count.0, event.closed_by.unwrap())
        })
        .collect()
}

#[test]
fn window_is_checked_once_every_partition_has_closed_it_and_those_without_records_have_said_so() {
    for restarts in [false, true] {
        let mut topic = Topic::new(&watched(Scopes::BOTH, 3), restarts);
        assert_eq!(topic.send(0, 10, 1), []);
        assert_eq!(topic.send(0, 110, 1), [], "the others are not known yet");
        assert_eq!(topic.send(1, 20, -1), []);
        assert_eq!(topic.send(1, 30, -1), []);
        assert_eq!(topic.send(1, 150, -1), [], "one is not known yet");
        // A driver says that there are three partitions.
        let empty = topic.input.close_idle(Partition(2)).unwrap().panes;
        let events = topic.ship(&empty);
        assert_eq!(told(&events), [(0, 3, 5, ClosedBy::Idle)]);
        assert_eq!(events[0].counts, Some(vec![2, 1, 0]));
        assert!(events[0].event_id.starts_with("app/m/t//global//x/100/"), "{}", events[0].event_id);
        // It has records after all: from then on it is waited for.
        assert_eq!(topic.send(2, 120, 1), []);
        assert_eq!(topic.send(0, 200, 1), []);
        assert_eq!(topic.send(1, 200, 1), []);
        assert_eq!(told(&topic.send(2, 210, 1)), [(100, 3, 9, ClosedBy::StreamTime)]);
    }
}

#[test]
fn idle_partition_closes_windows_with_too_few_records_for_a_check_of_its_own() {
    let mut topic = Topic::new(&watched(Scopes::GLOBAL, 2), false);
    topic.send(0, 10, 1);
    topic.send(1, 10, 1);
    topic.send(1, 100, 1);
    topic.idle(2);
    assert_eq!(told(&topic.idle(0)), [(0, 2, 3, ClosedBy::Idle)]);
    assert_eq!(topic.idle(0), [], "said once");
    assert_eq!(topic.send(0, 20, 1), [], "late for what it closed itself");
}

#[test]
fn part_of_a_window_that_was_checked_before_is_late_and_small_windows_are_counted() {
    let mut topic = Topic::new(&watched(Scopes::GLOBAL, 1), false);
    topic.send(0, 10, 1);
    topic.idle(2);
    topic.idle(1);
    assert_eq!(told(&topic.send(0, 100, 1)), [(0, 1, 2, ClosedBy::Idle)]);
    topic.send(1, 10, 1);
    assert_eq!(topic.send(1, 100, 1), []);
    assert_eq!(topic.irregular(), [(Irregular::LateWindow, 1)]);
    let mut topic = Topic::new(&watched(Scopes::GLOBAL, 3), false);
    topic.send(0, 10, 1);
    topic.idle(2);
    topic.idle(1);
    assert_eq!(topic.send(0, 100, 1), []);
    assert_eq!(topic.irregular(), [(Irregular::SkippedWindow, 1)]);
}

#[test]
fn window_has_the_parts_of_the_later_reference_only() {
    let mut topic = Topic::new(&watched(Scopes::GLOBAL, 1), true);
    for partition in 0..3 {
        topic.send(partition, 10, 1);
    }
    topic.send(0, 100, 1);
    topic.input.publish(later_reference()).unwrap();
    // Partition 1 closes its first window and takes the new one over; its second is measured by that.
    assert_eq!(topic.send(1, 150, 1), []);
    topic.global = {
        let mut both = published([x_reference()]);
        both.publish(Arc::new(later_reference()));
        TestDriver::global("app", [watched(Scopes::GLOBAL, 1)], both)
    };
    let again: Vec<_> = [(1, 160), (1, 200), (0, 200), (2, 100), (2, 120), (2, 200)]
        .into_iter()
        .flat_map(|(partition, time)| topic.input.pipe_values(Partition(partition), Timestamp(time), xs([1])).unwrap().panes)
        .collect();
    let versions: Vec<_> = again
        .iter()
        .filter_map(|pane| match &pane.content {
            Content::Window(part) => Some((part.partition.0, part.window, &*part.reference_version == later_reference().version())),
            _ => None,
        })
        .collect();
    assert_eq!(versions, [(1, 1, true), (0, 1, false), (2, 0, false), (2, 1, true)]);
    let events = topic.ship(&again);
    assert_eq!(told(&events), [(100, 2, events[0].record_count.0, ClosedBy::StreamTime)]);
    assert_eq!(&*events[0].reference_version, later_reference().version());
}

#[test]
fn lost_open_window_or_head_is_a_contradiction_and_other_windows_are_refused() {
    let mut topic = Topic::new(&watched(Scopes::GLOBAL, 1), false);
    topic.send(0, 10, 1);
    topic.send(0, 100, 1);
    topic.global.commit();
    let stored = topic.global.store(P0).unwrap().clone();
    let cache = CacheBudget::unbounded();
    let open = |monitor: Monitor, store: &InMemoryStore| {
        let references = Arc::new(published([x_reference()]));
        GlobalProcessor::open(&context(&cache), &[Arc::new(monitor)], references, store).map(drop)
    };
    assert!(open(watched(Scopes::GLOBAL, 5), &stored).is_ok(), "min_samples may change");
    let without = |key: Vec<u8>| {
        let mut store = stored.clone();
        store.apply([Put { key, value: None }]);
        open(watched(Scopes::GLOBAL, 1), &store).unwrap_err().to_string()
    };
    let text = without(crate::state::open_window_key("m", "", 0));
    assert!(
        text.contains("0 open windows with 0 records are there, but 1 with 1 were written"),
        "{text}"
    );
    let text = without(crate::state::global_time_key("m", ""));
    assert!(text.contains("nothing says where they belong"), "{text}");
    let other = Monitor {
        window: Window::Time(TimeWindow::new(200, 100, 0).unwrap()),
        ..watched(Scopes::GLOBAL, 1)
    };
    let text = inconsistent(open(other, &stored));
    assert!(text.contains("its window was 100/100/0 ms"), "{text}");
    let text = inconsistent(open(
        Monitor {
            scopes: Scopes::GLOBAL,
            ..monitor("m", 2, 2, 1)
        },
        &stored,
    ));
    assert!(text.contains("its window was of time"), "{text}");
}
