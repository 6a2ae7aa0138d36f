//! Where the application's group stands in a topic: the one place that says what lag is.

use std::time::Duration;

use serde::Serialize;

use crate::broker::{Broker, BrokerError};

/// How often Kafka is asked. Each round makes a client for each topic, so that this is seldom enough not to matter.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(5);

/// One request to the broker.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// A partition of a topic that the group reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct GroupPosition {
    pub(super) partition: i32,
    /// The group's next offset; none when it has committed none.
    pub(super) committed: Option<i64>,
    pub(super) end: i64,
    /// Offsets between the two.
    pub(super) lag: i64,
}

/// Asks Kafka.
///
/// # Errors
/// When the topic is not there or the broker does not answer.
pub(super) fn positions<B: Broker>(broker: &B, group: &str, topic: &str) -> Result<Vec<GroupPosition>, BrokerError> {
    let positions = broker.group_positions(group, topic, TIMEOUT)?.into_iter();
    let position = positions.map(|(partition, committed, range)| {
        let committed = committed.map(|committed| committed.offset.0);
        GroupPosition {
            partition: partition.partition.0,
            committed,
            end: range.high_watermark.0,
            lag: (range.high_watermark.0 - committed.unwrap_or(0).max(range.start.0)).max(0),
        }
    });
    Ok(position.collect())
}
