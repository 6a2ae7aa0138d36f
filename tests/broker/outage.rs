//! Kafka dies and comes back: all of it, or one broker after the other.

use crate::cluster::{Cluster, SAFE_ALONE};
use crate::kafka::{positions, wait_until_consumed};
use crate::run::{PATIENCE, Run, wait_for};

#[test]
fn kafka_that_dies_in_the_middle_is_waited_for_and_nothing_is_lost_or_doubled() {
    let mut kafka = Cluster::start(1, Some(SAFE_ALONE));
    let run = Run::on(&kafka.bootstrap, "outage");
    let file = run.rows("rows.jsonl", 300_000, 11);
    run.produce(&file, None);
    let mut worker = run.worker(&run.path("state"));
    let begun = |(committed, _): &(Option<i64>, i64)| committed.is_some_and(|offset| offset > 0);
    wait_for(
        || positions(&run.bootstrap, &run.application, &run.topic).values().any(begun),
        "a first commit",
    );
    kafka.kill(0);
    worker.wait_for("Kafka cannot be reached; waiting for it", 1, PATIENCE);
    worker.expect_running();
    kafka.restart(0);
    let rest = run.rows("rest.jsonl", 6_000, 12);
    run.produce(&rest, None);
    wait_until_consumed(&run.bootstrap, &run.application, &run.topic, PATIENCE, &mut [&mut worker]);
    worker.stop();
    assert_eq!(run.verify().records, 306_000);
}

#[test]
fn brokers_that_die_one_after_the_other_cost_nothing() {
    let mut kafka = Cluster::start(3, None);
    let run = Run::on(&kafka.bootstrap, "brokers");
    let (mut first, mut second) = (run.worker(&run.path("first")), run.worker(&run.path("second")));
    let consumed = || -> i64 {
        let positions = positions(&run.bootstrap, &run.application, &run.topic);
        positions.values().filter_map(|(committed, _)| *committed).sum()
    };
    // Each of the three leads partitions, coordinates transactions or the group, or is the active controller.
    for node in 0..3 {
        let file = run.rows("rows.jsonl", 150_000, 13 + node as u64);
        std::thread::scope(|scope| {
            let before = consumed();
            let producing = scope.spawn(|| run.produce(&file, Some(10_000)));
            wait_for(|| consumed() > before + 20_000, "progress with all brokers");
            kafka.kill(node);
            producing.join().expect("all rows were sent");
        });
        wait_until_consumed(&run.bootstrap, &run.application, &run.topic, PATIENCE, &mut [&mut first, &mut second]);
        kafka.restart(node);
    }
    first.stop();
    second.stop();
    assert_eq!(run.verify().records, 450_000);
}
