//! What was read of the events, in bounded memory: a series of checks for each monitor, scope, partition, segment and feature.
//!
//! ```text
//! events --> series of their key: points, oldest first --\
//!                  \--> arrivals: which series a point went to, over all series --> beyond a bound the oldest point leaves
//! ```
//!
//! Invariants: at most [`Limits::series_points`] points in a series and [`Limits::points`] in all; a series without points does not exist, so their
//! number is bounded too. Points are numbered in the order of their arrival. What was dropped is counted.
//!
//! Not here: what is shown of it ([`super::view`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use leeway_topology::drift::Status;
use leeway_topology::event::{DriftEvent, Event, NO_TIMESTAMP, QualityEvent, Scope};
use leeway_topology::metric::Measurements;
use leeway_topology::quality::QualityStatus;

use super::counts::Counts;
use super::incidents::{Check, Incidents, Kind};
use crate::consumers::follow::ReadEvent;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Points of one series.
    pub series_points: usize,
    /// Points of all series.
    pub points: usize,
    /// Incidents.
    pub incidents: usize,
}

// Beside it, an eighth at most for growth, and 16 to 32 bytes for its arrival: what the default limits reckon with.
const _: () = assert!(size_of::<Point>() <= 208);

impl Default for Limits {
    /// A point is some 250 bytes with what belongs to it, so that all of them are about 125 MB. A series that is checked once a minute has two days.
    fn default() -> Self {
        Self {
            series_points: 3_000,
            points: 500_000,
            incidents: 5_000,
        }
    }
}

/// Whose checks a series has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) monitor: Arc<str>,
    pub(super) scope: Scope,
    /// None in scope global.
    pub(super) partition: Option<i32>,
    /// Where the monitor has them.
    pub(super) segment: Option<Arc<str>>,
    /// Or `*`.
    pub(super) feature: Arc<str>,
}

impl Point {
    pub(super) fn p_value(&self) -> Option<f64> {
        Some(self.p_value).filter(|value| !value.is_nan())
    }

    pub(super) fn null_mean(&self) -> Option<f64> {
        Some(self.null_mean).filter(|value| !value.is_nan())
    }
}

/// One check.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// In the order of arrival over all series.
    pub(super) number: u64,
    /// The window's largest event time, or when the event was written where no record has a time.
    pub(super) time_ms: i64,
    /// The window's smallest event time; [`NO_TIMESTAMP`] where no record has one.
    pub(super) start_ms: i64,
    /// When the event was written.
    pub(super) written_ms: i64,
    pub(super) record_count: u64,
    pub(super) window_count: u64,
    pub(super) psi: f64,
    /// Not a number where there is none; so is the mean.
    pub(super) p_value: f64,
    pub(super) null_mean: f64,
    pub(super) status: Status,
    pub(super) missing: Option<u64>,
    pub(super) sides: Option<(u64, u64)>,
    /// Of the first and the last record.
    pub(super) offsets: Option<(i64, i64)>,
    /// Empty on a summary.
    pub(super) counts: Counts,
    pub(super) version: Arc<str>,
    /// Measures beside PSI, where there are any.
    pub(super) measures: Option<Box<Measurements>>,
}

/// What the last quality event of a feature said.
#[derive(Clone, Debug)]
pub(super) struct QualityCheck {
    pub(super) status: QualityStatus,
    pub(super) violations: Vec<&'static str>,
    pub(super) missing: f64,
    pub(super) other: Option<f64>,
    pub(super) out_of_range: Option<f64>,
    pub(super) examples: Vec<(String, u64)>,
}

/// The checks of one key.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) key: Key,
    /// Oldest first; never empty.
    pub(super) points: VecDeque<Point>,
    pub(super) quality: Option<QualityCheck>,
    /// The number of the latest event of it.
    pub(super) changed: u64,
    incident: Option<u64>,
    quality_incident: Option<u64>,
}

/// Events, as far as they are kept.
#[derive(Debug)]
pub(super) struct History {
    application: String,
    limits: Limits,
    series: HashMap<u64, Series>,
    by_key: HashMap<Key, u64>,
    /// Ids by monitor and feature.
    index: BTreeMap<Arc<str>, BTreeMap<Arc<str>, BTreeSet<u64>>>,
    /// Series and number of each point, oldest first; also of points that have left already.
    arrivals: VecDeque<(u64, u64)>,
    points: usize,
    next_series: u64,
    /// Of the latest event.
    number: u64,
    dropped: u64,
    foreign: u64,
    events: u64,
    pub(super) incidents: Incidents,
}

impl History {
    /// An empty history of an application's events.
    pub(super) fn new(application_id: &str, limits: Limits) -> Self {
        Self {
            application: format!("{application_id}/"),
            limits,
            series: HashMap::new(),
            by_key: HashMap::new(),
            index: BTreeMap::new(),
            arrivals: VecDeque::new(),
            points: 0,
            next_series: 0,
            number: 0,
            dropped: 0,
            foreign: 0,
            events: 0,
            incidents: Incidents::new(limits.incidents),
        }
    }

    /// Takes what was read. Events of other applications on the topic are counted and left out.
    pub(super) fn push(&mut self, read: ReadEvent) {
        let id = match &read.event {
            Event::Drift(event) => &event.event_id,
            Event::Quality(event) => &event.event_id,
        };
        // Application ids have no character that an event's id encodes.
        if !id.starts_with(&self.application) {
            self.foreign += 1;
            return;
        }
        self.events += 1;
        self.number += 1;
        let written_ms = read.written.map_or(0, |time| time.0);
        match read.event {
            Event::Drift(event) => self.push_drift(event, written_ms),
            Event::Quality(event) => self.push_quality(event, written_ms),
        }
    }

    fn push_drift(&mut self, event: DriftEvent, written_ms: i64) {
        let key = Key {
            monitor: event.monitor.clone(),
            scope: event.scope,
            partition: event.partition.map(|partition| partition.0),
            segment: event.segment.clone(),
            feature: event.feature.clone(),
        };
        let id = self.id_of(key);
        let Some(series) = self.series.get_mut(&id) else { return };
        let point = point_of(event, written_ms, self.number, series.points.back());
        // The application began anew: what it says now stands for what it said of the same records.
        let replaces = |last: &Point| last.time_ms >= point.time_ms && last.record_count >= point.record_count;
        while series.points.back().is_some_and(replaces) {
            series.points.pop_back();
            self.points -= 1;
        }
        let check = Check {
            kind: Kind::Drift,
            status: point.status,
            time_ms: point.time_ms,
            psi: point.psi,
        };
        series.incident = self.incidents.check(series.incident, &series.key, check);
        series.changed = self.number;
        // Doubling would keep room for as many again in each of many series.
        if series.points.len() == series.points.capacity() {
            series.points.reserve_exact(series.points.len() / 8 + 8);
        }
        series.points.push_back(point);
        self.points += 1;
        if series.points.len() > self.limits.series_points {
            series.points.pop_front();
            self.points -= 1;
            self.dropped += 1;
        }
        self.arrivals.push_back((id, self.number));
        self.make_room();
    }

    fn push_quality(&mut self, event: QualityEvent, written_ms: i64) {
        let key = Key {
            monitor: event.monitor,
            scope: event.scope,
            partition: event.partition.map(|partition| partition.0),
            segment: event.segment,
            feature: event.feature,
        };
        // The drift event of the same check stands before it, unless that was deleted; the next check has both.
        let Some(series) = self.by_key.get(&key).and_then(|id| self.series.get_mut(id)) else {
            return;
        };
        let is_good = event.status == QualityStatus::Ok;
        let check = Check {
            kind: Kind::Quality,
            status: if is_good { Status::NoDrift } else { Status::Drift },
            time_ms: if event.window_end_ms == NO_TIMESTAMP {
                written_ms
            } else {
                event.window_end_ms.0
            },
            psi: 0.0,
        };
        series.quality_incident = self.incidents.check(series.quality_incident, &series.key, check);
        series.changed = self.number;
        series.quality = Some(QualityCheck {
            status: event.status,
            violations: event.violations.iter().map(|violation| violation.as_str()).collect(),
            missing: event.missing_share,
            other: event.other_share,
            out_of_range: event.out_of_range_share,
            examples: event
                .examples
                .unwrap_or_default()
                .into_iter()
                .map(|example| (example.value, example.count))
                .collect(),
        });
    }

    fn id_of(&mut self, key: Key) -> u64 {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = self.next_series;
        self.next_series += 1;
        let features = self.index.entry(key.monitor.clone()).or_default();
        features.entry(key.feature.clone()).or_default().insert(id);
        self.by_key.insert(key.clone(), id);
        let series = Series {
            key,
            points: VecDeque::new(),
            quality: None,
            changed: 0,
            incident: None,
            quality_incident: None,
        };
        self.series.insert(id, series);
        id
    }

    /// Lets the oldest points go until all have room.
    fn make_room(&mut self) {
        while self.points > self.limits.points {
            let Some((id, number)) = self.arrivals.pop_front() else { return };
            let Some(series) = self.series.get_mut(&id) else { continue };
            if series.points.front().is_some_and(|point| point.number == number) {
                series.points.pop_front();
                self.points -= 1;
                self.dropped += 1;
                if series.points.is_empty() {
                    self.forget(id);
                }
            }
        }
        // Points that left otherwise leave their arrivals behind. Doubling keeps the cost per point constant.
        if self.arrivals.len() > 2 * self.limits.points.max(self.limits.series_points) {
            let series = &self.series;
            let is_there = |series: &Series, number: u64| series.points.binary_search_by_key(&number, |point| point.number).is_ok();
            self.arrivals
                .retain(|(id, number)| series.get(id).is_some_and(|series| is_there(series, *number)));
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(series) = self.series.remove(&id) else { return };
        self.by_key.remove(&series.key);
        for incident in [series.incident, series.quality_incident].into_iter().flatten() {
            self.incidents.abandon(incident);
        }
        if let Some(features) = self.index.get_mut(&series.key.monitor) {
            if let Some(ids) = features.get_mut(&series.key.feature) {
                ids.remove(&id);
                if ids.is_empty() {
                    features.remove(&series.key.feature);
                }
            }
            if features.is_empty() {
                self.index.remove(&series.key.monitor);
            }
        }
    }

    /// Of the latest event.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Monitors of which there are events.
    pub(super) fn monitors(&self) -> impl Iterator<Item = &Arc<str>> {
        self.index.keys()
    }

    /// Features of a monitor with the series of each; the summary is `*`.
    pub(super) fn features(&self, monitor: &str) -> impl Iterator<Item = (&Arc<str>, impl Iterator<Item = &Series>)> {
        let features = self.index.get(monitor).into_iter().flatten();
        features.map(|(feature, ids)| (feature, ids.iter().filter_map(|id| self.series.get(id))))
    }

    /// The series of one feature.
    pub(super) fn series_of(&self, monitor: &str, feature: &str) -> impl Iterator<Item = &Series> {
        let ids = self.index.get(monitor).and_then(|features| features.get(feature)).into_iter().flatten();
        ids.filter_map(|id| self.series.get(id))
    }

    /// Figures about itself.
    pub(super) fn size(&self) -> Size {
        Size {
            events: self.events,
            foreign: self.foreign,
            series: self.series.len(),
            points: self.points,
            points_max: self.limits.points,
            series_points_max: self.limits.series_points,
            dropped_points: self.dropped,
            dropped_incidents: self.incidents.dropped(),
        }
    }
}

/// How much is held, and how much is not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Size {
    pub(super) events: u64,
    pub(super) foreign: u64,
    pub(super) series: usize,
    pub(super) points: usize,
    pub(super) points_max: usize,
    pub(super) series_points_max: usize,
    pub(super) dropped_points: u64,
    pub(super) dropped_incidents: u64,
}

fn point_of(event: DriftEvent, written_ms: i64, number: u64, last: Option<&Point>) -> Point {
    let known = |time: leeway_topology::ids::Timestamp| (time != NO_TIMESTAMP).then_some(time.0);
    let measures = Measurements {
        js: event.js,
        ks: event.ks,
        wasserstein: event.wasserstein,
        chi2_p_value: event.chi2_p_value,
    };
    Point {
        number,
        time_ms: known(event.window_end_ms).unwrap_or(written_ms),
        start_ms: event.window_start_ms.0,
        written_ms,
        record_count: event.record_count.0,
        window_count: event.window_count,
        psi: event.psi,
        p_value: event.p_value.unwrap_or(f64::NAN),
        null_mean: event.psi_null_mean.unwrap_or(f64::NAN),
        status: event.status,
        missing: event.missing_count,
        sides: event.below_range_count.zip(event.above_range_count),
        offsets: event
            .window_start_offset
            .zip(event.window_end_offset)
            .map(|(start, end)| (start.0, end.0)),
        counts: event.counts.as_deref().map(Counts::new).unwrap_or_default(),
        // One text for all points of a reference.
        version: match last {
            Some(last) if last.version == event.reference_version => last.version.clone(),
            _ => event.reference_version,
        },
        measures: (measures != Measurements::default()).then(|| Box::new(measures)),
    }
}

#[cfg(test)]
mod tests;
