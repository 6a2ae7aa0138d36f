//! One window: of a monitor, in one partition or of the whole topic, of one segment or of all records: counting, checking, and its state.
//!
//! ```text
//! restore --observe*--> due --check--> events, a whole pane --start_anew--> (another reference: an empty window) --observe*--> ..
//!                      flush: panes that changed, then the head
//! ```
//!
//! A window of the whole topic takes whole panes (`merge`) where a partition's takes records (`observe`); the rest is the same.
//!
//! - k never goes back and never starts anew; the window does, at a change of reference, and only there.
//! - Count windows leave panes of before a change in the store: their numbers, or that the head was measured by another reference, tell that they are
//!   stale, and their slots are written again. Those of time windows are deleted.
//!
//! Not here: which reference is current, and when it is taken over; that is [`super::monitor_windows`]' and [`super::global_processor`]'s.

mod irregular;
mod restore;
pub(super) mod verdicts;

use std::sync::Arc;

pub use self::irregular::Irregular;
pub(super) use self::irregular::IrregularTally;
pub(super) use self::restore::Head;
use self::verdicts::{Bounds, Checker, Verdicts};
use super::measure::Measure;
use super::place::Place;
use super::quality_tally::QualityTally;
use super::{Monitor, Outputs};
use crate::codec::{encode, encode_extended};
use crate::decoder::WatchedValue;
use crate::drift::Status;
use crate::event::{ClosedBy, NO_TIMESTAMP, Scope};
use crate::histogram::{Counts as _, Layout};
use crate::ids::{Offset, RecordNumber, Timestamp};
use crate::record::Observation;
use crate::reference::Reference;
use crate::repartition::{Content, CountPane, ShippedPane, WindowPart};
use crate::state::{FeatureHead, GlobalWindowHead, Put, TimeWindowHead, WindowHead, global_window_key, pane_key, time_window_key, window_key};
use crate::window::time::{HoppingWindows, Placed};
use crate::window::{SlidingWindow, Window};

/// The segment of a monitor that has none.
pub(super) const NO_SEGMENT: &str = "";

/// In a pane's key: the pane holds all of the monitor's features.
const ALL_FEATURES: &str = "";

/// One window. See the module.
pub struct MonitoredWindow {
    place: Arc<Place>,
    /// Empty: all records.
    segment: Arc<str>,
    measure: Arc<Measure>,
    /// Of the panes that were merged, the last publication of that reference.
    publication: u64,
    window: Windowing,
    /// Of the last check of this window.
    verdicts: Verdicts,
    /// `None`: the monitor has no limits of quality, or its checks here are silent.
    quality: Option<Box<QualityTally>>,
    /// At the last record.
    stream_time: Option<Timestamp>,
    check_due: bool,
    /// What is due is due since the partition is idle.
    idle: bool,
    /// k at the last flush.
    flushed: RecordNumber,
    /// What is stored is not this.
    is_changed: bool,
}

/// What one record did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed {
    /// [`MonitoredWindow::check`] is due.
    pub(super) check_due: bool,
    /// All of its windows had been checked before it came.
    pub(super) is_late: bool,
}

/// The records that the next check looks at, or the next checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Windowing {
    /// The last so many.
    Count(SlidingWindow),
    /// Those of windows of time.
    Time(HoppingWindows),
}

impl Windowing {
    fn new(settings: Window, layout: Layout) -> Self {
        match settings {
            Window::Count(settings) => Self::Count(SlidingWindow::new(settings, layout, RecordNumber(0))),
            Window::Time(settings) => Self::Time(HoppingWindows::new(settings, layout)),
        }
    }

    /// The number of the partition's last valid record; 0 before the first.
    #[must_use]
    pub fn record_number(&self) -> RecordNumber {
        match self {
            Self::Count(window) => window.record_number(),
            Self::Time(windows) => windows.record_number(),
        }
    }
}

impl MonitoredWindow {
    /// A window without records.
    pub(super) fn new(place: &Arc<Place>, segment: Arc<str>, measure: Arc<Measure>) -> Self {
        let window = Windowing::new(place.monitor.window, measure.layout.clone());
        Self::of(place, segment, measure, window)
    }

    fn of(place: &Arc<Place>, segment: Arc<str>, measure: Arc<Measure>, window: Windowing) -> Self {
        Self {
            place: Arc::clone(place),
            segment,
            verdicts: Verdicts::none(measure.layout.feature_count()),
            quality: QualityTally::new(place, &measure),
            publication: measure.publication,
            measure,
            stream_time: None,
            check_due: false,
            idle: false,
            flushed: window.record_number(),
            is_changed: false,
            window,
        }
    }

    /// The monitor.
    #[must_use]
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.place.monitor
    }

    /// Whose records, where the monitor has segments.
    #[must_use]
    pub fn segment(&self) -> Option<&Arc<str>> {
        (!self.segment.is_empty()).then_some(&self.segment)
    }

    /// The reference that the window is measured by, with the monitor's features only.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.measure.reference
    }

    pub(super) fn measure(&self) -> &Arc<Measure> {
        &self.measure
    }

    /// The version of that reference, as published.
    #[must_use]
    pub fn reference_version(&self) -> &Arc<str> {
        &self.measure.version
    }

    /// The window and its counts.
    #[must_use]
    pub fn window(&self) -> &Windowing {
        &self.window
    }

    /// The status of a feature (its index in the reference) at the last check of this window.
    #[must_use]
    pub fn status(&self, feature: usize) -> Option<Status> {
        self.verdicts.statuses.get(feature).copied().flatten()
    }

    pub(super) fn stream_time(&self) -> Option<Timestamp> {
        self.stream_time
    }

    pub(super) fn is_check_due(&self) -> bool {
        self.check_due
    }

    /// Bytes that it takes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let panes = match &self.window {
            // And their total.
            Windowing::Count(window) => window.panes().count() + 1,
            Windowing::Time(windows) => windows.panes().count(),
        };
        let quality = self.quality.as_ref().map_or(0, |quality| quality.memory_bytes());
        let bytes =
            size_of::<Self>() + self.verdicts.statuses.len() + quality + panes * (PANE_BYTES + self.measure.layout.counters() * size_of::<u32>());
        // What allocators round up to: up to a fifth, by their classes of sizes.
        bytes + bytes / 8
    }

    /// Whether its panes are shipped to the window of the whole topic.
    fn ships(&self) -> bool {
        self.place.ships()
    }

    /// Counts one record, whose time is `timestamp`. `values`: what it has in `other`. `stream_time`: the partition's, this record's time included.
    pub(super) fn observe(
        &mut self,
        (row, values): (&[Observation], &[WatchedValue]),
        offset: Offset,
        timestamp: Option<Timestamp>,
        stream_time: Option<Timestamp>,
        irregular: &mut IrregularTally,
    ) -> Observed {
        debug_assert!(!self.check_due, "a due check comes before the next record");
        self.stream_time = stream_time;
        self.is_changed = true;
        let (ships, mut is_late, mut is_counted) = (self.ships(), false, true);
        self.check_due = match &mut self.window {
            Windowing::Count(window) => {
                window.observe(row, offset, timestamp);
                window.is_due(self.place.monitor.min_samples) || (ships && window.whole_pane().is_some())
            }
            Windowing::Time(windows) => {
                let placed = windows.observe(row, offset, timestamp);
                is_late = placed == Placed::Late;
                is_counted = matches!(placed, Placed::InTime | Placed::LateForSome);
                match placed {
                    Placed::InTime => {}
                    Placed::LateForSome => irregular.count(Irregular::LateForSome),
                    Placed::Late => irregular.count(Irregular::Late),
                    Placed::NoTime => irregular.count(Irregular::NoTime),
                    Placed::Full => irregular.count(Irregular::Full),
                }
                let due = windows.is_due();
                if !due {
                    windows.settle();
                }
                due
            }
        };
        if let Some(quality) = self.quality.as_mut().filter(|_| is_counted) {
            quality.observe(values);
        }
        Observed {
            check_due: self.check_due,
            is_late,
        }
    }

    /// Other segments' records have moved stream time to this. What has closed by it was checked.
    pub(super) fn settle_at(&mut self, stream_time: Option<Timestamp>) {
        if let Windowing::Time(windows) = &mut self.window {
            windows.advance_stream_time(stream_time);
            debug_assert!(!windows.is_due(), "a window that is over is checked before the next record");
            windows.settle();
        }
    }

    /// Other segments' records have moved stream time to this. Says whether [`Self::check`] is due.
    pub(super) fn close_at(&mut self, stream_time: Option<Timestamp>) -> bool {
        if let Windowing::Time(windows) = &mut self.window {
            windows.advance_stream_time(stream_time);
            self.check_due = windows.is_due();
        }
        self.check_due
    }

    /// Of time windows: the first that is open, once none is due.
    pub(super) fn open_from(&self) -> u64 {
        match &self.window {
            Windowing::Count(_) => 0,
            Windowing::Time(windows) => windows.next(),
        }
    }

    /// Of time windows: the first that is open and has records.
    pub(super) fn first_open_with_records(&self) -> Option<u64> {
        match &self.window {
            Windowing::Count(_) => None,
            Windowing::Time(windows) => windows.first_with_records(),
        }
    }

    /// Ships the pane that is whole, checks every feature over each window that is due, and appends the events: the features' in the reference's
    /// order, then the summary's. Says whether there was a check.
    pub(super) fn check(&mut self, irregular: &mut IrregularTally, out: &mut Outputs) -> bool {
        self.check_up_to(None, irregular, out)
    }

    /// As [`Self::check`], but of time windows those up to this one only.
    pub(super) fn check_up_to(&mut self, last: Option<u64>, irregular: &mut IrregularTally, out: &mut Outputs) -> bool {
        self.check_due = false;
        self.is_changed = true;
        let (ships, mut checked) = (self.ships(), false);
        let monitor = &self.place.monitor;
        // Silent ones still say when a reference may change.
        let tells = self.place.tells();
        let checker = Checker {
            place: &self.place,
            segment: &self.segment,
            event_id: self.place.event_id(&self.segment),
            measure: &self.measure,
            record_number: self.window.record_number(),
        };
        match &mut self.window {
            Windowing::Count(window) => {
                let settings = window.settings();
                out.panes.extend(window.whole_pane().filter(|_| ships).map(|pane| ShippedPane {
                    monitor: Arc::clone(&monitor.name),
                    segment: Arc::clone(&self.segment),
                    content: Content::Count(CountPane {
                        partition: self.place.partition,
                        size: settings.size(),
                        every: settings.every(),
                        reference_version: Arc::clone(&self.measure.version),
                        publication: self.publication,
                        pane: pane.clone(),
                    }),
                }));
                checked = window.is_due(monitor.min_samples);
                if let Some(span) = window.span().filter(|_| checked && tells) {
                    let bounds = Bounds {
                        span,
                        times: span.times.unwrap_or((NO_TIMESTAMP, NO_TIMESTAMP)),
                        // Offsets of several partitions say nothing together.
                        id: match self.place.scope {
                            Scope::Partition => span.last.0,
                            Scope::Global => i64::try_from(checker.record_number.0).unwrap_or(i64::MAX),
                        },
                        closed_by: None,
                    };
                    self.verdicts.check(&checker, window.total(), bounds, &mut out.events);
                    if let Some(quality) = &mut self.quality {
                        quality.check(&checker, window.total(), bounds, &mut out.quality);
                    }
                }
            }
            Windowing::Time(windows) => {
                let settings = windows.settings();
                while last.is_none_or(|last| windows.first_with_records().is_some_and(|first| first <= last))
                    && let Some(closed) = windows.close_next()
                {
                    if ships {
                        out.panes.push(ShippedPane {
                            monitor: Arc::clone(&monitor.name),
                            segment: Arc::clone(&self.segment),
                            content: Content::Window(WindowPart {
                                partition: self.place.partition,
                                size_ms: settings.size_ms(),
                                every_ms: settings.every_ms(),
                                grace_ms: settings.grace_ms(),
                                reference_version: Arc::clone(&self.measure.version),
                                publication: self.publication,
                                window: closed.number,
                                record_number: checker.record_number,
                                is_idle: self.idle,
                                total: closed.total.clone(),
                            }),
                        });
                    }
                    if closed.total.records() < monitor.min_samples {
                        irregular.count(Irregular::SkippedWindow);
                        continue;
                    }
                    let bounds = Bounds {
                        span: closed.span,
                        times: (closed.start, closed.end),
                        id: closed.end.0,
                        closed_by: Some(if self.idle { ClosedBy::Idle } else { ClosedBy::StreamTime }),
                    };
                    checked = true;
                    if tells {
                        self.verdicts.check(&checker, &closed.total, bounds, &mut out.events);
                        if let Some(quality) = &mut self.quality {
                            quality.check(&checker, &closed.total, bounds, &mut out.quality);
                        }
                    }
                }
                if last.is_none() {
                    windows.settle();
                }
                self.idle = false;
            }
        }
        checked
    }

    /// The partition is idle at its end: its time windows close, if one of them is to be checked. Says whether [`Self::check`] is due.
    ///
    /// Where none is, they stay open for what may come: so that a closing is always told by an event, by which a replay knows of it. Where windows are
    /// shipped to the whole topic they all close, since that tells it as well.
    pub(super) fn close_idle(&mut self) -> bool {
        debug_assert!(!self.check_due, "a due check comes first");
        let least = if self.ships() { 1 } else { self.place.monitor.min_samples.max(1) };
        let Windowing::Time(windows) = &mut self.window else { return false };
        if !windows.has_window_of(least) {
            return false;
        }
        windows.close_all();
        (self.check_due, self.idle) = (true, true);
        true
    }

    /// Takes one partition's pane into the window of the whole topic. Says whether [`Self::check`] is due after it.
    ///
    /// The caller has seen to it that the pane fits: settings, reference, counts.
    pub(super) fn merge(&mut self, shipped: &CountPane, stream_time: Option<Timestamp>) -> bool {
        debug_assert!(!self.check_due, "a due check comes before the next pane");
        let Windowing::Count(window) = &mut self.window else { return false };
        self.publication = self.publication.max(shipped.publication);
        self.stream_time = stream_time;
        self.is_changed = true;
        window.merge(&shipped.pane.histogram, shipped.pane.span);
        self.check_due = window.is_due(self.place.monitor.min_samples);
        self.check_due
    }

    /// The place of its reference in the order of publication.
    pub(super) fn publication(&self) -> u64 {
        self.publication
    }

    /// Takes over another reference: the window starts anew, empty, after the present record.
    pub(super) fn start_anew(&mut self, measure: Arc<Measure>) {
        match &mut self.window {
            Windowing::Count(window) => *window = SlidingWindow::new(window.settings(), measure.layout.clone(), window.record_number()),
            Windowing::Time(windows) => windows.start_anew(measure.layout.clone()),
        }
        self.verdicts = Verdicts::none(measure.layout.feature_count());
        self.quality = QualityTally::new(&self.place, &measure);
        self.publication = measure.publication;
        self.measure = measure;
    }

    /// The slots whose panes may stand written.
    pub(super) fn slots(&self) -> Vec<u32> {
        match &self.window {
            Windowing::Count(window) => window.panes().map(|pane| window.settings().slot(pane.number)).collect(),
            Windowing::Time(windows) => windows.panes().map(|pane| windows.settings().slot(pane.number)).collect(),
        }
    }

    /// Appends the panes that changed since the last flush, then the head; nothing if nothing did.
    pub(super) fn flush(&mut self, puts: &mut Vec<Put>) {
        debug_assert!(!self.check_due, "a due check comes before the flush, or its events would be lost");
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let k = self.window.record_number();
        let flushed = std::mem::replace(&mut self.flushed, k);
        let (name, segment) = (&self.place.monitor.name, &*self.segment);
        let pane = |slot, value| Put {
            key: pane_key(name, segment, ALL_FEATURES, slot),
            value,
        };
        let features = std::iter::zip(self.measure.reference.features(), &self.verdicts.statuses)
            .map(|(feature, &status)| FeatureHead {
                name: Arc::clone(feature.name()),
                bins: feature.counts().len() as u64,
                status,
            })
            .collect();
        let quality = self.quality.as_ref().map(|quality| quality.head(&self.measure));
        let (reference_version, stream_time) = (Arc::clone(&self.measure.version), self.stream_time);
        let head = match &mut self.window {
            Windowing::Count(window) => {
                let settings = window.settings();
                puts.extend(
                    window
                        .panes_changed_since(flushed)
                        .map(|changed| pane(settings.slot(changed.number), Some(encode(changed)))),
                );
                let head = WindowHead {
                    size: settings.size(),
                    every: settings.every(),
                    record_number: k,
                    start: window.start(),
                    reference_version,
                    stream_time,
                    features,
                    summary: self.verdicts.summary,
                };
                match self.place.scope {
                    Scope::Partition => Put {
                        key: window_key(name, segment),
                        value: Some(encode_extended(&head, quality.as_ref())),
                    },
                    Scope::Global => Put {
                        key: global_window_key(name, segment),
                        value: Some(encode_extended(
                            &GlobalWindowHead {
                                window: head,
                                publication: self.publication,
                            },
                            quality.as_ref(),
                        )),
                    },
                }
            }
            Windowing::Time(windows) => {
                let settings = windows.settings();
                puts.extend(
                    windows
                        .take_unwritten()
                        .into_iter()
                        .map(|(slot, changed)| pane(slot, changed.map(encode))),
                );
                Put {
                    key: time_window_key(name, segment),
                    value: Some(encode_extended(
                        &TimeWindowHead {
                            size_ms: settings.size_ms(),
                            every_ms: settings.every_ms(),
                            grace_ms: settings.grace_ms(),
                            record_number: k,
                            next: windows.next(),
                            panes: windows.panes().count() as u64,
                            records: windows.panes().map(|pane| pane.histogram.records()).sum(),
                            reference_version,
                            stream_time,
                            features,
                            summary: self.verdicts.summary,
                        },
                        quality.as_ref(),
                    )),
                }
            }
        };
        puts.push(head);
    }
}

/// What a pane takes in memory beside its counts, about.
const PANE_BYTES: usize = 120;
