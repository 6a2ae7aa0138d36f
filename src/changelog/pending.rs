//! Changelog records that wait until they are written, one after another in blocks of memory: no allocation for each.
//!
//! ```text
//! record --push--> blocks, in the changelog's order --latest--> the last one of each key, in key order --> store, forget
//! ```

use std::cmp::Ordering;

use crate::state::store::KeyChange;

/// Large enough for many records, and small enough for the allocator to keep it for the next one.
const BLOCK_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Each has room for [`BLOCK_BYTES`], or is one record that is larger.
    blocks: Vec<Vec<u8>>,
    places: Vec<Place>,
    bytes: usize,
}

/// Where a record stands. Kafka's lengths have 32 bits; there are as many of these as records, and a smaller one leaves room for more of them.
#[derive(Debug)]
struct Place {
    block: u32,
    start: u32,
    key_end: u32,
    /// [`TOMBSTONE`]: there is no value.
    end: u32,
}

const TOMBSTONE: u32 = u32::MAX;

impl Pending {
    pub(super) fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        if self.blocks.last().is_none_or(|block| block.capacity() - block.len() < bytes) {
            self.blocks.push(Vec::with_capacity(bytes.max(BLOCK_BYTES)));
        }
        self.bytes += bytes + size_of::<Place>();
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        let start = block.len();
        block.extend_from_slice(key);
        let key_end = block.len();
        block.extend_from_slice(value.unwrap_or_default());
        self.places.push(Place {
            block: number as u32,
            start: start as u32,
            key_end: key_end as u32,
            end: value.map_or(TOMBSTONE, |_| block.len() as u32),
        });
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of the first so many records the last one of each key, by key. Values are whole, so what came before it means nothing.
    pub(super) fn latest(&self, records: usize) -> impl Iterator<Item = KeyChange<'_>> {
        let mut ordered = self.order(records).into_iter().peekable();
        std::iter::from_fn(move || {
            let mut latest = ordered.next()?;
            while let Some(next) = ordered.next_if(|next| self.by_key(next, &latest).is_eq()) {
                latest = next;
            }
            Some((self.key(latest.record), self.value(latest.record)))
        })
    }

    /// The first so many records by key, those of one key in the changelog's order. Keys are read in the changelog's order, once: to look at them whenever two
    /// are compared, in any order, takes longer than everything else.
    fn order(&self, records: usize) -> Vec<Ordered> {
        let alike = self.alike(records);
        let of = |record| Ordered {
            digest: Digest::of(self.key(record), &alike),
            record,
        };
        let mut order: Vec<Ordered> = (0..records).map(of).collect();
        order.sort_unstable_by(|one, other| self.by_key(one, other).then(one.record.cmp(&other.record)));
        order
    }

    fn by_key(&self, one: &Ordered, other: &Ordered) -> Ordering {
        one.digest.cmp(&other.digest).then_with(|| {
            if one.digest.is_whole() {
                Ordering::Equal
            } else {
                self.key(one.record).cmp(self.key(other.record))
            }
        })
    }

    /// How many bytes all keys of a kind, that is of a first byte, begin with alike.
    fn alike(&self, records: usize) -> [usize; KINDS] {
        let mut first: [Option<&[u8]>; KINDS] = [None; KINDS];
        let mut alike = [0; KINDS];
        for key in (0..records).map(|record| self.key(record)) {
            let kind = kind(key);
            let first = *first[kind].get_or_insert_with(|| {
                alike[kind] = key.len();
                key
            });
            if !key.starts_with(&first[..alike[kind]]) {
                alike[kind] = std::iter::zip(first, key).take_while(|(one, other)| one == other).count();
            }
        }
        alike
    }

    fn key(&self, record: usize) -> &[u8] {
        let place = &self.places[record];
        &self.blocks[place.block as usize][place.start as usize..place.key_end as usize]
    }

    fn value(&self, record: usize) -> Option<&[u8]> {
        let place = &self.places[record];
        (place.end != TOMBSTONE).then(|| &self.blocks[place.block as usize][place.key_end as usize..place.end as usize])
    }

    /// Drops the first so many records and their memory: what follows may be long in coming.
    pub(super) fn forget(&mut self, records: usize) {
        if records == 0 {
            return;
        }
        let all = std::mem::take(self);
        for record in records..all.len() {
            self.push(all.key(record), all.value(record));
        }
    }
}

/// Kinds of keys: their first bytes.
const KINDS: usize = 1 << u8::BITS;

fn kind(key: &[u8]) -> usize {
    key.first().copied().unwrap_or_default().into()
}

/// A record in the order of keys.
struct Ordered {
    digest: Digest,
    record: usize,
}

/// What a key is compared by: its kind, the first bytes after those that all keys of its kind begin with, and how many there were. In the order of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Digest(u128);

impl Digest {
    /// There were more bytes than it has room for.
    const CUT: u8 = u8::MAX;

    fn of(key: &[u8], alike: &[usize; KINDS]) -> Self {
        let rest = &key[alike[kind(key)]..];
        let mut bytes = [0; 16];
        let [first, body @ .., last] = &mut bytes;
        *first = key.first().copied().unwrap_or_default();
        *last = u8::try_from(rest.len())
            .ok()
            .filter(|length| usize::from(*length) <= body.len())
            .unwrap_or(Self::CUT);
        std::iter::zip(body, rest).for_each(|(byte, of_key)| *byte = *of_key);
        Self(u128::from_be_bytes(bytes))
    }

    /// Whether nobody but the same key has it.
    fn is_whole(self) -> bool {
        self.0.to_be_bytes()[15] != Self::CUT
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// Keys of few kinds, lengths and bytes, so that many are equal, begin each other, or differ only where a digest is cut.
    fn any_key(random: &mut StdRng) -> Vec<u8> {
        let kind = [&b""[..], b"\0", b"\x02monitor", b"\x02monitor\0\0", b"\xFF"][random.random_range(0..5)];
        let body: Vec<u8> = (0..random.random_range(0..20)).map(|_| [0, 1, 0xFF][random.random_range(0..3)]).collect();
        let body = if random.random_bool(0.5) { vec![7; body.len()] } else { body };
        [kind, &body].concat()
    }

    #[test]
    fn latest_are_those_of_a_sorted_map_and_what_is_not_forgotten_stays() {
        for seed in 0..200 {
            println!("seed {seed}");
            let mut random = StdRng::seed_from_u64(seed);
            let records: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..random.random_range(0..300))
                .map(|number: u32| (any_key(&mut random), random.random_bool(0.8).then(|| number.to_be_bytes().to_vec())))
                .collect();
            let mut pending = Pending::default();
            records.iter().for_each(|(key, value)| pending.push(key, value.as_deref()));
            let (first, rest) = records.split_at(random.random_range(0..=records.len()));
            for part in [first, rest] {
                let expected: BTreeMap<&[u8], Option<&[u8]>> = part.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
                assert_eq!(pending.latest(part.len()).collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
                pending.forget(part.len());
            }
        }
    }

    #[test]
    fn record_larger_than_a_block_is_held_too() {
        let mut pending = Pending::default();
        let large = vec![1; 3 * BLOCK_BYTES];
        for (key, value) in [(b"b", &large[..]), (b"a", b"small"), (b"c", &large[1..])] {
            pending.push(key, Some(value));
        }
        assert!(pending.bytes() >= 6 * BLOCK_BYTES);
        let latest: Vec<_> = pending.latest(3).map(|(key, value)| (key, value.map(<[u8]>::len))).collect();
        assert_eq!(
            latest,
            [(&b"a"[..], Some(5)), (b"b", Some(3 * BLOCK_BYTES)), (b"c", Some(3 * BLOCK_BYTES - 1))]
        );
        pending.forget(3);
        assert_eq!((pending.len(), pending.bytes()), (0, 0));
    }
}
