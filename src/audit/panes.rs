//! Panes, and parts of time windows, on a repartition topic, as an audit compares them.

use leeway_topology::ids::Partition;
use leeway_topology::repartition::{Content, ShippedPane};
use serde_json::json;

use super::{Of, PANE, Sequence};

/// How far a partition is, is told when that is known and not by the input alone; what follows from it is compared.
pub(super) fn is_compared(pane: &ShippedPane) -> bool {
    !matches!(pane.content, Content::Progress(_))
}

/// `repartition`: the partition that it is in, or should be in. `by_segment`: the order of segments is known to nobody.
pub(super) fn sequence(pane: &ShippedPane, repartition: Option<Partition>, by_segment: bool) -> Sequence {
    Sequence {
        monitor: pane.monitor.clone(),
        of: Of::Panes(pane.content.partition()),
        feature: "".into(),
        kind: PANE,
        repartition,
        segment: by_segment.then(|| pane.segment.clone()),
    }
}

/// What is in a pane, but for its reference's place in the order of publication: that is known when it is cut, and not told by the input. Nor, with
/// `by_segment`, whether idleness closed a window, or stream time meanwhile.
pub(super) fn text(pane: &ShippedPane, by_segment: bool) -> Vec<u8> {
    // `event_id` is what `locate` tells by whether two are the same one.
    let object = match &pane.content {
        Content::Count(content) => json!({
            "event_id": format!("pane {} of partition {}", content.pane.number.0, content.partition),
            "segment": &*pane.segment,
            "size": content.size,
            "every": content.every,
            "reference_version": &*content.reference_version,
            "records": content.pane.histogram.records(),
            "counters": content.pane.histogram.as_slice(),
            "offsets": content.pane.span.map(|span| (span.first, span.last)),
            "times": content.pane.span.and_then(|span| span.times),
        }),
        Content::Window(part) => json!({
            "event_id": if pane.segment.is_empty() {
                format!("window {} of partition {}", part.window, part.partition)
            } else {
                format!("window {} of segment {} of partition {}", part.window, pane.segment, part.partition)
            },
            "size_ms": part.size_ms,
            "every_ms": part.every_ms,
            "grace_ms": part.grace_ms,
            "reference_version": &*part.reference_version,
            "record_number": part.record_number.0,
            "is_idle": part.is_idle && !by_segment,
            "counters": part.total.as_slice(),
        }),
        Content::Progress(progress) => json!({ "event_id": format!("progress of partition {}", progress.partition) }),
    };
    object.to_string().into_bytes()
}
