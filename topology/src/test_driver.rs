//! Runs the dataflow of one topic, an input or a repartition topic, without a broker, in the manner of Kafka's `TopologyTestDriver`.
//!
//! Records go in with [`TestDriver::pipe`], dispositions and events come out. [`TestDriver::commit`] moves the changed keys into an in-memory
//! store, [`TestDriver::restart`] forgets everything else: the processors are opened anew from that store, and each partition's position goes
//! back to the last commit, as after a crash. There is no transaction here: what was piped after the last commit has still been returned.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{DriftEvent, QualityEvent};
use crate::ids::{Offset, Partition, Timestamp};
use crate::processor::{CacheBudget, Disposition, DriftProcessor, GlobalProcessor, Monitor, Outputs, Processor, PublishedReferences, TaskContext};
use crate::record::InputRecord;
use crate::reference::{Reference, ReferenceError};
use crate::repartition::ShippedPane;
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

    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StateError> {
        let from_there_on = self.values.range(prefix.to_vec()..);
        for (key, value) in from_there_on.take_while(|(key, _)| key.starts_with(prefix)) {
            visit(key, value);
        }
        Ok(())
    }
}

/// What came of piped records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// One per record.
    pub dispositions: Vec<Disposition>,
    /// In the order in which they were written.
    pub events: Vec<DriftEvent>,
    /// In the order in which they were written.
    pub quality: Vec<QualityEvent>,
    /// For the windows of the whole topic, in the order in which they were written.
    pub panes: Vec<ShippedPane>,
}

/// The dataflow of one topic, with a store in memory for each partition.
pub struct TestDriver {
    reads: Reads,
    application_id: String,
    monitors: Vec<Arc<Monitor>>,
    references: PublishedReferences,
    budget: Arc<CacheBudget>,
    tasks: BTreeMap<Partition, Task>,
}

/// As many partitions a driver says that its topic has.
pub const PARTITIONS: u32 = 3;

/// What topic it is.
#[derive(Clone, Copy)]
enum Reads {
    Input,
    Repartition,
}

struct Task {
    /// `None` after a restart, until the next record.
    processor: Option<Box<dyn Processor>>,
    store: InMemoryStore,
    position: Offset,
    committed: Offset,
}

impl TestDriver {
    /// A driver for the monitors of one input topic.
    #[must_use]
    pub fn new(application_id: &str, monitors: impl IntoIterator<Item = Monitor>, references: PublishedReferences) -> Self {
        Self::reading(Reads::Input, application_id, monitors, references)
    }

    /// A driver for the repartition topic of these monitors: what a driver of their input gave as panes goes in.
    #[must_use]
    pub fn global(application_id: &str, monitors: impl IntoIterator<Item = Monitor>, references: PublishedReferences) -> Self {
        Self::reading(Reads::Repartition, application_id, monitors, references)
    }

    fn reading(reads: Reads, application_id: &str, monitors: impl IntoIterator<Item = Monitor>, references: PublishedReferences) -> Self {
        let monitors: Vec<_> = monitors.into_iter().map(Arc::new).collect();
        debug_assert!(monitors.iter().all(|monitor| monitor.topic == monitors[0].topic), "one driver, one topic");
        Self {
            reads,
            application_id: application_id.to_owned(),
            monitors,
            references,
            budget: CacheBudget::unbounded(),
            tasks: BTreeMap::new(),
        }
    }

    /// The same with so much memory for the windows of segments; what is more is read from the store.
    #[must_use]
    pub fn with_cache(mut self, max_bytes: usize) -> Self {
        self.budget = CacheBudget::new(max_bytes);
        self
    }

    /// Pipes records into a partition, making each check when it is due.
    ///
    /// # Errors
    /// When the partition's state cannot be opened.
    pub fn pipe<'r>(&mut self, partition: Partition, records: impl IntoIterator<Item = InputRecord<'r>>) -> Result<Output, StateError> {
        let task = self.open(partition)?;
        let (mut out, mut dispositions) = (Outputs::default(), Vec::new());
        if let Some(processor) = &mut task.processor {
            // What it was opened in the middle of.
            while processor.is_check_due() {
                processor.check(&task.store, &mut out)?;
            }
            for record in records {
                let disposition = processor.process(&record, &task.store)?;
                task.position = record.offset.next();
                while processor.is_check_due() {
                    processor.check(&task.store, &mut out)?;
                }
                dispositions.push(disposition);
            }
        }
        Ok(Output {
            dispositions,
            events: out.events,
            quality: out.quality,
            panes: out.panes,
        })
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
                key: None,
            });
        self.pipe(partition, records)
    }

    /// Pipes panes into a partition of the repartition topic, from its position on.
    ///
    /// # Errors
    /// When the partition's state cannot be opened.
    pub fn pipe_panes<'p>(&mut self, partition: Partition, panes: impl IntoIterator<Item = &'p ShippedPane>) -> Result<Output, StateError> {
        let messages: Vec<_> = panes.into_iter().map(|pane| (pane.key(), pane.value())).collect();
        let offsets = self.position(partition).0..;
        let records = std::iter::zip(offsets, &messages).map(|(offset, (key, value))| InputRecord {
            offset: Offset(offset),
            timestamp: None,
            value: Some(value),
            key: Some(key),
        });
        self.pipe(partition, records)
    }

    /// Tells a partition that it is idle at its end.
    ///
    /// # Errors
    /// When the partition's state cannot be opened.
    pub fn close_idle(&mut self, partition: Partition) -> Result<Output, StateError> {
        let task = self.open(partition)?;
        let mut out = Outputs::default();
        if let Some(processor) = &mut task.processor
            && processor.close_idle(&|_| true)
        {
            while processor.is_check_due() {
                processor.check(&task.store, &mut out)?;
            }
        }
        Ok(Output {
            dispositions: Vec::new(),
            events: out.events,
            quality: out.quality,
            panes: out.panes,
        })
    }

    /// Publishes a reference and offers it to every partition that is open.
    ///
    /// # Errors
    /// When it lacks a feature that its monitor watches.
    pub fn publish(&mut self, reference: Reference) -> Result<(), ReferenceError> {
        self.references.publish(Arc::new(reference));
        let open = self.tasks.values_mut().filter_map(|task| task.processor.as_mut());
        let refused = open.flat_map(|processor| processor.offer_references(&self.references));
        refused.map(|(_, error)| error).next().map_or(Ok(()), Err)
    }

    /// Writes every partition's changed keys into its store.
    pub fn commit(&mut self) {
        for task in self.tasks.values_mut() {
            if let Some(processor) = &mut task.processor {
                let mut puts = Vec::new();
                processor.flush(&mut puts);
                task.store.apply(puts);
                processor.applied();
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
    pub fn processor(&mut self, partition: Partition) -> Option<&mut dyn Processor> {
        Some(self.tasks.get_mut(&partition)?.processor.as_mut()?.as_mut())
    }

    fn open(&mut self, partition: Partition) -> Result<&mut Task, StateError> {
        let task = self.tasks.entry(partition).or_insert_with(|| Task {
            processor: None,
            store: InMemoryStore::default(),
            position: Offset(0),
            committed: Offset(0),
        });
        if task.processor.is_none() {
            let (application_id, monitors, budget, store) = (&self.application_id, &self.monitors, &self.budget, &task.store);
            let context = TaskContext {
                application_id,
                partition,
                partitions: PARTITIONS,
                cache: budget,
            };
            let processor: Box<dyn Processor> = match self.reads {
                Reads::Input => Box::new(DriftProcessor::open(&context, monitors, &self.references, store)?),
                Reads::Repartition => {
                    let references = Arc::new(self.references.clone());
                    Box::new(GlobalProcessor::open(&context, monitors, references, store)?)
                }
            };
            processor.verify()?;
            task.processor = Some(processor);
        }
        Ok(task)
    }
}
