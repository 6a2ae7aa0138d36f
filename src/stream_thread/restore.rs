//! From an assigned partition to a running task: stable offset, lease, log ranges, changelog, self-check.

use std::collections::BTreeSet;
use std::time::Duration;

use leeway_topology::processor::{DriftProcessor, GlobalProcessor, Processor, TaskContext};
use leeway_topology::state::StateError;
use tracing::{error, info, warn};

use super::{Now, StreamThread, ThreadContext, ThreadError, store_failure};
use crate::broker::{CommittedOffset, LogRange, StreamClient, TopicPartition};
use crate::changelog::{Restore, RestorePlan, plan_restore, restore_share};
use crate::mutation::{Mutation, is};
use crate::state::store::{StoreError, TaskLease};
use crate::task::progress::{Checkpoint, checkpoint_key};
use crate::task::{Phase, Position, Role, Running, Task, check_position, stored_progress};

/// A store or changelog that failed is tried again after this long.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often a changelog is asked whether its open transactions are decided.
const STABLE_POLL: Duration = Duration::from_millis(100);

/// The broker's own sweep for transactions that timed out, and a margin: an open transaction that lasts longer than its time-out and this hangs.
const TRANSACTION_SWEEP: Duration = Duration::from_secs(15);

/// Long restores of a thread that are under way at once; the others begin when one of them ends. Two, so that one reads while the other writes. The fewer there
/// are, the more each may hold back, and the sooner the first task runs.
const LONG_RESTORES_AT_ONCE: usize = 2;

/// A restore that has more to read is a long one. Reading less takes no longer than asking for it, which all may do at once.
const SHORT_OFFSETS_MAX: u64 = 1000;

/// One that has read nothing for so long does not keep others waiting: the leader of its changelog may be gone.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// Changelog records taken in one step.
const RECORDS_PER_POLL: usize = 4096;

impl<C: StreamClient> StreamThread<C> {
    /// Moves every task on that is not running yet.
    pub(super) fn restore(&mut self, now: Now) -> Result<bool, ThreadError> {
        let mut long = self.tasks.values().filter(|task| is_long_restore(task, now)).count();
        for task in self.tasks.values_mut().filter(|task| matches!(task.phase, Phase::Created(_))) {
            prepare(task, &mut self.client, &self.context, long < LONG_RESTORES_AT_ONCE, now)?;
            long += usize::from(is_long_restore(task, now));
        }
        let Self { client, tasks, context, .. } = self;
        let mut tasks: Vec<&mut Task> = tasks.values_mut().filter(|task| matches!(task.phase, Phase::Restoring { .. })).collect();
        if tasks.is_empty() {
            return Ok(false);
        }
        // Where in `tasks` the last record went: the next one is mostly of the same changelog.
        let mut at = 0;
        let mut failed: Option<(TopicPartition, StoreError)> = None;
        let mut outlived: BTreeSet<TopicPartition> = BTreeSet::new();
        let share = restore_share(tasks.len());
        let taken = client.poll_restore(RECORDS_PER_POLL, &mut |changelog, record| {
            if tasks.get(at).is_none_or(|task| task.changelog != *changelog) {
                let Some(found) = tasks.iter().position(|task| task.changelog == *changelog) else {
                    return;
                };
                at = found;
            }
            let task = &mut *tasks[at];
            let (Phase::Restoring { restore, read_at, .. }, Some(lease)) = (&mut task.phase, &task.lease) else {
                return;
            };
            *read_at = now.elapsed;
            task.metrics.restored += 1;
            if outlived.contains(changelog) || restore.is_outlived(now.wall, task.sub_topology.checkpoint_age_ms_max) {
                outlived.insert(changelog.clone());
            } else if failed.is_none()
                && let Some(key) = record.key
                && let Err(error) = restore.apply(record.offset, key, record.value, share, &context.store, lease)
            {
                failed = Some((changelog.clone(), error));
            }
        });
        if let Some((changelog, error)) = failed {
            self.restore_failed(&changelog, &error, now)?;
        }
        for changelog in outlived {
            if let Some(task) = self.tasks.values_mut().find(|task| task.changelog == changelog) {
                warn!(task = %task.id, "the restore stood still for so long that tombstones may be gone; beginning at the changelog's start");
                self.client.stop_restore(&changelog);
                task.suspend(now.elapsed, true);
            }
        }
        Ok(taken > 0)
    }

    fn restore_failed(&mut self, changelog: &TopicPartition, error: &StoreError, now: Now) -> Result<(), ThreadError> {
        let Some(task) = self.tasks.values_mut().find(|task| task.changelog == *changelog) else {
            return Ok(());
        };
        self.client.stop_restore(changelog);
        match error {
            StoreError::Unavailable(_) => {
                warn!(task = %task.id, %error, "restore interrupted; trying again");
                task.suspend(now.elapsed + RETRY_AFTER, task.contradictions > 0);
                Ok(())
            }
            StoreError::Corrupted(_) => corrupted(task, &store_failure(error), &self.context, now),
            StoreError::LeaseLost(_) => Err(ThreadError::Fatal(format!("task {}: {}", task.id, store_failure(error)))),
        }
    }

    pub(super) fn on_task_committed_offset(&mut self, partition: &TopicPartition, committed: Option<CommittedOffset>) {
        if let Some(Task {
            phase: Phase::Created(creating),
            ..
        }) = self.tasks.get_mut(partition)
            && creating.asked_committed
        {
            creating.committed = Some(committed);
        }
    }

    pub(super) fn on_log_range(&mut self, partition: &TopicPartition, range: LogRange) {
        for task in self.tasks.values_mut() {
            let Phase::Created(creating) = &mut task.phase else { continue };
            if task.input == *partition {
                creating.input = Some(range);
            } else if task.changelog == *partition {
                creating.stable_target.get_or_insert(range.high_watermark);
                creating.changelog = Some(range);
            }
        }
    }

    pub(super) fn on_restore_end(&mut self, changelog: &TopicPartition, now: Now) -> Result<(), ThreadError> {
        let Some(task) = self.tasks.values_mut().find(|task| task.changelog == *changelog) else {
            return Ok(());
        };
        if !matches!(task.phase, Phase::Restoring { .. }) {
            return Ok(());
        }
        let Phase::Restoring {
            restore,
            input,
            changelog: changelog_range,
            started,
            read_at: _,
        } = std::mem::replace(&mut task.phase, Phase::Created(Default::default()))
        else {
            return Ok(());
        };
        self.client.stop_restore(changelog);
        let Some(lease) = &task.lease else { return Ok(()) };
        let records = match restore.finish(&self.context.store, lease) {
            Ok(records) => records,
            Err(error) => return self.restore_failed(changelog, &error, now),
        };
        task.metrics.publish_restore(0);
        info!(task = %task.id, records, elapsed_ms = (now.elapsed.saturating_sub(started)).as_millis(), "restored store");
        match run(task, input, changelog_range, &self.context, now) {
            Ok(running) => {
                self.client.start(&task.input, running.next_offset);
                task.phase = Phase::Running(Box::new(running));
                task.contradictions = 0;
            }
            Err(Doubt::Store(error)) => return self.restore_failed(changelog, &error, now),
            Err(Doubt::Stop(text)) => return Err(ThreadError::Fatal(format!("task {}: {text}", task.id))),
            Err(Doubt::Corrupted(text)) => corrupted(task, &text, &self.context, now)?,
        }
        self.publish_states();
        Ok(())
    }
}

/// Whether a long restore is under way.
fn is_long_restore(task: &Task, now: Now) -> bool {
    matches!(&task.phase, Phase::Restoring { restore, changelog, read_at, .. }
        if restore.remaining(changelog.last_stable) > SHORT_OFFSETS_MAX && now.elapsed < *read_at + STALLED_AFTER)
}

/// State that is damaged or contradicts the group is restored from the changelog's start, once: if that does not help, nothing does.
fn corrupted(task: &mut Task, fault: &str, context: &ThreadContext, now: Now) -> Result<(), ThreadError> {
    task.contradictions += 1;
    context.metrics.task_corrupted();
    if task.contradictions > 1 {
        return Err(ThreadError::Fatal(format!(
            "task {}: {fault}, also after a restore from the changelog's start; \
             the changelog {} and the group do not belong together; a new application id begins anew",
            task.id, task.changelog
        )));
    }
    error!(task = %task.id, fault, "state is corrupted; restoring it from the changelog's start");
    task.suspend(now.elapsed, true);
    Ok(())
}

/// Why a restored task may not run.
enum Doubt {
    /// The store failed.
    Store(StoreError),
    /// Restore it from the changelog's start.
    Corrupted(String),
    /// No restore helps.
    Stop(String),
}

/// The self-check, and the processor over the restored state.
fn run(task: &mut Task, input: LogRange, changelog: LogRange, context: &ThreadContext, now: Now) -> Result<Running, Doubt> {
    let Some(lease) = &task.lease else {
        return Err(Doubt::Stop("restored without a lease".to_owned()));
    };
    let stored = stored_progress(lease).map_err(Doubt::Store)?;
    // From its very start on: an aborted first epoch leaves offsets that nobody sees.
    let changelog_unused = changelog.start.0 == 0;
    let position = check_position(stored.as_ref(), task.committed.as_ref(), input, task.sub_topology.start, changelog_unused)
        .map_err(|fault| Doubt::Corrupted(fault.to_string()))?;
    let next = position.offset();
    if next < input.start || next > input.high_watermark {
        return Err(Doubt::Stop(format!(
            "the next input offset {next} of {} is outside its log, {} to {}: records were deleted before they were processed, or the topic was \
             made anew; a new application id begins where `monitor.start` says",
            task.input, input.start, input.high_watermark
        )));
    }
    match position {
        Position::Committed(_) => {}
        Position::First(offset) => info!(task = %task.id, %offset, "first start"),
        Position::Resumed(offset) => {
            context.metrics.offsets_expired();
            warn!(task = %task.id, %offset, "the group has no committed offset any more (expired); going on from the restored state");
        }
        Position::Adopted(offset) => warn!(task = %task.id, %offset, "another consumer of this group left an offset; beginning there"),
    }
    let processor = open_processor(task, lease, context).map_err(|error| match error {
        StateError::Store(text) => Doubt::Store(StoreError::Unavailable(text)),
        StateError::Corrupt { .. } | StateError::Damaged(_) | StateError::Contradictory(_) => Doubt::Corrupted(error.to_string()),
        StateError::Inconsistent(text) => Doubt::Stop(text),
    })?;
    processor.verify().map_err(|error| Doubt::Corrupted(error.to_string()))?;
    let (held, recorded) = (processor.record_number().0, stored.as_ref().map_or(0, |progress| progress.record_number));
    // Less is possible: the monitor that saw most may be gone from the configuration.
    if held > recorded {
        return Err(Doubt::Corrupted(format!(
            "its windows hold records up to number {held}, its progress is at {recorded}"
        )));
    }
    let dirty = task.committed.as_ref().map(|committed| committed.offset) != Some(next) || stored.is_none();
    Ok(Running {
        processor,
        next_offset: next,
        waits_since: None,
        active_at: now.elapsed,
        idle_asked_at: now.elapsed,
        dirty,
        base: next,
    })
}

pub(super) fn open_processor(task: &Task, lease: &TaskLease, context: &ThreadContext) -> Result<Box<dyn Processor>, StateError> {
    let monitors = &task.sub_topology.monitors;
    let task_context = TaskContext {
        application_id: &context.application_id,
        partition: task.id.partition,
        partitions: task.sub_topology.partitions,
        cache: &context.cache,
    };
    Ok(match task.sub_topology.role {
        Role::Partitions { .. } => Box::new(DriftProcessor::open(&task_context, monitors, context.references.as_ref(), lease)?),
        Role::Global => Box::new(GlobalProcessor::open(&task_context, monitors, context.references.clone(), lease)?),
    })
}

/// One look at a created task: asks for what it lacks, and begins its restore when nothing is lacking; a long one
/// only if it may.
fn prepare<C: StreamClient>(task: &mut Task, client: &mut C, context: &ThreadContext, may_begin_long: bool, now: Now) -> Result<(), ThreadError> {
    let range = task.range();
    let Phase::Created(creating) = &mut task.phase else { return Ok(()) };
    if now.elapsed < creating.not_before {
        return Ok(());
    }
    if task.lease.is_none() {
        // Another thread of this process may still hold it, until its last WriteBatch.
        task.lease = context.store.lease(range);
    }
    let Some(lease) = &task.lease else { return Ok(()) };
    if !creating.asked_committed {
        creating.asked_committed = true;
        client.fetch_committed(std::slice::from_ref(&task.input));
    }
    let Some(committed) = &creating.committed else { return Ok(()) };
    if !creating.asked_ranges {
        // Only now: whatever is in the stable offset is in the changelog before the high watermark that is asked for here.
        creating.asked_ranges = true;
        creating.asked_again_at = now.elapsed;
        creating.waiting_since = Some(now.elapsed);
        client.fetch_log_range(&task.input);
        client.fetch_log_range(&task.changelog);
    }
    let (Some(input), Some(changelog), Some(target)) = (creating.input, creating.changelog, creating.stable_target) else {
        return Ok(());
    };
    if changelog.last_stable < target && !is(Mutation::RestoreToStableEnd) {
        if now.elapsed >= creating.asked_again_at + STABLE_POLL {
            creating.asked_again_at = now.elapsed;
            client.fetch_log_range(&task.changelog);
        }
        if creating
            .waiting_since
            .is_some_and(|since| now.elapsed >= since + context.transaction_timeout + TRANSACTION_SWEEP)
        {
            creating.waiting_since = Some(now.elapsed);
            warn!(task = %task.id, changelog = %task.changelog, last_stable = %changelog.last_stable, %target,
                "an open transaction holds the changelog back longer than its time-out allows; \
                 `kafka-transactions.sh find-hanging` shows it; read docs/kafka.md before it is aborted");
        }
        return Ok(());
    }
    if !may_begin_long && creating.to_read.is_some() {
        return Ok(());
    }
    // Only when it may begin: a checkpoint that was young enough may be too old by then.
    let plan = || {
        let checkpoint = match lease.get(&checkpoint_key()) {
            // Dropping the range does not read it.
            Err(StoreError::Corrupted(_)) => None,
            other => other?
                .and_then(|bytes| Checkpoint::from_bytes(&bytes).ok())
                .filter(|_| !creating.from_start),
        };
        let age_ms_max = task.sub_topology.checkpoint_age_ms_max;
        Ok(plan_restore(checkpoint.as_ref(), changelog, now.wall, age_ms_max))
    };
    let begun = plan().and_then(|plan| {
        let to_read = plan.offsets(changelog);
        if !may_begin_long && to_read > SHORT_OFFSETS_MAX {
            creating.to_read = Some(to_read);
            return Ok(None);
        }
        if let RestorePlan::FromStart { because: Some(because) } = &plan {
            context.metrics.restored_from_start();
            warn!(task = %task.id, %because, "the store is not continued; restoring from the changelog's start");
        }
        Restore::begin(&plan, changelog, now.wall, &context.store, lease).map(Some)
    });
    match begun {
        Ok(None) => {}
        Ok(Some((restore, from))) => {
            task.committed = committed.clone();
            client.start_restore(&task.changelog, from);
            task.phase = Phase::Restoring {
                restore,
                input,
                changelog,
                started: now.elapsed,
                read_at: now.elapsed,
            };
        }
        Err(error @ StoreError::Unavailable(_)) => {
            warn!(task = %task.id, %error, "the state store does not accept writes; trying again");
            let from_start = creating.from_start;
            task.suspend(now.elapsed + RETRY_AFTER, from_start);
        }
        Err(error) => return Err(ThreadError::Fatal(format!("task {}: {}", task.id, store_failure(&error)))),
    }
    Ok(())
}
