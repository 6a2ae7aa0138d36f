//! What must hold after a run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use leeway::broker::Broker;
use leeway::state::store::{StateStore, TaskRange};
use leeway::task::progress::{Progress, checkpoint_key};
use leeway_topology::event::DriftEvent;
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::Disposition;
use leeway_topology::record::InputRecord;
use leeway_topology::state::progress_key;
use leeway_topology::test_driver::TestDriver;

use crate::world::{APPLICATION, World};

/// Per partition, what was sent to it, in order: value and timestamp.
type Sent = [Vec<(Option<Vec<u8>>, Timestamp)>];

/// What all of this does, without a broker.
fn driver(world: &World) -> TestDriver {
    TestDriver::new(APPLICATION, [(*world.monitor).clone()], (*world.references).clone())
}

fn records(sent: &[(Option<Vec<u8>>, Timestamp)]) -> impl Iterator<Item = InputRecord<'_>> {
    (0..).zip(sent).map(|(offset, (value, timestamp))| InputRecord {
        offset: Offset(offset),
        timestamp: Some(*timestamp),
        value: value.as_deref(),
    })
}

/// The topic holds, per partition and feature, exactly the bytes that the dataflow gives without a broker, in their order.
pub(crate) fn events(world: &World, sent: &Sent) -> Result<(), String> {
    let mut expected: BTreeMap<(i32, String), Vec<Vec<u8>>> = BTreeMap::new();
    let mut driver = driver(world);
    for (partition, sent) in (0..).zip(sent) {
        let output = driver.pipe(Partition(partition), records(sent)).map_err(|error| error.to_string())?;
        for event in output.events {
            expected.entry((partition, event.feature.to_string())).or_default().push(event.to_json());
        }
    }
    let mut found: BTreeMap<(i32, String), Vec<Vec<u8>>> = BTreeMap::new();
    let read = world.broker.read_topic("drift-events", Duration::ZERO, &mut |_, record| {
        let value = record.value.unwrap_or_default();
        let event = DriftEvent::from_json(value).expect("an event");
        let partition = event.partition.expect("a partition").0;
        found.entry((partition, event.feature.to_string())).or_default().push(value.to_vec());
        ControlFlow::Continue(())
    });
    read.map_err(|error| error.to_string())?;
    for (key, expected) in &expected {
        let found = found.get(key).map_or(&[][..], Vec::as_slice);
        if let Some(at) = (0..expected.len().max(found.len())).find(|at| expected.get(*at) != found.get(*at)) {
            let text = |events: &[Vec<u8>]| {
                events
                    .get(at)
                    .map_or("nothing".to_owned(), |event| String::from_utf8_lossy(event).into_owned())
            };
            return Err(format!(
                "events of {key:?}: {} of {}; the first that differs is number {at}:\n  should be {}\n  is        {}",
                found.len(),
                expected.len(),
                text(expected),
                text(found)
            ));
        }
    }
    match found.keys().find(|key| !expected.contains_key(*key)) {
        Some(key) => Err(format!("events of {key:?} that nothing implies")),
        None => Ok(()),
    }
}

/// Each invalid record is there once, and nothing else.
pub(crate) fn dead_letters(world: &World, sent: &Sent) -> Result<(), String> {
    let mut expected = BTreeSet::new();
    let mut driver = driver(world);
    for (partition, sent) in (0..).zip(sent) {
        let output = driver.pipe(Partition(partition), records(sent)).map_err(|error| error.to_string())?;
        let rejected = (0..)
            .zip(&output.dispositions)
            .filter(|(_, disposition)| matches!(disposition, Disposition::Rejected(_)));
        expected.extend(rejected.map(|(offset, _): (i64, _)| (partition.to_string(), offset.to_string())));
    }
    let mut found = Vec::new();
    let read = world.broker.read_topic("in-dlq", Duration::ZERO, &mut |_, record| {
        let headers = record.headers.to_owned_headers();
        let header = |name: &str| {
            let value = headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.clone());
            String::from_utf8(value.unwrap_or_default()).unwrap_or_default()
        };
        found.push((header("__streams.errors.partition"), header("__streams.errors.offset")));
        ControlFlow::Continue(())
    });
    read.map_err(|error| error.to_string())?;
    let once: BTreeSet<_> = found.iter().cloned().collect();
    if once.len() < found.len() || once != expected {
        return Err(format!(
            "dead letters: {} found, {} of them different, {} expected",
            found.len(),
            once.len(),
            expected.len()
        ));
    }
    Ok(())
}

/// A store is what its changelog says at the store's own progress.
pub(crate) fn store(world: &World, store: &StateStore, partition: Partition) -> Result<(), String> {
    let range = TaskRange {
        store: "windows-in".into(),
        partition,
    };
    let lease = store.lease(range).ok_or("somebody holds the lease")?;
    let mut stored = BTreeMap::new();
    let scan = lease.for_each(|key, value| {
        stored.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    });
    scan.map_err(|error| error.to_string())?;
    stored.remove(&checkpoint_key());
    let Some(progress) = stored.get(&progress_key()) else {
        return if stored.is_empty() {
            Ok(())
        } else {
            Err("state without progress".to_owned())
        };
    };
    let mut materialised: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut reached = false;
    let read = world
        .broker
        .read_topic(&format!("{APPLICATION}-windows-in-changelog"), Duration::ZERO, &mut |of, record| {
            let key = record.key.unwrap_or_default();
            if of.partition != partition || reached {
                return ControlFlow::Continue(());
            }
            match record.value {
                Some(value) => materialised.insert(key.to_vec(), value.to_vec()),
                None => materialised.remove(key),
            };
            reached = key == progress_key() && record.value == Some(progress.as_slice());
            ControlFlow::Continue(())
        });
    read.map_err(|error| error.to_string())?;
    let progress = Progress::from_bytes(progress).map_err(|error| error.to_string())?;
    if !reached {
        return Err(format!("its progress {progress:?} is not in the changelog"));
    }
    if materialised != stored {
        let keys = materialised.keys().chain(stored.keys());
        let differing: BTreeSet<_> = keys.filter(|key| materialised.get(*key) != stored.get(*key)).collect();
        return Err(format!("at {progress:?} these keys differ: {differing:?}"));
    }
    if progress.record_number > progress.next_offset.0 as u64 {
        return Err(format!("more valid records than records: {progress:?}"));
    }
    Ok(())
}
