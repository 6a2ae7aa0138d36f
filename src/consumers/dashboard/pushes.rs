//! Server-sent events: what is new, a few times a second at most, for one selection.
//!
//! The first message has the rows of all features (`reset`), later ones those of which there is something new, and the new points. So a page that
//! connects again has everything at once, and nothing has to be kept for it meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::flow::{self, Flow};
use super::stream_health::StreamHealth;
use super::view::{self, Glance, NewPoints, Rows, Selection};
use super::{Shared, lock, now_ms};
use crate::consumers::follow::Progress;

/// The shortest time between two messages: as fast as somebody can follow.
const MESSAGE_EVERY: Duration = Duration::from_millis(400);

/// How long what is new is gathered before it is told: the events of one check come within that.
const GATHER: Duration = Duration::from_millis(80);

/// A message comes at least so often: freshness and rates are told of time passing too.
const MESSAGE_AT_LEAST: Duration = Duration::from_secs(5);

/// Points of one message; more, and the page is told to read everything again.
const POINTS_MAX: usize = 4_000;

/// The glances of all monitors, with the history's number that they are of.
#[derive(Default)]
pub(super) struct Glances {
    number: u64,
    of: Arc<Vec<Glance>>,
}

/// One message.
#[derive(Debug, Serialize)]
pub(super) struct Update {
    /// Rows and points are all there is: forget what was shown.
    reset: bool,
    /// The number of the latest event.
    number: u64,
    now_ms: i64,
    monitors: Vec<Glance>,
    rows: Rows,
    /// None when there are too many: read again what is shown.
    points: Option<NewPoints>,
    /// Rises with each change of an incident.
    incidents: u64,
    stream: StreamView,
}

/// Where events come from and how the application is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StreamView {
    pub(super) sources: Vec<Source>,
    pub(super) health: StreamHealth,
    /// Of the monitor that is selected.
    pub(super) flows: Vec<Flow>,
    pub(super) history: super::history::Size,
}

/// A topic of events.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Source {
    topic: String,
    is_caught_up: bool,
    problem: Option<String>,
    records: u64,
    skipped: u64,
}

impl Shared {
    /// All monitors: those of the configuration first, in its order.
    pub(super) fn glances(&self) -> Arc<Vec<Glance>> {
        let history = lock(&self.history);
        let mut kept = lock(&self.glances);
        if kept.number != history.number() || kept.of.is_empty() {
            let configured: Vec<_> = self.monitors.iter().map(|monitor| monitor.name.clone()).collect();
            let others = history.monitors().filter(|name| !configured.contains(*name)).cloned().collect::<Vec<_>>();
            let all = configured.iter().chain(&others).map(|name| view::glance(&history, name));
            *kept = Glances {
                number: history.number(),
                of: Arc::new(all.collect()),
            };
        }
        kept.of.clone()
    }

    pub(super) fn stream(&self, monitor: &str) -> StreamView {
        let sources = lock(&self.followers)
            .iter()
            .map(|follower| {
                let Progress {
                    is_caught_up,
                    problem,
                    records,
                    skipped,
                    ..
                } = follower.progress();
                Source {
                    topic: follower.topic().to_string(),
                    is_caught_up,
                    problem,
                    records,
                    skipped,
                }
            })
            .collect();
        let history = lock(&self.history);
        StreamView {
            sources,
            health: lock(&self.health).clone(),
            flows: flow::flows(&history, monitor, now_ms()),
            history: history.size(),
        }
    }

    fn update(&self, monitor: &str, selection: &Selection, seen: Option<u64>) -> Update {
        let monitors = self.glances();
        let stream = self.stream(monitor);
        let history = lock(&self.history);
        let since = seen.unwrap_or(0);
        Update {
            reset: seen.is_none(),
            number: history.number(),
            now_ms: now_ms(),
            monitors: monitors.to_vec(),
            rows: view::rows(&history, monitor, selection, since),
            points: match seen {
                None => Some(NewPoints::default()),
                Some(seen) => view::new_points(&history, monitor, selection, seen, POINTS_MAX),
            },
            incidents: history.incidents.revision,
            stream,
        }
    }
}

/// What one page listens to.
struct Listening {
    shared: Arc<Shared>,
    monitor: String,
    selection: Selection,
    changed: watch::Receiver<()>,
    stopped: watch::Receiver<bool>,
    seen: Option<u64>,
    told: Option<Instant>,
}

/// The stream of one page. It ends when the server does.
pub(super) fn stream(
    shared: Arc<Shared>,
    monitor: String,
    selection: Selection,
    stopped: watch::Receiver<bool>,
) -> Sse<impl Stream<Item = Result<Message, Infallible>>> {
    let listening = Listening {
        changed: shared.changed.subscribe(),
        shared,
        monitor,
        selection,
        stopped,
        seen: None,
        told: None,
    };
    let messages = stream::unfold(listening, |mut listening| async move { Some((Ok(listening.next().await?), listening)) });
    Sse::new(messages).keep_alive(KeepAlive::default())
}

impl Listening {
    /// The next message, when there is something new and it is not too soon; none when the server ends.
    async fn next(&mut self) -> Option<Message> {
        if let Some(told) = self.told {
            let (changed, mut stopped) = (&mut self.changed, self.stopped.clone());
            let due = async {
                tokio::time::sleep_until(told + MESSAGE_EVERY).await;
                // The sender lives as long as what is shared here.
                if tokio::time::timeout_at(told + MESSAGE_AT_LEAST, changed.changed()).await.is_ok() {
                    tokio::time::sleep(GATHER).await;
                }
            };
            tokio::select! {
                () = due => {}
                () = async { stopped.wait_for(|stopped| *stopped).await.map_or((), |_| ()) } => return None,
            }
        }
        let (shared, monitor, selection, seen) = (self.shared.clone(), self.monitor.clone(), self.selection.clone(), self.seen);
        let update = tokio::task::spawn_blocking(move || {
            let update = shared.update(&monitor, &selection, seen);
            (update.number, serde_json::to_string(&update))
        });
        let (number, json) = update.await.ok()?;
        self.seen = Some(number);
        self.told = Some(Instant::now());
        Some(Message::default().event("update").data(json.ok()?))
    }
}
