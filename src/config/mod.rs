//! The configuration: command line before environment before file before default.
//!
//! ```text
//! --window-size ─┐
//! DRIFT_… ───────┼──> texts and TOML values ──keys: type, range, unavailable──> settings with sources ──contradictions──> Config
//! leeway.toml ───┤                                          │                                               │
//! default ───────┘                                          └──────────────> ConfigError: every fault <─────┘
//! ```
//!
//! - [`keys::KEYS`] is the one table of keys: flags, environment, file, checks, help and printing follow it.
//! - Every fault is reported, each with key, value, source and what is allowed. Nothing unknown is ignored, and what this version cannot do is
//!   refused in words.
//! - Secrets are never printed, neither in faults nor by [`Config::effective_toml`].
//!
//! Not here: whether files and topics are there. That is seen when they are used.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use leeway_topology::drift::Criteria;
use leeway_topology::field::{Field, Pointer};
use leeway_topology::processor::{InvalidMonitor, Monitor, Scopes};
use leeway_topology::quality::Quality;
use leeway_topology::window::Window;

use crate::memory::Memory;
use crate::rolling_reference::Rolling;
use crate::task::Start;

mod alert;
mod checks;
mod effective;
mod file;
mod flags;
pub mod keys;
mod load;
pub mod rules;
#[cfg(test)]
mod tests;
pub mod value;
mod view;

pub use alert::{AlertConfig, ChannelConfig, Target};
pub use flags::ConfigFlags;
pub use load::load;
pub use value::{Secret, duration_ms};

/// The file that is read if it is there and no other is named.
pub const DEFAULT_FILE: &str = "leeway.toml";

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Consumer group, prefix of internal topics and transactional ids.
    pub application_id: String,
    /// Where the state is kept.
    pub state_dir: PathBuf,
    /// How the memory of a process is shared out.
    pub memory: Memory,
    /// `None`: the cores, at most the partitions.
    pub num_stream_threads: Option<usize>,
    /// Longest time between two commits.
    pub commit_interval: Duration,
    /// How long a dead instance's open transaction can hold readers back.
    pub transaction_timeout: Duration,
    /// Whether copies are kept of the state of tasks that run elsewhere.
    pub standby: bool,
    /// A tracing filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Series of `/metrics` at most.
    pub max_series: usize,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// What to watch; at least one.
    pub monitors: Vec<MonitorConfig>,
    /// The worker's own server.
    pub http: HttpConfig,
    /// The dashboard's server.
    pub dashboard: DashboardConfig,
    /// What `leeway alert` is asked for.
    pub alert: AlertConfig,
    resolved: load::Resolved,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How to reach Kafka.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// Librdkafka's properties. May hold secrets.
    pub properties: BTreeMap<String, String>,
}

/// Names of the properties only: their values may be secrets.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &names)
            .finish()
    }
}

/// Where a monitor's reference comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceSource {
    /// The published one.
    Published,
    /// This file, published when its version is new.
    File(PathBuf),
    /// Made from the first records of the topic.
    First(u64),
    /// Made again and again of a stretch of the topic that moves along.
    Rolling(Rolling),
}

/// One monitor.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitorConfig {
    /// Its unique name.
    pub name: String,
    /// Input topic.
    pub topic: String,
    /// Where drift events go.
    pub events_topic: String,
    /// Where records go that are no JSON object; the same for all monitors of a topic.
    pub dead_letter_topic: String,
    /// Where its reference comes from.
    pub reference: ReferenceSource,
    /// Where an application without committed offsets begins; the same for all monitors.
    pub start: Start,
    /// `None`: all of the reference.
    pub features: Option<Vec<String>>,
    /// Where features stand in a record that are not top-level fields of their name.
    pub paths: BTreeMap<String, Pointer>,
    /// Whose records a check looks at.
    pub scopes: Scopes,
    /// The records that a check looks at.
    pub window: Window,
    /// Of time windows: the field with a record's time.
    pub timestamp_field: Option<Field>,
    /// Of time windows: whether late records are dead letters too.
    pub late_to_dead_letters: bool,
    /// Of time windows: after what time an idle partition closes them.
    pub idle_close_after_ms: Option<u64>,
    /// No check before that many records.
    pub min_samples: u64,
    /// What a check asks.
    pub criteria: Criteria,
    /// What shares of faulty values are a violation.
    pub quality: Quality,
    /// Categories with a bin of their own, where a reference is made from data.
    pub max_categories: usize,
    /// The fields whose values make a segment.
    pub segment_by: Vec<Field>,
    /// Segments that may live at once in a partition.
    pub max_segments: u64,
    /// After what stream time without a record a segment is forgotten.
    pub segment_expiry_ms: Option<u64>,
}

/// A worker's own server: metrics, health, queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Name or address to bind.
    pub host: String,
    /// 0: any free one.
    pub port: u16,
    /// If not, and it is taken, the next free one is used.
    pub port_is_set: bool,
    /// Address under which other instances reach this one; `None`: host and port.
    pub advertised: Option<String>,
    /// Asked for by everything but `/health/*`.
    pub bearer_token: Option<Secret>,
}

/// The dashboard's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DashboardConfig {
    /// Name or address to bind.
    pub host: String,
    /// 0: any free one.
    pub port: u16,
    /// If not, and it is taken, the next free one is used.
    pub port_is_set: bool,
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .faults.join("\n"))]
pub struct ConfigError {
    /// One message per fault: key, value, source, what is allowed.
    pub faults: Vec<String>,
}

impl Config {
    /// Whether anything but the default set this key; for a monitor's key, in the first monitor.
    #[must_use]
    pub fn is_set(&self, path: &str) -> bool {
        self.resolved.is_set(path)
    }

    /// The configuration as TOML with secrets masked, each value with its source.
    #[must_use]
    pub fn effective_toml(&self) -> String {
        effective::effective_toml(&self.resolved)
    }

    /// Where partitions without committed offset begin: the same for all monitors, which `load` has checked.
    #[must_use]
    pub fn start(&self) -> Start {
        self.monitors.first().map_or(Start::Earliest, |monitor| monitor.start)
    }
}

impl MonitorConfig {
    /// The settings as the dataflow takes them.
    ///
    /// # Errors
    /// When the dataflow's own check finds what [`load`] did not.
    pub fn to_monitor(&self) -> Result<Monitor, InvalidMonitor> {
        let monitor = Monitor {
            name: self.name.as_str().into(),
            topic: self.topic.as_str().into(),
            events_topic: self.events_topic.as_str().into(),
            dead_letter_topic: self.dead_letter_topic.as_str().into(),
            scopes: self.scopes,
            window: self.window,
            timestamp_field: self.timestamp_field.clone(),
            late_to_dead_letters: self.late_to_dead_letters,
            idle_close_after_ms: self.idle_close_after_ms,
            min_samples: self.min_samples,
            criteria: self.criteria.clone(),
            quality: self.quality.clone(),
            features: self.features.clone(),
            paths: self.paths.clone(),
            segment_by: self.segment_by.clone(),
            max_segments: self.max_segments,
            segment_expiry_ms: self.segment_expiry_ms,
        };
        monitor.validate()?;
        Ok(monitor)
    }
}
