//! What the whole topic is told of a partition's time windows beside their parts: the first that is open, and whether the partition is idle.
//!
//! - It is told after the parts of every window that it says is closed, those of all segments.
//! - It is told when it changes, and once more after the task was opened. That an empty partition has said so is not kept.

use std::sync::Arc;

use super::monitored_window::NO_SEGMENT;
use super::place::Place;
use crate::ids::RecordNumber;
use crate::repartition::{Content, EVERY_SEGMENT, ShippedPane, WindowProgress};
use crate::window::Window;

/// See the module.
pub(super) struct Announcer {
    place: Arc<Place>,
    /// The first open window, and whether the partition is idle. `None`: nothing since the task was opened.
    said: Option<(u64, bool)>,
    /// The partition is idle at its end.
    is_idle: bool,
    is_due: bool,
}

impl Announcer {
    /// `None`: nobody asks.
    pub(super) fn of(place: &Arc<Place>) -> Option<Self> {
        let is_asked = place.ships() && matches!(place.monitor.window, Window::Time(_));
        is_asked.then(|| Self {
            place: Arc::clone(place),
            said: None,
            is_idle: false,
            is_due: false,
        })
    }

    /// Whether [`Self::tell`] has something to do.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// A record was counted, and the first open window is this one by now.
    pub(super) fn observe(&mut self, open_from: u64) {
        self.is_idle = false;
        self.is_due = self.said != Some((open_from, false));
    }

    /// The partition is idle at its end. Says whether that is to be told.
    pub(super) fn idle(&mut self) -> bool {
        let is_told = matches!(self.said, Some((_, true)));
        (self.is_idle, self.is_due) = (true, !is_told);
        self.is_due
    }

    /// What is to be told, when every window before this one has been shipped.
    pub(super) fn tell(&mut self, open_from: u64, record_number: RecordNumber) -> Option<ShippedPane> {
        self.is_due = false;
        let (place, is_idle) = (&self.place, std::mem::take(&mut self.is_idle));
        let state = Some((open_from, is_idle));
        (std::mem::replace(&mut self.said, state) != state).then(|| ShippedPane {
            monitor: Arc::clone(&place.monitor.name),
            segment: if place.monitor.segment_by.is_empty() {
                NO_SEGMENT
            } else {
                EVERY_SEGMENT
            }
            .into(),
            content: Content::Progress(WindowProgress {
                partition: place.partition,
                partitions: place.partitions,
                open_from,
                record_number,
                is_idle,
            }),
        })
    }
}
