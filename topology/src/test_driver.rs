//! Runs the dataflow of one input topic without a broker, in the manner of Kafka's `TopologyTestDriver`.
//!
//! Records go in with [`TestDriver::pipe`], dispositions and events come out. [`TestDriver::commit`] moves the changed keys into an in-memory
//! store, [`TestDriver::restart`] forgets everything else: the processors are opened anew from that store, and each partition's position goes
//! back to the last commit, as after a crash. There is no transaction here: what was piped after the last commit has still been returned.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::DriftEvent;
use crate::ids::{Offset, Partition, Timestamp};
use crate::processor::{Disposition, DriftProcessor, Monitor, Processor, PublishedReferences};
use crate::record::InputRecord;
use crate::reference::{Reference, ReferenceError};
use crate::state::{Key, Put, ReadStore, StateError};

/// A state store in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InMemoryStore {
    values: BTreeMap<Key, Vec<u8>>,
}

impl InMemoryStore {
    /// Writes the puts of one commit.
    pub fn apply(&mut self, puts: impl IntoIterator<Item = Put>) {
        for Put { key, value } in puts {
            match value {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
        }
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Vec<u8>)> {
        self.values.iter()
    }
}

impl ReadStore for InMemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.values.get(key).cloned())
    }
}

/// What came of piped records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// One per record.
    pub dispositions: Vec<Disposition>,
    /// In the order in which they were written.
    pub events: Vec<DriftEvent>,
}

/// The dataflow of one input topic, with a store in memory for each partition.
pub struct TestDriver {
    application_id: String,
    monitors: Vec<Arc<Monitor>>,
    references: PublishedReferences,
    tasks: BTreeMap<Partition, Task>,
}

struct Task {
    /// `None` after a restart, until the next record.
    processor: Option<DriftProcessor>,
    store: InMemoryStore,
    position: Offset,
    committed: Offset,
}

impl TestDriver {
    /// A driver for the monitors of one topic.
    #[must_use]
    pub fn new(application_id: &str, monitors: impl IntoIterator<Item = Monitor>, references: PublishedReferences) -> Self {
        let monitors: Vec<_> = monitors.into_iter().map(Arc::new).collect();
        debug_assert!(monitors.iter().all(|monitor| monitor.topic == monitors[0].topic), "one driver, one topic");
        Self {
            application_id: application_id.to_owned(),
            monitors,
            references,
            tasks: BTreeMap::new(),
        }
    }

    /// Pipes records into a partition, making each check when it is due.
    ///
    /// # Errors
    /// When the partition's state cannot be opened.
    pub fn pipe<'r>(&mut self, partition: Partition, records: impl IntoIterator<Item = InputRecord<'r>>) -> Result<Output, StateError> {
        let task = self.open(partition)?;
        let mut output = Output::default();
        if let Some(processor) = &mut task.processor {
            for record in records {
                let disposition = processor.process(&record);
                task.position = record.offset.next();
                if disposition == (Disposition::Processed { check_due: true }) {
                    processor.check(&mut output.events);
                }
                output.dispositions.push(disposition);
            }
        }
        Ok(output)
    }

    /// Pipes values into a partition: from its position on, with `first_ms` and one millisecond more each as timestamps.
    ///
    /// # Errors
    /// When the partition's state cannot be opened.
    pub fn pipe_values(
        &mut self,
        partition: Partition,
        first_ms: Timestamp,
        values: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Output, StateError> {
        let values: Vec<_> = values.into_iter().collect();
        let offsets = self.position(partition).0..;
        let timestamps = first_ms.0..;
        let records = std::iter::zip(offsets, timestamps)
            .zip(&values)
            .map(|((offset, timestamp), value)| InputRecord {
                offset: Offset(offset),
                timestamp: Some(Timestamp(timestamp)),
                value: Some(value.as_ref()),
            });
        self.pipe(partition, records)
    }

    /// Publishes a reference and offers it to every partition that is open.
    ///
    /// # Errors
    /// When it lacks a feature that its monitor watches.
    pub fn publish(&mut self, reference: Reference) -> Result<(), ReferenceError> {
        let reference = Arc::new(reference);
        self.references.publish(Arc::clone(&reference));
        for processor in self.tasks.values_mut().filter_map(|task| task.processor.as_mut()) {
            processor.offer_reference(Arc::clone(&reference))?;
        }
        Ok(())
    }

    /// Writes every partition's changed keys into its store.
    pub fn commit(&mut self) {
        for task in self.tasks.values_mut() {
            if let Some(processor) = &mut task.processor {
                let mut puts = Vec::new();
                processor.flush(&mut puts);
                task.store.apply(puts);
                task.committed = task.position;
            }
        }
    }

    /// Forgets what was not committed. Each partition is opened again, and verified, with its next record.
    pub fn restart(&mut self) {
        for task in self.tasks.values_mut() {
            task.processor = None;
            task.position = task.committed;
        }
    }

    /// The offset of the partition's next record.
    #[must_use]
    pub fn position(&self, partition: Partition) -> Offset {
        self.tasks.get(&partition).map_or(Offset(0), |task| task.position)
    }

    /// What was committed of a partition.
    #[must_use]
    pub fn store(&self, partition: Partition) -> Option<&InMemoryStore> {
        self.tasks.get(&partition).map(|task| &task.store)
    }

    /// The processor of a partition that is open.
    pub fn processor(&mut self, partition: Partition) -> Option<&mut DriftProcessor> {
        self.tasks.get_mut(&partition)?.processor.as_mut()
    }

    fn open(&mut self, partition: Partition) -> Result<&mut Task, StateError> {
        let task = self.tasks.entry(partition).or_insert_with(|| Task {
            processor: None,
            store: InMemoryStore::default(),
            position: Offset(0),
            committed: Offset(0),
        });
        if task.processor.is_none() {
            let processor = DriftProcessor::open(&self.application_id, partition, &self.monitors, &self.references, &task.store)?;
            processor.verify()?;
            task.processor = Some(processor);
        }
        Ok(task)
    }
}
