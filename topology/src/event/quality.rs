//! A quality event: what one check says of the missing, unknown and out-of-range values of one feature.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ClosedBy, DriftEvent, EventError, Scope, of_kind};
use crate::ids::{Offset, Partition, RecordNumber, Timestamp};
use crate::quality::{Example, QualityStatus, Violation};

/// The kind of these events.
pub const QUALITY_KIND: &str = "quality";

/// One quality event. The fields are the public format: names, order and meanings. `docs/quality.md` has them in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityEvent {
    /// [`super::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Same event, same id, and never that of a drift event: see [`super::EventId::of_quality`].
    pub event_id: String,
    /// [`QUALITY_KIND`].
    pub kind: Cow<'static, str>,
    /// The monitor's name.
    #[serde(with = "super::shared_text")]
    pub monitor: Arc<str>,
    /// Whose records.
    pub scope: Scope,
    /// The input partition; `None` in scope global.
    pub partition: Option<Partition>,
    /// `field=value`, where the monitor has segments.
    #[serde(with = "super::optional_shared_text", default)]
    pub segment: Option<Arc<str>>,
    /// The feature's name.
    #[serde(with = "super::shared_text")]
    pub feature: Arc<str>,
    /// The verdict.
    pub status: QualityStatus,
    /// This feature's last verdict in this scope and segment; `None` at the first check and after a change of reference.
    pub previous_status: Option<QualityStatus>,
    /// k.
    pub record_count: RecordNumber,
    /// Valid records in the window.
    pub window_count: u64,
    /// Missing values by records.
    pub missing_share: f64,
    /// From which share on that is a violation; this and the other thresholds: `None` when it is off or does not apply.
    pub missing_threshold: Option<f64>,
    /// Values in `other` by values that are not missing; `None` for features without `other`.
    pub other_share: Option<f64>,
    /// Its threshold.
    pub other_threshold: Option<f64>,
    /// Values below and above the reference's range by values that are not missing; `None` for features without a range.
    pub out_of_range_share: Option<f64>,
    /// Its threshold.
    pub out_of_range_threshold: Option<f64>,
    /// The shares that are at or above their thresholds.
    pub violations: Vec<Violation>,
    /// The most frequent values in `other` since the last check; `None` without a threshold for them, and in scope global.
    pub examples: Option<Vec<Example>>,
    /// First record of the window; `None` in scope global.
    pub window_start_offset: Option<Offset>,
    /// Last record of the window; `None` in scope global.
    pub window_end_offset: Option<Offset>,
    /// As of a drift event.
    pub window_start_ms: Timestamp,
    /// As of a drift event.
    pub window_end_ms: Timestamp,
    /// The reference that the window was measured against.
    #[serde(with = "super::shared_text")]
    pub reference_version: Arc<str>,
    /// For time windows: what closed it.
    pub closed_by: Option<ClosedBy>,
}

impl QualityEvent {
    /// The value of its Kafka record.
    ///
    /// # Panics
    /// Never: as [`DriftEvent::to_json`].
    #[must_use]
    #[expect(clippy::expect_used, reason = "derived serialisation of plain fields into a Vec has no failing path")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a quality event serialises")
    }

    /// Reads an event; fields that are not known are ignored.
    ///
    /// # Errors
    /// As [`DriftEvent::from_json`].
    pub fn from_json(value: &[u8]) -> Result<Self, EventError> {
        of_kind(QUALITY_KIND, value)
    }

    /// Whether it is of the same check as this summary.
    pub(crate) fn is_of(&self, summary: &DriftEvent) -> bool {
        let Self { monitor, segment, .. } = self;
        (monitor, segment) == (&summary.monitor, &summary.segment)
            && (self.scope, self.partition, self.record_count) == (summary.scope, summary.partition, summary.record_count)
            && (self.window_start_ms, self.window_end_ms) == (summary.window_start_ms, summary.window_end_ms)
            && (self.window_start_offset, self.window_end_offset) == (summary.window_start_offset, summary.window_end_offset)
            && self.reference_version == summary.reference_version
    }
}
