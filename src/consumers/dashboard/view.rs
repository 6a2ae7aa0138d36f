//! What is shown of the history: the monitors at a glance, one row for each feature, a heat map, series, incidents.
//!
//! Tables are written by columns: names of fields once, and numbers that compress well.
//!
//! Where several series are selected, a feature's row is that of the worst of them: by status, then by PSI.

use std::collections::BTreeSet;
use std::sync::Arc;

use leeway_topology::drift::Status;
use leeway_topology::event::{SUMMARY, Scope};
use leeway_topology::quality::QualityStatus;
use serde::{Deserialize, Serialize};

use super::history::{History, Point, Series};

/// Values of a row's small line.
const TREND_POINTS: usize = 24;

/// Which series are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Selection {
    /// Either, if not said.
    #[serde(default)]
    pub(super) scope: Option<Scope>,
    /// All, if not said.
    #[serde(default)]
    pub(super) partition: Option<i32>,
    /// All, if not said.
    #[serde(default)]
    pub(super) segment: Option<String>,
}

impl Selection {
    pub(super) fn has(&self, series: &Series) -> bool {
        let key = &series.key;
        self.scope.is_none_or(|scope| scope == key.scope)
            && self.partition.is_none_or(|partition| Some(partition) == key.partition)
            && self.segment.as_deref().is_none_or(|segment| Some(segment) == key.segment.as_deref())
    }
}

/// A monitor, as far as events tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Glance {
    pub(super) name: String,
    /// That of its worst feature; none without a check.
    pub(super) status: Option<Status>,
    /// That of the worst summary.
    pub(super) summary_status: Option<Status>,
    /// The largest PSI of a summary.
    pub(super) summary_psi: Option<f64>,
    pub(super) features: usize,
    /// In status drift in at least one series.
    pub(super) drifted: usize,
    /// In status possible drift, and not in drift.
    pub(super) possible: usize,
    /// With a violation of quality.
    pub(super) violated: usize,
    pub(super) scopes: Vec<Scope>,
    pub(super) partitions: Vec<i32>,
    pub(super) segments: usize,
    /// When the latest event was written.
    pub(super) written_ms: Option<i64>,
    /// The event time up to which there are checks.
    pub(super) time_ms: Option<i64>,
    /// The event time from which on.
    pub(super) from_ms: Option<i64>,
}

pub(super) fn glance(history: &History, monitor: &Arc<str>) -> Glance {
    let mut glance = Glance {
        name: monitor.to_string(),
        status: None,
        summary_status: None,
        summary_psi: None,
        features: 0,
        drifted: 0,
        possible: 0,
        violated: 0,
        scopes: Vec::new(),
        partitions: Vec::new(),
        segments: 0,
        written_ms: None,
        time_ms: None,
        from_ms: None,
    };
    let (mut partitions, mut segments) = (BTreeSet::new(), BTreeSet::new());
    for (feature, all) in history.features(monitor) {
        let (mut worst, mut violated) = (None, false);
        for series in all {
            let Some(last) = series.points.back() else { continue };
            worst = worst.max(Some(last.status));
            violated |= is_violated(series);
            partitions.extend(series.key.partition);
            segments.extend(series.key.segment.clone());
            if !glance.scopes.contains(&series.key.scope) {
                glance.scopes.push(series.key.scope);
            }
            glance.written_ms = glance.written_ms.max(Some(last.written_ms));
            glance.time_ms = glance.time_ms.max(Some(last.time_ms));
            let first = series.points.front().map(|point| point.time_ms);
            glance.from_ms = [glance.from_ms, first].into_iter().flatten().min();
            if **feature == *SUMMARY {
                glance.summary_status = glance.summary_status.max(Some(last.status));
                glance.summary_psi = Some(glance.summary_psi.map_or(last.psi, |psi: f64| psi.max(last.psi)));
            }
        }
        if **feature == *SUMMARY {
            continue;
        }
        glance.features += 1;
        glance.drifted += usize::from(worst == Some(Status::Drift));
        glance.possible += usize::from(worst == Some(Status::PossibleDrift));
        glance.violated += usize::from(violated);
        glance.status = glance.status.max(worst);
    }
    glance.scopes.sort_by_key(|scope| scope.as_str());
    glance.partitions = partitions.into_iter().collect();
    glance.segments = segments.len();
    glance
}

/// The segments of a monitor that begin with, or have, this text; in order, and how many there are.
pub(super) fn segments(history: &History, monitor: &str, text: &str, max: usize) -> (Vec<String>, usize) {
    let all: BTreeSet<Arc<str>> = history
        .series_of(monitor, SUMMARY)
        .filter_map(|series| series.key.segment.clone())
        .filter(|segment| segment.contains(text))
        .collect();
    let count = all.len();
    (all.iter().take(max).map(ToString::to_string).collect(), count)
}

fn is_violated(series: &Series) -> bool {
    series.quality.as_ref().is_some_and(|quality| quality.status == QualityStatus::Violated)
}

/// Rows of features, by columns.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Rows {
    pub(super) feature: Vec<String>,
    pub(super) psi: Vec<f64>,
    pub(super) p_value: Vec<Option<f64>>,
    pub(super) status: Vec<Status>,
    /// Missing values by records.
    pub(super) missing: Vec<f64>,
    pub(super) scope: Vec<Scope>,
    pub(super) partition: Vec<Option<i32>>,
    pub(super) segment: Vec<Option<String>>,
    pub(super) time_ms: Vec<i64>,
    pub(super) record_count: Vec<u64>,
    /// Series of the selection, and those of them in drift.
    pub(super) series: Vec<usize>,
    pub(super) drifting: Vec<usize>,
    /// Whether quality is violated in any of them.
    pub(super) violated: Vec<bool>,
    /// The last PSIs of the worst series, oldest first.
    pub(super) trend: Vec<Vec<f64>>,
}

/// The rows of those features of which something is newer than `seen`.
pub(super) fn rows(history: &History, monitor: &str, selection: &Selection, seen: u64) -> Rows {
    let mut rows = Rows::default();
    for (feature, all) in history.features(monitor).filter(|(feature, _)| ***feature != *SUMMARY) {
        let (mut worst, mut count, mut drifting, mut violated, mut is_new) = (None, 0, 0, false, false);
        for series in all.filter(|series| selection.has(series)) {
            let Some(last) = series.points.back() else { continue };
            count += 1;
            drifting += usize::from(last.status == Status::Drift);
            violated |= is_violated(series);
            is_new |= series.changed > seen;
            let is_worse = |(_, than): &(&Series, &Point)| (last.status, last.psi) > (than.status, than.psi);
            if worst.as_ref().is_none_or(is_worse) {
                worst = Some((series, last));
            }
        }
        let Some((series, last)) = worst.filter(|_| is_new) else { continue };
        rows.feature.push(feature.to_string());
        rows.psi.push(last.psi);
        rows.p_value.push(last.p_value());
        rows.status.push(last.status);
        rows.missing.push(share(last));
        rows.scope.push(series.key.scope);
        rows.partition.push(series.key.partition);
        rows.segment.push(series.key.segment.as_deref().map(str::to_owned));
        rows.time_ms.push(last.time_ms);
        rows.record_count.push(last.record_count);
        rows.series.push(count);
        rows.drifting.push(drifting);
        rows.violated.push(violated);
        let skip = series.points.len().saturating_sub(TREND_POINTS);
        rows.trend.push(series.points.iter().skip(skip).map(|point| short(point.psi)).collect());
    }
    rows
}

/// Missing values by records.
pub(super) fn share(point: &Point) -> f64 {
    let missing = point.missing.unwrap_or(0) as f64;
    if point.window_count > 0 {
        missing / point.window_count as f64
    } else {
        0.0
    }
}

/// Points of the selection, by columns.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct NewPoints {
    pub(super) feature: Vec<String>,
    pub(super) scope: Vec<Scope>,
    pub(super) partition: Vec<Option<i32>>,
    pub(super) segment: Vec<Option<String>>,
    pub(super) time_ms: Vec<i64>,
    pub(super) psi: Vec<f64>,
    pub(super) status: Vec<Status>,
    pub(super) record_count: Vec<u64>,
}

/// Those that came after `seen`; none when there are more than `max`: then everything is to be read again.
pub(super) fn new_points(history: &History, monitor: &str, selection: &Selection, seen: u64, max: usize) -> Option<NewPoints> {
    let mut new = NewPoints::default();
    for (feature, all) in history.features(monitor) {
        for series in all.filter(|series| series.changed > seen && selection.has(series)) {
            let count = series.points.iter().rev().take_while(|point| point.number > seen).count();
            if new.psi.len() + count > max {
                return None;
            }
            for point in series.points.iter().skip(series.points.len() - count) {
                new.feature.push(feature.to_string());
                new.scope.push(series.key.scope);
                new.partition.push(series.key.partition);
                new.segment.push(series.key.segment.as_deref().map(str::to_owned));
                new.time_ms.push(point.time_ms);
                new.psi.push(short(point.psi));
                new.status.push(point.status);
                new.record_count.push(point.record_count);
            }
        }
    }
    Some(new)
}

/// A feature by time: the worst check of each stretch.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct HeatMap {
    pub(super) from_ms: i64,
    /// After the last stretch.
    pub(super) to_ms: i64,
    pub(super) columns: usize,
    pub(super) feature: Vec<String>,
    /// The largest PSI; none where there was no check.
    pub(super) psi: Vec<Vec<Option<f64>>>,
    /// 0 no drift, 1 possible drift, 2 drift; 0 also where there was no check.
    pub(super) status: Vec<Vec<u8>>,
}

/// `from_ms` and `to_ms`: all there is, if not said.
pub(super) fn heat_map(history: &History, monitor: &str, selection: &Selection, columns: usize, from_ms: Option<i64>, to_ms: Option<i64>) -> HeatMap {
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for (_, all) in history.features(monitor) {
        for series in all.filter(|series| selection.has(series)) {
            first = first.min(series.points.front().map_or(i64::MAX, |point| point.time_ms));
            last = last.max(series.points.back().map_or(i64::MIN, |point| point.time_ms));
        }
    }
    let columns = columns.max(1);
    let to_ms = to_ms.unwrap_or_else(|| if last == i64::MIN { 0 } else { last.saturating_add(1) });
    let from_ms = from_ms.unwrap_or(if first == i64::MAX { to_ms } else { first }).min(to_ms);
    // A column is at least a millisecond.
    let to_ms = to_ms.max(from_ms.saturating_add(i64::try_from(columns).unwrap_or(i64::MAX)));
    let width = to_ms.saturating_sub(from_ms) as f64 / columns as f64;
    let mut map = HeatMap {
        from_ms,
        to_ms,
        columns,
        feature: Vec::new(),
        psi: Vec::new(),
        status: Vec::new(),
    };
    for (feature, all) in history.features(monitor).filter(|(feature, _)| ***feature != *SUMMARY) {
        let (mut psi, mut status, mut is_there) = (vec![None; columns], vec![0; columns], false);
        for series in all.filter(|series| selection.has(series)) {
            is_there = true;
            for point in series.points.iter().filter(|point| (from_ms..to_ms).contains(&point.time_ms)) {
                let column = (((point.time_ms - from_ms) as f64 / width) as usize).min(columns - 1);
                psi[column] = Some(psi[column].map_or(point.psi, |worst: f64| worst.max(point.psi)));
                status[column] = u8::max(status[column], point.status as u8);
            }
        }
        if is_there {
            map.feature.push(feature.to_string());
            map.psi.push(psi.into_iter().map(|psi| psi.map(short)).collect());
            map.status.push(status);
        }
    }
    map
}

/// To four digits: what a cell, a line or a bar can show.
pub(super) fn short(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    if scale.is_finite() && scale > 0.0 {
        (value * scale).round() / scale
    } else {
        value
    }
}

#[cfg(test)]
mod tests;
