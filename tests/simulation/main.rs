//! Whole runs of the runtime on the embedded broker, each from one seed: instances come, go, sleep between and within steps, crash, lose their disks
//! or come back on older ones, while the broker stops, rebalances, compacts and forgets, and transactions are refused, lost, late and repeated.
//! Afterwards everything must be as if nothing had happened: every event and dead letter once and byte for byte what the dataflow gives without a
//! broker, every store what its changelog was at the store's own position, and both what the dataflow says.
//!
//! `LEEWAY_SEED` is the first seed, `LEEWAY_SEEDS` how many: `make simulate SEED=17 SEEDS=1` repeats a run exactly.

use std::fmt::Write as _;
use std::time::Instant;

use coverage::Coverage;
use run::simulate;

#[path = "../it/world.rs"]
#[expect(dead_code, reason = "the rules use more of it")]
mod world;

mod check;
mod coverage;
mod disk;
mod faults;
mod history;
mod mid_step;
#[cfg(feature = "mutations")]
mod mutations;
mod process;
mod run;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn whatever_happens_every_event_is_there_once_and_every_store_is_what_its_changelog_says() {
    let (first, seeds) = (number("LEEWAY_SEED", 1), number("LEEWAY_SEEDS", 1000));
    if seeds == 1 {
        // One run can be read: what the threads have to say goes to standard error.
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .without_time()
            .try_init()
            .unwrap_or_default();
    }
    let started = Instant::now();
    let mut coverage = Coverage::default();
    let mut wrong = String::new();
    let mut failed = 0;
    for seed in first..first + seeds {
        if let Err(fault) = simulate(seed, &mut coverage) {
            failed += 1;
            // A few tell enough.
            if failed <= 5 {
                writeln!(wrong, "seed {seed}: {fault}\n  again with: make simulate SEED={seed} SEEDS=1").expect("a string");
            }
        }
    }
    let per_thousand = started.elapsed().as_secs_f64() / seeds as f64 * 1000.0;
    println!("{coverage}{per_thousand:.1} s per 1,000 seeds");
    println!("{seeds} seeds from {first}: {} right, {failed} wrong", seeds - failed);
    assert!(failed == 0, "{wrong}");
    if seeds >= 1000 {
        assert!(coverage.missing().is_empty(), "never happened in {seeds} seeds: {:?}", coverage.missing());
    }
}
