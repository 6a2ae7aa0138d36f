//! A check of rows that are all there: no partition, no order, one window that holds them all.
//!
//! The numbers are those of a window in the stream over the same rows; `min_samples` does not apply, since nobody waits for more.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decoder::Decoder;
use crate::drift::{CheckedFeature, Criteria, Summary};
use crate::field::Pointer;
use crate::histogram::{Histogram, Layout, RECORDS_MAX};
use crate::record::{Observation, Rejected};
use crate::reference::{Cell, Reference};

/// Counts rows against a reference. Its memory does not grow with them.
pub struct Batch {
    reference: Arc<Reference>,
    layout: Layout,
    histogram: Histogram,
    decoder: Decoder,
    row: Vec<Observation>,
}

/// A row too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {RECORDS_MAX} rows: check the data in parts")]
pub struct TooManyRows;

/// What became of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A row.
    Counted,
    /// No JSON object.
    Rejected(Rejected),
}

impl Batch {
    /// No rows yet. Each feature is the top-level field, or the column, of its name.
    #[must_use]
    pub fn new(reference: Arc<Reference>) -> Self {
        Self::at_paths(reference, &BTreeMap::new())
    }

    /// No rows yet. Features with a path are taken from there, of rows as JSON.
    #[must_use]
    pub fn at_paths(reference: Arc<Reference>, paths: &BTreeMap<String, Pointer>) -> Self {
        let layout = Layout::new(reference.features().iter().map(|feature| feature.counts().len()));
        Self {
            histogram: Histogram::new(&layout),
            layout,
            decoder: Decoder::empty().with_features(&reference, paths),
            row: Vec::new(),
            reference,
        }
    }

    /// Rows counted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.histogram.records()
    }

    /// Takes a row as JSON, by the rules for records.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push_json(&mut self, line: &[u8]) -> Result<Line, TooManyRows> {
        match self.decoder.decode(line, &mut self.row) {
            Ok(()) => self.count().map(|()| Line::Counted),
            Err(rejected) => Ok(Line::Rejected(rejected)),
        }
    }

    /// Takes a row of a table: for each feature of the reference, in its order, its cell; `None` where the table has no such column.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push_cells<'a>(&mut self, cells: impl IntoIterator<Item = Option<Cell<'a>>>) -> Result<(), TooManyRows> {
        self.row.clear();
        let features = self.reference.features().iter().zip(cells);
        self.row.extend(features.map(|(feature, cell)| Cell::observe(cell, feature.bins())));
        self.count()
    }

    fn count(&mut self) -> Result<(), TooManyRows> {
        if self.rows() == RECORDS_MAX {
            return Err(TooManyRows);
        }
        self.histogram.observe(&self.layout, &self.row);
        Ok(())
    }

    /// Checks every feature over all rows, in the reference's order, and sums up. There must be rows.
    #[must_use]
    pub fn check(&self, criteria: &Criteria) -> (Vec<CheckedFeature>, Summary) {
        criteria.check_all(&self.reference, &self.layout, &self.histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binning::Binning;
    use crate::drift::Status;
    use crate::reference::{ColumnType, ReferenceBuilder};

    fn reference() -> Arc<Reference> {
        let columns = [("x".to_owned(), ColumnType::Number), ("plan".to_owned(), ColumnType::Text)];
        let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 10 }, &[], 50).unwrap();
        for row in 0..1000 {
            builder.push_row([Cell::Number(f64::from(row)), Cell::Text(if row % 4 == 0 { "pro" } else { "basic" })]);
        }
        Arc::new(builder.finish().unwrap().0)
    }

    #[test]
    fn cells_and_json_of_the_same_rows_give_the_same_counts() {
        let (mut cells, mut json) = (Batch::new(reference()), Batch::new(reference()));
        for row in 0..500 {
            let (x, plan) = (f64::from(row) * 1.5 - 100.0, ["basic", "new", "pro"][row as usize % 3]);
            cells.push_cells([Some(Cell::Number(x)), Some(Cell::Text(plan))]).unwrap();
            json.push_json(format!("{{\"plan\": \"{plan}\", \"x\": {x}, \"y\": []}}").as_bytes())
                .unwrap();
        }
        cells.push_cells([None, Some(Cell::Missing)]).unwrap();
        json.push_json(b"{\"plan\": null}").unwrap();
        assert_eq!(cells.check(&Criteria::default()), json.check(&Criteria::default()));
        assert_eq!(cells.rows(), 501);
        let (features, _) = cells.check(&Criteria::default());
        assert_eq!((features[0].counts.last(), features[0].sides), (Some(&1), Some((67, 0))));
    }

    #[test]
    fn rows_of_the_reference_have_psi_zero_and_others_drift() {
        let mut same = Batch::new(reference());
        let mut other = Batch::new(reference());
        for row in 0..1000 {
            let plan = if row % 4 == 0 { "pro" } else { "basic" };
            same.push_cells([Some(Cell::Number(f64::from(row))), Some(Cell::Text(plan))]).unwrap();
            other
                .push_cells([Some(Cell::Number(f64::from(row) / 2.0)), Some(Cell::Text(plan))])
                .unwrap();
        }
        let (_, summary) = same.check(&Criteria::default());
        assert_eq!((summary.psi, summary.status), (0.0, Status::NoDrift));
        let (features, summary) = other.check(&Criteria::default());
        assert_eq!([features[0].check.status, features[1].check.status], [Status::Drift, Status::NoDrift]);
        assert_eq!((summary.feature_count, summary.drifted_features), (2, 1));
    }

    #[test]
    fn line_that_is_no_object_is_no_row() {
        let mut batch = Batch::new(reference());
        assert!(matches!(batch.push_json(b"[1]").unwrap(), Line::Rejected(Rejected::NotAnObject { .. })));
        assert_eq!(batch.rows(), 0);
    }
}
