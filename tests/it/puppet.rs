//! A client that says of its membership what a test wants: what librdkafka's own thread may find out at any moment.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leeway::broker::memory::MemoryClient;
use leeway::broker::{ClientEvent, EpochCommit, FetchedRecord, GroupMetadata, StreamClient, TopicPartition};
use leeway_topology::ids::Offset;

/// What the test pulls at.
#[derive(Default)]
pub(crate) struct Strings {
    /// Another member id than the true one.
    pub(crate) member_id: Option<String>,
    /// The assignment is lost.
    pub(crate) lost: bool,
    /// Changelogs of which nothing comes, as if their leaders were gone.
    pub(crate) silent: BTreeSet<TopicPartition>,
    /// Events to be given next.
    pub(crate) events: VecDeque<ClientEvent>,
}

/// See the module.
pub(crate) struct Puppet {
    inner: MemoryClient,
    strings: Arc<Mutex<Strings>>,
}

impl Puppet {
    pub(crate) fn new(inner: MemoryClient) -> (Self, Arc<Mutex<Strings>>) {
        let strings = Arc::<Mutex<Strings>>::default();
        (
            Self {
                inner,
                strings: strings.clone(),
            },
            strings,
        )
    }
}

impl StreamClient for Puppet {
    fn next_event(&mut self) -> Option<ClientEvent> {
        let next = self.strings.lock().expect("strings").events.pop_front();
        next.or_else(|| self.inner.next_event())
    }

    fn group_metadata(&mut self) -> GroupMetadata {
        let mut metadata = self.inner.group_metadata();
        if let Some(member_id) = &self.strings.lock().expect("strings").member_id {
            metadata.member_id.clone_from(member_id);
        }
        metadata
    }

    fn assignment_lost(&self) -> bool {
        self.strings.lock().expect("strings").lost || self.inner.assignment_lost()
    }

    fn wait(&mut self, timeout: Duration) {
        self.inner.wait(timeout);
    }

    fn init_producer(&mut self) {
        self.inner.init_producer();
    }

    fn subscribe(&mut self, topics: &[Arc<str>]) {
        self.inner.subscribe(topics);
    }

    fn assign(&mut self, partitions: &[TopicPartition]) {
        self.inner.assign(partitions);
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) {
        self.inner.unassign(partitions);
    }

    fn start(&mut self, partition: &TopicPartition, offset: Offset) {
        self.inner.start(partition, offset);
    }

    fn poll(&mut self, partition: &TopicPartition, max: usize, visit: &mut dyn FnMut(FetchedRecord<'_>) -> ControlFlow<()>) -> usize {
        self.inner.poll(partition, max, visit)
    }

    fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.inner.high_watermark(partition)
    }

    fn is_at_end(&self, partition: &TopicPartition) -> bool {
        self.inner.is_at_end(partition)
    }

    fn commit(&mut self, epoch: EpochCommit) {
        self.inner.commit(epoch);
    }

    fn fetch_committed(&mut self, partitions: &[TopicPartition]) {
        self.inner.fetch_committed(partitions);
    }

    fn fetch_log_range(&mut self, partition: &TopicPartition) {
        self.inner.fetch_log_range(partition);
    }

    fn start_restore(&mut self, partition: &TopicPartition, offset: Offset) {
        if !self.strings.lock().expect("strings").silent.contains(partition) {
            self.inner.start_restore(partition, offset);
        }
    }

    fn poll_restore(&mut self, max: usize, visit: &mut dyn FnMut(&TopicPartition, FetchedRecord<'_>)) -> usize {
        self.inner.poll_restore(max, visit)
    }

    fn stop_restore(&mut self, partition: &TopicPartition) {
        self.inner.stop_restore(partition);
    }

    fn close(&mut self, timeout: Duration) {
        self.inner.close(timeout);
    }
}
