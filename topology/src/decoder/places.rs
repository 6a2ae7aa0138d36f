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
    /// The place of a field of the object that stands here.
    pub(super) fn field(&mut self, at: usize, name: RawText<'_>, record: u64) -> Option<usize> {
        let found = self.fields.find(at, name);
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
    /// For each field of the object, in order, the one that stood there last: its place, or [`NOWHERE`].
    expected: Vec<(String, usize)>,
}

const NOWHERE: usize = usize::MAX;

/// Fields of an object that are guessed at.
const EXPECTED_MAX: usize = 256;

impl Names {
    fn add(&mut self, name: &str, place: usize) {
        self.by_name.insert(name.to_owned(), place);
        self.expected.clear();
    }

    fn find(&mut self, at: usize, name: RawText<'_>) -> usize {
        let name = name.content();
        match self.expected.get_mut(at) {
            Some((text, place)) if *text == name => return *place,
            Some((text, place)) => {
                *place = self.by_name.get(&*name).copied().unwrap_or(NOWHERE);
                text.clear();
                text.push_str(&name);
                return *place;
            }
            None => {}
        }
        let place = self.by_name.get(&*name).copied().unwrap_or(NOWHERE);
        if at == self.expected.len() && at < EXPECTED_MAX {
            self.expected.push((name.into_owned(), place));
        }
        place
    }
}
