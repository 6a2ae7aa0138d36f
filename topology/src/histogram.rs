//! Histograms of all features of one monitor, in one flat block of integers.
//!
//! ```text
//! counts: [ feature 0: ordinary bins .. other? missing | below above ][ feature 1: .. missing | below above ] ..
//!           ^ Layout: where each feature's bins start                                                          records
//! ```
//!
//! - A feature's bins add up to `records`: each record falls into exactly one, the missing one included. Below and above count beside the bins.
//! - Counts are integers, so merging is exact and order-free, and subtracting undoes it bit by bit.
//! - A histogram holds at most [`RECORDS_MAX`] records: [`crate::window::CountWindow`] refuses larger windows, and a pane of time takes no more. A
//!   [`Total`] of panes has room for any number.
//!
//! What cannot be subtracted, the first and last offset and the smallest and largest timestamp, is kept apart in a [`Span`].

use std::sync::Arc;

use bincode::de::Decoder;
use bincode::de::read::Reader as _;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::ids::{Offset, Timestamp};
use crate::record::{Observation, Side};

/// Counters of one feature that stand after its bins: below and above the reference's range.
const SIDES: usize = 2;

/// Records that a histogram may hold: what a 32-bit count does.
pub const RECORDS_MAX: u64 = u32::MAX as u64;

/// Where each feature's bins stand in the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Shared: a monitor may have a window for each of a million segments.
    features: Arc<[Place]>,
    counters: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: usize,
    bins: usize,
}

impl Layout {
    /// The layout of features with so many bins each (`other` and missing included).
    pub fn new(bins: impl IntoIterator<Item = usize>) -> Self {
        let mut counters = 0;
        let features = bins
            .into_iter()
            .map(|bins| {
                let start = counters;
                counters += bins + SIDES;
                Place { start, bins }
            })
            .collect();
        Self { features, counters }
    }

    /// Counters in a block of this layout.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.counters
    }

    /// How many features it holds.
    #[must_use]
    pub fn feature_count(&self) -> usize {
        self.features.len()
    }
}

/// How many records fell where, for every feature of a monitor.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct Histogram {
    records: u64,
    counts: Vec<u32>,
}

/// As derived, with a fast path: a task that is taken over waits until all of its panes are decoded, and most counts are small.
impl<C> Decode<C> for Histogram {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let records = u64::decode(decoder)?;
        let length = u64::decode(decoder)?;
        let length = usize::try_from(length).map_err(|_| DecodeError::OutsideUsizeRange(length))?;
        // Before the memory is taken: the length may be damaged.
        decoder.claim_container_read::<u32>(length)?;
        let mut counts = Vec::with_capacity(length);
        while counts.len() < length {
            let wanted = (length - counts.len()).min(CHUNK);
            let reader = decoder.reader();
            match reader.peek_read(wanted) {
                Some(bytes) if bytes.iter().all(|&byte| byte <= ONE_BYTE_MAX) => {
                    counts.extend(bytes.iter().map(|&byte| u32::from(byte)));
                    reader.consume(wanted);
                }
                _ => {
                    for _ in 0..wanted {
                        decoder.unclaim_bytes_read(size_of::<u32>());
                        counts.push(u32::decode(decoder)?);
                    }
                }
            }
        }
        Ok(Self { records, counts })
    }
}

bincode::impl_borrow_decode!(Histogram);

/// Counts looked at together: as many as the processor compares at once.
const CHUNK: usize = 32;

/// The largest count that bincode writes as one byte, itself.
const ONE_BYTE_MAX: u8 = 250;

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self {
            records: 0,
            counts: vec![0; layout.counters()],
        }
    }

    /// Records counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Counters held: those of the layout that it was made with.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.counts.len()
    }

    /// Counts one record: one observation per feature, in the layout's order.
    pub fn observe(&mut self, layout: &Layout, row: &[Observation]) {
        debug_assert_eq!(row.len(), layout.features.len());
        self.records += 1;
        for (place, observation) in layout.features.iter().zip(row) {
            debug_assert!((observation.bin as usize) < place.bins);
            self.counts[place.start + observation.bin as usize] += 1;
            match observation.side {
                Side::Within => {}
                Side::Below => self.counts[place.start + place.bins] += 1,
                Side::Above => self.counts[place.start + place.bins + 1] += 1,
            }
        }
    }

    /// Adds another histogram of the same layout.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.counts.len(), other.counts.len());
        self.records += other.records;
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Takes away what [`Histogram::merge`] added.
    pub fn subtract(&mut self, other: &Self) {
        debug_assert_eq!(self.counts.len(), other.counts.len());
        self.records -= other.records;
        for (count, less) in self.counts.iter_mut().zip(&other.counts) {
            *count -= less;
        }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.records = 0;
        self.counts.fill(0);
    }

    /// The bins of a feature: the ordinary ones, then `other` where it has it, then missing.
    #[must_use]
    pub fn bins(&self, layout: &Layout, feature: usize) -> &[u32] {
        let place = layout.features[feature];
        &self.counts[place.start..place.start + place.bins]
    }

    /// All counters: those of the first feature's bins, then below and above, then the next feature's.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.counts
    }

    /// Records whose value lay below, and above, the reference's range.
    #[must_use]
    pub fn sides(&self, layout: &Layout, feature: usize) -> (u64, u64) {
        let place = layout.features[feature];
        let after = place.start + place.bins;
        (u64::from(self.counts[after]), u64::from(self.counts[after + 1]))
    }

    /// The invariant of this type, asked of what a store gives back: in each feature the bins add up to the records, and no more records than
    /// these lie beside the range.
    ///
    /// # Errors
    /// The first feature of which that is not true.
    pub fn verify(&self, layout: &Layout) -> Result<(), Contradiction> {
        (0..layout.feature_count()).try_for_each(|feature| {
            let bins = self.bins(layout, feature).iter().map(|&count| u64::from(count)).sum();
            let (below, above) = self.sides(layout, feature);
            if bins == self.records && below + above <= self.records {
                Ok(())
            } else {
                Err(Contradiction {
                    feature,
                    bins,
                    beside: below + above,
                    records: self.records,
                })
            }
        })
    }
}

/// The sum of histograms of one layout: as they, with room for any number of records.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Total {
    records: u64,
    counts: Vec<u64>,
}

impl Total {
    /// Of no histogram.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self {
            records: 0,
            counts: vec![0; layout.counters()],
        }
    }

    /// Of no histogram of another one's layout.
    #[must_use]
    pub fn empty_like(other: &Self) -> Self {
        Self {
            records: 0,
            counts: vec![0; other.counts.len()],
        }
    }

    /// Adds a histogram of the same layout.
    pub fn add(&mut self, histogram: &Histogram) {
        debug_assert_eq!(self.counts.len(), histogram.counts.len());
        self.records += histogram.records;
        for (count, more) in self.counts.iter_mut().zip(&histogram.counts) {
            *count += u64::from(*more);
        }
    }

    /// Adds another sum of the same layout.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.counts.len(), other.counts.len());
        self.records += other.records;
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Counters held: those of the layout that it was made with.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.counts.len()
    }

    /// All counters, in the layout's order.
    #[must_use]
    pub fn as_slice(&self) -> &[u64] {
        &self.counts
    }

    /// Proves that each feature's bins add up to the records.
    ///
    /// # Errors
    /// The first feature of which they do not.
    pub fn verify(&self, layout: &Layout) -> Result<(), Contradiction> {
        for feature in 0..layout.feature_count() {
            let bins = self.bins(layout, feature).iter().sum();
            let (below, above) = self.sides(layout, feature);
            if bins != self.records || below + above > self.records {
                return Err(Contradiction {
                    feature,
                    bins,
                    beside: below + above,
                    records: self.records,
                });
            }
        }
        Ok(())
    }
}

/// What a check looks at: the counts of a window.
pub trait Counts {
    /// Records counted.
    fn records(&self) -> u64;

    /// The bins of a feature: the ordinary ones, then `other` where it has it, then missing.
    fn bins(&self, layout: &Layout, feature: usize) -> Vec<u64>;

    /// Records whose value lay below, and above, the reference's range.
    fn sides(&self, layout: &Layout, feature: usize) -> (u64, u64);
}

impl Counts for Histogram {
    fn records(&self) -> u64 {
        self.records
    }

    fn bins(&self, layout: &Layout, feature: usize) -> Vec<u64> {
        Self::bins(self, layout, feature).iter().map(|&count| u64::from(count)).collect()
    }

    fn sides(&self, layout: &Layout, feature: usize) -> (u64, u64) {
        Self::sides(self, layout, feature)
    }
}

impl Counts for Total {
    fn records(&self) -> u64 {
        self.records
    }

    fn bins(&self, layout: &Layout, feature: usize) -> Vec<u64> {
        let place = layout.features[feature];
        self.counts[place.start..place.start + place.bins].to_vec()
    }

    fn sides(&self, layout: &Layout, feature: usize) -> (u64, u64) {
        let place = layout.features[feature];
        let after = place.start + place.bins;
        (self.counts[after], self.counts[after + 1])
    }
}

/// Counts of a feature that cannot be: the bytes they came from are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Which feature.
    pub feature: usize,
    /// What its bins add up to.
    pub bins: u64,
    /// Values beside the reference's range.
    pub beside: u64,
    /// Records counted.
    pub records: u64,
}

/// From where to where a run of records reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Span {
    /// Offset of the first record.
    pub first: Offset,
    /// Offset of the last record.
    pub last: Offset,
    /// The smallest and the largest timestamp. Records without one do not count here; `None` when none has any.
    pub times: Option<(Timestamp, Timestamp)>,
}

impl Span {
    /// The span of one record.
    #[must_use]
    pub fn of(offset: Offset, timestamp: Option<Timestamp>) -> Self {
        Self {
            first: offset,
            last: offset,
            times: timestamp.map(|time| (time, time)),
        }
    }

    /// The span that covers both.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let times = match (self.times, other.times) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, another) => one.or(another),
        };
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            times,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BINS: [usize; 3] = [4, 2, 7];

    fn row() -> impl Strategy<Value = Vec<Observation>> {
        BINS.map(|bins| {
            (
                0..u32::try_from(bins).unwrap(),
                prop_oneof![Just(Side::Within), Just(Side::Below), Just(Side::Above)],
            )
                .prop_map(|(bin, side)| Observation { bin, side, missing: None })
        })
        .to_vec()
    }

    fn histogram(layout: &Layout, rows: &[Vec<Observation>]) -> Histogram {
        let mut histogram = Histogram::new(layout);
        for row in rows {
            histogram.observe(layout, row);
        }
        histogram
    }

    proptest! {
        #[test]
        fn counts_of_any_size_are_decoded_as_encoded_and_cut_bytes_are_an_error(
            counts in prop::collection::vec(prop_oneof![8 => 0..=250_u32, 1 => any::<u32>()], 0..200), records: u64, cut: prop::sample::Index
        ) {
            let histogram = Histogram { records, counts };
            let bytes = crate::codec::encode(&histogram);
            prop_assert_eq!(crate::codec::decode::<Histogram>(&bytes[..cut.index(bytes.len())]).ok(), None);
            prop_assert_eq!(crate::codec::decode(&bytes), Ok(histogram));
        }

        #[test]
        fn merge_is_order_free_and_subtract_undoes_it(
            a in prop::collection::vec(row(), 0..40), b in prop::collection::vec(row(), 0..40), c in prop::collection::vec(row(), 0..40)
        ) {
            let layout = Layout::new(BINS);
            let [a, b, c] = [a, b, c].map(|rows| histogram(&layout, &rows));
            let mut forward = a.clone();
            forward.merge(&b);
            forward.merge(&c);
            let mut backward = c.clone();
            backward.merge(&b);
            backward.merge(&a);
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(forward.verify(&layout), Ok(()));
            forward.subtract(&c);
            forward.subtract(&b);
            prop_assert_eq!(forward, a);
        }
    }

    #[test]
    fn values_beside_the_range_count_in_their_bin_and_beside_it() {
        let layout = Layout::new([2, 3]);
        let observe = |bin, side| Observation { bin, side, missing: None };
        let rows = [
            vec![observe(1, Side::Above), observe(2, Side::Within)],
            vec![observe(0, Side::Below), observe(0, Side::Below)],
        ];
        let histogram = histogram(&layout, &rows);
        assert_eq!(histogram.bins(&layout, 0), [1, 1]);
        assert_eq!(histogram.sides(&layout, 0), (1, 1));
        assert_eq!(histogram.bins(&layout, 1), [1, 0, 1]);
        assert_eq!(histogram.sides(&layout, 1), (1, 0));
    }

    #[test]
    fn counts_that_do_not_add_up_are_named() {
        let layout = Layout::new([2, 2]);
        let contradiction = |records, counts: [u32; 8]| {
            Histogram {
                records,
                counts: counts.to_vec(),
            }
            .verify(&layout)
        };
        assert_eq!(contradiction(3, [1, 2, 0, 3, 3, 0, 1, 0]), Ok(()));
        assert_eq!(
            contradiction(3, [1, 2, 0, 0, 3, 1, 0, 0]),
            Err(Contradiction {
                feature: 1,
                bins: 4,
                beside: 0,
                records: 3
            })
        );
        assert_eq!(
            contradiction(3, [1, 2, 2, 2, 3, 0, 0, 0]),
            Err(Contradiction {
                feature: 0,
                bins: 3,
                beside: 4,
                records: 3
            })
        );
    }

    #[test]
    fn record_without_a_timestamp_moves_the_offsets_only() {
        let span = Span::of(Offset(7), None)
            .merge(Span::of(Offset(9), Some(Timestamp(50))))
            .merge(Span::of(Offset(12), Some(Timestamp(40))));
        assert_eq!(
            span,
            Span {
                first: Offset(7),
                last: Offset(12),
                times: Some((Timestamp(40), Timestamp(50)))
            }
        );
        assert_eq!(Span::of(Offset(1), None).merge(Span::of(Offset(2), None)).times, None);
    }
}
