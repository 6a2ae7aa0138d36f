//! Where each partition took over another reference, as what was written tells.
//!
//! A partition changes over after a check, at once. So the point is the last check, or the last pane, before the first one of the other version.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use leeway_topology::ids::{Partition, RecordNumber};
use leeway_topology::processor::{DriftProcessor, Processor as _, Publication, PublishedReferences, References};
use leeway_topology::repartition::{Content, ShippedPane};

use super::{Audit, AuditError, Grounds};
use crate::broker::Broker;
use leeway_topology::event::DriftEvent;

/// The versions of one monitor in one partition, each with the record after which it counts.
struct Versions {
    after: Vec<(RecordNumber, String)>,
    last: RecordNumber,
}

impl Versions {
    fn new() -> Self {
        Self {
            after: Vec::new(),
            last: RecordNumber(0),
        }
    }

    /// A check, or a pane, that ends with record `k`.
    fn note(&mut self, k: RecordNumber, version: &str) {
        if self.after.last().is_none_or(|(_, last)| last != version) {
            self.after.push((self.last, version.to_owned()));
        }
        self.last = k;
    }
}

/// By monitor and partition. Monitors that ever had one reference only are not in it.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<(Arc<str>, Partition), Versions>);

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
    pub(super) fn offer(&self, partition: Partition, processor: &mut DriftProcessor, published: &PublishedReferences) {
        if self.0.is_empty() {
            return;
        }
        let due: Vec<_> = processor
            .windows()
            .into_iter()
            .filter_map(|window| {
                let (name, k) = (&window.monitor().name, window.window().record_number());
                let versions = self.0.get(&(name.clone(), partition))?;
                let (_, version) = versions.after.iter().find(|(after, _)| *after == k)?;
                published.version(name, version)
            })
            .collect();
        for publication in due {
            // One that does not fit was never taken over: what was written with it then differs.
            processor.offer_reference(&publication).unwrap_or_default();
        }
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
            .and_then(|versions| versions.after.first())
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
    /// Reads them, where there is more than one version.
    pub(super) fn changes(&self, grounds: &Grounds) -> Result<Changes, AuditError> {
        let mut changes = Changes::default();
        let changed = |monitor: &str| self.references.versions(monitor) > 1;
        if !self.monitors.iter().any(|monitor| changed(&monitor.name)) {
            return Ok(changes);
        }
        for (name, topic) in &grounds.events {
            self.read(name, &mut |_, record| {
                if let Some(event) = record.value.and_then(|value| DriftEvent::from_json(value).ok())
                    && let Some(partition) = event.partition
                    && event.is_summary()
                    && topic.monitors.contains_key(&event.monitor)
                    && changed(&event.monitor)
                {
                    let versions = changes.0.entry((event.monitor, partition)).or_insert_with(Versions::new);
                    versions.note(event.record_count, &event.reference_version);
                }
                ControlFlow::Continue(())
            })?;
        }
        for (name, topic) in &grounds.panes {
            // Where a partition's checks are told, they have said it.
            let silent = |name: &str| topic.monitors.iter().any(|monitor| *monitor.name == *name && !monitor.scopes.partition);
            self.read(name, &mut |_, record| {
                if let (Some(key), Some(value)) = (record.key, record.value)
                    && let Ok(ShippedPane {
                        monitor,
                        content: Content::Count(pane),
                        ..
                    }) = ShippedPane::read(key, value)
                    && silent(&monitor)
                    && changed(&monitor)
                {
                    let versions = changes.0.entry((monitor, pane.partition)).or_insert_with(Versions::new);
                    let k = RecordNumber((pane.pane.number.0 + 1) * pane.every);
                    versions.note(k, &pane.reference_version);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(changes)
    }
}
