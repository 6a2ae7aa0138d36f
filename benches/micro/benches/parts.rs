//! Parts of the hot path by themselves.
//!
//! - From a record's bytes to the bins of its five monitored features: how do the ways of reading JSON compare? All of them reject what is no JSON by
//!   RFC 8259 and give the same bins; see the assertions.
//! - A record all the way into its window, and a hundredth of a check's six events as bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use leeway_micro_benches::{Processing, record, reference};
use leeway_topology::binning::Bins;
use leeway_topology::decoder::Decoder;
use leeway_topology::json::scan_object;
use leeway_topology::record::Observation;
use serde::Deserialize as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// As many as are in memory at once anyway.
const RECORDS: u64 = 1_000;

/// A visitor of serde that knows which fields are wanted.
struct Wanted<'a> {
    names: &'a [String],
    values: &'a mut [f64],
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<&str>()? {
            match self.names.iter().position(|known| known == name) {
                Some(at) => self.values[at] = map.next_value()?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

fn bins_of(bins: &[Bins], values: &[f64], row: &mut Vec<Observation>) {
    row.clear();
    row.extend(bins.iter().zip(values).map(|(bins, value)| bins.observe_number(*value)));
}

fn decode(criterion: &mut Criterion) {
    let reference = reference(5);
    let names: Vec<String> = reference.features().iter().map(|feature| feature.name().to_string()).collect();
    let bins: Vec<Bins> = reference.features().iter().map(|feature| feature.bins().clone()).collect();
    let records: Vec<Vec<u8>> = (0..RECORDS).map(|number| record(number).into_bytes()).collect();
    let (mut row, mut values) = (Vec::new(), vec![0.0; names.len()]);
    let mut decoder = Decoder::new([&reference]);

    let with_serde = |record: &[u8], values: &mut [f64]| {
        let mut json = serde_json::Deserializer::from_slice(record);
        serde::Deserializer::deserialize_map(&mut json, Wanted { names: &names, values }).expect("an object");
        json.end().expect("nothing after it");
    };
    let mut tape_buffers = simd_json::Buffers::new(256);
    let mut copy = Vec::new();
    let mut with_simd_json = |record: &[u8], values: &mut [f64]| {
        // It parses in place.
        copy.clear();
        copy.extend_from_slice(record);
        let tape = simd_json::to_tape_with_buffers(&mut copy, &mut tape_buffers).expect("JSON");
        let object = tape.as_value().as_object().expect("an object");
        for (name, value) in names.iter().zip(values) {
            use simd_json::prelude::*;
            *value = object.get(name.as_str()).and_then(|value| value.cast_f64()).expect("a number");
        }
    };
    let with_sonic = |record: &[u8], values: &mut [f64]| {
        // Checks all of it; the iterator alone would not look behind the last field.
        sonic_rs::from_slice::<sonic_rs::LazyValue<'_>>(record).expect("JSON");
        for field in sonic_rs::to_object_iter(record) {
            let (name, value) = field.expect("a field");
            if let Some(at) = names.iter().position(|known| *known == *name) {
                values[at] = f64::deserialize(&mut sonic_rs::Deserializer::from_str(value.as_raw_str())).expect("a number");
            }
        }
    };
    for record in &records {
        decoder.decode(record, &mut row).expect("an object");
        let ours = std::mem::take(&mut row);
        with_serde(record, &mut values);
        bins_of(&bins, &values, &mut row);
        assert_eq!(row, ours);
        with_simd_json(record, &mut values);
        bins_of(&bins, &values, &mut row);
        assert_eq!(row, ours);
        with_sonic(record, &mut values);
        bins_of(&bins, &values, &mut row);
        assert_eq!(row, ours);
    }

    let mut group = criterion.benchmark_group("decode 1,000 records");
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function("scan only (strict)", |bencher| {
        bencher.iter(|| {
            records
                .iter()
                .for_each(|record| scan_object(record, |_, value| _ = black_box(value)).expect("an object"))
        });
    });
    group.bench_function("Decoder", |bencher| {
        bencher.iter(|| {
            records
                .iter()
                .for_each(|record| decoder.decode(black_box(record), &mut row).expect("an object"))
        });
    });
    group.bench_function("serde visitor", |bencher| {
        bencher.iter(|| {
            for record in &records {
                with_serde(black_box(record), &mut values);
                bins_of(&bins, &values, &mut row);
            }
        });
    });
    group.bench_function("simd-json tape", |bencher| {
        bencher.iter(|| {
            for record in &records {
                with_simd_json(black_box(record), &mut values);
                bins_of(&bins, &values, &mut row);
            }
        });
    });
    group.bench_function("sonic-rs lazy", |bencher| {
        bencher.iter(|| {
            for record in &records {
                with_sonic(black_box(record), &mut values);
                bins_of(&bins, &values, &mut row);
            }
        });
    });
    group.bench_function("bins of five numbers", |bencher| {
        bencher.iter(|| {
            for _ in 0..RECORDS {
                bins_of(&bins, black_box(&values), &mut row);
            }
        });
    });
    group.finish();
}

fn process(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("process 1,000 records");
    group.throughput(Throughput::Elements(RECORDS));
    for (name, with_events) in [("into the window, checked each 100", false), ("and events as bytes", true)] {
        let mut processing = Processing::new().expect("a processor");
        group.bench_function(name, |bencher| {
            bencher.iter(|| (0..RECORDS).for_each(|_| processing.next(with_events).expect("a record")));
        });
    }
    group.finish();
}

criterion_group!(benches, decode, process);
criterion_main!(benches);
