//! Events for tests.

use std::borrow::Cow;

use leeway_topology::drift::Status;
use leeway_topology::event::{DriftEvent, Event, KIND, SCHEMA_VERSION, Scope};
use leeway_topology::ids::{Offset, Partition, RecordNumber, Timestamp};

use crate::consumers::follow::ReadEvent;

/// The time of record k: one each 10 ms.
pub(crate) fn time_of(k: u64) -> i64 {
    1_700_000_000_000 + 10 * k as i64
}

/// The check after record k of a partition, by the thresholds' defaults, of a window of 100.
pub(crate) fn event(feature: &str, partition: i32, k: u64, psi: f64) -> DriftEvent {
    let summary = feature == "*";
    DriftEvent {
        schema_version: SCHEMA_VERSION,
        event_id: format!("app/default/in/{partition}/partition//{feature}/{k}/v1"),
        kind: Cow::Borrowed(KIND),
        monitor: "default".into(),
        scope: Scope::Partition,
        partition: Some(Partition(partition)),
        segment: None,
        feature: feature.into(),
        psi,
        p_value: (!summary).then_some(0.5),
        psi_null_mean: (!summary).then_some(0.02),
        significant: (!summary).then_some(psi >= 0.1),
        status: if psi >= 0.25 {
            Status::Drift
        } else if psi >= 0.1 {
            Status::PossibleDrift
        } else {
            Status::NoDrift
        },
        previous_status: None,
        record_count: RecordNumber(k),
        window_count: 100,
        missing_count: (!summary).then_some(5),
        below_range_count: (!summary).then_some(0),
        above_range_count: (!summary).then_some(1),
        window_start_offset: Some(Offset(k as i64 - 100)),
        window_end_offset: Some(Offset(k as i64 - 1)),
        window_start_ms: Timestamp(time_of(k) - 990),
        window_end_ms: Timestamp(time_of(k)),
        counts: (!summary).then(|| vec![45, 50, 5]),
        top_bin: None,
        top_bin_contribution: None,
        feature_count: summary.then_some(2),
        drifted_features: summary.then_some(0),
        reference_version: "v1".into(),
        closed_by: None,
        js: None,
        ks: None,
        wasserstein: None,
        chi2_p_value: None,
    }
}

/// As it is read, written when its last record came.
pub(crate) fn read(event: DriftEvent) -> ReadEvent {
    ReadEvent {
        written: Some(event.window_end_ms),
        event: Event::Drift(event),
    }
}
