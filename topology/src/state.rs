//! What a task keeps: keys, and the store as a processor sees it.
//!
//! A task's state is one contiguous range of keys; the runtime puts the task's prefix before them. Within the task the order is record kind,
//! monitor, segment, feature, pane slot. Several panes of one segment are neighbours, several segments of one monitor too.
//! `docs/formats.md` has the bytes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bincode::{BorrowDecode, Decode, Encode};

use crate::codec::{CorruptValue, decode, decode_extended, put_component, take_component};
use crate::drift::Status;
use crate::histogram::Total;
use crate::ids::{Partition, RecordNumber, Timestamp};
use crate::quality::{Example, QualityStatus};
use crate::repartition::WindowProgress;

/// A key within a task's range.
pub type Key = Vec<u8>;

/// A changed key and its whole new value; `None` deletes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Key within the task's range.
    pub key: Key,
    /// The whole value: the changelog is compacted and replays overlap, so a difference would be applied twice.
    pub value: Option<Vec<u8>>,
}

/// The state of one task, as a processor reads it: when it opens, and where it has not all of it in memory.
pub trait ReadStore {
    /// The value of a key, if it is there.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// Hands every key that begins with `prefix`, and its value, to `visit`, in key order. `visit` must not call the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StateError>;
}

/// Why a task's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes are not what was written: restore the task from its changelog.
    #[error("state key `{key}`: {cause}")]
    Corrupt {
        /// Which key.
        key: String,
        /// What is wrong with its value.
        cause: CorruptValue,
    },
    /// The store says that its bytes are damaged: restore the task from its changelog.
    #[error("state store: {0}")]
    Damaged(String),
    /// The state contradicts itself: restore the task from its changelog.
    #[error("{0}")]
    Contradictory(String),
    /// The state does not fit the configuration: no restore helps.
    #[error("{0}")]
    Inconsistent(String),
    /// The store failed for now: try again.
    #[error("state store: {0}")]
    Store(String),
}

/// First byte of a key: what kind of value it holds. The progress record sorts first and is the runtime's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyKind {
    /// How far the task is (written by the runtime).
    Progress = 0,
    /// A monitor's record number, reference version and last statuses, for one segment.
    Window = 1,
    /// One pane of histograms.
    Pane = 2,
    /// As [`Self::Window`], of time windows.
    TimeWindow = 3,
    /// As [`Self::Window`], of scope `global`.
    GlobalWindow = 4,
    /// What all segments of a monitor have together.
    Segments = 5,
    /// As [`Self::Window`], of time windows of scope `global`.
    GlobalTimeWindow = 7,
    /// One of those windows that is open.
    OpenWindow = 8,
    /// What is kept of a segment of those windows beside the open ones.
    GlobalTimeSegment = 9,
}

/// Key of a window's head: `monitor` and `segment` (empty: no segmentation).
#[must_use]
pub fn window_key(monitor: &str, segment: &str) -> Key {
    head_key(KeyKind::Window, monitor, segment)
}

/// Key of the head of time windows, as [`window_key`].
#[must_use]
pub fn time_window_key(monitor: &str, segment: &str) -> Key {
    head_key(KeyKind::TimeWindow, monitor, segment)
}

/// Key of the head of a window of scope `global`, as [`window_key`].
#[must_use]
pub fn global_window_key(monitor: &str, segment: &str) -> Key {
    head_key(KeyKind::GlobalWindow, monitor, segment)
}

/// Key of the head of the time windows of scope `global`, as [`window_key`].
#[must_use]
pub fn global_time_key(monitor: &str, segment: &str) -> Key {
    head_key(KeyKind::GlobalTimeWindow, monitor, segment)
}

/// Key of what is kept of a segment of time windows of scope `global`.
#[must_use]
pub fn global_time_segment_key(monitor: &str, segment: &str) -> Key {
    head_key(KeyKind::GlobalTimeSegment, monitor, segment)
}

/// Key of an open window of scope `global`: `window` is its start divided by the time between two.
#[must_use]
pub fn open_window_key(monitor: &str, segment: &str, window: u64) -> Key {
    let mut key = head_key(KeyKind::OpenWindow, monitor, segment);
    key.extend_from_slice(&window.to_be_bytes());
    key
}

/// The segment and the number of the open window of a key.
#[must_use]
pub fn open_window_of(key: &[u8]) -> Option<(Cow<'_, str>, u64)> {
    let (_, rest) = take_component(key.get(1..)?)?;
    let (segment, window) = take_component(rest)?;
    Some((segment, u64::from_be_bytes(window.try_into().ok()?)))
}

/// Key of the head of a window.
#[must_use]
pub fn head_key(kind: KeyKind, monitor: &str, segment: &str) -> Key {
    let mut key = heads_prefix(kind, monitor);
    put_component(&mut key, segment);
    key
}

/// Key of what all segments of a monitor have together.
#[must_use]
pub fn segments_key(monitor: &str) -> Key {
    let mut key = vec![KeyKind::Segments as u8];
    put_component(&mut key, monitor);
    key
}

/// What the keys of the heads of all of a monitor's windows begin with: [`window_key`], [`time_window_key`] or [`global_window_key`] without its
/// segment.
#[must_use]
pub fn heads_prefix(kind: KeyKind, monitor: &str) -> Key {
    let mut key = vec![kind as u8];
    put_component(&mut key, monitor);
    key
}

/// What the keys of all panes of a segment begin with.
#[must_use]
pub fn panes_prefix(monitor: &str, segment: &str) -> Key {
    let mut key = vec![KeyKind::Pane as u8];
    put_component(&mut key, monitor);
    put_component(&mut key, segment);
    key
}

/// The segment of a head's or a pane's key.
#[must_use]
pub fn segment_of(key: &[u8]) -> Option<Cow<'_, str>> {
    let (_, rest) = take_component(key.get(1..)?)?;
    Some(take_component(rest)?.0)
}

/// Key of one pane. `feature` is empty for a pane that holds all of the monitor's features; `slot` is its place in the ring.
#[must_use]
pub fn pane_key(monitor: &str, segment: &str, feature: &str, slot: u32) -> Key {
    let mut key = panes_prefix(monitor, segment);
    put_component(&mut key, feature);
    key.extend_from_slice(&slot.to_be_bytes());
    key
}

/// What is kept of a monitor's window beside its panes, under [`window_key`].
///
/// It names the settings that its panes were cut by, so that a changed configuration is seen instead of misread. With `&str` for text it borrows from
/// the bytes that it is decoded from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WindowHead<Text = Arc<str>> {
    /// Records of the window.
    pub size: u64,
    /// Records of a pane.
    pub every: u64,
    /// k: the last valid record.
    pub record_number: RecordNumber,
    /// The record after which the window started: 0, or that of the last change of reference.
    pub start: RecordNumber,
    /// The reference that the panes were binned by: as published, before a selection of features.
    pub reference_version: Text,
    /// The largest event time of a valid record.
    pub stream_time: Option<Timestamp>,
    /// The features in the panes' order.
    pub features: Vec<FeatureHead<Text>>,
    /// The summary's status at the last check of this window.
    pub summary: Option<Status>,
}

/// What is kept of a monitor's window of scope `global` beside its panes, under [`global_window_key`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GlobalWindowHead<Text = Arc<str>> {
    /// As of a partition's window; record numbers count the records of merged panes.
    pub window: WindowHead<Text>,
    /// The reference's place in the order of publication: panes of an earlier one are not merged any more.
    pub publication: u64,
}

/// What is kept of a monitor's time windows beside their panes, under [`time_window_key`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TimeWindowHead<Text = Arc<str>> {
    /// Length of a window.
    pub size_ms: u64,
    /// Length of a pane.
    pub every_ms: u64,
    /// How long after its end a window takes late records.
    pub grace_ms: u64,
    /// k: the last valid record.
    pub record_number: RecordNumber,
    /// The first window that is not closed, by its start divided by `every_ms`. No pane before it is kept.
    pub next: u64,
    /// Panes from `next` on: a slot that lost its pane is noticed.
    pub panes: u64,
    /// The records in them.
    pub records: u64,
    /// The reference that the panes were binned by: as published, before a selection of features.
    pub reference_version: Text,
    /// The largest event time of a valid record.
    pub stream_time: Option<Timestamp>,
    /// The features in the panes' order.
    pub features: Vec<FeatureHead<Text>>,
    /// The summary's status at the last check.
    pub summary: Option<Status>,
}

/// What is kept of a monitor's time windows of scope `global` beside those that are open, under [`global_time_key`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GlobalTimeHead {
    /// Length of a window.
    pub size_ms: u64,
    /// Time between the starts of two windows.
    pub every_ms: u64,
    /// How long after its end a partition's window takes late records.
    pub grace_ms: u64,
    /// The first window that is not closed. With segments: that not every partition had closed, of those that were waited for.
    pub next: u64,
    /// Open windows with records, each segment's counted: one that is lost is noticed.
    pub windows: u64,
    /// The records in them.
    pub records: u64,
    /// What is known of the partitions.
    pub partitions: Vec<WindowProgress>,
    /// How many there are.
    pub partition_count: u32,
    /// What the windows are measured by, once one was shipped; `None` with segments, of which each says it beside.
    pub measured: Option<GlobalTimeMeasure>,
}

/// What the time windows of scope `global` are measured by.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GlobalTimeMeasure {
    /// The reference that the parts were binned by.
    pub reference_version: Arc<str>,
    /// Its place in the order of publication: parts of an earlier one are left out.
    pub publication: u64,
    /// The features in the order of the counts.
    pub features: Vec<FeatureHead>,
    /// The summary's status at the last check.
    pub summary: Option<Status>,
    /// What quality checks keep; `None`: the monitor has no limits of quality.
    pub quality: Option<QualityHead>,
}

/// What is kept of a segment of time windows of scope `global` beside its open ones, under [`global_time_segment_key`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GlobalTimeSegment {
    /// The last window of which a part was shipped.
    pub last: u64,
    /// The first window that was not checked.
    pub next: u64,
    /// Of each partition that shipped a part: the segment's k there, as it was shipped last.
    pub record_numbers: Vec<(Partition, RecordNumber)>,
    /// What its windows are measured by.
    pub measured: GlobalTimeMeasure,
}

/// An open window of scope `global`, under [`open_window_key`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OpenWindow {
    /// What was shipped of it so far.
    pub total: Total,
    /// A part of it was closed since its partition was idle.
    pub is_idle: bool,
}

/// What all segments of a monitor have together, under [`segments_key`]. Each has its window's head and panes beside.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SegmentsHead {
    /// The fields whose values make a segment, as they were configured.
    pub segment_by: Vec<String>,
    /// The last valid record, whatever its segment.
    pub record_number: RecordNumber,
    /// The largest event time of a valid record, whatever its segment.
    pub stream_time: Option<Timestamp>,
    /// The first event time: from there on those segments are idle that had their last record before.
    pub first_stream_time: Option<Timestamp>,
    /// The reference that the next record is binned by; `None` in scope `global`, where each pane says.
    pub reference_version: Option<Arc<str>>,
    /// Segments that live: one that is lost is noticed.
    pub segments: u64,
}

/// What is kept of one feature beside its counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FeatureHead<Text = Arc<str>> {
    /// Its name.
    pub name: Text,
    /// Bins in a pane, `other` and missing included.
    pub bins: u64,
    /// Its status at the last check of this window.
    pub status: Option<Status>,
}

/// What quality checks keep of a window. It stands behind its head, under the same key, while the monitor has a limit: so neither is there without the
/// other, and the head of a monitor without limits is what it always was. See [`crate::codec::encode_extended`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QualityHead {
    /// The features that have a limit, in the reference's order.
    pub features: Vec<FeatureQualityHead>,
}

/// What quality checks keep of one feature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FeatureQualityHead {
    /// Its name.
    pub name: Arc<str>,
    /// Its status at the last check of this window.
    pub status: Option<QualityStatus>,
    /// The most frequent of its values in `other` since that check, the most frequent first.
    pub examples: Vec<Example>,
}

/// Reads and decodes the value of a key.
///
/// # Errors
/// When the store fails, or the bytes are not what [`crate::codec::encode`] wrote.
pub fn read<T: for<'a> BorrowDecode<'a, ()>>(store: &dyn ReadStore, key: &[u8]) -> Result<Option<T>, StateError> {
    store.get(key)?.map(|bytes| decode(&bytes).map_err(corrupt(key))).transpose()
}

/// As [`read`], of a window's head and what quality checks keep.
///
/// # Errors
/// As there.
pub fn read_head<T: for<'a> BorrowDecode<'a, ()>>(store: &dyn ReadStore, key: &[u8]) -> Result<Option<(T, Option<QualityHead>)>, StateError> {
    store.get(key)?.map(|bytes| decode_head(&bytes).map_err(corrupt(key))).transpose()
}

/// Decodes a window's head and what quality checks keep.
///
/// # Errors
/// When the bytes are not what [`crate::codec::encode_extended`] wrote.
pub fn decode_head<'a, T: BorrowDecode<'a, ()>>(value: &'a [u8]) -> Result<(T, Option<QualityHead>), CorruptValue> {
    decode_extended(value)
}

fn corrupt(key: &[u8]) -> impl FnOnce(CorruptValue) -> StateError + '_ {
    |cause| StateError::Corrupt {
        key: KeyText(key).to_string(),
        cause,
    }
}

/// A key in words on one line, for errors and for printing a store: `pane of monitor default, slot 3`.
#[derive(Clone, Copy, Debug)]
pub struct KeyText<'a>(pub &'a [u8]);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |f: &mut fmt::Formatter<'_>, what: &str, text: &str| {
            if text.is_empty() {
                Ok(())
            } else {
                write!(f, ", {what} {}", text.escape_debug())
            }
        };
        if let [kind, rest @ ..] = self.0 {
            if *kind == KeyKind::Progress as u8 && rest.is_empty() {
                return f.write_str("progress");
            }
            let head = [
                (KeyKind::Window, "window"),
                (KeyKind::TimeWindow, "time windows"),
                (KeyKind::GlobalWindow, "global window"),
                (KeyKind::GlobalTimeWindow, "global time windows"),
                (KeyKind::GlobalTimeSegment, "state of global time windows"),
            ];
            if let Some((_, what)) = head.iter().find(|(head, _)| *head as u8 == *kind)
                && let Some((monitor, rest)) = take_component(rest)
                && let Some((segment, [])) = take_component(rest)
            {
                write!(f, "{what} of monitor {}", monitor.escape_debug())?;
                return named(f, "segment", &segment);
            }
            if *kind == KeyKind::OpenWindow as u8
                && let Some((monitor, rest)) = take_component(rest)
                && let Some((segment, window)) = take_component(rest)
                && let Ok(window) = <[u8; 8]>::try_from(window)
            {
                write!(f, "open global window of monitor {}", monitor.escape_debug())?;
                named(f, "segment", &segment)?;
                return write!(f, ", number {}", u64::from_be_bytes(window));
            }
            if *kind == KeyKind::Segments as u8
                && let Some((monitor, [])) = take_component(rest)
            {
                return write!(f, "segments of monitor {}", monitor.escape_debug());
            }
            if *kind == KeyKind::Pane as u8
                && let Some((monitor, rest)) = take_component(rest)
                && let Some((segment, rest)) = take_component(rest)
                && let Some((feature, slot)) = take_component(rest)
                && let Ok(slot) = <[u8; 4]>::try_from(slot)
            {
                write!(f, "pane of monitor {}", monitor.escape_debug())?;
                named(f, "segment", &segment)?;
                named(f, "feature", &feature)?;
                return write!(f, ", slot {}", u32::from_be_bytes(slot));
            }
        }
        write!(f, "{:02x?}", self.0)
    }
}

/// Key of the task's progress record.
#[must_use]
pub fn progress_key() -> Key {
    vec![KeyKind::Progress as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_as_words() {
        assert_eq!(KeyText(&progress_key()).to_string(), "progress");
        assert_eq!(KeyText(&window_key("default", "")).to_string(), "window of monitor default");
        assert_eq!(
            KeyText(&window_key("default", "country=DE")).to_string(),
            "window of monitor default, segment country=DE"
        );
        assert_eq!(KeyText(&time_window_key("default", "")).to_string(), "time windows of monitor default");
        assert_eq!(KeyText(&global_window_key("default", "")).to_string(), "global window of monitor default");
        assert_eq!(KeyText(&pane_key("default", "", "", 3)).to_string(), "pane of monitor default, slot 3");
        assert_eq!(
            KeyText(&pane_key("a\0b", "s", "f\n", 256)).to_string(),
            r"pane of monitor a\0b, segment s, feature f\n, slot 256"
        );
        assert_eq!(KeyText(&segments_key("default")).to_string(), "segments of monitor default");
        assert_eq!(
            KeyText(&global_time_key("default", "")).to_string(),
            "global time windows of monitor default"
        );
        assert_eq!(
            KeyText(&open_window_key("default", "", 300)).to_string(),
            "open global window of monitor default, number 300"
        );
        assert_eq!(
            KeyText(&open_window_key("default", "country=DE", 300)).to_string(),
            "open global window of monitor default, segment country=DE, number 300"
        );
        assert_eq!(
            KeyText(&global_time_segment_key("default", "country=DE")).to_string(),
            "state of global time windows of monitor default, segment country=DE"
        );
        assert_eq!(KeyText(&[10, 1]).to_string(), "[0a, 01]");
        assert_eq!(KeyText(&[2, 0, 0]).to_string(), "[02, 00, 00]");
    }

    #[test]
    fn key_of_an_open_window_names_segment_and_window() {
        for segment in ["", "country=DE", "a\0b"] {
            assert_eq!(open_window_of(&open_window_key("m\0", segment, 300)), Some((segment.into(), 300)));
        }
        assert_eq!(open_window_of(&global_time_key("m", "")), None);
        assert_eq!(open_window_of(&[]), None);
    }

    #[test]
    fn heads_come_before_panes_and_the_panes_of_a_segment_are_neighbours() {
        let keys = [
            progress_key(),
            window_key("a", ""),
            window_key("a", "s"),
            window_key("ab", ""),
            pane_key("a", "", "", 0),
            pane_key("a", "", "", 300),
            pane_key("a", "s", "", 0),
            pane_key("ab", "", "", 0),
        ];
        assert!(keys.is_sorted());
    }
}
