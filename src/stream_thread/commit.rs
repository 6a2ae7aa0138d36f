//! The end of an epoch: seal, submit, and what each outcome asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use leeway_topology::ids::Offset;
use tracing::{debug, error, info, warn};

use super::{FailPoint, Now, Producer, StreamThread, ThreadError, restore, store_failure, text_of};
use crate::broker::{AbortCause, CommitOutcome, CommittedOffset, EpochCommit, GroupMetadata, OutRecord, StreamClient, TopicPartition};
use crate::epoch::{SealedEpoch, SealedTask, Told, Verdict, judge};
use crate::mutation::{Mutation, is};
use crate::state::store::{Batch, StoreError};
use crate::task::progress::{Checkpoint, Progress, checkpoint_key};
use crate::task::{Phase, Running, Task, stored_progress};
use leeway_topology::state::progress_key;

/// The same refusal from the same base offsets this often is fatal: the records themselves cannot be committed.
const POISON_ATTEMPTS: u32 = 3;

/// Fenced twice within this time while still a member, and each time before the transaction's time-out: two instances use one transactional id.
const FENCED_TWICE_WITHIN: Duration = Duration::from_secs(60);

/// An epoch is never bounded below this.
const EPOCH_BYTES_MIN: usize = 64 << 10;

/// Refused commits that repeat.
#[derive(Default)]
pub(super) struct CommitFailures {
    base: Vec<(TopicPartition, Offset)>,
    reason: String,
    times: u32,
}

/// An epoch whose outcome is asked of the group.
pub(super) struct Judgement {
    epoch: SealedEpoch,
    found: BTreeMap<TopicPartition, Option<CommittedOffset>>,
}

impl<C: StreamClient> StreamThread<C> {
    /// Seals and submits the open epoch when it is due: after the commit interval, at its bound of bytes, or because partitions are to be given
    /// back. One transaction is under way at a time.
    pub(super) fn seal_if_due(&mut self, now: Now) {
        let unflushed = self.unflushed_bytes();
        let Some(epoch) = &self.open else { return };
        let asked = self.stopping || self.revoking.is_some();
        let is_full = epoch.bytes + unflushed >= self.epoch_bytes_max;
        let due = asked || now.elapsed >= epoch.opened + self.context.commit_interval || is_full;
        if !due || !matches!(self.producer, Producer::Ready) {
            return;
        }
        let Some(open) = self.open.take() else { return };
        let mut records = open.records;
        let mut offsets = Vec::new();
        let mut sealed = Vec::new();
        for (input, task) in &mut self.tasks {
            let before = task.committed.clone();
            let Phase::Running(running) = &mut task.phase else { continue };
            if !running.dirty {
                continue;
            }
            running.dirty = false;
            let mut puts = Vec::new();
            running.processor.flush(&mut puts);
            let progress = Progress {
                next_offset: running.next_offset,
                record_number: running.processor.record_number().0,
                stream_time: running.processor.stream_time(),
                epoch: open.number,
                committed_at: now.wall,
            };
            let record = |key: Vec<u8>, value: Option<Vec<u8>>| OutRecord {
                topic: task.changelog.topic.clone(),
                partition: task.changelog.partition,
                key: Some(key),
                value,
                headers: Vec::new(),
                timestamp: None,
            };
            records.extend(puts.iter().map(|put| record(put.key.clone(), put.value.clone())));
            // Last: a restore takes what stands before it as whole.
            records.push(record(progress_key(), Some(progress.to_bytes())));
            let ours = CommittedOffset {
                offset: running.next_offset,
                metadata: self.tag.metadata(open.number),
            };
            offsets.push((input.clone(), ours.clone()));
            sealed.push(SealedTask {
                input: input.clone(),
                changelog: task.changelog.clone(),
                puts,
                progress,
                base: running.base,
                before,
                ours,
            });
        }
        if sealed.is_empty() {
            return;
        }
        self.fail_point(FailPoint::EpochSealed);
        debug!(thread = %self.name, epoch = open.number, tasks = sealed.len(), records = records.len(), "commit");
        let sealed = SealedEpoch {
            number: open.number,
            tasks: sealed,
            checks: open.checks,
            submitted: now.elapsed,
        };
        if is(Mutation::StoreBeforeKafka) {
            self.write(&sealed, &BTreeMap::new()).unwrap_or_default();
        }
        let group = self.group_to_send(open.group);
        self.client.commit(EpochCommit {
            epoch: open.number,
            records,
            offsets,
            group,
        });
        self.producer = Producer::Committing(sealed);
    }

    /// The group metadata that was taken when the epoch began.
    fn group_to_send(&mut self, taken: GroupMetadata) -> GroupMetadata {
        if is(Mutation::LateGroupMetadata) {
            self.client.group_metadata()
        } else if is(Mutation::NoGroupMetadata) {
            GroupMetadata {
                member_id: String::new(),
                generation: -1,
                token: taken.token,
            }
        } else {
            taken
        }
    }

    pub(super) fn on_commit_finished(&mut self, number: u64, outcome: CommitOutcome, now: Now) -> Result<(), ThreadError> {
        let epoch = match std::mem::replace(&mut self.producer, Producer::Ready) {
            Producer::Committing(epoch) if epoch.number == number => epoch,
            other => {
                self.producer = other;
                return Ok(());
            }
        };
        match outcome {
            CommitOutcome::Committed { ends } => {
                self.commit_failures = CommitFailures::default();
                self.context.metrics.committed(now.elapsed.saturating_sub(epoch.submitted));
                self.fail_point(FailPoint::BeforeStoreWrite);
                self.apply(&epoch, &ends, now)?;
                self.fail_point(FailPoint::AfterStoreWrite);
            }
            CommitOutcome::Aborted { reason, cause } => {
                self.context.metrics.aborted();
                warn!(thread = %self.name, epoch = number, %reason, "transaction aborted; its records are processed again");
                match cause {
                    AbortCause::Refused => self.count_refusal(&epoch, reason)?,
                    AbortCause::TimedOut => self.halve_epochs(),
                    AbortCause::Rejoin | AbortCause::Unavailable => {}
                }
                if is(Mutation::NoRewind) {
                    return Ok(());
                }
                self.open = None;
                self.rewind(epoch.tasks.iter().map(|task| task.input.clone()).collect(), now)?;
            }
            CommitOutcome::Unknown { reason } => {
                warn!(thread = %self.name, epoch = number, %reason, "the transaction's outcome is unknown; asking the group");
                if is(Mutation::UnknownIsAborted) {
                    self.client.init_producer();
                    self.open = None;
                    return self.rewind(epoch.tasks.iter().map(|task| task.input.clone()).collect(), now);
                }
                self.settle(epoch);
            }
            CommitOutcome::Fenced { reason } if now.elapsed >= epoch.submitted + self.context.transaction_timeout => {
                warn!(thread = %self.name, epoch = number, %reason,
                    timeout_ms = self.context.transaction_timeout.as_millis(),
                    "the transaction outlived its time-out, so its coordinator fenced its producer; asking the group what was committed");
                self.halve_epochs();
                self.settle(epoch);
            }
            CommitOutcome::Fenced { reason } => {
                if self.fenced_at.is_some_and(|at| now.elapsed <= at + FENCED_TWICE_WITHIN) && !self.client.assignment_lost() {
                    return Err(ThreadError::Fatal(format!(
                        "fenced twice within {} s while still a member of the group: another instance uses the same transactional id ({reason}). \
                         Was the state directory copied while both run? Give each instance its own `--state-dir`",
                        FENCED_TWICE_WITHIN.as_secs()
                    )));
                }
                self.fenced_at = Some(now.elapsed);
                warn!(thread = %self.name, epoch = number, %reason, "fenced; asking the group what was committed");
                self.settle(epoch);
            }
            CommitOutcome::Fatal { reason } => return Err(ThreadError::Fatal(reason)),
        }
        Ok(())
    }

    /// Less may get through in time.
    fn halve_epochs(&mut self) {
        self.epoch_bytes_max = (self.epoch_bytes_max / 2).max(EPOCH_BYTES_MIN);
    }

    /// The same refusal from the same positions again and again would be an endless loop.
    fn count_refusal(&mut self, epoch: &SealedEpoch, reason: String) -> Result<(), ThreadError> {
        let base: Vec<_> = epoch.tasks.iter().map(|task| (task.input.clone(), task.base)).collect();
        if self.commit_failures.base == base && self.commit_failures.reason == reason {
            self.commit_failures.times += 1;
        } else {
            self.commit_failures = CommitFailures { base, reason, times: 1 };
        }
        let CommitFailures { base, reason, times } = &self.commit_failures;
        if *times >= POISON_ATTEMPTS {
            return Err(ThreadError::Fatal(format!(
                "the epoch that begins at {} was refused {times} times: {reason}",
                text_of(base)
            )));
        }
        Ok(())
    }

    /// The producer is made anew, which settles its last transaction; then the group is asked. Everything after that epoch is dropped.
    pub(super) fn settle(&mut self, epoch: SealedEpoch) {
        self.context.metrics.outcome_unknown();
        self.open = None;
        self.client.init_producer();
        self.producer = Producer::Starting { unsettled: Some(epoch) };
    }

    pub(super) fn on_producer_ready(&mut self) {
        match std::mem::replace(&mut self.producer, Producer::Ready) {
            Producer::Starting { unsettled: Some(epoch) } => {
                let inputs: Vec<_> = epoch.tasks.iter().map(|task| task.input.clone()).collect();
                self.client.fetch_committed(&inputs);
                self.producer = Producer::Judging(Judgement {
                    epoch,
                    found: BTreeMap::new(),
                });
            }
            Producer::Starting { unsettled: None } if !self.subscribed => {
                let topics: Vec<_> = self.context.sub_topologies.keys().cloned().collect();
                self.client.subscribe(&topics);
                self.subscribed = true;
            }
            other => {
                self.producer = if matches!(other, Producer::Starting { .. }) {
                    Producer::Ready
                } else {
                    other
                }
            }
        }
    }

    pub(super) fn on_committed_offsets(&mut self, offsets: &[(TopicPartition, Option<CommittedOffset>)], now: Now) -> Result<(), ThreadError> {
        for (partition, committed) in offsets {
            if let Producer::Judging(judgement) = &mut self.producer
                && judgement.epoch.tasks.iter().any(|task| task.input == *partition)
            {
                judgement.found.insert(partition.clone(), committed.clone());
            }
            self.on_task_committed_offset(partition, committed.clone());
        }
        let complete = matches!(&self.producer, Producer::Judging(judgement) if judgement.found.len() == judgement.epoch.tasks.len());
        if complete && let Producer::Judging(judgement) = std::mem::replace(&mut self.producer, Producer::Ready) {
            self.judge_epoch(judgement, now)?;
        }
        Ok(())
    }

    /// Each task is judged alone: a late marker or another member may have made them differ.
    fn judge_epoch(&mut self, Judgement { mut epoch, found }: Judgement, now: Now) -> Result<(), ThreadError> {
        let verdicts: BTreeMap<_, _> = epoch
            .tasks
            .iter()
            .map(|task| {
                (
                    task.input.clone(),
                    judge(found.get(&task.input).and_then(Option::as_ref), task.before.as_ref(), &task.ours),
                )
            })
            .collect();
        info!(thread = %self.name, epoch = epoch.number, ?verdicts, "judged the epoch");
        let inputs: Vec<_> = self.tasks.keys().cloned().collect();
        epoch.tasks.retain(|task| verdicts.get(&task.input) == Some(&Verdict::Committed));
        if epoch.tasks.is_empty() {
            epoch.checks.clear();
        }
        self.apply(&epoch, &BTreeMap::new(), now)?;
        for (input, verdict) in &verdicts {
            if *verdict == Verdict::Foreign
                && let Some(task) = self.tasks.get_mut(input)
            {
                warn!(task = %task.id, "the group's offset is neither ours nor the one before; restoring");
                task.suspend(now.elapsed, false);
            }
        }
        self.rewind(inputs, now)
    }

    /// One WriteBatch: what is proven committed, for the tasks that are still ours.
    fn write(&self, epoch: &SealedEpoch, ends: &BTreeMap<TopicPartition, Offset>) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for sealed in &epoch.tasks {
            let Some(lease) = self
                .tasks
                .get(&sealed.input)
                .filter(|task| is_where_sealed(task, sealed))
                .and_then(|task| task.lease.as_ref())
            else {
                continue;
            };
            for put in &sealed.puts {
                batch.put(lease, &put.key, put.value.as_deref());
            }
            batch.put(lease, &progress_key(), Some(&sealed.progress.to_bytes()));
            // Without an offset from the delivery reports the old checkpoint stays true: it only makes a restore read a little more.
            if let Some(end) = ends.get(&sealed.changelog) {
                let checkpoint = Checkpoint {
                    changelog_offset: *end,
                    committed_at: sealed.progress.committed_at,
                };
                batch.put(lease, &checkpoint_key(), Some(&checkpoint.to_bytes()));
            }
        }
        self.context.store.write(batch)
    }

    /// Makes the store and the tasks what was committed.
    fn apply(&mut self, epoch: &SealedEpoch, ends: &BTreeMap<TopicPartition, Offset>, now: Now) -> Result<(), ThreadError> {
        let written = self.write(epoch, ends);
        for sealed in &epoch.tasks {
            if let Some(task) = self.tasks.get_mut(&sealed.input)
                && is_where_sealed(task, sealed)
                && let Phase::Running(running) = &mut task.phase
            {
                task.committed = Some(sealed.ours.clone());
                running.base = sealed.progress.next_offset;
                if written.is_ok() {
                    running.processor.applied();
                }
            }
        }
        let checks = epoch.checks.iter();
        self.context.metrics.checked(checks.clone().filter_map(Told::drift));
        checks
            .filter_map(Told::quality)
            .for_each(|event| self.context.metrics.quality_checked(event));
        match written {
            Ok(()) => Ok(()),
            Err(error @ StoreError::Unavailable(_)) => {
                error!(thread = %self.name, %error, "committed in Kafka but not written to the store; closing the epoch's tasks dirty");
                for sealed in &epoch.tasks {
                    if let Some(task) = self.tasks.get_mut(&sealed.input) {
                        task.suspend(now.elapsed + restore::RETRY_AFTER, false);
                    }
                }
                self.drop_open_epoch(now)
            }
            Err(error) => Err(ThreadError::Fatal(store_failure(&error))),
        }
    }

    /// Drops the open epoch whole: memory is read again from the store, and the input from there.
    pub(super) fn drop_open_epoch(&mut self, now: Now) -> Result<(), ThreadError> {
        self.open = None;
        let dirty = self
            .tasks
            .iter_mut()
            .filter_map(|(input, task)| task.running().is_some_and(|running| running.dirty).then(|| input.clone()))
            .collect();
        self.rewind(dirty, now)
    }

    /// Drops the memory of running tasks that went past what is committed, reads the store again, and the input from there on.
    pub(super) fn rewind(&mut self, inputs: Vec<TopicPartition>, now: Now) -> Result<(), ThreadError> {
        let dirty: Vec<_> = self
            .tasks
            .iter_mut()
            .filter_map(|(input, task)| task.running().is_some_and(|running| running.dirty).then(|| input.clone()))
            .collect();
        let mut again: Vec<_> = inputs.into_iter().chain(dirty).collect();
        again.sort();
        again.dedup();
        for input in again {
            let Some(task) = self.tasks.get_mut(&input) else { continue };
            let (Phase::Running(running), Some(lease)) = (&task.phase, &task.lease) else {
                continue;
            };
            let base = running.base;
            let reopened = stored_progress(lease).map_err(|error| store_failure(&error)).and_then(|stored| {
                let next = stored.map_or(base, |progress| progress.next_offset);
                restore::open_processor(task, lease, &self.context)
                    .map(|processor| (processor, next))
                    .map_err(|error| error.to_string())
            });
            match reopened {
                Ok((processor, next_offset)) if next_offset == base => {
                    let dirty = task.committed.as_ref().map(|committed| committed.offset) != Some(base);
                    task.phase = Phase::Running(Box::new(Running {
                        processor,
                        next_offset,
                        waits_since: None,
                        active_at: now.elapsed,
                        idle_asked_at: now.elapsed,
                        dirty,
                        base,
                    }));
                    self.client.start(&input, next_offset);
                }
                Ok((_, next_offset)) => {
                    warn!(task = %task.id, %base, stored = %next_offset, "the store is not where the last commit was; restoring");
                    task.suspend(now.elapsed, false);
                }
                Err(error) => {
                    warn!(task = %task.id, %error, "the store cannot be read again; restoring");
                    task.suspend(now.elapsed + restore::RETRY_AFTER, false);
                }
            }
        }
        self.publish_states();
        Ok(())
    }
}

/// Whether a task still is where it was when its epoch was sealed. One that was given away and came back meanwhile has restored what was committed.
fn is_where_sealed(task: &Task, sealed: &SealedTask) -> bool {
    matches!(&task.phase, Phase::Running(running) if running.base == sealed.base) && task.committed == sealed.before
}
