//! Rebuilds one task's range of the store from its changelog partition.

use std::ops::ControlFlow;

use leeway_topology::ids::{Offset, Timestamp};
use leeway_topology::state::{KeyKind, progress_key};

use super::pending::Pending;
use crate::broker::LogRange;
use crate::mutation::{Mutation, is};
use crate::state::store::{Batch, StateStore, StoreError, TaskLease};
use crate::task::progress::{Checkpoint, Progress, checkpoint_key};

/// What the restores of one thread hold back at most, all together, unless there are very many. The more it is, the fewer are the writes of a key, and the files.
const RESTORES_BYTES: usize = 32 << 20;

/// What each may hold back however many there are.
const RESTORE_BYTES_MIN: usize = 512 << 10;

/// What is less goes through the WAL: many small tables take more to compact than they save.
const LOAD_BYTES_MIN: usize = 4 << 20;

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

impl RestorePlan {
    /// Where it begins in a changelog of this range.
    fn begins_at(&self, range: LogRange) -> Offset {
        match self {
            Self::FromCheckpoint(checkpoint) => checkpoint.changelog_offset,
            Self::FromStart { .. } => range.start,
        }
    }

    /// Offsets that it reads at most: to the stable end of this range.
    #[must_use]
    pub fn offsets(&self, range: LogRange) -> u64 {
        offsets(self.begins_at(range), range.last_stable)
    }
}

fn offsets(from: Offset, end: Offset) -> u64 {
    u64::try_from(end.0.saturating_sub(from.0)).unwrap_or_default()
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

/// What each of so many restores of one thread may hold back, bytes.
#[must_use]
pub fn restore_share(restores: usize) -> usize {
    (RESTORES_BYTES / restores.max(1)).max(RESTORE_BYTES_MIN)
}

/// One restore under way. Records are held back until a progress record shows that they are whole; a compacted changelog may hold its only
/// progress record at the very end, so past some megabytes they are written without moving the checkpoint: a crash then reads the same
/// records again, and since values are whole that ends in the same state.
#[derive(Debug)]
pub struct Restore {
    pending: Pending,
    /// How many of `pending` are whole: up to the last progress record, with the checkpoint that it makes true.
    whole: usize,
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
        let from = plan.begins_at(range);
        let fresh_at = match plan {
            RestorePlan::FromCheckpoint(checkpoint) => checkpoint.committed_at,
            RestorePlan::FromStart { .. } => {
                clear(store, lease)?;
                now
            }
        };
        Ok((
            Self {
                pending: Pending::default(),
                whole: 0,
                records: 0,
                next: from,
                fresh_at,
            },
            from,
        ))
    }

    /// Takes the next record of the changelog. `share`: what may be held back ([`restore_share`]).
    ///
    /// # Errors
    /// When the store cannot be written, or a progress record is damaged.
    pub fn apply(
        &mut self,
        offset: Offset,
        key: &[u8],
        value: Option<&[u8]>,
        share: usize,
        store: &StateStore,
        lease: &TaskLease,
    ) -> Result<(), StoreError> {
        self.records += 1;
        self.next = offset.next();
        if key.first() == Some(&(KeyKind::Progress as u8))
            && let Some(bytes) = value
        {
            let progress =
                Progress::from_bytes(bytes).map_err(|e| StoreError::Corrupted(format!("changelog offset {offset}: progress record: {e}")))?;
            self.fresh_at = self.fresh_at.max(progress.committed_at);
            let checkpoint = Checkpoint {
                changelog_offset: offset.next(),
                committed_at: progress.committed_at,
            };
            self.pending.push(&progress_key(), Some(bytes));
            self.pending.push(&checkpoint_key(), Some(&checkpoint.to_bytes()));
            self.whole = self.pending.len();
        } else if !(is(Mutation::LostPane) && key.first() == Some(&(KeyKind::Pane as u8)) && key.ends_with(&[3])) {
            self.pending.push(key, value);
        }
        if self.pending.bytes() >= share {
            let records = if self.whole == 0 { self.pending.len() } else { self.whole };
            self.load(records, store, lease)?;
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
        offsets(self.next, end)
    }

    /// Writes the epochs that are whole by now: of somebody who follows a changelog, again and again.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn write_whole(&mut self, store: &StateStore, lease: &TaskLease) -> Result<(), StoreError> {
        self.write(self.whole, store, lease)
    }

    /// Ends the restore at the changelog's end and gives the number of records read. What follows the last progress record is no whole epoch.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn finish(mut self, store: &StateStore, lease: &TaskLease) -> Result<u64, StoreError> {
        self.load(self.whole, store, lease)?;
        Ok(self.records)
    }

    /// Writes the first so many of what is pending through the WAL, which gathers the small writes of many tasks in one table.
    fn write(&mut self, records: usize, store: &StateStore, lease: &TaskLease) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for (key, value) in self.pending.latest(records) {
            batch.put(lease, key, value);
        }
        store.write(batch)?;
        self.forget(records);
        Ok(())
    }

    /// The same of a restore that may have much: as a table of its own.
    fn load(&mut self, records: usize, store: &StateStore, lease: &TaskLease) -> Result<(), StoreError> {
        if self.pending.bytes() < LOAD_BYTES_MIN {
            return self.write(records, store, lease);
        }
        store.load(lease, self.pending.latest(records))?;
        self.forget(records);
        Ok(())
    }

    fn forget(&mut self, records: usize) {
        self.pending.forget(records);
        self.whole = 0;
    }
}

/// Drops what the task has, if anything: where there is nothing, a load need not wait until that is in a table.
fn clear(store: &StateStore, lease: &TaskLease) -> Result<(), StoreError> {
    let mut is_empty = true;
    let seen = lease.for_each(|_, _| {
        is_empty = false;
        ControlFlow::Break(())
    });
    match seen {
        Ok(()) if is_empty => Ok(()),
        // Dropping it does not read it.
        Ok(()) | Err(StoreError::Corrupted(_)) => {
            let mut batch = Batch::new();
            batch.clear(lease);
            store.write(batch)
        }
        Err(error) => Err(error),
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

    const SHARE: usize = 2 * LOAD_BYTES_MIN;

    fn checkpoint(offset: i64, committed_at: i64) -> Checkpoint {
        Checkpoint {
            changelog_offset: Offset(offset),
            committed_at: Timestamp(committed_at),
        }
    }

    /// A progress record's value.
    fn progress(committed_at: i64) -> Vec<u8> {
        Progress {
            next_offset: Offset(1),
            record_number: 1,
            stream_time: None,
            epoch: 1,
            committed_at: Timestamp(committed_at),
        }
        .to_bytes()
    }

    /// A task without state.
    fn task() -> (StateStore, TaskLease) {
        let store = StateStore::in_memory();
        let range = TaskRange {
            store: "s".into(),
            partition: Partition(0),
        };
        let lease = store.lease(range).unwrap();
        (store, lease)
    }

    fn reason(plan: RestorePlan) -> String {
        match plan {
            RestorePlan::FromStart { because } => because.unwrap_or_default(),
            RestorePlan::FromCheckpoint(checkpoint) => panic!("continued from {checkpoint:?}"),
        }
    }

    #[test]
    fn restore_that_stands_still_longer_than_tombstones_last_is_outlived() {
        let (store, lease) = task();
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
        for (offset, committed_at) in [(900, 20_000), (901, 60_000)] {
            let bytes = progress(committed_at);
            restore
                .apply(Offset(offset), &progress_key(), Some(&bytes), SHARE, &store, &lease)
                .unwrap();
        }
        assert!(!restore.is_outlived(Timestamp(61_000), 1_000), "it goes on with what it reads");
        assert!(restore.is_outlived(Timestamp(61_001), 1_000));
    }

    #[test]
    fn last_record_of_a_key_counts_and_what_follows_the_progress_waits_for_the_next() {
        let (store, lease) = task();
        let (mut restore, from) = Restore::begin(&RestorePlan::FromStart { because: None }, RANGE, Timestamp(0), &store, &lease).unwrap();
        let mut offset = from;
        let mut take = |restore: &mut Restore, records: &[(&[u8], Option<&[u8]>)]| {
            for (key, value) in records.iter().copied().chain([(progress_key().as_slice(), Some(progress(0).as_slice()))]) {
                restore.apply(offset, key, value, SHARE, &store, &lease).unwrap();
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
        restore.apply(Offset(950), b"k1", Some(b"later"), SHARE, &store, &lease).unwrap();
        restore.apply(Offset(951), b"k4", Some(b""), SHARE, &store, &lease).unwrap();
        restore.write_whole(&store, &lease).unwrap();
        assert_eq!(
            (held(b"k1"), held(b"k2"), held(b"k3")),
            (Some(b"1".to_vec()), Some(b"new".to_vec()), None)
        );
        assert_eq!(held(b"k4"), None, "its epoch is not whole yet");

        take(&mut restore, &[(b"k5", Some(b"5"))]);
        restore.apply(Offset(960), b"k6", Some(b"6"), SHARE, &store, &lease).unwrap();
        restore.finish(&store, &lease).unwrap();
        assert_eq!((held(b"k1"), held(b"k4")), (Some(b"later".to_vec()), Some(Vec::new())));
        assert_eq!((held(b"k5"), held(b"k6")), (Some(b"5".to_vec()), None));
    }

    #[test]
    fn what_is_past_the_share_is_written_and_moves_the_checkpoint_only_as_far_as_epochs_are_whole() {
        let (store, lease) = task();
        let (mut restore, _) = Restore::begin(&RestorePlan::FromStart { because: None }, RANGE, Timestamp(0), &store, &lease).unwrap();
        let stored = || Some(Checkpoint::from_bytes(&lease.get(&checkpoint_key()).unwrap()?).unwrap().changelog_offset);
        let large = vec![7; SHARE / 2];
        let mut take = |offset, key: &[u8], value: &[u8]| restore.apply(Offset(offset), key, Some(value), SHARE, &store, &lease).unwrap();

        take(900, b"k1", &large);
        assert_eq!(lease.get(b"k1").unwrap(), None, "held back");
        take(901, b"k2", &large);
        assert!(lease.get(b"k1").unwrap().is_some() && lease.get(b"k2").unwrap().is_some());
        assert_eq!(stored(), None, "no epoch was whole");

        take(902, b"k3", &large);
        take(903, &progress_key(), &progress(0));
        take(904, b"k4", &large);
        assert!(lease.get(b"k3").unwrap().is_some());
        assert_eq!(
            (stored(), lease.get(b"k4").unwrap()),
            (Some(Offset(904)), None),
            "its epoch is not whole yet"
        );
    }

    #[test]
    fn restores_of_a_thread_share_what_they_hold_back() {
        assert_eq!(restore_share(1), RESTORES_BYTES);
        assert_eq!(restore_share(4) * 4, RESTORES_BYTES);
        assert_eq!(restore_share(10_000), RESTORE_BYTES_MIN);
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
