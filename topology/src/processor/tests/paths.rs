//! Features and times within nested fields.

use super::*;
use crate::window::time::TimeWindow;

#[test]
fn monitors_of_one_topic_have_a_feature_each_at_its_own_path() {
    let at = |name: &str, path: &str| Monitor {
        paths: [("x".to_owned(), path.parse().unwrap())].into(),
        ..monitor(name, 2, 2, 2)
    };
    let monitors = [monitor("top", 2, 2, 2), at("in", "/payload/x"), at("first", "/items/0")];
    let references = ["top", "in", "first"].map(|name| reference(name, &[("x", 0.0, [50, 50])]));
    let mut driver = TestDriver::new("app", monitors, published(references));
    let events = pipe(
        &mut driver,
        &[
            (0, r#"{"x": -1, "payload": {"x": 1}, "items": [null, 1]}"#),
            (0, r#"{"x": -1, "payload": {"x": 1, "x": -1}, "items": [1], "payload": {"x": 1}}"#),
        ],
    );
    let counts: Vec<_> = events
        .iter()
        .filter_map(|event| Some((&*event.monitor, event.counts.as_deref()?)))
        .collect();
    assert_eq!(counts, [("top", &[2, 0, 0][..]), ("in", &[0, 2, 0]), ("first", &[0, 1, 1])]);
}

#[test]
fn time_may_stand_within_a_nested_field() {
    let mut driver = driver(Monitor {
        window: Window::Time(TimeWindow::new(1000, 1000, 0).unwrap()),
        timestamp_field: Some("/meta/at".parse().unwrap()),
        ..monitor("m", 1, 1, 1)
    });
    let events = pipe(
        &mut driver,
        &[(9000, r#"{"x": 1, "meta": {"at": 1500}}"#), (9000, r#"{"x": 1, "meta": {"at": 2000}}"#)],
    );
    assert_eq!((events[0].window_start_ms, events[0].window_count), (Timestamp(1000), 1));
}

#[test]
fn path_of_a_feature_that_the_reference_lacks_is_an_error_in_words() {
    let mut driver = driver(Monitor {
        paths: [("y".to_owned(), "/payload/y".parse().unwrap())].into(),
        ..monitor("m", 1, 1, 1)
    });
    let error = driver.pipe(P0, []).unwrap_err().to_string();
    assert!(error.contains("has no feature \"y\"; it has x"), "{error}");
}
