//! What a partition ships to scope `global`: each pane once, when it is whole; of time windows each window once, when it closes, and how far it is.
//!
//! ```text
//! task of the input: pane complete --(key: monitor, segment)--> repartition topic --> task of the whole topic: window of the last panes
//! ```
//!
//! Histograms of one reference add up, so a pane travels and not its records: one message each `every` records. All panes of one monitor and
//! segment have one key, so they are in one partition, and their order there is the order of the global window. How far a partition is with the time
//! windows of all its segments goes to every partition of the topic, behind what it says: the segments are in all of them.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::{CorruptValue, decode, encode, put_component, take_component};
use crate::histogram::Total;
use crate::ids::{Partition, RecordNumber};
use crate::window::Pane;

/// In place of a segment: the message speaks of all of them. No segment has this text: each is `field=value`, or the rest.
pub const EVERY_SEGMENT: &str = "*";

/// A message of the repartition topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShippedPane {
    /// Whose pane.
    pub monitor: Arc<str>,
    /// Of which segment; empty: no segmentation; [`EVERY_SEGMENT`]: of all.
    pub segment: Arc<str>,
    /// What is in it.
    pub content: Content,
}

/// The value of a message, behind its format version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Content {
    /// A pane of a count window.
    Count(CountPane),
    /// One partition's part of a time window.
    Window(WindowPart),
    /// How far one partition is with its time windows.
    Progress(WindowProgress),
}

impl Content {
    /// The input partition that ships it.
    #[must_use]
    pub fn partition(&self) -> Partition {
        match self {
            Self::Count(pane) => pane.partition,
            Self::Window(part) => part.partition,
            Self::Progress(progress) => progress.partition,
        }
    }
}

/// A window of time of one partition, as it was when it closed there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WindowPart {
    /// The input partition.
    pub partition: Partition,
    /// Length of a window, by the settings that it was cut by.
    pub size_ms: u64,
    /// Time between the starts of two windows.
    pub every_ms: u64,
    /// How long after its end it took late records.
    pub grace_ms: u64,
    /// The reference that it was binned by.
    pub reference_version: Arc<str>,
    /// That reference's place in the order of publication.
    pub publication: u64,
    /// Its start divided by `every_ms`.
    pub window: u64,
    /// k of the partition when it closed, or of its segment there.
    pub record_number: RecordNumber,
    /// It closed since the partition was idle.
    pub is_idle: bool,
    /// Its counts; never without records.
    pub total: Total,
}

/// How far a partition is with its time windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WindowProgress {
    /// The input partition.
    pub partition: Partition,
    /// As many partitions the input has.
    pub partitions: u32,
    /// The first window that is open there, whatever the segment: its start divided by the time between two.
    pub open_from: u64,
    /// Its k, whatever the segments.
    pub record_number: RecordNumber,
    /// It is idle at its end, or never had a record: it is not waited for.
    pub is_idle: bool,
}

/// A whole pane of one partition's count window.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CountPane {
    /// The input partition.
    pub partition: Partition,
    /// Records of a window, by the settings that it was cut by.
    pub size: u64,
    /// Records of a pane: as many as it holds.
    pub every: u64,
    /// The reference that it was binned by.
    pub reference_version: Arc<str>,
    /// That reference's place in the order of publication.
    pub publication: u64,
    /// Its number in its partition, its counts, and where it reaches there.
    pub pane: Pane,
}

/// A message that is none of Leeway's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPane {
    /// The key.
    #[error("the key is not a monitor and a segment")]
    Key,
    /// The value.
    #[error(transparent)]
    Value(#[from] CorruptValue),
}

impl ShippedPane {
    /// The key of its message.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        Self::key_of(&self.monitor, &self.segment)
    }

    /// The key of all panes of a monitor's segment.
    #[must_use]
    pub fn key_of(monitor: &str, segment: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(monitor.len() + segment.len() + 4);
        put_component(&mut key, monitor);
        put_component(&mut key, segment);
        key
    }

    /// Whether its message goes to every partition of the topic, and not only to that of its key.
    #[must_use]
    pub fn is_for_every_partition(&self) -> bool {
        &*self.segment == EVERY_SEGMENT
    }

    /// The value of its message.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        encode(&self.content)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is not what [`Self::key`] and [`Self::value`] write.
    pub fn read(key: &[u8], value: &[u8]) -> Result<Self, NotAPane> {
        let (monitor, rest) = take_component(key).ok_or(NotAPane::Key)?;
        let (segment, []) = take_component(rest).ok_or(NotAPane::Key)? else {
            return Err(NotAPane::Key);
        };
        Ok(Self {
            monitor: monitor.into(),
            segment: segment.into(),
            content: decode(value)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::{Histogram, Layout, Span};
    use crate::ids::{Offset, Timestamp};
    use crate::window::PaneNumber;

    fn shipped(monitor: &str, segment: &str) -> ShippedPane {
        ShippedPane {
            monitor: monitor.into(),
            segment: segment.into(),
            content: Content::Count(CountPane {
                partition: Partition(3),
                size: 1000,
                every: 100,
                reference_version: "0123456789abcdef".into(),
                publication: 7,
                pane: Pane {
                    number: PaneNumber(12),
                    histogram: Histogram::new(&Layout::new([4, 2])),
                    span: Some(Span::of(Offset(5), Some(Timestamp(1)))),
                },
            }),
        }
    }

    #[test]
    fn message_reads_back() {
        for (monitor, segment) in [("m", ""), ("", "country=DE"), ("a\0b", "\0")] {
            let pane = shipped(monitor, segment);
            assert_eq!(ShippedPane::read(&pane.key(), &pane.value()), Ok(pane));
        }
    }

    #[test]
    fn foreign_message_is_an_error_that_says_what_it_is() {
        let pane = shipped("m", "");
        assert_eq!(ShippedPane::read(b"m", &pane.value()), Err(NotAPane::Key));
        let mut key = pane.key();
        key.push(1);
        assert_eq!(ShippedPane::read(&key, &pane.value()), Err(NotAPane::Key));
        assert_eq!(ShippedPane::read(&pane.key(), b""), Err(NotAPane::Value(CorruptValue::Empty)));
        let text = ShippedPane::read(&pane.key(), &[9]).unwrap_err().to_string();
        assert!(text.contains("format version 9"), "{text}");
    }
}
