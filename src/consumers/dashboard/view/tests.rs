use super::super::history::Limits;
use super::super::testing::{event, read, time_of};
use super::*;

/// Two partitions of two features, checked twice; y drifts in partition 1.
fn history() -> History {
    let mut history = History::new("app", Limits::default());
    for k in [100, 200] {
        for partition in [0, 1] {
            for (feature, psi) in [("x", 0.01), ("y", if partition == 1 { 0.3 } else { 0.02 }), ("*", 0.1)] {
                history.push(read(event(feature, partition, k, psi)));
            }
        }
    }
    history
}

#[test]
fn a_glance_counts_features_by_their_worst_partition() {
    let glance = glance(&history(), &"default".into());
    assert_eq!((glance.features, glance.drifted, glance.possible), (2, 1, 0));
    assert_eq!((glance.status, glance.summary_status), (Some(Status::Drift), Some(Status::PossibleDrift)));
    assert_eq!(
        (glance.partitions, glance.time_ms, glance.from_ms),
        (vec![0, 1], Some(time_of(200)), Some(time_of(100)))
    );
}

#[test]
fn a_monitor_without_events_has_no_status() {
    let glance = glance(&history(), &"other".into());
    assert_eq!((glance.status, glance.features, glance.written_ms), (None, 0, None));
}

#[test]
fn a_row_is_that_of_the_worst_series_selected() {
    let history = history();
    let all = rows(&history, "default", &Selection::default(), 0);
    assert_eq!(all.feature, ["x", "y"]);
    assert_eq!((all.psi[1], all.partition[1], all.series[1], all.drifting[1]), (0.3, Some(1), 2, 1));
    assert_eq!((all.missing[1], &all.trend[1]), (0.05, &vec![0.3, 0.3]));
    let first = Selection {
        partition: Some(0),
        ..Selection::default()
    };
    let first = rows(&history, "default", &first, 0);
    assert_eq!((first.psi[1], first.status[1], first.series[1]), (0.02, Status::NoDrift, 1));
}

#[test]
fn rows_and_points_of_an_update_are_those_that_are_new() {
    let mut history = history();
    let seen = history.number();
    assert!(rows(&history, "default", &Selection::default(), seen).feature.is_empty());
    history.push(read(event("x", 1, 300, 0.05)));
    assert_eq!(rows(&history, "default", &Selection::default(), seen).feature, ["x"]);
    let points = new_points(&history, "default", &Selection::default(), seen, 10).unwrap();
    assert_eq!(
        (points.feature, points.partition, points.record_count),
        (vec!["x".to_owned()], vec![Some(1)], vec![300])
    );
    assert_eq!(
        new_points(&history, "default", &Selection::default(), 0, 3),
        None,
        "more than there is room for"
    );
}

#[test]
fn a_heat_map_has_the_worst_check_of_each_stretch() {
    let history = history();
    let map = heat_map(&history, "default", &Selection::default(), 2, Some(time_of(100)), Some(time_of(300)));
    assert_eq!(map.feature, ["x", "y"]);
    assert_eq!(map.psi[1], [Some(0.3), Some(0.3)]);
    assert_eq!(map.status, [[0, 0], [2, 2]]);
    let later = heat_map(&history, "default", &Selection::default(), 2, Some(time_of(150)), Some(time_of(350)));
    assert_eq!(later.psi[0], [Some(0.01), None], "no check is not 0");
    let empty = heat_map(&history, "other", &Selection::default(), 5, None, None);
    assert!(empty.feature.is_empty() && empty.to_ms > empty.from_ms);
    let whole = heat_map(&history, "default", &Selection::default(), 4, None, None);
    assert_eq!((whole.from_ms, whole.to_ms), (time_of(100), time_of(200) + 1));
    assert_eq!(whole.psi[0], [Some(0.01), None, None, Some(0.01)]);
}

#[test]
fn short_numbers_keep_four_digits() {
    assert_eq!(
        [0.123_456, 12.345_678, 0.0, 1e-9, 98_765.4].map(short),
        [0.1235, 12.35, 0.0, 1e-9, 98_770.0]
    );
}
