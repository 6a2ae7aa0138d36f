use super::*;
use clap::CommandFactory as _;

/// Exit code and standard error of a command line.
fn leeway(arguments: &[&str]) -> (ExitCode, String) {
    let mut stderr = Vec::new();
    let arguments = std::iter::once("leeway").chain(arguments.iter().copied()).map(OsString::from);
    let code = execute(arguments, &Context::default(), &mut stderr);
    (code, String::from_utf8(stderr).unwrap())
}

/// Exit codes cannot be compared otherwise.
fn assert_code(code: ExitCode, expected: u8) {
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(expected)));
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_usage_error_exits_2() {
    for arguments in [&["run", "--no-such-flag"][..], &["fly"], &["run", "--topic"], &[]] {
        let (code, stderr) = leeway(arguments);
        assert_code(code, EXIT_USAGE);
        assert!(stderr.contains("error:") || arguments.is_empty(), "{stderr}");
    }
}

#[test]
fn every_fault_of_the_configuration_is_one_line_and_exits_2() {
    let (code, stderr) = leeway(&[
        "run",
        "--check-config",
        "--epsilon",
        "-1",
        "--window-every",
        "300",
        "--http-port",
        "99999",
    ]);
    assert_code(code, EXIT_USAGE);
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    assert!(lines.iter().all(|line| line.starts_with("error: ")), "{stderr}");
    assert!(
        stderr.contains("monitor.epsilon = \"-1\" (--epsilon): must be a number above 0 and below 1"),
        "{stderr}"
    );
}

#[test]
fn a_named_file_that_is_not_there_exits_2_with_its_name() {
    let (code, stderr) = leeway(&["run", "--check-config", "--config", "/nowhere/leeway.toml"]);
    assert_code(code, EXIT_USAGE);
    assert!(
        stderr.starts_with("error: configuration file /nowhere/leeway.toml (--config) cannot be read: "),
        "{stderr}"
    );
}

#[test]
fn faults_of_a_file_name_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leeway.toml");
    std::fs::write(&path, "\nwindow = 3\n").unwrap();
    let (code, stderr) = leeway(&["run", "--check-config", "--config", path.to_str().unwrap()]);
    assert_code(code, EXIT_USAGE);
    assert_eq!(
        stderr,
        format!("error: {} line 2: unknown key `window`; did you mean `monitor.window`?\n", path.display())
    );
}

#[test]
fn a_failure_while_running_is_one_line_with_its_causes_and_exits_1() {
    let error = anyhow::anyhow!("disk full").context("the state store\ncannot be opened");
    let mut stderr = Vec::new();
    assert_code(tell(&error, &mut stderr), EXIT_FAILED);
    assert_eq!(
        String::from_utf8(stderr).unwrap(),
        "error: the state store; cannot be opened: disk full\n"
    );
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let mut stderr = Vec::new();
    assert_code(tell(&io::Error::from(io::ErrorKind::BrokenPipe).into(), &mut stderr), 0);
    assert!(stderr.is_empty());
}

#[test]
fn colours_are_off_when_asked() {
    let context = |value: &str| Context {
        environment: [("NO_COLOR".to_owned(), value.to_owned())].into(),
    };
    assert!(context("1").no_color() && !context("").no_color() && !Context::default().no_color());
}

#[test]
fn help_of_run_shows_flag_key_variable_and_default() {
    let mut command = Cli::command().term_width(120);
    command.build();
    let help = command.find_subcommand_mut("run").unwrap().render_help().to_string();
    insta::assert_snapshot!(help, @r#"
    The stream processor; start more of them with the same application id to share the partitions

    Usage: leeway run [OPTIONS]

    Options:
          --check-config  Validates the configuration, prints it with secrets masked, and ends
      -h, --help          Print help

    Configuration:
          --config <FILE>                    Configuration file [default: ./leeway.toml if it is there]
          --application-id <TEXT>            Consumer group, prefix of internal topics and transactional ids
                                             [key: application_id] [env: KAFKA_GROUP_ID] [default: drift-monitor-group]
          --state-dir <TEXT>                 Where the state is kept; if not set and taken by another process, the next free
                                             one
                                             [key: state_dir] [env: STATE_DIR] [default: ./leeway-state]
          --memory-max-bytes <NUMBER>        Memory of the process, about: records fetched ahead, RocksDB's caches and
                                             buffers, and windows of segments share it
                                             [key: memory_max_bytes] [default: 512 MiB with two stream threads, 32 MiB more
                                             for each other]
          --state-cache-max-bytes <NUMBER>   Of memory_max_bytes, for the windows of segments; those beyond are read from
                                             the state store when a record comes
                                             [key: state_cache_max_bytes] [default: what the others leave]
          --num-stream-threads <NUMBER>      Threads that process
                                             [key: num_stream_threads] [default: the cores, at most the partitions]
          --commit-interval-ms <NUMBER>      Milliseconds between two commits at most; below the transaction time-out
                                             [key: commit_interval_ms] [default: 100]
          --transaction-timeout-ms <NUMBER>  Milliseconds for which a dead instance's open transaction can hold readers back
                                             [key: transaction_timeout_ms] [default: 10000]
          --log <TEXT>                       What is logged: a tracing filter
                                             [key: log] [env: LEEWAY_LOG] [default: info]
          --log-format <WORD>                `text`, or `json` for JSON lines
                                             [key: log_format] [env: LEEWAY_LOG_FORMAT] [default: text]
          --metrics-max-series <NUMBER>      Series of /metrics; label sets beyond are summed into `__rest__`
                                             [key: metrics.max_series] [default: 10000]
          --bootstrap-servers <TEXT>         Brokers to begin with, `host:port`, separated by commas
                                             [key: kafka.bootstrap_servers] [env: KAFKA_BOOTSTRAP_SERVERS] [default:
                                             localhost:9092]

    The first monitor:
          --topic <TEXT>              Input topic
                                      [key: monitor.topic] [env: KAFKA_TOPIC] [default: drift-data]
          --events-topic <TEXT>       Where drift events go
                                      [key: monitor.events_topic] [env: DRIFT_EVENTS_TOPIC] [default: drift-events]
          --dead-letter-topic <TEXT>  Where records go that are no JSON object
                                      [key: monitor.dead_letter_topic] [env: DRIFT_DEAD_LETTER_TOPIC] [default: <topic>-dlq]
          --reference <TEXT>          Reference: a file, published when its version is new, `first:10000` or
                                      `rolling:7d,lag:1d`
                                      [key: monitor.reference] [env: DRIFT_REFERENCE] [default: the published one]
          --start <WORD>              Where an application without committed offsets begins: `earliest` or `latest`
                                      [key: monitor.start] [env: DRIFT_START] [default: earliest]
          --scopes <LIST>             What is checked: each `partition`, the whole topic (`global`), or both
                                      [key: monitor.scopes] [env: DRIFT_SCOPES] [default: partition]
          --window-size <NUMBER>      Records that a check looks at; of time windows their length, as 5m
                                      [key: monitor.window.size] [env: DRIFT_WINDOW_SIZE] [default: 1000]
          --window-every <NUMBER>     Records between two checks, or time between two windows; must divide the size
                                      [key: monitor.window.every] [env: DRIFT_CHECK_INTERVAL] [default: 100]
          --min-samples <NUMBER>      No check before that many records
                                      [key: monitor.min_samples] [env: DRIFT_MIN_SAMPLES] [default: 100]
          --possible-drift <NUMBER>   PSI at or above: possible drift
                                      [key: monitor.thresholds.possible_drift] [env: PSI_NO_DRIFT_THRESHOLD] [default: 0.1]
          --drift <NUMBER>            PSI at or above: drift
                                      [key: monitor.thresholds.drift] [env: PSI_POSSIBLE_DRIFT_THRESHOLD] [default: 0.25]
          --epsilon <NUMBER>          Floor of a bin's fraction
                                      [key: monitor.epsilon] [env: PSI_EPSILON] [default: 0.0001]
          --significance <NUMBER>     Drift also needs a p-value below this, shared among the features of a check; 0: off
                                      [key: monitor.significance] [env: DRIFT_SIGNIFICANCE] [default: 0.001]

    HTTP:
          --http-host <TEXT>        Address for metrics, health and queries
                                    [key: http.host] [env: PROMETHEUS_HOST] [default: 127.0.0.1]
          --http-port <NUMBER>      Port for metrics, health and queries; 0: any free one; if not set and taken, the next
                                    free one
                                    [key: http.port] [env: PROMETHEUS_PORT] [default: 8000]
          --http-advertised <TEXT>  Address under which other instances reach this one
                                    [key: http.advertised] [default: host and port]

    Dashboard:
          --dashboard-host <TEXT>    Address of the dashboard
                                     [key: dashboard.host] [env: DASHBOARD_HOST] [default: 127.0.0.1]
          --dashboard-port <NUMBER>  Port of the dashboard; 0: any free one; if not set and taken, the next free one
                                     [key: dashboard.port] [env: DASHBOARD_PORT] [default: 8501]

    Command line before environment before file before default.

    Examples:
      leeway run --topic drift-data --reference reference.json
      leeway run --config leeway.toml --window-size 5000 --window-every 500
      leeway run --config leeway.toml --check-config
    "#);
}
