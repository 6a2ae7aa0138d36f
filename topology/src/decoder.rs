//! From a record's value straight to bins, for all monitors of a topic in one pass.
//!
//! Fields are found by a guess first: producers write their fields in the same order, so the field after the one that was found last time at this
//! place is tried before the table. A wrong guess costs one comparison.

use std::collections::BTreeMap;

use crate::binning::Bins;
use crate::event_time;
use crate::ids::Timestamp;
use crate::json::{RawText, Scalar, scan_object};
use crate::record::{Missing, Observation, Rejected};
use crate::reference::Reference;

/// Decodes values to observations. Bounded by the features of its references.
pub struct Decoder {
    fields: Vec<Field>,
    by_name: BTreeMap<String, usize>,
    /// What a record without any of the fields says: the row to begin with.
    absent: Vec<Observation>,
    /// For each place in the record, the field that stood there last: an index, or [`NO_FIELD`].
    expected: Vec<(String, usize)>,
    /// What the fields with a time said in the last record; `None`: nothing that is one.
    times: Vec<Option<Timestamp>>,
}

/// A field, and what it feeds: places in the row, and places among the times.
#[derive(Default)]
struct Field {
    sinks: Vec<(usize, Bins)>,
    times: Vec<usize>,
}

const NO_FIELD: usize = usize::MAX;

/// Places of a record that are guessed at.
const EXPECTED_MAX: usize = 256;

impl Decoder {
    /// A decoder whose rows are the features of all references, one reference after the other.
    pub fn new<'a>(references: impl IntoIterator<Item = &'a Reference>) -> Self {
        let mut decoder = Self {
            fields: Vec::new(),
            by_name: BTreeMap::new(),
            absent: Vec::new(),
            expected: Vec::new(),
            times: Vec::new(),
        };
        for feature in references.into_iter().flat_map(Reference::features) {
            let place = decoder.absent.len();
            decoder.absent.push(feature.bins().missing(Missing::Absent));
            decoder.field(feature.name()).sinks.push((place, feature.bins().clone()));
        }
        decoder
    }

    /// The same, and reads times of these fields.
    #[must_use]
    pub fn with_times<'a>(mut self, fields: impl IntoIterator<Item = &'a str>) -> Self {
        for name in fields {
            let place = self.times.len();
            self.times.push(None);
            self.field(name).times.push(place);
        }
        self
    }

    /// The times that the last record's fields said, in the order in which they were asked for.
    #[must_use]
    pub fn times(&self) -> &[Option<Timestamp>] {
        &self.times
    }

    fn field(&mut self, name: &str) -> &mut Field {
        let index = *self.by_name.entry(name.to_owned()).or_insert_with(|| {
            self.fields.push(Field::default());
            self.fields.len() - 1
        });
        &mut self.fields[index]
    }

    /// Decodes one value. On success `row` holds one observation per feature.
    ///
    /// # Errors
    /// When the value is no JSON object; the content of `row` means nothing then.
    pub fn decode(&mut self, value: &[u8], row: &mut Vec<Observation>) -> Result<(), Rejected> {
        row.clear();
        row.extend_from_slice(&self.absent);
        self.times.fill(None);
        let Self {
            fields,
            by_name,
            expected,
            times,
            ..
        } = self;
        let mut place = 0;
        scan_object(value, |name, scalar| {
            let index = find(name, place, by_name, expected);
            place += 1;
            if let Some(field) = fields.get(index) {
                for (at, bins) in &field.sinks {
                    row[*at] = observe(bins, scalar);
                }
                for at in &field.times {
                    times[*at] = event_time::read(&scalar);
                }
            }
        })
    }
}

fn find(name: RawText<'_>, place: usize, by_name: &BTreeMap<String, usize>, expected: &mut Vec<(String, usize)>) -> usize {
    let name = name.content();
    match expected.get_mut(place) {
        Some((text, index)) if *text == name => return *index,
        Some((text, index)) => {
            *index = by_name.get(&*name).copied().unwrap_or(NO_FIELD);
            text.clear();
            text.push_str(&name);
            return *index;
        }
        None => {}
    }
    let index = by_name.get(&*name).copied().unwrap_or(NO_FIELD);
    if place == expected.len() && place < EXPECTED_MAX {
        expected.push((name.into_owned(), index));
    }
    index
}

/// What one field says of one feature.
fn observe(bins: &Bins, scalar: Scalar<'_>) -> Observation {
    match scalar {
        Scalar::Null => bins.missing(Missing::Null),
        Scalar::Bool(value) => bins.observe_bool(value),
        Scalar::Number(text) => bins.observe_number(text.parse().unwrap_or(f64::NAN)),
        Scalar::Text(text) => bins.observe_text(&text.content()),
        Scalar::Nested => bins.missing(Missing::Type),
    }
}
