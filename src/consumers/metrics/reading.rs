//! From an event to series: whose it is, what it says, and what is not so any more.
//!
//! The topic keeps events for days: of features that a later reference does not have, and of monitors that were configured otherwise. Nothing will
//! ever take back what their last check said, so they are not shown.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use leeway_topology::binning::Bins;
use leeway_topology::event::{DriftEvent, Event, EventId, SUMMARY, Scope};
use leeway_topology::ids::Partition;
use leeway_topology::processor::Monitor;
use leeway_topology::quality::Violation;
use tracing::{debug, warn};

use super::families::{Families, Kind};
use crate::consumers::follow::ReadEvent;
use crate::reference_topic::{ReferenceSet, ReferenceTopicError};
use crate::telemetry::metrics::Labels;

/// References that could not be read are not asked for before that time is over.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Reads the references from Kafka.
pub(super) type Load = Box<dyn FnMut() -> Result<ReferenceSet, ReferenceTopicError> + Send>;

pub(super) struct Reading {
    application_id: String,
    monitors: BTreeMap<Arc<str>, Configured>,
    families: Arc<Families>,
    references: References,
    /// Of each monitor and scope when its last summary was written.
    last_checks: HashMap<(Arc<str>, Scope), i64>,
    /// Monitors of which a warning was written.
    told: HashSet<Arc<str>>,
}

/// A monitor that is to be shown.
struct Configured {
    monitor: Arc<Monitor>,
    features: Option<BTreeSet<String>>,
    /// When the last summary was written, and the reference that it was measured against.
    newest: Option<(i64, Arc<str>)>,
    /// Something may be shown that was measured against another one.
    is_mixed: bool,
}

impl Reading {
    pub(super) fn new(application_id: &str, monitors: &[Arc<Monitor>], families: Arc<Families>, load: Load) -> Self {
        let configured = |monitor: &Arc<Monitor>| Configured {
            features: monitor.features.as_ref().map(|names| names.iter().cloned().collect()),
            monitor: monitor.clone(),
            newest: None,
            is_mixed: false,
        };
        Self {
            application_id: application_id.to_owned(),
            monitors: monitors.iter().map(|monitor| (monitor.name.clone(), configured(monitor))).collect(),
            families,
            references: References::new(load),
            last_checks: HashMap::new(),
            told: HashSet::new(),
        }
    }

    /// Takes what was read from a topic.
    pub(super) fn take(&mut self, topic: &str, read: &ReadEvent) {
        let kind = self.kind_of(&read.event);
        self.families.count(topic, kind);
        match (&read.event, kind) {
            (Event::Drift(event), Kind::Drift) => self.take_drift(event, read.written.map_or(0, |time| time.0)),
            (Event::Quality(event), Kind::Quality) => self.families.checks.quality_checked(event),
            (event, Kind::NotConfigured) => {
                let monitor = event.monitor();
                if !self.monitors.contains_key(monitor) && self.told.len() < MONITORS_TOLD && self.told.insert(monitor.clone()) {
                    warn!(%monitor, %topic, "left out: there is no such monitor in the configuration; give the workers' one with --config");
                }
            }
            _ => {}
        }
    }

    fn kind_of(&self, event: &Event) -> Kind {
        let (id, partition, segment, kind) = match event {
            Event::Drift(event) => (&event.event_id, event.partition, &event.segment, Kind::Drift),
            Event::Quality(event) => (&event.event_id, event.partition, &event.segment, Kind::Quality),
        };
        // Application ids have no character that an event's id encodes.
        if !id.strip_prefix(&*self.application_id).is_some_and(|rest| rest.starts_with('/')) {
            return Kind::Foreign;
        }
        let is_configured = |configured: &Configured| configured.has(&self.application_id, event, id, partition, segment.as_deref());
        match self.monitors.get(event.monitor()) {
            Some(configured) if is_configured(configured) => kind,
            _ => Kind::NotConfigured,
        }
    }

    fn take_drift(&mut self, event: &DriftEvent, written_ms: i64) {
        self.families.checks.checked(&event.into());
        let Some(configured) = self.monitors.get_mut(&event.monitor) else {
            return;
        };
        if event.is_summary() {
            let last = self.last_checks.entry((event.monitor.clone(), event.scope)).or_insert(i64::MIN);
            *last = written_ms.max(*last);
            self.families.set_last_check(&event.monitor, event.scope, *last);
            if configured.newest.as_ref().is_none_or(|(at, _)| *at <= written_ms) {
                let before = configured.newest.replace((written_ms, event.reference_version.clone()));
                configured.is_mixed |= before.is_some_and(|(_, version)| version != event.reference_version);
            }
            return;
        }
        configured.is_mixed |= configured.newest.as_ref().is_none_or(|(_, version)| *version != event.reference_version);
        let shares = self.references.shares(event);
        self.families.set_details(&Labels::of_drift(event), event.psi_null_mean, shares);
    }

    /// Removes features that the newest reference of their monitor does not have any more.
    pub(super) fn retire(&mut self) {
        for configured in self.monitors.values_mut().filter(|configured| configured.is_mixed) {
            let Some((_, version)) = &configured.newest else { continue };
            let name = &*configured.monitor.name;
            if let Some(features) = self.references.features(name, version) {
                self.families
                    .remove_where(|labels| labels[0] == name && labels[4] != SUMMARY && !features.contains_key(&*labels[4]));
                configured.is_mixed = false;
            }
        }
    }
}

/// Monitors without configuration that are told of by name, so that a topic full of them does not fill the log or the memory.
const MONITORS_TOLD: usize = 100;

impl Configured {
    /// Whether workers of this configuration make such events.
    fn has(&self, application_id: &str, event: &Event, id: &str, partition: Option<Partition>, segment: Option<&str>) -> bool {
        let (monitor, scope, feature) = (&self.monitor, event.scope(), event.feature());
        let has_feature = |features: &BTreeSet<String>| &**feature == SUMMARY || features.contains(&**feature);
        monitor.scopes.has(scope)
            && segment.is_some() != monitor.segment_by.is_empty()
            && self.features.as_ref().is_none_or(has_feature)
            && EventId::new(application_id, &monitor.name, &monitor.topic, partition, scope, segment).begins(id)
    }
}

/// Names of a reference's features, and whether each has a bin for other values.
type Features = HashMap<Arc<str>, bool>;

/// What is needed of references: read when an event names one that is not known.
struct References {
    load: Load,
    /// By monitor and version. `None`: Kafka does not have it any more.
    known: HashMap<String, HashMap<String, Option<Features>>>,
    retry_at: Option<Instant>,
}

impl References {
    fn new(load: Load) -> Self {
        Self {
            load,
            known: HashMap::new(),
            retry_at: None,
        }
    }

    fn features(&mut self, monitor: &str, version: &str) -> Option<&Features> {
        let is_known = self.known.get(monitor).is_some_and(|versions| versions.contains_key(version));
        if !is_known && self.retry_at.is_none_or(|at| Instant::now() >= at) {
            match (self.load)() {
                Ok(set) => {
                    self.retry_at = None;
                    for (monitor, (_, references)) in set.listed {
                        let features = |feature: &leeway_topology::reference::FeatureReference| {
                            (feature.name().clone(), !matches!(feature.bins(), Bins::Edges { .. }))
                        };
                        let versions = references
                            .iter()
                            .map(|reference| (reference.version().to_owned(), Some(reference.features().iter().map(features).collect())));
                        self.known.entry(monitor).or_default().extend(versions);
                    }
                    // Published before any event of it was written: it will not come.
                    self.known.entry(monitor.to_owned()).or_default().entry(version.to_owned()).or_default();
                }
                Err(error) => {
                    debug!(%error, "references cannot be read");
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                }
            }
        }
        self.known.get(monitor)?.get(version)?.as_ref()
    }

    /// The parts of a window's values that are faulty, as the quality of data has them.
    fn shares(&mut self, event: &DriftEvent) -> Vec<(Violation, f64)> {
        let Some(missing) = event.missing_count else { return Vec::new() };
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let present = event.window_count.saturating_sub(missing);
        let mut shares = vec![(Violation::Missing, share(missing, event.window_count))];
        let sides = event.below_range_count.zip(event.above_range_count);
        shares.extend(sides.map(|(below, above)| (Violation::OutOfRange, share(below.saturating_add(above), present))));
        // Categories always have such a bin; of numbers the event does not say.
        let has_other = sides.is_none() || {
            let features = self.features(&event.monitor, &event.reference_version);
            features.and_then(|features| features.get(&event.feature)).copied().unwrap_or(false)
        };
        let other = event.counts.as_deref().and_then(|counts| counts.iter().rev().nth(1));
        shares.extend(other.filter(|_| has_other).map(|other| (Violation::Other, share(*other, present))));
        shares
    }
}
