//! From an event to what changes: incidents, transitions, lines of logs. And what time alone changes.

use std::sync::Arc;
use std::time::Duration;

use leeway_topology::event::{Event, EventError};
use leeway_topology::ids::Offset;
use tracing::{error, warn};

use super::commit::{EVENTS_MAX, Epoch};
use super::{AlertThread, ChannelState, INCIDENTS_MAX, RECORDS_PER_POLL, Reading, Settings, Tracked};
use crate::broker::StreamClient;
use crate::consumers::alert::identity::Identity;
use crate::consumers::alert::incident::{self, Check, Incident, Severity, Step, Told, Transition};
use crate::consumers::alert::message::{Facts, Message, event_id};
use crate::consumers::alert::outbox::LogLine;
use crate::consumers::alert::text;
use crate::stream_thread::Now;

/// The same complaint is made so often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// A log's entries that may wait before reading waits for them.
const LOG_ENTRIES_AHEAD: usize = 100;

impl<C: StreamClient> AlertThread<C> {
    /// Takes the next events, unless a transaction is under way, or enough is in the next one.
    pub(super) fn read(&mut self, now: Now) -> bool {
        if self.committing || self.epoch.events >= EVENTS_MAX || self.is_log_behind() {
            return false;
        }
        let mut client_records = 0;
        let Self {
            client,
            settings,
            channels,
            reading,
            epoch,
            metrics,
            malformed_told,
            full_told,
            ..
        } = self;
        let mut kept: usize = channels.iter().map(|channel| channel.incidents.len()).sum();
        client.poll_restore(RECORDS_PER_POLL, &mut |partition, record| {
            client_records += 1;
            let Some(Reading::At { next, at_end }) = reading.get_mut(partition) else {
                return;
            };
            (*next, *at_end) = (record.offset.next(), false);
            epoch.events += 1;
            epoch.since.get_or_insert(now.elapsed);
            let event = match record.value.map(Event::from_json) {
                None => return,
                Some(Ok(event)) => event,
                Some(Err(EventError::UnknownKind { .. })) => return metrics.event("unknown"),
                Some(Err(EventError::Malformed(error))) => {
                    metrics.event("malformed");
                    complain(
                        malformed_told,
                        now,
                        || warn!(%partition, offset = %record.offset, %error, "passed over: no event"),
                    );
                    return;
                }
            };
            let Some(identity) = Identity::of(event_id(&event)) else {
                metrics.event("malformed");
                complain(
                    malformed_told,
                    now,
                    || warn!(%partition, offset = %record.offset, event_id = event_id(&event), "passed over: the event's id is none"),
                );
                return;
            };
            metrics.event(match event {
                Event::Drift(_) => "drift",
                Event::Quality(_) => "quality",
            });
            let at_ms = record.timestamp.map_or(now.wall.0, |timestamp| timestamp.0);
            for (index, channel) in channels.iter_mut().enumerate() {
                if !channel.filter.takes(&event) {
                    continue;
                }
                if channel.is_log {
                    epoch.lines.entry(index).or_default().extend(line(&event, at_ms));
                } else if !observe(index, channel, &event, &identity, at_ms, settings, epoch, &mut kept, now) {
                    complain(full_told, now, || {
                        error!(
                            incidents_max = INCIDENTS_MAX,
                            "too many incidents: further ones are not told; filter by severity, monitor or segment"
                        )
                    });
                }
            }
        });
        client_records > 0
    }

    /// A log that works is waited for, so that it is whole; one that does not is not, so that others are told.
    fn is_log_behind(&self) -> bool {
        let is_behind = |channel: &ChannelState| {
            channel.is_log && !channel.outbox.is_failing() && channel.outbox.len() >= self.settings.max_parked.div_ceil(2).min(LOG_ENTRIES_AHEAD)
        };
        self.channels.iter().any(is_behind)
    }

    /// What time alone changes, and gauges.
    pub(super) fn tick(&mut self, now: Now) {
        let Self {
            channels,
            epoch,
            settings,
            metrics,
            ..
        } = self;
        let is_active = matches!(self.phase, super::Phase::Active);
        for (index, channel) in channels.iter_mut().enumerate() {
            if is_active && self.caught_up && !self.committing {
                let due: Vec<String> = channel
                    .incidents
                    .iter()
                    .filter(|(_, tracked)| is_due(tracked, settings, now))
                    .map(|(incident, _)| incident.clone())
                    .collect();
                for incident in due {
                    on_time(index, channel, &incident, epoch, settings, now);
                }
            }
            let open = channel
                .incidents
                .values()
                .filter(|tracked| matches!(tracked.incident, Incident::Open { .. }));
            metrics.set_channel(&channel.name, channel.outbox.len(), open.count());
        }
        if is_active {
            self.publish_lag();
        }
    }

    fn publish_lag(&self) {
        for (partition, reading) in &self.reading {
            let end = self
                .watched
                .get(&partition.topic)
                .and_then(|ends| ends.get(usize::try_from(partition.partition.0).ok()?));
            if let (Reading::At { next, at_end }, Some(Offset(end))) = (reading, end) {
                // A marker behind the last event is no event: at its end there is none left.
                let lag = if *at_end { 0 } else { end - next.0 };
                self.metrics.set_lag(&partition.topic, partition.partition.0, lag);
            }
        }
    }
}

/// Makes a complaint, unless the last one is not long ago.
fn complain(told: &mut Option<Duration>, now: Now, complaint: impl FnOnce()) {
    if told.is_none_or(|told| now.elapsed >= told + COMPLAIN_EVERY) {
        *told = Some(now.elapsed);
        complaint();
    }
}

/// A summary as a line.
fn line(event: &Event, at_ms: i64) -> Option<LogLine> {
    let Event::Drift(event) = event else { return None };
    event.is_summary().then(|| LogLine {
        timestamp: text::time(at_ms),
        psi_score: event.psi,
        drift_status: event.status.as_str().to_owned(),
        monitor: event.monitor.to_string(),
        scope: event.scope.as_str().to_owned(),
        partition: event.partition.map(|partition| partition.0),
        segment: event.segment.as_ref().map(ToString::to_string),
        record_count: event.record_count.0,
        drifted_features: event.drifted_features.unwrap_or_default(),
        feature_count: event.feature_count.unwrap_or_default(),
        event_id: event.event_id.clone(),
    })
}

/// Takes an event into one channel's incidents. `false`: there is no room for another one.
#[expect(clippy::too_many_arguments, reason = "parts of one thread, borrowed apart")]
fn observe(
    index: usize,
    channel: &mut ChannelState,
    event: &Event,
    identity: &Identity<'_>,
    at_ms: i64,
    settings: &Settings,
    epoch: &mut Epoch,
    kept: &mut usize,
    now: Now,
) -> bool {
    let severity = match event {
        Event::Drift(event) => Severity::of_status(event.status),
        Event::Quality(event) => Severity::of_quality(event.status),
    };
    let before = channel.incidents.remove(identity.incident);
    // Most events are of this kind.
    if before.is_none() && severity.is_none() {
        return true;
    }
    *kept -= usize::from(before.is_some());
    if before.is_none() && *kept >= INCIDENTS_MAX {
        return false;
    }
    let check = Check {
        severity,
        at_ms,
        stale: at_ms < now.wall.0.saturating_sub(settings.max_age_ms),
    };
    let (incident, last) = match before {
        Some(tracked) => (Some(tracked.incident), tracked.message),
        None => (None, None),
    };
    let unchanged = incident.clone();
    let step = incident::observe(incident, &check, &channel.rule);
    let facts = Facts {
        references: &*settings.references,
        criteria: &settings.criteria,
        dashboard_url: settings.dashboard_url.as_deref(),
    };
    if let Some(told) = &step.told {
        let message = facts.describe(event, told, at_ms);
        tell(index, identity.place, identity.check, message, epoch, now);
    }
    if step.incident != unchanged {
        epoch.incidents.insert((index, identity.incident.to_owned()));
    }
    if let Some(incident) = step.incident {
        // What would be told of it, by its last check: of one that is held back, and of one that is told again and again.
        let message = match (&incident, &step.told) {
            (Incident::Open { since_ms, .. }, Some(_)) => Some(facts.describe(event, &open(*since_ms), at_ms)),
            (Incident::Open { since_ms, .. }, None) if channel.worker.is_refreshing() => Some(facts.describe(event, &open(*since_ms), at_ms)),
            (Incident::Held { since_ms, .. }, _) => Some(facts.describe(event, &open(*since_ms), at_ms)),
            _ => None,
        };
        let message = match (message, &incident) {
            (Some(mut described), Incident::Open { severity, .. }) => {
                // The worst that was told, also where the last check is better.
                described.alerts.iter_mut().for_each(|alert| alert.severity = *severity);
                Some(Arc::new(described))
            }
            (Some(described), _) => Some(Arc::new(described)),
            (None, Incident::Open { .. }) => last,
            (None, _) => None,
        };
        let tracked = Tracked {
            incident,
            message,
            seen: now.elapsed,
        };
        channel.incidents.insert(identity.incident.to_owned(), tracked);
        *kept += 1;
    }
    true
}

/// What is told of an incident that is open.
fn open(since_ms: i64) -> Told {
    Told {
        transition: Transition::Opened,
        before: None,
        since_ms,
    }
}

fn tell(index: usize, place: &str, check: &str, message: Message, epoch: &mut Epoch, now: Now) {
    epoch.transitions_since.get_or_insert(now.elapsed);
    epoch.since.get_or_insert(now.elapsed);
    epoch.transition_count += 1;
    epoch
        .transitions
        .entry((index, place.to_owned(), check.to_owned()))
        .or_default()
        .push(message);
}

/// Whether time alone may change an incident.
fn is_due(tracked: &Tracked, settings: &Settings, now: Now) -> bool {
    match &tracked.incident {
        Incident::Cooling { until_ms, .. } | Incident::Held { until_ms, .. } => *until_ms <= now.wall.0,
        Incident::Open { .. } | Incident::Pending { .. } => settings
            .expire_after
            .is_some_and(|after| now.elapsed >= tracked.seen.saturating_add(after)),
    }
}

/// A cooldown has ended, or an incident was not heard of for too long.
fn on_time(index: usize, channel: &mut ChannelState, incident: &str, epoch: &mut Epoch, settings: &Settings, now: Now) {
    let Some(tracked) = channel.incidents.remove(incident) else { return };
    let Tracked {
        incident: before,
        message,
        seen,
    } = tracked;
    let has_expired = matches!(before, Incident::Open { .. } | Incident::Pending { .. });
    let Step { incident: after, told } = if has_expired && settings.expire_after.is_some() {
        incident::expire(before.clone())
    } else {
        incident::tick(before.clone(), now.wall.0, &channel.rule)
    };
    if let (Some(told), Some(message)) = (&told, &message)
        && let Some((place, _)) = incident.rsplit_once('/')
    {
        let mut message = Message::clone(message);
        for alert in &mut message.alerts {
            alert.key = format!(
                "{}#{}",
                alert.key.rsplit_once('#').map_or(alert.key.as_str(), |(event, _)| event),
                told.transition.as_str()
            );
            alert.transition = told.transition;
            alert.severity_before = told.before;
            if told.transition == Transition::Expired {
                alert.from = std::mem::replace(&mut alert.to, "unknown".to_owned());
            }
        }
        let check = message.key.clone();
        tell(index, place, &check, message, epoch, now);
    }
    if after.as_ref() != Some(&before) {
        epoch.since.get_or_insert(now.elapsed);
        epoch.incidents.insert((index, incident.to_owned()));
    }
    if let Some(after) = after {
        channel.incidents.insert(
            incident.to_owned(),
            Tracked {
                incident: after,
                message,
                seen,
            },
        );
    }
}
