//! Quantiles of more numbers than memory holds: the summary of Greenwald and Khanna, *Space-Efficient Online Computation of Quantile Summaries*
//! (SIGMOD 2001).
//!
//! ```text
//! number --push--> buffer --sorted, 1/(2ε) at a time--> tuples (value, g, Δ), ascending --compress--> fewer tuples
//! ```
//!
//! - A tuple's value has a rank between `rmin`, the sum of all `g` up to its own, and `rmin + Δ`. No tuple has `g + Δ > 2εn`, so that some value is
//!   within `εn` of any rank: a bound that holds for every input and every order, not with some probability.
//! - It has no randomness: of the same numbers in the same order come the same quantiles, hence the same reference with the same version, wherever
//!   it is built.
//! - At most `11/(2ε) · log2(2εn)` tuples, as the paper proves for the bands that [`compress`] has; thousands in practice, of 24 bytes.
//!
//! Written here, since what is there does not fit: `datasketches` (KLL) flips random coins that nobody can seed and errs with some probability;
//! `zw-fast-quantile` is deterministic and as fast, and took 25 MB for ten million numbers where this takes 0.2 MB; `quantiles` is given up;
//! DDSketch and t-digests bound other errors than that of the rank.

/// Of this many rows an edge is off by one half: `1/(2ε)`, for ε = 0.05 %.
pub(super) const RESOLUTION: u64 = 1000;

/// What it promises, for people: ε.
pub(super) const WITHIN: &str = "0.05 %";

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
struct Tuple {
    value: f64,
    /// Its smallest rank less that of the tuple before.
    g: u64,
    /// Its largest rank less its smallest.
    delta: u64,
}

/// The summary of the numbers so far. Bounded by the logarithm of how many they are.
#[derive(Clone, Debug)]
pub(super) struct QuantileSketch {
    resolution: u64,
    /// Numbers in the tuples.
    count: u64,
    /// Ascending; the first is the smallest number, the last the largest.
    tuples: Vec<Tuple>,
    /// Numbers that are not in the tuples yet.
    buffer: Vec<f64>,
}

impl QuantileSketch {
    /// A summary whose ranks are off by at most one in `2 * resolution`.
    pub(super) fn new(resolution: u64) -> Self {
        Self {
            resolution,
            count: 0,
            tuples: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Takes a finite number.
    pub(super) fn push(&mut self, number: f64) {
        self.buffer.push(number);
        if self.buffer.len() as u64 >= self.resolution {
            self.flush();
        }
    }

    /// The numbers at these ranks, counted from 0: each is the number of a rank that is off by at most one in `2 * resolution` of all. Ascending, if
    /// the ranks are.
    pub(super) fn at_ranks(&mut self, ranks: impl Iterator<Item = u64>) -> Vec<f64> {
        self.flush();
        let mut found: Vec<f64> = ranks.filter_map(|rank| self.at_rank(rank + 1)).collect();
        // Of two ranks close together the upper one may have found the lower value; exchanged, both are as near as before.
        found.sort_unstable_by(f64::total_cmp);
        found
    }

    /// The value whose possible ranks, from 1 on, are nowhere far from this one.
    fn at_rank(&self, rank: u64) -> Option<f64> {
        let mut smallest = 0;
        let distances = self.tuples.iter().map(|tuple| {
            smallest += tuple.g;
            let largest = smallest + tuple.delta;
            (rank.abs_diff(smallest).max(rank.abs_diff(largest)), tuple.value)
        });
        distances.min_by_key(|(distance, _)| *distance).map(|(_, value)| value)
    }

    /// Takes the buffer's numbers into the tuples.
    fn flush(&mut self) {
        self.buffer.sort_unstable_by(f64::total_cmp);
        // No `g + Δ` is larger, so neither is what is not known of a number between two tuples.
        let delta = (self.count / self.resolution).saturating_sub(1);
        let mut merged = Vec::with_capacity(self.tuples.len() + self.buffer.len());
        let mut old = self.tuples.drain(..).peekable();
        for value in &self.buffer {
            while let Some(tuple) = old.next_if(|tuple| tuple.value <= *value) {
                merged.push(tuple);
            }
            let is_outermost = merged.is_empty() || old.peek().is_none();
            merged.push(Tuple {
                value: *value,
                g: 1,
                delta: if is_outermost { 0 } else { delta },
            });
        }
        merged.extend(old);
        self.count += self.buffer.len() as u64;
        self.buffer.clear();
        self.tuples = compress(&merged, self.count / self.resolution);
    }
}

/// Merges tuples into those on their right as far as no `g + Δ` exceeds `largest`. A tuple goes together with those that came later and stand right
/// before it, and only into one that came as early as itself: it is this that bounds how many are left.
fn compress(tuples: &[Tuple], largest: u64) -> Vec<Tuple> {
    let Some((last, rest)) = tuples.split_last() else { return Vec::new() };
    let bands: Vec<u32> = tuples.iter().map(|tuple| band(tuple.delta, largest)).collect();
    let mut kept = Vec::with_capacity(tuples.len());
    let (mut right, mut right_band) = (*last, bands[rest.len()]);
    let mut next = rest.len();
    // The first stays: it is the smallest number.
    while next > 1 {
        let at = next - 1;
        let room = largest.saturating_sub(right.g + right.delta);
        let mut g = tuples[at].g;
        let mut first = at;
        while first > 1 && bands[first - 1] < bands[at] && g <= room {
            first -= 1;
            g += tuples[first].g;
        }
        if bands[at] <= right_band && g <= room {
            right.g += g;
            next = first;
        } else {
            kept.push(right);
            (right, right_band) = (tuples[at], bands[at]);
            next = at;
        }
    }
    kept.push(right);
    if !rest.is_empty() {
        kept.push(tuples[0]);
    }
    kept.reverse();
    kept
}

/// How early a tuple came, on a scale of logarithms: the smaller its `Δ`, the earlier. Bands are cut so that two tuples that share one share all
/// later ones.
fn band(delta: u64, largest: u64) -> u32 {
    let age = largest.saturating_sub(delta);
    let Some(power) = age.checked_ilog2() else { return 0 };
    // Between 2^power and the next power; the lower part of that belongs to the band below.
    if age < (1 << power) + largest % (1 << power) { power } else { power + 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    /// By how many ranks the sketch's answers are off at most, over a grid of ranks.
    fn worst_error(numbers: &[f64], resolution: u64) -> (u64, usize) {
        let mut sketch = QuantileSketch::new(resolution);
        numbers.iter().for_each(|number| sketch.push(*number));
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let ranks: Vec<u64> = (0..=200).map(|i| (sorted.len() as u64 - 1) * i / 200).collect();
        let found = sketch.at_ranks(ranks.iter().copied());
        assert_eq!(found.len(), ranks.len());
        let errors = ranks.iter().zip(found).map(|(rank, value)| {
            let first = sorted.partition_point(|number| *number < value) as u64;
            let last = sorted.partition_point(|number| *number <= value) as u64;
            assert!(first < last, "{value} is none of the numbers");
            // Equal numbers have all of these ranks.
            first.saturating_sub(*rank).max(rank.saturating_sub(last - 1))
        });
        (errors.max().unwrap(), sketch.tuples.len())
    }

    proptest! {
        #[test]
        fn ranks_are_within_the_bound_whatever_the_numbers_and_their_order(
            numbers in prop_oneof![
                prop::collection::vec(-1e300..1e300_f64, 1..3000),
                prop::collection::vec((0..20_u8).prop_map(f64::from), 1..3000),
            ],
            resolution in 2..60_u64,
            order in 0..4_u8,
        ) {
            let mut numbers = numbers;
            match order {
                0 => {}
                1 => numbers.sort_unstable_by(f64::total_cmp),
                2 => numbers.sort_unstable_by(|a, b| b.total_cmp(a)),
                _ => numbers.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs())),
            }
            let (error, _) = worst_error(&numbers, resolution);
            prop_assert!(2 * resolution * error <= numbers.len() as u64, "off by {error} of {}", numbers.len());
        }
    }

    #[test]
    fn a_million_numbers_are_within_the_bound_in_a_few_thousand_tuples() {
        let seed = 17;
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let uniform: Vec<f64> = (0..1_000_000).map(|_| random.random()).collect();
        let skewed = uniform.iter().map(|number| (1.0 / (1.0 - number)).powi(3)).collect();
        let rising = (0..1_000_000).map(f64::from).collect();
        let falling = (0..1_000_000).rev().map(f64::from).collect();
        let inward = (0..1_000_000).map(|i| f64::from(if i % 2 == 0 { i } else { 2_000_000 - i })).collect();
        let outward = (0..1_000_000).map(|i| f64::from(if i % 2 == 0 { i } else { -i })).collect();
        for (name, numbers) in [
            ("uniform", uniform),
            ("skewed", skewed),
            ("rising", rising),
            ("falling", falling),
            ("inward", inward),
            ("outward", outward),
        ] {
            let (error, tuples) = worst_error(&numbers, RESOLUTION);
            println!("{name}: off by {error} ranks, {tuples} tuples");
            assert!(error <= 500 && tuples <= 10_000, "{name}: off by {error} ranks, {tuples} tuples");
        }
    }

    #[test]
    fn few_numbers_are_exact_and_none_have_no_quantiles() {
        let mut sketch = QuantileSketch::new(RESOLUTION);
        assert!(sketch.at_ranks([0].into_iter()).is_empty());
        [3.0, 1.0, 2.0].iter().for_each(|number| sketch.push(*number));
        assert_eq!(sketch.at_ranks(0..3), [1.0, 2.0, 3.0]);
    }
}
