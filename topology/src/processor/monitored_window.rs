//! One monitor's window in one partition: counting, checking, changing the reference, and its state.
//!
//! ```text
//! open --observe*--> due --check--> events --change_over--> (another reference: an empty window) --observe*--> ..
//!                      flush: panes that changed, then the head
//! ```
//!
//! - k never goes back and never starts anew; the window does, at a change of reference, and only there.
//! - A change comes after a check, so the window starts at a multiple of `every`. Panes of before are left in the store: their numbers tell
//!   that they are stale, and their slots are written again.

mod restore;

use std::borrow::Cow;
use std::sync::Arc;

use super::Monitor;
use super::missing::MissingTally;
use crate::codec::encode;
use crate::drift::{FeatureCheck, Status};
use crate::event::{DriftEvent, EventId, KIND, NO_TIMESTAMP, SCHEMA_VERSION, SUMMARY, Scope};
use crate::histogram::{Layout, Span};
use crate::ids::{Offset, Partition, RecordNumber, Timestamp};
use crate::record::{Missing, Observation};
use crate::reference::{Reference, ReferenceError};
use crate::state::{FeatureHead, Put, WindowHead, pane_key, window_key};
use crate::window::SlidingWindow;

/// A monitor has one window as long as it has no segments.
const NO_SEGMENT: &str = "";

/// In a pane's key: the pane holds all of the monitor's features.
const ALL_FEATURES: &str = "";

/// One monitor's window in one partition.
pub struct MonitoredWindow {
    monitor: Arc<Monitor>,
    partition: Partition,
    event_id: EventId,
    measure: Measure,
    window: SlidingWindow,
    /// Each feature's status at the last check of this window.
    statuses: Vec<Option<Status>>,
    summary: Option<Status>,
    stream_time: Option<Timestamp>,
    missing: MissingTally,
    /// The current reference, if it is not the one measured by.
    offered: Option<Measure>,
    check_due: bool,
    /// k at the last flush. Nothing that is stored changes without a record: checks and changes of reference come right after one.
    flushed: RecordNumber,
}

/// A reference as a monitor measures by it.
struct Measure {
    /// With the monitor's features only.
    reference: Arc<Reference>,
    /// Of the reference as published.
    version: Arc<str>,
    layout: Layout,
}

impl Measure {
    fn new(monitor: &Monitor, published: &Arc<Reference>) -> Result<Self, ReferenceError> {
        let reference = match &monitor.features {
            Some(features) => Arc::new(published.select(features)?),
            None => Arc::clone(published),
        };
        let layout = Layout::new(reference.features().iter().map(|feature| feature.counts().len()));
        Ok(Self {
            reference,
            version: published.version().into(),
            layout,
        })
    }
}

impl MonitoredWindow {
    /// The monitor.
    #[must_use]
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    /// The reference that the window is measured by, with the monitor's features only.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.measure.reference
    }

    /// The version of that reference, as published.
    #[must_use]
    pub fn reference_version(&self) -> &Arc<str> {
        &self.measure.version
    }

    /// The window and its counts.
    #[must_use]
    pub fn window(&self) -> &SlidingWindow {
        &self.window
    }

    /// The status of a feature (its index in the reference) at the last check of this window.
    #[must_use]
    pub fn status(&self, feature: usize) -> Option<Status> {
        self.statuses.get(feature).copied().flatten()
    }

    pub(super) fn stream_time(&self) -> Option<Timestamp> {
        self.stream_time
    }

    pub(super) fn is_check_due(&self) -> bool {
        self.check_due
    }

    /// Observations that it takes of a row.
    pub(super) fn width(&self) -> usize {
        self.measure.layout.feature_count()
    }

    /// Counts one record; says whether a check is due after it.
    pub(super) fn observe(&mut self, row: &[Observation], offset: Offset, timestamp: Option<Timestamp>) -> bool {
        debug_assert!(!self.check_due, "a due check comes before the next record");
        self.missing.observe(row);
        self.window.observe(row, offset, timestamp);
        self.stream_time = self.stream_time.max(timestamp);
        self.check_due = self.window.is_due(self.monitor.min_samples);
        self.check_due
    }

    pub(super) fn drain_missing(&mut self, visit: &mut dyn FnMut(&str, &str, Missing, u64)) {
        let monitor = &self.monitor.name;
        self.missing.drain(&mut |feature, missing, count| visit(monitor, feature, missing, count));
    }

    /// Checks every feature over the window and appends the events: the features' in the reference's order, then the summary's.
    pub(super) fn check(&mut self, events: &mut Vec<DriftEvent>) {
        self.check_due = false;
        let Some(span) = self.window.span() else { return };
        let reference = Arc::clone(&self.measure.reference);
        let criteria = self.monitor.criteria();
        let features = reference.features();
        let mut checks: Vec<FeatureCheck> = Vec::with_capacity(features.len());
        for (index, feature) in features.iter().enumerate() {
            let layout = self.window.layout();
            let counts: Vec<u64> = self.window.total().bins(layout, index).iter().map(|&count| u64::from(count)).collect();
            let check = criteria.check(feature.counts(), &counts, features.len());
            let sides = (!feature.is_categorical()).then(|| self.window.total().sides(layout, index));
            events.push(DriftEvent {
                p_value: Some(check.p_value),
                psi_null_mean: Some(check.psi_null_mean),
                significant: check.significant,
                previous_status: self.statuses[index].replace(check.status),
                missing_count: counts.last().copied(),
                below_range_count: sides.map(|(below, _)| below),
                above_range_count: sides.map(|(_, above)| above),
                counts: Some(counts),
                top_bin: check.top.map(|(bin, _)| feature.label(bin)),
                top_bin_contribution: check.top.map(|(_, contribution)| contribution),
                ..self.event(feature.name(), check.psi, check.status, span)
            });
            checks.push(check);
        }
        let summary = criteria.summarize(&checks);
        events.push(DriftEvent {
            previous_status: self.summary.replace(summary.status),
            feature_count: Some(summary.feature_count),
            drifted_features: Some(summary.drifted_features),
            ..self.event(&SUMMARY.into(), summary.psi, summary.status, span)
        });
    }

    /// What all events of a check have; the rest is null.
    fn event(&self, feature: &Arc<str>, psi: f64, status: Status, span: Span) -> DriftEvent {
        let (window_start_ms, window_end_ms) = span.times.unwrap_or((NO_TIMESTAMP, NO_TIMESTAMP));
        DriftEvent {
            schema_version: SCHEMA_VERSION,
            event_id: self.event_id.of(feature, span.last.0, &self.measure.version),
            kind: Cow::Borrowed(KIND),
            monitor: Arc::clone(&self.monitor.name),
            scope: Scope::Partition,
            partition: Some(self.partition),
            segment: None,
            feature: Arc::clone(feature),
            psi,
            p_value: None,
            psi_null_mean: None,
            significant: None,
            status,
            previous_status: None,
            record_count: self.window.record_number(),
            window_count: self.window.total().records(),
            missing_count: None,
            below_range_count: None,
            above_range_count: None,
            window_start_offset: Some(span.first),
            window_end_offset: Some(span.last),
            window_start_ms,
            window_end_ms,
            counts: None,
            top_bin: None,
            top_bin_contribution: None,
            feature_count: None,
            drifted_features: None,
            reference_version: Arc::clone(&self.measure.version),
            closed_by: None,
        }
    }

    /// Remembers a reference for after the next check. While the partition has no record it is taken over at once; then the answer is true.
    pub(super) fn offer_reference(&mut self, published: &Arc<Reference>) -> Result<bool, ReferenceError> {
        self.offered = None;
        if *self.measure.version != *published.version() {
            self.offered = Some(Measure::new(&self.monitor, published)?);
        }
        Ok(self.window.record_number() == RecordNumber(0) && self.change_over())
    }

    /// Takes over the reference that was offered, if one was: the window starts anew, empty, after the present record.
    pub(super) fn change_over(&mut self) -> bool {
        let Some(measure) = self.offered.take() else { return false };
        let k = self.window.record_number();
        self.window = SlidingWindow::new(self.monitor.window, measure.layout.clone(), k);
        self.statuses = vec![None; measure.layout.feature_count()];
        self.summary = None;
        self.missing.watch(measure.reference.features().iter().map(|feature| feature.name()));
        self.measure = measure;
        true
    }

    /// Appends the panes with records that no flush has written yet, then the head; nothing if there are none.
    pub(super) fn flush(&mut self, puts: &mut Vec<Put>) {
        debug_assert!(!self.check_due, "a due check comes before the flush, or its events would be lost");
        let k = self.window.record_number();
        if self.flushed == k {
            return;
        }
        let name = &self.monitor.name;
        for pane in self.window.panes_changed_since(self.flushed) {
            let slot = self.monitor.window.slot(pane.number);
            puts.push(Put {
                key: pane_key(name, NO_SEGMENT, ALL_FEATURES, slot),
                value: Some(encode(pane)),
            });
        }
        puts.push(Put {
            key: window_key(name, NO_SEGMENT),
            value: Some(encode(&self.head())),
        });
        self.flushed = k;
    }

    fn head(&self) -> WindowHead {
        let features = std::iter::zip(self.measure.reference.features(), &self.statuses)
            .map(|(feature, &status)| FeatureHead {
                name: Arc::clone(feature.name()),
                bins: feature.counts().len() as u64,
                status,
            })
            .collect();
        WindowHead {
            size: self.monitor.window.size(),
            every: self.monitor.window.every(),
            record_number: self.window.record_number(),
            start: self.window.start(),
            reference_version: Arc::clone(&self.measure.version),
            stream_time: self.stream_time,
            features,
            summary: self.summary,
        }
    }
}
