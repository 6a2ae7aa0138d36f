//! What librdkafka does around this consumer, with its own mock cluster: these are races inside the client, and no broker has a part in them.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use super::*;
use crate::broker::ClientSettings;
use crate::broker::kafka::KafkaBroker;

const TOPIC: &str = "input";
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster(partitions: i32) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, partitions, 1).expect("a topic");
    cluster
}

fn consumer(cluster: &MockCluster<'_, DefaultProducerContext>) -> QueuedConsumer {
    let broker = KafkaBroker::new(&cluster.bootstrap_servers(), &BTreeMap::new()).expect("a broker");
    let settings = ClientSettings {
        application_id: "app".to_owned(),
        transactional_id: "app-1".to_owned(),
        client_id: "app-1".to_owned(),
        thread: 1,
        transaction_timeout: Duration::from_secs(10),
        message_bytes_max: 1_000_000,
        batch_bytes_max: 1_000_000,
    };
    QueuedConsumer::new(&broker.group_consumer_config(&settings), &Arc::default()).expect("a consumer")
}

fn fill(cluster: &MockCluster<'_, DefaultProducerContext>, records: i64) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .expect("a producer");
    for record in 0..records {
        let value = record.to_string();
        producer
            .send(BaseRecord::<(), str>::to(TOPIC).partition(0).payload(&value))
            .expect("queued");
    }
    producer.flush(PATIENCE).expect("sent");
}

/// Takes `records`, in one or more polls.
fn take(consumer: &mut QueuedConsumer, partition: &TopicPartition, records: usize) -> Vec<i64> {
    let (mut seen, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while seen.len() < records {
        assert!(Instant::now() < deadline, "only {seen:?}");
        assert!(consumer.serve().is_none());
        let (_, event) = consumer.poll(partition, records - seen.len(), &mut |record| {
            seen.push(record.offset.0);
            ControlFlow::Continue(())
        });
        assert!(event.is_none());
        consumer.signal.wait(Duration::from_millis(1));
    }
    seen
}

#[test]
fn record_that_librdkafka_gives_again_is_not_handed_on() {
    let cluster = cluster(1);
    fill(&cluster, 300);
    let mut consumer = consumer(&cluster);
    let partition = TopicPartition::new(TOPIC, Partition(0));
    consumer.assign(std::slice::from_ref(&partition)).expect("assigned");
    consumer.start(&partition, Offset(0)).expect("started");
    assert_eq!(take(&mut consumer, &partition, 100), (0..100).collect::<Vec<_>>());
    // In the place of the pause of a rebalance that comes between taking record 99 out of the queue and noting that it was.
    seek(consumer.consumer(), &partition, Offset(99)).expect("sought");
    assert_eq!(take(&mut consumer, &partition, 200), (100..300).collect::<Vec<_>>());
    // Asked for, the same records are given again.
    consumer.start(&partition, Offset(50)).expect("started");
    assert_eq!(take(&mut consumer, &partition, 250), (50..300).collect::<Vec<_>>());
}

fn member(cluster: &MockCluster<'_, DefaultProducerContext>) -> QueuedConsumer {
    let consumer = consumer(cluster);
    consumer.consumer().subscribe(&[TOPIC]).expect("subscribed");
    consumer
}

/// Drops each on a thread of its own before it waits, since what is tested is that this ends.
fn end_when_dropped(consumers: [QueuedConsumer; 2]) {
    let dropping = consumers.map(|consumer| std::thread::spawn(move || drop(consumer)));
    let deadline = Instant::now() + PATIENCE;
    for dropping in dropping {
        while !dropping.is_finished() {
            assert!(Instant::now() < deadline, "still closing after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        dropping.join().expect("no panic");
    }
}

/// Two members and one partition. What a member has is revoked when it closes, and the answer to that is an answer to everything; the one that is told
/// of nothing would wait for ever. Should the mock cluster leave the second one out of its first rebalance, this shows less.
#[test]
fn consumers_end_with_a_rebalance_that_they_were_not_told_of_yet() {
    let cluster = cluster(1);
    let members = [member(&cluster), member(&cluster)];
    for member in &members {
        // librdkafka has something to tell, which nobody asks for.
        member.signal.wait(Duration::from_secs(10));
    }
    end_when_dropped(members);
}

/// librdkafka goes on from this position after a rebalance: one past the end would lose the next record.
#[test]
fn telling_of_a_partitions_end_moves_no_position() {
    let cluster = cluster(1);
    fill(&cluster, 5);
    let mut consumer = consumer(&cluster);
    let partition = TopicPartition::new(TOPIC, Partition(0));
    consumer.assign(std::slice::from_ref(&partition)).expect("assigned");
    consumer.start(&partition, Offset(0)).expect("started");
    assert_eq!(take(&mut consumer, &partition, 5), (0..5).collect::<Vec<_>>());
    let deadline = Instant::now() + PATIENCE;
    while consumer.poll(&partition, 1, &mut |_| ControlFlow::Continue(())).1.is_none() {
        assert!(Instant::now() < deadline, "not told of the end");
        consumer.signal.wait(Duration::from_millis(1));
    }
    let positions = consumer.consumer().position().expect("a position");
    assert_eq!(positions.elements()[0].offset(), Position::Offset(5));
}

#[test]
fn record_after_one_that_stopped_a_poll_comes_next() {
    let cluster = cluster(1);
    fill(&cluster, 5);
    let mut consumer = consumer(&cluster);
    let partition = TopicPartition::new(TOPIC, Partition(0));
    consumer.assign(std::slice::from_ref(&partition)).expect("assigned");
    consumer.start(&partition, Offset(0)).expect("started");
    assert_eq!(take(&mut consumer, &partition, 1), [0]);
    let stopped = consumer.poll(&partition, 4, &mut |_| ControlFlow::Break(()));
    assert_eq!(stopped.0, 1);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| consumer.poll(&partition, 4, &mut |_| panic!("as asked"))));
    assert_eq!(panicked.err().and_then(|panic| panic.downcast_ref().copied()), Some("as asked"));
    assert_eq!(take(&mut consumer, &partition, 2), [3, 4]);
}
