//! Random references and windows of features that are normal and independent, with nothing else random about them.
//!
//! References are samples of values, binned by the real builder. Windows are counts, drawn by the probabilities that these bins have: what counting
//! so many values would give, and faster. Quantile bins hold the same parts of any continuous distribution: without a shift it does not matter that
//! this one is normal.

use std::iter::once;

use leeway_topology::binning::{Binning, Bins};
use leeway_topology::drift::{CheckedFeature, Criteria, Summary};
use leeway_topology::histogram::{Counts, Layout};
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};
use rand::rngs::StdRng;
use rand_distr::{Binomial, Distribution as _, StandardNormal};
use statrs::distribution::{ContinuousCDF as _, Normal};

/// A reference of standard normal features, made from so many rows.
pub(crate) fn reference(rows: u64, features: usize, bins: usize, random: &mut StdRng) -> Reference {
    let columns: Vec<_> = (0..features).map(|feature| (format!("f{feature}"), ColumnType::Number)).collect();
    let mut builder = ReferenceBuilder::new("calibrate", &columns, &Binning::Quantile { bins }, &[], 50).unwrap();
    for _ in 0..rows {
        builder.push_row((0..features).map(|_| Cell::Number(StandardNormal.sample(random))));
    }
    builder.finish().unwrap().0
}

/// Where windows of a reference's features come from: for each feature and bin, the chance that a record falls there when it fell into no earlier
/// bin.
pub(crate) struct Source(Vec<Vec<f64>>);

impl Source {
    /// Normal features with this mean, which is 0 in the reference.
    pub(crate) fn new(reference: &Reference, mean: f64) -> Self {
        let normal = Normal::new(mean, 1.0).unwrap();
        let chances = |bins: &Bins| {
            let Bins::Edges { edges, .. } = bins else {
                unreachable!("quantile bins have edges")
            };
            let beyond: Vec<f64> = once(1.0).chain(edges.iter().map(|&edge| normal.sf(edge))).chain(once(0.0)).collect();
            beyond.windows(2).map(|pair| 1.0 - pair[1] / pair[0]).collect()
        };
        Self(reference.features().iter().map(|feature| chances(feature.bins())).collect())
    }

    /// A window of so many records.
    pub(crate) fn window(&self, records: u64, random: &mut StdRng) -> Vec<Vec<u64>> {
        let count = |chances: &Vec<f64>| {
            let mut left = records;
            let mut take = |&chance: &f64| {
                let count = Binomial::new(left, chance).unwrap().sample(random);
                left -= count;
                count
            };
            // None is missing.
            chances.iter().map(&mut take).chain(once(0)).collect()
        };
        self.0.iter().map(count).collect()
    }
}

/// Checks a window by the code that checks windows in the stream.
pub(crate) fn check(criteria: &Criteria, reference: &Reference, window: &[Vec<u64>]) -> (Vec<CheckedFeature>, Summary) {
    criteria.check_all(reference, &Layout::new(window.iter().map(Vec::len)), &Window(window))
}

/// Counts of each feature's bins.
struct Window<'a>(&'a [Vec<u64>]);

impl Counts for Window<'_> {
    fn records(&self) -> u64 {
        self.0.first().map_or(0, |bins| bins.iter().sum())
    }

    fn bins(&self, _: &Layout, feature: usize) -> Vec<u64> {
        self.0[feature].clone()
    }

    fn sides(&self, _: &Layout, _: usize) -> (u64, u64) {
        // Not drawn: PSI and p-values are of the bins.
        (0, 0)
    }
}
