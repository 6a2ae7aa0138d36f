//! Scope global, and references that change while it runs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use leeway::audit::{Audit, Kind, Of, Report};
use leeway::broker::memory::MemoryBroker;
use leeway::broker::{Broker, OutRecord, PlainProducer};
use leeway::reference_topic::LiveReferences;
use leeway::state::store::StateStore;
use leeway::task::Start;
use leeway_topology::binning::Binning;
use leeway_topology::event::{DriftEvent, Scope};
use leeway_topology::ids::{Partition, Timestamp};
use leeway_topology::processor::{PublishedReferences, Scopes};
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};
use leeway_topology::window::Window;
use leeway_topology::window::time::TimeWindow;

use crate::audit::{forged_topics, place_of};
use crate::world::{APPLICATION, EVERY, Instance, REPARTITION, World};

fn world(partitions: u32, scopes: Scopes) -> World {
    let mut world = World::new(partitions);
    let mut monitor = (*world.monitor).clone();
    monitor.scopes = scopes;
    world.monitor = Arc::new(monitor);
    world
}

/// Of other data than the world's.
fn later_reference() -> Reference {
    let columns = [("x".to_owned(), ColumnType::Number)];
    let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 5 }, &[], 50).expect("a builder");
    for row in 0..1000 {
        builder.push_row([Cell::Number(f64::from(row * 37 % 700))]);
    }
    builder.finish().expect("a reference").0
}

fn audit_of(world: &World, broker: &MemoryBroker, references: &PublishedReferences) -> Report {
    let audit = Audit {
        broker,
        application_id: APPLICATION,
        monitors: std::slice::from_ref(&world.monitor),
        references,
        start: Start::Earliest,
        differences_max: 10,
        progress: &|_| {},
    };
    audit.run().expect("judged")
}

fn events(world: &World, scope: Scope) -> Vec<DriftEvent> {
    let mut events = Vec::new();
    let read = world.broker.read_topic("drift-events", Duration::ZERO, &mut |_, record| {
        let event = DriftEvent::from_json(record.value.expect("a value")).expect("an event");
        if event.scope == scope {
            events.push(event);
        }
        ControlFlow::Continue(())
    });
    read.expect("events");
    events
}

fn worked(scopes: Scopes) -> World {
    let world = world(3, scopes);
    let mut one = world.start("one");
    for partition in 0..3 {
        world.produce(partition, 200 + 35 * partition as u64);
    }
    world.drain(&mut [&mut one]);
    world.stop(one);
    world
}

#[test]
fn whole_topic_is_checked_once_after_each_pane_whoever_merges() {
    let world = world(3, Scopes::BOTH);
    let mut one = world.start("one");
    let mut two = world.start("two");
    for round in 0..4 {
        for partition in 0..3 {
            world.produce(partition, 55);
        }
        world.drain(&mut [&mut one, &mut two]);
        if round == 1 {
            // As SIGKILL: its partitions come to the other one when its session ends.
            drop(std::mem::replace(&mut two, world.start("three")));
        }
    }
    // 220 records of each partition: 22 panes each.
    let global = events(&world, Scope::Global);
    assert_eq!(global.len(), 2 * 66, "an event of the feature and one of the summary after each pane");
    let last = global.iter().max_by_key(|event| event.record_count).expect("events");
    assert_eq!((last.record_count.0, last.window_count), (660, 100));
    let report = audit_of(&world, &world.broker, &world.references);
    assert_eq!((report.wrong, report.later), (0, 0), "{report:?}");
    assert_eq!(report.found, 2 * (66 + 66));
}

#[test]
fn segments_have_their_time_windows_of_the_whole_topic_wherever_they_are_merged() {
    let mut world = world(3, Scopes::BOTH);
    let mut monitor = (*world.monitor).clone();
    monitor.segment_by = vec!["s".parse().expect("a field")];
    monitor.window = Window::Time(TimeWindow::new(1000, 1000, 0).expect("a window"));
    monitor.min_samples = 1;
    world.monitor = Arc::new(monitor);
    let mut one = world.start("one");
    let mut two = world.start("two");
    let mut producer = world.broker.producer().expect("a producer");
    for round in 0..3 {
        for partition in 0..3 {
            // Ten records a second, of four segments.
            for number in 20 * round..20 * (round + 1) {
                let record = OutRecord {
                    topic: "in".into(),
                    partition: Partition(partition),
                    key: None,
                    value: Some(format!("{{\"x\": {}, \"s\": {}}}", number * 7919 % 1000, number % 4).into_bytes()),
                    headers: Vec::new(),
                    timestamp: Some(Timestamp(1_700_000_000_000 + 100 * number)),
                };
                producer.send(record).expect("sent");
            }
        }
        world.drain(&mut [&mut one, &mut two]);
        if round == 1 {
            // As SIGKILL: its partitions come to the other one when its session ends.
            drop(std::mem::replace(&mut two, world.start("three")));
        }
    }
    // Six seconds: five windows have closed.
    let global = events(&world, Scope::Global);
    assert_eq!(
        global.len(),
        5 * 4 * 2,
        "an event of the feature and one of the summary for each window and segment"
    );
    let records: u64 = global.iter().filter(|event| event.is_summary()).map(|event| event.window_count).sum();
    assert_eq!(records, 5 * 30, "each record of each partition once");
    let report = audit_of(&world, &world.broker, &world.references);
    assert_eq!((report.wrong, report.later), (0, 0), "{report:?}");
}

#[test]
fn tampered_pane_and_missing_event_of_the_whole_topic_are_found() {
    let world = worked(Scopes::BOTH);
    let is_global = |event: &OutRecord| DriftEvent::from_json(event.value.as_deref().expect("a value")).expect("an event").scope == Scope::Global;
    let missing = forged_topics(&world, &["in", "drift-events", REPARTITION], |topic, records| {
        if topic == "drift-events" {
            let at = records.iter().position(is_global).expect("a global event");
            records.remove(at);
        }
    });
    let report = audit_of(&world, &missing, &world.references);
    let [difference] = &report.differences[..] else { panic!("{report:?}") };
    assert_eq!((difference.sequence.of, &difference.kind), (Of::WholeTopic, &Kind::Missing));
    assert!(difference.to_string().contains("scope global"), "{difference}");

    let lost = forged_topics(&world, &["in", "drift-events", REPARTITION], |topic, records| {
        if topic == REPARTITION {
            records.remove(3);
        }
    });
    let report = audit_of(&world, &lost, &world.references);
    let of_panes = report
        .differences
        .iter()
        .find(|difference| matches!(difference.sequence.of, Of::Panes(_)));
    let difference = of_panes.unwrap_or_else(|| panic!("{report:?}"));
    assert_eq!(difference.kind, Kind::Missing, "{difference}");
    assert!(difference.to_string().contains("pane for scope global"), "{difference}");
}

/// A thread that follows references as they change.
fn start_with(world: &World, process: &str, references: &Arc<LiveReferences>) -> Instance {
    let mut context = world.context(StateStore::in_memory());
    context.references = references.clone();
    world.start_in(process, context)
}

/// Versions in the order of the checks, each once.
fn versions(events: &[DriftEvent]) -> Vec<String> {
    let mut summaries: Vec<_> = events.iter().filter(|event| event.is_summary()).collect();
    summaries.sort_by_key(|event| event.record_count);
    let mut versions: Vec<_> = summaries.iter().map(|event| event.reference_version.to_string()).collect();
    versions.dedup();
    versions
}

#[test]
fn new_reference_is_taken_over_after_a_check_without_a_restart_and_the_audit_follows() {
    for scopes in [Scopes::default(), Scopes::BOTH, Scopes::GLOBAL] {
        let world = world(2, scopes);
        let mut published = (*world.references).clone();
        let references = Arc::new(LiveReferences::new(published.clone()));
        let mut one = start_with(&world, "one", &references);
        let mut two = start_with(&world, "two", &references);
        for partition in 0..2 {
            world.produce(partition, 155);
        }
        world.drain(&mut [&mut one, &mut two]);
        published.publish(Arc::new(later_reference()));
        references.set(published.clone());
        for partition in 0..2 {
            world.produce(partition, 250);
        }
        world.drain(&mut [&mut one, &mut two]);

        let (before, after) = (
            PublishedReferences::versions(&world.references, "default"),
            later_reference().version().to_owned(),
        );
        assert_eq!(before, 1);
        for scope in [Scope::Partition, Scope::Global].into_iter().filter(|scope| scopes.has(*scope)) {
            let events = events(&world, scope);
            let partitions = if scope == Scope::Global {
                vec![None]
            } else {
                vec![Some(Partition(0)), Some(Partition(1))]
            };
            for partition in partitions {
                let own: Vec<_> = events.iter().filter(|event| event.partition == partition).cloned().collect();
                let versions = versions(&own);
                assert_eq!(versions.len(), 2, "{scope:?} {partition:?}: {versions:?}");
                assert_eq!(versions[1], after);
            }
        }
        let report = audit_of(&world, &world.broker, &published);
        assert_eq!((report.wrong, report.later), (0, 0), "{scopes:?}: {report:?}");
        assert!(report.found > 50, "{report:?}");
        world.stop(one);
        world.stop(two);
    }
}

#[test]
fn change_of_reference_that_was_not_at_a_check_is_found_by_the_audit() {
    let world = world(1, Scopes::default());
    let mut published = (*world.references).clone();
    let references = Arc::new(LiveReferences::new(published.clone()));
    let mut one = start_with(&world, "one", &references);
    world.produce(0, 155);
    world.drain(&mut [&mut one]);
    published.publish(Arc::new(later_reference()));
    references.set(published.clone());
    world.produce(0, 150);
    world.drain(&mut [&mut one]);
    let forged = forged_topics(&world, &["in", "drift-events"], |topic, records| {
        if topic == "drift-events" {
            // The first check by the new reference is gone: then it would have begun earlier or later than it did.
            let new = later_reference().version().to_owned();
            let at = place_of(records, |event| *event.reference_version == *new);
            let k = DriftEvent::from_json(records[at].value.as_deref().expect("a value"))
                .expect("an event")
                .record_count;
            records.retain(|record| {
                DriftEvent::from_json(record.value.as_deref().expect("a value"))
                    .expect("an event")
                    .record_count
                    != k
            });
        }
    });
    let report = audit_of(&world, &forged, &published);
    assert_eq!(report.wrong, 2, "{report:?}");
    assert!(report.differences.iter().all(|difference| difference.kind == Kind::Missing), "{report:?}");
}

/// The process whose thread committed a topic's only partition last.
fn owner(world: &World, topic: &str) -> String {
    let positions = world.broker.group_positions(APPLICATION, topic, Duration::ZERO).expect("positions");
    let committed = positions[0].1.clone().expect("committed");
    // `leeway/1 one-1-00000000 7`
    let writer = committed.metadata.split(' ').nth(1).expect("a writer").to_owned();
    writer.split('-').next().expect("a process").to_owned()
}

#[test]
fn task_waits_for_a_reference_that_is_not_known_here_yet_and_is_not_ready_meanwhile() {
    let world = world(1, Scopes::BOTH);
    let mut published = (*world.references).clone();
    let known = ["one", "two"].map(|process| (process, Arc::new(LiveReferences::new(published.clone()))));
    let mut instances = known.clone().map(|(process, references)| start_with(&world, process, &references));
    let [one, two] = &mut instances;
    world.produce(0, 150);
    world.drain(&mut [one, two]);
    let (reads, merges) = (owner(&world, "in"), owner(&world, REPARTITION));
    assert_ne!(reads, merges, "each has a task");
    // Only the one that cuts panes hears of it.
    published.publish(Arc::new(later_reference()));
    let hears = |who: &str| {
        let (_, references) = known.iter().find(|(process, _)| *process == who).expect("a process");
        references.set(published.clone());
    };
    hears(&reads);
    world.produce(0, 150);
    let [one, two] = &mut instances;
    for _ in 0..500 {
        one.thread.step(world.now()).expect("no fault");
        two.thread.step(world.now()).expect("no fault");
        world.pass(Duration::from_millis(10));
    }
    assert!(!world.is_drained(), "nothing is passed over");
    let (waiting, other) = if merges == "one" { (&*one, &*two) } else { (&*two, &*one) };
    assert_eq!((waiting.thread.is_ready(), other.thread.is_ready()), (false, true));

    hears(&merges);
    world.drain(&mut [one, two]);
    assert!(one.thread.is_ready() && two.thread.is_ready());
    let report = audit_of(&world, &world.broker, &published);
    assert_eq!((report.wrong, report.later), (0, 0), "{report:?}");
    assert_eq!(versions(&events(&world, Scope::Partition)).len(), 2);
    let global = events(&world, Scope::Global);
    assert_eq!(versions(&global).len(), 2);
    assert_eq!(global.iter().map(|event| event.record_count.0).max(), Some(300 / EVERY * EVERY));
}
