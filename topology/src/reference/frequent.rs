//! The most frequent of more texts than memory holds: the counters of Misra and Gries, *Finding Repeated Elements* (1982), with as many counters as
//! there is room for.
//!
//! Texts are counted, exactly, until somebody says that they take too much. Then half of them go: the median count is taken off every count, and
//! what is down to nothing is forgotten. Each such step errs by that median, which is known: a text that is not there any more was seen at most
//! [`FrequentTexts::error`] times. Since a step takes at least `counters / 2` times its median off all counts together, that is at most
//! `2n / counters`.

use std::collections::BTreeMap;

/// What a text takes in memory beside its bytes: its length and place, its count, its part of the tree, the allocator's own.
const OVERHEAD: usize = 64;

/// Counts of texts. Bounded by whoever calls [`Self::halve`].
#[derive(Clone, Debug, Default)]
pub(super) struct FrequentTexts {
    counts: BTreeMap<String, u64>,
    bytes: usize,
    seen: u64,
    error: u64,
}

impl FrequentTexts {
    /// Takes a text. Says by how many bytes it takes more memory now.
    pub(super) fn push(&mut self, text: &str) -> usize {
        self.seen += 1;
        if let Some(count) = self.counts.get_mut(text) {
            *count += 1;
            return 0;
        }
        self.counts.insert(text.to_owned(), 1);
        let bytes = text.len() + OVERHEAD;
        self.bytes += bytes;
        bytes
    }

    /// Forgets the less frequent texts, until what is left takes half of the memory at most.
    pub(super) fn halve(&mut self) {
        let goal = self.bytes / 2;
        while self.bytes > goal {
            let mut counts: Vec<u64> = self.counts.values().copied().collect();
            let middle = (counts.len() - 1) / 2;
            let (_, median, _) = counts.select_nth_unstable(middle);
            let median = *median;
            self.error += median;
            self.counts.retain(|text, count| {
                *count = count.saturating_sub(median);
                if *count == 0 {
                    self.bytes -= text.len() + OVERHEAD;
                }
                *count > 0
            });
        }
    }

    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Texts that were taken.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// How often a text may have been seen that is not there; and by how much a count may be too low. 0: all is exact.
    pub(super) fn error(&self) -> u64 {
        self.error
    }

    /// The texts and their counts.
    pub(super) fn into_counts(self) -> BTreeMap<String, u64> {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_too_low_by_no_more_than_the_error_and_it_is_within_its_bound(
            texts in prop::collection::vec((0..40_u32, 0..40_u32).prop_map(|(a, b)| a * b), 1..2000),
            room in 4..30_usize,
        ) {
            let room = room * (OVERHEAD + 4);
            let (mut frequent, mut exact) = (FrequentTexts::default(), BTreeMap::<String, u64>::new());
            for text in &texts {
                let text = format!("{text:04}");
                frequent.push(&text);
                *exact.entry(text).or_insert(0) += 1;
                if frequent.bytes() > room {
                    frequent.halve();
                    prop_assert!(frequent.bytes() <= room / 2 + OVERHEAD + 4);
                }
            }
            prop_assert_eq!(frequent.seen(), texts.len() as u64);
            let error = frequent.error();
            let counters = (room / (OVERHEAD + 4)) as u64;
            prop_assert!(error * counters <= 2 * texts.len() as u64, "{} is more than 2 * {} / {}", error, texts.len(), counters);
            let counts = frequent.into_counts();
            for (text, count) in &exact {
                let found = counts.get(text).copied().unwrap_or(0);
                prop_assert!(found <= *count && count - found <= error, "{}: {} of {}", text, found, count);
            }
        }
    }

    #[test]
    fn what_is_frequent_stays_and_a_single_huge_text_may_go() {
        let mut frequent = FrequentTexts::default();
        for i in 0..1000 {
            frequent.push("often");
            frequent.push(&i.to_string());
        }
        frequent.halve();
        assert_eq!((frequent.error(), frequent.into_counts().get("often")), (1, Some(&999)));
        let mut frequent = FrequentTexts::default();
        frequent.push(&"x".repeat(1_000_000));
        frequent.halve();
        assert_eq!((frequent.bytes(), frequent.error(), frequent.seen()), (0, 1, 1));
    }
}
