//! A check of rows that are all there: no partition, no order, one window that holds them all.
//!
//! The numbers are those of a window in the stream over the same rows; `min_samples` does not apply, since nobody waits for more.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decoder::Decoder;
use crate::drift::{CheckedFeature, Criteria, Summary};
use crate::field::Pointer;
use crate::histogram::{Histogram, Layout, RECORDS_MAX};
use crate::quality::{ByViolation, CheckedQuality, FrequentValues, Quality, shares, violations};
use crate::record::{Missing, Observation, Rejected};
use crate::reference::{Cell, Reference};

/// Counts rows against a reference. Its memory does not grow with them.
pub struct Batch {
    reference: Arc<Reference>,
    layout: Layout,
    histogram: Histogram,
    decoder: Decoder,
    row: Vec<Observation>,
    /// In the reference's order.
    limited: Vec<Limited>,
}

/// A feature with a limit of quality.
struct Limited {
    /// Its place in the reference.
    feature: usize,
    limits: ByViolation,
    /// Its values in `other`, if they have a limit.
    others: Option<FrequentValues>,
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
        Self::judging(reference, paths, &Quality::default())
    }

    /// As [`Self::at_paths`], for a check of quality too.
    #[must_use]
    pub fn judging(reference: Arc<Reference>, paths: &BTreeMap<String, Pointer>, quality: &Quality) -> Self {
        let limits = reference.features().iter().map(|feature| quality.limits_of(feature)).enumerate();
        let limited: Vec<_> = limits
            .filter(|(_, limits)| !limits.is_empty())
            .map(|(feature, limits)| Limited {
                feature,
                limits,
                others: limits.other.map(|_| FrequentValues::default()),
            })
            .collect();
        let watched = limited.iter().filter(|limited| limited.others.is_some()).map(|limited| limited.feature);
        let layout = Layout::new(reference.features().iter().map(|feature| feature.counts().len()));
        Self {
            histogram: Histogram::new(&layout),
            layout,
            decoder: Decoder::empty().with_watched_features(&reference, paths, watched),
            row: Vec::new(),
            limited,
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
            Ok(()) => {
                let others = self.limited.iter_mut().filter_map(|limited| limited.others.as_mut());
                for (others, value) in others.zip(self.decoder.watched_values()) {
                    if let Some(value) = value.get() {
                        others.push(value);
                    }
                }
                self.count().map(|()| Line::Counted)
            }
            Err(rejected) => Ok(Line::Rejected(rejected)),
        }
    }

    /// Takes a row of a table: for each feature of the reference, in its order, its cell; `None` where the table has no such column.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push_cells<'a>(&mut self, cells: impl IntoIterator<Item = Option<Cell<'a>>>) -> Result<(), TooManyRows> {
        self.row.clear();
        let mut limited = self.limited.iter_mut().peekable();
        for (index, (feature, cell)) in self.reference.features().iter().zip(cells).enumerate() {
            let observation = Cell::observe(cell, feature.bins());
            if let Some(Limited { others: Some(others), .. }) = limited.next_if(|limited| limited.feature == index)
                // What stands before missing.
                && observation.bin + 1 == feature.bins().missing(Missing::Null).bin
                && let Some(text) = cell.and_then(Cell::text)
            {
                others.push(&text);
            }
            self.row.push(observation);
        }
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

    /// Judges the quality of every feature that has a limit over all rows, in the reference's order.
    #[must_use]
    pub fn check_quality(&self) -> Vec<CheckedQuality> {
        let check = |limited: &Limited| {
            let shares = shares(
                &self.reference.features()[limited.feature],
                limited.feature,
                &self.layout,
                &self.histogram,
            );
            CheckedQuality {
                feature: limited.feature,
                shares,
                limits: limited.limits,
                violations: violations(&shares, &limited.limits),
                examples: limited.others.as_ref().map(FrequentValues::examples),
            }
        };
        self.limited.iter().map(check).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binning::Binning;
    use crate::drift::Status;
    use crate::quality::{QualityStatus, Violation};
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
    fn quality_of_cells_and_of_json_of_the_same_rows_is_the_same() {
        let limit = |share| ByViolation {
            missing: Some(share),
            other: Some(share),
            out_of_range: Some(share),
        };
        let quality = Quality {
            limits: limit(0.25),
            feature_limits: [("x".to_owned(), ByViolation { other: None, ..limit(0.5) })].into(),
        };
        let columns = [("x", ColumnType::Number), ("doors", ColumnType::Number), ("plan", ColumnType::Text)];
        let columns = columns.map(|(name, column)| (name.to_owned(), column));
        let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Auto { bins: 10 }, &[], 50).unwrap();
        for row in 0..1000 {
            builder.push_row([Cell::Number(f64::from(row)), Cell::Number(f64::from(row % 3)), Cell::Text("basic")]);
        }
        let reference = Arc::new(builder.finish().unwrap().0);
        let batch = || Batch::judging(Arc::clone(&reference), &BTreeMap::new(), &quality);
        let (mut cells, mut json) = (batch(), batch());
        let rows = [
            (
                [Cell::Number(5.0), Cell::Number(1.0), Cell::Text("basic")],
                r#"{"x": 5, "doors": 1, "plan": "basic"}"#,
            ),
            (
                [Cell::Number(-1.0), Cell::Number(2.5), Cell::Text("new")],
                r#"{"x": -1, "doors": 2.5, "plan": "new"}"#,
            ),
            (
                [Cell::Missing, Cell::Number(7.0), Cell::Number(3.0)],
                r#"{"x": null, "doors": 7.0, "plan": 3}"#,
            ),
            (
                [Cell::Number(1e4), Cell::Number(7.0), Cell::Bool(true)],
                r#"{"x": 1e4, "doors": 7, "plan": true}"#,
            ),
        ];
        for (row, line) in rows {
            cells.push_cells(row.map(Some)).unwrap();
            assert_eq!(json.push_json(line.as_bytes()).unwrap(), Line::Counted);
        }
        let found = cells.check_quality();
        assert_eq!(found, json.check_quality());
        let [x, doors, plan] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            (x.shares.missing, x.shares.other, x.shares.out_of_range),
            (Some(0.25), None, Some(2.0 / 3.0))
        );
        assert_eq!((&x.violations[..], &x.examples), (&[Violation::OutOfRange][..], &None));
        let examples = |checked: &CheckedQuality| -> Vec<(String, u64)> {
            let examples = checked.examples.clone().unwrap();
            examples.into_iter().map(|example| (example.value, example.count)).collect()
        };
        assert_eq!(examples(doors), [("7".to_owned(), 2), ("2.5".to_owned(), 1)]);
        assert_eq!((doors.violations.len(), doors.status()), (2, QualityStatus::Violated));
        assert_eq!(examples(plan), ["3", "new", "true"].map(|text| (text.to_owned(), 1)));
        assert_eq!(plan.violations, [Violation::Other]);
        assert_eq!(Batch::new(reference).check_quality(), []);
    }

    #[test]
    fn line_that_is_no_object_is_no_row() {
        let mut batch = Batch::new(reference());
        assert!(matches!(batch.push_json(b"[1]").unwrap(), Line::Rejected(Rejected::NotAnObject { .. })));
        assert_eq!(batch.rows(), 0);
    }
}
