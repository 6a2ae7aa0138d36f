//! A reference: the bins of a monitor's features and how many of the training rows fell into each.
//!
//! ```text
//! columns --builder--> reference <--> JSON document (a file, or the value in the reference topic)
//! ```
//!
//! Immutable and validated; its version is the hash of its features, so the same content has the same version wherever it was built. It knows
//! nothing of windows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::binning::{Bins, MISSING, OTHER, are_edges, decimal};

mod builder;
mod cell;
mod column;
mod document;
mod frequent;
mod quantile_sketch;

pub use builder::{Limits, Pass, Recount, ReferenceBuilder, Warning};
pub use cell::{Cell, ColumnType, ColumnTyper};
use document::{Document, FeatureDocument};

/// Version of the document that this build reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The name of the summary in drift events: no feature may have it.
const RESERVED: &str = "*";

/// A monitor's reference.
#[derive(Clone, Debug)]
pub struct Reference {
    version: String,
    monitor: String,
    rows: u64,
    features: Vec<FeatureReference>,
}

/// One feature of a reference.
#[derive(Clone, Debug)]
pub struct FeatureReference {
    name: Arc<str>,
    bins: Bins,
    counts: Vec<u64>,
    labels: Vec<String>,
    document: FeatureDocument,
}

/// Why a reference cannot be used, built or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not the JSON of a reference.
    #[error("this is no reference document: {0}")]
    Malformed(String),
    /// Of another format.
    #[error("schema_version is {found}, this build reads {SCHEMA_VERSION}: use the release that wrote it, or build the reference again")]
    SchemaVersion {
        /// What stands there.
        found: u64,
    },
    /// Edited by hand, or damaged.
    #[error(
        "version {found:?} does not fit the features, which hash to {computed:?}: the file was edited or damaged; build it again with `leeway reference build`"
    )]
    Version {
        /// What stands there.
        found: String,
        /// What the features hash to.
        computed: String,
    },
    /// One feature makes no sense.
    #[error("feature {feature:?}: {fault}")]
    Feature {
        /// Which.
        feature: String,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// Nothing to compare with.
    #[error("the reference has no rows; it needs at least one row of training data")]
    NoRows,
    /// The rows of the second pass are not those of the first.
    #[error(
        "the data had {first} rows when they were read first and {second} when they were read again: build the reference of data that do not change"
    )]
    Changed {
        /// In the first pass.
        first: u64,
        /// In the second.
        second: u64,
    },
    /// No features.
    #[error("the reference has no features")]
    NoFeatures,
    /// A feature that is asked for is not there.
    #[error("the reference of monitor {monitor:?} has no feature {feature:?}; it has {known}")]
    NoSuchFeature {
        /// Whose reference.
        monitor: String,
        /// What was asked for.
        feature: String,
        /// What is there.
        known: String,
    },
}

impl ReferenceError {
    fn feature(name: &str, fault: impl Into<String>) -> Self {
        Self::Feature {
            feature: name.to_owned(),
            fault: fault.into(),
        }
    }
}

impl Reference {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is not a valid document of this format, or its version is not the hash of its features.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ReferenceError> {
        let malformed = |error: serde_json::Error| ReferenceError::Malformed(error.to_string());
        let raw: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
        match raw.get("schema_version").and_then(serde_json::Value::as_u64) {
            Some(found) if found != u64::from(SCHEMA_VERSION) => return Err(ReferenceError::SchemaVersion { found }),
            _ => {}
        }
        // From the bytes once more: so the error names line and column.
        let document: Document = serde_json::from_slice(bytes).map_err(malformed)?;
        let computed = version_of(&raw["features"])?;
        if document.version != computed {
            return Err(ReferenceError::Version {
                found: document.version,
                computed,
            });
        }
        Self::new(document.monitor, document.rows, document.features, computed)
    }

    fn new(monitor: String, rows: u64, features: Vec<FeatureDocument>, version: String) -> Result<Self, ReferenceError> {
        if features.is_empty() {
            return Err(ReferenceError::NoFeatures);
        }
        if rows == 0 {
            return Err(ReferenceError::NoRows);
        }
        let mut names = BTreeSet::new();
        let features = features.into_iter().map(FeatureReference::new).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = features.iter().find(|feature| !names.insert(feature.name.clone())) {
            return Err(ReferenceError::feature(&twice.name, "stands there twice"));
        }
        Ok(Self {
            version,
            monitor,
            rows,
            features,
        })
    }

    /// The document: JSON, readable, with a line feed at its end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let features = self.features.iter().map(|feature| feature.document.clone()).collect();
        let document = Document {
            schema_version: SCHEMA_VERSION,
            version: self.version.clone(),
            monitor: self.monitor.clone(),
            rows: self.rows,
            features,
        };
        document.to_lines()
    }

    /// First 16 hex digits of the SHA-256 of its features in RFC 8785 form.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whose reference it is.
    #[must_use]
    pub fn monitor(&self) -> &str {
        &self.monitor
    }

    /// Rows that it was built from.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Its features, in the input's order.
    #[must_use]
    pub fn features(&self) -> &[FeatureReference] {
        &self.features
    }

    /// The same reference for another monitor; the version is of the features alone and stays.
    #[must_use]
    pub fn with_monitor(self, monitor: &str) -> Self {
        Self {
            monitor: monitor.to_owned(),
            ..self
        }
    }

    /// Whether it has these features.
    ///
    /// # Errors
    /// When it lacks one of them.
    pub fn require<'a>(&self, features: impl IntoIterator<Item = &'a String>) -> Result<(), ReferenceError> {
        let is_there = |wanted: &String| self.features.iter().any(|feature| *feature.name == **wanted);
        match features.into_iter().find(|wanted| !is_there(wanted)) {
            None => Ok(()),
            Some(missing) => Err(ReferenceError::NoSuchFeature {
                monitor: self.monitor.clone(),
                feature: missing.clone(),
                known: self.features.iter().map(|feature| &*feature.name).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// The same reference with these features only, in the reference's own order. The version stays that of the whole.
    ///
    /// # Errors
    /// When it lacks one of them.
    pub fn select(&self, features: &[String]) -> Result<Self, ReferenceError> {
        self.require(features)?;
        let selected = self
            .features
            .iter()
            .filter(|feature| features.iter().any(|wanted| *feature.name == **wanted));
        Ok(Self {
            features: selected.cloned().collect(),
            ..self.clone()
        })
    }
}

/// The version of a features array.
fn version_of(features: &serde_json::Value) -> Result<String, ReferenceError> {
    let canonical = serde_json_canonicalizer::to_vec(features).map_err(|error| ReferenceError::Malformed(error.to_string()))?;
    Ok(Sha256::digest(&canonical).iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

impl FeatureReference {
    fn new(document: FeatureDocument) -> Result<Self, ReferenceError> {
        let name = document.name().to_owned();
        let fault = |fault: String| ReferenceError::feature(&name, fault);
        if name.is_empty() || name == RESERVED {
            return Err(fault("a feature must have a name, and `*` is the summary's".to_owned()));
        }
        let (bins, mut counts, mut labels, expected) = match &document {
            FeatureDocument::Edges { edges, range, counts, .. } => {
                if !are_edges(edges) {
                    return Err(fault("edges must be finite and strictly increasing".to_owned()));
                }
                (
                    Bins::Edges {
                        edges: edges.clone().into(),
                        range: *range,
                    },
                    counts.clone(),
                    edge_labels(edges),
                    edges.len() + 1,
                )
            }
            FeatureDocument::Discrete { values, range, counts, .. } => {
                if !are_edges(values) {
                    return Err(fault("values must be finite and strictly increasing".to_owned()));
                }
                (
                    Bins::Discrete {
                        values: values.clone().into(),
                        range: *range,
                    },
                    counts.clone(),
                    values.iter().map(|value| decimal(*value)).collect(),
                    values.len(),
                )
            }
            FeatureDocument::Categorical { categories, counts, .. } => {
                let index: BTreeMap<String, u32> = categories.iter().cloned().zip(0..).collect();
                if index.len() != categories.len() {
                    return Err(fault("a category stands there twice".to_owned()));
                }
                (
                    Bins::Categorical { categories: Arc::new(index) },
                    counts.clone(),
                    categories.clone(),
                    categories.len(),
                )
            }
        };
        if let Bins::Edges {
            range: Some((low, high)), ..
        }
        | Bins::Discrete {
            range: Some((low, high)), ..
        } = &bins
            && low > high
        {
            return Err(fault(format!("range [{low}, {high}] does not go from the smallest to the largest value")));
        }
        if counts.len() != expected {
            return Err(fault(format!("{} counts for {expected} bins", counts.len())));
        }
        if let Some(other) = document.other() {
            counts.push(other);
            labels.push(OTHER.to_owned());
        }
        counts.push(document.missing());
        labels.push(MISSING.to_owned());
        match counts.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count)) {
            None => return Err(fault("its counts do not fit 64 bits".to_owned())),
            Some(0) => return Err(fault("it has no rows".to_owned())),
            Some(_) => {}
        }
        Ok(Self {
            name: name.as_str().into(),
            bins,
            counts,
            labels,
            document,
        })
    }

    /// The field's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it takes categories, not numbers.
    #[must_use]
    pub fn is_categorical(&self) -> bool {
        matches!(self.bins, Bins::Categorical { .. })
    }

    /// How values are grouped.
    #[must_use]
    pub fn bins(&self) -> &Bins {
        &self.bins
    }

    /// `quantile`, `uniform`, `edges`, `discrete` or `categorical`.
    #[must_use]
    pub fn binning(&self) -> &str {
        self.document.binning()
    }

    /// The reference's counts: ordinary bins, then `other` where the feature has it, then missing.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many counts it has.
    #[must_use]
    pub fn bin_count(&self) -> usize {
        self.counts.len()
    }

    /// A bin in words: `(a, b]`, a value, a category, `__other__` or `__missing__`.
    #[must_use]
    pub fn label(&self, bin: usize) -> String {
        self.labels.get(bin).cloned().unwrap_or_default()
    }

    /// Smallest and largest finite value of the reference.
    #[must_use]
    pub fn range(&self) -> Option<(f64, f64)> {
        self.bins.range()
    }
}

fn edge_labels(edges: &[f64]) -> Vec<String> {
    let texts: Vec<String> = edges.iter().map(|edge| decimal(*edge)).collect();
    (0..=edges.len())
        .map(|bin| match (bin.checked_sub(1).and_then(|left| texts.get(left)), texts.get(bin)) {
            (None, None) => "(-inf, inf)".to_owned(),
            (None, Some(right)) => format!("(-inf, {right}]"),
            (Some(left), Some(right)) => format!("({left}, {right}]"),
            (Some(left), None) => format!("({left}, inf)"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
