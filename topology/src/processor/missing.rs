//! Missing values by feature and reason, between two scrapes of the metrics.

use std::sync::Arc;

use crate::record::{Missing, Observation};

/// Every reason, in the order of the counters.
const REASONS: [Missing; 4] = [Missing::Absent, Missing::Null, Missing::Type, Missing::Range];

/// Counts missing values of one monitor. Bounded by the features that its references have had.
#[derive(Clone, Debug, Default)]
pub(super) struct MissingTally {
    counts: Vec<(Arc<str>, [u64; REASONS.len()])>,
    /// Entries of the present reference's features, in its order.
    current: Vec<usize>,
}

impl MissingTally {
    /// From now on a row holds these features. What was counted before stays.
    pub(super) fn watch<'a>(&mut self, features: impl IntoIterator<Item = &'a Arc<str>>) {
        let counts = &mut self.counts;
        self.current = features
            .into_iter()
            .map(|name| {
                counts.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                    counts.push((Arc::clone(name), [0; REASONS.len()]));
                    counts.len() - 1
                })
            })
            .collect();
    }

    /// Counts what is missing in one record.
    pub(super) fn observe(&mut self, row: &[Observation]) {
        for (&entry, observation) in self.current.iter().zip(row) {
            if let Some(missing) = observation.missing {
                self.counts[entry].1[index(missing)] += 1;
            }
        }
    }

    /// Visits every count above 0 and starts anew.
    pub(super) fn drain(&mut self, visit: &mut dyn FnMut(&str, Missing, u64)) {
        for (feature, counts) in &mut self.counts {
            for missing in REASONS {
                let count = std::mem::take(&mut counts[index(missing)]);
                if count > 0 {
                    visit(feature, missing, count);
                }
            }
        }
    }
}

fn index(missing: Missing) -> usize {
    match missing {
        Missing::Absent => 0,
        Missing::Null => 1,
        Missing::Type => 2,
        Missing::Range => 3,
    }
}
