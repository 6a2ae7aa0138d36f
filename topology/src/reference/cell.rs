//! Cells of a table and the types of its columns: one rule for building a reference and for producing, so that a file that is built as reference
//! and then sent has PSI 0.

use std::borrow::Cow;

use crate::binning::{Bins, category_of_number, decimal};
use crate::record::{Missing, Observation};

/// Texts that mean: nothing here. (Infinities do too, as numbers outside the finite doubles.)
const MISSING_TEXTS: [&str; 6] = ["", "NA", "N/A", "NaN", "null", "None"];

/// A cell of a typed column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// No value.
    Missing,
    /// A finite number.
    Number(f64),
    /// A boolean.
    Bool(bool),
    /// A text.
    Text(&'a str),
}

impl<'a> Cell<'a> {
    /// What a CSV cell is on its own, before its column has a type.
    #[must_use]
    pub fn of_csv(raw: &'a str) -> Self {
        let trimmed = raw.trim();
        if MISSING_TEXTS.contains(&trimmed) {
            return Self::Missing;
        }
        match trimmed.parse::<f64>() {
            Ok(number) if number.is_finite() => Self::Number(number),
            Ok(_) => Self::Missing,
            Err(_) if trimmed.eq_ignore_ascii_case("true") => Self::Bool(true),
            Err(_) if trimmed.eq_ignore_ascii_case("false") => Self::Bool(false),
            Err(_) => Self::Text(raw),
        }
    }

    /// A CSV cell in a column of this type: in a text column `1` and `true` are texts, but `1.0` is the category `1` as everywhere.
    #[must_use]
    pub fn of_csv_column(raw: &'a str, column: ColumnType) -> Self {
        match (Self::of_csv(raw), column) {
            (Self::Missing, _) => Self::Missing,
            (cell @ Self::Number(_), ColumnType::Number) | (cell @ Self::Bool(_), ColumnType::Bool) => cell,
            (Self::Number(number), ColumnType::Text) if category_of_number(number).is_some() => Self::Number(number),
            (_, _) => Self::Text(raw),
        }
    }

    /// What a cell says of a feature: as [`Self::to_json`] does when it is sent. `None`: the table has no such column.
    #[must_use]
    pub fn observe(cell: Option<Self>, bins: &Bins) -> Observation {
        match cell {
            None => bins.missing(Missing::Absent),
            Some(Self::Missing) => bins.missing(Missing::Null),
            Some(Self::Number(number)) => bins.observe_number(number),
            Some(Self::Bool(value)) => bins.observe_bool(value),
            Some(Self::Text(text)) => bins.observe_text(text),
        }
    }

    /// What it is as an example of values: the text by which it would be a category, or a decimal. `None`: nothing.
    #[must_use]
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Missing => None,
            Self::Number(number) => Some(category_of_number(number).unwrap_or_else(|| decimal(number)).into()),
            Self::Bool(value) => Some(if value { "true" } else { "false" }.into()),
            Self::Text(text) => Some(text.into()),
        }
    }

    /// As a JSON value, as `leeway produce` sends it.
    #[must_use]
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Self::Missing => serde_json::Value::Null,
            Self::Number(number) => number.into(),
            Self::Bool(value) => value.into(),
            Self::Text(text) => text.into(),
        }
    }
}

/// The type of a column: decided by all of its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColumnType {
    /// Every cell that is there is a number.
    #[default]
    Number,
    /// Every cell that is there is true or false.
    Bool,
    /// Anything else.
    Text,
}

/// Finds a column's type cell by cell.
#[derive(Clone, Copy, Debug, Default)]
pub struct ColumnTyper {
    seen: Option<ColumnType>,
}

impl ColumnTyper {
    /// Takes one more cell into account.
    pub fn observe(&mut self, cell: &Cell<'_>) {
        let this = match cell {
            Cell::Missing => return,
            Cell::Number(_) => ColumnType::Number,
            Cell::Bool(_) => ColumnType::Bool,
            Cell::Text(_) => ColumnType::Text,
        };
        self.seen = Some(match self.seen {
            None => this,
            Some(seen) if seen == this => seen,
            Some(_) => ColumnType::Text,
        });
    }

    /// The type; a column without any value counts as one of numbers.
    #[must_use]
    pub fn column_type(self) -> ColumnType {
        self.seen.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_are_missing_numbers_booleans_or_texts() {
        for raw in ["", " ", "NA", "N/A", "NaN", "null", "None", "inf", "-Infinity", "1e400"] {
            assert_eq!(Cell::of_csv(raw), Cell::Missing, "{raw:?}");
        }
        assert_eq!(
            [Cell::of_csv("1.5"), Cell::of_csv(" 2 "), Cell::of_csv("TRUE"), Cell::of_csv("a b")],
            [Cell::Number(1.5), Cell::Number(2.0), Cell::Bool(true), Cell::Text("a b")]
        );
    }

    #[test]
    fn one_text_makes_the_column_a_column_of_texts() {
        let column = |cells: &[&str]| {
            let mut typer = ColumnTyper::default();
            cells.iter().for_each(|raw| typer.observe(&Cell::of_csv(raw)));
            typer.column_type()
        };
        assert_eq!(column(&["1", "", "2"]), ColumnType::Number);
        assert_eq!(column(&["true", "False"]), ColumnType::Bool);
        assert_eq!(column(&["1", "x"]), ColumnType::Text);
        assert_eq!(column(&["1", "true"]), ColumnType::Text);
        assert_eq!(Cell::of_csv_column("true", ColumnType::Text), Cell::Text("true"));
        assert_eq!(Cell::of_csv_column("1.0", ColumnType::Text), Cell::Number(1.0));
        assert_eq!(Cell::of_csv_column("1.5", ColumnType::Text), Cell::Text("1.5"));
    }
}
