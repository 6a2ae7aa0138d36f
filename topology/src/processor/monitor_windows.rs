//! All windows of one monitor in one partition of its input: one, or one for each segment; and the reference that they are measured by.
//!
//! A reference that is offered is taken over after the next check, by all segments at once: so records are binned by one reference at a time.

use std::sync::Arc;

use super::announcer::Announcer;
use super::cache_budget::CacheBudget;
use super::measure::Measure;
use super::missing::MissingTally;
use super::monitored_window::{Irregular, IrregularTally, MonitoredWindow, NO_SEGMENT, Observed};
use super::place::Place;
use super::segments::Segments;
use super::{Monitor, Outputs, Publication, References, TaskContext};
use crate::decoder::WatchedValue;
use crate::event::Scope;
use crate::ids::{Offset, RecordNumber, Timestamp};
use crate::record::{Missing, Observation};
use crate::reference::{Reference, ReferenceError};
use crate::state::{Put, ReadStore, StateError};
use crate::window::Window;

/// The windows of one monitor. See the module.
pub(super) struct MonitorWindows {
    place: Arc<Place>,
    /// By which records are binned.
    measure: Arc<Measure>,
    /// The current reference, if it is not the one measured by.
    offered: Option<Arc<Measure>>,
    kept: Kept,
    /// `None`: no time windows, or they are not shipped.
    announcer: Option<Announcer>,
    /// A check was made since the last record.
    checked: bool,
    missing: MissingTally,
    irregular: IrregularTally,
}

enum Kept {
    Whole(Box<MonitoredWindow>),
    BySegment(Box<Segments>),
}

/// One record, as one monitor takes it.
#[derive(Clone, Copy)]
pub(super) struct Observing<'a> {
    pub(super) row: &'a [Observation],
    /// What the record has in `other`, of the features of [`MonitorWindows::exemplified`].
    pub(super) values: &'a [WatchedValue],
    pub(super) offset: Offset,
    /// Of the record.
    pub(super) timestamp: Option<Timestamp>,
    /// What its time field says, if there is such a field.
    pub(super) said: Option<Option<Timestamp>>,
    /// Empty where the monitor has no segments.
    pub(super) segment: &'a str,
}

impl MonitorWindows {
    /// Opens one monitor's windows: as stored, or fresh.
    pub(super) fn open(
        context: &TaskContext<'_>,
        monitor: &Arc<Monitor>,
        references: &dyn References,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let place = context.place(monitor, Scope::Partition);
        let (measure, kept) = if monitor.segment_by.is_empty() {
            let mut measures = Stored { references };
            match MonitoredWindow::stored(&place, &mut measures, store)? {
                Some(window) => (Arc::clone(window.measure()), window),
                None => {
                    let measure = Measure::current(&place, references)?;
                    (Arc::clone(&measure), MonitoredWindow::new(&place, NO_SEGMENT.into(), measure))
                }
            }
        } else {
            return Self::open_segments(place, references, context.cache, store);
        };
        Ok(Self::of(place, measure, Kept::Whole(Box::new(kept)), references))
    }

    fn open_segments(place: Arc<Place>, references: &dyn References, budget: &Arc<CacheBudget>, store: &dyn ReadStore) -> Result<Self, StateError> {
        let (measure, segments) = match Segments::stored(&place, store)? {
            Some(head) => {
                let version = head.reference_version.as_deref();
                let version = version.ok_or_else(|| place.contradictory("its segments are those of scope global"))?;
                let measure = Measure::stored(&place, version, references)?;
                (measure, Segments::restore(&place, budget, &head, Some(version), store)?)
            }
            None => (Measure::current(&place, references)?, Segments::new(&place, budget)),
        };
        Ok(Self::of(place, measure, Kept::BySegment(Box::new(segments)), references))
    }

    fn of(place: Arc<Place>, measure: Arc<Measure>, kept: Kept, references: &dyn References) -> Self {
        let mut missing = MissingTally::default();
        missing.watch(measure.reference.features().iter().map(|feature| feature.name()));
        let mut opened = Self {
            announcer: Announcer::of(&place),
            place,
            measure,
            offered: None,
            kept,
            checked: false,
            missing,
            irregular: IrregularTally::default(),
        };
        if let Some(published) = references.current(&opened.place.monitor.name) {
            // One that lacks a monitored feature is no reason to stop windows that have their own; whoever publishes it hears of it.
            opened.offer_reference(&published).unwrap_or_default();
        }
        opened
    }

    pub(super) fn monitor(&self) -> &Arc<Monitor> {
        &self.place.monitor
    }

    /// The reference that records are binned by, with the monitor's features only.
    pub(super) fn reference(&self) -> &Reference {
        &self.measure.reference
    }

    /// Features whose values in `other` it takes beside: none where nobody is told of them.
    pub(super) fn exemplified(&self) -> impl Iterator<Item = usize> {
        let tells = self.place.tells();
        self.measure.exemplified().filter(move |_| tells)
    }

    /// Observations that it takes of a row.
    pub(super) fn width(&self) -> usize {
        self.measure.layout.feature_count()
    }

    pub(super) fn record_number(&self) -> RecordNumber {
        match &self.kept {
            Kept::Whole(window) => window.window().record_number(),
            Kept::BySegment(segments) => segments.record_number(),
        }
    }

    pub(super) fn stream_time(&self) -> Option<Timestamp> {
        match &self.kept {
            Kept::Whole(window) => window.stream_time(),
            Kept::BySegment(segments) => segments.stream_time(),
        }
    }

    /// Segments that live.
    pub(super) fn segments(&self) -> Option<usize> {
        match &self.kept {
            Kept::Whole(_) => None,
            Kept::BySegment(segments) => Some(segments.len()),
        }
    }

    pub(super) fn unflushed_bytes(&self) -> usize {
        match &self.kept {
            Kept::Whole(_) => 0,
            Kept::BySegment(segments) => segments.unflushed_bytes(),
        }
    }

    /// The windows that are in memory.
    pub(super) fn in_memory(&self) -> Vec<&MonitoredWindow> {
        match &self.kept {
            Kept::Whole(window) => vec![window],
            Kept::BySegment(segments) => segments.in_memory().collect(),
        }
    }

    pub(super) fn is_check_due(&self) -> bool {
        self.is_window_due() || self.announcer.as_ref().is_some_and(Announcer::is_due)
    }

    fn is_window_due(&self) -> bool {
        match &self.kept {
            Kept::Whole(window) => window.is_check_due(),
            Kept::BySegment(segments) => segments.is_due(),
        }
    }

    /// Of time windows: the first that is open, whatever the segment, once none is due. What idleness has closed in some segments is open in others.
    fn open_from(&self) -> u64 {
        match (&self.kept, self.place.monitor.window) {
            (Kept::Whole(window), _) => window.open_from(),
            (Kept::BySegment(segments), Window::Time(settings)) => segments.stream_time().map_or(0, |time| settings.first_open(time)),
            (Kept::BySegment(_), Window::Count(_)) => 0,
        }
    }

    /// Counts one record.
    pub(super) fn observe(&mut self, record: Observing<'_>, store: &dyn ReadStore) -> Result<Observed, StateError> {
        if record.said == Some(None) {
            self.irregular.count(Irregular::UnreadableTime);
        }
        let timestamp = record.said.flatten().or(record.timestamp);
        self.missing.observe(record.row);
        self.checked = false;
        let taken = (record.row, record.values);
        let observed = match &mut self.kept {
            Kept::Whole(window) => {
                let stream_time = window.stream_time().max(timestamp);
                window.observe(taken, record.offset, timestamp, stream_time, &mut self.irregular)
            }
            Kept::BySegment(segments) => {
                let before = segments.stream_time();
                let (id, stream_time) = segments.enter(record.segment, 1, timestamp, &self.measure, &mut self.irregular);
                let window = segments.window(id, &mut Arc::clone(&self.measure), store)?;
                window.settle_at(before);
                let observed = window.observe(taken, record.offset, timestamp, stream_time, &mut self.irregular);
                segments.note(id, observed.check_due);
                observed
            }
        };
        let open_from = self.announcer.is_some().then(|| self.open_from());
        if let (Some(announcer), Some(open_from)) = (&mut self.announcer, open_from) {
            announcer.observe(open_from);
        }
        Ok(Observed {
            check_due: self.is_check_due(),
            ..observed
        })
    }

    /// Makes the next checks that are due; if more are, it is to be called again. Says whether another reference was taken over.
    pub(super) fn check(&mut self, store: &dyn ReadStore, out: &mut Outputs) -> Result<bool, StateError> {
        self.checked |= match &mut self.kept {
            Kept::Whole(window) => window.is_check_due() && window.check(&mut self.irregular, out),
            Kept::BySegment(segments) => {
                let mut measures = Arc::clone(&self.measure);
                segments.check(&mut measures, store, &mut self.irregular, out)?
            }
        };
        if !self.is_window_due() {
            let (open_from, record_number) = (self.open_from(), self.record_number());
            let announcer = self.announcer.as_mut();
            out.panes.extend(announcer.and_then(|announcer| announcer.tell(open_from, record_number)));
        }
        Ok(self.checked && !self.is_check_due() && self.change_over())
    }

    /// The partition is idle at its end: time windows close, and the whole topic is told. Says whether [`Self::check`] is due.
    pub(super) fn close_idle(&mut self) -> bool {
        self.checked = false;
        let closes = match &mut self.kept {
            Kept::Whole(window) => window.close_idle(),
            Kept::BySegment(segments) => segments.close_idle(),
        };
        self.announcer.as_mut().is_some_and(Announcer::idle) | closes
    }

    /// The partition is at its end: where it never had a record, the windows of the whole topic are told. Says whether [`Self::check`] is due.
    pub(super) fn announce_empty(&mut self) -> bool {
        self.announcer.is_some() && self.record_number() == RecordNumber(0) && self.close_idle()
    }

    /// As [`Self::close_idle`], for a replay: `was_idle` says after which record (of which segment) there were closings by idleness.
    pub(super) fn close_idle_if(&mut self, was_idle: &dyn Fn(&str, RecordNumber) -> bool) -> bool {
        self.checked = false;
        match &mut self.kept {
            Kept::Whole(window) => was_idle(NO_SEGMENT, window.window().record_number()) && self.close_idle(),
            Kept::BySegment(segments) => segments.close_idle_if(was_idle),
        }
    }

    /// Remembers a reference for after the next check. While the partition has no record it is taken over at once; then the answer is true.
    pub(super) fn offer_reference(&mut self, published: &Publication) -> Result<bool, ReferenceError> {
        self.offered = None;
        if *self.measure.version != *published.reference.version() {
            self.offered = Some(Measure::new(self.monitor(), published)?);
        }
        Ok(self.record_number() == RecordNumber(0) && self.change_over())
    }

    /// Takes over the reference that was offered, if one was: windows start anew, empty, after the present record.
    pub(super) fn change_over(&mut self) -> bool {
        let Some(measure) = self.offered.take() else { return false };
        match &mut self.kept {
            Kept::Whole(window) => window.start_anew(Arc::clone(&measure)),
            Kept::BySegment(segments) => segments.start_anew(&measure),
        }
        self.missing.watch(measure.reference.features().iter().map(|feature| feature.name()));
        self.measure = measure;
        true
    }

    /// Appends every key that changed since the last flush.
    pub(super) fn flush(&mut self, puts: &mut Vec<Put>) {
        match &mut self.kept {
            Kept::Whole(window) => window.flush(puts),
            Kept::BySegment(segments) => segments.flush(Some(&self.measure.version), puts),
        }
    }

    /// The store has what was flushed.
    pub(super) fn applied(&mut self) {
        if let Kept::BySegment(segments) = &mut self.kept {
            segments.applied();
        }
    }

    pub(super) fn drain_irregular(&mut self, visit: &mut dyn FnMut(&str, Irregular, u64)) {
        let monitor = &self.place.monitor.name;
        self.irregular.drain(&mut |irregular, count| visit(monitor, irregular, count));
    }

    pub(super) fn drain_missing(&mut self, visit: &mut dyn FnMut(&str, &str, Missing, u64)) {
        let monitor = &self.place.monitor.name;
        self.missing.drain(&mut |feature, missing, count| visit(monitor, feature, missing, count));
    }
}

/// The window of all records keeps the reference that it was stored with.
struct Stored<'a> {
    references: &'a dyn References,
}

impl super::measure::Measures for Stored<'_> {
    fn of(&mut self, place: &Place, version: &str) -> Result<Arc<Measure>, StateError> {
        Measure::stored(place, version, self.references)
    }
}
