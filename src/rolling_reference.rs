//! Rolling references: for data with seasons, a monitor's reference is made of a stretch of its own topic that moves along.
//!
//! ```text
//!  [end - span ............... end)   lag   now        end: a multiple of `every`
//!          \--> a reference, published, together with `end`, when nobody has published one for this `end` yet
//! ```
//!
//! - A period is a function of the clock and the settings, a record belongs to it by its Kafka timestamp, and the partitions are read one after the other:
//!   every instance makes the same reference.
//! - One instance makes it: the one that has the first partition of the topic. Where two do, since that partition moved in between, the later one
//!   finds what was published and stops, or publishes the same.
//! - To workers it is a publication like any other: they change over after their next check, at a recorded point.
//! - Memory is bounded as for files: the records are read up to three times, never kept.
//!
//! Not here: what a change of reference does to windows; that is the dataflow's.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leeway_topology::ids::{Partition, Timestamp};
use leeway_topology::processor::Monitor;
use leeway_topology::reference::{Reference, ReferenceError};
use tracing::{info, warn};

use crate::broker::{Broker, BrokerError, TopicPartition};
use crate::reference_topic::{self, ReferenceTopicError};
use crate::source::{self, BuildOptions, Built, SourceError};
use crate::stream_thread::Assigned;
use crate::telemetry::metrics::Metrics;

/// How long nothing may come while records are read.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often is looked whether a period has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After Kafka could not be reached, or refused.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Longest time between two references, unless it is set.
const EVERY_MAX_MS: u64 = 24 * 3_600_000;

/// Which stretch of a topic a reference is made of, and how often. Written as `rolling:7d,lag:1d,every:1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// Length of the stretch.
    pub span_ms: u64,
    /// It ends so long ago at least: what is being watched should not become its own reference at once.
    pub lag_ms: u64,
    /// Time between two references.
    pub every_ms: u64,
}

impl Rolling {
    /// Of these durations; without `every` once a day, or once a span if that is shorter.
    ///
    /// # Errors
    /// In words, when one is not possible.
    pub fn new(span_ms: u64, lag_ms: u64, every_ms: Option<u64>) -> Result<Self, &'static str> {
        let every_ms = every_ms.unwrap_or(span_ms.min(EVERY_MAX_MS));
        let too_long = |ms: u64| ms > i64::MAX as u64 / 4;
        if span_ms < 1000 || every_ms < 1000 {
            Err("`rolling` and `every` must be a second or longer")
        } else if too_long(span_ms) || too_long(lag_ms) || too_long(every_ms) {
            Err("that is too long")
        } else {
            Ok(Self { span_ms, lag_ms, every_ms })
        }
    }

    /// The stretch that a reference is to be made of at this time.
    #[must_use]
    pub fn period(&self, now: Timestamp) -> Range<Timestamp> {
        // Bounded by `new`, so each fits.
        let [span, lag, every] = [self.span_ms, self.lag_ms, self.every_ms].map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let end = (now.0 - lag).div_euclid(every) * every;
        Timestamp(end - span)..Timestamp(end)
    }
}

impl FromStr for Rolling {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = BTreeMap::new();
        for part in text.split(',') {
            let (name, duration) = part.split_once(':').ok_or("durations are written as `rolling:7d,lag:1d`")?;
            let ms = crate::config::duration_ms(duration).ok_or("a duration is written as `7d` or `1h 30m`")?;
            if !["rolling", "lag", "every"].contains(&name) || parts.insert(name, ms).is_some() {
                return Err("only `rolling`, `lag` and `every` can be given, each once");
            }
        }
        let span_ms = *parts.get("rolling").ok_or("`rolling` is missing")?;
        Self::new(span_ms, parts.get("lag").copied().unwrap_or(0), parts.get("every").copied())
    }
}

impl fmt::Display for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
        write!(
            f,
            "rolling:{},lag:{},every:{}",
            text(self.span_ms),
            text(self.lag_ms),
            text(self.every_ms)
        )
    }
}

/// One monitor's rolling reference.
#[derive(Clone, Debug)]
pub struct RollingReference {
    /// When, and of what stretch.
    pub rolling: Rolling,
    /// Whose reference it is.
    pub monitor: Arc<Monitor>,
    /// How it is made.
    pub options: BuildOptions,
}

/// What became of a period.
pub enum Made {
    /// Its reference.
    Reference(Box<Built>),
    /// It has only so many valid records; it takes `min_samples`.
    TooFew(u64),
}

/// Why there is no reference.
#[derive(Debug, thiserror::Error)]
pub enum RollingError {
    /// The topic cannot be read.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The reference topic cannot be read or written.
    #[error(transparent)]
    Topic(#[from] ReferenceTopicError),
    /// No reference can be made of the records.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It lacks something that the monitor is set to watch.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl RollingError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Broker(_) => true,
            Self::Topic(error) => error.is_unavailable(),
            Self::Source(_) | Self::Reference(_) => false,
        }
    }
}

impl RollingReference {
    /// Makes the reference of a period. Of each partition from the first record on whose time is in it, up to the first one whose time is after it;
    /// what is in between and of another time, and what is no JSON object, is passed over.
    ///
    /// # Errors
    /// When the topic cannot be read, or no reference can be made of its records.
    pub fn make<B: Broker>(&self, broker: &B, period: &Range<Timestamp>) -> Result<Made, RollingError> {
        let topic = &*self.monitor.topic;
        let (starts, ends) = (
            broker.offsets_at(topic, period.start, TIMEOUT)?,
            broker.offsets_at(topic, period.end, TIMEOUT)?,
        );
        let range = |(partition, start)| Some(BTreeMap::from([(partition, start..*ends.get(&partition)?)]));
        let ranges: Vec<_> = starts.into_iter().filter_map(range).collect();
        let records = Cell::new(0);
        let rows = |visit: &mut dyn FnMut(&[u8])| {
            records.set(0);
            for range in &ranges {
                broker.read_ranges(topic, range, TIMEOUT, &mut |_, record| {
                    if let Some(value) = record.value
                        && record.timestamp.is_some_and(|time| period.contains(&time))
                    {
                        records.set(records.get() + 1);
                        visit(value);
                    }
                    ControlFlow::Continue(())
                })?;
            }
            Ok::<_, RollingError>(())
        };
        let name = format!("records of topic {topic:?} from {}", text(period));
        let built = source::build_reference_of_rows(Path::new(&name), &self.options, rows);
        // Of nothing none can be made: that is no fault of the records.
        let min = self.monitor.min_samples.max(1);
        match built {
            Ok(built) if built.reference.rows() >= min => {
                self.require(&built.reference)?;
                Ok(Made::Reference(Box::new(built)))
            }
            Ok(built) => Ok(Made::TooFew(built.reference.rows())),
            Err(RollingError::Source(_)) if records.get() < min => Ok(Made::TooFew(records.get())),
            Err(error) => Err(error),
        }
    }

    /// Refuses a reference that lacks what the monitor is set to watch.
    fn require(&self, reference: &Reference) -> Result<(), ReferenceError> {
        reference.require(self.monitor.named_features())?;
        match &self.monitor.features {
            Some(features) => reference.select(features).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Makes and publishes the reference of a period, unless that of this period or a later one is published.
    fn renew<B: Broker>(&self, broker: &B, application_id: &str, period: &Range<Timestamp>) -> Result<(), RollingError> {
        let monitor = &*self.monitor.name;
        let is_published = || -> Result<bool, ReferenceTopicError> {
            let until = reference_topic::load(broker, application_id)?.rolled_until(monitor);
            Ok(until.is_some_and(|until| until >= period.end))
        };
        if is_published()? {
            return Ok(());
        }
        let built = match self.make(broker, period)? {
            Made::Reference(built) => built,
            Made::TooFew(found) => {
                let (topic, min) = (&*self.monitor.topic, self.monitor.min_samples);
                let period = text(period);
                warn!(monitor, topic, found, min, %period, "too few records for a rolling reference; the present one stays until the next period");
                return Ok(());
            }
        };
        // Making it takes a while.
        if is_published()? {
            return Ok(());
        }
        Ok(self.publish(broker, application_id, &built, period)?)
    }

    /// Publishes the reference of a period, and tells of it and of what looks odd in it.
    ///
    /// # Errors
    /// As [`reference_topic::publish`].
    pub fn publish<B: Broker>(&self, broker: &B, application_id: &str, built: &Built, period: &Range<Timestamp>) -> Result<(), ReferenceTopicError> {
        let monitor = &*self.monitor.name;
        for warning in &built.warnings {
            warn!(monitor, %warning, "rolling reference");
        }
        reference_topic::publish_rolled(broker, application_id, &built.reference, period.end)?;
        let (version, rows) = (built.reference.version(), built.reference.rows());
        info!(monitor, version, rows, period = %text(period), "published a rolling reference");
        Ok(())
    }
}

/// A period in words, for people.
#[must_use]
pub fn text(period: &Range<Timestamp>) -> String {
    let time = |time: Timestamp| {
        let since = Duration::from_millis(u64::try_from(time.0).unwrap_or(0));
        humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
    };
    format!("{} to {}", time(period.start), time(period.end))
}

/// The time now.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Renews the rolling references of this process's monitors until it is dropped. A reading that is under way then is not waited for.
pub struct Renewal {
    /// Its thread ends when this is gone.
    _stop: Sender<()>,
}

/// What the thread works with.
struct Renewing<B> {
    broker: B,
    application_id: Arc<str>,
    references: Vec<RollingReference>,
    /// What this process has to do: the references of topics of which it has the first partition.
    assigned: Arc<Assigned>,
    metrics: Arc<Metrics>,
}

impl Renewal {
    /// Starts its thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start<B: Broker>(
        broker: B,
        application_id: &Arc<str>,
        references: Vec<RollingReference>,
        assigned: Arc<Assigned>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let renewing = Renewing {
            broker,
            application_id: Arc::clone(application_id),
            references,
            assigned,
            metrics,
        };
        if !renewing.references.is_empty() {
            std::thread::Builder::new()
                .name("rolling-references".to_owned())
                .spawn(move || renewing.run(&stopped))?;
        }
        Ok(Self { _stop: stop })
    }
}

impl<B: Broker> Renewing<B> {
    fn run(&self, stopped: &Receiver<()>) {
        // By monitor: the end of the period that is dealt with.
        let mut done: BTreeMap<&str, Timestamp> = BTreeMap::new();
        let mut pause = LOOK_EVERY;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
            pause = LOOK_EVERY;
            for reference in &self.references {
                let (monitor, period) = (&*reference.monitor.name, reference.rolling.period(now()));
                let first = TopicPartition::new(reference.monitor.topic.clone(), Partition(0));
                if !self.assigned.has(&first) {
                    done.remove(monitor);
                    self.metrics.rolling_reference_ended(monitor);
                    continue;
                }
                if done.get(monitor).is_some_and(|end| *end >= period.end) {
                    continue;
                }
                match reference.renew(&self.broker, &self.application_id, &period) {
                    Ok(()) => _ = done.insert(monitor, period.end),
                    Err(error) if error.may_pass() => {
                        warn!(monitor, %error, "a rolling reference could not be made; trying again in a minute");
                        pause = AGAIN_AFTER;
                    }
                    Err(error) => {
                        warn!(monitor, %error, period = %text(&period), "a rolling reference could not be made; the present one stays until the next period");
                        done.insert(monitor, period.end);
                    }
                }
                self.publish_metric(monitor);
            }
        }
    }

    /// Until when the current reference reaches: one that is not renewed any more is seen there.
    fn publish_metric(&self, monitor: &str) {
        if let Ok(set) = reference_topic::load(&self.broker, &self.application_id)
            && let Some(until) = set.rolled_until(monitor)
        {
            self.metrics.rolling_reference(monitor, until);
        }
    }
}

#[cfg(test)]
mod tests;
