//! Counters and gauges of `leeway alert`. Series are bounded by the number of channels and of the topics' partitions.

use prometheus::{Encoder as _, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::http::Exposition;

/// All metrics of the process.
pub struct AlertMetrics {
    registry: Registry,
    events: IntCounterVec,
    alerts: IntCounterVec,
    waiting: IntGaugeVec,
    open: IntGaugeVec,
    lag: GaugeVec,
    active: IntGauge,
}

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is there.
    Delivered,
    /// An attempt failed; there will be another.
    Retried,
    /// It is refused, and parked until the next start.
    Refused,
    /// It had to go, since more were waiting than are kept.
    Dropped,
    /// It was parked for so long that nobody wants it any more.
    Outdated,
}

impl Sent {
    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::Outdated => "outdated",
        }
    }
}

impl AlertMetrics {
    /// All of them, at 0 for each channel.
    ///
    /// # Errors
    /// When a name or label is not legal: a fault of Leeway, seen by every test.
    pub fn new(channels: &[String]) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let build_info = gauges("leeway_build_info", "Always 1; which build this is.", &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let events = counters(
            "leeway_alert_events_total",
            "Records read from the topics of events: drift, quality, unknown (another kind), malformed.",
            &["kind"],
        )?;
        let alerts = counters(
            "leeway_alerts_total",
            "Messages by channel and outcome: delivered; retried (an attempt failed); refused (parked until the next start); dropped (too many waiting); \
             outdated (parked for longer than alert.max_age).",
            &["channel", "outcome"],
        )?;
        let waiting = gauges(
            "leeway_alerts_waiting",
            "Messages that are not delivered yet, refused ones included.",
            &["channel"],
        )?;
        let open = gauges("leeway_alert_incidents", "Incidents by channel that are open and told.", &["channel"])?;
        let lag = GaugeVec::new(
            Opts::new("kafka_consumer_lag", "Records between the position and the end of the log."),
            &["topic", "partition"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        let active = IntGauge::new(
            "leeway_alert_active",
            "1 where this process is the one of its group that alerts, 0 where it stands by.",
        )?;
        registry.register(Box::new(active.clone()))?;
        for channel in channels {
            for outcome in [Sent::Delivered, Sent::Retried, Sent::Refused, Sent::Dropped, Sent::Outdated] {
                alerts.with_label_values(&[channel.as_str(), outcome.as_str()]);
            }
            waiting.with_label_values(&[channel.as_str()]);
            open.with_label_values(&[channel.as_str()]);
        }
        Ok(Self {
            registry,
            events,
            alerts,
            waiting,
            open,
            lag,
            active,
        })
    }

    /// A record was read.
    pub fn event(&self, kind: &str) {
        self.events.with_label_values(&[kind]).inc();
    }

    /// Something came of a message.
    pub fn sent(&self, channel: &str, sent: Sent) {
        self.alerts.with_label_values(&[channel, sent.as_str()]).inc();
    }

    /// How many messages wait, and how many incidents are open.
    pub fn set_channel(&self, channel: &str, waiting: usize, open: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.waiting.with_label_values(&[channel]).set(number(waiting));
        self.open.with_label_values(&[channel]).set(number(open));
    }

    /// How far behind a partition is.
    pub fn set_lag(&self, topic: &str, partition: i32, records: i64) {
        self.lag.with_label_values(&[topic, &partition.to_string()]).set(records.max(0) as f64);
    }

    /// Whether this process alerts. Who stands by has no lag.
    pub fn set_active(&self, active: bool) {
        self.active.set(i64::from(active));
        if !active {
            self.lag.reset();
        }
    }
}

impl Exposition for AlertMetrics {
    fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
