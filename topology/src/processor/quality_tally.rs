//! What quality checks keep of one window: each feature's last verdict, and the values that fell into `other` since.
//!
//! A window has one while its monitor has a limit, and its checks are told: else nothing is kept, in memory or in the store. It is written behind its
//! window's head and read with it, so that a restart changes no event.

use std::sync::Arc;

use super::measure::Measure;
use super::place::Place;
use crate::decoder::WatchedValue;
use crate::event::Scope;
use crate::quality::{Example, FrequentValues, QualityStatus};
use crate::state::{FeatureQualityHead, QualityHead};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QualityTally {
    /// Of the features of [`Measure::watched`], in that order.
    pub(super) features: Vec<FeatureTally>,
}

/// What is kept of one feature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FeatureTally {
    pub(super) status: Option<QualityStatus>,
    /// `None`: no examples are wanted, or nobody here sees the values.
    pub(super) others: Option<FrequentValues>,
}

impl QualityTally {
    /// Of a window without a check; `None`: nothing is to be kept.
    pub(super) fn new(place: &Place, measure: &Measure) -> Option<Box<Self>> {
        if measure.watched.is_empty() || !place.tells() {
            return None;
        }
        // Panes hold counts, and no values.
        let sees_values = place.scope == Scope::Partition;
        let features = measure.watched.iter().map(|watched| FeatureTally {
            status: None,
            others: (sees_values && watched.wants_examples()).then(FrequentValues::default),
        });
        Some(Box::new(Self {
            features: features.collect(),
        }))
    }

    /// Takes over what was stored, by the same reference, of the features that still have a limit.
    pub(super) fn restore(&mut self, measure: &Measure, stored: QualityHead) {
        for FeatureQualityHead { name, status, examples } in stored.features {
            let at = measure.watched.iter().position(|watched| *measure.name(watched) == name);
            let Some(feature) = at.and_then(|at| self.features.get_mut(at)) else {
                continue;
            };
            feature.status = status;
            if let Some(others) = &mut feature.others {
                *others = FrequentValues::restore(examples);
            }
        }
    }

    /// Counts what one record has in `other`: `values` are those of [`Measure::exemplified`].
    pub(super) fn observe(&mut self, values: &[WatchedValue]) {
        if values.is_empty() {
            return;
        }
        let others = self.features.iter_mut().filter_map(|feature| feature.others.as_mut());
        for (others, value) in std::iter::zip(others, values) {
            if let Some(value) = value.get() {
                others.push(value);
            }
        }
    }

    /// What a check writes of a feature, with its verdict before this one. From here on values are counted anew.
    pub(super) fn checked(&mut self, feature: usize, status: QualityStatus) -> (Option<QualityStatus>, Option<Vec<Example>>) {
        let Some(feature) = self.features.get_mut(feature) else {
            return (None, None);
        };
        let examples = feature.others.as_mut().map(|others| {
            let examples = others.examples();
            others.clear();
            examples
        });
        (feature.status.replace(status), examples)
    }

    /// What is to be stored.
    pub(super) fn head(&self, measure: &Measure) -> QualityHead {
        let features = std::iter::zip(&measure.watched, &self.features).map(|(watched, feature)| FeatureQualityHead {
            name: Arc::clone(measure.name(watched)),
            status: feature.status,
            examples: feature.others.as_ref().map(FrequentValues::examples).unwrap_or_default(),
        });
        QualityHead {
            features: features.collect(),
        }
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let others = self.features.iter().filter_map(|feature| feature.others.as_ref());
        size_of::<Self>() + self.features.len() * size_of::<FeatureTally>() + others.map(FrequentValues::memory_bytes).sum::<usize>()
    }
}
