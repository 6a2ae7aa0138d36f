//! What a check says: the same families, whether the worker that made it tells of it, or a reader of the drift events.

use std::collections::HashMap;
use std::sync::Arc;

use leeway_topology::drift::Status;
use leeway_topology::event::{DriftEvent, QualityEvent, SUMMARY, Scope};
use leeway_topology::ids::Partition;
use leeway_topology::quality::{QualityStatus, Violation};

use super::register::Register;
use super::{Counters, Gauges};

/// Labels of one feature, or of the summary, in one window.
pub(crate) const WINDOW: [&str; 5] = ["monitor", "scope", "partition", "segment", "feature"];

/// Those, and what is wrong with values.
pub(crate) const WINDOW_AND_KIND: [&str; 6] = ["monitor", "scope", "partition", "segment", "feature", "kind"];

/// What metrics tell of a drift event. An epoch has thousands of events, and keeps this of them until it is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    monitor: Arc<str>,
    scope: Scope,
    partition: Option<Partition>,
    segment: Option<Arc<str>>,
    feature: Arc<str>,
    psi: f64,
    status: Status,
}

impl From<&DriftEvent> for Checked {
    fn from(event: &DriftEvent) -> Self {
        Self {
            monitor: Arc::clone(&event.monitor),
            scope: event.scope,
            partition: event.partition,
            segment: event.segment.clone(),
            feature: Arc::clone(&event.feature),
            psi: event.psi,
            status: event.status,
        }
    }
}

/// The values of [`WINDOW`].
pub(crate) struct Labels<'a> {
    monitor: &'a str,
    scope: Scope,
    partition: String,
    segment: &'a str,
    feature: &'a str,
}

impl<'a> Labels<'a> {
    pub(crate) fn of_drift(event: &'a DriftEvent) -> Self {
        Self::new(&event.monitor, event.scope, event.partition, event.segment.as_deref(), &event.feature)
    }

    fn of_quality(event: &'a QualityEvent) -> Self {
        Self::new(&event.monitor, event.scope, event.partition, event.segment.as_deref(), &event.feature)
    }

    fn new(monitor: &'a str, scope: Scope, partition: Option<Partition>, segment: Option<&'a str>, feature: &'a str) -> Self {
        Self {
            monitor,
            scope,
            partition: partition.map(|partition| partition.to_string()).unwrap_or_default(),
            segment: segment.unwrap_or_default(),
            feature,
        }
    }

    pub(crate) fn window(&self) -> [&str; 5] {
        [self.monitor, self.scope.as_str(), &self.partition, self.segment, self.feature]
    }

    pub(crate) fn with_kind(&self, kind: Violation) -> [&str; 6] {
        [
            self.monitor,
            self.scope.as_str(),
            &self.partition,
            self.segment,
            self.feature,
            kind.as_str(),
        ]
    }
}

/// The families.
pub(crate) struct CheckMetrics {
    psi: Gauges,
    drift_status: Gauges,
    monitor_info: Gauges,
    checks: Counters,
    quality: Gauges,
    quality_events: Counters,
}

impl CheckMetrics {
    pub(crate) fn new(register: &Register) -> Result<Self, prometheus::Error> {
        Ok(Self {
            psi: register.gauges(
                "real_time_psi_score",
                "PSI of the last committed check; feature * is the mean over the features.",
                &WINDOW,
            )?,
            drift_status: register.gauges(
                "leeway_drift_status",
                "Status of the last committed check: 0 no drift, 1 possible drift, 2 drift; feature * is the summary.",
                &WINDOW,
            )?,
            monitor_info: register.gauges(
                "leeway_monitor_info",
                "Always 1; which topic is read for the checks of a monitor in a scope.",
                &["monitor", "scope", "topic"],
            )?,
            checks: register.counters(
                "drift_detection_events_total",
                "Committed checks by the status of their summary.",
                &["monitor", "scope", "status"],
            )?,
            quality: register.gauges(
                "leeway_quality_share",
                "Share of faulty values at the last committed check, where it has a threshold: missing, other, out_of_range.",
                &WINDOW_AND_KIND,
            )?,
            quality_events: register.counters(
                "leeway_quality_events_total",
                "Committed quality events, one for each feature of a check, by status.",
                &["monitor", "scope", "status"],
            )?,
        })
    }

    /// Makes a monitor known: its counters stand at 0 from the start, which rates need. `topic`: what is read for checks of this scope.
    pub(crate) fn add_monitor(&self, topic: &str, scope: Scope, monitor: &str) {
        for status in [Status::NoDrift, Status::PossibleDrift, Status::Drift] {
            self.checks.counter(&[monitor, scope.as_str(), status.as_str()]);
        }
        self.monitor_info.set(&[monitor, scope.as_str(), topic], 1.0);
    }

    /// Makes a monitor's limits of quality known: its counters stand at 0 from the start.
    pub(crate) fn add_quality(&self, scope: Scope, monitor: &str) {
        for status in [QualityStatus::Ok, QualityStatus::Violated] {
            self.quality_events.counter(&[monitor, scope.as_str(), status.as_str()]);
        }
    }

    /// A committed check of one feature, or its summary.
    pub(crate) fn checked(&self, check: &Checked) {
        self.count(check);
        self.show(check);
    }

    /// Committed checks, the first ones first. An epoch has many of one window, of which the last is shown.
    pub(crate) fn all_checked<'a>(&self, checks: impl Iterator<Item = &'a Checked>) {
        // In order, so that it is the first label sets that have a series of their own.
        let (mut shown, mut places) = (Vec::new(), HashMap::new());
        for check in checks {
            self.count(check);
            let window = (&check.monitor, check.scope, check.partition, &check.segment, &check.feature);
            let place = *places.entry(window).or_insert(shown.len());
            if place < shown.len() {
                shown[place] = check;
            } else {
                shown.push(check);
            }
        }
        shown.into_iter().for_each(|check| self.show(check));
    }

    fn count(&self, check: &Checked) {
        if &*check.feature == SUMMARY {
            self.checks.counter(&[&check.monitor, check.scope.as_str(), check.status.as_str()]).inc();
        }
    }

    fn show(&self, check: &Checked) {
        let labels = Labels::new(&check.monitor, check.scope, check.partition, check.segment.as_deref(), &check.feature);
        self.psi.set(&labels.window(), check.psi);
        let status = match check.status {
            Status::NoDrift => 0.0,
            Status::PossibleDrift => 1.0,
            Status::Drift => 2.0,
        };
        self.drift_status.set(&labels.window(), status);
    }

    /// A committed quality check of one feature.
    pub(crate) fn quality_checked(&self, event: &QualityEvent) {
        let labels = Labels::of_quality(event);
        let shares = [
            (Violation::Missing, Some(event.missing_share), event.missing_threshold),
            (Violation::Other, event.other_share, event.other_threshold),
            (Violation::OutOfRange, event.out_of_range_share, event.out_of_range_threshold),
        ];
        for (kind, share, threshold) in shares {
            if let (Some(share), Some(_)) = (share, threshold) {
                self.quality.set(&labels.with_kind(kind), share);
            }
        }
        self.quality_events
            .counter(&[&event.monitor, event.scope.as_str(), event.status.as_str()])
            .inc();
    }

    /// Removes what speaks of the present of windows whose labels, as in [`WINDOW`], are so.
    pub(crate) fn remove_where(&self, are_gone: impl Fn(&[String]) -> bool) {
        for gauges in [&self.psi, &self.drift_status, &self.quality] {
            gauges.remove_where(&are_gone);
        }
    }
}
