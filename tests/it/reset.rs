//! `leeway reset`: an application begins anew, or nothing happens.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use leeway::broker::{Broker as _, NewTopic};
use leeway::reset::{ResetError, Scope, Step, plan};
use leeway::state::directory::{DirectoryError, StateDirectory};
use leeway::state::store::{StateStore, StoreOptions};

use crate::world::{APPLICATION, EVENTS_PER_CHECK, EVERY, World};

const CHANGELOG: &str = "app-windows-in-changelog";

fn scope(state_dirs: &[&Path]) -> Scope {
    Scope {
        application_id: APPLICATION.to_owned(),
        inputs: vec!["in".to_owned()],
        references: false,
        state_dirs: state_dirs.iter().map(|path| path.to_path_buf()).collect(),
    }
}

fn exists(world: &World, topic: &str) -> bool {
    world.broker.describe_topic(topic, Duration::ZERO).expect("described").is_some()
}

/// Works on 300 records with its state in a directory, and ends.
fn work(world: &World, path: &Path, life: u32) {
    let directory = StateDirectory::open(path, APPLICATION).expect("a directory");
    let store = StateStore::open(&directory, StoreOptions::default()).expect("a store");
    let mut one = world.start_on(directory.process_id(), 1, life, store.clone());
    world.drain(&mut [&mut one]);
    world.stop(one);
    store.close().expect("closed");
}

#[test]
fn reset_application_begins_anew() {
    let scratch = tempfile::tempdir().expect("a directory");
    let world = World::new(1);
    world.produce(0, 300);
    work(&world, scratch.path(), 0);
    world.expect_checks(300);
    let path = scratch.path().canonicalize().expect("a path");
    let steps = vec![
        Step::Group(APPLICATION.to_owned()),
        Step::Topic(CHANGELOG.to_owned()),
        Step::Directory(path.clone()),
    ];
    let planned = plan(&world.broker, &scope(&[scratch.path()])).expect("planned");
    assert_eq!(planned.steps(), steps);
    let mut told = Vec::new();
    planned
        .execute(&world.broker, |step, was_there| told.push((step.clone(), was_there)))
        .expect("reset");
    assert_eq!(told, steps.into_iter().map(|step| (step, true)).collect::<Vec<_>>());
    assert!(!exists(&world, CHANGELOG));
    assert!(!path.join("db").exists() && !path.join("process.json").exists());

    work(&world, scratch.path(), 1);
    let events = world.events();
    assert_eq!(events.len(), (300 / EVERY) as usize * EVENTS_PER_CHECK);
    assert!(
        events.values().all(|times| *times == 2),
        "each record was worked on again, from the first one on: {events:?}"
    );
}

#[test]
fn plan_alone_deletes_nothing() {
    let scratch = tempfile::tempdir().expect("a directory");
    let world = World::new(1);
    world.produce(0, 300);
    work(&world, scratch.path(), 0);
    drop(plan(&world.broker, &scope(&[scratch.path()])).expect("planned"));
    world.produce(0, 100);
    work(&world, scratch.path(), 1);
    world.expect_checks(400);
}

#[test]
fn reset_is_refused_while_a_worker_runs() {
    let world = World::new(1);
    let mut one = world.start("one");
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    let error = plan(&world.broker, &scope(&[])).err().expect("refused");
    assert!(matches!(error, ResetError::Active { .. }), "{error:?}");
    assert!(error.to_string().contains("application \"app\" has active members: one-"), "{error}");
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    world.expect_checks(200);
}

#[test]
fn worker_that_joined_after_the_plan_makes_the_reset_fail_before_anything_is_deleted() {
    let world = World::new(1);
    world.produce(0, 100);
    let planned = plan(&world.broker, &scope(&[])).expect("planned");
    let mut one = world.start("one");
    world.drain(&mut [&mut one]);
    let planned_again = planned.execute(&world.broker, |step, _| panic!("{step:?}"));
    let error = planned_again.expect_err("it has a member").to_string();
    assert!(error.starts_with("deleting group \"app\": "), "{error}");
    world.produce(0, 100);
    world.drain(&mut [&mut one]);
    world.expect_checks(200);
}

#[test]
fn directory_in_use_or_of_another_application_is_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    let world = World::new(1);
    let held = StateDirectory::open(scratch.path(), APPLICATION).expect("a directory");
    let error = plan(&world.broker, &scope(&[scratch.path()])).err().expect("refused");
    assert!(matches!(error, ResetError::Directory(DirectoryError::Locked { .. })), "{error:?}");
    drop(held);
    let other = Scope {
        application_id: "other".to_owned(),
        ..scope(&[scratch.path()])
    };
    let error = plan(&world.broker, &other).err().expect("refused");
    assert!(
        matches!(error, ResetError::Directory(DirectoryError::OtherApplication { .. })),
        "{error:?}"
    );
}

#[test]
fn references_go_only_when_asked_for() {
    let world = World::new(1);
    let topic = NewTopic {
        name: "app-reference".into(),
        partitions: 1,
        replication_factor: None,
        config: BTreeMap::new(),
    };
    world.broker.create_topic(&topic, Duration::ZERO).expect("a topic");
    let without = plan(&world.broker, &scope(&[])).expect("planned");
    assert_eq!(without.steps(), [Step::Group(APPLICATION.to_owned())]);
    let asked = Scope {
        references: true,
        ..scope(&[])
    };
    let with = plan(&world.broker, &asked).expect("planned");
    assert_eq!(
        with.steps(),
        [Step::Group(APPLICATION.to_owned()), Step::Topic("app-reference".to_owned())]
    );
    with.execute(&world.broker, |_, _| {}).expect("reset");
    assert!(!exists(&world, "app-reference"));
}

#[test]
fn directories_that_instances_took_by_number_are_found_again() {
    let scratch = tempfile::tempdir().expect("a directory");
    let default = scratch.path().join("leeway-state");
    let one = StateDirectory::open_free(&default, APPLICATION).expect("the first");
    let other = StateDirectory::open_free(&default, "other").expect("the second");
    let two = StateDirectory::open_free(&default, APPLICATION).expect("the third");
    let found = StateDirectory::existing(&default, APPLICATION).expect("found");
    assert_eq!(found, [default.clone(), scratch.path().join("leeway-state-2")]);
    drop((one, other, two));
}
