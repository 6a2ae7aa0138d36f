//! The settings of one monitor, as the dataflow needs them.

use std::sync::Arc;

use crate::drift::{Criteria, Thresholds};
use crate::event::{SUMMARY, Scope};
use crate::window::Window;

/// What to watch on a topic, and when it counts as drift.
///
/// Thresholds, epsilon, significance and `min_samples` may change between two runs and hold from the next check on. The window and the features
/// may not: stored panes are cut by them.
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
    pub timestamp_field: Option<Arc<str>>,
    /// No check before the partition has that many records.
    pub min_samples: u64,
    /// From which PSI on a check says what.
    pub thresholds: Thresholds,
    /// Floor of a bin's fraction.
    pub epsilon: f64,
    /// Level of a check as a whole; 0: off.
    pub significance: f64,
    /// The reference's features to watch, in this order; `None`: all.
    pub features: Option<Vec<String>>,
}

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
        Self {
            partition: true,
            global: false,
        }
    }
}

impl Scopes {
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
    /// A threshold is not positive and finite, or they are in the wrong order.
    #[error(
        "monitor `{monitor}`: thresholds possible_drift = {possible_drift} and drift = {drift}: both must be above 0, drift not below possible_drift"
    )]
    Thresholds {
        /// Which monitor.
        monitor: Arc<str>,
        /// The first threshold.
        possible_drift: f64,
        /// The second.
        drift: f64,
    },
    /// Outside (0, 1).
    #[error("monitor `{monitor}`: epsilon = {epsilon}: must be above 0 and below 1")]
    Epsilon {
        /// Which monitor.
        monitor: Arc<str>,
        /// The value.
        epsilon: f64,
    },
    /// Outside [0, 1).
    #[error("monitor `{monitor}`: significance = {significance}: must be at least 0 (off) and below 1")]
    Significance {
        /// Which monitor.
        monitor: Arc<str>,
        /// The value.
        significance: f64,
    },
    /// An empty list, an empty or reserved name, or a name twice.
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
            min_samples: 100,
            thresholds: Thresholds::default(),
            epsilon: 1e-4,
            significance: 1e-3,
            features: None,
        }
    }

    /// Checks the settings that their types do not.
    ///
    /// # Errors
    /// The first one that makes no sense, with its value.
    pub fn validate(&self) -> Result<(), InvalidMonitor> {
        let monitor = || Arc::clone(&self.name);
        let Thresholds { possible_drift, drift } = self.thresholds;
        if !(possible_drift > 0.0 && drift >= possible_drift && drift.is_finite()) {
            return Err(InvalidMonitor::Thresholds {
                monitor: monitor(),
                possible_drift,
                drift,
            });
        }
        if !(self.epsilon > 0.0 && self.epsilon < 1.0) {
            return Err(InvalidMonitor::Epsilon {
                monitor: monitor(),
                epsilon: self.epsilon,
            });
        }
        if !(0.0..1.0).contains(&self.significance) {
            return Err(InvalidMonitor::Significance {
                monitor: monitor(),
                significance: self.significance,
            });
        }
        match self.features.as_deref().and_then(fault) {
            Some(fault) => Err(InvalidMonitor::Features { monitor: monitor(), fault }),
            None => Ok(()),
        }
    }

    /// What its checks ask.
    #[must_use]
    pub fn criteria(&self) -> Criteria {
        Criteria {
            thresholds: self.thresholds,
            epsilon: self.epsilon,
            significance: self.significance,
        }
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

    fn with(change: impl FnOnce(&mut Monitor)) -> Result<(), InvalidMonitor> {
        let mut monitor = Monitor::new("m", "t");
        change(&mut monitor);
        monitor.validate()
    }

    #[test]
    fn defaults_are_valid() {
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|monitor| monitor.significance = 0.0), Ok(()));
        assert_eq!(
            with(|monitor| monitor.thresholds.possible_drift = 0.25),
            Ok(()),
            "no possible drift at all"
        );
    }

    #[test]
    fn each_senseless_setting_is_named_with_its_value() {
        let text = |change: fn(&mut Monitor)| with(change).unwrap_err().to_string();
        assert!(text(|monitor| monitor.thresholds.drift = 0.05).contains("drift = 0.05"));
        assert!(text(|monitor| monitor.thresholds.possible_drift = f64::NAN).contains("possible_drift = NaN"));
        assert!(text(|monitor| monitor.epsilon = 0.0).contains("epsilon = 0"));
        assert!(text(|monitor| monitor.significance = 1.0).contains("significance = 1"));
        assert!(text(|monitor| monitor.significance = f64::NAN).contains("significance = NaN"));
        assert!(text(|monitor| monitor.features = Some(vec![])).contains("empty list"));
        assert!(text(|monitor| monitor.features = Some(vec!["*".to_owned()])).contains("\"*\" is no feature name"));
        assert!(text(|monitor| monitor.features = Some(vec!["a".to_owned(), "a".to_owned()])).contains("\"a\" stands there twice"));
    }
}
