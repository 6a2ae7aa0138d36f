//! A consumer with the settings of `leeway run`'s own (`src/broker/kafka/mod.rs`), on partitions that are given to it, from an offset each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// How long the broker may take to say which partitions there are.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks.
const SOON: Duration = Duration::from_millis(10);

/// Which topic, where.
#[derive(clap::Args)]
pub(crate) struct Topic {
    #[arg(long, default_value = "localhost:9092")]
    bootstrap_servers: String,
    #[arg(long)]
    topic: String,
}

/// Where to begin.
#[derive(Clone, Copy)]
pub(crate) enum From {
    Start,
    End,
}

impl Topic {
    pub(crate) fn name(&self) -> &str {
        &self.topic
    }

    /// The consumer alone.
    pub(crate) fn consumer(&self, more: &[(&str, &str)]) -> anyhow::Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            // librdkafka asks for one where partitions are assigned; it is never joined.
            .set("group.id", "leeway-floor")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.wait.max.ms", "100");
        for (name, value) in more {
            config.set(*name, *value);
        }
        Ok(config.create()?)
    }

    /// The partitions' numbers.
    pub(crate) fn partitions(&self, consumer: &BaseConsumer) -> anyhow::Result<Vec<i32>> {
        let metadata = consumer
            .fetch_metadata(Some(&self.topic), LOOKUP_TIMEOUT)
            .context("asking for the topic")?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
            .map(|one| one.id())
            .collect();
        ensure!(!partitions.is_empty(), "topic {:?} does not exist", self.topic);
        Ok(partitions)
    }

    /// Waits until no transaction is open: one that is committed has its markers in each partition a little later.
    pub(crate) fn wait_until_settled(&self, consumer: &BaseConsumer, partitions: &[i32]) -> anyhow::Result<()> {
        let uncommitted = self.consumer(&[("isolation.level", "read_uncommitted")])?;
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        for &partition in partitions {
            let end = |of: &BaseConsumer| of.fetch_watermarks(&self.topic, partition, LOOKUP_TIMEOUT).map(|(_, end)| end);
            while end(consumer)? < end(&uncommitted)? {
                ensure!(Instant::now() < deadline, "partition {partition} has a transaction that stays open");
                std::thread::sleep(SOON);
            }
        }
        Ok(())
    }

    /// Gives these partitions to the consumer. Offsets are looked up first, so that nothing of what comes after the call is missed.
    pub(crate) fn assign(&self, consumer: &BaseConsumer, partitions: &[i32], from: From) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for &partition in partitions {
            let (low, high) = consumer
                .fetch_watermarks(&self.topic, partition, LOOKUP_TIMEOUT)
                .with_context(|| format!("asking where partition {partition} begins and ends"))?;
            let offset = match from {
                From::Start => low,
                From::End => high,
            };
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        Ok(consumer.assign(&list)?)
    }
}
