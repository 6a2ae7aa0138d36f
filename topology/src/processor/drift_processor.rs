//! All monitors of one topic, for one partition: each record is decoded once for all of them.

use std::sync::Arc;

use super::monitored_window::{Irregular, MonitoredWindow};
use super::{Disposition, Monitor, Outputs, Processor, Publication, References};
use crate::decoder::Decoder;
use crate::ids::{Partition, RecordNumber, Timestamp};
use crate::record::{InputRecord, Missing, Observation};
use crate::reference::ReferenceError;
use crate::state::{Put, ReadStore, StateError};

/// The processor of one task.
pub struct DriftProcessor {
    windows: Vec<MonitoredWindow>,
    decoder: Decoder,
    /// One observation per feature of each monitor, one monitor after the other. Kept, so that no record allocates.
    row: Vec<Observation>,
}

impl DriftProcessor {
    /// Opens the state of one partition for all monitors of one topic. A monitor that the store does not know begins with the next record, on
    /// its current reference. One that it does know goes on with the reference that its panes were binned by; if another is current by now, that
    /// one is offered to it, as by [`DriftProcessor::offer_reference`] (but one that lacks a monitored feature is passed over here).
    ///
    /// # Errors
    /// When the store fails or holds bytes that cannot be read, when the stored state contradicts itself or the monitors' settings, and when a
    /// reference that is needed is not there.
    pub fn open(
        application_id: &str,
        partition: Partition,
        monitors: &[Arc<Monitor>],
        references: &dyn References,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let windows = monitors
            .iter()
            .map(|monitor| MonitoredWindow::open(application_id, partition, monitor, references, store))
            .collect::<Result<Vec<_>, _>>()?;
        let decoder = decoder(&windows);
        let features = windows.iter().map(MonitoredWindow::width).sum();
        Ok(Self {
            windows,
            decoder,
            row: Vec::with_capacity(features),
        })
    }

    /// A new current reference: taken over after the next check (at once while the partition has no record), recorded with its record number.
    /// References of other monitors are ignored.
    ///
    /// # Errors
    /// When it lacks a feature that the monitor is set to watch: the present one stays.
    pub fn offer_reference(&mut self, published: &Publication) -> Result<(), ReferenceError> {
        let (mut changed, monitor) = (false, published.reference.monitor());
        for window in self.windows.iter_mut().filter(|window| *window.monitor().name == *monitor) {
            changed |= window.offer_reference(published)?;
        }
        if changed {
            self.decoder = decoder(&self.windows);
        }
        Ok(())
    }
}

impl Processor for DriftProcessor {
    fn process(&mut self, record: &InputRecord<'_>) -> Disposition {
        let Some(value) = record.value else { return Disposition::Tombstone };
        self.row.clear();
        if let Err(rejected) = self.decoder.decode(value, &mut self.row) {
            return Disposition::Rejected(rejected);
        }
        let mut rest = self.row.as_slice();
        let mut times = self.decoder.times().iter();
        let (mut check_due, mut late) = (false, None);
        for window in &mut self.windows {
            let (own, others) = rest.split_at(window.width());
            rest = others;
            let said = window.monitor().timestamp_field.is_some().then(|| times.next().copied().flatten());
            let observed = window.observe(own, record.offset, record.timestamp, said);
            check_due |= observed.check_due;
            if observed.is_late && window.monitor().late_to_dead_letters {
                late = Some(&window.monitor().name);
            }
        }
        match late {
            None => Disposition::Processed { check_due },
            Some(monitor) => Disposition::Late {
                check_due,
                monitor: Arc::clone(monitor),
            },
        }
    }

    fn check(&mut self, out: &mut Outputs) {
        let mut changed = false;
        for window in self.windows.iter_mut().filter(|window| window.is_check_due()) {
            changed |= window.check(out) && window.change_over();
        }
        if changed {
            self.decoder = decoder(&self.windows);
        }
    }

    fn close_idle(&mut self, counts_for: &dyn Fn(&Monitor) -> bool) -> bool {
        let mut due = false;
        for window in self.windows.iter_mut().filter(|window| counts_for(window.monitor())) {
            due |= window.close_idle();
        }
        due
    }

    fn offer_references(&mut self, references: &dyn References) -> Vec<(Arc<str>, ReferenceError)> {
        let monitors: Vec<_> = self.windows.iter().map(|window| Arc::clone(&window.monitor().name)).collect();
        let offers = monitors.into_iter().filter_map(|name| Some((references.current(&name)?, name)));
        offers
            .filter_map(|(published, name)| self.offer_reference(&published).err().map(|error| (name, error)))
            .collect()
    }

    fn flush(&mut self, puts: &mut Vec<Put>) {
        for window in &mut self.windows {
            window.flush(puts);
        }
    }

    fn record_number(&self) -> RecordNumber {
        self.windows
            .iter()
            .map(|window| window.window().record_number())
            .max()
            .unwrap_or(RecordNumber(0))
    }

    fn stream_time(&self) -> Option<Timestamp> {
        self.windows.iter().filter_map(MonitoredWindow::stream_time).max()
    }

    fn drain_missing(&mut self, visit: &mut dyn FnMut(&str, &str, Missing, u64)) {
        for window in &mut self.windows {
            window.drain_missing(visit);
        }
    }

    fn drain_irregular(&mut self, visit: &mut dyn FnMut(&str, Irregular, u64)) {
        for window in &mut self.windows {
            window.drain_irregular(visit);
        }
    }

    fn windows(&self) -> Vec<&MonitoredWindow> {
        self.windows.iter().collect()
    }

    fn verify(&self) -> Result<(), StateError> {
        self.windows.iter().try_for_each(MonitoredWindow::verify)
    }
}

fn decoder(windows: &[MonitoredWindow]) -> Decoder {
    let decoder = windows.iter().fold(Decoder::empty(), |decoder, window| {
        decoder.with_features(window.reference(), &window.monitor().paths)
    });
    decoder.with_times(windows.iter().filter_map(|window| window.monitor().timestamp_field.as_ref()))
}
