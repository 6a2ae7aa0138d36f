//! What does not count as it came, between two scrapes of the metrics.

/// Why a record or a window does not count as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Irregular {
    /// A record all of whose windows had been checked before it came.
    Late,
    /// A record that came too late for some of its windows; the others have it.
    LateForSome,
    /// A record without a time.
    NoTime,
    /// A record beyond those that a pane can count.
    Full,
    /// A record whose time field says no time; its own timestamp was taken.
    UnreadableTime,
    /// A window with fewer records than `min_samples`.
    SkippedWindow,
    /// A pane that was measured by an earlier reference than the global window is.
    StalePane,
    /// Of the whole topic: a partition's window that came when the whole topic's had been checked.
    LateWindow,
    /// Of the whole topic: a window that was given up, since too many were waiting for a partition.
    WaitedTooLong,
    /// A record that is counted in the segment `__rest__`, since no more segments may live.
    NoRoomForSegment,
    /// A record that is counted in the segment `__rest__`, since its own would be too long.
    LongSegment,
}

/// Every kind, in the order of the counters.
const ALL: [Irregular; 11] = [
    Irregular::Late,
    Irregular::LateForSome,
    Irregular::NoTime,
    Irregular::Full,
    Irregular::UnreadableTime,
    Irregular::SkippedWindow,
    Irregular::StalePane,
    Irregular::LateWindow,
    Irregular::WaitedTooLong,
    Irregular::NoRoomForSegment,
    Irregular::LongSegment,
];

impl Irregular {
    /// A short word for the metric's `reason` label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::LateForSome => "late_for_some",
            Self::NoTime => "no_time",
            Self::Full => "full",
            Self::UnreadableTime => "unreadable_time",
            Self::SkippedWindow => "min_samples",
            Self::StalePane => "stale_pane",
            Self::LateWindow => "late_window",
            Self::WaitedTooLong => "waited_too_long",
            Self::NoRoomForSegment => "max_segments",
            Self::LongSegment => "long_segment",
        }
    }
}

/// Counts of one monitor.
#[derive(Clone, Debug, Default)]
pub(in crate::processor) struct IrregularTally([u64; ALL.len()]);

impl IrregularTally {
    pub(in crate::processor) fn count(&mut self, irregular: Irregular) {
        self.0[irregular as usize] += 1;
    }

    /// Visits every count above 0 and starts anew.
    pub(in crate::processor) fn drain(&mut self, visit: &mut dyn FnMut(Irregular, u64)) {
        for irregular in ALL {
            let count = std::mem::take(&mut self.0[irregular as usize]);
            if count > 0 {
                visit(irregular, count);
            }
        }
    }
}
