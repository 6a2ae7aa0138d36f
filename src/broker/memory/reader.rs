//! Reads a topic of the embedded broker without a group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::ids::Offset;

use super::log::Fetched;
use super::state::no_such_partition;
use super::{FETCH_RECORDS, Shared};
use crate::broker::{BrokerError, FetchedRecord, TopicPartition, TopicReader};

/// A reader of a topic. See [`super::MemoryBroker`].
pub struct MemoryReader {
    shared: Arc<Shared>,
    topic: Arc<str>,
    partitions: BTreeMap<TopicPartition, Reading>,
    batch: Vec<Fetched>,
    seen_version: u64,
}

struct Reading {
    next: Offset,
    is_at_end: bool,
    was_at_end: bool,
}

impl MemoryReader {
    pub(super) fn new(shared: Arc<Shared>, topic: &str) -> Self {
        Self {
            shared,
            topic: topic.into(),
            partitions: BTreeMap::new(),
            batch: Vec::new(),
            seen_version: 0,
        }
    }

    fn read(&mut self, max: usize, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>)) -> Result<usize, BrokerError> {
        // Before the first look: what comes meanwhile is not waited for.
        self.seen_version = self.shared.with(|state, _| state.version);
        let mut count = 0;
        for (partition, reading) in &mut self.partitions {
            let batch = &mut self.batch;
            let fetch = self.shared.with(|state, _| {
                let range = state.log(partition).map(super::log::Log::range);
                let range = range.ok_or_else(|| BrokerError::Refused(no_such_partition(partition)))?;
                if reading.next > range.high_watermark || reading.next < range.start {
                    reading.next = range.start;
                }
                state
                    .answer_fetch(partition, reading.next, FETCH_RECORDS.min(max - count), batch)
                    .map_err(BrokerError::Refused)
            })?;
            count += batch.len();
            for (offset, record) in batch.drain(..) {
                visit(partition, record.at(offset));
            }
            (reading.next, reading.is_at_end) = (fetch.next, fetch.at_end);
            reading.was_at_end |= fetch.at_end;
            if count >= max {
                break;
            }
        }
        Ok(count)
    }
}

impl TopicReader for MemoryReader {
    fn refresh(&mut self, _: Duration) -> Result<(), BrokerError> {
        for (partition, range) in self.shared.with(|state, _| state.log_ranges(&self.topic))? {
            self.partitions.entry(partition).or_insert(Reading {
                next: range.start,
                is_at_end: false,
                was_at_end: false,
            });
        }
        Ok(())
    }

    fn poll(&mut self, max: usize, timeout: Duration, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>)) -> Result<usize, BrokerError> {
        let count = self.read(max, visit)?;
        if count > 0 || timeout.is_zero() {
            return Ok(count);
        }
        self.shared.wait(self.seen_version, timeout);
        self.read(max, visit)
    }

    fn positions(&self, visit: &mut dyn FnMut(&TopicPartition, Offset, bool)) {
        for (partition, reading) in &self.partitions {
            visit(partition, reading.next, reading.is_at_end);
        }
    }

    fn is_caught_up(&self) -> bool {
        self.partitions.values().all(|reading| reading.was_at_end)
    }
}
