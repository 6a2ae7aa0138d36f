//! Reading a window from the store, and proving that what was found there holds together.
//!
//! Whatever does not fit is an error with both sides: the task never continues on doubt.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::verdicts::Verdicts;
use super::{ALL_FEATURES, MonitoredWindow, NO_SEGMENT, Windowing};
use crate::codec::decode;
use crate::drift::Status;
use crate::event::Scope;
use crate::histogram::Contradiction;
use crate::ids::{RecordNumber, Timestamp};
use crate::processor::measure::{Measure, Measures};
use crate::processor::place::Place;
use crate::repartition::CountPane;
use crate::state::{
    FeatureHead, GlobalWindowHead, KeyKind, KeyText, QualityHead, ReadStore, StateError, TimeWindowHead, WindowHead, decode_head, global_window_key,
    head_key, pane_key, panes_prefix, read_head, segments_key, time_window_key, window_key,
};
use crate::window::time::{HoppingWindows, TimeWindow};
use crate::window::{CountWindow, Pane, PaneNumber, SlidingWindow, Window};

/// The head of a window, as it is stored.
pub(in crate::processor) enum Head<Text = Arc<str>> {
    Count(WindowHead<Text>),
    Time(TimeWindowHead<Text>),
    Global(GlobalWindowHead<Text>),
}

/// A head, and what quality checks keep behind it.
pub(in crate::processor) type StoredHead = (Head, Option<QualityHead>);

impl Head {
    /// What the heads of a monitor's windows are stored as.
    pub(in crate::processor) fn kind(place: &Place) -> KeyKind {
        match (place.scope, place.monitor.window) {
            (Scope::Global, _) => KeyKind::GlobalWindow,
            (Scope::Partition, Window::Count(_)) => KeyKind::Window,
            (Scope::Partition, Window::Time(_)) => KeyKind::TimeWindow,
        }
    }

    /// Reads the head of a segment that is known to live: of the monitor's kind of windows, since others were refused when the segments were opened.
    pub(in crate::processor) fn of_segment(place: &Place, segment: &str, store: &dyn ReadStore) -> Result<Option<StoredHead>, StateError> {
        let key = head_key(Self::kind(place), &place.monitor.name, segment);
        let stored = match Self::kind(place) {
            KeyKind::GlobalWindow => read_head(store, &key)?.map(|(head, quality)| (Self::Global(head), quality)),
            KeyKind::TimeWindow => read_head(store, &key)?.map(|(head, quality)| (Self::Time(head), quality)),
            _ => read_head(store, &key)?.map(|(head, quality)| (Self::Count(head), quality)),
        };
        if let Some((head, _)) = &stored {
            head.expect_window(place)?;
        }
        Ok(stored)
    }

    /// Reads the head of one segment, or of all records, and what quality checks keep; `None`: there is none. One of other windows than the monitor's
    /// is an error.
    pub(in crate::processor) fn read(place: &Place, segment: &str, store: &dyn ReadStore) -> Result<Option<StoredHead>, StateError> {
        let name = &*place.monitor.name;
        let counted = read_head::<WindowHead>(store, &window_key(name, segment))?;
        let timed = read_head::<TimeWindowHead>(store, &time_window_key(name, segment))?;
        let global = read_head::<GlobalWindowHead>(store, &global_window_key(name, segment))?;
        let (head, quality) = match (counted, timed, global) {
            (Some((head, quality)), None, None) => (Self::Count(head), quality),
            (None, Some((head, quality)), None) => (Self::Time(head), quality),
            (None, None, Some((head, quality))) => (Self::Global(head), quality),
            (None, None, None) => return Ok(None),
            _ => return Err(place.contradictory("windows of two kinds are stored")),
        };
        head.expect_window(place).map(|()| Some((head, quality)))
    }
}

impl<'a> Head<&'a str> {
    /// A head as it is stored under one of the keys of that kind, without what quality checks keep. Nothing is copied: opening a task passes over the head
    /// of each of its segments.
    pub(in crate::processor) fn decode(place: &Place, key: &[u8], value: &'a [u8]) -> Result<Self, StateError> {
        let decoded = match Head::kind(place) {
            KeyKind::GlobalWindow => decode_head(value).map(|(head, _)| Self::Global(head)),
            KeyKind::TimeWindow => decode_head(value).map(|(head, _)| Self::Time(head)),
            _ => decode_head(value).map(|(head, _)| Self::Count(head)),
        };
        let head = decoded.map_err(|cause| StateError::Corrupt {
            key: KeyText(key).to_string(),
            cause,
        })?;
        head.expect_window(place).map(|()| head)
    }
}

impl<Text: AsRef<str>> Head<Text> {
    /// That its panes were cut as the monitor's are now.
    fn expect_window(&self, place: &Place) -> Result<(), StateError> {
        let now = place.monitor.window;
        match (self, now) {
            (Self::Count(head) | Self::Global(GlobalWindowHead { window: head, .. }), Window::Count(settings))
                if (head.size, head.every) == (settings.size(), settings.every()) =>
            {
                Ok(())
            }
            (Self::Time(head), Window::Time(settings))
                if (head.size_ms, head.every_ms, head.grace_ms) == (settings.size_ms(), settings.every_ms(), settings.grace_ms()) =>
            {
                Ok(())
            }
            (Self::Count(head) | Self::Global(GlobalWindowHead { window: head, .. }), _) => Err(place.other_window(&count(head), now)),
            (Self::Time(head), _) => Err(place.other_window(&time(head), now)),
        }
    }

    /// The version of the reference that it was measured by.
    pub(in crate::processor) fn reference_version(&self) -> &str {
        match self {
            Self::Count(head) => head.reference_version.as_ref(),
            Self::Time(head) => head.reference_version.as_ref(),
            Self::Global(head) => head.window.reference_version.as_ref(),
        }
    }

    /// Stream time at its last record.
    pub(in crate::processor) fn stream_time(&self) -> Option<Timestamp> {
        match self {
            Self::Count(head) => head.stream_time,
            Self::Time(head) => head.stream_time,
            Self::Global(head) => head.window.stream_time,
        }
    }

    /// Of time windows: one that is open, before all that have records; `None`: no open one has.
    pub(in crate::processor) fn open_from(&self) -> Option<u64> {
        match self {
            Self::Time(head) if head.panes > 0 => Some(head.next),
            Self::Time(_) | Self::Count(_) | Self::Global(_) => None,
        }
    }
}

impl MonitoredWindow {
    /// The window of all records of a monitor, if the store has it. A monitor that has segments by now is not read, nor is one that had them.
    pub(in crate::processor) fn stored(place: &Arc<Place>, measures: &mut dyn Measures, store: &dyn ReadStore) -> Result<Option<Self>, StateError> {
        if store.get(&segments_key(&place.monitor.name))?.is_some() {
            return Err(place.other_segments("by some fields", "not set"));
        }
        match Head::read(place, NO_SEGMENT, store)? {
            Some(head) => Self::restore(place, NO_SEGMENT.into(), head, measures, store).map(Some),
            None => {
                let (mut first, prefix) = (None, panes_prefix(&place.monitor.name, NO_SEGMENT));
                store.scan(&prefix, &mut |key, _| _ = first.get_or_insert_with(|| KeyText(key).to_string()))?;
                match first {
                    Some(pane) => Err(place.contradictory(format!("{pane} is there, but the window that it belongs to is missing"))),
                    None => Ok(None),
                }
            }
        }
    }

    /// A window as it was stored. If it was measured by another reference than `measures` gives for its own, it starts anew by that one.
    pub(in crate::processor) fn restore(
        place: &Arc<Place>,
        segment: Arc<str>,
        (head, quality): StoredHead,
        measures: &mut dyn Measures,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let measure = measures.of(place, head.reference_version())?;
        let is_same = *measure.version == *head.reference_version();
        let at = Reader {
            place,
            segment: &segment,
            measure: &measure,
            is_same,
            store,
        };
        let (window, features, summary) = match (&head, place.monitor.window) {
            (Head::Count(head) | Head::Global(GlobalWindowHead { window: head, .. }), Window::Count(settings)) => {
                (at.count(head, settings)?, &head.features, head.summary)
            }
            (Head::Time(head), Window::Time(settings)) => (at.time(head, settings)?, &head.features, head.summary),
            (Head::Count(_) | Head::Time(_) | Head::Global(_), now) => return Err(place.other_window("of another kind", now)),
        };
        let mut restored = Self::of(place, Arc::clone(&segment), Arc::clone(&measure), window);
        restored.stream_time = head.stream_time();
        if is_same {
            restored.verdicts = at.verdicts(features, summary)?;
            if let (Some(kept), Some(stored)) = (&mut restored.quality, quality) {
                kept.restore(&measure, stored);
            }
        }
        if let Head::Global(GlobalWindowHead { publication, .. }) = head {
            restored.publication = publication;
        }
        Ok(restored)
    }

    /// Why a shipped pane cannot be merged into this window, if it cannot: it was cut by other settings, or its counts are not what was written.
    pub(in crate::processor) fn misfit(&self, shipped: &CountPane) -> Option<String> {
        let Window::Count(settings) = self.place.monitor.window else {
            return Some("a pane of a count window, but the monitor has time windows".to_owned());
        };
        if (shipped.size, shipped.every) != (settings.size(), settings.every()) {
            let now = Window::Count(settings);
            return Some(format!("cut for a window of {}/{} records, now it is {now}", shipped.size, shipped.every));
        }
        let records = shipped.pane.histogram.records();
        match verify_pane(&self.place, &shipped.pane, &self.measure) {
            Err(error) => Some(error.to_string()),
            Ok(()) if records != settings.every() => Some(format!("it holds {records} records, a whole pane has {}", settings.every())),
            Ok(()) => None,
        }
    }

    /// Proves that the panes are those that k implies, and that in each pane every feature's bins add up to its records.
    pub(in crate::processor) fn verify(&self) -> Result<(), StateError> {
        let (place, measure) = (&self.place, &self.measure);
        match &self.window {
            Windowing::Count(window) => {
                let (k, start, settings) = (window.record_number(), window.start(), window.settings());
                for pane in window.panes() {
                    verify_records(place, pane, settings.records_of(pane.number, k, start), k)?;
                    verify_pane(place, pane, measure)?;
                }
                let (records, live) = (window.current().records(), settings.live_panes(k, start));
                let expected = k.0 - start.0.max(live.start.0 * settings.every()).min(k.0);
                if records != expected {
                    return Err(place.contradictory(format!("the window holds {records} records, but record number {k} implies {expected}")));
                }
            }
            Windowing::Time(windows) => {
                for pane in windows.panes() {
                    verify_pane(place, pane, measure)?;
                }
            }
        }
        Ok(())
    }
}

impl Place {
    /// The keys of all that is stored of one segment.
    pub(in crate::processor) fn keys_of(&self, segment: &str, store: &dyn ReadStore) -> Result<Vec<Vec<u8>>, StateError> {
        let mut keys = vec![head_key(Head::kind(self), &self.monitor.name, segment)];
        store.scan(&panes_prefix(&self.monitor.name, segment), &mut |key, _| keys.push(key.to_vec()))?;
        Ok(keys)
    }

    /// The key of a pane of a segment.
    pub(in crate::processor) fn key_of_pane(&self, segment: &str, slot: u32) -> Vec<u8> {
        pane_key(&self.monitor.name, segment, ALL_FEATURES, slot)
    }
}

/// Slots that are asked for one by one.
const ONE_BY_ONE_MAX: usize = 16;

/// Reads one window's panes.
struct Reader<'a> {
    place: &'a Arc<Place>,
    segment: &'a str,
    measure: &'a Arc<Measure>,
    /// The panes are measured by that. If not, they do not count.
    is_same: bool,
    store: &'a dyn ReadStore,
}

impl Reader<'_> {
    fn count(&self, head: &WindowHead, settings: CountWindow) -> Result<Windowing, StateError> {
        let (k, start, layout) = (head.record_number, head.start, self.measure.layout.clone());
        // Among segments a change of reference may fall into the middle of a pane.
        let is_cut = self.segment == NO_SEGMENT && !start.0.is_multiple_of(settings.every());
        if start > k || is_cut {
            return Err(self.contradictory(&format!(
                "the stored window starts after record {start} and ends at {k}, with {} records a pane",
                settings.every()
            )));
        }
        if !self.is_same {
            return Ok(Windowing::Count(SlidingWindow::new(settings, layout, k)));
        }
        self.measure.expect_features(self.place, &head.features)?;
        let live = settings.live_panes(k, start);
        let slots = (live.start.0..live.end.0).map(|number| settings.slot(PaneNumber(number)));
        let (stored, mut panes) = (self.panes(slots.collect())?, VecDeque::new());
        for number in live.start.0..live.end.0 {
            let number = PaneNumber(number);
            let slot = settings.slot(number);
            let bytes = stored.get(&slot);
            let bytes = bytes.ok_or_else(|| self.contradictory(&format!("pane {} is missing in slot {slot}", number.0)))?;
            let pane = self.pane(slot, bytes)?;
            if pane.number != number {
                return Err(self.contradictory(&format!("slot {slot} holds pane {}, not {}", pane.number.0, number.0)));
            }
            // Before the panes are added up: counts that cannot be might not even fit.
            verify_records(self.place, &pane, settings.records_of(number, k, start), k)?;
            verify_pane(self.place, &pane, self.measure)?;
            panes.push_back(pane);
        }
        Ok(Windowing::Count(SlidingWindow::restore(settings, layout, start, k, panes)))
    }

    fn time(&self, head: &TimeWindowHead, settings: TimeWindow) -> Result<Windowing, StateError> {
        // Times of before 1970 are in no window, and move none.
        let stream_time = head.stream_time.filter(|time| time.0 >= 0);
        let (k, layout) = (head.record_number, self.measure.layout.clone());
        let mut panes = Vec::new();
        for (slot, bytes) in self.panes((0..settings.slots()).collect())? {
            let pane = self.pane(slot, &bytes)?;
            if settings.slot(pane.number) != slot {
                return Err(self.contradictory(&format!(
                    "slot {slot} holds pane {}, whose slot is {}",
                    pane.number.0,
                    settings.slot(pane.number)
                )));
            }
            if self.is_same {
                verify_pane(self.place, &pane, self.measure)?;
            }
            panes.push(pane);
        }
        let found = (panes.len() as u64, panes.iter().map(|pane| pane.histogram.records()).sum::<u64>());
        if found != (head.panes, head.records) {
            return Err(self.contradictory(&format!(
                "{} panes with {} records are there, but {} with {} were written",
                found.0, found.1, head.panes, head.records
            )));
        }
        let mut windows = HoppingWindows::restore(settings, layout.clone(), k, stream_time, head.next, panes);
        if self.is_same {
            self.measure.expect_features(self.place, &head.features)?;
        } else {
            windows.start_anew(layout);
        }
        Ok(Windowing::Time(windows))
    }

    fn verdicts(&self, features: &[FeatureHead], summary: Option<Status>) -> Result<Verdicts, StateError> {
        self.measure.expect_features(self.place, features)?;
        Ok(Verdicts {
            statuses: features.iter().map(|feature| feature.status).collect(),
            summary,
        })
    }

    /// What is stored in these slots, by slot, and maybe in others.
    fn panes(&self, slots: Vec<u32>) -> Result<BTreeMap<u32, Vec<u8>>, StateError> {
        // Of a segment: the store answers that from its cache, which a look at a range passes by.
        if slots.len() <= ONE_BY_ONE_MAX {
            let read = |slot: u32| Ok(self.store.get(&self.place.key_of_pane(self.segment, slot))?.map(|bytes| (slot, bytes)));
            return slots.into_iter().filter_map(|slot| read(slot).transpose()).collect();
        }
        let (mut panes, prefix) = (BTreeMap::new(), self.place.key_of_pane(self.segment, 0));
        let prefix = &prefix[..prefix.len() - size_of::<u32>()];
        self.store.scan(prefix, &mut |key, value| {
            if let Some(slot) = key.strip_prefix(prefix).and_then(|slot| slot.try_into().ok()) {
                panes.insert(u32::from_be_bytes(slot), value.to_vec());
            }
        })?;
        Ok(panes)
    }

    fn pane(&self, slot: u32, bytes: &[u8]) -> Result<Pane, StateError> {
        decode(bytes).map_err(|cause| StateError::Corrupt {
            key: KeyText(&self.place.key_of_pane(self.segment, slot)).to_string(),
            cause,
        })
    }

    fn contradictory(&self, fault: &str) -> StateError {
        match self.segment {
            NO_SEGMENT => self.place.contradictory(fault),
            segment => self.place.contradictory(format!("segment {}: {fault}", segment.escape_debug())),
        }
    }
}

fn verify_records(place: &Place, pane: &Pane, expected: u64, k: RecordNumber) -> Result<(), StateError> {
    let (number, records) = (pane.number.0, pane.histogram.records());
    if records != expected {
        return Err(place.contradictory(format!("pane {number} holds {records} records, but record number {k} implies {expected}")));
    }
    Ok(())
}

fn verify_pane(place: &Place, pane: &Pane, measure: &Measure) -> Result<(), StateError> {
    let number = pane.number.0;
    if pane.histogram.counters() != measure.layout.counters() {
        let (found, expected) = (pane.histogram.counters(), measure.layout.counters());
        return Err(place.contradictory(format!("pane {number} has {found} counters, its reference asks for {expected}")));
    }
    pane.histogram.verify(&measure.layout).map_err(|Contradiction { feature, bins, beside, records }| {
        let name = measure.reference.features()[feature].name();
        place.contradictory(format!(
            "feature `{name}` in pane {number}: the bins add up to {bins} and {beside} values lie beside the range, but the pane holds {records} records"
        ))
    })
}

fn count<Text>(head: &WindowHead<Text>) -> String {
    format!("{}/{} records (size/every)", head.size, head.every)
}

fn time<Text>(head: &TimeWindowHead<Text>) -> String {
    format!("{}/{}/{} ms (size/every/grace)", head.size_ms, head.every_ms, head.grace_ms)
}
