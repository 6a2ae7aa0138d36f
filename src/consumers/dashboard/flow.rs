//! How fast records come and how full windows are, as the events tell.

use std::collections::BTreeMap;

use leeway_topology::event::SUMMARY;
use serde::Serialize;

use super::history::{History, Series};

/// The stretch that a rate is of, milliseconds: some checks of a busy partition, and short enough to see it stop.
const RATE_OVER_MS: i64 = 60_000;

/// One partition of a monitor's input, or the whole of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Flow {
    /// None: the whole topic, in scope global.
    pub(super) partition: Option<i32>,
    /// Records counted so far.
    pub(super) records: u64,
    /// Records in the window of the last check; with segments, of all of theirs.
    pub(super) window_count: u64,
    /// Segments.
    pub(super) windows: usize,
    /// Records a second over the last minute, by when events were written.
    pub(super) rate: f64,
    pub(super) written_ms: i64,
    pub(super) time_ms: i64,
}

/// The flows of a monitor by partition, the whole topic first.
pub(super) fn flows(history: &History, monitor: &str, now_ms: i64) -> Vec<Flow> {
    let mut flows: BTreeMap<Option<i32>, Flow> = BTreeMap::new();
    for series in history.series_of(monitor, SUMMARY) {
        let Some(last) = series.points.back() else { continue };
        let flow = flows.entry(series.key.partition).or_default();
        flow.partition = series.key.partition;
        flow.records += last.record_count;
        flow.window_count += last.window_count;
        flow.windows += 1;
        flow.rate += rate(series, now_ms);
        flow.written_ms = flow.written_ms.max(last.written_ms);
        flow.time_ms = flow.time_ms.max(last.time_ms);
    }
    flows.into_values().collect()
}

fn rate(series: &Series, now_ms: i64) -> f64 {
    let recent = || series.points.iter().rev().take_while(|point| now_ms - point.written_ms <= RATE_OVER_MS);
    let (Some(last), Some(first)) = (recent().next(), recent().last()) else {
        return 0.0;
    };
    // Up to now, so that it falls when nothing comes any more.
    let ms = (now_ms - first.written_ms).max(1) as f64;
    last.record_count.saturating_sub(first.record_count) as f64 * 1000.0 / ms
}
