//! `leeway run`: everything between a configuration and a running stream processor.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use leeway_topology::metric::Metric;
use leeway_topology::processor::{Monitor, Publication, References as _};
use leeway_topology::reference::{Limits, Reference};
use leeway_topology::significance::{noise_floor, window_below_noise};
use leeway_topology::window::Window;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::broker::kafka::KafkaBroker;
use crate::broker::{Broker, BrokerError};
use crate::config::{Config, MonitorConfig, ReferenceSource};
use crate::http::{self, Health};
use crate::reference_topic::{self, Follower, LiveReferences, Published, ReferenceSet, ReferenceTopicError};
use crate::rolling_reference::{self, Made, Renewal, RollingError, RollingReference};
use crate::runtime::{self, Plan, Runtime, RuntimeError, Settings};
use crate::source::topic::{FirstRecords, first_records};
use crate::source::{self, BuildOptions, Format};
use crate::state::directory::StateDirectory;
use crate::state::store::StateStore;
use crate::telemetry::metrics::Metrics;

/// How long a Kafka that is not there at the start is waited for.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(300);

/// The first and the longest pause between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How often the main thread looks whether the runtime has ended.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Runs the stream processor until it is told to stop by SIGINT or SIGTERM.
///
/// # Errors
/// When it cannot start, or has to stop by itself.
pub fn run(config: Config) -> anyhow::Result<()> {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = tokio.block_on(run_until_stopped(config));
    // A start-up that is still waiting for Kafka is not waited for.
    tokio.shutdown_background();
    result
}

async fn run_until_stopped(config: Config) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let monitors: Vec<Arc<Monitor>> = config
        .monitors
        .iter()
        .map(|monitor| monitor.to_monitor().map(Arc::new))
        .collect::<Result<_, _>>()?;
    // Before anything is waited for: a typo in a file name is told at once.
    let given = config.monitors.iter().zip(&monitors);
    let given = given
        .map(|(monitor, watched)| given_reference(monitor, watched))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let rolling: Vec<_> = given.iter().filter_map(Given::rolling).cloned().collect();
    let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties).context("kafka.properties")?;
    let directory = if config.is_set("state_dir") {
        StateDirectory::open(&config.state_dir, &config.application_id)?
    } else {
        StateDirectory::open_free(&config.state_dir, &config.application_id)?
    };
    let (store, damage) = StateStore::open_or_set_aside(&directory, config.memory.store)?;
    if let Some(error) = damage {
        warn!(%error, "the state store is kept as `db.damaged`; everything is restored from the changelogs");
    }
    let metrics = Arc::new(Metrics::new(config.max_series)?);
    metrics.watch_process()?;
    let health = Arc::new(Health::new());
    let server = http::serve(&config.http, metrics.clone(), health.clone()).await?;
    health.set_ready(false, "waiting for Kafka");
    info!(application_id = %config.application_id, state_dir = %directory.path().display(), http = %server.address(), "started");

    let application_id: Arc<str> = config.application_id.as_str().into();
    let preparing = {
        let (broker, monitors, application_id, start) = (broker.clone(), monitors.clone(), application_id.clone(), config.start());
        tokio::task::spawn_blocking(move || wait_for_kafka(|| prepare(&broker, &application_id, &monitors, start, &given)))
    };
    let prepared = tokio::select! {
        prepared = preparing => prepared.context("preparing")?,
        () = stopped(&mut interrupt, &mut terminate) => return Ok(()),
    };
    let (plan, references) = prepared?;
    let broker = broker.fetching_ahead(config.memory.fetched_ahead_bytes, plan.fetched_partitions());
    warn_of_noise(&monitors, &references);
    for part in plan.sub_topologies.values() {
        for monitor in &part.monitors {
            if monitor.scopes.has(part.scope()) {
                metrics.add_monitor(&part.topic, part.scope(), &monitor.name);
                if !monitor.quality.is_off() {
                    metrics.add_quality(part.scope(), &monitor.name);
                }
            }
        }
    }
    let settings = Settings {
        application_id: Arc::clone(&application_id),
        process_id: directory.process_id().to_owned(),
        num_stream_threads: config.num_stream_threads,
        commit_interval: config.commit_interval,
        transaction_timeout: config.transaction_timeout,
        standby: config.standby,
        state_cache_max_bytes: config.memory.state_cache_bytes,
        monitors,
        fail_point: None,
    };
    let references = Arc::new(LiveReferences::new(references.published));
    let follower = Follower::start(broker.clone(), &config.application_id, references.clone()).context("starting a thread")?;
    let runtime = Runtime::start(settings, plan, broker.clone(), store.clone(), references, metrics.clone(), health)?;
    let renewal = Renewal::start(broker, &application_id, rolling, Arc::clone(runtime.assigned()), metrics).context("starting a thread")?;
    let ended_by_itself = tokio::select! {
        () = async { while !runtime.is_finished() { tokio::time::sleep(WATCH_EVERY).await; } } => true,
        () = stopped(&mut interrupt, &mut terminate) => false,
    };
    if !ended_by_itself {
        info!("stopping: committing what is open, leaving the group");
        runtime.stop();
    }
    let result = tokio::task::spawn_blocking(move || {
        let result = runtime.join();
        drop((follower, renewal));
        result
    })
    .await
    .context("stopping")?;
    server.shutdown().await;
    store.close()?;
    Ok(result?)
}

async fn stopped(interrupt: &mut tokio::signal::unix::Signal, terminate: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

impl Given {
    fn rolling(&self) -> Option<&RollingReference> {
        match self {
            Self::Rolling(rolling) => Some(rolling),
            Self::Published | Self::File(_) | Self::First { .. } => None,
        }
    }
}

/// Where a monitor's reference comes from, as far as that is known before Kafka is.
enum Given {
    /// It is published.
    Published,
    /// A file, read and checked.
    File(Reference),
    /// The first records of the topic, if none is published.
    First { records: u64, topic: String, options: BuildOptions },
    /// A stretch of the topic, if none is published; then it is renewed.
    Rolling(RollingReference),
}

fn given_reference(monitor: &MonitorConfig, watched: &Arc<Monitor>) -> anyhow::Result<Given> {
    Ok(match &monitor.reference {
        ReferenceSource::Rolling(rolling) => Given::Rolling(RollingReference {
            rolling: *rolling,
            monitor: Arc::clone(watched),
            options: build_options(monitor),
        }),
        ReferenceSource::Published => Given::Published,
        ReferenceSource::File(path) => {
            Given::File(read_reference(path, monitor).with_context(|| format!("reference of monitor {:?}", monitor.name))?)
        }
        ReferenceSource::First(records) => Given::First {
            records: *records,
            topic: monitor.topic.clone(),
            options: build_options(monitor),
        },
    })
}

/// How a reference is made of data, as the configuration says.
fn build_options(monitor: &MonitorConfig) -> BuildOptions {
    BuildOptions {
        monitor: monitor.name.clone(),
        binning: leeway_topology::binning::Binning::Auto {
            bins: leeway_topology::binning::DEFAULT_BINS,
        },
        overrides: Vec::new(),
        max_categories: monitor.max_categories,
        paths: monitor.paths.clone(),
        limits: Limits::default(),
    }
}

/// A reference document, or a table of which one is built.
fn read_reference(path: &Path, monitor: &MonitorConfig) -> anyhow::Result<Reference> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let path = path.display();
                anyhow::bail!("{path} is not there; make it with `leeway reference build --input train.csv --output {path}`")
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let reference = Reference::from_json(&bytes).with_context(|| path.display().to_string())?;
        return Ok(reference.with_monitor(&monitor.name));
    }
    let built = source::build_reference(path, Format::of(path)?, &build_options(monitor))?;
    for warning in &built.warnings {
        warn!(%warning, "reference");
    }
    Ok(built.reference)
}

/// An error of the start, and whether waiting may help.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    References(#[from] ReferenceTopicError),
    #[error("{0}")]
    NoReference(String),
    #[error(
        "monitor {monitor:?}: its reference is to be made of {records} of topic {topic:?}, which has {found} so far; `leeway reference publish` gives it one to \
         begin with"
    )]
    TooFewRecords {
        monitor: String,
        topic: String,
        records: String,
        found: u64,
    },
}

impl StartError {
    fn is_unavailable(&self) -> bool {
        match self {
            Self::Runtime(RuntimeError::Topics(error)) => error.is_unavailable(),
            Self::Runtime(RuntimeError::Broker(error)) => matches!(error, BrokerError::Unavailable(_)),
            Self::Runtime(RuntimeError::Fatal(_)) | Self::NoReference(_) | Self::TooFewRecords { .. } => false,
            Self::References(error) => error.is_unavailable(),
        }
    }
}

/// Topics and references.
fn prepare<B: Broker>(
    broker: &B,
    application_id: &str,
    monitors: &[Arc<Monitor>],
    start: crate::task::Start,
    given: &[Given],
) -> Result<(Plan, ReferenceSet), StartError> {
    let plan = runtime::plan(broker, application_id, monitors, start).map_err(RuntimeError::from)?;
    for given in given {
        let captured;
        let reference = match given {
            Given::Published => continue,
            Given::Rolling(rolling) => {
                roll(broker, application_id, rolling)?;
                continue;
            }
            Given::File(reference) => reference,
            Given::First { records, topic, options } => match capture(broker, application_id, *records, topic, options)? {
                None => continue,
                Some(reference) => {
                    captured = reference;
                    &captured
                }
            },
        };
        let (monitor, version) = (reference.monitor(), reference.version());
        match reference_topic::publish_if_new(broker, application_id, reference)? {
            Published::New => info!(monitor, version, "published the reference"),
            Published::Current => {}
            Published::Superseded => warn!(
                monitor,
                version,
                "the reference of the configuration is known, and another one was published since: that one counts; `leeway reference publish` goes back"
            ),
        }
    }
    let references = reference_topic::load(broker, application_id)?;
    for monitor in monitors {
        let published = references.published.current(&monitor.name).ok_or_else(|| {
            StartError::NoReference(format!(
                "monitor {:?} has no reference: none is published on {:?}; build one with `leeway reference build`, and give it with `--reference` or \
                 publish it with `leeway reference publish`",
                monitor.name,
                reference_topic::topic_name(application_id)
            ))
        })?;
        published.reference.require(monitor.named_features()).map_err(|error| {
            StartError::NoReference(format!(
                "monitor {:?}: {error}; see monitor.paths, monitor.feature_thresholds, monitor.feature_quality and monitor.weights",
                monitor.name
            ))
        })?;
        if let Some(features) = &monitor.features {
            published
                .reference
                .select(features)
                .map_err(|error| StartError::NoReference(format!("monitor {:?}: {error}; see monitor.features", monitor.name)))?;
        }
    }
    Ok((plan, references))
}

/// A reference of the topic's first records, unless the monitor has one already.
fn capture<B: Broker>(broker: &B, application_id: &str, records: u64, topic: &str, options: &BuildOptions) -> Result<Option<Reference>, StartError> {
    let is_published = || -> Result<bool, StartError> {
        let known = reference_topic::load(broker, application_id)?;
        Ok(known.published.current(&options.monitor).is_some())
    };
    if is_published()? {
        return Ok(None);
    }
    let values = match first_records(broker, topic, records).map_err(RuntimeError::from)? {
        FirstRecords::Enough(values) => values,
        FirstRecords::TooFew(found) => {
            let (monitor, topic, records) = (options.monitor.clone(), topic.to_owned(), format!("the first {records} records"));
            return Err(StartError::TooFewRecords {
                monitor,
                topic,
                records,
                found,
            });
        }
    };
    // Another instance may have been first: its reference counts.
    if is_published()? {
        return Ok(None);
    }
    let name = format!("the first {records} records of topic {topic:?}");
    let built = source::build_reference_of_records(Path::new(&name), &values, options)
        .map_err(|error| StartError::NoReference(format!("monitor {:?}: {error}", options.monitor)))?;
    for warning in &built.warnings {
        warn!(%warning, "reference");
    }
    info!(monitor = %options.monitor, topic, records, "made a reference of the topic's first records");
    Ok(Some(built.reference))
}

/// A first reference of the present period, unless the monitor has one already: that counts until it is renewed.
fn roll<B: Broker>(broker: &B, application_id: &str, rolling: &RollingReference) -> Result<(), StartError> {
    let monitor = &*rolling.monitor.name;
    let known = reference_topic::load(broker, application_id)?;
    if known.published.current(monitor).is_some() {
        return Ok(());
    }
    let period = rolling.rolling.period(rolling_reference::now());
    let built = match rolling.make(broker, &period) {
        Ok(Made::Reference(built)) => built,
        Ok(Made::TooFew(found)) => {
            return Err(StartError::TooFewRecords {
                monitor: monitor.to_owned(),
                topic: rolling.monitor.topic.to_string(),
                records: format!(
                    "at least {} records from {}",
                    rolling.monitor.min_samples,
                    rolling_reference::text(&period)
                ),
                found,
            });
        }
        Err(RollingError::Broker(error)) => return Err(RuntimeError::from(error).into()),
        Err(RollingError::Topic(error)) => return Err(error.into()),
        Err(error) => return Err(StartError::NoReference(format!("monitor {monitor:?}: {error}"))),
    };
    Ok(rolling.publish(broker, application_id, &built, &period)?)
}

/// Tries until Kafka is there and has what is needed, says once that it is not, and gives up after [`STARTUP_TIMEOUT`].
fn wait_for_kafka<T>(mut attempt: impl FnMut() -> Result<T, StartError>) -> anyhow::Result<T> {
    let (mut pause, longest) = BACKOFF;
    let (mut told, mut waiting) = (false, false);
    let mut unavailable_since = None;
    loop {
        match attempt() {
            // As long as it takes; and Kafka has answered.
            Err(error @ StartError::TooFewRecords { .. }) => {
                unavailable_since = None;
                if !waiting {
                    warn!(%error, "waiting for records");
                    waiting = true;
                }
                std::thread::sleep(longest);
            }
            Err(error) if error.is_unavailable() && unavailable_since.get_or_insert_with(Instant::now).elapsed() < STARTUP_TIMEOUT => {
                if !told {
                    warn!(%error, "Kafka cannot be reached; waiting for it");
                    told = true;
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(longest);
            }
            Err(error) if error.is_unavailable() => {
                return Err(anyhow::Error::new(error).context(format!(
                    "Kafka could not be reached for {} s; check kafka.bootstrap_servers",
                    STARTUP_TIMEOUT.as_secs()
                )));
            }
            Err(error) => return Err(error.into()),
            Ok(result) => {
                if told {
                    info!("Kafka is there");
                }
                return Ok(result);
            }
        }
    }
}

/// A window whose noise alone reaches the first threshold cannot tell drift from chance by PSI.
fn warn_of_noise(monitors: &[Arc<Monitor>], references: &ReferenceSet) {
    for monitor in monitors {
        let Some(Publication { reference, .. }) = references.published.current(&monitor.name) else {
            continue;
        };
        // How many records a window of time has is not known.
        let Window::Count(window) = monitor.window else { continue };
        for feature in reference.features() {
            let (Metric::Psi, thresholds) = monitor.criteria.decision(feature) else {
                continue;
            };
            let threshold = thresholds.possible_drift;
            let floor = noise_floor(feature.counts(), window.size());
            if floor > threshold {
                let takes = window_below_noise(feature.counts(), threshold).map_or_else(
                    || "no window is large enough for this reference".to_owned(),
                    |size| format!("it takes a window of {size} records"),
                );
                warn!(monitor = %monitor.name, feature = %feature.name(), noise_floor = floor, threshold, "PSI reaches the threshold by chance alone: {takes}");
            }
        }
    }
}
