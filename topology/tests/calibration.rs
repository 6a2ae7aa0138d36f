//! How often checks give alarm when nothing drifted: the claims of docs/statistics.md that a decision rests on, held loosely. `make calibrate` measures them.

#![expect(clippy::unwrap_used, reason = "a sample that cannot be drawn is a failed test")]

#[path = "../examples/calibrate/sampling.rs"]
mod sampling;

use leeway_topology::drift::{Criteria, Status};
use leeway_topology::significance::Correction;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sampling::{Source, check, reference};
use statrs::distribution::{Binomial, DiscreteCDF as _};

const WINDOW: u64 = 100;

/// Checks without drift in which any feature gives alarm, by each criteria. Each check has a reference of its own: so they are independent.
fn alarms<const N: usize>(criteria: &[Criteria; N], checks: u64, features: usize) -> [u64; N] {
    let random = &mut StdRng::seed_from_u64(1);
    let mut alarms = [0; N];
    for _ in 0..checks {
        let reference = reference(1000, features, 10, random);
        let window = Source::new(&reference, 0.0).window(WINDOW, random);
        for (alarms, criteria) in alarms.iter_mut().zip(criteria) {
            let (features, _) = check(criteria, &reference, &window);
            *alarms += u64::from(features.iter().any(|feature| feature.check.status > Status::NoDrift));
        }
    }
    alarms
}

#[test]
fn without_significance_a_window_of_one_hundred_gives_alarm_in_more_than_a_fifth_of_checks_without_drift() {
    let plain = Criteria {
        significance: 0.0,
        ..Criteria::default()
    };
    let [alarms] = alarms(&[plain], 1000, 1);
    assert!(alarms > 200, "{alarms} alarms in 1000 checks");
}

#[test]
fn with_significance_checks_without_drift_give_alarm_no_more_often_than_it_says() {
    let criteria = [Correction::Bonferroni, Correction::BenjaminiHochberg].map(|correction| Criteria {
        correction,
        ..Criteria::default()
    });
    for (checks, features) in [(3000, 1), (200, 20)] {
        // What checks with this chance of an alarm stay at or below, but for one run in a million.
        let most = Binomial::new(criteria[0].significance, checks).unwrap().inverse_cdf(1.0 - 1e-6);
        let alarms = alarms(&criteria, checks, features);
        assert!(
            alarms.iter().all(|&alarms| alarms <= most),
            "{features} features: {alarms:?} alarms in {checks} checks, at most {most}"
        );
    }
}
