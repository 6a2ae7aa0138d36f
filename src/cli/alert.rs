//! `leeway alert`: everything between a configuration and channels that are told.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use leeway_topology::event::Scope;
use leeway_topology::ids::{Partition, Timestamp};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::Context;
use crate::broker::kafka::KafkaBroker;
use crate::broker::{Broker, BrokerError, ClientSettings, TopicPartition};
use crate::config::{AlertConfig, ChannelConfig, Config, ConfigError, ConfigFlags, Target};
use crate::consumers::alert::channels::{Channel, alertmanager::Alertmanager, csv::CsvLog, slack::Slack, stdout::Stdout, webhook::Webhook};
use crate::consumers::alert::incident::{Severity, Transition};
use crate::consumers::alert::message::{self, Alert, Kind, Message, TopBin, Window};
use crate::consumers::alert::metrics::AlertMetrics;
use crate::consumers::alert::outbox::{LogLine, Outcome, Payload};
use crate::consumers::alert::text;
use crate::consumers::alert::thread::{AlertError, AlertThread, ChannelSpec, Settings, Watched};
use crate::http::{self, Health};
use crate::reference_topic::{self, Follower, LiveReferences};
use crate::stream_thread::Now;
use crate::topics;

/// How long a Kafka that is not there at the start is waited for.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(300);

/// The pause between two tries.
const STARTUP_PAUSE: Duration = Duration::from_secs(1);

/// How often it is asked how far the topics of events go.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// One request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest sleep of the loop.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// How long what is under way may take when the process is told to stop: one attempt to deliver, and a commit.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest record of the topic of state.
const STATE_MESSAGE_BYTES: usize = 1 << 20;

/// Properties of the consumer that are not set by the user. A dead process is noticed after 10 s instead of 45 s, since somebody waits for alerts; and
/// events are few, so that little of them has to be held.
const PROPERTIES: [(&str, &str); 2] = [("session.timeout.ms", "10000"), ("queued.max.messages.kbytes", "16384")];

/// Arguments of `leeway alert`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Channels are `[[alert.channel]]` tables of the configuration file, and SLACK_WEBHOOK_URL; without any, alerts go to standard output.
Start a second one with the same configuration to take over when the first one dies.

Examples:
  SLACK_WEBHOOK_URL=https://hooks.slack.com/services/... leeway alert
  leeway alert --config leeway.toml
  leeway alert --config leeway.toml --test slack"
)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// Sends a sample to this channel, says what came of it, and ends; needs no Kafka
    #[arg(long, value_name = "CHANNEL")]
    test: Option<String>,
}

/// Alerts until it is told to stop by SIGINT or SIGTERM, or sends a sample.
///
/// # Errors
/// When the configuration is not valid, the sample does not arrive, or it has to stop by itself.
pub fn execute(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    // The HTTP client names addresses when it is asked to trace, and Slack's are secrets.
    let filter = format!("{},ureq=info,ureq_proto=info", config.log);
    crate::telemetry::logging::init(&filter, config.log_format, !context.no_color())?;
    match &args.test {
        Some(name) => test(&config.alert, name),
        None => {
            let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let result = tokio.block_on(run(config));
            tokio.shutdown_background();
            result
        }
    }
}

/// Sends a sample once.
fn test(config: &AlertConfig, name: &str) -> anyhow::Result<ExitCode> {
    let Some(channel) = config.channels.iter().find(|channel| channel.name == name) else {
        let known: Vec<_> = config.channels.iter().map(|channel| channel.name.as_str()).collect();
        let fault = format!("--test {name}: there is no such channel; there is {}", known.join(", "));
        return Err(ConfigError { faults: vec![fault] }.into());
    };
    let payload = match channel.target {
        Target::Csv { .. } => Payload::Log(vec![sample_line()]),
        _ => Payload::Message(Box::new(sample(config.dashboard_url.clone()))),
    };
    match sink(channel).deliver(&payload) {
        Outcome::Delivered => {
            writeln!(std::io::stderr(), "channel {name}: the sample was delivered")?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Retry { reason, after } => {
            let after = after
                .map(|after| format!("; it asks to be tried again after {} s", after.as_secs()))
                .unwrap_or_default();
            anyhow::bail!("channel {name}: the sample was not delivered, and may be later: {reason}{after}")
        }
        Outcome::Refused { reason } => anyhow::bail!("channel {name}: the sample was refused: {reason}"),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A message that nobody can take for a real one.
fn sample(dashboard_url: Option<String>) -> Message {
    let now = now_ms();
    let bin = |bin: &str, expected_percent, actual_percent| TopBin {
        bin: bin.to_owned(),
        expected_percent,
        actual_percent,
    };
    let alert = Alert {
        key: format!("sample-{now}#opened"),
        transition: Transition::Opened,
        kind: Kind::Feature,
        feature: "sample_feature".to_owned(),
        from: "no_drift".to_owned(),
        to: "drift".to_owned(),
        severity: Severity::Drift,
        severity_before: None,
        since_ms: now,
        at_ms: now,
        psi: Some(0.412),
        decided_by: None,
        threshold: Some(0.25),
        noise_floor: Some(0.031),
        p_value: Some(3.1e-41),
        top_bins: vec![
            bin("(1.28, inf)", 10.0, 31.0),
            bin("(-inf, -1.28]", 10.0, 2.0),
            bin("__missing__", 0.0, 1.5),
        ],
        missing_percent: Some(1.5),
        other_percent: None,
        out_of_range_percent: Some(0.2),
        violations: Vec::new(),
        drifted_features: None,
    };
    let message = Message {
        schema_version: message::SCHEMA_VERSION,
        key: String::new(),
        monitor: "test-of-leeway-alert".to_owned(),
        scope: Scope::Partition,
        partition: Some(0),
        segment: None,
        window: Window {
            count: 1000,
            record_count: 8400,
            start_offset: Some(7400),
            end_offset: Some(8399),
            start_ms: now - 60_000,
            end_ms: now,
        },
        reference_version: "0123456789abcdef".to_owned(),
        others_open: 0,
        dashboard_url,
        alerts: vec![alert],
    };
    message::combine("test", vec![message.clone()], 0).pop().unwrap_or(message)
}

fn sample_line() -> LogLine {
    let now = now_ms();
    LogLine {
        timestamp: text::time(now),
        psi_score: 0.412,
        drift_status: "drift".to_owned(),
        monitor: "test-of-leeway-alert".to_owned(),
        scope: "partition".to_owned(),
        partition: Some(0),
        segment: None,
        record_count: 8400,
        drifted_features: 1,
        feature_count: 2,
        event_id: format!("sample-{now}"),
    }
}

fn sink(channel: &ChannelConfig) -> Box<dyn Channel> {
    let timeout = channel.timeout;
    match &channel.target {
        Target::Slack { url } => Box::new(Slack::new(url.clone(), timeout)),
        Target::Webhook { url, secret } => Box::new(Webhook::new(url.clone(), secret.clone(), timeout)),
        Target::Alertmanager { url, resend } => Box::new(Alertmanager::new(url, *resend, timeout)),
        Target::Csv { path } => Box::new(CsvLog::new(path.clone())),
        Target::Stdout => Box::new(Stdout::new(std::io::stdout())),
    }
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut properties = config.kafka.properties.clone();
    let decided_by_brokers = properties.get("group.protocol").is_some_and(|protocol| protocol == "consumer");
    for (name, value) in PROPERTIES {
        if !(decided_by_brokers && name == "session.timeout.ms") {
            properties.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &properties).context("kafka.properties")?;
    let names: Vec<String> = config.alert.channels.iter().map(|channel| channel.name.clone()).collect();
    let metrics = Arc::new(AlertMetrics::new(&names)?);
    let health = Arc::new(Health::new());
    let server = http::serve(&config.http, metrics.clone(), health.clone()).await?;
    health.set_ready(false, "waiting for Kafka");
    info!(group = %config.alert.group_id, channels = names.join(","), http = %server.address(), "started");

    let state_topic = format!("{}-state", config.alert.group_id);
    let preparing = {
        let (broker, topic, application_id) = (broker.clone(), state_topic.clone(), config.application_id.clone());
        tokio::task::spawn_blocking(move || {
            wait_for_kafka(|| topics::alert_state(&broker, &topic, STATE_MESSAGE_BYTES))?;
            // Before the first alert, which has thresholds and bins of it.
            anyhow::Ok(reference_topic::load(&broker, &application_id))
        })
    };
    let loaded = tokio::select! {
        prepared = preparing => prepared.context("preparing")??,
        () = stopped(&mut interrupt, &mut terminate) => return Ok(ExitCode::SUCCESS),
    };
    // What cannot be read is tried again, and told, by who follows it.
    let references = Arc::new(LiveReferences::new(loaded.map(|set| set.published).unwrap_or_default()));
    let follower = Follower::start(broker.clone(), &config.application_id, references.clone()).context("starting a thread")?;
    let (watched, watch) = channel();
    let (watching, watch_stopped) = channel::<()>();
    let event_topics: std::collections::BTreeSet<Arc<str>> = config.monitors.iter().map(|monitor| monitor.events_topic.as_str().into()).collect();
    {
        let broker = broker.clone();
        std::thread::Builder::new()
            .name("watch-topics".to_owned())
            .spawn(move || watch_topics(&broker, &event_topics, &watched, &watch_stopped))?;
    }
    let client = broker.client(&ClientSettings {
        application_id: config.alert.group_id.clone(),
        // The same in every process of the group: who becomes active fences whoever was.
        transactional_id: state_topic.clone(),
        client_id: format!("{}-{}", config.alert.group_id, std::process::id()),
        thread: 0,
        transaction_timeout: config.transaction_timeout,
        message_bytes_max: STATE_MESSAGE_BYTES,
        batch_bytes_max: STATE_MESSAGE_BYTES,
    })?;
    let settings = settings(&config, &state_topic, references);
    let specs = config.alert.channels.iter().map(spec).collect();
    let mut thread = AlertThread::new(client, settings, specs, watch, metrics, health)?;
    let stop = Arc::new(AtomicBool::new(false));
    let looping = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || -> Result<(), AlertError> {
            thread.start();
            let result = drive(&mut thread, &stop);
            thread.close(Duration::from_secs(5));
            result
        })
    };
    tokio::pin!(looping);
    let result = tokio::select! {
        result = &mut looping => result,
        () = stopped(&mut interrupt, &mut terminate) => {
            info!("stopping: finishing what is under way, leaving the group");
            stop.store(true, Ordering::Release);
            looping.await
        }
    };
    drop((watching, follower));
    server.shutdown().await;
    result.context("stopping")??;
    Ok(ExitCode::SUCCESS)
}

async fn stopped(interrupt: &mut tokio::signal::unix::Signal, terminate: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Runs the loop until it is told to stop and has.
fn drive<C: crate::broker::StreamClient>(thread: &mut AlertThread<C>, stop: &AtomicBool) -> Result<(), AlertError> {
    let started = Instant::now();
    let mut stop_by: Option<Instant> = None;
    loop {
        let now = Now {
            elapsed: started.elapsed(),
            wall: Timestamp(now_ms()),
        };
        let busy = thread.step(now)?;
        if stop.load(Ordering::Acquire) {
            thread.stop();
            let deadline = *stop_by.get_or_insert_with(|| Instant::now() + STOP_TIMEOUT);
            if thread.is_stopped() || Instant::now() >= deadline {
                return Ok(());
            }
        }
        if !busy {
            thread.wait(IDLE_WAIT);
        }
    }
}

fn settings(config: &Config, state_topic: &str, references: Arc<LiveReferences>) -> Settings {
    let criteria: BTreeMap<_, _> = config
        .monitors
        .iter()
        .map(|monitor| (monitor.name.clone(), monitor.criteria.clone()))
        .collect();
    Settings {
        state_topic: state_topic.into(),
        group_wait: config.alert.group_wait,
        max_parked: config.alert.max_parked,
        max_age_ms: i64::try_from(config.alert.max_age.as_millis()).unwrap_or(i64::MAX),
        expire_after: config.alert.expire_after,
        dashboard_url: config.alert.dashboard_url.clone(),
        criteria,
        references,
        seed: rand::random(),
    }
}

fn spec(channel: &ChannelConfig) -> ChannelSpec {
    ChannelSpec {
        name: channel.name.clone(),
        sink: sink(channel),
        filter: channel.filter.clone(),
        rule: channel.rule,
        is_log: matches!(channel.target, Target::Csv { .. }),
        refresh_every: match channel.target {
            Target::Alertmanager { resend, .. } => Some(resend),
            _ => None,
        },
    }
}

/// Tries until Kafka is there, says once that it is not, and gives up after [`STARTUP_TIMEOUT`].
fn wait_for_kafka<T>(mut attempt: impl FnMut() -> Result<T, topics::TopicError>) -> anyhow::Result<T> {
    let deadline = Instant::now() + STARTUP_TIMEOUT;
    let mut told = false;
    loop {
        match attempt() {
            Err(error) if error.is_unavailable() && Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%error, "Kafka cannot be reached; waiting for it");
                }
                std::thread::sleep(STARTUP_PAUSE);
            }
            result => return result.context("preparing the topic of alerts' state"),
        }
    }
}

/// Tells how far the topics of events go, again and again, until nobody listens. A topic that is not there is waited for: workers make it.
fn watch_topics<B: Broker>(broker: &B, topics: &std::collections::BTreeSet<Arc<str>>, watched: &Sender<Watched>, stopped: &Receiver<()>) {
    let mut missing: std::collections::BTreeSet<Arc<str>> = std::collections::BTreeSet::new();
    loop {
        for topic in topics {
            match ends(broker, topic) {
                Ok(ends) => {
                    if ends.is_empty() && missing.insert(topic.clone()) {
                        warn!(%topic, "there is no such topic yet; waiting for it");
                    } else if !ends.is_empty() && missing.remove(topic) {
                        info!(%topic, partitions = ends.len(), "the topic is there");
                    }
                    let topic = topic.clone();
                    if watched.send(Watched { topic, ends }).is_err() {
                        return;
                    }
                }
                Err(error) => tracing::debug!(%topic, %error, "asking how far it goes"),
            }
        }
        if !matches!(stopped.recv_timeout(WATCH_EVERY), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

fn ends<B: Broker>(broker: &B, topic: &Arc<str>) -> Result<Vec<leeway_topology::ids::Offset>, BrokerError> {
    let partitions = broker
        .describe_topic(topic, REQUEST_TIMEOUT)?
        .map_or(0, |description| description.partitions);
    (0..partitions)
        .map(|number| {
            let partition = TopicPartition::new(topic.clone(), Partition(i32::try_from(number).unwrap_or(i32::MAX)));
            broker.end_offset(&partition, REQUEST_TIMEOUT)
        })
        .collect()
}
