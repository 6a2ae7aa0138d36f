//! The processor of one task: records in, a step out.
//!
//! [`DriftProcessor`] keeps all monitors of one input topic for one partition. Between two calls of [`Processor::flush`] it changes memory only;
//! `flush` gives the changed keys with whole values. It never performs input or output and never looks at a clock.

mod drift_processor;
mod missing;
mod monitor;
mod monitored_window;
mod references;

pub use drift_processor::DriftProcessor;
pub use monitor::{InvalidMonitor, Monitor};
pub use monitored_window::{Irregular, MonitoredWindow, Windowing};
pub use references::{PublishedReferences, References};

use crate::event::DriftEvent;
use crate::ids::{RecordNumber, Timestamp};
use crate::record::{InputRecord, Rejected};
use crate::state::Put;

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Valid: counted as a record of the partition.
    Processed {
        /// A check is due: call [`Processor::check`] before the next record.
        check_due: bool,
    },
    /// A null value: skipped and counted.
    Tombstone,
    /// Not valid: a dead letter.
    Rejected(Rejected),
}

/// A sub-topology's processor for one partition.
pub trait Processor {
    /// Takes the next record of the partition, in offset order.
    fn process(&mut self, record: &InputRecord<'_>) -> Disposition;

    /// Makes the checks that are due after the last record and appends their events. Apart from `process` so that the runtime can time it.
    fn check(&mut self, events: &mut Vec<DriftEvent>);

    /// Appends every key that changed since the last flush, with its whole value.
    fn flush(&mut self, puts: &mut Vec<Put>);

    /// The number of valid records so far: of the monitor that has seen most.
    fn record_number(&self) -> RecordNumber;

    /// The largest event time seen, if any record had one.
    fn stream_time(&self) -> Option<Timestamp>;
}

#[cfg(test)]
mod tests;
