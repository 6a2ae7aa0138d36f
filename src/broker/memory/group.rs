//! A consumer group as its coordinator sees it: members, generations, rebalances, offsets.
//!
//! ```text
//! Stable --a member joins, leaves, expires, gave partitions back; partitions were added--> Rebalancing
//!    ^                                                                                          |
//!    \------ every member has joined again: generation + 1, every member gets its share --------/
//! ```
//!
//! Invariants: a partition has one owner among the members; it is given to a new one only after the old one joined without it, or is gone.
//! Offsets of an open transaction are pending: whoever asks for stable offsets waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leeway_topology::ids::Partition;

use super::assignor::{Claim, assign};
use super::transactions::ProducerId;
use crate::broker::{CommittedOffset, GroupMetadata, TopicPartition};

/// How long a rebalance waits for a member that is alive but does not answer: Kafka's default of `max.poll.interval.ms`.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(300);

/// How partitions move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// Members keep what stays theirs and give back only what moves.
    #[default]
    Cooperative,
    /// Members give everything back before they join again.
    Eager,
}

/// One member.
pub(super) struct Member {
    topics: Vec<Arc<str>>,
    /// What it had when it joined.
    owned: BTreeSet<TopicPartition>,
    /// What it has to have in this generation.
    assignment: BTreeSet<TopicPartition>,
    /// Below 0 until the first rebalance it took part in.
    generation: i32,
    /// Whether it has joined the rebalance under way.
    joined: bool,
    /// When it last asked for events.
    seen: Duration,
}

/// A consumer group.
#[derive(Default)]
pub(super) struct Group {
    generation: i32,
    members: BTreeMap<String, Member>,
    members_made: u64,
    rebalancing_since: Option<Duration>,
    offsets: BTreeMap<TopicPartition, CommittedOffset>,
    pending: BTreeMap<TopicPartition, BTreeMap<ProducerId, CommittedOffset>>,
}

/// Why the group refuses a transaction's offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotAMember(pub(super) String);

impl Group {
    /// A member id that was never given before.
    pub(super) fn new_member_id(&mut self, client_id: &str) -> String {
        self.members_made += 1;
        format!("{client_id}-{:08}", self.members_made)
    }

    /// A member joins, or joins again with what it has. In a stable group this begins a rebalance.
    pub(super) fn join(&mut self, id: &str, topics: &[Arc<str>], owned: &BTreeSet<TopicPartition>, now: Duration) {
        self.rebalance(now);
        let generation = self.members.get(id).map_or(-1, |member| member.generation);
        let member = Member {
            topics: topics.to_vec(),
            owned: owned.clone(),
            assignment: BTreeSet::new(),
            generation,
            joined: true,
            seen: now,
        };
        self.members.insert(id.to_owned(), member);
    }

    /// Begins a rebalance, unless one is under way.
    pub(super) fn rebalance(&mut self, now: Duration) {
        if self.rebalancing_since.is_none() {
            self.rebalancing_since = Some(now);
            for member in self.members.values_mut() {
                member.joined = false;
            }
        }
    }

    /// Ends the rebalance if every member has joined. Says whether it did.
    pub(super) fn complete(&mut self, partitions_of: impl Fn(&str) -> i32) -> bool {
        if self.rebalancing_since.is_none() || self.members.values().any(|member| !member.joined) {
            return false;
        }
        self.rebalancing_since = None;
        self.generation += 1;
        let wanted = |member: &Member| {
            let all = |topic: &Arc<str>| {
                (0..partitions_of(topic))
                    .map(Partition)
                    .map(|partition| TopicPartition::new(topic.clone(), partition))
                    .collect::<Vec<_>>()
            };
            member.topics.iter().flat_map(all).collect()
        };
        let claims = self
            .members
            .iter()
            .map(|(id, member)| {
                (
                    id.as_str(),
                    Claim {
                        wanted: wanted(member),
                        owned: &member.owned,
                    },
                )
            })
            .collect();
        for (id, assignment) in assign(&claims) {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
                member.generation = self.generation;
            }
        }
        true
    }

    /// A sign of life. Says whether the group knows the member (still).
    pub(super) fn heartbeat(&mut self, id: &str, now: Duration) -> bool {
        self.members.get_mut(id).map(|member| member.seen = now).is_some()
    }

    /// The generation a member is in; `None`: no such member.
    pub(super) fn generation_of(&self, id: &str) -> Option<i32> {
        self.members.get(id).map(|member| member.generation)
    }

    /// A member's share, if its generation is later than `generation`.
    pub(super) fn assignment_after(&self, id: &str, generation: i32) -> Option<(i32, &BTreeSet<TopicPartition>)> {
        self.members
            .get(id)
            .filter(|member| member.generation > generation)
            .map(|member| (member.generation, &member.assignment))
    }

    /// Whether the rebalance under way waits for this member.
    pub(super) fn waits_for(&self, id: &str) -> bool {
        self.rebalancing_since.is_some() && self.members.get(id).is_some_and(|member| !member.joined)
    }

    /// Whether any member reads `topic`.
    pub(super) fn reads(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.topics.iter().any(|read| &**read == topic))
    }

    /// A member leaves.
    pub(super) fn leave(&mut self, id: &str, now: Duration) -> bool {
        let left = self.members.remove(id).is_some();
        if left {
            self.rebalance(now);
        }
        left
    }

    /// Removes members that were not heard of for the session time-out, or keep a rebalance waiting for too long. Says whether there were any.
    pub(super) fn expire(&mut self, session_timeout: Duration, now: Duration) -> bool {
        let overdue = self.rebalancing_since.is_some_and(|since| now.saturating_sub(since) > REBALANCE_TIMEOUT);
        let before = self.members.len();
        self.members
            .retain(|_, member| now.saturating_sub(member.seen) <= session_timeout && (member.joined || !overdue));
        let expired = self.members.len() < before;
        if expired {
            self.rebalance(now);
        }
        expired
    }

    /// The check of a transaction's offsets. Kafka skips it for metadata without a member; such metadata is stopped by the client.
    pub(super) fn check(&self, group: &GroupMetadata) -> Result<(), NotAMember> {
        match self.members.get(&group.member_id) {
            None => Err(NotAMember(format!("UNKNOWN_MEMBER_ID: {group:?} is not in the group"))),
            Some(_) if group.generation != self.generation => Err(NotAMember(format!(
                "ILLEGAL_GENERATION: {group:?} is not in the group's generation {}",
                self.generation
            ))),
            Some(_) => Ok(()),
        }
    }

    /// Offsets of an open transaction.
    pub(super) fn add_pending(&mut self, producer: ProducerId, offsets: impl IntoIterator<Item = (TopicPartition, CommittedOffset)>) {
        for (partition, offset) in offsets {
            self.pending.entry(partition).or_default().insert(producer, offset);
        }
    }

    /// The end of a transaction that sent offsets here.
    pub(super) fn end_transaction(&mut self, producer: ProducerId, committed: bool) {
        let Self { offsets, pending, .. } = self;
        pending.retain(|partition, by_producer| {
            if let Some(offset) = by_producer.remove(&producer).filter(|_| committed) {
                offsets.insert(partition.clone(), offset);
            }
            !by_producer.is_empty()
        });
    }

    /// Whether no open transaction has an offset of this partition.
    pub(super) fn is_stable(&self, partition: &TopicPartition) -> bool {
        !self.pending.contains_key(partition)
    }

    /// Forgets all offsets that no open transaction touches, if nobody is in the group.
    pub(super) fn expire_offsets(&mut self) -> bool {
        let Self {
            members, offsets, pending, ..
        } = self;
        let before = offsets.len();
        if members.is_empty() {
            offsets.retain(|partition, _| pending.contains_key(partition));
        }
        offsets.len() < before
    }

    /// Who is in it: the ids begin with the client ids.
    pub(super) fn member_ids(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Its offsets in a topic that is deleted.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.offsets.retain(|partition, _| &*partition.topic != topic);
    }

    /// Commits outside a transaction.
    pub(super) fn set_offset(&mut self, partition: TopicPartition, offset: CommittedOffset) {
        self.offsets.insert(partition, offset);
    }

    /// All sessions begin anew.
    pub(super) fn refresh(&mut self, now: Duration) {
        self.members.values_mut().for_each(|member| member.seen = now);
        self.rebalancing_since = self.rebalancing_since.map(|_| now);
    }

    pub(super) fn committed(&self, partition: &TopicPartition) -> Option<&CommittedOffset> {
        self.offsets.get(partition)
    }
}
