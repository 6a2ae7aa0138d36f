//! Builds a reference from the rows of a table.
//!
//! The columns' types are known before the first row ([`super::ColumnTyper`] finds them). Memory grows with the rows of numeric columns, since their
//! quantiles are exact, and with the distinct texts of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::document::{Categorical, DiscreteBinning, EdgeBinning, FeatureDocument, Numeric};
use super::{Cell, ColumnType, RESERVED, Reference, ReferenceError, version_of};
use crate::binning::{Binning, category_of_number, positive_zero, quantile_edges, uniform_edges};

/// Columns that are no features unless they are asked for by name.
const LEFT_OUT: [&str; 4] = ["timestamp", "target", "id", "key"];

/// `auto` takes a numeric feature with at most this many values as discrete,
const DISCRETE_VALUES_MAX: usize = 20;

/// if each comes up at least this often on average.
const DISCRETE_ROWS_PER_VALUE_MIN: usize = 10;

/// Discrete bins that a feature may have.
const DISCRETE_BINS_MAX: usize = 1000;

/// Rows a bin should have in the reference.
const ROWS_PER_BIN: u64 = 50;

/// Something about the input that the user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A column whose values only rise: an id, or a time. It drifts by nature.
    OnlyRises {
        /// Which.
        feature: String,
    },
    /// Few rows for so many bins: noisy fractions.
    FewRowsPerBin {
        /// Which.
        feature: String,
        /// Rows with a value.
        rows: u64,
        /// Ordinary bins.
        bins: usize,
    },
    /// A column without any value: left out.
    NoValues {
        /// Which.
        feature: String,
    },
    /// The bins say little about the feature.
    MostlyOther {
        /// Which.
        feature: String,
        /// Rows in `other`.
        other: u64,
        /// Rows with a value.
        rows: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyRises { feature } => write!(
                f,
                "{feature}: its values only rise, as those of an id or a time do; it will drift by nature"
            ),
            Self::NoValues { feature } => write!(f, "{feature}: left out, since no row has a value that a feature can have"),
            Self::FewRowsPerBin { feature, rows, bins } => {
                write!(
                    f,
                    "{feature}: {rows} rows for {bins} bins, fewer than {ROWS_PER_BIN} a bin; take more rows or fewer bins"
                )
            }
            Self::MostlyOther { feature, other, rows } => write!(
                f,
                "{feature}: {other} of {rows} values are in `other`; more categories, or another binning, would show more"
            ),
        }
    }
}

/// Collects rows. See the module.
pub struct ReferenceBuilder {
    monitor: String,
    columns: Vec<Option<Column>>,
    left_out: Vec<String>,
    max_categories: usize,
    rows: u64,
}

struct Column {
    name: String,
    binning: Binning,
    /// Somebody named it: then it must not be left out.
    asked: bool,
    values: Values,
    missing: u64,
}

enum Values {
    Numbers { numbers: Vec<f64>, rises: bool },
    Categories(BTreeMap<String, u64>),
}

impl ReferenceBuilder {
    /// A builder for a table with these columns. `overrides` gives single features their binning, and names columns that would be left out.
    ///
    /// # Errors
    /// When a name is empty, `*` or there twice, an override names no column, or a binning does not fit a column's type.
    pub fn new(
        monitor: &str,
        columns: &[(String, ColumnType)],
        default: &Binning,
        overrides: &[(String, Binning)],
        max_categories: usize,
    ) -> Result<Self, ReferenceError> {
        if let Some((name, _)) = overrides.iter().find(|(name, _)| columns.iter().all(|(column, _)| column != name)) {
            let known = columns.iter().map(|(column, _)| column.as_str()).collect::<Vec<_>>().join(", ");
            return Err(ReferenceError::feature(name, format!("the input has no such column; it has {known}")));
        }
        let mut left_out = Vec::new();
        let mut names = BTreeSet::new();
        let mut kept = Vec::new();
        for (name, column_type) in columns {
            let asked = overrides.iter().rfind(|(feature, _)| feature == name).map(|(_, binning)| binning);
            if asked.is_none() && LEFT_OUT.contains(&name.as_str()) {
                left_out.push(name.clone());
                kept.push(None);
                continue;
            }
            if name.is_empty() || name == RESERVED {
                return Err(ReferenceError::feature(
                    name,
                    "a column must have a name, and `*` is the summary's: rename it",
                ));
            }
            if !names.insert(name) {
                return Err(ReferenceError::feature(name, "the input has this column twice: rename one"));
            }
            kept.push(Some(Column::new(name, *column_type, asked.unwrap_or(default), asked.is_some())?));
        }
        Ok(Self {
            monitor: monitor.to_owned(),
            columns: kept,
            left_out,
            max_categories,
            rows: 0,
        })
    }

    /// Columns that were left out because of their names.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Takes a row: a cell per column, in the columns' order; cells that a short row lacks are missing.
    pub fn push_row<'a>(&mut self, row: impl IntoIterator<Item = Cell<'a>>) {
        self.rows += 1;
        let mut cells = row.into_iter();
        for column in &mut self.columns {
            let cell = cells.next().unwrap_or(Cell::Missing);
            if let Some(column) = column {
                column.push(&cell);
            }
        }
    }

    /// The reference of all rows so far, and what the user should know.
    ///
    /// # Errors
    /// When there are no rows or features, or a feature has no bins.
    pub fn finish(self) -> Result<(Reference, Vec<Warning>), ReferenceError> {
        if self.rows == 0 {
            return Err(ReferenceError::NoRows);
        }
        let mut warnings = Vec::new();
        let mut features = Vec::new();
        for column in self.columns.into_iter().flatten() {
            if column.is_empty() && !column.asked {
                warnings.push(Warning::NoValues { feature: column.name });
                continue;
            }
            features.push(column.finish(self.max_categories, &mut warnings)?);
        }
        let json = serde_json::to_value(&features).map_err(|error| ReferenceError::Malformed(error.to_string()))?;
        let version = version_of(&json)?;
        Reference::new(self.monitor, self.rows, features, version).map(|reference| (reference, warnings))
    }
}

impl Column {
    fn new(name: &str, column_type: ColumnType, binning: &Binning, asked: bool) -> Result<Self, ReferenceError> {
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
            Values::Categories(BTreeMap::new())
        } else {
            Values::Numbers {
                numbers: Vec::new(),
                rises: true,
            }
        };
        Ok(Self {
            name: name.to_owned(),
            binning: binning.clone(),
            asked,
            values,
            missing: 0,
        })
    }

    fn push(&mut self, cell: &Cell<'_>) {
        let category = match (&mut self.values, cell) {
            (_, Cell::Missing) => None,
            (Values::Numbers { numbers, rises }, Cell::Number(number)) if number.is_finite() => {
                let number = positive_zero(*number);
                *rises &= numbers.last().is_none_or(|last| *last < number);
                numbers.push(number);
                return;
            }
            (Values::Numbers { .. }, _) => None,
            (Values::Categories(_), Cell::Number(number)) => category_of_number(*number),
            (Values::Categories(_), Cell::Bool(value)) => Some(value.to_string()),
            (Values::Categories(_), Cell::Text(text)) => Some((*text).to_owned()),
        };
        match (category, &mut self.values) {
            (Some(category), Values::Categories(categories)) => *categories.entry(category).or_insert(0) += 1,
            _ => self.missing += 1,
        }
    }

    fn is_empty(&self) -> bool {
        match &self.values {
            Values::Numbers { numbers, .. } => numbers.is_empty(),
            Values::Categories(categories) => categories.is_empty(),
        }
    }

    fn finish(self, max_categories: usize, warnings: &mut Vec<Warning>) -> Result<FeatureDocument, ReferenceError> {
        let Self {
            name,
            binning,
            values,
            missing,
            asked: _,
        } = self;
        match values {
            Values::Categories(categories) => categorical(name, categories, missing, max_categories, warnings),
            Values::Numbers { numbers, rises } => {
                if rises && numbers.len() > 1 {
                    warnings.push(Warning::OnlyRises { feature: name.clone() });
                }
                numeric(name, &binning, numbers, missing, warnings)
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
    let rows: u64 = counts.values().sum();
    let mut categories: Vec<(String, u64)> = counts.into_iter().collect();
    // Stable: ties stay in the order of their bytes.
    categories.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let other: u64 = categories
        .split_off(max_categories.min(categories.len()))
        .iter()
        .map(|(_, count)| count)
        .sum();
    if 2 * other > rows {
        warnings.push(Warning::MostlyOther {
            feature: name.clone(),
            other,
            rows,
        });
    }
    few_rows(&name, rows, categories.len(), warnings);
    let (categories, counts) = categories.into_iter().unzip();
    Ok(FeatureDocument::Categorical {
        name,
        kind: Categorical::Categorical,
        binning: Categorical::Categorical,
        categories,
        counts,
        other,
        missing,
    })
}

fn few_rows(name: &str, rows: u64, bins: usize, warnings: &mut Vec<Warning>) {
    if rows < ROWS_PER_BIN * bins as u64 {
        warnings.push(Warning::FewRowsPerBin {
            feature: name.to_owned(),
            rows,
            bins,
        });
    }
}

fn numeric(
    name: String,
    binning: &Binning,
    mut numbers: Vec<f64>,
    missing: u64,
    warnings: &mut Vec<Warning>,
) -> Result<FeatureDocument, ReferenceError> {
    numbers.sort_unstable_by(f64::total_cmp);
    let range = numbers.first().copied().zip(numbers.last().copied());
    if range.is_none() && !matches!(binning, Binning::Edges(_)) {
        return Err(no_values(&name));
    }
    let (low, high) = range.unwrap_or((0.0, 0.0));
    let rows = numbers.len() as u64;
    let (binning, edges) = match binning {
        Binning::Auto { .. } | Binning::Discrete => {
            let mut values: Vec<(f64, u64)> = Vec::new();
            for number in &numbers {
                match values.last_mut() {
                    Some((value, count)) if value == number => *count += 1,
                    _ => values.push((*number, 1)),
                }
            }
            let suits = values.len() <= DISCRETE_VALUES_MAX && numbers.len() >= DISCRETE_ROWS_PER_VALUE_MIN * values.len();
            match binning {
                Binning::Auto { bins } if !suits => (EdgeBinning::Quantile, quantile_edges(&numbers, *bins)),
                _ => {
                    if values.len() > DISCRETE_BINS_MAX {
                        return Err(ReferenceError::feature(
                            &name,
                            format!(
                                "{} distinct values; discrete takes at most {DISCRETE_BINS_MAX}: use quantile",
                                values.len()
                            ),
                        ));
                    }
                    few_rows(&name, rows, values.len(), warnings);
                    let (values, counts) = values.into_iter().unzip();
                    return Ok(FeatureDocument::Discrete {
                        name,
                        kind: Numeric::Numeric,
                        binning: DiscreteBinning::Discrete,
                        values,
                        range,
                        counts,
                        other: 0,
                        missing,
                    });
                }
            }
        }
        Binning::Quantile { bins } => (EdgeBinning::Quantile, quantile_edges(&numbers, *bins)),
        Binning::Uniform { bins } => (EdgeBinning::Uniform, uniform_edges(low, high, *bins)),
        Binning::Edges(edges) => (EdgeBinning::Edges, edges.clone()),
        Binning::Categorical => {
            return Err(ReferenceError::feature(
                &name,
                "a categorical feature has no numbers: this is a fault of Leeway",
            ));
        }
    };
    let mut counts = vec![0; edges.len() + 1];
    for number in &numbers {
        counts[edges.partition_point(|edge| edge < number)] += 1;
    }
    few_rows(&name, rows, counts.len(), warnings);
    Ok(FeatureDocument::Edges {
        name,
        kind: Numeric::Numeric,
        binning,
        edges,
        range,
        counts,
        missing,
    })
}
