//! Rebuilds one task's range of the store from its changelog partition.

use leeway_topology::ids::{Offset, Timestamp};
use leeway_topology::state::{KeyKind, progress_key};

use crate::broker::LogRange;
use crate::mutation::{Mutation, is};
use crate::state::store::{Batch, StateStore, StoreError, TaskLease};
use crate::task::progress::{Checkpoint, Progress, checkpoint_key};

/// Records are written to the store in batches of about this size.
const RESTORE_BATCH_BYTES: usize = 4 << 20;

/// Where a restore begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestorePlan {
    /// The store is true up to here: read on.
    FromCheckpoint(Checkpoint),
    /// Drop the task's range and read everything that the changelog has.
    FromStart {
        /// Why the store cannot be continued, if it held anything.
        because: Option<String>,
    },
}

/// Decides where a restore begins. `checkpoint_age_ms_max`: tombstones older than `delete.retention.ms` vanish while the log's start stays, so a
/// store older than half of that might keep what was deleted.
#[must_use]
pub fn plan_restore(checkpoint: Option<&Checkpoint>, range: LogRange, now: Timestamp, checkpoint_age_ms_max: i64) -> RestorePlan {
    let Some(checkpoint) = checkpoint else {
        return RestorePlan::FromStart { because: None };
    };
    let Checkpoint {
        changelog_offset,
        committed_at,
    } = checkpoint;
    let age_ms = now.0.saturating_sub(committed_at.0);
    let because = if *changelog_offset < range.start {
        format!("checkpoint {changelog_offset} is before the changelog's start {}", range.start)
    } else if *changelog_offset > range.high_watermark {
        format!(
            "checkpoint {changelog_offset} is beyond the changelog's end {}: the topic was made anew",
            range.high_watermark
        )
    } else if age_ms > checkpoint_age_ms_max && !is(Mutation::OldCheckpoint) {
        format!("the checkpoint is {age_ms} ms old, tombstones are only sure to be there for {checkpoint_age_ms_max} ms")
    } else {
        return RestorePlan::FromCheckpoint(checkpoint.clone());
    };
    RestorePlan::FromStart { because: Some(because) }
}

/// One restore under way. Records are held back until a progress record shows that they are whole; a compacted changelog may hold its only
/// progress record at the very end, so past some megabytes they are written without moving the checkpoint: a crash then reads the same
/// records again, and since values are whole that ends in the same state.
#[derive(Debug)]
pub struct Restore {
    pending: Pending,
    /// Of what was taken since the last write, progress records too.
    taken_bytes: usize,
    /// How many of `pending` the last progress record covers, and what it makes true.
    covered: usize,
    progress: Option<(Vec<u8>, Checkpoint)>,
    records: u64,
    /// The changelog offset after the last record taken.
    next: Offset,
    /// What was deleted before then is not in what was read so far.
    fresh_at: Timestamp,
}

impl Restore {
    /// Begins a restore; for [`RestorePlan::FromStart`] the task's range is dropped first.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn begin(plan: &RestorePlan, range: LogRange, now: Timestamp, store: &StateStore, lease: &TaskLease) -> Result<(Self, Offset), StoreError> {
        let (from, fresh_at) = match plan {
            RestorePlan::FromCheckpoint(checkpoint) => (checkpoint.changelog_offset, checkpoint.committed_at),
            RestorePlan::FromStart { .. } => {
                let mut batch = Batch::new();
                batch.clear(lease);
                store.write(batch)?;
                (range.start, now)
            }
        };
        Ok((
            Self {
                pending: Pending::default(),
                taken_bytes: 0,
                covered: 0,
                progress: None,
                records: 0,
                next: from,
                fresh_at,
            },
            from,
        ))
    }

    /// Takes the next record of the changelog.
    ///
    /// # Errors
    /// When the store cannot be written, or a progress record is damaged.
    pub fn apply(&mut self, offset: Offset, key: &[u8], value: Option<&[u8]>, store: &StateStore, lease: &TaskLease) -> Result<(), StoreError> {
        self.records += 1;
        self.next = offset.next();
        self.taken_bytes += key.len() + value.map_or(0, <[u8]>::len);
        if key.first() == Some(&(KeyKind::Progress as u8))
            && let Some(bytes) = value
        {
            let progress =
                Progress::from_bytes(bytes).map_err(|e| StoreError::Corrupted(format!("changelog offset {offset}: progress record: {e}")))?;
            self.covered = self.pending.places.len();
            self.fresh_at = self.fresh_at.max(progress.committed_at);
            self.progress = Some((
                bytes.to_vec(),
                Checkpoint {
                    changelog_offset: offset.next(),
                    committed_at: progress.committed_at,
                },
            ));
        } else if !(is(Mutation::LostPane) && key.first() == Some(&(KeyKind::Pane as u8)) && key.ends_with(&[3])) {
            self.pending.push(key, value);
        }
        if self.taken_bytes >= RESTORE_BATCH_BYTES {
            if self.progress.is_none() {
                self.covered = self.pending.places.len();
            }
            self.write(store, lease)?;
        }
        Ok(())
    }

    /// Whether tombstones of what comes next may be gone: the last thing read is older than they are sure to be there. Then what comes is not to be
    /// taken; only a restore from the start knows what was deleted. (A checkpoint is asked the same before it is continued.)
    #[must_use]
    pub fn is_outlived(&self, now: Timestamp, checkpoint_age_ms_max: i64) -> bool {
        now.0.saturating_sub(self.fresh_at.0) > checkpoint_age_ms_max && !is(Mutation::OldCheckpoint)
    }

    /// Offsets that are still to be read before `end`: at least as many as there are records, since markers and what was compacted away count too.
    #[must_use]
    pub fn remaining(&self, end: Offset) -> u64 {
        u64::try_from(end.0.saturating_sub(self.next.0)).unwrap_or_default()
    }

    /// Writes the epochs that are whole by now; nothing where there is none.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn write_whole(&mut self, store: &StateStore, lease: &TaskLease) -> Result<(), StoreError> {
        if self.progress.is_some() { self.write(store, lease) } else { Ok(()) }
    }

    /// Ends the restore at the changelog's end and gives the number of records read. What follows the last progress record is no whole epoch.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn finish(mut self, store: &StateStore, lease: &TaskLease) -> Result<u64, StoreError> {
        self.write(store, lease)?;
        Ok(self.records)
    }

    fn write(&mut self, store: &StateStore, lease: &TaskLease) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for (key, value) in self.pending.latest(self.covered) {
            batch.put(lease, key, value);
        }
        if let Some((progress, checkpoint)) = self.progress.take() {
            batch.put(lease, &progress_key(), Some(&progress));
            batch.put(lease, &checkpoint_key(), Some(&checkpoint.to_bytes()));
        }
        self.pending.forget(self.covered);
        self.covered = 0;
        self.taken_bytes = self.pending.bytes.len();
        store.write(batch)
    }
}

/// Records that are held back, in the changelog's order, one after another in one buffer: no allocation for each.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a record stands: it begins where the one before ends.
#[derive(Debug)]
struct Place {
    key_end: usize,
    end: usize,
    is_tombstone: bool,
}

impl Pending {
    fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.places.push(Place {
            key_end,
            end: self.bytes.len(),
            is_tombstone: value.is_none(),
        });
    }

    /// Of the first so many records the last one of each key, by key. Values are whole, so what came before it means nothing; and RocksDB finds the place
    /// of a key beside the one before at once, while any order costs it a search for each.
    fn latest(&self, records: usize) -> Vec<(&[u8], Option<&[u8]>)> {
        let mut from = 0;
        let mut latest: Vec<(&[u8], Option<&[u8]>)> = self.places[..records]
            .iter()
            .map(|place| {
                let (key, value) = (&self.bytes[from..place.key_end], &self.bytes[place.key_end..place.end]);
                from = place.end;
                (key, (!place.is_tombstone).then_some(value))
            })
            .collect();
        // Stable: of equal keys the last one stays the last.
        latest.sort_by_key(|(key, _)| *key);
        latest
            .chunk_by(|(one, _), (next, _)| one == next)
            .filter_map(|of_key| of_key.last().copied())
            .collect()
    }

    /// Drops the first so many records, and gives back their memory: a standby may wait for the next ones forever.
    fn forget(&mut self, records: usize) {
        let cut = records.checked_sub(1).map_or(0, |last| self.places[last].end);
        self.bytes.drain(..cut);
        self.places.drain(..records);
        for place in &mut self.places {
            place.key_end -= cut;
            place.end -= cut;
        }
        self.bytes.shrink_to_fit();
        self.places.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use leeway_topology::ids::Partition;

    use super::*;
    use crate::state::store::TaskRange;

    const RANGE: LogRange = LogRange {
        start: Offset(900),
        high_watermark: Offset(2000),
        last_stable: Offset(2000),
    };

    fn checkpoint(offset: i64, committed_at: i64) -> Checkpoint {
        Checkpoint {
            changelog_offset: Offset(offset),
            committed_at: Timestamp(committed_at),
        }
    }

    fn reason(plan: RestorePlan) -> String {
        match plan {
            RestorePlan::FromStart { because } => because.unwrap_or_default(),
            RestorePlan::FromCheckpoint(checkpoint) => panic!("continued from {checkpoint:?}"),
        }
    }

    #[test]
    fn restore_that_stands_still_longer_than_tombstones_last_is_outlived() {
        let store = StateStore::in_memory();
        let range = TaskRange {
            store: "s".into(),
            partition: Partition(0),
        };
        let lease = store.lease(range).unwrap();
        let from_checkpoint = RestorePlan::FromCheckpoint(checkpoint(1500, 10_000));
        let (restore, _) = Restore::begin(&from_checkpoint, RANGE, Timestamp(10_500), &store, &lease).unwrap();
        assert!(!restore.is_outlived(Timestamp(11_000), 1_000));
        assert!(restore.is_outlived(Timestamp(11_001), 1_000));

        let from_start = RestorePlan::FromStart { because: None };
        let (mut restore, _) = Restore::begin(&from_start, RANGE, Timestamp(50_000), &store, &lease).unwrap();
        assert!(
            !restore.is_outlived(Timestamp(51_000), 1_000),
            "from the start on it has seen what there is"
        );
        let progress = |committed_at| Progress {
            next_offset: Offset(1),
            record_number: 1,
            stream_time: None,
            epoch: 1,
            committed_at: Timestamp(committed_at),
        };
        for (offset, committed_at) in [(900, 20_000), (901, 60_000)] {
            let bytes = progress(committed_at).to_bytes();
            restore.apply(Offset(offset), &progress_key(), Some(&bytes), &store, &lease).unwrap();
        }
        assert!(!restore.is_outlived(Timestamp(61_000), 1_000), "it goes on with what it reads");
        assert!(restore.is_outlived(Timestamp(61_001), 1_000));
    }

    #[test]
    fn last_record_of_a_key_counts_and_what_follows_the_progress_waits_for_the_next() {
        let store = StateStore::in_memory();
        let range = TaskRange {
            store: "s".into(),
            partition: Partition(0),
        };
        let lease = store.lease(range).unwrap();
        let progress = Progress {
            next_offset: Offset(1),
            record_number: 1,
            stream_time: None,
            epoch: 1,
            committed_at: Timestamp(0),
        };
        let (mut restore, from) = Restore::begin(&RestorePlan::FromStart { because: None }, RANGE, Timestamp(0), &store, &lease).unwrap();
        let mut offset = from;
        let mut take = |restore: &mut Restore, records: &[(&[u8], Option<&[u8]>)]| {
            for (key, value) in records
                .iter()
                .copied()
                .chain([(progress_key().as_slice(), Some(progress.to_bytes().as_slice()))])
            {
                restore.apply(offset, key, value, &store, &lease).unwrap();
                offset = offset.next();
            }
        };
        let held = |key: &[u8]| lease.get(key).unwrap();

        take(
            &mut restore,
            &[
                (b"k2", Some(b"old")),
                (b"k1", Some(b"1")),
                (b"k3", Some(b"gone")),
                (b"k2", None),
                (b"k2", Some(b"new")),
                (b"k3", None),
            ],
        );
        restore.apply(Offset(950), b"k1", Some(b"later"), &store, &lease).unwrap();
        restore.apply(Offset(951), b"k4", Some(b""), &store, &lease).unwrap();
        restore.write_whole(&store, &lease).unwrap();
        assert_eq!(
            (held(b"k1"), held(b"k2"), held(b"k3")),
            (Some(b"1".to_vec()), Some(b"new".to_vec()), None)
        );
        assert_eq!(held(b"k4"), None, "its epoch is not whole yet");

        take(&mut restore, &[(b"k5", Some(b"5"))]);
        restore.apply(Offset(960), b"k6", Some(b"6"), &store, &lease).unwrap();
        restore.finish(&store, &lease).unwrap();
        assert_eq!((held(b"k1"), held(b"k4")), (Some(b"later".to_vec()), Some(Vec::new())));
        assert_eq!((held(b"k5"), held(b"k6")), (Some(b"5".to_vec()), None));
    }

    #[test]
    fn a_checkpoint_within_the_log_is_continued() {
        let plan = plan_restore(Some(&checkpoint(1500, 10_000)), RANGE, Timestamp(10_500), 1_000);
        assert_eq!(plan, RestorePlan::FromCheckpoint(checkpoint(1500, 10_000)));
    }

    #[test]
    fn an_empty_store_is_restored_from_the_start() {
        assert_eq!(plan_restore(None, RANGE, Timestamp(0), 1_000), RestorePlan::FromStart { because: None });
    }

    #[test]
    fn a_checkpoint_outside_the_log_is_not_continued_and_says_both_numbers() {
        assert_eq!(
            reason(plan_restore(Some(&checkpoint(412, 0)), RANGE, Timestamp(0), 1_000)),
            "checkpoint 412 is before the changelog's start 900"
        );
        assert!(reason(plan_restore(Some(&checkpoint(2001, 0)), RANGE, Timestamp(0), 1_000)).contains("beyond the changelog's end 2000"));
    }

    #[test]
    fn a_checkpoint_older_than_the_tombstones_is_not_continued() {
        assert!(reason(plan_restore(Some(&checkpoint(1500, 0)), RANGE, Timestamp(1_001), 1_000)).contains("1001 ms old"));
    }
}
