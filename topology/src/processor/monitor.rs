//! The settings of one monitor, as the dataflow needs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::drift::{Criteria, InvalidCriteria};
use crate::event::{SUMMARY, Scope};
use crate::field::{Field, Pointer};
use crate::quality::{InvalidQuality, Quality};
use crate::window::Window;

/// What to watch on a topic, and when it counts as drift.
///
/// The criteria, limits of quality and `min_samples` may change between two runs and hold from the next check on; so may the paths and the timestamp field, which hold
/// from the next record on. The window and the features may not: stored panes are cut by them.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    /// Its name, unique in the application.
    pub name: Arc<str>,
    /// The input topic.
    pub topic: Arc<str>,
    /// Where its drift events go.
    pub events_topic: Arc<str>,
    /// Where records go that are not valid; the same for all monitors of a topic.
    pub dead_letter_topic: Arc<str>,
    /// Whose records a check looks at.
    pub scopes: Scopes,
    /// The records that a check looks at.
    pub window: Window,
    /// Of time windows: the field with a record's time. `None`, and where it has none: the record's timestamp.
    pub timestamp_field: Option<Field>,
    /// Of time windows: whether records that are late for all of their windows are dead letters too.
    pub late_to_dead_letters: bool,
    /// Of time windows: after what time without records a partition that is at its end closes them, in ms; `None`: never.
    pub idle_close_after_ms: Option<u64>,
    /// No check before the partition has that many records.
    pub min_samples: u64,
    /// What its checks ask.
    pub criteria: Criteria,
    /// What shares of faulty values are a violation.
    pub quality: Quality,
    /// The reference's features to watch, in this order; `None`: all.
    pub features: Option<Vec<String>>,
    /// Where features stand in a record that are not top-level fields of their name.
    pub paths: BTreeMap<String, Pointer>,
    /// The fields whose values make a segment: each has its windows. None: one for all records.
    pub segment_by: Vec<Field>,
    /// Segments that may live at once in a partition, beside the one of the rest.
    pub max_segments: u64,
    /// After what stream time without a record a segment is forgotten, in ms; `None`: never.
    pub segment_expiry_ms: Option<u64>,
}

/// Segments that can be, at most.
pub const MAX_SEGMENTS_MAX: u64 = 100_000_000;

/// The scopes that a monitor is checked in: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Each partition for itself.
    pub partition: bool,
    /// The whole topic.
    pub global: bool,
}

impl Default for Scopes {
    fn default() -> Self {
        Self::PARTITION
    }
}

impl Scopes {
    /// Each partition for itself.
    pub const PARTITION: Self = Self {
        partition: true,
        global: false,
    };
    /// The whole topic.
    pub const GLOBAL: Self = Self {
        partition: false,
        global: true,
    };
    /// Both.
    pub const BOTH: Self = Self {
        partition: true,
        global: true,
    };

    /// Whether this scope is one of them.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        match scope {
            Scope::Partition => self.partition,
            Scope::Global => self.global,
        }
    }
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidMonitor {
    /// What its checks ask makes no sense.
    #[error("monitor `{monitor}`: {fault}")]
    Criteria {
        /// Which monitor.
        monitor: Arc<str>,
        /// What is wrong.
        fault: InvalidCriteria,
    },
    /// A limit of quality makes no sense.
    #[error("monitor `{monitor}`: {fault}")]
    Quality {
        /// Which monitor.
        monitor: Arc<str>,
        /// What is wrong.
        fault: InvalidQuality,
    },
    /// An empty list, an empty or reserved name, a name twice, or one that has settings but is not watched.
    #[error("monitor `{monitor}`: features: {fault}")]
    Features {
        /// Which monitor.
        monitor: Arc<str>,
        /// What is wrong.
        fault: String,
    },
}

impl Monitor {
    /// A monitor with the default settings.
    #[must_use]
    pub fn new(name: &str, topic: &str) -> Self {
        Self {
            name: name.into(),
            topic: topic.into(),
            events_topic: "drift-events".into(),
            dead_letter_topic: format!("{topic}-dlq").into(),
            scopes: Scopes::default(),
            window: Window::default(),
            timestamp_field: None,
            late_to_dead_letters: false,
            idle_close_after_ms: None,
            min_samples: 100,
            criteria: Criteria::default(),
            quality: Quality::default(),
            features: None,
            paths: BTreeMap::new(),
            segment_by: Vec::new(),
            max_segments: 10_000,
            segment_expiry_ms: None,
        }
    }

    /// Checks the settings that their types do not.
    ///
    /// # Errors
    /// The first one that makes no sense, with its value.
    pub fn validate(&self) -> Result<(), InvalidMonitor> {
        let monitor = || Arc::clone(&self.name);
        self.criteria
            .validate()
            .map_err(|fault| InvalidMonitor::Criteria { monitor: monitor(), fault })?;
        self.quality
            .validate()
            .map_err(|fault| InvalidMonitor::Quality { monitor: monitor(), fault })?;
        let Some(features) = &self.features else { return Ok(()) };
        match fault(features).or_else(|| self.not_watched(features)) {
            Some(fault) => Err(InvalidMonitor::Features { monitor: monitor(), fault }),
            None => Ok(()),
        }
    }

    /// The features that have settings of their own: a reference must have them, see [`crate::reference::Reference::require`].
    pub fn named_features(&self) -> impl Iterator<Item = &String> {
        let of_quality = self.quality.feature_limits.keys();
        self.criteria.named_features().chain(of_quality).chain(self.paths.keys())
    }

    /// A setting of a feature that the list does not have.
    fn not_watched(&self, features: &[String]) -> Option<String> {
        let judged = self.criteria.named_features().map(|name| (name, "thresholds or a weight"));
        let limited = self.quality.feature_limits.keys().map(|name| (name, "quality thresholds"));
        let found = self.paths.keys().map(|name| (name, "a path"));
        let (name, what) = judged.chain(limited).chain(found).find(|(name, _)| !features.contains(name))?;
        Some(format!("{name:?} has {what} of its own, but is not in the list"))
    }
}

/// What is wrong with a list of features.
fn fault(features: &[String]) -> Option<String> {
    if features.is_empty() {
        return Some("an empty list: leave it out to watch all of the reference's".to_owned());
    }
    features.iter().enumerate().find_map(|(index, name)| {
        if name.is_empty() || name == SUMMARY {
            Some(format!("{name:?} is no feature name"))
        } else if features[..index].contains(name) {
            Some(format!("{name:?} stands there twice"))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::ByViolation;

    fn with(change: impl FnOnce(&mut Monitor)) -> Result<(), InvalidMonitor> {
        let mut monitor = Monitor::new("m", "t");
        change(&mut monitor);
        monitor.validate()
    }

    #[test]
    fn defaults_are_valid() {
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|monitor| monitor.criteria.significance = 0.0), Ok(()));
        assert_eq!(
            with(|monitor| monitor.criteria.thresholds.possible_drift = 0.25),
            Ok(()),
            "no possible drift at all"
        );
    }

    #[test]
    fn each_senseless_setting_is_named_with_its_value() {
        let text = |change: fn(&mut Monitor)| with(change).unwrap_err().to_string();
        assert!(text(|monitor| monitor.criteria.thresholds.drift = 0.05).contains("drift = 0.05"));
        assert!(text(|monitor| monitor.criteria.thresholds.possible_drift = f64::NAN).contains("possible_drift = NaN"));
        assert!(text(|monitor| monitor.criteria.epsilon = 0.0).contains("epsilon = 0"));
        assert!(text(|monitor| monitor.criteria.significance = 1.0).contains("significance = 1"));
        assert!(text(|monitor| monitor.quality.limits.other = Some(0.0)).ends_with("quality: other = 0: must be above 0 and at most 1"));
        assert!(text(|monitor| monitor.quality.limits.missing = Some(f64::NAN)).contains("missing = NaN"));
        let own = |monitor: &mut Monitor| {
            let out_of_range = Some(1.5);
            let limits = ByViolation {
                out_of_range,
                ..ByViolation::default()
            };
            monitor.quality.feature_limits.insert("x".to_owned(), limits);
        };
        assert!(text(own).contains("quality of feature \"x\": out_of_range = 1.5"));
        assert!(text(|monitor| monitor.criteria.significance = f64::NAN).contains("significance = NaN"));
        assert!(text(|monitor| monitor.criteria.epsilon = 0.0).starts_with("monitor `m`: epsilon"));
        assert!(text(|monitor| monitor.features = Some(vec![])).contains("empty list"));
        assert!(text(|monitor| monitor.features = Some(vec!["*".to_owned()])).contains("\"*\" is no feature name"));
        assert!(text(|monitor| monitor.features = Some(vec!["a".to_owned(), "a".to_owned()])).contains("\"a\" stands there twice"));
    }

    #[test]
    fn settings_of_a_feature_that_is_not_watched_are_refused() {
        let weigh = |monitor: &mut Monitor| {
            monitor.criteria.weights.insert("b".to_owned(), 2.0);
        };
        assert_eq!(with(weigh), Ok(()), "which features there are, the reference says");
        let error = with(|monitor| {
            weigh(monitor);
            monitor.features = Some(vec!["a".to_owned()]);
        });
        assert!(error.unwrap_err().to_string().contains("\"b\" has thresholds or a weight"));
        let error = with(|monitor| {
            monitor.quality.feature_limits.insert("d".to_owned(), ByViolation::default());
            monitor.features = Some(vec!["a".to_owned()]);
        });
        assert!(error.unwrap_err().to_string().contains("\"d\" has quality thresholds of its own"));
        let error = with(|monitor| {
            monitor.paths.insert("c".to_owned(), "/c/d".parse().unwrap());
            monitor.features = Some(vec!["a".to_owned()]);
        });
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("\"c\" has a path of its own, but is not in the list")
        );
    }
}
