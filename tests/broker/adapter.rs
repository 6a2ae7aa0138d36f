//! The Kafka adapter keeps the port's promises on a real broker: positions, transactions, rebalances, restores, closing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use leeway::broker::kafka::{KafkaBroker, KafkaClient, TransactionStep};
use leeway::broker::{
    AbortCause, Broker, BrokerError, ClientEvent, ClientSettings, CommitOutcome, CommittedOffset, EpochCommit, GroupMetadata, LogRange, NewTopic,
    OutRecord, PlainProducer, StreamClient, TopicPartition,
};
use leeway_topology::ids::{Offset, Partition, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A name that no other test uses.
fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("adapter-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn broker() -> KafkaBroker {
    broker_with(&[])
}

fn broker_with(properties: &[(&str, &str)]) -> KafkaBroker {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    KafkaBroker::new(crate::kafka::bootstrap(), &properties).expect("properties")
}

fn topic(broker: &KafkaBroker, partitions: u32) -> Arc<str> {
    let name: Arc<str> = unique("topic").into();
    let topic = NewTopic {
        name: name.clone(),
        partitions,
        replication_factor: Some(1),
        config: BTreeMap::new(),
    };
    broker.create_topic(&topic, PATIENCE).expect("create topic");
    name
}

fn at(topic: &Arc<str>, partition: i32) -> TopicPartition {
    TopicPartition::new(topic.clone(), Partition(partition))
}

fn out(partition: &TopicPartition, value: &str) -> OutRecord {
    let value = Some(value.as_bytes().to_vec());
    OutRecord {
        topic: partition.topic.clone(),
        partition: partition.partition,
        key: None,
        value,
        headers: Vec::new(),
        timestamp: None,
    }
}

/// Sends `count` records whose values are their numbers.
fn fill(broker: &KafkaBroker, partition: &TopicPartition, count: usize) {
    let mut producer = broker.producer().expect("producer");
    for number in 0..count {
        producer.send(out(partition, &number.to_string())).expect("send");
    }
    producer.flush(PATIENCE).expect("flush");
}

/// A transactional producer without Leeway: for transactions that are left open or aborted.
fn foreign_transactions(id: &str) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", crate::kafka::bootstrap())
        .set("transactional.id", id)
        .set("linger.ms", "0")
        .create()
        .expect("producer");
    producer.init_transactions(PATIENCE).expect("init");
    producer
}

fn foreign_send(producer: &BaseProducer, partition: &TopicPartition, value: &str) {
    let record = BaseRecord::<(), str>::to(&partition.topic)
        .partition(partition.partition.0)
        .payload(value);
    producer.send(record).map_err(|(error, _)| error).expect("send");
    producer.flush(PATIENCE).expect("flush");
}

/// A record as a test keeps it.
#[derive(Debug, PartialEq)]
struct Seen {
    offset: i64,
    value: Option<String>,
}

/// A client and what it answers by itself: rebalances.
struct Member {
    client: KafkaClient,
    owned: BTreeSet<TopicPartition>,
    /// Where each assigned partition is started; `None`: it is not.
    begin: Option<Offset>,
    log: Vec<String>,
}

impl Member {
    fn new(broker: &KafkaBroker, application_id: &str, thread: &str) -> Self {
        Self::with(broker, application_id, thread, Duration::from_secs(10))
    }

    fn with(broker: &KafkaBroker, application_id: &str, thread: &str, transaction_timeout: Duration) -> Self {
        let settings = ClientSettings {
            application_id: application_id.to_owned(),
            transactional_id: format!("{application_id}-{thread}"),
            client_id: format!("{application_id}-StreamThread-{thread}"),
            transaction_timeout,
            message_bytes_max: 1_000_000,
            batch_bytes_max: 1_000_000,
        };
        Self {
            client: broker.client(&settings).expect("client"),
            owned: BTreeSet::new(),
            begin: None,
            log: Vec::new(),
        }
    }

    /// Gives the next event, after it has answered a rebalance.
    fn next(&mut self) -> Option<ClientEvent> {
        let event = self.client.next_event()?;
        self.log.push(format!("{event:?}"));
        match &event {
            ClientEvent::Assigned(partitions) => {
                self.client.assign(partitions);
                self.owned.extend(partitions.iter().cloned());
                if let Some(begin) = self.begin {
                    partitions.iter().for_each(|partition| self.client.start(partition, begin));
                }
            }
            ClientEvent::Revoked { partitions, .. } => {
                self.client.unassign(partitions);
                partitions
                    .iter()
                    .for_each(|partition| assert!(self.owned.remove(partition), "{partition} was not owned"));
            }
            _ => {}
        }
        Some(event)
    }

    fn until<T>(&mut self, what: &str, mut found: impl FnMut(&ClientEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next() {
                Some(event) => {
                    if let Some(found) = found(&event) {
                        return found;
                    }
                }
                None => self.client.wait(Duration::from_millis(20)),
            }
            assert!(Instant::now() < deadline, "no {what}; events: {:#?}", self.log);
        }
    }

    fn ready(&mut self) {
        self.client.init_producer();
        self.until("producer", |event| matches!(event, ClientEvent::ProducerReady).then_some(()));
    }

    fn join(&mut self, topic: &Arc<str>, partitions: usize) {
        self.client.subscribe(std::slice::from_ref(topic));
        let deadline = Instant::now() + PATIENCE;
        while self.owned.len() < partitions {
            if self.next().is_none() {
                self.client.wait(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "not joined; events: {:#?}", self.log);
        }
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Option<CommittedOffset>)> {
        self.client.fetch_committed(partitions);
        self.until("committed offsets", |event| match event {
            ClientEvent::CommittedOffsets(offsets) => Some(offsets.clone()),
            _ => None,
        })
    }

    fn range(&mut self, partition: &TopicPartition) -> LogRange {
        self.client.fetch_log_range(partition);
        self.until("log range", |event| match event {
            ClientEvent::LogRange(of, range) if of == partition => Some(*range),
            _ => None,
        })
    }

    /// Polls until `count` records came.
    fn take(&mut self, partition: &TopicPartition, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while seen.len() < count {
            let event = self.next();
            assert!(
                !matches!(event, Some(ClientEvent::PartitionError { .. } | ClientEvent::Fatal { .. })),
                "{event:?}"
            );
            let taken = self.client.poll(partition, count - seen.len(), &mut |record| {
                let value = record.value.map(|value| String::from_utf8_lossy(value).into_owned());
                seen.push(Seen {
                    offset: record.offset.0,
                    value,
                });
                ControlFlow::Continue(())
            });
            if taken == 0 {
                self.client.wait(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "{} of {count} records; events: {:#?}", seen.len(), self.log);
        }
        seen
    }

    fn commit(&mut self, epoch: u64, records: Vec<OutRecord>, offsets: &[(&TopicPartition, i64, &str)], group: GroupMetadata) -> CommitOutcome {
        let offsets = offsets
            .iter()
            .map(|(partition, offset, metadata)| {
                (
                    (*partition).clone(),
                    CommittedOffset {
                        offset: Offset(*offset),
                        metadata: (*metadata).to_owned(),
                    },
                )
            })
            .collect();
        self.client.commit(EpochCommit {
            epoch,
            records,
            offsets,
            group,
        });
        self.until("outcome", |event| match event {
            ClientEvent::CommitFinished { epoch: of, outcome } if *of == epoch => Some(outcome.clone()),
            _ => None,
        })
    }

    fn restore(&mut self, partition: &TopicPartition, from: i64) -> Vec<Seen> {
        self.client.start_restore(partition, Offset(from));
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.client.poll_restore(1000, &mut |of, record| {
                assert_eq!(of, partition);
                let value = record.value.map(|value| String::from_utf8_lossy(value).into_owned());
                seen.push(Seen {
                    offset: record.offset.0,
                    value,
                });
            });
            match self.next() {
                Some(ClientEvent::RestoreEnd(of)) if of == *partition => break,
                Some(event) => assert!(
                    !matches!(event, ClientEvent::PartitionError { .. } | ClientEvent::Fatal { .. }),
                    "{event:?}"
                ),
                None if taken == 0 => self.client.wait(Duration::from_millis(20)),
                None => {}
            }
            assert!(
                Instant::now() < deadline,
                "the restore of {partition} does not end; events: {:#?}",
                self.log
            );
        }
        self.client.stop_restore(partition);
        seen
    }

    /// Closes; the dropping included.
    fn close(mut self, timeout: Duration) {
        self.client.close(timeout);
    }
}

fn offsets(seen: &[Seen]) -> Vec<i64> {
    seen.iter().map(|seen| seen.offset).collect()
}

#[test]
fn nothing_is_fetched_before_start_and_then_everything_in_order() {
    let broker = broker();
    let input = topic(&broker, 1);
    let partition = at(&input, 0);
    let mut producer = broker.producer().expect("producer");
    let sent = OutRecord {
        key: Some(b"k".to_vec()),
        headers: vec![("trace".to_owned(), Some(vec![1, 2])), ("none".to_owned(), None)],
        timestamp: Some(Timestamp(1_700_000_000_123)),
        ..out(&partition, "first")
    };
    producer.send(sent.clone()).expect("send");
    producer
        .send(OutRecord {
            value: None,
            key: Some(b"gone".to_vec()),
            ..out(&partition, "")
        })
        .expect("send");
    producer.flush(PATIENCE).expect("flush");
    fill(&broker, &partition, 500);

    let mut member = Member::new(&broker, &unique("app"), "1");
    member.join(&input, 1);
    // Records that arrive while the partition stands still must not slip through either.
    fill(&broker, &partition, 10);
    assert_eq!(
        member.range(&partition),
        LogRange {
            start: Offset(0),
            high_watermark: Offset(512),
            last_stable: Offset(512)
        }
    );
    assert_eq!(member.client.poll(&partition, 10, &mut |_| panic!("not started")), 0);

    member.client.start(&partition, Offset(0));
    let mut first = None;
    let deadline = Instant::now() + PATIENCE;
    while first.is_none() {
        member.next();
        member.client.poll(&partition, 10, &mut |record| {
            let headers = record.headers.to_owned_headers();
            first = Some((
                record.offset,
                record.timestamp,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                headers,
            ));
            ControlFlow::Break(())
        });
        assert!(Instant::now() < deadline, "no record");
    }
    assert_eq!(first, Some((Offset(0), sent.timestamp, sent.key, sent.value, sent.headers)));
    let rest = member.take(&partition, 511);
    assert_eq!(rest[0], Seen { offset: 1, value: None }, "a tombstone");
    assert_eq!(offsets(&rest), (1..512).collect::<Vec<_>>());
    assert_eq!(member.client.high_watermark(&partition), Some(Offset(512)));
    member.close(Duration::from_secs(5));
}

#[test]
fn a_rewind_never_shows_a_record_that_was_fetched_before() {
    let broker = broker();
    let input = topic(&broker, 2);
    let partitions = [at(&input, 0), at(&input, 1)];
    for partition in &partitions {
        fill(&broker, partition, 5000);
    }
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.begin = Some(Offset(0));
    member.join(&input, 2);
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let partition = &partitions[random.random_range(0..2)];
        let from = random.random_range(0..4900);
        member.client.start(partition, Offset(from));
        let count: usize = random.random_range(1..100);
        let seen = member.take(partition, count);
        assert_eq!(offsets(&seen), (from..from + count as i64).collect::<Vec<_>>());
        assert_eq!(seen[0].value, Some(from.to_string()));
    }
    member.close(Duration::from_secs(5));
}

#[test]
fn a_commit_is_one_transaction_and_its_metadata_is_read_back_exactly() {
    let broker = broker();
    let (input, output) = (topic(&broker, 2), topic(&broker, 2));
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.ready();
    member.join(&input, 2);
    let group = member.client.group_metadata();
    assert!(group.is_member(), "{group:?}");
    let records = vec![out(&at(&output, 0), "a"), out(&at(&output, 1), "b"), out(&at(&output, 0), "c")];
    let metadata = "process 7; thread 1; epoch 42; ü";
    let outcome = member.commit(42, records, &[(&at(&input, 0), 17, metadata)], group.clone());
    let ends = BTreeMap::from([(at(&output, 0), Offset(2)), (at(&output, 1), Offset(1))]);
    assert_eq!(outcome, CommitOutcome::Committed { ends });
    let expected = CommittedOffset {
        offset: Offset(17),
        metadata: metadata.to_owned(),
    };
    let both = [at(&input, 0), at(&input, 1)];
    assert_eq!(member.committed(&both), [(at(&input, 0), Some(expected.clone())), (at(&input, 1), None)]);

    // Nothing but offsets, and an empty metadata string, are fine too.
    let outcome = member.commit(43, Vec::new(), &[(&at(&input, 1), 5, "")], group);
    assert_eq!(outcome, CommitOutcome::Committed { ends: BTreeMap::new() });
    let empty = CommittedOffset {
        offset: Offset(5),
        metadata: String::new(),
    };
    assert_eq!(member.committed(&both), [(at(&input, 0), Some(expected)), (at(&input, 1), Some(empty))]);
    // The marker uses up an offset.
    assert_eq!(member.range(&at(&output, 0)).high_watermark, Offset(3));
    member.close(Duration::from_secs(5));
}

#[test]
fn a_full_producer_queue_is_polled_and_not_failed() {
    let broker = broker_with(&[("queue.buffering.max.messages", "10")]);
    let (input, output) = (topic(&broker, 1), topic(&broker, 1));
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.ready();
    member.join(&input, 1);
    let group = member.client.group_metadata();
    let records = (0..1000).map(|number| out(&at(&output, 0), &number.to_string())).collect();
    let outcome = member.commit(1, records, &[(&at(&input, 0), 1, "")], group);
    assert_eq!(
        outcome,
        CommitOutcome::Committed {
            ends: BTreeMap::from([(at(&output, 0), Offset(1000))])
        }
    );
    let seen = member.restore(&at(&output, 0), 0);
    assert_eq!(
        seen.iter().map(|seen| seen.value.clone()).collect::<Vec<_>>(),
        (0..1000).map(|number| Some(number.to_string())).collect::<Vec<_>>()
    );
    member.close(Duration::from_secs(5));
}

#[test]
fn a_refused_record_aborts_its_epoch_and_the_next_one_commits() {
    let broker = broker();
    let (input, output) = (topic(&broker, 1), topic(&broker, 1));
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.ready();
    member.join(&input, 1);
    let group = member.client.group_metadata();
    let large = OutRecord {
        value: Some(vec![0; 2_000_000]),
        ..out(&at(&output, 0), "")
    };
    let outcome = member.commit(
        1,
        vec![out(&at(&output, 0), "dropped"), large],
        &[(&at(&input, 0), 9, "one")],
        group.clone(),
    );
    assert!(
        matches!(
            outcome,
            CommitOutcome::Aborted {
                cause: AbortCause::Refused,
                ..
            }
        ),
        "{outcome:?}"
    );
    assert_eq!(member.committed(&[at(&input, 0)]), [(at(&input, 0), None)]);
    let missing: Arc<str> = "adapter-no-such-topic".into();
    let begun = Instant::now();
    let outcome = member.commit(2, vec![out(&at(&missing, 0), "lost")], &[(&at(&input, 0), 9, "two")], group.clone());
    assert!(matches!(outcome, CommitOutcome::Aborted { .. }), "{outcome:?}");
    println!("no such topic: {outcome:?} after {:?}", begun.elapsed());
    let outcome = member.commit(3, vec![out(&at(&output, 0), "kept")], &[(&at(&input, 0), 10, "three")], group);
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    let seen = member.restore(&at(&output, 0), 0);
    assert_eq!(seen.iter().filter_map(|seen| seen.value.as_deref()).collect::<Vec<_>>(), ["kept"]);
    member.close(Duration::from_secs(5));
}

#[test]
fn a_rebalance_moves_only_the_difference_and_old_group_metadata_is_refused() {
    let broker = broker();
    let (input, output) = (topic(&broker, 4), topic(&broker, 1));
    for partition in 0..4 {
        fill(&broker, &at(&input, partition), 100);
    }
    let application_id = unique("app");
    let mut first = Member::new(&broker, &application_id, "1");
    first.begin = Some(Offset(0));
    first.ready();
    first.join(&input, 4);
    let old = first.client.group_metadata();
    let before = first.owned.clone();

    let mut second = Member::new(&broker, &application_id, "2");
    second.begin = Some(Offset(0));
    second.ready();
    second.client.subscribe(std::slice::from_ref(&input));
    let deadline = Instant::now() + PATIENCE;
    while second.owned.len() < 2 {
        if first.next().is_none() && second.next().is_none() {
            second.client.wait(Duration::from_millis(5));
        }
        assert!(Instant::now() < deadline, "first {:#?} second {:#?}", first.log, second.log);
    }
    assert_eq!(first.owned.len(), 2);
    assert!(first.owned.is_disjoint(&second.owned));
    let all: BTreeSet<_> = first.owned.union(&second.owned).cloned().collect();
    assert_eq!(all, before);
    // What stays was never interrupted, what moved is read by its new owner.
    for member in [&mut first, &mut second] {
        for partition in member.owned.clone() {
            assert_eq!(offsets(&member.take(&partition, 100)), (0..100).collect::<Vec<_>>());
        }
    }

    let mine = first.owned.first().expect("one").clone();
    let new = first.client.group_metadata();
    assert_eq!(old.member_id, new.member_id);
    assert!(new.generation > old.generation, "{old:?} {new:?}");
    let outcome = first.commit(1, vec![out(&at(&output, 0), "zombie")], &[(&mine, 50, "old")], old);
    assert!(
        matches!(
            outcome,
            CommitOutcome::Aborted {
                cause: AbortCause::Rejoin,
                ..
            }
        ),
        "{outcome:?}"
    );
    assert_eq!(first.committed(std::slice::from_ref(&mine)), [(mine.clone(), None)]);
    let outcome = first.commit(2, vec![out(&at(&output, 0), "member")], &[(&mine, 50, "new")], new);
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");

    // One that leaves gives its partitions up at once, not after the session time-out.
    first.close(Duration::from_secs(5));
    let begun = Instant::now();
    while second.owned.len() < 4 {
        if second.next().is_none() {
            second.client.wait(Duration::from_millis(20));
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:#?}", second.log);
    }
    println!("partitions of the one that left came after {:?}", begun.elapsed());
    second.close(Duration::from_secs(5));
}

#[test]
fn metadata_of_no_member_is_never_sent_since_the_broker_would_not_check_it() {
    let broker = broker();
    let (input, output) = (topic(&broker, 1), topic(&broker, 1));
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.ready();
    let nobody = member.client.group_metadata();
    assert!(!nobody.is_member());
    let outcome = member.commit(1, vec![out(&at(&output, 0), "a")], &[(&at(&input, 0), 1, "m")], nobody);
    let CommitOutcome::Aborted { cause, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(cause, AbortCause::Rejoin);
    assert_eq!(member.committed(&[at(&input, 0)]), [(at(&input, 0), None)]);
    member.close(Duration::from_secs(5));
}

#[test]
fn a_second_producer_of_the_same_transactional_id_fences_the_first() {
    let broker = broker();
    let (input, output) = (topic(&broker, 1), topic(&broker, 1));
    let application_id = unique("app");
    let mut first = Member::new(&broker, &application_id, "1");
    first.ready();
    first.join(&input, 1);
    let group = first.client.group_metadata();
    let outcome = first.commit(1, vec![out(&at(&output, 0), "a")], &[(&at(&input, 0), 1, "first")], group.clone());
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");

    let mut second = Member::new(&broker, &application_id, "1");
    second.ready();
    let outcome = first.commit(2, vec![out(&at(&output, 0), "b")], &[(&at(&input, 0), 2, "fenced")], group.clone());
    assert!(matches!(outcome, CommitOutcome::Fenced { .. }), "{outcome:?}");
    let kept = CommittedOffset {
        offset: Offset(1),
        metadata: "first".to_owned(),
    };
    assert_eq!(first.committed(&[at(&input, 0)]), [(at(&input, 0), Some(kept))]);

    first.ready();
    let outcome = first.commit(3, vec![out(&at(&output, 0), "c")], &[(&at(&input, 0), 3, "back")], group);
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    let values: Vec<_> = first.restore(&at(&output, 0), 0).into_iter().filter_map(|seen| seen.value).collect();
    assert_eq!(values, ["a", "c"]);
    first.close(Duration::from_secs(5));
    second.close(Duration::from_secs(5));
}

#[test]
fn a_transaction_that_outlives_its_timeout_is_not_committed() {
    let slow = Arc::new(AtomicBool::new(true));
    let hook = slow.clone();
    // Longer than the time-out and the test broker's sweep for such transactions.
    let broker = broker().with_hook(move |step| {
        if step == TransactionStep::OffsetsSent && hook.swap(false, Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(14));
        }
    });
    let (input, output) = (topic(&broker, 1), topic(&broker, 1));
    let mut member = Member::with(&broker, &unique("app"), "1", Duration::from_secs(2));
    member.ready();
    member.join(&input, 1);
    let group = member.client.group_metadata();
    let outcome = member.commit(1, vec![out(&at(&output, 0), "late")], &[(&at(&input, 0), 1, "late")], group);
    println!("after its time-out: {outcome:?}");
    assert!(
        matches!(outcome, CommitOutcome::Unknown { .. } | CommitOutcome::Fenced { .. }),
        "{outcome:?}"
    );
    member.ready();
    assert_eq!(member.committed(&[at(&input, 0)]), [(at(&input, 0), None)]);
    let group = member.client.group_metadata();
    let outcome = member.commit(2, vec![out(&at(&output, 0), "again")], &[(&at(&input, 0), 1, "again")], group);
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    let values: Vec<_> = member.restore(&at(&output, 0), 0).into_iter().filter_map(|seen| seen.value).collect();
    assert_eq!(values, ["again"]);
    member.close(Duration::from_secs(5));
}

#[test]
fn a_restore_sees_what_is_committed_and_ends_behind_trailing_markers() {
    let broker = broker();
    let log = topic(&broker, 3);
    let (mixed, only_aborted, empty) = (at(&log, 0), at(&log, 1), at(&log, 2));
    let producer = foreign_transactions(&unique("foreign"));
    for (number, commit) in [true, false, true, false].into_iter().enumerate() {
        producer.begin_transaction().expect("begin");
        foreign_send(&producer, &mixed, &format!("{number}-a"));
        foreign_send(&producer, &mixed, &format!("{number}-b"));
        if commit {
            producer.commit_transaction(PATIENCE).expect("commit");
        } else {
            foreign_send(&producer, &only_aborted, "x");
            producer.abort_transaction(PATIENCE).expect("abort");
        }
    }
    let mut member = Member::new(&broker, &unique("app"), "1");
    let values = |seen: Vec<Seen>| seen.into_iter().filter_map(|seen| seen.value).collect::<Vec<_>>();
    assert_eq!(values(member.restore(&mixed, 0)), ["0-a", "0-b", "2-a", "2-b"]);
    assert_eq!(values(member.restore(&mixed, 7)), ["2-b"]);
    let end = member.range(&mixed).last_stable.0;
    assert_eq!(end, 12, "four transactions of two records and a marker");
    assert!(values(member.restore(&mixed, end)).is_empty());
    assert!(values(member.restore(&only_aborted, 0)).is_empty());
    assert!(values(member.restore(&empty, 0)).is_empty());

    // An open transaction: the end of the log and the last stable offset part.
    producer.begin_transaction().expect("begin");
    foreign_send(&producer, &mixed, "4-a");
    assert_eq!(
        member.range(&mixed),
        LogRange {
            start: Offset(0),
            high_watermark: Offset(13),
            last_stable: Offset(12)
        }
    );
    assert_eq!(values(member.restore(&mixed, 6)), ["2-a", "2-b"]);
    producer.commit_transaction(PATIENCE).expect("commit");
    let deadline = Instant::now() + PATIENCE;
    while member.range(&mixed).last_stable.0 < 14 {
        assert!(Instant::now() < deadline, "the marker does not come");
    }
    assert_eq!(values(member.restore(&mixed, 12)), ["4-a"]);
    member.close(Duration::from_secs(5));
}

#[test]
fn restores_begin_and_end_again_and_again_without_losing_the_end() {
    let broker = broker();
    let log = topic(&broker, 4);
    for partition in 0..4 {
        fill(&broker, &at(&log, partition), 200);
    }
    let mut member = Member::new(&broker, &unique("app"), "1");
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..60 {
        let partition = at(&log, random.random_range(0..4));
        let from = random.random_range(0..=200);
        assert_eq!(
            offsets(&member.restore(&partition, from)),
            (from..200).collect::<Vec<_>>(),
            "{partition} from {from}"
        );
    }
    // All at once, and some of them left half way.
    for partition in 0..4 {
        member.client.start_restore(&at(&log, partition), Offset(0));
    }
    member.client.stop_restore(&at(&log, 3));
    let (mut counts, mut ended) = (BTreeMap::<TopicPartition, usize>::new(), BTreeSet::new());
    let deadline = Instant::now() + PATIENCE;
    while ended.len() < 3 {
        let taken = member.client.poll_restore(50, &mut |of, _| *counts.entry(of.clone()).or_default() += 1);
        match member.next() {
            Some(ClientEvent::RestoreEnd(of)) => {
                assert_eq!(counts[&of], 200, "{of} ended before all was handed out");
                ended.insert(of);
            }
            Some(event) => assert!(
                !matches!(event, ClientEvent::PartitionError { .. } | ClientEvent::Fatal { .. }),
                "{event:?}"
            ),
            None if taken == 0 => member.client.wait(Duration::from_millis(20)),
            None => {}
        }
        assert!(Instant::now() < deadline, "ended: {ended:?}; {:#?}", member.log);
    }
    assert!(!ended.contains(&at(&log, 3)));
    member.close(Duration::from_secs(5));
}

#[test]
fn an_offset_that_is_not_there_is_an_error_with_its_number() {
    let broker = broker();
    let input = topic(&broker, 1);
    let partition = at(&input, 0);
    fill(&broker, &partition, 10);
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.join(&input, 1);
    member.client.start(&partition, Offset(5000));
    let deadline = Instant::now() + PATIENCE;
    let reason = loop {
        member
            .client
            .poll(&partition, 10, &mut |record| panic!("offset {} from nowhere", record.offset));
        if let Some(ClientEvent::PartitionError { partition: of, reason }) = member.next() {
            assert_eq!(of, partition);
            break reason;
        }
        assert!(Instant::now() < deadline, "{:#?}", member.log);
        member.client.wait(Duration::from_millis(20));
    };
    assert!(reason.contains("5000"), "{reason}");
    member.client.start_restore(&partition, Offset(77));
    let deadline = Instant::now() + PATIENCE;
    loop {
        member
            .client
            .poll_restore(10, &mut |_, record| panic!("offset {} from nowhere", record.offset));
        match member.next() {
            Some(ClientEvent::PartitionError { reason, .. }) => {
                assert!(reason.contains("77"), "{reason}");
                break;
            }
            Some(ClientEvent::RestoreEnd(_)) => panic!("an end where nothing is"),
            _ => {}
        }
        assert!(Instant::now() < deadline, "{:#?}", member.log);
    }
    member.close(Duration::from_secs(5));
}

#[test]
fn closing_with_an_unanswered_assignment_does_not_hang() {
    let broker = broker();
    let input = topic(&broker, 2);
    for handed_out in [false, true] {
        let mut member = Member::new(&broker, &unique("app"), "1");
        member.client.subscribe(std::slice::from_ref(&input));
        let deadline = Instant::now() + PATIENCE;
        while handed_out && !matches!(member.client.next_event(), Some(ClientEvent::Assigned(_))) {
            member.client.wait(Duration::from_millis(20));
            assert!(Instant::now() < deadline, "not assigned");
        }
        let (done, closed) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            member.close(Duration::from_secs(5));
            done.send(())
        });
        closed.recv_timeout(PATIENCE).expect("closing hangs");
    }
}

#[test]
fn a_broker_that_is_not_there_is_told_once_and_closing_is_bounded() {
    // Nothing listens on the discard port.
    let broker = KafkaBroker::new("127.0.0.1:9", &BTreeMap::new()).expect("properties");
    assert!(matches!(
        broker.describe_topic("any", Duration::from_millis(300)),
        Err(BrokerError::Unavailable(_))
    ));
    let mut member = Member::new(&broker, &unique("app"), "1");
    member.client.subscribe(&["any".into()]);
    member.client.init_producer();
    member.client.fetch_committed(&[TopicPartition::new("any", Partition(0))]);
    member.until("connection event", |event| {
        matches!(event, ClientEvent::Connection { down: true, .. }).then_some(())
    });
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let event = member.next();
        assert!(event.is_none(), "{event:?}");
        member.client.wait(Duration::from_millis(50));
    }
    let (done, closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        member.close(Duration::from_secs(2));
        done.send(())
    });
    closed.recv_timeout(PATIENCE).expect("closing hangs");
}

#[test]
fn topics_are_made_described_extended_and_read() {
    let broker = broker();
    let name: Arc<str> = unique("made").into();
    assert_eq!(broker.describe_topic(&name, PATIENCE), Ok(None));
    assert_eq!(
        broker.read_topic(&name, PATIENCE, &mut |_, _| ControlFlow::Continue(())),
        Err(BrokerError::NoSuchTopic(name.to_string()))
    );
    let config = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    let new = NewTopic {
        name: name.clone(),
        partitions: 2,
        replication_factor: None,
        config,
    };
    broker.create_topic(&new, PATIENCE).expect("create");
    broker.create_topic(&new, PATIENCE).expect("it is there already");
    let description = broker.describe_topic(&name, PATIENCE).expect("describe").expect("there");
    assert_eq!((description.partitions, description.replication_factor), (2, 1));
    assert_eq!(description.config["cleanup.policy"], "compact");
    assert!(description.config.contains_key("max.message.bytes"));
    broker.add_partitions(&name, 3, PATIENCE).expect("extend");
    let deadline = Instant::now() + PATIENCE;
    while broker.describe_topic(&name, PATIENCE).expect("describe").expect("there").partitions != 3 {
        assert!(Instant::now() < deadline);
    }
    let wrong = NewTopic {
        name: unique("wrong").into(),
        partitions: 1,
        replication_factor: None,
        config: BTreeMap::from([("no.such".into(), "1".into())]),
    };
    assert!(matches!(broker.create_topic(&wrong, PATIENCE), Err(BrokerError::Refused(_))));

    // Read-committed, to the end, whatever stands at the end.
    let mut producer = broker.producer().expect("producer");
    for partition in 0..3 {
        producer
            .send(OutRecord {
                key: Some(vec![1]),
                ..out(&at(&name, partition), "plain")
            })
            .expect("send");
    }
    producer.flush(PATIENCE).expect("flush");
    let foreign = foreign_transactions(&unique("foreign"));
    foreign.begin_transaction().expect("begin");
    let record = BaseRecord::<str, str>::to(&name).partition(1).key("k").payload("aborted");
    foreign.send(record).map_err(|(error, _)| error).expect("send");
    foreign.flush(PATIENCE).expect("flush");
    foreign.abort_transaction(PATIENCE).expect("abort");
    let mut seen = BTreeSet::new();
    broker
        .read_topic(&name, PATIENCE, &mut |partition, record| {
            seen.insert((
                partition.clone(),
                record.offset.0,
                String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned(),
            ));
            ControlFlow::Continue(())
        })
        .expect("read");
    assert_eq!(seen, (0..3).map(|partition| (at(&name, partition), 0, "plain".to_owned())).collect());
    let positions = broker.group_positions(&unique("nobody"), &name, PATIENCE).expect("positions");
    assert_eq!(positions.len(), 3);
    assert!(
        positions
            .iter()
            .all(|(_, committed, range)| committed.is_none() && range.start == Offset(0) && range.last_stable.0 >= 1)
    );
}

#[test]
fn the_plain_producer_refuses_what_can_never_be_sent() {
    let broker = broker();
    let output = topic(&broker, 1);
    let mut producer = broker.producer().expect("producer");
    let large = OutRecord {
        value: Some(vec![0; 3_000_000]),
        ..out(&at(&output, 0), "")
    };
    assert!(matches!(producer.send(large), Err(BrokerError::Refused(_))));
    producer.send(out(&at(&output, 0), "fine")).expect("send");
    producer.flush(PATIENCE).expect("flush");
}
