//! Warm standbys: copies of the state of tasks that run elsewhere, so that this instance can take them over without a restore.
//!
//! ```text
//! waiting --lease is free--> asked (the changelog's range) --> following: every whole epoch goes into the store
//!    ^                                                              |
//!    \--a stream thread wants the lease: what is pending is written, the lease dropped--/
//! ```
//!
//! One thread per process follows the changelogs of all tasks whose lease it can get, that is of all that no stream thread of this process has. The
//! task that takes over continues from the checkpoint that is found, as after a restart, with the same checks.
//!
//! Invariants:
//! - A task's keys have one holder: the standby holds the lease as long as it follows, and gives it up as soon as a stream thread asks.
//! - Only whole epochs move the checkpoint; so a copy is what some earlier commit left, never something in between.
//! - What was deleted is deleted in the copy: one that was not continued for so long that tombstones may be gone begins anew.
//! - Memory is bounded: what waits for the end of its epoch is written past 32 MiB in all, or half a MiB for each copy where that is more.
//!
//! Not here: who takes over. The group's assignor does not know of copies; with standbys on every instance, each has one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::ids::Partition;
use tracing::{debug, info, warn};

use crate::broker::{ClientEvent, LogRange, StreamClient, TopicPartition};
use crate::changelog::{Restore, RestorePlan, plan_restore, restore_share};
use crate::state::store::{StoreError, TaskLease, TaskRange};
use crate::stream_thread::{Now, ThreadContext};
use crate::task::SubTopology;
use crate::task::progress::{Checkpoint, checkpoint_key};

/// A task whose lease somebody has is looked at again after this long; what a stream thread wanted or a store refused, too.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How often whole epochs are written to the store, and the lag is asked for.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Changelog records taken in one step.
const RECORDS_PER_POLL: usize = 4096;

/// The copies of one process.
pub struct StandbyThread<C> {
    client: C,
    context: Arc<ThreadContext>,
    /// By changelog partition.
    copies: BTreeMap<TopicPartition, Copy>,
    written: Duration,
}

/// One task's copy.
struct Copy {
    sub_topology: Arc<SubTopology>,
    partition: Partition,
    phase: Phase,
}

enum Phase {
    /// Somebody has the lease, or it failed; from when on to try.
    Waiting { from: Duration, from_start: bool },
    /// The changelog's range is asked for.
    Asked { lease: TaskLease, from_start: bool },
    /// As a restore that does not end. `at_end`: nothing was there to read last time.
    Following { lease: TaskLease, restore: Restore, at_end: bool },
}

impl Copy {
    fn range(&self) -> TaskRange {
        TaskRange {
            store: self.sub_topology.store.clone(),
            partition: self.partition,
        }
    }

    /// The lease is dropped.
    fn wait(&mut self, now: Now, from_start: bool) {
        self.phase = Phase::Waiting {
            from: now.elapsed + AGAIN_AFTER,
            from_start,
        };
    }
}

impl<C: StreamClient> StandbyThread<C> {
    /// Copies of all tasks of the application. The client joins no group and makes no producer.
    pub fn new(client: C, context: Arc<ThreadContext>) -> Self {
        let mut copies = BTreeMap::new();
        for sub_topology in context.sub_topologies.values() {
            for number in 0..sub_topology.partitions {
                let partition = Partition(i32::try_from(number).unwrap_or(i32::MAX));
                copies.insert(
                    TopicPartition::new(sub_topology.changelog.clone(), partition),
                    Copy {
                        sub_topology: sub_topology.clone(),
                        partition,
                        phase: Phase::Waiting {
                            from: Duration::ZERO,
                            from_start: false,
                        },
                    },
                );
            }
        }
        Self {
            client,
            context,
            copies,
            written: Duration::ZERO,
        }
    }

    /// One turn of the loop; says whether there was something to do. Never blocks.
    pub fn step(&mut self, now: Now) -> bool {
        let mut busy = false;
        while let Some(event) = self.client.next_event() {
            busy = true;
            match event {
                ClientEvent::LogRange(changelog, range) => self.on_log_range(&changelog, range, now),
                ClientEvent::PartitionError { partition, reason } => {
                    warn!(changelog = %partition, reason, "standby cannot read its changelog; trying again from its start");
                    self.give_up(&partition, now, true);
                }
                ClientEvent::RestoreEnd(changelog) => {
                    if let Some(Copy {
                        phase: Phase::Following { at_end, .. },
                        ..
                    }) = self.copies.get_mut(&changelog)
                    {
                        *at_end = true;
                    }
                }
                ClientEvent::Connection { down, reason } => debug!(down, reason, "standby"),
                // Nothing else is asked for.
                _ => {}
            }
        }
        self.make_room(now);
        self.begin(now);
        let taken = self.follow(now);
        if now.elapsed >= self.written + WRITE_EVERY {
            self.written = now.elapsed;
            self.write(now);
        }
        busy || taken > 0
    }

    /// Sleeps until there may be something to do.
    pub fn wait(&mut self, timeout: Duration) {
        self.client.wait(timeout);
    }

    /// Writes what is whole and drops the leases.
    pub fn close(mut self, now: Now, timeout: Duration) {
        self.write(now);
        self.copies.clear();
        self.client.close(timeout);
    }

    /// How many copies follow their changelogs.
    #[must_use]
    pub fn following(&self) -> usize {
        self.copies.values().filter(|copy| matches!(copy.phase, Phase::Following { .. })).count()
    }

    /// A stream thread that wants a task gets it at once.
    fn make_room(&mut self, now: Now) {
        for task in self.context.store.take_wanted() {
            let Some((changelog, copy)) = self.copies.iter_mut().find(|(_, copy)| copy.range() == task) else {
                continue;
            };
            if let Phase::Following { lease, restore, .. } = &mut copy.phase {
                if let Err(error) = restore.write_whole(&self.context.store, lease) {
                    warn!(%task, %error, "the standby's last epochs are not in the store; they are read again");
                }
                info!(%task, "standby gives its copy to a stream thread");
                self.client.stop_restore(changelog);
                self.context.metrics.standby_ended(&copy.sub_topology.topic, copy.partition);
            }
            copy.wait(now, false);
        }
    }

    fn begin(&mut self, now: Now) {
        for (changelog, copy) in &mut self.copies {
            let range = copy.range();
            if let Phase::Waiting { from, from_start } = &mut copy.phase
                && now.elapsed >= *from
            {
                match self.context.store.lease_if_unwanted(range) {
                    Some(lease) => {
                        copy.phase = Phase::Asked {
                            lease,
                            from_start: *from_start,
                        };
                        self.client.fetch_log_range(changelog);
                    }
                    None => *from = now.elapsed + AGAIN_AFTER,
                }
            }
        }
    }

    /// The answer to the question of a copy that begins, or of the lag of one that follows.
    fn on_log_range(&mut self, changelog: &TopicPartition, range: LogRange, now: Now) {
        let Some(copy) = self.copies.get_mut(changelog) else { return };
        match &copy.phase {
            Phase::Waiting { .. } => {}
            Phase::Following { restore, at_end, .. } => {
                // The last offsets of a changelog are markers, which nobody reads.
                let lag = if *at_end { 0 } else { restore.remaining(range.last_stable) };
                self.context.metrics.standby_lag(&copy.sub_topology.topic, copy.partition, lag);
            }
            Phase::Asked { lease, from_start } => {
                let begun = checkpoint(lease).and_then(|checkpoint| {
                    let checkpoint = checkpoint.filter(|_| !from_start);
                    let plan = plan_restore(checkpoint.as_ref(), range, now.wall, copy.sub_topology.checkpoint_age_ms_max);
                    if let RestorePlan::FromStart { because: Some(because) } = &plan {
                        warn!(%changelog, %because, "the copy is not continued; standby begins at the changelog's start");
                    }
                    Restore::begin(&plan, range, now.wall, &self.context.store, lease)
                });
                match begun {
                    Ok((restore, from)) => {
                        self.client.start_restore(changelog, from);
                        let waiting = Phase::Waiting {
                            from: now.elapsed,
                            from_start: false,
                        };
                        if let Phase::Asked { lease, .. } = std::mem::replace(&mut copy.phase, waiting) {
                            copy.phase = Phase::Following {
                                lease,
                                restore,
                                at_end: false,
                            };
                        }
                    }
                    Err(error) => {
                        warn!(%changelog, %error, "standby cannot write; trying again");
                        copy.wait(now, false);
                    }
                }
            }
        }
    }

    fn follow(&mut self, now: Now) -> usize {
        let share = restore_share(self.following());
        let Self { client, copies, context, .. } = self;
        let mut failed: BTreeMap<TopicPartition, StoreError> = BTreeMap::new();
        let mut outlived: BTreeSet<TopicPartition> = BTreeSet::new();
        let taken = client.poll_restore(RECORDS_PER_POLL, &mut |changelog, record| {
            if let Some(Copy {
                phase: Phase::Following { lease, restore, at_end },
                sub_topology,
                ..
            }) = copies.get_mut(changelog)
            {
                *at_end = false;
                if outlived.contains(changelog) || restore.is_outlived(now.wall, sub_topology.checkpoint_age_ms_max) {
                    outlived.insert(changelog.clone());
                } else if !failed.contains_key(changelog)
                    && let Some(key) = record.key
                    && let Err(error) = restore.apply(record.offset, key, record.value, share, &context.store, lease)
                {
                    failed.insert(changelog.clone(), error);
                }
            }
        });
        for (changelog, error) in failed {
            self.on_failure(&changelog, &error, now);
        }
        for changelog in outlived {
            info!(%changelog, "the copy was not continued for so long that tombstones may be gone; standby begins at the changelog's start");
            self.give_up(&changelog, now, true);
        }
        taken
    }

    fn write(&mut self, now: Now) {
        let mut failed = Vec::new();
        for (changelog, copy) in &mut self.copies {
            if let Phase::Following { lease, restore, .. } = &mut copy.phase {
                match restore.write_whole(&self.context.store, lease) {
                    Ok(()) => self.client.fetch_log_range(changelog),
                    Err(error) => failed.push((changelog.clone(), error)),
                }
            }
        }
        for (changelog, error) in failed {
            self.on_failure(&changelog, &error, now);
        }
    }

    /// A store that does not accept writes is tried again; damage is dropped, and read anew.
    fn on_failure(&mut self, changelog: &TopicPartition, error: &StoreError, now: Now) {
        warn!(%changelog, %error, "standby failed; trying again");
        self.give_up(changelog, now, matches!(error, StoreError::Corrupted(_)));
    }

    fn give_up(&mut self, changelog: &TopicPartition, now: Now, from_start: bool) {
        if let Some(copy) = self.copies.get_mut(changelog) {
            self.client.stop_restore(changelog);
            self.context.metrics.standby_ended(&copy.sub_topology.topic, copy.partition);
            copy.wait(now, from_start);
        }
    }
}

/// What cannot be read is as good as nothing.
fn checkpoint(lease: &TaskLease) -> Result<Option<Checkpoint>, StoreError> {
    match lease.get(&checkpoint_key()) {
        Err(StoreError::Corrupted(_)) => Ok(None),
        other => Ok(other?.and_then(|bytes| Checkpoint::from_bytes(&bytes).ok())),
    }
}
