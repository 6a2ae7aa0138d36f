//! The auditor: proves that every event of drift and of quality that the input implies is there, once, with the right bytes, and no other.
//!
//! ```text
//! input    --dataflow, from nothing--> expected events --digest--\
//!                                                                 equal? --no--> both once more, side by side: the first difference
//! drift-events --read committed------> events that are there ----/
//! ```
//!
//! Events are a function of the input, the reference and the configuration, so the whole bytes are compared: one sequence for each monitor,
//! partition, feature and kind. Only digests are kept, so that memory grows with the sequences and not with the topics.
//!
//! Scope `global` takes two steps: the panes on the repartition topic are those that the input implies, for each partition in order; and the
//! events are those that the repartition topic implies, in the order that it has. Where a reference was changed is read from what was written
//! (`changes.rs`): a check cannot tell, but everything after a wrong point would differ.
//!
//! Invariants:
//! - It uses the dataflow, and nothing of the runtime: no task, no store, no changelog.
//! - The input is judged up to the group's committed offsets as they were when the audit began. Events of later records are not looked at, so a
//!   worker may go on meanwhile.
//!
//! Not here: an input whose first records are gone, an application that began at its topic's end. They are refused in words. Nor can be told where a
//! reference changed among segments of which only the whole topic is watched, if the check before it was over a pane into which an earlier change fell,
//! or with time windows that idleness closes (`idle_close_after`).

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leeway_topology::event::{ClosedBy, Event, EventId, KIND, QUALITY_KIND};
use leeway_topology::graph::repartition_topic;
use leeway_topology::ids::{Offset, Partition, RecordNumber, Timestamp};
use leeway_topology::processor::{
    CacheBudget, Disposition, DriftProcessor, GlobalProcessor, Monitor, Outputs, Processor, PublishedReferences, TaskContext,
};
use leeway_topology::record::InputRecord;
use leeway_topology::repartition::{Content, ShippedPane};
use leeway_topology::state::StateError;
use leeway_topology::test_driver::InMemoryStore;
use leeway_topology::window::Window;

use crate::broker::{Broker, BrokerError, FetchedRecord, TopicPartition, partitioner};
use crate::task::Start;

mod changes;
mod common;
mod digest;
mod locate;
mod panes;

pub use locate::{Difference, Kind};

use changes::Changes;
use common::Common;
use digest::Digest;

/// One request to the broker.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long transactions that were open when the audit began are waited for: their time-out, and the broker's own look at it, with a margin.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How often the broker is asked meanwhile.
const SETTLE_POLL: Duration = Duration::from_millis(100);

/// Records between two calls of the progress.
const PROGRESS_RECORDS: u64 = 10_000;

/// Why the events could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The broker.
    #[error("topic {topic:?}: {error}")]
    Broker {
        /// What was asked about.
        topic: String,
        /// What the broker said.
        error: BrokerError,
    },
    /// The dataflow cannot be run, such as without a reference.
    #[error("{input}: {error}")]
    Dataflow {
        /// The input partition.
        input: TopicPartition,
        /// Why not.
        error: StateError,
    },
    /// Records are gone.
    #[error(
        "{input} begins at offset {start}: the records before it were deleted, and every later window depends on their number; \
         an audit needs the input from its first record, so its retention has to outlast the audit"
    )]
    Truncated {
        /// The input partition.
        input: TopicPartition,
        /// Its first offset.
        start: Offset,
    },
    /// Nobody knows the first record.
    #[error(
        "the application began at the end of its topic (`monitor.start` is `latest`), and where that was is not recorded: such a run cannot be audited"
    )]
    UnknownStart,
    /// A transaction hangs.
    #[error(
        "{partition} has an open transaction since before the audit began (last stable offset {last_stable}, end then {end}); \
         `kafka-transactions.sh find-hanging` shows it"
    )]
    OpenTransaction {
        /// A partition of an events topic.
        partition: TopicPartition,
        /// What a reader may see.
        last_stable: Offset,
        /// What it has to see.
        end: Offset,
    },
}

/// Whose events, or panes, they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Of {
    /// Events of one input partition.
    Partition(Partition),
    /// Events of the whole topic.
    WholeTopic,
    /// Panes of one input partition.
    Panes(Partition),
}

/// Names a sequence of events, or of panes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence {
    /// The monitor.
    pub monitor: Arc<str>,
    /// Whose.
    pub of: Of,
    /// The feature; empty for panes, which have all of them.
    pub feature: Arc<str>,
    /// The kind of events, as they say it; [`PANE`] for panes.
    pub kind: &'static str,
    /// Of the repartition topic, where it is one of scope global: order holds within its partitions.
    pub repartition: Option<Partition>,
    /// Where the events, or panes, of each segment are compared by themselves: with `idle_close_after`.
    pub segment: Option<Arc<str>>,
}

/// Stands for a kind of event where a sequence is one of panes.
pub const PANE: &str = "pane";

/// Whether the order of a monitor's segments, and what closed their windows, is known to nobody but the worker: idleness closes them in the middle
/// of what the other segments do. Each segment's events are compared by themselves then, without `closed_by`.
fn by_segment(monitor: &Monitor) -> bool {
    monitor.idle_close_after_ms.is_some() && !monitor.segment_by.is_empty()
}

/// What an audit found.
#[derive(Debug)]
pub struct Report {
    /// Input records that were judged.
    pub records: u64,
    /// Events that they imply.
    pub expected: u64,
    /// Events that are there.
    pub found: u64,
    /// Events of records after the audited ones: not looked at.
    pub later: u64,
    /// Records of the events topics that are no events of this application, or of a kind that this build does not know.
    pub foreign: u64,
    /// Sequences that are not right.
    pub wrong: usize,
    /// The first difference of each of the first of them.
    pub differences: Vec<Difference>,
}

/// What to audit.
pub struct Audit<'a, B: Broker> {
    /// Where.
    pub broker: &'a B,
    /// The consumer group.
    pub application_id: &'a str,
    /// All monitors of the configuration.
    pub monitors: &'a [Arc<Monitor>],
    /// Their references.
    pub references: &'a PublishedReferences,
    /// Where the application began.
    pub start: Start,
    /// Wrong sequences that are looked at closely.
    pub differences_max: usize,
    /// Told of records read, now and then.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// By partition of an input or a repartition topic: the committed offset.
type Ends = BTreeMap<TopicPartition, Offset>;

/// What is known of an events topic.
struct EventsTopic {
    partitions: u32,
    monitors: BTreeMap<Arc<str>, Arc<Monitor>>,
}

/// A repartition topic: the monitors that watch the whole of one input.
struct PanesTopic {
    partitions: u32,
    monitors: Vec<Arc<Monitor>>,
}

/// What an audit goes by: taken once, at its beginning.
struct Grounds {
    ends: Ends,
    events: BTreeMap<Arc<str>, EventsTopic>,
    panes: BTreeMap<Arc<str>, PanesTopic>,
    changes: Changes,
    seen: Seen,
}

/// How far the dataflow was at the ends. Known when the inputs were read once.
#[derive(Default)]
struct Seen {
    /// By monitor and segment (empty: none): the last record of a check of the whole topic.
    checked: BTreeMap<(Arc<str>, Arc<str>), RecordNumber>,
    /// By monitor and segment: the end of the last time window of the whole topic that was checked.
    closed: BTreeMap<(Arc<str>, Arc<str>), Timestamp>,
    /// By monitor and partition: record number, and stream time.
    positions: BTreeMap<(Arc<str>, Partition), (RecordNumber, Option<Timestamp>)>,
    /// By monitor, partition and segment, where idleness closes windows that are shipped: record number.
    segments: BTreeMap<(Arc<str>, Partition, Arc<str>), RecordNumber>,
}

/// An event of this application as it stands in its topic.
struct FoundEvent<'r> {
    sequence: Sequence,
    value: Cow<'r, [u8]>,
    at: &'r TopicPartition,
    offset: Offset,
    is_in_its_place: bool,
}

/// What a record of an events or repartition topic is.
enum Found<'r> {
    Event(FoundEvent<'r>),
    Later,
    Foreign,
}

/// What the input does not say.
struct Told<A, I> {
    /// Is told what the checks after a record gave.
    after_checks: A,
    /// Says whether another check is due.
    is_idle: I,
}

impl Grounds {
    /// The partition of the repartition topic that the panes of a monitor's segment are in.
    fn repartition_of(&self, monitor: &str, segment: &str) -> Option<Partition> {
        let topic = self
            .panes
            .values()
            .find(|topic| topic.monitors.iter().any(|watched| *watched.name == *monitor))?;
        Some(partitioner::partition(&ShippedPane::key_of(monitor, segment), topic.partitions))
    }

    /// Whether an event is of records after the ends.
    fn is_later(&self, monitor: &Monitor, event: &Common<'_>) -> bool {
        let Some(partition) = event.partition else {
            let of = (event.monitor.clone(), event.segment.clone().unwrap_or_else(|| "".into()));
            let is_later = if event.closed_by.is_some() {
                self.seen.closed.get(&of).map(|closed| event.window_end_ms > *closed)
            } else {
                self.seen.checked.get(&of).map(|checked| event.record_count > *checked)
            };
            // Of a segment that was never checked so far, every event is later; of the whole topic, it is nobody's.
            return is_later.unwrap_or(!monitor.segment_by.is_empty());
        };
        let input = TopicPartition::new(monitor.topic.clone(), partition);
        let end = self.ends.get(&input).copied().unwrap_or(Offset(0));
        if event.window_end_offset.is_none_or(|window_end| window_end >= end) {
            return true;
        }
        // The record that closed a window is none of it.
        event.closed_by == Some(ClosedBy::StreamTime) && !self.is_over(monitor, partition, event.window_end_ms)
    }

    /// Whether a time window with this end had closed in a partition.
    fn is_over(&self, monitor: &Monitor, partition: Partition, end: Timestamp) -> bool {
        let Window::Time(settings) = monitor.window else { return true };
        let closes_at = end.0.saturating_add(i64::try_from(settings.grace_ms()).unwrap_or(i64::MAX));
        let position = self.seen.positions.get(&(monitor.name.clone(), partition));
        position.is_some_and(|(_, stream_time)| stream_time.is_some_and(|time| time.0 >= closes_at))
    }

    /// Whether a pane, or a part of a window, has records that are not audited, or was shipped after one.
    fn is_pane_later(&self, monitor: &Monitor, pane: &ShippedPane) -> bool {
        let end = self.ends.get(&TopicPartition::new(monitor.topic.clone(), pane.content.partition()));
        let end = end.copied().unwrap_or(Offset(0));
        match &pane.content {
            Content::Count(pane) => pane.pane.span.is_some_and(|span| span.last >= end),
            Content::Window(part) => {
                let end_ms = part.window.saturating_mul(part.every_ms).saturating_add(part.size_ms);
                let is_over = self.is_over(monitor, part.partition, Timestamp(i64::try_from(end_ms).unwrap_or(i64::MAX)));
                let record = if pane.segment.is_empty() {
                    let position = self.seen.positions.get(&(monitor.name.clone(), part.partition));
                    position.map(|(record, _)| *record)
                } else {
                    let of = (monitor.name.clone(), part.partition, pane.segment.clone());
                    self.seen.segments.get(&of).copied()
                };
                let closed_idle = part.is_idle && record.is_some_and(|record| part.record_number <= record);
                !is_over && !closed_idle
            }
            Content::Progress(_) => false,
        }
    }
}

impl<B: Broker> Audit<'_, B> {
    /// Audits.
    ///
    /// # Errors
    /// When it cannot be judged. Differences are no error but in the report.
    pub fn run(&self) -> Result<Report, AuditError> {
        if self.start == Start::Latest {
            return Err(AuditError::UnknownStart);
        }
        let mut grounds = Grounds {
            ends: BTreeMap::new(),
            events: self.events_topics()?,
            panes: self.panes_topics()?,
            changes: Changes::default(),
            seen: Seen::default(),
        };
        grounds.ends = self.ends(&grounds)?;
        // After the offsets were taken: every event that they cover is before these ends, though its marker may still be on its way.
        self.wait_for_open_transactions(grounds.events.keys().chain(grounds.panes.keys()))?;
        grounds.changes = self.changes(&grounds)?;

        let mut digests: BTreeMap<Sequence, [Digest; 2]> = BTreeMap::new();
        let mut expected = 0;
        let (records, seen) = self.expected(&grounds, &mut |sequence, value| {
            expected += u64::from(!matches!(sequence.of, Of::Panes(_)));
            digests.entry(sequence).or_default()[0].push(value);
            ControlFlow::Continue(())
        })?;
        grounds.seen = seen;
        let mut misplaced: BTreeSet<Sequence> = BTreeSet::new();
        let (mut found, mut later, mut foreign) = (0, 0, 0);
        self.found(&grounds, &mut |record| {
            match record {
                Found::Later => later += 1,
                Found::Foreign => foreign += 1,
                Found::Event(event) => {
                    found += u64::from(!matches!(event.sequence.of, Of::Panes(_)));
                    if !event.is_in_its_place {
                        misplaced.insert(event.sequence.clone());
                    }
                    digests.entry(event.sequence).or_default()[1].push(&event.value);
                }
            }
            ControlFlow::Continue(())
        })?;
        let wrong: Vec<_> = digests
            .into_iter()
            .filter(|(sequence, [expected, found])| expected != found || misplaced.contains(sequence))
            .map(|(sequence, _)| sequence)
            .collect();
        let close = wrong.iter().take(self.differences_max);
        let differences = close.map(|sequence| self.locate(sequence, &grounds)).collect::<Result<Vec<_>, _>>()?;
        Ok(Report {
            records,
            expected,
            found,
            later,
            foreign,
            wrong: wrong.len(),
            differences,
        })
    }

    fn ends(&self, grounds: &Grounds) -> Result<Ends, AuditError> {
        let mut ends = Ends::new();
        for topic in self.inputs().keys().chain(grounds.panes.keys()) {
            let positions = self.broker.group_positions(self.application_id, topic, TIMEOUT);
            for (partition, committed, range) in positions.map_err(|error| broker_error(topic, error))? {
                let Some(committed) = committed else { continue };
                if range.start > Offset(0) {
                    return Err(AuditError::Truncated {
                        input: partition,
                        start: range.start,
                    });
                }
                ends.insert(partition, committed.offset);
            }
        }
        Ok(ends)
    }

    /// Monitors by input topic.
    fn inputs(&self) -> BTreeMap<Arc<str>, Vec<Arc<Monitor>>> {
        let mut inputs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for monitor in self.monitors {
            inputs.entry(monitor.topic.clone()).or_default().push(monitor.clone());
        }
        inputs
    }

    fn events_topics(&self) -> Result<BTreeMap<Arc<str>, EventsTopic>, AuditError> {
        let mut topics: BTreeMap<Arc<str>, EventsTopic> = BTreeMap::new();
        for monitor in self.monitors {
            let name = &monitor.events_topic;
            if !topics.contains_key(name) {
                let partitions = self.partitions(name)?;
                let monitors = BTreeMap::new();
                topics.insert(name.clone(), EventsTopic { partitions, monitors });
            }
            if let Some(topic) = topics.get_mut(name) {
                topic.monitors.insert(monitor.name.clone(), monitor.clone());
            }
        }
        Ok(topics)
    }

    fn panes_topics(&self) -> Result<BTreeMap<Arc<str>, PanesTopic>, AuditError> {
        let mut topics: BTreeMap<Arc<str>, PanesTopic> = BTreeMap::new();
        for (input, monitors) in self.inputs() {
            let monitors: Vec<_> = monitors.into_iter().filter(|monitor| monitor.scopes.global).collect();
            if !monitors.is_empty() {
                let name: Arc<str> = repartition_topic(self.application_id, &input).into();
                let partitions = self.partitions(&name)?;
                topics.insert(name, PanesTopic { partitions, monitors });
            }
        }
        Ok(topics)
    }

    fn partitions(&self, name: &str) -> Result<u32, AuditError> {
        let described = self.broker.describe_topic(name, TIMEOUT).map_err(|error| broker_error(name, error))?;
        let described = described.ok_or_else(|| broker_error(name, BrokerError::NoSuchTopic(name.to_string())))?;
        Ok(described.partitions)
    }

    fn wait_for_open_transactions<'t>(&self, topics: impl Iterator<Item = &'t Arc<str>>) -> Result<(), AuditError> {
        let ranges = |topic: &str| {
            let positions = self.broker.group_positions(self.application_id, topic, TIMEOUT);
            positions.map_err(|error| broker_error(topic, error))
        };
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        for topic in topics {
            let ends: BTreeMap<_, _> = ranges(topic)?
                .into_iter()
                .map(|(partition, _, range)| (partition, range.high_watermark))
                .collect();
            loop {
                let open = ranges(topic)?
                    .into_iter()
                    .map(|(partition, _, range)| (ends.get(&partition).copied().unwrap_or(Offset(0)), partition, range.last_stable))
                    .find(|(end, _, last_stable)| last_stable < end);
                let Some((end, partition, last_stable)) = open else { break };
                if Instant::now() >= deadline {
                    return Err(AuditError::OpenTransaction { partition, last_stable, end });
                }
                std::thread::sleep(SETTLE_POLL);
            }
        }
        Ok(())
    }

    /// Hands over every event, and every pane, that the input implies, in the order of its sequence. Gives the number of records, and how many
    /// the windows of whole topics have seen.
    fn expected(&self, grounds: &Grounds, visit: &mut dyn FnMut(Sequence, &[u8]) -> ControlFlow<()>) -> Result<(u64, Seen), AuditError> {
        let (mut records, mut seen) = (0, Seen::default());
        for (topic, monitors) in self.inputs() {
            let open = |partition| {
                let references = grounds.changes.references_of(partition, self.references);
                DriftProcessor::open(
                    &self.task(partition, &CacheBudget::unbounded()),
                    &monitors,
                    &references,
                    &InMemoryStore::default(),
                )
            };
            let told = Told {
                after_checks: |partition, processor: &mut DriftProcessor, out: &Outputs| {
                    grounds.changes.take_over(partition, processor, out, self.references);
                },
                is_idle: |partition, processor: &mut DriftProcessor| grounds.changes.close_idle(partition, processor),
            };
            let (read, processors) = self.replay(&topic, grounds, open, told, visit)?;
            records += read;
            for (partition, processor) in processors {
                let positions = processor.positions();
                seen.positions
                    .extend(positions.map(|(monitor, position)| ((monitor, partition), position)));
                let by_segment = |monitor: &Monitor| monitor.scopes.global && by_segment(monitor);
                for window in processor.windows().into_iter().filter(|window| by_segment(window.monitor())) {
                    if let Some(segment) = window.segment() {
                        let of = (window.monitor().name.clone(), partition, segment.clone());
                        seen.segments.insert(of, window.window().record_number());
                    }
                }
            }
        }
        for (topic, PanesTopic { monitors, .. }) in &grounds.panes {
            let open = |partition| {
                let references = Arc::new(self.references.clone());
                GlobalProcessor::open(
                    &self.task(partition, &CacheBudget::unbounded()),
                    monitors,
                    references,
                    &InMemoryStore::default(),
                )
            };
            let told = Told {
                after_checks: |_, _: &mut GlobalProcessor, out: &Outputs| {
                    for event in &out.events {
                        let segment = event.segment.clone().unwrap_or_else(|| "".into());
                        let of = (event.monitor.clone(), segment);
                        if event.closed_by.is_some() {
                            seen.closed.insert(of, event.window_end_ms);
                        } else {
                            let checked = seen.checked.entry(of).or_insert(RecordNumber(0));
                            *checked = event.record_count.max(*checked);
                        }
                    }
                },
                is_idle: |_, _: &mut GlobalProcessor| false,
            };
            self.replay(topic, grounds, open, told, visit)?;
        }
        Ok((records, seen))
    }

    /// How many partitions there are goes into what is not compared.
    fn task<'c>(&'c self, partition: Partition, cache: &'c Arc<CacheBudget>) -> TaskContext<'c> {
        TaskContext {
            application_id: self.application_id,
            partition,
            partitions: 0,
            cache,
        }
    }

    /// Runs the dataflow of one topic up to the ends, from nothing. Gives the number of records, and the processors as they are then.
    fn replay<P: Processor>(
        &self,
        topic: &str,
        grounds: &Grounds,
        open: impl Fn(Partition) -> Result<P, StateError>,
        mut told: Told<impl FnMut(Partition, &mut P, &Outputs), impl FnMut(Partition, &mut P) -> bool>,
        visit: &mut dyn FnMut(Sequence, &[u8]) -> ControlFlow<()>,
    ) -> Result<(u64, BTreeMap<Partition, P>), AuditError> {
        let mut records = 0;
        let mut processors: BTreeMap<Partition, P> = BTreeMap::new();
        // Everything stays in memory: nothing is ever written.
        let (mut out, nothing) = (Outputs::default(), InMemoryStore::default());
        let mut failed = None;
        let read = self.read(topic, &mut |input, record| {
            if grounds.ends.get(input).is_none_or(|end| record.offset >= *end) {
                return ControlFlow::Continue(());
            }
            records += 1;
            let mut fail = |error| {
                failed = Some(AuditError::Dataflow { input: input.clone(), error });
                ControlFlow::Break(())
            };
            let processor = match processors.entry(input.partition) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(vacant) => match open(input.partition) {
                    Ok(processor) => vacant.insert(processor),
                    Err(error) => return fail(error),
                },
            };
            let record = InputRecord {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key,
                value: record.value,
            };
            match processor.process(&record, &nothing) {
                Ok(Disposition::Processed { .. } | Disposition::Late { .. }) => {}
                Ok(Disposition::Waiting { monitor, version }) => {
                    return fail(StateError::Inconsistent(format!(
                        "monitor `{monitor}`: a pane was measured by reference {version}, which is not published any more"
                    )));
                }
                Ok(_) => return ControlFlow::Continue(()),
                Err(error) => return fail(error),
            }
            // At most twice: after the record, and since the partition was idle then.
            let mut is_due = processor.is_check_due() || (told.is_idle)(input.partition, processor);
            while is_due {
                while processor.is_check_due() {
                    if let Err(error) = processor.check(&nothing, &mut out) {
                        return fail(error);
                    }
                }
                (told.after_checks)(input.partition, processor, &out);
                let mut events = Vec::with_capacity(out.event_count());
                out.drain_events(&mut |event| events.push(event));
                for event in events {
                    let (sequence, value) = self.as_compared(grounds, event);
                    visit(sequence, &value)?;
                }
                for pane in out.panes.drain(..).filter(panes::is_compared) {
                    let monitor = self.monitors.iter().find(|monitor| monitor.name == pane.monitor);
                    let by_segment = monitor.is_some_and(|monitor| by_segment(monitor));
                    let repartition = grounds.repartition_of(&pane.monitor, &pane.segment);
                    visit(panes::sequence(&pane, repartition, by_segment), &panes::text(&pane, by_segment))?;
                }
                is_due = (told.is_idle)(input.partition, processor);
            }
            ControlFlow::Continue(())
        });
        match failed {
            Some(error) => Err(error),
            None => read.map(|()| (records, processors)),
        }
    }

    /// The sequence that an event is in, and the bytes that are compared.
    fn as_compared(&self, grounds: &Grounds, mut event: Event) -> (Sequence, Vec<u8>) {
        let monitor = self.monitors.iter().find(|monitor| monitor.name == *event.monitor());
        let of = Common::of(&event);
        let by_segment = of.partition.is_some() && monitor.is_some_and(|monitor| by_segment(monitor));
        let segment = of.segment.clone();
        let sequence = Sequence {
            monitor: of.monitor.clone(),
            of: of.partition.map_or(Of::WholeTopic, Of::Partition),
            feature: of.feature.clone(),
            kind: match event {
                Event::Drift(_) => KIND,
                Event::Quality(_) => QUALITY_KIND,
            },
            repartition: match of.partition {
                Some(_) => None,
                None => grounds.repartition_of(of.monitor, segment.as_deref().unwrap_or_default()),
            },
            segment: segment.filter(|_| by_segment),
        };
        if by_segment {
            match &mut event {
                Event::Drift(event) => event.closed_by = None,
                Event::Quality(event) => event.closed_by = None,
            }
        }
        (sequence, event.to_json())
    }

    /// Hands over every record of the events and repartition topics, as what it is.
    fn found(&self, grounds: &Grounds, visit: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>) -> Result<(), AuditError> {
        for (name, topic) in &grounds.events {
            self.read(name, &mut |at, record| visit(self.classify(topic, grounds, at, &record)))?;
        }
        for (name, topic) in &grounds.panes {
            self.read(name, &mut |at, record| match classify_pane(topic, grounds, at, &record) {
                Some(found) => visit(found),
                None => ControlFlow::Continue(()),
            })?;
        }
        Ok(())
    }

    fn classify<'r>(&self, topic: &EventsTopic, grounds: &Grounds, at: &'r TopicPartition, record: &FetchedRecord<'r>) -> Found<'r> {
        let Some((value, event)) = record.value.and_then(|value| Some((value, Event::from_json(value).ok()?))) else {
            return Found::Foreign;
        };
        let of = Common::of(&event);
        let Some(monitor) = topic.monitors.get(of.monitor) else {
            return Found::Foreign;
        };
        let segment = of.segment.as_deref();
        let id = EventId::new(self.application_id, &monitor.name, &monitor.topic, of.partition, of.scope, segment);
        if !id.begins(of.event_id) {
            return Found::Foreign;
        }
        if grounds.is_later(monitor, &of) {
            return Found::Later;
        }
        let key = of.feature.as_bytes();
        let place = partitioner::partition(key, topic.partitions);
        let is_in_its_place = record.key == Some(key) && at.partition == place;
        // Bytes that are not those of a worker are compared as they are.
        let is_ours = event.to_json() == value;
        let (sequence, compared) = self.as_compared(grounds, event);
        Found::Event(FoundEvent {
            is_in_its_place,
            sequence,
            value: if is_ours { Cow::Owned(compared) } else { Cow::Borrowed(value) },
            at,
            offset: record.offset,
        })
    }

    fn read(&self, topic: &str, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>) -> ControlFlow<()>) -> Result<(), AuditError> {
        let mut untold = 0;
        let read = self.broker.read_topic(topic, TIMEOUT, &mut |at, record| {
            untold += 1;
            if untold == PROGRESS_RECORDS {
                (self.progress)(untold);
                untold = 0;
            }
            visit(at, record)
        });
        (self.progress)(untold);
        read.map_err(|error| broker_error(topic, error))
    }
}

fn broker_error(topic: &str, error: BrokerError) -> AuditError {
    AuditError::Broker {
        topic: topic.to_owned(),
        error,
    }
}

/// `None`: nothing that the input implies.
fn classify_pane<'r>(topic: &PanesTopic, grounds: &Grounds, at: &'r TopicPartition, record: &FetchedRecord<'r>) -> Option<Found<'r>> {
    let (Some(key), Some(value)) = (record.key, record.value) else {
        return Some(Found::Foreign);
    };
    let Ok(pane) = ShippedPane::read(key, value) else {
        return Some(Found::Foreign);
    };
    let Some(monitor) = topic.monitors.iter().find(|monitor| monitor.name == pane.monitor) else {
        return Some(Found::Foreign);
    };
    if !panes::is_compared(&pane) {
        return None;
    }
    if grounds.is_pane_later(monitor, &pane) {
        return Some(Found::Later);
    }
    let by_segment = by_segment(monitor);
    Some(Found::Event(FoundEvent {
        sequence: panes::sequence(&pane, Some(at.partition), by_segment),
        value: Cow::Owned(panes::text(&pane, by_segment)),
        at,
        offset: record.offset,
        is_in_its_place: at.partition == partitioner::partition(key, topic.partitions),
    }))
}
