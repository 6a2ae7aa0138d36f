//! `leeway demo`: the whole system in one process. A synthetic stream starts to drift; the real stream threads find it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell as TableCell, Color, Table};
use leeway_topology::binning::Binning;
use leeway_topology::drift::Status;
use leeway_topology::event::{DriftEvent, Scope};
use leeway_topology::ids::{Offset, Partition};
use leeway_topology::processor::Monitor;
use leeway_topology::reference::{Cell, ColumnType, Reference, ReferenceBuilder};

use super::Context;
use crate::broker::kafka::KafkaBroker;
use crate::broker::memory::MemoryBroker;
use crate::broker::{Broker, ClientSettings, NewTopic, OutRecord, PlainProducer, StreamClient, TopicPartition};
use crate::config::{HttpConfig, LogFormat};
use crate::consumers::dashboard::{self, Dashboard, Limits};
use crate::http::{self, Health, Listen};
use crate::reference_topic;
use crate::runtime::{self, Runtime, Settings};
use crate::source::synthetic::{self, DRIFTING, FEATURES, Rows};
use crate::state::store::StateStore;
use crate::task::Start;
use crate::telemetry::logging;
use crate::telemetry::metrics::Metrics;

const PARTITIONS: u32 = 2;

/// Rows that the reference is made of.
const REFERENCE_ROWS: u64 = 10_000;

/// Rows a second: both partitions are checked several times a second, and a terminal can follow.
const RATE: u64 = 2_000;

/// Rows before the drift begins: some seconds of quiet.
const DRIFT_AFTER: u64 = 12_000;

/// By how many standard deviations the drifting features move.
const SHIFT: f64 = 1.0;

/// How often the table is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// How often rows are sent.
const TICK: Duration = Duration::from_millis(10);

/// Arguments of `leeway demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 if drift was found on feature1 and feature3 and on nothing else, else 1.

Examples:
  leeway demo
  leeway demo --duration 30s --seed 7
  leeway demo --kafka localhost:9092")]
pub struct Args {
    /// Ends by itself after so long, such as 30s or 2m; left out: when interrupted
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// The same seed gives the same stream
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// On this Kafka instead of the embedded broker; its topics stay, named leeway-demo-*
    #[arg(long, value_name = "BOOTSTRAP", num_args = 0..=1, default_missing_value = "localhost:9092")]
    kafka: Option<String>,
    /// Port of metrics and health; left out: 8000, or the next free one
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Port of the dashboard; left out: 8501, or the next free one
    #[arg(long, value_name = "PORT")]
    dashboard_port: Option<u16>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a number and a unit, as in 30s or 2m".to_owned())?;
    match &text[digits.len()..] {
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        unit => Err(format!("unit {unit:?}: expected s, m or h")),
    }
}

/// Runs the demo.
///
/// # Errors
/// When it cannot start, or the stream processor fails.
pub fn execute(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let colors = !context.no_color() && std::io::stdout().is_terminal();
    // The table is the output; only what is wrong is worth a line between.
    logging::init("warn", LogFormat::Text, colors)?;
    match &args.kafka {
        None => run(&MemoryBroker::new(), &args, "leeway-demo", colors, begun),
        Some(bootstrap) => run(
            &KafkaBroker::new(bootstrap, &BTreeMap::new())?,
            &args,
            &format!("leeway-demo-{}", std::process::id()),
            colors,
            begun,
        ),
    }
}

fn run<B: Broker>(broker: &B, args: &Args, application_id: &str, colors: bool, begun: Instant) -> anyhow::Result<ExitCode> {
    let mut monitor = Monitor::new("default", &format!("{application_id}-data"));
    monitor.events_topic = format!("{application_id}-events").into();
    let monitor = Arc::new(monitor);
    let topic = NewTopic {
        name: monitor.topic.clone(),
        partitions: PARTITIONS,
        replication_factor: None,
        config: BTreeMap::new(),
    };
    broker
        .create_topic(&topic, Duration::from_secs(10))
        .context("creating the demo's topic")?;
    reference_topic::publish(broker, application_id, &reference(args.seed)?)?;
    let references = reference_topic::load(broker, application_id)?;
    let monitors = vec![monitor.clone()];
    let plan = runtime::plan(broker, application_id, &monitors, Start::Earliest)?;

    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (metrics, health) = (Arc::new(Metrics::new(1000)?), Arc::new(Health::new()));
    metrics.add_monitor(&monitor.topic, Scope::Partition, &monitor.name);
    let config = HttpConfig {
        host: "127.0.0.1".to_owned(),
        port: args.http_port.unwrap_or(8000),
        port_is_set: args.http_port.is_some(),
        advertised: None,
        bearer_token: None,
    };
    let server = tokio.block_on(http::serve(&config, metrics.clone(), health.clone()))?;
    let dashboard = dashboard::Settings {
        application_id: application_id.to_owned(),
        monitors: monitors.clone(),
        listen: Listen {
            section: "dashboard",
            host: "127.0.0.1".to_owned(),
            port: args.dashboard_port.unwrap_or(8501),
            port_is_set: args.dashboard_port.is_some(),
        },
        limits: Limits::default(),
    };
    let dashboard = tokio.block_on(Dashboard::start(broker.clone(), dashboard))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "dashboard  http://{}", dashboard.address())?;
    writeln!(out, "metrics    http://{}/metrics", server.address())?;
    writeln!(out, "health     http://{}/health/ready", server.address())?;
    writeln!(
        out,
        "{RATE} rows a second; {} start to drift after {} s\n",
        DRIFTING.join(" and "),
        DRIFT_AFTER / RATE
    )?;

    let settings = Settings {
        application_id: application_id.into(),
        process_id: format!("{:016x}", rand::random::<u64>()),
        num_stream_threads: None,
        commit_interval: Duration::from_millis(100),
        transaction_timeout: Duration::from_secs(10),
        standby: false,
        state_cache_max_bytes: 64 << 20,
        monitors,
        fail_point: None,
    };
    let runtime = Runtime::start(
        settings,
        plan,
        broker.clone(),
        StateStore::in_memory(),
        Arc::new(references.published),
        metrics,
        health,
    )?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    tokio.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            flag.store(true, Ordering::Release);
        }
    });

    let mut stream = Stream::new(broker, &monitor, args.seed)?;
    let mut seen = Seen::new(broker, application_id, &monitor)?;
    let mut screen = Screen { colors, drawn: None };
    while !interrupted.load(Ordering::Acquire) && args.duration.is_none_or(|duration| begun.elapsed() < duration) && !runtime.is_finished() {
        stream.send_due()?;
        seen.read(begun);
        if screen.is_due() {
            screen.draw(&seen, &stream, &mut out)?;
        }
        std::thread::sleep(TICK);
    }
    runtime.stop();
    runtime.join()?;
    seen.read(begun);
    seen.client.close(Duration::from_secs(5));
    tokio.block_on(async {
        dashboard.shutdown().await;
        server.shutdown().await;
    });
    tokio.shutdown_background();
    screen.draw(&seen, &stream, &mut out)?;
    seen.verdict(&mut out)
}

/// A reference of rows as they are before the drift.
fn reference(seed: u64) -> anyhow::Result<Reference> {
    let columns: Vec<_> = (1..=FEATURES).map(|number| (format!("feature{number}"), ColumnType::Number)).collect();
    let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 10 }, &[], 50)?;
    // Other rows than those that are sent: another seed.
    let settings = synthetic::Settings {
        seed: seed.wrapping_add(1),
        shift: 0.0,
        drift_after: 0,
    };
    let mut rows = Rows::new(settings).context("the synthetic stream")?;
    for _ in 0..REFERENCE_ROWS {
        builder.push_row(rows.next_values().map(Cell::Number));
    }
    Ok(builder.finish()?.0)
}

/// The synthetic stream, at its rate.
struct Stream<P> {
    producer: P,
    rows: Rows,
    topic: Arc<str>,
    sent: u64,
    begun: Instant,
    json: String,
}

impl<P: PlainProducer> Stream<P> {
    fn new<B: Broker<Producer = P>>(broker: &B, monitor: &Monitor, seed: u64) -> anyhow::Result<Self> {
        let rows = Rows::new(synthetic::Settings {
            seed,
            shift: SHIFT,
            drift_after: DRIFT_AFTER,
        })
        .context("the synthetic stream")?;
        Ok(Self {
            producer: broker.producer()?,
            rows,
            topic: monitor.topic.clone(),
            sent: 0,
            begun: Instant::now(),
            json: String::new(),
        })
    }

    fn send_due(&mut self) -> anyhow::Result<()> {
        let due = (self.begun.elapsed().as_secs_f64() * RATE as f64) as u64;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        while self.sent < due {
            self.rows.next_json(now, &mut self.json);
            let partition = Partition(i32::try_from(self.sent % u64::from(PARTITIONS)).unwrap_or(0));
            let value = Some(self.json.clone().into_bytes());
            self.producer.send(OutRecord {
                topic: self.topic.clone(),
                partition,
                key: None,
                value,
                headers: Vec::new(),
                timestamp: None,
            })?;
            self.sent += 1;
        }
        Ok(())
    }
}

/// The drift events that were seen.
struct Seen<C> {
    client: C,
    /// The last event of each feature and partition.
    last: BTreeMap<(Arc<str>, Option<Partition>), DriftEvent>,
    drifted: BTreeSet<Arc<str>>,
    events: u64,
    first_drift: Option<Duration>,
}

impl<C: StreamClient> Seen<C> {
    fn new<B: Broker<Client = C>>(broker: &B, application_id: &str, monitor: &Monitor) -> anyhow::Result<Self> {
        // A restore consumer reads any topic committed; it is no member of the group.
        let mut client = broker.client(&ClientSettings {
            application_id: format!("{application_id}-reader"),
            transactional_id: format!("{application_id}-reader"),
            client_id: format!("{application_id}-reader"),
            thread: 1,
            transaction_timeout: Duration::from_secs(10),
            message_bytes_max: 1 << 20,
            batch_bytes_max: 1 << 20,
        })?;
        let found = broker
            .describe_topic(&monitor.events_topic, Duration::from_secs(10))?
            .context("the topic of drift events")?;
        for partition in 0..i32::try_from(found.partitions)? {
            client.start_restore(&TopicPartition::new(monitor.events_topic.clone(), Partition(partition)), Offset(0));
        }
        Ok(Self {
            client,
            last: BTreeMap::new(),
            drifted: BTreeSet::new(),
            events: 0,
            first_drift: None,
        })
    }

    fn read(&mut self, begun: Instant) {
        while self.client.next_event().is_some() {}
        let Self {
            client,
            last,
            drifted,
            events,
            first_drift,
        } = self;
        let mut visit = |_: &TopicPartition, record: crate::broker::FetchedRecord<'_>| {
            let Some(Ok(event)) = record.value.map(DriftEvent::from_json) else {
                return;
            };
            *events += 1;
            if event.status == Status::Drift && !event.is_summary() {
                first_drift.get_or_insert(begun.elapsed());
                drifted.insert(event.feature.clone());
            }
            last.insert((event.feature.clone(), event.partition), event);
        };
        while client.poll_restore(1000, &mut visit) > 0 {}
    }

    fn verdict(&self, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        let expected: BTreeSet<Arc<str>> = DRIFTING.iter().map(|name| Arc::from(*name)).collect();
        if let Some(first) = self.first_drift {
            writeln!(out, "first drift event {:.1} s after the start of the process", first.as_secs_f64())?;
        }
        let names = |set: &BTreeSet<Arc<str>>| set.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
        if self.drifted == expected {
            writeln!(out, "drift was found on {} and on nothing else", names(&expected))?;
            return Ok(ExitCode::SUCCESS);
        }
        let found = if self.drifted.is_empty() {
            "nothing".to_owned()
        } else {
            names(&self.drifted)
        };
        writeln!(out, "drift was found on {found}; it should have been {}", names(&expected))?;
        Ok(ExitCode::from(super::EXIT_FAILED))
    }
}

/// The table: drawn in place on a terminal, one below the other elsewhere.
struct Screen {
    colors: bool,
    drawn: Option<(Instant, usize)>,
}

/// Where there is no terminal, a table now and then is enough.
const DRAW_EVERY_PLAIN: Duration = Duration::from_secs(5);

impl Screen {
    fn is_due(&self) -> bool {
        let every = if std::io::stdout().is_terminal() { DRAW_EVERY } else { DRAW_EVERY_PLAIN };
        self.drawn.is_none_or(|(at, _)| at.elapsed() >= every)
    }

    fn draw<C, P>(&mut self, seen: &Seen<C>, stream: &Stream<P>, out: &mut impl Write) -> std::io::Result<()> {
        let mut table = Table::new();
        table
            .load_style(UTF8_BORDERS_ONLY)
            .set_header(["feature", "partition", "PSI", "by chance", "p", "status", ""]);
        for ((feature, partition), event) in &seen.last {
            if event.is_summary() {
                continue;
            }
            let (text, color) = match event.status {
                Status::NoDrift => ("no drift", Color::Green),
                Status::PossibleDrift => ("possible drift", Color::Yellow),
                Status::Drift => ("drift", Color::Red),
            };
            let status = if self.colors {
                TableCell::new(text).fg(color)
            } else {
                TableCell::new(text)
            };
            let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
            let p = event.p_value.map_or_else(String::new, |p| format!("{p:.1e}"));
            let bar = "█".repeat(((event.psi * 20.0).round() as usize).min(30));
            let partition = partition.map_or_else(String::new, |partition| partition.to_string());
            table.add_row([
                TableCell::new(feature),
                TableCell::new(partition),
                TableCell::new(format!("{:.4}", event.psi)),
                TableCell::new(number(event.psi_null_mean)),
                TableCell::new(p),
                status,
                TableCell::new(bar),
            ]);
        }
        let text = format!("{table}\n{} rows sent, {} drift events read\n", stream.sent, seen.events);
        if let Some((_, lines)) = self.drawn
            && std::io::stdout().is_terminal()
        {
            // Up, and clear to the end of the screen.
            write!(out, "\x1b[{lines}A\x1b[J")?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        self.drawn = Some((Instant::now(), text.lines().count()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        assert_eq!(["30s", "2m", "1h", "5"].map(|text| duration(text).unwrap().as_secs()), [30, 120, 3600, 5]);
        assert!(duration("soon").is_err() && duration("3d").is_err());
    }
}
