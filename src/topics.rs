//! The topics that the application needs: found and checked, or created, before a thread starts.
//!
//! Inputs are the user's and must be there. Drift events and dead letters are created if missing and taken as they are otherwise. Internal
//! topics (changelog, references) are created if missing and refused with the reason when they do not fit: a changelog that is not compacted
//! grows for ever, one with too few partitions has no place for a task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::broker::{Broker, BrokerError, NewTopic, TopicDescription};

/// One request to the broker.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A changelog's segments: small, so that compaction keeps up with values that change in every commit.
const CHANGELOG_SEGMENT_BYTES: &str = "52428800";

/// How long panes are kept: a week, in which whoever merges them may be down, and which an audit can look back.
const REPARTITION_RETENTION_MS: &str = "604800000";

/// Kafka's own default of `delete.retention.ms`.
const DELETE_RETENTION_MS: i64 = 24 * 60 * 60 * 1000;

/// Kafka's own default of `max.message.bytes`.
const MESSAGE_BYTES: usize = 1_048_588;

/// Why the topics do not do.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// An input topic is not there.
    #[error(
        "topic {topic:?} of monitor {monitor:?} does not exist on this Kafka: create it, or name another one with `--topic` (key `monitor.topic`)"
    )]
    NoInput {
        /// The topic.
        topic: String,
        /// Who reads it.
        monitor: String,
    },
    /// An internal topic does not fit.
    #[error("internal topic {topic:?} {fault}")]
    Unfit {
        /// The topic.
        topic: String,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// The broker.
    #[error("{doing}: {error}")]
    Broker {
        /// What was being done.
        doing: String,
        /// What the broker said.
        error: BrokerError,
    },
}

impl TopicError {
    fn broker(doing: impl Into<String>) -> impl FnOnce(BrokerError) -> Self {
        let doing = doing.into();
        |error| Self::Broker { doing, error }
    }

    /// Whether waiting may help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Broker {
                error: BrokerError::Unavailable(_),
                ..
            }
        )
    }
}

/// What the runtime has to know of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Partitions.
    pub partitions: u32,
    /// `max.message.bytes`.
    pub message_bytes_max: usize,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

impl TopicFacts {
    fn of(description: &TopicDescription) -> Self {
        let number = |name: &str| description.config.get(name).and_then(|text| text.parse::<i64>().ok());
        Self {
            partitions: description.partitions,
            message_bytes_max: number("max.message.bytes").and_then(|n| usize::try_from(n).ok()).unwrap_or(MESSAGE_BYTES),
            delete_retention_ms: number("delete.retention.ms").unwrap_or(DELETE_RETENTION_MS),
        }
    }
}

/// Finds an input topic.
///
/// # Errors
/// When it is not there, or the broker does not answer.
pub fn input<B: Broker>(broker: &B, topic: &str, monitor: &str) -> Result<TopicFacts, TopicError> {
    let found = broker
        .describe_topic(topic, REQUEST_TIMEOUT)
        .map_err(TopicError::broker(format!("looking for topic {topic:?}")))?;
    let description = found.ok_or_else(|| TopicError::NoInput {
        topic: topic.to_owned(),
        monitor: monitor.to_owned(),
    })?;
    Ok(TopicFacts::of(&description))
}

/// Finds or creates an output topic; one that is there is the user's and taken as it is.
///
/// # Errors
/// When the broker refuses or does not answer.
pub fn output<B: Broker>(broker: &B, topic: &str, partitions: u32, config: &[(&str, String)]) -> Result<TopicFacts, TopicError> {
    ensure(broker, topic, partitions, config).map(|(facts, _)| facts)
}

/// Finds or creates the topic that panes go through: not compacted, partitions as the input when it is made. It keeps that number when the input
/// grows: its keys would go to other partitions, and the windows there would begin anew.
///
/// # Errors
/// When it does not fit, or the broker refuses or does not answer.
pub fn repartition<B: Broker>(broker: &B, topic: &str, partitions: u32, message_bytes_max: usize) -> Result<TopicFacts, TopicError> {
    let config = [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", REPARTITION_RETENTION_MS.to_owned()),
        ("max.message.bytes", message_bytes_max.to_string()),
    ];
    let (facts, description) = ensure(broker, topic, partitions, &config)?;
    match description.config.get("cleanup.policy").map(String::as_str) {
        Some("delete") | None => Ok(facts),
        Some(policy) => Err(TopicError::Unfit {
            topic: topic.to_owned(),
            fault: format!(
                "has cleanup.policy={policy}, it must be `delete`, or panes of one window are lost to compaction: \
                 `kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=delete`"
            ),
        }),
    }
}

/// Finds or creates a task store's changelog: compacted, partitions as the input. One with fewer partitions is extended, since the input has
/// grown and the new tasks have no state yet.
///
/// # Errors
/// When it does not fit, or the broker refuses or does not answer.
pub fn changelog<B: Broker>(broker: &B, topic: &str, partitions: u32, message_bytes_max: usize) -> Result<TopicFacts, TopicError> {
    let config = [
        ("cleanup.policy", "compact".to_owned()),
        ("segment.bytes", CHANGELOG_SEGMENT_BYTES.to_owned()),
        ("max.message.bytes", message_bytes_max.to_string()),
        ("message.timestamp.type", "CreateTime".to_owned()),
    ];
    let (facts, description) = ensure(broker, topic, partitions, &config)?;
    check_compacted(topic, &description)?;
    if facts.partitions < partitions {
        extend_changelog(broker, topic, partitions)?;
    }
    if facts.partitions > partitions {
        let fault = format!(
            "has {} partitions, the input has {partitions}: the input was made anew; use a new application id",
            facts.partitions
        );
        return Err(TopicError::Unfit {
            topic: topic.to_owned(),
            fault,
        });
    }
    Ok(facts)
}

/// Extends a changelog to so many partitions, if it has fewer.
///
/// # Errors
/// When the broker refuses or does not answer.
pub fn extend_changelog<B: Broker>(broker: &B, topic: &str, partitions: u32) -> Result<(), TopicError> {
    let described = broker
        .describe_topic(topic, REQUEST_TIMEOUT)
        .map_err(TopicError::broker(format!("looking for topic {topic:?}")))?;
    let has = described.map_or(0, |described| described.partitions);
    if has >= partitions {
        return Ok(());
    }
    warn!(topic, from = has, to = partitions, "the input has grown; extending the changelog");
    broker
        .add_partitions(topic, partitions, REQUEST_TIMEOUT)
        .map_err(TopicError::broker(format!("extending topic {topic:?}")))
}

/// Finds or creates the topic of the references: compacted, one partition.
///
/// # Errors
/// When it does not fit, or the broker refuses or does not answer.
pub fn references<B: Broker>(broker: &B, topic: &str) -> Result<(), TopicError> {
    let (facts, description) = ensure(broker, topic, 1, &[("cleanup.policy", "compact".to_owned())])?;
    check_compacted(topic, &description)?;
    if facts.partitions != 1 {
        let fault = format!(
            "has {} partitions, it must have 1, since later references replace earlier ones in order: delete it and publish again",
            facts.partitions
        );
        return Err(TopicError::Unfit {
            topic: topic.to_owned(),
            fault,
        });
    }
    Ok(())
}

/// Finds or creates the topic of alerts' state: compacted, one partition.
///
/// # Errors
/// When it does not fit, or the broker refuses or does not answer.
pub fn alert_state<B: Broker>(broker: &B, topic: &str, message_bytes_max: usize) -> Result<(), TopicError> {
    let config = [
        ("cleanup.policy", "compact".to_owned()),
        ("segment.bytes", CHANGELOG_SEGMENT_BYTES.to_owned()),
        ("max.message.bytes", message_bytes_max.to_string()),
    ];
    let (facts, description) = ensure(broker, topic, 1, &config)?;
    check_compacted(topic, &description)?;
    if facts.partitions != 1 {
        let fault = format!(
            "has {} partitions, it must have 1, since whoever has that one alerts: stop every `leeway alert`, and delete it; open incidents are told again then",
            facts.partitions
        );
        return Err(TopicError::Unfit {
            topic: topic.to_owned(),
            fault,
        });
    }
    Ok(())
}

fn check_compacted(topic: &str, description: &TopicDescription) -> Result<(), TopicError> {
    match description.config.get("cleanup.policy").map(String::as_str) {
        Some("compact") | None => Ok(()),
        Some(policy) => Err(TopicError::Unfit {
            topic: topic.to_owned(),
            fault: format!(
                "has cleanup.policy={policy}, it must be `compact`, or state is deleted with time: \
                 `kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config cleanup.policy=compact`"
            ),
        }),
    }
}

fn ensure<B: Broker>(broker: &B, topic: &str, partitions: u32, config: &[(&str, String)]) -> Result<(TopicFacts, TopicDescription), TopicError> {
    let describe = || {
        broker
            .describe_topic(topic, REQUEST_TIMEOUT)
            .map_err(TopicError::broker(format!("looking for topic {topic:?}")))
    };
    if let Some(description) = describe()? {
        return Ok((TopicFacts::of(&description), description));
    }
    let config: BTreeMap<String, String> = config.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let new = NewTopic {
        name: Arc::from(topic),
        partitions,
        replication_factor: None,
        config: config.clone(),
    };
    broker
        .create_topic(&new, REQUEST_TIMEOUT)
        .map_err(TopicError::broker(format!("creating topic {topic:?}")))?;
    info!(topic, partitions, "created topic");
    // What was asked for stands, even where the broker's metadata does not show the topic yet; another instance may have been first, though.
    let description = describe()?.unwrap_or(TopicDescription {
        partitions,
        replication_factor: 0,
        config,
    });
    Ok((TopicFacts::of(&description), description))
}
