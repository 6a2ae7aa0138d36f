//! The time windows of one whole topic: parts of windows in, and how far each partition is; checks out.
//!
//! ```text
//! part of window w --late--> left out, counted
//!     \--of an earlier reference--> left out, counted
//!      \--else--> added to window w of its segment --(every partition has closed w, or is idle)--> check
//! ```
//!
//! - A window is checked when no partition can add to it any more: each of the input's partitions has closed it, or is idle, or has had no record. Of
//!   partitions of which nothing is known yet nothing can be said, so they are waited for.
//! - Each segment has its windows, verdicts and k; how far a partition is, is one thing for all segments. A monitor without segments has one, without a
//!   name: its parts say how far their partition is, where those of segments do not.
//! - Order: windows of earlier times first, those of one time by segment; then what expires, that of the earliest last window first.
//! - Everything is a function of the repartition topic, in its order. What is due is a function of what is stored, so that a task that is opened again in
//!   the middle of it goes on there.
//! - The windows that are open are bounded by [`OPEN_MAX`], those of segments by [`OPEN_OF_SEGMENTS_MAX`]; of a segment none of whose windows is open
//!   only its name is in memory.

mod open_windows;
mod segment_index;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::open_windows::OpenWindows;
use self::segment_index::{Segment, SegmentIndex};
use super::global_processor::not_a_pane;
use super::measure::{ByVersion, Measure};
use super::monitored_window::verdicts::{Bounds, Checker};
use super::monitored_window::{Irregular, IrregularTally, MonitoredWindow, NO_SEGMENT};
use super::place::Place;
use super::segments::{AT_ONCE, EVENTS_AT_ONCE, Segments, segment_by};
use super::{Disposition, Outputs};
use crate::codec::encode;
use crate::event::ClosedBy;
use crate::histogram::{Counts as _, Span, Total};
use crate::ids::{Offset, Partition, RecordNumber, Timestamp};
use crate::repartition::{EVERY_SEGMENT, WindowPart, WindowProgress};
use crate::state::{
    GlobalTimeHead, KeyKind, OpenWindow, Put, ReadStore, SegmentsHead, StateError, global_time_key, heads_prefix, read, segments_key,
};
use crate::window::Window;
use crate::window::time::TimeWindow;

/// Windows that may wait for a partition; then the earliest is given up.
const OPEN_MAX: usize = 10_000;

/// The same, where there are segments: each segment's counted. With ten features of twelve bins these are some 100 MB.
const OPEN_OF_SEGMENTS_MAX: usize = 100_000;

/// The windows of one monitor. See the module.
pub(super) struct GlobalTimeWindows {
    place: Arc<Place>,
    settings: TimeWindow,
    partitions: BTreeMap<Partition, WindowProgress>,
    partition_count: u32,
    /// The first window that not every partition had closed, of those that were waited for. It never goes back: segments expire by it.
    closed_before_max: u64,
    open: OpenWindows,
    segments: SegmentIndex,
    is_changed: bool,
}

impl GlobalTimeWindows {
    /// The windows as they were stored, or none.
    pub(super) fn open(place: &Arc<Place>, settings: TimeWindow, measures: &mut ByVersion, store: &dyn ReadStore) -> Result<Self, StateError> {
        let of_segments = if place.monitor.segment_by.is_empty() {
            if MonitoredWindow::stored(place, measures, store)?.is_some() {
                return Err(place.other_window("of records", place.monitor.window));
            }
            None
        } else {
            Segments::stored(place, store)?
        };
        let mut windows = Self {
            place: Arc::clone(place),
            settings,
            partitions: BTreeMap::new(),
            partition_count: 0,
            closed_before_max: 0,
            open: OpenWindows::restore(place, store)?,
            segments: SegmentIndex::restore(place, store)?,
            is_changed: false,
        };
        let Some(head) = read::<GlobalTimeHead>(store, &global_time_key(&place.monitor.name, NO_SEGMENT))? else {
            return if windows.open.len() > 0 || windows.segments.len() > 0 {
                Err(place.contradictory("there are open windows, or segments, but nothing says where they belong"))
            } else if of_segments.is_some() {
                Err(without_head(place, store)?)
            } else {
                Ok(windows)
            };
        };
        if (head.size_ms, head.every_ms, head.grace_ms) != (settings.size_ms(), settings.every_ms(), settings.grace_ms()) {
            let was = format!("{}/{}/{} ms (size/every/grace)", head.size_ms, head.every_ms, head.grace_ms);
            return Err(place.other_window(&was, Window::Time(settings)));
        }
        windows.expect_whole(&head, of_segments.as_ref())?;
        if let Some(stored) = head.measured {
            let whole = Segment::restore(place, stored, head.next, measures)?;
            windows.segments.begin(NO_SEGMENT.into(), 0, whole);
        }
        for (number, segment, open) in windows.open.iter() {
            let measured = windows.segments.get(segment, measures, store)?;
            let (_, Segment { measure, .. }) = measured.ok_or_else(|| place.contradictory(not_measured(number, segment)))?;
            verify(place, number, open, measure)?;
        }
        windows.closed_before_max = head.next;
        windows.partition_count = head.partition_count;
        windows.partitions = head.partitions.into_iter().map(|progress| (progress.partition, progress)).collect();
        Ok(windows)
    }

    /// That what was found is what was written.
    fn expect_whole(&self, head: &GlobalTimeHead, of_segments: Option<&SegmentsHead>) -> Result<(), StateError> {
        let (place, found) = (&self.place, (self.open.len() as u64, self.open.records()));
        if found != (head.windows, head.records) {
            return Err(place.contradictory(format!(
                "{} open windows with {} records are there, but {} with {} were written",
                found.0, found.1, head.windows, head.records
            )));
        }
        match of_segments {
            // Of the whole topic the head says what it is measured by.
            None if !self.is_whole() && head.measured.is_none() => Err(place.contradictory("nothing says how many segments were written")),
            None if !self.is_whole() => Err(place.other_segments("not set", &format!("{:?}", segment_by(&place.monitor)))),
            Some(SegmentsHead { segments, .. }) if *segments != self.segments.len() as u64 => {
                Err(place.contradictory(format!("{} segments are there, but {segments} were written", self.segments.len())))
            }
            _ => Ok(()),
        }
    }

    /// Proves that in each window every feature's bins add up to its records, as far as what they are measured by is in memory: the others were proven
    /// when they were opened.
    pub(super) fn verify(&self) -> Result<(), StateError> {
        for (number, segment, open) in self.open.iter() {
            if let Some(Segment { measure, .. }) = self.segments.in_memory(segment) {
                verify(&self.place, number, open, measure)?;
            }
        }
        Ok(())
    }

    /// The monitor has no segments.
    fn is_whole(&self) -> bool {
        self.place.monitor.segment_by.is_empty()
    }

    /// Segments that live, where the monitor has any.
    pub(super) fn segments(&self) -> Option<usize> {
        (!self.is_whole()).then(|| self.segments.len())
    }

    /// Bytes that the next flush will give, about: as far as segments make them many.
    pub(super) fn unflushed_bytes(&self) -> usize {
        if self.is_whole() {
            return 0;
        }
        self.open.unwritten_bytes() + self.segments.unwritten_bytes()
    }

    /// The records that its partitions had seen when they shipped last.
    pub(super) fn record_number(&self) -> RecordNumber {
        RecordNumber(self.partitions.values().map(|progress| progress.record_number.0).sum())
    }

    /// Takes how far one partition is.
    pub(super) fn progress(&mut self, segment: &str, progress: &WindowProgress) -> Disposition {
        let expected = if self.is_whole() { NO_SEGMENT } else { EVERY_SEGMENT };
        if segment != expected {
            return not_a_pane(self.other_segments(segment));
        }
        self.partition_count = self.partition_count.max(progress.partitions);
        self.note(*progress);
        Disposition::Processed { check_due: self.is_due() }
    }

    fn other_segments(&self, segment: &str) -> String {
        let by = segment_by(&self.place.monitor);
        format!("of segment {segment:?}, but the monitor's `segment_by` is {by:?}")
    }

    fn note(&mut self, mut progress: WindowProgress) {
        self.is_changed = true;
        let number = u32::try_from(progress.partition.0).unwrap_or(0);
        self.partition_count = self.partition_count.max(number.saturating_add(1));
        if let Some(before) = self.partitions.get(&progress.partition) {
            progress.open_from = progress.open_from.max(before.open_from);
        }
        self.partitions.insert(progress.partition, progress);
        let closed_before = self.closed_before().filter(|window| *window < u64::MAX);
        self.closed_before_max = self.closed_before_max.max(closed_before.unwrap_or(0));
    }

    /// Takes one partition's part of a window of a segment, if it fits.
    pub(super) fn part(
        &mut self,
        segment: &str,
        part: &WindowPart,
        measures: &mut ByVersion,
        store: &dyn ReadStore,
        irregular: &mut IrregularTally,
    ) -> Result<Disposition, StateError> {
        if (segment == NO_SEGMENT) != self.is_whole() || segment == EVERY_SEGMENT {
            return Ok(not_a_pane(self.other_segments(segment)));
        }
        let cut = (part.size_ms, part.every_ms, part.grace_ms);
        if cut != (self.settings.size_ms(), self.settings.every_ms(), self.settings.grace_ms()) {
            let now = Window::Time(self.settings);
            return Ok(not_a_pane(format!(
                "cut for a window of {}/{}/{} ms, now it is {now}",
                cut.0, cut.1, cut.2
            )));
        }
        let known = self.segments.get(segment, measures, store)?;
        let name = known.as_ref().map_or_else(|| segment.into(), |(name, _)| Arc::clone(name));
        let known = known.map(|(_, kept)| &*kept);
        let is_same = known.is_some_and(|known| known.measure.version == part.reference_version);
        let is_earlier = !is_same && known.is_some_and(|known| part.publication <= known.publication);
        let (is_known, next) = (known.is_some(), known.map_or(0, |known| known.next));
        let same = known.map(|known| Arc::clone(&known.measure)).filter(|_| is_same);
        let other = if is_same || is_earlier {
            None
        } else {
            match measures.shipped(&self.place.monitor, &part.reference_version, part.publication) {
                Ok(Some(measure)) => Some(measure),
                Ok(None) => {
                    return Ok(Disposition::Waiting {
                        monitor: Arc::clone(&self.place.monitor.name),
                        version: Arc::clone(&part.reference_version),
                    });
                }
                Err(error) => return Ok(not_a_pane(format!("its reference {}: {error}", part.reference_version))),
            }
        };
        if let Some(measure) = other.as_ref().or(same.as_ref())
            && (part.total.counters() != measure.layout.counters() || part.total.verify(&measure.layout).is_err())
        {
            return Ok(not_a_pane("its counts do not add up"));
        }
        self.note_part(part);
        if is_known {
            self.segments.shipped(&name, part);
        }
        if is_earlier {
            irregular.count(Irregular::StalePane);
        } else if part.window < next || self.is_too_old(part.window) {
            irregular.count(Irregular::LateWindow);
        } else {
            self.add(name, part, other, measures, store)?;
        }
        Ok(Disposition::Processed { check_due: self.is_due() })
    }

    /// What a part tells of its partition. Of segments the others may still come: only its progress says that it has closed a window.
    fn note_part(&mut self, part: &WindowPart) {
        let before = self.partitions.get(&part.partition);
        let (open_from, record_number) = if self.is_whole() {
            (part.window + 1, part.record_number)
        } else {
            before.map_or((0, RecordNumber(0)), |before| (before.open_from, before.record_number))
        };
        self.note(WindowProgress {
            partition: part.partition,
            partitions: 0,
            open_from,
            record_number,
            // Its last idle window is followed by its saying so.
            is_idle: false,
        });
    }

    /// Adds a part that counts. `other`: its segment is new, or was measured by another reference.
    fn add(
        &mut self,
        name: Arc<str>,
        part: &WindowPart,
        other: Option<Arc<Measure>>,
        measures: &mut ByVersion,
        store: &dyn ReadStore,
    ) -> Result<(), StateError> {
        let place = &self.place;
        if let Some((_, kept)) = self.segments.get(&name, measures, store)? {
            if let Some(measure) = other {
                self.open.forget(&name);
                kept.start_anew(place, &measure, part.publication);
            }
            kept.publication = kept.publication.max(part.publication);
        } else if let Some(measure) = other {
            self.segments
                .begin(Arc::clone(&name), part.window, Segment::new(place, &measure, part.publication));
            self.segments.shipped(&name, part);
        }
        let fresh = || OpenWindow {
            total: Total::empty_like(&part.total),
            is_idle: false,
        };
        let window = self.open.entry(part.window, &name, fresh);
        window.total.merge(&part.total);
        window.is_idle |= part.is_idle;
        Ok(())
    }

    /// The first window that a partition may add to; `None`: some partition is not known yet.
    fn closed_before(&self) -> Option<u64> {
        if (self.partitions.len() as u64) < u64::from(self.partition_count) {
            return None;
        }
        let waited_for = self.partitions.values().filter(|progress| !progress.is_idle);
        Some(waited_for.map(|progress| progress.open_from).min().unwrap_or(u64::MAX))
    }

    fn open_max(&self) -> usize {
        if self.is_whole() { OPEN_MAX } else { OPEN_OF_SEGMENTS_MAX }
    }

    /// Whether a segment is forgotten whose last window is this one. So a part of such a window is late: nobody knows whether it was checked.
    fn is_too_old(&self, last: u64) -> bool {
        let Some(expiry_ms) = self.place.monitor.segment_expiry_ms else {
            return false;
        };
        let later = self.closed_before_max.saturating_sub(last.saturating_add(1));
        later.saturating_mul(self.settings.every_ms()) >= expiry_ms
    }

    /// The segment that expires next.
    fn expired(&self) -> Option<&Arc<str>> {
        let (last, segment) = self.segments.oldest()?;
        // While the expiry stays what it is, no window is open that is so old.
        let is_open = self.open.first().is_some_and(|(window, _)| window <= last);
        (!is_open && self.is_too_old(last)).then_some(segment)
    }

    /// Whether [`Self::check`] has something to do.
    pub(super) fn is_due(&self) -> bool {
        let closed_before = self.closed_before().unwrap_or(0);
        let is_closed = self.open.first().is_some_and(|(window, _)| window < closed_before);
        is_closed || self.open.len() > self.open_max() || self.expired().is_some()
    }

    /// Makes the next checks, of windows that no partition can add to any more; then gives up the earliest windows while there are too many, and forgets
    /// what has expired. If more is due, it is to be called again.
    pub(super) fn check(
        &mut self,
        measures: &mut ByVersion,
        store: &dyn ReadStore,
        irregular: &mut IrregularTally,
        out: &mut Outputs,
    ) -> Result<(), StateError> {
        let (closed_before, before) = (self.closed_before().unwrap_or(0), out.event_count());
        for _ in 0..AT_ONCE {
            let is_closed = self.open.first().is_some_and(|(window, _)| window < closed_before);
            if out.event_count() - before >= EVENTS_AT_ONCE {
                break;
            } else if is_closed || self.open.len() > self.open_max() {
                let Some((window, segment, open)) = self.open.take_first() else { break };
                self.is_changed = true;
                if is_closed {
                    self.close(window, &segment, &open, (measures, store), irregular, out)?;
                } else {
                    irregular.count(Irregular::WaitedTooLong);
                    self.finish(window, &segment, measures, store)?;
                }
            } else if let Some(segment) = self.expired().cloned() {
                self.is_changed = true;
                self.segments.forget(&segment);
            } else {
                break;
            }
        }
        Ok(())
    }

    /// From here on a part of this window of a segment is late.
    fn finish(&mut self, window: u64, segment: &Arc<str>, measures: &mut ByVersion, store: &dyn ReadStore) -> Result<&mut Segment, StateError> {
        self.segments.change(Arc::clone(segment));
        let kept = self.segments.get(segment, measures, store)?;
        let (_, kept) = kept.ok_or_else(|| self.place.contradictory(not_measured(window, segment)))?;
        kept.next = window + 1;
        Ok(kept)
    }

    fn close(
        &mut self,
        window: u64,
        segment: &Arc<str>,
        OpenWindow { total, is_idle }: &OpenWindow,
        (measures, store): (&mut ByVersion, &dyn ReadStore),
        irregular: &mut IrregularTally,
        out: &mut Outputs,
    ) -> Result<(), StateError> {
        let (place, settings, of_partitions) = (Arc::clone(&self.place), self.settings, self.record_number());
        let not_waited_for = self.partitions.values().any(|progress| progress.is_idle && progress.open_from <= window);
        let kept = self.finish(window, segment, measures, store)?;
        if total.records() < place.monitor.min_samples {
            irregular.count(Irregular::SkippedWindow);
            return Ok(());
        }
        let time = |ms: u64| Timestamp(i64::try_from(ms).unwrap_or(i64::MAX));
        let start_ms = window * settings.every_ms();
        let times = (time(start_ms), time(start_ms + settings.size_ms()));
        let checker = Checker {
            place: &place,
            segment,
            event_id: place.event_id(segment),
            measure: &kept.measure,
            record_number: if place.monitor.segment_by.is_empty() {
                of_partitions
            } else {
                kept.record_number()
            },
        };
        let bounds = Bounds {
            // Offsets of several partitions say nothing together.
            span: Span::of(Offset(0), None),
            times,
            id: times.1.0,
            closed_by: Some(if *is_idle || not_waited_for {
                ClosedBy::Idle
            } else {
                ClosedBy::StreamTime
            }),
        };
        kept.verdicts.check(&checker, total, bounds, &mut out.events);
        if let Some(quality) = &mut kept.quality {
            quality.check(&checker, total, bounds, &mut out.quality);
        }
        Ok(())
    }

    /// Appends the windows and segments that changed since the last flush, then the heads; nothing if nothing did.
    pub(super) fn flush(&mut self, puts: &mut Vec<Put>) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let name = &*self.place.monitor.name;
        self.open.flush(name, puts);
        self.segments.flush(puts);
        if !self.is_whole() {
            puts.push(Put {
                key: segments_key(name),
                value: Some(encode(&SegmentsHead {
                    segment_by: segment_by(&self.place.monitor),
                    record_number: self.record_number(),
                    stream_time: None,
                    first_stream_time: None,
                    reference_version: None,
                    segments: self.segments.len() as u64,
                })),
            });
        }
        let whole = self.segments.whole();
        puts.push(Put {
            key: global_time_key(name, NO_SEGMENT),
            value: Some(encode(&GlobalTimeHead {
                size_ms: self.settings.size_ms(),
                every_ms: self.settings.every_ms(),
                grace_ms: self.settings.grace_ms(),
                next: if self.is_whole() {
                    whole.map_or(0, |whole| whole.next)
                } else {
                    self.closed_before_max
                },
                windows: self.open.len() as u64,
                records: self.open.records(),
                partitions: self.partitions.values().copied().collect(),
                partition_count: self.partition_count,
                measured: whole.map(Segment::measured),
            })),
        });
    }

    /// The store has what was flushed.
    pub(super) fn applied(&mut self) {
        self.segments.applied();
    }
}

/// Why there are segments, but no head: their windows were of records, or it is lost.
fn without_head(place: &Place, store: &dyn ReadStore) -> Result<StateError, StateError> {
    let mut of_records = false;
    store.scan(&heads_prefix(KeyKind::GlobalWindow, &place.monitor.name), &mut |_, _| of_records = true)?;
    Ok(if of_records {
        place.other_window("of records", place.monitor.window)
    } else {
        place.contradictory("segments were written, but nothing says how far the partitions are")
    })
}

fn not_measured(window: u64, segment: &str) -> String {
    let named = if segment.is_empty() {
        String::new()
    } else {
        format!(" of segment {}", segment.escape_debug())
    };
    format!("open window {window}{named} is there, but nothing says what it is measured by")
}

fn verify(place: &Place, number: u64, open: &OpenWindow, measure: &Measure) -> Result<(), StateError> {
    if open.total.counters() != measure.layout.counters() || open.total.verify(&measure.layout).is_err() {
        return Err(place.contradictory(format!("the counts of open window {number} do not add up")));
    }
    Ok(())
}
