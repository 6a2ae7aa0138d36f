//! From flags, environment and file to one checked [`Config`]: precedence, and what no single value can say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use leeway_topology::drift::{Criteria, SummaryRule, Thresholds};
use leeway_topology::event::Scope;
use leeway_topology::field::Field;
use leeway_topology::metric::Metric;
use leeway_topology::processor::Scopes;
use leeway_topology::quality::{ByViolation, Quality};
use leeway_topology::significance::Correction;
use leeway_topology::window::time::TimeWindow;
use leeway_topology::window::{CountWindow, Window};

use super::alert;
use super::checks::{check_names, check_topics, share_dead_letter_topics};
use super::file::{self, FileSettings, Settings};
use super::flags::ConfigFlags;
use super::keys::{self, KEYS, Key, Table};
use super::rules;
use super::value::{Setting, Source, Value, duration_ms};
use super::view::{View, source_of};
use super::{Config, ConfigError, DashboardConfig, HttpConfig, KafkaConfig, LogFormat, MonitorConfig, ReferenceSource};
use crate::memory::{Memory, TooLittle};
use crate::task::Start;

const SEGMENT_BY: &str = "monitor.segment_by";
const SEGMENT_EXPIRY: &str = "monitor.segment_expiry";
const GRACE: &str = "monitor.window.grace";
const TIMESTAMP_FIELD: &str = "monitor.window.timestamp_field";
const LATE: &str = "monitor.window.late";
const IDLE_CLOSE_AFTER: &str = "monitor.window.idle_close_after";

/// Builds the configuration. A pure function of its arguments, but for the files that secrets are kept in.
///
/// # Errors
/// Every fault that was found, one message each.
pub fn load(flags: &ConfigFlags, environment: &BTreeMap<String, String>, file: Option<(&Path, &str)>) -> Result<Config, ConfigError> {
    let mut faults = Vec::new();
    let mut file = file.map(|(path, text)| file::read(path, text, &mut faults)).unwrap_or_default();
    if file.monitors.is_empty() {
        file.monitors.push(Settings::new());
    }
    let FileSettings {
        common,
        monitors,
        channels,
        properties,
    } = file;
    let mut resolver = Resolver {
        flags,
        environment,
        faults: &mut faults,
    };
    let common = resolver.resolve(common, Table::Common, true);
    let monitors: Vec<_> = monitors
        .into_iter()
        .enumerate()
        .map(|(index, settings)| resolver.resolve(settings, Table::Monitor, index == 0))
        .collect();
    let channels: Vec<_> = channels
        .into_iter()
        .map(|settings| resolver.resolve(settings, Table::Channel, false))
        .collect();
    let resolved = Resolved {
        common,
        monitors,
        channels,
        properties,
    };
    let config = build(resolved, &mut faults);
    if faults.is_empty() { Ok(config) } else { Err(ConfigError { faults }) }
}

/// All settings with their sources, after precedence. Kept in the configuration so that it can be printed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resolved {
    pub(super) common: Settings,
    pub(super) monitors: Vec<Settings>,
    pub(super) channels: Vec<Settings>,
    pub(super) properties: BTreeMap<String, file::Property>,
}

struct Resolver<'a> {
    flags: &'a ConfigFlags,
    environment: &'a BTreeMap<String, String>,
    faults: &'a mut Vec<String>,
}

impl Resolver<'_> {
    /// Fills up what the file says. Flags and environment speak of the first monitor alone.
    fn resolve(&mut self, mut file: Settings, table: Table, from_outside: bool) -> Settings {
        let mut settings = Settings::new();
        for key in KEYS.iter().filter(|key| key.table() == table) {
            let written = file.remove(key.path);
            let outside = if from_outside { self.outside(key) } else { None };
            settings.insert(key.path, outside.or(written).unwrap_or_else(|| self.default(key)));
        }
        settings
    }

    fn outside(&mut self, key: &'static Key) -> Option<Setting> {
        let flag = key
            .flag
            .zip(self.flags.values.get(key.path))
            .map(|(flag, text)| (Source::Flag(flag), text));
        // An empty variable is how many deployments spell "not set".
        let variable = || {
            key.variable
                .and_then(|name| Some((Source::Environment(name), self.environment.get(name).filter(|text| !text.is_empty())?)))
        };
        let (source, text) = flag.or_else(variable)?;
        let value = key.parse(text).map_err(|allowed| {
            let shown = if key.secret { "\"***\"".to_owned() } else { format!("{text:?}") };
            let hint = if text.starts_with("tcp://") {
                " (Kubernetes sets such variables for services: enableServiceLinks: false)"
            } else {
                ""
            };
            self.faults.push(format!("{} = {shown} ({source}): {allowed}{hint}", key.path));
        });
        Some(Setting { value: value.ok(), source })
    }

    fn default(&mut self, key: &Key) -> Setting {
        let value = key.default.and_then(|text| {
            key.parse(text)
                .map_err(|allowed| self.faults.push(format!("{} (default): {allowed}", key.path)))
                .ok()
        });
        Setting {
            value,
            source: Source::Default,
        }
    }
}

fn build(mut resolved: Resolved, faults: &mut Vec<String>) -> Config {
    let view = View(&resolved.common);
    let commit_interval = view.optional_integer("commit_interval_ms");
    let transaction_timeout = view.optional_integer("transaction_timeout_ms");
    if let (Some(commit), Some(timeout)) = (commit_interval, transaction_timeout)
        && commit >= timeout
    {
        faults.push(format!(
            "{}: must be below {}",
            view.named("commit_interval_ms"),
            view.named("transaction_timeout_ms")
        ));
    }
    let application_id = view.text("application_id");
    resolved.monitors.iter_mut().for_each(tumble_by_default);
    let mut monitors: Vec<_> = resolved.monitors.iter().map(|settings| monitor(&View(settings), faults)).collect();
    share_dead_letter_topics(&mut monitors, &resolved.monitors, faults);
    // So that the printed configuration names the topic and not the rule.
    for (monitor, settings) in monitors.iter().zip(&mut resolved.monitors) {
        if let Some(
            setting @ Setting {
                value: None,
                source: Source::Default,
            },
        ) = settings.get_mut("monitor.dead_letter_topic")
        {
            setting.value = Some(Value::Text(monitor.dead_letter_topic.clone()));
        }
    }
    let view = View(&resolved.common);
    check_names(&monitors, &resolved.monitors, faults);
    check_topics(&application_id, &monitors, &resolved.monitors, faults);
    if faults.is_empty() {
        // What only the dataflow knows.
        faults.extend(monitors.iter().filter_map(|monitor| Some(monitor.to_monitor().err()?.to_string())));
    }
    Config {
        state_dir: PathBuf::from(view.text("state_dir")),
        memory: memory(&view, faults),
        num_stream_threads: view.optional_size("num_stream_threads"),
        commit_interval: Duration::from_millis(commit_interval.unwrap_or_default()),
        transaction_timeout: Duration::from_millis(transaction_timeout.unwrap_or_default()),
        standby: view.is_on("standby"),
        log: view.text("log"),
        log_format: if view.text("log_format") == "json" {
            LogFormat::Json
        } else {
            LogFormat::Text
        },
        max_series: view.size("metrics.max_series"),
        kafka: KafkaConfig {
            bootstrap_servers: view.text("kafka.bootstrap_servers"),
            properties: resolved
                .properties
                .iter()
                .map(|(name, property)| (name.clone(), property.value.expose().to_owned()))
                .collect(),
        },
        http: HttpConfig {
            host: view.text("http.host"),
            port: view.port("http.port"),
            port_is_set: resolved.common.get("http.port").is_some_and(|setting| setting.source != Source::Default),
            advertised: view.optional_text("http.advertised"),
            bearer_token: view.secret("http.bearer_token"),
        },
        dashboard: DashboardConfig {
            host: view.text("dashboard.host"),
            port: view.port("dashboard.port"),
            port_is_set: resolved
                .common
                .get("dashboard.port")
                .is_some_and(|setting| setting.source != Source::Default),
        },
        alert: alert::build(&resolved.common, &resolved.channels, &application_id, faults),
        application_id,
        monitors,
        resolved,
    }
}

fn memory(view: &View<'_>, faults: &mut Vec<String>) -> Memory {
    let cache = view.optional_size("state_cache_max_bytes");
    // There may be fewer, of few partitions: they are not known yet.
    let threads = view
        .optional_size("num_stream_threads")
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let max_bytes = view
        .optional_size("memory_max_bytes")
        .unwrap_or_else(|| Memory::usual_max_bytes(threads, cache));
    Memory::share(max_bytes, threads, cache).unwrap_or_else(|TooLittle { least }| {
        let beside = cache.map(|_| format!(" and {}", view.named("state_cache_max_bytes"))).unwrap_or_default();
        let plural = if threads == 1 { "thread" } else { "threads" };
        let name = view.named("memory_max_bytes");
        faults.push(format!("{name}: too little for {threads} stream {plural}{beside}; at least {least}"));
        Memory::default()
    })
}

fn count_window(view: &View<'_>, faults: &mut Vec<String>) -> Window {
    let (size, every) = ("monitor.window.size", "monitor.window.every");
    for path in [size, every] {
        if view.optional_text(path).is_some() {
            faults.push(format!(
                "{}: a count window is so many records; durations need kind = \"time\"",
                view.named(path)
            ));
        }
    }
    for path in [GRACE, TIMESTAMP_FIELD, IDLE_CLOSE_AFTER] {
        if view.optional_text(path).is_some() {
            faults.push(format!("{}: only windows of kind = \"time\" have it", view.named(path)));
        }
    }
    if view.text(LATE) == "dead_letter" {
        faults.push(format!("{}: only windows of kind = \"time\" have late records", view.named(LATE)));
    }
    let (Some(records), Some(between)) = (view.optional_integer(size), view.optional_integer(every)) else {
        return Window::default();
    };
    match CountWindow::new(records, between) {
        Ok(window) => Window::Count(window),
        Err(error) => {
            faults.push(format!("{}, {}: {error}", view.named(every), view.named(size)));
            Window::default()
        }
    }
}

/// Time windows that say nothing else begin where the one before ends.
fn tumble_by_default(monitor: &mut Settings) {
    let view = View(monitor);
    let is_time = view.text("monitor.window.kind") == "time";
    if is_time && *source_of(monitor, "monitor.window.every") == Source::Default {
        let value = view.value("monitor.window.size").cloned();
        let source = Source::Default;
        monitor.insert("monitor.window.every", Setting { value, source });
    }
}

fn time_window(view: &View<'_>, faults: &mut Vec<String>) -> Window {
    let (size, every) = ("monitor.window.size", "monitor.window.every");
    let mut length = |path: &str| -> Option<u64> {
        if view.optional_integer(path).is_some() && *source_of(view.0, path) != Source::Default {
            faults.push(format!("{}: with kind = \"time\" it must be a duration such as \"5m\"", view.named(path)));
        }
        duration_ms(&view.optional_text(path)?)
    };
    let (size_ms, every_ms, grace_ms) = (length(size), length(every), length(GRACE).unwrap_or(0));
    let Some(size_ms) = size_ms else {
        if *source_of(view.0, size) == Source::Default {
            faults.push(format!("{size}: must be given with kind = \"time\", as a duration such as \"5m\""));
        }
        return Window::default();
    };
    let Some(every_ms) = every_ms else { return Window::default() };
    match TimeWindow::new(size_ms, every_ms, grace_ms) {
        Ok(window) => Window::Time(window),
        Err(error) => {
            faults.push(format!("{}, {}: {error}", view.named(every), view.named(size)));
            Window::default()
        }
    }
}

const POSSIBLE_DRIFT: &str = "monitor.thresholds.possible_drift";
const DRIFT: &str = "monitor.thresholds.drift";
const AT_LEAST: &str = "monitor.summary.at_least";

/// What a check asks.
fn criteria(view: &View<'_>, faults: &mut Vec<String>) -> Criteria {
    let mut thresholds = Thresholds::default();
    if let (Some(possible_drift), Some(drift)) = (view.decimal(POSSIBLE_DRIFT), view.decimal(DRIFT)) {
        thresholds = Thresholds { possible_drift, drift };
        if drift < possible_drift {
            faults.push(format!("{}: must not be below {}", view.named(DRIFT), view.named(POSSIBLE_DRIFT)));
        }
    }
    let decided_by = view.text("monitor.decided_by").parse().unwrap_or(Metric::Psi);
    let is_default = |path| *source_of(view.0, path) == Source::Default;
    if decided_by != Metric::Psi && (is_default(POSSIBLE_DRIFT) || is_default(DRIFT)) {
        faults.push(format!(
            "{}: monitor.thresholds must be given with it, both: their defaults are PSI's",
            view.named("monitor.decided_by")
        ));
    }
    let mut feature_thresholds = BTreeMap::new();
    for (feature, own) in view.table("monitor.feature_thresholds") {
        let Value::Table(own) = own else { continue };
        let own = Thresholds {
            possible_drift: number(own.get("possible_drift")).unwrap_or(thresholds.possible_drift),
            drift: number(own.get("drift")).unwrap_or(thresholds.drift),
        };
        if own.drift < own.possible_drift {
            faults.push(format!(
                "{}: feature {feature:?}: drift = {} must not be below possible_drift = {}",
                view.named("monitor.feature_thresholds"),
                own.drift,
                own.possible_drift
            ));
        }
        feature_thresholds.insert(feature, own);
    }
    let summary = match (view.text("monitor.summary.rule").as_str(), view.decimal(AT_LEAST)) {
        ("share", Some(at_least)) => SummaryRule::Share { at_least },
        ("share", None) if is_default(AT_LEAST) => {
            faults.push(format!("{AT_LEAST}: must be given with rule = \"share\", such as 0.3"));
            SummaryRule::Mean
        }
        ("mean", Some(_)) => {
            faults.push(format!("{}: has no meaning without rule = \"share\"", view.named(AT_LEAST)));
            SummaryRule::Mean
        }
        _ => SummaryRule::Mean,
    };
    let weights = view.table("monitor.weights");
    let metrics = view.list("monitor.metrics").unwrap_or_default();
    Criteria {
        metrics: metrics.iter().filter_map(|metric| metric.parse().ok()).collect(),
        decided_by,
        thresholds,
        feature_thresholds,
        epsilon: view.decimal("monitor.epsilon").unwrap_or_default(),
        significance: view.decimal("monitor.significance").unwrap_or_default(),
        correction: if view.text("monitor.correction") == "false_discovery_rate" {
            Correction::BenjaminiHochberg
        } else {
            Correction::Bonferroni
        },
        summary,
        weights: weights
            .into_iter()
            .filter_map(|(name, weight)| Some((name, number(Some(&weight))?)))
            .collect(),
    }
}

fn number(value: Option<&Value>) -> Option<f64> {
    match value {
        Some(Value::Decimal(number)) => Some(*number),
        _ => None,
    }
}

/// From which shares of faulty values on their quality is violated. What a feature's own leave out is the monitor's.
fn quality(view: &View<'_>) -> Quality {
    let limits = ByViolation {
        missing: view.decimal("monitor.quality.missing"),
        other: view.decimal("monitor.quality.other"),
        out_of_range: view.decimal("monitor.quality.out_of_range"),
    };
    let own = view.table("monitor.feature_quality").into_iter();
    Quality {
        limits,
        feature_limits: own
            .filter_map(|(feature, own)| {
                let Value::Table(own) = own else { return None };
                let own = ByViolation {
                    missing: number(own.get("missing")).or(limits.missing),
                    other: number(own.get("other")).or(limits.other),
                    out_of_range: number(own.get("out_of_range")).or(limits.out_of_range),
                };
                Some((feature, own))
            })
            .collect(),
    }
}

fn monitor(view: &View<'_>, faults: &mut Vec<String>) -> MonitorConfig {
    let window = if view.text("monitor.window.kind") == "time" {
        time_window(view, faults)
    } else {
        count_window(view, faults)
    };
    let criteria = criteria(view, faults);
    let (features, scopes) = (view.list("monitor.features"), view.list("monitor.scopes"));
    for (path, items) in [("monitor.features", &features), ("monitor.scopes", &scopes)] {
        if items.as_ref().is_some_and(Vec::is_empty) {
            faults.push(format!("{}: an empty list: leave it out for the default", view.named(path)));
        }
    }
    let scopes = scopes.unwrap_or_default();
    let has = |scope: Scope| scopes.iter().any(|name| name == scope.as_str());
    let scopes = Scopes {
        partition: has(Scope::Partition),
        global: has(Scope::Global),
    };
    let (segment_by, segment_expiry_ms) = segments(view, window, faults);
    let topic = view.text("monitor.topic");
    MonitorConfig {
        name: view.text("monitor.name"),
        events_topic: view.text("monitor.events_topic"),
        dead_letter_topic: view.optional_text("monitor.dead_letter_topic").unwrap_or_else(|| format!("{topic}-dlq")),
        topic,
        reference: match view.optional_text("monitor.reference") {
            None => ReferenceSource::Published,
            Some(text) => reference_source(&text),
        },
        start: if view.text("monitor.start") == "latest" {
            Start::Latest
        } else {
            Start::Earliest
        },
        features,
        paths: view.pointers("monitor.paths"),
        scopes,
        window,
        timestamp_field: view.optional_text(TIMESTAMP_FIELD).and_then(|field| field.parse().ok()),
        late_to_dead_letters: view.text(LATE) == "dead_letter",
        idle_close_after_ms: view.optional_text(IDLE_CLOSE_AFTER).and_then(|text| duration_ms(&text)),
        min_samples: view.integer("monitor.min_samples"),
        criteria,
        quality: quality(view),
        max_categories: view.size("monitor.max_categories"),
        segment_by,
        max_segments: view.integer("monitor.max_segments"),
        segment_expiry_ms,
    }
}

/// A path, unless it says how a reference is made of the topic; that it does so rightly was asked before.
fn reference_source(text: &str) -> ReferenceSource {
    let first = || text.strip_prefix(rules::FIRST)?.parse().ok().map(ReferenceSource::First);
    let rolling = || {
        text.starts_with(rules::ROLLING)
            .then(|| text.parse().ok().map(ReferenceSource::Rolling))?
    };
    first().or_else(rolling).unwrap_or_else(|| ReferenceSource::File(PathBuf::from(text)))
}

/// By what records are watched apart, and when a segment expires.
fn segments(view: &View<'_>, window: Window, faults: &mut Vec<String>) -> (Vec<Field>, Option<u64>) {
    let fields = view.list(SEGMENT_BY).unwrap_or_default();
    if fields.len() > SEGMENT_FIELDS_MAX {
        faults.push(format!("{}: at most {SEGMENT_FIELDS_MAX} fields are possible", view.named(SEGMENT_BY)));
    }
    let expiry_ms = view.optional_text(SEGMENT_EXPIRY).and_then(|text| duration_ms(&text));
    if let Some(expiry_ms) = expiry_ms {
        let named = view.named(SEGMENT_EXPIRY);
        if fields.is_empty() {
            faults.push(format!("{named}: has no meaning without segment_by"));
        } else if expiry_ms == 0 {
            faults.push(format!("{named}: must be longer than nothing; leave it out to keep segments for ever"));
        } else if let Window::Time(settings) = window
            && expiry_ms < settings.size_ms() + settings.grace_ms()
        {
            faults.push(format!(
                "{named}: must be at least the window's size and grace, or its last windows would never close"
            ));
        }
    }
    let fields = fields.iter().filter_map(|field| field.parse().ok()).collect();
    (fields, expiry_ms)
}

/// Each makes every event longer.
const SEGMENT_FIELDS_MAX: usize = 8;

impl Resolved {
    /// Whether anything but the default set this key (for a monitor's key: of the first monitor).
    pub(super) fn is_set(&self, path: &str) -> bool {
        let of_monitor = keys::find(path).is_some_and(Key::is_of_monitor);
        let settings = if of_monitor { self.monitors.first() } else { Some(&self.common) };
        settings.is_some_and(|settings| *source_of(settings, path) != Source::Default)
    }
}
