//! One check of one window: its events, and what the next check has to know of it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::drift::{CheckedFeature, Status};
use crate::event::{ClosedBy, DriftEvent, EventId, KIND, QUALITY_KIND, QualityEvent, SCHEMA_VERSION, SUMMARY};
use crate::histogram::{Counts, Span};
use crate::ids::{RecordNumber, Timestamp};
use crate::processor::measure::Measure;
use crate::processor::place::Place;
use crate::processor::quality_tally::QualityTally;
use crate::quality::{QualityStatus, shares, violations};

/// Each feature's status at the last check, and the summary's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::processor) struct Verdicts {
    pub(in crate::processor) statuses: Vec<Option<Status>>,
    pub(in crate::processor) summary: Option<Status>,
}

/// Whose check it is.
pub(in crate::processor) struct Checker<'a> {
    pub(in crate::processor) place: &'a Place,
    /// Empty: all records.
    pub(in crate::processor) segment: &'a Arc<str>,
    pub(in crate::processor) event_id: EventId,
    pub(in crate::processor) measure: &'a Measure,
    pub(in crate::processor) record_number: RecordNumber,
}

/// From where to where the window reaches.
#[derive(Clone, Copy)]
pub(in crate::processor) struct Bounds {
    pub(in crate::processor) span: Span,
    pub(in crate::processor) times: (Timestamp, Timestamp),
    /// What tells its end from that of the monitor's other windows.
    pub(in crate::processor) id: i64,
    pub(in crate::processor) closed_by: Option<ClosedBy>,
}

impl Verdicts {
    /// Of no check.
    pub(in crate::processor) fn none(features: usize) -> Self {
        Self {
            statuses: vec![None; features],
            summary: None,
        }
    }

    /// Checks every feature over a window and appends the events: the features' in the reference's order, then the summary's.
    pub(in crate::processor) fn check(&mut self, checker: &Checker<'_>, window: &impl Counts, bounds: Bounds, events: &mut Vec<DriftEvent>) {
        let Measure { reference, layout, .. } = checker.measure;
        let records = window.records();
        let (checked, summary) = checker.place.monitor.criteria.check_all(reference, layout, window);
        for ((feature, checked), status) in reference.features().iter().zip(checked).zip(&mut self.statuses) {
            let CheckedFeature { check, counts, sides } = checked;
            events.push(DriftEvent {
                p_value: Some(check.p_value),
                psi_null_mean: Some(check.psi_null_mean),
                significant: check.significant,
                previous_status: status.replace(check.status),
                missing_count: counts.last().copied(),
                below_range_count: sides.map(|(below, _)| below),
                above_range_count: sides.map(|(_, above)| above),
                counts: Some(counts),
                top_bin: check.top.map(|(bin, _)| feature.label(bin)),
                top_bin_contribution: check.top.map(|(_, contribution)| contribution),
                js: check.measurements.js,
                ks: check.measurements.ks,
                wasserstein: check.measurements.wasserstein,
                chi2_p_value: check.measurements.chi2_p_value,
                ..checker.event(feature.name(), check.psi, check.status, records, bounds)
            });
        }
        events.push(DriftEvent {
            previous_status: self.summary.replace(summary.status),
            feature_count: Some(summary.feature_count),
            drifted_features: Some(summary.drifted_features),
            ..checker.event(&SUMMARY.into(), summary.psi, summary.status, records, bounds)
        });
    }
}

impl QualityTally {
    /// Checks every feature that has a limit over a window and appends the events, in the reference's order.
    pub(in crate::processor) fn check(&mut self, checker: &Checker<'_>, window: &impl Counts, bounds: Bounds, events: &mut Vec<QualityEvent>) {
        let Measure { reference, layout, .. } = checker.measure;
        let Place { monitor, scope, .. } = checker.place;
        let partition = checker.place.input_partition();
        for (index, watched) in checker.measure.watched.iter().enumerate() {
            let feature = &reference.features()[watched.feature];
            let (shares, limits) = (shares(feature, watched.feature, layout, window), &watched.limits);
            let violations = violations(&shares, limits);
            let status = QualityStatus::of(&violations);
            let (previous_status, examples) = self.checked(index, status);
            events.push(QualityEvent {
                schema_version: SCHEMA_VERSION,
                event_id: checker.event_id.of_quality(feature.name(), bounds.id, &checker.measure.version),
                kind: Cow::Borrowed(QUALITY_KIND),
                monitor: Arc::clone(&monitor.name),
                scope: *scope,
                partition,
                segment: (!checker.segment.is_empty()).then(|| Arc::clone(checker.segment)),
                feature: Arc::clone(feature.name()),
                status,
                previous_status,
                record_count: checker.record_number,
                window_count: window.records(),
                missing_share: shares.missing.unwrap_or_default(),
                missing_threshold: limits.missing,
                other_share: shares.other,
                other_threshold: limits.other,
                out_of_range_share: shares.out_of_range,
                out_of_range_threshold: limits.out_of_range,
                violations,
                examples,
                window_start_offset: partition.map(|_| bounds.span.first),
                window_end_offset: partition.map(|_| bounds.span.last),
                window_start_ms: bounds.times.0,
                window_end_ms: bounds.times.1,
                reference_version: Arc::clone(&checker.measure.version),
                closed_by: bounds.closed_by,
            });
        }
    }
}

impl Checker<'_> {
    /// What all events of a check have; the rest is null.
    fn event(&self, feature: &Arc<str>, psi: f64, status: Status, window_count: u64, bounds: Bounds) -> DriftEvent {
        let Place { monitor, scope, .. } = self.place;
        let partition = self.place.input_partition();
        DriftEvent {
            schema_version: SCHEMA_VERSION,
            event_id: self.event_id.of(feature, bounds.id, &self.measure.version),
            kind: Cow::Borrowed(KIND),
            monitor: Arc::clone(&monitor.name),
            scope: *scope,
            partition,
            segment: (!self.segment.is_empty()).then(|| Arc::clone(self.segment)),
            feature: Arc::clone(feature),
            psi,
            p_value: None,
            psi_null_mean: None,
            significant: None,
            status,
            previous_status: None,
            record_count: self.record_number,
            window_count,
            missing_count: None,
            below_range_count: None,
            above_range_count: None,
            window_start_offset: partition.map(|_| bounds.span.first),
            window_end_offset: partition.map(|_| bounds.span.last),
            window_start_ms: bounds.times.0,
            window_end_ms: bounds.times.1,
            counts: None,
            top_bin: None,
            top_bin_contribution: None,
            feature_count: None,
            drifted_features: None,
            reference_version: Arc::clone(&self.measure.version),
            closed_by: bounds.closed_by,
            js: None,
            ks: None,
            wasserstein: None,
            chi2_p_value: None,
        }
    }
}
