//! The quality of data beside its drift: what part of a window's values is missing, known to nobody, or out of range.
//!
//! ```text
//! counts of a window --shares--> missing, other, out of range --limits--> ok | violated
//! values in `other` --[`FrequentValues`]--> examples
//! ```
//!
//! Drift asks whether a distribution is still that of the reference, and takes chance into account. Quality asks whether a share is still bearable,
//! whatever the reference had: a limit is somebody's decision, and chance does not excuse it. No limit is set unless somebody does.
//!
//! Shares are arithmetic on the counts that a check has anyway. Only examples need values: those of features with a limit for `other`, see
//! [`crate::decoder::Decoder::with_watched_features`].

use std::collections::BTreeMap;
use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::binning::Bins;
use crate::histogram::{Counts, Layout};
use crate::reference::FeatureReference;

/// Values whose examples are kept, of one feature.
pub const EXAMPLES_MAX: usize = 8;

/// Bytes of an example; longer values are cut there, or before, where a character ends.
pub const EXAMPLE_BYTES_MAX: usize = 64;

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "snake_case")]
pub enum QualityStatus {
    /// Every share is below its limit.
    Ok,
    /// At least one is not.
    Violated,
}

impl QualityStatus {
    /// With these violations.
    #[must_use]
    pub fn of(violations: &[Violation]) -> Self {
        if violations.is_empty() { Self::Ok } else { Self::Violated }
    }

    /// Its text in events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Violated => "violated",
        }
    }
}

impl fmt::Display for QualityStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// They are missing.
    Missing,
    /// The reference does not name them.
    Other,
    /// They lie beside the reference's range.
    OutOfRange,
}

impl Violation {
    /// All of them, in the order of an event.
    pub const ALL: [Self; 3] = [Self::Missing, Self::Other, Self::OutOfRange];

    /// Its text in events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Other => "other",
            Self::OutOfRange => "out_of_range",
        }
    }
}

/// A number for each kind of fault, or none: limits, or shares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ByViolation {
    /// Of missing values.
    pub missing: Option<f64>,
    /// Of values that the reference does not name.
    pub other: Option<f64>,
    /// Of values beside the reference's range.
    pub out_of_range: Option<f64>,
}

impl ByViolation {
    /// That of one kind.
    #[must_use]
    pub fn get(&self, violation: Violation) -> Option<f64> {
        match violation {
            Violation::Missing => self.missing,
            Violation::Other => self.other,
            Violation::OutOfRange => self.out_of_range,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// From which share on a fault is a violation. Off by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality {
    /// Limits of all features without their own.
    pub limits: ByViolation,
    /// Features with limits of their own: these, and no others.
    pub feature_limits: BTreeMap<String, ByViolation>,
}

/// A limit that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "quality{}: {} = {share}: must be above 0 and at most 1",
    .feature.as_ref().map_or_else(String::new, |feature| format!(" of feature {feature:?}")), .violation.as_str()
)]
pub struct InvalidQuality {
    /// `None`: of all features without their own.
    pub feature: Option<String>,
    /// Of what.
    pub violation: Violation,
    /// The value.
    pub share: f64,
}

impl Quality {
    /// Checks the limits.
    ///
    /// # Errors
    /// The first one that makes no sense, with its value.
    pub fn validate(&self) -> Result<(), InvalidQuality> {
        let own = self.feature_limits.iter().map(|(feature, limits)| (Some(feature), limits));
        for (feature, limits) in std::iter::once((None, &self.limits)).chain(own) {
            for violation in Violation::ALL {
                if let Some(share) = limits.get(violation).filter(|share| !(*share > 0.0 && *share <= 1.0)) {
                    let feature = feature.cloned();
                    return Err(InvalidQuality { feature, violation, share });
                }
            }
        }
        Ok(())
    }

    /// Whether there is no limit at all.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.limits.is_empty() && self.feature_limits.values().all(ByViolation::is_empty)
    }

    /// The limits of a feature, as far as they apply to it: edges leave no value to `other`, and categories have no range.
    #[must_use]
    pub fn limits_of(&self, feature: &FeatureReference) -> ByViolation {
        let limits = self.feature_limits.get(&**feature.name()).unwrap_or(&self.limits);
        ByViolation {
            missing: limits.missing,
            other: limits.other.filter(|_| has_other(feature)),
            out_of_range: limits.out_of_range.filter(|_| has_range(feature)),
        }
    }
}

fn has_other(feature: &FeatureReference) -> bool {
    match feature.bins() {
        Bins::Edges { .. } => false,
        Bins::Discrete { .. } | Bins::Categorical { .. } => true,
    }
}

/// Nothing is beside a range that nobody knows.
fn has_range(feature: &FeatureReference) -> bool {
    feature.bins().range().is_some()
}

/// What part of a window's values is missing, and what part of those that are not is in `other` or beside the range; none where a feature has no such
/// thing. `index`: the feature's place in the layout.
#[must_use]
pub fn shares(feature: &FeatureReference, index: usize, layout: &Layout, window: &impl Counts) -> ByViolation {
    let (bins, (below, above)) = (window.bins(layout, index), window.sides(layout, index));
    // Missing is the last bin, and `other`, where there is one, stands before it.
    let missing = bins.last().copied().unwrap_or(0);
    let other = bins.iter().rev().nth(1).copied().unwrap_or(0);
    let present = window.records() - missing;
    ByViolation {
        missing: Some(share(missing, window.records())),
        other: has_other(feature).then(|| share(other, present)),
        out_of_range: has_range(feature).then(|| share(below + above, present)),
    }
}

/// A part of nothing is 0.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The faults whose share is at or above its limit.
#[must_use]
pub fn violations(shares: &ByViolation, limits: &ByViolation) -> Vec<Violation> {
    let is_violated = |violation: &Violation| match (shares.get(*violation), limits.get(*violation)) {
        (Some(share), Some(limit)) => share >= limit,
        _ => false,
    };
    Violation::ALL.into_iter().filter(is_violated).collect()
}

/// What one check says of one feature with a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedQuality {
    /// The feature's place in the reference.
    pub feature: usize,
    /// What part of its values is faulty.
    pub shares: ByViolation,
    /// Its limits, as far as they apply.
    pub limits: ByViolation,
    /// The shares that are at or above their limits.
    pub violations: Vec<Violation>,
    /// The most frequent values in `other`; `None` without a limit for them.
    pub examples: Option<Vec<Example>>,
}

impl CheckedQuality {
    /// The verdict.
    #[must_use]
    pub fn status(&self) -> QualityStatus {
        QualityStatus::of(&self.violations)
    }
}

/// A value, and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub struct Example {
    /// The value, cut after [`EXAMPLE_BYTES_MAX`] bytes.
    pub value: String,
    /// At least so often; see [`FrequentValues`].
    pub count: u64,
}

/// The most frequent values of a stream, in bounded memory: Misra and Gries, *Finding Repeated Elements* (1982), with [`EXAMPLES_MAX`] counters.
///
/// Of n values every one that is more than an (`EXAMPLES_MAX` + 1)-th part of n is here, and its count is too small by at most n / (`EXAMPLES_MAX` + 1).
/// While no more than `EXAMPLES_MAX` different values come, counts are exact. A function of the values in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrequentValues {
    counters: Vec<Example>,
}

impl FrequentValues {
    /// What was [`Self::examples`].
    #[must_use]
    pub fn restore(examples: Vec<Example>) -> Self {
        Self { counters: examples }
    }

    /// Takes a value; what is beyond [`EXAMPLE_BYTES_MAX`] does not count.
    pub fn push(&mut self, value: &str) {
        let value = beginning(value);
        if let Some(known) = self.counters.iter_mut().find(|known| known.value == value) {
            known.count += 1;
        } else if self.counters.len() < EXAMPLES_MAX {
            let value = value.to_owned();
            self.counters.push(Example { value, count: 1 });
        } else {
            self.counters.retain_mut(|known| {
                known.count -= 1;
                known.count > 0
            });
        }
    }

    /// What is kept, the most frequent first, those of one count by their bytes.
    #[must_use]
    pub fn examples(&self) -> Vec<Example> {
        let mut examples = self.counters.clone();
        examples.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
        examples
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.counters.clear();
    }

    /// Bytes that it takes in memory beside itself, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.counters.capacity() * size_of::<Example>() + self.counters.iter().map(|known| known.value.capacity()).sum::<usize>()
    }
}

/// As much of a text as an example may have.
#[must_use]
pub fn beginning(text: &str) -> &str {
    let ends = (0..=text.len().min(EXAMPLE_BYTES_MAX)).rev();
    let end = ends.into_iter().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests;
