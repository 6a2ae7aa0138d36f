//! Whole runs of the runtime on the embedded broker, each from one seed: instances come, go, sleep, crash between and within steps and lose their
//! disks, while transactions are refused, their replies lost, their markers late. Afterwards everything must be as if nothing had happened.
//!
//! `LEEWAY_SEED` is the first seed, `LEEWAY_SEEDS` how many: `make simulate SEED=17 SEEDS=1` repeats a run exactly.

use std::fmt::Write as _;

use crate::run::{Coverage, simulate};

#[path = "../it/world.rs"]
#[expect(dead_code, reason = "the rules use more of it")]
mod world;

mod check;
mod run;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn whatever_happens_every_event_is_there_once_and_every_store_is_what_its_changelog_says() {
    let (first, seeds) = (number("LEEWAY_SEED", 1), number("LEEWAY_SEEDS", 200));
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
    println!("{coverage}{seeds} seeds from {first}: {} right, {failed} wrong", seeds - failed);
    assert!(failed == 0, "{wrong}");
    if seeds >= 200 {
        assert!(coverage.missing().is_empty(), "never happened in {seeds} seeds: {:?}", coverage.missing());
    }
}
