//! Opening a window from the store, and proving that what was found there holds together.
//!
//! Whatever does not fit is an error with both sides: the task never continues on doubt.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::{ALL_FEATURES, Measure, MonitoredWindow, NO_SEGMENT};
use crate::event::{EventId, Scope};
use crate::histogram::Contradiction;
use crate::ids::{Partition, RecordNumber};
use crate::processor::missing::MissingTally;
use crate::processor::{Monitor, References};
use crate::state::{FeatureHead, ReadStore, StateError, WindowHead, pane_key, read, window_key};
use crate::window::{Pane, PaneNumber, SlidingWindow};

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
        let at = Place { monitor, partition };
        let current = references.current(&monitor.name);
        let mut opened = match read::<WindowHead>(store, &window_key(&monitor.name, NO_SEGMENT))? {
            Some(head) => at.restore(application_id, head, references, store)?,
            None => {
                at.expect_no_panes(store)?;
                let published = current
                    .as_ref()
                    .ok_or_else(|| at.inconsistent("no reference is published: run `leeway reference publish`, or set the monitor's `reference`"))?;
                let measure = Measure::new(monitor, published).map_err(|fault| at.inconsistent(format!("its reference cannot be used: {fault}")))?;
                let window = SlidingWindow::new(monitor.window, measure.layout.clone(), RecordNumber(0));
                at.open(application_id, measure, window)
            }
        };
        if let Some(published) = current {
            // One that lacks a monitored feature is no reason to stop a window that has its own; whoever publishes it hears of it.
            opened.offer_reference(&published).unwrap_or_default();
        }
        Ok(opened)
    }

    /// Proves that the panes are those that k implies, and that in each pane every feature's bins add up to its records.
    pub(in crate::processor) fn verify(&self) -> Result<(), StateError> {
        let at = Place {
            monitor: &self.monitor,
            partition: self.partition,
        };
        let (k, settings) = (self.window.record_number(), self.window.settings());
        for pane in self.window.panes() {
            at.verify_pane(pane, k, &self.measure)?;
        }
        let (window, live) = (self.window.current().records(), settings.live_panes(k, self.window.start()));
        let expected = k.0 - live.start.0 * settings.every();
        if window != expected {
            return Err(at.contradictory(format!("the window holds {window} records, but record number {k} implies {expected}")));
        }
        Ok(())
    }
}

/// Which window is spoken of, in errors.
#[derive(Clone, Copy)]
struct Place<'a> {
    monitor: &'a Arc<Monitor>,
    partition: Partition,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Monitor { name, topic, .. } = &**self.monitor;
        write!(f, "monitor `{name}`, topic `{topic}`, partition {}", self.partition)
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

    fn open(self, application_id: &str, measure: Measure, window: SlidingWindow) -> MonitoredWindow {
        let Monitor { name, topic, .. } = &**self.monitor;
        let mut missing = MissingTally::default();
        missing.watch(measure.reference.features().iter().map(|feature| feature.name()));
        let k = window.record_number();
        MonitoredWindow {
            event_id: EventId::new(application_id, name, topic, Some(self.partition), Scope::Partition, None),
            monitor: Arc::clone(self.monitor),
            partition: self.partition,
            statuses: vec![None; measure.layout.feature_count()],
            summary: None,
            stream_time: None,
            missing,
            offered: None,
            check_due: false,
            flushed: k,
            measure,
            window,
        }
    }

    fn restore(
        self,
        application_id: &str,
        head: WindowHead,
        references: &dyn References,
        store: &dyn ReadStore,
    ) -> Result<MonitoredWindow, StateError> {
        let measure = self.measure_of(&head, references)?;
        let (k, start, settings) = (head.record_number, head.start, self.monitor.window);
        if start > k || !start.0.is_multiple_of(settings.every()) {
            return Err(self.contradictory(format!(
                "the stored window starts after record {start} and ends at {k}, with {} records a pane",
                settings.every()
            )));
        }
        let live = settings.live_panes(k, start);
        let mut panes = VecDeque::new();
        for number in live.start.0..live.end.0 {
            panes.push_back(self.pane(PaneNumber(number), k, &measure, store)?);
        }
        let window = SlidingWindow::restore(settings, measure.layout.clone(), start, k, panes);
        Ok(MonitoredWindow {
            statuses: head.features.iter().map(|feature| feature.status).collect(),
            summary: head.summary,
            stream_time: head.stream_time,
            ..self.open(application_id, measure, window)
        })
    }

    /// The reference that stored panes were binned by, if the monitor's settings still cut panes as they are.
    fn measure_of(self, head: &WindowHead, references: &dyn References) -> Result<Measure, StateError> {
        let settings = self.monitor.window;
        if (head.size, head.every) != (settings.size(), settings.every()) {
            let (size, every) = (settings.size(), settings.every());
            return Err(self.inconsistent(format!(
                "its window was {}/{}, now it is {size}/{every} (size/every): {REMEDY}",
                head.size, head.every
            )));
        }
        let version = &*head.reference_version;
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
        let was: Vec<(&str, u64)> = head.features.iter().map(|FeatureHead { name, bins, .. }| (&**name, *bins)).collect();
        if was == now {
            Ok(measure)
        } else {
            Err(self.inconsistent(format!("its features (and their bins) were {was:?}, now they are {now:?}: {REMEDY}")))
        }
    }

    /// A window that was never written has no panes.
    fn expect_no_panes(self, store: &dyn ReadStore) -> Result<(), StateError> {
        for slot in 0..self.monitor.window.slots() {
            if store.get(&pane_key(&self.monitor.name, NO_SEGMENT, ALL_FEATURES, slot))?.is_some() {
                return Err(self.contradictory(format!("slot {slot} holds a pane, but the window that it belongs to is missing")));
            }
        }
        Ok(())
    }

    fn pane(self, number: PaneNumber, k: RecordNumber, measure: &Measure, store: &dyn ReadStore) -> Result<Pane, StateError> {
        let slot = self.monitor.window.slot(number);
        let key = pane_key(&self.monitor.name, NO_SEGMENT, ALL_FEATURES, slot);
        let pane: Pane = read(store, &key)?.ok_or_else(|| self.contradictory(format!("pane {} is missing in slot {slot}", number.0)))?;
        if pane.number != number {
            return Err(self.contradictory(format!("slot {slot} holds pane {}, not {}", pane.number.0, number.0)));
        }
        if pane.histogram.counters() != measure.layout.counters() {
            let (found, expected) = (pane.histogram.counters(), measure.layout.counters());
            return Err(self.contradictory(format!("pane {} has {found} counters, its reference asks for {expected}", number.0)));
        }
        // Before the panes are added up: counts that cannot be might not even fit.
        self.verify_pane(&pane, k, measure)?;
        Ok(pane)
    }

    fn verify_pane(self, pane: &Pane, k: RecordNumber, measure: &Measure) -> Result<(), StateError> {
        let (number, records) = (pane.number.0, pane.histogram.records());
        let expected = self.monitor.window.records_of(pane.number, k);
        if records != expected {
            return Err(self.contradictory(format!("pane {number} holds {records} records, but record number {k} implies {expected}")));
        }
        pane.histogram.verify(&measure.layout).map_err(|Contradiction { feature, bins, beside, records }| {
            let name = measure.reference.features()[feature].name();
            self.contradictory(format!(
                "feature `{name}` in pane {number}: the bins add up to {bins} and {beside} values lie beside the range, but the pane holds {records} records"
            ))
        })
    }
}
