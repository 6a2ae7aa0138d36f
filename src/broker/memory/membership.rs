//! A client's side of the group: joins, answers, and finds out that it was left behind.
//!
//! ```text
//! out --join--> waiting for a share --> Assigned --assign()--> member
//!  ^                                      ^                     | share without some of what it has
//!  |                                      \--join again--- Revoked --unassign()--/
//!  \--unassign()-- Revoked{lost} <-- the group does not know the member any more
//! ```
//!
//! Invariants: one rebalance event is unanswered at a time, and nothing is joined meanwhile; what it says it has is what it was given and has
//! not given back.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::group::RebalanceProtocol;
use super::state::State;
use crate::broker::{ClientEvent, ClientSettings, GroupMetadata, TopicPartition};

/// The answer that is waited for.
enum Awaited {
    Nothing,
    /// The partitions that `assign` has to name.
    Assign(Vec<TopicPartition>),
    /// The partitions that `unassign` has to name; what is assigned afterwards.
    Unassign {
        revoked: BTreeSet<TopicPartition>,
        then: Vec<TopicPartition>,
    },
    /// Everything is lost already.
    UnassignLost,
}

/// See the module.
pub(super) struct Membership {
    topics: Vec<Arc<str>>,
    member_id: String,
    /// The last generation that it heard of.
    generation: i32,
    /// The last generation whose share it took.
    synced: i32,
    owned: BTreeSet<TopicPartition>,
    awaited: Awaited,
    join_again: bool,
}

impl Membership {
    pub(super) fn new() -> Self {
        let (topics, member_id, owned) = (Vec::new(), String::new(), BTreeSet::new());
        Self {
            topics,
            member_id,
            generation: -1,
            synced: -1,
            owned,
            awaited: Awaited::Nothing,
            join_again: false,
        }
    }

    pub(super) fn subscribe(&mut self, topics: &[Arc<str>]) {
        self.topics = topics.to_vec();
        self.join_again = true;
    }

    pub(super) fn owns(&self, partition: &TopicPartition) -> bool {
        self.owned.contains(partition)
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.awaited, Awaited::UnassignLost)
    }

    /// Sends a sign of life and goes one step on; queues what the thread has to answer.
    pub(super) fn serve(&mut self, state: &mut State, settings: &ClientSettings, now: Duration, events: &mut VecDeque<ClientEvent>) {
        if self.topics.is_empty() {
            return;
        }
        let group_id = &settings.application_id;
        let group = state.groups.entry(group_id.clone()).or_default();
        if !self.member_id.is_empty() && !group.heartbeat(&self.member_id, now) {
            self.lose(events);
        }
        if !matches!(self.awaited, Awaited::Nothing) {
            return;
        }
        if self.take_share(state, group_id, events) {
            return;
        }
        let Some(group) = state.groups.get_mut(group_id) else { return };
        if self.member_id.is_empty() {
            self.member_id = group.new_member_id(&settings.client_id);
            self.join_again = true;
        }
        if self.join_again || group.waits_for(&self.member_id) {
            if state.protocol == RebalanceProtocol::Eager && !self.owned.is_empty() {
                self.give_everything_back(events);
                return;
            }
            self.join_again = false;
            group.join(&self.member_id, &self.topics, &self.owned, now);
            state.complete_rebalance(group_id);
            self.take_share(state, group_id, events);
        }
    }

    /// What the thread accepts. It is told at once that partitions are lost which are not given to it (any more).
    pub(super) fn assign(&mut self, partitions: &[TopicPartition], events: &mut VecDeque<ClientEvent>) {
        let given = if let Awaited::Assign(given) = &self.awaited {
            given.as_slice()
        } else {
            &[]
        };
        let (accepted, lost): (Vec<_>, Vec<_>) = partitions.iter().cloned().partition(|partition| given.contains(partition));
        let complete = given.iter().all(|partition| accepted.contains(partition));
        self.owned.extend(accepted);
        if complete && matches!(self.awaited, Awaited::Assign(_)) {
            self.awaited = Awaited::Nothing;
        }
        if !lost.is_empty() {
            events.push_back(ClientEvent::Revoked {
                partitions: lost,
                lost: true,
            });
        }
    }

    /// What the thread gives back. The group hears of it when this member joins again.
    pub(super) fn unassign(&mut self, partitions: &[TopicPartition], events: &mut VecDeque<ClientEvent>) {
        for partition in partitions {
            self.owned.remove(partition);
        }
        match &mut self.awaited {
            Awaited::Unassign { revoked, then } if revoked.iter().all(|partition| !self.owned.contains(partition)) => {
                let then = std::mem::take(then);
                self.join_again = true;
                self.awaited = Awaited::Nothing;
                if !then.is_empty() {
                    self.awaited = Awaited::Assign(then.clone());
                    events.push_back(ClientEvent::Assigned(then));
                }
            }
            Awaited::UnassignLost if self.owned.is_empty() => self.awaited = Awaited::Nothing,
            Awaited::Nothing | Awaited::Assign(_) | Awaited::Unassign { .. } | Awaited::UnassignLost => {}
        }
    }

    /// Who this member is: as in librdkafka, whose own thread sends the heartbeats, a new generation or the loss of the membership is known here
    /// before its event was served.
    pub(super) fn metadata(&mut self, state: &State, group_id: &str) -> GroupMetadata {
        if !state.is_up() {
            // What it heard last.
            return GroupMetadata {
                member_id: self.member_id.clone(),
                generation: self.generation,
                token: Arc::new(()),
            };
        }
        let generation = state.groups.get(group_id).and_then(|group| group.generation_of(&self.member_id));
        if let Some(generation) = generation {
            self.generation = generation;
        }
        let member_id = if generation.is_some() { self.member_id.clone() } else { String::new() };
        GroupMetadata {
            member_id,
            generation: generation.unwrap_or(-1),
            token: Arc::new(()),
        }
    }

    /// Leaves the group for good.
    pub(super) fn close(&mut self, state: &mut State, group_id: &str, now: Duration) {
        if state.is_up() && state.groups.get_mut(group_id).is_some_and(|group| group.leave(&self.member_id, now)) {
            state.complete_rebalance(group_id);
        }
        *self = Self::new();
    }

    /// As the eager protocol asks before each join.
    fn give_everything_back(&mut self, events: &mut VecDeque<ClientEvent>) {
        events.push_back(ClientEvent::Revoked {
            partitions: self.owned.iter().cloned().collect(),
            lost: false,
        });
        self.awaited = Awaited::Unassign {
            revoked: self.owned.clone(),
            then: Vec::new(),
        };
    }

    /// The group went on without this member.
    fn lose(&mut self, events: &mut VecDeque<ClientEvent>) {
        events.retain(|event| !matches!(event, ClientEvent::Assigned(_) | ClientEvent::Revoked { .. }));
        (self.member_id, self.generation, self.synced) = (String::new(), -1, -1);
        self.awaited = if self.owned.is_empty() {
            Awaited::Nothing
        } else {
            events.push_back(ClientEvent::Revoked {
                partitions: self.owned.iter().cloned().collect(),
                lost: true,
            });
            Awaited::UnassignLost
        };
    }

    /// Takes this member's share of a new generation, if there is one. What is to be given back comes first, what is new after it; a share without
    /// change is told too, so that the thread learns of the generation.
    fn take_share(&mut self, state: &State, group_id: &str, events: &mut VecDeque<ClientEvent>) -> bool {
        let share = state
            .groups
            .get(group_id)
            .and_then(|group| group.assignment_after(&self.member_id, self.synced));
        let Some((generation, assignment)) = share else { return false };
        (self.synced, self.generation) = (generation, generation);
        let revoked: BTreeSet<_> = self.owned.difference(assignment).cloned().collect();
        let added: Vec<_> = assignment.difference(&self.owned).cloned().collect();
        if revoked.is_empty() {
            self.awaited = Awaited::Assign(added.clone());
            events.push_back(ClientEvent::Assigned(added));
        } else {
            events.push_back(ClientEvent::Revoked {
                partitions: revoked.iter().cloned().collect(),
                lost: false,
            });
            self.awaited = Awaited::Unassign { revoked, then: added };
        }
        true
    }
}
