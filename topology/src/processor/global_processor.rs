//! The windows of whole topics, for one partition of the repartition topic: panes in, checks out.
//!
//! ```text
//! pane --of an earlier reference--> left out, counted
//!     \--of this one-------------> merged --each time--> check
//!      \-of a later one---------> (an empty window, measured by that one), merged
//! ```
//!
//! Everything is a function of the repartition topic, in its order: which reference a window is measured by is said by the panes, never by what
//! is known here at the moment. Partitions change over one after the other; until the last one has, the panes of those that have not are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Disposition, Irregular, Monitor, MonitoredWindow, Outputs, Processor, References};
use crate::ids::{Partition, RecordNumber, Timestamp};
use crate::record::{InputRecord, Missing, Rejected};
use crate::reference::ReferenceError;
use crate::repartition::{Content, CountPane, ShippedPane};
use crate::state::{Put, ReadStore, StateError};

/// The processor of one task.
pub struct GlobalProcessor {
    application_id: Arc<str>,
    partition: Partition,
    /// By name.
    monitors: BTreeMap<Arc<str>, Arc<Monitor>>,
    references: Arc<dyn References + Send + Sync>,
    /// By monitor.
    windows: BTreeMap<Arc<str>, MonitoredWindow>,
}

impl GlobalProcessor {
    /// Opens the windows that one partition of the repartition topic of these monitors leads to.
    ///
    /// # Errors
    /// As [`super::DriftProcessor::open`].
    pub fn open(
        application_id: &str,
        partition: Partition,
        monitors: &[Arc<Monitor>],
        references: Arc<dyn References + Send + Sync>,
        store: &dyn ReadStore,
    ) -> Result<Self, StateError> {
        let mut windows = BTreeMap::new();
        for monitor in monitors {
            if let Some(window) = MonitoredWindow::open_global(application_id, partition, monitor, references.as_ref(), store)? {
                windows.insert(Arc::clone(&monitor.name), window);
            }
        }
        Ok(Self {
            application_id: application_id.into(),
            partition,
            monitors: monitors.iter().map(|monitor| (Arc::clone(&monitor.name), Arc::clone(monitor))).collect(),
            references,
            windows,
        })
    }

    fn merge(&mut self, monitor: &Arc<Monitor>, pane: &CountPane) -> Disposition {
        let name = &monitor.name;
        let window = self.windows.get_mut(name);
        let is_same = window
            .as_ref()
            .is_some_and(|window| *window.reference_version() == pane.reference_version);
        if let Some(window) = window {
            if is_same {
                return window.misfit(pane).map_or_else(
                    || Disposition::Processed {
                        check_due: window.merge(pane),
                    },
                    not_a_pane,
                );
            }
            if pane.publication <= window.publication() {
                window.count_stale_pane();
                return Disposition::Processed { check_due: false };
            }
        }
        let Some(mut published) = self.references.version(name, &pane.reference_version) else {
            return Disposition::Waiting {
                monitor: Arc::clone(name),
                version: Arc::clone(&pane.reference_version),
            };
        };
        // As it was when the pane was cut.
        published.number = pane.publication;
        let mut fresh = match MonitoredWindow::new_global(&self.application_id, self.partition, monitor, &published) {
            Ok(fresh) => fresh,
            Err(error) => return not_a_pane(format!("its reference {}: {error}", pane.reference_version)),
        };
        if let Some(fault) = fresh.misfit(pane) {
            return not_a_pane(fault);
        }
        if let Some(before) = self.windows.remove(name) {
            fresh = before.measured_anew(fresh);
        }
        let check_due = fresh.merge(pane);
        self.windows.insert(Arc::clone(name), fresh);
        Disposition::Processed { check_due }
    }
}

fn not_a_pane(what: impl ToString) -> Disposition {
    Disposition::Rejected(Rejected::NotAPane { what: what.to_string() })
}

impl Processor for GlobalProcessor {
    fn process(&mut self, record: &InputRecord<'_>) -> Disposition {
        let Some(value) = record.value else { return Disposition::Tombstone };
        let ShippedPane { monitor, content, .. } = match ShippedPane::read(record.key.unwrap_or_default(), value) {
            Ok(shipped) => shipped,
            Err(error) => return not_a_pane(error),
        };
        let Some(monitor) = self.monitors.get(&monitor).cloned() else {
            return Disposition::Foreign;
        };
        match content {
            Content::Count(pane) => self.merge(&monitor, &pane),
        }
    }

    fn check(&mut self, out: &mut Outputs) {
        for window in self.windows.values_mut().filter(|window| window.is_check_due()) {
            window.check(out);
        }
    }

    fn close_idle(&mut self, _counts_for: &dyn Fn(&Monitor) -> bool) -> bool {
        // Partitions that fall silent fade out of a count window.
        false
    }

    fn offer_references(&mut self, _references: &dyn References) -> Vec<(Arc<str>, ReferenceError)> {
        // The panes say.
        Vec::new()
    }

    fn flush(&mut self, puts: &mut Vec<Put>) {
        for window in self.windows.values_mut() {
            window.flush(puts);
        }
    }

    fn record_number(&self) -> RecordNumber {
        let numbers = self.windows.values().map(|window| window.window().record_number());
        numbers.max().unwrap_or(RecordNumber(0))
    }

    fn stream_time(&self) -> Option<Timestamp> {
        self.windows.values().filter_map(MonitoredWindow::stream_time).max()
    }

    fn windows(&self) -> Vec<&MonitoredWindow> {
        self.windows.values().collect()
    }

    fn verify(&self) -> Result<(), StateError> {
        self.windows.values().try_for_each(MonitoredWindow::verify)
    }

    fn drain_missing(&mut self, _visit: &mut dyn FnMut(&str, &str, Missing, u64)) {
        // Counted where the records were.
    }

    fn drain_irregular(&mut self, visit: &mut dyn FnMut(&str, Irregular, u64)) {
        for window in self.windows.values_mut() {
            window.drain_irregular(visit);
        }
    }
}
