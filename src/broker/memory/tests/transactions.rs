//! Transactions: visibility, fencing, zombies, unknown outcomes.

use std::time::Duration;

use super::*;
use crate::broker::AbortCause;
use crate::broker::memory::{CommitStep, Fault, Script};

/// A world with one member whose transactions fail as said.
fn failing(faults: &[(CommitStep, Fault)]) -> (World, MemoryClient) {
    let world = World::new(1);
    let client = world.member("a");
    world.broker.inject(Script::new(faults.iter().copied()));
    (world, client)
}

fn offsets_answer(client: &mut MemoryClient) -> Option<Option<CommittedOffset>> {
    let answers = events(client).into_iter().filter_map(|event| match event {
        ClientEvent::CommittedOffsets(offsets) => offsets.into_iter().next().map(|(_, offset)| offset),
        _ => None,
    });
    answers.last()
}

#[test]
fn committed_records_are_seen_and_their_marker_uses_up_an_offset() {
    let (world, mut client) = failing(&[]);
    let first = epoch(&mut client, 1, &["x", "y"], 5);
    assert_eq!(commit(&mut client, first), committed(&[(tp("out", 0), 2)]));
    let second = epoch(&mut client, 2, &["z"], 6);
    assert_eq!(
        commit(&mut client, second),
        committed(&[(tp("out", 0), 4)]),
        "offset 2 is the first marker"
    );
    assert_eq!(world.visible("out"), [(0, "x".to_owned()), (1, "y".to_owned()), (3, "z".to_owned())]);
    assert_eq!(
        world.range("out"),
        LogRange {
            start: Offset(0),
            high_watermark: Offset(5),
            last_stable: Offset(5)
        }
    );
    assert_eq!(world.committed(0), Some(at(6, "epoch 2")));
}

#[test]
fn read_committed_reader_never_sees_open_or_aborted_records() {
    let (world, mut client) = failing(&[
        (CommitStep::Commit, Fault::Wait(Duration::from_secs(5))),
        (CommitStep::Commit, Fault::Refuse(AbortCause::Unavailable)),
    ]);
    let mut reader = world.reader("out");
    world.send("out", &["before"]);
    let open = epoch(&mut client, 1, &["open"], 1);
    client.commit(open);
    world.send("out", &["after"]);
    assert_eq!(outcome(&mut client), None);
    assert_eq!(
        world.visible("out"),
        [(0, "before".to_owned())],
        "what follows an open transaction waits for it"
    );
    assert_eq!(poll(&mut reader, &tp("out", 0)), ["before"]);
    assert_eq!(
        world.range("out"),
        LogRange {
            start: Offset(0),
            high_watermark: Offset(3),
            last_stable: Offset(1)
        }
    );
    world.pass(Duration::from_secs(5));
    assert_eq!(outcome(&mut client), Some(committed(&[(tp("out", 0), 2)])));
    let aborted = epoch(&mut client, 2, &["aborted"], 2);
    assert!(matches!(
        commit(&mut client, aborted),
        CommitOutcome::Aborted {
            cause: AbortCause::Unavailable,
            ..
        }
    ));
    world.send("out", &["last"]);
    assert_eq!(
        world.visible("out"),
        [
            (0, "before".to_owned()),
            (1, "open".to_owned()),
            (2, "after".to_owned()),
            (6, "last".to_owned())
        ]
    );
    assert_eq!(poll(&mut reader, &tp("out", 0)), ["open", "after", "last"]);
    assert_eq!(world.committed(0), Some(at(1, "epoch 1")));
    let again = epoch(&mut client, 3, &["again"], 2);
    assert_eq!(
        commit(&mut client, again),
        committed(&[(tp("out", 0), 8)]),
        "the producer is ready after an abort"
    );
}

#[test]
fn new_producer_of_the_same_transactional_id_aborts_and_fences_the_old_one() {
    let (world, mut old) = failing(&[(CommitStep::Commit, Fault::Wait(Duration::from_secs(1)))]);
    let open = epoch(&mut old, 1, &["old"], 1);
    old.commit(open);
    let mut new = world.client("a");
    new.init_producer();
    assert!(matches!(events(&mut new)[..], [ClientEvent::ProducerReady]));
    assert_eq!(world.range("out").last_stable, Offset(2), "the open transaction is aborted at once");
    world.pass(Duration::from_secs(1));
    assert!(matches!(outcome(&mut old), Some(CommitOutcome::Fenced { .. })));
    assert_eq!((world.visible("out"), world.committed(0)), (vec![], None));
    let later = epoch(&mut old, 2, &["later"], 2);
    assert!(
        matches!(commit(&mut old, later), CommitOutcome::Unknown { .. }),
        "a fenced producer has to be made anew"
    );
}

#[test]
fn zombie_with_an_old_generation_commits_nothing() {
    let world = World::new(2);
    let mut old = world.member("a");
    let before = epoch(&mut old, 1, &["zombie"], 1);
    let mut new = world.member("b");
    settle(&mut [&mut old, &mut new]);
    let CommitOutcome::Aborted {
        reason,
        cause: AbortCause::Rejoin,
    } = commit(&mut old, before)
    else {
        panic!("committed")
    };
    assert!(reason.contains("ILLEGAL_GENERATION"), "{reason}");
    assert_eq!((world.visible("out"), world.committed(0)), (vec![], None));
    let now = epoch(&mut old, 2, &["member"], 1);
    assert_eq!(commit(&mut old, now), committed(&[(tp("out", 0), 3)]));
}

#[test]
fn zombie_whose_session_expired_commits_nothing() {
    let (world, mut zombie) = failing(&[]);
    let before = epoch(&mut zombie, 1, &["zombie"], 1);
    world.pass(SESSION_TIMEOUT + Duration::from_millis(1));
    let CommitOutcome::Aborted {
        reason,
        cause: AbortCause::Rejoin,
    } = commit(&mut zombie, before)
    else {
        panic!("committed")
    };
    assert!(reason.contains("UNKNOWN_MEMBER_ID"), "{reason}");
    assert_eq!((world.visible("out"), world.committed(0)), (vec![], None));
}

#[test]
fn metadata_that_names_no_member_goes_unchecked_as_in_kafka() {
    let (world, mut client) = failing(&[]);
    let mut stranger = epoch(&mut client, 1, &["x"], 1);
    stranger.group.generation = -1;
    assert!(matches!(commit(&mut client, stranger), CommitOutcome::Committed { .. }));
    assert_eq!(world.visible("out").len(), 1);
}

#[test]
fn stable_offsets_wait_for_an_open_transaction() {
    let (world, mut client) = failing(&[
        (CommitStep::Reply, Fault::Wait(Duration::ZERO)),
        (CommitStep::Commit, Fault::Wait(Duration::from_secs(5))),
    ]);
    let first = epoch(&mut client, 1, &[], 3);
    assert_eq!(commit(&mut client, first), committed(&[]));
    let second = epoch(&mut client, 2, &[], 7);
    client.commit(second);
    let mut other = world.client("b");
    other.fetch_committed(&[tp("in", 0)]);
    assert_eq!(offsets_answer(&mut other), None, "the offset is pending");
    world.pass(Duration::from_secs(5));
    assert_eq!(offsets_answer(&mut other), None, "nobody asked for the end yet");
    assert_eq!(outcome(&mut client), Some(committed(&[])));
    assert_eq!(offsets_answer(&mut other), Some(Some(at(7, "epoch 2"))));
}

#[test]
fn transaction_past_its_timeout_is_aborted_and_its_producer_fenced() {
    let (world, mut client) = failing(&[(CommitStep::Commit, Fault::Wait(TRANSACTION_TIMEOUT * 2))]);
    let slow = epoch(&mut client, 1, &["slow"], 1);
    client.commit(slow);
    world.pass(TRANSACTION_TIMEOUT);
    assert_eq!(world.range("out").last_stable, Offset(0));
    world.pass(Duration::from_millis(1));
    assert_eq!(world.range("out").last_stable, Offset(2));
    assert_eq!(outcome(&mut client), None);
    world.pass(TRANSACTION_TIMEOUT);
    assert!(matches!(outcome(&mut client), Some(CommitOutcome::Fenced { .. })));
    assert_eq!((world.visible("out"), world.committed(0)), (vec![], None));
}

#[test]
fn lost_reply_after_the_commit_is_unknown_and_committed() {
    let (world, mut client) = failing(&[(CommitStep::Reply, Fault::LoseReply)]);
    let lost = epoch(&mut client, 1, &["x"], 1);
    assert!(matches!(commit(&mut client, lost), CommitOutcome::Unknown { .. }));
    client.init_producer();
    client.fetch_committed(&[tp("in", 0)]);
    assert_eq!(offsets_answer(&mut client), Some(Some(at(1, "epoch 1"))));
    assert_eq!(world.visible("out"), [(0, "x".to_owned())]);
}

#[test]
fn lost_reply_before_the_commit_is_unknown_and_aborted_by_the_next_producer() {
    for step in [CommitStep::Produce, CommitStep::SendOffsets, CommitStep::Commit] {
        let (world, mut client) = failing(&[(step, Fault::LoseReply)]);
        let lost = epoch(&mut client, 1, &["x"], 1);
        assert!(matches!(commit(&mut client, lost), CommitOutcome::Unknown { .. }), "{step:?}");
        client.fetch_committed(&[tp("in", 0)]);
        let waits = step == CommitStep::Commit;
        assert_eq!(
            offsets_answer(&mut client),
            (!waits).then_some(None),
            "{step:?}: pending only once the offsets were sent"
        );
        client.init_producer();
        client.fetch_committed(&[tp("in", 0)]);
        assert_eq!(offsets_answer(&mut client), Some(None), "{step:?}");
        assert_eq!(world.visible("out"), vec![], "{step:?}");
        let again = epoch(&mut client, 2, &["y"], 1);
        assert!(matches!(commit(&mut client, again), CommitOutcome::Committed { .. }), "{step:?}");
    }
}

#[test]
fn fenced_before_the_commit_is_aborted_and_after_it_committed() {
    for (step, seen) in [(CommitStep::Commit, 0), (CommitStep::Reply, 1)] {
        let (world, mut client) = failing(&[(step, Fault::Fence)]);
        let fenced = epoch(&mut client, 1, &["x"], 1);
        assert!(matches!(commit(&mut client, fenced), CommitOutcome::Fenced { .. }), "{step:?}");
        assert_eq!((world.visible("out").len(), world.committed(0).is_some()), (seen, seen == 1), "{step:?}");
    }
}

#[test]
fn late_markers_show_the_offsets_before_the_records_and_hold_the_next_transaction() {
    let (world, mut client) = failing(&[(CommitStep::Commit, Fault::DelayMarkers(Duration::from_secs(20)))]);
    let late = epoch(&mut client, 1, &["late"], 1);
    assert_eq!(commit(&mut client, late), committed(&[(tp("out", 0), 1)]));
    assert_eq!((world.visible("out"), world.committed(0)), (vec![], Some(at(1, "epoch 1"))));
    let next = epoch(&mut client, 2, &["next"], 2);
    client.commit(next);
    assert_eq!(outcome(&mut client), None);
    let mut new = world.client("a");
    new.init_producer();
    assert!(events(&mut new).is_empty(), "a decided transaction is neither aborted nor fenced");
    world.pass(Duration::from_secs(20));
    assert_eq!(outcome(&mut client), Some(committed(&[(tp("out", 0), 3)])));
    assert_eq!(world.visible("out"), [(0, "late".to_owned()), (2, "next".to_owned())]);
    assert!(matches!(events(&mut new)[..], [ClientEvent::ProducerReady]));
}

#[test]
fn refusal_while_late_markers_are_due_leaves_the_decided_transaction_alone() {
    let faults = [
        (CommitStep::Commit, Fault::DelayMarkers(Duration::from_secs(1))),
        (CommitStep::Produce, Fault::Refuse(AbortCause::Unavailable)),
    ];
    let (world, mut client) = failing(&faults);
    let late = epoch(&mut client, 1, &["late"], 1);
    commit(&mut client, late);
    let refused = epoch(&mut client, 2, &["refused"], 2);
    assert!(matches!(commit(&mut client, refused), CommitOutcome::Aborted { .. }));
    world.pass(Duration::from_secs(1));
    assert_eq!(
        (world.visible("out"), world.committed(0)),
        (vec![(0, "late".to_owned())], Some(at(1, "epoch 1")))
    );
}

#[test]
fn record_too_large_for_its_topic_is_refused_and_the_transaction_aborted() {
    let (world, mut client) = failing(&[]);
    world.create("small", 1, &[("max.message.bytes", "100")]);
    let mut large = epoch(&mut client, 1, &["x"], 1);
    large.records.push(record("small", &"y".repeat(31)));
    let CommitOutcome::Aborted {
        reason,
        cause: AbortCause::Refused,
    } = commit(&mut client, large)
    else {
        panic!("committed")
    };
    assert!(reason.contains("max.message.bytes=100"), "{reason}");
    assert_eq!((world.visible("out"), world.committed(0)), (vec![], None));
    let mut fits = epoch(&mut client, 2, &[], 1);
    fits.records.push(record("small", &"y".repeat(30)));
    assert!(matches!(commit(&mut client, fits), CommitOutcome::Committed { .. }));
    let mut nowhere = epoch(&mut client, 3, &[], 2);
    nowhere.records.push(record("nowhere", "z"));
    assert!(
        matches!(
            commit(&mut client, nowhere),
            CommitOutcome::Aborted {
                cause: AbortCause::Refused,
                ..
            }
        ),
        "topics are never created by use"
    );
}

#[test]
fn scattered_markers_reach_each_log_and_the_group_at_moments_of_their_own() {
    let (world, mut client) = failing(&[(CommitStep::Commit, Fault::ScatterMarkers(Duration::from_secs(8)))]);
    let targets = ["out", "more", "most"];
    world.create("more", 1, &[]);
    world.create("most", 1, &[]);
    let mut scattered = epoch(&mut client, 1, &["a"], 1);
    scattered.records.extend([record("more", "b"), record("most", "c")]);
    assert!(matches!(commit(&mut client, scattered), CommitOutcome::Committed { .. }));
    let mut shown_at = BTreeMap::new();
    for second in 0..=8 {
        for topic in targets {
            if !world.visible(topic).is_empty() {
                shown_at.entry(topic).or_insert(second);
            }
        }
        if world.committed(0).is_some() {
            shown_at.entry("the group").or_insert(second);
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(shown_at.len(), 4, "all of them within the time: {shown_at:?}");
    let moments: std::collections::BTreeSet<_> = shown_at.values().collect();
    assert!(moments.len() > 1, "not together: {shown_at:?}");
    let next = epoch(&mut client, 2, &[], 2);
    assert!(matches!(commit(&mut client, next), CommitOutcome::Committed { .. }));
}

#[test]
fn request_that_arrives_twice_changes_nothing() {
    for step in [CommitStep::Produce, CommitStep::SendOffsets, CommitStep::Commit] {
        let (world, mut client) = failing(&[(step, Fault::Duplicate)]);
        let twice = epoch(&mut client, 1, &["once"], 1);
        assert_eq!(commit(&mut client, twice), committed(&[(tp("out", 0), 1)]), "{step:?}");
        assert_eq!(
            (world.visible("out"), world.committed(0)),
            (vec![(0, "once".to_owned())], Some(at(1, "epoch 1"))),
            "{step:?}"
        );
        assert_eq!(world.range("out").high_watermark, Offset(2), "{step:?}: one record, one marker");
    }
}

#[test]
fn stray_request_to_commit_is_obeyed_unless_its_producer_was_made_anew() {
    for made_anew in [false, true] {
        let (world, mut client) = failing(&[(CommitStep::Commit, Fault::Stray(Duration::from_secs(5)))]);
        let stray = epoch(&mut client, 1, &["stray"], 1);
        assert!(matches!(commit(&mut client, stray), CommitOutcome::Unknown { .. }));
        if made_anew {
            client.init_producer();
        }
        world.pass(Duration::from_secs(4));
        assert_eq!((world.visible("out").len(), world.committed(0)), (0, None));
        world.pass(Duration::from_secs(1));
        let seen = usize::from(!made_anew);
        assert_eq!(
            (world.visible("out").len(), world.committed(0).is_some()),
            (seen, seen == 1),
            "made anew: {made_anew}"
        );
    }
}

#[test]
fn coordinator_aborts_what_is_past_its_timeout_only_when_it_looks() {
    let (mut world, mut client) = failing(&[(CommitStep::Commit, Fault::Wait(Duration::MAX))]);
    world.broker = world.broker.with_transaction_sweep(Duration::from_secs(30));
    world.visible("out");
    world.pass(Duration::from_secs(1));
    let hung = epoch(&mut client, 1, &["hung"], 1);
    client.commit(hung);
    world.send("out", &["after"]);
    world.pass(TRANSACTION_TIMEOUT * 2);
    assert_eq!(world.visible("out"), [], "it holds readers back");
    world.pass(Duration::from_secs(30) - TRANSACTION_TIMEOUT * 2);
    assert_eq!(world.visible("out"), [(1, "after".to_owned())]);
}
