//! Whose records a check is of, and when its window was: what the events of a made-up stream have beside their figures.

use std::borrow::Cow;

use leeway_topology::drift::Status;
use leeway_topology::event::{ClosedBy, DriftEvent, KIND, SCHEMA_VERSION, Scope};
use leeway_topology::ids::{Offset, Partition, RecordNumber, Timestamp};
use leeway_topology::reference::Reference;
use leeway_topology::window::time::TimeWindow;
use leeway_topology::window::{CountWindow, Window};

/// Records of a count window, and from one to the next.
pub(super) const WINDOW: u64 = 2000;
pub(super) const EVERY: u64 = 500;
/// A time window, and from one to the next.
const TIME_WINDOW_MS: i64 = 60_000;
const TIME_EVERY_MS: i64 = 20_000;
/// Event time between two checks of a partition with count windows.
const CHECK_EVERY_MS: i64 = 5_000;

/// One partition or the whole topic, all of its records or those of a segment.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// None: the whole topic.
    pub(super) partition: Option<i32>,
    pub(super) segment: Option<String>,
}

impl Place {
    /// Each partition, and the whole topic if asked for; of the segments if there are any.
    pub(super) fn all(partitions: i32, segments: &[String], has_global: bool) -> Vec<Self> {
        let wheres = (0..partitions).map(Some).chain(has_global.then_some(None));
        wheres
            .flat_map(|partition| {
                let of = |segment: Option<&String>| Self {
                    partition,
                    segment: segment.cloned(),
                };
                if segments.is_empty() {
                    vec![of(None)]
                } else {
                    segments.iter().map(|segment| of(Some(segment))).collect()
                }
            })
            .collect()
    }

    pub(super) fn scope(&self) -> Scope {
        if self.partition.is_some() { Scope::Partition } else { Scope::Global }
    }
}

/// Count windows, or time windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Count,
    Time,
}

impl Kind {
    pub(super) fn window(self) -> Window {
        match self {
            Self::Count => Window::Count(CountWindow::new(WINDOW, EVERY).expect("a window")),
            Self::Time => Window::Time(TimeWindow::new(TIME_WINDOW_MS as u64, TIME_EVERY_MS as u64, 0).expect("a window")),
        }
    }

    pub(super) fn every_ms(self) -> i64 {
        match self {
            Self::Count => CHECK_EVERY_MS,
            Self::Time => TIME_EVERY_MS,
        }
    }

    /// The latest end of a window up to a time. Time windows end at multiples of `every`.
    pub(super) fn end(self, time: i64) -> i64 {
        match self {
            Self::Count => time,
            Self::Time => time - time.rem_euclid(TIME_EVERY_MS),
        }
    }

    /// An event of the check whose window ended at `time`, without figures. A partition had `k` records by then, the whole topic that of all.
    pub(super) fn event(self, reference: &Reference, place: &Place, partitions: i32, k: u64, time: i64) -> DriftEvent {
        let records = if place.partition.is_some() { k } else { k * partitions as u64 };
        let (scope, segment) = (place.scope(), place.segment.as_deref().unwrap_or_default());
        let number = place.partition.map_or_else(String::new, |partition| partition.to_string());
        let monitor = reference.monitor();
        let start_ms = match self {
            Self::Count => time - CHECK_EVERY_MS * (WINDOW / EVERY) as i64,
            Self::Time => time - TIME_WINDOW_MS,
        };
        DriftEvent {
            schema_version: SCHEMA_VERSION,
            event_id: format!("app/{monitor}/in/{number}/{}/{}/x/{k}/v", scope.as_str(), segment.replace('=', "%3D")),
            kind: Cow::Borrowed(KIND),
            monitor: monitor.into(),
            scope,
            partition: place.partition.map(Partition),
            segment: place.segment.as_deref().map(Into::into),
            feature: "".into(),
            psi: 0.0,
            p_value: None,
            psi_null_mean: None,
            significant: None,
            status: Status::NoDrift,
            previous_status: None,
            record_count: RecordNumber(records),
            window_count: WINDOW.min(k),
            missing_count: None,
            below_range_count: None,
            above_range_count: None,
            window_start_offset: place.partition.map(|_| Offset(k.saturating_sub(WINDOW) as i64)),
            window_end_offset: place.partition.map(|_| Offset(k as i64 - 1)),
            window_start_ms: Timestamp(start_ms),
            window_end_ms: Timestamp(time),
            counts: None,
            top_bin: None,
            top_bin_contribution: None,
            feature_count: None,
            drifted_features: None,
            reference_version: reference.version().into(),
            closed_by: (self == Self::Time).then_some(ClosedBy::StreamTime),
            js: None,
            ks: None,
            wasserstein: None,
            chi2_p_value: None,
        }
    }
}
