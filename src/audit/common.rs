//! What an audit asks of events of every kind.

use std::sync::Arc;

use leeway_topology::event::{ClosedBy, DriftEvent, Event, QualityEvent, Scope};
use leeway_topology::ids::{Offset, Partition, RecordNumber, Timestamp};

/// The fields that all kinds have, as far as an audit goes by them.
pub(super) struct Common<'e> {
    pub(super) event_id: &'e str,
    pub(super) monitor: &'e Arc<str>,
    pub(super) scope: Scope,
    pub(super) partition: Option<Partition>,
    pub(super) segment: &'e Option<Arc<str>>,
    pub(super) feature: &'e Arc<str>,
    pub(super) record_count: RecordNumber,
    pub(super) window_end_offset: Option<Offset>,
    pub(super) window_end_ms: Timestamp,
    pub(super) closed_by: Option<ClosedBy>,
}

macro_rules! common {
    ($kind:ident, $event:expr) => {{
        let $kind {
            event_id,
            monitor,
            scope,
            partition,
            segment,
            feature,
            record_count,
            window_end_offset,
            window_end_ms,
            closed_by,
            ..
        } = $event;
        Common {
            event_id,
            monitor,
            scope: *scope,
            partition: *partition,
            segment,
            feature,
            record_count: *record_count,
            window_end_offset: *window_end_offset,
            window_end_ms: *window_end_ms,
            closed_by: *closed_by,
        }
    }};
}

impl<'e> Common<'e> {
    pub(super) fn of(event: &'e Event) -> Self {
        match event {
            Event::Drift(event) => common!(DriftEvent, event),
            Event::Quality(event) => common!(QualityEvent, event),
        }
    }
}
