//! What no check looks at, between two scrapes of the metrics.

/// Why records, or a window, are outside of any check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outside {
    /// A record all of whose windows had been checked before it came.
    Late,
    /// A record that came too late for some of its windows; the others have it.
    LateForSome,
    /// A record without a time.
    NoTime,
    /// A record beyond those that a pane can count.
    Full,
    /// A window with fewer records than `min_samples`.
    SkippedWindow,
}

/// Every kind, in the order of the counters.
const ALL: [Outside; 5] = [
    Outside::Late,
    Outside::LateForSome,
    Outside::NoTime,
    Outside::Full,
    Outside::SkippedWindow,
];

impl Outside {
    /// A short word for the metric's `reason` label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::LateForSome => "late_for_some",
            Self::NoTime => "no_time",
            Self::Full => "full",
            Self::SkippedWindow => "min_samples",
        }
    }
}

/// Counts of one monitor.
#[derive(Clone, Debug, Default)]
pub(super) struct OutsideTally([u64; ALL.len()]);

impl OutsideTally {
    pub(super) fn count(&mut self, outside: Outside) {
        self.0[outside as usize] += 1;
    }

    /// Visits every count above 0 and starts anew.
    pub(super) fn drain(&mut self, visit: &mut dyn FnMut(Outside, u64)) {
        for outside in ALL {
            let count = std::mem::take(&mut self.0[outside as usize]);
            if count > 0 {
                visit(outside, count);
            }
        }
    }
}
