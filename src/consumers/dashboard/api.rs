//! The dashboard's HTTP interface. `openapi.json` describes it; a test holds the two together.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use leeway_topology::drift::{Criteria, Thresholds};
use leeway_topology::event::Scope;
use leeway_topology::processor::{Monitor, References as _};
use leeway_topology::reference::Reference;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::history::{History, Point, Series};
use super::series::{self, SeriesView};
use super::settings::MonitorSettings;
use super::view::{self, Glance, Selection};
use super::{Shared, assets, lock, openapi, pushes};
use crate::http::{Problem, health_response, method_not_allowed};

/// Columns of a heat map, unless said, and at most: a wide screen's pixels.
const COLUMNS: usize = 120;
const COLUMNS_MAX: usize = 2_000;

/// Series of one answer, unless said, and at most.
const SERIES: usize = 24;
const SERIES_MAX: usize = 500;

/// Points of a series that is not the one in full.
const THIN_POINTS: usize = 240;

/// Incidents of one answer, unless said.
const INCIDENTS: usize = 500;

/// Segments of one answer.
const SEGMENTS_MAX: usize = 200;

/// Every path, as the description names it.
pub(super) const PATHS: [&str; 11] = [
    "/health/live",
    "/health/ready",
    "/api/v1/openapi.json",
    "/api/v1/monitors",
    "/api/v1/monitors/{monitor}/features",
    "/api/v1/monitors/{monitor}/segments",
    "/api/v1/monitors/{monitor}/heatmap",
    "/api/v1/monitors/{monitor}/incidents",
    "/api/v1/monitors/{monitor}/features/{feature}/series",
    "/api/v1/monitors/{monitor}/features/{feature}/window",
    "/api/v1/events",
];

pub(super) fn router(shared: Arc<Shared>, stopped: watch::Receiver<bool>) -> Router {
    let [
        live,
        ready,
        openapi,
        monitors,
        features,
        segments,
        heat_map,
        incidents,
        series,
        window,
        events,
    ] = PATHS;
    Router::new()
        .route(live, get(async || "live"))
        .route(ready, get(is_ready))
        .route(openapi, get(async || ([(header::CONTENT_TYPE, "application/json")], openapi::DOCUMENT)))
        .route(monitors, get(monitors_))
        .route(features, get(features_))
        .route(segments, get(segments_))
        .route(heat_map, get(heat_map_))
        .route(incidents, get(incidents_))
        .route(series, get(series_))
        .route(window, get(window_))
        .route(
            events,
            get(async move |State(shared): State<Arc<Shared>>, Asked(query): Asked<EventsQuery>| {
                let EventsQuery {
                    monitor,
                    scope,
                    partition,
                    segment,
                } = query;
                pushes::stream(shared, monitor, Selection { scope, partition, segment }, stopped)
            }),
        )
        .fallback(assets::get)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

/// Ready when every topic was read to its end once.
async fn is_ready(State(shared): State<Arc<Shared>>) -> Response {
    let reading = lock(&shared.followers)
        .iter()
        .find(|follower| !follower.progress().is_caught_up)
        .map(|follower| {
            let progress = follower.progress();
            let problem = progress.problem.map(|problem| format!("; {problem}")).unwrap_or_default();
            format!("reading {:?}: {} records so far{problem}", follower.topic(), progress.records)
        });
    health_response(reading.map_or_else(|| Ok("every topic of events was read to its end".to_owned()), Err))
}

/// A query, refused as a problem document.
struct Asked<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Problem> {
        let asked = Query::from_request_parts(parts, state).await;
        let Query(asked) = asked.map_err(|error: QueryRejection| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
        Ok(Self(asked))
    }
}

/// Names in a path, refused in the same way.
struct Named<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, Problem> {
        let named = Path::from_request_parts(parts, state).await;
        let Path(named) = named.map_err(|error: PathRejection| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
        Ok(Self(named))
    }
}

#[derive(Deserialize)]
struct EventsQuery {
    #[serde(default)]
    monitor: String,
    scope: Option<Scope>,
    partition: Option<i32>,
    segment: Option<String>,
}

#[derive(Deserialize)]
struct HeatMapQuery {
    columns: Option<usize>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    scope: Option<Scope>,
    partition: Option<i32>,
    segment: Option<String>,
}

#[derive(Deserialize)]
struct SeriesQuery {
    /// Series in full: the first ones.
    full: Option<usize>,
    limit: Option<usize>,
    /// Of the segments.
    #[serde(default)]
    q: String,
    scope: Option<Scope>,
    partition: Option<i32>,
    segment: Option<String>,
}

#[derive(Deserialize)]
struct WindowQuery {
    /// Its record number; the latest, if not said.
    record_count: Option<u64>,
    /// Its event time, where several windows closed with one record.
    time_ms: Option<i64>,
    scope: Option<Scope>,
    partition: Option<i32>,
    segment: Option<String>,
}

#[derive(Deserialize)]
struct SegmentsQuery {
    #[serde(default)]
    q: String,
}

#[derive(Deserialize)]
struct IncidentsQuery {
    limit: Option<usize>,
    feature: Option<String>,
}

/// Computes an answer beside the threads that serve: a large history takes milliseconds.
async fn answer<T: Serialize + Send + 'static>(
    shared: Arc<Shared>,
    compute: impl FnOnce(&Shared, &History) -> Result<T, Problem> + Send + 'static,
) -> Response {
    let computed = tokio::task::spawn_blocking(move || {
        let history = lock(&shared.history);
        compute(&shared, &history)
    });
    match computed.await {
        Ok(Ok(found)) => ([(header::CACHE_CONTROL, "no-store")], Json(found)).into_response(),
        Ok(Err(problem)) => problem.into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[derive(Serialize)]
struct MonitorView {
    #[serde(flatten)]
    glance: Glance,
    /// None: there are events of it, and the configuration does not have it.
    settings: Option<MonitorSettings>,
    reference_version: Option<String>,
    reference_rows: Option<u64>,
}

async fn monitors_(State(shared): State<Arc<Shared>>) -> Response {
    let computed = tokio::task::spawn_blocking(move || {
        let glances = shared.glances();
        let monitors: Vec<MonitorView> = glances
            .iter()
            .map(|glance| {
                let reference = shared.references.current(&glance.name).map(|publication| publication.reference);
                MonitorView {
                    glance: glance.clone(),
                    settings: shared.monitor(&glance.name).map(|monitor| MonitorSettings::of(monitor)),
                    reference_version: reference.as_ref().map(|reference| reference.version().to_owned()),
                    reference_rows: reference.as_ref().map(|reference| reference.rows()),
                }
            })
            .collect();
        json!({
            "application_id": shared.application_id,
            "version": env!("CARGO_PKG_VERSION"),
            "now_ms": super::now_ms(),
            "monitors": monitors,
            "stream": shared.stream(""),
        })
    });
    match computed.await {
        Ok(found) => ([(header::CACHE_CONTROL, "no-store")], Json(found)).into_response(),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn features_(State(shared): State<Arc<Shared>>, Named(monitor): Named<String>, Asked(selection): Asked<Selection>) -> Response {
    answer(shared, move |shared, history| {
        shared.known(history, &monitor)?;
        Ok(view::rows(history, &monitor, &selection, 0))
    })
    .await
}

async fn segments_(State(shared): State<Arc<Shared>>, Named(monitor): Named<String>, Asked(query): Asked<SegmentsQuery>) -> Response {
    answer(shared, move |shared, history| {
        shared.known(history, &monitor)?;
        let (segments, count) = view::segments(history, &monitor, &query.q, SEGMENTS_MAX);
        Ok(json!({"segments": segments, "count": count}))
    })
    .await
}

async fn heat_map_(State(shared): State<Arc<Shared>>, Named(monitor): Named<String>, Asked(query): Asked<HeatMapQuery>) -> Response {
    answer(shared, move |shared, history| {
        shared.known(history, &monitor)?;
        let HeatMapQuery {
            columns,
            from_ms,
            to_ms,
            scope,
            partition,
            segment,
        } = query;
        let selection = Selection { scope, partition, segment };
        let columns = columns.unwrap_or(COLUMNS).clamp(1, COLUMNS_MAX);
        Ok(view::heat_map(history, &monitor, &selection, columns, from_ms, to_ms))
    })
    .await
}

async fn incidents_(State(shared): State<Arc<Shared>>, Named(monitor): Named<String>, Asked(query): Asked<IncidentsQuery>) -> Response {
    answer(shared, move |shared, history| {
        shared.known(history, &monitor)?;
        let wanted = |name: &str| query.feature.as_deref().is_none_or(|feature| feature == name);
        let all: Vec<_> = history
            .incidents
            .newest()
            .filter(|incident| *incident.key.monitor == *monitor && wanted(&incident.key.feature))
            .collect();
        let incidents: Vec<Value> = all
            .iter()
            .take(query.limit.unwrap_or(INCIDENTS))
            .map(|incident| {
                json!({
                    "number": incident.number,
                    "kind": incident.kind.as_str(),
                    "status": incident.status,
                    "feature": &*incident.key.feature,
                    "scope": incident.key.scope,
                    "partition": incident.key.partition,
                    "segment": incident.key.segment.as_deref(),
                    "start_ms": incident.start_ms,
                    "last_ms": incident.last_ms,
                    "end_ms": incident.end_ms,
                    "psi": incident.psi,
                    "checks": incident.checks,
                })
            })
            .collect();
        Ok(json!({"incidents": incidents, "count": all.len(), "dropped": history.incidents.dropped()}))
    })
    .await
}

async fn series_(
    State(shared): State<Arc<Shared>>,
    Named((monitor, feature)): Named<(String, String)>,
    Asked(query): Asked<SeriesQuery>,
) -> Response {
    answer(shared, move |shared, history| {
        shared.known_feature(history, &monitor, &feature)?;
        let SeriesQuery {
            full,
            limit,
            q,
            scope,
            partition,
            segment,
        } = query;
        let selection = Selection { scope, partition, segment };
        let found = series::selected(history, &monitor, &feature, &selection, &q);
        let full = full.unwrap_or(0);
        let versions = |version: &str| shared.version(&monitor, version);
        let shown: Vec<SeriesView> = found
            .iter()
            .take(limit.unwrap_or(SERIES).min(SERIES_MAX))
            .enumerate()
            .map(|(at, series)| {
                if at < full {
                    SeriesView::full(series, &versions)
                } else {
                    SeriesView::thinned(series, THIN_POINTS)
                }
            })
            .collect();
        let decision = shared.decision(&monitor, &feature);
        Ok(json!({
            "series": shown,
            "count": found.len(),
            "decided_by": decision.map(|(metric, _)| metric),
            "thresholds": decision.map(|(_, Thresholds { possible_drift, drift })| [possible_drift, drift]),
        }))
    })
    .await
}

async fn window_(
    State(shared): State<Arc<Shared>>,
    Named((monitor, feature)): Named<(String, String)>,
    Asked(query): Asked<WindowQuery>,
) -> Response {
    answer(shared, move |shared, history| {
        shared.known_feature(history, &monitor, &feature)?;
        let WindowQuery {
            record_count,
            time_ms,
            scope,
            partition,
            segment,
        } = query;
        let selection = Selection { scope, partition, segment };
        let found = series::selected(history, &monitor, &feature, &selection, "");
        let is_wanted =
            |point: &Point| record_count.is_none_or(|count| count == point.record_count) && time_ms.is_none_or(|time| time == point.time_ms);
        let at = |series: &&Series| series.points.iter().rposition(is_wanted);
        let Some((series, at)) = found.iter().find_map(|series| Some((*series, at(series)?))) else {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                format!("feature {feature:?} of monitor {monitor:?} has no such window any more: the oldest leave when there is no more room"),
            ));
        };
        let default = Criteria::default();
        let criteria = shared.monitor(&monitor).map_or(&default, |monitor| &monitor.criteria);
        let versions = |version: &str| shared.version(&monitor, version);
        let window = series::window(series, &series.points[at], criteria, &versions);
        let quality = series.quality.as_ref().filter(|_| at + 1 == series.points.len()).map(|quality| {
            json!({
                "status": quality.status,
                "violations": quality.violations,
                "missing": quality.missing,
                "other": quality.other,
                "out_of_range": quality.out_of_range,
                "examples": quality.examples,
            })
        });
        // Its neighbours in time, so that a reader can go on from window to window.
        let id = |at: Option<usize>| {
            at.and_then(|at| series.points.get(at))
                .map(|point| json!({"record_count": point.record_count, "time_ms": point.time_ms}))
        };
        let (previous, next) = (id(at.checked_sub(1)), id(Some(at + 1)));
        Ok(json!({"window": window, "quality": quality, "previous": previous, "next": next}))
    })
    .await
}

impl Shared {
    fn monitor(&self, name: &str) -> Option<&Arc<Monitor>> {
        self.monitors.iter().find(|monitor| *monitor.name == *name)
    }

    fn version(&self, monitor: &str, version: &str) -> Option<Arc<Reference>> {
        self.references.version(monitor, version).map(|publication| publication.reference)
    }

    /// The metric that decides on a feature, and its thresholds, as far as the configuration knows the monitor.
    fn decision(&self, monitor: &str, feature: &str) -> Option<(&'static str, Thresholds)> {
        let criteria = &self.monitor(monitor)?.criteria;
        let reference = self.references.current(monitor).map(|publication| publication.reference);
        let of_feature = reference
            .as_ref()
            .and_then(|reference| reference.features().iter().find(|known| **known.name() == *feature));
        let (metric, thresholds) = of_feature.map_or((criteria.decided_by, criteria.thresholds), |feature| criteria.decision(feature));
        Some((metric.as_str(), thresholds))
    }

    fn known(&self, history: &History, monitor: &str) -> Result<(), Problem> {
        if self.monitor(monitor).is_some() || history.monitors().any(|known| **known == *monitor) {
            return Ok(());
        }
        let detail = format!("there is no monitor {monitor:?}, neither in the configuration nor in the events");
        Err(Problem::new(StatusCode::NOT_FOUND, detail))
    }

    fn known_feature(&self, history: &History, monitor: &str, feature: &str) -> Result<(), Problem> {
        self.known(history, monitor)?;
        if history.series_of(monitor, feature).next().is_some() {
            return Ok(());
        }
        let detail = format!("monitor {monitor:?} has no events of a feature {feature:?}");
        Err(Problem::new(StatusCode::NOT_FOUND, detail))
    }
}
