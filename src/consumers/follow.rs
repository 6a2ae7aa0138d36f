//! Follows a topic of events: all of it from the start, then what is written to it.
//!
//! ```text
//! connecting --topic and partitions found--> reading --every end seen--> caught up
//!      ^------------- broker away, topic not there: told once, and tried again -----/
//! ```
//!
//! Invariants: events of a partition arrive in order; nothing is kept here but the batch that is being read; whatever happens to the broker, the
//! thread goes on until the follower is dropped.
//!
//! Not here: what the events mean to whom. A batch goes to a closure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use leeway_topology::event::{Event, EventError};
use leeway_topology::ids::{Offset, Partition, Timestamp};
use tracing::{debug, info, warn};

use crate::broker::{Broker, BrokerError, TopicReader as _};

/// Events handed on together: enough that a lock around the batch costs nothing per event, few enough that whoever waits for it does not notice.
const BATCH_EVENTS: usize = 1000;

/// How long one look for records waits; also how soon a dropped follower ends.
const POLL: Duration = Duration::from_millis(200);

/// How often partitions are looked for.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// How soon the same is tried again after a failure.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// One request to the broker.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An event as it was read.
#[derive(Debug)]
pub struct ReadEvent {
    /// What it says.
    pub event: Event,
    /// When it was written, by Kafka's timestamp.
    pub written: Option<Timestamp>,
}

/// How far a follower is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every partition was once read to its end.
    pub is_caught_up: bool,
    /// What keeps it from reading, if anything does.
    pub problem: Option<String>,
    /// Records read.
    pub records: u64,
    /// Those of them that are no events, or of a kind that this build does not know.
    pub skipped: u64,
    /// Those of the skipped that are no events at all.
    pub malformed: u64,
    /// Of each partition the next offset to read, and whether it stands at the end of what may be read.
    pub positions: BTreeMap<Partition, (Offset, bool)>,
}

/// Follows one topic until it is dropped.
pub struct Follower {
    topic: Arc<str>,
    progress: Arc<Mutex<Progress>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Begins to follow a topic. `batch` is called on the follower's thread with what was read, oldest first, and empties it.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start<B: Broker>(broker: B, topic: Arc<str>, batch: impl FnMut(&mut Vec<ReadEvent>) + Send + 'static) -> std::io::Result<Self> {
        let (progress, stopped) = (Arc::new(Mutex::new(Progress::default())), Arc::new(AtomicBool::new(false)));
        let mut following = Following {
            topic: topic.clone(),
            progress: progress.clone(),
            stopped: stopped.clone(),
            batch,
            events: Vec::with_capacity(BATCH_EVENTS),
        };
        let thread = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || following.run(&broker))?;
        Ok(Self {
            topic,
            progress,
            stopped,
            thread: Some(thread),
        })
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Waited for, so that nothing of a stopped program still talks to the broker. A thread that panicked has told so.
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        if thread.join().is_err() {
            warn!(topic = %self.topic, "following ended in a panic: this is a fault of Leeway");
        }
    }
}

/// What the thread has.
struct Following<F> {
    topic: Arc<str>,
    progress: Arc<Mutex<Progress>>,
    stopped: Arc<AtomicBool>,
    batch: F,
    events: Vec<ReadEvent>,
}

impl<F: FnMut(&mut Vec<ReadEvent>)> Following<F> {
    fn run<B: Broker>(&mut self, broker: &B) {
        let mut reader = loop {
            match broker.follow_topic(&self.topic) {
                Ok(reader) => break reader,
                Err(error) => self.fail(&error),
            }
            if self.pause() {
                return;
            }
        };
        let mut refresh_at = Instant::now();
        while !self.stopped.load(Ordering::Acquire) {
            if Instant::now() >= refresh_at {
                if let Err(error) = reader.refresh(TIMEOUT) {
                    self.fail(&error);
                    if self.pause() {
                        return;
                    }
                    continue;
                }
                self.recovered();
                refresh_at = Instant::now() + REFRESH_EVERY;
            }
            let read = self.read(&mut reader);
            if !self.events.is_empty() {
                (self.batch)(&mut self.events);
                self.events.clear();
            }
            match read {
                Ok(()) => self.progress().is_caught_up |= reader.is_caught_up(),
                Err(error) => {
                    self.fail(&error);
                    // Whether the broker is there again is what a refresh finds out.
                    refresh_at = Instant::now();
                    if self.pause() {
                        return;
                    }
                }
            }
        }
    }

    fn read(&mut self, reader: &mut impl crate::broker::TopicReader) -> Result<(), BrokerError> {
        let (mut records, mut skipped, mut malformed) = (0, 0, 0);
        let events = &mut self.events;
        let read = reader.poll(BATCH_EVENTS, POLL, &mut |partition, record| {
            records += 1;
            match record.value.map(Event::from_json) {
                Some(Ok(event)) => events.push(ReadEvent {
                    event,
                    written: record.timestamp,
                }),
                // Kinds that others may write one day, and tombstones.
                Some(Err(EventError::UnknownKind { .. })) | None => skipped += 1,
                Some(Err(EventError::Malformed(error))) => {
                    (skipped, malformed) = (skipped + 1, malformed + 1);
                    debug!(%partition, offset = record.offset.0, %error, "not an event");
                }
            }
        });
        let mut progress = self.progress();
        progress.records += records;
        progress.skipped += skipped;
        progress.malformed += malformed;
        reader.positions(&mut |partition, next, is_at_end| {
            progress.positions.insert(partition.partition, (next, is_at_end));
        });
        read.map(|_| ())
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a problem once, as long as it stays the same.
    fn fail(&self, error: &BrokerError) {
        let text = error.to_string();
        let mut progress = self.progress();
        if progress.problem.as_ref() != Some(&text) {
            warn!(topic = %self.topic, %error, "events cannot be read; trying again");
        }
        progress.problem = Some(text);
    }

    fn recovered(&self) {
        if self.progress().problem.take().is_some() {
            info!(topic = %self.topic, "events can be read");
        }
    }

    /// Waits before the next try. Says whether to end.
    fn pause(&self) -> bool {
        std::thread::park_timeout(RETRY_EVERY);
        self.stopped.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
