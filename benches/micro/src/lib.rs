//! What the benches of single parts share: records as `leeway produce --synthetic` writes them, and their reference.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use leeway_topology::binning::Binning;
use leeway_topology::ids::{Offset, Partition, Timestamp};
use leeway_topology::processor::{CacheBudget, DriftProcessor, Monitor, Outputs, Processor, PublishedReferences, TaskContext};
use leeway_topology::record::InputRecord;
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};
use leeway_topology::test_driver::InMemoryStore;

/// Features of a record that are monitored, at most.
pub const FEATURES: usize = 5;

/// One record's value: `feature1` to `feature5` with six decimals, and two fields that nobody monitors.
#[must_use]
pub fn record(number: u64) -> String {
    let feature = |index: u64| {
        let spread = (number.wrapping_mul(2_654_435_761).wrapping_add(index * 977) % 6_000_000) as f64;
        spread / 1e6 - 3.0
    };
    format!(
        "{{\"feature1\": {:.6}, \"feature2\": {:.6}, \"feature3\": {:.6}, \"feature4\": {:.6}, \"feature5\": {:.6}, \"target\": {}, \"timestamp\": {}}}",
        feature(1),
        feature(2),
        feature(3),
        feature(4),
        feature(5),
        number % 2,
        1_700_000_000_000 + number
    )
}

/// The reference of the first `features` features over 20,000 records, ten bins each.
///
/// # Panics
/// When the records make no reference, which is a fault of this module.
#[must_use]
pub fn reference(features: usize) -> Reference {
    let columns: Vec<_> = (1..=features).map(|index| (format!("feature{index}"), ColumnType::Number)).collect();
    let built = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 10 }, &[], 50).map(|mut builder| {
        for number in 0..20_000 {
            let row: serde_json::Value = serde_json::from_str(&record(number)).unwrap_or_default();
            builder.push_row(columns.iter().map(|(name, _)| Cell::Number(row[name].as_f64().unwrap_or_default())));
        }
        builder.finish()
    });
    match built {
        Ok(Ok((reference, _))) => reference,
        Ok(Err(error)) => panic!("{error}"),
        Err(error) => panic!("{error}"),
    }
}

/// One partition's processor, and a stream of records for it.
pub struct Processing {
    records: Vec<String>,
    processor: DriftProcessor,
    store: InMemoryStore,
    taken: usize,
}

impl Processing {
    /// With the defaults: windows of the last 1,000 records, checked each 100.
    ///
    /// # Errors
    /// Never, unless the processor changed.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let mut references = PublishedReferences::default();
        references.publish(Arc::new(reference(FEATURES)));
        let (store, cache) = (InMemoryStore::default(), CacheBudget::unbounded());
        let context = TaskContext {
            application_id: "drift-monitor-group",
            partition: Partition(0),
            partitions: 1,
            cache: &cache,
        };
        let monitors = [Arc::new(Monitor::new("default", "features"))];
        Ok(Self {
            records: (0..1_000).map(record).collect(),
            processor: DriftProcessor::open(&context, &monitors, &references, &store)?,
            store,
            taken: 0,
        })
    }

    /// Takes the next record, and makes the check that is due.
    ///
    /// # Errors
    /// Never, unless the processor changed.
    pub fn next(&mut self, with_events: bool) -> Result<(), Box<dyn Error>> {
        let record = InputRecord {
            offset: Offset(self.taken as i64),
            timestamp: Some(Timestamp(1_700_000_000_000 + self.taken as i64)),
            key: None,
            value: Some(black_box(self.records[self.taken % self.records.len()].as_bytes())),
        };
        self.taken += 1;
        if self.processor.process(&record, &self.store)?.is_check_due() {
            let mut out = Outputs::default();
            self.processor.check(&self.store, &mut out)?;
            if with_events {
                out.drain_events(&mut |event| drop(black_box(event.to_json())));
            }
        }
        Ok(())
    }
}
