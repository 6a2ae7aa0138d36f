//! Where a restored task goes on, and whether its state and the group agree.

use leeway_topology::ids::Offset;

use crate::broker::{CommittedOffset, LogRange};
use crate::task::progress::Progress;

/// Where an application without committed offsets begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the log's start.
    Earliest,
    /// At the log's end.
    Latest,
}

/// Where a task goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Where its state and the group agree.
    Committed(Offset),
    /// A first start: no state, no committed offset.
    First(Offset),
    /// The group's offset is gone (expired): the state says where.
    Resumed(Offset),
    /// A first start after another consumer of this group, which left its offset: there.
    Adopted(Offset),
}

impl Position {
    /// The next input offset.
    #[must_use]
    pub fn offset(self) -> Offset {
        match self {
            Self::Committed(offset) | Self::First(offset) | Self::Resumed(offset) | Self::Adopted(offset) => offset,
        }
    }
}

/// State and group contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateFault {
    /// Both know a position, and not the same.
    #[error("the restored state's next input offset is {stored}, the group's committed offset is {committed}")]
    Disagree {
        /// The state's.
        stored: Offset,
        /// The group's.
        committed: Offset,
    },
    /// The group has an offset of ours, the changelog holds nothing.
    #[error("the group's committed offset is {committed}, but the changelog holds no progress")]
    StateLost {
        /// The group's.
        committed: Offset,
    },
}

/// Compares a restored state with the group's stable offset. Nothing here is guessed: a contradiction is a fault, not a reset.
///
/// `changelog_unused`: nothing was ever deleted from the changelog's start, so that a state without progress never was committed. Then an offset
/// without our metadata is another consumer's, whose place we take.
///
/// # Errors
/// When both cannot be true.
pub fn check_position(
    stored: Option<&Progress>,
    committed: Option<&CommittedOffset>,
    input: LogRange,
    start: Start,
    changelog_unused: bool,
) -> Result<Position, StateFault> {
    match (stored, committed) {
        (None, None) => Ok(Position::First(match start {
            Start::Earliest => input.start,
            Start::Latest => input.last_stable,
        })),
        (Some(progress), None) => Ok(Position::Resumed(progress.next_offset)),
        (Some(progress), Some(group)) if progress.next_offset == group.offset => Ok(Position::Committed(group.offset)),
        (Some(progress), Some(group)) => Err(StateFault::Disagree {
            stored: progress.next_offset,
            committed: group.offset,
        }),
        (None, Some(group)) if changelog_unused && !crate::epoch::EpochTag::is_ours(&group.metadata) => Ok(Position::Adopted(group.offset)),
        (None, Some(group)) => Err(StateFault::StateLost { committed: group.offset }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leeway_topology::ids::Timestamp;

    const INPUT: LogRange = LogRange {
        start: Offset(10),
        high_watermark: Offset(90),
        last_stable: Offset(80),
    };

    fn progress(next: i64) -> Progress {
        Progress {
            next_offset: Offset(next),
            record_number: 5,
            stream_time: None,
            epoch: 1,
            committed_at: Timestamp(0),
        }
    }

    fn committed(offset: i64, metadata: &str) -> CommittedOffset {
        CommittedOffset {
            offset: Offset(offset),
            metadata: metadata.to_owned(),
        }
    }

    #[test]
    fn a_first_start_begins_at_the_logs_start_or_end_as_configured() {
        assert_eq!(check_position(None, None, INPUT, Start::Earliest, true), Ok(Position::First(Offset(10))));
        assert_eq!(check_position(None, None, INPUT, Start::Latest, true), Ok(Position::First(Offset(80))));
    }

    #[test]
    fn an_expired_group_offset_is_replaced_by_the_states() {
        assert_eq!(
            check_position(Some(&progress(40)), None, INPUT, Start::Latest, false),
            Ok(Position::Resumed(Offset(40)))
        );
    }

    #[test]
    fn state_and_group_that_disagree_are_a_fault_with_both_numbers() {
        let fault = check_position(Some(&progress(40)), Some(&committed(41, "")), INPUT, Start::Earliest, false);
        assert_eq!(
            fault.map_err(|f| f.to_string()),
            Err("the restored state's next input offset is 40, the group's committed offset is 41".to_owned())
        );
    }

    #[test]
    fn a_lost_changelog_is_a_fault_but_another_consumers_offset_is_taken_over() {
        assert_eq!(
            check_position(None, Some(&committed(41, "")), INPUT, Start::Earliest, true),
            Ok(Position::Adopted(Offset(41)))
        );
        assert_eq!(
            check_position(None, Some(&committed(41, "")), INPUT, Start::Earliest, false),
            Err(StateFault::StateLost { committed: Offset(41) })
        );
        let ours = committed(41, &crate::epoch::EpochTag::new("abc", 0, 1).metadata(7));
        assert_eq!(
            check_position(None, Some(&ours), INPUT, Start::Earliest, true),
            Err(StateFault::StateLost { committed: Offset(41) })
        );
    }
}
