//! Scope global with time windows: the bytes of what is stored.

use super::global_time::{Topic, watched};
use super::*;
use crate::state::{global_time_key, open_window_key};

#[test]
fn bytes_of_the_first_format_are_still_written_and_read() {
    const HEAD: &[u8] = include_bytes!("../../../tests/fixtures/global_time_head.v1.bin");
    const OPEN: &[u8] = include_bytes!("../../../tests/fixtures/open_window.v1.bin");
    let mut topic = Topic::new(&watched(Scopes::GLOBAL, 1), false);
    // The first window was checked, a part of the second is there.
    for (partition, time) in [(0, 10), (1, 20), (2, 30), (0, 100), (1, 120), (2, 130), (0, 200)] {
        topic.send(partition, time, 1);
    }
    topic.idle(1);
    topic.global.commit();
    let store = topic.global.store(P0).unwrap();
    assert_eq!(store.iter().count(), 2);
    assert_eq!(store.get(&global_time_key("m", "")).unwrap().as_deref(), Some(HEAD));
    assert_eq!(store.get(&open_window_key("m", "", 1)).unwrap().as_deref(), Some(OPEN));
    // It goes on from there.
    topic.global.restart();
    let events = topic.send(2, 230, -1);
    assert_eq!(
        (events[0].window_start_ms.0, events[0].window_count, events[0].previous_status),
        (100, 3, Some(Status::Drift))
    );
}
