//! `leeway dashboard`: the drift events as a page.
//!
//! ```text
//! events topics --follower--> history (bounded) --view--> API, server-sent events --> the page
//! reference topic ----------> references: bins beside counts, noise floors   ^
//! group, input, dead letters --asking--> stream health ----------------------/
//! ```
//!
//! - Everything is rebuilt from Kafka at each start; nothing is kept on disk and nothing is ever written to Kafka.
//! - A Kafka that is away is told on the page, which goes on showing what is known.
//! - The page is embedded into the binary; it asks no other host for anything.
//!
//! Not here: metrics of the events for Prometheus, and alerts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leeway_topology::processor::Monitor;
use tokio::sync::watch;

use crate::broker::Broker;
use crate::consumers::follow::{Follower, ReadEvent};
use crate::http::{self, HttpError, Listen};
use crate::reference_topic::{self, LiveReferences};

mod api;
mod assets;
mod counts;
mod flow;
mod history;
mod incidents;
mod openapi;
mod pushes;
mod series;
mod settings;
mod stream_health;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod view;

pub use history::Limits;

use history::History;
use stream_health::{Asking, StreamHealth, Topics};

/// How long the end waits for questions to Kafka.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// Its server.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A thread.
    #[error("dashboard: no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What a dashboard is of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose events.
    pub application_id: String,
    /// The monitors of the configuration: names, topics, thresholds.
    pub monitors: Vec<Arc<Monitor>>,
    /// Where it listens.
    pub listen: Listen,
    /// How much it keeps.
    pub limits: Limits,
}

/// A running dashboard. Ends with [`Dashboard::shutdown`].
pub struct Dashboard {
    server: http::Server,
    shared: Arc<Shared>,
    _references: reference_topic::Follower,
    _asking: Asking,
}

/// What the requests share.
struct Shared {
    application_id: String,
    monitors: Vec<Arc<Monitor>>,
    history: Arc<Mutex<History>>,
    references: Arc<LiveReferences>,
    followers: Mutex<Vec<Follower>>,
    health: Arc<Mutex<StreamHealth>>,
    /// Told whenever there is something new.
    changed: watch::Sender<()>,
    glances: Mutex<pushes::Glances>,
}

impl Dashboard {
    /// Follows the events and serves the page, on the runtime that polls this. The broker may be away.
    ///
    /// # Errors
    /// When the address cannot be bound, or no thread be started.
    pub async fn start<B: Broker>(broker: B, settings: Settings) -> Result<Self, DashboardError> {
        let (changed, _) = watch::channel(());
        let shared = Arc::new(Shared {
            history: Arc::new(Mutex::new(History::new(&settings.application_id, settings.limits))),
            references: Arc::default(),
            followers: Mutex::default(),
            health: Arc::default(),
            changed,
            glances: Mutex::default(),
            application_id: settings.application_id,
            monitors: settings.monitors,
        });
        // The address first: that it is taken is the likeliest failure.
        let router = |stopped| api::router(shared.clone(), stopped);
        let server = http::serve_router(&settings.listen, router).await?;
        load_references(&broker, &shared);
        let references = reference_topic::Follower::start(broker.clone(), &shared.application_id, shared.references.clone())?;
        let notified = shared.clone();
        let topics = topics(&shared.monitors);
        let asking = Asking::start(broker.clone(), &shared.application_id, topics, shared.health.clone(), move || {
            notified.changed.send_replace(());
        })?;
        let events_topics: BTreeSet<Arc<str>> = shared.monitors.iter().map(|monitor| monitor.events_topic.clone()).collect();
        for topic in events_topics {
            let (history, changed) = (shared.history.clone(), shared.changed.clone());
            let push = move |events: &mut Vec<ReadEvent>| {
                let mut history = lock(&history);
                events.drain(..).for_each(|event| history.push(event));
                drop(history);
                changed.send_replace(());
            };
            let follower = Follower::start(broker.clone(), topic, push)?;
            lock(&shared.followers).push(follower);
        }
        Ok(Self {
            server,
            shared,
            _references: references,
            _asking: asking,
        })
    }

    /// Where it listens, with the port that was found.
    #[must_use]
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Ends the streams of open pages, the server and the reading.
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

/// Reads the references once, beside everything else: the follower takes its time, and the first chart wants them.
fn load_references<B: Broker>(broker: &B, shared: &Arc<Shared>) {
    let (broker, shared) = (broker.clone(), shared.clone());
    tokio::task::spawn_blocking(move || {
        // That Kafka is away, the follower tells.
        if let Ok(set) = reference_topic::load(&broker, &shared.application_id) {
            shared.references.set(set.published);
            shared.changed.send_replace(());
        }
    });
}

/// Each input topic once, with where its dead letters go.
fn topics(monitors: &[Arc<Monitor>]) -> Topics {
    let mut topics = Topics::new();
    for monitor in monitors {
        if topics.iter().all(|(topic, _)| *topic != monitor.topic) {
            topics.push((monitor.topic.clone(), monitor.dead_letter_topic.clone()));
        }
    }
    topics
}

/// A panic elsewhere under the lock leaves values that are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
