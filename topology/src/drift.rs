//! From counts to a verdict: one check of one feature, and the summary of all features of a check.
//!
//! ```text
//! counts --psi, metrics--> values --thresholds--\
//!        --two-sample test--> p-values of all features --correction--> significant? --> status --> summary
//! ```
//!
//! The status is that of the deciding metric, PSI unless somebody says otherwise, against two thresholds. But what can be chance is `no_drift`: with
//! significance on, the p-value must be below a cut-off by which the level holds for the check as a whole, however many features it has.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::histogram::{Counts, Layout};
use crate::metric::{self, Measurements, Metric};
use crate::psi;
use crate::reference::{FeatureReference, Reference};
use crate::significance::{TwoSampleTest, psi_null_mean};

mod criteria;

pub use criteria::{Criteria, InvalidCriteria, SummaryRule};

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Below the first threshold, or not significant.
    NoDrift,
    /// At or above the first threshold.
    PossibleDrift,
    /// At or above the second threshold.
    Drift,
}

impl Status {
    /// Its text in events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoDrift => "no_drift",
            Self::PossibleDrift => "possible_drift",
            Self::Drift => "drift",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// From which value of the deciding metric on a check says what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// At or above: possible drift.
    pub possible_drift: f64,
    /// At or above: drift. Not below `possible_drift`.
    pub drift: f64,
}

/// Those of PSI by convention (Siddiqi 2006, "Credit risk scorecards").
impl Default for Thresholds {
    fn default() -> Self {
        Self {
            possible_drift: 0.1,
            drift: 0.25,
        }
    }
}

impl Thresholds {
    /// The status of a value that is not chance.
    #[must_use]
    pub fn status(&self, value: f64) -> Status {
        if value >= self.drift {
            Status::Drift
        } else if value >= self.possible_drift {
            Status::PossibleDrift
        } else {
            Status::NoDrift
        }
    }
}

/// What a check found for one feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureCheck {
    /// The population stability index.
    pub psi: f64,
    /// The metrics beside it.
    pub measurements: Measurements,
    /// That reference and window have one distribution.
    pub p_value: f64,
    /// What PSI is on average when nothing drifted.
    pub psi_null_mean: f64,
    /// Whether the p-value is below the check's cut-off; `None` when significance is off.
    pub significant: Option<bool>,
    /// The verdict.
    pub status: Status,
    /// The bin that contributes most to the PSI (the first of equals) and what it contributes; `None` when PSI is 0.
    pub top: Option<(usize, f64)>,
}

/// What a check found for one feature, and the counts that it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedFeature {
    /// The verdict.
    pub check: FeatureCheck,
    /// The window's bins, as [`crate::reference::FeatureReference::counts`] has the reference's.
    pub counts: Vec<u64>,
    /// Values below and above the reference's range; `None` for categories.
    pub sides: Option<(u64, u64)>,
}

/// What a check found over all its features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The weighted mean of the features' PSI.
    pub psi: f64,
    /// The verdict, by [`Criteria::summary`].
    pub status: Status,
    /// Features checked.
    pub feature_count: u64,
    /// Those of them in [`Status::Drift`].
    pub drifted_features: u64,
}

/// What is counted of one feature before the verdict, which depends on all features' p-values.
struct Counted {
    counts: Vec<u64>,
    sides: Option<(u64, u64)>,
    test: TwoSampleTest,
    p_value: f64,
}

impl Criteria {
    /// Checks every feature of a reference over a window, in the reference's order, and sums up. The window is of this layout, and not without records.
    #[must_use]
    pub fn check_all(&self, reference: &Reference, layout: &Layout, window: &impl Counts) -> (Vec<CheckedFeature>, Summary) {
        let features = reference.features();
        let counted: Vec<Counted> = features
            .iter()
            .enumerate()
            .map(|(index, feature)| {
                let counts = window.bins(layout, index);
                let test = TwoSampleTest::new(feature.counts(), &counts);
                Counted {
                    sides: (!feature.is_categorical()).then(|| window.sides(layout, index)),
                    p_value: test.p_value(),
                    counts,
                    test,
                }
            })
            .collect();
        let cutoff = (self.significance > 0.0).then(|| {
            let p_values: Vec<f64> = counted.iter().map(|counted| counted.p_value).collect();
            self.correction.cutoff(self.significance, &p_values)
        });
        let checked: Vec<CheckedFeature> = std::iter::zip(features, counted)
            .map(|(feature, counted)| self.check(feature, counted, cutoff))
            .collect();
        let summary = self.summarize(features, &checked);
        (checked, summary)
    }

    /// Checks one feature; significant is what has a p-value below `cutoff`.
    fn check(&self, feature: &FeatureReference, counted: Counted, cutoff: Option<f64>) -> CheckedFeature {
        let Counted {
            counts,
            sides,
            test,
            p_value,
        } = counted;
        let contributions = psi::contributions(feature.counts(), &counts, self.epsilon);
        let psi = psi::sum(&contributions);
        let measurements = self.measure(feature, &counts, sides.unwrap_or_default(), &test);
        let significant = cutoff.map(|cutoff| p_value < cutoff);
        let status = match self.decision(feature) {
            _ if significant == Some(false) => Status::NoDrift,
            (Metric::Psi, thresholds) => thresholds.status(psi),
            (metric, thresholds) => match measurements.get(metric) {
                Some(value) => thresholds.status(value),
                None => self.thresholds_of(Metric::Psi).status(psi),
            },
        };
        let check = FeatureCheck {
            psi,
            measurements,
            p_value,
            psi_null_mean: psi_null_mean(test.df(), feature.counts().iter().sum(), counts.iter().sum()),
            significant,
            status,
            top: top(&contributions),
        };
        CheckedFeature { check, counts, sides }
    }

    /// The metrics beside PSI that are asked for.
    fn measure(&self, feature: &FeatureReference, window: &[u64], sides: (u64, u64), test: &TwoSampleTest) -> Measurements {
        let (bins, reference) = (feature.bins(), feature.counts());
        let asks_for = |metric| self.asks_for(metric);
        Measurements {
            js: asks_for(Metric::Js).then(|| metric::js_distance(reference, window)).flatten(),
            ks: asks_for(Metric::Ks).then(|| metric::ks(bins, reference, window, sides)).flatten(),
            wasserstein: asks_for(Metric::Wasserstein)
                .then(|| metric::wasserstein(bins, reference, window, sides))
                .flatten(),
            chi2_p_value: asks_for(Metric::Chi2).then(|| test.pearson_p_value()),
        }
    }

    /// Sums a check up; `no_drift` when significance is on and no feature is significant.
    fn summarize(&self, features: &[FeatureReference], checked: &[CheckedFeature]) -> Summary {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (feature, CheckedFeature { check, .. }) in std::iter::zip(features, checked) {
            let weight = self.weight(feature);
            sum += weight * check.psi;
            weights += weight;
        }
        // A summary of nothing is 0 and not NaN.
        let psi = if weights > 0.0 { sum / weights } else { 0.0 };
        let at_least = |status| checked.iter().filter(|feature| feature.check.status >= status).count() as u64;
        let reaches = |status, share| at_least(status) as f64 / checked.len() as f64 >= share;
        let status = match self.summary {
            _ if checked.iter().all(|feature| feature.check.significant == Some(false)) => Status::NoDrift,
            SummaryRule::Mean => self.thresholds_of(Metric::Psi).status(psi),
            SummaryRule::Share { at_least } if reaches(Status::Drift, at_least) => Status::Drift,
            SummaryRule::Share { at_least } if reaches(Status::PossibleDrift, at_least) => Status::PossibleDrift,
            SummaryRule::Share { .. } => Status::NoDrift,
        };
        Summary {
            psi,
            status,
            feature_count: checked.len() as u64,
            drifted_features: at_least(Status::Drift),
        }
    }
}

/// The first of the largest contributions, if it is above 0.
fn top(contributions: &[f64]) -> Option<(usize, f64)> {
    let mut top = None;
    for (bin, &contribution) in contributions.iter().enumerate() {
        if contribution > top.map_or(0.0, |(_, most)| most) {
            top = Some((bin, contribution));
        }
    }
    top
}

#[cfg(test)]
mod tests;
