//! Where a processor finds references: the published ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::reference::Reference;

/// The references that are known, by monitor and version.
pub trait References {
    /// The monitor's current reference.
    fn current(&self, monitor: &str) -> Option<Arc<Reference>>;

    /// An earlier or the current one: stored panes keep theirs until the window changes over.
    fn version(&self, monitor: &str, version: &str) -> Option<Arc<Reference>>;
}

/// References in memory, as the reference topic tells of them.
#[derive(Clone, Default)]
pub struct PublishedReferences {
    by_monitor: BTreeMap<String, Published>,
}

#[derive(Clone, Default)]
struct Published {
    current: Option<String>,
    versions: BTreeMap<String, Arc<Reference>>,
}

impl PublishedReferences {
    /// Adds a reference under its monitor and version, without making it the current one.
    pub fn add(&mut self, reference: Arc<Reference>) {
        let published = self.by_monitor.entry(reference.monitor().to_owned()).or_default();
        published.versions.insert(reference.version().to_owned(), reference);
    }

    /// Points a monitor at its current version. It counts from when that version is known: the pointer may come first.
    pub fn point(&mut self, monitor: &str, version: &str) {
        self.by_monitor.entry(monitor.to_owned()).or_default().current = Some(version.to_owned());
    }

    /// Adds a reference and makes it its monitor's current one.
    pub fn publish(&mut self, reference: Arc<Reference>) {
        self.point(reference.monitor(), reference.version());
        self.add(reference);
    }
}

impl References for PublishedReferences {
    fn current(&self, monitor: &str) -> Option<Arc<Reference>> {
        let published = self.by_monitor.get(monitor)?;
        published.versions.get(published.current.as_deref()?).map(Arc::clone)
    }

    fn version(&self, monitor: &str, version: &str) -> Option<Arc<Reference>> {
        self.by_monitor.get(monitor)?.versions.get(version).map(Arc::clone)
    }
}
