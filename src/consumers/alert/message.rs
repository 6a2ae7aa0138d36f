//! What is told: the transitions of one check of one monitor, in one message, with the facts that somebody who is paged asks for first.
//!
//! A [`Message`] is made once, when its transitions happen, and kept until it is delivered: whatever is sent again is the same. It is also the body that
//! the generic webhook sends; `docs/alerts.md` has its fields in words. Each channel makes its own text of it.
//!
//! Not here: when something is told, which is [`super::incident`]'s.

use std::collections::BTreeMap;

use leeway_topology::drift::{Criteria, Thresholds};
use leeway_topology::event::{DriftEvent, Event, QualityEvent, Scope};
use leeway_topology::metric::Metric;
use leeway_topology::processor::References;
use leeway_topology::psi;
use leeway_topology::reference::{FeatureReference, Reference};
use leeway_topology::significance::noise_floor;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::incident::{Severity, Told, Transition};

/// Version of a message's fields and their meanings.
pub const SCHEMA_VERSION: u32 = 1;

/// Alerts in one message: more are told in a further one. So no message is near Kafka's limit, in which it is kept until it is delivered.
pub const ALERTS_MAX: usize = 50;

/// Bins that are named, those that contribute most to PSI.
const TOP_BINS: usize = 3;

/// Characters of a bin's name; categories may be any text.
const LABEL_CHARACTERS_MAX: usize = 100;

/// What is told of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Same message, same key, however often it is sent.
    pub key: String,
    /// The monitor's name.
    pub monitor: String,
    /// Whose records.
    pub scope: Scope,
    /// The input partition; `None` in scope global.
    pub partition: Option<i32>,
    /// `field=value`.
    pub segment: Option<String>,
    /// The records that were checked.
    pub window: Window,
    /// The reference that they were measured against.
    pub reference_version: String,
    /// Other incidents that are open in the same place.
    pub others_open: u64,
    /// Where to look.
    pub dashboard_url: Option<String>,
    /// What happened, worst first; not empty.
    pub alerts: Vec<Alert>,
}

/// The records of a check.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// How many.
    pub count: u64,
    /// The number of the last one in its partition.
    pub record_count: u64,
    /// First offset; `None` in scope global.
    pub start_offset: Option<i64>,
    /// Last offset; `None` in scope global.
    pub end_offset: Option<i64>,
    /// As in the event.
    pub start_ms: i64,
    /// As in the event.
    pub end_ms: i64,
}

/// What happened to one incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Same transition, same key: the event that caused it, and what it is.
    pub key: String,
    /// What happened.
    pub transition: Transition,
    /// What it is about.
    pub kind: Kind,
    /// The feature's name; `*` for the summary.
    pub feature: String,
    /// The status that was told before, or that an incident begins from.
    pub from: String,
    /// The status of the check.
    pub to: String,
    /// The worst of this incident as far as it is told.
    pub severity: Severity,
    /// The worst that was told before, of this incident.
    pub severity_before: Option<Severity>,
    /// When the first check of the incident was written, milliseconds.
    pub since_ms: i64,
    /// When the check was written, milliseconds.
    pub at_ms: i64,
    /// PSI; `None` for quality.
    pub psi: Option<f64>,
    /// The metric that decides, where it is not PSI, and its value.
    pub decided_by: Option<(String, f64)>,
    /// The threshold of the status; `None` where the monitor is not in this program's configuration.
    pub threshold: Option<f64>,
    /// The PSI that a window of this size exceeds by chance in one check of a hundred.
    pub noise_floor: Option<f64>,
    /// How likely such counts are without any drift.
    pub p_value: Option<f64>,
    /// The bins that changed most.
    pub top_bins: Vec<TopBin>,
    /// Missing values, in percent of the window's records.
    pub missing_percent: Option<f64>,
    /// Values that the reference does not name, in percent of those that are there.
    pub other_percent: Option<f64>,
    /// Numbers beside the reference's range, in percent of those that are there.
    pub out_of_range_percent: Option<f64>,
    /// Of quality: what is at or above its threshold.
    pub violations: Vec<String>,
    /// Of the summary: features that drift, and of how many.
    pub drifted_features: Option<(u64, u64)>,
}

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// All features of a check together.
    Summary,
    /// The drift of a feature.
    Feature,
    /// The quality of a feature's values.
    Quality,
}

impl Kind {
    /// What an event is about.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Drift(event) if event.is_summary() => Self::Summary,
            Event::Drift(_) => Self::Feature,
            Event::Quality(_) => Self::Quality,
        }
    }

    /// As configured.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Feature => "feature",
            Self::Quality => "quality",
        }
    }
}

/// A bin, in percent of all records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopBin {
    /// Its name, as `top_bin` of an event.
    pub bin: String,
    /// In the reference.
    pub expected_percent: f64,
    /// In the window.
    pub actual_percent: f64,
}

/// What a message says beside its events: from references, and from the configuration.
pub struct Facts<'a> {
    /// The published references.
    pub references: &'a dyn References,
    /// What checks ask, by monitor.
    pub criteria: &'a BTreeMap<String, Criteria>,
    /// Where to look.
    pub dashboard_url: Option<&'a str>,
}

impl Facts<'_> {
    /// A message of one transition. Its key is that of the transition; [`combine`] makes the one that is sent.
    #[must_use]
    pub fn describe(&self, event: &Event, told: &Told, at_ms: i64) -> Message {
        let severity_now = match event {
            Event::Drift(event) => Severity::of_status(event.status),
            Event::Quality(event) => Severity::of_quality(event.status),
        };
        let mut alert = match event {
            Event::Drift(event) => self.of_drift(event),
            Event::Quality(event) => of_quality(event),
        };
        alert.key = format!("{}#{}", event_id(event), told.transition.as_str());
        alert.transition = told.transition;
        alert.severity = if told.transition.is_end() {
            told.before.unwrap_or(Severity::PossibleDrift)
        } else {
            severity_now.max(told.before).unwrap_or(Severity::PossibleDrift)
        };
        alert.severity_before = told.before;
        (alert.since_ms, alert.at_ms) = (told.since_ms, at_ms);
        if let Some(before) = told.before {
            alert.from = match alert.kind {
                Kind::Quality => "violated",
                Kind::Summary | Kind::Feature => before.as_str(),
            }
            .to_owned();
        }
        if told.transition == Transition::Expired {
            alert.to = "unknown".to_owned();
        }
        let (window, reference_version) = match event {
            Event::Drift(event) => (
                Window {
                    count: event.window_count,
                    record_count: event.record_count.0,
                    start_offset: event.window_start_offset.map(|offset| offset.0),
                    end_offset: event.window_end_offset.map(|offset| offset.0),
                    start_ms: event.window_start_ms.0,
                    end_ms: event.window_end_ms.0,
                },
                &event.reference_version,
            ),
            Event::Quality(event) => (
                Window {
                    count: event.window_count,
                    record_count: event.record_count.0,
                    start_offset: event.window_start_offset.map(|offset| offset.0),
                    end_offset: event.window_end_offset.map(|offset| offset.0),
                    start_ms: event.window_start_ms.0,
                    end_ms: event.window_end_ms.0,
                },
                &event.reference_version,
            ),
        };
        let (partition, segment) = match event {
            Event::Drift(event) => (event.partition, &event.segment),
            Event::Quality(event) => (event.partition, &event.segment),
        };
        Message {
            schema_version: SCHEMA_VERSION,
            key: alert.key.clone(),
            monitor: event.monitor().to_string(),
            scope: event.scope(),
            partition: partition.map(|partition| partition.0),
            segment: segment.as_ref().map(ToString::to_string),
            window,
            reference_version: reference_version.to_string(),
            others_open: 0,
            dashboard_url: self.dashboard_url.map(str::to_owned),
            alerts: vec![alert],
        }
    }

    fn of_drift(&self, event: &DriftEvent) -> Alert {
        let published = self.references.version(&event.monitor, &event.reference_version);
        let reference: Option<&Reference> = published.as_ref().map(|published| &*published.reference);
        let feature = reference.and_then(|reference| reference.features().iter().find(|feature| *feature.name() == event.feature));
        let criteria = self.criteria.get(&*event.monitor);
        let summary_thresholds = criteria.map(|criteria| {
            if criteria.decided_by == Metric::Psi {
                criteria.thresholds
            } else {
                Thresholds::default()
            }
        });
        let decision = criteria.zip(feature).map(|(criteria, feature)| criteria.decision(feature));
        let thresholds = if event.is_summary() {
            summary_thresholds
        } else {
            decision.map(|(_, thresholds)| thresholds)
        };
        let value_of = |metric| match metric {
            Metric::Js => event.js,
            Metric::Ks => event.ks,
            Metric::Wasserstein => event.wasserstein,
            Metric::Psi | Metric::Chi2 => None,
        };
        let decided_by = decision.and_then(|(metric, _)| Some((metric.as_str().to_owned(), value_of(metric)?)));
        let counts = event.counts.as_deref().unwrap_or_default();
        let shares = Shares::of(event, feature);
        Alert {
            key: String::new(),
            transition: Transition::Opened,
            kind: if event.is_summary() { Kind::Summary } else { Kind::Feature },
            feature: event.feature.to_string(),
            from: "no_drift".to_owned(),
            to: event.status.as_str().to_owned(),
            severity: Severity::PossibleDrift,
            severity_before: None,
            since_ms: 0,
            at_ms: 0,
            psi: Some(event.psi),
            decided_by,
            threshold: thresholds.map(|thresholds| match Severity::of_status(event.status) {
                Some(Severity::Drift) => thresholds.drift,
                Some(Severity::PossibleDrift) | None => thresholds.possible_drift,
            }),
            noise_floor: feature.map(|feature| noise_floor(feature.counts(), event.window_count)),
            p_value: event.p_value,
            top_bins: feature
                .map(|feature| top_bins(feature, counts, criteria.map_or(Criteria::default().epsilon, |criteria| criteria.epsilon)))
                .unwrap_or_default(),
            missing_percent: shares.missing,
            other_percent: shares.other,
            out_of_range_percent: shares.out_of_range,
            violations: Vec::new(),
            drifted_features: event.drifted_features.zip(event.feature_count),
        }
    }
}

/// An event's id.
#[must_use]
pub fn event_id(event: &Event) -> &str {
    match event {
        Event::Drift(event) => &event.event_id,
        Event::Quality(event) => &event.event_id,
    }
}

fn of_quality(event: &QualityEvent) -> Alert {
    let percent = |share: f64| share * 100.0;
    Alert {
        key: String::new(),
        transition: Transition::Opened,
        kind: Kind::Quality,
        feature: event.feature.to_string(),
        from: "ok".to_owned(),
        to: event.status.as_str().to_owned(),
        severity: Severity::Drift,
        severity_before: None,
        since_ms: 0,
        at_ms: 0,
        psi: None,
        decided_by: None,
        threshold: None,
        noise_floor: None,
        p_value: None,
        top_bins: Vec::new(),
        missing_percent: Some(percent(event.missing_share)),
        other_percent: event.other_share.map(percent),
        out_of_range_percent: event.out_of_range_share.map(percent),
        violations: event.violations.iter().map(|violation| violation.as_str().to_owned()).collect(),
        drifted_features: None,
    }
}

/// Faulty values of a drift event, in percent.
#[derive(Default)]
struct Shares {
    missing: Option<f64>,
    other: Option<f64>,
    out_of_range: Option<f64>,
}

impl Shares {
    fn of(event: &DriftEvent, feature: Option<&FeatureReference>) -> Self {
        let Some(missing) = event.missing_count else { return Self::default() };
        let present = event.window_count.saturating_sub(missing);
        // Where a feature has `other`, it stands before missing, and only the reference knows whether it does.
        let has_other = feature.is_some_and(|feature| feature.label(feature.bin_count().saturating_sub(2)) == leeway_topology::binning::OTHER);
        let other = event.counts.as_ref().and_then(|counts| counts.iter().rev().nth(1)).filter(|_| has_other);
        let beside = event.below_range_count.zip(event.above_range_count).map(|(below, above)| below + above);
        Self {
            missing: Some(percent(missing, event.window_count)),
            other: other.map(|other| percent(*other, present)),
            out_of_range: beside.map(|beside| percent(beside, present)),
        }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

fn top_bins(feature: &FeatureReference, counts: &[u64], epsilon: f64) -> Vec<TopBin> {
    let reference = feature.counts();
    if reference.len() != counts.len() {
        return Vec::new();
    }
    let contributions = psi::contributions(reference, counts, epsilon);
    let mut bins: Vec<usize> = (0..counts.len()).filter(|bin| contributions[*bin] > 0.0).collect();
    // Stable: of equals the first, as in `top_bin` of an event.
    bins.sort_by(|a, b| contributions[*b].total_cmp(&contributions[*a]));
    bins.truncate(TOP_BINS);
    let (expected, actual) = (reference.iter().sum(), counts.iter().sum());
    bins.into_iter()
        .map(|bin| TopBin {
            bin: shortened(&feature.label(bin), LABEL_CHARACTERS_MAX),
            expected_percent: percent(reference[bin], expected),
            actual_percent: percent(counts[bin], actual),
        })
        .collect()
}

/// A text of at most so many characters, its end marked where it is cut.
#[must_use]
pub fn shortened(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(characters_max.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Puts messages of one transition each, all of one check, into as few as [`ALERTS_MAX`] allows, worst first. `others_open`: see [`Message`].
#[must_use]
pub fn combine(channel: &str, single: Vec<Message>, others_open: u64) -> Vec<Message> {
    let mut single = single.into_iter();
    let Some(first) = single.next() else { return Vec::new() };
    let head = Message {
        alerts: Vec::new(),
        ..first.clone()
    };
    let mut alerts: Vec<Alert> = first.alerts.into_iter().chain(single.flat_map(|message| message.alerts)).collect();
    alerts.sort_by(|a, b| {
        let rank = |alert: &Alert| (!alert.transition.is_end(), alert.severity, alert.psi.unwrap_or(f64::MAX));
        let ((a_on, a_severity, a_psi), (b_on, b_severity, b_psi)) = (rank(a), rank(b));
        (b_on, b_severity)
            .cmp(&(a_on, a_severity))
            .then(b_psi.total_cmp(&a_psi))
            .then_with(|| (a.kind, &a.feature).cmp(&(b.kind, &b.feature)))
    });
    let chunks = alerts.chunks(ALERTS_MAX);
    chunks
        .map(|alerts| Message {
            key: key(channel, alerts),
            others_open,
            alerts: alerts.to_vec(),
            ..head.clone()
        })
        .collect()
}

/// A function of who is told and of what: the events that caused it, each with what follows from it.
fn key(channel: &str, alerts: &[Alert]) -> String {
    let mut hash = Sha256::new();
    hash.update(channel);
    for alert in alerts {
        hash.update([b'\n']);
        hash.update(&alert.key);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests;
