//! What must hold after a run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use leeway::broker::Broker;
use leeway::task::progress::{Progress, checkpoint_key};
use leeway_topology::event::DriftEvent;
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::{Disposition, Processor};
use leeway_topology::record::InputRecord;
use leeway_topology::state::progress_key;
use leeway_topology::test_driver::TestDriver;

use crate::disk::Entries;
use crate::history::{History, State};
use crate::world::{APPLICATION, World};

/// The epoch of what was there before the run: not the dataflow's.
pub(crate) const EPOCH_BEFORE: u64 = 0;

/// What one partition was sent, in order: value and timestamp.
type Sent = Vec<(Option<Vec<u8>>, Timestamp)>;

/// An input partition: what was sent to it, and where the application began to read it.
#[derive(Default)]
pub(crate) struct Input {
    pub(crate) sent: Sent,
    pub(crate) begin: usize,
}

/// What all of this does, without a broker.
fn driver(world: &World) -> TestDriver {
    TestDriver::new(APPLICATION, [(*world.monitor).clone()], (*world.references).clone())
}

impl Input {
    /// The records that the application had to process before offset `end`.
    fn records(&self, end: usize) -> impl Iterator<Item = InputRecord<'_>> {
        (0..)
            .zip(&self.sent[..end])
            .skip(self.begin)
            .map(|(offset, (value, timestamp))| InputRecord {
                offset: Offset(offset),
                timestamp: Some(*timestamp),
                value: value.as_deref(),
            })
    }
}

/// The topic holds, per partition and feature, exactly the bytes that the dataflow gives without a broker, in their order.
pub(crate) fn events(world: &World, inputs: &[Input]) -> Result<(), String> {
    let mut expected: BTreeMap<(i32, String), Vec<Vec<u8>>> = BTreeMap::new();
    let mut driver = driver(world);
    for (partition, input) in (0..).zip(inputs) {
        let output = driver
            .pipe(Partition(partition), input.records(input.sent.len()))
            .map_err(|error| error.to_string())?;
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
pub(crate) fn dead_letters(world: &World, inputs: &[Input]) -> Result<(), String> {
    let mut expected = BTreeSet::new();
    let mut driver = driver(world);
    for (partition, input) in (0..).zip(inputs) {
        let output = driver
            .pipe(Partition(partition), input.records(input.sent.len()))
            .map_err(|error| error.to_string())?;
        let rejected = (input.begin..)
            .zip(&output.dispositions)
            .filter(|(_, disposition)| matches!(disposition, Disposition::Rejected(_)));
        expected.extend(rejected.map(|(offset, _)| (partition.to_string(), offset.to_string())));
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

/// A task's keys, from a store or a changelog, are those of the dataflow at the position that they name, and its counts add up to it.
pub(crate) fn state(world: &World, partition: usize, input: &Input, state: &State) -> Result<(), String> {
    let mut state = state.clone();
    let Some(bytes) = state.remove(&progress_key()) else {
        return if state.is_empty() {
            Ok(())
        } else {
            Err("state without progress".to_owned())
        };
    };
    let progress = Progress::from_bytes(&bytes).map_err(|error| error.to_string())?;
    if progress.epoch == EPOCH_BEFORE {
        return Ok(());
    }
    let end = progress.next_offset.0 as usize;
    if end < input.begin || end > input.sent.len() {
        return Err(format!("{progress:?} is beyond the input, {} to {}", input.begin, input.sent.len()));
    }
    let (mut driver, id) = (driver(world), Partition(partition as i32));
    driver.pipe(id, input.records(end)).map_err(|error| error.to_string())?;
    driver.commit();
    let right: State = driver
        .store(id)
        .expect("opened")
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if state != right && !(state.is_empty() && end == input.begin) {
        let keys = right.keys().chain(state.keys());
        let differing: BTreeSet<_> = keys.filter(|key| right.get(*key) != state.get(*key)).collect();
        return Err(format!("at {progress:?} these keys differ from what the dataflow says: {differing:?}"));
    }
    let processor = driver.processor(id).expect("opened");
    if (progress.record_number, progress.stream_time) != (processor.record_number().0, processor.stream_time()) {
        return Err(format!(
            "{progress:?}: it should be record {} and stream time {:?}",
            processor.record_number().0,
            processor.stream_time()
        ));
    }
    Ok(())
}

/// A store is what its changelog was at the store's own progress, and what the dataflow says; but for keys that were `lost` on purpose.
pub(crate) fn store(world: &World, partition: usize, input: &Input, history: &History, entries: Entries, lost: Entries) -> Result<(), String> {
    let mut stored: State = entries.into_iter().collect();
    stored.remove(&checkpoint_key());
    if let Some(progress) = stored.get(&progress_key()).cloned() {
        let Some(shown) = history.at(&progress) else {
            return Err(format!("its progress {:?} was never in the changelog", Progress::from_bytes(&progress)));
        };
        for (key, value) in lost {
            if !stored.contains_key(&key) && shown.get(&key) == Some(&value) {
                stored.insert(key, value);
            }
        }
        if *shown != stored {
            let keys = shown.keys().chain(stored.keys());
            let differing: BTreeSet<_> = keys.filter(|key| shown.get(*key) != stored.get(*key)).collect();
            return Err(format!(
                "at {:?} these keys differ from the changelog's: {differing:?}",
                Progress::from_bytes(&progress)
            ));
        }
    }
    state(world, partition, input, &stored)
}
