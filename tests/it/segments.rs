//! Segments on the embedded broker: what happens to a window that turns out to be damaged when its next record comes.

use std::sync::Arc;

use leeway::state::store::{Batch, StateStore, TaskRange};
use leeway::stream_thread::ThreadError;
use leeway_topology::ids::Partition;
use leeway_topology::state::pane_key;

use crate::world::World;

/// The records of the world lack the field: they are all in one segment.
const SEGMENT: &str = "s=__missing__";

fn world() -> World {
    let mut world = World::new(1);
    let mut monitor = (*world.monitor).clone();
    monitor.segment_by = vec!["s".parse().expect("a field")];
    world.monitor = Arc::new(monitor);
    world
}

#[test]
fn damaged_window_of_a_segment_ends_its_thread_and_is_restored_from_the_changelogs_start() {
    let world = world();
    let store = StateStore::in_memory();
    let mut one = world.start_on("one", 1, 0, store.clone());
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    world.stop(one);
    world.expect_checks(100);

    let range = TaskRange {
        store: "windows-in".into(),
        partition: Partition(0),
    };
    let lease = store.lease(range).expect("free");
    let mut batch = Batch::new();
    batch.put(&lease, &pane_key("default", SEGMENT, "", 9), Some(&[0xFF]));
    store.write(batch).expect("written");
    drop(lease);

    // Its head is sound, so it opens; the first record of the segment needs the pane.
    let mut again = world.start_on("one", 1, 1, store.clone());
    world.produce(0, 50);
    let failed = world.run_until(&mut [&mut again], |_| world.is_drained());
    match failed {
        Err(ThreadError::Failed(text)) => assert!(text.contains(SEGMENT) && text.contains("restored from the changelog's start"), "{text}"),
        other => panic!("{other:?}"),
    }
    again.thread.close(std::time::Duration::ZERO);
    let mut restored = world.start_on("one", 1, 2, store);
    world.drain(&mut [&mut restored]);
    world.expect_checks(150);
}
