//! Panes on a repartition topic, as an audit compares them.

use leeway_topology::ids::{Offset, Partition};
use leeway_topology::repartition::{Content, ShippedPane};
use serde_json::json;

use super::{Ends, Of, PANE, Sequence};
use crate::broker::TopicPartition;

/// `repartition`: the partition that it is in, or should be in.
pub(super) fn sequence(pane: &ShippedPane, repartition: Option<Partition>) -> Sequence {
    let Content::Count(content) = &pane.content;
    Sequence {
        monitor: pane.monitor.clone(),
        of: Of::Panes(content.partition),
        feature: "".into(),
        kind: PANE,
        repartition,
        segment: None,
    }
}

/// What is in a pane, but for its reference's place in the order of publication: that is known when it is cut, and not told by the input.
pub(super) fn text(pane: &ShippedPane) -> Vec<u8> {
    let Content::Count(content) = &pane.content;
    let histogram = &content.pane.histogram;
    let object = json!({
        // What `locate` tells by whether two are the same one.
        "event_id": format!("pane {} of partition {}", content.pane.number.0, content.partition),
        "segment": &*pane.segment,
        "size": content.size,
        "every": content.every,
        "reference_version": &*content.reference_version,
        "records": histogram.records(),
        "counters": histogram.as_slice(),
        "offsets": content.pane.span.map(|span| (span.first, span.last)),
        "times": content.pane.span.and_then(|span| span.times),
    });
    object.to_string().into_bytes()
}

/// Whether a pane has records that are not audited.
pub(super) fn is_later(pane: &ShippedPane, input: &std::sync::Arc<str>, ends: &Ends) -> bool {
    let Content::Count(content) = &pane.content;
    let end = ends.get(&TopicPartition::new(input.clone(), content.partition));
    let last = content.pane.span.map(|span| span.last);
    last.is_some_and(|last| last >= end.copied().unwrap_or(Offset(0)))
}
