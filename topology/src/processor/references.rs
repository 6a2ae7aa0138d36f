//! Where a processor finds references: the published ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::reference::Reference;

/// A reference as it was published.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The reference.
    pub reference: Arc<Reference>,
    /// Of two publications the one with the larger number came later: the offset of its record on the reference topic.
    pub number: u64,
}

/// The references that are known, by monitor and version.
pub trait References {
    /// The monitor's current reference.
    fn current(&self, monitor: &str) -> Option<Publication>;

    /// An earlier or the current one: stored panes keep theirs until the window changes over.
    fn version(&self, monitor: &str, version: &str) -> Option<Publication>;

    /// Another number than before: what [`Self::current`] says may have changed.
    fn generation(&self) -> u64 {
        0
    }
}

/// References in memory, as the reference topic tells of them.
#[derive(Clone, Default)]
pub struct PublishedReferences {
    by_monitor: BTreeMap<String, Published>,
}

#[derive(Clone, Default)]
struct Published {
    current: Option<String>,
    versions: BTreeMap<String, Publication>,
}

impl PublishedReferences {
    /// Adds a reference under its monitor and version, without making it the current one.
    pub fn add(&mut self, reference: Arc<Reference>, number: u64) {
        let published = self.by_monitor.entry(reference.monitor().to_owned()).or_default();
        published
            .versions
            .insert(reference.version().to_owned(), Publication { reference, number });
    }

    /// Points a monitor at its current version. It counts from when that version is known: the pointer may come first.
    pub fn point(&mut self, monitor: &str, version: &str) {
        self.by_monitor.entry(monitor.to_owned()).or_default().current = Some(version.to_owned());
    }

    /// How many versions of a monitor's reference there are.
    #[must_use]
    pub fn versions(&self, monitor: &str) -> usize {
        self.by_monitor.get(monitor).map_or(0, |published| published.versions.len())
    }

    /// Adds a reference and makes it its monitor's current one, published after all others.
    pub fn publish(&mut self, reference: Arc<Reference>) {
        let versions = self.by_monitor.values().flat_map(|published| published.versions.values());
        let number = versions.map(|publication| publication.number + 1).max().unwrap_or(0);
        self.point(reference.monitor(), reference.version());
        self.add(reference, number);
    }
}

impl References for PublishedReferences {
    fn current(&self, monitor: &str) -> Option<Publication> {
        let published = self.by_monitor.get(monitor)?;
        published.versions.get(published.current.as_deref()?).cloned()
    }

    fn version(&self, monitor: &str, version: &str) -> Option<Publication> {
        self.by_monitor.get(monitor)?.versions.get(version).cloned()
    }
}
