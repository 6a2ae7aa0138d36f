//! Whether a PSI can be chance: PSI is noisy in small windows.
//!
//! - [`p_value`]: the larger of two tests' p that reference and window have one distribution. Pearson's chi-square of the 2 x B table (Pearson
//!   1900) alone is fooled by sparse bins, where the likelihood ratio G = 2 * sum(O * ln(O / E)) (Wilks 1938) is not, and the other way round.
//! - [`psi_null_mean`]: without drift, PSI / (1/n + 1/m) is asymptotically chi-square with df degrees of freedom (Yurdakul and Naranjo 2020,
//!   "Statistical properties of the population stability index"), whose mean is df.
//! - [`noise_floor`]: that distribution's quantile 0.99: what PSI exceeds once in a hundred checks when nothing drifted.
//!
//! Degrees of freedom are the bins (`other` and missing included) with a record in either sample, less one.

use statrs::distribution::{ChiSquared, ContinuousCDF};

/// The noise floor is exceeded by chance in one check of a hundred.
const NOISE_QUANTILE: f64 = 0.99;

/// The larger of Pearson's and the G test's p-value, and the degrees of freedom. 1 when there is none, or when a sample is empty.
#[must_use]
pub fn p_value(reference: &[u64], window: &[u64]) -> (f64, usize) {
    debug_assert_eq!(reference.len(), window.len());
    let occupied = || std::iter::zip(reference, window).filter(|(e, a)| **e + **a > 0);
    let df = occupied().count().saturating_sub(1);
    let (n, m) = (reference.iter().sum::<u64>() as f64, window.iter().sum::<u64>() as f64);
    if df == 0 || n == 0.0 || m == 0.0 {
        return (1.0, df);
    }
    let (mut pearson, mut g) = (0.0, 0.0);
    for (&e, &a) in occupied() {
        for (seen, size) in [(e as f64, n), (a as f64, m)] {
            let expected = (e + a) as f64 * size / (n + m);
            pearson += (seen - expected) * (seen - expected) / expected;
            if seen > 0.0 {
                g += 2.0 * seen * libm::log(seen / expected);
            }
        }
    }
    // The smaller statistic has the larger p: one evaluation of the survival function is enough. G may round to just below 0; that is p = 1.
    (chi_squared(df).map_or(1.0, |distribution| distribution.sf(pearson.min(g))), df)
}

/// The mean of PSI when nothing drifted: `df * (1/n + 1/m)`, with n and m the records of reference and window.
#[must_use]
pub fn psi_null_mean(df: usize, n: u64, m: u64) -> f64 {
    df as f64 * (1.0 / n as f64 + 1.0 / m as f64)
}

/// The PSI that a window of `size` records exceeds in one check of a hundred although nothing drifted, for a reference with these counts.
#[must_use]
pub fn noise_floor(reference: &[u64], size: u64) -> f64 {
    noise_quantile(reference) * (1.0 / reference.iter().sum::<u64>() as f64 + 1.0 / size as f64)
}

/// The smallest window, in records, whose [`noise_floor`] is below `threshold`: for the warning about a window that is too small. `None` when
/// the reference itself has too few rows for any window to do.
#[must_use]
pub fn window_below_noise(reference: &[u64], threshold: f64) -> Option<u64> {
    let quantile = noise_quantile(reference);
    let left = threshold - quantile / reference.iter().sum::<u64>() as f64;
    if left.is_nan() || left <= 0.0 {
        return None;
    }
    let size = (quantile / left).floor() + 1.0;
    // Above 2^53 records the sum would no longer be exact; no window is that long.
    (size < 9e15).then_some(size as u64)
}

/// The chi-square quantile of the reference's occupied bins less one.
fn noise_quantile(reference: &[u64]) -> f64 {
    let df = reference.iter().filter(|&&count| count > 0).count().saturating_sub(1);
    chi_squared(df).map_or(0.0, |distribution| distribution.inverse_cdf(NOISE_QUANTILE))
}

fn chi_squared(df: usize) -> Option<ChiSquared> {
    ChiSquared::new(df as f64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_occupied_bin_has_no_degree_of_freedom_and_p_one() {
        assert_eq!(p_value(&[50, 0, 0], &[20, 0, 0]), (1.0, 0));
        assert_eq!(p_value(&[0, 0], &[0, 0]), (1.0, 0));
        assert_eq!(p_value(&[5, 5], &[0, 0]), (1.0, 1));
    }

    #[test]
    fn equal_counts_have_p_one() {
        let (p, df) = p_value(&[10, 20, 30], &[10, 20, 30]);
        assert!((p - 1.0).abs() < 1e-12);
        assert_eq!(df, 2);
    }

    #[test]
    fn single_missing_value_does_not_fool_the_larger_of_both_tests() {
        // Pearson's alone gives 4e-18 here.
        let (p, _) = p_value(&[10_000, 0], &[99, 1]);
        assert!((0.001..0.01).contains(&p), "{p}");
    }

    #[test]
    fn window_of_one_hundred_with_ten_bins_is_below_the_noise() {
        let reference = [1000; 10];
        // Chi-square, 9 degrees of freedom: its 0.99 quantile is 21.666.
        assert!((noise_floor(&reference, 100) - 21.666 * (1e-4 + 1e-2)).abs() < 1e-5);
        let size = window_below_noise(&reference, 0.1).unwrap();
        assert_eq!(size, 222);
        assert!(noise_floor(&reference, size) < 0.1 && noise_floor(&reference, size - 1) >= 0.1);
    }

    #[test]
    fn small_reference_allows_no_window() {
        assert_eq!(window_below_noise(&[10; 10], 0.1), None);
        assert_eq!(window_below_noise(&[], 0.1), None);
    }

    #[test]
    fn constant_reference_has_no_noise() {
        assert_eq!(noise_floor(&[500, 0], 100), 0.0);
        assert_eq!(window_below_noise(&[500, 0], 0.1), Some(1));
    }
}
