//! The table of all configuration keys: one row says everything of a key, and flags, environment, file, checks and printing follow it.

use leeway_topology::window::SIZE_MAX;

use super::rules::{
    ALERT_KIND, APPLICATION_ID, DURATION, FEATURE, FIELD, FILTER, FRACTION, LEVEL, METRIC, MONITOR_NAME, NON_EMPTY, PATTERN, POINTER, POSITIVE,
    REFERENCE, Rule, SCOPE, SERVERS, SHARE, TOPIC, URL, WEIGHT,
};
use super::value::Value;

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its place in the file, `monitor.window.size`.
    pub path: &'static str,
    /// Its flag, without the dashes.
    pub flag: Option<&'static str>,
    /// Its environment variable.
    pub variable: Option<&'static str>,
    /// What values it takes.
    pub kind: Kind,
    /// The default, written as on the command line; `None`: unset.
    pub default: Option<&'static str>,
    /// What unset or an odd default means, for people.
    pub unset: &'static str,
    /// Never printed; `{ file = "path" }` is possible.
    pub secret: bool,
    /// What the key is for.
    pub doc: &'static str,
    /// Says why a value that is sound asks for something that this build does not have.
    pub unavailable: fn(&Value) -> Option<&'static str>,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A text, under a rule that is also told to people.
    Text(Rule<str>),
    /// A whole number.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A whole number of records from 1 on, or a duration.
    Extent {
        /// Most records.
        max: u64,
    },
    /// A number.
    Decimal(Rule<f64>),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts; on the command line separated by commas.
    List(Rule<str>),
    /// A table with a value for each feature that is named; in a file only.
    ByFeature(Item),
}

/// What a feature has in a table of features.
#[derive(Clone, Copy, Debug)]
pub enum Item {
    /// A number.
    Decimal(Rule<f64>),
    /// A text.
    Text(Rule<str>),
    /// `{ possible_drift = 0.1, drift = 0.25 }`, or one of them.
    Thresholds,
    /// `{ missing = 0.05, other = 0.1, out_of_range = 0.01 }`, or some of them.
    Quality,
}

const KEY: Key = Key {
    path: "",
    flag: None,
    variable: None,
    kind: Kind::Text(NON_EMPTY),
    default: None,
    unset: "",
    secret: false,
    doc: "",
    unavailable: |_| None,
};

const PORT: Kind = Kind::Integer { min: 0, max: 65535 };

const TLS: &str = "TLS of the worker's own HTTP server is not available yet: leave it out, or put a proxy in front";

/// How severe a check has to be.
const SEVERITIES: Kind = Kind::Choice(&["possible_drift", "drift"]);

/// Every key, in the order in which they are printed. Those of a [`Table`] of their own exist once per monitor, or once per channel.
pub const KEYS: &[Key] = &[
    Key {
        path: "application_id",
        flag: Some("application-id"),
        variable: Some("KAFKA_GROUP_ID"),
        kind: Kind::Text(APPLICATION_ID),
        default: Some("drift-monitor-group"),
        doc: "Consumer group, prefix of internal topics and transactional ids",
        ..KEY
    },
    Key {
        path: "state_dir",
        flag: Some("state-dir"),
        variable: Some("STATE_DIR"),
        default: Some("./leeway-state"),
        doc: "Where the state is kept; if not set and taken by another process, the next free one",
        ..KEY
    },
    Key {
        path: "memory_max_bytes",
        flag: Some("memory-max-bytes"),
        kind: Kind::Integer { min: 1 << 20, max: 1 << 44 },
        unset: "512 MiB with two stream threads, 32 MiB more for each other",
        doc: "Memory of the process, about: records fetched ahead, RocksDB's caches and buffers, and windows of segments share it",
        ..KEY
    },
    Key {
        path: "state_cache_max_bytes",
        flag: Some("state-cache-max-bytes"),
        kind: Kind::Integer { min: 1 << 20, max: 1 << 44 },
        unset: "what the others leave",
        doc: "Of memory_max_bytes, for the windows of segments; those beyond are read from the state store when a record comes",
        ..KEY
    },
    Key {
        path: "num_stream_threads",
        flag: Some("num-stream-threads"),
        kind: Kind::Integer { min: 1, max: 1024 },
        unset: "the cores, at most the partitions",
        doc: "Threads that process",
        ..KEY
    },
    Key {
        path: "commit_interval_ms",
        flag: Some("commit-interval-ms"),
        kind: Kind::Integer { min: 1, max: 600_000 },
        default: Some("100"),
        doc: "Milliseconds between two commits at most; below the transaction time-out",
        ..KEY
    },
    Key {
        path: "transaction_timeout_ms",
        flag: Some("transaction-timeout-ms"),
        // Upper bound: the broker's default of transaction.max.timeout.ms.
        kind: Kind::Integer { min: 1000, max: 900_000 },
        default: Some("10000"),
        doc: "Milliseconds for which a dead instance's open transaction can hold readers back",
        ..KEY
    },
    Key {
        path: "standby",
        kind: Kind::Boolean,
        default: Some("false"),
        doc: "Keeps copies of the state of tasks that run elsewhere, so that taking them over needs no restore",
        ..KEY
    },
    Key {
        path: "log",
        flag: Some("log"),
        variable: Some("LEEWAY_LOG"),
        kind: Kind::Text(FILTER),
        default: Some("info"),
        doc: "What is logged: a tracing filter",
        ..KEY
    },
    Key {
        path: "log_format",
        flag: Some("log-format"),
        variable: Some("LEEWAY_LOG_FORMAT"),
        kind: Kind::Choice(&["text", "json"]),
        default: Some("text"),
        doc: "`text`, or `json` for JSON lines",
        ..KEY
    },
    Key {
        path: "metrics.max_series",
        flag: Some("metrics-max-series"),
        kind: Kind::Integer { min: 1, max: 10_000_000 },
        default: Some("10000"),
        doc: "Series of /metrics; label sets beyond are summed into `__rest__`",
        ..KEY
    },
    Key {
        path: "kafka.bootstrap_servers",
        flag: Some("bootstrap-servers"),
        variable: Some("KAFKA_BOOTSTRAP_SERVERS"),
        kind: Kind::Text(SERVERS),
        default: Some("localhost:9092"),
        doc: "Brokers to begin with, `host:port`, separated by commas",
        ..KEY
    },
    Key {
        path: "monitor.name",
        kind: Kind::Text(MONITOR_NAME),
        default: Some("default"),
        doc: "Unique name of a monitor",
        ..KEY
    },
    Key {
        path: "monitor.topic",
        flag: Some("topic"),
        variable: Some("KAFKA_TOPIC"),
        kind: Kind::Text(TOPIC),
        default: Some("drift-data"),
        doc: "Input topic",
        ..KEY
    },
    Key {
        path: "monitor.events_topic",
        flag: Some("events-topic"),
        variable: Some("DRIFT_EVENTS_TOPIC"),
        kind: Kind::Text(TOPIC),
        default: Some("drift-events"),
        doc: "Where drift events go",
        ..KEY
    },
    Key {
        path: "monitor.dead_letter_topic",
        flag: Some("dead-letter-topic"),
        variable: Some("DRIFT_DEAD_LETTER_TOPIC"),
        kind: Kind::Text(TOPIC),
        unset: "<topic>-dlq",
        doc: "Where records go that are no JSON object",
        ..KEY
    },
    Key {
        path: "monitor.reference",
        flag: Some("reference"),
        variable: Some("DRIFT_REFERENCE"),
        kind: Kind::Text(REFERENCE),
        unset: "the published one",
        doc: "Reference: a file, published when its version is new, `first:10000` or `rolling:7d,lag:1d`",
        ..KEY
    },
    Key {
        path: "monitor.start",
        flag: Some("start"),
        variable: Some("DRIFT_START"),
        kind: Kind::Choice(&["earliest", "latest"]),
        default: Some("earliest"),
        doc: "Where an application without committed offsets begins: `earliest` or `latest`",
        ..KEY
    },
    Key {
        path: "monitor.features",
        kind: Kind::List(FEATURE),
        unset: "all of the reference",
        doc: "Features to watch",
        ..KEY
    },
    Key {
        path: "monitor.paths",
        kind: Kind::ByFeature(Item::Text(POINTER)),
        doc: "Where features stand in a record that are not top-level fields of their name",
        ..KEY
    },
    Key {
        path: "monitor.scopes",
        flag: Some("scopes"),
        variable: Some("DRIFT_SCOPES"),
        kind: Kind::List(SCOPE),
        default: Some("partition"),
        doc: "What is checked: each `partition`, the whole topic (`global`), or both",
        ..KEY
    },
    Key {
        path: "monitor.window.kind",
        kind: Kind::Choice(&["count", "time"]),
        default: Some("count"),
        doc: "Kind of window",
        ..KEY
    },
    Key {
        path: "monitor.window.size",
        flag: Some("window-size"),
        variable: Some("DRIFT_WINDOW_SIZE"),
        kind: Kind::Extent { max: SIZE_MAX },
        default: Some("1000"),
        doc: "Records that a check looks at; of time windows their length, as 5m",
        ..KEY
    },
    Key {
        path: "monitor.window.every",
        flag: Some("window-every"),
        variable: Some("DRIFT_CHECK_INTERVAL"),
        kind: Kind::Extent { max: SIZE_MAX },
        default: Some("100"),
        doc: "Records between two checks, or time between two windows; must divide the size",
        ..KEY
    },
    Key {
        path: "monitor.window.grace",
        kind: Kind::Text(DURATION),
        unset: "0s",
        doc: "How long after its end a time window takes late records",
        ..KEY
    },
    Key {
        path: "monitor.window.timestamp_field",
        kind: Kind::Text(FIELD),
        unset: "the record's timestamp",
        doc: "Field with a record's time, RFC 3339 or milliseconds since 1970, of time windows: a name, or a JSON pointer",
        ..KEY
    },
    Key {
        path: "monitor.window.late",
        kind: Kind::Choice(&["drop", "dead_letter"]),
        default: Some("drop"),
        doc: "Where records go that are late for all of their time windows; they are counted either way",
        ..KEY
    },
    Key {
        path: "monitor.window.idle_close_after",
        kind: Kind::Text(DURATION),
        unset: "never",
        doc: "After what time without records a partition that is at its end closes its time windows",
        ..KEY
    },
    Key {
        path: "monitor.min_samples",
        flag: Some("min-samples"),
        variable: Some("DRIFT_MIN_SAMPLES"),
        kind: Kind::Integer { min: 0, max: u64::MAX >> 1 },
        default: Some("100"),
        doc: "No check before that many records",
        ..KEY
    },
    Key {
        path: "monitor.thresholds.possible_drift",
        flag: Some("possible-drift"),
        variable: Some("PSI_NO_DRIFT_THRESHOLD"),
        kind: Kind::Decimal(POSITIVE),
        default: Some("0.1"),
        doc: "PSI at or above: possible drift",
        ..KEY
    },
    Key {
        path: "monitor.thresholds.drift",
        flag: Some("drift"),
        variable: Some("PSI_POSSIBLE_DRIFT_THRESHOLD"),
        kind: Kind::Decimal(POSITIVE),
        default: Some("0.25"),
        doc: "PSI at or above: drift",
        ..KEY
    },
    Key {
        path: "monitor.feature_thresholds",
        kind: Kind::ByFeature(Item::Thresholds),
        doc: "Features with thresholds of their own",
        ..KEY
    },
    Key {
        path: "monitor.metrics",
        kind: Kind::List(METRIC),
        default: Some("psi"),
        doc: "What to measure beside PSI",
        ..KEY
    },
    Key {
        path: "monitor.decided_by",
        kind: Kind::Choice(&["psi", "js", "ks", "wasserstein", "chi2"]),
        default: Some("psi"),
        doc: "The metric that the thresholds are of",
        unavailable: |value| {
            (*value == Value::Text("chi2".to_owned())).then_some(
                "a p-value says how sure a change is and not how large, and in large windows every change is sure: decide by `psi`, `js`, `ks` or \
                 `wasserstein`, and `significance` asks for a p-value beside it",
            )
        },
        ..KEY
    },
    Key {
        path: "monitor.summary.rule",
        kind: Kind::Choice(&["mean", "share"]),
        default: Some("mean"),
        doc: "What the summary's status goes by: the mean PSI, or the share of features that drift",
        ..KEY
    },
    Key {
        path: "monitor.summary.at_least",
        kind: Kind::Decimal(SHARE),
        doc: "The share of features from which on the summary is drift",
        ..KEY
    },
    Key {
        path: "monitor.weights",
        kind: Kind::ByFeature(Item::Decimal(WEIGHT)),
        doc: "Features that count more or less than others (1) in the summary's mean",
        ..KEY
    },
    Key {
        path: "monitor.quality.missing",
        kind: Kind::Decimal(SHARE),
        unset: "off",
        doc: "Share of missing values in a window from which on its quality is violated",
        ..KEY
    },
    Key {
        path: "monitor.quality.other",
        kind: Kind::Decimal(SHARE),
        unset: "off",
        doc: "The same, of values that the reference does not name",
        ..KEY
    },
    Key {
        path: "monitor.quality.out_of_range",
        kind: Kind::Decimal(SHARE),
        unset: "off",
        doc: "The same, of numbers beside the reference's range",
        ..KEY
    },
    Key {
        path: "monitor.feature_quality",
        kind: Kind::ByFeature(Item::Quality),
        doc: "Features with such shares of their own",
        ..KEY
    },
    Key {
        path: "monitor.epsilon",
        flag: Some("epsilon"),
        variable: Some("PSI_EPSILON"),
        kind: Kind::Decimal(FRACTION),
        default: Some("0.0001"),
        doc: "Floor of a bin's fraction",
        ..KEY
    },
    Key {
        path: "monitor.significance",
        flag: Some("significance"),
        variable: Some("DRIFT_SIGNIFICANCE"),
        kind: Kind::Decimal(LEVEL),
        default: Some("0.001"),
        doc: "Drift also needs a p-value below this, shared among the features of a check; 0: off",
        ..KEY
    },
    Key {
        path: "monitor.correction",
        kind: Kind::Choice(&["bonferroni", "false_discovery_rate"]),
        default: Some("bonferroni"),
        doc: "How the significance is shared among the features",
        ..KEY
    },
    Key {
        path: "monitor.segment_by",
        kind: Kind::List(FIELD),
        default: Some(""),
        doc: "Fields by whose values records are watched apart: names, or JSON pointers",
        ..KEY
    },
    Key {
        path: "monitor.max_categories",
        kind: Kind::Integer { min: 1, max: 100_000 },
        default: Some("50"),
        doc: "Categories with a bin of their own, where a reference is made from data",
        ..KEY
    },
    Key {
        path: "monitor.max_segments",
        kind: Kind::Integer { min: 1, max: 10_000_000 },
        default: Some("10000"),
        doc: "Segments that may live at once in a partition; the records of further ones are counted in `__rest__`",
        ..KEY
    },
    Key {
        path: "monitor.segment_expiry",
        kind: Kind::Text(DURATION),
        unset: "never",
        doc: "After what stream time without a record a segment is forgotten",
        ..KEY
    },
    Key {
        path: "http.host",
        flag: Some("http-host"),
        variable: Some("PROMETHEUS_HOST"),
        default: Some("127.0.0.1"),
        doc: "Address for metrics, health and queries",
        ..KEY
    },
    Key {
        path: "http.port",
        flag: Some("http-port"),
        variable: Some("PROMETHEUS_PORT"),
        kind: PORT,
        default: Some("8000"),
        doc: "Port for metrics, health and queries; 0: any free one; if not set and taken, the next free one",
        ..KEY
    },
    Key {
        path: "http.advertised",
        flag: Some("http-advertised"),
        unset: "host and port",
        doc: "Address under which other instances reach this one",
        ..KEY
    },
    Key {
        path: "http.bearer_token",
        secret: true,
        unset: "none",
        doc: "Asked for by everything but /health",
        ..KEY
    },
    Key {
        path: "http.tls.cert",
        doc: "Certificate",
        unavailable: |_| Some(TLS),
        ..KEY
    },
    Key {
        path: "http.tls.key",
        doc: "Private key of the certificate",
        unavailable: |_| Some(TLS),
        ..KEY
    },
    Key {
        path: "dashboard.host",
        flag: Some("dashboard-host"),
        variable: Some("DASHBOARD_HOST"),
        default: Some("127.0.0.1"),
        doc: "Address of the dashboard",
        ..KEY
    },
    Key {
        path: "dashboard.port",
        flag: Some("dashboard-port"),
        variable: Some("DASHBOARD_PORT"),
        kind: PORT,
        default: Some("8501"),
        doc: "Port of the dashboard; 0: any free one; if not set and taken, the next free one",
        ..KEY
    },
    Key {
        path: "dashboard.url",
        kind: Kind::Text(URL),
        unset: "none",
        doc: "Where the dashboard is reached: the link in alerts",
        ..KEY
    },
    Key {
        path: "alert.group_id",
        kind: Kind::Text(APPLICATION_ID),
        unset: "<application_id>-alert",
        doc: "Consumer group of `leeway alert`, and prefix of its topic of state",
        ..KEY
    },
    Key {
        path: "alert.min_severity",
        kind: SEVERITIES,
        default: Some("possible_drift"),
        doc: "What is less severe is not told",
        ..KEY
    },
    Key {
        path: "alert.consecutive",
        kind: Kind::Integer { min: 1, max: 1000 },
        default: Some("1"),
        doc: "So many checks in a row open an incident",
        ..KEY
    },
    Key {
        path: "alert.cooldown",
        kind: Kind::Text(DURATION),
        default: Some("10m"),
        doc: "How long after a recovery a new opening is held back, unless it is worse",
        ..KEY
    },
    Key {
        path: "alert.timeout",
        kind: Kind::Text(DURATION),
        default: Some("10s"),
        doc: "How long one attempt to deliver may take",
        ..KEY
    },
    Key {
        path: "alert.group_wait",
        kind: Kind::Text(DURATION),
        default: Some("1s"),
        doc: "How long after a first transition others of the same check are waited for, to be told in one message",
        ..KEY
    },
    Key {
        path: "alert.max_parked",
        kind: Kind::Integer { min: 1, max: 100_000 },
        default: Some("1000"),
        doc: "Messages that each channel keeps until they are delivered; beyond, the oldest go",
        ..KEY
    },
    Key {
        path: "alert.max_age",
        kind: Kind::Text(DURATION),
        default: Some("1day"),
        doc: "Incidents that began longer ago are not told, unless they are still open",
        ..KEY
    },
    Key {
        path: "alert.expire_after",
        kind: Kind::Text(DURATION),
        default: Some("7days"),
        doc: "After what time without a check an open incident is closed; 0s: never",
        ..KEY
    },
    Key {
        path: "alert.slack.url",
        variable: Some("SLACK_WEBHOOK_URL"),
        kind: Kind::Text(URL),
        unset: "none",
        secret: true,
        doc: "Slack webhook that alerts are sent to: a channel named `slack`",
        ..KEY
    },
    Key {
        path: "alert.channel.name",
        kind: Kind::Text(MONITOR_NAME),
        unset: "its kind",
        doc: "Unique name of a channel",
        ..KEY
    },
    Key {
        path: "alert.channel.kind",
        kind: Kind::Choice(&["slack", "webhook", "alertmanager", "csv", "stdout"]),
        doc: "Where it leads",
        ..KEY
    },
    Key {
        path: "alert.channel.url",
        kind: Kind::Text(URL),
        secret: true,
        doc: "Address, of slack, webhook and alertmanager",
        ..KEY
    },
    Key {
        path: "alert.channel.secret",
        secret: true,
        doc: "Of a webhook: signs what is sent",
        ..KEY
    },
    Key {
        path: "alert.channel.path",
        unset: "logs/psi_drift_log.csv",
        doc: "Of csv: the file",
        ..KEY
    },
    Key {
        path: "alert.channel.resend",
        kind: Kind::Text(DURATION),
        unset: "1m",
        doc: "Of alertmanager: how often what fires is sent again",
        ..KEY
    },
    Key {
        path: "alert.channel.monitors",
        kind: Kind::List(PATTERN),
        unset: "all",
        doc: "Monitors that it hears of, `*` for any characters",
        ..KEY
    },
    Key {
        path: "alert.channel.features",
        kind: Kind::List(PATTERN),
        unset: "all",
        doc: "Features that it hears of, `*` for any characters",
        ..KEY
    },
    Key {
        path: "alert.channel.scopes",
        kind: Kind::List(SCOPE),
        unset: "all",
        doc: "Scopes that it hears of",
        ..KEY
    },
    Key {
        path: "alert.channel.segments",
        kind: Kind::List(PATTERN),
        unset: "all",
        doc: "Segments that it hears of, `*` for any characters; the empty text is what has no segment",
        ..KEY
    },
    Key {
        path: "alert.channel.kinds",
        kind: Kind::List(ALERT_KIND),
        unset: "all",
        doc: "What it hears of: `summary`, `feature`, `quality`",
        ..KEY
    },
    Key {
        path: "alert.channel.min_severity",
        kind: SEVERITIES,
        unset: "alert.min_severity",
        doc: "What is less severe is not told",
        ..KEY
    },
    Key {
        path: "alert.channel.consecutive",
        kind: Kind::Integer { min: 1, max: 1000 },
        unset: "alert.consecutive",
        doc: "So many checks in a row open an incident",
        ..KEY
    },
    Key {
        path: "alert.channel.cooldown",
        kind: Kind::Text(DURATION),
        unset: "alert.cooldown",
        doc: "How long after a recovery a new opening is held back, unless it is worse",
        ..KEY
    },
    Key {
        path: "alert.channel.timeout",
        kind: Kind::Text(DURATION),
        unset: "alert.timeout",
        doc: "How long one attempt to deliver may take",
        ..KEY
    },
];

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Once in a file.
    Common,
    /// Once per `[[monitor]]`.
    Monitor,
    /// Once per `[[alert.channel]]`.
    Channel,
}

/// Section of the free-form properties, which no row above can list.
pub const PROPERTIES: &str = "kafka.properties";

impl Key {
    /// Where it stands.
    #[must_use]
    pub fn table(&self) -> Table {
        if self.path.starts_with("monitor.") {
            Table::Monitor
        } else if self.path.starts_with("alert.channel.") {
            Table::Channel
        } else {
            Table::Common
        }
    }

    /// Whether there is one per monitor.
    #[must_use]
    pub fn is_of_monitor(&self) -> bool {
        self.table() == Table::Monitor
    }

    /// The last word of its path.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

/// The key at `path`.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether `path` is a table that holds keys.
#[must_use]
pub fn is_section(path: &str) -> bool {
    path == PROPERTIES
        || KEYS
            .iter()
            .any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The key that somebody may have meant by `path`.
#[must_use]
pub fn suggestion(path: &str) -> Option<&'static str> {
    let words = |path: &str| path.replace(['.', '-'], "_").to_lowercase();
    let last = |path: &str| words(path.rsplit('.').next().unwrap_or(path));
    let within = |path: &str| words(path.split_once('.').map_or(path, |(_, rest)| rest));
    let likeness = |candidate: &str| {
        let pairs = [
            (words(path), words(candidate)),
            (last(path), last(candidate)),
            (within(path), within(candidate)),
        ];
        pairs
            .iter()
            .map(|(asked, known)| strsim::normalized_damerau_levenshtein(asked, known))
            .fold(0.0, f64::max)
    };
    // Keys and the tables they stand in.
    let prefixes = |path: &'static str| path.match_indices('.').map(|(end, _)| &path[..end]).chain([path]);
    let candidates = KEYS.iter().map(|key| key.path).chain([PROPERTIES]).flat_map(prefixes);
    // At 0.7 `windowsize` still finds `window.size`, and `colour` finds nothing.
    candidates
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, path)| path)
}
