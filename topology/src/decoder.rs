//! From a record's value straight to bins, times and texts, for all monitors of a topic in one pass.
//!
//! ```text
//! places, a tree from the record down:  record ─ "age"                   takers: feature 0 of the row
//!                                              └ "items" ─ 0 ─ "plan"    takers: feature 1 of the row, text 0
//! ```
//!
//! - What is to be taken is a tree of places, and at each place takers: a feature of the row, a time, a text. The scan goes down that tree and
//!   nowhere else.
//! - Fields are found by a guess first: producers write their fields in the same order and form, so what stood between two values last time is compared
//!   with what stands there now, and if it is the same the name is not even looked for. A wrong guess costs one comparison.
//! - Of duplicate fields the last counts, on every level: a value at a place makes forget what was taken below it before.
//! - No record allocates, once the buffers have grown; but for a name, or a category, with escapes in it.

mod places;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::places::{Place, RECORD, Taker};
use crate::binning::{Bins, decimal, write_category_of_number};
use crate::event_time;
use crate::field::{Field, Pointer};
use crate::ids::Timestamp;
use crate::json::{RawText, Scalar, Visitor, scan};
use crate::quality::beginning;
use crate::record::{Missing, Observation, Rejected};
use crate::reference::{FeatureReference, Reference};

/// Decodes values to observations, times and texts. Bounded by what it is to take.
pub struct Decoder {
    /// The first is the record.
    places: Vec<Place>,
    /// Of each feature in the row.
    bins: Vec<Bins>,
    /// What a record without any of the fields says: the row to begin with.
    absent: Vec<Observation>,
    /// What the last record said; `None`: nothing that is a time.
    times: Vec<Option<Timestamp>>,
    texts: Vec<Text>,
    watched: Vec<WatchedValue>,
    /// Records so far.
    records: u64,
}

/// The last record's value of a feature, if it was in `other`.
#[derive(Default)]
pub struct WatchedValue {
    /// The feature's index in the row.
    feature: usize,
    /// The bin `other` of that feature.
    other: u32,
    text: Text,
}

/// A text of the last record, in a buffer that stays.
#[derive(Default)]
struct Text {
    text: String,
    is_there: bool,
}

impl Decoder {
    /// A decoder whose rows are the features of all references, one reference after the other, each the top-level field of its name.
    pub fn new<'a>(references: impl IntoIterator<Item = &'a Reference>) -> Self {
        let at_the_top = BTreeMap::new();
        references
            .into_iter()
            .fold(Self::empty(), |decoder, reference| decoder.with_features(reference, &at_the_top))
    }

    /// A decoder that takes nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            places: vec![Place::default()],
            bins: Vec::new(),
            absent: Vec::new(),
            times: Vec::new(),
            texts: Vec::new(),
            watched: Vec::new(),
            records: 0,
        }
    }

    /// The same, with rows that go on with the features of this reference, each from its path, or the top-level field of its name if it has none.
    #[must_use]
    pub fn with_features(self, reference: &Reference, paths: &BTreeMap<String, Pointer>) -> Self {
        self.with_watched_features(reference, paths, [])
    }

    /// As [`Self::with_features`], and keeps the values in `other` of some of them: `watched` are their indices in the reference, ascending.
    #[must_use]
    pub fn with_watched_features(
        mut self,
        reference: &Reference,
        paths: &BTreeMap<String, Pointer>,
        watched: impl IntoIterator<Item = usize>,
    ) -> Self {
        let mut watched = watched.into_iter().peekable();
        for (index, feature) in reference.features().iter().enumerate() {
            let at = self.absent.len();
            let missing = feature.bins().missing(Missing::Absent);
            self.absent.push(missing);
            self.bins.push(feature.bins().clone());
            self.take_feature(feature, paths, Taker::Feature(at));
            if watched.next_if_eq(&index).is_some() {
                let taker = Taker::Watched(self.watched.len());
                self.watched.push(WatchedValue {
                    feature: at,
                    // What stands before missing.
                    other: missing.bin.saturating_sub(1),
                    text: Text::default(),
                });
                self.take_feature(feature, paths, taker);
            }
        }
        self
    }

    fn take_feature(&mut self, feature: &FeatureReference, paths: &BTreeMap<String, Pointer>, taker: Taker) {
        match paths.get(&**feature.name()) {
            Some(path) => self.take(path.tokens(), taker),
            None => self.take([feature.name().to_string()], taker),
        }
    }

    /// The same, and reads times of these fields.
    #[must_use]
    pub fn with_times<'a>(mut self, fields: impl IntoIterator<Item = &'a Field>) -> Self {
        for field in fields {
            let taker = Taker::Time(self.times.len());
            self.times.push(None);
            self.take(field.tokens(), taker);
        }
        self
    }

    /// The same, and reads texts of these fields.
    #[must_use]
    pub fn with_texts<'a>(mut self, fields: impl IntoIterator<Item = &'a Field>) -> Self {
        for field in fields {
            let taker = Taker::Text(self.texts.len());
            self.texts.push(Text::default());
            self.take(field.tokens(), taker);
        }
        self
    }

    fn take(&mut self, path: impl IntoIterator<Item = String>, taker: Taker) {
        places::take(&mut self.places, path, taker);
    }

    /// The times that the last record's fields said, in the order in which they were asked for.
    #[must_use]
    pub fn times(&self) -> &[Option<Timestamp>] {
        &self.times
    }

    /// The texts that the last record's fields said, in the order in which they were asked for: strings, booleans as `true` and `false`, and
    /// integral numbers within 2^53 by their decimal text, as categorical features take them. `None`: absent, null or anything else.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = Option<&str>> {
        self.texts.iter().map(|text| text.is_there.then_some(&*text.text))
    }

    /// What the last record has in `other`, of the watched features of all references, in their order.
    #[must_use]
    pub fn watched_values(&self) -> &[WatchedValue] {
        &self.watched
    }

    /// Decodes one value. On success `row` holds one observation per feature.
    ///
    /// # Errors
    /// When the value is no JSON object; the content of `row`, and times and texts, mean nothing then.
    pub fn decode(&mut self, value: &[u8], row: &mut Vec<Observation>) -> Result<(), Rejected> {
        row.clear();
        row.extend_from_slice(&self.absent);
        self.times.fill(None);
        self.texts.iter_mut().for_each(|text| text.is_there = false);
        self.watched.iter_mut().for_each(|value| value.text.is_there = false);
        self.records += 1;
        let mut visit = Visit {
            places: &mut self.places,
            record: self.records,
            taken: Row {
                bins: &self.bins,
                absent: &self.absent,
                row,
                times: &mut self.times,
                texts: &mut self.texts,
                watched: &mut self.watched,
            },
        };
        scan(value, RECORD, &mut visit)
    }
}

/// Picks the values at paths, as they stand there: for who makes cells of them, not observations.
pub struct Picker {
    /// The first is the record. What a taker is told to take is at the index of its path.
    places: Vec<Place>,
    paths: usize,
    /// Records so far.
    records: u64,
}

impl Picker {
    /// A picker of what stands at these paths.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Pointer>) -> Self {
        let mut places = vec![Place::default()];
        let mut count = 0;
        for path in paths {
            places::take(&mut places, path.tokens(), Taker::Text(count));
            count += 1;
        }
        Self {
            places,
            paths: count,
            records: 0,
        }
    }

    /// The values of one record, in the order of the paths; `None` where one leads nowhere.
    ///
    /// # Errors
    /// When the value is no JSON object.
    pub fn pick<'a>(&mut self, value: &'a [u8]) -> Result<Vec<Option<Scalar<'a>>>, Rejected> {
        self.records += 1;
        let mut visit = Visit {
            places: &mut self.places,
            record: self.records,
            taken: vec![None; self.paths],
        };
        scan(value, RECORD, &mut visit)?;
        Ok(visit.taken)
    }
}

/// One record being decoded.
struct Visit<'d, T> {
    places: &'d mut [Place],
    record: u64,
    taken: T,
}

/// What is taken of one record.
trait Taken<'a> {
    fn take(&mut self, taker: Taker, scalar: Scalar<'a>);

    /// As if nothing had been taken.
    fn forget(&mut self, taker: Taker);
}

impl<'a, T: Taken<'a>> Visitor<'a> for Visit<'_, T> {
    type Place = usize;

    fn field(&mut self, object: usize, at: usize, name: RawText<'a>, before: &'a str) -> Option<usize> {
        self.places[object].field(at, name, before, self.record)
    }

    fn guess(&mut self, object: usize, at: usize, rest: &[u8]) -> Option<(usize, Option<usize>)> {
        self.places[object].guess(at, rest, self.record)
    }

    fn item(&mut self, array: usize, index: usize) -> Option<usize> {
        self.places[array].item(index, self.record)
    }

    #[inline(always)]
    fn value(&mut self, place: usize, scalar: Scalar<'a>) {
        let place = &mut self.places[place];
        if place.forgets(self.record) {
            place.below.iter().for_each(|taker| self.taken.forget(*taker));
        }
        for taker in &place.takers {
            self.taken.take(*taker, scalar);
        }
    }

    fn looks_inside(&self, place: usize) -> bool {
        !self.places[place].below.is_empty()
    }
}

/// Values as they stand there, by path.
impl<'a> Taken<'a> for Vec<Option<Scalar<'a>>> {
    fn take(&mut self, taker: Taker, scalar: Scalar<'a>) {
        let (Taker::Feature(at) | Taker::Time(at) | Taker::Text(at) | Taker::Watched(at)) = taker;
        self[at] = Some(scalar);
    }

    fn forget(&mut self, taker: Taker) {
        let (Taker::Feature(at) | Taker::Time(at) | Taker::Text(at) | Taker::Watched(at)) = taker;
        self[at] = None;
    }
}

/// What was taken of a record so far.
struct Row<'d> {
    bins: &'d [Bins],
    absent: &'d [Observation],
    row: &'d mut [Observation],
    times: &'d mut [Option<Timestamp>],
    texts: &'d mut [Text],
    watched: &'d mut [WatchedValue],
}

impl<'a> Taken<'a> for Row<'_> {
    #[inline(always)]
    fn take(&mut self, taker: Taker, scalar: Scalar<'a>) {
        match (taker, scalar) {
            // Nearly all: the others stand elsewhere, so that this one stays short.
            (Taker::Feature(at), Scalar::Number(number)) => self.row[at] = self.bins[at].observe_number(number.value()),
            _ => self.take_other(taker, scalar),
        }
    }

    fn forget(&mut self, taker: Taker) {
        match taker {
            Taker::Feature(at) => self.row[at] = self.absent[at],
            Taker::Time(at) => self.times[at] = None,
            Taker::Text(at) => self.texts[at].is_there = false,
            Taker::Watched(at) => self.watched[at].text.is_there = false,
        }
    }
}

impl Row<'_> {
    #[inline(never)]
    fn take_other(&mut self, taker: Taker, scalar: Scalar<'_>) {
        match taker {
            Taker::Feature(at) => self.row[at] = observe(&self.bins[at], scalar),
            Taker::Time(at) => self.times[at] = event_time::read(&scalar),
            Taker::Text(at) => self.texts[at].take(scalar),
            Taker::Watched(at) => {
                let value = &mut self.watched[at];
                let is_other = self.row[value.feature].bin == value.other;
                value.text.is_there = is_other && value.text.take_beginning(scalar);
            }
        }
    }
}

impl Text {
    fn take(&mut self, scalar: Scalar<'_>) {
        self.text.clear();
        self.is_there = match scalar {
            Scalar::Text(text) => {
                text.append_to(&mut self.text);
                true
            }
            Scalar::Bool(value) => {
                self.text.push_str(if value { "true" } else { "false" });
                true
            }
            Scalar::Number(number) => write_category_of_number(number.value(), &mut self.text),
            Scalar::Null | Scalar::Nested => false,
        };
    }

    /// Takes as much as an example may have of a value that a feature takes: also numbers that are no category, as decimals. Says whether it is one.
    fn take_beginning(&mut self, scalar: Scalar<'_>) -> bool {
        match scalar {
            Scalar::Text(text) => {
                self.text.clear();
                self.text.push_str(beginning(&text.content()));
            }
            Scalar::Number(number) => {
                self.text.clear();
                let number = number.value();
                if !write_category_of_number(number, &mut self.text) {
                    self.text.push_str(&decimal(number));
                }
            }
            Scalar::Bool(_) => self.take(scalar),
            Scalar::Null | Scalar::Nested => return false,
        }
        true
    }
}

impl WatchedValue {
    /// The value, no longer than an example may be; `None`: it was missing, or has a bin of its own.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        self.text.is_there.then_some(&*self.text.text)
    }
}

/// What one field says of one feature.
fn observe(bins: &Bins, scalar: Scalar<'_>) -> Observation {
    match scalar {
        Scalar::Null => bins.missing(Missing::Null),
        Scalar::Bool(value) => bins.observe_bool(value),
        Scalar::Number(number) => bins.observe_number(number.value()),
        Scalar::Text(text) => bins.observe_text(&text.content()),
        Scalar::Nested => bins.missing(Missing::Type),
    }
}
