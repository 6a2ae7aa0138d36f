//! A record as it came, and what a decoder makes of it.

use crate::ids::{Offset, Timestamp};

/// One record of an input partition, borrowed from the client's buffer.
#[derive(Clone, Copy, Debug)]
pub struct InputRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// The record's timestamp; `None` when it carries none.
    pub timestamp: Option<Timestamp>,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Why a value is no JSON object: the reason in the dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No bytes.
    #[error("the value is empty")]
    Empty,
    /// Bytes that are not UTF-8.
    #[error("invalid UTF-8 at byte {at}")]
    NotUtf8 {
        /// First byte that is wrong.
        at: usize,
    },
    /// JSON, but no object.
    #[error("the value is not a JSON object but starts with {found:?} at byte {at}")]
    NotAnObject {
        /// Where the value starts.
        at: usize,
        /// Its first character.
        found: char,
    },
    /// Broken JSON.
    #[error("malformed JSON at byte {at}: {what}")]
    Malformed {
        /// Where.
        at: usize,
        /// What was expected or found.
        what: &'static str,
    },
    /// Valid, and too late for a monitor's windows.
    #[error("late: every window of monitor {monitor:?} that it belongs to has been checked")]
    Late {
        /// Which monitor.
        monitor: String,
    },
    /// On the repartition topic: not what a worker wrote, or not for this configuration.
    #[error("no pane: {what}")]
    NotAPane {
        /// What is wrong with it.
        what: String,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels at byte {at}")]
    TooDeep {
        /// Where.
        at: usize,
    },
}

impl Rejected {
    /// All that [`Self::reason`] may be.
    pub const REASONS: [&'static str; 7] = ["empty", "utf8", "not_an_object", "malformed", "too_deep", "late", "not_a_pane"];

    /// A short word for the metric's `reason` label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotUtf8 { .. } => "utf8",
            Self::NotAnObject { .. } => "not_an_object",
            Self::Malformed { .. } => "malformed",
            Self::TooDeep { .. } => "too_deep",
            Self::Late { .. } => "late",
            Self::NotAPane { .. } => "not_a_pane",
        }
    }
}

/// Levels of nesting that a record may have.
pub const MAX_DEPTH: usize = 127;

/// Why a feature is missing in a record: the `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Missing {
    /// The field is not there.
    Absent,
    /// It is `null`.
    Null,
    /// It has a type that the feature does not take.
    Type,
    /// A number outside the finite doubles, or a categorical number that is not integral within 2^53.
    Range,
}

/// What one record says of one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Index into the feature's counts: the ordinary bins, then `other` where it has it, then missing.
    pub bin: u32,
    /// Where the value lies beside the reference's range.
    pub side: Side,
    /// Why, if it is missing.
    pub missing: Option<Missing>,
}

/// Place of a number beside the reference's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Below the smallest reference value.
    Below,
    /// Within, or not a number.
    Within,
    /// Above the largest reference value.
    Above,
}
