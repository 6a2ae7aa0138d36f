//! Counters and gauges, in Prometheus' words.
//!
//! - The hot path touches no label and no atomic: a task counts in plain numbers of its [`TaskMetrics`] and publishes them once per commit.
//! - Series are bounded by `metrics.max_series`; see `bounded.rs`. Those of a partition go when its task goes: lag and PSI of a partition that
//!   another instance owns would stand still here for ever.
//! - What a check says (`checks.rs`) is apart from what the engine does: `leeway metrics` tells the first from the drift events.
//! - Names and labels are public: dashboards and alerts of users depend on them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leeway_topology::event::{QualityEvent, Scope};
use leeway_topology::ids::{Partition, Timestamp};
use leeway_topology::processor::Irregular;
use leeway_topology::record::{Missing, Rejected};
use prometheus::{GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

mod bounded;
mod checks;
mod register;
mod task;
#[cfg(test)]
mod tests;

use bounded::Bounded;
pub(crate) use bounded::Budget;
pub use checks::Checked;
pub(crate) use checks::{CheckMetrics, Labels, WINDOW, WINDOW_AND_KIND};
pub(crate) use register::{Register, render, watch_process};
pub use task::TaskMetrics;

pub(crate) type Counters = Bounded<IntCounterVec>;
pub(crate) type Gauges = Bounded<GaugeVec>;

/// Media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    consumed: Counters,
    processed: Counters,
    lag: Gauges,
    checks: CheckMetrics,
    check_duration: Histogram,
    dead_letters: Counters,
    missing: Counters,
    late: Counters,
    skipped_windows: Counters,
    stale_panes: Counters,
    rest_segment: Counters,
    segments: Gauges,
    unreadable_times: Counters,
    tombstones: IntCounter,
    commits: IntCounter,
    commit_duration: Histogram,
    aborted: IntCounter,
    unknown: IntCounter,
    rebalances: IntCounter,
    tasks: IntGaugeVec,
    restored: IntCounter,
    restore_remaining: Gauges,
    standby_lag: Gauges,
    rolling_reference: Gauges,
    restores_from_start: IntCounter,
    tasks_corrupted: IntCounter,
    offsets_expired: IntCounter,
    state_bytes: IntGauge,
    threads_replaced: IntCounter,
    owners: Mutex<Owners>,
}

/// Who has what, so that series can go with it.
#[derive(Default)]
struct Owners {
    /// States of each thread's tasks.
    states: BTreeMap<String, BTreeMap<&'static str, usize>>,
    /// How many tasks of this process a partition has: for a moment two, when it moves from thread to thread.
    partitions: BTreeMap<(Arc<str>, Partition), usize>,
    /// What is checked, by the topic that is read for it.
    monitors: BTreeMap<Arc<str>, Vec<(Scope, Arc<str>)>>,
}

impl Metrics {
    /// Metrics with at most `max_series` series of which the number is not fixed.
    ///
    /// # Errors
    /// When a name or label is not legal: a fault of Leeway, seen by every test.
    pub fn new(max_series: usize) -> Result<Self, prometheus::Error> {
        let register = Register::new(&Budget::new(max_series));
        register.build_info()?;
        let tasks = IntGaugeVec::new(
            Opts::new("leeway_tasks", "Tasks of this instance by state: created, restoring, running."),
            &["state"],
        )?;
        register.add(&tasks)?;
        Ok(Self {
            consumed: register.counters(
                "kafka_messages_consumed_total",
                "Records taken from the input, valid or not.",
                &["topic", "partition"],
            )?,
            processed: register.counters(
                "leeway_records_processed_total",
                "Valid records counted into windows.",
                &["topic", "partition"],
            )?,
            lag: register.gauges(
                "kafka_consumer_lag",
                "Records between the committed position and the end of the log.",
                &["topic", "partition"],
            )?,
            checks: CheckMetrics::new(&register)?,
            // A check of one feature takes a microsecond, one of a hundred features a hundred.
            check_duration: register.histogram("psi_calculation_duration_seconds", "Time of a check of all its features.", 1e-6, 12)?,
            dead_letters: register.counters(
                "leeway_dead_letters_total",
                "Records that are no JSON object, by reason.",
                &["topic", "reason"],
            )?,
            missing: register.counters(
                "leeway_missing_values_total",
                "Values missing in valid records, by reason.",
                &["monitor", "feature", "reason"],
            )?,
            late: register.counters(
                "leeway_late_records_total",
                "What time windows did not count. Records: all of their windows were closed (late), some (late_for_some), no time (no_time), pane full (full). \
                 Of the whole topic, partitions' windows: its window was checked (late_window), or given up (waited_too_long).",
                &["monitor", "reason"],
            )?,
            skipped_windows: register.counters(
                "leeway_skipped_windows_total",
                "Time windows that were not checked for having fewer records than min_samples.",
                &["monitor"],
            )?,
            rest_segment: register.counters(
                "leeway_rest_segment_records_total",
                "Records (in scope global: panes) counted in the segment __rest__, by reason.",
                &["monitor", "reason"],
            )?,
            segments: register.gauges(
                "leeway_segments",
                "Segments that live.",
                &["monitor", "topic", "partition"],
            )?,
            stale_panes: register.counters(
                "leeway_stale_panes_total",
                "Panes left out of the window of the whole topic: measured by an earlier reference than it is.",
                &["monitor"],
            )?,
            unreadable_times: register.counters(
                "leeway_unreadable_times_total",
                "Records whose timestamp_field says no time; their own timestamp was taken.",
                &["monitor"],
            )?,
            tombstones: register.counter("leeway_tombstones_total", "Records without a value, which are skipped.")?,
            commits: register.counter("leeway_commits_total", "Committed transactions.")?,
            commit_duration: register.histogram(
                "leeway_commit_duration_seconds",
                "From the end of an epoch to its committed transaction.",
                1e-3,
                9,
            )?,
            aborted: register.counter(
                "leeway_transactions_aborted_total",
                "Aborted transactions; their records are processed again.",
            )?,
            unknown: register.counter(
                "leeway_transactions_unknown_total",
                "Transactions whose outcome had to be asked from the group.",
            )?,
            rebalances: register.counter("leeway_rebalances_total", "Rebalances of the group that this instance saw.")?,
            restored: register.counter("leeway_restore_records_total", "Changelog records read by restores.")?,
            restore_remaining: register.gauges(
                "leeway_restore_remaining",
                "Changelog records that a restore has still to read.",
                &["topic", "partition"],
            )?,
            standby_lag: register.gauges(
                "leeway_standby_lag",
                "Changelog records that the copy of a task that runs elsewhere has still to read.",
                &["topic", "partition"],
            )?,
            rolling_reference: register.gauges(
                "leeway_rolling_reference_end_timestamp_seconds",
                "End of the period of which a monitor's rolling reference is; at the instance that renews it.",
                &["monitor"],
            )?,
            restores_from_start: register.counter(
                "leeway_restores_from_start_total",
                "Restores for which the local state was too old or damaged.",
            )?,
            tasks_corrupted: register.counter(
                "leeway_tasks_corrupted_total",
                "Restored tasks that contradicted themselves or the group.",
            )?,
            offsets_expired: register.counter(
                "leeway_offsets_expired_total",
                "Tasks that went on from their state since the group's offset was gone.",
            )?,
            state_bytes: register.gauge("leeway_state_bytes", "Size of the local state.")?,
            threads_replaced: register.counter("leeway_stream_threads_replaced_total", "Stream threads that failed and were replaced.")?,
            tasks,
            registry: register.into_registry(),
            owners: Mutex::new(Owners::default()),
        })
    }

    /// Makes a monitor known: its counters stand at 0 from the start, which rates need, and its PSI goes with the tasks that check it.
    /// `topic`: what is read for checks of this scope.
    pub fn add_monitor(&self, topic: &Arc<str>, scope: Scope, monitor: &Arc<str>) {
        self.checks.add_monitor(topic, scope, monitor);
        let owned = (scope, monitor.clone());
        self.owners().monitors.entry(topic.clone()).or_default().push(owned);
    }

    /// Makes a monitor's limits of quality known: its counters stand at 0 from the start.
    pub fn add_quality(&self, scope: Scope, monitor: &str) {
        self.checks.add_quality(scope, monitor);
    }

    /// Adds what Prometheus' own client libraries tell of a process: memory, processor time, open files, when it began.
    ///
    /// # Errors
    /// When it was added before: a fault of Leeway.
    pub fn watch_process(&self) -> Result<(), prometheus::Error> {
        watch_process(&self.registry)
    }

    /// The metrics of one task; dropping them removes the series that speak of the present. The dead letters of its topic stand at 0 from the start:
    /// the first of them would otherwise be no increase.
    #[must_use]
    pub fn task(self: &Arc<Self>, topic: &Arc<str>, partition: Partition) -> TaskMetrics {
        for reason in Rejected::REASONS {
            self.dead_letters.counter(&[topic, reason]);
        }
        *self.owners().partitions.entry((topic.clone(), partition)).or_default() += 1;
        TaskMetrics::new(self.clone(), topic.clone(), partition)
    }

    /// Committed checks of features and their summaries, the first ones first.
    pub fn checked<'a>(&self, checks: impl Iterator<Item = &'a Checked>) {
        self.checks.all_checked(checks);
    }

    /// A committed quality check of one feature.
    pub fn quality_checked(&self, event: &QualityEvent) {
        self.checks.quality_checked(event);
    }

    /// How long a check of all its features took.
    pub fn observe_check(&self, duration: Duration) {
        self.check_duration.observe(duration.as_secs_f64());
    }

    /// A record that is no JSON object.
    pub fn dead_letter(&self, topic: &str, reason: &str) {
        self.dead_letters.counter(&[topic, reason]).inc();
    }

    /// Values that were missing in valid records.
    pub fn missing_values(&self, monitor: &str, feature: &str, missing: Missing, count: u64) {
        let reason = match missing {
            Missing::Absent => "absent",
            Missing::Null => "null",
            Missing::Type => "type",
            Missing::Range => "range",
        };
        self.missing.counter(&[monitor, feature, reason]).inc_by(count);
    }

    /// Records and windows that do not count as they came.
    pub fn irregular(&self, monitor: &str, irregular: Irregular, count: u64) {
        match irregular {
            Irregular::UnreadableTime => self.unreadable_times.counter(&[monitor]).inc_by(count),
            Irregular::SkippedWindow => self.skipped_windows.counter(&[monitor]).inc_by(count),
            Irregular::StalePane => self.stale_panes.counter(&[monitor]).inc_by(count),
            Irregular::NoRoomForSegment | Irregular::LongSegment => self.rest_segment.counter(&[monitor, irregular.reason()]).inc_by(count),
            _ => self.late.counter(&[monitor, irregular.reason()]).inc_by(count),
        }
    }

    /// Segments of a monitor that live in one partition.
    pub fn set_segments(&self, monitor: &str, input: &crate::broker::TopicPartition, segments: usize) {
        self.segments.set(&[monitor, &input.topic, &input.partition.to_string()], segments as f64);
    }

    /// A committed transaction, and how long that took.
    pub fn committed(&self, duration: Duration) {
        self.commits.inc();
        self.commit_duration.observe(duration.as_secs_f64());
    }

    /// An aborted transaction.
    pub fn aborted(&self) {
        self.aborted.inc();
    }

    /// A transaction whose outcome nobody knows yet.
    pub fn outcome_unknown(&self) {
        self.unknown.inc();
    }

    /// Partitions came or went.
    pub fn rebalanced(&self) {
        self.rebalances.inc();
    }

    /// A restore for which the local state was of no use.
    pub fn restored_from_start(&self) {
        self.restores_from_start.inc();
    }

    /// A restored task that contradicts itself or the group.
    pub fn task_corrupted(&self) {
        self.tasks_corrupted.inc();
    }

    /// A task that went on from its state, since the group's offset was gone.
    pub fn offsets_expired(&self) {
        self.offsets_expired.inc();
    }

    /// A stream thread that was replaced.
    pub fn thread_replaced(&self) {
        self.threads_replaced.inc();
    }

    /// Size of the local state.
    pub fn set_state_bytes(&self, bytes: u64) {
        self.state_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How far the copy of a task is behind its changelog.
    pub fn standby_lag(&self, topic: &str, partition: Partition, records: u64) {
        self.standby_lag.set(&[topic, &partition.to_string()], records as f64);
    }

    /// This instance has no copy of the task any more.
    pub fn standby_ended(&self, topic: &str, partition: Partition) {
        let number = partition.to_string();
        self.standby_lag.remove_where(|labels| labels == [topic, number.as_str()]);
    }

    /// The end of the period of which a monitor's rolling reference is.
    pub fn rolling_reference(&self, monitor: &str, until: Timestamp) {
        self.rolling_reference.set(&[monitor], until.0 as f64 / 1000.0);
    }

    /// Another instance renews a monitor's rolling reference.
    pub fn rolling_reference_ended(&self, monitor: &str) {
        self.rolling_reference.remove_where(|labels| labels == [monitor]);
    }

    /// States of one thread's tasks; those of all threads are added up. An ended thread has none: give an empty map.
    pub fn set_tasks(&self, thread: &str, states: &BTreeMap<&'static str, usize>) {
        let mut owners = self.owners();
        owners.states.insert(thread.to_owned(), states.clone());
        let mut sums: BTreeMap<&str, usize> = ["created", "restoring", "running"].map(|state| (state, 0)).into();
        for (state, count) in owners.states.values().flatten() {
            *sums.entry(state).or_default() += count;
        }
        for (state, count) in sums {
            self.tasks.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When the encoder refuses a family: a fault of Leeway.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        render([&self.registry])
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, Owners> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task has ended: what spoke of its present goes, unless another thread has taken the partition over.
    fn task_ended(&self, topic: &Arc<str>, partition: Partition) {
        let mut owners = self.owners();
        let key = (topic.clone(), partition);
        let left = owners.partitions.get(&key).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            owners.partitions.insert(key, left);
            return;
        }
        owners.partitions.remove(&key);
        let monitors = owners.monitors.get(topic).cloned().unwrap_or_default();
        drop(owners);
        let number = partition.to_string();
        let of_partition = |labels: &[String]| labels == [&**topic, number.as_str()];
        self.lag.remove_where(of_partition);
        self.restore_remaining.remove_where(of_partition);
        // A window of the whole topic has no partition in its series: where another task of this process has it, its next check shows it again.
        self.checks.remove_where(|labels| {
            let is_of = |scope: &Scope| labels[1] == scope.as_str() && (*scope == Scope::Global || labels[2] == number);
            monitors.iter().any(|(scope, monitor)| **monitor == *labels[0] && is_of(scope))
        });
    }
}
