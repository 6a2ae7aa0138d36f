//! What the input does not say, as what was written tells: where each partition took over another reference, and where it was idle.
//!
//! A partition changes over after a check, at once. So the point is the last check, or the last pane, before the first one of the other version. Windows
//! that closed since their partition was idle say so, and after which record.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use leeway_topology::event::{ClosedBy, DriftEvent};
use leeway_topology::ids::{Partition, RecordNumber};
use leeway_topology::processor::{DriftProcessor, Monitor, Outputs, Publication, PublishedReferences, References};
use leeway_topology::repartition::{Content, ShippedPane};

use super::{Audit, AuditError, Grounds};
use crate::broker::Broker;

/// A check, or a pane, by the record that came last before it. Of the two checks that one record may have, the one that idleness made comes later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Told {
    /// Empty where the monitor has no segments.
    segment: Arc<str>,
    /// Of the segment.
    record: RecordNumber,
    is_idle: bool,
}

impl Told {
    fn by_event(event: &DriftEvent) -> Self {
        Self {
            segment: event.segment.clone().unwrap_or_else(|| NO_SEGMENT.into()),
            record: event.record_count,
            is_idle: event.closed_by == Some(ClosedBy::Idle),
        }
    }

    /// With the reference that it was measured by. `None`: it tells of none.
    fn by_pane(pane: &ShippedPane) -> Option<(Self, &Arc<str>)> {
        let (record, is_idle, version) = match &pane.content {
            Content::Count(content) => (
                RecordNumber((content.pane.number.0 + 1) * content.every),
                false,
                &content.reference_version,
            ),
            Content::Window(part) => (part.record_number, part.is_idle, &part.reference_version),
            Content::Progress(_) => return None,
        };
        let told = Self {
            segment: pane.segment.clone(),
            record,
            is_idle,
        };
        Some((told, version))
    }
}

const NO_SEGMENT: &str = "";

/// What one monitor's partition did.
#[derive(Default)]
struct Story {
    /// References, each with what was told last before it counted.
    versions: Vec<(Option<Told>, String)>,
    last: Option<Told>,
    /// Segments and records after which the partition was idle.
    idle: BTreeSet<(Arc<str>, RecordNumber)>,
}

impl Story {
    fn note(&mut self, told: Told, version: &str) {
        if self.versions.last().is_none_or(|(_, last)| last != version) {
            self.versions.push((self.last.clone(), version.to_owned()));
        }
        if told.is_idle {
            self.idle.insert((told.segment.clone(), told.record));
        }
        self.last = Some(told);
    }
}

/// By monitor and partition. Monitors of which the input says everything are not in it.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<(Arc<str>, Partition), Story>);

/// Whether what was written has to be asked about a monitor.
fn has_story(monitor: &Monitor, references: &PublishedReferences) -> bool {
    references.versions(&monitor.name) > 1 || monitor.idle_close_after_ms.is_some()
}

/// Whether a monitor's checks are told by its panes only.
fn is_silent(monitor: &Monitor) -> bool {
    !monitor.scopes.partition
}

impl Changes {
    /// What a partition's monitors began with.
    pub(super) fn references_of<'a>(&'a self, partition: Partition, published: &'a PublishedReferences) -> AtTheStart<'a> {
        AtTheStart {
            changes: self,
            partition,
            published,
        }
    }

    /// After the checks of one record: takes over the references that were taken over there.
    pub(super) fn take_over(&self, partition: Partition, processor: &mut DriftProcessor, out: &Outputs, published: &PublishedReferences) {
        if self.0.is_empty() {
            return;
        }
        // What each monitor told last.
        let mut told: BTreeMap<Arc<str>, Told> = BTreeMap::new();
        for pane in &out.panes {
            told.extend(Told::by_pane(pane).map(|(last, _)| (pane.monitor.clone(), last)));
        }
        for event in out.events.iter().filter(|event| event.is_summary()) {
            told.insert(event.monitor.clone(), Told::by_event(event));
        }
        for (monitor, told) in told {
            let Some(story) = self.0.get(&(monitor.clone(), partition)) else {
                continue;
            };
            let told = Some(told);
            if let Some((_, version)) = story.versions.iter().skip(1).find(|(after, _)| *after == told)
                && let Some(publication) = published.version(&monitor, version)
            {
                // One that does not fit was never taken over: what was written with it then differs.
                processor.change_over(&publication).unwrap_or_default();
            }
        }
    }

    /// Closes the windows of those monitors whose partition was idle after the present record. Says whether a check is due.
    pub(super) fn close_idle(&self, partition: Partition, processor: &mut DriftProcessor) -> bool {
        if self.0.values().all(|story| story.idle.is_empty()) {
            return false;
        }
        processor.close_idle_if(&|monitor, segment, record| {
            let story = self.0.get(&(monitor.name.clone(), partition));
            story.is_some_and(|story| story.idle.contains(&(segment.into(), record)))
        })
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
        let has_story = |monitor: &Monitor| has_story(monitor, self.references);
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
                    let story = changes.0.entry((event.monitor.clone(), partition)).or_default();
                    story.note(Told::by_event(&event), &event.reference_version);
                }
                ControlFlow::Continue(())
            })?;
        }
        for (name, topic) in &grounds.panes {
            let monitor = |name: &str| topic.monitors.iter().find(|monitor| *monitor.name == *name);
            // Where a partition's checks are told, they have said it.
            let is_asked = |name: &str| monitor(name).is_some_and(|monitor| is_silent(monitor) && has_story(monitor));
            // Segments are in several partitions of the topic, which are not read in the order in which they were written: sorted by where they end, and time
            // windows as a partition closes them.
            let mut panes = Vec::new();
            self.read(name, &mut |_, record| {
                if let (Some(key), Some(value)) = (record.key, record.value)
                    && let Ok(pane) = ShippedPane::read(key, value)
                    && let Some((told, version)) = Told::by_pane(&pane)
                {
                    let of = (pane.monitor.clone(), pane.content.partition());
                    if is_asked(&pane.monitor) {
                        let end = match &pane.content {
                            Content::Count(content) => (content.pane.span.map(|span| span.last), None),
                            Content::Window(part) if !pane.segment.is_empty() => (None, Some((part.publication, part.window, pane.segment.clone()))),
                            // Without segments all are in one partition.
                            Content::Window(_) | Content::Progress(_) => (None, None),
                        };
                        panes.push((of, end, (told, version.clone())));
                    } else if told.is_idle && monitor(&pane.monitor).is_some() {
                        // Also windows with too few records to be checked are closed then.
                        changes.0.entry(of).or_default().idle.insert((told.segment, told.record));
                    }
                }
                ControlFlow::Continue(())
            })?;
            panes.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
            for (of, _, (told, version)) in panes {
                changes.0.entry(of).or_default().note(told, &version);
            }
        }
        Ok(changes)
    }
}
