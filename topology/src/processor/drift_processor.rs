//! All monitors of one topic, for one partition: each record is decoded once for all of them.

use std::sync::Arc;

use super::monitor_windows::{MonitorWindows, Observing};
use super::monitored_window::Irregular;
use super::segment_text;
use super::{Disposition, Monitor, MonitoredWindow, Outputs, Processor, Publication, References, TaskContext};
use crate::decoder::Decoder;
use crate::ids::{RecordNumber, Timestamp};
use crate::record::{InputRecord, Missing, Observation};
use crate::reference::ReferenceError;
use crate::state::{Put, ReadStore, StateError};

/// The processor of one task.
pub struct DriftProcessor {
    monitors: Vec<MonitorWindows>,
    decoder: Decoder,
    /// One observation per feature of each monitor, one monitor after the other. Kept, so that no record allocates.
    row: Vec<Observation>,
    /// The segment that a record is in, for one monitor after the other.
    segment: String,
}

impl DriftProcessor {
    /// Opens the state of one partition for all monitors of one topic. A monitor that the store does not know begins with the next record, on
    /// its current reference. One that it does know goes on with the reference that its panes were binned by; if another is current by now, that
    /// one is offered to it, as by [`DriftProcessor::offer_reference`] (but one that lacks a monitored feature is passed over here).
    ///
    /// What is due by then is to be checked before the first record, see [`Processor::is_check_due`].
    ///
    /// # Errors
    /// When the store fails or holds bytes that cannot be read, when the stored state contradicts itself or the monitors' settings, and when a
    /// reference that is needed is not there.
    pub fn open(
        context: &TaskContext<'_>,
        monitors: &[Arc<Monitor>],
        references: &dyn References,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let monitors = monitors
            .iter()
            .map(|monitor| MonitorWindows::open(context, monitor, references, store))
            .collect::<Result<Vec<_>, _>>()?;
        let decoder = decoder(&monitors);
        let features = monitors.iter().map(MonitorWindows::width).sum();
        Ok(Self {
            monitors,
            decoder,
            row: Vec::with_capacity(features),
            segment: String::new(),
        })
    }

    /// A new current reference: taken over after the next check (at once while the partition has no record), recorded with its record number.
    /// References of other monitors are ignored.
    ///
    /// # Errors
    /// When it lacks a feature that the monitor is set to watch: the present one stays.
    pub fn offer_reference(&mut self, published: &Publication) -> Result<(), ReferenceError> {
        let (mut changed, monitor) = (false, published.reference.monitor());
        for windows in self.monitors.iter_mut().filter(|windows| *windows.monitor().name == *monitor) {
            changed |= windows.offer_reference(published)?;
        }
        if changed {
            self.decoder = decoder(&self.monitors);
        }
        Ok(())
    }

    /// How far each monitor is: record number and stream time.
    pub fn positions(&self) -> impl Iterator<Item = (Arc<str>, (RecordNumber, Option<Timestamp>))> {
        self.monitors.iter().map(|windows| {
            let position = (windows.record_number(), windows.stream_time());
            (Arc::clone(&windows.monitor().name), position)
        })
    }

    /// As [`Processor::close_idle`], for a replay, which knows after which records, of which segments (empty: of all), windows closed by idleness. A
    /// segment's close right after its record, which gives the same events as any time before its next one, in another order among segments.
    pub fn close_idle_if(&mut self, was_idle: &dyn Fn(&Monitor, &str, RecordNumber) -> bool) -> bool {
        let mut due = false;
        for windows in &mut self.monitors {
            let monitor = Arc::clone(windows.monitor());
            due |= windows.close_idle_if(&|segment, record| was_idle(&monitor, segment, record));
        }
        due
    }

    /// As [`Self::offer_reference`], but it is taken over at once: for a replay, which knows when it was.
    ///
    /// # Errors
    /// As there.
    pub fn change_over(&mut self, published: &Publication) -> Result<(), ReferenceError> {
        self.offer_reference(published)?;
        let monitor = published.reference.monitor();
        for windows in self.monitors.iter_mut().filter(|windows| *windows.monitor().name == *monitor) {
            windows.change_over();
        }
        self.decoder = decoder(&self.monitors);
        Ok(())
    }
}

impl Processor for DriftProcessor {
    fn process(&mut self, record: &InputRecord<'_>, store: &dyn ReadStore) -> Result<Disposition, StateError> {
        let Some(value) = record.value else { return Ok(Disposition::Tombstone) };
        self.row.clear();
        if let Err(rejected) = self.decoder.decode(value, &mut self.row) {
            return Ok(Disposition::Rejected(rejected));
        }
        let mut rest = self.row.as_slice();
        let (mut times, mut texts) = (self.decoder.times().iter(), self.decoder.texts());
        let mut values_of_all = self.decoder.watched_values();
        let (mut check_due, mut late) = (false, None);
        for windows in &mut self.monitors {
            let (own, others) = rest.split_at(windows.width());
            rest = others;
            let (values, others) = values_of_all.split_at(windows.exemplified().count());
            values_of_all = others;
            self.segment.clear();
            let monitor = windows.monitor();
            for field in &monitor.segment_by {
                segment_text::append(field.as_str(), texts.next().flatten(), &mut self.segment);
            }
            let record = Observing {
                row: own,
                values,
                offset: record.offset,
                timestamp: record.timestamp,
                said: monitor.timestamp_field.is_some().then(|| times.next().copied().flatten()),
                segment: &self.segment,
            };
            let observed = windows.observe(record, store)?;
            check_due |= observed.check_due;
            let monitor = windows.monitor();
            if observed.is_late && monitor.late_to_dead_letters {
                late = Some(Arc::clone(&monitor.name));
            }
        }
        Ok(match late {
            None => Disposition::Processed { check_due },
            Some(monitor) => Disposition::Late { check_due, monitor },
        })
    }

    fn is_check_due(&self) -> bool {
        self.monitors.iter().any(MonitorWindows::is_check_due)
    }

    fn check(&mut self, store: &dyn ReadStore, out: &mut Outputs) -> Result<(), StateError> {
        let mut changed = false;
        for windows in self.monitors.iter_mut().filter(|windows| windows.is_check_due()) {
            changed |= windows.check(store, out)?;
        }
        if changed {
            self.decoder = decoder(&self.monitors);
        }
        Ok(())
    }

    fn close_idle(&mut self, counts_for: &dyn Fn(&Monitor) -> bool) -> bool {
        let mut due = false;
        for windows in self.monitors.iter_mut().filter(|windows| counts_for(windows.monitor())) {
            due |= windows.close_idle();
        }
        due
    }

    fn announce_empty(&mut self) -> bool {
        self.monitors.iter_mut().fold(false, |due, windows| windows.announce_empty() | due)
    }

    fn offer_references(&mut self, references: &dyn References) -> Vec<(Arc<str>, ReferenceError)> {
        let monitors: Vec<_> = self.monitors.iter().map(|windows| Arc::clone(&windows.monitor().name)).collect();
        let offers = monitors.into_iter().filter_map(|name| Some((references.current(&name)?, name)));
        offers
            .filter_map(|(published, name)| self.offer_reference(&published).err().map(|error| (name, error)))
            .collect()
    }

    fn flush(&mut self, puts: &mut Vec<Put>) {
        for windows in &mut self.monitors {
            windows.flush(puts);
        }
    }

    fn applied(&mut self) {
        self.monitors.iter_mut().for_each(MonitorWindows::applied);
    }

    fn unflushed_bytes(&self) -> usize {
        self.monitors.iter().map(MonitorWindows::unflushed_bytes).sum()
    }

    fn record_number(&self) -> RecordNumber {
        self.monitors.iter().map(MonitorWindows::record_number).max().unwrap_or(RecordNumber(0))
    }

    fn stream_time(&self) -> Option<Timestamp> {
        self.monitors.iter().filter_map(MonitorWindows::stream_time).max()
    }

    fn visit_segments(&self, visit: &mut dyn FnMut(&str, usize)) {
        for windows in &self.monitors {
            if let Some(segments) = windows.segments() {
                visit(&windows.monitor().name, segments);
            }
        }
    }

    fn drain_missing(&mut self, visit: &mut dyn FnMut(&str, &str, Missing, u64)) {
        for windows in &mut self.monitors {
            windows.drain_missing(visit);
        }
    }

    fn drain_irregular(&mut self, visit: &mut dyn FnMut(&str, Irregular, u64)) {
        for windows in &mut self.monitors {
            windows.drain_irregular(visit);
        }
    }

    fn windows(&self) -> Vec<&MonitoredWindow> {
        self.monitors.iter().flat_map(MonitorWindows::in_memory).collect()
    }

    fn verify(&self) -> Result<(), StateError> {
        self.windows().into_iter().try_for_each(MonitoredWindow::verify)
    }
}

fn decoder(monitors: &[MonitorWindows]) -> Decoder {
    let decoder = monitors.iter().fold(Decoder::empty(), |decoder, windows| {
        decoder.with_watched_features(windows.reference(), &windows.monitor().paths, windows.exemplified())
    });
    decoder
        .with_times(monitors.iter().filter_map(|windows| windows.monitor().timestamp_field.as_ref()))
        .with_texts(monitors.iter().flat_map(|windows| &windows.monitor().segment_by))
}
