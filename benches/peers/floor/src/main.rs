//! The least that reading a topic can cost, to measure `leeway run` against: fetch and drop, and fetch, validate and drop. Also the readers of drift
//! events that the benchmark needs, which Python is too slow for.
//!
//! A floor prints `progress N` at its first record, at the half and at the last, and waits until its standard input is closed, so that whoever
//! started it can still look at its memory. It joins no group and commits nothing.

use std::io::{Read as _, Write as _};

use clap::{Parser, Subcommand};

mod consumer;
mod drain;
mod events;

#[derive(Parser)]
#[command(about = "The least that reading a topic can cost, and readers of drift events for the benchmark")]
#[command(after_help = "Examples:
  leeway-floor batch --bootstrap-servers localhost:9092 --topic drift-data --records 1000000 < /dev/null
  leeway-floor latency --bootstrap-servers localhost:9092 --topic drift-events --seconds 10")]
struct Args {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// BaseConsumer::poll, record by record: fetch and drop
    Poll(drain::Args),
    /// librdkafka's batch call: fetch and drop
    Batch(drain::Args),
    /// librdkafka's batch call, and each value is read as JSON by `serde_json`, and dropped
    Validate(drain::Args),
    /// Counts the events of a topic that are committed
    Count(events::Count),
    /// From a window's last record to its drift event being readable
    Latency(events::Latency),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().mode {
        Mode::Poll(args) => drain::run(&args, drain::Work::Poll)?,
        Mode::Batch(args) => drain::run(&args, drain::Work::Batch)?,
        Mode::Validate(args) => drain::run(&args, drain::Work::Validate)?,
        Mode::Count(args) => return say(&events::count(&args)?.to_string()),
        Mode::Latency(args) => return say(&events::latency(&args)?),
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A line on standard output, at once.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
