//! How the application itself is, as Kafka sees it: lag, dead letters, members. Asked now and then, on a thread of its own.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tracing::{info, warn};

use crate::broker::{Broker, BrokerError};
use crate::consumers::group::{self, ASK_EVERY, GroupPosition, TIMEOUT};

/// What Kafka said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct StreamHealth {
    /// What keeps Kafka from answering, if anything does.
    pub(super) problem: Option<String>,
    /// Members of the group, by client id.
    pub(super) members: Vec<String>,
    pub(super) topics: BTreeMap<String, TopicHealth>,
    /// Rises with each answer that differs.
    #[serde(skip)]
    pub(super) revision: u64,
}

/// An input topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct TopicHealth {
    pub(super) partitions: Vec<GroupPosition>,
    pub(super) dead_letter_topic: String,
    /// Offsets in use in the dead letter topic: its records and the markers of their transactions, so that it is at most so many records. None when
    /// the topic is not there.
    pub(super) dead_letters_max: Option<i64>,
}

/// Asks until it is dropped.
pub(super) struct Asking {
    /// Its thread ends when this is gone.
    _stop: Sender<()>,
}

/// An input topic and its dead letter topic.
pub(super) type Topics = Vec<(Arc<str>, Arc<str>)>;

impl Asking {
    /// `changed` is called when the answer has changed.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start<B: Broker>(
        broker: B,
        application_id: &str,
        topics: Topics,
        health: Arc<Mutex<StreamHealth>>,
        changed: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let group = application_id.to_owned();
        std::thread::Builder::new()
            .name("stream-health".to_owned())
            .spawn(move || run(&broker, &group, &topics, &health, &changed, &stopped))?;
        Ok(Self { _stop: stop })
    }
}

fn run<B: Broker>(broker: &B, group: &str, topics: &Topics, health: &Mutex<StreamHealth>, changed: &impl Fn(), stopped: &Receiver<()>) {
    loop {
        let answer = ask(broker, group, topics);
        let is_new = {
            let mut health = health.lock().unwrap_or_else(PoisonError::into_inner);
            let mut next = match answer {
                Ok(answer) => answer,
                // What was known stays, beside the reason why it may be old.
                Err(error) => StreamHealth {
                    problem: Some(error.to_string()),
                    ..health.clone()
                },
            };
            match (&health.problem, &next.problem) {
                (None, Some(problem)) => warn!(%problem, "Kafka does not say how the application is; asking again"),
                (Some(_), None) => info!("Kafka says how the application is"),
                _ => {}
            }
            next.revision = health.revision;
            let is_new = next != *health;
            next.revision += u64::from(is_new);
            *health = next;
            is_new
        };
        if is_new {
            changed();
        }
        if !matches!(stopped.recv_timeout(ASK_EVERY), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

fn ask<B: Broker>(broker: &B, group: &str, topics: &Topics) -> Result<StreamHealth, BrokerError> {
    let mut health = StreamHealth::default();
    for (topic, dead_letter_topic) in topics {
        let partitions = group::positions(broker, group, topic)?;
        let dead_letters_max = match broker.group_positions(group, dead_letter_topic, TIMEOUT) {
            Ok(found) => Some(found.iter().map(|(_, _, range)| range.high_watermark.0 - range.start.0).sum()),
            Err(BrokerError::NoSuchTopic(_)) => None,
            Err(error) => return Err(error),
        };
        health.topics.insert(
            topic.to_string(),
            TopicHealth {
                partitions,
                dead_letter_topic: dead_letter_topic.to_string(),
                dead_letters_max,
            },
        );
    }
    health.members = broker.group_members(group, TIMEOUT)?;
    health.members.sort();
    Ok(health)
}
