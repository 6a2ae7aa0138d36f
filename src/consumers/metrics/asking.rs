//! Asks Kafka now and then, on a thread of its own: where the application's group stands, and how far the topics of events go.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use leeway_topology::ids::Offset;
use tracing::{debug, info, warn};

use super::families::Families;
use super::{Shared, lock};
use crate::broker::{Broker, BrokerError, TopicPartition};
use crate::consumers::group::{self, ASK_EVERY, TIMEOUT};

/// How long the last answer is shown when there is no newer one: a broker that fails over takes less.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Asks until it is dropped.
pub(super) struct Asking {
    /// Its thread ends when this is gone.
    _stop: Sender<()>,
}

impl Asking {
    /// `topics`: what the group reads.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start<B: Broker>(broker: B, application_id: &str, topics: BTreeSet<Arc<str>>, shared: Weak<Shared>) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let group = application_id.to_owned();
        std::thread::Builder::new()
            .name("asking".to_owned())
            .spawn(move || run(&broker, &group, &topics, &shared, &stopped))?;
        Ok(Self { _stop: stop })
    }
}

fn run<B: Broker>(broker: &B, group: &str, topics: &BTreeSet<Arc<str>>, shared: &Weak<Shared>, stopped: &Receiver<()>) {
    let mut failing_since: Option<Instant> = None;
    loop {
        let Some(shared) = shared.upgrade() else { return };
        match ask_group(broker, group, topics, &shared.families) {
            Ok(()) => {
                if failing_since.take().is_some() {
                    info!("Kafka says where the group stands");
                }
            }
            Err(error) => {
                if failing_since.is_none() {
                    warn!(%error, "Kafka does not say where the group stands; asking again");
                }
                if failing_since.get_or_insert_with(Instant::now).elapsed() >= KEPT_FOR {
                    shared.families.forget_group();
                }
            }
        }
        ask_ends(broker, &shared);
        lock(&shared.reading).retire();
        drop(shared);
        if !matches!(stopped.recv_timeout(ASK_EVERY), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

fn ask_group<B: Broker>(broker: &B, group: &str, topics: &BTreeSet<Arc<str>>, families: &Families) -> Result<(), BrokerError> {
    for topic in topics {
        match group::positions(broker, group, topic) {
            Ok(positions) => positions.iter().for_each(|position| families.set_position(topic, position)),
            // Panes have no topic before a worker makes it.
            Err(BrokerError::NoSuchTopic(_)) => {}
            Err(error) => return Err(error),
        }
    }
    families.set_members(group, broker.group_members(group, TIMEOUT)?.len());
    Ok(())
}

fn ask_ends<B: Broker>(broker: &B, shared: &Shared) {
    // Not under the lock: a scrape needs it too.
    let progresses: Vec<_> = {
        let followers = lock(&shared.followers);
        followers.iter().map(|follower| (follower.topic().clone(), follower.progress())).collect()
    };
    for (topic, progress) in progresses {
        for (partition, (next, is_at_end)) in progress.positions {
            // An end is not always the log's: open transactions stand beyond it, and markers are no records.
            if is_at_end && progress.problem.is_none() {
                shared.families.set_reader_lag(&topic, partition.0, 0);
                continue;
            }
            match broker.end_offset(&TopicPartition::new(topic.clone(), partition), TIMEOUT) {
                Ok(Offset(end)) => shared.families.set_reader_lag(&topic, partition.0, end - next.0),
                Err(error) => debug!(%topic, %partition, %error, "asking how far it goes"),
            }
        }
    }
}
