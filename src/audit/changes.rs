//! What the input does not say, as what was written tells: where each partition took over another reference, and where it was idle.
//!
//! A partition changes over after a check, at once. So the point is the last check, or the last pane, before the first one of the other version. Windows
//! that closed since their partition was idle say so, and after which record.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use leeway_topology::event::{ClosedBy, DriftEvent};
use leeway_topology::ids::{Partition, RecordNumber};
use leeway_topology::processor::{DriftProcessor, Monitor, Processor as _, Publication, PublishedReferences, References};
use leeway_topology::repartition::{Content, ShippedPane};

use super::{Audit, AuditError, Grounds};
use crate::broker::Broker;

/// A check, by the record that came last before it. Of the two that one record may have, the one that idleness made comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CheckAt {
    record: RecordNumber,
    is_idle: bool,
}

/// What one monitor's partition did.
struct Story {
    /// References, each with the check after which it counts.
    versions: Vec<(CheckAt, String)>,
    last: CheckAt,
    /// Records after which the partition was idle.
    idle: BTreeSet<RecordNumber>,
}

impl Story {
    fn new() -> Self {
        Self {
            versions: Vec::new(),
            last: CheckAt {
                record: RecordNumber(0),
                is_idle: false,
            },
            idle: BTreeSet::new(),
        }
    }

    /// A check, or a pane.
    fn note(&mut self, at: CheckAt, version: &str) {
        if self.versions.last().is_none_or(|(_, last)| last != version) {
            self.versions.push((self.last, version.to_owned()));
        }
        if at.is_idle {
            self.idle.insert(at.record);
        }
        self.last = at;
    }
}

/// By monitor and partition. Monitors of which the input says everything are not in it.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<(Arc<str>, Partition), Story>);

impl Changes {
    /// What a partition's monitors began with.
    pub(super) fn references_of<'a>(&'a self, partition: Partition, published: &'a PublishedReferences) -> AtTheStart<'a> {
        AtTheStart {
            changes: self,
            partition,
            published,
        }
    }

    /// Offers the references that are to be taken over after the check that is due.
    pub(super) fn offer(&self, partition: Partition, processor: &mut DriftProcessor, published: &PublishedReferences, is_idle: bool) {
        if self.0.is_empty() {
            return;
        }
        let due: Vec<_> = processor
            .windows()
            .into_iter()
            .filter_map(|window| {
                let (name, record) = (&window.monitor().name, window.window().record_number());
                let story = self.0.get(&(name.clone(), partition))?;
                let (_, version) = story.versions.iter().find(|(after, _)| *after == CheckAt { record, is_idle })?;
                published.version(name, version)
            })
            .collect();
        for publication in due {
            // One that does not fit was never taken over: what was written with it then differs.
            processor.offer_reference(&publication).unwrap_or_default();
        }
    }

    /// Closes the windows of those monitors whose partition was idle after the present record. Says whether a check is due.
    pub(super) fn close_idle(&self, partition: Partition, processor: &mut DriftProcessor) -> bool {
        if self.0.values().all(|story| story.idle.is_empty()) {
            return false;
        }
        let was_idle: BTreeSet<Arc<str>> = processor
            .windows()
            .into_iter()
            .filter(|window| {
                let story = self.0.get(&(window.monitor().name.clone(), partition));
                story.is_some_and(|story| story.idle.contains(&window.window().record_number()))
            })
            .map(|window| window.monitor().name.clone())
            .collect();
        processor.close_idle(&|monitor| was_idle.contains(&monitor.name))
    }
}

/// The references of one partition before its first record.
pub(super) struct AtTheStart<'a> {
    changes: &'a Changes,
    partition: Partition,
    published: &'a PublishedReferences,
}

impl References for AtTheStart<'_> {
    fn current(&self, monitor: &str) -> Option<Publication> {
        match self
            .changes
            .0
            .get(&(Arc::from(monitor), self.partition))
            .and_then(|story| story.versions.first())
        {
            Some((_, version)) => self.published.version(monitor, version),
            None => self.published.current(monitor),
        }
    }

    fn version(&self, monitor: &str, version: &str) -> Option<Publication> {
        self.published.version(monitor, version)
    }
}

impl<B: Broker> Audit<'_, B> {
    /// Reads them, where there is something to be told.
    pub(super) fn changes(&self, grounds: &Grounds) -> Result<Changes, AuditError> {
        let mut changes = Changes::default();
        let has_story = |monitor: &Monitor| self.references.versions(&monitor.name) > 1 || monitor.idle_close_after_ms.is_some();
        if !self.monitors.iter().any(|monitor| has_story(monitor)) {
            return Ok(changes);
        }
        for (name, topic) in &grounds.events {
            self.read(name, &mut |_, record| {
                if let Some(event) = record.value.and_then(|value| DriftEvent::from_json(value).ok())
                    && let Some(partition) = event.partition
                    && event.is_summary()
                    && topic.monitors.get(&event.monitor).is_some_and(|monitor| has_story(monitor))
                {
                    let at = CheckAt {
                        record: event.record_count,
                        is_idle: event.closed_by == Some(ClosedBy::Idle),
                    };
                    let story = changes.0.entry((event.monitor, partition)).or_insert_with(Story::new);
                    story.note(at, &event.reference_version);
                }
                ControlFlow::Continue(())
            })?;
        }
        for (name, topic) in &grounds.panes {
            // Where a partition's checks are told, they have said it.
            let is_silent = |name: &str| {
                let monitor = topic.monitors.iter().find(|monitor| *monitor.name == *name);
                monitor.is_some_and(|monitor| !monitor.scopes.partition && has_story(monitor))
            };
            self.read(name, &mut |_, record| {
                if let (Some(key), Some(value)) = (record.key, record.value)
                    && let Ok(ShippedPane {
                        monitor,
                        content: Content::Count(pane),
                        ..
                    }) = ShippedPane::read(key, value)
                    && is_silent(&monitor)
                {
                    let at = CheckAt {
                        record: RecordNumber((pane.pane.number.0 + 1) * pane.every),
                        is_idle: false,
                    };
                    let story = changes.0.entry((monitor, pane.partition)).or_insert_with(Story::new);
                    story.note(at, &pane.reference_version);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(changes)
    }
}
