//! The hot path: records of running tasks into the open epoch.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use leeway_topology::event::Event;
use leeway_topology::ids::Partition;
use leeway_topology::processor::{Disposition, Monitor, Outputs};
use leeway_topology::record::{InputRecord, Rejected};
use leeway_topology::repartition::ShippedPane;
use leeway_topology::state::StateError;
use tracing::{info, warn};

use super::{Now, Producer, StreamThread, ThreadContext, ThreadError};
use crate::broker::{OutRecord, StreamClient, partitioner};
use crate::epoch::OpenEpoch;
use crate::state::store::{Batch, TaskLease};
use crate::task::progress::checkpoint_key;
use crate::task::{RepartitionSink, Role, Running, SubTopology, Task, TaskId};

/// Records that one task may take in one step: a few hundred microseconds of work, so that events are served often and tasks share fairly.
const RECORDS_PER_POLL: usize = 512;

/// How often an idle task is asked whether windows are to be closed.
const ASK_IDLE_EVERY: Duration = Duration::from_secs(1);

/// An epoch is sealed early when its outputs and changed state reach this many bytes, so that a transaction stays far below the producer's queue.
pub(super) const EPOCH_BYTES_MAX: usize = 4 << 20;

impl<C: StreamClient> StreamThread<C> {
    /// Lets every running task take a batch. Nothing is taken while an outcome is judged, a revocation is answered or the thread stops.
    pub(super) fn process(&mut self, now: Now) -> Result<bool, ThreadError> {
        let may_process = matches!(self.producer, Producer::Ready | Producer::Committing(_)) && self.revoking.is_none() && !self.stopping;
        if !may_process || !self.tasks.values_mut().any(|task| task.running().is_some()) || !self.open_epoch(now)? {
            return Ok(false);
        }
        let mut taken = 0;
        let mut unflushed = self.unflushed_bytes();
        let Self {
            client,
            tasks,
            open: Some(epoch),
            epoch_bytes_max,
            context,
            references_seen,
            ..
        } = self
        else {
            return Ok(false);
        };
        for (input, task) in tasks.iter_mut() {
            let (mut backwards, mut waits, mut failed) = (None, None, None);
            let Task {
                phase: crate::task::Phase::Running(running),
                id,
                sub_topology,
                metrics,
                lease: Some(lease),
                ..
            } = task
            else {
                continue;
            };
            // Of all tasks together: they share a transaction.
            unflushed -= running.processor.unflushed_bytes();
            let room = EpochRoom {
                bytes_max: epoch_bytes_max.saturating_sub(unflushed),
                context,
                sub_topology,
                lease,
            };
            if room.is_full(epoch, running) {
                break;
            }
            if running.waits_since == Some(*references_seen) {
                continue;
            }
            // What the last epoch had no room for, or the last owner.
            if let Err(error) = room.check(epoch, running) {
                return Err(failure(*id, &error, lease, context));
            }
            if running.processor.is_check_due() {
                break;
            }
            let polled = client.poll(input, RECORDS_PER_POLL, &mut |record| {
                if record.offset < running.next_offset {
                    backwards = Some((record.offset, running.next_offset));
                    return ControlFlow::Break(());
                }
                let taking = InputRecord {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                };
                let disposition = match running.processor.process(&taking, room.lease) {
                    Ok(disposition) => disposition,
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                };
                if let Disposition::Waiting { monitor, version } = disposition {
                    waits = Some((monitor, version));
                    return ControlFlow::Break(());
                }
                running.next_offset = record.offset.next();
                running.dirty = true;
                metrics.consumed += 1;
                let check_due = disposition.is_check_due();
                match disposition {
                    Disposition::Processed { .. } => metrics.processed += 1,
                    Disposition::Late { monitor, .. } => {
                        metrics.processed += 1;
                        let late = Rejected::Late {
                            monitor: monitor.to_string(),
                        };
                        context.metrics.dead_letter(&input.topic, late.reason());
                        epoch.push(sub_topology.dead_letters.dead_letter(input, &record, &late));
                    }
                    Disposition::Tombstone => metrics.tombstones += 1,
                    Disposition::Foreign | Disposition::Waiting { .. } => {}
                    Disposition::Rejected(rejected) => {
                        context.metrics.dead_letter(&input.topic, rejected.reason());
                        epoch.push(sub_topology.dead_letters.dead_letter(input, &record, &rejected));
                    }
                }
                if check_due && let Err(error) = room.check(epoch, running) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                if room.is_full(epoch, running) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            if let Some(error) = failed {
                return Err(failure(*id, &error, lease, context));
            }
            taken += polled;
            let waited = running.waits_since.take().is_some();
            if let Some((monitor, version)) = waits {
                running.waits_since = Some(*references_seen);
                if !waited {
                    warn!(task = %id, %monitor, %version, "a pane was measured by a reference that is not known here yet; waiting for it");
                }
                // It was taken out of the client's queue.
                client.start(input, running.next_offset);
            }
            if polled > 0 {
                running.active_at = now.elapsed;
            } else if client.is_at_end(input) && running.close_idle(*id, sub_topology, now.elapsed) {
                running.dirty = true;
                if let Err(error) = room.check(epoch, running) {
                    return Err(failure(*id, &error, lease, context));
                }
            }
            unflushed += running.processor.unflushed_bytes();
            if let Some((found, expected)) = backwards {
                // Nothing of it is committed: a new thread with a new client reads again from what is.
                return Err(ThreadError::Failed(format!(
                    "{input}: offset {found} was given after {expected} was next: the client went backwards"
                )));
            }
        }
        Ok(taken > 0)
    }

    /// Bytes of changed state that the open epoch will have, about: as far as segments make them many.
    pub(super) fn unflushed_bytes(&mut self) -> usize {
        let running = self.tasks.values_mut().filter_map(Task::running);
        running.map(|running| running.processor.unflushed_bytes()).sum()
    }

    /// Makes sure that an epoch is open. Says no while this thread is no member of its group.
    ///
    /// An epoch into which nothing was polled takes the group metadata anew each time: it must be from before the first record, and after every
    /// callback that was served until then.
    fn open_epoch(&mut self, now: Now) -> Result<bool, ThreadError> {
        if self.open.is_some() && self.tasks.values_mut().any(|task| task.running().is_some_and(|running| running.dirty)) {
            return Ok(true);
        }
        let group = self.client.group_metadata();
        if group.member_id != self.member_id {
            self.lose_all("the member id changed outside a rebalance event", now)?;
            return Ok(false);
        }
        if !group.is_member() {
            self.open = None;
            return Ok(false);
        }
        match &mut self.open {
            Some(epoch) => {
                epoch.group = group;
                epoch.opened = now.elapsed;
            }
            None => {
                self.open = Some(OpenEpoch {
                    number: self.next_epoch,
                    group,
                    records: Vec::new(),
                    checks: Vec::new(),
                    bytes: 0,
                    opened: now.elapsed,
                });
                self.next_epoch += 1;
            }
        }
        Ok(true)
    }
}

/// What one task may put into the open epoch.
struct EpochRoom<'a> {
    bytes_max: usize,
    context: &'a ThreadContext,
    sub_topology: &'a SubTopology,
    lease: &'a TaskLease,
}

impl EpochRoom<'_> {
    fn is_full(&self, epoch: &OpenEpoch, running: &Running) -> bool {
        epoch.bytes + running.processor.unflushed_bytes() >= self.bytes_max
    }

    /// Makes the checks that are due, as far as there is room for what they give. The rest is due in the next epoch, before its first record.
    fn check(&self, epoch: &mut OpenEpoch, running: &mut Running) -> Result<(), StateError> {
        let mut out = Outputs::default();
        while running.processor.is_check_due() && !self.is_full(epoch, running) {
            let started = Instant::now();
            running.processor.check(self.lease, &mut out)?;
            self.context.metrics.observe_check(started.elapsed());
            write(epoch, self.sub_topology, &mut out);
            running.dirty = true;
        }
        Ok(())
    }
}

/// State that could not be read while it was used. The thread ends with its open epoch, and another one restores its tasks: an epoch may be under way,
/// so that no single task can go back.
fn failure(task: TaskId, error: &StateError, lease: &TaskLease, context: &ThreadContext) -> ThreadError {
    match error {
        StateError::Store(_) => ThreadError::Failed(format!("task {task}: {error}")),
        StateError::Inconsistent(_) => ThreadError::Fatal(format!("task {task}: {error}")),
        StateError::Corrupt { .. } | StateError::Damaged(_) | StateError::Contradictory(_) => {
            context.metrics.task_corrupted();
            // Without a checkpoint it begins at the changelog's start. If that cannot be written, the next look at the same bytes tries again.
            let mut batch = Batch::new();
            batch.put(lease, &checkpoint_key(), None);
            context.store.write(batch).unwrap_or_default();
            ThreadError::Failed(format!("task {task}: {error}; it is restored from the changelog's start"))
        }
    }
}

/// Puts what a check gave into the open epoch.
fn write(epoch: &mut OpenEpoch, sub_topology: &SubTopology, out: &mut Outputs) {
    out.drain_events(&mut |event| {
        epoch.push(event_record(sub_topology, &event));
        epoch.checks.push(event.into());
    });
    if let Role::Partitions { repartition: Some(sink) } = &sub_topology.role {
        for pane in out.panes.drain(..) {
            pane_records(sink, &pane).for_each(|record| epoch.push(record));
        }
    }
}

impl Running {
    /// Closes what counts as idle, and tells what is empty, if it has not been asked within the last second. Says whether a check is due.
    fn close_idle(&mut self, task: TaskId, sub_topology: &SubTopology, now: Duration) -> bool {
        let idle_ms = now.saturating_sub(self.active_at).as_millis();
        let counts_for = |monitor: &Monitor| monitor.idle_close_after_ms.is_some_and(|after_ms| idle_ms >= u128::from(after_ms));
        if now < self.idle_asked_at + ASK_IDLE_EVERY {
            return false;
        }
        self.idle_asked_at = now;
        let is_idle = sub_topology.monitors.iter().any(|monitor| counts_for(monitor)) && self.processor.close_idle(&counts_for);
        if is_idle {
            info!(%task, "idle at its end: its time windows are closed");
        }
        self.processor.announce_empty() || is_idle
    }
}

/// An event as a record: keyed by feature, partitioned as Java's producer would.
fn event_record(sub_topology: &SubTopology, event: &Event) -> OutRecord {
    let sink = &sub_topology.events[event.monitor()];
    let key = event.feature().as_bytes().to_vec();
    OutRecord {
        topic: sink.topic.clone(),
        partition: partitioner::partition(&key, sink.partitions),
        value: Some(event.to_json()),
        key: Some(key),
        headers: Vec::new(),
        timestamp: None,
    }
}

/// A pane as records: keyed by monitor and segment, so that the panes of one window stay in order. What is said of all segments goes to every partition,
/// behind the parts that are in it.
fn pane_records<'p>(sink: &'p RepartitionSink, pane: &'p ShippedPane) -> impl Iterator<Item = OutRecord> + 'p {
    let (key, value) = (pane.key(), pane.value());
    let partitions: Vec<_> = if pane.is_for_every_partition() {
        (0..).map(Partition).take(sink.partitions as usize).collect()
    } else {
        vec![partitioner::partition(&key, sink.partitions)]
    };
    partitions.into_iter().map(move |partition| OutRecord {
        topic: sink.topic.clone(),
        partition,
        value: Some(value.clone()),
        key: Some(key.clone()),
        headers: Vec::new(),
        timestamp: None,
    })
}
