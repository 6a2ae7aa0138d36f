//! The assignor: balanced, sticky, cooperative.
//!
//! A partition stays with its owner as long as the numbers of partitions differ by no more than one. One that has to move is first taken from its
//! owner; it goes to the new one in the generation after it was given back.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::TopicPartition;

/// What a member brings to a rebalance.
pub(super) struct Claim<'a> {
    /// Partitions of the topics it subscribed to.
    pub(super) wanted: BTreeSet<TopicPartition>,
    /// Partitions it has.
    pub(super) owned: &'a BTreeSet<TopicPartition>,
}

/// Gives every member its partitions for the next generation.
pub(super) fn assign(claims: &BTreeMap<&str, Claim<'_>>) -> BTreeMap<String, BTreeSet<TopicPartition>> {
    let mut shares: BTreeMap<&str, BTreeSet<TopicPartition>> = claims
        .iter()
        .map(|(member, claim)| (*member, claim.owned.intersection(&claim.wanted).cloned().collect()))
        .collect();
    let all: BTreeSet<&TopicPartition> = claims.values().flat_map(|claim| &claim.wanted).collect();
    for partition in all {
        if shares.values().any(|share| share.contains(partition)) {
            continue;
        }
        let poorest = shares
            .iter_mut()
            .filter(|(member, _)| claims[*member].wanted.contains(partition))
            .min_by_key(|(_, share)| share.len());
        if let Some((_, share)) = poorest {
            share.insert(partition.clone());
        }
    }
    while let Some((from, to, partition)) = unfair(claims, &shares) {
        if let Some(share) = shares.get_mut(from) {
            share.remove(&partition);
        }
        if let Some(share) = shares.get_mut(to) {
            share.insert(partition);
        }
    }
    shares
        .into_iter()
        .map(|(member, mut share)| {
            share.retain(|partition| claims.iter().all(|(other, claim)| *other == member || !claim.owned.contains(partition)));
            (member.to_owned(), share)
        })
        .collect()
}

/// A partition whose move makes the shares more even. Each move makes the sum of squares smaller, so there is a last one.
fn unfair<'a>(
    claims: &BTreeMap<&'a str, Claim<'_>>,
    shares: &BTreeMap<&'a str, BTreeSet<TopicPartition>>,
) -> Option<(&'a str, &'a str, TopicPartition)> {
    let mut by_wealth: Vec<_> = shares.iter().map(|(member, share)| (share.len(), *member)).collect();
    by_wealth.sort_unstable();
    for (least, to) in &by_wealth {
        for (most, from) in by_wealth.iter().rev().take_while(|(most, _)| *most > least + 1) {
            debug_assert!(most > least);
            // One that `from` does not have yet costs no revocation.
            let movable = || shares[from].iter().rev().filter(|partition| claims[to].wanted.contains(*partition));
            if let Some(partition) = movable()
                .find(|partition| !claims[from].owned.contains(*partition))
                .or_else(|| movable().next())
            {
                return Some((from, to, partition.clone()));
            }
        }
    }
    None
}
