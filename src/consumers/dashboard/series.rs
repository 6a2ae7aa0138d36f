//! One feature: its series over time, and one window beside its reference.

use std::collections::HashMap;
use std::sync::Arc;

use leeway_topology::drift::{Criteria, Status};
use leeway_topology::event::{NO_TIMESTAMP, Scope};
use leeway_topology::metric::{Measurements, Metric};
use leeway_topology::psi;
use leeway_topology::reference::{FeatureReference, Reference};
use leeway_topology::significance::noise_floor;
use serde::Serialize;

use super::history::{History, Point, Series};
use super::view::{Selection, share, short};

/// One series, by columns.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct SeriesView {
    pub(super) scope: Scope,
    pub(super) partition: Option<i32>,
    pub(super) segment: Option<String>,
    pub(super) time_ms: Vec<i64>,
    pub(super) psi: Vec<f64>,
    pub(super) status: Vec<Status>,
    pub(super) record_count: Vec<u64>,
    /// The rest: only of a series in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Details>,
}

/// What the chart of one series shows beside PSI.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Details {
    pub(super) window_count: Vec<u64>,
    pub(super) p_value: Vec<Option<f64>>,
    pub(super) null_mean: Vec<Option<f64>>,
    /// What PSI exceeds by chance in one check of a hundred; none when the reference is not known.
    pub(super) noise_floor: Vec<Option<f64>>,
    pub(super) missing: Vec<f64>,
    pub(super) version: Vec<String>,
    /// Measures beside PSI that the monitor asks for.
    pub(super) measures: Vec<MeasureColumn>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct MeasureColumn {
    pub(super) metric: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

/// Where a reference is found by its version.
pub(super) type Versions<'a> = &'a dyn Fn(&str) -> Option<Arc<Reference>>;

impl SeriesView {
    /// All points with everything of them.
    pub(super) fn full(series: &Series, versions: Versions<'_>) -> Self {
        let mut view = Self::of(series, series.points.iter(), |psi| psi);
        let mut floors = Floors::new(&series.key.feature, versions);
        let column = |get: &dyn Fn(&Measurements) -> Option<f64>| -> Vec<Option<f64>> {
            let measures = series.points.iter().map(|point| point.measures.as_deref());
            measures.map(|measures| measures.and_then(get)).collect()
        };
        let measures = Metric::ALL
            .into_iter()
            .map(|metric| MeasureColumn {
                metric: metric.as_str(),
                values: column(&|measures| measures.get(metric)),
            })
            .filter(|column| column.values.iter().any(Option::is_some))
            .collect();
        view.details = Some(Details {
            window_count: series.points.iter().map(|point| point.window_count).collect(),
            p_value: series.points.iter().map(Point::p_value).collect(),
            null_mean: series.points.iter().map(Point::null_mean).collect(),
            noise_floor: series.points.iter().map(|point| floors.of(point)).collect(),
            missing: series.points.iter().map(share).collect(),
            version: series.points.iter().map(|point| point.version.to_string()).collect(),
            measures,
        });
        view
    }

    /// At most so many points: of each stretch that with the largest PSI, so that no peak is lost.
    pub(super) fn thinned(series: &Series, points_max: usize) -> Self {
        let each = series.points.len().div_ceil(points_max.max(1)).max(1);
        let worst = |at: usize| {
            let stretch = series.points.range(at..(at + each).min(series.points.len()));
            stretch.reduce(|worst, point| if point.psi > worst.psi { point } else { worst })
        };
        Self::of(series, (0..series.points.len()).step_by(each).filter_map(worst), short)
    }

    fn of<'a>(series: &Series, points: impl Iterator<Item = &'a Point> + Clone, digits: fn(f64) -> f64) -> Self {
        Self {
            scope: series.key.scope,
            partition: series.key.partition,
            segment: series.key.segment.as_deref().map(str::to_owned),
            time_ms: points.clone().map(|point| point.time_ms).collect(),
            psi: points.clone().map(|point| digits(point.psi)).collect(),
            status: points.clone().map(|point| point.status).collect(),
            record_count: points.map(|point| point.record_count).collect(),
            details: None,
        }
    }
}

/// Noise floors, computed once for each size of window.
struct Floors<'a> {
    feature: &'a str,
    versions: Versions<'a>,
    known: HashMap<(Arc<str>, u64), Option<f64>>,
}

impl<'a> Floors<'a> {
    fn new(feature: &'a str, versions: Versions<'a>) -> Self {
        Self {
            feature,
            versions,
            known: HashMap::new(),
        }
    }

    fn of(&mut self, point: &Point) -> Option<f64> {
        let (feature, versions) = (self.feature, self.versions);
        *self.known.entry((point.version.clone(), point.window_count)).or_insert_with(|| {
            let reference = versions(&point.version)?;
            let feature = feature_of(&reference, feature)?;
            Some(noise_floor(feature.counts(), point.window_count)).filter(|floor| floor.is_finite())
        })
    }
}

fn feature_of<'a>(reference: &'a Reference, name: &str) -> Option<&'a FeatureReference> {
    reference.features().iter().find(|feature| **feature.name() == *name)
}

/// The series of a feature that are selected, the worst of now first, and how many there are.
pub(super) fn selected<'a>(history: &'a History, monitor: &str, feature: &str, selection: &Selection, text: &str) -> Vec<&'a Series> {
    let has_text = |series: &&Series| text.is_empty() || series.key.segment.as_ref().is_some_and(|segment| segment.contains(text));
    let mut found: Vec<&Series> = history
        .series_of(monitor, feature)
        .filter(|series| selection.has(series))
        .filter(has_text)
        .collect();
    let last = |series: &Series| series.points.back().map(|point| (point.status, point.psi));
    found.sort_by(|a, b| {
        last(b)
            .partial_cmp(&last(a))
            .unwrap_or(std::cmp::Ordering::Equal)
            .then_with(|| (a.key.partition, &a.key.segment).cmp(&(b.key.partition, &b.key.segment)))
    });
    found
}

/// One window of a feature beside its reference.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct WindowView {
    pub(super) scope: Scope,
    pub(super) partition: Option<i32>,
    pub(super) segment: Option<String>,
    pub(super) time_ms: i64,
    pub(super) start_ms: Option<i64>,
    pub(super) written_ms: i64,
    pub(super) record_count: u64,
    pub(super) window_count: u64,
    pub(super) start_offset: Option<i64>,
    pub(super) end_offset: Option<i64>,
    pub(super) psi: f64,
    pub(super) p_value: Option<f64>,
    pub(super) null_mean: Option<f64>,
    pub(super) noise_floor: Option<f64>,
    pub(super) status: Status,
    pub(super) missing: Option<u64>,
    pub(super) below_range: Option<u64>,
    pub(super) above_range: Option<u64>,
    pub(super) measures: Vec<(&'static str, f64)>,
    pub(super) reference_version: String,
    pub(super) reference_rows: Option<u64>,
    pub(super) binning: Option<String>,
    /// None when the reference of the window is not known.
    pub(super) bins: Option<Bins>,
}

/// Bins, by columns.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Bins {
    pub(super) label: Vec<String>,
    pub(super) reference: Vec<u64>,
    pub(super) current: Vec<u64>,
    /// What each adds to the PSI.
    pub(super) contribution: Vec<f64>,
}

/// The window of a point.
pub(super) fn window(series: &Series, point: &Point, criteria: &Criteria, versions: Versions<'_>) -> WindowView {
    let reference = versions(&point.version);
    let feature = reference.as_ref().and_then(|reference| feature_of(reference, &series.key.feature));
    let current = point.counts.to_vec();
    let bins = feature.filter(|feature| feature.bin_count() == current.len()).map(|feature| Bins {
        label: (0..current.len()).map(|bin| feature.label(bin)).collect(),
        reference: feature.counts().to_vec(),
        contribution: psi::contributions(feature.counts(), &current, criteria.epsilon),
        current,
    });
    let measures = point.measures.as_deref().copied().unwrap_or_default();
    WindowView {
        scope: series.key.scope,
        partition: series.key.partition,
        segment: series.key.segment.as_deref().map(str::to_owned),
        time_ms: point.time_ms,
        start_ms: Some(point.start_ms).filter(|start| *start != NO_TIMESTAMP.0),
        written_ms: point.written_ms,
        record_count: point.record_count,
        window_count: point.window_count,
        start_offset: point.offsets.map(|(start, _)| start),
        end_offset: point.offsets.map(|(_, end)| end),
        psi: point.psi,
        p_value: point.p_value(),
        null_mean: point.null_mean(),
        noise_floor: Floors::new(&series.key.feature, versions).of(point),
        status: point.status,
        missing: point.missing,
        below_range: point.sides.map(|(below, _)| below),
        above_range: point.sides.map(|(_, above)| above),
        measures: Metric::ALL
            .into_iter()
            .filter_map(|metric| Some((metric.as_str(), measures.get(metric)?)))
            .collect(),
        reference_version: point.version.to_string(),
        reference_rows: reference.as_ref().map(|reference| reference.rows()),
        binning: feature.map(|feature| feature.binning().to_owned()),
        bins,
    }
}
