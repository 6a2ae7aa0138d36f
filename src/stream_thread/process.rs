//! The hot path: records of running tasks into the open epoch.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use leeway_topology::event::DriftEvent;
use leeway_topology::processor::{Disposition, Monitor, Outputs};
use leeway_topology::record::{InputRecord, Rejected};
use leeway_topology::repartition::ShippedPane;
use tracing::{info, warn};

use super::{Now, Producer, StreamThread, ThreadError};
use crate::broker::{OutRecord, StreamClient, partitioner};
use crate::epoch::OpenEpoch;
use crate::task::{RepartitionSink, Role, Running, SubTopology, Task};

/// Records that one task may take in one step: a few hundred microseconds of work, so that events are served often and tasks share fairly.
const RECORDS_PER_POLL: usize = 512;

/// How often an idle task is asked whether windows are to be closed.
const ASK_IDLE_EVERY: Duration = Duration::from_secs(1);

/// An epoch is sealed early when its outputs reach this many bytes, so that a transaction stays far below the producer's queue.
pub(super) const EPOCH_BYTES_MAX: usize = 8 << 20;

impl<C: StreamClient> StreamThread<C> {
    /// Lets every running task take a batch. Nothing is taken while an outcome is judged, a revocation is answered or the thread stops.
    pub(super) fn process(&mut self, now: Now) -> Result<bool, ThreadError> {
        let may_process = matches!(self.producer, Producer::Ready | Producer::Committing(_)) && self.revoking.is_none() && !self.stopping;
        if !may_process || !self.tasks.values_mut().any(|task| task.running().is_some()) || !self.open_epoch(now)? {
            return Ok(false);
        }
        let mut taken = 0;
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
            if epoch.bytes >= *epoch_bytes_max {
                break;
            }
            let mut out = Outputs::default();
            let (mut backwards, mut waits) = (None, None);
            let Task {
                phase: crate::task::Phase::Running(running),
                id,
                sub_topology,
                metrics,
                ..
            } = task
            else {
                continue;
            };
            if running.waits_since == Some(*references_seen) {
                continue;
            }
            let polled = client.poll(input, RECORDS_PER_POLL, &mut |record| {
                if record.offset < running.next_offset {
                    backwards = Some((record.offset, running.next_offset));
                    return ControlFlow::Break(());
                }
                let disposition = running.processor.process(&InputRecord {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                });
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
                if check_due {
                    let started = Instant::now();
                    running.processor.check(&mut out);
                    context.metrics.observe_check(started.elapsed());
                    write(epoch, sub_topology, &mut out);
                }
                if epoch.bytes >= *epoch_bytes_max {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
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
            } else if client.is_at_end(input) && running.close_idle(sub_topology, now.elapsed) {
                info!(task = %id, "idle at its end: its time windows are closed");
                running.processor.check(&mut out);
                write(epoch, sub_topology, &mut out);
                running.dirty = true;
            }
            if let Some((found, expected)) = backwards {
                // Nothing of it is committed: a new thread with a new client reads again from what is.
                return Err(ThreadError::Failed(format!(
                    "{input}: offset {found} was given after {expected} was next: the client went backwards"
                )));
            }
        }
        Ok(taken > 0)
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

/// Puts what a check gave into the open epoch.
fn write(epoch: &mut OpenEpoch, sub_topology: &SubTopology, out: &mut Outputs) {
    for event in out.events.drain(..) {
        epoch.push(event_record(sub_topology, &event));
        epoch.checks.push(event);
    }
    if let Role::Partitions { repartition: Some(sink) } = &sub_topology.role {
        out.panes.drain(..).for_each(|pane| epoch.push(pane_record(sink, &pane)));
    }
}

impl Running {
    /// Closes what counts as idle, if it has not been asked within the last second.
    fn close_idle(&mut self, sub_topology: &SubTopology, now: Duration) -> bool {
        let idle_ms = now.saturating_sub(self.active_at).as_millis();
        let counts_for = |monitor: &Monitor| monitor.idle_close_after_ms.is_some_and(|after_ms| idle_ms >= u128::from(after_ms));
        if now < self.idle_asked_at + ASK_IDLE_EVERY || !sub_topology.monitors.iter().any(|monitor| counts_for(monitor)) {
            return false;
        }
        self.idle_asked_at = now;
        self.processor.close_idle(&counts_for)
    }
}

/// A drift event as a record: keyed by feature, partitioned as Java's producer would.
fn event_record(sub_topology: &SubTopology, event: &DriftEvent) -> OutRecord {
    let sink = &sub_topology.events[&event.monitor];
    let key = event.feature.as_bytes().to_vec();
    OutRecord {
        topic: sink.topic.clone(),
        partition: partitioner::partition(&key, sink.partitions),
        value: Some(event.to_json()),
        key: Some(key),
        headers: Vec::new(),
        timestamp: None,
    }
}

/// A pane as a record: keyed by monitor and segment, so that the panes of one window stay in order.
fn pane_record(sink: &RepartitionSink, pane: &ShippedPane) -> OutRecord {
    let key = pane.key();
    OutRecord {
        topic: sink.topic.clone(),
        partition: partitioner::partition(&key, sink.partitions),
        value: Some(pane.value()),
        key: Some(key),
        headers: Vec::new(),
        timestamp: None,
    }
}
