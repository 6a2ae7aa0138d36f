//! Count windows: the last `size` records, checked each `every` of them.
//!
//! ```text
//!             every
//!            |-----|
//!  ..-- pane 3 -- pane 4 -- pane 5 -- pane 6 (current, growing)       record k is in pane (k - 1) / every
//!       slot 0    slot 1    slot 2    slot 0                          slot = pane number % (size / every)
//!      |------ total: complete panes -----|
//! ```
//!
//! A window is a ring of `size / every` panes. The running total is kept incrementally: a pane is added when it is complete and subtracted when
//! its slot is taken again. So a record costs one increment per feature, and a check costs no recount.
//!
//! - Panes are aligned to the record number, not to the start of the window; a window starts at a multiple of `every` (a change of reference
//!   comes after a check), so its panes are whole.
//! - `total` is the sum of the complete panes; the current pane is not in it until its last record. At a check no pane is incomplete.
//!
//! Nothing here knows of time: [`time`] has the windows that do.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use bincode::{Decode, Encode};

use crate::histogram::{Histogram, Layout, Span};
use crate::ids::{Offset, RecordNumber, Timestamp};
use crate::record::Observation;

pub mod time;

use time::TimeWindow;

/// The records that a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many.
    Count(CountWindow),
    /// Those of a time.
    Time(TimeWindow),
}

impl Default for Window {
    fn default() -> Self {
        Self::Count(CountWindow::default())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(window) => write!(f, "{}/{} records (size/every)", window.size(), window.every()),
            Self::Time(window) => write!(
                f,
                "{}/{}/{} ms (size/every/grace)",
                window.size_ms(),
                window.every_ms(),
                window.grace_ms()
            ),
        }
    }
}

/// Panes that a window may have: each is a histogram in memory, in the store and in the changelog, and a check looks at each one's span.
pub const PANES_MAX: u64 = 10_000;

/// Records that a window may have: what a 32-bit count holds.
pub const SIZE_MAX: u64 = u32::MAX as u64;

/// Settings of a count window. Made by [`CountWindow::new`] only, so that what it says holds everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountWindow {
    size: u64,
    every: u64,
}

/// Settings that make no count window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    /// `every` is 0, or `size` is no multiple of it.
    #[error("a window of {size} records checked every {every}: `every` must be at least 1 and divide `size`")]
    NotDivisible {
        /// Records of the window.
        size: u64,
        /// Records between two checks.
        every: u64,
    },
    /// Longer than counts can hold.
    #[error("a window of {size} records: at most {SIZE_MAX} are possible")]
    TooLong {
        /// Records of the window.
        size: u64,
    },
    /// Checked so often that the panes would be too many.
    #[error("a window of {size} records checked every {every} has {} panes, at most {PANES_MAX} are possible: raise `every`", .size / .every)]
    TooManyPanes {
        /// Records of the window.
        size: u64,
        /// Records between two checks.
        every: u64,
    },
}

impl Default for CountWindow {
    fn default() -> Self {
        Self { size: 1000, every: 100 }
    }
}

impl CountWindow {
    /// A window over the last `size` records, checked each `every` records.
    ///
    /// # Errors
    /// When `every` is 0 or does not divide `size`, or when there would be more than [`SIZE_MAX`] records or [`PANES_MAX`] panes.
    pub fn new(size: u64, every: u64) -> Result<Self, InvalidWindow> {
        if every == 0 || size == 0 || !size.is_multiple_of(every) {
            Err(InvalidWindow::NotDivisible { size, every })
        } else if size > SIZE_MAX {
            Err(InvalidWindow::TooLong { size })
        } else if size / every > PANES_MAX {
            Err(InvalidWindow::TooManyPanes { size, every })
        } else {
            Ok(Self { size, every })
        }
    }

    /// Records of a full window.
    #[must_use]
    pub fn size(self) -> u64 {
        self.size
    }

    /// Records between two checks: those of a pane.
    #[must_use]
    pub fn every(self) -> u64 {
        self.every
    }

    /// Panes of a full window.
    #[must_use]
    pub fn panes(self) -> u64 {
        self.size / self.every
    }

    /// Whether a check is due after record `k`, in a window that started after record `start` (0: with the partition).
    ///
    /// `min_samples` may be above the size: then the first check waits for that many records of the partition, not of the window.
    #[must_use]
    pub fn is_due(self, k: RecordNumber, start: RecordNumber, min_samples: u64) -> bool {
        k.0.is_multiple_of(self.every) && k.0 >= min_samples && k.0 - start.0 >= min_samples.min(self.size) && k > start
    }

    /// The panes of the window after record `k`, the current one included, in a window that started after record `start`.
    #[must_use]
    pub fn live_panes(self, k: RecordNumber, start: RecordNumber) -> Range<PaneNumber> {
        let end = k.0.div_ceil(self.every);
        let first = if k > start { start.0 / self.every } else { end };
        PaneNumber(first.max(end.saturating_sub(self.panes())))..PaneNumber(end)
    }

    /// Records of a pane after record `k`, for a pane that has begun, in a window that started after record `start`.
    #[must_use]
    pub fn records_of(self, pane: PaneNumber, k: RecordNumber, start: RecordNumber) -> u64 {
        k.0.min((pane.0 + 1) * self.every) - start.0.max(pane.0 * self.every)
    }

    /// The slots of the ring: 0 up to this.
    #[must_use]
    pub fn slots(self) -> u32 {
        // At most PANES_MAX, so it fits.
        self.panes() as u32
    }

    /// The slot of a pane in the ring.
    #[must_use]
    pub fn slot(self, pane: PaneNumber) -> u32 {
        (pane.0 % u64::from(self.slots())) as u32
    }
}

/// The number of a pane of a partition, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct PaneNumber(pub u64);

/// The histograms of `every` successive records.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pane {
    /// Which pane it is: tells a slot's present holder from an earlier one.
    pub number: PaneNumber,
    /// Its counts.
    pub histogram: Histogram,
    /// Where it reaches; `None` while it is empty.
    pub span: Option<Span>,
}

impl Pane {
    fn new(number: PaneNumber, layout: &Layout) -> Self {
        Self {
            number,
            histogram: Histogram::new(layout),
            span: None,
        }
    }

    fn reset(&mut self, number: PaneNumber) {
        self.number = number;
        self.histogram.clear();
        self.span = None;
    }
}

/// The window of one monitor in one partition, in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    settings: CountWindow,
    layout: Layout,
    start: RecordNumber,
    k: RecordNumber,
    /// Oldest first; the last one is current, or complete when `k` is a multiple of `every`.
    panes: VecDeque<Pane>,
    total: Histogram,
}

impl SlidingWindow {
    /// An empty window that starts after record `start`. Where that is no multiple of `every` its first pane has fewer records.
    #[must_use]
    pub fn new(settings: CountWindow, layout: Layout, start: RecordNumber) -> Self {
        let total = Histogram::new(&layout);
        Self {
            settings,
            layout,
            start,
            k: start,
            panes: VecDeque::new(),
            total,
        }
    }

    /// The window as it was after record `k`: `panes` are those of [`CountWindow::live_panes`], in order.
    #[must_use]
    pub fn restore(settings: CountWindow, layout: Layout, start: RecordNumber, k: RecordNumber, panes: VecDeque<Pane>) -> Self {
        let mut total = Histogram::new(&layout);
        for pane in panes.iter().filter(|pane| (pane.number.0 + 1) * settings.every <= k.0) {
            total.merge(&pane.histogram);
        }
        Self {
            settings,
            layout,
            start,
            k,
            panes,
            total,
        }
    }

    /// Counts the next record.
    pub fn observe(&mut self, row: &[Observation], offset: Offset, timestamp: Option<Timestamp>) {
        let span = Span::of(offset, timestamp);
        if self.panes.is_empty() || self.k.0.is_multiple_of(self.settings.every) {
            self.open_pane();
        }
        self.k.0 += 1;
        if let Some(pane) = self.panes.back_mut() {
            pane.histogram.observe(&self.layout, row);
            pane.span = Some(pane.span.map_or(span, |before| before.merge(span)));
            if self.k.0.is_multiple_of(self.settings.every) {
                self.total.merge(&pane.histogram);
            }
        }
    }

    /// Takes a whole pane of `every` records, cut elsewhere by a reference of the same layout.
    pub fn merge(&mut self, histogram: &Histogram, span: Option<Span>) {
        debug_assert_eq!(histogram.records(), self.settings.every, "only whole panes are merged");
        self.open_pane();
        self.k.0 += self.settings.every;
        self.total.merge(histogram);
        if let Some(pane) = self.panes.back_mut() {
            pane.histogram.merge(histogram);
            pane.span = span;
        }
    }

    /// The last pane, if it is whole: so it is after the last of its records, and until the next record. One in which the window started never is.
    #[must_use]
    pub fn whole_pane(&self) -> Option<&Pane> {
        self.panes.back().filter(|pane| pane.histogram.records() == self.settings.every)
    }

    /// Puts the next pane at the end of the ring; a full ring gives it the memory of the oldest.
    fn open_pane(&mut self) {
        let number = PaneNumber(self.k.0 / self.settings.every);
        let oldest = if self.panes.len() as u64 == self.settings.panes() {
            self.panes.pop_front()
        } else {
            None
        };
        let pane = match oldest {
            Some(mut pane) => {
                self.total.subtract(&pane.histogram);
                pane.reset(number);
                pane
            }
            None => Pane::new(number, &self.layout),
        };
        self.panes.push_back(pane);
    }

    /// Whether a check is due after the last record.
    #[must_use]
    pub fn is_due(&self, min_samples: u64) -> bool {
        self.settings.is_due(self.k, self.start, min_samples)
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> CountWindow {
        self.settings
    }

    /// The layout of its histograms.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The record after which it started: 0, or that of the last change of reference.
    #[must_use]
    pub fn start(&self) -> RecordNumber {
        self.start
    }

    /// The number of the partition's last valid record; 0 before the first.
    #[must_use]
    pub fn record_number(&self) -> RecordNumber {
        self.k
    }

    /// The counts of all complete panes: at a check, those of the window.
    #[must_use]
    pub fn total(&self) -> &Histogram {
        &self.total
    }

    /// The counts of the window between two checks too: the complete panes' and the current one's.
    #[must_use]
    pub fn current(&self) -> Histogram {
        let mut current = self.total.clone();
        if let Some(pane) = self.panes.back().filter(|_| !self.k.0.is_multiple_of(self.settings.every)) {
            current.merge(&pane.histogram);
        }
        current
    }

    /// Where the window reaches; `None` while it is empty.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.panes.iter().filter_map(|pane| pane.span).reduce(Span::merge)
    }

    /// All panes, oldest first.
    pub fn panes(&self) -> impl Iterator<Item = &Pane> {
        self.panes.iter()
    }

    /// The panes with records after `flushed`, and the one that was current then.
    pub fn panes_changed_since(&self, flushed: RecordNumber) -> impl Iterator<Item = &Pane> {
        // A pane that was complete at `flushed` has a smaller number.
        let first = PaneNumber(flushed.0 / self.settings.every);
        self.panes.iter().filter(move |pane| pane.number >= first)
    }
}

#[cfg(test)]
mod tests;
