//! Between a channel's outbox and its thread.

use tracing::{debug, error, info, warn};

use super::{AlertThread, Phase};
use crate::broker::StreamClient;
use crate::consumers::alert::incident::Incident;
use crate::consumers::alert::metrics::Sent;
use crate::consumers::alert::outbox::{Outcome, Settled};
use crate::stream_thread::Now;
use rand::RngExt as _;

impl<C: StreamClient> AlertThread<C> {
    /// Messages that were parked for so long that nobody wants them any more.
    pub(super) fn drop_outdated(&mut self, index: usize, now: Now) {
        let channel = &mut self.channels[index];
        let oldest = now.wall.0.saturating_sub(self.settings.max_age_ms);
        let outdated: Vec<u64> = channel
            .outbox
            .iter()
            .filter(|(_, payload)| payload.at_ms().is_some_and(|at_ms| at_ms < oldest))
            .map(|(number, _)| number)
            .collect();
        if !outdated.is_empty() {
            error!(channel = %channel.name, messages = outdated.len(), "messages were waiting for longer than alert.max_age, and are not sent any more");
        }
        for number in outdated {
            channel.outbox.remove(number);
            self.epoch.tombstone(&channel.name, number);
            self.metrics.sent(&channel.name, Sent::Outdated);
        }
    }

    /// Gives idle channels their next message.
    pub(super) fn dispatch(&mut self, now: Now) {
        for channel in &mut self.channels {
            if !channel.worker.is_idle() {
                continue;
            }
            if let Some(due) = channel.outbox.take(now.elapsed) {
                channel.worker.deliver(due);
            } else if channel.worker.is_refresh_due(now.elapsed) {
                let open = channel
                    .incidents
                    .values()
                    .filter(|tracked| matches!(tracked.incident, Incident::Open { .. }));
                let messages = open.filter_map(|tracked| tracked.message.as_deref().cloned()).collect();
                channel.worker.refresh(messages, now.elapsed);
            }
        }
    }

    pub(super) fn on_done(&mut self, index: usize, id: Option<&str>, outcome: &Outcome, now: Now) {
        let chance = self.random.random::<f64>();
        let Some(channel) = self.channels.get_mut(index) else { return };
        channel.worker.done();
        let name = channel.name.clone();
        let Some(id) = id else {
            if let Outcome::Retry { reason, .. } | Outcome::Refused { reason } = outcome {
                warn!(channel = %name, reason, "what is open could not be told again; trying again at the next time");
            }
            return;
        };
        if *outcome == Outcome::Delivered {
            match channel.outbox.number_of(id) {
                Some(number) => {
                    channel.delivered.insert(id.to_owned());
                    self.epoch.tombstone(&name, number);
                }
                // Its entry may be among those that are still to be read.
                None if !matches!(self.phase, Phase::Active) => drop(channel.delivered.insert(id.to_owned())),
                None => {}
            }
        }
        let was_failing = channel.outbox.is_failing();
        let settled = channel.outbox.settle(outcome, now.elapsed, chance);
        let waiting = channel.outbox.len();
        self.metrics.sent(
            &name,
            match outcome {
                Outcome::Delivered => Sent::Delivered,
                Outcome::Retry { .. } => Sent::Retried,
                Outcome::Refused { .. } => Sent::Refused,
            },
        );
        match (outcome, settled) {
            (Outcome::Delivered, _) if was_failing => info!(channel = %name, waiting, "the channel takes messages again"),
            (Outcome::Delivered, _) => debug!(channel = %name, key = id, "delivered"),
            (Outcome::Retry { reason, .. }, Some(Settled::Again(pause))) if !was_failing => {
                warn!(channel = %name, key = id, reason, waiting, again_after_ms = pause.as_millis(), "not delivered; trying again until it is");
            }
            (Outcome::Retry { reason, .. }, _) => debug!(channel = %name, key = id, reason, "not delivered"),
            (Outcome::Refused { reason }, _) => {
                error!(channel = %name, key = id, reason, "refused; kept, and tried again at the next start of `leeway alert`");
            }
        }
    }
}
