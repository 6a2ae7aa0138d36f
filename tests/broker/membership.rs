//! Other ways to be a member of the group: static members, and the protocol of KIP-848.

use crate::cluster::bootstrap;
use crate::kafka::{positions, wait_until_consumed};
use crate::leeway::Worker;
use crate::run::{Membership, PARTITIONS, PATIENCE, Run, wait_for};

fn share_all(workers: &[&Worker]) -> bool {
    let counts = workers.iter().map(|worker| worker.partitions().len());
    counts.clone().all(|count| count > 0) && counts.sum::<usize>() == PARTITIONS as usize
}

/// Lines that tell of a rebalance.
fn rebalances(worker: &Worker) -> usize {
    let log = worker.log();
    ["partitions assigned", "partitions revoked"]
        .iter()
        .map(|text| log.matches(text).count())
        .sum()
}

#[test]
fn static_member_that_is_back_in_time_has_its_partitions_again_and_nobody_else_notices() {
    let mut run = Run::new("static");
    run.membership = Membership::Static;
    // Back in time, however slow the machine; and with one thread each, work that is shared is settled.
    run.session_timeout_ms = 60_000;
    run.num_stream_threads = 1;
    let file = run.rows("rows.jsonl", 60_000, 31);
    let (mut one, two) = (run.worker(&run.path("one")), run.worker(&run.path("two")));
    wait_for(|| share_all(&[&one, &two]), "shared work");
    run.produce(&file, Some(30_000));
    let (mine, noticed) = (one.partitions(), rebalances(&two));
    one.end();
    let mut one = run.worker(&run.path("one"));
    one.wait_for("restored store", mine.len(), PATIENCE);
    wait_for(|| one.partitions().len() == mine.len(), "as many partitions");
    assert_eq!(one.partitions(), mine);
    let rest = run.rows("rest.jsonl", 60_000, 32);
    run.produce(&rest, None);
    let mut two = two;
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut one, &mut two]);
    assert_eq!(rebalances(&two), noticed, "{}", two.log());
    one.stop();
    two.stop();
    assert_eq!(run.verify().records, 120_000);
}

#[test]
fn second_process_with_the_same_instance_id_ends_the_first_one_with_a_word_why() {
    let mut run = Run::new("twins");
    run.membership = Membership::Static;
    std::fs::create_dir(run.path("copy")).expect("a directory");
    let mut first = run.worker(&run.path("one"));
    wait_for(|| first.partitions().len() == PARTITIONS as usize, "all partitions");
    // The instance id is the directory's name.
    let second = run.worker(&run.path("copy").join("one"));
    assert_eq!(first.wait(PATIENCE), Some(1), "{}", first.log());
    assert!(
        first.log().contains("give each instance a group.instance.id of its own"),
        "{}",
        first.log()
    );
    wait_for(|| second.partitions().len() == PARTITIONS as usize, "all partitions at the second one");
    second.stop();
}

#[test]
fn members_of_the_consumer_protocol_share_the_work_and_lose_nothing_when_one_is_killed() {
    let mut run = Run::new("kip848");
    run.membership = Membership::Consumer;
    let file = run.rows("rows.jsonl", 120_000, 33);
    let (mut one, mut two) = (run.worker(&run.path("one")), run.worker(&run.path("two")));
    wait_for(|| share_all(&[&one, &two]), "shared work");
    std::thread::scope(|scope| {
        let consumed = || -> i64 {
            positions(bootstrap(), &run.application, &run.topic)
                .values()
                .filter_map(|(at, _)| *at)
                .sum()
        };
        let sending = scope.spawn(|| run.produce(&file, Some(10_000)));
        wait_for(|| consumed() > 20_000, "progress");
        one.end();
        wait_for(|| two.partitions().len() == PARTITIONS as usize, "all partitions at the one that lives");
        one = run.worker(&run.path("one"));
        sending.join().expect("all rows were sent");
    });
    wait_for(|| share_all(&[&one, &two]), "shared work again");
    wait_until_consumed(bootstrap(), &run.application, &run.topic, PATIENCE, &mut [&mut one, &mut two]);
    one.stop();
    two.stop();
    assert_eq!(run.verify().records, 120_000);
}
