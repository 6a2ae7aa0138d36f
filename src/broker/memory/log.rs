//! One partition's log: records, transaction markers, and what a read-committed reader may see of them.
//!
//! ```text
//! start            last stable        high watermark
//!   |r r r M r r r x x M r|  o r o r r  |        r record, M marker, x aborted, o of an open transaction
//! ```
//!
//! Invariants: offsets only rise, and a marker uses one up; nothing at or above the last stable offset is handed out; nothing there is deleted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use leeway_topology::ids::{Offset, Timestamp};

use super::transactions::ProducerId;
use crate::broker::{FetchedRecord, Header, Headers, LogRange};

/// A record as it is stored; shared with those who read it.
#[derive(Debug)]
pub(super) struct RecordData {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<Header>,
    pub(super) timestamp: Timestamp,
}

impl RecordData {
    pub(super) fn at(&self, offset: Offset) -> FetchedRecord<'_> {
        FetchedRecord {
            offset,
            timestamp: Some(self.timestamp),
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: self,
        }
    }
}

impl Headers for RecordData {
    fn to_owned_headers(&self) -> Vec<Header> {
        self.headers.clone()
    }
}

/// A fetched record: its offset and its data.
pub(super) type Fetched = (Offset, Arc<RecordData>);

struct Entry {
    offset: Offset,
    /// `None`: a marker, or a record of an aborted transaction.
    record: Option<Arc<RecordData>>,
}

/// Where a fetch left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    /// The next offset to read; past trailing markers.
    pub(super) next: Offset,
    /// Nothing more to read before the last stable offset.
    pub(super) at_end: bool,
}

/// What keeps a log from growing for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cleanup {
    /// The oldest entries go, and the log's start with them.
    Delete,
    /// Records with a later one of the same key go; the log's start stays. Tombstones go only when [`Log::compact`] is asked to.
    Compact,
}

/// A partition's log.
pub(super) struct Log {
    /// By offset, with gaps where compaction was.
    entries: VecDeque<Entry>,
    start: Offset,
    end: Offset,
    /// Offsets that each open transaction has written.
    open: BTreeMap<ProducerId, Vec<Offset>>,
    cleanup: Cleanup,
    entries_max: usize,
    /// The next clean-up is worth its while from so many entries on.
    clean_at: usize,
}

impl Log {
    pub(super) fn new(cleanup: Cleanup, entries_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            start: Offset(0),
            end: Offset(0),
            open: BTreeMap::new(),
            cleanup,
            entries_max,
            clean_at: entries_max,
        }
    }

    pub(super) fn range(&self) -> LogRange {
        LogRange {
            start: self.start,
            high_watermark: self.end,
            last_stable: self.last_stable(),
        }
    }

    fn last_stable(&self) -> Offset {
        self.open
            .values()
            .filter_map(|offsets| offsets.first())
            .min()
            .copied()
            .unwrap_or(self.end)
    }

    /// Appends a record, of a transaction or of none.
    pub(super) fn append(&mut self, record: RecordData, producer: Option<ProducerId>) -> Offset {
        let offset = self.push(Some(Arc::new(record)));
        if let Some(producer) = producer {
            self.open.entry(producer).or_default().push(offset);
        }
        self.clean();
        offset
    }

    /// Ends a transaction here by its marker. What an aborted one wrote keeps its offsets and is never seen.
    pub(super) fn append_marker(&mut self, producer: ProducerId, committed: bool) {
        let written = self.open.remove(&producer).unwrap_or_default();
        if !committed {
            for offset in written {
                if let Ok(at) = self.entries.binary_search_by_key(&offset, |entry| entry.offset) {
                    self.entries[at].record = None;
                }
            }
        }
        self.push(None);
        self.clean();
    }

    /// Takes up to `max` records that a read-committed reader may see, from `from` on.
    ///
    /// # Errors
    /// In words, when `from` is outside the log.
    pub(super) fn fetch(&self, from: Offset, max: usize, into: &mut Vec<Fetched>) -> Result<Fetch, String> {
        if from < self.start || from > self.end {
            return Err(format!("offset {from} is out of range: the log is from {} to {}", self.start, self.end));
        }
        let (stable, full) = (self.last_stable(), into.len() + max);
        let mut next = from;
        for entry in self.entries.range(self.entries.partition_point(|entry| entry.offset < from)..) {
            if entry.offset >= stable {
                break;
            }
            if into.len() == full {
                return Ok(Fetch { next, at_end: false });
            }
            if let Some(record) = &entry.record {
                into.push((entry.offset, record.clone()));
            }
            next = entry.offset.next();
        }
        Ok(Fetch {
            next: next.max(stable),
            at_end: true,
        })
    }

    /// The offset of the first record with this time or a later one; the end if there is none.
    pub(super) fn offset_at(&self, time: Timestamp) -> Offset {
        let is_as_late = |entry: &&Entry| entry.record.as_ref().is_some_and(|record| record.timestamp >= time);
        self.entries.iter().find(is_as_late).map_or(self.end, |entry| entry.offset)
    }

    fn push(&mut self, record: Option<Arc<RecordData>>) -> Offset {
        let offset = self.end;
        self.entries.push_back(Entry { offset, record });
        self.end = offset.next();
        offset
    }

    fn clean(&mut self) {
        if self.entries.len() <= self.clean_at {
            return;
        }
        match self.cleanup {
            Cleanup::Delete => {
                let stable = self.last_stable();
                while self.entries.len() > self.entries_max && self.entries.front().is_some_and(|entry| entry.offset < stable) {
                    self.entries.pop_front();
                }
                self.start = self.entries.front().map_or(self.end, |entry| entry.offset);
            }
            Cleanup::Compact => {
                self.compact(Timestamp(i64::MIN));
                // Twice what is left: each entry is then looked at a bounded number of times.
                self.clean_at = self.entries_max.max(2 * self.entries.len());
            }
        }
    }

    /// Of the stable records, the latest of each key stay; tombstones only if they were written at `tombstones_from` or later.
    pub(super) fn compact(&mut self, tombstones_from: Timestamp) {
        let stable = self.last_stable();
        let mut seen = BTreeSet::new();
        let mut kept = BTreeSet::new();
        for entry in self.entries.iter().rev() {
            let unstable = entry.offset >= stable;
            let mut latest = || {
                entry.record.as_ref().is_some_and(|record| {
                    let is_latest = record.key.as_ref().is_none_or(|key| seen.insert(key.as_slice()));
                    is_latest && (record.value.is_some() || record.timestamp >= tombstones_from)
                })
            };
            if unstable || latest() {
                kept.insert(entry.offset);
            }
        }
        self.entries.retain(|entry| kept.contains(&entry.offset));
    }
}
