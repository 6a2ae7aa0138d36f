//! What the configuration says of a monitor, as the page needs it.

use std::collections::BTreeMap;

use leeway_topology::drift::SummaryRule;
use leeway_topology::processor::Monitor;
use leeway_topology::window::Window;
use serde::Serialize;

/// Settings of a monitor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct MonitorSettings {
    topic: String,
    events_topic: String,
    dead_letter_topic: String,
    window: WindowSettings,
    min_samples: u64,
    possible_drift: f64,
    drift: f64,
    feature_thresholds: BTreeMap<String, [f64; 2]>,
    decided_by: &'static str,
    significance: f64,
    epsilon: f64,
    /// From which share of drifting features on the summary is drift; none: it goes by the mean PSI.
    summary_share: Option<f64>,
    segment_by: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct WindowSettings {
    kind: &'static str,
    /// Records, or milliseconds.
    size: u64,
    every: u64,
}

impl MonitorSettings {
    pub(super) fn of(monitor: &Monitor) -> Self {
        let criteria = &monitor.criteria;
        let own = criteria.feature_thresholds.iter();
        Self {
            topic: monitor.topic.to_string(),
            events_topic: monitor.events_topic.to_string(),
            dead_letter_topic: monitor.dead_letter_topic.to_string(),
            window: match monitor.window {
                Window::Count(window) => WindowSettings {
                    kind: "count",
                    size: window.size(),
                    every: window.every(),
                },
                Window::Time(window) => WindowSettings {
                    kind: "time",
                    size: window.size_ms(),
                    every: window.every_ms(),
                },
            },
            min_samples: monitor.min_samples,
            possible_drift: criteria.thresholds.possible_drift,
            drift: criteria.thresholds.drift,
            feature_thresholds: own.map(|(name, own)| (name.clone(), [own.possible_drift, own.drift])).collect(),
            decided_by: criteria.decided_by.as_str(),
            significance: criteria.significance,
            epsilon: criteria.epsilon,
            summary_share: match criteria.summary {
                SummaryRule::Mean => None,
                SummaryRule::Share { at_least } => Some(at_least),
            },
            segment_by: monitor.segment_by.iter().map(ToString::to_string).collect(),
        }
    }
}
