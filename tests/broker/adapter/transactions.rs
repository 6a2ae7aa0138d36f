//! An epoch is one transaction, and each way in which it may end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leeway::broker::kafka::TransactionStep;
use leeway::broker::{AbortCause, ClientEvent, CommitOutcome, CommittedOffset, OutRecord, StreamClient};
use leeway_topology::ids::Offset;

use super::{Member, PATIENCE, at, broker, broker_with, out, topic, unique};

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
fn a_producer_that_hangs_is_given_up_and_fenced_by_the_next_one() {
    let (release, held) = channel();
    let held = Mutex::new(Some(held));
    let (returned, old) = channel();
    let broker = broker().with_hook(move |step| {
        let held = held.lock().expect("not poisoned").take_if(|_| step == TransactionStep::OffsetsSent);
        if let Some(held) = held {
            assert!(Receiver::<()>::recv(&held).is_err(), "released by dropping the other end");
            returned.send(()).expect("somebody waits");
        }
    });
    let (input, output) = (topic(&broker, 1), topic(&broker, 1));
    let mut member = Member::with(&broker, &unique("app"), "1", Duration::from_secs(2));
    member.ready();
    member.join(&input, 1);
    let group = member.client.group_metadata();
    let outcome = member.commit(1, vec![out(&at(&output, 0), "hung")], &[(&at(&input, 0), 1, "one")], group.clone());
    assert!(matches!(outcome, CommitOutcome::Unknown { .. }), "{outcome:?}");
    member.ready();
    assert_eq!(member.committed(&[at(&input, 0)]), [(at(&input, 0), None)]);
    // The old producer goes on, too late.
    drop(release);
    old.recv_timeout(PATIENCE).expect("it returns");
    let outcome = member.commit(2, vec![out(&at(&output, 0), "kept")], &[(&at(&input, 0), 2, "two")], group);
    assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    let seen = member.restore(&at(&output, 0), 0);
    assert_eq!(seen.iter().filter_map(|seen| seen.value.as_deref()).collect::<Vec<_>>(), ["kept"]);
    member.close(Duration::from_secs(5));
}

#[test]
fn making_a_producer_that_hangs_is_given_up_and_done_again() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(Some(held));
    let broker = broker().with_hook(move |step| {
        let held = held.lock().expect("not poisoned").take_if(|_| step == TransactionStep::Starting);
        if let Some(held) = held {
            assert!(held.recv().is_err(), "released by dropping the other end");
        }
    });
    let (input, output) = (topic(&broker, 1), topic(&broker, 1));
    let mut member = Member::with(&broker, &unique("app"), "1", Duration::from_secs(2));
    member.ready();
    member.join(&input, 1);
    let group = member.client.group_metadata();
    // The one that hung goes on, and finds that nobody waits for it: it must not fence the one that came after it.
    drop(release);
    for epoch in 1..=20 {
        let outcome = member.commit(epoch, vec![out(&at(&output, 0), "kept")], &[(&at(&input, 0), 1, "")], group.clone());
        assert!(matches!(outcome, CommitOutcome::Committed { .. }), "{outcome:?}");
    }
    member.close(Duration::from_secs(5));
}

#[test]
fn producers_that_hang_again_and_again_end_the_client_instead_of_piling_up() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let broker = broker().with_hook(move |step| {
        if step == TransactionStep::Starting {
            assert!(held.lock().expect("not poisoned").recv().is_err(), "released by dropping the other end");
        }
    });
    let mut member = Member::with(&broker, &unique("app"), "1", Duration::from_millis(100));
    member.client.init_producer();
    let reason = member.until("the end", |event| match event {
        ClientEvent::Fatal { reason } => Some(reason.clone()),
        ClientEvent::ProducerReady => panic!("it was held"),
        _ => None,
    });
    assert!(reason.contains("did not return from making a producer, 3 times"), "{reason}");
    drop(release);
    member.close(Duration::from_secs(5));
}
