//! What one channel still has to be told, in order, and when it is tried next.
//!
//! ```text
//! push --> waiting for its transaction --committed--> due --take--> in flight --delivered--> gone, once its tombstone is committed
//!                                                      ^                |--retry: backoff, or what the other side asked for
//!                                                      \----------------/
//!                                                                       \--refused--> parked until the next start
//! ```
//!
//! Invariants: one delivery at a time, in the order of the entries; nothing is sent before it is durable; at most `entries_max` are kept, of which the oldest go
//! first, and whoever pushes is told.
//!
//! Pure: time and chance are arguments. Not here: the sending, and the topic in which entries are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Message;

/// The longest pause after a first failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest pause of all, but for what the other side asks for.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The longest pause that the other side may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What is delivered at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// An alert.
    Message(Box<Message>),
    /// Lines of a log.
    Log(Vec<LogLine>),
}

/// A summary, as a line of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written, RFC 3339.
    pub timestamp: String,
    /// The mean PSI.
    pub psi_score: f64,
    /// The status.
    pub drift_status: String,
    /// The monitor's name.
    pub monitor: String,
    /// `partition` or `global`.
    pub scope: String,
    /// The input partition; `None` in scope global.
    pub partition: Option<i32>,
    /// `field=value`.
    pub segment: Option<String>,
    /// k.
    pub record_count: u64,
    /// Features in drift.
    pub drifted_features: u64,
    /// Of so many.
    pub feature_count: u64,
    /// The event's id.
    pub event_id: String,
}

impl Payload {
    /// Same payload, same id.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Message(message) => message.key.clone(),
            Self::Log(lines) => lines.last().map_or_else(String::new, |line| format!("{}#{}", line.event_id, lines.len())),
        }
    }

    /// When the newest of what it says was written, milliseconds; `None` for a log, which does not grow old.
    #[must_use]
    pub fn at_ms(&self) -> Option<i64> {
        match self {
            Self::Message(message) => message.alerts.iter().map(|alert| alert.at_ms).max(),
            Self::Log(_) => None,
        }
    }
}

/// What came of an attempt to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Delivered,
    /// It may be there next time.
    Retry {
        /// What the other side asked for.
        after: Option<Duration>,
        /// Why, in words.
        reason: String,
    },
    /// It never will, as it is.
    Refused {
        /// Why, in words, with what to do.
        reason: String,
    },
}

/// What followed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Gone, once its tombstone is committed.
    Delivered,
    /// Tried again after so long.
    Again(Duration),
    /// Parked until the next start.
    Parked,
}

struct Entry {
    id: String,
    payload: Arc<Payload>,
    /// The transaction that holds it is committed.
    is_durable: bool,
    is_refused: bool,
}

/// The entries of one channel.
pub struct Outbox {
    entries: BTreeMap<u64, Entry>,
    entries_max: usize,
    next: u64,
    in_flight: Option<u64>,
    failures: u32,
    not_before: Duration,
}

/// An entry to be delivered now.
#[derive(Clone, Debug)]
pub struct Due {
    /// Its place.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// What to deliver.
    pub payload: Arc<Payload>,
}

impl Outbox {
    /// An empty one that keeps at most so many entries.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            entries_max: entries_max.max(1),
            next: 0,
            in_flight: None,
            failures: 0,
            not_before: Duration::ZERO,
        }
    }

    /// Puts back an entry that was read from the topic.
    pub fn restore(&mut self, number: u64, payload: Payload) {
        self.next = self.next.max(number + 1);
        let entry = Entry {
            id: payload.id(),
            payload: Arc::new(payload),
            is_durable: true,
            is_refused: false,
        };
        self.entries.insert(number, entry);
    }

    /// Forgets an entry: it was delivered already, or is not wanted any more.
    pub fn remove(&mut self, number: u64) {
        self.entries.remove(&number);
        if self.in_flight == Some(number) {
            self.in_flight = None;
        }
    }

    /// Adds an entry; gives its number, and that of one that had to go for it.
    pub fn push(&mut self, payload: Payload) -> (u64, Option<u64>) {
        let number = self.next;
        self.next += 1;
        let entry = Entry {
            id: payload.id(),
            payload: Arc::new(payload),
            is_durable: false,
            is_refused: false,
        };
        self.entries.insert(number, entry);
        let is_free = |candidate: &&u64| Some(**candidate) != self.in_flight;
        let oldest = (self.entries.len() > self.entries_max)
            .then(|| self.entries.keys().find(is_free).copied())
            .flatten();
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
        (number, oldest)
    }

    /// Every entry is durable now.
    pub fn committed(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.is_durable = true);
    }

    /// The next entry to deliver, if there is one and its time has come. It is in flight until [`Self::settle`].
    pub fn take(&mut self, now: Duration) -> Option<Due> {
        if self.in_flight.is_some() || now < self.not_before {
            return None;
        }
        let (number, entry) = self.entries.iter().find(|(_, entry)| !entry.is_refused)?;
        if !entry.is_durable {
            return None;
        }
        self.in_flight = Some(*number);
        Some(Due {
            number: *number,
            id: entry.id.clone(),
            payload: entry.payload.clone(),
        })
    }

    /// The entry with this id is in flight already: the process sends it, and has read its state again meanwhile.
    pub fn adopt(&mut self, id: &str) {
        if self.in_flight.is_none() {
            self.in_flight = self.number_of(id);
        }
    }

    /// The entry with this id.
    #[must_use]
    pub fn number_of(&self, id: &str) -> Option<u64> {
        self.entries.iter().find(|(_, entry)| entry.id == id).map(|(number, _)| *number)
    }

    /// Takes the outcome of the delivery in flight. `chance`: from 0 to below 1.
    pub fn settle(&mut self, outcome: &Outcome, now: Duration, chance: f64) -> Option<Settled> {
        let number = self.in_flight.take()?;
        Some(match outcome {
            Outcome::Delivered => {
                self.failures = 0;
                self.not_before = Duration::ZERO;
                self.entries.remove(&number);
                Settled::Delivered
            }
            Outcome::Refused { .. } => {
                self.failures = 0;
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.is_refused = true;
                }
                Settled::Parked
            }
            Outcome::Retry { after, .. } => {
                let pause = pause(self.failures, *after, chance);
                self.failures = self.failures.saturating_add(1);
                self.not_before = now.saturating_add(pause);
                Settled::Again(pause)
            }
        })
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Payload)> {
        self.entries.iter().map(|(number, entry)| (*number, &*entry.payload))
    }
}

/// Full jitter, so that receivers that come back are not met by everybody at once; and never before the other side wants it.
fn pause(failures: u32, after: Option<Duration>, chance: f64) -> Duration {
    let longest = BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    let jittered = longest.mul_f64(chance.clamp(0.0, 1.0));
    match after {
        // Beside the time that is asked for, a little: everybody else was told the same.
        Some(after) => after.min(RETRY_AFTER_MAX) + BACKOFF_FIRST.mul_f64(chance.clamp(0.0, 1.0)),
        None => jittered,
    }
}

#[cfg(test)]
mod tests {
    use leeway_topology::drift::Status;

    use super::super::incident::Transition;
    use super::super::message::combine;
    use super::super::message::tests::{drift, told};
    use super::*;

    fn payload(end: i64) -> Payload {
        let single = told(&drift("plan", Status::Drift, end), Transition::Opened);
        Payload::Message(Box::new(combine("team", vec![single], 0).remove(0)))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn retry(after: Option<Duration>) -> Outcome {
        Outcome::Retry {
            after,
            reason: "busy".to_owned(),
        }
    }

    #[test]
    fn nothing_is_sent_before_it_is_durable_and_then_in_order_one_at_a_time() {
        let mut outbox = Outbox::new(10);
        outbox.push(payload(1));
        assert!(outbox.take(seconds(0)).is_none());
        outbox.committed();
        outbox.push(payload(2));
        let first = outbox.take(seconds(0)).unwrap();
        assert_eq!((first.number, first.id), (0, payload(1).id()));
        assert!(outbox.take(seconds(0)).is_none(), "one is in flight");
        assert_eq!(outbox.settle(&Outcome::Delivered, seconds(0), 0.5), Some(Settled::Delivered));
        assert!(outbox.take(seconds(0)).is_none(), "the second is not durable yet");
        outbox.committed();
        assert_eq!(outbox.take(seconds(0)).unwrap().number, 1);
    }

    #[test]
    fn a_failure_is_tried_again_after_a_pause_that_doubles_and_ends_with_the_first_success() {
        let mut outbox = Outbox::new(10);
        outbox.push(payload(1));
        outbox.committed();
        let mut now = seconds(0);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            outbox.take(now).unwrap();
            let settled = outbox.settle(&retry(None), now, 1.0).unwrap();
            assert_eq!(settled, Settled::Again(seconds(expected)));
            assert!(outbox.take(now + seconds(expected) - Duration::from_millis(1)).is_none());
            now += seconds(expected);
        }
        assert!(outbox.is_failing());
        outbox.take(now).unwrap();
        outbox.settle(&Outcome::Delivered, now, 1.0);
        assert!(!outbox.is_failing() && outbox.is_empty());
    }

    #[test]
    fn the_other_side_is_not_asked_before_it_wants_to_be() {
        let mut outbox = Outbox::new(10);
        outbox.push(payload(1));
        outbox.committed();
        outbox.take(seconds(0)).unwrap();
        assert_eq!(
            outbox.settle(&retry(Some(seconds(30))), seconds(0), 0.0),
            Some(Settled::Again(seconds(30)))
        );
        assert!(outbox.take(seconds(29)).is_none());
        assert!(outbox.take(seconds(30)).is_some());
        let forever = Duration::from_secs(u64::MAX);
        assert_eq!(
            outbox.settle(&retry(Some(forever)), seconds(30), 0.0),
            Some(Settled::Again(RETRY_AFTER_MAX))
        );
    }

    #[test]
    fn what_is_refused_is_parked_and_does_not_hold_up_what_comes_after_it() {
        let mut outbox = Outbox::new(10);
        outbox.push(payload(1));
        outbox.push(payload(2));
        outbox.committed();
        outbox.take(seconds(0)).unwrap();
        let refused = Outcome::Refused { reason: "no".to_owned() };
        assert_eq!(outbox.settle(&refused, seconds(0), 0.0), Some(Settled::Parked));
        assert_eq!(outbox.take(seconds(0)).unwrap().number, 1);
        assert_eq!(outbox.len(), 2, "kept, for the next start");
    }

    #[test]
    fn past_its_bound_the_oldest_goes_but_never_the_one_in_flight() {
        let mut outbox = Outbox::new(2);
        outbox.push(payload(1));
        outbox.push(payload(2));
        outbox.committed();
        outbox.take(seconds(0)).unwrap();
        assert_eq!(outbox.push(payload(3)), (2, Some(1)));
        assert_eq!(outbox.len(), 2);
    }

    #[test]
    fn after_a_restart_numbers_go_on_behind_what_is_still_there() {
        let mut outbox = Outbox::new(10);
        outbox.restore(7, payload(1));
        assert_eq!(outbox.push(payload(2)), (8, None));
        outbox.adopt(&payload(1).id());
        assert!(outbox.take(seconds(0)).is_none(), "the first is in flight already");
        assert_eq!(outbox.settle(&Outcome::Delivered, seconds(0), 0.0), Some(Settled::Delivered));
    }
}
