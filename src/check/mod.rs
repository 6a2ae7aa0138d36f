//! A batch check: the rows of a file against a reference, with the numbers that the stream would give for them.
//!
//! ```text
//! reference.json --read--\
//! train.csv -----build----> Reference --+
//! today.csv ------------------rows------+--> Batch --> Report --> table | JSON | HTML
//! ```
//!
//! - Files are read row by row; memory does not grow with them. CSV is read twice, for its columns' types, as `leeway produce` does.
//! - A line that is no JSON object is counted and is no row, as in the stream.
//!
//! Not here: building a reference and reading files, which are [`crate::source`]'s; the arithmetic, which is [`leeway_topology::batch`]'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leeway_topology::batch::{Batch, Line, TooManyRows};
use leeway_topology::drift::{CheckedFeature, Criteria, Status, Summary};
use leeway_topology::event::SUMMARY;
use leeway_topology::field::Pointer;
use leeway_topology::metric::{Measurements, Metric};
use leeway_topology::quality::{CheckedQuality, Example, Quality, QualityStatus, Violation};
use leeway_topology::reference::{FeatureReference, Reference};
use serde::Serialize;

use crate::source::{self, Format, SourceError};

pub mod html;
pub mod table;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The rows cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There are none.
    #[error("{path}: no rows to check ({rejected} lines are no JSON object)")]
    NoRows {
        /// Of which file.
        path: PathBuf,
        /// Lines that are no rows.
        rejected: u64,
    },
    /// There are too many.
    #[error("{path}: {error}")]
    TooManyRows {
        /// In which file.
        path: PathBuf,
        /// How many are too many.
        error: TooManyRows,
    },
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the rows were checked against.
    pub reference: Arc<Reference>,
    /// By feature, in the reference's order.
    pub features: Vec<CheckedFeature>,
    /// Over all features.
    pub summary: Summary,
    /// Of the features that have a threshold of quality, in the reference's order.
    pub quality: Vec<CheckedQuality>,
    /// Rows checked.
    pub rows: u64,
    /// Lines that are no JSON object.
    pub rejected: u64,
}

/// The rows to check.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The file.
    pub path: &'a Path,
    /// What it is.
    pub format: Format,
    /// Features that are not the top-level fields of their names. Of JSON-lines only: a column is found by its name.
    pub paths: &'a BTreeMap<String, Pointer>,
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Criterion<'a> {
    /// Of drift.
    pub drift: &'a Criteria,
    /// Of quality.
    pub quality: &'a Quality,
}

/// Checks the rows of a file. `progress` hears of each row.
///
/// # Errors
/// When the file cannot be read, or has no rows, or too many.
pub fn check(rows: Rows<'_>, reference: &Arc<Reference>, criteria: Criterion<'_>, progress: &dyn Fn()) -> Result<Report, CheckError> {
    let Rows { path, format, paths } = rows;
    let mut batch = Batch::judging(Arc::clone(reference), paths, criteria.quality);
    let mut rejected = 0;
    let too_many = |error| CheckError::TooManyRows {
        path: path.to_owned(),
        error,
    };
    match format.as_table() {
        Some(table) => {
            let columns = source::table_columns(path, table)?;
            columns.refuse_unsupported(path, reference.features().iter().map(|feature| &**feature.name()))?;
            // Of a name that stands there twice the last one counts, as of a field in a record.
            let place = |feature: &FeatureReference| columns.known.iter().rposition(|(name, _)| name.as_str() == &**feature.name());
            let places: Vec<Option<usize>> = reference.features().iter().map(place).collect();
            source::table_rows(path, table, &columns.known, |cells| {
                progress();
                batch
                    .push_cells(places.iter().map(|place| place.and_then(|place| cells.get(place).copied())))
                    .map_err(too_many)
            })?;
        }
        None => {
            source::file_lines(path, |line| {
                progress();
                match batch.push_json(line).map_err(too_many)? {
                    Line::Counted => {}
                    Line::Rejected(_) => rejected += 1,
                }
                Ok::<_, CheckError>(())
            })?;
        }
    }
    if batch.rows() == 0 {
        return Err(CheckError::NoRows {
            path: path.to_owned(),
            rejected,
        });
    }
    let (features, summary) = batch.check(criteria.drift);
    Ok(Report {
        reference: Arc::clone(reference),
        features,
        summary,
        quality: batch.check_quality(),
        rows: batch.rows(),
        rejected,
    })
}

impl Report {
    /// Whether a feature or the summary is in drift.
    #[must_use]
    pub fn is_drift(&self) -> bool {
        self.summary.status == Status::Drift || self.summary.drifted_features > 0
    }

    /// Features whose quality is violated.
    #[must_use]
    pub fn violated(&self) -> usize {
        self.quality.iter().filter(|found| found.status() == QualityStatus::Violated).count()
    }

    /// The features that have a threshold of quality, and what was found for each.
    pub fn of_quality(&self) -> impl Iterator<Item = (&FeatureReference, &CheckedQuality)> {
        let features = self.reference.features();
        self.quality.iter().map(move |found| (&features[found.feature], found))
    }

    /// The verdict on all: a feature that drifts is not to be missed behind a mean of many that do not.
    #[must_use]
    pub fn verdict(&self) -> Status {
        if self.is_drift() { Status::Drift } else { self.summary.status }
    }

    /// Features and what was found for each, worst first: by status, then by PSI, then as the reference has them.
    #[must_use]
    pub fn worst_first(&self) -> Vec<(&FeatureReference, &CheckedFeature)> {
        let mut features: Vec<_> = self.reference.features().iter().zip(&self.features).collect();
        features.sort_by(|(_, a), (_, b)| {
            (b.check.status, b.check.psi)
                .partial_cmp(&(a.check.status, a.check.psi))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        features
    }

    /// Features that no row has: more likely a name that is spelled otherwise than drift.
    pub fn never_there(&self) -> impl Iterator<Item = &FeatureReference> {
        let all = |found: &CheckedFeature| found.counts.last() == Some(&self.rows);
        self.reference
            .features()
            .iter()
            .zip(&self.features)
            .filter(move |(_, found)| all(found))
            .map(|(feature, _)| feature)
    }

    /// The report for programs: one object, its fields named as in a drift event.
    #[must_use]
    pub fn to_json(&self) -> String {
        let version = self.reference.version();
        let features = self.reference.features().iter().zip(&self.features);
        let document = Document {
            summary: SummaryDocument {
                feature: SUMMARY,
                psi: self.summary.psi,
                status: self.summary.status,
                window_count: self.rows,
                rejected_count: self.rejected,
                feature_count: self.summary.feature_count,
                drifted_features: self.summary.drifted_features,
                reference_version: version,
            },
            features: features.map(|(feature, found)| self.feature(feature, found)).collect(),
            quality: self.of_quality().map(|(feature, found)| self.feature_quality(feature, found)).collect(),
        };
        // Serialising these types into memory cannot fail.
        serde_json::to_string(&document).unwrap_or_default() + "\n"
    }

    fn feature<'a>(&'a self, feature: &'a FeatureReference, found: &'a CheckedFeature) -> FeatureDocument<'a> {
        let Measurements {
            js,
            ks,
            wasserstein,
            chi2_p_value,
        } = found.check.measurements;
        FeatureDocument {
            feature: feature.name(),
            psi: found.check.psi,
            p_value: found.check.p_value,
            psi_null_mean: found.check.psi_null_mean,
            significant: found.check.significant,
            status: found.check.status,
            window_count: self.rows,
            missing_count: found.counts.last().copied().unwrap_or_default(),
            below_range_count: found.sides.map(|(below, _)| below),
            above_range_count: found.sides.map(|(_, above)| above),
            counts: &found.counts,
            top_bin: found.check.top.map(|(bin, _)| feature.label(bin)),
            top_bin_contribution: found.check.top.map(|(_, contribution)| contribution),
            reference_version: self.reference.version(),
            js,
            ks,
            wasserstein,
            chi2_p_value,
        }
    }

    fn feature_quality<'a>(&'a self, feature: &'a FeatureReference, found: &'a CheckedQuality) -> QualityDocument<'a> {
        let CheckedQuality { shares, limits, .. } = found;
        QualityDocument {
            feature: feature.name(),
            status: found.status(),
            window_count: self.rows,
            missing_share: shares.missing.unwrap_or_default(),
            missing_threshold: limits.missing,
            other_share: shares.other,
            other_threshold: limits.other,
            out_of_range_share: shares.out_of_range,
            out_of_range_threshold: limits.out_of_range,
            violations: &found.violations,
            examples: found.examples.as_deref(),
            reference_version: self.reference.version(),
        }
    }

    /// The metrics beside PSI that some feature has.
    fn measured(&self) -> impl Iterator<Item = Metric> {
        let is_there = |metric: &Metric| self.features.iter().any(|found| found.check.measurements.get(*metric).is_some());
        Metric::ALL.into_iter().filter(is_there)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    summary: SummaryDocument<'a>,
    features: Vec<FeatureDocument<'a>>,
    quality: Vec<QualityDocument<'a>>,
}

#[derive(Serialize)]
struct SummaryDocument<'a> {
    feature: &'a str,
    psi: f64,
    status: Status,
    window_count: u64,
    /// Not in an event: in the stream they are dead letters.
    rejected_count: u64,
    feature_count: u64,
    drifted_features: u64,
    reference_version: &'a str,
}

#[derive(Serialize)]
struct FeatureDocument<'a> {
    feature: &'a str,
    psi: f64,
    p_value: f64,
    psi_null_mean: f64,
    significant: Option<bool>,
    status: Status,
    window_count: u64,
    missing_count: u64,
    below_range_count: Option<u64>,
    above_range_count: Option<u64>,
    counts: &'a [u64],
    top_bin: Option<String>,
    top_bin_contribution: Option<f64>,
    reference_version: &'a str,
    js: Option<f64>,
    ks: Option<f64>,
    wasserstein: Option<f64>,
    chi2_p_value: Option<f64>,
}

/// The fields of a quality event that a file has.
#[derive(Serialize)]
struct QualityDocument<'a> {
    feature: &'a str,
    status: QualityStatus,
    window_count: u64,
    missing_share: f64,
    missing_threshold: Option<f64>,
    other_share: Option<f64>,
    other_threshold: Option<f64>,
    out_of_range_share: Option<f64>,
    out_of_range_threshold: Option<f64>,
    violations: &'a [Violation],
    examples: Option<&'a [Example]>,
    reference_version: &'a str,
}

/// A share for people, beside the threshold that it is held against: `4.20 % < 5 %`.
fn share(found: &CheckedQuality, violation: Violation) -> String {
    match (found.shares.get(violation), found.limits.get(violation)) {
        (None, _) => "-".to_owned(),
        (Some(share), None) => format!("{:.2} %", share * 100.0),
        (Some(share), Some(limit)) => {
            let sign = if found.violations.contains(&violation) { '≥' } else { '<' };
            // Thresholds are written with few digits: what a double adds to them is left out.
            format!("{:.2} % {sign} {} %", share * 100.0, (limit * 1e8).round() / 1e6)
        }
    }
}

/// Examples for people: `"gold" (3), "silver" (1)`.
fn examples(found: &CheckedQuality) -> String {
    let examples = found.examples.iter().flatten();
    let texts: Vec<_> = examples.map(|Example { value, count }| format!("{value:?} ({count})")).collect();
    texts.join(", ")
}

/// A count as a part of a whole, in percent; 0 of nothing.
fn percent(count: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { count as f64 / whole as f64 * 100.0 }
}

/// A verdict for people.
fn words(status: Status) -> &'static str {
    match status {
        Status::NoDrift => "no drift",
        Status::PossibleDrift => "possible drift",
        Status::Drift => "drift",
    }
}
