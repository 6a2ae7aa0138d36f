//! One monitor's window, in one partition or of the whole topic: counting, checking, changing the reference, and its state.
//!
//! ```text
//! open --observe*--> due --check--> events, a whole pane --change_over--> (another reference: an empty window) --observe*--> ..
//!                      flush: panes that changed, then the head
//! ```
//!
//! A window of the whole topic takes whole panes (`merge`) where a partition's takes records (`observe`); the rest is the same.
//!
//! - k never goes back and never starts anew; the window does, at a change of reference, and only there.
//! - A change comes after a check, so a count window starts at a multiple of `every`. Panes of before are left in the store: their numbers tell
//!   that they are stale, and their slots are written again. Time windows start anew with the next record, and their panes of before are deleted.

mod irregular;
mod restore;
mod verdicts;

use std::sync::Arc;

pub use self::irregular::Irregular;
use self::irregular::IrregularTally;
use self::verdicts::{Bounds, Checker, Verdicts};
use super::Monitor;
use super::missing::MissingTally;
use super::{Outputs, Publication};
use crate::codec::encode;
use crate::drift::Status;
use crate::event::{ClosedBy, EventId, NO_TIMESTAMP, Scope};
use crate::histogram::{Counts as _, Layout};
use crate::ids::{Offset, Partition, RecordNumber, Timestamp};
use crate::record::{Missing, Observation};
use crate::reference::{Reference, ReferenceError};
use crate::repartition::{Content, CountPane, ShippedPane};
use crate::state::{FeatureHead, GlobalWindowHead, Put, TimeWindowHead, WindowHead, global_window_key, pane_key, time_window_key, window_key};
use crate::window::time::{HoppingWindows, Placed};
use crate::window::{SlidingWindow, Window};

/// A monitor has one window as long as it has no segments.
const NO_SEGMENT: &str = "";

/// In a pane's key: the pane holds all of the monitor's features.
const ALL_FEATURES: &str = "";

/// One monitor's window, in one partition or of the whole topic.
pub struct MonitoredWindow {
    monitor: Arc<Monitor>,
    scope: Scope,
    /// Of the topic that its task reads.
    partition: Partition,
    event_id: EventId,
    measure: Measure,
    window: Windowing,
    /// Of the last check of this window.
    verdicts: Verdicts,
    stream_time: Option<Timestamp>,
    missing: MissingTally,
    irregular: IrregularTally,
    /// The current reference, if it is not the one measured by.
    offered: Option<Measure>,
    check_due: bool,
    /// What is due is due since the partition is idle.
    idle: bool,
    /// k at the last flush, if what is stored changed since by records alone: checks and changes of reference come right after one.
    flushed: Option<RecordNumber>,
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

/// A reference as a monitor measures by it.
struct Measure {
    /// With the monitor's features only.
    reference: Arc<Reference>,
    /// Of the reference as published.
    version: Arc<str>,
    /// Its place in the order of publication.
    publication: u64,
    layout: Layout,
}

impl Measure {
    fn new(monitor: &Monitor, Publication { reference, number }: &Publication) -> Result<Self, ReferenceError> {
        reference.require(monitor.named_features())?;
        let version = reference.version().into();
        let reference = match &monitor.features {
            Some(features) => Arc::new(reference.select(features)?),
            None => Arc::clone(reference),
        };
        let layout = Layout::new(reference.features().iter().map(|feature| feature.counts().len()));
        Ok(Self {
            reference,
            version,
            publication: *number,
            layout,
        })
    }
}

impl MonitoredWindow {
    /// The monitor.
    #[must_use]
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    /// The reference that the window is measured by, with the monitor's features only.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.measure.reference
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

    /// Observations that it takes of a row.
    pub(super) fn width(&self) -> usize {
        self.measure.layout.feature_count()
    }

    /// Whether its panes are shipped to the window of the whole topic.
    fn ships(&self) -> bool {
        self.scope == Scope::Partition && self.monitor.scopes.global
    }

    /// Counts one record. `said`: the time that its field says, if there is such a field.
    pub(super) fn observe(&mut self, row: &[Observation], offset: Offset, timestamp: Option<Timestamp>, said: Option<Option<Timestamp>>) -> Observed {
        debug_assert!(!self.check_due, "a due check comes before the next record");
        if said == Some(None) {
            self.irregular.count(Irregular::UnreadableTime);
        }
        let timestamp = said.flatten().or(timestamp);
        self.missing.observe(row);
        self.stream_time = self.stream_time.max(timestamp);
        let (ships, mut is_late) = (self.ships(), false);
        self.check_due = match &mut self.window {
            Windowing::Count(window) => {
                window.observe(row, offset, timestamp);
                window.is_due(self.monitor.min_samples) || (ships && window.whole_pane().is_some())
            }
            Windowing::Time(windows) => {
                let placed = windows.observe(row, offset, timestamp);
                is_late = placed == Placed::Late;
                match placed {
                    Placed::InTime => {}
                    Placed::LateForSome => self.irregular.count(Irregular::LateForSome),
                    Placed::Late => self.irregular.count(Irregular::Late),
                    Placed::NoTime => self.irregular.count(Irregular::NoTime),
                    Placed::Full => self.irregular.count(Irregular::Full),
                }
                let due = windows.is_due();
                if !due {
                    windows.settle();
                }
                due
            }
        };
        Observed {
            check_due: self.check_due,
            is_late,
        }
    }

    pub(super) fn drain_irregular(&mut self, visit: &mut dyn FnMut(&str, Irregular, u64)) {
        let monitor = &self.monitor.name;
        self.irregular.drain(&mut |irregular, count| visit(monitor, irregular, count));
    }

    pub(super) fn drain_missing(&mut self, visit: &mut dyn FnMut(&str, &str, Missing, u64)) {
        let monitor = &self.monitor.name;
        self.missing.drain(&mut |feature, missing, count| visit(monitor, feature, missing, count));
    }

    /// Ships the pane that is whole, checks every feature over each window that is due, and appends the events: the features' in the reference's
    /// order, then the summary's. Says whether there was a check.
    pub(super) fn check(&mut self, out: &mut Outputs) -> bool {
        self.check_due = false;
        let (ships, mut checked) = (self.ships(), false);
        // Where only the whole topic is watched, a partition's checks still say when a reference may change.
        let tells = self.scope == Scope::Global || self.monitor.scopes.partition;
        let checker = Checker {
            monitor: &self.monitor,
            partition: (self.scope == Scope::Partition).then_some(self.partition),
            scope: self.scope,
            event_id: &self.event_id,
            measure: &self.measure,
            record_number: self.window.record_number(),
        };
        match &mut self.window {
            Windowing::Count(window) => {
                let settings = window.settings();
                out.panes.extend(window.whole_pane().filter(|_| ships).map(|pane| ShippedPane {
                    monitor: Arc::clone(&self.monitor.name),
                    segment: NO_SEGMENT.into(),
                    content: Content::Count(CountPane {
                        partition: self.partition,
                        size: settings.size(),
                        every: settings.every(),
                        reference_version: Arc::clone(&self.measure.version),
                        publication: self.measure.publication,
                        pane: pane.clone(),
                    }),
                }));
                checked = window.is_due(self.monitor.min_samples);
                if let Some(span) = window.span().filter(|_| checked && tells) {
                    let bounds = Bounds {
                        span,
                        times: span.times.unwrap_or((NO_TIMESTAMP, NO_TIMESTAMP)),
                        // Offsets of several partitions say nothing together.
                        id: match self.scope {
                            Scope::Partition => span.last.0,
                            Scope::Global => i64::try_from(checker.record_number.0).unwrap_or(i64::MAX),
                        },
                        closed_by: None,
                    };
                    self.verdicts.check(&checker, window.total(), bounds, &mut out.events);
                }
            }
            Windowing::Time(windows) => {
                while let Some(closed) = windows.close_next() {
                    if closed.total.records() < self.monitor.min_samples {
                        self.irregular.count(Irregular::SkippedWindow);
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
                    }
                }
                windows.settle();
                self.idle = false;
            }
        }
        checked
    }

    /// The partition is idle at its end: its time windows close, if one of them is to be checked. Says whether [`Self::check`] is due.
    ///
    /// Where none is, they stay open for what may come: so that a closing is always told by an event, by which a replay knows of it.
    pub(super) fn close_idle(&mut self) -> bool {
        debug_assert!(!self.check_due, "a due check comes first");
        let Windowing::Time(windows) = &mut self.window else { return false };
        if !windows.has_window_of(self.monitor.min_samples.max(1)) {
            return false;
        }
        windows.close_all();
        // The stored head names the first window that is open.
        (self.check_due, self.idle, self.flushed) = (true, true, None);
        true
    }

    /// Takes one partition's pane into the window of the whole topic. Says whether [`Self::check`] is due after it.
    ///
    /// The caller has seen to it that the pane fits: settings, reference, counts.
    pub(super) fn merge(&mut self, shipped: &CountPane) -> bool {
        debug_assert!(!self.check_due, "a due check comes before the next pane");
        let Windowing::Count(window) = &mut self.window else { return false };
        self.measure.publication = self.measure.publication.max(shipped.publication);
        self.stream_time = self.stream_time.max(shipped.pane.span.and_then(|span| span.times).map(|(_, last)| last));
        window.merge(&shipped.pane.histogram, shipped.pane.span);
        self.check_due = window.is_due(self.monitor.min_samples);
        self.check_due
    }

    /// This window with the reference of `fresh`: it starts anew, empty, and its record numbers go on.
    pub(super) fn measured_anew(mut self, fresh: Self) -> Self {
        self.offered = Some(fresh.measure);
        self.change_over();
        self
    }

    /// The place of its reference in the order of publication.
    pub(super) fn publication(&self) -> u64 {
        self.measure.publication
    }

    /// A pane that is left out.
    pub(super) fn count_stale_pane(&mut self) {
        self.irregular.count(Irregular::StalePane);
    }

    /// Remembers a reference for after the next check. While the partition has no record it is taken over at once; then the answer is true.
    pub(super) fn offer_reference(&mut self, published: &Publication) -> Result<bool, ReferenceError> {
        self.offered = None;
        if *self.measure.version != *published.reference.version() {
            self.offered = Some(Measure::new(&self.monitor, published)?);
        }
        Ok(self.window.record_number() == RecordNumber(0) && self.change_over())
    }

    /// Takes over the reference that was offered, if one was: the window starts anew, empty, after the present record.
    pub(super) fn change_over(&mut self) -> bool {
        let Some(measure) = self.offered.take() else { return false };
        match &mut self.window {
            Windowing::Count(window) => *window = SlidingWindow::new(window.settings(), measure.layout.clone(), window.record_number()),
            Windowing::Time(windows) => windows.start_anew(measure.layout.clone()),
        }
        self.verdicts = Verdicts::none(measure.layout.feature_count());
        self.missing.watch(measure.reference.features().iter().map(|feature| feature.name()));
        self.measure = measure;
        true
    }

    /// Appends the panes with records that no flush has written yet, then the head; nothing if there are none.
    pub(super) fn flush(&mut self, puts: &mut Vec<Put>) {
        debug_assert!(!self.check_due, "a due check comes before the flush, or its events would be lost");
        let k = self.window.record_number();
        let flushed = self.flushed.replace(k);
        if flushed == Some(k) {
            return;
        }
        let name = &self.monitor.name;
        let pane = |slot, value| Put {
            key: pane_key(name, NO_SEGMENT, ALL_FEATURES, slot),
            value,
        };
        let features = std::iter::zip(self.measure.reference.features(), &self.verdicts.statuses)
            .map(|(feature, &status)| FeatureHead {
                name: Arc::clone(feature.name()),
                bins: feature.counts().len() as u64,
                status,
            })
            .collect();
        let (reference_version, stream_time) = (Arc::clone(&self.measure.version), self.stream_time);
        let head = match &mut self.window {
            Windowing::Count(window) => {
                let settings = window.settings();
                puts.extend(
                    window
                        .panes_changed_since(flushed.unwrap_or(RecordNumber(0)))
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
                match self.scope {
                    Scope::Partition => Put {
                        key: window_key(name, NO_SEGMENT),
                        value: Some(encode(&head)),
                    },
                    Scope::Global => Put {
                        key: global_window_key(name, NO_SEGMENT),
                        value: Some(encode(&GlobalWindowHead {
                            window: head,
                            publication: self.measure.publication,
                        })),
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
                    key: time_window_key(name, NO_SEGMENT),
                    value: Some(encode(&TimeWindowHead {
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
                    })),
                }
            }
        };
        puts.push(head);
    }
}
