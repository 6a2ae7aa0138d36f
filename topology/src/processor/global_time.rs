//! The time windows of one whole topic: parts of windows in, and how far each partition is; checks out.
//!
//! ```text
//! part of window w --late--> left out, counted
//!     \--of an earlier reference--> left out, counted
//!      \--else--> added to window w --(every partition has closed w, or is idle)--> check
//! ```
//!
//! - A window is checked when no partition can add to it any more: each of the input's partitions has closed it, or is idle, or has had no record. Of
//!   partitions of which nothing is known yet nothing can be said, so they are waited for.
//! - Everything is a function of the repartition topic, in its order.
//! - The windows that are open are bounded by [`OPEN_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::measure::{ByVersion, Measure, Measures as _};
use super::monitored_window::verdicts::{Bounds, Checker, Verdicts};
use super::monitored_window::{Irregular, IrregularTally, NO_SEGMENT};
use super::place::Place;
use super::quality_tally::QualityTally;
use super::{Disposition, Outputs};
use crate::codec::{decode, encode};
use crate::event::ClosedBy;
use crate::histogram::{Counts as _, Span, Total};
use crate::ids::{Offset, Partition, RecordNumber, Timestamp};
use crate::repartition::{WindowPart, WindowProgress};
use crate::state::{
    FeatureHead, GlobalTimeHead, GlobalTimeMeasure, KeyText, OpenWindow, Put, ReadStore, StateError, global_time_key, open_window_key,
    open_windows_prefix, read,
};
use crate::window::Window;
use crate::window::time::TimeWindow;

/// Windows that may wait for a partition; then the earliest is given up.
const OPEN_MAX: usize = 10_000;

/// The windows of one monitor. See the module.
pub(super) struct GlobalTimeWindows {
    place: Arc<Place>,
    settings: TimeWindow,
    measured: Option<Measured>,
    partitions: BTreeMap<Partition, WindowProgress>,
    partition_count: u32,
    next: u64,
    open: BTreeMap<u64, OpenWindow>,
    /// Windows that changed since the last flush.
    unwritten: BTreeSet<u64>,
    is_changed: bool,
}

struct Measured {
    measure: Arc<Measure>,
    publication: u64,
    verdicts: Verdicts,
    /// `None`: the monitor has no limits of quality.
    quality: Option<Box<QualityTally>>,
}

impl GlobalTimeWindows {
    /// The windows as they were stored, or none.
    pub(super) fn open(place: &Arc<Place>, settings: TimeWindow, measures: &mut ByVersion, store: &dyn ReadStore) -> Result<Self, StateError> {
        let mut windows = Self {
            place: Arc::clone(place),
            settings,
            measured: None,
            partitions: BTreeMap::new(),
            partition_count: 0,
            next: 0,
            open: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            is_changed: false,
        };
        let name = &*place.monitor.name;
        let prefix = open_windows_prefix(name, NO_SEGMENT);
        let mut stored = Vec::new();
        store.scan(&prefix, &mut |key, value| stored.push((key.to_vec(), value.to_vec())))?;
        for (key, value) in stored {
            let corrupt = |cause| StateError::Corrupt {
                key: KeyText(&key).to_string(),
                cause,
            };
            let number = key.strip_prefix(&*prefix).and_then(|number| number.try_into().ok());
            let number = number.ok_or_else(|| place.contradictory(format!("{:02x?} is no key of a window", key)))?;
            windows.open.insert(u64::from_be_bytes(number), decode(&value).map_err(corrupt)?);
        }
        let Some(head) = read::<GlobalTimeHead>(store, &global_time_key(name, NO_SEGMENT))? else {
            return match windows.open.is_empty() {
                true => Ok(windows),
                false => Err(place.contradictory("there are open windows, but nothing says where they belong")),
            };
        };
        if (head.size_ms, head.every_ms, head.grace_ms) != (settings.size_ms(), settings.every_ms(), settings.grace_ms()) {
            let was = format!("{}/{}/{} ms (size/every/grace)", head.size_ms, head.every_ms, head.grace_ms);
            return Err(place.other_window(&was, Window::Time(settings)));
        }
        let found = (windows.open.len() as u64, windows.records());
        if found != (head.windows, head.records) {
            return Err(place.contradictory(format!(
                "{} open windows with {} records are there, but {} with {} were written",
                found.0, found.1, head.windows, head.records
            )));
        }
        if let Some(stored) = head.measured {
            let measure = measures.of(place, &stored.reference_version)?;
            measure.expect_features(place, &stored.features)?;
            let mut quality = QualityTally::new(place, &measure);
            if let (Some(kept), Some(stored)) = (&mut quality, stored.quality) {
                kept.restore(&measure, stored);
            }
            windows.measured = Some(Measured {
                publication: stored.publication,
                verdicts: Verdicts {
                    statuses: stored.features.iter().map(|feature| feature.status).collect(),
                    summary: stored.summary,
                },
                quality,
                measure,
            });
        }
        windows.next = head.next;
        windows.partition_count = head.partition_count;
        windows.partitions = head.partitions.into_iter().map(|progress| (progress.partition, progress)).collect();
        windows.verify().map(|()| windows)
    }

    /// Proves that in each window every feature's bins add up to its records.
    pub(super) fn verify(&self) -> Result<(), StateError> {
        for (number, window) in &self.open {
            let Some(Measured { measure, .. }) = &self.measured else {
                return Err(self
                    .place
                    .contradictory("there are open windows, but nothing says what they are measured by"));
            };
            if window.total.counters() != measure.layout.counters() || window.total.verify(&measure.layout).is_err() {
                return Err(self.place.contradictory(format!("the counts of open window {number} do not add up")));
            }
        }
        Ok(())
    }

    fn records(&self) -> u64 {
        self.open.values().map(|window| window.total.records()).sum()
    }

    /// The records that its partitions had seen when they shipped last.
    pub(super) fn record_number(&self) -> RecordNumber {
        RecordNumber(self.partitions.values().map(|progress| progress.record_number.0).sum())
    }

    /// Takes how far one partition is.
    pub(super) fn progress(&mut self, progress: &WindowProgress) -> Disposition {
        self.partition_count = self.partition_count.max(progress.partitions);
        self.note(*progress);
        Disposition::Processed { check_due: self.is_due() }
    }

    fn note(&mut self, mut progress: WindowProgress) {
        self.is_changed = true;
        let number = u32::try_from(progress.partition.0).unwrap_or(0);
        self.partition_count = self.partition_count.max(number.saturating_add(1));
        if let Some(before) = self.partitions.get(&progress.partition) {
            progress.open_from = progress.open_from.max(before.open_from);
        }
        self.partitions.insert(progress.partition, progress);
    }

    /// Takes one partition's part of a window, if it fits.
    pub(super) fn part(&mut self, part: &WindowPart, measures: &mut ByVersion, irregular: &mut IrregularTally) -> Disposition {
        let cut = (part.size_ms, part.every_ms, part.grace_ms);
        if cut != (self.settings.size_ms(), self.settings.every_ms(), self.settings.grace_ms()) {
            let now = Window::Time(self.settings);
            return super::global_processor::not_a_pane(format!("cut for a window of {}/{}/{} ms, now it is {now}", cut.0, cut.1, cut.2));
        }
        let known = self.measured.as_ref();
        let is_same = known.is_some_and(|known| known.measure.version == part.reference_version);
        let is_earlier = !is_same && known.is_some_and(|known| part.publication <= known.publication);
        let measure = if is_same || is_earlier {
            None
        } else {
            match measures.shipped(&self.place.monitor, &part.reference_version, part.publication) {
                Ok(Some(measure)) => Some(measure),
                Ok(None) => {
                    return Disposition::Waiting {
                        monitor: Arc::clone(&self.place.monitor.name),
                        version: Arc::clone(&part.reference_version),
                    };
                }
                Err(error) => return super::global_processor::not_a_pane(format!("its reference {}: {error}", part.reference_version)),
            }
        };
        if let Some(measure) = measure.as_ref().or(known.map(|known| &known.measure).filter(|_| is_same))
            && (part.total.counters() != measure.layout.counters() || part.total.verify(&measure.layout).is_err())
        {
            return super::global_processor::not_a_pane("its counts do not add up");
        }
        self.note(WindowProgress {
            partition: part.partition,
            partitions: 0,
            open_from: part.window + 1,
            record_number: part.record_number,
            // Its last idle window is followed by its saying so.
            is_idle: false,
        });
        if is_earlier {
            irregular.count(Irregular::StalePane);
        } else if part.window < self.next {
            irregular.count(Irregular::LateWindow);
        } else {
            self.add(part, measure);
        }
        Disposition::Processed { check_due: self.is_due() }
    }

    /// Adds a part that counts. `measure`: of another reference than the parts before.
    fn add(&mut self, part: &WindowPart, measure: Option<Arc<Measure>>) {
        if let Some(measure) = measure {
            self.unwritten.extend(std::mem::take(&mut self.open).into_keys());
            self.measured = Some(Measured {
                verdicts: Verdicts::none(measure.layout.feature_count()),
                quality: QualityTally::new(&self.place, &measure),
                publication: part.publication,
                measure,
            });
        }
        let Some(measured) = &mut self.measured else { return };
        measured.publication = measured.publication.max(part.publication);
        let window = self.open.entry(part.window).or_insert_with(|| OpenWindow {
            total: Total::new(&measured.measure.layout),
            is_idle: false,
        });
        window.total.merge(&part.total);
        window.is_idle |= part.is_idle;
        self.unwritten.insert(part.window);
    }

    /// The first window that a partition may add to; `None`: some partition is not known yet.
    fn closed_before(&self) -> Option<u64> {
        if (self.partitions.len() as u64) < u64::from(self.partition_count) {
            return None;
        }
        let waited_for = self.partitions.values().filter(|progress| !progress.is_idle);
        Some(waited_for.map(|progress| progress.open_from).min().unwrap_or(u64::MAX))
    }

    /// Whether [`Self::check`] has something to do.
    pub(super) fn is_due(&self) -> bool {
        let closed_before = self.closed_before().unwrap_or(0);
        let is_closed = self.open.first_key_value().is_some_and(|(window, _)| *window < closed_before);
        is_closed || self.open.len() > OPEN_MAX
    }

    /// Checks every window that no partition can add to any more. Then the earliest are given up while there are too many.
    pub(super) fn check(&mut self, irregular: &mut IrregularTally, out: &mut Outputs) {
        let closed_before = self.closed_before().unwrap_or(0);
        let (place, record_number) = (Arc::clone(&self.place), self.record_number());
        let segment: Arc<str> = NO_SEGMENT.into();
        while let Some(entry) = self.open.first_entry().filter(|entry| *entry.key() < closed_before) {
            let (window, OpenWindow { total, is_idle }) = entry.remove_entry();
            self.is_changed = true;
            self.unwritten.insert(window);
            self.next = window + 1;
            if total.records() < place.monitor.min_samples {
                irregular.count(Irregular::SkippedWindow);
                continue;
            }
            let Some(measured) = &mut self.measured else { continue };
            let not_waited_for = self.partitions.values().any(|progress| progress.is_idle && progress.open_from <= window);
            let time = |ms: u64| Timestamp(i64::try_from(ms).unwrap_or(i64::MAX));
            let start_ms = window * self.settings.every_ms();
            let times = (time(start_ms), time(start_ms + self.settings.size_ms()));
            let checker = Checker {
                place: &place,
                segment: &segment,
                event_id: place.event_id(&segment),
                measure: &measured.measure,
                record_number,
            };
            let bounds = Bounds {
                // Offsets of several partitions say nothing together.
                span: Span::of(Offset(0), None),
                times,
                id: times.1.0,
                closed_by: Some(if is_idle || not_waited_for {
                    ClosedBy::Idle
                } else {
                    ClosedBy::StreamTime
                }),
            };
            measured.verdicts.check(&checker, &total, bounds, &mut out.events);
            if let Some(quality) = &mut measured.quality {
                quality.check(&checker, &total, bounds, &mut out.quality);
            }
        }
        while self.open.len() > OPEN_MAX
            && let Some((given_up, _)) = self.open.pop_first()
        {
            irregular.count(Irregular::WaitedTooLong);
            self.is_changed = true;
            self.unwritten.insert(given_up);
            self.next = given_up + 1;
        }
    }

    /// Appends the windows that changed since the last flush, then the head; nothing if nothing did.
    pub(super) fn flush(&mut self, puts: &mut Vec<Put>) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        let name = &*self.place.monitor.name;
        for window in std::mem::take(&mut self.unwritten) {
            puts.push(Put {
                key: open_window_key(name, NO_SEGMENT, window),
                value: self.open.get(&window).map(encode),
            });
        }
        let measured = self.measured.as_ref().map(|measured| {
            let features = measured.measure.reference.features().iter().zip(&measured.verdicts.statuses);
            GlobalTimeMeasure {
                reference_version: Arc::clone(&measured.measure.version),
                publication: measured.publication,
                features: features
                    .map(|(feature, &status)| FeatureHead {
                        name: Arc::clone(feature.name()),
                        bins: feature.counts().len() as u64,
                        status,
                    })
                    .collect(),
                summary: measured.verdicts.summary,
                quality: measured.quality.as_ref().map(|quality| quality.head(&measured.measure)),
            }
        });
        puts.push(Put {
            key: global_time_key(name, NO_SEGMENT),
            value: Some(encode(&GlobalTimeHead {
                size_ms: self.settings.size_ms(),
                every_ms: self.settings.every_ms(),
                grace_ms: self.settings.grace_ms(),
                next: self.next,
                windows: self.open.len() as u64,
                records: self.records(),
                partitions: self.partitions.values().copied().collect(),
                partition_count: self.partition_count,
                measured,
            })),
        });
    }
}
