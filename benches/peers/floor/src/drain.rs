//! Reads so many records of a topic as fast as it goes, on one or several threads, each with a consumer of its own and a part of the partitions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::ValueEnum;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message as _;

use crate::consumer::{From, Topic};
use crate::say;
use batch::Queue;

mod batch;

/// Records taken by one batch call: as many as `leeway run` takes from a partition at a time.
const BATCH_RECORDS: usize = 1000;

/// Nothing comes for so long only if fewer records are there than were asked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Until something comes.
const WAIT: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    topic: Topic,
    /// Records to read; no more than the topic has
    #[arg(long)]
    records: u64,
    /// Threads, each with a consumer of its own and its share of the partitions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Which queue the batch call empties
    #[arg(long, value_enum, default_value_t = Queues::Partitions)]
    queue: Queues,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Queues {
    /// The consumer's own, into which all partitions are forwarded
    Consumer,
    /// One for each partition, in turn, as `leeway run` does: the faster of the two here
    Partitions,
}

#[derive(Clone, Copy)]
pub(crate) enum Work {
    Poll,
    Batch,
    Validate,
}

/// Reads the records, and says how far it is.
pub(crate) fn run(args: &Args, work: Work) -> anyhow::Result<()> {
    let progress = Progress {
        wanted: args.records,
        seen: AtomicU64::new(0),
    };
    let progress = &progress;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|thread| scope.spawn(move || drain(args, work, thread, progress)))
            .collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })
}

/// What all threads have read.
struct Progress {
    wanted: u64,
    seen: AtomicU64,
}

impl Progress {
    /// So many more; says so at the first record, the half and the last.
    fn add(&self, records: u64) -> anyhow::Result<()> {
        let before = self.seen.fetch_add(records, Ordering::Relaxed);
        let now = before + records;
        for mark in [1, self.wanted / 2, self.wanted] {
            if before < mark && mark <= now {
                say(&format!("progress {}", now.min(self.wanted)))?;
            }
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.seen.load(Ordering::Relaxed) >= self.wanted
    }
}

fn drain(args: &Args, work: Work, thread: u32, progress: &Progress) -> anyhow::Result<()> {
    let consumer = args.topic.consumer(&[])?;
    let mine: Vec<i32> = args
        .topic
        .partitions(&consumer)?
        .into_iter()
        .filter(|partition| partition.cast_unsigned() % args.threads == thread)
        .collect();
    if mine.is_empty() {
        return Ok(());
    }
    let queues = match (work, args.queue) {
        (Work::Poll, _) => Vec::new(),
        (_, Queues::Consumer) => vec![Queue::of_consumer(&consumer)],
        (_, Queues::Partitions) => mine
            .iter()
            .map(|&partition| Queue::of_partition(&consumer, args.topic.name(), partition))
            .collect::<anyhow::Result<_>>()?,
    };
    args.topic.assign(&consumer, &mine, From::Start)?;
    let mut last = Instant::now();
    while !progress.done() {
        let taken = match work {
            Work::Poll => poll(&consumer)?,
            Work::Batch => turn(&consumer, &queues, &mut |_| Ok(()))?,
            Work::Validate => turn(&consumer, &queues, &mut validate)?,
        };
        if taken > 0 {
            last = Instant::now();
            progress.add(taken)?;
        }
        ensure!(
            last.elapsed() < PATIENCE || progress.done(),
            "{} of {} records were there",
            progress.seen.load(Ordering::Relaxed),
            progress.wanted
        );
    }
    Ok(())
}

/// One record; looked at no further than to see that it is there.
fn poll(consumer: &BaseConsumer) -> anyhow::Result<u64> {
    match consumer.poll(WAIT) {
        None => Ok(0),
        Some(message) => Ok(u64::from(message.context("fetching")?.payload().is_some())),
    }
}

/// A batch of each queue. With one queue for each partition, waits at none while another may have something, and serves the consumer beside them.
fn turn(consumer: &BaseConsumer, queues: &[Queue<'_>], visit: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<u64> {
    if let [only] = queues {
        return only.take(WAIT, visit);
    }
    let mut taken = 0;
    for queue in queues {
        taken += queue.take(Duration::ZERO, visit)?;
    }
    if let Some(message) = consumer.poll(if taken == 0 { Duration::from_millis(1) } else { Duration::ZERO }) {
        bail!("offset {} came past its partition's queue", message.context("fetching")?.offset());
    }
    Ok(taken)
}

/// Strict JSON, all of it, and nothing kept.
fn validate(value: &[u8]) -> anyhow::Result<()> {
    let text = std::str::from_utf8(value).context("a value is not UTF-8")?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).context("a value is not JSON")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_taken_whole_and_nothing_else_is() {
        assert!(validate(br#"{"feature1": 1.5, "other": ["x", null]}"#).is_ok());
        for value in [&b"{\"a\": 1"[..], b"{\"a\": NaN}", b"{} {}", b"\xff", b""] {
            assert!(validate(value).is_err(), "{value:?}");
        }
    }
}
