//! Reading a topic without a group, and going on with what is written to it: for the consumers of drift events.

use std::time::Duration;

use leeway_topology::ids::Offset;

use super::{BrokerError, FetchedRecord, TopicPartition};

/// Reads all partitions of one topic, read-committed, each from its log's start. Nothing is committed anywhere.
///
/// Records that were deleted before they were read are passed over: whoever shows events shows those that are there. So is what a topic held that
/// was deleted and made anew.
pub trait TopicReader {
    /// Looks which partitions there are, and begins with those that are new. To be called now and then, since partitions may be added.
    ///
    /// # Errors
    /// When the topic is not there or the broker does not answer.
    fn refresh(&mut self, timeout: Duration) -> Result<(), BrokerError>;

    /// Hands up to `max` records to `visit`, those of a partition in offset order; waits at most `timeout` for the first. Gives their number.
    ///
    /// # Errors
    /// What the broker, or the client on its way there, has to complain of. Records handed over before are counted as read; call it again.
    fn poll(&mut self, max: usize, timeout: Duration, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>)) -> Result<usize, BrokerError>;

    /// Shows each partition that is known, with the next offset to read, and whether it stands at its end: what readers may see of the log, which
    /// ends before a transaction that is open. The offset itself does not pass what stands there and is no record: markers of transactions.
    fn positions(&self, visit: &mut dyn FnMut(&TopicPartition, Offset, bool));

    /// Whether each partition that is known was once read to its end.
    fn is_caught_up(&self) -> bool;
}
