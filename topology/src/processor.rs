//! The processor of one task: records in, a step out.
//!
//! [`DriftProcessor`] keeps all monitors of one input topic for one partition, [`GlobalProcessor`] the windows of whole topics that come to one
//! partition of the repartition topic. Between two calls of [`Processor::flush`] it changes memory only;
//! `flush` gives the changed keys with whole values. It reads the store, writes nothing, and never looks at a clock.

mod announcer;
mod cache_budget;
mod drift_processor;
mod global_processor;
mod global_time;
mod measure;
mod missing;
mod monitor;
mod monitor_windows;
mod monitored_window;
mod place;
mod quality_tally;
mod references;
mod segment_text;
mod segments;

pub use cache_budget::CacheBudget;
pub use drift_processor::DriftProcessor;
pub use global_processor::GlobalProcessor;
pub use monitor::{InvalidMonitor, MAX_SEGMENTS_MAX, Monitor, Scopes};
pub use monitored_window::{Irregular, MonitoredWindow, Windowing};
pub use references::{Publication, PublishedReferences, References};
pub use segments::REST;

use std::sync::Arc;

use self::place::Place;
use crate::event::{DriftEvent, Event, QualityEvent, Scope};
use crate::ids::{Partition, RecordNumber, Timestamp};
use crate::record::{InputRecord, Missing, Rejected};
use crate::reference::ReferenceError;
use crate::repartition::ShippedPane;
use crate::state::{Put, ReadStore, StateError};

/// Where a processor runs: what all of its monitors share.
#[derive(Clone, Copy, Debug)]
pub struct TaskContext<'a> {
    /// The application.
    pub application_id: &'a str,
    /// Of the topic that the task reads.
    pub partition: Partition,
    /// As many has that topic.
    pub partitions: u32,
    /// Memory for the windows of segments.
    pub cache: &'a Arc<CacheBudget>,
}

impl TaskContext<'_> {
    fn place(&self, monitor: &Arc<Monitor>, scope: Scope) -> Arc<Place> {
        Arc::new(Place {
            application_id: self.application_id.into(),
            monitor: Arc::clone(monitor),
            scope,
            partition: self.partition,
            partitions: self.partitions,
        })
    }
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Valid: counted as a record of the partition.
    Processed {
        /// A check is due: call [`Processor::check`] before the next record.
        check_due: bool,
    },
    /// As [`Self::Processed`], and too late for every window of a monitor that wants such records among the dead letters.
    Late {
        /// A check is due all the same: of another monitor.
        check_due: bool,
        /// Whose windows.
        monitor: Arc<str>,
    },
    /// A null value: skipped and counted.
    Tombstone,
    /// Not valid: a dead letter.
    Rejected(Rejected),
    /// A pane of a monitor that is not configured: skipped.
    Foreign,
    /// Not taken yet: it was measured by a reference that is not known here so far. Give it again when it is.
    Waiting {
        /// Whose reference.
        monitor: Arc<str>,
        /// Which.
        version: Arc<str>,
    },
}

impl Disposition {
    /// Whether [`Processor::check`] is to be called before the next record.
    #[must_use]
    pub fn is_check_due(&self) -> bool {
        matches!(self, Self::Processed { check_due: true } | Self::Late { check_due: true, .. })
    }
}

/// What is to be written beside the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// Drift events, in their order.
    pub events: Vec<DriftEvent>,
    /// Quality events, in their order.
    pub quality: Vec<QualityEvent>,
    /// Panes for the windows of the whole topic, in their order.
    pub panes: Vec<ShippedPane>,
}

impl Outputs {
    /// How many events there are, of all kinds.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.events.len() + self.quality.len()
    }

    /// Takes out the events of all kinds, in the order in which they are written: of each check those of drift, then those of quality. So it does not
    /// matter how many checks were made at a time.
    pub fn drain_events(&mut self, visit: &mut dyn FnMut(Event)) {
        let mut quality = self.quality.drain(..).peekable();
        for event in self.events.drain(..) {
            let of_check: Vec<_> = if event.is_summary() {
                std::iter::from_fn(|| quality.next_if(|quality| quality.is_of(&event))).collect()
            } else {
                Vec::new()
            };
            visit(Event::Drift(event));
            of_check.into_iter().for_each(|quality| visit(Event::Quality(quality)));
        }
        // Each is of a check that has a summary.
        debug_assert!(quality.peek().is_none(), "a quality event of no check");
        quality.for_each(|quality| visit(Event::Quality(quality)));
    }
}

/// A sub-topology's processor for one partition.
pub trait Processor: Send {
    /// Takes the next record of the partition, in offset order. `store` holds what was flushed and applied: windows that are not in memory are read
    /// from there.
    ///
    /// # Errors
    /// When the store fails, or a window in it cannot be used: the processor's memory means nothing then.
    fn process(&mut self, record: &InputRecord<'_>, store: &dyn ReadStore) -> Result<Disposition, StateError>;

    /// Whether [`Self::check`] is to be called before the next record: after the last one, or since a processor with segments was opened in the
    /// middle of what it left.
    fn is_check_due(&self) -> bool;

    /// Makes checks that are due after the last record and appends what they give. Many segments' are made some at a time, so that what they give
    /// fits in an epoch: while [`Self::is_check_due`] says so, it is to be called again, also after a flush in between.
    ///
    /// # Errors
    /// As of [`Self::process`].
    fn check(&mut self, store: &dyn ReadStore, out: &mut Outputs) -> Result<(), StateError>;

    /// The partition is idle at its end: time windows close of the monitors for which that counts. Says whether [`Self::check`] is due.
    fn close_idle(&mut self, counts_for: &dyn Fn(&Monitor) -> bool) -> bool;

    /// The partition is at its end: where it never had a record, the time windows of the whole topic are told not to wait for it. Says whether
    /// [`Self::check`] is due.
    fn announce_empty(&mut self) -> bool;

    /// What [`References::current`] says has changed: monitors take it over after their next check. Gives the references that cannot be, and why.
    fn offer_references(&mut self, references: &dyn References) -> Vec<(Arc<str>, ReferenceError)>;

    /// Appends every key that changed since the last flush, with its whole value.
    fn flush(&mut self, puts: &mut Vec<Put>);

    /// The store has what the last flush gave: it may be read from there again.
    fn applied(&mut self);

    /// Bytes that the next flush will give, about: as far as segments make them many.
    fn unflushed_bytes(&self) -> usize;

    /// The number of valid records so far: of the monitor that has seen most.
    fn record_number(&self) -> RecordNumber;

    /// The largest event time seen, if any record had one.
    fn stream_time(&self) -> Option<Timestamp>;

    /// Its windows that are in memory, for queries: those of all segments are not.
    fn windows(&self) -> Vec<&MonitoredWindow>;

    /// Visits the monitors that have segments: how many live.
    fn visit_segments(&self, visit: &mut dyn FnMut(&str, usize));

    /// The self-check after a restore: for each window, pane and feature the bins (`other` and missing included) add up to the records.
    ///
    /// # Errors
    /// [`StateError::Contradictory`] with both numbers.
    fn verify(&self) -> Result<(), StateError>;

    /// Visits the missing values since the last call: monitor, feature, reason, how many.
    fn drain_missing(&mut self, visit: &mut dyn FnMut(&str, &str, Missing, u64));

    /// Visits what no check looks at, since the last call: monitor, why, how many.
    fn drain_irregular(&mut self, visit: &mut dyn FnMut(&str, Irregular, u64));
}

#[cfg(test)]
mod tests;
