//! Bins: how values of a feature are grouped, and which bin a value falls into.
//!
//! - Numeric with edges: bin i holds `(e_(i-1), e_i]`, the first and the last are open-ended.
//! - Discrete and categorical: one bin per known value, and one for all `other`.
//! - Missing values have the last bin.
//!
//! How edges come from a sample is here too ([`quantile_edges`], [`uniform_edges`]); what a whole reference is, is [`crate::reference`]'s.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use crate::record::{Missing, Observation, Side};

/// The largest integer below which every integer is a double of its own.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Label of the bin of all values that the reference does not name.
pub const OTHER: &str = "__other__";

/// Label of the bin of missing values.
pub const MISSING: &str = "__missing__";

/// How a feature is to be binned: what `--feature NAME=BINNING[:ARG]` says.
#[derive(Clone, Debug, PartialEq)]
pub enum Binning {
    /// Text and booleans are categorical; few and frequent numbers discrete; else that many quantiles.
    Auto {
        /// Quantile bins, if it comes to that.
        bins: usize,
    },
    /// Edges at the reference's quantiles.
    Quantile {
        /// Bins before duplicate edges are merged.
        bins: usize,
    },
    /// Equal widths over the reference's range.
    Uniform {
        /// Bins before duplicate edges are merged.
        bins: usize,
    },
    /// These interior edges.
    Edges(Vec<f64>),
    /// One bin per distinct number.
    Discrete,
    /// One bin per category.
    Categorical,
}

/// Bins that a numeric feature has if nobody says otherwise.
pub const DEFAULT_BINS: usize = 10;

/// Bins that somebody may ask for.
const BINS_MAX: usize = 1000;

/// A binning that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("binning {text:?}: {fault}; allowed are auto, quantile:20, uniform:10, edges:0.5,1,2, discrete, categorical")]
pub struct InvalidBinning {
    text: String,
    fault: &'static str,
}

impl FromStr for Binning {
    type Err = InvalidBinning;

    fn from_str(text: &str) -> Result<Self, InvalidBinning> {
        let invalid = |fault| InvalidBinning {
            text: text.to_owned(),
            fault,
        };
        let (name, argument) = text.split_once(':').map_or((text, None), |(name, argument)| (name, Some(argument)));
        let bins = || match argument.map(str::parse) {
            None => Ok(DEFAULT_BINS),
            Some(Ok(bins)) if (2..=BINS_MAX).contains(&bins) => Ok(bins),
            Some(_) => Err(invalid("the number of bins must be 2 to 1000")),
        };
        match (name, argument) {
            ("auto", _) => bins().map(|bins| Self::Auto { bins }),
            ("quantile", _) => bins().map(|bins| Self::Quantile { bins }),
            ("uniform", _) => bins().map(|bins| Self::Uniform { bins }),
            ("edges", Some(list)) => {
                let edges = list
                    .split(',')
                    .map(|edge| edge.trim().parse::<f64>())
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|_| invalid("an edge is not a number"))?;
                if are_edges(&edges) {
                    Ok(Self::Edges(edges.into_iter().map(positive_zero).collect()))
                } else {
                    Err(invalid("edges must be finite and strictly increasing"))
                }
            }
            ("edges", None) => Err(invalid("edges are missing")),
            ("discrete", None) => Ok(Self::Discrete),
            ("categorical", None) => Ok(Self::Categorical),
            ("discrete" | "categorical", Some(_)) => Err(invalid("this binning takes no argument")),
            _ => Err(invalid("unknown")),
        }
    }
}

impl fmt::Display for Binning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto { bins } => write!(f, "auto:{bins}"),
            Self::Quantile { bins } => write!(f, "quantile:{bins}"),
            Self::Uniform { bins } => write!(f, "uniform:{bins}"),
            Self::Edges(edges) => write!(f, "edges:{}", edges.iter().map(|edge| decimal(*edge)).collect::<Vec<_>>().join(",")),
            Self::Discrete => f.write_str("discrete"),
            Self::Categorical => f.write_str("categorical"),
        }
    }
}

/// Whether these can be interior edges.
#[must_use]
pub fn are_edges(edges: &[f64]) -> bool {
    edges.iter().all(|edge| edge.is_finite()) && edges.windows(2).all(|pair| pair[0] < pair[1])
}

/// The interior edges of `bins` quantile bins over the sorted finite values: by linear interpolation at i / bins, duplicates merged. The
/// arithmetic is numpy's `linear`, term by term: other forms differ in the last bit, which moves a value that equals an edge.
#[must_use]
pub fn quantile_edges(sorted: &[f64], bins: usize) -> Vec<f64> {
    let Some(last) = sorted.len().checked_sub(1) else { return Vec::new() };
    let edge = |i: usize| {
        let h = last as f64 * (i as f64 / bins as f64);
        let low = (h.floor() as usize).min(last);
        let (a, b) = (sorted[low], sorted[(low + 1).min(last)]);
        let (t, d) = (h - low as f64, b - a);
        if !d.is_finite() {
            a * (1.0 - t) + b * t
        } else if t < 0.5 {
            a + d * t
        } else {
            b - d * (1.0 - t)
        }
    };
    merged((1..bins).map(edge))
}

/// The interior edges of `bins` equally wide bins from `low` to `high`, duplicates merged.
#[must_use]
pub fn uniform_edges(low: f64, high: f64, bins: usize) -> Vec<f64> {
    merged((1..bins).map(|i| {
        let edge = low + ((high - low) * i as f64) / bins as f64;
        let t = i as f64 / bins as f64;
        // The width can overflow where the edge does not.
        if edge.is_finite() { edge } else { low * (1.0 - t) + high * t }
    }))
}

/// Ascending edges without duplicates.
pub(crate) fn merged(edges: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut edges: Vec<f64> = edges.map(positive_zero).filter(|edge| edge.is_finite()).collect();
    edges.dedup();
    edges
}

/// -0.0 equals 0.0 and is written as it.
pub(crate) fn positive_zero(value: f64) -> f64 {
    value + 0.0
}

/// The shortest decimal that reads back as the same double, without a trailing `.0`; beyond 1e16 and below 1e-4 with an exponent, as Python
/// writes it.
#[must_use]
pub fn decimal(value: f64) -> String {
    let value = positive_zero(value);
    let magnitude = value.abs();
    if value == 0.0 || (1e-4..1e16).contains(&magnitude) || !value.is_finite() {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The text of a number in a categorical feature: integral within 2^53, by its decimal digits.
#[must_use]
pub fn category_of_number(value: f64) -> Option<String> {
    let mut text = String::new();
    write_category_of_number(value, &mut text).then_some(text)
}

/// Appends that text, if the number has one; says whether it has.
pub(crate) fn write_category_of_number(value: f64, text: &mut String) -> bool {
    value.trunc() == value && value.abs() <= EXACT_INTEGER_MAX && write!(text, "{}", positive_zero(value)).is_ok()
}

/// The bins of one feature, ready for look-ups. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Bins {
    /// Numeric, between edges.
    Edges {
        /// Interior, strictly increasing.
        edges: Arc<[f64]>,
        /// Smallest and largest reference value.
        range: Option<(f64, f64)>,
    },
    /// Numeric, one bin per value.
    Discrete {
        /// Ascending.
        values: Arc<[f64]>,
        /// Smallest and largest reference value.
        range: Option<(f64, f64)>,
    },
    /// One bin per category.
    Categorical {
        /// The categories' bins.
        categories: Arc<BTreeMap<String, u32>>,
    },
}

impl Bins {
    /// Index of the missing bin: the last.
    fn last(&self) -> u32 {
        let bins = match self {
            Self::Edges { edges, .. } => edges.len() + 1,
            Self::Discrete { values, .. } => values.len() + 1,
            Self::Categorical { categories } => categories.len() + 1,
        };
        u32::try_from(bins).unwrap_or(u32::MAX)
    }

    /// Smallest and largest reference value; `None` for categories.
    #[must_use]
    pub fn range(&self) -> Option<(f64, f64)> {
        match self {
            Self::Edges { range, .. } | Self::Discrete { range, .. } => *range,
            Self::Categorical { .. } => None,
        }
    }

    /// A missing value.
    #[must_use]
    pub fn missing(&self, missing: Missing) -> Observation {
        Observation {
            bin: self.last(),
            side: Side::Within,
            missing: Some(missing),
        }
    }

    /// A number; one that is no finite double is missing.
    #[must_use]
    #[inline]
    pub fn observe_number(&self, value: f64) -> Observation {
        if !value.is_finite() {
            return self.missing(Missing::Range);
        }
        match self {
            Self::Edges { edges, range } => Observation {
                bin: count_below(edges, value),
                side: side(*range, value),
                missing: None,
            },
            Self::Discrete { values, range } => Observation {
                // Comparison finds -0.0 where 0.0 stands.
                bin: values
                    .binary_search_by(|known| known.partial_cmp(&value).unwrap_or(std::cmp::Ordering::Less))
                    .map_or_else(|_| self.last() - 1, |at| at as u32),
                side: side(*range, value),
                missing: None,
            },
            Self::Categorical { .. } => self.observe_category_of_number(value),
        }
    }

    /// Of few features: elsewhere, so that the others' way stays short.
    #[inline(never)]
    fn observe_category_of_number(&self, value: f64) -> Observation {
        category_of_number(value).map_or_else(|| self.missing(Missing::Range), |text| self.observe_text(&text))
    }

    /// A boolean: a category.
    #[must_use]
    pub fn observe_bool(&self, value: bool) -> Observation {
        self.observe_text(if value { "true" } else { "false" })
    }

    /// A text: a category.
    #[must_use]
    pub fn observe_text(&self, value: &str) -> Observation {
        match self {
            Self::Categorical { categories } => {
                let bin = categories.get(value).copied().unwrap_or_else(|| self.last() - 1);
                Observation {
                    bin,
                    side: Side::Within,
                    missing: None,
                }
            }
            Self::Edges { .. } | Self::Discrete { .. } => self.missing(Missing::Type),
        }
    }
}

/// How many of the edges are below the value: without a branch, since where a value lies is not to be foretold. Eight at a time the compiler leaves
/// them scalars, which for ten bins is faster than vectors or a binary search (docs/benchmarks.md).
#[inline]
fn count_below(edges: &[f64], value: f64) -> u32 {
    let (eights, rest) = edges.as_chunks::<8>();
    let count = |edges: &[f64]| edges.iter().fold(0, |below, edge| below + u32::from(*edge < value));
    eights.iter().map(|eight| count(eight)).sum::<u32>() + count(rest)
}

fn side(range: Option<(f64, f64)>, value: f64) -> Side {
    match range {
        Some((low, _)) if value < low => Side::Below,
        Some((_, high)) if value > high => Side::Above,
        _ => Side::Within,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_bin_on_its_left() {
        let bins = Bins::Edges {
            edges: [1.0, 2.0].into(),
            range: Some((0.5, 2.5)),
        };
        let bin = |value| bins.observe_number(value).bin;
        assert_eq!([0.9, 1.0, 1.000_000_1, 2.0, 2.1].map(bin), [0, 0, 1, 1, 2]);
        assert_eq!(bins.observe_number(0.4).side, Side::Below);
        assert_eq!(bins.observe_number(2.6).side, Side::Above);
        assert_eq!(bins.observe_number(f64::INFINITY), bins.missing(Missing::Range));
        assert_eq!(
            (bins.observe_text("1").missing, bins.missing(Missing::Null).bin),
            (Some(Missing::Type), 3)
        );
    }

    #[test]
    fn discrete_values_take_minus_zero_for_zero_and_the_rest_for_other() {
        let bins = Bins::Discrete {
            values: [0.0, 2.0].into(),
            range: Some((0.0, 2.0)),
        };
        assert_eq!([-0.0, 0.0, 2.0, 1.0, 3.0].map(|value| bins.observe_number(value).bin), [0, 0, 1, 2, 2]);
    }

    #[test]
    fn categories_take_texts_booleans_and_integral_numbers() {
        let bins = Bins::Categorical {
            categories: Arc::new(["a", "true", "3"].iter().zip(0..).map(|(name, bin)| ((*name).to_owned(), bin)).collect()),
        };
        assert_eq!(
            [
                bins.observe_text("a").bin,
                bins.observe_bool(true).bin,
                bins.observe_number(3.0).bin,
                bins.observe_text("x").bin
            ],
            [0, 1, 2, 3]
        );
        assert_eq!(bins.observe_number(3.5), bins.missing(Missing::Range));
        assert_eq!(bins.observe_number(9_007_199_254_740_994.0).missing, Some(Missing::Range));
        assert_eq!(bins.observe_number(-9_007_199_254_740_992.0).bin, 3);
    }

    #[test]
    fn decimals_are_the_shortest_that_read_back() {
        let cases = [
            (1.0, "1"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (3.900_000_000_000_000_4, "3.9000000000000004"),
            (1e22, "1e+22"),
            (1.5e-5, "1.5e-05"),
            (-2.5, "-2.5"),
        ];
        for (value, text) in cases {
            assert_eq!(decimal(value), text);
        }
    }

    #[test]
    fn binnings_read_and_print_as_on_the_command_line() {
        for text in ["auto:10", "quantile:20", "uniform:5", "edges:0.5,1,2", "discrete", "categorical"] {
            assert_eq!(text.parse::<Binning>().map(|binning| binning.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "quantile:1",
            "quantile:x",
            "edges:2,1",
            "edges:1,1",
            "edges:nan",
            "edges",
            "discrete:3",
            "median",
        ] {
            assert!(text.parse::<Binning>().is_err(), "{text}");
        }
    }
}
