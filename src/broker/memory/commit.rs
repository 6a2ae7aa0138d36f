//! One epoch's transaction, as the client drives it: produce, send offsets, commit. Without faults it is through in one go.

use std::collections::BTreeMap;
use std::time::Duration;

use leeway_topology::ids::Offset;

use super::faults::{CommitStep, Fault};
use super::state::State;
use super::transactions::{Markers, Refusal, Session};
use crate::broker::{AbortCause, ClientSettings, CommitOutcome, EpochCommit, TopicPartition};

/// A transaction under way.
pub(super) struct Committing {
    commit: EpochCommit,
    session: Session,
    step: CommitStep,
    /// Whether the faults were asked about this step.
    asked: bool,
    resume_at: Duration,
    markers: Markers,
    /// The step's request arrives twice.
    twice: bool,
    ends: BTreeMap<TopicPartition, Offset>,
}

impl Committing {
    pub(super) fn new(commit: EpochCommit, session: Session) -> Self {
        let ends = BTreeMap::new();
        Self {
            commit,
            session,
            step: CommitStep::Produce,
            asked: false,
            resume_at: Duration::ZERO,
            markers: Markers::AtOnce,
            twice: false,
            ends,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.commit.epoch
    }

    /// Goes on as far as it can. `None`: it waits.
    pub(super) fn drive(&mut self, state: &mut State, settings: &ClientSettings, now: Duration) -> Option<CommitOutcome> {
        loop {
            if now < self.resume_at {
                return None;
            }
            if !self.asked {
                self.asked = true;
                if let Some(fault) = state
                    .faults
                    .as_mut()
                    .and_then(|faults| faults.before(&settings.transactional_id, self.step))
                {
                    if let Some(outcome) = self.strike(fault, state, settings, now) {
                        return Some(outcome);
                    }
                    // It may have to wait now.
                    continue;
                }
            }
            let first = self.advance(state, settings, now);
            match if std::mem::take(&mut self.twice) {
                self.advance(state, settings, now)
            } else {
                first
            } {
                Ok(Some(next)) => (self.step, self.asked) = (next, false),
                Ok(None) => {
                    return Some(CommitOutcome::Committed {
                        ends: std::mem::take(&mut self.ends),
                    });
                }
                Err(Refusal::Concurrent) => return None,
                Err(Refusal::Fenced(reason)) => return Some(CommitOutcome::Fenced { reason }),
                Err(Refusal::Abort(cause, reason)) => return Some(self.abort(state, now, cause, reason)),
            }
        }
    }

    /// One step; gives the next one.
    fn advance(&mut self, state: &mut State, settings: &ClientSettings, now: Duration) -> Result<Option<CommitStep>, Refusal> {
        match self.step {
            CommitStep::Produce => {
                // First, since this step may be asked for again until the transaction can begin.
                state.begin(&self.session, now)?;
                for record in std::mem::take(&mut self.commit.records) {
                    let bytes = super::state::record_bytes(&record);
                    if bytes > settings.message_bytes_max {
                        let reason = format!(
                            "a record of {bytes} bytes for {} is larger than the producer's {}",
                            record.topic, settings.message_bytes_max
                        );
                        return Err(Refusal::Abort(AbortCause::Refused, reason));
                    }
                    let (partition, offset) = state.produce(&self.session, record, now)?;
                    self.ends.insert(partition, offset.next());
                }
                Ok(Some(CommitStep::SendOffsets))
            }
            CommitStep::SendOffsets => {
                if !self.commit.offsets.is_empty() {
                    state.send_offsets(&self.session, &settings.application_id, &self.commit, now)?;
                }
                Ok(Some(CommitStep::Commit))
            }
            CommitStep::Commit => {
                state.end_transaction(&self.session, true, self.markers, now)?;
                Ok(Some(CommitStep::Reply))
            }
            CommitStep::Reply => Ok(None),
        }
    }

    /// `None`: the transaction goes on, perhaps later.
    fn strike(&mut self, fault: Fault, state: &mut State, settings: &ClientSettings, now: Duration) -> Option<CommitOutcome> {
        let lost = || CommitOutcome::Unknown {
            reason: format!("injected: no reply after {:?}", self.step),
        };
        match fault {
            Fault::Refuse(_) if self.step == CommitStep::Reply => Some(lost()),
            Fault::Refuse(cause) => Some(self.abort(state, now, cause, format!("injected: refused before {:?}", self.step))),
            Fault::LoseReply => Some(lost()),
            Fault::Fence => {
                state.fence(&settings.transactional_id);
                Some(CommitOutcome::Fenced {
                    reason: format!("injected: fenced before {:?}", self.step),
                })
            }
            Fault::Wait(time) => {
                self.resume_at = now.saturating_add(time);
                None
            }
            Fault::DelayMarkers(time) => {
                self.markers = Markers::LogsAfter(time);
                None
            }
            Fault::ScatterMarkers(time) => {
                self.markers = Markers::Within(time);
                None
            }
            Fault::Duplicate => {
                self.twice = true;
                None
            }
            Fault::Stray(time) => {
                if self.step == CommitStep::Commit {
                    state.commit_later(&self.session, now.saturating_add(time));
                }
                Some(lost())
            }
        }
    }

    fn abort(&self, state: &mut State, now: Duration, cause: AbortCause, reason: String) -> CommitOutcome {
        match state.end_transaction(&self.session, false, Markers::AtOnce, now) {
            Ok(()) => CommitOutcome::Aborted { reason, cause },
            Err(Refusal::Fenced(reason)) => CommitOutcome::Fenced { reason },
            Err(Refusal::Abort(..) | Refusal::Concurrent) => CommitOutcome::Unknown { reason },
        }
    }
}
