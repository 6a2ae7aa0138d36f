//! What is served: the families of checks, more of what an event says, and how the group and this reader are.
//!
//! Two registries with one bound of series: what is made of events waits until all of them were read, the rest does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use leeway_topology::event::Scope;
use leeway_topology::quality::Violation;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::lock;
use crate::consumers::follow::Progress;
use crate::consumers::group::GroupPosition;
use crate::telemetry::metrics::{Budget, CheckMetrics, Counters, Gauges, Labels, Register, WINDOW, WINDOW_AND_KIND, render, watch_process};

/// What a record of a topic of events is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Drift,
    Quality,
    /// Of another application.
    Foreign,
    /// Of a monitor, scope, feature or segment that the configuration does not have, or not any more.
    NotConfigured,
    /// A kind that this build does not know, or no value.
    Unknown,
    /// No event.
    Malformed,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Drift,
        Self::Quality,
        Self::Foreign,
        Self::NotConfigured,
        Self::Unknown,
        Self::Malformed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Drift => "drift",
            Self::Quality => "quality",
            Self::Foreign => "other_application",
            Self::NotConfigured => "not_configured",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
        }
    }
}

pub(super) struct Families {
    of_events: Registry,
    pub(super) checks: CheckMetrics,
    null_mean: Gauges,
    shares: Gauges,
    last_check: Gauges,
    events: IntCounterVec,

    of_process: Registry,
    caught_up: IntGauge,
    readable: Gauges,
    reader_lag: Gauges,
    lag: Gauges,
    consumed: Counters,
    members: Gauges,
    /// Up to where each partition is counted in `consumed`.
    counted: Mutex<BTreeMap<(Arc<str>, i32), i64>>,
}

impl Families {
    pub(super) fn new(max_series: usize) -> Result<Self, prometheus::Error> {
        let budget = Budget::new(max_series);
        let (of_events, of_process) = (Register::new(&budget), Register::new(&budget));
        of_process.build_info()?;
        let events = IntCounterVec::new(
            Opts::new(
                "leeway_events_read_total",
                "Records of the topics of drift events: drift, quality; passed over: other_application, not_configured (a monitor, scope, feature or \
                 segment that the configuration does not have), unknown (another kind), malformed.",
            ),
            &["topic", "kind"],
        )?;
        of_events.add(&events)?;
        let families = Self {
            checks: CheckMetrics::new(&of_events)?,
            null_mean: of_events.gauges(
                "leeway_psi_null_mean",
                "Noise floor of the last committed check: the mean of PSI without drift.",
                &WINDOW,
            )?,
            shares: of_events.gauges(
                "leeway_value_share",
                "Share of values at the last committed check, with a threshold or without: missing, of all records; other and out_of_range, of the \
                 values that are there.",
                &WINDOW_AND_KIND,
            )?,
            last_check: of_events.gauges(
                "leeway_last_check_timestamp_seconds",
                "When the last summary of a monitor was written.",
                &["monitor", "scope"],
            )?,
            events,
            caught_up: of_process.gauge(
                "leeway_events_caught_up",
                "1 when the drift events that were there at the start are read; before that nothing of them is served.",
            )?,
            readable: of_process.gauges(
                "leeway_events_readable",
                "1 while the topic of drift events can be read, 0 while Kafka or the topic is away.",
                &["topic"],
            )?,
            reader_lag: of_process.gauges(
                "leeway_events_lag",
                "Offsets of the topic of drift events that this reader has still to read.",
                &["topic", "partition"],
            )?,
            lag: of_process.gauges(
                "kafka_consumer_lag",
                "Records between the committed position and the end of the log.",
                &["topic", "partition"],
            )?,
            consumed: of_process.counters(
                "kafka_messages_consumed_total",
                "The group's committed position in the input: the offsets before it, with the markers of transactions where it is written in such.",
                &["topic", "partition"],
            )?,
            members: of_process.gauges(
                "leeway_group_members",
                "Members of the application's group: stream threads of its workers, of all instances.",
                &["group"],
            )?,
            counted: Mutex::default(),
            of_events: of_events.into_registry(),
            of_process: of_process.into_registry(),
        };
        watch_process(&families.of_process)?;
        Ok(families)
    }

    /// Counters of a topic of events stand at 0 from the start.
    pub(super) fn add_topic(&self, topic: &str) {
        for kind in Kind::ALL {
            self.events.with_label_values(&[topic, kind.as_str()]);
        }
    }

    pub(super) fn count(&self, topic: &str, kind: Kind) {
        self.events.with_label_values(&[topic, kind.as_str()]).inc();
    }

    /// What a check of one feature says beside its verdict.
    pub(super) fn set_details(&self, labels: &Labels<'_>, null_mean: Option<f64>, shares: impl IntoIterator<Item = (Violation, f64)>) {
        if let Some(null_mean) = null_mean {
            self.null_mean.set(&labels.window(), null_mean);
        }
        for (kind, share) in shares {
            self.shares.set(&labels.with_kind(kind), share);
        }
    }

    pub(super) fn set_last_check(&self, monitor: &str, scope: Scope, at_ms: i64) {
        self.last_check.set(&[monitor, scope.as_str()], at_ms as f64 / 1000.0);
    }

    /// Removes all gauges of features whose labels, as in [`WINDOW`], are so.
    pub(super) fn remove_where(&self, are_gone: impl Fn(&[String]) -> bool) {
        self.checks.remove_where(&are_gone);
        for gauges in [&self.null_mean, &self.shares] {
            gauges.remove_where(&are_gone);
        }
    }

    /// What a follower says of itself.
    pub(super) fn set_progress(&self, topic: &str, progress: &Progress) {
        self.readable.set(&[topic], f64::from(u8::from(progress.problem.is_none())));
        let known = [
            (Kind::Malformed, progress.malformed),
            (Kind::Unknown, progress.skipped.saturating_sub(progress.malformed)),
        ];
        for (kind, count) in known {
            let counter = self.events.with_label_values(&[topic, kind.as_str()]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    pub(super) fn set_reader_lag(&self, topic: &str, partition: i32, offsets: i64) {
        self.reader_lag.set(&[topic, &partition.to_string()], offsets.max(0) as f64);
    }

    pub(super) fn set_members(&self, group: &str, members: usize) {
        self.members.set(&[group], members as f64);
    }

    /// Where the group stands in a partition. Of one without a committed offset nothing is known.
    pub(super) fn set_position(&self, topic: &Arc<str>, position: &GroupPosition) {
        let Some(committed) = position.committed else { return };
        let number = position.partition.to_string();
        let labels = [&**topic, number.as_str()];
        self.lag.set(&labels, position.lag as f64);
        let before = lock(&self.counted).insert((topic.clone(), position.partition), committed).unwrap_or(0);
        // An application that began anew goes back: a counter does not, and goes on from there.
        self.consumed.counter(&labels).inc_by(u64::try_from(committed - before).unwrap_or(0));
    }

    /// Nobody knows any more where the group stands: numbers that stand still would be taken for an application that does.
    pub(super) fn forget_group(&self) {
        self.lag.remove_where(|_| true);
        self.consumed.remove_where(|_| true);
        self.members.remove_where(|_| true);
        lock(&self.counted).clear();
    }

    /// Everything in Prometheus' text format; what is made of events only when they were all read.
    pub(super) fn render(&self, caught_up: bool) -> Result<String, prometheus::Error> {
        self.caught_up.set(i64::from(caught_up));
        render([&self.of_process, &self.of_events].into_iter().take(if caught_up { 2 } else { 1 }))
    }
}
