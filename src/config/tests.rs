use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::KEYS;
use super::value::Value;
use super::{Config, ConfigError, ConfigFlags, ReferenceSource, load};
use crate::task::Start;
use leeway_topology::drift::SummaryRule;
use leeway_topology::metric::Metric;
use leeway_topology::quality::{ByViolation, Quality};
use leeway_topology::significance::Correction;
use leeway_topology::window::time::TimeWindow;
use leeway_topology::window::{CountWindow, Window};

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn from(flags: &[(&str, &str)], variables: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let flags = flags.iter().fold(ConfigFlags::default(), |flags, (path, text)| flags.with(path, text));
    load(&flags, &environment(variables), Some((Path::new("leeway.toml"), file)))
}

fn from_file(file: &str) -> Result<Config, ConfigError> {
    from(&[], &[], file)
}

fn faults(file: &str) -> Vec<String> {
    from_file(file).map(|_| Vec::new()).unwrap_or_else(|error| error.faults)
}

fn only_fault(file: &str) -> String {
    let faults = faults(file);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.into_iter().next().unwrap_or_default()
}

/// The example of the documentation.
const EXAMPLE: &str = r#"
application_id = "drift-monitor-group"
state_dir = "./leeway-state"
num_stream_threads = 2
commit_interval_ms = 100
transaction_timeout_ms = 10000
standby = false

[kafka]
bootstrap_servers = "localhost:9092"
[kafka.properties]
"security.protocol" = "SASL_SSL"

[[monitor]]
name = "default"
topic = "drift-data"
events_topic = "drift-events"
dead_letter_topic = "drift-data-dlq"
reference = "reference.json"
features = ["feature1", "feature2"]
window = { size = 1000, every = 100 }
min_samples = 100
thresholds = { possible_drift = 0.1, drift = 0.25 }
epsilon = 0.0001
significance = 0.001
scopes = ["partition"]
segment_by = []
max_categories = 50

[http]
host = "127.0.0.1"
port = 8000
"#;

#[test]
fn nothing_set_gives_the_defaults() {
    let config = load(&ConfigFlags::default(), &BTreeMap::new(), None).unwrap();
    assert_eq!(config.application_id, "drift-monitor-group");
    assert_eq!(config.state_dir, PathBuf::from("./leeway-state"));
    assert_eq!(config.num_stream_threads, None);
    assert_eq!(
        (config.commit_interval, config.transaction_timeout),
        (Duration::from_millis(100), Duration::from_secs(10))
    );
    assert_eq!(config.kafka.bootstrap_servers, "localhost:9092");
    assert_eq!(
        (config.http.host.as_str(), config.http.port, config.http.port_is_set),
        ("127.0.0.1", 8000, false)
    );
    assert_eq!(
        (config.dashboard.port, config.max_series, config.start()),
        (8501, 10_000, Start::Earliest)
    );
    assert_eq!(config.monitors.len(), 1);
    let monitor = config.monitors[0].to_monitor().unwrap();
    assert_eq!(monitor, leeway_topology::processor::Monitor::new("default", "drift-data"));
    assert_eq!(config.monitors[0].reference, ReferenceSource::Published);
    assert!(!config.is_set("state_dir") && !config.is_set("http.port") && !config.is_set("monitor.topic"));
}

#[test]
fn the_documented_example_is_valid() {
    let config = from_file(EXAMPLE).unwrap();
    assert_eq!(config.num_stream_threads, Some(2));
    assert_eq!(
        config.monitors[0].features.as_deref(),
        Some(&["feature1".to_owned(), "feature2".to_owned()][..])
    );
    assert_eq!(config.monitors[0].reference, ReferenceSource::File("reference.json".into()));
    assert_eq!(config.kafka.properties["security.protocol"], "SASL_SSL");
    assert!(config.http.port_is_set && config.is_set("state_dir"));
}

#[test]
fn command_line_comes_before_environment_before_file_before_default() {
    let file = "[[monitor]]\ntopic = 'from-file'\nwindow = { size = 3000 }\nepsilon = 0.01\n";
    let variables = [("KAFKA_TOPIC", "from-environment"), ("DRIFT_WINDOW_SIZE", "2000")];
    let config = from(&[("monitor.topic", "from-flag")], &variables, file).unwrap();
    assert_eq!(config.monitors[0].topic, "from-flag");
    assert_eq!(config.monitors[0].window, Window::Count(CountWindow::new(2000, 100).unwrap()));
    assert_eq!(config.monitors[0].criteria.epsilon, 0.01);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let config = from(&[], &[("KAFKA_TOPIC", ""), ("PROMETHEUS_PORT", "")], "[http]\nport = 0\n").unwrap();
    assert_eq!((config.monitors[0].topic.as_str(), config.http.port), ("drift-data", 0));
}

#[test]
fn environment_and_flags_speak_of_the_first_monitor_only() {
    let file = "[[monitor]]\nname = 'a'\n[[monitor]]\nname = 'b'\ntopic = 'other'\n";
    let config = from(&[("monitor.min_samples", "7")], &[("KAFKA_TOPIC", "mine")], file).unwrap();
    let topics: Vec<_> = config
        .monitors
        .iter()
        .map(|monitor| (monitor.topic.as_str(), monitor.min_samples))
        .collect();
    assert_eq!(topics, [("mine", 7), ("other", 100)]);
}

#[test]
fn every_fault_is_reported_with_key_value_source_and_what_is_allowed() {
    let file = "standby = 'maybe'\ncommit_interval_ms = 'soon'\n[http]\nport = 70000\nprot = 1\n";
    let error = from(&[("monitor.epsilon", "2")], &[("DRIFT_WINDOW_SIZE", "many")], file).unwrap_err();
    let expected = [
        "standby = 'maybe' (leeway.toml line 1): must be true or false",
        "commit_interval_ms = 'soon' (leeway.toml line 2): must be a whole number from 1 to 600000",
        "http.port = 70000 (leeway.toml line 4): must be a whole number from 0 to 65535",
        "leeway.toml line 5: unknown key `http.prot`; did you mean `http.port`?",
        "monitor.window.size = \"many\" (environment DRIFT_WINDOW_SIZE): must be a whole number from 1 to 4294967295, or, with kind = \"time\", a duration such as 5m",
        "monitor.epsilon = \"2\" (--epsilon): must be a number above 0 and below 1",
    ];
    assert_eq!(error.faults, expected);
}

#[test]
fn unknown_keys_come_with_what_was_probably_meant() {
    assert_eq!(
        only_fault("aplication_id = 'x'"),
        "leeway.toml line 1: unknown key `aplication_id`; did you mean `application_id`?"
    );
    assert_eq!(
        only_fault("topic = 'x'"),
        "leeway.toml line 1: unknown key `topic`; did you mean `monitor.topic`?"
    );
    assert_eq!(
        only_fault("[[monitor]]\nwindow_size = 5"),
        "leeway.toml line 2: unknown key `monitor.window_size`; did you mean `monitor.window.size`?"
    );
    assert_eq!(only_fault("[kafka]\nbroker = 'x'"), "leeway.toml line 2: unknown key `kafka.broker`");
    assert_eq!(only_fault("[colour]\nx = 1"), "leeway.toml line 1: unknown key `colour`");
}

#[test]
fn wrong_types_are_named() {
    assert_eq!(
        only_fault("application_id = 7"),
        "application_id = 7 (leeway.toml line 1): must be 1 to 200 ASCII letters, digits, `.`, `_` and `-`, since internal topics begin with it"
    );
    assert_eq!(
        only_fault("[[monitor]]\nscopes = 'partition'"),
        "monitor.scopes = 'partition' (leeway.toml line 2): must be a list of `partition`, `global`"
    );
    assert_eq!(
        only_fault("kafka = 'localhost'"),
        "kafka = 'localhost' (leeway.toml line 1): must be a table"
    );
    assert!(only_fault("[monitor]\ntopic = 'x'").contains("write `[[monitor]]`"));
    assert!(only_fault("[kafka.properties]\nx = [1]").contains("must be a string, a number, true or false"));
    assert!(only_fault("num_stream_threads = -1").contains("must be a whole number from 1 to 1024"));
}

#[test]
fn text_that_is_not_toml_is_reported_with_its_line_and_without_quoting_it() {
    let fault = only_fault("application_id = 'a'\n[http]\nbearer_token = \"geheim\nport = [\n");
    assert!(
        fault.starts_with("leeway.toml line 3: not TOML: ") && !fault.contains("geheim"),
        "{fault}"
    );
}

#[test]
fn contradictions_name_both_sides() {
    assert_eq!(
        only_fault("[[monitor]]\nwindow = { every = 300 }"),
        "monitor.window.every = 300 (leeway.toml line 2), monitor.window.size = 1000 (default): \
         a window of 1000 records checked every 300: `every` must be at least 1 and divide `size`"
    );
    assert_eq!(
        only_fault("[[monitor]]\nthresholds = { drift = 0.05 }"),
        "monitor.thresholds.drift = 0.05 (leeway.toml line 2): must not be below monitor.thresholds.possible_drift = 0.1 (default)"
    );
    assert_eq!(
        only_fault("commit_interval_ms = 10000"),
        "commit_interval_ms = 10000 (leeway.toml line 1): must be below transaction_timeout_ms = 10000 (default)"
    );
    assert!(only_fault("[[monitor]]\n[[monitor]]\n").contains("another monitor has this name"));
    assert!(only_fault("[[monitor]]\n[[monitor]]\nname='b'\nstart='latest'").contains("all monitors start at the same end"));
    assert!(only_fault("[[monitor]]\nevents_topic = 'drift-data'").contains("records would go in circles"));
    assert!(only_fault("[[monitor]]\ndead_letter_topic = 'drift-events'").contains("is the topic of drift events too"));
    assert!(only_fault("[[monitor]]\nfeatures = []").contains("an empty list"));
}

#[test]
fn a_faulty_value_causes_no_second_fault() {
    assert_eq!(faults("[[monitor]]\nwindow = { size = 'x', every = 300 }").len(), 1);
    assert_eq!(faults("[[monitor]]\nthresholds = { possible_drift = -1, drift = 0.01 }").len(), 1);
}

#[test]
fn monitors_of_one_topic_share_its_dead_letter_topic() {
    let config = from_file("[[monitor]]\n[[monitor]]\nname = 'b'\ndead_letter_topic = 'graveyard'\n").unwrap();
    assert!(config.monitors.iter().all(|monitor| monitor.dead_letter_topic == "graveyard"));
    let fault = only_fault("[[monitor]]\ndead_letter_topic = 'x'\n[[monitor]]\nname = 'b'\ndead_letter_topic = 'y'\n");
    assert!(
        fault.contains("share its dead letter topic") && fault.contains("line 5") && fault.contains("line 2"),
        "{fault}"
    );
}

#[test]
fn what_this_version_cannot_do_is_refused_once_in_words() {
    assert!(only_fault("[http.tls]\ncert = 'c.pem'").contains("not available yet"));
}

#[test]
fn segments_are_fields_with_a_bound_and_an_expiry() {
    let config = from_file("[[monitor]]\nsegment_by = ['country', '/payload/model']\nmax_segments = 7\nsegment_expiry = '7d'").unwrap();
    let monitor = config.monitors[0].to_monitor().unwrap();
    let fields: Vec<_> = monitor.segment_by.iter().map(leeway_topology::field::Field::as_str).collect();
    assert_eq!(fields, ["country", "/payload/model"]);
    assert_eq!((monitor.max_segments, monitor.segment_expiry_ms), (7, Some(7 * 24 * 3_600_000)));
    for (file, words) in [
        ("segment_expiry = '7d'", "has no meaning without segment_by"),
        ("segment_by = ['c']\nsegment_expiry = '0s'", "must be longer than nothing"),
        (
            "segment_by = ['c']\nsegment_expiry = '5m'\nwindow = { kind = 'time', size = '5m', grace = '1s' }",
            "must be at least the window's size and grace",
        ),
        ("segment_by = ['a','b','c','d','e','f','g','h','i']", "at most 8 fields are possible"),
        ("segment_by = ['/a~']", "JSON pointer"),
    ] {
        let file = format!("[[monitor]]\n{file}");
        assert!(only_fault(&file).contains(words), "{file}: {}", only_fault(&file));
    }
}

#[test]
fn time_window_is_durations_and_tumbles_by_default() {
    let window = |window: &str| {
        from_file(&format!("[[monitor]]\nwindow = {{ kind = 'time', {window} }}"))
            .unwrap()
            .monitors[0]
            .window
    };
    let time = |size, every, grace| Window::Time(TimeWindow::new(size, every, grace).unwrap());
    assert_eq!(window("size = '5m', every = '1m', grace = '30s'"), time(300_000, 60_000, 30_000));
    assert_eq!(window("size = '1h 30m'"), time(5_400_000, 5_400_000, 0));
    for (window, words) in [
        (
            "kind = 'time'",
            "monitor.window.size: must be given with kind = \"time\", as a duration such as \"5m\"",
        ),
        (
            "kind = 'time', size = 300",
            "monitor.window.size = 300 (leeway.toml line 2): with kind = \"time\" it must be a duration such as \"5m\"",
        ),
        (
            "size = '5m'",
            "monitor.window.size = \"5m\" (leeway.toml line 2): a count window is so many records; durations need kind = \"time\"",
        ),
        (
            "grace = '5m'",
            "monitor.window.grace = \"5m\" (leeway.toml line 2): only windows of kind = \"time\" have it",
        ),
        (
            "timestamp_field = 'ts'",
            "monitor.window.timestamp_field = \"ts\" (leeway.toml line 2): only windows of kind = \"time\" have it",
        ),
        (
            "kind = 'time', size = '5m', every = '2m'",
            "a window of 300000 ms every 120000 ms: `every` must be at least 1 ms and divide `size`",
        ),
        (
            "kind = 'time', size = '5 parsecs'",
            "must be a whole number from 1 to 4294967295, or, with kind = \"time\", a duration such as 5m",
        ),
        (
            "kind = 'time', size = '30d', every = '1m'",
            "keeps 43200 panes, at most 10000 are possible: raise `every`",
        ),
    ] {
        let fault = only_fault(&format!("[[monitor]]\nwindow = {{ {window} }}"));
        assert!(fault.contains(words), "{window}: {fault}");
    }
}

#[test]
fn log_filter_with_letters_beyond_ascii_is_refused_and_no_panic() {
    let fault = only_fault("log = 'a[bcƿd'");
    assert!(fault.contains("must be a tracing filter"), "{fault}");
}

#[test]
fn reference_is_a_path_the_first_records_or_a_stretch_that_moves() {
    for (text, expected) in [("'first:10000'", 10_000), ("{ first = 500 }", 500)] {
        assert_eq!(
            from_file(&format!("[[monitor]]\nreference = {text}")).unwrap().monitors[0].reference,
            ReferenceSource::First(expected)
        );
    }
    for (text, expected) in [
        ("'rolling:7d,lag:1d'", "rolling:7days,lag:1day,every:1day"),
        ("{ rolling = '12h' }", "rolling:12h,lag:0s,every:12h"),
        ("{ every = '6h', rolling = '7d', lag = '1h 30m' }", "rolling:7days,lag:1h 30m,every:6h"),
    ] {
        let config = from_file(&format!("[[monitor]]\nreference = {text}")).unwrap();
        let ReferenceSource::Rolling(rolling) = config.monitors[0].reference else {
            panic!("{text}: {:?}", config.monitors[0].reference)
        };
        assert_eq!(rolling.to_string(), expected);
    }
    for text in [
        "{ rolling = '7' }",
        "{ lag = '7d' }",
        "{ rolling = '7d', first = 3 }",
        "'rolling:'",
        "{ rolling = '1ms' }",
    ] {
        let fault = only_fault(&format!("[[monitor]]\nreference = {text}"));
        assert!(fault.contains("`rolling:7d,lag:1d,every:1d`"), "{text}: {fault}");
    }
    assert!(only_fault("[[monitor]]\nreference = 'first:0'").contains("`first:N` with N from 1 on"));
    assert!(only_fault("[[monitor]]\nreference = { first = 0 }").contains("`first:N`"));
}

#[test]
fn properties_take_strings_numbers_and_booleans_with_and_without_quoted_names() {
    let file = "[kafka.properties]\n'socket.timeout.ms' = 5000\nssl.ca.location = '/ca.pem'\nenable.ssl.certificate.verification = true\n'x' = 0.5\n";
    let properties = from_file(file).unwrap().kafka.properties;
    let expected = [
        ("enable.ssl.certificate.verification", "true"),
        ("socket.timeout.ms", "5000"),
        ("ssl.ca.location", "/ca.pem"),
        ("x", "0.5"),
    ];
    assert_eq!(properties, environment(&expected));
}

#[test]
fn properties_that_would_break_exactly_once_are_refused_with_the_reason() {
    let fault = only_fault("[kafka.properties]\nenable.auto.commit = true");
    assert!(
        fault.starts_with("kafka.properties.enable.auto.commit = true (leeway.toml line 2): cannot be set: "),
        "{fault}"
    );
}

#[test]
fn secrets_are_read_from_files_and_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kafka");
    std::fs::write(&path, "geheim1\n").unwrap();
    let file = format!(
        "[kafka.properties]\n'ssl.key.pem' = 'geheim2'\n'sasl.password' = {{ file = {path:?} }}\n'sasl.username' = {{ file = {path:?} }}\n'a.b' = 'seen'\n\
         [http]\nbearer_token = 'geheim3'\n[alert.slack]\nurl = 'https://hooks.example/geheim4'\n"
    );
    let config = from_file(&file).unwrap();
    assert_eq!(config.kafka.properties["sasl.password"], "geheim1");
    assert_eq!(config.http.bearer_token.as_ref().map(super::Secret::expose), Some("geheim3"));
    let printed = format!("{}\n{config:?}", config.effective_toml());
    assert!(!printed.contains("geheim"), "{printed}");
    assert!(
        printed.contains("\"sasl.username\" = \"***\"  # leeway.toml line 4") && printed.contains("\"a.b\" = \"seen\""),
        "{printed}"
    );
}

#[test]
fn secrets_stay_secret_in_faults() {
    let text = from(&[], &[("SLACK_WEBHOOK_URL", "geheim")], "[http]\nbearer_token = 47110815\n")
        .unwrap_err()
        .to_string();
    assert!(!text.contains("geheim") && !text.contains("4711"), "{text}");
    assert!(
        text.contains("alert.slack.url = \"***\" (environment SLACK_WEBHOOK_URL): must be a URL"),
        "{text}"
    );
}

#[test]
fn a_secret_file_that_is_not_there_is_a_fault() {
    let fault = only_fault("[http]\nbearer_token = { file = '/nowhere/token' }");
    assert!(fault.contains("\"/nowhere/token\" cannot be read"), "{fault}");
}

#[test]
fn the_effective_configuration_is_a_file_that_means_the_same() {
    let file = EXAMPLE.replace("[http]", "[dashboard]\nport = 8502\n[http]\nadvertised = 'host:1'");
    let config = from(&[("monitor.thresholds.drift", "1")], &[("KAFKA_GROUP_ID", "mine")], &file).unwrap();
    let printed = config.effective_toml();
    assert!(printed.contains("application_id = \"mine\"  # environment KAFKA_GROUP_ID"), "{printed}");
    assert!(printed.contains("thresholds.drift = 1.0  # --drift"), "{printed}");
    assert_eq!(
        Config {
            resolved: config.resolved.clone(),
            ..from_file(&printed).unwrap()
        },
        config
    );
}

#[test]
fn the_effective_default_configuration_reads_like_this() {
    insta::assert_snapshot!(load(&ConfigFlags::default(), &BTreeMap::new(), None).unwrap().effective_toml(), @r#"
    application_id = "drift-monitor-group"  # default
    state_dir = "./leeway-state"  # default
    # memory_max_bytes: 512 MiB with two stream threads, 32 MiB more for each other
    # state_cache_max_bytes: what the others leave
    # num_stream_threads: the cores, at most the partitions
    commit_interval_ms = 100  # default
    transaction_timeout_ms = 10000  # default
    standby = false  # default
    log = "info"  # default
    log_format = "text"  # default

    [metrics]
    max_series = 10000  # default

    [kafka]
    bootstrap_servers = "localhost:9092"  # default

    [http]
    host = "127.0.0.1"  # default
    port = 8000  # default
    # advertised: host and port
    # bearer_token: none

    [dashboard]
    host = "127.0.0.1"  # default
    port = 8501  # default
    # url: none

    [alert]
    # group_id: <application_id>-alert
    min_severity = "possible_drift"  # default
    consecutive = 1  # default
    cooldown = "10m"  # default
    timeout = "10s"  # default
    group_wait = "1s"  # default
    max_parked = 1000  # default
    max_age = "1day"  # default
    expire_after = "7days"  # default
    # slack.url: none

    [[monitor]]
    name = "default"  # default
    topic = "drift-data"  # default
    events_topic = "drift-events"  # default
    dead_letter_topic = "drift-data-dlq"  # default
    # reference: the published one
    start = "earliest"  # default
    # features: all of the reference
    scopes = ["partition"]  # default
    window.kind = "count"  # default
    window.size = 1000  # default
    window.every = 100  # default
    # window.grace: 0s
    # window.timestamp_field: the record's timestamp
    window.late = "drop"  # default
    # window.idle_close_after: never
    min_samples = 100  # default
    thresholds.possible_drift = 0.1  # default
    thresholds.drift = 0.25  # default
    metrics = ["psi"]  # default
    decided_by = "psi"  # default
    summary.rule = "mean"  # default
    # quality.missing: off
    # quality.other: off
    # quality.out_of_range: off
    epsilon = 0.0001  # default
    significance = 0.001  # default
    correction = "bonferroni"  # default
    segment_by = []  # default
    max_categories = 50  # default
    max_segments = 10000  # default
    # segment_expiry: never
    "#);
}

#[test]
fn kubernetes_service_links_are_explained() {
    let error = from(&[], &[("PROMETHEUS_PORT", "tcp://10.0.0.1:9090")], "").unwrap_err();
    assert!(error.faults[0].contains("enableServiceLinks"), "{error}");
    assert!(
        from(&[("http.port", "1")], &[("PROMETHEUS_PORT", "tcp://10.0.0.1:9090")], "").is_ok(),
        "a flag overrides it"
    );
}

#[test]
fn every_key_has_a_valid_default_and_its_own_flag_and_variable() {
    let mut flags: Vec<_> = KEYS.iter().filter_map(|key| key.flag).collect();
    let mut variables: Vec<_> = KEYS.iter().filter_map(|key| key.variable).collect();
    let counts = (flags.len(), variables.len());
    flags.sort_unstable();
    flags.dedup();
    variables.sort_unstable();
    variables.dedup();
    assert_eq!((flags.len(), variables.len()), counts);
    for key in KEYS {
        assert!(key.default.is_none_or(|text| key.parse(text).is_ok()), "{}", key.path);
        assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}", key.path);
    }
}

#[test]
fn odd_numbers_are_refused_wherever_they_come_from() {
    for text in ["NaN", "inf", "-0.1", "0", "", "1e400"] {
        assert!(from(&[("monitor.thresholds.drift", text)], &[], "").is_err(), "{text}");
    }
    for text in ["nan", "inf", "1", "1.0", "-1e-9"] {
        assert!(from_file(&format!("[[monitor]]\nsignificance = {text}")).is_err(), "{text}");
    }
    let config = from_file("[[monitor]]\nsignificance = 0\nthresholds = { possible_drift = 1, drift = 2 }\nmin_samples = 0x10\n").unwrap();
    assert_eq!((config.monitors[0].criteria.significance, config.monitors[0].min_samples), (0.0, 16));
}

#[test]
fn memory_that_is_too_little_for_its_threads_is_refused_with_what_would_do() {
    let few = "num_stream_threads = 2\nmemory_max_bytes = 100000000\n";
    let refused = from_file(few).unwrap_err();
    assert_eq!(
        refused.faults,
        ["memory_max_bytes = 100000000 (leeway.toml line 2): too little for 2 stream threads; at least 134217728"]
    );
    let refused = from_file(&format!("{few}state_cache_max_bytes = 1048576\n")).unwrap_err();
    assert_eq!(
        refused.faults,
        [concat!(
            "memory_max_bytes = 100000000 (leeway.toml line 2): too little for 2 stream threads and state_cache_max_bytes = 1048576 (leeway.toml line 3); ",
            "at least 135266304"
        )]
    );
    let config = from_file("num_stream_threads = 2\nmemory_max_bytes = 134217728\n").unwrap();
    assert_eq!(config.memory, crate::memory::Memory::share(128 << 20, 2, None).unwrap());
    assert!(from_file("num_stream_threads = 256\n").is_ok(), "what nobody set is never too little");
    assert!(
        from_file("state_cache_max_bytes = 1099511627776\n").is_ok(),
        "nor beside what somebody set"
    );
}

#[test]
fn numeric_text_stays_text() {
    let config = from(&[("monitor.topic", "2024")], &[("KAFKA_GROUP_ID", "007")], "").unwrap();
    assert_eq!((config.application_id.as_str(), config.monitors[0].topic.as_str()), ("007", "2024"));
}

#[test]
fn topic_names_follow_kafkas_rules() {
    for name in ["", ".", "..", "a b", "ä", &"x".repeat(250)] {
        assert!(from(&[("monitor.topic", name)], &[], "").is_err(), "{name}");
    }
    let long = from(&[("monitor.topic", &"x".repeat(240))], &[], "").unwrap_err();
    assert!(long.faults[0].contains("changelog"), "{long}");
}

#[test]
fn lists_of_the_command_line_are_separated_by_commas() {
    let value = super::keys::find("monitor.scopes").unwrap().parse(" partition ,").unwrap();
    assert_eq!(value, Value::List(vec!["partition".to_owned()]));
    assert!(from(&[("monitor.scopes", "partition,partition")], &[], "").is_err(), "twice");
    assert!(from(&[("monitor.scopes", ",")], &[], "").is_err(), "nothing");
}

#[test]
fn what_a_check_asks_is_read_from_a_file() {
    let file = "[[monitor]]
metrics = ['psi', 'js', 'ks']
decided_by = 'js'
thresholds = { possible_drift = 0.1, drift = 0.2 }
correction = 'false_discovery_rate'
summary = { rule = 'share', at_least = 0.3 }
feature_thresholds.income = { drift = 0.4 }
weights = { age = 3, 'a.b' = 0.5 }
";
    let config = from_file(file).unwrap();
    let criteria = &config.monitors[0].criteria;
    assert_eq!(criteria.metrics, [Metric::Psi, Metric::Js, Metric::Ks].into());
    assert_eq!((criteria.decided_by, criteria.correction), (Metric::Js, Correction::BenjaminiHochberg));
    assert_eq!(criteria.summary, SummaryRule::Share { at_least: 0.3 });
    let own = criteria.feature_thresholds["income"];
    assert_eq!((own.possible_drift, own.drift), (0.1, 0.4), "what is left out is the monitor's");
    assert_eq!((criteria.weights["age"], criteria.weights["a.b"]), (3.0, 0.5));
    let printed = config.effective_toml();
    assert!(
        printed.contains("weights = { \"a.b\" = 0.5, age = 3.0 }  # leeway.toml line 8"),
        "{printed}"
    );
    let again = from_file(&printed).unwrap();
    assert_eq!(again.monitors[0].criteria, *criteria);
}

#[test]
fn shares_of_faulty_values_are_read_from_a_file_and_those_of_a_feature_fill_up_with_the_monitors() {
    assert_eq!(from_file("").unwrap().monitors[0].quality, Quality::default());
    let file = "[[monitor]]
quality = { missing = 0.05, other = 1 }
feature_quality = { plan = { other = 0.2 }, 'a.b' = { out_of_range = 0.01 } }
";
    let config = from_file(file).unwrap();
    let quality = config.monitors[0].to_monitor().unwrap().quality;
    let limits = |missing, other, out_of_range| ByViolation {
        missing,
        other,
        out_of_range,
    };
    assert_eq!(quality.limits, limits(Some(0.05), Some(1.0), None));
    assert_eq!(quality.feature_limits["plan"], limits(Some(0.05), Some(0.2), None));
    assert_eq!(quality.feature_limits["a.b"], limits(Some(0.05), Some(1.0), Some(0.01)));
    let printed = config.effective_toml();
    assert!(printed.contains("quality.missing = 0.05  # leeway.toml line 2"), "{printed}");
    assert_eq!(from_file(&printed).unwrap().monitors[0].quality, quality);
}

#[test]
fn features_and_times_may_stand_within_nested_fields() {
    let file = "[[monitor]]
paths = { age = '/payload/age', 'a.b' = '/items/0/a~1b' }
window = { kind = 'time', size = '5m', timestamp_field = '/meta/at' }
";
    let config = from_file(file).unwrap();
    let monitor = config.monitors[0].to_monitor().unwrap();
    assert_eq!(monitor.paths["age"].as_str(), "/payload/age");
    assert_eq!(monitor.paths["a.b"].tokens().collect::<Vec<_>>(), ["items", "0", "a/b"]);
    assert_eq!(monitor.timestamp_field, Some("/meta/at".parse().unwrap()));
    let printed = config.effective_toml();
    assert!(
        printed.contains("paths = { \"a.b\" = \"/items/0/a~1b\", age = \"/payload/age\" }  # leeway.toml line 2"),
        "{printed}"
    );
    assert_eq!(from_file(&printed).unwrap().monitors[0].paths, monitor.paths);
}

#[test]
fn paths_that_lead_nowhere_are_named() {
    for (file, words) in [
        (
            "paths = { age = 'payload/age' }",
            "must be a table of features, each with a JSON pointer such as `/payload/age`",
        ),
        ("paths = { age = '' }", "each with a JSON pointer"),
        ("paths = { age = '/a~2' }", "each with a JSON pointer"),
        ("paths = { age = 3 }", "each with a JSON pointer"),
        ("paths = '/age'", "must be a table of features"),
        (
            "features = ['x']\npaths = { age = '/age' }",
            "\"age\" has a path of its own, but is not in the list",
        ),
        (
            "window = { kind = 'time', size = '5m', timestamp_field = '/at~' }",
            "must be the name of a top-level field, or a JSON pointer",
        ),
    ] {
        let file = format!("[[monitor]]\n{file}");
        assert!(only_fault(&file).contains(words), "{file}: {}", only_fault(&file));
    }
}

#[test]
fn what_a_check_cannot_ask_is_named() {
    for (file, words) in [
        ("metrics = ['kl']", "must be a list of `psi`, `js`, `ks`, `wasserstein`, `chi2`"),
        ("decided_by = 'chi2'", "in large windows every change is sure"),
        (
            "decided_by = 'js'",
            "monitor.decided_by = \"js\" (leeway.toml line 2): monitor.thresholds must be given with it",
        ),
        ("summary = { rule = 'share' }", "monitor.summary.at_least: must be given"),
        ("summary = { at_least = 0.3 }", "has no meaning without rule = \"share\""),
        ("summary = { rule = 'share', at_least = 1.5 }", "must be a number above 0 and at most 1"),
        ("weights = { age = 0 }", "must be a table of features, each with a number above 0"),
        ("weights = 3", "must be a table of features"),
        (
            "feature_thresholds = { age = { dritf = 1 } }",
            "must be a table of features, each with { possible_drift",
        ),
        (
            "feature_thresholds = { age = { possible_drift = 0.3 } }",
            "drift = 0.25 must not be below possible_drift = 0.3",
        ),
        ("quality = { missing = 0 }", "must be a number above 0 and at most 1"),
        ("quality = { strange = 0.1 }", "strange"),
        (
            "feature_quality = { plan = { othre = 0.1 } }",
            "must be a table of features, each with { missing = NUMBER, other = NUMBER, out_of_range = NUMBER }",
        ),
        (
            "feature_quality = { plan = { other = 1.5 } }",
            "(or some of them), each a number above 0 and at most 1",
        ),
        (
            "features = ['x']\nfeature_quality = { plan = { other = 0.5 } }",
            "\"plan\" has quality thresholds of its own",
        ),
        ("features = ['x']\nweights = { age = 2 }", "age"),
    ] {
        let file = format!("[[monitor]]\n{file}");
        assert!(only_fault(&file).contains(words), "{file}: {}", only_fault(&file));
    }
}

mod alert {
    use super::*;
    use crate::config::{ChannelConfig, Target};
    use crate::consumers::alert::incident::{Rule, Severity};

    fn channel(file: &str) -> ChannelConfig {
        let mut channels = from_file(file).unwrap().alert.channels;
        assert_eq!(channels.len(), 1, "{channels:?}");
        channels.remove(0)
    }

    #[test]
    fn without_a_channel_alerts_go_to_standard_output() {
        let config = from_file("").unwrap();
        assert_eq!(config.alert.group_id, "drift-monitor-group-alert");
        assert_eq!((config.alert.channels.len(), &config.alert.channels[0].target), (1, &Target::Stdout));
        assert_eq!(config.alert.channels[0].rule.cooldown_ms, 600_000);
    }

    #[test]
    fn slacks_variable_alone_is_a_channel_and_its_secret_is_not_printed() {
        let config = from(&[], &[("SLACK_WEBHOOK_URL", "https://hooks.slack.com/T/B/abc")], "").unwrap();
        assert_eq!(config.alert.channels[0].name, "slack");
        assert!(matches!(&config.alert.channels[0].target, Target::Slack { url } if url.expose().ends_with("abc")));
        assert!(!config.effective_toml().contains("abc"), "{}", config.effective_toml());
    }

    #[test]
    fn a_channel_has_what_it_says_and_else_what_the_section_says() {
        let text = r#"
[alert]
min_severity = "drift"
cooldown = "5m"
[[alert.channel]]
name = "team"
kind = "webhook"
url = "https://example.org/hook"
secret = "s3cret"
monitors = ["prod-*"]
kinds = ["summary", "quality"]
consecutive = 3
timeout = "2s"
"#;
        let team = channel(text);
        let expected = Rule {
            min_severity: Severity::Drift,
            consecutive: 3,
            cooldown_ms: 300_000,
        };
        assert_eq!((team.name.as_str(), team.rule, team.timeout), ("team", expected, Duration::from_secs(2)));
        assert_eq!(
            (team.filter.monitors, team.filter.kinds),
            (vec!["prod-*".to_owned()], vec!["summary".to_owned(), "quality".to_owned()])
        );
        assert!(matches!(team.target, Target::Webhook { secret: Some(_), .. }));
        let printed = from_file(text).unwrap().effective_toml();
        assert!(
            printed.contains("[[alert.channel]]") && !printed.contains("s3cret") && !printed.contains("example.org"),
            "{printed}"
        );
        // What is printed can be read again, but for its secrets.
        let again = printed.replace("\"***\"", "\"https://example.org/hook\"");
        assert_eq!(channel(&again).rule, expected);
    }

    #[test]
    fn a_channel_named_after_its_kind_has_the_defaults() {
        let csv = channel("[[alert.channel]]\nkind = \"csv\"");
        assert_eq!(csv.name, "csv");
        assert_eq!(
            csv.target,
            Target::Csv {
                path: PathBuf::from("logs/psi_drift_log.csv")
            }
        );
        let alertmanager = channel("[[alert.channel]]\nkind = \"alertmanager\"\nurl = \"http://localhost:9093\"");
        assert!(matches!(alertmanager.target, Target::Alertmanager { resend, .. } if resend == Duration::from_secs(60)));
    }

    #[test]
    fn what_a_kind_lacks_or_has_no_use_for_is_told() {
        for (text, told) in [
            ("[[alert.channel]]\nname = \"x\"", "alert.channel.kind: must be given"),
            (
                "[[alert.channel]]\nkind = \"slack\"",
                "alert.channel.url: must be given with kind = \"slack\"",
            ),
            (
                "[[alert.channel]]\nkind = \"stdout\"\npath = \"x.csv\"",
                "alert.channel.path = \"x.csv\" (leeway.toml line 3): has no meaning with kind = \"stdout\"",
            ),
            ("[[alert.channel]]\nkind = \"csv\"\nconsecutive = 2", "has no meaning with kind = \"csv\""),
            ("[[alert.channel]]\nkind = \"mail\"", "must be one of `slack`"),
            ("[[alert.channel]]\nkind = \"stdout\"\nkinds = [\"drift\"]", "must be a list of `summary`"),
            ("[alert]\nchannel = 3", "must be an array of tables: write `[[alert.channel]]`"),
            ("[alert]\nchanel = 3", "unknown key `alert.chanel`; did you mean `alert.channel`?"),
        ] {
            let fault = only_fault(text);
            assert!(fault.contains(told), "{fault}");
        }
        let twice = "[[alert.channel]]\nkind = \"stdout\"\n[[alert.channel]]\nkind = \"stdout\"";
        assert!(only_fault(twice).contains("another channel has this name"));
    }
}
