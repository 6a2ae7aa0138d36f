//! The check of the checker: each deliberate bug of [`leeway::mutation`] is found.

use std::time::Instant;

use leeway::mutation::{Mutation, with};

use crate::coverage::Coverage;
use crate::run::simulate;

/// Seeds within which each must be found.
const SEEDS_MAX: u64 = 2_000;

#[test]
fn every_deliberate_bug_is_found() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let started = Instant::now();
        let found = (1..=SEEDS_MAX).find_map(|seed| {
            let outcome = with(mutation, || simulate(seed, &mut Coverage::default()));
            let fault = outcome.err()?;
            // Else it says nothing of the bug.
            simulate(seed, &mut Coverage::default()).expect("right without the bug");
            Some((seed, fault))
        });
        let elapsed = started.elapsed().as_secs_f64();
        match found {
            Some((seed, fault)) => {
                let fault: String = fault.chars().take(160).collect();
                println!(
                    "{:<22} found by seed {seed:>4} in {elapsed:>5.1} s: {}",
                    format!("{mutation:?}"),
                    fault.replace('\n', " ")
                );
            }
            None => {
                println!("{:<22} not found in {SEEDS_MAX} seeds, {elapsed:.1} s", format!("{mutation:?}"));
                missed.push(mutation);
            }
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS_MAX} seeds: {missed:?}");
}
