//! Members come and go, and a client is always closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use leeway::broker::kafka::KafkaBroker;
use leeway::broker::{AbortCause, Broker, BrokerError, ClientEvent, CommitOutcome, StreamClient, TopicPartition};
use leeway_topology::ids::{Offset, Partition};

use super::{Member, PATIENCE, at, broker, broker_with, fill, offsets, out, topic, unique};

/// The second one joins, until it has two of the first one's partitions.
fn share(input: &Arc<str>, first: &mut Member, second: &mut Member) {
    second.client.subscribe(std::slice::from_ref(input));
    let deadline = Instant::now() + PATIENCE;
    while second.owned.len() < 2 {
        if first.next().is_none() && second.next().is_none() {
            second.client.wait(Duration::from_millis(5));
        }
        assert!(Instant::now() < deadline, "first {:#?} second {:#?}", first.log, second.log);
    }
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
    share(&input, &mut first, &mut second);
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

/// The broker bumps epochs when it assigns anew. What a member may commit with an old one is what it has had since.
#[test]
fn member_of_the_consumer_protocol_commits_nothing_for_a_partition_that_went_to_another_one() {
    let broker = broker_with(&[("group.protocol", "consumer")]);
    let (input, output) = (topic(&broker, 4), topic(&broker, 1));
    let application_id = unique("app");
    let mut first = Member::new(&broker, &application_id, "1");
    first.ready();
    first.join(&input, 4);
    let (old, before) = (first.client.group_metadata(), first.owned.clone());
    let mut second = Member::new(&broker, &application_id, "2");
    second.ready();
    share(&input, &mut first, &mut second);
    assert!(first.owned.is_disjoint(&second.owned));
    let moved = before.intersection(&second.owned).next().expect("one moved").clone();
    let outcome = first.commit(1, vec![out(&at(&output, 0), "zombie")], &[(&moved, 50, "old")], old);
    let refused = matches!(
        &outcome,
        CommitOutcome::Aborted {
            cause: AbortCause::Rejoin,
            ..
        }
    );
    assert!(refused, "{outcome:?}");
    let group = second.client.group_metadata();
    let outcome = second.commit(1, vec![out(&at(&output, 0), "member")], &[(&moved, 60, "new")], group);
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    // Nobody can list them by the classic protocol; the broker sees to it all the same.
    let refused = broker.delete_group(&application_id, PATIENCE);
    assert!(matches!(&refused, Err(BrokerError::Refused(_))), "{refused:?}");
    first.close(Duration::from_secs(5));
    second.close(Duration::from_secs(5));
}

#[test]
fn what_brokers_decide_is_refused_with_the_consumer_protocol_before_anything_is_asked() {
    for name in ["session.timeout.ms", "heartbeat.interval.ms"] {
        let properties = [("group.protocol", "consumer"), (name, "6000")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let Err(refused) = KafkaBroker::new("127.0.0.1:9", &properties.into()) else {
            panic!("{name} was taken");
        };
        assert!(
            refused.to_string().contains(name) && refused.to_string().contains("group.consumer.*"),
            "{refused}"
        );
    }
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
fn group_with_members_is_not_deleted_and_an_empty_one_is_with_its_offsets() {
    let broker = broker();
    let input = topic(&broker, 1);
    let application_id = unique("app");
    assert_eq!(
        broker.group_members(&application_id, PATIENCE),
        Ok(Vec::new()),
        "there is no such group yet"
    );
    assert_eq!(broker.delete_group(&application_id, PATIENCE), Ok(false));
    let mut member = Member::new(&broker, &application_id, "1");
    member.ready();
    member.join(&input, 1);
    let group = member.client.group_metadata();
    let outcome = member.commit(1, Vec::new(), &[(&at(&input, 0), 7, "mine")], group);
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    let client_id = format!("{application_id}-StreamThread-1");
    assert_eq!(broker.group_members(&application_id, PATIENCE), Ok(vec![client_id]));
    let refused = broker.delete_group(&application_id, PATIENCE);
    assert!(matches!(&refused, Err(BrokerError::Refused(_))), "{refused:?}");
    member.close(Duration::from_secs(5));
    let deadline = Instant::now() + PATIENCE;
    while broker.group_members(&application_id, PATIENCE) != Ok(Vec::new()) {
        assert!(Instant::now() < deadline, "a client that was closed stays a member");
    }
    let committed = |broker: &KafkaBroker| broker.group_positions(&application_id, &input, PATIENCE).expect("positions")[0].1.clone();
    assert_eq!(committed(&broker).map(|committed| committed.offset), Some(Offset(7)));
    assert_eq!(broker.delete_group(&application_id, PATIENCE), Ok(true));
    assert_eq!(committed(&broker), None);
    assert_eq!(broker.delete_topic(&input, PATIENCE), Ok(true));
    let deadline = Instant::now() + PATIENCE;
    while broker.describe_topic(&input, PATIENCE).expect("described").is_some() {
        assert!(Instant::now() < deadline, "a topic that was deleted stays");
    }
    assert_eq!(broker.delete_topic(&input, PATIENCE), Ok(false));
}
