//! The tree of places that something is wanted of.

use std::collections::BTreeMap;

use crate::field::array_index;
use crate::json::RawText;

/// The place of the record itself.
pub(super) const RECORD: usize = 0;

/// Where a value goes.
#[derive(Clone, Copy)]
pub(super) enum Taker {
    /// The feature at this index of the row.
    Feature(usize),
    /// The time at this index.
    Time(usize),
    /// The text at this index.
    Text(usize),
    /// The watched value at this index. It comes after its feature.
    Watched(usize),
}

/// A place, and what is wanted of it and below it. An object or an array may stand there: what is within is found by name, or by index.
#[derive(Default)]
pub(super) struct Place {
    /// Who takes the value that stands there.
    pub(super) takers: Vec<Taker>,
    /// Who takes a value at a place below. Nobody needs it of the record, which stands there once.
    pub(super) below: Vec<Taker>,
    fields: Names,
    items: BTreeMap<usize, usize>,
    /// The last record, counted from 1, in which a place below was found, and not forgotten since.
    found_in: u64,
}

/// Has the taker take what is at the end of the path, which has at least one step.
pub(super) fn take(places: &mut Vec<Place>, path: impl IntoIterator<Item = String>, taker: Taker) {
    let mut place = RECORD;
    let mut path = path.into_iter().peekable();
    while let Some(token) = path.next() {
        place = step(places, place, &token);
        let end = path.peek().is_none();
        let takers = if end { &mut places[place].takers } else { &mut places[place].below };
        takers.push(taker);
    }
}

/// The place one step below, made if it is not there.
fn step(places: &mut Vec<Place>, place: usize, token: &str) -> usize {
    if let Some(&known) = places[place].fields.by_name.get(token) {
        return known;
    }
    let new = places.len();
    places.push(Place::default());
    places[place].fields.add(token, new);
    if let Some(index) = array_index(token) {
        places[place].items.insert(index, new);
    }
    new
}

impl Place {
    /// The place of a field of the object that stands here, which comes `at`-th, after what stands `before` its value.
    pub(super) fn field(&mut self, at: usize, name: RawText<'_>, before: &str, record: u64) -> Option<usize> {
        let found = self.fields.find(at, name, before);
        self.note(found, record)
    }

    /// The same, if `rest` begins as it did at this field last time; and how long that is.
    #[inline]
    pub(super) fn guess(&mut self, at: usize, rest: &[u8], record: u64) -> Option<(usize, Option<usize>)> {
        let Expected { before, place } = self.fields.expected.get(at)?;
        let (length, found) = (before.length_at_start_of(rest)?, *place);
        Some((length, self.note(found, record)))
    }

    fn note(&mut self, found: usize, record: u64) -> Option<usize> {
        if found == NOWHERE {
            return None;
        }
        self.found_in = record;
        Some(found)
    }

    /// The place of an item of the array that stands here.
    pub(super) fn item(&mut self, index: usize, record: u64) -> Option<usize> {
        let found = self.items.get(&index).copied()?;
        self.found_in = record;
        Some(found)
    }

    /// Whether a value that comes now stands in for another one of this record, below which something was found: that is to be forgotten.
    pub(super) fn forgets(&mut self, record: u64) -> bool {
        let forgets = self.found_in == record;
        self.found_in = 0;
        forgets
    }
}

/// Names of the fields that are wanted of an object.
#[derive(Default)]
struct Names {
    by_name: BTreeMap<String, usize>,
    /// For each field of the object, in order, the one that stood there last.
    expected: Vec<Expected>,
}

/// A field that is guessed at.
struct Expected {
    /// All that stood between the value before it, or the opening bracket, and its value: a comma, its name, a colon, white space.
    before: Before,
    /// Its place, or [`NOWHERE`].
    place: usize,
}

const NOWHERE: usize = usize::MAX;

/// Fields of an object that are guessed at.
const EXPECTED_MAX: usize = 4_096;

/// Bytes that are compared for a guess.
const BEFORE_MAX: usize = 256;

impl Names {
    fn add(&mut self, name: &str, place: usize) {
        self.by_name.insert(name.to_owned(), place);
        self.expected.clear();
    }

    fn find(&mut self, at: usize, name: RawText<'_>, before: &str) -> usize {
        let place = self.by_name.get(&*name.content()).copied().unwrap_or(NOWHERE);
        if at == self.expected.len() && at < EXPECTED_MAX {
            self.expected.push(Expected {
                before: Before::default(),
                place,
            });
        }
        if let Some(expected) = self.expected.get_mut(at) {
            expected.place = place;
            expected.before.set(before.as_bytes());
        }
        place
    }
}

/// Bytes that are compared with the beginning of others: most are few, and compared as one integer.
#[derive(Default)]
struct Before {
    /// The first, up to as many as an integer has; zeros where there are fewer.
    head: u128,
    /// Ones where there are bytes in `head`.
    mask: u128,
    tail: Vec<u8>,
    /// 0: none are known, or they were too many to be worth it.
    length: usize,
}

const HEAD: usize = size_of::<u128>();

impl Before {
    fn set(&mut self, bytes: &[u8]) {
        self.tail.clear();
        self.length = if bytes.len() <= BEFORE_MAX { bytes.len() } else { 0 };
        let (head, tail) = bytes[..self.length].split_at(self.length.min(HEAD));
        let (mut padded, mut mask) = ([0; HEAD], [0; HEAD]);
        padded[..head.len()].copy_from_slice(head);
        mask[..head.len()].fill(0xFF);
        (self.head, self.mask) = (u128::from_le_bytes(padded), u128::from_le_bytes(mask));
        self.tail.extend_from_slice(tail);
    }

    /// How many they are, if `rest` begins with them. What is near the end of a record is never guessed.
    #[inline]
    fn length_at_start_of(&self, rest: &[u8]) -> Option<usize> {
        let (head, after) = rest.split_first_chunk()?;
        let same = (u128::from_le_bytes(*head) ^ self.head) & self.mask == 0 && self.length > 0;
        (same && (self.tail.is_empty() || after.starts_with(&self.tail))).then_some(self.length)
    }
}
