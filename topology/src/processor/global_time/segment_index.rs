//! What is kept of each segment of the whole topic's time windows beside its open ones: what it is measured by, its verdicts, and its k.
//!
//! - The index of what lives is complete and in memory; what is kept of a segment is in memory while it changes, and else in the store. It leaves memory
//!   only when the store has it: after the epoch that wrote it was applied.
//! - Without segments there is one, without a name. It stays in memory, and is written with the head of all windows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::codec::{decode, encode};
use crate::ids::{Partition, RecordNumber};
use crate::processor::measure::{Measure, Measures};
use crate::processor::monitored_window::NO_SEGMENT;
use crate::processor::monitored_window::verdicts::Verdicts;
use crate::processor::place::Place;
use crate::processor::quality_tally::QualityTally;
use crate::processor::segments::KEY_BYTES;
use crate::repartition::WindowPart;
use crate::state::{
    FeatureHead, GlobalTimeMeasure, GlobalTimeSegment, KeyKind, KeyText, Put, ReadStore, StateError, global_time_segment_key, heads_prefix, read,
    segment_of,
};

/// What is kept of one segment. See the module.
pub(super) struct Segment {
    pub(super) measure: Arc<Measure>,
    /// Of the parts that count, the last publication of that reference.
    pub(super) publication: u64,
    pub(super) verdicts: Verdicts,
    /// `None`: the monitor has no limits of quality.
    pub(super) quality: Option<Box<QualityTally>>,
    /// The first window that was not checked: earlier ones are late.
    pub(super) next: u64,
    /// Without segments each partition's progress says it.
    record_numbers: BTreeMap<Partition, RecordNumber>,
}

impl Segment {
    /// Without a check.
    pub(super) fn new(place: &Place, measure: &Arc<Measure>, publication: u64) -> Self {
        Self {
            verdicts: Verdicts::none(measure.layout.feature_count()),
            quality: QualityTally::new(place, measure),
            measure: Arc::clone(measure),
            publication,
            next: 0,
            record_numbers: BTreeMap::new(),
        }
    }

    /// As it was stored.
    pub(super) fn restore(place: &Place, stored: GlobalTimeMeasure, next: u64, measures: &mut dyn Measures) -> Result<Self, StateError> {
        let measure = measures.of(place, &stored.reference_version)?;
        measure.expect_features(place, &stored.features)?;
        let mut segment = Self::new(place, &measure, stored.publication);
        if let (Some(kept), Some(stored)) = (&mut segment.quality, stored.quality) {
            kept.restore(&measure, stored);
        }
        segment.verdicts = Verdicts {
            statuses: stored.features.iter().map(|feature| feature.status).collect(),
            summary: stored.summary,
        };
        segment.next = next;
        Ok(segment)
    }

    /// It is measured by another reference from here on.
    pub(super) fn start_anew(&mut self, place: &Place, measure: &Arc<Measure>, publication: u64) {
        let (next, record_numbers) = (self.next, std::mem::take(&mut self.record_numbers));
        *self = Self {
            next,
            record_numbers,
            ..Self::new(place, measure, publication)
        };
    }

    /// The sum of the partitions' k.
    pub(super) fn record_number(&self) -> RecordNumber {
        RecordNumber(self.record_numbers.values().map(|number| number.0).sum())
    }

    /// What is to be stored.
    pub(super) fn measured(&self) -> GlobalTimeMeasure {
        let features = std::iter::zip(self.measure.reference.features(), &self.verdicts.statuses);
        GlobalTimeMeasure {
            reference_version: Arc::clone(&self.measure.version),
            publication: self.publication,
            features: features
                .map(|(feature, &status)| FeatureHead {
                    name: Arc::clone(feature.name()),
                    bins: feature.counts().len() as u64,
                    status,
                })
                .collect(),
            summary: self.verdicts.summary,
            quality: self.quality.as_ref().map(|quality| quality.head(&self.measure)),
        }
    }
}

/// A segment, as long as it lives.
struct Entry {
    /// The last window of which a part was shipped.
    last: u64,
    kept: Option<Box<Segment>>,
}

/// The segments that live. See the module.
pub(super) struct SegmentIndex {
    place: Arc<Place>,
    is_whole: bool,
    entries: HashMap<Arc<str>, Entry>,
    /// Where segments expire: by the last window of which a part was shipped.
    by_last: BTreeSet<(u64, Arc<str>)>,
    /// Those that changed, began or were forgotten since the last flush.
    changed: BTreeSet<Arc<str>>,
    unwritten_bytes: usize,
    /// What is in memory beside the index.
    loaded: Vec<Arc<str>>,
}

impl SegmentIndex {
    /// None has had a part.
    pub(super) fn new(place: &Arc<Place>) -> Self {
        Self {
            place: Arc::clone(place),
            is_whole: place.monitor.segment_by.is_empty(),
            entries: HashMap::new(),
            by_last: BTreeSet::new(),
            changed: BTreeSet::new(),
            unwritten_bytes: 0,
            loaded: Vec::new(),
        }
    }

    /// As they are stored: the index alone is read.
    pub(super) fn restore(place: &Arc<Place>, store: &dyn ReadStore) -> Result<Self, StateError> {
        let (mut index, mut failed) = (Self::new(place), None);
        store.scan(&heads_prefix(KeyKind::GlobalTimeSegment, &place.monitor.name), &mut |key, value| {
            let Some(name) = segment_of(key) else { return };
            match decode::<GlobalTimeSegment>(value) {
                Ok(stored) => index.insert(name.into(), stored.last, None),
                Err(cause) => {
                    failed = Some(StateError::Corrupt {
                        key: KeyText(key).to_string(),
                        cause,
                    });
                }
            }
        })?;
        failed.map_or(Ok(index), Err)
    }

    /// Those that live.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is kept where there are no segments.
    pub(super) fn whole(&self) -> Option<&Segment> {
        self.in_memory(NO_SEGMENT)
    }

    /// What is in memory of a segment.
    pub(super) fn in_memory(&self, name: &str) -> Option<&Segment> {
        self.entries.get(name)?.kept.as_deref()
    }

    fn insert(&mut self, name: Arc<str>, last: u64, kept: Option<Segment>) {
        if kept.is_some() {
            self.loaded.push(Arc::clone(&name));
        }
        self.note_last(&name, None, last);
        let entry = Entry {
            last,
            kept: kept.map(Box::new),
        };
        self.entries.insert(name, entry);
    }

    fn note_last(&mut self, name: &Arc<str>, before: Option<u64>, last: u64) {
        if self.place.monitor.segment_expiry_ms.is_some() && before != Some(last) {
            if let Some(before) = before {
                self.by_last.remove(&(before, Arc::clone(name)));
            }
            self.by_last.insert((last, Arc::clone(name)));
        }
    }

    /// A segment that had no part so far.
    pub(super) fn begin(&mut self, name: Arc<str>, last: u64, kept: Segment) {
        self.insert(Arc::clone(&name), last, Some(kept));
        self.change(name);
    }

    /// What is kept of a segment that lives: in memory, or as it is stored.
    pub(super) fn get(
        &mut self,
        name: &str,
        measures: &mut dyn Measures,
        store: &dyn ReadStore,
    ) -> Result<Option<(Arc<str>, &mut Segment)>, StateError> {
        let Some((name, entry)) = self.entries.get_key_value(name) else {
            return Ok(None);
        };
        let name = Arc::clone(name);
        let restored = match entry.kept {
            Some(_) => None,
            None => Some(self.read(&name, entry.last, measures, store)?),
        };
        if restored.is_some() {
            self.loaded.push(Arc::clone(&name));
        }
        let Some(entry) = self.entries.get_mut(&name) else { return Ok(None) };
        if let Some(restored) = restored {
            entry.kept = Some(Box::new(restored));
        }
        Ok(entry.kept.as_deref_mut().map(|kept| (name, kept)))
    }

    fn read(&self, name: &str, last: u64, measures: &mut dyn Measures, store: &dyn ReadStore) -> Result<Segment, StateError> {
        let told = name.escape_debug();
        let stored = read::<GlobalTimeSegment>(store, &global_time_segment_key(&self.place.monitor.name, name))?;
        let stored = stored.ok_or_else(|| self.place.contradictory(format!("segment {told} is not in the store any more")))?;
        if stored.last != last {
            let was = stored.last;
            return Err(self
                .place
                .contradictory(format!("segment {told} is stored as of window {was}, but it had one of {last}")));
        }
        let mut segment = Segment::restore(&self.place, stored.measured, stored.next, measures)?;
        segment.record_numbers = stored.record_numbers.into_iter().collect();
        Ok(segment)
    }

    /// A part of a segment that lives was shipped, whether it counts or not.
    pub(super) fn shipped(&mut self, name: &Arc<str>, part: &WindowPart) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let before = entry.last;
        let last = before.max(part.window);
        entry.last = last;
        if let Some(kept) = &mut entry.kept
            && !self.is_whole
        {
            kept.record_numbers.insert(part.partition, part.record_number);
        }
        self.note_last(name, Some(before), last);
        self.change(Arc::clone(name));
    }

    /// What is kept of it has changed.
    pub(super) fn change(&mut self, name: Arc<str>) {
        if self.is_whole {
            return;
        }
        let kept = self.in_memory(&name);
        let bytes = kept.map_or(0, |kept| {
            kept.measure.layout.feature_count() * FEATURE_BYTES + kept.record_numbers.len() * RECORD_NUMBER_BYTES
        });
        if self.changed.insert(name) {
            self.unwritten_bytes += KEY_BYTES + bytes;
        }
    }

    /// The one that had no part for longest, if they expire, and its last window.
    pub(super) fn oldest(&self) -> Option<(u64, &Arc<str>)> {
        self.by_last.first().map(|(last, name)| (*last, name))
    }

    /// Forgets one.
    pub(super) fn forget(&mut self, name: &Arc<str>) {
        if let Some(Entry { last, .. }) = self.entries.remove(name) {
            self.by_last.remove(&(last, Arc::clone(name)));
        }
        self.change(Arc::clone(name));
    }

    /// Bytes that the next flush will give, about.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes
    }

    /// Appends those that changed since the last flush.
    pub(super) fn flush(&mut self, puts: &mut Vec<Put>) {
        self.unwritten_bytes = 0;
        let monitor = &self.place.monitor.name;
        for name in std::mem::take(&mut self.changed) {
            let stored = self.entries.get(&name).and_then(|entry| {
                let kept = entry.kept.as_deref()?;
                Some(GlobalTimeSegment {
                    last: entry.last,
                    next: kept.next,
                    record_numbers: kept.record_numbers.iter().map(|(partition, number)| (*partition, *number)).collect(),
                    measured: kept.measured(),
                })
            });
            puts.push(Put {
                key: global_time_segment_key(monitor, &name),
                value: stored.as_ref().map(encode),
            });
        }
    }

    /// The store has what was flushed: what has not changed since leaves memory.
    pub(super) fn applied(&mut self) {
        let Self {
            is_whole,
            entries,
            changed,
            loaded,
            ..
        } = self;
        if *is_whole {
            return;
        }
        loaded.retain(|name| {
            let is_changed = changed.contains(name);
            if let Some(entry) = entries.get_mut(name).filter(|_| !is_changed) {
                entry.kept = None;
            }
            is_changed
        });
    }
}

/// What is written of a feature, about: its name, bins and status.
const FEATURE_BYTES: usize = 24;

/// What is written of a partition, about.
const RECORD_NUMBER_BYTES: usize = 6;
