//! Measures beside PSI, on PSI's bins: how far a window is from its reference in the eyes of other tools.
//!
//! | metric | what it is | source |
//! | --- | --- | --- |
//! | `js` | Jensen-Shannon distance to base 2, 0 to 1 | Lin 1991; that its root is a distance: Endres and Schindelin 2003 |
//! | `ks` | largest difference of the cumulative fractions, 0 to 1 | Kolmogorov 1933, Smirnov 1939 |
//! | `wasserstein` | area between the cumulative fractions, in the feature's unit | Vaserstein 1969; that it is this area: Vallender 1974 |
//! | `chi2` | p-value of Pearson's two-sample test | Pearson 1900: [`crate::significance`] |
//!
//! - `js` and `chi2` are of all bins, `other` and missing included: exactly what they are on these categories.
//! - `ks` and `wasserstein` are of the values in their order, so categories have neither, and missing values are in neither. From counts they are
//!   known up to what the bins hide; the bounds are proven at [`ks`] and [`wasserstein`].
//! - What is not defined is `None`, and never NaN: then an event has null.

use std::fmt;
use std::iter::once;
use std::str::FromStr;

use crate::binning::Bins;

/// A measure of drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// The population stability index: see [`crate::psi`].
    Psi,
    /// The Jensen-Shannon distance: see [`js_distance`].
    Js,
    /// The Kolmogorov-Smirnov statistic: see [`ks`].
    Ks,
    /// The Wasserstein distance: see [`wasserstein`].
    Wasserstein,
    /// Pearson's p-value: see [`crate::significance::TwoSampleTest::pearson_p_value`].
    Chi2,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Psi, Self::Js, Self::Ks, Self::Wasserstein, Self::Chi2];

    /// Its name in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Psi => "psi",
            Self::Js => "js",
            Self::Ks => "ks",
            Self::Wasserstein => "wasserstein",
            Self::Chi2 => "chi2",
        }
    }

    /// Whether a feature with these bins has it: categories have no order, and so neither `ks` nor `wasserstein`.
    #[must_use]
    pub fn is_defined_for(self, bins: &Bins) -> bool {
        !matches!((self, bins), (Self::Ks | Self::Wasserstein, Bins::Categorical { .. }))
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A metric that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric {0:?}: allowed are psi, js, ks, wasserstein, chi2")]
pub struct UnknownMetric(String);

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(text: &str) -> Result<Self, UnknownMetric> {
        let known = Self::ALL.into_iter().find(|metric| metric.as_str() == text);
        known.ok_or_else(|| UnknownMetric(text.to_owned()))
    }
}

/// What the metrics beside PSI say of one feature; `None` where one is not asked for, or not defined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measurements {
    /// See [`js_distance`].
    pub js: Option<f64>,
    /// See [`ks`].
    pub ks: Option<f64>,
    /// See [`wasserstein`].
    pub wasserstein: Option<f64>,
    /// Pearson's p-value; never `None` when asked for.
    pub chi2_p_value: Option<f64>,
}

impl Measurements {
    /// That of one metric. PSI is not among them.
    #[must_use]
    pub fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Psi => None,
            Metric::Js => self.js,
            Metric::Ks => self.ks,
            Metric::Wasserstein => self.wasserstein,
            Metric::Chi2 => self.chi2_p_value,
        }
    }
}

/// The Jensen-Shannon distance of a window: with p and q the fractions of a bin in reference and window and m = (p + q) / 2, the root of
/// sum(p * log2(p / m) + q * log2(q / m)) / 2. 0 for equal fractions, 1 when no bin has records of both. `None` when a side has no records.
#[must_use]
pub fn js_distance(reference: &[u64], window: &[u64]) -> Option<f64> {
    let (n, m) = (reference.iter().sum::<u64>() as f64, window.iter().sum::<u64>() as f64);
    if n == 0.0 || m == 0.0 {
        return None;
    }
    let divergence = std::iter::zip(reference, window).fold(0.0, |sum, (&e, &a)| {
        let (p, q) = (e as f64 / n, a as f64 / m);
        let middle = (p + q) / 2.0;
        let term = |share: f64| if share > 0.0 { share * libm::log2(share / middle) } else { 0.0 };
        sum + (term(p) + term(q)) / 2.0
    });
    // Rounding may leave the interval by an ulp.
    Some(divergence.clamp(0.0, 1.0).sqrt())
}

/// The Kolmogorov-Smirnov statistic of a window: the largest difference of the cumulative fractions F of the reference and G of the window, at
/// the ends of the bins and of the reference's range. `sides` are the window's values below and above that range.
///
/// **Not above the one of the values, and below it by no more than the largest of all bins' smaller mass, max over i of min(p_i, q_i).** Proof:
/// bins are closed on the right, so at their ends F and G are exact, and the largest of some differences is not above the largest of all. Take x
/// in the bin (l, r] with masses p and q. F(x) - G(x) <= F(r) - G(l) = F(r) - G(r) + q, and also <= F(l) + p - G(l); so it is at most min(p, q)
/// above a difference that was looked at. The same with F and G exchanged. What lies beside the range is in the window alone: no error there, nor
/// in a bin that is one value wide within the range.
///
/// A discrete feature has no error within its bins. Where its `other` values lie is known beside the range only; those within it are left
/// out, with fraction o of the window's values, which moves G, and so the statistic, by at most o.
///
/// `None` for categories, and when a side has no values whose place is known.
#[must_use]
pub fn ks(bins: &Bins, reference: &[u64], window: &[u64], sides: (u64, u64)) -> Option<f64> {
    gaps(bins, reference, window, sides)?.into_iter().reduce(f64::max)
}

/// The Wasserstein distance (of order 1) of a window, in the feature's unit: the area between the cumulative fractions F and G, with the mass of
/// each bin in its middle. The outer bins end where the reference's range does, and what lies beside the range stands at its end.
///
/// **From the one of the values it differs by at most sum over i of (p_i + q_i) * w_i / 2, with w_i the width of bin i within the range, and it
/// may be smaller by the mean distance of the window's values from the range.** Proof: moving each value to its place costs no more than how
/// far it moves, half a bin's width, and for those beside the range as far as they are from it; the distance is a metric, so by the triangle
/// inequality it changes by no more than both samples' costs. Only the reference's bins are known, so how far the window reaches beyond its
/// range is not; `below_range_count` and `above_range_count` say how many do.
///
/// A discrete feature has no widths. Its `other` values within the range are left out as by [`ks`]: an error of at most o times the range.
///
/// `None` where [`ks`] is, when the range is not known, when it is one value (all would stand there, and a constant that moves would have distance
/// 0), and when the area is beyond the doubles.
#[must_use]
pub fn wasserstein(bins: &Bins, reference: &[u64], window: &[u64], sides: (u64, u64)) -> Option<f64> {
    let places = places(bins)?;
    let steps = places.windows(2).map(|pair| pair[1] - pair[0]);
    let area = gaps(bins, reference, window, sides)?
        .iter()
        .zip(steps)
        .fold(0.0, |sum, (gap, step)| sum + gap * step);
    area.is_finite().then_some(area)
}

/// |F - G| after each part of the numbers, see [`parts`].
fn gaps(bins: &Bins, reference: &[u64], window: &[u64], sides: (u64, u64)) -> Option<Vec<f64>> {
    // The range is that of the reference's own values.
    let (reference, window) = (parts(bins, reference, (0, 0))?, parts(bins, window, sides)?);
    let total = |parts: &[u64]| parts.iter().map(|&count| u128::from(count)).sum::<u128>();
    let (n, m) = (total(&reference), total(&window));
    if n == 0 || m == 0 {
        return None;
    }
    let (mut f, mut g) = (0, 0);
    let gap = |(e, a)| {
        f += u128::from(e);
        g += u128::from(a);
        // In integers, so that fractions that are equal have no gap.
        (f * m).abs_diff(g * n) as f64 / (n * m) as f64
    };
    Some(std::iter::zip(reference, window).map(gap).collect())
}

/// The counts of the numbers in their order: below the range, each bin without what lies beside the range, above it.
fn parts(bins: &Bins, counts: &[u64], (below, above): (u64, u64)) -> Option<Vec<u64>> {
    let within: Vec<u64> = match bins {
        Bins::Edges { edges, .. } => {
            let mut within = counts.get(..=edges.len())?.to_vec();
            // The values below the range are the smallest there are.
            take(within.iter_mut(), below);
            take(within.iter_mut().rev(), above);
            within
        }
        Bins::Discrete { values, range } => {
            // Those beside the range are `other` values, but for a document whose range is not that of its values.
            let beside = |value| range.is_some_and(|(low, high)| value < low || value > high);
            let known = std::iter::zip(values.iter(), counts);
            known.map(|(value, count)| if beside(*value) { 0 } else { *count }).collect()
        }
        Bins::Categorical { .. } => return None,
    };
    Some(once(below).chain(within).chain(once(above)).collect())
}

/// Takes so many records out of these bins, from the first on.
fn take<'a>(bins: impl Iterator<Item = &'a mut u64>, mut records: u64) {
    for count in bins {
        let taken = records.min(*count);
        *count -= taken;
        records -= taken;
    }
}

/// Where the parts stand, see [`parts`].
fn places(bins: &Bins) -> Option<Vec<f64>> {
    let (low, high) = bins.range().filter(|(low, high)| low < high)?;
    let inside = |value: &f64| value.max(low).min(high);
    let within: Vec<f64> = match bins {
        Bins::Edges { edges, .. } => {
            let ends: Vec<f64> = once(low).chain(edges.iter().map(inside)).chain(once(high)).collect();
            ends.windows(2).map(|pair| pair[0].midpoint(pair[1])).collect()
        }
        Bins::Discrete { values, .. } => values.iter().map(inside).collect(),
        Bins::Categorical { .. } => return None,
    };
    Some(once(low).chain(within).chain(once(high)).collect())
}

#[cfg(test)]
mod tests;
