//! The first records of a topic, of which a reference is made.
//!
//! They are taken in turn from the partitions, each in the order of its offsets, so that a reference is made of all of them and two instances take
//! the same ones where the topic has as many.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use leeway_topology::ids::Partition;
use leeway_topology::json::scan_object;

use crate::broker::{Broker, BrokerError};

/// How long nothing may come.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What was found of the records that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstRecords {
    /// As many as were asked for: values that are JSON objects.
    Enough(Vec<Vec<u8>>),
    /// The topic has only so many yet.
    TooFew(u64),
}

/// Reads the first `number` valid records of a topic. What is no JSON object, and tombstones, are passed over.
///
/// # Errors
/// When the topic is not there or the broker does not answer.
pub fn first_records<B: Broker>(broker: &B, topic: &str, number: u64) -> Result<FirstRecords, BrokerError> {
    let partitions = broker
        .describe_topic(topic, TIMEOUT)?
        .ok_or_else(|| BrokerError::NoSuchTopic(topic.to_owned()))?
        .partitions;
    // Of each partition no more than needed: where some have less, again with more of the others.
    let mut of_each = number.div_ceil(u64::from(partitions.max(1)));
    loop {
        let mut values: BTreeMap<Partition, Vec<Vec<u8>>> = BTreeMap::new();
        let mut full = 0;
        broker.read_topic(topic, TIMEOUT, &mut |at, record| {
            let own = values.entry(at.partition).or_default();
            if let Some(value) = record.value.filter(|value| scan_object(value, |_, _| ()).is_ok())
                && (own.len() as u64) < of_each
            {
                own.push(value.to_vec());
                full += u32::from(own.len() as u64 == of_each);
            }
            if full == partitions {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let found: u64 = values.values().map(|own| own.len() as u64).sum();
        if found >= number {
            return Ok(FirstRecords::Enough(in_turn(values, number)));
        }
        if full == 0 {
            // None has more than was asked of it.
            return Ok(FirstRecords::TooFew(found));
        }
        of_each = (of_each * 2).min(number);
    }
}

/// One of each partition, then another of each, and so on.
fn in_turn(values: BTreeMap<Partition, Vec<Vec<u8>>>, number: u64) -> Vec<Vec<u8>> {
    let mut partitions: Vec<_> = values.into_values().map(Vec::into_iter).collect();
    let mut taken = Vec::new();
    while (taken.len() as u64) < number {
        let before = taken.len();
        taken.extend(partitions.iter_mut().filter_map(Iterator::next));
        if taken.len() == before {
            break;
        }
    }
    taken.truncate(usize::try_from(number).unwrap_or(usize::MAX));
    taken
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::broker::{NewTopic, OutRecord, PlainProducer};

    fn topic(partitions: &[&[&str]]) -> MemoryBroker {
        let broker = MemoryBroker::new();
        let new = NewTopic {
            name: "t".into(),
            partitions: partitions.len() as u32,
            replication_factor: None,
            config: BTreeMap::new(),
        };
        broker.create_topic(&new, Duration::ZERO).unwrap();
        let mut producer = broker.producer().unwrap();
        for (partition, values) in partitions.iter().enumerate() {
            for value in *values {
                let record = OutRecord {
                    topic: "t".into(),
                    partition: Partition(partition as i32),
                    key: None,
                    value: (!value.is_empty()).then(|| value.as_bytes().to_vec()),
                    headers: Vec::new(),
                    timestamp: None,
                };
                producer.send(record).unwrap();
            }
        }
        broker
    }

    fn first(broker: &MemoryBroker, number: u64) -> Result<Vec<String>, u64> {
        match first_records(broker, "t", number).unwrap() {
            FirstRecords::Enough(values) => Ok(values.into_iter().map(|value| String::from_utf8(value).unwrap()).collect()),
            FirstRecords::TooFew(found) => Err(found),
        }
    }

    #[test]
    fn records_are_taken_in_turn_and_what_is_not_valid_is_passed_over() {
        let broker = topic(&[&["{\"a\":1}", "", "no", "{\"a\":2}", "{\"a\":3}"], &["{\"b\":\n1}"], &[]]);
        assert_eq!(first(&broker, 2), Ok(vec!["{\"a\":1}".to_owned(), "{\"b\":\n1}".to_owned()]));
        assert_eq!(
            first(&broker, 4).map(|values| values.len()),
            Ok(4),
            "where a partition has few the others give more"
        );
        assert_eq!(first(&broker, 3).unwrap()[2], "{\"a\":2}");
    }

    #[test]
    fn too_few_records_are_told_with_their_number() {
        let broker = topic(&[&["{}", "{}", "{}"], &["{}"]]);
        assert_eq!(first(&broker, 5), Err(4));
        assert_eq!(first(&topic(&[&[]]), 1), Err(0));
    }
}
