//! Opening a window from the store, and proving that what was found there holds together.
//!
//! Whatever does not fit is an error with both sides: the task never continues on doubt.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::irregular::IrregularTally;
use super::verdicts::Verdicts;
use super::{ALL_FEATURES, Measure, MonitoredWindow, NO_SEGMENT, Windowing};
use crate::drift::Status;
use crate::event::{EventId, Scope};
use crate::histogram::Contradiction;
use crate::ids::{Partition, RecordNumber, Timestamp};
use crate::processor::missing::MissingTally;
use crate::processor::{Monitor, Publication, References};
use crate::reference::ReferenceError;
use crate::repartition::CountPane;
use crate::state::{
    FeatureHead, GlobalWindowHead, ReadStore, StateError, TimeWindowHead, WindowHead, global_window_key, pane_key, read, time_window_key, window_key,
};
use crate::window::time::{HoppingWindows, TimeWindow};
use crate::window::{CountWindow, Pane, PaneNumber, SlidingWindow, Window};

/// What to do about settings that stored panes do not fit.
const REMEDY: &str = "change it back, or run `leeway reset`, or give the monitor another name or the application another id";

impl MonitoredWindow {
    /// Opens one monitor's window in one partition: as stored, or fresh.
    pub(in crate::processor) fn open(
        application_id: &str,
        partition: Partition,
        monitor: &Arc<Monitor>,
        references: &dyn References,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let at = Place {
            monitor,
            scope: Scope::Partition,
            partition,
        };
        let current = references.current(&monitor.name);
        let counted = read::<WindowHead>(store, &window_key(&monitor.name, NO_SEGMENT))?;
        let timed = read::<TimeWindowHead>(store, &time_window_key(&monitor.name, NO_SEGMENT))?;
        let mut opened = match (counted, timed, monitor.window) {
            (Some(head), None, Window::Count(settings)) => at.restore_count(application_id, head, settings, references, store)?,
            (None, Some(head), Window::Time(settings)) => at.restore_time(application_id, head, settings, references, store)?,
            (None, None, settings) => {
                at.expect_no_panes(store)?;
                let published = current
                    .as_ref()
                    .ok_or_else(|| at.inconsistent("no reference is published: run `leeway reference publish`, or set the monitor's `reference`"))?;
                let measure = Measure::new(monitor, published).map_err(|fault| at.inconsistent(format!("its reference cannot be used: {fault}")))?;
                let window = Windowing::new(settings, measure.layout.clone());
                at.open(application_id, measure, window)
            }
            (Some(head), None, now @ Window::Time(_)) => return Err(at.other_window(&count(&head), now)),
            (None, Some(head), now @ Window::Count(_)) => return Err(at.other_window(&time(&head), now)),
            (Some(_), Some(_), _) => return Err(at.contradictory("a count window and time windows are stored")),
        };
        if let Some(published) = current {
            // One that lacks a monitored feature is no reason to stop a window that has its own; whoever publishes it hears of it.
            opened.offer_reference(&published).unwrap_or_default();
        }
        Ok(opened)
    }

    /// Opens one monitor's window of the whole topic, if the store has it: a fresh one is opened by its first pane.
    pub(in crate::processor) fn open_global(
        application_id: &str,
        partition: Partition,
        monitor: &Arc<Monitor>,
        references: &dyn References,
        store: &dyn ReadStore,
    ) -> Result<Option<Self>, StateError> {
        let at = Place {
            monitor,
            scope: Scope::Global,
            partition,
        };
        match (
            read::<GlobalWindowHead>(store, &global_window_key(&monitor.name, NO_SEGMENT))?,
            monitor.window,
        ) {
            (Some(GlobalWindowHead { window, publication }), Window::Count(settings)) => {
                let mut opened = at.restore_count(application_id, window, settings, references, store)?;
                opened.measure.publication = publication;
                Ok(Some(opened))
            }
            (Some(head), now @ Window::Time(_)) => Err(at.other_window(&count(&head.window), now)),
            (None, _) => at.expect_no_panes(store).map(|()| None),
        }
    }

    /// An empty window of the whole topic, measured by a reference; none if that does not fit the monitor.
    pub(in crate::processor) fn new_global(
        application_id: &str,
        partition: Partition,
        monitor: &Arc<Monitor>,
        published: &Publication,
    ) -> Result<Self, ReferenceError> {
        let at = Place {
            monitor,
            scope: Scope::Global,
            partition,
        };
        let measure = Measure::new(monitor, published)?;
        let window = Windowing::new(monitor.window, measure.layout.clone());
        Ok(at.open(application_id, measure, window))
    }

    /// Why a shipped pane cannot be merged into this window, if it cannot: it was cut by other settings, or its counts are not what was written.
    pub(in crate::processor) fn misfit(&self, shipped: &CountPane) -> Option<String> {
        let Window::Count(settings) = self.monitor.window else {
            return Some("a pane of a count window, but the monitor has time windows".to_owned());
        };
        if (shipped.size, shipped.every) != (settings.size(), settings.every()) {
            let now = Window::Count(settings);
            return Some(format!("cut for a window of {}/{} records, now it is {now}", shipped.size, shipped.every));
        }
        let at = Place {
            monitor: &self.monitor,
            scope: self.scope,
            partition: self.partition,
        };
        let whole = at.verify_pane(&shipped.pane, &self.measure);
        let records = shipped.pane.histogram.records();
        match whole {
            Err(error) => Some(error.to_string()),
            Ok(()) if records != settings.every() => Some(format!("it holds {records} records, a whole pane has {}", settings.every())),
            Ok(()) => None,
        }
    }

    /// Proves that the panes are those that k implies, and that in each pane every feature's bins add up to its records.
    pub(in crate::processor) fn verify(&self) -> Result<(), StateError> {
        let at = Place {
            monitor: &self.monitor,
            scope: self.scope,
            partition: self.partition,
        };
        match &self.window {
            Windowing::Count(window) => {
                let (k, settings) = (window.record_number(), window.settings());
                for pane in window.panes() {
                    at.verify_records(pane, settings.records_of(pane.number, k), k)?;
                    at.verify_pane(pane, &self.measure)?;
                }
                let (records, live) = (window.current().records(), settings.live_panes(k, window.start()));
                let expected = k.0 - live.start.0 * settings.every();
                if records != expected {
                    return Err(at.contradictory(format!("the window holds {records} records, but record number {k} implies {expected}")));
                }
            }
            Windowing::Time(windows) => {
                for pane in windows.panes() {
                    at.verify_pane(pane, &self.measure)?;
                }
            }
        }
        Ok(())
    }
}

/// Which window is spoken of, in errors.
#[derive(Clone, Copy)]
struct Place<'a> {
    monitor: &'a Arc<Monitor>,
    scope: Scope,
    partition: Partition,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Monitor { name, topic, .. } = &**self.monitor;
        match self.scope {
            Scope::Partition => write!(f, "monitor `{name}`, topic `{topic}`, partition {}", self.partition),
            Scope::Global => write!(f, "monitor `{name}`, topic `{topic}`, scope global"),
        }
    }
}

impl Place<'_> {
    /// The configuration does not fit the state.
    fn inconsistent(self, fault: impl fmt::Display) -> StateError {
        StateError::Inconsistent(format!("{self}: {fault}"))
    }

    /// The state is not what was written.
    fn contradictory(self, fault: impl fmt::Display) -> StateError {
        StateError::Contradictory(format!("{self}: {fault}"))
    }

    fn other_window(self, was: &str, now: Window) -> StateError {
        self.inconsistent(format!("its window was {was}, now it is {now}: {REMEDY}"))
    }

    fn open(self, application_id: &str, measure: Measure, window: Windowing) -> MonitoredWindow {
        let Monitor { name, topic, .. } = &**self.monitor;
        let mut missing = MissingTally::default();
        missing.watch(measure.reference.features().iter().map(|feature| feature.name()));
        let k = window.record_number();
        MonitoredWindow {
            event_id: EventId::new(
                application_id,
                name,
                topic,
                (self.scope == Scope::Partition).then_some(self.partition),
                self.scope,
                None,
            ),
            monitor: Arc::clone(self.monitor),
            scope: self.scope,
            partition: self.partition,
            verdicts: Verdicts::none(measure.layout.feature_count()),
            stream_time: None,
            missing,
            irregular: IrregularTally::default(),
            offered: None,
            check_due: false,
            idle: false,
            flushed: Some(k),
            measure,
            window,
        }
    }

    fn restore_count(
        self,
        application_id: &str,
        head: WindowHead,
        settings: CountWindow,
        references: &dyn References,
        store: &dyn ReadStore,
    ) -> Result<MonitoredWindow, StateError> {
        if (head.size, head.every) != (settings.size(), settings.every()) {
            return Err(self.other_window(&count(&head), Window::Count(settings)));
        }
        let measure = self.measure_of(&head.reference_version, &head.features, references)?;
        let (k, start) = (head.record_number, head.start);
        if start > k || !start.0.is_multiple_of(settings.every()) {
            return Err(self.contradictory(format!(
                "the stored window starts after record {start} and ends at {k}, with {} records a pane",
                settings.every()
            )));
        }
        let live = settings.live_panes(k, start);
        let mut panes = VecDeque::new();
        for number in live.start.0..live.end.0 {
            let number = PaneNumber(number);
            let slot = settings.slot(number);
            let pane = self.pane(slot, store)?;
            let pane = pane.ok_or_else(|| self.contradictory(format!("pane {} is missing in slot {slot}", number.0)))?;
            if pane.number != number {
                return Err(self.contradictory(format!("slot {slot} holds pane {}, not {}", pane.number.0, number.0)));
            }
            // Before the panes are added up: counts that cannot be might not even fit.
            self.verify_records(&pane, settings.records_of(number, k), k)?;
            self.verify_pane(&pane, &measure)?;
            panes.push_back(pane);
        }
        let window = SlidingWindow::restore(settings, measure.layout.clone(), start, k, panes);
        Ok(self.restored(
            application_id,
            measure,
            Windowing::Count(window),
            &head.features,
            head.summary,
            head.stream_time,
        ))
    }

    fn restore_time(
        self,
        application_id: &str,
        head: TimeWindowHead,
        settings: TimeWindow,
        references: &dyn References,
        store: &dyn ReadStore,
    ) -> Result<MonitoredWindow, StateError> {
        if (head.size_ms, head.every_ms, head.grace_ms) != (settings.size_ms(), settings.every_ms(), settings.grace_ms()) {
            return Err(self.other_window(&time(&head), Window::Time(settings)));
        }
        let measure = self.measure_of(&head.reference_version, &head.features, references)?;
        let mut panes = Vec::new();
        for slot in 0..settings.slots() {
            let Some(pane) = self.pane(slot, store)? else { continue };
            if settings.slot(pane.number) != slot {
                return Err(self.contradictory(format!(
                    "slot {slot} holds pane {}, whose slot is {}",
                    pane.number.0,
                    settings.slot(pane.number)
                )));
            }
            self.verify_pane(&pane, &measure)?;
            panes.push(pane);
        }
        let found = (panes.len() as u64, panes.iter().map(|pane| pane.histogram.records()).sum::<u64>());
        if found != (head.panes, head.records) {
            return Err(self.contradictory(format!(
                "{} panes with {} records are there, but {} with {} were written",
                found.0, found.1, head.panes, head.records
            )));
        }
        // Times of before 1970 are in no window, and move none.
        let stream_time = head.stream_time.filter(|time| time.0 >= 0);
        let windows = HoppingWindows::restore(settings, measure.layout.clone(), head.record_number, stream_time, head.next, panes);
        Ok(self.restored(
            application_id,
            measure,
            Windowing::Time(windows),
            &head.features,
            head.summary,
            head.stream_time,
        ))
    }

    fn restored(
        self,
        application_id: &str,
        measure: Measure,
        window: Windowing,
        features: &[FeatureHead],
        summary: Option<Status>,
        stream_time: Option<Timestamp>,
    ) -> MonitoredWindow {
        MonitoredWindow {
            verdicts: Verdicts {
                statuses: features.iter().map(|feature| feature.status).collect(),
                summary,
            },
            stream_time,
            ..self.open(application_id, measure, window)
        }
    }

    /// The reference that stored panes were binned by, if the monitor's features still are those of the panes.
    fn measure_of(self, version: &str, features: &[FeatureHead], references: &dyn References) -> Result<Measure, StateError> {
        let published = references.version(&self.monitor.name, version).ok_or_else(|| {
            self.inconsistent(format!(
                "its window was measured against reference {version}, which is not published any more: publish it again, or run `leeway reset`"
            ))
        })?;
        let measure = Measure::new(self.monitor, &published).map_err(|fault| self.inconsistent(format!("reference {version}: {fault}: {REMEDY}")))?;
        let now: Vec<(&str, u64)> = measure
            .reference
            .features()
            .iter()
            .map(|feature| (&**feature.name(), feature.counts().len() as u64))
            .collect();
        let was: Vec<(&str, u64)> = features.iter().map(|FeatureHead { name, bins, .. }| (&**name, *bins)).collect();
        if was == now {
            Ok(measure)
        } else {
            Err(self.inconsistent(format!("its features (and their bins) were {was:?}, now they are {now:?}: {REMEDY}")))
        }
    }

    /// A window that was never written has no panes.
    fn expect_no_panes(self, store: &dyn ReadStore) -> Result<(), StateError> {
        let slots = match self.monitor.window {
            Window::Count(settings) => settings.slots(),
            Window::Time(settings) => settings.slots(),
        };
        for slot in 0..slots {
            if store.get(&pane_key(&self.monitor.name, NO_SEGMENT, ALL_FEATURES, slot))?.is_some() {
                return Err(self.contradictory(format!("slot {slot} holds a pane, but the window that it belongs to is missing")));
            }
        }
        Ok(())
    }

    fn pane(self, slot: u32, store: &dyn ReadStore) -> Result<Option<Pane>, StateError> {
        read(store, &pane_key(&self.monitor.name, NO_SEGMENT, ALL_FEATURES, slot))
    }

    fn verify_records(self, pane: &Pane, expected: u64, k: RecordNumber) -> Result<(), StateError> {
        let (number, records) = (pane.number.0, pane.histogram.records());
        if records != expected {
            return Err(self.contradictory(format!("pane {number} holds {records} records, but record number {k} implies {expected}")));
        }
        Ok(())
    }

    fn verify_pane(self, pane: &Pane, measure: &Measure) -> Result<(), StateError> {
        let number = pane.number.0;
        if pane.histogram.counters() != measure.layout.counters() {
            let (found, expected) = (pane.histogram.counters(), measure.layout.counters());
            return Err(self.contradictory(format!("pane {number} has {found} counters, its reference asks for {expected}")));
        }
        pane.histogram.verify(&measure.layout).map_err(|Contradiction { feature, bins, beside, records }| {
            let name = measure.reference.features()[feature].name();
            self.contradictory(format!(
                "feature `{name}` in pane {number}: the bins add up to {bins} and {beside} values lie beside the range, but the pane holds {records} records"
            ))
        })
    }
}

fn count(head: &WindowHead) -> String {
    format!("{}/{} records (size/every)", head.size, head.every)
}

fn time(head: &TimeWindowHead) -> String {
    format!("{}/{}/{} ms (size/every/grace)", head.size_ms, head.every_ms, head.grace_ms)
}
