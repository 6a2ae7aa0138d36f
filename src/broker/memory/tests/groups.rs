//! Groups: cooperative rebalances, lost members, one owner at a time.

use std::collections::BTreeSet;

use super::*;

#[test]
fn single_member_gets_everything_at_once() {
    let world = World::new(3);
    let mut client = world.client("a");
    assert!(!client.group_metadata().is_member());
    client.subscribe(&["in".into()]);
    assert_eq!(rebalances(&mut client), ["assigned [in-0 in-1 in-2]"]);
    assert!(client.group_metadata().is_member());
    assert_eq!(rebalances(&mut client), [""; 0]);
}

#[test]
fn second_member_gets_its_share_only_after_the_first_gave_it_back_and_the_first_goes_on_meanwhile() {
    let world = World::new(4);
    world.send("in", &["a"]);
    let mut first = world.member("a");
    let generation = first.group_metadata().generation;
    let mut second = world.client("b");
    second.subscribe(&["in".into()]);
    assert_eq!(rebalances(&mut second), [""; 0], "the rebalance waits for the first");
    assert_eq!(rebalances(&mut first), ["revoked [in-2 in-3]"], "it keeps what it can keep");
    assert_eq!(first.group_metadata().generation, generation + 1);
    assert!(!first.assignment_lost());
    assert_eq!(rebalances(&mut second), ["assigned []"]);
    second.assign(&[]);
    assert_eq!(poll(&mut first, &tp("in", 0)), ["a"], "what it keeps goes on");
    assert_eq!(rebalances(&mut second), [""; 0], "nothing before it was given back");
    let last = epoch(&mut first, 1, &["x"], 1);
    assert!(
        matches!(commit(&mut first, last), CommitOutcome::Committed { .. }),
        "committed before it is given back"
    );

    first.unassign(&[tp("in", 2), tp("in", 3)]);
    assert_eq!(rebalances(&mut first), [""; 0]);
    assert_eq!(rebalances(&mut second), ["assigned [in-2 in-3]"]);
    assert_eq!(rebalances(&mut first), ["assigned []"], "a generation without change is told too");
    assert_eq!(first.group_metadata().generation, second.group_metadata().generation);
    second.assign(&[tp("in", 2), tp("in", 3)]);
    first.assign(&[]);
    settle(&mut [&mut first, &mut second]);
    world.send("in", &["b"]);
    assert_eq!(poll(&mut first, &tp("in", 0)), ["b"], "its position was never touched");
}

#[test]
fn member_that_leaves_hands_its_partitions_over_at_once() {
    let world = World::new(3);
    let (mut first, mut second) = (world.member("a"), world.client("b"));
    second.subscribe(&["in".into()]);
    settle(&mut [&mut first, &mut second]);
    first.close(TIMEOUT);
    assert_eq!(rebalances(&mut second), ["assigned [in-0 in-1]"]);
}

#[test]
fn silent_member_loses_everything_and_comes_back_as_somebody_else() {
    let world = World::new(2);
    let (mut silent, mut other) = (world.member("a"), world.client("b"));
    other.subscribe(&["in".into()]);
    settle(&mut [&mut silent, &mut other]);
    let before = silent.group_metadata();
    world.pass(SESSION_TIMEOUT);
    assert_eq!(rebalances(&mut other), [""; 0]);
    world.pass(std::time::Duration::from_millis(1));
    assert_eq!(rebalances(&mut other), ["assigned [in-0]"]);
    other.assign(&[tp("in", 0)]);

    assert!(!silent.group_metadata().is_member(), "its heartbeats tell, before the event");
    assert_eq!(rebalances(&mut silent), ["lost [in-0]"]);
    assert!(silent.assignment_lost());
    assert!(!silent.group_metadata().is_member());
    assert_eq!(rebalances(&mut silent), [""; 0], "it joins again only after its answer");
    silent.unassign(&[tp("in", 0)]);
    assert!(!silent.assignment_lost());
    settle(&mut [&mut silent, &mut other]);
    let after = silent.group_metadata();
    assert!(after.is_member());
    assert_ne!(after.member_id, before.member_id);
    assert!(after.generation > before.generation);
}

#[test]
fn partitions_accepted_after_the_loss_are_lost_too() {
    let world = World::new(1);
    let mut client = world.client("a");
    client.subscribe(&["in".into()]);
    assert_eq!(rebalances(&mut client), ["assigned [in-0]"]);
    client.assign(&[tp("in", 0)]);
    world.pass(SESSION_TIMEOUT * 2);
    assert_eq!(rebalances(&mut client), ["lost [in-0]"]);
    client.assign(&[tp("in", 0)]);
    assert_eq!(rebalances(&mut client), ["lost [in-0]"]);
    client.unassign(&[tp("in", 0)]);
    assert_eq!(rebalances(&mut client), ["assigned [in-0]"]);
}

#[test]
fn added_partitions_are_assigned_without_moving_others() {
    let world = World::new(2);
    let (mut first, mut second) = (world.member("a"), world.client("b"));
    second.subscribe(&["in".into()]);
    settle(&mut [&mut first, &mut second]);
    world.broker.add_partitions("in", 4, TIMEOUT).unwrap();
    assert_eq!(rebalances(&mut first), [""; 0]);
    assert_eq!(rebalances(&mut second), ["assigned [in-3]"]);
    assert_eq!(rebalances(&mut first), ["assigned [in-2]"]);
}

/// A member of the random walk, and what it believes it has.
struct Walker {
    client: MemoryClient,
    owned: BTreeSet<TopicPartition>,
    /// Partitions of a revocation, which it answers later.
    unanswered: Option<Vec<TopicPartition>>,
    heard: std::time::Duration,
}

impl Walker {
    fn hear(&mut self, event: Option<ClientEvent>) {
        match event {
            Some(ClientEvent::Assigned(partitions)) => {
                self.client.assign(&partitions);
                self.owned.extend(partitions);
            }
            Some(ClientEvent::Revoked { partitions, lost }) => {
                if lost {
                    self.owned.clear();
                }
                self.unanswered = Some(partitions);
            }
            _ => {}
        }
    }
}

/// Four members join, answer late, fall silent and leave in an order that `seed` decides. Gives what was told, after the end was fair.
fn walk(seed: u64) -> Vec<String> {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new(5);
    let mut walkers: BTreeMap<u32, Walker> = BTreeMap::new();
    let mut told = Vec::new();
    let now = |world: &World| std::time::Duration::from_millis(world.clock_ms.load(Ordering::Relaxed));
    for step in 0..400 {
        let name = rng.random_range(0..4_u32);
        let action = if step < 300 { rng.random_range(0..20) } else { 2 + step % 10 };
        world.pass(std::time::Duration::from_millis(if action == 0 { 40_000 } else { 50 }));
        if step >= 300 {
            world.pass(std::time::Duration::from_millis(50));
        }
        let walker = walkers.entry(name).or_insert_with(|| {
            let mut client = world.client(&format!("w{name}"));
            client.subscribe(&["in".into()]);
            Walker {
                client,
                owned: BTreeSet::new(),
                unanswered: None,
                heard: now(&world),
            }
        });
        match action {
            1 => {
                walker.client.close(TIMEOUT);
                walkers.remove(&name);
            }
            2..6 if walker.unanswered.is_some() => {
                let partitions = walker.unanswered.take().unwrap();
                walker.owned.retain(|partition| !partitions.contains(partition));
                walker.client.unassign(&partitions);
            }
            _ => {
                walker.heard = now(&world);
                let event = walker.client.next_event();
                told.extend(event.as_ref().map(|event| format!("{name}: {event:?}")));
                walker.hear(event);
            }
        }
        // Who is within its session believes what is so.
        let mut owners = BTreeMap::new();
        for (name, walker) in walkers
            .iter()
            .filter(|(_, walker)| now(&world).saturating_sub(walker.heard) <= SESSION_TIMEOUT)
        {
            for partition in &walker.owned {
                assert_eq!(
                    owners.insert(partition.clone(), *name),
                    None,
                    "seed {seed}, step {step}: {partition} has two owners"
                );
            }
        }
    }
    for _ in 0..20 {
        for walker in walkers.values_mut() {
            loop {
                if let Some(partitions) = walker.unanswered.take() {
                    walker.owned.retain(|partition| !partitions.contains(partition));
                    walker.client.unassign(&partitions);
                }
                let Some(event) = walker.client.next_event() else { break };
                walker.hear(Some(event));
            }
        }
    }
    let shares: Vec<_> = walkers.values().map(|walker| walker.owned.len()).collect();
    assert_eq!(shares.iter().sum::<usize>(), 5, "seed {seed}: {shares:?}");
    assert!(
        shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1,
        "seed {seed}: {shares:?}"
    );
    told
}

#[test]
fn no_partition_has_two_owners_and_the_shares_get_even_whatever_the_order_of_calls() {
    for seed in 0..200 {
        walk(seed);
    }
}

#[test]
fn same_calls_at_the_same_times_give_the_same_events() {
    assert_eq!(walk(7), walk(7));
}

#[test]
fn eager_members_give_everything_back_before_they_join_again() {
    let mut world = World::new(4);
    world.broker = world.broker.with_rebalance_protocol(RebalanceProtocol::Eager);
    let mut first = world.member("a");
    let mut second = world.client("b");
    second.subscribe(&["in".into()]);
    assert_eq!(rebalances(&mut second), [""; 0], "the rebalance waits for the first");
    assert_eq!(rebalances(&mut first), ["revoked [in-0 in-1 in-2 in-3]"]);
    let last = epoch(&mut first, 1, &["x"], 1);
    assert!(
        matches!(commit(&mut first, last), CommitOutcome::Committed { .. }),
        "committed before they are given back"
    );
    first.unassign(&[0, 1, 2, 3].map(|partition| tp("in", partition)));
    assert_eq!(rebalances(&mut first), ["assigned [in-0 in-2]"]);
    assert_eq!(rebalances(&mut second), ["assigned [in-1 in-3]"]);
}

#[test]
fn offsets_expire_only_while_nobody_is_in_the_group() {
    let world = World::new(2);
    let mut client = world.member("a");
    let first = epoch(&mut client, 1, &[], 7);
    commit(&mut client, first);
    assert!(!world.broker.expire_offsets(GROUP), "it has a member");
    client.close(TIMEOUT);
    assert_eq!(world.committed(0), Some(at(7, "epoch 1")));
    assert!(world.broker.expire_offsets(GROUP));
    assert_eq!(world.committed(0), None);
    assert!(!world.broker.expire_offsets(GROUP), "there are none left");
}

#[test]
fn stopped_broker_says_nothing_and_ends_no_session() {
    let world = World::new(2);
    let mut client = world.member("a");
    let metadata = format!("{:?}", client.group_metadata());
    world.send("in", &["before"]);
    world.broker.stop_for(SESSION_TIMEOUT * 2);
    client.fetch_committed(&[tp("in", 0)]);
    client.fetch_log_range(&tp("in", 0));
    let during = epoch(&mut client, 1, &["x"], 1);
    client.commit(during);
    assert_eq!((events(&mut client).len(), poll(&mut client, &tp("in", 0)).len()), (0, 0));
    world.pass(SESSION_TIMEOUT * 2 - Duration::from_millis(1));
    assert_eq!((events(&mut client).len(), poll(&mut client, &tp("in", 0)).len()), (0, 0));
    assert_eq!(format!("{:?}", client.group_metadata()), metadata, "what it heard last");
    world.pass(Duration::from_millis(1));
    let after = events(&mut client);
    assert!(
        matches!(
            after[..],
            [
                ClientEvent::CommitFinished {
                    outcome: CommitOutcome::Committed { .. },
                    ..
                },
                ClientEvent::CommittedOffsets(_),
                ClientEvent::LogRange(..)
            ]
        ),
        "{after:?}"
    );
    assert_eq!(poll(&mut client, &tp("in", 0)), ["before"]);
    assert_eq!(format!("{:?}", client.group_metadata()), metadata, "its session began anew");
}
