//! The JSON document of a reference, as files and the reference topic hold it.

use serde::{Deserialize, Deserializer, Serialize};

/// The whole document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) schema_version: u32,
    pub(super) version: String,
    pub(super) monitor: String,
    pub(super) rows: u64,
    pub(super) features: Vec<FeatureDocument>,
}

impl Document {
    /// One line per feature: a person can read it, and a version control system can show what changed.
    pub(super) fn to_lines(&self) -> Vec<u8> {
        let features: Vec<String> = self.features.iter().map(|feature| format!("  {}", json(feature))).collect();
        format!(
            "{{\"schema_version\": {}, \"version\": {}, \"monitor\": {}, \"rows\": {},\n \"features\": [\n{}\n]}}\n",
            self.schema_version,
            json(&self.version),
            json(&self.monitor),
            self.rows,
            features.join(",\n")
        )
        .into_bytes()
    }
}

/// Serialises into memory, which cannot fail for the types here.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Null if there is none, but never left out: the feature would be written back with a null, which the version does not cover.
fn range_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(f64, f64)>, D::Error> {
    Option::deserialize(deserializer)
}

/// One feature. The order of the fields is the order in the file. A field that is not known is refused: the version covers it, and writing the
/// feature again would lose it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum FeatureDocument {
    /// Numeric, between edges.
    Edges {
        name: String,
        kind: Numeric,
        binning: EdgeBinning,
        edges: Vec<f64>,
        #[serde(deserialize_with = "range_or_null")]
        range: Option<(f64, f64)>,
        counts: Vec<u64>,
        missing: u64,
    },
    /// Numeric, one bin per value.
    Discrete {
        name: String,
        kind: Numeric,
        binning: DiscreteBinning,
        values: Vec<f64>,
        #[serde(deserialize_with = "range_or_null")]
        range: Option<(f64, f64)>,
        counts: Vec<u64>,
        other: u64,
        missing: u64,
    },
    /// Categories.
    Categorical {
        name: String,
        kind: Categorical,
        binning: Categorical,
        categories: Vec<String>,
        counts: Vec<u64>,
        other: u64,
        missing: u64,
    },
}

macro_rules! words {
    ($name:ident { $($word:ident),+ }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub(super) enum $name { $($word),+ }
    };
}
words!(Numeric { Numeric });
words!(EdgeBinning { Quantile, Uniform, Edges });
words!(DiscreteBinning { Discrete });
words!(Categorical { Categorical });

impl FeatureDocument {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Edges { name, .. } | Self::Discrete { name, .. } | Self::Categorical { name, .. } => name,
        }
    }

    pub(super) fn binning(&self) -> &'static str {
        match self {
            Self::Edges {
                binning: EdgeBinning::Quantile,
                ..
            } => "quantile",
            Self::Edges {
                binning: EdgeBinning::Uniform,
                ..
            } => "uniform",
            Self::Edges {
                binning: EdgeBinning::Edges, ..
            } => "edges",
            Self::Discrete { .. } => "discrete",
            Self::Categorical { .. } => "categorical",
        }
    }

    pub(super) fn other(&self) -> Option<u64> {
        match self {
            Self::Edges { .. } => None,
            Self::Discrete { other, .. } | Self::Categorical { other, .. } => Some(*other),
        }
    }

    pub(super) fn missing(&self) -> u64 {
        match self {
            Self::Edges { missing, .. } | Self::Discrete { missing, .. } | Self::Categorical { missing, .. } => *missing,
        }
    }
}
