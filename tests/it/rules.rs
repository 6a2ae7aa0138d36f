//! The rules of exactly-once, one by one. Each test fails when its rule is taken out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leeway::broker::memory::{CommitStep, Fault, Script};
use leeway::broker::{AbortCause, Broker as _, ClientEvent, CommittedOffset, TopicPartition};
use leeway::epoch::EpochTag;
use leeway::state::store::{Batch, StateStore, TaskRange};
use leeway::stream_thread::{FailPoint, StreamThread, ThreadError};
use leeway::task::progress::{Progress, checkpoint_key};
use leeway_topology::ids::{Offset, Partition};
use leeway_topology::state::{pane_key, progress_key, window_key};

use crate::puppet::{Puppet, Strings};
use crate::world::{APPLICATION, COMMIT_INTERVAL, SESSION_TIMEOUT, TRANSACTION_TIMEOUT, World};

fn running(instance: &crate::world::Instance) -> usize {
    instance.thread.task_states()["running"]
}

#[test]
fn records_are_checked_and_committed_once() {
    let world = World::new(2);
    let mut one = world.start("one");
    world.produce(0, 250);
    world.produce(1, 100);
    world.drain(&mut [&mut one]);
    world.expect_checks(350);
    world.stop(one);
}

#[test]
fn aborted_epoch_is_processed_again() {
    for cause in [AbortCause::Unavailable, AbortCause::TimedOut, AbortCause::Rejoin] {
        let world = World::new(1);
        world.broker.inject(Script::new([
            (CommitStep::SendOffsets, Fault::Refuse(cause)),
            (CommitStep::Commit, Fault::Refuse(cause)),
        ]));
        let mut one = world.start("one");
        world.produce(0, 200);
        world.drain(&mut [&mut one]);
        world.expect_checks(200);
    }
}

#[test]
fn unknown_outcome_that_was_a_commit_is_applied_and_not_repeated() {
    let world = World::new(2);
    world.broker.inject(Script::new([
        (CommitStep::Reply, Fault::LoseReply),
        (CommitStep::Reply, Fault::LoseReply),
    ]));
    let mut one = world.start("one");
    world.produce(0, 200);
    world.produce(1, 200);
    world.drain(&mut [&mut one]);
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    world.expect_checks(500);
}

#[test]
fn unknown_outcome_that_was_no_commit_is_processed_again() {
    for step in [CommitStep::Produce, CommitStep::SendOffsets, CommitStep::Commit] {
        let world = World::new(2);
        world.broker.inject(Script::new([(step, Fault::LoseReply), (step, Fault::LoseReply)]));
        let mut one = world.start("one");
        world.produce(0, 200);
        world.produce(1, 200);
        world.drain(&mut [&mut one]);
        world.expect_checks(400);
    }
}

#[test]
fn zombie_that_slept_through_a_rebalance_commits_nothing() {
    let world = World::new(1);
    let mut one = world.start("one");
    world.run_until(&mut [&mut one], |instances| running(instances[0]) == 1).expect("it runs");
    world.produce(0, 100);
    // Polled into the open epoch, which is not due yet.
    one.thread.step(world.now()).expect("a step");
    world.pass(SESSION_TIMEOUT * 2);
    let mut two = world.start("two");
    world.drain(&mut [&mut two]);
    world.expect_checks(100);
    // The zombie wakes with a due epoch; its client rejoins in the background.
    for _ in 0..200 {
        one.thread.step(world.now()).expect("a step");
        two.thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL);
    }
    world.produce(0, 100);
    world.drain(&mut [&mut one, &mut two]);
    world.expect_checks(200);
}

#[test]
fn zombie_that_sleeps_between_sealing_and_submitting_commits_nothing() {
    let world = Arc::new(World::new(1));
    let successor = Arc::new(Mutex::new(None));
    let mut context = world.context(StateStore::in_memory());
    let (in_hook, slot) = (world.clone(), successor.clone());
    context.fail_point = Some(Arc::new(move |point| {
        let mut slot = slot.lock().expect("not poisoned");
        if point == FailPoint::EpochSealed && slot.is_none() {
            // Its session ends, and another one does its work. The client knows: its heartbeats are answered by "unknown member".
            in_hook.pass(SESSION_TIMEOUT * 2);
            let mut two = in_hook.start("two");
            in_hook.drain(&mut [&mut two]);
            *slot = Some(two);
        }
    }));
    let mut one = world.start_in("one", context);
    world.produce(0, 100);
    world
        .run_until(&mut [&mut one], |_| successor.lock().expect("not poisoned").is_some())
        .expect("it seals");
    let mut two = successor.lock().expect("not poisoned").take().expect("a successor");
    world.expect_checks(100);
    world.produce(0, 100);
    world.drain(&mut [&mut one, &mut two]);
    world.expect_checks(200);
}

/// A running thread with an open epoch of 50 records, and the strings of its client.
fn puppet_with_an_open_epoch(world: &World) -> (StreamThread<Puppet>, Arc<Mutex<Strings>>) {
    let (client, strings) = Puppet::new(world.client("one", 1));
    let context = Arc::new(world.context(StateStore::in_memory()));
    let mut thread = StreamThread::new("one-1".to_owned(), client, context, EpochTag::new("one", 1, 0));
    for _ in 0..1000 {
        if thread.task_states()["running"] == world.partitions() && world.is_drained() {
            world.produce(0, 50);
            thread.step(world.now()).expect("a step");
            return (thread, strings);
        }
        thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL / 10);
    }
    panic!("it does not run");
}

fn expect_that_nothing_is_committed(world: &World, thread: &mut StreamThread<Puppet>) {
    world.pass(COMMIT_INTERVAL);
    thread.step(world.now()).expect("a step");
    assert_eq!(thread.task_states()["running"], 0, "the task is gone");
    world.pass(COMMIT_INTERVAL);
    thread.step(world.now()).expect("a step");
    assert!(world.events().is_empty(), "{:?}", world.events());
}

#[test]
fn another_member_id_at_a_rebalance_means_that_everything_is_lost() {
    let world = World::new(1);
    let (mut thread, strings) = puppet_with_an_open_epoch(&world);
    {
        let mut strings = strings.lock().expect("strings");
        strings.member_id = Some("somebody else".to_owned());
        strings.events.push_back(ClientEvent::Assigned(Vec::new()));
    }
    expect_that_nothing_is_committed(&world, &mut thread);
}

#[test]
fn assignment_that_the_client_knows_to_be_lost_is_not_committed_whatever_the_event_says() {
    for empty_member_id in [true, false] {
        let world = World::new(1);
        let (mut thread, strings) = puppet_with_an_open_epoch(&world);
        {
            let mut strings = strings.lock().expect("strings");
            if empty_member_id {
                strings.member_id = Some(String::new());
            } else {
                strings.lost = true;
            }
            strings.events.push_back(ClientEvent::Revoked {
                partitions: vec![TopicPartition::new("in", Partition(0))],
                lost: false,
            });
        }
        expect_that_nothing_is_committed(&world, &mut thread);
    }
}

#[test]
fn epoch_with_a_lost_partition_is_dropped_whole() {
    let world = World::new(2);
    let (mut thread, strings) = puppet_with_an_open_epoch(&world);
    world.produce(1, 50);
    thread.step(world.now()).expect("a step");
    strings.lock().expect("strings").events.push_back(ClientEvent::Revoked {
        partitions: vec![TopicPartition::new("in", Partition(0))],
        lost: true,
    });
    for _ in 0..10 {
        thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL);
    }
    let events = world.events();
    assert!(events.keys().all(|id| id.contains("/in/1/")), "{events:?}");
    assert_eq!(events.len(), 5 * crate::world::EVENTS_PER_CHECK, "{events:?}");
}

#[test]
fn another_member_id_before_an_epoch_begins_means_that_everything_is_lost() {
    let world = World::new(1);
    let (mut thread, strings) = puppet_with_an_open_epoch(&world);
    for _ in 0..1000 {
        if world.is_drained() {
            break;
        }
        world.pass(COMMIT_INTERVAL);
        thread.step(world.now()).expect("a step");
    }
    world.expect_checks(50);
    strings.lock().expect("strings").member_id = Some("somebody else".to_owned());
    world.produce(0, 50);
    for _ in 0..10 {
        thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL);
    }
    assert_eq!(thread.task_states()["running"], 0, "the task is gone");
    world.expect_checks(50);
}

#[test]
fn restore_waits_for_markers_that_reach_the_changelog_after_the_group() {
    let world = World::new(1);
    let mut one = world.start("one");
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    world
        .broker
        .inject(Script::new([(CommitStep::Commit, Fault::DelayMarkers(SESSION_TIMEOUT * 3))]));
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    // Gone with its disk, while the group's offset says 200 and the changelog's committed end 100.
    drop(one);
    world.pass(SESSION_TIMEOUT / 2);
    let mut two = world.start("two");
    world
        .run_until(&mut [&mut two], |instances| running(instances[0]) == 1)
        .expect("no contradiction between group and changelog");
    world.produce(0, 50);
    world.drain(&mut [&mut two]);
    world.expect_checks(250);
}

#[test]
fn refusal_of_the_same_records_three_times_is_fatal_and_names_where() {
    let world = World::new(1);
    world
        .broker
        .inject(Script::new([(CommitStep::Produce, Fault::Refuse(AbortCause::Refused)); 3]));
    let mut one = world.start("one");
    world.produce(0, 50);
    let error = world.run_until(&mut [&mut one], |_| false).expect_err("poison");
    let ThreadError::Fatal(text) = error else { panic!("{error}") };
    assert!(text.contains("in-0@0") && text.contains("3 times"), "{text}");
}

#[test]
fn fenced_once_goes_on_and_twice_is_fatal() {
    let world = World::new(1);
    world.broker.inject(Script::new([(CommitStep::Produce, Fault::Fence)]));
    let mut one = world.start("one");
    world.produce(0, 50);
    world.drain(&mut [&mut one]);
    world.expect_checks(50);
    world.broker.inject(Script::new([(CommitStep::Produce, Fault::Fence)]));
    world.produce(0, 50);
    let error = world.run_until(&mut [&mut one], |_| false).expect_err("a second writer");
    assert!(error.to_string().contains("copied"), "{error}");
}

#[test]
fn transactions_that_outlive_their_time_out_are_no_sign_of_a_second_instance() {
    let world = World::new(1);
    let mut one = world.start("one");
    let outlived = (CommitStep::Commit, Fault::Wait(TRANSACTION_TIMEOUT * 5 / 4));
    world.broker.inject(Script::new([outlived; 3]));
    world.produce(0, 50);
    world.drain(&mut [&mut one]);
    world.expect_checks(50);
}

#[test]
fn task_waits_for_the_lease_of_another_thread_of_its_process() {
    let world = World::new(1);
    let store = StateStore::in_memory();
    let held = store
        .lease(TaskRange {
            store: "windows-in".into(),
            partition: Partition(0),
        })
        .expect("nobody holds it");
    let mut one = world.start_on("one", 1, 0, store);
    world.produce(0, 50);
    for _ in 0..100 {
        one.thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL);
    }
    assert_eq!(one.thread.task_states()["created"], 1);
    assert!(world.events().is_empty());
    drop(held);
    world.drain(&mut [&mut one]);
    world.expect_checks(50);
}

#[test]
fn crash_between_commit_and_store_replays_the_changelog_and_loses_nothing() {
    let world = World::new(1);
    let store = StateStore::in_memory();
    let mut one = world.start_on("one", 1, 0, store.clone());
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    // The transaction is through, the reply never comes: as if killed before the WriteBatch.
    world.broker.inject(Script::new([(CommitStep::Reply, Fault::Wait(Duration::MAX))]));
    world.produce(0, 100);
    world.run_until(&mut [&mut one], |_| world.is_drained()).expect("committed on the broker");
    drop(one);
    let mut again = world.start_on("one", 1, 1, store);
    world.pass(SESSION_TIMEOUT * 2);
    world.produce(0, 50);
    world.drain(&mut [&mut again]);
    world.expect_checks(250);
}

/// Commits so many epochs of a record for each partition.
fn commit_epochs(world: &World, epochs: usize) {
    let mut instance = world.start("first");
    for _ in 0..epochs {
        (0..world.partitions()).for_each(|partition| world.produce(partition as i32, 1));
        world.drain(&mut [&mut instance]);
    }
    world.stop(instance);
}

/// So many epochs make a changelog that takes long to restore.
const MANY_EPOCHS: usize = 500;

#[test]
fn two_long_restores_of_a_thread_begin_at_once_and_the_first_task_runs_before_the_last_begins() {
    let world = World::new(6);
    commit_epochs(&world, MANY_EPOCHS);
    let mut second = world.start("second");
    let (mut began, mut ran_meanwhile) = (0, false);
    world
        .run_until(&mut [&mut second], |instances| {
            let states = instances[0].thread.task_states();
            if began == 0 {
                began = states["restoring"];
            }
            ran_meanwhile |= states["created"] > 0 && states["running"] > 0;
            states["running"] == 6
        })
        .expect("restored");
    assert_eq!((began, ran_meanwhile), (2, true));
    world.expect_checks(6 * MANY_EPOCHS as u64);
}

#[test]
fn short_restores_are_all_under_way_at_once() {
    let world = World::new(6);
    commit_epochs(&world, 20);
    let mut second = world.start("second");
    world
        .run_until(&mut [&mut second], |instances| instances[0].thread.task_states()["restoring"] == 6)
        .expect("all at once");
}

#[test]
fn restores_whose_changelogs_say_nothing_do_not_keep_the_others_waiting() {
    let world = World::new(4);
    commit_epochs(&world, MANY_EPOCHS);
    let (client, strings) = Puppet::new(world.client("second", 1));
    strings.lock().expect("strings").silent = (0..2)
        .map(|partition| TopicPartition::new("app-windows-in-changelog", Partition(partition)))
        .collect();
    let context = Arc::new(world.context(StateStore::in_memory()));
    let metrics = context.metrics.clone();
    let remaining = |partition: u32| {
        let name = format!("leeway_restore_remaining{{partition=\"{partition}\",topic=\"in\"}} ");
        let text = metrics.render().expect("metrics");
        text.lines()
            .find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok())
            .unwrap_or_default()
    };
    let mut thread = StreamThread::new("second-1".to_owned(), client, context, EpochTag::new("second", 1, 0));
    let mut told = 0.0;
    for _ in 0..1000 {
        thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL / 10);
        let states = thread.task_states();
        if states["created"] == 2 {
            told = remaining(3);
        }
        if states["running"] == 2 {
            assert!(told > 1000.0, "what waits says how much it will read: {told}");
            return;
        }
    }
    panic!("they wait: {:?}", thread.task_states());
}

/// A store after 100 records whose value of `key` somebody changed or removed.
fn store_after_100_records(world: &World, key: &[u8], change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> StateStore {
    let store = StateStore::in_memory();
    let mut one = world.start_on("one", 1, 0, store.clone());
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    world.stop(one);
    let range = TaskRange {
        store: "windows-in".into(),
        partition: Partition(0),
    };
    let lease = store.lease(range).expect("free");
    let changed = change(lease.get(key).expect("readable").expect("a value"));
    let mut batch = Batch::new();
    batch.put(&lease, key, changed.as_deref());
    store.write(batch).expect("written");
    drop(lease);
    store
}

#[test]
fn store_that_contradicts_the_group_is_restored_from_the_changelogs_start() {
    let world = World::new(1);
    let store = store_after_100_records(&world, &progress_key(), |stored| {
        let mut progress = Progress::from_bytes(&stored).expect("progress");
        progress.next_offset = Offset(progress.next_offset.0 - 10);
        Some(progress.to_bytes())
    });
    let mut again = world.start_on("one", 1, 1, store);
    world.produce(0, 50);
    world.drain(&mut [&mut again]);
    world.expect_checks(150);
}

#[test]
fn damaged_store_is_restored_from_the_changelogs_start() {
    for key in [progress_key(), checkpoint_key(), window_key("default", "")] {
        let world = World::new(1);
        let store = store_after_100_records(&world, &key, |_| Some(vec![0xFF]));
        let mut again = world.start_on("one", 1, 1, store);
        world.produce(0, 50);
        world.drain(&mut [&mut again]);
        world.expect_checks(150);
    }
}

#[test]
fn partitions_move_to_a_second_instance_and_back_without_a_gap() {
    let world = World::new(4);
    let mut one = world.start("one");
    for partition in 0..4 {
        world.produce(partition, 105);
    }
    world.drain(&mut [&mut one]);
    let mut two = world.start("two");
    world
        .run_until(&mut [&mut one, &mut two], |instances| {
            running(instances[0]) == 2 && running(instances[1]) == 2
        })
        .expect("shared");
    for partition in 0..4 {
        world.produce(partition, 105);
    }
    world.drain(&mut [&mut one, &mut two]);
    world.stop(one);
    for partition in 0..4 {
        world.produce(partition, 40);
    }
    world.drain(&mut [&mut two]);
    world.expect_checks(4 * 250);
}

#[test]
fn revocation_that_a_loss_overtook_takes_nothing_away_later() {
    let world = World::new(2);
    let mut one = world.start("one");
    world.run_until(&mut [&mut one], |instances| running(instances[0]) == 2).expect("it runs");
    // Its commit takes long, so the revocation that the second instance brings about has to wait.
    world.broker.inject(Script::new([(CommitStep::Reply, Fault::Wait(SESSION_TIMEOUT * 2))]));
    world.produce(0, 50);
    world.produce(1, 50);
    let mut two = world.start("two");
    for _ in 0..50 {
        one.thread.step(world.now()).expect("a step");
        two.thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL);
    }
    assert_eq!((running(&one), running(&two)), (2, 0), "it waits for the commit");
    // Then everything is lost, and comes back when the second one leaves.
    world.pass(SESSION_TIMEOUT * 2);
    world
        .run_until(&mut [&mut two], |instances| running(instances[0]) == 2)
        .expect("the second one has all");
    world.stop(two);
    world
        .run_until(&mut [&mut one], |instances| running(instances[0]) == 2)
        .expect("all is back");
    for _ in 0..600 {
        one.thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL);
    }
    assert_eq!(running(&one), 2, "nobody wants them back");
    world.produce(0, 50);
    world.produce(1, 50);
    world.drain(&mut [&mut one]);
    world.expect_checks(200);
}

#[test]
fn store_that_lost_a_key_is_restored_from_the_changelogs_start() {
    for key in [
        progress_key(),
        checkpoint_key(),
        window_key("default", ""),
        pane_key("default", "", "", 3),
    ] {
        let world = World::new(1);
        let store = store_after_100_records(&world, &key, |_| None);
        let mut again = world.start_on("one", 1, 1, store);
        world.produce(0, 50);
        world.drain(&mut [&mut again]);
        world.expect_checks(150);
    }
}

#[test]
fn offset_of_another_consumer_is_adopted_also_when_the_first_epoch_is_aborted() {
    let world = World::new(1);
    world.produce(0, 100);
    let there = CommittedOffset {
        offset: Offset(40),
        metadata: String::new(),
    };
    world.broker.set_offset(APPLICATION, &TopicPartition::new("in", Partition(0)), there);
    world
        .broker
        .inject(Script::new([(CommitStep::Commit, Fault::Refuse(AbortCause::Unavailable))]));
    let mut one = world.start("one");
    let changelog_end = || {
        world
            .broker
            .group_positions(APPLICATION, "app-windows-in-changelog", Duration::ZERO)
            .expect("a topic")[0]
            .2
            .high_watermark
    };
    world
        .run_until(&mut [&mut one], |_| changelog_end() > Offset(0))
        .expect("it tries to commit");
    // Its disk is lost; the aborted records have used up offsets of the changelog.
    drop(one);
    world.pass(SESSION_TIMEOUT * 2);
    let mut again = world.start("two");
    world.produce(0, 40);
    world.drain(&mut [&mut again]);
    world.expect_checks(100);
}

#[test]
fn partitions_given_back_without_an_outcome_do_not_repeat_what_the_others_committed() {
    let world = World::new(2);
    let mut one = world.start("one");
    world.run_until(&mut [&mut one], |instances| running(instances[0]) == 2).expect("it runs");
    // Committed on the broker, but the reply takes longer than a revocation may wait.
    world
        .broker
        .inject(Script::new([(CommitStep::Reply, Fault::Wait(Duration::from_secs(30)))]));
    for _ in 0..3 {
        world.produce(0, 55);
        world.produce(1, 55);
        for _ in 0..3 {
            one.thread.step(world.now()).expect("a step");
            world.pass(COMMIT_INTERVAL);
        }
    }
    let mut two = world.start("two");
    for _ in 0..350 {
        one.thread.step(world.now()).expect("a step");
        two.thread.step(world.now()).expect("a step");
        world.pass(COMMIT_INTERVAL);
    }
    world.drain(&mut [&mut one, &mut two]);
    world.expect_checks(320);
}
