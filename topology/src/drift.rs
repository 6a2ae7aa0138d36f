//! From counts to a verdict: one check of one feature, and the summary of all features of a check.
//!
//! The status is that of the PSI against two thresholds, but a PSI that can be chance is `no_drift`: with significance on, a feature's p-value
//! must be below `significance / features`, so that the level holds for the check as a whole (Bonferroni), however many features it has.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::histogram::{Counts, Layout};
use crate::reference::Reference;
use crate::{psi, significance};

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// PSI below the first threshold, or not significant.
    NoDrift,
    /// PSI at or above the first threshold.
    PossibleDrift,
    /// PSI at or above the second threshold.
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

/// From which PSI on a check says what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// At or above: possible drift.
    pub possible_drift: f64,
    /// At or above: drift. Not below `possible_drift`.
    pub drift: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            possible_drift: 0.1,
            drift: 0.25,
        }
    }
}

impl Thresholds {
    /// The status of a PSI that is not chance.
    #[must_use]
    pub fn status(&self, psi: f64) -> Status {
        if psi >= self.drift {
            Status::Drift
        } else if psi >= self.possible_drift {
            Status::PossibleDrift
        } else {
            Status::NoDrift
        }
    }
}

/// What a check asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Criteria {
    /// From which PSI on.
    pub thresholds: Thresholds,
    /// The floor of a bin's fraction, above 0.
    pub epsilon: f64,
    /// The level of the check as a whole; 0 takes every PSI for what it is.
    pub significance: f64,
}

/// What a check found for one feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureCheck {
    /// The population stability index.
    pub psi: f64,
    /// That reference and window have one distribution.
    pub p_value: f64,
    /// What PSI is on average when nothing drifted.
    pub psi_null_mean: f64,
    /// Whether the p-value is below this feature's share of the level; `None` when significance is off.
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
    /// The mean of the features' PSI.
    pub psi: f64,
    /// The verdict on the mean.
    pub status: Status,
    /// Features checked.
    pub feature_count: u64,
    /// Those of them in [`Status::Drift`].
    pub drifted_features: u64,
}

impl Criteria {
    /// Checks one feature of a check of `features` features. Both slices hold its bins in order; neither is without records.
    #[must_use]
    pub fn check(&self, reference: &[u64], window: &[u64], features: usize) -> FeatureCheck {
        let contributions = psi::contributions(reference, window, self.epsilon);
        let psi = psi::sum(&contributions);
        let (p_value, df) = significance::p_value(reference, window);
        let significant = (self.significance > 0.0).then(|| p_value < self.significance / features as f64);
        FeatureCheck {
            psi,
            p_value,
            psi_null_mean: significance::psi_null_mean(df, reference.iter().sum(), window.iter().sum()),
            significant,
            status: self.status(psi, significant),
            top: top(&contributions),
        }
    }

    /// Checks every feature of a reference over a window, in the reference's order, and sums up. The window is of this layout, and not without records.
    #[must_use]
    pub fn check_all(&self, reference: &Reference, layout: &Layout, window: &impl Counts) -> (Vec<CheckedFeature>, Summary) {
        let features = reference.features();
        let checked: Vec<CheckedFeature> = features
            .iter()
            .enumerate()
            .map(|(index, feature)| {
                let counts = window.bins(layout, index);
                CheckedFeature {
                    check: self.check(feature.counts(), &counts, features.len()),
                    sides: (!feature.is_categorical()).then(|| window.sides(layout, index)),
                    counts,
                }
            })
            .collect();
        let checks: Vec<FeatureCheck> = checked.iter().map(|feature| feature.check).collect();
        let summary = self.summarize(&checks);
        (checked, summary)
    }

    /// Sums a check up: the mean PSI, which is `no_drift` when significance is on and no feature is significant.
    #[must_use]
    pub fn summarize(&self, checks: &[FeatureCheck]) -> Summary {
        // At least 1, so that a summary of nothing is 0 and not NaN.
        let count = checks.len().max(1) as f64;
        let psi = checks.iter().fold(0.0, |sum, check| sum + check.psi) / count;
        let significant = (self.significance > 0.0).then(|| checks.iter().any(|check| check.significant == Some(true)));
        Summary {
            psi,
            status: self.status(psi, significant),
            feature_count: checks.len() as u64,
            drifted_features: checks.iter().filter(|check| check.status == Status::Drift).count() as u64,
        }
    }

    fn status(&self, psi: f64, significant: Option<bool>) -> Status {
        if significant == Some(false) {
            Status::NoDrift
        } else {
            self.thresholds.status(psi)
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
mod tests {
    use super::*;

    fn criteria(significance: f64) -> Criteria {
        Criteria {
            thresholds: Thresholds::default(),
            epsilon: 1e-4,
            significance,
        }
    }

    fn found(psi: f64, significant: Option<bool>, status: Status) -> FeatureCheck {
        FeatureCheck {
            psi,
            p_value: 0.5,
            psi_null_mean: 0.01,
            significant,
            status,
            top: None,
        }
    }

    #[test]
    fn threshold_itself_belongs_to_the_higher_status() {
        let thresholds = Thresholds::default();
        assert_eq!(thresholds.status(0.1_f64.next_down()), Status::NoDrift);
        assert_eq!(thresholds.status(0.1), Status::PossibleDrift);
        assert_eq!(thresholds.status(0.25_f64.next_down()), Status::PossibleDrift);
        assert_eq!(thresholds.status(0.25), Status::Drift);
    }

    #[test]
    fn large_psi_that_can_be_chance_is_no_drift() {
        let check = criteria(0.001).check(&[500, 500], &[1, 0], 1);
        assert!(check.psi > 1.0);
        assert_eq!((check.significant, check.status), (Some(false), Status::NoDrift));
        let trusting = criteria(0.0).check(&[500, 500], &[1, 0], 1);
        assert_eq!((trusting.significant, trusting.status), (None, Status::Drift));
    }

    #[test]
    fn level_is_shared_among_the_features_of_a_check() {
        let (reference, window) = ([5000, 5000], [70, 30]);
        let p = criteria(0.001).check(&reference, &window, 1).p_value;
        let level = p * 1.5;
        assert_eq!(criteria(level).check(&reference, &window, 1).significant, Some(true));
        assert_eq!(criteria(level).check(&reference, &window, 2).significant, Some(false));
        assert_eq!(
            criteria(p).check(&reference, &window, 1).significant,
            Some(false),
            "p must be below the level, not at it"
        );
    }

    #[test]
    fn top_bin_is_the_first_of_equals_and_absent_when_psi_is_zero() {
        assert_eq!(top(&[0.0, 0.2, 0.1, 0.2]), Some((1, 0.2)));
        assert_eq!(criteria(0.0).check(&[5, 5], &[5, 5], 1).top, None);
    }

    #[test]
    fn summary_needs_one_significant_feature() {
        let quiet = found(0.5, Some(false), Status::NoDrift);
        let loud = found(0.3, Some(true), Status::Drift);
        assert_eq!(criteria(0.001).summarize(&[quiet, quiet]).status, Status::NoDrift);
        let summary = criteria(0.001).summarize(&[quiet, loud]);
        assert_eq!(
            summary,
            Summary {
                psi: 0.4,
                status: Status::Drift,
                feature_count: 2,
                drifted_features: 1
            }
        );
        let trusting = found(0.3, None, Status::Drift);
        assert_eq!(criteria(0.0).summarize(&[trusting]).status, Status::Drift);
    }

    #[test]
    fn texts_of_a_status_are_one() {
        for status in [Status::NoDrift, Status::PossibleDrift, Status::Drift] {
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("{:?}", status.as_str()));
        }
    }
}
