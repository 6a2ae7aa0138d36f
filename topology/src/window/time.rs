//! Time windows: hopping windows of event time, each checked once, when stream time has passed its end and the grace.
//!
//! ```text
//!        every
//!       |-----|
//!  ..-- pane 3 -- pane 4 -- pane 5 -- pane 6 --..      a record of time t is in pane t / every
//!      |---- window 3 ---|                             window w: panes w up to w + size / every, checked when
//!            |---- window 4 ---|                       stream time >= (w + size / every) * every + grace
//! ```
//!
//! - A pane is kept until the last window with it is checked; so a record may come late by the grace, and counts in the windows that are still open.
//! - `next` is the first window that is not closed: it never goes back, and no pane before it is kept. Between two records every window before it
//!   has been checked, or had no records.
//! - Windows start at 0 or later, as in Kafka Streams. A record without a time, or of before 1970, is in no window.
//! - What is written is what is open: a pane that no window needs any more is deleted, so that state is a function of the records alone, and not of when
//!   it was written.
//! - The state is bounded by [`TimeWindow::slots`] panes, whatever the timestamps.
//!
//! Not here: what a check finds; [`crate::processor`] asks for the windows that close, one by one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{PANES_MAX, Pane, PaneNumber};
use crate::histogram::{Layout, RECORDS_MAX, Span, Total};
use crate::ids::{Offset, RecordNumber, Timestamp};
use crate::record::Observation;

/// Length and grace of a window, at most: with them no sum of times overflows.
pub const LENGTH_MAX_MS: u64 = 100 * 366 * 24 * 60 * 60 * 1000;

/// Settings of a time window. Made by [`TimeWindow::new`] only, so that what it says holds everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWindow {
    size_ms: u64,
    every_ms: u64,
    grace_ms: u64,
}

/// Settings that make no time window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimeWindow {
    /// `every` is 0, or `size` is no multiple of it.
    #[error("a window of {size_ms} ms every {every_ms} ms: `every` must be at least 1 ms and divide `size`")]
    NotDivisible {
        /// Length of the window.
        size_ms: u64,
        /// Time between the starts of two windows.
        every_ms: u64,
    },
    /// Longer than anybody means.
    #[error("a window of {size_ms} ms with {grace_ms} ms of grace: at most {LENGTH_MAX_MS} ms (a hundred years) together are possible")]
    TooLong {
        /// Length of the window.
        size_ms: u64,
        /// How long after its end a window takes late records.
        grace_ms: u64,
    },
    /// So many panes at once that they would be too many.
    #[error(
        "a window of {size_ms} ms every {every_ms} ms with {grace_ms} ms of grace keeps {} panes, at most {PANES_MAX} are possible: raise `every`",
        (.size_ms + .grace_ms).div_ceil(*.every_ms)
    )]
    TooManyPanes {
        /// Length of the window.
        size_ms: u64,
        /// Time between the starts of two windows.
        every_ms: u64,
        /// How long after its end a window takes late records.
        grace_ms: u64,
    },
}

impl TimeWindow {
    /// Windows of `size_ms`, one starting each `every_ms` since the epoch, checked `grace_ms` after their end.
    ///
    /// # Errors
    /// When `every_ms` is 0 or does not divide `size_ms`, when the window is longer than [`LENGTH_MAX_MS`], or when there would be more than
    /// [`PANES_MAX`] panes.
    pub fn new(size_ms: u64, every_ms: u64, grace_ms: u64) -> Result<Self, InvalidTimeWindow> {
        if every_ms == 0 || size_ms == 0 || !size_ms.is_multiple_of(every_ms) {
            Err(InvalidTimeWindow::NotDivisible { size_ms, every_ms })
        } else if size_ms.saturating_add(grace_ms) > LENGTH_MAX_MS {
            Err(InvalidTimeWindow::TooLong { size_ms, grace_ms })
        } else if (size_ms + grace_ms).div_ceil(every_ms) > PANES_MAX {
            Err(InvalidTimeWindow::TooManyPanes { size_ms, every_ms, grace_ms })
        } else {
            Ok(Self { size_ms, every_ms, grace_ms })
        }
    }

    /// Length of a window.
    #[must_use]
    pub fn size_ms(self) -> u64 {
        self.size_ms
    }

    /// Time between the starts of two windows: the length of a pane.
    #[must_use]
    pub fn every_ms(self) -> u64 {
        self.every_ms
    }

    /// How long after its end a window takes late records.
    #[must_use]
    pub fn grace_ms(self) -> u64 {
        self.grace_ms
    }

    /// Panes of a window.
    fn panes(self) -> u64 {
        self.size_ms / self.every_ms
    }

    /// The slots of the ring: panes that can be live at once.
    #[must_use]
    pub fn slots(self) -> u32 {
        // At most PANES_MAX, so it fits.
        (self.size_ms + self.grace_ms).div_ceil(self.every_ms) as u32
    }

    /// The slot of a pane in the ring.
    #[must_use]
    pub fn slot(self, pane: PaneNumber) -> u32 {
        (pane.0 % u64::from(self.slots())) as u32
    }

    /// The pane of a time; `None` before 1970.
    #[must_use]
    pub fn pane_of(self, time: Timestamp) -> Option<PaneNumber> {
        Some(PaneNumber(u64::try_from(time.0).ok()? / self.every_ms))
    }

    /// The first window that is open at this stream time.
    #[must_use]
    pub fn first_open(self, stream_time: Timestamp) -> u64 {
        let time = u64::try_from(stream_time.0).unwrap_or(0);
        (time.checked_sub(self.size_ms + self.grace_ms)).map_or(0, |ended| ended / self.every_ms + 1)
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// In all of its windows.
    InTime,
    /// Some of its windows had been checked before; it is in the others.
    LateForSome,
    /// All of its windows had been checked before.
    Late,
    /// It has no time, so it is in no window.
    NoTime,
    /// Its pane has as many records as can be counted, [`RECORDS_MAX`]; it is in no window.
    Full,
}

/// A window that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedWindow {
    /// Its start divided by the time between two.
    pub number: u64,
    /// Where it starts.
    pub start: Timestamp,
    /// Where it ends: the first time after it.
    pub end: Timestamp,
    /// Its counts; never without records.
    pub total: Total,
    /// Its first and last record.
    pub span: Span,
}

/// The windows of one monitor in one partition, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoppingWindows {
    settings: TimeWindow,
    layout: Layout,
    k: RecordNumber,
    stream_time: Option<Timestamp>,
    next: u64,
    /// The first window that is not closed by idleness.
    forced: u64,
    /// With records.
    panes: BTreeMap<u64, Pane>,
    /// Panes that changed since they were last written.
    unwritten: BTreeSet<u64>,
    /// Panes that are gone, and may stand written still.
    forgotten: BTreeSet<u64>,
}

impl HoppingWindows {
    /// No records yet.
    #[must_use]
    pub fn new(settings: TimeWindow, layout: Layout) -> Self {
        Self {
            settings,
            layout,
            k: RecordNumber(0),
            stream_time: None,
            next: 0,
            forced: 0,
            panes: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            forgotten: BTreeSet::new(),
        }
    }

    /// The windows as they were after record `k`.
    #[must_use]
    pub fn restore(
        settings: TimeWindow,
        layout: Layout,
        k: RecordNumber,
        stream_time: Option<Timestamp>,
        next: u64,
        panes: impl IntoIterator<Item = Pane>,
    ) -> Self {
        Self {
            settings,
            layout,
            k,
            stream_time,
            next,
            forced: 0,
            panes: panes.into_iter().map(|pane| (pane.number.0, pane)).collect(),
            unwritten: BTreeSet::new(),
            forgotten: BTreeSet::new(),
        }
    }

    /// Counts the next record. [`Self::is_due`] says afterwards whether windows have closed; they are to be taken before the next record.
    pub fn observe(&mut self, row: &[Observation], offset: Offset, timestamp: Option<Timestamp>) -> Placed {
        self.k.0 += 1;
        let Some((time, pane)) = timestamp.and_then(|time| Some((time, self.settings.pane_of(time)?))) else {
            return Placed::NoTime;
        };
        self.stream_time = self.stream_time.max(Some(time));
        if pane.0 < self.next {
            return Placed::Late;
        }
        let (layout, span) = (&self.layout, Span::of(offset, Some(time)));
        let kept = self.panes.entry(pane.0).or_insert_with(|| Pane::new(pane, layout));
        if kept.histogram.records() == RECORDS_MAX {
            return Placed::Full;
        }
        kept.histogram.observe(layout, row);
        kept.span = Some(kept.span.map_or(span, |before| before.merge(span)));
        self.unwritten.insert(pane.0);
        // Its first window is the one that ends with it.
        if (pane.0 + 1).saturating_sub(self.settings.panes()) < self.next {
            Placed::LateForSome
        } else {
            Placed::InTime
        }
    }

    /// The first window that is open now.
    fn first_open(&self) -> u64 {
        let by_stream_time = self.stream_time.map_or(0, |time| self.settings.first_open(time));
        by_stream_time.max(self.next).max(self.forced)
    }

    /// Closes every window that has records, whatever stream time says: they are taken as those that have closed by themselves.
    pub fn close_all(&mut self) {
        self.forced = self.panes.last_key_value().map_or(0, |(last, _)| last + 1);
    }

    /// Whether an open window has at least so many records.
    #[must_use]
    pub fn has_window_of(&self, records: u64) -> bool {
        // No window has more than the one that starts with its first pane.
        let mut in_window: VecDeque<(u64, u64)> = VecDeque::new();
        let mut sum = 0;
        self.panes.iter().any(|(number, pane)| {
            while let Some((first, gone)) = in_window.front().copied()
                && first + self.settings.panes() <= *number
            {
                sum -= gone;
                in_window.pop_front();
            }
            let own = pane.histogram.records();
            in_window.push_back((*number, own));
            sum += own;
            sum >= records
        })
    }

    /// Stream time is at least this, whatever records came here. What has closed by that is to be taken, or [`Self::settle`]d.
    pub fn advance_stream_time(&mut self, stream_time: Option<Timestamp>) {
        // Times of before 1970 are in no window, and move none.
        self.stream_time = self.stream_time.max(stream_time.filter(|time| time.0 >= 0));
    }

    /// The first open window with records.
    #[must_use]
    pub fn first_with_records(&self) -> Option<u64> {
        let (first, _) = self.panes.first_key_value()?;
        Some(self.next.max((first + 1).saturating_sub(self.settings.panes())))
    }

    /// Whether a window with records has closed and was not taken yet.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let last_pane = self.first_open() + self.settings.panes() - 1;
        self.first_open() > self.next && self.panes.first_key_value().is_some_and(|(first, _)| *first < last_pane)
    }

    /// Takes the first window that has closed, if one has; panes that no open window needs are dropped.
    pub fn close_next(&mut self) -> Option<ClosedWindow> {
        let (open, panes) = (self.first_open(), self.settings.panes());
        // Windows before it have no records.
        let window = self.first_with_records()?;
        if window >= open {
            return None;
        }
        let mut total = Total::new(&self.layout);
        let mut span: Option<Span> = None;
        for pane in self.panes.range(window..window + panes).map(|(_, pane)| pane) {
            total.add(&pane.histogram);
            span = span.map_or(pane.span, |before| pane.span.map(|more| before.merge(more)));
        }
        self.advance(window + 1);
        let time = |window: u64| Timestamp(i64::try_from(window * self.settings.every_ms).unwrap_or(i64::MAX));
        Some(ClosedWindow {
            number: window,
            start: time(window),
            end: time(window + panes),
            total,
            span: span?,
        })
    }

    /// To be called when [`Self::close_next`] has no more: from here on what comes for those windows is late.
    pub fn settle(&mut self) {
        self.advance(self.first_open());
    }

    fn advance(&mut self, next: u64) {
        if next == self.next {
            return;
        }
        self.next = next;
        let open = self.panes.split_off(&next);
        self.forgotten.extend(std::mem::replace(&mut self.panes, open).into_keys());
    }

    /// Forgets all records, for another layout; k, stream time and which windows are closed stay.
    pub fn start_anew(&mut self, layout: Layout) {
        self.layout = layout;
        self.forgotten.extend(std::mem::take(&mut self.panes).into_keys());
    }

    /// What is to be written since the last time: by slot, the pane that it holds now, or nothing any more.
    pub fn take_unwritten(&mut self) -> BTreeMap<u32, Option<&Pane>> {
        let Self {
            settings,
            panes,
            unwritten,
            forgotten,
            ..
        } = self;
        let slot = |number: &u64| settings.slot(PaneNumber(*number));
        let mut slots: BTreeMap<u32, Option<&Pane>> = std::mem::take(forgotten).iter().map(|number| (slot(number), None)).collect();
        // A slot that was written anew is not to be emptied, whenever that was.
        for number in panes.keys() {
            slots.remove(&slot(number));
        }
        let changed = std::mem::take(unwritten);
        slots.extend(changed.iter().filter_map(|number| Some((slot(number), Some(panes.get(number)?)))));
        slots
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> TimeWindow {
        self.settings
    }

    /// The number of the partition's last valid record; 0 before the first.
    #[must_use]
    pub fn record_number(&self) -> RecordNumber {
        self.k
    }

    /// The largest time of a record.
    #[must_use]
    pub fn stream_time(&self) -> Option<Timestamp> {
        self.stream_time
    }

    /// The first window that is not closed.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// All panes with records, oldest first.
    pub fn panes(&self) -> impl Iterator<Item = &Pane> {
        self.panes.values()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::histogram::Counts as _;
    use crate::record::Side;

    fn row(bin: u32) -> [Observation; 1] {
        [Observation {
            bin,
            side: Side::Within,
            missing: None,
        }]
    }

    fn windows(size_ms: u64, every_ms: u64, grace_ms: u64) -> HoppingWindows {
        HoppingWindows::new(TimeWindow::new(size_ms, every_ms, grace_ms).unwrap(), Layout::new([4]))
    }

    /// A record, and what closes after it.
    fn feed(windows: &mut HoppingWindows, time: i64, offset: i64) -> (Placed, Vec<ClosedWindow>) {
        let placed = windows.observe(&row((offset % 4) as u32), Offset(offset), Some(Timestamp(time)));
        let due = windows.is_due();
        let closed: Vec<_> = std::iter::from_fn(|| windows.close_next()).collect();
        assert_eq!(due, !closed.is_empty(), "due says whether a window closes");
        windows.settle();
        (placed, closed)
    }

    /// A window as start, end, records, and first and last offset.
    fn told(closed: &[ClosedWindow]) -> Vec<(i64, i64, u64, i64, i64)> {
        let of = |window: &ClosedWindow| {
            (
                window.start.0,
                window.end.0,
                window.total.records(),
                window.span.first.0,
                window.span.last.0,
            )
        };
        closed.iter().map(of).collect()
    }

    #[test]
    fn tumbling_window_closes_when_stream_time_reaches_its_end_and_the_grace() {
        let mut tumbling = windows(100, 100, 50);
        for (offset, time) in [1000, 1099, 1100, 1149].into_iter().enumerate() {
            assert_eq!(feed(&mut tumbling, time, offset as i64), (Placed::InTime, vec![]));
        }
        // Late, but within the grace; then the grace is over.
        assert_eq!(feed(&mut tumbling, 1050, 4), (Placed::InTime, vec![]));
        assert_eq!(told(&feed(&mut tumbling, 1150, 5).1), [(1000, 1100, 3, 0, 4)]);
        assert_eq!(feed(&mut tumbling, 1099, 6), (Placed::Late, vec![]));
    }

    #[test]
    fn late_record_counts_in_the_windows_that_are_still_open() {
        let mut hopping = windows(300, 100, 0);
        feed(&mut hopping, 50, 0);
        assert_eq!(told(&feed(&mut hopping, 310, 1).1), [(0, 300, 1, 0, 0)]);
        assert_eq!(feed(&mut hopping, 250, 2).0, Placed::LateForSome);
        assert_eq!(told(&feed(&mut hopping, 500, 3).1), [(100, 400, 2, 1, 2), (200, 500, 2, 1, 2)]);
    }

    #[test]
    fn empty_windows_do_not_exist_however_far_time_jumps() {
        let mut hopping = windows(300, 100, 0);
        feed(&mut hopping, 1000, 0);
        let (_, closed) = feed(&mut hopping, 4_102_444_800_000, 1);
        assert_eq!(told(&closed).iter().map(|window| window.0).collect::<Vec<_>>(), [800, 900, 1000]);
        assert_eq!(hopping.panes().count(), 1);
        assert_eq!(feed(&mut hopping, 2000, 2).0, Placed::Late);
    }

    #[test]
    fn idle_partition_closes_what_it_has_and_later_records_of_it_are_late() {
        let mut hopping = windows(300, 100, 50);
        for (offset, time) in [1000, 1010, 1250].into_iter().enumerate() {
            feed(&mut hopping, time, offset as i64);
        }
        assert!(hopping.has_window_of(3) && !hopping.has_window_of(4));
        hopping.close_all();
        assert!(hopping.is_due());
        let closed: Vec<_> = std::iter::from_fn(|| hopping.close_next()).collect();
        // Two more were closed by stream time.
        let expected = [(1000, 1300, 3, 0, 2), (1100, 1400, 1, 2, 2), (1200, 1500, 1, 2, 2)];
        assert_eq!(told(&closed), expected);
        hopping.settle();
        assert_eq!((hopping.panes().count(), hopping.is_due()), (0, false));
        hopping.close_all();
        assert!(!hopping.is_due(), "there is nothing more to close");
        assert_eq!(feed(&mut hopping, 1299, 3).0, Placed::Late);
        assert_eq!(feed(&mut hopping, 1300, 4).0, Placed::LateForSome);
        assert_eq!(feed(&mut hopping, 1500, 5).0, Placed::InTime);
        assert!(!hopping.has_window_of(3), "{:?}", hopping.panes().count());
    }

    #[test]
    fn record_without_time_has_a_number_and_no_window() {
        let mut hopping = windows(300, 100, 0);
        assert_eq!(hopping.observe(&row(0), Offset(0), None), Placed::NoTime);
        assert_eq!(hopping.observe(&row(0), Offset(1), Some(Timestamp(-5))), Placed::NoTime);
        assert_eq!(
            (hopping.record_number(), hopping.stream_time(), hopping.panes().count()),
            (RecordNumber(2), None, 0)
        );
    }

    #[test]
    fn pane_that_cannot_count_more_takes_no_record() {
        let layout = Layout::new([4]);
        let mut power = Pane::new(PaneNumber(10), &layout).histogram;
        power.observe(&layout, &row(1));
        let mut full = Pane::new(PaneNumber(10), &layout);
        full.span = Some(Span::of(Offset(0), Some(Timestamp(1000))));
        // 1 + 2 + 4 + .. + 2^31.
        for doubling in 0..32 {
            full.histogram.merge(&power);
            if doubling < 31 {
                power.merge(&power.clone());
            }
        }
        assert_eq!(full.histogram.records(), RECORDS_MAX);
        let settings = TimeWindow::new(100, 100, 0).unwrap();
        let mut windows = HoppingWindows::restore(settings, layout, RecordNumber(RECORDS_MAX), Some(Timestamp(1000)), 10, [full]);
        assert_eq!(feed(&mut windows, 1001, 1), (Placed::Full, vec![]));
        let (_, closed) = feed(&mut windows, 1100, 2);
        assert_eq!(told(&closed), [(1000, 1100, RECORDS_MAX, 0, 0)]);
    }

    #[test]
    fn settings_that_make_no_window_are_named() {
        let text = |size, every, grace| TimeWindow::new(size, every, grace).unwrap_err().to_string();
        assert!(text(1000, 300, 0).contains("1000 ms every 300 ms"));
        assert!(text(1000, 0, 0).contains("at least 1 ms"));
        assert!(text(86_400_000, 1000, 0).contains("keeps 86400 panes"));
        assert!(text(u64::MAX, u64::MAX, u64::MAX).contains("a hundred years"));
    }

    proptest! {
        /// Against the definition: every record and every window, one by one.
        #[test]
        fn windows_are_those_of_the_definition(
            panes in 1_u64..5, grace in 0_u64..300, times in prop::collection::vec((0_i64..40, -200_i64..200), 1..120)
        ) {
            let (size, every) = (panes * 100, 100);
            let mut hopping = windows(size, every, grace);
            let (mut now, mut records, mut stream_time) = (1000_i64, Vec::<(i64, i64)>::new(), i64::MIN);
            let mut closed = BTreeSet::new();
            for (offset, (step, jitter)) in times.into_iter().enumerate() {
                now += step;
                let (time, offset) = ((now + jitter).max(0), offset as i64);
                // A window takes a record if it is not closed when the record comes.
                records.push((time, offset));
                stream_time = stream_time.max(time);
                let starts = (0..=stream_time / 100).map(|window| window * 100);
                let mut expected = Vec::new();
                for start in starts.filter(|start| start + (size + grace) as i64 <= stream_time) {
                    if !closed.insert(start) {
                        continue;
                    }
                    let inside: Vec<i64> = records.iter().filter(|(time, _)| (start..start + size as i64).contains(time)).map(|(_, offset)| *offset).collect();
                    if let (Some(first), Some(last)) = (inside.iter().min(), inside.iter().max()) {
                        expected.push((start, start + size as i64, inside.len() as u64, *first, *last));
                    }
                }
                let (_, found) = feed(&mut hopping, time, offset);
                prop_assert_eq!(told(&found), expected);
                // What is kept fits its ring.
                prop_assert!(hopping.panes().count() <= hopping.settings().slots() as usize);
                let slots: BTreeSet<u32> = hopping.panes().map(|pane| hopping.settings().slot(pane.number)).collect();
                prop_assert_eq!(slots.len(), hopping.panes().count());
            }
        }
    }
}
