//! What must hold after a run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use leeway::broker::Broker;
use leeway::state::store::TaskRange;
use leeway::task::progress::{Progress, checkpoint_key};
use leeway_topology::event::{ClosedBy, DriftEvent, Event};
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::Disposition;
use leeway_topology::record::InputRecord;
use leeway_topology::repartition::{Content, ShippedPane};
use leeway_topology::state::progress_key;
use leeway_topology::test_driver::{Output, TestDriver};

use crate::disk::{self, Entries};
use crate::history::{History, State};
use crate::world::{APPLICATION, REPARTITION, World};

/// The epoch of what was there before the run: not the dataflow's.
pub(crate) const EPOCH_BEFORE: u64 = 0;

/// A record of a log.
struct Sent {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: Timestamp,
}

/// What a task reads: a partition of the input, or of the repartition topic; and where the application began to read it.
#[derive(Default)]
pub(crate) struct Log {
    sent: Vec<Sent>,
    pub(crate) begin: i64,
    /// The next offset, markers counted.
    end: i64,
    /// Numbers of valid records after which the partition was idle for long enough, as its events tell.
    pub(crate) idle: BTreeSet<u64>,
}

impl Log {
    /// One more record of the input.
    pub(crate) fn push(&mut self, value: Option<Vec<u8>>, timestamp: Timestamp) {
        self.sent.push(Sent {
            offset: self.end,
            key: None,
            value,
            timestamp,
        });
        self.end += 1;
    }

    /// Records.
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Gives a driver what the application had to process before offset `end`. `idle_at_last`: where the partition was idle after the last of these
    /// records, that is in it.
    fn pipe(&self, driver: &mut TestDriver, partition: Partition, end: i64, idle_at_last: bool) -> Result<Output, String> {
        if self.idle.is_empty() {
            return driver.pipe(partition, self.records(end)).map_err(|error| error.to_string());
        }
        let mut whole = Output::default();
        let mut is_idle = false;
        let mut take = |driver: &mut TestDriver, record: Option<InputRecord<'_>>, is_idle: bool| -> Result<(), String> {
            if is_idle {
                let output = driver.close_idle(partition).map_err(|error| error.to_string())?;
                whole.events.extend(output.events);
                whole.panes.extend(output.panes);
                whole.quality.extend(output.quality);
            }
            let output = driver.pipe(partition, record).map_err(|error| error.to_string())?;
            whole.dispositions.extend(output.dispositions);
            whole.events.extend(output.events);
            whole.quality.extend(output.quality);
            whole.panes.extend(output.panes);
            Ok(())
        };
        // A driver opens the partition even where there is no record.
        take(driver, None, false)?;
        for record in self.records(end) {
            take(driver, Some(record), is_idle)?;
            let number = driver.processor(partition).map_or(0, |processor| processor.record_number().0);
            is_idle = self.idle.contains(&number);
        }
        take(driver, None, is_idle && idle_at_last)?;
        Ok(whole)
    }

    /// The records that the application had to process before offset `end`.
    fn records(&self, end: i64) -> impl Iterator<Item = InputRecord<'_>> {
        let own = self.sent.iter().filter(move |sent| (self.begin..end).contains(&sent.offset));
        own.map(|sent| InputRecord {
            offset: Offset(sent.offset),
            timestamp: Some(sent.timestamp),
            value: sent.value.as_deref(),
            key: sent.key.as_deref(),
        })
    }
}

/// What the tasks of the input do, without a broker.
fn driver(world: &World) -> TestDriver {
    TestDriver::new(APPLICATION, [(*world.monitor).clone()], (*world.references).clone())
}

/// What the tasks of the repartition topic do.
fn global_driver(world: &World) -> TestDriver {
    TestDriver::global(APPLICATION, [(*world.monitor).clone()], (*world.references).clone())
}

/// The repartition topic, partition by partition. For each input partition it holds exactly the panes that the dataflow gives without a broker, in
/// their order.
pub(crate) fn panes(world: &World, inputs: &[Log]) -> Result<Vec<Log>, String> {
    let mut logs: Vec<Log> = Vec::new();
    if !world.monitor.scopes.global {
        return Ok(logs);
    }
    logs.extend(inputs.iter().map(|_| Log::default()));
    let read = world.broker.read_topic(REPARTITION, Duration::ZERO, &mut |at, record| {
        logs[at.partition.0 as usize].sent.push(Sent {
            offset: record.offset.0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp: record.timestamp.expect("a timestamp"),
        });
        ControlFlow::Continue(())
    });
    read.map_err(|error| error.to_string())?;
    let positions = world.broker.group_positions(APPLICATION, REPARTITION, Duration::ZERO);
    for (partition, _, range) in positions.map_err(|error| error.to_string())? {
        logs[partition.partition.0 as usize].end = range.high_watermark.0;
    }
    // Of each segment: they are in several partitions of the topic.
    let mut found: BTreeMap<(Partition, Arc<str>), Vec<ShippedPane>> = BTreeMap::new();
    for sent in logs.iter().flat_map(|log| &log.sent) {
        let pane = ShippedPane::read(sent.key.as_deref().unwrap_or_default(), sent.value.as_deref().unwrap_or_default());
        let pane = pane.map_err(|error| error.to_string())?;
        if !matches!(pane.content, Content::Progress(_)) {
            found.entry((pane.content.partition(), pane.segment.clone())).or_default().push(pane);
        }
    }
    let mut driver = driver(world);
    for (partition, input) in (0..).map(Partition).zip(inputs) {
        let mut expected: BTreeMap<Arc<str>, Vec<ShippedPane>> = BTreeMap::new();
        // How far a partition is it tells once more after each restart.
        let is_implied = |pane: &ShippedPane| !matches!(pane.content, Content::Progress(_));
        for pane in input.pipe(&mut driver, partition, input.end, true)?.panes.into_iter().filter(is_implied) {
            expected.entry(pane.segment.clone()).or_default().push(pane);
        }
        for (segment, expected) in expected {
            let found = found.remove(&(partition, segment.clone())).unwrap_or_default();
            if expected != found {
                let (found, expected) = (found.len(), expected.len());
                return Err(format!(
                    "panes of partition {partition}, segment {segment:?}: {found} of {expected}, or others"
                ));
            }
        }
    }
    if let Some((of, _)) = found.first_key_value() {
        return Err(format!("panes of {of:?} that nothing implies"));
    }
    Ok(logs)
}

/// Events whose order is a function of the input: those of one kind and feature in a partition, or of the whole topic in a segment.
type Series = (Option<Partition>, Option<Arc<str>>, String, &'static str);

fn series(event: &Event) -> Series {
    let (partition, segment, kind) = match event {
        Event::Drift(event) => (event.partition, &event.segment, "drift"),
        Event::Quality(event) => (event.partition, &event.segment, "quality"),
    };
    let segment = segment.clone().filter(|_| partition.is_none());
    (partition, segment, event.feature().to_string(), kind)
}

/// The topic holds, per partition (or for the whole topic) and feature, exactly the bytes that the dataflow gives without a broker, in their order.
pub(crate) fn events(world: &World, inputs: &[Log], panes: &[Log]) -> Result<(), String> {
    let mut expected: BTreeMap<Series, Vec<Vec<u8>>> = BTreeMap::new();
    for (mut driver, logs) in [(driver(world), inputs), (global_driver(world), panes)] {
        for (partition, log) in (0..).map(Partition).zip(logs) {
            let output = log.pipe(&mut driver, partition, log.end, true)?;
            let quality = output.quality.into_iter().map(Event::Quality);
            for event in output.events.into_iter().map(Event::Drift).chain(quality) {
                expected.entry(series(&event)).or_default().push(event.to_json());
            }
        }
    }
    let mut found: BTreeMap<Series, Vec<Vec<u8>>> = BTreeMap::new();
    let read = world.broker.read_topic("drift-events", Duration::ZERO, &mut |_, record| {
        let value = record.value.unwrap_or_default();
        let event = Event::from_json(value).expect("an event");
        found.entry(series(&event)).or_default().push(value.to_vec());
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

/// When partitions were idle, as the events tell that say so.
pub(crate) fn tell_idle(world: &World, inputs: &mut [Log]) {
    let read = world.broker.read_topic("drift-events", Duration::ZERO, &mut |_, record| {
        if let Ok(event) = DriftEvent::from_json(record.value.unwrap_or_default())
            && event.closed_by == Some(ClosedBy::Idle)
            && let Some(partition) = event.partition
        {
            inputs[partition.0 as usize].idle.insert(event.record_count.0);
        }
        ControlFlow::Continue(())
    });
    read.expect("events");
    if !world.monitor.scopes.global {
        return;
    }
    // Windows with too few records to be checked close as well where they are shipped.
    let read = world.broker.read_topic(REPARTITION, Duration::ZERO, &mut |_, record| {
        let pane = ShippedPane::read(record.key.unwrap_or_default(), record.value.unwrap_or_default()).expect("a pane");
        if let Content::Window(part) = pane.content
            && part.is_idle
        {
            inputs[part.partition.0 as usize].idle.insert(part.record_number.0);
        }
        ControlFlow::Continue(())
    });
    read.expect("panes");
}

/// Each invalid record is there once, each late one where that is asked for, and nothing else.
pub(crate) fn dead_letters(world: &World, inputs: &[Log]) -> Result<(), String> {
    let mut expected = BTreeSet::new();
    let mut driver = driver(world);
    for (partition, input) in (0..).zip(inputs) {
        let output = input.pipe(&mut driver, Partition(partition), input.end, true)?;
        let rejected = (input.begin..)
            .zip(&output.dispositions)
            .filter(|(_, disposition)| matches!(disposition, Disposition::Rejected(_) | Disposition::Late { .. }));
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
pub(crate) fn state(world: &World, task: &TaskRange, log: &Log, state: &State) -> Result<(), String> {
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
    let end = progress.next_offset.0;
    if end < log.begin || end > log.end {
        return Err(format!("{progress:?} is beyond the log, {} to {}", log.begin, log.end));
    }
    let is_global = *task == disk::global_task(task.partition.0 as usize);
    let id = task.partition;
    let as_of = |idle_at_last| -> Result<(TestDriver, State), String> {
        let mut driver = if is_global { global_driver(world) } else { driver(world) };
        log.pipe(&mut driver, id, end, idle_at_last)?;
        driver.commit();
        let store = driver.store(id).expect("opened").iter();
        let state = store.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok((driver, state))
    };
    // Windows that idleness closes are closed by an epoch of its own, or by one with later records that do not count.
    let (mut driver, mut right) = as_of(false)?;
    if state != right {
        (driver, right) = as_of(true)?;
    }
    if state != right && !(state.is_empty() && end == log.begin) {
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
pub(crate) fn store(world: &World, task: &TaskRange, log: &Log, history: &History, entries: Entries, lost: Entries) -> Result<(), String> {
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
    state(world, task, log, &stored)
}
