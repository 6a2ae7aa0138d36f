//! What changed since the last commit, and its transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::error;

use super::{AlertThread, Reading};
use crate::broker::{CommittedOffset, EpochCommit, OutRecord, StreamClient};
use crate::consumers::alert::identity::is_in;
use crate::consumers::alert::incident::Incident;
use crate::consumers::alert::message::{Message, combine};
use crate::consumers::alert::metrics::Sent;
use crate::consumers::alert::outbox::{LogLine, Payload};
use crate::consumers::alert::state::{Key, Positions, StoredIncident, to_bytes};
use crate::stream_thread::Now;
use leeway_topology::ids::Partition;

/// Events in one commit at most: some megabytes of state, if each of them changes an incident.
pub(super) const EVENTS_MAX: usize = 10_000;

/// Transitions in one commit at most.
const TRANSITIONS_MAX: usize = 2000;

/// Positions alone are committed so often.
const POSITIONS_EVERY: Duration = Duration::from_secs(5);

/// Lines of a log in one entry: a few hundred kilobytes.
const LINES_MAX: usize = 500;

/// What changed since the last commit.
#[derive(Default)]
pub(super) struct Epoch {
    /// Since when it is open.
    pub(super) since: Option<Duration>,
    /// Events that were read.
    pub(super) events: usize,
    /// Incidents that changed, by channel.
    pub(super) incidents: BTreeSet<(usize, String)>,
    /// What is to be told: by channel, place and check.
    pub(super) transitions: BTreeMap<(usize, String, String), Vec<Message>>,
    /// When the first of them came.
    pub(super) transitions_since: Option<Duration>,
    /// How many there are.
    pub(super) transition_count: usize,
    /// Lines of logs, by channel.
    pub(super) lines: BTreeMap<usize, Vec<LogLine>>,
    /// Entries that are delivered or dropped.
    tombstones: BTreeSet<Key>,
    /// Keys of channels that are not configured any more.
    pub(super) foreign: BTreeSet<Vec<u8>>,
    /// Ids whose tombstones are in the transaction under way.
    sealed: Vec<(usize, String)>,
}

impl Epoch {
    /// An entry is not to be kept any more.
    pub(super) fn tombstone(&mut self, channel: &str, number: u64) {
        self.tombstones.insert(Key::Message {
            channel: channel.to_owned(),
            number,
        });
    }
}

impl<C: StreamClient> AlertThread<C> {
    /// Whether it is time: at once where somebody waits for it, else every few seconds, for the positions.
    pub(super) fn is_commit_due(&self, now: Now) -> bool {
        let epoch = &self.epoch;
        if self.committing {
            return false;
        }
        if epoch.events >= EVENTS_MAX || epoch.transition_count >= TRANSITIONS_MAX {
            return true;
        }
        if let Some(since) = epoch.transitions_since {
            return self.stopping || now.elapsed >= since + self.settings.group_wait;
        }
        let patience = if epoch.lines.is_empty() {
            POSITIONS_EVERY
        } else {
            self.settings.group_wait
        };
        let is_waited_for = !epoch.tombstones.is_empty() || !epoch.foreign.is_empty();
        is_waited_for || epoch.since.is_some_and(|since| now.elapsed >= since + patience || self.stopping)
    }

    /// Makes everything that changed one transaction.
    pub(super) fn commit(&mut self, now: Now) {
        let group = self.client.group_metadata();
        if !group.is_member() || self.client.assignment_lost() {
            self.fail("this process is not a member of its group any more", now);
            return;
        }
        let mut epoch = std::mem::take(&mut self.epoch);
        let mut records: Vec<(Key, Option<Vec<u8>>)> = Vec::new();
        for (channel, incident) in &epoch.incidents {
            let channel = &self.channels[*channel];
            let value = channel.incidents.get(incident).map(|tracked| {
                let message = tracked.message.as_ref().map(|message| Box::new(Message::clone(message)));
                to_bytes(&StoredIncident {
                    incident: tracked.incident.clone(),
                    message,
                })
            });
            let key = Key::Incident {
                channel: channel.name.clone(),
                incident: incident.clone(),
            };
            records.push((key, value));
        }
        let logs = epoch.lines.into_iter().flat_map(|(channel, lines)| {
            let chunks: Vec<Payload> = lines.chunks(LINES_MAX).map(|lines| Payload::Log(lines.to_vec())).collect();
            chunks.into_iter().map(move |payload| (channel, payload))
        });
        let mut payloads: Vec<(usize, Payload)> = logs.collect();
        for ((channel, place, _), single) in epoch.transitions {
            let state = &self.channels[channel];
            let is_open =
                |(incident, tracked): &(&String, &super::Tracked)| is_in(incident, &place) && matches!(tracked.incident, Incident::Open { .. });
            let open = state
                .incidents
                .range(place.clone()..)
                .take_while(|(incident, _)| incident.starts_with(&place));
            let told_open = single
                .iter()
                .flat_map(|message| &message.alerts)
                .filter(|alert| !alert.transition.is_end())
                .count();
            let others = open.filter(is_open).count().saturating_sub(told_open);
            let messages = combine(&state.name, single, u64::try_from(others).unwrap_or(u64::MAX));
            payloads.extend(messages.into_iter().map(|message| (channel, Payload::Message(Box::new(message)))));
        }
        for (channel, payload) in payloads {
            let channel = &mut self.channels[channel];
            let value = to_bytes(&payload);
            let (number, dropped) = channel.outbox.push(payload);
            let key = |number| Key::Message {
                channel: channel.name.clone(),
                number,
            };
            records.push((key(number), Some(value)));
            if let Some(dropped) = dropped {
                error!(channel = %channel.name, max_parked = self.settings.max_parked, "more messages are waiting than are kept: the oldest is dropped; see alert.max_parked");
                self.metrics.sent(&channel.name, Sent::Dropped);
                records.push((key(dropped), None));
            }
        }
        records.extend(std::mem::take(&mut epoch.tombstones).into_iter().map(|key| (key, None)));
        let positions = self.read_positions();
        records.push((Key::Positions, Some(to_bytes(&positions))));
        let state = self.state_partition();
        let record = |key: Vec<u8>, value| OutRecord {
            topic: state.topic.clone(),
            partition: Partition(0),
            key: Some(key),
            value,
            headers: Vec::new(),
            timestamp: None,
        };
        let mut out: Vec<OutRecord> = epoch.foreign.into_iter().map(|key| record(key, None)).collect();
        out.extend(records.into_iter().map(|(key, value)| record(key.to_bytes(), value)));
        let offsets = self.reading.iter().filter_map(|(partition, reading)| match reading {
            Reading::At { next, .. } => Some((
                partition.clone(),
                CommittedOffset {
                    offset: *next,
                    metadata: String::new(),
                },
            )),
            Reading::Asked { .. } => None,
        });
        self.epochs += 1;
        self.committing = true;
        for (index, channel) in self.channels.iter().enumerate() {
            self.epoch.sealed.extend(channel.delivered.iter().map(|id| (index, id.clone())));
        }
        self.client.commit(EpochCommit {
            epoch: self.epochs,
            records: out,
            offsets: offsets.collect(),
            group,
        });
    }

    /// Where each partition stands; of those that are not read yet, where they stood.
    fn read_positions(&mut self) -> Positions {
        for (partition, reading) in &self.reading {
            if let Reading::At { next, .. } = reading {
                let topic = self.positions.topics.entry(partition.topic.to_string()).or_default();
                topic.insert(partition.partition.0, next.0);
            }
        }
        self.positions.clone()
    }

    /// The transaction is committed: what is in it may be sent, and what was sent is forgotten.
    pub(super) fn committed(&mut self, _now: Now) {
        for (channel, id) in std::mem::take(&mut self.epoch.sealed) {
            self.channels[channel].delivered.remove(&id);
        }
        for channel in &mut self.channels {
            channel.outbox.committed();
        }
    }
}
