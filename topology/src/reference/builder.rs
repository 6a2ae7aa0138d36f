//! Builds a reference from the rows of a table.
//!
//! ```text
//! rows --push_row--> ReferenceBuilder --end--> Built: the reference, of values that are all in memory
//!                                        \--> Again: bins of a sketch --> Recount <--push_row-- the same rows --finish--> the reference
//! ```
//!
//! - The columns' types are known before the first row ([`super::ColumnTyper`] finds them).
//! - Values are kept as long as they are within [`Limits`]: quantiles are exact, and every text is counted. Beyond, the columns that take most are
//!   summarised, one after the other: numbers by a sketch of their quantiles ([`super::quantile_sketch`]), texts by the counts of the most
//!   frequent ([`super::frequent`]).
//! - Bins that come of a summary are counted in a second pass over the rows. So what is not exact is where an edge stands, or which of the rarer
//!   texts has a bin of its own. Counts are exact, and so is each PSI against them; and so are a column's range, whether its values only rise, and
//!   whether they are few enough to be discrete.
//!
//! What becomes of one column is [`super::column`]'s.

use std::collections::BTreeSet;
use std::fmt;

use super::column::{Column, Recounted};
use super::document::FeatureDocument;
use super::quantile_sketch::WITHIN;
use super::{Cell, ColumnType, RESERVED, Reference, ReferenceError, version_of};
use crate::binning::Binning;

/// Columns that are no features unless they are asked for by name.
const LEFT_OUT: [&str; 4] = ["timestamp", "target", "id", "key"];

/// Rows a bin should have in the reference.
const ROWS_PER_BIN: u64 = 50;

/// What a builder may keep in memory of all columns together, before it summarises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Numbers, of 8 bytes each.
    pub numbers: usize,
    /// Bytes of distinct texts, and of what it takes to count them.
    pub text_bytes: usize,
}

impl Limits {
    /// All of it: for rows that are in memory anyway, or are known to be few.
    pub const NONE: Self = Self {
        numbers: usize::MAX,
        text_bytes: usize::MAX,
    };
}

/// 512 MiB of numbers and 256 MiB of texts: of 100 numeric features 670,000 rows are exact.
impl Default for Limits {
    fn default() -> Self {
        Self {
            numbers: 64 << 20,
            text_bytes: 256 << 20,
        }
    }
}

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
    /// More numbers than memory may hold: their quantiles are those of a sketch.
    SketchedQuantiles {
        /// Which.
        features: Vec<String>,
    },
    /// More texts than memory may hold, and a rarer one that was not counted may be as frequent as one that has a bin.
    SketchedCategories {
        /// Which.
        feature: String,
        /// Rows that a text without a bin may have.
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
            Self::SketchedQuantiles { features } => write!(
                f,
                "{}: too many values to keep, so the edges are quantiles within {WITHIN} of the rows; the counts are exact",
                features.join(", ")
            ),
            Self::SketchedCategories { feature, rows } => write!(
                f,
                "{feature}: too many distinct texts to keep; one that has no bin of its own may be in up to {rows} rows; the counts are exact"
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
    limits: Limits,
    /// Kept of all columns.
    numbers: usize,
    text_bytes: usize,
    rows: u64,
}

/// What the first pass over the rows comes to.
pub enum Pass {
    /// All that there was to know.
    Built(Reference, Vec<Warning>),
    /// The bins; their counts take the same rows again.
    Again(Recount),
}

/// Counts rows, the same as before, in bins that are known.
pub struct Recount {
    monitor: String,
    columns: Vec<Option<Again>>,
    max_categories: usize,
    /// In the first pass.
    rows: u64,
    recounted: u64,
}

/// A column in the second pass.
enum Again {
    /// All of its values are kept: it has no use for the rows.
    Kept(Column),
    Recounted(Recounted),
}

impl ReferenceBuilder {
    /// A builder for a table with these columns. `overrides` gives single features their binning, and names columns that would be left out. It keeps
    /// all values, unless it is told of limits.
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
            limits: Limits::NONE,
            numbers: 0,
            text_bytes: 0,
            rows: 0,
        })
    }

    /// The same, within these limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
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
                let grown = column.push(&cell);
                self.numbers += grown.numbers;
                self.text_bytes += grown.text_bytes;
            }
        }
        while self.numbers > self.limits.numbers && self.summarise_largest(Column::numbers) {}
        while self.text_bytes > self.limits.text_bytes && self.summarise_largest(Column::text_bytes) {}
    }

    /// Makes the column that keeps most of something keep less; of several the first. Says whether there was one.
    fn summarise_largest(&mut self, kept: impl Fn(&Column) -> usize) -> bool {
        let columns = self.columns.iter_mut().flatten().rev();
        let Some(largest) = columns.max_by_key(|column| kept(column)).filter(|largest| kept(largest) > 0) else {
            return false;
        };
        let (numbers, text_bytes) = (largest.numbers(), largest.text_bytes());
        largest.summarise();
        self.numbers -= numbers - largest.numbers();
        self.text_bytes -= text_bytes - largest.text_bytes();
        true
    }

    /// Ends the first pass.
    ///
    /// # Errors
    /// When there are no rows or features, or a feature has no bins.
    pub fn end(self) -> Result<Pass, ReferenceError> {
        if self.rows == 0 {
            return Err(ReferenceError::NoRows);
        }
        let again = |column: Column| {
            if column.is_summarised() {
                column.recounted().map(Again::Recounted)
            } else {
                Ok(Again::Kept(column))
            }
        };
        let columns = self.columns.into_iter().map(|column| column.map(again).transpose());
        let recount = Recount {
            monitor: self.monitor,
            columns: columns.collect::<Result<_, _>>()?,
            max_categories: self.max_categories,
            rows: self.rows,
            recounted: 0,
        };
        if recount.columns.iter().flatten().any(|column| matches!(column, Again::Recounted(_))) {
            return Ok(Pass::Again(recount));
        }
        recount.build().map(|(reference, warnings)| Pass::Built(reference, warnings))
    }

    /// The reference of all rows so far, and what the user should know. For a builder without limits.
    ///
    /// # Errors
    /// When there are no rows or features, or a feature has no bins; or when limits were exceeded, so that it takes the rows once more.
    pub fn finish(self) -> Result<(Reference, Vec<Warning>), ReferenceError> {
        match self.end()? {
            Pass::Built(reference, warnings) => Ok((reference, warnings)),
            Pass::Again(recount) => recount.finish(),
        }
    }
}

impl Recount {
    /// Takes a row, as [`ReferenceBuilder::push_row`] does.
    pub fn push_row<'a>(&mut self, row: impl IntoIterator<Item = Cell<'a>>) {
        self.recounted += 1;
        let mut cells = row.into_iter();
        for column in &mut self.columns {
            let cell = cells.next().unwrap_or(Cell::Missing);
            if let Some(Again::Recounted(column)) = column {
                column.push(&cell);
            }
        }
    }

    /// The reference, and what the user should know.
    ///
    /// # Errors
    /// When there were more or fewer rows than before, or there are no features, or one has no bins.
    pub fn finish(self) -> Result<(Reference, Vec<Warning>), ReferenceError> {
        if self.rows != self.recounted {
            return Err(ReferenceError::Changed {
                first: self.rows,
                second: self.recounted,
            });
        }
        self.build()
    }

    fn build(self) -> Result<(Reference, Vec<Warning>), ReferenceError> {
        let (mut warnings, mut sketched) = (Vec::new(), Vec::new());
        let mut features: Vec<FeatureDocument> = Vec::new();
        for column in self.columns.into_iter().flatten() {
            match column {
                Again::Kept(column) if column.is_empty() && !column.is_asked() => warnings.push(Warning::NoValues { feature: column.into_name() }),
                Again::Kept(column) => features.push(column.finish(self.max_categories, &mut warnings)?),
                Again::Recounted(column) => {
                    if column.has_sketched_edges() {
                        sketched.push(column.name().to_owned());
                    }
                    features.push(column.finish(self.max_categories, &mut warnings)?);
                }
            }
        }
        if !sketched.is_empty() {
            warnings.push(Warning::SketchedQuantiles { features: sketched });
        }
        let json = serde_json::to_value(&features).map_err(|error| ReferenceError::Malformed(error.to_string()))?;
        let version = version_of(&json)?;
        Reference::new(self.monitor, self.rows, features, version).map(|reference| (reference, warnings))
    }
}

/// Warns if bins have few rows.
pub(super) fn few_rows(name: &str, rows: u64, bins: usize, warnings: &mut Vec<Warning>) {
    if rows < ROWS_PER_BIN * bins as u64 {
        warnings.push(Warning::FewRowsPerBin {
            feature: name.to_owned(),
            rows,
            bins,
        });
    }
}
