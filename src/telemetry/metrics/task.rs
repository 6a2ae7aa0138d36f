//! The counters of one task.

use std::sync::Arc;

use leeway_topology::ids::{Offset, Partition};
use prometheus::IntCounter;

use super::Metrics;

/// What a task counts: plain numbers, added to the process's counters once per commit and when it ends.
pub struct TaskMetrics {
    /// Records taken from the input.
    pub consumed: u64,
    /// Valid ones among them.
    pub processed: u64,
    /// Those without a value.
    pub tombstones: u64,
    /// Changelog records read.
    pub restored: u64,
    metrics: Arc<Metrics>,
    topic: Arc<str>,
    partition: Partition,
    /// The partition as a label.
    number: String,
    consumed_total: IntCounter,
    processed_total: IntCounter,
}

impl TaskMetrics {
    pub(super) fn new(metrics: Arc<Metrics>, topic: Arc<str>, partition: Partition) -> Self {
        let number = partition.to_string();
        let consumed_total = metrics.consumed.counter(&[&*topic, &number]);
        let processed_total = metrics.processed.counter(&[&*topic, &number]);
        Self {
            consumed: 0,
            processed: 0,
            tombstones: 0,
            restored: 0,
            metrics,
            topic,
            partition,
            number,
            consumed_total,
            processed_total,
        }
    }

    /// Publishes what was counted, and the lag of the committed position `next` behind the log's end, where that is known.
    pub fn publish(&mut self, next: Offset, high_watermark: Option<Offset>) {
        self.publish_counts();
        if let Some(end) = high_watermark {
            // The watermark may be older than the position.
            self.metrics
                .lag
                .set(&[&*self.topic, &self.number], end.0.saturating_sub(next.0).max(0) as f64);
        }
    }

    /// Publishes how many changelog records a restore has still to read; 0 when it is through.
    pub fn publish_restore(&mut self, remaining: u64) {
        self.publish_counts();
        self.metrics.restore_remaining.set(&[&*self.topic, &self.number], remaining as f64);
    }

    fn publish_counts(&mut self) {
        self.consumed_total.inc_by(std::mem::take(&mut self.consumed));
        self.processed_total.inc_by(std::mem::take(&mut self.processed));
        self.metrics.tombstones.inc_by(std::mem::take(&mut self.tombstones));
        self.metrics.restored.inc_by(std::mem::take(&mut self.restored));
    }
}

impl Drop for TaskMetrics {
    fn drop(&mut self) {
        self.publish_counts();
        self.metrics.task_ended(&self.topic, self.partition);
    }
}
