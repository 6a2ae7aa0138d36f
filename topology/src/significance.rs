//! Whether a PSI can be chance: PSI is noisy in small windows.
//!
//! - [`TwoSampleTest`]: the larger of two tests' p that reference and window have one distribution. Pearson's chi-square of the 2 x B table
//!   (Pearson 1900) alone is fooled by sparse bins, where the likelihood ratio G = 2 * sum(O * ln(O / E)) (Wilks 1938) is not, and the other way
//!   round.
//! - [`Correction`]: a check of many features is many tests, and one in a thousand is below 0.001 when nothing drifted.
//! - [`psi_null_mean`]: without drift, PSI / (1/n + 1/m) is asymptotically chi-square with df degrees of freedom (Yurdakul and Naranjo 2020,
//!   "Statistical properties of the population stability index"), whose mean is df.
//! - [`noise_floor`]: that distribution's quantile 0.99: what PSI exceeds once in a hundred checks when nothing drifted.
//!
//! Degrees of freedom are the bins (`other` and missing included) with a record in either sample, less one.

use statrs::distribution::{ChiSquared, ContinuousCDF};

/// The noise floor is exceeded by chance in one check of a hundred.
const NOISE_QUANTILE: f64 = 0.99;

/// Whether two rows of counts have one distribution. Both statistics are 0, and both p-values 1, when a sample is empty or one bin holds all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TwoSampleTest {
    pearson: f64,
    g: f64,
    df: usize,
}

impl TwoSampleTest {
    /// The statistics of two rows of counts of the same bins.
    #[must_use]
    pub fn new(reference: &[u64], window: &[u64]) -> Self {
        debug_assert_eq!(reference.len(), window.len());
        let occupied = || std::iter::zip(reference, window).filter(|(e, a)| **e + **a > 0);
        let df = occupied().count().saturating_sub(1);
        let (n, m) = (reference.iter().sum::<u64>() as f64, window.iter().sum::<u64>() as f64);
        let (mut pearson, mut g) = (0.0, 0.0);
        if df == 0 || n == 0.0 || m == 0.0 {
            return Self { pearson, g, df };
        }
        for (&e, &a) in occupied() {
            for (seen, size) in [(e as f64, n), (a as f64, m)] {
                let expected = (e + a) as f64 * size / (n + m);
                pearson += (seen - expected) * (seen - expected) / expected;
                if seen > 0.0 {
                    g += 2.0 * seen * libm::log(seen / expected);
                }
            }
        }
        Self { pearson, g, df }
    }

    /// Degrees of freedom.
    #[must_use]
    pub fn df(&self) -> usize {
        self.df
    }

    /// The larger of Pearson's and the G test's p-value.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        // The smaller statistic has the larger p: one evaluation of the survival function is enough.
        self.survival(self.pearson.min(self.g))
    }

    /// Pearson's p-value alone, as other libraries give it.
    #[must_use]
    pub fn pearson_p_value(&self) -> f64 {
        self.survival(self.pearson)
    }

    /// G may round to just below 0; that is p = 1.
    fn survival(&self, statistic: f64) -> f64 {
        chi_squared(self.df).map_or(1.0, |distribution| distribution.sf(statistic))
    }
}

/// How the level of a check is shared among its features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Correction {
    /// Each feature has its share, level / m of m features (Bonferroni 1936): when nothing drifted, the chance that any feature is significant is
    /// at most the level, however the features depend on each other.
    #[default]
    Bonferroni,
    /// The false discovery rate (Benjamini and Hochberg 1995): of the features that are significant, the expected part without drift is at most
    /// the level, if the features are independent or depend positively (Benjamini and Yekutieli 2001). Finds more, and never less.
    BenjaminiHochberg,
}

impl Correction {
    /// The features of a check whose p-value is below this are significant.
    ///
    /// Benjamini and Hochberg reject the k smallest, with k the last rank whose p is below level * k / m. Then level * k / m is that cut-off: the k
    /// smallest are below it, and a p of a later rank j is not below level * j / m, which is more. Equal p-values fare alike. Below, and not at:
    /// as for one test.
    #[must_use]
    pub fn cutoff(self, level: f64, p_values: &[f64]) -> f64 {
        let features = p_values.len() as f64;
        let rank = match self {
            Self::Bonferroni => 1,
            Self::BenjaminiHochberg => {
                let mut sorted = p_values.to_vec();
                sorted.sort_unstable_by(f64::total_cmp);
                let is_below = |rank: &usize| sorted[rank - 1] < level * *rank as f64 / features;
                (1..=sorted.len()).rev().find(is_below).unwrap_or(1)
            }
        };
        level * rank as f64 / features
    }
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
    use proptest::prelude::*;

    use super::*;
    use Correction::{BenjaminiHochberg, Bonferroni};

    fn p_value(reference: &[u64], window: &[u64]) -> (f64, usize) {
        let test = TwoSampleTest::new(reference, window);
        (test.p_value(), test.df())
    }

    /// P-values of a check, many of them small, and some equal.
    fn p_values() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(
            prop_oneof![0.0..1.0_f64, 0.0..0.01_f64, (0..20_u32).prop_map(|p| f64::from(p) / 400.0)],
            1..30,
        )
    }

    fn significant(correction: Correction, level: f64, p_values: &[f64]) -> Vec<bool> {
        let cutoff = correction.cutoff(level, p_values);
        p_values.iter().map(|&p| p < cutoff).collect()
    }

    proptest! {
        #[test]
        fn benjamini_and_hochberg_find_whatever_bonferroni_finds(p_values in p_values(), level in 1e-6..0.5_f64) {
            let few = significant(Bonferroni, level, &p_values);
            let more = significant(BenjaminiHochberg, level, &p_values);
            prop_assert!(few.iter().zip(&more).all(|(few, more)| more >= few));
        }

        #[test]
        fn smaller_p_is_never_less_significant(p_values in p_values(), level in 1e-6..0.5_f64, at: prop::sample::Index, factor in 0.0..1.0_f64) {
            for correction in [Bonferroni, BenjaminiHochberg] {
                let before = significant(correction, level, &p_values);
                for (p, found) in p_values.iter().zip(&before) {
                    prop_assert!(p_values.iter().zip(&before).all(|(q, other)| q > p || other >= found), "within one check");
                }
                let mut smaller = p_values.clone();
                smaller[at.index(p_values.len())] *= factor;
                let after = significant(correction, level, &smaller);
                prop_assert!(before.iter().zip(&after).all(|(before, after)| after >= before), "from one check to another");
            }
        }

        #[test]
        fn cutoff_is_the_definition_of_the_step_up_procedure(p_values in p_values(), level in 1e-6..0.5_f64) {
            let m = p_values.len() as f64;
            let rank = |p: f64| p_values.iter().filter(|&&other| other <= p).count() as f64;
            // The largest p that is below its line; all that are no larger are significant.
            let last = p_values.iter().copied().filter(|&p| p < level * rank(p) / m).fold(f64::NEG_INFINITY, f64::max);
            let expected: Vec<bool> = p_values.iter().map(|&p| p <= last).collect();
            prop_assert_eq!(significant(BenjaminiHochberg, level, &p_values), expected);
        }
    }

    #[test]
    fn equal_p_values_share_the_line_of_the_last_of_them() {
        let level = 0.04;
        assert_eq!(significant(Bonferroni, level, &[0.03; 4]), [false; 4]);
        assert_eq!(significant(BenjaminiHochberg, level, &[0.03; 4]), [true; 4]);
        assert_eq!(
            significant(BenjaminiHochberg, level, &[0.04; 4]),
            [false; 4],
            "p must be below the line, not at it"
        );
        assert_eq!(significant(BenjaminiHochberg, level, &[0.03, 0.5, 0.03, 0.03]), [false; 4]);
    }

    #[test]
    fn one_feature_has_the_whole_level() {
        for correction in [Bonferroni, BenjaminiHochberg] {
            assert_eq!(correction.cutoff(0.001, &[0.5]), 0.001);
        }
    }

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
        assert!(TwoSampleTest::new(&[10_000, 0], &[99, 1]).pearson_p_value() < 1e-17);
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
