//! A reference as a monitor measures by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::place::{Place, REMEDY};
use super::{Monitor, Publication, References};
use crate::histogram::Layout;
use crate::quality::ByViolation;
use crate::reference::{Reference, ReferenceError};
use crate::state::{FeatureHead, StateError};

/// A reference with the monitor's features only, and how their counts are laid out.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) reference: Arc<Reference>,
    /// Of the reference as published.
    pub(super) version: Arc<str>,
    /// Its place in the order of publication.
    pub(super) publication: u64,
    pub(super) layout: Layout,
    /// The features whose quality is checked, in the reference's order.
    pub(super) watched: Box<[Watched]>,
}

/// A feature with a limit of quality.
#[derive(Debug)]
pub(super) struct Watched {
    /// Its index in the reference.
    pub(super) feature: usize,
    pub(super) limits: ByViolation,
}

impl Watched {
    /// Whether examples of its values in `other` are wanted.
    pub(super) fn wants_examples(&self) -> bool {
        self.limits.other.is_some()
    }
}

impl Measure {
    pub(super) fn new(monitor: &Monitor, Publication { reference, number }: &Publication) -> Result<Arc<Self>, ReferenceError> {
        reference.require(monitor.named_features())?;
        let version = reference.version().into();
        let reference = match &monitor.features {
            Some(features) => Arc::new(reference.select(features)?),
            None => Arc::clone(reference),
        };
        let layout = Layout::new(reference.features().iter().map(|feature| feature.counts().len()));
        let limits = reference.features().iter().map(|feature| monitor.quality.limits_of(feature));
        let watched = limits.enumerate().filter(|(_, limits)| !limits.is_empty());
        let watched = watched.map(|(feature, limits)| Watched { feature, limits }).collect();
        Ok(Arc::new(Self {
            reference,
            version,
            publication: *number,
            layout,
            watched,
        }))
    }

    /// The name of a feature.
    pub(super) fn name(&self, watched: &Watched) -> &Arc<str> {
        self.reference.features()[watched.feature].name()
    }

    /// The features of whose values in `other` examples are wanted.
    pub(super) fn exemplified(&self) -> impl Iterator<Item = usize> {
        self.watched
            .iter()
            .filter(|watched| watched.wants_examples())
            .map(|watched| watched.feature)
    }

    /// The monitor's current reference, for a window that begins.
    pub(super) fn current(place: &Place, references: &dyn References) -> Result<Arc<Self>, StateError> {
        let published = references
            .current(&place.monitor.name)
            .ok_or_else(|| place.inconsistent("no reference is published: run `leeway reference publish`, or set the monitor's `reference`"))?;
        Self::new(&place.monitor, &published).map_err(|fault| place.inconsistent(format!("its reference cannot be used: {fault}")))
    }

    /// The reference that stored panes were binned by.
    pub(super) fn stored(place: &Place, version: &str, references: &dyn References) -> Result<Arc<Self>, StateError> {
        let published = references.version(&place.monitor.name, version).ok_or_else(|| {
            place.inconsistent(format!(
                "its window was measured against reference {version}, which is not published any more: publish it again, or run `leeway reset`"
            ))
        })?;
        Self::new(&place.monitor, &published).map_err(|fault| place.inconsistent(format!("reference {version}: {fault}: {REMEDY}")))
    }

    /// That the monitor's features still are those of stored panes.
    pub(super) fn expect_features(&self, place: &Place, features: &[FeatureHead]) -> Result<(), StateError> {
        let now = || {
            let features = self.reference.features().iter();
            features.map(|feature| (&**feature.name(), feature.counts().len() as u64))
        };
        let was = || features.iter().map(|FeatureHead { name, bins, .. }| (&**name, *bins));
        if now().eq(was()) {
            return Ok(());
        }
        let (now, was): (Vec<_>, Vec<_>) = (now().collect(), was().collect());
        Err(place.inconsistent(format!("its features (and their bins) were {was:?}, now they are {now:?}: {REMEDY}")))
    }
}

/// Where a window that is read from the store finds what it was measured by.
pub(super) trait Measures {
    /// The measure of a reference's version. Another version's: what is stored does not count any more, the window starts anew by that one.
    fn of(&mut self, place: &Place, version: &str) -> Result<Arc<Measure>, StateError>;
}

/// All windows are measured by one reference.
impl Measures for Arc<Measure> {
    fn of(&mut self, _: &Place, _: &str) -> Result<Arc<Measure>, StateError> {
        Ok(Arc::clone(self))
    }
}

/// Each window is measured by what its panes say. Bounded by the versions that there are.
pub(super) struct ByVersion {
    references: Arc<dyn References + Send + Sync>,
    known: BTreeMap<Arc<str>, Arc<Measure>>,
}

impl ByVersion {
    pub(super) fn new(references: Arc<dyn References + Send + Sync>) -> Self {
        Self {
            references,
            known: BTreeMap::new(),
        }
    }

    /// The measure of a shipped pane, published at `publication`; `None`: its reference is not known here yet.
    pub(super) fn shipped(&mut self, monitor: &Monitor, version: &str, publication: u64) -> Result<Option<Arc<Measure>>, ReferenceError> {
        if let Some(measure) = self.known.get(version) {
            return Ok(Some(Arc::clone(measure)));
        }
        let Some(mut published) = self.references.version(&monitor.name, version) else {
            return Ok(None);
        };
        // As it was when the pane was cut.
        published.number = publication;
        let measure = Measure::new(monitor, &published)?;
        self.known.insert(Arc::clone(&measure.version), Arc::clone(&measure));
        Ok(Some(measure))
    }
}

impl Measures for ByVersion {
    fn of(&mut self, place: &Place, version: &str) -> Result<Arc<Measure>, StateError> {
        if let Some(measure) = self.known.get(version) {
            return Ok(Arc::clone(measure));
        }
        let measure = Measure::stored(place, version, self.references.as_ref())?;
        self.known.insert(Arc::clone(&measure.version), Arc::clone(&measure));
        Ok(measure)
    }
}
