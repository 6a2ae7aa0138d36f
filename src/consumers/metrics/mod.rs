//! `leeway metrics`: what the checks say, for a Prometheus that does not scrape the workers.
//!
//! ```text
//! events topics --follower--> reading: whose event is it? --> families of checks, as the workers serve them
//! group, ends of the topics --asking--> lag and position of the group, how far the reader is
//! ```
//!
//! - Everything is counted anew from the retained events at each start, read committed: each event once, whichever instance had the partition. Nothing
//!   is written to Kafka, and no consumer group is used; any number of exporters say the same.
//! - Nothing of the events is served before all that was there at the start is read: a counter that is still being made up would be taken for one that
//!   was reset and grows fast. What the process says of itself is served at once, so that one can see how far it is.
//! - Memory is bounded by `metrics.max_series`, whatever the events name.
//!
//! Not here: what only the process that did it knows: durations, commits, restores, dead letters by reason.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use leeway_topology::event::Scope;
use leeway_topology::graph::repartition_topic;
use leeway_topology::processor::Monitor;
use tracing::info;

use crate::broker::Broker;
use crate::config::HttpConfig;
use crate::consumers::follow::{Follower, ReadEvent};
use crate::http::{self, Exposition, Health, HttpError};
use crate::reference_topic;

mod asking;
mod families;
mod reading;
#[cfg(test)]
mod tests;

use asking::Asking;
use families::Families;
use reading::Reading;

/// How long the end waits for questions to Kafka.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it is looked whether everything was read: a start is not much longer for it.
const SETTLE_EVERY: Duration = Duration::from_millis(50);

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// Its server.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A thread.
    #[error("metrics: no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
    /// A name or label is not legal: a fault of Leeway, seen by every test.
    #[error("metrics: {0}")]
    Families(#[from] prometheus::Error),
}

/// What an exporter is of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose events.
    pub application_id: String,
    /// Events of other monitors are counted, and left out.
    pub monitors: Vec<Arc<Monitor>>,
    /// Series at most.
    pub max_series: usize,
    /// Where it listens.
    pub http: HttpConfig,
}

/// A running exporter. Ends with [`Exporter::shutdown`].
pub struct Exporter {
    server: http::Server,
    shared: Arc<Shared>,
    _asking: Asking,
}

/// What the threads share.
struct Shared {
    families: Arc<Families>,
    reading: Arc<Mutex<Reading>>,
    followers: Mutex<Vec<Follower>>,
    health: Arc<Health>,
}

impl Exporter {
    /// Follows the events and serves what they say, on the runtime that polls this. The broker may be away.
    ///
    /// # Errors
    /// When the address cannot be bound, or no thread be started.
    pub async fn start<B: Broker>(broker: B, settings: Settings) -> Result<Self, ExporterError> {
        let Settings {
            application_id,
            monitors,
            max_series,
            http,
        } = settings;
        let families = Arc::new(Families::new(max_series)?);
        let references = {
            let (broker, application_id) = (broker.clone(), application_id.clone());
            move || reference_topic::load(&broker, &application_id)
        };
        let read_by = read_by(&application_id, &monitors);
        for (monitor, scope, topic) in &read_by {
            families.checks.add_monitor(topic, *scope, &monitor.name);
            if !monitor.quality.is_off() {
                families.checks.add_quality(*scope, &monitor.name);
            }
        }
        let input_topics: BTreeSet<Arc<str>> = read_by.into_iter().map(|(_, _, topic)| topic).collect();
        let events_topics: BTreeSet<Arc<str>> = monitors.iter().map(|monitor| monitor.events_topic.clone()).collect();
        let reading = Reading::new(&application_id, &monitors, families.clone(), Box::new(references));
        let shared = Arc::new(Shared {
            families,
            reading: Arc::new(Mutex::new(reading)),
            followers: Mutex::default(),
            health: Arc::new(Health::new()),
        });
        // The address first: that it is taken is the likeliest failure.
        let server = http::serve(&http, shared.clone(), shared.health.clone()).await?;
        for topic in events_topics {
            shared.families.add_topic(&topic);
            let (reading, of) = (shared.reading.clone(), topic.clone());
            let take = move |events: &mut Vec<ReadEvent>| {
                let mut reading = lock(&reading);
                events.drain(..).for_each(|event| reading.take(&of, &event));
            };
            let follower = Follower::start(broker.clone(), topic, take)?;
            lock(&shared.followers).push(follower);
        }
        let asking = Asking::start(broker, &application_id, input_topics, Arc::downgrade(&shared))?;
        let settling = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("catching-up".to_owned())
            .spawn(move || settle(&settling))?;
        Ok(Self {
            server,
            shared,
            _asking: asking,
        })
    }

    /// Where it listens, with the port that was found.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Ends the server and the reading.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
        let shared = self.shared;
        // Dropping a follower waits for its thread, which may wait for a Kafka that is away.
        let ending = tokio::task::spawn_blocking(move || lock(&shared.followers).clear());
        if tokio::time::timeout(STOP_TIMEOUT, ending).await.is_err() {
            tracing::debug!("a question to Kafka is still open");
        }
    }
}

impl Shared {
    /// What is waited for; `None` when every topic was once read to its end.
    fn waits_for(&self) -> Option<String> {
        let followers = lock(&self.followers);
        let mut behind = followers.iter().filter(|follower| !follower.progress().is_caught_up);
        behind.next().map(|follower| {
            let progress = follower.progress();
            let state = progress.problem.unwrap_or_else(|| format!("{} records so far", progress.records));
            format!("reading topic {}: {state}", follower.topic())
        })
    }
}

impl Exposition for Shared {
    fn render(&self) -> Result<String, prometheus::Error> {
        for follower in &*lock(&self.followers) {
            self.families.set_progress(follower.topic(), &follower.progress());
        }
        self.families.render(self.health.is_ready())
    }
}

/// Waits until what was there at the start is read, and lets it be served.
fn settle(shared: &Weak<Shared>) {
    let begun = Instant::now();
    while let Some(shared) = shared.upgrade() {
        match shared.waits_for() {
            Some(reason) => shared.health.set_ready(false, &reason),
            None => {
                lock(&shared.reading).retire();
                shared.health.set_ready(true, "the drift events are read");
                let records: u64 = lock(&shared.followers).iter().map(|follower| follower.progress().records).sum();
                info!(
                    records,
                    elapsed_ms = begun.elapsed().as_millis() as u64,
                    "read the drift events that were there"
                );
                return;
            }
        }
        drop(shared);
        std::thread::sleep(SETTLE_EVERY);
    }
}

/// Each monitor in each of its scopes, with the topic that workers read for these checks.
fn read_by(application_id: &str, monitors: &[Arc<Monitor>]) -> Vec<(Arc<Monitor>, Scope, Arc<str>)> {
    let mut found = Vec::new();
    for monitor in monitors {
        if monitor.scopes.partition {
            found.push((monitor.clone(), Scope::Partition, monitor.topic.clone()));
        }
        if monitor.scopes.global {
            // Panes are made of the input's records, whether or not its partitions are checked too.
            let panes = repartition_topic(application_id, &monitor.topic);
            found.push((monitor.clone(), Scope::Global, panes.as_str().into()));
        }
    }
    found
}

/// A panic elsewhere under the lock leaves values that are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
