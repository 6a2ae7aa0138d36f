//! The auditor: proves that every drift event that the input implies is there, once, with the right bytes, and no other.
//!
//! ```text
//! input    --dataflow, from nothing--> expected events --digest--\
//!                                                                 equal? --no--> both once more, side by side: the first difference
//! drift-events --read committed------> events that are there ----/
//! ```
//!
//! Events are a function of the input, the reference and the configuration, so the whole bytes are compared: one sequence for each monitor,
//! partition and feature. Only digests are kept, so that memory grows with the sequences and not with the topics.
//!
//! Invariants:
//! - It uses the dataflow, and nothing of the runtime: no task, no store, no changelog.
//! - The input is judged up to the group's committed offsets as they were when the audit began. Events of later records are not looked at, so a
//!   worker may go on meanwhile.
//!
//! Not here: an input whose first records are gone, an application that began at its topic's end, scope `global`. They are refused in words.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leeway_topology::event::{DriftEvent, EventId, Scope};
use leeway_topology::ids::{Offset, Partition};
use leeway_topology::processor::{Disposition, DriftProcessor, Monitor, Processor as _, PublishedReferences};
use leeway_topology::record::InputRecord;
use leeway_topology::state::StateError;
use leeway_topology::test_driver::InMemoryStore;

use crate::broker::{Broker, BrokerError, FetchedRecord, TopicPartition, partitioner};
use crate::task::Start;

mod digest;
mod locate;

pub use locate::{Difference, Kind};

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

/// Names a sequence of events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence {
    /// The monitor.
    pub monitor: Arc<str>,
    /// The input partition.
    pub partition: Partition,
    /// The feature.
    pub feature: Arc<str>,
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
    /// Records of the events topics that are no drift events of this application.
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

/// By input partition: the committed offset.
type Ends = BTreeMap<TopicPartition, Offset>;

/// What is known of an events topic.
struct EventsTopic {
    partitions: u32,
    monitors: BTreeMap<Arc<str>, Arc<Monitor>>,
}

/// An event of this application as it stands in its topic.
struct FoundEvent<'r> {
    sequence: Sequence,
    value: &'r [u8],
    at: &'r TopicPartition,
    offset: Offset,
    is_in_its_place: bool,
}

/// What a record of an events topic is.
enum Found<'r> {
    Event(FoundEvent<'r>),
    Later,
    Foreign,
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
        let ends = self.ends()?;
        let topics = self.events_topics()?;
        // After the offsets were taken: every event that they cover is before these ends, though its marker may still be on its way.
        self.wait_for_open_transactions(&topics)?;

        let mut digests: BTreeMap<Sequence, [Digest; 2]> = BTreeMap::new();
        let mut expected = 0;
        let records = self.expected(&ends, &mut |sequence, value| {
            expected += 1;
            digests.entry(sequence).or_default()[0].push(value);
            ControlFlow::Continue(())
        })?;
        let mut misplaced: BTreeSet<Sequence> = BTreeSet::new();
        let (mut found, mut later, mut foreign) = (0, 0, 0);
        self.found(&topics, &ends, &mut |record| {
            match record {
                Found::Later => later += 1,
                Found::Foreign => foreign += 1,
                Found::Event(event) => {
                    found += 1;
                    if !event.is_in_its_place {
                        misplaced.insert(event.sequence.clone());
                    }
                    digests.entry(event.sequence).or_default()[1].push(event.value);
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
        let differences = close
            .map(|sequence| self.locate(sequence, &topics, &ends))
            .collect::<Result<Vec<_>, _>>()?;
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

    fn ends(&self) -> Result<Ends, AuditError> {
        let mut ends = Ends::new();
        for topic in self.inputs().keys() {
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
                let described = self.broker.describe_topic(name, TIMEOUT).map_err(|error| broker_error(name, error))?;
                let partitions = described
                    .ok_or_else(|| broker_error(name, BrokerError::NoSuchTopic(name.to_string())))?
                    .partitions;
                let monitors = BTreeMap::new();
                topics.insert(name.clone(), EventsTopic { partitions, monitors });
            }
            if let Some(topic) = topics.get_mut(name) {
                topic.monitors.insert(monitor.name.clone(), monitor.clone());
            }
        }
        Ok(topics)
    }

    fn wait_for_open_transactions(&self, topics: &BTreeMap<Arc<str>, EventsTopic>) -> Result<(), AuditError> {
        let ranges = |topic: &str| {
            let positions = self.broker.group_positions(self.application_id, topic, TIMEOUT);
            positions.map_err(|error| broker_error(topic, error))
        };
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        for topic in topics.keys() {
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

    /// Hands over every event that the input implies, in the order of its sequence. Gives the number of records.
    fn expected(&self, ends: &Ends, visit: &mut dyn FnMut(Sequence, &[u8]) -> ControlFlow<()>) -> Result<u64, AuditError> {
        let mut records = 0;
        for (topic, monitors) in self.inputs() {
            let mut processors: BTreeMap<Partition, DriftProcessor> = BTreeMap::new();
            let mut events = Vec::new();
            let mut failed = None;
            let read = self.read(&topic, &mut |input, record| {
                if ends.get(input).is_none_or(|end| record.offset >= *end) {
                    return ControlFlow::Continue(());
                }
                records += 1;
                let processor = match processors.entry(input.partition) {
                    std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::btree_map::Entry::Vacant(vacant) => {
                        let nothing = InMemoryStore::default();
                        match DriftProcessor::open(self.application_id, input.partition, &monitors, self.references, &nothing) {
                            Ok(processor) => vacant.insert(processor),
                            Err(error) => {
                                failed = Some(AuditError::Dataflow { input: input.clone(), error });
                                return ControlFlow::Break(());
                            }
                        }
                    }
                };
                let record = InputRecord {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    value: record.value,
                };
                if processor.process(&record) == (Disposition::Processed { check_due: true }) {
                    processor.check(&mut events);
                    for event in events.drain(..) {
                        let sequence = Sequence {
                            monitor: event.monitor.clone(),
                            partition: input.partition,
                            feature: event.feature.clone(),
                        };
                        visit(sequence, &event.to_json())?;
                    }
                }
                ControlFlow::Continue(())
            });
            match failed {
                Some(error) => return Err(error),
                None => read?,
            }
        }
        Ok(records)
    }

    /// Hands over every record of the events topics, as what it is.
    fn found(
        &self,
        topics: &BTreeMap<Arc<str>, EventsTopic>,
        ends: &Ends,
        visit: &mut dyn FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> Result<(), AuditError> {
        for (name, topic) in topics {
            self.read(name, &mut |at, record| visit(self.classify(topic, ends, at, &record)))?;
        }
        Ok(())
    }

    fn classify<'r>(&self, topic: &EventsTopic, ends: &Ends, at: &'r TopicPartition, record: &FetchedRecord<'r>) -> Found<'r> {
        let Some((value, event)) = record.value.and_then(|value| Some((value, DriftEvent::from_json(value).ok()?))) else {
            return Found::Foreign;
        };
        let (Some(monitor), Some(partition)) = (topic.monitors.get(&event.monitor), event.partition) else {
            return Found::Foreign;
        };
        let id = EventId::new(
            self.application_id,
            &monitor.name,
            &monitor.topic,
            Some(partition),
            Scope::Partition,
            None,
        );
        if !id.begins(&event.event_id) {
            return Found::Foreign;
        }
        let input = TopicPartition::new(monitor.topic.clone(), partition);
        let end = ends.get(&input).copied().unwrap_or(Offset(0));
        if event.window_end_offset.is_some_and(|window_end| window_end >= end) {
            return Found::Later;
        }
        let place = partitioner::partition(event.feature.as_bytes(), topic.partitions);
        Found::Event(FoundEvent {
            is_in_its_place: record.key == Some(event.feature.as_bytes()) && at.partition == place,
            sequence: Sequence {
                monitor: event.monitor,
                partition,
                feature: event.feature,
            },
            value,
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
