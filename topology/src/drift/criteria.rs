//! What a check asks: the settings of a monitor that may change between two checks.

use std::collections::{BTreeMap, BTreeSet};

use super::Thresholds;
use crate::metric::Metric;
use crate::reference::FeatureReference;
use crate::significance::Correction;

/// The largest weight: far above any use, and sums of weights stay far from the largest double.
const WEIGHT_MAX: f64 = 1e9;

/// What a check asks.
///
/// **One metric decides on each feature**: `decided_by`, or PSI where a feature's kind has no such metric (`ks` and `wasserstein` of categories).
/// Thresholds are in the unit of the metric that decides. Where the deciding metric is not defined in one check, say because all values are
/// missing, PSI decides it: a feature is never without a verdict, and values that are gone are drift. Wherever PSI decides in place of another
/// metric its thresholds are the defaults, but for a feature that has its own: these are PSI's if PSI always decides on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Criteria {
    /// Metrics to measure. PSI is always measured, and so is the one that decides.
    pub metrics: BTreeSet<Metric>,
    /// The metric that decides.
    pub decided_by: Metric,
    /// From which value of that metric on.
    pub thresholds: Thresholds,
    /// Features with thresholds of their own.
    pub feature_thresholds: BTreeMap<String, Thresholds>,
    /// The floor of a bin's fraction in PSI, above 0.
    pub epsilon: f64,
    /// The level of the check as a whole; 0 takes every value for what it is.
    pub significance: f64,
    /// How that level is shared among the features.
    pub correction: Correction,
    /// What makes the summary's status.
    pub summary: SummaryRule,
    /// Features that count more or less than others in the summary's mean; others have weight 1.
    pub weights: BTreeMap<String, f64>,
}

impl Default for Criteria {
    fn default() -> Self {
        Self {
            metrics: BTreeSet::from([Metric::Psi]),
            decided_by: Metric::Psi,
            thresholds: Thresholds::default(),
            feature_thresholds: BTreeMap::new(),
            epsilon: 1e-4,
            significance: 1e-3,
            correction: Correction::default(),
            summary: SummaryRule::default(),
            weights: BTreeMap::new(),
        }
    }
}

/// What makes the status of a summary. Its PSI is the weighted mean in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum SummaryRule {
    /// The mean PSI against PSI's thresholds, also where another metric decides on the features: means of other metrics are no such metric, and
    /// Wasserstein distances have units that differ.
    #[default]
    Mean,
    /// How many features drift: drift when at least this part of them is in drift, possible drift when at least this part is in drift or
    /// possible drift.
    Share {
        /// The part, above 0 and at most 1.
        at_least: f64,
    },
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidCriteria {
    /// A threshold is not positive and finite, or they are in the wrong order.
    #[error(
        "thresholds{} possible_drift = {} and drift = {}: both must be above 0, drift not below possible_drift",
        .feature.as_ref().map_or_else(String::new, |feature| format!(" of feature {feature:?}:")), .thresholds.possible_drift, .thresholds.drift
    )]
    Thresholds {
        /// `None`: those of all features without their own.
        feature: Option<String>,
        /// The thresholds.
        thresholds: Thresholds,
    },
    /// A metric that cannot decide.
    #[error(
        "decided_by = \"chi2\": a p-value says how sure a change is and not how large, and in large windows every change is sure; \
         decide by psi, js, ks or wasserstein, and `significance` asks for a p-value beside it"
    )]
    DecidedByChi2,
    /// Outside (0, 1).
    #[error("epsilon = {0}: must be above 0 and below 1")]
    Epsilon(f64),
    /// Outside [0, 1).
    #[error("significance = {0}: must be at least 0 (off) and below 1")]
    Significance(f64),
    /// Outside (0, 1].
    #[error("summary at_least = {0}: must be above 0 and at most 1")]
    AtLeast(f64),
    /// Not a weight.
    #[error("weight of feature {feature:?} = {weight}: must be above 0 and at most {WEIGHT_MAX}")]
    Weight {
        /// Whose.
        feature: String,
        /// The value.
        weight: f64,
    },
}

impl Criteria {
    /// Checks the settings that their types do not.
    ///
    /// # Errors
    /// The first one that makes no sense, with its value.
    pub fn validate(&self) -> Result<(), InvalidCriteria> {
        let own = self.feature_thresholds.iter().map(|(feature, thresholds)| (Some(feature), thresholds));
        for (feature, &thresholds) in std::iter::once((None, &self.thresholds)).chain(own) {
            let Thresholds { possible_drift, drift } = thresholds;
            if !(possible_drift > 0.0 && drift >= possible_drift && drift.is_finite()) {
                return Err(InvalidCriteria::Thresholds {
                    feature: feature.cloned(),
                    thresholds,
                });
            }
        }
        if self.decided_by == Metric::Chi2 {
            return Err(InvalidCriteria::DecidedByChi2);
        }
        if !(self.epsilon > 0.0 && self.epsilon < 1.0) {
            return Err(InvalidCriteria::Epsilon(self.epsilon));
        }
        if !(0.0..1.0).contains(&self.significance) {
            return Err(InvalidCriteria::Significance(self.significance));
        }
        match self.summary {
            SummaryRule::Share { at_least } if !(at_least > 0.0 && at_least <= 1.0) => return Err(InvalidCriteria::AtLeast(at_least)),
            SummaryRule::Share { .. } | SummaryRule::Mean => {}
        }
        match self.weights.iter().find(|(_, weight)| !(**weight > 0.0 && **weight <= WEIGHT_MAX)) {
            None => Ok(()),
            Some((feature, &weight)) => Err(InvalidCriteria::Weight {
                feature: feature.clone(),
                weight,
            }),
        }
    }

    /// The features that have settings of their own: a reference must have them, see [`crate::reference::Reference::require`].
    pub fn named_features(&self) -> impl Iterator<Item = &String> {
        self.feature_thresholds.keys().chain(self.weights.keys())
    }

    /// The metric that decides on a feature, and its thresholds.
    #[must_use]
    pub fn decision(&self, feature: &FeatureReference) -> (Metric, Thresholds) {
        let metric = if self.decided_by.is_defined_for(feature.bins()) {
            self.decided_by
        } else {
            Metric::Psi
        };
        let own = self.feature_thresholds.get(&**feature.name());
        (metric, own.copied().unwrap_or_else(|| self.thresholds_of(metric)))
    }

    /// Of all features without their own.
    pub(super) fn thresholds_of(&self, metric: Metric) -> Thresholds {
        if metric == self.decided_by {
            self.thresholds
        } else {
            Thresholds::default()
        }
    }

    /// Whether a metric is to be measured.
    pub(super) fn asks_for(&self, metric: Metric) -> bool {
        metric == self.decided_by || self.metrics.contains(&metric)
    }

    /// A feature's weight in the mean.
    pub(super) fn weight(&self, feature: &FeatureReference) -> f64 {
        self.weights.get(&**feature.name()).copied().unwrap_or(1.0)
    }
}
