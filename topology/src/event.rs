//! A drift event: what one check says of one feature, or of all of them (feature `*`).
//!
//! One flat JSON object in which every field is always present, in the order in which they stand here. In scope `partition` all of it is a
//! function of the partition's records and the reference, so a replay gives the same bytes. The key of the Kafka record is the feature's name.
//!
//! Readers ignore fields and kinds that they do not know: [`DriftEvent::from_json`] skips the first and names the second.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::drift::Status;
use crate::ids::{Offset, Partition, RecordNumber, Timestamp};

mod quality;

pub use quality::{QUALITY_KIND, QualityEvent};

/// Version of the fields and their meanings.
pub const SCHEMA_VERSION: u32 = 1;

/// The kind of event that a check writes.
pub const KIND: &str = "drift";

/// The feature of a summary.
pub const SUMMARY: &str = "*";

/// Stands for the event time of a window in which no record has one: Kafka's own "no timestamp".
pub const NO_TIMESTAMP: Timestamp = Timestamp(-1);

/// Whose records a window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One partition's.
    Partition,
    /// All partitions'.
    Global,
}

impl Scope {
    /// Its text in events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Global => "global",
        }
    }
}

/// What closed a time window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedBy {
    /// A later record.
    StreamTime,
    /// The partition was idle at its end.
    Idle,
}

/// One drift event. The fields are the public format: names, order and meanings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriftEvent {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Same event, same id: see [`EventId`].
    pub event_id: String,
    /// [`KIND`].
    pub kind: Cow<'static, str>,
    /// The monitor's name.
    #[serde(with = "shared_text")]
    pub monitor: Arc<str>,
    /// Whose records.
    pub scope: Scope,
    /// The input partition; `None` in scope global.
    pub partition: Option<Partition>,
    /// `field=value`, where the monitor has segments.
    #[serde(with = "optional_shared_text", default)]
    pub segment: Option<Arc<str>>,
    /// The feature's name, or [`SUMMARY`].
    #[serde(with = "shared_text")]
    pub feature: Arc<str>,
    /// The population stability index; on the summary its mean over the features.
    pub psi: f64,
    /// `None` on the summary.
    pub p_value: Option<f64>,
    /// PSI's mean without drift; `None` on the summary.
    pub psi_null_mean: Option<f64>,
    /// `None` on the summary and when significance is off.
    pub significant: Option<bool>,
    /// The verdict.
    pub status: Status,
    /// This feature's last verdict in this scope and segment; `None` at the first check and after a change of reference.
    pub previous_status: Option<Status>,
    /// k.
    pub record_count: RecordNumber,
    /// Valid records in the window.
    pub window_count: u64,
    /// Those of them in which the feature is missing; `None` on the summary.
    pub missing_count: Option<u64>,
    /// Values below the reference's range; `None` for categorical features and on the summary.
    pub below_range_count: Option<u64>,
    /// Values above the reference's range; `None` for categorical features and on the summary.
    pub above_range_count: Option<u64>,
    /// First record of the window; `None` in scope global.
    pub window_start_offset: Option<Offset>,
    /// Last record of the window; `None` in scope global.
    pub window_end_offset: Option<Offset>,
    /// Smallest event time in the window. Records without a timestamp do not count; [`NO_TIMESTAMP`] when none has one.
    pub window_start_ms: Timestamp,
    /// Largest event time in the window, or [`NO_TIMESTAMP`].
    pub window_end_ms: Timestamp,
    /// The bins, then `other` where the feature has it, then missing; `None` on the summary.
    pub counts: Option<Vec<u64>>,
    /// The bin that contributes most; `None` on the summary and when PSI is 0.
    pub top_bin: Option<String>,
    /// What it contributes.
    pub top_bin_contribution: Option<f64>,
    /// Features of the check; on the summary only.
    pub feature_count: Option<u64>,
    /// Those of them in status drift; on the summary only.
    pub drifted_features: Option<u64>,
    /// The reference that the window was measured against.
    #[serde(with = "shared_text")]
    pub reference_version: Arc<str>,
    /// For time windows: what closed it.
    pub closed_by: Option<ClosedBy>,
    /// The Jensen-Shannon distance. This and what follows: `None` on the summary, and where the monitor does not ask for it or it is not defined,
    /// see [`crate::metric`].
    pub js: Option<f64>,
    /// The Kolmogorov-Smirnov statistic.
    pub ks: Option<f64>,
    /// The Wasserstein distance, in the feature's unit.
    pub wasserstein: Option<f64>,
    /// The p-value of Pearson's test.
    pub chi2_p_value: Option<f64>,
}

/// An event of any kind that this build writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Of drift.
    Drift(DriftEvent),
    /// Of the quality of data.
    Quality(QualityEvent),
}

impl Event {
    /// The value of its Kafka record.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        match self {
            Self::Drift(event) => event.to_json(),
            Self::Quality(event) => event.to_json(),
        }
    }

    /// Reads an event of any kind.
    ///
    /// # Errors
    /// As [`DriftEvent::from_json`].
    pub fn from_json(value: &[u8]) -> Result<Self, EventError> {
        // Nearly all are: read at once, and asked for their kind only where that fails.
        if let Ok(event) = serde_json::from_slice::<DriftEvent>(value)
            && event.kind == KIND
        {
            return Ok(Self::Drift(event));
        }
        match DriftEvent::from_json(value) {
            Ok(event) => Ok(Self::Drift(event)),
            Err(EventError::UnknownKind { kind }) if kind == QUALITY_KIND => Ok(Self::Quality(QualityEvent::from_json(value)?)),
            Err(error) => Err(error),
        }
    }

    /// The monitor's name.
    #[must_use]
    pub fn monitor(&self) -> &Arc<str> {
        match self {
            Self::Drift(event) => &event.monitor,
            Self::Quality(event) => &event.monitor,
        }
    }

    /// Whose records.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Drift(event) => event.scope,
            Self::Quality(event) => event.scope,
        }
    }

    /// The feature's name: the key of its Kafka record.
    #[must_use]
    pub fn feature(&self) -> &Arc<str> {
        match self {
            Self::Drift(event) => &event.feature,
            Self::Quality(event) => &event.feature,
        }
    }
}

/// Why bytes are no drift event of this version.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Another kind of event: skip it.
    #[error("an event of kind {kind:?}, which this build does not know")]
    UnknownKind {
        /// The kind.
        kind: String,
    },
    /// Not an event: report it.
    #[error("not an event: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Room for most events.
const USUAL_BYTES: usize = 1_024;

/// Appends fields as those of a JSON object. Their names are known to need no escapes, where a serialiser looks at each byte of them for each event:
/// that is half of what writing one takes.
macro_rules! write_fields {
    ($json:ident, $first:ident: $value:expr, $($name:ident: $rest:expr,)*) => {
        write_field(&mut $json, concat!("\"", stringify!($first), "\":"), $value);
        $(write_field(&mut $json, concat!(",\"", stringify!($name), "\":"), $rest);)*
    };
}

#[expect(clippy::expect_used, reason = "derived serialisation of plain fields into a Vec has no failing path")]
fn write_field(json: &mut Vec<u8>, name: &str, value: impl Serialize) {
    json.extend_from_slice(name.as_bytes());
    serde_json::to_writer(json, &value).expect("a field of an event serialises");
}

impl DriftEvent {
    /// The key of its Kafka record: so all events of a feature are in one partition, in order.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.feature
    }

    /// Whether it is the summary of a check.
    #[must_use]
    pub fn is_summary(&self) -> bool {
        &*self.feature == SUMMARY
    }

    /// The value of its Kafka record: what the derived serialisation writes.
    ///
    /// # Panics
    /// Never: the type has no map and no failing serialiser, and it is written into memory.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(USUAL_BYTES);
        json.push(b'{');
        write_fields! { json,
            schema_version: &self.schema_version,
            event_id: &self.event_id,
            kind: &self.kind,
            monitor: &*self.monitor,
            scope: &self.scope,
            partition: &self.partition,
            segment: self.segment.as_deref(),
            feature: &*self.feature,
            psi: &self.psi,
            p_value: &self.p_value,
            psi_null_mean: &self.psi_null_mean,
            significant: &self.significant,
            status: &self.status,
            previous_status: &self.previous_status,
            record_count: &self.record_count,
            window_count: &self.window_count,
            missing_count: &self.missing_count,
            below_range_count: &self.below_range_count,
            above_range_count: &self.above_range_count,
            window_start_offset: &self.window_start_offset,
            window_end_offset: &self.window_end_offset,
            window_start_ms: &self.window_start_ms,
            window_end_ms: &self.window_end_ms,
            counts: &self.counts,
            top_bin: &self.top_bin,
            top_bin_contribution: &self.top_bin_contribution,
            feature_count: &self.feature_count,
            drifted_features: &self.drifted_features,
            reference_version: &*self.reference_version,
            closed_by: &self.closed_by,
            js: &self.js,
            ks: &self.ks,
            wasserstein: &self.wasserstein,
            chi2_p_value: &self.chi2_p_value,
        }
        json.push(b'}');
        json
    }

    /// Reads an event; fields that are not known are ignored, and those that earlier releases did not write are `None`.
    ///
    /// # Errors
    /// [`EventError::UnknownKind`] for events of other kinds, whatever their fields; [`EventError::Malformed`] for all else.
    pub fn from_json(value: &[u8]) -> Result<Self, EventError> {
        of_kind(KIND, value)
    }
}

/// Reads an event of one kind.
fn of_kind<'de, T: Deserialize<'de>>(known: &str, value: &'de [u8]) -> Result<T, EventError> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
    }
    let Kind { kind } = serde_json::from_slice(value)?;
    if kind == known {
        Ok(serde_json::from_slice(value)?)
    } else {
        Err(EventError::UnknownKind { kind: kind.into_owned() })
    }
}

/// Makes event ids: `application_id/monitor/topic/partition/scope/segment/feature/window end/reference_version`, each part percent-encoded.
///
/// The parts that are the same for all events of a window are encoded once.
#[derive(Clone, Debug)]
pub struct EventId {
    prefix: String,
}

impl EventId {
    /// Ids of one window. `partition` and `segment` are empty parts when there is none.
    #[must_use]
    pub fn new(application_id: &str, monitor: &str, topic: &str, partition: Option<Partition>, scope: Scope, segment: Option<&str>) -> Self {
        let mut prefix = String::new();
        let partition = partition.map_or_else(String::new, |partition| partition.to_string());
        for part in [application_id, monitor, topic, &partition, scope.as_str(), segment.unwrap_or_default()] {
            percent_encode(part, &mut prefix);
            prefix.push('/');
        }
        Self { prefix }
    }

    /// Whether this window made `event_id`.
    #[must_use]
    pub fn begins(&self, event_id: &str) -> bool {
        event_id.starts_with(&self.prefix)
    }

    /// The id of one event. `window_end` is the last record's offset, or what else identifies the window's end.
    #[must_use]
    pub fn of(&self, feature: &str, window_end: i64, reference_version: &str) -> String {
        self.with("", feature, window_end, reference_version)
    }

    /// The id of a quality event: as [`Self::of`], but its feature's part begins with `quality:`. Since the colon of a feature's name is encoded, no
    /// drift event has it.
    #[must_use]
    pub fn of_quality(&self, feature: &str, window_end: i64, reference_version: &str) -> String {
        self.with("quality:", feature, window_end, reference_version)
    }

    fn with(&self, kind: &str, feature: &str, window_end: i64, reference_version: &str) -> String {
        // A 64-bit number and two slashes are 22 bytes; encoding may grow the rest, rarely.
        let mut id = String::with_capacity(self.prefix.len() + kind.len() + feature.len() + reference_version.len() + 22);
        id.push_str(&self.prefix);
        id.push_str(kind);
        percent_encode(feature, &mut id);
        id.push('/');
        percent_encode(&window_end.to_string(), &mut id);
        id.push('/');
        percent_encode(reference_version, &mut id);
        id
    }
}

/// Appends `text` with all but RFC 3986's unreserved characters percent-encoded.
fn percent_encode(text: &str, out: &mut String) {
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
}

/// `Arc<str>` as a JSON string: serde's own needs a feature that is easily misused for shared identity.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}

mod optional_shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
        text.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Arc::from))
    }
}

#[cfg(test)]
mod tests;
