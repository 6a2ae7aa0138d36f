//! `leeway produce`: rows to a topic.

use std::io::{BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use leeway_topology::ids::Partition;
use leeway_topology::reference::Cell;

use super::Context;
use crate::broker::kafka::KafkaBroker;
use crate::broker::{Broker, OutRecord, PlainProducer, partitioner};
use crate::config::ConfigFlags;
use crate::source::synthetic::{Rows, Settings};
use crate::source::{self, Format, SourceError};

/// Rows sent to one partition before the next one's turn, where there is no key: full batches.
const ROWS_PER_PARTITION: u64 = 200;

/// How long the last records may take to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the topic is looked for.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of `leeway produce`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A CSV file is sent as JSON objects with the types that `leeway reference build` finds in it, so that a file that is built as
reference and then sent has PSI 0. A line of JSON-lines is the record's value, byte for byte.

Examples:
  leeway produce serving.csv --topic drift-data
  zcat day.jsonl.gz | leeway produce - --rate 5000
  leeway produce --synthetic --rows 100000 --shift 1.5 --drift-after 50000"
)]
pub struct Args {
    /// A .csv, .parquet or .jsonl file, or - for JSON-lines on standard input
    #[arg(value_name = "FILE", required_unless_present = "synthetic", conflicts_with = "synthetic")]
    file: Option<PathBuf>,
    /// The file's format, if its name does not say
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Sends a synthetic stream: feature1 to feature5, target, timestamp
    #[arg(long)]
    synthetic: bool,
    /// Synthetic rows; left out: until interrupted
    #[arg(long, requires = "synthetic")]
    rows: Option<u64>,
    /// By how many standard deviations feature1 and feature3 move
    #[arg(long, default_value_t = 0.0, requires = "synthetic", allow_negative_numbers = true)]
    shift: f64,
    /// Synthetic rows before they move
    #[arg(long, default_value_t = 0, requires = "synthetic")]
    drift_after: u64,
    /// The same seed gives the same rows
    #[arg(long, default_value_t = 42, requires = "synthetic")]
    seed: u64,
    /// Rows a second at most
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// The column whose text is the record's key; without it there is no key, and partitions take turns
    #[arg(long, value_name = "COLUMN")]
    key_column: Option<String>,
    #[command(flatten)]
    config: ConfigFlags,
}

/// Sends the rows.
///
/// # Errors
/// When the topic is not there, the rows cannot be read, or Kafka does not take them.
pub fn execute(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.load_config(&args.config)?;
    let broker = KafkaBroker::new(&config.kafka.bootstrap_servers, &config.kafka.properties)?;
    let topic = config.monitors.first().map(|monitor| monitor.topic.clone()).context("no topic")?;
    let reach = || {
        format!(
            "Kafka at {} cannot be asked; check kafka.bootstrap_servers",
            config.kafka.bootstrap_servers
        )
    };
    let found = broker.describe_topic(&topic, LOOKUP_TIMEOUT).with_context(reach)?;
    let found =
        found.with_context(|| format!("topic {topic:?} does not exist; create it first: kafka-topics.sh --create --topic {topic} --partitions 6"))?;
    let mut sender = Sender::new(broker.producer()?, &topic, found.partitions, args.rate, args.rows)?;
    let result = send_all(&args, &mut sender);
    let interrupted = matches!(&result, Err(SendError::Interrupted));
    sender.producer.flush(FLUSH_TIMEOUT)?;
    sender.finish()?;
    match result {
        Err(error) if !interrupted => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("reading: {0}")]
    Input(#[from] std::io::Error),
    #[error(transparent)]
    Broker(#[from] crate::broker::BrokerError),
    #[error("{0}")]
    Key(String),
    #[error("interrupted")]
    Interrupted,
}

fn send_all<P: PlainProducer>(args: &Args, sender: &mut Sender<P>) -> Result<(), SendError> {
    let Some(file) = &args.file else { return send_synthetic(args, sender) };
    if file == Path::new("-") {
        return send_lines(BufReader::new(std::io::stdin().lock()), args, sender);
    }
    let format = args.format.map_or_else(|| Format::of(file), Ok)?;
    let Some(table) = format.as_table() else {
        let input = std::fs::File::open(file).map_err(|error| SourceError::File { path: file.clone(), error })?;
        return send_lines(BufReader::with_capacity(1 << 20, input), args, sender);
    };
    // Columns that are no scalars are not sent.
    let columns = source::table_columns(file, table)?.known;
    let key = match &args.key_column {
        None => None,
        Some(name) => Some(
            columns
                .iter()
                .position(|(column, _)| column == name)
                .ok_or_else(|| SendError::Key(format!("no column {name:?} for the key")))?,
        ),
    };
    source::table_rows(file, table, &columns, |cells| {
        let row: serde_json::Map<_, _> = columns
            .iter()
            .zip(cells)
            .map(|((name, _), cell)| (name.clone(), cell.to_json()))
            .collect();
        let key = key.and_then(|at| cells.get(at)).and_then(text);
        sender.send(key, serde_json::Value::Object(row).to_string().into_bytes())
    })
}

fn text(cell: &Cell<'_>) -> Option<Vec<u8>> {
    match cell {
        Cell::Missing => None,
        Cell::Number(number) => Some(leeway_topology::binning::decimal(*number).into_bytes()),
        Cell::Bool(value) => Some(value.to_string().into_bytes()),
        Cell::Text(text) => Some(text.as_bytes().to_vec()),
    }
}

fn send_lines<P: PlainProducer>(input: impl std::io::BufRead, args: &Args, sender: &mut Sender<P>) -> Result<(), SendError> {
    source::lines(input, SendError::from, |line| {
        let key = args.key_column.as_ref().and_then(|column| {
            let value: serde_json::Value = serde_json::from_slice(line).ok()?;
            match value.get(column)? {
                serde_json::Value::Null => None,
                serde_json::Value::String(text) => Some(text.as_bytes().to_vec()),
                other => Some(other.to_string().into_bytes()),
            }
        });
        sender.send(key, line.to_vec())
    })
}

fn send_synthetic<P: PlainProducer>(args: &Args, sender: &mut Sender<P>) -> Result<(), SendError> {
    let settings = Settings {
        seed: args.seed,
        shift: args.shift,
        drift_after: args.drift_after,
    };
    let Some(mut rows) = Rows::new(settings) else { return Ok(()) };
    let mut json = String::new();
    let mut sent = 0;
    while args.rows.is_none_or(|rows| sent < rows) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        rows.next_json(now, &mut json);
        sender.send(None, json.as_bytes().to_vec())?;
        sent += 1;
    }
    Ok(())
}

/// Sends rows at a bounded rate and shows how far it is.
struct Sender<P> {
    producer: P,
    topic: Arc<str>,
    partitions: u32,
    rate: Option<u64>,
    rows: u64,
    begun: Instant,
    bar: Option<ProgressBar>,
    interrupted: Arc<AtomicBool>,
}

impl<P: PlainProducer> Sender<P> {
    fn new(producer: P, topic: &str, partitions: u32, rate: Option<u64>, rows: Option<u64>) -> anyhow::Result<Self> {
        let bar = std::io::stderr().is_terminal().then(|| match rows {
            Some(rows) => ProgressBar::new(rows).with_style(
                ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} rows, {per_sec}, {eta} left")
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            ),
            None => ProgressBar::new_spinner().with_style(
                ProgressStyle::with_template("{spinner} {human_pos} rows, {per_sec}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            ),
        });
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        // A thread that waits for Ctrl-C; it ends with the process.
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
                && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
            {
                flag.store(true, Ordering::Release);
            }
        })?;
        Ok(Self {
            producer,
            topic: topic.into(),
            partitions,
            rate,
            rows: 0,
            begun: Instant::now(),
            bar,
            interrupted,
        })
    }

    fn send(&mut self, key: Option<Vec<u8>>, value: Vec<u8>) -> Result<(), SendError> {
        if self.rows.is_multiple_of(256) {
            if self.interrupted.load(Ordering::Acquire) {
                return Err(SendError::Interrupted);
            }
            if let Some(bar) = &self.bar {
                bar.set_position(self.rows);
            }
        }
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.rows as f64 / rate as f64);
            if let Some(early) = due.checked_sub(self.begun.elapsed())
                && early > Duration::from_millis(1)
            {
                std::thread::sleep(early);
            }
        }
        let partition = match &key {
            Some(key) => partitioner::partition(key, self.partitions),
            None => Partition(i32::try_from(self.rows / ROWS_PER_PARTITION % u64::from(self.partitions.max(1))).unwrap_or(0)),
        };
        self.producer.send(OutRecord {
            topic: self.topic.clone(),
            partition,
            key,
            value: Some(value),
            headers: Vec::new(),
            timestamp: None,
        })?;
        self.rows += 1;
        Ok(())
    }

    fn finish(&self) -> std::io::Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        writeln!(
            std::io::stdout(),
            "{} rows to {} in {seconds:.1} s, {:.0} rows/s",
            self.rows,
            self.topic,
            self.rows as f64 / seconds.max(1e-9)
        )
    }
}
