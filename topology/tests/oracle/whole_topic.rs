//! Time windows of segments of a whole topic: the dataflow of an input of three partitions, and behind it that of a repartition topic.
//!
//! `w*.steps.txt` says which partition has the next record, or is idle, or that a reference is published. What a step ships is merged before the next.
//! Then the same with commits and restarts in between, and with a repartition topic of several partitions: each segment has the same events.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::{Monitor, PublishedReferences, Scopes};
use leeway_topology::record::InputRecord;
use leeway_topology::repartition::ShippedPane;
use leeway_topology::test_driver::{Output, TestDriver};
use serde_json::Value;

use super::{Fixture, compare, monitor};

struct WholeTopic {
    name: &'static str,
    spec: Value,
    records: Vec<Vec<u8>>,
    steps: Vec<Vec<String>>,
    events: Vec<Value>,
}

/// How a fixture is run.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Partitions of the repartition topic.
    places: i32,
    /// Steps between a commit of everything, and a restart, and the next.
    restart_every: usize,
}

impl WholeTopic {
    fn read(name: &'static str) -> Self {
        let file = |kind: &str| fs::read_to_string(format!("tests/oracle/{name}.{kind}")).unwrap();
        let words = |line: &str| line.split(' ').map(ToOwned::to_owned).collect();
        Self {
            name,
            spec: serde_json::from_str(&file("spec.json")).unwrap(),
            records: file("records.jsonl").lines().map(|line| line.as_bytes().to_vec()).collect(),
            steps: file("steps.txt").lines().map(words).collect(),
            events: file("events.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        }
    }

    fn check(&self) {
        let straight = self.run(Run {
            places: 1,
            restart_every: usize::MAX,
        });
        assert_eq!(straight.len(), self.events.len(), "{}: events", self.name);
        for (written, expected) in straight.iter().zip(&self.events) {
            compare(self.name, written, expected);
        }
        let by_segment = |events: Vec<Value>| {
            let mut by_segment: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for event in events {
                by_segment.entry(event["segment"].to_string()).or_default().push(event);
            }
            by_segment
        };
        for restart_every in [1, 13, 97] {
            let run = Run { places: 1, restart_every };
            assert!(self.run(run) == straight, "{}: {run:?}", self.name);
            let run = Run { places: 3, restart_every };
            assert!(by_segment(self.run(run)) == by_segment(straight.clone()), "{}: {run:?}", self.name);
        }
    }

    fn run(&self, run: Run) -> Vec<Value> {
        let monitor = || Monitor {
            scopes: Scopes::GLOBAL,
            ..monitor(&self.spec)
        };
        let mut references = PublishedReferences::default();
        references.publish(Arc::new(Fixture::reference_of(&self.spec["features"])));
        let mut input = TestDriver::new("oracle", [monitor()], references.clone());
        // It knows what will be published: which reference counts, the parts say.
        for step in self.steps.iter().filter(|step| step[0] == "publish") {
            references.publish(Arc::new(Fixture::reference_of(&self.spec["references"][&step[1]])));
        }
        let mut global = TestDriver::global("oracle", [monitor()], references);
        let (mut events, mut records) = (Vec::new(), self.records.iter());
        for (number, step) in (1..).zip(&self.steps) {
            let partition = || Partition(step[1].parse().unwrap());
            let shipped = match step[0].as_str() {
                "publish" => {
                    input.publish(Fixture::reference_of(&self.spec["references"][&step[1]])).unwrap();
                    Output::default()
                }
                "idle" => input.close_idle(partition()).unwrap(),
                "record" => {
                    let time: i64 = step[2].parse().unwrap();
                    let record = InputRecord {
                        offset: input.position(partition()),
                        timestamp: (time >= 0).then_some(Timestamp(time)),
                        value: Some(records.next().unwrap()),
                        key: None,
                    };
                    input.pipe(partition(), [record]).unwrap()
                }
                other => panic!("no step: {other}"),
            };
            assert_eq!(shipped.events, [], "only the whole topic is watched");
            for pane in &shipped.panes {
                for place in run.places_of(pane) {
                    let output = global.pipe_panes(place, [pane]).unwrap();
                    events.extend(
                        output
                            .events
                            .iter()
                            .map(|event| serde_json::from_slice::<Value>(&event.to_json()).unwrap()),
                    );
                }
            }
            if number % run.restart_every == 0 {
                for driver in [&mut input, &mut global] {
                    driver.commit();
                    driver.restart();
                }
            }
        }
        assert!(records.next().is_none());
        assert_ne!(input.position(Partition(0)), Offset(0));
        events
    }
}

impl Run {
    /// As a worker does it, but for the hash.
    fn places_of(self, pane: &ShippedPane) -> Vec<Partition> {
        let of_key = pane.segment.bytes().map(i32::from).sum::<i32>() % self.places;
        let places = (0..self.places).filter(|place| pane.is_for_every_partition() || *place == of_key);
        places.map(Partition).collect()
    }
}

#[test]
fn segments_of_the_whole_topic() {
    WholeTopic::read("w1_segments_of_the_whole_topic").check();
}

#[test]
fn idle_partitions_and_expiry_in_the_whole_topic() {
    WholeTopic::read("w2_idle_partitions_and_expiry").check();
}

#[test]
fn changes_of_reference_in_the_whole_topic() {
    WholeTopic::read("w3_changes_of_reference").check();
}
