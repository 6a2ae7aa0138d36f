//! The group's events: partitions come, go, or are lost.

use std::time::Duration;

use tracing::{info, warn};

use super::{Now, Producer, StreamThread, ThreadError};
use crate::broker::{StreamClient, TopicPartition};
use crate::task::Task;

/// How long the answer to a revocation may take. The group waits for it, so a commit that does not end by then is given up.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Partitions that the group wants back, once the open epochs are committed.
pub(super) struct Revoking {
    partitions: Vec<TopicPartition>,
    deadline: Duration,
}

impl<C: StreamClient> StreamThread<C> {
    pub(super) fn on_assigned(&mut self, partitions: &[TopicPartition], now: Now) -> Result<(), ThreadError> {
        // Metadata first, then the question: the other way round a loss in between would go unseen.
        let group = self.client.group_metadata();
        let kept = !self.client.assignment_lost() && group.member_id == self.member_id;
        if !kept && !self.tasks.is_empty() {
            self.lose_all("the member id changed in a rebalance", now)?;
        }
        if let Some(open) = self.open.as_mut().filter(|_| kept) {
            open.group = group.clone();
        }
        self.member_id = group.member_id;
        self.context.metrics.rebalanced();
        self.client.assign(partitions);
        for partition in partitions {
            let Some(sub_topology) = self.context.sub_topologies.get(&partition.topic) else {
                return Err(ThreadError::Fatal(format!(
                    "the group assigned {partition}, which no monitor reads: another program uses this group id"
                )));
            };
            let partitions = u32::try_from(partition.partition.0).unwrap_or(0) + 1;
            if partitions > sub_topology.partitions {
                self.context.growth.note(&partition.topic, partitions);
            }
            let metrics = self.context.metrics.task(&partition.topic, partition.partition);
            self.tasks
                .insert(partition.clone(), Task::new(sub_topology.clone(), partition.partition, metrics));
        }
        if !partitions.is_empty() {
            info!(thread = %self.name, added = partitions.len(), tasks = self.tasks.len(), "partitions assigned");
        }
        self.publish_states();
        Ok(())
    }

    pub(super) fn on_revoked(&mut self, partitions: Vec<TopicPartition>, lost: bool, now: Now) -> Result<(), ThreadError> {
        let group = self.client.group_metadata();
        let lost = lost || self.client.assignment_lost() || !group.is_member() || group.member_id != self.member_id;
        info!(thread = %self.name, removed = partitions.len(), lost, "partitions revoked");
        self.context.metrics.rebalanced();
        if lost {
            return self.lose(&partitions, now);
        }
        if let Some(open) = &mut self.open {
            open.group = group;
        }
        match &mut self.revoking {
            Some(revoking) => revoking.partitions.extend(partitions),
            None => {
                self.revoking = Some(Revoking {
                    partitions,
                    deadline: now.elapsed + REVOCATION_TIMEOUT,
                })
            }
        }
        Ok(())
    }

    /// Answers a revocation as soon as the open epochs are committed; or without them, when their outcome is unknown or does not come in time.
    pub(super) fn finish_revocation(&mut self, now: Now) -> Result<(), ThreadError> {
        let Some(revoking) = &self.revoking else { return Ok(()) };
        if self.is_settled() {
            let partitions = self.revoking.take().map(|revoking| revoking.partitions).unwrap_or_default();
            self.remove(&partitions);
        } else if now.elapsed >= revoking.deadline || !matches!(self.producer, Producer::Ready | Producer::Committing(_)) {
            let partitions = self.revoking.take().map(|revoking| revoking.partitions).unwrap_or_default();
            warn!(thread = %self.name, partitions = partitions.len(), "gave partitions back without knowing their last epoch's outcome");
            self.lose(&partitions, now)?;
        }
        Ok(())
    }

    /// Drops lost partitions. The open epoch goes as a whole if one of them is in it; the others' input is read again.
    pub(super) fn lose(&mut self, partitions: &[TopicPartition], now: Now) -> Result<(), ThreadError> {
        let in_open_epoch = partitions
            .iter()
            .any(|p| self.tasks.get_mut(p).and_then(Task::running).is_some_and(|running| running.dirty));
        self.remove(partitions);
        if !in_open_epoch {
            return Ok(());
        }
        match std::mem::replace(&mut self.producer, Producer::Ready) {
            // Where the others go on depends on the epoch before, so that one is settled first.
            Producer::Committing(epoch) => {
                warn!(thread = %self.name, epoch = epoch.number, "lost partitions while a transaction was under way; asking the group what was committed");
                self.settle(epoch);
                Ok(())
            }
            producer => {
                self.producer = producer;
                self.drop_open_epoch(now)
            }
        }
    }

    /// Every partition is lost, whatever the client says. It will revoke them later, which then finds no task.
    pub(super) fn lose_all(&mut self, because: &str, _now: Now) -> Result<(), ThreadError> {
        warn!(thread = %self.name, tasks = self.tasks.len(), because, "all partitions are lost");
        for task in self.tasks.values() {
            self.client.stop_restore(&task.changelog);
        }
        self.tasks.clear();
        self.open = None;
        self.publish_states();
        Ok(())
    }

    fn remove(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some(task) = self.tasks.remove(partition) {
                self.client.stop_restore(&task.changelog);
            }
        }
        self.client.unassign(partitions);
        // A loss may overtake a revocation that still waited for its commit: what came back since must not be given away by it.
        if let Some(revoking) = &mut self.revoking {
            revoking.partitions.retain(|partition| !partitions.contains(partition));
            if revoking.partitions.is_empty() {
                self.revoking = None;
            }
        }
        self.publish_states();
    }
}
