//! For counts of instructions: `leeway-micro-benches PART TIMES` does one part so often, and `scripts/instructions` has it counted.
//!
//! `process` is a record all the way into its window, with what is due of checks; `check` is the same with their events as bytes.

use std::error::Error;
use std::hint::black_box;

use leeway_micro_benches::{FEATURES, Processing, record, reference};
use leeway_topology::binning::Bins;
use leeway_topology::decoder::Decoder;

/// Different ones, in turn.
const RECORDS: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, times] = &arguments[..] else {
        return Err("usage: leeway-micro-benches decode|bin|process|check TIMES".into());
    };
    let times: usize = times.parse()?;
    match part.as_str() {
        "decode" => decode(times),
        "bin" => bin(times),
        "process" => run(times, false),
        "check" => run(times, true),
        unknown => Err(format!("no such part: {unknown}; there are decode, bin, process, check").into()),
    }
}

fn records() -> Vec<Vec<u8>> {
    (0..RECORDS).map(|number| record(number).into_bytes()).collect()
}

/// A record's bytes to the bins of its five features.
fn decode(times: usize) -> Result<(), Box<dyn Error>> {
    let records = records();
    let (mut decoder, mut row) = (Decoder::new([&reference(FEATURES)]), Vec::new());
    for record in records.iter().cycle().take(times) {
        decoder.decode(black_box(record), &mut row)?;
        black_box(&row);
    }
    Ok(())
}

/// A number to its bin, of ten.
fn bin(times: usize) -> Result<(), Box<dyn Error>> {
    let reference = reference(1);
    let bins: &Bins = reference.features()[0].bins();
    for number in 0..times {
        black_box(bins.observe_number(black_box(number as f64 / times as f64)));
    }
    Ok(())
}

fn run(times: usize, with_events: bool) -> Result<(), Box<dyn Error>> {
    let mut processing = Processing::new()?;
    (0..times).try_for_each(|_| processing.next(with_events))
}
