//! From a partition that the group gave to an active thread: the state, and where the events begin.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::ids::{Offset, Partition};
use tracing::{debug, info, warn};

use super::{AlertError, AlertThread, Phase, RECORDS_PER_POLL, Reading, Tracked};
use crate::broker::{StreamClient, TopicPartition};
use crate::consumers::alert::state::Record;
use crate::stream_thread::Now;

impl<C: StreamClient> AlertThread<C> {
    /// Reads the state.
    pub(super) fn restore(&mut self, now: Now) -> Result<bool, AlertError> {
        let Self {
            client, channels, positions, ..
        } = self;
        let by_name: HashMap<String, usize> = channels
            .iter()
            .enumerate()
            .map(|(index, channel)| (channel.name.clone(), index))
            .collect();
        let (mut taken, mut fault) = (0, None);
        let mut foreign = Vec::new();
        client.poll_restore(RECORDS_PER_POLL, &mut |_, record| {
            taken += 1;
            let Some(key) = record.key else { return };
            match Record::read(key, record.value) {
                Ok(None) => {}
                Ok(Some(Record::Positions(known))) => *positions = known,
                Ok(Some(Record::Incident { channel, incident, value })) => match by_name.get(&channel).map(|index| &mut channels[*index]) {
                    Some(channel) => match value {
                        Some(stored) => {
                            let tracked = Tracked {
                                incident: stored.incident,
                                message: stored.message.map(|message| Arc::new(*message)),
                                seen: now.elapsed,
                            };
                            channel.incidents.insert(incident, tracked);
                        }
                        None => drop(channel.incidents.remove(&incident)),
                    },
                    None => foreign.push((key.to_vec(), value.is_some())),
                },
                Ok(Some(Record::Message { channel, number, value })) => match by_name.get(&channel).map(|index| &mut channels[*index]) {
                    Some(channel) => match value {
                        Some(payload) => channel.outbox.restore(number, payload),
                        None => channel.outbox.remove(number),
                    },
                    None => foreign.push((key.to_vec(), value.is_some())),
                },
                Err(error) => fault = fault.take().or(Some(error)),
            }
        });
        if let Some(error) = fault {
            let topic = &self.settings.state_topic;
            return Err(AlertError(format!(
                "topic {topic:?}: {error}; or delete the topic: open incidents are told again then"
            )));
        }
        for (key, is_there) in foreign {
            if is_there {
                self.epoch.foreign.insert(key);
            } else {
                self.epoch.foreign.remove(&key);
            }
        }
        if let Phase::Restoring { records, .. } = &mut self.phase {
            *records += taken;
        }
        Ok(taken > 0)
    }

    pub(super) fn activate(&mut self, records: u64, elapsed: Duration, now: Now) {
        self.phase = Phase::Active;
        self.caught_up = false;
        let (mut incidents, mut waiting) = (0, 0);
        for index in 0..self.channels.len() {
            self.drop_outdated(index, now);
            let channel = &mut self.channels[index];
            // What this process has sent, or is sending, before it read its state again.
            for id in channel.delivered.clone() {
                match channel.outbox.number_of(&id) {
                    Some(number) => {
                        channel.outbox.remove(number);
                        self.epoch.tombstone(&channel.name, number);
                    }
                    None => drop(channel.delivered.remove(&id)),
                }
            }
            if let Some(id) = channel.worker.entry().map(str::to_owned) {
                channel.outbox.adopt(&id);
            }
            incidents += channel.incidents.len();
            waiting += channel.outbox.len();
        }
        if !self.epoch.foreign.is_empty() {
            warn!(
                records = self.epoch.foreign.len(),
                "forgetting incidents and messages of channels that are not configured any more"
            );
        }
        info!(records, incidents, waiting, elapsed_ms = elapsed.as_millis(), "alerting");
        self.metrics.set_active(true);
        self.health.set_ready(true, "alerting");
    }

    /// Asks where to begin in partitions that are new.
    pub(super) fn find_partitions(&mut self) {
        for (topic, ends) in &self.watched {
            for number in 0..ends.len() {
                let partition = TopicPartition::new(topic.clone(), Partition(i32::try_from(number).unwrap_or(i32::MAX)));
                if !self.reading.contains_key(&partition) {
                    self.client.fetch_committed(std::slice::from_ref(&partition));
                    self.client.fetch_log_range(&partition);
                    let asked = Reading::Asked {
                        committed: None,
                        range: None,
                    };
                    self.reading.insert(partition, asked);
                }
            }
        }
    }

    /// Begins to read a partition once it is known where.
    pub(super) fn begin(&mut self, partition: &TopicPartition) {
        let Some(Reading::Asked {
            committed: Some(committed),
            range: Some(range),
        }) = self.reading.get(partition)
        else {
            return;
        };
        let known = self
            .positions
            .topics
            .get(&*partition.topic)
            .and_then(|topic| topic.get(&partition.partition.0));
        let wanted = committed.or(known.map(|next| Offset(*next)));
        let next = match wanted {
            // A first start, or a new partition.
            None => range.start,
            Some(next) if next < range.start => {
                warn!(%partition, from = %next, to = %range.start, events = range.start.0 - next.0, "events were deleted before they were read");
                range.start
            }
            Some(next) if next > range.high_watermark => {
                warn!(%partition, position = %next, end = %range.high_watermark, "the topic is shorter than what was read of it: it was made anew; reading it from its start");
                range.start
            }
            Some(next) => next,
        };
        debug!(%partition, offset = %next, "reading events");
        self.client.start_restore(partition, next);
        self.reading.insert(partition.clone(), Reading::At { next, at_end: false });
    }
}
