//! The segments of one monitor in one task: which live, and those of their windows that are in memory.
//!
//! ```text
//! text --enter--> known | new | __rest__ --window--> in memory | read from the store
//!                    |                                  ^               |
//!                  touch: the newest                    +--- evicted ---+   (clean, and longest without a record)
//!                    v
//!            oldest: idle for `segment_expiry` --> forgotten, with tombstones
//! ```
//!
//! - The index of what lives is complete and in memory, some 200 bytes a segment, bounded by `max_segments`; windows are in memory as far as
//!   [`CacheBudget`] allows. The store is asked only for segments that the index knows.
//! - A window leaves memory only when the store has it: after the epoch that wrote it was applied.
//! - What is due is a function of what is stored: a task that is opened again in the middle of it goes on there. It is all done before the next record.
//! - Order: windows of earlier times first, those of one time by segment; then what expires, the longest idle first.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::cache_budget::{CacheBudget, Share};
use super::measure::{Measure, Measures};
use super::monitored_window::{Head, Irregular, IrregularTally, MonitoredWindow, NO_SEGMENT};
use super::place::Place;
use super::{MAX_SEGMENTS_MAX, Monitor, Outputs};
use crate::codec::encode;
use crate::event::Scope;
use crate::ids::{RecordNumber, Timestamp};
use crate::state::{Key, KeyKind, Put, ReadStore, SegmentsHead, StateError, heads_prefix, read, segment_of, segments_key};
use crate::window::Window;

/// The segment of the records for which no more segments may live.
pub const REST: &str = "__rest__";

/// Longer segments are counted in [`REST`].
const SEGMENT_BYTES_MAX: usize = 256;

/// Windows that one call of a check looks at: what they give has to fit in an epoch.
pub(super) const AT_ONCE: usize = 256;

/// Events after which one call of a check ends.
pub(super) const EVENTS_AT_ONCE: usize = 2000;

/// Windows looked at for each one that comes into memory, when there are too many.
const EVICTED_PER_LOAD: usize = 2;

/// What a changed key costs in a transaction beside its value, about.
pub(super) const KEY_BYTES: usize = 100;

/// A segment, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u32);

/// What is known of a segment without its window.
struct Entry {
    name: Arc<str>,
    /// Stream time at its last record.
    seen: Option<Timestamp>,
    /// Its neighbours in the order of last records, if it has a place there.
    older: Option<Id>,
    newer: Option<Id>,
    /// Of time windows: under which it stands in `due`.
    open_from: Option<u64>,
    window: Option<Box<MonitoredWindow>>,
    /// Of the window in memory, as they are counted.
    bytes: usize,
    /// A flush has written it: in the store, or on its way there.
    is_written: bool,
    /// It changed since the last flush.
    is_changed: bool,
    /// The last flush that wrote it.
    written_in: u64,
    /// Since its window was looked at for eviction.
    was_touched: bool,
    /// It stands in `loaded`.
    is_queued: bool,
}

impl Entry {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            seen: None,
            older: None,
            newer: None,
            open_from: None,
            window: None,
            bytes: 0,
            is_written: false,
            is_changed: false,
            written_in: 0,
            was_touched: false,
            is_queued: false,
        }
    }
}

/// The segments of one monitor. See the module.
pub(super) struct Segments {
    place: Arc<Place>,
    record_number: RecordNumber,
    stream_time: Option<Timestamp>,
    /// The first one that there was.
    first_stream_time: Option<Timestamp>,
    ids: HashMap<Arc<str>, Id>,
    /// By [`Id`]; a free one has an empty name.
    entries: Vec<Entry>,
    free: Vec<Id>,
    oldest: Option<Id>,
    newest: Option<Id>,

    /// A count window that a record has made due.
    counted: Option<Id>,
    /// By time window: segments whose first open one it was when they were put here; an entry that says otherwise by now is not meant.
    due: BTreeMap<u64, Vec<Id>>,
    /// The time window that closes now, and the segments that are still to close it, last ones first.
    closing: (u64, Vec<Id>),
    /// Segments that are to be asked whether they close by idleness, last ones first.
    idle: Vec<Id>,
    /// They were asked since the last record.
    idle_asked: bool,
    /// The segment of the last record.
    last: Option<Id>,

    changed: Vec<Id>,
    tombstones: BTreeSet<Key>,
    unflushed_bytes: usize,
    flushes: u64,
    /// The store has what the first so many flushes wrote.
    applied: u64,
    head_changed: bool,

    share: Share,
    bytes: usize,
    /// Windows in memory, those first that are to be looked at first when there are too many.
    loaded: VecDeque<Id>,
}

impl Segments {
    /// No segment has had a record.
    pub(super) fn new(place: &Arc<Place>, budget: &Arc<CacheBudget>) -> Self {
        Self {
            place: Arc::clone(place),
            record_number: RecordNumber(0),
            stream_time: None,
            first_stream_time: None,
            ids: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            oldest: None,
            newest: None,
            counted: None,
            due: BTreeMap::new(),
            closing: (0, Vec::new()),
            idle: Vec::new(),
            idle_asked: false,
            last: None,
            changed: Vec::new(),
            tombstones: BTreeSet::new(),
            unflushed_bytes: 0,
            flushes: 0,
            applied: 0,
            head_changed: false,
            share: Share::of(budget),
            bytes: 0,
            loaded: VecDeque::new(),
        }
    }

    /// What is stored of all segments together, if anything is. A monitor that had no segments is refused.
    pub(super) fn stored(place: &Place, store: &dyn ReadStore) -> Result<Option<SegmentsHead>, StateError> {
        let (name, now) = (&*place.monitor.name, segment_by(&place.monitor));
        let head: Option<SegmentsHead> = read(store, &segments_key(name))?;
        match &head {
            Some(SegmentsHead { segment_by, .. }) if *segment_by != now => Err(place.other_segments(&format!("{segment_by:?}"), &format!("{now:?}"))),
            None if Head::read(place, NO_SEGMENT, store)?.is_some() => Err(place.other_segments("not set", &format!("{now:?}"))),
            _ => Ok(head),
        }
    }

    /// The segments as they were stored. `measured_by`: windows of another reference do not count.
    pub(super) fn restore(
        place: &Arc<Place>,
        budget: &Arc<CacheBudget>,
        head: &SegmentsHead,
        measured_by: Option<&str>,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let name = &*place.monitor.name;
        let (mut found, mut failed, first_stream_time) = (Vec::new(), None, head.first_stream_time);
        store.scan(&heads_prefix(Head::kind(place), name), &mut |key, value| {
            let Some(segment) = segment_of(key) else { return };
            match Head::decode(place, key, value) {
                Ok(head) => {
                    let counts = measured_by.is_none_or(|version| version == head.reference_version());
                    found.push((
                        head.stream_time().or(first_stream_time),
                        Arc::<str>::from(segment),
                        head.open_from().filter(|_| counts),
                    ));
                }
                Err(error) => failed = failed.take().or(Some(error)),
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if found.len() as u64 != head.segments {
            for other in [KeyKind::Window, KeyKind::TimeWindow, KeyKind::GlobalWindow] {
                let mut is_there = false;
                store.scan(&heads_prefix(other, name), &mut |_, _| is_there = true)?;
                if is_there && other != Head::kind(place) {
                    return Err(place.other_window("of another kind", place.monitor.window));
                }
            }
            return Err(place.contradictory(format!("{} segments are there, but {} were written", found.len(), head.segments)));
        }
        // Those of one time expire together, by segment, as they were read.
        found.sort_by_key(|(seen, ..)| *seen);
        let mut segments = Self::new(place, budget);
        (segments.record_number, segments.stream_time) = (head.record_number, head.stream_time);
        segments.first_stream_time = head.first_stream_time;
        segments.entries.reserve(found.len());
        segments.ids.reserve(found.len());
        for (seen, name, open_from) in found {
            let id = segments.begin(name);
            segments.entries[id.0 as usize].is_written = true;
            segments.touch(id, seen);
            segments.register(id, open_from);
        }
        Ok(segments)
    }

    pub(super) fn record_number(&self) -> RecordNumber {
        self.record_number
    }

    pub(super) fn stream_time(&self) -> Option<Timestamp> {
        self.stream_time
    }

    /// Segments that live.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Bytes that the next flush will give, about.
    pub(super) fn unflushed_bytes(&self) -> usize {
        self.unflushed_bytes
    }

    /// The windows that are in memory.
    pub(super) fn in_memory(&self) -> impl Iterator<Item = &MonitoredWindow> {
        self.entries.iter().filter_map(|entry| entry.window.as_deref())
    }

    /// Counts so many records of a segment, that bring this time. Says in which segment they are counted, and stream time from there on.
    /// One that is new is measured by `fresh`.
    pub(super) fn enter(
        &mut self,
        text: &str,
        records: u64,
        time: Option<Timestamp>,
        fresh: &Arc<Measure>,
        irregular: &mut IrregularTally,
    ) -> (Id, Option<Timestamp>) {
        debug_assert!(!self.is_due(), "what is due comes before the next record");
        let room = self.room_for(text);
        if let Err(reason) = room {
            irregular.count(reason);
        }
        let text = if room.is_ok() { text } else { REST };
        let id = match self.ids.get(text) {
            Some(id) => *id,
            None => {
                let name: Arc<str> = text.into();
                let window = MonitoredWindow::new(&self.place, Arc::clone(&name), Arc::clone(fresh));
                let id = self.begin(name);
                self.keep(id, Box::new(window));
                id
            }
        };
        self.record_number.0 += records;
        // Times of before 1970 are in no window, and move none.
        self.advance(time.filter(|time| time.0 >= 0));
        (self.idle_asked, self.last) = (false, Some(id));
        self.touch(id, self.stream_time);
        (id, self.stream_time)
    }

    /// Whether records of a segment are counted in it. If not, they are in [`REST`].
    fn room_for(&self, text: &str) -> Result<(), Irregular> {
        let rest_lives = usize::from(self.ids.contains_key(REST));
        if text.len() > SEGMENT_BYTES_MAX {
            Err(Irregular::LongSegment)
        } else if text == REST || self.ids.contains_key(text) || ((self.ids.len() - rest_lives) as u64) < self.max_segments() {
            Ok(())
        } else {
            Err(Irregular::NoRoomForSegment)
        }
    }

    /// In scope global there are as many as the partitions ship: two tasks must not each have a [`REST`] of their own.
    fn max_segments(&self) -> u64 {
        match self.place.scope {
            Scope::Partition => self.place.monitor.max_segments,
            Scope::Global => MAX_SEGMENTS_MAX,
        }
    }

    /// The segment that the next records of this one are counted in, if it lives.
    pub(super) fn find(&self, text: &str) -> Option<Id> {
        let text = if self.room_for(text).is_ok() { text } else { REST };
        self.ids.get(text).copied()
    }

    fn advance(&mut self, time: Option<Timestamp>) {
        let before = self.stream_time;
        self.stream_time = before.max(time);
        if before.is_none() && time.is_some() {
            self.first_stream_time = time;
            for id in self.ids.values().copied().collect::<Vec<_>>() {
                self.touch(id, time);
            }
        }
    }

    fn begin(&mut self, name: Arc<str>) -> Id {
        let entry = Entry::new(Arc::clone(&name));
        let id = match self.free.pop() {
            Some(id) => {
                let slot = &mut self.entries[id.0 as usize];
                *slot = Entry {
                    is_queued: slot.is_queued,
                    ..entry
                };
                id
            }
            None => {
                self.entries.push(entry);
                // Bounded by `max_segments`, which is a 32-bit number.
                Id((self.entries.len() - 1) as u32)
            }
        };
        self.ids.insert(name, id);
        self.head_changed = true;
        id
    }

    fn entry(&mut self, id: Id) -> &mut Entry {
        &mut self.entries[id.0 as usize]
    }

    /// Its last record is the newest of all. Without any time so far it has no place in that order.
    fn touch(&mut self, id: Id, seen: Option<Timestamp>) {
        self.unlink(id);
        self.entry(id).seen = seen;
        if seen.is_some() {
            let older = self.newest.replace(id);
            self.entry(id).older = older;
            match older {
                Some(older) => self.entry(older).newer = Some(id),
                None => self.oldest = Some(id),
            }
        }
    }

    fn unlink(&mut self, id: Id) {
        let Entry { older, newer, .. } = self.entry(id);
        let (older, newer) = (older.take(), newer.take());
        match older {
            Some(older) => self.entry(older).newer = newer,
            None if self.oldest == Some(id) => self.oldest = newer,
            None => {}
        }
        match newer {
            Some(newer) => self.entry(newer).older = older,
            None if self.newest == Some(id) => self.newest = older,
            None => {}
        }
    }

    /// Its window: in memory, or as it is stored.
    pub(super) fn window(&mut self, id: Id, measures: &mut dyn Measures, store: &dyn ReadStore) -> Result<&mut MonitoredWindow, StateError> {
        if self.entry(id).window.is_none() {
            let (place, name) = (Arc::clone(&self.place), Arc::clone(&self.entry(id).name));
            let head = Head::of_segment(&place, &name, store)?;
            let head = head.ok_or_else(|| place.contradictory(format!("segment {} is not in the store any more", name.escape_debug())))?;
            let window = MonitoredWindow::restore(&place, name, head, measures, store)?;
            self.keep(id, Box::new(window));
        }
        let entry = self.entry(id);
        entry.was_touched = true;
        // As it was just kept, there is one.
        entry
            .window
            .as_deref_mut()
            .ok_or_else(|| StateError::Store("a window left memory while it was used".to_owned()))
    }

    fn keep(&mut self, id: Id, window: Box<MonitoredWindow>) {
        let bytes = window.memory_bytes();
        let entry = self.entry(id);
        (entry.window, entry.bytes) = (Some(window), bytes);
        if !std::mem::replace(&mut entry.is_queued, true) {
            self.loaded.push_back(id);
        }
        self.bytes += bytes;
        self.evict(EVICTED_PER_LOAD, Some(id));
    }

    /// Notes that its window has changed. `check_due`: of a count window, that it is to be checked.
    pub(super) fn note(&mut self, id: Id, check_due: bool) {
        let entry = self.entry(id);
        let Some(window) = &entry.window else { return };
        let (bytes, open_from) = (window.memory_bytes(), window.first_open_with_records());
        let before = std::mem::replace(&mut entry.bytes, bytes);
        if !std::mem::replace(&mut entry.is_changed, true) {
            self.changed.push(id);
            self.unflushed_bytes += KEY_BYTES + bytes / 2;
        }
        self.bytes = self.bytes + bytes - before;
        self.head_changed = true;
        self.register(id, open_from);
        if check_due && matches!(self.place.monitor.window, Window::Count(_)) {
            self.counted = Some(id);
        }
    }

    /// Puts it under the first of its windows that is open.
    fn register(&mut self, id: Id, open_from: Option<u64>) {
        if std::mem::replace(&mut self.entry(id).open_from, open_from) != open_from
            && let Some(window) = open_from
        {
            self.due.entry(window).or_default().push(id);
        }
    }

    /// Whether [`Self::check`] has something to do.
    pub(super) fn is_due(&self) -> bool {
        self.counted.is_some() || !self.idle.is_empty() || !self.closing.1.is_empty() || self.is_window_over() || self.expired().is_some()
    }

    fn is_window_over(&self) -> bool {
        let Window::Time(settings) = self.place.monitor.window else {
            return false;
        };
        let open = self.stream_time.map_or(0, |time| settings.first_open(time));
        self.due.first_key_value().is_some_and(|(window, _)| *window < open)
    }

    /// The segment that has been idle for longest, if that is too long.
    fn expired(&self) -> Option<Id> {
        let after_ms = self.place.monitor.segment_expiry_ms?;
        let (oldest, now) = (self.oldest?, self.stream_time?);
        let idle_ms = now.0.saturating_sub(self.entries[oldest.0 as usize].seen?.0);
        (idle_ms >= i64::try_from(after_ms).unwrap_or(i64::MAX)).then_some(oldest)
    }

    /// Makes the next checks that are due, and forgets what has expired; then, if more is due, it is to be called again. Says whether there was a
    /// check.
    pub(super) fn check(
        &mut self,
        measures: &mut dyn Measures,
        store: &dyn ReadStore,
        irregular: &mut IrregularTally,
        out: &mut Outputs,
    ) -> Result<bool, StateError> {
        let (mut checked, before) = (false, out.event_count());
        for _ in 0..AT_ONCE {
            // Of this call: whoever calls again without taking them would never be done.
            if out.event_count() - before >= EVENTS_AT_ONCE {
                break;
            }
            if let Some(id) = self.counted.take() {
                checked |= self.window(id, measures, store)?.check(irregular, out);
                self.note(id, false);
            } else if let Some((window, id)) = self.next_closing() {
                let stream_time = self.stream_time;
                let closing = self.window(id, measures, store)?;
                closing.close_at(stream_time);
                checked |= closing.check_up_to(Some(window), irregular, out);
                self.note(id, false);
            } else if let Some(id) = self.idle.pop() {
                let idle = self.window(id, measures, store)?;
                if idle.close_idle() {
                    checked |= idle.check(irregular, out);
                    self.note(id, false);
                }
            } else if let Some(id) = self.expired() {
                self.forget(id, store)?;
            } else {
                break;
            }
        }
        Ok(checked)
    }

    /// The next segment to close a window that is over.
    fn next_closing(&mut self) -> Option<(u64, Id)> {
        loop {
            let (window, segments) = &mut self.closing;
            if let Some(id) = segments.pop() {
                return Some((*window, id));
            }
            if !self.is_window_over() {
                return None;
            }
            let (window, mut segments) = self.due.pop_first()?;
            self.keep_those_open_from(window, &mut segments);
            self.closing = (window, segments);
        }
    }

    /// Leaves those that still stand under this window, each once, the last ones first.
    fn keep_those_open_from(&self, window: u64, segments: &mut Vec<Id>) {
        let entry = |id: &Id| &self.entries[id.0 as usize];
        segments.retain(|id| entry(id).open_from == Some(window));
        segments.sort_by(|a, b| entry(b).name.cmp(&entry(a).name));
        segments.dedup();
    }

    /// The partition is idle at its end: each segment is to be asked whether it closes its windows. Says whether there is one.
    pub(super) fn close_idle(&mut self) -> bool {
        if !std::mem::replace(&mut self.idle_asked, true) {
            let mut open = Vec::new();
            for (window, segments) in &self.due {
                let mut segments = segments.clone();
                self.keep_those_open_from(*window, &mut segments);
                open.append(&mut segments);
            }
            open.sort_by(|a, b| self.entries[b.0 as usize].name.cmp(&self.entries[a.0 as usize].name));
            self.idle = open;
        }
        !self.idle.is_empty()
    }

    /// The segment of the last record, and only that one, is to close its windows as by idleness: for a replay, which knows that it did before its
    /// next record. Says whether there is one.
    pub(super) fn close_idle_if(&mut self, was_idle: &dyn Fn(&str, RecordNumber) -> bool) -> bool {
        let last = self.last.take().filter(|id| {
            let entry = &self.entries[id.0 as usize];
            let window = entry.window.as_ref();
            window.is_some_and(|window| was_idle(&entry.name, window.window().record_number()))
        });
        self.idle.extend(last);
        !self.idle.is_empty()
    }

    fn forget(&mut self, id: Id, store: &dyn ReadStore) -> Result<(), StateError> {
        let (place, name) = (Arc::clone(&self.place), Arc::clone(&self.entry(id).name));
        if self.entry(id).is_written {
            let before = self.tombstones.len();
            self.tombstones.extend(place.keys_of(&name, store)?);
            // What is on its way to the store.
            let slots = self.entry(id).window.as_ref().map(|window| window.slots()).unwrap_or_default();
            self.tombstones.extend(slots.into_iter().map(|slot| place.key_of_pane(&name, slot)));
            self.unflushed_bytes += (self.tombstones.len() - before) * KEY_BYTES;
        }
        self.unlink(id);
        self.ids.remove(&name);
        let entry = self.entry(id);
        let bytes = entry.bytes;
        *entry = Entry {
            is_queued: entry.is_queued,
            ..Entry::new(NO_SEGMENT.into())
        };
        self.bytes -= bytes;
        self.free.push(id);
        self.head_changed = true;
        Ok(())
    }

    /// All segments take over another reference: their windows start anew. Those in the store do when they are read.
    pub(super) fn start_anew(&mut self, measure: &Arc<Measure>) {
        for index in 0..self.entries.len() {
            if let Some(window) = &mut self.entries[index].window {
                window.start_anew(Arc::clone(measure));
                let bytes = window.memory_bytes();
                self.bytes -= std::mem::replace(&mut self.entries[index].bytes, bytes);
                self.bytes += bytes;
            }
            self.entries[index].open_from = None;
        }
        self.due.clear();
        self.head_changed = true;
    }

    /// Appends every key that changed since the last flush. `measured_by` as in [`SegmentsHead`].
    pub(super) fn flush(&mut self, measured_by: Option<&Arc<str>>, puts: &mut Vec<Put>) {
        if !std::mem::take(&mut self.head_changed) {
            return;
        }
        self.flushes += 1;
        self.unflushed_bytes = 0;
        // First: a segment that was forgotten may live again.
        puts.extend(std::mem::take(&mut self.tombstones).into_iter().map(|key| Put { key, value: None }));
        for id in std::mem::take(&mut self.changed) {
            let flushes = self.flushes;
            let entry = self.entry(id);
            if !std::mem::take(&mut entry.is_changed) {
                continue;
            }
            (entry.is_written, entry.written_in) = (true, flushes);
            if let Some(window) = &mut entry.window {
                window.flush(puts);
            }
        }
        puts.push(Put {
            key: segments_key(&self.place.monitor.name),
            value: Some(encode(&SegmentsHead {
                segment_by: segment_by(&self.place.monitor),
                record_number: self.record_number,
                stream_time: self.stream_time,
                first_stream_time: self.first_stream_time,
                reference_version: measured_by.cloned(),
                segments: self.ids.len() as u64,
            })),
        });
    }

    /// The store has what was flushed.
    pub(super) fn applied(&mut self) {
        self.applied = self.flushes;
        self.evict(self.loaded.len(), None);
    }

    /// While there are too many windows in memory, looks at so many of them: one that is clean and had no record since it was looked at last leaves.
    fn evict(&mut self, looks: usize, but: Option<Id>) {
        let share = self.share.bytes();
        for _ in 0..looks {
            if self.bytes <= share {
                return;
            }
            let Some(id) = self.loaded.pop_front() else { return };
            let applied = self.applied;
            let entry = self.entry(id);
            if entry.window.is_none() {
                entry.is_queued = false;
                continue;
            }
            let was_touched = std::mem::take(&mut entry.was_touched);
            let is_clean = !entry.is_changed && entry.is_written && entry.written_in <= applied;
            if was_touched || !is_clean || but == Some(id) {
                self.loaded.push_back(id);
            } else {
                entry.is_queued = false;
                entry.window = None;
                let bytes = std::mem::take(&mut entry.bytes);
                self.bytes -= bytes;
            }
        }
    }
}

pub(super) fn segment_by(monitor: &Monitor) -> Vec<String> {
    monitor.segment_by.iter().map(ToString::to_string).collect()
}
