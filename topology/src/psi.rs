//! The population stability index of a window against its reference.
//!
//! With e and a the fractions of a bin in reference and window, each raised to at least epsilon and **not** renormalised, a bin contributes
//! (a - e) * ln(a / e); PSI is the sum of the contributions in bin order. It is the symmetrised Kullback-Leibler divergence (Jeffreys 1946) of
//! the two binned distributions, so no contribution is below 0. The logarithm is compiled in: a platform's own differs in the last bit, and two
//! instances would write different bytes for the same window.
//!
//! What a PSI means is not decided here: see [`crate::drift`] and [`crate::significance`].

/// What each bin contributes to the PSI, in bin order. Both slices hold the same bins; `epsilon` is above 0.
#[must_use]
pub fn contributions(reference_counts: &[u64], window_counts: &[u64], epsilon: f64) -> Vec<f64> {
    debug_assert_eq!(reference_counts.len(), window_counts.len());
    let (reference_total, window_total) = (total(reference_counts), total(window_counts));
    let fraction = |count: u64, total: f64| if total > 0.0 { (count as f64 / total).max(epsilon) } else { epsilon };
    std::iter::zip(reference_counts, window_counts)
        .map(|(&reference, &window)| {
            let (e, a) = (fraction(reference, reference_total), fraction(window, window_total));
            (a - e) * libm::log(a / e)
        })
        .collect()
}

/// The PSI of a window: 0 for equal fractions, and unbounded but for epsilon.
#[must_use]
pub fn psi(reference_counts: &[u64], window_counts: &[u64], epsilon: f64) -> f64 {
    sum(&contributions(reference_counts, window_counts, epsilon))
}

/// The PSI that contributions add up to. Starts from +0: an empty `Iterator::sum` is -0, which would be written as `-0.0`.
#[must_use]
pub fn sum(contributions: &[f64]) -> f64 {
    contributions.iter().fold(0.0, |sum, contribution| sum + contribution)
}

fn total(counts: &[u64]) -> f64 {
    counts.iter().sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn psi_is_never_negative_and_zero_on_itself(pairs in prop::collection::vec((0_u64..5000, 0_u64..5000), 1..30), epsilon in 1e-9..0.01_f64) {
            let (reference, window): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let terms = contributions(&reference, &window, epsilon);
            prop_assert!(terms.iter().all(|&term| term >= 0.0 && term.is_finite()));
            prop_assert_eq!(psi(&reference, &reference, epsilon), 0.0);
        }

        #[test]
        fn psi_is_zero_on_a_multiple_of_itself(reference in prop::collection::vec(0_u64..5000, 1..30), times in 2_u64..9) {
            let window: Vec<_> = reference.iter().map(|count| count * times).collect();
            prop_assert!(psi(&reference, &window, 1e-4) < 1e-24);
        }
    }

    #[test]
    fn fractions_are_raised_to_epsilon_and_not_renormalised() {
        let expected = (1.0 - 0.5) * 2.0_f64.ln() + (1e-4 - 0.5) * (1e-4_f64 / 0.5).ln();
        assert!((psi(&[5, 5], &[9, 0], 1e-4) - expected).abs() < 1e-15);
    }

    #[test]
    fn empty_window_is_finite() {
        assert!(psi(&[5, 5], &[0, 0], 1e-4).is_finite());
    }
}
