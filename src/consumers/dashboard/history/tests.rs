use leeway_topology::event::{QUALITY_KIND, SCHEMA_VERSION};
use leeway_topology::quality::Violation;

use super::super::testing::{event, read, time_of};
use super::*;

fn limits(series_points: usize, points: usize) -> Limits {
    Limits {
        series_points,
        points,
        incidents: 100,
    }
}

fn numbers(history: &History, feature: &str) -> Vec<Vec<u64>> {
    let series = history.series_of("default", feature);
    series
        .map(|series| series.points.iter().map(|point| point.record_count).collect())
        .collect()
}

#[test]
fn checks_of_one_key_are_one_series() {
    let mut history = History::new("app", Limits::default());
    for k in [100, 200] {
        for partition in [0, 1] {
            history.push(read(event("x", partition, k, 0.01)));
        }
    }
    assert_eq!(numbers(&history, "x"), [[100, 200], [100, 200]]);
    let point = history.series_of("default", "x").next().unwrap().points.back().unwrap().clone();
    assert_eq!(
        (point.counts.to_vec(), point.time_ms, point.window_count),
        (vec![45, 50, 5], time_of(200), 100)
    );
    assert_eq!((point.missing, point.sides, point.offsets), (Some(5), Some((0, 1)), Some((100, 199))));
}

#[test]
fn a_series_keeps_its_latest_checks() {
    let mut history = History::new("app", limits(3, 1000));
    for k in 1..=10 {
        history.push(read(event("x", 0, k, 0.01)));
    }
    assert_eq!(numbers(&history, "x"), [[8, 9, 10]]);
    assert_eq!((history.size().points, history.size().dropped_points), (3, 7));
}

#[test]
fn beyond_the_bound_of_all_series_the_oldest_check_leaves_whoever_has_it() {
    let mut history = History::new("app", limits(100, 4));
    history.push(read(event("old", 0, 1, 0.01)));
    for k in 2..=5 {
        history.push(read(event("x", 0, k, 0.01)));
    }
    assert!(numbers(&history, "old").is_empty(), "a series without checks is gone");
    assert_eq!(numbers(&history, "x"), [[2, 3, 4, 5]]);
    history.push(read(event("old", 0, 6, 0.01)));
    assert_eq!((numbers(&history, "old"), numbers(&history, "x")), (vec![vec![6]], vec![vec![3, 4, 5]]));
    assert_eq!(history.size().series, 2);
}

#[test]
fn memory_stays_bounded_however_many_checks_come() {
    let mut history = History::new("app", limits(5, 50));
    for k in 1..=5000 {
        history.push(read(event(&format!("f{}", k % 7), (k % 3) as i32, k, 0.01)));
    }
    assert!(
        history.points <= 50 && history.arrivals.len() <= 101,
        "{} {}",
        history.points,
        history.arrivals.len()
    );
    let held: usize = history.series.values().map(|series| series.points.len()).sum();
    assert_eq!(held, history.points);
    assert_eq!(history.size().dropped_points + held as u64, 5000);
}

#[test]
fn an_application_that_begins_anew_takes_the_place_of_what_it_said() {
    let mut history = History::new("app", Limits::default());
    for k in [100, 200, 300, 100, 200] {
        history.push(read(event("x", 0, k, 0.01)));
    }
    assert_eq!(numbers(&history, "x"), [[100, 200]]);
    assert_eq!(history.size().points, 2);
}

#[test]
fn events_of_another_application_are_counted_and_left_out() {
    let mut history = History::new("app", Limits::default());
    let mut foreign = event("x", 0, 100, 0.01);
    foreign.event_id = foreign.event_id.replacen("app/", "apple/", 1);
    history.push(read(foreign));
    assert_eq!((history.size().foreign, history.size().events, history.monitors().count()), (1, 0, 0));
}

#[test]
fn a_window_without_times_stands_where_its_event_was_written() {
    let mut history = History::new("app", Limits::default());
    let mut without = event("x", 0, 100, 0.01);
    without.window_start_ms = NO_TIMESTAMP;
    without.window_end_ms = NO_TIMESTAMP;
    history.push(ReadEvent {
        event: Event::Drift(without),
        written: Some(leeway_topology::ids::Timestamp(77)),
    });
    let series = history.series_of("default", "x").next().unwrap();
    assert_eq!((series.points[0].time_ms, series.points[0].start_ms), (77, NO_TIMESTAMP.0));
}

#[test]
fn an_incident_lasts_from_the_first_bad_check_to_the_first_good_one() {
    let mut history = History::new("app", Limits::default());
    for (k, psi) in [(1, 0.01), (2, 0.15), (3, 0.4), (4, 0.2), (5, 0.01), (6, 0.3)] {
        history.push(read(event("x", 0, k, psi)));
    }
    let incidents: Vec<_> = history.incidents.newest().collect();
    assert_eq!(incidents.len(), 2);
    assert_eq!((incidents[0].start_ms, incidents[0].end_ms, incidents[0].checks), (time_of(6), None, 1));
    let first = incidents[1];
    assert_eq!((first.start_ms, first.last_ms, first.end_ms), (time_of(2), time_of(4), Some(time_of(5))));
    assert_eq!((first.status, first.psi, first.checks), (Status::Drift, 0.4, 3));
}

#[test]
fn incidents_are_bounded_too_and_an_open_one_that_left_begins_anew() {
    let mut history = History::new(
        "app",
        Limits {
            incidents: 2,
            ..Limits::default()
        },
    );
    for feature in ["a", "b", "c"] {
        history.push(read(event(feature, 0, 1, 0.4)));
    }
    assert_eq!((history.incidents.newest().count(), history.incidents.dropped()), (2, 1));
    history.push(read(event("a", 0, 2, 0.4)));
    assert_eq!(&*history.incidents.newest().next().unwrap().key.feature, "a");
}

#[test]
fn quality_stands_beside_the_checks_of_its_feature() {
    let mut history = History::new("app", Limits::default());
    history.push(read(event("x", 0, 100, 0.01)));
    let quality = QualityEvent {
        schema_version: SCHEMA_VERSION,
        event_id: "app/default/in/0/partition//quality:x/99/v1".to_owned(),
        kind: QUALITY_KIND.into(),
        monitor: "default".into(),
        scope: Scope::Partition,
        partition: Some(leeway_topology::ids::Partition(0)),
        segment: None,
        feature: "x".into(),
        status: QualityStatus::Violated,
        previous_status: None,
        record_count: leeway_topology::ids::RecordNumber(100),
        window_count: 100,
        missing_share: 0.05,
        missing_threshold: Some(0.01),
        other_share: None,
        other_threshold: None,
        out_of_range_share: None,
        out_of_range_threshold: None,
        violations: vec![Violation::Missing],
        examples: None,
        window_start_offset: None,
        window_end_offset: None,
        window_start_ms: leeway_topology::ids::Timestamp(time_of(1)),
        window_end_ms: leeway_topology::ids::Timestamp(time_of(100)),
        reference_version: "v1".into(),
        closed_by: None,
    };
    let mut push = |status| {
        history.push(ReadEvent {
            event: Event::Quality(QualityEvent { status, ..quality.clone() }),
            written: None,
        });
    };
    push(QualityStatus::Violated);
    push(QualityStatus::Ok);
    push(QualityStatus::Violated);
    let series = history.series_of("default", "x").next().unwrap();
    assert_eq!(series.quality.as_ref().unwrap().violations, ["missing"]);
    let kinds: Vec<_> = history
        .incidents
        .newest()
        .map(|incident| (incident.kind, incident.end_ms.is_some()))
        .collect();
    assert_eq!(kinds, [(Kind::Quality, false), (Kind::Quality, true)]);
}
