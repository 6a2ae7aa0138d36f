//! The windows of the whole topic that wait for a partition: what was shipped of each so far, by window and segment. In memory, and each under its key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::codec::{decode, encode};
use crate::histogram::Counts as _;
use crate::processor::place::Place;
use crate::processor::segments::KEY_BYTES;
use crate::state::{KeyKind, KeyText, OpenWindow, Put, ReadStore, StateError, heads_prefix, open_window_key, open_window_of};

/// See the module.
#[derive(Default)]
pub(super) struct OpenWindows {
    by_window: BTreeMap<u64, BTreeMap<Arc<str>, OpenWindow>>,
    len: usize,
    /// Those that changed since the last flush.
    unwritten: BTreeSet<(Arc<str>, u64)>,
    unwritten_bytes: usize,
}

impl OpenWindows {
    /// As they were stored.
    pub(super) fn restore(place: &Place, store: &dyn ReadStore) -> Result<Self, StateError> {
        let (mut windows, mut failed) = (Self::default(), None);
        store.scan(&heads_prefix(KeyKind::OpenWindow, &place.monitor.name), &mut |key, value| {
            let Some((segment, window)) = open_window_of(key) else {
                failed = Some(place.contradictory(format!("{key:02x?} is no key of a window")));
                return;
            };
            match decode(value) {
                Ok(open) => windows.insert(window, segment.into(), open),
                Err(cause) => {
                    failed = Some(StateError::Corrupt {
                        key: KeyText(key).to_string(),
                        cause,
                    });
                }
            }
        })?;
        failed.map_or(Ok(windows), Err)
    }

    fn insert(&mut self, window: u64, segment: Arc<str>, open: OpenWindow) {
        let before = self.by_window.entry(window).or_default().insert(segment, open);
        self.len += usize::from(before.is_none());
    }

    /// Each segment's counted.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The records in them.
    pub(super) fn records(&self) -> u64 {
        self.iter().map(|(_, _, open)| open.total.records()).sum()
    }

    /// The earliest first, those of one time by segment.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Arc<str>, &OpenWindow)> {
        let windows = self.by_window.iter();
        windows.flat_map(|(window, segments)| segments.iter().map(|(segment, open)| (*window, segment, open)))
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<(u64, &Arc<str>)> {
        let (window, segments) = self.by_window.first_key_value()?;
        Some((*window, segments.first_key_value()?.0))
    }

    /// Takes out the first one.
    pub(super) fn take_first(&mut self) -> Option<(u64, Arc<str>, OpenWindow)> {
        let mut entry = self.by_window.first_entry()?;
        let window = *entry.key();
        let (segment, open) = entry.get_mut().pop_first()?;
        if entry.get().is_empty() {
            entry.remove();
        }
        self.len -= 1;
        self.change(window, &segment, 0);
        Some((window, segment, open))
    }

    /// The window of a segment, to be added to.
    pub(super) fn entry(&mut self, window: u64, segment: &Arc<str>, fresh: impl FnOnce() -> OpenWindow) -> &mut OpenWindow {
        let open = self.by_window.entry(window).or_default().entry(Arc::clone(segment)).or_insert_with(|| {
            self.len += 1;
            fresh()
        });
        // Most counts are written as a byte or two.
        let bytes = open.total.counters() * 2;
        if self.unwritten.insert((Arc::clone(segment), window)) {
            self.unwritten_bytes += KEY_BYTES + bytes;
        }
        open
    }

    /// Forgets all windows of a segment.
    pub(super) fn forget(&mut self, segment: &str) {
        let Self { by_window, len, .. } = self;
        let mut gone = Vec::new();
        by_window.retain(|window, segments| {
            if let Some((segment, _)) = segments.remove_entry(segment) {
                *len -= 1;
                gone.push((*window, segment));
            }
            !segments.is_empty()
        });
        for (window, segment) in gone {
            self.change(window, &segment, 0);
        }
    }

    fn change(&mut self, window: u64, segment: &Arc<str>, bytes: usize) {
        if self.unwritten.insert((Arc::clone(segment), window)) {
            self.unwritten_bytes += KEY_BYTES + bytes;
        }
    }

    /// Bytes that the next flush will give, about.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.unwritten_bytes
    }

    /// Appends those that changed since the last flush.
    pub(super) fn flush(&mut self, monitor: &str, puts: &mut Vec<Put>) {
        self.unwritten_bytes = 0;
        for (segment, window) in std::mem::take(&mut self.unwritten) {
            let open = self.by_window.get(&window).and_then(|segments| segments.get(&segment));
            puts.push(Put {
                key: open_window_key(monitor, &segment, window),
                value: open.map(encode),
            });
        }
    }
}
