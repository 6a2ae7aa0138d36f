//! Copies of tasks that run elsewhere.

use std::sync::Arc;
use std::time::Duration;

use leeway::broker::memory::MemoryClient;
use leeway::epoch::EpochTag;
use leeway::standby::StandbyThread;
use leeway::state::store::{StateStore, TaskRange};
use leeway::stream_thread::{StreamThread, ThreadContext};
use leeway_topology::ids::Partition;

use crate::world::{Instance, SESSION_TIMEOUT, World};

const PARTITIONS: u32 = 2;

/// A process with a stream thread that may not run yet, and its copies.
struct Process {
    context: Arc<ThreadContext>,
    standby: StandbyThread<MemoryClient>,
}

impl Process {
    fn new(world: &World, name: &str) -> Self {
        let context = Arc::new(world.context(StateStore::in_memory()));
        // As the runtime numbers it.
        let standby = StandbyThread::new(world.client(name, 0), context.clone());
        Self { context, standby }
    }

    fn start(&self, world: &World, name: &str) -> Instance {
        let (thread_name, tag) = (format!("{name}-1"), EpochTag::new(name, 1, 0));
        Instance {
            thread: StreamThread::new(thread_name, world.client(name, 1), self.context.clone(), tag),
        }
    }

    fn follow(&mut self, world: &World, time: Duration) {
        let until = world.now().elapsed + time;
        while world.now().elapsed < until {
            self.standby.step(world.now());
            world.pass(Duration::from_millis(10));
        }
    }

    fn metric(&self, name: &str) -> Vec<String> {
        let text = self.context.metrics.render().expect("metrics");
        let of_name = |line: &&str| line.starts_with(name);
        text.lines().filter(of_name).map(str::to_owned).collect()
    }

    fn keys(context: &ThreadContext, partition: i32) -> Vec<(Vec<u8>, Vec<u8>)> {
        let range = TaskRange {
            store: context.sub_topologies["in"].store.clone(),
            partition: Partition(partition),
        };
        let lease = context.store.lease(range).expect("nobody has it");
        let mut keys = Vec::new();
        let collect = |key: &[u8], value: &[u8]| {
            keys.push((key.to_vec(), value.to_vec()));
            std::ops::ControlFlow::Continue(())
        };
        lease.for_each(collect).expect("read");
        keys
    }
}

#[test]
fn copy_holds_what_the_task_has_committed_and_says_how_far_it_is_behind() {
    let world = World::new(PARTITIONS);
    let active = Process::new(&world, "one");
    let mut one = active.start(&world, "one");
    let mut copy = Process::new(&world, "two");
    world.produce(0, 250);
    world.produce(1, 130);
    world.drain(&mut [&mut one]);
    copy.follow(&world, Duration::from_secs(3));
    assert_eq!(copy.standby.following(), PARTITIONS as usize);
    assert_eq!(
        copy.metric("leeway_standby_lag{"),
        [
            "leeway_standby_lag{partition=\"0\",topic=\"in\"} 0",
            "leeway_standby_lag{partition=\"1\",topic=\"in\"} 0"
        ]
    );
    // More comes, and the copy follows without being begun anew.
    world.produce(0, 90);
    world.drain(&mut [&mut one]);
    copy.follow(&world, Duration::from_secs(3));
    world.stop(one);
    copy.standby.close(world.now(), Duration::ZERO);
    for partition in 0..PARTITIONS as i32 {
        // The checkpoints differ: one was told by delivery reports, the other read; the last key is the checkpoint.
        let (mut of_task, mut of_copy) = (Process::keys(&active.context, partition), Process::keys(&copy.context, partition));
        assert_eq!(of_task.pop().map(|(key, _)| key), of_copy.pop().map(|(key, _)| key));
        assert!(of_task.len() > 2, "{of_task:?}");
        assert_eq!(of_task, of_copy, "partition {partition}");
    }
}

#[test]
fn task_that_is_taken_over_from_a_copy_reads_its_changelog_no_more() {
    let world = World::new(PARTITIONS);
    let active = Process::new(&world, "one");
    let mut one = active.start(&world, "one");
    let mut other = Process::new(&world, "two");
    world.produce(0, 250);
    world.produce(1, 130);
    world.drain(&mut [&mut one]);
    other.follow(&world, Duration::from_secs(3));
    // It dies, and says nothing.
    drop(one);
    world.pass(SESSION_TIMEOUT * 2);
    let mut two = other.start(&world, "two");
    world.produce(0, 50);
    world.produce(1, 70);
    world
        .run_until(&mut [&mut two], |_| {
            other.standby.step(world.now());
            world.is_drained()
        })
        .expect("no thread fails");
    world.expect_checks(500);
    assert_eq!(other.standby.following(), 0, "{:?}", two.thread.task_states());
    assert_eq!(other.metric("leeway_standby_lag{"), Vec::<String>::new());
    assert_eq!(other.metric("leeway_restore_records_total"), ["leeway_restore_records_total 0"]);
    // And back: what the group takes away is followed again.
    world.stop(two);
    other.follow(&world, Duration::from_secs(5));
    assert_eq!(other.standby.following(), PARTITIONS as usize);
}

#[test]
fn process_follows_what_others_have_and_runs_the_rest() {
    let world = World::new(PARTITIONS);
    let (mut first, mut second) = (Process::new(&world, "one"), Process::new(&world, "two"));
    let (mut one, mut two) = (first.start(&world, "one"), second.start(&world, "two"));
    world.produce(0, 100);
    world.produce(1, 100);
    let both_are_warm = |first: &Process, second: &Process| first.standby.following() == 1 && second.standby.following() == 1;
    world
        .run_until(&mut [&mut one, &mut two], |_| {
            first.standby.step(world.now());
            second.standby.step(world.now());
            world.is_drained() && both_are_warm(&first, &second)
        })
        .expect("no thread fails");
    world.expect_checks(200);
}
