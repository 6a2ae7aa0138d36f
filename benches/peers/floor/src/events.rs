//! Readers of drift events: how many are committed, and how long after its window's last record each could be read.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;

use crate::consumer::{From, Topic};
use crate::say;

/// The broker answers a fetch as soon as there is anything, and an end at once.
const SOON: [(&str, &str); 2] = [("enable.partition.eof", "true"), ("fetch.wait.max.ms", "10")];

/// Of a poll that finds nothing.
const WAIT: Duration = Duration::from_millis(100);

/// The feature of a check's summary, its last event.
const SUMMARY: &[u8] = b"*";

#[derive(clap::Args)]
pub(crate) struct Count {
    #[command(flatten)]
    topic: Topic,
}

#[derive(clap::Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    topic: Topic,
    /// Seconds for which events count, after the warm-up
    #[arg(long)]
    seconds: u64,
    /// Seconds before, in which they do not
    #[arg(long, default_value_t = 0)]
    warm_up_seconds: u64,
}

/// Reads every partition to its end, of which nobody writes any more. What is not committed is not there.
pub(crate) fn count(args: &Count) -> anyhow::Result<u64> {
    let consumer = args.topic.consumer(&SOON)?;
    let partitions = args.topic.partitions(&consumer)?;
    args.topic.wait_until_settled(&consumer, &partitions)?;
    args.topic.assign(&consumer, &partitions, From::Start)?;
    let mut open: BTreeSet<i32> = partitions.into_iter().collect();
    let mut events = 0;
    while !open.is_empty() {
        match consumer.poll(WAIT) {
            None => {}
            Some(Ok(_)) => events += 1,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => return Err(error).context("reading events"),
        }
    }
    Ok(events)
}

/// What of an event is needed: the append of the window's last record, where the input's timestamps are those of the append.
#[derive(serde::Deserialize)]
struct Event {
    window_end_ms: i64,
}

/// Says `ready` when nothing new can be missed any more; at the end how the latencies are spread, as JSON, in milliseconds.
///
/// One event a check is looked at, the summary: it is written last, in the transaction of the others.
pub(crate) fn latency(args: &Latency) -> anyhow::Result<String> {
    let consumer = args.topic.consumer(&SOON)?;
    let partitions = args.topic.partitions(&consumer)?;
    args.topic.assign(&consumer, &partitions, From::End)?;
    say("ready")?;
    let mut latencies = Vec::new();
    let begun = Instant::now();
    let warm = Duration::from_secs(args.warm_up_seconds);
    let end = warm + Duration::from_secs(args.seconds);
    while begun.elapsed() < end {
        let message = match consumer.poll(WAIT) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => continue,
            Some(message) => message.context("reading events")?,
        };
        if message.key() != Some(SUMMARY) || begun.elapsed() < warm {
            continue;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let event: Event = serde_json::from_slice(message.payload().unwrap_or_default()).context("an event")?;
        latencies.push(now.as_secs_f64() * 1e3 - event.window_end_ms as f64);
    }
    ensure!(!latencies.is_empty(), "no event of a check within {} s", args.seconds);
    latencies.sort_by(f64::total_cmp);
    let spread = serde_json::json!({
        "checks": latencies.len(),
        "p50": quantile(&latencies, 0.5),
        "p99": quantile(&latencies, 0.99),
        "p99.9": quantile(&latencies, 0.999),
        "max": quantile(&latencies, 1.0),
    });
    Ok(spread.to_string())
}

/// The smallest of the sorted values that is not exceeded by more than the rest of the share.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(
            [0.5, 0.99, 0.999, 1.0].map(|share| quantile(&values, share)),
            [500.0, 990.0, 999.0, 1000.0]
        );
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
    }
}
