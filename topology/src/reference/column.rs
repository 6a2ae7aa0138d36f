//! A column on its way to a feature: its values, or a summary of them; the bins that come of either; the counts in these.

use std::collections::{BTreeMap, BTreeSet};

use super::builder::{Warning, few_rows};
use super::document::{Categorical, DiscreteBinning, EdgeBinning, FeatureDocument, Numeric};
use super::frequent::FrequentTexts;
use super::quantile_sketch::{QuantileSketch, RESOLUTION};
use super::{Cell, ColumnType, ReferenceError};
use crate::binning::{Binning, category_of_number, merged, positive_zero, quantile_edges, uniform_edges};

/// `auto` takes a numeric feature with at most this many values as discrete,
const DISCRETE_VALUES_MAX: usize = 20;

/// if each comes up at least this often on average.
const DISCRETE_ROWS_PER_VALUE_MIN: u64 = 10;

/// Discrete bins that a feature may have.
const DISCRETE_BINS_MAX: usize = 1000;

/// Takes values. See the module.
pub(super) struct Column {
    name: String,
    binning: Binning,
    /// Somebody named it: then it must not be left out.
    asked: bool,
    values: Values,
    missing: u64,
}

enum Values {
    Numbers(Numbers),
    Categories(FrequentTexts),
}

/// How much more a column keeps.
#[derive(Clone, Copy, Default)]
pub(super) struct Grown {
    pub(super) numbers: usize,
    pub(super) text_bytes: usize,
}

/// What the bins of numbers are made of.
struct Numbers {
    kept: Kept,
    count: u64,
    /// The smallest and the largest.
    range: Option<(f64, f64)>,
    last: f64,
    rises: bool,
}

enum Kept {
    All(Vec<f64>),
    Summary(Summary),
}

struct Summary {
    quantiles: QuantileSketch,
    distinct: Distinct,
}

/// Distinct numbers, as long as there can be a bin for each.
enum Distinct {
    /// As [`ordered`] has them.
    Few(BTreeSet<u64>),
    Many,
}

/// The bins of a numeric feature.
enum NumericBins {
    Edges { binning: EdgeBinning, edges: Vec<f64> },
    Discrete { values: Vec<f64> },
}

/// What a cell says in a column.
enum Taken<'a> {
    Missing,
    Number(f64),
    Category(std::borrow::Cow<'a, str>),
}

impl Column {
    pub(super) fn new(name: &str, column_type: ColumnType, binning: &Binning, asked: bool) -> Result<Self, ReferenceError> {
        let categorical = match (binning, column_type) {
            (Binning::Categorical, _) => true,
            (Binning::Auto { .. }, ColumnType::Text | ColumnType::Bool) => true,
            (_, ColumnType::Number) => false,
            // A default of the whole command says nothing about columns that cannot follow it.
            (_, _) if !asked => true,
            (binning, _) => {
                return Err(ReferenceError::feature(
                    name,
                    format!("binning {binning} takes numbers, and the column has texts; use categorical"),
                ));
            }
        };
        let values = if categorical {
            Values::Categories(FrequentTexts::default())
        } else {
            Values::Numbers(Numbers {
                kept: Kept::All(Vec::new()),
                count: 0,
                range: None,
                last: 0.0,
                rises: true,
            })
        };
        Ok(Self {
            name: name.to_owned(),
            binning: binning.clone(),
            asked,
            values,
            missing: 0,
        })
    }

    /// Takes a cell, and says what it takes to keep it.
    pub(super) fn push(&mut self, cell: &Cell<'_>) -> Grown {
        let mut grown = Grown::default();
        let categorical = matches!(self.values, Values::Categories(_));
        match (taken(cell, categorical), &mut self.values) {
            (Taken::Number(number), Values::Numbers(numbers)) => grown.numbers = numbers.push(number),
            (Taken::Category(text), Values::Categories(texts)) => grown.text_bytes = texts.push(&text),
            _ => self.missing += 1,
        }
        grown
    }

    /// Numbers that it keeps.
    pub(super) fn numbers(&self) -> usize {
        match &self.values {
            Values::Numbers(Numbers {
                kept: Kept::All(numbers), ..
            }) => numbers.len(),
            Values::Numbers(_) | Values::Categories(_) => 0,
        }
    }

    /// What the texts that it keeps take in memory.
    pub(super) fn text_bytes(&self) -> usize {
        match &self.values {
            Values::Categories(texts) => texts.bytes(),
            Values::Numbers(_) => 0,
        }
    }

    /// Keeps less.
    pub(super) fn summarise(&mut self) {
        match &mut self.values {
            Values::Numbers(numbers) => numbers.summarise(),
            Values::Categories(texts) => texts.halve(),
        }
    }

    /// Whether it does not know each of its values any more.
    pub(super) fn is_summarised(&self) -> bool {
        match &self.values {
            Values::Numbers(numbers) => matches!(numbers.kept, Kept::Summary(_)),
            Values::Categories(texts) => texts.error() > 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match &self.values {
            Values::Numbers(numbers) => numbers.count == 0,
            Values::Categories(texts) => texts.seen() == 0,
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    pub(super) fn into_name(self) -> String {
        self.name
    }

    /// The feature, of values that are all kept.
    pub(super) fn finish(self, max_categories: usize, warnings: &mut Vec<Warning>) -> Result<FeatureDocument, ReferenceError> {
        let numbers = match self.values {
            Values::Categories(texts) => {
                let counts = texts.into_counts();
                return categorical(self.name, counts, self.missing, max_categories, warnings);
            }
            Values::Numbers(numbers) => numbers,
        };
        let (range, only_rises) = (numbers.range, numbers.only_rises());
        let (bins, numbers) = numbers.bins(&self.name, &self.binning)?;
        let mut counts = vec![0; bins.len()];
        numbers.iter().for_each(|number| bins.count(*number, &mut counts));
        if only_rises {
            warnings.push(Warning::OnlyRises { feature: self.name.clone() });
        }
        Ok(bins.document(self.name, range, counts, self.missing, warnings))
    }

    /// The same column, with bins in which its values are to be counted.
    pub(super) fn recounted(self) -> Result<Recounted, ReferenceError> {
        let bins = match self.values {
            Values::Categories(texts) => RecountedBins::Categories {
                error: texts.error(),
                other: 0,
                counts: texts.into_counts().into_keys().map(|text| (text, 0)).collect(),
            },
            Values::Numbers(numbers) => {
                let (range, only_rises) = (numbers.range, numbers.only_rises());
                let (bins, _) = numbers.bins(&self.name, &self.binning)?;
                RecountedBins::Numbers {
                    counts: vec![0; bins.len()],
                    bins,
                    range,
                    only_rises,
                }
            }
        };
        Ok(Recounted {
            name: self.name,
            bins,
            missing: 0,
        })
    }
}

/// What a cell says in a column of numbers, or of categories.
fn taken<'a>(cell: &Cell<'a>, categorical: bool) -> Taken<'a> {
    let category = |text: &'a str| Taken::Category(text.into());
    match cell {
        Cell::Number(number) if !categorical && number.is_finite() => Taken::Number(positive_zero(*number)),
        Cell::Number(number) if categorical => category_of_number(*number).map_or(Taken::Missing, |text| Taken::Category(text.into())),
        Cell::Bool(value) if categorical => category(if *value { "true" } else { "false" }),
        Cell::Text(text) if categorical => category(text),
        Cell::Missing | Cell::Number(_) | Cell::Bool(_) | Cell::Text(_) => Taken::Missing,
    }
}

impl Numbers {
    /// Says how many more numbers are kept.
    fn push(&mut self, number: f64) -> usize {
        self.rises &= self.count == 0 || self.last < number;
        self.last = number;
        self.count += 1;
        self.range = Some(self.range.map_or((number, number), |(low, high)| (low.min(number), high.max(number))));
        match &mut self.kept {
            Kept::All(numbers) => {
                // Not twice as much at a time: what is allocated counts, not what is used.
                if numbers.len() == numbers.capacity() {
                    numbers.reserve_exact((numbers.len() / 8).max(1024));
                }
                numbers.push(number);
                1
            }
            Kept::Summary(summary) => {
                summary.push(number);
                0
            }
        }
    }

    fn only_rises(&self) -> bool {
        self.rises && self.count > 1
    }

    fn summarise(&mut self) {
        let Kept::All(numbers) = &mut self.kept else { return };
        let mut summary = Summary {
            quantiles: QuantileSketch::new(RESOLUTION),
            distinct: Distinct::Few(BTreeSet::new()),
        };
        std::mem::take(numbers).into_iter().for_each(|number| summary.push(number));
        self.kept = Kept::Summary(summary);
    }

    /// The bins of a column with these values, and the values as far as they are kept.
    fn bins(mut self, name: &str, binning: &Binning) -> Result<(NumericBins, Vec<f64>), ReferenceError> {
        if let Kept::All(numbers) = &mut self.kept {
            numbers.sort_unstable_by(f64::total_cmp);
        }
        if self.range.is_none() && !matches!(binning, Binning::Edges(_)) {
            return Err(no_values(name));
        }
        let (low, high) = self.range.unwrap_or((0.0, 0.0));
        let edges = |binning, edges| NumericBins::Edges { binning, edges };
        let bins = match binning {
            Binning::Auto { bins } => match self.distinct() {
                Ok(values) if values.len() <= DISCRETE_VALUES_MAX && self.count >= DISCRETE_ROWS_PER_VALUE_MIN * values.len() as u64 => {
                    NumericBins::Discrete { values }
                }
                _ => edges(EdgeBinning::Quantile, self.quantiles(*bins)),
            },
            Binning::Discrete => match self.distinct() {
                Ok(values) => NumericBins::Discrete { values },
                Err(how_many) => {
                    let fault = format!("{how_many} distinct values; discrete takes at most {DISCRETE_BINS_MAX}: use quantile");
                    return Err(ReferenceError::feature(name, fault));
                }
            },
            Binning::Quantile { bins } => edges(EdgeBinning::Quantile, self.quantiles(*bins)),
            Binning::Uniform { bins } => edges(EdgeBinning::Uniform, uniform_edges(low, high, *bins)),
            Binning::Edges(given) => edges(EdgeBinning::Edges, given.clone()),
            Binning::Categorical => {
                let fault = "a categorical feature has no numbers: this is a fault of Leeway";
                return Err(ReferenceError::feature(name, fault));
            }
        };
        let numbers = match self.kept {
            Kept::All(numbers) => numbers,
            Kept::Summary(_) => Vec::new(),
        };
        Ok((bins, numbers))
    }

    /// The distinct values, ascending, of numbers that are sorted; or, in words, how many they are if there cannot be a bin for each.
    fn distinct(&self) -> Result<Vec<f64>, String> {
        match &self.kept {
            Kept::All(sorted) => {
                let values = || sorted.chunk_by(|a, b| a == b).filter_map(|equal| equal.first().copied());
                match values().count() {
                    few if few <= DISCRETE_BINS_MAX => Ok(values().collect()),
                    many => Err(many.to_string()),
                }
            }
            Kept::Summary(Summary {
                distinct: Distinct::Few(values),
                ..
            }) => Ok(values.iter().map(|value| of_ordered(*value)).collect()),
            Kept::Summary(_) => Err(format!("more than {DISCRETE_BINS_MAX}")),
        }
    }

    /// Edges at quantiles, of numbers that are sorted.
    fn quantiles(&mut self, bins: usize) -> Vec<f64> {
        match &mut self.kept {
            Kept::All(sorted) => quantile_edges(sorted, bins),
            Kept::Summary(summary) => {
                let last = self.count.saturating_sub(1);
                let rank = |i: usize| (u128::from(last) * i as u128 / bins as u128) as u64;
                merged(summary.quantiles.at_ranks((1..bins).map(rank)).into_iter())
            }
        }
    }
}

impl Summary {
    fn push(&mut self, number: f64) {
        self.quantiles.push(number);
        if let Distinct::Few(values) = &mut self.distinct {
            values.insert(ordered(number));
            if values.len() > DISCRETE_BINS_MAX {
                self.distinct = Distinct::Many;
            }
        }
    }
}

const SIGN: u64 = 1 << 63;

/// A finite number as an integer, in the same order.
fn ordered(number: f64) -> u64 {
    let bits = number.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// The number that is [`ordered`] like that.
fn of_ordered(bits: u64) -> f64 {
    f64::from_bits(if bits & SIGN == 0 { !bits } else { bits & !SIGN })
}

impl NumericBins {
    fn len(&self) -> usize {
        match self {
            Self::Edges { edges, .. } => edges.len() + 1,
            Self::Discrete { values } => values.len(),
        }
    }

    /// Counts a number. A discrete value that is not there, since the rows have changed, is not.
    fn count(&self, number: f64, counts: &mut [u64]) {
        let bin = match self {
            Self::Edges { edges, .. } => edges.partition_point(|edge| *edge < number),
            Self::Discrete { values } => match values.binary_search_by(|value| value.total_cmp(&number)) {
                Ok(bin) => bin,
                Err(_) => return,
            },
        };
        counts[bin] += 1;
    }

    fn document(self, name: String, range: Option<(f64, f64)>, counts: Vec<u64>, missing: u64, warnings: &mut Vec<Warning>) -> FeatureDocument {
        few_rows(&name, counts.iter().sum(), counts.len(), warnings);
        match self {
            Self::Edges { binning, edges } => FeatureDocument::Edges {
                name,
                kind: Numeric::Numeric,
                binning,
                edges,
                range,
                counts,
                missing,
            },
            Self::Discrete { values } => FeatureDocument::Discrete {
                name,
                kind: Numeric::Numeric,
                binning: DiscreteBinning::Discrete,
                values,
                range,
                counts,
                other: 0,
                missing,
            },
        }
    }
}

/// A column whose bins are known: counts its values.
pub(super) struct Recounted {
    name: String,
    bins: RecountedBins,
    missing: u64,
}

enum RecountedBins {
    Numbers {
        bins: NumericBins,
        counts: Vec<u64>,
        range: Option<(f64, f64)>,
        only_rises: bool,
    },
    Categories {
        /// Of the texts that may be frequent.
        counts: BTreeMap<String, u64>,
        /// Of all other texts together.
        other: u64,
        /// Of any other text in the first pass, at most.
        error: u64,
    },
}

impl Recounted {
    pub(super) fn push(&mut self, cell: &Cell<'_>) {
        let categorical = matches!(self.bins, RecountedBins::Categories { .. });
        match (taken(cell, categorical), &mut self.bins) {
            (Taken::Number(number), RecountedBins::Numbers { bins, counts, .. }) => bins.count(number, counts),
            (Taken::Category(text), RecountedBins::Categories { counts, other, .. }) => match counts.get_mut(&*text) {
                Some(count) => *count += 1,
                None => *other += 1,
            },
            _ => self.missing += 1,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether its edges are those that a sketch found.
    pub(super) fn has_sketched_edges(&self) -> bool {
        matches!(
            self.bins,
            RecountedBins::Numbers {
                bins: NumericBins::Edges {
                    binning: EdgeBinning::Quantile,
                    ..
                },
                ..
            }
        )
    }

    pub(super) fn finish(self, max_categories: usize, warnings: &mut Vec<Warning>) -> Result<FeatureDocument, ReferenceError> {
        match self.bins {
            RecountedBins::Numbers {
                bins,
                counts,
                range,
                only_rises,
            } => {
                if only_rises {
                    warnings.push(Warning::OnlyRises { feature: self.name.clone() });
                }
                Ok(bins.document(self.name, range, counts, self.missing, warnings))
            }
            RecountedBins::Categories { counts, other, error } => {
                // The most frequent ones are proven to be that where the last of them was seen more often than any text that was forgotten.
                let mut descending: Vec<u64> = counts.values().copied().collect();
                descending.sort_unstable_by(|a, b| b.cmp(a));
                let is_proven = max_categories == 0 || descending.get(max_categories - 1).is_some_and(|last| *last > error);
                let name = self.name.clone();
                let document = most_frequent(self.name, counts, other, self.missing, max_categories, warnings);
                if !is_proven {
                    warnings.push(Warning::SketchedCategories { feature: name, rows: error });
                }
                Ok(document)
            }
        }
    }
}

fn no_values(name: &str) -> ReferenceError {
    ReferenceError::feature(name, "no row has a value: do not name it, or give it bins with --feature NAME=edges:...")
}

fn categorical(
    name: String,
    counts: BTreeMap<String, u64>,
    missing: u64,
    max_categories: usize,
    warnings: &mut Vec<Warning>,
) -> Result<FeatureDocument, ReferenceError> {
    if counts.is_empty() {
        return Err(no_values(&name));
    }
    Ok(most_frequent(name, counts, 0, missing, max_categories, warnings))
}

/// The feature of these texts' counts; `uncounted` rows have other texts.
fn most_frequent(
    name: String,
    counts: BTreeMap<String, u64>,
    uncounted: u64,
    missing: u64,
    max_categories: usize,
    warnings: &mut Vec<Warning>,
) -> FeatureDocument {
    let rows = counts.values().sum::<u64>() + uncounted;
    let mut categories: Vec<(String, u64)> = counts.into_iter().collect();
    // Stable: ties stay in the order of their bytes.
    categories.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest = categories.split_off(max_categories.min(categories.len()));
    let other = rest.iter().map(|(_, count)| count).sum::<u64>() + uncounted;
    if 2 * other > rows {
        warnings.push(Warning::MostlyOther {
            feature: name.clone(),
            other,
            rows,
        });
    }
    few_rows(&name, rows, categories.len(), warnings);
    let (categories, counts) = categories.into_iter().unzip();
    FeatureDocument::Categorical {
        name,
        kind: Categorical::Categorical,
        binning: Categorical::Categorical,
        categories,
        counts,
        other,
        missing,
    }
}
