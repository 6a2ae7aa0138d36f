//! The windows of whole topics, for one partition of the repartition topic: panes in, checks out.
//!
//! ```text
//! pane --of an earlier reference--> left out, counted
//!     \--of this one-------------> merged --each time--> check
//!      \-of a later one---------> (an empty window, measured by that one), merged
//! ```
//!
//! Everything is a function of the repartition topic, in its order: which reference a window is measured by is said by the panes, never by what
//! is known here at the moment. Partitions change over one after the other; until the last one has, the panes of those that have not are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cache_budget::CacheBudget;
use super::global_time::GlobalTimeWindows;
use super::measure::{ByVersion, Measure};
use super::monitored_window::{IrregularTally, NO_SEGMENT};
use super::place::Place;
use super::segments::Segments;
use super::{Disposition, Irregular, Monitor, MonitoredWindow, Outputs, Processor, References, TaskContext};
use crate::event::Scope;
use crate::ids::{RecordNumber, Timestamp};
use crate::record::{InputRecord, Missing, Rejected};
use crate::reference::ReferenceError;
use crate::repartition::{Content, CountPane, ShippedPane};
use crate::state::{Put, ReadStore, StateError, global_time_key};
use crate::window::Window;

/// The processor of one task.
pub struct GlobalProcessor {
    /// By monitor.
    windows: BTreeMap<Arc<str>, GlobalWindows>,
}

/// The windows of one monitor.
struct GlobalWindows {
    place: Arc<Place>,
    measures: ByVersion,
    kept: Kept,
    irregular: IrregularTally,
}

enum Kept {
    /// `None` before the first pane.
    Whole(Option<Box<MonitoredWindow>>),
    BySegment(Box<Segments>),
    /// Of time.
    Time(Box<GlobalTimeWindows>),
}

impl GlobalProcessor {
    /// Opens the windows that one partition of the repartition topic of these monitors leads to.
    ///
    /// # Errors
    /// As [`super::DriftProcessor::open`].
    pub fn open(
        context: &TaskContext<'_>,
        monitors: &[Arc<Monitor>],
        references: Arc<dyn References + Send + Sync>,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let mut windows = BTreeMap::new();
        for monitor in monitors {
            let place = context.place(monitor, Scope::Global);
            let opened = GlobalWindows::open(place, Arc::clone(&references), context.cache, store)?;
            windows.insert(Arc::clone(&monitor.name), opened);
        }
        Ok(Self { windows })
    }
}

impl GlobalWindows {
    fn open(
        place: Arc<Place>,
        references: Arc<dyn References + Send + Sync>,
        budget: &Arc<CacheBudget>,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let mut measures = ByVersion::new(references);
        let kept = if let Window::Time(settings) = place.monitor.window {
            Kept::Time(Box::new(GlobalTimeWindows::open(&place, settings, &mut measures, store)?))
        } else if store.get(&global_time_key(&place.monitor.name, NO_SEGMENT))?.is_some() {
            return Err(place.other_window("of time", place.monitor.window));
        } else if place.monitor.segment_by.is_empty() {
            Kept::Whole(MonitoredWindow::stored(&place, &mut measures, store)?.map(Box::new))
        } else {
            let segments = match Segments::stored(&place, store)? {
                Some(head) => Segments::restore(&place, budget, &head, None, store)?,
                None => Segments::new(&place, budget),
            };
            Kept::BySegment(Box::new(segments))
        };
        Ok(Self {
            place,
            measures,
            kept,
            irregular: IrregularTally::default(),
        })
    }

    /// Takes one pane, if it fits.
    fn take(&mut self, segment: &str, pane: &CountPane, store: &dyn ReadStore) -> Result<Disposition, StateError> {
        let monitor = &self.place.monitor;
        let known = match &mut self.kept {
            Kept::Whole(window) => window.as_deref_mut(),
            Kept::BySegment(segments) => match segments.find(segment) {
                Some(id) => Some(segments.window(id, &mut self.measures, store)?),
                None => None,
            },
            Kept::Time(_) => return Ok(not_a_pane("a pane of a count window, but the monitor has time windows")),
        };
        let (measure, fault) = match known {
            Some(window) if *window.reference_version() == pane.reference_version => (Arc::clone(window.measure()), window.misfit(pane)),
            Some(window) if pane.publication <= window.publication() => {
                self.irregular.count(Irregular::StalePane);
                return Ok(Disposition::Processed { check_due: false });
            }
            _ => match self.measures.shipped(monitor, &pane.reference_version, pane.publication) {
                Ok(Some(measure)) => {
                    let fault = MonitoredWindow::new(&self.place, NO_SEGMENT.into(), Arc::clone(&measure)).misfit(pane);
                    (measure, fault)
                }
                Ok(None) => {
                    return Ok(Disposition::Waiting {
                        monitor: Arc::clone(&monitor.name),
                        version: Arc::clone(&pane.reference_version),
                    });
                }
                Err(error) => return Ok(not_a_pane(format!("its reference {}: {error}", pane.reference_version))),
            },
        };
        match fault {
            Some(fault) => Ok(not_a_pane(fault)),
            None => self.merge(segment, pane, &measure, store),
        }
    }

    /// Takes one pane that fits. A window that is measured by another reference starts anew by this one.
    fn merge(&mut self, segment: &str, pane: &CountPane, measure: &Arc<Measure>, store: &dyn ReadStore) -> Result<Disposition, StateError> {
        let time = pane.pane.span.and_then(|span| span.times).map(|(_, last)| last);
        let merge = |window: &mut MonitoredWindow, stream_time| {
            if window.reference_version() != &measure.version {
                window.start_anew(Arc::clone(measure));
            }
            window.merge(pane, stream_time)
        };
        let check_due = match &mut self.kept {
            Kept::Whole(window) => {
                let fresh = || Box::new(MonitoredWindow::new(&self.place, NO_SEGMENT.into(), Arc::clone(measure)));
                let window = window.get_or_insert_with(fresh);
                let stream_time = window.stream_time().max(time);
                merge(window, stream_time)
            }
            Kept::BySegment(segments) => {
                let (id, stream_time) = segments.enter(segment, pane.every, time, measure, &mut self.irregular);
                let due = merge(segments.window(id, &mut self.measures, store)?, stream_time);
                segments.note(id, due);
                segments.is_due()
            }
            Kept::Time(_) => false,
        };
        Ok(Disposition::Processed { check_due })
    }

    fn is_check_due(&self) -> bool {
        match &self.kept {
            Kept::Whole(window) => window.as_ref().is_some_and(|window| window.is_check_due()),
            Kept::BySegment(segments) => segments.is_due(),
            Kept::Time(windows) => windows.is_due(),
        }
    }
}

pub(super) fn not_a_pane(what: impl ToString) -> Disposition {
    Disposition::Rejected(Rejected::NotAPane { what: what.to_string() })
}

impl Processor for GlobalProcessor {
    fn process(&mut self, record: &InputRecord<'_>, store: &dyn ReadStore) -> Result<Disposition, StateError> {
        let Some(value) = record.value else { return Ok(Disposition::Tombstone) };
        let shipped = match ShippedPane::read(record.key.unwrap_or_default(), value) {
            Ok(shipped) => shipped,
            Err(error) => return Ok(not_a_pane(error)),
        };
        let Some(windows) = self.windows.get_mut(&shipped.monitor) else {
            return Ok(Disposition::Foreign);
        };
        let GlobalWindows {
            kept, measures, irregular, ..
        } = windows;
        match (&shipped.content, kept) {
            (Content::Count(pane), _) => windows.take(&shipped.segment, pane, store),
            (Content::Window(part), Kept::Time(time)) => time.part(&shipped.segment, part, measures, store, irregular),
            (Content::Progress(progress), Kept::Time(time)) => Ok(time.progress(&shipped.segment, progress)),
            (Content::Window(_) | Content::Progress(_), _) => Ok(not_a_pane("of a time window, but the monitor has count windows")),
        }
    }

    fn is_check_due(&self) -> bool {
        self.windows.values().any(GlobalWindows::is_check_due)
    }

    fn check(&mut self, store: &dyn ReadStore, out: &mut Outputs) -> Result<(), StateError> {
        for GlobalWindows {
            kept, measures, irregular, ..
        } in self.windows.values_mut().filter(|windows| windows.is_check_due())
        {
            match kept {
                Kept::Whole(Some(window)) => _ = window.check(irregular, out),
                Kept::Whole(None) => {}
                Kept::BySegment(segments) => _ = segments.check(measures, store, irregular, out)?,
                Kept::Time(windows) => windows.check(measures, store, irregular, out)?,
            }
        }
        Ok(())
    }

    fn close_idle(&mut self, _counts_for: &dyn Fn(&Monitor) -> bool) -> bool {
        // Partitions that fall silent fade out of a count window, and of time windows they say so.
        false
    }

    fn announce_empty(&mut self) -> bool {
        false
    }

    fn offer_references(&mut self, _references: &dyn References) -> Vec<(Arc<str>, ReferenceError)> {
        // The panes say.
        Vec::new()
    }

    fn flush(&mut self, puts: &mut Vec<Put>) {
        for windows in self.windows.values_mut() {
            match &mut windows.kept {
                Kept::Whole(Some(window)) => window.flush(puts),
                Kept::Whole(None) => {}
                Kept::BySegment(segments) => segments.flush(None, puts),
                Kept::Time(windows) => windows.flush(puts),
            }
        }
    }

    fn applied(&mut self) {
        for windows in self.windows.values_mut() {
            match &mut windows.kept {
                Kept::Whole(_) => {}
                Kept::BySegment(segments) => segments.applied(),
                Kept::Time(windows) => windows.applied(),
            }
        }
    }

    fn unflushed_bytes(&self) -> usize {
        let bytes = |windows: &GlobalWindows| match &windows.kept {
            Kept::Whole(_) => 0,
            Kept::BySegment(segments) => segments.unflushed_bytes(),
            Kept::Time(windows) => windows.unflushed_bytes(),
        };
        self.windows.values().map(bytes).sum()
    }

    fn record_number(&self) -> RecordNumber {
        let number = |windows: &GlobalWindows| match &windows.kept {
            Kept::Whole(window) => window.as_ref().map(|window| window.window().record_number()),
            Kept::BySegment(segments) => Some(segments.record_number()),
            Kept::Time(windows) => Some(windows.record_number()),
        };
        self.windows.values().filter_map(number).max().unwrap_or(RecordNumber(0))
    }

    fn stream_time(&self) -> Option<Timestamp> {
        let time = |windows: &GlobalWindows| match &windows.kept {
            Kept::Whole(window) => window.as_ref().and_then(|window| window.stream_time()),
            Kept::BySegment(segments) => segments.stream_time(),
            // Each partition has its own.
            Kept::Time(_) => None,
        };
        self.windows.values().filter_map(time).max()
    }

    fn visit_segments(&self, visit: &mut dyn FnMut(&str, usize)) {
        for (monitor, windows) in &self.windows {
            let segments = match &windows.kept {
                Kept::Whole(_) => None,
                Kept::BySegment(segments) => Some(segments.len()),
                Kept::Time(windows) => windows.segments(),
            };
            if let Some(segments) = segments {
                visit(monitor, segments);
            }
        }
    }

    fn windows(&self) -> Vec<&MonitoredWindow> {
        let mut all = Vec::new();
        for windows in self.windows.values() {
            match &windows.kept {
                Kept::Whole(window) => all.extend(window.as_deref()),
                Kept::BySegment(segments) => all.extend(segments.in_memory()),
                Kept::Time(_) => {}
            }
        }
        all
    }

    fn verify(&self) -> Result<(), StateError> {
        for windows in self.windows.values() {
            if let Kept::Time(windows) = &windows.kept {
                windows.verify()?;
            }
        }
        self.windows().into_iter().try_for_each(MonitoredWindow::verify)
    }

    fn drain_missing(&mut self, _visit: &mut dyn FnMut(&str, &str, Missing, u64)) {
        // Counted where the records were.
    }

    fn drain_irregular(&mut self, visit: &mut dyn FnMut(&str, Irregular, u64)) {
        for (monitor, windows) in &mut self.windows {
            windows.irregular.drain(&mut |irregular, count| visit(monitor, irregular, count));
        }
    }
}
